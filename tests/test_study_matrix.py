import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from simulated_study import simulate, train_hardware

from asr_dni.errors import UserError
from asr_dni.evaluation import NoiseCurve
from asr_dni.hardware_files import read_hardware
from asr_dni.noise import Strength
from asr_dni.study.findings import find
from asr_dni.study.matrix import make_matrices, make_matrices_with_notes
from asr_dni.study.matrix_words import describe_shared, label_matrices, varying_keys

SMALL = {"sigmas_train": (0.0, 0.5, 1.0), "sigmas_infer": (0.0, 0.5, 1.0, 2.0), "draws": 2}


def test_seeds_count_once_however_many_draws():
    """A seed with more draws than the others has the same weight: the draws are averaged first."""
    frame = simulate(**SMALL, seeds=range(2))
    frame["accuracy"] = np.where(frame["seed"] == 0, 0.2, 0.8)
    more = frame[(frame["seed"] == 0) & (frame["strength"] == 1.0)].assign(
        draw=lambda rows: rows["draw"] + 10
    )
    (matrix,) = make_matrices(pd.concat([frame, more]))
    assert matrix.mean == pytest.approx(np.full((3, 4), 0.5))


def test_midpoints_are_those_of_noise_curves():
    frame = simulate(seeds=range(2), draws=1)
    (matrix,) = make_matrices(frame)
    for row, train in enumerate(matrix.sigma_train):
        for column in range(2):
            own = frame[(frame["sigma_train"] == train) & (frame["seed"] == column)]
            curve = NoiseCurve(own.assign(loss=0.0), {"n_classes": 8})
            assert matrix.midpoints()[row, column] == pytest.approx(curve.midpoint())


def test_what_is_shared_names_the_data_once():
    frame = simulate(**SMALL, seeds=range(2))
    frame["data"], frame["protocol"] = "digits", "Digits, forms 12 to 14"
    assert describe_shared(make_matrices(frame)).lower().count("digits") == 1


def test_a_midpoint_may_be_the_very_last_level_and_needs_a_curve_above_chance():
    frame = simulate(**SMALL, seeds=range(3))
    clean, chance = 0.875, 0.125
    half = (clean + chance) / 2
    curves = {0: [clean, 0.75, 0.625, half], 1: [clean, 0.75, 0.75, 0.625], 2: [chance, 0.25, 0.125, 0.0]}
    for seed, curve in curves.items():
        for sigma, accuracy in zip(SMALL["sigmas_infer"], curve, strict=True):
            frame.loc[(frame["seed"] == seed) & (frame["strength"] == sigma), "accuracy"] = accuracy
    (matrix,) = make_matrices(frame)
    assert matrix.midpoints() == pytest.approx(np.tile([2.0, np.inf, np.nan], (3, 1)), nan_ok=True)
    # At a level between others it is that level, too.
    frame.loc[frame["strength"] == 1.0, "accuracy"] = half
    assert make_matrices(frame)[0].midpoints()[:, 0] == pytest.approx(1.0)


def test_passes_are_those_of_each_level():
    (matrix,) = make_matrices(simulate(**(SMALL | {"draws": 7}), seeds=range(3)))
    assert matrix.n_draws.tolist() == [1, 7, 7, 7]
    assert matrix.counting == pytest.approx(1 / 845 / np.sqrt(12))


def test_the_mean_over_levels_is_the_area_below_the_curve():
    (matrix,) = make_matrices(simulate(seeds=range(3)))
    sigma = np.array(matrix.levels)
    area = np.trapezoid(matrix.accuracy, sigma, axis=1) / (sigma[-1] - sigma[0])
    assert matrix.mean_over_levels() == pytest.approx(area)
    (one,) = make_matrices(simulate(seeds=range(3), sigmas_infer=(0.5,)))
    assert one.mean_over_levels() == pytest.approx(one.accuracy[:, 0])


def test_an_interval_over_seeds_is_students_and_stays_among_accuracies():
    frame = simulate(**SMALL, seeds=range(3))
    (matrix,) = make_matrices(frame)
    low, high = matrix.interval()
    for place in np.ndindex(3, 4):
        seeds = matrix.accuracy[place]
        expected = stats.t.interval(0.95, 2, seeds.mean(), stats.sem(seeds))
        assert (low[place], high[place]) == pytest.approx(expected)
    ends = frame.assign(accuracy=np.where(frame["strength"] < 1, 1.0, 0.0) + 0.001 * frame["seed"])
    low, high = make_matrices(ends)[0].interval()
    assert (low.min(), high.max()) == (0.0, 1.0)
    # The counting of clips alone makes that much, though all seeds are equal.
    low, high = make_matrices(frame.assign(accuracy=0.5))[0].interval()
    assert high - low == pytest.approx(2 * 4.302653 / 845 / np.sqrt(12) / np.sqrt(3), rel=1e-6)
    assert high + low == pytest.approx(1)


def test_a_label_has_the_cell_the_units_and_what_differs():
    base = simulate(**SMALL, seeds=range(2))
    assert label_matrices(make_matrices(base)) == ["LSTM, 64 units"]
    other = base.assign(units=32, layers=2, bidirectional=True, scale="absolute", sites="output")
    assert label_matrices(make_matrices(pd.concat([base, other]))) == [
        "LSTM, 32 units, 2 layers, both directions, inference scale absolute, noise at output",
        "LSTM, 64 units, 1 layer, one direction, inference scale signal, noise at input, recurrent, output",
    ]
    trained = [
        base.assign(train_hardware=its, train_scale="") for its in ("", train_hardware("pcm", "weight.time"))
    ]
    assert label_matrices(make_matrices(pd.concat(trained))) == [
        "LSTM, 64 units",
        "LSTM, 64 units, trained on pcm over weight time",
    ]
    hardware = json.dumps(read_hardware("pcm").settings_beside(Strength("weight.time")))
    both = trained[1].assign(hardware=hardware, axis="weight.time", unit="s")
    text = describe_shared(make_matrices(both))
    assert "trained on hardware: weight PCM" in text
    assert "over weight time in s, chips per step, evaluated on the same" in text
    # Names that are the same are not enough.
    own = [{"weight": {"class_path": "PCM", "init_args": {"sigma": sigma}}} for sigma in (0.5, 2.0)]
    trained = [base.assign(train_hardware=train_hardware(its, "weight.time")) for its in own]
    first, second = label_matrices(make_matrices(pd.concat(trained)))
    assert "sigma 0.5" in first
    assert "sigma 2.0" in second
    cells = label_matrices(make_matrices(pd.concat([base, base.assign(cell="gru", units=32)])))
    assert cells == ["GRU, 32 units", "LSTM, 64 units"]


def test_what_is_shared_is_said_in_words():
    matrices = make_matrices(simulate(**SMALL, seeds=range(3)))
    settings, *numbers = describe_shared(matrices).split("; ")
    assert settings.split(", ") == [
        "speech commands",
        "8 words",
        "test split",
        "8 classes",
        "chance 12.5 %",
        "LSTM",
        "64 units",
        "1 layer",
        "one direction",
        "40 epochs",
        "constant training noise",
        "training scale signal",
        "inference scale signal",
        "noise at input",
        "recurrent",
        "output",
        "separate arrays",
    ]
    assert numbers == ["845 test clips", "3 seeds", "2 draws", "sigma in multiples of the clean signal's RMS"]
    single = simulate(**(SMALL | {"draws": 1, "sigmas_train": (0.0,)}), seeds=[4], scale="absolute")
    text = describe_shared(make_matrices(single))
    assert text.endswith("; 845 test clips; 1 seed; 1 draw; sigma in pre-activation units")
    assert "40 epochs, conventional training, inference scale absolute" in text


def test_one_epoch_is_no_epochs_and_the_split_is_said_once():
    frame = simulate(**(SMALL | {"draws": 1}), seeds=range(1)).assign(epochs=1)
    assert ", 1 epoch, " in describe_shared(make_matrices(frame))
    assert "test split" in describe_shared(make_matrices(frame))
    named = frame.assign(protocol="8 words, own test split")
    assert describe_shared(make_matrices(named)).count("test split") == 1


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((2, 4), "300–400 test clips; 2–4 seeds; 3–5 draws"),
        ((2, 3, 4), "300–400 test clips; 2–4 seeds; 3–5 draws"),
    ],
)
def test_of_numbers_that_differ_the_smallest_and_the_largest_are_said(counts, said):
    frames = [
        simulate(**(SMALL | {"draws": n + 1}), seeds=range(n), n_clips=200 + 50 * n, sizes=(8 * n,))
        for n in counts
    ]
    matrices = make_matrices(pd.concat(frames))
    text = describe_shared(matrices)
    assert said in text
    assert "units" not in text.split(";")[0]
    assert varying_keys(matrices) == ["units"]


def test_sigma_has_no_unit_where_scales_differ():
    base = simulate(**SMALL, seeds=range(2))
    text = describe_shared(make_matrices(pd.concat([base, simulate(**SMALL, seeds=range(2), scale="range")])))
    assert "sigma in" not in text
    assert "inference scale" not in text


def test_conventional_training_belongs_to_every_schedule_and_training_scale():
    base = simulate(**SMALL, seeds=range(2), schedules=("constant", "linear"))
    noisy = base[base["sigma_train"] > 0]
    absolute = noisy.assign(train_scale="absolute", member=noisy["member"] + "a")
    matrices = make_matrices(pd.concat([base, absolute]))
    assert sorted((m.key["schedule"], m.key["train_scale"]) for m in matrices) == [
        ("constant", "absolute"),
        ("constant", "signal"),
        ("linear", "absolute"),
        ("linear", "signal"),
    ]
    for matrix in matrices:
        assert matrix.sigma_train == (0.0, 0.5, 1.0)
        assert matrix.conventional == pytest.approx(matrices[0].conventional)
    # Alone, or where its own setting has no training under noise, it is a matrix without a schedule.
    alone = make_matrices(pd.concat([base, base[base["sigma_train"] == 0].assign(units=32)]))
    assert [(m.key["units"], m.key["schedule"], m.key["train_scale"]) for m in alone] == [
        (32, "", ""),
        (64, "constant", "signal"),
        (64, "linear", "signal"),
    ]
    (without,) = make_matrices(noisy[noisy["schedule"] == "linear"])
    assert without.conventional is None


@pytest.mark.parametrize(
    ("hardware", "strength", "conventional"),
    [
        ("pcm", "weight.time", False),  # a fresh device is noisy
        ("noisy_weights", "weight.sigma", False),  # there are converters
        ("stuck_cells", "weight.stuck_at_zero", False),  # cells stick at the other end
        ("multiplicative", "output.sigma", True),
        ({"weight": {"class_path": "GaussianWeights"}}, "weight.sigma", True),
        ({"weight": {"class_path": "PCM"}, "sites": []}, "weight.time", True),
    ],
)
def test_strength_0_is_conventional_training_only_where_nothing_acts(hardware, strength, conventional):
    base = simulate(**SMALL, seeds=range(2), schedules=("constant", "linear"))
    trained = train_hardware(hardware, strength)
    noisy = base.assign(train_hardware=trained, train_scale="", member=base["member"] + "n", accuracy=0.5)
    for matrix in make_matrices(noisy):
        assert matrix.sigma_train == (0.0, 0.5, 1.0)  # that at 0 was trained once, and is of every schedule
        assert (matrix.conventional is not None) == conventional
        assert np.isfinite(matrix.accuracy).all()
    # Nor are they pooled with trainings that were conventional.
    matrices, notes = make_matrices_with_notes(pd.concat([base, noisy]))
    own = [matrix for matrix in matrices if matrix.key["train_hardware"]]
    assert sorted(matrix.key["schedule"] for matrix in own) == ["constant", "linear"]
    assert all((matrix.accuracy == 0.5).all() for matrix in own) == (not conventional)
    assert any("not compared with conventional training" in note for note in notes) == (not conventional)
    others = [matrix for matrix in matrices if not matrix.key["train_hardware"]]
    assert all(matrix.conventional is not None for matrix in others)
    reasons = {
        answer.sentence for answer in find(noisy).answers if "conventional training" in answer.sentence
    }
    said = (
        "conventional training (sigma_train 0) is missing: at 0 other parts of the training's hardware act."
    )
    assert any(said in reason for reason in reasons) == (not conventional)


def test_conventional_training_is_there_by_itself_beside_trainings_that_are_under_noise_at_0():
    base = simulate(**SMALL, seeds=range(2))
    trained = train_hardware("pcm", "weight.time")
    noisy = base.assign(train_hardware=trained, train_scale="", member=base["member"] + "n")
    matrices = make_matrices(pd.concat([base[base["sigma_train"] == 0], noisy]))
    assert [(m.sigma_train, m.conventional is None) for m in matrices] == [
        ((0.0,), False),
        ((0.0, 0.5, 1.0), True),
    ]
    (joined,) = make_matrices(pd.concat([base[base["sigma_train"] == 0], noisy[noisy["sigma_train"] > 0]]))
    assert joined.conventional is not None
    assert [joined.train_text(sigma) for sigma in joined.sigma_train] == ["none", "0.5", "1"]


def test_trainings_that_share_their_place_are_counted_and_their_differences_named():
    def twins(changes, number=1, **columns):
        frames = [simulate(**SMALL, seeds=range(2), **columns)]
        for k in range(number):
            configuration = {"optimizer": {"lr": 0.1 + k, "weight_decay": 0.0}} | changes
            more = simulate(**SMALL, seeds=[1], configuration=configuration)
            frames.append(more[more["sigma_train"] == 0.5])
        return pd.concat(frames)

    rest = "their mean counts as one training."
    frame = twins({})
    (matrix,), notes = make_matrices_with_notes(frame)
    first = f"1 trainings were there more than once, with other settings (optimizer.lr): {rest}"
    assert notes == [first]
    assert matrix.n_seeds.tolist() == [[2] * 4] * 3
    both = frame[(frame["sigma_train"] == 0.5) & (frame["seed"] == 1)]
    means = both.groupby(["strength", "member"])["accuracy"].mean().groupby("strength").mean()
    assert matrix.accuracy[1, :, 1] == pytest.approx(means.to_numpy())
    # Several at once, and settings that only one of them has; four at most are named.
    assert make_matrices_with_notes(twins({}, number=3))[1] == [first]
    more = {
        "network": {"cell": "lstm", "units": 64, "layers": 1, "projection": 8, "dropout": 0.1},
        "epochs": 9,
    }
    (note,) = make_matrices_with_notes(twins(more | {"data": "x"}))[1]
    assert "(optimizer.lr, data, epochs, network.dropout)" in note
    # What is not noted, or cannot be read, is not named.
    unnamed = f"1 trainings were there more than once, with other settings: {rest}"
    assert make_matrices_with_notes(frame.drop(columns="configuration"))[1] == [unnamed]
    assert make_matrices_with_notes(frame.assign(configuration="{"))[1] == [unnamed]
    assert make_matrices_with_notes(simulate(**SMALL, seeds=range(2)))[1] == []


def test_an_snr_is_shown_where_all_networks_have_it():
    frame = simulate(**SMALL, seeds=range(2))
    (matrix,) = make_matrices(frame)
    assert matrix.snr_db == pytest.approx([np.inf, 6.0206, 0.0, -6.0206], abs=1e-4)
    for by, shown in ((0.08, True), (0.12, False)):  # a tenth of a decibel is no difference
        other = frame.assign(snr_db=frame["snr_db"] + by * frame["seed"])
        (matrix,) = make_matrices(other)
        assert np.isinf(matrix.snr_db[0])
        assert np.isfinite(matrix.snr_db[1:]).tolist() == [shown] * 3
    assert np.isnan(make_matrices(frame.assign(snr_db=np.nan))[0].snr_db).all()


def test_what_is_missing_is_named():
    frame = simulate(**SMALL, seeds=range(2))
    with pytest.raises(UserError, match=r"need the columns member, training, study, .*: snr_db is missing"):
        make_matrices(frame.drop(columns="snr_db"))
    with pytest.raises(UserError, match="the study has no results yet: run it first"):
        make_matrices(frame.iloc[:0])
    part = frame[(frame["sigma_train"] != 1.0) | (frame["seed"] != 1) | (frame["strength"] != 2.0)]
    part = part[(part["sigma_train"] != 0.5) | (part["strength"] != 1.0)]
    (matrix,) = make_matrices(part)
    assert matrix.n_seeds.tolist() == [[2, 2, 2, 2], [2, 2, 0, 2], [2, 2, 2, 1]]
    assert np.isnan(matrix.accuracy[2, 3, 1])
    assert matrix.mean[2, 3] == matrix.accuracy[2, 3, 0]
    assert np.isnan(matrix.mean).sum() == 1
    assert np.isnan(matrix.midpoints()[1]).all()
