"""The table of all rows that were run: JSON for programs, Markdown for readers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.recipe import judge
from experiments.recipe.rows import HELD_OUT, MIX, ROWS
from morph.metrics.aggregate import bootstrap_means, geometric_mean, interval
from morph.provenance import write_whole

__all__ = ["line", "read", "short", "write"]

_COLUMNS = ("mix_1", "mix_1_naive", "mix_10", "mix_10_naive", "mix_full", "heldout_1", "heldout_1_naive", "heldout_10",
            "heldout_10_naive", "heldout_full")  # fmt: skip


def read(out: Path) -> list[dict[str, Any]]:
    """All rows and seeds in the order of ROWS; of rows that are there no more, last."""
    found = [json.loads(path.read_text()) for path in sorted((out / "rows").glob("*.json"))]
    order = list(ROWS)
    return sorted(
        found,
        key=lambda each: (order.index(each["row"]) if each["row"] in order else len(order), each["row"], each["seed"]),
    )


def line(found: Mapping[str, Any]) -> str:
    """A row and seed in a line."""
    numbers = "  ".join(f"{name} {short(found[name])}" for name in _COLUMNS)
    return f"{found['row']} seed {found['seed']}: {numbers}  {found['train_seconds']:.0f} s"


def write(out: Path) -> None:
    """table.json and table.md."""
    found = read(out)
    write_whole(out / "table.json", json.dumps(found, indent=1) + "\n")
    lines = [
        "VRMSE over persistence's, and (naive) over that of the better of persistence and linear extrapolation:",
        "geometric mean over systems and seeds.  In brackets its 95 % interval: trajectories and seeds are drawn with",
        "replacement.",
        "",
    ]
    head = ["recipe", *(name.replace("_", " ").replace("heldout", "held-out") for name in _COLUMNS), "training s"]
    lines += _markdown(head, [_row(name, found, out) for name in dict.fromkeys(each["row"] for each in found)])
    lines += [
        "",
        "VRMSE over the better naive forecast's: one step / first ten steps / whole rollouts; mean over seeds.",
        "",
    ]
    systems = (*MIX, *HELD_OUT)
    lines += _markdown(
        ["recipe", *systems], [_of_systems(name, found) for name in dict.fromkeys(e["row"] for e in found)]
    )
    write_whole(out / "table.md", "\n".join(lines) + "\n")


def _row(name: str, found: Sequence[Mapping[str, Any]], out: Path) -> list[str]:
    mine = [each for each in found if each["row"] == name]
    title = ROWS[name].title if name in ROWS else name
    cells = [f"{title} ({len(mine)} seed{'s' if len(mine) > 1 else ''})"]
    for column in _COLUMNS:
        values = [each[column] for each in mine]
        if None in values:
            cells.append("")
            continue
        low, high = _interval(column, mine, out)
        cells.append(f"{short(float(geometric_mean(np.array(values))))} ({short(low)} to {short(high)})")
    return [*cells, f"{np.mean([each['train_seconds'] for each in mine]):.0f}"]


def _interval(column: str, mine: Sequence[Mapping[str, Any]], out: Path) -> tuple[float, float]:
    """Over draws of trajectories, or windows, of each system, the same ones for all forecasts, and of seeds."""
    group, label, *naive = column.split("_")
    window, members = judge.WINDOWS[label], MIX if group == "mix" else HELD_OUT
    draws = []
    for each in mine:
        ratios = []
        for number, system in enumerate(members):
            kept = judge.errors(out / "rows" / f"{each['row']}-{each['seed']}.nc", system)
            assert kept is not None, "a row with a number has its errors"
            if window == "one_step":
                errors = kept.one_step.transpose("forecast", ...)
            else:
                errors = kept.rollout.isel(lead_time=slice(*window)).mean("lead_time").transpose("forecast", ...)
            means = dict(zip(kept.forecast.values, bootstrap_means(errors.values, seed=number), strict=True))
            naives = judge.NAIVE if naive else judge.NAIVE[:1]
            ratios.append(means["model"] / np.minimum.reduce([means[other] for other in naives]))
        draws.append(geometric_mean(np.stack(ratios, -1)))
    table = np.log(np.stack(draws))
    drawn = np.random.default_rng(0).integers(len(table), size=(len(table), table.shape[1]))
    return interval(np.exp(np.take_along_axis(table, drawn, 0).mean(0)))


def _of_systems(name: str, found: Sequence[Mapping[str, Any]]) -> list[str]:
    mine = [each["systems"] for each in found if each["row"] == name]
    cells = [ROWS[name].title if name in ROWS else name]
    for system in (*MIX, *HELD_OUT):
        if not all(system in each for each in mine):
            cells.append("")
            continue
        ratios = [
            np.mean([e[system][f"model_{w}"] / min(e[system][f"{a}_{w}"] for a in judge.NAIVE) for e in mine])
            for w in judge.WINDOWS
        ]
        lost = sum(each[system]["unstable"] for each in mine)
        mark = f" [{lost}/{sum(each[system]['trajectories'] for each in mine)} lost]" if lost else ""
        cells.append(" / ".join(short(ratio) for ratio in ratios) + mark)
    return cells


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def short(value: float | None) -> str:
    """Three digits; a dash where there is none."""
    if value is None or not np.isfinite(value):
        return "-" if value is None else "inf"
    return f"{value:.3f}".removeprefix("0") if value < 1 else f"{value:.3g}"
