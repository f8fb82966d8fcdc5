"""The study of recipes: its numbers are those of the errors, and it runs from its command."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from experiments.recipe import bounded, figure, judge, run, screen, table
from experiments.recipe.rows import HELD_OUT, MIX, ROWS
from tests.conftest import ROOT

FORECASTS = ("model", "persistence", "extrapolation")


def made_up(path: Path, systems: tuple[str, ...], factor: float = 0.5) -> None:
    """Errors that do not vary: of the model, of persistence 1, and of extrapolation 0.8 one step ahead and 2 later."""
    later = np.array([factor, 1.0, 2.0])[:, None, None, None] * np.ones((3, 2, 12, 2))
    one = np.array([factor / 5, 1.0, 0.8])[:, None, None] * np.ones((3, 4, 2))
    for system in systems:
        xr.Dataset(
            {
                "one_step": (("forecast", "window", "field"), one),
                "rollout": (("forecast", "trajectory", "lead_time", "field"), later),
                "unstable_from": (("forecast", "trajectory"), np.full((3, 2), np.nan)),
            },
            {"forecast": list(FORECASTS), "lead_time": np.arange(1.0, 13)},
        ).to_netcdf(path, mode="a" if path.exists() else "w", group=system, engine="h5netcdf")


def test_numbers_are_geometric_means_of_ratios(tmp_path: Path) -> None:
    made_up(tmp_path / "errors.nc", MIX[:3], 0.5)
    made_up(tmp_path / "errors.nc", MIX[3:], 0.125)
    found = judge.numbers(tmp_path / "errors.nc")
    assert found["mix_10"] == pytest.approx(0.25)  # sqrt(0.5 * 0.125)
    assert found["mix_10_naive"] == found["mix_10"] == found["mix_full"]
    assert found["mix_1"] == pytest.approx(0.05)
    assert found["mix_1_naive"] == pytest.approx(0.0625)
    assert found["heldout_1"] is None
    assert found["systems"]["cfd1d"]["model_10"] == pytest.approx(0.5)
    assert set(found["systems"]) == set(MIX)


def test_the_table_and_the_figure_show_every_row(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    for name, seed, systems, factor in (
        ("default", 0, (*MIX, *HELD_OUT), 0.5),
        ("default", 1, (*MIX, *HELD_OUT), 0.125),
        ("fno", 0, MIX, 0.7),
    ):
        made_up(tmp_path / "rows" / f"{name}-{seed}.nc", systems, factor)
        found = judge.numbers(tmp_path / "rows" / f"{name}-{seed}.nc")
        about = {"row": name, "seed": seed, "train_seconds": 10.0, "inference_ms": {}, **found}
        (tmp_path / "rows" / f"{name}-{seed}.json").write_text(json.dumps(about))
    table.write(tmp_path)
    figure.write(tmp_path)
    rows = json.loads((tmp_path / "table.json").read_text())
    assert [(row["row"], row["seed"]) for row in rows] == [("fno", 0), ("default", 0), ("default", 1)]
    text = (tmp_path / "table.md").read_text()
    fno, default = (line for line in text.splitlines() if line.startswith(("| FNO", "| default")) and "seed" in line)
    # Over trajectories nothing varies, over the two seeds from 0.125 to 0.5.
    assert default.split("|")[4].strip() == ".250 (.125 to .500)"
    assert fno.split("|")[4].strip() == ".700 (.700 to .700)"
    assert fno.split("|")[7].strip() == ""
    assert (tmp_path / "errors.png").stat().st_size > 10_000


def test_growth_is_relative_to_the_first_frame() -> None:
    x = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    values = np.array([1.0, 1.5, 3.0, 2.0])[:, None] * np.sin(x) + 7
    assert bounded.growth(xr.Dataset({"u": (("time", "x"), values)}))["largest"] == pytest.approx(3.0)
    values[2, 0] = np.nan
    assert bounded.growth(xr.Dataset({"u": (("time", "x"), values)}))["largest"] == np.inf


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rows=[defautl]"], "rows: expected some of published, fno"),
        (["step=3"], "expected some of rows, seeds, out, steps"),
        (["steps=0"], "steps: expected a positive integer, found 0"),
        (["seeds=[a]"], "seeds: expected whole numbers"),
    ],
)
def test_wrong_options_are_named(monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str) -> None:
    monkeypatch.setattr("sys.argv", ["run.py", *arguments])
    with pytest.raises(SystemExit, match=said):
        run.options_of_command_line()


@pytest.mark.slow
def test_the_command_trains_judges_and_writes_the_table(
    suite_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = (
        "extra=[model.dim=32,model.depth=1,model.heads=4,model.mlp_dim=64,model.field_heads=8,"
        "trainer.log_every_n_steps=1]"
    )
    arguments = [
        "rows=[published,default]", "seeds=[0]", f"out={tmp_path}", "steps=2", "windows=2", "level=tiny",
        f"data_dir={suite_root}", "rollout=3", small,
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["run.py", *arguments])
    monkeypatch.chdir(ROOT)
    run.main()
    rows = json.loads((tmp_path / "table.json").read_text())
    assert [row["row"] for row in rows] == ["published", "default"]
    for row in rows:
        for name in ("mix_1", "mix_10", "heldout_1", "heldout_10"):
            assert 0 < row[name] <= row[f"{name}_naive"] < np.inf
        assert row["train_seconds"] > 0
        assert set(row["systems"]) == {*MIX, *HELD_OUT}
        assert all(value > 0 for value in row["inference_ms"].values())
    assert not (tmp_path / "runs" / "default-0" / "mix").exists()
    before = (tmp_path / "rows" / "default-0.json").stat().st_mtime_ns
    run.main()  # nothing is done twice
    assert (tmp_path / "rows" / "default-0.json").stat().st_mtime_ns == before
    monkeypatch.setattr("sys.argv", ["run.py", *(a if a != "steps=2" else "steps=3" for a in arguments)])
    with pytest.raises(SystemExit, match=r"steps: .*published-0.json is of steps=2; give another out="):
        run.main()


def test_a_screened_row_replaces_that_of_its_name_and_base() -> None:
    found = dict.fromkeys(screen.FIELDS[1:], 0.5) | {"row": "default", "steps": 250, "train_seconds": 10.0}
    rows = screen.add([], "first", [found, {**found, "row": "other"}])
    rows = screen.add(rows, "second", [{**found, "mix_1": 0.25}])
    rows = screen.add(rows, "first", [{**found, "mix_1": 0.125}])
    assert [(row["base"], row["row"], row["mix_1"]) for row in rows] == [
        ("first", "default", 0.125), ("first", "other", 0.5), ("second", "default", 0.25),
    ]  # fmt: skip
    text = screen.markdown(rows)
    assert text.count("One option away from:") == 2
    assert "| default | 250 | .125 | .500 |" in text
    assert "| other | 250 | .500 (+300%) | .500 (+0%) |" in text
    assert "| other | 250 | lost |" in screen.markdown(
        screen.add(rows, "first", [{**found, "row": "other", "mix_1": 1e9}])
    )


def test_rows_name_options_that_exist() -> None:
    assert {"published", "fno", "unet", "default"} <= set(ROWS)
    assert all(row.options[0].startswith("+experiment=") for row in ROWS.values())
