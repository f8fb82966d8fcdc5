"""The transfer study: its scores by hand, and a small one from end to end."""

import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.transfer import report, run
from tests.conftest import run_module


def test_scores_by_hand() -> None:
    found = report.scores(error=0.3, zero_shot=0.5, reference=0.1, naive_error=0.6)
    assert found == pytest.approx({"gap closure": 0.5, "optimality ratio": 1 / 3, "gain over naive": 0.5})
    assert report.scores(0.1, 0.5, 0.1, 0.6)["gap closure"] == 1
    assert report.scores(0.5, 0.5, 0.1, 0.6)["gap closure"] == 0


def test_no_count_exceeds_what_a_system_has() -> None:
    options = {**run.DEFAULTS, "seeds": [0]}
    planned = list(run.runs(options))
    assert {r["trajectories"] for r in planned if r["system"] == "ns3d"} == {0, 1, 4, 12}
    assert {r["trajectories"] for r in planned if r["system"] == "dr1d"} == {0, 1, 4, 16, 64}
    assert len({run.key_of(r) for r in planned}) == len(planned) == 4 + 15 * len(options["methods"])


@pytest.mark.slow
def test_a_small_study(suite_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Each run once, none again; the better naive forecast, a gap that closes and a figure are in the report."""
    where = ("level=tiny", f"data_dir={suite_root}")
    small = ("model=nano", "model.dim=32", "model.depth=1", "model.field_heads=8", "mixture.steps_per_epoch=4")
    options = (*small, *where, "data=cfd1d", "trainer.max_epochs=1", "loader.validation_windows=2", "run_dir=base")
    done = run_module("morph.train", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    study = ("checkpoint=base", "out=study", "systems=[dr1d]", "trajectories=[1,2]", "seeds=[0]", "steps=3")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["run", *study, "methods=[scratch,lora]", "options=[trainer.log_every_n_steps=1]", *where]
    )
    run.main()
    rows = report.read(tmp_path / "study" / "results.csv")
    assert [(row["method"], row["trajectories"]) for row in rows] == [
        ("zero-shot", 0), ("scratch", 1), ("lora", 1), ("scratch", 2), ("lora", 2),
    ]  # fmt: skip
    assert len({row["persistence"] for row in rows}) == 1
    assert 0 < int(rows[2]["trained"]) < int(rows[1]["trained"])
    text = (tmp_path / "study" / "results.md").read_text()
    assert f"zero-shot {rows[0]['one_step']:.4f}" in text
    assert (tmp_path / "study" / "dr1d.png").stat().st_size > 10_000
    capsys.readouterr()
    run.main()
    assert capsys.readouterr().out == ""
    assert report.read(tmp_path / "study" / "results.csv") == rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["checkpoint=a", "step=3"], "unknown options step"), ([], "checkpoint: give that of the pretrained model")],
)
def test_wrong_options(arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["run", *arguments])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        run.main()
