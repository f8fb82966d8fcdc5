"""Rolling a model out: each prediction becomes the newest frame of the context."""

from collections.abc import Callable, Iterator

import torch

from morph.layout import Conditions, Context, State

__all__ = ["Forecast", "rollout", "unroll"]

Forecast = Callable[[Context, Conditions | None], State]
"""A model or a naive forecast: the next frame of a context, in physical units."""


def unroll(model: Forecast, context: Context, steps: int, conditions: Conditions | None = None) -> Iterator[State]:
    """Yield `steps` successive forecasts, the context sliding over them; gradients flow as the caller's mode says."""
    for _ in range(steps):
        state = model(context, conditions)
        yield state
        context = torch.cat((context[:, 1:], state[:, None]), 1)


def rollout(model: Forecast, context: Context, steps: int, conditions: Conditions | None = None) -> Iterator[State]:
    """Yield `steps` successive forecasts without gradients; what is kept in memory is the caller's choice.

    Args:
        model: A `Morph`, or any forecast of the next frame.
        context: The last T frames known, physical units, oldest first.
        steps: How many frames to forecast.
        conditions: What else is known of the system.
    """
    states = unroll(model, context, steps, conditions)
    while True:
        # Entered anew for each state: a generator must not leave gradients off in its caller between two states.
        with torch.inference_mode():
            state = next(states, None)
        if state is None:
            return
        yield state
