"""What files hold, before anything is known about the meaning of it: arrays, with names of their axes where given."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import xarray as xr

from data_adapters.grid import Selection
from data_adapters.inspect.containers import Container
from data_adapters.labelled import DATASETS, Opening
from data_adapters.plan import check_selection

__all__ = ["ARRAYS", "GROUPS", "LABELLED", "WELL", "Array", "Found", "find_labelled", "plain"]

WELL = "data_adapters.hdf5.WellAdapter"
ARRAYS = "data_adapters.hdf5.ArrayAdapter"
GROUPS = "data_adapters.hdf5.GroupAdapter"
LABELLED = "data_adapters.labelled.XarrayAdapter"

_MOST_LABELS = 64


@dataclass(frozen=True)
class Array:
    """An array of numbers.

    Args:
        name: In its file, "t1_fields/velocity".
        dims: Names of its axes, "" of one without a name.
        shape: Of the first file, or the first group.
        dtype: As values are read; with that of the file in front, where they are packed.
        attributes: As the file states them.
        chunks: Pieces in which it is stored, None where it is in one.
        compression: How these are compressed, "" where not.
        auxiliary: It gives places or times of other arrays (XLAT of WRF), and is no field.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    chunks: tuple[int, ...] | None = None
    compression: str = ""
    auxiliary: bool = False

    @property
    def unit(self) -> str:
        """As stated, "" where not."""
        return str(plain(self.attributes.get("units", self.attributes.get("unit", ""))))

    @property
    def num_bytes(self) -> int:
        """In memory, as float32."""
        return 4 * prod(self.shape)


@dataclass(frozen=True)
class Found:
    """What files hold.

    Args:
        container: The files and their format.
        adapter: The class that reads them.
        arrays: By name, those of the first file or group.
        places: Where these names occur: each file, or each group of the files.
        read: A piece of an array in one of the places.
        skipped: What cannot be a field, and why.
        attributes: Of the file or the first group.
        group: In which everything lies.
        labels: By dimension, the names of its entries.
        dims: By array, sample, time, channel and axes, where the format itself says so (The Well).
        boundary: By axis, where the format itself says so.
        unlimited: Dimensions along which the file may grow.
        trajectories: Groups in the first file, each of which is a trajectory; 0 where there are none.
        notes: What is remarkable.
    """

    container: Container
    adapter: str
    arrays: Mapping[str, Array]
    places: Sequence[tuple[str, str]]
    read: Callable[[tuple[str, str], str, Selection], np.ndarray]
    skipped: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    group: str | None = None
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    dims: Mapping[str, tuple[str, ...]] | None = None
    boundary: Mapping[str, str] | None = None
    unlimited: frozenset[str] = frozenset()
    trajectories: int = 0
    notes: tuple[str, ...] = ()

    def values(self, name: str) -> np.ndarray:
        """A whole array, of the first place; for coordinates."""
        return self.read(self.places[0], name, (slice(None),) * len(self.arrays[name].shape))


def plain(value: Any) -> Any:
    """An attribute as a plain value: a number, a text or a list of them."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.generic | np.ndarray):
        listed = value.tolist()
        listed = listed[0] if isinstance(listed, list) and len(listed) == 1 else listed
        return listed if not isinstance(listed, bytes) else listed.decode(errors="replace")
    return value


def find_labelled(container: Container, group: str | None) -> Found:
    """What xarray finds in the first of the files.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: xarray cannot open it, or it holds no numbers.
    """
    engine = container.engine
    opening = Opening(container.files[0], engine, group)
    try:
        with DATASETS.lend(opening) as found:
            arrays, skipped, labels = {}, {}, {}
            for name, variable in found.variables.items():
                if variable.dtype.kind not in "fiumM":
                    if variable.dims == (name,) and variable.size <= _MOST_LABELS:
                        labels[str(name)] = [str(plain(entry)) for entry in variable.to_numpy().tolist()]
                    skipped[str(name)] = f"no real numbers: {_type_of(variable.dtype)}"
                    continue
                arrays[str(name)] = _labelled_array(str(name), variable, name in found.coords)
            attributes = dict(found.attrs)
            unlimited = frozenset(map(str, found.encoding.get("unlimited_dims", ())))
    finally:
        DATASETS.close([opening])
    if not arrays:
        raise ValueError(
            f"{opening.location}: expected arrays of numbers, found "
            + (", ".join(f"{name} ({why})" for name, why in skipped.items()) or "no variable at all")
            + ("" if group else "; if they lie in a group, name it with group=...")
        )

    def read(place: tuple[str, str], name: str, selection: Selection) -> np.ndarray:
        with DATASETS.lend(Opening(place[0], engine, group)) as opened:
            if name not in opened.variables:
                raise ValueError(f"{place[0]}: no variable {name!r}, which {container.files[0]} has; inspect it apart")
            variable = opened.variables[name]
            check_selection(variable.shape, selection, variable.dtype.itemsize, f"{place[0]}: {name}")
            return variable[selection].to_numpy()

    places = [(file, "") for file in container.files]
    return Found(
        container, LABELLED, arrays, places, read, skipped, attributes, group, labels=labels, unlimited=unlimited
    )


def _type_of(dtype: np.dtype) -> str:
    names = {"c": "complex numbers (store real and imaginary part as two)", "b": "true or false"}
    return names.get(dtype.kind, "text" if dtype.kind in "SUOT" else str(dtype))


def _labelled_array(name: str, variable: xr.Variable, auxiliary: bool) -> Array:
    encoding = variable.encoding
    stored = encoding.get("dtype")
    dtype = str(variable.dtype)
    if stored is not None and str(stored) != dtype:
        dtype = f"{stored} as {dtype}"
    chunks = encoding.get("chunksizes") or encoding.get("chunks")
    compression = encoding.get("compression") or ("zlib" if encoding.get("zlib") else None)
    if compression is None and encoding.get("compressors"):
        compression = ", ".join(type(codec).__name__.removesuffix("Codec") for codec in encoding["compressors"])
    return Array(
        name,
        tuple(map(str, variable.dims)),
        tuple(variable.shape),
        dtype,
        dict(variable.attrs),
        tuple(chunks) if chunks else None,
        str(compression or ""),
        auxiliary,
    )
