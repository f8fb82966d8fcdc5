"""Errors of a prediction, each per sample and field; an error of a vector is the mean over its components.

Averages <.> run over space; u is the prediction, v the truth.  Definitions follow The Well's benchmark
(arXiv 2412.00568, appendix), so that figures compare with those published there.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from morph.layout import State

__all__ = ["METRICS", "Metric", "mae", "nrmse", "rmse", "vrmse"]

Metric = Callable[..., Float[Tensor, "B F"]]
"""(prediction, target, component_mask=None) -> error per sample and field; fillers count nowhere."""

_EPS = 1e-7
_SPACE = (-3, -2, -1)


def rmse(prediction: State, target: State, component_mask: Bool[Tensor, "F C"] | None = None) -> Float[Tensor, "B F"]:
    """Root mean square error, sqrt(<(u - v)^2>), in the unit of the field."""
    return _over_components(_mse(prediction, target).sqrt(), component_mask)


def mae(prediction: State, target: State, component_mask: Bool[Tensor, "F C"] | None = None) -> Float[Tensor, "B F"]:
    """Mean absolute error, <|u - v|>, in the unit of the field."""
    return _over_components((prediction - target).abs().mean(_SPACE), component_mask)


def nrmse(prediction: State, target: State, component_mask: Bool[Tensor, "F C"] | None = None) -> Float[Tensor, "B F"]:
    """Normalised error, sqrt(<(u - v)^2> / (<v^2> + 1e-7)); a prediction of zero scores 1."""
    norm = target.square().mean(_SPACE)
    return _over_components((_mse(prediction, target) / (norm + _EPS)).sqrt(), component_mask)


def vrmse(prediction: State, target: State, component_mask: Bool[Tensor, "F C"] | None = None) -> Float[Tensor, "B F"]:
    """Variance-scaled error, sqrt(<(u - v)^2> / (var(v) + 1e-7)), unbiased variance; predicting the mean scores 1."""
    variance = target.flatten(-3).var(-1)
    return _over_components((_mse(prediction, target) / (variance + _EPS)).sqrt(), component_mask)


METRICS: dict[str, Metric] = {"vrmse": vrmse, "nrmse": nrmse, "rmse": rmse, "mae": mae}


def _mse(prediction: State, target: State) -> Float[Tensor, "B F C"]:
    return (prediction - target).square().mean(_SPACE)


def _over_components(
    errors: Float[Tensor, "B F C"], component_mask: Bool[Tensor, "F C"] | None
) -> Float[Tensor, "B F"]:
    if component_mask is None:
        return errors.mean(-1)
    # Select rather than multiply: an overflow in a filler must not turn into 0 * inf.
    return torch.where(component_mask, errors, 0.0).sum(-1) / component_mask.sum(-1)
