"""What a study's members are evaluated on: one hardware, several, or that of their training."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.axes import usual_levels, usual_strength
from asr_dni.evaluation.measurement.sweep import Sweep, check_draws, check_levels, check_votes, choose_levels
from asr_dni.hardware_files import noise_of
from asr_dni.identity import evaluation_settings
from asr_dni.noise import SIGMA, Hardware, Scale, Strength


@dataclass(frozen=True)
class EvaluatedHardware:
    """One of several hardwares that all members are evaluated on, whatever they were trained on.

    Args:
        hardware: a name, such as pcm_8bit, a YAML file, or settings, see :class:`asr_dni.noise.Hardware`.
        strength: which of its numbers is the axis; null: the one that says most of it, such as the time since
            programming of devices that age.
        strengths: the levels of this strength; null: usual ones.
        at: the level that matrices of training by inference hardware show; null: the middle one.
        chips: how many chips each member is evaluated on; null: evaluation.chips, where weights differ from chip to
            chip.
        draws: realisations of the noise per level and chip; null: evaluation.draws.
    """

    hardware: dict[str, Any] | str
    strength: str | None = None
    strengths: list[float] | None = None
    at: float | None = None
    chips: int | None = None
    draws: int | None = None

    def axis(self, hardware: Hardware) -> Strength:
        """Return the strength, with its unit.

        Args:
            hardware: that is meant.

        Raises:
            UserError: it has no such strength.
        """
        return hardware.axis(
            usual_strength(hardware) if self.strength is None else Strength.parse(self.strength)
        )

    def sweep(self, where: str, draws: int, chips: int, seed: int) -> Sweep:
        """Return what members are evaluated at on it.

        Args:
            where: what messages call it.
            draws: where it says none of its own.
            chips: where it says none of its own.
            seed: of the noise.

        Raises:
            UserError: the hardware is not valid or has no such strength or levels, or ``at`` is none of them.
        """
        noise = noise_of(self.hardware, seed=seed, prefix=f"{where}.")
        hardware = noise.hardware
        try:
            axis = self.axis(hardware)
            own = self.strengths
            levels = check_levels(usual_levels(hardware, axis) if own is None else own)
            differ = any(hardware.at(level, axis).has_chips for level in levels)
            of_chips = (chips if differ else 1) if self.chips is None else self.chips
            of_draws = draws if self.draws is None else check_draws(self.draws)
            made = Sweep(levels, of_draws, noise, axis, of_chips)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        if self.at is not None and self.at not in made.values:
            known = ", ".join(f"{level:g}" for level in made.values)
            raise UserError(
                f"{where}.at is {self.at:g}, which is not one of its strengths: give one of {known}"
            )
        return made


@dataclass(frozen=True)
class EvaluationSettings:
    """At which noise every member is evaluated.

    Args:
        sigma_infer: noise levels, where no hardware has strengths of its own here.
        draws: realisations of the noise per level (and chip), where they differ.
        scales: what sigma_infer is measured in, one matrix each; null: what sigma_train is measured in.
        split: which clips.
        seed: of the noise.
        hardware: any other hardware than the Gaussian noise of the training: a name, such as noisy_weights, a YAML
            file, or settings, see :class:`asr_dni.noise.Hardware`; all members are evaluated on it.
        strength: which of its numbers is the axis, such as adc.bits.
        strengths: the levels of this strength; null: those of sigma_infer, where it is output.sigma.
        chips: how many chips each member is evaluated on, where weights differ from chip to chip.
        hardwares: several hardwares, in place of hardware, strength and strengths: training by inference hardware.
        votes: numbers of noisy passes that decide together by their mean posterior, 1 for each by itself; all of the
            same draws, so that the largest needs as many.
        compensation: evaluates all members once more, softened for noise of the training that is missing at inference:
            auto, each for that of its own training (conventional training, which had none, as it is), or a sigma for
            all; null: not. See :meth:`asr_dni.noise.Noise.compensating`.
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
    hardwares: list[EvaluatedHardware] | None = None
    votes: list[int] = field(default_factory=lambda: [1])
    compensation: Literal["auto"] | float | None = None

    def compensations(self) -> tuple[Literal["auto"] | float | None, ...]:
        """Return how all members are evaluated: without compensation, and with it where it is asked for.

        Raises:
            UserError: a sigma is not above 0.
        """
        given = self.compensation
        if given is None:
            return (None,)
        if given != "auto" and not 0 < given < math.inf:
            raise UserError(f"evaluation.compensation is {given:g}: give a sigma above 0, auto, or null")
        return (None, given)

    def numbers_of_votes(self, sweep: Sweep) -> tuple[int, ...]:
        """Return the numbers of votes, ascending.

        Raises:
            UserError: one is below 1 or given twice, or a sweep has fewer draws.
        """
        if len(set(self.votes)) < len(self.votes):
            raise UserError(f"evaluation.votes contains a number twice: {self.votes}")
        try:
            return check_votes(self.votes, sweep.draws)
        except UserError as error:
            raise UserError(f"evaluation.votes: {error}") from error

    def sweeps(self) -> tuple[Sweep, ...]:
        """Return what all members are evaluated at; none: that depends on the noise of their training.

        Raises:
            UserError: a hardware has no such strength or levels, settings exclude each other, or a hardware is given
                twice.
        """
        if self.hardwares is not None:
            return self._sweeps_on(self.hardwares)
        axis = Strength.parse(self.strength)
        if self.hardware is None:
            beside = {"strengths": self.strengths is not None, "strength": not axis.is_sigma}
            for name in (name for name, given in beside.items() if given):
                raise UserError(
                    f"evaluation.{name} is given without a hardware: give evaluation.hardware too"
                )
            return ()
        if self.scales is not None:
            raise UserError("evaluation.scales is given beside evaluation.hardware: give it in the hardware")
        noise = noise_of(self.hardware, seed=self.seed, prefix="evaluation.")
        names = ("evaluation.strength", "evaluation.strengths")
        levels = choose_levels(axis, self.sigma_infer, self.strengths, names)
        return (Sweep(levels, self.draws, noise, axis, self.chips),)

    def _sweeps_on(self, several: list[EvaluatedHardware]) -> tuple[Sweep, ...]:
        beside = {"hardware": self.hardware, "strengths": self.strengths, "scales": self.scales}
        given = [name for name, value in beside.items() if value is not None]
        given += ["strength"] if self.strength != SIGMA.path else []
        if given:
            raise UserError(f"evaluation.{given[0]} is given beside evaluation.hardwares: give it there")
        if not several:
            raise UserError("evaluation.hardwares is empty: give at least one hardware, or null")
        sweeps = []
        known: list[dict[str, Any]] = []
        for index, one in enumerate(several):
            where = f"evaluation.hardwares[{index}]"
            sweeps.append(one.sweep(where, self.draws, self.chips, self.seed))
            noted = evaluation_settings(sweeps[-1].noise.hardware, sweeps[-1].strength)
            if noted in known:
                raise UserError(
                    f"{where} is the hardware of evaluation.hardwares[{known.index(noted)}], over the same"
                    " strength: give it once, with all strengths"
                )
            known.append(noted)
        return tuple(sweeps)
