"""The noise of a study's trainings: which hardware, which of its strengths, and how that comes in."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from asr_dni.errors import UserError
from asr_dni.model.annealing import Drawn, Schedule
from asr_dni.model.spotter import TrainingNoise
from asr_dni.noise import MVM_SITES, SIGMA, Arrays, Scale, Site, Strength

NONE = "none"
"""The hardware of conventional training."""

_NAMES_OF_DRAWN: dict[Drawn, str] = {"no": "fixed", "batch": "drawn", "sample": "drawn per sample"}


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
        sigma_infer: levels of the evaluation in this scale, where they are not those of the study, and the study has no
            hardware of its evaluation.
        hardware: none: conventional training, without levels; or any other hardware, see
            :class:`asr_dni.model.spotter.TrainingNoise`, as for the following ones; the levels are then values of
            ``strength``.
        strength: which of its numbers.
        chips: whether training programs weights anew for each ``step`` or ``epoch``, or once for the whole ``run``.
        drawn: in place of that of the schedules: whether the strength is as they have it (no), or drawn for each batch
            or sample from where they begin to there.

    Raises:
        UserError: the hardware is not valid, has no such strength, or stands beside scale, sites or arrays; or it is
            none, and has levels, a strength or chips.
    """

    scale: Scale = "absolute"
    sites: list[Site] = field(default_factory=lambda: list(MVM_SITES))
    arrays: Arrays = "joint"
    sigma_train: list[float] | None = None
    sigma_infer: list[float] | None = None
    hardware: dict[str, Any] | str | None = None
    strength: str = SIGMA.path
    chips: Literal["step", "epoch", "run"] = "step"
    drawn: Drawn | None = None

    def __post_init__(self) -> None:
        beside = {"sigma_train": bool(self.sigma_train), "drawn": self.drawn is not None}
        beside |= {"chips": self.chips != "step", "strength": self.strength != SIGMA.path}
        for key in (key for key, given in beside.items() if given and self.is_none):
            raise UserError(f"{key} is given beside hardware none, conventional training: leave it out")

    @property
    def is_none(self) -> bool:
        """Whether it is no noise at all, conventional training."""
        return self.hardware == NONE

    def training_noise(self) -> TrainingNoise:
        """Return the noise as a training has it.

        Raises:
            UserError: see above.
        """
        return TrainingNoise(
            self.scale,
            list(self.sites),
            self.arrays,
            hardware=None if self.is_none else self.hardware,
            strength=self.strength,
            chips=self.chips,
        )

    @property
    def word(self) -> str:
        """The scale, or in a word that it is another hardware."""
        if self.hardware is None:
            return self.scale
        if self.is_none:
            return "no noise"
        return self.hardware if isinstance(self.hardware, str) else "hardware of its own"

    def settings(self) -> dict[str, Any]:
        """Return what tells it from other kinds of noise, whatever the levels."""
        if self.hardware is None or self.is_none:
            return {"scale": self.scale, "sites": sorted(self.sites), "arrays": self.arrays}
        hardware, strength = self.training_noise().noise.hardware, Strength(self.strength)
        return {
            "hardware": hardware.settings_beside(strength),
            "strength": hardware.axis(strength).as_dict(),
            "chips": self.chips,
        }

    def schedules(self, schedules: Mapping[str, ScheduleSettings]) -> dict[str, ScheduleSettings]:
        """Return how its levels are reached, by name: a study's schedules, drawn as it says.

        Args:
            schedules: of the study.

        Raises:
            UserError: what :attr:`drawn` makes of a schedule has the name of another one.
        """
        named = {}
        for name, schedule in schedules.items():
            if self.drawn in (None, schedule.drawn):
                named[name] = schedule
                continue
            own = replace(schedule, drawn=self.drawn)
            title = f"{name} {_NAMES_OF_DRAWN[self.drawn or 'no']}"
            if schedules.get(title, own) != own:
                raise UserError(
                    f"drawn is {self.drawn}, which makes of schedule {name} another {title!r}: rename it"
                )
            named[title] = own
        return named
