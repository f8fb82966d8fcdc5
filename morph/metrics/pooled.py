"""Errors as the published MORPH models report them (arXiv 2509.21670; github.com/lanl/MORPH), each per trajectory.

Squares are averaged over all times, fields, components and points of a trajectory at once, before the quotient is
taken: <<.>>.  A field of large values outweighs the others, and times of large error outweigh the rest, so these
figures differ from `vrmse` and `nrmse`, which are quotients of each time and field.  What is published is the mean over
the trajectories of a test set, one step ahead, with scalars repeated over the components of the vectors beside them and
counted as often; here a `component_mask` counts every physical component once, and None reproduces that on such a
layout.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from morph.layout import Target

__all__ = ["pooled_nrmse", "pooled_vrmse"]

_EPS = 1e-7


def pooled_nrmse(
    prediction: Target,
    target: Target,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B S F C D H W"] | None = None,
) -> Float[Tensor, "B"]:
    """sqrt(<<(u - v)^2>> / (<<v^2>> + 1e-7)); not `nrmse`."""
    counted = _counted(target, component_mask, valid)
    return (_mean((prediction - target).square(), counted) / (_mean(target.square(), counted) + _EPS)).sqrt()


def pooled_vrmse(
    prediction: Target,
    target: Target,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B S F C D H W"] | None = None,
) -> Float[Tensor, "B"]:
    """sqrt(<<(u - v)^2>> / (<<(v - <<v>>)^2>> + 1e-7)), one mean of all fields; not `vrmse`."""
    counted = _counted(target, component_mask, valid)
    deviation = target - _mean(target, counted).view(-1, 1, 1, 1, 1, 1, 1)
    return (_mean((prediction - target).square(), counted) / (_mean(deviation.square(), counted) + _EPS)).sqrt()


def _counted(
    target: Target, component_mask: Bool[Tensor, "F C"] | None, valid: Bool[Tensor, "B S F C D H W"] | None
) -> Bool[Tensor, "B S F C D H W"]:
    counted = torch.ones_like(target, dtype=torch.bool) if valid is None else valid
    return counted if component_mask is None else counted & component_mask[..., None, None, None]


def _mean(values: Target, counted: Bool[Tensor, "B S F C D H W"]) -> Float[Tensor, "B"]:
    return torch.where(counted, values, 0.0).flatten(1).sum(1) / counted.flatten(1).sum(1)
