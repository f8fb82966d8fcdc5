"""The average of the weights is what its formula says, goes through checkpoints, and is what is validated and used."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import load_file
from torch import Tensor

from morph.averaging import Averaging
from morph.checkpoint import base_of, keep_adapter, load_checkpoint, read_checkpoint
from morph.finetune import lora_layers
from morph.forecaster import Forecaster
from morph.guard import Guard
from morph.history import Losses
from morph.model.adapter import add_adapter
from morph.model.morph import Morph
from morph.resume import check_resume
from tests.test_forecaster import STEPS, data, forecaster, trainer

DECAY = 0.8
pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")

Weights = dict[str, Tensor]


class Trained(Callback):
    """The weights after each step; can stop a run as an interruption would."""

    def __init__(self, stop_after: int | None = None, in_validation: bool = False) -> None:
        self.weights: list[Weights] = []
        self.stop_after, self.in_validation = stop_after, in_validation

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Forecaster)
        self.weights.append({name: value.clone() for name, value in pl_module.model.state_dict().items()})
        if len(self.weights) == self.stop_after:
            raise RuntimeError("power cut")

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        if self.in_validation:
            raise RuntimeError("power cut")


def module() -> Forecaster:
    made = forecaster()
    made.recipe["ema"] = DECAY
    return made


def saving(folder: Path, **options: Any) -> ModelCheckpoint:
    return ModelCheckpoint(folder, filename="last", enable_version_counter=False, every_n_train_steps=1, **options)


def averages(steps: list[Weights]) -> Weights:
    """e_1 = w_1, e_t = d e_(t-1) + (1 - d) w_t, summed up: weights d^(n-1), and (1 - d) d^(n-t)."""
    n = len(steps)
    factors = [DECAY ** (n - 1), *((1 - DECAY) * DECAY ** (n - t) for t in range(2, n + 1))]
    assert sum(factors) == pytest.approx(1)
    return {
        name: torch.stack([f * step[name].double() for f, step in zip(factors, steps, strict=True)]).sum(0).float()
        for name in steps[0]
    }


def same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Weights], dict[str, float]]:
    """A run of two epochs, its weights after each step, and its last scores."""
    folder = tmp_path_factory.mktemp("run")
    trained, fitted = Trained(), trainer(folder, Averaging(DECAY), saving(folder), epochs=2)
    fitted.callbacks.insert(0, trained)
    fitted.fit(module(), data())
    return folder, trained.weights, {name: float(value) for name, value in fitted.callback_metrics.items()}


def test_a_checkpoint_holds_the_average_by_its_formula_and_the_trained_weights(run: Any) -> None:
    folder, steps, _ = run
    assert len(steps) == 2 * STEPS
    averaged, trained = (dict(read_checkpoint(folder, weights=kind).weights) for kind in ("averaged", "trained"))
    assert same(trained, steps[-1])
    torch.testing.assert_close(averaged, averages(steps), rtol=1e-5, atol=1e-7)
    assert not same(averaged, trained)
    assert same(dict(read_checkpoint(folder).weights), averaged)
    assert same(dict(load_checkpoint(folder, weights="trained").state_dict()), trained)


def test_validation_judges_the_average(run: Any, tmp_path: Path) -> None:
    folder, _, scores = run
    for kind, equal in (("averaged", True), ("trained", False)):
        judged = Forecaster(load_checkpoint(folder, weights=kind), partial(torch.optim.AdamW, lr=0.0))
        (found,) = trainer(tmp_path).validate(judged, data(), verbose=False)
        assert (found["val/ratio"] == scores["val/ratio"]) == equal


@pytest.mark.parametrize("stop_after", [STEPS, STEPS + 2])
def test_a_run_cut_off_and_resumed_equals_the_uninterrupted_one(run: Any, tmp_path: Path, stop_after: int) -> None:
    """Average and trained weights, bit for bit; at the end of an epoch and in the middle of one."""
    with pytest.raises(RuntimeError, match="power cut"):
        trainer(tmp_path, Averaging(DECAY), saving(tmp_path), Trained(stop_after), epochs=2).fit(module(), data())
    resumed = trainer(tmp_path, Averaging(DECAY), saving(tmp_path), epochs=2)
    resumed.fit(module(), data(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    for kind in ("averaged", "trained"):
        found, expected = (dict(read_checkpoint(path, weights=kind).weights) for path in (tmp_path, run[0]))
        assert same(found, expected)
    assert float(resumed.callback_metrics["val/ratio"]) == run[2]["val/ratio"]


def test_a_run_that_breaks_inside_of_validation_keeps_both_apart(run: Any, tmp_path: Path) -> None:
    """A checkpoint that is written then is that of the last step."""
    steps = run[1][:STEPS]
    made = module()
    broken = trainer(tmp_path, Averaging(DECAY), Trained(in_validation=True), epochs=2)
    kept: list[dict[str, Any]] = []

    class Write(Callback):
        def on_validation_batch_start(self, trainer: Trainer, *_: Any, **__: Any) -> None:
            kept.append(trainer._checkpoint_connector.dump_checkpoint(weights_only=False))

    broken.callbacks.append(Write())
    with pytest.raises(RuntimeError, match="power cut"):
        broken.fit(made, data())
    trained = dict(made.model.state_dict())
    assert same(trained, steps[-1])
    inside = {key: {n.removeprefix("model."): v for n, v in kept[0][key].items()} for key in
              ("state_dict", "current_model_state")}  # fmt: skip
    # They are the tensors themselves, which were exchanged when the run broke.
    assert same(inside["state_dict"], trained)
    torch.testing.assert_close(inside["current_model_state"], averages(steps), rtol=1e-5, atol=1e-7)


def test_a_skipped_step_and_a_stop_leave_the_trained_weights(run: Any, tmp_path: Path) -> None:
    class Spoil(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
        ) -> None:
            if batch_idx == 4:
                batch.context.fill_(torch.nan)

    fitted = trainer(
        tmp_path, Losses(tmp_path / "losses.csv"), Guard(tmp_path, max_skipped=0), Averaging(DECAY), Spoil(), epochs=2
    )
    with pytest.raises(ValueError, match="training step 5"):
        fitted.fit(module(), data())
    stopped = read_checkpoint(tmp_path / "nonfinite" / "step_5.ckpt")
    assert same(dict(stopped.weights), run[1][3])


def test_only_the_same_average_goes_on(run: Any) -> None:
    windows = data()
    windows.setup("fit")
    check_resume(run[0] / "last.ckpt", module(), windows)
    other = forecaster()
    other.recipe["ema"] = None
    with pytest.raises(ValueError, match=r"other options: .*ema=0.8, now None"):
        check_resume(run[0] / "last.ckpt", other, windows)


def test_commands_take_either_kind(run: Any, tmp_path: Path, call: Any) -> None:
    for kind in ("averaged", "trained"):
        done = call("morph.export", f"checkpoint={run[0]}", f"out={kind}", f"weights={kind}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert same(
            load_file(tmp_path / kind / "model.safetensors"), dict(read_checkpoint(run[0], weights=kind).weights)
        )
    assert call("morph.export", f"checkpoint={run[0]}", "out=plain", cwd=tmp_path).returncode == 0
    assert same(*(load_file(tmp_path / name / "model.safetensors") for name in ("plain", "averaged")))
    for command in (("morph.evaluate",), ("morph.predict", "input=a.nc", "steps=1")):
        for wrong, message in (
            ("weights=newest", "weights: expected averaged, trained or null, found 'newest'"),
            ("weights=trained", "plain holds the weights that it was written with; leave it out"),
        ):
            done = call(*command, "checkpoint=plain", wrong, cwd=tmp_path)
            assert done.returncode == 1
            assert message in done.stderr


def test_a_run_without_an_average_has_trained_weights_alone(tmp_path: Path) -> None:
    trainer(tmp_path, saving(tmp_path), epochs=1, limit_val_batches=0).fit(forecaster(), data())
    assert same(*(dict(read_checkpoint(tmp_path, weights=kind).weights) for kind in (None, "trained")))
    with pytest.raises(ValueError, match="its run kept no average of the weights"):
        load_checkpoint(tmp_path, weights="averaged")


def test_an_adapter_holds_averaged_factors_and_no_more_than_without_an_average(tmp_path: Path) -> None:
    """What is not trained stays what it was, so that the adapter's folder need not hold it."""
    start: Any = forecaster().model
    with torch.no_grad():
        start.decoder.linear.weight.normal_()
    start.save_pretrained(tmp_path / "base")
    held: dict[str, set[str]] = {}
    for name, ema in (("with", DECAY), ("without", None)):
        model = load_checkpoint(tmp_path / "base")
        assert isinstance(model, Morph)
        base = base_of(model, tmp_path / "base")
        rank = lora_layers(model, {"attention": 2, "mlp": 2})
        add_adapter(model, {"rank": rank, "alpha": dict.fromkeys(rank, 4), "dropout": 0.0, "dora": False,
                            "rslora": False})  # fmt: skip
        tune = Forecaster(
            model.train(), partial(torch.optim.AdamW, lr=1e-2), finetune={"train": {"lora": None, "norms": None}},
            base=base, recipe={"ema": ema},
        )  # fmt: skip
        average = [Averaging(DECAY)] if ema else []
        trainer(tmp_path, *average, saving(tmp_path / name), epochs=1, limit_val_batches=0).fit(tune, data())
        checkpoint = read_checkpoint(tmp_path / name)
        files = keep_adapter(tmp_path / name / "adapter", checkpoint)
        loaded = load_checkpoint(tmp_path / name / "adapter").state_dict()
        assert same(dict(loaded), dict(checkpoint.weights))
        held[name] = {key for file in files if file.suffix == ".safetensors" for key in load_file(file)}
        assert json.loads((tmp_path / name / "adapter" / "morph.json").read_text())["plan"]["ema"] == ema
    assert held["with"] == held["without"]
    assert any("lora_A" in key for key in held["with"])


@pytest.mark.parametrize("decay", [0, 1, 2.0, "0.9", True])
def test_what_is_no_decay_is_refused(decay: Any) -> None:
    with pytest.raises(ValueError, match=r"ema: expected a decay between 0 and 1, such as 0.999, or null, found"):
        Averaging(decay)
