"""Published files load by their path alone; what does not fit says what and how."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from morph import Morph, load_checkpoint
from morph.checkpoint import read_checkpoint
from morph.model.reference import infer_config, load_reference, read_reference
from tests.published_files import SIZES, published_state, save
from tests.test_reference import MANIFEST, plain_config, stored

HEADS = {"heads": 4, "heads_xa": 8}
WAVE = torch.sin(torch.linspace(0, 9, 2 * 64)).view(1, 1, 2, 1, 1, 1, 64)


MILLIONS = {"Ti": 9.864, "S": 32.830, "M": 125.602, "Lt": 231.42, "L": 483.293, "L1": 420.379, "XL": 1124.66}


@pytest.mark.parametrize("name", SIZES)
def test_every_published_size_is_known_by_its_shapes(name: str) -> None:
    state = published_state("meta", **SIZES[name])
    config = infer_config(state)
    assert config["model_size"] == name.removesuffix("1")
    assert (config["heads"], config["heads_xa"]) == (SIZES[name]["heads"], 32)
    reference = read_reference(state, config)
    count = sum(tensor.numel() for tensor in reference.weights.values())
    assert count / 1e6 == pytest.approx(MILLIONS[name], abs=0.006)
    assert reference.config["resample_positions"] == ("bilinear" if name in ("L", "L1") else "linear")
    assert reference.config["capacity"] == {
        "max_fields": 3, "max_components": 3, "max_context": SIZES[name]["max_ar"], "max_patches": 4096,
    }  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_published_file_needs_no_more_than_its_path(tmp_path: Path, prefix: str) -> None:
    state = published_state(**SIZES["Ti"])
    path = save(tmp_path / "morph-Ti-FM-max_ar1_ep225.pth", state, prefix)
    model = load_checkpoint(path)
    assert not model.training
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(9.864, abs=5e-4)
    with torch.no_grad():
        assert torch.equal(model(WAVE), load_reference(state, {})(WAVE))
    bare = tmp_path / "bare.pth"
    torch.save(state, bare)
    assert load_checkpoint(bare).config == model.config


def test_a_published_file_with_factors_is_an_adapter_or_merged(tmp_path: Path) -> None:
    path = save(tmp_path / "lora.pth", published_state(**SIZES["Ti"], lora_r_attn=16, lora_r_mlp=12), "module.")
    adapted, merged = load_checkpoint(path), load_checkpoint(path, merge=True)
    rank = read_checkpoint(path).adapter["rank"]
    assert (rank["blocks.0.mixer.time.q"], rank["blocks.3.mlp.3"], len(rank)) == (16, 12, 72)
    assert not any("lora" in name for name in merged.state_dict())
    with torch.no_grad():
        found, expected = merged(WAVE), adapted(WAVE)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("merge", [False, True])
def test_golden_files_load_by_path(tmp_path: Path, prefix: str, merge: bool, capsys: Any) -> None:
    tensors, state = stored("lora")
    model = load_checkpoint(save(tmp_path / "lora.pth", state, prefix), merge=merge, config=HEADS)
    errors = {}
    for case in MANIFEST["lora"]["cases"]:
        expected = tensors[f"case/{case}/output"]
        with torch.no_grad():
            errors[case] = float((model(tensors[f"case/{case}/input"]) - expected).abs().max() / expected.abs().max())
    with capsys.disabled():
        print("  " + "  ".join(f"{case} {error:.1e}" for case, error in errors.items()), end="  ")
    assert max(errors.values()) < 1e-5


def test_merging_without_an_adapter_changes_nothing(tmp_path: Path) -> None:
    tensors, state = stored("patch4")
    path = save(tmp_path / "plain.pth", state)
    x = tensors["case/1d/input"]
    assert torch.equal(load_checkpoint(path, config=HEADS)(x), load_checkpoint(path, merge=True, config=HEADS)(x))


def test_files_that_do_not_fit_name_file_and_tensor(tmp_path: Path) -> None:
    _, state = stored("patch4")
    path = tmp_path / "model.pth"
    key = "transformer_blocks.1.norm1.bias"

    def refusal() -> str:
        with pytest.raises(ValueError, match=re.escape(f"checkpoint: {path}")) as caught:
            load_checkpoint(path, config=HEADS)
        return str(caught.value)

    save(path, {k: v for k, v in state.items() if k != key})
    assert f"{key} is absent, expected of shape (32,)" in refusal()
    save(path, {**state, key: torch.zeros(31)})
    assert f"{key} is of shape (31,), expected of shape (32,)" in refusal()
    save(path, {**state, "pos_encoding.pos_embedding": torch.zeros(64, 32)})
    assert (
        "pos_encoding.pos_embedding is of shape (64, 32), expected of shape (1, max_ar, max_patches, dim)" in refusal()
    )
    save(path, state)
    path.write_bytes(path.read_bytes()[:-5000])
    assert "truncated" in refusal()
    torch.save({"model_state_dict": {}, "epoch": 3}, path)
    assert "found model_state_dict, epoch" in refusal()
    torch.save({"weight": torch.zeros(3)}, path)
    assert "pos_encoding.pos_embedding is absent" in refusal()


def test_a_size_that_was_not_published_asks_for_what_shapes_do_not_say(tmp_path: Path) -> None:
    path = save(tmp_path / "small.pth", stored("patch4")[1])
    with pytest.raises(
        ValueError, match=r"dim 32, depth 2.* none of the published sizes .*load_checkpoint\(path, config="
    ):
        load_checkpoint(path)
    with pytest.raises(ValueError, match="unknown options: width"):
        load_checkpoint(path, config={**HEADS, "width": 3})
    assert load_checkpoint(path, config=plain_config("patch4")).config["field_heads"] == 8


def test_a_schedule_that_holds_numpy_scalars_is_read(tmp_path: Path) -> None:
    """And nothing else that a pickle can name."""
    contents = {"model_state_dict": stored("patch4")[1], "scheduler_state_dict": {"best": np.float64(0.1)}}
    torch.save(contents, tmp_path / "model.pth")
    load_checkpoint(tmp_path / "model.pth", config=HEADS)
    torch.save({**contents, "path": tmp_path}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"it names 'pathlib\.\w+'; expected tensors, and plain values"):
        load_checkpoint(tmp_path / "model.pth", config=HEADS)


def run_file(path: Path, config: dict[str, Any], model: Morph) -> Path:
    about = {"model": config, "context": 2, "datasets": {}, "options": {}, "plan": {}}
    torch.save({"morph": about, "state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}}, path)
    return path


def test_runs_from_before_filling_was_a_choice_load(tmp_path: Path) -> None:
    model = Morph(dim=32, depth=1, field_heads=8, patch_size=4)
    old = {key: value for key, value in model.config.items() if key != "filling"}
    path = run_file(tmp_path / "old.ckpt", old, model)
    assert load_checkpoint(path).config == model.config
    with pytest.raises(ValueError, match="config is for published files"):
        load_checkpoint(path, config=HEADS)
    path = run_file(tmp_path / "new.ckpt", {**old, "rotary": True}, model)
    with pytest.raises(ValueError, match=r"not that of a Morph: .*rotary"):
        load_checkpoint(path)
    with pytest.raises(ValueError, match="filling: expected one of zero, repeat, found 'mirror'"):
        Morph(filling="mirror")


def test_a_published_model_takes_physical_frames_once_it_is_normalised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """f(a x + b) = a f(x) + b, and only then."""
    checkpoint = read_checkpoint(save(tmp_path / "small.pth", stored("patch4")[1]), HEADS)
    x = torch.randn(2, 2, 2, 1, 1, 1, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model = checkpoint.normalised().build()
        assert torch.allclose(model(40 * x + 7), 40 * model(x) + 7, rtol=1e-4, atol=1e-3)
        assert "normalisation=context" in capsys.readouterr().out
        stored_one = checkpoint.normalised("none").build()
        assert not torch.allclose(stored_one(40 * x + 7), 40 * stored_one(x) + 7, rtol=0.1)
        assert not capsys.readouterr().out
