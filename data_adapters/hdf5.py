"""Readers of HDF5 files: The Well's layout, whole arrays, and one group for each trajectory."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Unpack

import h5py
import numpy as np

from data_adapters.array_layout import array_names, groups_of, layout_of, read_arrays, read_groups
from data_adapters.choices import Choice, check_texts
from data_adapters.contents import Contents
from data_adapters.files import collection, find_files, fingerprint, join
from data_adapters.grid import GridAdapter, Options, Selection
from data_adapters.handles import HANDLES, UnreadableError
from data_adapters.plan import check_selection
from data_adapters.raw import RawArray, raw_array, unwritten_chunks
from data_adapters.remote import is_remote, list_folder, local_copies
from data_adapters.splits import ALL, SPLITS, check_split
from data_adapters.well_layout import field_ranks, read_contents
from morph.claims import ClaimError
from morph.containers import check_owned

__all__ = ["ArrayAdapter", "GroupAdapter", "WellAdapter", "split_files"]

SUFFIXES = (".h5", ".hdf5")


class WellAdapter(GridAdapter):
    """One split of a data set in The Well's layout (https://polymathic-ai.org/the_well/data_format).

    That is `<path>/data/<split>/*.{h5,hdf5}` and `<path>/stats.yaml`.  The axes of a file map onto the last of
    (D, H, W) in the file's index order.  A field that is constant in time, over trajectories or along an axis is
    repeated.  An axis is periodic or a wall where both of its ends are; one whose ends differ is open.

    Args:
        path: The data set's folder, or its URL (hf://datasets/polymathic-ai/shear_flow).
        split: train, valid, test, or all: those of them that are there, one after the other.
        cache: Folder where remote files are kept; None reads the parts that are needed, each time.
        options: See `data_adapters.grid.Options`.  Of `fields`, None takes all scalars and then all vectors, in the
            file's order; rank-2 tensors (row by row, C * C components) are read only when they are named.

    Raises:
        FileNotFoundError: The folder, the split or every file in it is missing.
        ValueError: A file is damaged, not in the layout, or differs from the first one; the split or an option is
            wrong; `stats.yaml` is malformed or lacks a field.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        split: str = "train",
        cache: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(_WellStore(os.fspath(path), split, cache), split, **options)


class ArrayAdapter(GridAdapter):
    """One split of HDF5 or NetCDF-4 files that hold whole arrays, [sample, time, ...] in any order.

    Args:
        files: Path, URL or pattern, or a list of them; trajectories run on over several files.
        split: train, valid, test or all.
        dims: What the axes of the arrays are, in index order: sample, time, channel, and names of spatial axes.
        coordinates: Arrays with the coordinates of an axis, and of time; they may have one entry more than the axis.
        parameters: Parameters of each trajectory: attributes of the file, or arrays of () or (N,).
        order: Of several files: "numeric" (a_2 before a_10) or "lexicographic" (a_10 before a_2).
        cache: As in `WellAdapter`.
        options: See `data_adapters.grid.Options`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As in `WellAdapter`.
    """

    _grouped = False

    def __init__(
        self,
        files: str | os.PathLike[str] | Sequence[str],
        split: str = "train",
        *,
        dims: Sequence[str],
        coordinates: Mapping[str, str] | None = None,
        parameters: Sequence[str] = (),
        order: str = "numeric",
        cache: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        store = _GroupStore if self._grouped else _ArrayStore
        super().__init__(store(files, dims, coordinates, parameters, order, cache), split, **options)


class GroupAdapter(ArrayAdapter):
    """One split of HDF5 files with a group for each trajectory, in the order of their names.

    Args:
        dims, coordinates, parameters: As in `ArrayAdapter`, inside of a group: without sample.  `parameters` are
            attributes of the group or of the file, entries of a group's YAML attribute `config`, or 0-d arrays.

    The others are those of `ArrayAdapter`.
    """

    _grouped = True


class _Store:
    """What the formats in HDF5 share: reading a piece of an array."""

    files: Sequence[str]

    def __init__(self) -> None:
        self._raw: dict[tuple[str, str], RawArray | None] = {}

    def read(self, file: str, path: str, selection: Selection, out: np.ndarray | None = None) -> np.ndarray:
        with HANDLES.lend(file) as opened:
            if (file, path) not in self._raw:
                check_owned(opened[path], opened, file)
                self._raw[file, path] = raw_array(opened[path], opened)
            raw = self._raw[file, path]
            values = None if raw is None else raw.read(opened, selection, out)
            if values is not None:
                return values
            data = opened[path]
            check_selection(data.shape, selection, data.dtype.itemsize, f"{file}: {path}")
            if out is None or not out.flags.c_contiguous:
                # Reading into part of a window (`dest_sel`) saves a copy, but takes HDF5 60 times as long on chunks.
                return data[selection]
            data.read_direct(out, selection)
            return out

    def unwritten(self, file: str, path: str) -> tuple[int, int]:
        with self._fresh(file) as opened:
            return unwritten_chunks(opened[path])

    def fingerprint(self) -> str:
        return fingerprint(self.files)

    def close(self) -> None:
        HANDLES.close(self.files)

    @contextmanager
    def _fresh(self, file: str) -> Iterator[h5py.File]:
        """The file as it is on disk now, closed afterwards, so that hundreds of files are opened one at a time."""
        HANDLES.close([file])
        name = "unknown"
        try:
            with HANDLES.lend(file) as opened:
                name = opened.filename  # of a remote file, the text of a file object
                yield opened
        except (FileNotFoundError, UnreadableError, ClaimError):
            raise
        except (AssertionError, NameError):
            raise  # no fault of the file
        except Exception as error:
            if type(error) is ValueError and str(error).startswith(name):
                raise ValueError(file + str(error).removeprefix(name)) from None  # it can be read, and holds the wrong
            # Of a damaged file, h5py and HDF5 raise what they please.
            raise ValueError(
                f"{file}: its metadata cannot be read: {type(error).__name__}: {error}; fetch or generate it again"
            ) from error
        finally:
            HANDLES.close([file])


class _WellStore(_Store):
    divided = True

    def __init__(self, path: str, split: str, cache: str | None) -> None:
        super().__init__()
        self.where = path
        self.name = Path(path).name
        check_split(split, path)
        check_texts(path, cache=cache)
        self.files = local_copies(split_files(path, split), cache)

    def statistics_place(self, name: str | None) -> str:
        return join(self.where, "stats.yaml")

    def fingerprint(self) -> str:
        return fingerprint(split_files(self.where, "train"))

    def choices(self) -> list[Choice]:
        with self._fresh(self.files[0]) as file:
            ranks = field_ranks(file)
        chosen = [Choice(name, (name,)) for name, rank in ranks.items() if rank < 2]
        if not chosen:
            raise ValueError(
                f"{self.files[0]}: expected a scalar or vector field, found {', '.join(ranks) or 'no field at all'}; "
                "a tensor field is read when `fields` names it"
            )
        return chosen

    def contents(self, file: str, chosen: Sequence[Choice]) -> Contents:
        with self._fresh(file) as opened:
            return read_contents(opened, chosen)


class _ArrayStore(_Store):
    divided = False

    def __init__(
        self,
        files: str | os.PathLike[str] | Sequence[str],
        dims: Sequence[str],
        coordinates: Mapping[str, str] | None,
        parameters: Sequence[str],
        order: str,
        cache: str | None,
    ) -> None:
        super().__init__()
        check_texts(str(files), cache=cache)
        self.files = local_copies(find_files(files, order), cache)
        self.where = self.files[0] if len(self.files) == 1 else f"{self.files[0]} to {self.files[-1]}"
        self.name, self._folder = collection(files, cache)
        self._layout = layout_of(dims, coordinates, parameters, self.where)

    def statistics_place(self, name: str | None) -> str:
        return join(self._folder, f"{name or self.name}.stats.yaml")

    def choices(self) -> list[Choice]:
        with self._fresh(self.files[0]) as file:
            return [Choice(name, (name,)) for name in array_names(file, file, self._layout)]

    def contents(self, file: str, chosen: Sequence[Choice]) -> Contents:
        with self._fresh(file) as opened:
            return read_arrays(opened, chosen, self._layout)


class _GroupStore(_ArrayStore):
    """The group of a trajectory stands in for the axis of samples, which `read_groups` puts first."""

    def __init__(self, *layout: Any) -> None:
        super().__init__(*layout)
        self._names: dict[str, list[str]] = {}

    def choices(self) -> list[Choice]:
        with self._fresh(self.files[0]) as file:
            return [Choice(name, (name,)) for name in array_names(file, groups_of(file)[1][0], self._layout)]

    def contents(self, file: str, chosen: Sequence[Choice]) -> Contents:
        with self._fresh(file) as opened:
            self._names[file], contents = read_groups(opened, chosen, self._layout)
        return contents

    def unwritten(self, file: str, path: str) -> tuple[int, int]:
        with self._fresh(file) as opened:
            counts = [unwritten_chunks(opened[f"{name}/{path}"]) for name in self._names[file]]
        return sum(missing for missing, _ in counts), sum(total for _, total in counts)

    def read(self, file: str, path: str, selection: Selection, out: np.ndarray | None = None) -> np.ndarray:
        row, *rest = selection
        assert isinstance(row, int), "the first axis is that of the trajectories"
        return super().read(file, f"{self._names[file][row]}/{path}", tuple(rest), out)


def split_files(folder: str, split: str) -> list[str]:
    """The files of a split in The Well's layout, in the order of their names; of "all", those of each split in turn.

    Raises:
        FileNotFoundError: The folder, the split or every file in it is missing.
    """
    if split == ALL:
        there: list[str] = []
        with suppress(OSError):  # which the first split says in words
            there = [name for name in _names(join(folder, "data")) if name in SPLITS]
        return [file for name in SPLITS if name in there or not there for file in split_files(folder, name)]
    found: list[str] | None = None
    for place in (folder, join(folder, "data"), join(folder, f"data/{split}")):
        try:
            names = _names(place)
        except OSError as error:
            beside = "" if found is None else f"; {place.rpartition('/')[0]} holds {', '.join(found) or 'nothing'}"
            raise FileNotFoundError(
                f"{place}: expected a folder (The Well's layout is {Path(folder).name}/data/{split}/*.hdf5), found: "
                f"{error.strerror or error}{beside}; fetch or generate the data set, or correct `path`"
            ) from error
        found = [name for name in names if not name.startswith(".")]
    files = [join(place, entry) for entry in found or () if entry.endswith(SUFFIXES)]
    if not files:
        raise FileNotFoundError(
            f"{place}: expected files that end in {' or '.join(SUFFIXES)}, found {', '.join(found or ()) or 'none'}; "
            "fetch or generate the data set again"
        )
    return files


def _names(folder: str) -> list[str]:
    return list_folder(folder) if is_remote(folder) else sorted(os.listdir(folder))
