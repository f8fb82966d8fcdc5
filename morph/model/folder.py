"""A model as a folder: config.json and safetensors, in one file or several, here or on the Hugging Face hub."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import save_torch_state_dict, snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from morph.claims import LARGEST_JSON, ClaimError

__all__ = ["fetch", "is_model_folder", "read_folder", "read_json", "read_tensors", "write_folder"]

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = f"{_WEIGHTS}.index.json"
_OURS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


def is_model_folder(folder: Path) -> bool:
    """Whether a folder holds a model, whole or not."""
    return (folder / _CONFIG).is_file() or (folder / _WEIGHTS).is_file() or (folder / _INDEX).is_file()


def write_folder(
    folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor], shard_size: str | int = "5GB"
) -> list[Path]:
    """Write a model whole or not at all, in place of one that is there; other files stay.

    Args:
        shard_size: Largest file, such as 5GB or 500MB, or in bytes.

    Returns:
        The files.

    Raises:
        ValueError: `shard_size` is none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".unfinished-") as name:
        unfinished = Path(name)
        try:
            save_torch_state_dict(dict(weights), unfinished, max_shard_size=shard_size)
        except ValueError as error:
            raise ValueError(f"shard_size: expected a size such as 5GB or 500MB, found {shard_size!r}") from error
        (unfinished / _CONFIG).write_text(json.dumps(dict(config), indent=2) + "\n")
        # All is written; what is left is renaming.  Without its configuration there is no model: it goes first and
        # comes last.
        (folder / _CONFIG).unlink(missing_ok=True)
        for path in folder.iterdir():
            if _OURS.fullmatch(path.name):
                path.unlink()
        for path in unfinished.iterdir():
            path.chmod((unfinished / _CONFIG).stat().st_mode)  # safetensors makes its files private
        files = sorted(unfinished.iterdir(), key=lambda path: (path.name == _CONFIG, path.name))
        return [path.replace(folder / path.name) for path in files]


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and weights; executes nothing that the files contain.

    Raises:
        ValueError: A file is missing, truncated or something else.
    """
    config = read_json(folder / _CONFIG)
    names = {_WEIGHTS}
    if (folder / _INDEX).is_file():
        index = read_json(folder / _INDEX)
        if not isinstance(index.get("weight_map"), dict):
            raise ValueError(f"{folder / _INDEX} lacks weight_map, which file holds which tensor")
        names = set(index["weight_map"].values())
        if wrong := [name for name in names if not isinstance(name, str) or not _OURS.fullmatch(name)]:
            raise ValueError(
                f"{folder / _INDEX} names {wrong[0]!r}, expected files as model-00001-of-00002.safetensors"
            )
    weights: dict[str, Tensor] = {}
    for path in sorted(folder / name for name in names):
        weights |= read_tensors(path)
    return config, weights


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of safetensors.

    Raises:
        ValueError: It is missing, truncated or something else.
    """
    if not path.is_file():
        raise ValueError(f"there is no {path}, which belongs to {path.parent}; copy the folder as a whole")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} ({path.stat().st_size} bytes) is truncated or no safetensors: {error}") from error


def fetch(repository: str, **options: Any) -> Path:
    """A model's files from the Hugging Face hub, into its cache; see `huggingface_hub.snapshot_download`."""
    return Path(snapshot_download(repository, allow_patterns=[_CONFIG, "model*.safetensors", _INDEX], **options))


def read_json(path: Path) -> dict[str, Any]:
    """The object that a file of JSON holds.

    Raises:
        ValueError: It is missing or something else.
    """
    if not path.is_file():
        raise ValueError(f"there is no {path}, which belongs to {path.parent}; copy the folder as a whole")
    if (size := path.stat().st_size) > LARGEST_JSON:
        raise ClaimError(f"{path}: expected at most {LARGEST_JSON:,} bytes of JSON, found {size:,}")
    try:
        stored = json.loads(path.read_text())
    except RecursionError as error:
        raise ClaimError(f"{path}: it is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(stored, dict):
        raise ValueError(f"{path} should hold an object, found {type(stored).__name__}")
    return stored
