"""The cards of the data sets in data_adapters/README.md, written from the YAML files of conf/dataset.

python -m data_adapters.cards          # rewrites the part of the README between its two markers
python -m data_adapters.cards --check  # ends with 1 where the README is not what it would write
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

__all__ = ["BEGIN", "END", "count_components", "main", "read_datasets", "render", "replace_section"]

README = Path(__file__).with_name("README.md")
BEGIN = "<!-- Cards: written by `python -m data_adapters.cards` from conf/dataset, not by hand. -->"
END = "<!-- End of the cards. -->"

# Prefix of the names -> heading.  The suite's entries have no prefix but are generated, which `prepare` says.
_FAMILIES = {"well_": "The Well", "pdebench_": "PDEBench", "pdegym_": "PDEgym"}
_SUITE = "Embedded suite"
_OTHERS = "Others"
# In The Well's layout the file knows the rank of a field, its YAML does not: these are its vectors.
_VECTORS = ("magnetic_field", "momentum", "velocity")
_POWERS = {1: "", 2: "²", 3: "³"}
_COLUMNS = ("name", "fields", "F × C", "grid", "frames", "trajectories", "boundary", "splits")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_grid(value: Any) -> bool:
    return isinstance(value, list) and 1 <= len(value) <= 3 and all(map(_is_count, value))


_REQUIRED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "equation": (_is_text, "text that names the equations"),
    "source": (_is_text, "text: paper and address"),
    "licence": (_is_text, "text"),
    "size": (_is_text, "text with a unit, '72 GB'"),
    "trajectories": (lambda value: _is_count(value) or _is_text(value), "a number or text"),
    "frames": (lambda value: _is_count(value) or _is_text(value), "a number or text"),
    "dt": (lambda value: _is_text(value) or (isinstance(value, int | float) and value > 0), "a number or text"),
    "grid": (_is_grid, "a list of one to three numbers of points"),
    "warnings": (lambda value: isinstance(value, list) and all(map(_is_text, value)), "a list of sentences"),
}
_OPTIONAL: dict[str, tuple[Callable[[Any], bool], str]] = {
    "boundary": (_is_text, "text, where no `boundary` stands above or it says too little"),
    "published": (lambda value: value in ("pretraining", "fine-tuning"), "pretraining or fine-tuning"),
}


def read_datasets() -> dict[str, dict[str, Any]]:
    """Name -> content of each YAML file of conf/dataset, in the order of the names; interpolations as they stand.

    Raises:
        ValueError: A file is not a mapping in YAML.
    """
    found = [entry for entry in (files("conf") / "dataset").iterdir() if entry.name.endswith(".yaml")]
    datasets: dict[str, dict[str, Any]] = {}
    for entry in sorted(found, key=lambda entry: entry.name):
        try:
            content = OmegaConf.to_container(OmegaConf.create(entry.read_text(encoding="utf-8")), resolve=False)
        except YAMLError as error:
            raise ValueError(f"conf/dataset/{entry.name}: cannot be read as YAML: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"conf/dataset/{entry.name}: expected a mapping with _target_ and its arguments")
        datasets[entry.name.removesuffix(".yaml")] = {str(key): value for key, value in content.items()}
    return datasets


def render(datasets: Mapping[str, Mapping[str, Any]]) -> str:
    """One table of all data sets, then a card for each, grouped by where they come from; Markdown.

    Args:
        datasets: Name -> its YAML.

    Raises:
        ValueError: A card, a key of one, or a key that it is derived from, is missing, unknown or malformed; names
            the file and the key.
    """
    for name, config in datasets.items():
        _check_card(name, config)
    groups = {heading: _members(datasets, heading) for heading in (*_FAMILIES.values(), _SUITE, _OTHERS)}
    lines = [f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
    for members in groups.values():
        lines += [f"| {' | '.join(_row(name, config))} |" for name, config in members.items()]
    for heading, members in groups.items():
        if members:
            lines += ["", f"### {heading}", ""]
        for name, config in members.items():
            lines += _card(name, config)
    return "\n".join(lines)


def count_components(config: Mapping[str, Any]) -> dict[str, int]:
    """Name -> number of components of each field.

    Args:
        config: The YAML of a data set, with its card: the grid says how many components a vector of The Well has.
    """
    in_file = config["_target_"].endswith(".WellAdapter")
    counts: dict[str, int] = {}
    for entry in config["fields"]:
        field = {"name": entry} if isinstance(entry, str) else entry
        source = field.get("from", field["name"])
        if not isinstance(source, str):
            count = len(source)
        elif in_file and source in _VECTORS:
            count = len(config["card"]["grid"])
        else:
            count = len(field.get("channels", [0]))
        counts[field["name"]] = count
    return counts


def replace_section(text: str, section: str) -> str:
    """A README with this section between its two markers.

    Raises:
        ValueError: A marker is missing, stands twice, or the second one comes first.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{README}: expected one line {BEGIN!r} and below it one line {END!r}; put them back")
    return f"{text[: text.index(BEGIN)]}{BEGIN}\n\n{section}\n\n{text[text.index(END) :]}"


def main() -> None:
    """The command line of `python -m data_adapters.cards`."""
    parser = argparse.ArgumentParser(prog="python -m data_adapters.cards", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; end with 1 where the README differs")
    check = parser.parse_args().check
    try:
        before = README.read_text(encoding="utf-8")
        after = replace_section(before, render(read_datasets()))
    except ValueError as error:
        sys.exit(f"error: {error}")
    if check and before != after:
        sys.exit(f"error: {README} is not what conf/dataset makes of it; run python -m data_adapters.cards")
    if before != after:
        README.write_text(after, encoding="utf-8")


def _check_card(name: str, config: Mapping[str, Any]) -> None:
    file = f"conf/dataset/{name}.yaml"
    for needed in ("_target_", "fields", "path" if "path" in config else "files"):
        if not config.get(needed):
            raise ValueError(f"{file}: {needed} is missing; the card is derived from it")
    card = config.get("card")
    if not isinstance(card, Mapping):
        raise ValueError(f"{file}: card: expected a mapping with {', '.join(_REQUIRED)}, found {card!r}")
    known = {**_REQUIRED, **_OPTIONAL}
    for key in card:
        if key not in known:
            raise ValueError(f"{file}: card.{key}: unknown; expected one of {', '.join(known)}")
    for key, (is_valid, expected) in known.items():
        if key not in card:
            if key in _REQUIRED or (key == "boundary" and "boundary" not in config):
                raise ValueError(f"{file}: card.{key} is missing; expected {expected}")
        elif not is_valid(card[key]):
            raise ValueError(f"{file}: card.{key}: expected {expected}, found {card[key]!r}")


def _members(datasets: Mapping[str, Mapping[str, Any]], heading: str) -> dict[str, Mapping[str, Any]]:
    def family(name: str) -> str:
        prefixes = (prefix for prefix in _FAMILIES if name.startswith(prefix))
        return _FAMILIES.get(next(prefixes, ""), _SUITE if "prepare" in datasets[name] else _OTHERS)

    return {name: config for name, config in datasets.items() if family(name) == heading}


def _row(name: str, config: Mapping[str, Any]) -> list[str]:
    card = config["card"]
    fields = count_components(config)
    shape = f"{len(fields)} × {max(fields.values())}"
    counts = [_number(card[key]) for key in ("frames", "trajectories")]
    return [name, ", ".join(fields), shape, _grid(card["grid"]), *counts, _boundary(config), _split_rule(config)]


def _card(name: str, config: Mapping[str, Any]) -> list[str]:
    card = config["card"]
    sizes = "".join(f"; {key} {_number(card[key])}" for key in ("trajectories", "frames", "dt"))
    lines = [
        f"- **equation**: {card['equation']}",
        f"- **source**: {card['source']}",
        f"- **licence**: {card['licence']}",
        f"- **size**: {card['size']}{sizes}",
        f"- **files**: {_files(config)}",
        f"- **split rule**: {_split_rule(config)}",
    ]
    if "published" in card:
        lines.append(f"- **published model**: {card['published']}")
    lines += [f"- **warnings**: {' '.join(card['warnings'])}"] if card["warnings"] else []
    return ["<details>", f"<summary>{name}</summary>", "", *lines, "", "</details>"]


def _boundary(config: Mapping[str, Any]) -> str:
    stated = config["card"].get("boundary", config.get("boundary"))
    if isinstance(stated, Mapping):
        return ", ".join(f"{axis} {word}" for axis, word in stated.items())
    return str(stated)


def _split_rule(config: Mapping[str, Any]) -> str:
    if "path" in config:
        return "folders"
    rule = {"by": "trajectory", "valid": 0.1, "test": 0.1, **config.get("splits", {})}
    shares = {"train": "rest", "valid": _share(rule["valid"]), "test": _share(rule["test"])}
    blocks = ", ".join(f"{shares[split]} {split}" for split in rule.get("order", shares))
    text = blocks if "order" in rule else f"{blocks}, shuffled with seed {rule.get('seed', 0)}"
    if rule["by"] == "time":
        text += ", of the frames"
    stated = config["files"]
    if not isinstance(stated, str) or "*" in stated:
        within = rule.get("within", "file" if "order" in rule else "all")
        text += " (of each file)" if within == "file" else " (of all files)"
    return text


def _share(value: float) -> str:
    return f"{100 * value:g} %" if isinstance(value, float) else str(value)


def _files(config: Mapping[str, Any]) -> str:
    """Where the data set is expected: `data_dir` as its default, other interpolations as their names."""
    stated = config.get("path", config.get("files", ""))
    places: Sequence[str] = [stated] if isinstance(stated, str) else stated
    plain = (re.sub(r"\$\{(\w+)\}", r"<\1>", place.replace("${data_dir}", "data")) for place in places)
    return ", ".join(f"`{place}`" for place in plain)


def _grid(points: Sequence[int]) -> str:
    if len(set(points)) == 1:
        return f"{points[0]}{_POWERS[len(points)]}"
    return " × ".join(map(str, points))


def _number(value: float | str) -> str:
    if isinstance(value, int):
        return f"{value:,}" if value >= 10_000 else str(value)
    return f"{value:g}" if isinstance(value, float) else value


if __name__ == "__main__":
    main()
