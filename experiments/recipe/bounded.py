"""Whether rollouts stay bounded: forecasts a hundred steps from the first frames of test trajectories.

    python experiments/recipe/bounded.py checkpoint=runs/a out=runs/bounded

Writes bounded.json: of each system the number of rollouts, and the largest standard deviation over space, of any
component, step and trajectory, relative to that of the first forecast frame.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import xarray as xr
from omegaconf import OmegaConf
from tqdm import tqdm

from experiments.in_process import command
from experiments.recipe.rows import HELD_OUT, MIX
from morph import predict
from morph.provenance import write_whole

__all__ = ["growth", "main"]

_DEFAULTS: dict[str, Any] = {
    "checkpoint": None,
    "out": "runs/bounded",
    "steps": 100,
    "trajectories": 4,  # of each system
    "level": "small",
    "data_dir": "data",
}


def main() -> None:
    """Forecast, measure, write."""
    options: Any = OmegaConf.merge(OmegaConf.create(_DEFAULTS), OmegaConf.from_cli())
    if unknown := set(options) - set(_DEFAULTS):
        sys.exit(f"error: expected some of {', '.join(_DEFAULTS)}, found {', '.join(sorted(map(str, unknown)))}")
    if options.checkpoint is None:
        sys.exit("error: checkpoint: give the run that is to be tried, checkpoint=<run>")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    found = {}
    for system in tqdm((*MIX, *HELD_OUT), unit="system", disable=None):
        path = out / f"{system}.nc"
        path.unlink(missing_ok=True)
        command(predict.main, [
            f"checkpoint={options.checkpoint}", f"input={system}", f"steps={options.steps}", "start=3",
            f"output={path}",
            f"trajectories=[{','.join(map(str, range(options.trajectories)))}]", f"level={options.level}",
            f"data_dir={options.data_dir}", "device=cpu",
        ])  # fmt: skip
        with xr.open_dataset(path, engine="h5netcdf") as forecast:
            found[system] = growth(forecast)
        path.unlink()
    write_whole(out / "bounded.json", json.dumps(found, indent=1) + "\n")
    for system, one in found.items():
        print(f"{system:<10} {one['rollouts']} rollouts, at most {one['largest']:.3g} of the first frame's deviation")


def growth(forecast: xr.Dataset) -> dict[str, float]:
    """Of a forecast of several trajectories, whose first frame is the first one forecast."""
    largest = 0.0
    for values in forecast.data_vars.values():
        if "time" not in values.dims:
            continue
        space = [dim for dim in values.dims if dim not in ("time", "trajectory", "run")]
        deviation = values.astype(np.float64).std(space, skipna=False)
        relative = deviation / deviation.isel(time=0)
        largest = max(largest, float(np.nan_to_num(relative.max(skipna=False), nan=np.inf)))
    return {"rollouts": int(forecast.sizes.get("trajectory", 1)), "largest": largest}


if __name__ == "__main__":
    main()
