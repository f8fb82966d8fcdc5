"""`python -m morph.evaluate`: roll a checkpoint out on held-out data and measure its errors."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TimeElapsedColumn

from morph.baselines import NAIVE
from morph.checkpoint import Checkpoint, base_for, find_checkpoint, read_checkpoint, run_of
from morph.command import command, defaults
from morph.comparison import Compared, costs, differences, named, read_compared, training, with_own_scales
from morph.data.adapter import DatasetAdapter
from morph.data.catalogue import find_datasets, is_entry, named_folders, open_split, prepare
from morph.data.subset import with_statistics
from morph.ensemble import Ensemble, dropout_on
from morph.execution import device as choose_device
from morph.lead_windows import lead_windows, overall, window_errors
from morph.model.surrogate import Surrogate
from morph.provenance import record, write_whole
from morph.report import report
from morph.results import print_tables, write_results
from morph.rollout import Forecast
from morph.scoring import Scores, check_lengths, score, work
from morph.summary import summarise
from morph.terminal import PlainConsole, printable

_WHERE = ("data_dir", "level", "suite_seed")  # what a checkpoint of a run says of its data


@command("evaluate")
def main(config: DictConfig) -> None:
    """Judge every data set, then write metrics.nc, rollout.nc, two summaries and the figures, and print the tables."""
    path = find_checkpoint(config.checkpoint)
    plain: Any = OmegaConf.to_container(config)
    paths = named(plain["compare"])
    if config.base is not None and not any(base_for(one, config.base) for one in (path, *paths.values())):
        raise ValueError(f"base: {path} is a whole model, no adapter's folder; leave base out")
    checkpoint = read_checkpoint(path, base=base_for(path, config.base), weights=config.weights)
    folder = Path(config.run_dir or run_of(path) / "evaluation")
    if not config.data and not checkpoint.trained_on.specs:
        raise ValueError(f"data: {path} does not say what it was trained on; give the data, such as data=[cfd1d]")
    ensemble = _ensemble(config)
    if not config.valid_threshold > 0:
        raise ValueError(f"valid_threshold: expected a positive number, found {config.valid_threshold}")
    windows = lead_windows(plain["lead_windows"])
    checkpoint = checkpoint.normalised(config.normalisation)
    model = checkpoint.build()
    context = _context(config.context, checkpoint.trained_on.context, model)
    start = _start(config.start, context)
    compared = read_compared(paths, start, config.context, base=config.base)
    models = {"model": model, **{name: one.model for name, one in compared.items()}}
    if ensemble is not None and ensemble.dropout:
        _check_dropout(models)
    shipped = defaults("train")
    stated = {**{key: shipped[key] for key in _WHERE}, **checkpoint.options}
    options = {key: stated[key] if config[key] is None else config[key] for key in _WHERE}
    datasets = find_datasets(config.data or _trained_data(path, checkpoint), options, roots=named_folders(plain))
    adapters = {}
    for name, dataset in datasets.items():
        prepare(dataset)
        adapter = open_split(dataset, config.split, name)
        scales = checkpoint.trained_on.scales_of(replace(adapter.spec, name=name))
        adapters[name] = adapter = with_statistics(adapter, scales)
        shape = (adapter.spec.num_fields, adapter.spec.num_components, len(adapter.spec.axes))
        model.admit(f"data set {name!r}", context, *shape)
        for other, one in compared.items():
            one.model.admit(f"compare {other}: data set {name!r}", one.context, *shape)
    batch_sizes = {
        name: dataset.get("batch_size", 1) if config.batch_size is None else config.batch_size
        for name, dataset in datasets.items()
    }
    for name, adapter in adapters.items():
        check_lengths(adapter, start, config.steps, config.one_step_windows, batch_sizes[name])
    effective = {
        **options,
        "normalisation": checkpoint.config["normalisation"],
        "datasets": datasets,
        "checkpoint": str(path),
        "compare": {name: str(path) for name, path in paths.items()} or None,
        "context": context,
        "start": start,
        "run_dir": str(folder),
    }
    record(folder, DictConfig(plain | effective), "evaluate")

    console = PlainConsole(markup=True, highlight=True)
    _tell_training(checkpoint, context, compared)
    sees = {"model": context, **{name: one.context for name, one in compared.items()}}
    device = choose_device(config.device)
    models = {name: model.to(device) for name, model in models.items()}
    checkpoints = {"model": checkpoint, **{name: one.checkpoint for name, one in compared.items()}}
    cost = {
        name: costs(
            checkpoints, models, adapter, replace(adapter.spec, name=name), sees, batch_sizes[name], str(device)
        )
        for name, adapter in adapters.items()
    }
    scores = _judge(models, start, sees, adapters, batch_sizes, ensemble, config, console)
    summaries = {
        name: {
            **summarise(of_dataset.metrics),
            "windows": window_errors(of_dataset.metrics, windows),
            "zero_shot": name not in checkpoint.trained_on.names,
            "cost": cost[name],
        }
        for name, of_dataset in scores.items()
    }
    all_in_one = overall({name: of_dataset.metrics for name, of_dataset in scores.items()}, windows)
    write_results(folder, scores, summaries, all_in_one, config.figures)
    print_tables(console, summaries, all_in_one, windows, config.valid_threshold, ensemble is not None)
    figures = ", figures/" if config.figures else ""
    console.print(f"Results in {folder}: metrics.nc, rollout.nc, summary.json, overall.json{figures}", soft_wrap=True)
    if config.report:
        lines = {name: f"{training(name, one.checkpoint, one.context)} ({one.path})" for name, one in compared.items()}
        page = report(
            scores,
            summaries,
            title=str(config.checkpoint),
            models=[f"{training('model', checkpoint, context)} ({path})", *lines.values()],
            origin=json.loads((folder / "evaluate.json").read_text()),
            options=plain | effective,
            overall=all_in_one,
        )
        write_whole(folder / "report.html", page)
        console.print(f"Report: {folder / 'report.html'} ({len(page.encode()) / 1e6:.1f} MB)", soft_wrap=True)


def _trained_data(path: Path, checkpoint: Checkpoint) -> list[str]:
    """The data sets of the training; one of a YAML file is where it was then.

    A folder can come from anybody, and a YAML says what is executed: of an export or an adapter, names are enough.

    Raises:
        ValueError: They have to be given.
    """
    files = checkpoint.options.get("files", {})
    names = [str(name) for name in checkpoint.trained_on.specs]
    if path.is_dir() and (own := [name for name in names if not is_entry(name)]):
        where = ", ".join(str(files.get(name, name)) for name in own)
        raise ValueError(
            f"data: {path} was trained on {where}; a folder does not decide what is read, give it as data="
        )
    return [files.get(name, name) for name in names]


def _context(wanted: Any, trained: int, model: Surrogate) -> int:
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


def _start(wanted: Any, context: int) -> int:
    """Frames before the first that is forecast."""
    if wanted is None:
        return context
    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < context:
        raise ValueError(
            f"start: expected at least the {context} frame{'s' * (context > 1)} that the model sees, found {wanted!r}"
        )
    return wanted


def _ensemble(config: DictConfig) -> Ensemble | None:
    if config.members != 1:
        return Ensemble(config.members, config.perturbation, config.dropout, 0 if config.seed is None else config.seed)
    idle = {"perturbation": config.perturbation is not None, "dropout": config.dropout, "seed": config.seed is not None}
    if ignored := [option for option, is_given in idle.items() if is_given]:
        raise ValueError(f"{', '.join(ignored)}: without effect on a single rollout; give members=16 for an ensemble")
    return None


def _check_dropout(models: dict[str, Surrogate]) -> None:
    for name, model in models.items():
        try:
            with dropout_on(model):
                pass
        except ValueError as error:
            raise ValueError(str(error) if name == "model" else f"compare {name}: {error}") from error


def _tell_training(checkpoint: Checkpoint, context: int, compared: dict[str, Compared]) -> None:
    """Whether a comparison is one of equals is for its reader to say."""
    if not compared:
        return
    print(printable(training("model", checkpoint, context)))
    for name, one in compared.items():
        print(printable(training(name, one.checkpoint, one.context)))
        if differ := differences(one.checkpoint, checkpoint):
            print(f"note: {name} and the model differ in the {differ} of their training")


def _judge(
    models: dict[str, Surrogate],
    start: int,
    sees: dict[str, int],
    adapters: dict[str, DatasetAdapter],
    batch_sizes: dict[str, int],
    ensemble: Ensemble | None,
    config: DictConfig,
    console: Console,
) -> dict[str, Scores]:
    others_of = dict(models)
    ours = others_of.pop("model")
    members = 0 if ensemble is None else ensemble.members
    scores = {}
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=console, transient=True) as progress:
        for name, adapter in adapters.items():
            task = progress.add_task(
                escape(name), total=work(adapter, start, config.steps, config.one_step_windows, members)
            )
            spec = replace(adapter.spec, name=name)
            others = {other: with_own_scales(model, spec) for other, model in others_of.items()}
            forecasts: dict[str, Forecast] = {"model": ours, **NAIVE, **others}
            scores[name] = score(
                forecasts,
                adapter,
                context=start,
                contexts=sees,
                batch_size=batch_sizes[name],
                steps=config.steps,
                one_step_windows=config.one_step_windows,
                valid_threshold=config.valid_threshold,
                ensemble=ensemble,
                keep=config.keep,
                device=choose_device(config.device),
                advance=partial(progress.advance, task),
            )
            if not console.is_terminal:  # a log file shows no bar
                console.print(f"judged {escape(name)}: {len(adapter)} trajectories")
    return scores


if __name__ == "__main__":
    main()
