"""A run in two processes gives what one process gives, once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from recordings import make_folder

import asr_dni
from asr_dni.cli.main import main
from asr_dni.errors import UserError
from asr_dni.model import load_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")

CHECKPOINT = "runs/fit/version_0/checkpoints/last.ckpt"
COMMANDS = {
    "fit": ["--config", "settings.yaml"],
    "test": ["--ckpt_path", CHECKPOINT, "--wandb", "disabled"],
    "validate": ["--ckpt_path", CHECKPOINT],
    "predict": ["--ckpt_path", CHECKPOINT],
}
TWO = ["--trainer.strategy", "ddp", "--trainer.devices", "2", "--data.batch_size", "4"]
PROGRAM = """
import json, sys
from asr_dni.cli.main import main
for arguments in json.loads(sys.argv[1]):
    main(arguments)
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """9 clips to validate and 9 to test: one process gets 5, in batches of 4 and 1, and the other 4."""
    return make_folder(tmp_path_factory.mktemp("words"), per_split=(6, 3, 3))


def prepare(folder: Path, words: Path, batch_size: int, wandb: str) -> None:
    settings = {
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "log_every_n_steps": 1},
        "data": {
            "source": {"class_path": "asr_dni.data.Folder", "init_args": {"path": str(words)}},
            "cache_dir": str(words.parent / "cache"),
            "batch_size": batch_size,
        },
        "model": {"network": {"units": 4, "layers": 1}, "noise": {"scale": "signal"}, "calibrate_every": 2},
        "annealing": {"sigma": 0.5},
        "noise_curve": {"sigmas": [0.0, 1.0], "draws": 2, "scale": "range", "every_n_epochs": 1},
        "wandb": wandb,
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))


@pytest.fixture(scope="module")
def one(words, tmp_path_factory):
    """The folder of the commands in this process."""
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PL_GLOBAL_SEED", os.environ.get("PL_GLOBAL_SEED", "0"))
        prepare(folder, words, 8, "disabled")
        for command, options in COMMANDS.items():
            main([command, *options, "--name", command])
    return folder


@pytest.fixture(scope="module")
def two(words, tmp_path_factory):
    """The folder of the same commands in two processes, and what they printed."""
    folder = tmp_path_factory.mktemp("two")
    prepare(folder, words, 4, "offline")
    (folder / "program.py").write_text(PROGRAM)
    commands = [[command, *options, "--name", command, *TWO] for command, options in COMMANDS.items()]
    result = subprocess.run(
        [sys.executable, "program.py", json.dumps(commands)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(asr_dni.__file__).parents[1]), "WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return folder, result.stdout, result.stderr


def metrics(folder: Path, command: str) -> pd.DataFrame:
    return pd.read_csv(folder / "runs" / command / "version_0" / "metrics.csv")


def test_two_processes_train_the_network_that_one_trains(one, two):
    expected, found = (load_checkpoint(folder / CHECKPOINT) for folder in (one, two[0]))
    assert found["global_step"] == expected["global_step"] == 6
    statistics = [name for name in expected["state_dict"] if "signal_statistics" in name]
    assert len(statistics) == 2 * 2  # of sites and of outputs
    assert found["state_dict"].keys() == expected["state_dict"].keys()
    for name, value in expected["state_dict"].items():
        torch.testing.assert_close(found["state_dict"][name], value, rtol=1e-4, atol=1e-5)


def test_losses_and_accuracies_are_those_of_all_clips(one, two):
    for command in ("fit", "test", "validate"):
        expected, found = metrics(one, command), metrics(two[0], command)
        assert len(found) == len(expected)
        assert set(found) == set(expected)
        names = [name for name in expected if "loss" in name or "accuracy" in name]
        assert any(name.endswith("/loss") for name in names)
        pd.testing.assert_frame_equal(found[names], expected[names], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "curve",
    ["fit/version_0/noise_curve", "test/version_0/noise_curve", "validate/version_0/noise_curve_validation"],
)
def test_the_noise_curve_is_that_of_all_clips(one, two, curve):
    frames = [pd.read_csv(folder / "runs" / f"{curve}.csv", comment="#") for folder in (one, two[0])]
    pd.testing.assert_frame_equal(*frames, rtol=1e-4)
    assert set(frames[1]["n_clips"]) == {9}


def test_every_clip_is_decided_once_in_the_same_file(one, two):
    expected, found = (
        pd.read_csv(folder / "runs" / "predict" / "version_0" / "predictions.csv") for folder in (one, two[0])
    )
    assert len(found) == 9 == found["clip"].nunique()
    pd.testing.assert_frame_equal(found, expected, atol=1e-4)


def test_one_process_speaks_and_writes_for_both(one, two):
    folder, said, errors = two
    for command in COMMANDS:
        assert [path.name for path in (folder / "runs" / command).iterdir()] == ["version_0"]
    for line in ("results go to", "epoch 1/2 ", "epoch 2/2 ", "decisions written to", "W&B, offline: "):
        assert said.count(line) == 1, line
    assert said.count("results are in") == 3
    assert "rank" not in errors.lower()
    assert len(list(folder.glob("runs/*/*/wandb/offline-run-*"))) == 1
    written, expected = (
        {str(path.relative_to(root)) for path in root.glob("runs/**/*") if "wandb" not in str(path)}
        for root in (folder, one)
    )
    assert written == expected


def test_more_processes_than_clips_are_refused(words, monkeypatch):
    """The others would wait for those that have none."""
    from asr_dni.data import Folder, KeywordData

    data = KeywordData(Folder(words), cache_dir=words.parent / "cache")
    data.prepare_data()
    data.setup("test")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 10)
    with pytest.raises(UserError, match=r"test split has 9 clips for 10 processes"):
        data.test_dataloader()
