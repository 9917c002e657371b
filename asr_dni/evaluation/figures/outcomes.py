"""Figures of an evaluation's tables: chips, classes, calibration, votes, clips."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import NoiseCurve
from asr_dni.evaluation.curves.curve_file import strength_of
from asr_dni.evaluation.curves.description import describe_settings
from asr_dni.evaluation.figures.noise_curves import ACCURACY, chance_line, strength_axis
from asr_dni.evaluation.questions.classes import accuracy_by_class, confusion_matrix
from asr_dni.evaluation.questions.clips import breaking_points
from asr_dni.evaluation.questions.summary import chip_accuracies, worst_chip
from asr_dni.noise import Strength
from asr_dni.plotting import (
    Axis,
    Bars,
    CellText,
    ColorScale,
    Figure,
    HeatMap,
    Legend,
    Line,
    Panel,
    Reference,
    Style,
    curve_style,
)
from asr_dni.plotting.style import GREY, VIRIDIS, ordered_colors

_WORST = Style("#d55e00", "square", "solid", 1.8)
_CHIP = Style("#b8b8b8", "none", "solid", 0.9)
_CLOSE = 60.0
_MOST_LINES = 9
_MOST_CLIPS = 24
_SHARES = ColorScale(VIRIDIS, (0.0, 100.0), "% of the clips of a word")


def chips_figure(curve: NoiseCurve) -> Figure:
    """Specify the picture of a curve on several chips: their mean with its interval over chips, each, and the worst.

    Raises:
        UserError: there is one chip.
    """
    worst, summary = worst_chip(curve), curve.summary("chips")
    if worst is None:
        raise UserError("the curve is of one chip: there are no others to compare it with")
    chips, mean = chip_accuracies(curve), summary.frame
    elements: list[Line | Reference] = []
    for chip, group in chips.groupby("chip"):
        if chip != worst:
            label = "" if elements else "one chip each"
            elements.append(
                Line(group["strength"].tolist(), (100 * group["accuracy"]).tolist(), label=label, style=_CHIP)
            )
    own = chips[chips["chip"] == worst]
    elements.append(
        Line(
            own["strength"].tolist(),
            (100 * own["accuracy"]).tolist(),
            label=f"the worst, chip {worst}",
            style=_WORST,
        )
    )
    percent = {name: (100 * mean[name]).tolist() for name in ("accuracy", "low", "high")}
    elements.append(
        Line(
            mean["strength"].tolist(),
            percent["accuracy"],
            percent["low"],
            percent["high"],
            label="mean over chips",
            style=curve_style(0),
        )
    )
    lowest = 100 * float(min(chips["accuracy"].min(), mean["low"].min()))
    # Chips that hardly differ are looked at closely.
    near = lowest > _CLOSE
    if summary.chance is not None and not near:
        elements.append(chance_line(summary.chance))
    accuracy = replace(ACCURACY, limits=(5 * math.floor(lowest / 5 - 0.2), 100.3)) if near else ACCURACY
    note = f"{describe_settings({'': summary})}; band: {summary.interval}"
    axis = strength_axis(curve.strength, curve.levels)
    return Figure("Accuracy of each chip", (Panel(axis, accuracy, tuple(elements)),), note, legend=Legend())


def voting_figure(voting: pd.DataFrame, settings: Mapping[str, Any]) -> Figure:
    """Specify the picture of accuracy over the number of votes, by strength, for both rules.

    Args:
        voting: the table.
        settings: of the evaluation.
    """
    strength = strength_of(settings)
    names = {"mean": "mean posterior", "majority": "majority"}
    numbers = [str(number) for number in sorted(voting["votes"].unique())]
    levels = _some(sorted(voting["strength"].unique()), _MOST_LINES)
    panels = []
    for rule, name in names.items():
        lines = []
        for color, level in zip(ordered_colors(len(levels)), levels, strict=True):
            rows = voting[(voting["strength"] == level) & (voting["rule"] == rule)].sort_values("votes")
            lines.append(
                Line(
                    range(len(rows)),
                    (100 * rows["accuracy"]).tolist(),
                    (100 * rows["low"]).tolist(),
                    (100 * rows["high"]).tolist(),
                    label=f"{level:g}",
                    style=Style(color, "circle", "solid", 1.8, 4.0),
                )
            )
        x = Axis("inferences that vote", scale="category", categories=tuple(numbers))
        panels.append(Panel(x, ACCURACY, tuple(lines), name))
    return Figure(
        "Votes of several noisy inferences",
        tuple(panels),
        f"{describe_evaluation(settings)}; bands: 95 % intervals over clips, draws included (Wilson)",
        columns=2,
        panel_size=(5.2, 4.2),
        legend=Legend(_symbol(strength)),
    )


def calibration_figure(
    calibration: pd.DataFrame,
    reliability: pd.DataFrame | None,
    settings: Mapping[str, Any],
) -> Figure:
    """Specify the picture of calibration errors over the strength, and of accuracy over confidence.

    Args:
        calibration: the table; the mean over chips is shown.
        reliability: the table, for the second panel; ``None``: there is none.
        settings: of the evaluation, ``bins`` among them.
    """
    strength = strength_of(settings)
    means = calibration.groupby("strength", as_index=False).mean(numeric_only=True)
    levels = means["strength"].tolist()
    errors = tuple(
        Line(levels, (100 * means[column]).tolist(), label=label, style=curve_style(place))
        for place, (column, label) in enumerate(
            (("ece", "as it is"), ("ece_scaled", "with a temperature, from other clips"))
        )
    )
    panels = [
        Panel(strength_axis(strength, levels), Axis("expected calibration error", "%"), errors, "Error")
    ]
    if reliability is not None:
        shown = _some(levels, 5)
        # Bins of few decisions say nothing.
        enough = reliability[
            reliability["count"] >= 0.002 * reliability.groupby("strength")["count"].transform("sum")
        ]
        lines = [
            Line([0.0, 100.0], [0.0, 100.0], label="calibrated", style=Style(GREY, "none", "dot", 1.2)),
            *(
                Line(
                    (100 * rows["confidence"]).tolist(),
                    (100 * rows["accuracy"]).tolist(),
                    label=f"{_symbol(strength)} {level:g}",
                    style=Style(color, "circle", "solid", 1.6, 4.0),
                )
                for color, level in zip(ordered_colors(len(shown)), shown, strict=True)
                for rows in [enough[enough["strength"] == level].sort_values("low")]
            ),
        ]
        panels.append(
            Panel(
                Axis("confidence", "%", limits=(0, 101.5)),
                ACCURACY,
                tuple(lines),
                "Accuracy of decisions by their confidence",
            )
        )
    pooled = "mean over chips, draws pooled" if (settings.get("chips") or 1) > 1 else "draws pooled"
    binned = f"{settings.get('bins', '')} bins of equal width, {pooled}"
    note = f"{describe_evaluation(settings)}; {binned}"
    return Figure(
        "Confidence under noise", tuple(panels), note, columns=2, panel_size=(5.2, 4.2), legend=Legend()
    )


def classes_figure(classes: pd.DataFrame, settings: Mapping[str, Any]) -> Figure:
    """Specify the picture of the accuracy on each label's clips over the strength.

    Args:
        classes: the table of confusion counts.
        settings: of the evaluation.
    """
    by_class, strength = accuracy_by_class(classes), strength_of(settings)
    names = [name for name in _labels(classes, settings) if name in set(by_class["label"])]
    lines = []
    for place, name in enumerate(names):
        rows = by_class[by_class["label"] == name]
        lines.append(
            Line(
                rows["strength"].tolist(),
                (100 * rows["accuracy"]).tolist(),
                label=name,
                style=curve_style(place),
            )
        )
    axis = strength_axis(strength, sorted(by_class["strength"].unique()))
    return Figure(
        "Accuracy by class",
        (Panel(axis, ACCURACY, tuple(lines)),),
        f"{describe_evaluation(settings)}; means over {_passes(settings)}",
        legend=Legend(),
    )


def confusion_figure(
    classes: pd.DataFrame, settings: Mapping[str, Any], strengths: Sequence[float] | None = None
) -> Figure:
    """Specify the picture of what clips of each label are taken for.

    Args:
        classes: the table of confusion counts.
        settings: of the evaluation.
        strengths: a panel each; ``None``: the lowest and the highest that was measured.

    Raises:
        UserError: a strength was not measured.
    """
    measured, strength = sorted(classes["strength"].unique()), strength_of(settings)
    shown = [measured[0], measured[-1]][: len(measured)] if strengths is None else list(strengths)
    unknown = [level for level in shown if level not in measured]
    if unknown:
        known = ", ".join(f"{level:g}" for level in measured)
        raise UserError(f"{strength.word} {unknown[0]:g} was not measured: give one of {known}")
    names = _labels(classes, settings)
    panels = []
    for level in shown:
        shares = 100 * confusion_matrix(classes, level, names).to_numpy()
        text = (
            [
                [
                    CellText("" if share < 0.5 else f"{share:.0f}", bold=row == column)
                    for column, share in enumerate(line)
                ]
                for row, line in enumerate(shares)
            ]
            if len(names) <= 16
            else ()
        )
        panels.append(
            Panel(
                Axis("taken for", scale="category", categories=tuple(names)),
                Axis("word", scale="category", categories=tuple(names)),
                (HeatMap(shares.tolist(), _SHARES, text),),
                f"{_symbol(strength)} {level:g}{' ' + strength.unit if strength.unit else ''}",
            )
        )
    return Figure(
        "What words are taken for",
        tuple(panels),
        describe_evaluation(settings),
        columns=2,
        panel_size=(5.4, 4.8),
    )


def clips_figure(clips: pd.DataFrame, settings: Mapping[str, Any]) -> Figure:
    """Specify the picture of how many clips break at which strength, and of the most fragile ones.

    Args:
        clips: the table.
        settings: of the evaluation.
    """
    strength, broken = strength_of(settings), breaking_points(clips)
    levels = sorted(clips["strength"].unique())
    counts = [int((broken["breaks_at"] == level).sum()) for level in levels]
    texts = tuple(f"{level:g}" for level in levels)
    bars = Bars(range(len(levels)), [100 * count / len(broken) for count in counts], style=curve_style(2))
    never = len(broken) - sum(counts)
    axis = Axis(_symbol(strength), strength.unit, scale="category", categories=texts)
    first = Panel(
        axis, Axis("clips that break there", "%"), (bars,), f"{never} of {len(broken)} clips never do"
    )
    # Those that are wrong from the beginning were not broken by noise.
    fragile = broken[broken["breaks_at"] > levels[0]].head(_MOST_CLIPS).iloc[::-1]
    if fragile.empty:
        second = Panel(title="The most fragile clips", message="no clip that was right at first breaks")
    else:
        wide = clips.pivot_table(index="clip", columns="strength", values="correct_share")
        shares = 100 * wide.loc[fragile["clip"], levels].to_numpy()
        names = tuple(
            path if said == label else f"{path} → {said}"
            for path, label, said in zip(
                *(fragile[column] for column in ("path", "label", "predicted")), strict=True
            )
        )
        colors = ColorScale(VIRIDIS, (0.0, 100.0), "% of the passes that are right")
        second = Panel(
            axis,
            Axis(scale="category", categories=names),
            (HeatMap(shares.tolist(), colors),),
            "The most fragile clips that were right at first, and what they are taken for",
        )
    breaks = "a clip breaks at the first strength at which it is right in under half of the passes"
    note = f"{describe_evaluation(settings)}; {breaks}"
    return Figure("Which clips break first", (first, second), note, columns=1, panel_size=(8.6, 4.4))


def _some(levels: Sequence[float], most: int) -> list[float]:
    """Return at most so many levels, the first and the last among them."""
    if len(levels) <= most:
        return [float(level) for level in levels]
    places = np.linspace(0, len(levels) - 1, most).round().astype(int)
    return [float(levels[place]) for place in places]


def _symbol(strength: Strength) -> str:
    return strength.symbol


def _passes(settings: Mapping[str, Any]) -> str:
    return "chips and draws" if (settings.get("chips") or 1) > 1 else "draws"


def _labels(classes: pd.DataFrame, settings: Mapping[str, Any]) -> list[str]:
    noted = settings.get("label_names")
    return list(noted) if noted else sorted({*classes["label"], *classes["predicted"]})


def describe_evaluation(settings: Mapping[str, Any]) -> str:
    """Return which network was evaluated on what."""
    parts = [str(settings[key]) for key in ("data", "protocol") if settings.get(key)]
    parts = [" · ".join(dict.fromkeys(parts))] if parts else []
    parts += [f"hardware {settings['hardware_name']}"] if settings.get("hardware_name") else []
    chips, draws = settings.get("chips", 1), settings.get("draws")
    parts += [f"{chips} chips"] if chips and chips > 1 else []
    parts += [f"{draws} draws"] if draws and not math.isnan(draws) else []
    return "; ".join(parts)
