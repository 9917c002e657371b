"""Whatever averages the weights: what is validated, kept, named and tested is one network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.nn import functional

import asr_dni
from asr_dni.cli import run as cli_run
from asr_dni.cli.main import main
from asr_dni.data import DigitsData
from asr_dni.evaluation import NoiseCurve
from asr_dni.model import load_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")

CONVOLUTIONS = ["--model.network.convolutions.blocks", "[{channels: 4, stride: [1, 2]}, {channels: 4}]"]
EVERYWHERE = [*CONVOLUTIONS, "--model.noise.sites", "[convolution,input,recurrent,output]"]
AVERAGING = {
    "none": [],
    "stochastic": [
        "--trainer.callbacks+=StochasticWeightAveraging",
        "--trainer.callbacks.swa_lrs=0.05",
        "--trainer.callbacks.swa_epoch_start=2",
    ],
    "equal": ["--trainer.callbacks+=WeightAveraging"],
    "exponential": ["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.9"],
    "none of normalised": EVERYWHERE,
    "normalised": [
        "--trainer.callbacks+=EMAWeightAveraging",
        "--trainer.callbacks.decay=0.9",
        *EVERYWHERE,
    ],
}
DIGITS = ["--data_class", "DigitsData", "--data.batch_size", "200", "--trainer.accelerator", "cpu"]
NETWORK = ["--model.network.units", "6", "--model.network.layers", "1", "--annealing.sigma", "0.3"]
CURVE = ["--noise_curve.sigmas", "[0,1]", "--noise_curve.draws", "2", "--noise_curve.scale", "signal"]
WATCHED = ["--noise_curve.every_n_epochs", "4", "--noise_curve.validation_draws", "2"]
NO_CURVES = ["--noise_curve.every_n_epochs", "0", "--test_after_fit", "false"]
FIT = ["fit", *DIGITS, *NETWORK, *CURVE, *WATCHED, "--wandb", "disabled", "--trainer.max_epochs", "4"]


SLOW = {"none", "equal", "none of normalised"}
KINDS = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in AVERAGING]


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    """Gives the folder of a run with a kind of averaging, which is trained when it is first asked for."""
    folder = tmp_path_factory.mktemp("averaging")

    def run_of(averaging: str) -> Path:
        run = folder / "runs" / averaging / "version_0"
        if not run.exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                patch.setenv("PL_GLOBAL_SEED", os.environ.get("PL_GLOBAL_SEED", "0"))
                main([*FIT, "--name", averaging, *AVERAGING[averaging]])
        return run

    return run_of


def assert_equal(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def measured_again(checkpoint: Path, folder: Path, *options: str) -> NoiseCurve:
    command = ["noise-curve", str(checkpoint), "--sigmas", "0,1", "--draws", "2", "--scale", "signal"]
    # The batches of the run: other ones round otherwise.
    main([*command, "--batch_size", "200", "--output", str(folder), *options])
    return NoiseCurve.from_csv(folder / "noise_curve.csv")


@pytest.mark.parametrize("averaging", KINDS)
def test_the_runs_curve_is_that_of_the_checkpoint_that_it_names(averaging, run_of, tmp_path, monkeypatch):
    run = run_of(averaging)
    monkeypatch.chdir(run.parents[2])
    noted = NoiseCurve.from_csv(run / "noise_curve.csv")
    again = measured_again(Path(noted.settings["checkpoint"]), tmp_path)
    pd.testing.assert_frame_equal(noted.frame, again.frame, check_exact=True)
    assert noted.frame["snr_db"].notna().all()
    assert noted.settings["weights"] == again.settings["weights"]


@pytest.mark.parametrize("averaging", KINDS)
def test_the_curve_of_the_last_validation_is_that_of_the_last_checkpoint(averaging, run_of, tmp_path):
    run = run_of(averaging)
    noted = NoiseCurve.from_csv(run / "noise_curve_validation.csv")
    last = run / "checkpoints" / "last.ckpt"
    again = measured_again(last, tmp_path, "--split", "validation")
    pd.testing.assert_frame_equal(noted.frame, again.frame, check_exact=True)
    assert noted.settings["weights"] == again.settings["weights"]


@pytest.mark.parametrize("averaging", KINDS)
def test_the_best_checkpoint_is_chosen_by_what_is_in_it(averaging, run_of, tmp_path, capsys):
    run = run_of(averaging)
    best = run / "checkpoints" / "best.ckpt"
    main(["validate", "--ckpt_path", str(best), "--runs", str(tmp_path), *CURVE])
    accuracy = pd.read_csv(run / "metrics.csv")["val/accuracy"].max()
    said = re.search(r"accuracy ([\d.]+) %", capsys.readouterr().out)
    assert said
    assert float(said.group(1)) == pytest.approx(100 * accuracy, abs=0.051)


@pytest.mark.slow
@pytest.mark.parametrize("names", [("none", "equal", "exponential"), ("none of normalised", "normalised")])
def test_averaging_leaves_the_training_as_it_is_and_keeps_the_average(names, run_of):
    plain, *averaged = (load_checkpoint(run_of(name) / "checkpoints" / "last.ckpt") for name in names)
    for contents in averaged:
        assert_equal(contents["current_model_state"], plain["state_dict"])
        weight = "network.classifier.weight"
        assert not torch.equal(contents["state_dict"][weight], plain["state_dict"][weight])


def test_an_average_over_epochs_is_their_mean(run_of, tmp_path, monkeypatch):
    """Against the weights at the beginning of every epoch from the second on, which are those of its first batch."""
    monkeypatch.setenv("PL_GLOBAL_SEED", os.environ.get("PL_GLOBAL_SEED", "0"))
    weights = []

    def note(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch >= 1 and batch_idx == 0:
            weights.append(pl_module.network.classifier.weight.detach().clone())

    monkeypatch.setattr(cli_run.TrainingLog, "on_train_batch_start", note)
    main([*FIT, "--runs", str(tmp_path), *AVERAGING["stochastic"], *NO_CURVES])
    last = load_checkpoint(tmp_path / "spotter" / "version_0" / "checkpoints" / "last.ckpt")
    assert len(weights) == 3
    average = last["state_dict"]["network.classifier.weight"]
    torch.testing.assert_close(average, torch.stack(weights).mean(0))


def test_stochastic_averaging_is_refused_where_there_is_batch_normalisation(tmp_path, capsys):
    """An average of weights with another network's running statistics would be validated and kept."""
    with pytest.raises(SystemExit):
        main([*FIT, "--runs", str(tmp_path), *CONVOLUTIONS, *NO_CURVES, *AVERAGING["stochastic"]])
    assert "StochasticWeightAveraging has no running statistics" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("averaging", ["equal", "exponential"])
def test_running_statistics_are_those_of_the_averaged_weights(averaging, tmp_path, monkeypatch):
    """Against a convolution by torch of the last epoch's batches: here 6 of 7, the fewest with 1,024 clips."""
    monkeypatch.setenv("PL_GLOBAL_SEED", os.environ.get("PL_GLOBAL_SEED", "0"))
    batches = []

    def note(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 3:
            batches.append(batch.features)

    monkeypatch.setattr(cli_run.TrainingLog, "on_train_batch_start", note)
    # A checkpoint of the last epoch's end is one without a validation beside it.
    seldom = ["--trainer.check_val_every_n_epoch", "3"]
    main([*FIT, "--runs", str(tmp_path), *CONVOLUTIONS, *AVERAGING[averaging], *NO_CURVES, *seldom])
    last = load_checkpoint(tmp_path / "spotter" / "version_0" / "checkpoints" / "last.ckpt")
    used = [its[:, None] for its in batches[-6:]]
    assert sum(map(len, used)) >= 1024 > sum(map(len, used[1:]))
    state, first = last["state_dict"], "network.convolutions.blocks"
    outputs = [functional.conv2d(its, state[f"{first}.0.weight"], stride=(1, 2), padding=1) for its in used]
    assert_statistics_of(outputs, state, f"{first}.1")
    scale, shift = state[f"{first}.1.weight"], state[f"{first}.1.bias"]
    hidden = [functional.batch_norm(its, None, None, scale, shift, training=True).relu() for its in outputs]
    assert_statistics_of(
        [functional.conv2d(its, state[f"{first}.3.weight"], padding=1) for its in hidden], state, f"{first}.4"
    )


@pytest.mark.slow
def test_running_statistics_of_two_processes_are_those_of_all_clips(tmp_path, monkeypatch):
    """Each process has half of the 1,157 digits, all of which are among its last batches."""
    monkeypatch.setenv("PYTHONPATH", str(Path(asr_dni.__file__).parents[1]))
    two = ["--trainer.strategy", "ddp", "--trainer.devices", "2", "--runs", str(tmp_path)]
    options = [*FIT, *CONVOLUTIONS, *AVERAGING["exponential"], *NO_CURVES, *two]
    subprocess.run([sys.executable, "-m", "asr_dni", *options], cwd=tmp_path, timeout=300, check=True)
    state = load_checkpoint(tmp_path / "spotter" / "version_0" / "checkpoints" / "last.ckpt")["state_dict"]
    data = DigitsData(batch_size=200)
    data.prepare_data()
    data.setup("fit")
    clips = torch.cat([data.transform(batch).features for batch in data.train_dataloader()])
    first = "network.convolutions.blocks.0"
    outputs = functional.conv2d(clips[:, None], state[f"{first}.weight"], stride=(1, 2), padding=1)
    found = state["network.convolutions.blocks.1.running_mean"]
    torch.testing.assert_close(found, outputs.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    found = state["network.convolutions.blocks.1.running_var"]
    torch.testing.assert_close(found, outputs.var((0, 2, 3)), rtol=5e-3, atol=0)


def assert_statistics_of(outputs: list[torch.Tensor], state: dict, name: str) -> None:
    """Of the clips of all batches, among which is a short one."""
    clips = torch.cat(outputs)
    assert len({len(its) for its in outputs}) == 2
    torch.testing.assert_close(state[f"{name}.running_mean"], clips.mean((0, 2, 3)))
    torch.testing.assert_close(state[f"{name}.running_var"], clips.var((0, 2, 3)), rtol=1e-3, atol=0)


def test_how_it_was_averaged_tells_trainings_apart(run_of):
    kinds = ("stochastic", "exponential")
    curves = [NoiseCurve.from_csv(run_of(name) / "noise_curve.csv") for name in kinds]
    assert curves[0].settings["training"]["averaging.swa_lrs"] == 0.05
    assert curves[1].settings["training"]["averaging.decay"] == 0.9


@pytest.mark.slow
@pytest.mark.parametrize("averaging", AVERAGING)
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_run_that_is_broken_off_and_resumed_is_the_whole_one(
    averaging, epochs, run_of, tmp_path, monkeypatch
):
    expected = load_checkpoint(run_of(averaging) / "checkpoints" / "last.ckpt")
    monkeypatch.setenv("PL_GLOBAL_SEED", os.environ.get("PL_GLOBAL_SEED", "0"))

    def interrupt(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == epochs and batch_idx == 1:
            raise KeyboardInterrupt

    runs = ["--runs", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(cli_run.TrainingLog, "on_train_batch_start", interrupt)
        with pytest.raises(SystemExit):
            main([*FIT, "--name", "broken", *runs, *AVERAGING[averaging]])
    broken = tmp_path / "broken" / "version_0" / "checkpoints" / "last.ckpt"
    assert load_checkpoint(broken)["epoch"] == epochs - 1
    main(["fit", "--ckpt_path", str(broken), "--name", "resumed", *runs])
    resumed = next(tmp_path.glob("*/version_*/noise_curve.csv")).parent
    found = load_checkpoint(resumed / "checkpoints" / "last.ckpt")
    for key in ("state_dict", "current_model_state"):
        assert (
            (key in found) == (key in expected) == (key == "state_dict" or not averaging.startswith("none"))
        )
        assert_equal(found.get(key, {}), expected.get(key, {}))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ([*AVERAGING["equal"], *AVERAGING["exponential"]], "both average the weights"),
        ([*AVERAGING["equal"], "--checkpoint.save_weights_only", "true"], "before WeightAveraging averages"),
    ],
)
def test_what_does_not_go_together(options, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([*FIT, *options])
    assert ended.value.code == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
