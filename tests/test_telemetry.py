"""What the logs say of speed, waiting, memory and operations is so."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import Logger

from morph.cost import count_operations
from morph.data.module import ResumableLoader
from morph.data.windows import Windows
from morph.finetune import lora_layers
from morph.model.adapter import add_adapter
from morph.model.morph import Morph
from morph.progress import RunProgress
from morph.telemetry import Telemetry, step_operations
from tests.test_forecaster import STEPS, data, forecaster, trainer


class Kept(Logger):
    """What was logged, by step."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    name = "kept"
    version = ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if "speed/data_wait" in metrics:
            self.rows.append({"step": step, **metrics})


class Work(Callback):
    """Each step takes so many seconds longer, and each validation."""

    def __init__(self, step: float = 0.0, validation: float = 0.0) -> None:
        self.step, self.validation = step, validation

    def on_train_batch_start(self, *_: Any) -> None:
        time.sleep(self.step)

    def on_validation_epoch_start(self, *_: Any) -> None:
        time.sleep(self.validation)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Each batch takes 0.1 s to read; the seconds that it did take."""
    read, seconds = Windows.batch, []

    def slowly(self: Windows, indices: Any) -> Any:
        began = time.perf_counter()
        time.sleep(0.1)
        batch = read(self, indices)
        seconds.append(time.perf_counter() - began)
        return batch

    monkeypatch.setattr(Windows, "batch", slowly)
    return seconds


def run(folder: Path, *callbacks: Callback, epochs: int = 1, **options: Any) -> tuple[list[dict[str, float]], Trainer]:
    kept, telemetry = Kept(), Telemetry()
    fitted = trainer(folder, telemetry, *callbacks, epochs=epochs, **{"log_every_n_steps": STEPS // 2, **options})
    fitted.loggers = [kept]
    fitted.fit(forecaster(), data(validation_windows=4))
    return kept.rows, fitted


@pytest.mark.parametrize("work", [0.0, 0.3])
def test_waiting_is_the_share_of_the_time_in_which_there_is_no_batch(
    tmp_path: Path, reads: list[float], work: float
) -> None:
    """The seconds of reading beside those of a step, which are at least those that it sleeps."""
    rows, _ = run(tmp_path, Work(step=work), limit_val_batches=0)
    assert [row["step"] for row in rows] == [STEPS // 2 - 1, STEPS - 1]
    last = rows[-1]
    seconds = 1 / last["speed/steps_per_second"]
    read = sum(reads[STEPS // 2 :]) / (STEPS // 2)
    assert last["speed/data_wait"] * seconds == pytest.approx(read, rel=0.1)
    assert seconds > read + work
    assert last["speed/samples_per_second"] == pytest.approx(4 * last["speed/steps_per_second"])


def test_validation_is_left_out(tmp_path: Path) -> None:
    began = time.perf_counter()
    rows, _ = run(tmp_path, Work(validation=0.4), epochs=3)
    whole = time.perf_counter() - began
    trained = sum(STEPS / 2 / row["speed/steps_per_second"] for row in rows)
    assert len(rows) == 6
    assert whole > 3 * 0.4 + trained


def test_batches_of_a_step_count_as_one_step(tmp_path: Path) -> None:
    rows, _ = run(tmp_path, accumulate_grad_batches=2, limit_val_batches=0, log_every_n_steps=1)
    assert len(rows) == STEPS
    for row in rows:
        assert row["speed/samples_per_second"] == pytest.approx(8 * row["speed/steps_per_second"])


def test_utilisation_is_operations_by_time_and_by_the_rate_of_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a device of one operation per second, it is the operations per second."""
    monkeypatch.setattr("morph.telemetry._rate", lambda *_: 1.0)
    rows, fitted = run(tmp_path, limit_val_batches=0)
    module: Any = fitted.lightning_module
    batch = data_of(fitted)
    of_a_step = 4 * step_operations(module.model, batch)
    for row in rows:
        assert row["speed/mfu"] == pytest.approx(of_a_step * row["speed/steps_per_second"])
        assert 0.05 < row["memory/resident_gb"] < 50


def data_of(fitted: Trainer) -> Any:
    windows: Any = fitted.datamodule  # type: ignore[attr-defined]
    return windows.train["slow"].batch([0, 1, 2, 3])


def test_operations_of_a_window_are_those_of_a_batch_by_its_size_and_change_nothing() -> None:
    module, windows = forecaster(), data()
    windows.setup("fit")
    batch = windows.train["slow"].batch([0, 1, 2, 3])
    module.model.activation_checkpointing = True
    torch.manual_seed(3)
    before = torch.get_rng_state()
    found = step_operations(module.model, batch)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in module.parameters())
    assert module.model.activation_checkpointing
    module.model.activation_checkpointing = False
    whole = count_operations(lambda: module.model(batch.context, batch.conditions).sum().backward())
    # Weights that are folded together are so once for a batch, or once for a window that is alone.
    assert 4 * found == pytest.approx(whole, rel=0.05)
    forward = count_operations(lambda: module.model(batch.context, batch.conditions))
    assert whole == pytest.approx(3 * forward, rel=0.1)  # the gradient of input and of weights, each as much


def test_what_is_not_trained_has_no_gradient_to_compute() -> None:
    """With low-rank factors, that of the input alone but for the factors themselves: two thirds of all at most."""
    module, windows = forecaster(), data()
    windows.setup("fit")
    batch = windows.train["slow"].batch([0])
    model: Any = module.model
    assert isinstance(model, Morph)
    full = step_operations(model, batch)
    model.requires_grad_(False)
    rank = lora_layers(model, {"attention": 1, "mlp": 1})
    add_adapter(model, {"rank": rank, "alpha": dict.fromkeys(rank, 1), "dropout": 0.0, "dora": False, "rslora": False})
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    assert full / 3 < step_operations(model, batch) < 0.7 * full


def test_a_line_says_so_and_a_starving_run_is_told_what_helps(
    tmp_path: Path, reads: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once, however many epochs there are."""
    monkeypatch.setattr("morph.telemetry._LONG", 0.1)
    run(tmp_path, RunProgress(), epochs=2, enable_progress_bar=True)
    lines = capsys.readouterr().out.splitlines()
    assert sum("samples/s" in line and "% waiting for data)" in line for line in lines) == 2
    (warning,) = (line for line in lines if line.startswith("warning"))
    assert "let more processes read ahead: loader.num_workers=2 (now 0)" in warning


def test_it_takes_next_to_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that it does in a step where nothing is logged, a thousand times."""
    monkeypatch.setattr("morph.telemetry._rate", lambda *_: 1.0)
    _, fitted = run(tmp_path, limit_val_batches=0)
    telemetry = next(one for one in fitted.callbacks if isinstance(one, Telemetry))  # type: ignore[attr-defined]
    module: Any = fitted.lightning_module
    assert isinstance(module, LightningModule)
    assert isinstance(fitted.train_dataloader, ResumableLoader)
    batch = data_of(fitted)
    fitted.log_every_n_steps = 10**9
    fitted.should_stop = False
    began = time.perf_counter()
    for _ in range(1000):
        telemetry.on_train_batch_end(fitted, module, None, batch, 0)
    assert (time.perf_counter() - began) / 1000 < 1e-3
