"""What is asked about the axes of an array: all that they may be, as answers."""

from collections.abc import Iterator, Sequence
from itertools import permutations, product

from data_adapters.contents import CHANNEL, SAMPLE, TIME
from data_adapters.inspect.findings import LABELLED, Array, Found
from data_adapters.inspect.names import SPACE
from data_adapters.inspect.question import Question

__all__ = ["AXIS_NAMES", "FEW", "ROLES", "is_matlab", "listed_axes", "question_of_axes", "question_of_order"]

ROLES = (SAMPLE, TIME, CHANNEL)
FEW = 4
"""An unnamed axis of more entries is not taken for one of components."""
AXIS_NAMES = ("x", "y", "z")


def is_matlab(found: Found) -> bool:
    """Whether the last index is stored first."""
    return found.container.label.startswith("MATLAB")


def listed_axes(array: Array) -> Iterator[str]:
    """Name and length of each."""
    return (f"{dim or 'unnamed'} {size}" for dim, size in zip(array.dims, array.shape, strict=True))


def question_of_order(array: Array, known: Sequence[str | None], swapped: Sequence[str]) -> Question:
    """In which order axes of the same length lie.

    Args:
        array: The array.
        known: What each axis is.
        swapped: Names of those that may lie in any order.
    """
    answers = {}
    for dims in _orders([dim or "" for dim in known], swapped):
        sizes = [f"{size} {_MEANING.get(dim, dim)}" for dim, size in zip(dims, array.shape, strict=True)]
        answers[f"dims=[{','.join(dims)}]"] = ", ".join(sizes)
    shown = " x ".join(map(str, array.shape))
    listed = " and ".join(swapped)
    return Question(
        f"{array.name} ({shown}): {listed} are equally long: in which order do they lie? Nothing in the file says so. "
        "dims= does.",
        answers,
    )


def _orders(dims: Sequence[str], swapped: Sequence[str]) -> list[tuple[str, ...]]:
    """The axes with those that may be swapped in every order."""
    orders = []
    for order in permutations(swapped):
        names = iter(order)
        orders.append(tuple(next(names) if dim in swapped else dim for dim in dims))
    return orders


def question_of_axes(
    array: Array,
    known: Sequence[str | None],
    found: Found,
    among: Sequence[str] = (),
    swapped: Sequence[str] = (),
) -> Question:
    """What the axes are.

    Args:
        array: The array.
        known: What each axis is, None where that is open.
        found: What the files hold.
        among: Names of axes of which one is time.
        swapped: Names of known axes that may lie in any order.
    """
    shown = ", ".join(listed_axes(array)) if any(array.dims) else " x ".join(map(str, array.shape))
    what = f"which of {' and '.join(among)} is time" if among else "what are its axes"
    if not among and TIME in known and any(known):
        what = "which axes are trajectories, components and space"
    answers = {}
    readings = _readings(array, known, found)[:5]
    for dims in [order for reading in readings for order in _orders(reading, swapped)]:
        sizes = [f"{size} {_MEANING.get(dim, dim)}" for dim, size in zip(dims, array.shape, strict=True)]
        answers[f"dims=[{','.join(dims)}]"] = ", ".join(sizes)
    rule = "sample, time, channel and names for 1 to 3 axes of space, in index order"
    return Question(f"{array.name} ({shown}): {what}? Nothing in the file says so. dims= does: {rule}.", answers)


_MEANING = {SAMPLE: "trajectories", TIME: "times", CHANNEL: "components"}


def _readings(array: Array, known: Sequence[str | None], found: Found) -> list[tuple[str, ...]]:
    """All that the axes may be, the most usual first."""
    grouped, labelled = bool(found.trajectories), found.adapter == LABELLED
    options = []
    for i, dim in enumerate(known):
        open_roles = [TIME, SPACE, *([] if grouped else [SAMPLE]), *([CHANNEL] if array.shape[i] <= 9 else [])]
        options.append([dim] if dim in ROLES else [SPACE] if dim else open_roles)
    ranked = []
    for reading in product(*options):
        spatial = reading.count(SPACE)
        if reading.count(TIME) != 1 or not 1 <= spatial <= 3 or max(map(reading.count, (SAMPLE, CHANNEL))) > 1:
            continue
        time = reading.index(TIME)
        rank = 0.0
        if SAMPLE in reading:
            rank += 4 * (reading.index(SAMPLE) != 0)
        elif len(reading) > 3:
            rank += 1.5
        rank += {0: 0, 1: 0 if SAMPLE in reading else 3, len(reading) - 1: 1}.get(time, 4)
        if CHANNEL in reading:
            channel = reading.index(CHANNEL)
            rank += 0 if channel == len(reading) - 1 else 0.5 if channel == time + 1 else 3
            rank += 2 * (array.shape[channel] > FEW)
        rank += 3 * sum(array.shape[i] <= FEW for i, role in enumerate(reading) if role == SPACE)
        free = iter(AXIS_NAMES[:spatial][:: -1 if is_matlab(found) else 1])
        dims = tuple(
            role if role != SPACE else known[i] or (array.dims[i] if labelled and array.dims[i] else next(free))
            for i, role in enumerate(reading)
        )
        if len(set(dims)) == len(dims):
            ranked.append((rank, dims))
    return [dims for rank, dims in sorted(ranked, key=lambda pair: pair[0]) if rank < 6]
