"""The dashboard's frame: header, navigation, theme, and which page a link opens."""

import logging
from pathlib import Path
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, dcc, html, no_update, set_props
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate
from flask import Response, request

from asr_dni.catalogue import Catalogue
from asr_dni.dashboard import links
from asr_dni.dashboard.components import aria, empty_page, notice
from asr_dni.dashboard.view import THEME
from asr_dni.dashboard.views import VIEWS
from asr_dni.errors import UserError

_LOG = logging.getLogger(__name__)

_INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
{%metas%}
<title>{%title%}</title>
{%favicon%}
{%css%}
</head>
<body>
{%app_entry%}
<footer>
{%config%}
{%scripts%}
{%renderer%}
</footer>
</body>
</html>
"""

_SYSTEM_THEME = "href => matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'"
"""The one thing that only the browser knows."""

_MANTINE: dict[str, Any] = {
    "fontFamily": "system-ui, 'DejaVu Sans', sans-serif",
    "primaryColor": "indigo",
    "primaryShade": {"light": 7, "dark": 4},
    "colors": {
        "dark": [
            *(
                "#e6e9f0",
                "#c3cad8",
                "#a3adbf",
                "#7d889c",
                "#4a5468",
                "#313846",
                "#232834",
                "#1b1f29",
                "#151923",
            ),
            "#0f1218",
        ]
    },
    "autoContrast": True,
    "defaultRadius": "md",
    "cursorType": "pointer",
}


def make_app(catalogue: Catalogue) -> Dash:
    """Return the dashboard of a folder of results, ready to be served; its WSGI application is ``app.server``.

    Everything comes from this machine: no script, style or font of another host.
    """
    app = Dash(
        __name__,
        assets_folder=str(Path(__file__).parent / "assets"),
        title="asr-dni",
        update_title="",
        serve_locally=True,
        suppress_callback_exceptions=True,  # pages come and go
        index_string=_INDEX,
        meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
        add_log_handler=False,
        enable_mcp=False,
        on_error=_tell,
    )
    app.layout = _frame(catalogue)
    _register(app, catalogue)
    for view in VIEWS:
        view.register(app, catalogue)
    app.server.before_request(lambda: _refuse_malformed(app))
    return app


def _refuse_malformed(app: Dash) -> Response | None:
    """Answer a request to a callback that no page makes, which Dash would answer with a traceback."""
    if request.path != "/_dash-update-component" or request.method != "POST":
        return None
    body = request.get_json(silent=True)
    body = body if isinstance(body, dict) else {}
    called = body.get("output")
    known = app.callback_map.get(called) if isinstance(called, str) else None
    parts = [(body.get("inputs"), "inputs"), (body.get("state", []), "state")]
    if (
        known is None
        or not isinstance(body.get("outputs", []), dict | list)
        or not isinstance(body.get("changedPropIds", []), list)
        or any(not _are_values(values, len(known[name])) for values, name in parts)
    ):
        return Response("this is not what a page of the dashboard asks for\n", 400, mimetype="text/plain")
    return None


def _are_values(values: Any, number: int) -> bool:
    """Return whether these are so many properties of components, or lists of them."""
    if not isinstance(values, list) or len(values) != number:
        return False
    flat = [one for value in values for one in (value if isinstance(value, list) else [value])]
    return all(isinstance(one, dict) and {"id", "property"} <= one.keys() for one in flat)


def _tell(error: Exception) -> None:
    """Show a callback's error on the page; what no user can mend is told with its traceback in the terminal too."""
    if isinstance(error, UserError):
        text = str(error)
    else:
        _LOG.error("the dashboard could not answer", exc_info=error)
        text = f"{type(error).__name__}: {error}. The terminal that asr-dni dashboard runs in says more."
    set_props("notices", {"children": notice(text)})


def _frame(catalogue: Catalogue) -> Component:
    """Return what is on every page; :func:`_register` fills it."""
    header = html.Header(
        [
            html.A("Skip to content", href="#page", className="skip"),
            dcc.Link(
                [html.Span(className="mark"), html.Span("asr-dni", className="name")],
                href="/",
                className="brand",
            ),
            html.Span(catalogue.folder.name, className="folder", title=str(catalogue.folder)),
            html.Nav(_navigation(""), id="navigation", className="nav", **aria(label="Views")),
            html.Button(
                html.Span(className="icon icon-theme"),
                id="toggle-theme",
                className="toggle-theme",
                title="Light or dark",
                **aria(label="Light or dark"),
            ),
        ],
        className="header",
    )
    frame: Component = dmc.MantineProvider(
        [
            dcc.Location(id="address", refresh="callback-nav"),
            dcc.Store(id="written"),  # the link that was put into the address bar from here
            dcc.Store(id=THEME),
            dcc.Store(id="system-theme"),
            dcc.Store(id="chosen-theme", storage_type="local"),  # is part of links; that of the system is not
            header,
            html.Div(id="notices", role="status", **aria(live="polite")),
            html.Main(id="page", className="page", tabIndex=-1),
        ],
        id="mantine",
        theme=_MANTINE,
        defaultColorScheme="auto",
    )
    return frame


def _navigation(shown: str, theme: str | None = None) -> list[Component]:
    """Return the links to the pages, in the theme that was chosen."""
    return [
        dmc.Anchor(
            view.title,
            href=links.State(view.name).choosing(theme=theme).url,
            underline="never",
            className=f"nav-link{' nav-here' if view.name == shown else ''}",
            **(aria(current="page") if view.name == shown else {}),
        )
        for view in VIEWS
    ]


def _register(app: Dash, catalogue: Catalogue) -> None:
    ask_browser: Any = app.clientside_callback
    ask_browser(_SYSTEM_THEME, Output("system-theme", "data"), Input("address", "href"))

    @app.callback(
        Output("page", "children"),
        Output("navigation", "children"),
        Output(THEME, "data"),
        Output("chosen-theme", "data"),
        Output("mantine", "forceColorScheme"),
        Output("written", "data"),
        Output("address", "search", allow_duplicate=True),
        Input("address", "href"),
        Input("system-theme", "data"),
        State("written", "data"),
        State("chosen-theme", "data"),
        prevent_initial_call="initial_duplicate",
    )
    def open_link(href: str, system: str, written: str | None, chosen: str | None) -> tuple[Any, ...]:
        """Show the page of a link that was followed, not of one that says what a page shows already."""
        state, theme = links.without_theme(links.State.parse(href))
        if written is not None and (state, theme or chosen) == (links.State.parse(written), chosen):
            raise PreventUpdate
        for view in VIEWS:
            if view.name == state.view:
                page = view.layout(state, catalogue)
                break
        else:
            names = ", ".join(view.title for view in VIEWS)
            page = empty_page(
                "There is no such page", f"{state.view!r} is none of {names}: choose one above."
            )
        shown = theme or chosen or system
        themed = links.State(state.view, state.values).choosing(theme=theme or chosen)
        return (
            page,
            _navigation(state.view, theme or chosen),
            shown,
            theme or no_update,
            shown,
            state.url,
            no_update if theme or not chosen else themed.address[1],
        )

    @app.callback(
        Output("address", "pathname"),
        Output("address", "search"),
        Output("written", "data", allow_duplicate=True),
        Input(links.link_store(ALL), "data"),
        Input("chosen-theme", "data"),
        State("address", "href"),
        prevent_initial_call=True,
    )
    def write_link(shown: list[str | None], chosen: str | None, href: str) -> tuple[Any, ...]:
        """Put what a page shows into the address bar."""
        if not shown or not shown[0]:
            raise PreventUpdate
        state = links.State.parse(shown[0])
        link = state.choosing(theme=chosen)
        if link == links.State.parse(href):
            return no_update, no_update, state.url
        path, _, query = link.url.partition("?")
        return path, f"?{query}" if query else "", state.url

    @app.callback(
        Output(THEME, "data", allow_duplicate=True),
        Output("chosen-theme", "data", allow_duplicate=True),
        Output("mantine", "forceColorScheme", allow_duplicate=True),
        Output("navigation", "children", allow_duplicate=True),
        Input("toggle-theme", "n_clicks"),
        State(THEME, "data"),
        State("address", "href"),
        prevent_initial_call=True,
    )
    def switch_theme(clicks: int | None, theme: str | None, href: str) -> tuple[Any, ...]:
        if not clicks:
            raise PreventUpdate
        other = "light" if theme == "dark" else "dark"
        return other, other, other, _navigation(links.State.parse(href).view, other)
