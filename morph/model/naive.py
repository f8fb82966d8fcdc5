"""The naive forecasts as models: what has nothing to learn, where a model is asked for."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from morph.layout import Conditions, Context, State
from morph.model.surrogate import Capacity, Surrogate
from morph.normalisation import Normalisation, Scales

__all__ = ["Naive"]


class Naive(Surrogate):
    """Persistence (`base="persistence"`) or linear extrapolation (`base="linear"`): the increment on it is zero.

    Args:
        capacity: Largest number of fields, components and context frames.
        base: See `Normalisation`.
        normalisation: Of the loss that it scores.

    Raises:
        ValueError: An option is unknown, or linear extrapolation is to see one frame.
    """

    increment: Tensor

    def __init__(
        self, *, capacity: Capacity | Mapping[str, int], base: str = "persistence", normalisation: str = "context"
    ) -> None:
        super().__init__(capacity, Normalisation(normalisation, "increment", base))
        # A tensor of its own: it tells the device, and a file of weights needs one.
        self.register_buffer("increment", torch.zeros(()))
        self._options = {"capacity": asdict(self.capacity), "base": base, "normalisation": normalisation}

    @property
    def config(self) -> dict[str, Any]:
        """Plain values from which `morph.model.build` makes the same forecast."""
        return {"kind": "naive", **self._options}

    def output(self, frames: Context, conditions: Conditions, scales: Scales) -> State:
        """No increment."""
        return self.increment.expand_as(frames[:, -1])
