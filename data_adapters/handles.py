"""Files that stay open between two reads: per process, and no more than a bounded number of them.

Opening a file for every window costs more than reading the window; never closing one lets memory and descriptors grow
with the number of files; and a handle that a forked process inherits shares its file position with the parent.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import h5py

from data_adapters.remote import is_remote, open_remote

__all__ = ["HANDLES", "FileHandles", "Signature", "UnreadableError", "signature"]


class UnreadableError(ValueError):
    """A file that cannot be opened; the message says which and why."""


Signature = tuple[int, int, int]
"""What changes when a file is replaced or written: inode, size, time of the last change."""


class _Closeable(Protocol):
    def close(self) -> Any: ...


Key = TypeVar("Key", bound=Hashable)
Handle = TypeVar("Handle", bound=_Closeable)


def signature(location: str) -> Signature | None:
    """Of a file as it is now, None of a remote one or one that is not there."""
    try:
        found = None if is_remote(location) else os.stat(location)
    except OSError:
        return None
    return None if found is None else (found.st_ino, found.st_size, found.st_mtime_ns)


class FileHandles(Generic[Key, Handle]):
    """Lends open files and closes the one that was lent longest ago when there are too many.

    Args:
        opener: Opens the file of a key: its location, a path or URL, and what else decides how it is opened.
        limit: Files that may be open at the same time.
    """

    def __init__(self, opener: Callable[[Key], Handle], limit: int = 64) -> None:
        self.limit = limit
        self._opener = opener
        self._open: OrderedDict[Key, Handle] = OrderedDict()
        self._lock = threading.RLock()
        self._process = os.getpid()

    def __len__(self) -> int:
        """Number of files open in this process."""
        self._drop_inherited()
        return len(self._open)

    @contextmanager
    def lend(self, key: Key) -> Iterator[Handle]:
        """The file, open for reading.  HDF5 serves one thread at a time, so other threads wait until it is given back.

        Raises:
            FileNotFoundError: There is no such file.
            UnreadableError: It cannot be opened: empty, cut off, of another format, or not readable.
        """
        self._drop_inherited()
        with self._lock:
            file = self._open.pop(key, None) or self._opener(key)
            self._open[key] = file
            while len(self._open) > self.limit:
                self._open.popitem(last=False)[1].close()
            yield file

    def close(self, keys: Iterable[Key]) -> None:
        """Close those of the files that are open in this process."""
        self._drop_inherited()
        with self._lock:
            for key in keys:
                if key in self._open:
                    self._open.pop(key).close()

    def _drop_inherited(self) -> None:
        # A forked process closes what it inherited before it opens anything: HDF5 would otherwise hand the inherited
        # descriptor, and with it the parent's file position, to whoever opens the same file again.  The lock is
        # replaced, for the thread that held it at the fork does not exist here.
        if self._process != os.getpid():
            self._process = os.getpid()
            self._lock = threading.RLock()
            while self._open:
                self._open.popitem()[1].close()


def _open_hdf5(location: str) -> h5py.File:
    try:
        if is_remote(location):
            return h5py.File(open_remote(location), "r")
        if Path(location).stat().st_size == 0:
            raise UnreadableError(
                f"{location}: expected an HDF5 file, found 0 bytes; fetch or generate it again, or remove it"
            )
        return h5py.File(location, "r")
    except FileNotFoundError as error:
        if is_remote(location):
            raise
        raise FileNotFoundError(f"{location}: the file, or what it links to, does not exist") from error
    except OSError as error:
        raise UnreadableError(
            f"{location}: expected a readable HDF5 file, found: {' '.join(str(error).split())}; fetch or generate it "
            "again, or remove it"
        ) from error


# One for the process: the bound holds for all data sets of a mixture together.
HANDLES = FileHandles(_open_hdf5)
