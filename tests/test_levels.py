"""Fine-tuning from the command line: each level, what it leaves, growth, and going on after an interruption."""

import json
import re
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from torch import Tensor

from morph.checkpoint import load_checkpoint, read_checkpoint
from morph.finetune import PARTS
from morph.model.morph import Morph
from tests.interruption import last_scores, power_cut

TINY = (
    "model=nano",
    "model.local=null",
    "model.token_frames=null",
    "model.dim=32",
    "model.depth=2",
    "model.capacity.max_patches=32",
    "model.field_heads=8",
)
QUICK = ("mixture.steps_per_epoch=3", "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "trainer.accelerator=cpu")
TUNE = ("morph.train", "+experiment=lora_finetune", "checkpoint=base", "data=fast.yaml", *QUICK)
LEVELS = {
    "lora": r".*\.lora_|.*norm.*|positions\.",
    "lora_encoder": r".*\.lora_|.*norm.*|positions\.|embedding\.",
    "lora_encoder_decoder": r".*\.lora_|.*norm.*|positions\.|embedding\.|decoder\.",
    "full": r".*",
    "decoder": r"decoder\.",
    "scratch": r".*",
    "time": r"blocks\.\d\.norm.*|decoder\.norm|.*\.mixer\.time\.",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("levels")


@pytest.fixture
def pretrained(call: Any, runs: Path) -> Path:
    """A folder with a run on waves, and the YAML of waves of another speed."""
    if not (runs / "base").exists():
        waves = {"_target_": "tests.made_up.Waves", "batch_size": 4}
        (runs / "slow.yaml").write_text(yaml.safe_dump(waves))
        (runs / "fast.yaml").write_text(yaml.safe_dump({**waves, "speed": 1.5, "name": "fast"}))
        done = call("morph.train", *TINY, *QUICK, "data=slow.yaml", "window.context=3", "run_dir=base", cwd=runs)
        assert done.returncode == 0, done.stderr
    return runs


def weights_of(path: Path) -> dict[str, Tensor]:
    return {name.replace(".base_layer.", "."): value for name, value in read_checkpoint(path).weights.items()}


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_trains_its_parts_alone(call: Any, pretrained: Path, level: str) -> None:
    done = call(*TUNE, f"finetune={level}", f"run_dir={level}", cwd=pretrained)
    assert done.returncode == 0, done.stderr
    before, after = weights_of(pretrained / "base"), weights_of(pretrained / level)
    changed = {name for name in after if name not in before or not torch.equal(before[name], after[name])}
    assert changed <= {name for name in after if re.match(LEVELS[level], name)}
    # Depth and height do not count on a line; their factors are not there, and queries see one token at most.
    idle = r"\.(depth|height)\.[qk]\.|embedding\.field_attention|decoder\.linear|positions"
    untouched = {name for name in after if re.match(LEVELS[level], name)} - changed
    assert all(re.search(idle, name) for name in untouched), untouched
    assert "Learning rates: " in done.stdout
    model = load_checkpoint(pretrained / level)
    assert model.trained_on is not None
    assert list(model.trained_on.specs) == ["fast"]
    assert model.trained_on.before == (() if level == "scratch" else ("slow",))
    assert model.trained_on.context == 3
    assert (pretrained / level / "adapter").exists() == (level not in ("full", "scratch"))


@torch.no_grad()
@pytest.mark.parametrize("level", ["lora", "decoder", "lora_encoder_decoder"])
def test_the_adapter_of_a_run_is_its_best_checkpoint(call: Any, pretrained: Path, level: str) -> None:
    run = pretrained / level
    if not run.exists():
        assert call(*TUNE, f"finetune={level}", f"run_dir={level}", cwd=pretrained).returncode == 0
    context = torch.randn(2, 3, 2, 1, 1, 1, 32)
    expected = load_checkpoint(run)(context)
    assert torch.equal(load_checkpoint(run / "adapter")(context), expected)
    judged = call("morph.evaluate", f"checkpoint={level}/adapter", "data=fast.yaml", "figures=false", cwd=pretrained)
    assert judged.returncode == 0, judged.stderr
    whole = call("morph.evaluate", f"checkpoint={level}", "figures=false", "run_dir=again", cwd=pretrained)
    assert whole.returncode == 0, whole.stderr
    one, other = (
        json.loads((pretrained / p / "summary.json").read_text()) for p in (f"{level}/adapter/evaluation", "again")
    )
    for found in (one, other):
        del found["fast"]["cost"]  # which holds times
    assert one == other
    for out, options in (("plain", ("checkpoint=run/adapter",)), ("kept", ("checkpoint=run", "merge=false"))):
        given = [option.replace("=run", f"={level}") for option in options]
        done = call("morph.export", *given, f"out={out}", "overwrite=true", cwd=pretrained)
        assert done.returncode == 0, done.stderr
    plain = Morph.from_pretrained(pretrained / "plain")
    assert not any("lora" in name for name in plain.state_dict())
    assert (plain(context) - expected).abs().max() <= 1e-6 * expected.abs().max()
    assert torch.equal(load_checkpoint(pretrained / "kept")(context), expected)
    same = [(folder / "morph.safetensors").read_bytes() for folder in (pretrained / "kept", run / "adapter")]
    assert same[0] == same[1]


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_resumed_run_with_factors_equals_the_uninterrupted_one(
    call: Any, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(*TUNE, "run_dir=whole", cwd=pretrained).returncode == 0

    with power_cut(monkeypatch):
        call(*TUNE, "run_dir=cut", cwd=pretrained)
    elsewhere = [option.replace("=base", "=other") for option in TUNE]
    assert call("morph.train", *TINY, *QUICK, "data=slow.yaml", "window.context=3", "seed=1", "run_dir=other",
                cwd=pretrained).returncode == 0  # fmt: skip
    assert "other options: base sha256=" in call(*elsewhere, "resume=cut", cwd=pretrained).stderr
    for option in ("finetune.lora.mlp=4", "finetune.train.norms.lr=1", "finetune=full"):
        other = call(*TUNE, "resume=cut", option, cwd=pretrained)
        assert "belongs to a run with other options: finetune." in other.stderr, other.stderr
    rest = call(*TUNE, "resume=cut", cwd=pretrained)
    assert rest.returncode == 0, rest.stderr
    assert last_scores(pretrained / "cut") == last_scores(pretrained / "whole")
    whole, resumed = weights_of(pretrained / "whole"), weights_of(pretrained / "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_fine_tuned_model_is_tuned_further(call: Any, pretrained: Path) -> None:
    """Its adapter is merged, and the chain of bases holds."""
    if not (pretrained / "lora").exists():
        assert call(*TUNE, "run_dir=lora", cwd=pretrained).returncode == 0
    again = [option for option in TUNE if not option.startswith(("checkpoint=", "data="))]
    done = call(*again, "checkpoint=lora/adapter", "data=slow.yaml", "run_dir=further", cwd=pretrained)
    assert done.returncode == 0, done.stderr
    assert "lora/adapter: its adapter is merged into the weights" in done.stdout
    model = load_checkpoint(pretrained / "further" / "adapter")
    assert model.trained_on is not None
    assert model.trained_on.before == ("fast", "slow")


def test_what_a_run_starts_from_is_not_replaced_by_it_and_no_old_adapter_stays(call: Any, pretrained: Path) -> None:
    for start in ("base", "base/checkpoints/best.ckpt"):
        options = [option for option in TUNE if not option.startswith("checkpoint=")]
        refused = call(*options, f"checkpoint={start}", "run_dir=base", "overwrite=true", cwd=pretrained)
        assert refused.stderr.startswith("error: run_dir: base holds "), refused.stderr
        assert "which this run starts from" in refused.stderr
    assert load_checkpoint(pretrained / "base")
    assert call(*TUNE, "run_dir=twice", cwd=pretrained).returncode == 0
    assert (pretrained / "twice" / "adapter").exists()
    assert call(*TUNE, "run_dir=twice", "overwrite=true", "finetune=full", cwd=pretrained).returncode == 0
    assert not (pretrained / "twice" / "adapter").exists()


def test_a_chain_of_adapters_is_found_again_after_a_move(call: Any, pretrained: Path) -> None:
    """Tuned further from an adapter's folder, whose base has moved and is said to be elsewhere."""
    copytree(pretrained / "base", pretrained / "first")
    tune = [option for option in TUNE if not option.startswith("checkpoint=")]
    assert call(*tune, "checkpoint=first", "run_dir=second", cwd=pretrained).returncode == 0
    (pretrained / "first").rename(pretrained / "moved")
    options = ("checkpoint=second/adapter", "base=moved", "run_dir=third")
    done = call(*tune, *options, cwd=pretrained)
    assert done.returncode == 0, done.stderr
    assert load_checkpoint(pretrained / "third" / "adapter")


def test_a_folder_does_not_decide_what_is_read(call: Any, pretrained: Path) -> None:
    if not (pretrained / "lora").exists():
        assert call(*TUNE, "run_dir=lora", cwd=pretrained).returncode == 0
    copytree(pretrained / "lora" / "adapter", pretrained / "stranger")
    about = json.loads((pretrained / "stranger" / "morph.json").read_text())
    about["trained_on"]["datasets"] = {"stranger/x.yaml": about["trained_on"]["datasets"]["fast"]}
    (pretrained / "stranger" / "morph.json").write_text(json.dumps(about))
    harm = {"_target_": "tests.made_up.Waves", "prepare": {"_target_": "shutil.copyfile", "src": "x", "dst": "y"}}
    (pretrained / "stranger" / "x.yaml").write_text(yaml.safe_dump(harm))
    judged = call("morph.evaluate", "checkpoint=stranger", cwd=pretrained)
    assert judged.stderr.startswith("error: data: stranger was trained on stranger/x.yaml; a folder does not decide")


def test_more_fields_than_the_model_takes(call: Any, pretrained: Path) -> None:
    """Refused until growth is asked for; grown it learns the new ones, and still forecasts the old data as before."""
    generator = np.random.default_rng(0)
    x = np.arange(24) / 24
    phases = generator.uniform(0, 6, (6, 1, 1))
    time = 0.1 * np.arange(12)[:, None]
    variables = {
        name: (("sample", "time", "x"), np.sin(2 * np.pi * (x - 0.1 * k * time) + phases).astype("f4"))
        for k, name in enumerate("abcd", start=1)
    }
    xr.Dataset(variables, coords={"time": time[:, 0], "x": x}).to_netcdf(pretrained / "four.nc")
    source = {"_target_": "data_adapters.labelled.XarrayAdapter", "files": "four.nc", "sample": "sample"}
    source |= {"fields": list("abcd"), "batch_size": 4, "boundary": "periodic"}
    (pretrained / "four.yaml").write_text(yaml.safe_dump(source))
    options = [option for option in TUNE if not option.startswith("data=")]
    refused = call(*options, "data=four.yaml", "run_dir=grown", cwd=pretrained)
    assert refused.returncode == 1
    assert refused.stderr.startswith(
        "error: data set 'four' has 4 fields, the model of base takes at most 3; let it grow with grow=true"
    )
    assert not (pretrained / "grown").exists()
    done = call(*options, "data=four.yaml", "run_dir=grown", "grow=true", cwd=pretrained)
    assert done.returncode == 0, done.stderr
    grown = load_checkpoint(pretrained / "grown" / "adapter")
    assert grown.capacity.max_fields == 4
    base = load_checkpoint(pretrained / "base")
    rows = len(base.decoder.linear.bias)
    assert len(grown.decoder.linear.bias) > rows
    assert not torch.equal(grown.decoder.linear.weight[: 4 * 8], base.decoder.linear.weight[: 4 * 8])
    assert "decoder 0.0001" in done.stdout  # what is new is trained, though the level leaves the decoder alone


LORA = ("checkpoint=base", "finetune=lora")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("finetune=lora",), "error: finetune needs a model to start from: give checkpoint="),
        (("+experiment=lora_finetune",), "error: finetune needs a model to start from"),
        (("checkpoint=base", "finetune=rank"), "error: .*rank"),
        ((*LORA, "finetune.lora.attention=-1"), "error: finetune.lora.attention: expected a rank of 0 or more"),
        ((*LORA, "finetune.lora.attention=0", "finetune.lora.mlp=0"), "error: finetune.lora: expected a rank above 0"),
        ((*LORA, "optimizer.lr=1"), "error: optimizer.lr has no effect: with finetune= it is that of each part"),
        (("checkpoint=base", "finetune=full", "weight_decay=1"), "error: weight_decay has no effect"),
        ((*LORA, "finetune.lora=null"), "error: finetune.train.lora: there are no factors to train"),
        ((*LORA, "finetune.renew=head"), "error: finetune.renew: expected decoder, all or null, found 'head'"),
        ((*LORA, "+finetune.lora.rank=4"), "error: finetune.lora: expected attention, mlp, .*, found rank"),
        (
            (*LORA, "finetune.lora=8"),
            "error: option finetune.lora: expected options of its own",
        ),
        ((*LORA, "~finetune.train.lora"), "error: finetune.lora: its factors are not trained"),
        (
            ("checkpoint=base", "finetune=full", "+finetune.train.decoder.lr=1"),
            "error: finetune.train: decoder",
        ),
        (("checkpoint=base", "finetune=lora", "data=null"), "error: data is needed"),
        (("window=3",), "error: option window: expected options of its own, such as window.context="),
        (("data=3",), "error: data: expected names or paths, found 3"),
        ((*LORA, "+finetune.train.head.lr=1"), f"error: finetune.train: expected some of {PARTS[0]}"),
        ((*LORA, "+finetune.train.norms.rate=1"), "error: finetune.train.norms: expected lr and weight_decay"),
        (("checkpoint=base", "finetune=full", "finetune.last_blocks=1"), "error: finetune.last_blocks has no effect"),
        (("checkpoint=base", "base=base"), "error: checkpoint: .* is a whole model"),
        (("window.context=null",), "error: window.context: expected a number of frames"),
    ],
)
def test_what_a_user_can_mend_is_one_line(call: Any, pretrained: Path, options: tuple[str, ...], message: str) -> None:
    done = call("morph.train", *QUICK, "data=fast.yaml", "window.context=3", "run_dir=new", *options, cwd=pretrained)
    assert done.returncode == 1
    assert re.match(message, done.stderr), done.stderr
    assert not (pretrained / "new").exists()
