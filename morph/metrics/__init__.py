"""Metrics: pure functions, each with its formula and source.

A metric of METRICS is a function (prediction, target, component_mask=None, valid=None) -> (B, F), with one value for
each sample and field.  u is the prediction, v the truth.
"""

from morph.metrics.aggregate import average_rank, bootstrap_interval, geometric_mean, valid_time
from morph.metrics.ensemble import crps, spread
from morph.metrics.every import METRICS, Metric, defined_on_grid, every_metric, is_defined, worst
from morph.metrics.pdebench import (
    boundary_rmse,
    conserved_rmse,
    fourier_bands,
    fourier_high,
    fourier_low,
    fourier_mid,
    pdebench_nrmse,
)
from morph.metrics.physics import divergence, mean_drift, relative_divergence, spatial_mean
from morph.metrics.pointwise import linf, mae, mse, nrmse, pearson, relative_l1, relative_l2, rmse, vrmse
from morph.metrics.pooled import pooled_nrmse, pooled_vrmse
from morph.metrics.spectral import energy_ratio, energy_spectrum, spectral_error

__all__ = [
    "METRICS",
    "Metric",
    "average_rank",
    "bootstrap_interval",
    "boundary_rmse",
    "conserved_rmse",
    "crps",
    "defined_on_grid",
    "divergence",
    "energy_ratio",
    "energy_spectrum",
    "every_metric",
    "fourier_bands",
    "fourier_high",
    "fourier_low",
    "fourier_mid",
    "geometric_mean",
    "is_defined",
    "linf",
    "mae",
    "mean_drift",
    "mse",
    "nrmse",
    "pdebench_nrmse",
    "pearson",
    "pooled_nrmse",
    "pooled_vrmse",
    "relative_divergence",
    "relative_l1",
    "relative_l2",
    "rmse",
    "spatial_mean",
    "spectral_error",
    "spread",
    "valid_time",
    "vrmse",
    "worst",
]
