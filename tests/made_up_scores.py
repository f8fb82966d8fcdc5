"""Scores of made-up forecasts, with every variable that a page can show."""

from typing import Any

import numpy as np
import xarray as xr

from morph.metrics import METRICS, valid_time
from morph.scoring import Scores
from morph.summary import summarise

ERROR = {"model": 0.1, "persistence": 0.3, "extrapolation": 0.5, "other": 0.2}
TRAJECTORIES, STEPS = 3, 6


def made_up(name: str = "plane", axes: tuple[str, ...] = ("x", "y"), lost: bool = False, land: bool = False) -> Scores:
    """Waves that move to the right, and forecasts that move too fast: the better, the less.

    Args:
        name: Of the data set.
        axes: Dimensions of space.
        lost: The compared forecast grows a hundredfold at each step, and is not finite at the last.
        land: The first points have no value.
    """
    forecasts = list(ERROR)
    lead = 0.5 * np.arange(1, STEPS + 1)
    rng = np.random.default_rng(0)
    growth = np.exp(0.2 * rng.normal(size=(len(METRICS), 2, STEPS, TRAJECTORIES, 1))).transpose(4, 3, 2, 1, 0)
    errors = np.array(list(ERROR.values()))[:, None, None, None, None] * lead[:, None, None] * growth
    if lost:
        errors[forecasts.index("other"), :, 3:] = np.inf
    valid, censored = valid_time(errors[..., list(METRICS).index("vrmse")].mean(-1), lead, 0.5)
    unstable = np.full((len(forecasts), TRAJECTORIES), np.nan)
    unstable[forecasts.index("other")] = 2.0 if lost else np.nan
    sources = ["truth", "model", "other"]
    components = ["velocity_x", "velocity_y", "density"]
    wavenumber = np.arange(1.0, 17.0)
    spectrum = wavenumber**-3 * np.ones((len(sources), 3, 2, 1))
    means = np.ones((len(sources), TRAJECTORIES, STEPS, len(components)))
    metrics = xr.Dataset(
        {
            "rollout": (("forecast", "trajectory", "lead_time", "field", "metric"), errors),
            "one_step": (("forecast", "window", "field", "metric"), errors[:, :, 0]),
            "unstable_from": (("forecast", "trajectory"), unstable),
            "valid_time": (("forecast", "trajectory"), valid, {"threshold": 0.5}),
            "valid_time_censored": (("forecast", "trajectory"), censored),
            "field_std": (("trajectory", "field"), np.ones((TRAJECTORIES, 2))),
            "spatial_mean": (("source", "trajectory", "lead_time", "component"), means),
            "energy_spectrum": (("source", "spectrum_time", "field", "wavenumber"), spectrum),
            "relative_divergence": (
                ("source", "trajectory", "lead_time", "vector"),
                np.array([1e-6, 1e-3, 1e-2])[:, None, None, None] * np.ones((TRAJECTORIES, STEPS, 1)),
            ),
        },
        {
            "forecast": forecasts, "trajectory": np.arange(TRAJECTORIES), "lead_time": lead, "metric": list(METRICS),
            "field": ["velocity", "density"], "unit": ("field", ["m/s", ""]), "source": sources,
            "component": components, "spectrum_time": lead[[0, 3, 5]], "wavenumber": wavenumber, "vector": ["velocity"],
        },
        {"dataset": name, "context_frames": 2, "dt": 0.5},
    )  # fmt: skip
    return Scores(metrics, rollouts(name, axes, lost, land))


def rollouts(name: str, axes: tuple[str, ...], lost: bool = False, land: bool = False) -> xr.Dataset:
    """See `made_up`; of two trajectories."""
    sizes = dict(zip(axes, (12, 16, 10), strict=False))
    grid = np.meshgrid(*(np.arange(size) / size for size in sizes.values()), indexing="ij")
    time = 0.5 * np.arange(2, STEPS + 2)
    speeds = {"truth": 0.1, "model": 0.11, "other": 0.15}
    variables = {}
    for number, component in enumerate(("velocity_x", "velocity_y", "density")):
        values = np.empty((len(speeds), 2, STEPS, *sizes.values()))
        for source, speed in enumerate(speeds.values()):
            for i, t in enumerate(time):
                phase = sum((axis + 1) * place for axis, place in enumerate(grid)) - speed * t
                for trajectory in range(2):
                    values[source, trajectory, i] = np.sin(2 * np.pi * (phase + 0.3 * trajectory + 0.1 * number))
        if component == "density":
            values += 3
        if lost:
            values[2] *= 100.0 ** np.arange(STEPS).reshape(-1, *[1] * len(axes))
            values[2, :, -1] = np.nan
        if land:
            values[..., :2] = np.nan
        field = component.removesuffix("_x").removesuffix("_y")
        attributes: dict[str, Any] = {"long_name": component, "units": "m/s" if field == "velocity" else ""}
        dims = ("source", "trajectory", "time", *axes)
        variables[component] = (dims, values.astype(np.float32), {**attributes, "field": field})
    places = {axis: (axis, np.arange(size) / size) for axis, size in sizes.items()}
    coordinates = {"source": list(speeds), "trajectory": [0, 1], "time": time, **places}
    return xr.Dataset(variables, coordinates, {"dataset": name, "context_frames": 2, "dt": 0.5})


def summary(scores: Scores) -> dict[str, Any]:
    """What the command makes of it, with windows of lead time and cost."""
    numbers = summarise(scores.metrics)
    error = {name: {"mean": x, "median": x, "low": x / 2, "high": 2 * x} for name, x in ERROR.items()}
    of_window = {name: {"vrmse": of, "nrmse": of} for name, of in error.items()}
    windows = {"one_step": of_window, "6:12": of_window}
    cost = {
        name: {"parameters": 2_800_000, "gflop": 0.7, "inference_ms": 17.0, "training_seconds": 210.0}
        for name in ("model", "other")
    }
    nothing = {"parameters": 0, "gflop": 0.0, "inference_ms": 0.1, "training_seconds": None}
    return {**numbers, "zero_shot": False, "windows": windows, "cost": {**cost, "persistence": nothing}}


OVERALL = {
    window: {
        name: {"ratio_to_persistence": {"mean": x / 0.3, "low": x / 0.4, "high": x / 0.2}, "average_rank": rank}
        for rank, (name, x) in enumerate(ERROR.items(), 1)
    }
    for window in ("one_step", "rollout")
}
