"""Published weights give the published numbers: `pytest -k golden -v` shows the largest relative error of each case."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from morph.layout import Conditions
from morph.model.adapter import merge_adapter
from morph.model.reference import infer_config, load_reference

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
    with pytest.raises(ValueError, match="unknown options: width"):
        load_reference(state, {**config, "width": 3})


@pytest.mark.parametrize("case", MANIFEST["lora"]["cases"])
def test_lora_factors_become_an_adapter_which_merges(case: str) -> None:
    tensors, state = stored("lora")
    model = load_reference(state, MANIFEST["lora"]["config"])
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(trainable) == 2 * sum(key.endswith(".A") for key in state)
    assert all(".lora_" in name for name in trainable)
    merged = merge_adapter(model)
    plain = {key: value for key, value in state.items() if not key.endswith((".A", ".B"))}
    assert merged.state_dict().keys() == load_reference(plain, plain_config("lora")).state_dict().keys()
    assert all(p.requires_grad for p in merged.parameters())
    expected = tensors[f"case/{case}/output"]
    with torch.no_grad():
        error = (merged(tensors[f"case/{case}/input"]) - expected).abs().max() / expected.abs().max()
    assert error < 1e-5


def plain_config(name: str) -> dict[str, Any]:
    return {key: value for key, value in MANIFEST[name]["config"].items() if not key.startswith("lora")}


def test_factors_that_do_not_fit_are_named() -> None:
    _, state = stored("lora")
    config = MANIFEST["lora"]["config"]
    key = "transformer_blocks.1.axial_attn.attn_w.o"
    with pytest.raises(ValueError, match=rf"{key}\.B is absent, expected of shape \(32, 4\)"):
        load_reference({k: v for k, v in state.items() if k != f"{key}.B"}, plain_config("lora"))
    with pytest.raises(ValueError, match=rf"{key}\.A is absent, expected of shape \(4, 32\)"):
        load_reference({k: v for k, v in state.items() if k != f"{key}.A"}, plain_config("lora"))
    with pytest.raises(ValueError, match=r"attn_d\.k\.A is of shape \(4, 32\), expected of shape \(5, 32\)"):
        load_reference(state, {**config, "lora_r_attn": 5})
    with pytest.raises(ValueError, match=r"unknown tensor 'transformer_blocks\.0\.axial_attn\.attn_d\.k\.A'"):
        load_reference(state, {**config, "lora_r_attn": 0})


def test_alpha_scales_the_factors() -> None:
    tensors, state = stored("lora")
    given = load_reference(state, {**plain_config("lora"), "lora_r_mlp": 3, "lora_alpha": 8})
    halved = {k: v * 0.5 if k.endswith(".B") else v for k, v in state.items()}
    of_mlp = {k: v * (8 / 3) if ".mlp." in k and k.endswith(".B") else v for k, v in halved.items()}
    # Attention: 8 / 4 = 2 is the default, alpha / r = 2.
    of_attention = {k: v * 2 if ".axial_attn." in k and k.endswith(".B") else v for k, v in of_mlp.items()}
    x = tensors["case/1d/input"]
    torch.testing.assert_close(given(x), load_reference(of_attention, plain_config("lora"))(x))


def test_the_configuration_follows_from_the_shapes() -> None:
    """All but the heads, which no shape shows."""
    for name in MANIFEST:
        _, state = stored(name)
        heads = {key: MANIFEST[name]["config"][key] for key in ("heads", "heads_xa")}
        config = infer_config(state, heads)
        assert (
            config.items()
            >= {k: v for k, v in MANIFEST[name]["config"].items() if v is not None and k != "model_size"}.items()
        )
    with pytest.raises(
        ValueError, match=r"dim 32, depth 2, mlp_dim 64, conv_filter 8 is none of the published sizes \(Ti:"
    ):
        infer_config(state)


def test_shapes_that_say_nothing_are_named() -> None:
    _, state = stored("patch4")
    for key, found, expected in (
        ("pos_encoding.pos_embedding", (3, 64, 32), r"(1, max_ar, max_patches, dim)"),
        ("patch_embedding.projection.weight", (32, 500), "(dim, 8 * patch_size**3)"),
        ("decoder.linear.weight", (575, 32), "(max_fields * 192, dim)"),
    ):
        message = f"{key} is of shape {found}, expected of shape {expected}"
        with pytest.raises(ValueError, match=re.escape(message)):
            infer_config({**state, key: torch.zeros(found)})
        with pytest.raises(ValueError, match=re.escape(f"{key} is absent")):
            infer_config({k: v for k, v in state.items() if k != key})


def test_published_models_see_a_scalar_in_each_component() -> None:
    """Beside a vector, as in their training; the components that the scalar does not have are not predicted."""
    _, state = stored("patch4")
    model = load_reference(state, MANIFEST["patch4"]["config"])
    context = torch.randn(2, 1, 2, 3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    context[:, :, 1, 1:] = 0
    mask = torch.tensor([[True, True, True], [True, False, False]])
    repeated = context.clone()
    repeated[:, :, 1] = context[:, :, 1, :1]
    with torch.no_grad():
        found, expected = model(context, Conditions(mask)), model(repeated)
        assert not torch.equal(model(context)[:, mask], expected[:, mask])
    assert torch.equal(found[:, mask], expected[:, mask])
    assert (found[:, ~mask] == 0).all()
