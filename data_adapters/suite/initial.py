"""Random smooth initial conditions on a periodic grid."""

import exponax as ex
import jax
import jax.numpy as jnp
from exponax.nonlin_fun import Leray
from exponax import spectral
from jaxtyping import Array, Float, PRNGKeyArray

__all__ = ["fourier_series", "solenoidal", "taylor_green"]


def fourier_series(
    key: PRNGKeyArray, num_channels: int, shape: tuple[int, ...], cutoff: int, *, std_one: bool = False
) -> Float[Array, "C *N"]:
    """Independent real Fourier series of zero mean with random coefficients.

    Args:
        key: Source of randomness.
        num_channels: How many series, C.
        shape: Grid points along each axis, the same for all.
        cutoff: Largest wavenumber along each axis.
        std_one: Scale each series to a standard deviation of 1 instead of a largest absolute value of 1.
    """
    series = ex.ic.RandomTruncatedFourierSeries(len(shape), cutoff=cutoff, std_one=std_one, max_one=not std_one)
    return jax.vmap(lambda k: series(shape[0], key=k)[0])(jax.random.split(key, num_channels))


def solenoidal(vector: Float[Array, "D *N"], extent: float) -> Float[Array, "D *N"]:
    """Project out the gradient part, so that div v = 0 (Helmholtz decomposition)."""
    num_dims, num_points = vector.ndim - 1, vector.shape[-1]
    projection = Leray(
        num_dims, num_points, derivative_operator=spectral.build_derivative_operator(num_dims, extent, num_points)
    )
    projected = projection(ex.fft(vector, num_spatial_dims=num_dims))
    return ex.ifft(projected, num_spatial_dims=num_dims, num_points=num_points)


def taylor_green(num_points: int) -> Float[Array, "3 N N N"]:
    """The Taylor-Green vortex on (0, 2 pi)^3: (sin x cos y cos z, -cos x sin y cos z, 0)."""
    x, y, z = ex.make_grid(3, 2 * jnp.pi, num_points)
    return jnp.stack(
        [jnp.sin(x) * jnp.cos(y) * jnp.cos(z), -jnp.cos(x) * jnp.sin(y) * jnp.cos(z), jnp.zeros_like(x)]
    )
