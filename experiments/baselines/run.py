"""MORPH beside a Fourier neural operator, a U-Net and forecasts that cost nothing, at equal steps and at equal time.

    python -m experiments.baselines.run

Each run is `python -m morph.train` and `python -m morph.evaluate`, with the options that `training` and `judging`
return.  Runs whose lines are in the results already are not repeated.
"""

import csv
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data_adapters.suite.systems import SYSTEMS
from experiments.baselines import plan, report, results, speed
from experiments.baselines.plan import Run
from experiments.in_process import command
from morph import evaluate, train
from morph.checkpoint import read_checkpoint
from morph.provenance import write_whole

__all__ = ["DEFAULTS", "judging", "main", "one", "options_of_command_line", "training"]

PARTS = ("speed", "rates", "study", "report")
DEFAULTS: dict[str, Any] = {
    "out": "runs/baselines",  # where results, speeds, tables and the figure go
    "part": None,  # speed | rates | study | report; None: all but rates
    "data_dir": "data",
    "level": "small",
    "systems": list(SYSTEMS),
    "models": ["fno", "unet", "nano", "mix"],  # mix: one nano, trained on all systems
    "seeds": [0, 1, 2],
    "steps": 100,  # of training, for each system
    "seconds": None,  # the other budget, for each system; None: what nano takes for these steps
    "lr": {"fno": 1e-3, "unet": 1e-3, "nano": 1e-3},
    "options": {"fno": [], "unet": [], "nano": ["model.local=null"]},  # further ones of training; null: as was measured
    "rate_systems": ["burgers1d", "gs2d", "ns3d"],  # of the sweep of learning rates
    "shard": None,  # 0/2 and 1/2: two processes share the runs of part=study or part=rates
    "threads": 1,
    "repeats": 15,  # of each measured time, of which the least counts
}


def main() -> None:
    """Measure and run what is missing, then write the tables and the figure."""
    options = options_of_command_line()
    torch.set_num_threads(options["threads"])
    out = Path(options["out"])
    out.mkdir(parents=True, exist_ok=True)
    parts = ["speed", "study", "report"] if options["part"] is None else [options["part"]]
    if "speed" in parts and (options["part"] == "speed" or not (out / "speed.csv").exists()):
        _measure(out, options)
    if "study" in parts or "rates" in parts:
        measured = _speeds(out, options)
        kind = "results_rates" if "rates" in parts else "results"
        wanted = list(plan.rates(options) if "rates" in parts else plan.runs(options, measured))
        done = results.read(out, kind)
        _check_same(wanted, done, out)
        keys = {results.key_of(row) for row in done}
        mine = plan.share(wanted, measured, options["systems"], options["shard"])
        missing = [run for run in mine if not {_key(run, name) for name in _judged(run, options)} <= keys]
        suffix = "" if options["shard"] is None else f".{options['shard'].split('/')[0]}"
        for number, run in enumerate(missing, start=1):
            rows = one(run, options, measured, "valid" if "rates" in parts else "test")
            append(out / f"{kind}{suffix}.csv", rows)
            print(f"{number}/{len(missing)}  {_told(run, rows)}", flush=True)
        if "rates" in parts and options["shard"] is None:
            print(report.rates_table(results.read(out, kind)))
    if "report" in parts:
        if not results.read(out):
            sys.exit(f"error: {out} holds no results; give part=study first")
        report.write(out)
        print(f"Tables in {out / 'results.md'}")


def options_of_command_line() -> dict[str, Any]:
    """DEFAULTS with what the command line says; exits with a message where it says what is not possible."""
    known = OmegaConf.create(DEFAULTS)
    OmegaConf.set_struct(known, True)
    try:
        config = OmegaConf.merge(known, OmegaConf.from_cli())
    except OmegaConfBaseException as error:
        sys.exit(f"error: unknown option {error.full_key}; expected some of {', '.join(DEFAULTS)}")
    options: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
    if options["part"] not in (None, *PARTS):
        sys.exit(f"error: part: expected one of {', '.join(PARTS)}, found {options['part']!r}")
    for option, possible in (("systems", SYSTEMS), ("rate_systems", SYSTEMS), ("models", DEFAULTS["models"])):
        if not options[option] or (unknown := set(options[option]) - set(possible)):
            found = ", ".join(sorted(map(str, unknown))) if options[option] else "none"
            sys.exit(f"error: {option}: expected some of {', '.join(possible)}, found {found}")
    if options["shard"] is not None:
        index, _, count = str(options["shard"]).partition("/")
        if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            sys.exit(f"error: shard: expected 0/2, 1/2 or the like, found {options['shard']!r}")
        if options["part"] not in ("study", "rates"):
            sys.exit(
                f"error: shard: expected with part=study or part=rates, whose runs can be shared, found "
                f"part={options['part']}; give part=speed once before, and part=report after, both without shard"
            )
    return options


def _measure(out: Path, options: Mapping[str, Any]) -> None:
    """speed.csv; nano is in it in any case, since its time is the budget."""
    models = dict.fromkeys([*map(plan.config_of, options["models"]), "nano"])
    with tempfile.TemporaryDirectory(prefix="baselines-") as folder:
        commands = {
            (model, system): training(Run(model, system, "steps", 0, 1, options["lr"][model]), options, folder)
            for system in dict.fromkeys([*options["systems"], *options["rate_systems"]])
            for model in models
        }
        rows = []
        for row in speed.measure(commands, options["repeats"]):
            rows.append(row)
            print(
                f"{row['system']:<9} {row['model']:<5} {row['parameters'] / 1e6:6.2f} M  {row['gflop']:7.3f} GFLOP  "
                f"training step {row['step_s']:.4f} s  forecast {row['inference_ms']:.1f} ms",
                flush=True,
            )
    write_whole(out / "speed.csv", results.as_csv(rows, speed.FIELDS))


def _speeds(out: Path, options: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """speed.csv by (model, system).

    It has to be there: processes that share the runs must agree on their lengths.
    """
    measured = {(row["model"], row["system"]): row for row in results.read_speed(out / "speed.csv")}
    models = dict.fromkeys([*map(plan.config_of, options["models"]), "nano"])
    systems = dict.fromkeys([*options["systems"], *options["rate_systems"]])
    needed = {(model, system) for model in models for system in systems}
    if lacking := sorted(needed - measured.keys()):
        sys.exit(
            f"error: {out / 'speed.csv'} has no measured time of {', '.join(' on '.join(pair) for pair in lacking)}; "
            "give part=speed first, with the same models and systems"
        )
    return measured


def _check_same(wanted: Iterable[Run], done: Iterable[Mapping[str, Any]], out: Path) -> None:
    """Lines of other options must neither be taken for those of this study nor stand beside them."""
    now: dict[Any, set[tuple[int, float]]] = {}
    for run in wanted:
        now.setdefault((run.model, run.matched, run.seed, run.system), set()).add((run.steps, run.lr))
    for row in done:
        system = "all" if row["model"] == "mix" else row["system"]
        expected = now.get((row["model"], row["matched"], row["seed"], system))
        if expected is not None and (row["steps"], row["lr"]) not in expected:
            sys.exit(
                f"error: {out} holds a run of {row['model']} on {system} with {row['steps']} steps at the learning "
                f"rate {row['lr']:g}, which these options would run otherwise; choose another out"
            )


def _judged(run: Run, options: Mapping[str, Any]) -> list[str]:
    return plan.trained_on(run, options["systems"])


def _key(run: Run, system: str) -> tuple[str, ...]:
    return results.key_of({**run._asdict(), "system": system})


def training(run: Run, options: Mapping[str, Any], run_dir: str) -> list[str]:
    """Options of `python -m morph.train`."""
    systems = plan.trained_on(run, options["systems"])
    sizes = ",".join(f"{name}:{size}" for name, size in plan.batch_sizes(systems).items())
    model = plan.config_of(run.model)
    return [
        f"model={model}", f"data=[{','.join(systems)}]", f"seed={run.seed}", f"optimizer.lr={run.lr}",
        f"mixture.steps_per_epoch={run.steps}", "trainer.max_epochs=1", f"window.context={plan.CONTEXT}",
        f"batch_size={{{sizes}}}", f"mixture.weights={{{','.join(f'{name}:1.0' for name in systems)}}}",
        "loader.validation_windows=1", f"trainer.log_every_n_steps={min(10, run.steps)}", "trainer.accelerator=cpu",
        f"data_dir={options['data_dir']}",
        f"level={options['level']}", f"run_dir={run_dir}", *options["options"][model],
    ]  # fmt: skip


def judging(system: str, split: str, options: Mapping[str, Any], run_dir: str, checkpoint: str) -> list[str]:
    """Options of `python -m morph.evaluate`."""
    return [
        f"checkpoint={checkpoint}", f"data=[{system}]", f"split={split}", f"data_dir={options['data_dir']}",
        f"level={options['level']}", f"run_dir={run_dir}", "one_step_windows=64", "keep=0", "figures=false",
        f"steps={plan.rollout_steps(system, options['level'])}", f"batch_size={plan.batch_sizes([system])[system]}",
        "device=cpu",
    ]  # fmt: skip


def one(
    run: Run, options: Mapping[str, Any], measured: Mapping[tuple[str, str], Mapping[str, Any]], split: str = "test"
) -> list[dict[str, Any]]:
    """Train and judge the weights after the last step, none chosen by their validation; a line for each system."""
    folder = tempfile.mkdtemp(prefix="baselines-")
    rows = []
    try:
        command(train.main, training(run, options, f"{folder}/run"))
        checkpoint = f"{folder}/run/checkpoints/last.ckpt"
        seconds = read_checkpoint(checkpoint).seconds
        for system in _judged(run, options):
            start = time.perf_counter()
            command(evaluate.main, judging(system, split, options, f"{folder}/{system}", checkpoint))
            with xr.open_dataset(f"{folder}/{system}/metrics.nc", group=system, engine="h5netcdf") as metrics:
                errors = results.errors(metrics)
                lost = (
                    f"{int(metrics.unstable_from.sel(forecast='model').notnull().sum())}/{metrics.sizes['trajectory']}"
                )
            cost = measured.get((plan.config_of(run.model), system), {})
            rows.append(
                {**run._asdict(), "system": system, **errors, "unstable": lost, "train_s": seconds,
                 "judge_s": time.perf_counter() - start, **{name: cost.get(name) for name in results.COST}}
            )  # fmt: skip
    finally:
        shutil.rmtree(folder)
    return rows


def append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The lines of a run more, all or none."""
    before = list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []
    write_whole(path, results.as_csv([*before, *rows], results.FIELDS))


def _told(run: Run, rows: Sequence[Mapping[str, Any]]) -> str:
    ratios = [row["one_step"] / min(row["persistence_one_step"], row["extrapolation_one_step"]) for row in rows]
    judged = sum(row["judge_s"] for row in rows)
    return (
        f"{run.model:<5} {run.system:<9} matched {run.matched:<5} seed {run.seed}  {run.steps:>5} steps  lr {run.lr:g}"
        f"  one step {min(ratios):.3f} to {max(ratios):.3f} of the better naive forecast  "
        f"{rows[0]['train_s']:.0f} s + {judged:.0f} s"
    )


if __name__ == "__main__":
    main()
