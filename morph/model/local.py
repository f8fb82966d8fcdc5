"""What a model does at full resolution, beside its tokens: a law from the context, and stability."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from morph.layout import Conditions, Context, State
from morph.model.grid import Points
from morph.model.regression import Observed, Regression
from morph.model.stability import Stability

__all__ = ["PARTS", "Local"]

PARTS = ("regression", "stability")


class Local(nn.Module):
    """The increment of a forecast, from the decoder's and from what each point and its neighbours show.

    Args:
        max_fields, max_components: Of the model.
        regression, stability: Options of `Regression` and `Stability`; None: without.

    Raises:
        ValueError: An option is unknown or not what it should be.
    """

    def __init__(
        self,
        max_fields: int,
        max_components: int,
        *,
        regression: Mapping[str, Any] | None = None,
        stability: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.max_components = max_components
        size = (max_fields, max_components)
        try:
            self.regression = None if regression is None else Regression(*size, **regression)
            self.stability = None if stability is None else Stability(**stability)
        except TypeError as error:
            raise ValueError(f"local: {str(error).split(') ')[-1].split('__init__() ')[-1]}") from error

    def forward(self, frames: Context, decoded: State, conditions: Conditions, speed: Float[Tensor, "B F"]) -> State:
        """In units of the increment scale.

        Args:
            frames: Normalised.
            decoded: The increment that the tokens say.
            conditions: What else is known.
            speed: Standard deviation of each field over its increment scale.
        """
        with torch.autocast(frames.device.type, enabled=False):  # differences of neighbours need all digits
            precision = torch.promote_types(frames.dtype, torch.float32)
            fields, components = frames.shape[2:4]
            physical = conditions.component_mask.flatten()
            places = torch.arange(len(physical), device=frames.device)
            if not conditions.all_physical:
                places = places[physical]
            slots = places // components * self.max_components + places % components
            speed = speed.to(precision).repeat_interleave(components, 1)[:, places]
            states = frames.to(precision).flatten(2, 3)[:, :, places]
            absent = None if conditions.absent is None else conditions.absent.flatten(1, 2)[:, places]
            increments = states.diff(dim=1) * speed[:, None, :, None, None, None]
            seen = Observed(states, increments, slots, conditions.boundary, absent)
            increment = self._increment(seen, decoded.to(precision).flatten(1, 2)[:, places], speed)
            whole = torch.zeros_like(decoded, dtype=precision).flatten(1, 2)
            return whole.index_copy(1, places, increment).unflatten(1, (fields, components))

    def _increment(self, seen: Observed, decoded: Points, speed: Float[Tensor, "B N"]) -> Points:
        regressed, missed = torch.zeros_like(decoded), torch.ones_like(decoded[..., :1, :1, :1])
        if self.regression is not None:
            regressed, missed = self.regression(seen)
        # In units of what the law missed: where it is good, what corrects it is small from the beginning.
        increment = regressed + missed * decoded
        return increment if self.stability is None else self.stability(increment, seen, speed)
