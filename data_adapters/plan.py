"""Which part of the files is used, and how what is read becomes fields: each array is read once for a window."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from data_adapters.contents import CHANNEL, SAMPLE, TIME, Source

__all__ = ["Array", "axes_in_order", "part_of", "per_axis", "plan", "slice_of"]


class Array(NamedTuple):
    """One array, and the fields that are made of it.

    channels: the part of its CHANNEL axis that is read.
    targets: (field, its components, which of the channels that were read; None for all).
    in_place: the array fills all frames as it is.
    """

    path: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    channels: slice
    targets: tuple[tuple[int, slice, list[int] | None], ...]
    in_place: bool


def plan(sources: Sequence[Sequence[Source]], axes: Sequence[str], space: Mapping[str, range]) -> list[Array]:
    """What is read for a window, each array once."""
    wanted: dict[tuple[str, tuple[str, ...]], list[tuple[Source, int, slice]]] = {}
    for field, parts in enumerate(sources):
        component = 0
        for source in parts:
            taken = slice(component, component + source.num_components)
            wanted.setdefault((source.path, source.dims), []).append((source, field, taken))
            component = taken.stop
    pieces = []
    alone = len(wanted) == 1 and len(sources) == 1 and len(sources[0]) == 1
    for (path, dims), users in wanted.items():
        source = users[0][0]
        named = [channel for user, *_ in users for channel in user.channels or ()]
        # Of a tensor, channels are counted row by row over both of its component axes: all of it is read.
        partly = all(user.channels is not None for user, *_ in users) and dims.count(CHANNEL) == 1
        first = min(named) if partly else 0
        channels = slice(first, max(named) + 1) if partly else slice(None)
        targets = tuple(
            (field, taken, None if user.channels is None else [channel - first for channel in user.channels])
            for user, field, taken in users
        )
        sizes = [size for dim, size in zip(dims, source.shape, strict=True) if dim in axes]
        whole = sizes == [piece.stop - piece.start for piece in space.values()] or all(n > 1 for n in sizes)
        stepped = any(piece.step > 1 for piece in space.values())
        in_order = tuple(dim for dim in dims if dim != SAMPLE) == (TIME, *axes)
        in_place = alone and in_order and whole and not stepped
        pieces.append(Array(path, dims, source.shape, channels, targets, in_place))
    return pieces


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
        raise ValueError(f"{where}: expected whole numbers start, stop and step, found {option!r}")
    given = {key: value for key, value in option.items() if value is not None}
    start, stop, step = given.get("start", 0), given.get("stop", size), given.get("step", 1)
    if step < 1 or not 0 <= start < stop <= size:
        raise ValueError(f"{where}: expected 0 <= start < stop <= {size} and a step of 1 or more, found {option}")
    piece = range(start, stop, step)
    return range(start, piece[-1] + 1, step)


def slice_of(piece: range) -> slice:
    """The same indices, to index an array with."""
    return slice(piece.start, piece.stop, piece.step)
