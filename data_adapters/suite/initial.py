"""Random parameters and smooth random initial conditions on a periodic grid; nothing here needs JAX.

A state has exponax's layout, (C, N, ...): conserved variables for the conservation laws, vorticity for ns2d.
"""

from collections.abc import Callable, Mapping
from zlib import crc32

import numpy as np
from jaxtyping import Float

from data_adapters.suite.systems import GAMMA, SPLITS, Range, System

__all__ = ["draw", "draw_parameters", "fourier_series", "solenoidal"]

Parameters = Mapping[str, float]
Initial = Callable[[np.random.Generator, tuple[int, ...], Parameters], np.ndarray]


def draw(
    system: System, level: str, seed: int, split: str, trajectory: int
) -> tuple[dict[str, float], Float[np.ndarray, "C *N"]]:
    """Parameters and initial state of one trajectory.

    They follow from the arguments alone, in every process, and do not depend on how many trajectories there are.
    """
    rng = _generator(system, seed, split, trajectory)
    parameters = _parameters(rng, system.ranges(level))
    shape = (system.levels[level].num_points,) * system.num_dims
    return parameters, _INITIAL[system.name](rng, shape, parameters)


def draw_parameters(system: System, level: str, seed: int, split: str, trajectory: int) -> dict[str, float]:
    """What `draw` gives, without the state."""
    return _parameters(_generator(system, seed, split, trajectory), system.ranges(level))


def _generator(system: System, seed: int, split: str, trajectory: int) -> np.random.Generator:
    return np.random.default_rng([seed, crc32(system.name.encode()), SPLITS.index(split), trajectory])


def _parameters(rng: np.random.Generator, ranges: Mapping[str, Range]) -> dict[str, float]:
    parameters = {}
    for name, interval in ranges.items():
        fraction = rng.uniform()
        if interval.logarithmic:
            parameters[name] = float(interval.low * (interval.high / interval.low) ** fraction)
        else:
            parameters[name] = float(interval.low + (interval.high - interval.low) * fraction)
    return parameters


def fourier_series(
    rng: np.random.Generator, num_channels: int, shape: tuple[int, ...], cutoff: int, *, std_one: bool = False
) -> Float[np.ndarray, "C *N"]:
    """Independent real Fourier series of zero mean with normal coefficients: the same functions on any grid.

    Args:
        rng: Source of randomness.
        num_channels: How many series, C.
        shape: Grid points along each axis, more than 2 * cutoff.
        cutoff: Largest wavenumber along each axis.
        std_one: Scale each series to a standard deviation of 1 instead of a largest absolute value of 1.
    """
    num_dims, num_modes = len(shape), 2 * cutoff + 1
    axes = tuple(range(1, num_dims + 1))
    # White noise on the coarsest grid that carries these modes, interpolated to the grid wanted.
    coarse = np.fft.fftn(rng.standard_normal((num_channels, *(num_modes,) * num_dims)), axes=axes)
    coarse.reshape(num_channels, -1)[:, 0] = 0
    waves = np.rint(np.fft.fftfreq(num_modes) * num_modes).astype(int)
    spectrum = np.zeros((num_channels, *shape), complex)
    modes = np.ix_(np.arange(num_channels), *(waves,) * num_dims)
    spectrum[modes] = coarse
    series = np.fft.ifftn(spectrum, axes=axes).real
    scale = series.std(axis=axes, keepdims=True) if std_one else np.abs(series).max(axis=axes, keepdims=True)
    return series / scale


def solenoidal(vector: Float[np.ndarray, "D *N"]) -> Float[np.ndarray, "D *N"]:
    """Take out the gradient part of a vector field on a cube, so that div v = 0 (Helmholtz decomposition)."""
    axes = tuple(range(1, vector.ndim))
    waves = np.stack(np.meshgrid(*(np.fft.fftfreq(size) for size in vector.shape[1:]), indexing="ij"))
    spectrum = np.fft.fftn(vector, axes=axes)
    squared = np.sum(waves**2, axis=0)
    along = np.sum(waves * spectrum, axis=0) / np.where(squared == 0, 1, squared)
    return np.fft.ifftn(spectrum - waves * along, axes=axes).real


def _compressible(amplitude: float) -> Initial:
    def initial(rng: np.random.Generator, shape: tuple[int, ...], parameters: Parameters) -> np.ndarray:
        series = fourier_series(rng, 2 + len(shape), shape, 3)
        density, pressure, velocity = 1 + 0.3 * series[0], 1 + 0.3 * series[1], amplitude * series[2:]
        energy = pressure / (GAMMA - 1) + 0.5 * density * np.sum(velocity**2, axis=0)
        return np.concatenate([density[None], density * velocity, energy[None]])

    return initial


def _shallow_water(rng: np.random.Generator, shape: tuple[int, ...], parameters: Parameters) -> np.ndarray:
    series = fourier_series(rng, 3, shape, 3)
    height = 1 + 0.3 * series[:1]
    return np.concatenate([height, height * 0.1 * series[1:]])


def _magnetohydrodynamics(rng: np.random.Generator, shape: tuple[int, ...], parameters: Parameters) -> np.ndarray:
    series = fourier_series(rng, 7, shape, 3)
    density, magnetic = 1 + 0.1 * series[:1], solenoidal(0.3 * series[4:])
    magnetic[0] += parameters["mean_field"]
    return np.concatenate([density, density * 0.4 * series[1:4], magnetic])


def _fitzhugh_nagumo(rng: np.random.Generator, shape: tuple[int, ...], parameters: Parameters) -> np.ndarray:
    # The cube is dealiased to a quarter of the grid points: a coarse grid carries fewer modes than eight.
    return fourier_series(rng, 2, shape, min(8, shape[0] // 4 - 1), std_one=True)


def _gray_scott(rng: np.random.Generator, shape: tuple[int, ...], parameters: Parameters) -> np.ndarray:
    blobs = 1 / (1 + np.exp(-10 * (fourier_series(rng, 1, shape, 5)[0] - 0.3)))
    return np.stack([1 - 0.5 * blobs, 0.25 * blobs])


def _fisher(rng: np.random.Generator, shape: tuple[int, ...], parameters: Parameters) -> np.ndarray:
    return np.clip(0.5 + 0.5 * fourier_series(rng, 1, shape, 6), 0, 1) ** 2


def _burgers(rng: np.random.Generator, shape: tuple[int, ...], parameters: Parameters) -> np.ndarray:
    return fourier_series(rng, 1, shape, 5)


def _incompressible_2d(rng: np.random.Generator, shape: tuple[int, ...], parameters: Parameters) -> np.ndarray:
    return 5 * fourier_series(rng, 1, shape, 5)


def _incompressible_3d(rng: np.random.Generator, shape: tuple[int, ...], parameters: Parameters) -> np.ndarray:
    x, y, z = np.meshgrid(*(2 * np.pi * np.arange(size) / size for size in shape), indexing="ij")
    taylor_green = np.stack([np.sin(x) * np.cos(y) * np.cos(z), -np.cos(x) * np.sin(y) * np.cos(z), np.zeros(shape)])
    return taylor_green + solenoidal(0.3 * fourier_series(rng, 3, shape, 3))


_INITIAL: Mapping[str, Initial] = {
    "cfd1d": _compressible(0.4),
    "dr2d": _fitzhugh_nagumo,
    "swe2d": _shallow_water,
    "ns2d": _incompressible_2d,
    "mhd3d": _magnetohydrodynamics,
    "cfd3d": _compressible(0.3),
    "dr1d": _fisher,
    "burgers1d": _burgers,
    "gs2d": _gray_scott,
    "ns3d": _incompressible_3d,
}
