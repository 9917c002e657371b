"""Student t tests of many means at once, and Holm's correction for how many there are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

from asr_dni.evaluation.intervals import CONFIDENCE

Array: TypeAlias = npt.NDArray[np.float64]
Alternative: TypeAlias = Literal["two-sided", "greater"]

ALPHA = 1 - CONFIDENCE
"""Probability of any false alarm in a family of tests."""


@dataclass(frozen=True)
class Tests:
    """Student t tests of means, all arrays of one shape.

    Attributes:
        effect: the means.
        low: lower end of the two-sided 95 % interval; NaN below two values.
        high: its upper end.
        n: how many values there were.
        p: probability of such a mean or a more extreme one if the true one is 0; NaN below two values.
        error: standard error of the mean.
    """

    effect: Array
    low: Array
    high: Array
    n: npt.NDArray[np.int64]
    p: Array
    error: Array

    def upper(self, tests: int) -> Array:
        """Return upper bounds that all hold at once with 95 % probability, for so many tests (Bonferroni)."""
        df = np.maximum(self.n - 1, 1)
        bound = self.effect + stats.t.ppf(1 - ALPHA / max(tests, 1), df) * self.error
        return np.where(self.n >= 2, bound, np.nan)


def student_t_tests(
    values: Array, alternative: Alternative = "two-sided", resolution: float | Array = 0.0
) -> Tests:
    """Test whether means over the last axis differ from 0, or are above it.

    Accuracies are counts of clips, so that a few trainings may by chance differ by exactly the same number. That is no
    proof: a standard deviation below what rounding to whole clips makes, resolution * sqrt(2 / 12) for a difference of
    two accuracies, is taken to be that.

    Args:
        values: ``(..., S)``; NaN where there is none.
        alternative: ``two-sided``, or ``greater`` than 0.
        resolution: smallest step between accuracies, ``(...)`` or one for all.
    """
    values = np.asarray(values, dtype=float)
    n = np.isfinite(values).sum(axis=-1)
    effect = np.where(n > 0, np.nansum(values, axis=-1) / np.maximum(n, 1), np.nan)
    squares = np.nansum((values - effect[..., None]) ** 2, axis=-1)
    deviation = np.maximum(np.sqrt(squares / np.maximum(n - 1, 1)), resolution * math.sqrt(2 / 12))
    tested, df = n >= 2, np.maximum(n - 1, 1)
    error = np.where(tested, deviation / np.sqrt(np.maximum(n, 1)), np.nan)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, df) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where((error == 0) & (effect == 0), 0.0, effect / error)
    p = stats.t.sf(t, df) if alternative == "greater" else 2 * stats.t.sf(np.abs(t), df)
    return Tests(effect, effect - half, effect + half, n, np.where(tested, p, np.nan), error)


def holm(p: Sequence[float] | Array) -> Array:
    """Return p-values corrected by Holm's step-down method (S. Holm, Scand. J. Statist. 6, 1979).

    Whatever depends on whatever, the probability that any true null hypothesis of the family gets a corrected p below
    alpha is at most alpha. NaN, a test that could not be made, is not counted.
    """
    p = np.asarray(p, dtype=float)
    corrected = np.full(p.shape, np.nan)
    made = np.flatnonzero(np.isfinite(p))
    order = made[np.argsort(p[made], kind="stable")]
    stepped = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1.0) if len(order) else []
    return corrected
