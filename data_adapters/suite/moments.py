"""Scales of the training split, as The Well stores them in stats.yaml."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float

from data_adapters.suite.systems import System

__all__ = ["Moments", "write_statistics"]

# As in The Well: a field that hardly varies must not be divided by nothing.
SMALLEST_SCALE = 1e-4


class Moments:
    """Sums over trajectories, frames and grid points of each component: values, squares, and those of the increments
    from one frame to the next; in double precision, so that many trajectories add up without loss."""

    def __init__(self, system: System) -> None:
        self.system = system
        self._sums: dict[str, np.ndarray] = {}

    def add(self, fields: Mapping[str, Float[np.ndarray, "T ..."]]) -> None:
        """Count one trajectory."""
        for name, array in fields.items():
            values = np.asarray(array, np.float64).reshape(
                len(array), -1, array.shape[-1] if self.is_vector(name) else 1
            )
            deltas = np.diff(values, axis=0)
            parts = [[part.sum(axis=(0, 1)), (part**2).sum(axis=(0, 1))] for part in (values, deltas)]
            counts = [np.full((2, values.shape[-1]), part.shape[0] * part.shape[1]) for part in (values, deltas)]
            self._sums[name] = self._sums.get(name, 0) + np.array(
                [[*p, c[0]] for p, c in zip(parts, counts, strict=True)]
            )

    def is_vector(self, name: str) -> bool:
        """Whether the field has components."""
        return name in self.system.vectors

    def statistics(self) -> dict[str, dict[str, Any]]:
        """mean, std, rms, mean_delta, std_delta, rms_delta of each field: a number, a list of a vector's components."""
        found: dict[str, dict[str, Any]] = {}
        for name, sums in self._sums.items():
            for suffix, (total, squares, count) in zip(("", "_delta"), sums, strict=True):
                mean, square = total / count, squares / count
                scales = {"std": np.sqrt(np.maximum(square - mean**2, 0)), "rms": np.sqrt(square)}
                clipped = {key: np.maximum(scale, SMALLEST_SCALE) for key, scale in scales.items()}
                for key, value in {"mean": mean, **clipped}.items():
                    numbers = value.tolist()
                    found.setdefault(key + suffix, {})[name] = numbers if self.is_vector(name) else numbers[0]
        return found


def write_statistics(path: Path, moments: Moments) -> None:
    """Write stats.yaml."""
    path.write_text(yaml.safe_dump(moments.statistics(), sort_keys=False), encoding="utf-8")
