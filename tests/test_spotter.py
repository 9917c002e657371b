import dataclasses
import json
import os
from types import SimpleNamespace

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from asr_dni.cli.main import main
from asr_dni.cli.run import LastCheckpoint
from asr_dni.data import AugmentationSettings, Folder, KeywordData
from asr_dni.errors import UserError
from asr_dni.evaluation import NoiseCurve, NoiseCurveCallback, measure_noise_curve
from asr_dni.evaluation.curves.curve import curve_label
from asr_dni.features import MFCC
from asr_dni.model import KeywordSpotter, NetworkSettings, NoiseAnnealing, TrainingNoise, load_checkpoint
from asr_dni.noise import Noise, Strength

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*logging interval",
    "ignore:.*dirpath has changed",
    "ignore:.*LeafSpec",
)


@pytest.fixture(autouse=True)
def _restore_seed(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", os.environ.get("PL_GLOBAL_SEED", "0"))


@pytest.fixture
def data(tone_words, tone_cache):
    def data(**options):
        return KeywordData(
            Folder(tone_words),
            front_end=MFCC(n_mfcc=10),
            augmentation=AugmentationSettings(time_shift_ms=100.0, background_probability=0.5, time_masks=1),
            batch_size=8,
            cache_dir=tone_cache,
            **options,
        )

    return data


class Sigmas(Callback):
    """Writes down sigma_train of every step, and stops the run after some epochs."""

    def __init__(self, epochs=None):
        self.epochs, self.seen = epochs, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(pl_module.sigma_train)

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch + 1 == self.epochs


def train(
    folder,
    data,
    *callbacks,
    epochs=4,
    seed=0,
    ckpt_path=None,
    noise=None,
    sigma=1.0,
    annealing=None,
    **network,
):
    pl.seed_everything(seed, verbose=False)
    network = {"units": 6, "layers": 2, "dropout": 0.3, **network}
    spotter = KeywordSpotter(
        data.label_names, data.n_features, NetworkSettings(**network), noise or TrainingNoise(seed=seed)
    )
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=CSVLogger(folder, name="run", version="0"),
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        callbacks=[
            annealing or NoiseAnnealing(sigma, schedule="cosine", warm_up=0.2, length=0.7),
            *callbacks,
            LastCheckpoint(),
        ],
    )
    trainer.fit(spotter, datamodule=data, ckpt_path=ckpt_path)
    return trainer, spotter


def assert_same(one: torch.nn.Module, other: torch.nn.Module) -> None:
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.fixture(scope="module")
def trained(tone_words, tone_cache, tmp_path_factory):
    """Four epochs, conventional noise on all sites, and the checkpoint of the last of them."""
    folder = tmp_path_factory.mktemp("trained")
    module = KeywordData(Folder(tone_words), front_end=MFCC(n_mfcc=10), batch_size=8, cache_dir=tone_cache)
    _, spotter = train(folder, module)
    return spotter, folder / "run" / "0" / "checkpoints" / "last.ckpt"


def test_two_epochs_and_two_resumed_ones_are_four(tmp_path, data):
    whole, first, second = Sigmas(), Sigmas(epochs=2), Sigmas()
    _, expected = train(tmp_path / "whole", data(), whole)
    train(tmp_path / "first", data(), first)
    checkpoint = tmp_path / "first" / "run" / "0" / "checkpoints" / "last.ckpt"
    assert load_checkpoint(checkpoint)["epoch"] == 1
    torch.rand(3)  # whatever else happened in the process
    _, resumed = train(tmp_path / "second", data(), second, ckpt_path=checkpoint)
    assert len(first.seen) == len(second.seen) == 6
    assert first.seen + second.seen == whole.seen
    assert len(set(whole.seen)) > 5
    assert_same(resumed, expected)


def test_sigma_train_is_logged_as_it_was(tmp_path, data):
    sigmas = Sigmas()
    train(tmp_path, data(), sigmas, epochs=2)
    logged = pd.read_csv(tmp_path / "run" / "0" / "metrics.csv").dropna(subset="sigma_train")
    by_step = logged.groupby("step")["sigma_train"].first().tolist()
    assert by_step == pytest.approx(sigmas.seen)


def test_the_seed_decides_and_threads_and_workers_do_not(tmp_path, data, trained):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        _, again = train(tmp_path / "a", data(num_workers=1), epochs=1)
        torch.set_num_threads(threads)
        _, once = train(tmp_path / "b", data(num_workers=2), epochs=1)
    finally:
        torch.set_num_threads(threads)
    assert_same(again, once)
    _, other = train(tmp_path / "c", data(), epochs=1, seed=1)
    assert not torch.equal(other.network.classifier.weight, once.network.classifier.weight)


def test_early_stopping_and_checkpoint_watch_a_noisy_accuracy(tmp_path, data):
    curve = NoiseCurveCallback([0.0], every_n_epochs=0, validation_draws=1, watched_sigmas=[1.0])
    best = ModelCheckpoint(filename="best", monitor="val/accuracy@1.0", mode="max")
    # It cannot rise by 2: the first validation is the best one and the run ends after the second.
    stopping = EarlyStopping("val/accuracy@1.0", min_delta=2.0, patience=1, mode="max")
    trainer, _ = train(tmp_path, data(), curve, best, stopping)
    assert trainer.current_epoch == 2
    assert best.best_model_path.endswith("best.ckpt")
    assert 0 <= float(best.best_model_score) <= 1


def test_a_checkpoint_rebuilds_network_and_data(trained):
    spotter, path = trained
    rebuilt, module = KeywordSpotter.from_checkpoint(path), KeywordData.from_checkpoint(path)
    assert_same(rebuilt, spotter)
    assert not rebuilt.training
    assert rebuilt.label_names == module.label_names == ["go", "no", "yes"]
    assert rebuilt.sigma_train == spotter.sigma_train
    module.prepare_data()
    module.setup("test")
    (batch,) = module.batches("test")
    original = spotter.trainer.datamodule
    original.setup("test")
    (expected,) = original.batches("test")
    spotter.eval()
    for noise in (Noise(), Noise(0.5, seed=1, draw=0)):
        with torch.no_grad(), spotter.network.under(noise), rebuilt.network.under(noise):
            assert torch.equal(rebuilt(batch.features), spotter(expected.features))


def test_a_checkpoint_is_data_not_code(trained):
    contents = torch.load(trained[1], weights_only=True)
    assert {"state_dict", "optimizer_states", "hyper_parameters", "datamodule_hyper_parameters"} <= set(
        contents
    )


def test_curve_settings_say_how_it_was_trained(trained):
    settings = KeywordSpotter.from_checkpoint(trained[1]).curve_settings()
    assert settings["sigma_train"] == 1.0
    assert (settings["cell"], settings["units"], settings["layers"]) == ("lstm", 6, 2)


@pytest.mark.parametrize(
    ("annealing", "sites", "label"),
    [
        (NoiseAnnealing(0.0), ["input"], "conventional"),
        (NoiseAnnealing(0.0, start=2.0), ["input"], "DNI σ_train=2→0"),
        (NoiseAnnealing(1.0, start=2.0, warm_up=0.5), ["input"], "DNI σ_train=2→1"),
        (
            NoiseAnnealing(0.0, start=2.0, schedule="constant"),
            ["input"],
            "conventional",
        ),  # from the first step on
        (NoiseAnnealing(0.0, start=2.0, schedule="constant", warm_up=0.5), ["input"], "DNI σ_train=2→0"),
        (NoiseAnnealing(1.0), ["input"], "DNI σ_train=1"),
        (
            NoiseAnnealing(1.0, schedule="constant", warm_up=1.0),
            ["input"],
            "conventional",
        ),  # no step was under noise
        (NoiseAnnealing(1.0), [], "conventional"),
    ],
)
def test_conventional_is_who_has_seen_no_noise(tmp_path, data, annealing, sites, label):
    _, spotter = train(
        tmp_path, data(), annealing=annealing, noise=TrainingNoise(sites=sites), epochs=2, units=4, layers=1
    )
    path = tmp_path / "run" / "0" / "checkpoints" / "last.ckpt"
    for its in (spotter, KeywordSpotter.from_checkpoint(path)):
        assert curve_label(its.curve_settings()) == label
    contents = load_checkpoint(path)
    del contents["sigma_train"]["highest"]  # as checkpoints were before
    if sites and annealing.warm_up < 1:
        assert curve_label(KeywordSpotter.from_checkpoint(contents).curve_settings()) == label


@pytest.mark.parametrize(
    ("hardware", "strength", "sigma", "label"),
    [
        ("pcm", "weight.time", 0.0, "DNI weight time=0 s"),  # a fresh device is noisy
        ("noisy_weights", "weight.sigma", 0.0, "DNI weight σ=0"),  # there are converters
        ("noisy_weights", "adc.bits", 4.0, "DNI ADC bits=4"),
        ("multiplicative", "output.sigma", 0.0, "conventional"),
        ({"weight": {"class_path": "GaussianWeights"}}, "weight.sigma", 0.0, "conventional"),
        ({"weight": {"class_path": "PCM"}, "sites": []}, "weight.time", 0.0, "conventional"),
    ],
)
def test_strength_0_is_conventional_where_nothing_acts(tmp_path, data, hardware, strength, sigma, label):
    noise = TrainingNoise(hardware=hardware, strength=strength)
    _, spotter = train(
        tmp_path,
        data(),
        annealing=NoiseAnnealing(sigma, schedule="constant"),
        noise=noise,
        epochs=1,
        units=4,
        layers=1,
    )
    settings = spotter.curve_settings()
    assert curve_label(settings) == label
    assert settings["train_hardware"] == noise.noise.hardware.settings_beside(Strength(strength))
    assert "train_scale" not in settings


def test_a_training_that_went_on_without_noise_has_seen_it(tmp_path, data):
    def went_on(name, first):
        train(tmp_path / name, data(), sigma=first, epochs=1, units=4, layers=1)
        checkpoint = tmp_path / name / "run" / "0" / "checkpoints" / "last.ckpt"
        further = {"epochs": 2, "units": 4, "layers": 1, "ckpt_path": checkpoint}
        return train(tmp_path / f"{name} on", data(), sigma=0.0, **further)[1].curve_settings()

    weak, strong, never = (went_on(str(first), first) for first in (0.5, 2.0, 0.0))
    assert curve_label(never) == "conventional"
    assert weak["sigma_train"] == strong["sigma_train"] == 0.0
    assert 0 < weak["sigma_train_highest"] < strong["sigma_train_highest"]
    assert [one["annealing.sigma"] for one in strong["training"]["after"]] == [2.0]
    assert curve_label(strong).startswith("DNI")
    assert weak["training"] != strong["training"] != never["training"]


def test_what_was_configured_but_the_seed_tells_trainings_apart(tmp_path, data):
    """Only the seed, the folder and the number of threads leave it as it is; every other setting is named."""

    def training(name, *callbacks, replaced=None, **options):
        module = data(**{"seed": options.get("seed", 0), **(replaced or {})})
        _, spotter = train(tmp_path / name, module, *callbacks, **{"epochs": 1, "units": 4, **options})
        settings = spotter.curve_settings()["training"]
        path = tmp_path / name / "run" / "0" / "checkpoints" / "last.ckpt"
        assert KeywordSpotter.from_checkpoint(path).curve_settings()["training"] == settings
        assert json.loads(json.dumps(settings)) == settings
        return settings

    first = training("first")
    assert first["optimizer.lr"] == 3e-3
    assert first["annealing.warm_up"] == 0.2
    assert first["data.augmentation.time_shift_ms"] == 100.0
    assert first["data.source"].startswith("folder ")
    assert training("seed", seed=1, replaced={"num_workers": 1}) == first
    stopping = EarlyStopping("val/loss", patience=7)
    for name, changed in {
        "trainer.max_epochs": training("epochs", epochs=2),
        "model.network.dropout": training("dropout", dropout=0.0),
        "model.noise.sites": training("sites", noise=TrainingNoise(sites=["output"])),
        "model.noise.arrays": training("arrays", noise=TrainingNoise(arrays="separate")),
        "data.clip_seconds": training("data", replaced={"clip_seconds": 0.9}),
        "early_stopping.patience": training("stopping", stopping),
    }.items():
        differing = {key for key in first.keys() | changed.keys() if first.get(key) != changed.get(key)}
        assert {key for key in differing if not key.startswith("early_stopping")} <= {name}
        assert name in differing


def test_a_training_that_goes_on_otherwise_is_another_one(tmp_path, data):
    train(tmp_path / "first", data(), Sigmas(epochs=1), epochs=2)
    checkpoint = tmp_path / "first" / "run" / "0" / "checkpoints" / "last.ckpt"
    _, as_it_was = train(tmp_path / "same", data(), epochs=2, ckpt_path=checkpoint)
    _, longer = train(tmp_path / "longer", data(), epochs=3, ckpt_path=checkpoint)
    before = KeywordSpotter.from_checkpoint(checkpoint).curve_settings()["training"]
    assert as_it_was.curve_settings()["training"] == before
    earlier = before | {"annealing.sigma": 1.0}
    assert longer.curve_settings()["training"] == before | {"trainer.max_epochs": 3, "after": [earlier]}


def test_noise_curve_of_a_checkpoint_is_of_the_same_training_and_weights(tmp_path, data, capsys):
    module = data()
    curves = NoiseCurveCallback([0.0, 1.0], draws=1, every_n_epochs=0)
    trainer, spotter = train(tmp_path, module, curves, epochs=1)
    trainer.test(spotter, datamodule=module, verbose=False)
    run = tmp_path / "run" / "0"
    last = str(run / "checkpoints" / "last.ckpt")
    for options in ([], ["--split", "validation"], ["--scale", "signal"], ["--sites", "input,recurrent"]):
        main(["noise-curve", last, "--sigmas", "0,1", "--draws", "1", *options])
    folders = {path.name: path for path in (run / "checkpoints").iterdir() if path.is_dir()}
    beginning, end = "noise_curve-last-own", "sigmas_0_1-draws_1"
    assert set(folders) == {
        f"{beginning}-test-{end}",
        f"{beginning}-validation-{end}",
        f"{beginning}-test-signal-{end}",
        f"{beginning}-test-input+recurrent-{end}",
    }
    settings = NoiseCurve.from_csv(folders[f"{beginning}-test-{end}"] / "noise_curve.csv").settings
    assert settings.pop("checkpoint") == last
    assert settings == NoiseCurve.from_csv(run / "noise_curve.csv").settings
    of_validation = NoiseCurve.from_csv(folders[f"{beginning}-validation-{end}"] / "noise_curve.csv").settings
    assert "test" not in of_validation["protocol"]
    assert of_validation["protocol"] == module.protocol_of("validation")
    assert settings["protocol"] == module.protocol != of_validation["protocol"]


@pytest.mark.parametrize("scale", ["signal", "range"])
def test_training_in_units_of_the_signal(tmp_path, data, scale):
    noise = TrainingNoise(scale=scale)
    trainer, spotter = train(tmp_path, data(), epochs=2, noise=noise, sigma=0.1, units=4)
    assert bool(torch.isfinite(trainer.callback_metrics["train/loss"]))
    rebuilt = KeywordSpotter.from_checkpoint(tmp_path / "run" / "0" / "checkpoints" / "last.ckpt")
    statistics = [name for name in rebuilt.state_dict() if "signal_statistics" in name]
    assert len(statistics) == 2 * 3  # of sites and of outputs, of two layers and the classifier
    assert_same(rebuilt, spotter)
    module = data()
    module.setup("test")
    curve = measure_noise_curve(rebuilt.network, module.batches("test"), [0.1], 1, Noise(scale=scale))
    assert curve.frame["snr_db"].notna().all()


def test_the_loss_of_a_network_that_diverged_is_no_number(tmp_path, data):
    class Diverge(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 1:
                torch.nn.init.constant_(pl_module.network.classifier.bias, float("nan"))

    trainer, _ = train(tmp_path, data(), Diverge(), epochs=1)
    assert bool(trainer.callback_metrics["train/loss"].isnan())
    assert bool(trainer.callback_metrics["val/loss"].isnan())


def test_the_gradient_flows_through_the_noisy_values(data):
    module = data()
    module.setup("fit")
    batch = next(iter(module.batches("train")))
    spotter = KeywordSpotter(module.label_names, module.n_features, NetworkSettings(units=4, dropout=0.0))
    gradients = []
    for sigma in (0.0, 1.0):
        spotter.zero_grad()
        with spotter.network.under(Noise(sigma, draw=0)):
            torch.nn.functional.cross_entropy(spotter(batch.features), batch.labels).backward()
        gradients.append(spotter.network.recurrent.weight_hh_l0.grad.clone())
    assert bool(torch.isfinite(gradients[1]).all())
    assert not torch.allclose(gradients[0], gradients[1])


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_learning_rate_rises_and_falls(schedule):
    spotter = KeywordSpotter(["a", "b"], 3, schedule=schedule, warm_up=0.2)
    spotter.trainer = SimpleNamespace(estimated_stepping_batches=10)
    parts = spotter.configure_optimizers()
    factor = parts["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert parts["lr_scheduler"]["interval"] == "step"
    assert [factor(0), factor(1)] == pytest.approx([0.25, 0.75])
    assert factor(2) == pytest.approx(1.0)
    assert factor(6) == pytest.approx({"constant": 1.0, "linear": 0.5, "cosine": 0.5}[schedule])
    assert factor(10) == pytest.approx({"constant": 1.0, "linear": 0.0, "cosine": 0.0}[schedule])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"mixup": 1e308}, "mixup is 1"),
        ({"warm_up": 1.0}, "warm_up is 1.0"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"schedule": "step"}, "schedule is 'step'"),
        ({"calibrate_every": -1}, "calibrate_every is -1"),
    ],
)
def test_a_wrong_setting_is_named(arguments, named):
    with pytest.raises(UserError, match=named):
        KeywordSpotter(["a", "b"], 3, **arguments)


def test_what_is_no_checkpoint_is_said(tmp_path, trained):
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes(trained[1].read_bytes()[:2000])
    text = tmp_path / "text.ckpt"
    text.write_text("no")
    other = tmp_path / "other.ckpt"
    torch.save({"state_dict": {}}, other)
    numbers = tmp_path / "numbers.ckpt"
    torch.save([1], numbers)
    for path in (tmp_path / "none.ckpt", damaged, text, other, numbers):
        with pytest.raises(UserError, match=path.name):
            KeywordSpotter.from_checkpoint(path)


def test_hyper_parameters_are_plain(trained):
    settings = load_checkpoint(trained[1])["hyper_parameters"]["model"]
    assert NetworkSettings(**settings["network"]) == trained[0].network.settings
    assert dataclasses.asdict(TrainingNoise(**settings["noise"])) == settings["noise"]
