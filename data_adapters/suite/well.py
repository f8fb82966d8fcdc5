"""Write the HDF5 layout of The Well (https://polymathic-ai.org/the_well/data_format)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float

__all__ = ["Variable", "write_well"]


@dataclass(frozen=True)
class Variable:
    """An array of the file, [trajectory][time][axes][components], and along what it varies.

    Args:
        values: The array, or its shape where the values are filled in later.
        sample_varying: It has an axis of trajectories.
        time_varying: It has an axis of time.
        dim_varying: For each spatial axis, whether it has it; None for all.
    """

    values: np.ndarray | tuple[int, ...]
    sample_varying: bool = True
    time_varying: bool = True
    dim_varying: tuple[bool, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.values if isinstance(self.values, tuple) else self.values.shape


def write_well(
    path: str | Path,
    *,
    name: str,
    time: Float[np.ndarray, "T"],
    coordinates: Mapping[str, Float[np.ndarray, "N"]],
    fields0: Mapping[str, np.ndarray | Variable] | None = None,
    fields1: Mapping[str, np.ndarray | Variable] | None = None,
    fields2: Mapping[str, np.ndarray | Variable] | None = None,
    scalars: Mapping[str, np.ndarray | float | Variable] | None = None,
    boundary: str | Mapping[str, str] = "PERIODIC",
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write one file of a data set.  Equal arguments give equal bytes.

    Args:
        path: Where to; a file that exists is replaced.
        name: Name of the data set.
        time: Time of each frame.
        coordinates: Name of each spatial axis -> the positions of its grid points.
        fields0: Scalar fields by name.  An array varies with everything; a `Variable` says what it varies along.
        fields1: Vector fields, with an axis of components at the end.
        fields2: Tensor fields, with two axes of components at the end.
        scalars: Parameters by name: a number, or one for each trajectory.
        boundary: PERIODIC, WALL or OPEN, for all axes or for each.
        attributes: Further attributes of the file.

    Raises:
        ValueError: An array does not have the shape that its flags, the time and the coordinates imply.
        OSError: The file cannot be written.
    """
    ranks = [_variables(fields) for fields in (fields0, fields1, fields2)]
    parameters = {key: _parameter(value) for key, value in (scalars or {}).items()}
    everything = [variable for fields in (*ranks, parameters) for variable in fields.values()]
    num_trajectories = next((variable.shape[0] for variable in everything if variable.sample_varying), 1)
    sizes = {axis: len(positions) for axis, positions in coordinates.items()}
    for rank, fields in enumerate(ranks):
        for key, variable in fields.items():
            _check(f"{path}: field {key!r}", variable, rank, num_trajectories, len(time), sizes)
    for key, variable in parameters.items():
        _check(f"{path}: scalar {key!r}", variable, 0, num_trajectories, len(time), {})
    with h5py.File(path, "w") as file:
        file.attrs["dataset_name"] = name
        file.attrs["grid_type"] = "cartesian"
        file.attrs["n_spatial_dims"] = len(coordinates)
        file.attrs["n_trajectories"] = num_trajectories
        file.attrs["simulation_parameters"] = _names(list(parameters))
        for key, value in (attributes or {}).items():
            file.attrs[key] = value
        _write_dimensions(file, time, coordinates)
        _write_boundary(file, sizes, boundary)
        _write_group(file, "scalars", parameters, {})
        for key, variable in parameters.items():
            file.attrs[key] = variable.values
        for rank, fields in enumerate(ranks):
            _write_group(file, f"t{rank}_fields", fields, sizes)


def _variables(fields: Mapping[str, np.ndarray | Variable] | None) -> dict[str, Variable]:
    return {
        key: value if isinstance(value, Variable) else Variable(np.asarray(value))
        for key, value in (fields or {}).items()
    }


def _parameter(value: np.ndarray | float | Variable) -> Variable:
    if isinstance(value, Variable):
        return value
    array = np.asarray(value, np.float32)
    return Variable(array, sample_varying=array.ndim > 0, time_varying=False)


def _check(
    what: str, variable: Variable, rank: int, num_trajectories: int, num_steps: int, sizes: Mapping[str, int]
) -> None:
    varying = variable.dim_varying or (True,) * len(sizes)
    if len(varying) != len(sizes):
        raise ValueError(f"{what}: expected a flag in dim_varying for each of {tuple(sizes)}, found {varying}")
    expected = (num_trajectories,) * variable.sample_varying + (num_steps,) * variable.time_varying
    expected += tuple(size for size, varies in zip(sizes.values(), varying, strict=True) if varies)
    if variable.shape[: len(expected)] != expected or len(variable.shape) != len(expected) + rank:
        components = f" and {rank} of components" if rank else ""
        raise ValueError(f"{what}: expected axes {expected}{components}, found shape {variable.shape}")


def _names(names: Sequence[str]) -> np.ndarray:
    return np.array(names, dtype=h5py.string_dtype())


def _write_dimensions(file: h5py.File, time: np.ndarray, coordinates: Mapping[str, np.ndarray]) -> None:
    group = file.create_group("dimensions")
    group.attrs["spatial_dims"] = _names(list(coordinates))
    group.create_dataset("time", data=np.asarray(time, np.float32)).attrs["sample_varying"] = False
    for axis, positions in coordinates.items():
        stored = group.create_dataset(axis, data=np.asarray(positions, np.float32))
        stored.attrs["sample_varying"] = False
        stored.attrs["time_varying"] = False


def _write_boundary(file: h5py.File, sizes: Mapping[str, int], boundary: str | Mapping[str, str]) -> None:
    conditions = file.create_group("boundary_conditions")
    for axis, size in sizes.items():
        kind = boundary if isinstance(boundary, str) else boundary[axis]
        group = conditions.create_group(f"{axis}_{kind.lower()}")
        group.attrs["associated_dims"] = _names([axis])
        group.attrs["associated_fields"] = _names([])
        group.attrs["bc_type"] = kind
        group.attrs["sample_varying"] = False
        group.attrs["time_varying"] = False
        mask = np.zeros(size, bool)
        mask[[0, -1]] = True
        group.create_dataset("mask", data=mask)


def _write_group(file: h5py.File, name: str, variables: Mapping[str, Variable], sizes: Mapping[str, int]) -> None:
    group = file.create_group(name)
    group.attrs["field_names"] = _names(list(variables))
    for key, variable in variables.items():
        if isinstance(variable.values, tuple):
            # Space is given at once, so that filling it in changes nothing but the values.
            creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            stored = group.create_dataset(key, shape=variable.values, dtype=np.float32, dcpl=creation)
        else:
            stored = group.create_dataset(key, data=np.asarray(variable.values, np.float32))
        stored.attrs["sample_varying"] = variable.sample_varying
        stored.attrs["time_varying"] = variable.time_varying
        if name != "scalars":
            stored.attrs["dim_varying"] = np.array(variable.dim_varying or (True,) * len(sizes))
        if name == "t2_fields":
            stored.attrs["symmetric"] = False
            stored.attrs["antisymmetric"] = False
