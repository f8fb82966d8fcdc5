"""The time of labelled data: which frame a label means, how far frames are apart, and how time goes on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from morph.labelled.dims import times_along

__all__ = ["SECONDS", "Clock"]

SECONDS: Mapping[str, float] = {
    "microsecond": 1e-6, "millisecond": 1e-3, "second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0,
}  # fmt: skip
"""Units of time by the name that UDUNITS gives one of them."""

_SHORT = {"us": "microsecond", "ms": "millisecond", "s": "second", "sec": "second", "min": "minute", "h": "hour",
          "hr": "hour", "d": "day"}  # fmt: skip
_TOLERANCE = 1e-3
"""Relative difference of two time steps that are taken for the same."""


class Clock:
    """The coordinate of time, as it is stored: numbers with or without a date that they count from, or dates.

    Args:
        dataset: Labelled data.
        dim: Its dimension of time.  Without a coordinate, frames are counted from 0.

    Raises:
        ValueError: Times are neither numbers nor dates, not finite, or do not increase.
    """

    def __init__(self, dataset: xr.Dataset, dim: str) -> None:
        names = times_along(dataset, dim)
        stated = [n for n in names if n == dim or dataset[n].dtype.kind in "mMO"]
        stated += [n for n in names if "units" in {**dataset[n].attrs, **dataset[n].encoding}]
        self.dim = dim
        self.name = stated[0] if stated else dim
        self.size = dataset.sizes[dim]
        self.is_stated = bool(stated)
        found = dataset[self.name].variable if stated else xr.Variable((dim,), np.arange(self.size))
        self.variable = xr.Variable((dim,), found.to_numpy(), found.attrs, found.encoding)
        kind = self.variable.dtype.kind
        self.is_dates = kind in "mM" or (kind == "O" and self.size > 0 and hasattr(self.values[0], "calendar"))
        if kind not in "fiumM" and not self.is_dates:
            raise ValueError(f"coordinate {self.name}: expected times as numbers or dates, found {self.values[:3]}")
        if not self.size or not np.isfinite(passed := self._passed()).all() or (np.diff(passed) <= 0).any():
            raise ValueError(
                f"coordinate {self.name}: expected finite times that increase, found {self.values[:6]}; "
                f"put the frames in order: dataset.sortby({self.name!r})"
            )

    @property
    def values(self) -> np.ndarray:
        """Time of each frame, as stored."""
        return self.variable.values

    @property
    def unit(self) -> str | None:
        """The unit in which the file counts: UDUNITS' name where it is known, else as the file says; None: it does not.

        Of dates that nothing says the unit of, None.
        """
        stated = {**self.variable.encoding, **self.variable.attrs}.get("units")
        if stated is None or not str(stated).strip():
            return None
        word = str(stated).partition(" since ")[0].strip()
        return _word(word) or word

    def locate(self, start: Any) -> int:
        """The frame that is meant: None the last, an integer its number, anything else its time, as `.sel` takes it.

        Raises:
            ValueError: There is no such frame, or there are several.
        """
        if start is None:
            return self.size - 1
        if isinstance(start, int | np.integer) and not isinstance(start, bool):
            if not -self.size <= start < self.size:
                raise ValueError(f"start: expected a frame from 0 to {self.size - 1}, found {start}")
            return int(start) % self.size
        values = self.values
        if isinstance(start, float):
            if self.is_dates:
                raise ValueError(f"start: expected a frame or a date, such as {values[-1]!s}, found {start}")
            frame = int(np.argmin(np.abs(values - start)))
            step = np.diff(values.astype(np.float64)).min() if self.size > 1 else 1.0
            if abs(float(values[frame]) - start) > 1e-6 * step + np.finfo(np.float32).eps * abs(start):
                raise ValueError(f"start: there is no frame at {start:g}; the nearest is {frame}, at {values[frame]}")
            return frame
        return self._by_label(start)

    def _by_label(self, start: Any) -> int:
        variable = self.variable
        if not self.is_dates:
            if " since " not in str(variable.attrs.get("units", "")):
                raise ValueError(
                    f"start: expected the number of a frame, or a time as {self.values[-1]}, found {start!r}"
                )
            try:
                variable = xr.conventions.decode_cf_variable(self.name, variable)
            except (ValueError, OverflowError, ImportError) as error:
                raise ValueError(
                    f"start: the times cannot be read as dates: {error}; give the frame's number"
                ) from error
        frames = xr.DataArray(np.arange(self.size), {self.dim: variable.to_index_variable()}, (self.dim,))
        try:
            found = np.atleast_1d(frames.sel({self.dim: start}).values)
        except (KeyError, ValueError, TypeError) as error:
            ends = f"{frames[self.dim].values[0]!s} to {frames[self.dim].values[-1]!s}"
            raise ValueError(f"start: there is no frame at {start!r}; the times go from {ends}") from error
        if len(found) != 1:
            shown = ", ".join(str(value) for value in frames[self.dim].values[found[:3]])
            raise ValueError(f"start: {start!r} means {len(found)} frames: {shown}, ...; say which one")
        return int(found[0])

    def step(self, frames: range, expected: float | None, check: bool) -> tuple[float, str | None]:
        """The time between two frames, and the unit that it is in.

        Args:
            frames: Those of the context, which have to be evenly spaced; of a single one, its neighbour says.
            expected: The step of the training, in whatever unit it counted; None: not known.
            check: Whether the two must agree, to one part in a thousand.

        Raises:
            ValueError: The frames are not evenly spaced, the steps differ, or nothing says how long a step is.
        """
        if not self.is_stated:
            return (1.0 if expected is None else expected), None
        passed = self._passed()
        here = range(frames.start, min(frames.stop + (frames.start == 0), self.size)) if len(frames) < 2 else frames
        here = range(here.start - 1, here.stop) if len(here) < 2 and here.start > 0 else here
        if len(here) < 2:
            if expected is None or (self.is_dates and self.unit not in SECONDS):
                raise ValueError(
                    f"coordinate {self.name}: one frame does not say how long a step is; give two or more, or state "
                    f"the unit: dataset[{self.name!r}].encoding['units']"
                )
            return expected, self.unit
        steps = np.diff(passed[here.start : here.stop])
        dt = float(steps.mean())
        uneven = np.abs(steps - dt) > _TOLERANCE * dt + self._rounding()
        if uneven.any():
            frame = here[int(np.argmax(uneven))]
            raise ValueError(
                f"coordinate {self.name}: expected evenly spaced frames of context, found steps of "
                f"{', '.join(f'{step:g}' for step in steps[:6])} from frame {frame} on; interpolate to equal steps: "
                f"dataset.interp({self.name}=...)"
            )
        if not self.is_dates:
            return self._agreeing({self.unit: dt}, expected, check, dt)
        word = self.unit or ""
        scales = {word: SECONDS[word]} if word in SECONDS else SECONDS
        return self._agreeing({unit: dt / scale for unit, scale in scales.items()}, expected, check, dt)

    def _agreeing(
        self, found: Mapping[str | None, float], expected: float | None, check: bool, dt: float
    ) -> tuple[float, str | None]:
        tolerance = self._rounding() / dt + _TOLERANCE
        for unit, step in found.items():
            if expected is not None and abs(step - expected) <= tolerance * expected:
                return step, unit
        # Where nothing is to agree with: the largest unit of which a step is at least one.
        unit, step = next(((u, s) for u, s in reversed(list(found.items())) if s >= 1), next(iter(found.items())))
        if expected is None or not check:
            return step, unit
        shown = f"{step:g} {unit}" if unit else f"{step:g}"
        seconds = dt if self.is_dates else dt * SECONDS.get(unit or "", np.nan)
        like = [word for word, scale in SECONDS.items() if abs(seconds / scale - expected) <= tolerance * expected]
        hint = f" (the same if the training counted {like[0]}s)" if like else ""
        raise ValueError(
            f"coordinate {self.name}: frames are {shown} apart, those of the training {expected:g}{hint}; "
            f"resample the data to that step (dataset.interp or dataset.isel), or go on knowingly with check_dt=False"
        )

    def extend(self, last: int, steps: int, dt: float, unit: str | None) -> xr.Variable:
        """Times of the frames after `last`, as the coordinate stores them; those of frames that are there, if even."""
        values, start = self.values, self.values[last]
        counts = np.arange(1, steps + 1)
        attrs = {key: value for key, value in self.variable.attrs.items() if key not in ("bounds", "climatology")}
        if not self.is_stated:
            times: np.ndarray = (last + counts) * dt
            attrs = {"long_name": "time", "comment": "the input states no times: frames are counted from its first one"}
        elif self.is_dates and values.dtype.kind == "O":
            from datetime import timedelta

            times = np.array([start + timedelta(seconds=dt * SECONDS[unit or ""]) * int(k) for k in counts], object)
        elif self.is_dates:
            seconds = dt * SECONDS[unit or ""]
            # In the resolution of the dates, or in nanoseconds where that is too coarse.
            kind = values.dtype.str.replace("M8", "m8")
            ticks = seconds / float(np.ones(1, kind)[0] / np.timedelta64(1, "s"))
            if abs(ticks - round(ticks)) > 1e-6:
                kind, ticks = "m8[ns]", seconds * 1e9
            times = start + (counts * round(ticks)).astype(kind)
        else:
            times = float(start) + counts * dt
            whole = values.dtype.kind in "iu" and np.allclose(times, np.round(times), rtol=0, atol=1e-6 * dt)
            times = np.round(times).astype(values.dtype) if whole else times
            times = times.astype(values.dtype) if values.dtype.kind == "f" else times
        # The labels of frames that are there, so that a forecast can be compared with them label by label.
        known = values[last + 1 : last + 1 + steps]
        if self.is_stated and len(known):
            apart = _seconds(known - times[: len(known)]) if self.is_dates else np.abs(known - times[: len(known)])
            scale = dt * (SECONDS[unit or ""] if self.is_dates else 1.0)
            if (np.abs(apart) <= _TOLERANCE * scale + self._rounding()).all():
                times = np.concatenate((known, times[len(known) :]))
        encoding = {k: v for k, v in self.variable.encoding.items() if k in ("units", "calendar", "dtype")}
        return xr.Variable((self.dim,), times, attrs, encoding if self.is_stated else {})

    def _passed(self) -> Float[np.ndarray, "T"]:
        """Time since the first frame: seconds of dates, else in the unit of the numbers."""
        if self.is_dates:
            return _seconds(self.values - self.values[0])
        return self.values.astype(np.float64) - float(self.values[0])

    def _rounding(self) -> float:
        """By how much a time that was rounded to a float can be off."""
        if self.values.dtype.kind != "f":
            return 0.0
        return float(2 * np.finfo(self.values.dtype).eps * np.abs(self.values).max())


def _seconds(passed: np.ndarray) -> Float[np.ndarray, "T"]:
    if passed.dtype.kind == "m":
        return passed / np.timedelta64(1, "s")
    return np.array([one.total_seconds() for one in passed], np.float64)


def _word(text: str) -> str | None:
    lower = text.lower()
    for name in (lower, lower.removesuffix("s"), _SHORT.get(lower, "")):
        if name in SECONDS:
            return name
    return None
