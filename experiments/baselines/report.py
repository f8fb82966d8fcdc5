"""Tables and the figure of the results of `experiments.baselines.run`."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from data_adapters.suite.systems import SYSTEMS
from experiments.baselines import results
from experiments.baselines.results import NAIVE, WINDOWS
from morph.metrics.aggregate import average_rank, geometric_mean, interval
from morph.provenance import write_whole

matplotlib.use("Agg")

__all__ = ["Errors", "best_rates", "errors_of", "figure", "lacking", "losses", "overall", "rates_table", "write"]

Errors = dict[str, dict[str, list[float]]]
"""Of one budget and window: forecast -> system -> VRMSE of each seed; a naive forecast has one."""

BUDGETS = {
    "steps": "Matched steps: as many training steps on each system",
    "time": "Matched time: as many seconds of training on each system",
}
STYLE = {
    "fno": ("#1f77b4", "FNO"),
    "unet": ("#2ca02c", "U-Net"),
    "nano": ("#d62728", "MORPH, one system"),
    "mix": ("#9467bd", "MORPH, all ten"),
    "persistence": ("black", "persistence"),
    "extrapolation": ("#7f7f7f", "linear extrapolation"),
}
SHOWN = ("one_step", "6:12", "13:30")
TITLE = {
    "one_step": "one step",
    "6:12": "steps 6 to 12",
    "13:30": "steps 13 to 30, or the end",
    "rollout": "whole rollout",
}
RESAMPLED = 2000


def write(out: Path) -> None:
    """results.csv and results_rates.csv of all processes together, results.md, and results.png."""
    rows, swept = results.read(out), results.read(out, "results_rates")
    rows.sort(
        key=lambda row: (row["seed"], list(STYLE).index(row["model"]), SYSTEMS.index(row["system"]), row["matched"])
    )
    write_whole(out / "results.csv", results.as_csv(rows, results.FIELDS))
    rates = {row["model"]: f"{STYLE[row['model']][1]} {row['lr']:g}" for row in rows}
    seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in rows}))
    lines = [f"Seeds {seeds}; learning rates: {'; '.join(rates.values())}.", ""]
    for budget, title in BUDGETS.items():
        lines += [f"## {title}", "", *_overall_table(rows, budget), *_systems_tables(rows, budget)]
    lines += ["## Where MORPH loses", "", *_losses_list(rows)]
    if swept:
        lines += ["## Learning rates", "", rates_table(swept)]
        write_whole(out / "results_rates.csv", results.as_csv(swept, results.FIELDS))
    write_whole(out / "results.md", "\n".join(lines).rstrip() + "\n")
    picture = io.BytesIO()
    figure(rows).savefig(picture, format="png", dpi=100, bbox_inches="tight")
    write_whole(out / "results.png", picture.getvalue())


def errors_of(rows: Iterable[Mapping[str, Any]], budget: str, window: str) -> Errors:
    """Errors of a budget; systems whose rollouts do not reach the window are left out."""
    found: Errors = {}
    for row in rows:
        if row["matched"] not in (budget, "both") or np.isnan(row[f"persistence_{window}"]):
            continue
        found.setdefault(row["model"], {}).setdefault(row["system"], []).append(row[window])
        for name in NAIVE:
            found.setdefault(name, {})[row["system"]] = [row[f"{name}_{window}"]]
    return found


def overall(errors: Errors) -> dict[str, dict[str, Any]]:
    """Scores of each forecast over all systems; of those that lack one there are none, see `lacking`.

    ratio: geometric mean over systems and seeds of the VRMSE over persistence's, 1 for persistence itself.
    low, high: 95 % of that mean where systems are drawn anew, with repetition, and in each of them its seeds: both the
        choice of systems and that of seeds count.
    rank: among the forecasts by the mean over seeds, 1 is the best, equal ones share theirs; mean over systems.
    better: systems on which the mean over seeds is below the better of the naive forecasts.
    """
    systems = list(errors["persistence"])
    complete = {name: of for name, of in errors.items() if set(of) == set(systems)}
    means = {name: np.array([np.mean(of[system]) for system in systems]) for name, of in complete.items()}
    ranks = dict(zip(means, average_rank(np.stack(list(means.values()), -1)), strict=True))
    naive = np.minimum(means["persistence"], means["extrapolation"])
    scores = {}
    for name, of in complete.items():
        ratios = [np.array(of[system]) / errors["persistence"][system][0] for system in systems]
        low, high = _interval(ratios)
        scores[name] = {
            "ratio": _mean(np.concatenate(ratios)), "low": low, "high": high, "rank": ranks[name],
            "better": int((means[name] < naive).sum()), "systems": len(systems),
        }  # fmt: skip
    return scores


def lacking(rows: Sequence[Mapping[str, Any]], budget: str) -> dict[str, list[str]]:
    """Forecasts without a score over all systems in a window that is shown, and what they lack."""
    found: dict[str, dict[str, None]] = {}
    for window in SHOWN:
        errors = errors_of(rows, budget, window)
        for name in STYLE:
            if name not in NAIVE and any(row["model"] == name for row in rows):
                gone = [system for system in errors.get("persistence", {}) if system not in errors.get(name, {})]
                if gone:
                    found.setdefault(name, {}).update(dict.fromkeys(gone))
    return {name: sorted(systems, key=SYSTEMS.index) for name, systems in found.items()}


def _mean(ratios: np.ndarray) -> float:
    return float(geometric_mean(ratios[None])[0])


def _interval(ratios: Sequence[np.ndarray]) -> tuple[float, float]:
    counts = np.array([len(values) for values in ratios])
    table = np.stack([np.resize(values, counts.max()) for values in ratios])
    rng = np.random.default_rng(0)
    systems = rng.integers(len(ratios), size=(RESAMPLED, len(ratios), 1))
    seeds = (rng.random((RESAMPLED, len(ratios), counts.max())) * counts[systems]).astype(int)
    return interval(geometric_mean(table[systems, seeds].reshape(RESAMPLED, -1)))


def losses(rows: Sequence[Mapping[str, Any]], budget: str, window: str, morph: str) -> dict[str, dict[str, float]]:
    """fno, unet, naive (the better of the two) -> systems on which its mean over seeds is below that of nano or mix,
    and their ratio."""
    means = {
        name: {system: float(np.mean(values)) for system, values in of.items()}
        for name, of in errors_of(rows, budget, window).items()
    }
    if morph not in means:
        return {}
    means["naive"] = {system: min(means[name][system] for name in NAIVE) for system in means["persistence"]}
    return {
        other: {
            system: error / means[morph][system]
            for system, error in means[other].items()
            if system in means[morph] and error < means[morph][system]
        }
        for other in ("fno", "unet", "naive")
        if other in means
    }


def _overall_table(rows: Sequence[Mapping[str, Any]], budget: str) -> list[str]:
    scores = {window: overall(errors) for window in SHOWN if (errors := errors_of(rows, budget, window))}
    lines = [
        "VRMSE over persistence's, geometric mean over systems and seeds [95 % interval]; rank among the forecasts,",
        "mean over systems and these three columns; systems on which the forecast is better than both naive ones, in",
        "each.  Ranges over systems: steps and seconds of a training, parameters, GFLOP and ms of a forecast of one",
        "sample.", "",
        "| forecast | " + " | ".join(TITLE[window] for window in scores)
        + " | rank | better than naive | unstable | steps | parameters | GFLOP | training s | forecast ms |",
        "|---" * (len(scores) + 9) + "|",
    ]  # fmt: skip
    for name, (_, label) in STYLE.items():
        found = {window: of[name] for window, of in scores.items() if name in of}
        if not found:
            continue
        ratios = [
            f"{of['ratio']:.3g} [{of['low']:.3g}, {of['high']:.3g}]" if (of := found.get(window)) else ""
            for window in scores
        ]
        rank = f"{np.mean([of['rank'] for of in found.values()]):.2f}"
        better = ", ".join(f"{of['better']} of {of['systems']}" for of in found.values())
        lines.append(f"| {label} | " + " | ".join([*ratios, rank, better, *_costs(rows, budget, name)]) + " |")
    if gone := [f"{STYLE[name][1]} ({', '.join(systems)})" for name, systems in lacking(rows, budget).items()]:
        lines += ["", f"Without a place above, since they lack systems: {', '.join(gone)}."]
    return [*lines, ""]


def _costs(rows: Sequence[Mapping[str, Any]], budget: str, name: str) -> list[str]:
    mine = [row for row in rows if row["model"] == name and row["matched"] in (budget, "both")]
    if not mine:
        return [""] * 6
    lost = np.array([[int(part) for part in row["unstable"].split("/")] for row in mine]).sum(0)
    whole = " for all" if name == "mix" else ""
    return [
        f"{lost[0]} of {lost[1]}",
        _range([row["steps"] for row in mine]) + whole,
        _range([row["parameters"] / 1e6 for row in mine]) + " M",
        _range([row["gflop"] for row in mine]),
        _range([row["train_s"] for row in mine]) + whole,
        _range([row["inference_ms"] for row in mine]),
    ]


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"


def _systems_tables(rows: Sequence[Mapping[str, Any]], budget: str) -> list[str]:
    lines = []
    for window in WINDOWS:
        errors = errors_of(rows, budget, window)
        names = [name for name in STYLE if name in errors]
        if not names:
            continue
        lines += [f"**VRMSE, {TITLE[window]}**, mean over seeds ± half their range", ""]
        lines += ["| system | " + " | ".join(STYLE[name][1] for name in names) + " |", "|---" * (len(names) + 1) + "|"]
        for system in errors["persistence"]:
            cells = [_spread(errors[name].get(system)) for name in names]
            lines.append(f"| {system} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def _spread(values: list[float] | None) -> str:
    if not values:
        return ""
    if not np.isfinite(values).all():
        return "infinite"
    half = f" ± {(max(values) - min(values)) / 2:.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{half}"


def _losses_list(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for budget in BUDGETS:
        for morph in ("nano", "mix"):
            for window in SHOWN:
                for other, systems in losses(rows, budget, window, morph).items():
                    named = [f"{name} ({systems[name]:.2f})" for name in sorted(systems, key=systems.__getitem__)]
                    label = "the better naive forecast" if other == "naive" else STYLE[other][1]
                    if named:
                        lines.append(
                            f"- Matched {budget}, {TITLE[window]}: {label} is better than {STYLE[morph][1]} on "
                            f"{len(named)}: {', '.join(named)}."
                        )
    if not lines:
        return ["Nowhere.", ""]
    return ["In brackets: its VRMSE, mean over seeds, over that of MORPH.", "", *lines, ""]


def figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Every run as a dot, VRMSE over persistence's, by system."""
    drawn = Figure(figsize=(11, 7))
    for down, budget in enumerate(BUDGETS):
        for across, window in enumerate(("one_step", "6:12")):
            axes = drawn.add_subplot(2, 2, 2 * down + across + 1)
            errors = errors_of(rows, budget, window)
            systems = [name for name in SYSTEMS if name in errors.get("persistence", {})]
            models = [name for name in STYLE if name in errors and name != "persistence"]
            for number, name in enumerate(models):
                colour, label = STYLE[name]
                offset = 0.7 * ((number + 0.5) / len(models) - 0.5)
                dots = [
                    (place + offset, value / errors["persistence"][system][0])
                    for place, system in enumerate(systems)
                    for value in errors[name].get(system, ())
                ]
                x, y = np.array(dots).T
                axes.plot(x, y, "_" if name == "extrapolation" else "o", color=colour, ms=4, label=label, alpha=0.8)
            axes.axhline(1, color="black", lw=1, ls="--", label=STYLE["persistence"][1])
            axes.set(yscale="log", title=f"{TITLE[window]}, matched {budget}", xlim=(-0.5, len(systems) - 0.5))
            axes.yaxis.set_major_formatter(_plain)
            axes.yaxis.set_minor_formatter(_plain)
            axes.tick_params(axis="y", which="both", labelsize=8)
            axes.set_xticks(range(len(systems)), systems, rotation=30, ha="right", fontsize=8)
            for place in range(1, len(systems)):
                axes.axvline(place - 0.5, color="#dddddd", lw=0.5)
            if across == 0:
                axes.set_ylabel("VRMSE over persistence's")
    drawn.tight_layout()
    handles, labels = drawn.axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, ncols=len(labels), loc="upper center", bbox_to_anchor=(0.5, 0), fontsize=8)
    return drawn


def _plain(value: float, _: int | None = None) -> str:
    return f"{value:.3g}"


def best_rates(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[float, float]]:
    """model -> learning rate -> one-step VRMSE over persistence's, geometric mean over systems; the best rate first."""
    found: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        ratio = row["one_step"] / row["persistence_one_step"]
        found.setdefault(row["model"], {}).setdefault(row["lr"], []).append(ratio)
    means = {model: {lr: _mean(np.array(of)) for lr, of in rates.items()} for model, rates in found.items()}
    return {model: dict(sorted(rates.items(), key=lambda pair: pair[1])) for model, rates in means.items()}


def rates_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The sweep of learning rates."""
    best = best_rates(rows)
    rates = sorted({row["lr"] for row in rows})
    systems = ", ".join(dict.fromkeys(row["system"] for row in rows))
    lines = [
        f"One-step VRMSE over persistence's, geometric mean over {systems}, validation split, seed 0, "
        f"{rows[0]['steps']} steps.", "",
        "| model | " + " | ".join(f"{lr:g}" for lr in rates) + " | best |", "|---" * (len(rates) + 2) + "|",
    ]  # fmt: skip
    for model, of in best.items():
        cells = [f"{of[lr]:.3f}" if lr in of else "" for lr in rates]
        lines.append(f"| {STYLE[model][1].split(',')[0]} | " + " | ".join(cells) + f" | {next(iter(of)):g} |")
    return "\n".join([*lines, ""])
