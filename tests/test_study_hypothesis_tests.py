import math

import numpy as np
import pytest
from scipy import stats

from asr_dni.study.hypothesis_tests import holm, student_t_tests


@pytest.mark.parametrize("alternative", ["two-sided", "greater"])
def test_student_t_against_scipy(alternative):
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.1, 1, (6, 5)), rng.normal(0, 1, (6, 5))
    found = student_t_tests(first - second, alternative)
    for row in range(6):
        oracle = stats.ttest_rel(first[row], second[row], alternative=alternative)
        assert found.p[row] == pytest.approx(oracle.pvalue)
        interval = stats.ttest_rel(first[row], second[row]).confidence_interval(0.95)
        assert (found.low[row], found.high[row]) == pytest.approx((interval.low, interval.high))
    bound = found.effect + found.error * stats.t.ppf(1 - 0.05 / 7, 4)
    assert found.upper(7) == pytest.approx(bound)


def test_student_t_leaves_out_what_is_missing():
    found = student_t_tests(np.array([[0.1, np.nan, 0.3], [np.nan, np.nan, 0.3], [np.nan] * 3]))
    oracle = stats.ttest_1samp([0.1, 0.3], 0)
    assert found.p[0] == pytest.approx(oracle.pvalue)
    assert found.n.tolist() == [2, 1, 0]
    assert np.isnan(found.p[1:]).all()
    assert np.isnan(found.low[1:]).all()
    assert found.effect[1] == pytest.approx(0.3)
    assert math.isnan(found.effect[2])


def test_two_equal_differences_of_one_clip_prove_nothing():
    assert student_t_tests(np.array([0.01, 0.01])).p == pytest.approx(0)
    # Rounding each of two accuracies to a hundredth makes a standard deviation of 0.01 sqrt(2 / 12).
    found = student_t_tests(np.array([0.01, 0.01]), resolution=0.01)
    error = 0.01 * math.sqrt(2 / 12) / math.sqrt(2)
    assert found.p == pytest.approx(2 * stats.t.sf(0.01 / error, 1))
    assert found.p > 0.1
    assert student_t_tests(np.zeros(3)).p == 1


def test_holm_against_its_definition():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    rng = np.random.default_rng(1)
    p = rng.uniform(0, 0.2, 12)
    corrected = holm(p)
    for alpha in (0.01, 0.05, 0.1, 0.3):
        rejected = set()
        for step, place in enumerate(np.argsort(p)):  # stops at the first that is too large
            if p[place] > alpha / (len(p) - step):
                break
            rejected.add(place)
        assert set(np.flatnonzero(corrected <= alpha)) == rejected
    assert np.array_equal(holm([0.02, np.nan, 0.03]), [0.04, np.nan, 0.04], equal_nan=True)
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []
