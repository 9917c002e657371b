"""What all figures of a study share: title, small print, names of panels, the axis of the noise's strength."""

from collections.abc import Sequence

import numpy as np

from asr_dni.errors import UserError
from asr_dni.plotting import Axis, Figure, Legend, Panel
from asr_dni.study.hypothesis_tests import TOO_FEW_SEEDS
from asr_dni.study.matrix import Matrix
from asr_dni.study.matrix_words import describe_key, describe_shared, varying_keys

INTERVAL = "95 % interval over seeds"
COLUMNS = 3
"""Panels side by side."""


def train_axis(matrix: Matrix) -> Axis:
    """Return the axis of the noise in training."""
    strength = matrix.train_strength
    if strength is None:
        return Axis("training noise σ_train")
    title = f"training noise {matrix.train_symbol}" if strength.is_sigma else matrix.train_symbol
    return Axis(title, strength.measured_in)


def make_figure(
    what: str,
    matrices: Sequence[Matrix],
    panels: Sequence[Panel],
    size: tuple[float, float],
    note: str,
    *,
    columns: int = COLUMNS,
    legend: Legend | None = None,
    of_all_cells: bool = False,
) -> Figure:
    """Return a figure whose title and small print say what it is of, and the settings that it came from.

    Args:
        what: what it shows.
        matrices: that it was made of.
        panels: see :class:`~asr_dni.plotting.Figure`, as are those that follow.
        size: of a panel.
        note: what else the small print says.
        columns: of panels.
        legend: if it has one.
        of_all_cells: whether the title names no cell.
    """
    names = ["schedule"] if of_all_cells else ["cell", "schedule"]
    line = f"{describe_shared(matrices)}; {note}"
    return Figure(
        f"{what}: {describe_key(matrices[0].key, names)}",
        tuple(panels),
        line[:1].upper() + line[1:],
        columns,
        size,
        legend,
    )


def panel_titles(matrices: Sequence[Matrix]) -> list[str]:
    """Return the names of the panels, one per matrix: what they differ in."""
    names = [name for name in ("cell", "units") if len(matrices) == 1 or name in varying_keys(matrices)]
    return [describe_key(matrix.key, names) for matrix in matrices]


def have_intervals(matrices: Sequence[Matrix]) -> bool:
    """Return whether any mean has an interval: whether there are seeds enough."""
    return any(bool(np.isfinite(matrix.interval()).any()) for matrix in matrices)


def explain_intervals(matrices: Sequence[Matrix], name: str) -> str:
    """Return what the small print says of intervals, which are drawn as ``name``."""
    return f"{name}: {INTERVAL}" if have_intervals(matrices) else TOO_FEW_SEEDS


def check(matrices: Sequence[Matrix]) -> None:
    """Check that there is something to draw.

    Raises:
        UserError: there is no matrix.
    """
    if not matrices:
        raise UserError("there is no matrix to draw: the study has no results yet")
