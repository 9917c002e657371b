"""A curve's means over chips and draws, a value per strength, with the intervals of each kind: on plain arrays."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from asr_dni.evaluation.intervals import student_t_intervals, wilson_intervals

Columns = Mapping[str, npt.NDArray[np.float64]]
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


def level_means(table: Columns) -> dict[str, npt.NDArray[np.float64]]:
    """Return means and intervals per strength, ascending.

    Args:
        table: the columns of a curve, see :class:`asr_dni.evaluation.curve.NoiseCurve`, in ascending order of strength,
            chip and draw.

    Returns:
        :data:`MEASURED`: of ``clips_low`` to ``clips_high`` see
        :func:`~asr_dni.evaluation.intervals.wilson_interval`; ``draws_low`` to ``draws_high`` is over the means of
        draws, ``chips_low`` to ``chips_high`` over those of chips. These two have no width without noise, and at a
        strength that has one draw, or chip, where another has more: there all would be the same.
    """
    starts = np.flatnonzero(np.diff(table["strength"], prepend=np.nan) != 0)
    counts = np.diff(starts, append=len(table["strength"]))
    quiet = np.isinf(table["snr_db"][starts])
    means = {name: np.add.reduceat(table[name], starts) / counts for name in ("accuracy", "loss")}
    found = {
        "strength": table["strength"][starts],
        "snr_db": table["snr_db"][starts],
        **means,
        "n_clips": table["n_clips"][starts],
    }
    found["clips_low"], found["clips_high"] = wilson_intervals(found["accuracy"], found["n_clips"])
    for name in ("draw", "chip"):
        low, high, number = _over(name, table, starts, counts, quiet)
        found |= {f"{name}s_low": low, f"{name}s_high": high, f"n_{name}s": number}
    return {name: found[name] for name in MEASURED}


def _over(
    name: str,
    table: Columns,
    starts: npt.NDArray[np.intp],
    counts: npt.NDArray[np.intp],
    quiet: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.float64], ...]:
    """Return the intervals over the means of each draw, or chip, and how many of them each strength has."""
    most = int(table[name].max()) + 1
    low, high, numbers = (np.full(len(starts), np.nan) for _ in range(3))
    sizes: dict[int, list[int]] = {}
    repetitions = []
    for level, (start, count) in enumerate(zip(starts.tolist(), counts.tolist(), strict=True)):
        which = table[name][start : start + count].astype(np.intp)
        sums = np.bincount(which, table["accuracy"][start : start + count])
        times = np.bincount(which)
        there = times > 0
        repetitions.append(sums[there] / times[there])
        sizes.setdefault(len(repetitions[-1]), []).append(level)
    for size, levels in sizes.items():
        values = np.stack([repetitions[level] for level in levels])
        bounds = student_t_intervals(values)
        alike = quiet[levels] | ((size == 1) & (most > 1))
        low[levels] = np.where(alike, values[:, 0], bounds[0].clip(0, 1))
        high[levels] = np.where(alike, values[:, 0], bounds[1].clip(0, 1))
        numbers[levels] = size
    return low, high, numbers
