"""What a study is: the axes of its matrix, how every member is trained, and at which noise it is evaluated."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from asr_dni.bounds import at_most
from asr_dni.errors import UserError
from asr_dni.evaluation.measurement.sweep import Sweep, check_draws, check_sigmas, check_sites, choose_levels
from asr_dni.hardware_files import noise_of
from asr_dni.model.annealing import Drawn, NoiseAnnealing, Schedule
from asr_dni.model.convolutions import ConvolutionSettings
from asr_dni.model.network import NetworkSettings, Pooling, cell_names
from asr_dni.model.spotter import TrainingNoise
from asr_dni.model.step import TrainingRecipe
from asr_dni.noise import MVM_SITES, SIGMA, Arrays, Noise, Realisation, Scale, Site, Strength

ShareDataOrder: TypeAlias = Literal["seed", "all"]
_LARGEST_SEED = 2**32 - 1
MOST_TRAININGS = 50_000
"""Trainings of one study: planning more takes minutes before anything is said."""


def _named(key: str, check: Callable[[], Any]) -> None:
    try:
        check()
    except UserError as error:
        raise UserError(f"{key}: {error}") from error


@dataclass(frozen=True)
class ScheduleSettings:
    """How sigma_train is reached in a training, see :class:`asr_dni.model.NoiseAnnealing`.

    Args:
        schedule: the shape of the movement; constant: the full noise after the warm-up.
        start: where it begins, in multiples of sigma_train: 0 comes from no noise, 1.5 down from above.
        warm_up: part of the run, in [0, 1], in which sigma stays where it begins.
        length: part of the run that the movement takes.
        by: whether sigma moves at every optimiser step or only at the beginning of an epoch.
        n_steps: number of jumps of the schedule steps.
        drawn: whether sigma is as the schedule has it, or drawn for each batch or sample from where it begins to there.
    """

    schedule: Schedule = "linear"
    start: float = 0.0
    warm_up: float = 0.0
    length: float = 1.0
    by: Literal["step", "epoch"] = "step"
    n_steps: int = 4
    drawn: Drawn = "no"

    def annealing(self, sigma_train: float) -> dict[str, Any]:
        """Return the arguments of :class:`~asr_dni.model.NoiseAnnealing`; sigma_train 0 has no noise at any time."""
        if sigma_train == 0:
            return {"sigma": 0.0, "start": 0.0, "schedule": "constant"}
        return {
            "sigma": sigma_train,
            "start": self.start * sigma_train,
            "schedule": self.schedule,
            "warm_up": self.warm_up,
            "length": self.length,
            "by": self.by,
            "n_steps": self.n_steps,
            **({} if self.drawn == "no" else {"drawn": self.drawn}),
        }


@dataclass(frozen=True)
class NoiseModel:
    """Which noise a training and its evaluation are under.

    Args:
        scale: what sigma is measured in, see :class:`asr_dni.noise.Noise`.
        sites: where the noise enters.
        arrays: whether W_ih and W_hh share one array (joint) or not (separate).
        sigma_train: levels of the training, where they are not those of the study.
        sigma_infer: levels of the evaluation in this scale, where they are not those of the study.
        hardware: any other hardware, see :class:`asr_dni.model.spotter.TrainingNoise`, as for the following ones; the
            levels are then values of ``strength``.
        strength: which of its numbers.
        chips: whether training programs weights anew for each ``step`` or ``epoch``, or once for the whole ``run``.

    Raises:
        UserError: the hardware is not valid, has no such strength, or stands beside scale, sites or arrays.
    """

    scale: Scale = "absolute"
    sites: list[Site] = field(default_factory=lambda: list(MVM_SITES))
    arrays: Arrays = "joint"
    sigma_train: list[float] | None = None
    sigma_infer: list[float] | None = None
    hardware: dict[str, Any] | str | None = None
    strength: str = SIGMA.path
    chips: Literal["step", "epoch", "run"] = "step"

    def training_noise(self) -> TrainingNoise:
        """Return the noise as a training has it.

        Raises:
            UserError: see above.
        """
        return TrainingNoise(
            self.scale,
            list(self.sites),
            self.arrays,
            hardware=self.hardware,
            strength=self.strength,
            chips=self.chips,
        )

    @property
    def word(self) -> str:
        """The scale, or in a word that it is another hardware."""
        if self.hardware is None:
            return self.scale
        return self.hardware if isinstance(self.hardware, str) else "hardware of its own"

    def settings(self) -> dict[str, Any]:
        """Return what tells it from other kinds of noise, whatever the levels."""
        if self.hardware is None:
            return {"scale": self.scale, "sites": sorted(self.sites), "arrays": self.arrays}
        hardware, strength = self.training_noise().noise.hardware, Strength(self.strength)
        return {
            "hardware": hardware.settings_beside(strength),
            "strength": hardware.axis(strength).as_dict(),
            "chips": self.chips,
        }


@dataclass(frozen=True)
class Recipe:
    """What belongs to a kind of cell, see :class:`asr_dni.model.NetworkSettings`.

    Args:
        bidirectional: whether each layer runs in both directions.
        dropout: probability with which a layer's outputs are dropped in training.
        pooling: how the outputs of all frames become one decision.
        input_gain: initial weights of the first layer's inputs, in multiples of torch's initialisation.
        inner_gain: the same for the inputs of further layers.
        recurrent_gain: the same for the recurrent weights.
        output_gain: the same for the classifier's weights.
        forget_bias: added to the initial bias of an LSTM's forget gates.
        convolutions: what there is in front of the recurrent layers; null: nothing.
        learning_rate: in place of the optimiser's.
    """

    bidirectional: bool = False
    dropout: float = 0.0
    pooling: Pooling = "frame"
    input_gain: float = 1.0
    inner_gain: float = 1.0
    recurrent_gain: float = 1.0
    output_gain: float = 1.0
    forget_bias: float = 1.0
    convolutions: ConvolutionSettings | None = None
    learning_rate: float | None = None


@dataclass(frozen=True)
class Recipes:
    """A recipe for each kind of cell.

    Args:
        rnn: of vanilla RNNs.
        lstm: of LSTMs.
        gru: of GRUs.
        others: of all further cells.
    """

    rnn: Recipe = Recipe()
    lstm: Recipe = Recipe()
    gru: Recipe = Recipe()
    others: Recipe = Recipe()

    def of(self, cell: str) -> Recipe:
        """Return the recipe of a kind of cell."""
        recipe: Recipe = getattr(self, cell, self.others)
        return recipe


@dataclass(frozen=True)
class TrainingSettings(TrainingRecipe):
    """How every member is trained; optimiser and batch size are settings of their own (optimizer, data).

    Args:
        schedule: the learning rate after the warm-up: constant, or falling to zero as a line or a half cosine.
        warm_up: part of the run in which the learning rate rises linearly from zero.
        label_smoothing: of the cross entropy, in [0, 1).
        mixup: parameter alpha of mixup; 0: off.
        calibrate_every: steps between estimates of the clean signals' size; 0: never, which rules out the scales
            signal and range and leaves SNRs unknown.
        gradient_clip: largest norm of a member's gradient; null: any.
    """

    gradient_clip: float | None = 1.0

    def __post_init__(self) -> None:
        _named("training", super().__post_init__)


@dataclass(frozen=True)
class EvaluationSettings:
    """At which noise every member is evaluated.

    Args:
        sigma_infer: noise levels.
        draws: realisations of the noise per level (and chip), where they differ.
        scales: what sigma_infer is measured in, one matrix each; null: what sigma_train is measured in.
        split: which clips.
        seed: of the noise.
        hardware: any other hardware than the Gaussian noise of the training: a name, such as noisy_weights, a YAML
            file, or settings, see :class:`asr_dni.noise.Hardware`; all members are evaluated on it.
        strength: which of its numbers is the axis, such as adc.bits.
        strengths: the levels of this strength; null: those of sigma_infer, where it is output.sigma.
        chips: how many chips each member is evaluated on, where weights differ from chip to chip.
    """

    sigma_infer: list[float] = field(default_factory=lambda: [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0])
    draws: int = 10
    scales: list[Scale] | None = None
    split: Literal["validation", "test"] = "test"
    seed: int = 0
    hardware: dict[str, Any] | str | None = None
    strength: str = SIGMA.path
    strengths: list[float] | None = None
    chips: int = 1

    def sweep(self) -> Sweep | None:
        """Return what all members are evaluated at; ``None``: that depends on the noise of their training.

        Raises:
            UserError: the hardware has no such strength or levels, or settings exclude each other.
        """
        axis = Strength.parse(self.strength)
        if self.hardware is None:
            beside = {"strengths": self.strengths is not None, "strength": not axis.is_sigma}
            for name in (name for name, given in beside.items() if given):
                raise UserError(
                    f"evaluation.{name} is given without a hardware: give evaluation.hardware too"
                )
            return None
        if self.scales is not None:
            raise UserError("evaluation.scales is given beside evaluation.hardware: give it in the hardware")
        noise = noise_of(self.hardware, seed=self.seed, prefix="evaluation.")
        names = ("evaluation.strength", "evaluation.strengths")
        levels = choose_levels(axis, self.sigma_infer, self.strengths, names)
        return Sweep(levels, self.draws, noise, axis, self.chips)


@dataclass(frozen=True)
class PopulationSettings:
    """How large a population, trained as one, may be; it does not change what is measured.

    Args:
        members: at most so many; null: 16 on a CPU, 64 on a GPU.
        memory_gb: memory that one population may take, as estimated; null: an equal part of 70 % of the memory.
    """

    members: int | None = None
    memory_gb: float | None = None


@dataclass(frozen=True)
class StudySettings:
    """A study: the product of its axes, each point of it trained once per seed and evaluated on one grid.

    Args:
        name: of the study; its folder is runs/study/NAME.
        cells: kinds of cells, see :class:`asr_dni.model.NetworkSettings`.
        units: numbers of units per layer.
        n_layers: numbers of layers (``layers`` are the files that a file starts from).
        sigma_train: noise of the training; 0 is conventional training, once, whatever the schedules.
        schedules: how sigma_train is reached, by name.
        noise_models: kinds of noise.
        seeds: a list, or a number n for 0 to n-1. A seed decides initial weights, noise and dropout, and the order
            of the clips.
        share_data_order: whether members of one seed see the same batches (seed), or all members do (all).
        epochs: length of every training.
        recipes: what belongs to a kind of cell.
        training: how every member is trained.
        evaluation: at which noise every member is evaluated.
        population: how large a population may be.
        keep_checkpoints: whether the members' ordinary checkpoints are kept, in the study's folder.
    """

    name: str = "study"
    cells: list[str] = field(default_factory=lambda: ["lstm"])
    units: list[int] = field(default_factory=lambda: [128])
    n_layers: list[int] = field(default_factory=lambda: [1])
    sigma_train: list[float] = field(default_factory=lambda: [0.0, 1.0, 2.0])
    schedules: dict[str, ScheduleSettings] = field(default_factory=lambda: {"linear": ScheduleSettings()})
    noise_models: list[NoiseModel] = field(default_factory=lambda: [NoiseModel()])
    seeds: int | list[int] = 3
    share_data_order: ShareDataOrder = "seed"
    epochs: int = 30
    recipes: Recipes = Recipes()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    population: PopulationSettings = PopulationSettings()
    keep_checkpoints: bool = False

    @property
    def seed_list(self) -> list[int]:
        """The seeds."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)

    def network(self, cell: str, units: int, layers: int) -> NetworkSettings:
        """Return the settings of a network of this shape."""
        recipe = vars(self.recipes.of(cell)).copy()
        del recipe["learning_rate"]
        return NetworkSettings(cell=cell, units=units, layers=layers, **recipe)

    def sigmas_of(self, noise: NoiseModel) -> list[float]:
        """Return the levels that trainings under ``noise`` take."""
        return list(self.sigma_train if noise.sigma_train is None else noise.sigma_train)

    def sweeps_of(self, noise: NoiseModel) -> tuple[Sweep, ...]:
        """Return what members trained under ``noise`` are evaluated at.

        That is the hardware of the evaluation, else that of the training; of Gaussian noise there is one per scale.

        Raises:
            UserError: there is no such hardware, or a level is not valid.
        """
        common = self.evaluation.sweep()
        if common is not None:
            return (common,)
        draws, seed = self.evaluation.draws, self.evaluation.seed
        if noise.hardware is not None:
            hardware, axis = noise.training_noise().noise.hardware, Strength(noise.strength)
            levels = choose_levels(axis, (), noise.sigma_infer or self.evaluation.sigma_infer)
            chips = self.evaluation.chips if any(hardware.at(one, axis).has_chips for one in levels) else 1
            return (Sweep(levels, draws, Noise.of(hardware, Realisation(seed=seed)), axis, chips),)
        sweeps = []
        for scale, sigmas in self._grids_of(noise).items():
            its = noise_of(None, scale, noise.sites, noise.arrays, seed)
            try:
                sweeps.append(Sweep(sigmas, draws, its))
            except UserError as error:
                raise UserError(f"evaluation at scale {scale}: {error}") from error
        return tuple(sweeps)

    def _grids_of(self, noise: NoiseModel) -> dict[Scale, list[float]]:
        own = {model.scale: model.sigma_infer for model in self.noise_models if model.sigma_infer is not None}
        own |= {noise.scale: noise.sigma_infer} if noise.sigma_infer is not None else {}
        scales = self.evaluation.scales or [noise.scale]
        return {scale: sorted(own.get(scale) or self.evaluation.sigma_infer) for scale in scales}

    def check(self) -> None:
        """Find what cannot be studied.

        Raises:
            UserError: names the key.
        """
        name = Path(self.name)
        if not self.name or name.is_absolute() or ".." in name.parts:
            raise UserError(f"name is {self.name!r}: give a folder below runs/study, such as paper")
        for key in ("cells", "units", "n_layers", "sigma_train", "noise_models", "schedules"):
            if not getattr(self, key):
                raise UserError(f"{key} is empty: give at least one")
        levels = [sigma for noise in self.noise_models for sigma in self.sigmas_of(noise)]
        n_seeds = self.seeds if isinstance(self.seeds, int) else len(self.seeds)
        axes = (len(self.cells), len(self.units), len(self.n_layers), len(self.schedules), n_seeds)
        at_most(
            "the number of trainings, cells x units x n_layers x schedules x seeds x sigma_train,",
            math.prod(axes) * len(levels),
            MOST_TRAININGS,
        )
        if isinstance(self.seeds, int) and self.seeds < 1:
            raise UserError(f"seeds is {self.seeds}: give how many, 1 or more, or a list such as [0, 1, 2]")
        for key in ("cells", "units", "n_layers"):
            _check_once(key, getattr(self, key))
        if not self.seed_list:
            raise UserError("seeds is empty: give at least one")
        _check_once("seeds", self.seed_list)
        for seed in self.seed_list:
            if not 0 <= seed <= _LARGEST_SEED:
                raise UserError(f"seeds contains {seed}: give numbers from 0 to {_LARGEST_SEED}")
        if self.epochs < 1:
            raise UserError(f"epochs is {self.epochs}: give 1 or more")
        for cell in self.cells:
            if cell not in cell_names():
                raise UserError(f"cells contains {cell!r}: give any of {', '.join(cell_names())}")
            recipe = f"recipes.{cell if hasattr(self.recipes, cell) else 'others'}"
            rate = self.recipes.of(cell).learning_rate
            if rate is not None and not (rate > 0 and math.isfinite(rate)):
                raise UserError(f"{recipe}.learning_rate is {rate}: give a number above 0")
            for units in self.units:
                for layers in self.n_layers:
                    _named(recipe, partial(self.network, cell, units, layers))
        clip = self.training.gradient_clip
        if clip is not None and not clip > 0:
            raise UserError(f"training.gradient_clip is {clip}: give a norm above 0, or null (no clipping)")
        limit, memory = self.population.members, self.population.memory_gb
        if limit is not None and limit < 1:
            raise UserError(f"population.members is {limit}: give 1 or more, or null")
        if memory is not None and not memory > 0:
            raise UserError(f"population.memory_gb is {memory}: give a number above 0, or null")
        self._check_noise()

    def _check_noise(self) -> None:
        check_draws(self.evaluation.draws, "evaluation.draws")
        if self.evaluation.seed < 0:
            raise UserError(f"evaluation.seed is {self.evaluation.seed}: give 0 or more")
        if self.evaluation.scales is not None:
            if not self.evaluation.scales:
                raise UserError(
                    "evaluation.scales is empty: give some, or null (what sigma_train is measured in)"
                )
            _check_once("evaluation.scales", self.evaluation.scales)
            if any(model.hardware is not None for model in self.noise_models):
                raise UserError("evaluation.scales is given beside a hardware: give it in the hardware")
        for index, noise in enumerate(self.noise_models):
            _named(f"noise_models[{index}]", noise.training_noise)
        kinds = [model.settings() for model in self.noise_models]
        for index, noise in enumerate(self.noise_models):
            where = f"noise_models[{index}]"
            if kinds.index(kinds[index]) < index:
                raise UserError(
                    f"{where} is the noise of noise_models[{kinds.index(kinds[index])}]:"
                    " give every kind of noise once"
                )
            hardware = noise.training_noise().noise.hardware
            key = "sigma_train" if noise.sigma_train is None else f"{where}.sigma_train"
            _named(key, partial(check_sigmas, self.sigmas_of(noise)))
            _named(where, partial(check_sites, hardware.sites, self.sigmas_of(noise)))
            evaluated = any(sweep.noise.hardware.needs_sizes for sweep in self.sweeps_of(noise))
            if not self.training.calibrate_every and (hardware.needs_sizes or evaluated):
                raise UserError(
                    f"training.calibrate_every is 0, but {where} needs the size of the signals: give 1 or more"
                )
            for name, schedule in self.schedules.items():
                for sigma in self.sigmas_of(noise):
                    _named(
                        f"schedules.{name}", partial(_check_schedule, schedule, sigma, noise.training_noise())
                    )
        chips = max(sweep.chips for noise in self.noise_models for sweep in self.sweeps_of(noise))
        if chips < self.evaluation.chips:
            raise UserError(
                f"evaluation.chips is {self.evaluation.chips}, but on this study's hardware all chips are the same:"
                " give 1, or a hardware whose weights differ from chip to chip"
            )


def _check_schedule(schedule: ScheduleSettings, sigma: float, noise: TrainingNoise) -> None:
    NoiseAnnealing(**schedule.annealing(sigma)).check(noise.noise.hardware, Strength(noise.strength))


def _check_once(key: str, values: Sequence[Any]) -> None:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise UserError(f"{key} contains {value} twice: give every value once")
        seen.add(value)
