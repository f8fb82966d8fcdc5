"""Results as a person reads them."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from morph.summary import valid_median

__all__ = [
    "ensemble_table",
    "error_table",
    "overall_table",
    "parameter_table",
    "range_table",
    "speed_header",
    "speed_line",
    "valid_table",
]


def error_table(summaries: Mapping[str, Mapping[str, Any]], ahead: str) -> Table:
    """Errors of the model, of persistence, of linear extrapolation and of compared checkpoints, and ratios of the
    model's to theirs; beside compared checkpoints, VRMSE alone of all and NRMSE of the model.

    Args:
        summaries: By data set, see `morph.summary.summarise`.
        ahead: "one_step", or "rollout" for the mean over all lead times.
    """
    rollout = ahead == "rollout"
    what = "Rollout, mean over lead times" if rollout else "One step ahead"
    compared = _compared(summaries)
    over = "".join(f", /{escape(name)}: over that of {escape(name)}" for name in compared)
    table = _table(f"{what} (/persist, /better: VRMSE over persistence's, over the better's{over})")
    # Beside compared checkpoints a terminal has no room for all.
    every = ("", "persistence", "extrapolation")
    forecasts = {"vrmse": every, "nrmse": every[:1] if compared else every}
    for metric in ("VRMSE", "NRMSE"):
        for name in (metric, "persist", "extrap")[: len(forecasts[metric.lower()])]:
            table.add_column(name, justify="right")
        if metric == "VRMSE":
            if not rollout:
                table.add_column("/persist", justify="right")
            table.add_column("/better", justify="right")
            for name in compared:
                table.add_column(escape(name), justify="right")
                table.add_column(escape(f"/{name}"), justify="right")
    if rollout:
        table.add_column("unstable", justify="right", no_wrap=True)
    infix = "rollout_" if rollout else ""
    for dataset, numbers in summaries.items():
        cells = []
        for metric, shown in forecasts.items():
            keys = [f"{name}_{infix}{metric}" if name else f"{ahead}_{metric}" for name in shown]
            cells += [_number(numbers[key]) for key in keys]
            if metric == "vrmse":
                if not rollout:
                    cells.append(_ratio(numbers[f"{ahead}_ratio_to_persistence"]))
                cells.append(_ratio(numbers[f"{ahead}_ratio"]))
                for name in compared:
                    cells.append(_number(numbers[f"{name}_{infix}vrmse"]))
                    cells.append(_ratio(numbers[f"{ahead}_ratio_to_{name}"]))
        if rollout:
            unstable = f"{numbers['unstable']}/{numbers['trajectories']}"
            cells.append(f"[red]{unstable}[/red]" if numbers["unstable"] else unstable)
        table.add_row(_name(dataset, numbers), *cells)
    what = "fields of frames" if rollout else "fields of windows"
    _note(
        table,
        summaries,
        [
            f"{escape(dataset)}: {numbers[f'{ahead}_without_data']} {what} hold no data and count nowhere"
            for dataset, numbers in summaries.items()
            if numbers[f"{ahead}_without_data"]
        ],
    )
    return table


def valid_table(summaries: Mapping[str, Mapping[str, Any]], threshold: float) -> Table:
    """How long rollouts of the model, of the naive forecasts and of compared checkpoints can be trusted.

    Args:
        summaries: By data set, see `morph.summary.summarise`.
        threshold: That `morph.metrics.valid_time` was told.
    """
    table = _table(f"Rollout, median valid time: VRMSE up to {threshold:g}")
    names = {"model": "model", "persistence": "persist", "extrapolation": "extrap"}
    names |= {name: escape(name) for name in _compared(summaries)}
    for column in (*names.values(), "of"):
        table.add_column(column, justify="right")
    bounds = False
    for dataset, numbers in summaries.items():
        found = {name: valid_median(numbers, name) for name in names}
        longest = max(value for value, _ in found.values())
        bounds = bounds or any(bound for _, bound in found.values())
        cells = [_time(*median, best=median[0] == longest) for median in found.values()]
        table.add_row(_name(dataset, numbers), *cells, f"{numbers['rollout_length']:.3g}")
    _note(table, summaries, ["≥: not exceeded until the end"] if bounds else [])
    return table


def ensemble_table(summaries: Mapping[str, Mapping[str, Any]]) -> Table:
    """Scores of the model's ensemble of rollouts, means over lead times, in standard deviations of each field.

    Args:
        summaries: By data set, see `morph.summary.summarise`; of ensembles.
    """
    table = _table("Ensemble, mean over lead times, in standard deviations of each field (/: CRPS over that)")
    compared = _compared(summaries)
    columns = ("CRPS", "control", "/control", "/better", "spread", "skill", "ratio")
    for column in (*columns, *(escape(f"/{name}") for name in compared)):
        table.add_column(column, justify="right")
    for dataset, numbers in summaries.items():
        cells = [
            _number(numbers["crps"]),
            _number(numbers["control_mae"]),
            _ratio(numbers["crps_ratio_to_control"]),
            _ratio(numbers["crps_ratio"]),
            _number(numbers["spread"]),
            _number(numbers["skill"]),
            "-" if numbers["spread_skill_ratio"] is None else f"{numbers['spread_skill_ratio']:.3f}",
        ]
        cells += [_ratio(numbers[f"crps_ratio_to_{name}"]) for name in compared]
        table.add_row(_name(dataset, numbers), *cells)
    _note(
        table,
        summaries,
        [
            "control: mean absolute error, the CRPS of one forecast; better: of persistence and extrapolation",
            "ratio: spread / skill, 1 where the ensemble knows its own error, below 1 where it is too sure",
        ],
    )
    return table


def overall_table(
    numbers: Mapping[str, Mapping[str, Mapping[str, Any]]], datasets: int, unreached: Sequence[str] = ()
) -> Table:
    """VRMSE of each forecast over persistence's, geometric mean over data sets with its interval, and average rank.

    Args:
        numbers: See `morph.lead_windows.overall`.
        datasets: How many were judged; a window of fewer says so.
        unreached: Windows of lead time that no rollout reaches.
    """
    table = _table("Overall: VRMSE over persistence's, geometric mean over data sets, and average rank", "forecast")
    ranked = datasets > 1
    for window, of_window in numbers.items():
        counted = len(next(iter(of_window.values()))["datasets"])
        name = window.replace("_", " ") + (f" ({counted} of {datasets})" if counted < datasets else "")
        table.add_column(name, justify="right")
        table.add_column("95 %", justify="right")
        if ranked:
            table.add_column("rank", justify="right")
    for forecast in next(iter(numbers.values()), {}):
        cells = []
        for of_window in numbers.values():
            ratio, rank = of_window[forecast]["ratio_to_persistence"], of_window[forecast]["average_rank"]
            is_reference = forecast == "persistence"
            cells.append(f"{1:.3f}" if is_reference else _ratio(ratio["mean"]))
            ends = (ratio["low"], ratio["high"])
            cells.append("" if is_reference or None in ends else "-".join(f"{end:.3f}" for end in ends))
            if ranked:
                cells.append("" if rank is None else f"{rank:.1f}")
        table.add_row(escape(forecast), *cells)
    notes = ["95 %: interval over trajectories; rollout: all lead times; first:last: these lead steps"]
    if unreached:
        notes.append(f"lead_windows: no rollout reaches {', '.join(unreached)}, left out")
    table.caption, table.caption_justify = "\n".join(notes), "left"
    return table


def _table(title: str, first: str = "data set") -> Table:
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        pad_edge=False,
        show_edge=False,
    )
    table.add_column(first, no_wrap=True)
    return table


def _name(dataset: str, numbers: Mapping[str, Any]) -> str:
    return escape(dataset) + (" *" if numbers["zero_shot"] else "")


def _compared(summaries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return next(iter(summaries.values()))["compared"] if summaries else []


def _note(table: Table, summaries: Mapping[str, Mapping[str, Any]], notes: list[str]) -> None:
    if any(numbers["zero_shot"] for numbers in summaries.values()):
        notes = ["* zero-shot: the model was not trained on it", *notes]
    if notes:
        table.caption = "\n".join(notes)
        table.caption_justify = "left"


def _time(value: float, bound: bool, best: bool) -> str:
    shown = "-" if value < 0 else f"{'≥' if bound else ''}{value:.3g}"
    return f"[bold]{shown}[/bold]" if best else shown


def parameter_table(counts: Mapping[str, tuple[int, int]]) -> Table:
    """What of a model is trained, see `morph.finetune.count_parameters`."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, show_edge=False)
    table.add_column("parameters", no_wrap=True)
    for name in ("trained", "of", "share"):
        table.add_column(name, justify="right")
    total = tuple(map(sum, zip(*counts.values(), strict=True)))
    for name, (trained, of) in {**counts, "all": total}.items():
        table.add_row(name, f"{trained:,}", f"{of:,}", f"{trained / of:.1%}" if trained else "-")
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
