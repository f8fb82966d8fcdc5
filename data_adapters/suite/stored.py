"""Which data set of the suite lies in a folder."""

from pathlib import Path

import h5py

__all__ = ["check_stored", "train_file"]


def train_file(folder: Path, name: str) -> Path:
    """Where the training split of a data set lies."""
    return folder / "data" / "train" / f"{name}.hdf5"


def check_stored(folder: Path, name: str, level: str, seed: int, **versions: str | int) -> None:
    """Accept the data set in a folder if it is the one that these options give.

    Args:
        folder: Folder of the data set.
        name: Name of the system.
        level: Expected level.
        seed: Expected seed.
        versions: Further expected attributes.

    Raises:
        ValueError: It was made with other options, or is no data set of the suite.
    """
    path = train_file(folder, name)
    try:
        with h5py.File(path, "r") as file:
            found = dict(file.attrs)
    except OSError as error:
        raise ValueError(
            f"{folder}: expected a data set of the suite, found no readable {path}; move the folder away"
        ) from error
    expected = {"dataset_name": name, "level": level, "seed": seed, **versions}
    differing = [key for key, value in expected.items() if found.get(key) != value]
    if differing:
        wanted = ", ".join(f"{key}={expected[key]}" for key in differing)
        there = ", ".join(f"{key}={found.get(key)}" for key in differing)
        raise ValueError(
            f"{folder}: expected {wanted}, found {there}; choose another `out`, ask for what is there, or replace it "
            "with python -m data_adapters.suite ... overwrite=true"
        )
