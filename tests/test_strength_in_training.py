"""A run whose curve is over another strength than sigma, from the configuration to what is logged."""

import pandas as pd
import pytest
import torch

from asr_dni.cli.main import main
from asr_dni.errors import UserError
from asr_dni.evaluation import NoiseCurve, NoiseCurveCallback, metric_name
from asr_dni.noise import SIGMA, GaussianWeights, Strength

pytestmark = pytest.mark.filterwarnings("ignore")

DIGITS = ["--data_class", "DigitsData", "--data.batch_size", "200", "--trainer.accelerator", "cpu"]
NETWORK = ["--model.network.units", "6", "--model.network.layers", "1", "--annealing.sigma", "0"]
BITS = ["--noise_curve.hardware", "noisy_weights", "--noise_curve.strength", "adc.bits"]
CHIPS = ["--noise_curve.strengths", "3,8", "--noise_curve.watched_strengths", "8", "--noise_curve.chips", "2"]
SHORT = ["--noise_curve.draws", "2", "--wandb", "disabled", "--trainer.max_epochs", "1"]


def test_bits_are_measured_watched_and_written(tmp_path, monkeypatch, restored_process):
    monkeypatch.chdir(tmp_path)
    monitor = ["--checkpoint.monitor", "val/accuracy@adc_bits=8.0", "--checkpoint.mode", "max"]
    every = ["--trainer.check_val_every_n_epoch", "1"]
    main(["fit", *DIGITS, *NETWORK, *BITS, *CHIPS, *SHORT, *monitor, *every, "--name", "bits"])
    run = tmp_path / "runs" / "bits" / "version_0"
    curve = NoiseCurve.from_csv(run / "noise_curve.csv")
    assert curve.strength == Strength("adc.bits")
    # Its weights differ from chip to chip; nothing is fresh in every pass.
    expected = [[bits, chip, 0] for bits in (3, 8) for chip in (0, 1)]
    assert curve.frame[["strength", "chip", "draw"]].to_numpy().tolist() == expected
    assert curve.settings["hardware"]["adc"]["init_args"]["bits"] is None
    assert curve.settings["chips"] == 2
    logged = [path.read_text() for path in run.rglob("metrics.csv")]
    assert any("val/accuracy@adc_bits=8.0" in text and "test/loss@adc_bits=3.0" in text for text in logged)
    assert "ADC bits" in (run / "noise_curve.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(("chips", "expected"), [("step", 4), ("epoch", 2), ("run", 1)])
def test_chips_are_programmed_as_often_as_is_said(chips, expected, tmp_path, monkeypatch, restored_process):
    """Two epochs of two steps, on hardware whose noise is the chip's alone."""
    monkeypatch.chdir(tmp_path)
    seen: list[int] = []
    program = GaussianWeights.program

    def note(self, weight, numbers):
        if torch.is_grad_enabled() and weight.shape[0] == 10:  # the classifier's
            seen.append(hash(numbers.normal().numpy().tobytes()))
        return program(self, weight, numbers)

    monkeypatch.setattr(GaussianWeights, "program", note)
    hardware = ["--model.noise.hardware", "noisy_weights", "--model.noise.strength", "weight.sigma"]
    drawn = ["--annealing.sigma", "0.05", "--annealing.schedule", "constant", "--annealing.drawn", "batch"]
    short = ["--trainer.max_epochs", "2", "--trainer.limit_train_batches", "2", "--wandb", "disabled"]
    fit = [
        "fit",
        *DIGITS,
        "--model.network.units",
        "6",
        "--model.network.layers",
        "1",
        "--test_after_fit",
        "false",
    ]
    main([*fit, *hardware, *drawn, *short, "--model.noise.chips", chips, "--name", chips])
    assert len(set(seen)) == expected
    strengths = pd.read_csv(next(tmp_path.rglob("metrics.csv")))["sigma_train"].dropna()
    assert strengths.between(0, 0.05, inclusive="neither").all()


def test_names_of_what_is_logged():
    assert (
        metric_name("val", "accuracy", 1) == metric_name("val", "accuracy", 1.0, SIGMA) == "val/accuracy@1.0"
    )
    assert metric_name("test", "loss", 6, Strength("adc.bits")) == "test/loss@adc_bits=6.0"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strength": "adc.bits"}, "strength is adc.bits, but there are no levels: give strengths"),
        (
            {"strength": "adc.bits", "strengths": [4]},
            "strength adc.bits is not one of this hardware's: output.sigma",
        ),
        ({"hardware": "noisy_weights", "strength": "adc.bits", "strengths": [4.5]}, "adc.bits: .*4.5"),
        (
            {"hardware": "noisy_weights", "strength": "adc.bits", "strengths": [4], "scale": "range"},
            "scale is given",
        ),
        ({"hardware": "noisy_weights"}, "strength output.sigma is not one of this hardware's: weight.sigma"),
        ({"chips": 2}, "chips is 2, but on this hardware all chips are the same"),
        ({"watched_strengths": [1, 1]}, "watched_strengths contains 1 twice"),
    ],
)
def test_mistakes_are_one_line(options, said):
    with pytest.raises(UserError, match=said) as failed:
        NoiseCurveCallback(**options)
    assert "\n" not in str(failed.value)
