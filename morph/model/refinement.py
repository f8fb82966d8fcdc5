"""A light stack of convolutions at full resolution, after the tokens: what happens inside of a patch."""

from typing import cast

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from morph.model.grid import Points, axes_of, extend
from morph.model.regression import Observed

__all__ = ["Refinement"]

_SEEN = 4  # last frame, last increment, the regression's and the decoder's forecast of the next one


class Refinement(nn.Module):
    """A correction of the forecast increment from what is near to each point.

    Components of all fields are channels of one stack of 3x3x3 convolutions, padded by the boundary; data of fewer
    dimensions uses the kernels' centre.  The last layer starts at zero.

    Args:
        max_fields, max_components: Of the model.
        width: Channels.
        depth: Convolutions after the first.
    """

    def __init__(self, max_fields: int, max_components: int, *, width: int = 24, depth: int = 2) -> None:
        super().__init__()
        if width < 1 or depth < 0:
            raise ValueError(
                f"local.refinement: expected width of at least 1 and depth of 0 or more, found {width} and {depth}"
            )
        self.width = width
        spread = (3 * 27 * _SEEN) ** -0.5
        self.first = nn.Parameter(torch.randn(width, max_fields, max_components, _SEEN, 3, 3, 3) * spread)
        self.offset = nn.Parameter(torch.zeros(width))
        self.stack = nn.ModuleList(nn.Conv3d(width, width, 3) for _ in range(depth))
        self.last = nn.Parameter(torch.zeros(max_fields, max_components, width))

    def forward(self, seen: Observed, forecasts: list[Points]) -> Points:
        """In units of the increment scale; `forecasts` are those of the regression and of the decoder."""
        inputs = torch.stack((seen.frames[:, -1], seen.latest, *forecasts), 2).flatten(1, 2)
        kernel = self.first.flatten(1, 2)[:, seen.slots].flatten(1, 2)
        hidden = _convolve(inputs, kernel, self.offset, seen)
        for layer in self.stack:
            layer = cast(nn.Conv3d, layer)
            hidden = hidden + _convolve(functional.gelu(hidden), layer.weight, cast(Tensor, layer.bias), seen)
        last = self.last.flatten(0, 1)[seen.slots].expand(len(hidden), -1, -1)
        return torch.bmm(last, functional.gelu(hidden).flatten(2)).unflatten(2, hidden.shape[2:])


def _convolve(x: Tensor, kernel: Tensor, offset: Tensor, seen: Observed) -> Tensor:
    """With a kernel of 3x3x3, of which an axis of length 1 meets the centre alone."""
    shape, axes = x.shape[2:], axes_of(x) or [4]
    for axis in axes:
        x = extend(x, axis, 1, seen.boundary[axis - 2])
    taps = [slice(None) if axis in axes else 1 for axis in (2, 3, 4)]
    convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[len(axes)]
    flat = x.reshape(*x.shape[:2], *(x.shape[axis] for axis in axes))
    return convolve(flat, kernel[:, :, *taps], offset).reshape(len(x), -1, *shape)
