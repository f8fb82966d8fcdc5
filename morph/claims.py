"""What files may claim: sizes are looked at before memory is taken for them, whoever wrote the file."""

import contextlib
import math
import os
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

__all__ = [
    "LARGEST_JSON",
    "LARGEST_YAML",
    "MOST_ENTRIES",
    "MOST_NODES",
    "MOST_NUMBERS",
    "ClaimError",
    "available_memory",
    "check_entries",
    "check_memory",
    "check_nodes",
    "check_numbers",
    "load_yaml",
    "read_yaml",
]

LARGEST_YAML = 256 * 2**10
"""Bytes of a YAML file; a long one of this project has 3 kB."""
LARGEST_JSON = 10 * 2**20
"""Bytes of a JSON file."""
MOST_NODES = 100_000
"""Values, lists and mappings of a YAML file, each counted as often as aliases repeat it."""
MOST_ENTRIES = 10_000_000
"""Trajectories, frames, or points along one axis: of each there are tables in memory."""
MOST_NUMBERS = 100_000_000
"""Of an array that is read whole, such as coordinates."""

_CGROUP = Path("/sys/fs/cgroup")
_CGROUPS = (
    ("memory.max", "memory.current", ""),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_"),
)  # of version 2 and 1: the limit, what is used, and how memory.stat begins its names
_SMALL = 64 * 2**20  # bytes; the system is not asked about less


class ClaimError(ValueError):
    """A file claims what cannot be true, or what this machine cannot hold; the message says which and what."""


def available_memory() -> int:
    """Bytes that can be taken now: of the machine, or less where the process or its container may have less."""
    found: list[int | None] = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    try:
        with open("/proc/meminfo") as file:
            found += [1024 * int(line.split()[1]) for line in file if line.startswith("MemAvailable:")]
    except (OSError, ValueError):
        pass  # another system
    found += [_free_in_container(*names) for names in _CGROUPS]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    found += [soft] if soft != resource.RLIM_INFINITY else []
    return min(free for free in found if free is not None)


def _free_in_container(limit_name: str, used_name: str, prefix: str) -> int | None:
    """Bytes up to the limit of this version of control groups, None where there is no limit.

    Pages of files count as used there, and make room when memory is wanted: healthy processes that read much are
    always near the limit.
    """
    try:
        limit, used = (int((_CGROUP / name).read_text()) for name in (limit_name, used_name))
    except (OSError, ValueError):  # of the other version, without a limit ("max"), or another system
        return None
    with contextlib.suppress(OSError, ValueError):
        for line in (_CGROUP / limit_name).with_name("memory.stat").read_text().splitlines():
            name, count = line.split()
            used -= int(count) if name in (f"{prefix}inactive_file", f"{prefix}active_file") else 0
    return max(0, limit - max(0, used))


def check_memory(num_bytes: int, what: str, way_out: str = "fetch or generate the file again") -> None:
    """Refuse what would not fit into memory, before it is taken.

    Args:
        num_bytes: What is about to be taken at once.
        what: File and array, for the message.
        way_out: What can be done.

    Raises:
        ClaimError: It is more than `available_memory`.
    """
    if num_bytes > _SMALL and num_bytes > (most := available_memory()):
        raise ClaimError(
            f"{what}: expected at most the {most / 1e9:.1f} GB of memory that are free, found a claim of "
            f"{num_bytes / 1e9:.1f} GB at once; {way_out}"
        )


def check_entries(count: int, what: str) -> None:
    """Refuse an axis that is longer than any is.

    Args:
        count: Its length: trajectories, frames or points.
        what: File, array and axis, for the message.

    Raises:
        ClaimError: It is above MOST_ENTRIES.
    """
    if count > MOST_ENTRIES:
        raise ClaimError(
            f"{what}: expected at most {MOST_ENTRIES:,} entries, found {count:,}; fetch or generate the file again"
        )


def check_numbers(shape: Sequence[int], itemsize: int, what: str) -> None:
    """Refuse an array that would be read whole, and is larger than coordinates, times or parameters are.

    Args:
        shape: Of the array.
        itemsize: Bytes of each of its numbers.
        what: File and array, for the message.

    Raises:
        ClaimError: It holds more than MOST_NUMBERS, or more than memory does.
    """
    count = math.prod(shape)
    if count > MOST_NUMBERS:
        raise ClaimError(
            f"{what}: expected at most {MOST_NUMBERS:,} numbers, for it is read whole, found {count:,} (shape "
            f"{tuple(shape)}); fetch or generate the file again"
        )
    check_memory(count * itemsize, what)


def load_yaml(text: str, where: str) -> Any:
    """What a YAML text holds: plain values, lists and mappings.

    Args:
        text: Of the file.
        where: For messages.

    Raises:
        ClaimError: It is longer than LARGEST_YAML, its aliases make more than MOST_NODES of it, or it is nested too
            deeply.
        yaml.YAMLError: It is no YAML, or asks for objects.
    """
    if len(text) > LARGEST_YAML:
        raise ClaimError(f"{where}: expected at most {LARGEST_YAML:,} characters of YAML, found {len(text):,}")
    try:
        # The loader that is written in C crashes on deep nesting.
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_growth(_grown(node, {}), MOST_NODES, where)
        return yaml.safe_load(text)
    except RecursionError as error:
        raise ClaimError(f"{where}: it is nested too deeply") from error


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; takes and raises what `load_yaml` does.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is no text.
    """
    if (size := path.stat().st_size) > LARGEST_YAML:
        raise ClaimError(f"{path}: expected at most {LARGEST_YAML:,} bytes of YAML, found {size:,}")
    return load_yaml(path.read_text(encoding="utf-8"), str(path))


def check_nodes(value: Any, most: int, where: str) -> None:
    """Refuse lists and mappings that hold each other so often that writing them down would not end.

    Args:
        value: From a file.
        most: Values, lists and mappings that it may come to, each counted wherever it stands.
        where: For messages.

    Raises:
        ClaimError: It comes to more, holds itself, or is nested too deeply.
    """
    try:
        count = _grown(value, {})
    except RecursionError as error:
        raise ClaimError(f"{where}: it is nested too deeply") from error
    _refuse_growth(count, most, where)


def _refuse_growth(count: float, most: int, where: str) -> None:
    if count > most:
        said = "one that holds itself" if count == math.inf else f"{count:.3g}"
        raise ClaimError(f"{where}: expected at most {most:,} values, lists and mappings, found {said}")


def _grown(value: Any, known: dict[int, float]) -> float:
    """How many there are, written out; what stands in several places is looked at once."""
    if isinstance(value, yaml.CollectionNode):
        parts = [part for entry in value.value for part in (entry if isinstance(entry, tuple) else (entry,))]
    elif isinstance(value, Mapping):
        parts = [part for pair in value.items() for part in pair]
    elif isinstance(value, list | tuple | set | frozenset):
        parts = list(value)
    else:
        return 1
    if id(value) not in known:
        known[id(value)] = math.inf  # what is found inside of itself
        known[id(value)] = min(1 + sum(_grown(part, known) for part in parts), math.inf)
    return known[id(value)]
