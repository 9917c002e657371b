"""A figure on a page: drawn by plotly in the page's theme, with its title, small print and files."""

from typing import Any

from dash import Output, Patch, dcc, html, no_update
from dash.development.base_component import Component

from asr_dni.dashboard.components import aria
from asr_dni.dashboard.exports import export_links
from asr_dni.dashboard.links import State
from asr_dni.plotting import Figure
from asr_dni.plotting.style import DARK, LIGHT
from asr_dni.plotting.with_plotly import CONFIG, render, trace_data

PLAIN: Any = {**CONFIG, "displayModeBar": False}
"""Plotly's settings of a figure without buttons."""

_NARROWEST = 330
"""Pixels of one of several panels."""

BLANK: Any = {
    "layout": {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "xaxis": {"visible": False},
        "yaxis": {"visible": False},
    }
}
"""What a graph shows until its figure comes, in place of plotly's empty axes."""


def draw(figure: Figure, theme: str | None) -> Any:
    """Return a figure as plotly has it, without its title and small print."""
    return render(figure, DARK if theme == "dark" else LIGHT, captions=False)


def figure_card(name: str, figure: Figure, state: State, theme: str | None) -> Component:
    """Return a figure as a part of a page.

    Args:
        name: of the figure, by which it is had as a file.
        figure: its specification.
        state: what the page shows.
        theme: ``light`` or ``dark``.
    """
    drawing = draw(figure, theme)
    return html.Section(
        [
            _head(figure, state, name),
            html.Div(
                dcc.Graph(
                    id=f"{state.view}-{name}-graph",
                    figure=drawing,
                    config=PLAIN,
                    style={"height": f"{drawing.layout.height}px", **_room(figure)},
                ),
                className="figure-room",
                tabIndex=0 if _room(figure) else None,
                **({"role": "region", **aria(label=figure.title)} if _room(figure) else {}),
            ),
            _foot(figure),
        ],
        className="card",
    )


def _room(figure: Figure) -> dict[str, str]:
    """Return the width that panels beside each other need to be read: a narrower page scrolls them in their card."""
    columns = figure.grid[1]
    return {"minWidth": f"{columns * _NARROWEST}px"} if columns > 1 else {}


def changing_card(name: str) -> Component:
    """Return an empty card, whose figure changes often: :func:`changing_outputs` are what fills it."""
    return html.Section(
        [
            html.Div(id=f"{name}-head"),
            dcc.Graph(id=f"{name}-graph", figure=BLANK, config=PLAIN, style={"height": "420px"}),
            html.Div(id=f"{name}-foot"),
        ],
        className="card",
    )


def changing_outputs(name: str) -> list[Output]:
    """Return the outputs of a callback that fill :func:`changing_card`."""
    return [
        Output(f"{name}-head", "children"),
        Output(f"{name}-graph", "figure"),
        Output(f"{name}-graph", "style"),
        Output(f"{name}-foot", "children"),
    ]


def emptied() -> list[Any]:
    """Return what :func:`changing_outputs` get where there is no figure: the whole card is gone."""
    return [None, BLANK, {"display": "none"}, None]


def changed(name: str, figure: Figure, state: State, theme: str | None) -> list[Any]:
    """Return what :func:`changing_outputs` get; see :func:`figure_card`."""
    drawing = draw(figure, theme)
    # Plotly keeps what was zoomed and hidden as long as this is the same.
    drawing.update_layout(uirevision=name)
    return [_head(figure, state, name), drawing, {"height": f"{drawing.layout.height}px"}, _foot(figure)]


def moved(name: str, figure: Figure, state: State, theme: str | None) -> list[Any]:
    """Return what :func:`changing_outputs` get where axes and legend are those of the figure before.

    A slider is moved many times, and drawing axes takes most of the time.
    """
    patch = Patch()
    patch["data"] = trace_data(figure, DARK if theme == "dark" else LIGHT)
    return [_head(figure, state, name), patch, no_update, _foot(figure)]


def _head(figure: Figure, state: State, name: str) -> Component:
    return html.Div(
        [html.H2(figure.title, className="card-title"), export_links(state, name)], className="card-head"
    )


def _foot(figure: Figure) -> Component | None:
    return html.P(figure.note, className="soft card-note") if figure.note else None
