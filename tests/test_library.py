"""The baselines of other libraries and the naive forecasts, behind the call of a Morph."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from morph.baselines import NAIVE
from morph.checkpoint import load_checkpoint, read_checkpoint
from morph.cost import count_operations
from morph.layout import Conditions
from morph.model.build import build
from morph.model.library import FNO, UNet
from morph.model.naive import Naive
from morph.model.surrogate import Capacity, Surrogate
from tests.conftest import ROOT

CAPACITY = Capacity(max_context=3, max_fields=2, max_components=2)
GRIDS = {1: (1, 1, 20), 2: (1, 12, 20), 3: (8, 12, 10)}
KNOWN = Conditions(torch.tensor([[True, True], [True, False]]), ("periodic", "periodic", "periodic"))


def _model(kind: str, dimensions: int) -> Surrogate:
    """With weights that are not zero anywhere, so that it does something."""
    torch.manual_seed(dimensions)
    small: dict[str, Any] = {"FNO": {"modes": 6, "width": 8, "depth": 2}, "U-Net": {"width": 8}}[kind]
    model = {"FNO": FNO, "U-Net": UNet}[kind](dimensions=dimensions, capacity=CAPACITY, **small)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def _context(dimensions: int, batch: int = 2) -> Tensor:
    torch.manual_seed(7)
    frames = torch.randn(batch, 3, 2, 2, *GRIDS[dimensions])
    return frames * KNOWN.component_mask[..., None, None, None]


KINDS = pytest.mark.parametrize("kind", ["FNO", "U-Net"])
DIMENSIONS = pytest.mark.parametrize("dimensions", [1, 2, 3])


@KINDS
@DIMENSIONS
def test_training_starts_at_persistence(kind: str, dimensions: int) -> None:
    model = {"FNO": FNO, "U-Net": UNet}[kind](dimensions=dimensions, capacity=CAPACITY, width=8)
    context = _context(dimensions)
    torch.testing.assert_close(model(context, KNOWN), context[:, -1], rtol=0, atol=0)


@KINDS
@DIMENSIONS
def test_units_do_not_matter(kind: str, dimensions: int) -> None:
    """f(a x + b) = a f(x) + b, for each field its own a and b; fillers stay zero."""
    model = _model(kind, dimensions)
    context = _context(dimensions)
    mask = KNOWN.component_mask[..., None, None, None]
    a = torch.tensor([3.0, 0.2])[:, None, None, None, None]
    b = torch.tensor([[10.0, -4.0], [0.5, 0.0]])[..., None, None, None]
    with torch.no_grad():
        state = model(context, KNOWN)
        other = model((a * context + b) * mask, KNOWN)
    assert not other[:, 1, 1].any()
    assert (state - context[:, -1]).std() > 0.01
    torch.testing.assert_close(other, (a * state + b) * mask, rtol=1e-4, atol=1e-3)


@KINDS
@DIMENSIONS
def test_its_own_description_and_weights_give_the_same_forecast(kind: str, dimensions: int) -> None:
    model = _model(kind, dimensions)
    with torch.device("meta"):
        again = build(model.config)
    again.restore(model.state_dict())
    context = _context(dimensions)
    assert all(value.dtype == torch.float32 for value in model.state_dict().values())
    torch.testing.assert_close(again(context, KNOWN), model(context, KNOWN), rtol=0, atol=0)


@DIMENSIONS
def test_the_operator_is_that_of_the_library(dimensions: int) -> None:
    """Its complex parameters are kept as real ones: put back into the library's module, that gives the same."""
    model = _model("FNO", dimensions)
    assert isinstance(model, FNO)
    from neuralop import models

    # The places of the points are channels of ours, and added by theirs.
    channels = torch.randn(2, 12, *GRIDS[dimensions][3 - dimensions :])
    theirs = models.FNO(n_modes=(6,) * dimensions, hidden_channels=8, n_layers=2, in_channels=12, out_channels=4)
    for name, parameter in theirs.named_parameters():
        ours = model.weights[name.replace(".", "/")].detach()
        parameter.data = torch.view_as_complex(ours) if parameter.is_complex() else ours
    assert sum(p.is_complex() for p in theirs.parameters()) == 2
    torch.testing.assert_close(model.network(channels), theirs(channels), rtol=0, atol=0)


def test_an_operator_forecasts_on_a_finer_grid() -> None:
    """A band-limited field is the same function on both grids, and so is its forecast, as far as the nonlinearity
    between the layers does not add what the coarser grid cannot hold."""
    model = _model("FNO", 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 0.3
    coarse, fine = (
        torch.stack([torch.sin(2 * torch.pi * (torch.arange(n) / n + shift)) for shift in (0.0, 0.1, 0.2)])
        for n in (64, 128)
    )
    states = [model(wave[None, :, None, None, None, None].expand(1, 3, 2, 2, 1, 1, -1)) for wave in (coarse, fine)]
    change = (states[0] - coarse[-1]).abs().max()
    assert (states[1][..., ::2] - states[0]).abs().max() < 0.05 * change


@KINDS
def test_every_weight_learns(kind: str) -> None:
    model = _model(kind, 2)
    model.train()
    model(_context(2), KNOWN).square().sum().backward()
    dead = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert not dead


@pytest.mark.parametrize("base", ["persistence", "linear"])
def test_naive_models_are_the_naive_forecasts(base: str) -> None:
    model = build(Naive(capacity=CAPACITY, base=base).config)
    context = _context(2)
    expected = NAIVE["persistence" if base == "persistence" else "extrapolation"](context, KNOWN)
    torch.testing.assert_close(model(context, KNOWN), expected, rtol=0, atol=0)
    assert not list(model.parameters())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the FNO is made for 1-D data, found \(D, H, W\) = \(1, 12, 20\)"):
        _model("FNO", 1)(_context(2))
    with pytest.raises(
        ValueError,
        match="the input: this U-Net sees 3 frames of context and no other number, found 2;",
    ):
        _model("U-Net", 2)(_context(2)[:, :2])
    with pytest.raises(ValueError, match=r"the U-Net needs two points along each axis"):
        _model("U-Net", 2)(torch.randn(1, 3, 2, 2, 1, 1, 20))
    with pytest.raises(ValueError, match=r"model.width: expected a multiple of 8, found 20"):
        UNet(dimensions=1, capacity=CAPACITY, width=20)
    with pytest.raises(ValueError, match=r"model.modes: expected a positive integer for 2-D data, found None"):
        FNO(dimensions=2, capacity=CAPACITY, modes={"in_1d": 4})
    with pytest.raises(ValueError, match=r"is of a 'os\.system'; expected one of Morph, FNO, U-Net, naive"):
        build({"kind": "os.system"})


def test_operations_of_a_transform_and_of_complex_products() -> None:
    x, matrix = torch.randn(3, 64), torch.randn(8, 8)
    assert count_operations(lambda: torch.fft.fft(x.to(torch.cfloat))) == 3 * 5 * 64 * 6
    assert count_operations(lambda: torch.fft.rfft(x)) == 3 * 2.5 * 64 * 6
    assert count_operations(lambda: matrix.to(torch.cfloat) @ matrix.to(torch.cfloat)) == 4 * 2 * 8**3


@pytest.mark.parametrize("name", ["fno", "unet", "persistence", "extrapolation"])
def test_a_run_from_training_to_evaluation(
    call: Callable[..., Any], suite_root: Path, tmp_path: Path, name: str
) -> None:
    """By the same commands; a naive forecast scores what it scores in every table."""
    small = {"fno": ["model.modes.in_2d=8", "model.width.in_2d=8"], "unet": ["model.width.in_2d=8"]}.get(name, [])
    done = call(
        "morph.train", f"model={name}", *small, "data=swe2d", "level=tiny", f"data_dir={suite_root}", "batch_size=2",
        "mixture.steps_per_epoch=2", "trainer.max_epochs=1", "loader.validation_windows=2", "run_dir=run",
        "trainer.log_every_n_steps=1", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    checkpoint = read_checkpoint(tmp_path / "run")
    assert checkpoint.config["capacity"]["max_components"] == 2
    done = call("morph.export", "checkpoint=run", "out=export", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    one, other = load_checkpoint(tmp_path / "run"), load_checkpoint(tmp_path / "export")
    context = torch.randn(1, 4, 2, 2, 1, 32, 32)
    torch.testing.assert_close(one(context), other(context), rtol=0, atol=0)
    done = call("morph.evaluate", "checkpoint=run", "one_step_windows=2", "steps=2", "figures=false", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "run" / "evaluation" / "summary.json").read_text())["swe2d"]
    cost = found["cost"]["model"]
    assert cost["parameters"] == sum(p.numel() for p in one.parameters())
    if name in NAIVE:
        assert cost["gflop"] == 0
        assert cost["training_seconds"] == 0
        assert found["one_step_vrmse"] == found[f"{name}_vrmse"]
        assert found["rollout_vrmse"] == found[f"{name}_rollout_vrmse"]
    else:
        known = torch.ones(2, 2, dtype=torch.bool)
        assert cost["gflop"] * 1e9 == pytest.approx(count_operations(lambda: one(context, Conditions(known))))
        assert cost["training_seconds"] == checkpoint.seconds > 0
        assert cost["inference_ms"] > 0


def test_a_resumed_run_of_an_operator_is_the_uninterrupted_one(
    call: Callable[..., Any], suite_root: Path, tmp_path: Path
) -> None:
    options = (
        "morph.train", "model=fno", "model.modes.in_1d=8", "model.width.in_1d=8", "data=cfd1d", "level=tiny",
        f"data_dir={suite_root}", "mixture.steps_per_epoch=2", "loader.validation_windows=2", "trainer.max_epochs=2",
        "trainer.log_every_n_steps=1",
    )  # fmt: skip
    for more in (["run_dir=whole"], ["run_dir=half", "+trainer.max_steps=2"], ["run_dir=half", "resume=half"]):
        schedule = ["schedule=null"]
        done = call(*options, *schedule, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    whole, half = (read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "half"))
    assert whole.steps == half.steps == 4
    for name, value in whole.weights.items():
        torch.testing.assert_close(half.weights[name], value, rtol=0, atol=0)
    assert half.seconds is not None


def test_one_model_of_a_library_takes_one_number_of_dimensions(
    call: Callable[..., Any], suite_root: Path, tmp_path: Path
) -> None:
    where = ("level=tiny", f"data_dir={suite_root}", "run_dir=run")
    done = call("morph.train", "model=unet", "data=[cfd1d,swe2d]", *where, cwd=tmp_path)
    assert done.returncode == 1
    assert "takes data of one number of dimensions, and cfd1d is 1-D, swe2d is 2-D; train one for each" in done.stderr
    done = call("morph.train", "model=unet", "data=cfd1d", "execution.compile=true", *where, cwd=tmp_path)
    assert "execution.compile works on the blocks of a Morph" in done.stderr
    assert not (tmp_path / "run").exists()


def test_their_configurations_have_about_three_million_parameters() -> None:
    """As the size nano, that they stand beside."""
    for name in ("fno", "unet"):
        for dimensions, fields, components in ((1, 3, 1), (2, 2, 2), (3, 3, 3)):
            capacity = {"max_context": 4, "max_fields": fields, "max_components": components}
            config = OmegaConf.load(ROOT / "conf" / "model" / f"{name}.yaml")
            model = instantiate(config, dimensions=dimensions, capacity=capacity)
            assert 2.3e6 < sum(p.numel() for p in model.parameters()) < 3.6e6


@pytest.mark.parametrize("normalisation", ["dataset", "none"])
def test_it_is_judged_in_the_scales_that_it_was_trained_in(
    call: Callable[..., Any], suite_root: Path, tmp_path: Path, normalisation: str
) -> None:
    small = ("model.modes.in_1d=8", "model.width.in_1d=8", f"model.normalisation={normalisation}")
    done = call(
        "morph.train", "model=fno", *small, "data=cfd1d", "level=tiny", f"data_dir={suite_root}", "run_dir=run",
        "mixture.steps_per_epoch=1", "trainer.max_epochs=1", "loader.validation_windows=2",
        "trainer.log_every_n_steps=1", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    judged = ("checkpoint=run", "compare={same:run}", "one_step_windows=2", "steps=2", "figures=false")
    done = call("morph.evaluate", *judged, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "run" / "evaluation" / "summary.json").read_text())["cfd1d"]
    assert found["one_step_ratio_to_same"] == 1


def test_a_naive_model_cannot_be_resumed(call: Callable[..., Any], suite_root: Path, tmp_path: Path) -> None:
    options = ("model=persistence", "data=cfd1d", "level=tiny", f"data_dir={suite_root}", "loader.validation_windows=2")
    assert call("morph.train", *options, "run_dir=run", cwd=tmp_path).returncode == 0
    done = call("morph.train", *options, "resume=run", cwd=tmp_path)
    assert done.returncode == 1
    assert "has no parameters, so there is nothing to continue" in done.stderr
