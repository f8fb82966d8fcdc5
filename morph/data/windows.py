"""Windows of trajectories: (trajectory, first frame) -> context and target."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from morph.data.adapter import DatasetAdapter
from morph.layout import Batch, Conditions

__all__ = ["Filled", "Windows", "fill_absent"]


class Windows:
    """All windows of T context frames and S target frames in a split, counted trajectory by trajectory.

    Window i of a trajectory holds its frames i, i + 1, ..., i + T + S - 1, oldest first.

    Args:
        adapter: Where the frames come from.
        context: T.
        target: S.
        name: What the user calls the data set; None takes the name that its files state.

    Raises:
        ValueError: The trajectories are shorter than a window.
    """

    def __init__(self, adapter: DatasetAdapter, context: int, target: int = 1, name: str | None = None) -> None:
        spec = adapter.spec
        self.name = spec.name if name is None else name
        self.adapter = adapter
        self.context = context
        self.target = target
        self.per_trajectory = spec.num_steps - context - target + 1
        if context < 1 or target < 1:
            raise ValueError(f"a window needs at least 1 context and 1 target frame, found {context} and {target}")
        if self.per_trajectory < 1:
            raise ValueError(
                f"data set {self.name!r}: its trajectories have {spec.num_steps} frames, a window of {context} context "
                f"and {target} target frames needs {context + target}; lower window.context or window.target"
            )
        mask = spec.component_mask
        self.conditions = Conditions(torch.from_numpy(mask), spec.boundary, adapter.statistics, bool(mask.all()))

    def __len__(self) -> int:
        return len(self.adapter) * self.per_trajectory

    def locate(self, index: int) -> tuple[int, int]:
        """(trajectory, first frame) of window `index`."""
        return divmod(index, self.per_trajectory)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The windows `indices` as one batch; of a masked data set, with fillers where it holds no data."""
        places = [self.locate(index) for index in indices]
        length = self.context + self.target
        frames = torch.from_numpy(np.stack([self.adapter.read(i, start, start + length) for i, start in places]))
        conditions, valid = self.conditions, None
        if self.adapter.spec.masked:
            frames, holds_data, absent = fill_absent(frames, self.context, conditions)
            conditions, valid = conditions._replace(absent=absent), holds_data[:, self.context :]
        return Batch(
            frames[:, : self.context],
            frames[:, self.context :],
            conditions,
            self.name,
            torch.tensor(places),
            valid,
        )


class Filled(NamedTuple):
    """Frames without NaN.

    valid: which points hold data.
    absent: which points hold none in any frame of the context; None where there is no such point.
    """

    frames: Float[Tensor, "B T_and_S F C D H W"]
    valid: Bool[Tensor, "B T_and_S F C D H W"]
    absent: Bool[Tensor, "B F C D H W"] | None


def fill_absent(frames: Float[Tensor, "B T_and_S F C D H W"], context: int, conditions: Conditions) -> Filled:
    """Put finite values in place of NaN, by what the first `context` frames say; no later frame has a part in them.

    A point without data in any of them (land) takes the mean of the context's valid points, per sample and component,
    or where the component has none, that of the training split, else 0.  A point that has data in some of them only
    takes the nearest earlier value, else the nearest later one: a mean would be a jump in time that the data has not.
    Points of later frames hold the value before.
    """
    valid = ~frames.isnan()
    if valid.all():
        return Filled(frames, valid, None)
    seen, space_and_time = valid[:, :context], (1, 4, 5, 6)
    count = seen.sum(space_and_time)
    mean = torch.where(seen, frames[:, :context], 0).sum(space_and_time) / count.clamp(min=1)
    known = torch.zeros_like(mean) if conditions.statistics is None else conditions.statistics.mean
    mean = torch.where(count > 0, mean, known) * conditions.component_mask
    absent = ~seen.any(1)
    filled = list(frames.unbind(1))
    filled[0] = torch.where(absent, mean[..., None, None, None], filled[0])
    for later in range(1, len(filled)):
        filled[later] = torch.where(valid[:, later], filled[later], filled[later - 1])
    for earlier in reversed(range(context - 1)):
        filled[earlier] = torch.where(filled[earlier].isnan(), filled[earlier + 1], filled[earlier])
    return Filled(torch.stack(filled, 1), valid, absent if absent.any() else None)
