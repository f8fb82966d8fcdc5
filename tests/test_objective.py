"""What a batch is turned into before its loss keeps what is true of it."""

import pytest
import torch

from morph.layout import Batch, Conditions, Context, State
from morph.loss import batch_loss, forecast_loss
from morph.model.naive import Naive
from morph.model.surrogate import Capacity
from morph.objective import Objective, push_forward, shifted
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


def test_losses_are_those_of_their_formulas() -> None:
    given = batch()
    for error in (0.1, -3.0):
        prediction = given.target + 2 * error
        unit = torch.full((2, 2), 2.0)
        for loss, expected in (("squared", error**2), ("absolute", abs(error))):
            found = forecast_loss(prediction, given, unit, Objective(loss))
            assert found.item() == pytest.approx(expected, rel=1e-3)


class _Seeing(Naive):
    """A forecast that remembers what it saw."""

    def forward(self, context: Context, conditions: Conditions | None = None) -> State:
        self.seen = context
        return super().forward(context, conditions)


def test_a_forecast_that_knows_no_place_has_the_same_loss_anywhere() -> None:
    model = _Seeing(capacity=Capacity(2, 2, 3), base="linear")
    plain = batch_loss(model, batch())
    moved = 0
    for seed in range(4):
        torch.manual_seed(seed)
        assert torch.allclose(batch_loss(model, batch(), Objective(jitter=True)), plain, rtol=1e-5)
        moved += not torch.equal(model.seen, batch().context)
    assert moved >= 3


def test_land_moves_with_the_frames() -> None:
    given = batch()
    absent = given.context[:, -1] > 1
    given = given._replace(conditions=given.conditions._replace(absent=absent), valid=given.target > 0)
    torch.manual_seed(2)
    moved = shifted(given)
    assert torch.equal(moved.conditions.absent, moved.context[:, -1] > 1)
    assert torch.equal(moved.valid, moved.target > 0)
    assert not torch.equal(moved.valid, given.valid)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": "huber"}, "objective.loss: expected one of squared, absolute, found 'huber'"),
        ({"pushforward": -1}, "objective.pushforward: expected a number of steps"),
        ({"jitter": 1}, "objective.jitter: expected true or false, found 1"),
    ],
)
def test_wrong_objectives_are_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Objective(**options)
