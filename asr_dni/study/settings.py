"""What a study is: the axes of its matrix, how every member is trained, and at which noise it is evaluated."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from asr_dni.bounds import at_most
from asr_dni.errors import UserError
from asr_dni.evaluation.measurement.sweep import Sweep, check_draws, check_sigmas, check_sites, choose_levels
from asr_dni.hardware_files import noise_of
from asr_dni.model.annealing import NoiseAnnealing
from asr_dni.model.convolutions import ConvolutionSettings
from asr_dni.model.network import Initialisation, NetworkSettings, Pooling, cell_names
from asr_dni.model.spotter import TrainingNoise
from asr_dni.model.step import TrainingRecipe
from asr_dni.noise import Noise, Realisation, Scale, Strength
from asr_dni.study.evaluation_settings import EvaluationSettings
from asr_dni.study.noise_settings import NoiseModel, ScheduleSettings

ShareDataOrder: TypeAlias = Literal["seed", "all"]
_LARGEST_SEED = 2**32 - 1
_EVALUATION = EvaluationSettings()
MOST_TRAININGS = 50_000
"""Trainings of one study: planning more takes minutes before anything is said."""


def _named(key: str, check: Callable[[], Any]) -> None:
    try:
        check()
    except UserError as error:
        raise UserError(f"{key}: {error}") from error


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
        recurrent_initialisation: of the recurrent weights: uniform or orthogonal.
        output_gain: the same for the classifier's weights.
        forget_bias: added to the initial bias of an LSTM's forget gates.
        convolutions: what there is in front of the recurrent layers; null: nothing.
        learning_rate: in place of the optimiser's.
        layers: in place of n_layers, for a kind of cell that needs more or fewer than the others.
    """

    bidirectional: bool = False
    dropout: float = 0.0
    pooling: Pooling = "frame"
    input_gain: float = 1.0
    inner_gain: float = 1.0
    recurrent_gain: float = 1.0
    recurrent_initialisation: Initialisation = "uniform"
    output_gain: float = 1.0
    forget_bias: float = 1.0
    convolutions: ConvolutionSettings | None = None
    learning_rate: float | None = None
    layers: int | None = None


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
        consistency: several draws of each clip in a step, which are to agree; null: one.
        sam_rho: how far sharpness-aware minimisation looks; 0: off.
        gradient_clip: largest norm of a member's gradient; null: any.
    """

    gradient_clip: float | None = 1.0

    def __post_init__(self) -> None:
        _named("training", super().__post_init__)


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
    evaluation: EvaluationSettings = _EVALUATION
    population: PopulationSettings = PopulationSettings()
    keep_checkpoints: bool = False

    @property
    def seed_list(self) -> list[int]:
        """The seeds."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)

    def network(self, cell: str, units: int, layers: int) -> NetworkSettings:
        """Return the settings of a network of this shape, of as many layers as its recipe says, if it does."""
        recipe = vars(self.recipes.of(cell)).copy()
        del recipe["learning_rate"]
        own = recipe.pop("layers")
        return NetworkSettings(cell=cell, units=units, layers=layers if own is None else own, **recipe)

    def sigmas_of(self, noise: NoiseModel) -> list[float]:
        """Return the levels that trainings under ``noise`` take."""
        if noise.is_none:
            return [0.0]
        return list(self.sigma_train if noise.sigma_train is None else noise.sigma_train)

    def schedules_of(self, noise: NoiseModel) -> Mapping[str, ScheduleSettings]:
        """Return how trainings under ``noise`` reach its levels, by name.

        Raises:
            UserError: see :meth:`NoiseModel.schedules`.
        """
        return noise.schedules(self.schedules)

    def sweeps_of(self, noise: NoiseModel) -> tuple[Sweep, ...]:
        """Return what members trained under ``noise`` are evaluated at.

        That is the hardware of the evaluation, else that of the training; of Gaussian noise there is one per scale.

        Raises:
            UserError: there is no such hardware, or a level is not valid.
        """
        common = self.evaluation.sweeps()
        if common:
            return common
        draws, seed = self.evaluation.draws, self.evaluation.seed
        if noise.hardware is not None and not noise.is_none:
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
            if any(model.hardware is not None and not model.is_none for model in self.noise_models):
                raise UserError("evaluation.scales is given beside a hardware: give it in the hardware")
        for index, noise in enumerate(self.noise_models):
            _named(f"noise_models[{index}]", noise.training_noise)
        # Conventional training, and one that is drawn otherwise, are others of the same settings.
        kinds = [(model.settings(), model.is_none, model.drawn) for model in self.noise_models]
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
            _named(where, partial(self.schedules_of, noise))
            for name, schedule in self.schedules_of(noise).items():
                for sigma in self.sigmas_of(noise):
                    _named(
                        f"schedules.{name}", partial(_check_schedule, schedule, sigma, noise.training_noise())
                    )
            self._check_votes_and_compensation(noise, where)
        chips = max(sweep.chips for noise in self.noise_models for sweep in self.sweeps_of(noise))
        if chips < self.evaluation.chips:
            raise UserError(
                f"evaluation.chips is {self.evaluation.chips}, but on this study's hardware all chips are the same:"
                " give 1, or a hardware whose weights differ from chip to chip"
            )

    def _check_votes_and_compensation(self, noise: NoiseModel, where: str) -> None:
        largest = max(self.sigmas_of(noise))
        for sweep in self.sweeps_of(noise):
            self.evaluation.numbers_of_votes(sweep)
            for given in self.evaluation.compensations():
                if given == "auto" and not largest:
                    continue  # conventional training is evaluated as it is
                if given == "auto" and any(its.drawn != "no" for its in self.schedules_of(noise).values()):
                    raise UserError(
                        f"evaluation.compensation is auto, but the strengths of {where} are drawn at random: give the"
                        " sigma that is meant, such as 1.5"
                    )
                trained = noise.training_noise().at(largest).hardware if given == "auto" else given
                _named("evaluation.compensation", partial(sweep.noise.compensating, trained))


def _check_schedule(schedule: ScheduleSettings, sigma: float, noise: TrainingNoise) -> None:
    NoiseAnnealing(**schedule.annealing(sigma)).check(noise.noise.hardware, Strength(noise.strength))


def _check_once(key: str, values: Sequence[Any]) -> None:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise UserError(f"{key} contains {value} twice: give every value once")
        seen.add(value)
