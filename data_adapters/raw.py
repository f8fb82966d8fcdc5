"""Pieces of HDF5 arrays that lie in a file as they are in memory, read past the library.

An array without chunks and filters is one run of bytes.  A window of it is then read by the operating system straight
to where the caller wants it, without the copy that the library makes on the way.
"""

import os
from collections.abc import Iterable, Sequence
from math import prod
from typing import NamedTuple

import h5py
import numpy as np

from data_adapters.contents import Source

__all__ = ["RawArray", "chunks_of", "raw_array", "unwritten_chunks"]

# Of one call; the system takes 1024 on Linux.
_MOST_BUFFERS = 512


class RawArray(NamedTuple):
    """Where the numbers of an array begin in its file."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self, file: h5py.File, selection: Sequence[int | slice], out: np.ndarray | None) -> np.ndarray | None:
        """The selected piece; None where it is not one run of bytes.

        Args:
            file: The file, open.
            selection: Numbers, then one slice, then whole axes.
            out: Where to, if the type fits; contiguous along all axes but the first.

        Raises:
            OSError: The file ends before the piece does.
        """
        axis = next((axis for axis, part in enumerate(selection) if isinstance(part, slice)), None)
        if axis is None:
            return None
        index = 0
        for part, size in zip(selection[:axis], self.shape, strict=False):
            assert isinstance(part, int), "the first slice was found"
            index = index * size + part
        window, (size, *rest) = selection[axis], self.shape[axis:]
        assert isinstance(window, slice), "found above"
        start, stop, step = window.indices(size)
        if step != 1 or any(
            isinstance(part, int) or part.start or part.stop not in (None, length) or part.step not in (None, 1)
            for part, length in zip(selection[axis + 1 :], rest, strict=True)
        ):
            return None
        if out is None or out.dtype != self.dtype:
            out = np.empty((max(stop - start, 0), *rest), self.dtype)
        first = self.offset + (index * size + start) * prod(rest) * self.dtype.itemsize
        _read(file, [out.data] if out.flags.c_contiguous else [piece.data for piece in out], first)
        return out


def raw_array(data: h5py.Dataset, file: h5py.File) -> RawArray | None:
    """How to read an array of a file past the library, None where that cannot be done."""
    kept = data.id.get_create_plist()
    offset = data.id.get_offset()
    usable = (
        hasattr(os, "preadv")
        and kept.get_layout() == h5py.h5d.CONTIGUOUS
        and kept.get_external_count() == 0
        and offset is not None
        and data.dtype.kind in "fiu"
        and data.dtype.itemsize <= 8  # NumPy shows no buffer of a long double
        and data.file.filename == file.filename  # not that of an external link
        # Numbers of 12 bits, or bfloat16, the library converts to what NumPy has.
        and data.id.get_type().equal(h5py.h5t.py_create(data.dtype))
        and data.file.driver == "sec2"
        and data.file.userblock_size == 0
        and not data.is_virtual
    )
    return RawArray(offset, data.shape, data.dtype) if usable else None


def chunks_of(place: h5py.Group, sources: Iterable[Sequence[Source]]) -> dict[str, tuple[int, ...]]:
    """Shape of the chunks of each array that has some."""
    paths = {source.path for parts in sources for source in parts}
    return {path: chunk for path in paths if (chunk := place[path].chunks)}


def unwritten_chunks(data: h5py.Dataset) -> tuple[int, int]:
    """Of the chunks of an array: how many the file does not hold, and how many its shape asks for.

    An array without chunks counts as one.  The library reads what was never written as the fill value, silently.
    """
    kept = data.id.get_create_plist()
    if kept.get_layout() == h5py.h5d.CHUNKED:
        total = prod(-(-size // chunk) for size, chunk in zip(data.shape, data.chunks, strict=True))
        return max(total - data.id.get_num_chunks(), 0), total
    absent = (
        kept.get_layout() == h5py.h5d.CONTIGUOUS
        and kept.get_external_count() == 0
        and data.size
        and data.id.get_storage_size() == 0
    )
    return int(bool(absent)), 1


def _read(file: h5py.File, buffers: Sequence[memoryview], offset: int) -> None:
    descriptor = file.id.get_vfd_handle()
    for first in range(0, len(buffers), _MOST_BUFFERS):
        some = [buffer.cast("B") for buffer in buffers[first : first + _MOST_BUFFERS]]
        while some:
            found = os.preadv(descriptor, some, offset)
            if found == 0:
                raise OSError(f"the file ends at byte {offset}, before the array does")
            offset += found
            while some and found >= len(some[0]):
                found -= len(some.pop(0))
            if some and found:  # the system may read less than it was asked for
                some[0] = some[0][found:]
