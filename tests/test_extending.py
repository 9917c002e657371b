"""The front end and the data set of docs/extending.md, as a user would have them in a module of his own."""

import linecache
import os
import sys

import librosa
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from test_docs import example
from test_named_classes import fails

import asr_dni
from asr_dni.cli.main import main
from asr_dni.data import ClipFeatures, DigitsData, KeywordData, data_class_of, data_from_checkpoint
from asr_dni.data.folder import Folder
from asr_dni.errors import UserError
from asr_dni.features import MFCC, FrontEnd, LogMel
from asr_dni.study.reading import read_study

pytestmark = pytest.mark.filterwarnings("ignore")

RUN = {
    "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    "model": {"network": {"units": 4, "layers": 1}},
    "noise_curve": {"sigmas": [0.0, 1.0], "draws": 1, "every_n_epochs": 0},
    "checkpoint": {"monitor": None},
    "wandb": "disabled",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder with the user's modules and a run's settings."""
    (tmp_path / "my_front_ends.py").write_text(example("PCEN"))
    (tmp_path / "my_data.py").write_text(example("TemporalOrder"))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(RUN))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PL_GLOBAL_SEED", os.environ.get("PL_GLOBAL_SEED", "0"))
    yield tmp_path
    for name in ("my_front_ends", "my_data"):
        sys.modules.pop(name, None)


LAST = "runs/spotter/version_0/checkpoints/last.ckpt"


def test_a_front_end_of_ones_own_works_from_training_to_decisions(here, tone_words, capsys):
    settings = {
        **RUN,
        "data": {
            "source": {"class_path": "asr_dni.data.Folder", "init_args": {"path": str(tone_words)}},
            "front_end": {"class_path": "my_front_ends.PCEN", "init_args": {"n_mels": 20}},
            "augmentation": {"background_probability": 0, "frequency_masks": 1},
        },
    }
    (here / "own.yaml").write_text(yaml.safe_dump(settings))
    assert "--allow my_front_ends" in fails(capsys, "fit", "--config", "own.yaml")
    own = ["--allow", "my_front_ends"]
    main(["fit", "--config", "own.yaml", *own, "--data.front_end.smoothing", "0.04"])
    main(["noise-curve", LAST, *own, "--sigmas", "0", "--data", str(tone_words), "--output", "curve"])
    assert pd.read_csv("curve/noise_curve.csv", comment="#")["n_clips"].min() > 0

    main(["predict", LAST, str(next((tone_words / "yes").iterdir())), *own, "--format", "csv"])
    assert "yes" in capsys.readouterr().out

    from my_front_ends import PCEN

    spotter = asr_dni.load(LAST)
    assert type(spotter.features.front_end) is PCEN
    assert spotter.features.front_end.smoothing == 0.04
    waveform = np.sin(np.arange(16000)).astype("f4")
    assert spotter.predict(waveform, 16000).label in spotter.label_names
    data = KeywordData.from_checkpoint(LAST)
    assert data.result_settings()["front_end"] == {
        "class": "PCEN",
        "sample_rate": 16000,
        "n_mels": 20,
        "smoothing": 0.04,
    }
    frames = torch.cat([batch.features.flatten(0, 1) for batch in data.batches("train")])
    torch.testing.assert_close(frames.mean(0), torch.zeros(20), atol=1e-3, rtol=0)
    torch.testing.assert_close(frames.std(0, correction=0), torch.ones(20), atol=1e-3, rtol=0)
    sys.modules.pop("my_front_ends")
    with pytest.raises(UserError, match=r"last\.ckpt.*my_front_ends\.PCEN: .*import my_front_ends before"):
        asr_dni.load(LAST)


def test_the_front_end_of_the_document_is_pcen(here):
    from my_front_ends import PCEN

    front_end = PCEN()
    waveforms = torch.randn(3, 16000, generator=torch.Generator().manual_seed(0)) * torch.linspace(
        0, 0.3, 16000
    )
    energy = front_end.energies(waveforms).double().numpy()
    for k in range(3):
        expected = librosa.pcen(energy[k], b=0.025, zi=np.zeros((40, 1)))
        np.testing.assert_allclose(front_end(waveforms)[k].T.numpy(), expected, rtol=1e-3, atol=1e-4)


def test_a_front_end_that_computes_clips_anew_has_not_the_stream_of_the_class_above():
    class Louder(LogMel):
        def forward(self, waveforms):
            return super().forward(waveforms / waveforms.abs().amax(-1, keepdim=True))

    class Cropped(MFCC):
        pass

    with pytest.raises(UserError, match="Louder has no stream"):
        ClipFeatures(Louder()).stream()
    ClipFeatures(Cropped()).stream()
    assert (Louder().n_mel_bands, Cropped().n_mel_bands) == (0, 40)
    with pytest.raises(UserError, match="Louder makes its features of no mel bands"):
        Louder().with_masked_bands(torch.zeros(1, 16000), torch.zeros(1, 40) > 0, torch.zeros(40))


def test_a_front_end_that_does_not_do_what_it_says_is_an_error():
    class Odd(MFCC):
        def n_frames(self, n_samples):
            return 3

    with pytest.raises(
        UserError, match=r"Odd makes \(49, 20\) frames and features .* says that it makes \(3, 20\)"
    ):
        ClipFeatures(Odd(), normalize=False)(torch.zeros(1, 16000))


def test_statistics_are_not_those_of_a_front_end_that_computed_something_else(
    tone_words, tmp_path, monkeypatch
):
    """A class that was edited has the same name and arguments, but not the same features."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    found = []
    for factor in (1, 2, 1):
        (tmp_path / "edited.py").write_text(
            f"from asr_dni.features import LogMel\n\nFACTOR = {factor}\n\n\nclass Edited(LogMel):\n"
            "    def forward(self, waveforms):\n        return FACTOR * super().forward(waveforms)\n"
        )
        sys.modules.pop("edited", None)
        sys.path_importer_cache.clear()
        linecache.clearcache()
        from edited import Edited

        data = KeywordData(Folder(tone_words), front_end=Edited(n_mels=20), cache_dir=tmp_path / "cache")
        data.setup("fit")
        found.append(data.statistics()["mean"].clone())
    sys.modules.pop("edited")
    torch.testing.assert_close(found[1], 2 * found[0])
    assert torch.equal(found[2], found[0])


def test_a_front_end_is_named_on_the_command_line(here, capsys):
    source = ["--data.source", "Folder", "--data.source.path", "words"]
    main_of = lambda *more: main(["fit", "--config", "run.yaml", *source, *more, "--print_config"])  # noqa: E731
    with pytest.raises(SystemExit):
        main_of("--data.front_end", "LogMel", "--data.front_end.n_mels", "30")
    chosen = yaml.safe_load(capsys.readouterr().out)["data"]["front_end"]
    assert chosen["class_path"] == "asr_dni.features.LogMel"
    assert chosen["init_args"]["n_mels"] == 30
    with pytest.raises(SystemExit):
        main_of("--data.front_end.n_mfcc", "13")
    chosen = yaml.safe_load(capsys.readouterr().out)["data"]["front_end"]
    assert (chosen["class_path"], chosen["init_args"]["n_mfcc"]) == ("asr_dni.features.MFCC", 13)
    run = ["fit", "--config", "run.yaml", *source]
    assert "did you mean LogMel?" in fails(capsys, *run, "--data.front_end", "LogMels")
    assert "no setting 'n_mfsc'" in fails(capsys, *run, "--data.front_end.n_mfsc", "3")
    assert "not a FrontEnd" in fails(capsys, *run, "--data.front_end", "asr_dni.data.Folder")


def test_another_class_starts_from_its_own_defaults_and_keeps_what_was_said(here, capsys):
    """Not from the defaults of the class that it takes the place of."""
    (here / "mine.py").write_text(
        "from asr_dni.features import LogMel\n\n\nclass Wide(LogMel):\n"
        "    def __init__(self, n_mels: int = 64, window_ms: float = 40.0, hop_ms: float = 10.0):\n"
        "        super().__init__(n_mels=n_mels, window_ms=window_ms, hop_ms=hop_ms)\n"
    )
    command = ["fit", "--allow", "mine", "--data.source", "Folder", "--data.source.path", "words"]
    for said, expected in (
        ([], {"n_mels": 64, "window_ms": 40.0, "hop_ms": 10.0}),
        (["--data.front_end.window_ms", "25"], {"n_mels": 64, "window_ms": 25.0, "hop_ms": 10.0}),
    ):
        with pytest.raises(SystemExit):
            main([*command, *said, "--data.front_end", "mine.Wide", "--print_config"])
        assert yaml.safe_load(capsys.readouterr().out)["data"]["front_end"]["init_args"] == expected
    (here / "study.yaml").write_text("data_class: DigitsData\n")
    assert read_study("study.yaml").data["init_args"]["batch_size"] == DigitsData().batch_size == 64
    sys.modules.pop("mine")


def test_a_front_end_and_its_arguments_are_known_to_what_it_came_from():
    for front_end in (MFCC(13, n_mels=30, deltas=1), LogMel(hop_ms=10)):
        again = asr_dni.configuration.from_configuration(front_end.configuration(), FrontEnd, "front_end")
        assert again.configuration() == front_end.configuration()
        assert again.identity["class"] == type(front_end).__name__


def test_a_data_set_of_ones_own_works_from_training_to_decisions(here, capsys):
    own = ["--config", "run.yaml", "--data.length", "20", "--data.n_train", "64"]
    assert "--allow my_data" in fails(capsys, "fit", *own, "--data_class", "my_data.TemporalOrder")
    said = fails(capsys, "fit", *own, "--allow", "my_data", "--data_class", "TemporalOdor")
    assert "give one of TemporalOrder, KeywordData, DigitsData" in said
    with pytest.raises(SystemExit):
        main(["fit", *own, "--allow", "my_data", "--data_class", "TemporalOrder", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["data"]["batch_size"] == 64
    main(["fit", *own, "--allow", "my_data", "--data_class", "my_data.TemporalOrder"])
    from my_data import TemporalOrder

    contents = torch.load(LAST, weights_only=True)
    assert data_class_of(contents) is TemporalOrder
    data = data_from_checkpoint(LAST, batch_size=100)
    assert (data.length, data.n_train, data.batch_size) == (20, 64, 100)
    assert data.result_settings() == {"length": 20, "n_train": 64, "batch_size": 100}
    main(["noise-curve", LAST, "--allow", "my_data", "--sigmas", "0,1", "--draws", "1", "--output", "curve"])
    assert set(pd.read_csv("curve/noise_curve.csv", comment="#")["n_clips"]) == {500}
    main(["test", "--ckpt_path", LAST, "--allow", "my_data"])
    batch = next(data.batches("test"))
    assert batch.features.shape == (100, 20, 6)
    assert data.clip_names(batch.clip_ids)[:2] == ["test/0", "test/1"]
    contents["TemporalOrder"]["label_names"] = 7
    with pytest.raises(UserError, match=r"TemporalOrder\.label_names is not what it has to be"):
        data_from_checkpoint(contents)


def test_a_study_of_a_data_set_of_ones_own(here, capsys):
    (here / "study.yaml").write_text(
        "data_class: TemporalOrder\ndata: {length: 20, n_train: 64}\nunits: [2]\nepochs: 1\nseeds: 1\n"
    )
    main(["study", "plan", "study.yaml", "--allow", "my_data", "--measure", "false"])
    assert "64 training clips in batches of 64, 20 frames of 6 features" in capsys.readouterr().out


def test_examples_that_do_not_fit_together_are_one_line(here):
    from my_data import TemporalOrder

    class Twice(TemporalOrder):
        def examples(self):
            made = super().examples()
            return {**made, "test": made["train"]}

    class Short(TemporalOrder):
        def examples(self):
            made = super().examples()
            return {**made, "test": made["test"]._replace(features=made["test"].features[:, :-1])}

    class Fewer(TemporalOrder):
        label_names = ("XX", "XY", "YX")

    with pytest.raises(UserError, match="labels from 0 to 3; expected positions in the 3 label names"):
        Fewer(20, 64).prepare_data()
    with pytest.raises(UserError, match="two examples share a name"):
        Twice(20, 64).prepare_data()
    with pytest.raises(UserError, match=r"the test split has features \(500, 19, 6\), 500 labels"):
        Short(20, 64).prepare_data()
