"""Compared checkpoints are judged on the same windows and rollouts, each as it would be alone."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from torch import nn

from morph.baselines import NAIVE
from morph.comparison import named, with_own_scales
from morph.data.subset import with_statistics
from morph.figures import plot_error_growth
from morph.layout import Statistics, TrainedOn
from morph.model.morph import Capacity, Morph
from morph.scoring import score
from morph.summary import summarise
from morph.tables import error_table, valid_table
from tests.made_up import Coast, Counted, Waves, put

ADAPTERS = [Waves("test"), Coast("test", gaps=True), Coast("test", spoil=(1, 5)), Counted()]


def small(max_context: int, seed: int = 0, normalisation: str = "context") -> Morph:
    torch.manual_seed(seed)
    capacity = Capacity(3, 3, max_context, 16)
    model = Morph(dim=32, depth=1, heads=4, capacity=capacity, normalisation=normalisation)
    for parameter in model.decoder.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


class Later:
    """A data set without its first frames."""

    def __init__(self, adapter: Any, frames: int) -> None:
        self.adapter, self.frames = adapter, frames
        self.spec = replace(adapter.spec, num_steps=adapter.spec.num_steps - frames)
        self.coordinates = {**adapter.coordinates, "time": adapter.coordinates["time"][frames:]}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.adapter, name)

    def __len__(self) -> int:
        return len(self.adapter)

    def read(self, trajectory: int, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        return put(self.adapter.read(trajectory, start + self.frames, stop + self.frames), out)


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("seen", [1, 2, 4])
def test_each_sees_the_last_frames_as_if_there_were_no_others(adapter: Any, seen: int) -> None:
    """Judged beside a model of four frames, and alone on a data set that begins where it begins to look."""
    other = small(4, seed=1)
    together = score(
        {"model": small(4), **NAIVE, "other": other}, adapter, context=4, contexts={"other": seen}, batch_size=2
    )
    alone = score({"model": other, **NAIVE}, Later(adapter, 4 - seen), context=seen, batch_size=2)
    found, expected = together.metrics.sel(forecast="other"), alone.metrics.sel(forecast="model")
    for ahead in ("one_step", "rollout"):
        assert np.array_equal(found[ahead], expected[ahead], equal_nan=True)
    assert np.array_equal(together.metrics.window_start, alone.metrics.window_start)
    assert int(found.frames_seen) == seen


def of(metrics: xr.Dataset, forecasts: xr.DataArray) -> xr.Dataset:
    """What it holds of these forecasts, and of the truth."""
    return metrics.sel(forecast=forecasts, source=["truth", *forecasts.values])


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_neither_company_nor_order_changes_a_score(adapter: Any) -> None:
    model, one, two = small(4), small(2, seed=1), small(1, seed=2)
    contexts = {"one": 2, "two": 1}
    first, second = (
        score(forecasts, adapter, context=4, contexts=contexts, batch_size=2).metrics
        for forecasts in (
            {"model": model, **NAIVE, "one": one, "two": two},
            {"two": two, "model": model, **NAIVE, "one": one},
        )
    )
    xr.testing.assert_identical(first, of(second, first.forecast))
    alone = score({"model": model, **NAIVE}, adapter, context=4, batch_size=2)
    xr.testing.assert_identical(alone.metrics, of(first, alone.metrics.forecast))


def test_ratios_tables_and_figures_name_every_checkpoint() -> None:
    forecasts = {"model": small(4), **NAIVE, "one": small(4, seed=1), "two": small(4)}
    metrics = score(forecasts, Waves("test"), context=4, batch_size=2).metrics
    summary = {**summarise(metrics), "zero_shot": False}
    assert summary["compared"] == ["one", "two"]
    assert summary["one_step_ratio_to_two"] == summary["rollout_ratio_to_two"] == 1
    assert summary["rollout_ratio_to_one"] == pytest.approx(summary["rollout_vrmse"] / summary["one_rollout_vrmse"])
    # Worse or better, a compared checkpoint is no naive forecast.
    best = min(summary["persistence_rollout_vrmse"], summary["extrapolation_rollout_vrmse"])
    assert summary["rollout_ratio"] == pytest.approx(summary["rollout_vrmse"] / best)
    for ahead in ("one_step", "rollout"):
        table = error_table({"waves": summary}, ahead)
        cells = {str(column.header): next(iter(column.cells)) for column in table.columns}
        assert float(cells["one"]) == pytest.approx(summary[f"one_{ahead}_vrmse".replace("one_step_", "")], rel=1e-2)
        assert "1.000" in cells["/two"]
    assert [str(column.header) for column in valid_table({"waves": summary}, 0.5).columns][-3:] == ["one", "two", "of"]
    lines = plot_error_growth(metrics).axes[0].lines
    assert [line.get_label() for line in lines] == list(forecasts)
    assert len({line.get_color() for line in lines}) == len(forecasts)


def test_a_compared_model_sees_the_scales_of_its_own_training() -> None:
    """Its scores are those of being judged alone with them, whatever the data set's are."""
    spec = Waves("test").spec
    own, others = (
        Statistics(torch.zeros(2, 1), torch.full((2,), scale), torch.full((2,), scale / 10)) for scale in (1.0, 3.0)
    )
    model, other = small(1, normalisation="dataset"), small(1, seed=1, normalisation="dataset")
    other.trained_on = TrainedOn(1, {"waves": spec}, {"waves": own})
    adapter = with_statistics(Waves("test"), others)
    scaled = with_own_scales(other, spec)
    together = score({"model": model, **NAIVE, "other": scaled}, adapter, context=1, batch_size=2)
    alone = score({"model": other, **NAIVE}, with_statistics(Waves("test"), own), context=1, batch_size=2)
    found, expected = together.metrics.sel(forecast="other"), alone.metrics.sel(forecast="model")
    for ahead in ("one_step", "rollout"):
        assert np.array_equal(found[ahead], expected[ahead])
    assert not np.allclose(found.one_step, score({"model": other, **NAIVE}, adapter, context=1, batch_size=2)
                           .metrics.sel(forecast="model").one_step)  # fmt: skip
    assert with_own_scales(model, spec) is model


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs on waves, which see two frames and one, as training would leave them but for what they learned."""
    folder = tmp_path_factory.mktemp("runs")
    for name, context, steps in (("tuned", 2, 40), ("scratch", 1, 30)):
        model = small(context, seed=steps, normalisation="context" if name == "tuned" else "none")
        contents = {
            "morph": {
                "model": model.config,
                "context": context,
                "datasets": {"waves": Waves("train").spec.to_dict()},
                "options": {"files": {"waves": "waves.yaml"}},
                "plan": {"data": ["waves"]},
            },
            "state_dict": {f"model.{key}": value for key, value in model.state_dict().items()},
            "global_step": steps,
        }
        (folder / name / "checkpoints").mkdir(parents=True)
        torch.save(contents, folder / name / "checkpoints" / "best.ckpt")
    for name, adapter in (("waves", "Waves"), ("coast", "Coast")):
        text = yaml.safe_dump({"_target_": f"tests.made_up.{adapter}", "batch_size": 4})
        (folder / f"{name}.yaml").write_text(text)
    return folder


def results(path: Path, dataset: str = "waves") -> xr.Dataset:
    with xr.open_dataset(path / "metrics.nc", group=dataset) as metrics:
        return metrics.load()


def test_the_command_judges_them_side_by_side(call: Any, runs: Path) -> None:
    """With an ensemble of each, on a data set with land as well; as each is judged by itself."""
    options = ("data=[waves.yaml,coast.yaml]", "members=3", "perturbation=0.05", "seed=2")
    together = call("morph.evaluate", "checkpoint=tuned", "compare=[scratch]", *options, "run_dir=both", cwd=runs)
    assert together.returncode == 0, together.stderr
    assert "model: 40 optimiser steps, trained on waves; sees 2 frames" in together.stdout
    assert "scratch: 30 optimiser steps, trained on waves; sees 1 frame\n" in together.stdout
    assert "note: scratch and the model differ in the steps of their training" in together.stdout
    assert "/scratch" in together.stdout
    assert "spread" in together.stdout
    figures = {path.name for path in (runs / "both" / "figures").iterdir()}
    assert {"waves_ensemble.png", "coast_ensemble.png", "waves_error.png"} <= figures
    recorded = yaml.safe_load((runs / "both" / "evaluate.yaml").read_text())
    assert recorded["compare"] == {"scratch": "scratch/checkpoints/best.ckpt"}

    alone = call("morph.evaluate", "checkpoint=tuned", *options, "run_dir=alone", "figures=false", cwd=runs)
    assert alone.returncode == 0, alone.stderr
    assert "optimiser steps" not in alone.stdout
    for dataset in ("waves", "coast"):
        both, one = results(runs / "both", dataset), results(runs / "alone", dataset)
        assert both.crps.attrs["members"] == 3
        xr.testing.assert_identical(one, of(both, one.forecast))
        other = both.sel(forecast="scratch")
        assert (other.crps > 0).all()
        assert not np.allclose(other.rollout, both.rollout.sel(forecast="model"))
    summary = json.loads((runs / "both" / "summary.json").read_text())["waves"]
    assert summary["scratch_vrmse"] == pytest.approx(
        float(results(runs / "both").one_step.sel(forecast="scratch", metric="vrmse").mean()), rel=1e-6
    )
    assert summary["one_step_ratio_to_scratch"] == summary["one_step_vrmse"] / summary["scratch_vrmse"]


def test_a_model_compared_with_itself_is_itself(call: Any, runs: Path) -> None:
    done = call(
        "morph.evaluate", "checkpoint=tuned", "compare={again:tuned,first:tuned/checkpoints/best.ckpt}", "dropout=true",
        "members=2", "run_dir=same", "figures=false", "data=waves.yaml", cwd=runs,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "note:" not in done.stdout
    metrics = results(runs / "same")
    for name in ("rollout", "one_step", "valid_time", "crps", "spread", "skill"):
        for other in ("again", "first"):
            assert np.array_equal(metrics[name].sel(forecast=other), metrics[name].sel(forecast="model"))
            assert np.array_equal(metrics.spatial_mean.sel(source=other), metrics.spatial_mean.sel(source="model"))
    summary = json.loads((runs / "same" / "summary.json").read_text())["waves"]
    assert summary["rollout_ratio_to_again"] == summary["crps_ratio_to_first"] == 1
    for of_window in summary["windows"].values():
        assert of_window["again"] == of_window["first"] == of_window["model"]
    rollouts = xr.open_dataset(runs / "same" / "rollout.nc", group="waves")
    assert rollouts.source.values.tolist() == ["truth", "model", "again", "first"]
    assert np.array_equal(rollouts.a.sel(source="again"), rollouts.a.sel(source="model"))


def test_a_model_beside_itself_is_one_and_shares_its_rank(call: Any, runs: Path) -> None:
    done = call(
        "morph.evaluate", "checkpoint=tuned", "compare={again:tuned}", "data=[waves.yaml,coast.yaml]", "figures=false",
        "run_dir=overall", "lead_windows=[1:1,2:5,30:40]", cwd=runs,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "lead_windows: no rollout reaches 30:40, left out" in done.stdout
    assert "Overall: VRMSE over persistence's" in done.stdout
    found = json.loads((runs / "overall" / "overall.json").read_text())
    assert list(found) == ["one_step", "rollout", "1:1", "2:5"]
    for numbers in found.values():
        assert numbers["model"] == numbers["again"]
        assert numbers["persistence"]["ratio_to_persistence"] == {"mean": 1, "low": 1, "high": 1}
        assert sum(one["average_rank"] for one in numbers.values()) == pytest.approx(1 + 2 + 3 + 4)
        assert numbers["model"]["datasets"] == ["waves", "coast"]
    summary = json.loads((runs / "overall" / "summary.json").read_text())
    ratios = [one["windows"]["2:5"]["model"]["vrmse"]["mean"] / one["windows"]["2:5"]["persistence"]["vrmse"]["mean"]
              for one in summary.values()]  # fmt: skip
    ratio = found["2:5"]["model"]["ratio_to_persistence"]
    assert ratio["mean"] == pytest.approx(np.sqrt(np.prod(ratios)), rel=1e-9)
    assert ratio["low"] <= ratio["mean"] <= ratio["high"]


def test_a_context_that_is_asked_for_is_that_of_all(call: Any, runs: Path) -> None:
    """Of two frames, the one that takes one sees the last; of one frame, both see it."""
    done = call(
        "morph.evaluate", "checkpoint=scratch", "compare=[tuned]", "context=1", "run_dir=one", "figures=false", cwd=runs
    )
    assert done.returncode == 0, done.stderr
    assert results(runs / "one").frames_seen.sel(forecast="tuned") == 1


def test_models_of_few_frames_can_start_where_those_of_many_do(call: Any, runs: Path) -> None:
    """The errors of a model are the same beside one that sees more frames and, with the same start, by itself."""
    for where, options in {
        "beside": ("checkpoint=tuned", "compare=[scratch]"),
        "alone": ("checkpoint=scratch", "start=2"),
        "before": ("checkpoint=scratch", "compare=[tuned]", "start=2"),
    }.items():
        done = call("morph.evaluate", *options, f"run_dir={where}", "figures=false", cwd=runs)
        assert done.returncode == 0, done.stderr
    beside, alone, before = (results(runs / where) for where in ("beside", "alone", "before"))
    for name in ("rollout", "one_step"):
        expected = beside[name].sel(forecast=["scratch", "persistence", "extrapolation"]).values
        assert np.array_equal(alone[name].sel(forecast=["model", "persistence", "extrapolation"]).values, expected)
        assert np.array_equal(before[name].sel(forecast="tuned").values, beside[name].sel(forecast="model").values)
    assert alone.frames_seen.sel(forecast="model") == 1
    assert alone.attrs["context_frames"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("compare=[nowhere]",), "compare: there is nothing at nowhere"),
        (("compare=[waves.yaml]",), "compare waves: waves.yaml: it is empty, truncated or no checkpoint"),
        (("compare=[scratch,scratch]",), "are both called 'scratch'; give each its name: compare={a: <path>"),
        (("compare={model:scratch}",), "cannot be called 'model': 'model' is taken in the results"),
        (("compare={a:scratch,a_rollout:scratch}",), "cannot be called 'a_rollout': 'a' is taken in the results"),
        (("compare=[{a:scratch}]",), "expected {name: path} or [path, path], found {'a': 'scratch'} for a path"),
        (
            ("checkpoint=scratch", "compare=[tuned]"),
            "compare tuned: it sees 2 frames, and rollouts start after 1; give start=2, or context=1 for as many",
        ),
        (("start=99",), "frames, and 99 come before the first that is forecast; lower start or context"),
        (("start=1",), "start: expected at least the 2 frames that the model sees, found 1"),
        (("perturbation=0.1",), "perturbation: without effect on a single rollout; give members=16"),
        (("dropout=true", "seed=3"), "dropout, seed: without effect on a single rollout"),
        (("members=0", "perturbation=0.1"), "members: an ensemble has at least 2, found 0"),
        (("members=many",), "option members: expected an integer, found 'many'"),
        (("valid_threshold=0",), "valid_threshold: expected a positive number, found 0"),
        (("lead_windows=[1:2,12:6]",), "lead_windows: expected windows of lead steps, first:last, counted from 1"),
        (("lead_windows=a",), 'such as lead_windows=["1:5","6:12"], found \'a\''),
        (("lead_windows=[0:3]",), "found '0:3'"),
        (("lead_windows=0",), "found 0"),
        (("lead_windows=[1:2,1:2]",), "lead_windows: expected different windows, found 1:2, 1:2"),
    ],
)
def test_what_a_user_can_mend_is_one_line(call: Any, runs: Path, options: tuple[str, ...], message: str) -> None:
    chosen = {option.split("=")[0]: option for option in ("checkpoint=tuned", "run_dir=lost", *options)}
    done = call("morph.evaluate", *chosen.values(), cwd=runs)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert not (runs / "lost").exists()


def test_capacity_and_dropout_of_a_compared_checkpoint_are_named(call: Any, runs: Path) -> None:
    torch.manual_seed(0)
    for name, options in {"narrow": {"capacity": Capacity(1, 3, 2, 16)}, "sure": {"dropout": 0.0}}.items():
        model = Morph(**{"dim": 32, "depth": 1, "heads": 4, "capacity": Capacity(3, 3, 2, 16), **options})
        model.save_pretrained(runs / name)
    lost = call("morph.evaluate", "checkpoint=tuned", "compare=[narrow]", cwd=runs)
    assert "error: compare narrow: data set 'waves' has 2 fields, the model takes at most 1" in lost.stderr
    lost = call("morph.evaluate", "checkpoint=tuned", "compare=[sure]", "members=2", "dropout=true", cwd=runs)
    assert "error: compare sure: dropout: the model has none" in lost.stderr


def test_names_are_those_of_the_runs_folders(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs / "scratch")
    assert list(named(["../tuned", "."])) == ["tuned", "scratch"]
    assert list(named("../tuned/checkpoints/best.ckpt")) == ["tuned"]
    assert list(named({"mine": "../tuned"})) == ["mine"]
    assert named(None) == {}
    with pytest.raises(ValueError, match="cannot be called 'a b': expected letters, digits"):
        named({"a b": "../tuned"})
