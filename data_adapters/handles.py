"""HDF5 files that stay open between two reads: per process, and no more than a bounded number of them.

Opening a file for every window costs more than reading the window; never closing one lets memory and descriptors grow
with the number of files; and a handle that a forked process inherits shares its file position with the parent.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

__all__ = ["HANDLES", "FileHandles"]


class FileHandles:
    """Lends open HDF5 files and closes the one that was lent longest ago when there are too many.

    Args:
        limit: Files that may be open at the same time.
    """

    def __init__(self, limit: int = 64) -> None:
        self.limit = limit
        self._open: OrderedDict[Path, h5py.File] = OrderedDict()
        self._lock = threading.RLock()
        self._process = os.getpid()

    def __len__(self) -> int:
        """Number of files open in this process."""
        self._drop_inherited()
        return len(self._open)

    @contextmanager
    def lend(self, path: Path) -> Iterator[h5py.File]:
        """The file, open for reading.  HDF5 serves one thread at a time, so other threads wait until it is given back.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It cannot be opened as HDF5: empty, cut off, of another format, or not readable.
        """
        self._drop_inherited()
        with self._lock:
            file = self._open.pop(path, None) or _open(path)
            self._open[path] = file
            while len(self._open) > self.limit:
                self._open.popitem(last=False)[1].close()
            yield file

    def close(self, paths: Iterable[Path]) -> None:
        """Close those of the files that are open in this process."""
        self._drop_inherited()
        with self._lock:
            for path in paths:
                if path in self._open:
                    self._open.pop(path).close()

    def _drop_inherited(self) -> None:
        # A forked process closes what it inherited before it opens anything: HDF5 would otherwise hand the inherited
        # descriptor, and with it the parent's file position, to whoever opens the same file again.  The lock is
        # replaced, for the thread that held it at the fork does not exist here.
        if self._process != os.getpid():
            self._process = os.getpid()
            self._lock = threading.RLock()
            while self._open:
                self._open.popitem()[1].close()


def _open(path: Path) -> h5py.File:
    try:
        if path.stat().st_size == 0:
            raise ValueError(f"{path}: expected an HDF5 file, found 0 bytes; fetch or generate it again, or remove it")
        return h5py.File(path, "r")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: the file, or what it links to, does not exist") from error
    except OSError as error:
        raise ValueError(
            f"{path}: expected a readable HDF5 file, found: {error}; fetch or generate it again, or remove it"
        ) from error


# One for the process: the bound holds for all data sets of a mixture together.
HANDLES = FileHandles()
