"""Which scales a model works in, and what its output is relative to.

The scales use only what a forecaster has: the context window (default) or the training split of the data set.
Statistics over a whole trajectory would leak the future.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from morph.layout import Conditions, Context, State, Statistics

__all__ = ["Normalisation", "Scales", "linear_extrapolation", "persistence"]

_CHOICES = {
    "normalisation": ("context", "dataset", "none"),
    "predict": ("increment", "frame"),
    "base": ("persistence", "linear"),
}

# A context whose scale is this much smaller than the data set's tells nothing about the scale of what comes next.
_QUIET_FIELD = 1e-3
_QUIET_INCREMENT = 1e-2
# Relative spread of a field that is constant up to float32 rounding.
_ROUNDING = 1e-6

_SPACE = (-3, -2, -1)
_TIME_AND_SPACE = (1, 4, 5, 6)

Absent = Bool[Tensor, "B F C D H W"] | None


def persistence(context: Context) -> State:
    """The last frame: u(t + dt) = u(t)."""
    return context[:, -1]


def linear_extrapolation(context: Context) -> State:
    """The straight line through the last two frames: u(t + dt) = 2 u(t) - u(t - dt), exact for fields linear in time.

    Raises:
        ValueError: The context has one frame.
    """
    if context.shape[1] < 2:
        raise ValueError("linear extrapolation needs a context of at least 2 frames, found 1")
    return 2 * context[:, -1] - context[:, -2]


class Scales(NamedTuple):
    """Scales of one batch, in physical units.

    mean: subtracted from each component.
    std: divides each field.
    increment: unit of the predicted increment on the base forecast.
    """

    mean: Float[Tensor, "B F C"]
    std: Float[Tensor, "B F"]
    increment: Float[Tensor, "B F"]


@dataclass(frozen=True)
class Normalisation:
    """Turns physical frames into the model's input and the model's output into physical frames.

    Args:
        kind: "context": mean and standard deviation of the context window; "dataset": those of the training split;
            "none": the data as it is.
        predict: "increment": the model's output times the increment scale is added to the base forecast;
            "frame": its output is the normalised frame itself.
        base: What the increment is relative to: "persistence" or "linear" extrapolation.

    The increment scale is the root mean square, per field, of what the base forecast misses inside the context; where
    the context is too short to show it, the training split's rms increment.  A context in which a field (nearly) rests
    takes the training split's scales, so that growth from rest can be expressed.  Points that are absent from the
    context count in no scale, nor does a component without any other.

    Raises:
        ValueError: An option is unknown, or excludes another.
    """

    kind: str = "context"
    predict: str = "increment"
    base: str = "persistence"

    def __post_init__(self) -> None:
        for (option, choices), value in zip(_CHOICES.items(), (self.kind, self.predict, self.base), strict=True):
            if value not in choices:
                raise ValueError(f"{option}: expected one of {', '.join(choices)}, found {value!r}")
        if self.predict == "frame" and self.base != "persistence":
            raise ValueError("base=linear has no effect with predict=frame; set predict=increment")

    def scales(self, context: Context, conditions: Conditions) -> Scales:
        """Scales of a batch; no gradient flows through them.

        Raises:
            ValueError: kind is "dataset" and the data set states no statistics.
        """
        with torch.no_grad():
            if self.kind == "none":
                ones = context.new_ones(context.shape[0], context.shape[2])
                return Scales(context.new_zeros(*context.shape[:1], *context.shape[2:4]), ones, ones)
            known = conditions.statistics
            if self.kind == "dataset":
                if known is None:
                    raise ValueError(
                        "normalisation=dataset needs the statistics of the training split, and the data set has none; "
                        "use normalisation=context, or let python -m data_adapters.check store them"
                    )
                size = context.shape[0]
                return Scales(
                    known.mean.expand(size, -1, -1), known.std.expand(size, -1), self._increment(context, conditions)
                )
            mean, variance = _moments(context, conditions.absent)
            std = _over_components(variance, conditions).sqrt()
            rms = _over_components(_mean(context.square(), conditions.absent), conditions).sqrt()
            std = _std(std, rms, known)
            return Scales(mean, std, self._increment(context, conditions, std))

    def _increment(
        self, context: Context, conditions: Conditions, std: Float[Tensor, "B F"] | None = None
    ) -> Float[Tensor, "B F"]:
        """`std` is the fallback where neither the context nor a training split shows how fast the field changes."""
        order = 2 if self.base == "linear" else 1
        known = conditions.statistics
        unknown = known.rms_increment.expand(context.shape[0], -1) if known is not None else std
        assert unknown is not None, "normalisation=dataset has statistics"
        if self.kind == "dataset" or context.shape[1] <= order:
            return unknown
        missed = _mean(context.diff(n=order, dim=1).square(), conditions.absent)
        rms = _over_components(missed, conditions).sqrt()
        floor = (_QUIET_INCREMENT if known is not None else _ROUNDING) * unknown
        return torch.where(rms > floor, rms, unknown)

    def normalise(self, context: Context, scales: Scales) -> Context:
        """(context - mean) / std; a filler stays zero."""
        if self.kind == "none":
            return context
        return (context - scales.mean[:, None, ..., None, None, None]).div_(
            scales.std[:, None, :, None, None, None, None]
        )

    def denormalise(self, output: State, context: Context, scales: Scales) -> State:
        """The model's output as a physical frame, given the physical context."""
        if self.predict == "frame":
            if self.kind == "none":
                return output
            return output * scales.std[..., None, None, None, None] + scales.mean[..., None, None, None]
        base = persistence(context) if self.base == "persistence" else linear_extrapolation(context)
        return torch.addcmul(base, output, scales.increment[..., None, None, None, None])

    def unit_of_error(self, scales: Scales) -> Float[Tensor, "B F"]:
        """The unit in which the loss counts an error: what the output is multiplied by."""
        return scales.std if self.predict == "frame" else scales.increment


def _mean(values: Context, absent: Absent) -> Float[Tensor, "B F C"]:
    """Mean over time and the points that hold data; where a component has none, over all."""
    if absent is None:
        return values.mean(_TIME_AND_SPACE)
    counted = ~absent | _missing(absent)[..., None, None, None]
    total = torch.where(counted[:, None], values, 0.0).sum(_TIME_AND_SPACE)
    return total / (values.shape[1] * counted.sum(_SPACE))


def _moments(context: Context, absent: Absent) -> tuple[Float[Tensor, "B F C"], Float[Tensor, "B F C"]]:
    """Mean and variance over time and the points that hold data."""
    mean = _mean(context, absent)
    if absent is None:
        return mean, context.var(_TIME_AND_SPACE, unbiased=False)
    return mean, _mean((context - mean[:, None, ..., None, None, None]).square(), absent)


def _missing(absent: Bool[Tensor, "B F C D H W"]) -> Bool[Tensor, "B F C"]:
    return absent.flatten(3).all(-1)


def _over_components(squares: Float[Tensor, "B F C"], conditions: Conditions) -> Float[Tensor, "B F"]:
    """Mean over the physical components of each field that hold data; 0 where none does."""
    mask = conditions.component_mask
    if conditions.absent is None:
        return (squares * mask).sum(-1) / mask.sum(-1)
    held = mask & ~_missing(conditions.absent)
    return torch.where(held, squares, 0.0).sum(-1) / held.sum(-1).clamp(min=1)


def _std(std: Float[Tensor, "B F"], rms: Float[Tensor, "B F"], known: Statistics | None) -> Float[Tensor, "B F"]:
    """The context's standard deviation, or the next best scale where the field rests."""
    if known is not None:
        return torch.where(std > _QUIET_FIELD * known.std, std, known.std)
    magnitude = torch.where(rms > 0, rms, 1.0)
    return torch.where(std > _ROUNDING * rms, std, magnitude)
