"""What a checkpoint costs: seconds that training stands still while it is written, against the seconds of a step.

    python -m experiments.survival.overhead            # size Ti, a minute
    python -m experiments.survival.overhead model=nano steps=60

Trains on 2-D data with a checkpoint every few steps, and times each step and each checkpoint in one run.
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Trainer
from omegaconf import OmegaConf

from experiments.in_process import command
from morph import train
from morph.checkpoint import read_checkpoint
from morph.checkpoint_files import saved_steps

__all__ = ["main"]

OPTIONS: dict[str, Any] = {"model": "ti", "steps": 40, "every": 4, "data": "ns2d", "work": "runs/overhead", "out": None}
SHARE = 0.05
"""Of the time of training, for checkpoints."""


def main(arguments: list[str]) -> None:
    """Train, time, print."""
    options: Any = OmegaConf.to_container(OmegaConf.merge(OPTIONS, OmegaConf.from_dotlist(arguments)))
    if unknown := set(options) - set(OPTIONS):
        sys.exit(f"error: unknown option {', '.join(sorted(unknown))}; expected {', '.join(OPTIONS)}")
    work = Path(options["work"])
    shutil.rmtree(work, ignore_errors=True)
    saving: list[float] = []
    save = Trainer.save_checkpoint

    def timed(*arguments: Any, **named: Any) -> None:
        start = time.perf_counter()
        save(*arguments, **named)
        saving.append(time.perf_counter() - start)

    Trainer.save_checkpoint = timed  # type: ignore[method-assign]
    command(
        train.main,
        [f"model={options['model']}", f"data={options['data']}", "level=tiny", f"run_dir={work}", "batch_size=4",
         f"checkpoint_every={options['every']}", f"mixture.steps_per_epoch={options['steps']}", "trainer.max_epochs=1",
         "loader.validation_windows=4"],
    )  # fmt: skip
    size = next(iter(saved_steps(work / "checkpoints").values())).stat().st_size
    seconds = read_checkpoint(work).seconds
    assert seconds is not None, "of a run that was not resumed"
    step = (seconds - sum(saving[:-1])) / options["steps"]
    one = float(np.median(saving))
    figures = {
        "model": options["model"], "cores": os.cpu_count(), "step_ms": round(1e3 * step, 1),
        "checkpoint_mb": round(size / 1e6, 1), "checkpoint_ms": round(1e3 * one, 1),
        "checkpoint_ms_largest": round(1e3 * max(saving), 1),
        "percent_at_every_500_steps": round(100 * one / (500 * step), 3),
        "fewest_steps_for_5_percent": int(np.ceil(one / (SHARE * step))),
    }  # fmt: skip
    text = json.dumps(figures, indent=2)
    print(text)
    if options["out"]:
        Path(options["out"], "overhead.json").write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
