"""The metrics that every evaluation computes."""

from collections.abc import Callable
from functools import lru_cache
from math import inf

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from morph.layout import State
from morph.metrics.pdebench import boundary_rmse, fourier_bands, fourier_high, fourier_low, fourier_mid
from morph.metrics.pointwise import linf, mae, mse, nrmse, pearson, relative_l1, relative_l2, rmse, vrmse

__all__ = ["METRICS", "Metric", "defined_on_grid", "every_metric", "is_defined", "worst"]

Metric = Callable[..., Float[Tensor, "B F"]]
"""(prediction, target, component_mask=None, valid=None) -> error per sample and field; fillers and points that are not
valid count nowhere.  NaN where there is not enough data, or no such quantity on the grid."""

METRICS: dict[str, Metric] = {
    "vrmse": vrmse,
    "nrmse": nrmse,
    "rmse": rmse,
    "mae": mae,
    "mse": mse,
    "relative_l1": relative_l1,
    "relative_l2": relative_l2,
    "linf": linf,
    "pearson": pearson,
    "boundary_rmse": boundary_rmse,
    "fourier_low": fourier_low,
    "fourier_mid": fourier_mid,
    "fourier_high": fourier_high,
}
"""By name; 0 is best, of `pearson` alone 1."""

_BANDS = ("fourier_low", "fourier_mid", "fourier_high")


def every_metric(
    prediction: State,
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F metric"]:
    """All of METRICS, in their order; the Fourier transform that three of them need is made once."""
    bands = fourier_bands(prediction, target, component_mask, valid)
    return torch.stack(
        [
            bands[..., _BANDS.index(name)] if name in _BANDS else metric(prediction, target, component_mask, valid)
            for name, metric in METRICS.items()
        ],
        -1,
    )


def is_defined(
    metric: Metric, component_mask: Bool[Tensor, "F C"] | None, valid: Bool[Tensor, "B F C D H W"]
) -> Bool[Tensor, "B F"]:
    """Where there is enough data for an error, whatever its values: a NaN elsewhere is the fault of values."""
    nothing = torch.zeros_like(valid, dtype=torch.float32)
    return ~metric(nothing, nothing, component_mask, valid).isnan()


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def defined_on_grid(depth: int, height: int, width: int) -> Bool[Tensor, "metric"]:
    """Which of METRICS there are on a grid without absent points: a coarse one has no high wavenumbers."""
    nothing = torch.zeros(1, 1, 1, depth, height, width)
    return ~every_metric(nothing, nothing)[0, 0].isnan()


def worst(name: str) -> float:
    """What a forecast that is not finite scores: no correlation, 0, of `pearson`, and an infinite error of all others.

    The other way round, relative errors are infinite over a truth of zeros, too."""
    return 0.0 if name == "pearson" else inf
