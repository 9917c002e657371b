"""A population's members against the same networks trained one by one."""

import logging
import math
import os
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.nn import functional

from asr_dni.cli.main import main
from asr_dni.cli.run import LastCheckpoint
from asr_dni.data import (
    AugmentationSettings,
    DigitsData,
    Folder,
    KeywordData,
    PopulationData,
    data_from_checkpoint,
)
from asr_dni.errors import UserError
from asr_dni.evaluation import NoiseCurve, evaluate_population
from asr_dni.features import MFCC
from asr_dni.model import (
    Consistency,
    KeywordSpotter,
    Member,
    NetworkSettings,
    NoiseAnnealing,
    PopulationSpotter,
    TrainingNoise,
    load_checkpoint,
    save_members,
    split_checkpoint,
    write_members,
)
from asr_dni.model.convolutions import ConvolutionBlock, ConvolutionSettings
from asr_dni.model.gradients import clip_by_member
from asr_dni.model.step import member_losses
from asr_dni.noise import Noise

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*logging interval",
    "ignore:.*LeafSpec",
    "ignore:.*exists and is not empty",
    "ignore:.*dirpath has changed",
    "ignore:.*callbacks used to create the checkpoint",
)

MEMBERS = (
    Member(seed=0, data_seed=0, annealing={"sigma": 1.0, "schedule": "cosine", "warm_up": 0.2}),
    Member(seed=1, data_seed=1, annealing={"sigma": 0.5, "start": 0.1, "schedule": "exponential"}),
    Member(seed=0, data_seed=1, annealing={"sigma": 2.0, "by": "epoch", "drawn": "sample"}),
)
SMALL = NetworkSettings(units=6, layers=2, dropout=0.0)
# No filter has one weight alone: behind it normalisation takes out its size, and Adam would follow what rounding leaves
# of its gradient.
BLOCKS = [ConvolutionBlock(3, stride=[1, 2]), ConvolutionBlock(4, stride=[2, 2], separable=True)]
CRNN = NetworkSettings(units=6, layers=1, convolutions=ConvolutionSettings(BLOCKS, 5, dropout=0.2))


@pytest.fixture(autouse=True)
def _restore_seed(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", os.environ.get("PL_GLOBAL_SEED", "0"))


def digits(seed):
    return DigitsData(batch_size=32, seed=seed)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=1e-2)


class StopAfter(Callback):
    """Ends the run after some epochs, as an interruption would."""

    def __init__(self, epochs):
        self.epochs = epochs

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch + 1 == self.epochs


def trainer(*callbacks, folder=None, epochs=2, steps=5, **options):
    callbacks = list(callbacks)
    if folder is not None:
        callbacks.append(LastCheckpoint())
    return pl.Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=folder is not None,
        limit_train_batches=steps,
        limit_val_batches=2,
        callbacks=callbacks,
        **options,
    )


def train_alone(make, member, *callbacks, gradient_clip=0.5, ckpt_path=None, run=None, **settings):
    pl.seed_everything(member.seed, verbose=False)
    data = make(member.data_seed)
    settings = {"network": SMALL, "optimizer": adam, "calibrate_every": 3, **settings}
    noise = settings.pop("noise", TrainingNoise())
    noise = TrainingNoise(noise.scale, noise.sites, noise.arrays, member.seed)
    spotter = KeywordSpotter(data.label_names, data.n_features, noise=noise, **settings)
    runner = trainer(
        NoiseAnnealing(**member.annealing), *callbacks, gradient_clip_val=gradient_clip, **(run or {})
    )
    runner.fit(spotter, datamodule=data, ckpt_path=ckpt_path)
    return runner, spotter


def train_population(make, members, *callbacks, gradient_clip=0.5, ckpt_path=None, run=None, **settings):
    data = PopulationData.from_seeds(make, [member.data_seed for member in members])
    settings = {"network": SMALL, "optimizer": adam, "calibrate_every": 3, **settings}
    population = PopulationSpotter(
        members, data.label_names, data.n_features, gradient_clip=gradient_clip, **settings
    )
    runner = trainer(*callbacks, **(run or {}))
    runner.fit(population, datamodule=data, ckpt_path=ckpt_path)
    return runner, population


def assert_close(one, other, rtol=1e-4, atol=1e-5):
    """Weights and statistics are the same but for rounding, which 10 steps of Adam enlarge."""
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], rtol=rtol, atol=atol, msg=name)


def assert_same(one, other):
    assert_close(one, other, rtol=0, atol=0)


# ---------------------------------------------------------------------- as it would be alone


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"network": NetworkSettings("lstm", 6, 2, dropout=0.3)},
        {"mixup": 0.4, "schedule": "linear"},
        {"consistency": Consistency(2, 0.5), "sam_rho": 0.1},
        {"noise": TrainingNoise(scale="signal", sites=["input", "recurrent", "elementwise", "output"])},
        {"noise": TrainingNoise(scale="range"), "schedule": "constant", "warm_up": 0.0},
        {"network": NetworkSettings("gru", 5, 1, dropout=0.0, pooling="mean"), "label_smoothing": 0.0},
        {"network": NetworkSettings("rnn", 5, 2, bidirectional=True, dropout=0.0, pooling="last")},
        {
            "network": CRNN,
            "noise": TrainingNoise(scale="signal", sites=["convolution", "input", "recurrent"]),
        },
    ],
    ids=["default", "dropout", "mixup", "levers", "signal", "range", "gru", "rnn", "convolutions"],
)
def test_a_member_becomes_what_it_becomes_alone(words, settings):
    """Own data, seed and annealing; N steps with clipping, calibration, warm-up and a moving sigma."""
    _, population = train_population(words, MEMBERS, **settings)
    for k, member in enumerate(MEMBERS):
        _, alone = train_alone(words, member, **settings)
        trained = population.unstack(k)
        assert_close(trained, alone)
        assert trained.sigma_train == pytest.approx(alone.sigma_train)
        assert trained.curve_settings() == alone.curve_settings() == population.curve_settings(k)
    start = PopulationSpotter(MEMBERS, alone.label_names, 10, SMALL).unstack(0)
    assert not torch.allclose(
        start.network.classifier.weight[:, :5], population.unstack(0).network.classifier.weight[:, :5]
    )


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda parameters: torch.optim.SGD(
            parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01
        ),
        lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1, amsgrad=True),
        lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, centered=True, momentum=0.5),
        pytest.param(lambda parameters: torch.optim.NAdam(parameters, lr=0.01), marks=pytest.mark.slow),
        pytest.param(lambda parameters: torch.optim.RAdam(parameters, lr=0.01), marks=pytest.mark.slow),
        pytest.param(lambda parameters: torch.optim.Adagrad(parameters, lr=0.01), marks=pytest.mark.slow),
        pytest.param(lambda parameters: torch.optim.Adadelta(parameters), marks=pytest.mark.slow),
        pytest.param(lambda parameters: torch.optim.Adamax(parameters), marks=pytest.mark.slow),
        pytest.param(lambda parameters: torch.optim.ASGD(parameters, t0=2), marks=pytest.mark.slow),
        lambda parameters: torch.optim.Rprop(parameters),
    ],
    ids=["SGD", "AdamW", "RMSprop", "NAdam", "RAdam", "Adagrad", "Adadelta", "Adamax", "ASGD", "Rprop"],
)
def test_elementwise_optimisers_keep_members_apart(optimizer):
    member = MEMBERS[1]
    settings = {"optimizer": optimizer, "run": {"epochs": 1}}
    _, population = train_population(digits, MEMBERS, **settings)
    _, alone = train_alone(digits, member, **settings)
    assert_close(population.unstack(1), alone)


@pytest.mark.parametrize("data_seeds", [(0, 1, 1), (4, 4, 4)], ids=["own batches", "shared batch"])
def test_it_does_not_matter_who_else_is_there(data_seeds):
    members = [
        Member(member.seed, data_seed, member.annealing)
        for member, data_seed in zip(MEMBERS, data_seeds, strict=True)
    ]
    run = {"epochs": 1}
    _, three = train_population(digits, members, run=run)
    _, reversed_ = train_population(digits, members[::-1], run=run)
    for k, member in enumerate(members):
        _, one = train_population(digits, [member], run=run)
        assert_close(three.unstack(k), one.unstack(0))
        assert_close(three.unstack(k), reversed_.unstack(2 - k))
        _, alone = train_alone(digits, member, run=run)
        assert_close(three.unstack(k), alone)


def test_gradients_of_several_batches_add_up_per_member():
    run = {"epochs": 1, "accumulate_grad_batches": 2}
    _, population = train_population(digits, MEMBERS, run=run)
    _, alone = train_alone(digits, MEMBERS[2], run=run)
    assert_close(population.unstack(2), alone)


def test_a_member_is_what_the_command_line_trains(words, tone_words, tone_cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {
        "data.source": "asr_dni.data.Folder",
        "data.source.path": tone_words,
        "data.cache_dir": tone_cache,
        "data.batch_size": 8,
        "data.front_end.n_mfcc": 10,
        "data.augmentation.time_shift_ms": 100.0,
        "data.augmentation.background_probability": 0.5,
        "data.augmentation.time_masks": 1,
        "model.network.units": 6,
        "model.network.dropout": 0.0,
        "model.calibrate_every": 3,
        "annealing.sigma": 1.5,
        "noise_curve.every_n_epochs": 0,
        "noise_curve.sigmas": "[0]",
        "trainer.max_epochs": 2,
        "trainer.accelerator": "cpu",
        "trainer.gradient_clip_val": 0.5,
        "seed_everything": 7,
        "test_after_fit": "false",
        "wandb": "disabled",
        "checkpoint.monitor": "null",
    }
    main(["fit", *(f"--{name}={value}" for name, value in options.items())])
    fitted = KeywordSpotter.from_checkpoint(next(tmp_path.glob("runs/**/last.ckpt")))
    member = Member(seed=7, data_seed=7, annealing={"sigma": 1.5})
    _, population = train_population(
        words,
        [MEMBERS[0], member],
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
        run={"steps": None},
    )
    assert_close(population.unstack(1), fitted)
    assert population.curve_settings(1) == fitted.curve_settings()


def test_making_and_unstacking_leave_the_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    population = PopulationSpotter(MEMBERS, ["a", "b"], 4, SMALL)
    population.unstack(1)
    assert torch.equal(torch.rand(2), expected)


def test_losses_and_clipping_are_torchs_for_each_member():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 4, generator=generator)
    labels = torch.randint(4, (3, 5), generator=generator)
    chances = torch.rand(3, 5, 4, generator=generator).softmax(-1)
    for targets in (labels, labels[0], chances):
        losses = member_losses(logits, targets, 0.1)
        for k in range(3):
            its = targets if targets.dim() == 1 else targets[k]
            torch.testing.assert_close(
                losses[k], functional.cross_entropy(logits[k], its, label_smoothing=0.1)
            )
    parameters = [torch.nn.Parameter(torch.zeros(3, 4)), torch.nn.Parameter(torch.zeros(3, 2, 5))]
    scales = torch.tensor([0.01, 1.0, 100.0])
    for parameter in parameters:
        numbers = torch.randn(parameter.shape, generator=generator)
        parameter.grad = numbers * scales.view(-1, *(1,) * (parameter.dim() - 1))
    alone = [[torch.nn.Parameter(parameter[k].detach()) for parameter in parameters] for k in range(3)]
    for k, its in enumerate(alone):
        for part, parameter in zip(its, parameters, strict=True):
            part.grad = parameter.grad[k].clone()
    norms = clip_by_member(parameters, 1.0)
    assert norms[0] < 1.0 < norms[2]
    for k, its in enumerate(alone):
        torch.testing.assert_close(torch.nn.utils.clip_grad_norm_(its, 1.0), norms[k])
        for part, parameter in zip(its, parameters, strict=True):
            torch.testing.assert_close(part.grad, parameter.grad[k])


# ---------------------------------------------------------------------- divergence

WILD = Member(seed=5, data_seed=0, annealing={"sigma": 1e300, "schedule": "constant"})
"""Noise beyond float32: its loss and then its weights are not numbers."""


@pytest.mark.parametrize("scale", ["absolute", "signal"])
def test_a_member_that_diverges_harms_nobody_else(tmp_path, caplog, scale):
    members = [MEMBERS[0], WILD, MEMBERS[1]]
    settings = {"noise": TrainingNoise(scale=scale), "calibrate_every": 7}
    with caplog.at_level(logging.WARNING, "asr_dni.model.population_spotter"):
        runner, population = train_population(
            digits, members, StopAfter(2), run={"folder": tmp_path, "epochs": 3}, **settings
        )
    assert population.diverged == {1: 0}
    (warning,) = [record.getMessage() for record in caplog.records if "diverged" in record.getMessage()]
    assert "member 1 of the population (seed 5, sigma_train 1e+300) has diverged in epoch 0" in warning
    assert float(runner.callback_metrics["diverged"]) == 1
    assert math.isfinite(float(runner.callback_metrics["train/loss_max"]))
    last = str(runner.checkpoint_callback.best_model_path)
    _, resumed = train_population(
        digits, members, run={"folder": tmp_path / "b", "epochs": 3}, ckpt_path=last, **settings
    )
    assert resumed.diverged == {1: 0}
    for k in (0, 2):
        _, alone = train_alone(digits, members[k], run={"epochs": 3}, **settings)
        assert_close(resumed.unstack(k), alone)
    assert not resumed.unstack(1).network.classifier.weight.isfinite().all()


# ---------------------------------------------------------------------- metrics and history


def test_every_members_scores_are_those_that_it_logs_alone():
    runner, population = train_population(digits, MEMBERS, run={"check_val_every_n_epoch": 2, "epochs": 3})
    rows = {(row["epoch"], row["member"]): row for row in population.history}
    assert set(rows) == {(epoch, member) for epoch in range(3) for member in range(3)}
    assert all((rows[0, k]["val_accuracy"] is None) for k in range(3))
    logged = []
    for k, member in enumerate(MEMBERS):
        alone_runner, _ = train_alone(digits, member, run={"check_val_every_n_epoch": 2, "epochs": 3})
        logged.append({name: float(value) for name, value in alone_runner.callback_metrics.items()})
        for name in ("train_loss", "train_accuracy", "sigma_train"):
            assert rows[2, k][name] == pytest.approx(
                logged[k][name.replace("train_", "train/", name[0] == "t")]
            )
        for name in ("val_loss", "val_accuracy"):
            assert rows[1, k][name] == pytest.approx(logged[k][name.replace("_", "/")])
            assert rows[2, k][name] is None
    metrics = runner.callback_metrics
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "sigma_train"):
        values = [its[name] for its in logged]
        assert float(metrics[name]) == pytest.approx(sum(values) / 3)
        assert float(metrics[f"{name}_min"]) == pytest.approx(min(values))
        assert float(metrics[f"{name}_max"]) == pytest.approx(max(values))


# ---------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_two_epochs_and_two_resumed_ones_are_four(tmp_path, words, dropout):
    settings = {"network": NetworkSettings(units=6, layers=2, dropout=dropout)}
    run = {"epochs": 4, "steps": None}
    _, whole = train_population(words, MEMBERS, run=run, **settings)
    torch.rand(3)
    runner, _ = train_population(words, MEMBERS, StopAfter(2), run={**run, "folder": tmp_path}, **settings)
    checkpoint = runner.checkpoint_callback.best_model_path
    assert load_checkpoint(checkpoint)["epoch"] == 1
    torch.rand(3)
    _, resumed = train_population(words, MEMBERS, run=run, ckpt_path=checkpoint, **settings)
    assert_same(resumed, whole)
    assert resumed.history == whole.history
    assert resumed.trainings == whole.trainings
    again = PopulationSpotter.from_checkpoint(checkpoint)
    assert again.history == whole.history[:6]
    assert again.networks == 3


class SaveAt(Callback):
    """Writes a checkpoint after a step."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.filterwarnings("ignore:.*ended before the epoch ended")
def test_a_run_goes_on_in_the_middle_of_an_epoch(tmp_path):
    members, path = MEMBERS[:2], tmp_path / "middle.ckpt"
    run = {"steps": None, "epochs": 2}
    make = lambda seed: DigitsData(batch_size=128, seed=seed)  # noqa: E731
    _, whole = train_population(make, members, SaveAt(14, path), run=run)
    _, resumed = train_population(make, members, run=run, ckpt_path=path)
    assert_same(resumed, whole)
    assert resumed.history == whole.history
    for k, contents in enumerate(split_checkpoint(path)):
        torch.save(contents, tmp_path / "member.ckpt")
        _, alone = train_alone(make, members[k], run=run, ckpt_path=tmp_path / "member.ckpt")
        assert_close(alone, whole.unstack(k))


def test_a_datamodule_of_its_own_will_do_where_there_is_one_seed(tmp_path):
    members = [Member(member.seed, 1, member.annealing) for member in MEMBERS]
    data = digits(1)
    population = PopulationSpotter(
        members,
        data.label_names,
        data.n_features,
        SMALL,
        optimizer=adam,
        calibrate_every=3,
        gradient_clip=0.5,
    )
    trainer(epochs=1).fit(population, datamodule=data)
    paths = save_members(population, tmp_path)
    _, alone = train_alone(digits, members[2], run={"epochs": 1})
    assert_close(KeywordSpotter.from_checkpoint(paths[2]), alone)
    assert DigitsData.from_checkpoint(paths[2]).seed == 1
    assert population.curve_settings(2) == alone.curve_settings()


def test_data_of_other_seeds_than_the_members_are_refused():
    population = PopulationSpotter(MEMBERS, digits(0).label_names, 8, SMALL)
    with pytest.raises(
        UserError, match="member 1 of the population has data_seed 1, but its data have seed 0"
    ):
        trainer().fit(population, datamodule=PopulationData.from_seeds(digits, [0, 0, 0]))
    with pytest.raises(UserError, match=r"member 0 .* seed 1"):
        trainer().fit(population, datamodule=digits(1))


def test_a_checkpoint_of_other_members_is_refused(tmp_path):
    runner, _ = train_population(digits, MEMBERS[:2], run={"folder": tmp_path, "epochs": 1})
    checkpoint = runner.checkpoint_callback.best_model_path
    with pytest.raises(UserError, match="other members"):
        train_population(digits, MEMBERS[1::-1], run={"epochs": 1}, ckpt_path=checkpoint)
    with pytest.raises(UserError, match="holds no keyword spotter"):
        KeywordSpotter.from_checkpoint(checkpoint)
    other = tmp_path / "other.ckpt"
    torch.save({"state_dict": {}}, other)
    for path in (other, tmp_path / "none.ckpt"):
        with pytest.raises(UserError, match=path.name):
            split_checkpoint(path)


@pytest.fixture(scope="module")
def saved(tone_words, tone_cache, tmp_path_factory):
    """A population after two of four epochs, and its members' checkpoints."""
    folder = tmp_path_factory.mktemp("saved")

    def make(seed):
        return KeywordData(
            Folder(tone_words),
            front_end=MFCC(n_mfcc=10),
            augmentation=AugmentationSettings(time_shift_ms=50.0),
            batch_size=8,
            seed=seed,
            cache_dir=tone_cache,
        )

    run = {"folder": folder, "epochs": 4, "steps": None}
    runner, population = train_population(make, MEMBERS, StopAfter(2), run=run)
    return SimpleNamespace(
        make=make,
        population=population,
        checkpoint=runner.checkpoint_callback.best_model_path,
        paths=save_members(population, folder / "members"),
        data=runner.datamodule,
    )


def test_members_are_saved_as_ordinary_checkpoints(saved, tmp_path):
    assert [path.name for path in saved.paths] == ["member_00.ckpt", "member_01.ckpt", "member_02.ckpt"]
    assert sorted(saved.paths[0].parent.iterdir()) == saved.paths
    for k, path in enumerate(saved.paths):
        spotter = KeywordSpotter.from_checkpoint(path)
        assert_same(spotter, saved.population.unstack(k))
        assert spotter.curve_settings() == saved.population.curve_settings(k)
        data = KeywordData.from_checkpoint(path)
        assert data.seed == MEMBERS[k].data_seed
        assert data_from_checkpoint(path).label_names == saved.population.label_names
        assert torch.equal(data.features.mean, saved.data.data[0].features.mean)
    contents = load_checkpoint(saved.paths[2])
    assert not any("opulation" in key for key in contents)
    assert contents["hyper_parameters"]["model"]["noise"]["seed"] == MEMBERS[2].seed
    for path, again in zip(saved.paths, write_members(saved.checkpoint, tmp_path), strict=True):
        assert_same(KeywordSpotter.from_checkpoint(path), KeywordSpotter.from_checkpoint(again))


def test_a_member_goes_on_alone_as_it_would_have_in_the_population(saved):
    run = {"epochs": 4, "steps": None}
    _, whole = train_population(saved.make, MEMBERS, run=run)
    for k in (0, 2):
        alone, spotter = train_alone(saved.make, MEMBERS[k], run=run, ckpt_path=saved.paths[k])
        assert alone.global_step == 12
        assert_close(spotter, whole.unstack(k))
        assert spotter.curve_settings() == whole.curve_settings(k)


def test_the_noise_curve_command_takes_a_member(saved):
    path = saved.paths[1]
    main(["noise-curve", str(path), "--sigmas", "0,1", "--draws", "2", "--device", "cpu"])
    (file,) = path.parent.glob("*member_01*/noise_curve.csv")
    saved.data.setup("test")
    curves = evaluate_population(saved.population.network, saved.data.batches("test"), [0.0, 1.0], 2, Noise())
    by_command = NoiseCurve.from_csv(file)
    assert by_command.frame["accuracy"].tolist() == curves[1].frame["accuracy"].tolist()
    assert by_command.frame["loss"].tolist() == pytest.approx(curves[1].frame["loss"].tolist())
    assert by_command.settings["weights"] == curves[1].settings["weights"]
    assert by_command.settings["sigma_train"] == 0.5


# ---------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda parameters: torch.optim.Adafactor(parameters),
        lambda parameters: torch.optim.LBFGS(parameters),
    ],
    ids=["Adafactor", "LBFGS"],
)
def test_an_optimiser_that_mixes_members_is_refused(optimizer, request):
    with pytest.raises(UserError, match=f"optimizer {request.node.callspec.id} may mix .* Adam"):
        train_population(digits, MEMBERS[:1], optimizer=optimizer)


def test_clipping_of_all_members_together_is_refused():
    with pytest.raises(UserError, match="PopulationSpotter gradient_clip instead"):
        train_population(digits, MEMBERS[:1], run={"gradient_clip_val": 1.0})
    with pytest.raises(UserError, match="noise annealing needs a KeywordSpotter"):
        train_population(digits, MEMBERS[:1], NoiseAnnealing(1.0))


def test_a_loss_scale_that_members_would_share_is_refused():
    population = PopulationSpotter(MEMBERS[:1], ["a", "b"], 4, SMALL)
    population.trainer = SimpleNamespace(gradient_clip_val=None, precision="16-mixed")
    with pytest.raises(UserError, match=r"precision is 16-mixed"):
        population.setup("fit")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"members": []}, "no members"),
        ({"gradient_clip": 0.0}, "gradient_clip is 0.0"),
        ({"warm_up": 1.0}, "warm_up is 1.0"),
        ({"calibrate_every": 0, "noise": TrainingNoise(scale="signal")}, "needs calibrate_every"),
        ({"members": [Member(annealing={"sigma": -1.0})]}, "annealing sigma is -1"),
    ],
)
def test_a_wrong_setting_is_named(arguments, named):
    with pytest.raises(UserError, match=named):
        PopulationSpotter(**{"members": MEMBERS, "label_names": ["a", "b"], "n_features": 3, **arguments})
