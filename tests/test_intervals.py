import math

import numpy as np
import pytest
from scipy import stats

from asr_dni.evaluation.curves.intervals import student_t_interval, wilson_interval


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (7, 10), (845, 845), (776, 845), (1, 1)])
def test_wilson_interval_is_scipys_for_whole_numbers(successes, trials):
    expected = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson_interval(successes / trials, trials) == pytest.approx(tuple(expected), abs=1e-12)


def test_student_t_interval_is_scipys():
    values = [0.91, 0.93, 0.90, 0.925]
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert student_t_interval(values) == pytest.approx(expected)


def test_student_t_interval_of_three_seeds_by_hand():
    # Mean 0.92, standard deviation 0.01, t(0.975; 2) = 4.302653 from printed tables.
    low, high = student_t_interval([0.91, 0.92, 0.93])
    assert (low, high) == pytest.approx((0.92 - 4.302653 * 0.01 / 3**0.5, 0.92 + 4.302653 * 0.01 / 3**0.5))


def test_two_values_have_the_widest_interval():
    # t(0.975; 1) = 12.7062 from printed tables; the standard error of two values is half their difference.
    half = 12.7062 * 0.05
    assert student_t_interval([0.8, 0.9]) == pytest.approx((0.85 - half, 0.85 + half), abs=1e-5)


def test_equal_values_have_an_interval_without_width():
    assert student_t_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)


def test_one_value_has_no_interval():
    assert all(math.isnan(bound) for bound in student_t_interval([0.5]))


def test_student_t_interval_covers_the_mean_in_95_of_100_cases():
    numbers = np.random.default_rng(0).normal(size=(4000, 5))
    covered = sum(low <= 0 <= high for low, high in map(student_t_interval, numbers))
    # Binomial with 4000 trials: outside four standard deviations about once in 16,000 correct programs.
    assert abs(covered - 3800) < 4 * math.sqrt(4000 * 0.95 * 0.05)


def test_wilson_stays_within_0_and_1():
    """Also where rounding would take the bound of a perfect score over 1."""
    for trials in range(1, 400):
        assert wilson_interval(1.0, trials)[1] <= 1
        assert wilson_interval(0.0, trials)[0] >= 0
