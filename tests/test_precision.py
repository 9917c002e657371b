"""Lightning's precisions change rounding and nothing else."""

import os

import pandas as pd
import pytest
import torch
import yaml

from asr_dni.cli.main import main
from asr_dni.data import DeformationSettings, DigitsData, StrokesData
from asr_dni.model import load_checkpoint
from asr_dni.nn import NoisyLSTM, stack_networks, use_implementation
from asr_dni.noise import Noise

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("other", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("implementation", ["auto", "reference"])
def test_torchs_default_type_is_not_that_of_the_noise(other, implementation):
    """Lightning changes the default in its precisions 64-true, bf16-true and 16-true."""
    torch.manual_seed(0)
    layer, inputs = NoisyLSTM(5, 7), torch.randn(6, 3, 5)
    population = stack_networks([layer, NoisyLSTM(5, 7)])
    noise = Noise(0.5, seed=1, draw=0)

    def run() -> list[torch.Tensor]:
        results = []
        for network in (layer, population):
            network.zero_grad()
            with network.under(noise), use_implementation(implementation):
                outputs, _ = network(inputs)
                outputs.square().sum().backward()
            results += [outputs.detach(), *(parameter.grad.clone() for parameter in network.parameters())]
        return results

    expected = run()
    before = torch.get_default_dtype()
    torch.set_default_dtype(other)
    try:
        found = run()
    finally:
        torch.set_default_dtype(before)
    for one, two in zip(expected, found, strict=True):
        assert one.dtype == two.dtype == torch.float32
        assert torch.equal(one, two)


@pytest.fixture(scope="module")
def run_in(tone_words, tone_cache, tmp_path_factory):
    """Gives the folder of a run in a precision."""
    folder = tmp_path_factory.mktemp("precision")
    settings = {
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
        "data": {
            "source": {"class_path": "asr_dni.data.Folder", "init_args": {"path": str(tone_words)}},
            "cache_dir": str(tone_cache),
            "batch_size": 6,
        },
        "model": {"network": {"units": 4, "layers": 1}, "noise": {"scale": "signal"}},
        "annealing": {"sigma": 0.5, "start": 0.5},
        "noise_curve": {"sigmas": [0.0, 1.0], "draws": 2, "every_n_epochs": 0},
        "checkpoint": {"monitor": None},
        "wandb": "disabled",
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))

    def run_in(precision: str):
        run = folder / "runs" / precision / "version_0"
        if not run.exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                patch.setenv("PL_GLOBAL_SEED", os.environ.get("PL_GLOBAL_SEED", "0"))
                options = ["--trainer.precision", precision, "--name", precision]
                main(["fit", "--config", "settings.yaml", *options])
                last = str(run / "checkpoints" / "last.ckpt")
                main(["predict", "--ckpt_path", last, "--name", f"{precision}_predict"])
        return run

    return run_in


@pytest.mark.parametrize(
    ("precision", "kind", "tolerance"),
    [
        ("64-true", torch.float64, 1e-4),
        ("bf16-true", torch.bfloat16, 0.05),
        ("bf16-mixed", torch.float32, 0.05),
    ],
)
def test_a_precision_trains_and_evaluates_what_single_precision_does(run_in, precision, kind, tolerance):
    expected, found = run_in("32-true"), run_in(precision)
    weights = [load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (expected, found)]
    for name, value in weights[1].items():
        if "signal_statistics" not in name:
            assert value.dtype == kind, name
        torch.testing.assert_close(
            value.double(), weights[0][name].double(), rtol=2 * tolerance, atol=tolerance
        )
    curves = [pd.read_csv(run / "noise_curve.csv", comment="#") for run in (expected, found)]
    pd.testing.assert_series_equal(curves[1]["loss"], curves[0]["loss"], rtol=tolerance)
    metrics = [pd.read_csv(run / "metrics.csv") for run in (expected, found)]
    for name in ("train/loss", "val/loss", "test/loss"):
        pd.testing.assert_series_equal(metrics[1][name], metrics[0][name], rtol=tolerance)
    predictions = [
        pd.read_csv(run.parents[1] / f"{run.parent.name}_predict" / "version_0" / "predictions.csv")
        for run in (expected, found)
    ]
    for name in ("go", "no", "yes"):
        pd.testing.assert_series_equal(predictions[1][name], predictions[0][name], atol=tolerance)


@pytest.mark.parametrize(("precision", "other"), [("64-true", torch.float64), ("bf16-true", torch.bfloat16)])
@pytest.mark.parametrize(
    ("config", "kind"), [("digits_lstm_dni", DigitsData), ("strokes_lstm_dni", StrokesData)]
)
def test_examples_in_memory_are_deformed_in_any_precision(
    config, kind, precision, other, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    few = ["--trainer.fast_dev_run", "1", "--trainer.accelerator", "cpu"]
    main(["fit", "--config", config, "--trainer.precision", precision, "--wandb", "disabled", *few])
    data = kind(DeformationSettings(rotation=20.0, slant=0.2))
    features, clip_ids = torch.rand(5, 8, 8 if kind is DigitsData else 4), torch.arange(5)
    expected = data.augment(features, clip_ids, 1)
    torch.set_default_dtype(other)
    try:
        found = data.augment(features, clip_ids, 1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)
    assert not torch.equal(found, features)
