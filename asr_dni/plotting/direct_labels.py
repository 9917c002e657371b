"""Labels at the ends of few lines in place of a legend: where they stand, so that none hides another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from asr_dni.plotting.specification import Figure, Line, Panel, Reference, Series

MOST_LINES = 5
_LONGEST = 32  # letters
_MARGIN = 0.05  # of the range, above and below what is drawn


@dataclass(frozen=True)
class DirectLabel:
    """A label at the end of a line.

    Attributes:
        line: whose label it is.
        y: where it stands, on the vertical axis.
    """

    line: Line
    y: float


def labelled_lines(figure: Figure) -> tuple[Line, ...]:
    """Return the lines of a figure that can have their labels at their ends; none where a legend is better.

    That is for at most :data:`MOST_LINES` lines in one panel, which end at one place of the horizontal axis, on a
    linear vertical one, with short labels.
    """
    if len(figure.panels) > 1 or figure.legend is None or figure.legend.title:
        return ()
    panel = figure.panels[0]
    series = [one for one in panel.elements if isinstance(one, Series) and one.label]
    lines = [one for one in series if isinstance(one, Line) and one.x and math.isfinite(one.y[-1])]
    ends = {one.x[-1] for one in lines}
    right = max((x for one in series for x in one.x), default=math.nan)
    fits = (
        1 < len(lines) <= MOST_LINES
        and len(lines) == len(series) == len(figure.legend_entries())
        and ends == {right}
        and panel.y.scale == "linear"
        and all(len(one.label) <= _LONGEST and "\n" not in one.label for one in lines)
    )
    return tuple(lines) if fits else ()


def vertical_range(panel: Panel) -> tuple[float, float]:
    """Return the ends of a linear vertical axis: its limits, or what shows all with a margin."""
    if panel.y.all_limits is not None:
        return panel.y.all_limits
    values = [
        value for one in panel.elements if isinstance(one, Series) for value in (*one.y, *one.low, *one.high)
    ]
    values += [one.value for one in panel.elements if isinstance(one, Reference) and one.axis == "y"]
    there = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    margin = _MARGIN * (max(there) - min(there)) or 0.5
    return min(there) - margin, max(there) + margin


def place_labels(
    lines: Sequence[Line], limits: tuple[float, float], height: float
) -> tuple[DirectLabel, ...]:
    """Return where labels stand: as near to the ends of their lines as there is room for each.

    Args:
        lines: see :func:`labelled_lines`.
        limits: ends of the vertical axis.
        height: of a label, as a share of the axis.
    """
    # scipy takes long to import, and most figures need none of it.
    from scipy.optimize import isotonic_regression

    low, high = limits
    least = height * (high - low)
    ordered = sorted(lines, key=lambda line: line.y[-1])
    # Least squares under distances of at least one label; shifted by them, only the order has to be kept.
    shifts = [place * least for place in range(len(ordered))]
    ends = [line.y[-1] - shift for line, shift in zip(ordered, shifts, strict=True)]
    top = max(high - least / 2 - shifts[-1], low + least / 2)
    kept = [min(max(float(value), low + least / 2), top) for value in isotonic_regression(ends).x]
    placed = {
        line.label: DirectLabel(line, value + shift)
        for line, value, shift in zip(ordered, kept, shifts, strict=True)
    }
    return tuple(placed[line.label] for line in lines)
