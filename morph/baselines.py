"""Forecasts that cost nothing, behind the same call as a model."""

from morph.layout import Conditions, Context, State
from morph.normalisation import linear_extrapolation, persistence
from morph.rollout import Forecast

__all__ = ["NAIVE"]


def _persistence(context: Context, conditions: Conditions | None = None) -> State:
    return persistence(context)


def _extrapolation(context: Context, conditions: Conditions | None = None) -> State:
    # One frame shows no trend: the straight line through it is the constant.
    return linear_extrapolation(context) if context.shape[1] > 1 else persistence(context)


NAIVE: dict[str, Forecast] = {"persistence": _persistence, "extrapolation": _extrapolation}
"""Persistence and linear extrapolation; a table shows the better of the two."""
