"""Windows of trajectories: (trajectory, first frame) -> context and target."""

from collections import OrderedDict
from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import get_worker_info

from morph.data.adapter import DatasetAdapter
from morph.data.subset import Subset
from morph.layout import Batch, Conditions

__all__ = ["Filled", "Windows", "fill_absent"]


class Windows:
    """All windows of T context frames and S target frames in a split, counted trajectory by trajectory.

    Window i of a trajectory holds its frames i, i + 1, ..., i + T + S - 1, oldest first.  Where several frames are
    stored as one (a chunk of a compressed array), they are kept for the windows that come next, so that each is decoded
    about once for a block of neighbours and not once for each window.

    Args:
        adapter: Where the frames come from.
        context: T.
        target: S.
        name: What the user calls the data set; None takes the name that its files state.
        memory: Bytes that may be kept of what was decoded, in each process that reads.

    Raises:
        ValueError: The trajectories are shorter than a window.
    """

    def __init__(
        self,
        adapter: DatasetAdapter,
        context: int,
        target: int = 1,
        name: str | None = None,
        memory: int = 256 * 2**20,
    ) -> None:
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
                f"and {target} target frames needs {context + target}; lower window.context, "
                "window.target or objective.pushforward"
            )
        mask = spec.component_mask
        self.conditions = Conditions(torch.from_numpy(mask), spec.boundary, adapter.statistics, bool(mask.all()))
        self.memory = memory
        # As the whole data set counts them, so that a fault can be traced to its data.
        self._numbers = adapter.trajectories if isinstance(adapter, Subset) else range(len(adapter))
        self._alone = all(len(self._run(frame)) == 1 for frame in range(spec.num_steps))
        self._kept: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": OrderedDict()}

    def __len__(self) -> int:
        return len(self.adapter) * self.per_trajectory

    def locate(self, index: int) -> tuple[int, int]:
        """(trajectory, first frame) of window `index`."""
        return divmod(index, self.per_trajectory)

    @property
    def _frame_bytes(self) -> int:
        spec = self.adapter.spec
        return 4 * spec.num_fields * spec.num_components * prod(spec.spatial_shape)

    def blocks(self, size: int) -> list[range]:
        """First frames of the windows of a trajectory, in blocks of about `size`; no run of frames that are stored
        together is divided, unless it is too long to be kept."""
        blocks: list[range] = []
        start = 0
        while start < self.per_trajectory:
            stop = min(start + size, self.per_trajectory)
            run = self._run(stop - 1)
            if len(run) > 1:
                stop = min(max(stop, run.stop), self.per_trajectory)
            blocks.append(range(start, stop))
            start = stop
        return blocks

    def open_blocks(self, size: int, limit: int) -> int:
        """How many blocks may be mixed with each other so that what is decoded for them can be kept."""
        if self._alone:
            return limit
        longest = max(len(self._run(frame)) for frame in range(self.adapter.spec.num_steps))
        frames = max(len(block) for block in self.blocks(size)) + self.context + self.target + longest
        return max(2, min(limit, self.memory // (frames * self._frame_bytes)))

    def batch(self, indices: Sequence[int]) -> Batch:
        """The windows `indices` as one batch; of a masked data set, with fillers where it holds no data."""
        spec = self.adapter.spec
        places = [self.locate(index) for index in indices]
        length = self.context + self.target
        frames = _empty((len(places), length, spec.num_fields, spec.num_components, *spec.spatial_shape))
        array = frames.numpy()
        # Neighbours one after the other: what is decoded for one serves the next.
        for number in sorted(range(len(places)), key=places.__getitem__):
            trajectory, start = places[number]
            self._read(trajectory, range(start, start + length), array[number])
        conditions, valid = self.conditions, None
        if self.adapter.spec.masked:
            frames, holds_data, absent = fill_absent(frames, self.context, conditions)
            conditions, valid = conditions._replace(absent=absent), holds_data[:, self.context :]
        return Batch(
            frames[:, : self.context],
            frames[:, self.context :],
            conditions,
            self.name,
            torch.tensor([(self._numbers[trajectory], start) for trajectory, start in places]),
            valid,
        )

    def again(self, places: Int[Tensor, "B 2"]) -> Batch:
        """The batch of the windows at these places, as `Batch.windows` says them."""
        positions = {number: position for position, number in enumerate(self._numbers)}
        return self.batch([positions[number] * self.per_trajectory + start for number, start in places.tolist()])

    def _run(self, frame: int) -> range:
        """Frames that are kept together with this one; itself alone where all cannot be kept."""
        run = self.adapter.run(frame)
        return run if 2 * len(run) * self._frame_bytes <= self.memory else range(frame, frame + 1)

    def _read(self, trajectory: int, frames: range, out: Float[np.ndarray, "T_and_S F C D H W"]) -> None:
        if self._alone:
            self.adapter.read(trajectory, frames.start, frames.stop, out)
            return
        at = frames.start
        while at < frames.stop:
            run = self._run(at)
            stop = min(run.stop, frames.stop)
            out[at - frames.start : stop - frames.start] = self._decoded(trajectory, run)[
                at - run.start : stop - run.start
            ]
            at = stop

    def _decoded(self, trajectory: int, run: range) -> Float[np.ndarray, "T F C D H W"]:
        key = (trajectory, run.start)
        if key not in self._kept:
            self._kept[key] = self.adapter.read(trajectory, run.start, run.stop)
            while len(self._kept) > 2 and sum(frames.nbytes for frames in self._kept.values()) > self.memory:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def _empty(shape: tuple[int, ...]) -> Tensor:
    if get_worker_info() is not None:
        # Where the training process will find it: a batch that is put together elsewhere is copied once more.
        shared = torch.UntypedStorage._new_shared(4 * prod(shape))
        return torch.tensor((), dtype=torch.float32).set_(shared).view(shape)
    # Of NumPy, whose allocator gives the memory of an earlier batch again: touching new memory takes longer than
    # reading a file that the system has in its cache.
    return torch.from_numpy(np.empty(shape, np.float32))


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
