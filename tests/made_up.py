"""Data sets made up in memory, whose every value is known."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from morph.layout import DatasetSpec, Field, Statistics


class Counted:
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

    def read(self, trajectory: int, start: int, stop: int) -> Float[np.ndarray, "T F C D H W"]:
        self.read_log.append((trajectory, start, stop))
        t, f, c, x = np.ix_(np.arange(start, stop), range(2), range(2), range(self.spec.spatial_shape[2]))
        values = 1e4 * trajectory + 1e2 * t + 10 * f + 5 * c + x / 10
        values[:, 1, 1] = 0
        return values.astype(np.float32)[:, :, :, None, None, :]

    def parameters(self, trajectory: int) -> Mapping[str, float]:
        return {}
