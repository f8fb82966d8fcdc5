"""What forecasts are compared with: trajectories without NaN, and which of their points hold data."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from morph.data.adapter import DatasetAdapter
from morph.data.windows import fill_absent
from morph.layout import Conditions
from morph.metrics import METRICS, defined_on_grid, every_metric, is_defined, rmse, worst

__all__ = ["Truth", "errors", "field_std", "infinite_or_undefined", "true_trajectories", "where_defined"]


class Truth(NamedTuple):
    """Trajectories without NaN, which of their points hold data (None: all), and how many frames are context."""

    frames: Float[Tensor, "B T_and_S F C D H W"]
    valid: Bool[Tensor, "B T_and_S F C D H W"] | None
    known: Conditions
    context: int

    def holds_data(self, frame: int) -> Bool[Tensor, "B F C D H W"] | None:
        """Which points of a frame count."""
        return None if self.valid is None else self.valid[:, frame]

    def seen_through(self, context: int) -> "Truth":
        """The same for a forecast that sees the last `context` frames alone: no earlier one has a part in fillers."""
        if context == self.context:
            return self
        frames = self.frames[:, self.context - context :]
        if self.valid is None:
            return self._replace(frames=frames, context=context)
        held = self.valid[:, self.context - context :]
        frames, valid, absent = fill_absent(torch.where(held, frames, torch.nan), context, self.known)
        return Truth(frames, valid, self.known._replace(absent=absent), context)


def true_trajectories(
    adapter: DatasetAdapter,
    trajectories: range,
    context: int,
    steps: int,
    known: Conditions,
    device: torch.device | str,
) -> Truth:
    """The first `context` and `steps` frames of trajectories.

    Raises:
        ValueError: The data holds infinity, or NaN where no data set said so; a fault in the data must not be taken for
            one of the forecast.
    """
    frames = np.stack([adapter.read(i, 0, context + steps) for i in trajectories])
    masked = adapter.spec.masked
    usable = (~np.isinf(frames) if masked else np.isfinite(frames)).all((2, 3, 4, 5, 6))
    if not usable.all():
        i, frame = np.argwhere(~usable)[0]
        found = "infinity" if masked else "NaN or infinity"
        raise ValueError(
            f"data set {adapter.spec.name!r}: {found} in trajectory {trajectories[i]}, frame {frame}; "
            "forecasts cannot be compared with it"
        )
    truth = torch.from_numpy(frames).to(device)
    if not masked:
        return Truth(truth, None, known, context)
    truth, valid, absent = fill_absent(truth, context, known)
    return Truth(truth, valid, known._replace(absent=absent), context)


def field_std(truth: Truth) -> Float[Tensor, "B F"]:
    """Standard deviation of each field over the trajectory; its magnitude where it is constant up to rounding, infinite
    where it is zero throughout."""
    frames, valid, known, _ = truth
    space_and_time = (1, 4, 5, 6)
    if valid is None:
        variance, square = frames.var(space_and_time), frames.square().mean(space_and_time)
    else:
        count = valid.sum(space_and_time)
        held = torch.where(valid, frames, 0.0)
        mean = held.sum(space_and_time) / count.clamp(min=1)
        deviation = torch.where(valid, frames - mean[:, None, ..., None, None, None], 0.0)
        variance = deviation.square().sum(space_and_time) / (count - 1).clamp(min=1)
        square = held.square().sum(space_and_time) / count.clamp(min=1)
    std = (variance * known.component_mask).amax(-1).sqrt()
    rms = (square * known.component_mask).amax(-1).sqrt()
    return torch.where(std > 1e-5 * rms, std, torch.where(rms > 0, rms, torch.inf))


def where_defined(
    target: Float[Tensor, "B F C D H W"], known: Conditions, valid: Bool[Tensor, "B F C D H W"] | None
) -> Bool[Tensor, "*batch_and_field metric"]:
    """Which metrics there are of each field, whatever the forecast: not where there is no data, too little for the
    metric, or no such quantity on the grid.  The same for all samples and fields where all points are valid."""
    if valid is None:
        return defined_on_grid(*target.shape[3:]).to(target.device)
    nothing = torch.zeros_like(valid, dtype=torch.float32)
    return ~every_metric(nothing, nothing, known.component_mask, valid).isnan()


def errors(
    states: Iterable[Tensor],
    target: Float[Tensor, "B F C D H W"],
    known: Conditions,
    valid: Bool[Tensor, "B F C D H W"] | None,
    defined: Bool[Tensor, "*batch_and_field metric"],
) -> Float[Tensor, "forecast B F metric"]:
    """Every metric of every state.

    A forecast that is not finite has the worst value that there is, whatever the metric makes of it: 0 of `pearson`,
    infinity of all others, see `morph.metrics.worst`.  So has one of finite values whose metric is not finite:
    `relative_l1` and `relative_l2` are infinite over a truth of zeros.  NaN: see `where_defined`.
    """
    lost = torch.tensor([worst(name) for name in METRICS], device=target.device)
    table = []
    for state in states:
        values = every_metric(state.float(), target, known.component_mask, valid)
        values = torch.where(torch.isfinite(values), values, lost)
        table.append(torch.where(defined, values, torch.nan))
    return torch.stack(table).cpu()


def infinite_or_undefined(
    values: Float[Tensor, "B F"], known: Conditions, valid: Bool[Tensor, "B F C D H W"] | None
) -> Float[Tensor, "B F"]:
    """An error of forecasts in which one that is not finite is infinite, and NaN where there is no data."""
    values = torch.where(torch.isfinite(values), values, torch.inf)
    if valid is None:
        return values
    return torch.where(is_defined(rmse, known.component_mask, valid), values, torch.nan)
