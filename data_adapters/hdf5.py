"""Readers of HDF5 files: `WellAdapter` for the layout of The Well (https://polymathic-ai.org/the_well/data_format)."""

import operator
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, product
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from jaxtyping import Float

from data_adapters.handles import HANDLES
from data_adapters.well_layout import Contents, Source, field_ranks, read_contents, read_statistics
from morph.layout import DatasetSpec, Field, Statistics

__all__ = ["WellAdapter", "uniform_step"]

SPLITS = ("train", "valid", "test")
SUFFIXES = (".h5", ".hdf5")


class WellAdapter:
    """One split of a data set in The Well's layout: `<path>/data/<split>/*.{h5,hdf5}` and `<path>/stats.yaml`.

    The axes of a file map onto the last of (D, H, W) in the file's index order.  A field that is constant in time, over
    trajectories or along an axis is repeated.  Metadata is read here, once; values when they are asked for.

    Args:
        path: The data set's folder.
        split: train, valid or test.
        fields: Which fields, in the order of the axis F.  Each is the name of one in the file, or a mapping with
            `name`, `from` and optionally `unit`, where `from` is the file's name for it, or a list of scalar fields
            that together make a vector.  None takes all scalars and then all vectors, in the file's order; rank-2
            tensors (row by row, C * C components) are read only when they are named here.
        name: Name of the data set; None takes the files' `dataset_name`, or else that of the folder.

    Raises:
        FileNotFoundError: The folder, the split or every file in it is missing.
        ValueError: A file is damaged, not in the layout, or differs from the first one; the split or a field is
            unknown; `stats.yaml` is malformed or lacks a field.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        split: str = "train",
        fields: Sequence[str | Mapping[str, Any]] | None = None,
        name: str | None = None,
    ) -> None:
        folder = Path(path)
        self._files = _split_files(folder, split)
        with _fresh(self._files[0]) as file:
            choices = _all_fields(file) if fields is None else _choices(fields, folder)
        parts = [choice.parts for choice in choices]

        contents: list[Contents] = []
        steps: list[float] = []
        for file_path in self._files:
            with _fresh(file_path) as file:
                contents.append(read_contents(file, parts))
            steps.append(uniform_step(contents[-1].times, f"{file_path}: dimensions/time"))
            for what, expected, found in _differences(contents[0], steps[0], contents[-1], steps[-1]):
                raise ValueError(
                    f"{file_path}: {what} is not that of {self._files[0]}: expected {expected}, found {found}; "
                    "the files of a split must agree, move this one into a data set of its own"
                )

        first = contents[0]
        self._sources = first.sources
        self._spec = DatasetSpec(
            name=name or first.dataset_name or folder.name,
            fields=tuple(_field(*pair, first.axes, folder) for pair in zip(choices, first.sources, strict=True)),
            spatial_shape=first.spatial_shape,
            num_steps=len(first.times),
            dt=steps[0],
            boundary=first.boundary,
            axes=first.axes,
            parameters=tuple(first.parameters),
        )
        self._coordinates = {**first.coordinates, "time": first.times.astype(np.float64)}
        self._parameters = {key: np.concatenate([c.parameters[key] for c in contents]) for key in first.parameters}
        self._ends = list(accumulate(c.num_trajectories for c in contents))
        self._statistics = read_statistics(folder / "stats.yaml", parts, first.sources, self._spec)

    @property
    def spec(self) -> DatasetSpec:
        """Fields, shape, time step and boundary.

        An axis is periodic or a wall where both of its ends are; one whose ends differ is open.
        """
        return self._spec

    @property
    def statistics(self) -> Statistics | None:
        """Scales of the training split from `stats.yaml`, float32; None where there is no such file."""
        return self._statistics

    @property
    def coordinates(self) -> Mapping[str, Float[np.ndarray, "_"]]:
        """Coordinates of each axis in `spec.axes`, and of "time": float64, those of the first trajectory."""
        return self._coordinates

    def __len__(self) -> int:
        """Number of trajectories in all files."""
        return self._ends[-1]

    def read(self, trajectory: int, start: int, stop: int) -> Float[np.ndarray, "T F C D H W"]:
        """Frames start to stop (exclusive) of a trajectory, float32, physical units, filler zero; reads nothing else.

        Raises:
            IndexError: The trajectory or a frame does not exist.
            FileNotFoundError: The file has been removed.
            ValueError: Values cannot be read; names file and field.
        """
        path, row = self._locate(trajectory)
        start, stop = operator.index(start), operator.index(stop)
        spec = self._spec
        if not 0 <= start < stop <= spec.num_steps:
            raise IndexError(
                f"data set {spec.name!r}: expected frames start < stop within 0 and {spec.num_steps}, "
                f"found start {start} and stop {stop}"
            )
        frames = np.zeros((stop - start, spec.num_fields, spec.num_components, *spec.spatial_shape), np.float32)
        with HANDLES.lend(path) as file:
            for number, sources in enumerate(self._sources):
                component = 0
                for source in sources:
                    target = frames[:, number, component : component + source.num_components]
                    component += source.num_components
                    try:
                        _fill(target, file[source.path], row, slice(start, stop), source)
                    except (OSError, KeyError, TypeError, ValueError) as error:
                        raise ValueError(
                            f"{path}: {source.path}: expected frames {start} to {stop} of its trajectory {row}, "
                            f"found: {error}; the file is damaged or has changed, fetch or generate it again"
                        ) from error
        return frames

    def parameters(self, trajectory: int) -> Mapping[str, float]:
        """Value of each of `spec.parameters` for one trajectory.

        Raises:
            IndexError: The trajectory does not exist.
        """
        self._locate(trajectory)
        return {name: float(values[trajectory]) for name, values in self._parameters.items()}

    def close(self) -> None:
        """Close the files in this process; the next read opens them again."""
        HANDLES.close(self._files)

    def _locate(self, trajectory: int) -> tuple[Path, int]:
        """The file of a trajectory, and its row there."""
        trajectory = operator.index(trajectory)
        if not 0 <= trajectory < len(self):
            raise IndexError(
                f"data set {self._spec.name!r}: expected a trajectory of 0 to {len(self) - 1}, found {trajectory}"
            )
        number = bisect_right(self._ends, trajectory)
        return self._files[number], trajectory - (self._ends[number - 1] if number else 0)


def uniform_step(times: Float[np.ndarray, "T"], where: str) -> float:
    """The time between two frames, where it is the same throughout to one part in a thousand (and to rounding).

    Args:
        times: Time of each frame.
        where: File and data set, for the message.

    Raises:
        ValueError: There are fewer than two frames, time does not increase, or the steps differ.
    """
    if len(times) < 2 or not np.isfinite(times).all():
        raise ValueError(f"{where}: expected the finite times of two or more frames, found {times}")
    # Late in a long run, a time that was rounded to float32 is off by more than a thousandth of a small step.
    rounding = 2 * np.finfo(times.dtype).eps * np.abs(times).max() if times.dtype.kind == "f" else 0.0
    steps = np.diff(times.astype(np.float64))
    dt = float(np.median(steps))
    if dt <= 0:
        raise ValueError(f"{where}: expected times that increase, found steps of {dt:g}")
    wrong = np.abs(steps - dt) > 1e-3 * dt + rounding
    if wrong.any():
        frame = int(np.argmax(wrong))
        raise ValueError(
            f"{where}: expected equal time steps, found {steps[frame]:g} from frame {frame} to {frame + 1} where most "
            f"are {dt:g}; interpolate to equal steps, or cut the file there"
        )
    return float(steps.mean())


class _Choice(NamedTuple):
    """A field as the user wants it, and the names of the file's fields that it is made of."""

    name: str
    parts: tuple[str, ...]
    grouped: bool = False
    unit: str | None = None


def _all_fields(file: h5py.File) -> list[_Choice]:
    ranks = field_ranks(file)
    choices = [_Choice(name, (name,)) for name, rank in ranks.items() if rank < 2]
    if not choices:
        raise ValueError(
            f"{file.filename}: expected a scalar or vector field, found {', '.join(ranks) or 'no field at all'}; "
            "a tensor field is read when `fields` names it"
        )
    return choices


def _choices(fields: Sequence[str | Mapping[str, Any]], folder: Path) -> list[_Choice]:
    if isinstance(fields, str) or not isinstance(fields, Sequence) or not fields:
        raise ValueError(f"{folder}: expected `fields` to be a list of one or more fields, found {fields!r}")
    choices = []
    for entry in fields:
        if isinstance(entry, str):
            choices.append(_Choice(entry, (entry,)))
            continue
        if not isinstance(entry, Mapping) or "name" not in entry or set(entry) - {"name", "from", "unit"}:
            raise ValueError(f"{folder}: expected a field's name, or a mapping of name, from and unit, found {entry!r}")
        parts = entry.get("from", entry["name"])
        grouped = isinstance(parts, Sequence) and not isinstance(parts, str)
        parts = tuple(parts) if grouped else (parts,)
        if not parts or not all(isinstance(part, str) for part in parts):
            raise ValueError(f"{folder}: expected `from` to be a field or a list of fields, found {entry!r}")
        choices.append(_Choice(str(entry["name"]), parts, grouped, entry.get("unit")))
    return choices


def _field(choice: _Choice, sources: tuple[Source, ...], axes: tuple[str, ...], folder: Path) -> Field:
    if choice.grouped and any(source.components for source in sources):
        raise ValueError(
            f"{folder}: field {choice.name!r}: expected a list of scalar fields in `from`, found "
            f"{', '.join(source.path for source in sources)}; name a vector field without a list"
        )
    counts = (len(sources),) if choice.grouped else sources[0].components
    labels = ["".join(indices) for indices in product(*(_labels(count, axes) for count in counts))]
    names = tuple(f"{choice.name}_{label}" if label else choice.name for label in labels)
    return Field(choice.name, names, choice.unit)


def _labels(count: int, axes: tuple[str, ...]) -> tuple[str, ...]:
    cartesian = ("x", "y", "z")
    if count == len(axes):
        return axes
    if len(axes) < count <= 3 and axes == cartesian[: len(axes)]:
        return cartesian[:count]  # all three components of a flow that is computed on a plane
    return tuple(str(number) for number in range(count))


def _fill(target: Float[np.ndarray, "T C D H W"], data: h5py.Dataset, row: int, time: slice, source: Source) -> None:
    selection = (row,) * source.sample_varying + (time,) * source.time_varying
    same_order = source.time_varying and source.components == () and source.grid == target.shape[2:]
    if same_order and target.flags.c_contiguous:
        data.read_direct(target.reshape(len(target), *data.shape[len(selection) :]), selection)
        return
    # Reading into part of a window (`dest_sel`) would save this copy too, but HDF5 takes 60 times as long on chunks.
    values = data[selection].reshape(-1, *source.grid, source.num_components)
    target[...] = np.moveaxis(values, -1, 1)


def _differences(first: Contents, dt: float, other: Contents, other_dt: float) -> Iterator[tuple[str, Any, Any]]:
    for what in ("dataset_name", "axes", "spatial_shape", "sources", "boundary"):
        if getattr(first, what) != getattr(other, what):
            yield what, getattr(first, what), getattr(other, what)
    if len(first.times) != len(other.times):
        yield "the number of frames", len(first.times), len(other.times)
    if not np.isclose(dt, other_dt, rtol=1e-3, atol=0.0):
        yield "dt", dt, other_dt
    if list(first.parameters) != list(other.parameters):
        yield "parameters", list(first.parameters), list(other.parameters)


@contextmanager
def _fresh(path: Path) -> Iterator[h5py.File]:
    """The file as it is on disk now, closed afterwards, so that hundreds of files are opened one at a time."""
    HANDLES.close([path])
    try:
        with HANDLES.lend(path) as file:
            yield file
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path}: its metadata cannot be read: {error}; fetch or generate the file again") from error
    finally:
        HANDLES.close([path])


def _split_files(folder: Path, split: str) -> list[Path]:
    if split not in SPLITS:
        raise ValueError(f"{folder}: expected a split of {', '.join(SPLITS)}, found {split!r}")
    found: list[str] | None = None
    for place in (folder, folder / "data", folder / "data" / split):
        try:
            found = sorted(entry for entry in os.listdir(place) if not entry.startswith("."))
        except OSError as error:
            beside = "" if found is None else f"; {place.parent} holds {', '.join(found) or 'nothing'}"
            raise FileNotFoundError(
                f"{place}: expected a folder (The Well's layout is {folder.name}/data/{split}/*.hdf5), found: "
                f"{error.strerror}{beside}; fetch or generate the data set, or correct `path`"
            ) from error
    files = [place / entry for entry in found or () if entry.endswith(SUFFIXES)]
    if not files:
        raise FileNotFoundError(
            f"{place}: expected files that end in {' or '.join(SUFFIXES)}, found {', '.join(found or ()) or 'none'}; "
            "fetch or generate the data set again"
        )
    return files
