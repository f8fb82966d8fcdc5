"""Scores of ensembles."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from morph.layout import State
from morph.metrics.averages import mean, over_components

__all__ = ["crps", "spread"]


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
    return over_components(mean(deviation.abs().mean(0) - pairs, valid), component_mask, valid)


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
    variance = mean(members.var(0), valid) * (count + 1) / count
    return over_components(variance.sqrt(), component_mask, valid)


def _several(members: Float[Tensor, "M B F C D H W"]) -> int:
    if len(members) < 2:
        raise ValueError(f"members: an ensemble has at least 2, found {len(members)}")
    return len(members)
