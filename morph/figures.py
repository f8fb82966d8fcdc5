"""Pictures of forecasts: truth, prediction and error side by side, and error over lead time."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import cycle
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from morph.baselines import NAIVE
from morph.summary import normalised

__all__ = [
    "colour_range",
    "plot_ensemble",
    "plot_error_growth",
    "plot_forecast",
    "plot_overview",
    "plot_rollout",
    "png",
]

_COLOURS = {"model": "#0072B2", "persistence": "#999999", "extrapolation": "#D55E00"}
_FURTHER = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")  # of compared checkpoints, in turn
_FRAMES = 5
_ROWS = 400
_NO_DATA = "lightgrey"


def png(figure: Figure) -> bytes:
    """The picture as a PNG file's content."""
    content = BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


def plot_rollout(rollouts: xr.Dataset, trajectory: int = 0) -> Figure:
    """Truth, prediction and error of a rollout: space-time panels in 1-D, frames in 2-D, middle slices in 3-D.

    Truth and prediction share their colours; the error has its own, symmetric about zero.  Points without a value are
    grey.

    Args:
        rollouts: See `morph.scoring.Scores`.
        trajectory: Which of them.
    """
    chosen = rollouts.sel(trajectory=trajectory)
    axes = [dim for dim in chosen.dims if dim not in ("source", "time")]
    if len(axes) == 1:
        return _space_time(chosen, str(axes[0]))
    where = ""
    if len(axes) == 3:
        middle = chosen.sizes[axes[0]] // 2
        where = f" at {axes[0]} = {float(chosen[axes[0]][middle]):.3g}"
        chosen, axes = chosen.isel({axes[0]: middle}), axes[1:]
    return _frames(chosen, [str(axis) for axis in axes], where)


def _panels(component: xr.DataArray) -> dict[str, xr.DataArray]:
    truth, model = component.sel(source="truth"), component.sel(source="model")
    return {"truth": truth, "prediction": model, "error": model - truth}


def plot_forecast(panels: Mapping[str, tuple[xr.DataArray, xr.DataArray]], axes: Sequence[str], time: str) -> Figure:
    """The last frame known and forecasts from it: space-time panels in 1-D, frames in 2-D, middle slices in 3-D.

    Colours span the values that are shown, as far as these are not further from those of the last frame known than
    they are wide, so that a forecast that runs away shows as such; points without a value, or with one that is not
    finite, are grey.

    Args:
        panels: Of each component, the last frame known along `axes`, and its forecast along `time` and `axes`, with the
            coordinate `lead_time`.
        axes: Dimensions of space.
        time: Dimension of time.
    """
    last, *across = list(axes)[::-1][:2]
    width = 1 if not across else 1 + min(_FRAMES - 1, min(after.sizes[time] for _, after in panels.values()))
    figure = Figure(figsize=(2.4 * width + (3 if not across else 1), 2.3 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), width, sharex=True, sharey=True, squeeze=False)
    for number, (row, (name, (known, after))) in enumerate(zip(grid, panels.items(), strict=True)):
        middle = {axis: known.sizes[axis] // 2 for axis in list(axes)[:-2]}
        known, after = known.isel(middle), after.isel(middle)
        if not across:
            thin = after.isel({time: slice(None, None, 1 + after.sizes[time] // _ROWS)})
            rows = np.concatenate(([0.0], thin["lead_time"].values))
            values = np.vstack((known.values[None], thin.transpose(time, last).values))
            shown = [("", values, rows)]
        else:
            leads = np.unique(np.linspace(0, after.sizes[time] - 1, width - 1).round().astype(int))
            order = (across[0], last)
            shown = [("last known", known.transpose(*order).values, _places(known, across[0]))]
            shown += [
                (
                    f"{float(after.lead_time[lead]):+.3g}{_unit(after.lead_time)}",
                    after.isel({time: lead}).transpose(*order).values,
                    shown[0][2],
                )
                for lead in leads
            ]
        colours = _scale(*_limits(known.values, np.concatenate([values.ravel() for _, values, _ in shown])))
        for ax, (title, values, rows) in zip(row, shown, strict=False):
            image = ax.pcolormesh(_places(known, last), rows, np.ma.masked_invalid(values), **colours)
            ax.set_facecolor(_NO_DATA)
            if title and number == 0:
                ax.set_title(title, fontsize="medium")
        along = across[0] + _unit(known.coords.get(across[0])) if across else "lead time" + _unit(after.lead_time)
        row[0].set_ylabel(f"{name}\n{along}", fontsize="small")
        figure.colorbar(image, ax=list(row), shrink=0.8, label=known.attrs.get("units", ""))
    for ax in grid[-1]:
        ax.set_xlabel(last + _unit(known.coords.get(last)), fontsize="small")
    return figure


def _unit(values: xr.DataArray | None) -> str:
    unit = "" if values is None else values.attrs.get("units", "")
    return f" {unit}" if unit else ""


def _limits(known: np.ndarray, shown: np.ndarray) -> tuple[float, float]:
    finite, shown = known[np.isfinite(known)], shown[np.isfinite(shown)]
    if not finite.size or not shown.size:
        return np.nan, np.nan
    low, high = float(finite.min()), float(finite.max())
    width = high - low
    return max(low - width, float(shown.min())), min(high + width, float(shown.max()))


def _places(values: xr.DataArray, axis: str) -> np.ndarray:
    """Coordinates along an axis, its points counted where they are not numbers."""
    found = values.coords.get(axis)
    return np.arange(values.sizes[axis]) if found is None or found.dtype.kind not in "iuf" else found.values


def colour_range(low: float, high: float) -> tuple[float, float, str]:
    """Where the colours of values in a range end, and their map: symmetric about zero where the range holds zero.

    Args:
        low: The lowest value; NaN where there is none.
        high: The highest.
    """
    if np.isnan(low):  # nothing but land
        low, high = 0.0, 1.0
    if low == high:
        low, high = low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
    signed = low < 0 < high
    if signed:
        high = max(-low, high)
        low = -high
    return low, high, "RdBu_r" if signed else "viridis"


def _scale(low: float, high: float) -> dict[str, Any]:
    low, high, colours = colour_range(low, high)
    return {"vmin": low, "vmax": high, "cmap": colours}


def _colours(panels: Mapping[str, xr.DataArray]) -> dict[str, dict[str, Any]]:
    field = _scale(float(panels["truth"].min()), float(panels["truth"].max()))
    low, high = field["vmin"], field["vmax"]
    error = panels["error"].where(np.isfinite(panels["error"]))
    largest = min(float(np.abs(error).max()) or 1.0, 2 * (high - low)) if error.notnull().any() else high - low
    return {"truth": field, "prediction": field, "error": {"vmin": -largest, "vmax": largest, "cmap": "PuOr"}}


def _space_time(chosen: xr.Dataset, axis: str) -> Figure:
    names = list(chosen.data_vars)
    figure = Figure(figsize=(11, 2.6 * len(names)), layout="constrained")
    grid = figure.subplots(len(names), 3, sharex=True, sharey=True, squeeze=False)
    for row, name in zip(grid, names, strict=True):
        panels = _panels(chosen[name])
        colours = _colours(panels)
        for ax, (title, values) in zip(row, panels.items(), strict=True):
            image = ax.pcolormesh(values[axis], values["time"], values.transpose("time", axis), **colours[title])
            ax.set_facecolor(_NO_DATA)
            figure.colorbar(image, ax=ax)
            ax.set_title(f"{chosen[name].attrs['long_name']}, {title}", fontsize="medium")
        row[0].set_ylabel("time")
    for ax in grid[-1]:
        ax.set_xlabel(axis)
    return figure


def _frames(chosen: xr.Dataset, axes: list[str], where: str) -> Figure:
    # The first component of each field: enough to judge by eye, small enough to take in.
    fields: dict[str, str] = {}
    for name in chosen.data_vars:
        fields.setdefault(chosen[name].attrs["field"], str(name))
    times = np.unique(np.linspace(0, chosen.sizes["time"] - 1, _FRAMES).round().astype(int))
    size = (2.3 * len(times) + 1, 2.1 * 3 * len(fields))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(3 * len(fields), len(times), sharex=True, sharey=True, squeeze=False)
    for i, name in enumerate(fields.values()):
        panels = _panels(chosen[name])
        colours = _colours(panels)
        for row, (title, values) in zip(grid[3 * i : 3 * i + 3], panels.items(), strict=True):
            for ax, step in zip(row, times, strict=True):
                frame = values.isel(time=step).transpose(*axes)
                image = ax.pcolormesh(values[axes[1]], values[axes[0]], frame, **colours[title])
                ax.set_aspect("equal")
                ax.set_facecolor(_NO_DATA)
                if title == "truth":
                    ax.set_title(f"t = {float(frame.time):.3g}", fontsize="medium")
            row[0].set_ylabel(f"{name}\n{title}\n{axes[0]}", fontsize="small")
            figure.colorbar(image, ax=list(row), shrink=0.8)
    for ax in grid[-1]:
        ax.set_xlabel(f"{axes[1]}{where}", fontsize="small")
    return figure


def plot_error_growth(metrics: xr.Dataset, metric: str = "vrmse") -> Figure:
    """Error over lead time, mean over fields: the line is the mean over trajectories, the band their range.

    A line ends where a first trajectory is no longer finite, rather than go on with those that are left; a trajectory
    without data at a lead time has no error there (NaN) and is left out of it.
    """
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    ax = figure.subplots()
    errors = metrics.rollout.sel(metric=metric).mean("field")
    errors = errors.where(~np.isinf(errors).any("trajectory"))
    for name, colour in _coloured(metrics).items():
        of_forecast = errors.sel(forecast=name)
        ax.plot(metrics.lead_time, of_forecast.mean("trajectory"), label=name, color=colour)
        low, high = of_forecast.min("trajectory"), of_forecast.max("trajectory")
        ax.fill_between(metrics.lead_time, low, high, color=colour, alpha=0.15, linewidth=0)
    if bool((errors > 0).any()):
        ax.set_yscale("log")
    unstable = int(metrics.unstable_from.sel(forecast="model").notnull().sum())
    note = f"; {unstable} of {metrics.sizes['trajectory']} rollouts unstable" if unstable else ""
    ax.set(xlabel="lead time", ylabel=metric.upper(), title=f"{metrics.attrs['dataset']}{note}")
    ax.legend()
    return figure


def plot_ensemble(metrics: xr.Dataset) -> Figure:
    """What the ensembles of a data set are worth over lead time, in standard deviations of each field: spread and skill
    on the left, which are equal where an ensemble knows its own error; on the right the CRPS, which of a single
    forecast is its mean absolute error.

    Lines are means over fields and trajectories (root mean squares of spread and skill), and end where a first
    trajectory is no longer finite.
    """
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    std = metrics.field_std.where(np.isfinite(metrics.field_std))
    over = ("trajectory", "field")
    colours = _coloured(metrics)
    for name, colour in colours.items():
        if name not in NAIVE:
            for key, style in (("spread", "--"), ("skill", "-")):
                values = normalised(metrics, key).sel(forecast=name)
                label = key if name == "model" else f"{key}, {name}"
                left.plot(
                    metrics.lead_time, _mean_while_finite(values**2, over) ** 0.5, style, color=colour, label=label
                )
        values = normalised(metrics, "crps").sel(forecast=name)
        label = f"{name}, mean absolute error" if name in NAIVE else name
        right.plot(metrics.lead_time, _mean_while_finite(values, over), color=colour, label=label)
    control = metrics.rollout.sel(forecast="model", metric="mae") / std
    label = "model's control, mean absolute error"
    right.plot(metrics.lead_time, _mean_while_finite(control, over), ":", color=colours["model"], label=label)
    members = metrics.crps.attrs["members"]
    left.set(xlabel="lead time", ylabel="spread, skill / std", title=f"{metrics.attrs['dataset']}, {members} members")
    right.set(xlabel="lead time", ylabel="CRPS / std")
    for ax in (left, right):
        ax.set_ylim(bottom=0)
        ax.legend(fontsize="small")
    return figure


def _coloured(metrics: xr.Dataset) -> dict[str, str]:
    """Each forecast and its colour."""
    further = cycle(_FURTHER)
    return {str(name): _COLOURS.get(str(name)) or next(further) for name in metrics.forecast.values}


def _mean_while_finite(values: xr.DataArray, over: tuple[str, ...]) -> xr.DataArray:
    lost = xr.apply_ufunc(np.isinf, values)
    return values.where(~lost.any(over)).mean(over)


def plot_overview(summaries: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Ratio of the model's VRMSE to the better naive forecast's per data set, one step ahead and over rollouts."""
    names = list(summaries)
    figure = Figure(figsize=(1.5 + 0.9 * len(names), 3.8), layout="constrained")
    ax = figure.subplots()
    position = np.arange(len(names))
    for offset, ahead, colour in ((-0.2, "one_step", "#0072B2"), (0.2, "rollout", "#56B4E9")):
        ratios = [summaries[name][f"{ahead}_ratio"] for name in names]
        heights = [np.nan if ratio is None else ratio for ratio in ratios]
        ax.bar(position + offset, heights, 0.38, label=ahead.replace("_", " "), color=colour)
    ax.axhline(1, color="black", linewidth=0.8, linestyle="--")
    ax.set_xticks(position, names, rotation=30, ha="right")
    ax.set_ylabel("VRMSE / better naive forecast")
    ax.legend()
    return figure
