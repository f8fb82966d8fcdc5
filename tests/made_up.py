"""Data sets made up in memory, whose every value is known."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from morph.layout import DatasetSpec, Field, Statistics


def put(values: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    if out is None:
        return values
    out[...] = values
    return out


class _Alone:
    """Each frame is stored by itself."""

    def run(self, frame: int) -> range:
        return range(frame, frame + 1)


class Counted(_Alone):
    """An adapter whose values count: trajectory, frame, field, component and point can be read off each number."""

    statistics: Statistics | None = None

    def __init__(self, name: str = "counted", num_trajectories: int = 3, num_steps: int = 9, width: int = 8) -> None:
        fields = (Field("velocity", ("velocity_x", "velocity_y")), Field("density"))
        self.spec = DatasetSpec(name, fields, (1, 1, width), num_steps, 0.1, ("open", "open", "periodic"), ("x",))
        self.coordinates = {"x": np.arange(width) / width, "time": 0.1 * np.arange(num_steps)}
        self.num_trajectories = num_trajectories
        self.read_log: list[tuple[int, int, int]] = []

    def __len__(self) -> int:
        return self.num_trajectories

    def read(
        self, trajectory: int, start: int, stop: int, out: Float[np.ndarray, "T F C D H W"] | None = None
    ) -> Float[np.ndarray, "T F C D H W"]:
        self.read_log.append((trajectory, start, stop))
        t, f, c, x = np.ix_(np.arange(start, stop), range(2), range(2), range(self.spec.spatial_shape[2]))
        values = 1e4 * trajectory + 1e2 * t + 10 * f + 5 * c + x / 10
        values[:, 1, 1] = 0
        return put(values.astype(np.float32)[:, :, :, None, None, :], out)

    def parameters(self, trajectory: int) -> Mapping[str, float]:
        return {}


class Waves(_Alone):
    """Two scalar fields carried by a constant speed each, u(x, t) = sin(2 pi (x - c t) + phase): solved exactly.

    Args:
        spoil: (trajectory, frame) of a value that is made NaN.
    """

    statistics: Statistics | None = None

    def __init__(self, split: str, name: str = "waves", spoil: tuple[int, int] | None = None, speed: float = 0.5):
        fields = (Field("a"), Field("b"))
        self.spec = DatasetSpec(name, fields, (1, 1, 32), 12, 0.1, ("open", "open", "periodic"), ("x",), ("phase",))
        self.coordinates = {"x": np.arange(32) / 32, "time": 0.1 * np.arange(12)}
        self.split = split
        self.spoil = spoil
        self.speed = speed

    def __len__(self) -> int:
        return {"train": 8, "valid": 3, "test": 2}[self.split]

    def read(
        self, trajectory: int, start: int, stop: int, out: Float[np.ndarray, "T F C D H W"] | None = None
    ) -> Float[np.ndarray, "T F C D H W"]:
        t = 0.1 * np.arange(start, stop)[:, None, None]
        c = self.speed * np.array([1.0, -2.0])[None, :, None]
        x = self.coordinates["x"]
        values = np.sin(2 * np.pi * (x - c * t) + self.parameters(trajectory)["phase"])
        if self.spoil is not None and self.spoil[0] == trajectory and start <= self.spoil[1] < stop:
            values[self.spoil[1] - start] = np.nan
        return put(values.astype(np.float32)[:, :, None, None, None, :], out)

    def parameters(self, trajectory: int) -> Mapping[str, float]:
        return {"phase": 0.7 * trajectory + len(self)}


class Coast(Waves):
    """Waves beside land: no value at the first points in any frame, nor at two more points of field b.

    Args:
        land: Points of land; 0: the data set is masked and every value is there.
        gaps: Point 20 misses its value in every third frame of both fields.
    """

    def __init__(self, split: str, name: str = "coast", land: int = 6, gaps: bool = False, **options: object) -> None:
        super().__init__(split, name, **options)
        self.spec = replace(self.spec, masked=True)
        self.land, self.gaps = land, gaps

    def read(
        self, trajectory: int, start: int, stop: int, out: Float[np.ndarray, "T F C D H W"] | None = None
    ) -> Float[np.ndarray, "T F C D H W"]:
        values = super().read(trajectory, start, stop)
        if self.land:
            values[..., : self.land] = np.nan
            values[:, 1, ..., 15:17] = np.nan
        if self.gaps:
            values[np.arange(start, stop) % 3 == 0, ..., 20] = np.nan
        return put(values, out)
