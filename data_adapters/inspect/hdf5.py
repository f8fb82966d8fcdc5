"""What HDF5 files hold: arrays by themselves, a group for each trajectory, The Well's layout."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from data_adapters.choices import Choice
from data_adapters.grid import Selection
from data_adapters.handles import HANDLES
from data_adapters.hdf5 import WellAdapter
from data_adapters.inspect.containers import WELL as WELL_FOLDER
from data_adapters.inspect.containers import Container
from data_adapters.inspect.findings import ARRAYS, GROUPS, WELL, Array, Found, find_labelled, plain
from data_adapters.inspect.names import words
from data_adapters.inspect.question import Question
from data_adapters.plan import check_selection
from data_adapters.well_layout import field_ranks, read_contents
from morph.containers import check_owned

__all__ = ["find_hdf5", "find_well"]

# Attributes in which writers list the names of an array's axes.
_AXES = (
    "_ARRAY_DIMENSIONS",
    "DIMENSION_LABELS",
    "dims",
    "dimensions",
    "dimension_names",
    "axes",
    "axis_names",
    "axis_order",
)
_MOST_ARRAYS = 500


def find_hdf5(container: Container, group: str | None) -> Found:
    """What the first of the files holds.  With a named scale on each axis it is left to xarray, which knows about them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be opened, has no such group, or holds no numbers.
        Question: Its arrays lie in groups that have nothing in common.
    """
    first = container.files[0]
    with HANDLES.lend(first) as file:
        if {"dimensions", "t0_fields"} <= set(file):
            return _lone_well(container, file)
        netcdf = "_NCProperties" in file.attrs
        if group is not None and not isinstance(file.get(group), h5py.Group):
            raise ValueError(f"{first}: expected a group {group!r}, found {', '.join(file) or 'nothing'}")
        root = file[group] if group else file
        groups = [name for name, node in root.items() if isinstance(node, h5py.Group) and not name.startswith("#")]
        trajectories = groups if not group and _alike(root, groups) else []
        node = root[trajectories[0]] if trajectories else root
        arrays, skipped = _arrays(node)
        attributes = {**file.attrs, **node.attrs}
        has_scales = any(isinstance(data, h5py.Dataset) and data.is_scale for data in node.values())
        matlab = any("MATLAB_class" in array.attributes for array in arrays.values())
    on_grid = [array for array in arrays.values() if len(array.shape) > 1]
    label = "NetCDF 4 (HDF5)" if netcdf else "MATLAB 7.3 (HDF5)" if matlab else "HDF5"
    container = container._replace(label=label)
    if netcdf and not trajectories:
        nested = {name.rpartition("/")[0] for name in arrays}
        if not group and "" not in nested and nested:
            if len(nested) > 1:
                raise Question(
                    f"{first}: its variables lie in groups; which of them?", {f"group={n}": "" for n in nested}
                )
            group = nested.pop()
        others = sorted(nested - {"", group})
        more = (f"More arrays lie in {', '.join(others[:6])}: group={others[0]}",) if others and not group else ()
        return replace(find_labelled(container, group), notes=more)
    scaled = has_scales and on_grid and all(all(array.dims) and "/" not in array.name for array in on_grid)
    if scaled and not trajectories and not group and (found := _with_scales(container, on_grid)):
        return found
    if not arrays:
        raise ValueError(
            f"{first}: expected arrays of numbers, found "
            + (", ".join(f"{name} ({why})" for name, why in skipped.items()) or "none")
        )
    notes: tuple[str, ...] = ("MATLAB stores the last index first: an array (x, y, t) is (t, y, x) here.",) * matlab
    if trajectories:
        notes += (f"Each of the {len(trajectories)} groups is taken as a trajectory: they hold the same arrays.",)
    elif groups and not group:
        notes += (f"Arrays in the groups {', '.join(groups[:6])} are taken as different fields, not as trajectories.",)
    prefix = group.strip("/") + "/" if group else ""
    arrays = {prefix + name: _renamed(array, prefix + name) for name, array in arrays.items()}
    return Found(
        container,
        GROUPS if trajectories else ARRAYS,
        arrays,
        [(file, name) for file in container.files for name in (trajectories if file == first else trajectories[:1])]
        if trajectories
        else [(file, "") for file in container.files],
        _read,
        skipped,
        attributes,
        trajectories=len(trajectories),
        notes=notes,
    )


def find_well(container: Container) -> Found:
    """What a folder of The Well holds, by the first file of its training split.

    Raises:
        FileNotFoundError: A split is missing.
        ValueError: A file is not in the layout.
    """
    folder = container.files[0]
    files = list(WellAdapter(folder, "train").files)
    with HANDLES.lend(files[0]) as file:
        found = _well(container._replace(files=files), file)
    return replace(found, adapter=WELL, container=container)


def _lone_well(container: Container, file: h5py.File) -> Found:
    """A file of The Well: with its folder where that is there, else by itself."""
    folder = Path(container.files[0]).absolute().parent
    if "://" not in container.files[0] and folder.parent.name == "data" and folder.name in ("train", "valid", "test"):
        root = str(folder.parent.parent)
        found = find_well(Container(WELL_FOLDER, container.label, root, [root]))
        note = f"The file belongs to a data set in The Well's layout, {root}: all of it is taken, by its own splits."
        return replace(found, notes=(note,))
    note = "A file of The Well without its folder (data/train, data/valid, data/test): it is divided by `splits`."
    return replace(_well(container, file), notes=(note,))


def _well(container: Container, file: h5py.File) -> Found:
    ranks = field_ranks(file)
    contents = read_contents(file, [Choice(name, (name,)) for name in ranks])
    arrays, _ = _arrays(file)
    named = {source.path: source.dims for (source,) in contents.sources}
    arrays = {
        name: replace(array, dims=named.get(name, array.dims))
        for name, array in arrays.items()
        if name in named or name.startswith(("dimensions/", "scalars/"))
    }
    files = [(name, "") for name in container.files]
    label = container._replace(label="The Well's layout (HDF5)")
    boundary = dict(contents.boundary)
    return Found(label, ARRAYS, arrays, files, _read, {}, dict(file.attrs), dims=named, boundary=boundary)


def _read(place: tuple[str, str], name: str, selection: Selection) -> np.ndarray:
    with HANDLES.lend(place[0]) as file:
        node = file[place[1]] if place[1] else file
        if name not in node:
            raise ValueError(f"{place[0]}: {place[1] or '/'}: no array {name!r}, which others have; inspect it apart")
        data = node[name]
        check_owned(data, file, place[0])
        check_selection(data.shape, selection, data.dtype.itemsize, f"{place[0]}: {name}")
        return np.asarray(data[selection])


def _alike(root: h5py.Group, groups: list[str]) -> bool:
    """Whether each group is a trajectory: numbered names, and the same arrays in (a sample of) them."""
    if len(groups) < 2 or len({re.sub(r"\d+", "#", name) for name in groups}) > 1 or not re.search(r"\d", groups[0]):
        return False
    sample = [groups[i] for i in sorted({0, 1, len(groups) // 2, len(groups) - 1})]
    held = [{name: len(array.shape) for name, array in _arrays(root[name])[0].items()} for name in sample]
    return bool(held[0]) and all(other == held[0] for other in held)


def _arrays(node: h5py.Group) -> tuple[dict[str, Array], dict[str, str]]:
    arrays: dict[str, Array] = {}
    skipped: dict[str, str] = {}

    def visit(name: str, data: h5py.Group | h5py.Dataset) -> None:
        if not isinstance(data, h5py.Dataset) or name.startswith("#") or len(arrays) >= _MOST_ARRAYS:
            return
        unused = "This is a netCDF dimension but not a netCDF variable"
        if str(plain(data.attrs.get("NAME", ""))).startswith(unused):
            return
        if data.shape is None or data.dtype.kind not in "fiu":
            kind = data.dtype.kind
            skipped[name] = (
                "empty" if data.shape is None
                else "complex numbers (store real and imaginary part as two)" if _is_complex(data.dtype)
                else "text" if kind in "SUO" else f"no real numbers: {data.dtype}"
            )  # fmt: skip
            return
        attributes = {key: plain(value) for key, value in _attributes(data).items()}
        compression = " ".join(filter(None, ("shuffle" if data.shuffle else "", data.compression or _filters(data))))
        arrays[name] = Array(name, _dims(data, node), data.shape, str(data.dtype), attributes, data.chunks, compression)

    node.visititems(visit)
    return arrays, skipped


def _is_complex(dtype: np.dtype) -> bool:
    # MATLAB and others store complex numbers as a record of two.
    return dtype.kind == "c" or (dtype.names is not None and len(dtype.names) == 2)


def _filters(data: h5py.Dataset) -> str:
    names = [name for name in data._filters if name not in ("shuffle", "fletcher32")]
    return ", ".join({"32001": "blosc", "32015": "zstd", "32013": "zfp"}.get(name, name) for name in names)


def _attributes(data: h5py.Dataset) -> Mapping[str, Any]:
    hidden = ("DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME", "_Netcdf4Dimid", "_Netcdf4Coordinates")
    return {key: data.attrs[key] for key in data.attrs if key not in hidden}


def _dims(data: h5py.Dataset, root: h5py.Group) -> tuple[str, ...]:
    """Names from scales, labels, or an attribute of the array or of the file."""
    names = []
    for axis in data.dims:
        scale = axis[0].name.rpartition("/")[2] if len(axis) else ""
        names.append(scale or axis.label)
    if any(names):
        return tuple(names)
    for node in (data, root, data.file):
        for key in _AXES:
            listed = words(plain(node.attrs[key])) if key in node.attrs else ()
            if len(listed) == data.ndim > 0 and len(set(listed)) == len(listed):
                return listed
    if data.ndim == 1:
        return (data.name.rpartition("/")[2],) if data.is_scale else ("",)
    return ("",) * data.ndim


def _with_scales(container: Container, arrays: list[Array]) -> Found | None:
    """As xarray sees it, where that can open the file and its names are those of the scales."""
    try:
        found = find_labelled(container, None)
    except (ValueError, OSError):
        return None
    agree = all(array.name in found.arrays and found.arrays[array.name].dims == array.dims for array in arrays)
    return found if agree else None


def _renamed(array: Array, name: str) -> Array:
    return replace(array, name=name)
