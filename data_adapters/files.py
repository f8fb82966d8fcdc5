"""From what a user names - a path, a pattern, a URL, a list of them - to files in a stated order."""

import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data_adapters.remote import is_remote, matching

__all__ = ["collection", "find_files", "fingerprint", "join", "local_name"]

_ORDERS = ("numeric", "lexicographic")


def find_files(files: str | os.PathLike[str] | Sequence[str], order: str = "numeric") -> list[str]:
    """The files that are meant.

    Args:
        files: Path, URL or pattern (*, ?, [...], **), or a list of them.
        order: Of what a pattern matches: by the numbers in the names (a_2 before a_10), or "lexicographic" (a_10 before
            a_2).  A list keeps its own order.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: The order is unknown, or a file is named twice.
    """
    if order not in _ORDERS:
        raise ValueError(f"order: expected {' or '.join(_ORDERS)}, found {order!r}")
    listed = [files] if isinstance(files, str | os.PathLike) else files
    if not isinstance(listed, Sequence) or not all(
        isinstance(file, str | os.PathLike) and str(file) for file in listed
    ):
        raise ValueError(f"files: expected a path, a pattern, a URL, or a list of them, found {files!r}")
    named = [os.fspath(file) for file in listed]
    if not named:
        raise ValueError("files: expected one or more, found an empty list")
    found: list[str] = []
    for pattern in named:
        # The question mark of a URL starts its query.
        magic = re.search(r"[*[]", pattern) is not None if is_remote(pattern) else glob.has_magic(pattern)
        if not magic or os.path.exists(pattern):
            if not is_remote(pattern) and not os.path.lexists(pattern):
                raise FileNotFoundError(f"{pattern}: there is no such file; {_absent(pattern)}")
            found.append(pattern)
            continue
        matched = matching(pattern) if is_remote(pattern) else glob.glob(pattern, recursive=True)
        if not matched:
            raise FileNotFoundError(f"{pattern}: no file matches; {_absent(pattern)}")
        found += sorted(matched, key=_numeric if order == "numeric" else str)
    # Under two names, its trajectories would be in two splits.
    real = Counter(file if is_remote(file) else os.path.realpath(file) for file in found)
    if twice := [file for file, count in real.items() if count > 1]:
        raise ValueError(f"files: {', '.join(sorted(twice))} is named twice")
    return found


def _numeric(name: str) -> tuple[list[tuple[int, str]], str]:
    """a_2 before a_10; the name itself decides between a_2 and a_02."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)], name


def _absent(pattern: str) -> str:
    if is_remote(pattern):
        return "correct the URL"
    parent = str(Path(pattern).parent)
    folder = Path(parent)
    while not os.path.isdir(folder):
        if folder.parent == folder:
            break
        folder = folder.parent
    try:
        holds = sorted(os.listdir(folder))
    except OSError as error:
        return f"{folder} cannot be listed ({error.strerror}); correct the path"
    if not any(os.path.isdir(place) for place in [parent, *glob.glob(parent)]):
        return f"the folder {parent} does not exist ({folder} does); fetch the data, or correct the path"
    shown = ", ".join(holds[:8]) + (f" and {len(holds) - 8} more" if len(holds) > 8 else "")
    return f"{folder} holds {shown or 'nothing'}; fetch the data, or correct the path"


def local_name(location: str) -> str:
    """The name of a file or folder without its place and ending, for what has no other name."""
    return Path(location.rstrip("/").rpartition("://")[2]).stem or "data"


def fingerprint(files: Sequence[str]) -> str:
    """Of the names, the order and the sizes of files: others are others, copies elsewhere are the same."""
    sizes = [os.path.getsize(file) if os.path.isfile(file) else 0 for file in files]
    lines = [f"{Path(file).name} {size}" for file, size in zip(files, sizes, strict=True)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def join(folder: str, name: str) -> str:
    """The path or URL of a file in a folder."""
    return f"{folder.rstrip('/')}/{name}" if is_remote(folder) else str(Path(folder) / name)


def collection(files: str | os.PathLike[str] | Sequence[str], cache: str | None = None) -> tuple[str, str]:
    """The name of what the user names, and the folder of its statistics: its own, or where copies are kept.

    Neither depends on which files are there: one more in a pattern is no other data set.
    """
    first = os.fspath(files if isinstance(files, str | os.PathLike) else files[0])
    name, folder = local_name(first), first.rstrip("/").rpartition("/")[0]
    if glob.has_magic(first) and (is_remote(first) or not Path(first).exists()):
        name = re.sub(r"\[[^]]*]|[*?]", "", name).strip("_-. ")
        while glob.has_magic(folder):
            folder = folder.rpartition("/")[0]
        name = name or local_name(folder)
    return name, cache if cache and is_remote(first) else folder
