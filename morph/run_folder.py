"""The folder of a training run: where it is, what may lie in it already, and what is written about the run."""

import errno
import fcntl
import math
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import cast

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from rich import get_console

from morph.checkpoint import keep_adapter, read_checkpoint, run_of
from morph.data.module import MixtureDataModule
from morph.finetune import count_parameters
from morph.forecaster import Forecaster
from morph.parallel import RUN_DIR, agreed
from morph.processes import launched
from morph.provenance import record, write_whole
from morph.tables import parameter_table

__all__ = ["RunRecord", "check_job", "claimed", "folder_of", "leave", "score_only"]

_LOCK = ".lock"
_WANDB = ".wandb_id"
_WRITTEN = ("checkpoints", "adapter", "log", "wandb", "figures", "evaluation", "nonfinite")
_FILES = (
    "losses.csv",
    "events.csv",
    _WANDB,
    "train.yaml",
    "train.json",
    "evaluate.yaml",
    "evaluate.json",
    "metrics.nc",
    "rollout.nc",
    "summary.json",
    "overall.json",
    "report.html",
)


def folder_of(resume: str | None, new: str) -> str:
    """Where a run writes: a resumed one in its own folder, a new one in `new`, which can hold the time of day.

    The processes of a run write where its first one does, and each job of a multirun in a folder of its own.

    Raises:
        ValueError: resume=auto does not say which run.
    """
    if RUN_DIR in os.environ:
        return os.environ[RUN_DIR]
    if resume == "auto":
        raise ValueError("resume=auto starts or continues the run in run_dir: give run_dir=<its folder>")
    if resume:
        return str(run_of(resume))
    job = _job()
    return agreed(new) if job is None else f"{new}/{job}"


def check_job(config: DictConfig) -> None:
    """Refuse what several jobs of a multirun cannot share.

    Raises:
        ValueError: They would write to one folder, or this one has processes that something else started.
    """
    if _job() is None:
        return
    if started := launched():
        raise ValueError(
            f"--multirun: {started.by} starts the processes of one run; leave {started.by} out, and each job starts "
            "its own with trainer.devices="
        )
    written = OmegaConf.to_container(config, resolve=False)["run_dir"]  # type: ignore[index,call-overload]
    swept = [o for o in HydraConfig.get().overrides.task if o.startswith("run_dir=") and o not in sys.argv]
    if "${" not in written and not swept:
        raise ValueError(
            f"run_dir: several jobs cannot write to {written}; leave it out (runs/<time>/<job>), or let it differ, "
            f"'run_dir={written}/${{seed}}'"
        )


def _job() -> int | None:
    """The number of this job of a multirun, None of a single run."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    number: int = HydraConfig.get().job.num
    return number


@contextmanager
def claimed(
    run_dir: Path, overwrite: bool, resume: Path | None, needed: Sequence[str | Path] = (), since: float = math.inf
) -> Iterator[None]:
    """Make sure that a run does not mix with another one in its folder: with an earlier one, or one that is running.

    Args:
        run_dir: The folder.
        overwrite: Replace the run that is there.
        resume: Go on with it.
        needed: What the run starts from, which must not be replaced by it.
        since: When it was decided from which checkpoint the run goes on, in seconds of `time.time`.

    Raises:
        ValueError: It holds a run, and neither `resume` nor `overwrite` was given; or another run than that of
            `resume`; or what it starts from; or another process writes there, or did so since.
    """
    if getattr(rank_zero_only, "rank", 0) != 0:
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / _LOCK).open("a+") as lock:
        try:
            # Of the process, not of those that it starts, which can outlive it by seconds; gone when it is.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            lock.seek(0)
            raise ValueError(
                f"run_dir: {run_dir} is being written by another run, {lock.read().strip()}; choose another run_dir, "
                "or end that one first"
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}\n")
        lock.flush()
        if any(path.stat().st_mtime > since for path in (run_dir / "checkpoints").glob("*.ckpt")):
            raise ValueError(f"run_dir: another process went on with the run in {run_dir} until just now; start again")
        own = resume is not None and run_of(resume).resolve() == run_dir.resolve()
        if not own and any((run_dir / "checkpoints").glob("*.ckpt")):
            _clear(run_dir, overwrite, needed)
        identity = run_dir / _WANDB
        if not identity.is_file():
            write_whole(identity, os.environ.get("WANDB_RUN_ID") or token_hex(4))
        os.environ["WANDB_RUN_ID"] = identity.read_text()  # a resumed run goes on in its curves
        try:
            yield
        finally:
            del os.environ["WANDB_RUN_ID"]


def _clear(run_dir: Path, overwrite: bool, needed: Sequence[str | Path]) -> None:
    if not overwrite:
        raise ValueError(
            f"run_dir: {run_dir} already holds a run; continue it with resume=auto, choose another run_dir, "
            "or replace it with overwrite=true"
        )
    for path in map(Path, needed):
        if run_dir.resolve() in (path.resolve(), *path.resolve().parents):
            raise ValueError(
                f"run_dir: {run_dir} holds {path}, which this run starts from, so it cannot be replaced; choose another"
            )
    for name in _WRITTEN:
        shutil.rmtree(run_dir / name, ignore_errors=True)
    for name in _FILES:
        (run_dir / name).unlink(missing_ok=True)


def score_only(
    trainer: Trainer, forecaster: Forecaster, data: MixtureDataModule, run_dir: Path, resume: Path | None
) -> None:
    """What is left of a run of a model without parameters: its scores in validation, and a checkpoint.

    Raises:
        ValueError: It is to be resumed.
    """
    if resume:
        raise ValueError(f"resume: the model of {resume} has no parameters, so there is nothing to continue")
    print("This model has no parameters: nothing is trained, and its checkpoint serves as any other's")
    trainer.validate(forecaster, data, verbose=False)
    trainer.save_checkpoint(run_dir / "checkpoints" / "last.ckpt")


@rank_zero_only
def leave(run_dir: Path, checkpoint: str | None, base: str | None) -> None:
    """Say where the result of a run is, and write what one that fine-tuned learned beside its checkpoints.

    Args:
        run_dir: Of the run, which is over.
        checkpoint: What fine-tuning of some parts started from, None of another run.
        base: Of that, if it is an adapter's folder.
    """
    if checkpoint is not None and any((run_dir / "checkpoints").glob("*.ckpt")):
        # Read again: the weights of the first reading were those that were trained.
        before = read_checkpoint(checkpoint, base=base)
        files = keep_adapter(run_dir / "adapter", read_checkpoint(run_dir), before)
        print(f"What it learned, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB: {run_dir / 'adapter'}")
    print(f"Checkpoints in {run_dir}/checkpoints.  Judge them:  python -m morph.evaluate checkpoint={run_dir}")


class RunRecord(Callback):
    """Once everything is built and open: says what is trained, and writes the configuration and its origin down."""

    def __init__(self, run_dir: Path, config: DictConfig, resume: Path | None) -> None:
        self.run_dir = run_dir
        self.config = config
        self.resume = resume
        self.started = False

    @rank_zero_only
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Of a model that has nothing to train."""
        if stage == "validate":
            record(self.run_dir, self.config, "train")

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write and say."""
        forecaster = cast(Forecaster, pl_module)
        count = sum(p.numel() for p in pl_module.parameters())
        trained = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        share = "" if trained == count else f"{trained / 1e6:.1f} M of "
        device = (
            torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
        )
        print(f"Training {share}{count / 1e6:.1f} M parameters on {', '.join(self.config.datasets)} ({device})")
        if forecaster.parts:
            rates = {group["name"]: group["initial_lr"] for group in trainer.optimizers[0].param_groups}
            rates = {part: rates.get(part, rates.get(f"{part}, undecayed")) for part in forecaster.parts}
            get_console().print(parameter_table(count_parameters(forecaster.model)))
            print("Learning rates: " + ", ".join(f"{part} {rate:g}" for part, rate in rates.items()))
        print(_step(trainer, forecaster))
        print("ratio: one-step VRMSE in validation over the better naive forecast's; below 1 is better than both")
        record(self.run_dir, self.config, "train")

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where it writes, and from where it goes on."""
        self.started = True
        since = f", continuing from {self.resume} after step {trainer.global_step}" if self.resume else ""
        print(f"Results in {self.run_dir}{since}", flush=True)

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Of a run that was over when it was resumed."""
        if not self.started:
            print(f"{self.run_dir} is over after step {trainer.global_step}; trainer.max_epochs=<more> goes on with it")


def _step(trainer: Trainer, forecaster: Forecaster) -> str:
    """What an optimiser step holds."""
    data: MixtureDataModule = trainer.datamodule  # type: ignore[attr-defined]
    count, processes, each = data.batches_per_step, trainer.world_size, trainer.accumulate_grad_batches
    parts = [f"{count} batch{'es' * (count > 1)}"]
    if processes > 1:
        parts[0] += f" over {processes} processes"
    if each > 1:
        parts += [f"{each} accumulated"]
    windows = ", ".join(f"{name} {count * size}" for name, size in data.batch_sizes.items())
    return f"An optimiser step: {', '.join(parts)}: {windows} windows"
