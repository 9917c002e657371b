"""The largest tolerable strength: how strong the noise may be until accuracy has lost so many points."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import NoiseCurve, summarise_curves
from asr_dni.evaluation.curves.interpolation import first_at_or_below
from asr_dni.evaluation.curves.intervals import FEWEST_SEEDS, counting_deviation, student_t_interval

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
    found = first_at_or_below(levels, -losses.mean(axis=0), -loss)
    low = high = math.nan
    if len(curves) >= FEWEST_SEEDS:
        least = math.sqrt(2) * counting_deviation(int(summary.frame["n_clips"].min()))
        bounds = np.array(
            [(0.0, 0.0), *(student_t_interval(one.tolist(), least_deviation=least) for one in losses.T[1:])]
        )
        low, high = (first_at_or_below(levels, -bounds[:, side], -loss) for side in (1, 0))
    return Tolerance(found, low, high, float(levels[-1]), loss, len(curves))
