import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from simulated_study import member_rows, simulate

from asr_dni.errors import UserError
from asr_dni.study.findings import find
from asr_dni.study.hypothesis_tests import holm
from asr_dni.study.matrix import make_matrices

SMALL = {"sigmas_train": (0.0, 0.5, 1.0), "sigmas_infer": (0.0, 0.5, 1.0, 2.0), "draws": 2}


def flat(accuracy, gain=0.0):
    """A truth in which noise does not matter, but for a gain of training under noise."""
    return lambda cell, units, schedule, sigma_train, sigma_infer: accuracy + gain * (sigma_train > 0)


def answers(findings, question):
    return [answer for answer in findings.answers if answer.question == question]


def values(frame, sigma_train, sigma_infer):
    """Accuracies over seeds, draws averaged first, by pandas."""
    rows = frame[(frame["sigma_train"] == sigma_train) & (frame["strength"] == sigma_infer)]
    return rows.groupby("seed")["accuracy"].mean()


def test_matrix_has_means_and_student_t_intervals_over_seeds():
    frame = simulate(**SMALL)
    (matrix,) = make_matrices(frame.sample(frac=1, random_state=0))
    table = find(frame).tables["matrix"].set_index(["sigma_train", "strength"])
    assert matrix.sigma_train == SMALL["sigmas_train"]
    assert matrix.levels == SMALL["sigmas_infer"]
    for train in matrix.sigma_train:
        for infer in matrix.levels:
            seeds = values(frame, train, infer)
            low, high = stats.t.interval(0.95, len(seeds) - 1, seeds.mean(), stats.sem(seeds))
            row = table.loc[(train, infer)]
            assert row["accuracy"] == pytest.approx(seeds.mean())
            assert (row["low"], row["high"]) == pytest.approx((low, high))
            assert row["n_seeds"] == 5
            assert row["n_draws"] == (2 if infer else 1)
            assert row["n_clips"] == 845
            assert row["chance"] == pytest.approx(1 / 8)


@pytest.mark.parametrize(("gain", "said"), [(0.1, "is above the"), (-0.1, "is not above the")])
def test_of_one_level_it_is_not_said_how_many(gain, said):
    few = {"sigmas_train": (0.0, 1.0), "sigmas_infer": (0.0, 1.0)}
    text = find(simulate(truth=flat(0.7, gain), **few)).text()
    assert f"The only level of training noise {said}" in text
    assert f"The only pair {said}" in text
    assert "of 1 " not in text


def test_tests_of_pairs_against_scipy():
    frame = simulate(**SMALL)
    findings = find(frame)
    clean = values(frame, 0.0, 0.0)
    pairs = [(train, infer) for train in (0.5, 1.0) for infer in (0.5, 1.0, 2.0)]
    p = [stats.ttest_rel(values(frame, *pair), clean, alternative="greater").pvalue for pair in pairs]
    table = findings.tables["above_clean"].set_index(["sigma_train", "strength"])
    assert list(table.index) == pairs
    assert table["p"].to_numpy() == pytest.approx(p)
    assert table["p_holm"].to_numpy() == pytest.approx(holm(p))
    assert table["family"].iloc[0].endswith("(6 tests)")
    same = findings.tables["difference"].set_index(["sigma_train", "strength"])
    oracle = stats.ttest_rel(values(frame, 1.0, 2.0), values(frame, 0.0, 2.0))
    assert same.loc[(1.0, 2.0), "p"] == pytest.approx(oracle.pvalue)
    assert len(same) == 8
    inference = findings.tables["clean_inference"]
    assert inference["p"].iloc[1] == pytest.approx(
        stats.ttest_rel(values(frame, 1.0, 0.0), clean, alternative="greater").pvalue
    )


def test_flatness_is_the_loss_averaged_over_the_area_below_the_curve():
    frame = simulate(**SMALL)
    table = find(frame).tables["flatter"]
    losses = {}
    for train in (0.0, 1.0):
        curve = np.stack([values(frame, train, infer) for infer in SMALL["sigmas_infer"]])
        # By hand: levels 0, 0.5, 1, 2 have the trapezoids' weights 1/8, 2/8, 3/8, 2/8.
        losses[train] = curve[0] - np.array([0.125, 0.25, 0.375, 0.25]) @ curve
    row = table[(table["measure"] == "less lost to noise") & (table["sigma_train"] == 1.0)].iloc[0]
    oracle = stats.ttest_rel(losses[0.0], losses[1.0])
    assert row["effect"] == pytest.approx(np.mean(losses[0.0] - losses[1.0]))
    assert row["p"] == pytest.approx(oracle.pvalue)


def test_effects_that_are_there_are_found():
    findings = find(simulate(cells=("lstm",), sizes=(32, 128), schedules=("constant", "linear")))
    assert {answer.verdict for answer in answers(findings, "flatter")} == {"supports"}
    assert {answer.verdict for answer in answers(findings, "schedules")} == {"supports"}
    best = findings.tables["best"]
    top = best[(best["strength"] == 4.0) & best["best"]]
    assert set(top["sigma_train"]) == {2.0}
    assert best[(best["strength"] == 4.0) & (best["sigma_train"] == 0.0)]["in_set"].eq(False).all()
    slopes = findings.tables["units"]
    clean = slopes[
        (slopes["measure"] == "accuracy") & (slopes["sigma_train"] == 0) & (slopes["strength"] == 0)
    ].iloc[0]
    assert clean["low"] < 0.02 < clean["high"]  # the simulation's two points per doubling
    assert clean["p_holm"] < 0.05


def test_a_gain_over_the_clean_conventional_network_is_found():
    findings = find(simulate(truth=flat(0.8, gain=0.05), **SMALL))
    for question in ("above_clean", "clean_inference"):
        (answer,) = answers(findings, question)
        assert answer.verdict == "supports"
        assert "Holm" in answer.test
    table = findings.tables["above_clean"]
    assert (table["p_holm"] < 0.05).all()
    assert table["effect"].to_numpy() == pytest.approx(0.05, abs=0.02)


def test_claims_that_are_ruled_out_are_not_supported():
    """Two points worse under noise, and little spread: an advantage of one point is out of the question."""
    findings = find(simulate(truth=flat(0.8, gain=-0.02), spread=0.001, seeds=range(8), **SMALL))
    for question in ("above_clean", "clean_inference"):
        (answer,) = answers(findings, question)
        assert answer.verdict == "does not support"
    wide = find(simulate(truth=flat(0.8, gain=-0.02), spread=0.04, seeds=range(3), **SMALL))
    assert {answer.verdict for answer in answers(wide, "above_clean")} == {"cannot tell"}


def test_slopes_over_units_against_numpy():
    frame = simulate(**SMALL, sizes=(32, 64, 256))
    table = find(frame, levels=[1.0]).tables["units"]
    assert set(table["strength"]) == {1.0}
    slopes = []
    for seed in range(5):
        own = frame[(frame["seed"] == seed) & (frame["strength"] == 1.0)]
        y = own.groupby(["sigma_train", "units"])["accuracy"].mean()
        slopes.append([np.polyfit([5, 6, 8], y[train].to_numpy(), 1)[0] for train in (0.0, 0.5, 1.0)])
    slopes = np.array(slopes)
    for measure, train, expected in (
        ("accuracy", 0.5, slopes[:, 1]),
        ("advantage over conventional", 1.0, slopes[:, 2] - slopes[:, 0]),
    ):
        row = table[(table["measure"] == measure) & (table["sigma_train"] == train)].iloc[0]
        assert row["effect"] == pytest.approx(expected.mean())
        assert row["p"] == pytest.approx(stats.ttest_1samp(expected, 0).pvalue)


def test_a_cell_is_tested_over_its_sizes_together_too():
    frame = simulate(**SMALL, sizes=(32, 64, 256))
    findings = find(frame)
    table = findings.tables["above_clean"]
    pooled = table[table["units"].isna() & (table["sigma_train"] == 0.5)].set_index("strength")
    assert len(table[table["units"].isna()]) == 6
    seeds = frame.groupby(["sigma_train", "strength", "seed", "units"])["accuracy"].mean()
    means = seeds.groupby(["sigma_train", "strength", "seed"]).mean()
    oracle = stats.ttest_rel(means[0.5, 1.0], means[0.0, 0.0], alternative="greater")
    assert pooled.loc[1.0, "p"] == pytest.approx(oracle.pvalue)
    assert [answer.about for answer in answers(findings, "above_clean")][
        -1
    ] == "LSTM, mean over 32, 64, 256 units"


def test_schedules_are_compared_with_constant_noise_of_the_same_sigma():
    frame = simulate(**SMALL, schedules=("constant", "linear"))
    table = find(frame).tables["schedules"]
    row = table[(table["measure"] == "accuracy at sigma_infer 0") & (table["sigma_train"] == 1.0)].iloc[0]
    linear, constant = (values(frame[frame["schedule"] == name], 1.0, 0.0) for name in ("linear", "constant"))
    assert row["schedule"] == "linear"
    assert row["effect"] == pytest.approx((linear - constant).mean())
    assert row["p"] == pytest.approx(stats.ttest_rel(linear, constant).pvalue)
    # Conventional training has no schedule: it is there once and serves both.
    matrices = make_matrices(frame)
    assert [matrix.key["schedule"] for matrix in matrices] == ["constant", "linear"]
    assert np.array_equal(matrices[0].accuracy[0], matrices[1].accuracy[0])


@pytest.mark.parametrize("n_seeds", [1, 2])
def test_few_seeds_support_nothing_and_have_no_interval(n_seeds):
    """However large an effect is; and nothing shows an interval of hundreds of points."""
    frame = simulate(
        **SMALL, seeds=range(n_seeds), sizes=(32, 64), schedules=("constant", "linear"), spread=1e-9
    )
    findings = find(frame)
    verdicts = {answer.verdict for answer in findings.answers}
    assert verdicts == {"cannot be tested", "estimate"}
    for name, table in findings.tables.items():
        for column in [name for name in table.columns if "low" in name or "high" in name or name == "p"]:
            if column not in ("lowest_noise", "highest_noise"):
                assert table[column].isna().all(), (name, column)
    said = findings.text()
    for part in ("too few seeds for an interval (3 are needed)", "cannot be tested", "better 5"):
        assert part in said
    assert "[" not in said
    assert " ± " not in findings.markdown()
    assert "nothing can be tested there" in " ".join(findings.notes)


def test_where_only_some_have_enough_seeds_the_others_are_not_tested():
    frame = simulate(**SMALL, seeds=range(4))
    table = find(frame[(frame["sigma_train"] != 1.0) | (frame["seed"] < 2)]).tables["difference"]
    few = table["sigma_train"] == 1.0
    assert set(table.loc[few, "n_seeds"]) == {2}
    assert table.loc[few, ["p", "p_holm", "low", "high", "upper_all"]].isna().all(axis=None)
    assert table.loc[few, "effect"].notna().all()
    assert table.loc[~few, ["p", "p_holm", "low", "high"]].notna().all(axis=None)
    assert table["family"].iloc[0].endswith("(4 tests)")


def test_power_is_said_and_is_what_is_found():
    """The difference that is said to be found in 80 % of studies, against scipy's power by simulation."""
    frame = simulate(**SMALL, seeds=range(5))
    (note,) = [note for note in find(frame).notes if note.startswith("Power")]
    spread, one, corrected = map(float, re.findall(r"(\d+\.\d) points", note))
    assert "5 seeds" in note
    differences = [
        values(frame, train, infer) - values(frame, 0.0, infer)
        for train in (0.5, 1.0)
        for infer in (0.0, 1.0)
    ]
    assert 0.5 * spread < 100 * np.mean([difference.std() for difference in differences]) < 2 * spread
    assert spread < one < corrected
    rng = np.random.default_rng(7)
    for effect, level in ((one, 0.05), (corrected, 0.025)):
        found = stats.ttest_1samp(rng.normal(effect, spread, (4000, 5)), 0, axis=1).pvalue < level
        assert found.mean() == pytest.approx(0.8, abs=0.06)  # said with one digit


def test_the_power_of_every_test_is_that_of_its_own_seeds():
    """What a table says is found in 80 % of studies, against t tests of simulated ones, one-sided and two-sided."""
    frame = simulate(**SMALL, seeds=range(5))
    tables = find(frame).tables
    rng = np.random.default_rng(3)
    for name, family, tail in (("difference", 8, "two-sided"), ("above_clean", 6, "greater")):
        row = tables[name].iloc[-1]
        pairs = values(frame, row["sigma_train"], row["strength"])
        base = values(frame, 0.0, row["strength"] if name == "difference" else 0.0)
        seen = (pairs - base).std(ddof=1)
        assert row["family"].endswith(f"({family} tests)")
        draws = rng.normal(row["detectable"], seen, (20_000, 5))
        found = stats.ttest_1samp(draws, 0, axis=1, alternative=tail).pvalue < 0.05 / family
        assert found.mean() == pytest.approx(0.8, abs=0.012)  # four standard deviations
    few = find(simulate(**SMALL, seeds=range(2))).tables["difference"]
    assert few["detectable"].isna().all()


def voted(gain, sigmas_infer=(0.0, 1.0, 2.0)):
    """A study in which noise costs 20 points per sigma, of which a vote of n takes back ``gain[n]``."""

    def truth(*_, sigma_infer, number):
        return 0.9 - 0.2 * sigma_infer * (1 - gain[number])

    frames = [
        simulate(
            truth=lambda cell, units, schedule, train, infer, n=number: truth(sigma_infer=infer, number=n),
            sigmas_train=(0.0, 1.0),
            sigmas_infer=sigmas_infer,
            seeds=range(5),
            votes=number,
            spread=0.002,
            configuration={"votes": number},
        )
        for number in gain
    ]
    return pd.concat(frames)


def test_voting_is_compared_with_single_passes_and_told_by_what_it_makes_up_for():
    found = find(voted({1: 0.0, 4: 0.5, 16: 0.99}))
    table = found.tables["voting"].set_index(["votes", "sigma_train", "strength"])
    assert len(table) == 2 * 2 * 2  # votes, sigma_train, strengths above 0
    for (number, _, strength), row in table.iterrows():
        gain = {4: 0.5, 16: 0.99}[number] * 0.2 * strength
        assert row["effect"] == pytest.approx(gain, abs=0.01)
        assert row["p_holm"] < 0.01
        assert row["as_good_as_clean"] == (number == 16)
    (answer,) = [answer for answer in found.answers if answer.question == "voting"]
    assert answer.verdict == "supports"
    assert (
        "16 votes stay within 1.0 points of the same networks' clean inference: 0: up to 2 (one pass: 0)"
        in (answer.sentence)
    )
    # The other questions are asked of single passes, once.
    assert len([answer for answer in found.answers if answer.question == "flatter"]) == 1
    assert [matrix.key["votes"] for matrix in found.alone] == [1]
    frame = voted({1: 0.0, 4: 0.5})
    holed = frame[(frame["votes"] == 1) | (frame["sigma_train"] == 0) | (frame["strength"] < 2)]
    table = find(holed).tables["voting"].set_index(["sigma_train", "strength"])
    assert table["effect"].isna().tolist() == [False, False, False, True]
    none = find(voted({1: 0.0, 4: 0.0}))
    (answer,) = [answer for answer in none.answers if answer.question == "voting"]
    assert answer.verdict != "supports"


def test_compensation_is_compared_where_noise_is_missing():
    """It gains 3 points wherever sigma_infer is below sigma_train, and nothing elsewhere."""

    def gain(cell, units, schedule, train, infer):
        return 0.8 + 0.03 * (infer < train)

    common = {
        "sigmas_train": (0.0, 1.0, 2.0),
        "sigmas_infer": (0.0, 1.0, 2.0),
        "seeds": range(5),
        "spread": 0.002,
    }
    plain = simulate(truth=flat(0.8), **common)
    softened = simulate(truth=gain, **common, compensation="auto", configuration={"compensation": "auto"})
    found = find(pd.concat([plain, softened]))
    table = found.tables["compensation"]
    assert list(zip(table["sigma_train"], table["strength"], strict=True)) == [(1, 0), (2, 0), (2, 1)]
    assert table["effect"].to_numpy() == pytest.approx(0.03, abs=0.006)
    (answer,) = [answer for answer in found.answers if answer.question == "compensation"]
    assert answer.verdict == "supports"
    assert answer.sentence.startswith("3 of 3 pairs are shown to be better; at best")
    # Whether softened networks are above conventional training is asked too, of the matrix with them.
    verdicts = {a.about: a.verdict for a in found.answers if a.question == "clean_inference"}
    assert sorted(verdicts.values()) == ["cannot tell", "supports"] or "does not support" in verdicts.values()
    stated = softened.assign(compensation="1.5")
    table = find(pd.concat([plain, stated])).tables["compensation"]
    assert set(table["strength"]) == {0, 1}
    assert set(table["sigma_train"]) == {0, 1, 2}


def test_more_training_noise_is_compared_with_as_much():
    def truth(cell, units, schedule, train, infer):
        return 0.8 + 0.05 * (train > infer) - 0.1 * (train < infer)

    common = {"sigmas_train": (0.0, 1.0, 2.0, 3.0), "sigmas_infer": (0.0, 1.0, 2.0), "seeds": range(5)}
    found = find(simulate(truth=truth, spread=0.002, **common))
    table = found.tables["more_noise"]
    assert list(zip(table["strength"], table["sigma_train"], strict=True)) == [(1, 2), (1, 3), (2, 3)]
    assert table["effect"].to_numpy() == pytest.approx(0.05, abs=0.006)
    (answer,) = [answer for answer in found.answers if answer.question == "more_noise"]
    assert answer.verdict == "supports"
    assert answer.sentence.startswith("3 of 3 pairs of more training noise are better than as much")
    worse = find(simulate(truth=lambda *point: 0.8 - 0.05 * point[3], spread=0.002, **common))
    (answer,) = [answer for answer in worse.answers if answer.question == "more_noise"]
    assert answer.verdict == "does not support"
    # Levels of another scale are not as much of the same noise.
    other = find(simulate(truth=truth, **common, scale="absolute", train_scale="signal"))
    assert not [answer for answer in other.answers if answer.question == "more_noise"]


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_holes_are_named_and_do_not_crash(times):
    frame = simulate(**SMALL, sizes=(32, 64), schedules=("constant", "linear"))
    members = frame.drop_duplicates("member").set_index("member")
    rng = np.random.default_rng(4)
    gone = (members["units"] == 32) & (members["sigma_train"] == 1.0) & (members["seed"] == 3)
    holed = frame[~frame["member"].isin(members.index[gone])]
    missing = find(holed).tables["missing"]
    assert len(missing) == 2  # of both schedules
    assert set(missing["seed"]) == {"3"}
    assert set(missing["sigma_train"]) == {1.0}
    difference = find(holed).tables["difference"]
    few = difference[(difference["units"] == 32) & (difference["sigma_train"] == 1.0)]
    assert set(few["n_seeds"]) == {4}
    for _ in range(times):  # anything may be missing
        kept = rng.choice(members.index, size=rng.integers(1, len(members)), replace=False)
        part = frame[frame["member"].isin(kept)]
        part = part[rng.uniform(size=len(part)) < 0.9]
        findings = find(part)
        assert "nan" not in findings.text()
        assert "nan" not in findings.markdown()


def test_without_conventional_training_or_clean_inference_it_says_so():
    frame = simulate(**SMALL)
    findings = find(frame[frame["sigma_train"] > 0])
    assert {answer.verdict for answer in answers(findings, "flatter")} == {"cannot tell"}
    assert "conventional training (sigma_train 0) is missing" in findings.text()
    findings = find(frame[frame["strength"] > 0])
    assert "clean inference (sigma_infer 0) was not measured" in findings.text()
    findings = find(frame[frame["sigma_train"] == 0])
    assert "there is no training under noise" in findings.text()
    findings = find(frame[frame["strength"] == 0])
    assert "makes no curve" in findings.text()


def test_trainings_that_share_their_place_count_once_and_are_named():
    frame = simulate(**SMALL, seeds=range(3))
    rng = np.random.default_rng(5)
    twin = member_rows(
        rng,
        sigma_train=1.0,
        seed=1,
        sigmas_infer=SMALL["sigmas_infer"],
        draws=2,
        configuration={"optimizer": {"lr": 0.1}},
    )
    findings = find(pd.concat([frame, twin]))
    assert findings.matrices[0].accuracy.shape == (3, 4, 3)
    assert any("optimizer.lr" in note for note in findings.notes)
    # The same seed with another order of the data is a training of its own.
    other = frame.assign(data_seed=frame["data_seed"] + 100, member=frame["member"].str[::-1])
    assert make_matrices(pd.concat([frame, other]))[0].seeds == (
        "0/0",
        "0/100",
        "1/1",
        "1/101",
        "2/2",
        "2/102",
    )


def test_settings_that_differ_are_different_matrices():
    frames = [
        simulate(**SMALL, seeds=range(2)).assign(**other)
        for other in ({}, {"scale": "absolute"}, {"epochs": 80}, {"layers": 2}, {"arrays": "joint"})
    ]
    findings = find(pd.concat(frames))
    assert len(findings.matrices) == 5
    assert len(set(findings.labels)) == 5


def test_categories_are_as_good_as_text():
    frame = simulate(**SMALL, sizes=(32, 64))
    text = [name for name in frame.columns if frame[name].dtype == frame["cell"].dtype]
    categories = frame.assign(**{name: frame[name].astype("category") for name in text})
    assert find(categories).text() == find(frame).text()


def test_nothing_to_say_is_an_error():
    with pytest.raises(UserError, match="no results yet"):
        find(simulate(**SMALL).iloc[:0])
    with pytest.raises(UserError, match="accuracy is missing"):
        find(simulate(**SMALL).drop(columns="accuracy"))


def test_markdown_has_every_question_and_matrix():
    findings = find(simulate(**SMALL, sizes=(32, 64), schedules=("constant", "linear")))
    text = findings.markdown()
    for part in (
        "## Does training",
        "## Which sigma_train",
        "## Are there noisy",
        "## How does it change",
        "± ",
    ):
        assert part in text
    assert text.count("σ_train \\ σ_infer") == 4
    assert "845 test clips" in findings.setting
    assert "chance 12.5 %" in findings.setting
