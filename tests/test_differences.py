import math

import numpy as np
import pytest
from scipy import stats
from test_noise_curve import accuracy_curve

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import summarise_curves
from asr_dni.evaluation.curves.differences import differences, format_difference
from asr_dni.evaluation.curves.intervals import newcombe_interval, welch_interval, wilson_interval
from asr_dni.evaluation.curves.tolerance import tolerable_strength
from asr_dni.evaluation.figures.differences import differences_figure
from asr_dni.evaluation.figures.noise_curves import noise_curves_figure
from asr_dni.plotting import Line, Reference, with_matplotlib, with_plotly


def experiment(accuracies, seeds, **settings):
    """Curves with the accuracies of each seed in a row."""
    return [accuracy_curve(row, seed=seed, **settings) for row, seed in zip(accuracies, seeds, strict=True)]


A = np.array([[0.91, 0.60], [0.93, 0.66], [0.92, 0.63], [0.95, 0.70]])
B = np.array([[0.90, 0.75], [0.94, 0.80], [0.91, 0.79], [0.94, 0.86]])


def rows_of(found, label):
    return found.frame[found.frame["label"] == label].to_dict("records")


def test_differences_pair_the_same_seeds_whatever_their_order():
    order = [2, 0, 3, 1]
    curves = {"a": experiment(A, (1, 2, 3, 4)), "b": experiment(B[order], [1 + place for place in order])}
    found = differences(curves, "a")
    assert found.frame["label"].unique().tolist() == ["b"]
    for column, row in enumerate(rows_of(found, "b")):
        test = stats.ttest_rel(B[:, column], A[:, column])
        assert row["difference"] == pytest.approx((B - A)[:, column].mean())
        assert (row["low"], row["high"]) == pytest.approx(tuple(test.confidence_interval()))
        assert (row["method"], row["n_pairs"], row["strength"]) == ("paired", 4, column)
    # Paired, the difference is known better than each curve.
    assert rows_of(found, "b")[1]["high"] - rows_of(found, "b")[1]["low"] < 0.05 < np.ptp(A[:, 1])
    assert (
        found.describe_intervals()
        == "95 % interval over differences within 4 seeds (Student), on these clips"
    )


def test_of_other_seeds_those_in_common_are_paired():
    found = differences({"a": experiment(A, (1, 2, 3, 4)), "b": experiment(B, (9, 2, 3, 4))}, "a")
    row = rows_of(found, "b")[1]
    test = stats.ttest_rel(B[1:, 1], A[1:, 1])
    assert row["difference"] == pytest.approx((B - A)[1:, 1].mean())
    assert (row["low"], row["high"]) == pytest.approx(tuple(test.confidence_interval()))
    assert "3 seeds that both have" in found.describe_intervals()


@pytest.mark.parametrize("seeds", [(5, 6, 7, 8), (None, None, None, None), (1, 2, 7, 8)])
def test_seeds_that_do_not_pair_are_compared_by_welch_and_it_is_said_so(seeds):
    found = differences({"a": experiment(A[:3], (1, 2, 3)), "b": experiment(B, seeds)}, "a")
    for column, row in enumerate(rows_of(found, "b")):
        test = stats.ttest_ind(B[:, column], A[:3, column], equal_var=False)
        assert row["difference"] == pytest.approx(B[:, column].mean() - A[:3, column].mean())
        assert (row["low"], row["high"]) == pytest.approx(tuple(test.confidence_interval()))
        assert (row["method"], row["n_pairs"]) == ("unpaired", 0)
    assert (
        found.describe_intervals()
        == "95 % interval over 4 and 3 seeds, which do not pair (Welch), on these clips"
    )


def test_single_trainings_have_an_interval_over_clips():
    found = differences({"a": experiment(A[:1], (1,)), "b": experiment(B[1:2], (2,))}, "a")
    row = rows_of(found, "b")[0]
    assert row["method"] == "clips"
    assert row["difference"] == pytest.approx(0.03)
    assert row["low"] < 0.03 < row["high"]
    assert "Newcombe" in found.describe_intervals()


def test_newcombe_is_that_of_his_paper():
    # R. G. Newcombe, Statistics in Medicine 17 (1998), table II, method 10: 56/70 - 48/80 is 0.2 [0.0524, 0.3339].
    low, high = newcombe_interval(56 / 70, wilson_interval(56 / 70, 70), 0.6, wilson_interval(0.6, 80))
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize("numbers", [(2, 2), (1, 4), (2, 3)])
def test_too_few_seeds_have_no_interval(numbers):
    first, second = numbers
    found = differences(
        {"a": experiment(A[:first], range(first)), "b": experiment(B[:second], range(second))}, "a"
    )
    assert found.frame[["low", "high"]].isna().all(axis=None)
    assert set(found.frame["method"]) == {"none"}
    assert "too few for an interval" in found.describe_intervals()
    assert "band" not in differences_figure(found).note


def test_equal_differences_are_known_to_a_clip_and_not_better():
    """All seeds gained the same: counting in whole clips has made them equal."""
    curves = {"a": experiment(A, range(4)), "b": experiment(A - 0.02, range(4))}
    row = rows_of(differences(curves, "a"), "b")[0]
    # The deviation of rounding to steps of one of 845 clips, twice; t(0.975; 3) = 3.182446 from printed tables.
    half = 3.182446 * math.sqrt(2 / 12) / 845 / math.sqrt(4)
    assert (row["low"], row["high"]) == pytest.approx((-0.02 - half, -0.02 + half))
    assert welch_interval([0.5, 0.5], [0.5, 0.5]) == (0, 0)


def test_equal_seeds_are_known_to_a_clip_in_a_summary_too():
    row = summarise_curves(experiment(A[[0, 0, 0]], range(3))).frame.iloc[0]
    assert row["high"] - row["accuracy"] == pytest.approx(4.302653 / math.sqrt(12) / 845 / math.sqrt(3))


def test_the_intervals_cover_the_true_difference():
    """About 95 % do; chance leaves these bounds in 1 of 1,000 cases. Each level is an experiment of its own."""
    rng, experiments = np.random.default_rng(1), 400
    luck = rng.normal(0, 0.02, (4, experiments))
    own, base = (start + luck + rng.normal(0, 0.01, (4, experiments)) for start in (0.85, 0.8))
    covered = {}
    for method, seeds in (("paired", range(4)), ("unpaired", range(10, 14))):
        found = differences({"a": experiment(base, range(4)), "b": experiment(own, seeds)}, "a")
        rows = rows_of(found, "b")
        assert len(rows) == experiments
        assert {row["method"] for row in rows} == {method}
        covered[method] = sum(row["low"] <= 0.05 <= row["high"] for row in rows)
    least, most = stats.binom.ppf([0.0005, 0.9995], experiments, 0.95)
    assert least <= covered["paired"] <= most
    assert covered["unpaired"] >= least  # their luck is shared: it is on the wide side


def test_what_can_not_be_compared():
    a, b = experiment(A, range(4)), experiment(B, range(4))
    with pytest.raises(UserError, match=r"no 'c' to be the baseline: give one of 'a', 'b'"):
        differences({"a": a, "b": b}, "c")
    with pytest.raises(UserError, match="'a' is all there is"):
        differences({"a": a}, "a")
    with pytest.raises(UserError, match="b: two curves are of seed 1"):
        differences({"a": a, "b": [b[1], b[1]]}, "a")
    with pytest.raises(UserError, match="scales absolute and signal"):
        differences({"a": a, "b": experiment(B, range(4), scale="absolute")}, "a")
    shifted = [type(one)(one.frame.assign(strength=one.frame["strength"] + 10), one.settings) for one in b]
    with pytest.raises(UserError, match="b and a were measured at no sigma in common"):
        differences({"a": a, "b": shifted}, "a")


def test_only_common_strengths_are_compared():
    longer = experiment(np.hstack([B, 0.5 * B]), range(4))
    found = differences({"a": experiment(A, range(4)), "b": longer}, "a")
    assert found.frame["strength"].tolist() == [0, 1]


def test_the_figure_has_the_looks_of_the_curves_and_a_line_for_the_baseline():
    curves = {
        "a": experiment(B, range(4)),
        "base": experiment(A, range(4)),
        "c": experiment(A + 0.01, range(4)),
    }
    found = differences(curves, "base")
    figure = differences_figure(found)
    overlay = noise_curves_figure({label: summarise_curves(own) for label, own in curves.items()})
    looks = {line.label: line.style for line in overlay.panels[0].elements if isinstance(line, Line)}
    lines = {line.label: line for line in figure.panels[0].elements if isinstance(line, Line)}
    assert list(lines) == ["a", "c"]
    assert {label: line.style for label, line in lines.items()} == {label: looks[label] for label in lines}
    assert lines["a"].y == pytest.approx(tuple(100 * (B - A).mean(axis=0)))
    (reference,) = (one for one in figure.panels[0].elements if isinstance(one, Reference))
    assert (reference.value, reference.label, reference.color) == (0, "base", looks["base"].color)
    assert figure.panels[0].x == overlay.panels[0].x
    assert "band: 95 % interval over differences within 4 seeds" in figure.note
    for renderer in (with_matplotlib, with_plotly):
        renderer.render(figure)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((0.0123, -0.003, 0.0274), "+1.2 [−0.3, +2.7]"),
        ((-0.01,), "−1.0"),
        ((-0.0001, math.nan, math.nan), "+0.0"),
    ],
)
def test_differences_as_text(values, text):
    assert format_difference(*values) == text


def falling(slopes, offset=0.9, highest=4):
    """Curves that fall by so much per unit of strength."""
    levels = np.arange(highest + 1)
    return experiment([offset - slope * levels for slope in slopes], range(len(slopes)), n_clips=10**9)


def test_the_tolerable_strength_of_a_straight_curve():
    assert tolerable_strength(falling([0.02]), 0.05).strength == pytest.approx(2.5)
    assert tolerable_strength(falling([0.0125]), 0.05).strength == pytest.approx(4)
    beyond = tolerable_strength(falling([0.01]), 0.05)
    assert (beyond.strength, str(beyond)) == (math.inf, "> 4")


def test_the_interval_of_the_tolerable_strength_is_that_of_the_slope():
    """Of straight curves the loss at a strength is strength times slope, so its bounds are those of the mean slope."""
    slopes = np.array([0.018, 0.020, 0.022, 0.021])
    low, high = stats.t.interval(0.95, 3, slopes.mean(), stats.sem(slopes))
    found = tolerable_strength(falling(slopes), 0.05)
    assert (found.strength, found.low, found.high) == pytest.approx(
        (0.05 / slopes.mean(), 0.05 / high, 0.05 / low)
    )
    assert str(found) == f"{0.05 / slopes.mean():.2f} [{0.05 / high:.2f}, {0.05 / low:.2f}]"


def test_the_interval_is_there_where_some_seeds_never_lose_so_much():
    found = tolerable_strength(falling([0.005, 0.020, 0.015]), 0.05)
    assert 1 < found.low < found.strength < 4
    assert found.high == math.inf
    assert str(found).endswith(", > 4]")
    assert math.isnan(tolerable_strength(falling([0.02, 0.03]), 0.05).low)


def test_the_tolerable_strength_needs_a_beginning_and_a_sensible_loss():
    curves = [type(one)(one.frame.iloc[1:], one.settings) for one in falling([0.02])]
    with pytest.raises(UserError, match="measure sigma 0 as well"):
        tolerable_strength(curves)
    with pytest.raises(UserError, match=r"loss is 2: give a share between 0 and 1"):
        tolerable_strength(falling([0.02]), 2)


def test_the_area_is_the_mean_below_the_curve():
    # Of a straight line the middle, whatever the levels.
    assert falling([0.1], 0.8)[0].summary().area() == pytest.approx(0.6)
    uneven = falling([0.1], 0.8)[0]
    frame = uneven.frame[uneven.frame["strength"].isin([0, 1, 4])]
    assert type(uneven)(frame, uneven.settings).summary().area() == pytest.approx(0.6)
    assert falling([0.1], 0.8, highest=0)[0].summary().area() == pytest.approx(0.8)
