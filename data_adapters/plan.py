"""Which part of the files is used, and how what is read becomes fields: each array is read once for a window."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from data_adapters.contents import CHANNEL, SAMPLE, TIME, Source
from morph.claims import check_memory

__all__ = ["Array", "axes_in_order", "check_selection", "part_of", "per_axis", "plan", "slice_of"]


class Array(NamedTuple):
    """One array, how a window of it is read, and the fields that are made of it.

    selection: for each of its axes what is read, but of SAMPLE and TIME, whose places are left open.
    sample, time: number of that axis, None where the array does not vary along it.
    order: what is read, transposed to time, channels and the axes in the user's order.
    grid: length of each axis in that order, 1 where the array does not vary along it.
    steps: along each axis, which of the points that were read are used.
    targets: (field, its components, which of the channels that were read; None for all).
    in_place: the array is the one component of its target as it is: same axes, whole and in order.
    """

    path: str
    selection: tuple[slice, ...]
    sample: int | None
    time: int | None
    order: tuple[int, ...]
    grid: tuple[int, ...]
    steps: tuple[slice, ...]
    targets: tuple[tuple[int, slice, list[int] | None], ...]
    in_place: bool

    def select(self, row: int, frames: slice) -> tuple[int | slice, ...]:
        """What is read for frames of a trajectory."""
        chosen: list[int | slice] = list(self.selection)
        if self.time is not None:
            chosen[self.time] = frames
        if self.sample is not None:
            chosen[self.sample] = row
        return tuple(chosen)

    def spread(self, values: np.ndarray, frames: Float[np.ndarray, "T F C D H W"]) -> None:
        """Put what was read into the fields that are made of it.

        Raises:
            FloatingPointError: A number is too large for float32.
        """
        values = values.transpose(self.order)
        values = values.reshape(1 if self.time is None else len(frames), -1, *self.grid)
        values = values[(slice(None), slice(None), *self.steps)]
        values = values.reshape(*values.shape[:2], *(1,) * (3 - len(self.grid)), *values.shape[2:])
        with np.errstate(over="raise"):
            for field, components, picks in self.targets:
                frames[:, field, components] = values if picks is None else values[:, picks]


def plan(sources: Sequence[Sequence[Source]], axes: Sequence[str], space: Mapping[str, range]) -> list[Array]:
    """What is read for a window, each array once.

    Args:
        sources: For each field, the arrays that it is made of.
        axes: Spatial axes in the order that the user wants.
        space: Which part of each is used.
    """
    wanted: dict[tuple[str, tuple[str, ...]], list[tuple[Source, int, slice]]] = {}
    for field, parts in enumerate(sources):
        component = 0
        for source in parts:
            taken = slice(component, component + source.num_components)
            wanted.setdefault((source.path, source.dims), []).append((source, field, taken))
            component = taken.stop
    return [_array(users, axes, space) for users in wanted.values()]


def _array(users: Sequence[tuple[Source, int, slice]], axes: Sequence[str], space: Mapping[str, range]) -> Array:
    source = users[0][0]
    named = [channel for user, *_ in users for channel in user.channels or ()]
    # Of a tensor, channels are counted row by row over both of its component axes: all of it is read.
    partly = all(user.channels is not None for user, *_ in users) and source.dims.count(CHANNEL) == 1
    channels = slice(min(named), max(named) + 1) if partly else slice(None)
    targets = tuple(
        (
            field,
            taken,
            None if user.channels is None else [channel - (channels.start or 0) for channel in user.channels],
        )
        for user, field, taken in users
    )
    sizes = dict(zip(source.dims, source.shape, strict=True))
    varies = {axis: sizes.get(axis, 1) > 1 for axis in axes}

    def box(dim: str) -> slice:
        # The box around a subsampled region is read as one: HDF5 picks single points slowly.
        if dim == CHANNEL:
            return channels
        return slice(space[dim].start, space[dim].stop) if varies.get(dim) else slice(None)

    left = [dim for dim in source.dims if dim != SAMPLE]
    in_order = tuple(left) == (TIME, *axes)
    whole = all(varies[axis] or len(piece) == 1 for axis, piece in space.items())
    return Array(
        path=source.path,
        selection=tuple(box(dim) for dim in source.dims),
        sample=source.dims.index(SAMPLE) if SAMPLE in source.dims else None,
        time=source.dims.index(TIME) if TIME in source.dims else None,
        order=tuple(i for dim in (TIME, CHANNEL, *axes) for i, found in enumerate(left) if found == dim),
        grid=tuple(piece.stop - piece.start if varies[axis] else 1 for axis, piece in space.items()),
        steps=tuple(slice(None, None, piece.step if varies[axis] else 1) for axis, piece in space.items()),
        targets=targets,
        in_place=len(users) == 1 and in_order and whole and all(piece.step == 1 for piece in space.values()),
    )


def check_selection(shape: Sequence[int], selection: Sequence[int | slice], itemsize: int, what: str) -> None:
    """Refuse to read more at once than memory holds.

    Args:
        shape: Of the array.
        selection: What would be read of it.
        itemsize: Bytes of each of its numbers.
        what: File and array, for the message.

    Raises:
        ClaimError: It is too much.
    """
    parts = zip(shape, selection, strict=False)
    lengths = [1 if isinstance(part, int) else len(range(*part.indices(size))) for size, part in parts]
    check_memory(prod(lengths) * prod(shape[len(lengths) :]) * itemsize, what, "read less of it with `frames`, `space`")


def axes_in_order(found: tuple[str, ...], wanted: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """The spatial axes as the user orders them.

    Raises:
        ValueError: They are not those of the files.
    """
    if wanted is None:
        return found
    if isinstance(wanted, str) or not isinstance(wanted, Sequence) or sorted(map(str, wanted)) != sorted(found):
        raise ValueError(f"{where}: axes: expected {', '.join(found)} in some order, found {wanted}")
    return tuple(wanted)


def per_axis(option: Mapping[str, Any] | None, axes: Sequence[str], where: str) -> Mapping[str, Any]:
    """An option that says something of some of the axes.

    Raises:
        ValueError: It is no mapping, or names another axis.
    """
    option = {} if option is None else option
    if not isinstance(option, Mapping) or set(option) - set(axes):
        raise ValueError(f"{where}: expected a mapping with some of the axes {', '.join(axes)}, found {option!r}")
    return option


def part_of(option: Mapping[str, int | None] | None, size: int, where: str) -> range:
    """Indices of the file that are used.

    Args:
        option: start, stop, step.
        size: Length of the axis.
        where: Data set and option, for the message.

    Raises:
        ValueError: They are no whole numbers within the axis.
    """
    option = {} if option is None else option
    if (
        not isinstance(option, Mapping)
        or set(option) - {"start", "stop", "step"}
        or not all(value is None or type(value) is int for value in option.values())
    ):
        raise ValueError(
            f"{where}: expected whole numbers start, stop and step, such as {{start: 0, stop: 64, step: 2}}, "
            f"found {option!r}"
        )
    given = {key: value for key, value in option.items() if value is not None}
    start, stop, step = given.get("start", 0), given.get("stop", size), given.get("step", 1)
    if step < 1 or not 0 <= start < stop <= size:
        raise ValueError(f"{where}: expected 0 <= start < stop <= {size} and a step of 1 or more, found {option}")
    piece = range(start, stop, step)
    return range(start, piece[-1] + 1, step)


def slice_of(piece: range) -> slice:
    """The same indices, to index an array with."""
    return slice(piece.start, piece.stop, piece.step)
