"""The ten systems of the suite: equations, parameters, sizes.  The numerics stand in `simulate`; no JAX here.

All systems are periodic, smooth and viscous.  Initial conditions are random truncated Fourier series, TFSk for
wavenumbers up to k, scaled to a largest absolute value of 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import pi

__all__ = [
    "GAMMA",
    "HELD_OUT",
    "LEVELS",
    "PRETRAINING_MIX",
    "SPLITS",
    "SUITE_VERSION",
    "SYSTEMS",
    "Level",
    "Range",
    "System",
    "check_level",
    "check_seed",
    "find_system",
]

# Goes up when the same options give other numbers.
SUITE_VERSION = 1
LEVELS = ("tiny", "small", "full")
SPLITS = ("train", "valid", "test")
# Ratio of specific heats of the gas in cfd1d and cfd3d.
GAMMA = 1.4
_AXES = ("x", "y", "z")


@dataclass(frozen=True)
class Range:
    """Where a parameter is drawn from: uniformly, or uniformly in its logarithm."""

    low: float
    high: float
    logarithmic: bool = False


@dataclass(frozen=True)
class Level:
    """A size of a data set.

    Args:
        num_points: Grid points along each axis.
        num_train: Trajectories for training; validation and test get a quarter of it each, at least 2.
        num_frames: Frames of a trajectory, the initial condition included.
        substeps: Time steps between two frames.
        batch: Trajectories that are simulated at once, which bounds the memory.
        parameters: Ranges that differ from the system's.
    """

    num_points: int
    num_train: int
    num_frames: int
    substeps: int
    batch: int
    parameters: Mapping[str, Range] = field(default_factory=dict)

    @property
    def num_trajectories(self) -> dict[str, int]:
        """Split -> number of trajectories."""
        held_out = max(2, self.num_train // 4)
        return {"train": self.num_train, "valid": held_out, "test": held_out}


@dataclass(frozen=True)
class System:
    """A system of equations.

    Args:
        name: Its name, that of its folder.
        summary: What it is, in a few words.
        equation: What is solved, on which domain and from which initial condition.
        num_dims: Number of spatial axes.
        dt: Time between two frames.
        scalars: Names of the scalar fields.
        vectors: Names of the vector fields.
        parameters: Where the parameters of each trajectory are drawn from.
        levels: Sizes, one for each of LEVELS.
        extent: Length of the domain; 0 where the grid spacing is fixed instead.
        spacing: Grid spacing, where that is fixed.
        solenoidal: Vector fields without divergence.
    """

    name: str
    summary: str
    equation: str
    num_dims: int
    dt: float
    scalars: tuple[str, ...]
    vectors: tuple[str, ...]
    parameters: Mapping[str, Range]
    levels: Mapping[str, Level]
    extent: float = 1.0
    spacing: float = 0.0
    solenoidal: tuple[str, ...] = ()

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the spatial axes."""
        return _AXES[: self.num_dims]

    def domain(self, level: str) -> float:
        """Length of the domain along each axis."""
        return self.extent or self.spacing * self.levels[level].num_points

    def ranges(self, level: str) -> dict[str, Range]:
        """Where each parameter is drawn from."""
        return {**self.parameters, **self.levels[level].parameters}

    def num_bytes(self, level: str, split: str) -> int:
        """Size of the fields of a split."""
        size = self.levels[level]
        values = (len(self.scalars) + self.num_dims * len(self.vectors)) * size.num_points**self.num_dims
        return 4 * values * size.num_frames * size.num_trajectories[split]


_TABLE = (
    System(
        name="cfd1d",
        summary="compressible Navier-Stokes, 1-D",
        equation="rho_t + (rho u)_x = 0, (rho u)_t + (rho u^2 + p - 4/3 nu u_x)_x = 0, "
        "E_t + ((E + p) u - 4/3 nu u u_x - kappa T_x)_x = 0, E = p / (gamma - 1) + rho u^2 / 2, T = p / rho, "
        "gamma = 1.4, kappa = nu gamma / (gamma - 1) / Pr, Pr = 0.72; 0 < x < 1; rho, p = 1 + 0.3 TFS3, u = 0.4 TFS3",
        num_dims=1,
        dt=0.02,
        scalars=("density", "pressure"),
        vectors=("velocity",),
        parameters={"viscosity": Range(2e-3, 6e-3, logarithmic=True)},
        levels={
            "tiny": Level(128, 16, 21, 6, 24),
            "small": Level(256, 48, 51, 12, 24),
            "full": Level(1024, 256, 101, 48, 32),
        },
    ),
    System(
        name="dr2d",
        summary="diffusion-reaction (FitzHugh-Nagumo), 2-D",
        equation="u_t = Du lap u + u - u^3 - k - v, v_t = 5 Du lap v + u - v; 0 < x, y < 2; u, v = TFS8 scaled to a "
        "standard deviation of 1",
        num_dims=2,
        dt=0.125,
        scalars=("u", "v"),
        vectors=(),
        parameters={"diffusivity": Range(1e-3, 3e-3, logarithmic=True), "k": Range(0.0, 1e-2)},
        levels={"tiny": Level(32, 8, 21, 4, 12), "small": Level(64, 32, 41, 4, 6), "full": Level(128, 256, 101, 4, 6)},
        extent=2.0,
    ),
    System(
        name="swe2d",
        summary="viscous shallow water, 2-D",
        equation="h_t + div(h u) = 0, (h u)_t + div(h u u + g h^2 / 2 I - nu h grad u) = 0, g = 1; 0 < x, y < 1; "
        "h = 1 + 0.3 TFS3, u = 0.1 TFS3",
        num_dims=2,
        dt=0.02,
        scalars=("height",),
        vectors=("velocity",),
        parameters={"viscosity": Range(2e-3, 6e-3, logarithmic=True)},
        levels={"tiny": Level(32, 8, 21, 3, 12), "small": Level(64, 32, 41, 4, 6), "full": Level(128, 256, 101, 8, 6)},
    ),
    System(
        name="ns2d",
        summary="incompressible Navier-Stokes, 2-D",
        equation="u_t + u . grad u = -grad p + nu lap u, div u = 0; 0 < x, y < 2 pi; vorticity 5 TFS5",
        num_dims=2,
        dt=0.2,
        scalars=(),
        vectors=("velocity",),
        parameters={"viscosity": Range(2e-3, 1e-2, logarithmic=True)},
        levels={"tiny": Level(32, 8, 21, 6, 12), "small": Level(64, 32, 41, 8, 6), "full": Level(128, 256, 101, 16, 6)},
        extent=2 * pi,
        solenoidal=("velocity",),
    ),
    System(
        name="mhd3d",
        summary="isothermal compressible resistive magnetohydrodynamics, 3-D",
        equation="rho_t + div(rho u) = 0, (rho u)_t + div(rho u u + (rho + |B|^2 / 2) I - B B - tau) = 0, "
        "tau = nu rho (grad u + grad u^T - 2/3 div u I), B_t + div(B u - u B) = nu lap B, div B = 0; 0 < x, y, z < 1; "
        "rho = 1 + 0.1 TFS3, u = 0.4 TFS3, B = 0.3 TFS3 without its divergence + mean_field along x",
        num_dims=3,
        dt=0.03,
        scalars=("density",),
        vectors=("magnetic_field", "velocity"),
        parameters={"viscosity": Range(3e-3, 8e-3, logarithmic=True), "mean_field": Range(0.2, 0.6)},
        levels={"tiny": Level(16, 4, 11, 3, 4), "small": Level(32, 12, 21, 4, 1), "full": Level(64, 16, 51, 8, 1)},
        solenoidal=("magnetic_field",),
    ),
    System(
        name="cfd3d",
        summary="compressible Navier-Stokes, 3-D",
        equation="rho_t + div(rho u) = 0, (rho u)_t + div(rho u u + p I - tau) = 0, "
        "E_t + div((E + p) u - tau u - kappa grad T) = 0, tau = nu (grad u + grad u^T - 2/3 div u I), "
        "E = p / (gamma - 1) + rho |u|^2 / 2, T = p / rho, gamma = 1.4, "
        "kappa = nu gamma / (gamma - 1) / Pr, Pr = 0.72; 0 < x, y, z < 1; rho, p = 1 + 0.3 TFS3, u = 0.3 TFS3",
        num_dims=3,
        dt=0.03,
        scalars=("density", "pressure"),
        vectors=("velocity",),
        parameters={"viscosity": Range(4e-3, 8e-3, logarithmic=True)},
        levels={"tiny": Level(16, 4, 11, 4, 4), "small": Level(32, 12, 21, 4, 1), "full": Level(64, 16, 51, 8, 1)},
    ),
    System(
        name="dr1d",
        summary="reaction-diffusion (Fisher-KPP), 1-D",
        equation="u_t = nu u_xx + r u (1 - u); 0 < x < 1; u = clip(0.5 + 0.5 TFS6, 0, 1)^2",
        num_dims=1,
        dt=0.025,
        scalars=("u",),
        vectors=(),
        parameters={"diffusivity": Range(1e-3, 1e-2, logarithmic=True), "reactivity": Range(1.0, 6.0)},
        levels={
            "tiny": Level(128, 16, 21, 4, 24),
            "small": Level(256, 64, 41, 4, 48),
            "full": Level(1024, 1000, 101, 4, 100),
        },
    ),
    System(
        name="burgers1d",
        summary="Burgers, 1-D",
        equation="u_t + (u^2 / 2)_x = nu u_xx; 0 < x < 1; u = TFS5",
        num_dims=1,
        dt=0.02,
        scalars=("u",),
        vectors=(),
        parameters={"viscosity": Range(2e-3, 2e-2, logarithmic=True)},
        levels={
            "tiny": Level(128, 16, 21, 8, 24, {"viscosity": Range(5e-3, 5e-2, logarithmic=True)}),
            "small": Level(512, 64, 51, 16, 32),
            "full": Level(1024, 1000, 201, 32, 100),
        },
    ),
    System(
        name="gs2d",
        summary="reaction-diffusion (Gray-Scott), 2-D",
        equation="A_t = 2e-5 lap A - A B^2 + feed (1 - A), B_t = 1e-5 lap B + A B^2 - (feed + kill) B; "
        "grid spacing 1/64; s = sigmoid(10 (TFS5 - 0.3)), A = 1 - 0.5 s, B = 0.25 s",
        num_dims=2,
        dt=20.0,
        scalars=("A", "B"),
        vectors=(),
        parameters={"feed": Range(0.02, 0.045), "kill": Range(0.056, 0.062)},
        levels={
            "tiny": Level(32, 8, 21, 10, 12),
            "small": Level(64, 32, 41, 10, 6),
            "full": Level(128, 256, 101, 10, 6),
        },
        extent=0.0,
        spacing=1 / 64,
    ),
    System(
        name="ns3d",
        summary="incompressible Navier-Stokes, 3-D",
        equation="u_t + u . grad u = -grad p + nu lap u, div u = 0; 0 < x, y, z < 2 pi; "
        "u = (sin x cos y cos z, -cos x sin y cos z, 0) + 0.3 TFS3 without its divergence",
        num_dims=3,
        dt=0.2,
        scalars=(),
        vectors=("velocity",),
        parameters={"viscosity": Range(2e-2, 6e-2, logarithmic=True)},
        levels={"tiny": Level(16, 4, 11, 3, 4), "small": Level(32, 12, 21, 3, 1), "full": Level(64, 32, 51, 6, 1)},
        extent=2 * pi,
        solenoidal=("velocity",),
    ),
)

SYSTEMS = tuple(entry.name for entry in _TABLE)
PRETRAINING_MIX = SYSTEMS[:6]
HELD_OUT = SYSTEMS[6:]


def find_system(name: str) -> System:
    """The system of that name.

    Raises:
        ValueError: There is none.
    """
    for entry in _TABLE:
        if entry.name == name:
            return entry
    raise ValueError(f"systems: expected one or more of {', '.join(SYSTEMS)}, found {name!r}")


def check_level(level: object) -> None:
    """Raises ValueError unless it is one of LEVELS."""
    if level not in LEVELS:
        raise ValueError(f"level: expected one of {', '.join(LEVELS)}, found {level!r}")


def check_seed(seed: object) -> None:
    """Raises ValueError unless it is a whole number that a random generator takes."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**31:
        raise ValueError(f"seed: expected a whole number from 0 to 2^31 - 1, found {seed!r}")
