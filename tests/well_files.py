"""Writes given arrays in The Well's HDF5 layout, so that tests of its reader need no download."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from data_adapters.handles import HANDLES

__all__ = [
    "DT",
    "NUM_STEPS",
    "SIZES",
    "Boundary",
    "WellField",
    "WellFile",
    "code",
    "coded",
    "coded_file",
    "coded_folder",
    "with_field",
    "write",
    "write_file",
    "write_stats",
]

SIZES = {"x": 3, "y": 4, "z": 5}
NUM_STEPS, DT = 7, 0.25


@dataclass
class WellField:
    """An array and the attributes that say how to read it.

    Args:
        values: [trajectories][T][axes][components], each axis only where it is said to vary.
        rank: 0 scalar, 1 vector, 2 tensor.
        dim_varying: Along which axes it varies; None is all.
        storage: Keywords for h5py's create_dataset (chunks, fletcher32, ...).
    """

    values: np.ndarray
    rank: int = 0
    sample_varying: bool = True
    time_varying: bool = True
    dim_varying: Sequence[bool] | None = None
    storage: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Boundary:
    """A boundary condition; `mask` is true at both ends of one axis unless it is given."""

    kind: str
    dims: Sequence[str]
    mask: np.ndarray | None = None


@dataclass
class WellFile:
    """What one file holds.

    Args:
        axes: Coordinates of each axis, in index order.
        times: (T,), or (trajectories, T) which is then marked sample_varying.
        scalars: 0-d constants and (trajectories,) parameters.
        varying_scalars: (trajectories, T).
    """

    axes: Mapping[str, np.ndarray]
    times: np.ndarray
    num_trajectories: int
    fields: Mapping[str, WellField]
    boundaries: Sequence[Boundary] = ()
    scalars: Mapping[str, np.ndarray | float] = field(default_factory=dict)
    varying_scalars: Mapping[str, np.ndarray] = field(default_factory=dict)
    dataset_name: str = "coded"


def write_file(path: Path, contents: WellFile) -> Path:
    """Write one file and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["dataset_name"] = contents.dataset_name
        file.attrs["grid_type"] = "cartesian"
        file.attrs["n_spatial_dims"] = len(contents.axes)
        file.attrs["n_trajectories"] = contents.num_trajectories
        file.attrs["simulation_parameters"] = list(contents.scalars)
        for name, value in contents.scalars.items():
            file.attrs[name] = value

        dimensions = file.create_group("dimensions")
        dimensions.attrs["spatial_dims"] = list(contents.axes)
        time = dimensions.create_dataset("time", data=contents.times)
        time.attrs["sample_varying"] = contents.times.ndim == 2
        for name, values in contents.axes.items():
            axis = dimensions.create_dataset(name, data=values)
            axis.attrs.update(sample_varying=False, time_varying=False)

        boundaries = file.create_group("boundary_conditions")
        for boundary in contents.boundaries:
            group = boundaries.create_group(f"{'_'.join(boundary.dims)}_{boundary.kind}_{len(boundaries)}")
            group.attrs.update(
                associated_dims=list(boundary.dims),
                associated_fields=np.array([], dtype="S1"),
                bc_type=boundary.kind,
                sample_varying=False,
                time_varying=False,
            )
            mask = boundary.mask
            if mask is None:
                mask = np.zeros(len(contents.axes[boundary.dims[0]]), dtype=bool)
                mask[[0, -1]] = True
            group.create_dataset("mask", data=mask)

        scalars = file.create_group("scalars")
        scalars.attrs["field_names"] = [*contents.scalars, *contents.varying_scalars]
        for name, value in {**contents.scalars, **contents.varying_scalars}.items():
            scalar = scalars.create_dataset(name, data=value)
            scalar.attrs.update(sample_varying=np.ndim(value) > 0, time_varying=name in contents.varying_scalars)

        for rank in range(3):
            group = file.create_group(f"t{rank}_fields")
            names = [name for name, entry in contents.fields.items() if entry.rank == rank]
            group.attrs["field_names"] = np.array(names, dtype=h5py.string_dtype())
            for name in names:
                entry = contents.fields[name]
                data = group.create_dataset(name, data=entry.values, **entry.storage)
                data.attrs.update(
                    dim_varying=[True] * len(contents.axes) if entry.dim_varying is None else list(entry.dim_varying),
                    sample_varying=entry.sample_varying,
                    time_varying=entry.time_varying,
                )
                if rank == 2:
                    data.attrs.update(symmetric=False, antisymmetric=False)
    return path


def write_stats(folder: Path, stats: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write stats.yaml: mean, std, rms_delta, ... -> field -> a number or a list."""
    path = folder / "stats.yaml"
    path.write_text(yaml.safe_dump({key: dict(table) for key, table in stats.items()}), encoding="utf-8")
    return path


def code(field: int, component: Any, trajectory: Any, time: Any, *position: Any) -> Any:
    """A number that is different for each value of a data set, and exact in float32."""
    number = 0
    for index, size in zip((trajectory, time, *position), (10, NUM_STEPS, *SIZES.values()), strict=False):
        number = number * size + index
    return field + 5 * (component + 9 * number)


def coded(field: int, num_components: int, trajectories: range, axes: Sequence[str]) -> np.ndarray:
    """Values [trajectories][T][axes][components] of a field."""
    shape = (len(trajectories), NUM_STEPS, *(SIZES[axis] for axis in axes), num_components)
    values = np.fromfunction(lambda b, t, *rest: code(field, rest[-1], b + trajectories.start, t, *rest[:-1]), shape)
    return values.astype(np.float32)


def coded_file(
    axes: Sequence[str], trajectories: range = range(3), vector: int | None = None, **changes: Any
) -> WellFile:
    """Fields density (0), pressure (1) and velocity (2), periodic, with a parameter and a constant."""
    fields = {
        "density": WellField(coded(0, 1, trajectories, axes)[..., 0]),
        "pressure": WellField(coded(1, 1, trajectories, axes)[..., 0]),
        "velocity": WellField(coded(2, vector or len(axes), trajectories, axes), rank=1),
    }
    contents = WellFile(
        axes={axis: np.linspace(0, 1, SIZES[axis], dtype=np.float32) for axis in axes},
        times=DT * np.arange(NUM_STEPS, dtype=np.float32),
        num_trajectories=len(trajectories),
        fields=fields,
        boundaries=[Boundary("PERIODIC", [axis]) for axis in axes],
        scalars={"viscosity": 0.5 + np.array(trajectories), "gamma": 1.5},
    )
    return replace(contents, **changes)


def with_field(contents: WellFile, name: str, values: np.ndarray, **attributes: Any) -> WellFile:
    """The same file with one more field."""
    return replace(contents, fields={**contents.fields, name: WellField(values, **attributes)})


def write(folder: Path, *files: WellFile, split: str = "train") -> Path:
    """Write the files of a split, part_0.hdf5 and on, into the folder of a data set."""
    for number, contents in enumerate(files):
        write_file(folder / "data" / split / f"part_{number}.hdf5", contents)
    return folder


def coded_folder(tmp_path: Path) -> Iterator[Path]:
    """The body of a fixture: where a test writes its data set; no file stays open after the test."""
    yield tmp_path / "coded"
    HANDLES.close(list(HANDLES._open))
