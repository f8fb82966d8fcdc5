"""The model computes what the plain arithmetic does, outputs and gradients, whatever is added to its layers.

`pytest -k plain -v` shows the largest relative differences.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.nn.utils import parametrize

from morph.model.dropout import Dropout
from morph.model.folding import is_plain
from morph.model.mixer import AxialAttention, Block
from morph.model.morph import Morph
from morph.model.reference import load_reference
from tests.plain_model import PlainModel

SMALL = {
    "patch_size": 4,
    "dim": 32,
    "depth": 2,
    "heads": 4,
    "heads_xa": 8,
    "mlp_dim": 48,
    "max_ar": 3,
    "max_patches": 64,
}
SHAPES = {
    "1d": (2, 1, 3, 1, 1, 1, 64),
    "1d-many-tokens": (16, 1, 2, 3, 1, 1, 128),
    "1d-context": (4, 3, 3, 1, 1, 1, 64),
    "1d-one-field": (2, 2, 1, 3, 1, 1, 64),
    "1d-one-patch": (2, 2, 2, 1, 1, 1, 4),
    "2d": (2, 1, 2, 1, 1, 16, 24),
    "2d-one-field": (8, 1, 1, 2, 1, 32, 32),
    "2d-context": (2, 3, 2, 3, 1, 16, 24),
    "2d-narrow": (2, 2, 2, 1, 1, 4, 24),
    "3d": (1, 1, 3, 3, 8, 12, 16),
    "3d-context": (2, 2, 1, 3, 8, 12, 16),
    "3d-flat": (2, 1, 2, 1, 8, 1, 16),
    "3d-narrow": (1, 1, 2, 1, 8, 12, 4),
    "3d-narrow-context": (1, 3, 2, 1, 8, 12, 1),
    "3d-narrow-many-tokens": (8, 1, 1, 1, 8, 12, 4),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "small": SMALL,
    "filters": {**SMALL, "conv_filter": 32},
    "large": {**SMALL, "model_size": "L"},
    "large-one-frame": {**SMALL, "model_size": "L", "max_ar": 1},
}


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    """Rounding must not hide a difference."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def pair(seed: int = 0, **options: Any) -> tuple[PlainModel, Morph]:
    """The plain model and ours with its weights, in float64 and without dropout."""
    torch.manual_seed(seed)
    plain = PlainModel(**options).eval()
    return plain, load_reference(plain.state_dict(), options)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize(
    ("options", "shape"),
    [("small", shape) for shape in SHAPES]
    + [("filters", shape) for shape in ("1d", "2d", "3d")]
    + [("large", shape) for shape in ("2d", "2d-context", "1d-context")]
    + [("large-one-frame", "2d")],
)
def test_plain_arithmetic(options: str, shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    plain, model = pair(**OPTIONS[options])
    x = normal(*SHAPES[shape]).requires_grad_()
    expected = plain(x)
    weight = normal(*expected.shape, seed=2)  # a gradient that differs from place to place
    (expected * weight).sum().backward()
    input_gradient, x.grad = x.grad, None
    found = model(x)
    (found * weight).sum().backward()
    errors = {"output": relative(found, expected), "input gradient": relative(x.grad, input_gradient)}
    # The plain model's gradients, brought into our names by what brings its weights there.
    gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in plain.named_parameters()}
    expected_gradients = dict(load_reference(gradients, OPTIONS[options]).named_parameters())
    largest = max(p.abs().max().item() for p in expected_gradients.values())
    worst = 0.0
    for name, parameter in model.named_parameters():
        reference = expected_gradients[name].detach()
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        # Where the plain gradient vanishes by cancellation, its rounding is measured by the largest gradient.
        scale = max(reference.abs().max().item(), 1e-6 * largest)
        worst = max(worst, (gradient - reference).abs().max().item() / scale)
    errors["gradients"] = worst
    with capsys.disabled():
        print("  " + "  ".join(f"{part} {error:.1e}" for part, error in errors.items()), end="  ")
    assert max(errors.values()) < 1e-10


def test_the_latent_tokens_hold_all_frames_and_end_in_the_forecast() -> None:
    """`encode` computes every frame in the last block, `forward` only the last one."""
    plain, model = pair(**SMALL)
    x = normal(2, 3, 2, 1, 1, 16, 24)
    _, latent, _ = plain.stages(x)
    assert relative(model.encode(x), latent) < 1e-10


@pytest.mark.parametrize("most", [7, 30])
def test_attention_over_more_sequences_than_one_call_takes(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Along the last axis they are places, along the first one heads of all places behind it."""
    plain, model = pair(**SMALL)
    monkeypatch.setattr("morph.model.mixer._MOST_SEQUENCES", most)
    x = normal(2, 3, 2, 3, 8, 12, 16)
    assert relative(model(x), plain(x)) < 1e-10


# Everything below: whatever is added to a layer takes effect, although its weights are otherwise used without it.

FULL = normal(2, 3, 3, 3, 8, 8, 8)  # all axes, several fields: every layer counts
SLICE = normal(2, 1, 2, 3, 8, 12, 4)  # the last axis absent
LINE = normal(32, 1, 1, 3, 1, 1, 64)  # axes that are absent, one field: what is folded into single products


def linears(model: Morph) -> Iterator[tuple[str, nn.Linear]]:
    yield from ((name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear))


def folded_on_a_line(name: str) -> bool:
    """Layers whose weights are used without calling them, for `LINE`."""
    return name.endswith(("depth.v", "depth.o", "height.v", "height.o")) or name.startswith(
        ("embedding.projection", "embedding.field_attention.v", "embedding.field_attention.o", "decoder.linear")
    )


def test_every_adapter_changes_the_output_and_receives_a_gradient() -> None:
    _, model = pair(**SMALL)
    names = [name for name, _ in linears(model)]
    before = {id(x): model(x) for x in (FULL, SLICE, LINE)}
    inject_adapter_in_model(LoraConfig(r=2, target_modules=names, init_lora_weights=False), model)
    factors = {name: p for name, p in model.named_parameters() if "lora_B" in name}
    assert len(factors) == len(names)
    weights = {name: p.detach().clone() for name, p in factors.items()}
    for x, counts in ((FULL, lambda name: True), (SLICE, lambda name: name.endswith(".v")), (LINE, folded_on_a_line)):
        for factor in factors.values():
            factor.data.zero_()
        assert relative(model(x), before[id(x)]) < 1e-12
        for name, factor in factors.items():
            layer = name.split(".lora_B")[0]
            absent = x is not FULL and ".time." in layer
            if not counts(layer) or absent:
                continue
            factor.data.copy_(weights[name])
            changed = model(x)
            assert relative(changed, before[id(x)]) > 1e-9, layer
            changed.square().sum().backward()
            assert factor.grad.abs().max() > 0, layer
            factor.data.zero_()
            model.zero_grad()


def plain_with_factors() -> PlainModel:
    torch.manual_seed(0)
    plain = PlainModel(**SMALL, lora_r_attn=2, lora_r_mlp=3).eval()
    for name, parameter in plain.named_parameters():
        if name.endswith(".B"):
            nn.init.normal_(parameter, std=0.3)
    return plain


def test_an_adapter_counts_as_its_product_added_to_the_weight() -> None:
    """Independent path: the adapters' products in the weights."""
    plain = plain_with_factors()
    state = plain.state_dict()
    merged = {}
    for name, value in state.items():
        if name.endswith(".base.weight"):
            stem = name.removesuffix("base.weight")
            value = value + 2 * state[stem + "B"] @ state[stem + "A"]
        if not name.endswith((".A", ".B")):
            merged[name] = value
    model = load_reference(merged, SMALL)
    for x in (FULL, SLICE, LINE):
        assert relative(model(x), plain(x)) < 1e-10


def test_an_adapter_of_the_file_computes_what_the_plain_factors_do() -> None:
    plain = plain_with_factors()
    model = load_reference(plain.state_dict(), SMALL)
    for x in (FULL, SLICE, LINE):
        assert relative(model(x), plain(x)) < 1e-10


@pytest.mark.parametrize("kind", ["forward", "pre", "global", "replaced", "subclass", "parametrised"])
def test_hooks_and_replaced_layers_take_effect(kind: str) -> None:
    """Each of them doubles what a layer gives, which doubling its weight and bias does as well."""
    for name, _ in linears(pair(**SMALL)[1]):
        if not folded_on_a_line(name):
            continue
        _, expected = pair(**SMALL)
        layer = expected.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        layer.weight.data *= 2
        if kind != "parametrised":
            layer.bias.data *= 2
        _, model = pair(**SMALL)
        changed = model.get_submodule(name)
        handle = None
        if kind == "forward":
            changed.register_forward_hook(lambda module, args, output: 2 * output)
        elif kind == "pre":
            changed.bias.data *= 2
            changed.register_forward_pre_hook(lambda module, args: (2 * args[0],))
        elif kind == "global":
            handle = nn.modules.module.register_module_forward_hook(
                lambda module, args, output, changed=changed: 2 * output if module is changed else None
            )
        elif kind == "replaced":
            model.set_submodule(name, Doubled(changed))
        elif kind == "subclass":  # as quantised layers are
            changed.__class__ = DoublingLinear
        else:
            parametrize.register_parametrization(changed, "weight", Twice())
        try:
            assert relative(model(LINE), expected(LINE)) < 1e-12, name
        finally:
            if handle:
                handle.remove()


class Doubled(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.layer(x)


class DoublingLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class Twice(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def test_a_hook_on_a_convolution_takes_effect() -> None:
    plain, model = pair(**SMALL, conv_filter=16)
    seen = []
    for layer in (model.embedding.convolution.expand, *model.embedding.convolution.stack):
        layer.register_forward_hook(lambda module, args, output: seen.append(module))
    assert relative(model(LINE), plain(LINE)) < 1e-10
    assert len(seen) == 3


def test_weights_given_from_outside_and_layers_without_a_bias() -> None:
    _, model = pair(**SMALL)
    state = {name: value.detach() + 0.01 for name, value in model.named_parameters()}
    _, expected = pair(**SMALL)
    expected.load_state_dict(state)
    assert relative(torch.func.functional_call(model, state, (LINE,)), expected(LINE)) < 1e-12
    for name in ("decoder.linear", "embedding.projection", "embedding.field_attention.v", "blocks.0.mixer.depth.o"):
        _, expected = pair(**SMALL)
        layer = expected.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        without = nn.Linear(layer.in_features, layer.out_features, bias=False)
        without.weight.data.copy_(layer.weight)
        layer.bias.data.zero_()
        _, model = pair(**SMALL)
        model.set_submodule(name, without)
        assert relative(model(LINE), expected(LINE)) < 1e-12, name


def test_what_a_hook_has_seen_stays_as_it_was() -> None:
    """Also where a field is one patch and nothing has to be moved."""
    plain, model = pair(**SMALL)
    seen: list[Tensor] = []
    model.embedding.convolution.register_forward_hook(
        lambda module, args, output: seen.extend((output, output.clone()))
    )
    x = normal(2, 1, 2, 1, 1, 1, 4)
    assert relative(model(x), plain(x)) < 1e-10
    assert torch.equal(*seen)


class Twofold(AxialAttention):
    """Made of the mixer that is here, with the protocol's signature."""

    def forward(self, tokens: Tensor) -> Tensor:  # type: ignore[override]
        return 2 * super().forward(tokens)


def test_a_mixer_made_of_axial_attention_keeps_to_the_protocol() -> None:
    model = Morph(dim=32, depth=1, heads=4, field_heads=8, patch_size=4, mixer=Twofold, predict="frame").eval()
    x = normal(1, 3, 2, 1, 1, 8, 8)
    assert torch.equal(model.blocks[0](model.embedding(x), last_only=True), model.blocks[0](model.embedding(x))[:, -1:])


def test_is_plain_sees_what_was_added() -> None:
    block = Block(dim=8, heads=2, mlp_dim=16, dropout=0.0, mixer=AxialAttention)
    assert is_plain(block.mixer)
    assert is_plain(nn.Linear(2, 2), nn.Conv3d(1, 1, 1))
    block.mixer.width.v.forward = block.mixer.width.v.forward
    assert not is_plain(block.mixer)
    assert not is_plain(nn.Bilinear(2, 2, 2))
    assert not is_plain(type("Linear", (nn.Linear,), {})(2, 2))


class KeepsShape(nn.Module):
    """A mixer by the protocol alone: it knows nothing of `last_only`."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.linear(tokens.cumsum(1))


def test_another_mixer_needs_only_to_keep_the_shape() -> None:
    torch.manual_seed(0)
    model = Morph(dim=32, depth=2, heads=4, field_heads=8, patch_size=4, mixer=KeepsShape, predict="frame").eval()
    x = torch.randn(2, 3, 2, 1, 1, 8, 8)
    latent = model.encode(x)
    out = model.decoder(latent[:, -1], 2, 1, (1, 4, 4))
    scales = model.normalisation.scales(x, model._conditions(x, None))
    assert torch.allclose(model(x), model.normalisation.denormalise(out, x, scales), atol=1e-6)


def test_dropout_drops_the_stated_share_and_keeps_the_mean() -> None:
    dropout = Dropout(0.1)
    x = torch.full((500, 1001), 3.0, requires_grad=True)
    torch.manual_seed(0)
    y = dropout(x)
    dropped = y == 0
    # Five standard deviations of a binomial share, and of neighbours that are dropped together.
    share = dropped.float().mean().item()
    assert abs(share - 0.1) < 5 * (0.09 / x.numel()) ** 0.5
    for lag in (1, 2, 3, 4, 5, 1001):
        both = (dropped.flatten()[lag:] & dropped.flatten()[:-lag]).float().mean().item()
        assert abs(both - 0.01) < 5 * (0.01 / x.numel()) ** 0.5
    assert torch.allclose(y[~dropped], torch.tensor(3 / 0.9), rtol=1e-5)
    y.sum().backward()
    assert torch.allclose(x.grad, y.detach() / 3)
    torch.manual_seed(0)
    assert torch.equal(dropout(x), y)
    assert not torch.equal(dropout(x), y)


def test_dropout_at_its_ends() -> None:
    x = torch.randn(7, 3)
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(Dropout(1.0)(x), torch.zeros_like(x))
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert Dropout(0.5)(torch.empty(0, 4)).shape == (0, 4)
