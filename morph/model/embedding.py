"""From normalised frames to one token per patch: convolution per field, patches, attention over fields."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as functional
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from morph.layout import Context, Tokens
from morph.model.folding import Affine, affine, compose, in_full_precision, is_plain

__all__ = ["FieldAttention", "FieldConvolution", "PatchEmbedding", "patch_shape"]

_FIRST_FILTERS = 8
SLOPE = 0.2  # of LeakyReLU


def patch_shape(spatial_shape: Sequence[int], patch_size: int) -> tuple[int, int, int]:
    """Extent of a patch on (D, H, W): 1 on an axis that the data does not have."""
    d, h, w = (1 if size == 1 else patch_size for size in spatial_shape)
    return d, h, w


class FieldConvolution(nn.Module):
    """Component-wise convolution: each field of each frame on its own, its components as channels.

    A 1x1x1 convolution to 8 channels, then 3x3x3 convolutions with LeakyReLU(0.2) between them, doubling the channels
    up to `filters`, and one more at that width; no bias anywhere (arXiv 2509.21670, section 3).  The LeakyReLU after
    the last one is left to the caller, who can apply it in place and to data in any order.

    Raises:
        ValueError: `filters` is not 8 times a power of two.
    """

    def __init__(self, max_components: int, filters: int) -> None:
        super().__init__()
        widths = [_FIRST_FILTERS]
        while widths[-1] < filters:
            widths.append(2 * widths[-1])
        if widths[-1] != filters:
            raise ValueError(f"filters: expected 8 times a power of two (8, 16, 32, ...), found {filters}")
        widths.append(filters)
        self.max_components = max_components
        self.expand = nn.Conv3d(max_components, _FIRST_FILTERS, 1, bias=False)
        self.stack = nn.ModuleList(nn.Conv3d(a, b, 3, padding=1, bias=False) for a, b in pairwise(widths))

    def forward(self, x: Float[Tensor, "N C D H W"]) -> Float[Tensor, "N filters D H W"]:
        if not is_plain(self):
            x = functional.pad(x, (0, 0) * 3 + (0, self.max_components - x.shape[1]))
            x = self.expand(x)
            for number, layer in enumerate(self.stack):
                x = layer(functional.leaky_relu(x, SLOPE) if number else x)
            return x
        # On an axis of length 1 only the centre tap meets data.
        present = [axis for axis in (2, 3, 4) if x.shape[axis] > 1] or [4]
        taps = [slice(None) if axis in present else 1 for axis in (2, 3, 4)]
        kernels = [cast(nn.Conv3d, layer).weight[:, :, *taps] for layer in self.stack]
        # Components beyond C are zero, so their columns of the 1x1x1 kernel drop out; the two linear maps are one.
        expand = self.expand.weight[:, : x.shape[1], 0, 0, 0]
        with in_full_precision(expand):
            kernels[0] = torch.einsum("om...,mc->oc...", kernels[0], expand)
        convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[len(present)]
        shape = x.shape[2:]
        x = x.reshape(*x.shape[:2], *(x.shape[axis] for axis in present))
        for number, kernel in enumerate(kernels):
            x = convolve(functional.leaky_relu(x, SLOPE, inplace=True) if number else x, kernel, padding=1)
        return x.reshape(*x.shape[:2], *shape)


class FieldAttention(nn.Module):
    """Inter-field cross-attention: one learned query gathers the F field tokens of a patch into one token."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"field_heads: expected a divisor of dim = {dim}, found {heads}")
        self.heads = heads
        self.query = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, tokens: Float[Tensor, "N F E"]) -> Float[Tensor, "N E"]:
        if is_plain(self):
            return self.of_features(tokens)
        if tokens.shape[1] == 1:  # the softmax over one field is 1
            return self.o(self.v(tokens[:, 0]))
        q = rearrange(self.q(self.query), "1 1 (a e) -> a e", a=self.heads)
        k = rearrange(self.k(tokens), "n f (a e) -> n f a e", a=self.heads)
        return self._gather((k * q).sum(-1) * q.shape[-1] ** -0.5, self.v(tokens))

    def of_features(self, features: Float[Tensor, "N F _"], project: Affine | None = None) -> Float[Tensor, "N E"]:
        """The result for the tokens project(features), by products of weights; only where `is_plain` holds.

        The query is the same for all tokens, so the scores are a linear map of a token.
        """
        value, out = affine(self.v), affine(self.o)
        if features.shape[1] == 1:
            if features.shape[0] < value[0].shape[0]:
                return functional.linear(functional.linear(features[:, 0], *_after(value, project)), *out)
            return functional.linear(features[:, 0], *_after(compose(out, value), project))
        weight, bias = (rearrange(part, "(a e) ... -> a e (...)", a=self.heads) for part in affine(self.k))
        with in_full_precision(weight):
            q = rearrange(self.q(self.query), "1 1 (a e) -> a 1 e", a=self.heads)
            q = q * q.shape[-1] ** -0.5
            score = (q @ weight).squeeze(1), (q @ bias).flatten()
        scores, values = (functional.linear(features, *_after(linear, project)) for linear in (score, value))
        return self._gather(scores, values)

    def _gather(self, scores: Float[Tensor, "N F heads"], values: Float[Tensor, "N F E"]) -> Float[Tensor, "N E"]:
        values = rearrange(values, "n f (a e) -> n f a e", a=self.heads)
        return self.o((scores.softmax(1)[..., None] * values).sum(1).flatten(1))


def _after(linear: Affine, project: Affine | None) -> Affine:
    return linear if project is None else compose(linear, project)


class PatchEmbedding(nn.Module):
    """Frames to tokens.

    A patch's features are ordered (channel, z, y, x).  Data of fewer dimensions has fewer features per patch: it uses
    the first columns of the projection, as if its features were padded with zeros.
    """

    def __init__(self, dim: int, patch_size: int, filters: int, field_heads: int, max_components: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.convolution = FieldConvolution(max_components, filters)
        self.features = filters * patch_size**3
        self.projection = nn.Linear(self.features, dim)
        self.field_attention = FieldAttention(dim, field_heads)

    def forward(self, context: Context) -> Tokens:
        size, steps, fields = context.shape[:3]
        patch = patch_shape(context.shape[4:], self.patch_size)
        pixels = self.convolution(context.flatten(0, 2))
        z, y, w = patch
        x = rearrange(pixels, "(n f) c (d z) (h y) (w x) -> (n d h w) f (c z y x)", f=fields, z=z, y=y, x=w)
        # In place saves the largest tensor of a 3-D model; where nothing had to be moved, others may hold it.
        moved = not torch.compiler.is_compiling() and x.data_ptr() != pixels.data_ptr()
        tokens = self._tokens(functional.leaky_relu(x, SLOPE, inplace=moved))
        d, h, w = (length // extent for length, extent in zip(context.shape[4:], patch, strict=True))
        return tokens.view(size, steps, d, h, w, -1)

    def _tokens(self, features: Float[Tensor, "N F features"]) -> Float[Tensor, "N E"]:
        count = features.shape[-1]
        if not is_plain(self.projection):
            padded = functional.pad(features, (0, self.features - count))
            return self.field_attention(self.projection(padded))
        project = self.projection.weight[:, :count], self.projection.bias
        # The product of two weights costs as much as `count` more tokens.
        if features.shape[:-1].numel() > count and is_plain(self.field_attention):
            return self.field_attention.of_features(features, project)
        return self.field_attention(functional.linear(features, *project))
