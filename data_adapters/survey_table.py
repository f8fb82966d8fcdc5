"""What a survey found, as a person reads it and as numbers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from data_adapters.survey import Survey
from morph.layout import Statistics

__all__ = ["MOST_SHOWN", "field_table", "findings", "numbers_of", "rule_in_words", "split_table"]

MOST_SHOWN = 20
"""Errors, and warnings, of a data set that are printed."""


def split_table(found: Survey) -> Table:
    """Trajectories, frames and files of each split."""
    table = _table("split", "trajectories", "frames", "files")
    for split, numbers in found.splits.items():
        table.add_row(split, f"{numbers.trajectories:,}", f"{numbers.frames:,}", f"{numbers.files:,}")
    return table


def field_table(found: Survey, used: Statistics | None) -> Table:
    """Numbers of each field in each split, and below them what training will use.

    std and rms increment are pooled over the components of a field.
    """
    table = _table("field", "", "min", "max", "mean", "std", "rms increment", "NaN %")
    names = list({name: None for numbers in found.splits.values() for name in numbers.fields})
    for number, name in enumerate(names):
        label = name
        for split, of_split in found.splits.items():
            if name in of_split.fields:
                of_field = of_split.fields[name]
                shown = [_shown(of_field[column]) for column in range(5)]
                table.add_row(label, split, *shown, _percent(of_field.missing))
                label = ""
        if used is not None:
            assert found.adapter is not None, "its scales are used"
            mean = used.mean[number, : len(found.adapter.spec.fields[number].components)].tolist()
            std, rms_increment = used.std[number].item(), used.rms_increment[number].item()
            table.add_row("", "training uses", "", "", _shown(mean), _shown(std), _shown(rms_increment), "")
    return table


def findings(found: Survey) -> Iterator[str]:
    """Warnings and errors, a sentence each."""
    for kind, messages in (("warning", found.warnings), ("error", found.errors)):
        yield from (f"{kind}: {message}" for message in messages[:MOST_SHOWN])
        if len(messages) > MOST_SHOWN:
            yield f"{kind}: and {len(messages) - MOST_SHOWN:,} more"


def rule_in_words(found: Survey) -> str:
    """How the data set is divided."""
    rule = found.rule
    if not rule:
        return "unknown"
    if rule["by"] == "folder":
        return "by the folders of the data set"
    shares = {"train": "the rest", "valid": _share(rule["valid"]), "test": _share(rule["test"])}
    blocks = ", ".join(f"{split} {shares[split]}" for split in rule.get("order", shares))
    if rule["by"] == "time":
        gaps = ", ".join(f"{gap} between {pair.replace(', ', ' and ')}" for pair, gap in found.gaps.items())
        return f"by time: {blocks} of the frames, in this order; frames left out: {gaps}"
    where = "in each file" if rule["within"] == "file" else "over all files"
    how = "in this order" if "order" in rule else f"shuffled with seed {rule['seed']}"
    return f"by trajectory: {blocks}, {how}, {where}"


def numbers_of(found: Survey, statistics: str, used: Statistics | None) -> dict[str, Any]:
    """For a JSON file; null for what is not finite.

    Args:
        found: The survey.
        statistics: What became of the statistics, in words.
        used: Scales that training will use.
    """
    splits = {
        split: {
            "trajectories": numbers.trajectories,
            "frames": numbers.frames,
            "files": numbers.files,
            "fields": {name: _finite(of_field._asdict()) for name, of_field in numbers.fields.items()},
        }
        for split, numbers in found.splits.items()
    }
    return {
        "ok": not found.errors,
        "errors": found.errors,
        "warnings": found.warnings,
        "bytes": found.num_bytes,
        "split_rule": dict(found.rule),
        "gaps": found.gaps,
        "splits": splits,
        "statistics": statistics,
        "used": None if used is None else {key: values.tolist() for key, values in used._asdict().items()},
    }


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, show_edge=False)
    for column in columns:
        is_text = column in ("split", "field", "")
        table.add_column(column, justify="left" if is_text else "right", no_wrap=is_text)
    return table


def _shown(value: float | Sequence[float]) -> str:
    values = [value] if isinstance(value, int | float) else value
    return ", ".join(f"{number:.4g}" if math.isfinite(number) else "none" for number in values)


def _share(share: float) -> str:
    return f"{100 * share:g} %" if isinstance(share, float) else str(share)


def _percent(share: float) -> str:
    """A share that is not zero does not look like it."""
    return f"{100 * share:.2f}" if share == 0 or share >= 5e-5 else "<0.01"


def _finite(numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in numbers.items()
    }
