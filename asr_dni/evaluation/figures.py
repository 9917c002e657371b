"""Pictures of noise curves: matplotlib for files, plotly for the browser and W&B."""

import math
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MultipleLocator

from asr_dni.evaluation.curve import CurveSummary, NoiseCurve, Over, curve_label
from asr_dni.evaluation.description import (
    Curves,
    as_summaries,
    common_chance,
    common_snr,
    common_strength,
    describe_intervals,
    describe_settings,
    format_snr,
)
from asr_dni.files import write_atomically

if TYPE_CHECKING:
    import plotly.graph_objects as go


class _Style(NamedTuple):
    color: str
    marker: str
    line: str


# Okabe & Ito's palette, which readers with any colour vision can tell apart; its yellow is too pale on white.
_COLORS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", ":", "-.")
_PLOTLY_MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x")
_PLOTLY_LINES = ("solid", "dash", "dot", "dashdot")
GREY = "#6b6b6b"
"""Of what stands beside the data: chance, SNR, small print."""

RC: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.edgecolor": "#9a9a9a",
    "axes.linewidth": 0.8,
    "axes.labelcolor": "#222222",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "svg.fonttype": "none",
    "svg.hashsalt": "noise curve",
}
"""Matplotlib's settings for every figure, as ``matplotlib.rc_context`` takes them."""


def _small_print(summaries: Mapping[str, CurveSummary]) -> str:
    drawn = any(summary.frame["low"].notna().any() for summary in summaries.values())
    return f"{describe_settings(summaries)}; {'band: ' if drawn else ''}{describe_intervals(summaries)}"


def math_text(text: str) -> str:
    """Set ``σ_name`` with a subscript, and everything else as it is."""
    return re.sub(r"σ_([A-Za-z]+)", r"$\\sigma_\\mathrm{\1}$", text.replace("$", r"\$"))


def _style(index: int) -> _Style:
    return _Style(
        _COLORS[index % len(_COLORS)],
        _MARKERS[index % len(_MARKERS)],
        _LINES[index // len(_COLORS) % len(_LINES)],
    )


def _draw_snr_axis(axes: Axes, snr: Mapping[float, float], limits: tuple[float, float]) -> None:
    """Put the SNR of measured levels along the top, as many as there is room for."""
    top = axes.secondary_xaxis("top")
    ticks: list[float] = []
    for sigma in snr:
        if not ticks or sigma - ticks[-1] >= 0.075 * (limits[1] - limits[0]):
            ticks.append(sigma)
    top.set_xticks(ticks, [format_snr(snr[sigma]) for sigma in ticks])
    top.set_xlabel("SNR at the noisy products (dB)", color=GREY, fontsize=9, labelpad=6)
    top.tick_params(colors=GREY, labelsize=8.5)
    top.spines["top"].set_visible(True)


def draw_noise_curves(
    curves: Curves, title: str = "Accuracy under computation noise", settings_line: str | None = None
) -> Figure:
    """Draw accuracy against inference noise.

    Bands are the summaries' intervals; a dotted line is chance where all curves have the same. The SNR is on
    the top axis where it is known and the same for all curves.

    Args:
        curves: curves, or summaries of several seeds, by their label.
        title: stands above the picture.
        settings_line: small print below; ``None`` says how the curves were measured and what the bands are.

    Returns:
        A figure, drawn without pyplot and its global state; see :func:`save_figure`.

    Raises:
        UserError: no curves, or curves of different scales.
    """
    summaries = as_summaries(curves)
    with matplotlib.rc_context(RC):
        many = len(summaries) > 1
        labels = [math_text(textwrap.fill(label, 30)) for label in summaries]
        # A legend of many or long labels needs height, in inches.
        legend = sum(0.12 + 0.17 * (1 + label.count("\n")) for label in labels) if many else 0.0
        figure = Figure(
            figsize=(8.6 if many else 7.0, max(4.9, 1.9 + legend)),
            dpi=160,
            layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1),
        )
        axes = figure.add_subplot()
        for index, (label, summary) in enumerate(zip(labels, summaries.values(), strict=True)):
            style, frame = _style(index), summary.frame
            sigma, accuracy = frame["strength"], 100 * frame["accuracy"]
            axes.fill_between(
                sigma, 100 * frame["low"], 100 * frame["high"], color=style.color, alpha=0.18, linewidth=0
            )
            axes.plot(
                sigma,
                accuracy,
                color=style.color,
                linestyle=style.line,
                linewidth=1.8,
                marker=style.marker,
                markersize=5,
                markeredgecolor="white",
                markeredgewidth=0.7,
                label=label,
                zorder=3,
            )
        levels = np.concatenate(
            [summary.frame["strength"].to_numpy(dtype=float) for summary in summaries.values()]
        )
        left, right = float(levels.min()), float(levels.max())
        margin = 0.02 * (right - left or 1.0)
        limits = (left - margin, right + margin)
        axes.set_xlim(*limits)
        axes.set_ylim(0, 101.5)
        axes.yaxis.set_major_locator(MultipleLocator(20))
        axes.yaxis.set_minor_locator(MultipleLocator(10))
        axes.grid(axis="y", which="major", color="#dddddd", linewidth=0.8)
        axes.grid(axis="y", which="minor", color="#eeeeee", linewidth=0.6)
        axes.grid(axis="x", color="#eeeeee", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(which="both", length=0)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        chance = common_chance(summaries)
        if chance is not None:
            axes.axhline(100 * chance, color=GREY, linestyle=(0, (1, 2)), linewidth=1.1, zorder=2)
            axes.annotate(
                f"chance {100 * chance:.1f} %",
                (0.005, 100 * chance),
                xycoords=("axes fraction", "data"),
                xytext=(0, -3),
                textcoords="offset points",
                ha="left",
                va="top",
                fontsize=8.5,
                color=GREY,
            )
        axes.set_xlabel(math_text(common_strength(summaries).label))
        axes.set_ylabel("accuracy (%)")
        snr = common_snr(summaries)
        if snr is not None:
            _draw_snr_axis(axes, snr, limits)
        if many:
            axes.legend(
                loc="upper left",
                bbox_to_anchor=(1.01, 1.0),
                frameon=False,
                fontsize=9.5,
                handlelength=2.2,
                labelspacing=0.7,
                borderaxespad=0.0,
            )
        else:
            title = f"{title}: {next(iter(summaries))}"
        figure.suptitle(
            math_text(textwrap.fill(title, 70 if many else 56)),
            x=0.012,
            ha="left",
            fontsize=12.5,
            fontweight="bold",
        )
        line = _small_print(summaries) if settings_line is None else settings_line
        figure.supxlabel(
            math_text(textwrap.fill(line, 132 if many else 105)),
            x=0.012,
            ha="left",
            fontsize=7.5,
            color=GREY,
        )
    return figure


def save_figure(figure: Figure, stem: Path | str) -> list[Path]:
    """Write a figure as PNG and SVG, each whole or not at all.

    Args:
        figure: the figure.
        stem: path without ending; its directory is made if it does not exist.

    Returns:
        The two paths.
    """
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    # A fixed date and id salt: the same curves give the same file.
    metadata: dict[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}}
    for kind, extra in metadata.items():
        path = stem.parent / f"{stem.name}.{kind}"
        with matplotlib.rc_context(RC), write_atomically(path) as temporary:
            figure.savefig(temporary, format=kind, metadata=extra)
        paths.append(path)
    return paths


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
    figure = draw_noise_curves({curve_label(curve.settings): curve.summary(over)})
    return [path, *save_figure(figure, directory / stem)]


def plotly_noise_curves(
    curves: Curves, title: str = "Accuracy under computation noise", settings_line: str | None = None
) -> "go.Figure":
    """Return the picture of :func:`draw_noise_curves` as an interactive plotly figure.

    Args:
        curves: curves, or summaries of several seeds, by their label.
        title: stands above the picture.
        settings_line: small print below the title; ``None`` says how the curves were measured and what the
            bands are.

    Raises:
        UserError: no curves, or curves of different scales.
    """
    import plotly.graph_objects as go  # takes longer to import than the rest of this module

    summaries = as_summaries(curves)
    figure = go.Figure()
    for index, (label, summary) in enumerate(summaries.items()):
        style, frame = _style(index), summary.frame
        color = [int(style.color[place : place + 2], 16) for place in (1, 3, 5)]
        banded = frame[frame["low"].notna() & frame["high"].notna()]
        sigma = banded["strength"].tolist()
        figure.add_trace(
            go.Scatter(
                x=sigma + sigma[::-1],
                y=(100 * banded["high"]).tolist() + (100 * banded["low"]).tolist()[::-1],
                fill="toself",
                fillcolor=f"rgba({color[0]},{color[1]},{color[2]},0.16)",
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=label,
            )
        )
        text = [
            "SNR not known" if math.isnan(snr) else f"SNR {format_snr(snr)} dB" for snr in frame["snr_db"]
        ]
        figure.add_trace(
            go.Scatter(
                x=frame["strength"].tolist(),
                y=(100 * frame["accuracy"]).tolist(),
                name=label,
                mode="lines+markers",
                line={"color": style.color, "dash": _PLOTLY_LINES[_LINES.index(style.line)]},
                marker={"symbol": _PLOTLY_MARKERS[index % len(_PLOTLY_MARKERS)], "size": 8},
                text=text,
                hovertemplate=common_strength(summaries).symbol + " %{x:g}: %{y:.1f} % (%{text})",
                legendgroup=label,
            )
        )
    chance = common_chance(summaries)
    if chance is not None:
        figure.add_hline(
            y=100 * chance,
            line={"color": GREY, "dash": "dot", "width": 1},
            annotation={"text": f"chance {100 * chance:.1f} %", "font": {"color": GREY}},
            annotation_position="bottom left",
        )
    line = _small_print(summaries) if settings_line is None else settings_line
    figure.update_layout(
        title={"text": title, "subtitle": {"text": line, "font": {"size": 11, "color": GREY}}},
        xaxis={
            "title": {"text": common_strength(summaries).label},
            "gridcolor": "#eeeeee",
            "zeroline": False,
        },
        yaxis={"title": {"text": "accuracy (%)"}, "range": [0, 101.5], "gridcolor": "#dddddd"},
        plot_bgcolor="white",
        hovermode="x unified",
        showlegend=len(summaries) > 1,
    )
    return figure
