"""Published MORPH checkpoints: their names of tensors and of options, and nothing else (github.com/lanl/MORPH)."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from morph.model.adapter import add_adapter
from morph.model.morph import Capacity, Morph

__all__ = ["Reference", "infer_config", "load_reference", "published_options", "read_reference"]

# Size: dim, depth, mlp_dim, conv_filter; these tell the sizes apart.  Then heads.
_SIZES = {
    "Ti": ((256, 4, 1024, 8), 4),
    "S": ((512, 4, 2048, 8), 8),
    "M": ((768, 8, 3072, 8), 12),
    "Lt": ((1024, 8, 3072, 8), 16),
    "L": ((1024, 16, 4096, 8), 16),
    "XL": ((1536, 16, 8192, 64), 24),
}
_HEADS_XA = 32
_LORA_DROPOUT = 0.05

_PUBLISHED = {
    "patch_size": 8, "dim": 256, "depth": 4, "heads": 4, "heads_xa": _HEADS_XA, "mlp_dim": 1024, "conv_filter": 8,
    "max_ar": 1, "max_patches": 4096, "max_fields": 3, "max_components": 3, "model_size": None,
    "lora_r_attn": None, "lora_r_mlp": None, "lora_alpha": None,
}  # fmt: skip

# Names here and there.
_KEYS = [
    (r"embedding\.convolution\.expand\.", "patch_embedding.conv_features.input_proj."),
    (r"embedding\.projection\.", "patch_embedding.projection."),
    (r"embedding\.field_attention\.query$", "patch_embedding.field_attn.q"),
    (r"embedding\.field_attention\.[qkv]\.", "patch_embedding.field_attn.attn.in_proj_"),
    (r"embedding\.field_attention\.o\.", "patch_embedding.field_attn.attn.out_proj."),
    (r"positions\.table$", "pos_encoding.pos_embedding"),
    (r"blocks\.(\d+)\.norm_mixer\.", r"transformer_blocks.\1.norm1."),
    (r"blocks\.(\d+)\.norm_mlp\.", r"transformer_blocks.\1.norm2."),
    (r"blocks\.(\d+)\.mixer\.([tdhw])\w+\.(\w)\.", r"transformer_blocks.\1.axial_attn.attn_\2.\3.base."),
    (r"blocks\.(\d+)\.mlp\.(\d)\.", r"transformer_blocks.\1.mlp.\2.base."),
]


class Reference(NamedTuple):
    """A published model in this library's terms: `Morph.config`, `add_adapter`'s adapter or nothing, weights."""

    config: dict[str, Any]
    adapter: dict[str, Any]
    weights: dict[str, Tensor]


def load_reference(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> Morph:
    """A model with the weights of a published state dictionary, in evaluation mode.

    LoRA factors become an adapter of peft, beside which everything is frozen.

    Args:
        state_dict: Tensors by their published names, with or without the prefix "module.".
        config: patch_size, dim, depth, heads, heads_xa, mlp_dim, conv_filter, max_ar, max_patches, max_fields,
            max_components, model_size, lora_r_attn, lora_r_mlp, lora_alpha; a missing one is that of size Ti, ranks
            are those of the factors, and alpha is twice the rank.

    Returns:
        A model that predicts frames and normalises nothing: the published code normalises outside of the model.

    Raises:
        ValueError: An option is unknown, or a tensor is missing, unknown or of another shape than the configuration
            says.
    """
    reference = read_reference(state_dict, config)
    model = Morph.from_config(reference.config)
    if reference.adapter:
        add_adapter(model, reference.adapter)
    model.restore(reference.weights)
    return model


def read_reference(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> Reference:
    """What `load_reference` builds its model from; takes and raises the same."""
    if unknown := set(config) - set(_PUBLISHED):
        raise ValueError(f"unknown options: {', '.join(sorted(unknown))}; expected some of {', '.join(_PUBLISHED)}")
    options = {**_PUBLISHED, **config}
    state = _without_prefix(state_dict)
    with torch.device("meta"):  # names and shapes are all that it is for
        model = Morph(
            dim=options["dim"],
            depth=options["depth"],
            heads=options["heads"],
            mlp_dim=options["mlp_dim"],
            filters=options["conv_filter"],
            patch_size=options["patch_size"],
            field_heads=options["heads_xa"],
            capacity=Capacity(
                options["max_fields"], options["max_components"], options["max_ar"], options["max_patches"]
            ),
            resample_positions="bilinear" if options["model_size"] == "L" else "linear",
            normalisation="none",
            predict="frame",
            filling="repeat",
        )
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    published = {name: _published(name) for name in model.state_dict()}
    shapes = {published[name]: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for key in shapes:
        if ".in_proj_" in key:  # q, k and v are one there
            shapes[key] = (3 * shapes[key][0], *shapes[key][1:])
    ranks = {}
    for name, layer in layers.items():
        stem, adaptable, _ = published[f"{name}.weight"].partition(".base.")
        rank = _rank(state, stem, options["lora_r_attn" if ".axial_attn." in stem else "lora_r_mlp"])
        if adaptable and rank:
            ranks[name] = rank
            shapes |= {f"{stem}.A": (rank, layer.in_features), f"{stem}.B": (layer.out_features, rank)}
    _compare(state, shapes)

    weights = {}
    for name, key in published.items():
        owner, _, kind = name.rpartition(".")
        part = state[key].chunk(3)["qkv".index(owner[-1])] if ".in_proj_" in key else state[key]
        weights[f"{owner}.base_layer.{kind}" if owner in ranks else name] = part
    for name in ranks:
        stem = published[f"{name}.weight"].partition(".base.")[0]
        weights |= {f"{name}.lora_{factor}.default.weight": state[f"{stem}.{factor}"] for factor in "AB"}
    alpha = {name: 2 * rank if options["lora_alpha"] is None else options["lora_alpha"] for name, rank in ranks.items()}
    adapter = {"rank": ranks, "alpha": alpha, "dropout": _LORA_DROPOUT} if ranks else {}
    return Reference(model.config, adapter, weights)


def published_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """The published options of an architecture, see `Morph.config`."""
    capacity = config["capacity"]
    return {
        "patch_size": config["patch_size"], "dim": config["dim"], "depth": config["depth"], "heads": config["heads"],
        "heads_xa": config["field_heads"], "mlp_dim": config["mlp_dim"], "conv_filter": config["filters"],
        "max_ar": capacity["max_context"], "max_patches": capacity["max_patches"],
        "max_fields": capacity["max_fields"], "max_components": capacity["max_components"],
        "model_size": "L" if config["resample_positions"] == "bilinear" else None,
    }  # fmt: skip


def infer_config(state_dict: Mapping[str, Tensor], given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The configuration of a published state dictionary, from the shapes of its tensors and the published sizes.

    Args:
        given: Values that are known; of a size that was not published, heads and heads_xa are needed.

    Raises:
        ValueError: A tensor is missing or its shape is impossible, or the size was not published.
    """
    state = _without_prefix(state_dict)
    _, max_ar, max_patches, dim = _shape(state, "pos_encoding.pos_embedding", "(1, max_ar, max_patches, dim)")
    max_components = _shape(state, "patch_embedding.conv_features.input_proj.weight", "(8, max_components, 1, 1, 1)")[1]
    mlp_dim = _shape(state, "transformer_blocks.0.mlp.0.base.weight", "(mlp_dim, dim)")[0]
    stack = r"patch_embedding\.conv_features\.conv_stack\.(\d+)\.weight"
    last = max((int(match[1]) for key in state if (match := re.fullmatch(stack, key))), default=0)
    key = f"patch_embedding.conv_features.conv_stack.{last}.weight"
    filters = _shape(state, key, "(conv_filter, channels, 3, 3, 3)")[0]
    blocks = {int(m[1]) for key in state if (m := re.match(r"transformer_blocks\.(\d+)\.", key))}
    depth = len(blocks)
    if blocks != set(range(depth)):
        raise ValueError(f"expected transformer_blocks.0 to {depth - 1}, one after the other, found {max(blocks)}")
    key, expected = "patch_embedding.projection.weight", f"(dim, {filters} * patch_size**3)"
    features = _shape(state, key, expected)[1]
    patch_size = round((features / filters) ** (1 / 3))
    if filters * patch_size**3 != features:
        raise _misfit(state, key, expected)
    key, expected = "decoder.linear.weight", f"(max_fields * {max_components * patch_size**3}, dim)"
    max_fields, rest = divmod(_shape(state, key, expected)[0], max_components * patch_size**3)
    if rest or not max_fields:
        raise _misfit(state, key, expected)
    found = {
        "patch_size": patch_size, "dim": dim, "depth": depth, "mlp_dim": mlp_dim, "conv_filter": filters,
        "max_ar": max_ar, "max_patches": max_patches, "max_fields": max_fields, "max_components": max_components,
        "lora_r_attn": _rank(state, "transformer_blocks.0.axial_attn.attn_t.q"),
        "lora_r_mlp": _rank(state, "transformer_blocks.0.mlp.0"),
    }  # fmt: skip
    for name, (numbers, heads) in _SIZES.items():
        if numbers == (dim, depth, mlp_dim, filters):
            found |= {"model_size": name, "heads": heads, "heads_xa": _HEADS_XA}
    config = {**found, **(given or {})}
    if not {"heads", "heads_xa"} <= config.keys():
        names = "dim {}, depth {}, mlp_dim {}, conv_filter {}"
        sizes = "; ".join(f"{name}: {names.format(*numbers)}" for name, (numbers, _) in _SIZES.items())
        raise ValueError(
            f"{names.format(dim, depth, mlp_dim, filters)} is none of the published sizes ({sizes}); say what the "
            'shapes do not: load_checkpoint(path, config={"heads": ..., "heads_xa": ...}), or for a command, once: '
            'python -m morph.export checkpoint=... out=... "config={heads: ..., heads_xa: ...}"'
        )
    return config


def _published(name: str) -> str:
    if match := re.fullmatch(r"embedding\.convolution\.stack\.(\d+)\.weight", name):
        # There, activations stand between the convolutions.
        return f"patch_embedding.conv_features.conv_stack.{2 * int(match[1])}.weight"
    for pattern, replacement in _KEYS:
        if re.match(pattern, name):
            return re.sub(f"^{pattern}", replacement, name)
    return name


def _without_prefix(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("module."): value for key, value in state_dict.items()}


def _rank(state: Mapping[str, Tensor], stem: str, given: int | None = None) -> int:
    if given is not None:
        return given
    # A factor without its partner has a rank too, so that the partner is expected.
    if f"{stem}.A" in state:
        return (*state[f"{stem}.A"].shape, 1)[0]
    return (1, *state[f"{stem}.B"].shape)[-1] if f"{stem}.B" in state else 0


def _compare(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    unknown = sorted(state.keys() - shapes.keys())
    if unknown:
        shape = tuple(state[unknown[0]].shape)
        raise ValueError(f"unknown tensor {unknown[0]!r} of shape {shape}: no published model of this size has it")
    misfits = [str(_misfit(state, key, str(shapes[key]))) for key in sorted(shapes) if not _fits(state, key, shapes)]
    if misfits:
        more = f"; and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise ValueError(f"the weights do not fit the configuration: {'; '.join(misfits[:3])}{more}")


def _fits(state: Mapping[str, Tensor], key: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return key in state and tuple(state[key].shape) == shapes[key]


def _shape(state: Mapping[str, Tensor], key: str, expected: str) -> tuple[int, ...]:
    if key not in state or state[key].ndim != expected.count(",") + 1:
        raise _misfit(state, key, expected)
    return tuple(state[key].shape)


def _misfit(state: Mapping[str, Tensor], key: str, expected: str) -> ValueError:
    found = f"of shape {tuple(state[key].shape)}" if key in state else "absent"
    return ValueError(f"{key} is {found}, expected of shape {expected}")
