"""The numerics of each system: its stepper, and the fields that are stored of a state."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import exponax as ex
import jax
import jax.numpy as jnp
from exponax import spectral, stepper
from jaxtyping import Array, Float

from data_adapters.suite.steppers import (
    ConservationLaw,
    FitzHughNagumo,
    compressible_flux,
    magnetohydrodynamic_flux,
    pressure,
    shallow_water_flux,
)
from data_adapters.suite.systems import System

__all__ = ["NUMERICS", "Grid", "Numerics", "simulate", "velocity_from_vorticity"]

Parameters = Mapping[str, Float[Array, ""]]


class Grid(NamedTuple):
    """Where and when a stepper works: the leading arguments of every exponax stepper."""

    num_spatial_dims: int
    domain_extent: float
    num_points: int
    dt: float


class Numerics(NamedTuple):
    """How one system is solved.

    stepper: (grid, parameters) -> exponax stepper.
    fields: (state, extent) -> name of each field -> its values, (N, ...) of a scalar and (D, N, ...) of a vector.
    """

    stepper: Callable[[Grid, Parameters], ex.BaseStepper]
    fields: Callable[[Array, float], dict[str, Array]]


def velocity_from_vorticity(vorticity: Float[Array, "1 N N"], extent: float) -> Float[Array, "2 N N"]:
    """(u, v) = (d psi / dy, -d psi / dx) with lap psi = w, the convention of exponax: w = du/dy - dv/dx.

    This is the negative of the usual vorticity.
    """
    num_points = vorticity.shape[-1]
    derivative = spectral.build_derivative_operator(2, extent, num_points)
    laplacian = spectral.build_laplace_operator(derivative)
    stream = jnp.where(laplacian == 0, 0, ex.fft(vorticity) / jnp.where(laplacian == 0, 1, laplacian))
    return ex.ifft(jnp.concatenate([derivative[1:] * stream, -derivative[:1] * stream]), num_points=num_points)


def _compressible(grid: Grid, parameters: Parameters) -> ex.BaseStepper:
    # Heat conducts fastest, at gamma nu / Pr / rho, 3 nu where the gas is thin; the split takes over most of it.
    split = 2 * parameters["viscosity"]
    flux = compressible_flux(parameters["viscosity"], split)
    return ConservationLaw(*grid, flux=flux, diffusivity=split * jnp.array([0.0] + [1.0] * (grid.num_spatial_dims + 1)))


def _shallow_water(grid: Grid, parameters: Parameters) -> ex.BaseStepper:
    flux = shallow_water_flux(parameters["viscosity"], split=parameters["viscosity"])
    return ConservationLaw(*grid, flux=flux, diffusivity=parameters["viscosity"] * jnp.array([0.0, 1.0, 1.0]))


def _magnetohydrodynamics(grid: Grid, parameters: Parameters) -> ex.BaseStepper:
    flux = magnetohydrodynamic_flux(parameters["viscosity"], split=parameters["viscosity"])
    return ConservationLaw(*grid, flux=flux, diffusivity=parameters["viscosity"] * jnp.array([0.0] + [1.0] * 6))


def _fitzhugh_nagumo(grid: Grid, parameters: Parameters) -> ex.BaseStepper:
    diffusivities = parameters["diffusivity"] * jnp.array([1.0, 5.0])
    return FitzHughNagumo(*grid, diffusivities=diffusivities, offset=parameters["k"])


def _gray_scott(grid: Grid, parameters: Parameters) -> ex.BaseStepper:
    return stepper.reaction.GrayScott(*grid, feed_rate=parameters["feed"], kill_rate=parameters["kill"], order=4)


def _fisher(grid: Grid, parameters: Parameters) -> ex.BaseStepper:
    rates = {"diffusivity": parameters["diffusivity"], "reactivity": parameters["reactivity"]}
    return stepper.reaction.FisherKPP(*grid, **rates, order=4)


def _burgers(grid: Grid, parameters: Parameters) -> ex.BaseStepper:
    return stepper.Burgers(*grid, diffusivity=parameters["viscosity"], conservative=True, order=4)


def _incompressible_2d(grid: Grid, parameters: Parameters) -> ex.BaseStepper:
    return stepper.NavierStokesVorticity(*grid, diffusivity=parameters["viscosity"], order=4)


def _incompressible_3d(grid: Grid, parameters: Parameters) -> ex.BaseStepper:
    return stepper.NavierStokesVelocity(*grid, diffusivity=parameters["viscosity"], order=4)


def _gas(state: Array, extent: float) -> dict[str, Array]:
    return {"density": state[0], "pressure": pressure(state), "velocity": state[1:-1] / state[0]}


def _plasma(state: Array, extent: float) -> dict[str, Array]:
    return {"density": state[0], "magnetic_field": state[4:], "velocity": state[1:4] / state[0]}


NUMERICS: Mapping[str, Numerics] = {
    "cfd1d": Numerics(_compressible, _gas),
    "dr2d": Numerics(_fitzhugh_nagumo, lambda state, _: {"u": state[0], "v": state[1]}),
    "swe2d": Numerics(_shallow_water, lambda state, _: {"height": state[0], "velocity": state[1:] / state[0]}),
    "ns2d": Numerics(_incompressible_2d, lambda state, extent: {"velocity": velocity_from_vorticity(state, extent)}),
    "mhd3d": Numerics(_magnetohydrodynamics, _plasma),
    "cfd3d": Numerics(_compressible, _gas),
    "dr1d": Numerics(_fisher, lambda state, _: {"u": state[0]}),
    "burgers1d": Numerics(_burgers, lambda state, _: {"u": state[0]}),
    "gs2d": Numerics(_gray_scott, lambda state, _: {"A": state[0], "B": state[1]}),
    "ns3d": Numerics(_incompressible_3d, lambda state, _: {"velocity": state}),
}


def simulate(
    system: System, level: str, *, refine: int = 1
) -> Callable[[Mapping[str, Float[Array, "B"]], Float[Array, "B C *N"]], dict[str, Float[Array, "B T ..."]]]:
    """Function to be compiled: parameters and initial states of trajectories -> fields, components of vectors last.

    Args:
        system: What to simulate.
        level: Its size.
        refine: Divide the time step by this.
    """
    numerics, size, extent = NUMERICS[system.name], system.levels[level], system.domain(level)
    substeps = size.substeps * refine
    grid = Grid(system.num_dims, extent, size.num_points, system.dt / substeps)

    def trajectory(parameters: Parameters, state: Array) -> dict[str, Array]:
        # Built in here, so that vmap gives each trajectory the operators of its own parameters.
        frame = ex.RepeatedStepper(numerics.stepper(grid, parameters), substeps)
        states = ex.rollout(frame, size.num_frames - 1, include_init=True)(state)
        fields = jax.vmap(lambda s: numerics.fields(s, extent))(states)
        return {name: jnp.moveaxis(f, 1, -1) if name in system.vectors else f for name, f in fields.items()}

    return jax.vmap(trajectory)
