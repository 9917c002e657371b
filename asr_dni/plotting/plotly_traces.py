"""What a specification's elements are to plotly: its traces, and its markup."""

import html
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from asr_dni.plotting.specification import Axis, Bars, ColorScale, HeatMap, Panel, Points, Series
from asr_dni.plotting.style import BAND_OPACITY, LIGHT, Theme, blend, channels, readable_on

_MARKERS = {
    "circle": "circle",
    "square": "square",
    "triangle": "triangle-up",
    "diamond": "diamond",
    "triangle down": "triangle-down",
    "plus": "cross",
    "cross": "x",
    "none": "circle",
}
_CELLS_APART = 24
"""To a side of a map, at most: more cells would be mostly gaps."""

DASHES = {"solid": "solid", "dash": "dash", "dot": "dot", "dashdot": "dashdot", "none": "solid"}
"""Plotly's names of dashes."""


def as_markup(text: str) -> str:
    """Return plain text as plotly's markup: ``σ_name`` with a subscript, line breaks, and nothing else of it."""
    escaped = html.escape(text, quote=False)
    return re.sub(r"([α-ωΑ-Ω])_([A-Za-z]+)", r"\1<sub>\2</sub>", escaped).replace("\n", "<br>")


def in_template(text: str) -> str:
    """Return plain text as part of a template for what the pointer shows, where ``%{`` would begin a variable."""
    return as_markup(text).replace("%{", "%&#123;")


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _rgba(color: str, opacity: float) -> str:
    red, green, blue = channels(color)
    return f"rgba({red},{green},{blue},{opacity})"


def on_axis(axis: Axis, values: Sequence[float]) -> list[float | None]:
    """Return numbers as they are given to plotly.

    It has no axis that is linear near 0 and logarithmic beyond, so that those of the scale ``symlog`` are placed on a
    linear one.
    """
    if axis.scale != "symlog":
        return [_number(value) for value in values]
    return [_number(axis.placed(value)) for value in values]


def traces_of(
    panel: Panel, bars: Mapping[ColorScale, str], size: tuple[float, float], theme: Theme = LIGHT
) -> Iterator[Any]:
    """Yield the traces of a panel's elements; reference lines are none.

    Args:
        panel: the panel.
        bars: the names of plotly's colour axes, by the scales that have a colour bar.
        size: of the panel, in inches.
        theme: of the page.
    """
    for element in panel.elements:
        if isinstance(element, HeatMap):
            yield _heat_map(element, bars, size)
        elif isinstance(element, Bars):
            yield _bars(element, panel, theme)
        elif isinstance(element, Series):
            if element.has_interval and not isinstance(element, Points):
                yield _band(element, panel, theme)
            yield _scatter(element, panel, theme)


def _hover_of(series: Series, panel: Panel) -> list[str]:
    """Return what is shown at each point: its own texts, or its number with its interval."""
    if series.hover:
        return [as_markup(text) for text in series.hover]
    texts = []
    for place, (x, value) in enumerate(zip(series.x, series.y, strict=True)):
        ticks = {tick.value: tick.text for tick in panel.x.all_ticks} if panel.x.categories else {}
        text = f"{ticks.get(x, f'{x:g}')}: {value:.4g}"
        if series.low and math.isfinite(series.low[place]):
            text += f" [{series.low[place]:.4g}, {series.high[place]:.4g}]"
        texts.append(as_markup(text.replace("-", "−")))
    return texts


def _scatter(series: Series, panel: Panel, theme: Theme) -> go.Scatter:
    style, points = series.style, isinstance(series, Points)
    color = theme.color(style.color)
    joined = not isinstance(series, Points) or series.joined
    lines = joined and style.dash != "none"
    markers = style.marker != "none"
    return go.Scatter(
        x=on_axis(panel.x, series.x),
        y=on_axis(panel.y, series.y),
        error_y=_errors(series, panel.y) if points else None,
        name=as_markup(series.label),
        legendgroup=as_markup(series.label),
        mode="+".join([*(["lines"] if lines else []), *(["markers"] if markers else [])]) or "none",
        line={"color": color, "dash": DASHES[style.dash], "width": style.width},
        marker={
            "symbol": _MARKERS[style.marker],
            "color": color,
            "size": 1.5 * style.size,
            "line": {"color": theme.paper, "width": 0.7},
        },
        hovertext=_hover_of(series, panel),
        hovertemplate="%{hovertext}" if series.label else "%{hovertext}<extra></extra>",
    )


def _errors(series: Series, axis: Axis) -> dict[str, Any] | None:
    """Return how far the intervals go from the numbers, as they are on the axis; 0 where there is none."""
    if not series.has_interval:
        return None
    y, low, high = (on_axis(axis, values) for values in (series.y, series.low, series.high))
    return {
        "type": "data",
        "symmetric": False,
        "array": [_distance(*pair) for pair in zip(y, high, strict=True)],
        "arrayminus": [_distance(*pair) for pair in zip(low, y, strict=True)],
        "thickness": 1.2,
        "width": 0,
    }


def _distance(low: float | None, high: float | None) -> float:
    return 0.0 if low is None or high is None else max(high - low, 0.0)


def _band(series: Series, panel: Panel, theme: Theme) -> go.Scatter:
    """Return the intervals as an area, in pieces where there is none between."""
    x: list[float | None] = []
    y: list[float | None] = []
    places, low, high = (
        on_axis(panel.x, series.x),
        on_axis(panel.y, series.low),
        on_axis(panel.y, series.high),
    )
    known = [a is not None and b is not None for a, b in zip(low, high, strict=True)]
    start = 0
    while start < len(places):
        end = start
        while end < len(places) and known[end]:
            end += 1
        if end > start:
            x += ([None] if x else []) + places[start:end] + places[start:end][::-1]
            y += ([None] if y else []) + high[start:end] + low[start:end][::-1]
        start = end + 1
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        fill="toself",
        fillcolor=_rgba(theme.color(series.style.color), BAND_OPACITY),
        line={"width": 0},
        hoverinfo="skip",
        legendgroup=as_markup(series.label),
    )


def _bars(bars: Bars, panel: Panel, theme: Theme) -> go.Bar:
    along, across = ("y", "x") if bars.horizontal else ("x", "y")
    errors = _errors(bars, getattr(panel, across))
    return go.Bar(
        **{along: on_axis(getattr(panel, along), bars.x), across: on_axis(getattr(panel, across), bars.y)},
        **({f"error_{across}": errors | {"color": theme.ink}} if errors else {}),
        orientation="h" if bars.horizontal else "v",
        name=as_markup(bars.label),
        legendgroup=as_markup(bars.label),
        marker={"color": theme.color(bars.style.color)},
        hovertext=_hover_of(bars, panel),
        hovertemplate="%{hovertext}" if bars.label else "%{hovertext}<extra></extra>",
    )


def _heat_map(heat: HeatMap, bars: Mapping[ColorScale, str], size: tuple[float, float]) -> go.Heatmap:
    rows, columns = heat.shape
    gap = 1.5 if heat.text or max(heat.shape) <= _CELLS_APART else 0.0
    colors: dict[str, Any] = {"coloraxis": bars[heat.colors]} if heat.colors in bars else {}
    if not colors:
        low, high = heat.colors.limits
        colors = {"colorscale": list(heat.colors.stops), "zmin": low, "zmax": high, "showscale": False}
    # The lowest row of a map is the first one for both libraries.
    return go.Heatmap(
        x=list(range(columns)),
        y=list(range(rows)),
        z=[[_number(value) for value in row] for row in heat.values],
        text=[[_cell(heat, row, column) for column in range(columns)] for row in range(rows)]
        if heat.text
        else None,
        texttemplate="%{text}" if heat.text else None,
        textfont={"size": round(8.8 * heat.room(size), 1)},
        hovertext=[[as_markup(text) for text in row] for row in heat.hover] or None,
        hovertemplate="%{hovertext}<extra></extra>" if heat.hover else "%{z:.4g}<extra></extra>",
        hoverongaps=False,
        name=as_markup(heat.label),
        legendgroup=as_markup(heat.label),
        xgap=gap,
        ygap=gap,
        **colors,
    )


def _cell(heat: HeatMap, row: int, column: int) -> str:
    value, cell = heat.values[row][column], heat.text[row][column]
    if math.isnan(value):
        return "–"
    text = f"<b>{as_markup(cell.text)}</b>" if cell.bold else as_markup(cell.text)
    if cell.small:
        text += f"<br><span style='font-size:70%'>{as_markup(cell.small)}</span>"
    ink = readable_on(blend(heat.colors.stops, heat.colors.share(value)))
    return f"<span style='color:{ink}'>{text}</span>"
