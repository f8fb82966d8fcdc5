"""What a training run tells the person who waits for it."""

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from morph.model.morph import Morph

__all__ = ["EpochLines", "announce"]


@rank_zero_only
def announce(model: Morph, datasets: Collection[str], run_dir: Path, resume: Path | None) -> None:
    """Say what is about to be trained, on what, and where the result will be."""
    count = sum(p.numel() for p in model.parameters())
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"Training {count / 1e6:.1f} M parameters on {', '.join(datasets)} ({device})")
    print(f"Results in {run_dir}" + (f", continuing from {resume}" if resume else ""), flush=True)


class EpochLines(Callback):
    """One line per validation, which also a log file shows: step, loss, and the ratio of the one-step error to the
    better naive forecast's, per data set (below 1 is better than doing nothing)."""

    def __init__(self) -> None:
        self.console = Console(file=sys.stdout, soft_wrap=True, highlight=False)

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line."""
        if trainer.sanity_checking:
            return
        scores: dict[str, Any] = trainer.callback_metrics
        prefix = "val/ratio/"
        ratios = "  ".join(f"{k.removeprefix(prefix)} {v:.2f}" for k, v in scores.items() if k.startswith(prefix))
        loss = f"loss {scores['train/loss']:.4f}  " if "train/loss" in scores else ""
        self.console.print(
            f"step {trainer.global_step:>6}  {loss}ratio {scores['val/ratio']:.3f}  [{ratios}]", markup=False
        )
