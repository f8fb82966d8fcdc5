"""The errors that PDEBench adds to the usual ones (arXiv 2210.07182, appendix B; github.com/pdebench/PDEBench).

Its RMSE is `rmse`, its maximum error `linf`.  Its figures are means (`conserved_rmse`: root mean squares; Fourier
bands: means of the roots of mean squares) over a batch of samples; here each sample and field has its own, equal to
PDEBench's for a batch of one sample, and the error of a vector is the mean over its components.

With `valid`, `boundary_rmse` and the Fourier bands are NaN for a field that lacks points: they are not defined on a
part of the grid.
"""

from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from morph.layout import State
from morph.metrics.averages import mean, num_axes, over_components, where_complete
from morph.metrics.pointwise import relative_l2

__all__ = [
    "boundary_rmse",
    "conserved_rmse",
    "fourier_bands",
    "fourier_high",
    "fourier_low",
    "fourier_mid",
    "pdebench_nrmse",
]

_BANDS = (0, 4, 12)
"""First wavenumber of each band, low, middle and high."""


def pdebench_nrmse(
    prediction: State,
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F"]:
    """sqrt(<(u - v)^2>) / sqrt(<v^2>), without the constant that The Well's `nrmse` has: `relative_l2` (PDEBench,
    nRMSE)."""
    return relative_l2(prediction, target, component_mask, valid)


def conserved_rmse(
    prediction: State,
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F"]:
    """|<u> - <v>|, the error of the mean over space, in the unit of the field (PDEBench, cRMSE)."""
    return over_components((mean(prediction, valid) - mean(target, valid)).abs(), component_mask, valid)


def boundary_rmse(
    prediction: State,
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F"]:
    """sqrt(<(u - v)^2>) over the first and last points of every axis, in the unit of the field (PDEBench, bRMSE).

    A point of two faces counts for each.  In 3-D, PDEBench's code sums over all channels; here each component has its
    own.  NaN on a single point.
    """
    square = (prediction - target).square()
    faces = [square.select(axis, end).flatten(3) for axis in (-3, -2, -1) if square.shape[axis] > 1 for end in (0, -1)]
    if not faces:
        return prediction.new_full(prediction.shape[:2], torch.nan)
    errors = torch.cat(faces, -1).mean(-1).sqrt()
    return where_complete(over_components(errors, component_mask, None), component_mask, valid)


def fourier_low(
    prediction: State,
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F"]:
    """The first of `fourier_bands`, wavenumbers 0 to 3 (PDEBench, fRMSE low)."""
    return fourier_bands(prediction, target, component_mask, valid)[..., 0]


def fourier_mid(
    prediction: State,
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F"]:
    """The second of `fourier_bands`, wavenumbers 4 to 11 (PDEBench, fRMSE mid)."""
    return fourier_bands(prediction, target, component_mask, valid)[..., 1]


def fourier_high(
    prediction: State,
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F"]:
    """The third of `fourier_bands`, wavenumbers from 12 (PDEBench, fRMSE high)."""
    return fourier_bands(prediction, target, component_mask, valid)[..., 2]


def fourier_bands(
    prediction: State,
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
) -> Float[Tensor, "B F band"]:
    """Errors of low, middle and high wavenumbers, in the unit of the field on a domain of volume 1 (PDEBench, fRMSE):

        mean over wavenumbers K of the band of   sqrt( sum over k with floor(|k|) = K of |F(u - v)_k|^2 ) / N,

    with F the discrete Fourier transform without a factor, N the number of points and k counted per axis in its own
    fundamental.  In 1-D, K runs from 0 to the Nyquist wavenumber; in 2-D and 3-D, k has no negative part and each K is
    below half of the shortest axis.  A band without a wavenumber, that of a coarse grid, is NaN.
    """
    error = prediction - target
    axes = num_axes(error)
    shape = tuple(error.shape[-axes:])
    spectrum = torch.fft.rfftn(error, dim=tuple(range(-axes, 0)))
    if axes > 1:
        for axis, size in zip(range(-axes, 0), shape, strict=True):
            spectrum = spectrum.narrow(axis, 0, size // 2)
    power = spectrum.abs().square().flatten(3)
    if axes > 1:
        kept, shell, num_shells = _shells(shape, power.device)
        binned = power.new_zeros(*power.shape[:-1], num_shells)
        power = binned.index_add_(-1, shell, power[..., kept])
    amplitude = power.sqrt() / error[0, 0, 0].numel()
    ends = (*_BANDS[1:], amplitude.shape[-1])
    bands = torch.stack([amplitude[..., start:end].mean(-1) for start, end in zip(_BANDS, ends, strict=True)], -1)
    if component_mask is None:
        errors = bands.mean(-2)
    else:
        mask = component_mask[..., None]
        errors = torch.where(mask, bands, 0.0).sum(-2) / mask.sum(-2)
    return where_complete(errors, component_mask, valid)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _shells(shape: tuple[int, ...], device: torch.device) -> tuple[Int[Tensor, "mode"], Int[Tensor, "mode"], int]:
    """Which modes count, the shell that each belongs to, and how many shells there are."""
    halves = [torch.arange(size // 2) for size in shape]
    squares = torch.stack(torch.meshgrid(*halves, indexing="ij")).square().sum(0).flatten()
    shell = squares.double().sqrt().floor().long()
    num_shells = min(shape) // 2
    (kept,) = torch.where(shell < num_shells)
    return kept.to(device), shell[kept].to(device), num_shells
