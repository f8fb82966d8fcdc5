"""What keeps a long run going, or ends it: skips steps that are not finite, and writes down spikes of the loss."""

import math
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Int
from lightning import Callback, LightningModule, Trainer
from rich import get_console
from torch import Tensor, distributed

from morph.forecaster import Forecaster, MicroStep
from morph.history import Losses, read_rows, row_text, to_disk, write_rows
from morph.layout import Batch
from morph.loss import NonFiniteError, locate
from morph.saved_batch import SavedBatch, write_batch

__all__ = ["Guard", "Usual"]

_COLUMNS = ("step", "event", "dataset", "windows", "loss", "usual_loss")
_WARM_UP = 50  # steps of a data set before its spikes are told
_MEMORY = 50  # steps over which a loss is usual
_LEAST = math.log(2)  # a loss that varies by less than a factor of 2 has no spikes
_CLIP = 3.0  # standard deviations: what is further away counts as if it were there


class Usual(NamedTuple):
    """The usual loss of a data set: exponential mean and variance of its logarithm.

    While there are few steps, the plain mean and variance.  A value that is further than three standard deviations away
    counts as if it were there: a spike does not change what is usual, a new level does so after a while.
    """

    steps: int = 0
    mean: float = 0.0
    variance: float = 0.0

    def after(self, loss: float) -> "Usual":
        """With one more loss, which is positive."""
        rate = max(1 / (self.steps + 1), 1 / _MEMORY)
        away = math.log(loss) - self.mean
        if self.steps >= _WARM_UP:
            reach = max(_CLIP * math.sqrt(self.variance), _LEAST)
            away = min(max(away, -reach), reach)
        return Usual(self.steps + 1, self.mean + rate * away, (1 - rate) * (self.variance + rate * away**2))

    def is_spike(self, loss: float, deviations: float) -> bool:
        """Whether a loss is so many standard deviations above the mean, as logarithms, and at least its double."""
        reach = max(deviations * math.sqrt(self.variance), _LEAST)
        return self.steps >= _WARM_UP and math.log(loss) - self.mean > reach


class _Lost(NamedTuple):
    """What one process says of a batch of a step that is skipped."""

    text: str
    dataset: str
    windows: str
    loss: float
    path: str


class Guard(Callback):
    """Skips steps whose loss or gradient is not finite, up to a number, and writes down spikes of the loss.

    A skipped step counts as a step: the schedule goes on, weights and the state of the optimiser stay as they were, on
    all processes.  Its batches are saved to `<run_dir>/nonfinite`, by each process its own; where the losses are finite
    and the gradient is not, all batches of the step.  With precision 16-mixed, a gradient that overflows although the
    loss is finite is left to the scaling of the loss, and does not count.

    Skipped steps and spikes are rows of `<run_dir>/events.csv`; a run that goes on after step n first takes out the
    rows after n.

    Args:
        run_dir: Of the run.
        max_skipped: Steps that are skipped in the whole run; at the next one it stops.
        spike: A loss is a spike where its logarithm is so many standard deviations above that of the data set's usual
            loss (see `Usual`), and the loss at least doubled; null: none is.

    Raises:
        NonFiniteError: After `max_skipped` steps; names the data set, the windows and the saved batch.
        ValueError: A number is impossible, or no `Losses` stands before it among the callbacks.
    """

    def __init__(self, run_dir: str | Path, max_skipped: int | None = 10, spike: float | None = 5.0) -> None:
        if max_skipped is None or max_skipped < 0:
            raise ValueError(f"max_skipped: expected 0 or more steps, found {max_skipped}")
        if spike is not None and not spike > 0:
            raise ValueError(f"spike: expected a positive number of standard deviations, or null, found {spike}")
        self.run_dir = Path(run_dir)
        self.max_skipped = max_skipped
        self.spike = spike
        self.skipped = 0
        self.usual: dict[str, Usual] = {}
        self._skipped_at = 0

    @property
    def events(self) -> Path:
        """The file."""
        return self.run_dir / "events.csv"

    def state_dict(self) -> dict[str, Any]:
        """Goes into checkpoints."""
        return {"skipped": self.skipped, "usual": {name: list(usual) for name, usual in self.usual.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.skipped = state_dict["skipped"]
        self.usual = {name: Usual(*usual) for name, usual in state_dict["usual"].items()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the file where the run takes up."""
        before = trainer.callbacks[: trainer.callbacks.index(self)]  # type: ignore[attr-defined]
        if self.spike is not None and not any(isinstance(callback, Losses) for callback in before):
            raise ValueError(
                "callbacks: guard reads what losses tells of each step; put losses before it, or spike=null"
            )
        forecaster = cast(Forecaster, pl_module)
        forecaster.skip_step = lambda: self._skip(trainer, forecaster)
        if trainer.is_global_zero and self.events.is_file():
            write_rows(
                self.events,
                _COLUMNS,
                [row for row in read_rows(self.events) if int(row["step"]) <= trainer.global_step],
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The model is free again."""
        cast(Forecaster, pl_module).skip_step = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """A checkpoint that outlives a power cut finds its rows."""
        if trainer.is_global_zero and self.events.is_file():
            to_disk(self.events)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Whether the loss of the step was a spike."""
        forecaster = cast(Forecaster, pl_module)
        last = forecaster.last_step
        if self.spike is None or trainer.fit_loop._should_accumulate():
            return
        assert last is not None, "told by Losses"
        if last.step == self._skipped_at or not (math.isfinite(last.loss) and last.loss > 0):
            return
        usual = self.usual.get(last.dataset, Usual())
        if usual.is_spike(last.loss, self.spike):
            # The loss is that of all processes, so that all of them come here.
            windows = " ".join(_of_all(" ".join(_windows(done.windows) for done in forecaster.micro_steps)))
            level = math.exp(usual.mean)
            self._write(trainer, last.step, "spike", last.dataset, windows, last.loss)
            self._say(
                trainer,
                f"warning: step {last.step}, data set {last.dataset!r}: the loss is {last.loss:.4g}, "
                f"{last.loss / level:.3g} times the usual {level:.4g}; windows (trajectory:frame) {_short(windows)}",
            )
        self.usual[last.dataset] = usual.after(last.loss)

    def _skip(self, trainer: Trainer, forecaster: Forecaster) -> bool:
        """Of a step whose gradient is not finite: whether the gradient is to be dropped."""
        done = list(enumerate(forecaster.micro_steps))
        lost = [(number, micro) for number, micro in done if not torch.isfinite(micro.loss)]
        any_lost = any(_of_all(bool(lost)))
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        if scaled and not any_lost:
            return False
        step = self._skipped_at = trainer.global_step + 1
        self.skipped += 1
        what = "loss" if any_lost else "gradient"
        own = [
            self._save(trainer, micro, forecaster.batch_of(micro), number, step, what)
            for number, micro in (lost if any_lost else done)
        ]
        found = [one for of_process in _of_all(own) for one in of_process]
        stops = self.skipped > self.max_skipped
        for one in found:
            self._write(trainer, step, "stopped" if stops else "skipped", one.dataset, one.windows, one.loss)
        text = f"{found[0].text}; saved: {', '.join(one.path for one in found)}"
        if stops:
            model = self.run_dir / "nonfinite" / f"step_{step}.ckpt"
            trainer.save_checkpoint(model, weights_only=True)
            raise NonFiniteError(
                f"{text}; the run stops, since max_skipped={self.max_skipped}.  To see where it comes from:  "
                f"python -m morph.replay batch={found[0].path}"
            )
        self._say(trainer, f"warning: skipped (number {self.skipped} of at most {self.max_skipped}): {text}")
        return not scaled

    def _save(self, trainer: Trainer, micro: MicroStep, batch: Batch, number: int, step: int, what: str) -> _Lost:
        process = f"_rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        further = f"_batch{number}" if number else ""
        path = self.run_dir / "nonfinite" / f"step_{step}{process}{further}.safetensors"
        text = locate(batch, f"training step {step}", what)
        write_batch(path, SavedBatch(batch, step, micro.seed, str(trainer.precision), text))
        return _Lost(text, micro.dataset, _windows(micro.windows), float(micro.loss), str(path))

    def _write(self, trainer: Trainer, step: int, event: str, dataset: str, windows: str, loss: float) -> None:
        if not trainer.is_global_zero:
            return
        if not self.events.is_file():
            write_rows(self.events, _COLUMNS, [])
        usual = self.usual.get(dataset)
        level = "" if usual is None else math.exp(usual.mean)
        with self.events.open("a") as file:
            file.write(row_text([step, event, dataset, windows, loss, level]))

    def _say(self, trainer: Trainer, line: str) -> None:
        if trainer.is_global_zero:
            get_console().print(line, markup=False, highlight=False, soft_wrap=True)


def _windows(windows: Int[Tensor, "B 2"]) -> str:
    return " ".join(f"{trajectory}:{start}" for trajectory, start in windows.tolist())


def _short(windows: str) -> str:
    listed = windows.split()
    return " ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")


def _of_all(value: Any) -> list[Any]:
    """What each process has, in their order; called by all of them."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values
