"""What the page of curves draws: specifications, and the numbers that they show."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from asr_dni.dashboard.groups import Group, Groups
from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import CurveSummary, NoiseCurve, summarise_curves
from asr_dni.evaluation.curves.differences import differences
from asr_dni.evaluation.curves.experiments import order_of_experiment
from asr_dni.evaluation.curves.tolerance import tolerable_strength
from asr_dni.evaluation.figures.differences import differences_figure
from asr_dni.evaluation.figures.noise_curves import noise_curves_figure
from asr_dni.evaluation.figures.snr import snr_figure
from asr_dni.noise import Strength
from asr_dni.plotting import Figure, Panel, Reference

SNR = "snr"
"""The axis of the SNR, in place of a strength."""

MOST_DRAWN = 28
"""Curves whose looks differ."""


@dataclass(frozen=True)
class Drawn:
    """A curve in the figure.

    Attributes:
        group: of which runs.
        label: in the figure.
        curves: of the runs.
        summary: of all of them.
    """

    group: Group
    label: str
    curves: list[NoiseCurve]
    summary: CurveSummary

    def tolerance(self, loss: float) -> str:
        """Return the largest tolerable strength with its interval, as people read it."""
        try:
            return str(tolerable_strength(self.curves, loss))
        except UserError:
            return "–"


def read_drawn(groups: Groups, chosen: list[Group], strength: Strength | None) -> list[Drawn]:
    """Return the curves of groups in the order of their training noise; those that cannot be read are left out."""
    found = []
    for group in chosen:
        curves = groups.curves(group, strength)
        if curves:
            found.append(Drawn(group, group.label, curves, summarise_curves(curves)))
    return sorted(found, key=lambda drawn: order_of_experiment(drawn.summary.settings))


def specify(drawn: list[Drawn], over_snr: bool, baseline: str | None) -> Figure:
    """Specify the figure of curves.

    Args:
        drawn: at least one.
        over_snr: whether the axis is the SNR.
        baseline: key of the group to which differences are shown; ``None``: accuracies are.

    Raises:
        UserError: they can't share an axis, or there is nothing to compare with the baseline.
    """
    summaries = {one.label: one.summary for one in drawn}
    base = next((one for one in drawn if one.group.key == baseline), None)
    if base is not None:
        return differences_figure(differences({one.label: one.curves for one in drawn}, base.label))
    return snr_figure(summaries) if over_snr else _with_clean(noise_curves_figure(summaries), summaries)


def _with_clean(figure: Figure, summaries: Mapping[str, CurveSummary]) -> Figure:
    """Mark where there was no noise."""
    quiet = {
        float(row["strength"])
        for summary in summaries.values()
        for row in summary.frame.to_dict("records")
        if math.isinf(row["snr_db"]) or (row["strength"] == 0 and summary.strength.is_sigma)
    }
    if len(quiet) != 1:
        return figure
    (panel,) = figure.panels
    mark = Reference(quiet.pop(), "clean", axis="x")
    return replace(figure, panels=(replace(panel, elements=(*panel.elements, mark)),))


def message_figure(text: str) -> Figure:
    """Return a figure that only says something."""
    return Figure("", (Panel(message=text),))


def number_text(value: Any, beyond: Any = None) -> str:
    """Return a measure as a table has it: "> 4" where it is beyond what was measured, "–" where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"> {beyond:g}" if math.isinf(value) else f"{value:.2f}"
