"""Which fields a data set may have: vectors of scalars that belong together, entries of an axis of components."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from data_adapters.contents import CHANNEL, SAMPLE, TIME
from data_adapters.inspect.axes import Layout
from data_adapters.inspect.findings import WELL, Array, Found, plain
from data_adapters.inspect.names import vectors, words
from data_adapters.inspect.question import Question

__all__ = ["MOST_COMPONENTS", "MOST_FIELDS", "Candidate", "candidates", "chosen", "flow"]

MOST_FIELDS = MOST_COMPONENTS = 3
"""What the shipped models take (model.capacity)."""


@dataclass(frozen=True)
class Candidate:
    """A field that the files may offer.

    Args:
        name: What it would be called.
        parts: Arrays that it is made of.
        channels: Entries of the axis of components; None for all.
        count: Number of components.
        grid: Time, trajectories and axes with their lengths, for fields of a data set share them.
        comment: Why it is a field.
        dims: Of its arrays.
    """

    name: str
    parts: tuple[str, ...]
    grid: tuple[tuple[str, int], ...]
    dims: tuple[str, ...]
    channels: tuple[int, ...] | None = None
    count: int = 1
    comment: str = ""

    def entry(self, main: Sequence[str] | None) -> str | dict[str, Any]:
        """As the option `fields` has it, with `dims` where they are not those of the other arrays (None: unused)."""
        if len(self.parts) > 1:
            found: dict[str, Any] = {"name": self.name, "from": list(self.parts)}
        elif self.parts[0] != self.name or self.channels is not None:
            found = {"name": self.name, "from": self.parts[0]}
        else:
            found = {"name": self.name}
        if self.channels is not None:
            found["channels"] = list(self.channels)
        if main is not None and self.dims != tuple(main):
            found["dims"] = list(self.dims)
        return self.name if len(found) == 1 else found


def flow(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1_000_000, sort_keys=False, allow_unicode=True)
    return str(text.removesuffix("...\n").strip())


def candidates(found: Found, layout: Layout) -> list[Candidate]:
    """All fields that change in time, on any grid of the file; vectors first where their first component stands."""
    scalars: dict[tuple[Any, ...], dict[str, Array]] = {}
    result: list[tuple[int, Candidate]] = []
    for position, (name, array) in enumerate(found.arrays.items()):
        dims = layout.dims.get(name)
        if dims is None or (TIME not in dims and found.adapter != WELL) or name in layout.coordinates.values():
            continue
        grid = tuple((d, n) for d, n in zip(dims, array.shape, strict=True) if d != CHANNEL)
        if found.dims is None and CHANNEL not in dims:
            scalars.setdefault((grid, tuple(array.dims), array.unit), {})[name] = array
            continue
        if found.dims is not None:
            count = array.shape[-1] if CHANNEL in dims else 1
            if dims.count(CHANNEL) > 1:
                continue  # tensors are read where they are named
            short = name.rpartition("/")[2]
            parts = (short,) if found.adapter == WELL else (name,)
            text = "" if TIME in dims else "constant in time: repeated in each frame"
            result.append((position, Candidate(short, parts, grid, dims, None, count, text)))
            continue
        result += [(position, candidate) for candidate in _of_channels(found, name, dims, grid)]
    positions = {name: position for position, name in enumerate(found.arrays)}
    names = _short_names(list(layout.dims))
    for (grid, *_), group in scalars.items():
        left = dict(group)
        by_short = {names[name]: name for name in group}
        for vector in vectors(list(by_short)):
            members = tuple(by_short[part] for part in vector.parts)
            dims = layout.dims[members[0]]
            if len({layout.dims[part] for part in members}) > 1:
                continue
            text = f"if they are no vector, list {', '.join(vector.parts)} as fields of their own"
            result.append(
                (positions[members[0]], Candidate(vector.name, members, grid, dims, None, len(members), text))
            )
            left = {name: array for name, array in left.items() if name not in members}
        result += [(positions[name], Candidate(names[name], (name,), grid, layout.dims[name])) for name in left]
    return _unique([candidate for _, candidate in sorted(result, key=lambda pair: pair[0])])


def _short_names(names: Sequence[str]) -> dict[str, str]:
    """The last part of a path where that is different for all, else the path."""
    short = [name.rpartition("/")[2] for name in names]
    return {n: s if short.count(s) == 1 else n.replace("/", "_") for n, s in zip(names, short, strict=True)}


def _unique(found: list[Candidate]) -> list[Candidate]:
    names: set[str] = set()
    result = []
    for candidate in found:
        name = candidate.name if candidate.name not in names else f"{candidate.name}_{'_'.join(candidate.parts)}"
        names.add(name)
        result.append(Candidate(**{**candidate.__dict__, "name": name}))
    return result


def _of_channels(found: Found, name: str, dims: tuple[str, ...], grid: tuple[Any, ...]) -> list[Candidate]:
    """One vector where there are as many components as axes; else scalars, by the names that the file gives."""
    array = found.arrays[name]
    axis = dims.index(CHANNEL)
    count = array.shape[axis]
    spatial = [dim for dim, _ in grid if dim not in (SAMPLE, TIME)]
    short = name.rpartition("/")[2]
    labels = _labels(found, array, axis, count)
    if labels is None and count == 1:
        return [Candidate(short, (name,), grid, dims, None, 1)]
    if labels is None and count == len(spatial):
        text = f"as many components as axes: a vector; if they are {count} scalars, list them with `channels`"
        return [Candidate(short, (name,), grid, dims, None, count, text)]
    result, left = [], list(range(count))
    for vector in vectors(labels or []):
        channels = tuple((labels or []).index(part) for part in vector.parts)
        result.append((channels[0], Candidate(vector.name, (name,), grid, dims, channels, len(channels))))
        left = [i for i in left if i not in channels]
    text = "" if labels else f"entry {{}} of {count} of the axis of components, which the file does not name"
    result += [
        (i, Candidate(labels[i] if labels else f"{short}_{i}", (name,), grid, dims, (i,), 1, text.format(i)))
        for i in left
    ]
    return [candidate for _, candidate in sorted(result, key=lambda pair: pair[0])]


def _labels(found: Found, array: Array, axis: int, count: int) -> list[str] | None:
    """Names of components: of the entries of the axis, or in an attribute of the array or the file."""
    if len(named := list(found.labels.get(array.dims[axis], ()))) == count > 1:
        return named
    for attributes in (array.attributes, found.attributes):
        for key, value in attributes.items():
            listed = words(plain(value))
            if (
                len(listed) == count > 1
                and len(set(listed)) == count
                and _tells_of_channels(str(key), array.dims[axis])
            ):
                return list(listed)
    return None


def _tells_of_channels(key: str, dim: str) -> bool:
    key = key.lower()
    return (
        any(word in key for word in ("channel", "field", "variable", "component", "names")) or key == dim.lower() != ""
    )


def chosen(
    found: Found, offered: Sequence[Candidate], fields: Sequence[Any] | None, layout: Layout
) -> list[Candidate | Mapping[str, Any]]:
    """The fields of the proposal.

    Args:
        found: What the files hold.
        offered: From `candidates`.
        fields: What the user names: candidates, arrays, or mappings as in a data set's YAML; None: all there are.
        layout: The meaning of the axes.

    Raises:
        ValueError: A field is unknown, or there is none.
        Question: There are more than fit, or they lie on different grids.
    """
    where = found.container.files[0]
    if fields is not None:
        if isinstance(fields, str) or not isinstance(fields, Sequence) or not fields:
            raise ValueError(f"fields: expected a list, fields=[a,b], found {fields!r}")
        return [_named(found, offered, entry, layout) for entry in fields]
    if not offered:
        listed = ", ".join(f"{array.name} {array.shape}" for array in found.arrays.values())
        raise ValueError(f"{where}: expected an array along time and 1 to 3 axes of space, found {listed}")
    grids: dict[tuple[Any, ...], list[Candidate]] = {}
    for candidate in offered:
        grids.setdefault(candidate.grid if found.dims is None else (), []).append(candidate)
    if len(grids) == 1 and len(offered) <= MOST_FIELDS:
        return list(offered)
    answers = {}
    for grid, group in grids.items():
        shown = " x ".join(f"{name} {size}" for name, size in grid)
        answers[f"fields=[{','.join(c.name for c in group[:MOST_FIELDS])}]"] = (
            f"of {', '.join(c.name + (f' ({c.count} components)' if c.count > 1 else '') for c in group)}"
            + (f" on {shown}" if shown else "")
        )
    reason = (
        f"fields on {len(grids)} different grids, and those of a data set share one"
        if len(grids) > 1
        else f"{len(offered)} fields, and the shipped models take {MOST_FIELDS} of {MOST_COMPONENTS} components"
    )
    if len(grids) == 1:
        names = ",".join(candidate.name for candidate in offered)
        answers[f"fields=[{names}]"] = f"all, for a model with model.capacity.max_fields={len(offered)}"
    raise Question(f"{where}: it has {reason}. Which ones, in which order?", answers)


def _named(found: Found, offered: Sequence[Candidate], entry: Any, layout: Layout) -> Candidate | Mapping[str, Any]:
    if isinstance(entry, Mapping):
        return entry
    for candidate in offered:
        if entry == candidate.name:
            return candidate
    names = _short_names(list(layout.dims))
    for name, array in found.arrays.items():
        if entry in (name, names.get(name)) and name in layout.dims:
            dims = layout.dims[name]
            grid = tuple((d, n) for d, n in zip(dims, array.shape, strict=True) if d != CHANNEL)
            count = array.shape[dims.index(CHANNEL)] if CHANNEL in dims else 1
            parts = (name.rpartition("/")[2],) if found.adapter == WELL else (name,)
            return Candidate(names[name], parts, grid, dims, None, count)
    others = sorted({*(c.name for c in offered), *(names[name] for name in layout.dims)})
    raise ValueError(f"fields: {found.container.files[0]} has no field {entry!r}; it has {', '.join(others)}")
