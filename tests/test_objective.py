"""What a batch is turned into before its loss keeps what is true of it."""

import pytest
import torch
from torch import Tensor

from morph.layout import Batch, Conditions
from morph.loss import batch_loss, forecast_loss
from morph.model.grid import derivatives
from morph.model.naive import Naive
from morph.model.surrogate import Capacity
from morph.objective import Objective, push_forward, shifted, transformed, with_noise
from morph.rollout import unroll

PERIODIC = ("periodic", "periodic", "periodic")


def batch(shape: tuple[int, int, int] = (1, 8, 8), fields: int = 2, components: int = 2, target: int = 1) -> Batch:
    """A vector and a scalar."""
    generator = torch.Generator().manual_seed(3)
    mask = torch.zeros(fields, components, dtype=torch.bool)
    mask[0], mask[1:, 0] = True, True
    frames = torch.randn(2, 3 + target, fields, components, *shape, generator=generator)
    frames = frames * mask[..., None, None, None]
    windows = torch.zeros(2, 2, dtype=torch.int64)
    return Batch(frames[:, :3], frames[:, 3:], Conditions(mask, PERIODIC), "made up", windows)


def divergence(x: Tensor) -> Tensor:
    """Of the first field, whose components are along the last axes."""
    axes = [axis for axis in (2, 3, 4) if x.shape[axis + 2] > 1]
    vector = x[:, -1, 0]
    return sum(derivatives(vector[:, number : number + 1], axis, "periodic")[0] for number, axis in enumerate(axes))


@pytest.mark.parametrize("shape", [(1, 8, 8), (6, 6, 6), (1, 6, 10)])
def test_symmetries_keep_divergences_scalars_and_fillers(shape: tuple[int, int, int]) -> None:
    """A reflected or rotated vector has the reflected divergence, and a scalar its values elsewhere."""
    given = batch(shape, components=2 if shape[0] == 1 else 3)
    changed = 0
    for seed in range(12):
        torch.manual_seed(seed)
        moved = transformed(given)
        assert moved.context.shape == given.context.shape
        for before, after in (
            (divergence(given.context), divergence(moved.context)),
            (given.context[:, :, 1, 0], moved.context[:, :, 1, 0]),
            (given.target[:, :, 0].square().sum(2), moved.target[:, :, 0].square().sum(2)),
        ):
            assert torch.allclose(before.flatten(1).sort().values, after.flatten(1).sort().values, atol=1e-5)
        assert (moved.context[:, :, 1, 1:] == 0).all()
        changed += not torch.equal(moved.context, given.context)
    assert changed > 6


def test_data_in_one_dimension_keeps_its_direction() -> None:
    line = batch((1, 1, 16), components=1)
    assert transformed(line) is line


def test_a_shift_moves_context_and_target_alike_and_only_around_periods() -> None:
    given = batch()
    torch.manual_seed(1)
    moved = shifted(given)
    both = torch.cat((given.context, given.target), 1)
    after = torch.cat((moved.context, moved.target), 1)
    shifts = [(h, w) for h in range(8) for w in range(8) if torch.equal(both.roll((h, w), (-2, -1)), after)]
    assert len(shifts) == 1
    assert shifts != [(0, 0)]
    open_ends = given._replace(conditions=given.conditions._replace(boundary=("open", "open", "wall")))
    assert shifted(open_ends) is open_ends


def test_pushing_forward_aligns_context_and_target() -> None:
    """After n steps of the model the target is the frame n later."""
    model = Naive(capacity=Capacity(2, 2, 3), base="linear")
    given = batch(target=4)
    steps = set()
    for seed in range(20):
        torch.manual_seed(seed)
        pushed = push_forward(model, given, 3)
        (n,) = [n for n in range(4) if torch.equal(pushed.target, given.target[:, n : n + 1])]
        states = list(unroll(model, given.context, n, given.conditions))
        assert torch.equal(pushed.context, torch.cat([given.context, *(s[:, None] for s in states)], 1)[:, n:])
        steps.add(n)
    assert steps == {0, 1, 2, 3}


def test_noise_spares_fillers_and_has_the_size_that_is_said() -> None:
    given = batch((1, 32, 32))
    torch.manual_seed(0)
    noise = with_noise(given, 0.1).context - given.context
    std = given.context.std((1, 4, 5, 6), keepdim=True)
    assert (noise[:, :, 1, 1] == 0).all()
    assert 0 < (noise[:, :, 0] / std[:, :, 0]).std() < 0.1


def test_losses_are_those_of_their_formulas() -> None:
    given = batch()
    mask = given.conditions.component_mask
    for error, squared, absolute, cauchy in ((0.1, 0.01, 0.1, 0.00998), (3.0, 9.0, 3.0, 4.1589)):
        prediction = given.target + 2 * error
        unit = torch.full((2, 2), 2.0)
        for loss, expected in (("squared", squared), ("absolute", absolute), ("cauchy", cauchy)):
            found = forecast_loss(prediction, given, unit, Objective(loss))
            assert found.item() == pytest.approx(expected, rel=1e-3)
        # The gradient of a constant is zero.
        assert forecast_loss(prediction, given, unit, Objective(gradient=1.0)).item() == pytest.approx(
            squared, rel=1e-3
        )
    assert mask.sum() == 3


def test_a_symmetric_forecast_has_the_same_loss_after_any_symmetry() -> None:
    model = Naive(capacity=Capacity(2, 2, 3), base="linear")
    plain = batch_loss(model, batch())
    for seed in range(4):
        torch.manual_seed(seed)
        assert torch.allclose(batch_loss(model, batch(), Objective(symmetry=True, jitter=True)), plain, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": "huber"}, "objective.loss: expected one of squared, absolute, cauchy, found 'huber'"),
        ({"pushforward": -1}, "objective.pushforward: expected a number of steps"),
        ({"noise": -0.1}, "objective.noise: expected 0 or more"),
    ],
)
def test_wrong_objectives_are_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Objective(**options)
