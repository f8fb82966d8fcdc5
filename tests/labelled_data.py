"""Labelled data as users have it, and small models that were trained on such."""

from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import nn

from morph.layout import Conditions, DatasetSpec, Field, TrainedOn
from morph.model.morph import Capacity, Morph
from morph.rollout import rollout

__all__ = ["FLOW", "LINE", "OCEAN", "VOLUME", "flow", "line", "model_of", "ocean", "rolled_out", "volume"]

LINE = DatasetSpec(
    "line", (Field("a", variables=("A",)), Field("b")), (1, 1, 24), 20, 0.5, ("open", "open", "periodic"), ("x",)
)
FLOW = DatasetSpec(
    "flow",
    (
        Field("velocity", ("velocity_x", "velocity_y"), "m s-1", ("U", "V")),
        Field("force", ("force_x", "force_y"), None, ("forcing[2]", "forcing[0]")),
        Field("pressure", variables=("p",)),
    ),
    (1, 16, 16), 20, 6.0, ("open", "wall", "periodic"), ("lat", "lon"),
)  # fmt: skip
VOLUME = DatasetSpec("volume", (Field("rho"),), (8, 8, 8), 9, 1.0, ("periodic",) * 3, ("x", "y", "z"))
OCEAN = DatasetSpec(
    "ocean", (Field("t", variables=("sst",)),), (1, 8, 16), 9, 1.0, ("open",) * 3, ("y", "x"), masked=True
)


def model_of(*specs: DatasetSpec, context: int = 2, **options: Any) -> Morph:
    """A small model with random weights that says it was trained on these."""
    torch.manual_seed(0)
    model = Morph(dim=32, depth=1, heads=4, field_heads=8, capacity=Capacity(3, 3, 4, 16), **options)
    for parameter in model.decoder.parameters():
        nn.init.normal_(parameter, std=0.2)
    model.trained_on = TrainedOn(context, {spec.name: spec for spec in specs})
    return model.eval()


def _random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def line(frames: int = 6) -> xr.Dataset:
    """Two runs in one dimension; the time counts in no unit."""
    return xr.Dataset(
        {
            "A": (("run", "time", "x"), _random(2, frames, 24), {"units": "K", "long_name": "temperature"}),
            "b": (("run", "time", "x"), 3 + _random(2, frames, 24, seed=1)),
        },
        {"time": 0.5 * np.arange(frames), "run": ["first", "second"], "viscosity": ("run", [0.1, 0.2])},
    )


def flow(frames: int = 5) -> xr.Dataset:
    """Vectors as two variables and as entries of a channel axis, dates, a rotated grid, and a time-dependent area."""
    times = np.datetime64("2001-01-01", "ns") + 6 * np.arange(frames) * np.timedelta64(1, "h")
    mapped = {"grid_mapping": "crs", "units": "m s-1"}
    dataset = xr.Dataset(
        {
            "U": (("time", "lat", "lon"), _random(frames, 16, 16), {**mapped, "standard_name": "eastward_wind"}),
            "V": (("time", "lat", "lon"), _random(frames, 16, 16, seed=1), mapped),
            "p": (("time", "lat", "lon"), 1e5 + _random(frames, 16, 16, seed=2), {"cell_methods": "time: mean"}),
            "forcing": (("time", "kind", "lat", "lon"), _random(frames, 3, 16, 16, seed=3)),
            "crs": ((), 0, {"grid_mapping_name": "rotated_latitude_longitude"}),
            "lat_bnds": (("lat", "edge"), _random(16, 2, seed=4)),
            "orography": (("lat", "lon"), _random(16, 16, seed=5)),
        },
        {
            "time": ("time", times, {"standard_name": "time", "bounds": "time_bnds"}),
            "lat": ("lat", np.linspace(-1, 1, 16), {"units": "degrees", "bounds": "lat_bnds"}),
            "lon": ("lon", np.linspace(0, 2, 16), {"units": "degrees"}),
            "true_lat": (("lat", "lon"), _random(16, 16, seed=6), {"standard_name": "latitude"}),
            "height": ((), 10.0, {"units": "m", "positive": "up"}),
            "kind": ["sun", "moon", "wind"],
            "area": ("time", _random(frames)),
        },
        {"title": "a flow", "history": "made up", "Conventions": "CF-1.8"},
    )
    dataset.time.encoding = {"units": "hours since 2000-01-01", "calendar": "standard", "dtype": "int64"}
    return dataset


def volume(frames: int = 4) -> xr.Dataset:
    return xr.Dataset({"rho": (("time", "x", "y", "z"), _random(frames, 8, 8, 8))}, {"time": 1.0 * np.arange(frames)})


def ocean(frames: int = 4) -> xr.Dataset:
    """A third is land; one point more misses its value in one frame."""
    values = 280 + _random(frames, 8, 16)
    values[:, :, :5] = np.nan
    values[-1, 3, 9] = np.nan
    return xr.Dataset({"sst": (("time", "y", "x"), values, {"units": "K"})}, {"time": np.arange(frames)})


def rolled_out(
    model: Morph, spec: DatasetSpec, context: Float[np.ndarray, "B T F C D H W"], steps: int
) -> Float[np.ndarray, "B S F C D H W"]:
    """What the model makes of a context that was put together by hand."""
    mask = torch.from_numpy(spec.component_mask)
    conditions = Conditions(mask, spec.boundary, all_physical=bool(mask.all()))
    states = rollout(model, torch.from_numpy(context.astype(np.float32)), steps, conditions)
    return torch.stack(list(states), 1).numpy()
