"""The catalogue of results: what it finds, calls and pools, and what it makes of damage."""

import pytest
from test_figures import make_curve

from asr_dni.catalogue import Catalogue
from asr_dni.catalogue.compare import compare_curves
from asr_dni.errors import UserError
from asr_dni.noise import Strength


def save_run(folder, sigma_train=0.0, seed=0, accuracies=(0.9, 0.8, 0.3), **more):
    """A run's folder with its configuration, metrics and curve."""
    settings = {"sigma_train": sigma_train, "seed": seed, "weights": f"{folder.name}{sigma_train}{seed}"}
    make_curve(accuracies, **settings, **more).to_csv(folder / "noise_curve.csv")
    (folder / "config.yaml").write_text(
        f"seed_everything: {seed}\nname: {folder.name}\nmodel:\n  network: {{cell: lstm, units: 8}}\n"
        f"annealing: {{sigma: {sigma_train}}}\n",
        encoding="utf-8",
    )
    (folder / "metrics.csv").write_text("epoch,step,train/loss\n0,9,0.5\n", encoding="utf-8")
    return folder


@pytest.fixture
def runs(tmp_path):
    """Two experiments of three seeds."""
    for sigma in (2.0, 0.0):
        for seed in (10, 9, 1):
            start = 0.9 - 0.01 * seed / 10
            save_run(tmp_path / f"lstm_{sigma:g}" / f"seed_{seed}", sigma, seed, (start, 0.8, 0.3))
    return tmp_path


def test_runs_have_one_identity_label_and_experiment(runs):
    frame = Catalogue(runs).runs()
    assert frame["run"].tolist() == [f"lstm_{sigma}/seed_{seed}" for sigma in "02" for seed in (1, 9, 10)]
    assert frame["label"].tolist() == ["conventional"] * 3 + ["DNI σ_train=2"] * 3
    assert frame.groupby("label")["experiment"].nunique().tolist() == [1, 1]
    assert frame["experiment"].nunique() == 2
    assert frame["seed"].tolist() == [1, 9, 10] * 2
    assert set(frame["state"]) == {"finished"}
    assert set(frame["message"]) == {""}
    assert frame["settings.model.network.cell"].tolist() == ["lstm"] * 6
    assert frame["clean_accuracy"][0] == pytest.approx(0.899)


def test_a_run_tells_all_that_is_in_its_folder(runs):
    folder = runs / "lstm_0" / "seed_1"
    make_curve(seed=1).to_csv(folder / "checkpoints" / "noise_curve-last-own-test" / "noise_curve.csv")
    run = Catalogue(runs).run("lstm_0/seed_1")
    assert run.path == folder
    assert run.settings["model"]["network"] == {"cell": "lstm", "units": 8}
    assert set(run.curves()) == {"noise_curve", "noise_curve-last-own-test"}
    assert run.metrics()["train/loss"].tolist() == [0.5]


def test_summaries_pool_seeds_as_compare_does(runs):
    summaries = Catalogue(runs).summaries()
    expected = compare_curves([runs]).summaries
    assert list(summaries) == list(expected)
    for label, summary in summaries.items():
        assert summary.interval == expected[label].interval
        assert summary.frame.equals(expected[label].frame)


@pytest.mark.parametrize("identity", ["../..", "/etc", "lstm_0/../../x", "a\0b", "..\\x", ""])
def test_what_lies_outside_is_refused(runs, identity):
    catalogue = Catalogue(runs)
    for find in (catalogue.run, catalogue.study):
        with pytest.raises(UserError):
            find(identity)


def test_links_out_of_the_folder_are_not_followed(runs, tmp_path_factory):
    outside = save_run(tmp_path_factory.mktemp("outside") / "secret")
    (runs / "linked").symlink_to(outside)
    (runs / "lstm_0" / "seed_1" / "noise_curve.csv").unlink()
    (runs / "lstm_0" / "seed_1" / "noise_curve.csv").symlink_to(outside / "noise_curve.csv")
    catalogue = Catalogue(runs)
    frame = catalogue.runs().set_index("run")
    assert "linked" not in frame.index
    assert frame.loc["lstm_0/seed_1", "state"] == "damaged"
    assert "leads out of the folder" in frame.loc["lstm_0/seed_1", "message"]
    with pytest.raises(UserError, match="no run 'linked'"):
        catalogue.run("linked")


def test_curves_over_different_strengths_are_told_apart(runs):
    save_run(runs / "bits", 0.0, 1, strength={"path": "adc.bits", "unit": ""})
    catalogue = Catalogue(runs)
    assert catalogue.strengths() == [Strength.sigma("signal"), Strength("adc.bits")]
    (bits,) = catalogue.summaries(strength=Strength("adc.bits")).values()
    assert bits.strength == Strength("adc.bits")
    assert len(catalogue.summaries()) == 2
