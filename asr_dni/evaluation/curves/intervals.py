"""Confidence intervals of accuracies: each says over what it holds."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import stats

_Values = npt.NDArray[np.float64]

CONFIDENCE = 0.95
"""The confidence level of every interval that is shown."""

FEWEST_SEEDS = 3
"""Of which an interval is shown: that of two is as wide as everything, by their one difference."""


def student_t_interval(
    values: Sequence[float], confidence: float = CONFIDENCE, least_deviation: float = 0.0
) -> tuple[float, float]:
    """Return the two-sided Student t interval of the mean of independent values.

    Over draws of the noise it says how well the mean over all possible noise is known, for this network and
    these clips. Over training seeds it says how well the mean over all possible trainings is known. It says
    nothing about other clips.

    Args:
        values: one number per repetition.
        confidence: probability with which such intervals cover the mean of normally distributed values.
        least_deviation: what the standard deviation of a value is at least, such as that of :func:`counting_deviation`:
            of few values, counts of whole clips, several are by chance the same.

    Returns:
        Lower and upper bound; both NaN for fewer than two values, which show no spread.
    """
    low, high = student_t_intervals(np.asarray([values], dtype=float), confidence, least_deviation)
    return float(low[0]), float(high[0])


def student_t_intervals(
    values: _Values, confidence: float = CONFIDENCE, least_deviation: float | _Values = 0.0
) -> tuple[_Values, _Values]:
    """Return lower and upper bounds (rows) of :func:`student_t_interval` of each row of values (rows, repetitions)."""
    rows, repetitions = values.shape
    if repetitions < 2:
        return np.full(rows, np.nan), np.full(rows, np.nan)
    mean = values.mean(axis=1)
    deviation = np.maximum(values.std(axis=1, ddof=1), least_deviation)
    half = _t_quantile(confidence, repetitions - 1) * deviation / math.sqrt(repetitions)
    return mean - half, mean + half


@lru_cache(maxsize=256)
def _t_quantile(confidence: float, freedom: int) -> float:
    return float(stats.t.ppf((1 + confidence) / 2, freedom))


@lru_cache(maxsize=16)
def _normal_quantile(confidence: float) -> float:
    return float(stats.norm.ppf((1 + confidence) / 2))


def welch_interval(
    values: Sequence[float],
    others: Sequence[float],
    confidence: float = CONFIDENCE,
    least_deviation: float = 0.0,
) -> tuple[float, float]:
    """Return the interval of the difference of two means of independent values (B. L. Welch, Biometrika 34, 1947).

    Args:
        values: one number per repetition.
        others: the same of what is subtracted; as many, or more or fewer.
        confidence: probability with which such intervals cover the difference, of normally distributed values.
        least_deviation: see :func:`student_t_interval`.

    Returns:
        Lower and upper bound of mean(values) - mean(others); both NaN where either has fewer than two values.
    """
    if min(len(values), len(others)) < 2:
        return math.nan, math.nan
    difference = float(np.mean(values)) - float(np.mean(others))
    variances = [max(float(np.std(own, ddof=1)), least_deviation) ** 2 / len(own) for own in (values, others)]
    error = math.sqrt(sum(variances))
    if error == 0:
        return difference, difference
    # The number of degrees of freedom is that of Welch and Satterthwaite.
    spread = sum(
        variance**2 / (len(own) - 1) for variance, own in zip(variances, (values, others), strict=True)
    )
    half = float(stats.t.ppf((1 + confidence) / 2, error**4 / spread)) * error
    return difference - half, difference + half


def counting_deviation(n_clips: int) -> float:
    """Return the standard deviation that counting in whole clips makes of an accuracy: 1 / (n sqrt(12)).

    It is that of rounding to multiples of 1 / n (W. F. Sheppard, Proc. London Math. Soc. 29, 1898).
    """
    return 1 / (n_clips * math.sqrt(12))


def newcombe_interval(
    proportion: float,
    bounds: tuple[float, float],
    other: float,
    other_bounds: tuple[float, float],
) -> tuple[float, float]:
    """Return the interval of a difference of two proportions from their Wilson intervals.

    It is the hybrid score interval, method 10 of R. G. Newcombe, Statistics in Medicine 17 (1998) 873, for proportions
    of independent trials. Accuracies of two networks on the same clips are not independent: both are right where a clip
    is easy. Their difference varies less then, and the interval is on the wide side.

    Args:
        proportion: observed share of successes.
        bounds: its Wilson interval, see :func:`wilson_interval`.
        other: that of what is subtracted.
        other_bounds: its interval.

    Returns:
        Lower and upper bound of ``proportion - other``, within [-1, 1].
    """
    difference = proportion - other
    below = math.hypot(proportion - bounds[0], other_bounds[1] - other)
    above = math.hypot(bounds[1] - proportion, other - other_bounds[0])
    return difference - below, difference + above


def wilson_interval(proportion: float, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (E. B. Wilson, JASA 22, 1927).

    For an accuracy it says how well the accuracy on all clips of this kind is known from ``trials`` of them, clips
    being drawn independently. It holds for the mean accuracy of D draws of the noise too, with draws and clips both
    anew: where clip i is right with probability p_i, the variance of that mean is
    (Var p_i + E[p_i (1 - p_i)] / D) / n, by the law of total variance, and this is at most that of one draw,
    p (1 - p) / n, which the interval assumes; equal without noise, where p_i is 0 or 1. With noise it is on the wide
    side.
    ``scipy.stats.binomtest`` has the same interval for whole numbers of successes, which an average over draws does
    not have.

    Args:
        proportion: observed share of successes, 0 to 1.
        trials: number of clips, at least 1.
        confidence: probability with which such intervals cover the true proportion.

    Returns:
        Lower and upper bound, within [0, 1].
    """
    low, high = wilson_intervals(
        np.asarray([proportion], dtype=float), np.asarray([trials], dtype=float), confidence
    )
    return float(low[0]), float(high[0])


def wilson_intervals(
    proportions: _Values, trials: _Values, confidence: float = CONFIDENCE
) -> tuple[_Values, _Values]:
    """Return :func:`wilson_interval` of each of many proportions: lower and upper bounds, of their shape."""
    z = _normal_quantile(confidence)
    shrink = 1 + z * z / trials
    centre = (proportions + z * z / (2 * trials)) / shrink
    half = z / shrink * np.sqrt(proportions * (1 - proportions) / trials + (z / (2 * trials)) ** 2)
    return np.maximum(0.0, centre - half), np.minimum(1.0, centre + half)
