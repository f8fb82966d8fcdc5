"""Published MORPH checkpoints: their names of tensors and of options, and nothing else (github.com/lanl/MORPH)."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from morph.model.morph import Capacity, Morph

__all__ = ["load_reference"]

_PUBLISHED = {
    "patch_size": 8, "dim": 256, "depth": 4, "heads": 4, "heads_xa": 32, "mlp_dim": 1024, "conv_filter": 8,
    "max_ar": 1, "max_patches": 4096, "max_fields": 3, "max_components": 3, "model_size": None,
    "lora_r_attn": 0, "lora_r_mlp": 0, "lora_alpha": None,
}  # fmt: skip

_KEYS = [
    (r"patch_embedding\.conv_features\.input_proj\.", "embedding.convolution.expand."),
    (r"patch_embedding\.projection\.", "embedding.projection."),
    (r"patch_embedding\.field_attn\.q$", "embedding.field_attention.query"),
    (r"patch_embedding\.field_attn\.attn\.out_proj\.", "embedding.field_attention.o."),
    (r"pos_encoding\.pos_embedding$", "positions.table"),
    (r"transformer_blocks\.(\d+)\.norm1\.", r"blocks.\1.norm_mixer."),
    (r"transformer_blocks\.(\d+)\.norm2\.", r"blocks.\1.norm_mlp."),
    (r"transformer_blocks\.(\d+)\.axial_attn\.attn_t\.(\w)\.base\.", r"blocks.\1.mixer.time.\2."),
    (r"transformer_blocks\.(\d+)\.axial_attn\.attn_d\.(\w)\.base\.", r"blocks.\1.mixer.depth.\2."),
    (r"transformer_blocks\.(\d+)\.axial_attn\.attn_h\.(\w)\.base\.", r"blocks.\1.mixer.height.\2."),
    (r"transformer_blocks\.(\d+)\.axial_attn\.attn_w\.(\w)\.base\.", r"blocks.\1.mixer.width.\2."),
    (r"transformer_blocks\.(\d+)\.mlp\.(\d)\.base\.", r"blocks.\1.mlp.\2."),
    (r"decoder\.", "decoder."),
]


def load_reference(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> Morph:
    """A model with the weights of a published state dictionary, in evaluation mode.

    Args:
        state_dict: Tensors by their published names, with or without the prefix "module.".
        config: patch_size, dim, depth, heads, heads_xa, mlp_dim, conv_filter, max_ar, max_patches, max_fields,
            max_components, model_size, lora_r_attn, lora_r_mlp, lora_alpha; a missing one is that of size Ti.

    Returns:
        A model that predicts frames and normalises nothing: the published code normalises outside of the model.

    Raises:
        ValueError: An option is unknown, the weights carry LoRA factors, or a tensor is missing, unknown or of another
            shape than the configuration says.
    """
    if unknown := set(config) - set(_PUBLISHED):
        raise ValueError(f"unknown options: {', '.join(sorted(unknown))}; expected some of {', '.join(_PUBLISHED)}")
    options = {**_PUBLISHED, **config}
    model = Morph(
        dim=options["dim"],
        depth=options["depth"],
        heads=options["heads"],
        mlp_dim=options["mlp_dim"],
        filters=options["conv_filter"],
        patch_size=options["patch_size"],
        field_heads=options["heads_xa"],
        capacity=Capacity(options["max_fields"], options["max_components"], options["max_ar"], options["max_patches"]),
        resample_positions="bilinear" if options["model_size"] == "L" and options["max_ar"] > 1 else "linear",
        normalisation="none",
        predict="frame",
    )
    renamed = dict(pair for key, value in state_dict.items() for pair in _rename(key.removeprefix("module."), value))
    expected = model.state_dict()
    for name in sorted(expected.keys() | renamed.keys()):
        if name not in renamed or name not in expected or renamed[name].shape != expected[name].shape:
            raise ValueError(
                f"the weights do not fit the configuration: {name} is {_shape(renamed.get(name))}, "
                f"expected {_shape(expected.get(name))}"
            )
    model.load_state_dict(renamed)
    return model.eval()


def _shape(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"of shape {tuple(tensor.shape)}"


def _rename(key: str, value: Tensor) -> list[tuple[str, Tensor]]:
    if re.search(r"\.[AB]$", key):
        raise ValueError(f"the weights carry LoRA factors ({key}); merge them into the base weights before loading")
    if match := re.fullmatch(r"patch_embedding\.field_attn\.attn\.in_proj_(weight|bias)", key):
        return [
            (f"embedding.field_attention.{name}.{match[1]}", part)
            for name, part in zip("qkv", value.chunk(3), strict=True)
        ]
    if match := re.fullmatch(r"patch_embedding\.conv_features\.conv_stack\.(\d+)\.weight", key):
        # There, activations stand between the convolutions.
        return [(f"embedding.convolution.stack.{int(match[1]) // 2}.weight", value)]
    for pattern, name in _KEYS:
        if re.match(pattern, key):
            return [(re.sub(f"^{pattern}", name, key), value)]
    raise ValueError(f"unknown tensor {key!r} of shape {tuple(value.shape)}: this is no published MORPH state")
