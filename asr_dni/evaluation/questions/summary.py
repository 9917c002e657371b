"""What an evaluation comes to: clean accuracy, midpoint, the strength that is tolerable, the worst chip, votes."""

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import NoiseCurve
from asr_dni.evaluation.curves.interpolation import weights_of_mean
from asr_dni.evaluation.curves.intervals import wilson_interval
from asr_dni.evaluation.curves.tolerance import format_level, is_logarithmic, places_of, tolerated_strength
from asr_dni.evaluation.questions.voting import votes_needed
from asr_dni.noise import Strength

Array: TypeAlias = npt.NDArray[np.float64]


def chip_accuracies(curve: NoiseCurve) -> pd.DataFrame:
    """Return the accuracy of each chip, averaged over draws: columns ``strength``, ``chip``, ``accuracy``."""
    means = curve.frame.groupby(["strength", "chip"])["accuracy"].mean()
    return means.reset_index()


def worst_chip(curve: NoiseCurve) -> int | None:
    """Return the chip with the lowest accuracy, averaged over those levels that differ by chip; ``None``: one chip."""
    chips = chip_accuracies(curve)
    several = chips.groupby("strength")["chip"].transform("size") > 1
    if not several.any():
        return None
    means = chips[several].groupby("chip")["accuracy"].mean()
    return int(means.index[int(np.argmin(means.to_numpy()))])


def _axis_of(strength: Strength, levels: Array) -> str:
    return f"the logarithm of {strength.symbol}" if is_logarithmic(strength, levels) else strength.symbol


def summary_table(
    curve: NoiseCurve, clean: float, loss: float, whole: bool = False, voting: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return what an evaluation comes to.

    Args:
        curve: what was measured.
        clean: accuracy without noise, a share of 1.
        loss: that is tolerated, as a share of 1.
        whole: see :func:`tolerated_strength`.
        voting: accuracy of votes, where it was measured.

    Returns:
        The table ``summary`` of :data:`~asr_dni.evaluation.questions.folder.TABLES`.
    """
    summary = curve.summary()
    levels, accuracy = (summary.frame[name].to_numpy(dtype=float) for name in ("strength", "accuracy"))
    n_clips = int(summary.frame["n_clips"].max())
    rows: list[tuple[str, float, float, float, str]] = [
        (
            "clean_accuracy",
            clean,
            *wilson_interval(clean, n_clips),
            "without noise; interval over clips (Wilson)",
        )
    ]
    if len(levels) > 1:
        weights = weights_of_mean(places_of(curve.strength, levels))
        rows.append(
            (
                "area",
                float(weights @ accuracy),
                math.nan,
                math.nan,
                f"accuracy averaged over {_axis_of(curve.strength, levels)} from"
                f" {format_level(curve.strength, levels[0])} to {format_level(curve.strength, levels[-1])}",
            )
        )
    try:
        midpoint = summary.midpoint()
        text = f"{curve.strength.symbol} at which accuracy is half-way from its value at 0 to chance"
        rows.append(("midpoint", math.inf if midpoint is None else midpoint, math.nan, math.nan, text))
    except UserError:  # no level 0, or no better than chance there
        pass
    tolerated = tolerated_strength(curve, clean, loss, whole)
    rows.append(("tolerable_strength", tolerated.value, math.nan, math.nan, tolerated.text))
    worst = worst_chip(curve)
    if worst is not None:
        chips = chip_accuracies(curve)
        last = chips[(chips["chip"] == worst) & (chips["strength"] == levels[-1])]["accuracy"]
        value = float(last.iloc[0]) if len(last) else math.nan
        rows.append(
            (
                "worst_chip_accuracy",
                value,
                math.nan,
                math.nan,
                f"chip {worst}, the worst over all levels, at {curve.strength.symbol}"
                f" {format_level(curve.strength, levels[-1])}",
            )
        )
    for level in levels if voting is not None else ():
        assert voting is not None
        alone = votes_needed(voting, clean - loss, float(level))
        most = int(voting["votes"].max())
        rows.append(
            (
                f"votes_needed@{level:g}",
                math.nan if alone is None else alone,
                math.nan,
                math.nan,
                f"votes (mean posterior) within {100 * loss:g} points of clean at {curve.strength.symbol} {level:g}"
                + (f": none of up to {most}" if alone is None else ""),
            )
        )
    for name, factor in curve.settings.get("learned_bounds", {}).items():
        text = "learned bound of a converter, in multiples of the calibrated one"
        rows.append((f"learned_bound@{name}", factor, math.nan, math.nan, text))
    return pd.DataFrame(rows, columns=["quantity", "value", "low", "high", "text"])
