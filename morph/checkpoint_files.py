"""The checkpoints of a training run: written whole or not at all, kept by a policy, checked before a run goes on."""

import math
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_only

__all__ = ["CheckpointFile", "Checkpoints", "damage", "newest_good", "saved_steps"]

_STEP = re.compile(r"step_(\d+)\.ckpt")


class CheckpointFile(TorchCheckpointIO):
    """Writes a checkpoint under a temporary name beside its place, to the disk itself, and renames it: whoever finds
    the name finds all of it, whatever kills the run or the machine."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write one.

        Raises:
            OSError: The disk is full or refuses; what was there before is untouched, and nothing is left beside it.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with unfinished.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
            _sync(path.parent)
        except (OSError, RuntimeError) as error:  # torch says RuntimeError where its writer could not write
            free = shutil.disk_usage(path.parent).free / 1e6
            raise OSError(
                f"checkpoint: {path} could not be written: {_reason(error)} ({free:.0f} MB are free there); earlier "
                "ones are untouched: make room and continue with resume=auto"
            ) from error
        finally:
            unfinished.unlink(missing_ok=True)


class Checkpoints(Checkpoint):
    """Keeps checkpoints of a run: the last ones, the best one, and one every so many steps for good.

    A checkpoint is `step_<n>.ckpt`, after n optimiser steps.  `last.ckpt` and `best.ckpt` are further names of the
    newest and of the one with the best score, hard links where the file system has them.

    They are written at the end of each epoch, after its validation, and every `every` steps inside of it.

    Args:
        folder: Of the checkpoints.
        every: Optimiser steps between two of them; None: at the ends of epochs alone.
        keep: So many of the last ones are kept; an older one is what is left where the newest is damaged.
        archive: Of the steps that this divides, checkpoints are kept for good.
        monitor: The score of which the smallest is best.

    Raises:
        ValueError: A number is not positive, or `archive` is no multiple of `every`.
    """

    def __init__(
        self,
        folder: str | Path,
        every: int | None = None,
        keep: int = 2,
        archive: int | None = None,
        monitor: str = "val/ratio",
    ) -> None:
        for option, value in (("every", every), ("keep", keep), ("archive", archive)):
            if value is not None and value < 1:
                raise ValueError(f"checkpoint_{option}: expected a positive number, found {value}")
        if archive and (not every or archive % every):
            raise ValueError(
                f"checkpoint_archive: expected a multiple of checkpoint_every, found {archive} with "
                f"checkpoint_every={every}"
            )
        self.folder = Path(folder)
        self.every = every
        self.keep = keep
        self.archive = archive
        self.monitor = monitor
        self.wanted = False
        self._best: float | None = None
        self._saved = -1

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The best score so far."""
        self._best = state_dict["best"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what a run could not go on from exactly.

        Raises:
            ValueError: It validates inside of epochs.
        """
        if trainer.val_check_interval != 1.0:
            raise ValueError(
                f"trainer.val_check_interval={trainer.val_check_interval}: runs validate at the end of an epoch, whose "
                "length is mixture.steps_per_epoch; leave it out"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Clear away what a killed run left unfinished, and set aside what lies after the step that this one is at: the
        run that wrote it is continued from an earlier step."""
        if not trainer.is_global_zero:
            return
        for unfinished in self.folder.glob(".*.ckpt.*"):
            unfinished.unlink()
        for step, path in saved_steps(self.folder).items():
            if step > trainer.global_step:
                aside = self.folder / "set_aside"
                aside.mkdir(exist_ok=True)
                path.replace(aside / path.name)
                print(
                    f"{path.name} lies after step {trainer.global_step}, from which the run goes on: moved to {aside}"
                )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Inside an epoch; its last step is followed by a validation, and saved after it."""
        due = self.wanted or (self.every is not None and trainer.global_step % self.every == 0)
        whole_step = not trainer.fit_loop._should_accumulate()
        if due and whole_step and trainer.global_step != self._saved and not trainer.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the validation of the epoch."""
        self._save(trainer, best=self._improved(trainer))

    def _improved(self, trainer: Trainer) -> bool:
        score = trainer.callback_metrics.get(self.monitor)
        if score is None or not math.isfinite(score) or (self._best is not None and not float(score) < self._best):
            return False
        self._best = float(score)
        return True

    def _save(self, trainer: Trainer, best: bool = False) -> None:
        self.wanted = False
        self._saved = trainer.global_step
        path = self.folder / f"step_{trainer.global_step:08d}.ckpt"
        trainer.save_checkpoint(path)
        if not trainer.is_global_zero:
            return
        for name in ("last", *(["best"] if best else [])):
            _name_too(path, self.folder / f"{name}.ckpt")
        saved = saved_steps(self.folder)
        for step in sorted(step for step in saved if not self.archive or step % self.archive)[: -self.keep]:
            saved[step].unlink()


def saved_steps(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder by the number of their step."""
    found = ((_STEP.fullmatch(path.name), path) for path in folder.glob("step_*.ckpt"))
    return {int(match[1]): path for match, path in found if match}


def newest_good(run_dir: Path) -> Path | None:
    """The checkpoint from which a run goes on: the newest one that is not damaged; None where there is none at all.

    One line for each that is passed over says why.

    Raises:
        ValueError: There are some, and all are damaged.
    """
    folder = run_dir / "checkpoints"
    steps = saved_steps(folder)
    found = [steps[step] for step in sorted(steps, reverse=True)]
    found += [path for name in ("last", "best") if (path := folder / f"{name}.ckpt").is_file()]
    for path in found:
        if (fault := damage(path)) is None:
            return path
        _say(f"{path} is passed over: {fault}")
    if found:
        raise ValueError(
            f"resume: none of the {len(found)} checkpoints in {folder} can be read; train anew with overwrite=true"
        )
    return None


def damage(path: Path) -> str | None:
    """What is wrong with the file of a checkpoint, None for nothing: every byte of it is compared with its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        return f"it is empty, truncated or no checkpoint at all ({path.stat().st_size} bytes): {error}"
    return None if broken is None else f"its checksum is not that of its content ({broken})"


def _reason(error: BaseException) -> str:
    """What the system said, below what torch made of it."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.strerror:
            return below.strerror
        below = below.__cause__ or below.__context__
    return str(error).splitlines()[0]


@rank_zero_only
def _say(line: str) -> None:
    print(line, flush=True)


def _name_too(path: Path, name: Path) -> None:
    """Give a file a further name, whoever had it."""
    unfinished = name.with_name(f".{name.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    try:
        os.link(path, unfinished)
    except OSError:  # a file system without links
        shutil.copyfile(path, unfinished)
    unfinished.replace(name)
    unfinished.unlink(missing_ok=True)  # two names of one file are not replaced by each other


def _sync(folder: Path) -> None:
    """The new name itself to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
