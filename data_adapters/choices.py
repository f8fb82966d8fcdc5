"""Which fields a user wants of a data set, and which arrays of its files they are made of."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from morph.layout import Field

if TYPE_CHECKING:
    from data_adapters.contents import Source

__all__ = ["Choice", "check_texts", "choices", "field_of"]

_KEYS = {"name", "from", "unit", "channels", "dims"}
_CARTESIAN = ("x", "y", "z")


class Choice(NamedTuple):
    """A field as the user wants it.

    parts: names of the arrays that it is made of.
    grouped: they were given as a list, so each is one component.
    channels: which entries of the channel axis (of a tensor, row by row), None for all.
    dims: meaning of the array's axes where it is not that of the other arrays.
    """

    name: str
    parts: tuple[str, ...]
    grouped: bool = False
    unit: str | None = None
    channels: tuple[int, ...] | None = None
    dims: tuple[str, ...] | None = None


def check_texts(where: str, **options: Any) -> None:
    """Refuse options that are no text.

    Raises:
        ValueError: One is neither a text nor None.
    """
    for option, value in options.items():
        if not isinstance(value, str | None) or value == "":
            raise ValueError(f"{where}: {option}: expected a text, found {value!r}")


def choices(fields: Sequence[str | Mapping[str, Any]], where: str) -> list[Choice]:
    """The option `fields`, checked.

    Args:
        fields: Each the name of an array, or a mapping with `name` and optionally `from`, `unit`, `channels`, `dims`.
        where: Data set, for the message.

    Raises:
        ValueError: It is no list of such entries.
    """
    if isinstance(fields, str) or not isinstance(fields, Sequence) or not fields:
        raise ValueError(f"{where}: expected `fields` to be a list of one or more fields, found {fields!r}")
    return [_choice(entry, where) for entry in fields]


def _choice(entry: str | Mapping[str, Any], where: str) -> Choice:
    if isinstance(entry, str):
        return Choice(entry, (entry,))
    if not isinstance(entry, Mapping) or "name" not in entry or set(entry) - _KEYS:
        raise ValueError(
            f"{where}: expected a field's name, or a mapping of name, from, unit, channels and dims, found {entry!r}"
        )
    parts = entry.get("from", entry["name"])
    grouped = isinstance(parts, Sequence) and not isinstance(parts, str)
    parts = tuple(parts) if grouped else (parts,)
    if not parts or not all(isinstance(part, str) for part in parts):
        raise ValueError(f"{where}: expected `from` to be a field or a list of fields, found {entry!r}")
    channels, dims = entry.get("channels"), entry.get("dims")
    if channels is not None:
        channels = _tuple(channels, int)
        if not channels or grouped or len(set(channels)) != len(channels):
            raise ValueError(
                f"{where}: expected `channels` to be a list of different numbers, with one array in `from`, "
                f"found {entry!r}"
            )
    if not isinstance(entry.get("unit"), str | None):
        raise ValueError(f"{where}: expected `unit` to be a text, found {entry!r}")
    if dims is not None:
        dims = _tuple(dims, str)
        if not dims:
            raise ValueError(f"{where}: expected `dims` to be a list of names, found {entry!r}")
    return Choice(str(entry["name"]), parts, grouped, entry.get("unit"), channels, dims)


def _tuple(values: Any, kind: type) -> tuple[Any, ...]:
    """() where it is no list of that kind."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        return ()
    return tuple(values) if all(type(value) is kind for value in values) else ()


def field_of(choice: Choice, sources: Sequence["Source"], axes: Sequence[str], where: str) -> Field:
    """The field with its components named: after the axes where that is safe, else by number.

    Raises:
        ValueError: A list in `from` holds something else than scalars.
    """
    if choice.grouped and any(source.components for source in sources):
        raise ValueError(
            f"{where}: field {choice.name!r}: expected a list of scalar fields in `from`, found "
            f"{', '.join(source.path for source in sources)}; name a vector field without a list"
        )
    variables = tuple(variable for source in sources for variable in source.variables)
    units = {source.unit for source in sources}
    unit = choice.unit or (units.pop() if len(units) == 1 else None)
    if choice.grouped and not set(axes) <= set(_CARTESIAN):
        # (u, v) on (latitude, longitude): which of them is along which axis, their own names say.
        return Field(choice.name, tuple(f"{choice.name}_{part}" for part in choice.parts), unit, variables)
    stored = sources[0].stored_components
    counts = (len(sources),) if choice.grouped else stored if len(stored) > 1 else sources[0].components
    labels = ["".join(indices) for indices in product(*(_labels(count, axes) for count in counts))]
    if len(stored) > 1 and choice.channels is not None:
        labels = [labels[channel] for channel in choice.channels] if len(choice.channels) > 1 else [""]
    names = tuple(f"{choice.name}_{label}" if label else choice.name for label in labels)
    return Field(choice.name, names, unit, variables)


def _labels(count: int, axes: Sequence[str]) -> Sequence[str]:
    if count == len(axes):
        return sorted(axes) if set(axes) <= set(_CARTESIAN) else axes
    if len(axes) < count <= 3 and set(axes) == set(_CARTESIAN[: len(axes)]):
        return _CARTESIAN[:count]  # all three components of a flow that is computed on a plane
    return tuple(str(number) for number in range(count))
