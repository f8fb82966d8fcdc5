"""Where in the spectrum the energy is, and the error.

A spectrum is a sum over the discrete Fourier modes of the whole grid, so a field that lacks points has none.  An axis
is taken as periodic; where the domain is not, its jump at the ends shows at high wavenumbers.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import log10, pi, sqrt

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from morph.layout import State
from morph.metrics.averages import num_axes, where_complete

__all__ = ["energy_ratio", "energy_spectrum", "spectral_error"]


def energy_spectrum(
    state: State,
    axes: int,
    component_mask: Bool[Tensor, "F C"] | None = None,
    lengths: Sequence[float] | None = None,
) -> tuple[Float[Tensor, "K"], Float[Tensor, "B F K"]]:
    """Isotropic spectrum of each field, in the square of its unit:

        E_K = sum over c and over k with K - 1/2 <= |k| < K + 1/2 of |F(u_c)_k|^2 / N^2,

    with F the discrete Fourier transform without a factor and N the number of points.  The components c of a vector are
    added up.  By Parseval's identity the sum over all K is the mean over space of sum_c u_c^2; the square of the mean
    stands at K = 0.  (Half of it is a kinetic energy per mass, where u is a velocity.)

    Args:
        state: Data on `axes` spatial axes, the last ones.
        axes: 1, 2 or 3.
        component_mask: The others count nowhere.
        lengths: Of the domain along each of the axes, without its last cell's end counted twice: points times spacing.
            None: the spacing is the same along all of them.

    Returns:
        Wavenumbers K = 0, 1, ... in units of the fundamental of the longest axis, and the spectrum.

    Raises:
        ValueError: `axes` or `lengths` do not go with the state.
    """
    shape = tuple(state.shape[-axes:])
    if axes not in (1, 2, 3) or any(size > 1 for size in state.shape[3 : 6 - axes]):
        raise ValueError(f"axes: expected the number of spatial axes of {tuple(state.shape[3:])}, found {axes}")
    if lengths is not None and (len(lengths) != axes or not min(lengths) > 0):
        raise ValueError(f"lengths: expected {axes} positive numbers, found {list(lengths)}")
    measures = tuple(float(size) for size in shape) if lengths is None else tuple(float(length) for length in lengths)
    shell, weight, num_shells = _shells(shape, measures, state.device)
    modes = torch.fft.rfftn(state, dim=tuple(range(-axes, 0)), norm="forward")
    power = modes.abs().square().flatten(3) * weight
    if component_mask is not None:
        power = torch.where(component_mask[..., None], power, 0.0)
    power = power.sum(2)
    spectrum = power.new_zeros(*power.shape[:2], num_shells).index_add_(-1, shell, power)
    return torch.arange(num_shells, device=state.device, dtype=state.dtype), spectrum


def energy_ratio(
    prediction: State,
    target: State,
    axes: int,
    component_mask: Bool[Tensor, "F C"] | None = None,
    lengths: Sequence[float] | None = None,
) -> tuple[Float[Tensor, "K"], Float[Tensor, "B F K"]]:
    """`energy_spectrum` of the prediction over that of the truth: below 1 the prediction is too smooth there.

    NaN where the truth has no energy beyond the rounding of its largest modes.

    Raises:
        ValueError: As `energy_spectrum`.
    """
    wavenumber, found = energy_spectrum(prediction, axes, component_mask, lengths)
    _, true = energy_spectrum(target, axes, component_mask, lengths)
    rounding = 10 * torch.finfo(true.dtype).eps ** 2 * true.sum(-1, keepdim=True)
    return wavenumber, torch.where(true > rounding, found / true, torch.nan)


def spectral_error(
    prediction: State,
    target: State,
    component_mask: Bool[Tensor, "F C"] | None = None,
    valid: Bool[Tensor, "B F C D H W"] | None = None,
    normalise: bool = False,
) -> Float[Tensor, "B F band"]:
    """Mean square error of low, middle and high wavenumbers (The Well, binned_spectral_mse, arXiv 2412.00568):

        S_b = sum over k in band b of |F(u - v)_k|^2 / N^2;

    by Parseval's identity the three add up to `mse`.  With d axes of at most n points, |k| runs from 0 to sqrt(d) pi in
    radians per point, and the bands meet at the two points that divide the range from 2 pi / n to there evenly in the
    logarithm.  The error of a vector is the mean over its components.

    Args:
        normalise: S_b / (T_b + 1e-7), with T_b the same sum of the truth.
        valid: A field that lacks points has no spectrum, NaN.
    """
    axes = num_axes(target)
    shape = tuple(target.shape[-axes:])
    band, weight = _bands(shape, target.device)

    def in_bands(state: State) -> Float[Tensor, "B F C band"]:
        modes = torch.fft.rfftn(state, dim=tuple(range(-axes, 0)), norm="forward")
        power = modes.abs().square().flatten(3) * weight
        return power.new_zeros(*power.shape[:-1], 3).index_add_(-1, band, power)

    errors = in_bands(prediction - target)
    if normalise:
        errors = errors / (in_bands(target) + 1e-7)
    if component_mask is None:
        return where_complete(errors.mean(2), None, valid)
    mask = component_mask[..., None]
    return where_complete(torch.where(mask, errors, 0.0).sum(2) / mask.sum(1), component_mask, valid)


def _modes(
    shape: tuple[int, ...], measures: tuple[float, ...], dtype: torch.dtype
) -> tuple[Float[Tensor, "mode"], Float[Tensor, "mode"]]:
    """|k| of every mode of a real transform, in turns per unit of measure, and how many modes of the full transform
    each stands for."""
    *slow, fast = (torch.arange(size, dtype=dtype) for size in shape)
    per_axis = [torch.where(k > (len(k) - 1) // 2, k - len(k), k) for k in slow]
    per_axis.append(fast[: shape[-1] // 2 + 1])
    scaled = [k / measure for k, measure in zip(per_axis, measures, strict=True)]
    squares = torch.stack(torch.meshgrid(*scaled, indexing="ij")).square().sum(0)
    weight = torch.full_like(fast[: shape[-1] // 2 + 1], 2.0)
    weight[0] = 1.0
    if shape[-1] % 2 == 0:
        weight[-1] = 1.0
    return squares.sqrt().flatten(), weight.expand(squares.shape).flatten()


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _shells(
    shape: tuple[int, ...], measures: tuple[float, ...], device: torch.device
) -> tuple[Int[Tensor, "mode"], Float[Tensor, "mode"], int]:
    wavenumber, weight = _modes(shape, tuple(measure / max(measures) for measure in measures), torch.float64)
    # Half a step belongs to the shell above; whole and half numbers come out of the roots exactly.
    shell = (wavenumber + 0.5).floor().long()
    return shell.to(device), weight.float().to(device), int(shell.max()) + 1


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _bands(shape: tuple[int, ...], device: torch.device) -> tuple[Int[Tensor, "mode"], Float[Tensor, "mode"]]:
    wavenumber, weight = _modes(shape, tuple(float(size) for size in shape), torch.float32)
    low, high = log10(2 * pi / max(shape)), log10(pi * sqrt(len(shape)) + 1e-6)
    # In single precision, as there: on grids of 16 or 128 points a mode lies on an edge and rounding decides.
    inner = torch.logspace(low, high, 4)[1:3]
    band = torch.bucketize(2 * pi * wavenumber, inner, right=True)
    return band.to(device), weight.to(device)
