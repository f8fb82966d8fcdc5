"""What a simulated trajectory must satisfy before it is written: finite values, conserved means, no divergence.

A spectral solver that blows up does so silently; a drifting mean or a divergence shows a fault in an equation.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from data_adapters.suite.systems import GAMMA, System

__all__ = ["TOLERANCE", "check", "divergence", "drift"]

# Of the quantity's root mean square.  Single precision leaves about 1e-6.
TOLERANCE = 1e-4

Fields = Mapping[str, Float[np.ndarray, "T ..."]]


def _compressible(fields: Fields) -> dict[str, np.ndarray]:
    density, velocity = fields["density"], fields["velocity"]
    energy = fields["pressure"] / (GAMMA - 1) + 0.5 * density * np.sum(velocity**2, axis=-1)
    return {"mass": density, "momentum": density[..., None] * velocity, "energy": energy}


def _shallow_water(fields: Fields) -> dict[str, np.ndarray]:
    return {"mass": fields["height"], "momentum": fields["height"][..., None] * fields["velocity"]}


def _magnetohydrodynamics(fields: Fields) -> dict[str, np.ndarray]:
    momentum = fields["density"][..., None] * fields["velocity"]
    return {"mass": fields["density"], "momentum": momentum, "magnetic_field": fields["magnetic_field"]}


# The reaction-diffusion systems conserve nothing.
_CONSERVED: Mapping[str, Callable[[Fields], dict[str, np.ndarray]]] = {
    "cfd1d": _compressible,
    "cfd3d": _compressible,
    "swe2d": _shallow_water,
    "mhd3d": _magnetohydrodynamics,
    "ns2d": lambda fields: {"velocity": fields["velocity"]},
    "ns3d": lambda fields: {"velocity": fields["velocity"]},
    "burgers1d": lambda fields: {"u": fields["u"]},
}


def drift(system: System, fields: Fields) -> dict[str, float]:
    """Largest change of the spatial mean of each conserved quantity, over the quantity's root mean square."""
    conserved = _CONSERVED.get(system.name, lambda _: {})({k: np.asarray(v, np.float64) for k, v in fields.items()})
    found = {}
    for name, values in conserved.items():
        means = values.mean(axis=tuple(range(1, 1 + system.num_dims)))
        found[name] = float(np.abs(means - means[0]).max() / np.sqrt(np.mean(values**2)))
    return found


def divergence(vector: Float[np.ndarray, "T *N D"]) -> float:
    """Root mean square of the spectral divergence over that of the gradient; the length of the domain cancels."""
    num_dims = vector.shape[-1]
    axes = tuple(range(1, 1 + num_dims))
    waves = np.meshgrid(*(np.fft.fftfreq(size) for size in vector.shape[1:-1]), indexing="ij", sparse=True)
    spectrum = np.fft.fftn(np.asarray(vector, np.float64), axes=axes)
    total = np.sum([np.abs(wave[..., None] * spectrum) ** 2 for wave in waves])
    summed = sum(wave * spectrum[..., axis] for axis, wave in enumerate(waves))
    return float(np.sqrt(np.sum(np.abs(summed) ** 2) / total)) if total else 0.0


def check(system: System, split: str, trajectory: int, fields: Fields, parameters: Mapping[str, float]) -> None:
    """Accept one trajectory, or say what is wrong with it.

    Args:
        system: What was simulated.
        split: Split that the trajectory belongs to.
        trajectory: Its number in the split.
        fields: Name -> (T, N, ...), vectors with their components last.
        parameters: Name -> value.

    Raises:
        ValueError: A value is not finite, a conserved mean drifts, or a solenoidal field has a divergence.
    """
    values = ", ".join(f"{name} {float(value):.6g}" for name, value in parameters.items())
    where = f"{system.name}: split {split}, trajectory {trajectory} ({values})"
    for name, array in fields.items():
        finite = np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
        if not finite.all():
            raise ValueError(
                f"{where}: {name} is not finite from frame {int(np.argmin(finite))} on; nothing is written"
            )
    for name, found in drift(system, fields).items():
        if not found <= TOLERANCE:
            raise ValueError(
                f"{where}: the mean of {name} is conserved, but drifts by {found:.1e} of its root mean square "
                f"(tolerance {TOLERANCE:.0e}); nothing is written"
            )
    for name in system.solenoidal:
        found = divergence(fields[name])
        if not found <= TOLERANCE:
            raise ValueError(
                f"{where}: {name} is free of divergence, but has one of {found:.1e} of its gradient "
                f"(tolerance {TOLERANCE:.0e}); nothing is written"
            )
