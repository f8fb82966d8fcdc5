"""Values of labelled data in the model's layout, and what is known of the system besides."""

from collections.abc import Mapping, Sequence
from typing import cast, get_args

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from morph.labelled.dims import shown
from morph.labelled.fields import Selection
from morph.layout import Boundary, Conditions, Statistics

__all__ = ["conditions_of", "read"]


def read(
    dataset: xr.Dataset, selection: Selection, trajectories: Sequence[int], frames: range, masked: bool
) -> Float[np.ndarray, "B T F C D H W"]:
    """Frames of some trajectories; nothing else is read.

    Args:
        dataset: Labelled data, in memory or on disk.
        selection: How it is understood.
        trajectories: Along its sample dimension; [0] where it has none.
        frames: Which.
        masked: Whether NaN is a point without data, as land is.

    Raises:
        ValueError: There is NaN and should not be, or infinity; names variable and frame.
    """
    roles = selection.roles
    part: dict[str, slice | list[int]] = {roles.time: slice(frames.start, frames.stop)}
    if roles.sample is not None:
        part[roles.sample] = list(trajectories)
    wanted = [roles.sample, roles.time, *roles.axes]
    widest = max(len(own) for own in selection.parts)
    sizes = [dataset.sizes[axis] for axis in roles.axes]
    shape = (len(trajectories), len(frames), len(selection.parts), widest, *[1] * (3 - len(sizes)), *sizes)
    values = np.zeros(shape, np.float32)
    loaded: dict[str, xr.Variable] = {}
    for f, own in enumerate(selection.parts):
        for c, (name, entry) in enumerate(own):
            if name not in loaded:
                variable = dataset[name].variable
                here = {dim: index for dim, index in part.items() if dim in variable.dims}
                loaded[name] = variable.isel(here).load()
            found = loaded[name]
            found = found if entry is None else found.isel({roles.channel[name]: entry})
            dims = [dim for dim in wanted if dim in found.dims]
            missing = tuple(number for number, dim in enumerate(wanted) if dim not in found.dims)
            array = np.expand_dims(found.transpose(*dims).to_numpy().astype(np.float32), missing)
            _check(array, dataset, name, frames, masked)
            values[:, :, f, c] = array.reshape(*array.shape[:2], *shape[4:])
    return values


def _check(array: np.ndarray, dataset: xr.Dataset, name: str, frames: range, masked: bool) -> None:
    bad = np.isinf(array) if masked else ~np.isfinite(array)
    if not bad.any():
        return
    frame = frames[int(np.argwhere(bad)[0][1])] if array.shape[1] == len(frames) else frames[-1]
    what = "infinity" if np.isinf(array).any() else "NaN"
    way = (
        "repair it, or start elsewhere with start=..."
        if what == "infinity"
        else "the model was not trained with points that have no value; fill them, or, if they are land, go on "
        "with missing=mask"
    )
    raise ValueError(f"variable {shown(dataset, name)}: {what} in frame {frame} of the context; {way}")


def conditions_of(
    selection: Selection, statistics: Statistics | None, boundary: str | Mapping[str, str] | None
) -> Conditions:
    """What is known of the system: the boundary of the training unless another one is stated, else open.

    Args:
        selection: How the data is understood.
        statistics: Of the training split.
        boundary: On all axes, or by their names.

    Raises:
        ValueError: An axis or a boundary is unknown.
    """
    axes = selection.roles.axes
    known = selection.like.boundary[3 - len(axes) :] if selection.like else ("open",) * len(axes)
    stated = dict.fromkeys(axes, boundary) if isinstance(boundary, str) else dict(boundary or {})
    if unknown := [axis for axis in stated if axis not in axes]:
        raise ValueError(f"boundary: expected axes of {', '.join(axes)}, found {', '.join(map(repr, unknown))}")
    kinds = [stated.get(axis, kind) for axis, kind in zip(axes, known, strict=True)]
    if wrong := [kind for kind in kinds if kind not in get_args(Boundary)]:
        raise ValueError(f"boundary: expected {', '.join(get_args(Boundary))}, found {wrong[0]!r}")
    counts = torch.tensor([len(own) for own in selection.parts])
    mask = torch.arange(int(counts.max())) < counts[:, None]
    of_axes = cast(tuple[Boundary, Boundary, Boundary], ("open",) * (3 - len(axes)) + tuple(kinds))
    return Conditions(mask, of_axes, statistics, bool(mask.all()))
