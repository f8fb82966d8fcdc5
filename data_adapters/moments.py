"""Scales of the training split, computed in one pass and stored as The Well stores them in stats.yaml."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from jaxtyping import Float

__all__ = ["SMALLEST_SCALE", "Moments", "Scales", "write_statistics"]

# The Well clips the scales of stats.yaml here, and leaves out the increments of fields that do not change in time: a
# field that hardly varies must not be divided by nothing.
SMALLEST_SCALE = 1e-4


class Scales(NamedTuple):
    """Of the values of a field, or of their increments from one frame to the next; each (C,), not clipped.

    num_values: that were counted; where there is none, the others are 0.
    """

    num_values: Float[np.ndarray, "C"]
    mean: Float[np.ndarray, "C"]
    std: Float[np.ndarray, "C"]
    rms: Float[np.ndarray, "C"]


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

    def add(
        self,
        name: str,
        values: Float[np.ndarray, "T space C"],
        scalar: bool,
        before: Float[np.ndarray, "space C"] | None = None,
    ) -> None:
        """Count frames that follow each other.

        Args:
            name: Of the field.
            values: The frames.
            scalar: Its scales are numbers, not lists.
            before: The frame before the first, where a trajectory comes in pieces: the increment from it counts, and
                its values, which have been counted, do not.
        """
        values = np.asarray(values, np.float64)
        increments = _moments(np.diff(values, axis=0))
        if before is not None:
            increments = _merged(_moments(values[:1] - np.asarray(before, np.float64)), increments)
        new = np.array([_moments(values), increments])
        if name in self._sums:
            new = np.array([_merged(*pair) for pair in zip(self._sums[name], new, strict=True)])
        self._sums[name] = new
        if scalar:
            self._scalars.add(name)

    def scales(self, name: str) -> tuple[Scales, Scales]:
        """Of the values of a field, and of its increments.

        Raises:
            KeyError: Nothing of this field was counted.
        """
        values, increments = (_scales(*sums) for sums in self._sums[name])
        return values, increments

    def statistics(self) -> dict[str, dict[str, Any]]:
        """mean, std, rms, mean_delta, std_delta, rms_delta of each field: a number, a list of a vector's components."""
        found: dict[str, dict[str, Any]] = {}
        for name in self._sums:
            for suffix, scales in zip(("", "_delta"), self.scales(name), strict=True):
                if not scales.num_values.all():
                    continue
                clipped = {key: np.maximum(getattr(scales, key), SMALLEST_SCALE) for key in ("std", "rms")}
                for key, value in {"mean": scales.mean, **clipped}.items():
                    numbers = value.tolist()
                    found.setdefault(key + suffix, {})[name] = numbers[0] if name in self._scalars else numbers
        return found


def _scales(count: Float[np.ndarray, "C"], mean: Float[np.ndarray, "C"], deviations: Float[np.ndarray, "C"]) -> Scales:
    variance = deviations / np.maximum(count, 1)
    return Scales(count, mean, np.sqrt(variance), np.sqrt(variance + mean**2))


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


def write_statistics(path: str | os.PathLike[str], moments: Moments, origin: Mapping[str, Any] | None = None) -> bool:
    """Write stats.yaml, whole or not at all; False where the same stands there already, and is left as it is.

    Args:
        path: Where to.
        moments: Of the training split.
        origin: What the numbers depend on, so that they are not used for other data; None: of The Well's own form, by
            the names of the files' fields.

    Raises:
        OSError: The file cannot be written.
    """
    content: dict[str, Any] = {"of": dict(origin)} if origin is not None else {}
    text = yaml.safe_dump({**content, **moments.statistics()}, sort_keys=False)
    if Path(path).is_file() and Path(path).read_text(encoding="utf-8") == text:
        return False
    partial = Path(f"{path}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return True
