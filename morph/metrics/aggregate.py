"""One number of many: over lead times, over trajectories with an interval, and over data sets."""

import numpy as np
from jaxtyping import Bool, Float

__all__ = ["average_rank", "bootstrap_interval", "bootstrap_means", "geometric_mean", "interval", "valid_time"]


def valid_time(
    vrmse: Float[np.ndarray, "*forecasts S"], lead_time: Float[np.ndarray, "S"], threshold: float
) -> tuple[Float[np.ndarray, "*forecasts"], Bool[np.ndarray, "*forecasts"]]:
    """How long rollouts can be trusted: the last lead time before the error first exceeds a threshold.

    It is 0 where the first error exceeds it already, and is not interpolated between frames.  Where no error exceeds it
    the whole length is a lower bound: it is returned, and flagged as censored.  Lead times without data, NaN, are
    skipped; without any data there is no valid time, NaN.  What comes back below the threshold later does not count.

    Args:
        vrmse: Mean over fields; infinite where a forecast is not finite.
        lead_time: In the unit of the result.
        threshold: Positive; 1 is the error of predicting the mean of the true frame.

    Returns:
        Valid times, and whether they are censored.
    """
    known = ~np.isnan(vrmse)
    exceeds = known & (vrmse > threshold)
    before = known & ~np.logical_or.accumulate(exceeds, axis=-1)
    time = np.where(before, lead_time, 0.0).max(-1)
    censored = known.any(-1) & ~exceeds.any(-1)
    time = np.where(censored, lead_time[-1], time)
    return np.where(known.any(-1), time, np.nan), censored


def bootstrap_means(
    values: Float[np.ndarray, "*forecasts n"],
    weights: Float[np.ndarray, "*forecasts n"] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Float[np.ndarray, "*forecasts resamples"]:
    """Weighted means of samples of n that are drawn with replacement; the same ones of every forecast, so that their
    means compare.  A mean is infinite where an infinite value is drawn, and NaN where NaN is drawn, infinities of both
    signs are, or nothing that has a weight.

    Args:
        values: One of each trajectory.
        weights: How many errors each is the mean of; None: the same.
        resamples: How many means.
        seed: Of the draw.
    """
    count = values.shape[-1]
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count))
    # How often each is drawn: of many forecasts, the values that are drawn would not fit into memory.
    times = np.bincount((drawn + count * np.arange(resamples)[:, None]).ravel(), minlength=resamples * count)
    times = times.reshape(resamples, count).T.astype(np.float64)
    if weights is None:
        return _sums(values, times) / count
    held = np.where(weights > 0, values, 0.0)
    with np.errstate(invalid="ignore"):
        return _sums(held * weights, times) / (weights @ times)


def _sums(
    values: Float[np.ndarray, "*forecasts n"], times: Float[np.ndarray, "n resamples"]
) -> Float[np.ndarray, "*forecasts resamples"]:
    """values @ times, where what is not finite counts if it is drawn: 0 times infinity is 0."""
    finite = np.isfinite(values)
    sums = np.where(finite, values, 0.0) @ times
    if finite.all():
        return np.asarray(sums)
    up, down = ((np.isnan(values) | (values == sign * np.inf)) @ times > 0 for sign in (1, -1))
    sums = np.where(up, np.inf, np.where(down, -np.inf, sums))
    return np.where(up & down, np.nan, sums)


def bootstrap_interval(
    values: Float[np.ndarray, "n"],
    weights: Float[np.ndarray, "n"] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap of the (weighted) mean (Efron 1979, doi 10.1214/aos/1176344552): between which two values
    the means of so many samples of n, drawn from the values with replacement, lie with this confidence.

    It knows nothing of values that were not met: of few trajectories it is too narrow, and of one there is none, NaN.

    Args:
        values: One of each trajectory, infinite where a forecast is lost.
        weights: See `bootstrap_means`.
        confidence: Share of the means between low and high.
        resamples: How many means.
        seed: Of the draw.

    Returns:
        low, high.
    """
    if values.shape[-1] < 2:
        return np.nan, np.nan
    return interval(bootstrap_means(values, weights, resamples, seed), confidence)


def interval(means: Float[np.ndarray, "resamples"], confidence: float = 0.95) -> tuple[float, float]:
    """Between which two of the means this share of them lies; NaN, NaN where one of them is NaN or there
    is none."""
    if not len(means) or np.isnan(means).any():
        return np.nan, np.nan
    # One of the values each: between a finite and an infinite one there is nothing.
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(means, ends, method="inverted_cdf")
    return float(low), float(high)


def geometric_mean(values: Float[np.ndarray, "*resamples n"]) -> Float[np.ndarray, "*resamples"]:
    """exp(mean(log x)) over the last axis: of ratios, the one mean for which the mean of inverses is the inverse of the
    mean (Fleming and Wallace 1986, doi 10.1145/5666.5673).  0 where one of the values is 0, infinite where one is
    infinite, NaN where there are both, and NaN of none.

    Raises:
        ValueError: A value is negative.
    """
    if (values < 0).any():
        raise ValueError(f"geometric mean: expected values of at least 0, found {np.nanmin(values):g}")
    if not values.shape[-1]:
        return np.full(values.shape[:-1], np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.exp(np.log(values).mean(-1)))


def average_rank(errors: Float[np.ndarray, "dataset forecast"]) -> Float[np.ndarray, "forecast"]:
    """Mean over data sets of the rank of each forecast, 1 for the lowest error; ties share the mean of their ranks
    (Friedman 1937; Demsar 2006, JMLR 7, section 3.2.2).  Infinite errors tie at the end.

    Raises:
        ValueError: An error is NaN: it has no rank.
    """
    if np.isnan(errors).any():
        raise ValueError("average rank: expected an error of every forecast on every data set, found NaN")
    one, other = errors[:, :, None], errors[:, None, :]
    return ((one > other).sum(-1) + ((one == other).sum(-1) + 1) / 2).mean(0)
