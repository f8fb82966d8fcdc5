"""What a run wrote down by step: `losses.csv` and its scores, each step once, however often the run was resumed."""

import csv
import errno
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from morph.forecaster import Forecaster, StepLoss
from morph.layout import Batch
from morph.provenance import naming, write_whole

__all__ = ["Losses", "StepLog", "read_rows", "row_text", "to_disk", "write_rows"]


class Losses(Callback):
    """Writes `losses.csv`: step (counted from 1), data set, and loss with all digits, as a step is done.

    A run that goes on after step n first takes out the rows after n: they were written by steps that are lost.

    Args:
        path: Of the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: io.FileIO | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the file where the run takes up."""
        cast(Forecaster, pl_module).micro_losses.clear()
        if not trainer.is_global_zero:
            return
        rows = [row for row in read_rows(self.path) if int(row["step"]) <= trainer.global_step]
        if len(rows) != trainer.global_step:
            print(f"{self.path}: {len(rows)} of the {trainer.global_step} steps before this one are in it")
        write_rows(self.path, ["step", "dataset", "loss"], rows)
        self._file = self.path.open("ab", buffering=0)  # what is written outlives the process
        for logger in trainer.loggers:
            if isinstance(logger, StepLog):
                logger.cut(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """The loss of a step is the mean over its batches, on all processes."""
        forecaster = cast(Forecaster, pl_module)
        if trainer.fit_loop._should_accumulate():
            return
        mean = torch.stack(forecaster.micro_losses).double().mean()
        forecaster.micro_losses.clear()
        loss = float(trainer.strategy.reduce(mean, reduce_op="mean"))
        forecaster.last_step = StepLoss(trainer.global_step, batch.dataset, loss)
        forecaster.log("train/loss", loss, prog_bar=True, logger=False, batch_size=1)
        if trainer._logger_connector.should_update_logs:
            # Not by Lightning, which does it after the checkpoint of this step: a run that is killed in between would
            # never log it.
            for logger in trainer.loggers:
                values = {"train/loss": loss, "epoch": trainer.current_epoch}
                logger.log_metrics(values, step=trainer.fit_loop.epoch_loop._batches_that_stepped)
        if self._file is not None:
            row = row_text([trainer.global_step, batch.dataset, loss]).encode()
            with naming(self.path):
                if (written := self._file.write(row)) != len(row):
                    self._file.truncate(self._file.tell() - (written or 0))
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """A checkpoint that outlives a power cut finds its rows."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            for logger in trainer.loggers:
                if isinstance(logger, StepLog) and logger.path.is_file():
                    to_disk(logger.path)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the file."""
        self.teardown(trainer, pl_module, "fit")


class StepLog(Logger):
    """The scores of a run as `<save_dir>/log/metrics.csv`: one row per step at which something was logged, the number
    of steps done until then in its first column.  A resumed run goes on in the same file.

    Args:
        save_dir: Of the run.
    """

    def __init__(self, save_dir: str | Path) -> None:
        super().__init__()
        self.path = Path(save_dir) / "log" / "metrics.csv"
        self._columns: list[str] = []
        self._row: dict[str, Any] = {}
        self._start = 0  # where the last row begins

    @property
    def name(self) -> str:
        """Of the folder."""
        return "log"

    @property
    def version(self) -> str:
        """There is one."""
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """They are in train.yaml."""

    @rank_zero_only
    def cut(self, steps: int) -> None:
        """Go on after so many steps: take out what was logged after them."""
        rows = [row for row in read_rows(self.path) if int(row["step"]) <= steps]
        self._columns = list(dict.fromkeys(key for row in rows for key in row)) or ["step"]
        self._rewrite(rows)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add to the row of a step, or begin it.

        Args:
            metrics: By name.
            step: Of the batch, counted from 0, as Lightning has it.
        """
        assert step is not None, "given by Lightning"
        same = self._row.get("step") == step + 1
        self._row = {**(self._row if same else {"step": step + 1}), **metrics}
        if new := [key for key in self._row if key not in self._columns]:
            rows = [row for row in read_rows(self.path) if int(row["step"]) <= step]
            self._columns = ["step", *sorted({*self._columns, *new} - {"step"})]
            self._rewrite([*rows, self._row])
            return
        with naming(self.path), self.path.open("r+b", buffering=0) as file:
            file.seek(self._start if same else 0, io.SEEK_SET if same else io.SEEK_END)
            self._start = file.tell()
            file.truncate()
            file.write(self._last_row())

    def _rewrite(self, rows: Sequence[Mapping[str, Any]]) -> None:
        write_rows(self.path, self._columns, rows)
        self._start = self.path.stat().st_size - (len(self._last_row()) if self._row else 0)

    def _last_row(self) -> bytes:
        return row_text([self._row.get(name, "") for name in self._columns]).encode()


def to_disk(path: Path) -> None:
    """What was written to a file outlives the machine's power."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of such a file, without a last one that was not written to its end; none where there is no file."""
    if not path.is_file():
        return []
    text = path.read_text()
    return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace such a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, row_text(columns) + "".join(row_text([row.get(name, "") for name in columns]) for row in rows))


def row_text(values: Sequence[Any]) -> str:
    """A row as it stands in the file, numbers with all their digits."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()
