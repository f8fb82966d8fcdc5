"""Means, spectra and divergence of rollouts, beside those of the truth."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from morph.baselines import NAIVE
from morph.diagnostics import grid_of
from morph.layout import Conditions, Context, DatasetSpec, Field, State
from morph.scoring import score
from tests.made_up import Coast, Waves, _Alone, put
from tests.test_scoring import exact, exploding


class Vortices(_Alone):
    """A Taylor-Green velocity beside a pressure of energy 1/2 in shell 1.

    Args:
        axes: Names of the axes.
        components: Names of the components, in the order in which they are stored.
        stretch: Move the points of the first axis apart towards its end.
    """

    statistics = None

    def __init__(
        self, axes: tuple[str, str] = ("x", "y"), components: tuple[str, str] = ("u_x", "u_y"), stretch: float = 0.0
    ) -> None:
        fields = (Field("velocity", components), Field("pressure"))
        boundary = ("open", "periodic", "periodic")
        self.spec = DatasetSpec("vortices", fields, (1, 12, 16), 8, 0.5, boundary, axes)
        first = np.arange(12) * 2 * np.pi / 12
        self.coordinates = {
            axes[0]: first * (1 + stretch * first), axes[1]: np.arange(16) * 2 * np.pi / 16, "time": 0.5 * np.arange(8),
        }  # fmt: skip
        self.swapped = components[0].endswith(axes[1])

    def __len__(self) -> int:
        return 3

    def parameters(self, trajectory: int) -> dict[str, float]:
        return {}

    def read(self, trajectory: int, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        x, y = np.meshgrid(np.arange(12) * 2 * np.pi / 12, np.arange(16) * 2 * np.pi / 16, indexing="ij")
        values = np.zeros((stop - start, 2, 2, 1, 12, 16), dtype=np.float32)
        decay = np.exp(-0.1 * np.arange(start, stop) - 0.2 * trajectory)[:, None, None]
        velocity = [np.sin(x) * np.cos(y) * decay, -np.cos(x) * np.sin(y) * decay]
        values[:, 0, 0, 0], values[:, 0, 1, 0] = velocity[::-1] if self.swapped else velocity
        values[:, 1, 0, 0] = 2 + np.sin(y)
        return put(values, out)


def growing(context: Context, conditions: Conditions | None = None) -> State:
    """Adds a gradient to the velocity, and 1/10 to every pressure."""
    state = context[:, -1].clone()
    slope = torch.arange(12) * 2 * torch.pi / 12
    state[:, 0, 0] += 0.1 * slope.sin()[:, None]
    state[:, 1, 0] += 0.1
    return state


def judged(adapter: Any = None, **forecasts: Any) -> xr.Dataset:
    return score({"model": growing, **NAIVE, **forecasts}, adapter or Vortices(), context=2, batch_size=2).metrics


def test_a_shift_shows_as_the_drift_of_the_mean_and_in_the_constant_of_the_spectrum() -> None:
    metrics = judged()
    assert metrics.spatial_mean.dims == ("source", "trajectory", "lead_time", "component")
    assert metrics.source.values.tolist() == ["truth", "model", *NAIVE]
    pressure = metrics.spatial_mean.sel(component="pressure")
    assert np.allclose(pressure.sel(source="truth"), 2, atol=1e-6)
    assert np.allclose(pressure.sel(source="model"), 2 + 0.1 * np.arange(1, 7), atol=1e-5)
    assert np.allclose(metrics.spatial_mean.sel(component=["u_x", "u_y"]), 0, atol=1e-6)
    assert np.allclose(metrics.spectrum_time, [0.5, 1.5, 3.0])
    spectrum = metrics.energy_spectrum.sel(field="pressure")
    assert spectrum.dims == ("source", "spectrum_time", "wavenumber")
    assert np.allclose(spectrum.sel(wavenumber=0, source="model"), (2 + 0.1 * np.array([1, 3, 6])) ** 2, rtol=1e-5)
    assert np.allclose(spectrum.sel(wavenumber=1), 0.5, rtol=1e-5)
    assert np.allclose(spectrum.isel(wavenumber=slice(2, None)), 0, atol=1e-10)


def test_spectra_are_means_over_trajectories_of_the_energy_of_all_components() -> None:
    """<u^2 + v^2> = decay^2 / 2, at |k| = sqrt(2); the truth's at the first, middle and last lead time."""
    spectrum = judged().energy_spectrum.sel(field="velocity", source="truth")
    decay = np.exp(-0.1 * np.array([2, 4, 7])[:, None] - 0.2 * np.arange(3))
    assert np.allclose(spectrum.sel(wavenumber=1), (decay**2 / 2).mean(1), rtol=1e-5)
    assert np.allclose(spectrum.sum("wavenumber"), (decay**2 / 2).mean(1), rtol=1e-5)


def test_a_gradient_has_divergence_and_the_truth_has_none() -> None:
    """The model's velocity is a solenoidal part of slopes' mean square decay^2, and a gradient's (0.1 n)^2 / 2."""
    divergence = judged().relative_divergence
    assert divergence.dims == ("source", "trajectory", "lead_time", "vector")
    assert divergence.vector.values.tolist() == ["velocity"]
    assert (divergence.sel(source=["truth", "persistence", "extrapolation"]) < 1e-5).all()
    gradient = (0.1 * np.arange(1, 7)) ** 2 / 2
    last = np.exp(-0.1 - 0.2 * np.arange(3))[:, None]
    expected = np.sqrt(gradient / (last**2 + gradient))
    assert np.allclose(divergence.sel(source="model", vector="velocity"), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"components": ("u_y", "u_x")}, None),  # stored the other way round, and named so
        ({"components": ("u", "v")}, None),
        ({"components": ("vy", "vx")}, None),
        ({"components": ("By", "Bx")}, None),
        ({"axes": ("y", "x"), "components": ("vy", "vx")}, None),
        ({"axes": ("y", "x"), "components": ("vx", "vy")}, None),
        ({"axes": ("y", "x"), "components": ("v", "u")}, "which component of velocity belongs to which axis"),
        ({"components": ("vx", "vz")}, "which component of velocity belongs to which axis"),
        ({"components": ("velocity_z", "velocity_x")}, "which component of velocity belongs to which axis"),
        ({"axes": ("lat", "lon")}, "the axes lat, lon are not called x, y, z"),
        ({"stretch": 0.1}, "the grid is not uniform"),
    ],
)
def test_a_divergence_is_computed_where_axes_and_components_are_known(options: Any, reason: str | None) -> None:
    grid = grid_of(Vortices(**options))
    assert (reason is None) == (grid.left_out is None)
    metrics = judged(Vortices(**options))
    assert ("relative_divergence" in metrics) == (reason is None)
    if reason is None:
        assert (metrics.relative_divergence.sel(source="truth") < 1e-5).all()
    else:
        assert reason in metrics.attrs["no_divergence"]
    evenly = "stretch" not in options
    assert ("as if" in metrics.wavenumber.attrs["long_name"]) != evenly


def test_a_line_has_no_divergence_of_its_own() -> None:
    metrics = score({"model": exact, **NAIVE}, Waves("test"), context=4, batch_size=1).metrics
    assert "relative_divergence" not in metrics
    assert "no_divergence" not in metrics.attrs
    known = metrics.energy_spectrum.sel(source=["truth", "model", "persistence"])
    assert np.allclose(known.sel(wavenumber=1), 0.5, rtol=1e-4)


def test_the_truth_does_not_depend_on_the_forecasts_nor_on_the_batches() -> None:
    def lost(context: Context, conditions: Conditions | None = None) -> State:
        return context[:, -1] * torch.nan

    one = judged()
    two = score({"model": lost, **NAIVE, "far": exploding}, Vortices(), context=2, batch_size=3).metrics
    for name in ("spatial_mean", "energy_spectrum", "relative_divergence"):
        assert np.allclose(one[name].sel(source="truth"), two[name].sel(source="truth"), rtol=1e-6, atol=1e-6)
        assert np.isposinf(two[name].sel(source="model")).all()
        assert not two[name].sel(source="far").isnull().any()


def test_land_has_means_and_no_spectrum() -> None:
    metrics = score({"model": NAIVE["persistence"], **NAIVE}, Coast("test"), context=4, batch_size=2).metrics
    sea = Waves("test").read(0, 4, 12)[:, 0, 0, 0, 0, 6:].mean(-1)
    assert np.allclose(metrics.spatial_mean.sel(source="truth", trajectory=0, component="a"), sea, atol=1e-6)
    assert metrics.energy_spectrum.isnull().all()
    gone = score({"model": NAIVE["persistence"], **NAIVE}, Coast("test", spoil=(1, 7)), context=4, batch_size=2).metrics
    missing = gone.spatial_mean.isnull()
    assert missing.sel(trajectory=1).isel(lead_time=3).all()
    assert int(missing.sum()) == 4 * 2  # sources and components of one frame


def test_every_new_variable_says_what_it_is() -> None:
    metrics = judged()
    for name in ("spatial_mean", "energy_spectrum", "relative_divergence"):
        assert {"long_name", "formula", "units"} <= set(metrics[name].attrs)
    assert metrics.formula.sel(metric="mse") == "<(u - v)^2>"
    assert metrics.metric_unit.sel(metric="pearson") == "1"
    assert "pearson 0, where the forecast is not finite" in metrics.rollout.attrs["metrics"]
    assert "relative_l2 also where the truth is zero" in metrics.one_step.attrs["metrics"]
