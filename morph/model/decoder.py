"""From the tokens of the last frame to a state."""

import math

import torch.nn.functional as functional
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from morph.layout import State
from morph.model.folding import is_plain

__all__ = ["Decoder"]


class Decoder(nn.Module):
    """LayerNorm and one Linear; the outputs of a patch are ordered (field, component, z, y, x).

    The layer has rows for `max_fields` x `max_components` x patch_size^3 values; data with fewer uses the first rows.

    Args:
        zero: Start with weights of zero, so that the first forecast of a model of increments is its base forecast.
    """

    def __init__(self, dim: int, patch_size: int, max_fields: int, max_components: int, zero: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.linear = nn.Linear(dim, max_fields * max_components * patch_size**3)
        if zero:
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(
        self, tokens: Float[Tensor, "B d h w E"], num_fields: int, num_components: int, patch: tuple[int, int, int]
    ) -> State:
        rows = num_fields * num_components * math.prod(patch)
        tokens = self.norm(tokens)
        if is_plain(self.linear):
            out = functional.linear(tokens, self.linear.weight[:rows], self.linear.bias[:rows])
        else:
            out = self.linear(tokens)[..., :rows]
        z, y, x = patch
        return rearrange(
            out, "b d h w (f c z y x) -> b f c (d z) (h y) (w x)", f=num_fields, c=num_components, z=z, y=y, x=x
        )
