"""How fast a run is, how much of its time it waits for data, how much memory it holds, and how near it comes to what
the device can do: in the logs, so that a device that starves is seen."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from rich import get_console

from morph.cost import count_operations, least_times, matrix_product
from morph.forecaster import Forecaster, Stopwatch
from morph.layout import Batch
from morph.model.surrogate import Surrogate

__all__ = ["Done", "Telemetry", "step_operations"]

_STARVING = 0.3  # of the time waiting for data, over at least so many seconds:
_LONG = 10.0
_SIZE_ON_CPU = 1024  # of the matrices whose product measures the device: a few hundredths of a second


class Done(NamedTuple):
    """What training did until a moment, validation left out; differences say what it did in between.

    seconds: that it took.
    waited: of these, in which it waited for data.
    steps: of the optimiser.
    samples: windows, of this process.
    operations: of the model, forward and backward, of this process.
    """

    seconds: float = 0.0
    waited: float = 0.0
    steps: int = 0
    samples: int = 0
    operations: float = 0.0

    def since(self, before: "Done") -> "Done":
        """What was done after another moment."""
        return Done(
            self.seconds - before.seconds,
            self.waited - before.waited,
            self.steps - before.steps,
            self.samples - before.samples,
            self.operations - before.operations,
        )

    @property
    def share_waited(self) -> float:
        """Of the time."""
        return self.waited / self.seconds if self.seconds else 0.0


class Telemetry(Callback):
    """Logs every `trainer.log_every_n_steps` steps, of the time since the last such step, validation left out:

    - `speed/samples_per_second` of all processes, `speed/steps_per_second` of the optimiser;
    - `speed/data_wait`: share of the time that this process stood still because the next batch was not there.  The host
      waits for the device once a step (the norm of the gradient), so that this is time in which the device idles, too,
      but for the update of the weights;
    - `speed/mfu`, model FLOP utilisation: operations of the model's products, forward and backward (without what
      activation checkpointing computes again), over the time and the rate that this device reaches in one large matrix
      product of the run's precision.  That rate is measured here, once, and not taken from a data sheet: the share of
      the nominal peak is lower.  A batch's operations are counted with one of its windows, once for each data set; not
      with weights that are spread over processes;
    - `memory/resident_gb` of this process, without those that read data; `memory/gpu_gb`, the most that tensors took on
      its GPU at a time.

    Nothing waits for the device because of it: times are taken on the host.
    """

    def __init__(self) -> None:
        self._watch = Stopwatch()
        self._steps = self._samples = 0
        self._operations = 0.0
        self._waited_before = 0.0
        self._logged = self._validated = Done()
        self._since_validation = Done()
        self._operations_of: dict[Any, float] = {}
        self._warned = False
        self._processes = 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Time counts from here."""
        self._processes = trainer.world_size
        self._waited_before = self._waited(trainer)
        self._watch.start()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Time stands still."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        self._watch.stop()
        done = self._done(trainer)
        self._since_validation, self._validated = done.since(self._validated), done

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Time goes on; say once what can be done about a device that starves."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        share, seconds = self._since_validation.share_waited, self._since_validation.seconds
        if share > _STARVING and seconds >= _LONG and not self._warned:
            self._warned = True
            self._advise(trainer, share)
        self._watch.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count, and log where it is time to."""
        self._samples += len(batch.context)
        logs = bool(trainer.loggers) and trainer.is_global_zero
        if logs and not isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy):
            self._operations += self._count(trainer, cast(Forecaster, pl_module), batch)
        if trainer.fit_loop._should_accumulate():
            return
        self._steps += 1
        if logs and trainer._logger_connector.should_update_logs:
            self._log(trainer, pl_module.device)

    @property
    def summary(self) -> str:
        """Of the time between the last two validations, for a line of text; empty where nothing was trained."""
        done = self._since_validation
        if not done.steps:
            return ""
        rate = self._processes * done.samples / done.seconds
        return f"  ({rate:.3g} samples/s, {done.share_waited:.0%} waiting for data)"

    def _log(self, trainer: Trainer, device: torch.device) -> None:
        done = self._done(trainer)
        last, self._logged = done.since(self._logged), done
        values = {
            "speed/samples_per_second": trainer.world_size * last.samples / last.seconds,
            "speed/steps_per_second": last.steps / last.seconds,
            "speed/data_wait": last.share_waited,
        }
        if last.operations:
            self._watch.stop()
            values["speed/mfu"] = last.operations / last.seconds / _rate(device.type, _precision(trainer, device))
            self._watch.start()
        if (resident := _resident()) is not None:
            values["memory/resident_gb"] = resident / 1e9
        if device.type == "cuda":
            values["memory/gpu_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.fit_loop.epoch_loop._batches_that_stepped)

    def _done(self, trainer: Trainer) -> Done:
        waited = self._waited(trainer) - self._waited_before
        return Done(self._watch.seconds, waited, self._steps, self._samples, self._operations)

    def _waited(self, trainer: Trainer) -> float:
        return float(getattr(trainer.train_dataloader, "waited", 0.0))

    def _count(self, trainer: Trainer, forecaster: Forecaster, batch: Batch) -> float:
        windows, steps = len(batch.context), batch.target.shape[1]
        key = (batch.dataset, batch.context.shape[1:])
        if key not in self._operations_of:
            self._watch.stop()
            with trainer.precision_plugin.forward_context():
                self._operations_of[key] = step_operations(forecaster.model, batch)
            self._watch.start()
        return self._operations_of[key] * windows * steps

    def _advise(self, trainer: Trainer, share: float) -> None:
        if trainer.is_global_zero:
            workers = getattr(trainer.train_dataloader, "num_workers", 0)
            text = f"warning: training waited for data {share:.0%} of the time; let more processes read ahead: "
            more = f"loader.num_workers={max(2, 2 * workers)} (now {workers}), of {os.cpu_count()} cores"
            get_console().print(text + more, markup=False, highlight=False, soft_wrap=True)


def step_operations(model: Surrogate, batch: Batch) -> int:
    """Operations of one forecast of one window and of the gradient of what is trained, see `count_operations`.

    Computes them once, with the first window; weights, gradients and random numbers stay as they are.
    """
    conditions = batch.conditions
    if conditions.absent is not None:
        conditions = conditions._replace(absent=conditions.absent[:1])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def step() -> None:
        forecast = model(batch.context[:1], conditions)
        torch.autograd.grad(forecast.float().sum(), trained, allow_unused=True)

    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.enable_grad(), _plain(model):
        return count_operations(step)


@contextmanager
def _plain(model: Surrogate) -> Iterator[None]:
    """Nothing is compiled or computed twice."""
    compiled = {part: part._compiled_call_impl for part in model.stages}
    checkpointing = model.activation_checkpointing
    try:
        model.activation_checkpointing = False
        for part in compiled:
            part._compiled_call_impl = None
        yield
    finally:
        model.activation_checkpointing = checkpointing
        for part, call in compiled.items():
            part._compiled_call_impl = call


@cache
def _rate(device: str, dtype: torch.dtype) -> float:
    """Operations per second in a large matrix product."""
    product, operations = matrix_product(device, dtype, None if device == "cuda" else _SIZE_ON_CPU)
    (seconds,) = least_times([product], device, repeats=3)
    return operations / seconds


def _precision(trainer: Trainer, device: torch.device) -> torch.dtype:
    """In which matrix products are computed."""
    with trainer.precision_plugin.forward_context():
        one = torch.ones(1, 1, device=device)
        return (one @ one).dtype


def _resident() -> int | None:
    """Bytes of this process in memory; None where the system does not say."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.is_file() else None
