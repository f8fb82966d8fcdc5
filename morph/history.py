"""What a run wrote down by step, each step once, however often the run was resumed."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer

from morph.forecaster import Forecaster, StepLoss
from morph.layout import Batch
from morph.provenance import write_whole

__all__ = ["Losses", "read_rows", "row_text", "write_rows"]


class Losses(Callback):
    """Tells the loss of each step, the mean over its batches on all processes, as `Forecaster.last_step`."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """After the last batch of a step."""
        forecaster = cast(Forecaster, pl_module)
        if trainer.fit_loop._should_accumulate():
            return
        mean = torch.stack(forecaster.micro_losses).double().mean()
        forecaster.micro_losses.clear()
        loss = float(trainer.strategy.reduce(mean, reduce_op="mean"))
        forecaster.last_step = StepLoss(trainer.global_step, batch.dataset, loss)


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
