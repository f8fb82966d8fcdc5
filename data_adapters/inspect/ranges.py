"""Values of arrays: their range, what is missing, whether they change; from a sample of frames where there are many."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from data_adapters.contents import SAMPLE, TIME
from data_adapters.inspect.findings import Array, Found

__all__ = ["Range", "range_of"]

_MARKS = (-999.0, -9999.0, -99999.0, 9999.0, 99999.0, -32768.0, -32767.0)
_PLACES = 4  # files, groups or trajectories that are looked into


@dataclass
class Range:
    """What was seen of an array.

    Args:
        minimum, maximum, mean: Of the finite values, NaN where there is none.
        missing: Share of NaN.
        infinite: Number of infinite values.
        steady: Whether all frames of a trajectory are alike; None where that cannot be told.
        fixed: Whether NaN lie at the same points in all frames.
        frames, of_frames: Frames that were read, and that there are in the places looked into.
        num_bytes: As they lie in memory, of what was read.
    """

    minimum: float = np.inf
    maximum: float = -np.inf
    mean: float = 0.0
    missing: float = 0.0
    infinite: int = 0
    steady: bool | None = None
    fixed: bool = True
    frames: int = 0
    of_frames: int = 0
    num_bytes: int = 0
    partial: bool = False

    @property
    def mark(self) -> float | None:
        """An extreme value that looks like a mark of missing ones: 1e20, -9999."""
        marks = (value for value in (self.minimum, self.maximum) if abs(value) >= 1e19 or value in _MARKS)
        return next(marks, None)


def range_of(array: Array, dims: Sequence[str] | None, found: Found, budget: int) -> Range:
    """Look at an array.

    Args:
        array: Which.
        dims: The meaning of its axes; None where it is not known: the first is taken for frames.
        found: Where it lies.
        budget: Bytes to read at most, roughly; two frames are read in any case, or parts of them.
    """
    seen = Range()
    count, total = 0, 0.0
    first: np.ndarray | None = None
    last: tuple[object, ...] | None = None
    for trajectory, values in _frames(array, dims, found, budget, seen):
        seen.frames += 1
        seen.num_bytes += values.nbytes
        if values.dtype.kind in "mM":
            continue
        values = values.astype(np.float64)
        absent = np.isnan(values)
        finite = np.isfinite(values)
        seen.missing += float(absent.sum())
        seen.infinite += int(values.size - finite.sum() - absent.sum())
        count += values.size
        if finite.any():
            kept = values[finite]
            seen.minimum, seen.maximum = min(seen.minimum, kept.min()), max(seen.maximum, kept.max())
            total += float(kept.sum())
        if trajectory != last:
            first, last = values, trajectory
        elif first is not None and dims is not None:
            alike = bool(np.array_equal(values, first, equal_nan=True))
            seen.steady = alike if seen.steady is None else seen.steady and alike
            seen.fixed = seen.fixed and bool((np.isnan(first) == absent).all())
    finite_count = count - seen.missing - seen.infinite
    seen.mean = total / finite_count if finite_count else np.nan
    if not finite_count:
        seen.minimum = seen.maximum = np.nan
    seen.missing /= max(count, 1)
    return seen


def _frames(
    array: Array, dims: Sequence[str] | None, found: Found, budget: int, seen: Range
) -> Iterator[tuple[tuple[object, ...], np.ndarray]]:
    """(which trajectory, a frame of it), evenly spread over places, trajectories and frames."""
    own = list(dims) if dims is not None else [TIME, *("" for _ in array.shape[1:])]
    sizes = dict(zip(own, array.shape, strict=True))
    steps = sizes.get(TIME, 1)
    frame = prod(size for dim, size in sizes.items() if dim not in (SAMPLE, TIME)) if dims else prod(array.shape[1:])
    frame_bytes = max(1, frame * np.dtype(array.dtype.rpartition(" ")[2]).itemsize)
    rows: Sequence[int] = range(sizes.get(SAMPLE, 1))
    places: Sequence[int] = range(len(found.places))
    if frame_bytes * steps * len(rows) * len(places) > budget:
        places = _spread(len(places), _PLACES)
        rows = _spread(len(rows), max(1, _PLACES // len(places)))
    number = budget // (frame_bytes * len(places) * len(rows))
    whole = number >= steps
    frames = range(steps) if whole else _spread(steps, max(2, number))
    seen.of_frames = steps * sizes.get(SAMPLE, 1) * len(found.places)
    box: dict[int, slice] = {}
    if number == 0:
        # Two frames are too much: a slab around the middle of the first axis of space.
        axis = next(i for i, dim in enumerate(own) if dim not in (SAMPLE, TIME))
        width = max(1, array.shape[axis] * budget // (frame_bytes * len(places) * len(rows)))
        start = (array.shape[axis] - width) // 2
        box[axis] = slice(start, start + width)
        seen.partial = True
    for place in places:
        for row in rows:
            selection = [box.get(i, slice(None)) for i in range(len(own))]
            if SAMPLE in own:
                selection[own.index(SAMPLE)] = slice(row, row + 1)
            if TIME not in own:
                yield (place, row), found.read(found.places[place], array.name, tuple(selection))
                continue
            time = own.index(TIME)
            if whole:
                for piece in np.moveaxis(found.read(found.places[place], array.name, tuple(selection)), time, 0):
                    yield (place, row), piece
                continue
            for step in frames:
                selection[time] = slice(step, step + 1)
                yield (place, row), found.read(found.places[place], array.name, tuple(selection))


def _spread(count: int, wanted: int) -> list[int]:
    """Indices from the first to the last."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, wanted))}) if count else []
