"""Scales of the training split, computed in one pass and stored as The Well stores them in stats.yaml."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float

__all__ = ["SMALLEST_SCALE", "Moments", "write_statistics"]

# The Well clips the scales of stats.yaml here, and leaves out the increments of fields that do not change in time: a
# field that hardly varies must not be divided by nothing.
SMALLEST_SCALE = 1e-4


class Moments:
    """Mean and variance, over trajectories, frames and grid points, of each component and of its increments from one
    frame to the next.

    One pass in double precision; pieces are merged by the update of Chan, Golub and LeVeque (1979), which loses nothing
    where a mean is large beside the variation.  NaN counts nowhere.
    """

    def __init__(self) -> None:
        # field -> (values | increments, count | mean | sum of squared deviations, component)
        self._sums: dict[str, np.ndarray] = {}
        self._scalars: set[str] = set()

    def add(self, name: str, values: Float[np.ndarray, "T space C"], scalar: bool) -> None:
        """Count frames that follow each other."""
        values = np.asarray(values, np.float64)
        new = np.array([_moments(values), _moments(np.diff(values, axis=0))])
        if name in self._sums:
            new = np.array([_merged(*pair) for pair in zip(self._sums[name], new, strict=True)])
        self._sums[name] = new
        if scalar:
            self._scalars.add(name)

    def statistics(self) -> dict[str, dict[str, Any]]:
        """mean, std, rms, mean_delta, std_delta, rms_delta of each field: a number, a list of a vector's components."""
        found: dict[str, dict[str, Any]] = {}
        for name, sums in self._sums.items():
            for suffix, (count, mean, deviations) in zip(("", "_delta"), sums, strict=True):
                if not count.all():
                    continue
                variance = deviations / count
                scales = {"std": np.sqrt(variance), "rms": np.sqrt(variance + mean**2)}
                clipped = {key: np.maximum(scale, SMALLEST_SCALE) for key, scale in scales.items()}
                for key, value in {"mean": mean, **clipped}.items():
                    numbers = value.tolist()
                    found.setdefault(key + suffix, {})[name] = numbers[0] if name in self._scalars else numbers
        return found


def _moments(values: Float[np.ndarray, "T space C"]) -> Float[np.ndarray, "3 C"]:
    valid = np.isfinite(values)
    count = valid.sum((0, 1)).astype(np.float64)
    whole = bool(valid.all())
    mean = np.where(valid, values, 0).sum((0, 1)) if not whole else values.sum((0, 1))
    mean = mean / np.maximum(count, 1)
    squares = np.square(values - mean)
    return np.array([count, mean, (squares if whole else np.where(valid, squares, 0)).sum((0, 1))])


def _merged(first: Float[np.ndarray, "3 C"], second: Float[np.ndarray, "3 C"]) -> Float[np.ndarray, "3 C"]:
    count = first[0] + second[0]
    share = second[0] / np.maximum(count, 1)
    apart = second[1] - first[1]
    return np.array([count, first[1] + apart * share, first[2] + second[2] + apart**2 * first[0] * share])


def write_statistics(path: str | os.PathLike[str], moments: Moments, origin: Mapping[str, Any] | None = None) -> None:
    """Write stats.yaml, whole or not at all.

    Args:
        path: Where to.
        moments: Of the training split.
        origin: What the numbers depend on, so that they are not used for other data; None: of The Well's own form, by
            the names of the files' fields.
    """
    content: dict[str, Any] = {"of": dict(origin)} if origin is not None else {}
    text = yaml.safe_dump({**content, **moments.statistics()}, sort_keys=False)
    partial = Path(f"{path}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
