"""`python -m morph.evaluate`: roll a checkpoint out on held-out data and measure its errors."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn

from morph.baselines import NAIVE
from morph.checkpoint import find_checkpoint, read_checkpoint, run_of
from morph.command import command, defaults
from morph.data.adapter import DatasetAdapter
from morph.data.catalogue import find_datasets, open_split, prepare
from morph.data.subset import with_statistics
from morph.execution import device as choose_device
from morph.figures import plot_error_growth, plot_overview, plot_rollout, png
from morph.layout import DatasetSpec, Statistics, TrainedOn
from morph.model.morph import Morph
from morph.provenance import record, write_whole
from morph.scoring import Scores, check_lengths, score, summarise, work
from morph.tables import error_table

_WHERE = ("data_dir", "level", "suite_seed")  # what a checkpoint of a run says of its data


@command("evaluate")
def main(config: DictConfig) -> None:
    """Judge every data set, then write metrics.nc, rollout.nc, summary.json and the figures, and print the tables."""
    path = find_checkpoint(config.checkpoint)
    checkpoint = read_checkpoint(path)
    folder = Path(config.run_dir or run_of(path) / "evaluation")
    if not config.data and not checkpoint.trained_on.specs:
        raise ValueError(f"data: {path} does not say what it was trained on; give the data, such as data=[cfd1d]")
    checkpoint = checkpoint.normalised(config.normalisation)
    model = checkpoint.build()
    context = _context(config.context, checkpoint.trained_on.context, model)
    training = defaults("train")
    stated = {**{key: training[key] for key in _WHERE}, **checkpoint.options}
    options = {key: stated[key] if config[key] is None else config[key] for key in _WHERE}
    # A data set of a YAML file is found where it was in training.
    files = checkpoint.options.get("files", {})
    datasets = find_datasets(config.data or [files.get(name, name) for name in checkpoint.trained_on.specs], options)
    adapters = {}
    for name, dataset in datasets.items():
        prepare(dataset)
        adapter = open_split(dataset, config.split, name)
        adapters[name] = adapter = with_statistics(adapter, _scales(checkpoint.trained_on, name, adapter.spec))
        shape = (context, adapter.spec.num_fields, adapter.spec.num_components)
        model.capacity.admit(f"data set {name!r}", *shape)
    batch_sizes = {
        name: dataset.get("batch_size", 1) if config.batch_size is None else config.batch_size
        for name, dataset in datasets.items()
    }
    for name, adapter in adapters.items():
        check_lengths(adapter, context, config.steps, config.one_step_windows, batch_sizes[name])
    effective = {
        **options,
        "normalisation": checkpoint.config["normalisation"],
        "datasets": datasets,
        "checkpoint": str(path),
        "context": context,
        "run_dir": str(folder),
    }
    plain: Any = OmegaConf.to_container(config)
    record(folder, DictConfig(plain | effective), "evaluate")

    console = Console()
    scores = _judge(model, context, adapters, batch_sizes, config, console)
    summaries = {
        name: {**summarise(of_dataset.metrics), "zero_shot": name not in checkpoint.trained_on.names}
        for name, of_dataset in scores.items()
    }
    _write(folder, scores, summaries, config.figures)
    for ahead in ("one_step", "rollout"):
        console.print(error_table(summaries, ahead), "", sep="\n")
    figures = ", figures/" if config.figures else ""
    console.print(f"Results in {folder}: metrics.nc, rollout.nc, summary.json{figures}", soft_wrap=True)


def _context(wanted: Any, trained: int, model: Morph) -> int:
    """How many frames the model sees: as in training unless another number is wanted."""
    most = model.capacity.max_context
    if wanted is None:
        return trained
    if isinstance(wanted, bool) or not isinstance(wanted, int) or not 1 <= wanted <= most:
        raise ValueError(
            f"context: expected 1 to {most}, the frames that the model takes, found {wanted!r}; "
            "python -m morph.train +experiment=pretrain_ar makes a model of it that takes more"
        )
    return wanted


def _scales(trained_on: TrainedOn, name: str, spec: DatasetSpec) -> Statistics | None:
    """The scales that a model was trained with, which are not the data set's where it saw a few trajectories of it."""
    same = name in trained_on.specs and trained_on.specs[name].fields == spec.fields
    return trained_on.statistics.get(name) if same else None


def _judge(
    model: Morph,
    context: int,
    adapters: dict[str, DatasetAdapter],
    batch_sizes: dict[str, int],
    config: DictConfig,
    console: Console,
) -> dict[str, Scores]:
    device = choose_device(config.device)
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
    """Everything is made in memory first: HDF5 cannot be stopped in the middle of a file that finds the disk full."""
    files: dict[str, str | bytes | memoryview] = {
        "metrics.nc": _netcdf({name: of_dataset.metrics for name, of_dataset in scores.items()}),
        "rollout.nc": _netcdf({name: of_dataset.rollouts for name, of_dataset in scores.items()}),
        "summary.json": json.dumps(summaries, indent=2, allow_nan=False) + "\n",
    }
    if figures:
        (folder / "figures").mkdir(exist_ok=True)
        files["figures/overview.png"] = png(plot_overview(summaries))
        for name, (metrics, rollouts) in scores.items():
            files[f"figures/{name}_error.png"] = png(plot_error_growth(metrics))
            if rollouts.data_vars:
                files[f"figures/{name}_rollout.png"] = png(plot_rollout(rollouts))
    for name, content in files.items():
        write_whole(folder / name, content)


def _netcdf(datasets: dict[str, xr.Dataset]) -> memoryview:
    """A file with one group per data set: `xarray.open_dataset(path, group=name)`."""
    tree = xr.DataTree.from_dict({f"/{name}": dataset for name, dataset in datasets.items()})
    return tree.to_netcdf(engine="h5netcdf")


if __name__ == "__main__":
    main()
