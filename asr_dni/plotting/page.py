"""Figures of plotly on a page that needs no network, with choices among figures by plotly's own menus."""

import html
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
import plotly.io

from asr_dni.plotting.plotly_traces import as_markup
from asr_dni.plotting.specification import Figure
from asr_dni.plotting.with_plotly import CONFIG, render

# An axis that a figure has not: where it would be by default it lies over the whole figure, and takes its pointer.
_OUT_OF_THE_WAY = {"visible": False, "domain": [0, 0.001]}
_MOST_NOTES = 4
_LEAST_WIDTH = 310  # of a panel with its axis, in pixels
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline';"
    " img-src data: blob:; font-src data:"
)
"""Nothing is loaded from anywhere, whatever a library would like."""

# In the dark, figures are the negatives of those on paper, hues kept; heat maps, whose colours are a scale, stay as
# they are. More brightness would make the first of an order of colours white, less the last too dark to be seen (3:1).
# In print they are as wide as paper, whatever the window was.
_STYLE = """
:root { color-scheme: light dark; }
figure { margin: 1em 0; } figcaption { font-weight: 600; }
.note { color: #5c5c5c; font-size: .8em; margin: .3em 0; }
.drawing { overflow-x: auto; }
@media screen and (max-width: 700px) { .drawing[role=group]::before { content: "Swipe sideways for all of it";
  position: sticky; left: 0; color: GrayText; font-size: .8em; } }
@media screen and (prefers-color-scheme: dark) {
  .note { color: #b4b4b4; }
  .drawing .main-svg { background: transparent !important; } .drawing .bg { fill: transparent !important; }
  .drawing .js-plotly-plot { filter: invert(1) hue-rotate(180deg) brightness(1.08); }
  .drawing .heatmaplayer, .drawing .cbfills { filter: brightness(.926) hue-rotate(180deg) invert(1); }
}
@media print { :root { color-scheme: light; }
  figure { min-height: 0 !important; } .drawing { overflow: visible; zoom: .6; }
  .modebar { display: none; } }
"""


def render_choice(figures: Mapping[str, Figure], captions: bool = True) -> go.Figure:
    """Return several figures as one, with a menu that shows one of them.

    Args:
        figures: by what the menu calls them; the first is shown at first. One alone has no menu.
        captions: whether title and small print are part of it, see :func:`~asr_dni.plotting.with_plotly.render`.

    Raises:
        ValueError: there is none.
    """
    if not figures:
        raise ValueError("there is no figure to choose from")
    drawings = [render(figure, captions=captions) for figure in figures.values()]
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


def page(title: str, parts: Sequence[str | Figure | Mapping[str, Figure]], style: str = "") -> str:
    """Return an HTML page that needs nothing else: plotly's library is in it, once, and nothing may be loaded.

    It follows the reader's choice of light or dark, is light in print, and fits a phone.

    Args:
        title: the page's, as plain text.
        parts: what is on it, in this order: HTML, figures, and figures to choose from by what tells them apart.
        style: CSS, after that of the figures.
    """
    body: list[str] = []
    places = itertools.count(1)
    for part in parts:
        # A title that stands above already is not repeated.
        above = body[-1] if body else ""
        body.append(part if isinstance(part, str) else _figure(part, next(places), above))
    return (
        "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv=Content-Security-Policy content="{_POLICY}">'
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{_STYLE}{style}</style></head><body>"
        f"{''.join(body)}</body></html>\n"
    )


def _figure(part: Figure | Mapping[str, Figure], place: int, above: str) -> str:
    """Return a figure, or several with a menu, with title and small print as texts of the page."""
    figures = {"": part} if isinstance(part, Figure) else part
    drawing = render_choice(figures, captions=False)
    titles = dict.fromkeys(figure.title for figure in figures.values())
    title = next(iter(titles)) if len(titles) == 1 else ""
    if title and above.endswith("</h3>") and f">{as_html(title)}" in above:
        title = ""
    small = _notes(figures)
    height = max(int(drawing.layout.height or 0), 200)
    drawn = plotly.io.to_html(
        drawing, config=CONFIG, full_html=False, include_plotlyjs=place == 1, div_id=f"figure-{place}"
    )
    # A caption names the figure for those who can't see it as well.
    caption = f"<figcaption id=caption-{place}>{as_html(title)}</figcaption>" if title else ""
    texts = "".join(f"<p class=note>{as_html(text)}</p>" for text in small)
    # Panels side by side are scrolled on a narrow page, also by keyboard.
    columns = max(figure.grid[1] for figure in figures.values())
    if columns > 1:
        name = html.escape(title or next(iter(titles)), quote=True)
        drawing_of = f'<div class=drawing tabindex=0 role=group aria-label="{name}">'
        drawn = f"<div style='min-width:{_LEAST_WIDTH * columns}px'>{drawn}</div>"
    else:
        drawing_of = "<div class=drawing>"
    return f"<figure style='min-height:{height}px'>{caption}{drawing_of}{drawn}</div>{texts}</figure>"


def _notes(figures: Mapping[str, Figure]) -> list[str]:
    """Return the small print of figures to choose from; of many what they share, since the menu names the rest."""
    names: dict[str, list[str]] = {}
    for name, figure in figures.items():
        names.setdefault(figure.note, []).append(name)
    if len(names) == 1:
        return [note for note in names if note]
    if len(names) <= _MOST_NOTES:
        return [f"{', '.join(own)}: {note}" for note, own in names.items() if note]
    parts = [note.split("; ") for note in names]
    shared = [part for part in parts[0] if all(part in others for others in parts)]
    return ["; ".join(shared)] if shared else []


def as_html(text: str) -> str:
    """Return plain text as HTML: ``σ_name`` with a subscript, and nothing else of it is markup."""
    return re.sub(r"([α-ωΑ-Ω])_([A-Za-z]+)", r"\1<sub>\2</sub>", html.escape(text, quote=True))
