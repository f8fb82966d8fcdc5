"""`python -m morph.predict`: continue a user's own data with a checkpoint."""

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import xarray as xr
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn

from morph.checkpoint import read_checkpoint
from morph.command import command, defaults
from morph.data.catalogue import named_folders
from morph.execution import device as choose_device
from morph.figures import plot_forecast, png
from morph.forecast import Forecasting, plan
from morph.forecast_file import check_space, size_of, write_forecast
from morph.forecast_input import Input, open_input
from morph.labelled.results import LEAD
from morph.labelled.watch import Watch
from morph.layout import DatasetSpec
from morph.model.surrogate import Surrogate
from morph.provenance import write_whole
from morph.tables import range_table
from morph.terminal import PlainConsole

_WHERE = ("data_dir", "level", "suite_seed")  # what a checkpoint of a run says of its data
_PLAN = (
    "like", "fields", "axes", "start", "context", "trajectories", "members", "perturbation", "dropout", "seed",
    "boundary", "missing", "check_dt", "batch_size",
)  # fmt: skip
_UNDERSTANDING = ("like", "fields", "axes", "boundary", "missing")


@command("predict")
def main(config: DictConfig) -> None:
    """Read the context, forecast, write frame by frame, and say what came out."""
    output = _output(config)
    if isinstance(config.compression, bool) or config.compression not in range(10):
        raise ValueError(f"compression: expected 0 to 9, found {config.compression!r}")
    checkpoint = read_checkpoint(config.checkpoint, base=config.base, weights=config.weights)
    checkpoint = checkpoint.normalised(config.normalisation)
    training = defaults("train")
    stated = {**{key: training[key] for key in _WHERE}, **checkpoint.options}
    options = {key: stated[key] if config[key] is None else config[key] for key in _WHERE}
    # A data set of a YAML file is found where it was in training.
    name = checkpoint.options.get("files", {}).get(config.input, config.input)
    console = PlainConsole(soft_wrap=True, markup=True)
    roots = named_folders({"data_dir": config.data_dir, "data": config.input})
    with open_input(name, config.group, config.split, options, roots) as given:
        # Merged it is faster; apart, factors have dropout of their own, as in training.
        model = checkpoint.build(merge=not config.dropout).to(choose_device(config.device))
        made = plan(model, given.dataset, config.steps, **_options(config, given, model), command=_command())
        _describe(console, made, config)
        output.parent.mkdir(parents=True, exist_ok=True)
        check_space(made, output)
        watch = Watch(made.selection)
        with _progress(console, len(made.trajectories) * made.steps) as advance:
            write_forecast(made, output, watch, config.compression, advance)
        figure = _figure(made, output) if config.figure else ""
    console.print(f"Wrote {output}, {output.stat().st_size / 1e6:,.2f} MB{figure}", markup=False)
    console.print(range_table(watch.first, watch.last))
    lead = made.labels.frame[LEAD]
    unit = f" {lead.attrs['units']}" if "units" in lead.attrs else ""
    for line in watch.warnings(lead.values.tolist(), unit):
        console.print(f"warning: {line}", style="red", markup=False)


def _output(config: DictConfig) -> Path:
    output = Path(config.output)
    if output.suffix != ".nc":
        raise ValueError(f"output: expected a file that ends in .nc, found {output}")
    if output.is_dir():
        raise ValueError(f"output: expected a file, found the folder {output}")
    given = Path(config.input)
    if given.exists() and output.exists() and os.path.samefile(given, output):
        raise ValueError(f"output: {output} is the input; choose another file")
    for path in (output, *([output.with_suffix(".png")] if config.figure else [])):
        if path.exists() and not config.overwrite:
            raise ValueError(f"output: {path} is there already; choose another file, or replace it with overwrite=true")
    return output


def _options(config: DictConfig, given: Input, model: Surrogate) -> dict[str, Any]:
    """What `plan` is told."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    options = {key: plain[key] for key in _PLAN}
    if given.known is None:
        return options
    if stated := [key for key in _UNDERSTANDING if plain[key] is not None]:
        raise ValueError(f"{stated[0]}: {config.input} is read as its YAML says; leave this out, or change the YAML")
    assert given.name is not None, "a reader's data set has a name"
    trained = model.trained_on
    own = trained.specs.get(given.name) if trained else None
    spec = given.known.specs[given.name]
    dt = spec.dt
    if own is not None and own.fields != spec.fields:
        raise ValueError(
            f"data set {given.name!r}: its fields are {_named(spec)}, those of the training {_named(own)}; choose and "
            "name them as there with `fields` in its YAML, or call the file otherwise if it is another system"
        )
    if own is not None and config.check_dt and abs(dt - own.dt) > 1e-3 * own.dt:
        raise ValueError(
            f"data set {given.name!r}: its frames are {dt:g} apart, those of the training {own.dt:g}; go on knowingly "
            "with check_dt=false"
        )
    if options["context"] is None:
        options["context"] = trained.context if trained else model.capacity.max_context
    known = given.known
    if trained is not None and (scales := trained.scales_of(spec)) is not None:
        known = replace(known, statistics={given.name: scales})
    return {**options, "like": given.name, "trained_on": known}


def _named(spec: DatasetSpec) -> str:
    return ", ".join(f"{field.name} ({len(field.components)})" for field in spec.fields)


def _command() -> str:
    return shlex.join(["python", "-m", "morph.predict", *HydraConfig.get().overrides.task])


def _describe(console: Console, made: Forecasting, config: DictConfig) -> None:
    selection, ensemble = made.selection, made.ensemble
    roles = selection.roles
    fields = "; ".join(
        f"{field.name} = {', '.join(map(str, own))}" if [field.name] != [str(part) for part in own] else field.name
        for field, own in zip(selection.fields, selection.parts, strict=True)
    )
    known = made.model.trained_on
    seen = selection.like is not None and known is not None and selection.like.name in known.names
    kind = f"like {selection.like.name}" if selection.like and seen else "zero-shot"
    lines = [f"{config.input} ({kind}): {fields}; space {', '.join(roles.axes)}; time {roles.time}"]
    if roles.sample is not None:
        lines[0] += f"; {len(made.trajectories)} of {made.dataset.sizes[roles.sample]} along {roles.sample}"
    first, last = made.context[0], made.context[-1]
    lines.append(f"Context: frames {first} to {last}" if first != last else f"Context: frame {last}")
    if roles.time not in made.dataset.coords and selection.like is not None:
        lines.append(f"Its frames have no times: that they are {selection.like.dt:g} apart, as in training, is assumed")
    if ensemble is not None:
        noise = f"noise of {ensemble.perturbation:g} standard deviations" if ensemble.perturbation else ""
        how = " and ".join(filter(None, [noise, "dropout" if ensemble.dropout else ""]))
        lines.append(f"Ensemble of {ensemble.members}: {how}, seed {ensemble.seed}; member 0 is the control")
    if made.labels.left_out:
        lines.append(f"Left out, since they vary with time: {', '.join(made.labels.left_out)}")
    lines.append(f"Forecasting {made.steps} frames, {size_of(made) / 1e6:,.2f} MB before compression")
    console.print("\n".join(lines), markup=False)


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Callable[[int], None]]:
    """A bar in a terminal, four lines in a log."""
    done = 0
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("forecast", total=total)

        def advance(count: int) -> None:
            nonlocal done
            before, done = done, done + count
            progress.advance(task, count)
            if not console.is_terminal and 4 * done // total > 4 * before // total:
                console.print(f"forecast: {done} of {total} frames", markup=False)

        yield advance


def _figure(made: Forecasting, output: Path) -> str:
    """Write the picture of the first trajectory's control forecast; returns what to say of it."""
    roles, picture = made.selection.roles, output.with_suffix(".png")
    first: dict[str, Any] = {roles.sample: 0} if roles.sample else {}
    panels = {}
    with xr.open_dataset(output, engine="h5netcdf", decode_times=False, cache=False) as file:
        for own in made.selection.parts:
            for part in own:
                known, after = made.dataset[part.variable], file[part.variable]
                at = {roles.sample: made.trajectories[0], roles.time: made.context[-1]}
                known = known.isel({dim: place for dim, place in at.items() if dim in known.dims})
                after = after.isel({**first, **({"member": 0} if "member" in after.dims else {})})
                if part.entry is not None:
                    dim = roles.channel[part.variable]
                    known = known.isel({dim: part.entry})
                    after = after.isel({dim: list(made.labels.used[dim]).index(part.entry)})
                panels[str(part)] = (known, after)
        write_whole(picture, png(plot_forecast(panels, roles.axes, roles.time)))
    return f", and {picture}"


if __name__ == "__main__":
    main()
