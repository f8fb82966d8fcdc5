"""A run that ends in the middle, and what runs are compared by."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lightning import LightningModule

from morph.forecaster import Forecaster

__all__ = ["last_scores", "power_cut", "without_telemetry"]


@contextmanager
def power_cut(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs in here end with an error as their second epoch begins."""

    def cut(self: Forecaster) -> None:
        if self.current_epoch == 1:
            raise RuntimeError("power cut")

    monkeypatch.setattr(Forecaster, "on_train_epoch_start", cut)
    with pytest.raises(RuntimeError, match="power cut"):
        yield
    monkeypatch.setattr(Forecaster, "on_train_epoch_start", LightningModule.on_train_epoch_start)


def last_scores(run_dir: Path) -> str:
    """The last line of the log of a run."""
    return without_telemetry((run_dir / "log" / "metrics.csv").read_text().splitlines())[-1]


def without_telemetry(lines: list[str]) -> list[str]:
    """Rows of a log without the columns that tell times and memory, which differ from run to run."""
    rows = list(csv.reader(lines))
    kept = [i for i, name in enumerate(rows[0]) if not name.startswith(("speed/", "memory/"))]
    return [",".join(row[i] for i in kept) for row in rows]
