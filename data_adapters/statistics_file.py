"""What becomes of the scales that a survey computed: stored, left as they are, or held against published ones."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from data_adapters.grid import GridAdapter
from data_adapters.moments import SMALLEST_SCALE, Moments, write_statistics
from data_adapters.remote import is_remote
from data_adapters.statistics import load_statistics
from data_adapters.survey import Survey
from morph.layout import DatasetSpec, Statistics

__all__ = ["TOLERANCE", "settle_statistics"]

TOLERANCE = 0.05
"""Relative deviation of published scales from computed ones that is reported; of a mean, in standard deviations."""


def settle_statistics(
    found: Survey, open_train: Callable[[], GridAdapter], write: bool
) -> tuple[str, Statistics | None]:
    """What became of them, in words, and the scales that training will use.

    A file that states what it is of (`of:`) is our own, and is written anew where it differs.  One that does not is
    published with the data, and is never touched.

    Args:
        found: Its errors and warnings are added to.
        open_train: Opens the training split as training will.
        write: Whether to store the scales.
    """
    train = found.adapter
    if train is None:
        return "none", None
    path = train.statistics_file
    if found.errors:
        return "not stored, for there are errors", None
    try:
        stored = load_statistics(path)
        ours = stored is None or (isinstance(stored, Mapping) and "of" in stored)
        if ours and write:
            words = _store(path, found.moments, train, replaces=stored is not None)
        elif stored is None:
            words = f"none: there is no {path}, and statistics=false"
        else:
            words = f"{path}, {'as it was' if ours else 'which came with the data'}"
        used = open_train().statistics
    except (ValueError, OSError) as error:
        found.errors.append(str(error))
        return f"{path} cannot be used", None
    if used is not None:
        found.warnings += _deviations(path, used, found.moments, train.spec)
    return words, used


def _store(path: str, moments: Moments, train: GridAdapter, replaces: bool) -> str:
    """
    Raises:
        ValueError: The file cannot be written there.
    """
    try:
        if is_remote(path):
            raise OSError("a URL cannot be written to")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        written = write_statistics(path, moments, train.origin)
    except OSError as error:
        raise ValueError(
            f"{path}: the statistics cannot be written: {error.strerror or error}; name another place in the YAML "
            f"of the data set, statistics: /elsewhere/{Path(path).name}, or do without them with statistics=false"
        ) from error
    return f"{path}, {'as it was' if not written else 'computed anew' if replaces else 'written'}"


def _deviations(path: str, used: Statistics, moments: Moments, spec: DatasetSpec) -> list[str]:
    found = []
    for number, field in enumerate(spec.fields):
        values, increments = moments.scales(field.name)
        std, rms_increment = (
            np.sqrt(np.mean(np.maximum(scale, SMALLEST_SCALE) ** 2)) for scale in (values.std, increments.rms)
        )
        mean = used.mean[number, : len(field.components)].double().numpy()
        pairs = {
            "mean": (mean, values.mean, TOLERANCE * std),
            "std": (used.std[number].item(), std, TOLERANCE * std),
            "rms increment": (used.rms_increment[number].item(), rms_increment, TOLERANCE * rms_increment),
        }
        for what, (there, computed, allowed) in pairs.items():
            if np.max(np.abs(there - computed)) > allowed:
                found.append(
                    f"{path}: field {field.name!r}: its {what} is {_shown(there)} there and {_shown(computed)} in the "
                    "training split as it is used; for scales of your own name a file with `statistics`"
                )
    return found


def _shown(value: float | np.ndarray) -> str:
    return ", ".join(f"{number:.4g}" for number in np.atleast_1d(value))
