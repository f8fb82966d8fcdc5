"""A path in place of a data set's YAML: what the command would write, where nothing has to be asked."""

import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from data_adapters.contents import TIME
from data_adapters.inspect.findings import WELL, Found
from data_adapters.inspect.looking import COMMAND, Look, Proposed, commands, full_options, look, looking_into, proposed
from data_adapters.inspect.mapping import Candidate, flow
from data_adapters.inspect.proposal import CONTEXT, name_of, yaml_text
from data_adapters.inspect.question import Question
from morph.terminal import printable

__all__ = ["dataset_of"]


def dataset_of(path: str, *, whole: bool = False, **options: Any) -> dict[str, Any]:
    """The configuration of a data set that is given as a path, URL, pattern or folder; prints a line that sums it up.

    Args:
        path: As `python -m data_adapters.inspect` takes it.
        whole: It will be opened as split "all": it may then be too short to be divided, and with `dt` be one frame.
        options: Of the command, but for those that say where the YAML goes.

    Returns:
        What the YAML would hold: `_target_`, its arguments and batch_size.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: A file cannot be read or an option is wrong; or something must not be guessed, with the commands
            that settle it.
    """
    full = full_options(options)
    try:
        with looking_into([path], full) as found:
            seen = look(found, full)
            result = proposed(found, seen, full, whole=whole)
    except Question as question:
        arguments = [path, *(f"{key}={flow(value)}" for key, value in options.items())]
        raise ValueError(_way_out(question, path, arguments)) from question
    print(printable(_summary(path, found, seen, result, whole)))
    for name, of_array in seen.ranges.items():
        if of_array.mark is not None:
            text = f"{path}: {name}: {of_array.mark:g} looks like a mark of missing values; it is read as a value"
            print(printable(text))
    config: dict[str, Any] = yaml.safe_load(yaml_text(result.proposal, path))
    return config


def _way_out(question: Question, path: str, arguments: list[str]) -> str:
    if question.replaces_paths:
        lines = [f"  {answer}{f'  ({meaning})' if meaning else ''}" for answer, meaning in question.answers.items()]
        return "\n".join([f"{question.text} Name one in its place:", *lines])
    lines = []
    for command, meaning in commands(question, arguments).items():
        lines += [f"  {command}", *([f"      {meaning}"] if meaning else [])]
    name = f"{name_of(path)}.yaml"
    return "\n".join([question.text, *lines, f"writes {name} with the answer, to be named in its place: data={name}"])


def _summary(path: str, found: Found, seen: Look, result: Proposed, whole: bool) -> str:
    proposal, fields, record = result
    lines = {line.key: line for line in proposal.lines}
    named = [
        f"{entry.name} ({entry.count})" if isinstance(entry, Candidate) and entry.count > 1 else _name(entry)
        for entry in fields
    ]
    several = record.trajectories > 1 and found.adapter != WELL  # whose first file alone was counted
    frames = f"{record.steps} frames"
    rule = lines["splits"].value if "splits" in lines else None
    parts = [
        f"fields {', '.join(named)}",
        f"axes {' x '.join(f'{axis} {size}' for axis, size in proposal.axes.items())}",
        f"{record.trajectories} trajectories of {frames}" if several else frames,
        "read whole" if whole else f"split by {rule['by']}" if rule else "split by its folders",
    ]
    if seen.layout is not None and seen.layout.named.get(TIME, TIME) != TIME:
        parts.insert(2, f"time {seen.layout.named[TIME]}")
    if lines["missing"].value != "refuse":
        parts.append(f"missing: {lines['missing'].value}")
    if "boundary" in lines:
        assumed = " (assumed)" if "is assumed" in lines["boundary"].why else ""
        parts.append(f"boundary {flow(lines['boundary'].value)}{assumed}")
    if not whole and proposal.window[0] < CONTEXT:
        parts.append(f"short: window.context={proposal.window[0]}")
    return f"{path}: {'; '.join(parts)}; {COMMAND} {shlex.quote(path)} says more"


def _name(entry: Candidate | Mapping[str, Any]) -> str:
    return entry.name if isinstance(entry, Candidate) else str(entry.get("name"))
