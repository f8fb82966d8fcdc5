"""Numerics of the embedded suite against exact and independent solutions; prints a JSON object of relative errors.

A script, run by test_suite_physics.py in a process of its own: JAX and forked data loaders do not live together, and
double precision is a switch of the whole process.

    python tests/suite_physics.py waves | solutions | vorticity | single | refined <tiny suite> <system> ...
"""

import json
import sys
from pathlib import Path

import exponax as ex
import h5py
import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from data_adapters.suite.initial import draw, fourier_series
from data_adapters.suite.simulate import NUMERICS, Grid, simulate, velocity_from_vorticity
from data_adapters.suite.systems import GAMMA, find_system


def advance(system, grid, parameters, state, steps):
    """The state after so many time steps of the suite's stepper."""
    stepper = NUMERICS[system].stepper(grid, {key: jnp.asarray(value) for key, value in parameters.items()})
    return np.asarray(jax.jit(ex.repeat(stepper, steps))(jnp.asarray(state)), np.float64)


def error(found, exact):
    """Largest difference over the largest value."""
    return float(np.abs(found - exact).max() / np.abs(exact).max())


def burgers():
    """Cole-Hopf: u = -2 nu phi_x / phi with phi_t = nu phi_xx, here from u = sin(2 pi x)."""
    viscosity, num_points, end = 0.02, 512, 0.3
    x = np.arange(num_points) / num_points
    waves = 2j * np.pi * np.fft.fftfreq(num_points, 1 / num_points)
    phi = np.exp(-(1 - np.cos(2 * np.pi * x)) / (4 * np.pi * viscosity))
    spectrum = np.fft.fft(phi) * np.exp(viscosity * waves**2 * end)
    exact = (-2 * viscosity * np.fft.ifft(waves * spectrum) / np.fft.ifft(spectrum)).real
    steps = 600
    state = np.sin(2 * np.pi * x)[None]
    return error(
        advance("burgers1d", Grid(1, 1.0, num_points, end / steps), {"viscosity": viscosity}, state, steps)[0], exact
    )


def alfven(axis):
    """A circularly polarised wave along a uniform field: u = -b decays without changing its shape where nu = eta."""
    viscosity, field, amplitude, end, steps, num_points = 5e-3, 0.4, 0.3, 0.5, 100, 16
    phase = 2 * np.pi * np.arange(num_points) / num_points
    phase = np.moveaxis(np.broadcast_to(phase[:, None, None], (num_points,) * 3), 0, axis)

    def state(time):
        decay = amplitude * np.exp(-viscosity * (2 * np.pi) ** 2 * time)
        wave = np.zeros((3, *phase.shape))
        moved = phase - 2 * np.pi * field * time
        wave[(axis + 1) % 3], wave[(axis + 2) % 3] = decay * np.cos(moved), decay * np.sin(moved)
        uniform = np.zeros_like(wave)
        uniform[axis] = field
        return np.concatenate([np.ones((1, *phase.shape)), -wave, wave + uniform])

    grid = Grid(3, 1.0, num_points, end / steps)
    return error(advance("mhd3d", grid, {"viscosity": viscosity}, state(0), steps), state(end))


def small_waves(system, matrix, background, wave):
    """A perturbation of 1e-6 follows the equation linearised about rest, whose exponential is known."""
    end, steps, num_points, amplitude = 0.3, 60, 16, 1e-6
    num_dims = len(wave)
    rng = np.random.default_rng(1)
    modes = amplitude * (rng.standard_normal(len(background)) + 1j * rng.standard_normal(len(background)))
    x = np.meshgrid(*(np.arange(num_points) / num_points,) * num_dims, indexing="ij")
    carrier = np.exp(2j * np.pi * sum(k * axis for k, axis in zip(wave, x, strict=True)))

    def perturbation(amplitudes):
        return np.real(amplitudes.reshape(-1, *(1,) * num_dims) * carrier)

    rest = np.array(background).reshape(-1, *(1,) * num_dims)
    found = advance(
        system, Grid(num_dims, 1.0, num_points, end / steps), {"viscosity": 5e-3}, rest + perturbation(modes), steps
    )
    return error(found - rest, perturbation(expm(matrix * end) @ modes))


def sound(wave):
    """Compressible Navier-Stokes about rho = p = 1, in (rho, m, E)."""
    viscosity, k = 5e-3, 2 * np.pi * np.array(wave)
    size, squared = 2 + len(wave), float(np.sum((2 * np.pi * np.array(wave)) ** 2))
    conductivity = viscosity * GAMMA / (GAMMA - 1) / 0.72
    matrix = np.zeros((size, size), complex)
    matrix[0, 1:-1] = -1j * k
    matrix[1:-1, -1] = -1j * k * (GAMMA - 1)
    matrix[1:-1, 1:-1] = -viscosity * (squared * np.eye(len(wave)) + np.outer(k, k) / 3)
    matrix[-1, 1:-1] = -1j * k * GAMMA / (GAMMA - 1)
    # T' = p' - rho', p' = (gamma - 1) E'.
    matrix[-1, 0], matrix[-1, -1] = conductivity * squared, -conductivity * squared * (GAMMA - 1)
    return small_waves(f"cfd{len(wave)}d", matrix, [1.0, *[0.0] * len(wave), 1 / (GAMMA - 1)], wave)


def gravity_waves():
    """Shallow water about h = 1, in (h, q), with g = 1."""
    k = 2 * np.pi * np.array([1, 2])
    matrix = np.zeros((3, 3), complex)
    matrix[0, 1:], matrix[1:, 0] = -1j * k, -1j * k
    matrix[1:, 1:] = -5e-3 * np.sum(k**2) * np.eye(2)
    return small_waves("swe2d", matrix, [1.0, 0.0, 0.0], (1, 2))


def homogeneous(system, num_dims, parameters, start, rates, end):
    """Without gradients a reaction-diffusion system is an ordinary differential equation."""
    steps = 400
    exact = solve_ivp(lambda _, y: rates(*y), (0, end), start, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    state = np.multiply.outer(start, np.ones((16,) * num_dims))
    found = advance(system, Grid(num_dims, 1.0, 16, end / steps), parameters, state, steps)
    return error(found, np.multiply.outer(exact, np.ones((16,) * num_dims)))


def vorticity():
    """The velocity that is stored carries the vorticity, w_t = -u . grad w + nu lap w, and is what its curl says."""
    num_points, extent, dt, viscosity = 32, 2 * np.pi, 1e-4, 5e-3
    state = 5 * fourier_series(np.random.default_rng(0), 1, (num_points,) * 2, 4)
    u, v = np.asarray(velocity_from_vorticity(jnp.asarray(state), extent))
    waves = 1j * np.fft.fftfreq(num_points, 1 / num_points)

    def derivative(values, axis, order=1):
        factor = (waves**order)[:, None] if axis == 0 else (waves**order)[None]
        return np.fft.ifft2(factor * np.fft.fft2(values)).real

    w = state[0]
    expected = -u * derivative(w, 0) - v * derivative(w, 1) + viscosity * (derivative(w, 0, 2) + derivative(w, 1, 2))
    grid = Grid(2, extent, num_points, dt)
    later = advance("ns2d", grid, {"viscosity": viscosity}, state, 1)[0]
    second = advance("ns2d", grid, {"viscosity": viscosity}, state, 2)[0]
    rate = (-3 * w + 4 * later - second) / (2 * dt)
    return {
        "transport": error(rate, expected),
        "curl: w = du/dy - dv/dx": error(derivative(u, 1) - derivative(v, 0), w),
        "divergence": float(np.abs(derivative(u, 0) + derivative(v, 1)).max() / np.abs(w).max()),
    }


def taylor_green():
    """(sin x cos y, -cos x sin y, 0) decays as exp(-2 nu t) in three dimensions as in two."""
    num_points, end, steps = 16, 1.0, 10
    x, y, _ = np.meshgrid(*(2 * np.pi * np.arange(num_points) / num_points,) * 3, indexing="ij")
    start = np.stack([np.sin(x) * np.cos(y), -np.cos(x) * np.sin(y), np.zeros_like(x)])
    found = advance("ns3d", Grid(3, 2 * np.pi, num_points, end / steps), {"viscosity": 0.05}, start, steps)
    return error(found, start * np.exp(-2 * 0.05 * end))


def waves():
    """Linear waves in the conservation laws, and a nonlinear one in magnetohydrodynamics."""
    found = {f"alfven {'xyz'[axis]}": alfven(axis) for axis in range(3)}
    return found | {"sound 1-D": sound((2,)), "sound 3-D": sound((1, 2, -1)), "gravity waves": gravity_waves()}


def solutions():
    """Exact solutions of the other systems."""
    excitable = {"diffusivity": 2e-3, "k": 0.01}
    return {
        "burgers": burgers(),
        "taylor-green": taylor_green(),
        "fitzhugh-nagumo": homogeneous(
            "dr2d", 2, excitable, (0.7, -0.4), lambda u, v: (u - u**3 - 0.01 - v, u - v), end=5.0
        ),
        "gray-scott": homogeneous(
            "gs2d",
            2,
            {"feed": 0.04, "kill": 0.06},
            (0.6, 0.3),
            lambda a, b: (0.04 * (1 - a) - a * b**2, a * b**2 - 0.1 * b),
            end=200.0,
        ),
        "fisher": homogeneous(
            "dr1d", 1, {"diffusivity": 1e-3, "reactivity": 3.0}, (0.2,), lambda u: (3 * u * (1 - u),), end=1.0
        ),
    }


def refined(folder, systems):
    """What lies in the files against half the time step: root mean square over the standard deviation, per field."""
    found = {}
    for name in systems:
        system = find_system(name)
        drawn = [draw(system, "tiny", 0, "test", trajectory) for trajectory in range(2)]
        parameters = {key: np.float32([values[key] for values, _ in drawn]) for key in system.parameters}
        states = np.float32([state for _, state in drawn])
        fields = jax.jit(simulate(system, "tiny", refine=2))(parameters, states)
        with h5py.File(Path(folder) / name / "data" / "test" / f"{name}.hdf5") as file:
            for key, values in fields.items():
                stored = file["t1_fields" if key in system.vectors else "t0_fields"][key][:2].astype(np.float64)
                difference = np.sqrt(np.mean((stored - np.asarray(values, np.float64)) ** 2))
                found[f"{name} {key}"] = float(difference / stored.std())
    return found


if __name__ == "__main__":
    task, *arguments = sys.argv[1:]
    # Data sets are generated in single precision; exact solutions are compared in double precision.
    jax.config.update("jax_enable_x64", task in ("waves", "solutions", "vorticity"))
    tasks = {"waves": waves, "solutions": solutions, "vorticity": vorticity, "single": lambda: {"burgers": burgers()}}
    print(json.dumps(refined(arguments[0], arguments[1:]) if task == "refined" else tasks[task]()))
