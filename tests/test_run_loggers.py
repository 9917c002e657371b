"""What a run writes, and where, with every kind of logger."""

import base64
import hashlib
import json
import os
from pathlib import Path

import pandas as pd
import pytest
from wandb_files import configuration_of, history_rows, read_run, whole_run

from asr_dni.cli.main import main
from asr_dni.evaluation import NoiseCurve

pytestmark = pytest.mark.filterwarnings("ignore")

FIT = [
    "fit",
    *("--data_class", "DigitsData", "--data.batch_size", "400"),
    *("--model.network.units", "4", "--model.network.layers", "1"),
    *("--noise_curve.draws", "2", "--noise_curve.sigmas", "0,1", "--noise_curve.every_n_epochs", "0"),
    *("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--name", "study/lstm"),
]
RUN = Path("runs", "study", "lstm", "version_0")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, restored_process):
    for name in ("WANDB_RUN_GROUP", "WANDB_JOB_TYPE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path.parent / "staged"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_of(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


RESULTS = {
    *(f"noise_curve.{ending}" for ending in ("csv", "png", "svg")),
    *("config.yaml", "checkpoints/last.ckpt", "checkpoints/best.ckpt", ".lock"),
}


def test_without_a_logger_the_results_are_in_the_runs_folder(here):
    main([*FIT, "--trainer.logger", "false"])
    assert [path.name for path in here.iterdir()] == ["runs"]
    assert files_of(RUN) == RESULTS


def test_without_a_logger_a_run_is_resumed_in_its_folder(here):
    main([*FIT, "--trainer.logger", "false", "--test_after_fit", "false"])
    again = ["--ckpt_path", str(RUN / "checkpoints" / "last.ckpt"), "--test_after_fit", "true"]
    main(["fit", *again, "--trainer.max_epochs", "2"])
    assert [path.name for path in RUN.parent.iterdir()] == ["version_0"]
    assert files_of(RUN) == RESULTS


def test_lightnings_folder_stands_where_it_is_named(here):
    main([*FIT, "--trainer.logger", "false", "--trainer.default_root_dir", "mine"])
    assert files_of(here / "mine") == RESULTS - {".lock"}
    assert not RUN.exists()


def test_tensorboard_has_scalars_hyperparameters_and_the_figure(here):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.plugins.hparams import plugin_data_pb2

    main([*FIT, "--config", "logger/tensorboard"])
    assert files_of(RUN) >= RESULTS | {"metrics.csv", "hparams.yaml"}
    assert not (RUN / "wandb").exists()  # it is in place of W&B
    logged = event_accumulator.EventAccumulator(str(RUN)).Reload()
    summary = NoiseCurve.from_csv(RUN / "noise_curve.csv").summary()
    for level, accuracy in zip((0.0, 1.0), summary.frame["accuracy"], strict=True):
        (event,) = logged.Scalars(f"test/accuracy@{level}")
        assert event.value == pytest.approx(accuracy)
    assert {"train/loss", "val/accuracy", "test/loss@1.0"} <= set(logged.Tags()["scalars"])
    (image,) = logged.Images("test/noise_curve")
    assert image.encoded_image_string.startswith(b"\x89PNG")
    assert image.width > 300
    text, *_ = logged.Tensors("hyperparameters/text_summary")
    settings = json.loads(text.tensor_proto.string_val[0])
    assert settings["model"]["network"]["units"] == 4
    content = logged.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    row = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert row["model/network/units"].number_value == 4
    assert logged.Scalars("test/clean_accuracy")[-1].value == pytest.approx(summary.frame["accuracy"][0])


def test_a_logger_of_lightnings_is_added_to_the_runs_own_files(here):
    main([*FIT, "--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "theirs"])
    assert files_of(RUN) == RESULTS | {"metrics.csv", "hparams.yaml"}
    ours, theirs = (pd.read_csv(path) for path in (RUN / "metrics.csv", *here.glob("theirs/**/metrics.csv")))
    name = "test/accuracy@1.0"
    assert theirs[name].dropna().tolist() == pytest.approx(ours[name].dropna().tolist())


def wandb_run(folder):
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    return whole_run(file)


def finish():
    import wandb

    wandb.finish()


def test_wandb_has_group_job_type_and_the_checkpoint(here):
    main([*FIT, "--wandb_checkpoints", "true"])
    finish()
    records = wandb_run(RUN)
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"][:1]
    assert (run.run_group, run.job_type, run.display_name) == ("study/lstm", "train", "study/lstm-version_0")
    artifacts = [record.artifact for record in records if record.WhichOneof("record_type") == "artifact"]
    (model,) = [artifact for artifact in artifacts if artifact.type == "model"]
    assert model.name == f"model-{run.run_id}"
    assert set(json.loads(model.metadata)) >= {"clean_accuracy"}
    (entry,) = model.manifest.contents
    content = (RUN / "checkpoints" / entry.path).read_bytes()
    assert base64.b64decode(entry.digest) == hashlib.md5(content).digest()
    (file,) = RUN.glob("wandb/offline-run-*/*.wandb")
    written, begun = file.read_bytes(), here / "begun.wandb"
    for length in range(0, len(written), 97):  # as the service leaves it while it writes
        begun.write_bytes(written[:length])
        there = list(read_run(begun))
        assert there == records[: len(there)]
        assert len(there) < len(records)


@pytest.mark.slow
def test_what_is_asked_for_goes_before_the_environment(here, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_GROUP", "of the environment")
    monkeypatch.setenv("WANDB_JOB_TYPE", "pilot")
    main([*FIT, "--wandb_group", "paper", "--test_after_fit", "false"])
    finish()
    (run,) = [record.run for record in wandb_run(RUN) if record.WhichOneof("record_type") == "run"][:1]
    assert (run.run_group, run.job_type) == ("paper", "pilot")
    os.environ.pop("WANDB_RUN_ID", None)
    main([*FIT, "--test_after_fit", "false"])
    finish()
    records = wandb_run(RUN.with_name("version_1"))
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"][:1]
    assert run.run_group == "of the environment"


@pytest.mark.slow
def test_wandb_beside_another_logger_where_it_is_asked_for(here):
    main([*FIT, "--config", "logger/tensorboard", "--wandb", "offline"])
    finish()
    assert list(RUN.glob("events.out.*"))
    assert any("test/accuracy@1.0" in row for row in history_rows(wandb_run(RUN)))
    assert configuration_of(wandb_run(RUN))["model"]["network"]["units"] == 4
