"""What the machine at hand means for training."""

import torch

__all__ = ["precision", "strategy"]


def precision(wanted: str) -> str:
    """ "auto" is bfloat16 where the hardware has it, else float32."""
    if wanted != "auto":
        return wanted
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"


def strategy(wanted: str, devices: int | str) -> str:
    """Weights that a batch does not use (time attention at T = 1, queries on an axis of length 1) have no gradient."""
    return "ddp_find_unused_parameters_true" if wanted in ("auto", "ddp") and devices not in (1, "1") else wanted
