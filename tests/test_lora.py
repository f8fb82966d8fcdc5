"""Low-rank adapters: identity at the start, every layer of effect, the published counts, peft's own format."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor, nn

from morph.checkpoint import Checkpoint, base_of, keep_adapter, load_checkpoint, read_checkpoint
from morph.finetune import grow, lora_layers, renew, train_only
from morph.layout import Boundary, DatasetSpec, Field, TrainedOn
from morph.model.adapter import add_adapter, merge_adapter
from morph.model.morph import Capacity, Morph
from tests.conftest import ROOT

RANKS = {"attention": 3, "mlp": 2}
PERIODIC: tuple[Boundary, Boundary, Boundary] = ("periodic", "periodic", "periodic")
SHAPES = {1: (1, 1, 32), 2: (1, 16, 24), 3: (16, 16, 24)}


def build(**options: Any) -> Morph:
    """A small model whose decoder is not zero, so that everything before it counts."""
    torch.manual_seed(0)
    options = {"capacity": Capacity(2, 2, 3, 16), "depth": 2, "dropout": 0.0, **options}
    model = Morph(dim=32, heads=4, field_heads=8, mlp_dim=48, **options)
    for parameter in model.decoder.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def spec(dimensions: int) -> DatasetSpec:
    axes = ("x", "y", "z")[:dimensions]
    return DatasetSpec("made", (Field("a"), Field("b")), SHAPES[dimensions], 9, 0.1, PERIODIC, axes)


def frames(dimensions: int, context: int = 3, fields: int = 2, components: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(dimensions)
    return torch.randn(2, context, fields, components, *SHAPES[dimensions], generator=generator)


def adapter_of(model: Morph, dimensions: int | None = 3, context: int = 3, **options: Any) -> dict[str, Any]:
    specs = None if dimensions is None else [spec(dimensions)]
    rank = lora_layers(model, RANKS, specs, context)
    return {"rank": rank, "alpha": {name: 2 * r for name, r in rank.items()}, "dropout": 0.0, **options}


def disturb(model: nn.Module, seed: int = 7, size: float = 0.3) -> None:
    """As if the factors had been trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter += size * torch.randn(parameter.shape, generator=generator)


KINDS = [{}, {"dora": True}, {"rslora": True}]


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS, ids=["lora", "dora", "rslora"])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_new_adapter_changes_nothing(dimensions: int, kind: dict[str, bool]) -> None:
    model = build()
    before = model(frames(dimensions))
    add_adapter(model, adapter_of(model, dimensions, **kind))
    torch.testing.assert_close(model(frames(dimensions)), before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dimensions", "context"), [(1, 3), (2, 3), (3, 3), (3, 1), (1, 1)])
def test_every_adapted_layer_has_a_gradient_and_an_effect(dimensions: int, context: int) -> None:
    """On the path that is taken in training, with its shortcuts."""
    model = build()
    adapter = adapter_of(model, dimensions, context)
    add_adapter(model, adapter)
    data = frames(dimensions, context)
    model(data).square().mean().backward()
    with torch.no_grad():
        before = model(data)
        for name in adapter["rank"]:
            layer: Any = model.get_submodule(name)
            factor = layer.lora_B["default"].weight
            assert factor.grad.abs().max() > 0, name
            factor += torch.randn(factor.shape, generator=torch.Generator().manual_seed(1))
            assert not torch.allclose(model(data), before, rtol=1e-4, atol=1e-6), name
            factor.zero_()


def test_layers_that_the_data_do_not_reach_are_left_alone() -> None:
    """What is adapted for all data and not for these has no effect on these."""
    model = build()
    everything = lora_layers(model, RANKS)
    assert len(everything) == 2 * (4 * 4 + 2)
    for dimensions, context in ((1, 3), (2, 1), (3, 1)):
        reached = lora_layers(model, RANKS, [spec(dimensions)], context)
        other = build()
        add_adapter(other, {**adapter_of(model, None), "rank": everything})
        other(frames(dimensions, context)).square().mean().backward()
        idle = {
            name
            for name in everything
            if (grad := other.get_submodule(name).lora_B["default"].weight.grad) is None or not grad.abs().max() > 0
        }
        assert idle == everything.keys() - reached.keys() != set()


@pytest.mark.parametrize(("size", "share"), [("ti", 0.162), ("s", 0.100), ("m", 0.054)])
def test_level_1_trains_the_published_share(size: str, share: float) -> None:
    """arXiv 2509.21670 states 16.2, 10.0 and 5.4 % for one frame of context and the position table of 4096 patches."""
    level = OmegaConf.load(ROOT / "conf" / "finetune" / "lora.yaml")
    with torch.device("meta"):
        model = instantiate(OmegaConf.load(ROOT / "conf" / "model" / f"{size}.yaml"), capacity={"max_context": 1})
        rank = lora_layers(model, level.lora)
        add_adapter(model, {"rank": rank, "alpha": rank, "dropout": level.lora.dropout})
    train_only(model, list(level.train))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained / sum(p.numel() for p in model.parameters()) == pytest.approx(share, abs=6e-4)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS, ids=["lora", "dora", "rslora"])
def test_merged_it_forecasts_the_same(kind: dict[str, bool]) -> None:
    model = build()
    add_adapter(model, adapter_of(model, **kind))
    disturb(model)
    for precision, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-13)):
        adapted = deepcopy(model).to(precision)
        expected = adapted(frames(3).to(precision))
        plain = merge_adapter(adapted)
        assert not any(".lora_" in name for name, _ in plain.named_parameters())
        assert (plain(frames(3).to(precision)) - expected).abs().max() <= tolerance * expected.abs().max()


def tuned(model: Morph, base: dict[str, str], **kind: bool) -> tuple[Morph, Checkpoint]:
    """A copy as if it had been fine-tuned: factors, norms and positions are others."""
    other = Morph.from_config(model.config)
    other.restore(model.state_dict())
    add_adapter(other, adapter_of(other, **kind))
    disturb(other)
    with torch.no_grad():
        other.positions.table += 0.1
        other.blocks[0].norm_mlp.weight *= 1.1
    trained_on = TrainedOn(3, {"made": spec(3)})
    checkpoint = Checkpoint(other.config, other.state_dict(), trained_on, adapter=other.adapter, base=base)
    return other.eval(), checkpoint


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS, ids=["lora", "dora", "rslora"])
def test_an_adapter_folder_with_its_base_is_the_fine_tuned_model(tmp_path: Path, kind: dict[str, bool]) -> None:
    model = build()
    model.save_pretrained(tmp_path / "base")
    expected, checkpoint = tuned(model, base_of(model, tmp_path / "base"), **kind)
    files = keep_adapter(tmp_path / "adapter", checkpoint)
    assert {file.name for file in files} == {
        "adapter_config.json", "adapter_model.safetensors", "morph.json", "morph.safetensors",
    }  # fmt: skip
    loaded = load_checkpoint(tmp_path / "adapter")
    assert torch.equal(loaded(frames(3)), expected(frames(3)))
    assert loaded.trained_on == checkpoint.trained_on
    merged = load_checkpoint(tmp_path / "adapter", merge=True)
    assert (merged(frames(3)) - expected(frames(3))).abs().max() <= 1e-6 * expected(frames(3)).abs().max()
    assert sum(file.stat().st_size for file in files) < (tmp_path / "base" / "model.safetensors").stat().st_size


@torch.no_grad()
def test_peft_reads_the_factors(tmp_path: Path) -> None:
    """With all else equal, peft's own loading gives the same model."""
    model = build()
    model.save_pretrained(tmp_path / "base")
    _, checkpoint = tuned(model, base_of(model, tmp_path / "base"))
    weights = {k: v for k, v in checkpoint.weights.items() if ".lora_" in k}
    same = {k.replace(".base_layer.", "."): k for k in checkpoint.weights if ".lora_" not in k}
    weights |= {name: model.state_dict()[plain] for plain, name in same.items()}
    keep_adapter(tmp_path / "adapter", checkpoint._replace(weights=weights))
    theirs = peft.PeftModel.from_pretrained(load_checkpoint(tmp_path / "base"), str(tmp_path / "adapter"))
    expected = load_checkpoint(tmp_path / "adapter")
    torch.testing.assert_close(theirs.eval()(frames(3)), expected(frames(3)), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected(frames(3)), model(frames(3)), rtol=1e-3)


@torch.no_grad()
def test_several_adapters_share_one_base_and_leave_each_other_alone(tmp_path: Path) -> None:
    model = build()
    model.save_pretrained(tmp_path / "base")
    base = load_checkpoint(tmp_path / "base")
    untouched = base(frames(3))
    forecasts = {}
    for name, kind in (("a", {}), ("b", {"dora": True})):
        expected, checkpoint = tuned(model, base_of(model, tmp_path / "base"), **kind)
        keep_adapter(tmp_path / name, checkpoint)
        forecasts[name] = expected(frames(3))
    a, b = (load_checkpoint(tmp_path / name, base=base) for name in ("a", "b"))
    assert a.blocks[1].mlp[0].base_layer.weight.data_ptr() == base.blocks[1].mlp[0].weight.data_ptr()
    assert a.embedding.projection.weight.data_ptr() == b.embedding.projection.weight.data_ptr()
    for _ in range(2):
        assert torch.equal(a(frames(3)), forecasts["a"])
        assert torch.equal(b(frames(3)), forecasts["b"])
        assert torch.equal(base(frames(3)), untouched)
    merge_adapter(a)
    assert torch.equal(b(frames(3)), forecasts["b"])
    assert torch.equal(base(frames(3)), untouched)


def test_another_base_is_refused(tmp_path: Path) -> None:
    model = build()
    model.save_pretrained(tmp_path / "base")
    keep_adapter(tmp_path / "adapter", tuned(model, base_of(model, tmp_path / "base"))[1])
    with torch.no_grad():
        model.decoder.linear.bias[3] += 1e-3
    model.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"SHA-256 \w{16}\.\.\. \(then at .*base\), and those of .*other have \w{16}"):
        load_checkpoint(tmp_path / "adapter", base=tmp_path / "other")
    with pytest.raises(ValueError, match=r"SHA-256 .* those of base have"):
        load_checkpoint(tmp_path / "adapter", base=model)
    with pytest.raises(ValueError, match=r"checkpoint: .*other is a whole model"):
        load_checkpoint(tmp_path / "other", base=tmp_path / "base")
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(ValueError, match=r"no longer at .*base; say where it is now with base=<path>"):
        load_checkpoint(tmp_path / "adapter")
    assert read_checkpoint(tmp_path / "adapter", base=tmp_path / "moved").adapter["rank"]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "morph.json").unlink(), r"has peft's files and no morph\.json"),
        (lambda f: (f / "morph.json").write_text("{"), r"morph\.json cannot be read as JSON"),
        (lambda f: (f / "morph.json").write_text("{}"), r"morph\.json lacks model, base, trained_on"),
        (lambda f: (f / "morph.safetensors").unlink(), r"there is no .*morph\.safetensors"),
        (lambda f: (f / "morph.safetensors").write_bytes(b"12345678"), r"truncated or no safetensors"),
        (lambda f: (f / "adapter_config.json").unlink(), r"there is no .*adapter_config\.json"),
        (lambda f: [path.unlink() for path in f.glob("adapter_*")], r"there is no .*adapter_config\.json"),
        (lambda f: (f / "adapter_config.json").write_text('{"r": 4}'), r"is not peft's configuration of LoRA"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), r"there is no .*adapter_model\.safetensors"),
    ],
)
def test_a_damaged_adapter_folder_says_what_is_wrong(tmp_path: Path, harm: Any, message: str) -> None:
    model = build()
    model.save_pretrained(tmp_path / "base")
    keep_adapter(tmp_path / "adapter", tuned(model, base_of(model, tmp_path / "base"))[1])
    harm(tmp_path / "adapter")
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path / "adapter")


def test_an_adapter_folder_holds_no_number_of_its_base(tmp_path: Path) -> None:
    model = build()
    model.save_pretrained(tmp_path / "base")
    keep_adapter(tmp_path / "adapter", tuned(model, base_of(model, tmp_path / "base"))[1])
    about = json.loads((tmp_path / "adapter" / "morph.json").read_text())
    assert about["base"]["path"] == str(tmp_path / "base")

    assert set(load_file(tmp_path / "adapter" / "morph.safetensors")) == {"positions.table", "blocks.0.norm_mlp.weight"}


@torch.no_grad()
@pytest.mark.parametrize("predict", ["increment", "frame"])
@pytest.mark.parametrize("more", [{"max_fields": 4}, {"max_components": 3}, {"max_context": 5}])
def test_a_grown_model_forecasts_old_data_as_before_and_takes_new(more: dict[str, int], predict: str) -> None:
    model = build(predict=predict)
    grown = grow(model, **more)
    old = [frames(d, context=t, fields=f, components=c)
           for d in SHAPES for t in (1, 3) for f in (1, 2) for c in (1, 2)]  # fmt: skip
    for data in old:
        assert torch.equal(grown(data), model(data))
    new = {"max_fields": "fields", "max_components": "components", "max_context": "context"}
    size = {"context": 3, "fields": 2, "components": 2} | {new[name]: count for name, count in more.items()}
    data = frames(2, **size)
    with pytest.raises(ValueError, match="the model takes at most"):
        model(data)
    assert grown(data).isfinite().all()


@torch.no_grad()
def test_positions_that_are_resampled_along_time_grow_from_one_frame_or_not_at_all() -> None:
    model = build(resample_positions="bilinear", capacity=Capacity(2, 2, 1, 16))
    grown = grow(model, max_context=4)
    assert torch.equal(grown(frames(2, context=1)), model(frames(2, context=1)))
    assert torch.equal(grown.positions.table, model.positions.table.expand(-1, 4, -1, -1))
    with pytest.raises(ValueError, match="resampled along its 3 frames, so that more would change what it does"):
        grow(build(resample_positions="bilinear"), max_context=4)


@torch.no_grad()
def test_a_base_with_an_adapter_is_told_by_what_is_stored(tmp_path: Path) -> None:
    """Not by what merging gives, whose last bit depends on the processor; merged it is another model."""
    model = build()
    model.save_pretrained(tmp_path / "base")
    first, checkpoint = tuned(model, base_of(model, tmp_path / "base"))
    keep_adapter(tmp_path / "first", checkpoint)
    read = read_checkpoint(tmp_path / "first")
    assert base_of(read, "x")["sha256"] == base_of(first, "x")["sha256"]
    start = read.build(merge=True)
    second, further = tuned(start, base_of(read, tmp_path / "first"))
    keep_adapter(tmp_path / "second", further)
    for base in (None, tmp_path / "first", first):
        again = load_checkpoint(tmp_path / "second", base=base)
        assert torch.equal(again(frames(3)), second(frames(3)))
    with pytest.raises(ValueError, match="SHA-256"):
        load_checkpoint(tmp_path / "second", base=start)


def test_what_is_new_in_a_grown_model_learns() -> None:
    model = grow(build(), max_fields=3, max_components=3)
    model(frames(2, fields=3, components=3)).square().mean().backward()
    rows, columns = model.decoder.linear.weight.grad, model.embedding.convolution.expand.weight.grad
    assert rows is not None
    assert columns is not None
    assert rows[-1].abs().max() == 0  # a plane needs no rows of a volume
    assert (rows[2 * 3 * 64 : 3 * 3 * 64].abs().amax(1) > 0).all()
    assert (columns[:, 2] != 0).all()


def test_a_renewed_decoder_starts_at_the_base_forecast_and_keeps_the_rest() -> None:
    model = build()
    fresh = renew(model, "decoder")
    data = frames(2)
    with torch.no_grad():
        assert torch.equal(fresh(data), data[:, -1])
        assert torch.equal(fresh.encode(data), model.encode(data))
        assert not torch.allclose(renew(model, "all").encode(data), model.encode(data), rtol=1e-2)
    with pytest.raises(ValueError, match=r"finetune\.renew: expected decoder, all or null, found 'head'"):
        renew(model, "head")


@pytest.mark.parametrize("ranks", [{"attention": -1, "mlp": 2}, {"attention": 2}, {"attention": True, "mlp": 2}])
def test_ranks_that_are_none(ranks: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"finetune\.lora\.(attention|mlp): expected a rank of 0 or more"):
        lora_layers(build(), ranks)


def test_no_rank_at_all() -> None:
    with pytest.raises(ValueError, match="expected a rank above 0"):
        lora_layers(build(), {"attention": 0, "mlp": 0})
