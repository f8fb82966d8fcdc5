"""Files that the HDF5 library hangs or crashes on, found in a process that may: damaged metadata can do either.

No exception reaches Python then, so that nothing that opens such a file itself can name it
(https://github.com/HDFGroup/hdf5/issues/1707).  This file is also the child's program: it imports h5py and the standard
library alone, so that the child starts in a fraction of a second.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import IO

import h5py

__all__ = ["LIMIT", "probe", "serve", "visit"]

LIMIT = 60.0
"""Seconds without a further object of a file after which it hangs; a disk may take some to wake."""

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Without the folder of this file in the path, whose modules have names of the standard library's.
_PROGRAM = (sys.executable, "-P", os.path.abspath(__file__))


def probe(files: Sequence[str], limit: float = LIMIT, program: Sequence[str] = _PROGRAM) -> dict[str, str]:
    """Open each file in a child process and visit all of its metadata; values are not read.

    What is no local HDF5 file, by its first bytes, is passed over.  So is one that raises an exception: its reader says
    what is wrong.

    Args:
        files: Paths.
        limit: Seconds in which a file must yield a further object.
        program: The child's command line; calls `serve`.

    Returns:
        Of the files that may not be opened: what happened.

    Raises:
        OSError: The child cannot be started, or ends before it begins a file.
    """
    left = [file for file in files if _is_hdf5(file)]
    reasons: dict[str, str] = {}
    while left:
        done, reason = _run(left, limit, program)
        if reason is not None:
            reasons[left[done]] = reason
            done += 1
        left = left[done:]
    return reasons


def _is_hdf5(file: str) -> bool:
    try:
        if not os.path.isfile(file):  # a pipe would wait
            return False
        with open(file, "rb") as opened:
            return opened.read(len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False


def _run(files: Sequence[str], limit: float, program: Sequence[str]) -> tuple[int, str | None]:
    """One child: how many files it got through, and what the next one did to it."""
    child = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None, "asked for"
    assert child.stdout is not None, "asked for"
    said: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(child.stdout, said), daemon=True).start()
    done, begun, hangs = 0, False, False
    try:
        with suppress(BrokenPipeError), child.stdin:  # one that has ended says nothing below
            child.stdin.write(json.dumps(list(files)).encode())
        # The child's own start, from a slow disk, is no file's fault.
        word = said.get(timeout=max(limit, LIMIT))
        while word:
            begun = word != b"done\n"
            done += not begun
            word = said.get(timeout=limit)
        _wait(child)
    except queue.Empty:
        hangs = True
    finally:
        ended = child.poll()
        child.kill()
        # A process that waits for a disk cannot be killed before the disk answers.
        _wait(child)
    if done == len(files):
        return done, None
    if not begun:
        raise OSError(f"the process that opens files first {'hangs' if hangs else f'ended with {ended}'} before a file")
    return done, f"no answer in {limit:g} s" if hangs else f"the process that opened it ended with {_ending(ended)}"


def _listen(stream: IO[bytes], said: "queue.SimpleQueue[bytes]") -> None:
    with stream:
        for line in stream:
            said.put(line)
    said.put(b"")


def _wait(child: "subprocess.Popen[bytes]") -> None:
    with suppress(subprocess.TimeoutExpired):
        child.wait(10)


def _ending(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def serve(visitor: Callable[[str, Callable[[], None]], None] | None = None) -> None:
    """The child: visit the files whose names come as JSON on the standard input, and say when each is begun and done.

    Args:
        visitor: `visit`, or what a test puts in its place.
    """
    look = visit if visitor is None else visitor
    for file in json.load(sys.stdin.buffer):
        _say("begun")
        with suppress(Exception):  # the reader raises it again, and says what it means
            look(file, lambda: _say("alive"))
        _say("done")


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def visit(file: str, alive: Callable[[], None]) -> None:
    """Open every object of a file, with its attributes and the index of its chunks.

    Args:
        file: Path.
        alive: Called about once a second, as long as there are further objects.
    """
    names: set[str] = {"/"}
    spoke = monotonic()

    def look(name: str) -> None:
        nonlocal spoke
        # Where the metadata runs in a circle, the same names come again: that is no progress.
        if name not in names and monotonic() - spoke > 1:
            spoke = monotonic()
            alive()
        names.add(name)
        with suppress(Exception):  # it may be an object that nobody reads
            _look_at(opened[name])

    with h5py.File(file, "r") as opened:
        look("/")
        opened.visit(look)


def _look_at(node: h5py.Group | h5py.Dataset | h5py.Datatype) -> None:
    for name in node.attrs:
        with suppress(Exception):  # of a type that h5py does not know
            node.attrs.get(name)
    if isinstance(node, h5py.Dataset):
        node.id.get_type()
        if node.chunks is not None:
            node.id.get_num_chunks()


if __name__ == "__main__":
    serve()
