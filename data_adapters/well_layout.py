"""What a file of The Well says about itself (https://polymathic-ai.org/the_well/data_format); field values are left.

Every message names the file and the group, attribute or data set in it.
"""

from collections.abc import Sequence
from typing import Any, cast, get_args

import h5py
import numpy as np
from jaxtyping import Float

from data_adapters.choices import Choice
from data_adapters.contents import CHANNEL, SAMPLE, TIME, Contents, Source, check_rows, source_of
from data_adapters.raw import chunks_of
from morph.claims import check_entries, check_numbers
from morph.containers import check_owned
from morph.layout import Boundary

__all__ = ["RANKS", "field_ranks", "read_contents"]

RANKS = ("t0_fields", "t1_fields", "t2_fields")


def field_ranks(file: h5py.File) -> dict[str, int]:
    """Name of each field and its tensor rank (0 scalar, 1 vector, 2), in the file's order.

    Raises:
        ValueError: A group is missing, or two fields share a name.
    """
    ranks: dict[str, int] = {}
    for rank, group in enumerate(RANKS):
        for name in _words(_attribute(_group(file, group), "field_names")):
            if name in ranks:
                raise ValueError(f"{file.filename}: field {name!r} stands in both {RANKS[ranks[name]]} and {group}")
            ranks[name] = rank
    return ranks


def read_contents(file: h5py.File, chosen: Sequence[Choice]) -> Contents:
    """Read everything but the fields' values.

    Args:
        file: An open file.
        chosen: The fields that will be read.

    Raises:
        ValueError: The file has no such field, or is not in the layout.
    """
    axes = _words(_attribute(_group(file, "dimensions"), "spatial_dims"))
    if not 1 <= len(axes) <= 3 or len(axes) != int(_attribute(file, "n_spatial_dims")):
        raise ValueError(
            f"{file.filename}: dimensions: expected 1 to 3 `spatial_dims`, as many as `n_spatial_dims`, found {axes}"
        )
    num_trajectories = int(_attribute(file, "n_trajectories"))
    if num_trajectories < 1:
        raise ValueError(f"{file.filename}: expected one or more trajectories, found n_trajectories {num_trajectories}")
    check_entries(num_trajectories, f"{file.filename}: n_trajectories")
    coordinates = {axis: _coordinates(file, axis) for axis in axes}
    sizes = {axis: len(values) for axis, values in coordinates.items()}
    times = _times(file)

    ranks = field_ranks(file)
    missing = [name for choice in chosen for name in choice.parts if name not in ranks]
    if missing:
        raise ValueError(f"{file.filename}: no field {missing[0]!r}; it has {', '.join(ranks) or 'no field at all'}")
    leading = (num_trajectories, len(times))
    sources = tuple(
        tuple(_source(file, name, ranks[name], leading, sizes, choice) for name in choice.parts) for choice in chosen
    )
    return Contents(
        dataset_name="".join(_words(file.attrs.get("dataset_name", ""))),
        sizes=sizes,
        num_trajectories=num_trajectories,
        num_steps=len(times),
        sources=sources,
        boundary=_boundary(file, axes),
        times=times,
        coordinates=coordinates,
        parameters=_parameters(file, num_trajectories),
        time_path="dimensions/time",
        chunks=chunks_of(file, sources),
    )


def _source(
    file: h5py.File, name: str, rank: int, leading: tuple[int, int], sizes: dict[str, int], choice: Choice
) -> Source:
    path = f"{RANKS[rank]}/{name}"
    if choice.dims is not None:
        raise ValueError(f"{file.filename}: {path}: field {choice.name!r}: `dims` has no effect, the file states them")
    data = _numeric(file, path)
    varying = tuple(bool(flag) for flag in np.atleast_1d(_attribute(data, "dim_varying")))
    sample, time = bool(_attribute(data, "sample_varying")), bool(_attribute(data, "time_varying"))
    if len(varying) != len(sizes):
        raise ValueError(f"{file.filename}: {path}: expected `dim_varying` for {len(sizes)} axes, found {varying}")
    lead = leading[:1] * sample + leading[1:] * time
    # An axis along which the field is constant is left out by some writers, and kept with length 1 by others.
    grid = tuple(size if varies else 1 for size, varies in zip(sizes.values(), varying, strict=True))
    left_out = lead + tuple(size for size, varies in zip(sizes.values(), varying, strict=True) if varies)
    shape = data.shape[: data.ndim - rank]
    if shape not in (left_out, lead + grid) or data.size == 0:
        raise ValueError(
            f"{file.filename}: {path}: expected shape {left_out}{' and components' if rank else ''}, as sample_varying "
            f"{sample}, time_varying {time} and dim_varying {varying} say, found {data.shape}"
        )
    axes = [axis for axis, varies in zip(sizes, varying, strict=True) if varies or shape == lead + grid]
    dims = (*(SAMPLE,) * sample, *(TIME,) * time, *axes, *(CHANNEL,) * rank)
    return source_of(path, dims, data.shape, choice, file.filename)


def _times(file: h5py.File) -> Float[np.ndarray, "T"]:
    times = np.atleast_2d(_whole(_numeric(file, "dimensions/time")))
    if times.ndim != 2 or times.size == 0:
        raise ValueError(f"{file.filename}: dimensions/time: expected (T,) or (trajectories, T), found {times.shape}")
    if len(times) == 1 or not np.isfinite(times[0]).all():
        return times[0]
    check_rows(times, 1e-3 * np.abs(np.diff(times[0])).max(initial=0), f"{file.filename}: dimensions/time")
    return times[0]


def _coordinates(file: h5py.File, axis: str) -> Float[np.ndarray, "_"]:
    data = _numeric(file, f"dimensions/{axis}")
    if data.ndim < 1 or data.size == 0:
        raise ValueError(f"{file.filename}: dimensions/{axis}: expected an array of coordinates, found {data.shape}")
    check_entries(data.shape[-1], f"{file.filename}: dimensions/{axis}")
    # Where each trajectory or frame has a grid of its own, the first one stands for all.
    return data[(0,) * (data.ndim - 1)].astype(np.float64)


def _parameters(file: h5py.File, num_trajectories: int) -> dict[str, Float[np.ndarray, "N"]]:
    parameters = {}
    for name in _words(_attribute(_group(file, "scalars"), "field_names")):
        data = _numeric(file, f"scalars/{name}")
        if _attribute(data, "time_varying"):
            continue
        expected = (num_trajectories,) if _attribute(data, "sample_varying") else ()
        if data.shape != expected:
            raise ValueError(f"{file.filename}: scalars/{name}: expected shape {expected}, found {data.shape}")
        parameters[name] = np.broadcast_to(np.float64(_whole(data)), num_trajectories)
    return parameters


def _boundary(file: h5py.File, axes: tuple[str, ...]) -> dict[str, Boundary]:
    """An axis whose two ends differ is open; so is an end of which nothing is said."""
    ends: dict[tuple[str, int], set[str]] = {(axis, side): set() for axis in axes for side in (0, -1)}
    groups = _group(file, "boundary_conditions") if "boundary_conditions" in file else {}
    for name in groups:
        group = _group(file, f"boundary_conditions/{name}")
        kind = "".join(_words(_attribute(group, "bc_type"))).lower()
        along = _words(_attribute(group, "associated_dims"))
        if kind not in get_args(Boundary) or not set(along) <= set(axes):
            raise ValueError(
                f"{file.filename}: {group.name}: expected a bc_type of {', '.join(get_args(Boundary))} on the axes "
                f"{', '.join(axes)}, found {kind!r} on {', '.join(along)}"
            )
        mask = (
            _whole(_numeric(file, f"{group.name}/mask")).astype(bool)
            if "mask" in group
            else np.ones((2,) * len(along), dtype=bool)
        )
        if mask.ndim < len(along) or mask.size == 0:
            raise ValueError(f"{file.filename}: {group.name}/mask: expected the axes {along}, found shape {mask.shape}")
        for number, axis in enumerate(along):
            for side in (0, -1):
                touched = np.take(mask, side, axis=number - len(along))
                # A wall that covers an end in part leaves the rest of it open.
                if touched.all() if kind == "wall" else touched.any():
                    ends[axis, side].add(kind)
    found = [ends[axis, 0] | ends[axis, -1] if ends[axis, 0] and ends[axis, -1] else {"open"} for axis in axes]
    kinds = (kind.pop() if len(kind) == 1 else "open" for kind in found)
    return {axis: cast(Boundary, kind) for axis, kind in zip(axes, kinds, strict=True)}


def _group(file: h5py.File, path: str) -> h5py.Group:
    group = file.get(path)
    if not isinstance(group, h5py.Group):
        raise ValueError(
            f"{file.filename}: expected a group {path!r} (The Well's layout), found {', '.join(file) or 'nothing'}; "
            "a file of another layout needs another adapter"
        )
    return group


def _numeric(file: h5py.File, path: str) -> h5py.Dataset:
    data = file.get(path)
    if not isinstance(data, h5py.Dataset) or data.shape is None:
        found = ", ".join(file.get(path.rpartition("/")[0], ())) or "nothing"
        raise ValueError(f"{file.filename}: expected an array {path!r}, found {found} beside it")
    if data.dtype.kind not in "fiub":
        raise ValueError(
            f"{file.filename}: {path}: expected real numbers, found {data.dtype}; store complex numbers as two fields"
        )
    check_owned(data, file, file.filename)
    return data


def _whole(data: h5py.Dataset) -> Any:
    check_numbers(data.shape, data.dtype.itemsize, f"{data.file.filename}: {data.name}")
    return data[()]


def _attribute(node: h5py.Group | h5py.Dataset, name: str) -> Any:
    if name not in node.attrs:
        raise ValueError(
            f"{node.file.filename}: {node.name}: expected the attribute {name!r}, found {list(node.attrs)}"
        )
    return node.attrs[name]


def _words(value: Any) -> tuple[str, ...]:
    """The strings of an attribute, however its writer stored them: one or many, text or bytes, an empty array."""
    if isinstance(value, h5py.Empty):
        return ()
    words = np.atleast_1d(value).tolist()
    return tuple(word.decode() if isinstance(word, bytes) else str(word) for word in words)
