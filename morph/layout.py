"""The tensor layout that every data set is brought into, and the nouns that describe one.

Axis legend
===========
====  ==========================================================================
B     batch of windows
T     context time
S     target time steps
F     fields (velocity, density, ...); never an alias of torch.nn.functional
C     components of a field (1 for a scalar)
D H W depth, height, width: 1-D data is (1, 1, W), 2-D data is (1, H, W)
d h w token grid
E     embedding
M     members of an ensemble
====  ==========================================================================

Values are in physical units everywhere outside the model.  Fields with fewer components than the widest field of
their data set are filled up with zeros; `DatasetSpec.component_mask` says which components are real.

Data may have points without a value, such as land in an ocean (`DatasetSpec.masked`).  A reader returns NaN there;
`morph.data.windows.fill_absent` puts a finite filler in its place and says where; it counts in no loss and no metric,
and land in no scale.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = [
    "AXES",
    "Batch",
    "Boundary",
    "Conditions",
    "Context",
    "DatasetSpec",
    "Field",
    "State",
    "Statistics",
    "Target",
    "Tokens",
    "TrainedOn",
    "check_name",
]

AXES = ("D", "H", "W")

Context = Float[Tensor, "B T F C D H W"]
Target = Float[Tensor, "B S F C D H W"]
State = Float[Tensor, "B F C D H W"]
Tokens = Float[Tensor, "B T d h w E"]

Boundary = Literal["periodic", "open", "wall"]


def check_name(what: str, name: object) -> None:
    """Refuse a name that could not be that of a file and of a variable in one, or would not show what it is.

    Args:
        what: It is the name of, for the message.
        name: Any that a file or a user gives.

    Raises:
        ValueError: It is empty, no text, `.` or `..`, holds a slash, or characters that are not shown.
    """
    if (
        not isinstance(name, str)
        or not name.isprintable()
        or {"/", "\\"} & set(name)
        or name.strip() in ("", ".", "..")
    ):
        raise ValueError(
            f"{what} {name!r}: expected a name in printable characters without slashes; choose another one, as in "
            "fields: [{name: u, from: ...}] or name: ..."
        )


@dataclass(frozen=True)
class Field:
    """A scalar or vector field.

    Raises:
        ValueError: A name is none, see `check_name`, or repeats; or the unit is more than a line of text.

    Args:
        name: What the field is called, "velocity".
        components: The names of its components, ("velocity_x", "velocity_y"); a scalar has one, its own name.  These
            are the variable names of every file that is written.
        unit: Physical unit, None where the data set does not state one.
        variables: What each component is called in the files that it was read from, `name[i]` for entry i of a channel
            axis; () where it is not known.  It decides nothing and is not compared.
    """

    name: str
    components: tuple[str, ...] = ()
    unit: str | None = None
    variables: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "components", tuple(self.components) or (self.name,))
        for name in (self.name, *self.components):
            check_name("field", name)
        if self.unit is not None and not str(self.unit).isprintable():
            raise ValueError(f"field {self.name!r}: expected a unit in one line of text, found {self.unit!r}")
        if len(set(self.components)) != len(self.components):
            raise ValueError(f"field {self.name!r}: component names repeat: {', '.join(self.components)}")


@dataclass(frozen=True)
class DatasetSpec:
    """What a data set holds.

    Args:
        name: Name of the data set.
        fields: Its fields, in the order of the field axis F.
        spatial_shape: (D, H, W); an axis that the data does not have is 1.
        num_steps: Frames of each trajectory.
        dt: Time between two frames, in the data set's unit of time.
        boundary: Boundary condition on D, H and W.
        axes: Names of the spatial axes that the data has, ("x", "y"), mapped onto the last of (D, H, W) in this order.
        parameters: Names of the per-trajectory parameters (viscosity, ...).
        masked: Values may be NaN: land, missing; they count in no loss and no metric.  False: a NaN is an error.

    Raises:
        ValueError: Two fields or components share a name, a shape is not positive, or a boundary is unknown.
    """

    name: str
    fields: tuple[Field, ...]
    spatial_shape: tuple[int, int, int]
    num_steps: int
    dt: float
    boundary: tuple[Boundary, Boundary, Boundary]
    axes: tuple[str, ...]
    parameters: tuple[str, ...] = ()
    masked: bool = False

    def __post_init__(self) -> None:
        check_name("data set", self.name)
        for name in (*self.axes, *(path.rpartition("/")[2] for path in self.parameters)):
            check_name(f"data set {self.name!r}: axis or parameter", name)
        names = [component for field in self.fields for component in field.components]
        if not names:
            raise ValueError(f"data set {self.name!r}: it has no field")
        if len(set(names)) != len(names):
            raise ValueError(f"data set {self.name!r}: component names repeat: {', '.join(names)}")
        if len(self.spatial_shape) != 3 or min(self.spatial_shape) < 1:
            raise ValueError(f"data set {self.name!r}: expected a positive (D, H, W), found {self.spatial_shape}")
        if not 1 <= len(self.axes) <= 3 or any(size > 1 for size in self.spatial_shape[: 3 - len(self.axes)]):
            raise ValueError(f"data set {self.name!r}: axes {self.axes} do not name the axes of {self.spatial_shape}")
        for boundary in self.boundary:
            if boundary not in get_args(Boundary):
                choices = ", ".join(get_args(Boundary))
                raise ValueError(f"data set {self.name!r}: expected a boundary of {choices}, found {boundary!r}")

    @property
    def num_fields(self) -> int:
        """Length of the field axis F."""
        return len(self.fields)

    @property
    def num_components(self) -> int:
        """Length of the component axis C: that of the widest field."""
        return max(len(field.components) for field in self.fields)

    @property
    def component_mask(self) -> Bool[np.ndarray, "F C"]:
        """True for a physical component, False for filler."""
        counts = np.array([len(field.components) for field in self.fields])
        return np.arange(self.num_components) < counts[:, None]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, for a checkpoint or a file."""
        return _plain(asdict(self))

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "DatasetSpec":
        """Inverse of `to_dict`; what was stored before there were masks and variables has none."""
        fields = tuple(
            Field(f["name"], tuple(f["components"]), f["unit"], tuple(f.get("variables", ()))) for f in stored["fields"]
        )
        d, h, w = stored["spatial_shape"]
        boundary_d, boundary_h, boundary_w = stored["boundary"]
        return cls(
            name=stored["name"],
            fields=fields,
            spatial_shape=(d, h, w),
            num_steps=stored["num_steps"],
            dt=stored["dt"],
            boundary=(boundary_d, boundary_h, boundary_w),
            axes=tuple(stored["axes"]),
            parameters=tuple(stored["parameters"]),
            masked=stored.get("masked", False),
        )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


class Statistics(NamedTuple):
    """Scales of a data set, from its training split alone, in physical units; absent points count nowhere.

    mean: average of each component over trajectories, time and space.
    std: root of the mean squared deviation from `mean`, pooled over the components of a field.
    rms_increment: root mean square of the change from one frame to the next, pooled likewise.
    """

    mean: Float[Tensor, "F C"]
    std: Float[Tensor, "F"]
    rms_increment: Float[Tensor, "F"]


@dataclass(frozen=True)
class TrainedOn:
    """What a model knows of its training.

    Args:
        context: Frames of context that it was trained with.
        specs: The data sets, by name.
        statistics: Scales of their training splits, of those that have them.
        before: Names of the data sets of earlier training, of a model that was trained further.
    """

    context: int
    specs: Mapping[str, DatasetSpec] = field(default_factory=dict)
    statistics: Mapping[str, Statistics] = field(default_factory=dict)
    before: tuple[str, ...] = ()

    @property
    def names(self) -> set[str]:
        """Of all data sets that it was ever trained on."""
        return {*self.specs, *self.before}

    def scales_of(self, spec: DatasetSpec) -> Statistics | None:
        """The scales with which it was trained on a data set, by its name and fields; None where it was not."""
        own = self.specs.get(spec.name)
        return self.statistics.get(spec.name) if own is not None and own.fields == spec.fields else None

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, for a checkpoint or a file."""
        return {
            "context": self.context,
            "datasets": {name: spec.to_dict() for name, spec in self.specs.items()},
            "statistics": {
                name: {key: value.tolist() for key, value in scales._asdict().items()}
                for name, scales in self.statistics.items()
            },
            "before": list(self.before),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "TrainedOn":
        """Inverse of `to_dict`; what was stored before there were statistics has none."""
        return cls(
            stored["context"],
            {name: DatasetSpec.from_dict(spec) for name, spec in stored["datasets"].items()},
            {
                name: Statistics(**{key: torch.tensor(value) for key, value in scales.items()})
                for name, scales in stored.get("statistics", {}).items()
            },
            tuple(stored.get("before", ())),
        )


class Conditions(NamedTuple):
    """What is known of a system besides its frames; one for all samples of a batch, except for `absent`.

    component_mask: which components are physical; fillers are zero and count nowhere.
    boundary: boundary condition on D, H and W.
    statistics: scales of the training split, None where there is none.
    all_physical: the mask is True throughout, known without reading it from the device; False: it may be.
    absent: points that hold no data in any frame of the context (land); scales leave them out, and a forecast keeps the
        filler that the context has there.  None: every point holds data.
    """

    component_mask: Bool[Tensor, "F C"]
    boundary: tuple[Boundary, Boundary, Boundary] = ("open", "open", "open")
    statistics: Statistics | None = None
    all_physical: bool = False
    absent: Bool[Tensor, "B F C D H W"] | None = None


class Batch(NamedTuple):
    """Windows of one data set.

    windows: (trajectory, first frame) of each sample, as the data set counts them, so that a fault can be traced.
    valid: which points of the target hold data, None where the data set is not masked: all do.  The others, and those
        of the context, hold a finite filler.
    """

    context: Context
    target: Target
    conditions: Conditions
    dataset: str
    windows: Int[Tensor, "B 2"]
    valid: Bool[Tensor, "B S F C D H W"] | None = None
