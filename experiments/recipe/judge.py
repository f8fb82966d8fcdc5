"""From the errors of an evaluation to the numbers of the table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from experiments.recipe.rows import HELD_OUT, MIX
from morph.metrics.aggregate import geometric_mean

__all__ = ["NAIVE", "WINDOWS", "errors", "keep", "numbers"]

NAIVE = ("persistence", "extrapolation")
WINDOWS = {"1": "one_step", "10": (0, 10), "full": (0, None)}
"""One step ahead from windows everywhere in the trajectories; the first ten steps of rollouts; all of them."""
_GROUPS = {"mix": MIX, "heldout": HELD_OUT}


def keep(source: Path, target: Path, systems: Sequence[str]) -> None:
    """The VRMSE of an evaluation alone, a group for each system; further systems join those that are there."""
    for name in systems:
        with xr.open_dataset(source / "metrics.nc", group=name, engine="h5netcdf") as metrics:
            kept = metrics[["one_step", "rollout", "unstable_from"]].sel(metric="vrmse", drop=True).load()
        kept.to_netcdf(target, mode="a" if target.exists() else "w", group=name, engine="h5netcdf")


def errors(path: Path, system: str) -> xr.Dataset | None:
    """What `keep` kept of a system, mean over fields; None where there is no forecast."""
    try:
        with xr.open_dataset(path, group=system, engine="h5netcdf") as stored:
            kept = stored.load()
    except (OSError, KeyError, ValueError):
        return None
    return kept.mean("field") if "field" in kept.dims else kept


def _mean(kept: xr.Dataset, window: Any, forecast: str) -> float:
    if window == "one_step":
        return float(kept.one_step.sel(forecast=forecast).mean())
    return float(kept.rollout.sel(forecast=forecast).isel(lead_time=slice(*window)).mean())


def numbers(path: Path) -> dict[str, Any]:
    """Per system the VRMSE of the model and of the naive forecasts in each window, and how many rollouts were lost;
    over systems the geometric means of the ratio to persistence and, `_naive`, to the better naive forecast; None where
    a system has no forecast, infinite where one is not finite."""
    systems: dict[str, dict[str, float]] = {}
    for name in (*MIX, *HELD_OUT):
        kept = errors(path, name)
        if kept is None:
            continue
        of_system = {
            f"{forecast}_{label}": _mean(kept, window, forecast)
            for label, window in WINDOWS.items()
            for forecast in ("model", *NAIVE)
        }
        unstable = int(kept.unstable_from.sel(forecast="model").notnull().sum())
        systems[name] = {**of_system, "unstable": unstable, "trajectories": kept.sizes["trajectory"]}
    found: dict[str, Any] = {}
    for group, members in _GROUPS.items():
        for label in WINDOWS:
            for suffix, against in (("", NAIVE[:1]), ("_naive", NAIVE)):
                found[f"{group}_{label}{suffix}"] = _over(systems, members, label, against)
    return {**found, "systems": systems}


def _over(
    systems: Mapping[str, Mapping[str, float]], members: Sequence[str], label: str, against: Sequence[str]
) -> float | None:
    if not set(members) <= set(systems):
        return None
    ratios = [systems[n][f"model_{label}"] / min(systems[n][f"{a}_{label}"] for a in against) for n in members]
    return float(geometric_mean(np.nan_to_num(np.array(ratios), nan=np.inf)))
