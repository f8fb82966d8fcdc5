"""Rollouts made small enough for a page: fewer points, fewer frames, one byte for a value."""

import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, UInt8

from morph.figures import colour_range

__all__ = ["LEVELS", "NO_DATA_CODE", "Film", "Shown", "View", "block_mean", "film", "pack", "quantise", "values_of"]

NO_DATA_CODE = 255
LEVELS = 254
_LIMIT = 950_000  # bytes of a data set's animation, compressed
_POINTS = {1: 512, 2: 128, 3: 64}  # along an axis at most
_FRAMES = {1: 160, 2: 60, 3: 40}
_PLANES = 5
_QUANTILE = 0.998


class View(NamedTuple):
    """What one image shows: planes across an axis of a volume, or all of a plane or line.

    axis: across which the planes are, empty without; positions: of the planes along it; rows, columns: the other axes
    (rows is empty on a line), with their coordinates in the order of the image's points.
    """

    axis: str
    positions: tuple[float, ...]
    rows: str
    columns: str
    y: Float[np.ndarray, "rows"]
    x: Float[np.ndarray, "columns"]


class Shown(NamedTuple):
    """A component, and its colours.

    low, high: of truth and predictions; errors: of each model, the largest that its codes can say; error: where the
    colours of errors end; codes: of each view, (source, trajectory, time, plane, rows, columns), the truth and then the
    error of each model; outside: of each model, the share of finite values beyond low and high, and the one that is
    furthest; lost: of each model, the first lead time with a value that is not finite where the truth is, NaN without.
    """

    name: str
    field: str
    unit: str
    low: float
    high: float
    colours: str
    errors: tuple[float, ...]
    error: float
    codes: list[UInt8[np.ndarray, "source n S plane rows columns"]]
    outside: tuple[tuple[float, float], ...]
    lost: tuple[float, ...]


class Film(NamedTuple):
    """Rollouts of one data set as the page holds them; notes: what was left out of them, in words."""

    models: tuple[str, ...]
    trajectories: int
    lead_time: Float[np.ndarray, "S"]
    views: list[View]
    components: list[Shown]
    packed: bytes
    notes: list[str]


class _Plan(NamedTuple):
    factor: int
    frames: int
    trajectories: int
    planes: int


def film(rollouts: xr.Dataset, lead_time: Float[np.ndarray, "S"], limit: int = _LIMIT) -> Film:
    """Rollouts thinned until they take at most `limit` bytes, as far as that can be.

    Along axes the means of blocks are shown, along time every so many frames, of volumes a few planes across each axis.
    Axes whose coordinates fall are turned round, so that images are upright.

    Args:
        rollouts: See `morph.scoring.Scores`; with a variable at least.
        lead_time: Of its frames.
        limit: Of `Film.packed`.
    """
    names = [str(name) for name in rollouts.data_vars]
    axes = [str(dim) for dim in rollouts[names[0]].dims if dim not in ("source", "trajectory", "time")]
    rollouts = rollouts.isel({axis: slice(None, None, -1) for axis in axes if _falls(rollouts, axis)})
    shape = tuple(rollouts.sizes[axis] for axis in axes)
    trajectories, frames = rollouts.sizes["trajectory"], rollouts.sizes["time"]
    models = tuple(str(name) for name in rollouts.source.values if name != "truth")
    ordered = {
        name: rollouts[name].sel(source=["truth", *models]).transpose("source", "trajectory", "time", *axes).values
        for name in names
    }
    blank = [_coloured(rollouts[name], values, lead_time) for name, values in ordered.items()]
    share = 0.0  # of a plan's bytes that are left after compression
    for plan in _plans(shape, frames, trajectories):
        views = _views(rollouts, axes, plan)
        kept = np.unique(np.linspace(0, frames - 1, plan.frames).round().astype(int))
        points = sum(len(view.positions) * len(view.y) * len(view.x) for view in views)
        size = len(names) * (1 + len(models)) * plan.trajectories * len(kept) * points
        if share * size > limit:
            continue
        components = [
            one._replace(codes=_codes(one, ordered[one.name][:, : plan.trajectories, kept], views, plan))
            for one in blank
        ]
        packed = pack([codes for component in components for codes in component.codes])
        share = len(packed) / size
        if len(packed) <= limit:
            break
    notes = _notes(axes, shape, views, (len(kept), frames), (plan.trajectories, trajectories))
    return Film(models, plan.trajectories, lead_time[kept], views, components, packed, notes)


def quantise(values: Float[np.ndarray, "*shape"], low: float, high: float) -> UInt8[np.ndarray, "*shape"]:
    """Values as one of 255 steps from low to high, those beyond as the last ones, what is not finite as 255.

    A value in the range differs from `values_of` its code by (high - low) / 508 at most.
    """
    finite = np.isfinite(values)
    scaled = (np.where(finite, values, low).astype(np.float64) - low) * (LEVELS / (high - low))
    return np.where(finite, np.clip(np.rint(scaled), 0, LEVELS), NO_DATA_CODE).astype(np.uint8)


def values_of(codes: UInt8[np.ndarray, "*shape"], low: float, high: float) -> Float[np.ndarray, "*shape"]:
    """The values that codes stand for, NaN where there is none."""
    return np.where(codes == NO_DATA_CODE, np.nan, low + (high - low) / LEVELS * codes.astype(np.float64))


def pack(arrays: Sequence[UInt8[np.ndarray, "source n S plane rows columns"]]) -> bytes:
    """All codes in a row, in zlib's format (RFC 1950): as differences (modulo 256) from the frame before, and these as
    differences from the column before, which are mostly small."""
    changes = (np.diff(codes, axis=2, prepend=np.zeros_like(codes[:, :, :1])) for codes in arrays)
    small = [np.diff(change, axis=5, prepend=np.zeros_like(change[..., :1])).ravel() for change in changes]
    return zlib.compress(np.concatenate(small).tobytes(), 6)


def block_mean(values: Float[np.ndarray, "*shape"], factor: int, axes: Sequence[int]) -> Float[np.ndarray, "*thin"]:
    """Means of blocks of `factor` points along axes, over those that have a value; the last block may be smaller."""
    if factor == 1:
        return values
    known = ~np.isnan(values)
    sums, counts = np.where(known, values, 0.0), known.astype(np.float64)
    for axis in axes:
        starts = np.arange(0, values.shape[axis], factor)
        sums, counts = np.add.reduceat(sums, starts, axis), np.add.reduceat(counts, starts, axis)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _plans(shape: tuple[int, ...], frames: int, trajectories: int) -> Iterator[_Plan]:
    """Coarser and coarser: what an eye misses least goes first."""
    dimensions, longest = len(shape), max(shape)
    plan = _Plan(
        -(-longest // _POINTS[dimensions]),
        min(frames, _FRAMES[dimensions]),
        trajectories,
        min(_PLANES, *shape) if dimensions == 3 else 1,
    )
    yield plan
    while True:
        if plan.planes > 3:
            plan = plan._replace(planes=3)
        elif plan.trajectories > 1:
            plan = plan._replace(trajectories=1)
        elif plan.frames > 20:
            plan = plan._replace(frames=max(16, 2 * plan.frames // 3))
        elif plan.planes > 1:
            plan = plan._replace(planes=1)
        elif longest // plan.factor > 32:
            plan = plan._replace(factor=plan.factor + 1)
        elif plan.frames > 2:
            plan = plan._replace(frames=plan.frames // 2)
        elif longest // plan.factor > 1:
            plan = plan._replace(factor=2 * plan.factor)
        else:
            return
        yield plan


def _views(rollouts: xr.Dataset, axes: list[str], plan: _Plan) -> list[View]:
    places = {axis: _places(rollouts, axis) for axis in axes}
    thin = {axis: block_mean(values, plan.factor, [0]) for axis, values in places.items()}
    if len(axes) == 1:
        return [View("", (0.0,), "", axes[0], np.zeros(1), thin[axes[0]])]
    if len(axes) == 2:
        return [View("", (0.0,), axes[0], axes[1], thin[axes[0]], thin[axes[1]])]
    views = []
    for axis in axes:
        rows, columns = (other for other in axes if other != axis)
        positions = tuple(float(places[axis][i]) for i in _planes(len(places[axis]), plan.planes))
        views.append(View(axis, positions, rows, columns, thin[rows], thin[columns]))
    return views


def _falls(rollouts: xr.Dataset, axis: str) -> bool:
    places = _places(rollouts, axis)
    return len(places) > 1 and bool((np.diff(places) < 0).all())


def _places(rollouts: xr.Dataset, axis: str) -> Float[np.ndarray, "n"]:
    found = rollouts.coords.get(axis)
    if found is None or found.dtype.kind not in "iuf" or not np.isfinite(found.values).all():
        return np.arange(rollouts.sizes[axis], dtype=np.float64)
    return found.values.astype(np.float64)


def _planes(size: int, number: int) -> list[int]:
    """The middle one, and others evenly on both sides."""
    return [int(i) for i in np.unique(((np.arange(number) + 0.5) * size / number).astype(int))]


def _coloured(
    variable: xr.DataArray, values: Float[np.ndarray, "source n S *space"], lead_time: Float[np.ndarray, "S"]
) -> Shown:
    """A component with its colours, and without codes yet."""
    truth, finite = values[0], np.isfinite(values)
    if finite[0].any():
        low, high, colours = colour_range(float(truth[finite[0]].min()), float(truth[finite[0]].max()))
    else:
        low, high, colours = colour_range(np.nan, np.nan)
    errors, outside, lost, ends = [], [], [], []
    for model, known in zip(values[1:], finite[1:], strict=True):
        both = known & finite[0]
        with np.errstate(invalid="ignore", over="ignore"):
            sizes = np.abs(model - truth)[both]
        sizes = sizes[np.isfinite(sizes)]
        errors.append(min(float(sizes.max(initial=0.0)) or high - low, high - low))
        ends.append(min(float(np.quantile(sizes, _QUANTILE)) if sizes.size else 0.0, high - low))
        shown = model[both]
        beyond = (shown < low) | (shown > high)
        furthest = float(shown[np.argmax(np.abs(shown - (low + high) / 2))]) if beyond.any() else np.nan
        outside.append((float(beyond.mean()) if beyond.size else 0.0, furthest))
        gone = (finite[0] & ~known).any((0, *range(2, model.ndim)))
        lost.append(float(lead_time[gone.argmax()]) if gone.any() else np.nan)
    return Shown(
        str(variable.name),
        str(variable.attrs.get("field", variable.name)),
        str(variable.attrs.get("units", "")),
        low,
        high,
        colours,
        tuple(errors),
        max(ends, default=0.0) or max(errors, default=high - low),
        [],
        tuple(outside),
        tuple(lost),
    )


def _codes(
    component: Shown, values: Float[np.ndarray, "source n S *space"], views: list[View], plan: _Plan
) -> list[UInt8[np.ndarray, "source n S plane rows columns"]]:
    low, high, errors = component.low, component.high, component.errors
    codes = []
    for number, view in enumerate(views):
        planes = values
        if view.axis:
            where = _planes(values.shape[3 + number], plan.planes)
            planes = np.moveaxis(np.take(values, where, 3 + number), 3 + number, 3)
        else:
            planes = values.reshape(*values.shape[:3], 1, len(values[0, 0, 0]) if view.rows else 1, -1)
        planes = block_mean(planes, plan.factor, [5] if not view.rows else [4, 5])
        truth = planes[0]
        with np.errstate(invalid="ignore", over="ignore"):
            codes.append(
                np.stack(
                    [quantise(truth, low, high)]
                    + [quantise(model - truth, -e, e) for model, e in zip(planes[1:], errors, strict=True)]
                )
            )
    return codes


def _notes(
    axes: list[str], shape: tuple[int, ...], views: list[View], frames: tuple[int, int], trajectories: tuple[int, int]
) -> list[str]:
    shown = {view.rows: len(view.y) for view in views} | {view.columns: len(view.x) for view in views}
    notes = []
    if any(shown[axis] < size for axis, size in zip(axes, shape, strict=True)):
        thin, whole = (" × ".join(map(str, of)) for of in ([shown[axis] for axis in axes], shape))
        notes.append(f"shown at {thin} of {whole} points, means of blocks")
    if len(axes) == 3:
        planes = len(views[0].positions)
        notes.append(f"{planes} planes across each axis" if planes > 1 else "the middle plane across each axis")
    if frames[0] < frames[1]:
        notes.append(f"{frames[0]} of {frames[1]} lead times")
    if trajectories[0] < trajectories[1]:
        notes.append(f"{trajectories[0]} of {trajectories[1]} trajectories kept in rollout.nc")
    return notes
