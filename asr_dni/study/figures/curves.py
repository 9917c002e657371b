"""Figures of a study's curves: accuracy over inference noise, and over the number of units."""

import itertools
import math
from collections.abc import Iterator, Sequence

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.tables import format_accuracy
from asr_dni.evaluation.figures.noise_curves import ACCURACY, chance_line, strength_axis
from asr_dni.plotting import Axis, Figure, Legend, Line, Panel, Points, Reference, Style, Tick
from asr_dni.plotting.specification import Element
from asr_dni.plotting.style import MARKERS, ordered_colors
from asr_dni.study.figures.frame import check, explain_intervals, make_figure, panel_titles
from asr_dni.study.matrix import Matrix
from asr_dni.wording import count


def curves_figure(matrices: Sequence[Matrix]) -> Figure:
    """Specify accuracy against the strength, a line per sigma_train with its interval as a band, a panel per size.

    Args:
        matrices: of one cell and setting.

    Raises:
        UserError: there is no matrix.
    """
    check(matrices)
    styles = _train_styles(matrices, 1.7, 4.5)
    panels = []
    for matrix, title in zip(matrices, panel_titles(matrices), strict=True):
        # A panel without a level has its name all the same, so that the legend is in their order.
        lines = [_line(matrix, sigma, style) for sigma, style in styles.items()]
        elements: tuple[Element, ...] = (*lines, chance_line(matrix.chance))
        panels.append(Panel(strength_axis(matrix.strength), ACCURACY, elements, title))
    note = f"lines: mean over seeds; {explain_intervals(matrices, 'bands')}"
    return make_figure(
        "Noise curves", matrices, panels, (3.7, 3.2), note, legend=Legend(matrices[0].train_symbol)
    )


def row_figure(matrix: Matrix, sigma_train: float, level: float | None = None) -> Figure:
    """Specify accuracy against the strength of one training noise, and of conventional training beside it.

    Args:
        matrix: that both are in.
        sigma_train: the level of the training's noise.
        level: strength that is marked.

    Raises:
        UserError: the matrix has no such training.
    """
    styles = _train_styles([matrix], 1.9, 5.0)
    if sigma_train not in styles:
        known = ", ".join(map(matrix.train_text, matrix.sigma_train))
        raise UserError(f"there is no training at {matrix.train_symbol} {sigma_train:g}: there are {known}")
    shown = [one for one in styles if one == sigma_train or matrix.is_conventional(one)]
    elements: list[Element] = [_line(matrix, one, styles[one]) for one in shown]
    elements.append(chance_line(matrix.chance))
    if level is not None:
        elements.append(Reference(level, f"{level:g}", axis="x"))
    panel = Panel(strength_axis(matrix.strength, matrix.levels), ACCURACY, tuple(elements))
    note = f"lines: mean over seeds; {explain_intervals([matrix], 'bands')}"
    title = f"Noise curve of {matrix.train_symbol} {matrix.train_text(sigma_train)}"
    return make_figure(title, [matrix], [panel], (5.2, 3.6), note, legend=Legend(matrix.train_symbol))


def _line(matrix: Matrix, sigma_train: float, style: Style) -> Line:
    """Return the curve of one training noise; without points where the matrix has none."""
    mean, (low, high) = matrix.mean, matrix.interval()
    row = matrix.sigma_train.index(sigma_train) if sigma_train in matrix.sigma_train else None
    own = [] if row is None else list(zip(mean[row], low[row], high[row], strict=True))
    return Line(
        matrix.levels if own else (),
        [100 * one for one, _, _ in own],
        [100 * one for _, one, _ in own],
        [100 * one for _, _, one in own],
        label=_train_label(sigma_train, matrix),
        style=style,
        hover=[f"{format_accuracy(*one)} %" for one in own],
    )


def units_figure(matrices: Sequence[Matrix], levels: Sequence[float] | None = None) -> Figure:
    """Specify accuracy against the number of units, a row per cell, a column per strength of the noise at inference.

    Args:
        matrices: of one setting, of several sizes.
        levels: strengths to show; ``None``: the lowest, the middle and the highest measured.

    Raises:
        UserError: there is no matrix, or none was measured at these levels.
    """
    check(matrices)
    common = [level for level in matrices[0].levels if all(level in one.levels for one in matrices)]
    chosen = [level for level in common if levels is None or any(math.isclose(level, one) for one in levels)]
    if not chosen:
        raise UserError(
            "the matrices have no such strengths in common: give levels that all were measured at"
        )
    if levels is None:
        chosen = sorted({chosen[0], chosen[len(chosen) // 2], chosen[-1]})
    units = sorted({int(matrix.key["units"]) for matrix in matrices})
    x = Axis("units", scale="log", ticks=tuple(Tick(one, str(one)) for one in units))
    symbol, panels = matrices[0].strength.symbol, []
    for cell in dict.fromkeys(matrix.key["cell"] for matrix in matrices):
        own = sorted(
            (one for one in matrices if one.key["cell"] == cell), key=lambda one: int(one.key["units"])
        )
        for level in chosen:
            elements: tuple[Element, ...] = (*_over_units(own, matrices, level), chance_line(own[0].chance))
            panels.append(Panel(x, ACCURACY, elements, f"{str(cell).upper()}, {symbol} = {level:g}"))
    return make_figure(
        "Accuracy and the number of units",
        matrices,
        panels,
        (3.3, 2.6),
        f"points: mean over seeds; {explain_intervals(matrices, 'bars')}",
        columns=len(chosen),
        legend=Legend(matrices[0].train_symbol),
        of_all_cells=True,
    )


def _over_units(own: Sequence[Matrix], matrices: Sequence[Matrix], level: float) -> Iterator[Points]:
    """Yield the points of each sigma_train at one strength, beside one another, so that no bar hides another."""
    styles = _train_styles(matrices, 1.4, 4.8)
    units = sorted({int(matrix.key["units"]) for matrix in matrices})
    ratio = min((b / a for a, b in itertools.pairwise(units)), default=2.0)
    for order, (train, style) in enumerate(styles.items()):
        shift = ratio ** ((order - (len(styles) - 1) / 2) * 0.15 / len(styles))
        found = []
        for matrix in own:
            if train in matrix.sigma_train:
                at = matrix.sigma_train.index(train), matrix.levels.index(level)
                low, high = matrix.interval()
                found.append((int(matrix.key["units"]), matrix.mean[at], low[at], high[at]))
        yield Points(
            [one * shift for one, *_ in found],
            [100 * mean for _, mean, _, _ in found],
            [100 * low for _, _, low, _ in found],
            [100 * high for *_, high in found],
            label=_train_label(train, own[0]),
            style=style,
            hover=[f"{count(one, 'unit')}: {format_accuracy(*values)} %" for one, *values in found],
            joined=True,
        )


def _train_styles(matrices: Sequence[Matrix], width: float, size: float) -> dict[float, Style]:
    """Return a style per sigma_train: black and dashed without noise, then from dark to light as it grows."""
    sigmas = sorted({sigma for matrix in matrices for sigma in matrix.sigma_train})
    clean = [sigma for sigma in sigmas if matrices[0].is_conventional(sigma)]
    noisy = [sigma for sigma in sigmas if sigma not in clean]
    colors = dict(zip(noisy, ordered_colors(len(noisy)), strict=True))
    return {
        sigma: Style(
            colors.get(sigma, "#000000"),
            MARKERS[place % len(MARKERS)],
            "dash" if sigma in clean else "solid",
            width,
            size,
        )
        for place, sigma in enumerate(sigmas)
    }


def _train_label(sigma: float, matrix: Matrix) -> str:
    return matrix.train_text(sigma) + (" (conventional)" if matrix.is_conventional(sigma) else "")
