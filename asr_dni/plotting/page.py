"""Figures of plotly on a page that needs no network, with choices among figures by plotly's own menus."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
import plotly.io

from asr_dni.plotting.plotly_traces import as_markup
from asr_dni.plotting.specification import Figure
from asr_dni.plotting.with_plotly import render

# An axis that a figure has not: where it would be by default it lies over the whole figure, and takes its pointer.
_OUT_OF_THE_WAY = {"visible": False, "domain": [0, 0.001]}
_CONFIG = {"displaylogo": False, "responsive": True}


def render_choice(figures: Mapping[str, Figure]) -> go.Figure:
    """Return several figures as one, with a menu that shows one of them.

    Args:
        figures: by what the menu calls them; the first is shown at first. One alone has no menu.

    Raises:
        ValueError: there is none.
    """
    if not figures:
        raise ValueError("there is no figure to choose from")
    drawings = [render(figure) for figure in figures.values()]
    if len(drawings) == 1:
        return drawings[0]
    layouts = [drawing.to_plotly_json()["layout"] for drawing in drawings]
    axes = {name: _OUT_OF_THE_WAY for layout in layouts for name in layout if name[1:5] == "axis"}
    bars = {
        name: {"showscale": False} for layout in layouts for name in layout if name.startswith("coloraxis")
    }
    # What another figure has and this one has not must not stay.
    absent: dict[str, Any] = axes | bars | {"annotations": [], "shapes": []}
    layouts = [absent | layout for layout in layouts]
    template = layouts[0].pop("template", None)
    owners = [place for place, drawing in enumerate(drawings) for _ in drawing.data]
    choice = go.Figure(
        [trace for drawing in drawings for trace in drawing.data], layouts[0] | {"template": template}
    )
    buttons = []
    for place, (name, layout) in enumerate(zip(figures, layouts, strict=True)):
        shown = [owner == place for owner in owners]
        if place == 0:
            for trace, visible in zip(choice.data, shown, strict=True):
                trace.visible = visible
        changed = {key: value for key, value in layout.items() if key != "template"}
        buttons.append({"label": as_markup(name), "method": "update", "args": [{"visible": shown}, changed]})
    choice.update_layout(
        updatemenus=[
            {
                "buttons": buttons,
                "type": "dropdown",
                "x": 1,
                "xanchor": "right",
                "y": 1,
                "yanchor": "bottom",
                "pad": {"b": 48},
                "showactive": True,
            }
        ]
    )
    return choice


def page(title: str, parts: Sequence[str | go.Figure], style: str = "") -> str:
    """Return an HTML page that needs nothing else: plotly's library is in it, once.

    Args:
        title: the page's, as plain text.
        parts: what is on it, in this order: HTML, and figures of plotly.
        style: CSS.
    """
    body, figures = [], 0
    for part in parts:
        if isinstance(part, str):
            body.append(part)
            continue
        body.append(
            plotly.io.to_html(
                part,
                config=_CONFIG,
                full_html=False,
                include_plotlyjs=figures == 0,
                div_id=f"figure-{figures + 1}",
            )
        )
        figures += 1
    return (
        "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{style}</style></head><body>"
        f"{''.join(body)}</body></html>\n"
    )
