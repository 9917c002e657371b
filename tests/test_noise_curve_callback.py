import json
import math
import os

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from scipy import stats
from standin_network import MarginData, MarginNetwork, MarginSpotter, batches, make_clips

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import NoiseCurve
from asr_dni.evaluation.loggers.callback import NoiseCurveCallback, metric_name
from asr_dni.evaluation.measurement.measuring import measure_noise_curve
from asr_dni.evaluation.measurement.scoring import fingerprint
from asr_dni.noise import Noise

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "devices": 1}
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*logging interval", "ignore:Checkpoint directory"
)


@pytest.fixture(autouse=True)
def _restore_seed(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", os.environ.get("PL_GLOBAL_SEED", "0"))


def train(folder, *callbacks, epochs=4, seed=0, **options):
    pl.seed_everything(seed, verbose=False)
    options = {
        "logger": CSVLogger(folder, name="runs", version="one"),
        "enable_checkpointing": False,
    } | options
    trainer = pl.Trainer(
        **QUIET, max_epochs=epochs, callbacks=list(callbacks), default_root_dir=folder, **options
    )
    module = MarginSpotter()
    trainer.fit(module, datamodule=MarginData())
    return trainer, module


def test_test_curve_is_logged_written_and_right(tmp_path):
    callback = NoiseCurveCallback(
        [0, 0.5, 2],
        draws=5,
        every_n_epochs=0,
        scale="signal",
        sites=["output"],
        seed=7,
        settings={"cell": "toy"},
    )
    trainer, module = train(tmp_path, callback, epochs=1)
    assert callback.curve is None
    trainer.test(module, datamodule=MarginData(), verbose=False)

    expected = measure_noise_curve(
        module.network, batches(make_clips(101, 3), 50), [0, 0.5, 2], 5, Noise(scale="signal", seed=7)
    )
    folder = tmp_path / "runs" / "one"
    curve = NoiseCurve.from_csv(folder / "noise_curve.csv")
    pd.testing.assert_frame_equal(curve.frame, expected.frame, rtol=1e-6)
    assert curve.settings == {
        "weights": fingerprint(module.network),
        "scale": "signal",
        "sites": ["output"],
        "arrays": "joint",
        "noise_seed": 7,
        "draws": 5,
        "seed": 0,
        "protocol": "stand-in, two classes",
        "n_classes": 2,
        "split": "test",
        "cell": "toy",
    }
    for sigma, row in zip([0, 0.5, 2], expected.summary().frame.to_dict("records"), strict=True):
        for quantity in ("accuracy", "loss"):
            logged = trainer.callback_metrics[metric_name("test", quantity, sigma)]
            assert float(logged) == pytest.approx(row[quantity], rel=1e-5)
    assert (folder / "noise_curve.png").exists()
    assert (folder / "noise_curve.svg").exists()


def test_validation_curve_every_second_epoch_and_last(tmp_path):
    callback = NoiseCurveCallback([0, 1], draws=4, every_n_epochs=2, validation_draws=3, watched_sigmas=[0.5])
    trainer, _ = train(tmp_path, callback, epochs=5)
    folder = tmp_path / "runs" / "one"
    files = sorted(file.name for file in (folder / "noise_curves_validation").iterdir())
    assert files == ["epoch_0001.csv", "epoch_0003.csv", "epoch_0004.csv"]
    newest = NoiseCurve.from_csv(folder / "noise_curve_validation.csv")
    assert newest.settings["epoch"] == 4
    assert newest.settings["protocol"] == "stand-in, two classes"
    assert newest.settings["split"] == "validation"
    assert newest.levels == [0.0, 0.5, 1.0]
    assert len(newest.frame) == 1 + 3 + 3
    assert {file.name for file in folder.glob("noise_curve*.*")} == {
        f"noise_curve_validation.{ending}" for ending in ("csv", "png", "svg")
    }
    metrics = pd.read_csv(folder / "metrics.csv")
    by_epoch = metrics.groupby("epoch").first()
    assert by_epoch["val/accuracy@0.5"].notna().tolist() == [True] * 5  # watched
    assert by_epoch["val/accuracy@1.0"].notna().tolist() == [False, True, False, True, True]
    assert "val/accuracy@1.0" in trainer.callback_metrics


def test_validation_accuracy_is_the_closed_form(tmp_path):
    callback = NoiseCurveCallback([1], draws=40)
    trainer = pl.Trainer(**QUIET, logger=False, callbacks=[callback], default_root_dir=tmp_path)
    trainer.validate(MarginSpotter(), datamodule=MarginData(), verbose=False)
    correct = round(float(trainer.callback_metrics["val/accuracy@1.0"]) * 40 * 100)
    # 40 draws of 100 clips; fails once in 10,000 correct programs.
    assert stats.binomtest(correct, 4000, stats.norm.cdf(0.5 / math.sqrt(2))).pvalue > 1e-4
    settings = NoiseCurve.from_csv(tmp_path / "noise_curve_validation.csv").settings
    assert settings["split"] == "validation"
    assert "epoch" not in settings  # Lightning would say 0, whatever the weights


def test_training_goes_on_as_if_the_callback_were_not_there(tmp_path):
    _, plain = train(tmp_path / "a")
    callback = NoiseCurveCallback([0, 1], every_n_epochs=1, watched_sigmas=[0.5])
    _, watched = train(tmp_path / "b", callback)
    assert torch.equal(plain.network.scale, watched.network.scale)
    assert watched.network.noise == Noise()
    assert plain.network.scale.item() != 0.5


def test_checkpoints_and_early_stopping_watch_a_stated_sigma(tmp_path):
    callback = NoiseCurveCallback([0, 1], every_n_epochs=0, validation_draws=1, watched_sigmas=[1.0])
    checkpoint = ModelCheckpoint(
        tmp_path,
        "best-{epoch}-{val/accuracy@1.0:.3f}",
        "val/accuracy@1.0",
        mode="max",
        auto_insert_metric_name=False,
    )
    # Accuracy can't rise by 2, so training stops after one more epoch.
    stopping = EarlyStopping("val/accuracy@1.0", min_delta=2.0, patience=1, mode="max")
    trainer, _ = train(tmp_path, callback, checkpoint, stopping, epochs=6, enable_checkpointing=True)
    assert trainer.current_epoch == 2
    assert 0.5 < float(checkpoint.best_model_score) < 1
    assert f"-{float(checkpoint.best_model_score):.3f}" in checkpoint.best_model_path
    assert callback.curve is None  # no curve was due, only its watched level


def test_curve_settings_of_module_and_data(tmp_path):
    module, data = MarginSpotter(), MarginData()
    module.curve_settings = lambda: {"sigma_train": 1.5, "units": 3}
    data.curve_settings = lambda: {"protocol": "other"}
    callback = NoiseCurveCallback([0], settings={"units": 4}, directory=tmp_path / "here")
    pl.Trainer(**QUIET, logger=False, callbacks=[callback]).test(module, data, verbose=False)
    settings = NoiseCurve.from_csv(tmp_path / "here" / "noise_curve.csv").settings
    assert (settings["sigma_train"], settings["units"], settings["protocol"]) == (1.5, 4, "other")


def test_the_protocol_is_that_of_the_split(tmp_path):
    module, data = MarginSpotter(), MarginData()
    data.protocol_of = lambda split: f"numbers, {split}"
    callback = NoiseCurveCallback([0], directory=tmp_path)
    trainer = pl.Trainer(**QUIET, logger=False, callbacks=[callback])
    for evaluate, split in ((trainer.test, "test"), (trainer.validate, "validation")):
        evaluate(module, data, verbose=False)
        assert callback.curve.settings["protocol"] == f"numbers, {split}"


def test_the_checkpoint_is_noted(tmp_path):
    callback = NoiseCurveCallback([0], every_n_epochs=0)
    trainer, _ = train(tmp_path, callback, ModelCheckpoint(tmp_path), enable_checkpointing=True, epochs=1)
    for evaluate in (trainer.test, trainer.validate):
        evaluate(ckpt_path="best", datamodule=MarginData(), verbose=False)
        assert callback.curve.settings["checkpoint"] == trainer.checkpoint_callback.best_model_path


def test_trial_runs_write_nothing(tmp_path):
    train(tmp_path, NoiseCurveCallback([0, 1], every_n_epochs=1), fast_dev_run=True)
    assert list(tmp_path.rglob("noise_curve*")) == []


def test_sanity_check_is_not_measured(tmp_path):
    callback = NoiseCurveCallback([0], every_n_epochs=1, watched_sigmas=[1])
    train(tmp_path, callback, num_sanity_val_steps=1, epochs=1)
    assert callback.curve.frame["n_clips"].tolist() == [100, 100, 100]


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="sigmas contains -1"):
        NoiseCurveCallback([-1])
    with pytest.raises(UserError, match="validation_draws is 0"):
        NoiseCurveCallback([1], validation_draws=0)
    with pytest.raises(UserError, match="every_n_epochs is -1"):
        NoiseCurveCallback([1], every_n_epochs=-1)
    with pytest.raises(UserError, match="sites is empty"):
        NoiseCurveCallback([0, 1], sites=[])
    with pytest.raises(UserError, match="noise site 'inputs' is not known"):
        NoiseCurveCallback([1], sites=["inputs"])
    module = MarginSpotter()
    module.network = torch.nn.Linear(2, 2)
    trainer = pl.Trainer(**QUIET, logger=False, callbacks=[NoiseCurveCallback([1])])
    with pytest.raises(UserError, match=r"MarginSpotter\.network has to offer"):
        trainer.test(module, datamodule=MarginData())


def _measure_in_process(rank, port, clips, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    curve = measure_noise_curve(
        MarginNetwork(), batches(clips[rank::2], 20), [0, 1], 3, Noise(seed=1), {"rank": rank}
    )
    curve.to_csv(folder / f"{rank}.csv")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_processes_add_their_counts(tmp_path):
    clips = make_clips(101)
    expected = measure_noise_curve(MarginNetwork(), batches(clips, 30), [0, 1], 3, Noise(seed=1))
    port = 29_000 + os.getpid() % 1000
    torch.multiprocessing.start_processes(
        _measure_in_process, (port, clips, tmp_path), nprocs=2, start_method="spawn"
    )
    for rank in range(2):
        curve = NoiseCurve.from_csv(tmp_path / f"{rank}.csv")
        assert curve.settings["rank"] == rank
        pd.testing.assert_frame_equal(curve.frame, expected.frame, rtol=1e-6)


def test_settings_are_plain_values(tmp_path):
    callback = NoiseCurveCallback([0, 1], every_n_epochs=1)
    train(tmp_path, callback, epochs=1)
    assert json.loads(json.dumps(callback.curve.settings)) == callback.curve.settings
