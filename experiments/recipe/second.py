"""Data of a second generator, py-pde, on which nothing of the recipe was chosen: do its gains hold there?

    pip install -c constraints.txt -e ".[generators]"
    python experiments/recipe/second.py out=runs/second checkpoint=runs/a compare=runs/published

Both systems are bounded by walls, which the pretraining mix has nowhere, and are solved by finite differences.

channel2d: a dye in a channel, c_t = D lap c - U (1 - y^2) c_x, periodic along x, walls without flux at y = -1 and 1.
cahn_hilliard2d: phases part, c_t = lap(c^3 - c - gamma lap c), four walls without flux.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import xarray as xr
from omegaconf import OmegaConf
from tqdm import tqdm

from morph.provenance import write_whole

__all__ = ["SYSTEMS", "generate", "main"]

SYSTEMS = {
    "channel2d": {"x": "periodic", "y": "wall"},
    "cahn_hilliard2d": {"x": "wall", "y": "wall"},
}
"""Boundary of each axis."""
_FRAMES = 28
_DEFAULTS: dict[str, Any] = {
    "out": "runs/second",  # where data and results go
    "trajectories": 6,
    "seed": 0,
    "checkpoint": None,  # judged on them, if it is given
    "compare": None,
}


def main() -> None:
    """Generate what is missing, then judge."""
    options: Any = OmegaConf.merge(OmegaConf.create(_DEFAULTS), OmegaConf.from_cli())
    if unknown := set(options) - set(_DEFAULTS):
        sys.exit(f"error: expected some of {', '.join(_DEFAULTS)}, found {', '.join(sorted(map(str, unknown)))}")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    for number, (name, boundary) in enumerate(SYSTEMS.items()):
        path = out / f"{name}.nc"
        if not path.exists():
            data = generate(name, options.trajectories, options.seed + number)
            unfinished = path.with_suffix(".unfinished")
            data.to_netcdf(unfinished, engine="h5netcdf")
            unfinished.rename(path)
        about = {
            "_target_": "data_adapters.labelled.XarrayAdapter",
            "files": str(path.absolute()),
            "sample": "run",
            "name": name,
            "boundary": boundary,
            "batch_size": 4,
        }
        write_whole(out / f"{name}.yaml", OmegaConf.to_yaml(OmegaConf.create(about)))
    if options.checkpoint is None:
        print(f"Data in {out}; judge a model on them: checkpoint=<run>")
        return
    from experiments.in_process import command
    from morph import evaluate

    names = ",".join(str(out / f"{name}.yaml") for name in SYSTEMS)
    others = [f"compare=[{options.compare}]"] if options.compare else []
    command(evaluate.main, [
        f"checkpoint={options.checkpoint}", f"data=[{names}]", "split=all", f"run_dir={out / 'evaluation'}",
        "figures=true", "lead_windows=[\"1:10\"]", "device=cpu", *others,
    ])  # fmt: skip
    print(f"Results in {out / 'evaluation'}")


def generate(name: str, trajectories: int, seed: int) -> xr.Dataset:
    """Trajectories of one system, by name, with other coefficients in each."""
    import pde

    generator = np.random.default_rng(seed)
    runs = []
    for _ in tqdm(range(trajectories), desc=name, unit="run", disable=None):
        if name == "channel2d":
            grid = pde.CartesianGrid([[0, 4], [-1, 1]], [64, 32], periodic=[True, False])
            speed, diffusivity = generator.uniform(0.5, 1.5), 10 ** generator.uniform(-2.5, -2.0)
            equation = pde.PDE(
                {"c": f"{diffusivity} * laplace(c) - {speed} * (1 - y**2) * d_dx(c)"},
                bc={"x": "periodic", "y": "neumann"},
            )
            step, interval = 2e-3, 0.05
        else:
            grid = pde.CartesianGrid([[0, 48], [0, 48]], [48, 48], periodic=False)
            gamma = generator.uniform(0.8, 1.5)
            equation = pde.PDE({"c": f"laplace(c**3 - c - {gamma} * laplace(c))"}, bc="neumann")
            step, interval = 2e-2, 1.0
        state = pde.ScalarField(grid, _initial(grid.shape, grid.periodic, generator))
        storage = pde.MemoryStorage()
        equation.solve(
            state,
            t_range=(_FRAMES - 1) * interval,
            dt=step,
            solver="runge-kutta",
            backend="numpy",  # compiling takes longer, anew for each trajectory
            tracker=storage.tracker(interval),
        )
        frames = np.stack([field.data for field in storage])[:_FRAMES]
        if len(frames) != _FRAMES or not np.isfinite(frames).all():
            sys.exit(f"error: {name}: the solver left {len(frames)} frames, or values that are not finite")
        runs.append(frames.astype(np.float32))
    x, y = (np.asarray(axis) for axis in grid.axes_coords)
    return xr.Dataset(
        {"c": (("run", "time", "x", "y"), np.stack(runs))},
        {"run": np.arange(trajectories), "time": np.arange(_FRAMES) * interval, "x": x, "y": y},
        {"source": f"py-pde {pde.__version__}", "system": name, "seed": seed},
    )


def _initial(shape: Any, periodic: Any, generator: np.random.Generator) -> np.ndarray:
    """A sum of a few waves: Fourier modes where the axis is periodic, cosines between walls."""
    places = np.meshgrid(*((np.arange(size) + 0.5) / size for size in shape), indexing="ij")
    total = np.zeros(shape)
    for _ in range(12):
        wave = np.ones(shape)
        for place, around in zip(places, periodic, strict=True):
            mode = generator.integers(0, 5)
            phase = generator.uniform(0, 2 * np.pi) if around else 0.0
            wave = wave * np.cos((2 if around else 1) * np.pi * mode * place + phase)
        total = total + generator.normal() * wave
    return 0.5 * total / total.std()


if __name__ == "__main__":
    main()
