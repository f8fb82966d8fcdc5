"""Signals: a run that is told to end saves where it is, and under SLURM goes back into the queue."""

import os
import signal
import subprocess
import sys
from types import FrameType
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from morph.checkpoint_files import Checkpoints

__all__ = ["Interruption", "cluster"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interruption(Callback):
    """On SIGINT (Ctrl-C), SIGTERM or SIGUSR1 a run writes a checkpoint after its step, or after the validation that
    follows it, and ends; a second Ctrl-C ends it at once.

    One process that is told is enough: all of them agree on the step.  In a job of SLURM, SIGTERM and SIGUSR1 put the
    job back into the queue; its script, with `resume=auto`, goes on from the checkpoint.

    The exit code is 128 and the number of the signal, as the shell has it; 0 where the job was put back.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._agreed = False
        self._process = os.getpid()
        self._before: dict[int, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen from here on, in place of Lightning, whose handlers speak to other processes in the middle of whatever
        this one does, and end a job of SLURM as if it were over."""
        trainer._signal_connector.register_signal_handlers = _nothing  # type: ignore[method-assign]
        self._process = os.getpid()
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a reading process: the training process says when it is over
            return
        if self._received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._received is None:
            # Not print(): the signal can have come in the middle of one.
            again = "; Ctrl-C again: without one" if number == signal.SIGINT else ""
            text = f"\n{signal.Signals(number).name}: ends after this step, with a checkpoint{again}\n"
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())
            self._received = number

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Agree whether this was the last step; `Checkpoints` comes after this."""
        if not trainer.fit_loop._should_accumulate():
            self._agree(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After a validation, which takes longer than a step."""
        self._agree(trainer)

    def _agree(self, trainer: Trainer) -> None:
        if self._agreed:
            return
        told = self._received or 0
        if trainer.world_size > 1:
            mine = torch.tensor(float(told), device=trainer.strategy.root_device)
            told = round(float(trainer.strategy.reduce(mine, reduce_op="max")))
        if told:
            self._agreed, self._received = True, told
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, Checkpoints):
                    callback.wanted = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """End: what the last step left to be logged is logged, and the checkpoint is written.

        Raises:
            SystemExit: With the exit code.
        """
        if not self._agreed:
            return
        assert self._received is not None
        number = self._received
        back = number != signal.SIGINT and SLURMEnvironment.detect()
        if trainer.is_global_zero:
            print(
                f"Ended by {signal.Signals(number).name} after step {trainer.global_step}, with a checkpoint; "
                "the same command with resume=auto goes on",
                flush=True,
            )
            back = back and _requeue()
        raise SystemExit(0 if back else 128 + number)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """What was done about signals before is done again."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """What was done about signals before is done again."""
        self.teardown(trainer, pl_module, "fit")


def _nothing() -> None:
    pass


def cluster(processes: int) -> list[SLURMEnvironment]:
    """What Lightning is told of the cluster: that it leaves the signals of SLURM alone.

    Args:
        processes: Of the run; where they are the tasks of SLURM, it is SLURM that starts them.
    """
    managed = SLURMEnvironment.detect() and int(os.environ["SLURM_NTASKS"]) == processes
    return [SLURMEnvironment(auto_requeue=False)] if managed else []


def _requeue() -> bool:
    """Put this job back into the queue of SLURM; whether that was done."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    except OSError as error:
        print(f"scontrol requeue {job}: {error}", file=sys.stderr, flush=True)
        return False
    said = (done.stdout + done.stderr).strip()
    if done.returncode:
        print(f"scontrol requeue {job} ended with {done.returncode}: {said}", file=sys.stderr, flush=True)
    else:
        print(f"Job {job} is back in the queue", flush=True)
    return done.returncode == 0
