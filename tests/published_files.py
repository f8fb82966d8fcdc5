"""Files in the layout of published MORPH checkpoints, with random weights."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.plain_model import PlainModel

__all__ = ["SIZES", "published_state", "save"]

SIZES: dict[str, dict[str, Any]] = {
    "Ti": {"dim": 256, "depth": 4, "heads": 4, "mlp_dim": 1024, "max_ar": 1},
    "S": {"dim": 512, "depth": 4, "heads": 8, "mlp_dim": 2048, "max_ar": 1},
    "M": {"dim": 768, "depth": 8, "heads": 12, "mlp_dim": 3072, "max_ar": 1},
    "Lt": {"dim": 1024, "depth": 8, "heads": 16, "mlp_dim": 3072, "max_ar": 8},
    "L": {"dim": 1024, "depth": 16, "heads": 16, "mlp_dim": 4096, "max_ar": 16},
    "L1": {"dim": 1024, "depth": 16, "heads": 16, "mlp_dim": 4096, "max_ar": 1},
    "XL": {"dim": 1536, "depth": 16, "heads": 24, "mlp_dim": 8192, "conv_filter": 64, "max_ar": 8},
}
"""The published sizes by their published options."""


def published_state(device: str = "cpu", **options: Any) -> dict[str, Tensor]:
    """Tensors by their published names; random, the same each time."""
    with torch.device(device):
        torch.manual_seed(0)
        state = PlainModel(**options).state_dict()
        return {name: torch.randn_like(value) * 0.05 if name.endswith(".B") else value for name, value in state.items()}


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
