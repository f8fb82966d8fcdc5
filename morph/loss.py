"""What training makes small, and what is said of a number that is not finite."""

import torch
from jaxtyping import Float
from torch import Tensor

from morph.layout import Batch, Target
from morph.model.surrogate import Surrogate
from morph.objective import Objective, push_forward, shifted
from morph.rollout import unroll

__all__ = ["NonFiniteError", "batch_loss", "forecast_loss", "locate"]


class NonFiniteError(ValueError):
    """A NaN or infinity in data, loss or forecast."""


_PLAIN = Objective()


def forecast_loss(
    prediction: Target, batch: Batch, unit: Float[Tensor, "B F"], objective: Objective = _PLAIN
) -> Float[Tensor, ""]:
    """Mean of e^2, or of |e|, with e = (prediction - target) / unit, over samples, steps, space and components.

    Each physical component counts once; fillers do not count.  Of a masked data set the mean runs over the valid points
    alone: a component without any in the batch counts nowhere, and without any at all the loss and its gradient are 0.
    """
    error = (prediction - batch.target) / unit[:, None, :, None, None, None, None]
    errors = error.abs() if objective.loss == "absolute" else error.square()
    all_but_components = (0, 1, 4, 5, 6)
    if batch.valid is None:
        per_component = errors.mean(all_but_components)
        return per_component[batch.conditions.component_mask].mean()
    count = batch.valid.sum(all_but_components)
    # A factor that is 1 where all points are valid, so that the loss is then that of data without a mask, bit for bit.
    factor = batch.valid[:, :, 0, 0].numel() / count.clamp(min=1)
    per_component = torch.where(batch.valid, errors, 0.0).mean(all_but_components) * factor
    counted = per_component[batch.conditions.component_mask & (count > 0)]
    return counted.mean() if len(counted) else per_component.sum()


def batch_loss(model: Surrogate, batch: Batch, objective: Objective = _PLAIN) -> Float[Tensor, ""]:
    """`forecast_loss` of a model that is unrolled on its own forecasts over the S target frames, of which
    `objective.pushforward` are there for the steps before."""
    if objective.jitter:
        batch = shifted(batch)
    unit = model.unit_of_error(batch.context, batch.conditions)
    if objective.pushforward:
        batch = push_forward(model, batch, objective.pushforward)
    prediction = torch.stack(list(unroll(model, batch.context, batch.target.shape[1], batch.conditions)), 1)
    return forecast_loss(prediction, batch, unit, objective)


def locate(batch: Batch, step: str, what: str) -> str:
    """Where a number that is not finite comes from, in words, and what to do about it.

    Args:
        batch: In which it was found.
        step: When.
        what: It is: a loss, a gradient, a forecast.
    """
    finite = torch.isfinite(batch.context.flatten(1)).all(1) & torch.isfinite(batch.target.flatten(1)).all(1)
    windows = batch.windows if finite.all() else batch.windows[~finite]
    source = f"a non-finite {what} although the data is finite" if finite.all() else "NaN or infinity in the data"
    places = ", ".join(f"trajectory {i} from frame {start}" for i, start in windows.tolist()[:8])
    more = f" and {len(windows) - 8} more" if len(windows) > 8 else ""
    remedy = "lower optimizer.lr or trainer.gradient_clip_val" if finite.all() else "repair or leave out these data"
    return f"{step}, data set {batch.dataset!r}: {source}; windows: {places}{more}; {remedy}"
