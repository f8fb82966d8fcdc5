"""How data run in time: frames, the step between them, whether files follow each other."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from data_adapters.contents import SAMPLE, TIME, uniform_step
from data_adapters.inspect.axes import Layout
from data_adapters.inspect.findings import LABELLED, WELL, Found, plain
from data_adapters.inspect.mapping import Candidate
from data_adapters.inspect.names import kind_of
from data_adapters.inspect.question import Question
from data_adapters.labelled import DATASETS, Opening

__all__ = ["STEP_ATTRIBUTES", "Record", "record_of"]

STEP_ATTRIBUTES = ("dt", "delta_t", "Delta_t", "time_step", "timestep", "tstep")
"""Attributes that may state the time between two frames, or that between two steps of a solver."""


class Record(NamedTuple):
    """How much there is, and how it runs in time.

    trajectories, steps: Of all files together, if they are like the first one.
    dt: Time between two frames.
    unit: Of it, "" where the file does not say.
    joined: Files follow each other in time.
    restated: Why the reader needs `dt` though the files state times, "" where it does not.
    """

    trajectories: int
    steps: int
    dt: float
    unit: str
    joined: bool = False
    restated: str = ""


def record_of(
    found: Found, layout: Layout, fields: Sequence[Candidate | Mapping[str, Any]], dt: Any, *, whole: bool = False
) -> Record:
    """Trajectories, frames and the time step.

    Args:
        found: What the files hold.
        layout: The meaning of their axes.
        fields: Those that are read.
        dt: What the user says, None to take it from the file.
        whole: The data are read undivided, and one frame will do where `dt` is given.

    Raises:
        ValueError: There is one frame, or `dt` is no positive number.
        Question: The time step is not stated, or the steps differ.
    """
    where = found.container.files[0]
    if dt is not None and (isinstance(dt, bool) or not isinstance(dt, int | float) or not dt > 0):
        raise ValueError(f"dt: expected a positive number, found {dt!r}")
    moving = [name for name, own in layout.dims.items() if TIME in own]
    named = [part for entry in fields if isinstance(entry, Candidate) for part in entry.parts if part in moving]
    array = found.arrays[(named or moving)[0]]
    sizes = dict(zip(layout.dims[array.name], array.shape, strict=True))
    several = len(found.container.files) if found.adapter != WELL else 1
    name = layout.coordinates.get(TIME)
    times = _times(found, name, sizes[TIME])
    unit = found.arrays[name].unit.partition(" since ")[0] if name else ""
    joined, restated = False, ""
    if name is None and found.adapter == LABELLED and (beside := _beside(found, layout.named[TIME], sizes[TIME])):
        name = beside
        times, unit = found.values(name), found.arrays[name].unit.partition(" since ")[0]
        restated = f"from {name}, which is no coordinate of {layout.named[TIME]}"
    elif name and several > 1 and found.adapter == LABELLED and SAMPLE not in sizes:
        joined, restated = _joined(found, name)
    steps = sizes[TIME] * (several if joined else 1)
    trajectories = (found.trajectories or sizes.get(SAMPLE, 1)) * (1 if joined else several)
    if steps < (1 if whole and dt is not None else 2):
        raise ValueError(
            f"{where}: expected two or more frames, found one; a forecast needs the next one: name all files of the "
            "record (a pattern in quotes, 'data/*.nc'), or another axis of time with dims=[...]"
        )
    if dt is not None:
        return Record(trajectories, steps, float(dt), unit, joined)
    if times is None:
        raise Question(
            f"{where}: it states no times. How much time lies between two stored frames?",
            _hints(found) or {"dt=1": "to count frames, where the unit does not matter"},
        )
    if times.dtype.kind in "mM":
        times, unit = (times - times[0]) / np.timedelta64(1, "h"), "hours"
    if joined and len(times) < 2:
        second = _times(found, name, None, 1)
        times = np.concatenate([times, second if second is not None else times])[:2]
    try:
        return Record(trajectories, steps, uniform_step(times, f"{where}: {name}"), unit, joined, restated)
    except ValueError as error:
        differences = np.diff(times.astype(np.float64))
        typical = float(np.median(differences)) if len(differences) else 0.0
        if not typical > 0:
            raise Question(f"{error}. Or state the step yourself:", {"dt=1": "to count frames"}) from error
        text = f"their median, if {differences.min():g} to {differences.max():g} may be taken as equal"
        raise Question(f"{error}. Or state the step yourself:", {f"dt={typical:g}": text}) from error


def _hints(found: Found) -> dict[str, str]:
    said = {key: plain(found.attributes[key]) for key in STEP_ATTRIBUTES if key in found.attributes}
    return {
        f"dt={value}": f"if its attribute {key} is the time between two stored frames, and not a solver's step"
        for key, value in said.items()
        if isinstance(value, int | float) and value > 0
    }


def _times(found: Found, name: str | None, size: int | None, place: int = 0) -> np.ndarray | None:
    """Of one file; the first row of a table of them."""
    if name is None:
        return None
    ndim = len(found.arrays[name].shape)
    values = found.read(found.places[place], name, (slice(None),) * ndim)
    return values.reshape(-1, values.shape[-1])[0][:size]


def _beside(found: Found, dim: str, size: int) -> str | None:
    """Another array than the coordinate that tells the times, as XTIME of WRF does."""
    for name, array in found.arrays.items():
        if array.dims == (dim,) and size > 1 and kind_of(name, array.attributes)[0] == TIME:
            return name
    return None


def _joined(found: Found, name: str) -> tuple[bool, str]:
    """Whether the second file goes on where the first one ends, and why `dt` is needed then."""
    engine, group = found.container.engine, found.group
    openings = [Opening(file, engine, group) for file in found.container.files[:2]]
    pieces, units = [], []
    for opening in openings:
        with DATASETS.lend(opening) as opened:
            if name not in opened.variables:
                return False, ""
            variable = opened.variables[name]
            units.append(str(variable.attrs.get("units", "")))
            pieces.append(xr.Variable(variable.dims, variable.to_numpy(), variable.attrs))
    DATASETS.close(openings)
    different = "the files count from different dates" if units[0] != units[1] else ""
    if different and all(" since " in unit for unit in units):
        try:
            pieces = [xr.conventions.decode_cf_variable(name, piece) for piece in pieces]
        except (ValueError, OverflowError, ImportError):
            return False, ""
    first, second = (piece.to_numpy() for piece in pieces)
    if not len(first) or not len(second) or first.dtype.kind not in "fiumM" or not second[0] > first[-1]:
        return False, ""
    steps = np.diff(np.concatenate([first, second[:2]])).astype(np.float64)
    return bool(np.allclose(steps, np.median(steps), rtol=0.15)), different
