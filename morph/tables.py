"""Results as a person reads them."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

__all__ = ["error_table"]


def error_table(summaries: Mapping[str, Mapping[str, Any]], ahead: str) -> Table:
    """Errors of the model, of persistence and of linear extrapolation, and ratios of the model's to theirs.

    Args:
        summaries: By data set, see `morph.scoring.summarise`.
        ahead: "one_step", or "rollout" for the mean over all lead times.
    """
    rollout = ahead == "rollout"
    what = "Rollout, mean over lead times" if rollout else "One step ahead"
    table = Table(
        title=f"{what} (/persist, /better: VRMSE over persistence's, over the better's)",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("data set", no_wrap=True)
    for metric in ("VRMSE", "NRMSE"):
        for name in (metric, "persist", "extrap"):
            table.add_column(name, justify="right")
        if metric == "VRMSE":
            if not rollout:
                table.add_column("/persist", justify="right")
            table.add_column("/better", justify="right")
    if rollout:
        table.add_column("unstable", justify="right", no_wrap=True)
    infix = "rollout_" if rollout else ""
    for dataset, numbers in summaries.items():
        cells = []
        for metric in ("vrmse", "nrmse"):
            keys = (f"{ahead}_{metric}", f"persistence_{infix}{metric}", f"extrapolation_{infix}{metric}")
            cells += [_number(numbers[key]) for key in keys]
            if metric == "vrmse":
                if not rollout:
                    cells.append(_ratio(numbers[f"{ahead}_ratio_to_persistence"]))
                cells.append(_ratio(numbers[f"{ahead}_ratio"]))
        if rollout:
            unstable = f"{numbers['unstable']}/{numbers['trajectories']}"
            cells.append(f"[red]{unstable}[/red]" if numbers["unstable"] else unstable)
        table.add_row(dataset + (" *" if numbers["zero_shot"] else ""), *cells)
    if any(numbers["zero_shot"] for numbers in summaries.values()):
        table.caption = "* zero-shot: the model was not trained on it"
        table.caption_justify = "left"
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "inf"
    return f"{value:.4f}" if value < 0.1 else f"{value:#.3g}".rstrip(".") if value < 1000 else f"{value:.0e}"


def _ratio(value: float | None) -> str:
    return "[red]inf[/red]" if value is None else f"[{'green' if value < 1 else 'red'}]{value:.3f}[/]"
