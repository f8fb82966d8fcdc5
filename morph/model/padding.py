"""Grids that a network's strides do not divide."""

import torch
from jaxtyping import Float
from torch import Tensor

from morph.layout import AXES, Boundary, Context

__all__ = ["pad"]


def pad(
    frames: Context, multiple: int, boundary: tuple[Boundary, Boundary, Boundary]
) -> Float[Tensor, "B T F C D_padded H_padded W_padded"]:
    """Grow each axis to a multiple of a number: around the period, or by repeating the last value."""
    for axis, kind in enumerate(boundary, start=frames.ndim - len(AXES)):
        size = frames.shape[axis]
        missing = -size % multiple
        if size > 1 and missing:
            index = torch.arange(size + missing, device=frames.device)
            index = index % size if kind == "periodic" else index.clamp(max=size - 1)
            frames = frames.index_select(axis, index)
    return frames
