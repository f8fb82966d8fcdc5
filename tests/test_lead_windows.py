"""Windows of lead time, and one number over all data sets."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from morph.baselines import NAIVE
from morph.layout import Conditions, Context, State
from morph.lead_windows import lead_windows, overall, window_errors
from morph.scoring import score
from morph.summary import summarise
from morph.tables import overall_table
from tests.made_up import Coast, Waves
from tests.test_scoring import exact, exploding


def damped(context: Context, conditions: Conditions | None = None) -> State:
    """Better than persistence and worse than exact."""
    return 0.9 * exact(context) + 0.1 * context[:, -1]


def judged(adapter: Any = None, **forecasts: Any) -> xr.Dataset:
    forecasts = {"model": damped, **NAIVE, **forecasts}
    return score(forecasts, adapter or Waves("test"), context=4, batch_size=2).metrics


def drawn(errors: np.ndarray, one_step: np.ndarray | None = None) -> xr.Dataset:
    """Metrics whose VRMSE and NRMSE are these (forecast, trajectory, lead_time, field)."""
    count, trajectories = errors.shape[:2]
    one_step = errors[:, :, 0] if one_step is None else one_step
    return xr.Dataset(
        {
            "rollout": (("forecast", "trajectory", "lead_time", "field", "metric"), np.stack([errors] * 2, -1)),
            "one_step": (("forecast", "window", "field", "metric"), np.stack([one_step] * 2, -1)),
            "window_trajectory": ("window", np.arange(trajectories)),
        },
        {"forecast": ["model", "persistence", "other"][:count], "metric": ["vrmse", "nrmse"]},
    )


def test_windows_are_named_as_they_are_given() -> None:
    assert lead_windows(["6:12", "13:30"]) == ("6:12", "13:30")
    assert lead_windows("3:3") == ("3:3",)
    assert lead_windows(None) == lead_windows([]) == ()


def test_windows_tile_the_rollout() -> None:
    """The first step alone is the first lead time; means of 1:3 and 4:8 add up, by their lengths, to the whole."""
    metrics = judged()
    found = window_errors(metrics, ("1:1", "1:3", "4:8", "1:8", "2:9"))
    assert list(found) == ["one_step", "rollout", "1:1", "1:3", "4:8", "1:8"]  # eight steps do not reach the ninth
    summary = summarise(metrics)
    for name in ("model", *NAIVE):
        for metric in ("vrmse", "nrmse"):
            of = {window: numbers[name][metric] for window, numbers in found.items()}
            errors = metrics.rollout.sel(forecast=name, metric=metric)
            assert of["1:1"]["mean"] == pytest.approx(float(errors.isel(lead_time=0).mean()), rel=1e-6)
            assert 3 * of["1:3"]["mean"] + 5 * of["4:8"]["mean"] == pytest.approx(8 * of["rollout"]["mean"], rel=1e-12)
            assert of["1:8"] == of["rollout"]
            for numbers in of.values():
                assert numbers["low"] <= numbers["mean"] <= numbers["high"]
                assert numbers["low"] <= numbers["median"] <= numbers["high"]  # of two trajectories
    assert found["one_step"]["model"]["vrmse"]["mean"] == pytest.approx(summary["one_step_vrmse"], rel=1e-6)
    assert found["rollout"]["model"]["nrmse"]["mean"] == pytest.approx(summary["rollout_nrmse"], rel=1e-6)


def test_means_leave_out_what_holds_no_data_and_weigh_what_does() -> None:
    metrics = judged(Coast("test", spoil=(1, 7)))
    found, summary = window_errors(metrics, ("4:4",)), summarise(metrics)
    assert found["rollout"]["model"]["vrmse"]["mean"] == pytest.approx(summary["rollout_vrmse"], rel=1e-6)
    assert found["one_step"]["persistence"]["vrmse"]["mean"] == pytest.approx(summary["persistence_vrmse"], rel=1e-6)
    # Frame 7, the fourth lead, is missing of one of two trajectories: one is left, without an interval.
    left = metrics.rollout.sel(forecast="model", metric="vrmse", trajectory=0).isel(lead_time=3)
    of_window = found["4:4"]["model"]["vrmse"]
    assert of_window["mean"] == of_window["median"] == pytest.approx(float(left.mean()), rel=1e-6)
    assert of_window["low"] is of_window["high"] is None


def test_a_lost_forecast_has_no_mean_and_the_last_rank() -> None:
    metrics = {"a": judged(lost=exploding), "b": judged(lost=exploding)}
    assert window_errors(metrics["a"], ())["rollout"]["lost"]["vrmse"]["mean"] is None
    lost = overall(metrics, ())["rollout"]["lost"]
    assert lost["ratio_to_persistence"]["mean"] is None
    assert lost["average_rank"] == 4


def test_overall_is_the_geometric_mean_of_ratios_with_ranks() -> None:
    """Ratios of 1/2 and 2 on two data sets, and of 1/8 and 1/2: worked by hand."""
    shape = (3, 4, 6, 1)
    first, second = np.empty(shape), np.empty(shape)
    first[0], first[1], first[2] = 0.5, 1, 0.125
    second[0], second[1], second[2] = 6, 3, 1.5
    found = overall({"one": drawn(first), "two": drawn(second)}, ("2:6", "2:7"))
    assert list(found) == ["one_step", "rollout", "2:6"]
    for of_window in found.values():
        ratios = {name: numbers["ratio_to_persistence"] for name, numbers in of_window.items()}
        # Errors that are alike in all trajectories have no spread.
        for name, expected in {"model": 1.0, "persistence": 1.0, "other": 0.25}.items():
            assert list(ratios[name].values()) == pytest.approx([expected] * 3, rel=1e-12)
        assert {name: numbers["average_rank"] for name, numbers in of_window.items()} == {
            "model": 2.5, "persistence": 2.5, "other": 1.0,
        }  # fmt: skip


def test_the_interval_is_paired() -> None:
    """A forecast that is half as wrong as persistence on every trajectory is so in every draw."""
    errors = np.random.default_rng(0).uniform(0.1, 5, (1, 9, 6, 2))
    found = overall({"one": drawn(np.concatenate((errors / 2, errors, errors[:, ::-1])))}, ())["rollout"]
    assert list(found["model"]["ratio_to_persistence"].values()) == pytest.approx([0.5] * 3, rel=1e-12)
    other = found["other"]["ratio_to_persistence"]
    assert other["mean"] == pytest.approx(1, rel=1e-12)
    assert other["low"] < 0.9 < 1.1 < other["high"]
    assert found["model"]["average_rank"] is None  # of one data set


def test_draws_in_which_persistence_is_exact_are_left_out() -> None:
    """Of three trajectories persistence errs on two: with them in every draw, ratios of 1/2 are 1/2 in every one."""
    errors = np.ones((3, 3, 6, 1)) * np.array([0.0, 1.0, 3.0])[:, None, None]
    errors[0] /= 2
    errors[2] = 1
    plain = np.ones((3, 4, 6, 1))
    for metrics in ({"one": drawn(errors)}, {"one": drawn(errors), "two": drawn(plain)}):
        found = {name: of["ratio_to_persistence"] for name, of in overall(metrics, ())["rollout"].items()}
        assert list(found["persistence"].values()) == [1, 1, 1]
        root = 1 / len(metrics)
        model = 0.5**root
        assert list(found["model"].values()) == pytest.approx([model] * 3, rel=1e-12)
        # From three draws of the error 3 to one of the error 1 and two of 0.
        other = [found["other"][key] for key in ("mean", "low", "high")]
        assert other == pytest.approx([(3 / 4) ** root, (1 / 3) ** root, 3**root], rel=1e-12)
    lost = errors.copy()
    lost[0, 0] = np.inf  # where persistence is exact
    assert overall({"one": drawn(lost)}, ())["rollout"]["persistence"]["ratio_to_persistence"]["high"] == 1
    # With an error on one trajectory alone, no draw is left of so many data sets.
    errors[:, 1] = 0
    none = overall({str(i): drawn(errors) for i in range(60)}, ())["rollout"]["model"]["ratio_to_persistence"]
    assert none["low"] is none["high"] is None
    assert none["mean"] == pytest.approx(0.5, rel=1e-12)


def test_a_data_set_without_a_ratio_or_too_short_is_not_counted() -> None:
    errors = np.random.default_rng(0).uniform(1, 2, (2, 3, 6, 1))
    still = errors.copy()
    still[1] = 0  # persistence is exact
    metrics = {"whole": drawn(errors), "still": drawn(still), "short": drawn(errors[:, :, :2])}
    found = overall(metrics, ("3:6",))
    assert found["one_step"]["model"]["datasets"] == ["whole", "short"]
    assert found["3:6"]["model"]["datasets"] == ["whole"]
    table = overall_table(found, 3, ["7:9"])
    assert [str(column.header) for column in table.columns][-3] == "3:6 (1 of 3)"
    assert "no rollout reaches 7:9" in str(table.caption)
    assert overall({"still": drawn(still)}, ()) == {}
    assert overall_table({}, 1).row_count == 0
