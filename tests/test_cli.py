import csv
import gc
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import yaml
from covering import thinned
from recordings import tone, write

from asr_dni import __version__
from asr_dni.cli import run as cli_run
from asr_dni.cli.main import COMMANDS, Command, main
from asr_dni.evaluation import NoiseCurveCallback

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("restored_process")]


def settings(tone_words: Path, tone_cache: Path) -> dict:
    return {
        "name": "tiny",
        "trainer": {"max_epochs": 3, "accelerator": "cpu"},
        "data": {
            "source": {"class_path": "asr_dni.data.Folder", "init_args": {"path": str(tone_words)}},
            "cache_dir": str(tone_cache),
            "batch_size": 9,
        },
        "model": {"network": {"units": 4, "layers": 2}},
        "noise_curve": {"sigmas": [0.0, 1.0], "draws": 2, "watched_sigmas": [1.0], "every_n_epochs": 0},
        "annealing": {"sigma": 1.0},
        "checkpoint": {"monitor": "val/accuracy@1.0"},
    }


@pytest.fixture(scope="module")
def fitted(tone_words, tone_cache, tmp_path_factory):
    """A folder in which `asr-dni fit` ran, with a W&B offline run."""
    folder = tmp_path_factory.mktemp("fitted")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(settings(tone_words, tone_cache)))
    before = Path.cwd()
    os.chdir(folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WANDB_MODE", "offline")
            main(["fit", "--config", "tiny.yaml"])
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(fitted, monkeypatch):
    monkeypatch.chdir(fitted)
    return fitted


LAST = "runs/tiny/version_0/checkpoints/last.ckpt"


def fails(capsys, *command: str) -> str:
    """Run a command that is a mistake, and return the one line that says so."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(list(command))
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert re.fullmatch(r"asr-dni: error: [^\n]+\n", said), said
    return said


# ---------------------------------------------------------------------- what it says of itself


def test_help_names_every_command_and_imports_nothing_heavy():
    script = (
        "import sys\nfrom asr_dni.cli.main import main\ntry:\n    main(['--help'])\nexcept SystemExit as end:\n"
        "    print(end.code, sorted({'torch', 'numpy', 'wandb', 'matplotlib'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "0 []"
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.summary)}$", result.stdout, re.MULTILINE)
    assert max(map(len, result.stdout.splitlines())) <= 120


def test_version_and_no_command(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"asr-dni {__version__}\n"
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "there is no command 'fitt'" in fails(capsys, "fitt")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    beginning = "\n".join(said.splitlines()[:20])
    assert f"usage: asr-dni {command}" in beginning
    if command == "fit":
        assert "--annealing.sigma" in beginning
        assert "--noise_curve.watched_sigmas" in said


def test_info(capsys):
    main(["info"])
    said = capsys.readouterr().out
    assert re.search(rf"^torch +{re.escape(torch.__version__.split('+')[0])}", said, re.MULTILINE)
    assert "recurrence" in said


# ---------------------------------------------------------------------- what it does


def test_fit_leaves_a_run(here):
    run = here / "runs" / "tiny" / "version_0"
    for name in ("config.yaml", "metrics.csv", "checkpoints/last.ckpt", "checkpoints/best.ckpt"):
        assert (run / name).is_file(), name
    for ending in ("csv", "png", "svg"):
        assert (run / f"noise_curve.{ending}").stat().st_size > 100
    assert len(list(run.glob("wandb/offline-run-*/*.wandb"))) == 1
    metrics = pd.read_csv(run / "metrics.csv")
    assert metrics["val/accuracy@1.0"].notna().sum() == 3
    assert metrics["sigma_train"].notna().any()
    assert metrics["test/accuracy@1.0"].notna().sum() == 1
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["annealing"]["sigma"] == 1.0
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 2


def test_what_is_not_kept_is_not_checked(here, tmp_path, capsys):
    """Without checkpoints there is nothing to choose, so the run need not be validated."""
    options = ["--trainer.enable_checkpointing", "false", "--trainer.limit_val_batches", "0"]
    options += ["--trainer.max_epochs", "1", "--test_after_fit", "false"]
    main(["fit", "--config", "tiny.yaml", "--wandb", "disabled", "--runs", str(tmp_path), *options])
    assert "epoch 1/1" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("command", ["test", "validate"])
def test_a_checkpoint_finds_its_settings(command, here, capsys):
    main([command, "--ckpt_path", LAST, "--name", f"again_{command}", "--wandb", "disabled"])
    said = capsys.readouterr().out
    assert f"split of {LAST}: accuracy" in said
    assert "σ_infer" in said
    assert (here / "runs" / f"again_{command}" / "version_0" / "config.yaml").is_file()


def test_a_checkpoint_that_was_moved_is_not_trained_on_with_other_settings(
    here, tmp_path, monkeypatch, capsys
):
    moved = tmp_path / "elsewhere" / "moved.ckpt"
    moved.parent.mkdir()
    moved.write_bytes(Path(LAST).read_bytes())
    configuration = here / Path(LAST).parents[1] / "config.yaml"
    more = ["--trainer.max_epochs", "4", "--test_after_fit", "false", "--wandb", "disabled"]
    monkeypatch.chdir(tmp_path)
    said = fails(capsys, "fit", "--ckpt_path", str(moved), "--annealing.sigma", "1", *more)
    for part in (str(moved), "no config.yaml beside it", "annealing, optimizer and trainer", "--config FILE"):
        assert part in said
    assert not (tmp_path / "runs").exists()

    main(["fit", "--config", str(configuration), "--ckpt_path", str(moved), *more])
    shutil.copy(configuration, moved.parent)
    main(["fit", "--ckpt_path", str(moved), *more])
    for path in (tmp_path / "runs").glob("tiny/version_*/checkpoints/last.ckpt"):
        trained = torch.load(path, weights_only=True)
        assert (trained["epoch"], trained["sigma_train"]["annealed_to"]) == (3, 1.0)
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_a_checkpoint_that_was_moved_brings_its_settings_along(here, tmp_path, capsys):
    moved = tmp_path / "elsewhere" / "moved.ckpt"
    moved.parent.mkdir()
    moved.write_bytes(Path(LAST).read_bytes())
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        main(["predict", "--ckpt_path", str(moved), "--runs", str(tmp_path / "runs")])
    assert not [warning for warning in warned if "batch indices" in str(warning.message)]
    with open(tmp_path / "runs" / "spotter" / "version_0" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    for row in rows:
        posteriors = {name: float(row[name]) for name in ("go", "no", "yes")}
        assert sum(posteriors.values()) == pytest.approx(1, abs=1e-4)
        assert row["decision"] == max(posteriors, key=posteriors.get)
        assert re.fullmatch(r"(go|no|yes)/\w+_nohash_\d\.wav", row["clip"])


def test_noise_curve_is_that_of_the_run(here, tmp_path, capsys):
    main(
        [
            "noise-curve",
            LAST,
            "--sigmas",
            "[0,1]",
            "--draws",
            "2",
            "--output",
            str(tmp_path),
            "--batch_size",
            "4",
        ]
    )
    assert "written: " in capsys.readouterr().out
    main(["test", "--ckpt_path", LAST, "--name", "reference", "--wandb", "disabled"])
    frames = [
        pd.read_csv(folder / "noise_curve.csv", comment="#")
        for folder in (tmp_path, here / "runs" / "reference" / "version_0")
    ]
    pd.testing.assert_frame_equal(*frames, rtol=1e-4)


def test_noise_curve_of_a_folder_reports_unknown_words(here, tmp_path, capsys):
    folder = tmp_path / "others"
    for k in range(3):
        write(folder / "yes" / f"{k:08x}_nohash_0.wav.wav.tmp.wav", tone(500))
        (folder / "yes" / f"{k:08x}_nohash_0.wav.wav.tmp.wav").rename(
            folder / "yes" / f"{k:08x}_nohash_0.wav.wav"
        )
    write(folder / "tree" / "00000001_nohash_0.wav", tone(300))
    command = [
        "noise-curve",
        LAST,
        "--data",
        str(folder),
        "--split",
        "all",
        "--sigmas",
        "[0,1]",
        "--draws",
        "2",
    ]
    main([*command, "--output", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "words that the network does not know: tree (1)" in said
    frame = pd.read_csv(tmp_path / "out" / "noise_curve.csv", comment="#")
    assert set(frame["n_clips"]) == {3}


@pytest.mark.parametrize(
    ("monitor", "lowest"), [("val/loss", True), ("val/loss@1.0", True), ("val/accuracy@1.0", False)]
)
def test_the_best_checkpoint_is_that_of_the_lowest_loss_or_the_highest_accuracy(monitor, lowest):
    best = cli_run.BestCheckpoint(monitor=monitor)
    scores = torch.tensor([0.5, 0.2, 0.8])
    best.best_k_models = {"0.5": scores[0]}
    best.kth_best_model_path = "0.5"
    assert best.check_monitor_top_k(pl.Trainer(logger=False, enable_checkpointing=False), scores[1]) == lowest
    assert best.check_monitor_top_k(pl.Trainer(logger=False, enable_checkpointing=False), scores[2]) != lowest


def test_compare_overlays(here, capsys):
    main(["compare", "runs/tiny/version_0", "--output", "figures"])
    assert (here / "figures" / "noise_curves.png").is_file()
    assert "σ_infer" in capsys.readouterr().out


def test_an_interrupted_run_says_how_to_go_on_and_does(here, monkeypatch, capsys):
    """Interrupted in its last epoch and resumed, a run ends with the weights of one that was not interrupted."""

    def interrupt(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 2 and batch_idx == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cli_run.TrainingLog, "on_train_batch_start", interrupt)
        with pytest.raises(SystemExit) as ended:
            main(["fit", "--config", "tiny.yaml", "--name", "broken", "--wandb", "disabled"])
    assert ended.value.code == 130
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    resume = said.partition("asr-dni: interrupted, to resume: asr-dni ")[2].split()
    assert resume == ["fit", "--ckpt_path", "runs/broken/version_0/checkpoints/last.ckpt"]
    main(resume)
    assert "after 2 epochs" in capsys.readouterr().out
    expected = torch.load(LAST, weights_only=True)
    run = here / "runs" / "broken" / "version_0"
    resumed = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert resumed["global_step"] == expected["global_step"]
    for name, value in expected["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name
    whole = Path(LAST).parents[1]
    assert sorted(path.name for path in run.parent.iterdir()) == ["version_0"]  # it went on where it was
    assert (run / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    curves = [pd.read_csv(folder / "noise_curve.csv", comment="#") for folder in (run, whole)]
    pd.testing.assert_frame_equal(*curves)
    settings, expected = (yaml.safe_load((folder / "config.yaml").read_text()) for folder in (run, whole))
    assert settings == {**expected, "name": "broken", "wandb": "disabled"}


@thinned(
    2,
    command=["fit", "demo"],
    signalled=[(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
    hook=["on_train_batch_start", "on_test_batch_start", "setup"],
)
def test_signals_end_a_command(here, monkeypatch, capsys, command, signalled, hook):
    number, code, said = signalled
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(NoiseCurveCallback, hook, lambda *arguments, **keywords: os.kill(os.getpid(), number))
    options = {
        "fit": ["--config", "tiny.yaml", "--name", "signalled", "--trainer.max_epochs", "1"],
        "demo": ["--epochs", "1", "--units", "2", "--output", "signalled", "--speakers", "10"],
    }
    with pytest.raises(SystemExit) as ended:
        main([command, *options[command], "--wandb", "disabled"])
    assert ended.value.code == code
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(f"asr-dni: {said}, ")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_in_a_process_of_its_own(here, number, code):
    script = "from asr_dni.cli.main import main; main()"
    options = ["--config", "tiny.yaml", "--name", f"stopped{number}", "--trainer.max_epochs", "100000"]
    command = [sys.executable, "-c", script, "fit", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            break
    time.sleep(0.5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert (
        f"to resume: asr-dni fit --ckpt_path runs/stopped{number}/version_0/checkpoints/last.ckpt" in errors
    )
    assert len(errors.splitlines()) == 2, errors  # the first is empty: after ^C
    assert (
        torch.load(f"runs/stopped{number}/version_0/checkpoints/last.ckpt", weights_only=True)["epoch"] >= 1
    )


# ---------------------------------------------------------------------- mistakes


@pytest.fixture
def not_checkpoints(here, tmp_path):
    (tmp_path / "truncated.ckpt").write_bytes(Path(LAST).read_bytes()[:3000])
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save({"weights": 1}, tmp_path / "other.ckpt")
    return [tmp_path / name for name in ("missing.ckpt", "truncated.ckpt", "text.ckpt", "other.ckpt")]


def test_what_is_no_checkpoint(not_checkpoints, capsys):
    for path in not_checkpoints:
        for command in ("fit", "test", "validate", "predict"):
            assert path.name in fails(capsys, command, "--config", "tiny.yaml", "--ckpt_path", str(path))
            assert path.name in fails(capsys, command, "--ckpt_path", str(path))
        assert path.name in fails(capsys, "noise-curve", str(path))
        assert str(path) in fails(capsys, "compare", str(path))


def stopping(monitor: str, mode: str) -> str:
    settings = {"monitor": monitor, "mode": mode}
    return json.dumps([{"class_path": "pytorch_lightning.callbacks.EarlyStopping", "init_args": settings}])


FIT = ["fit", "--config", "tiny.yaml", "--name", "mistake", "--wandb", "offline"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--model.network.units", "many"], "model.network.units: expected int"),
        (["--model.network.unitss", "3"], "unitss; did you mean --model.network.units? (asr-dni fit --help"),
        (["--trainer.max_epoch", "3"], "did you mean --trainer.max_epochs?"),
        (["--optimizer.lr", "3"], "did you mean --model.optimizer?"),
        (["--nonsense", "3"], "there is no setting --nonsense (asr-dni"),
        (["--annealing.sigma", "-1"], "sigma is -1"),
        (["--noise_curve.sigmas", "[-1.0]"], "sigmas contains -1"),
        (["--data.source.init_args.path", "nowhere"], "nowhere: no such folder"),
        (["--checkpoint.monitor", "val/accuracy@3.0"], "val/accuracy@3.0"),
        (["--checkpoint.monitor", "val/loss", "--checkpoint.mode", "max"], "give checkpoint.mode min"),
        (["--trainer.callbacks", stopping("val/accuracy", "min")], "give EarlyStopping.mode max"),
        (["--trainer.callbacks", stopping("val/loss@1.0", "max")], "give EarlyStopping.mode min"),
        (["--trainer.check_val_every_n_epoch", "4"], "no epoch is validated: trainer.max_epochs is 3"),
        (["--trainer.limit_val_batches", "0"], "no epoch is validated"),
        (
            ["--trainer.check_val_every_n_epoch", "2", "--noise_curve.every_n_epochs", "3"],
            "give a multiple of 2",
        ),
        (["--trainer.accelerator", "abacus"], "abacus"),
        (["--runs", "tiny.yaml"], "tiny.yaml"),
        (["--trainer.max_epochs", "0"], "trainer.max_epochs is 0"),
        (["--trainer.max_epochs", "-1"], "trainer.max_epochs is -1"),
        (["--trainer.max_steps", "0"], "trainer.max_steps 0"),
        (["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "-1"], "model.optimizer: Invalid"),
        (["--seed_everything", "-1"], "seed_everything: "),
        (["--wandb_project", "a/b"], "wandb_project: Invalid project name 'a/b'"),
        (["--wandb_project", "a" * 129], "exceeded 128 characters"),
    ],
)
def test_mistakes_in_settings(here, capsys, options, named):
    assert named in fails(capsys, *FIT, *options)
    assert not (here / "runs" / "mistake").exists()


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_nothing_is_evaluated_without_a_checkpoint(command, here, capsys):
    options = ["--config", "tiny.yaml", "--name", "mistake"]
    assert "--ckpt_path FILE" in fails(capsys, command, *options)
    assert "--ckpt_path FILE" in fails(capsys, command, *options, "--ckpt_path", "null")
    assert "--ckpt_path needs a value" in fails(capsys, command, *options, "--ckpt_path")
    assert "--ckpt_path needs a value" in fails(capsys, command, "--ckpt_path", *options)
    assert not (here / "runs" / "mistake").exists()


@pytest.mark.parametrize("name", ["../up", "a/../../up", "/up", "", "."])
def test_a_run_stays_in_its_folder(name, here, capsys):
    assert "give a folder below --runs" in fails(capsys, "predict", "--ckpt_path", LAST, "--name", name)
    assert not (here / "up").exists()


def test_a_checkpoint_on_other_words(here, tmp_path, capsys):
    """As many labels as the network has, so that the weights would fit."""
    for word in ("go", "no", "stop"):
        for k in range(30):
            write(tmp_path / "words" / word / f"{k:08x}_nohash_0.wav", tone(300))
    options = [
        "--ckpt_path",
        LAST,
        "--data.source.init_args.path",
        str(tmp_path / "words"),
        "--name",
        "mistake",
    ]
    said = fails(capsys, "test", *options)
    assert "knows the labels go, no, yes, but the data have go, no, stop" in said
    assert f"asr-dni noise-curve {LAST} --data FOLDER" in said
    assert "goes on with its own labels" in fails(capsys, "fit", *options)
    assert not (here / "runs" / "mistake").exists()


@pytest.mark.parametrize("command", ["fit", "test"])
@pytest.mark.parametrize(
    "other", ["--model.network.units=5", "--model.network.layers=1", "--model.network.cell=gru"]
)
def test_a_checkpoint_of_another_network(command, other, here, capsys):
    options = ["--config", "tiny.yaml", "--ckpt_path", LAST, "--name", "mistake", other]
    assert f"{LAST}: holds another network" in fails(capsys, command, *options)
    assert not (here / "runs" / "mistake").exists()


def test_mistakes_in_configuration_files(here, tmp_path, capsys):
    (tmp_path / "broken.yaml").write_text("a: [1,")
    (tmp_path / "unknown.yaml").write_text("modell: {units: 3}\n")
    assert "missing.yaml: there is no such configuration file" in fails(
        capsys, "fit", "--config", "missing.yaml"
    )
    assert "broken.yaml: is not valid YAML" in fails(capsys, "fit", "--config", str(tmp_path / "broken.yaml"))
    assert "modell" in fails(capsys, *FIT, "--config", str(tmp_path / "unknown.yaml"))
    assert "data.source" in fails(capsys, "fit")


def test_text_that_is_named_wav(here, tmp_path, capsys):
    for k in range(30):
        write(tmp_path / "bad" / "go" / f"{k:08x}_nohash_0.wav", tone(300))
    (tmp_path / "bad" / "go" / "ffffffff_nohash_0.wav").write_text("no sound")
    command = ["noise-curve", LAST, "--data", str(tmp_path / "bad"), "--split", "all", "--sigmas", "[0]"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--output", str(tmp_path / "out")])
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()  # after the bar of the decoding
    assert said[-1].startswith("asr-dni: error: 1 of 31 recordings is damaged: ")
    assert "go/ffffffff_nohash_0.wav" in said[-1]
    assert len(said) <= 2
    assert not (tmp_path / "out").exists()
    main([*command, "--output", str(tmp_path / "out"), "--damaged", "skip"])
    assert set(pd.read_csv(tmp_path / "out" / "noise_curve.csv", comment="#")["n_clips"]) == {30}


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (["noise-curve", LAST, "--sigmas", "[-1]"], "sigmas contains -1"),
        (["noise-curve", LAST, "--draws", "0"], "draws is 0"),
        (["noise-curve", LAST, "--device", "abacus"], "abacus"),
        (["noise-curve", LAST, "--data", "nowhere"], "nowhere"),
        (["noise-curve", LAST, "--split", "all"], "--data"),
        (["noise-curve", LAST, "--output", "tiny.yaml"], "tiny.yaml"),
        (["noise-curve"], "checkpoint"),
        (["compare"], "runs"),
        (["compare", "nowhere"], "nowhere"),
        (["compare", "runs/tiny/version_0", "--output", "tiny.yaml"], "tiny.yaml"),
        (["compare", "runs", "--colour", "red"], "--colour"),
        (["info", "more"], "more"),
        (["info", "--all"], "--all"),
        (["demo", "--epochs", "0"], "epochs is 0"),
        (["demo", "--sigma_train", "-1"], "sigma is -1"),
        (["demo", "--units", "few"], "units"),
        (["demo", "--output", "tiny.yaml"], "output tiny.yaml"),
        (["demo", "--data", "tiny.yaml"], "data tiny.yaml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_of_other_commands(here, capsys, command, named):
    assert named in fails(capsys, *command)


def test_wandb_online_without_a_login(here, capsys, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(here / "no-netrc"))
    assert "no login" in fails(capsys, *FIT[:-1], "online")


SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--checkpoint.monitor=null"]


def test_a_key_without_a_network_does_not_keep_a_training_back(here, tmp_path, capfd, caplog, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with socket.socket() as taken:  # nobody listens there
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        main(["fit", "--config", "tiny.yaml", "--runs", str(tmp_path), *SHORT])
    said = capfd.readouterr()
    (warned,) = [message for message in caplog.messages if message.startswith("W&B: ")]
    assert "cannot be reached" in warned
    assert "this run is offline" in warned
    assert (tmp_path / "tiny" / "version_0" / "noise_curve.csv").is_file()
    (line,) = re.findall(r"^W&B, offline: .*$", said.out, re.M)
    for command in ("wandb sync", "wandb leet run"):
        folder = re.search(rf"{command} (\S+)", line)[1]
        assert list(Path(folder).glob("*.wandb"))


@pytest.mark.parametrize("variable", [("WANDB_MODE", "disabled"), ("WANDB_DISABLED", "true")])
def test_wandb_disabled_by_the_environment_says_nothing(here, tmp_path, capfd, monkeypatch, variable):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv(*variable)
    main(["fit", "--config", "tiny.yaml", "--runs", str(tmp_path), "--test_after_fit=false", *SHORT])
    said = capfd.readouterr()
    assert "W&B" not in said.out + said.err
    assert not (tmp_path / "tiny" / "version_0" / "wandb").exists()


def test_a_wandb_mode_that_is_none(here, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    said = fails(capsys, "fit", "--config", "tiny.yaml", "--runs", str(tmp_path), *SHORT)
    assert "WANDB_MODE is 'nonsense'" in said


def test_a_wandb_project_that_cannot_be(here, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "a#b")
    said = fails(capsys, "fit", "--config", "tiny.yaml", "--runs", str(tmp_path), *SHORT)
    assert re.search("WANDB_PROJECT.*Invalid project name 'a#b'", said)
    assert not any(tmp_path.iterdir())


def test_the_curve_says_how_it_came_about(here):
    lines = (here / "runs" / "tiny" / "version_0" / "noise_curve.csv").read_text().splitlines()
    noted = dict(line.removeprefix("# ").split(": ", 1) for line in lines if line.startswith("# "))
    assert (json.loads(noted["sigma_train"]), json.loads(noted["cell"])) == (1.0, "lstm")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--annealing.sigma", "4"), "annealing.start 0 to annealing.sigma 4, at once with"),
        (("--annealing.sigma", "1", "--annealing.start", "8"), "bits are 1"),
    ],
)
def test_strengths_that_the_hardware_cannot_have_are_found_before_the_run(given, message, tmp_path, capsys):
    hardware = ("--model.noise.hardware", "noisy_weights", "--model.noise.strength", "adc.bits")
    with pytest.raises(SystemExit) as raised:
        main(["fit", "--config", "digits_lstm_dni", "--runs", str(tmp_path), *hardware, *given])
    assert raised.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rest", ["", "raise ImportError('not today')\n"])
def test_the_garbage_collector_waits_for_the_imports_only(rest, tmp_path, monkeypatch):
    source = "import gc\nseen = [gc.isenabled()]\ndef run(arguments):\n    seen.append(gc.isenabled())\n"
    name = f"some_command_{len(rest)}"
    (tmp_path / f"{name}.py").write_text(source + rest)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(COMMANDS, "some", Command("what it does", name, "run"))
    if rest:
        with pytest.raises(ImportError, match="not today"):
            main(["some"])
    else:
        for _ in range(2):
            main(["some"])
        assert sys.modules.pop(name).seen == [False, True, True]
    assert gc.isenabled()
