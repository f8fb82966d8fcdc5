"""What a batch is turned into before its loss: steps of the model's own, symmetries, noise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from morph.layout import Batch
from morph.model.surrogate import Surrogate
from morph.rollout import unroll

__all__ = ["LOSSES", "Objective", "push_forward", "shifted", "transformed", "with_noise"]

LOSSES = ("squared", "absolute", "cauchy")
_SPACE = (-3, -2, -1)
Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Objective:
    """What training makes small.

    Args:
        loss: Of an error e in units of the increment: "squared" e^2; "absolute" |e|; "cauchy" 3 log(1 + e^2 / 3), which
            is e^2 where that is small and lets no forecast that went astray outweigh the others.
        gradient: Weight of the same loss of the error's gradient.
        pushforward: A window is forecast after 0 to so many steps of the model's own, drawn for each batch, through
            which no gradient flows (Brandstetter et al. 2022, arXiv 2202.03376).
        noise: Gaussian noise on the context, in standard deviations of each field; each batch draws up to so much.
        jitter: Shift each batch at random along periodic axes.
        symmetry: Reflect and permute axes at random, with the components of vectors.

    Raises:
        ValueError: An option is not what it should be.
    """

    loss: str = "squared"
    gradient: float = 0.0
    pushforward: int = 0
    noise: float = 0.0
    jitter: bool = False
    symmetry: bool = False

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
        for name in ("gradient", "noise"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"objective.{name}: expected 0 or more, found {getattr(self, name)!r}")


def push_forward(model: Surrogate, batch: Batch, most: int) -> Batch:
    """The batch after 0 to `most` forecasts of the model, as many as are drawn; its target is `most` frames shorter."""
    steps = int(torch.randint(most + 1, ()))
    length = batch.target.shape[1] - most
    with torch.no_grad():
        states = list(unroll(model, batch.context, steps, batch.conditions))
    context = torch.cat([batch.context, *(state[:, None] for state in states)], 1)[:, steps:]
    valid = None if batch.valid is None else batch.valid[:, steps : steps + length]
    return batch._replace(context=context, target=batch.target[:, steps : steps + length], valid=valid)


def with_noise(batch: Batch, most: float) -> Batch:
    """Noise on the context, of a standard deviation up to `most` times that of each component."""
    std = batch.context.std((1, 4, 5, 6), keepdim=True)
    noise = torch.randn_like(batch.context) * (std * most * torch.rand(len(std), *[1] * 6, device=std.device))
    return batch._replace(context=batch.context + noise * (batch.conditions.component_mask[..., None, None, None]))


def shifted(batch: Batch) -> Batch:
    """Moved around the period of each periodic axis, as a whole."""
    axes = [axis for axis, kind in zip(_SPACE, batch.conditions.boundary, strict=True) if kind == "periodic"]
    by = [int(torch.randint(batch.context.shape[axis], ())) for axis in axes]
    return _mapped(batch, lambda x: x.roll(by, axes)) if axes else batch


def transformed(batch: Batch) -> Batch:
    """Reflected along axes and with axes exchanged, as drawn; vectors take part.

    A vector is a field with a component for each of the axes, which on a line cannot be told from a scalar: data in one
    dimension, and data with fields that are neither scalars nor vectors, stay as they are.
    """
    mask, shape = batch.conditions.component_mask, batch.context.shape[4:]
    there = [axis for axis, size in zip(_SPACE, shape, strict=True) if size > 1]
    counts = mask.sum(-1).tolist()
    if len(there) < 2 or not set(counts) <= {1, len(there)}:
        return batch
    vectors = torch.tensor([count > 1 for count in counts], device=mask.device)
    flips = [number for number in range(len(there)) if torch.rand(()) < 0.5]
    alike = [
        order
        for order in permutations(range(len(there)))
        if all(shape[there[a]] == shape[there[b]] for a, b in enumerate(order))
        and all(batch.conditions.boundary[there[a]] == batch.conditions.boundary[there[b]] for a, b in enumerate(order))
    ]
    order = alike[int(torch.randint(len(alike), ()))]

    def move(x: Tensor, signed: bool = True) -> Tensor:
        x = x.flip([there[number] for number in flips])
        places = list(range(x.ndim))
        for to, source in enumerate(order):
            places[there[to]] = x.ndim + there[source]
        x = x.permute(places)
        if bool(vectors.any()):
            sign = torch.ones(len(there), device=x.device, dtype=x.dtype if signed else torch.float32)
            sign[flips] = -1
            parts = x[..., : len(there), :, :, :]
            moved = (parts * sign.view(-1, 1, 1, 1) if signed else parts)[..., list(order), :, :, :]
            moved = torch.cat((moved, x[..., len(there) :, :, :, :]), -4)
            x = torch.where(vectors.view(-1, 1, 1, 1, 1), moved, x)
        return x.contiguous()

    return _mapped(batch, move, lambda x: move(x, signed=False))


def _mapped(batch: Batch, values: Map, flags: Map | None = None) -> Batch:
    flags = flags or values
    absent = batch.conditions.absent
    return batch._replace(
        context=values(batch.context),
        target=values(batch.target),
        conditions=batch.conditions._replace(absent=None if absent is None else flags(absent)),
        valid=None if batch.valid is None else flags(batch.valid),
    )
