"""What a kill or a full disk leaves of checkpoints."""

import multiprocessing
import os
import random
import subprocess
import sys
import time

import pytest
import pytorch_lightning as pl
import torch
from file_systems import fill, other_file_system, small_file_system
from torch import nn

from asr_dni.checkpoint import read_checkpoint, write_checkpoint
from asr_dni.cli.main import main
from asr_dni.data import DigitsData
from asr_dni.model import KeywordSpotter, NetworkSettings
from asr_dni.model.population_spotter import Member, PopulationSpotter

pytestmark = pytest.mark.filterwarnings("ignore")

FIT = [
    "fit",
    *("--data_class", "DigitsData", "--data.batch_size", "256", "--model.network.units", "8"),
    *("--trainer.accelerator", "cpu", "--trainer.logger", "false", "--noise_curve.every_n_epochs", "0"),
    *("--test_after_fit", "false"),
]


def trainer_of(kind, folder):
    """A trainer that has trained a spotter or a population for a batch."""
    data = DigitsData(batch_size=64)
    if kind == "spotter":
        module = KeywordSpotter(data.label_names, data.n_features, NetworkSettings(units=4))
    else:
        module = PopulationSpotter([Member(0)], data.label_names, data.n_features, NetworkSettings(units=4))
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, datamodule=data)
    module.register_buffer("weight", torch.zeros(4_000_000))  # so that writing takes a while
    return trainer


def save_again_and_again(kind, path, begun):
    trainer = trainer_of(kind, path.parent)
    while True:
        trainer.save_checkpoint(path)
        begun.set()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["spotter", "population"])
def test_killed_while_a_checkpoint_is_replaced_on_another_file_system(kind):
    """Twelve kills at random moments of a process that does nothing but replace one checkpoint."""
    moments = random.Random(kind)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["asr_dni.model.population_spotter", "asr_dni.data"])
    with other_file_system() as folder:
        path = folder / "last.ckpt"
        for _ in range(12):
            path.unlink(missing_ok=True)
            begun = context.Event()
            process = context.Process(target=save_again_and_again, args=(kind, path, begun))
            process.start()
            assert begun.wait(120)
            time.sleep(moments.uniform(0.0, 0.1))
            process.kill()
            process.join()
            contents = read_checkpoint(path)
            assert len(contents["state_dict"]["weight"]) == 4_000_000


def test_a_full_disk_leaves_the_checkpoint_before_and_is_told_in_a_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with small_file_system(tmp_path / "small", 2_000_000) as folder:
        write = [*FIT, "--trainer.default_root_dir", str(folder)]
        main([*write, "--trainer.max_epochs", "1"])
        (last,) = folder.rglob("last.ckpt")
        before = last.read_bytes()
        fill(folder, leave=len(before) // 2)
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([*write, "--trainer.max_epochs", "2", "--ckpt_path", str(last)])
        assert exit_.value.code == 2
        errors = capsys.readouterr().err.strip().splitlines()
        assert [line for line in errors if line.startswith("asr-dni: error")] == [
            f"asr-dni: error: {last}: No space left on device"
        ]
        assert not any("Traceback" in line for line in errors)
        assert last.read_bytes() == before
        assert read_checkpoint(last)["epoch"] == 0
        assert sorted(entry.name for entry in last.parent.iterdir() if entry != last) in ([], ["best.ckpt"])


def test_a_checkpoint_that_the_disk_cannot_take_names_itself(tmp_path):
    with small_file_system(tmp_path / "small", 100_000) as folder:
        path = folder / "network.ckpt"
        write_checkpoint({"weight": torch.zeros(10)}, path)
        with pytest.raises(OSError, match="No space left on device") as raised:
            write_checkpoint({"weight": torch.zeros(1_000_000)}, path)
        assert raised.value.filename == str(path)
        assert read_checkpoint(path)["weight"].tolist() == [0.0] * 10
        assert os.listdir(folder) == ["network.ckpt"]


def test_any_trainer_of_a_spotter_writes_durable_checkpoints(tmp_path, monkeypatch):
    """Also one that was made in Python: nothing goes through the folder for temporary files."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    for kind in ("spotter", "population"):
        trainer = trainer_of(kind, tmp_path)
        trainer.save_checkpoint(tmp_path / f"{kind}.ckpt")
        assert read_checkpoint(tmp_path / f"{kind}.ckpt")["global_step"] == 1
        assert isinstance(trainer.lightning_module, nn.Module)


@pytest.mark.slow
def test_a_full_disk_is_one_line_also_beside_wandb(tmp_path):
    """In a process of its own, since W&B's loggers write to the disk too, and complain in their own way."""
    settings = [
        *FIT[: FIT.index("--trainer.logger")],
        "--noise_curve.every_n_epochs",
        "0",
        "--test_after_fit",
        "false",
    ]
    command = [sys.executable, "-m", "asr_dni"]
    environment = {**os.environ, "WANDB_MODE": "offline"}
    with small_file_system(tmp_path / "small", 3_000_000) as folder:
        run = folder / "runs" / "full" / "version_0"
        first = [
            *command,
            *settings,
            "--name",
            "full",
            "--runs",
            str(folder / "runs"),
            "--trainer.max_epochs",
            "1",
        ]
        subprocess.run(first, check=True, capture_output=True, env=environment)
        last = run / "checkpoints" / "last.ckpt"
        before = last.read_bytes()
        fill(folder, leave=0)
        second = [*command, "fit", "--ckpt_path", str(last), "--trainer.max_epochs", "2"]
        ended = subprocess.run(second, capture_output=True, text=True, env=environment, check=False)
        assert ended.returncode == 2
        (line,) = ended.stderr.strip().splitlines()
        assert line.startswith(f"asr-dni: error: {run}")
        assert line.endswith("No space left on device")
        assert last.read_bytes() == before
