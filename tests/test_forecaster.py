"""Training: the loss, its reproducibility, and what happens when a number is not finite."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from morph.checkpoint import load_checkpoint, read_checkpoint
from morph.data.module import MixtureDataModule
from morph.forecaster import Forecaster, NonFiniteError, forecast_loss, warmup_cosine
from morph.layout import Batch, Conditions
from morph.model.morph import Capacity, Morph

STEPS = 6


class Losses(Callback):
    """Keeps the loss of each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.values.append(outputs["loss"].item())


def data(**options: Any) -> MixtureDataModule:
    sets = {
        "slow": {"_target_": "tests.made_up.Waves", "name": "slow", "batch_size": 4},
        "fast": {"_target_": "tests.made_up.Waves", "name": "fast", "speed": 2.0, "batch_size": 4},
    }
    return MixtureDataModule(sets, **{"steps_per_epoch": STEPS, "seed": 1, **options})


def forecaster(**options: Any) -> Forecaster:
    seed_everything(5, verbose=False)
    model = Morph(dim=32, depth=1, heads=4, field_heads=8, dropout=0.3, capacity=Capacity(2, 1, 4, 32), **options)
    return Forecaster(model, partial(torch.optim.AdamW, lr=3e-3), seed=5)


def trainer(folder: Path, *callbacks: Callback, epochs: int = 3, **options: Any) -> Trainer:
    return Trainer(
        default_root_dir=folder, max_epochs=epochs, callbacks=list(callbacks), logger=False, accelerator="cpu",
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False,
        **{"enable_progress_bar": False, **options},
    )  # fmt: skip


def test_each_physical_component_counts_once() -> None:
    """Worked by hand: a vector of two components and a scalar whose second component is filler."""
    target = torch.zeros(1, 1, 2, 2, 1, 1, 4)
    prediction = torch.zeros(1, 1, 2, 2, 1, 1, 4)
    prediction[:, :, 0, 0] = 2.0  # error 2 in units of 2: counts 1
    prediction[:, :, 0, 1] = 4.0  # counts 4
    prediction[:, :, 1, 0] = 3.0  # unit 1: counts 9
    prediction[:, :, 1, 1] = 1e6  # filler
    mask = torch.tensor([[True, True], [True, False]])
    batch = Batch(target, target, Conditions(mask), "made up", torch.zeros(1, 2, dtype=torch.int64))
    assert forecast_loss(prediction, batch, torch.tensor([[2.0, 1.0]])).item() == pytest.approx((1 + 4 + 9) / 3)


def test_warm_up_and_cosine() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = warmup_cosine(optimizer, 100, warmup_fraction=0.1, final_fraction=0.01)
    rates = []
    for _ in range(100):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[55] == pytest.approx(0.01 + 0.99 * 0.5)
    assert schedule.get_last_lr()[0] == pytest.approx(0.01)


def test_training_learns_and_two_runs_are_the_same(tmp_path: Path) -> None:
    runs = []
    for _ in range(2):
        losses, run = Losses(), trainer(tmp_path, epochs=15)
        run.callbacks.append(losses)
        module = forecaster()
        run.fit(module, data())
        runs.append((losses.values, {k: v.item() for k, v in run.callback_metrics.items()}))
    assert runs[0] == runs[1]
    losses, scores = runs[0]
    # An untrained model of increments is persistence: its loss is about 1, its ratio at least 1.
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert scores["val/ratio"] < 0.9
    assert scores["val/ratio"] == pytest.approx((scores["val/ratio/slow"] * scores["val/ratio/fast"]) ** 0.5)


def test_a_checkpoint_holds_all_that_a_forecast_needs(tmp_path: Path) -> None:
    saving = ModelCheckpoint(tmp_path, filename="best", monitor="val/ratio", enable_version_counter=False)
    module = forecaster(base="linear")
    run = trainer(tmp_path, saving, epochs=1)
    run.fit(module, data(options={"level": "tiny"}))
    model = load_checkpoint(tmp_path)
    batch = run.datamodule.valid["slow"].batch([0, 1])
    with torch.no_grad():
        assert torch.equal(model(batch.context, batch.conditions), module.eval().model(batch.context, batch.conditions))
    stored = read_checkpoint(tmp_path / "best.ckpt")
    assert stored.trained_on.context == 4
    assert stored.options == {"level": "tiny"}
    assert stored.trained_on.specs["slow"] == run.datamodule.specs["slow"]


def test_several_target_frames_train_on_the_models_own_forecasts(tmp_path: Path) -> None:
    module = forecaster()
    run = trainer(tmp_path, limit_train_batches=1, limit_val_batches=0, epochs=1)
    run.fit(module, data(target=3))
    batch = run.datamodule.train["slow"].batch([0, 5])
    module.eval()
    states, context = [], batch.context
    for _ in range(3):
        states.append(module.model(context, batch.conditions))
        context = torch.cat((context[:, 1:], states[-1][:, None]), 1)
    expected = forecast_loss(torch.stack(states, 1), batch, module.model.unit_of_error(batch.context, batch.conditions))
    module.log = lambda *_, **__: None
    loss = module.training_step(batch, 0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_nan_in_the_data_stops_the_run_and_names_data_set_window_and_step(tmp_path: Path) -> None:
    module = data()
    module.datasets["fast"] = {**module.datasets["fast"], "spoil": (3, 11)}
    with pytest.raises(NonFiniteError, match=r"training step \d+, data set 'fast': NaN.*trajectory 3 from frame 7;"):
        trainer(tmp_path, epochs=20).fit(forecaster(), module)


def test_a_loss_that_is_not_finite_although_the_data_is(tmp_path: Path) -> None:
    module = forecaster()
    torch.nn.init.constant_(module.model.decoder.linear.bias, 1e30)
    with pytest.raises(
        NonFiniteError, match=r"training step 1, data set .*non-finite loss although the data is finite"
    ):
        trainer(tmp_path).fit(module, data())


def test_a_data_set_beyond_the_capacity_is_refused_by_name(tmp_path: Path) -> None:
    seed_everything(5, verbose=False)
    model = Morph(dim=32, depth=1, heads=4, field_heads=8, capacity=Capacity(max_fields=1))
    module = Forecaster(model, partial(torch.optim.AdamW, lr=1e-3))
    with pytest.raises(ValueError, match=r"data set 'slow' has 2 fields, the model takes at most 1.*max_fields=2"):
        trainer(tmp_path).fit(module, data())


def test_only_matrices_and_kernels_decay(tmp_path: Path) -> None:
    module = forecaster()
    names = {id(p): name for name, p in module.model.named_parameters()}
    decayed, rest = module._parameter_groups()
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.01, 0)
    assert all(names[id(p)].endswith("weight") and "norm" not in names[id(p)] for p in decayed["params"])
    assert {"positions.table", "embedding.field_attention.query"} <= {names[id(p)] for p in rest["params"]}
    assert len(decayed["params"]) + len(rest["params"]) == len(names)


def test_each_part_has_its_rate_and_its_decay() -> None:
    rates = {"encoder": {"lr": 2.0, "weight_decay": 0.5}, "decoder": {}}
    module = Forecaster(forecaster().model, partial(torch.optim.AdamW, lr=1.0), finetune={"train": rates})
    names = {id(p): name for name, p in module.model.named_parameters()}
    groups = module._parameter_groups()
    found = [(group["name"], group.get("lr"), group["weight_decay"]) for group in groups]
    assert found == [
        ("encoder", 2.0, 0.5), ("encoder, undecayed", 2.0, 0.0),
        ("decoder", None, 0.01), ("decoder, undecayed", None, 0.0),
    ]  # fmt: skip
    placed = [names[id(p)] for group in groups for p in group["params"]]
    assert sorted(placed) == sorted(name for name in names.values() if name.startswith(("embedding.", "decoder.")))


@pytest.mark.parametrize(
    ("batch_size", "message"),
    [({"quick": 3}, "quick is none of the data sets slow, fast"), (0, "positive integer, found 0")],
)
def test_wrong_batch_sizes(batch_size: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data(batch_size=batch_size)
