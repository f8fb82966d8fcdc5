"""What must hold of the local parts of a model: laws from the context, stability, and what both are made of."""

import math

import pytest
import torch
from torch import Tensor, nn

from morph.finetune import grow
from morph.layout import Boundary, Conditions
from morph.model.grid import Spectrum, derivatives
from morph.model.morph import Capacity, Morph
from morph.model.regression import Observed, Regression
from morph.model.stability import Stability
from morph.rollout import rollout

SMALL = {"dim": 32, "depth": 1, "heads": 4, "field_heads": 8, "patch_size": 4}
LOCAL = {"regression": {}, "stability": {}}
PERIODIC: tuple[Boundary, Boundary, Boundary] = ("periodic", "periodic", "periodic")
SHAPES = [(1, 1, 32), (1, 12, 16), (6, 8, 10)]


def frames(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def smooth(*shape: int, seed: int = 1) -> Tensor:
    """Noise whose high wavenumbers are small, so that its derivatives are those of a function."""
    x = frames(*shape, seed=seed)
    for axis in (-3, -2, -1):
        if shape[axis] > 1:
            for _ in range(6):
                x = (x.roll(1, axis) + 2 * x + x.roll(-1, axis)) / 4
    return x / x.std()


def build(**options: object) -> Morph:
    """A small model in which everything counts."""
    torch.manual_seed(0)
    model = Morph(**{**SMALL, "local": LOCAL, "capacity": Capacity(3, 3, 4, 64), **options})
    parameters = [*model.decoder.parameters()]
    if model.local is not None and model.local.regression is not None:
        parameters.append(model.local.regression.law)
    for parameter in parameters:
        nn.init.normal_(parameter, std=0.05)
    return model.eval().requires_grad_(False)


def known(fields: int = 2, components: int = 1, boundary: Boundary = "periodic") -> Conditions:
    return Conditions(torch.ones(fields, components, dtype=torch.bool), (boundary,) * 3, None, True)


def test_derivatives_are_those_of_a_wave_and_of_a_line() -> None:
    k = 2 * math.pi * 3 / 64
    x = torch.arange(64, dtype=torch.float64)
    wave = (k * x).sin().view(1, 1, 1, 1, -1)
    first, second = derivatives(wave, 4, "periodic")
    assert torch.allclose(first.flatten(), k * (k * x).cos(), atol=k**5 / 25)  # fourth order: k^5 / 30
    assert torch.allclose(second.flatten(), -(k**2) * (k * x).sin(), atol=k**4 / 10)  # second order: k^4 / 12
    first, second = derivatives((3 * x).view(1, 1, 1, -1, 1), 3, "wall")
    assert torch.allclose(first.flatten()[2:-2], torch.full((60,), 3.0, dtype=torch.float64))
    assert torch.allclose(second.flatten()[1:-1], torch.zeros(62, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("shape", [*SHAPES, (1, 1, 7), (1, 1, 1)])
@pytest.mark.parametrize("boundary", ["periodic", "open"])
def test_a_spectrum_gives_back_what_it_was_made_of(shape: tuple[int, int, int], boundary: Boundary) -> None:
    x = frames(2, 3, *shape)
    spectrum = Spectrum(shape, (boundary,) * 3, x.device)
    assert torch.allclose(spectrum.inverse(spectrum.forward(x)), x, atol=1e-5)


@pytest.mark.parametrize("boundary", ["periodic", "wall"])
def test_a_potential_solves_its_poisson_equation(boundary: Boundary) -> None:
    """lap p = q for p = cos(k (x + 1/2)), whose derivative at walls is zero, and its gradient."""
    k = math.pi * (4 if boundary == "periodic" else 3) / 32
    place = torch.arange(32, dtype=torch.float64) + 0.5
    p = (k * place).cos().view(1, 1, 1, 1, -1).expand(1, 1, 1, 8, 32)
    spectrum = Spectrum((1, 8, 32), ("open", boundary, boundary), p.device)
    potential, _, gradient = Regression(1, 1)._potentials(-(k**2) * p, spectrum)
    assert torch.allclose(potential, p, atol=1e-10)
    assert torch.allclose(gradient, (-k * (k * place).sin()).expand(1, 1, 1, 8, 32), atol=1e-10)


@pytest.mark.parametrize("shape", [(1, 1, 64), (1, 16, 16), (8, 8, 8)])
def test_a_linear_law_is_found_in_its_own_context(shape: tuple[int, int, int]) -> None:
    """u(t + 1) = u + a . grad u + nu lap u with other coefficients in each sample: the next increment is exact."""
    torch.manual_seed(0)
    regression = Regression(1, 1, ridge=1e-9, potentials=0).double().requires_grad_(False)
    regression.ridge.fill_(-40.0)  # softplus of it is nothing
    generator = torch.Generator().manual_seed(2)
    speed = (torch.rand(3, 3, generator=generator).double() - 0.5) * 0.3
    viscosity = torch.rand(3, generator=generator).double() * 0.05 + 0.02
    state, states = smooth(3, 1, *shape).double(), []
    for _ in range(5):
        states.append(state)
        change = torch.zeros_like(state)
        for axis in (2, 3, 4):
            if shape[axis - 2] > 1:
                first, second = derivatives(state, axis, "periodic")
                change = (
                    change + speed[:, axis - 2].view(-1, 1, 1, 1, 1) * first + viscosity.view(-1, 1, 1, 1, 1) * second
                )
        state = state + change
    context, then = torch.stack(states[:4], 1), states[4] - states[3]
    seen = Observed(context, context.diff(dim=1), torch.tensor([0]), PERIODIC, None)
    found, missed = regression(seen)
    assert ((found - then).square().mean() / then.square().mean()).sqrt() < 2e-3
    assert missed.max() < 0.02  # the least that it says is 0.01
    # The law of one sample does not fit another.
    mixed = Observed(context.roll(1, 0)[:, :3], context.roll(1, 0)[:, :3].diff(dim=1), *seen[2:])
    assert ((regression(mixed)[0] - then).square().mean() / then.square().mean()).sqrt() > 0.1


def test_points_without_data_have_no_part_in_a_law() -> None:
    torch.manual_seed(0)
    regression = Regression(1, 1, potentials=0).requires_grad_(False)
    x = smooth(1, 4, 1, 1, 16, 16)
    absent = torch.zeros(1, 1, 1, 16, 16, dtype=torch.bool)
    absent[..., 4:12] = True
    slots = torch.tensor([0])
    # Increments alone are changed, far enough inside that no derivative reaches a point with data.
    increments = x.diff(dim=1)
    other = increments.clone()
    other[:, 1:, ..., 7:9] += 3.0
    outside = ~absent
    outside[..., 2:14] = False

    def change(held: Tensor | None) -> Tensor:
        """Of the forecast where there are data, far from the absent points."""
        a, b = (regression(Observed(x, each, slots, PERIODIC, held))[0][outside] for each in (increments, other))
        return (a - b).abs().max()

    assert change(None) > 1e-3
    assert change(absent) < 0.2 * change(None)


@pytest.mark.parametrize("shape", SHAPES)
def test_local_parts_commute_with_affine_maps(shape: tuple[int, int, int]) -> None:
    model = build().double()
    x = smooth(2, 4, 2, 2, *shape).double()
    a = torch.tensor([1e-3, 40.0]).double().view(2, 1, 1, 1, 1)
    b = torch.tensor([[7.0, -2.0], [0.3, 100.0]]).double().view(2, 2, 1, 1, 1)
    assert torch.allclose(model(a * x + b).float(), (a * model(x) + b).float(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_local_parts_follow_any_shift_of_periodic_data(shape: tuple[int, int, int]) -> None:
    model = build()
    nn.init.zeros_(model.decoder.linear.weight)
    nn.init.zeros_(model.decoder.linear.bias)
    x = smooth(2, 4, 2, 1, *shape)
    axes = [axis for axis in (-3, -2, -1) if shape[axis] > 1]
    by = [3] * len(axes)
    moved = model(x.roll(by, axes), known())
    assert torch.allclose(moved, model(x, known()).roll(by, axes), atol=1e-4)


def test_without_a_law_an_untrained_model_is_persistence() -> None:
    model = Morph(**SMALL, local={"stability": {"damping": 0.0}}).eval()
    x = frames(2, 4, 2, 2, 1, 8, 8)
    assert torch.equal(model(x), x[:, -1])


@pytest.mark.parametrize("frames_seen", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 1, 33), (1, 2, 17), (5, 6, 7)])
@pytest.mark.parametrize("boundary", ["periodic", "open", "wall"])
def test_any_context_grid_and_boundary_gives_a_finite_forecast(
    frames_seen: int, shape: tuple[int, int, int], boundary: Boundary
) -> None:
    mask = torch.tensor([[True, True], [True, False]])
    state = build()(frames(2, frames_seen, 2, 2, *shape), Conditions(mask, (boundary,) * 3))
    assert torch.isfinite(state).all()
    assert (state[:, 1, 1] == 0).all()


def test_a_field_at_rest_stays_at_rest() -> None:
    model = build(local={"regression": {}, "stability": {}})
    nn.init.zeros_(model.decoder.linear.weight)
    nn.init.zeros_(model.decoder.linear.bias)
    nn.init.zeros_(model.local.regression.law)
    x = smooth(1, 1, 1, 1, 1, 16, 16).expand(1, 4, 1, 1, 1, 16, 16)
    assert torch.allclose(model(x, known(1)), x[:, -1], atol=0.05)


def test_stability_passes_what_is_resolved_and_bounds_growth() -> None:
    stability = Stability(growth=1.05, damping=0.1).eval()
    place = torch.arange(64) * 2 * math.pi / 64
    waves = torch.stack([(place - 0.1 * t).sin() for t in range(4)]).view(1, 4, 1, 1, 1, 64)
    seen = Observed(waves, waves.diff(dim=1), torch.tensor([0]), PERIODIC, None)
    one = torch.ones(1, 1)
    following = (place - 0.4).sin() - (place - 0.3).sin()
    passed = stability(following.view(1, 1, 1, 1, -1), seen, one)
    assert torch.allclose(passed.flatten(), following, atol=0.02 * float(following.abs().max()))
    fine = 0.02 * (20 * place).sin().view(1, 1, 1, 1, -1)
    assert Stability(damping=0.0).eval()(fine, seen, one).abs().max() < 1e-3 * fine.abs().max()
    large = stability(50 * following.view(1, 1, 1, 1, -1), seen, one)
    largest = seen.increments.square().mean((3, 4, 5)).sqrt().max()
    assert large.square().mean().sqrt() <= 1.0501 * largest
    # Training has some slack.
    loose = stability.train()(50 * following.view(1, 1, 1, 1, -1), seen, one)
    assert loose.square().mean().sqrt() == pytest.approx(1.05 * 1.05 * float(largest), rel=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_rollout_of_random_weights_does_not_blow_up_within_a_hundred_steps(shape: tuple[int, int, int]) -> None:
    """Increments grow by 5 % per step at most: nothing can be larger than the sum of such."""
    model = build()
    x = smooth(1, 4, 2, 1, *shape)
    for parameter in model.parameters():
        parameter.mul_(3.0)
    most = x.diff(dim=1).square().mean().sqrt() * sum(1.06**n for n in range(100)) * 3
    for state in rollout(model, x, 100, known()):
        assert torch.isfinite(state).all()
    assert state.square().mean().sqrt() < most


def test_a_grown_model_forecasts_what_it_did() -> None:
    model = build(capacity=Capacity(2, 1, 4, 64))
    larger = grow(model, max_fields=3, max_components=3)
    x = smooth(2, 4, 2, 1, 1, 12, 16)
    assert torch.allclose(larger(x, known()), model(x, known()), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"regression": {"products": 0}}, "local.regression: expected linear, products"),
        ({"regression": {"potentials": 11}}, "a potential for each 4 products"),
        ({"stability": {"growth": 0.5}}, "local.stability: expected detail"),
        ({"filter": {}}, "filter"),
        ({"stability": {"cutoff": 1}}, "cutoff"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Morph(**SMALL, local=options)


def test_local_parts_need_increments_on_the_last_frame() -> None:
    with pytest.raises(ValueError, match="set predict=increment and base=persistence, or local=null"):
        Morph(**SMALL, local=LOCAL, predict="frame")
