"""The tests and intervals of a study: of means over seeds, the correction for how many there are, and their power.

Everything that a study shows, table, sentence, figure or page, takes its tests and intervals from here, once.

What is tested
    A seed gives one training of each kind, with the same initial weights and order of clips, so that trainings are
    compared by the differences within seeds: a paired Student t test (Student, Biometrika 6, 1908). The repetitions are
    trainings. All are measured on the same clips, whose luck they share and which does not average out over seeds: a
    test says what other trainings would give *on these clips*, and nothing about other clips.

Few seeds
    The t distribution holds for any number of normally distributed differences. Accuracies are counts of clips,
    though, and of so few numbers several are by chance the same. Below :data:`MIN_SEEDS` nothing is tested and no
    interval is given: one number has no spread, and the spread of two says next to nothing (their interval is 12.7
    standard errors to each side, up to hundreds of points) or, where they happen to be equal, far too much.

The floor
    Where the values differ by less than counting in whole clips makes, their own deviation is not believed: at least
    that of the counting is taken, which for an accuracy is ``1 / (n_clips sqrt(12))`` (W. F. Sheppard, Proc. London
    Math. Soc. 29, 1898), see :attr:`asr_dni.study.matrix.Matrix.counting`. Accuracies of different networks are counted
    independently: squares add up. Those of one network at several levels may be right and wrong in the same clips: the
    deviations themselves add up. For the same reason the number of draws does not divide it: clean inference is one
    pass, however many draws the other levels have, and draws of weak noise are nearly one pass, so that their mean
    moves in whole clips as well. For 3 to 10 seeds and differences in whole clips, rounded from a normal distribution
    of any deviation, p is at most alpha in at most 1.1 alpha of all cases, alpha being anything from 0.0005 (what is
    left of 0.05 among a hundred tests) to 0.05. Divided by ten draws the floor would let pass up to 14 times as many.
    In the studies that were run trainings differ by five clips and more, where it changes nothing.

Many tests
    :func:`holm` holds the probability of any false alarm in a family, however its tests depend on each other.

What it rests on
    The differences have to be roughly symmetric. No test of a mean holds for all distributions (R. R. Bahadur and L. J.
    Savage, Ann. Math. Statist. 27, 1956): where one training in ten fails entirely, nine that all gained one clip would
    pass for proof. A test that needs symmetry alone, by flipping signs, cannot reach p < 0.05 with five seeds at all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from asr_dni.evaluation.curves.intervals import CONFIDENCE, FEWEST_SEEDS

Array: TypeAlias = npt.NDArray[np.float64]
Alternative: TypeAlias = Literal["two-sided", "greater"]

ALPHA = 1 - CONFIDENCE
"""Probability of any false alarm in a family of tests."""

MIN_SEEDS = FEWEST_SEEDS
"""Seeds below which nothing is tested and no interval is given."""

TOO_FEW_SEEDS = f"too few seeds for an interval ({MIN_SEEDS} are needed)"
"""What stands in place of an interval."""


@dataclass(frozen=True)
class Tests:
    """Student t tests of means, all arrays of one shape.

    Attributes:
        effect: the means.
        low: lower end of the two-sided 95 % interval; NaN below :data:`MIN_SEEDS` values.
        high: its upper end.
        n: how many values there were.
        p: probability of such a mean or a more extreme one if the true one is 0; NaN below :data:`MIN_SEEDS` values.
        error: standard error of the mean; NaN below :data:`MIN_SEEDS` values.
        alternative: what was tested for.
    """

    effect: Array
    low: Array
    high: Array
    n: npt.NDArray[np.int64]
    p: Array
    error: Array
    alternative: Alternative = "two-sided"

    def detectable(self, tests: int) -> Array:
        """Return the true means that would have been found with 80 % probability, for so many tests.

        See :func:`detectable_effect`, at the deviation that was found; NaN below :data:`MIN_SEEDS` values.
        """
        multiples = {
            n: detectable_effect(n, max(tests, 1), alternative=self.alternative) for n in set(self.n.flat)
        }
        factor = np.vectorize(multiples.__getitem__, otypes=[float])(self.n) if self.n.size else self.error
        found: Array = np.where(np.isnan(self.error), np.nan, factor * self.error * np.sqrt(self.n))
        return found

    def upper(self, tests: int) -> Array:
        """Return upper bounds that all hold at once with 95 % probability, for so many tests (Bonferroni)."""
        df = np.maximum(self.n - 1, 1)
        bound: Array = self.effect + stats.t.ppf(1 - ALPHA / max(tests, 1), df) * self.error
        return bound


def student_t_tests(values: Array, counting: float | Array, alternative: Alternative = "two-sided") -> Tests:
    """Test whether means over the last axis differ from 0, or are above it; the module says how, and why so.

    Args:
        values: a number per seed, ``(..., S)``; NaN where there is none.
        counting: the deviation that counting in whole clips makes of one value, ``(...)`` or one for all, the
            values' own is taken to be at least that.
        alternative: ``two-sided``, or ``greater`` than 0.
    """
    values = np.asarray(values, dtype=float)
    n = np.isfinite(values).sum(axis=-1)
    effect = np.where(n > 0, np.nansum(values, axis=-1) / np.maximum(n, 1), np.nan)
    squares = np.nansum((values - effect[..., None]) ** 2, axis=-1)
    deviation = np.maximum(np.sqrt(squares / np.maximum(n - 1, 1)), counting)
    df = np.maximum(n - 1, 1)
    error = np.where(n >= MIN_SEEDS, deviation / np.sqrt(np.maximum(n, 1)), np.nan)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, df) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where((error == 0) & (effect == 0), 0.0, effect / error)
    p = stats.t.sf(t, df) if alternative == "greater" else 2 * stats.t.sf(np.abs(t), df)
    return Tests(
        effect, effect - half, effect + half, n, np.where(np.isnan(error), np.nan, p), error, alternative
    )


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


def some_other_is_better(values: Array, counting: float) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return for each of several candidates the corrected p-value of "some other has a larger mean".

    One-sided paired t tests against all rivals, corrected over them (Bonferroni). Those with p of at least
    :data:`ALPHA` together hold the truly best candidate with 95 % probability, however many there are and although the
    data say which looks best (S. S. Gupta, Technometrics 7, 1965).

    Args:
        values: ``(T, S)``, of T candidates for S seeds; NaN where there is none.
        counting: see :func:`student_t_tests`, of one value.

    Returns:
        p ``(T,)``, NaN where none could be tested, and against how many rivals it was.
    """
    # [i, j]: is j better than i?
    p = student_t_tests(values[None] - values[:, None], counting * math.sqrt(2), "greater").p
    np.fill_diagonal(p, np.nan)
    made = np.isfinite(p).sum(axis=1)
    smallest = np.min(np.where(np.isfinite(p), p, 1.0), axis=1)
    return np.where(made > 0, np.minimum(smallest * made, 1.0), np.nan), made


@lru_cache(maxsize=1024)
def detectable_effect(
    n: int, tests: int = 1, power: float = 0.8, alternative: Alternative = "two-sided"
) -> float:
    """Return the true mean that such a test finds with a given probability, in multiples of the values' deviation.

    By the noncentral t distribution, with Bonferroni's level for the smallest p of a family; Holm's method finds no
    less.

    Args:
        n: values, one per seed.
        tests: how many tests there are in the family.
        power: probability of finding it.
        alternative: see :func:`student_t_tests`.

    Returns:
        The multiple; inf below :data:`MIN_SEEDS` values.
    """
    if n < MIN_SEEDS:
        return math.inf
    level = ALPHA / tests / (2 if alternative == "two-sided" else 1)
    critical = float(stats.t.ppf(1 - level, n - 1))
    root = math.sqrt(n)

    def missing(effect: float) -> float:
        return float(stats.nct.sf(critical, n - 1, effect * root)) - power

    return float(optimize.brentq(missing, 0.0, 10 * critical / root))
