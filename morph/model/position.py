"""Learned positions, resampled to the token grid at hand."""

import torch
import torch.nn.functional as functional
from torch import nn

from morph.layout import Tokens
from morph.model.dropout import Dropout

__all__ = ["LearnedPositions"]


class LearnedPositions(nn.Module):
    """A table of `max_context` x `max_patches` vectors, added to the tokens after dropout.

    Args:
        resample: "linear": the first T rows, linearly interpolated over the patch axis to the number of patches.
            "bilinear": time and patches together, with antialiasing; a table of one row is resampled linearly all the
            same (published size L).
    """

    def __init__(self, dim: int, max_context: int, max_patches: int, resample: str, dropout: float) -> None:
        super().__init__()
        if resample not in ("linear", "bilinear"):
            raise ValueError(f"resample_positions: expected one of linear, bilinear, found {resample!r}")
        self.resample = resample if max_context > 1 else "linear"
        # Small, so that an untrained table does not drown the content of the tokens.
        self.table = nn.Parameter(torch.randn(1, max_context, max_patches, dim) * 0.02)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tokens) -> Tokens:
        steps, patches = tokens.shape[1], tokens.shape[2] * tokens.shape[3] * tokens.shape[4]
        if self.resample == "linear":
            rows = self.table[0, :steps].transpose(1, 2)
            positions = functional.interpolate(rows, size=patches, mode="linear").transpose(1, 2)[None]
        else:
            rows = self.table.permute(0, 3, 1, 2)
            positions = functional.interpolate(rows, size=(steps, patches), mode="bilinear", antialias=True)
            positions = positions.permute(0, 2, 3, 1)
        return tokens + self.dropout(positions).view(1, *tokens.shape[1:])
