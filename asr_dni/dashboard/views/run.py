"""The page *run*: everything of one run, and what differs from another."""

import math
from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
import pandas as pd
from dash import Dash, Input, Output, ctx, dcc, html, no_update
from dash import State as Given
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from asr_dni.catalogue import Catalogue, Run
from asr_dni.dashboard import run_clips, run_tabs
from asr_dni.dashboard.audio_routes import register_audio
from asr_dni.dashboard.choices import run_choices
from asr_dni.dashboard.components import aria, empty_page
from asr_dni.dashboard.exports import register_exports
from asr_dni.dashboard.links import State, link_store
from asr_dni.dashboard.measurements import Measurement
from asr_dni.dashboard.measuring_run import SUBJECTS, measuring
from asr_dni.dashboard.run_facts import checkpoint_of, highest_strength
from asr_dni.dashboard.run_figures import TABLE_OF_TAB, Shown, evaluations_with, tabs_in_order, title_of
from asr_dni.dashboard.services import Services, services_of
from asr_dni.dashboard.view import THEME, View
from asr_dni.errors import UserError
from asr_dni.plotting import Figure

_BADGES = {"finished": "good", "running": "busy", "interrupted": "odd", "damaged": "bad"}
_MOST_LISTED = 200
_SHOWN = Given(link_store("run"), "data")
_ADDRESS = (
    Output("address", "pathname", allow_duplicate=True),
    Output("address", "search", allow_duplicate=True),
)


def layout(state: State, catalogue: Catalogue) -> Component:
    """Return the page for what a link says."""
    link = dcc.Store(id=link_store("run"), data=state.url)
    catalogue.refresh()
    choices = run_choices(catalogue)
    if not choices:
        return html.Div(
            [
                link,
                empty_page(
                    "No runs yet",
                    f"There is no run in {catalogue.folder}. Train a network, here within a minute:",
                    commands=["asr-dni fit --config digits_lstm_dni"],
                ),
            ]
        )
    if not state.one("run"):
        return html.Div([link, _list(catalogue)])
    try:
        run = catalogue.run(state.one("run"))
    except UserError as error:
        return html.Div([link, html.P(str(error), className="card", role="alert"), _list(catalogue)])
    tab = _tab(state)
    tabs = [
        dmc.Anchor(
            run_tabs.TITLES[name],
            href=_of_tab(state, name).url,
            underline="never",
            className="tab tab-here" if name == tab else "tab",
            **(aria(current="page") if name == tab else {}),
        )
        for name in tabs_in_order()
    ]
    return html.Div(
        [
            link,
            dcc.Store(id="run-measured"),
            html.Section(
                [
                    _head(run, catalogue.runs()),
                    html.Div(
                        [
                            dmc.Select(
                                id="run-run",
                                label="Run",
                                data=choices,
                                value=run.identity,
                                searchable=True,
                                allowDeselect=False,
                                limit=_MOST_LISTED,
                            ),
                            dmc.Select(
                                id="run-other",
                                label="Compared with",
                                data=[choice for choice in choices if choice["value"] != run.identity],
                                value=state.one("with") or None,
                                placeholder="no other run",
                                searchable=True,
                                clearable=True,
                                clearButtonProps={"aria-label": "Compare with no other run"},
                                limit=_MOST_LISTED,
                            ),
                        ],
                        className="run-choices",
                    ),
                ],
                className="card run-head",
            ),
            html.Nav(tabs, className="tabs", **aria(label="What of the run")),
            html.Div(id="run-tab", className="stack"),
        ],
        className="run",
    )


def _tab(state: State) -> str:
    return state.one("tab") if state.one("tab") in tabs_in_order() else tabs_in_order()[0]


def _of_tab(state: State, tab: str) -> State:
    """Return the link of another tab; what belongs to one tab alone is left out."""
    kept = {name: state.one(name) or None for name in ("run", "with")}
    return State("run").choosing(**kept, tab=None if tab == tabs_in_order()[0] else tab)


def _head(run: Run, runs: pd.DataFrame) -> Component:
    row = runs[runs["run"] == run.identity].iloc[0]
    facts = run_tabs.summary_texts(run, {str(name): value for name, value in row.items()})
    return html.Div(
        [
            html.Div(
                [
                    html.H1(run.identity, className="run-title"),
                    html.Span(run.state, className=f"badge {_BADGES[run.state]}"),
                ],
                className="row",
            ),
            html.P(run.label, className="soft path"),
            html.Dl(
                [html.Div([html.Dt(name), html.Dd(value)], className="fact") for name, value in facts],
                className="facts",
            ),
        ]
    )


def _list(catalogue: Catalogue) -> Component:
    """Return all runs as links."""
    runs = catalogue.runs()

    def highest(row: Mapping[Any, Any], name: str) -> float:
        return highest_strength(catalogue.run(row["run"])) if math.isinf(row[name]) else math.nan

    rows = [
        html.Tr(
            [
                html.Th(dmc.Anchor(row["run"], href=State("run").choosing(run=row["run"]).url), scope="row"),
                html.Td(row["label"]),
                html.Td(row["state"], title=row["message"] or None),
                html.Td("–" if pd.isna(row["seed"]) else str(row["seed"]), className="number"),
                *(
                    html.Td(
                        run_tabs.measure_text(name, float(row[name]), highest(row, name)), className="number"
                    )
                    for name in ("clean_accuracy", "midpoint")
                ),
            ]
        )
        for row in runs.head(_MOST_LISTED).to_dict("records")
    ]
    columns = ("run", "what", "state", "seed", "clean accuracy", "midpoint")
    more = len(runs) - len(rows)
    return html.Section(
        [
            html.H1("Choose a run", className="card-title"),
            dmc.Select(
                id="run-run",
                label="Run",
                data=run_choices(catalogue),
                searchable=True,
                limit=_MOST_LISTED,
                placeholder="search",
                className="run-search",
            ),
            run_tabs.table(columns, rows, "Runs"),
            *([html.P(f"and {more} more: search for them above", className="soft")] if more > 0 else []),
        ],
        className="card ready",
    )


def shown_of(state: State, services: Services) -> Shown:
    """Return what a link shows of a run.

    Raises:
        UserError: there is no such run.
    """
    tab = _tab(state)
    run = services.catalogue.run(state.one("run"))
    try:
        other = services.catalogue.run(state.one("with")) if state.one("with") else None
    except UserError:
        other = None
    evaluation = None
    if tab in TABLE_OF_TAB:
        found, _ = evaluations_with(run, TABLE_OF_TAB[tab])
        named = [one for one in found if one.path.name == state.one("evaluation")]
        evaluation = next(iter([*named, *found]), None)
    strength = state.number("strength", 0.0) if state.one("strength") else None
    clip = int(state.one("clip")) if state.one("clip").isdecimal() else None
    return Shown(run, tab, other, evaluation, strength, clip)


def _content(state: State, services: Services, theme: str | None) -> list[Component]:
    """Return what a tab is filled with."""
    shown = shown_of(state, services)
    if shown.tab == "settings":
        return run_tabs.settings(shown, state)
    if shown.tab == "training":
        return run_tabs.training(shown, state, theme)
    if shown.tab == "clips":
        return run_clips.clips(shown, state, theme, services)
    if shown.tab in TABLE_OF_TAB:
        found, faults = evaluations_with(shown.run, TABLE_OF_TAB[shown.tab])
        choices = [(one.path.name, title_of(one)) for one in found]
        warnings: list[Component] = [html.P(fault, className="card warn", role="note") for fault in faults]
        return [*warnings, *run_tabs.evaluated(shown, state, theme, choices)]
    return run_tabs.overview(shown, state, theme)


def register(app: Dash, catalogue: Catalogue) -> None:
    """Add the page's callbacks, and the routes of recordings and files."""
    services = services_of(catalogue)
    register_audio(app, services)

    def figures(state: State) -> Mapping[str, Figure]:
        shown = shown_of(state, services)
        found = shown.figures()
        if shown.tab == "clips" and shown.clip is not None:
            network = services.network(shown.run.identity)
            position = run_clips.position_of(network, shown.clip)
            if position is not None:
                found["clip"] = run_clips.clip_heard(network, position)
        return found

    register_exports(app, "run", figures)

    @app.callback(Output("run-tab", "children"), Input(THEME, "data"), Input("run-measured", "data"), _SHOWN)
    def fill(theme: str | None, measured: int | None, shown: str) -> Any:
        if theme is None:
            raise PreventUpdate
        try:
            return _content(State.parse(shown), services, theme)
        except UserError as error:
            return html.P(str(error), className="card", role="alert")

    @app.callback(*_ADDRESS, Input("run-run", "value"), _SHOWN, prevent_initial_call=True)
    def choose(run: str | None, shown: str) -> tuple[str, str]:
        state = State.parse(shown)
        if not run or run == state.one("run"):
            raise PreventUpdate
        other = state.one("with")
        return (
            _of_tab(state, _tab(state)).choosing(run=run, **{"with": other if other != run else None}).address
        )

    @app.callback(*_ADDRESS, Input("run-other", "value"), _SHOWN, prevent_initial_call=True)
    def compare(other: str | None, shown: str) -> tuple[str, str]:
        state = State.parse(shown)
        if (other or "") == state.one("with"):
            raise PreventUpdate
        return state.choosing(**{"with": other or None}, only=None).address

    @app.callback(
        Output("run-clip", "children"),
        Output(link_store("run"), "data", allow_duplicate=True),
        Input("run-clips", "selectedRows"),
        Given(THEME, "data"),
        _SHOWN,
        prevent_initial_call=True,
    )
    def listen(rows: Any, theme: str | None, shown: str) -> tuple[Any, ...]:
        """Show the clip that was chosen."""
        chosen = rows.get("ids") if isinstance(rows, dict) else [row["clip"] for row in rows or ()]
        if not chosen:
            raise PreventUpdate
        state = State.parse(shown).choosing(clip=chosen[0])
        return run_clips.clip_detail(shown_of(state, services), state, theme, services), state.url

    _register_measuring(app, services)


def _register_measuring(app: Dash, services: Services) -> None:
    @app.callback(
        Output("run-measuring", "children"),
        Output("run-cancel", "display"),
        Output("run-measure", "disabled"),
        Input("run-measure", "n_clicks"),
        Input("run-cancel", "n_clicks"),
        _SHOWN,
    )
    def measure(start: int | None, cancel: int | None, shown: str) -> tuple[Any, ...]:
        """Begin a measurement, or end it."""
        state = State.parse(shown)
        run = services.catalogue.run(state.one("run"))
        checkpoint = checkpoint_of(run)
        known = services.measurements.of(run.path)
        if ctx.triggered_id == "run-measure" and start and checkpoint is not None:
            subjects = ("sensitivity",) if _tab(state) == "sensitivity" else SUBJECTS
            known = services.measurements.start(run.path, measuring(checkpoint, run.path, subjects))
        elif ctx.triggered_id == "run-cancel" and cancel and known is not None:
            known.cancel()
        if known is None:
            raise PreventUpdate
        return _progress(known), "inline-block" if known.active else "none", known.active

    @app.callback(
        Output("run-progress", "value"),
        Output("run-progress-text", "children"),
        Output("run-cancel", "display", allow_duplicate=True),
        Output("run-measure", "disabled", allow_duplicate=True),
        Output("run-tick", "disabled"),
        Output("run-measured", "data"),
        Input("run-tick", "n_intervals"),
        _SHOWN,
        prevent_initial_call=True,
    )
    def tick(ticks: int, shown: str) -> tuple[Any, ...]:
        """Show how far a measurement is; when it is done, what it found."""
        run = services.catalogue.run(State.parse(shown).one("run"))
        known = services.measurements.of(run.path)
        if known is None:
            raise PreventUpdate
        if known.state == "done":
            services.catalogue.refresh()
            return 100, "done", "none", False, True, ticks
        hidden = "inline-block" if known.active else "none"
        return 100 * known.share, _progress_text(known), hidden, known.active, not known.active, no_update


def _progress_text(measurement: Measurement) -> str:
    if measurement.state == "failed":
        return str(measurement.message)
    if measurement.state == "cancelled":
        return "cancelled; what was measured is kept, and measured no second time"
    if not measurement.total:
        return "loading clips"
    return f"{measurement.done} of {measurement.total} passes"


def _progress(measurement: Measurement) -> list[Component]:
    return [
        dcc.Interval(id="run-tick", interval=500, disabled=not measurement.active),
        dmc.Progress(
            id="run-progress", value=100 * measurement.share, className="bar", **aria(label="Measured")
        ),
        html.Span(_progress_text(measurement), id="run-progress-text", className="soft"),
    ]


VIEW = View("run", "Run", layout, register)
