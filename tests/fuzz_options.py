"""Random options on valid files: what an adapter reads is what plain NumPy takes out of the same arrays."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from data_adapters.grid import GridAdapter
from data_adapters.hdf5 import ArrayAdapter, GroupAdapter
from data_adapters.labelled import XarrayAdapter
from tests.layout_files import counted, write_arrays

__all__ = ["READERS", "run"]

READERS = ("arrays", "groups", "xarray")
ROLES = ("sample", "time", "channel")
# What people write by mistake, or by way of a computed value.
NONSENSE: tuple[Any, ...] = (
    None, -1, 0, 99, 1.5, True, float("nan"), "x", "", [], ["zz"], [1], [None], ["x", "x"], {}, {"x": 1}, {"zz": {}},
    {"start": 99}, {"start": 0.5}, {"stop": 0}, {"step": 0}, {"by": "zz"}, {"valid": 0.7, "test": 0.7}, {"order": []},
    {"x": {"start": -3}}, {"x": None}, [{}], [{"name": "a", "from": "zz"}], [{"name": "a", "channels": [7]}],
    {"time": "zz"},
)  # fmt: skip
# Those of all readers, and those of one.
COMMON = ("fields", "axes", "boundary", "frames", "space", "splits", "dt", "missing", "name", "statistics", "feilds")
OWN = {
    "arrays": ("dims", "coordinates", "parameters", "order", "cache"),
    "groups": ("dims", "coordinates", "parameters", "order", "cache"),
    "xarray": ("time", "sample", "channel", "engine", "group", "join", "order", "cache"),
}


def _part(size: int, chance: random.Random) -> dict[str, int]:
    start = chance.randrange(size)
    part = {"start": start, "stop": chance.randint(start + 1, size), "step": chance.randint(1, 3)}
    return {key: value for key, value in part.items() if chance.random() < 0.7}


def _splits(count: int, num_steps: int, chance: random.Random) -> dict[str, Any]:
    """A rule that leaves something for training."""
    by = chance.choice(["trajectory", "time"])
    total = count if by == "trajectory" else num_steps
    valid = chance.randint(0, (total - 1) // 2)
    rule: dict[str, Any] = {"by": by, "valid": valid, "test": chance.randint(0, total - 1 - valid)}
    rule["order"] = chance.sample(["train", "valid", "test"], 3)
    return rule | ({"gap": 0} if by == "time" else {})


def _fields(reader: str, dims: Sequence[str], num_channels: int, chance: random.Random) -> list[Any]:
    """One field that varies in time, and others; HDF5 does not say which axes an array has where it lacks some."""
    channels = chance.sample(range(num_channels), chance.randint(1, num_channels))
    lacking = {"b": ("channel",), "c": ("channel", "time"), "pair": ("channel",)}
    known: dict[str, dict[str, Any]] = {
        "a": {"name": "a"},
        "part": {"name": "part", "from": "a", "channels": channels},
        "b": {"name": "b", "unit": "m"},
        "pair": {"name": "pair", "from": ["b", "d"]},
        "c": {"name": "c"},
    }
    if reader != "xarray":
        for name, lacks in lacking.items():
            known[name]["dims"] = [dim for dim in dims if dim not in lacks]
    names = chance.sample(["a", "part", "b", "pair"], chance.randint(1, 3))
    names += chance.sample(["c"], chance.randint(0, 1))
    return [known[name] for name in chance.sample(names, len(names))]


def _cut(part: Any) -> slice:
    part = part or {}
    return slice(part.get("start"), part.get("stop"), part.get("step"))


def oracle(
    arrays: Mapping[str, tuple[Sequence[str], np.ndarray]],
    axes: Sequence[str],
    options: Mapping[str, Any],
    frames: range,
    row: int,
) -> np.ndarray:
    """(T, F, C, D, H, W) of one trajectory; `frames`: of the file."""
    fields = []
    # Where none is named: of HDF5 the arrays with all axes, of xarray those along time and space.
    default = ["a"] if "dims" in options else ["a", "b", "d"]
    for field in options.get("fields") or default:
        entry = {"name": field} if isinstance(field, str) else field
        parts = entry.get("from", entry["name"])
        blocks = []
        for name in [parts] if isinstance(parts, str) else parts:
            dims, values = arrays[name]
            wanted = [*ROLES, *(options.get("axes") or axes)]
            for dim in wanted:
                if dim not in dims:
                    dims, values = [*dims, dim], values[..., None]
            values = values.transpose([list(dims).index(dim) for dim in wanted])
            values = values[row if values.shape[0] > 1 else 0]
            values = values[list(frames)] if values.shape[0] > 1 else np.repeat(values, len(frames), 0)
            space = options.get("space") or {}
            values = values[(slice(None), slice(None), *(_cut(space.get(axis)) for axis in wanted[3:]))]
            blocks.append(values[:, entry["channels"]] if entry.get("channels") else values)
        values = np.concatenate(blocks, 1)
        fields.append(values.reshape(*values.shape[:2], *(1,) * (3 - len(axes)), *values.shape[2:]))
    width = max(values.shape[1] for values in fields)
    padded = [np.pad(v, [(0, 0), (0, width - v.shape[1]), *[(0, 0)] * 3]) for v in fields]
    return np.stack(padded, 1)


def _frames(num_steps: int, options: Mapping[str, Any], adapter: GridAdapter, split: str) -> range:
    stored = range(num_steps)[_cut(options.get("frames"))]
    if adapter.rule["by"] == "trajectory":
        return stored
    sizes = {name: adapter.rule[name] for name in ("valid", "test")}
    sizes = {name: max(1, round(n * len(stored))) if 0 < n < 1 else n for name, n in sizes.items()}
    sizes["train"] = len(stored) - sum(sizes.values())
    first = 0
    for name in adapter.rule["order"]:
        if name == split:
            break
        first += sizes[name]
    gap = adapter.rule["gap"]
    gap = max(1, round(gap * len(stored))) if 0 < gap < 1 else gap
    return stored[first + (gap if first else 0) : first + sizes[split]]


def run(folder: Path, reader: str, chance: random.Random) -> tuple[str, str]:
    """(kind, text): "right", "refused" (nonsense, and the error says where), "other" or "unclear"."""
    axes = chance.sample("xyz", chance.randint(1, 3))
    sizes = {"sample": chance.randint(1, 4), "time": chance.randint(2, 6), "channel": chance.randint(1, 3)}
    sizes |= {axis: chance.randint(1, 5) for axis in axes}
    dims = chance.sample(list(sizes), len(sizes))
    first, arrays = 1, {}
    for name, lacks in (("a", ()), ("b", ("channel",)), ("c", ("channel", "time")), ("d", ("channel",))):
        own = [dim for dim in dims if dim not in lacks]
        arrays[name] = (own, counted([sizes[dim] for dim in own], first))
        first += arrays[name][1].size
    inner = [dim for dim in dims if dim != "sample" or reader != "groups"]
    options: dict[str, Any] = {
        "axes": chance.sample(axes, len(axes)),
        "frames": _part(sizes["time"], chance),
        "space": {axis: _part(sizes[axis], chance) for axis in axes if chance.random() < 0.5},
        "boundary": {axis: chance.choice(["periodic", "open", "wall"]) for axis in axes if chance.random() < 0.5},
    }
    options = {key: value for key, value in options.items() if chance.random() < 0.7}
    num_steps = len(range(sizes["time"])[_cut(options.get("frames"))])
    options |= {
        "fields": _fields(reader, inner, sizes["channel"], chance),
        "splits": _splits(sizes["sample"], num_steps, chance),
        "dt": 1.0,
    }
    options |= {"sample": "sample", "channel": "channel"} if reader == "xarray" else {"dims": inner}
    path, open_file = _write(folder, reader, arrays)
    changed = chance.random() < 0.4
    if changed:
        options[chance.choice([*COMMON, *OWN[reader]])] = chance.choice(NONSENSE)
    split = chance.choice(["train", "train", "valid", "test"])
    try:
        adapter = open_file(path, split, **options)
        for number in range(len(adapter)):
            frames = _frames(sizes["time"], options, adapter, split)
            expected = oracle(arrays, [dim for dim in dims if dim in axes], options, frames, adapter.place(number)[1])
            start = chance.randrange(len(frames))
            stop = chance.randint(start + 1, len(frames))
            if not np.array_equal(adapter.read(number, start, stop), expected[start:stop]):
                return "other", f"{reader} {options} {sizes} {dims}"
        adapter.close()
    except (ValueError, FileNotFoundError) as error:
        empty = "is left for" in str(error) and split != "train"
        named = str(path) in str(error) or "data set " in str(error) or str(error).startswith(("files:", "order:"))
        kind = "refused" if named and (changed or empty) else "unclear"
        return kind, f"{type(error).__name__}: {error} ({reader} {options})"
    except Exception as error:
        return "unclear", f"{type(error).__name__}: {error} ({reader} {options})"
    return "right", ""


def _write(folder: Path, reader: str, arrays: Mapping[str, tuple[Sequence[str], np.ndarray]]) -> tuple[Path, Any]:
    """The file, and its reader."""
    if reader == "xarray":
        xr.Dataset(dict(arrays)).to_netcdf(folder / "a.nc", engine="h5netcdf")
        return folder / "a.nc", XarrayAdapter
    if reader == "arrays":
        return write_arrays(folder / "a.h5", {name: values for name, (_, values) in arrays.items()}), ArrayAdapter
    rows = {
        f"{number:02d}/{name}": row
        for name, (dims, values) in arrays.items()
        for number, row in enumerate(np.moveaxis(values, list(dims).index("sample"), 0))
    }
    return write_arrays(folder / "a.h5", rows), GroupAdapter
