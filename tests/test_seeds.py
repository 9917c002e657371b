"""A run's seed is one: what it notes is what its weights, data and noise use, and what its curve is called by."""

import json
import os
import re

import pytest
import pytorch_lightning as pl
import torch
import yaml
from standin_network import MarginData, MarginSpotter

from asr_dni.cli.main import main
from asr_dni.evaluation import NoiseCurveCallback

pytestmark = pytest.mark.filterwarnings("ignore")

TINY = {
    "data_class": "DigitsData",
    "trainer": {"max_epochs": 1, "accelerator": "cpu", "limit_train_batches": 2},
    "model": {"network": {"units": 3, "layers": 1}},
    "noise_curve": {"sigmas": [0.0], "draws": 1, "every_n_epochs": 0},
    "checkpoint": {"monitor": None},
    "wandb": "disabled",
}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", os.environ.get("PL_GLOBAL_SEED", "0"))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))


def fit(folder, name: str, *options: str) -> dict:
    main(["fit", "--config", "tiny.yaml", "--name", name, *options])
    run = folder / "runs" / name / "version_0"
    kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    curve = (run / "noise_curve.csv").read_text()
    return {
        "noted": yaml.safe_load((run / "config.yaml").read_text())["seed_everything"],
        "data": kept["datamodule_hyper_parameters"]["data"]["seed"],
        "noise": kept["hyper_parameters"]["model"]["noise"]["seed"],
        "curve": json.loads(re.search(r"^# seed: (.*)$", curve, re.MULTILINE)[1]),
        "weights": kept["state_dict"],
    }


@pytest.mark.parametrize("left", [None, "41"])
def test_a_seed_that_lightning_chooses_is_everyones(tmp_path, monkeypatch, left):
    if left is None:
        monkeypatch.delenv("PL_GLOBAL_SEED")
    else:
        monkeypatch.setenv("PL_GLOBAL_SEED", left)
    chosen = fit(tmp_path, "chosen", "--seed_everything", "true")
    assert chosen["noted"] == chosen["data"] == chosen["noise"] == chosen["curve"] == int(left or 0)
    assert type(chosen["noted"]) is int
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    given = fit(tmp_path, "given", "--seed_everything", str(chosen["noted"]))
    assert given["noted"] == given["curve"] == chosen["noted"]
    for name, value in given["weights"].items():
        assert torch.equal(value, chosen["weights"][name]), name


def test_no_seed_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--config", "tiny.yaml", "--seed_everything", "false"])
    assert "seed_everything is false" in capsys.readouterr().err


def curve_seed(folder, data) -> str | None:
    callback = NoiseCurveCallback([0], draws=1, directory=folder)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(accelerator="cpu", logger=False, callbacks=[callback], **quiet)
    trainer.test(MarginSpotter(), datamodule=data, verbose=False)
    return callback.curve.settings.get("seed")


def test_a_seed_left_by_another_run_labels_no_curve(tmp_path, monkeypatch):
    torch.manual_seed(5)
    monkeypatch.setenv("PL_GLOBAL_SEED", "123")
    assert curve_seed(tmp_path, MarginData()) is None
    pl.seed_everything(6, verbose=False)
    assert curve_seed(tmp_path, MarginData()) == 6
    data = MarginData()
    data.seed = 8
    assert curve_seed(tmp_path, data) == 8
