"""Writes given arrays in the layouts of PDEBench and PDEgym, so that tests of their readers need no download."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import prod
from pathlib import Path

import h5netcdf
import h5py
import numpy as np

from data_adapters.handles import HANDLES
from data_adapters.labelled import DATASETS

__all__ = [
    "DT",
    "close_files",
    "closed",
    "counted",
    "edges",
    "write_arrays",
    "write_cfd",
    "write_chunks",
    "write_groups",
    "write_incompressible",
    "write_netcdf",
    "write_tensor",
]

DT = 0.25


def counted(shape: Sequence[int], first: int = 1, dtype: str = "f4") -> np.ndarray:
    """Numbers that count up from `first`: each stands at one place and, in float32, is exact up to 2^24."""
    assert first + prod(shape) < 2**24, "a number would stand twice"
    return np.arange(first, first + prod(shape)).reshape(shape).astype(dtype)


def edges(size: int, step: float = 0.5) -> np.ndarray:
    """Centres of cells."""
    return (step * (0.5 + np.arange(size))).astype("f4")


def close_files() -> None:
    """Close what any reader has left open."""
    HANDLES.close(list(HANDLES._open))
    DATASETS.close(list(DATASETS._open))


def closed() -> Iterator[None]:
    """The body of a fixture: no file stays open after a test."""
    yield
    close_files()


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], **attributes: float) -> Path:
    """Arrays in the root of an HDF5 file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values)
        file.attrs.update(attributes)
    return path


def write_tensor(path: Path, tensor: np.ndarray, **attributes: float) -> Path:
    """PDEBench's 1-D advection, Burgers and reaction-diffusion: [sample, time, x] and one more time than frames."""
    _, num_steps, size = tensor.shape
    times = (DT * np.arange(num_steps + 1)).astype("f4")
    return write_arrays(path, {"t-coordinate": times, "tensor": tensor, "x-coordinate": edges(size)}, **attributes)


def write_cfd(path: Path, fields: Mapping[str, np.ndarray], **attributes: float) -> Path:
    """PDEBench's compressible flow: an array [sample, time, x, y, z] for each of density, pressure, Vx, Vy, Vz."""
    _, num_steps, *sizes = next(iter(fields.values())).shape
    grid = {f"{axis}-coordinate": edges(size) for axis, size in zip("xyz", sizes, strict=False)}
    times = (DT * np.arange(num_steps + 1)).astype("f4")
    return write_arrays(path, {**fields, "t-coordinate": times, **grid}, **attributes)


def write_groups(path: Path, data: np.ndarray, configs: Sequence[str] | None = None, compression: str = "lzf") -> Path:
    """PDEBench's 2-D diffusion-reaction and shallow water, 1-D diffusion-sorption: groups 0000, 0001, ... that hold
    [time, x, y, channel], and their settings as YAML text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for number, values in enumerate(data):
            group = file.create_group(f"{number:04d}")
            group.create_dataset("data", data=values, dtype="f4", compression=compression)
            num_steps, *sizes, _ = values.shape
            for axis, size in zip("xy", sizes, strict=False):
                group.create_dataset(f"grid/{axis}", data=edges(size), compression=compression)
            times = (DT * np.arange(num_steps)).astype("f4")
            group.create_dataset("grid/t", data=times, compression=compression)
            if configs is not None:
                group.attrs["config"] = configs[number]
    return path


def write_incompressible(path: Path, velocity: np.ndarray, particles: np.ndarray, force: np.ndarray) -> Path:
    """PDEBench's incompressible flow: [sample, time, x, y, channel], a row of times for each trajectory, one chunk for
    each frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    num_trajectories, num_steps = velocity.shape[:2]
    times = np.tile((DT * np.arange(num_steps)).astype("f4"), (num_trajectories, 1))
    arrays = {"force": (force, 1), "particles": (particles, 2), "t": (times, 1), "velocity": (velocity, 2)}
    with h5py.File(path, "w") as file:
        for name, (values, lead) in arrays.items():
            chunks = (1,) * lead + values.shape[lead:]
            file.create_dataset(name, data=values, chunks=chunks, compression="lzf", shuffle=True)
    return path


def write_netcdf(path: Path, variables: Mapping[str, tuple[Sequence[str], np.ndarray]]) -> Path:
    """Variables and their dimensions, in NetCDF-4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5netcdf.File(path, "w") as file:
        for name, (dims, values) in variables.items():
            file.dimensions.update({dim: size for dim, size in zip(dims, values.shape, strict=True)
                                    if dim not in file.dimensions})  # fmt: skip
            file.create_variable(name, tuple(dims), data=values)
    return path


def write_chunks(folder: Path, name: str, values: np.ndarray, dims: Sequence[str], sizes: Sequence[int]) -> list[Path]:
    """PDEgym's <name>_0.nc, <name>_1.nc, ..., pieces of an array along `sample` of given sizes.

    They are cut so that the published assembly, which takes them in the order of their names as text (0, 1, 10, 2),
    makes `values` of them.
    """
    ends = np.cumsum([0, *sizes])
    names = sorted(f"{name}_{number}.nc" for number in range(len(sizes)))
    return [
        write_netcdf(folder / file, {name: (dims, values[first:last])})
        for file, (first, last) in zip(names, pairwise(ends), strict=True)
    ]
