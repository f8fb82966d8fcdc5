"""What each dimension of labelled data is: time, space, trajectories, or entries of a channel axis."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import xarray as xr

__all__ = ["Roles", "find_roles", "find_time", "shown", "times_along"]

_TIME = ("time", "times", "t")
_SAMPLE = (
    "sample", "samples", "trajectory", "trajectories", "run", "case", "simulation", "realization", "member", "ensemble",
    "number", "batch", "n",
)  # fmt: skip
_CHANNEL = ("channel", "channels", "component", "components", "variable", "field", "fields", "vector", "dir", "c")
_FEW = 4
"""Entries that a dimension without coordinates may have to be taken for components as well as for an axis of space."""


@dataclass(frozen=True)
class Roles:
    """The dimensions of some variables.

    Args:
        time: Name of the dimension.
        axes: Those of space, mapped onto the last of (D, H, W) in this order.
        sample: That of the trajectories, None where there is none.
        channel: That of the entries of each variable which has one.
    """

    time: str
    axes: tuple[str, ...]
    sample: str | None = None
    channel: Mapping[str, str] = field(default_factory=dict)


def find_roles(
    dataset: xr.Dataset,
    variables: Sequence[str],
    axes: Sequence[str] | None,
    indexed: Iterable[str],
    plain: Iterable[str],
) -> Roles:
    """Sort the dimensions of variables out.

    Args:
        dataset: Where they are.
        variables: Their names.
        axes: Dimensions of space; None: those that nothing else explains.
        indexed: Variables of which single entries are wanted, so that they have a channel dimension.
        plain: Variables that have none.

    Raises:
        ValueError: A dimension could be this or that, or nothing that a model takes; names the variable.
    """
    time = find_time(dataset, variables, axes)
    if axes is None:
        axes = _axes(dataset, variables, time, set(indexed))
    for variable in variables:
        if missing := [axis for axis in axes if axis not in dataset[variable].dims]:
            raise ValueError(
                f"variable {shown(dataset, variable)}: expected the axes of space {', '.join(axes)}, it has no "
                f"{', '.join(missing)}; name the dimensions of space in that order with axes=[...]"
            )
    sample, channel = _rest(dataset, variables, (time, *axes), set(indexed), set(plain))
    return Roles(time, tuple(axes), sample, channel)


def shown(dataset: xr.Dataset, variable: str) -> str:
    """A variable as messages name it: u (time 4, x 64)."""
    return f"{variable} ({', '.join(f'{dim} {size}' for dim, size in dataset[variable].sizes.items()) or 'a number'})"


def find_time(dataset: xr.Dataset, variables: Sequence[str], axes: Sequence[str] | None = None) -> str:
    """The dimension of time: the one called so, else the one whose coordinate says so, else what is left.

    Raises:
        ValueError: There is none, or more than one.
    """
    dims = [dim for dim in _dims(dataset, variables) if dim not in (axes or ())]
    if "time" in dims:
        return "time"
    marked = [dim for dim in dims if any(_is_clock(dataset[name]) for name in times_along(dataset, dim))]
    named = [dim for dim in dims if dim.lower() in _TIME]
    free = [dim for dim in dims if dim.lower() not in (*_SAMPLE, *_CHANNEL)] if axes is not None else []
    for found in (marked, named, free):
        if len(found) == 1:
            return found[0]
        if found:
            break
    candidates = (marked or named or free or dims) and f"any of {', '.join(marked or named or free or dims)}"
    raise ValueError(
        f"variable {shown(dataset, variables[0])}: expected a dimension of time, found "
        f"{candidates or 'none'}; call it so: dataset.rename({{'{(dims or ['t'])[0]}': 'time'}})"
    )


def times_along(dataset: xr.Dataset, dim: str) -> list[str]:
    """Coordinates that could hold the values of a dimension: its own, else the one-dimensional ones along it."""
    if dim in dataset.coords:
        return [dim]
    return [str(name) for name, coordinate in dataset.coords.items() if coordinate.dims == (dim,)]


def _is_clock(coordinate: xr.DataArray) -> bool:
    stated = {**coordinate.encoding, **coordinate.attrs}
    return (
        coordinate.dtype.kind in "mM"
        or stated.get("standard_name") == "time"
        or stated.get("axis") == "T"
        or " since " in str(stated.get("units", ""))
        or (coordinate.dtype.kind == "O" and coordinate.size > 0 and hasattr(coordinate.values.flat[0], "calendar"))
    )


def _dims(dataset: xr.Dataset, variables: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(str(dim) for name in variables for dim in dataset[name].dims))


def _axes(dataset: xr.Dataset, variables: Sequence[str], time: str, indexed: set[str]) -> tuple[str, ...]:
    """Dimensions of space where nobody names them: what comes after time, and is called neither sample nor channel."""
    name = max(variables, key=lambda variable: len(dataset[variable].dims))
    array = dataset[name]
    dims = [str(dim) for dim in array.dims]
    after = dims[dims.index(time) + 1 :] if time in dims else dims
    unnamed = [dim for dim in dims if dim != time and dim.lower() not in (*_SAMPLE, *_CHANNEL)]
    space = [dim for dim in unnamed if dim in after] or unnamed
    has_channel = any(dim.lower() in _CHANNEL for dim in dims)
    few = [dim for dim in space if dim not in dataset.coords and array.sizes[dim] <= _FEW < max(array.shape)]
    ways = [space] if 1 <= len(space) <= 3 else []
    if not has_channel and few and len(space) > 1:
        # Entries of a vector, or a very thin axis.
        others = [[dim for dim in space if dim != one] for one in few]
        ways = others if name in indexed else [*others, *ways]
    elif name in indexed and not has_channel:
        ways = [[dim for dim in space if dim != one] for one in space] if len(space) > 1 else []
    if len(ways) == 1:
        return tuple(ways[0])
    choices = " or ".join(f"axes=[{', '.join(way)}]" for way in ways) or "axes=[...], one to three dimensions"
    raise ValueError(
        f"variable {shown(dataset, name)}: which dimensions are space can be understood in more than one way; give "
        f"{choices}"
    )


def _rest(
    dataset: xr.Dataset, variables: Sequence[str], known: tuple[str, ...], indexed: set[str], plain: set[str]
) -> tuple[str | None, dict[str, str]]:
    """The sample dimension and the channel dimension of each variable, out of what is neither time nor space."""
    rest = {name: [str(dim) for dim in dataset[name].dims if dim not in known] for name in variables}
    samples: list[str] = []
    for name, dims in rest.items():
        if len(dims) > 2 or (len(dims) > 1 and name in plain) or (not dims and name in indexed):
            wanted = "besides time and space a channel dimension" if name in indexed else "time, space and at most one"
            more = "" if name in indexed else " dimension of trajectories"
            raise ValueError(
                f"variable {shown(dataset, name)}: expected {wanted}{more}, found {', '.join(dims) or 'none'} besides "
                f"{', '.join(known)}; select one entry of the others first: dataset.isel(...)"
            )
        if name in plain:
            samples += dims
    for name, dims in rest.items():
        if name not in plain:
            samples += _samples(dataset, name, dims, known[0], name in indexed, samples)
    found = list(dict.fromkeys(samples))
    if len(found) > 1:
        raise ValueError(
            f"variables {', '.join(shown(dataset, name) for name in variables[:4])}: expected at most one dimension of "
            f"trajectories, found {', '.join(found)}; select one entry of the others first: dataset.isel(...)"
        )
    sample = found[0] if found else None
    channel = {name: left[0] for name, dims in rest.items() if (left := [dim for dim in dims if dim != sample])}
    return sample, channel


def _samples(
    dataset: xr.Dataset, name: str, dims: list[str], time: str, is_indexed: bool, known: Sequence[str]
) -> list[str]:
    """Which of at most two dimensions is that of the trajectories: by name, else by its place before time."""
    if not dims or (is_indexed and len(dims) == 1):
        return []
    if stated := [dim for dim in dims if dim in known]:
        return stated[:1]
    by_name = [dim for dim in dims if dim.lower() in _SAMPLE]
    not_channel = [dim for dim in dims if dim.lower() not in _CHANNEL]
    order = [str(dim) for dim in dataset[name].dims]
    before = [dim for dim in dims if time not in order or order.index(dim) < order.index(time)]
    if len(dims) == 1:
        return dims if by_name or (not_channel and before) else []
    for found in (by_name, not_channel, before):
        if len(found) == 1:
            return found
    raise ValueError(
        f"variable {shown(dataset, name)}: {dims[0]} or {dims[1]} could be that of trajectories, the other one that "
        f"of components; call one 'sample': dataset.rename({{'{dims[0]}': 'sample'}})"
    )
