"""What a result came from: the resolved configuration, the revision of the code, versions, hardware."""

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

__all__ = ["naming", "origin", "record", "write_whole"]

_PACKAGES = ("morph", "torch", "lightning", "numpy", "h5py", "xarray")
_BASELINES = ("neuraloperator", "monai")  # an extra, which may be missing


def record(folder: Path, config: DictConfig, name: str) -> None:
    """Write <name>.yaml (the resolved configuration) and <name>.json (revision, versions, hardware, command)."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{name}.yaml", OmegaConf.to_yaml(config, resolve=True))
    write_whole(folder / f"{name}.json", json.dumps(origin(), indent=2) + "\n")


def write_whole(path: Path, content: str | bytes | memoryview) -> None:
    """Write a file whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with naming(path):
            unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Where a write fails, the error names the file, which the system does not for one that is open."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def origin() -> dict[str, Any]:
    """Command, revision, versions and hardware of this process."""
    return {
        "command": shlex.join(sys.orig_argv),
        "git": _git_revision(),
        "python": platform.python_version(),
        "packages": {
            **{name: _version(name) for name in _PACKAGES},
            **{name: found for name in _BASELINES if (found := _version(name))},
        },
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a source tree that is not installed
        return None


def _git_revision() -> str | None:
    """Revision of the checkout that this package runs from, with "-dirty" where it was changed; None outside of one."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        # A package installed inside somebody else's checkout must not take their revision for its own.
        tracked = subprocess.run(
            ["git", "-C", str(here), "ls-files", "--error-unmatch", Path(__file__).name], capture_output=True
        )
        if tracked.returncode:
            return None
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
