"""Figures of training by inference hardware: accuracy, differences to conventional training, all levels, curves."""

import math
from collections.abc import Sequence

import numpy as np

from asr_dni.evaluation.curves.tables import format_accuracy
from asr_dni.evaluation.figures.noise_curves import ACCURACY, chance_line, strength_axis
from asr_dni.plotting import (
    Axis,
    Figure,
    HeatMap,
    Legend,
    Line,
    Panel,
    Tick,
    curve_style,
)
from asr_dni.study.figures.cells import accuracy_map, difference_map, largest
from asr_dni.study.figures.frame import INTERVAL
from asr_dni.study.findings.transfer_tables import transfer_differences
from asr_dni.study.hypothesis_tests import ALPHA, TOO_FEW_SEEDS, Array, student_t_tests
from asr_dni.study.matrix_words import describe_key, describe_shared
from asr_dni.study.transfer import Transfer, format_level, format_value
from asr_dni.wording import count

_LETTER, _CELL, _ROW = 0.084, 0.62, 0.36
"""Inches: of a letter of a label, and of a cell."""


def transfer_figure(transfer: Transfer) -> Figure:
    """Specify accuracy for every training (rows) and hardware (columns), each at the level that is shown."""
    tests = student_t_tests(transfer.shown, transfer.counting)
    panel = Panel(
        _inference_axis(transfer),
        _training_axis(transfer, range(len(transfer.trainings))),
        (_accuracies(transfer, tests.effect, tests.low, tests.high, _places(transfer)),),
    )
    return _figure("Accuracy by training and inference hardware", transfer, [panel], _note_of(tests.low))


def transfer_difference_figure(transfer: Transfer) -> Figure:
    """Specify the difference to conventional training on the same hardware, with what is significant marked."""
    table = transfer_differences(transfer)
    rows = [row for row, one in enumerate(transfer.trainings) if not one.conventional]
    title = "Accuracy above or below conventional training on each hardware"
    if table.empty:
        return _figure(title, transfer, [Panel(message="no conventional training")], "")
    shape = len(rows), len(transfer.inferences)
    effect, low, high = (100 * table[name].to_numpy().reshape(shape) for name in ("effect", "low", "high"))
    marked = (table["p_holm"].to_numpy() < ALPHA).reshape(shape)
    places = _places(transfer)
    limit = max(1.0, largest(effect))
    heat = difference_map(effect, low, high, marked, limit, [places[row] for row in rows])
    interval = f"{TOO_FEW_SEEDS}, nothing is tested"
    if np.isfinite(low).any():
        interval = f"and half its {INTERVAL}; bold with *: two-sided paired t test over seeds, Holm-corrected p < 0.05"
    note = f"numbers: difference in points on the same hardware, mean over seeds, {interval}"
    panel = Panel(_inference_axis(transfer), _training_axis(transfer, rows), (heat,))
    return _figure(title, transfer, [panel], note)


def transfer_levels_figure(transfer: Transfer) -> Figure:
    """Specify accuracy for every training at all levels, a panel per hardware."""
    panels = []
    low = np.array([])
    for place, column in enumerate(transfer.inferences):
        tests = transfer.intervals(place)
        low = np.append(low, tests.low)
        strength = column.strength
        names = [format_value(strength, level) for level in column.levels]
        hover = [
            [
                f"{one.label}\n{column.name} at {format_level(strength, level)}{_over_chips(transfer, place, row, at)}"
                for at, level in enumerate(column.levels)
            ]
            for row, one in enumerate(transfer.trainings)
        ]
        # Units are at the axes of the curves: here there is no room.
        title = "time since programming" if strength.path == "weight.time" else strength.title
        x = Axis(title, scale="category", categories=tuple(names))
        y = _training_axis(transfer, range(len(transfer.trainings)))
        heat = _accuracies(transfer, tests.effect, tests.low, tests.high, hover)
        panels.append(Panel(x, y, (heat,), column.name))
    widest = max(len(one.levels) for one in transfer.inferences)
    return _figure(
        "Accuracy at all levels", transfer, panels, _note_of(low), columns=2, widest=widest, panels_named=True
    )


def transfer_curves_figure(transfer: Transfer) -> Figure:
    """Specify accuracy against the strength of each hardware, a line per training with its interval as a band."""
    panels = []
    known = False
    for place, column in enumerate(transfer.inferences):
        tests = transfer.intervals(place)
        known = known or bool(np.isfinite(tests.low).any())
        lines = []
        for row, training in enumerate(transfer.trainings):
            mean, low, high = tests.effect[row], np.clip(tests.low[row], 0, 1), np.clip(tests.high[row], 0, 1)
            hover = [f"{format_accuracy(*one)} %" for one in zip(mean, low, high, strict=True)]
            lines.append(
                Line(
                    column.levels,
                    (100 * mean).tolist(),
                    (100 * low).tolist(),
                    (100 * high).tolist(),
                    label=training.label,
                    style=curve_style(row),
                    hover=hover,
                )
            )
        axis = strength_axis(column.strength, column.levels)
        panels.append(Panel(axis, ACCURACY, (*lines, chance_line(transfer.chance)), column.name))
    note = f"lines: mean over seeds and chips; {f'bands: {INTERVAL}' if known else TOO_FEW_SEEDS}"
    return Figure(
        f"Trainings on each hardware: {describe_key(transfer.key, ['cell', 'units'])}",
        tuple(panels),
        _small_print(transfer, note),
        2,
        (4.2, 3.2),
        Legend("training"),
    )


def _accuracies(
    transfer: Transfer, mean: Array, low: Array, high: Array, places: Sequence[Sequence[str]]
) -> HeatMap:
    low, high = np.clip(low, 0, 1), np.clip(high, 0, 1)
    return accuracy_map(
        mean, low, high, transfer.chance, lambda row, at, accuracy: f"{places[row][at]}\n{accuracy}"
    )


def _places(transfer: Transfer) -> list[list[str]]:
    """Name the cells at the levels that are shown, with what chips make of them."""
    return [
        [
            f"{training.label}\n{column.label}{_over_chips(transfer, place, row, column.place)}"
            for place, column in enumerate(transfer.inferences)
        ]
        for row, training in enumerate(transfer.trainings)
    ]


def _over_chips(transfer: Transfer, place: int, row: int, level: int) -> str:
    values = transfer.over_chips[place][row, level]
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return ""
    told = f"worst {100 * values.min():.1f}, best {100 * values.max():.1f} %"
    tests = transfer.intervals_over_chips(place)
    low, high = 100 * tests.low[row, level], 100 * tests.high[row, level]
    told += "" if math.isnan(low) else f", 95 % interval of their mean [{low:.1f}, {high:.1f}]"
    return f"\n{count(len(values), 'chip')}: {told}"


def _inference_axis(transfer: Transfer) -> Axis:
    names = tuple(column.name for column in transfer.inferences)
    levels = tuple(Tick(place, column.level) for place, column in enumerate(transfer.inferences))
    return Axis("evaluated on", scale="category", categories=names, opposite=levels, opposite_label="at")


def _training_axis(transfer: Transfer, rows: Sequence[int]) -> Axis:
    labels = tuple(transfer.trainings[row].label for row in rows)
    return Axis("trained on", scale="category", categories=labels)


def _note_of(low: Array) -> str:
    interval = f"and half the width of its {INTERVAL}" if np.isfinite(low).any() else TOO_FEW_SEEDS
    return f"numbers: accuracy in %, mean over seeds and chips, {interval}"


def _small_print(transfer: Transfer, note: str) -> str:
    line = f"{describe_shared(transfer.matrices)}; {note}"
    return line[:1].upper() + line[1:]


def _figure(
    what: str,
    transfer: Transfer,
    panels: Sequence[Panel],
    note: str,
    *,
    columns: int = 1,
    widest: int | None = None,
    panels_named: bool = False,
) -> Figure:
    names = [one.name for one in transfer.inferences] + [one.level for one in transfer.inferences]
    cell = _CELL if panels_named else max(_CELL, _LETTER * max(map(len, names)) + 0.12)
    beside = 0.5 + _LETTER * max(len(one.label) for one in transfer.trainings)
    width = cell * (widest or len(transfer.inferences)) + beside
    height = _ROW * len(transfer.trainings) + 1.25
    return Figure(
        f"{what}: {describe_key(transfer.key, ['cell', 'units'])}",
        tuple(panels),
        _small_print(transfer, note),
        columns,
        (max(width, 3.2), max(height, 2.2)),
    )
