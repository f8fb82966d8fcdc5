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
    """A table for each base, the base itself first."""
    head = [name.replace("_", " ").replace("heldout", "held-out") for name in FIELDS[1:]]
    lines = []
    for base in dict.fromkeys(row["base"] for row in rows):
        mine = sorted((row for row in rows if row["base"] == base), key=lambda row: row["row"] != "default")
        lines += ["", f"One option away from: {base}", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        for row in mine:
            numbers = [short(float(row[name])) for name in FIELDS[3:-1]]
            lines.append(
                f"| {' | '.join([row['row'], str(row['steps']), *numbers, f'{float(row[FIELDS[-1]]):.0f}'])} |"
            )
    return "\n".join(lines).lstrip() + "\n"


if __name__ == "__main__":
    main()
