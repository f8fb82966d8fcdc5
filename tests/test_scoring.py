"""Scores are what the definitions say, and an unstable rollout is not hidden."""

import numpy as np
import pytest
import torch
import xarray as xr

from morph import truth
from morph.baselines import NAIVE
from morph.figures import plot_error_growth, plot_overview, plot_rollout, png
from morph.layout import Conditions, Context, State
from morph.metrics import valid_time
from morph.scoring import Scores, score, work
from morph.summary import summarise
from morph.tables import error_table, valid_table
from tests.made_up import Coast, Waves

STEPS = 8


def exact(context: Context, conditions: Conditions | None = None) -> State:
    """The next frame of any superposition of two travelling waves of known speed: a rotation of the Fourier modes."""
    modes = torch.fft.rfft(context[:, -1])
    shift = torch.tensor([0.5, -1.0]).view(1, 2, 1, 1, 1, 1) * 0.1
    wave = torch.arange(modes.shape[-1])
    return torch.fft.irfft(modes * torch.exp(-2j * torch.pi * wave * shift), n=context.shape[-1])


def exploding(context: Context, conditions: Conditions | None = None) -> State:
    return context[:, -1] * 1e6


def judged(model: object, **options: object) -> Scores:
    adapter = Waves("test")
    return score({"model": model, **NAIVE}, adapter, **{"context": 4, "batch_size": 1, **options})


def test_an_exact_forecast_has_no_error_at_any_lead_time() -> None:
    metrics = judged(exact).metrics.sel(metric="vrmse")
    assert metrics.rollout.sizes == {"forecast": 3, "trajectory": 2, "lead_time": STEPS, "field": 2}
    assert float(metrics.rollout.sel(forecast="model").max()) < 1e-4
    assert float(metrics.one_step.sel(forecast="model").max()) < 1e-4
    assert np.allclose(metrics.lead_time, 0.1 * np.arange(1, STEPS + 1))


def test_persistence_of_a_travelling_wave_is_known_exactly() -> None:
    """<(sin(a) - sin(a - s))^2> = 1 - cos(s), var(sin) = 1/2 N / (N - 1)."""
    errors = judged(exact).metrics.rollout.sel(forecast="persistence", metric="vrmse")
    lead = np.arange(1, STEPS + 1) * 0.1
    for field, speed in {"a": 0.5, "b": -1.0}.items():
        expected = np.sqrt((1 - np.cos(2 * np.pi * speed * lead)) / (0.5 * 32 / 31))
        assert np.allclose(errors.sel(field=field), expected, atol=1e-3)


def test_rollouts_carry_the_coordinates_of_the_data() -> None:
    rollouts = judged(exact).rollouts
    assert rollouts.a.dims == ("source", "trajectory", "time", "x")
    assert np.allclose(rollouts.time, 0.1 * np.arange(4, 12))
    truth = Waves("test").read(1, 4, 12)[:, 1, 0, 0, 0]
    assert np.array_equal(rollouts.b.sel(source="truth", trajectory=1), truth)
    assert np.allclose(rollouts.b.sel(source="model", trajectory=1), truth, atol=1e-4)


def test_batches_and_limits_do_not_change_the_scores() -> None:
    one, two = judged(exact), judged(exact, batch_size=2)
    xr.testing.assert_allclose(one.metrics, two.metrics, atol=1e-5)
    short = judged(exact, steps=3, one_step_windows=5)
    assert short.metrics.sizes["window"] == 5
    xr.testing.assert_allclose(short.metrics.rollout, one.metrics.rollout.isel(lead_time=slice(3)), atol=1e-5)


def test_what_is_defined_beside_land_is_found_once_for_all_forecasts(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, every_metric = [], truth.every_metric
    monkeypatch.setattr(truth, "every_metric", lambda *args: calls.append(args) or every_metric(*args))
    for others in ({}, NAIVE):
        calls.clear()
        score({"model": exact, **others}, Coast("test"), context=4, batch_size=2)
        frames = STEPS + STEPS  # two trajectories at a time, and of sixteen windows two
        assert len(calls) == frames * (1 + 1 + len(others))


def test_progress_adds_up() -> None:
    done = []
    judged(exact, advance=done.append, one_step_windows=5)
    assert sum(done) == work(Waves("test"), 4, None, 5)


def test_an_unstable_rollout_is_reported_with_its_onset() -> None:
    metrics = judged(exploding).metrics
    assert np.allclose(metrics.unstable_from.sel(forecast="model"), 0.1)
    assert metrics.unstable_from.sel(forecast="persistence").isnull().all()
    summary = summarise(metrics)
    assert summary["unstable"] == summary["trajectories"] == 2
    # 1e6^8 is beyond float32.
    assert summary["rollout_vrmse"] is None
    assert summary["rollout_ratio"] is None
    table = error_table({"waves": {**summary, "zero_shot": True}}, "rollout")
    assert list(table.columns[1].cells) == ["inf"]
    assert "2/2" in next(iter(table.columns[-1].cells))


LOST = np.inf
GAP = np.nan


@pytest.mark.parametrize(
    ("errors", "time", "censored"),
    [
        ([0.1, 0.2, 0.3, 0.4], 2.0, True),
        ([0.1, 0.5, 0.6, 0.7], 1.0, False),  # at the threshold, it is not exceeded
        ([0.6, 0.1, 0.1, 0.1], 0.0, False),
        ([0.1, 0.6, 0.1, 0.1], 0.5, False),  # what comes back does not count
        ([0.1, LOST, LOST, LOST], 0.5, False),
        ([0.1, GAP, 0.2, 0.6], 1.5, False),
        ([0.1, GAP, 0.6, 0.6], 0.5, False),
        ([GAP, 0.6, 0.1, 0.1], 0.0, False),
        ([0.1, 0.2, 0.3, GAP], 2.0, True),
        ([GAP, GAP, GAP, GAP], GAP, False),
    ],
)
def test_valid_time(errors: list[float], time: float, censored: bool) -> None:
    lead = np.array([0.5, 1.0, 1.5, 2.0])
    found = valid_time(np.array([[errors, [9.0] * 4]]), lead, 0.5)
    assert np.array_equal(found[0], [[time, 0.0]], equal_nan=True)
    assert np.array_equal(found[1], [[censored, False]])


def test_valid_time_of_rollouts_is_that_of_their_mean_over_fields() -> None:
    """Errors of persistence, sqrt((1 - cos(2 pi c t)) 31 / 16), are 0.31 and 0.61 at t = 0.1, 0.61 and 1.16 at 0.2."""
    metrics = judged(exact, valid_threshold=0.7).metrics
    assert np.allclose(metrics.valid_time.sel(forecast="persistence"), 0.1)
    assert np.allclose(metrics.valid_time.sel(forecast="model"), 0.8)
    assert metrics.valid_time_censored.sel(forecast="model").all()
    assert not metrics.valid_time_censored.sel(forecast="persistence").any()
    summary = {**summarise(metrics), "zero_shot": False}
    assert summary["valid_time"] == pytest.approx(0.8)
    assert summary["persistence_valid_time"] == pytest.approx(0.1)
    assert (summary["valid_time_censored"], summary["persistence_valid_time_censored"]) == (2, 0)
    table = valid_table({"waves": summary}, 0.7)
    assert [next(iter(column.cells)) for column in table.columns][:3] == ["waves", "[bold]≥0.8[/bold]", "0.1"]
    assert "until the end" in str(table.caption)


def test_the_ratio_is_to_the_better_naive_forecast() -> None:
    summary = summarise(judged(NAIVE["persistence"]).metrics)
    assert summary["one_step_vrmse"] == summary["persistence_vrmse"]
    best = min(summary["persistence_vrmse"], summary["extrapolation_vrmse"])
    assert summary["one_step_ratio"] == pytest.approx(summary["persistence_vrmse"] / best)
    assert summary["extrapolation_vrmse"] < summary["persistence_vrmse"]


def test_steps_beyond_the_data_are_refused() -> None:
    with pytest.raises(ValueError, match=r"12 frames; after 4 frames 8 remain .* found steps=9"):
        judged(exact, steps=9)


@pytest.mark.parametrize("axes", [("x",), ("x", "y"), ("x", "y", "z")])
def test_figures_show_truth_prediction_and_error(axes: tuple[str, ...]) -> None:
    shape = (2, 1, 3, *(4 + i for i in range(len(axes))))
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    values[1, 0, 2] = np.nan  # a forecast that is lost must not lose the figure
    rollouts = xr.Dataset(
        {"u": (("source", "trajectory", "time", *axes), values, {"long_name": "u", "units": "m/s", "field": "u"})},
        {"source": ["truth", "model"], "trajectory": [0], "time": [0.1, 0.2, 0.3]}
        | {axis: np.arange(4.0 + i) for i, axis in enumerate(axes)},
    )
    figure = plot_rollout(rollouts)
    panels = [ax for ax in figure.axes if ax.collections and ax.get_label() != "<colorbar>"]
    assert len(panels) == (3 if len(axes) == 1 else 9)
    shown = [panel.collections[0].get_array() for panel in panels]
    first = values[0, 0] if len(axes) == 1 else values[0, 0, 0] if len(axes) == 2 else values[0, 0, 0, 2]
    assert np.array_equal(np.asarray(shown[0]).reshape(first.shape), first)


def test_overview_and_error_growth_survive_what_is_not_finite() -> None:
    metrics = judged(exploding).metrics
    figure = plot_error_growth(metrics)
    assert "2 of 2 rollouts unstable" in figure.axes[0].get_title()
    assert len(plot_overview({"waves": summarise(metrics)}).axes[0].patches) == 2


def test_a_picture_of_nothing_but_land_is_drawn() -> None:
    nothing = np.full((2, 1, 2, 3, 3), np.nan, dtype=np.float32)
    rollouts = xr.Dataset(
        {"u": (("source", "trajectory", "time", "x", "y"), nothing, {"long_name": "u", "units": "", "field": "u"})},
        {"source": ["truth", "model"], "trajectory": [0], "time": [0.1, 0.2], "x": np.arange(3.0), "y": np.arange(3.0)},
    )
    assert png(plot_rollout(rollouts))
