"""Results as a person reads them."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

__all__ = ["error_table"]


def error_table(summaries: Mapping[str, Mapping[str, Any]], metric: str) -> Table:
    """Errors one step ahead and over whole rollouts, against persistence and linear extrapolation.

    Args:
        summaries: By data set, see `morph.scoring.summarise`.
        metric: "vrmse" or "nrmse".
    """
    table = Table(title=f"{metric.upper()} (mean over fields; below the naive forecasts is better than doing nothing)")
    table.add_column("data set")
    for ahead in ("one step", "rollout"):
        for name in ("model", "persistence", "extrapolation", "model / better"):
            table.add_column(f"{ahead}\n{name}", justify="right")
    table.add_column("unstable\nrollouts", justify="right")
    for dataset, numbers in summaries.items():
        cells = []
        for model, infix in ((f"one_step_{metric}", ""), (f"rollout_{metric}", "rollout_")):
            naive = [numbers[f"{name}_{infix}{metric}"] for name in ("persistence", "extrapolation")]
            cells += [_number(numbers[model]), *map(_number, naive), _ratio(numbers[model], naive)]
        unstable = f"{numbers['unstable']} of {numbers['trajectories']}"
        zero_shot = " (zero-shot)" if numbers["zero_shot"] else ""
        table.add_row(dataset + zero_shot, *cells, f"[red]{unstable}[/red]" if numbers["unstable"] else unstable)
    return table


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}" if value < 100 else f"{value:.3g}"


def _ratio(value: float | None, naive: list[float | None]) -> str:
    finite = [n for n in naive if n is not None]
    if value is None or not finite or min(finite) == 0:
        return "[red]–[/red]"
    ratio = value / min(finite)
    return f"[{'green' if ratio < 1 else 'red'}]{ratio:.3f}[/]"
