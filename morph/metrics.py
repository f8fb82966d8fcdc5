"""Errors of a prediction, each per sample and field; an error of a vector is the mean over its components.

Averages <.> run over space; u is the prediction, v the truth.  Definitions follow The Well's benchmark
(arXiv 2412.00568, appendix), so that figures compare with those published there.

With `valid`, averages run over the valid points alone.  A component without a valid point (for `vrmse`, with fewer than
two: one has no variance) is left out of the mean over the components of its field; a field that is left with no
component has no error: NaN.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from morph.layout import State

__all__ = ["METRICS", "Metric", "crps", "is_defined", "mae", "nrmse", "rmse", "spread", "vrmse"]

Metric = Callable[..., Float[Tensor, "B F"]]
"""(prediction, target, component_mask=None, valid=None) -> error per sample and field; fillers and points that are not
valid count nowhere."""

_EPS = 1e-7
_SPACE = (-3, -2, -1)


def rmse(
    prediction: State,
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F"]:
    """Root mean square error, sqrt(<(u - v)^2>), in the unit of the field."""
    return _over_components(_mse(prediction, target, valid).sqrt(), component_mask, valid)


def mae(
    prediction: State,
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F"]:
    """Mean absolute error, <|u - v|>, in the unit of the field."""
    return _over_components(_mean((prediction - target).abs(), valid), component_mask, valid)


def nrmse(
    prediction: State,
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F"]:
    """Normalised error, sqrt(<(u - v)^2> / (<v^2> + 1e-7)); a prediction of zero scores 1."""
    norm = _mean(target.square(), valid)
    return _over_components((_mse(prediction, target, valid) / (norm + _EPS)).sqrt(), component_mask, valid)


def vrmse(
    prediction: State,
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F"]:
    """Variance-scaled error, sqrt(<(u - v)^2> / (var(v) + 1e-7)), unbiased variance; predicting the mean scores 1."""
    errors = (_mse(prediction, target, valid) / (_variance(target, valid) + _EPS)).sqrt()
    return _over_components(errors, component_mask, valid, least=2)


METRICS: dict[str, Metric] = {"vrmse": vrmse, "nrmse": nrmse, "rmse": rmse, "mae": mae}


def is_defined(
    metric: Metric, component_mask: Bool[Tensor, "F C"] | None, valid: Bool[Tensor, "B F C D H W"]
) -> Bool[Tensor, "B F"]:
    """Where there is enough data for an error, whatever its values: a NaN elsewhere is the fault of values."""
    nothing = torch.zeros_like(valid, dtype=torch.float32)
    return ~metric(nothing, nothing, component_mask, valid).isnan()


def crps(
    members: Float[Tensor, "M B F C D H W"],
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F"]:
    """Fair continuous ranked probability score of an ensemble x_1, ..., x_M, in the unit of the field,

        <1/M sum_i |x_i - v| - 1/(2 M (M - 1)) sum_ij |x_i - x_j|>.

    The score of a distribution, E|X - v| - E|X - X'| / 2 (Gneiting and Raftery 2007,
    doi 10.1198/016214506000001437), is in expectation lowest for the distribution that v is drawn from.  With M (M - 1)
    in place of M^2 its expectation does not depend on M (Ferro 2014, doi 10.1002/qj.2270), so that ensembles of
    different sizes compare; a single value can be negative.  Members that are alike score their mean absolute error,
    which is the score of a single forecast: `mae`.  The sum over pairs runs over sorted members, in O(M log M).

    Raises:
        ValueError: There is only one member.
    """
    count = _several(members)
    # Relative to the truth, so that a large mean takes no digits from the differences.
    deviation = (members - target).sort(0).values
    rank = torch.arange(count, device=members.device, dtype=deviation.dtype)
    weight = (2 * rank - (count - 1)) / (count * (count - 1))
    pairs = torch.tensordot(weight, deviation, dims=1)
    return _over_components(_mean(deviation.abs().mean(0) - pairs, valid), component_mask, valid)


def spread(
    members: Float[Tensor, "M B F C D H W"],
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F"]:
    """Spread of an ensemble x_1, ..., x_M, sqrt((M + 1) / M <var(x)>), unbiased variance over the members, in the unit
    of the field.

    Where the truth is as one more member, its square is in expectation the mean square error of the ensemble's mean:
    spread / skill, with skill the `rmse` of the mean, is 1; below 1 the ensemble is too sure.  The variance is averaged
    before the root is taken, and the factor is due to the mean of only M members (Fortin et al. 2014,
    doi 10.1175/JHM-D-14-0008.1).

    Raises:
        ValueError: There is only one member.
    """
    count = _several(members)
    variance = _mean(members.var(0), valid) * (count + 1) / count
    return _over_components(variance.sqrt(), component_mask, valid)


def _several(members: Float[Tensor, "M B F C D H W"]) -> int:
    if len(members) < 2:
        raise ValueError(f"members: an ensemble has at least 2, found {len(members)}")
    return len(members)


def _mse(prediction: State, target: State, valid: Bool[Tensor, "B F C D H W"] | None) -> Float[Tensor, "B F C"]:
    return _mean((prediction - target).square(), valid)


def _mean(values: State, valid: Bool[Tensor, "B F C D H W"] | None) -> Float[Tensor, "B F C"]:
    if valid is None:
        return values.mean(_SPACE)
    return torch.where(valid, values, 0.0).sum(_SPACE) / valid.sum(_SPACE)


def _variance(target: State, valid: Bool[Tensor, "B F C D H W"] | None) -> Float[Tensor, "B F C"]:
    if valid is None:
        return target.flatten(-3).var(-1)
    deviation = target - _mean(target, valid)[..., None, None, None]
    return torch.where(valid, deviation.square(), 0.0).sum(_SPACE) / (valid.sum(_SPACE) - 1)


def _over_components(
    errors: Float[Tensor, "B F C"],
    component_mask: Bool[Tensor, "F C"] | None,
    valid: Bool[Tensor, "B F C D H W"] | None,
    least: int = 1,
) -> Float[Tensor, "B F"]:
    """Mean over the physical components with at least so many valid points."""
    counted = component_mask
    if valid is not None:
        counted = valid.sum(_SPACE) >= least
        counted = counted if component_mask is None else counted & component_mask
    if counted is None:
        return errors.mean(-1)
    # Select rather than multiply: an overflow in a filler must not turn into 0 * inf.
    return torch.where(counted, errors, 0.0).sum(-1) / counted.sum(-1)
