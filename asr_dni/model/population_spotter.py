"""Train K networks of one shape in one process: each as it would be alone, all of them in the same operations."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import Metric

from asr_dni.checkpoint import load_weights, open_checkpoint, write_durable_checkpoints
from asr_dni.configuration import checked_arguments
from asr_dni.errors import UserError
from asr_dni.model.annealing import NoiseAnnealing
from asr_dni.model.consistency import Consistency
from asr_dni.model.gradients import clip_by_member
from asr_dni.model.learning_rate import schedule_learning_rate
from asr_dni.model.network import KeywordNetwork, NetworkSettings
from asr_dni.model.place import Place
from asr_dni.model.sharpness import SharpnessAware
from asr_dni.model.spotter import (
    KeywordSpotter,
    TrainingNoise,
    arguments_from_settings,
)
from asr_dni.model.step import LearningRateSchedule, member_losses, noisy_step
from asr_dni.model.training import describe_training, goes_on
from asr_dni.nn.stacking import stack_networks, unstack_network
from asr_dni.noise import Noise

logger = logging.getLogger(__name__)

SETTINGS_KEY = "population"
STATE_KEY = "population_state"
DATA_KEY = "PopulationData"

ELEMENTWISE_OPTIMIZERS: tuple[type[Optimizer], ...] = (
    torch.optim.Adadelta,
    torch.optim.Adagrad,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.Adamax,
    torch.optim.ASGD,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
    torch.optim.Rprop,
    torch.optim.SGD,
)
"""Optimisers in which an element's step depends on its own gradients alone, so that members do not mix."""

_SCORES = ("loss", "correct", "n_clips")

_DEFAULT_NETWORK = NetworkSettings()
_DEFAULT_NOISE = TrainingNoise()


@dataclasses.dataclass(frozen=True)
class Member:
    """What tells one network of a population from another.

    A member with ``data_seed`` equal to ``seed`` is the network that ``asr-dni fit --seed_everything SEED`` trains.

    Args:
        seed: of the initial weights, which are those of :class:`~asr_dni.model.spotter.KeywordSpotter` after
            ``seed_everything(seed)``, of the noise, dropout and mixup.
        data_seed: of the order of the clips and their augmentation: the seed of the member's datamodule.
        annealing: arguments of :class:`~asr_dni.model.annealing.NoiseAnnealing`, such as ``{"sigma": 1.0}``; nothing is
            conventional training.
    """

    seed: int = 0
    data_seed: int = 0
    annealing: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class _MemberScores(Metric):
    """Sums of losses and correct answers, per member."""

    full_state_update = False
    loss: Tensor
    correct: Tensor
    n_clips: Tensor

    def __init__(self, members: int) -> None:
        super().__init__()
        self.add_state("loss", torch.zeros(members, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("correct", torch.zeros(members, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("n_clips", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: mean losses ``(K,)``, logits ``(K, N, C)``, labels ``(N,)`` or ``(K, N)``."""
        size = logits.shape[1]
        self.loss += loss.detach().double() * size
        self.correct += (logits.detach().argmax(-1) == labels).sum(-1)
        self.n_clips += size

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return each member's mean loss and its accuracy."""
        return self.loss / self.n_clips, self.correct / self.n_clips

    def by_member(self) -> tuple[list[float], list[float]]:
        """Return what :meth:`compute` does, as lists, also of one member, whose value torchmetrics makes a scalar."""
        losses, accuracies = self.compute()
        return losses.reshape(-1).tolist(), accuracies.reshape(-1).tolist()


class PopulationSpotter(SharpnessAware):
    """K keyword networks that are trained at once, each as :class:`~asr_dni.model.spotter.KeywordSpotter` trains it.

    All parameters have a leading axis of members. The loss is the sum over members of the mean loss of each, so that a
    member's gradient is its own; it is clipped by its own norm, and the optimiser works element by element. A member
    thus gets, up to rounding, the weights that it gets alone with the same settings, seed and data, whoever else is
    there. One whose weights are no longer finite harms nobody else; it is named in a warning and in :attr:`diverged`.

    Give the trainer no ``NoiseAnnealing`` (each member has its own) and no ``gradient_clip_val``, which would be of all
    members together.

    Logged are the means over the members that have not diverged, ``train/loss``, ``train/accuracy``, ``val/loss``,
    ``val/accuracy``, ``sigma_train``, with ``_min`` and ``_max`` of each; :attr:`history` has every member's own.

    Args:
        members: what they differ in.
        label_names: the classes, in the order of the logits.
        n_features: features per frame.
        network: what every network is made of.
        noise: the noise of training; not its seed, which is the member's.
        optimizer: the optimiser, as a function of the parameters: one of :data:`ELEMENTWISE_OPTIMIZERS`.
        schedule: see :class:`~asr_dni.model.step.TrainingRecipe`, as for the following ones.
        warm_up: part of the run in which the learning rate rises linearly from zero.
        label_smoothing: of the cross entropy.
        mixup: parameter alpha of mixup; 0: off.
        calibrate_every: steps between estimates of the clean signals' size; 0: never.
        consistency: several draws of each clip in a step, which are to agree; ``None``: one.
        sam_rho: how far sharpness-aware minimisation looks; 0: off.
        gradient_clip: the largest norm of a member's gradient; ``None``: any.

    Raises:
        UserError: a value is out of its range, or there is no member.

    Example:
        >>> members = [Member(seed=seed, annealing={"sigma": sigma}) for seed in (0, 1) for sigma in (0.0, 1.0)]
        >>> population = PopulationSpotter(members, ["no", "yes"], 8, NetworkSettings(units=4))
        >>> population.network(torch.zeros(3, 10, 8)).shape
        torch.Size([4, 3, 2])
        >>> type(population.unstack(2)).__name__
        'KeywordSpotter'
    """

    def __init__(
        self,
        members: Sequence[Member],
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
        gradient_clip: float | None = None,
    ) -> None:
        super().__init__()
        self.members = tuple(members)
        if not self.members:
            raise UserError("a population has no members: give at least one")
        if gradient_clip is not None and not gradient_clip > 0:
            raise UserError(f"gradient_clip is {gradient_clip}: give a number above 0, or none")
        self._arguments: dict[str, Any] = {
            "label_names": list(label_names),
            "n_features": n_features,
            "network": network,
            "noise": noise,
            "optimizer": optimizer,
            "schedule": schedule,
            "warm_up": warm_up,
            "label_smoothing": label_smoothing,
            "mixup": mixup,
            "calibrate_every": calibrate_every,
            "consistency": consistency,
            "sam_rho": sam_rho,
        }
        self.annealings = [NoiseAnnealing(**member.annealing) for member in self.members]
        spotters = [self._new_spotter(member) for member in self.members]
        for annealing in self.annealings:
            annealing.check(spotters[0].training_noise.hardware, spotters[0].strength)
        self.network: KeywordNetwork = stack_networks([spotter.network for spotter in spotters])
        """All networks as one; its noise is one value for all, or one per member."""
        self.label_names = spotters[0].label_names
        self.training_noise = spotters[0].training_noise
        self.noise_settings, self.strength = spotters[0].noise_settings, spotters[0].strength
        self.optimizer_callable = optimizer
        self.recipe, self.gradient_clip = spotters[0].recipe, gradient_clip
        self.sigma_train = [0.0] * self.networks
        """Strength of every member's noise in the next training step."""
        self.highest_sigma_train: list[float | None] = [None] * self.networks
        """Largest strength of every member's noise so far, see :class:`KeywordSpotter`."""
        self.trainings: list[list[dict[str, Any]]] = [[] for _ in self.members]
        """How each member was trained, see :attr:`asr_dni.model.spotter.KeywordSpotter.trainings`."""
        self.history: list[dict[str, Any]] = []
        """One row per epoch and member: ``epoch``, ``member``, ``sigma_train`` (of its last step), ``train_loss``,
        ``train_accuracy``, ``val_loss``, ``val_accuracy``; the last two are ``None`` where there was no validation."""
        self.diverged: dict[int, int] = {}
        """Members whose weights are no longer finite, and since which epoch."""
        self.train_scores = _MemberScores(self.networks)
        self.val_scores = _MemberScores(self.networks)
        self.test_scores = _MemberScores(self.networks)
        self._validated: tuple[Sequence[float], Sequence[float]] | None = None
        self._place: Place | None = None
        settings = dict(spotters[0].hparams["model"])
        settings["members"] = [_plain_member(member) for member in self.members]
        settings["gradient_clip"] = gradient_clip
        self.save_hyperparameters({SETTINGS_KEY: settings})

    @property
    def networks(self) -> int:
        """K, the number of members."""
        return len(self.members)

    def _new_spotter(self, member: Member) -> KeywordSpotter:
        """Return an untrained member; the global random numbers stay as they are."""
        noise = dataclasses.replace(self._arguments["noise"], seed=member.seed)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(member.seed)
            return KeywordSpotter(**{**self._arguments, "noise": noise})

    # ------------------------------------------------------------------ taking apart

    def unstack(self, member: int) -> KeywordSpotter:
        """Return a member as a spotter of its own: a copy, on the same device, as trained as it is now."""
        spotter = self._new_spotter(self.members[member])
        spotter.network.load_state_dict(unstack_network(self.network, member).state_dict())
        spotter.sigma_train = self.sigma_train[member]
        spotter.annealed_to = self.annealings[member].sigma
        spotter.highest_sigma_train = self.highest_sigma_train[member]
        spotter.trainings = list(self.trainings[member])
        return spotter.to(self.device).train(self.training)

    def curve_settings(self, member: int) -> dict[str, Any]:
        """Return what a noise curve's file says of a member."""
        return self.unstack(member).curve_settings()

    @classmethod
    def from_checkpoint(cls, checkpoint: str | Path | Mapping[str, Any]) -> Self:
        """Rebuild a population.

        Args:
            checkpoint: a checkpoint file, or what ``torch.load`` made of one.

        Raises:
            UserError: the file is missing, cannot be read, or holds no population.
        """
        contents = read_population(checkpoint)
        settings = contents[cls.CHECKPOINT_HYPER_PARAMS_KEY][SETTINGS_KEY]
        where = "the checkpoint" if isinstance(checkpoint, Mapping) else str(checkpoint)
        own = {key: value for key, value in settings.items() if key not in ("members", "gradient_clip")}
        arguments = arguments_from_settings(own, where)
        if arguments.pop("distillation", None) is not None:
            raise UserError(f"{where}: population.distillation is given: the members of one have no teachers")
        members = settings.get("members")
        if not isinstance(members, list):
            raise UserError(
                f"{where}: population.members is not a list; expected a checkpoint of a PopulationSpotter"
            )
        arguments["members"] = [
            Member(**checked_arguments(Member, member, f"{where}: population.members")) for member in members
        ]
        clip = arguments["gradient_clip"] = settings.get("gradient_clip")
        if clip is not None and not isinstance(clip, int | float):
            raise UserError(f"{where}: population.gradient_clip is {clip!r}, not a number")
        population = cls(**arguments)
        load_weights(population, contents, where, may_have_diverged=True)
        population.on_load_checkpoint(dict(contents))
        return population.eval()

    # ------------------------------------------------------------------ training

    def setup(self, stage: str) -> None:
        """Find what would let members mix."""
        if stage != "fit":
            return
        if self.trainer.gradient_clip_val:
            raise UserError(
                f"trainer.gradient_clip_val is {self.trainer.gradient_clip_val}, which clips all members of a"
                " population together: give PopulationSpotter gradient_clip instead"
            )
        if self.trainer.precision in ("16-mixed", "16-true"):
            raise UserError(
                f"trainer.precision is {self.trainer.precision}, whose loss scale all members of a population would"
                " share: give bf16-mixed or 32-true"
            )
        for k, member in enumerate(self.members):
            data = self._data_of(k)
            if getattr(data, "seed", member.data_seed) != member.data_seed:
                raise UserError(
                    f"member {k} of the population has data_seed {member.data_seed}, but its data have seed"
                    f" {data.seed}: give PopulationData.from_seeds the members' data_seed"
                )
        write_durable_checkpoints(self.trainer)

    def _data_of(self, member: int) -> Any:
        """Return the member's datamodule; ``None`` where there is none."""
        data = getattr(self.trainer, "datamodule", None)
        data_of = getattr(data, "data_of", None)
        return data_of(member) if callable(data_of) else data

    def configure_optimizers(self) -> Any:
        """Return the optimiser of all members, with its learning rate scheduled by step.

        Raises:
            UserError: the optimiser does not work element by element, or the length of the run is not known.
        """
        optimizer = self.optimizer_callable(self.parameters())
        if type(optimizer) not in ELEMENTWISE_OPTIMIZERS:
            known = ", ".join(kind.__name__ for kind in ELEMENTWISE_OPTIMIZERS)
            raise UserError(
                f"optimizer {type(optimizer).__name__} may mix the members of a population: give one that works"
                f" element by element ({known})"
            )
        return schedule_learning_rate(optimizer, self.trainer, self.recipe.schedule, self.recipe.warm_up)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip each member's gradient by its own norm."""
        if self.gradient_clip is not None:
            clip_by_member(list(self.parameters()), self.gradient_clip)

    def on_train_start(self) -> None:
        """Note how each member is trained; go on with the batches that a resumed run has left."""
        spotter = self._new_spotter(self.members[0])
        for member, annealing in enumerate(self.annealings):
            replaced: dict[str, dict[str, Any]] = {
                **annealing.training_settings(),
                "trainer": {"gradient_clip_val": self.gradient_clip},
            }
            training = describe_training(self.trainer, spotter, self._data_of(member), replaced)
            if self.trainer.global_step == 0 or not goes_on(training, self.trainings[member]):
                self.trainings[member] = [*self.trainings[member], training]
        if self._place is not None:
            self._place.restore(self.trainer)

    def on_train_epoch_start(self) -> None:
        """Begin the epoch's scores."""
        self.train_scores.reset()
        self._validated = None

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the sum of the members' losses, each of one noisy forward pass.

        Args:
            batch: features ``(N, T, F)`` for all members, or ``(K, N, T, F)``; labels and clip_ids likewise.
            batch_idx: not used.
        """
        self.sigma_train = [
            annealing.sigma_now(self.trainer, member.seed)
            for annealing, member in zip(self.annealings, self.members, strict=True)
        ]
        drawn = [
            annealing.by_sample(sigma, self.strength)
            for annealing, sigma in zip(self.annealings, self.sigma_train, strict=True)
        ]
        largest = [
            sigma if its is None else its.largest for its, sigma in zip(drawn, self.sigma_train, strict=True)
        ]
        self.highest_sigma_train = [
            max(before or 0.0, sigma if self.noise_settings.at(sigma).on else 0.0)
            for before, sigma in zip(self.highest_sigma_train, largest, strict=True)
        ]
        losses, logits = noisy_step(
            self.network,
            batch,
            self.recipe,
            partial(self._noises, largest),
            self.global_step,
            drawn,
            follows=not self.second_pass,
        )
        if not self.second_pass:
            self.train_scores.update(losses, logits, batch.labels)
        return losses.sum()

    def _noises(self, strengths: Sequence[float], which: int) -> list[Noise]:
        """Return every member's noise in a pass of the training."""
        noises = []
        for k, member in enumerate(self.members):
            # Signals that are not finite have no size, which the scales signal and range would ask for.
            sigma = strengths[k]
            if k in self.diverged and self.strength.is_sigma:
                sigma = 0.0
            noise = self.noise_settings.at(sigma).realised(seed=member.seed)
            noises.append(self.noise_settings.of_pass(noise, which, self.current_epoch))
        return noises

    def on_train_epoch_end(self) -> None:
        """Log the epoch, keep every member's scores, and find those that have diverged."""
        losses, accuracies = self.train_scores.by_member()
        self._find_diverged()
        unknown: list[float | None] = [None] * self.networks
        val_losses, val_accuracies = self._validated or (unknown, unknown)
        for member in range(self.networks):
            self.history.append(
                {
                    "epoch": self.current_epoch,
                    "member": member,
                    "sigma_train": self.sigma_train[member],
                    "train_loss": losses[member],
                    "train_accuracy": accuracies[member],
                    "val_loss": val_losses[member],
                    "val_accuracy": val_accuracies[member],
                }
            )
        self._log_range("train/loss", losses, prog_bar=True)
        self._log_range("train/accuracy", accuracies)
        self._log_range("sigma_train", self.sigma_train)
        self.log("diverged", float(len(self.diverged)))

    def _find_diverged(self) -> None:
        finite = torch.stack([p.detach().isfinite().flatten(1).all(1) for p in self.parameters()]).all(0)
        for member in (~finite).nonzero()[:, 0].tolist():
            if member not in self.diverged:
                self.diverged[member] = self.current_epoch
                logger.warning(
                    "member %d of the population (seed %d, sigma_train %g) has diverged in epoch %d: its weights are"
                    " not finite; the others go on",
                    member,
                    self.members[member].seed,
                    self.annealings[member].sigma,
                    self.current_epoch,
                )

    # ------------------------------------------------------------------ validation and test

    def forward(self, features: Tensor) -> Tensor:
        """Return logits ``(K, N, C)`` for features ``(N, T, F)`` or ``(K, N, T, F)``, under ``network.noise``."""
        logits: Tensor = self.network(features)
        return logits

    def on_validation_epoch_start(self) -> None:
        """Begin the validation's scores."""
        self.val_scores.reset()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Add the clean loss and accuracy of every member."""
        self._score(batch, self.val_scores)

    def on_validation_epoch_end(self) -> None:
        """Log the clean loss and accuracy."""
        losses, accuracies = self._log_scores("val", self.val_scores)
        if not self.trainer.sanity_checking:
            self._validated = losses, accuracies

    def on_test_epoch_start(self) -> None:
        """Begin the test's scores."""
        self.test_scores.reset()

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Add the clean loss and accuracy of every member."""
        self._score(batch, self.test_scores)

    def on_test_epoch_end(self) -> None:
        """Log the clean loss and accuracy."""
        self._log_scores("test", self.test_scores)

    def _score(self, batch: Any, scores: _MemberScores) -> None:
        logits = self.network(batch.features)
        scores.update(member_losses(logits, batch.labels), logits, batch.labels)

    def _log_scores(self, split: str, scores: _MemberScores) -> tuple[list[float], list[float]]:
        losses, accuracies = scores.by_member()
        self._log_range(f"{split}/loss", losses)
        self._log_range(f"{split}/accuracy", accuracies, prog_bar=True)
        return losses, accuracies

    def _log_range(self, name: str, values: Sequence[float], prog_bar: bool = False) -> None:
        """Log mean, smallest and largest value of the members that have not diverged."""
        among = torch.tensor(
            [value for k, value in enumerate(values) if k not in self.diverged] or [float("nan")]
        )
        finite = among[among.isfinite()] if among.isfinite().any() else among
        self.log(name, finite.mean(), prog_bar=prog_bar)
        self.log(f"{name}_min", finite.min(), prog_bar=prog_bar)
        self.log(f"{name}_max", finite.max(), prog_bar=prog_bar)

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note every member's training, its noise's strength and its history."""
        checkpoint[STATE_KEY] = {
            "sigma_train": self.sigma_train,
            "highest_sigma_train": self.highest_sigma_train,
            "trainings": self.trainings,
            "history": self.history,
            "diverged": self.diverged,
            "train_scores": {name: getattr(self.train_scores, name) for name in _SCORES},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back what was noted.

        Raises:
            UserError: the checkpoint is one of other members.
        """
        settings = checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {}).get(SETTINGS_KEY, {})
        known, mine = settings.get("members"), self.hparams[SETTINGS_KEY]["members"]
        if known != mine:
            raise UserError(
                f"the checkpoint holds {len(known)} other members than these {len(mine)}"
                if known
                else "the checkpoint holds no population; give the population that it is one of"
            )
        state = read_population(checkpoint)[STATE_KEY]
        per_member = (len(state["sigma_train"]), len(state["trainings"]), *map(len, _member_scores(state)))
        if set(per_member) != {self.networks} or set(state["train_scores"]) != set(_SCORES):
            raise UserError(
                f"the checkpoint's state is not of its {self.networks} members; give one that a study wrote"
            )
        self.sigma_train = list(state["sigma_train"])
        self.highest_sigma_train = list(state.get("highest_sigma_train", self.sigma_train))
        self.trainings = [list(trainings) for trainings in state["trainings"]]
        self.history = list(state["history"])
        self.diverged = dict(state["diverged"])
        for name in _SCORES:  # of an epoch that the checkpoint may be in the middle of
            setattr(self.train_scores, name, state["train_scores"][name].to(self.device))
        self._place = Place.of(checkpoint)


def _member_scores(state: Mapping[str, Any]) -> list[Tensor]:
    return [score for name, score in state["train_scores"].items() if name != "n_clips" and score.dim()]


def read_population(checkpoint: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the contents of a population's checkpoint.

    Raises:
        UserError: the file is missing, cannot be read, or holds no population.
    """
    contents, where = open_checkpoint(checkpoint)
    settings = contents.get(PopulationSpotter.CHECKPOINT_HYPER_PARAMS_KEY, {})
    if SETTINGS_KEY not in settings or STATE_KEY not in contents:
        raise UserError(f"{where}: holds no population; expected a checkpoint of a PopulationSpotter")
    return contents


def _plain_member(member: Member) -> dict[str, Any]:
    return {"seed": member.seed, "data_seed": member.data_seed, "annealing": dict(member.annealing)}
