"""The trained networks that come with the package: found by name, as good as their cards say."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import asr_dni
from asr_dni.checkpoint import read_checkpoint
from asr_dni.cli.main import main
from asr_dni.errors import UserError
from asr_dni.evaluation import NoiseCurve
from asr_dni.model import KeywordNetwork
from asr_dni.model.foreign_weights import SavedWeights, take_weights
from asr_dni.models import FOLDER, PackagedModel, find_checkpoint, model_names
from asr_dni.noise import Noise

CLIPS = Path(__file__).parents[2] / "shared" / "data" / "speech_commands_8"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every command is started in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fails(capsys, *command: str) -> str:
    """Run a command with a mistake, and return the one line that says so."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(list(command))
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert re.fullmatch(r"asr-dni: error: [^\n]+\n", said.err), said.err
    return said.err


def test_there_is_a_conventional_network_and_one_trained_under_noise():
    assert {"eight_words_conventional", "eight_words_dni"} <= set(model_names())


@pytest.mark.parametrize("name", model_names())
def test_a_network_is_small_whole_and_says_where_it_comes_from(name):
    model = PackagedModel.named(name)
    assert model.checkpoint.stat().st_size <= 1_000_000
    contents = read_checkpoint(name)
    assert "optimizer_states" not in contents
    assert sum(its.numel() for its in asr_dni.load(name).network.parameters()) == model.parameters
    assert tuple(contents["KeywordData"]["label_names"]) == model.labels
    assert "CC BY 4.0" in model.data
    assert model.training.startswith("asr-dni fit --config ")
    for file in (model.curve, model.curve.with_suffix(".yaml")):
        assert not re.search(r"(?<![\w.])/(home|root|work|tmp|Users)/", file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", model_names())
def test_a_name_is_as_good_as_a_file_in_python(name):
    spotter = asr_dni.load(name)
    clip = np.random.default_rng(0).uniform(-0.1, 0.1, 16000)
    by_file = asr_dni.load(FOLDER / f"{name}.ckpt").predict(clip, 16000, noise=Noise(sigma=1.0), name="clip")
    assert spotter.predict(clip, 16000, noise=Noise(sigma=1.0), name="clip") == by_file
    assert spotter.label_names == list(PackagedModel.named(name).labels)


@pytest.mark.skipif(not CLIPS.is_dir(), reason="needs recordings of the eight words")
def test_commands_take_a_name_and_write_into_the_folder_of_runs(elsewhere, capsys):
    words = elsewhere / "words"
    for word in ("yes", "stop"):
        (words / word).mkdir(parents=True)
        for clip in sorted((CLIPS / word).iterdir())[:6]:
            (words / word / clip.name).symlink_to(clip)
    main(["predict", "eight_words_dni", str(words), "--format", "csv", "--output", "decisions.csv"])
    decided = [line.split(",") for line in Path("decisions.csv").read_text().splitlines()[1:]]
    right = sum(Path(row[0]).parent.name in row for row in decided)
    assert len(decided) == 12
    assert right >= 10
    main(
        [
            "noise-curve",
            "eight_words_dni",
            "--data",
            str(words),
            "--split",
            "all",
            "--sigmas",
            "0",
            "--draws",
            "1",
        ]
    )
    (curve,) = elsewhere.glob("runs/eight_words_dni/*/noise_curve.csv")
    assert NoiseCurve.from_csv(curve).settings["checkpoint"] == "eight_words_dni"
    assert sorted(path.name for path in FOLDER.iterdir() if path.suffix == ".csv") == sorted(
        f"{name}.csv" for name in model_names()
    )


@pytest.mark.slow
@pytest.mark.skipif(not CLIPS.is_dir(), reason="needs recordings of the eight words")
@pytest.mark.parametrize("name", model_names())
def test_a_network_is_as_good_as_its_curve_says(name, elsewhere, capsys):
    (elsewhere / "data").mkdir()
    (elsewhere / "data" / "speech_commands_8").symlink_to(CLIPS)
    main(["noise-curve", name, "--sigmas", "0,2", "--draws", "2", "--output", "measured"])
    measured = NoiseCurve.from_csv(elsewhere / "measured" / "noise_curve.csv").frame
    told = NoiseCurve.from_csv(PackagedModel.named(name).curve).frame
    told = told[told["strength"].isin([0.0, 2.0]) & (told["draw"] < 2)]
    # Another processor's kernels may decide a few clips otherwise, whose logits lie close.
    clips = int(told["n_clips"].iloc[0])
    assert np.abs(measured["accuracy"].to_numpy() - told["accuracy"].to_numpy()).max() <= 3 / clips


def test_a_file_wins_over_a_name(elsewhere):
    name = model_names()[0]
    torch.save({"own": torch.zeros(1)}, name)
    assert find_checkpoint(name) == Path(name)
    assert list(read_checkpoint(name)) == ["own"]


def test_list_show_and_copy(elsewhere, capsys):
    main(["models"])
    listed = capsys.readouterr().out
    for name in model_names():
        assert name in listed
        main(["models", "show", name])
        shown = capsys.readouterr().out
        assert PackagedModel.named(name).training.split()[-1] in shown
        assert "845 clips" in " ".join(shown.split())
    main(["models", "copy", name, "--to", "mine"])
    assert (elsewhere / "mine" / f"{name}.ckpt").read_bytes() == find_checkpoint(name).read_bytes()
    (elsewhere / "mine" / f"{name}.csv").write_text("my own")
    assert "is there and differs" in fails(capsys, "models", "copy", name, "--to", "mine")
    assert (elsewhere / "mine" / f"{name}.csv").read_text() == "my own"


def test_an_unknown_name_is_told_with_similar_ones(capsys):
    assert "similar: eight_words_dni" in fails(capsys, "models", "show", "eight_words_dnj")
    assert "similar: eight_words_dni" in fails(capsys, "predict", "eight_words_dnj", "x.wav")
    assert "there is no such checkpoint file" in fails(capsys, "predict", "runs/x.ckpt", "x.wav")
    with pytest.raises(UserError, match="asr-dni models lists"):
        asr_dni.load("something")


def test_a_training_begins_with_the_weights_of_a_packaged_network():
    weights = SavedWeights.read("eight_words_dni")
    network = asr_dni.load("eight_words_dni").network
    assert weights.path == find_checkpoint("eight_words_dni")
    untrained = KeywordNetwork(network.settings, network.n_features, len(network.classifier.bias))
    take_weights(untrained, weights.by_name)
    for name, value in network.named_parameters():
        torch.testing.assert_close(dict(untrained.named_parameters())[name], value)
