"""From paths to a proposal: what the command and a file that stands for a data set by itself have in common."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from data_adapters.handles import HANDLES
from data_adapters.inspect.axes import Layout, layout_of
from data_adapters.inspect.containers import HDF5, WELL, find_container
from data_adapters.inspect.findings import Found, find_labelled
from data_adapters.inspect.hdf5 import find_hdf5, find_well
from data_adapters.inspect.mapping import Candidate, candidates, chosen
from data_adapters.inspect.proposal import Proposal, propose
from data_adapters.inspect.question import Question
from data_adapters.inspect.ranges import Range, range_of
from data_adapters.inspect.record import Record, record_of
from data_adapters.labelled import DATASETS, Opening
from data_adapters.remote import is_remote

__all__ = ["COMMAND", "OPTIONS", "Look", "Proposed", "commands", "full_options", "look", "looking_into", "proposed"]

COMMAND = "python -m data_adapters.inspect"
OPTIONS: dict[str, Any] = {
    "name": None, "dims": None, "fields": None, "dt": None, "boundary": None,
    "missing": None, "batch_size": None, "group": None, "engine": None, "cache": None, "scan": None,
}  # fmt: skip
"""What a user may say about files; None: what they say themselves."""


class Look(NamedTuple):
    """What is seen in files.

    layout: The meaning of their axes; None where `question` asks for it.
    ranges: Of the arrays on a grid.
    """

    layout: Layout | None
    ranges: Mapping[str, Range]
    question: Question | None


class Proposed(NamedTuple):
    """A proposal, the fields that it names, and how the data run in time."""

    proposal: Proposal
    fields: Sequence[Candidate | Mapping[str, Any]]
    record: Record


def full_options(given: Mapping[str, Any], known: Mapping[str, Any] = OPTIONS) -> dict[str, Any]:
    """Options with their defaults.

    Args:
        given: What the user says.
        known: All that there are, with their defaults.

    Raises:
        ValueError: An option is unknown, or has no value of its kind.
    """
    if unknown := set(given) - set(known):
        raise ValueError(f"expected options of {', '.join(known)}, found {', '.join(sorted(unknown))}; see --help")
    options = {**known, **given}
    expected: tuple[tuple[str, Any, str], ...] = (
        ("overwrite", bool, "true or false"),
        ("batch_size", int, "a positive integer"),
        ("scan", int, "a number of MB"),
        ("boundary", str | dict, "a word, or {x: periodic, y: wall}"),
        ("dims", list, "a list, dims=[sample,time,x,y]"),
    )
    for key, kind, noun in expected:
        value = options.get(key)
        wrong = not isinstance(value, kind) or (kind is int and (value is True or value is False or value < 1))
        if value is not None and wrong:
            raise ValueError(f"{key}: expected {noun}, found {value!r}")
    for key in {"out", "name", "group", "engine", "cache"} & set(known):
        options[key] = None if options[key] is None else str(options[key])
    if options["dims"] is not None:
        options["dims"] = [str(dim) for dim in options["dims"]]
    return options


@contextmanager
def looking_into(paths: Sequence[str], options: Mapping[str, Any]) -> Iterator[Found]:
    """What files hold; closed afterwards.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: A file is of no format that is read here, or damaged.
        Question: It is unclear which files, or which part of them, are meant.
    """
    container = find_container(paths, options["cache"], options["engine"])
    found: Found | None = None
    try:
        if container.kind == WELL and options["group"] is not None:
            raise ValueError("group: it has no effect, The Well's layout has its own groups; leave it out")
        if container.kind == WELL:
            found = find_well(container)
        else:
            find = find_hdf5 if container.kind == HDF5 else find_labelled
            found = find(container, options["group"])
        yield found
    finally:
        files = {*container.files, *(file for file, _ in found.places)} if found else set(container.files)
        group = found.group if found else options["group"]
        HANDLES.close(files)
        DATASETS.close(Opening(file, container.engine, group) for file in files)


def look(found: Found, options: Mapping[str, Any]) -> Look:
    """The meaning of the axes, where that is clear, and the ranges of the values."""
    layout: Layout | None = None
    question: Question | None = None
    try:
        layout = layout_of(found, options["dims"])
    except Question as asked:
        question = asked
    return Look(layout, _ranges(found, layout, options["scan"]), question)


def proposed(found: Found, seen: Look, options: Mapping[str, Any], *, whole: bool = False) -> Proposed:
    """What the YAML says.

    Args:
        found: What the files hold.
        seen: From `look`.
        options: From `full_options`.
        whole: The data are read undivided, and may be too short to be divided.

    Raises:
        ValueError: An option contradicts the files, or there is no field or too little of it.
        Question: Axes, fields or the time step are not clear.
    """
    if seen.question is not None or seen.layout is None:
        raise seen.question or AssertionError("a layout or a question")
    fields = chosen(found, candidates(found, seen.layout), options["fields"], seen.layout)
    record = record_of(found, seen.layout, fields, options["dt"], whole=whole)
    return Proposed(propose(found, seen.layout, fields, seen.ranges, record, options, whole=whole), fields, record)


def commands(question: Question, arguments: Sequence[str]) -> dict[str, str]:
    """Commands that answer a question, each with what the answer means.

    Args:
        question: What is asked.
        arguments: Paths and options of the command that asks it.
    """
    found = {}
    for answer, meaning in question.answers.items():
        if question.replaces_paths:
            kept = [text for text in arguments if re.match(r"[A-Za-z_][\w.]*=", text)]
            words = [_quoted(answer), *map(_quoted, kept)]
        else:
            key = answer.partition("=")[0]
            kept = [text for text in arguments if not text.startswith(f"{key}=")]
            words = [*map(_quoted, kept), _quoted(answer)]
        found[f"{COMMAND} {' '.join(words)}"] = meaning
    return found


def _quoted(text: str) -> str:
    """For a shell; brackets stay as the project's commands have them."""
    return text if re.fullmatch(r"[\w@%+=:,./\[\]-]+", text) else shlex.quote(text)


def _ranges(found: Found, layout: Layout | None, scan: int | None) -> dict[str, Range]:
    """Of all arrays that are on a grid, each with its share of what may be read."""
    coordinates = set(layout.coordinates.values()) if layout else set()
    arrays = [a for a in found.arrays.values() if len(a.shape) > 1 and 0 not in a.shape and a.name not in coordinates]
    budget = 2**20 * (scan or (32 if is_remote(found.container.files[0]) else 256)) // max(1, len(arrays))
    return {a.name: range_of(a, layout.dims.get(a.name) if layout else None, found, budget) for a in arrays}
