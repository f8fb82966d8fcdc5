"""Times of several files on one clock: files may count from different dates, or hold dates that were decoded."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import xarray as xr
from jaxtyping import Float

__all__ = ["goes_on", "on_one_clock"]

_LONGEST_GAP = 1.5
"""Steps between two files of one record, at most: the next frame, with room for steps that vary."""


def on_one_clock(clocks: Sequence[xr.Variable | None]) -> list[Float[np.ndarray, "_"]] | None:
    """Times of each file in the unit of the first; dates that were decoded become hours since the first.

    Args:
        clocks: Coordinate of time of each file, None of one that has none.

    Returns:
        None where a file states no times.

    Raises:
        ValueError: The units of two files cannot be converted into each other.
    """
    known = [clock for clock in clocks if clock is not None]
    if len(known) < len(clocks):
        return None
    units = [_counted(clock) for clock in known]
    if len(set(units)) == 1 and known[0].dtype.kind not in "mM":
        return [clock.to_numpy() for clock in known]
    dates: list[np.ndarray] = []
    for clock, unit in zip(known, units, strict=True):
        try:
            found = clock if clock.dtype.kind in "mM" else xr.conventions.decode_cf_variable("time", clock)
        except (ValueError, OverflowError, ImportError) as error:
            raise ValueError(f"expected times in {_shown(units[0])}, found {_shown(unit)}: {error}") from error
        if found.dtype.kind not in "mM" or (dates and found.dtype.kind != dates[0].dtype.kind):
            raise ValueError(f"expected times in {_shown(units[0])}, found {_shown(unit)}")
        dates.append(found.to_numpy())
    first = dates[0][0]
    hours = [np.asarray((date - first) / np.timedelta64(1, "h"), np.float64) for date in dates]
    if known[0].dtype.kind in "mM":
        return hours
    own = known[0].to_numpy().astype(np.float64)
    word = units[0][0].partition(" since ")[0]
    counted = xr.Variable("time", [0.0, 1.0], {"units": f"{word} since 2000-01-01"})
    (length,) = np.diff(xr.conventions.decode_cf_variable("time", counted).to_numpy()) / np.timedelta64(1, "h")
    return [own[0] + passed / length for passed in hours]


def _counted(clock: xr.Variable) -> tuple[str, str]:
    """Unit and calendar in which a file counts."""
    if clock.dtype.kind in "mM":
        return "dates", ""
    return str(clock.attrs.get("units", "")), str(clock.attrs.get("calendar", "standard"))


def _shown(unit: tuple[str, str]) -> str:
    return repr(unit[0]) if unit[1] in ("", "standard") else f"{unit[0]!r}, calendar {unit[1]}"


def goes_on(times: Sequence[Float[np.ndarray, "_"]]) -> bool:
    """Whether each of the files, in this order, starts with the frame after the last of the one before.

    Args:
        times: Of each file, on one clock.
    """
    gaps = np.array([float(later[0]) - float(earlier[-1]) for earlier, later in pairwise(times)])
    inner = np.concatenate([np.diff(own.astype(np.float64)) for own in times])
    if not len(gaps) or not np.isfinite(gaps).all():
        return False
    step = float(np.median(inner if len(inner) else gaps))
    return bool(((gaps > 0) & (gaps <= _LONGEST_GAP * step)).all())
