"""The LightningModule: trains a keyword network under noise."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pytorch_lightning.cli import OptimizerCallable
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torch.nn import functional
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from asr_dni.checkpoint import CURRENT_STATE_KEY, load_weights, open_checkpoint, write_durable_checkpoints
from asr_dni.configuration import checked_arguments
from asr_dni.errors import UserError
from asr_dni.hardware_files import noise_of
from asr_dni.identity import evaluation_settings
from asr_dni.model.consistency import Consistency
from asr_dni.model.distillation import Distillation, Teachers
from asr_dni.model.learning_rate import schedule_learning_rate
from asr_dni.model.network import KeywordNetwork, NetworkSettings
from asr_dni.model.place import Place
from asr_dni.model.sharpness import SharpnessAware
from asr_dni.model.step import (
    DrawnBySample,
    LearningRateSchedule,
    TrainingRecipe,
    at_least_single,
    noisy_step,
    renew_statistics,
)
from asr_dni.model.training import describe_training, goes_on, join_trainings
from asr_dni.nn import learn_bounds
from asr_dni.noise import MVM_SITES, SIGMA, Arrays, Noise, Scale, Site, Strength

_SETTINGS_KEY = "model"


@dataclasses.dataclass(frozen=True)
class TrainingNoise:
    """The noise of the training's forward pass; its strength, sigma_train, is set by NoiseAnnealing.

    Args:
        scale: what sigma is measured in, see :class:`asr_dni.noise.Noise`.
        sites: where the noise enters.
        arrays: whether W_ih and W_hh share one array (``joint``) or not (``separate``).
        seed: of the noise.
        hardware: any other hardware than the additive Gaussian one, as :class:`asr_dni.noise.Hardware` has it: a
            mapping, the name of a configuration in ``conf/hardware``, or a YAML file; scale, sites and arrays are then
            its own.
        strength: which of its numbers is annealed, such as ``weight.sigma``.
        chips: whether weights are programmed anew for each ``step`` (of several draws for each) or ``epoch``, or once
            for the whole ``run``. The chips of training have negative numbers, those of an evaluation count from 0.

    Raises:
        UserError: the hardware is not valid, or scale, sites or arrays are given beside it.
    """

    scale: Scale = "absolute"
    sites: list[Site] = dataclasses.field(default_factory=lambda: list(MVM_SITES))
    arrays: Arrays = "joint"
    seed: int = 0
    hardware: dict[str, Any] | str | None = None
    strength: str = SIGMA.path
    chips: Literal["step", "epoch", "run"] = "step"

    def __post_init__(self) -> None:
        if self.hardware is not None:
            object.__setattr__(self, "hardware", self.noise.hardware.as_settings())
        if self.chips not in ("step", "epoch", "run"):
            raise UserError(f"model noise.chips is {self.chips!r}: give step, epoch or run")
        self.noise.hardware.value(Strength(self.strength))

    @property
    def noise(self) -> Noise:
        """The noise, of whatever strength the hardware is given with."""
        return noise_of(self.hardware, self.scale, self.sites, self.arrays, self.seed, prefix="model noise.")

    def at(self, sigma: float) -> Noise:
        """Return the noise of a value of the strength; one that counts something, such as bits, is rounded.

        Raises:
            UserError: the strength cannot have this value.
        """
        strength = Strength(self.strength)
        try:
            return self.noise.at(round(sigma) if self.noise.hardware.counts(strength) else sigma, strength)
        except UserError as error:
            raise UserError(f"model noise of sigma_train {sigma:g}: {error}") from None

    def of_pass(self, noise: Noise, which: int, epoch: int) -> Noise:
        """Return a noise on the chip of a pass of the training in an epoch; without several draws that is a step."""
        return noise.realised(chip=-1 - {"step": which, "epoch": epoch, "run": 0}[self.chips])


_DEFAULT_NETWORK = NetworkSettings()
_DEFAULT_NOISE = TrainingNoise()


class KeywordSpotter(SharpnessAware):
    """A keyword network and how it is trained.

    The loss is the cross entropy of the noisy forward pass, and the gradient flows through the noisy values (Deep
    Noise Injection, arXiv:1807.06555). Validation and test report the clean accuracy, ``val/accuracy`` and
    ``test/accuracy``; :class:`~asr_dni.evaluation.NoiseCurveCallback` adds the accuracy under noise.

    The noise and dropout of a clip in a step depend on ``noise.seed``, the step and the clip's identity. The size of
    the clean signals is estimated on training batches as the training goes (running mean), and is part of the
    checkpoint.

    Args:
        label_names: the classes, in the order of the logits.
        n_features: features per frame.
        network: what the network is made of.
        noise: the noise of training.
        optimizer: the optimiser, as a function of the parameters.
        schedule: see :class:`~asr_dni.model.step.TrainingRecipe`, as for the following ones. The learning rate after
            the warm-up: constant, or falling to zero as a line or a half cosine.
        warm_up: part of the run in which the learning rate rises linearly from zero.
        label_smoothing: of the cross entropy, in [0, 1).
        mixup: parameter alpha of mixup; 0: off.
        calibrate_every: steps between estimates of the clean signals' size; 0: never, which rules out the scales
            ``signal`` and ``range`` and leaves SNRs unknown.
        consistency: several draws of each clip in a step, which are to agree; null: one.
        sam_rho: how far sharpness-aware minimisation looks; 0: off.
        distillation: trained networks whose answers it learns; null: none.

    Raises:
        UserError: a value is out of its range.
    """

    def __init__(
        self,
        label_names: list[str],
        n_features: int,
        network: NetworkSettings = _DEFAULT_NETWORK,
        noise: TrainingNoise = _DEFAULT_NOISE,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
        schedule: LearningRateSchedule = "cosine",
        warm_up: float = 0.1,
        label_smoothing: float = 0.05,
        mixup: float = 0.0,
        calibrate_every: int = 50,
        consistency: Consistency | None = None,
        sam_rho: float = 0.0,
        distillation: Distillation | None = None,
    ) -> None:
        super().__init__()
        try:
            self.recipe = TrainingRecipe(
                schedule, warm_up, label_smoothing, mixup, calibrate_every, consistency, sam_rho
            )
        except UserError as error:
            raise UserError(f"model {error}") from None
        self.training_noise = noise.noise
        hardware = self.training_noise.hardware
        if calibrate_every == 0 and hardware.needs_sizes:
            scale = next(its for its in hardware.scales if its != "absolute")
            raise UserError(f"model noise.scale {scale} needs calibrate_every above 0")
        self.label_names = list(label_names)
        self.noise_settings = noise
        self.strength = Strength(noise.strength)
        """Which number of the training's hardware is annealed."""
        self.sigma_train = 0.0
        """Strength of the noise of the next training step."""
        self.drawn: DrawnBySample | None = None
        """What the strength of each clip of the next training step is drawn from; ``None``: all have the step's."""
        self.annealed_to: float | None = None
        """Strength that the training noise is moved to, where NoiseAnnealing moves it."""
        self.highest_sigma_train: float | None = None
        """Largest strength of the noise of any training step so far; ``None``: there was no step."""
        self.trainings: list[dict[str, Any]] = []
        """How the weights were trained, see :func:`asr_dni.model.training.describe_training`; more than one where a
        training went on with other settings."""
        self.distillation = distillation
        self._teachers: Teachers | None = None
        self._place: Place | None = None
        self.network = KeywordNetwork(network, n_features, len(label_names))
        learn_bounds(self.network, hardware)
        self.optimizer_callable = optimizer
        # Means over all clips of all processes, for which Lightning's own rounds the number of clips.
        self.train_loss, self.val_loss, self.test_loss = (MeanMetric("disable") for _ in range(3))
        self.train_accuracy = MulticlassAccuracy(len(label_names), average="micro")
        self.val_accuracy = MulticlassAccuracy(len(label_names), average="micro")
        self.test_accuracy = MulticlassAccuracy(len(label_names), average="micro")
        settings = {
            "label_names": self.label_names,
            "n_features": n_features,
            "network": dataclasses.asdict(network),
            "noise": dataclasses.asdict(noise),
            **self.recipe.as_settings(),
            **({} if distillation is None else {"distillation": dataclasses.asdict(distillation)}),
        }
        self.save_hyperparameters({_SETTINGS_KEY: settings})

    @classmethod
    def from_checkpoint(cls, checkpoint: str | Path | Mapping[str, Any]) -> Self:
        """Rebuild a trained keyword spotter.

        Args:
            checkpoint: a checkpoint file, or what ``torch.load`` made of one.

        Raises:
            UserError: the file is missing, cannot be read, or holds no keyword spotter.
        """
        contents, where = open_checkpoint(checkpoint)
        settings = contents.get(cls.CHECKPOINT_HYPER_PARAMS_KEY, {}).get(_SETTINGS_KEY)
        if settings is None:
            raise UserError(
                f"{where}: holds no keyword spotter; expected a checkpoint that asr-dni fit wrote"
            )
        spotter = cls(**arguments_from_settings(settings, where))
        load_weights(spotter, contents, where)
        spotter.on_load_checkpoint(dict(contents))
        return spotter.eval()

    @property
    def final_sigma_train(self) -> float:
        """The sigma that the training ended with, or was on the way to."""
        if self.highest_sigma_train == 0:
            return 0.0  # it ended before the noise began, or there are no sites
        return self.sigma_train if self.annealed_to is None else self.annealed_to

    def curve_settings(self) -> dict[str, Any]:
        """Return what a noise curve's file says of the network."""
        network, sigma_train = self.network.settings, self.final_sigma_train
        settings: dict[str, Any] = {
            "cell": network.cell,
            "units": network.units,
            "layers": network.layers,
            "bidirectional": network.bidirectional,
            "pooling": network.pooling,
            "sigma_train": sigma_train,
            **self._curve_settings_of_noise(),
        }
        if network.convolutions is not None:
            settings["convolutions"] = str(network.convolutions)
        products = self.network.recurrent.products_on(self.network.classifier.weight)
        if products != "float32":
            settings["products"] = products
        if self.highest_sigma_train is not None and self.highest_sigma_train > sigma_train:
            settings["sigma_train_highest"] = self.highest_sigma_train
        if self.trainings:
            settings["training"] = join_trainings(self.trainings)
        return settings

    def _curve_settings_of_noise(self) -> dict[str, Any]:
        hardware = self.training_noise.hardware
        axis = hardware.axis(self.strength)
        noted = evaluation_settings(hardware, axis)
        if "scale" in noted:
            return {"train_scale": noted["scale"]}
        settings = {"train_hardware": noted["hardware"]}
        if axis != SIGMA:
            settings["train_strength"] = axis.as_dict()
        with suppress(UserError):  # not all strengths can be 0
            if self.highest_sigma_train == 0 and self.noise_settings.at(0.0).on:
                settings["trained_under_noise"] = True
        return settings

    def read_teachers(self, data: Any) -> None:
        """Read the checkpoints of the teachers, if there are any; those that were read once stay.

        Args:
            data: the data module of the training; its training batches get what the teachers hear.

        Raises:
            UserError: a file is missing or is not a checkpoint, or its network knows other labels or hears other data.
        """
        if self.distillation is None:
            return
        if self._teachers is None:
            self._teachers = Teachers.read(
                self.distillation, self.label_names, data, KeywordSpotter.from_checkpoint
            )
        data.keeps_inputs = True

    def setup(self, stage: str) -> None:
        """Read the teachers; have checkpoints written that a kill or a full disk does not destroy."""
        if stage == "fit":
            self.read_teachers(getattr(self.trainer, "datamodule", None))
        write_durable_checkpoints(self.trainer)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note how it is trained and the training noise's strength.

        Weights that a callback has averaged get the size of the clean signals that was last estimated in training:
        averages are of parameters only.
        """
        checkpoint["state_dict"] |= {
            name: value for name, value in self.state_dict().items() if "signal_statistics" in name
        }
        checkpoint["trainings"] = self.trainings
        checkpoint["sigma_train"] = {
            "now": self.sigma_train,
            "annealed_to": self.annealed_to,
            "highest": self.highest_sigma_train,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back how it was trained and the strength of the training noise.

        Where it is not trained on, the checkpoint's network is what counts, not the one whose weights were averaged.
        """
        if self._trainer is not None and self._trainer.state.fn != TrainerFn.FITTING:
            checkpoint.pop(CURRENT_STATE_KEY, None)
        self.trainings = list(checkpoint.get("trainings", []))
        noted = checkpoint.get("sigma_train", {"now": 0.0, "annealed_to": None})
        self.sigma_train, self.annealed_to = noted["now"], noted["annealed_to"]
        self.highest_sigma_train = (
            noted["highest"] if "highest" in noted else _highest_of(self.trainings, noted)
        )
        self._place = Place.of(checkpoint)

    def on_train_start(self) -> None:
        """Note how it is trained; go on with the batches that a resumed run has left."""
        own = {} if self._teachers is None else {"model": {"distillation": self._teachers.settings()}}
        training = describe_training(self.trainer, self, replaced=own)
        if self.trainer.global_step == 0 or not goes_on(training, self.trainings):
            self.trainings = [*self.trainings, training]
        if self._place is not None:
            self._place.restore(self.trainer)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits ``(N, C)`` for features ``(N, T, F)``, under ``network.noise``."""
        logits: Tensor = self.network(features)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of one noisy forward pass."""
        noise = self.noise_settings.at(self._largest_sigma)
        now = self._largest_sigma if noise.on else 0.0
        self.highest_sigma_train = max(self.highest_sigma_train or 0.0, now)
        losses, logits = noisy_step(
            self.network,
            batch,
            self.recipe,
            partial(self._noises_of_pass, epoch=self.current_epoch),
            self.global_step,
            [self.drawn],
            self._teachers,
            follows=not self.second_pass,
        )
        loss, logits = losses[0], logits[0]
        if self.second_pass:
            return loss
        self.train_accuracy(logits, batch.labels)
        size = len(batch.labels)
        self.train_loss.update(loss.detach().expand(size))
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=size)
        self.log("train/accuracy", self.train_accuracy, on_step=False, on_epoch=True, batch_size=size)
        if self._trainer is not None:
            self.log("learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"], batch_size=size)
        return loss

    @property
    def _largest_sigma(self) -> float:
        return self.sigma_train if self.drawn is None else self.drawn.largest

    def _noises_of_pass(self, which: int, epoch: int) -> list[Noise]:
        return [self.noise_settings.of_pass(self.noise_settings.at(self._largest_sigma), which, epoch)]

    def renew_statistics(self, batches: Iterable[tuple[int, Any]], epoch: int) -> None:
        """Take the running statistics of batch normalisation anew, for weights that were not trained but averaged.

        Args:
            batches: steps of the training and the batch of each; the noise is as strong as it is now. See
                :func:`asr_dni.model.step.renew_statistics`.
            epoch: that the steps belong to.
        """
        noises = partial(self._noises_of_pass, epoch=epoch)
        renew_statistics(self.network, batches, self.recipe.draws, noises, [self.drawn])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the clean loss and accuracy."""
        self._evaluate(batch, "val", self.val_loss, self.val_accuracy)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log the clean loss and accuracy."""
        self._evaluate(batch, "test", self.test_loss, self.test_accuracy)

    def _evaluate(self, batch: Any, split: str, mean_loss: MeanMetric, accuracy: MulticlassAccuracy) -> None:
        logits, size = at_least_single(self.network(batch.features)), len(batch.labels)
        accuracy(logits, batch.labels)
        mean_loss.update(functional.cross_entropy(logits, batch.labels, reduction="none"))
        self.log(f"{split}/loss", mean_loss, batch_size=size)
        self.log(f"{split}/accuracy", accuracy, prog_bar=True, batch_size=size)

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Return the clips' identities ``(N,)`` and the posteriors ``(N, C)``."""
        logits = self.network(batch.features)
        return {"clip_ids": batch.clip_ids, "posteriors": at_least_single(logits).softmax(-1)}

    def configure_optimizers(self) -> Any:
        """Return the optimiser, with its learning rate scheduled by step."""
        optimizer = self.optimizer_callable(self.parameters())
        return schedule_learning_rate(optimizer, self.trainer, self.recipe.schedule, self.recipe.warm_up)


def _highest_of(trainings: Sequence[Mapping[str, Any]], noted: Mapping[str, Any]) -> float | None:
    """Return the largest training noise by the schedules, for checkpoints that do not say which there was."""
    if not trainings:
        return None
    highest = max(float(noted["now"]), float(noted["annealed_to"] or 0.0))
    for training in trainings:
        jumps_at_once = training.get("annealing.schedule") == "constant" and not training.get(
            "annealing.warm_up"
        )
        highest = max(highest, 0.0 if jumps_at_once else float(training.get("annealing.start") or 0.0))
    return highest


def arguments_from_settings(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a spotter's arguments from the plain values that its checkpoint has of them.

    Args:
        settings: the values.
        where: what a message calls the checkpoint.

    Raises:
        UserError: a setting is unknown, missing or not valid.
    """
    nested = ("network", "noise", "distillation")
    flat = {key: value for key, value in settings.items() if key not in nested}
    network = checked_arguments(NetworkSettings, settings.get("network"), f"{where}: model.network")
    noise = checked_arguments(TrainingNoise, settings.get("noise"), f"{where}: model.noise")
    arguments = {
        **checked_arguments(KeywordSpotter, flat, f"{where}: model", skip=(*nested, "optimizer")),
        "network": NetworkSettings(**network),
        "noise": TrainingNoise(**noise),
    }
    if settings.get("distillation") is not None:
        own = checked_arguments(Distillation, settings["distillation"], f"{where}: model.distillation")
        arguments["distillation"] = Distillation(**own)
    return arguments


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a Lightning checkpoint file without running code from it.

    Raises:
        UserError: the file is missing or is no checkpoint.
    """
    contents, _ = open_checkpoint(path)
    if "state_dict" not in contents:
        raise UserError(f"{path}: is not a Lightning checkpoint; expected a .ckpt that asr-dni fit wrote")
    return dict(contents)
