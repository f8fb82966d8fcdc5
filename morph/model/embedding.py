"""From normalised frames to one token per patch: convolution per field, patches, attention over fields."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as functional
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from morph.layout import Context, Tokens

__all__ = ["FieldAttention", "FieldConvolution", "PatchEmbedding", "patch_shape"]

_FIRST_FILTERS = 8


def patch_shape(spatial_shape: Sequence[int], patch_size: int) -> tuple[int, int, int]:
    """Extent of a patch on (D, H, W): 1 on an axis that the data does not have."""
    d, h, w = (1 if size == 1 else patch_size for size in spatial_shape)
    return d, h, w


def _convolve(x: Float[Tensor, "N C D H W"], weight: Float[Tensor, "O C 3 3 3"]) -> Float[Tensor, "N O D H W"]:
    """3x3x3 convolution with zero padding.

    On an axis of length 1 only the centre tap meets data, so it is sliced out.
    """
    present = [axis for axis in (2, 3, 4) if x.shape[axis] > 1] or [4]
    for axis in (2, 3, 4):
        if axis not in present:
            weight = weight.narrow(axis, 1, 1)
    kernel = weight.reshape(*weight.shape[:2], *(3 for _ in present))
    convolution = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[len(present)]
    out = convolution(x.reshape(*x.shape[:2], *(x.shape[axis] for axis in present)), kernel, padding=1)
    return out.reshape(x.shape[0], -1, *x.shape[2:])


class FieldConvolution(nn.Module):
    """Component-wise convolution: each field of each frame on its own, its components as channels.

    A 1x1x1 convolution to 8 channels, then 3x3x3 convolutions with LeakyReLU(0.2), doubling the channels up to
    `filters`, and one more at that width; no bias anywhere (arXiv 2509.21670, section 3).

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
        self.expand = nn.Conv3d(max_components, _FIRST_FILTERS, 1, bias=False)
        self.stack = nn.ModuleList(nn.Conv3d(a, b, 3, padding=1, bias=False) for a, b in pairwise(widths))

    def forward(self, x: Float[Tensor, "N C D H W"]) -> Float[Tensor, "N filters D H W"]:
        # Components beyond C are zero, so their columns of the 1x1x1 kernel drop out; the two linear maps are one.
        expand = self.expand.weight[:, : x.shape[1], 0, 0, 0]
        kernels: list[Tensor] = [layer.get_parameter("weight") for layer in self.stack]
        kernels[0] = torch.einsum("omdhw,mc->ocdhw", kernels[0], expand)
        for kernel in kernels:
            x = functional.leaky_relu(_convolve(x, kernel), 0.2)
        return x


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
        q = rearrange(self.q(self.query), "1 1 (a e) -> a e", a=self.heads)
        k = rearrange(self.k(tokens), "n f (a e) -> n f a e", a=self.heads)
        v = rearrange(self.v(tokens), "n f (a e) -> n f a e", a=self.heads)
        weights = ((k * q).sum(-1) * q.shape[-1] ** -0.5).softmax(1)
        return self.o((weights[..., None] * v).sum(1).flatten(1))


class PatchEmbedding(nn.Module):
    """Frames to tokens.

    A patch's features are ordered (channel, z, y, x).  Data of fewer dimensions has fewer features per patch: it uses
    the first columns of the projection, as if its features were padded with zeros.
    """

    def __init__(self, dim: int, patch_size: int, filters: int, field_heads: int, max_components: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.convolution = FieldConvolution(max_components, filters)
        self.projection = nn.Linear(filters * patch_size**3, dim)
        self.field_attention = FieldAttention(dim, field_heads)

    def forward(self, context: Context) -> Tokens:
        size, steps, fields = context.shape[:3]
        patch = patch_shape(context.shape[4:], self.patch_size)
        x = self.convolution(context.flatten(0, 2))
        z, y, w = patch
        x = rearrange(x, "(n f) c (d z) (h y) (w x) -> (n d h w) f (c z y x)", f=fields, z=z, y=y, x=w)
        weight = self.projection.weight[:, : x.shape[-1]]
        tokens = self.field_attention(functional.linear(x, weight, self.projection.bias))
        d, h, w = (length // extent for length, extent in zip(context.shape[4:], patch, strict=True))
        return tokens.view(size, steps, d, h, w, -1)
