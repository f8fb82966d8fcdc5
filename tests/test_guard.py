"""Steps that are not finite change nothing and are kept as they were; spikes of the loss are told, and nothing else."""

import csv
import math
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, multiprocessing

from morph.checkpoint import read_checkpoint
from morph.forecaster import Forecaster
from morph.guard import Guard, Usual
from morph.history import Losses
from morph.layout import Batch, Conditions, Statistics
from morph.loss import NonFiniteError
from morph.replay import find_nonfinite
from morph.saved_batch import SavedBatch, read_batch, write_batch
from tests.test_forecaster import data, forecaster, trainer

STEPS = 6  # of an epoch


class Spoil(Callback):
    """Makes the batches of some steps what a broken disk would: NaN in the context of one sample.

    Args:
        steps: Counted from 1.
        drop: Take the step out of the run instead: no gradient at all, and no guard needed.
        rank: Of this process alone.
    """

    def __init__(self, *steps: int, drop: bool = False, rank: int | None = None) -> None:
        self.steps, self.drop, self.rank = steps, drop, rank
        self.weights: list[list[Tensor]] = []
        self.moments: list[list[Tensor]] = []
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        here = self.rank in (None, trainer.global_rank)
        if trainer.global_step + 1 in self.steps and not self.drop and here:
            batch.context[0, 0, 0, 0, 0, 0, 3] = torch.nan

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if self.drop and trainer.global_step + 1 in self.steps:
            optimizer.zero_grad()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        (optimizer,) = trainer.optimizers
        self.weights.append([p.detach().clone() for p in pl_module.parameters()])
        states = optimizer.state.values()
        self.moments.append([value.clone() for state in states for value in state.values()])
        self.rates.append(optimizer.param_groups[0]["lr"])


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


def events(folder: Path) -> list[dict[str, str]]:
    with (folder / "events.csv").open() as file:
        return list(csv.DictReader(file))


def fit(folder: Path, *callbacks: Callback, module: Forecaster | None = None, **options: Any) -> Forecaster:
    resume = options.pop("resume", None)
    module = module or forecaster()
    trainer(folder, *callbacks, **{"epochs": 1, "limit_val_batches": 0, "gradient_clip_val": 1.0, **options}).fit(
        module, data(), ckpt_path=resume, weights_only=True if resume else None
    )
    return module


@pytest.mark.parametrize("clip", [1.0, None])
def test_a_skipped_step_changes_neither_weights_nor_optimiser_and_the_run_goes_on_as_without_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], clip: float | None
) -> None:
    """The rest equals, bit for bit, a run in which that step has no gradient."""
    spoiled, without = Spoil(3), Spoil(3, drop=True)
    fit(tmp_path, Losses(tmp_path / "losses.csv"), Guard(tmp_path), spoiled, gradient_clip_val=clip)
    fit(tmp_path / "other", without, gradient_clip_val=clip)
    assert same(spoiled.weights[2], spoiled.weights[1])
    assert same(spoiled.moments[2], spoiled.moments[1])
    assert not same(spoiled.weights[3], spoiled.weights[2])
    assert all(map(same, spoiled.weights, without.weights))
    assert all(map(same, spoiled.moments, without.moments))
    assert spoiled.rates == without.rates
    assert len(set(spoiled.rates)) == STEPS  # the schedule went on
    (row,) = events(tmp_path)
    assert (row["step"], row["event"], row["loss"]) == ("3", "skipped", "nan")
    warning = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert len(warning) == 1
    trajectory, start = row["windows"].split()[0].split(":")
    assert f"data set {row['dataset']!r}: NaN or infinity in the data" in warning[0]
    assert f"trajectory {trajectory} from frame {start}" in warning[0]
    assert "training step 3" in warning[0]


def test_a_step_of_several_batches_is_skipped_as_a_whole_and_the_bad_one_saved(tmp_path: Path) -> None:
    class SpoilSecond(Spoil):
        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
        ) -> None:
            if batch_idx == 3:  # the second half of the second step
                super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    spoiled = SpoilSecond(2)
    fit(tmp_path, Losses(tmp_path / "losses.csv"), Guard(tmp_path), spoiled, accumulate_grad_batches=2)
    assert same(spoiled.weights[3], spoiled.weights[1])
    assert not same(spoiled.weights[5], spoiled.weights[3])
    assert [path.name for path in (tmp_path / "nonfinite").iterdir()] == ["step_2_batch1.safetensors"]


def test_after_the_stated_number_the_run_stops_with_all_that_reproduces_it(tmp_path: Path, call: Any) -> None:
    guard, spoiled = Guard(tmp_path, max_skipped=1), Spoil(2, 4)
    with pytest.raises(NonFiniteError, match=r"training step 4, data set '(slow|fast)': NaN .*step_4.safetensors"):
        fit(tmp_path, Losses(tmp_path / "losses.csv"), guard, spoiled)
    assert [row["event"] for row in events(tmp_path)] == ["skipped", "stopped"]
    saved = read_batch(tmp_path / "nonfinite" / "step_4.safetensors")
    assert saved.batch.context.isnan().sum() == 1
    (row,) = (row for row in events(tmp_path) if row["step"] == "4")
    assert " ".join(f"{t}:{s}" for t, s in saved.batch.windows.tolist()) == row["windows"]
    # The model is that before the step: 3 steps were done, the second of them without effect.
    model = read_checkpoint(tmp_path / "nonfinite" / "step_4.ckpt")
    assert model.steps == 3
    assert same(list(model.weights.values()), spoiled.weights[2])
    done = call("morph.replay", f"batch={tmp_path}/nonfinite/step_4.safetensors", "device=cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "after 3 steps" in done.stdout
    assert "first part of the model whose output is not finite: embedding." in done.stdout
    assert "NaN or infinity in the data" in done.stdout


def test_zero_stops_at_the_first(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"training step 1, .*max_skipped=0"):
        fit(tmp_path, Losses(tmp_path / "losses.csv"), Guard(tmp_path, max_skipped=0), Spoil(1))


def test_a_gradient_that_is_not_finite_although_the_loss_is(tmp_path: Path, call: Any) -> None:
    """That of one bias is made infinite on its way back."""
    module = forecaster()
    fault = module.model.decoder.linear.bias.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(NonFiniteError, match=r"step 2, .*a non-finite gradient although the data is finite"):
        fit(tmp_path, Losses(tmp_path / "losses.csv"), Guard(tmp_path, max_skipped=1), module=module)
    assert [math.isfinite(float(row["loss"])) for row in events(tmp_path)] == [True, True]
    path = tmp_path / "nonfinite" / "step_2.safetensors"
    saved = read_batch(path)
    # The same batch, model and dropout: the same loss, and the weight whose gradient it is.
    told = list(find_nonfinite(module.model, saved.batch, saved.seed))
    assert told == [
        f"loss: {float(events(tmp_path)[1]['loss']):.6g}",
        "weights whose gradient is not finite: decoder.linear.bias",
    ]
    fault.remove()
    done = call("morph.replay", f"batch={path}", "device=cpu", cwd=tmp_path)
    assert told[0] in done.stdout
    assert "loss and gradient are finite here" in done.stdout


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_how_often_it_skipped_survives_a_resume_and_rows_are_written_once(tmp_path: Path) -> None:
    """Resumed from step 4 of a run whose steps 3 and 5 are not finite: two steps skipped, and the third stops it."""
    saving = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=4, enable_version_counter=False)
    spoil = partial(Spoil, 3, 5)
    fit(tmp_path, Losses(tmp_path / "losses.csv"), Guard(tmp_path, max_skipped=2), spoil(), saving)
    first = (tmp_path / "events.csv").read_text()
    assert [row["step"] for row in events(tmp_path)] == ["3", "5"]
    with (tmp_path / "events.csv").open("a") as file:
        file.write("6,spi")  # a power cut in the middle of a row
    again = Guard(tmp_path, max_skipped=2)
    fit(tmp_path, Losses(tmp_path / "losses.csv"), again, spoil(), resume=tmp_path / "step=4.ckpt")
    assert again.skipped == 2
    assert (tmp_path / "events.csv").read_text() == first
    with pytest.raises(NonFiniteError, match="max_skipped=1"):
        fit(
            tmp_path,
            Losses(tmp_path / "losses.csv"),
            Guard(tmp_path, max_skipped=1),
            spoil(),
            resume=tmp_path / "step=4.ckpt",
        )


def test_usual_is_the_exponential_mean_and_variance() -> None:
    """Against the weights written out: 1/n while there are few steps, then 0.98^k of the past."""
    chance = np.random.default_rng(0)
    logs = chance.normal(0.0, 0.1, 80)
    usual = Usual()
    for number, value in enumerate(logs[:50], start=1):
        usual = usual.after(math.exp(value))
        assert usual.mean == pytest.approx(logs[:number].mean())
        assert usual.variance == pytest.approx(logs[:number].var())
    for value in logs[50:]:
        usual = usual.after(math.exp(value))
    weights = np.array([0.98**30 / 50] * 50 + [0.02 * 0.98 ** (29 - k) for k in range(30)])
    assert weights.sum() == pytest.approx(1)
    assert usual.mean == pytest.approx((weights * logs).sum())


def test_a_spike_is_told_and_neither_noise_nor_a_slow_rise_nor_a_constant_loss_is() -> None:
    chance = np.random.default_rng(1)

    def told(losses: np.ndarray) -> list[int]:
        usual, found = Usual(), []
        for number, loss in enumerate(losses):
            if usual.is_spike(loss, 5.0):
                found.append(number)
            usual = usual.after(loss)
        return found

    noise = np.exp(chance.normal(0.0, 0.3, 2000))
    assert told(noise) == []
    falling = noise * np.linspace(1, 1e-3, 2000)
    assert told(falling) == []
    assert told(noise * np.exp(np.linspace(0, 8, 2000))) == []
    assert told(np.ones(200)) == []
    assert told(np.where(np.arange(200) == 150, 1.9, 1.0)) == []  # less than double
    for height in (10.0, 1e6):
        spiked = noise.copy()
        spiked[[30, 700, 702, 1500]] = height  # the first one is in the warm-up
        assert told(spiked) == [700, 702, 1500]
    # A new level is usual after a while.
    raised = noise * np.where(np.arange(2000) < 1000, 1, 30)
    found = told(raised)
    assert found
    assert set(found) <= set(range(1000, 1100))


def test_a_spike_names_its_data_set_and_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target of one batch grows a hundredfold."""
    monkeypatch.setattr("morph.guard._WARM_UP", 3)
    seen: list[tuple[str, str]] = []

    class Grow(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
        ) -> None:
            if trainer.global_step == 20:
                batch.target.mul_(100)
                seen.append((batch.dataset, " ".join(f"{t}:{s}" for t, s in batch.windows.tolist())))

    guard = Guard(tmp_path)
    fit(tmp_path, Losses(tmp_path / "losses.csv"), guard, Grow(), epochs=5)
    assert [(row["step"], row["event"]) for row in events(tmp_path)] == [("21", "spike")]
    (row,) = events(tmp_path)
    assert [(row["dataset"], row["windows"])] == seen
    assert float(row["loss"]) > 100 * float(row["usual_loss"])
    assert sum(usual.steps for usual in guard.usual.values()) == 5 * STEPS


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="put losses before it"):
        fit(tmp_path, Guard(tmp_path), Losses(tmp_path / "losses.csv"))
    with pytest.raises(ValueError, match="max_skipped: expected 0 or more steps, found -1"):
        Guard(tmp_path, max_skipped=-1)
    with pytest.raises(ValueError, match="spike: expected a positive number"):
        Guard(tmp_path, spike=0)


def every_kind_of_batch() -> Iterator[Batch]:
    torch.manual_seed(0)
    context, target = torch.randn(2, 3, 2, 2, 1, 4, 5), torch.randn(2, 1, 2, 2, 1, 4, 5)
    mask = torch.tensor([[True, True], [True, False]])
    windows = torch.tensor([[3, 7], [0, 2]])
    yield Batch(context, target, Conditions(mask), "plain", windows)
    scales = Statistics(torch.randn(2, 2), torch.rand(2), torch.rand(2))
    full = Conditions(torch.ones_like(mask), ("open", "wall", "periodic"), scales, True, context[:, 0] > 0)
    yield Batch(context, target, full, "masked", windows, target > 0)


@pytest.mark.parametrize("batch", list(every_kind_of_batch()), ids=lambda batch: batch.dataset)
def test_a_saved_batch_is_the_batch(tmp_path: Path, batch: Batch) -> None:
    def parts(value: Any) -> list[Any]:
        return [part for item in value for part in parts(item)] if isinstance(value, tuple) else [value]

    write_batch(tmp_path / "a.safetensors", SavedBatch(batch, 5, 2**62 + 1, "32-true", "a fault"))
    read = read_batch(tmp_path / "a.safetensors")
    assert read[1:] == (5, 2**62 + 1, "32-true", "a fault")
    for found, expected in zip(parts(tuple(read.batch)), parts(tuple(batch)), strict=True):
        assert torch.equal(found, expected) if isinstance(expected, Tensor) else found == expected


def test_what_is_no_saved_batch_is_refused(tmp_path: Path, call: Any) -> None:
    def refusal(*options: str) -> str:
        done = call("morph.replay", *options, cwd=tmp_path)
        assert done.returncode == 1
        return str(done.stderr)

    assert "batch: there is no file none" in refusal("batch=none")
    (tmp_path / "text").write_text("no tensors")
    assert "text is not a batch that morph.train saved" in refusal("batch=text")
    (plain, _) = every_kind_of_batch()
    path = tmp_path / "nonfinite" / "step_1.safetensors"
    write_batch(path, SavedBatch(plain, 1, 0, "32-true", ""))
    assert "does not lie in the folder of a run; say which model, checkpoint=<run>" in refusal(f"batch={path}")


def ranks(rank: int, port: int, folder: Path, results: Any) -> None:
    """One of two processes; the data of the second one alone is not finite in step 2."""
    torch.set_num_threads(1)

    class Place(LightningEnvironment):
        def world_size(self) -> int:
            return 2

    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "LOCAL_RANK": str(rank)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        strategy = DDPStrategy(
            cluster_environment=Place(), process_group_backend="gloo", find_unused_parameters=True, start_method="popen"
        )
        spoiled, guard = Spoil(2, rank=1), Guard(folder)
        fit(folder, Losses(folder / "losses.csv"), guard, spoiled, strategy=strategy, devices=2)
    skipped = same(spoiled.weights[1], spoiled.weights[0]) and not same(spoiled.weights[2], spoiled.weights[1])
    results.put((rank, skipped, guard.skipped, [p.double().sum().item() for p in spoiled.weights[-1]]))


def test_two_processes_skip_alike_where_one_of_them_is_not_finite(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=ranks, args=(rank, port, tmp_path, results)) for rank in range(2)]
    for process in processes:
        process.start()
    found = sorted(results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(60)
    assert [(rank, skipped, count) for rank, skipped, count, _ in found] == [(0, True, 1), (1, True, 1)]
    assert found[0][3] == found[1][3]
    assert [path.name for path in (tmp_path / "nonfinite").iterdir()] == ["step_2_rank1.safetensors"]
    (row,) = events(tmp_path)
    assert (row["step"], row["event"]) == ("2", "skipped")
