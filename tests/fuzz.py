"""Damaged files of every layout, read in a process of their own: python -m tests.fuzz cases=2000 seed=0

A case flips bits of a valid file, cuts it off or overwrites a stretch of it, opens it with its reader and reads all of
it.  It ends well as "right" (what is read is what was written) or "refused" (one error of a kind that the readers
promise, which names the file).  Otherwise it is "other" (read without complaint, and not what was written), "unclear"
(another exception, or one that does not name the file), "crash" or "hang" of the process.

Where a format has no checksum, "flip" and "overwrite" leave numbers alone: another number there is one that nobody can
tell.  "anywhere" does not; it is for crashes of the decoders, and "other" is its due.  A second table is of random
options on valid files (tests/fuzz_options.py).
"""

import multiprocessing
import os
import random
import resource
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import xarray as xr

from data_adapters.grid import GridAdapter
from data_adapters.hdf5 import ArrayAdapter, GroupAdapter, WellAdapter
from data_adapters.labelled import XarrayAdapter
from tests import fuzz_options
from tests.layout_files import close_files, counted, write_cfd, write_groups, write_netcdf
from tests.well_files import Boundary, WellField, WellFile, write_file

__all__ = ["DAMAGES", "LAYOUTS", "Outcome", "fuzz", "main"]

ALL = {"order": ["train", "valid", "test"], "valid": 0, "test": 0}
LIMIT_SECONDS = 20.0
MEMORY = 6 * 2**30

Ranges = list[tuple[int, int]]


@dataclass
class Layout:
    """A kind of file.

    Args:
        write: Writes a valid one into a folder; the path to give to the reader.
        read: Opens it.
            numbers: Parts of a file that hold nothing but numbers without a checksum, (first, last + 1).
    """

    write: Callable[[Path], Path]
    read: Callable[[Path], GridAdapter]
    numbers: Callable[[Path], Ranges]


class Outcome(NamedTuple):
    """How a case ended; `text` is the message, or what differs."""

    layout: str
    damage: str
    kind: str
    text: str
    case: int


def _well(folder: Path) -> Path:
    storage = {"chunks": (1, 1, 5, 4), "fletcher32": True}
    fields = {
        "density": WellField(counted((3, 4, 5, 4)), storage=storage),
        "velocity": WellField(counted((3, 4, 5, 4, 2), 500), rank=1, storage={**storage, "chunks": (1, 1, 5, 4, 2)}),
    }
    contents = WellFile(
        {"x": np.arange(5, dtype="f4"), "y": np.arange(4, dtype="f4")},
        0.25 * np.arange(4, dtype="f4"),
        3,
        fields,
        [Boundary("PERIODIC", ["x"]), Boundary("WALL", ["y"])],
        {"viscosity": np.array([0.5, 1.5, 2.5])},
    )
    write_file(folder / "well" / "data" / "train" / "a.hdf5", contents)
    return folder / "well"


def _cfd(folder: Path) -> Path:
    names = ["density", "pressure", "Vx", "Vy"]
    return write_cfd(folder / "cfd.hdf5", dict(zip(names, counted((4, 3, 4, 5, 4)), strict=True)), eta=0.1)


def _read_cfd(path: Path) -> GridAdapter:
    return ArrayAdapter(
        path,
        dims=["sample", "time", "x", "y"],
        coordinates={"time": "t-coordinate", "x": "x-coordinate", "y": "y-coordinate"},
        parameters=["eta"],
        fields=[{"name": "velocity", "from": ["Vx", "Vy"]}, "density", "pressure"],
        splits=ALL,
    )


def _groups(folder: Path) -> Path:
    return write_groups(folder / "groups.h5", counted((4, 3, 5, 4, 2)), ["sim: {k: 0.5}\n"] * 4)


def _read_groups(path: Path) -> GridAdapter:
    return GroupAdapter(
        path,
        dims=["time", "x", "y", "channel"],
        coordinates={"time": "grid/t", "x": "grid/x"},
        parameters=["k"],
        fields=["data"],
        splits=ALL,
    )


def _gym(folder: Path) -> Path:
    dims = ("sample", "time", "channel", "x", "y")
    return write_netcdf(folder / "gym.nc", {"data": (dims, counted((3, 4, 2, 5, 4)))})


def _read_gym(path: Path) -> GridAdapter:
    return ArrayAdapter(path, dims=["sample", "time", "channel", "x", "y"], dt=0.05, fields=["data"], splits=ALL)


def _labelled(folder: Path, name: str, **options: Any) -> Path:
    found = xr.Dataset(
        {
            name: (("run", "time", "x", "y"), values)
            for name, values in zip("uv", counted((2, 3, 4, 5, 4)), strict=True)
        },
        {"time": 0.5 * np.arange(4), "x": np.arange(5.0), "y": np.arange(4.0)},
    )
    if name.endswith(".zarr"):
        found.to_zarr(folder / name, **options)
    else:
        found.to_netcdf(folder / name, **options)
    return folder / name


def _read_labelled(path: Path) -> GridAdapter:
    return XarrayAdapter(path, sample="run", fields=["u", "v"], splits=ALL)


def _hdf5_numbers(path: Path) -> Ranges:
    """Values of arrays, and of numeric attributes; of arrays with a checksum none."""
    found: Ranges = []

    def visit(_: str, node: h5py.Group | h5py.Dataset) -> None:
        if isinstance(node, h5py.Dataset) and node.chunks is None and node.id.get_offset() is not None:
            found.append((node.id.get_offset(), node.id.get_offset() + node.id.get_storage_size()))
        elif isinstance(node, h5py.Dataset) and node.chunks is not None and not node.fletcher32:
            chunks = (node.id.get_chunk_info(number) for number in range(node.id.get_num_chunks()))
            found.extend((chunk.byte_offset, chunk.byte_offset + chunk.size) for chunk in chunks)

    with h5py.File(path) as file:
        file.visititems(visit)
        numbers = [np.asarray(value).tobytes() for value in file.attrs.values() if np.asarray(value).dtype.kind == "f"]
    raw = path.read_bytes()
    for number in numbers:
        found.append((raw.index(number), raw.index(number) + len(number)))
    return found


def _netcdf3_numbers(path: Path) -> Ranges:
    """What lies behind the header: all from the first number of the first variable."""
    raw = path.read_bytes()
    firsts = (0.5 * np.arange(4), np.arange(5.0), counted((4,)).astype(">f4"))
    return [(min(raw.index(first.astype(first.dtype.newbyteorder(">")).tobytes()) for first in firsts), len(raw))]


def _zarr_numbers(path: Path) -> Ranges:
    """All of a chunk."""
    named = path.name in (".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json")
    return [] if named else [(0, path.stat().st_size)]


LAYOUTS = {
    "The Well": Layout(_well, WellAdapter, _hdf5_numbers),
    "PDEBench arrays": Layout(_cfd, _read_cfd, _hdf5_numbers),
    "PDEBench groups": Layout(_groups, _read_groups, _hdf5_numbers),
    "PDEgym": Layout(_gym, _read_gym, _hdf5_numbers),
    "NetCDF 4": Layout(partial(_labelled, name="four.nc", engine="h5netcdf"), _read_labelled, _hdf5_numbers),
    "NetCDF 3": Layout(
        partial(_labelled, name="three.nc", engine="scipy", format="NETCDF3_64BIT"), _read_labelled, _netcdf3_numbers
    ),
    "Zarr 2": Layout(partial(_labelled, name="two.zarr", zarr_format=2), _read_labelled, _zarr_numbers),
    "Zarr 3": Layout(partial(_labelled, name="three.zarr", zarr_format=3, consolidated=False), _read_labelled,
                     _zarr_numbers),
}  # fmt: skip


def _allowed(size: int, numbers: Ranges) -> list[int]:
    """Places that may be changed."""
    free = np.ones(size, dtype=bool)
    for first, last in numbers:
        free[first:last] = False
    return np.flatnonzero(free).tolist()


def _flip(raw: bytearray, numbers: Ranges, chance: random.Random) -> None:
    places = _allowed(len(raw), numbers)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        if places:
            raw[chance.choice(places)] ^= 1 << chance.randrange(8)


def _overwrite(raw: bytearray, numbers: Ranges, chance: random.Random) -> None:
    places = _allowed(len(raw), numbers)
    if places:
        first = chance.choice(places)
        value = chance.choice([0, 255, None])
        for place in range(first, min(first + chance.choice([2, 4, 8, 32]), len(raw))):
            if place in set(places):
                raw[place] = chance.randrange(256) if value is None else value


def _anywhere(raw: bytearray, numbers: Ranges, chance: random.Random) -> None:
    _flip(raw, [], chance)


def _truncate(raw: bytearray, numbers: Ranges, chance: random.Random) -> None:
    del raw[chance.randrange(len(raw)) :]


DAMAGES: dict[str, Callable[[bytearray, Ranges, random.Random], None]] = {
    "flip": _flip,
    "overwrite": _overwrite,
    "truncate": _truncate,
    "anywhere": _anywhere,
}


def _everything(adapter: GridAdapter) -> tuple[Any, ...]:
    frames = [adapter.read(number, 0, adapter.spec.num_steps) for number in range(len(adapter))]
    coordinates = {name: values.tolist() for name, values in adapter.coordinates.items()}
    return adapter.spec, coordinates, [adapter.parameters(number) for number in range(len(adapter))], frames


class _Cases:
    """Valid files of all layouts, and what is read of them."""

    def __init__(self, folder: Path) -> None:
        self.valid: dict[str, tuple[Path, dict[Path, bytes], dict[Path, Ranges], tuple[Any, ...]]] = {}
        for name, layout in LAYOUTS.items():
            path = layout.write(folder)
            files = sorted(file for file in [path, *path.rglob("*")] if file.is_file())
            raw = {file: file.read_bytes() for file in files}
            numbers = {file: layout.numbers(file) for file in files}
            self.valid[name] = path, raw, numbers, _everything(layout.read(path))
            close_files()

    def run(self, layout: str, damage: str, case: int) -> tuple[str, str]:
        """(kind, text)."""
        chance = random.Random(f"{layout} {damage} {case}")
        path, files, numbers, expected = self.valid[layout]
        sizes = [len(raw) if damage != "truncate" else 1 for raw in files.values()]
        file = chance.choices(list(files), sizes)[0]
        if layout.startswith("Zarr") and damage in ("flip", "overwrite"):
            file = chance.choice([file for file in files if not numbers[file]])
        raw = bytearray(files[file])
        DAMAGES[damage](raw, numbers[file], chance)
        file.write_bytes(raw)
        try:
            found = _everything(LAYOUTS[layout].read(path))
        except (ValueError, FileNotFoundError, IndexError) as error:
            return ("refused" if str(path) in str(error) else "unclear"), f"{type(error).__name__}: {error}"
        except Exception as error:
            return "unclear", f"{type(error).__name__}: {error}"
        finally:
            file.write_bytes(files[file])
            close_files()
        what = ["spec", "coordinates", "parameters"]
        other = [name for name, one, two in zip(what, expected, found, strict=False) if one != two]
        same = len(expected[3]) == len(found[3]) and all(map(np.array_equal, expected[3], found[3]))
        other += [] if same else ["values"]
        return ("other" if other else "right"), f"{file.name}: {', '.join(other)}"


def _serve(cases: Connection) -> None:
    """In the child: one outcome for each case that comes in."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder:
        ready = _Cases(Path(folder))
        cases.send(("ready", ""))
        while True:
            case = cases.recv()
            if case is None:
                return
            cases.send(ready.run(*case))


def fuzz(cases: int, seed: int = 0, limit: float = LIMIT_SECONDS) -> Iterator[Outcome]:
    """Outcomes of so many cases, layouts and kinds of damage in turn; the same for the same seed."""
    context = multiprocessing.get_context("fork")
    child: Any = None
    ours: Connection | None = None
    kinds = [(layout, damage) for layout in LAYOUTS for damage in DAMAGES]
    try:
        for number in range(cases):
            layout, damage = kinds[number % len(kinds)]
            case = seed * 1_000_000 + number // len(kinds)
            if child is None or ours is None:
                ours, theirs = context.Pipe()
                child = context.Process(target=_serve, args=(theirs,), daemon=True)
                child.start()
                theirs.close()
                ours.recv()
            ours.send((layout, damage, case))
            try:
                kind, text = ours.recv() if ours.poll(limit) else ("hang", f"after {limit:g} s")
            except EOFError:
                child.join()
                kind, text = "crash", f"exit {child.exitcode}"
            if kind in ("hang", "crash"):
                child.kill()
                child.join()
                child = None
            yield Outcome(layout, damage, kind, text, case)
    finally:
        if child is not None:
            child.kill()
            child.join()


def main() -> None:
    """Print how many cases of each layout and damage ended how, and what did not end well."""
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    cases, seed = int(options.pop("cases", "500")), int(options.pop("seed", "0"))
    if options:
        raise SystemExit(f"expected cases=500 seed=0, found {options}")
    kinds = ("right", "refused", "other", "unclear", "crash", "hang")
    counts: Counter[tuple[str, str, str]] = Counter()
    bad = []
    for outcome in fuzz(cases, seed):
        counts[outcome.layout, outcome.damage, outcome.kind] += 1
        if outcome.kind not in kinds[: 3 if outcome.damage == "anywhere" else 2]:
            bad.append(outcome)
    print(f"{'layout':<16} {'damage':<10}", *(f"{kind:>8}" for kind in kinds))
    for layout in LAYOUTS:
        for damage in DAMAGES:
            print(f"{layout:<16} {damage:<10}", *(f"{counts[layout, damage, kind]:>8}" for kind in kinds))
    options_counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(cases):
            reader = fuzz_options.READERS[number % len(fuzz_options.READERS)]
            kind, text = fuzz_options.run(Path(folder), reader, random.Random(f"{seed} {number}"))
            close_files()
            options_counts[reader, kind] += 1
            if kind not in kinds[:2]:
                bad.append(Outcome(reader, "options", kind, text, number))
    for reader in fuzz_options.READERS:
        print(f"{reader:<16} {'options':<10}", *(f"{options_counts[reader, kind]:>8}" for kind in kinds))
    for outcome in bad:
        print(f"{outcome.kind}: {outcome.layout}, {outcome.damage}, case {outcome.case}: {outcome.text[:300]}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
