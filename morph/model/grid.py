"""What a grid knows of its neighbours and of its wavenumbers, whatever its boundary.

Distances are counted in points and wavenumbers in radians per point, so that nothing depends on units.  Beyond an open
end or a wall stands the last value again, and for Fourier transforms the mirror image: neither makes a jump.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from morph.layout import Boundary

__all__ = ["Spectrum", "axes_of", "derivatives", "second_derivative"]

Points = Float[Tensor, "B N D H W"]
"""Values at points of space; N are components, or channels of any kind."""
_AXES = (2, 3, 4)


def axes_of(x: Points) -> list[int]:
    """The axes of the tensor along which the data has more than one point."""
    return [axis for axis in _AXES if x.shape[axis] > 1]


def _extend(x: Tensor, axis: int, by: int, boundary: Boundary) -> Tensor:
    """`by` more points at both ends of an axis: around the period, or the last value again."""
    size = x.shape[axis]
    if boundary == "periodic" and size >= by:
        return torch.cat((x.narrow(axis, size - by, by), x, x.narrow(axis, 0, by)), axis)
    index = torch.arange(-by, size + by, device=x.device)
    index = index % size if boundary == "periodic" else index.clamp(0, size - 1)
    return x.index_select(axis, index)


def derivatives(x: Points, axis: int, boundary: Boundary) -> tuple[Points, Points]:
    """First and second derivative along an axis, per point and per point squared.

    Central differences of fourth and second order: (8 (u_1 - u_-1) - (u_2 - u_-2)) / 12 and u_1 - 2 u_0 + u_-1.
    """
    size = x.shape[axis]
    wide = _extend(x, axis, 2, boundary)
    before2, before, after, after2 = (wide.narrow(axis, at, size) for at in (0, 1, 3, 4))
    first = torch.sub(after, before).mul(8 / 12).sub(torch.sub(after2, before2), alpha=1 / 12)
    return first, torch.add(after, before).sub(x, alpha=2)


def second_derivative(x: Points, axis: int, boundary: Boundary) -> Points:
    """The second one of `derivatives`."""
    wide = _extend(x, axis, 1, boundary)
    return torch.add(wide.narrow(axis, 2, x.shape[axis]), wide.narrow(axis, 0, x.shape[axis])).sub(x, alpha=2)


class Spectrum:
    """Fourier transforms of fields on one grid, and the squares of their wavenumbers.

    Args:
        shape: (D, H, W).
        boundary: On D, H and W; an axis that is not periodic is continued by its mirror image.
        device: Of the fields.
    """

    def __init__(self, shape: Sequence[int], boundary: Sequence[Boundary], device: torch.device) -> None:
        self.axes = [axis for axis, size in zip(_AXES, shape, strict=True) if size > 1] or [_AXES[-1]]
        self._sizes = [shape[axis - 2] for axis in self.axes]
        self._mirrored = [boundary[axis - 2] != "periodic" for axis in self.axes]
        self._lengths = [size * (1 + mirror) for size, mirror in zip(self._sizes, self._mirrored, strict=True)]
        self.squares = torch.zeros((), device=device)
        """Of the wavenumber, in radians per point."""
        self.odd: list[Tensor] = []
        """The wavenumber along each axis; 0 where its sign is not known, so that a derivative stays real."""
        for axis, length in zip(self.axes, self._lengths, strict=True):
            frequencies = torch.fft.rfftfreq if axis == self.axes[-1] else torch.fft.fftfreq
            wavenumber = 2 * math.pi * frequencies(length, device=device)
            view = [-1 if each == axis else 1 for each in range(5)]
            self.squares = self.squares + wavenumber.square().view(view)
            known = wavenumber.abs() < math.pi * (1 - 1e-6)
            self.odd.append((wavenumber * known).view(view))

    def forward(self, x: Points) -> Tensor:
        """Coefficients; of the last axis those that are not negative."""
        for axis, mirror in zip(self.axes, self._mirrored, strict=True):
            x = torch.cat((x, x.flip(axis)), axis) if mirror else x
        return torch.fft.rfftn(x, dim=self.axes)

    def inverse(self, coefficients: Tensor) -> Points:
        """Fields with these coefficients."""
        x = torch.fft.irfftn(coefficients, s=self._lengths, dim=self.axes)
        for axis, size, mirror in zip(self.axes, self._sizes, self._mirrored, strict=True):
            x = x.narrow(axis, 0, size) if mirror else x
        return x
