"""Checkpoints: find, check and load."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from morph.layout import DatasetSpec
from morph.model.morph import Morph

__all__ = ["Checkpoint", "find_checkpoint", "load_checkpoint", "read_checkpoint", "run_of"]


class Checkpoint(NamedTuple):
    """What a checkpoint says.

    config: architecture, see `Morph.config`.
    weights: tensors by name.
    context: frames of context that the model was trained with.
    specs: the data sets that it was trained on.
    options: data_dir, level and suite_seed of the training run.
    plan: what decides the order of its batches, see `MixtureDataModule.plan`, and which parts it trained.
    """

    config: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    context: int
    specs: Mapping[str, DatasetSpec]
    options: Mapping[str, Any]
    plan: Mapping[str, Any]

    def build(self) -> Morph:
        """The model, in evaluation mode."""
        model = Morph.from_config(self.config)
        try:
            model.load_state_dict(dict(self.weights))
        except RuntimeError as error:
            raise ValueError(f"checkpoint: its weights do not fit its configuration: {error}") from error
        return model.eval()


def find_checkpoint(path: str | Path, prefer: str = "best") -> Path:
    """The checkpoint file that a path means: itself, or the preferred one of a run's folder ("best" or "last").

    Raises:
        ValueError: There is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.exists():
        raise ValueError(f"checkpoint: there is nothing at {path}; give a .ckpt file or the folder of a run")
    order = [prefer, "last" if prefer == "best" else "best"]
    for folder in (path / "checkpoints", path):
        for name in order:
            if (folder / f"{name}.ckpt").is_file():
                return folder / f"{name}.ckpt"
    raise ValueError(f"checkpoint: the folder {path} holds no checkpoints/best.ckpt or checkpoints/last.ckpt")


def run_of(checkpoint: str | Path) -> Path:
    """The folder of the run that a checkpoint, or the folder itself, belongs to."""
    path = Path(checkpoint)
    folder = path if path.is_dir() else path.parent
    return folder.parent if folder.name == "checkpoints" else folder


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of a training run; executes nothing that it contains.

    Raises:
        ValueError: There is no such file, or it is none that morph wrote.
    """
    path = find_checkpoint(path)
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        size = path.stat().st_size
        reason = str(error).split(". ")[0].splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"checkpoint: {path} ({size} bytes) is empty, truncated or no checkpoint at all: {reason}"
        ) from error
    if not isinstance(stored, dict) or "morph" not in stored or "state_dict" not in stored:
        found = ", ".join(map(str, list(stored)[:6])) if isinstance(stored, dict) else type(stored).__name__
        raise ValueError(
            f"checkpoint: {path} was not written by morph.train; expected its parts morph and state_dict, found {found}"
        )
    about = stored["morph"]
    try:
        return Checkpoint(
            about["model"],
            {key.removeprefix("model."): value for key, value in stored["state_dict"].items()},
            about["context"],
            {name: DatasetSpec.from_dict(spec) for name, spec in about["datasets"].items()},
            about["options"],
            about["plan"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"checkpoint: {path} lacks what morph.train writes: {error!r}") from error


def load_checkpoint(path: str | Path) -> Morph:
    """The model of a checkpoint, ready to forecast.

    Args:
        path: A .ckpt file, or the folder of a run (its best checkpoint, else its last).

    Raises:
        ValueError: See `read_checkpoint`.
    """
    return read_checkpoint(path).build()
