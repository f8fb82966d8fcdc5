"""Metadata of HDF5 files that say little about themselves: arrays whose axes the user names.

Such are the files of PDEBench (arXiv 2210.07182), one array for all trajectories or one group for each, and those of
PDEgym (arXiv 2405.19101), which are NetCDF-4 and thereby HDF5.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import h5py
import numpy as np
import yaml
from jaxtyping import Float

from data_adapters.choices import Choice
from data_adapters.contents import CHANNEL, SAMPLE, TIME, Contents, check_rows, source_of
from data_adapters.raw import chunks_of
from morph.claims import check_entries, check_numbers, load_yaml
from morph.containers import check_owned

_PACKED = ("scale_factor", "add_offset", "_FillValue", "missing_value")

__all__ = ["Layout", "array_names", "groups_of", "layout_of", "read_arrays", "read_groups"]

_ROLES = (SAMPLE, TIME, CHANNEL)


class Layout(NamedTuple):
    """The options of `ArrayAdapter` that say what the arrays of a file are."""

    dims: tuple[str, ...]
    coordinates: dict[str, str]
    parameters: tuple[str, ...]


def layout_of(dims: Any, coordinates: Any, parameters: Any, where: str) -> Layout:
    """These options, checked.

    Raises:
        ValueError: One is not of its kind, or no name or too many are those of spatial axes.
    """
    for option, names in (("dims", dims), ("parameters", parameters)):
        if (
            isinstance(names, str)
            or not isinstance(names, Sequence)
            or not all(isinstance(name, str) for name in names)
        ):
            raise ValueError(f"{where}: {option}: expected a list of names, found {names!r}")
    coordinates = {} if coordinates is None else coordinates
    if not isinstance(coordinates, Mapping) or not all(
        isinstance(name, str) for pair in coordinates.items() for name in pair
    ):
        raise ValueError(
            f"{where}: coordinates: expected a mapping of time and axes to names of arrays, found {coordinates!r}"
        )
    axes = [dim for dim in dims if dim not in _ROLES]
    if len(set(dims)) != len(dims) or not 1 <= len(axes) <= 3:
        raise ValueError(
            f"{where}: dims: expected different names with 1 to 3 spatial axes among them, found {list(dims)}"
        )
    if unknown := set(coordinates) - {TIME, *axes}:
        raise ValueError(f"{where}: coordinates: expected {TIME} and {', '.join(axes)}, found {', '.join(unknown)}")
    if len(set(parameters)) != len(parameters):
        raise ValueError(f"{where}: parameters: expected different names, found {list(parameters)}")
    return Layout(tuple(dims), dict(coordinates), tuple(parameters))


def array_names(file: h5py.File, place: h5py.Group, layout: Layout) -> list[str]:
    """Arrays of a group with as many axes as `dims` names, in the file's order.

    Raises:
        ValueError: There is none.
    """
    dims, coordinates, parameters = layout
    names = [
        name
        for name, data in place.items()
        if isinstance(data, h5py.Dataset)
        and data.shape is not None
        and data.ndim == len(dims)
        and name not in (*coordinates.values(), *parameters)
        and data.dtype.kind in "fiub"
    ]
    if not names:
        found = ", ".join(_listed(place)) or "nothing"
        raise ValueError(
            f"{file.filename}: expected an array of real numbers with the axes {', '.join(dims)}, found {found}"
        )
    return names


def read_arrays(file: h5py.File, chosen: Sequence[Choice], layout: Layout) -> Contents:
    """Contents of a file whose arrays hold all trajectories.  Without sample among `dims` it is one trajectory.

    Raises:
        ValueError: An array is missing, is not of numbers, or has other axes than `dims` says.
    """
    contents = _contents(file, file, chosen, layout)
    values = {}
    for name in layout.parameters:
        found = _parameter(name, file, file)
        if found.shape not in ((), (1,), (contents.num_trajectories,)):
            raise ValueError(
                f"{file.filename}: parameter {name!r}: expected one number, or one for each of "
                f"{contents.num_trajectories} trajectories, found shape {found.shape}"
            )
        values[name] = np.broadcast_to(found.reshape(-1), contents.num_trajectories)
    return _with(contents, parameters=values)


def read_groups(file: h5py.File, chosen: Sequence[Choice], layout: Layout) -> tuple[list[str], Contents]:
    """Names of the groups, one for each trajectory, and the contents of the file.

    Every group is looked at: that one differs must not come out in the middle of a long run.

    Raises:
        ValueError: As in `read_arrays`; or there is no group, or one differs from the first.
    """
    parameters = layout.parameters
    if wrong := [own for own in (layout.dims, *(choice.dims or () for choice in chosen)) if SAMPLE in own]:
        raise ValueError(f"{file.filename}: dims: a group holds one trajectory; leave {SAMPLE} out of {list(wrong[0])}")
    names, groups = groups_of(file)
    first = _contents(file, groups[0], chosen, layout)
    paths = {source.path for sources in first.sources for source in sources}
    shapes = {path: _array(file, groups[0], path).shape for path in paths}
    rows = []
    for name, group in zip(names, groups, strict=True):
        for path, shape in shapes.items():
            found = _array(file, group, path).shape
            if found != shape:
                raise ValueError(
                    f"{file.filename}: {name}/{path}: expected the shape {shape} of group {names[0]}, found {found}; "
                    "trajectories of another length or grid need a data set of their own"
                )
        if first.times is not None:
            times = _coordinate(file, group, first.time_path, first.num_steps)
            both = np.stack([first.times.astype(np.float64), times])
            check_rows(both, _rounding(first.times), f"{file.filename}: {name}/{first.time_path}")
        values = [_parameter(parameter, group, file) for parameter in parameters]
        for parameter, value in zip(parameters, values, strict=True):
            if value.size != 1:
                raise ValueError(
                    f"{file.filename}: {name}: parameter {parameter!r}: expected one number, found shape {value.shape}"
                )
        rows.append([float(value.reshape(())) for value in values])
    columns = np.array(rows).reshape(len(rows), len(parameters)).T
    sources = tuple(
        tuple(source._replace(dims=(SAMPLE, *source.dims), shape=(0, *source.shape)) for source in sources)
        for sources in first.sources
    )
    return names, _with(
        first,
        num_trajectories=len(names),
        sources=sources,
        parameters=dict(zip(parameters, columns, strict=True)),
        chunks={path: (1, *chunk) for path, chunk in first.chunks.items()},
    )


def _with(contents: Contents, **changes: Any) -> Contents:
    return Contents(**{**contents.__dict__, **changes})


def groups_of(file: h5py.File) -> tuple[list[str], list[h5py.Group]]:
    """The groups of a file by name, also where it keeps the order in which they were written.

    Raises:
        ValueError: There is none.
    """
    groups = {name: node for name, node in sorted(file.items()) if isinstance(node, h5py.Group)}
    if not groups:
        raise ValueError(
            f"{file.filename}: expected a group for each trajectory, found {', '.join(file) or 'nothing'}; "
            "whole arrays are read by data_adapters.hdf5.ArrayAdapter"
        )
    return list(groups), list(groups.values())


def _contents(file: h5py.File, place: h5py.Group, chosen: Sequence[Choice], layout: Layout) -> Contents:
    dims, coordinates, _ = layout
    where = file.filename
    axes = [dim for dim in dims if dim not in _ROLES]
    sizes: dict[str, int] = {}
    first = ""
    sources = []
    for choice in chosen:
        own = choice.dims or dims
        if len(set(own)) != len(own) or not set(own) <= {*_ROLES, *axes}:
            raise ValueError(
                f"{where}: field {choice.name!r}: dims: expected some of {', '.join(dims)}, each once, found "
                f"{', '.join(own)}"
            )
        parts = []
        for part in choice.parts:
            data = _array(file, place, part)
            if data.ndim != len(own):
                raise ValueError(
                    f"{where}: {data.name}: expected the axes {', '.join(own)}, found shape {data.shape}; correct "
                    "`dims` (a field that is constant in time has `dims` of its own)"
                )
            for dim, size in zip(own, data.shape, strict=True):
                check_entries(size, f"{where}: {data.name}: {dim}")
                if dim != CHANNEL and sizes.setdefault(dim, size) != size:
                    raise ValueError(
                        f"{where}: {data.name}: expected {sizes[dim]} along {dim} as in {first}, found shape "
                        f"{data.shape} for the axes {', '.join(own)}"
                    )
            first = first or data.name
            if 0 in data.shape:
                raise ValueError(f"{where}: {data.name}: expected values, found shape {data.shape}")
            parts.append(source_of(part, own, data.shape, choice, where))
        sources.append(tuple(parts))
    if TIME not in sizes or not set(axes) <= set(sizes):
        raise ValueError(
            f"{where}: dims: expected a field along {TIME} and {', '.join(axes)}, found {', '.join(sizes)}"
        )
    grid = {
        axis: _coordinate(file, place, coordinates[axis], sizes[axis])
        if axis in coordinates
        else np.arange(sizes[axis], dtype=np.float64)
        for axis in axes
    }
    times = _coordinate(file, place, coordinates[TIME], sizes[TIME]) if TIME in coordinates else None
    return Contents(
        dataset_name="",
        sizes={axis: sizes[axis] for axis in axes},
        num_trajectories=sizes.get(SAMPLE, 1),
        num_steps=sizes[TIME],
        sources=tuple(sources),
        boundary={},
        times=times,
        coordinates={axis: values.astype(np.float64) for axis, values in grid.items()},
        parameters={},
        time_path=coordinates.get(TIME, "times"),
        chunks=chunks_of(place, sources),
    )


def _whole(data: h5py.Dataset, file: h5py.File) -> Any:
    check_numbers(data.shape or (), data.dtype.itemsize, f"{file.filename}: {data.name}")
    check_owned(data, file, file.filename)
    return data[()]


def _array(file: h5py.File, place: h5py.Group, name: str) -> h5py.Dataset:
    data = place.get(name)
    if not isinstance(data, h5py.Dataset) or data.shape is None:
        found = ", ".join(_listed(place)) or "nothing"
        raise ValueError(f"{file.filename}: no field {name!r} in {place.name}: expected an array, found {found}")
    if data.dtype.kind not in "fiub":
        raise ValueError(
            f"{file.filename}: {data.name}: expected real numbers, found {data.dtype}; store complex numbers as two "
            "fields"
        )
    check_owned(data, file, file.filename)
    if packed := [key for key in _PACKED if key in data.attrs and not _harmless(key, data.attrs[key])]:
        raise ValueError(
            f"{file.filename}: {data.name}: expected the numbers themselves, found {packed[0]}="
            f"{data.attrs[packed[0]]}, by which stored numbers mean others (NetCDF conventions); "
            "data_adapters.labelled.XarrayAdapter reads such files"
        )
    return data


def _harmless(key: str, value: Any) -> bool:
    """A scale of 1, an offset of 0, and NaN in the place of what is missing change nothing."""
    neutral = {"scale_factor": 1.0, "add_offset": 0.0}.get(key, np.nan)
    try:
        return bool(np.array_equal(np.asarray(value, np.float64).reshape(-1), [neutral], equal_nan=True))
    except (TypeError, ValueError):
        return False


def _listed(place: h5py.Group) -> Iterator[str]:
    """Arrays with their shapes; of many groups the first few."""
    for number, (name, node) in enumerate(place.items()):
        if number == 12:
            yield f"and {len(place) - number} more"
            return
        yield f"{name} {node.shape} of {node.dtype}" if isinstance(node, h5py.Dataset) else f"{name}/"


def _coordinate(file: h5py.File, place: h5py.Group, name: str, size: int) -> Float[np.ndarray, "_"]:
    """One number for each index; of the edges of cells, and of PDEBench's times, there is one more."""
    data = _array(file, place, name)
    if data.ndim == 0 or data.shape[-1] not in (size, size + 1):
        raise ValueError(
            f"{file.filename}: {data.name}: expected {size} coordinates (or {size + 1}, of which the last is dropped), "
            f"found shape {data.shape}; correct `dims` or `coordinates`"
        )
    if data.ndim == 1:
        return _whole(data, file)[:size]
    # A row for each trajectory: the rows must agree, for a data set has one time step and one grid.
    rows = _whole(data, file).reshape(-1, data.shape[-1])[:, :size]
    check_rows(rows, _rounding(rows[0]), f"{file.filename}: {data.name}")
    return rows[0]


def _rounding(values: Float[np.ndarray, "_"]) -> float:
    """A millionth of what coordinates span."""
    return float(1e-6 * np.abs(values.astype(np.float64) - float(values[0])).max(initial=0))


def _parameter(name: str, place: h5py.Group, file: h5py.File) -> Float[np.ndarray, "..."]:
    """From an attribute, an array, or the YAML text in PDEBench's attribute `config`."""
    found: Any = None
    for node in (place, file):
        if name in node.attrs:
            found = node.attrs[name]
            break
        if isinstance(node.get(name), h5py.Dataset):
            found = _whole(node[name], file)
            break
        if "config" in node.attrs:
            found = _configured(name, node.attrs["config"], f"{file.filename}: {node.name}: config")
            if found is not None:
                break
    try:
        return np.asarray("nothing" if found is None else found, dtype=np.float64)
    except (TypeError, ValueError):
        known = ", ".join([*place.attrs, *file.attrs]) or "none"
        raise ValueError(
            f"{file.filename}: parameter {name!r}: expected a number in an attribute or an array of {place.name}, "
            f"found {'nothing' if found is None else repr(found)}; its attributes: {known}"
        ) from None


def _configured(name: str, text: Any, where: str) -> Any:
    """Entry of a nested YAML text, by its last name."""
    try:
        stored = load_yaml(text.decode() if isinstance(text, bytes) else str(text), where)
    except yaml.YAMLError:
        return None
    pending = [stored]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if name in node:
                return node[name]
            pending += node.values()
    return None
