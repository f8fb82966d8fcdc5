"""How tokens exchange information: the mixer protocol, axial attention, and the block around a mixer."""

from collections.abc import Callable
from typing import Protocol

import torch.nn.functional as functional
from einops import rearrange
from torch import nn

from morph.layout import Tokens

__all__ = ["AxialAttention", "AxisAttention", "Block", "TokenMixer"]

_TIME, _DEPTH, _HEIGHT, _WIDTH = 1, 2, 3, 4


class TokenMixer(Protocol):
    """A module that keeps the shape of the tokens.  Chosen by `model.mixer._target_`; called with (dim=, heads=)."""

    def __call__(self, tokens: Tokens) -> Tokens: ...


class AxisAttention(nn.Module):
    """Multi-head self-attention along one axis of the token grid; all other axes are independent samples."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, tokens: Tokens, axis: int) -> Tokens:
        if tokens.shape[axis] == 1:  # the softmax over one token is 1
            return self.o(self.v(tokens))
        tokens = tokens.movedim(axis, -2)
        q, k, v = (rearrange(f(tokens), "... n (a e) -> ... a n e", a=self.heads) for f in (self.q, self.k, self.v))
        out = functional.scaled_dot_product_attention(q, k, v)
        return self.o(rearrange(out, "... a n e -> ... n (a e)")).movedim(-2, axis)


class AxialAttention(nn.Module):
    """Attention over time, then over depth, height and width side by side.

    y <- y + attention_T(y) if T > 1;  y <- y + attention_D(y) + attention_H(y) + attention_W(y)  (arXiv 2509.21670).
    The work grows with the number of tokens times the longest axis, never with all tokens squared.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads: expected a divisor of dim = {dim}, found {heads}")
        self.time, self.depth, self.height, self.width = (AxisAttention(dim, heads) for _ in range(4))

    def forward(self, tokens: Tokens) -> Tokens:
        if tokens.shape[_TIME] > 1:
            tokens = tokens + self.time(tokens, _TIME)
        return tokens + self.depth(tokens, _DEPTH) + self.height(tokens, _HEIGHT) + self.width(tokens, _WIDTH)


class Block(nn.Module):
    """Pre-norm transformer block: x + mixer(norm(x)), then x + mlp(norm(x)) with exact GELU."""

    def __init__(
        self, dim: int, heads: int, mlp_dim: int, dropout: float, mixer: Callable[..., nn.Module] = AxialAttention
    ) -> None:
        super().__init__()
        self.norm_mixer = nn.LayerNorm(dim)
        self.mixer = mixer(dim=dim, heads=heads)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_dim, dim), nn.Dropout(dropout)
        )

    def forward(self, tokens: Tokens) -> Tokens:
        tokens = tokens + self.mixer(self.norm_mixer(tokens))
        return tokens + self.mlp(self.norm_mlp(tokens))
