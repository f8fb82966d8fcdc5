"""What pretraining is worth on systems that it has not seen: fine-tuning by every level against training from scratch.

    python -m experiments.transfer.run checkpoint=runs/pretrain

Each run is `python -m morph.train checkpoint=... finetune=...` and `python -m morph.evaluate`, with
the options that `training` and `judging` return.  Runs whose line is in the results already are not repeated.
"""

import csv
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from experiments.in_process import command
from experiments.transfer import report
from morph import evaluate, train

DEFAULTS: dict[str, Any] = {
    "checkpoint": "???",  # of the pretrained model
    "out": "runs/transfer",  # where results.csv, tables and figures go
    "data_dir": "data",
    "level": "small",
    "systems": ["dr1d", "burgers1d", "gs2d", "ns3d"],
    "trajectories": [1, 4, 16, 64],  # more than a system has are all that it has
    "methods": ["scratch", "lora", "lora_encoder", "lora_encoder_decoder", "full", "decoder"],
    "seeds": [0, 1, 2],
    "steps": 200,
    "options": [],  # further options of each training run, such as finetune.train.lora.lr=3e-3
}
NUM_TRAJECTORIES = {"dr1d": 64, "burgers1d": 64, "gs2d": 32, "ns3d": 12}  # of the training split at level small
BATCH = {"dr1d": 8, "burgers1d": 8, "gs2d": 4, "ns3d": 1}
FIELDS = (
    "system", "method", "trajectories", "seed", "one_step", "rollout", "persistence", "persistence_rollout",
    "extrapolation", "extrapolation_rollout", "unstable", "trained", "seconds",
)  # fmt: skip


def main() -> None:
    """Run what is missing, then write the tables and figures."""
    config = OmegaConf.merge(DEFAULTS, OmegaConf.from_cli())
    if unknown := set(config) - set(DEFAULTS):
        sys.exit(
            f"error: unknown options {', '.join(sorted(map(str, unknown)))}; expected some of {', '.join(DEFAULTS)}"
        )
    if OmegaConf.is_missing(config, "checkpoint"):
        sys.exit("error: checkpoint: give that of the pretrained model")
    options: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    results = out / "results.csv"
    done = {key_of(row) for row in report.read(results)}
    missing = [run for run in runs(options) if key_of(run) not in done]
    for number, run in enumerate(missing, start=1):
        row = one(run, options)
        append(results, row)
        error = float("inf") if row["one_step"] is None else row["one_step"]
        ratio = error / min(float(row["persistence"]), float(row["extrapolation"]))
        print(
            f"{number}/{len(missing)}  {row['system']:<9} {row['method']:<20} {row['trajectories']:>2} trajectories  "
            f"seed {row['seed']}  one step {ratio:.3f} of the better naive forecast  {row['seconds']:.0f} s",
            flush=True,
        )
    report.write(out, options)


def runs(options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every run, the seeds outermost, so that an early end leaves whole seeds."""
    for system in options["systems"]:
        yield {"system": system, "method": "zero-shot", "trajectories": 0, "seed": 0}
    for seed in options["seeds"]:
        for system in options["systems"]:
            for count in sorted({min(n, NUM_TRAJECTORIES[system]) for n in options["trajectories"]}):
                for method in options["methods"]:
                    yield {"system": system, "method": method, "trajectories": count, "seed": seed}


def key_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What tells a run from the others."""
    return tuple(str(row[name]) for name in FIELDS[:4])


def training(run: Mapping[str, Any], options: Mapping[str, Any], run_dir: str) -> list[str]:
    """Options of `python -m morph.train`."""
    return [
        f"checkpoint={options['checkpoint']}", f"finetune={run['method']}", f"data={run['system']}",
        f"num_trajectories={run['trajectories']}", f"seed={run['seed']}", f"batch_size={BATCH[run['system']]}",
        f"mixture.steps_per_epoch={options['steps']}", "trainer.max_epochs=1", "window.context=null",
        "loader.validation_windows=4", f"data_dir={options['data_dir']}", f"level={options['level']}",
        f"run_dir={run_dir}", *options["options"],
    ]  # fmt: skip


def judging(run: Mapping[str, Any], options: Mapping[str, Any], run_dir: str, checkpoint: str) -> list[str]:
    """Options of `python -m morph.evaluate`: the weights after the last step, none chosen by their validation."""
    return [
        f"checkpoint={checkpoint}", f"data={run['system']}", f"data_dir={options['data_dir']}",
        f"level={options['level']}", f"run_dir={run_dir}", "one_step_windows=64", "steps=10", "keep=0", "figures=false",
        f"batch_size={BATCH[run['system']]}",
    ]  # fmt: skip


def one(run: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Train and judge; a line of the results."""
    folder = tempfile.mkdtemp(prefix="transfer-")
    start, trained = time.perf_counter(), 0
    try:
        checkpoint = str(options["checkpoint"])
        if run["method"] != "zero-shot":
            command(train.main, training(run, options, f"{folder}/run"))
            checkpoint = f"{folder}/run/checkpoints/last.ckpt"
            seconds = time.perf_counter() - start
            state = torch.load(checkpoint, weights_only=True)["optimizer_states"][0]["state"]
            trained = sum(value["exp_avg"].numel() for value in state.values())
        else:
            seconds = 0.0
        command(evaluate.main, judging(run, options, f"{folder}/evaluation", checkpoint))
        found = json.loads(Path(folder, "evaluation", "summary.json").read_text())[run["system"]]
    finally:
        shutil.rmtree(folder)
    return {
        **run,
        "one_step": found["one_step_vrmse"],
        "rollout": found["rollout_vrmse"],
        "persistence": found["persistence_vrmse"],
        "persistence_rollout": found["persistence_rollout_vrmse"],
        "extrapolation": found["extrapolation_vrmse"],
        "extrapolation_rollout": found["extrapolation_rollout_vrmse"],
        "unstable": f"{found['unstable']}/{found['trajectories']}",
        "trained": trained,
        "seconds": seconds,
    }


def append(path: Path, row: Mapping[str, Any]) -> None:
    """A line more."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
