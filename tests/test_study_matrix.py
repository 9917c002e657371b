import numpy as np
import pandas as pd
import pytest
from simulated_study import simulate

from asr_dni.evaluation import NoiseCurve
from asr_dni.study.matrix import describe_shared, make_matrices

SMALL = {"sigmas_train": (0.0, 0.5, 1.0), "sigmas_infer": (0.0, 0.5, 1.0, 2.0), "draws": 2}


def test_seeds_count_once_however_many_draws():
    """A seed with more draws than the others has the same weight: the draws are averaged first."""
    frame = simulate(**SMALL, seeds=range(2))
    frame["accuracy"] = np.where(frame["seed"] == 0, 0.2, 0.8)
    more = frame[(frame["seed"] == 0) & (frame["sigma_infer"] == 1.0)].assign(
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
            curve = NoiseCurve(
                own.rename(columns={"sigma_infer": "sigma"}).assign(loss=0.0), {"n_classes": 8}
            )
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
            frame.loc[(frame["seed"] == seed) & (frame["sigma_infer"] == sigma), "accuracy"] = accuracy
    (matrix,) = make_matrices(frame)
    assert matrix.midpoints() == pytest.approx(np.tile([2.0, np.inf, np.nan], (3, 1)), nan_ok=True)
    # At a level between others it is that level, too.
    frame.loc[frame["sigma_infer"] == 1.0, "accuracy"] = half
    assert make_matrices(frame)[0].midpoints()[:, 0] == pytest.approx(1.0)


def test_passes_are_those_of_each_level():
    (matrix,) = make_matrices(simulate(**(SMALL | {"draws": 7}), seeds=range(3)))
    assert matrix.n_draws.tolist() == [1, 7, 7, 7]
    assert matrix.counting == pytest.approx(1 / 845 / np.sqrt(12))


def test_the_mean_over_levels_is_the_area_below_the_curve():
    (matrix,) = make_matrices(simulate(seeds=range(3)))
    sigma = np.array(matrix.sigma_infer)
    area = np.trapezoid(matrix.accuracy, sigma, axis=1) / (sigma[-1] - sigma[0])
    assert matrix.mean_over_levels() == pytest.approx(area)
    (one,) = make_matrices(simulate(seeds=range(3), sigmas_infer=(0.5,)))
    assert one.mean_over_levels() == pytest.approx(one.accuracy[:, 0])
