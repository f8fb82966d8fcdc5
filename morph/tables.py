"""Results as a person reads them."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

__all__ = ["error_table", "range_table", "speed_header", "speed_line"]


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
    notes = []
    if any(numbers["zero_shot"] for numbers in summaries.values()):
        notes.append("* zero-shot: the model was not trained on it")
    what = "fields of frames" if rollout else "fields of windows"
    notes += [
        f"{dataset}: {numbers[f'{ahead}_without_data']} {what} hold no data and count nowhere"
        for dataset, numbers in summaries.items()
        if numbers[f"{ahead}_without_data"]
    ]
    if notes:
        table.caption = "\n".join(notes)
        table.caption_justify = "left"
    return table


def range_table(first: Mapping[str, tuple[float, float]], last: Mapping[str, tuple[float, float]]) -> Table:
    """Lowest and highest value of each variable in the last frame known and in the last one forecast."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, show_edge=False)
    table.add_column("variable", no_wrap=True)
    for when in ("last known", "last forecast"):
        table.add_column(f"{when}: lowest", justify="right")
        table.add_column("highest", justify="right")
    for name in first:
        ends = [*first[name], *last[name]]
        if ends[0] > ends[1]:
            table.add_row(escape(name), "no data")
            continue
        table.add_row(escape(name), *("" if low > high else f"{value:.4g}" for low, high in (first[name], last[name])
                                      for value in (low, high)))  # fmt: skip
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "inf"
    return f"{value:.4f}" if value < 0.1 else f"{value:#.3g}".rstrip(".") if value < 1000 else f"{value:.0e}"


def _ratio(value: float | None) -> str:
    return "[red]inf[/red]" if value is None else f"[{'green' if value < 1 else 'red'}]{value:.3f}[/]"


_SPEED = (
    ("size", "<5"), ("shape", "<11"), ("setting", "<13"), ("params M", ">9"), ("GFLOP", ">7"), ("forward ms", ">11"),
    ("step ms", ">8"), ("samples/s", ">10"), ("memory MB", ">10"), ("total MB", ">9"), ("rate", ">6"),
    ("products", ">9"), ("ratio", ">6"), ("memory", ">7"),
)  # fmt: skip
_RATIOS = ("ratio_to_plain", "memory_ratio_to_plain")


def speed_header() -> str:
    """Names of the columns of `speed_line`.

    GFLOP: of the forward pass of one sample.  memory MB: activations and gradients, at most at one time.  total MB:
    with weights and optimiser.  rate: operations of a step by its time, as a share of what large matrix products reach.
    products: share of the step's time inside matrix products, convolutions and attention.  ratio: the plain model's
    step time by this one's.  The second memory: this one's by the plain model's.
    """
    return "".join(f"{name:{form}}" for name, form in _SPEED).rstrip()


def speed_line(row: Mapping[str, Any]) -> str:
    """One line of the benchmark's table, see `morph.benchmark`."""
    cells = (
        row["size"], row["shape"], row["setting"] or "-", f"{row['parameters'] / 1e6:.1f}",
        f"{row['operations_per_sample'] / 1e9:.2f}", f"{1e3 * row['forward_s']:.1f}", f"{1e3 * row['step_s']:.1f}",
        f"{row['samples_per_s']:.1f}", f"{row['memory_bytes'] / 1e6:.0f}", f"{row['total_bytes'] / 1e6:.0f}",
        f"{row['share_of_rate']:.0%}",
        f"{row['share_of_time_in_products']:.0%}", *(f"{row[key]:.2f}" if row[key] else "" for key in _RATIOS),
    )  # fmt: skip
    return "".join(f"{cell:{form}}" for cell, (_, form) in zip(cells, _SPEED, strict=True)).rstrip()
