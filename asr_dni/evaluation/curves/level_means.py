"""A curve's means over chips and draws, a value per strength, with the intervals of each kind: on plain arrays."""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from asr_dni.evaluation.curves.curve_file import level_starts
from asr_dni.evaluation.curves.intervals import student_t_intervals, wilson_intervals

Values: TypeAlias = npt.NDArray[np.float64]
Columns: TypeAlias = Mapping[str, Values]
"""Arrays of one length, by name."""

MEASURED = (
    "strength",
    "snr_db",
    "accuracy",
    "clips_low",
    "clips_high",
    "draws_low",
    "draws_high",
    "chips_low",
    "chips_high",
    "loss",
    "n_draws",
    "n_chips",
    "n_clips",
)
"""Columns of :func:`level_means`."""


def level_means(table: Columns, owner: npt.NDArray[np.intp] | None = None) -> dict[str, Values]:
    """Return means and intervals per strength, ascending.

    Args:
        table: the columns of a curve, see :class:`asr_dni.evaluation.NoiseCurve`, in ascending order of strength,
            chip and draw; or those of several curves, one after the other.
        owner: of several, which curve each row is of, ascending.

    Returns:
        :data:`MEASURED`: of ``clips_low`` to ``clips_high`` see
        :func:`~asr_dni.evaluation.curves.intervals.wilson_interval`; ``draws_low`` to ``draws_high`` is over the means
        of draws, ``chips_low`` to ``chips_high`` over those of chips. These two have no width without noise, and at a
        strength that has one draw, or chip, where another has more: there all would be the same.
    """
    owner = np.zeros(len(table["strength"]), dtype=np.intp) if owner is None else owner
    starts = level_starts(table["strength"], owner)
    counts = np.diff(starts, append=len(owner))
    found = {name: table[name][starts] for name in ("strength", "snr_db", "n_clips")}
    found |= {name: np.add.reduceat(table[name], starts) / counts for name in ("accuracy", "loss")}
    found["clips_low"], found["clips_high"] = wilson_intervals(found["accuracy"], found["n_clips"])
    level = np.repeat(np.arange(len(starts)), counts)
    for name in ("draw", "chip"):
        most = np.zeros(int(owner[-1]) + 1)
        np.maximum.at(most, owner, table[name])
        bounds = _over(
            table[name], table["accuracy"], level, most[owner[starts]] > 0, np.isinf(found["snr_db"])
        )
        found |= dict(zip((f"{name}s_low", f"{name}s_high", f"n_{name}s"), bounds, strict=True))
    return {name: found[name] for name in MEASURED}


def _over(
    repetition: Values,
    accuracy: Values,
    level: npt.NDArray[np.intp],
    several: npt.NDArray[np.bool_],
    quiet: npt.NDArray[np.bool_],
) -> tuple[Values, Values, Values]:
    """Return the intervals over the means of each draw, or chip, and how many of them each strength has.

    Args:
        repetition: draw, or chip, of each row.
        accuracy: of each row.
        level: number of the strength that each row is of.
        several: for each strength whether any of its curve has several repetitions.
        quiet: for each strength whether it is without noise.
    """
    # A mean for each strength and repetition, in the order of both.
    width = int(repetition.max()) + 1
    _, which, times = np.unique(
        level * width + repetition.astype(np.intp), return_inverse=True, return_counts=True
    )
    means = np.bincount(which, accuracy) / times
    owners = np.zeros(len(times), dtype=np.intp)
    owners[which] = level
    numbers = np.bincount(owners, minlength=len(quiet))
    begins = np.concatenate([[0], np.cumsum(numbers)[:-1]])
    low, high = np.full(len(quiet), np.nan), np.full(len(quiet), np.nan)
    for size in np.unique(numbers).tolist():
        levels = np.flatnonzero(numbers == size)
        values = means[begins[levels][:, None] + np.arange(size)]
        bounds = student_t_intervals(values)
        alike = quiet[levels] | ((size == 1) & several[levels])
        low[levels] = np.where(alike, values[:, 0], bounds[0].clip(0, 1))
        high[levels] = np.where(alike, values[:, 0], bounds[1].clip(0, 1))
    return low, high, numbers.astype(float)
