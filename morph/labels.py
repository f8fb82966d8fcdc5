"""Results that say what they are: names, units and coordinates."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from morph.data.adapter import DatasetAdapter
from morph.ensemble import Ensemble
from morph.layout import DatasetSpec

__all__ = ["describe", "labelled_rollouts", "parameters"]

_TIME = "unit of time of the data set"

_METRICS = {
    "vrmse": ("sqrt(<(u - v)^2> / (var(v) + 1e-7))", "1"),
    "nrmse": ("sqrt(<(u - v)^2> / (<v^2> + 1e-7))", "1"),
    "rmse": ("sqrt(<(u - v)^2>)", "unit of the field"),
    "mae": ("<|u - v|>", "unit of the field"),
    "mse": ("<(u - v)^2>", "square of the unit of the field"),
    "relative_l1": ("<|u - v|> / <|v|>", "1"),
    "relative_l2": ("sqrt(<(u - v)^2> / <v^2>)", "1"),
    "linf": ("max |u - v|", "unit of the field"),
    "pearson": ("correlation of u and v over space; 1 is best, 0 where the forecast is not finite", "1"),
    "boundary_rmse": ("sqrt(<(u - v)^2>) over the first and last points of every axis", "unit of the field"),
    **{
        f"fourier_{band}": (
            f"mean over wavenumbers {which} of sqrt(sum over k with floor(|k|) = K of |F(u - v)_k|^2) / N",
            "unit of the field",
        )
        for band, which in (("low", "0 to 3"), ("mid", "4 to 11"), ("high", "from 12"))
    },
}
"""Formula, with u the forecast, v the truth and <.> the mean over space, and unit, of each of METRICS."""


def describe(metrics: xr.Dataset, *, unstable: float, valid_threshold: float, ensemble: Ensemble | None) -> None:
    """Say in the attributes of `morph.scoring.Scores.metrics` what each variable is, and its unit."""
    errors = (
        "formula and metric_unit of each; a mean over the components of a vector; infinite, and pearson 0, where the "
        "forecast is not finite; relative_l1 and relative_l2 also where the truth is zero throughout"
    )
    said: dict[str, dict[str, Any]] = {
        "lead_time": {"long_name": "time since the last frame of context", "units": _TIME},
        "frames_seen": {"long_name": "frames of context that the forecast sees"},
        "rollout": {"long_name": "error of a rollout from the first frames", "metrics": errors},
        "one_step": {"long_name": "error one step ahead", "metrics": errors},
        "unstable_from": {
            "long_name": f"lead time from which an error exceeds {unstable:g} standard deviations of its field, "
            "or is NaN"
        },
        "valid_time": {
            "long_name": f"last lead time before the VRMSE, mean over fields, first exceeds {valid_threshold:g}",
            "threshold": valid_threshold,
            "units": _TIME,
        },
        "valid_time_censored": {"long_name": "the VRMSE never exceeds it, valid_time is the whole length"},
        "field_std": {"long_name": "standard deviation of the field over the true trajectory, in its unit"},
    }
    if ensemble is not None:
        made = {
            "members": ensemble.members,
            "perturbation": ensemble.perturbation or 0.0,
            "dropout": int(ensemble.dropout),
            "seed": ensemble.seed,
        }
        said |= {
            "crps": {"long_name": "fair continuous ranked probability score, in the unit of the field", **made},
            "spread": {
                "long_name": "root of the mean variance over members times (M + 1) / M, in the unit of the field",
                **made,
            },
            "skill": {"long_name": "RMSE of the mean of the members, in the unit of the field", **made},
        }
    for name, attributes in said.items():
        metrics[name].attrs = attributes
    for i, name in enumerate(("formula", "metric_unit")):
        metrics.coords[name] = ("metric", [_METRICS[metric][i] for metric in metrics.metric.values])
    metrics.formula.attrs = {"long_name": "u: forecast, v: truth, <.>: mean over space; see morph.metrics"}


def parameters(adapter: DatasetAdapter) -> dict[str, Any]:
    """Variables of the parameters of each trajectory."""
    values = [adapter.parameters(i) for i in range(len(adapter))]
    attributes = {"long_name": "parameter of the simulation"}
    return {
        f"parameter_{name}": ("trajectory", np.array([v[name] for v in values]), attributes)
        for name in adapter.spec.parameters
    }


def labelled_rollouts(kept: Mapping[str, np.ndarray], adapter: DatasetAdapter, context: int) -> xr.Dataset:
    """Rollouts as one variable per component, on the data set's own coordinates."""
    spec = adapter.spec
    if not kept:
        return xr.Dataset(attrs={"dataset": spec.name})
    values = np.stack(list(kept.values()))
    steps = values.shape[2]
    coordinates = {
        name: (name, adapter.coordinates[name], {"long_name": name, "units": "unit of length of the data set"})
        for name in spec.axes
    }
    time = adapter.coordinates["time"][context : context + steps]
    return xr.Dataset(
        {
            component: (
                ("source", "trajectory", "time", *spec.axes),
                _drop_axes(values[:, :, :, f, c], spec),
                {"long_name": component.replace("_", " "), "units": field.unit or "", "field": field.name},
            )
            for f, field in enumerate(spec.fields)
            for c, component in enumerate(field.components)
        },
        coords={
            "source": list(kept),
            "trajectory": np.arange(values.shape[1]),
            "time": ("time", time, {"long_name": "time", "units": _TIME}),
            **coordinates,
        },
        attrs={"dataset": spec.name, "context_frames": context, "dt": spec.dt},
    )


def _drop_axes(values: Float[np.ndarray, "source n S D H W"], spec: DatasetSpec) -> np.ndarray:
    return values.reshape(*values.shape[:3], *spec.spatial_shape[3 - len(spec.axes) :])
