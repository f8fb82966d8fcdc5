"""The mapping that is proposed for files, option by option with its reason, as the text of a YAML file."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_adapters.chunks import shared_chunks
from data_adapters.contents import CHANNEL, SAMPLE, TIME
from data_adapters.files import collection
from data_adapters.inspect.axes import Layout
from data_adapters.inspect.findings import ARRAYS, GROUPS, LABELLED, WELL, Found, plain
from data_adapters.inspect.mapping import MOST_FIELDS, Candidate, flow
from data_adapters.inspect.names import kind_of, stem
from data_adapters.inspect.ranges import Range
from data_adapters.inspect.record import STEP_ATTRIBUTES, Record
from data_adapters.remote import is_remote
from morph.terminal import printable

__all__ = ["CONTEXT", "TARGET", "Line", "Proposal", "megabytes", "name_of", "propose", "title_name", "yaml_text"]

CONTEXT, TARGET = 4, 1
"""Frames of a window where training is not told otherwise."""
_BATCH_BYTES = 64 * 2**20
_MOST_WINDOWS = 32


class Line(NamedTuple):
    """An option of the YAML, or a comment where `key` is empty."""

    key: str
    value: Any = None
    why: str = ""


@dataclass
class Proposal:
    """What the YAML says.

    Args:
        lines: In order.
        window: (context, target) that each split has frames for; as in training's defaults where they do.
        num_fields: Length of the field axis.
        axes: Of space, in the file's order, with their lengths.
    """

    lines: list[Line] = field(default_factory=list)
    window: tuple[int, int] = (CONTEXT, TARGET)
    num_fields: int = 1
    axes: Mapping[str, int] = field(default_factory=dict)


def propose(
    found: Found,
    layout: Layout,
    fields: Sequence[Candidate | Mapping[str, Any]],
    ranges: Mapping[str, Range],
    record: Record,
    options: Mapping[str, Any],
    *,
    whole: bool = False,
) -> Proposal:
    """The options of the data set, with reasons.

    Args:
        found: What the files hold.
        layout: The meaning of their axes.
        fields: From `mapping.chosen`.
        ranges: Of the arrays that were looked at.
        record: Its extent.
        options: What the user said: boundary, missing, batch_size, name, cache.
        whole: The data are read undivided: what is too short to be divided gets no rule.

    Raises:
        ValueError: The record is too short to be divided.
    """
    lines = [Line("_target_", found.adapter)]
    container = found.container
    lines.append(Line("path" if found.adapter == WELL else "files", container.named))
    lines += [Line(key, options[key]) for key in ("name", "cache") if options.get(key) is not None]
    parts = [part for entry in fields if isinstance(entry, Candidate) for part in entry.parts]
    known = [name for name in parts if name in layout.dims]
    moving = [name for name in known or layout.dims if TIME in layout.dims.get(name, ())]
    main = layout.dims[moving[0]] if moving else next(iter(layout.dims.values()))
    axes = [dim for dim in main if dim not in (SAMPLE, TIME, CHANNEL)]
    sizes = dict(zip(main, found.arrays[moving[0]].shape if moving else (), strict=False))
    if found.adapter == LABELLED:
        lines += _labelled(found, layout, record, container.engine)
    elif found.adapter != WELL:
        lines += _arrays(found, layout, main, axes, record)
    lines += _fields(fields, main if found.adapter in (ARRAYS, GROUPS) else None, ranges)
    lines += _not_taken(found, layout, fields)
    lines += [Line("", why=note) for name in known if (note := _shared_chunks(found, layout, name))]
    lines.append(Line("", why=f"axes: {flow(axes)}, the file's order, become the last of D, H, W; `axes` changes it"))
    lines += _boundary(found, layout, axes, options.get("boundary"))
    lines += _step(found, record, options.get("dt"))
    splits, frames = (None, record.steps) if found.adapter == WELL else _splits(record, whole)
    if splits is not None:
        lines.append(splits)
    lines.append(_missing({name: ranges[name] for name in _looked_at(parts, ranges)}, options.get("missing")))
    context = max(1, min(CONTEXT, frames - TARGET))
    width = max((e.count if isinstance(e, Candidate) else len(_listed(e))) for e in fields)
    num_bytes = 4 * (context + TARGET) * len(fields) * width * prod(sizes.get(axis, 1) for axis in axes)
    windows = max(1, min(_MOST_WINDOWS, _BATCH_BYTES // num_bytes))
    windows = 2 ** int(np.log2(windows))
    why = f"windows; one of {context + TARGET} frames takes {megabytes(num_bytes)}"
    lines.append(Line("batch_size", options.get("batch_size") or windows, why))
    return Proposal(lines, (context, TARGET), len(fields), {axis: sizes.get(axis, 1) for axis in axes})


def _looked_at(parts: Sequence[str], ranges: Mapping[str, Range]) -> list[str]:
    # The Well's fields go by their last names.
    return [name for name in ranges if name in parts or name.rpartition("/")[2] in parts] or list(ranges)


def _listed(entry: Mapping[str, Any]) -> Sequence[Any]:
    several = entry.get("channels", entry.get("from", ()))
    return [several] if isinstance(several, str) else several


def _labelled(found: Found, layout: Layout, record: Record, engine: str | None) -> list[Line]:
    lines = [Line("engine", engine)] if engine else []
    lines += [Line("group", found.group)] if found.group else []
    lines += [
        Line(role, layout.named[role], _because(layout, role))
        for role in (TIME, SAMPLE, CHANNEL)
        if role in layout.named
    ]
    if len(found.container.files) > 1:
        why = "each file goes on where the one before it ends" if record.joined else "each file is one or more of them"
        lines.append(Line("join", "time" if record.joined else "trajectory", why))
    return lines


def _because(layout: Layout, role: str) -> str:
    reason = layout.why.get(role, "")
    return f"by its {reason}" if reason.startswith(("units", "attribute", "standard_name", "name")) else reason


def _arrays(found: Found, layout: Layout, main: Sequence[str], axes: Sequence[str], record: Record) -> list[Line]:
    roles = [role for role in (SAMPLE, TIME, CHANNEL) if role in main and role in layout.why]
    reasons = [f"{role}: {_because(layout, role)}" for role in roles]
    lines = [Line("", why=note) for note in layout.notes]
    lines.append(Line("dims", list(main), "; ".join(reasons)))
    where = {dim: layout.coordinates[dim] for dim in (TIME, *axes) if dim in layout.coordinates}
    if where:
        longer = [d for d, n in where.items() if found.arrays[n].shape[-1] == _length(found, layout, d) + 1]
        why = f"the last entry of {', '.join(where[d] for d in longer)} belongs to no index" if longer else ""
        lines.append(Line("coordinates", where, why))
    if parameters := _parameters(found, layout, record):
        lines.append(Line("parameters", parameters, "of each trajectory; leave out what is none"))
    return lines


def _shared_chunks(found: Found, layout: Layout, name: str) -> str:
    """A sentence where one chunk covers several trajectories."""
    array, dims = found.arrays[name], layout.dims[name]
    if array.chunks is None or len(array.chunks) != len(dims):
        return ""
    sizes = {d: n for d, n in zip(dims, array.shape, strict=True) if d not in (SAMPLE, TIME, CHANNEL)}
    return shared_chunks(name, array.chunks, dims, sizes)


def _length(found: Found, layout: Layout, dim: str) -> int:
    return next(
        size
        for name, own in layout.dims.items()
        for d, size in zip(own, found.arrays[name].shape, strict=True)
        if d == dim
    )


def _parameters(found: Found, layout: Layout, record: Record) -> list[str]:
    """Attributes that are decimal numbers, and arrays with one number for each trajectory."""
    names = [
        str(key) for key, value in found.attributes.items()
        if isinstance(plain(value), float) and str(key) not in STEP_ATTRIBUTES
    ]  # fmt: skip
    sizes = {size for name in layout.dims for size in found.arrays[name].shape[1:]}
    if not found.trajectories and record.trajectories > 1 and record.trajectories not in sizes:
        names += [
            name for name, array in found.arrays.items()
            if array.shape == (record.trajectories,) and name not in layout.coordinates.values()
            and kind_of(stem(name))[0] is None
        ]  # fmt: skip
    return names


def _fields(
    fields: Sequence[Candidate | Mapping[str, Any]], main: Sequence[str] | None, ranges: Mapping[str, Range]
) -> list[Line]:
    lines = [Line("fields", ..., "in the order of the field axis")]
    for entry in fields:
        if isinstance(entry, Candidate):
            steady = TIME in entry.dims and all(part in ranges and ranges[part].steady for part in entry.parts)
            why = "all frames that were read are alike" if steady else entry.comment
            lines.append(Line("-", entry.entry(main), why))
        else:
            lines.append(Line("-", dict(entry)))
    if len(fields) > MOST_FIELDS:
        lines.append(
            Line("", why=f"the shipped models take {MOST_FIELDS} fields: model.capacity.max_fields={len(fields)}")
        )
    return lines


def _not_taken(found: Found, layout: Layout, fields: Sequence[Candidate | Mapping[str, Any]]) -> list[Line]:
    taken = {part for e in fields for part in (e.parts if isinstance(e, Candidate) else _sources(e))}
    left = [
        f"{name} ({', '.join(dims)})"
        for name, dims in layout.dims.items()
        if not {name, name.rpartition("/")[2]} & taken and name not in layout.coordinates.values()
    ]
    more = f" and {len(left) - 8} more" if len(left) > 8 else ""
    return [Line("", why=f"also there, taken where `fields` names it: {', '.join(left[:8])}{more}")] if left else []


def _sources(entry: Mapping[str, Any]) -> Sequence[str]:
    named = entry.get("from", entry.get("name", ()))
    return [named] if isinstance(named, str) else named


def _boundary(found: Found, layout: Layout, axes: Sequence[str], given: Any) -> list[Line]:
    if given is not None:
        return [Line("boundary", given, "as given")]
    if found.boundary is not None:
        stated = {axis: found.boundary.get(axis, "open") for axis in axes}
        return [Line("", why=f"boundary: {flow(stated)}, stated by the file")] if found.adapter == WELL else [
            Line("boundary", stated, "stated by the file")
        ]  # fmt: skip
    lines = [
        Line("boundary", "open", "the file states none, open is assumed; periodic, wall or {axis: ...} where you know")
    ]
    round_the_globe = [axis for axis in axes if _is_circle(found, layout, axis)]
    if round_the_globe:
        proposed = flow(dict.fromkeys(round_the_globe, "periodic"))
        lines.append(Line("", why=f"boundary: {proposed} if it closes: {round_the_globe[0]} spans the whole circle"))
    last = found.container.files[0].rpartition("/")[2]
    # PDEBench says so in names alone: 2D_CFD_Rand_M0.1_Eta0.01_Zeta0.01_periodic_128_Train.hdf5.
    if re.search(r"(?<!non)(?<!non[_-])(?<!a)periodic", last, re.IGNORECASE):
        lines.append(Line("", why=f"boundary: periodic if the name means that: {last} says periodic"))
    return lines


def _is_circle(found: Found, layout: Layout, axis: str) -> bool:
    name = layout.coordinates.get(axis)
    if name is None or not (stem(axis).lower().startswith(("lon", "phi", "rlon")) or "east" in found.arrays[name].unit):
        return False
    values = found.values(name).reshape(-1).astype(np.float64)
    if len(values) < 3 or not np.isfinite(values).all():
        return False
    span = abs(values[-1] - values[0]) * len(values) / (len(values) - 1)
    return any(abs(span - circle) < 0.5 * span / len(values) for circle in (360.0, 2 * np.pi))


def _step(found: Found, record: Record, given: Any) -> list[Line]:
    unit = f" {record.unit}" if record.unit else ""
    if given is not None:
        return [Line("dt", given, f"as given{', in' + unit if unit else ''}")]
    if record.restated:
        return [Line("dt", record.dt, f"in{unit}: {record.restated}" if unit else record.restated)]
    return [Line("", why=f"dt: {record.dt:g}{unit}, from the file's times")]


def _splits(record: Record, whole: bool) -> tuple[Line | None, int]:
    """The rule, and the frames of the shortest split; no rule of what is read whole and too short for one."""
    if record.trajectories > 2:
        rule: dict[str, Any] = {"by": "trajectory", "valid": 0.1, "test": 0.1, "seed": 0}
        return Line("splits", rule, f"{record.trajectories} trajectories, shuffled by the seed"), record.steps
    few = "one record" if record.trajectories == 1 else "two trajectories"
    window = CONTEXT + TARGET
    share = max(1, round(0.1 * record.steps))
    gap = max(1, round(0.02 * record.steps))
    order = ["train", "valid", "test"]
    if share - gap >= 2 * window:
        rule = {"by": "time", "order": order, "valid": 0.1, "test": 0.1, "gap": 0.02}
        return Line("splits", rule, f"{few}: cut in time, {gap} frames left out at each cut"), share - gap
    for length in range(max(window, share), 1, -1):
        gap = 1 if record.steps >= 3 * length + 2 else 0
        share = length + gap
        if record.steps - 2 * share >= length:
            rule = {"by": "time", "order": order, "valid": share, "test": share, "gap": gap}
            left_out = "1 frame left out at each cut" if gap else "too short to leave a gap at the cuts"
            return Line("splits", rule, f"{few} of {record.steps} frames: cut in time, {left_out}"), length
    if whole:
        return None, record.steps
    raise ValueError(
        f"expected 6 or more frames where there {'is' if record.trajectories == 1 else 'are'} {few}, for training, "
        f"validation and testing take 2 each, found {record.steps}; name more files"
    )


def _missing(ranges: Mapping[str, Range], given: Any) -> Line:
    infinite = "; infinity was seen too, which is refused: repair it" * any(seen.infinite for seen in ranges.values())
    share = max((seen.missing for seen in ranges.values()), default=0.0)
    if not share:
        return Line("missing", given or "refuse", ("no NaN was seen" if ranges else "nothing was read") + infinite)
    if all(seen.fixed for seen in ranges.values() if seen.missing):
        text = f"{share:.1%} are NaN, at the same points in all frames that were read (land?)"
    else:
        text = f"{share:.1%} are NaN, scattered: at other points in other frames"
    return Line("missing", given or "mask", text + infinite)


def megabytes(num_bytes: int) -> str:
    """A size as text."""
    return f"{num_bytes / 2**20:.1f} MB" if num_bytes > 2**19 else f"{num_bytes / 2**10:.1f} kB"


def yaml_text(proposal: Proposal, title: str) -> str:
    """The file's text: an option a line, its reason behind it, or above where that would be too long."""
    rows = [f"# {printable(' '.join(title.split()))}"]
    for key, value, said in proposal.lines:
        why = printable(" ".join(said.split()))  # words of a file stay in their comment
        indent = "  " if key == "-" else ""
        if not key:
            rows.append(f"{indent}# {why}")
            continue
        text = "fields:" if value is ... else f"{indent}- {flow(value)}" if key == "-" else f"{key}: {flow(value)}"
        if not why:
            rows.append(text)
        elif len(text) + len(why) + 3 <= 110:
            rows.append(f"{text} # {why}")
        else:
            rows += [f"{indent}# {why}", text]
    return "\n".join(rows) + "\n"


def title_name(found: Found) -> str:
    """What the data set would be called: after its file, or the folder of its files."""
    named = found.container.named
    return name_of(named if isinstance(named, str) else named[0].rpartition("/")[0] or named[0])


def name_of(path: str) -> str:
    """What the data set of a path, URL, pattern or folder is called; no file is opened for it."""
    if not is_remote(path):
        path = os.path.abspath(path)
        if Path(path).name == "data" and (Path(path) / "train").is_dir():
            path = str(Path(path).parent)  # the folder of the splits in The Well's layout
    return collection(path)[0]
