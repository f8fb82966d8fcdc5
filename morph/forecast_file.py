"""A forecast written to a NetCDF file frame by frame: of all frames, one is in memory."""

import os
import shutil
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import xarray as xr

from morph.forecast import Forecasting
from morph.labelled.results import MEMBER
from morph.labelled.watch import Watch

__all__ = ["check_space", "size_of", "write_forecast"]


def size_of(made: Forecasting) -> int:
    """Bytes of the values of a forecast, before compression."""
    return sum(4 * prod(made.labels.shape(output)) for output in made.labels.outputs)


def check_space(made: Forecasting, path: Path) -> None:
    """Make sure that the disk has room, for HDF5 cannot be stopped in the middle of a file that finds it full.

    Raises:
        ValueError: It has not.
    """
    needed, free = size_of(made) + 2**20, shutil.disk_usage(path.parent).free
    if needed > free:
        raise ValueError(
            f"output: {path} takes {needed / 1e9:,.2f} GB, the disk has {free / 1e9:,.2f} GB left; forecast fewer "
            "steps or members, or write elsewhere"
        )


def write_forecast(
    made: Forecasting,
    path: Path,
    watch: Watch,
    compression: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Write a forecast whole or not at all; a file that is there is replaced when the new one is complete.

    Args:
        made: What is forecast.
        path: Of the file.
        watch: Told of every frame.
        compression: Level of gzip, 1 to 9; 0 for none.  A chunk is one frame of one trajectory and member.
        advance: Called with the number of frames that were just written, of all trajectories.
    """
    time = made.selection.roles.time
    outputs = made.labels.outputs
    moving = {
        str(name): xr.conventions.encode_cf_variable(variable, name=str(name))
        for name, variable in made.labels.frame.variables.items()
        if time in variable.dims
    }
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _skeleton(made, moving).to_netcdf(
            unfinished,
            engine="h5netcdf",
            unlimited_dims=[time],
            encoding={output.name: _encoding(made, output.dims, compression) for output in outputs},
        )
        with h5netcdf.File(unfinished, "a") as file:
            file.resize_dimension(time, made.steps)
            for name, variable in moving.items():
                file[name][:] = variable.to_numpy()
            for frame in made.frames(watch):
                for output in outputs:
                    file[output.name][made.place(output, frame)] = frame.values[output.name]
                advance(frame.trajectories.stop - frame.trajectories.start)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _skeleton(made: Forecasting, moving: Mapping[str, xr.Variable]) -> xr.Dataset:
    """The forecast without a frame: all its labels, in the encoding of the file."""
    time = made.selection.roles.time
    empty = {
        output.name: (
            output.dims,
            np.empty([0 if dim == time else made.labels.sizes[dim] for dim in output.dims], np.float32),
            output.attrs,
        )
        for output in made.labels.outputs
    }
    unlabelled = made.labels.frame.drop_vars(list(moving))
    return unlabelled.assign_coords({name: one.isel({time: slice(0, 0)}) for name, one in moving.items()}).assign(empty)


def _encoding(made: Forecasting, dims: tuple[str, ...], compression: int) -> dict[str, Any]:
    roles = made.selection.roles
    chunk = tuple(1 if dim in (roles.time, roles.sample, MEMBER) else made.labels.sizes[dim] for dim in dims)
    packed = {"zlib": True, "complevel": compression, "shuffle": True} if compression else {}
    return {"chunksizes": chunk, **packed}
