"""Scales of the training split, read from a stats.yaml of The Well or of our own."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jaxtyping import Float

from data_adapters.contents import TIME, Source
from data_adapters.moments import SMALLEST_SCALE
from data_adapters.remote import is_remote, read_text
from morph.claims import load_yaml, read_yaml
from morph.layout import DatasetSpec, Statistics

__all__ = ["load_statistics", "read_statistics"]


def read_statistics(
    path: str,
    fields: Sequence[Sequence[str]],
    sources: Sequence[Sequence[Source]],
    spec: DatasetSpec,
    origin: Callable[[], Mapping[str, Any]],
    frame_step: int = 1,
) -> Statistics | None:
    """Scales from a stats.yaml, float32; None where there is no such file.

    Over the components of a field, variances and mean square increments are averaged.

    Args:
        path: Path or URL of the file.
        fields: For each field, the names of the arrays that it is made of.
        sources: For each field, these arrays.
        spec: Of the data set.
        origin: What the statistics depend on; a file that states another is refused, one of more fields is not.
        frame_step: Every how manyth stored frame is used.

    Raises:
        ValueError: The file is malformed, lacks a field, has another number of components for it, or is of other data.
    """
    stored = load_statistics(path)
    if stored is None:
        return None
    own = stored.get("of") if isinstance(stored, Mapping) else None
    if own is None and frame_step != 1:
        raise ValueError(
            f"{path}: expected statistics of every frame that is used, found those that came with the data, whose "
            f"increments are from one stored frame to the next and not over frames.step={frame_step}; name another "
            "file with the option `statistics` and let python -m data_adapters.check write it"
        )
    if own is not None and (differs := _difference(origin(), own)):
        raise ValueError(
            f"{path}: expected statistics of {differs[0]}, found those of {differs[1]}; compute them again with "
            "python -m data_adapters.check, or name another file with the option `statistics`"
        )
    mean = np.zeros((spec.num_fields, spec.num_components))
    std, rms_increment = np.zeros(spec.num_fields), np.zeros(spec.num_fields)
    for number, (names, parts) in enumerate(zip(fields, sources, strict=True)):
        pairs = [(name, part.num_components, TIME in part.dims) for name, part in zip(names, parts, strict=True)]
        if own is not None:  # by the fields of the data set, not by the arrays of its files
            field = spec.fields[number]
            pairs = [(field.name, len(field.components), any(TIME in part.dims for part in parts))]
        means = np.concatenate([_scale(stored, path, "mean", *pair) for pair in pairs])
        mean[number, : len(means)] = means
        for scale, key in ((std, "std"), (rms_increment, "rms_delta")):
            values = np.concatenate([_scale(stored, path, key, *pair) for pair in pairs])
            scale[number] = np.sqrt(np.mean(np.square(values)))
    return Statistics(*(torch.from_numpy(values.astype(np.float32)) for values in (mean, std, rms_increment)))


def load_statistics(path: str) -> Any:
    """Content of a stats.yaml, None where there is no such file.

    Raises:
        ValueError: It is no YAML, or cannot be read.
    """
    try:
        if is_remote(path):
            text = read_text(path)
            return None if text is None else load_yaml(text, path) or {}
        return read_yaml(Path(path)) or {} if Path(path).exists() else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: expected readable YAML, found: {error}") from error


def _difference(expected: Mapping[str, Any], found: Any) -> tuple[Any, Any] | None:
    """The first two entries that differ; of the fields, those that are wanted count."""
    found = found if isinstance(found, Mapping) else {}
    for key, value in expected.items():
        other = found.get(key)
        if key == "fields" and isinstance(other, Mapping):
            other = {name: other[name] for name in value if name in other}
        if value != other:
            return {key: value}, {key: other}
    return None


def _scale(
    stored: Any, path: str, key: str, name: str, num_components: int, time_varying: bool
) -> Float[np.ndarray, "C"]:
    table = stored.get(key) if isinstance(stored, Mapping) else None
    if not isinstance(table, Mapping):
        raise ValueError(f"{path}: expected {key!r} to map field names to numbers, found {table!r}")
    if name not in table and key == "rms_delta" and not time_varying:
        return np.full(num_components, SMALLEST_SCALE)
    try:
        values = np.asarray(table[name], dtype=np.float64).reshape(-1)
    except (KeyError, TypeError, ValueError):
        values = np.empty(0)
    valid = np.isfinite(values) if key == "mean" else np.isfinite(values) & (values >= 0)
    if values.size != num_components or not valid.all():
        raise ValueError(
            f"{path}: {key}: field {name!r}: expected {num_components} finite number(s)"
            f"{'' if key == 'mean' else ', not negative'}, found {table.get(name, 'no entry')!r}; "
            "compute the statistics of the training split again, or remove the file"
        )
    return values if key == "mean" else np.maximum(values, SMALLEST_SCALE)
