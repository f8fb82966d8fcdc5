"""Writes whole arrays and the YAML of their data set, so that tests of readers and of the check need no download."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

__all__ = ["BLOCKS", "describe", "noise", "store"]

BLOCKS = {"by": "trajectory", "order": ["train", "valid", "test"], "valid": 1, "test": 1}


def store(path: Path, **arrays: np.ndarray) -> Path:
    """Whole arrays [sample, time, x], ..."""
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values)
    return path


def describe(folder: Path, name: str = "mine", **changes: Any) -> dict[str, Any]:
    """The YAML of a data set, written as <name>.yaml; without what its caller alone needs."""
    options = {
        "_target_": "data_adapters.hdf5.ArrayAdapter",
        "files": str(folder / f"{name}_*.h5"),
        "dims": ["sample", "time", "x"],
        "dt": 0.1,
        "splits": BLOCKS,
        **changes,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({**options, "batch_size": 4, "card": {"size": "1 kB"}}))
    return {key: value for key, value in options.items() if key not in ("_target_", "prepare")}


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
