"""What must hold of the model whatever its weights."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from morph.layout import Conditions, Statistics
from morph.model.mixer import AxialAttention
from morph.model.morph import Capacity, Morph
from morph.normalisation import linear_extrapolation
from tests.conftest import ROOT

SMALL = {"dim": 32, "depth": 2, "heads": 4, "field_heads": 8, "patch_size": 4}


def build(**options: object) -> Morph:
    """A small model whose decoder is not zero, so that everything before it counts."""
    torch.manual_seed(0)
    model = Morph(**{**SMALL, "capacity": Capacity(3, 3, 4, 64), **options})
    for parameter in model.decoder.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval().requires_grad_(False)


def frames(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def conditions(mask: list[list[bool]], boundary: str = "open", statistics: Statistics | None = None) -> Conditions:
    return Conditions(torch.tensor(mask), (boundary, boundary, boundary), statistics)


@pytest.mark.parametrize(
    ("size", "max_context", "millions"),
    [
        ("ti", 1, 9.864),
        ("s", 1, 32.830),
        ("m", 1, 125.602),
        ("lt", 8, 231.42),
        ("l", 1, 420.379),
        ("l", 16, 483.293),
        ("xl", 8, 1124.66),
    ],
)
def test_parameter_counts_are_those_published(size: str, max_context: int, millions: float) -> None:
    config = OmegaConf.load(ROOT / "conf" / "model" / f"{size}.yaml")
    config.capacity.max_context = max_context
    config.local = None  # not published
    with torch.device("meta"):
        model = instantiate(config)
    decimals = len(str(millions).split(".")[1])
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, decimals) == millions


@pytest.mark.parametrize("shape", [(1, 1, 64), (1, 16, 24), (8, 4, 16)])
@pytest.mark.parametrize("predict", ["increment", "frame"])
def test_context_normalisation_commutes_with_affine_maps(shape: tuple[int, int, int], predict: str) -> None:
    """f(a x + b) = a f(x) + b, for a per field and b per component."""
    model = build(predict=predict).double()
    x = frames(2, 3, 2, 2, *shape).double()
    a = torch.tensor([1e-3, 40.0]).double().view(2, 1, 1, 1, 1)
    b = torch.tensor([[7.0, -2.0], [0.3, 100.0]]).double().view(2, 2, 1, 1, 1)
    assert torch.allclose(model(a * x + b), a * model(x) + b, rtol=1e-9)


@pytest.mark.parametrize("base", ["persistence", "linear"])
def test_an_untrained_model_of_increments_is_its_base_forecast(base: str) -> None:
    model = Morph(**SMALL, base=base).eval()
    x = frames(2, 4, 2, 2, 1, 8, 8)
    expected = x[:, -1] if base == "persistence" else 2 * x[:, -1] - x[:, -2]
    assert torch.equal(model(x), expected)


def test_linear_extrapolation_is_exact_for_fields_linear_in_time() -> None:
    time = torch.arange(5.0).view(1, 5, 1, 1, 1, 1, 1)
    x = frames(2, 1, 2, 1, 1, 8, 8) + time * frames(2, 1, 2, 1, 1, 8, 8, seed=2)
    assert torch.allclose(linear_extrapolation(x[:, :4]), x[:, 4], atol=1e-5)


@pytest.mark.parametrize("shift", [4, 8])
def test_rolling_the_input_by_whole_patches_rolls_the_output_without_positions(shift: int) -> None:
    """In 1-D and 2-D, away from the zero padding of the convolution, whose kernel is made a single tap here."""
    model = build()
    model.positions.table.data.zero_()
    for layer in model.embedding.convolution.stack:
        layer.weight.data *= (torch.arange(27) == 13).view(3, 3, 3)
    x = frames(1, 2, 2, 1, 1, 16, 24)
    assert torch.allclose(model(x.roll(shift, -1)), model(x).roll(shift, -1), atol=1e-5)
    assert torch.allclose(model(x.roll(shift, -2)), model(x).roll(shift, -2), atol=1e-5)


def test_a_field_reaches_every_other_and_every_place_and_every_frame() -> None:
    model = build()
    x = frames(1, 3, 2, 1, 4, 8, 8).requires_grad_()
    model(x)[0, 0, 0, 0, 0, 0].backward()
    # Two blocks of axial attention carry what happens anywhere to everywhere.
    assert (x.grad.abs().amax((0, 4, 5, 6)) > 0).all()
    assert (x.grad[0, 2, 1, 0] != 0).float().mean() > 0.99


@pytest.mark.parametrize("shape", [(1, 1, 37), (1, 9, 14), (5, 6, 7), (1, 1, 3), (1, 2, 17)])
@pytest.mark.parametrize("boundary", ["periodic", "open", "wall"])
def test_any_grid_is_padded_by_its_boundary_and_cropped(shape: tuple[int, int, int], boundary: str) -> None:
    model = build(predict="frame", normalisation="none")
    x = frames(2, 2, 2, 2, *shape)
    mode = {"periodic": "wrap"}.get(boundary, "edge")
    missing = [0 if size == 1 else -size % 4 for size in shape]
    padded = torch.from_numpy(np.pad(x.numpy(), [(0, 0)] * 4 + [(0, extra) for extra in missing], mode=mode))
    known = conditions([[True, True], [True, True]], boundary)
    d, h, w = shape
    assert torch.allclose(model(x, known), model(padded, known)[..., :d, :h, :w], atol=1e-6)


def test_a_filler_component_changes_nothing_and_stays_zero() -> None:
    """A scalar alone and a scalar beside a zero filler give the same scales; the filler of the forecast is zero."""
    model = build()
    x = frames(2, 3, 1, 2, 1, 8, 8)
    x[:, :, :, 1] = 0
    known = conditions([[True, False]])
    assert torch.equal(model(x, known)[:, :, 1], torch.zeros(2, 1, 1, 8, 8))
    assert torch.allclose(model.unit_of_error(x, known), model.unit_of_error(x[:, :, :, :1]))


def test_scales_are_those_of_the_definition() -> None:
    model = build()
    x = frames(2, 3, 2, 2, 1, 8, 8)
    scales = model.normalisation.scales(x, conditions([[True, True], [True, True]]))
    vector = x[1, :, 0]
    by_component = vector - vector.mean((0, 2, 3, 4), keepdim=True)
    assert torch.allclose(scales.std[1, 0], by_component.square().mean().sqrt())
    assert torch.allclose(scales.increment[1, 0], vector.diff(dim=0).square().mean().sqrt())


def test_a_field_at_rest_takes_the_scales_of_the_data_set() -> None:
    model = build()
    statistics = Statistics(torch.tensor([[0.0], [5.0]]), torch.tensor([3.0, 2.0]), torch.tensor([0.5, 0.25]))
    x = frames(2, 3, 2, 1, 1, 8, 8)
    x[:, :, 1] = 5.0
    scales = model.normalisation.scales(x, conditions([[True], [True]], statistics=statistics))
    assert torch.equal(scales.std[:, 1], torch.tensor([2.0, 2.0]))
    assert torch.equal(scales.increment[:, 1], torch.tensor([0.25, 0.25]))
    assert (scales.std[:, 0] != 3.0).all()
    for level in (5.0, 5.1, 1.3e5):  # 5.1 is no float32 number: its mean and spread are those of rounding
        x[:, :, 1] = level
        without = model.normalisation.scales(x, conditions([[True], [True]]))
        assert torch.allclose(without.std[:, 1], torch.tensor(level))
        assert torch.allclose(without.increment[:, 1], torch.tensor(level))
    assert torch.isfinite(model(x)).all()
    assert torch.isfinite(model(torch.zeros_like(x))).all()


def test_one_frame_takes_the_increment_scale_of_the_data_set() -> None:
    statistics = Statistics(torch.zeros(1, 1), torch.tensor([3.0]), torch.tensor([0.5]))
    scales = build().normalisation.scales(frames(2, 1, 1, 1, 1, 8, 8), conditions([[True]], statistics=statistics))
    assert torch.equal(scales.increment, torch.tensor([[0.5], [0.5]]))


def test_dataset_normalisation_is_that_of_the_training_split() -> None:
    statistics = Statistics(torch.tensor([[2.0]]), torch.tensor([3.0]), torch.tensor([0.5]))
    known = conditions([[True]], statistics=statistics)
    model = build(normalisation="dataset", predict="frame")
    plain = build(normalisation="none", predict="frame")
    x = frames(2, 2, 1, 1, 1, 8, 8)
    assert torch.allclose(model(x, known), 3 * plain((x - 2) / 3) + 2, atol=1e-5)
    with pytest.raises(ValueError, match="normalisation=dataset needs the statistics"):
        model(x)


def test_the_configuration_rebuilds_the_model() -> None:
    model = build(mixer=partial(AxialAttention), normalisation="none")
    again = Morph.from_config(json.loads(json.dumps(model.config)))
    again.load_state_dict(model.state_dict())
    x = frames(1, 2, 3, 1, 1, 8, 8)
    assert torch.equal(again.eval()(x), model(x))


def test_a_stored_mixer_from_elsewhere_is_not_imported() -> None:
    for target in ("os.system", "morph.data.catalogue.instantiate", "morph.model.mixer.functional", "torch.hub.load"):
        config = {**build().config, "mixer": {"_target_": target}}
        with pytest.raises(ValueError, match=rf"'{target}', which is no module of morph or torch\.nn; .*MORPH_TRUST="):
            Morph.from_config(config)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 5, 1, 1, 1, 8, 8), r"5 context frames, the model takes at most 4.*max_context=5"),
        ((1, 2, 4, 1, 1, 8, 8), r"4 fields, the model takes at most 3.*max_fields=4"),
        ((1, 2, 1, 4, 1, 8, 8), r"4 components, the model takes at most 3.*max_components=4"),
    ],
)
def test_data_beyond_the_capacity_is_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()(frames(*shape))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalisation": "batch"}, "context, dataset, none, found 'batch'"),
        ({"predict": "delta"}, "increment, frame, found 'delta'"),
        ({"base": "cubic"}, "persistence, linear, found 'cubic'"),
        ({"predict": "frame", "base": "linear"}, "no effect"),
        ({"filters": 12}, "8 times a power of two"),
        ({"heads": 5}, "divisor of dim = 32, found 5"),
        ({"field_heads": 5}, "divisor of dim = 32, found 5"),
        ({"resample_positions": "cubic"}, "linear, bilinear, found 'cubic'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.gpu
def test_a_gpu_gives_the_numbers_of_the_cpu() -> None:
    model, x = build(), frames(2, 3, 2, 2, 8, 8, 16)
    expected = model(x)
    assert torch.allclose(model.cuda()(x.cuda()).cpu(), expected, rtol=1e-3, atol=1e-4)
