"""Where the files of the embedded suite lie, and what is in them."""

from pathlib import Path

import h5py
import numpy as np

from data_adapters.suite.systems import find_system


def data_file(folder: Path, name: str, split: str) -> Path:
    return folder / name / "data" / split / f"{name}.hdf5"


def read(folder: Path, name: str, split: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    with h5py.File(data_file(folder, name, split)) as file:
        fields = {key: file[group][key][()] for group in ("t0_fields", "t1_fields") for key in file[group]}
        return fields, {key: file["scalars"][key][()] for key in find_system(name).parameters}
