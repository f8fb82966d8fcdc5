"""A few of the trajectories of a data set, with scales that know of no others: few-shot training.

    adapter = few_shot(adapter, 16)

Which they are follows from the number of trajectories of the data set alone, whatever the seed of a run: the first n of
one fixed order.  So runs with several seeds see the same data, and what a run with 4 trajectories saw, one with 16 saw.
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from math import prod

import numpy as np
import torch
from jaxtyping import Float

from morph.data.adapter import DatasetAdapter
from morph.layout import DatasetSpec, Statistics

__all__ = ["Subset", "few_shot", "measure", "order", "with_statistics"]

# As The Well clips the scales of stats.yaml, per component: a field that hardly varies must not be divided by nothing.
_SMALLEST_SCALE = 1e-4


class Subset:
    """Chosen trajectories of an adapter: trajectory i is its trajectory `trajectories[i]`, and no other is read.

    Args:
        adapter: Where the frames come from.
        trajectories: Which of its trajectories, and in which order.
        statistics: Scales, instead of the adapter's.

    Raises:
        IndexError: A trajectory does not exist; also on reading.
    """

    def __init__(self, adapter: DatasetAdapter, trajectories: Sequence[int], statistics: Statistics | None) -> None:
        if missing := [number for number in trajectories if not 0 <= number < len(adapter)]:
            raise IndexError(f"expected trajectories 0 to {len(adapter) - 1}, found {missing[0]}")
        self.adapter = adapter
        self.trajectories = trajectories
        self.statistics = statistics

    @property
    def spec(self) -> DatasetSpec:
        """Fields, shape, time step and boundary."""
        return self.adapter.spec

    @property
    def coordinates(self) -> Mapping[str, Float[np.ndarray, "_"]]:
        """Coordinate values of each axis in `spec.axes`, and of "time"."""
        return self.adapter.coordinates

    def __len__(self) -> int:
        return len(self.trajectories)

    def run(self, frame: int) -> range:
        """Frames that are stored together with this one."""
        return self.adapter.run(frame)

    def read(
        self, trajectory: int, start: int, stop: int, out: Float[np.ndarray, "T F C D H W"] | None = None
    ) -> Float[np.ndarray, "T F C D H W"]:
        """Frames start to stop (exclusive) of a chosen trajectory, as the adapter reads them."""
        return self.adapter.read(self._number(trajectory), start, stop, out)

    def parameters(self, trajectory: int) -> Mapping[str, float]:
        """Value of each of `spec.parameters` for a chosen trajectory."""
        return self.adapter.parameters(self._number(trajectory))

    def _number(self, trajectory: int) -> int:
        if not 0 <= trajectory < len(self):
            raise IndexError(f"expected a trajectory of 0 to {len(self) - 1}, found {trajectory}")
        return self.trajectories[trajectory]


def order(num_trajectories: int) -> list[int]:
    """The fixed order in which the trajectories of a data set are chosen: a permutation of 0 to `num_trajectories` - 1.

    By hash and not by a random generator, whose numbers may change with the version of its library.
    """
    return sorted(range(num_trajectories), key=lambda number: sha256(f"{num_trajectories} {number}".encode()).digest())


def few_shot(adapter: DatasetAdapter, num_trajectories: int, name: str | None = None) -> DatasetAdapter:
    """The first `num_trajectories` of an adapter by the fixed `order`, in the order of its files.

    Where that leaves some out, the scales are computed from those that remain; a data set that states no scales stays
    without.  Where it leaves none out, it is the adapter itself.

    Args:
        adapter: Of a training split.
        num_trajectories: How many.
        name: What the user calls the data set; None takes the name that its files state.

    Raises:
        ValueError: There are not so many, it is no positive number, or a component has no value in those that remain.
    """
    name = adapter.spec.name if name is None else name
    total = len(adapter)
    if (
        isinstance(num_trajectories, bool)
        or not isinstance(num_trajectories, int)
        or not 1 <= num_trajectories <= total
    ):
        raise ValueError(
            f"num_trajectories: expected 1 to {total}, the training trajectories that data set {name!r} has, or null "
            f"for all, found {num_trajectories!r}"
        )
    if num_trajectories == total:
        return adapter
    subset = Subset(adapter, sorted(order(total)[:num_trajectories]), None)
    if adapter.statistics is None:
        return subset
    try:
        subset.statistics = measure(subset)
    except ValueError as error:
        raise ValueError(f"data set {name!r}: num_trajectories={num_trajectories}: {error}; take more") from error
    return subset


def with_statistics(adapter: DatasetAdapter, statistics: Statistics | None) -> DatasetAdapter:
    """All trajectories of an adapter with other scales; itself where these are None."""
    return adapter if statistics is None else Subset(adapter, range(len(adapter)), statistics)


def measure(adapter: DatasetAdapter, memory: int = 64 * 2**20) -> Statistics:
    """Scales of all that an adapter holds, see `Statistics`: float32, computed in double precision.

    One pass over the trajectories in pieces of frames, merged by the update of Chan, Golub and LeVeque (1979), which
    loses nothing where a mean is large beside the variation.  What is not finite counts nowhere.

    Args:
        adapter: Whose trajectories.
        memory: Bytes of frames that are read at once.

    Raises:
        ValueError: A component has no value, or none in two frames that follow each other; names it.
    """
    spec = adapter.spec
    mask = spec.component_mask
    values, increments = np.zeros((2, 3, *mask.shape))  # count, mean and sum of squared deviations
    for trajectory in range(len(adapter)):
        last = np.empty((0, *mask.shape, *spec.spatial_shape))
        for piece in _pieces(adapter, memory):
            frames = adapter.read(trajectory, piece.start, piece.stop).astype(np.float64)
            values = _merged(values, _moments(frames))
            with np.errstate(invalid="ignore"):  # infinity less infinity
                increments = _merged(increments, _moments(np.diff(np.concatenate((last, frames)), axis=0)))
            last = frames[-1:]
    counts = np.minimum(values[0], increments[0])
    for number, field in enumerate(spec.fields):
        for component, count in zip(field.components, counts[number], strict=False):
            if not count:
                raise ValueError(
                    f"there is no value of {component!r} in two frames of a trajectory one after the other"
                )
    mean, variance = values[1], values[2] / np.maximum(values[0], 1)
    square = increments[2] / np.maximum(increments[0], 1) + increments[1] ** 2
    pooled = [
        np.sqrt(np.mean(np.maximum(squares, _SMALLEST_SCALE**2), axis=1, where=mask)) for squares in (variance, square)
    ]
    return Statistics(*(torch.from_numpy(scale.astype(np.float32)) for scale in (np.where(mask, mean, 0), *pooled)))


def _pieces(adapter: DatasetAdapter, memory: int) -> Iterator[range]:
    """The frames of a trajectory, as many as `memory` takes and at least one; what is stored together stays together
    unless it is more than that."""
    spec = adapter.spec
    most = max(1, memory // (4 * spec.num_fields * spec.num_components * prod(spec.spatial_shape)))
    start = 0
    while start < spec.num_steps:
        stop = min(start + most, spec.num_steps)
        cut = adapter.run(stop - 1)
        if cut.stop > stop and cut.start > start:
            stop = cut.start
        yield range(start, stop)
        start = stop


def _moments(frames: Float[np.ndarray, "T F C D H W"]) -> Float[np.ndarray, "3 F C"]:
    points = (0, 3, 4, 5)
    valid = np.isfinite(frames)
    count = valid.sum(points).astype(np.float64)
    mean = np.sum(frames, points, where=valid) / np.maximum(count, 1)
    deviations = np.square(frames - mean[..., None, None, None], where=valid, out=np.zeros_like(frames))
    return np.array([count, mean, deviations.sum(points)])


def _merged(first: Float[np.ndarray, "3 F C"], second: Float[np.ndarray, "3 F C"]) -> Float[np.ndarray, "3 F C"]:
    count = first[0] + second[0]
    share = second[0] / np.maximum(count, 1)
    apart = second[1] - first[1]
    return np.array([count, first[1] + apart * share, first[2] + second[2] + apart**2 * first[0] * share])
