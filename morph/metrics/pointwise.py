"""Errors of a prediction point by point, each per sample and field; an error of a vector is the mean over its
components.

Averages <.> run over space; u is the prediction, v the truth.  Definitions follow The Well's benchmark
(arXiv 2412.00568, appendix) where it has one, so that figures compare with those published there.

With `valid`, averages run over the valid points alone.  A component without a valid point (for `vrmse` and `pearson`,
with fewer than two: one has no variance) is left out of the mean over the components of its field; a field that is left
with no component has no error: NaN.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from morph.layout import State
from morph.metrics.averages import SPACE, mean, over_components, quotient, variance

__all__ = ["linf", "mae", "mse", "nrmse", "pearson", "relative_l1", "relative_l2", "rmse", "vrmse"]

_EPS = 1e-7


def mse(
    prediction: State,
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F"]:
    """Mean square error, <(u - v)^2>, in the square of the field's unit (The Well, MSE)."""
    return over_components(_mse(prediction, target, valid), component_mask, valid)


def rmse(
    prediction: State,
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F"]:
    """Root mean square error, sqrt(<(u - v)^2>), in the unit of the field (The Well, RMSE; PDEBench, RMSE)."""
    return over_components(_mse(prediction, target, valid).sqrt(), component_mask, valid)


def mae(
    prediction: State,
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F"]:
    """Mean absolute error, <|u - v|>, in the unit of the field (The Well, MAE)."""
    return over_components(mean((prediction - target).abs(), valid), component_mask, valid)


def nrmse(
    prediction: State,
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F"]:
    """Normalised error, sqrt(<(u - v)^2> / (<v^2> + 1e-7)); a prediction of zero scores 1 (The Well, NRMSE).

    Per time and field: `morph.metrics.pooled_nrmse` is another quantity.
    """
    norm = mean(target.square(), valid)
    return over_components((_mse(prediction, target, valid) / (norm + _EPS)).sqrt(), component_mask, valid)


def vrmse(
    prediction: State,
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F"]:
    """Variance-scaled error, sqrt(<(u - v)^2> / (var(v) + 1e-7)), unbiased variance; predicting the mean scores 1
    (The Well, VRMSE).

    Per time and field: `morph.metrics.pooled_vrmse` is another quantity.
    """
    errors = (_mse(prediction, target, valid) / (variance(target, valid) + _EPS)).sqrt()
    return over_components(errors, component_mask, valid, least=2)


def relative_l1(
    prediction: State,
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F"]:
    """|u - v|_1 / |v|_1 = <|u - v|> / <|v|>, of functions on the domain; infinite over a truth of zeros (PDEgym's
    error, arXiv 2405.19101; The Well's NMAE has 1e-7 added to the denominator)."""
    errors = quotient(mean((prediction - target).abs(), valid), mean(target.abs(), valid))
    return over_components(errors, component_mask, valid)


def relative_l2(
    prediction: State,
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F"]:
    """|u - v|_2 / |v|_2 = sqrt(<(u - v)^2> / <v^2>), of functions on the domain; infinite over a truth of zeros (the
    neural operators' error, arXiv 2010.08895; The Well's NRMSE has 1e-7 added under the root)."""
    errors = quotient(_mse(prediction, target, valid).sqrt(), mean(target.square(), valid).sqrt())
    return over_components(errors, component_mask, valid)


def linf(
    prediction: State,
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F"]:
    """Largest error, max |u - v|, in the unit of the field (The Well, LInfinity; PDEBench, maximum error, which takes
    the maximum over the samples as well)."""
    error = (prediction - target).abs()
    error = error if valid is None else torch.where(valid, error, 0.0)
    return over_components(error.amax(SPACE), component_mask, valid)


def pearson(
    prediction: State,
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F"]:
    """Correlation over space, <(u - <u>) (v - <v>)> / sqrt(<(u - <u>)^2> <(v - <v>)^2>): 1 is best, not 0.

    It is blind to scale and offset.  With a field that is constant up to rounding there is no correlation: 0.  The
    Well's PearsonR is (N - 1) / N of it on N points, since its variances are unbiased and its covariance is not, and
    has 1e-7 added to the denominator.
    """
    deviations, constant = zip(*(_deviation(values, valid) for values in (prediction, target)), strict=True)
    scale = mean(deviations[0].square(), valid).sqrt() * mean(deviations[1].square(), valid).sqrt()
    correlation = mean(deviations[0] * deviations[1], valid) / scale
    return over_components(torch.where(constant[0] | constant[1], 0.0, correlation), component_mask, valid, least=2)


def _deviation(values: State, valid: Bool[Tensor, "B F C D H W"] | None) -> tuple[State, Bool[Tensor, "B F C"]]:
    """From the mean over space, and whether that is nothing but rounding."""
    deviation = values - mean(values, valid)[..., None, None, None]
    rounding = 4 * torch.finfo(values.dtype).eps * mean(values.square(), valid).sqrt()
    return deviation, mean(deviation.square(), valid).sqrt() <= rounding


def _mse(prediction: State, target: State, valid: Bool[Tensor, "B F C D H W"] | None) -> Float[Tensor, "B F C"]:
    return mean((prediction - target).square(), valid)
