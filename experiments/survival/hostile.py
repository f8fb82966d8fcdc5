"""Files from strangers, one after another: what each would do, and what happens when it is opened.

    python -m experiments.survival.hostile out=hostile

Writes hostile.csv and hostile.md into that folder.
"""

import contextlib
import csv
import io
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from experiments.survival.hostile_cases import CASES, SECRET, Case

__all__ = ["Outcome", "attempt", "main", "table"]


class Outcome(NamedTuple):
    """What happened: the first line of the error ("" where there was none), whether something was executed, what was
    written outside of the working folder, and megabytes by which the process grew at most."""

    message: str
    executed: bool
    outside: list[str]
    peak: float


@contextlib.contextmanager
def _apart() -> Iterator[tuple[Path, Path]]:
    """A folder of everything, and in it the working folder; modules of the stranger can be found there."""
    before, path = Path.cwd(), list(sys.path)
    with TemporaryDirectory() as name:
        whole = Path(name).resolve()
        for folder in ("work", "home"):
            (whole / folder).mkdir()
        os.chdir(whole / "work")
        sys.path.insert(0, str(whole / "work"))
        os.environ[SECRET] = "hunter2"
        try:
            yield whole, whole / "work"
        finally:
            del os.environ[SECRET]
            sys.path[:] = path
            os.chdir(before)


def attempt(case: Case) -> Outcome:
    """Make the file and open it, in folders that are removed afterwards."""
    message, printed = "", io.StringIO()
    with _apart() as (whole, work):
        marker = whole / "executed"
        case.make(marker)
        before = {path for path in whole.rglob("*") if not path.is_relative_to(work)}
        start = _resident(peak=False)
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        try:
            with contextlib.redirect_stdout(printed):
                case.open()
        except (ValueError, OSError, SystemExit) as error:
            message = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            if isinstance(error, SystemExit):
                message = next((line for line in str(error).splitlines() if "error: " in line), message)
        peak = _resident(peak=True) - start
        after = {path for path in whole.rglob("*") if not path.is_relative_to(work)} - {marker}
        outside = sorted(str(path.relative_to(whole)) for path in after - before)
        return Outcome(message.replace(str(whole), "..."), marker.exists(), outside, peak)


def _resident(peak: bool) -> float:
    """Megabytes."""
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def table(outcomes: Mapping[str, Outcome]) -> str:
    """In Markdown."""
    lines = [
        "| file | would | what happened | executed | written elsewhere | MB at most |",
        "|---|---|---|---|---|---|",
    ]
    for case in CASES:
        message, executed, outside, peak = outcomes[case.name]
        said = (message[:157] + "..." if len(message) > 160 else message).replace("|", "\\|") or "opened"
        cells = (case.name, case.would, said, "yes" if executed else "no", ", ".join(outside) or "no", f"{peak:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Try all, and write what happened."""
    options = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
    if set(options) != {"out"}:
        sys.exit("error: expected out=<folder>, as in python -m experiments.survival.hostile out=hostile")
    out = Path(options["out"])
    out.mkdir(parents=True, exist_ok=True)
    outcomes = {case.name: attempt(case) for case in CASES}
    (out / "hostile.md").write_text(table(outcomes))
    with (out / "hostile.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "would", "message", "executed", "outside", "peak_mb"])
        for case in CASES:
            message, executed, outside, peak = outcomes[case.name]
            writer.writerow([case.name, case.would, message, executed, " ".join(outside), f"{peak:.0f}"])
    print(table(outcomes))


if __name__ == "__main__":
    main()
