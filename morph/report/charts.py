"""Charts of one data set: error, spectra, means and divergence over lead time; and of all, the ratios."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from morph.baselines import NAIVE
from morph.metrics.aggregate import bootstrap_means, interval
from morph.report.colours import AXES, INK, RULES, Line, replacements
from morph.report.svg import drawing, inline, log_axis, more_ticks

__all__ = ["Chart", "charts", "ratio_chart"]

_WIDTH = 3.9  # inches of 72 units each: text keeps its size on a phone
_SOLENOIDAL = 0.05
"""Of a true vector field, the relative divergence below which it is meant to vanish."""

_MARKERS = "osD^vP"


class Chart(NamedTuple):
    """A drawn chart; note: how to read it, in a line."""

    title: str
    svg: Markup
    note: str


def charts(metrics: xr.Dataset, lines: Mapping[str, Line], key: str) -> list[Chart]:
    """Those that the metrics hold the numbers of.

    Args:
        metrics: See `morph.scoring.Scores`.
        lines: How each forecast is drawn.
        key: Of the data set in the page.
    """
    name = metrics.attrs["dataset"]
    colours = replacements(dict(lines))
    judged = [forecast for forecast in lines if forecast not in NAIVE]
    made = []
    with drawing():
        figure = _error(metrics, lines)
        made.append(
            Chart(
                "Error over lead time",
                inline(figure, f"{key}-error", f"VRMSE of every forecast of {name} over lead time", colours),
                _band(metrics.sizes["trajectory"]),
            )
        )
        if "energy_spectrum" in metrics:
            for number, field in enumerate(metrics.field.values):
                if not bool(np.isfinite(metrics.energy_spectrum.sel(source="truth", field=field)).any()):
                    continue  # on land there is none
                figure = _spectra(metrics, str(field), lines, judged)
                label = f"Energy spectra of {field} in {name}: truth and forecasts at three lead times"
                note = "Sum over components, mean over trajectories, against the wavenumber in the domain."
                made.append(
                    Chart(f"Energy spectrum, {field}", inline(figure, f"{key}-spectrum{number}", label, colours), note)
                )
        if (vectors := _solenoidal(metrics)) is not None:
            label = f"Relative divergence of vector fields in {name} over lead time: truth and forecasts"
            note = "Root mean square of div u over that of grad u; the truth has next to none."
            figure = _divergence(vectors, lines, judged)
            made.append(Chart("Divergence", inline(figure, f"{key}-divergence", label, colours), note))
        if "spatial_mean" in metrics:
            label = f"Spatial mean of every component of {name} over lead time: truth and forecasts"
            note = "Mean over space and trajectories: level where the equations conserve it."
            made.append(
                Chart("Means over space", inline(_means(metrics, lines, judged), f"{key}-means", label, colours), note)
            )
    return made


def _band(trajectories: int) -> str:
    if trajectories < 2:
        return "VRMSE, mean over fields; one trajectory has no interval."
    return f"VRMSE, mean over fields and {trajectories} trajectories; bands: 95 % bootstrap interval over trajectories."


def _figure(
    height: float,
    rows: int = 1,
    columns: int = 1,
    width: float = _WIDTH,
    left: float = 0.45,
    top: float = 0.22,
    **shared: Any,
) -> tuple[Figure, np.ndarray]:
    """Axes in inches: to let Matplotlib find room for the text takes longer than to draw."""
    figure = Figure(figsize=(width, height))
    across = (width - left - 0.08) / columns
    between = 0.12 if shared.get("sharey") else 0.45
    upwards = (height - 0.42 - top) / rows
    axes = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={
            "left": left / width,
            "right": 1 - 0.08 / width,
            "bottom": 0.42 / height,
            "top": 1 - top / height,
            "wspace": between / across,
            "hspace": 0.3 / upwards,
        },
        **shared,
    )
    return figure, axes


def _line(ax: Axes, x: np.ndarray, y: np.ndarray, line: Line | None, **options: Any) -> None:
    """A forecast's, or the truth's."""
    if line is None:
        ax.plot(x, y, color=INK, **{"linewidth": 2.2, "alpha": 0.55, **options})
        return
    drawn = ax.plot(x, y, color=line.stand_in, **options)
    if line.dashes:
        drawn[0].set_dashes([float(length) / 1.6 for length in line.dashes.split()])


def _error(metrics: xr.Dataset, lines: Mapping[str, Line]) -> Figure:
    figure, ((ax,),) = _figure(2.3, top=0.08)
    lead = metrics.lead_time.values
    errors = metrics.rollout.sel(metric="vrmse").mean("field")
    errors = errors.where(~np.isinf(errors).any("trajectory")).transpose("forecast", "lead_time", "trajectory")
    highest = [0.0]
    for name, line in lines.items():
        values = errors.sel(forecast=name).values
        known = ~np.isnan(values).all(-1)
        if not known.any():
            continue
        mean = np.full(len(lead), np.nan)
        mean[known] = np.nanmean(values[known], -1)
        _line(ax, lead, mean, line, zorder=2 if name in NAIVE else 3)
        if values.shape[-1] > 1:
            low, high = np.transpose([interval(means) for means in bootstrap_means(values)])
            ax.fill_between(lead, low, high, color=line.stand_in, alpha=0.16, linewidth=0)
        if name != "extrapolation":
            highest.append(float(np.nanmax(mean)))
    threshold = metrics.valid_time.attrs.get("threshold") if "valid_time" in metrics else None
    if threshold is not None:
        ax.axhline(threshold, color=AXES, linewidth=0.8, dashes=(2, 3))
    if bool((errors > 0).any()):
        ax.set_yscale("log")
        log_axis(ax.yaxis)
        bottom, top = ax.get_ylim()
        # Extrapolation that runs away would squeeze all else into a line.
        if highest[-1] and top > 4 * max(highest):
            ax.set_ylim(max(bottom, max(highest) * 1e-4), 4 * max(highest))
        more_ticks(ax.yaxis)
    ax.set_xlabel("lead time")
    ax.margins(x=0.01)
    return figure


def _spectra(metrics: xr.Dataset, field: str, lines: Mapping[str, Line], judged: Sequence[str]) -> Figure:
    spectra = metrics.energy_spectrum.sel(field=field)
    times = spectra.spectrum_time.values
    figure, (axes,) = _figure(2.1, 1, len(times), sharex=True, sharey=True)
    wavenumber = spectra.wavenumber.values
    shown = wavenumber > 0
    truth = spectra.sel(source="truth").values[:, shown]
    positive = truth[np.isfinite(truth) & (truth > 0)]
    for ax, time in zip(axes, times, strict=True):
        at = spectra.sel(spectrum_time=time)
        for source in ("truth", *judged):
            if source in spectra.source.values:
                values = at.sel(source=source).values[shown]
                values = np.where(np.isfinite(values) & (values > 0), values, np.nan)
                _line(ax, wavenumber[shown], values, lines.get(source), zorder=2 if source == "truth" else 3)
        ax.set_title(f"{float(time):.3g}", color=AXES)
        ax.set_xscale("log")
        log_axis(ax.xaxis, 4)
        ax.tick_params(labelleft=ax is axes[0])
        if positive.size:
            ax.set_yscale("log")
            # A forecast that has blown up leaves the picture, as does rounding far below the truth.
            ax.set_ylim(max(float(positive.min()), 1e-10 * float(positive.max())) / 5, 20 * float(positive.max()))
            log_axis(ax.yaxis)
    axes[0].set_title(f"lead time {float(times[0]):.3g}", color=AXES)
    figure.supxlabel("wavenumber", color=AXES, fontsize=8.5)
    return figure


def _means(metrics: xr.Dataset, lines: Mapping[str, Line], judged: Sequence[str]) -> Figure:
    means = metrics.spatial_mean.mean("trajectory")
    names = [str(name) for name in means.component.values]
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    figure, axes = _figure(max(2.1, 0.95 * rows + 0.64), rows, columns, sharex=True)
    for ax, name in zip(axes.flat, names, strict=False):
        of_component = means.sel(component=name)
        truth = of_component.sel(source="truth").values
        for source in ("truth", *judged):
            if source in means.source.values:
                values = of_component.sel(source=source).values
                values = np.where(np.isfinite(values), values, np.nan)
                _line(ax, metrics.lead_time.values, values, lines.get(source), zorder=2 if source == "truth" else 3)
        _show_truth(ax, truth, _spread(metrics, name))
        ax.set_title(name)
        ax.locator_params(axis="y", nbins=4)
        ax.margins(x=0.01)
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    figure.supxlabel("lead time", color=AXES, fontsize=8.5)
    return figure


def _spread(metrics: xr.Dataset, component: str) -> float:
    """Standard deviation of the field of a component, or the largest of all where that is not known."""
    std = metrics.field_std.where(np.isfinite(metrics.field_std)).mean("trajectory")
    fields = [str(field) for field in std.field.values if component == field or component.startswith(f"{field}_")]
    return float(std.sel(field=fields[0]) if fields else std.max())


def _show_truth(ax: Axes, truth: np.ndarray, spread: float) -> None:
    """Rounding is not to look like drift, and a forecast that has run away is not to make a line of the truth."""
    finite = truth[np.isfinite(truth)]
    if not finite.size or not np.isfinite(spread):
        return
    bottom, top = ax.get_ylim()
    ax.set_ylim(
        min(max(bottom, finite.min() - 2 * spread), finite.min() - 0.02 * spread),
        max(min(top, finite.max() + 2 * spread), finite.max() + 0.02 * spread),
    )


def _solenoidal(metrics: xr.Dataset) -> xr.DataArray | None:
    """Relative divergence of the vectors that hardly have any in truth."""
    if "relative_divergence" not in metrics:
        return None
    found = metrics.relative_divergence
    truth = found.sel(source="truth").mean(("trajectory", "lead_time"))
    chosen = [name for name in found.vector.values if float(truth.sel(vector=name)) < _SOLENOIDAL]
    return found.sel(vector=chosen) if chosen else None


def _divergence(found: xr.DataArray, lines: Mapping[str, Line], judged: Sequence[str]) -> Figure:
    names = [str(name) for name in found.vector.values]
    figure, (axes,) = _figure(2.1, 1, len(names), sharey=True)
    for ax, name in zip(axes, names, strict=True):
        of_vector = found.sel(vector=name).mean("trajectory")
        for source in ("truth", *judged):
            if source in found.source.values:
                values = of_vector.sel(source=source).values
                values = np.where(np.isfinite(values) & (values > 0), values, np.nan)
                _line(ax, found.lead_time.values, values, lines.get(source))
        ax.set_title(name)
        ax.margins(x=0.01)
        if bool((of_vector > 0).any()):
            ax.set_yscale("log")
            log_axis(ax.yaxis)
            more_ticks(ax.yaxis)
    figure.supxlabel("lead time", color=AXES, fontsize=8.5)
    return figure


def ratio_chart(ratios: Mapping[str, Mapping[str, Mapping[str, float | None]]], lines: Mapping[str, Line]) -> Markup:
    """VRMSE over the better naive forecast's, a row for each data set; filled: one step ahead, open: rollouts.

    Args:
        ratios: By data set, model, and "one_step" or "rollout", see `morph.report.skill.ratios`.
        lines: How each forecast is drawn.
    """
    with drawing():
        figure, ((ax,),) = _figure(0.7 + 0.21 * max(len(ratios), 2), width=4.4, left=0.95, top=0.05)
        for row, of_dataset in enumerate(ratios.values()):
            for number, (model, of_model) in enumerate(of_dataset.items()):
                place = row + (number - (len(of_dataset) - 1) / 2) * 0.7 / max(len(of_dataset), 2)
                for ahead, ratio in of_model.items():
                    if ratio and np.isfinite(ratio):  # the axis is logarithmic
                        line = lines[model]
                        ax.plot(
                            ratio, place, _MARKERS[number % len(_MARKERS)], color=line.stand_in, markersize=5.5,
                            markerfacecolor=line.stand_in if ahead == "one_step" else "none", markeredgewidth=1.3,
                        )  # fmt: skip
        ax.set_xscale("log")
        low, high = ax.get_xlim()
        ax.set_xlim(min(low, 0.5), max(high, 2))
        log_axis(ax.xaxis)
        more_ticks(ax.xaxis)
        ax.axvline(1, color=INK, linewidth=1)
        ax.set_yticks(range(len(ratios)), [_short(name) for name in ratios])
        ax.tick_params(axis="y", labelcolor=INK)
        ax.set_ylim(len(ratios) - 0.4, -0.6)
        ax.grid(axis="y", color=RULES)
        ax.set_xlabel("← better\u2003\u2003VRMSE / better naive forecast\u2003\u2003worse →")
        label = "Ratio of each model's VRMSE to the better naive forecast's on every data set, as in the table"
        return inline(figure, "ratios", label, replacements(dict(lines)))


def _short(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:15]}…"
