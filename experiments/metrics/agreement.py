"""How far the metrics are from other implementations of them: The Well's, torchmetrics', and their written definitions.

    python -m experiments.metrics.agreement            # seconds

Fields of noise around 3 in 1-D, 2-D and 3-D, in double precision, several samples and fields.  A difference is divided
by the largest value of the reference.  Where a reference defines a quantity otherwise, the exact factor between the two
stands in its name, and it is the difference after that which is shown.
"""

from collections.abc import Callable, Iterator
from itertools import product
from math import floor, prod, sqrt

import torch
from the_well.benchmark import metrics as well
from the_well.data.datasets import WellMetadata
from torch import Tensor
from torchmetrics.functional import regression

from morph import metrics

__all__ = ["GRIDS", "differences", "pairs", "table"]

GRIDS = ((16,), (128,), (27,), (16, 16), (26, 30), (32, 24), (8, 8, 8), (26, 12, 30))
"""Some with wavenumbers on the edges of bands, some odd, some with unequal axes."""

SAMPLES, FIELDS, MEMBERS = 2, 2, 5


def pairs(grid: tuple[int, ...]) -> Iterator[tuple[str, str, Tensor, Tensor]]:
    """(metric, reference, ours, theirs) on one grid."""
    full = (*[1] * (3 - len(grid)), *grid)
    generator = torch.Generator().manual_seed(len(grid))
    u, v = (3 + torch.randn(SAMPLES, FIELDS, 1, *full, generator=generator, dtype=torch.float64) for _ in range(2))
    yield from _the_well(u, v, grid)
    yield from _torchmetrics(u, v, generator)
    yield from _definitions(u, v, grid)


def _the_well(u: Tensor, v: Tensor, grid: tuple[int, ...]) -> Iterator[tuple[str, str, Tensor, Tensor]]:
    meta = WellMetadata(
        dataset_name="", n_spatial_dims=len(grid), spatial_resolution=grid, scalar_names=[], constant_scalar_names=[],
        field_names={}, constant_field_names={}, boundary_condition_types=[], n_files=1, n_trajectories_per_file=[1],
        n_steps_per_trajectory=[1],
    )  # fmt: skip
    last = [state[:, :, 0].reshape(SAMPLES, FIELDS, *grid).movedim(1, -1) for state in (u, v)]
    points = prod(grid)
    for name, theirs in {
        "vrmse": well.VRMSE, "nrmse": well.NRMSE, "rmse": well.RMSE, "mae": well.MAE, "mse": well.MSE,
        "linf": well.LInfinity,
    }.items():  # fmt: skip
        yield name, f"the_well {theirs.__name__}", getattr(metrics, name)(u, v), theirs.eval(*last, meta)
    yield "relative_l1", "the_well NMAE (+ 1e-7)", metrics.relative_l1(u, v), well.NMAE.eval(*last, meta)
    correlation = well.PearsonR.eval(*last, meta) * points / (points - 1)
    yield "pearson", "the_well PearsonR × N / (N - 1)", metrics.pearson(u, v), correlation
    bands = well.binned_spectral_mse.eval(*last, meta)
    for normalise, key in ((False, "mse"), (True, "nmse")):
        theirs = torch.stack([bands[f"spectral_error_{key}_per_bin_{i}"] for i in range(3)], -1)
        name = "spectral_error" + (", normalise" if normalise else "")
        yield name, f"the_well binned_spectral_mse, {key}", metrics.spectral_error(u, v, normalise=normalise), theirs


def _torchmetrics(u: Tensor, v: Tensor, generator: torch.Generator) -> Iterator[tuple[str, str, Tensor, Tensor]]:
    points = u[0, 0].numel()

    def each(function: Callable[..., Tensor], **options: object) -> Tensor:
        found = [
            function(a.flatten(), b.flatten(), **options) for a, b in zip(u.flatten(0, 1), v.flatten(0, 1), strict=True)
        ]
        return torch.stack(found).view(SAMPLES, FIELDS)

    name = "torchmetrics"
    yield "mse", f"{name} MeanSquaredError", metrics.mse(u, v), each(regression.mean_squared_error)
    yield (
        "rmse",
        f"{name} MeanSquaredError, root",
        metrics.rmse(u, v),
        each(regression.mean_squared_error, squared=False),
    )
    yield "mae", f"{name} MeanAbsoluteError", metrics.mae(u, v), each(regression.mean_absolute_error)
    yield "pearson", f"{name} PearsonCorrCoef", metrics.pearson(u, v), each(regression.pearson_corrcoef)
    relative = each(regression.weighted_mean_absolute_percentage_error)
    yield "relative_l1", f"{name} WeightedMeanAbsolutePercentageError", metrics.relative_l1(u, v), relative
    norm = each(regression.normalized_root_mean_squared_error, normalization="l2") * sqrt(points)
    yield "relative_l2", f"{name} NormalizedRootMeanSquaredError(l2) × √N", metrics.relative_l2(u, v), norm
    unexplained = (each(regression.relative_squared_error) * (points - 1) / points).sqrt()
    yield "vrmse", f"√({name} RelativeSquaredError × (N - 1) / N)", metrics.vrmse(u, v), unexplained
    # Fields stand in for times: all of a trajectory is one sample.
    pooled = [(a.flatten(), b.flatten()) for a, b in zip(u, v, strict=True)]
    variance = torch.stack([regression.relative_squared_error(a, b) for a, b in pooled]).sqrt()
    yield (
        "pooled_vrmse",
        f"√({name} RelativeSquaredError), all fields",
        metrics.pooled_vrmse(u[:, None], v[:, None]),
        variance,
    )
    square = torch.stack([regression.normalized_root_mean_squared_error(a, b, "l2") for a, b in pooled])
    square = square * sqrt(FIELDS * points)
    reference = f"{name} NormalizedRootMeanSquaredError(l2) × √N, all fields"
    yield "pooled_nrmse", reference, metrics.pooled_nrmse(u[:, None], v[:, None]), square
    members = 3 + torch.randn(MEMBERS, *u.shape, generator=generator, dtype=torch.float64)
    plain = torch.stack(
        [
            regression.continuous_ranked_probability_score(members[:, b, f].flatten(1).T, v[b, f].flatten())
            for b, f in product(range(SAMPLES), range(FIELDS))
        ]
    ).view(SAMPLES, FIELDS)
    absolute = torch.stack([metrics.mae(member, v) for member in members]).mean(0)
    fair = absolute - (absolute - plain) * MEMBERS / (MEMBERS - 1)
    yield "crps", f"{name} ContinuousRankedProbabilityScore, M² -> M (M - 1)", metrics.crps(members, v), fair


def _definitions(u: Tensor, v: Tensor, grid: tuple[int, ...]) -> Iterator[tuple[str, str, Tensor, Tensor]]:
    """What no installed library has, written out point by point and mode by mode."""
    error = (u - v)[:, :, 0].reshape(SAMPLES, FIELDS, *grid)
    points, shortest = prod(grid), min(grid)
    faces = [
        error[(..., *place)]
        for place in product(*map(range, grid))
        for i, size in zip(place, grid, strict=True)
        for end in (0, size - 1)
        if i == end
    ]
    boundary = torch.stack(faces).square().mean(0).sqrt()
    yield "boundary_rmse", "PDEBench bRMSE, as defined", metrics.boundary_rmse(u, v), boundary
    conserved = (u.sum((2, 3, 4, 5)) - v.sum((2, 3, 4, 5))).abs() / points
    yield "conserved_rmse", "PDEBench cRMSE, as defined", metrics.conserved_rmse(u, v), conserved
    modes = torch.fft.fftn(error, dim=tuple(range(2, 2 + len(grid))))
    shells = torch.zeros(SAMPLES, FIELDS, grid[0] // 2 + 1 if len(grid) == 1 else shortest // 2, dtype=torch.float64)
    for k in product(*(range(shells.shape[-1]) if len(grid) == 1 else range(size // 2) for size in grid)):
        shell = floor(sqrt(sum(i**2 for i in k)))
        if shell < shells.shape[-1]:
            shells[..., shell] += modes[(..., *k)].abs() ** 2
    amplitude = shells.sqrt() / points
    for name, band in (("low", slice(0, 4)), ("mid", slice(4, 12)), ("high", slice(12, None))):
        if amplitude[..., band].numel():
            ours = getattr(metrics, f"fourier_{name}")(u, v)
            yield f"fourier_{name}", f"PDEBench fRMSE {name}, as defined", ours, amplitude[..., band].mean(-1)
    _, spectrum = metrics.energy_spectrum(u, len(grid))
    modes = torch.fft.fftn(u[:, :, 0].reshape(SAMPLES, FIELDS, *grid), dim=tuple(range(2, 2 + len(grid)))) / points
    radial = torch.zeros_like(spectrum)
    for place in product(*map(range, grid)):
        signed = (i if 2 * i <= size else i - size for i, size in zip(place, grid, strict=True))
        k = sqrt(sum((i * max(grid) / size) ** 2 for i, size in zip(signed, grid, strict=True)))
        radial[..., floor(k + 0.5)] += modes[(..., *place)].abs() ** 2
    yield "energy_spectrum", "definition, mode by mode", spectrum, radial


def differences() -> dict[tuple[str, str], float]:
    """Largest difference over all grids, by metric and reference."""
    found: dict[tuple[str, str], float] = {}
    for grid in GRIDS:
        for name, reference, ours, theirs in pairs(grid):
            assert ours.shape == theirs.shape, (name, reference, ours.shape, theirs.shape)
            difference = ((ours - theirs).abs().max() / theirs.abs().max()).item()
            found[name, reference] = max(difference, found.get((name, reference), 0.0))
    return found


def table() -> str:
    """Of `differences`, in Markdown."""
    lines = ["| metric | reference | largest difference |", "|---|---|---|"]
    lines += [f"| {name} | {reference} | {size:.0e} |" for (name, reference), size in sorted(differences().items())]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
