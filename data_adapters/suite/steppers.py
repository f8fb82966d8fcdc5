"""Two time steppers that exponax does not ship: systems of conservation laws, and FitzHugh-Nagumo.

Both follow exponax's way to add an equation: U_t = L U + N(U), L diagonal in Fourier space and exact, N pseudo-spectral
and dealiased, integrated by exponential time differencing (Cox and Matthews 2002, doi:10.1006/jcph.2002.6995).
The fluxes of the four conservation laws of the suite stand here as well: pure functions of U and its gradient.
"""

from collections.abc import Callable

import jax.numpy as jnp
from exponax import BaseStepper, spectral
from exponax.nonlin_fun import BaseNonlinearFun
from jaxtyping import Array, Complex, Float

from data_adapters.suite.systems import GAMMA

__all__ = [
    "ConservationLaw",
    "FitzHughNagumo",
    "Flux",
    "compressible_flux",
    "magnetohydrodynamic_flux",
    "pressure",
    "shallow_water_flux",
]

PRANDTL = 0.72

# (U, grad U) -> F with F[c, d] the flux of U_c along axis d.
Flux = Callable[[Float[Array, "C *N"], Float[Array, "C D *N"]], Float[Array, "C D *N"]]


class _Divergence(BaseNonlinearFun):
    flux: Flux
    derivative_operator: Complex[Array, "D *K"]

    def __init__(
        self, num_dims: int, num_points: int, flux: Flux, derivative: Array, dealiasing_fraction: float
    ) -> None:
        super().__init__(num_dims, num_points, dealiasing_fraction=dealiasing_fraction)
        self.flux = flux
        self.derivative_operator = derivative

    def __call__(self, u_hat: Complex[Array, "C *K"]) -> Complex[Array, "C *K"]:
        # Channel by channel: the compiler then leaves out the gradients that the flux does not use.
        gradient = jnp.stack([self.ifft(channel * self.derivative_operator) for channel in u_hat])
        flux_hat = self.fft(self.flux(self.ifft(u_hat), gradient))
        return -dot(jnp.moveaxis(flux_hat, 1, 0), self.derivative_operator)


class ConservationLaw(BaseStepper):
    """U_t = d_c lap U_c - div F(U, grad U) on a periodic cube.

    Args:
        num_spatial_dims: D.
        domain_extent: Length of the cube's edge.
        num_points: Grid points along each axis.
        dt: Time step.
        flux: F, an array function of U and its gradient.
        diffusivity: d, one number per channel.  A flux with viscosity contains -(viscous stress) + d grad U: this adds
            nothing to the equation, but has the stiff part integrated exactly, which lets dt follow the waves and not
            the diffusion.  Stable where d is at least half of the largest diffusivity.
        order: Order of the time stepping, 1 to 4.
        dealiasing_fraction: Modes kept in products, as a fraction of the Nyquist mode.
    """

    flux: Flux
    diffusivity: Float[Array, "C"]
    dealiasing_fraction: float

    def __init__(
        self,
        num_spatial_dims: int,
        domain_extent: float,
        num_points: int,
        dt: float,
        *,
        flux: Flux,
        diffusivity: Float[Array, "C"],
        order: int = 4,
        dealiasing_fraction: float = 2 / 3,
    ) -> None:
        self.flux = flux
        self.diffusivity = diffusivity
        self.dealiasing_fraction = dealiasing_fraction
        super().__init__(
            num_spatial_dims, domain_extent, num_points, dt, num_channels=diffusivity.shape[0], order=order
        )

    def _build_linear_operator(self, derivative_operator: Complex[Array, "D *K"]) -> Complex[Array, "C *K"]:
        columns = self.diffusivity.reshape(-1, *(1,) * self.num_spatial_dims)
        return columns * spectral.build_laplace_operator(derivative_operator)

    def _build_nonlinear_fun(self, derivative_operator: Complex[Array, "D *K"]) -> BaseNonlinearFun:
        return _Divergence(
            self.num_spatial_dims, self.num_points, self.flux, derivative_operator, self.dealiasing_fraction
        )


def dot(a: Float[Array, "D ..."], b: Float[Array, "D ..."]) -> Float[Array, "..."]:
    """Sum of products over the first axis, term by term: on a CPU a reduction over so short an axis is much slower."""
    return sum((a[i] * b[i] for i in range(1, len(a))), start=a[0] * b[0])


def pressure(u: Float[Array, "C *N"]) -> Float[Array, "*N"]:
    """p = (gamma - 1) (E - |m|^2 / (2 rho)) of the conserved state (rho, m, E)."""
    return (GAMMA - 1) * (u[-1] - 0.5 * dot(u[1:-1], u[1:-1]) / u[0])


def _velocity_gradient(density: Array, velocity: Array, gradient: Array) -> Array:
    """grad u[i, j] = du_i / dx_j from the gradients of the density (row 0) and the momentum (rows 1 to D)."""
    num_dims = velocity.shape[0]
    return (gradient[1 : 1 + num_dims] - velocity[:, None] * gradient[0]) / density


def _newtonian(gradient: Array) -> Array:
    """grad u + grad u^T - 2/3 div u I: the stress of unit viscosity."""
    num_dims = gradient.shape[0]
    identity = jnp.eye(num_dims).reshape(num_dims, num_dims, *(1,) * num_dims)
    divergence = sum((gradient[i, i] for i in range(1, num_dims)), start=gradient[0, 0])
    return gradient + jnp.swapaxes(gradient, 0, 1) - 2 / 3 * divergence * identity


def _outer(a: Array, b: Array) -> Array:
    return a[:, None] * b[None, :]


def _isotropic(value: Array, num_dims: int) -> Array:
    return jnp.eye(num_dims).reshape(num_dims, num_dims, *(1,) * num_dims) * value


def compressible_flux(viscosity: Float[Array, ""], split: Float[Array, ""]) -> Flux:
    """Compressible Navier-Stokes for U = (rho, m, E), an ideal gas with gamma 1.4 and Prandtl number 0.72.

    F = (m, m u + p I - tau, (E + p) u - tau u - kappa grad T) + split * grad (0, m, E),
    tau = viscosity * (grad u + grad u^T - 2/3 div u I), T = p / rho, kappa = viscosity * gamma / (gamma - 1) / Pr.
    Units: those in which the mean density and the mean pressure are 1.
    """

    def flux(u: Array, gradient: Array) -> Array:
        density, momentum, energy = u[0], u[1:-1], u[-1]
        velocity, p = momentum / density, pressure(u)
        du = _velocity_gradient(density, velocity, gradient)
        # grad T from T = (gamma - 1) (E / rho - |u|^2 / 2).
        specific = (gradient[-1] - energy / density * gradient[0]) / density
        dtemperature = (GAMMA - 1) * (specific - dot(velocity, du))
        stress = viscosity * _newtonian(du)
        heat = viscosity * GAMMA / (GAMMA - 1) / PRANDTL * dtemperature
        momentum_flux = _outer(momentum, velocity) + _isotropic(p, len(velocity)) - stress + split * gradient[1:-1]
        work = dot(velocity, stress)
        energy_flux = (energy + p) * velocity - work - heat + split * gradient[-1]
        return jnp.concatenate([momentum[None], momentum_flux, energy_flux[None]])

    return flux


def shallow_water_flux(viscosity: Float[Array, ""], split: Float[Array, ""], gravity: float = 1.0) -> Flux:
    """Viscous shallow water for U = (h, q = h u).

    F = (q, q u + gravity h^2 / 2 I - viscosity h grad u) + split * grad (0, q).
    """

    def flux(u: Array, gradient: Array) -> Array:
        height, discharge = u[0], u[1:]
        velocity = discharge / height
        stress = viscosity * height * _velocity_gradient(height, velocity, gradient)
        hydrostatic = _isotropic(0.5 * gravity * height**2, len(velocity))
        return jnp.concatenate(
            [discharge[None], _outer(discharge, velocity) + hydrostatic - stress + split * gradient[1:]]
        )

    return flux


def magnetohydrodynamic_flux(viscosity: Float[Array, ""], split: Float[Array, ""], sound_speed: float = 1.0) -> Flux:
    """Isothermal compressible magnetohydrodynamics for U = (rho, m, B); resistivity is the stepper's diffusivity of B.

    F = (m, m u + (cs^2 rho + |B|^2 / 2) I - B B - tau, B u - u B) + split * grad (0, m, 0),
    tau = viscosity * rho * (grad u + grad u^T - 2/3 div u I).  The flux of B is antisymmetric, so div B stays zero.
    Units: mean density 1, magnetic permeability 1.
    """

    def flux(u: Array, gradient: Array) -> Array:
        density, momentum, magnetic = u[0], u[1:4], u[4:7]
        velocity = momentum / density
        stress = viscosity * density * _newtonian(_velocity_gradient(density, velocity, gradient))
        total = sound_speed**2 * density + 0.5 * dot(magnetic, magnetic)
        momentum_flux = _outer(momentum, velocity) - _outer(magnetic, magnetic) + _isotropic(total, 3)
        induction = _outer(magnetic, velocity) - _outer(velocity, magnetic)
        return jnp.concatenate([momentum[None], momentum_flux - stress + split * gradient[1:4], induction])

    return flux


class _Excitation(BaseNonlinearFun):
    offset: Float[Array, ""]

    def __init__(self, num_dims: int, num_points: int, offset: Array, dealiasing_fraction: float) -> None:
        super().__init__(num_dims, num_points, dealiasing_fraction=dealiasing_fraction)
        self.offset = offset

    def __call__(self, u_hat: Complex[Array, "2 *K"]) -> Complex[Array, "2 *K"]:
        cubic = self.fft(-(self.ifft(u_hat[:1]) ** 3) - self.offset)
        # The coupling is linear: it needs no dealiasing.
        return jnp.concatenate([cubic - u_hat[1:], u_hat[:1]])


class FitzHughNagumo(BaseStepper):
    """u_t = Du lap u + u - u^3 - k - v,  v_t = Dv lap v + u - v on a periodic cube.

    Args:
        num_spatial_dims: Number of axes.
        domain_extent: Length of the cube's edge.
        num_points: Grid points along each axis.
        dt: Time step.
        diffusivities: (Du, Dv).
        offset: k.
        order: Order of the time stepping, 1 to 4.
        dealiasing_fraction: Modes kept in the cube, as a fraction of the Nyquist mode; 1/2 is exact.
    """

    diffusivities: Float[Array, "2"]
    offset: Float[Array, ""]
    dealiasing_fraction: float

    def __init__(
        self,
        num_spatial_dims: int,
        domain_extent: float,
        num_points: int,
        dt: float,
        *,
        diffusivities: Float[Array, "2"],
        offset: Float[Array, ""],
        order: int = 4,
        dealiasing_fraction: float = 1 / 2,
    ) -> None:
        self.diffusivities = diffusivities
        self.offset = offset
        self.dealiasing_fraction = dealiasing_fraction
        super().__init__(num_spatial_dims, domain_extent, num_points, dt, num_channels=2, order=order)

    def _build_linear_operator(self, derivative_operator: Complex[Array, "D *K"]) -> Complex[Array, "2 *K"]:
        laplacian = spectral.build_laplace_operator(derivative_operator)
        return jnp.concatenate([self.diffusivities[0] * laplacian + 1, self.diffusivities[1] * laplacian - 1])

    def _build_nonlinear_fun(self, derivative_operator: Complex[Array, "D *K"]) -> BaseNonlinearFun:
        return _Excitation(self.num_spatial_dims, self.num_points, self.offset, self.dealiasing_fraction)
