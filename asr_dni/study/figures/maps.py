"""Figures on a study's grid of training and inference noise: accuracy, differences, the best training noise."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np

from asr_dni.evaluation.curves.description import format_snr
from asr_dni.evaluation.figures.noise_curves import strength_axis
from asr_dni.plotting import Axis, ColorScale, Figure, HeatMap, Legend, Line, Panel, Style, Tick
from asr_dni.study.figures.cells import accuracy_map, difference_map, grid, largest
from asr_dni.study.figures.frame import (
    COLUMNS,
    INTERVAL,
    check,
    have_intervals,
    make_figure,
    panel_titles,
    train_axis,
)
from asr_dni.study.findings import Findings, rows_of
from asr_dni.study.hypothesis_tests import MIN_SEEDS, TOO_FEW_SEEDS
from asr_dni.study.matrix import Matrix
from asr_dni.wording import count

_BEST, _MAY_BE_BEST = "#0b3c5d", "#bcd7ea"


def matrices_figure(matrices: Sequence[Matrix]) -> Figure:
    """Specify accuracy for every (sigma_train, strength) as a heat map, a panel per size.

    Args:
        matrices: of one cell and setting.

    Raises:
        UserError: there is no matrix.
    """
    matrices = _on_one_grid(matrices)
    panels = []
    for matrix, title in zip(matrices, panel_titles(matrices), strict=True):
        x, y = _grid_axes(matrix, matrix.sigma_train)

        def name(row: int, column: int, accuracy: str, matrix: Matrix = matrix) -> str:
            seeds = count(int(matrix.n_seeds[row, column]), "seed")
            return f"{_place(matrix, matrix.sigma_train, row, column)}\n{accuracy}\n{seeds}"

        heat = accuracy_map(matrix.mean, *matrix.interval(), matrices[0].chance, name)
        panels.append(Panel(x, y, (heat,), title))
    interval = f"and half the width of its {INTERVAL}" if have_intervals(matrices) else TOO_FEW_SEEDS
    note = f"numbers: accuracy in %, mean over seeds, {interval}"
    return make_figure("Accuracy", matrices, panels, _grid_size(matrices), note)


def differences_figure(matrices: Sequence[Matrix], findings: Findings, to_clean: bool = False) -> Figure:
    """Specify the difference to conventional training, with what is significant marked, a panel per size.

    Args:
        matrices: of one cell and setting.
        findings: those the matrices are of: its tests are shown.
        to_clean: compare with conventional training and clean inference instead of the same strength.

    Raises:
        UserError: there is no matrix.
    """
    matrices = _on_one_grid(matrices)
    if to_clean:
        what = "Accuracy above or below conventional training with clean inference"
        marks = "bold with *: above it, one-sided paired t test over seeds, Holm-corrected p < 0.05"
    else:
        what = "Accuracy above or below conventional training at the same noise"
        marks = "bold with *: differs from it, two-sided paired t test over seeds, Holm-corrected p < 0.05"
    differences = [findings.differences(matrix, to_clean) for matrix in matrices]
    # Far below the clean accuracy it does not matter how far: colours are for what is near it.
    limit = 10.0 if to_clean else max([1.0, *(largest(100 * one.effect) for one in differences if one)])
    panels = []
    for matrix, title, found in zip(matrices, panel_titles(matrices), differences, strict=True):
        if found is None:
            panels.append(Panel(title=title, message="no conventional training"))
            continue
        trains = matrix.sigma_train[1:]
        effect, low, high = 100 * found.effect, 100 * found.low, 100 * found.high
        x, y = _grid_axes(matrix, trains)
        places = grid(effect.shape, partial(_place, matrix, trains))
        extend: Literal["min", "neither"] = "min" if to_clean else "neither"
        heat = difference_map(effect, low, high, found.significant, limit, places, extend)
        panels.append(Panel(x, y, (heat,), title))
    known = any(bool(np.isfinite(one.low).any()) for one in differences if one)
    interval = f"and half its {INTERVAL}; {marks}" if known else f"{TOO_FEW_SEEDS}, nothing is tested"
    note = f"numbers: difference in points, mean over seeds, {interval}"
    width, height = _grid_size(matrices)
    return make_figure(what, matrices, panels, (width, height - 0.25), note)


def best_figure(matrices: Sequence[Matrix], findings: Findings) -> Figure:
    """Specify the best sigma_train for each strength, and those that may be the best too, a panel per architecture.

    Args:
        matrices: of one setting.
        findings: those the matrices are of: its sets are shown.

    Raises:
        UserError: there is no matrix.
    """
    matrices = _on_one_grid(matrices)
    tables = [rows_of(findings.tables["best"], matrix) for matrix in matrices]
    colors = ColorScale((_MAY_BE_BEST, _MAY_BE_BEST), (0, 1), bar=False)
    panels = []
    for matrix, name, rows in zip(matrices, panel_titles(matrices), tables, strict=True):
        infers, trains = matrix.levels, matrix.sigma_train
        values = np.full((len(trains), len(infers)), math.nan)
        best: dict[int, int] = {}
        for row in rows.to_dict("records"):
            at = trains.index(row["sigma_train"]), infers.index(row["strength"])
            if row["in_set"]:
                values[at] = 1
            if row["best"]:
                best[at[1]] = at[0]
        hover = [
            [f"{_place(matrix, trains, row, column)}: may be the best" for column in range(len(infers))]
            for row in range(len(trains))
        ]
        texts = [f"{_place(matrix, trains, row, column)}: the best" for column, row in best.items()]
        x, y = _grid_axes(matrix, trains)
        style = Style(_BEST, "circle", "solid", 1.4, 5.5)
        elements = (
            HeatMap(values.tolist(), colors, label="may be best", hover=hover),
            Line(list(best), list(best.values()), label="best", style=style, hover=texts),
        )
        plain = replace(x, opposite=(), opposite_label="")
        panels.append(Panel(plain, y, elements, name))
    tested = any(bool(table["p_some_other_is_better"].notna().any()) for table in tables if len(table))
    why = f"too few seeds for tests, {MIN_SEEDS} are needed: nothing is ruled out"
    if tested:
        why = (
            "the light set and the best hold the truly best one with 95 % at each"
            f" {matrices[0].strength.symbol}; paired t tests over seeds, corrected over rivals"
        )
    sizes = len({matrix.key["units"] for matrix in matrices})
    return make_figure(
        "Best training noise",
        matrices,
        panels,
        (3.4, 0.21 * max(len(matrix.sigma_train) for matrix in matrices) + 1.25),
        f"light: may be the best too ({why})",
        columns=sizes if 1 < sizes <= 4 else COLUMNS,
        legend=Legend(),
        of_all_cells=True,
    )


def _levels(levels: Sequence[float]) -> tuple[str, ...]:
    return tuple(f"{level:g}" for level in levels)


def _grid_axes(matrix: Matrix, trains: Sequence[float]) -> tuple[Axis, Axis]:
    """Return the axes of a map over all levels, with the SNR above where it is known and not the same anyway."""
    shown = not np.isnan(matrix.snr_db).any() and matrix.key["scale"] != "absolute"
    x = replace(
        strength_axis(matrix.strength),
        scale="category",
        categories=_levels(matrix.levels),
        opposite=tuple(Tick(place, format_snr(snr)) for place, snr in enumerate(matrix.snr_db))
        if shown
        else (),
        opposite_label="SNR (dB)" if shown else "",
    )
    y = replace(train_axis(matrix), scale="category", categories=tuple(map(matrix.train_text, trains)))
    return x, y


def _grid_size(matrices: Sequence[Matrix]) -> tuple[float, float]:
    columns = max(len(matrix.levels) for matrix in matrices)
    rows = max(len(matrix.sigma_train) for matrix in matrices)
    return max(0.43 * columns + 0.75, 2.6), max(0.36 * rows + 1.25, 2.2)


def _place(matrix: Matrix, trains: Sequence[float], row: int, column: int) -> str:
    """Name a cell of a map, as a browser shows it."""
    snr = format_snr(matrix.snr_db[column])
    of_snr = "" if snr == "–" else f" (SNR {snr} dB)"
    trained = f"{matrix.train_symbol} {matrix.train_text(trains[row])}"
    return f"{trained}, {matrix.strength.symbol} {matrix.levels[column]:g}{of_snr}"


def _on_one_grid(matrices: Sequence[Matrix]) -> list[Matrix]:
    """Return the matrices with all levels that any of them has, so that panels compare row by row.

    Raises:
        UserError: there is no matrix.
    """
    check(matrices)
    train = tuple(sorted({sigma for matrix in matrices for sigma in matrix.sigma_train}))
    infer = tuple(sorted({level for matrix in matrices for level in matrix.levels}))
    padded = []
    for matrix in matrices:
        draws = np.ones(len(infer), dtype=np.int64)
        rows = [train.index(sigma) for sigma in matrix.sigma_train]
        columns = [infer.index(level) for level in matrix.levels]
        accuracy = np.full((len(train), len(infer), len(matrix.seeds)), np.nan)
        accuracy[np.ix_(rows, columns)] = matrix.accuracy
        snr = np.full(len(infer), np.nan)
        snr[columns], draws[columns] = matrix.snr_db, matrix.n_draws
        levels: dict[str, Any] = {"sigma_train": train, "levels": infer, "snr_db": snr, "n_draws": draws}
        padded.append(replace(matrix, accuracy=accuracy, **levels))
    return padded
