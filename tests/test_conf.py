import json
from pathlib import Path

import pytest
import torch
import yaml
from recordings import make_folder

from asr_dni.cli.lightning import run_lightning
from asr_dni.configuration import read_layers
from asr_dni.models import PackagedModel

CONF = Path(__file__).parents[1] / "conf"
EXPERIMENTS = sorted((CONF / "experiment").glob("*.yaml"))
WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "cat")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The ten words of the 12-label task and an unknown one."""
    return make_folder(tmp_path_factory.mktemp("conf") / "words", WORDS, (2, 1, 1))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")
def test_an_experiment_takes_a_step_with_a_noise_curve(path, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    options = {
        "config": path,
        "data.batch_size": 8,
        "trainer.fast_dev_run": 1,
        "trainer.accelerator": "cpu",
        "wandb": "disabled",
        "noise_curve.validation_draws": 1,
    }
    n_labels = 10
    if not path.stem.startswith(("digits", "strokes")):
        n_labels = len(WORDS)
        options |= {
            "data.source": "asr_dni.data.Folder",
            "data.source.init_args.path": folder,
            "data.cache_dir": folder.parent / "cache",
        }
    if "speech_commands_12" in path.stem:
        n_labels = 12
        options["data.labels.test_set"] = "rule"  # the other one is an archive of its own
    if "distilled" in path.stem:  # whose teachers know eight of the words
        words = PackagedModel.named("eight_words_dni").labels
        n_labels, options["data.labels.words"] = len(words), json.dumps(words)
    cli = run_lightning("fit", [f"--{key}={value}" for key, value in options.items()])
    assert cli.trainer.global_step == 1
    assert all(bool(torch.isfinite(parameter).all()) for parameter in cli.model.parameters())
    for sigma in (1.0, 2.0):
        assert 0 <= float(cli.trainer.callback_metrics[f"val/accuracy@{sigma}"]) <= 1
    assert len(cli.model.label_names) == n_labels
    network = cli.model.network.settings
    kind = next(word for word in path.stem.split("_") if word in ("lstm", "gru", "rnn", "crnn"))
    assert (network.cell, network.convolutions is None) == (
        ("lstm", False) if kind == "crnn" else (kind, True)
    )
    annealing = next(c for c in cli.trainer.callbacks if type(c).__name__ == "NoiseAnnealing")
    assert (annealing.sigma > 0) == ("_dni" in path.stem)
    on_convolutions = "convolution" in cli.model.training_noise.hardware.sites
    assert on_convolutions == path.stem.endswith("_everywhere")


def test_every_file_is_a_layer_of_an_experiment():
    """So that the steps above have parsed every file; hardware, studies, sweeps and loggers have their own tests."""

    def below(path):
        layers = yaml.safe_load(path.read_text()).get("layers", [])
        return {path.resolve()}.union(*(below(path.parent / layer) for layer in layers))

    apart = ("hardware", "study", "sweep", "logger")
    others = {path.resolve() for name in apart for path in (CONF / name).rglob("*.yaml")}
    files = {path.resolve() for path in CONF.rglob("*.yaml")} - others
    assert set().union(*map(below, EXPERIMENTS)) == files


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_file_is_read_and_says_what_it_is_for(path):
    assert read_layers(path)
    assert path.read_text().startswith("# ")
