"""What a batch is turned into before its loss: steps of the model's own, and shifts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from morph.layout import Batch
from morph.model.surrogate import Surrogate
from morph.rollout import unroll

__all__ = ["LOSSES", "Objective", "push_forward", "shifted"]

LOSSES = ("squared", "absolute")
_SPACE = (-3, -2, -1)


@dataclass(frozen=True)
class Objective:
    """What training makes small.

    Args:
        loss: Of an error e in units of the increment: "squared" e^2; "absolute" |e|, which lets no forecast that went
            astray outweigh the others.
        pushforward: A window is forecast after 0 to so many steps of the model's own, drawn for each batch, through
            which no gradient flows (Brandstetter et al. 2022, arXiv 2202.03376).
        jitter: Shift each batch at random along periodic axes, so that no point lies at the same place of its patch.

    Raises:
        ValueError: An option is not what it should be.
    """

    loss: str = "squared"
    pushforward: int = 0
    jitter: bool = False

    @classmethod
    def of_plan(cls, plan: Mapping[str, Any]) -> "Objective":
        """That of a run, see `morph.checkpoint.Checkpoint.plan`; a run from before there was a choice says none."""
        prefix = "objective."
        return cls(**{key.removeprefix(prefix): value for key, value in plan.items() if key.startswith(prefix)})

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"objective.loss: expected one of {', '.join(LOSSES)}, found {self.loss!r}")
        if isinstance(self.pushforward, bool) or not isinstance(self.pushforward, int) or self.pushforward < 0:
            raise ValueError(
                f"objective.pushforward: expected a number of steps, 0 or more, found {self.pushforward!r}"
            )
        if not isinstance(self.jitter, bool):
            raise ValueError(f"objective.jitter: expected true or false, found {self.jitter!r}")


def push_forward(model: Surrogate, batch: Batch, most: int) -> Batch:
    """The batch after 0 to `most` forecasts of the model, as many as are drawn; its target is `most` frames shorter."""
    steps = int(torch.randint(most + 1, ()))
    length = batch.target.shape[1] - most
    with torch.no_grad():
        states = list(unroll(model, batch.context, steps, batch.conditions))
    context = torch.cat([batch.context, *(state[:, None] for state in states)], 1)[:, steps:]
    valid = None if batch.valid is None else batch.valid[:, steps : steps + length]
    return batch._replace(context=context, target=batch.target[:, steps : steps + length], valid=valid)


def shifted(batch: Batch) -> Batch:
    """Moved around the period of each periodic axis, as a whole."""
    axes = [axis for axis, kind in zip(_SPACE, batch.conditions.boundary, strict=True) if kind == "periodic"]
    if not axes:
        return batch
    by = [int(torch.randint(batch.context.shape[axis], ())) for axis in axes]
    absent = batch.conditions.absent
    return batch._replace(
        context=batch.context.roll(by, axes),
        target=batch.target.roll(by, axes),
        conditions=batch.conditions._replace(absent=None if absent is None else absent.roll(by, axes)),
        valid=None if batch.valid is None else batch.valid.roll(by, axes),
    )
