"""Compensation from the command line: what is measured with it, recorded and labelled, and what is refused."""

import json
import math
from pathlib import Path

import pytest
import torch
from rounding import rounded

from asr_dni.cli.main import main
from asr_dni.evaluation import NoiseCurve
from asr_dni.evaluation.curves.experiments import label_experiments
from asr_dni.evaluation.questions.folder import read_evaluation
from asr_dni.identity import experiment_key
from asr_dni.inference import load
from asr_dni.inference.compensation import compensate_noise
from asr_dni.noise import Noise

TRAINED = 1.5


@pytest.fixture(scope="module")
def run(checkpoint, tmp_path_factory):
    """A run whose network was trained under noise, as its checkpoint says."""
    run = tmp_path_factory.mktemp("run")
    contents = torch.load(checkpoint, weights_only=True)
    contents["sigma_train"] = {"now": TRAINED, "annealed_to": TRAINED, "highest": TRAINED}
    (run / "checkpoints").mkdir()
    torch.save(contents, run / "checkpoints" / "last.ckpt")
    return run


def call(command, run, *options, name="last"):
    main([command, str(run / "checkpoints" / f"{name}.ckpt"), *map(str, options)])


def test_a_curve_with_compensation_is_an_experiment_of_its_own(run, spoken, tmp_path, capsys):
    shared = ("--data", spoken, "--split", "all", "--sigmas", "0,1,2", "--draws", "2", "--plot", "never")
    for name, options in {
        "plain": (),
        "auto": ("--compensation", "auto"),
        "two": ("--compensation", "2"),
    }.items():
        call("noise-curve", run, *shared, *options, "--output", tmp_path / name)
    told = capsys.readouterr().out
    assert "compensation does nothing at sigma 2: none of the training's 1.5 is missing there" in told
    curves = {
        name: NoiseCurve.from_csv(tmp_path / name / "noise_curve.csv") for name in ("plain", "auto", "two")
    }
    settings = {name: curve.settings for name, curve in curves.items()}
    expected = {
        "sigma": TRAINED,
        "scale": "absolute",
        "sites": ["input", "recurrent", "output"],
        "arrays": "joint",
    }
    assert settings["auto"]["compensation"] == expected
    assert "compensation" not in settings["plain"]
    assert len({settings[name]["weights"] for name in settings}) == 1
    assert len({experiment_key(its) for its in settings.values()}) == 3
    labels = label_experiments(list(settings.values()))
    assert [label.rpartition(", ")[2] for label in labels] == [
        "DNI σ_train=1.5",
        "compensated for σ_train=1.5",
        "compensated for σ_train=2",
    ]
    loss = {name: curve.frame.groupby("strength")["loss"].mean() for name, curve in curves.items()}
    assert loss["auto"][2.0] == rounded(loss["plain"][2.0])  # no noise is missing there
    assert all(loss["auto"][level] != loss["plain"][level] for level in (0.0, 1.0))
    spotter = load(run / "checkpoints" / "last.ckpt")
    by_hand = spotter.noise_curve(
        spotter.data(spoken, "all"), [0.0, 1.0, 2.0], 2, split="all", noise=Noise().compensating(2.0)
    )
    assert by_hand.frame["loss"].tolist() == pytest.approx(curves["two"].frame["loss"].tolist())
    main(["compare", str(tmp_path), "--output", str(tmp_path / "compared")])
    compared = (tmp_path / "compared" / "noise_curves.md").read_text()
    assert "compensated for σ_train=1.5" in compared
    assert "compensated for σ_train=2" in compared


def test_without_an_output_it_has_a_folder_of_its_own(run, spoken):
    call("noise-curve", run, "--data", spoken, "--split", "all", "--sigmas", "0", "--compensation", "0.75")
    (folder,) = (run / "checkpoints").glob("noise_curve-*compensation*")
    assert folder.name.endswith("-compensation_0.75")


def test_evaluate_has_it_in_every_table_and_in_what_it_keeps(run, spoken, tmp_path):
    shared = (
        "--data",
        spoken,
        "--split",
        "all",
        "--strengths",
        "0.5,1",
        "--draws",
        "2",
        "--figures",
        "false",
    )
    shared = (*shared, "--output", tmp_path, "--only", "curve,sensitivity")
    call("evaluate", run, *shared)
    call("evaluate", run, *shared, "--compensation", "auto")
    softened, plain = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    assert softened.name == "evaluation-compensation_1.5-words-all"
    curves = [read_evaluation(folder).curve for folder in (plain, softened)]
    assert curves[1].settings["compensation"]["sigma"] == TRAINED
    assert curves[0].frame["loss"].tolist() != curves[1].frame["loss"].tolist()
    # What is kept of one would not be taken for the other in one folder.
    kept = [{path.name for path in folder.glob("passes/*.npz")} for folder in (plain, softened)]
    assert not kept[0] & kept[1]


def test_predict_is_the_network_with_other_weights(run, spoken, tmp_path):
    files = sorted(path for path in Path(spoken).rglob("*.wav") if not path.parent.name.startswith("_"))[:3]
    rows = {}
    for name, options in {"plain": (), "softened": ("--compensation", TRAINED)}.items():
        call("predict", run, *files, *options, "--output", tmp_path / f"{name}.jsonl")
        rows[name] = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
    from asr_dni.nn import compensate

    spotter = load(run / "checkpoints" / "last.ckpt")
    spotter.network = compensate(spotter.network, Noise(sigma=TRAINED))
    for row, its in zip(rows["softened"], spotter.predict_files(files), strict=True):
        assert row["posteriors"] == pytest.approx(its.predictions[0].posteriors, abs=2e-6)
    assert any(
        not math.isclose(
            one["posteriors"][one["decision"]], other["posteriors"][one["decision"]], rel_tol=1e-3
        )
        for one, other in zip(rows["plain"], rows["softened"], strict=True)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--compensation", "0"), "--compensation is 0: give a sigma above 0, or auto"),
        (("--compensation", "-1"), "--compensation is -1: give a sigma above 0, or auto"),
        (("--compensation", "much"), "compensation: expected one of 'auto'; expected float. Got much"),
        (
            (
                "--hardware",
                "noisy_weights",
                "--strength",
                "adc.bits",
                "--strengths",
                "4",
                "--compensation",
                "auto",
            ),
            "compensation is for Gaussian noise on outputs alone",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(options, message, run, spoken, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        call("noise-curve", run, "--data", spoken, "--split", "all", *options, "--output", tmp_path / "curve")
    assert error.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "curve").exists()


def test_auto_makes_up_for_what_the_annealing_reached(run, tmp_path):
    contents = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    contents["sigma_train"] = {"now": 0.5, "annealed_to": TRAINED, "highest": 0.5}
    torch.save(contents, tmp_path / "early.ckpt")
    model = load(tmp_path / "early.ckpt").model
    assert compensate_noise(Noise(), "auto", model).compensation == Noise(0.5).hardware


@pytest.mark.parametrize(
    ("trained", "message"),
    [
        (
            {"sigma_train": {"now": 0.0, "annealed_to": 0.0, "highest": 0.0}},
            "trained without noise: give the sigma",
        ),
        ({"trainings": [{"annealing.drawn": "batch"}]}, "strengths drawn at random: give the sigma"),
    ],
)
def test_auto_needs_a_training_under_noise_of_one_strength(trained, message, run, spoken, tmp_path, capsys):
    contents = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    (tmp_path / "checkpoints").mkdir()
    torch.save(contents | trained, tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(SystemExit):
        call("noise-curve", tmp_path, "--data", spoken, "--split", "all", "--compensation", "auto")
    assert message in " ".join(capsys.readouterr().err.split())
