"""The figure of noise curves, specified once: as files by matplotlib, in the browser and W&B by plotly."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from asr_dni.evaluation.curves.axes import TIMES
from asr_dni.evaluation.curves.curve import CurveSummary, NoiseCurve, Over, curve_label
from asr_dni.evaluation.curves.description import (
    Curves,
    as_summaries,
    common_chance,
    common_snr,
    common_strength,
    describe_intervals,
    describe_settings,
    format_snr,
)
from asr_dni.evaluation.curves.tables import format_accuracy
from asr_dni.noise import Strength
from asr_dni.plotting import Axis, Figure, Legend, Line, Panel, Reference, Tick, curve_style

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure as Drawing

ACCURACY = Axis("accuracy", "%", limits=(0, 101.5))
"""The axis of accuracies in all figures."""

_BESIDE = 1.3
"""How far a logarithmic axis goes on beyond the levels, as a factor."""

_TITLE = "Accuracy under computation noise"


def noise_curves_figure(curves: Curves, title: str = _TITLE, settings_line: str | None = None) -> Figure:
    """Specify the picture of accuracy against the strength of the noise.

    Bands are the summaries' intervals; a dotted line is chance where all curves have the same. The SNR is on
    the top axis where it is known and the same for all curves.

    Args:
        curves: curves, or summaries of several seeds, by their label.
        title: stands above the picture.
        settings_line: small print; ``None`` says how the curves were measured and what the bands are.

    Raises:
        UserError: no curves, or curves that can't share an axis.
    """
    summaries = as_summaries(curves)
    many = len(summaries) > 1
    elements: list[Line | Reference] = [
        Line(
            summary.frame["strength"].tolist(),
            (100 * summary.frame["accuracy"]).tolist(),
            (100 * summary.frame["low"]).tolist(),
            (100 * summary.frame["high"]).tolist(),
            label=label,
            style=curve_style(index),
            hover=_hover(summary),
        )
        for index, (label, summary) in enumerate(summaries.items())
    ]
    chance = common_chance(summaries)
    if chance is not None:
        elements.append(chance_line(chance))
    return Figure(
        title if many else f"{title}: {next(iter(summaries))}",
        (Panel(levels_axis(summaries), ACCURACY, tuple(elements)),),
        _small_print(summaries) if settings_line is None else settings_line,
        legend=Legend() if many else None,
    )


def strength_axis(strength: Strength, levels: Sequence[float] = ()) -> Axis:
    """Return the axis of a strength, here and in the figures of a study: what it is, and in which unit.

    Args:
        strength: the axis.
        levels: that are shown; a time, where all are above 0, is on a logarithmic axis with ticks as people say them.
    """
    if not strength.path.endswith(".time") or not levels or min(levels) <= 0:
        return Axis(strength.title, strength.measured_in)
    low, high = min(levels) / _BESIDE, max(levels) * _BESIDE
    ticks = tuple(Tick(time, name) for name, time in TIMES.items() if low <= time <= high)
    title = "time since programming" if strength.path == "weight.time" else strength.title
    return Axis(title, "" if ticks else strength.measured_in, scale="log", limits=(low, high), ticks=ticks)


def levels_axis(summaries: Mapping[str, CurveSummary]) -> Axis:
    """Return the axis of curves that share one: from lowest to highest level, with the SNR where all have one."""
    levels = [float(level) for summary in summaries.values() for level in summary.frame["strength"]]
    left, right = min(levels), max(levels)
    axis = strength_axis(common_strength(summaries), levels)
    if axis.scale == "log":
        return axis
    margin = 0.02 * (right - left or 1.0)
    snr = common_snr(summaries)
    return replace(
        axis,
        limits=(left - margin, right + margin),
        opposite=_snr_ticks(snr, right - left) if snr else (),
        opposite_label="SNR at the noisy products (dB)" if snr else "",
    )


def chance_line(chance: float) -> Reference:
    """Return the line at the accuracy of guessing, a share of 1."""
    return Reference(100 * chance, f"chance {100 * chance:.1f} %")


def _hover(summary: CurveSummary) -> list[str]:
    texts = []
    for row in summary.frame.to_dict("records"):
        snr = "SNR not known" if math.isnan(row["snr_db"]) else f"SNR {format_snr(row['snr_db'])} dB"
        texts.append(f"{format_accuracy(row['accuracy'], row['low'], row['high'])} %, {snr}")
    return texts


def _snr_ticks(snr: Mapping[float, float], width: float) -> tuple[Tick, ...]:
    """Return the SNR of measured levels, of as many as there is room for."""
    ticks: list[Tick] = []
    for level, value in snr.items():
        if not ticks or level - ticks[-1].value >= 0.078 * width:
            ticks.append(Tick(level, format_snr(value)))
    return tuple(ticks)


def _small_print(summaries: Mapping[str, CurveSummary]) -> str:
    drawn = any(summary.frame["low"].notna().any() for summary in summaries.values())
    return f"{describe_settings(summaries)}; {'band: ' if drawn else ''}{describe_intervals(summaries)}"


def draw_noise_curves(curves: Curves, title: str = _TITLE, settings_line: str | None = None) -> "Drawing":
    """Return the picture of :func:`noise_curves_figure`, with its arguments, drawn by matplotlib."""
    from asr_dni.plotting.with_matplotlib import render

    return render(noise_curves_figure(curves, title, settings_line))


def plotly_noise_curves(curves: Curves, title: str = _TITLE, settings_line: str | None = None) -> "go.Figure":
    """Return the picture of :func:`noise_curves_figure`, with its arguments, as an interactive one of plotly."""
    from asr_dni.plotting.with_plotly import render

    return render(noise_curves_figure(curves, title, settings_line))


def save_figure(figure: "Figure | Drawing", stem: Path | str) -> list[Path]:
    """Write a figure as PNG and SVG, each whole or not at all.

    Args:
        figure: its specification, or what matplotlib has drawn.
        stem: path without ending; its directory is made if it does not exist.

    Returns:
        The two paths.
    """
    from asr_dni.plotting.with_matplotlib import save

    return save(figure, stem)


def save_noise_curve(
    curve: NoiseCurve, directory: Path | str, stem: str = "noise_curve", over: Over = "clips"
) -> list[Path]:
    """Write ``noise_curve.csv``, ``noise_curve.png`` and ``noise_curve.svg`` into a directory.

    Args:
        curve: the curve.
        directory: is made if it does not exist.
        stem: file name without ending.
        over: what the band in the picture covers, see :meth:`NoiseCurve.summary`.

    Returns:
        The paths of the three files.
    """
    directory = Path(directory)
    path = curve.to_csv(directory / f"{stem}.csv")
    figure = noise_curves_figure({curve_label(curve.settings): curve.summary(over)})
    return [path, *save_figure(figure, directory / stem)]
