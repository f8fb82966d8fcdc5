"""What a recipe is worth at a fixed budget: trains and judges rows, and writes the table.

    python experiments/recipe/run.py rows=[published,default] seeds=[0] out=runs/recipe

Each row and seed is `python -m morph.train` and `python -m morph.evaluate`; those whose numbers are in `out` already
are not repeated.
"""

import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from tqdm import tqdm

from data_adapters.suite.systems import find_system
from experiments.in_process import command
from experiments.recipe import figure, judge, table
from experiments.recipe.rows import BATCH, CONTEXT, HELD_OUT, MIX, ROWS, Row
from morph import evaluate, train
from morph.checkpoint import read_checkpoint
from morph.provenance import write_whole

__all__ = ["DEFAULTS", "main", "options_of_command_line", "training"]

DEFAULTS: dict[str, Any] = {
    "rows": ["published", "fno", "unet", "default"],  # see rows.py
    "seeds": [0],
    "out": "runs/recipe",  # where errors, table.json and table.md go
    "steps": 1500,  # of the mix; those of a row with a model for each system are shared by its models
    "split": "test",  # valid while choosing between rows
    "windows": 64,  # of each system, one step ahead
    "start": 4,  # frames before the first that is forecast, also by rows that see fewer
    "rollout": None,  # frames of the longest rollouts that are judged; None: to the end of each trajectory
    "level": "small",
    "data_dir": "data",
    "extra": [],  # further options of training, for all rows
    "keep": False,  # the runs themselves, in out/runs
}

_PROTOCOL = ("steps", "split", "start", "windows", "rollout", "level", "extra")
"""What rows of one table have in common."""


def main() -> None:
    """Train and judge what is missing, then write the table of all that is there."""
    options = options_of_command_line()
    out = Path(options["out"])
    out.mkdir(parents=True, exist_ok=True)
    wanted = [(name, seed) for seed in options["seeds"] for name in options["rows"]]
    for name, seed in wanted:
        _check_stored(_result(out, name, seed), options)
    missing = [(name, seed) for name, seed in wanted if not _result(out, name, seed).exists()]
    for name, seed in tqdm(missing, desc="rows", unit="run", disable=None):
        found = one(name, ROWS[name], seed, options, out)
        write_whole(_result(out, name, seed), json.dumps(found, indent=1) + "\n")
        print(table.line(found), flush=True)
    table.write(out)
    figure.write(out)
    print(f"Results in {out}: table.json, table.md, errors.png")


def options_of_command_line() -> dict[str, Any]:
    """DEFAULTS with what the command line says; exits with a message where it says what is not possible."""
    known = OmegaConf.create(DEFAULTS)
    OmegaConf.set_struct(known, True)
    if {"-h", "--help"} & set(sys.argv[1:]):
        sys.exit(f"{__doc__}\nOptions and their defaults:\n\n{OmegaConf.to_yaml(known)}\nRows: {', '.join(ROWS)}")
    try:
        config = OmegaConf.merge(known, OmegaConf.from_cli())
    except OmegaConfBaseException as error:
        sys.exit(f"error: {error.full_key or 'options'}: expected some of {', '.join(DEFAULTS)}: {error.msg}")
    options: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
    if not options["rows"] or (unknown := set(options["rows"]) - set(ROWS)):
        found = ", ".join(sorted(map(str, unknown))) if options["rows"] else "none"
        sys.exit(f"error: rows: expected some of {', '.join(ROWS)}, found {found}")
    for option in ("steps", "windows", "start"):
        if not isinstance(options[option], int) or options[option] < 1:
            sys.exit(f"error: {option}: expected a positive integer, found {options[option]!r}")
    if not options["seeds"] or not all(isinstance(seed, int) for seed in options["seeds"]):
        sys.exit(f"error: seeds: expected whole numbers, found {options['seeds']!r}")
    return options


def _check_stored(path: Path, options: Mapping[str, Any]) -> None:
    """What is there already is of the same protocol."""
    if not path.exists():
        return
    stored = json.loads(path.read_text())
    for option in _PROTOCOL:  # earlier files do not say all of them
        if stored.get(option, options[option]) != options[option]:
            sys.exit(f"error: {option}: {path} is of {option}={stored[option]}; give another out=, or remove it")


def _result(out: Path, name: str, seed: int) -> Path:
    return out / "rows" / f"{name}-{seed}.json"


def training(row: Row, systems: tuple[str, ...], seed: int, steps: int, options: Mapping[str, Any]) -> list[str]:
    """Options of `python -m morph.train`, without the folder: each system of the mix is drawn equally often."""
    return [
        *row.options[:1], f"data=[{','.join(systems)}]", f"seed={seed}", f"mixture.steps_per_epoch={steps}",
        "trainer.max_epochs=1", f"batch_size={{{','.join(f'{name}:{BATCH[name]}' for name in systems)}}}",
        f"mixture.weights={{{','.join(f'{name}:1.0' for name in systems)}}}", "loader.validation_windows=8",
        f"level={options['level']}", f"data_dir={options['data_dir']}", "trainer.accelerator=cpu",
        *row.options[1:], *options["extra"],
    ]  # fmt: skip


def one(name: str, row: Row, seed: int, options: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Train and judge the weights after the last step, none chosen by their validation."""
    kept = out / "rows" / f"{name}-{seed}.nc"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.unlink(missing_ok=True)
    groups = [(system,) for system in MIX] if row.each else [MIX]
    seconds, parameters, milliseconds, judged = 0.0, [], {}, 0.0
    for group in groups:
        folder = out / "runs" / f"{name}-{seed}" / ("mix" if len(group) > 1 else group[0])
        steps = options["steps"] // len(groups)
        command(train.main, [*training(row, group, seed, steps, options), f"run_dir={folder}", "overwrite=true"])
        checkpoint = folder / "checkpoints" / "last.ckpt"
        stored = read_checkpoint(checkpoint)
        seconds += stored.seconds or 0.0
        parameters.append(sum(value.numel() for value in stored.weights.values()))
        systems = group if row.each else (*MIX, *HELD_OUT)
        began = time.perf_counter()
        for system in systems:
            command(evaluate.main, [
                f"checkpoint={checkpoint}", f"data=[{system}]", f"split={options['split']}", "keep=0", "figures=false",
                f"one_step_windows={options['windows']}", f"batch_size={BATCH[system]}", "device=cpu",
                f"start={max(options['start'], stored.trained_on.context)}",
                f"run_dir={folder / 'evaluation'}", *_length(system, options),
            ])  # fmt: skip
            judge.keep(folder / "evaluation", kept, [system])
            milliseconds[system] = _milliseconds(folder / "evaluation", system)
        judged += time.perf_counter() - began
        if not options["keep"]:
            shutil.rmtree(folder)
    return {
        "row": name, "seed": seed, **{option: options[option] for option in _PROTOCOL},
        **judge.numbers(kept), "train_seconds": seconds, "judge_seconds": judged, "parameters": parameters,
        "inference_ms": milliseconds,
    }  # fmt: skip


def _length(system: str, options: Mapping[str, Any]) -> list[str]:
    frames = find_system(system).levels[options["level"]].num_frames - CONTEXT
    return [] if options["rollout"] is None else [f"steps={min(options['rollout'], frames)}"]


def _milliseconds(folder: Path, system: str) -> float | None:
    """Of a forecast step of one sample, as the evaluation measured it."""
    milliseconds: float | None = json.loads((folder / "summary.json").read_text())[system]["cost"]["model"][
        "inference_ms"
    ]
    return milliseconds


if __name__ == "__main__":
    main()
