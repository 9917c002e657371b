"""Figures of pages as files: PNG and SVG by matplotlib, and their numbers as CSV, by links that say what is shown."""

import io
import threading
from collections.abc import Callable, Mapping
from typing import TypeAlias

import pandas as pd
from dash import Dash, html
from dash.development.base_component import Component
from flask import Response, abort, request, send_file

from asr_dni.dashboard.links import State
from asr_dni.errors import UserError
from asr_dni.plotting import Figure, HeatMap
from asr_dni.plotting.specification import Panel, Series

Figures: TypeAlias = Callable[[State], Mapping[str, Figure]]
"""What a page shows for a link: its figures by name."""

_KINDS = {"png": "image/png", "svg": "image/svg+xml", "csv": "text/csv"}
_DRAWING = threading.Lock()  # matplotlib draws one figure at a time


def figure_frame(figure: Figure) -> pd.DataFrame:
    """Return the numbers that a figure shows, a row each.

    Columns: ``panel`` (title), ``label`` (of the line or map), ``x``, ``y``, ``low``, ``high`` (of the interval), and
    ``value`` (of a heat map's cell). Places that have a name are that name.
    """
    rows = []
    for panel in figure.panels:
        for element in panel.elements:
            if isinstance(element, Series):
                rows += _rows_of_series(panel, element)
            elif isinstance(element, HeatMap):
                names = [{tick.value: tick.text for tick in axis.all_ticks} for axis in (panel.x, panel.y)]
                rows += [
                    {
                        "panel": panel.title,
                        "label": element.label or element.colors.label,
                        "x": names[0].get(column, column) if panel.x.categories else column,
                        "y": names[1].get(row, row) if panel.y.categories else row,
                        "value": value,
                    }
                    for row, column, value in element.cells()
                ]
    return pd.DataFrame(rows, columns=["panel", "label", "x", "y", "low", "high", "value"])


def _rows_of_series(panel: Panel, series: Series) -> list[dict[str, object]]:
    names = {tick.value: tick.text for tick in panel.x.all_ticks} if panel.x.categories else {}
    return [
        {
            "panel": panel.title,
            "label": series.label,
            "x": names.get(x, x),
            "y": y,
            **({"low": series.low[place], "high": series.high[place]} if series.low else {}),
        }
        for place, (x, y) in enumerate(zip(series.x, series.y, strict=True))
    ]


def export(figure: Figure, kind: str) -> bytes:
    """Return a figure as a file.

    Args:
        figure: its specification.
        kind: ``png``, ``svg`` or ``csv``.
    """
    file = io.BytesIO()
    if kind == "csv":
        figure_frame(figure).to_csv(file, index=False, lineterminator="\n")
        return file.getvalue()
    from asr_dni.plotting import with_matplotlib

    with _DRAWING:
        with_matplotlib.render(figure).savefig(file, format=kind)
    return file.getvalue()


def export_links(state: State, name: str) -> Component:
    """Return the links by which a figure of a page is had as a file.

    Args:
        state: what the page shows.
        name: of the figure.
    """
    query = state.url.partition("?")[2]
    links = [
        html.A(
            kind.upper(),
            href=f"/export/{state.view}/{name}.{kind}{'?' if query else ''}{query}",
            download=f"{state.view}-{name}.{kind}",
            className="export",
        )
        for kind in _KINDS
    ]
    return html.Span(links, className="exports")


def register_exports(app: Dash, view: str, figures: Figures) -> None:
    """Add the routes of a page's files.

    Args:
        app: the dashboard.
        view: name of the page.
        figures: what it shows for a link.
    """

    def answer(name: str, kind: str) -> Response:
        if kind not in _KINDS:
            abort(404)
        state = State.parse(f"/{view}?{request.query_string.decode()}")
        try:
            found = figures(state)
        except UserError as error:
            abort(Response(f"{error}\n", 404, mimetype="text/plain"))
        if name not in found:
            abort(404)
        file = io.BytesIO(export(found[name], kind))
        return send_file(
            file, mimetype=_KINDS[kind], as_attachment=True, download_name=f"{view}-{name}.{kind}"
        )

    app.server.add_url_rule(f"/export/{view}/<name>.<kind>", f"export-{view}", answer)
