"""The numbers that tables and pictures show, of each data set."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from morph.baselines import NAIVE

__all__ = ["normalised", "summarise", "valid_median"]


def summarise(metrics: xr.Dataset) -> dict[str, Any]:
    """Means over fields and windows one step ahead, and over fields, trajectories and lead times of the rollouts, for
    VRMSE and NRMSE.

    `one_step_vrmse` and `rollout_vrmse` are the model's, `persistence_vrmse` and `persistence_rollout_vrmse` a naive
    forecast's or, by its name, a compared checkpoint's; `one_step_ratio` and `rollout_ratio` the model's VRMSE over the
    lowest of the naive forecasts', with `_to_persistence` over persistence's and `_to_<name>` over a compared
    checkpoint's; `compared` lists these.

    `valid_time` and `persistence_valid_time` are medians over trajectories, `valid_time_censored` counts those in which
    the error never exceeds the threshold; where they are half of them, the median is a lower bound.  Both are in the
    data set's unit of time, as `rollout_length`.

    `unstable` counts the model's rollouts that lost the truth altogether.  `one_step_without_data` and
    `rollout_without_data` count the pairs of a field and a window, or of a field and a frame of a rollout, in which a
    masked data set holds too little data for a VRMSE; the means leave them out.  A number that is not finite is None.

    With an ensemble, in standard deviations of each field: `crps`, the naive forecasts' and the compared checkpoints'
    `<name>_crps`, and `control_mae`, the same score of the model's one undisturbed forecast; `crps_ratio` is to the
    lowest of the naive ones, `crps_ratio_to_control` to that one forecast's, `crps_ratio_to_<name>` to a compared
    checkpoint's.  `spread` and `skill` are root mean squares, `spread_skill_ratio` is theirs.
    """
    naive = [name for name in NAIVE if name in metrics.forecast.values]
    others = [str(name) for name in metrics.forecast.values if name != "model"]
    compared = [name for name in others if name not in naive]
    numbers: dict[str, float] = {}
    for metric in ("vrmse", "nrmse"):
        for ahead in ("one_step", "rollout"):
            means = metrics[ahead].sel(metric=metric).mean(set(metrics[ahead].dims) - {"forecast", "metric"})
            numbers[f"{ahead}_{metric}"] = float(means.sel(forecast="model"))
            for name in others:
                infix = "" if ahead == "one_step" else "rollout_"
                numbers[f"{name}_{infix}{metric}"] = float(means.sel(forecast=name))
    for ahead, infix in (("one_step", ""), ("rollout", "rollout_")):
        best = min(numbers[f"{name}_{infix}vrmse"] for name in naive)
        numbers[f"{ahead}_ratio"] = _ratio(numbers[f"{ahead}_vrmse"], best)
        for name in ("persistence", *compared):
            numbers[f"{ahead}_ratio_to_{name}"] = _ratio(numbers[f"{ahead}_vrmse"], numbers[f"{name}_{infix}vrmse"])
    numbers["rollout_length"] = float(metrics.lead_time[-1])
    valid = metrics.valid_time.median("trajectory")
    for name in ("model", *others):
        numbers[_of(name, "valid_time")] = float(valid.sel(forecast=name))
    if "crps" in metrics:
        numbers |= _of_ensemble(metrics, naive, compared)
    finite = {key: value if np.isfinite(value) else None for key, value in numbers.items()}
    counts = {
        f"{ahead}_without_data": int(metrics[ahead].sel(forecast="model", metric="vrmse").isnull().sum())
        for ahead in ("one_step", "rollout")
    }
    counts |= {
        _of(name, "valid_time_censored"): int(metrics.valid_time_censored.sel(forecast=name).sum())
        for name in ("model", *others)
    }
    counts["unstable"] = int(metrics.unstable_from.sel(forecast="model").notnull().sum())
    return {**finite, **counts, "trajectories": metrics.sizes["trajectory"], "compared": compared}


def normalised(metrics: xr.Dataset, name: str) -> xr.DataArray:
    """A score of ensembles in standard deviations of each field; a field that is zero throughout has none, NaN."""
    return metrics[name] / metrics.field_std.where(np.isfinite(metrics.field_std))


def valid_median(numbers: Mapping[str, Any], name: str) -> tuple[float, bool]:
    """Median valid time of a forecast in a summary, and whether it is a lower bound; -1 where there is none."""
    value = numbers[_of(name, "valid_time")]
    bound = 2 * numbers[_of(name, "valid_time_censored")] >= numbers["trajectories"]
    return (-1.0, False) if value is None else (value, bound)


def _of(name: str, key: str) -> str:
    return key if name == "model" else f"{name}_{key}"


def _of_ensemble(metrics: xr.Dataset, naive: list[str], compared: list[str]) -> dict[str, float]:
    score = normalised(metrics, "crps")
    numbers = {_of(name, "crps"): float(score.sel(forecast=name).mean()) for name in ("model", *naive, *compared)}
    std = metrics.field_std.where(np.isfinite(metrics.field_std))
    numbers["control_mae"] = float((metrics.rollout.sel(forecast="model", metric="mae") / std).mean())
    numbers["crps_ratio"] = _ratio(numbers["crps"], min(numbers[f"{name}_crps"] for name in naive))
    numbers["crps_ratio_to_control"] = _ratio(numbers["crps"], numbers["control_mae"])
    for name in compared:
        numbers[f"crps_ratio_to_{name}"] = _ratio(numbers["crps"], numbers[f"{name}_crps"])
    for name in ("model", *compared):
        for key in ("spread", "skill"):
            squares = normalised(metrics, key).sel(forecast=name) ** 2
            numbers[_of(name, key)] = float(squares.mean()) ** 0.5
        numbers[_of(name, "spread_skill_ratio")] = _ratio(numbers[_of(name, "spread")], numbers[_of(name, "skill")])
    return numbers


def _ratio(value: float, reference: float) -> float:
    """NaN over a reference without error: whatever it is, it is no finite number."""
    return value / reference if reference else np.nan
