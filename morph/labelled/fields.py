"""Which variables of labelled data are the fields that a model knows, or that a user names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import xarray as xr

from morph.labelled.dims import Roles, find_roles, shown
from morph.layout import DatasetSpec, Field, TrainedOn

__all__ = ["Part", "Selection", "select"]

FieldsOption = Sequence[str | Mapping[str, Any]]
_KEYS = {"name", "from", "unit", "channels"}


class Part(NamedTuple):
    """Where the values of a component are: a variable, or one entry of its channel dimension."""

    variable: str
    entry: int | None = None

    def __str__(self) -> str:
        return self.variable if self.entry is None else f"{self.variable}[{self.entry}]"


class Selection(NamedTuple):
    """How labelled data is understood.

    fields: of the model, in their order.
    parts: of each component of each field.
    roles: of the dimensions.
    like: what the model was trained on that this is like; None: it was not.
    """

    fields: tuple[Field, ...]
    parts: tuple[tuple[Part, ...], ...]
    roles: Roles
    like: DatasetSpec | None


def select(
    dataset: xr.Dataset,
    trained_on: TrainedOn | None,
    *,
    like: str | None = None,
    fields: FieldsOption | None = None,
    axes: Sequence[str] | None = None,
) -> Selection:
    """Find the fields.

    Args:
        dataset: Labelled data.
        trained_on: What the model knows of its training.
        like: Which data set of the training this is another one of; None: the one whose variables are all here.
        fields: Which variables they are, in the language of a data set's YAML: names, or mappings of name, from and
            channels.  They are the fields of the data set `like`, or of the one whose fields have these names, else a
            system that the model was not trained on.
        axes: Dimensions of space, in the order of those of the training; None: called as there, else what comes after
            time.

    Raises:
        ValueError: Nothing fits, or more than one thing does; says what was expected and found.
    """
    # By the name that the user calls each, which need not be that in its files.
    specs = {name: replace(spec, name=name) for name, spec in trained_on.specs.items()} if trained_on else {}
    if like is not None and like not in specs:
        known = ", ".join(specs) or "nothing that it says; leave `like` out and give `fields`"
        raise ValueError(f"like: expected a data set that the model was trained on: {known}; found {like!r}")
    candidates = {name: spec for name, spec in specs.items() if like in (None, name)}
    if fields is not None:
        return _named(dataset, _entries(fields), candidates, like, axes)
    if not candidates:
        raise ValueError(f"fields: the model does not say what it was trained on; name them: {_example(dataset)}")
    understood: dict[str, Selection] = {}
    faults: dict[str, str] = {}
    for name, spec in candidates.items():
        parts, missing = _by_name(dataset, spec)
        if missing:
            lacking = f" (not there: {', '.join(missing)})" if len(candidates) == 1 else ""
            faults[name] = f"{name} has {_variables(spec)}{lacking}"
            continue
        try:
            roles = _roles(dataset, parts, spec, axes)
            understood[name] = Selection(spec.fields, _checked(dataset, parts, roles), roles, spec)
        except ValueError as error:
            if len(candidates) == 1:
                raise
            faults[name] = str(error)
    if len(understood) == 1:
        return next(iter(understood.values()))
    if understood:
        ways = " or ".join(f"like={name}" for name in understood)
        raise ValueError(
            f"like: the variables fit more than one data set of the training; say which one this is: {ways}"
        )
    raise ValueError(
        "fields: expected the variables of what the model was trained on: "
        + "; ".join(list(faults.values())[:6])
        + f".  Found {_found(dataset)}.  {_way_out(dataset, list(candidates.values()))}"
    )


def _by_name(dataset: xr.Dataset, spec: DatasetSpec) -> tuple[list[list[Part]], list[str]]:
    """Parts by what the components were called in the files of the training, else by their own names; what lacks."""
    parts, missing = [], []
    for field in spec.fields:
        own: list[Part] = []
        for number, component in enumerate(field.components):
            wanted = [*field.variables[number : number + 1], component]
            found = next((part for name in wanted if (part := _part(dataset, name))), None)
            missing += [wanted[0]] if found is None else []
            own += [] if found is None else [found]
        parts.append(own)
    return parts, missing


def _part(dataset: xr.Dataset, name: str) -> Part | None:
    """The variable of that name, or for u[2] an entry of the variable u; None where there is none."""
    if name in dataset.data_vars:
        return Part(name)
    entry = re.fullmatch(r"(.+)\[(\d+)\]", name)
    return Part(entry[1], int(entry[2])) if entry and entry[1] in dataset.data_vars else None


class _Entry(NamedTuple):
    name: str
    sources: tuple[str, ...]
    channels: tuple[int, ...] | None
    grouped: bool
    unit: str | None


def _entries(fields: FieldsOption) -> list[_Entry]:
    if isinstance(fields, str) or not isinstance(fields, Sequence) or not fields:
        raise ValueError(f"fields: expected a list such as [u, v, {{name: wind, from: [u, v]}}], found {fields!r}")
    entries = []
    for entry in fields:
        stated: Any = {"name": entry} if isinstance(entry, str) else entry
        if not isinstance(stated, Mapping) or "name" not in stated or set(stated) - _KEYS:
            raise ValueError(f"fields: expected a name, or a mapping of {', '.join(sorted(_KEYS))}, found {entry!r}")
        sources, channels = stated.get("from", stated["name"]), stated.get("channels")
        grouped = isinstance(sources, Sequence) and not isinstance(sources, str)
        sources = tuple(sources) if grouped else (sources,)
        if not sources or not all(isinstance(source, str) for source in sources):
            raise ValueError(f"fields: expected `from` to be a variable or a list of variables, found {entry!r}")
        if channels is not None:
            numbers = isinstance(channels, Sequence) and all(type(number) is int for number in channels)
            if not numbers or not channels or grouped:
                raise ValueError(
                    f"fields: expected `channels` to be a list of numbers of one variable, found {entry!r}"
                )
            channels = tuple(channels)
        entries.append(_Entry(str(stated["name"]), sources, channels, grouped, stated.get("unit")))
    return entries


def _named(
    dataset: xr.Dataset,
    entries: Sequence[_Entry],
    candidates: Mapping[str, DatasetSpec],
    like: str | None,
    axes: Sequence[str] | None,
) -> Selection:
    names = [entry.name for entry in entries]
    alike = [spec for spec in candidates.values() if sorted(f.name for f in spec.fields) == sorted(names)]
    if like is None and len(alike) > 1:
        ways = " or ".join(f"like={spec.name}" for spec in alike)
        raise ValueError(f"fields: {', '.join(names)} are the fields of more than one data set of the training: {ways}")
    spec = candidates[like] if like is not None else alike[0] if alike else None
    if spec is not None and alike:
        entries = [next(entry for entry in entries if entry.name == field.name) for field in spec.fields]
    sources: list[list[Part]] = []
    for entry in entries:
        parts = [_part(dataset, source) for source in entry.sources]
        if None in parts:
            missing = entry.sources[parts.index(None)]
            raise ValueError(f"fields: there is no variable {missing!r}; found {_found(dataset)}")
        sources.append([part for part in parts if part is not None])
    flat = [part for parts in sources for part in parts]
    indexed = {part.variable for part in flat if part.entry is not None}
    indexed |= {entry.sources[0] for entry in entries if entry.channels is not None}
    plain = {source for entry in entries if entry.grouped for source in entry.sources} - indexed
    roles = find_roles(dataset, _unique(flat), _axes(axes, spec), indexed, plain)
    expanded = tuple(
        tuple(_expanded(dataset, parts[0], entry, roles))
        if not entry.grouped and parts[0].entry is None
        else tuple(parts)
        for entry, parts in zip(entries, sources, strict=True)
    )
    expanded = _checked(dataset, expanded, roles)
    if spec is None:
        fields = tuple(
            Field(entry.name, tuple(str(part) for part in parts), entry.unit)
            for entry, parts in zip(entries, expanded, strict=True)
        )
        return Selection(fields, expanded, roles, None)
    counts, expected = [len(parts) for parts in expanded], [len(field.components) for field in spec.fields]
    if counts != expected:
        raise ValueError(
            f"fields: expected those of {spec.name}: "
            + ", ".join(f"{field.name} ({len(field.components)})" for field in spec.fields)
            + ", with so many components; found "
            + ", ".join(f"{entry.name} ({count})" for entry, count in zip(entries, counts, strict=True))
        )
    return Selection(spec.fields, expanded, roles, spec)


def _expanded(dataset: xr.Dataset, part: Part, entry: _Entry, roles: Roles) -> list[Part]:
    """A variable, or each entry of it that is wanted, all where none is named."""
    dim = roles.channel.get(part.variable)
    if dim is None:
        return [part]
    numbers = range(dataset.sizes[dim]) if entry.channels is None else entry.channels
    return [Part(part.variable, number) for number in numbers]


def _roles(
    dataset: xr.Dataset, parts: Sequence[Sequence[Part]], spec: DatasetSpec, axes: Sequence[str] | None
) -> Roles:
    flat = [part for own in parts for part in own]
    indexed = {part.variable for part in flat if part.entry is not None}
    plain = {part.variable for part in flat} - indexed
    return find_roles(dataset, _unique(flat), _axes(axes, spec), indexed, plain)


def _axes(axes: Sequence[str] | None, spec: DatasetSpec | None) -> Sequence[str] | None:
    if axes is not None:
        if isinstance(axes, str) or not 1 <= len(axes) <= 3 or not all(isinstance(axis, str) for axis in axes):
            raise ValueError(f"axes: expected one to three names of dimensions, found {axes!r}")
        if spec is not None and len(axes) != len(spec.axes):
            raise ValueError(
                f"axes: expected {len(spec.axes)}, as {', '.join(spec.axes)} of {spec.name}, found {list(axes)}"
            )
    return axes if axes is not None or spec is None else spec.axes


def _checked(dataset: xr.Dataset, parts: Sequence[Sequence[Part]], roles: Roles) -> tuple[tuple[Part, ...], ...]:
    """No value is used twice, and all are numbers that exist."""
    flat = [part for own in parts for part in own]
    if len(set(flat)) != len(flat):
        twice = next(part for part in flat if flat.count(part) > 1)
        raise ValueError(f"fields: {twice} stands for more than one component")
    for part in flat:
        if dataset[part.variable].dtype.kind not in "fiub":
            kind = dataset[part.variable].dtype
            raise ValueError(f"variable {shown(dataset, part.variable)}: expected real numbers, found {kind}")
        if part.entry is not None and part.entry >= (size := dataset.sizes[roles.channel[part.variable]]):
            raise ValueError(
                f"variable {shown(dataset, part.variable)}: expected entries 0 to {size - 1} of "
                f"{roles.channel[part.variable]}, found {part}"
            )
    return tuple(tuple(own) for own in parts)


def _unique(parts: Sequence[Part]) -> list[str]:
    return list(dict.fromkeys(part.variable for part in parts))


def _variables(spec: DatasetSpec) -> str:
    return ", ".join(name for field in spec.fields for name in field.variables or field.components)


def _found(dataset: xr.Dataset) -> str:
    return ", ".join(shown(dataset, str(name)) for name in list(dataset.data_vars)[:12]) or "no variable at all"


def _way_out(dataset: xr.Dataset, candidates: list[DatasetSpec]) -> str:
    needed = min(sum(len(field.components) for field in spec.fields) for spec in candidates)
    if len(candidates) == 1 and len(dataset.data_vars) < needed:
        return "Add what is missing: a forecast of the others alone would be that of another system"
    return f"Name those that are meant, in the order of the training: {_example(dataset)}"


def _example(dataset: xr.Dataset) -> str:
    return f"fields=[{', '.join(str(name) for name in list(dataset.data_vars)[:2]) or 'u, v'}]"
