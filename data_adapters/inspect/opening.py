"""The proposal through the real reader: each split opened, and a window read of each."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import yaml

from morph.data.adapter import DatasetAdapter
from morph.layout import DatasetSpec

__all__ = ["FOR_TRAINING", "Split", "open_splits"]

FOR_TRAINING = ("batch_size", "card", "prepare")
"""Entries of a data set's YAML that its reader does not take."""


class Split(NamedTuple):
    """What a split holds in the common layout: (N, T, F, C, D, H, W)."""

    shape: tuple[int, ...]
    spec: DatasetSpec
    absent: float


def open_splits(text: str, window: int) -> dict[str, Split]:
    """Open what a YAML describes.

    Args:
        text: The YAML.
        window: Frames to read of each split, fewer where it has fewer.

    Raises:
        FileNotFoundError: A file or a split is missing.
        ValueError: The reader refuses the files or an option.
    """
    config: dict[str, Any] = yaml.safe_load(text)
    module, _, name = config.pop("_target_").rpartition(".")
    arguments: Mapping[str, Any] = {key: value for key, value in config.items() if key not in FOR_TRAINING}
    if arguments.get("missing") == "fill":
        # What NaN is filled with, the check computes, which needs the YAML.
        arguments = {**arguments, "missing": "mask"}
    found = {}
    for split in ("train", "valid", "test"):
        adapter: DatasetAdapter = getattr(import_module(module), name)(split=split, **arguments)
        spec = adapter.spec
        values = adapter.read(0, 0, min(window, spec.num_steps))
        physical = values[:, spec.component_mask]
        shape = (len(adapter), spec.num_steps, spec.num_fields, spec.num_components, *spec.spatial_shape)
        found[split] = Split(shape, spec, float(np.isnan(physical).mean()))
        close = getattr(adapter, "close", None)
        if close is not None:
            close()
    return found
