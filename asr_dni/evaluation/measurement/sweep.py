"""What a noise curve is measured at: a hardware at several values of one of its strengths, chips and draws."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from asr_dni.bounds import at_most
from asr_dni.errors import UserError
from asr_dni.identity import compensation_settings, evaluation_settings
from asr_dni.noise import MVM_SITES, SIGMA, Noise, Site, Strength

_MOST_LEVELS = 1_000
_MOST_DRAWS = 10_000
_MOST_CHIPS = 1_000
_GAUSSIAN = Noise()


def check_sigmas(sigmas: Sequence[float]) -> tuple[float, ...]:
    """Return noise levels in ascending order.

    Raises:
        UserError: none is given, too many are, one is given twice, negative, or not finite.
    """
    levels = check_levels(sigmas, "sigmas")
    if levels[0] < 0:
        raise UserError(f"sigmas contains {levels[0]}: give finite numbers of at least 0")
    return levels


def check_levels(levels: Sequence[float], name: str = "strengths") -> tuple[float, ...]:
    """Return values of a strength in ascending order.

    Args:
        levels: the values.
        name: what a message calls them.

    Raises:
        UserError: none is given, too many are, one is given twice, or not finite.
    """
    ordered = sorted(map(float, levels))
    if not ordered:
        raise UserError(f"{name} is empty: give at least one level, such as [0, 1, 2]")
    at_most(f"the number of {name}", len(ordered), _MOST_LEVELS)
    wrong = [level for level in ordered if not math.isfinite(level)]
    if wrong:
        raise UserError(f"{name} contains {wrong[0]}: give finite numbers")
    twice = [first for first, second in pairwise(ordered) if first == second]
    if twice:
        raise UserError(f"{name} contains {twice[0]:g} twice: give every level once")
    return tuple(ordered)


def choose_levels(
    strength: Strength,
    sigmas: Sequence[float],
    strengths: Sequence[float] | None,
    names: tuple[str, str] = ("strength", "strengths"),
) -> tuple[float, ...]:
    """Return the levels that are meant: ``strengths``, else those of sigma, where that is the strength.

    Args:
        strength: the axis.
        sigmas: levels of sigma.
        strengths: levels of the strength; ``None``: not given.
        names: what messages call the settings of the strength and of its levels.

    Raises:
        UserError: there are none, or they are not valid.
    """
    if strengths is not None:
        return check_levels(strengths, names[1])
    if not strength.is_sigma:
        raise UserError(
            f"{names[0]} is {strength.path}, but there are no levels: give {names[1]}, a list of numbers"
        )
    return check_sigmas(sigmas)


def check_draws(draws: int, name: str = "draws") -> int:
    """Return the number of draws.

    Raises:
        UserError: it is not positive, or too large.
    """
    if draws < 1:
        raise UserError(f"{name} is {draws}: give at least 1")
    at_most(name, draws, _MOST_DRAWS)
    return draws


def check_votes(votes: Sequence[int], draws: int) -> tuple[int, ...]:
    """Return numbers of votes in ascending order.

    Raises:
        UserError: one is below 1, or larger than the number of draws; or there are none.
    """
    ordered = tuple(sorted(set(votes)))
    if not ordered or ordered[0] < 1:
        raise UserError(f"votes are {list(votes)}: give numbers of at least 1")
    if ordered[-1] > draws:
        raise UserError(f"{ordered[-1]} votes need as many draws, but draws is {draws}: give more draws")
    return ordered


def check_sites(
    sites: Sequence[Site], sigmas: Sequence[float], names: tuple[str, str] = ("sites", "sigmas [0]")
) -> None:
    """Check that a noise level above 0 has somewhere to enter.

    Args:
        sites: where the noise enters.
        sigmas: its levels.
        names: what a message calls the setting of the sites, and that of no noise.

    Raises:
        UserError: there are levels above 0, but no sites: every draw would be the same noiseless pass.
    """
    if not sites and any(sigma > 0 for sigma in sigmas):
        raise UserError(
            f"{names[0]} is empty, so there is no noise to measure at sigma {max(sigmas):g}: give some, such as"
            f" [{','.join(MVM_SITES)}], or {names[1]}"
        )


@dataclass(frozen=True)
class Level:
    """One value of the strength.

    Attributes:
        value: of the strength.
        noise: what there is at it, on the first chip.
        chips: how many chips differ there: one where all are the same.
        draws: how many passes over one chip differ there: one where all are the same.
    """

    value: float
    noise: Noise
    chips: int
    draws: int


@dataclass(frozen=True)
class Sweep:
    """A hardware at several values of one of its strengths, each on several chips and in several draws.

    Chips and draws are taken only where they make a difference: a level without any noise is one pass.

    Args:
        values: of the strength, in any order.
        draws: realisations of the noise per level and chip.
        noise: hardware and seed; the strength, ``chip``, ``draw`` and ``sample_ids`` are replaced.
        strength: which of the hardware's numbers is swept; a unit is found where none is given.
        chips: of one network, where weights differ from chip to chip.

    Attributes:
        levels: ascending.

    Raises:
        UserError: the hardware has no such strength or not one of its values, the same value is there twice, draws or
            chips are out of range, or there are chips but none differ.
    """

    values: Sequence[float]
    draws: int
    noise: Noise = _GAUSSIAN
    strength: Strength = SIGMA
    chips: int = 1
    levels: tuple[Level, ...] = field(init=False)

    def __post_init__(self) -> None:
        hardware = self.noise.hardware
        set_ = object.__setattr__
        if self.strength.is_sigma:
            set_(self, "values", check_sigmas(self.values))
        else:
            set_(self, "values", check_levels(self.values))
        check_draws(self.draws)
        if self.chips < 1:
            raise UserError(f"chips is {self.chips}: give at least 1")
        at_most("chips", self.chips, _MOST_CHIPS)
        check_sites(hardware.sites, self.values)
        set_(self, "strength", hardware.axis(self.strength))
        levels = []
        for value in self.values:
            noise = self.noise.at(value, self.strength)
            its = noise.hardware
            chips = self.chips if its.has_chips else 1
            levels.append(Level(value, noise, chips, self.draws if its.random else 1))
        if self.chips > 1 and all(level.chips == 1 for level in levels):
            raise UserError(
                f"chips is {self.chips}, but on this hardware all chips are the same: give 1, or a hardware whose"
                " weights differ from chip to chip"
            )
        set_(self, "levels", tuple(levels))

    @property
    def passes(self) -> list[tuple[float, int, int]]:
        """Value, chip and draw of every pass over the clips, in this order."""
        return [
            (level.value, chip, draw)
            for level in self.levels
            for chip in range(level.chips)
            for draw in range(level.draws)
        ]

    def settings(self) -> dict[str, Any]:
        """Return what a curve notes of it, as plain values."""
        noted = {
            **evaluation_settings(self.noise.hardware, self.strength),
            "noise_seed": self.noise.realisation.seed,
            "draws": self.draws,
        }
        if self.noise.compensation is not None:
            noted["compensation"] = compensation_settings(self.noise.compensation)
        return noted if self.chips == 1 else {**noted, "chips": self.chips}


def count_passes(
    levels: Sequence[float], draws: int, noise: Noise = _GAUSSIAN, strength: Strength = SIGMA, chips: int = 1
) -> int:
    """Return how many passes over one batch a curve takes: one where chips and draws are the same.

    Args:
        levels: values of the strength.
        draws: realisations of the noise per level and chip.
        noise: hardware.
        strength: which of its numbers is swept.
        chips: of one network.

    Raises:
        UserError: see :class:`Sweep`.
    """
    return len(Sweep(levels, draws, noise, strength, chips).passes)
