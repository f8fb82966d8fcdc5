"""The study of faults: each fault can happen, and what it says of half an hour follows from what it saw."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning import Callback

from experiments.survival import overhead, run, soak
from experiments.survival.cases import CASES
from experiments.survival.faults import ACTIONS
from tests.conftest import ROOT


def test_every_fault_names_a_hook_and_what_happens_in_it() -> None:
    assert len(CASES) >= 25
    assert len({(case.name, case.place) for case in CASES}) == len(CASES)
    for case in CASES:
        if case.action:
            assert callable(getattr(Callback, case.hook))
            assert case.action in ACTIONS
    used = {case.action for case in CASES}
    assert used >= set(ACTIONS) - {"interrupt", "user signal"}


@pytest.mark.slow
def test_a_fault_is_survived_and_a_difference_is_found(
    suite_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The study as it is run, on one of its faults; then the same with a reference of another seed."""
    options = (*run.TRAIN, "level=tiny", f"data_dir={suite_root}")
    monkeypatch.setattr(run, "TRAIN", options)
    run.main([f"out={tmp_path}/out", f"work={tmp_path}/work", "faults=[SIGKILL of a reading]", "jobs=1"])
    (row,) = run.read(tmp_path / "out" / "faults.csv")
    assert {row[name] for name in ("losses", "scores", "weights")} == {"equal"}
    assert row["resumed"] == "step_00000014.ckpt"
    assert row["said"].startswith("error: a reading process was ended")
    other = tmp_path / "work" / "one"
    (other / "losses.csv").write_text((other / "losses.csv").read_text().replace("\n1,", "\n1,x"))
    found = run.same(next((tmp_path / "work").glob("fault_*")) / "run", other)
    assert found == {"losses": "DIFFER", "scores": "equal", "weights": "equal"}


def watched(leak: float = 0.0, slow: float = 1.0) -> list[dict[str, float]]:
    """A run of ten minutes, looked at each second, whose pace changes in the last third."""
    rows, steps = [], 0.0
    for second in range(600):
        steps += 10 * (slow if second > 450 else 1.0)
        memory = 500 + (300 if second < 60 else 0) + leak * second
        rows.append(
            {"seconds": second, "steps": round(steps), "main_mb": memory, "all_mb": 2 * memory, "main_files": 20,
             "all_files": 60 if second < 50 else 61, "processes": 3}
        )  # fmt: skip
    return rows


def test_growth_and_pace_after_the_warm_up() -> None:
    steady = soak.summary(watched())
    assert steady["main_mb_growth_percent"] == 0
    assert steady["all_files"] == [61, 61]
    assert steady["pace_deviation_percent"] < 0.5
    leaking = soak.summary(watched(leak=0.1))
    # 0.1 MB each second over nine tenths of the five sixths that are left, from the mean of their first tenth.
    assert leaking["main_mb_growth_percent"] == pytest.approx(100 * 0.1 * 450 / (500 + 0.1 * 125), abs=0.1)
    slower = soak.summary(watched(slow=0.5))
    # From second 100 to 599 the pace is 10, then, after 350 s, 5, and 5 in all of the last part.
    mean = (350 * 10 + 149 * 5) / 499
    assert slower["pace_deviation_percent"] == pytest.approx(100 * (1 - 5 / mean), abs=0.5)


@pytest.mark.parametrize("study", [run.main, soak.main, overhead.main])
def test_unknown_options_are_refused(study: Callable[[list[str]], None]) -> None:
    with pytest.raises(SystemExit, match="unknown option folder; expected"):
        study(["folder=here"])


def test_the_published_table_is_that_of_all_faults() -> None:
    """Each was tried, and all that were not to be refused went on as without it."""
    rows = run.read(ROOT / "experiments" / "survival" / "faults.csv")
    assert [(row["fault"], row["where"]) for row in rows] == [(case.name, case.place) for case in CASES]
    for row, case in zip(rows, CASES, strict=True):
        if case.refused:
            assert row["resumed"] == "refused"
        else:
            assert {row[name] for name in ("losses", "scores", "weights")} == {"equal"}, row
