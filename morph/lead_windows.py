"""Errors in windows of lead time, with intervals over trajectories; and over all data sets, as ratios and ranks."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from morph.metrics import average_rank, bootstrap_interval, geometric_mean
from morph.metrics.aggregate import bootstrap_means, interval

__all__ = ["lead_windows", "overall", "window_errors"]

_NAMES = ("vrmse", "nrmse")


def lead_windows(given: Any) -> tuple[str, ...]:
    """The option lead_windows: windows such as "6:12", of lead steps counted from 1, both ends included.

    Raises:
        ValueError: It is no such list; names the option.
    """
    windows = () if given is None else tuple(given) if isinstance(given, list | tuple) else (given,)
    for window in windows:
        if (
            not isinstance(window, str)
            or re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", window) is None
            or np.diff(_ends(window))[0] < 0
        ):
            raise ValueError(
                "lead_windows: expected windows of lead steps, first:last, counted from 1 and both included, such as "
                f'lead_windows=["1:5","6:12"], found {window!r}'
            )
    if len(set(windows)) < len(windows):
        raise ValueError(f"lead_windows: expected different windows, found {', '.join(windows)}")
    return windows


def window_errors(metrics: xr.Dataset, windows: Sequence[str]) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """VRMSE and NRMSE of every forecast one step ahead ("one_step"), over the whole length of the rollouts ("rollout"),
    and in the windows that they reach to their last step.

    Args:
        metrics: See `morph.scoring.Scores`.
        windows: See `lead_windows`.

    Returns:
        By window, forecast and metric: `mean` over fields, trajectories and lead times or windows; `median` over
        trajectories of their means; `low` and `high`, the 95 % bootstrap interval of the mean over trajectories, see
        `morph.metrics.bootstrap_interval`.  A number that is not finite, and the interval of one trajectory, is None.
    """
    found: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for window in ("one_step", "rollout", *windows):
        for metric in _NAMES:
            per_trajectory = _per_trajectory(metrics, window, metric)
            if per_trajectory is None:
                continue
            means, counts = per_trajectory
            for name, values, weights in zip(metrics.forecast.values, means, counts, strict=True):
                held = weights > 0
                values, weights = values[held], weights[held]
                low, high = bootstrap_interval(values, weights)
                numbers = {
                    "mean": np.average(values, weights=weights) if len(values) else np.nan,
                    "median": np.median(values) if len(values) else np.nan,
                    "low": low,
                    "high": high,
                }
                found.setdefault(window, {}).setdefault(str(name), {})[metric] = _finite(numbers)
    return found


def overall(metrics: Mapping[str, xr.Dataset], windows: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """One number for each forecast, over all data sets.

    Args:
        metrics: By data set, of the same forecasts; see `morph.scoring.Scores`.
        windows: See `lead_windows`.

    Returns:
        By window ("one_step", "rollout" and those of lead time that a data set reaches) and forecast:
        `ratio_to_persistence`, the geometric mean over data sets of the mean VRMSE over persistence's, with its 95 %
        interval: trajectories are drawn with replacement in each data set, the same ones for both forecasts, while the
        data sets stay what they are, and a sample in which persistence has no error on one of them is left out for all
        forecasts; `average_rank` by VRMSE among all forecasts, None of a single data set, which is
        no average; `datasets`, those that are counted.  Others do not reach the window, or persistence has no error on
        them or lacks data.  A number that is not finite is None.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for window in ("one_step", "rollout", *windows):
        errors, resampled, usable, counted = [], [], [], []
        for number, (dataset, one) in enumerate(metrics.items()):
            per_trajectory = _per_trajectory(one, window, "vrmse")
            if per_trajectory is None:
                continue
            means, counts = per_trajectory
            held = (counts > 0).all(0)
            if not held.any():
                continue
            means, counts = means[:, held], counts[:, held]
            mean = (means * counts).sum(-1) / counts.sum(-1)
            forecasts = [str(name) for name in one.forecast.values]
            persistence = forecasts.index("persistence")
            if not 0 < mean[persistence] < np.inf:
                continue
            counted.append(dataset)
            errors.append(mean)
            # Of one trajectory there is no interval, and so none of the whole.
            drawn = (
                bootstrap_means(means, counts, seed=number) if len(means.T) > 1 else np.full((len(means), 1), np.nan)
            )
            usable.append(drawn[persistence] != 0)
            with np.errstate(divide="ignore", invalid="ignore"):
                resampled.append(drawn / drawn[persistence])
        if not counted:
            continue
        table = np.stack(errors)
        ranks = average_rank(table) if len(counted) > 1 else np.full(len(forecasts), np.nan)
        ratios = geometric_mean((table / table[:, [persistence]]).T)
        draws = np.stack(np.broadcast_arrays(*resampled), -1)
        spread = geometric_mean(draws[:, np.logical_and.reduce(np.broadcast_arrays(*usable))])
        found[window] = {}
        for i, name in enumerate(forecasts):
            low, high = interval(spread[i])
            found[window][name] = {
                "ratio_to_persistence": _finite({"mean": ratios[i], "low": low, "high": high}),
                **_finite({"average_rank": ranks[i]}),
                "datasets": counted,
            }
    return found


def _per_trajectory(
    metrics: xr.Dataset, window: str, metric: str
) -> tuple[Float[np.ndarray, "forecast trajectory"], Float[np.ndarray, "forecast trajectory"]] | None:
    """Mean error of each trajectory, and of how many errors it is the mean; None where no rollout reaches so far."""
    if window == "one_step":
        errors = metrics.one_step.sel(metric=metric).transpose("window", "forecast", "field").values
        owner = metrics.window_trajectory.values
        total = np.zeros((metrics.sizes["trajectory"], metrics.sizes["forecast"]))
        counts = np.zeros_like(total)
        np.add.at(total, owner, np.nansum(errors, -1, dtype=np.float64))
        np.add.at(counts, owner, (~np.isnan(errors)).sum(-1))
        total, counts = total.T, counts.T
    else:
        errors = metrics.rollout.sel(metric=metric).transpose("forecast", "trajectory", "lead_time", "field").values
        first, last = (1, errors.shape[2]) if window == "rollout" else _ends(window)
        if last > errors.shape[2]:
            return None
        errors = errors[:, :, first - 1 : last]
        total = np.nansum(errors, (2, 3), dtype=np.float64)
        counts = (~np.isnan(errors)).sum((2, 3)).astype(np.float64)
    return total / np.maximum(counts, 1), counts


def _ends(window: str) -> tuple[int, int]:
    first, last = window.split(":")
    return int(first), int(last)


def _finite(numbers: Mapping[str, float]) -> dict[str, float | None]:
    return {key: float(value) if np.isfinite(value) else None for key, value in numbers.items()}
