import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from asr_dni.cli.main import main
from asr_dni.evaluation.curves.curve import NoiseCurve

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _surroundings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", os.environ.get("PL_GLOBAL_SEED", "0"))
    monkeypatch.setenv("WANDB_MODE", "offline")


def curves(folder):
    return {
        name: NoiseCurve.from_csv(folder / name / "version_0" / "noise_curve.csv")
        for name in ("conventional", "dni")
    }


def test_a_tiny_demo_writes_what_the_whole_one_does(tmp_path, capsys):
    sizes = ["--speakers", "10", "--epochs", "3", "--units", "4", "--draws", "1"]
    main(["demo", *sizes, "--output", "out", "--data", "words", "--wandb", "disabled"])
    found = curves(tmp_path / "out")
    assert found["conventional"].settings["sigma_train"] == 0
    assert found["dni"].settings["sigma_train"] == 2
    for ending in ("png", "svg", "csv", "md"):
        assert (tmp_path / "out" / "comparison" / f"noise_curves.{ending}").stat().st_size > 100
    for name in found:
        assert (tmp_path / "out" / name / "version_0" / "checkpoints" / "last.ckpt").is_file()
    said = capsys.readouterr().out
    assert "noise_curves.png" in said
    assert "σ_infer" in said

    last = Path("out", "dni", "version_0", "checkpoints", "last.ckpt")
    before = torch.load(last, weights_only=True)
    main(["fit", "--ckpt_path", str(last), "--trainer.max_epochs", "5"])
    after = torch.load(last, weights_only=True)
    assert (before["epoch"], after["epoch"]) == (2, 4)
    (settings,) = before["trainings"]
    assert after["trainings"] == [settings, {**settings, "trainer.max_epochs": 5}]
    assert after["sigma_train"]["annealed_to"] == 2
    assert (
        curves(tmp_path / "out")["dni"].frame["strength"].tolist() == found["dni"].frame["strength"].tolist()
    )
    assert sorted(path.name for path in last.parents[2].iterdir()) == ["version_0"]
    main(["validate", "--ckpt_path", str(last), "--wandb", "disabled"])
    assert sorted(path.name for path in last.parents[2].iterdir()) == ["version_0", "version_1"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_demo_shows_what_noise_training_is_for(tmp_path):
    # A process of its own, as W&B keeps the settings that it was first used with in one.
    subprocess.run([sys.executable, "-m", "asr_dni", "demo"], check=True)
    found = curves(tmp_path / "runs" / "demo")
    accuracy = pd.DataFrame(
        {name: curve.frame.groupby("strength")["accuracy"].mean() for name, curve in found.items()}
    )
    assert accuracy.loc[0.0].min() > 0.95
    assert accuracy.loc[2.0, "dni"] > accuracy.loc[2.0, "conventional"] + 0.03
    assert accuracy.loc[3.0, "dni"] > accuracy.loc[3.0, "conventional"] + 0.15
    for name in found:
        assert len(list((tmp_path / "runs" / "demo" / name).glob("*/wandb/offline-run-*/*.wandb"))) == 1
