"""Rollouts slide the context over their own forecasts; naive forecasts are what they claim."""

import torch

from morph import rollout
from morph.baselines import NAIVE
from morph.rollout import Forecast


def rolled_out(forecast: Forecast, context: torch.Tensor, steps: int) -> torch.Tensor:
    return torch.stack(list(rollout(forecast, context, steps)), 1)


def test_each_forecast_becomes_the_newest_frame() -> None:
    seen = []

    def fibonacci(context: torch.Tensor, conditions: None = None) -> torch.Tensor:
        seen.append(context.flatten().tolist())
        return context[:, -1] + context[:, -2]

    context = torch.tensor([1.0, 1.0]).view(1, 2, 1, 1, 1, 1, 1)
    assert [state.item() for state in rollout(fibonacci, context, 5)] == [2, 3, 5, 8, 13]
    assert seen[:3] == [[1, 1], [1, 2], [2, 3]]


def test_a_rollout_leaves_gradients_on_in_its_caller() -> None:
    states = rollout(NAIVE["persistence"], torch.zeros(1, 2, 1, 1, 1, 1, 4), 2)
    state = next(states)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert not state.requires_grad


def test_naive_forecasts() -> None:
    time = torch.arange(3.0).view(1, 3, 1, 1, 1, 1, 1)
    context = 5 + 2 * time
    assert rolled_out(NAIVE["persistence"], context, 3).flatten().tolist() == [9, 9, 9]
    assert rolled_out(NAIVE["extrapolation"], context, 3).flatten().tolist() == [11, 13, 15]
    assert rolled_out(NAIVE["extrapolation"], context[:, :1], 2).flatten().tolist() == [5, 5]
