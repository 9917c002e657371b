"""The largest tolerable strength: how strong the noise may be until accuracy has lost so many points.

Where more is better, as of a converter's bits, it is the least strength that is enough. Accuracy is taken to be linear
between measured levels; of times between their logarithms.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.axes import TIMES
from asr_dni.evaluation.curves.curve import NoiseCurve, summarise_curves
from asr_dni.evaluation.curves.intervals import FEWEST_SEEDS, counting_deviation, student_t_interval
from asr_dni.noise import Strength

Array: TypeAlias = npt.NDArray[np.float64]

_ROUNDING = 1e-12

TOLERATED_LOSS = 0.02
"""Accuracy that is given up where nothing else is said, a share of 1: two percentage points."""


@dataclass(frozen=True)
class Tolerance:
    """The largest strength at which accuracy stays within a distance of its value at strength 0.

    Attributes:
        strength: where mean accuracy has first fallen so far; inf where it never does at the measured levels.
        low: lower end of its 95 % interval over seeds; NaN where there are too few.
        high: upper end; inf where it is beyond the measured levels.
        highest: the highest level that was measured.
        loss: the distance, a share of 1.
        n_seeds: how many trainings it is of.
    """

    strength: float
    low: float
    high: float
    highest: float
    loss: float
    n_seeds: int

    def __str__(self) -> str:
        """Return "1.52 [1.40, 1.66]", "> 4" where it is beyond what was measured; no interval of too few seeds."""

        def text(value: float) -> str:
            return f"> {self.highest:g}" if math.isinf(value) else f"{value:.2f}"

        if math.isnan(self.low) or math.isinf(self.low):
            return text(self.strength)
        return f"{text(self.strength)} [{text(self.low)}, {text(self.high)}]"


def tolerable_strength(curves: Sequence[NoiseCurve], loss: float = TOLERATED_LOSS) -> Tolerance:
    """Return the largest strength at which accuracy stays within ``loss`` of its value at strength 0.

    Between measured levels accuracy is taken to be linear; of several crossings the first counts. The interval holds
    the strengths that a test would not reject: at its lower end the upper bound of the mean loss over seeds (Student,
    each training compared with itself at strength 0) has reached ``loss``, at its upper end the lower bound has. So it
    is defined where some trainings, or all, never lose so much.

    Args:
        curves: of one experiment, one per training seed, measured at the same levels.
        loss: in accuracy, a share of 1, above 0.

    Raises:
        UserError: curves that do not go together, strength 0 was not measured, or ``loss`` is not between 0 and 1.
    """
    if not 0 < loss < 1:
        raise UserError(
            f"loss is {loss:g}: give a share between 0 and 1, such as 0.02 for two percentage points"
        )
    summary = summarise_curves(curves)
    levels = summary.frame["strength"].to_numpy(dtype=float)
    if levels[0] != 0:
        word = summary.strength.word
        raise UserError(f"the tolerable strength needs the accuracy at {word} 0: measure {word} 0 as well")
    accuracy = np.stack([curve.summary().frame["accuracy"].to_numpy(dtype=float) for curve in curves])
    losses = accuracy[:, :1] - accuracy
    found = last_tolerable(levels, -losses.mean(axis=0), -loss)
    low = high = math.nan
    if len(curves) >= FEWEST_SEEDS:
        least = math.sqrt(2) * counting_deviation(int(summary.frame["n_clips"].min()))
        bounds = np.array(
            [(0.0, 0.0), *(student_t_interval(one.tolist(), least_deviation=least) for one in losses.T[1:])]
        )
        low, high = (last_tolerable(levels, -bounds[:, side], -loss) for side in (1, 0))
    return Tolerance(found, low, high, float(levels[-1]), loss, len(curves))


@dataclass(frozen=True)
class Tolerated:
    """How far a strength may go until accuracy is more than so much below clean.

    Attributes:
        value: the strength; NaN where no measured level is good enough, infinite where all are.
        text: the same in words.
    """

    value: float
    text: str


def tolerated_strength(curve: NoiseCurve, clean: float, loss: float, whole: bool = False) -> Tolerated:
    """Return the strength up to which accuracy, averaged over chips and draws, stays within ``loss`` of clean.

    For a strength that harms the more the larger it is, it is the largest one with all lower ones good enough, between
    measured levels by straight lines. Of a converter's bits, of which more are better, it is the least measured one
    with all higher ones good enough.

    Args:
        curve: over the strength.
        clean: accuracy without noise, a share of 1.
        loss: as a share of 1.
        whole: whether the strength takes whole numbers only.
    """
    means = curve.frame.groupby("strength")["accuracy"].mean()
    levels, accuracy = means.index.to_numpy(dtype=float), means.to_numpy(dtype=float)
    strength, name = curve.strength, curve.strength.symbol
    value = tolerable_value(strength, levels, accuracy, clean - loss, whole)
    within = f"within {100 * loss:g} points of clean"
    if more_is_better(strength):
        if math.isnan(value):
            return Tolerated(value, f"none of the measured {name}, up to {levels[-1]:g}, is enough: {within}")
        at_least = "at most " if value == levels[0] else ""
        return Tolerated(value, f"{at_least}{value:g} {name} are enough: {within}")
    if math.isinf(value):
        most = format_level(strength, levels[-1])
        return Tolerated(value, f"{name} of more than {most} is tolerable: {within}")
    if math.isnan(value):
        least_measured = format_level(strength, levels[0])
        return Tolerated(value, f"no measured {name}, from {least_measured} on, is tolerable: {within}")
    return Tolerated(value, f"{name} up to {format_level(strength, value)} is tolerable: {within}")


def more_is_better(strength: Strength) -> bool:
    """Return whether accuracy is the better the larger a strength is: of a converter's bits."""
    return strength.path.endswith(".bits")


def tolerable_value(
    strength: Strength, levels: Array, accuracy: Array, least: float, whole: bool = False
) -> float:
    """Return how far a strength may go with an accuracy of at least ``least``.

    Args:
        strength: what the levels are of.
        levels: ascending, N.
        accuracy: N.
        least: the accuracy.
        whole: whether only levels that were measured count.

    Returns:
        The largest strength with all lower ones good enough, infinite where all levels are; where more is better, the
        least measured one with all higher ones good enough. NaN where no level is.
    """
    if more_is_better(strength):
        fewer = last_tolerable(-levels[::-1], accuracy[::-1], least, whole=True)
        return float(levels[0]) if math.isinf(fewer) else -fewer
    value = last_tolerable(places_of(strength, levels), accuracy, least, whole)
    return 10**value if is_logarithmic(strength, levels) and math.isfinite(value) else value


def is_logarithmic(strength: Strength, levels: Array) -> bool:
    """Return whether levels are looked at by their logarithms: times that are above 0."""
    return strength.path.endswith(".time") and float(levels[0]) > 0


def places_of(strength: Strength, levels: Array) -> Array:
    """Return where levels are on the axis: times by their logarithm to base 10, all others as they are."""
    return np.log10(levels) if is_logarithmic(strength, levels) else levels


def format_level(strength: Strength, value: float) -> str:
    """Return a value of a strength with its unit; a time in the largest unit that it has at least one of."""
    if strength.path.endswith(".time") and value >= 1:
        name, seconds = [its for its in TIMES.items() if its[1] <= value * (1 + 1e-9)][-1]
        unit = name.removeprefix("1 ")
        number = f"{value / seconds:.3g}"
        plural = "s" if number != "1" and unit not in ("s", "min") else ""
        return f"{number} {unit}{plural}"
    return f"{value:.4g} {strength.unit}".strip()


def last_tolerable(levels: Array, accuracy: Array, least: float, whole: bool = False) -> float:
    """Return the largest strength with an accuracy of at least ``least`` there and at all lower ones.

    Args:
        levels: ascending, N.
        accuracy: N; linear between levels.
        least: the accuracy.
        whole: whether only levels that were measured count.

    Returns:
        Infinite where all levels are better, the last level where that is just good enough; NaN where the first is not,
        or an accuracy is missing.
    """
    if not np.isfinite(accuracy).all():
        return math.nan
    good = accuracy >= least - _ROUNDING
    if good.all():
        just_at_last = not whole and accuracy[-1] <= least + _ROUNDING
        return float(levels[-1]) if just_at_last else math.inf
    bad = int(np.argmin(good))
    if bad == 0:
        return math.nan
    if whole:
        return float(levels[bad - 1])
    share = (accuracy[bad - 1] - least) / (accuracy[bad - 1] - accuracy[bad])
    return float(levels[bad - 1] + max(0.0, share) * (levels[bad] - levels[bad - 1]))
