"""What a training run tells the person who waits for it."""

import sys
import warnings
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from rich import get_console

from morph.telemetry import Telemetry

__all__ = ["RunProgress", "quiet_warnings"]


def quiet_warnings() -> None:
    """Silence what a user can do nothing about, or asked for."""
    for message in (
        "`isinstance.treespec, LeafSpec.` is deprecated",  # Lightning 2.6 under torch 2.13
        "FSDP2-wrapped module .* returned a view tensor",  # nothing is done in place with it
        ".*does not have many workers",  # loader.num_workers is the user's choice
        ".*is smaller than the logging interval",  # the log has a line for each validation, too
        "Checkpoint directory .* exists and is not empty",  # a resumed run goes on in its folder
    ):
        warnings.filterwarnings("ignore", message=message)


class RunProgress(RichProgressBar):
    """A bar in a terminal and one line per validation, which a log file shows too.

    The line tells the step, the loss, and the ratio of the one-step error to the better naive forecast's, as a
    geometric mean and per data set: below 1 is better than doing nothing.  With `Telemetry` among the callbacks, also
    how fast training was since the last one, and how much of the time it waited for data.
    """

    def __init__(self) -> None:
        super().__init__()
        if not sys.stdout.isatty():
            self.disable()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Without the logger's version number."""
        return {k: v for k, v in super().get_metrics(trainer, pl_module).items() if k != "v_num"}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line."""
        super().on_validation_end(trainer, pl_module)
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        scores = trainer.callback_metrics
        prefix = "val/ratio/"
        ratios = "  ".join(f"{k.removeprefix(prefix)} {v:.2f}" for k, v in scores.items() if k.startswith(prefix))
        loss = f"loss {scores['train/loss']:.4f}  " if "train/loss" in scores else ""
        line = f"step {trainer.global_step:>6}  {loss}ratio {scores['val/ratio']:.3f}  ({ratios})"
        for telemetry in (one for one in trainer.callbacks if isinstance(one, Telemetry)):  # type: ignore[attr-defined]
            line += telemetry.summary
        get_console().print(line, markup=False, highlight=False, soft_wrap=True)
