"""Tables and figures of the results of `experiments.transfer.run`."""

import csv
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

matplotlib.use("Agg")

STYLE = {
    "scratch": ("#7f7f7f", "from scratch"),
    "lora": ("#1f77b4", "LoRA (level 1)"),
    "lora_encoder": ("#17becf", "+ encoder (level 2)"),
    "lora_encoder_decoder": ("#2ca02c", "+ decoder (level 3)"),
    "full": ("#d62728", "everything (level 4)"),
    "decoder": ("#9467bd", "new decoder, frozen rest"),
}
AHEAD = {"one_step": "one step ahead", "rollout": "mean over 10 steps"}


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a results file, none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    for row in rows:
        row["trajectories"], row["seed"] = int(row["trajectories"]), int(row["seed"])
        for name in (*AHEAD, "persistence", "persistence_rollout", "extrapolation", "extrapolation_rollout", "seconds"):
            row[name] = float(row[name] or "inf")
    return rows


def naive(row: Mapping[str, Any], ahead: str) -> float:
    """Error of the better of persistence and linear extrapolation."""
    suffix = "" if ahead == "one_step" else "_rollout"
    return float(min(row[f"persistence{suffix}"], row[f"extrapolation{suffix}"]))


def means(rows: list[dict[str, Any]], ahead: str) -> dict[tuple[str, str, int], tuple[float, float]]:
    """Mean and standard deviation over seeds by (system, method, trajectories)."""
    found = defaultdict(list)
    for row in rows:
        found[row["system"], row["method"], row["trajectories"]].append(row[ahead])
    return {key: (float(np.mean(values)), float(np.std(values))) for key, values in found.items()}


def scores(error: float, zero_shot: float, reference: float, naive_error: float) -> dict[str, float]:
    """Gap closure (zero-shot - error) / (zero-shot - reference), 1 where the reference is reached; optimality ratio
    reference / error; gain over naive 1 - error / naive.  The reference is the lowest error of any method at the most
    trajectories."""
    return {
        "gap closure": (zero_shot - error) / (zero_shot - reference) if zero_shot > reference else float("nan"),
        "optimality ratio": reference / error,
        "gain over naive": 1 - error / naive_error,
    }


def write(out: Path, options: Mapping[str, Any]) -> None:
    """results.md, and a figure of each system."""
    rows = read(out / "results.csv")
    systems = [system for system in options["systems"] if any(row["system"] == system for row in rows)]
    lines = []
    for ahead, title in AHEAD.items():
        average = means(rows, ahead)
        lines += [f"## VRMSE {title}, mean ± standard deviation over seeds", ""]
        for system in systems:
            lines += _table(system, rows, average, ahead)
    for ahead, title in AHEAD.items():
        lines += _wins(systems, means(rows, ahead), title)
    (out / "results.md").write_text("\n".join(lines).rstrip() + "\n")
    for system in systems:
        _figure(system, rows).savefig(out / f"{system}.png", dpi=120, bbox_inches="tight")


def _table(
    system: str, rows: list[dict[str, Any]], average: Mapping[Any, tuple[float, float]], ahead: str
) -> list[str]:
    some = next(row for row in rows if row["system"] == system)
    counts = sorted({count for name, _, count in average if name == system and count})
    methods = [method for method in STYLE if any(key[:2] == (system, method) for key in average)]
    zero = average[system, "zero-shot", 0][0]
    floor = naive(some, ahead)
    reference = min(average[system, m, counts[-1]][0] for m in methods if (system, m, counts[-1]) in average)
    lines = [
        f"**{system}**: zero-shot {zero:.4f}, better naive forecast {floor:.4f}", "",
        "| method | " + " | ".join(f"{count} trajectories" for count in counts)
        + f" | at {counts[min(1, len(counts) - 1)]}: gap closure | optimality ratio | gain over naive |",
        "|---" * (len(counts) + 4) + "|",
    ]  # fmt: skip
    for method in methods:
        cells = [average.get((system, method, count)) for count in counts]
        shown = [f"{cell[0]:.4f} ± {cell[1]:.4f}" if cell else "" for cell in cells]
        at = cells[min(1, len(counts) - 1)]
        few = [f"{value:.2f}" for value in scores(at[0], zero, reference, floor).values()] if at else [""] * 3
        lines.append(f"| {STYLE[method][1]} | " + " | ".join(shown + few) + " |")
    return [*lines, ""]


def _wins(systems: list[str], average: Mapping[Any, tuple[float, float]], title: str) -> list[str]:
    counts = sorted({key[2] for key in average if key[2]})
    methods = [m for m in STYLE if m != "scratch" and any(key[1] == m for key in average)]
    lines = [f"## Error over that of training from scratch, {title}", ""]
    lines += ["| trajectories | " + " | ".join(STYLE[m][1] for m in methods) + " |", "|---" * (len(methods) + 1) + "|"]
    for count in counts:
        cells = []
        for method in methods:
            pairs = [(average.get((s, method, count)), average.get((s, "scratch", count))) for s in systems]
            ratios = [f"{a[0] / b[0]:.2f}" for a, b in pairs if a and b]
            better = sum(a[0] < b[0] for a, b in pairs if a and b)
            cells.append(f"{' '.join(ratios)} ({better} of {len(ratios)} better)" if ratios else "")
        lines.append(f"| {count} | " + " | ".join(cells) + " |")
    return [*lines, "", f"Systems in this order: {', '.join(systems)}; a system without that count is left out.", ""]


def _figure(system: str, rows: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(9, 3.6))
    some = next(row for row in rows if row["system"] == system)
    for place, (ahead, title) in enumerate(AHEAD.items(), start=1):
        axes = figure.add_subplot(1, 2, place)
        average = means(rows, ahead)
        for method, (colour, label) in STYLE.items():
            counts = sorted(count for name, m, count in average if (name, m) == (system, method))
            if counts:
                values = np.array([average[system, method, count] for count in counts])
                axes.errorbar(
                    counts, values[:, 0], values[:, 1], color=colour, label=label, marker="o", ms=4, capsize=2
                )
        axes.axhline(average[system, "zero-shot", 0][0], color="black", ls=":", label="zero-shot")
        axes.axhline(naive(some, ahead), color="black", ls="--", lw=1, label="better naive forecast")
        axes.set(xscale="log", yscale="log", xlabel="trajectories", ylabel="VRMSE", title=f"{system}, {title}")
        axes.set_xticks(counts_of(rows, system), [str(count) for count in counts_of(rows, system)])
        axes.tick_params(axis="x", which="minor", bottom=False)
        axes.yaxis.set_major_formatter(_plain)
        axes.yaxis.set_minor_formatter(_plain)
        axes.tick_params(axis="y", which="both", labelsize=8)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def _plain(value: float, _: int | None = None) -> str:
    return f"{value:.3g}"


def counts_of(rows: list[dict[str, Any]], system: str) -> list[int]:
    """Numbers of trajectories that a system was trained with."""
    return sorted({row["trajectories"] for row in rows if row["system"] == system and row["trajectories"]})
