"""The command `python -m data_adapters.inspect` in a folder of files that are made up."""

import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from data_adapters.handles import HANDLES
from data_adapters.labelled import DATASETS
from morph.data.adapter import DatasetAdapter
from morph.data.catalogue import find_datasets, open_split

__all__ = ["Inspected", "hdf5", "in_folder", "values"]


class Inspected:
    """The command in a folder.

    ask: its question: options that answer it, as commands shown by it.
    write: what the YAML says that it has written.
    """

    def __init__(self, call: Callable[..., Any], folder: Path) -> None:
        self.call, self.folder = call, folder

    def run(self, *options: str, code: int) -> Any:
        done = self.call("data_adapters.inspect", *options, cwd=self.folder)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def ask(self, *options: str) -> list[list[str]]:
        done = self.run(*options, code=2)
        assert not list(self.folder.glob("*.yaml"))
        lines = [line.split("#")[0].strip() for line in done.stdout.splitlines()]
        commands = [shlex.split(line) for line in lines if line.startswith("python -m data_adapters.inspect")]
        return [command[3:] for command in commands]

    def refuse(self, *options: str) -> str:
        done = self.run(*options, code=1)
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 0
        return str(done.stderr)

    def write(self, *options: str) -> dict[str, Any]:
        done = self.run(*options, code=0)
        (path,) = self.folder.glob("*.yaml")
        assert f"data={path.name}" in done.stdout
        self.printed = done.stdout
        self.text = path.read_text()
        return dict(yaml.safe_load(self.text))

    def open(self, split: str) -> DatasetAdapter:
        (path,) = self.folder.glob("*.yaml")
        ((_, config),) = find_datasets(str(path), {}).items()
        return open_split(config, split)


def in_folder(call: Callable[..., Any], folder: Path) -> Iterator[Inspected]:
    """The body of a fixture; no file stays open after the test."""
    yield Inspected(call, folder)
    HANDLES.close(list(HANDLES._open))
    DATASETS.close(list(DATASETS._open))


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def hdf5(path: Path, arrays: Mapping[str, Any], **attributes: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        file.attrs.update(attributes)
    return path
