"""From a path, a URL, a pattern or a folder to files of one format."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py

from data_adapters.files import find_files
from data_adapters.inspect.question import Question
from data_adapters.remote import is_remote, kept, list_folder, open_remote

__all__ = ["HDF5", "LABELLED", "WELL", "Container", "find_container"]

WELL, LABELLED, HDF5 = "well", "labelled", "hdf5"

_ENDINGS = (
    ".nc",
    ".nc4",
    ".cdf",
    ".netcdf",
    ".h5",
    ".hdf5",
    ".hdf",
    ".he5",
    ".mat",
    ".zarr",
    ".grib",
    ".grib2",
    ".grb",
)
_SIGNATURES = (
    (b"\x89HDF\r\n\x1a\n", HDF5, "HDF5"),
    (b"CDF\x01", LABELLED, "NetCDF 3 (classic)"),
    (b"CDF\x02", LABELLED, "NetCDF 3 (64-bit offset)"),
    (b"CDF\x05", LABELLED, "NetCDF 3 (64-bit data)"),
    (b"GRIB", LABELLED, "GRIB"),
)
_OTHERS = (
    (b"\x93NUMPY", "a NumPy array", "numpy.load"),
    (b"PK\x03\x04", "a ZIP archive (.npz, .pt, a zipped store)", "numpy.load"),
    (b"MATLAB 5.0", "a MATLAB file of before version 7.3", "scipy.io.loadmat"),
)


class Container(NamedTuple):
    """Files of one format.

    kind: WELL, LABELLED (what xarray opens) or HDF5.
    label: The format's name.
    named: What the YAML says: a path, URL or pattern, or a list of them.
    files: Each of them, a local copy where there is one; of a data set of The Well, its folder.
    engine: Of xarray, where it would not find out.
    """

    kind: str
    label: str
    named: str | list[str]
    files: list[str]
    engine: str | None = None


def find_container(paths: Sequence[str], cache: str | None = None, engine: str | None = None) -> Container:
    """The files that a user means, and their format by their first bytes.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: A file is empty, or of no format that is read here.
        Question: A folder holds files of several formats.
    """
    if len(paths) == 1 and (found := _folder(paths[0])):
        return found
    files = find_files(list(paths))
    named = [path if is_remote(path) else str(Path(path).absolute()) for path in paths]
    local = [str(kept(file, cache)) if cache and is_remote(file) else file for file in files]
    kind, label = (LABELLED, engine) if engine else _format(local[0])
    if label == "Zarr" and not local[0].rstrip("/").endswith(".zarr"):
        engine = "zarr"
    return Container(kind, label, named[0] if len(named) == 1 else named, local, engine)


def _folder(path: str) -> Container | None:
    """What a folder is; None of a file, a pattern and a store."""
    remote = is_remote(path)
    if remote and Path(path.rpartition("?")[0] or path).suffix in _ENDINGS:
        return None
    if not remote and not Path(path).is_dir():
        return None
    try:
        names = _names(path)
    except OSError:
        if remote:  # a file, or a server that lists no folders
            return None
        raise
    if {".zgroup", ".zarray", ".zmetadata", "zarr.json"} & set(names):
        return None
    root = path.rstrip("/") if remote else str(Path(path).absolute())
    if Path(root).name == "data" and "train" in names:
        root, names = root.rpartition("/")[0], ["data"]
    if "data" in names and "train" in _inside(root, "data"):
        return Container(WELL, "The Well's layout (HDF5)", root, [root])
    by_ending: dict[str, list[str]] = {}
    for name in names:
        if Path(name).suffix in _ENDINGS:
            by_ending.setdefault(Path(name).suffix, []).append(name)
    if not by_ending:
        inside = [name for name in names if any(Path(entry).suffix in _ENDINGS for entry in _inside(root, name))]
        if inside:
            raise Question(
                f"{path}: its data lie in {len(inside)} folders; which of them?",
                {f"{path.rstrip('/')}/{name}": "" for name in inside[:8]},
                replaces_paths=True,
            )
        raise ValueError(
            f"{path}: expected files that end in {', '.join(_ENDINGS)}, or a data set in The Well's layout "
            f"(data/train/*.hdf5), found {_some(names)}"
        )
    patterns = {f"{path.rstrip('/')}/*{ending}": f"{len(found)} files" for ending, found in by_ending.items()}
    if len(patterns) > 1:
        raise Question(f"{path}: it holds files of several formats; which of them?", patterns, replaces_paths=True)
    return find_container(list(patterns))


def _names(folder: str) -> list[str]:
    return list_folder(folder) if is_remote(folder) else sorted(entry.name for entry in Path(folder).iterdir())


def _inside(folder: str, name: str) -> list[str]:
    """What a folder in a folder holds; nothing, if it is a file, which a listing does not tell."""
    try:
        return _names(f"{folder}/{name}")
    except (NotADirectoryError, FileNotFoundError):
        return []
    except OSError:
        if is_remote(folder):
            return []
        raise


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "nothing"


def _format(file: str) -> tuple[str, str]:
    if Path(file).is_dir() or Path(file).suffix == ".zarr":
        return LABELLED, "Zarr"
    if is_remote(file):
        with open_remote(file) as opened:
            head = opened.read(512)
    else:
        with Path(file).open("rb") as local:
            head = local.read(512)
    if not head:
        raise ValueError(f"{file}: expected data, found 0 bytes; fetch or generate the file again")
    if not is_remote(file) and h5py.is_hdf5(file):
        return HDF5, "HDF5"
    for signature, kind, label in _SIGNATURES:
        if head.startswith(signature):
            return kind, label
    way_out = 'as NetCDF: xarray.Dataset({"u": (("time", "y", "x"), values)}).to_netcdf("u.nc")'
    for signature, what, reader in _OTHERS:
        if head.startswith(signature):
            raise ValueError(f"{file}: found {what}; read it with {reader} and store it {way_out}")
    text = all(byte >= 32 or byte in b"\t\r\n\f" for byte in head)
    raise ValueError(
        f"{file}: expected NetCDF, HDF5, Zarr or GRIB, found {'a text file' if text else f'the bytes {head[:8]!r}'}; "
        f"store it {way_out}, or name the `engine` with which xarray opens it"
    )
