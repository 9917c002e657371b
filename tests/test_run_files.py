"""A run's folder: of one start alone, and gone on in when it is resumed."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pandas as pd
import pytest
import torch
import wandb
import yaml

from asr_dni.cli.main import main
from asr_dni.cli.run_files import MetricsLog, claimed_folder, resumed_folder

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("restored_process")]

FIT = {
    "data_class": "DigitsData",
    "data": {"batch_size": 256},
    "model": {"network": {"units": 4, "layers": 1}},
    "trainer": {"accelerator": "cpu", "max_epochs": 2},
    "noise_curve": {"sigmas": [0.0, 1.0], "draws": 1, "every_n_epochs": 0},
    "wandb": "disabled",
}
LAST = Path("runs/digits/version_0/checkpoints/last.ckpt")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits.yaml").write_text(yaml.safe_dump(FIT))
    return tmp_path


def fit(*options):
    main(["fit", "--config", "digits.yaml", "--name", "digits", *options])


def rows(path):
    return pd.read_csv(path).to_dict("list")


def folders(path="runs/digits"):
    return sorted(entry.name for entry in Path(path).iterdir())


def test_starts_at_one_instant_take_different_folders(tmp_path):
    starts = 16
    with ThreadPoolExecutor(starts) as pool:
        for number in range(10):
            together, ended = Barrier(starts), Barrier(starts)

            def start(_, runs=tmp_path / f"{number}", together=together, ended=ended):
                together.wait()
                with claimed_folder(runs) as folder:
                    ended.wait()  # or the next would take the name of one that ended
                    (folder / "metrics.csv").touch()
                return folder.name

            taken = list(pool.map(start, range(starts)))
            assert sorted(taken) == sorted(f"version_{version}" for version in range(starts))


def _fit_at_once(together, seed):
    import asr_dni.cli.lightning  # noqa: F401  so that all begin when it is there

    together.wait()
    fit("--seed_everything", str(seed), "--trainer.max_epochs", "1")


@pytest.mark.slow
def test_trainings_that_start_at_one_instant_do_not_mix(here):
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(4)
    processes = [context.Process(target=_fit_at_once, args=(together, seed)) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert folders() == [f"version_{version}" for version in range(4)]
    seeds = []
    for folder in Path("runs/digits").iterdir():
        seed = yaml.safe_load((folder / "config.yaml").read_text())["seed_everything"]
        curve = (folder / "noise_curve.csv").read_text()
        assert f"# seed: {seed}\n" in curve
        trained = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert trained["hyper_parameters"]["model"]["noise"]["seed"] == seed
        assert rows(folder / "metrics.csv")["epoch"] == [0, 0, 1]
        seeds.append(seed)
    assert sorted(seeds) == [0, 1, 2, 3]


def test_a_start_that_fails_leaves_no_folder(here):
    with pytest.raises(SystemExit):
        fit("--data.test_forms", "nothing")
    assert not Path("runs").exists()
    with pytest.raises(RuntimeError), claimed_folder(here / "runs" / "other"):
        raise RuntimeError
    assert folders("runs/other") == []


def test_a_finished_run_says_so_and_is_one_folder_also_when_it_is_trained_longer(here, capsys):
    fit()
    weights = LAST.read_bytes()
    before = rows(LAST.parents[1] / "metrics.csv")
    capsys.readouterr()

    main(["fit", "--ckpt_path", str(LAST)])
    said = capsys.readouterr().out
    assert "the training is finished: all 2 epochs are done" in said
    assert "--trainer.max_epochs above 2" in said
    assert LAST.read_bytes() == weights
    assert str(rows(LAST.parents[1] / "metrics.csv")) == str(before)

    main(["fit", "--ckpt_path", str(LAST), "--trainer.max_epochs", "3"])
    assert "finished" not in capsys.readouterr().out
    assert folders() == ["version_0"]
    metrics = pd.read_csv(LAST.parents[1] / "metrics.csv")
    assert metrics["epoch"][metrics["train/loss"].notna()].tolist() == [0, 1, 2]
    assert metrics["test/loss"].notna().sum() == 1
    settings = yaml.safe_load((LAST.parents[1] / "config.yaml").read_text())
    assert (settings["trainer"]["max_epochs"], settings["ckpt_path"]) == (3, None)


@pytest.mark.slow
def test_a_resumed_run_is_one_run_in_wandb(here):
    fit("--wandb", "offline", "--test_after_fit", "false")
    wandb.finish()
    main(["fit", "--ckpt_path", str(LAST), "--trainer.max_epochs", "3", "--test_after_fit", "false"])
    wandb.finish()
    runs = [path.name for path in (LAST.parents[1] / "wandb").glob("offline-run-*")]
    assert len(runs) == 2
    assert len({name.rpartition("-")[2] for name in runs}) == 1


@pytest.mark.slow
def test_a_run_that_was_stopped_early_is_finished(here, capsys):
    stop = {
        "class_path": "pytorch_lightning.callbacks.EarlyStopping",
        "init_args": {"monitor": "val/accuracy", "mode": "max", "patience": 1, "min_delta": 1.0},
    }
    Path("stop.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [stop], "max_epochs": 9}}))
    fit("--config", "stop.yaml")
    weights = LAST.read_bytes()
    done = torch.load(LAST, weights_only=True)["epoch"] + 1
    assert done < 9
    capsys.readouterr()
    main(["fit", "--ckpt_path", str(LAST)])
    assert f"the training is finished: it was stopped early after {done} epochs" in capsys.readouterr().out
    assert LAST.read_bytes() == weights


def test_what_is_not_the_last_state_or_gets_a_name_has_a_folder_of_its_own(here):
    fit()
    before = LAST.read_bytes()
    longer = ("--trainer.max_epochs", "3")
    main(["fit", "--ckpt_path", str(LAST.with_name("best.ckpt")), *longer])
    assert folders() == ["version_0", "version_1"]
    main(["fit", "--ckpt_path", str(LAST), "--name", "branch", *longer])
    assert folders("runs/branch") == ["version_0"]
    assert LAST.read_bytes() == before


@pytest.mark.slow
def test_a_run_goes_on_where_its_folder_was_moved_to(here, monkeypatch):
    fit()
    Path("runs").rename("elsewhere")
    moved = Path("elsewhere/digits/version_0")
    monkeypatch.chdir(moved)
    main(["fit", "--ckpt_path", "checkpoints/last.ckpt", "--trainer.max_epochs", "3"])
    assert folders("../..") == ["digits"]
    assert rows("metrics.csv")["epoch"][-1] == 3
    assert not Path("runs").exists()
    assert "checkpoints/best.ckpt" in Path("noise_curve.csv").read_text()


def test_a_run_that_is_in_work_is_not_resumed_beside_it(here, capsys):
    fit()
    before = LAST.read_bytes()
    with resumed_folder(LAST.parents[1]), pytest.raises(SystemExit) as ended:
        main(["fit", "--ckpt_path", str(LAST), "--trainer.max_epochs", "3"])
    assert ended.value.code == 2
    assert "runs/digits/version_0: another process is writing" in capsys.readouterr().err
    assert LAST.read_bytes() == before


def test_metrics_are_whole_at_any_moment_and_go_on_without_what_is_taken_again(tmp_path):
    folder = tmp_path / "runs" / "version_0"
    log = MetricsLog(folder)
    for step in range(3):
        log.log_metrics({"loss": 1 / (step + 3)}, step)
        log.save()
    log.write_ahead({"loss": 0.1, "accuracy": 0.5}, 3)
    expected = rows(folder / "metrics.csv")
    assert expected["step"] == [0, 1, 2, 3]
    # What a kill left when files were appended to: a number without its last digits.
    with open(folder / "metrics.csv", "a") as file:
        file.write("0.9,0.33")
    resumed = MetricsLog(folder, before_step=4)
    resumed.log_metrics({"other": 2.0}, 4)
    resumed.finalize("success")
    found = pd.read_csv(folder / "metrics.csv")
    assert found["step"].tolist() == [0, 1, 2, 3, 4]
    assert found["loss"].tolist()[:4] == expected["loss"]
