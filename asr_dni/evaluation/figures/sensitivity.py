"""Figures of what noise does at one part of a network at a time, and of what each part bears."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from asr_dni.evaluation.curves.curve_file import strength_of
from asr_dni.evaluation.figures.noise_curves import ACCURACY, strength_axis
from asr_dni.evaluation.figures.outcomes import describe_evaluation
from asr_dni.evaluation.questions.sensitivity import WHOLE
from asr_dni.plotting import Axis, Bars, Figure, Legend, Line, Panel, Style, curve_style
from asr_dni.plotting.style import GREY


def sensitivity_figure(sensitivity: pd.DataFrame, settings: Mapping[str, Any]) -> Figure:
    """Specify the picture of accuracy with noise at one part: layers at sites, and in a second panel their gates.

    Args:
        sensitivity: the table.
        settings: of it.
    """
    strength = strength_of(settings)
    axis = strength_axis(strength, sorted(sensitivity["strength"].unique()))
    whole = sensitivity["part"] == WHOLE
    panels: list[Panel] = []
    drawn = 0
    of_gates = sensitivity["gate"] != ""
    for chosen, title in ((~of_gates, "A layer at a site"), (of_gates, "A gate")):
        shown = sensitivity[chosen & ~whole]
        if shown.empty:
            continue
        lines = []
        for place, (part, rows) in enumerate([("everywhere", sensitivity[whole]), *shown.groupby("part")]):
            lines.append(
                Line(
                    rows["strength"].tolist(),
                    (100 * rows["accuracy"]).tolist(),
                    (100 * rows["low"]).tolist(),
                    (100 * rows["high"]).tolist(),
                    label=str(part),
                    style=curve_style(drawn + place - 1) if place else Style(GREY, "none", "dash", 1.8),
                )
            )
        drawn += len(lines) - 1
        panels.append(Panel(axis, ACCURACY, tuple(lines), title))
    note = (
        f"{describe_evaluation(settings)} per part; the noise is at this part only; bands: 95 % intervals over clips,"
        " draws included (Wilson)"
    )
    return Figure("Where noise hurts", tuple(panels), note, columns=2, panel_size=(5.2, 4.2), legend=Legend())


def budget_figure(budget: pd.DataFrame, settings: Mapping[str, Any]) -> Figure:
    """Specify the picture of how much noise each part bears alone, and together with all others.

    Args:
        budget: the table.
        settings: of it.
    """
    strength, names = strength_of(settings), budget["part"].tolist()[::-1]
    ordered = budget.iloc[::-1]
    bars = tuple(
        Bars(
            range(len(ordered)),
            ordered[column].tolist(),
            label=label,
            style=curve_style(place),
            horizontal=True,
        )
        for place, (column, label) in enumerate((("together", "all at once"), ("alone", "alone")))
    )
    loss, accuracy = 100 * settings["tolerated_loss"], 100 * settings["together_accuracy"]
    clean = 100 * settings["clean_accuracy"]
    gentlest = " even at the gentlest measured level" if settings.get("together_share", 1) is None else ""
    note = (
        f"{describe_evaluation(settings)}; within {loss:g} points of clean ({clean:.1f} %);"
        f" all layers at once, measured: {accuracy:.1f} %{gentlest}; gates alone only"
    )
    axis = strength_axis(strength)
    panel = Panel(axis, Axis(scale="category", categories=tuple(names)), bars)
    height = 1.6 + 0.42 * len(names)
    return Figure("How much noise each part bears", (panel,), note, panel_size=(8.4, height), legend=Legend())
