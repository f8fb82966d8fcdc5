"""What names and attributes say: which axis is time, which holds trajectories, which scalars make a vector."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from data_adapters.contents import CHANNEL, SAMPLE, TIME

__all__ = ["SPACE", "Vector", "is_unnamed", "kind_of", "stem", "vectors", "words"]

SPACE = "space"

_PLURALS = r"(?:n_?|num_?|number_of_|no_)?"
_KINDS = (
    (
        TIME,
        rf"{_PLURALS}(time|t|date|datetime|day|month|year|hour|minute|second|frame|snapshot|step|timestep|iteration|iter|"
        r"record|tau|timestamp)s?|([a-z0-9]+_)*time\d*(_[a-z0-9]+)*|xtime|prediction_timedelta|forecast_hour",
    ),
    (
        SAMPLE,
        rf"{_PLURALS}(sample|traj|member|ensemble|ens|batch|realization|realisation|case|run|sim|simulation|seed|"
        r"instance|episode|scenario|sequence|trajectory)(s|es)?|trajectories|ensemble_members?|ensemble_\w+|number|"
        r"initial_conditions?|ic|mem|"
        r"n_?trajectories|num_trajectories",
    ),
    (
        CHANNEL,
        rf"{_PLURALS}(channel|component|comp|variable|var|field|feature|quantity|species|vector|direction|band)(s|es)?|"
        r"c|ch|chan|quantities",
    ),
    (
        SPACE,
        r"[xyzrijk]([_-]\w+|\d+|[chqfguvwt])?|n[xyz]|(.*_)?(lat|lon|latitude|longitude|lev|level|levels|plev|depth|deptht|height|"
        r"altitude|pressure|theta|phi|radius|rlat|rlon|theta_?\w?|row|col|rows|cols|width|eta|xi|sigma)(_\w+)?|"
        r"isobaricinhpa|south_north\w*|west_east\w*|bottom_top\w*|(eta|xi|s)_\w+|ncells?|cells?|log_?r|olevel",
    ),
)
_DATES = re.compile(r"\w+ since ")
_COORDINATE = re.compile(
    r"(^(coordinates?|coords?|grid|axis)[-_ ]?|[-_ ]?(coordinates?|coords?|grid|axis|values|centers)$)"
)


def stem(name: str) -> str:
    """What a coordinate is of: "x" of "x-coordinate", of "grid/x" and of "x_coord"."""
    last = name.rstrip("/").rpartition("/")[2]
    return _COORDINATE.sub("", last) or last


def is_unnamed(name: str) -> bool:
    """Whether a dimension has a number in place of a name."""
    return not name or bool(re.fullmatch(r"(phony_)?(dim|axis|d)_?\d+|\d+", name.lower()))


def kind_of(name: str, attributes: Mapping[str, Any] | None = None) -> tuple[str | None, str]:
    """SAMPLE, TIME, CHANNEL, SPACE or None, and why.

    Args:
        name: Of a dimension or of its coordinate.
        attributes: Of the coordinate, by the CF conventions (https://cfconventions.org).
    """
    said = {key: str(value) for key, value in (attributes or {}).items()}
    units, axis, standard = said.get("units", ""), said.get("axis", "").upper(), said.get("standard_name", "")
    if _DATES.match(units):
        return TIME, f'units "{units}"'
    for role, letters, names in (
        (TIME, "T", ("time",)),
        (SAMPLE, "E", ("realization",)),
        (SPACE, "XYZ", ("latitude", "longitude", "height", "depth", "air_pressure", "altitude")),
    ):
        if axis and axis in letters:
            return role, f"attribute axis {axis}"
        if standard in names or (role == SPACE and re.match(r"(projection|grid)_", standard)):
            return role, f"standard_name {standard}"
    if units.startswith("degree") or "positive" in said:
        return SPACE, f'units "{units}"' if units else "attribute positive"
    for role, pattern in _KINDS:
        if re.fullmatch(pattern, stem(name).lower()):
            return role, "name"
    return None, ""


class Vector(NamedTuple):
    """Scalars that are the components of one field, in order."""

    name: str
    parts: tuple[str, ...]


def vectors(names: Sequence[str]) -> list[Vector]:
    """Those among the names of scalars that differ in a component's letter alone.

    u, v, w (u10 and v10, u_component_of_wind and v_component_of_wind); Vx, Vy, Vz; momentum_x, momentum_y.
    """
    found = []
    left = list(names)
    for name in names:
        for parts, label in _families(name):
            there = [part for part in parts if part in left]
            if there[:1] == [name] and len(there) >= 2 and there == list(parts[: len(there)]):
                found.append(Vector(label, tuple(there)))
                left = [other for other in left if other not in there]
                break
    return found


def _families(name: str) -> list[tuple[tuple[str, ...], str]]:
    """Names of the components of the vectors whose first component may have this name."""
    families = []
    for place in re.finditer(r"(?<![^\W_\d])[uU]", name):
        before, letter, after = name[: place.start()], place[0], name[place.end() :]
        letters = "uvw" if letter == "u" else "UVW"
        rest = after.rpartition("component_of_")[2].strip("_ ")
        label = before.strip("_ ") if before and not after else "velocity" if len(rest) < 3 and rest.isalpha() else rest
        label = label if label and not label[0].isdigit() else f"velocity_{label}".rstrip("_")
        families.append((tuple(before + other + after for other in letters), label))
    for pattern in (r"^(?P<before>.+?[_-]?)(?P<letter>[xX])$", r"^(?P<before>)(?P<letter>[xX])(?P<after>[_-].+)$"):
        if match := re.match(pattern, name):
            before, letter, after = match["before"], match["letter"], match.groupdict().get("after") or ""
            letters = "xyz" if letter == "x" else "XYZ"
            label = (before or after).strip("_-")
            label = "velocity" if label.lower() in ("u", "v", "vel") else label
            families.append((tuple(before + other + after for other in letters), label))
    return families


def words(value: Any) -> tuple[str, ...]:
    """The names that an attribute lists: an array of text, or one text with commas or spaces."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        return tuple(filter(None, re.split(r"[,\s\[\]()'\"]+", value)))
    try:
        listed = list(value)
    except TypeError:
        return ()
    listed = [entry.decode(errors="replace") if isinstance(entry, bytes) else entry for entry in listed]
    return tuple(listed) if all(isinstance(entry, str) for entry in listed) else ()
