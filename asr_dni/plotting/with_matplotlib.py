"""Figures as files: any specification rendered by matplotlib, without pyplot and its global state."""

import io
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import AutoMinorLocator, FixedLocator, FuncFormatter, LogLocator, NullLocator

from asr_dni.files import write_atomically
from asr_dni.plotting.direct_labels import DirectLabel, labelled_lines, place_labels
from asr_dni.plotting.specification import (
    Axis,
    Bars,
    ColorScale,
    Figure,
    HeatMap,
    Line,
    Panel,
    Points,
    Reference,
    Series,
)
from asr_dni.plotting.style import (
    BAND_OPACITY,
    FAINT_GRID,
    FRAME,
    GREY,
    GRID,
    INK,
    NO_VALUE,
    PAPER,
    blend,
    readable_on,
)

Format: TypeAlias = Literal["png", "svg", "pdf"]

_RC: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.edgecolor": FRAME,
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "svg.fonttype": "none",
    "svg.hashsalt": "figure",
}
_MARKERS = {
    "circle": "o",
    "square": "s",
    "triangle": "^",
    "diamond": "D",
    "triangle down": "v",
    "plus": "P",
    "cross": "X",
    "none": "",
}
_DASHES: dict[str, Any] = {
    "solid": "-",
    "dash": "--",
    "dot": (0, (1, 2)),
    "dashdot": "-.",
    "none": "",
}
_DPI = 160
_LETTERS = 120  # of one point to an inch
_BARS_WIDTH = 0.8  # of all bars at one place together
# A fixed date and id salt: the same figure gives the same file.
_METADATA: dict[Format, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


class _Sizes:
    """Sizes of type, in points: smaller where panels are."""

    def __init__(self, figure: Figure) -> None:
        small = figure.panel_size[0] < 5
        self.label = 8.5 if small else 10.0
        self.ticks = 8.0 if small else 9.5
        self.top = 7.0 if small else 8.5
        self.legend = 8.5 if small else 9.5
        self.lines = 0.8 if small else 1.0


def _math(text: str) -> str:
    """Set ``σ_name`` with a subscript, and everything else as it is."""
    return re.sub(r"([α-ωΑ-Ω])_([A-Za-z]+)", r"$\1_\\mathrm{\2}$", text.replace("$", r"\$"))


class Drawing(MatplotlibFigure):
    """matplotlib's figure; a notebook shows it without pyplot, which would keep all figures."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=100)
        return file.getvalue()


def render(figure: Figure) -> Drawing:
    """Return a figure drawn by matplotlib; see :func:`save`."""
    with matplotlib.rc_context(_RC):
        sizes = _Sizes(figure)
        rows, columns = figure.grid
        direct = labelled_lines(figure)
        entries = [] if direct else figure.legend_entries()
        names = [textwrap.fill(entry.label, 30) for entry in entries]
        beside = _legend_width(names or [line.label for line in direct], figure) if entries or direct else 0.0
        width = max(columns * figure.panel_size[0] + max(beside, 0.4), 6.6)
        size = (width - max(beside, 0.4)) / columns, figure.panel_size[1]
        note = textwrap.fill(figure.note, int(15.5 * width))
        title = textwrap.fill(figure.title, int(8.2 * width))
        above_and_below = 0.45 + 0.25 * title.count("\n") + 0.14 * (1 + note.count("\n"))
        # A legend of many or long labels needs height as well.
        legend = 0.6 + sum(0.1 + 0.16 * (1 + name.count("\n")) for name in names) if names else 0.0
        drawing = Drawing(
            figsize=(width, max(rows * figure.panel_size[1], legend) + above_and_below),
            dpi=_DPI,
            layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08),
        )
        drawing.suptitle(_math(title), x=0.012, ha="left", fontsize=12.5, fontweight="bold")
        if note:
            drawing.supxlabel(_math(note), x=0.012, ha="left", fontsize=7.5, color=GREY)
        grid = list(drawing.subplots(rows, columns, squeeze=False).ravel())
        for place, (axes, panel) in enumerate(zip(grid, figure.panels, strict=False)):
            _draw_panel(axes, panel, sizes, size)
            _label_axes(axes, figure, place, sizes, size)
        for label in _placed(direct, grid[0], size[1], sizes):
            grid[0].text(
                1.012,
                label.y,
                _math(label.line.label),
                transform=grid[0].get_yaxis_transform(),
                va="center",
                color=label.line.style.color,
                fontsize=sizes.legend,
            )
        for spare in grid[len(figure.panels) :]:
            spare.set_axis_off()
        for scale, places in figure.color_bars().items():
            _draw_color_bar(drawing, [grid[place] for place in dict.fromkeys(places)], scale, sizes)
        if entries and figure.legend is not None:
            drawing.legend(
                handles=[_legend_handle(entry, name) for entry, name in zip(entries, names, strict=True)],
                title=_math(figure.legend.title) or None,
                loc="outside right upper",
                frameon=False,
                fontsize=sizes.legend,
                title_fontsize=sizes.legend,
                alignment="left",
                handlelength=2.4,
                labelspacing=0.6,
            )
    return drawing


def _placed(lines: Sequence[Line], axes: Axes, height: float, sizes: _Sizes) -> Sequence[DirectLabel]:
    """Return the labels of lines, an axis being about an inch less high than its panel."""
    if not lines:
        return ()
    low, high = axes.get_ylim()
    return place_labels(lines, (low, high), 1.25 * sizes.legend / 72 / max(height - 1.0, 1.0))


def _legend_width(names: Sequence[str], figure: Figure) -> float:
    assert figure.legend is not None
    longest = max(len(line) for name in (*names, figure.legend.title) for line in name.split("\n"))
    return 0.75 + 0.075 * longest


def _legend_handle(entry: Series | HeatMap, name: str) -> Any:
    if isinstance(entry, HeatMap):
        return Patch(color=blend(entry.colors.stops, 1.0), label=_math(name))
    if isinstance(entry, Bars):
        return Patch(color=entry.style.color, label=_math(name))
    look = _look(entry, 1.0)
    return Line2D([], [], **(look | {"markersize": 4.8}), label=_math(name))


def _look(series: Series, scale: float) -> dict[str, Any]:
    style = series.style
    unjoined = isinstance(series, Points) and not series.joined
    return {
        "color": style.color,
        "linestyle": "" if unjoined else _DASHES[style.dash],
        "linewidth": scale * style.width,
        "marker": _MARKERS[style.marker],
        "markersize": scale * style.size,
        "markeredgecolor": PAPER,
        "markeredgewidth": 0.6 * scale,
    }


def _draw_panel(axes: Axes, panel: Panel, sizes: _Sizes, size: tuple[float, float]) -> None:
    if panel.title:
        axes.set_title(_math(panel.title), fontsize=10, loc="left")
    if panel.message:
        axes.set_axis_off()
        axes.text(0.5, 0.5, _math(panel.message), transform=axes.transAxes, ha="center", color=GREY)
        return
    maps = [element for element in panel.elements if isinstance(element, HeatMap)]
    bars = [element for element in panel.elements if isinstance(element, Bars)]
    for element in panel.elements:
        if isinstance(element, HeatMap):
            _draw_map(axes, element, size)
        elif isinstance(element, Reference):
            _draw_reference(axes, element)
        elif isinstance(element, Bars):
            _draw_bars(axes, element, bars.index(element), len(bars))
        else:
            _draw_series(axes, element, sizes)
    _set_axis(axes, "x", panel.x, sizes, size[0])
    _set_axis(axes, "y", panel.y, sizes, size[1])
    _draw_grid(axes, panel, sizes, maps[0].shape if maps else None)
    if panel.x.opposite:
        _draw_opposite(axes, panel.x, sizes)


def _draw_series(axes: Axes, series: Series, sizes: _Sizes) -> None:
    look = _look(series, sizes.lines)
    if isinstance(series, Points):
        axes.errorbar(series.x, series.y, yerr=_errors(series), elinewidth=0.9, zorder=3, **look)
        return
    if series.has_interval:
        axes.fill_between(
            series.x, series.low, series.high, color=series.style.color, alpha=BAND_OPACITY, linewidth=0
        )
    axes.plot(series.x, series.y, label=series.label, zorder=3, **look)


def _errors(series: Series) -> Any:
    """Return how far the intervals go below and above, ``(2, N)``; 0 where there is none."""
    if not series.low:
        return None
    y, low, high = (np.array(values) for values in (series.y, series.low, series.high))
    return np.nan_to_num(np.stack([y - low, high - y])).clip(min=0)


def _draw_bars(axes: Axes, bars: Bars, index: int, number: int) -> None:
    width = _BARS_WIDTH / number
    places = np.array(bars.x) + (index - (number - 1) / 2) * width
    look: dict[str, Any] = {"color": bars.style.color, "ecolor": INK, "error_kw": {"elinewidth": 0.9}}
    if bars.horizontal:
        axes.barh(places, bars.y, 0.92 * width, xerr=_errors(bars), **look)
    else:
        axes.bar(places, bars.y, 0.92 * width, yerr=_errors(bars), **look)


def _draw_reference(axes: Axes, reference: Reference) -> None:
    line: dict[str, Any] = {
        "color": reference.color,
        "linestyle": _DASHES[reference.dash],
        "linewidth": 1.1,
        "zorder": 2,
    }
    veil = {"facecolor": PAPER, "alpha": 0.7, "pad": 0.5, "linewidth": 0}
    text: dict[str, Any] = {
        "textcoords": "offset points",
        "fontsize": 8,
        "color": reference.color,
        "bbox": veil,
    }
    if reference.axis == "y":
        axes.axhline(reference.value, **line)
        place, coordinates = (0.01, reference.value), ("axes fraction", "data")
        text |= {"xytext": (0, -3), "va": "top"}
    else:
        axes.axvline(reference.value, **line)
        place, coordinates = (reference.value, 0.99), ("data", "axes fraction")
        text |= {"xytext": (3, 0), "va": "top", "rotation": 90}
    if reference.label:
        axes.annotate(_math(reference.label), place, xycoords=coordinates, **text)


def _set_axis(axes: Axes, name: Literal["x", "y"], axis: Axis, sizes: _Sizes, length: float) -> None:
    own = axes.xaxis if name == "x" else axes.yaxis
    set_scale = axes.set_xscale if name == "x" else axes.set_yscale
    set_ticks = axes.set_xticks if name == "x" else axes.set_yticks
    ticks = axis.all_ticks
    if axis.scale == "log":
        set_scale("log")
        own.set_major_locator(LogLocator(subs=(1, 2, 5)))
    elif axis.scale == "symlog":
        set_scale("symlog", linthresh=axis.linear_within)
        own.set_major_locator(FixedLocator([tick.value for tick in axis.powers]))
    elif not ticks:
        own.set_minor_locator(AutoMinorLocator(2))
    if axis.scale in ("log", "symlog"):
        own.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
        own.set_minor_locator(NullLocator())
    if ticks:
        set_ticks([tick.value for tick in ticks], [_math(tick.text) for tick in ticks])
    if axis.all_limits is not None:
        (axes.set_xlim if name == "x" else axes.set_ylim)(*axis.all_limits)
    axes.tick_params(axis=name, which="both", length=0, labelsize=sizes.ticks)
    longest = max((len(tick.text) for tick in ticks), default=0)
    if name == "x" and longest > 4 and longest * len(ticks) * sizes.ticks > _LETTERS * (length - 0.7):
        axes.tick_params(axis="x", labelrotation=40)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
            label.set_rotation_mode("anchor")


def _draw_grid(axes: Axes, panel: Panel, sizes: _Sizes, cells: tuple[int, int] | None) -> None:
    for side in ("top", "right", "left") if cells is None else axes.spines:
        axes.spines[side].set_visible(False)
    axes.set_axisbelow(True)
    if cells is not None and any(isinstance(one, HeatMap) and one.colors.bar for one in panel.elements):
        axes.set_facecolor(NO_VALUE)
    else:
        axes.grid(which="major", axis="y", color=GRID, linewidth=0.7)
        axes.grid(which="minor", axis="y", color=FAINT_GRID, linewidth=0.6)
        axes.grid(which="major", axis="x", color=FAINT_GRID, linewidth=0.6)
    if cells is not None:
        for axis, number in ((axes.xaxis, cells[1]), (axes.yaxis, cells[0])):
            # White lines between the cells, over them.
            for edge in np.arange(number + 1) - 0.5:
                line = axes.axvline if axis is axes.xaxis else axes.axhline
                line(edge, color=PAPER, linewidth=1.2, zorder=2)


def _draw_opposite(axes: Axes, axis: Axis, sizes: _Sizes) -> None:
    top = axes.secondary_xaxis("top")
    top.set_xticks([tick.value for tick in axis.opposite], [tick.text for tick in axis.opposite])
    top.xaxis.set_minor_locator(NullLocator())
    top.tick_params(colors=GREY, labelsize=sizes.top, length=0, pad=2)
    top.spines["top"].set_visible(False)
    top.set_xlabel(_math(axis.opposite_label), color=GREY, fontsize=sizes.top, labelpad=4)


def _label_axes(axes: Axes, figure: Figure, place: int, sizes: _Sizes, size: tuple[float, float]) -> None:
    """Label the axes where the panel beside has not the same."""
    panel = figure.panels[place]
    if panel.message:
        return
    letters = 16.0 if sizes.label < 10 else 13.0  # to an inch
    below, left = figure.neighbour(place, "below"), figure.neighbour(place, "left")
    if below is None or below.x != panel.x:
        text = panel.x.wrapped(int(letters * (size[0] - 0.5)))
        axes.set_xlabel(_math(text), fontsize=sizes.label)
    if left is None or left.y != panel.y:
        text = panel.y.wrapped(int(letters * (size[1] - 0.5)))
        axes.set_ylabel(_math(text), fontsize=sizes.label)
    elif panel.y.scale != "category":
        axes.tick_params(axis="y", labelleft=False)


def _color_map(scale: ColorScale) -> tuple[LinearSegmentedColormap, Normalize]:
    return LinearSegmentedColormap.from_list("scale", list(scale.stops)), Normalize(*scale.limits, clip=True)


def _draw_map(axes: Axes, heat: HeatMap, size: tuple[float, float]) -> None:
    colors, norm = _color_map(heat.colors)
    values = np.ma.masked_invalid(np.array(heat.values))
    axes.imshow(values, cmap=colors, norm=norm, aspect="auto", origin="lower", interpolation="nearest")
    if not heat.text:
        return
    large = 7.4 * heat.room(size)

    def write(x: float, y: float, text: str, size: float, ink: str, bold: bool = False) -> None:
        weight = "bold" if bold else "normal"
        written = axes.text(
            x, y, text, ha="center", va="center", fontsize=size, color=ink, weight=weight, zorder=4
        )
        # It lies within the axes: measuring it takes most of the time of a layout.
        written.set_in_layout(False)

    for row, column, value in heat.cells():
        if np.isnan(value):
            write(column, row, "–", large, GREY)
            continue
        cell, ink = heat.text[row][column], readable_on(blend(heat.colors.stops, heat.colors.share(value)))
        write(column, row + (0.13 if cell.small else 0), _math(cell.text), large, ink, cell.bold)
        if cell.small:
            write(column, row - 0.24, _math(cell.small), 0.7 * large, ink)


def _draw_color_bar(drawing: Drawing, panels: Sequence[Axes], scale: ColorScale, sizes: _Sizes) -> None:
    colors, norm = _color_map(scale)
    bar = drawing.colorbar(
        ScalarMappable(norm, colors),
        ax=list(panels),
        fraction=0.03,
        pad=0.015,
        aspect=28,
        extend=scale.extend,
    )
    bar.set_label(_math(scale.label), fontsize=sizes.label)
    bar.ax.tick_params(labelsize=sizes.ticks, length=2)
    bar.outline.set_visible(False)
    if scale.ticks:
        bar.set_ticks([tick.value for tick in scale.ticks], labels=[tick.text for tick in scale.ticks])


def save(
    figure: Figure | MatplotlibFigure, stem: Path | str, formats: Sequence[Format] = ("png", "svg")
) -> list[Path]:
    """Write a figure, each file whole or not at all; the same figure gives the same files.

    Args:
        figure: its specification, or what :func:`render` made of it.
        stem: path without ending; its directory is made if it does not exist.
        formats: the endings.

    Returns:
        The paths.
    """
    drawing = render(figure) if isinstance(figure, Figure) else figure
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind in formats:
        path = stem.parent / f"{stem.name}.{kind}"
        with matplotlib.rc_context(_RC), write_atomically(path) as temporary:
            drawing.savefig(temporary, format=kind, metadata=_METADATA[kind])
            if drawing is not figure:
                drawing.set_layout_engine(
                    "none"
                )  # the first file's layout is that of all: it takes most of the time
        paths.append(path)
    return paths
