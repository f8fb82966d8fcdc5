"""Metadata of HDF5 files that say little about themselves: arrays whose axes the user names.

Such are the files of PDEBench (arXiv 2210.07182), one array for all trajectories or one group for each, and those of
PDEgym (arXiv 2405.19101), which are NetCDF-4 and thereby HDF5.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import h5py
import numpy as np
import yaml
from jaxtyping import Float

from data_adapters.choices import Choice
from data_adapters.contents import CHANNEL, SAMPLE, TIME, Contents, source_of

__all__ = ["array_names", "read_arrays", "read_groups"]

Layout = tuple[tuple[str, ...], dict[str, str], tuple[str, ...]]
"""(dims, coordinates, parameters), the options of `ArrayAdapter`."""


def array_names(
    file: h5py.File, dims: tuple[str, ...], coordinates: Mapping[str, str], parameters: Sequence[str], *, grouped: bool
) -> list[str]:
    """Arrays with as many axes as `dims` names, in the file's order.

    Raises:
        ValueError: There is none.
    """
    place = _groups(file)[1][0] if grouped else file
    arrays = {name: data for name, data in place.items() if isinstance(data, h5py.Dataset) and data.shape is not None}
    names = [
        name
        for name, data in arrays.items()
        if data.ndim == len(dims) and name not in coordinates.values() and data.dtype.kind in "fiub"
    ]
    if not names:
        found = ", ".join(f"{name} {data.shape}" for name, data in arrays.items()) or ", ".join(place) or "nothing"
        raise ValueError(f"{file.filename}: expected an array with the axes {', '.join(dims)}, found {found}")
    return names


def read_arrays(
    file: h5py.File,
    chosen: Sequence[Choice],
    dims: tuple[str, ...],
    coordinates: Mapping[str, str],
    parameters: Sequence[str],
) -> Contents:
    """Contents of a file whose arrays hold all trajectories.  Without sample among `dims` it is one trajectory.

    Raises:
        ValueError: An array is missing, is not of numbers, or has other axes than `dims` says.
    """
    contents = _contents(file, file, chosen, dims, coordinates)
    values = {}
    for name in parameters:
        found = _parameter(name, file, file)
        if found.shape not in ((), (1,), (contents.num_trajectories,)):
            raise ValueError(
                f"{file.filename}: parameter {name!r}: expected one number, or one for each of "
                f"{contents.num_trajectories} trajectories, found shape {found.shape}"
            )
        values[name] = np.broadcast_to(found.reshape(-1), contents.num_trajectories)
    return _with(contents, parameters=values)


def read_groups(
    file: h5py.File,
    chosen: Sequence[Choice],
    dims: tuple[str, ...],
    coordinates: Mapping[str, str],
    parameters: Sequence[str],
) -> tuple[list[str], Contents]:
    """Names of the groups, one for each trajectory, and the contents of the file.

    Every group is looked at: that one differs must not come out in the middle of a long run.

    Raises:
        ValueError: As in `read_arrays`; or there is no group, or one differs from the first.
    """
    if SAMPLE in dims:
        raise ValueError(f"{file.filename}: dims: a group holds one trajectory; leave {SAMPLE} out of {list(dims)}")
    names, groups = _groups(file)
    first = _contents(file, groups[0], chosen, dims, coordinates)
    shapes = {source.path: source.shape for sources in first.sources for source in sources}
    rows = []
    for name, group in zip(names, groups, strict=True):
        for path, shape in shapes.items():
            found = _array(file, group, path).shape
            if found != shape:
                raise ValueError(
                    f"{file.filename}: {name}/{path}: expected the shape {shape} of group {names[0]}, found {found}; "
                    "trajectories of another length or grid need a data set of their own"
                )
        rows.append([_parameter(parameter, group, file) for parameter in parameters])
    for parameter, values in zip(parameters, zip(*rows, strict=True), strict=True):
        if wrong := [name for name, value in zip(names, values, strict=True) if value.size != 1]:
            raise ValueError(f"{file.filename}: {wrong[0]}: parameter {parameter!r}: expected one number")
    columns = np.array([[float(value.reshape(())) for value in row] for row in rows]).reshape(len(rows), -1).T
    sources = tuple(
        tuple(source._replace(dims=(SAMPLE, *source.dims), shape=(0, *source.shape)) for source in sources)
        for sources in first.sources
    )
    return names, _with(
        first, num_trajectories=len(names), sources=sources, parameters=dict(zip(parameters, columns, strict=True))
    )


def _with(contents: Contents, **changes: Any) -> Contents:
    return Contents(**{**contents.__dict__, **changes})


def _groups(file: h5py.File) -> tuple[list[str], list[h5py.Group]]:
    groups = {name: node for name, node in file.items() if isinstance(node, h5py.Group)}
    if not groups:
        raise ValueError(
            f"{file.filename}: expected a group for each trajectory, found {', '.join(file) or 'nothing'}; "
            "whole arrays are read by data_adapters.hdf5.ArrayAdapter"
        )
    return list(groups), list(groups.values())


def _contents(
    file: h5py.File, place: h5py.Group, chosen: Sequence[Choice], dims: tuple[str, ...], coordinates: Mapping[str, str]
) -> Contents:
    roles = (SAMPLE, TIME, CHANNEL)
    where = file.filename
    axes = [dim for dim in dims if dim not in roles]
    if len(set(dims)) != len(dims) or not 1 <= len(axes) <= 3:
        raise ValueError(f"{where}: dims: expected different names with 1 to 3 spatial axes among them, found {dims}")
    if unknown := set(coordinates) - {TIME, *axes}:
        raise ValueError(f"{where}: coordinates: expected {TIME} and {', '.join(axes)}, found {', '.join(unknown)}")
    sizes: dict[str, int] = {}
    first = ""
    sources = []
    for choice in chosen:
        own = choice.dims or dims
        if len(set(own)) != len(own) or not set(own) <= {*roles, *axes}:
            raise ValueError(f"{where}: field {choice.name!r}: dims: expected some of {', '.join(dims)}, found {own}")
        parts = []
        for part in choice.parts:
            data = _array(file, place, part)
            if data.ndim != len(own):
                raise ValueError(
                    f"{where}: {data.name}: expected the axes {', '.join(own)}, found shape {data.shape}; correct "
                    "`dims` (a field that is constant in time has `dims` of its own)"
                )
            for dim, size in zip(own, data.shape, strict=True):
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
        raise ValueError(f"{where}: expected a field along {TIME} and {', '.join(axes)}, found {', '.join(sizes)}")
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
    )


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
    return data


def _listed(place: h5py.Group) -> Iterator[str]:
    """Arrays with their shapes; of many groups the first few."""
    for number, (name, node) in enumerate(place.items()):
        if number == 12:
            yield f"and {len(place) - number} more"
            return
        yield f"{name} {node.shape}" if isinstance(node, h5py.Dataset) else f"{name}/"


def _coordinate(file: h5py.File, place: h5py.Group, name: str, size: int) -> Float[np.ndarray, "_"]:
    """One number for each index; of the edges of cells, and of PDEBench's times, there is one more."""
    data = _array(file, place, name)
    if data.ndim == 0 or data.shape[-1] not in (size, size + 1):
        raise ValueError(
            f"{file.filename}: {data.name}: expected {size} coordinates (or {size + 1}, of which the last is dropped), "
            f"found shape {data.shape}; correct `dims` or `coordinates`"
        )
    if data.ndim == 1:
        return data[:size]
    # A row for each trajectory: the rows must agree, for a data set has one time step and one grid.
    rows = data[()].reshape(-1, data.shape[-1])[:, :size]
    span = np.abs(rows[0] - rows[0, 0]).max(initial=0)
    agree = np.isclose(rows, rows[0], rtol=1e-6, atol=1e-6 * span).all(axis=1)
    if not agree.all():
        row = int(np.argmin(agree))
        raise ValueError(
            f"{file.filename}: {data.name}: expected the same coordinates in all trajectories, found "
            f"{rows[row]} in row {row} where row 0 has {rows[0]}; move such trajectories into a data set of their own"
        )
    return rows[0]


def _parameter(name: str, place: h5py.Group, file: h5py.File) -> Float[np.ndarray, "..."]:
    """From an attribute, an array, or the YAML text in PDEBench's attribute `config`."""
    found: Any = None
    for node in (place, file):
        if name in node.attrs:
            found = node.attrs[name]
            break
        if isinstance(node.get(name), h5py.Dataset):
            found = node[name][()]
            break
        if "config" in node.attrs:
            found = _configured(name, node.attrs["config"])
            if found is not None:
                break
    try:
        return np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError):
        known = ", ".join([*place.attrs, *file.attrs]) or "none"
        raise ValueError(
            f"{file.filename}: parameter {name!r}: expected a number in an attribute or an array of {place.name}, "
            f"found {'nothing' if found is None else repr(found)}; its attributes: {known}"
        ) from None


def _configured(name: str, text: Any) -> Any:
    """Entry of a nested YAML text, by its last name."""
    try:
        stored = yaml.safe_load(text.decode() if isinstance(text, bytes) else str(text))
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
