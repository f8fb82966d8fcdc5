"""Quantities that the equations conserve or constrain, whatever the truth does."""

from collections.abc import Sequence
from math import pi

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from morph.layout import Boundary, State
from morph.metrics.averages import mean

__all__ = ["divergence", "mean_drift", "relative_divergence", "spatial_mean"]


def spatial_mean(state: State, valid: Bool[Tensor, "B F C D H W"] | None = None) -> Float[Tensor, "B F C"]:
    """<u> of each component, over the valid points, in double precision: the drift of a conserved mean is a small
    difference of large numbers.  NaN where there is no valid point.

    On a uniform grid with periodic axes it is the conserved quantity of du/dt + div f(u) = 0 over the domain's volume.
    """
    return mean(state.double(), valid)


def mean_drift(
    state: State, initial: State, valid: Bool[Tensor, "B F C D H W"] | None = None
) -> Float[Tensor, "B F C"]:
    """<u(t)> - <u(0)>, in the unit of the field; 0 for a conserved quantity."""
    return spatial_mean(state, valid) - spatial_mean(initial, valid)


def divergence(
    vector: Float[Tensor, "B C D H W"], spacing: Sequence[float], boundary: Sequence[Boundary]
) -> Float[Tensor, "B D H W"]:
    """div u = sum_i du_i / dx_i on a uniform grid.

    Component i belongs to spatial axis i; there are as many components as axes, the last ones of D, H, W.  Along a
    periodic axis the derivative is that of the trigonometric interpolant, exact up to the Nyquist wavenumber, whose own
    is 0; along another it is a central difference of second order, one-sided of second order at the ends.

    Args:
        spacing: Distance of two points along each axis.
        boundary: Boundary condition on D, H and W.

    Raises:
        ValueError: The lengths do not go together.
    """
    axes = _axes(vector, spacing, boundary)
    parts = [
        _derivative(vector[:, i], axis, step, kind) for i, (axis, step, kind) in enumerate(zip(*axes, strict=True))
    ]
    return torch.stack(parts).sum(0)


def relative_divergence(
    vector: Float[Tensor, "B C D H W"], spacing: Sequence[float], boundary: Sequence[Boundary]
) -> Float[Tensor, "B"]:
    """sqrt(<(div u)^2>) / sqrt(<sum_ij (du_j / dx_i)^2>), 0 for a solenoidal field and for a uniform one, at most
    sqrt(d) on d axes; derivatives and arguments as `divergence`.

    A field counts as uniform where its gradient is within the rounding of its derivatives: at most 8 epsilon |u| / dx
    on each axis, root mean squares, with epsilon of the precision of the field.

    Raises:
        ValueError: As `divergence`.
    """
    axes = _axes(vector, spacing, boundary)
    total = torch.zeros_like(vector[:, 0])
    square = vector.new_zeros(vector.shape[0])
    for i, (axis, step, kind) in enumerate(zip(*axes, strict=True)):
        slope = _derivative(vector, axis, step, kind)
        total = total + slope[:, i]
        square = square + slope.square().sum(1).flatten(1).mean(1)
    found = total.square().flatten(1).mean(1)
    size = vector.square().sum(1).flatten(1).mean(1).sqrt()
    rounding = 8 * torch.finfo(vector.dtype).eps * size * sum(step**-2 for step in spacing) ** 0.5
    # Of a field that overflows nothing is known: that must not pass for a uniform one.
    uniform = (square.sqrt() <= rounding) & rounding.isfinite()
    return torch.where(uniform, 0.0, (found / square).sqrt())


def _axes(
    vector: Float[Tensor, "B C D H W"], spacing: Sequence[float], boundary: Sequence[Boundary]
) -> tuple[range, Sequence[float], Sequence[Boundary]]:
    count = vector.shape[1]
    if len(spacing) != count or len(boundary) != 3 or any(size > 1 for size in vector.shape[2 : 5 - count]):
        raise ValueError(
            f"divergence: expected one component and spacing per spatial axis and a boundary of D, H and W, found "
            f"{count} components, {len(spacing)} spacings and {len(boundary)} boundaries on {tuple(vector.shape[2:])}"
        )
    return range(-count, 0), spacing, boundary[3 - count :]


def _derivative(values: Tensor, axis: int, spacing: float, boundary: Boundary) -> Tensor:
    size = values.shape[axis]
    if boundary != "periodic":
        (slope,) = torch.gradient(values, spacing=spacing, dim=axis, edge_order=2 if size > 2 else 1)
        return slope
    wavenumber = 2 * pi * torch.fft.rfftfreq(size, spacing, device=values.device, dtype=values.dtype)
    if size % 2 == 0:
        wavenumber[-1] = 0
    shape = [1] * values.ndim
    shape[axis] = len(wavenumber)
    return torch.fft.irfft(torch.fft.rfft(values, dim=axis) * (1j * wavenumber).view(shape), n=size, dim=axis)
