"""What rollouts do to quantities of physics, beside the truth: means over space, energy spectra, divergence."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from morph.data.adapter import DatasetAdapter
from morph.layout import DatasetSpec, State
from morph.metrics import energy_spectrum, relative_divergence, spatial_mean

__all__ = ["Diagnosis", "Grid", "diagnose", "grid_of", "labelled_diagnoses", "spectrum_leads"]

_CARTESIAN = ("x", "y", "z")


class Grid(NamedTuple):
    """What can be measured on the grid of a data set.

    spec: The data set.
    spacing: Distance of two points along each of its axes, None where one is not uniform.
    vectors: By name, the number of a field and its components in the order of the axes: those that have a divergence.
    left_out: Why other vectors have none, None where there is no such vector.
    """

    spec: DatasetSpec
    spacing: tuple[float, ...] | None
    vectors: Mapping[str, tuple[int, tuple[int, ...]]]
    left_out: str | None

    @property
    def lengths(self) -> tuple[float, ...] | None:
        """Of the domain along each axis."""
        if self.spacing is None:
            return None
        sizes = self.spec.spatial_shape[-len(self.spacing) :]
        return tuple(abs(step) * size for step, size in zip(self.spacing, sizes, strict=True))


class Diagnosis(NamedTuple):
    """Of one frame of each sample: infinite where a forecast is not finite, NaN where it needs points without data."""

    spatial_mean: Float[Tensor, "B component"]
    relative_divergence: Float[Tensor, "B vector"]
    spectrum: Float[Tensor, "B F K"] | None


def grid_of(adapter: DatasetAdapter) -> Grid:
    """The grid on which the coordinates of a data set say that it lies.

    A divergence needs uniform Cartesian axes, called x, y and z, at least two of them: in 1-D it is the gradient
    itself.  Component i of a vector belongs to axis i, unless the components' names end in those of the axes: after
    an underscore, or as the last letter of names that differ in nothing else (vx, vy).
    """
    spec = adapter.spec
    spacing = _spacing(spec, adapter.coordinates)
    wide = {field.name: (i, field.components) for i, field in enumerate(spec.fields)}
    wide = {name: field for name, field in wide.items() if len(field[1]) == len(spec.axes) > 1}
    vectors, left_out = {}, None
    if not wide:
        return Grid(spec, spacing, {}, None)
    if not set(spec.axes) <= set(_CARTESIAN):
        left_out = f"the axes {', '.join(spec.axes)} are not called x, y, z: they may not be Cartesian"
    elif spacing is None or min(spec.spatial_shape[-len(spec.axes) :]) < 3:
        left_out = "the grid is not uniform, or has fewer than three points along an axis"
    else:
        vectors = {
            name: (i, order) for name, (i, components) in wide.items() if (order := _order(components, spec.axes))
        }
        if unordered := wide.keys() - vectors.keys():
            left_out = f"which component of {', '.join(sorted(unordered))} belongs to which axis is not known"
    return Grid(spec, spacing, vectors, left_out)


def diagnose(
    state: State, valid: Bool[Tensor, "B F C D H W"] | None, grid: Grid, with_spectrum: bool = False
) -> Diagnosis:
    """Measure one frame.

    Args:
        state: Physical units.
        valid: Points that hold data; None: all.
        grid: See `grid_of`.
        with_spectrum: Its energy spectrum as well.
    """
    spec = grid.spec
    mask = torch.from_numpy(spec.component_mask).to(state.device)
    means = _infinite_where_lost(spatial_mean(state, valid))
    complete = torch.ones_like(mask).expand(len(state), *mask.shape)
    if valid is not None:
        means = torch.where(valid.flatten(3).any(-1), means, torch.nan)
        complete = valid.flatten(3).all(-1)
    divergences = state.new_zeros(len(state), len(grid.vectors))
    for number, (field, order) in enumerate(grid.vectors.values()):
        assert grid.spacing is not None, "a vector has a divergence"
        found = relative_divergence(state[:, field, list(order)], grid.spacing, spec.boundary)
        whole = complete[:, field, list(order)].all(-1)
        divergences[:, number] = torch.where(whole, _infinite_where_lost(found), torch.nan)
    spectrum = None
    if with_spectrum:
        _, spectrum = energy_spectrum(state, len(spec.axes), mask, grid.lengths)
        whole = (complete | ~mask).all(-1)[..., None]
        spectrum = torch.where(whole, _infinite_where_lost(spectrum), torch.nan).cpu()
    return Diagnosis(means[:, mask].cpu(), divergences.cpu(), spectrum)


def spectrum_leads(steps: int) -> list[int]:
    """Lead steps, counted from 0, whose spectrum is kept: the first, the middle and the last."""
    return sorted({0, (steps - 1) // 2, steps - 1})


def labelled_diagnoses(
    found: Mapping[str, Sequence[Sequence[Diagnosis]]], grid: Grid, lead_time: Float[np.ndarray, "S"]
) -> xr.Dataset:
    """`spatial_mean` (source, trajectory, lead_time, component), `energy_spectrum` (source, spectrum_time, field,
    wavenumber), mean over the trajectories that have one, and, where a vector has a divergence, `relative_divergence`
    (source, trajectory, lead_time, vector).

    Args:
        found: By source, of each batch of trajectories, of each lead time.
        grid: See `grid_of`.
        lead_time: Of the frames.
    """
    spec = grid.spec
    over_leads = ("source", "trajectory", "lead_time")
    means, divergences = (
        _stacked(found, lambda leads, name=name: torch.stack([getattr(one, name) for one in leads], 1))
        for name in ("spatial_mean", "relative_divergence")
    )
    spectra = _stacked(found, lambda leads: torch.stack([one.spectrum for one in leads if one.spectrum is not None], 1))
    known = "in units of the fundamental of the longest axis"
    variables: dict[str, Any] = {
        "spatial_mean": (
            (*over_leads, "component"),
            means,
            {
                "long_name": "mean over space; its drift is an error where the quantity is conserved",
                "formula": "<u>, over the points that hold data",
                "units": "unit of the field",
            },
        ),
        "energy_spectrum": (
            ("source", "trajectory", "spectrum_time", "field", "wavenumber"),
            spectra,
            {
                "long_name": "isotropic energy spectrum, mean over trajectories",
                "formula": "sum over components and over k with K - 1/2 <= |k| < K + 1/2 of |F(u)_k|^2 / N^2",
                "units": "square of the unit of the field",
            },
        ),
    }
    coords = {
        "source": list(found),
        "lead_time": lead_time,
        "component": [component for field in spec.fields for component in field.components],
        "field": [field.name for field in spec.fields],
        "spectrum_time": (
            "spectrum_time",
            lead_time[spectrum_leads(len(lead_time))],
            {"long_name": "lead time of the spectra", "units": "unit of time of the data set"},
        ),
        "wavenumber": (
            "wavenumber",
            np.arange(spectra.shape[-1]),
            {"long_name": f"|k| {known}" if grid.lengths else f"|k| {known}, as if the points were evenly spaced"},
        ),
    }
    if grid.vectors:
        variables["relative_divergence"] = (
            (*over_leads, "vector"),
            divergences,
            {
                "long_name": "divergence over gradient; 0 for a solenoidal field",
                "formula": "sqrt(<(div u)^2>) / sqrt(<sum_ij (du_j / dx_i)^2>)",
                "units": "1",
            },
        )
        coords["vector"] = list(grid.vectors)
    labelled = xr.Dataset(variables, coords)
    spectrum = labelled.energy_spectrum.astype(np.float64)  # of a forecast that explodes, sums overflow before means do
    # Not mean(skipna): a mean over nothing is to be NaN without a warning.
    labelled["energy_spectrum"] = (spectrum.fillna(0).sum("trajectory") / spectrum.count("trajectory")).assign_attrs(
        spectrum.attrs
    )
    if grid.left_out:
        labelled.attrs["no_divergence"] = grid.left_out
    return labelled


def _stacked(found: Mapping[str, Sequence[Sequence[Diagnosis]]], of_batch: Any) -> np.ndarray:
    return np.stack([torch.cat([of_batch(leads) for leads in batches]).numpy() for batches in found.values()])


def _infinite_where_lost(values: Tensor) -> Tensor:
    return torch.where(torch.isfinite(values), values, torch.inf)


def _spacing(spec: DatasetSpec, coordinates: Mapping[str, np.ndarray]) -> tuple[float, ...] | None:
    """None where the points of an axis are not evenly spaced, up to the rounding of coordinates in single precision."""
    spacing = []
    for axis in spec.axes:
        steps = np.diff(np.asarray(coordinates[axis], dtype=np.float64))
        if not len(steps) or not np.isfinite(steps).all() or not steps.mean():
            return None
        if np.abs(steps - steps.mean()).max() > 1e-3 * abs(steps.mean()):
            return None
        spacing.append(float(steps.mean()))
    return tuple(spacing)


def _order(components: tuple[str, ...], axes: tuple[str, ...]) -> tuple[int, ...]:
    """Which component belongs to each axis; () where that is not known."""
    ends = [component.lower().rsplit("_", 1)[-1] for component in components]
    if len({component.lower()[:-1] for component in components}) == 1:
        ends = [component.lower()[-1] for component in components]
    if set(ends) == set(axes):
        return tuple(ends.index(axis) for axis in axes)
    # Names that say nothing: (u, v) on (x, y), but on (y, x) they may go either way.
    named = any(end in _CARTESIAN for end in ends)
    return tuple(range(len(axes))) if not named and axes == tuple(sorted(axes)) else ()
