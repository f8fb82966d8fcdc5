"""Published weights give the published numbers: `pytest -k golden -v` shows the largest relative error of each case."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from morph.model.reference import load_reference

GOLDEN = Path(__file__).parent / "golden"
MANIFEST = json.loads((GOLDEN / "manifest.json").read_text())
CASES = [(name, case) for name in MANIFEST for case in MANIFEST[name]["cases"]]


def stored(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    state = {key.removeprefix("state/"): value for key, value in tensors.items() if key.startswith("state/")}
    return tensors, state


@pytest.mark.parametrize(("name", "case"), CASES, ids=[f"{name}-{case}" for name, case in CASES])
def test_golden(name: str, case: str, record_property: Any, capsys: pytest.CaptureFixture[str]) -> None:
    tensors, state = stored(name)
    model = load_reference(state, MANIFEST[name]["config"])
    assert sum(p.numel() for p in model.parameters()) == MANIFEST[name]["parameters"]
    x = tensors[f"case/{case}/input"]
    with torch.no_grad():
        found = {
            "embedding": model.embedding(x).flatten(2, 4),
            "latent": model.encode(x).flatten(2, 4),
            "output": model(x),
        }
    errors = {}
    for part, value in found.items():
        expected = tensors[f"case/{case}/{part}"]
        assert value.shape == expected.shape
        errors[part] = ((value - expected).abs().max() / expected.abs().max()).item()
    with capsys.disabled():
        print("  " + "  ".join(f"{part} {error:.1e}" for part, error in errors.items()), end="  ")
    assert max(errors.values()) < 1e-5


def test_the_prefix_of_data_parallel_training_is_taken_off() -> None:
    tensors, state = stored("patch4")
    plain = load_reference(state, MANIFEST["patch4"]["config"])
    prefixed = load_reference({f"module.{k}": v for k, v in state.items()}, MANIFEST["patch4"]["config"])
    x = tensors["case/1d/input"]
    assert torch.equal(plain(x), prefixed(x))


def test_weights_that_do_not_fit_name_the_tensor_and_both_shapes() -> None:
    _, state = stored("patch4")
    config = MANIFEST["patch4"]["config"]
    with pytest.raises(ValueError, match=r"decoder\.linear\.bias is of shape \(576,\), expected of shape \(4608,\)"):
        load_reference(state, {**config, "patch_size": 8})
    with pytest.raises(ValueError, match=r"decoder\.norm\.bias is absent, expected of shape \(32,\)"):
        load_reference({k: v for k, v in state.items() if k != "decoder.norm.bias"}, config)
    with pytest.raises(ValueError, match=r"unknown tensor 'head\.weight'"):
        load_reference({**state, "head.weight": torch.zeros(2)}, config)
    with pytest.raises(ValueError, match="LoRA factors"):
        load_reference({**state, "transformer_blocks.0.mlp.0.A": torch.zeros(2)}, config)
    with pytest.raises(ValueError, match="unknown options: width"):
        load_reference(state, {**config, "width": 3})
