"""The numbers of all data sets as the page's tables and sentences show them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from morph.baselines import NAIVE
from morph.scoring import Scores
from morph.summary import valid_median

__all__ = ["Cell", "Group", "Row", "Verdict", "number", "ratios", "summary_table", "verdicts", "windows_table"]

_AHEAD = {"one_step": "One step ahead", "rollout": "Rollout, mean over lead times"}


class Cell(NamedTuple):
    """mark: best (of its group), wins or loses (a ratio), lost (rollouts), or nothing."""

    text: str
    mark: str = ""


class Group(NamedTuple):
    """Columns under one title; each with the forecast that it belongs to, or none."""

    title: str
    columns: list[tuple[str, str]]


class Row(NamedTuple):
    """Cells of a data set."""

    name: str
    zero_shot: bool
    cells: list[Cell]


class Verdict(NamedTuple):
    """What a model is worth, in a sentence."""

    forecast: str
    text: str


def number(value: float | None, digits: int = 3) -> str:
    """Three digits that count; powers of ten where a plain number would be long."""
    if value is None or not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 10**5:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}")))))
        return f"{value:,.{decimals}f}".replace(",", "\u202f").replace("-", "−")
    mantissa, exponent = f"{value:.{digits - 2}e}".split("e")
    power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa.replace('-', '−')}·10{power}"


def forecasts(numbers: Mapping[str, Any]) -> list[str]:
    """The model, compared checkpoints, and the naive forecasts, in the order of the page."""
    naive = [name for name in NAIVE if f"{name}_vrmse" in numbers]
    return ["model", *numbers["compared"], *naive]


def vrmse(numbers: Mapping[str, Any], name: str, ahead: str) -> float | None:
    """Of a forecast in a summary, see `morph.summary.summarise`."""
    if name == "model":
        return numbers[f"{ahead}_vrmse"]
    return numbers[f"{name}_{'' if ahead == 'one_step' else 'rollout_'}vrmse"]


def ratios(numbers: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """VRMSE of each model over the better naive forecast's; infinite for a model that is lost, None where the naive
    error is zero or not finite."""
    found = {}
    for name in ("model", *numbers["compared"]):
        found[name] = {ahead: _ratio(vrmse(numbers, name, ahead), _best_naive(numbers, ahead)) for ahead in _AHEAD}
    return found


def _best_naive(numbers: Mapping[str, Any], ahead: str) -> float | None:
    values = [vrmse(numbers, name, ahead) for name in forecasts(numbers) if name in NAIVE]
    return min((value for value in values if value is not None), default=None)


def _ratio(value: float | None, reference: float | None) -> float | None:
    if not reference:
        return None
    return math.inf if value is None else value / reference


def _wins(ratio: float | None) -> bool:
    return ratio is not None and ratio < 1


def verdicts(
    summaries: Mapping[str, Mapping[str, Any]], overall: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> list[Verdict]:
    """A sentence for each model: on how many data sets it beats what costs nothing, and by how much.

    Args:
        summaries: By data set, see `morph.summary.summarise`.
        overall: By window and forecast: `ratio_to_persistence`, a geometric mean with its interval, and `average_rank`.
    """
    found = []
    every = [ratios(numbers) for numbers in summaries.values()]
    sets = f"of {len(every)} data set{'' if len(every) == 1 else 's'}"
    for name in every[0] if every else []:
        wins = {ahead: sum(_wins(one[name][ahead]) for one in every) for ahead in _AHEAD}
        text = (
            f"better than the better naive forecast one step ahead on {wins['one_step']} {sets}, "
            f"over rollouts on {wins['rollout']}"
        )
        means = []
        for window, said in (("one_step", "one step ahead"), ("rollout", "over rollouts")):
            mean = overall.get(window, {}).get(name, {}).get("ratio_to_persistence", {}).get("mean")
            if mean is not None:
                means.append(f"{number(mean)} {said}")
        if means:
            text += f"; geometric mean of VRMSE over persistence {', '.join(means)}"
        found.append(Verdict(name, f"{text}."))
    return found


def summary_table(
    summaries: Mapping[str, Mapping[str, Any]], scores: Mapping[str, Scores]
) -> tuple[list[Group], list[Row]]:
    """VRMSE of all forecasts, ratios to the better naive one, valid times and unstable rollouts of all data sets."""
    if not summaries:
        return [], []
    first = next(iter(summaries.values()))
    names, models = forecasts(first), ["model", *first["compared"]]
    over = [(f"{name} / naive", name) for name in models]
    groups = [Group(f"{title}: VRMSE", [(name, name) for name in names] + over) for title in _AHEAD.values()]
    groups.append(Group("Median valid time", [(name, name) for name in names] + [("of", "")]))
    groups.append(Group("Unstable", [(name, name) for name in models]))
    rows = []
    for dataset, numbers in summaries.items():
        cells = []
        for ahead in _AHEAD:
            cells += _best(names, {name: vrmse(numbers, name, ahead) for name in names})
            cells += [ratio_cell(one[ahead]) for one in ratios(numbers).values()]
        cells += _valid(numbers, names)
        unstable = scores[dataset].metrics.unstable_from.notnull().sum("trajectory")
        total = numbers["trajectories"]
        for name in models:
            count = int(unstable.sel(forecast=name))
            cells.append(Cell(f"{count} of {total}", "lost" if count else ""))
        rows.append(Row(dataset, numbers["zero_shot"], cells))
    return groups, rows


def ratio_cell(ratio: float | None) -> Cell:
    """Marked by what it means, which is nothing where it is not defined."""
    return Cell("undefined") if ratio is None else Cell(number(ratio), "wins" if _wins(ratio) else "loses")


def _best(names: Sequence[str], values: Mapping[str, float | None]) -> list[Cell]:
    lowest = min((value for value in values.values() if value is not None), default=None)
    return [Cell(number(values[name]), "best" if values[name] == lowest is not None else "") for name in names]


def _valid(numbers: Mapping[str, Any], names: Sequence[str]) -> list[Cell]:
    found = {name: valid_median(numbers, name) for name in names}
    longest = max(value for value, _ in found.values())
    cells = []
    for value, bound in found.values():
        text = "–" if value < 0 else ("≥ " if bound else "") + number(value)
        cells.append(Cell(text, "best" if value == longest > 0 else ""))
    return [*cells, Cell(number(numbers["rollout_length"]))]


def windows_table(numbers: Mapping[str, Any], metric: str = "vrmse") -> tuple[list[str], list[tuple[str, list[Cell]]]]:
    """Windows of lead time, and of each forecast its mean error with the interval in each; empty where they are not
    known."""
    windows: Mapping[str, Mapping[str, Any]] = numbers.get("windows", {})
    rows = []
    for name in forecasts(numbers) if windows else []:
        cells = []
        for of_window in windows.values():
            found = of_window[name][metric]
            means = [one[metric]["mean"] for one in of_window.values()]
            lowest = min((mean for mean in means if mean is not None), default=None)
            text = number(found["mean"])
            if found.get("low") is not None and found.get("high") is not None:
                text += f" ({number(found['low'])} to {number(found['high'])})"
            cells.append(Cell(text, "best" if found["mean"] == lowest is not None else ""))
        rows.append((name, cells))
    return list(windows), rows
