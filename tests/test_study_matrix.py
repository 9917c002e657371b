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
