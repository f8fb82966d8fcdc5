"""Averages over valid points and over the components of a field: what all metrics share."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from morph.layout import State

__all__ = ["SPACE", "mean", "num_axes", "over_components", "quotient", "variance", "where_complete"]

SPACE = (-3, -2, -1)


def mean(values: State, valid: Bool[Tensor, "B F C D H W"] | None = None) -> Float[Tensor, "B F C"]:
    """Over the valid points of space; NaN where there is none."""
    if valid is None:
        return values.mean(SPACE)
    return torch.where(valid, values, 0.0).sum(SPACE) / valid.sum(SPACE)


def variance(target: State, valid: Bool[Tensor, "B F C D H W"] | None = None) -> Float[Tensor, "B F C"]:
    """Unbiased, over the valid points of space."""
    if valid is None:
        return target.flatten(-3).var(-1)
    deviation = target - mean(target, valid)[..., None, None, None]
    return torch.where(valid, deviation.square(), 0.0).sum(SPACE) / (valid.sum(SPACE) - 1)


def over_components(
    errors: Float[Tensor, "B F C"],
    component_mask: Bool[Tensor, "F C"] | None,
    valid: Bool[Tensor, "B F C D H W"] | None,
    least: int = 1,
) -> Float[Tensor, "B F"]:
    """Mean over the physical components with at least so many valid points."""
    counted = component_mask
    if valid is not None:
        counted = valid.sum(SPACE) >= least
        counted = counted if component_mask is None else counted & component_mask
    if counted is None:
        return errors.mean(-1)
    # Select rather than multiply: an overflow in a filler must not turn into 0 * inf.
    return torch.where(counted, errors, 0.0).sum(-1) / counted.sum(-1)


def where_complete(
    errors: Float[Tensor, "B F *rest"],
    component_mask: Bool[Tensor, "F C"] | None,
    valid: Bool[Tensor, "B F C D H W"] | None,
) -> Float[Tensor, "B F *rest"]:
    """NaN where a physical component of a field lacks points: what needs a whole grid is not defined there."""
    if valid is None:
        return errors
    complete = valid.all(-1).all(-1).all(-1)
    if component_mask is not None:
        complete = complete | ~component_mask
    return torch.where(complete.all(-1).view(*errors.shape[:2], *[1] * (errors.ndim - 2)), errors, torch.nan)


def quotient(error: Tensor, scale: Tensor) -> Tensor:
    """error / scale; 0 where there is no error, whatever the scale, and infinite where the scale alone is 0."""
    return torch.where(error == 0, 0.0, error / scale)


def num_axes(values: Tensor) -> int:
    """Spatial axes of (..., D, H, W): an axis of one point that has none longer before it is none; at least 1."""
    shape = values.shape[-3:]
    return next((3 - i for i, size in enumerate(shape) if size > 1), 1)
