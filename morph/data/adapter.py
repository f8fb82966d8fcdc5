"""The protocol between file formats and the model: what a reader of one file family offers."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from morph.layout import DatasetSpec, Statistics

__all__ = ["DatasetAdapter"]


@runtime_checkable
class DatasetAdapter(Protocol):
    """One split of one data set on disk.

    An adapter can be pickled and forked: it opens its files in the process that reads, on the first read.
    """

    @property
    def spec(self) -> DatasetSpec:
        """Fields, shape, time step and boundary."""

    @property
    def statistics(self) -> Statistics | None:
        """Scales of the training split, None where the data set states none."""

    @property
    def coordinates(self) -> Mapping[str, Float[np.ndarray, "_"]]:
        """Coordinate values of each axis in `spec.axes`, and of "time"."""

    def __len__(self) -> int:
        """Number of trajectories."""

    def run(self, frame: int) -> range:
        """Frames that are stored together with this one, so that reading it costs reading all; often it is alone."""

    def read(
        self, trajectory: int, start: int, stop: int, out: Float[np.ndarray, "T F C D H W"] | None = None
    ) -> Float[np.ndarray, "T F C D H W"]:
        """Frames start to stop (exclusive) of a trajectory, float32, physical units, filler zero; reads no other bytes.

        Where `spec.masked`, a point without data is NaN.

        Raises:
            IndexError: The trajectory or a frame does not exist.
            ValueError: The file is not what the spec says; names file and field.
        """

    def parameters(self, trajectory: int) -> Mapping[str, float]:
        """Value of each of `spec.parameters` for one trajectory."""
