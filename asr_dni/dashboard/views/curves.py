"""The page *curves*: noise curves on each other, and the table that chooses them."""

import json
from functools import lru_cache
from typing import Any

import dash_mantine_components as dmc
import pandas as pd
from dash import Dash, Input, Output, Patch, dcc, html, no_update
from dash import State as Given
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from asr_dni.catalogue import Catalogue
from asr_dni.dashboard.components import aria, empty_page
from asr_dni.dashboard.curve_figures import (
    MOST_DRAWN,
    SNR,
    Drawn,
    message_figure,
    number_text,
    read_drawn,
    specify,
)
from asr_dni.dashboard.curve_table import column_choices, columns_of, default_columns, row_of, table
from asr_dni.dashboard.exports import export_links, register_exports
from asr_dni.dashboard.figure_cards import BLANK
from asr_dni.dashboard.figure_cards import draw as drawing_of
from asr_dni.dashboard.groups import EXPERIMENT, RUN, Group, Groups, Listing, default_selection
from asr_dni.dashboard.links import State, link_store, without_theme
from asr_dni.dashboard.view import THEME, View
from asr_dni.errors import UserError
from asr_dni.evaluation.curves.tolerance import TOLERATED_LOSS
from asr_dni.evaluation.figures.snr import is_known
from asr_dni.noise import Strength
from asr_dni.plotting import Figure, curve_style
from asr_dni.plotting.style import DARK, LIGHT
from asr_dni.plotting.with_plotly import CONFIG
from asr_dni.wording import count

NAME = "curves"
_LOOK_EVERY = 3000  # milliseconds
_HIDDEN = """(shown, selected) => {
  if (!shown) return '';
  const keys = Array.isArray(selected) ? selected.map(row => row.key) : (selected || {}).ids || [];
  const seen = new Set(shown.map(row => row.key));
  const hidden = keys.filter(key => !seen.has(key)).length;
  if (!hidden) return '';
  const rows = hidden === 1 ? '1 selected row is' : `${hidden} selected rows are`;
  return `${rows} not in the table now: a filter or the search hides, and does not deselect.`;
}"""
_WITHOUT_RUNS = -1  # in place of the version, on a page that has none
_HEIGHT = 430  # of the figure, pixels
_ACCURACY, _DIFFERENCE = "accuracy", "difference"
_POINTS = 100 * TOLERATED_LOSS
_CHOICES = [
    ("curves-axis", "value"),
    ("curves-by", "value"),
    ("curves-points", "value"),
    ("curves-grid", "selectedRows"),
    ("curves-show", "value"),
    ("curves-baseline", "value"),
]


@lru_cache(maxsize=8)
def groups_of(catalogue: Catalogue) -> Groups:
    """Return the groups of a catalogue's runs: one object for all that ask."""
    return Groups(catalogue)


class _Choice:
    """What was chosen, as the page's components have it."""

    def __init__(self, catalogue: Catalogue, axis: str | None, by: list[str] | None, points: Any) -> None:
        self.groups = groups_of(catalogue)
        self.axis = axis
        self.over_snr = axis == SNR
        self.strength = Strength.parse(axis) if axis and not self.over_snr else None
        self.by = tuple(by or ()) or (EXPERIMENT,)
        self.points = float(points) if isinstance(points, int | float) and 0 < points < 100 else _POINTS
        self.listing: Listing = self.groups.listing(self.strength, self.by, self.points / 100)

    def selected(self, rows: Any) -> list[Group]:
        """Return the groups of rows that the grid says are selected."""
        keys = rows.get("ids", []) if isinstance(rows, dict) else [row["key"] for row in rows or ()]
        return [self.listing.groups[key] for key in keys if key in self.listing.groups]

    def drawn(self, rows: Any) -> list[Drawn]:
        """Return what is drawn of them."""
        chosen = [group for group in self.selected(rows) if group.has_curve]
        return read_drawn(self.groups, chosen[:MOST_DRAWN], self.listing.strength)


def layout(state: State, catalogue: Catalogue) -> Component:
    """Return the page for what a link says."""
    groups = groups_of(catalogue)
    groups.refresh()
    link = dcc.Store(id=link_store(NAME), data=state.url)
    look = dcc.Interval(id="curves-look", interval=_LOOK_EVERY)
    without = groups.runs().empty
    version = dcc.Store(id="curves-version", data=_WITHOUT_RUNS if without else groups.version)
    if without:
        empty = empty_page(
            "No runs yet",
            f"In {catalogue.folder} there is no run of asr-dni fit, and no noise curve. Train one, or give the folder"
            " that has them; what is new appears here by itself.",
            commands=["asr-dni demo", "asr-dni fit --config synthetic_lstm_dni", "asr-dni dashboard FOLDER"],
        )
        return html.Div([look, version, html.Div(empty, id="curves-empty")])
    choice, rows = _chosen(state, catalogue)
    columns = list(state.all("column")) or default_columns(choice.listing)
    return html.Div(
        [
            link,
            look,
            version,
            dcc.Store(id="curves-seen"),
            html.H1("Noise curves", className="hidden"),
            html.Section(_controls(state, choice), className="card toolbar", **aria(label="Choices")),
            html.Div(
                [
                    html.Section(_figure_card(state), className="card", **aria(label="Figure")),
                    html.Section(
                        _table_card(state, choice, rows["ids"], columns),
                        className="card",
                        **aria(label="Runs"),
                    ),
                ],
                className="curves",
            ),
        ]
    )


def _axes(groups: Groups) -> list[dict[str, str]]:
    """Return the axes there are curves over, that of most curves first."""
    strengths = groups.catalogue.strengths()
    found = [{"value": str(strength), "label": _axis_text(strength)} for strength in strengths]
    if any(is_known(curve.columns["snr_db"]) for curve in groups.catalogue.known_curves().values()):
        found.insert(1, {"value": SNR, "label": "SNR (dB)"})
    return found


def _axis_text(strength: Strength) -> str:
    unit = strength.unit or ("absolute" if strength.is_sigma else "")
    return f"{strength.symbol} ({unit})" if unit else strength.symbol


def _controls(state: State, choice: _Choice) -> list[Component]:
    show = _DIFFERENCE if state.one("show") == _DIFFERENCE else _ACCURACY
    by = [
        {"value": EXPERIMENT, "label": "experiment (seeds pooled)"},
        {"value": RUN, "label": "run (each seed)"},
        *({"value": name, "label": label} for name, label in column_choices(choice.listing)),
    ]
    return [
        dmc.Select(
            id="curves-axis",
            label="Axis",
            data=_axes(choice.groups),
            value=choice.axis or None,
            allowDeselect=False,
            className="wide",
        ),
        dmc.MultiSelect(
            id="curves-by",
            label="A curve for each",
            data=by,
            value=list(choice.by),
            searchable=True,
            className="wide",
            clearable=False,
            hidePickedOptions=True,
            limit=60,
        ),
        html.Div(
            [
                html.Span("Show", className="control-label", id="curves-show-label"),
                dmc.SegmentedControl(
                    id="curves-show",
                    data=[
                        {"value": _ACCURACY, "label": "Accuracy"},
                        {"value": _DIFFERENCE, "label": "Difference"},
                    ],
                    value=show,
                    **aria(labelledby="curves-show-label"),
                ),
            ]
        ),
        dmc.Select(
            id="curves-baseline",
            label="to the baseline",
            data=[],
            value=state.one("baseline") or None,
            placeholder="the first curve",
            searchable=True,
            clearable=True,
            className="wide",
            display=None if show == _DIFFERENCE else "none",
        ),
        dmc.NumberInput(
            id="curves-points",
            label="Tolerated loss (points)",
            value=choice.points,
            min=0.1,
            max=90,
            step=0.5,
            decimalScale=2,
            debounce=400,
            className="narrow",
        ),
    ]


def _figure_card(state: State) -> list[Component]:
    return [
        html.Div(
            [
                html.H2(id="curves-title", className="card-title"),
                html.Span(export_links(state, NAME), id="curves-exports"),
            ],
            className="card-head",
        ),
        dcc.Graph(
            id="curves-graph",
            figure=BLANK,
            responsive=True,
            config=CONFIG,
            className="graph",
            style={"height": f"{_HEIGHT}px"},
        ),
        html.P(id="curves-note", className="soft note"),
        html.P(id="curves-hidden", className="soft note", role="status"),
        html.Div(id="curves-drawn", className="drawn"),
    ]


def _table_card(state: State, choice: _Choice, keys: list[str], columns: list[str]) -> list[Component]:
    return [
        html.Div(
            [
                html.H2(_heading(choice.listing), id="curves-heading", className="card-title"),
                dmc.TextInput(
                    id="curves-search",
                    placeholder="Search",
                    value=state.one("q"),
                    debounce=250,
                    size="xs",
                    **aria(label="Search the table"),
                ),
                html.Details(
                    [
                        html.Summary("Columns"),
                        html.Div(
                            dmc.MultiSelect(
                                id="curves-columns",
                                label="Settings in the table",
                                data=[
                                    {"value": name, "label": label}
                                    for name, label in column_choices(choice.listing)
                                ],
                                value=columns,
                                searchable=True,
                                clearable=True,
                                limit=60,
                            )
                        ),
                    ],
                    className="columns",
                ),
            ],
            className="card-head",
        ),
        html.Div(_faults(choice), id="curves-faults"),
        table(
            "curves-grid",
            choice.groups,
            choice.listing,
            columns,
            keys,
            state.one("filter"),
            state.one("sort"),
            state.one("q"),
        ),
        html.P(default_selection(choice.listing)[1], id="curves-hint", className="soft note"),
    ]


def _heading(listing: Listing) -> str:
    states = [f"{number} {state}" for state, number in listing.states.items() if state != "finished"]
    groups = f"{count(len(listing.groups), 'curve')} of " if len(listing.groups) != listing.runs else ""
    return f"{groups}{count(listing.runs, 'run')}{': ' if states else ''}{', '.join(states)}"


def _faults(choice: _Choice) -> list[Component]:
    """Return what is wrong with runs, which hides nothing else."""
    runs = choice.groups.runs()
    damaged = runs[runs["state"] == "damaged"]
    if damaged.empty:
        return []
    lines = [
        html.Li(text if text.startswith(f"{run}/") else f"{run}: {text}")
        for run, text in zip(damaged["run"], damaged["message"], strict=True)
    ]
    number = count(len(damaged), "damaged run")
    return [html.Details([html.Summary(number), html.Ul(lines[:50])], className="faults")]


def _baseline(choice: _Choice, show: str, baseline: str | None, drawn: list[Drawn]) -> str | None:
    """Return the group that others are compared with: the chosen one, or the first, of least training noise."""
    if show != _DIFFERENCE or len(drawn) < 2:
        return None
    return baseline if any(one.group.key == baseline for one in drawn) else drawn[0].group.key


def register(app: Dash, catalogue: Catalogue) -> None:
    """Add the page's callbacks."""

    @app.callback(
        Output("curves-version", "data"),
        Output("page", "children", allow_duplicate=True),
        Input("curves-look", "n_intervals"),
        Given("curves-version", "data"),
        Given("address", "href"),
        prevent_initial_call=True,
    )
    def look(_: int, version: int, link: str) -> tuple[Any, Any]:
        """Look for what is new; the page without runs becomes the page of the first."""
        groups = groups_of(catalogue)
        now = groups.refresh()
        if version == _WITHOUT_RUNS and not groups.runs().empty:
            return now, layout(without_theme(State.parse(link))[0], catalogue)
        if now == version or version == _WITHOUT_RUNS:
            raise PreventUpdate
        return now, no_update

    @app.callback(
        Output("curves-grid", "rowData"),
        Output("curves-grid", "columnDefs"),
        Output("curves-grid", "selectedRows"),
        Output("curves-heading", "children"),
        Output("curves-hint", "children"),
        Output("curves-faults", "children"),
        Input("curves-axis", "value"),
        Input("curves-by", "value"),
        Input("curves-points", "value"),
        Input("curves-columns", "value"),
        Input("curves-version", "data"),
        Given("curves-grid", "selectedRows"),
        Given("curves-grid", "rowData"),
        prevent_initial_call=True,
    )
    def fill(
        axis: str,
        by: list[str],
        points: Any,
        columns: list[str],
        _: int,
        selected: Any,
        before: list[dict[str, Any]],
    ) -> tuple[Any, ...]:
        """Fill the table; what is drawn stays drawn, by the groups that its runs are in now."""
        choice = _Choice(catalogue, axis, by, points)
        columns = columns or []
        rows = [row_of(group, choice.groups, columns) for group in choice.listing.groups.values()]
        keys = (
            selected.get("ids", []) if isinstance(selected, dict) else [row["key"] for row in selected or ()]
        )
        runs = {run for row in before or () if row["key"] in set(keys) for run in row["runs"]}
        now = [group.key for group in choice.listing.groups.values() if runs & set(group.runs)]
        default, hint = default_selection(choice.listing)
        return (
            rows,
            columns_of(choice.listing, columns),
            {"ids": now or default},
            _heading(choice.listing),
            hint,
            _faults(choice),
        )

    @app.callback(
        Output("curves-graph", "figure"),
        Output("curves-title", "children"),
        Output("curves-note", "children"),
        Output("curves-drawn", "children"),
        Output("curves-baseline", "data"),
        Output("curves-baseline", "display"),
        Output("curves-seen", "data"),
        *(Input(*one) for one in _CHOICES),
        Input("curves-version", "data"),
        Input(THEME, "data"),
        Given("curves-seen", "data"),
    )
    def draw(
        axis: str,
        by: list[str],
        points: Any,
        rows: Any,
        show: str,
        baseline: str | None,
        version: int,
        theme: str | None,
        seen: str | None,
    ) -> tuple[Any, ...]:
        if theme is None:
            raise PreventUpdate
        choice = _Choice(catalogue, axis, by, points)
        selected = choice.selected(rows)
        asked = json.dumps([axis, by, points, [one.key for one in selected], show, baseline, version, theme])
        if asked == seen:  # the grid says again what it was told
            raise PreventUpdate
        drawn = choice.drawn(rows)
        figure = _figure(choice, drawn, show, baseline)
        picture = drawing_of(figure, theme)
        picture.update_layout(showlegend=False, height=None, uirevision=f"{axis}{show}")
        without = [group.label for group in selected if not group.has_curve]
        note = figure.note + (f"; without a curve on this axis: {', '.join(without)}" if without else "")
        if len(selected) - len(without) > MOST_DRAWN:
            note = f"The first {MOST_DRAWN} of {len(selected)} selected. {note}"
        options = [{"value": one.group.key, "label": one.label} for one in drawn]
        return (
            picture,
            figure.title,
            note,
            _list_drawn(drawn, choice, theme),
            options,
            None if show == _DIFFERENCE else "none",
            asked,
        )

    @app.callback(
        Output(link_store(NAME), "data"),
        Output("curves-exports", "children"),
        *(Input(*one) for one in _CHOICES),
        Input("curves-columns", "value"),
        Input("curves-search", "value"),
        Input("curves-grid", "filterModel"),
        Input("curves-grid", "columnState"),
        prevent_initial_call=True,
    )
    def write(
        axis: str,
        by: list[str],
        points: Any,
        rows: Any,
        show: str,
        baseline: str | None,
        columns: list[str],
        search: str | None,
        filters: dict[str, Any] | None,
        columns_now: list[dict[str, Any]] | None,
    ) -> tuple[str, Component]:
        """Say in the link what was chosen, but for what is so at first."""
        choice = _Choice(catalogue, axis, by, points)
        keys = [group.key for group in choice.selected(rows)]
        axes = _axes(choice.groups)
        sorted_by = [
            f"{column['colId']}:{column['sort']}" for column in columns_now or () if column.get("sort")
        ]
        state = State(NAME).choosing(
            axis=axis if axes and axis != axes[0]["value"] else None,
            by=None if choice.by == (EXPERIMENT,) else choice.by,
            points=None if choice.points == _POINTS else choice.points,
            show=None if show == _ACCURACY else show,
            baseline=baseline or None,
            column=None if columns == default_columns(choice.listing) else columns,
            q=search or None,
            filter=json.dumps(filters, separators=(",", ":")) if filters else None,
            sort=sorted_by[:1],
            select=None if set(keys) == set(default_selection(choice.listing)[0]) else keys,
        )
        return state.url, export_links(state, NAME)

    in_browser: Any = app.clientside_callback
    in_browser(
        _HIDDEN,
        Output("curves-hidden", "children"),
        Input("curves-grid", "virtualRowData"),
        Input("curves-grid", "selectedRows"),
    )

    @app.callback(
        Output("curves-grid", "dashGridOptions"), Input("curves-search", "value"), prevent_initial_call=True
    )
    def search(text: str | None) -> Any:
        options = Patch()
        options["quickFilterText"] = text or ""
        return options

    def figures(state: State) -> dict[str, Figure]:
        choice, rows = _chosen(state, catalogue)
        drawn = choice.drawn(rows)
        if not drawn:
            raise UserError("nothing is drawn: select rows of the table")
        baseline = _baseline(choice, state.one("show"), state.one("baseline"), drawn)
        return {NAME: specify(drawn, choice.over_snr, baseline)}

    register_exports(app, NAME, figures)


def _chosen(state: State, catalogue: Catalogue) -> tuple[_Choice, dict[str, list[str]]]:
    """Return what a link chooses, and the rows that it selects."""
    groups = groups_of(catalogue)
    axes = [one["value"] for one in _axes(groups)]
    axis = state.one("axis") if state.one("axis") in axes else next(iter(axes), "")
    known = {EXPERIMENT, RUN, *groups.listing(None).settings}
    by = [name for name in state.all("by") if name in known]
    choice = _Choice(catalogue, axis, by, state.number("points", _POINTS))
    keys = [key for key in state.all("select") if key in choice.listing.groups]
    return choice, {"ids": keys or default_selection(choice.listing)[0]}


def _figure(choice: _Choice, drawn: list[Drawn], show: str, baseline: str | None) -> Figure:
    if not drawn:
        return message_figure("Select rows of the table to draw their curves")
    if show == _DIFFERENCE and len(drawn) < 2:
        return message_figure("Select two rows or more: differences are to one of them")
    try:
        return specify(drawn, choice.over_snr, _baseline(choice, show, baseline, drawn))
    except UserError as error:
        return message_figure(str(error))


def _list_drawn(drawn: list[Drawn], choice: _Choice, theme: str) -> list[Component]:
    """Return the legend: what is drawn, with its numbers, and links to its runs."""
    if not drawn:
        return []
    page = DARK if theme == "dark" else LIGHT
    symbol = choice.listing.strength.symbol if choice.listing.strength is not None else ""
    loss = choice.points / 100
    rows = []
    for place, one in enumerate(drawn):
        row, style = one.group.row, curve_style(place)
        swatch = html.Span(
            className=f"swatch swatch-{style.dash}",
            style={"color": page.color(style.color)},
            **aria(hidden="true"),
        )
        seeds = [
            link
            for run, curve in zip(one.group.runs, one.curves, strict=False)
            for link in (
                dcc.Link(_seed_text(curve.settings.get("seed")), href=State("run").choosing(run=run).url),
                " ",
            )
        ]
        rows.append(
            html.Tr(
                [
                    html.Th([swatch, one.label], scope="row"),
                    html.Td(seeds, className="seeds"),
                    html.Td("–" if row["clean"] is None else f"{100 * row['clean']:.1f} %"),
                    html.Td(number_text(row["midpoint"], row["highest"])),
                    html.Td("–" if pd.isna(row["area"]) else f"{100 * row['area']:.1f} %"),
                    html.Td(one.tolerance(loss)),
                ]
            )
        )
    names = [
        "Curve",
        "Runs by seed",
        "Clean",
        f"Midpoint {symbol}",
        "Area",
        f"Within {choice.points:g} points",
    ]
    head = html.Thead(html.Tr([html.Th(name, scope="col") for name in names]))
    return [html.Table([head, html.Tbody(rows)], className="legend")]


def _seed_text(seed: Any) -> str:
    return "run" if seed is None else str(seed)


VIEW = View(NAME, "Curves", layout, register)
