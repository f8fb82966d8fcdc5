"""The numerics of each system: its initial condition, its stepper, and the fields that are stored.

A state has exponax's layout, (C, N, ...): conserved variables for the conservation laws, vorticity for ns2d.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple
from zlib import crc32

import exponax as ex
import jax
import jax.numpy as jnp
from exponax import spectral
from jaxtyping import Array, Float, PRNGKeyArray

from data_adapters.suite.initial import fourier_series, solenoidal, taylor_green
from data_adapters.suite.steppers import (
    GAMMA,
    ConservationLaw,
    FitzHughNagumo,
    compressible_flux,
    magnetohydrodynamic_flux,
    pressure,
    shallow_water_flux,
)
from data_adapters.suite.systems import SPLITS, Range, System

__all__ = ["NUMERICS", "Numerics", "simulate", "trajectory_key", "velocity_from_vorticity"]

Parameters = Mapping[str, Float[Array, ""]]


class Numerics(NamedTuple):
    """How one system is solved.

    initial: (key, grid shape, parameters) -> state at t = 0.
    stepper: (number of axes, extent, grid points, dt, parameters) -> exponax stepper.
    fields: (state, extent) -> name of each field -> its values, (N, ...) of a scalar and (D, N, ...) of a vector.
    """

    initial: Callable[[PRNGKeyArray, tuple[int, ...], Parameters], Array]
    stepper: Callable[[int, float, int, float, Parameters], ex.BaseStepper]
    fields: Callable[[Array, float], dict[str, Array]]


def velocity_from_vorticity(vorticity: Float[Array, "1 N N"], extent: float) -> Float[Array, "2 N N"]:
    """(u, v) = (d psi / dy, -d psi / dx) with lap psi = w, the convention of exponax: w = du/dy - dv/dx.

    This is the negative of the usual vorticity.
    """
    derivative = spectral.build_derivative_operator(2, extent, vorticity.shape[-1])
    laplacian = spectral.build_laplace_operator(derivative)
    stream = jnp.where(laplacian == 0, 0, ex.fft(vorticity) / jnp.where(laplacian == 0, 1, laplacian))
    return ex.ifft(jnp.concatenate([derivative[1:] * stream, -derivative[:1] * stream]), num_points=vorticity.shape[-1])


def _compressible(amplitude: float) -> Numerics:
    def initial(key: PRNGKeyArray, shape: tuple[int, ...], parameters: Parameters) -> Array:
        series = fourier_series(key, 2 + len(shape), shape, 3)
        density, p, velocity = 1 + 0.3 * series[0], 1 + 0.3 * series[1], amplitude * series[2:]
        energy = p / (GAMMA - 1) + 0.5 * density * jnp.sum(velocity**2, axis=0)
        return jnp.concatenate([density[None], density * velocity, energy[None]])

    def stepper(num_dims: int, extent: float, num_points: int, dt: float, parameters: Parameters) -> ex.BaseStepper:
        # About two thirds of the largest diffusivity, gamma nu / Pr / min(rho).
        split = 2 * parameters["viscosity"]
        flux = compressible_flux(parameters["viscosity"], split)
        diffusivity = split * jnp.array([0.0] + [1.0] * (num_dims + 1))
        return ConservationLaw(num_dims, extent, num_points, dt, flux=flux, diffusivity=diffusivity)

    def fields(state: Array, extent: float) -> dict[str, Array]:
        return {"density": state[0], "pressure": pressure(state), "velocity": state[1:-1] / state[0]}

    return Numerics(initial, stepper, fields)


def _shallow_water() -> Numerics:
    def initial(key: PRNGKeyArray, shape: tuple[int, ...], parameters: Parameters) -> Array:
        series = fourier_series(key, 3, shape, 3)
        height = 1 + 0.3 * series[:1]
        return jnp.concatenate([height, height * 0.1 * series[1:]])

    def stepper(num_dims: int, extent: float, num_points: int, dt: float, parameters: Parameters) -> ex.BaseStepper:
        viscosity = parameters["viscosity"]
        flux = shallow_water_flux(viscosity, split=viscosity)
        diffusivity = viscosity * jnp.array([0.0, 1.0, 1.0])
        return ConservationLaw(num_dims, extent, num_points, dt, flux=flux, diffusivity=diffusivity)

    return Numerics(initial, stepper, lambda state, _: {"height": state[0], "velocity": state[1:] / state[0]})


def _magnetohydrodynamics() -> Numerics:
    def initial(key: PRNGKeyArray, shape: tuple[int, ...], parameters: Parameters) -> Array:
        series = fourier_series(key, 7, shape, 3)
        density = 1 + 0.1 * series[:1]
        magnetic = solenoidal(0.3 * series[4:], 1.0)
        magnetic = magnetic.at[0].add(parameters["mean_field"])
        return jnp.concatenate([density, density * 0.4 * series[1:4], magnetic])

    def stepper(num_dims: int, extent: float, num_points: int, dt: float, parameters: Parameters) -> ex.BaseStepper:
        viscosity = parameters["viscosity"]
        flux = magnetohydrodynamic_flux(viscosity, split=viscosity)
        diffusivity = viscosity * jnp.array([0.0] + [1.0] * 6)
        return ConservationLaw(num_dims, extent, num_points, dt, flux=flux, diffusivity=diffusivity)

    def fields(state: Array, extent: float) -> dict[str, Array]:
        return {"density": state[0], "magnetic_field": state[4:], "velocity": state[1:4] / state[0]}

    return Numerics(initial, stepper, fields)


def _fitzhugh_nagumo() -> Numerics:
    def initial(key: PRNGKeyArray, shape: tuple[int, ...], parameters: Parameters) -> Array:
        # The cube is dealiased to a quarter of the grid points: a coarse grid carries fewer modes than eight.
        return fourier_series(key, 2, shape, min(8, shape[0] // 4 - 1), std_one=True)

    def stepper(num_dims: int, extent: float, num_points: int, dt: float, parameters: Parameters) -> ex.BaseStepper:
        diffusivities = parameters["diffusivity"] * jnp.array([1.0, 5.0])
        return FitzHughNagumo(
            num_dims, extent, num_points, dt, diffusivities=diffusivities, offset=parameters["k"], order=4
        )

    return Numerics(initial, stepper, lambda state, _: {"u": state[0], "v": state[1]})


def _gray_scott() -> Numerics:
    def initial(key: PRNGKeyArray, shape: tuple[int, ...], parameters: Parameters) -> Array:
        blobs = jax.nn.sigmoid(10 * (fourier_series(key, 1, shape, 5)[0] - 0.3))
        return jnp.stack([1 - 0.5 * blobs, 0.25 * blobs])

    def stepper(num_dims: int, extent: float, num_points: int, dt: float, parameters: Parameters) -> ex.BaseStepper:
        rates = {"feed_rate": parameters["feed"], "kill_rate": parameters["kill"]}
        return ex.stepper.reaction.GrayScott(num_dims, extent, num_points, dt, **rates)

    return Numerics(initial, stepper, lambda state, _: {"A": state[0], "B": state[1]})


def _fisher() -> Numerics:
    def initial(key: PRNGKeyArray, shape: tuple[int, ...], parameters: Parameters) -> Array:
        return jnp.clip(0.5 + 0.5 * fourier_series(key, 1, shape, 6), 0, 1) ** 2

    def stepper(num_dims: int, extent: float, num_points: int, dt: float, parameters: Parameters) -> ex.BaseStepper:
        rates = {"diffusivity": parameters["diffusivity"], "reactivity": parameters["reactivity"]}
        return ex.stepper.reaction.FisherKPP(num_dims, extent, num_points, dt, **rates)

    return Numerics(initial, stepper, lambda state, _: {"u": state[0]})


def _burgers() -> Numerics:
    def initial(key: PRNGKeyArray, shape: tuple[int, ...], parameters: Parameters) -> Array:
        return fourier_series(key, 1, shape, 5)

    def stepper(num_dims: int, extent: float, num_points: int, dt: float, parameters: Parameters) -> ex.BaseStepper:
        viscosity = parameters["viscosity"]
        return ex.stepper.Burgers(
            num_dims, extent, num_points, dt, diffusivity=viscosity, conservative=True, order=4
        )

    return Numerics(initial, stepper, lambda state, _: {"u": state[0]})


def _incompressible_2d() -> Numerics:
    def initial(key: PRNGKeyArray, shape: tuple[int, ...], parameters: Parameters) -> Array:
        return 5 * fourier_series(key, 1, shape, 5)

    def stepper(num_dims: int, extent: float, num_points: int, dt: float, parameters: Parameters) -> ex.BaseStepper:
        viscosity = parameters["viscosity"]
        return ex.stepper.NavierStokesVorticity(num_dims, extent, num_points, dt, diffusivity=viscosity, order=4)

    return Numerics(initial, stepper, lambda state, extent: {"velocity": velocity_from_vorticity(state, extent)})


def _incompressible_3d() -> Numerics:
    def initial(key: PRNGKeyArray, shape: tuple[int, ...], parameters: Parameters) -> Array:
        return taylor_green(shape[0]) + solenoidal(0.3 * fourier_series(key, 3, shape, 3), 2 * jnp.pi)

    def stepper(num_dims: int, extent: float, num_points: int, dt: float, parameters: Parameters) -> ex.BaseStepper:
        viscosity = parameters["viscosity"]
        return ex.stepper.NavierStokesVelocity(num_dims, extent, num_points, dt, diffusivity=viscosity, order=4)

    return Numerics(initial, stepper, lambda state, _: {"velocity": state})


NUMERICS: Mapping[str, Numerics] = {
    "cfd1d": _compressible(0.4),
    "dr2d": _fitzhugh_nagumo(),
    "swe2d": _shallow_water(),
    "ns2d": _incompressible_2d(),
    "mhd3d": _magnetohydrodynamics(),
    "cfd3d": _compressible(0.3),
    "dr1d": _fisher(),
    "burgers1d": _burgers(),
    "gs2d": _gray_scott(),
    "ns3d": _incompressible_3d(),
}


def trajectory_key(seed: int, name: str, split: str, trajectory: int) -> PRNGKeyArray:
    """Source of randomness of one trajectory; the same in every process, and for every size of a data set."""
    key = jax.random.key(seed)
    for number in (crc32(name.encode()), SPLITS.index(split), trajectory):
        key = jax.random.fold_in(key, number)
    return key


def _draw(key: PRNGKeyArray, ranges: Mapping[str, Range]) -> dict[str, Array]:
    drawn = {}
    for number, (name, interval) in enumerate(ranges.items()):
        fraction = jax.random.uniform(jax.random.fold_in(key, number))
        if interval.logarithmic:
            value = interval.low * (interval.high / interval.low) ** fraction
        else:
            value = interval.low + (interval.high - interval.low) * fraction
        # Rounding must not leave the interval that the documentation states.
        drawn[name] = jnp.clip(value, interval.low, interval.high)
    return drawn


def simulate(
    system: System, level: str, *, refine: int = 1
) -> Callable[[PRNGKeyArray], tuple[dict[str, Float[Array, "B"]], dict[str, Float[Array, "B T *N"]]]]:
    """Compiled function: keys (B,) -> parameters and fields of B trajectories, vector fields with the components last.

    Args:
        system: What to simulate.
        level: Its size.
        refine: Divide the time step by this.
    """
    numerics, size, extent = NUMERICS[system.name], system.levels[level], system.domain(level)
    substeps = size.substeps * refine
    shape = (size.num_points,) * system.num_dims

    def trajectory(key: PRNGKeyArray) -> tuple[dict[str, Array], dict[str, Array]]:
        parameter_key, initial_key = jax.random.split(key)
        parameters = _draw(parameter_key, system.ranges(level))
        fine = numerics.stepper(system.num_dims, extent, size.num_points, system.dt / substeps, parameters)
        stepper = ex.RepeatedStepper(fine, substeps)
        state = numerics.initial(initial_key, shape, parameters)
        states = ex.rollout(stepper, size.num_frames - 1, include_init=True)(state)
        fields = jax.vmap(lambda s: numerics.fields(s, extent))(states)
        for name in system.vectors:
            fields[name] = jnp.moveaxis(fields[name], 1, -1)
        return parameters, fields

    return jax.jit(jax.vmap(trajectory))
