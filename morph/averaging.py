"""The average of the weights over the steps of training, which is what is validated and kept."""

import warnings
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch.optim.swa_utils import get_ema_multi_avg_fn

__all__ = ["Averaging"]


class Averaging(WeightAveraging):
    """Exponential moving average, e_1 = w_1 and e_t = e_(t-1) + (1 - decay) (w_t - e_(t-1)) after step t.

    Written so, weights that are not trained stay what they are, bit for bit, as the base of an adapter has to.

    A checkpoint then holds both: the averaged weights where other checkpoints hold the weights, so that all that reads
    it takes these, and the trained ones, with which a run goes on.

    Args:
        decay: Of the average; 0.999 remembers about a thousand steps.

    Raises:
        ValueError: The decay is none, or the weights are spread over processes.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 < decay < 1:
            raise ValueError(f"ema: expected a decay between 0 and 1, such as 0.999, or null, found {decay!r}")
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))
        self._validating = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin the average."""
        if isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy):
            raise ValueError(
                "ema: each process holds a part of the weights here; take trainer.strategy=ddp, or ema=null"
            )
        with warnings.catch_warnings():
            # It fears weights that are made there; here they are shared out there, by the strategies that are refused.
            warnings.filterwarnings("ignore", message=".*overrides the configure_model")
            super().setup(trainer, pl_module, stage)

    def _swap_models(self, pl_module: LightningModule) -> None:
        self._validating = not self._validating
        super()._swap_models(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """A run that ends inside of validation leaves its weights where they belong."""
        if self._validating:
            self._swap_models(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Unlike Lightning's, leave the trained weights in place: a checkpoint that is written after this would lose
        them."""

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Both kinds of weights, each under its name, also from inside of validation."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._validating:
            names = ("state_dict", "current_model_state")
            checkpoint |= dict(zip(names, [checkpoint[name] for name in reversed(names)], strict=True))
