"""What the axes of arrays are: by their names, by attributes, by coordinates of the same length; else it is asked.

An array of (100, 51, 64, 64) without names can be trajectories, time and two axes of space, or other things.  Nothing
here takes the likeliest of several readings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

from data_adapters.contents import CHANNEL, SAMPLE, TIME
from data_adapters.inspect.findings import LABELLED, Array, Found
from data_adapters.inspect.names import SPACE, is_unnamed, kind_of, stem
from data_adapters.inspect.question import Question
from data_adapters.inspect.readings import (
    AXIS_NAMES,
    FEW,
    ROLES,
    is_matlab,
    listed_axes,
    question_of_axes,
    question_of_order,
)  # fmt: skip

__all__ = ["Layout", "layout_of"]


@dataclass
class Layout:
    """What the axes of each array are.

    Args:
        dims: By array, SAMPLE, TIME, CHANNEL or the name of a spatial axis, in index order.
        named: What the file calls the roles, where it has names.
        coordinates: By TIME and spatial axis, the array that holds its coordinates.
        why: By TIME, SAMPLE, CHANNEL and spatial axis, what says so.
        notes: What was concluded and might be wrong.
    """

    dims: dict[str, tuple[str, ...]] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)
    coordinates: dict[str, str] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def layout_of(found: Found, dims: Sequence[str] | None) -> Layout:
    """The meaning of all axes.

    Args:
        found: What the files hold.
        dims: What the user says about the axes of the arrays that have as many.

    Raises:
        ValueError: `dims` does not fit.
        Question: Something remains open.
    """
    layout = Layout()
    if found.dims is not None:
        if dims is not None:
            raise ValueError(f"dims: it has no effect, {found.container.label} states the axes; leave it out")
        layout.dims = dict(found.dims)
        axes = {dim for own in found.dims.values() for dim in own} - set(ROLES)
        layout.coordinates = {axis: f"dimensions/{axis}" for axis in (TIME, *sorted(axes))}
        layout.why = dict.fromkeys((SAMPLE, TIME, CHANNEL), "stated by the format")
        return layout
    arrays = [array for array in found.arrays.values() if len(array.shape) > 1 and not _is_coordinate(array, found)]
    if not arrays:
        listed = ", ".join(f"{array.name} {array.shape}" for array in found.arrays.values())
        raise ValueError(
            f"{found.container.files[0]}: expected an array along time and 1 to 3 axes of space, found only {listed}"
            + "".join(f", {name} ({why})" for name, why in found.skipped.items())
        )
    if dims is not None:
        _stated(arrays, tuple(dims), found, layout)
    # Those with most axes first: what they settle holds for the others.
    open_ones: list[tuple[Array, Question]] = []
    for array in sorted(arrays, key=lambda array: -len(array.shape)):
        if array.name in layout.dims:
            continue
        try:
            _inferred(array, found, layout)
        except Question as question:
            open_ones.append((array, question))
    settled = max((len(own) for own in layout.dims.values() if TIME in own), default=0)
    for array, asked in open_ones:
        if len(array.shape) > settled and dims is None:
            raise asked
        _by_length(array, arrays, layout)
        if array.name not in layout.dims:
            layout.notes.append(f"{array.name} is left out: what its axes are is not known; dims= can say it")
    if not any(TIME in own for own in layout.dims.values()):
        first = max(arrays, key=lambda array: len(array.shape))
        last = question_of_axes(first, [None] * len(first.shape), found)
        shown = ", ".join(listed_axes(first))
        text = f"{first.name} ({shown}): no axis of it is called time, and one frame has no forecast"
        raise Question(f"{text}. If one is time, dims= says so; several files are named by a pattern.", last.answers)
    if found.adapter != LABELLED:
        for name, own in layout.dims.items():
            for dim, size in zip(own, found.arrays[name].shape, strict=True):
                _find_coordinate(dim, size, found, layout)
    else:
        layout.coordinates |= {
            dim: layout.named.get(dim, dim)
            for own in layout.dims.values()
            for dim in own
            if dim != CHANNEL and len(getattr(found.arrays.get(layout.named.get(dim, dim)), "shape", ())) == 1
        }
    return layout


def _is_coordinate(array: Array, found: Found) -> bool:
    """A table of times or of positions for each trajectory; bounds of cells."""
    kind = kind_of(stem(array.name), array.attributes)[0]
    if kind == TIME and len(array.shape) == 2 and found.adapter != LABELLED:
        return True
    bounds = array.shape[-1] == 2 and array.name.rpartition("_")[2] in ("bnds", "bounds", "vertices")
    return array.auxiliary or bounds or _is_line(array)


def _is_line(array: Array) -> bool:
    """Numbers along one axis; MATLAB has them as a row."""
    return len(array.shape) == 1 or (len(array.shape) == 2 and array.shape[0] == 1 and not any(array.dims))


def _stated(arrays: Sequence[Array], dims: tuple[str, ...], found: Found, layout: Layout) -> None:
    """Take what the user says for each array with as many axes."""
    where = found.container.files[0]
    axes = [dim for dim in dims if dim not in ROLES]
    if len(set(dims)) != len(dims) or TIME not in dims or not 1 <= len(axes) <= 3:
        raise ValueError(
            f"dims: expected different names, {TIME} and 1 to 3 axes of space among them (and {SAMPLE}, {CHANNEL}), "
            f"found {list(dims)}"
        )
    if found.trajectories and SAMPLE in dims:
        raise ValueError(f"dims: each group of {where} is a trajectory; leave {SAMPLE} out of {list(dims)}")
    fitting = [array for array in arrays if len(array.shape) == len(dims)]
    if found.adapter == LABELLED:
        fitting = [a for a in fitting if all(d in ROLES or d == n for d, n in zip(dims, a.dims, strict=True))]
    if not fitting:
        listed = ", ".join(f"{a.name} ({', '.join(listed_axes(a))})" for a in arrays[:12])
        raise ValueError(
            f"dims: expected names for the axes of an array of {where}, found {list(dims)}, and it has {listed}"
            + ("; axes of space keep the names that the file gives them" if found.adapter == LABELLED else "")
        )
    for array in fitting:
        layout.dims[array.name] = dims
        if found.adapter == LABELLED:
            layout.named |= {d: n for d, n in zip(dims, array.dims, strict=True) if d in ROLES}
    layout.why |= dict.fromkeys(dims, "as given")


def _inferred(array: Array, found: Found, layout: Layout) -> None:
    """Settle the axes of an array, or ask."""
    sizes = array.shape
    known: list[str | None] = [None] * len(sizes)
    why: dict[str, str] = {}
    doubtful: set[int] = set()  # axes that have a name, which says nothing
    for i, dim in enumerate(array.dims):
        settled = next((role for role, name in layout.named.items() if name == dim), None)
        coordinate = found.arrays.get(dim)
        kind, reason = kind_of(dim, coordinate.attributes if coordinate else None)
        if settled:
            known[i] = settled
        elif is_unnamed(dim):
            continue
        elif kind is None:
            doubtful.add(i)
        else:
            known[i] = dim if kind == SPACE else kind
            why.setdefault(known[i] or "", reason)
    if TIME not in known and (growing := [i for i, dim in enumerate(array.dims) if dim in found.unlimited]):
        known[growing[0]] = TIME
        doubtful -= set(growing)
        why[TIME] = "the file may grow along it"
    twice = [role for role in (TIME, SAMPLE, CHANNEL) if known.count(role) > 1]
    if twice:
        _refuse_or_ask_twice(array, known, twice[0], found)
    notes: list[str] = []
    swapped = _by_coordinates(array, known, doubtful, found, layout, why, notes)
    _by_elimination(array, known, doubtful, found, why, notes)
    axes = [dim for dim in known if dim is not None and dim not in ROLES]
    if None in known or not 1 <= len(axes) <= 3:
        raise question_of_axes(array, known, found, swapped=swapped)
    if swapped:
        raise question_of_order(array, known, swapped)
    named = {d: n for d, n in zip(known, array.dims, strict=True) if d in ROLES and d is not None and n}
    if found.adapter == LABELLED and any(layout.named.get(role, name) != name for role, name in named.items()):
        layout.notes.append(f"{array.name} is left out: it lies along {', '.join(array.dims)}, unlike the others")
        return
    layout.dims[array.name] = tuple(dim for dim in known if dim is not None)
    layout.named |= named
    layout.why = {**why, **layout.why}
    layout.notes += [note for note in notes if note not in layout.notes]


def _refuse_or_ask_twice(array: Array, known: list[str | None], role: str, found: Found) -> None:
    both = [dim for dim, kind in zip(array.dims, known, strict=True) if kind == role]
    if role == TIME:
        raise question_of_axes(array, [None if kind == TIME else kind for kind in known], found, among=both)
    raise ValueError(
        f"{found.container.files[0]}: {array.name}: expected one axis of {role}, found {' and '.join(both)}; join them "
        f'into one with xarray: dataset.stack({role}={both}).reset_index("{role}").to_netcdf("mine.nc")'
    )


def _by_coordinates(
    array: Array,
    known: list[str | None],
    doubtful: set[int],
    found: Found,
    layout: Layout,
    why: dict[str, str],
    notes: list[str],
) -> list[str]:
    """Unnamed axes whose length is that of coordinates, and of these alone.

    Returns:
        Names of axes that are equally long, where nothing says in which order they lie.
    """
    swapped: list[str] = []
    lines = {name: own for name, own in found.arrays.items() if _is_line(own) and own.shape[-1] > 1}
    kinds = {name: kind_of(stem(name), own.attributes)[0] for name, own in lines.items()}
    lines = {name: own for name, own in lines.items() if kinds[name] in (TIME, SPACE, SAMPLE)}
    open_axes = [i for i, dim in enumerate(known) if dim is None and i not in doubtful]
    taken = {dim for dim in known if dim}
    claims: dict[int, frozenset[str]] = {}
    for i in open_axes:
        free = {n: o.shape[-1] for n, o in lines.items() if (kinds[n] if kinds[n] != SPACE else stem(n)) not in taken}
        exact = frozenset(name for name, length in free.items() if length == array.shape[i])
        edges = frozenset(name for name, length in free.items() if length == array.shape[i] + 1)
        claims[i] = exact or edges
    for names in set(claims.values()):
        axes = [i for i, own in claims.items() if own == names]
        # A coordinate that another axis may have too says nothing.
        shared = any(own & names for i, own in claims.items() if i not in axes)
        if not names or len(names) != len(axes) or shared:
            continue
        if len(axes) > 1 and any(kinds[name] != SPACE for name in names):
            continue
        by_axis = {stem(name): name for name in names}
        if len(by_axis) < len(axes):
            continue
        order, note = sorted(by_axis), ""
        if len(axes) > 1:
            settled, note = _order(order, found, layout)
            swapped += [] if settled else order
            order = settled or order
        ordered = [by_axis[axis] for axis in order]
        for i, name in zip(axes, ordered, strict=True):
            known[i] = stem(name) if kinds[name] == SPACE else kinds[name]
            why.setdefault(known[i] or "", f"as long as {name}")
        notes += [note] if note else []
    tables = [own for name, own in found.arrays.items() if len(own.shape) == 2 and kind_of(stem(name))[0] == TIME]
    for table in tables if TIME not in known and SAMPLE not in known else ():
        pairs = [
            (i, j)
            for i, j in combinations(range(len(known)), 2)
            if known[i] is None and known[j] is None and array.shape[i] == table.shape[0]
            and table.shape[1] in (array.shape[j], array.shape[j] + 1)
        ]  # fmt: skip
        if len(pairs) == 1:
            (i, j) = pairs[0]
            known[i], known[j] = SAMPLE, TIME
            why[SAMPLE] = why[TIME] = f"{table.name} has a row of times for each"
    return swapped


def _order(names: Sequence[str], found: Found, layout: Layout) -> tuple[list[str], str]:
    """In which order axes of the same length lie, and a note on what says so; [] where nothing does."""
    for own in layout.dims.values():
        if set(names) <= set(own):
            return [dim for dim in own if dim in names], ""  # as in an array that is settled
    both = f"{' and '.join(names)} are equally long"
    if is_matlab(found):
        return list(names)[::-1], f"{both}: reversed, as MATLAB stores them; dims= says otherwise"
    if {"density", "Vx", "Vy", "x-coordinate", "y-coordinate"} <= set(found.arrays):
        return list(names), f"{both}: in this order, as in PDEBench, whose names of arrays these are"
    return [], ""


def _by_elimination(
    array: Array,
    known: list[str | None],
    doubtful: set[int],
    found: Found,
    why: dict[str, str],
    notes: list[str],
) -> None:
    """What is left when time is known: trajectories before it, components and space behind it."""
    if TIME not in known:
        return
    time = known.index(TIME)
    before = [i for i in range(time) if known[i] is None]
    after = [i for i in range(time + 1, len(known)) if known[i] is None]
    for i in before:
        if array.shape[i] == 1 and SAMPLE not in known and not found.trajectories:
            known[i] = SAMPLE
            why[SAMPLE] = "one entry"
    unnamed = [i for i in before if known[i] is None and i not in doubtful]
    spatial = [dim for dim in known if dim and dim not in ROLES]
    if unnamed == [0] and len(before) == 1 and SAMPLE not in known and not found.trajectories and (spatial or after):
        known[0] = SAMPLE
        why[SAMPLE] = "the only axis before time, of which nothing else is said"
    for i in (len(known) - 1, time + 1):
        others = [array.shape[j] for j in range(time + 1, len(known)) if j != i]
        few = i in after and i not in doubtful and array.shape[i] <= FEW
        if few and CHANNEL not in known and others and min(others) > FEW:
            known[i] = CHANNEL
            why[CHANNEL] = "an unnamed axis of few entries"
    free = [name for name in AXIS_NAMES if name not in known]
    left = [i for i in after if known[i] is None]
    if len(left) + len([dim for dim in known if dim and dim not in ROLES]) <= 3:
        named = [i for i in left if not array.dims[i]]
        free = free[: len(named)][:: -1 if is_matlab(found) else 1]
        for i in left:
            others = [array.shape[j] for j in range(time + 1, len(known)) if j != i]
            if i in doubtful and array.shape[i] <= FEW and others and min(others) > FEW:
                continue  # "band 3" may be components
            known[i] = array.dims[i] if array.dims[i] else free.pop(0)
            why.setdefault(known[i] or "", "behind time")
        given = [known[i] or "" for i in named if known[i]]
        if len(given) > 1:
            notes.append(
                f"{', '.join(given)}: names given here to axes that have none, in this order; dims= gives others"
            )


def _by_length(array: Array, arrays: Sequence[Array], layout: Layout) -> None:
    """Axes of an array with fewer of them, by the lengths of a known one, if they fit in one way only."""
    fits = set()
    for other in arrays:
        dims = layout.dims.get(other.name, ())
        if len(dims) > len(array.shape) and other.shape:
            pairs = list(zip(dims, other.shape, strict=True))
            for chosen in combinations(pairs, len(array.shape)):
                if tuple(size for _, size in chosen) == array.shape:
                    fits.add(tuple(dim for dim, _ in chosen))
    named = {
        fit for fit in fits if all(not n or n in (d, layout.named.get(d)) for n, d in zip(array.dims, fit, strict=True))
    }
    if len(named) == 1:
        layout.dims[array.name] = named.pop()


def _find_coordinate(dim: str, size: int, found: Found, layout: Layout) -> None:
    """The array that holds the coordinates of an axis, by its name."""
    if dim in (SAMPLE, CHANNEL) or dim in layout.coordinates:
        return
    for name, array in found.arrays.items():
        own = stem(name)
        fits = (own == dim) if dim != TIME else kind_of(own, array.attributes)[0] == TIME
        one_row = _is_line(array) or (dim == TIME and len(array.shape) == 2)
        if fits and one_row and array.shape[-1] in (size, size + 1) and name not in layout.dims:
            layout.coordinates[dim] = name
            return
