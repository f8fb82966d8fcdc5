"""Writes states in the layout of published MORPH checkpoints, stated here a second time, from their description."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["ALL", "published_state", "save"]

ALL: dict[str, dict[str, Any]] = {
    "Ti": {"dim": 256, "depth": 4, "mlp_dim": 1024, "heads": 4, "millions": 9.864},
    "S": {"dim": 512, "depth": 4, "mlp_dim": 2048, "heads": 8, "millions": 32.830},
    "M": {"dim": 768, "depth": 8, "mlp_dim": 3072, "heads": 12, "millions": 125.602},
    "Lt": {"dim": 1024, "depth": 8, "mlp_dim": 3072, "heads": 16, "max_ar": 8, "millions": 231.42},
    "L": {"dim": 1024, "depth": 16, "mlp_dim": 4096, "heads": 16, "max_ar": 16, "millions": 483.293},
    "L1": {"dim": 1024, "depth": 16, "mlp_dim": 4096, "heads": 16, "millions": 420.379},
    "XL": {"dim": 1536, "depth": 16, "mlp_dim": 8192, "heads": 24, "filters": 64, "max_ar": 8, "millions": 1124.66},
}


def published_state(
    dim: int,
    depth: int,
    mlp_dim: int,
    filters: int = 8,
    max_ar: int = 1,
    ranks: tuple[int, int] = (0, 0),
    device: str = "cpu",
    **_: Any,
) -> dict[str, Tensor]:
    """Tensors by their published names; random, the same each time."""
    embedding, attention = "patch_embedding", "patch_embedding.field_attn.attn"
    shapes: dict[str, tuple[int, ...]] = {
        f"{embedding}.conv_features.input_proj.weight": (8, 3, 1, 1, 1),
        f"{embedding}.projection.weight": (dim, filters * 512),
        f"{embedding}.projection.bias": (dim,),
        f"{embedding}.field_attn.q": (1, 1, dim),
        f"{attention}.in_proj_weight": (3 * dim, dim),
        f"{attention}.in_proj_bias": (3 * dim,),
        f"{attention}.out_proj.weight": (dim, dim),
        f"{attention}.out_proj.bias": (dim,),
        "pos_encoding.pos_embedding": (1, max_ar, 4096, dim),
        "decoder.norm.weight": (dim,),
        "decoder.norm.bias": (dim,),
        "decoder.linear.weight": (9 * 512, dim),
        "decoder.linear.bias": (9 * 512,),
    }
    channels, layer = 8, 0
    while channels < filters:
        shapes[f"{embedding}.conv_features.conv_stack.{layer}.weight"] = (2 * channels, channels, 3, 3, 3)
        channels, layer = 2 * channels, layer + 2
    shapes[f"{embedding}.conv_features.conv_stack.{layer}.weight"] = (filters, filters, 3, 3, 3)
    for i in range(depth):
        block = f"transformer_blocks.{i}"
        linears = {f"{block}.mlp.0": (mlp_dim, dim, ranks[1]), f"{block}.mlp.3": (dim, mlp_dim, ranks[1])}
        linears |= {
            f"{block}.axial_attn.attn_{axis}.{name}": (dim, dim, ranks[0]) for axis in "tdhw" for name in "qkvo"
        }
        for name, (out, into, rank) in linears.items():
            shapes |= {f"{name}.base.weight": (out, into), f"{name}.base.bias": (out,)}
            if rank:
                shapes |= {f"{name}.A": (rank, into), f"{name}.B": (out, rank)}
        shapes |= {f"{block}.norm{n}.{kind}": (dim,) for n in (1, 2) for kind in ("weight", "bias")}
    if device == "meta":
        return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes.items()}


def save(path: Path, state: dict[str, Tensor], prefix: str = "") -> Path:
    """A file as the published training leaves it."""
    contents = {
        "model_state_dict": {prefix + name: tensor for name, tensor in state.items()},
        "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
        "scheduler_state_dict": {"best": 0.25, "num_bad_epochs": 1},
        "epoch": 225,
    }
    torch.save(contents, path)
    return path
