"""How tokens exchange information: the mixer protocol, axial attention, and the block around a mixer."""

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from morph.layout import Tokens
from morph.model.dropout import Dropout
from morph.model.folding import affine, compose, is_plain

__all__ = ["AxialAttention", "AxisAttention", "Block", "Kept", "TokenMixer"]

_TIME, _SPACE = 1, (2, 3, 4)
_MOST_SEQUENCES = 2**15  # in one call of fused attention: CUDA kernels number them along a grid axis of 2^16

Kept = Float[Tensor, "B T_kept d h w E"]
"""Tokens of all frames, or of the last one."""


class TokenMixer(Protocol):
    """A module that keeps the shape of the tokens.  Chosen by `model.mixer._target_`; called with (dim=, heads=)."""

    def __call__(self, tokens: Tokens) -> Tokens: ...


class AxisAttention(nn.Module):
    """Multi-head self-attention along one axis of the token grid; all other axes are independent samples."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, tokens: Tokens, axis: int, last_only: bool = False) -> Kept:
        """With `last_only`, only for the last place along the axis, which attends to all of them."""
        if tokens.shape[axis] == 1:  # the softmax over one token is 1
            return self.o(self.v(tokens))
        asking = tokens.narrow(axis, tokens.shape[axis] - 1, 1) if last_only else tokens
        mixed = self._attend(self.q(asking), self.k(tokens), self.v(tokens), axis)
        return self.o(mixed.reshape(asking.shape))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, axis: int) -> Tensor:
        # All axes behind `axis` count as further heads: so every axis is attended along without moving any data.
        q, k, v = (
            x.reshape(x.shape[:axis].numel(), x.shape[axis], -1, x.shape[-1] // self.heads).transpose(1, 2)
            for x in (q, k, v)
        )
        return _attention(q, k, v).transpose(1, 2)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    for along in (0, 1):
        if q.shape[along] > _MOST_SEQUENCES:
            parts = zip(*(x.split(_MOST_SEQUENCES, along) for x in (q, k, v)), strict=True)
            return torch.cat([functional.scaled_dot_product_attention(*part) for part in parts], along)
    return functional.scaled_dot_product_attention(q, k, v)


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

    def forward(self, tokens: Tokens, last_only: bool = False) -> Kept:
        """With `last_only`, only the last frame's tokens, of shape B 1 d h w E."""
        if tokens.shape[_TIME] > 1:
            last = tokens[:, -1:] if last_only else tokens
            tokens = last + self.time(tokens, _TIME, last_only)
        along = list(zip(_SPACE, (self.depth, self.height, self.width), strict=True))
        mixed = [attention(tokens, axis) for axis, attention in along if tokens.shape[axis] > 1]
        if absent := [(attention, axis) for axis, attention in along if tokens.shape[axis] == 1]:
            mixed.append(_along_absent_axes(tokens, absent))
        return sum(mixed, tokens)


def _along_absent_axes(tokens: Kept, absent: list[tuple[AxisAttention, int]]) -> Kept:
    """Sum of o(v(tokens)) over the axes that the data does not have: linear maps, which are one.

    Their product costs as much as that many tokens of dimension E.
    """
    attentions = [attention for attention, _ in absent]
    count, (width, num_tokens) = len(attentions), (tokens.shape[-1], tokens.shape[:-1].numel())
    if (2 * count - 1) * num_tokens > count * width and is_plain(*attentions):
        weights, biases = zip(*(compose(affine(a.o), affine(a.v)) for a in attentions), strict=True)
        return functional.linear(tokens, sum(weights[1:], weights[0]), sum(biases[1:], biases[0]))
    parts = [attention(tokens, axis) for attention, axis in absent]
    return sum(parts[1:], parts[0])


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
            nn.Linear(dim, mlp_dim), nn.GELU(), Dropout(dropout), nn.Linear(mlp_dim, dim), Dropout(dropout)
        )

    def forward(self, tokens: Tokens, last_only: bool = False) -> Kept:
        """With `last_only`, only the last frame's tokens, of shape B 1 d h w E."""
        normed = self.norm_mixer(tokens)
        if last_only:
            tokens = tokens[:, -1:]
            # Other mixers, also those made of this one, keep the shape, as the protocol says.
            axial = type(self.mixer) is AxialAttention
            mixed = self.mixer(normed, last_only=True) if axial else self.mixer(normed)[:, -1:]
        else:
            mixed = self.mixer(normed)
        tokens = tokens + mixed
        return tokens + self.mlp(self.norm_mlp(tokens))
