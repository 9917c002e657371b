"""Confidence intervals of accuracies: each says over what it holds."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
"""The confidence level of every interval that is shown."""


def student_t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the two-sided Student t interval of the mean of independent values.

    Over draws of the noise it says how well the mean over all possible noise is known, for this network and
    these clips. Over training seeds it says how well the mean over all possible trainings is known. It says
    nothing about other clips.

    Args:
        values: one number per repetition.
        confidence: probability with which such intervals cover the mean of normally distributed values.

    Returns:
        Lower and upper bound; both NaN for fewer than two values, which show no spread.
    """
    if len(values) < 2:
        return math.nan, math.nan
    mean, error = float(np.mean(values)), float(stats.sem(values))
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * error
    return mean - half, mean + half


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
    z = float(stats.norm.ppf((1 + confidence) / 2))
    shrink = 1 + z * z / trials
    centre = (proportion + z * z / (2 * trials)) / shrink
    half = z / shrink * math.sqrt(proportion * (1 - proportion) / trials + (z / (2 * trials)) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)
