"""Windows of trajectories: (trajectory, first frame) -> context and target."""

from collections.abc import Sequence

import numpy as np
import torch

from morph.data.adapter import DatasetAdapter
from morph.layout import Batch, Conditions

__all__ = ["Windows"]


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
        """The windows `indices` as one batch."""
        places = [self.locate(index) for index in indices]
        length = self.context + self.target
        frames = torch.from_numpy(np.stack([self.adapter.read(i, start, start + length) for i, start in places]))
        return Batch(
            frames[:, : self.context],
            frames[:, self.context :],
            self.conditions,
            self.name,
            torch.tensor(places),
        )
