"""`python -m morph.evaluate`: roll a checkpoint out on held-out data and measure its errors."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn

from morph.baselines import NAIVE
from morph.checkpoint import find_checkpoint, read_checkpoint, run_of
from morph.command import command
from morph.data.adapter import DatasetAdapter
from morph.data.catalogue import find_datasets, open_split, prepare
from morph.figures import plot_error_growth, plot_overview, plot_rollout, save_figure
from morph.model.morph import Morph
from morph.provenance import record, write_text
from morph.scoring import Scores, score, summarise, work
from morph.tables import error_table


@command("evaluate")
def main(config: DictConfig) -> None:
    """Judge every data set, then write metrics.nc, rollout.nc, summary.json and the figures, and print the tables."""
    path = find_checkpoint(config.checkpoint)
    checkpoint = read_checkpoint(path)
    folder = Path(config.run_dir or run_of(path) / "evaluation")
    model = checkpoint.build()
    options = {key: value if config[key] is None else config[key] for key, value in checkpoint.options.items()}
    datasets = find_datasets(config.data or list(checkpoint.specs), options)
    adapters = {}
    for name, dataset in datasets.items():
        prepare(dataset)
        adapters[name] = adapter = open_split(dataset, config.split)
        shape = (checkpoint.context, adapter.spec.num_fields, adapter.spec.num_components)
        model.capacity.admit(f"data set {name!r}", *shape)
    record(folder, config, "evaluate")

    console = Console()
    batch_sizes = {name: config.batch_size or dataset.get("batch_size", 1) for name, dataset in datasets.items()}
    scores = _judge(model, checkpoint.context, adapters, batch_sizes, config, console)
    summaries = {
        name: {**summarise(of_dataset.metrics), "zero_shot": name not in checkpoint.specs}
        for name, of_dataset in scores.items()
    }
    _write(folder, scores, summaries, config.figures)
    for ahead in ("one_step", "rollout"):
        console.print(error_table(summaries, ahead), "", sep="\n")
    figures = ", figures/" if config.figures else ""
    console.print(f"Results in {folder}: metrics.nc, rollout.nc, summary.json{figures}", soft_wrap=True)


def _judge(
    model: Morph,
    context: int,
    adapters: dict[str, DatasetAdapter],
    batch_sizes: dict[str, int],
    config: DictConfig,
    console: Console,
) -> dict[str, Scores]:
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device)
    scores = {}
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=console, transient=True) as progress:
        for name, adapter in adapters.items():
            task = progress.add_task(name, total=work(adapter, context, config.steps, config.one_step_windows))
            scores[name] = score(
                {"model": model, **NAIVE},
                adapter,
                context=context,
                batch_size=batch_sizes[name],
                steps=config.steps,
                one_step_windows=config.one_step_windows,
                keep=config.keep,
                device=device,
                advance=partial(progress.advance, task),
            )
            if not console.is_terminal:  # a log file shows no bar
                console.print(f"judged {name}: {len(adapter)} trajectories")
    return scores


def _write(folder: Path, scores: dict[str, Scores], summaries: dict[str, dict[str, Any]], figures: bool) -> None:
    _write_netcdf({name: of_dataset.metrics for name, of_dataset in scores.items()}, folder / "metrics.nc")
    _write_netcdf({name: of_dataset.rollouts for name, of_dataset in scores.items()}, folder / "rollout.nc")
    write_text(folder / "summary.json", json.dumps(summaries, indent=2, allow_nan=False) + "\n")
    if not figures:
        return
    (folder / "figures").mkdir(exist_ok=True)
    save_figure(plot_overview(summaries), folder / "figures" / "overview.png")
    for name, (metrics, rollouts) in scores.items():
        save_figure(plot_error_growth(metrics), folder / "figures" / f"{name}_error.png")
        if rollouts.data_vars:
            save_figure(plot_rollout(rollouts), folder / "figures" / f"{name}_rollout.png")


def _write_netcdf(datasets: dict[str, xr.Dataset], path: Path) -> None:
    """One group per data set: `xarray.open_dataset(path, group=name)`; whole or not at all."""
    partial = path.with_name(f".{path.name}")
    try:
        tree = xr.DataTree.from_dict({f"/{name}": dataset for name, dataset in datasets.items()})
        tree.to_netcdf(partial, engine="h5netcdf")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
