"""The study of baselines: its plan and scores by hand, and a small one from end to end."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from experiments.baselines import plan, report, results, run, speed
from experiments.baselines.plan import Run

SYSTEMS = ["dr1d", "gs2d", "ns3d"]
# fno is twice as fast as nano and unet four times as slow, on each system.
SPEED = {
    (model, system): {"step_s": factor * seconds}
    for model, factor in (("fno", 0.5), ("unet", 4.0), ("nano", 1.0))
    for system, seconds in zip(SYSTEMS, (0.1, 0.2, 0.3), strict=True)
}
OPTIONS = {**run.DEFAULTS, "systems": SYSTEMS, "steps": 40, "seeds": [0, 1]}


@pytest.fixture(autouse=True)
def _own_threads() -> Iterator[None]:
    """The study sets the number of the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def made_up(model: str, system: str, errors: list[float], **other: Any) -> list[dict[str, Any]]:
    """Lines of results, a seed each; persistence has an error of 0.5, extrapolation of 0.25 one step ahead, else 1."""
    naive = {f"persistence_{window}": 0.5 for window in results.WINDOWS}
    naive |= {f"extrapolation_{window}": 0.25 if window == "one_step" else 1.0 for window in results.WINDOWS}
    line = {"model": model, "system": system, "matched": "both", "lr": 1e-3, "steps": 40, "unstable": "0/2", **naive}
    cost = {"train_s": 3.0, "judge_s": 1.0, "parameters": 7, "gflop": 0.5, "step_s": 0.1, "inference_ms": 2.0}
    return [
        {**line, **cost, "threads": 1, "seed": seed, **dict.fromkeys(results.WINDOWS, error), **other}
        for seed, error in enumerate(errors)
    ]


def test_time_gives_the_faster_model_proportionally_more_steps() -> None:
    steps = {(r.model, r.system, r.matched): r.steps for r in plan.runs({**OPTIONS, "seeds": [0]}, SPEED)}
    for system in SYSTEMS:
        assert steps["fno", system, "steps"] == steps["unet", system, "steps"] == steps["nano", system, "both"] == 40
        assert steps["fno", system, "time"] == 80
        assert steps["unet", system, "time"] == 10
    # As long as the three of nano together, by either budget.
    assert steps["mix", "all", "both"] == 120
    assert len(steps) == 3 * 2 + 3 * 2 + 3 + 1


def test_a_budget_in_seconds_is_the_same_for_all() -> None:
    for r in plan.runs({**OPTIONS, "seconds": 24.0}, SPEED):
        if r.matched == "time":
            names = plan.trained_on(r, SYSTEMS)
            rate = np.mean([SPEED[plan.config_of(r.model), name]["step_s"] for name in names])
            assert r.steps * rate == pytest.approx(24.0 * len(names), rel=0.01)
    steps = {(r.system, r.matched): r.steps for r in plan.runs({**OPTIONS, "seconds": 4.0, "seeds": [0]}, SPEED)
             if r.model == "nano"}  # fmt: skip
    assert steps == {
        ("dr1d", "both"): 40, ("gs2d", "steps"): 40, ("gs2d", "time"): 20, ("ns3d", "steps"): 40, ("ns3d", "time"): 13,
    }  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 3])
def test_shards_are_disjoint_complete_and_even(count: int) -> None:
    whole = list(plan.runs(OPTIONS, SPEED))
    shares = [plan.share(whole, SPEED, SYSTEMS, f"{k}/{count}") for k in range(count)]
    assert sorted(r for share in shares for r in share) == sorted(set(whole)) == sorted(whole)
    assert plan.share(whole, SPEED, SYSTEMS, None) == whole

    def seconds(r: Run) -> float:
        names = plan.trained_on(r, SYSTEMS)
        return r.steps * sum(SPEED[plan.config_of(r.model), name]["step_s"] for name in names) / len(names)

    loads = [sum(map(seconds, share)) for share in shares]
    assert max(loads) - min(loads) <= max(map(seconds, whole))
    assert [r.seed for r in shares[0]] == sorted(r.seed for r in shares[0])


def test_scores_by_hand() -> None:
    """Persistence and what equals it score 1; geometric means, ranks with ties, and who beats both naive forecasts."""
    rows = [
        row
        for system, error in zip(SYSTEMS, (0.1, 0.4, 0.4), strict=True)
        for model, errors in {"fno": [error, 4 * error], "unet": [0.5, 0.5]}.items()
        for row in made_up(model, system, errors)
    ]
    errors = report.errors_of(rows, "time", "one_step")
    scores = report.overall(errors)
    # fno's ratios to persistence are 0.2 and 0.8, and twice 0.8 and 3.2.
    assert scores["fno"]["ratio"] == pytest.approx((0.2 * 0.8 * 0.8 * 3.2 * 0.8 * 3.2) ** (1 / 6))
    assert scores["fno"]["low"] < scores["fno"]["ratio"] < scores["fno"]["high"]
    for name in ("unet", "persistence"):
        assert [scores[name][key] for key in ("ratio", "low", "high")] == pytest.approx([1, 1, 1])
    # Means of fno are 0.25, as good as extrapolation's, 1 and 1.
    assert {name: of["rank"] for name, of in scores.items()} == pytest.approx(
        {"fno": (1.5 + 4 + 4) / 3, "unet": (3.5 + 2.5 + 2.5) / 3, "persistence": (3.5 + 2.5 + 2.5) / 3,
         "extrapolation": (1.5 + 1 + 1) / 3}
    )  # fmt: skip
    assert sum(of["rank"] for of in scores.values()) == pytest.approx(1 + 2 + 3 + 4)
    assert {name: of["better"] for name, of in scores.items()} == dict.fromkeys(scores, 0)
    # Over the rollouts the better naive forecast is persistence, and fno's mean is below it on one system.
    assert report.overall(report.errors_of(rows, "steps", "6:12"))["fno"]["better"] == 1


def test_a_budget_has_its_own_lines_and_those_of_both() -> None:
    rows = made_up("fno", "dr1d", [0.3], matched="steps") + made_up("fno", "dr1d", [0.2], matched="time")
    rows += made_up("nano", "dr1d", [0.25])
    assert report.errors_of(rows, "steps", "rollout")["fno"] == {"dr1d": [0.3]}
    assert report.errors_of(rows, "time", "rollout")["fno"] == {"dr1d": [0.2]}
    assert report.errors_of(rows, "time", "rollout")["nano"] == {"dr1d": [0.25]}
    assert report.losses(rows, "steps", "6:12", "nano") == {"fno": {}, "naive": {}}
    assert report.losses(rows, "time", "6:12", "nano")["fno"] == {"dr1d": pytest.approx(0.8)}
    assert report.losses(rows, "time", "6:12", "mix") == {}


def test_infinite_errors_and_missing_windows_are_told(tmp_path: Path) -> None:
    """A forecast that was lost ends last, a system without a window is left out there and nowhere else."""
    short = {f"{prefix}13:30": float("nan") for prefix in ("", "persistence_", "extrapolation_")}
    rows = made_up("nano", "dr1d", [0.2, 0.3]) + made_up("nano", "ns3d", [0.2, 0.3], **short)
    rows += made_up("fno", "dr1d", [np.inf, 0.1]) + made_up("fno", "ns3d", [0.1, 0.1], **short)
    (tmp_path / "results.csv").write_text(results.as_csv(rows, results.FIELDS))
    assert report.errors_of(rows, "time", "13:30")["nano"] == {"dr1d": [0.2, 0.3]}
    scores = report.overall(report.errors_of(rows, "time", "13:30"))
    assert scores["fno"]["ratio"] == np.inf
    assert scores["fno"]["rank"] == 4
    report.write(tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "| dr1d | infinite | 0.2500 ± 0.0500 | 0.5000 | 0.2500 |" in text
    assert "| ns3d | 0.1000 ± 0.0000 | 0.2500 ± 0.0500 | 0.5000 | 1.0000 |" in text
    assert "- Matched time, one step: FNO is better than MORPH, one system on 1: ns3d (0.40)." in text


def test_a_forecast_that_lacks_systems_is_named(tmp_path: Path) -> None:
    """It has no score over all systems, and its absence from the table is said with the reason."""
    rows = [row for system in SYSTEMS for row in made_up("nano", system, [0.2])]
    rows += made_up("fno", "gs2d", [0.1]) + made_up("unet", "dr1d", [0.1], matched="steps")
    (tmp_path / "results.csv").write_text(results.as_csv(rows, results.FIELDS))
    assert report.lacking(rows, "time") == {"fno": ["dr1d", "ns3d"], "unet": SYSTEMS}
    assert report.lacking(rows, "steps") == {"fno": ["dr1d", "ns3d"], "unet": ["gs2d", "ns3d"]}
    report.write(tmp_path)
    text = (tmp_path / "results.md").read_text()
    steps, time = text.split("## ")[1:3]
    line = "Without a place above, since they lack systems: FNO (dr1d, ns3d), U-Net ({})."
    assert line.format("gs2d, ns3d") in steps.splitlines()
    assert line.format("dr1d, gs2d, ns3d") in time.splitlines()
    whole = [row for row in rows if row["model"] == "nano"]
    (tmp_path / "results.csv").write_text(results.as_csv(whole, results.FIELDS))
    report.write(tmp_path)
    assert "Without a place" not in (tmp_path / "results.md").read_text()


def test_a_window_that_is_cut_is_not_called_as_one_that_is_left_out(tmp_path: Path) -> None:
    """An evaluation leaves 13:30 out where the rollouts end before; here it is cut, and the tables say so."""
    (tmp_path / "results.csv").write_text(results.as_csv(made_up("nano", "ns3d", [0.2]), results.FIELDS))
    report.write(tmp_path)
    text = (tmp_path / "results.md").read_text()
    heading = "steps 13 to 30, or the end"
    assert text.count("steps 13 to 30") == text.count(heading) > 0
    assert heading in Path(run.__file__).with_name("README.md").read_text()
    assert "13:30" in results.FIELDS


def test_the_best_rate_is_that_of_the_lowest_error() -> None:
    rows = [
        row
        for lr, errors in ((3e-4, (0.4, 0.1)), (1e-3, (0.1, 0.2)), (3e-3, (0.3, 0.3)))
        for system, error in zip(("dr1d", "gs2d"), errors, strict=True)
        for row in made_up("fno", system, [error], lr=lr)
    ]
    best = report.best_rates(rows)["fno"]
    assert best == pytest.approx({1e-3: 2 * 0.02**0.5, 3e-4: 0.4, 3e-3: 0.6})
    assert list(best) == [1e-3, 3e-4, 3e-3]
    assert report.rates_table(rows).endswith("| FNO | 0.400 | 0.283 | 0.600 | 0.001 |\n")


def test_a_small_study(
    suite_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without learning a new model is persistence, which it must score in every window; nothing is run twice."""
    monkeypatch.chdir(tmp_path)
    study = [
        "run", "out=study", "level=tiny", f"data_dir={suite_root}", "systems=[dr1d,burgers1d]", "rate_systems=[dr1d]",
        "models=[nano,mix]", "seeds=[0]", "steps=2", "repeats=1",
        "options.nano=[model.local=null,model.dim=32,model.depth=1]",
    ]  # fmt: skip

    def call(*options: str) -> str:
        monkeypatch.setattr(sys, "argv", [*study, *options])
        run.main()
        return capsys.readouterr().out

    with pytest.raises(SystemExit, match=r"has no measured time of nano on burgers1d, .*give part=speed first"):
        call("shard=0/2", "part=study", "lr.nano=0.0")
    call("part=speed")
    measured = results.read_speed(tmp_path / "study" / "speed.csv")
    assert {(row["model"], row["system"]) for row in measured} == {("nano", "dr1d"), ("nano", "burgers1d")}
    assert {row["batch"] for row in measured} == {8}
    assert all(0 < row["inference_ms"] < 1e3 * row["step_s"] and row["gflop"] > 0 for row in measured)
    for shard in ("0/2", "1/2"):
        call(f"shard={shard}", "part=study", "lr.nano=0.0")
    call("part=report")
    rows = results.read(tmp_path / "study")
    assert [(row["model"], row["system"], row["steps"]) for row in rows] == [
        (model, system, steps) for model, steps in (("nano", 2), ("mix", 4)) for system in ("dr1d", "burgers1d")
    ]
    for row in rows:
        for window in results.WINDOWS:
            assert row[window] == pytest.approx(row[f"persistence_{window}"], rel=1e-5)
        assert row["parameters"] == measured[0]["parameters"]
        assert row["train_s"] > 0
    assert len({row["persistence_6:12"] for row in rows}) == 2
    text = (tmp_path / "study" / "results.md").read_text()
    assert text.count("| MORPH, all ten | 1 [1, 1] | 1 [1, 1] | 1 [1, 1] |") == 2
    assert (tmp_path / "study" / "results.png").stat().st_size < 150_000
    before = (tmp_path / "study" / "results.csv").read_text()
    monkeypatch.setattr(run, "one", None)  # whoever calls it fails
    monkeypatch.setattr(speed, "measure", None)
    call("lr.nano=0.0")
    assert (tmp_path / "study" / "results.csv").read_text() == before
    with pytest.raises(SystemExit, match=r"holds a run of nano on dr1d with 2 steps at the learning rate 0, .*another"):
        call("lr.nano=1e-3")


def test_windows_of_an_evaluation_and_rates_that_are_learned_with(
    suite_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sweep changes what is learned, on the validation split; windows are what evaluation says of these steps."""
    monkeypatch.chdir(tmp_path)
    study = [
        "run", "level=tiny", f"data_dir={suite_root}", "out=study", "systems=[dr1d]", "rate_systems=[dr1d]", "steps=3",
        "models=[fno,unet]", "repeats=1", "options.nano=[model.local=null,model.dim=32,model.depth=1]",
        "options.unet=[model.width.in_1d=8]", "options.fno=[model.width.in_1d=8,model.modes.in_1d=4,model.depth=1]",
    ]  # fmt: skip
    kept: list[xr.Dataset] = []
    monkeypatch.setattr(
        run.results, "errors", lambda metrics, of=results.errors: kept.append(metrics.load()) or of(metrics)
    )
    monkeypatch.setattr(plan, "RATES", (3e-4, 3e-3))
    for part in ("speed", "rates"):
        monkeypatch.setattr(sys, "argv", [*study, f"part={part}"])
        run.main()
    rows = results.read(tmp_path / "study", "results_rates")
    assert [(row["model"], row["lr"]) for row in rows] == [(name, lr) for name in ("fno", "unet") for lr in plan.RATES]
    assert len({row["one_step"] for row in rows}) == 4
    assert len({row["parameters"] for row in rows}) == 2
    best = min(rows[:2], key=lambda row: row["one_step"])
    assert f" | {best['lr']:g} |\n| U-Net |" in capsys.readouterr().out
    metrics = kept[0]
    assert metrics.sizes["lead_time"] == 21 - plan.CONTEXT
    by_step = metrics.rollout.sel(metric="vrmse", forecast="model").mean(["trajectory", "field"]).values
    assert rows[0]["6:12"] == pytest.approx(sum(by_step[5:12]) / 7)
    assert rows[0]["13:30"] == pytest.approx(sum(by_step[12:]) / 5)
    assert rows[0]["rollout"] == pytest.approx(by_step.mean())


def test_the_commands_of_its_readme_have_these_options(monkeypatch: pytest.MonkeyPatch) -> None:
    text = Path(run.__file__).with_name("README.md").read_text()
    shown = [c for line in text.splitlines() for c in line.split("#")[0].split(" & ") if c.startswith("python -m exp")]
    commands = [command.split()[2:] for command in shown]
    assert {command[0] for command in commands} == {"experiments.baselines.run"}
    assert len(commands) == 6
    for command in commands:
        monkeypatch.setattr(sys, "argv", command)
        options = run.options_of_command_line()
        assert all(f"{name}={options[name]}" in command for name in options if options[name] != run.DEFAULTS[name])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["step=3"], "unknown option step"),
        (["lr.mix=1e-3"], "unknown option lr.mix"),
        (["part=all"], "part: expected one of speed, rates, study, report, found 'all'"),
        (["models=[fno,vit]"], "models: expected some of fno, unet, nano, mix, found vit"),
        (["systems=[]"], "systems: expected some of .*, found none"),
        (["part=report"], "runs/baselines holds no results"),
        (["shard=2/2"], "shard: expected 0/2, 1/2 or the like, found '2/2'"),
        (["shard=0/2"], "shard: expected with part=study or part=rates, .*found part=None; .*part=speed .*part=report"),
        (["shard=0/2", "part=speed"], "shard: expected with part=study or part=rates, .*found part=speed"),
        (["shard=0/2", "part=report"], "shard: expected with part=study or part=rates, .*found part=report"),
    ],
)
def test_wrong_options(arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["run", *arguments])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        run.main()
