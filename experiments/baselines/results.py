"""The lines of the study's tables: what they hold, and how they are read and written."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["COST", "FIELDS", "NAIVE", "WINDOWS", "as_csv", "errors", "key_of", "read", "read_speed"]

WINDOWS: dict[str, tuple[int, int | None] | None] = {
    "one_step": None,
    "6:12": (6, 12),
    "13:30": (13, 30),
    "rollout": (1, None),
}
"""Lead steps from and to, counted from 1, both included; cut where the rollouts end before, unlike those of an
evaluation, which leaves such a window out.  one_step: from the true context, at windows from everywhere in the
trajectories."""
NAIVE = ("persistence", "extrapolation")
COST = ("parameters", "gflop", "step_s", "inference_ms", "threads")
_KEY = ("model", "system", "matched", "seed", "lr")
FIELDS = (
    *_KEY, "steps", *WINDOWS, *(f"{name}_{window}" for name in NAIVE for window in WINDOWS), "unstable", "train_s",
    "judge_s", *COST,
)  # fmt: skip
_TEXT = ("model", "system", "matched", "unstable")
_WHOLE = ("seed", "steps", "parameters", "threads", "batch")


def key_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What tells a line from the others."""
    return tuple(f"{row[name]:g}" if name == "lr" else str(row[name]) for name in _KEY)


def errors(metrics: xr.Dataset) -> dict[str, float]:
    """VRMSE of the model and of the naive forecasts in each window of a data set's metrics.nc, mean over everything;
    NaN where the rollouts do not reach the window, infinite where a forecast is not finite."""
    found = {}
    for window, steps in WINDOWS.items():
        table = metrics["one_step" if steps is None else "rollout"].sel(metric="vrmse")
        if steps is not None:
            table = table.isel(lead_time=slice(steps[0] - 1, steps[1]))
        for forecast in ("model", *NAIVE):
            values = table.sel(forecast=forecast).values
            name = window if forecast == "model" else f"{forecast}_{window}"
            found[name] = float(values.mean()) if values.size else float("nan")
    return found


def read(out: Path, kind: str = "results") -> list[dict[str, Any]]:
    """All lines, those of processes that shared the runs together, each once; none where there is no file."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for path in [out / f"{kind}.csv", *sorted(out.glob(f"{kind}.*.csv"))]:
        for row in _read(path):
            rows.setdefault(key_of(row), row)
    return list(rows.values())


def read_speed(path: Path) -> list[dict[str, Any]]:
    """The lines of speed.csv, none where there is none."""
    return _read(path)


def as_csv(rows: Iterable[Mapping[str, Any]], fields: Sequence[str]) -> str:
    """Rows as the text of a file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{name: _value(name, text) for name, text in row.items()} for row in csv.DictReader(file)]


def _value(name: str, text: str) -> Any:
    if name in _TEXT:
        return text
    return int(text) if name in _WHOLE and text else float(text or np.nan)
