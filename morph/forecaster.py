"""Training under Lightning: loss, validation, optimiser."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from morph.baselines import NAIVE
from morph.data.module import MixtureDataModule
from morph.finetune import train_only
from morph.layout import Batch
from morph.loss import NonFiniteError, batch_loss, forecast_loss, locate
from morph.metrics import is_defined, vrmse
from morph.model.morph import Morph
from morph.model.surrogate import Surrogate
from morph.objective import Objective
from morph.rollout import Forecast
from morph.sharding import shard, whole

__all__ = ["Forecaster", "MicroStep", "NonFiniteError", "StepLoss", "Stopwatch", "forecast_loss", "warmup_cosine"]


class StepLoss(NamedTuple):
    """Of an optimiser step, counted from 1: its data set, and its loss, the mean over micro-batches and processes."""

    step: int
    dataset: str
    loss: float


class MicroStep(NamedTuple):
    """One batch of an optimiser step.

    dataset, windows: Of the batch, see `Batch`.
    loss: Of it.
    seed: Of its dropout.
    batch: Itself; None of one with a finite loss after which others of the step have come, as keeping all of them
        would take the memory that accumulating saves.
    """

    dataset: str
    windows: Int[Tensor, "B 2"]
    loss: Tensor
    seed: int
    batch: Batch | None


def warmup_cosine(
    optimizer: Optimizer, total_steps: int, warmup_fraction: float = 0.05, final_fraction: float = 0.01
) -> LambdaLR:
    """Learning rate that rises linearly over the first steps and falls along a cosine to a fraction of its peak."""
    warmup = max(1, round(warmup_fraction * total_steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


class Forecaster(LightningModule):
    """Trains a model to forecast the S target frames of a window from its T context frames.

    With S > 1 the model is unrolled on its own forecasts and the gradient flows through all of them.  The loss is in
    the unit of the model's output (see `Normalisation`), so that slow and fast systems weigh alike.

    Args:
        model: What to train.
        optimizer: Called with the parameter groups.
        schedule: Called with (optimizer, total_steps); None keeps the rate constant.
        weight_decay: Of matrices and kernels; biases, norms, positions and queries do not decay.
        seed: Of dropout.  Each batch has its own generator state: a resumed run draws what an uninterrupted one does.
        finetune: What is trained: `train`, for each of `morph.finetune.PARTS` its `lr` and `weight_decay`, where they
            are not those of all, and `last_blocks`, see `train_only`; None: everything.
        base: What a fine-tuned model started from, see `morph.checkpoint.base_of`; stored in checkpoints.
        objective: What of a batch is made small.
        recipe: Further options that decide its numbers, as they were given, see `morph.resume.recipe`.

    Raises:
        NonFiniteError: In a step; names the data set, the windows and the step.  With `morph.guard.Guard` among the
            callbacks, training skips such a step.
    """

    def __init__(
        self,
        model: Surrogate,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., LambdaLR] | None = warmup_cosine,
        weight_decay: float = 0.01,
        seed: int = 0,
        finetune: Mapping[str, Any] | None = None,
        base: Mapping[str, str] | None = None,
        recipe: Mapping[str, Any] | None = None,
        objective: Objective | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.weight_decay = weight_decay
        self.seed = seed
        self.objective = objective or Objective()
        self.finetune = dict(finetune or {})
        self.base = dict(base or {})
        self.recipe = dict(recipe or {})
        known = model.trained_on
        self._before = () if known is None else tuple(sorted(known.names))
        self.parts: dict[str, list[Tensor]] = {}
        if finetune is not None:
            if not isinstance(model, Morph):
                raise ValueError("finetune is for a Morph, and this model is none")
            self.parts = train_only(model, list(self.finetune["train"]), self.finetune.get("last_blocks"))
        self.micro_losses: list[Tensor] = []  # of the batches of the step that is not done yet
        self.last_step: StepLoss | None = None
        self._scores: dict[str, Tensor] = {}
        self._watch = Stopwatch()
        self.micro_steps: list[MicroStep] = []
        self._step_of_these = -1
        self.skip_step: Callable[[], bool] | None = None

    @property
    def trained(self) -> dict[str, Any]:
        """What decides what is trained, and how, by option; a resumed run must not change it."""
        return {**dict(_options(self.finetune, "finetune.")), **dict(_options(self.recipe))}

    @property
    def _data(self) -> MixtureDataModule:
        data: MixtureDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        return data

    def setup(self, stage: str) -> None:
        """As `check` of the data that it is trained on."""
        self.check(self._data)

    def check(self, data: MixtureDataModule) -> None:
        """Refuse data on which the model cannot be trained; after its `setup`.

        Raises:
            ValueError: A data set exceeds the model's capacity or lacks the statistics that it needs, or the context
                leaves what is trained unused.
        """
        if data.context == 1 and "time_attention" in self.parts:
            raise ValueError(
                "finetune.train: time_attention has no effect on a context of one frame; raise window.context"
            )
        for name, spec in data.specs.items():
            shape = (spec.num_fields, spec.num_components, len(spec.axes))
            self.model.admit(f"data set {name!r}", data.context, *shape)
            if self.model.normalisation.kind == "dataset" and data.train[name].adapter.statistics is None:
                raise ValueError(
                    f"data set {name!r}: normalisation=dataset needs the statistics of its training split, and there "
                    f"are none; python -m data_adapters.check dataset={name} stores them, or take normalisation=context"
                )

    def configure_model(self) -> None:
        """Share the weights out where the strategy has processes for that."""
        if self.device_mesh is not None:
            if self.parts:
                raise ValueError("finetune: trainer.strategy=fsdp trains all of a model; take trainer.strategy=ddp")
            shard(self.model, self.device_mesh["data_parallel"])

    def on_train_start(self) -> None:
        """Time counts from here, except for validation."""
        self._watch.start()

    def on_validation_start(self) -> None:
        """Time stands still."""
        self._watch.stop()

    def on_validation_end(self) -> None:
        """Time goes on, unless it was the validation before training, or without any."""
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self._watch.start()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Time of the run until then, not a number where that is not known; and where it stands in its epoch."""
        _count_in_batches(checkpoint["loops"]["fit_loop"], self.trainer.accumulate_grad_batches)
        seconds = checkpoint["morph"].get("seconds")
        self._watch = Stopwatch(math.nan if seconds is None else seconds)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout from the step's number in the run and the batch's in the step, whichever process computes it."""
        trainer = self.trainer
        in_epoch, mine = divmod(batch_idx, trainer.accumulate_grad_batches)
        step = self.current_epoch * self._data.steps_per_epoch + in_epoch
        number = self.global_rank + trainer.world_size * mine
        torch.manual_seed(((self.seed * 1_000_003 + step) * 65_537 + number) % 2**63)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch; of one that is not finite the gradient is NaN, on all processes once it is reduced."""
        if self._step_of_these != self.global_step:
            self.micro_steps, self._step_of_these = [], self.global_step
        if self.micro_steps and torch.isfinite(self.micro_steps[-1].loss):
            self.micro_steps[-1] = self.micro_steps[-1]._replace(batch=None)
        loss = batch_loss(self.model, batch, self.objective)
        self.micro_steps.append(MicroStep(batch.dataset, batch.windows, loss.detach(), torch.initial_seed(), batch))
        self.micro_losses.append(loss.detach())
        # A square that overflows has a finite gradient.
        return loss * torch.where(torch.isfinite(loss), 1.0, math.nan)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient; without any, the optimiser leaves weights and its own state as they are.

        Called once for each step, whether or not anything is clipped.  All processes see the same gradient, so that all
        of them skip a step or none does.
        """
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = get_total_norm([p.grad for p in parameters])
        if not torch.isfinite(whole(norm)):
            if self.skip_step is None:
                raise NonFiniteError(self.locate_nonfinite())
            if self.skip_step():
                for parameter in parameters:
                    parameter.grad = None
            return
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if gradient_clip_val and gradient_clip_algorithm in (None, "norm") and not scaled:
            clip_grads_with_norm_(parameters, gradient_clip_val, norm)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def locate_nonfinite(self) -> str:
        """What is not finite in the step that is being done, see `locate`."""
        lost = [done for done in self.micro_steps if not torch.isfinite(done.loss)]
        done, what = (lost[0], "loss") if lost else (self.micro_steps[-1], "gradient")
        return locate(self.batch_of(done), f"training step {self.global_step + 1}", what)

    def batch_of(self, done: MicroStep) -> Batch:
        """Kept, or read again."""
        return self._data.train[done.dataset].again(done.windows) if done.batch is None else done.batch

    def on_validation_epoch_start(self) -> None:
        """Forget the scores of the epoch before."""
        self._scores = {}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """One-step VRMSE of the model and of the naive forecasts, mean over fields, summed per data set.

        Of a masked data set a field without data in the target is left out of the mean, and a window without any out of
        the sum and its count.
        """
        target = batch.target[:, 0]
        mask = batch.conditions.component_mask
        judged: list[Forecast] = [self.model, *NAIVE.values()]
        forecasts = [forecast(batch.context, batch.conditions).float() for forecast in judged]
        if batch.valid is None:
            errors = torch.stack([vrmse(forecast, target, mask).mean(-1) for forecast in forecasts])
        else:
            valid = batch.valid[:, 0]
            counted = is_defined(vrmse, mask, valid)
            per_field = torch.stack([vrmse(forecast, target, mask, valid) for forecast in forecasts])
            errors = torch.where(counted, per_field, 0.0).sum(-1) / counted.sum(-1)
            errors = errors[:, counted.any(-1)]
        if not torch.isfinite(errors).all():
            raise NonFiniteError(locate(batch, f"validation after step {self.global_step}", "forecast"))
        if not self._data.counts(batch_idx):
            return
        sums = torch.cat([errors.double().sum(1), errors.new_full((1,), errors.shape[1]).double()])
        self._scores[batch.dataset] = self._scores.get(batch.dataset, 0) + sums

    def on_validation_epoch_end(self) -> None:
        """Log, per data set, the one-step VRMSE and its ratio to the better naive forecast; `val/ratio` is their
        geometric mean.  Of a masked data set, also the number of windows that these are means of."""
        names = list(self._data.datasets)
        none = torch.zeros(2 + len(NAIVE), dtype=torch.float64, device=self.device)
        table = torch.stack([self._scores.get(name, none) for name in names])
        if self.trainer.world_size > 1:
            table = self.trainer.strategy.reduce(table, reduce_op="sum")
        if missing := [name for name, row in zip(names, table, strict=True) if not row[-1]]:
            with_data = " that holds data" if any(self._data.specs[name].masked for name in missing) else ""
            raise ValueError(
                f"validation saw no window of {', '.join(missing)}{with_data}; raise loader.validation_windows"
            )
        errors = table[:, :-1] / table[:, -1:]
        ratios = errors[:, 0] / errors[:, 1:].min(1).values
        scores = {"val/ratio": ratios.log().mean().exp()}
        for name, error, ratio in zip(names, errors[:, 0], ratios, strict=True):
            scores |= {f"val/vrmse/{name}": error, f"val/ratio/{name}": ratio}
        specs = self._data.specs
        scores |= {f"val/windows/{name}": row[-1] for name, row in zip(names, table, strict=True) if specs[name].masked}
        self.log_dict({key: value.float() for key, value in scores.items()}, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule by step."""
        optimizer = self.optimizer(self._parameter_groups())
        if self.schedule is None:
            return optimizer
        schedule = self.schedule(optimizer, self._total_steps())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _parameter_groups(self) -> list[dict[str, Any]]:
        decayed = {id(weight) for weight in self.model.kernels}
        parts: Mapping[str, Sequence[Tensor]] = self.parts or {"all": list(self.model.parameters())}
        groups = []
        for part, parameters in parts.items():
            rates = dict(self.finetune["train"][part] or {}) if self.parts else {}
            decay = rates.pop("weight_decay", self.weight_decay)
            some = [p for p in parameters if id(p) in decayed]
            rest = [p for p in parameters if id(p) not in decayed]
            groups += [
                {"params": some, "weight_decay": decay, "name": part, **rates},
                {"params": rest, "weight_decay": 0.0, "name": f"{part}, undecayed", **rates},
            ]
        return [group for group in groups if group["params"]]

    def _total_steps(self) -> int:
        """Optimiser steps of the whole run.

        Not `trainer.estimated_stepping_batches`: it loads the data before Lightning 2.6 restores where the data stood.
        """
        trainer = self.trainer
        steps = [trainer.max_steps] if trainer.max_steps >= 0 else []
        if trainer.max_epochs is not None and trainer.max_epochs >= 0:
            steps.append(trainer.max_epochs * self._data.steps_per_epoch)
        if not steps:
            raise ValueError("the schedule needs an end: set trainer.max_epochs or trainer.max_steps, or schedule=null")
        return min(steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a forecast needs besides the weights: the architecture and what the model was trained on."""
        data = self._data
        checkpoint["morph"] = {
            "model": self.model.config,
            **replace(data.trained_on, before=self._before).to_dict(),
            "options": dict(data.options),
            "plan": data.plan | self.trained,
            "adapter": dict(self.model.adapter),
            "base": self.base,
            "seconds": None if math.isnan(self._watch.seconds) else self._watch.seconds,
        }


class Stopwatch:
    """Seconds between starts and stops.

    Args:
        seconds: That it shows in the beginning.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """Until now."""
        return self._seconds + (0.0 if self._since is None else perf_counter() - self._since)

    def start(self) -> None:
        """Go on."""
        self._seconds, self._since = self.seconds, perf_counter()

    def stop(self) -> None:
        """Stand still."""
        self._seconds, self._since = self.seconds, None


def _options(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _options(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _count_in_batches(progress: dict[str, Any], per_step: int) -> None:
    """Lightning counts the batches of each process: let its counts say where the steps that were made leave off when
    each is now so many batches.  They stay as they are unless the number of processes changed."""
    steps = progress["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]
    batches = progress["epoch_loop.batch_progress"]
    for counts in ("total", "current"):
        moved = steps[counts]["completed"] * per_step - batches[counts]["ready"]
        batches[counts] = {key: count + moved for key, count in batches[counts].items()}
