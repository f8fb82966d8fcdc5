"""Trajectories on a grid, from any container: what the readers of all file formats have in common.

A reader says what its files hold (`Contents`) and how a piece of an array is read; here it becomes (T, F, C, D, H, W),
with the user's choice of fields, axes, frames, region and split.
"""

import operator
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from inspect import signature as signature_of
from itertools import accumulate
from math import prod
from typing import Any, TypedDict, cast, get_args

import numpy as np
from jaxtyping import Float

from data_adapters.choices import check_texts, choices, field_of
from data_adapters.contents import TIME, Contents
from data_adapters.handles import UnreadableError, signature
from data_adapters.plan import Array, axes_in_order, part_of, per_axis, plan, slice_of
from data_adapters.splits import Part, check_split, divide, full_rule
from data_adapters.statistics import read_statistics
from data_adapters.store import Selection, Store, agreeing
from morph.claims import ClaimError, check_entries, check_memory
from morph.layout import Boundary, DatasetSpec, Statistics, check_name

__all__ = ["GridAdapter", "Options", "Selection", "Store"]

MISSING = ("refuse", "fill", "mask")


class Options(TypedDict, total=False):
    """Options that every reader has.

    fields: which fields, in the order of the axis F; see `data_adapters.choices`.
    name: of the data set.
    axes: spatial axes in the order in which they become the last of (D, H, W); default: the file's order.
    boundary: periodic, open or wall, one for all or one for each axis; default: what the file says, else open.
    dt: time between two stored frames, where the file does not say, or says something wrong.
    frames: {start, stop, step}, which of the stored frames.
    space: {axis: {start, stop, step}}, which part of the grid.
    splits: see `data_adapters.splits.full_rule`; not for a format whose folders are its splits.
    missing: of NaN: "refuse"; "fill" with the field's mean over the training split; "mask": left to the caller, who
        counts them nowhere.
    statistics: file of the training split's scales; default: stats.yaml beside the data.
    tolerant: for `data_adapters.check`: files that cannot be used are left out and named in `faults`, NaN is given as
        it is, and no scales are read.
    """

    fields: Sequence[str | Mapping[str, Any]] | None
    name: str | None
    axes: Sequence[str] | None
    boundary: str | Mapping[str, str] | None
    dt: float | None
    frames: Mapping[str, int | None] | None
    space: Mapping[str, Mapping[str, int | None]] | None
    splits: Mapping[str, Any] | None
    missing: str
    statistics: str | None
    tolerant: bool


class GridAdapter:
    """One split of a data set; a `DatasetAdapter` over a `Store`.

    Metadata is read here, once; values when they are asked for.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, not in its layout, or differs from the first one; an option is wrong.
    """

    def __init__(
        self,
        store: Store,
        split: str,
        *,
        fields: Sequence[str | Mapping[str, Any]] | None = None,
        name: str | None = None,
        axes: Sequence[str] | None = None,
        boundary: str | Mapping[str, str] | None = None,
        dt: float | None = None,
        frames: Mapping[str, int | None] | None = None,
        space: Mapping[str, Mapping[str, int | None]] | None = None,
        splits: Mapping[str, Any] | None = None,
        missing: str = "refuse",
        statistics: str | None = None,
        tolerant: bool = False,
        **unknown: Any,
    ) -> None:
        where = store.where
        check_split(split, where)
        if unknown:
            own = [key for key in signature_of(type(self)).parameters if key not in ("store", "split", "options")]
            raise ValueError(
                f"{where}: expected options of {', '.join([*own, *Options.__annotations__])}, "
                f"found {', '.join(map(repr, unknown))}"
            )
        check_texts(where, name=name, statistics=statistics)
        if name is not None:
            check_name(f"{where}: name", name)
        if missing not in MISSING:
            raise ValueError(f"{where}: missing: expected {', '.join(MISSING)}, found {missing!r}")
        if dt is not None and not (type(dt) in (int, float) and 0 < dt < float("inf")):
            raise ValueError(f"{where}: dt: expected a positive number, found {dt!r}")
        self._store = store
        self._missing = "mask" if tolerant else missing
        chosen = choices(fields, where) if fields is not None else store.choices()
        signatures = {file: signature(file) for file in store.files}
        self.faults: list[str] = []
        stop = frames.get("stop") if isinstance(frames, Mapping) else None
        contents, step = agreeing(store, chosen, dt, self.faults if tolerant else None, stop)
        self._signatures = [signatures[file] for file in store.files]
        first = contents[0]
        self._sources = first.sources

        self._axes = axes_in_order(first.axes, axes, where)
        space = per_axis(space, self._axes, f"{where}: space")
        self._space = {axis: part_of(space.get(axis), first.sizes[axis], f"{where}: space.{axis}")
                       for axis in self._axes}  # fmt: skip
        dims = {source.path: source.dims for sources in first.sources for source in sources}
        self._chunks = {path: (chunk, dims[path]) for path, chunk in first.chunks.items()}
        moving = (chunk[along.index(TIME)] for chunk, along in self._chunks.values() if TIME in along)
        self._run_length = max(moving, default=1)
        self._plan = plan(first.sources, self._axes, self._space)
        stored = part_of(frames, first.num_steps, f"{where}: frames")
        counts = [c.num_trajectories for c in contents]
        check_entries(max(sum(counts), first.num_steps), f"{where}: trajectories, or frames of one")
        self._part = self._rule(splits, counts, len(stored), split)
        self._stored = stored
        self._frames = stored[self._part.frames.start : self._part.frames.stop]
        self._ends = list(accumulate(counts))

        times = first.times if dt is None and first.times is not None else step * np.arange(first.num_steps)
        self._coordinates = {axis: first.coordinates[axis][slice_of(piece)] for axis, piece in self._space.items()}
        self._coordinates["time"] = times[slice_of(self._frames)].astype(np.float64)
        self._parameters = {key: np.concatenate([c.parameters[key] for c in contents]) for key in first.parameters}
        sizes = tuple(len(piece) for piece in self._space.values())
        self._spec = DatasetSpec(
            name=name or first.dataset_name or store.name,
            fields=tuple(field_of(*pair, first.axes, where) for pair in zip(chosen, first.sources, strict=True)),
            spatial_shape=cast(tuple[int, int, int], (1,) * (3 - len(sizes)) + sizes),
            num_steps=len(self._frames),
            dt=step * self._frames.step,
            boundary=self._boundary(first, boundary),
            axes=self._axes,
            parameters=tuple(first.parameters),
            masked=missing == "mask",
        )
        self.statistics_file = statistics or store.statistics_place(name)
        self._statistics = (
            None
            if tolerant
            else read_statistics(
                self.statistics_file,
                [choice.parts for choice in chosen],
                first.sources,
                self._spec,
                lambda: self.origin,
                self._stored.step,
            )
        )
        if self._missing == "fill" and self._statistics is None:
            raise ValueError(
                f"{where}: missing=fill takes the mean of the training split, and there is no {self.statistics_file}; "
                "make it with python -m data_adapters.check, or choose missing=mask"
            )

    def _rule(self, splits: Mapping[str, Any] | None, counts: list[int], num_steps: int, split: str) -> Part:
        store = self._store
        if store.divided:
            if splits is not None:
                raise ValueError(f"{store.where}: splits: its folders are its splits; leave the option out")
            self.rule: dict[str, Any] = {"by": "folder"}
            return Part(tuple(range(sum(counts))), range(num_steps))
        self.rule = full_rule(splits, sum(counts), store.where)
        return divide(counts, num_steps, self.rule, split, store.where)

    def _boundary(
        self, contents: Contents, stated: str | Mapping[str, str] | None
    ) -> tuple[Boundary, Boundary, Boundary]:
        """On D, H and W.  A part of a periodic axis is not periodic, and one that was cut off its walls has none."""
        if isinstance(stated, str):
            stated = dict.fromkeys(self._axes, stated)
        stated = per_axis(stated, self._axes, f"{self._store.where}: boundary")
        if wrong := [kind for kind in stated.values() if kind not in list(get_args(Boundary))]:
            raise ValueError(
                f"{self._store.where}: boundary: expected {', '.join(get_args(Boundary))}, found {wrong[0]!r}"
            )
        kinds = []
        for axis, piece in self._space.items():
            kind, size = stated.get(axis, contents.boundary.get(axis, "open")), contents.sizes[axis]
            # A wall is where the last point is, or less than a step beyond it.
            whole = {"periodic": len(piece) * piece.step == size, "wall": piece[0] < piece.step > size - 1 - piece[-1]}
            kinds.append(kind if whole.get(kind, True) else "open")
        return cast(tuple[Boundary, Boundary, Boundary], ("open",) * (3 - len(kinds)) + tuple(kinds))

    @property
    def spec(self) -> DatasetSpec:
        """Fields, shape, time step and boundary."""
        return self._spec

    @property
    def statistics(self) -> Statistics | None:
        """Scales of the training split, float32; None where there is no file of them."""
        return self._statistics

    @property
    def coordinates(self) -> Mapping[str, Float[np.ndarray, "_"]]:
        """Coordinates of each axis in `spec.axes`, and of "time": float64, those of the first trajectory."""
        return self._coordinates

    @property
    def files(self) -> Sequence[str]:
        """Path or URL of each file."""
        return self._store.files

    @property
    def frames(self) -> range:
        """Which frames of the files are those of the split."""
        return self._frames

    @property
    def space(self) -> Mapping[str, range]:
        """Which points of each axis of the files are used."""
        return self._space

    @property
    def chunks(self) -> Mapping[str, tuple[tuple[int, ...], tuple[str, ...]]]:
        """Of each array that is read, if the first file holds it in chunks: their shape, and what its axes are."""
        return self._chunks

    @property
    def origin(self) -> dict[str, Any]:
        """What the statistics of the training split depend on, the same for all splits."""
        pieces = {"time": self._stored, **self._space}
        used = {axis: [piece.start, piece.stop, piece.step] for axis, piece in pieces.items()}
        counted = {} if self.rule["by"] == "folder" else {"trajectories": self._ends[-1]}
        arrays = {
            field.name: [" ".join([source.path, *map(str, source.channels or ())]) for source in sources]
            for field, sources in zip(self._spec.fields, self._sources, strict=True)
        }
        return {"splits": self.rule, "used": used, **counted, "files": self._store.fingerprint(), "fields": arrays}

    def __len__(self) -> int:
        """Number of trajectories of the split."""
        return len(self._part.trajectories)

    def run(self, frame: int) -> range:
        """Frames that are stored together with this one, in chunks of the files, so that reading it costs reading all.

        Raises:
            IndexError: The frame does not exist.
        """
        stored, length = self._frames[frame], self._run_length
        first = max(stored // length * length - self._frames.start, 0)
        stop = stored // length * length + length - self._frames.start
        step = self._frames.step
        return range(-(-first // step), min(-(-stop // step), len(self._frames)))

    def read(
        self, trajectory: int, start: int, stop: int, out: Float[np.ndarray, "T F C D H W"] | None = None
    ) -> Float[np.ndarray, "T F C D H W"]:
        """Frames start to stop (exclusive) of a trajectory, float32, physical units, filler zero; reads nothing else.

        Args:
            trajectory: Its number in the split.
            start: First frame.
            stop: The frame after the last.
            out: Where to put them, contiguous; None makes a new array.

        Raises:
            IndexError: The trajectory or a frame does not exist.
            FileNotFoundError: The file has been removed.
            ValueError: Values cannot be read, or are not finite; names file and field.
        """
        number, row = self._locate(trajectory)
        start, stop = operator.index(start), operator.index(stop)
        spec = self._spec
        if not 0 <= start < stop <= spec.num_steps:
            raise IndexError(
                f"data set {spec.name!r}: expected frames start < stop within 0 and {spec.num_steps}, "
                f"found start {start} and stop {stop}"
            )
        file = self._store.files[number]
        now = signature(file)
        if now is not None and now != self._signatures[number]:
            raise ValueError(
                f"{file}: expected the HDF5 file or store that was opened, found that it has changed since; start again"
            )
        piece = self._frames[start:stop]
        shape = (stop - start, spec.num_fields, spec.num_components, *spec.spatial_shape)
        if out is None:
            what = f"{file}: frames {piece.start} to {piece.stop} of {', '.join(array.path for array in self._plan)}"
            check_memory(4 * prod(shape), what, "use a part of the grid with `space`, or fewer frames at once")
        frames = np.empty(shape, np.float32) if out is None else out
        assert frames.shape == shape, f"out must have the shape {shape}, found {frames.shape}"
        for number, field in enumerate(spec.fields):
            frames[:, number, len(field.components) :] = 0
        finite = True
        for array in self._plan:
            try:
                finite &= self._read_array(frames, file, row, piece, array)
            except (FileNotFoundError, UnreadableError, ClaimError):
                raise
            except FloatingPointError as error:
                raise ValueError(
                    f"{file}: {array.path}: expected numbers that float32 can hold, found a number beyond 3.4e38 in "
                    f"frames {piece.start} to {piece.stop} of its trajectory {row}; store it in another unit"
                ) from error
            except Exception as error:
                # What h5py and the decoders of compressed chunks raise on a damaged file is nowhere written down.
                raise ValueError(
                    f"{file}: {array.path}: expected frames {piece.start} to {piece.stop} of its trajectory {row}, "
                    f"found: {error}; the file is damaged or has changed, fetch or generate it again"
                ) from error
        if not finite:
            self._settle(frames, file, row, piece)
        return frames

    def parameters(self, trajectory: int) -> Mapping[str, float]:
        """Value of each of `spec.parameters` for one trajectory.

        Raises:
            IndexError: The trajectory does not exist.
        """
        self._locate(trajectory)
        number = self._part.trajectories[trajectory]
        return {name: float(values[number]) for name, values in self._parameters.items()}

    def unwritten(self, file: str) -> dict[str, tuple[int, int]]:
        """Of each array that is read from a file: pieces that were never written, and all.

        Raises:
            FileNotFoundError: The file has been removed.
            ValueError: It cannot be read.
        """
        return {array.path: self._store.unwritten(file, array.path) for array in self._plan}

    def close(self) -> None:
        """Close the files in this process; the next read opens them again."""
        self._store.close()

    def place(self, trajectory: int) -> tuple[str, int]:
        """The file of a trajectory, and its number there.

        Raises:
            IndexError: The trajectory does not exist.
        """
        number, row = self._locate(trajectory)
        return self._store.files[number], row

    def _locate(self, trajectory: int) -> tuple[int, int]:
        """Number of the file of a trajectory, and its row there."""
        trajectory = operator.index(trajectory)
        if not 0 <= trajectory < len(self):
            raise IndexError(
                f"data set {self._spec.name!r}: expected a trajectory of 0 to {len(self) - 1}, found {trajectory}"
            )
        trajectory = self._part.trajectories[trajectory]
        number = bisect_right(self._ends, trajectory)
        return number, trajectory - (self._ends[number - 1] if number else 0)

    def _read_array(
        self, frames: Float[np.ndarray, "T F C D H W"], file: str, row: int, piece: range, array: Array
    ) -> bool:
        """Read an array once, for all fields that are made of it; whether all of it is finite."""
        out = None
        if array.in_place:
            ((field, components, _),) = array.targets
            out = frames[:, field, components.start].reshape(len(frames), *array.grid)
        values = self._store.read(file, array.path, array.select(row, slice_of(piece)), out)
        # Looked at here, where the numbers are still in the processor's cache.
        finite = values.dtype.kind != "f" or bool(np.isfinite(values).all())
        if values is not out:
            array.spread(values, frames)
        return finite

    def _settle(self, frames: Float[np.ndarray, "T F C D H W"], file: str, row: int, piece: range) -> None:
        """What the user wants done about NaN; infinity is an error in any case."""
        infinite = np.isinf(frames)
        wrong = infinite if infinite.any() else np.isnan(frames)
        if not wrong.any():
            return  # finite numbers whose sum is not
        if infinite.any() or self._missing == "refuse":
            frame, field, _, *position = np.argwhere(wrong)[0].tolist()
            # In the file's numbering, as its frames.
            points = zip(self._space.items(), position[3 - len(self._axes) :], strict=True)
            place = {axis: used[point] for (axis, used), point in points}
            raise ValueError(
                f"{file}: {' and '.join(source.path for source in self._sources[field])}: field "
                f"{self._spec.fields[field].name!r}: {'infinity' if infinite.any() else 'NaN'} at {int(wrong.sum())} "
                f"points of frames {piece.start} to {piece.stop} of its trajectory {row}, the first in frame "
                f"{piece[frame]} at {place}; repair it{'' if infinite.any() else ', or choose missing=fill or mask'}"
            )
        if self._missing == "fill":
            assert self._statistics is not None, "made sure of when the data set was opened"
            mean = self._statistics.mean.numpy()[None, :, :, None, None, None]
            np.copyto(frames, np.broadcast_to(mean, frames.shape), where=wrong)
