"""The table of the ablation: rows that were screened, against what they were one option away from."""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments.recipe.table import short
from morph.provenance import write_whole

__all__ = ["FIELDS", "add", "main", "markdown"]

FIELDS = ("base", "row", "steps", "mix_1", "mix_1_naive", "mix_10", "mix_10_naive", "heldout_1", "heldout_1_naive",
          "heldout_10", "heldout_10_naive", "train_seconds")  # fmt: skip
_SHOWN = ("mix_1", "mix_10", "heldout_1", "heldout_10")  # the naive forecasts are the same for all
_TABLE = Path(__file__).with_name("screening.csv")


def main() -> None:
    """`python experiments/recipe/screen.py BASE OUT...`: add the rows in these folders of `run.py` under a name of what
    they were compared with, then write screening.md."""
    if len(sys.argv) < 3 or sys.argv[1] in ("-h", "--help"):
        sys.exit(main.__doc__)
    base, *folders = sys.argv[1:]
    rows = list(csv.DictReader(_TABLE.read_text().splitlines())) if _TABLE.exists() else []
    for folder in folders:
        paths = sorted((Path(folder) / "rows").glob("*.json"))
        if not paths:
            sys.exit(f"error: {folder} holds no rows of experiments/recipe/run.py")
        rows = add(rows, base, [json.loads(path.read_text()) for path in paths])
    lines = [",".join(FIELDS), *(",".join(str(row[name]) for name in FIELDS) for row in rows)]
    write_whole(_TABLE, "\n".join(lines) + "\n")
    write_whole(_TABLE.with_suffix(".md"), markdown(rows))


def add(rows: Sequence[Mapping[str, Any]], base: str, found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows more; one of the same base and name is replaced."""
    new = {(base, one["row"]): {"base": base, **{name: one[name] for name in FIELDS[1:]}} for one in found}
    kept = {(row["base"], row["row"]): dict(row) for row in rows}
    return list({**kept, **new}.values())


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table for each base, the base itself first; the others with their difference from it."""
    columns = [name.replace("_", " ").replace("heldout", "held-out") for name in _SHOWN]
    head = ["row", "steps", *columns, "train seconds"]
    lines = []
    for base in dict.fromkeys(row["base"] for row in rows):
        mine = sorted((row for row in rows if row["base"] == base), key=lambda row: row["row"] != "default")
        lines += ["", f"One option away from: {base}", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        for row in mine:
            numbers = [_cell(float(row[name]), None if row is mine[0] else float(mine[0][name])) for name in _SHOWN]
            lines.append(
                f"| {' | '.join([row['row'], str(row['steps']), *numbers, f'{float(row[FIELDS[-1]]):.0f}'])} |"
            )
    return "\n".join(lines).lstrip() + "\n"


def _cell(value: float, base: float | None) -> str:
    if base is None:
        return short(value)
    return f"{short(value)} ({value / base - 1:+.0%})" if value < 100 else "lost"


if __name__ == "__main__":
    main()
