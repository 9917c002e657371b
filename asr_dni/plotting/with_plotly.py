"""Figures in the browser and in W&B: any specification rendered by plotly, alone, to choose from, or on a page."""

import itertools
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from asr_dni.plotting.direct_labels import labelled_lines, place_labels, vertical_range
from asr_dni.plotting.plotly_traces import DASHES, as_markup, in_template, on_axis, traces_of
from asr_dni.plotting.specification import Axis, Bars, ColorScale, Figure, HeatMap, Line, Panel, Reference
from asr_dni.plotting.style import FAINT_GRID, GRID, LIGHT, Theme, channels

CONFIG: Any = {
    "displaylogo": False,
    "responsive": True,
    "showSendToCloud": False,
    "modeBarButtonsToRemove": ["sendChartToCloud", "select2d", "lasso2d"],
}
"""Of every figure in a browser: nothing of it is offered to another host, and nothing is selected in it."""

_INCH = 96  # pixels, as in CSS
_FONT = "system-ui, 'DejaVu Sans', sans-serif"
_LETTER = 7.5  # pixels, of a label
_LETTERS = 11.5  # to an inch of an axis
_LINE_OF_NOTE = 150  # characters
_NARROW = 34  # characters of an axis' label, on a page that may be narrow


def render(figure: Figure, theme: Theme = LIGHT, captions: bool = True) -> go.Figure:
    """Return a figure as an interactive one: numbers where the pointer is, curves switched by the legend.

    With captions, few lines have their labels at their ends, and no legend.

    Args:
        figure: its specification.
        theme: of the page that it is on.
        captions: whether title and small print are part of it; without them the page shows them, and the legend stands
            below the panels, so that a narrow page leaves these their width.
    """
    rows, columns = figure.grid
    height = figure.panel_size[1] * _INCH
    note = textwrap.wrap(figure.note, _LINE_OF_NOTE)
    top = (75 + 16 * len(note) if captions else 30) + (
        22 if any(panel.x.opposite for panel in figure.panels) else 0
    )
    one_axis = len({panel.y for panel in figure.panels if not panel.message}) <= 1
    drawing = make_subplots(
        rows,
        columns,
        horizontal_spacing=(0.13 if one_axis else 0.25) / columns if columns > 1 else 0.0,
        vertical_spacing=min(100 / (rows * height), 0.8 / (rows - 1)) if rows > 1 else 0.0,
    )
    drawing.add_traces(list(_traces(figure, theme)))
    for place, panel in enumerate(figure.panels):
        number = str(place + 1) if place else ""
        _set_axes(drawing, figure, place, number, theme, None if captions else _NARROW)
        _add_references(drawing, panel, number, theme)
    direct = labelled_lines(figure) if captions else ()
    if direct:
        _label_lines(drawing, figure, direct, theme)
    for place in range(len(figure.panels), rows * columns):
        drawing.update_xaxes(visible=False, row=place // columns + 1, col=place % columns + 1)
        drawing.update_yaxes(visible=False, row=place // columns + 1, col=place % columns + 1)
    if figure.legend is not None:
        drawing.update_layout(legend={"title": {"text": as_markup(figure.legend.title)}})
    drawing.update_layout(
        template="none",
        font={"family": _FONT, "size": 12, "color": theme.ink},
        paper_bgcolor=theme.paper,
        plot_bgcolor=theme.paper,
        margin={
            "t": top,
            "l": 75,
            "r": 30 + max((_LETTER * len(line.label) for line in direct), default=0),
            "b": 65,
        },
        height=round(top + 65 + rows * height),
        hovermode="x unified" if _read_by_column(figure) else "closest",
        hoverlabel={
            "namelength": -1,
            "bgcolor": theme.paper,
            "bordercolor": theme.grid,
            "font": {"color": theme.ink},
        },
        barmode="group",
    )
    if captions:
        drawing.update_layout(
            title={
                "text": f"<b>{as_markup(figure.title)}</b>",
                "subtitle": {"text": as_markup("\n".join(note)), "font": {"size": 11, "color": theme.grey}},
                "x": 0,
                "xref": "container",
                "y": 1,
                "yref": "container",
                "yanchor": "top",
                "pad": {"t": 14, "l": 12},
            },
            legend={"x": 1.02 + 0.1 * len(figure.color_bars()), "xanchor": "left", "y": 1, "yanchor": "top"},
        )
    else:
        drawing.update_layout(
            legend={
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": 0,
                "yref": "container",
                "yanchor": "bottom",
            }
        )
    for place, (scale, name) in enumerate(_color_axes(figure).items()):
        drawing.update_layout({name: _color_axis(scale, 1.02 + 0.1 * place)})
    return drawing


def _label_lines(drawing: go.Figure, figure: Figure, lines: Sequence[Line], theme: Theme) -> None:
    """Write labels at the ends of lines, in place of the legend."""
    panel = figure.panels[0]
    limits = vertical_range(panel)
    drawing.update_traces(showlegend=False)
    drawing.update_yaxes(range=limits)
    for label in place_labels(lines, limits, 16 / (figure.panel_size[1] * _INCH)):
        drawing.add_annotation(
            text=as_markup(label.line.label),
            **{"xref": "paper", "x": 1, "xanchor": "left", "xshift": 6},
            **{"yref": "y", "y": label.y, "yanchor": "middle"},
            showarrow=False,
            font={"size": 12, "color": theme.color(label.line.style.color)},
        )


def trace_data(figure: Figure, theme: Theme = LIGHT) -> list[dict[str, Any]]:
    """Return the traces of what :func:`render` returns, as plain values.

    In their place they change what a picture shows whose axes and legend stay as they are, in a sixth of the time.

    Args:
        figure: its specification.
        theme: of the page that it is on.
    """
    return [trace.to_plotly_json() for trace in _traces(figure, theme)]


def _color_axes(figure: Figure) -> dict[ColorScale, str]:
    return {scale: f"coloraxis{place or ''}" for place, scale in _numbered(figure.color_bars())}


def _traces(figure: Figure, theme: Theme) -> Iterator[Any]:
    """Yield the traces of all panels, each on its axes."""
    bars, named = _color_axes(figure), set[str]()
    for place, panel in enumerate(figure.panels):
        for trace in traces_of(panel, bars, figure.panel_size, theme):
            # One entry in the legend for all panels, which switches them all.
            trace.showlegend = figure.legend is not None and bool(trace.name) and trace.name not in named
            if trace.name:
                named.add(trace.name)
                if figure.legend is not None and figure.legend.title and trace.type != "heatmap":
                    title = in_template(figure.legend.title)
                    trace.hovertemplate = f"%{{hovertext}}<extra>{title} %{{fullData.name}}</extra>"
            number = place + 1 if place else ""
            trace.xaxis, trace.yaxis = f"x{number}", f"y{number}"
            yield trace


def _read_by_column(figure: Figure) -> bool:
    """Return whether all that is at one place of the horizontal axis can be shown together."""
    if any(panel.x.scale == "symlog" for panel in figure.panels):
        return False
    elements = [one for panel in figure.panels for one in panel.elements if not isinstance(one, Reference)]
    places = [set(one.x) for one in elements if isinstance(one, Line) and one.x]
    # Curves that were measured at other places have nothing at the same one.
    return all(isinstance(one, Line) for one in elements) and all(
        one & other for one, other in itertools.combinations(places, 2)
    )


def _numbered(scales: Mapping[ColorScale, Any]) -> Iterator[tuple[int, ColorScale]]:
    for place, scale in enumerate(scales):
        yield (place + 1 if place else 0), scale


def _color_axis(scale: ColorScale, x: float) -> dict[str, Any]:
    low, high = scale.limits
    ticks = scale.ticks
    bar: dict[str, Any] = {
        "title": {"text": as_markup(scale.label), "side": "right"},
        "thickness": 14,
        "outlinewidth": 0,
        "x": x,
    }
    if ticks:
        texts = [as_markup(tick.text) for tick in ticks]
        # matplotlib's colour bars have a tip where numbers go on.
        if scale.extend in ("min", "both"):
            texts[0] = f"≤ {texts[0]}"
        if scale.extend in ("max", "both"):
            texts[-1] = f"≥ {texts[-1]}"
        bar |= {"tickmode": "array", "tickvals": [tick.value for tick in ticks], "ticktext": texts}
    return {"colorscale": list(scale.stops), "cmin": low, "cmax": high, "colorbar": bar}


def _set_axes(
    drawing: go.Figure, figure: Figure, place: int, number: str, theme: Theme, narrow: int | None
) -> None:
    panel = figure.panels[place]
    wide = [int(_LETTERS * size) for size in figure.panel_size]
    letters = wide if narrow is None else [min(narrow, size) for size in wide]
    x: dict[str, Any] = {"anchor": f"y{number}"}
    y: dict[str, Any] = {"anchor": f"x{number}"}
    # By the paper: an axis without data is none that anything can be placed by.
    (left_end, right_end), (low_end, high_end) = (
        drawing.layout[f"{name}axis{number}"].domain for name in "xy"
    )
    if panel.title:
        drawing.add_annotation(
            text=as_markup(panel.title),
            **{"xref": "paper", "x": left_end, "xanchor": "left"},
            **{"yref": "paper", "y": high_end, "yanchor": "bottom"},
            yshift=22 if panel.x.opposite else 0,
            showarrow=False,
            font={"size": 13},
        )
    if panel.message:
        x |= {"visible": False}
        y |= {"visible": False}
        drawing.add_annotation(
            text=as_markup(panel.message),
            **{"xref": "paper", "x": (left_end + right_end) / 2, "xanchor": "center"},
            **{"yref": "paper", "y": (low_end + high_end) / 2, "yanchor": "middle"},
            showarrow=False,
            font={"color": theme.grey},
        )
    else:
        below, left = figure.neighbour(place, "below"), figure.neighbour(place, "left")
        grid = any(isinstance(one, HeatMap) and one.colors.bar for one in panel.elements)
        x["unifiedhovertitle"] = {"text": f"{in_template(panel.x.label)} %{{x}}"}
        x |= _axis(
            panel.x,
            letters[0],
            below is None or below.x != panel.x,
            grid,
            theme.color(FAINT_GRID),
        )
        same = left is not None and left.y == panel.y
        y |= _axis(panel.y, letters[1], not same, grid, theme.color(GRID))
        if same and panel.y.scale != "category":
            first = place - place % figure.grid[1]
            y |= {"showticklabels": False, "matches": f"y{first + 1 if first else ''}"}
        _add_opposite(drawing, panel.x, number, theme)
    drawing.update_layout({f"xaxis{number}": x, f"yaxis{number}": y})


def _axis(axis: Axis, width: int, labelled: bool, grid: bool, color: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "log" if axis.scale == "log" else "linear",
        "zeroline": False,
        "showgrid": not grid,
        "gridcolor": color,
        "automargin": True,
        "ticks": "",
        "title": {"text": as_markup(axis.wrapped(width)) if labelled else "", "standoff": 8},
    }
    ticks = axis.all_ticks or axis.powers
    if ticks:
        values = on_axis(axis, [tick.value for tick in ticks])
        found |= {
            "tickmode": "array",
            "tickvals": values,
            "ticktext": [as_markup(tick.text) for tick in ticks],
        }
    if axis.all_limits is not None:
        found["range"] = _coordinates(axis, axis.all_limits)
    return found


def _coordinates(axis: Axis, values: Sequence[float]) -> list[float | None]:
    """Return where numbers are, as ranges and annotations have it: by their logarithms on logarithmic axes."""
    if axis.scale == "log":
        return [math.log10(value) for value in values]
    return on_axis(axis, values)


def _add_opposite(drawing: go.Figure, axis: Axis, number: str, theme: Theme) -> None:
    """Write the ticks above a panel; as annotations, since an axis without data is not shown."""
    for tick, at in zip(
        axis.opposite, _coordinates(axis, [tick.value for tick in axis.opposite]), strict=True
    ):
        drawing.add_annotation(
            text=as_markup(tick.text),
            xref=f"x{number}",
            yref=f"y{number} domain",
            x=at,
            y=1,
            yanchor="bottom",
            showarrow=False,
            font={"size": 10, "color": theme.grey},
        )
    if axis.opposite_label:
        drawing.add_annotation(
            text=as_markup(axis.opposite_label),
            xref=f"x{number} domain",
            yref=f"y{number} domain",
            x=1,
            y=1,
            yshift=16,
            xanchor="right",
            yanchor="bottom",
            showarrow=False,
            font={"size": 10, "color": theme.grey},
        )


def _add_references(drawing: go.Figure, panel: Panel, number: str, theme: Theme) -> None:
    for reference in panel.elements:
        if not isinstance(reference, Reference):
            continue
        vertical = reference.axis == "x"
        axis = panel.x if vertical else panel.y
        along, across = ("x", "y") if vertical else ("y", "x")
        # Shapes are placed by numbers, annotations by their logarithms.
        (value,) = on_axis(axis, [reference.value])
        (at,) = _coordinates(axis, [reference.value])
        drawing.add_shape(
            type="line",
            layer="above" if any(isinstance(one, Bars) for one in panel.elements) else "below",
            line={"color": theme.color(reference.color), "dash": DASHES[reference.dash], "width": 1.2},
            **{f"{along}ref": f"{along}{number}", f"{along}0": value, f"{along}1": value},
            **{f"{across}ref": f"{across}{number} domain", f"{across}0": 0, f"{across}1": 1},
        )
        if reference.label:
            drawing.add_annotation(
                text=as_markup(reference.label),
                showarrow=False,
                font={"size": 11, "color": theme.color(reference.color)},
                bgcolor=_veil(theme),
                borderpad=0,
                **{f"{along}ref": f"{along}{number}", along: at},
                **{f"{across}ref": f"{across}{number} domain", across: 1 if vertical else 0},
                xanchor="left",
                yanchor="top",
            )


def _veil(theme: Theme) -> str:
    """Return the colour behind what is written on the data."""
    red, green, blue = channels(theme.paper)
    return f"rgba({red},{green},{blue},0.7)"
