import os

import pandas as pd
import pytest
from test_figures import make_curve

from asr_dni.errors import UserError
from asr_dni.evaluation.compare import compare_curves, find_curves


def save_runs(folder, **more):
    """Two experiments with three seeds each."""
    for sigma_train, start in ((2.0, 0.95), (0.0, 0.9)):
        for seed in range(3):
            settings = {"sigma_train": sigma_train, "seed": seed, "checkpoint": f"{sigma_train}-{seed}.ckpt"}
            curve = make_curve((start + 0.01 * seed, 0.8, 0.3), **settings, **more)
            curve.to_csv(folder / f"{sigma_train}" / f"seed{seed}" / "noise_curve.csv")


def test_seeds_are_pooled_and_experiments_compared(tmp_path):
    save_runs(tmp_path / "runs")
    comparison = compare_curves([tmp_path / "runs"], tmp_path / "out")
    assert list(comparison.summaries) == ["conventional", "DNI σ_train=2"]
    summary = comparison.summaries["conventional"]
    assert summary.interval == "95 % interval over 3 seeds"
    assert summary.frame["accuracy"][0] == pytest.approx(0.91)
    assert summary.frame["high"][0] - 0.91 == pytest.approx(4.302653 * 0.01 / 3**0.5)
    assert [path.name for path in comparison.files] == [
        "noise_curves.png",
        "noise_curves.svg",
        "noise_curves.md",
        "noise_curves.csv",
    ]
    assert all(path.stat().st_size > 0 for path in comparison.files)
    assert (tmp_path / "out" / "noise_curves.md").read_text(encoding="utf-8") == comparison.markdown
    frame = pd.read_csv(tmp_path / "out" / "noise_curves.csv")
    assert frame.groupby("label")["accuracy"].first()["DNI σ_train=2"] == pytest.approx(0.96)


def test_validation_curves_are_not_taken_for_tests(tmp_path):
    make_curve().to_csv(tmp_path / "a" / "noise_curve_validation.csv")
    with pytest.raises(UserError, match=r"holds no noise_curve\.csv"):
        find_curves([tmp_path])


def test_a_file_named_twice_counts_once(tmp_path):
    path = make_curve().to_csv(tmp_path / "noise_curve.csv")
    assert find_curves([path, tmp_path]) == [path]


def test_labels_name_what_differs(tmp_path):
    for cell in ("LSTM", "GRU"):
        for units in (64, 128):
            make_curve(sigma_train=0.0, cell=cell, units=units, seed=0).to_csv(
                tmp_path / f"{cell}{units}.csv"
            )
    labels = list(compare_curves(sorted(tmp_path.glob("*.csv"))).summaries)
    assert "conventional, LSTM, units 64" in labels
    assert len(labels) == 4


def test_given_labels_are_kept(tmp_path):
    paths = [make_curve(label=name, seed=0).to_csv(tmp_path / f"{name}.csv") for name in ("before", "after")]
    assert list(compare_curves(paths).summaries) == ["before", "after"]


def test_one_training_is_not_two_seeds(tmp_path):
    first = make_curve(seed=1).to_csv(tmp_path / "a.csv")
    same_seed = make_curve((0.8, 0.7, 0.6), seed=1).to_csv(tmp_path / "b.csv")
    with pytest.raises(UserError, match=r"a\.csv and .*b\.csv are of the same experiment and seed 1"):
        compare_curves([first, same_seed])
    copy = make_curve(seed=2).to_csv(tmp_path / "c.csv")
    with pytest.raises(UserError, match="hold the same curve"):
        compare_curves([first, copy])


def test_of_a_training_evaluated_twice_the_newest_curve_counts(tmp_path):
    save_runs(tmp_path / "runs")
    older = tmp_path / "runs" / "2.0" / "seed0" / "noise_curve.csv"
    os.utime(older, (0, 0))
    settings = {"sigma_train": 2.0, "seed": 0, "checkpoint": "moved.ckpt"}
    make_curve((0.5, 0.4, 0.3), **settings).to_csv(tmp_path / "runs" / "again" / "noise_curve.csv")
    comparison = compare_curves([tmp_path / "runs"])
    assert comparison.left_out == (older,)
    dni = comparison.summaries["DNI σ_train=2"].frame
    assert dni["n_seeds"].tolist() == [3, 3, 3]
    assert dni["accuracy"][0] == pytest.approx((0.5 + 0.96 + 0.97) / 3)


def test_curves_of_other_scales_are_refused(tmp_path):
    paths = [make_curve(scale=scale).to_csv(tmp_path / f"{scale}.csv") for scale in ("signal", "absolute")]
    with pytest.raises(UserError, match="can't be"):
        compare_curves(paths)


def test_missing_paths_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        compare_curves([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="nothing to compare"):
        compare_curves([])
