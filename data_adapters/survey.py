"""A whole data set, read once: can every value be had, what are the values, and are the splits apart?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from data_adapters.chunks import chunk_costs
from data_adapters.contents import other_spacing
from data_adapters.grid import GridAdapter
from data_adapters.moments import SMALLEST_SCALE, Moments
from data_adapters.splits import SPLITS
from morph.layout import DatasetSpec

__all__ = ["PIECE", "FieldNumbers", "SplitNumbers", "Survey", "survey"]

# Values that are held at a time: 16 MB in float32, and less than 0.3 GB with the copies in double precision.  A larger
# frame is held whole.
PIECE = 2**22


class FieldNumbers(NamedTuple):
    """Of a field in one split; NaN counts nowhere.

    mean: of each component.
    std, rms_increment: pooled over the components, as in `morph.layout.Statistics` but not clipped.
    missing: share of NaN.
    constant: every component has one value.
    """

    minimum: float
    maximum: float
    mean: tuple[float, ...]
    std: float
    rms_increment: float
    missing: float
    constant: bool


@dataclass
class SplitNumbers:
    """Of one split; frames are those of each trajectory."""

    trajectories: int
    frames: int
    files: int
    fields: dict[str, FieldNumbers]


@dataclass
class Survey:
    """What was found.

    errors: What a run on this data would fail at, or be wrong with; each names the file and the way out.
    warnings: What its user should know of.
    rule: By which the splits are made, see `data_adapters.splits.full_rule`.
    gaps: Of splits by time, the frames that lie between two neighbours: {"train, valid": 4}.
    adapter: Of the training split; None where that cannot be opened.
    moments: Of the training split.
    num_bytes: Of the values that were read, in float32.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    splits: dict[str, SplitNumbers] = field(default_factory=dict)
    rule: Mapping[str, Any] = field(default_factory=dict)
    gaps: dict[str, int] = field(default_factory=dict)
    adapter: GridAdapter | None = None
    moments: Moments = field(default_factory=Moments)
    num_bytes: int = 0


def survey(
    open_split: Callable[[str], GridAdapter],
    missing: str = "refuse",
    advance: Callable[[int, int], object] = lambda frames, total: None,
    piece: int = PIECE,
) -> Survey:
    """Read every trajectory of train, valid and test.

    Args:
        open_split: The reader of a split, with `tolerant`: files that do not fit are errors, not the end.
        missing: What the data set does about NaN: with "refuse" each is an error, else a frame of nothing but NaN.
        advance: Called with the frames that were read, and those of the whole set.
        piece: Values that are held at a time, or one frame if that is more.
    """
    found = Survey()
    adapters: dict[str, GridAdapter] = {}
    for split in SPLITS:
        try:
            adapters[split] = open_split(split)
        except (ValueError, OSError) as error:
            faults = [str(error)]
        else:
            faults = adapters[split].faults
        # All splits may have the same fault.
        found.errors += [fault for fault in faults if fault not in found.errors]
    if any(adapter.faults for adapter in adapters.values()):
        found.warnings.append("files with errors are left out here: the numbers, and splits by a rule, are of the rest")
    _compare(adapters, found)
    for adapter in list(adapters.values())[:1]:
        found.warnings += chunk_costs(adapter)
    _note_unwritten(adapters, found)
    total = sum(len(adapter) * adapter.spec.num_steps for adapter in adapters.values())
    tallies: dict[str, _Tally] = {}
    digests: dict[bytes, tuple[str, int]] = {}
    for split, adapter in adapters.items():
        found.rule = adapter.rule
        tallies[split] = tally = _Tally(adapter.spec)
        for trajectory in range(len(adapter)):
            digest = _read(adapter, trajectory, tally, found, missing, piece)
            advance(adapter.spec.num_steps, total)
            if digest is not None:
                first = digests.setdefault(digest, (split, trajectory))
                if first != (split, trajectory):
                    _note_duplicate(adapters, first, (split, trajectory), found)
        adapter.close()
        frames, files = adapter.spec.num_steps, len(adapter.files)
        found.splits[split] = SplitNumbers(len(adapter), frames, files, tally.numbers())
        found.num_bytes += tally.num_bytes
    if "train" in adapters:
        found.adapter, found.moments = adapters["train"], tallies["train"].moments
    _judge(found, tallies)
    if found.rule.get("by") == "time":
        _measure_gaps(adapters, found)
    return found


def _compare(adapters: Mapping[str, GridAdapter], found: Survey) -> None:
    """The splits hold the same: those of The Well are folders, whose files nobody else compares."""
    first, *others = adapters or [""]
    for split in others:
        expected, spec = adapters[first].spec, adapters[split].spec
        for what in ("fields", "axes", "spatial_shape", "dt", "boundary"):
            one, other = getattr(expected, what), getattr(spec, what)
            if one != other and not (what == "dt" and np.isclose(one, other, rtol=1e-3, atol=0)):
                found.errors.append(
                    f"{adapters[split].files[0]}: {what} is not that of {first}: expected {one}, found {other}; the "
                    "splits of a data set must agree"
                )
        places = [{axis: adapters[of].coordinates[axis] for axis in adapters[of].spec.axes} for of in (first, split)]
        found.errors += [
            f"{adapters[split].files[0]}: {what} is not that of {first}: expected {apart}, found {other_apart}; the "
            "splits of a data set must agree"
            for what, apart, other_apart in other_spacing(*places)
        ]
    for split, adapter in adapters.items():
        if adapter.spec.num_steps < 2:
            found.errors.append(
                f"{adapter.files[0]}: {split}: expected two or more frames, found one: nothing can be forecast from it"
            )


def _note_unwritten(adapters: Mapping[str, GridAdapter], found: Survey) -> None:
    """A run that was stopped, and a copy that was, leave arrays of full shape in which numbers are missing."""
    holders = {file: adapter for adapter in adapters.values() for file in adapter.files}
    for file, adapter in holders.items():
        try:
            counts = adapter.unwritten(file)
        except (ValueError, OSError) as error:
            found.errors.append(str(error))
            continue
        for path, (missing, total) in counts.items():
            if missing:
                found.warnings.append(
                    f"{file}: {path}: {missing:,} of its {total:,} chunks were never written and are read as the fill "
                    "value, mostly 0; if its writer did not mean that, generate or fetch the file again"
                )


class _Tally:
    """What is counted of a split."""

    def __init__(self, spec: DatasetSpec) -> None:
        self.moments = Moments()
        self.sizes = {field.name: len(field.components) for field in spec.fields}
        self.lowest = {name: np.full(size, np.inf) for name, size in self.sizes.items()}
        self.highest = {name: np.full(size, -np.inf) for name, size in self.sizes.items()}
        self.num_points = 0

    def add(self, frames: Float[np.ndarray, "T F C D H W"], before: Float[np.ndarray, "F C D H W"] | None) -> None:
        self.num_points += frames[:, 0, 0].size
        for number, (name, size) in enumerate(self.sizes.items()):
            values = _points(frames[:, number, :size])
            last = None if before is None else _points(before[None, number, :size])[0]
            self.moments.add(name, values, scalar=size == 1, before=last)
            # fmin and fmax pass over NaN.
            self.lowest[name] = np.fmin(self.lowest[name], np.fmin.reduce(values, axis=(0, 1)))
            self.highest[name] = np.fmax(self.highest[name], np.fmax.reduce(values, axis=(0, 1)))

    @property
    def num_bytes(self) -> int:
        return 4 * self.num_points * sum(self.sizes.values())

    def numbers(self) -> dict[str, FieldNumbers]:
        found = {}
        for name in self.sizes if self.num_points else ():
            values, increments = self.moments.scales(name)
            found[name] = FieldNumbers(
                minimum=float(self.lowest[name].min()),
                maximum=float(self.highest[name].max()),
                mean=tuple(values.mean.tolist()),
                std=float(np.sqrt(np.mean(values.std**2))),
                rms_increment=float(np.sqrt(np.mean(increments.rms**2))),
                missing=1 - float(values.num_values.mean()) / self.num_points,
                constant=bool((self.lowest[name] == self.highest[name]).all()),
            )
        return found


def _points(values: Float[np.ndarray, "T C D H W"]) -> Float[np.ndarray, "T space C"]:
    return values.reshape(*values.shape[:2], -1).swapaxes(1, 2)


def _read(
    adapter: GridAdapter, trajectory: int, tally: _Tally, found: Survey, missing: str, piece: int
) -> bytes | None:
    """Count a trajectory; a digest of its values, None where some cannot be had."""
    spec = adapter.spec
    size = spec.num_fields * spec.num_components * int(np.prod(spec.spatial_shape))
    step = max(1, piece // size)
    digest = blake2b(digest_size=16)
    readable = True
    before = None
    absent = np.zeros((spec.num_steps, spec.num_fields))  # share of each frame
    for start in range(0, spec.num_steps, step):
        stop = min(start + step, spec.num_steps)
        try:
            frames = adapter.read(trajectory, start, stop)
        except (ValueError, OSError) as error:
            found.errors.append(str(error))
            readable, before = False, None
            continue
        digest.update(frames.reshape(-1).data)
        with np.errstate(over="ignore", invalid="ignore"):
            if not np.isfinite(frames.sum()):
                absent[start:stop] = _absent(np.isnan(frames), spec.component_mask)
        tally.add(frames, before)
        before = frames[-1].copy()
    _note_absent(adapter, trajectory, absent, found, missing)
    return digest.digest() if readable else None


def _absent(nan: Bool[np.ndarray, "T F C D H W"], mask: Bool[np.ndarray, "F C"]) -> Float[np.ndarray, "T F"]:
    """Share of NaN among the physical values of each frame."""
    return nan.mean((-1, -2, -3)).sum(-1) / mask.sum(-1)


def _note_absent(
    adapter: GridAdapter, trajectory: int, absent: Float[np.ndarray, "T F"], found: Survey, missing: str
) -> None:
    if not absent.any():
        return
    file, row = adapter.place(trajectory)
    for number, entry in enumerate(adapter.spec.fields):
        where = f"{file}: trajectory {row}: field {entry.name!r}"
        share = absent[:, number]
        frames = np.flatnonzero(share if missing == "refuse" else share == 1)
        if not len(frames):
            continue
        first = f"{len(frames)} frame(s), the first is frame {adapter.frames[frames[0]]}"
        if missing == "refuse":
            found.errors.append(f"{where}: NaN in {first}; repair it, or choose missing=fill or mask")
        else:
            found.errors.append(
                f"{where}: nothing but NaN in {first}; leave such frames out with `frames`, or the field"
            )


def _note_duplicate(
    adapters: Mapping[str, GridAdapter], first: tuple[str, int], second: tuple[str, int], found: Survey
) -> None:
    places = []
    for split, trajectory in (first, second):
        file, row = adapters[split].place(trajectory)
        places.append(f"{file}, trajectory {row} ({split})")
    if first[0] == second[0]:
        found.warnings.append(f"{places[1]} has the values of {places[0]}; it counts twice")
    else:
        found.errors.append(
            f"{places[1]} has the values of {places[0]}: a model must not be judged by what it is trained on or "
            "chosen by; remove one of them"
        )


def _judge(found: Survey, tallies: Mapping[str, _Tally]) -> None:
    """What the numbers say that a user should know."""
    sizes = {name: size for tally in tallies.values() for name, size in tally.sizes.items()}
    for name, size in sizes.items():
        of_splits = {
            split: numbers.fields[name]
            for split, numbers in found.splits.items()
            if name in numbers.fields and tallies[split].sizes[name] == size
        }
        if constant := [split for split, numbers in of_splits.items() if numbers.constant]:
            found.warnings.append(f"field {name!r} is constant in {_listed(constant)}; there is nothing to learn of it")
        if "train" not in of_splits:
            continue
        train = of_splits["train"]
        for what, scale in (("standard deviation", train.std), ("rms increment", train.rms_increment)):
            if 0 < scale < SMALLEST_SCALE and not train.constant:
                found.warnings.append(
                    f"field {name!r}: its {what} in training is {scale:.3g}, below {SMALLEST_SCALE:g}, which is taken "
                    "instead; store the field in smaller units"
                )
        values, increments = tallies["train"].moments.scales(name)
        for split, numbers in of_splits.items():
            mean = np.array(numbers.mean)
            count = tallies[split].moments.scales(name)[0].num_values
            lowest, highest = tallies["train"].lowest[name], tallies["train"].highest[name]
            slack = 1e-6 * np.maximum(np.abs(lowest), np.abs(highest))  # a mean of equal values is rounded
            if ((count > 0) & (values.num_values > 0) & ((mean < lowest - slack) | (mean > highest + slack))).any():
                found.warnings.append(
                    f"field {name!r}: its mean in {split}, {_shown(mean)}, lies outside of all values in training, "
                    f"{_shown(lowest)} to {_shown(highest)}"
                )
        counts = increments.num_values if found.splits["train"].frames > 1 else values.num_values
        if not counts.all() and not found.errors:
            found.errors.append(
                f"train: field {name!r}: no two frames in a row have a value at the same point; it has no scales"
            )


def _measure_gaps(adapters: Mapping[str, GridAdapter], found: Survey) -> None:
    """Frames between the splits of a record."""
    parts = sorted((adapter.frames.start, split) for split, adapter in adapters.items())
    for (_, earlier), (start, later) in pairwise(parts):
        frames = adapters[earlier].frames
        gap = (start - frames[-1]) // frames.step - 1
        found.gaps[f"{earlier}, {later}"] = gap
        if gap < 0:
            found.errors.append(f"splits: {earlier} and {later} share {-gap} frame(s)")
        elif gap == 0:
            found.warnings.append(
                f"splits: {later} starts with the frame after the last of {earlier}, which is nearly the same; give a "
                "`gap`"
            )


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + (" and " if len(words) > 1 else "") + words[-1]


def _shown(values: Float[np.ndarray, "C"]) -> str:
    shown = ", ".join(f"{value:.4g}" for value in values)
    return f"({shown})" if len(values) > 1 else shown
