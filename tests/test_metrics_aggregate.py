"""Intervals, geometric means and ranks of numbers whose answers are known."""

import tracemalloc

import numpy as np
import pytest

from morph.metrics import average_rank, bootstrap_interval, geometric_mean
from morph.metrics.aggregate import bootstrap_means


def test_the_bootstrap_of_two_values_is_known() -> None:
    """Means of two draws from 0 and 1 are 0, 1/2 and 1, with weights 1/4, 1/2 and 1/4."""
    means = bootstrap_means(np.array([0.0, 1.0]), resamples=20000)
    shares = [float((means == value).mean()) for value in (0, 0.5, 1)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.015)
    assert bootstrap_interval(np.array([0.0, 1.0])) == (0, 1)
    assert bootstrap_interval(np.array([0.0, 1.0]), confidence=0.4) == (0.5, 0.5)


def test_the_interval_is_that_of_the_central_limit() -> None:
    """Of many values, mean +- 1.96 std / sqrt(n); it scales and shifts with them."""
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.06 * half)
    assert bootstrap_interval(5 * values - 1) == pytest.approx((5 * low - 1, 5 * high - 1), rel=1e-12)
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval(values, seed=1) != (low, high)
    assert bootstrap_interval(np.full(7, 0.3)) == pytest.approx((0.3, 0.3), rel=1e-15)


def test_an_interval_weighs_trajectories_by_their_errors_and_one_alone_has_none() -> None:
    values, weights = np.array([1.0, 3.0, 8.0]), np.array([2.0, 2.0, 0.0])
    low, high = bootstrap_interval(values[:2], weights[:2])
    assert (low, high) == bootstrap_interval(values[:2]) == (1, 3)
    assert np.isnan(bootstrap_interval(values[:1])).all()
    drawn = bootstrap_means(np.array([[1.0, 3.0], [2.0, 6.0]]), np.array([[1.0, 3.0], [1.0, 3.0]]))
    assert np.allclose(drawn[1], 2 * drawn[0], rtol=1e-14)  # the same trajectories for both
    assert set(np.round(drawn[0], 12)) == {1.0, 2.5, 3.0}


def test_a_lost_trajectory_shows_in_the_interval() -> None:
    low, high = bootstrap_interval(np.array([1.0, 1.0, 1.0, 1.0, 1.0, np.inf]))
    assert (low, high) == (1, np.inf)


@pytest.mark.parametrize("weighted", [False, True])
def test_means_are_those_of_the_values_that_are_drawn(weighted: bool) -> None:
    """Written out: each sample gathered, whether finite or not."""
    rng = np.random.default_rng(3)
    values = rng.lognormal(size=(3, 4, 9))
    values[0, 1, 2], values[0, 2, 5], values[1, 0, 3:5], values[2, 3, 8] = np.inf, np.nan, [np.inf, np.nan], -np.inf
    values[2, 2, :2] = np.inf, -np.inf
    weights = rng.integers(0, 4, values.shape).astype(np.float64) if weighted else np.ones_like(values)
    drawn = np.random.default_rng(7).integers(9, size=(500, 9))
    held = np.where(weights > 0, values, 0.0)
    with np.errstate(invalid="ignore"):
        expected = (held * weights)[..., drawn].sum(-1) / weights[..., drawn].sum(-1)
    found = bootstrap_means(values, weights if weighted else None, resamples=500, seed=7)
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    assert all(kind(expected).any() for kind in (np.isnan, np.isposinf, np.isneginf, np.isfinite))


def test_means_of_many_forecasts_fit_into_memory() -> None:
    """Of 1000 trajectories and 190 leads, the values that are drawn would take 3 GB."""
    values = np.random.default_rng(0).uniform(size=(190, 1000))
    tracemalloc.start()
    try:
        means = bootstrap_means(values)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert means.shape == (190, 2000)
    assert peak < 1e8


def test_geometric_mean() -> None:
    assert geometric_mean(np.array([0.25, 4.0])) == pytest.approx(1, rel=1e-15)
    assert geometric_mean(np.array([1.0, 2.0, 4.0])) == pytest.approx(2, rel=1e-15)
    ratios = np.random.default_rng(0).uniform(0.1, 3, (3, 7))
    assert np.allclose(geometric_mean(1 / ratios), 1 / geometric_mean(ratios), rtol=1e-14)
    assert geometric_mean(np.array([0.0, 5.0])) == 0
    assert geometric_mean(np.array([1.0, np.inf])) == np.inf
    assert np.isnan(geometric_mean(np.array([0.0, np.inf])))
    assert np.isnan(geometric_mean(np.array([])))
    with pytest.raises(ValueError, match="expected values of at least 0, found -2"):
        geometric_mean(np.array([1.0, -2.0]))


def test_average_rank() -> None:
    """Three forecasts on three data sets: in order, with a tie for the first place, and with two that are lost."""
    errors = np.array([[0.1, 0.2, 0.3], [0.2, 0.2, 0.5], [0.7, np.inf, np.inf]])
    assert average_rank(errors).tolist() == pytest.approx([(1 + 1.5 + 1) / 3, (2 + 1.5 + 2.5) / 3, (3 + 3 + 2.5) / 3])
    assert average_rank(errors).sum() == pytest.approx(6)  # 1 + 2 + 3, whatever ties
    assert average_rank(np.ones((4, 5))).tolist() == [3.0] * 5
    with pytest.raises(ValueError, match="found NaN"):
        average_rank(np.array([[1.0, np.nan]]))
