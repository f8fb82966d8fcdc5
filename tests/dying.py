"""A callback that ends one process of a run, as faults do."""

import os
import signal
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

__all__ = ["Dies"]


class Dies(Callback):
    """Ends the process of a rank after a step.

    Args:
        rank: Which.
        how: value_error (what a user can mend), bug (any other error), exit (os._exit), kill
            (SIGKILL) or none.
        step: Batches after which it does.
    """

    def __init__(self, rank: int, how: str, step: int = 2) -> None:
        self.rank, self.how, self.step = rank, how, step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_rank != self.rank or batch_idx != self.step or self.how == "none":
            return
        if self.how == "value_error":
            raise ValueError("data set 'cfd1d': NaN in the data")
        if self.how == "bug":
            torch.zeros(2) @ torch.zeros(3)
        if self.how == "exit":
            os._exit(3)
        os.kill(os.getpid(), signal.SIGKILL)
