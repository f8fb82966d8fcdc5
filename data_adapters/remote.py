"""Files behind a URL that fsspec understands: https://, hf://, s3://, ...; read in place, or kept in a local folder."""

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from fsspec import asyn
from fsspec.callbacks import DEFAULT_CALLBACK, TqdmCallback

from morph.claims import LARGEST_YAML, ClaimError
from morph.containers import check_url

__all__ = ["is_remote", "kept", "list_folder", "local_copies", "matching", "open_remote", "read_text"]

# What is read beyond the end of each request, which the next one often wants: the price of a request is its latency.
READ_AHEAD = 64 * 1024


def is_remote(location: str) -> bool:
    """Whether it is a URL and no path (C:\\data is a path)."""
    return "://" in location


def open_remote(url: str) -> BinaryIO:
    """A file object that fetches the ranges that are read from it.

    Raises:
        ValueError: See `check_url`.
        FileNotFoundError: There is no such file.
        OSError: The server does not answer, or not with ranges.
    """
    check_url(url)
    try:
        file = fsspec.open(url, "rb", cache_type="readahead", block_size=READ_AHEAD).open()
    except FileNotFoundError as error:  # also where the server does not answer
        raise FileNotFoundError(f"{url}: it is not there, or cannot be reached: {error.__cause__ or error}") from error
    try:
        file.seek(0, os.SEEK_END)
        file.seek(0)
    except (OSError, ValueError) as error:
        file.close()
        raise OSError("the server does not serve parts of a file; keep local copies with the option `cache`") from error
    return file


def kept(url: str, folder: str | os.PathLike[str]) -> Path:
    """A local copy of a remote file, fetched whole where it is not there yet.

    Another version, by what the server says (size, ETag, time of the last change), is another copy.
    """
    system, path = _system(url)
    said = system.info(path)
    marks = [said.get(key) for key in ("size", "ETag", "etag", "Content-MD5", "LastModified", "mtime", "last_commit")]
    version = hashlib.sha256(f"{url} {marks}".encode()).hexdigest()[:16]
    name = re.sub(r"[^\w.+-]", "_", path.rstrip("/").rpartition("/")[2])
    copy = Path(folder) / f"{version}_{name}"
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        partial = copy.with_name(f".{copy.name}.{os.getpid()}")
        try:
            bar = TqdmCallback(tqdm_kwargs={"desc": copy.name, "unit": "B", "unit_scale": True})
            system.get_file(path, str(partial), callback=bar if sys.stderr.isatty() else DEFAULT_CALLBACK)
            partial.replace(copy)
        finally:
            partial.unlink(missing_ok=True)
    return copy


def local_copies(files: Sequence[str], cache: str | os.PathLike[str] | None) -> list[str]:
    """The files, with a local copy in place of each remote one where a folder for them is given."""
    return [str(kept(file, cache)) if cache and is_remote(file) else file for file in files]


def list_folder(url: str) -> list[str]:
    """Names of what lies in a remote folder.

    Raises:
        FileNotFoundError: There is no such folder.
        OSError: What is behind the URL cannot list folders.
    """
    system, path = _system(url)
    try:
        return sorted(entry.rstrip("/").rpartition("/")[2] for entry in system.ls(path, detail=False))
    except NotImplementedError as error:
        raise OSError(f"{url}: folders cannot be listed there; name the files") from error


def matching(pattern: str) -> list[str]:
    """URLs that match a pattern."""
    system, path = _system(pattern)
    return [system.unstrip_protocol(found) for found in system.glob(path)]


def read_text(url: str) -> str | None:
    """A small remote file, None where there is none."""
    system, path = _system(url)
    try:
        if (size := system.info(path).get("size") or 0) > LARGEST_YAML:
            raise ClaimError(f"{url}: expected at most {LARGEST_YAML:,} bytes of text, found {size:,}")
        return str(system.cat_file(path).decode())
    except FileNotFoundError:
        return None


if hasattr(os, "register_at_fork"):
    # A forked process has fsspec's event loop and not the thread that runs it, and would wait for it for ever.
    os.register_at_fork(after_in_child=asyn.reset_lock)


def _system(url: str) -> tuple[Any, str]:
    check_url(url)
    found: Sequence[Any] = fsspec.core.url_to_fs(url)
    return found[0], found[1]
