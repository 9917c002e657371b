"""What heat maps of a study have in their cells: accuracy or a difference, with its interval over seeds."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from asr_dni.evaluation.curves.tables import format_accuracy
from asr_dni.plotting import CellText, ColorScale, HeatMap, Tick
from asr_dni.plotting.style import RED_BLUE, VIRIDIS
from asr_dni.study.hypothesis_tests import TOO_FEW_SEEDS, Array


def grid(shape: tuple[int, ...], of: Callable[[int, int], Any]) -> list[list[Any]]:
    """Return what there is of every row and column."""
    return [[of(row, column) for column in range(shape[1])] for row in range(shape[0])]


def signed(points: float) -> str:
    """Return a difference with its sign; what is rounded to 0 has no minus."""
    return f"{points:+z.1f}".replace("-", "−")


def largest(values: Array) -> float:
    """Return the largest of finite sizes, 0 where there is none."""
    known = np.abs(values[np.isfinite(values)])
    return float(known.max()) if known.size else 0.0


def accuracy_map(
    mean: Array, low: Array, high: Array, chance: float, name: Callable[[int, int, str], str]
) -> HeatMap:
    """Return accuracies, coloured from guessing to 100 %.

    Args:
        mean: from 0 to 1, ``(rows, columns)``.
        low: where its interval begins; NaN where seeds are too few.
        high: where it ends.
        chance: accuracy of guessing.
        name: says of a row, a column and the accuracy in words what a browser shows of the cell.
    """
    chance = 100 * chance
    ticks = [Tick(chance, f"chance {chance:.1f}")]
    ticks += [Tick(tick, f"{tick:g}") for tick in range(0, 101, 20) if tick - chance > 6]
    colors = ColorScale(VIRIDIS, (chance, 100), "accuracy (%)", tuple(ticks))

    def text(row: int, column: int) -> CellText:
        at = row, column
        return CellText(f"{100 * mean[at]:.1f}", _half_width(100 * low[at], 100 * high[at]))

    def hover(row: int, column: int) -> str:
        at = row, column
        known = "" if math.isfinite(low[at]) else f", {TOO_FEW_SEEDS}"
        return name(row, column, f"{format_accuracy(mean[at], low[at], high[at])} %{known}")

    return HeatMap((100 * mean).tolist(), colors, grid(mean.shape, text), hover=grid(mean.shape, hover))


def difference_map(
    effect: Array,
    low: Array,
    high: Array,
    marked: npt.NDArray[np.bool_],
    limit: float,
    places: Sequence[Sequence[str]],
    extend: Literal["neither", "min", "max", "both"] = "neither",
) -> HeatMap:
    """Return differences in points, red below 0 and blue above, bold with a star where they are significant.

    Args:
        effect: in points, ``(rows, columns)``.
        low: where its interval begins; NaN where seeds are too few.
        high: where it ends.
        marked: what is significant.
        limit: difference of the strongest colour.
        places: names of the cells, as a browser shows them.
        extend: on which side differences may be beyond the limit.
    """
    ticks = (Tick(-limit, signed(-limit)), Tick(0, "0"), Tick(limit, signed(limit)))
    colors = ColorScale(RED_BLUE, (-limit, limit), "difference (points)", ticks, extend)

    def text(row: int, column: int) -> CellText:
        at = row, column
        bold = bool(marked[at])
        return CellText(signed(effect[at]) + "*" * bold, _half_width(low[at], high[at]), bold)

    def hover(row: int, column: int) -> str:
        at = row, column
        interval = TOO_FEW_SEEDS if math.isnan(low[at]) else f"[{signed(low[at])}, {signed(high[at])}]"
        test = "\nsignificant" if marked[at] else ""
        return f"{places[row][column]}\n{signed(effect[at])} points, {interval}{test}"

    return HeatMap(effect.tolist(), colors, grid(effect.shape, text), hover=grid(effect.shape, hover))


def _half_width(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"±{(high - low) / 2:.1f}"
