"""What the number of processes, and sharing the weights out over them, changes in a training: rounding alone.

    python -m experiments.survival.ranks out=runs/survival/ranks

The same run, of six batches per optimiser step, on 1, 2 and 3 processes of this machine, with whole weights (DDP) and
sharded ones (FSDP); and once more on 2 processes from a checkpoint that 3 left in the middle of an epoch.  Writes
ranks.csv and ranks.md: the largest differences to one process of the loss curve and of the weights in the end.
"""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from omegaconf import OmegaConf

from morph.checkpoint import find_checkpoint, read_checkpoint

DEFAULTS: dict[str, Any] = {
    "out": "runs/survival/ranks",  # where runs and tables go
    "data_dir": "data",
    "level": "tiny",
    "data": ["cfd1d", "dr2d", "mhd3d"],
    "steps": 20,  # in two epochs
    "batches_per_step": 6,
    "options": [],  # further options of each training
}
CASES: dict[str, tuple[str, int, str | None]] = {  # strategy, processes, what it resumes
    "1 process": ("auto", 1, None),
    "2 processes": ("ddp", 2, None),
    "3 processes": ("ddp", 3, None),
    "2 processes, sharded": ("fsdp", 2, None),
    "3 processes, then 2 sharded": ("fsdp", 2, "3 processes"),
}
FIELDS = ("case", "steps", "loss", "weights")


class Kept(Callback):
    """Writes the loss of each optimiser step: the mean over its batches, of all processes.

    Args:
        path: Of the file, one line for each step.
        copy: Of the checkpoint after half of the steps.
        half: These.
    """

    def __init__(self, path: str, copy: str, half: int) -> None:
        self.path, self.copy, self.half = Path(path), copy, half
        self.losses: list[torch.Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning hands over a batch's share of the loss."""
        self.losses.append(outputs["loss"].double())
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        loss = trainer.strategy.reduce(torch.stack(self.losses).sum(), reduce_op="mean")
        self.losses = []
        if trainer.is_global_zero:
            with self.path.open("a") as file:
                file.write(f"{trainer.global_step} {loss.item():.17g}\n")
        if trainer.global_step == self.half:
            trainer.save_checkpoint(self.copy)


def main() -> None:
    """Train, compare, write."""
    config = OmegaConf.merge(DEFAULTS, OmegaConf.from_cli())
    if unknown := set(config) - set(DEFAULTS):
        sys.exit(
            f"error: unknown options {', '.join(sorted(map(str, unknown)))}; expected some of {', '.join(DEFAULTS)}"
        )
    options: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    found = {case: train(out, case, options) for case in CASES}
    rows = [compare(case, found) for case in CASES]
    with (out / "ranks.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    text = table(rows)
    (out / "ranks.md").write_text(text)
    print(text, end="")


def train(out: Path, case: str, options: dict[str, Any]) -> tuple[dict[int, float], dict[str, torch.Tensor]]:
    """The losses of a case by step, and its weights in the end."""
    kind, processes, resumed = CASES[case]
    run = out / case.replace(", ", "_").replace(" ", "_")
    shutil.rmtree(run, ignore_errors=True)
    half = options["steps"] // 4  # in the middle of the first of two epochs
    kept = "+callbacks.kept"
    command = [
        "data=[" + ",".join(options["data"]) + "]", f"level={options['level']}", f"data_dir={options['data_dir']}",
        "model=nano", "model.dim=64", "model.depth=2", "model.dropout=0.1", "batch_size=2",
        f"mixture.steps_per_epoch={options['steps'] // 2}", "trainer.max_epochs=2", "loader.validation_windows=5",
        "trainer.accelerator=cpu", f"trainer.strategy={kind}", f"trainer.devices={processes}",
        f"batches_per_step={options['batches_per_step']}", f"run_dir={run}", *options["options"],
        f"{kept}._target_=experiments.survival.ranks.Kept", f"{kept}.path={run}.txt", f"{kept}.copy={run}.ckpt",
        f"{kept}.half={half}",
    ]  # fmt: skip
    if resumed is not None:
        source = out / f"{resumed.replace(' ', '_')}.ckpt"
        command.append(f"resume={source}")
    Path(f"{run}.txt").unlink(missing_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "morph.train", *command], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        sys.exit(f"{case}: {done.stdout}\n{done.stderr}")
    lines = [line.split() for line in Path(f"{run}.txt").read_text().splitlines()]
    weights = read_checkpoint(find_checkpoint(run, prefer="last")).weights
    return {int(step): float(loss) for step, loss in lines}, dict(weights)


def compare(case: str, found: dict[str, tuple[dict[int, float], dict[str, torch.Tensor]]]) -> dict[str, Any]:
    """The largest differences to one process, relative to the largest loss and the largest weight."""
    (losses, weights), (expected, reference) = found[case], found["1 process"]
    size = max(value.abs().max().item() for value in reference.values())
    apart = max((weights[name] - value).abs().max().item() for name, value in reference.items())
    loss = max(abs(losses[step] - expected[step]) for step in losses) / max(expected.values())
    return {"case": case, "steps": len(losses), "loss": loss, "weights": apart / size}


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown."""
    lines = ["| processes | steps | loss curve | weights in the end |", "|---|---|---|---|"]
    lines += [f"| {row['case']} | {row['steps']} | {row['loss']:.1e} | {row['weights']:.1e} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
