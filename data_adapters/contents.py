"""What one file holds, whatever its container: arrays whose axes have a meaning, a grid, times, parameters."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from data_adapters.choices import Choice
from morph.layout import Boundary

__all__ = [
    "CHANNEL",
    "SAMPLE",
    "TIME",
    "Contents",
    "Source",
    "check_rows",
    "check_times",
    "differences",
    "other_spacing",
    "source_of",
    "uniform_step",
]

SAMPLE, TIME, CHANNEL = "sample", "time", "channel"
"""What an axis of an array can be, besides one of space: trajectories, time, components."""


class Source(NamedTuple):
    """Where a field lies, and what the axes of its array are.

    path: name of the array in its file, "t1_fields/velocity".
    dims: SAMPLE, TIME, CHANNEL or the name of a spatial axis, for each axis of the array in index order; where one is
        left out, the array does not vary along it.
    shape: of the array; its SAMPLE and TIME axes may differ from file to file and are 0 here.
    channels: which entries of the CHANNEL axis make the field, None for all.
    unit: that the file states.
    """

    path: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    channels: tuple[int, ...] | None = None
    unit: str | None = None

    @property
    def components(self) -> tuple[int, ...]:
        """() of a scalar, (C,) of a vector, (C, C) of a tensor."""
        if self.channels is not None:
            return (len(self.channels),) if len(self.channels) > 1 else ()
        return self.stored_components

    @property
    def stored_components(self) -> tuple[int, ...]:
        """As `components`, of the whole array."""
        return tuple(size for dim, size in zip(self.dims, self.shape, strict=True) if dim == CHANNEL)

    @property
    def variables(self) -> tuple[str, ...]:
        """What each component is called: the array's name, with the entry of a CHANNEL axis as name[i]."""
        counts = self.stored_components
        entries = range(prod(counts)) if self.channels is None else self.channels
        return tuple(f"{self.path}[{entry}]" for entry in entries) if counts else (self.path,)

    @property
    def num_components(self) -> int:
        """Length of the component axis C that the field takes."""
        return prod(self.components)


@dataclass(frozen=True)
class Contents:
    """The metadata of one file.

    Args:
        dataset_name: What the file says it is, "" where it says nothing.
        sizes: Length of each spatial axis, in the file's order.
        num_trajectories: N.
        num_steps: Frames of each.
        sources: For each field that is read, the arrays that it is made of.
        boundary: Condition on each axis that the file states.
        times: Time of each frame, None where the file does not say.
        time_path: Where it says so, for messages.
        cuts: Frames with which a further piece of the record begins, where it lies in several.
        coordinates: Of each axis, float64; grid indices where the file does not say.
        parameters: Of each trajectory, float64.
        chunks: Shape of the pieces in which an array is stored, of those that are not stored in one.
    """

    dataset_name: str
    sizes: Mapping[str, int]
    num_trajectories: int
    num_steps: int
    sources: tuple[tuple[Source, ...], ...]
    boundary: Mapping[str, Boundary]
    times: Float[np.ndarray, "T"] | None
    coordinates: Mapping[str, Float[np.ndarray, "_"]]
    parameters: Mapping[str, Float[np.ndarray, "N"]]
    time_path: str = "times"
    cuts: tuple[int, ...] = ()
    chunks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the spatial axes, in the file's order."""
        return tuple(self.sizes)

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """(D, H, W) in the file's order."""
        return (1,) * (3 - len(self.sizes)) + tuple(self.sizes.values())


def source_of(
    path: str, dims: Sequence[str], shape: Sequence[int], choice: Choice, file: str, unit: str | None = None
) -> Source:
    """The source of a field with only those channels that the choice names; a tensor's are counted row by row.

    Raises:
        ValueError: The array has no channels, or not so many.
    """
    sizes = tuple(0 if dim in (SAMPLE, TIME) else size for dim, size in zip(dims, shape, strict=True))
    if choice.channels is not None:
        if CHANNEL not in dims:
            raise ValueError(
                f"{file}: {path}: field {choice.name!r} names `channels`, and the array has none: its axes are "
                f"{', '.join(dims)}"
            )
        count = prod(size for dim, size in zip(dims, shape, strict=True) if dim == CHANNEL)
        if not all(0 <= channel < count for channel in choice.channels):
            raise ValueError(
                f"{file}: {path}: field {choice.name!r}: expected channels of 0 to {count - 1}, "
                f"found {list(choice.channels)}"
            )
    return Source(path, tuple(dims), sizes, choice.channels, unit)


def check_rows(rows: Float[np.ndarray, "N _"], tolerance: float, where: str) -> None:
    """Make sure that the times, or coordinates, of each trajectory are those of the first, to a millionth or so.

    Args:
        rows: Of each trajectory.
        tolerance: By which they may differ in any case.
        where: File and array, for the message.

    Raises:
        ValueError: They are not.
    """
    first = rows[0].astype(np.float64)
    agree = np.isclose(rows.astype(np.float64), first, rtol=1e-6, atol=tolerance, equal_nan=True).all(axis=1)
    if not agree.all():
        row = int(np.argmin(agree))
        raise ValueError(
            f"{where}: expected the same in all trajectories, found {rows[row]} in trajectory {row} where trajectory 0 "
            f"has {rows[0]}; move such trajectories into a data set of their own"
        )


def differences(
    first: Contents, dt: float, other: Contents, other_dt: float, stop: int | None = None
) -> Iterator[tuple[str, Any, Any]]:
    """(what, expected, found) for all in which a file is not like the first of its data set.

    Frames from `stop` on are used of none, so that files may differ in how many there are.
    """
    for what in ("dataset_name", "axes", "spatial_shape", "boundary"):
        if getattr(first, what) != getattr(other, what):
            yield what, getattr(first, what), getattr(other, what)
    yield from other_spacing(first.coordinates, other.coordinates)
    if first.num_steps != other.num_steps and (stop is None or min(first.num_steps, other.num_steps) < stop):
        yield "the number of frames", first.num_steps, other.num_steps
    for expected, found in zip(first.sources, other.sources, strict=True):
        if expected != found:
            yield "a field", expected, found
    if not np.isclose(dt, other_dt, rtol=1e-3, atol=0.0):
        yield "dt", dt, other_dt
    if list(first.parameters) != list(other.parameters):
        yield "parameters", list(first.parameters), list(other.parameters)


def other_spacing(
    first: Mapping[str, Float[np.ndarray, "_"]], other: Mapping[str, Float[np.ndarray, "_"]]
) -> Iterator[tuple[str, Any, Any]]:
    """Axes on which points are not as far apart, to a thousandth of the largest step; they may begin elsewhere."""
    for axis in first:
        expected, found = first[axis], other.get(axis)
        if found is None or len(expected) != len(found) or len(expected) < 2:
            continue
        # A place far from zero that was rounded to float32 is off by more than a thousandth of a small step.
        rounding = 2 * np.finfo(np.float32).eps * max(np.abs(expected).max(), np.abs(found).max())
        allowed = 1e-3 * np.abs(np.diff(expected)).max() + rounding
        wrong = np.abs((found - found[0]) - (expected - expected[0])) > allowed
        if wrong.any():
            place = int(np.argmax(wrong))
            yield (
                f"the spacing along {axis}",
                f"point {place} at {expected[place] - expected[0]:g} from the first",
                f"{found[place] - found[0]:g}",
            )


def check_times(times: Float[np.ndarray, "T"], cuts: Sequence[int], where: str) -> None:
    """What must hold whatever the user says about the time step: time increases, and the record has no jump.

    Args:
        times: Time of each frame.
        cuts: Frames with which a further piece of the record begins.
        where: File and data set, for the message.

    Raises:
        ValueError: A time is not finite or not later than the one before; or the step across a cut is not the usual
            one, give or take the 15 % by which months differ.
    """
    if not np.isfinite(times).all():
        raise ValueError(f"{where}: expected finite times, found {times}")
    steps = np.diff(times.astype(np.float64))
    if (steps <= 0).any():
        frame = int(np.argmax(steps <= 0))
        raise ValueError(
            f"{where}: expected times that increase, found {times[frame + 1]:g} after {times[frame]:g} from frame "
            f"{frame} to {frame + 1}; `dt` cannot mend it: store the frames in order, each once"
        )
    usual = float(np.median(steps)) if len(steps) else 0.0
    for cut in cuts:
        if abs(steps[cut - 1] - usual) > 0.15 * usual:
            raise ValueError(
                f"{where}: expected equal time steps, found {steps[cut - 1]:g} from frame {cut - 1} to {cut}, where a "
                f"piece of the record ends and the next one begins, and {usual:g} elsewhere; `dt` cannot mend it: "
                "name the piece that is missing, or the pieces on either side as data sets of their own"
            )


def uniform_step(times: Float[np.ndarray, "T"], where: str) -> float:
    """The time between two frames, where it is the same throughout to one part in a thousand (and to rounding).

    Args:
        times: Time of each frame.
        where: File and data set, for the message.

    Raises:
        ValueError: There are fewer than two frames, time does not increase, or the steps differ.
    """
    if len(times) < 2 or not np.isfinite(times).all():
        raise ValueError(f"{where}: expected the finite times of two or more frames, found {times}")
    # Late in a long run, a time that was rounded to float32 is off by more than a thousandth of a small step.
    rounding = 2 * np.finfo(times.dtype).eps * np.abs(times).max() if times.dtype.kind == "f" else 0.0
    steps = np.diff(times.astype(np.float64))
    dt = float(np.sort(steps)[(len(steps) - 1) // 2])
    if dt <= 0:
        raise ValueError(f"{where}: expected times that increase, found steps of {dt:g}")
    wrong = np.abs(steps - dt) > 1e-3 * dt + rounding
    if wrong.any():
        frame = int(np.argmax(wrong))
        raise ValueError(
            f"{where}: expected equal time steps, found {steps[frame]:g} from frame {frame} to {frame + 1} where most "
            f"are {dt:g}; interpolate to equal steps, or cut the file there"
        )
    return float(steps.mean())
