"""More frames of context and training only some parts: what changes, what stays, and the second stage end to end."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from morph.checkpoint import load_checkpoint
from morph.finetune import grow, train_only
from morph.forecaster import Forecaster
from morph.model.morph import Capacity, Morph
from morph.rollout import rollout
from tests.conftest import ROOT
from tests.interruption import last_scores, power_cut
from tests.test_forecaster import data, trainer

TINY = (
    "model=nano",
    "model.local=null",
    "model.token_frames=null",
    "model.dim=32",
    "model.depth=2",
    "model.capacity.max_patches=32",
)
QUICK = ("mixture.steps_per_epoch=4", "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "trainer.accelerator=cpu")
SECOND_STAGE = "+experiment=pretrain_ar"


def build(max_context: int, depth: int = 2, **options: Any) -> Morph:
    """A small model whose decoder is not zero, so that everything before it counts."""
    torch.manual_seed(0)
    capacity = Capacity(2, 1, max_context, 16)
    model = Morph(dim=32, depth=depth, heads=4, field_heads=8, capacity=capacity, **options)
    for parameter in model.decoder.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def frames(count: int, seed: int = 1) -> Tensor:
    return torch.randn(2, count, 2, 1, 1, 16, 24, generator=torch.Generator().manual_seed(seed))


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def trainable(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("context", [1, 2, 3, 4])
def test_one_model_takes_any_context_and_slides_it_over_its_own_forecasts(context: int) -> None:
    model = build(max_context=4)
    seen = frames(context)
    with torch.no_grad():
        for state in rollout(model, frames(context), 3):
            expected = model(seen)
            assert torch.equal(state, expected)
            seen = torch.cat((seen[:, 1:], expected[:, None]), 1)
    assert seen.shape[1] == context


@torch.no_grad()
@pytest.mark.parametrize("max_context", [1, 4, 7])
def test_a_grown_model_forecasts_from_one_frame_what_it_did(max_context: int) -> None:
    model = build(max_context=1, normalisation="context")
    grown = grow(model, max_context=max_context)
    assert grown.capacity.max_context == max_context
    assert torch.equal(grown(frames(1)), model(frames(1)))
    assert torch.equal(grown.positions.table, model.positions.table.expand(-1, max_context, -1, -1))
    assert grown(frames(max_context)).isfinite().all()
    rest = values(grown).keys() - {"positions.table"}
    assert all(torch.equal(values(grown)[name], values(model)[name]) for name in rest)
    assert not any(a.data_ptr() == b.data_ptr() for a, b in zip(grown.parameters(), model.parameters(), strict=True))


def test_a_table_of_several_rows_is_repeated_and_its_last_row_fills() -> None:
    model = build(max_context=2)
    first, last = model.positions.table[0]
    assert torch.equal(grow(model, max_context=5).positions.table[0], torch.stack([first, last, first, last, last]))
    assert grow(model, max_context=1).capacity.max_context == 2


@torch.no_grad()
def test_rows_alike_do_not_tell_the_older_frames_apart() -> None:
    """Why `positions` can be trained too: attention over time sees a set, but for what positions say."""
    model = grow(build(max_context=1, normalisation="none", predict="frame"), max_context=4)
    context = frames(4)
    shuffled = context[:, [2, 0, 1, 3]]
    torch.testing.assert_close(model(shuffled), model(context))
    model.positions.table += torch.randn(model.positions.table.shape)
    assert not torch.allclose(model(shuffled), model(context), rtol=1e-2)


def test_the_parts_of_the_last_blocks() -> None:
    model = build(max_context=2, depth=3)
    train_only(model, ["norms", "time_attention"], last_blocks=2)
    part = r"blocks\.[12]\.(norm_mixer|norm_mlp|mixer\.time\.\w+)|decoder\.norm"
    assert trainable(model) == {name for name in values(model) if re.fullmatch(rf"({part})\.(weight|bias)", name)}
    train_only(model, ["time_attention"])
    assert {name.split(".")[1] for name in trainable(model)} == {"0", "1", "2"}
    train_only(model, "positions")
    assert trainable(model) == {"positions.table"}


def test_the_second_stage_of_size_ti_trains_a_twelfth_of_it() -> None:
    """Four blocks: nine norms of 2 E each, and four times four layers of E (E + 1)."""
    config = OmegaConf.load(ROOT / "conf" / "model" / "ti.yaml")
    stage = OmegaConf.load(ROOT / "conf" / "finetune" / "time.yaml")
    with torch.device("meta"):
        model = instantiate(config)
    train_only(model, list(stage.train), stage.last_blocks)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == 9 * 2 * 256 + 4 * 4 * 256 * 257 == 1_057_280
    assert trained / sum(p.numel() for p in model.parameters()) == pytest.approx(0.081, abs=5e-4)


def test_only_what_is_named_changes(tmp_path: Path) -> None:
    module = Forecaster(
        build(max_context=4).train(),
        partial(torch.optim.AdamW, lr=1e-2),
        finetune={"train": {"norms": {}, "time_attention": {}}, "last_blocks": 1},
    )
    before = values(module.model)
    trainer(tmp_path, epochs=1).fit(module, data(steps_per_epoch=1))
    after = values(module.model)
    assert {name for name in after if not torch.equal(before[name], after[name])} == trainable(module.model)


@pytest.mark.parametrize(
    ("parts", "last_blocks", "message"),
    [
        (["norm"], None, "finetune.train: expected some of lora, norms, .*, found norm"),
        ([], None, "expected some of lora, norms, .*, found none"),
        (["norms"], 0, "last_blocks: expected a positive integer, or null, found 0"),
        (["positions"], 2, "last_blocks has no effect on positions"),
    ],
)
def test_wrong_parts(parts: list[str], last_blocks: int | None, message: str) -> None:
    model = build(max_context=1)
    with pytest.raises(ValueError, match=message):
        train_only(model, parts, last_blocks)
    assert len(trainable(model)) == len(values(model))


def test_a_part_that_the_model_does_not_have() -> None:
    model = build(max_context=1)
    for block in model.blocks:
        block.mixer = nn.Identity()
    with pytest.raises(ValueError, match="this model has no time_attention"):
        train_only(model, ["norms", "time_attention"])


@pytest.fixture
def first_stage(call: Any, tmp_path: Path) -> Path:
    """A run with one frame of context on waves, whose YAML lies beside it."""
    (tmp_path / "waves.yaml").write_text(yaml.safe_dump({"_target_": "tests.made_up.Waves", "batch_size": 4}))
    options = ("data=waves.yaml", "window.context=1", "model.capacity.max_context=1", "run_dir=ar1")
    done = call("morph.train", *TINY, *QUICK, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_the_second_stage_from_the_command_line(call: Any, first_stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It grows, trains and freezes; resumed it equals the uninterrupted run; any context can be judged."""
    options = ("morph.train", SECOND_STAGE, "checkpoint=ar1", "data=waves.yaml", *QUICK)
    done = call(*options, "run_dir=ar4", cwd=first_stage)
    assert done.returncode == 0, done.stderr
    assert re.search(r"Training 0\.0 M of 0\.\d M parameters on waves", done.stdout)
    old, new = load_checkpoint(first_stage / "ar1"), load_checkpoint(first_stage / "ar4")
    assert torch.equal(new.positions.table, old.positions.table.expand(-1, 4, -1, -1))
    train_only(new, ["norms", "time_attention"])
    before, after = values(old), values(new)
    changed = {name for name in after.keys() - {"positions.table"} if not torch.equal(before[name], after[name])}
    assert changed == trainable(new)
    recorded = yaml.safe_load((first_stage / "ar4" / "train.yaml").read_text())
    assert recorded["checkpoint"] == str(first_stage / "ar1")
    assert recorded["model"]["capacity"]["max_context"] == 4
    assert recorded["model"]["dim"] == 32

    with power_cut(monkeypatch):
        call(*options, "run_dir=cut", cwd=first_stage)
    other = call(*options, "resume=cut", "finetune.last_blocks=1", cwd=first_stage)
    assert "last_blocks=4, now 1" in other.stderr
    rest = call(*options, "resume=cut", cwd=first_stage)
    assert rest.returncode == 0, rest.stderr
    assert last_scores(first_stage / "cut") == last_scores(first_stage / "ar4")

    for context in (1, 3):
        judging = ("checkpoint=ar4", "data=waves.yaml", f"context={context}", "figures=false")
        judged = call("morph.evaluate", *judging, cwd=first_stage)
        assert judged.returncode == 0, judged.stderr
        metrics = xr.open_dataset(first_stage / "ar4" / "evaluation" / "metrics.nc", group="waves")
        assert metrics.rollout.sizes["lead_time"] == 12 - context
        metrics.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((SECOND_STAGE,), "error: finetune needs a model to start from: give checkpoint="),
        ((SECOND_STAGE, "checkpoint=nowhere"), "error: checkpoint: there is nothing at nowhere"),
        (
            ("checkpoint=ar1",),
            "error: window.context has 4 context frames, the model of ar1 takes at most 1; let it grow",
        ),
        (
            ("+experiment=debug", "checkpoint=ar1"),
            "error: an experiment chooses the model, which with checkpoint= is that of the checkpoint",
        ),
        (
            ("checkpoint=ar1", "model=s", "model.dropout=0"),
            "error: model=s, model.dropout=0: with checkpoint= the model",
        ),
        (("grow=true",), "error: grow needs a model to start from: give checkpoint="),
        (
            ("checkpoint=ar1", "window.context=1", "finetune=time", "+finetune.train.mlp.lr=1"),
            "error: finetune.train: expected some of lora, norms",
        ),
        (
            ("checkpoint=ar1", "finetune=time", "window.context=1"),
            "error: finetune.train: time_attention has no effect on a context of one frame",
        ),
        (
            (SECOND_STAGE, "checkpoint=ar1", "finetune.last_blocks=all"),
            "error: option finetune.last_blocks: expected an integer",
        ),
    ],
)
def test_what_a_user_can_mend_is_one_line(call: Any, first_stage: Path, options: tuple[str, ...], message: str) -> None:
    done = call("morph.train", *QUICK, "data=waves.yaml", "run_dir=new", *options, cwd=first_stage)
    assert done.returncode == 1
    assert done.stderr.startswith(message), done.stderr
    assert done.stderr.count("\n") <= 1
    assert not (first_stage / "new" / "checkpoints").exists()


@pytest.mark.parametrize("context", [0, 2, "two"])
def test_evaluation_refuses_a_context_that_the_model_does_not_take(call: Any, first_stage: Path, context: Any) -> None:
    done = call("morph.evaluate", "checkpoint=ar1", "data=waves.yaml", f"context={context}", cwd=first_stage)
    assert done.returncode == 1
    assert f"error: context: expected 1 to 1, the frames that the model takes, found {context!r}" in done.stderr
