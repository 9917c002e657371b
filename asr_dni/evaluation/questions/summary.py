"""What an evaluation comes to: clean accuracy, midpoint, the strength that is tolerable, the worst chip, votes."""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.axes import TIMES
from asr_dni.evaluation.curves.curve import NoiseCurve
from asr_dni.evaluation.curves.interpolation import weights_of_mean
from asr_dni.evaluation.curves.intervals import wilson_interval
from asr_dni.evaluation.questions.voting import votes_needed
from asr_dni.noise import Strength

Array: TypeAlias = npt.NDArray[np.float64]

_ROUNDING = 1e-12


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
    least = clean - loss
    good = accuracy >= least - _ROUNDING
    name = curve.strength.symbol
    within = f"within {100 * loss:g} points of clean"
    if curve.strength.path.endswith(".bits"):
        enough = len(good) - int(np.argmin(good[::-1])) if not good.all() else 0
        if enough == len(good):
            return Tolerated(
                math.nan, f"none of the measured {name}, up to {levels[-1]:g}, is enough: {within}"
            )
        at_least = "at most " if enough == 0 else ""
        return Tolerated(levels[enough], f"{at_least}{levels[enough]:g} {name} are enough: {within}")
    value = last_tolerable(places_of(curve.strength, levels), accuracy, least, whole)
    if _is_log(curve.strength, levels) and math.isfinite(value):
        value = 10**value
    if math.isinf(value):
        most = format_level(curve.strength, levels[-1])
        return Tolerated(value, f"{name} of more than {most} is tolerable: {within}")
    if math.isnan(value):
        least_measured = format_level(curve.strength, levels[0])
        return Tolerated(value, f"no measured {name}, from {least_measured} on, is tolerable: {within}")
    return Tolerated(value, f"{name} up to {format_level(curve.strength, value)} is tolerable: {within}")


def _is_log(strength: Strength, levels: Array) -> bool:
    return strength.path.endswith(".time") and float(levels[0]) > 0


def places_of(strength: Strength, levels: Array) -> Array:
    """Return where levels are on the axis: times by their logarithm to base 10, all others as they are."""
    return np.log10(levels) if _is_log(strength, levels) else levels


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
        Infinite where all levels are good enough, NaN where the first is not.
    """
    good = accuracy >= least - _ROUNDING
    if good.all():
        return math.inf
    bad = int(np.argmin(good))
    if bad == 0:
        return math.nan
    if whole:
        return float(levels[bad - 1])
    share = (accuracy[bad - 1] - least) / (accuracy[bad - 1] - accuracy[bad])
    return float(levels[bad - 1] + max(0.0, share) * (levels[bad] - levels[bad - 1]))


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
    return f"the logarithm of {strength.symbol}" if _is_log(strength, levels) else strength.symbol


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
