"""The page *matrix*: a study as heat maps, a cell's curve and trainings, and what was found, with its tests."""

from typing import Any

import dash_mantine_components as dmc
import pandas as pd
from dash import Dash, Input, Output, dcc, html
from dash import State as Given
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from asr_dni.catalogue import Catalogue
from asr_dni.dashboard.components import aria, empty_page
from asr_dni.dashboard.exports import export_links, register_exports
from asr_dni.dashboard.figure_cards import BLANK, PLAIN, draw
from asr_dni.dashboard.links import State, link_store, without_theme
from asr_dni.dashboard.studies import Cell, ShownStudy, shared_settings, studies_of
from asr_dni.dashboard.view import THEME, View
from asr_dni.errors import UserError
from asr_dni.plotting import Figure, HeatMap
from asr_dni.study.findings import tests_of
from asr_dni.wording import count

NAME = "matrix"
_LOOK_EVERY = 5000  # milliseconds
_COLORS = {
    "supports": "verdict verdict-yes",
    "does not support": "verdict verdict-no",
    "cannot tell": "verdict",
    "cannot be tested": "verdict",
}
_PHONE = 340  # pixels of a card on a phone
_CELL, _PANEL, _BESIDE = 42, 230, 150  # pixels: of a cell and a panel that can be read, and of the colour bar


def layout(state: State, catalogue: Catalogue) -> Component:
    """Return the page for what a link says."""
    studies = studies_of(catalogue).list()
    frame = [
        dcc.Interval(id="matrix-look", interval=_LOOK_EVERY),
        dcc.Store(id="matrix-seen", data=_stamp(studies)),
    ]
    if studies.empty:
        empty = empty_page(
            "No study yet",
            f"A study trains a whole matrix, training noise by inference noise. In {catalogue.folder} there is none;"
            " what is new appears here by itself.",
            commands=["asr-dni study run --config digits", "asr-dni conf list"],
        )
        return html.Div([*frame, empty])
    identity = state.one("study")
    if identity not in set(studies["study"]):
        identity = str(studies["study"].iloc[0])
    row = studies.set_index("study").loc[identity]
    try:
        study = studies_of(catalogue).get(identity, (str(row["results"]), str(row["changed"])))
    except UserError as error:
        body: list[Component] = [
            html.Section(empty_page("Nothing to show of this study", str(error)), className="card")
        ]
        return html.Div([*frame, _toolbar(studies, identity), *body])
    titles = study.titles()
    name = state.one("figure") if state.one("figure") in titles else next(iter(titles))
    return html.Div(
        [
            *frame,
            dcc.Store(id=link_store(NAME), data=state.url),
            html.H1("Studies", className="hidden"),
            _toolbar(studies, identity, titles, name),
            html.Div(
                [
                    html.Section(_map_card(study, state, name), className="card", **aria(label="Figure")),
                    html.Section(_cell_card(study, state), className="card", **aria(label="Cell")),
                ],
                className="matrix",
            ),
            html.Section(_findings(study), className="card findings", **aria(label="Findings")),
        ]
    )


def _stamp(studies: pd.DataFrame) -> str:
    """Return what changes where results are added."""
    return str(list(zip(studies["study"], studies["results"], studies["state"], strict=True)))


def _toolbar(
    studies: pd.DataFrame, identity: str, titles: dict[str, str] | None = None, name: str = ""
) -> Component:
    rows = studies.to_dict("records")
    data = [
        {
            "value": row["study"],
            "label": f"{row['study']}: {count(int(row['results']), 'result')}"
            + (f", {row['state']}" if row["state"] != "finished" else ""),
        }
        for row in rows
    ]
    selects = [
        dmc.Select(
            id="matrix-study", label="Study", data=data, value=identity, allowDeselect=False, className="wide"
        )
    ]
    if titles:
        selects.append(
            dmc.Select(
                id="matrix-figure",
                label="Figure",
                data=[{"value": key, "label": title} for key, title in titles.items()],
                value=name,
                allowDeselect=False,
                searchable=len(titles) > 8,
                className="widest",
            )
        )
    return html.Section(selects, className="card toolbar", **aria(label="Choices"))


def _map_card(study: ShownStudy, state: State, name: str) -> list[Component]:
    figure = study.figures[name]
    height = draw(figure, None).layout.height
    cells = [
        element.shape[1]
        for panel in figure.panels
        for element in panel.elements
        if isinstance(element, HeatMap)
    ]
    width = max([_CELL * max(cells) if cells else 0, 0 if figure.grid[1] == 1 else _PANEL])
    graph = dcc.Graph(
        id="matrix-graph",
        figure=BLANK,
        config=PLAIN,
        responsive=True,
        style={"height": f"{max(height, 380)}px", "minWidth": f"{_BESIDE + figure.grid[1] * width}px"},
    )
    wide = " scroll-wide" if _BESIDE + figure.grid[1] * width > _PHONE else ""
    return [
        html.Div(
            [
                html.H2(id="matrix-title", className="card-title"),
                html.Span(export_links(state, "figure"), id="matrix-exports"),
            ],
            className="card-head",
        ),
        html.Div(graph, className=f"scroll{wide}", role="region", tabIndex=0, **aria(label="Heat map")),
        html.P(id="matrix-note", className="soft note"),
    ]


def _cell_card(study: ShownStudy, state: State) -> list[Component]:
    cell = _cell_of(study, state.one("cell"))
    matrix = study.matrix(cell)
    labels = study.labels()
    return [
        html.Div(
            [html.H2(id="matrix-cell-title", className="card-title"), html.Span(id="matrix-cell-exports")],
            className="card-head",
        ),
        html.Div(
            [
                dmc.Select(
                    id="matrix-of",
                    label="Network",
                    data=[
                        {"value": str(place), "label": label or "all"} for place, label in enumerate(labels)
                    ],
                    value=str(cell.matrix),
                    allowDeselect=False,
                    className="wide",
                    display="none" if len(labels) == 1 else None,
                ),
                dmc.Select(
                    id="matrix-train",
                    label=f"{matrix.train_symbol}",
                    data=[
                        {"value": f"{one:g}", "label": matrix.train_text(one)} for one in matrix.sigma_train
                    ],
                    value=f"{cell.sigma_train:g}",
                    allowDeselect=False,
                    className="narrow",
                ),
                dmc.Select(
                    id="matrix-level",
                    label=matrix.strength.symbol,
                    data=[f"{one:g}" for one in matrix.levels],
                    value=f"{cell.level:g}",
                    allowDeselect=False,
                    className="narrow",
                ),
            ],
            className="row",
        ),
        html.P("A click on a cell of the heat map chooses it.", className="soft note"),
        dcc.Graph(
            id="matrix-cell-graph",
            figure=BLANK,
            config=PLAIN,
            responsive=True,
            style={"height": "330px"},
        ),
        html.Div(id="matrix-members"),
    ]


def _cell_of(study: ShownStudy, text: str) -> Cell:
    """Return the cell that a link names; else the one of most training noise, at the middle level."""
    cell = Cell.parse(text)
    try:
        if cell is not None:
            study.matrix(cell)
            return cell
    except UserError:
        pass
    matrix = study.findings.matrices[0]
    return Cell(0, matrix.sigma_train[-1], matrix.levels[len(matrix.levels) // 2])


def _findings(study: ShownStudy) -> list[Component]:
    parts: list[Component] = [
        html.H2("Findings", className="card-title"),
        html.P(study.findings.setting, className="soft"),
    ]
    for question, answers in study.findings.answered():
        rows = []
        for answer in answers:
            told: list[Any] = [answer.sentence]
            if answer.verdict in _COLORS:
                told = [html.Span(answer.verdict, className=_COLORS[answer.verdict]), " ", *told]
            rows.append(html.Tr([html.Th(answer.about, scope="row"), html.Td(told)]))
        tests = [html.P(f"Test: {test}", className="soft") for test in tests_of(answers)]
        parts.append(
            html.Details(
                [html.Summary(question.title), html.Table(html.Tbody(rows), className="answers"), *tests],
                open=True,
            )
        )
    notes = html.Ul([html.Li(note) for note in study.findings.notes])
    parts.append(html.Details([html.Summary("What limits these answers"), notes], className="soft"))
    return parts


def _members(study: ShownStudy, cell: Cell) -> list[Component]:
    """Return who is in a cell, and how they were trained."""
    members = study.members(cell)
    matrix = study.matrix(cell)
    several = (members["draws"] > 1).any() or (members["chips"] > 1).any()
    heads = ["Seed", "Accuracy", *(["Draws", "Chips"] if several else []), "Member"]
    rows = [
        html.Tr(
            [
                html.Td(row["seed"]),
                html.Td(f"{100 * row['accuracy']:.1f} %"),
                *([html.Td(row["draws"]), html.Td(row["chips"])] if several else []),
                html.Td(html.Code(row["member"])),
            ]
        )
        for row in members.to_dict("records")
    ]
    table = html.Table(
        [html.Thead(html.Tr([html.Th(head, scope="col") for head in heads])), html.Tbody(rows)],
        className="legend",
    )
    settings = [
        html.Tr([html.Th(name, scope="row"), html.Td(value)])
        for name, value in shared_settings(members).items()
    ]
    about = f"{matrix.train_symbol} {matrix.train_text(cell.sigma_train)}, {matrix.strength.symbol} {cell.level:g}"
    return [
        html.H3(f"{count(len(members), 'training')} at {about}", className="card-title"),
        html.Div(table, className="scroll", role="region", tabIndex=0, **aria(label="Trainings")),
        html.Details(
            [
                html.Summary("Their settings"),
                html.Div(html.Table(html.Tbody(settings), className="legend settings"), className="scroll"),
            ],
            className="note",
        ),
    ]


def register(app: Dash, catalogue: Catalogue) -> None:
    """Add the page's callbacks."""

    def read(identity: str) -> ShownStudy:
        studies = studies_of(catalogue)
        rows = studies.list().set_index("study")
        if identity not in rows.index:
            raise UserError(f"the study {identity} is gone")
        row = rows.loc[identity]
        return studies.get(identity, (str(row["results"]), str(row["changed"])))

    @app.callback(
        Output("page", "children", allow_duplicate=True),
        Input("matrix-look", "n_intervals"),
        Given("matrix-seen", "data"),
        Given("address", "href"),
        prevent_initial_call=True,
    )
    def look(_: int, seen: str, link: str) -> Component:
        """Show what is new."""
        if _stamp(studies_of(catalogue).list()) == seen:
            raise PreventUpdate
        return layout(without_theme(State.parse(link))[0], catalogue)

    @app.callback(
        Output("page", "children", allow_duplicate=True),
        Input("matrix-study", "value"),
        Given("address", "href"),
        prevent_initial_call=True,
    )
    def change_study(identity: str | None, link: str) -> Component:
        shown = State.parse(link).one("study") or next(iter(studies_of(catalogue).list()["study"]), "")
        if identity is None or identity == shown:
            raise PreventUpdate
        return layout(State(NAME).choosing(study=identity), catalogue)

    @app.callback(
        Output("matrix-graph", "figure"),
        Output("matrix-title", "children"),
        Output("matrix-note", "children"),
        Input("matrix-figure", "value"),
        Input(THEME, "data"),
        Given("matrix-study", "value"),
    )
    def show(name: str, theme: str | None, identity: str) -> tuple[Any, ...]:
        if theme is None or name is None:
            raise PreventUpdate
        figure = read(identity).figures[name]
        picture = draw(figure, theme)
        picture.update_layout(height=None, clickmode="event")
        return picture, figure.title, figure.note

    @app.callback(
        Output("matrix-of", "value"),
        Output("matrix-train", "value"),
        Output("matrix-train", "data"),
        Output("matrix-level", "value"),
        Output("matrix-level", "data"),
        Input("matrix-graph", "clickData"),
        Given("matrix-figure", "value"),
        Given("matrix-study", "value"),
        prevent_initial_call=True,
    )
    def choose(clicked: dict[str, Any] | None, name: str, identity: str) -> tuple[Any, ...]:
        study = read(identity)
        cell = study.cell_at(name, clicked["points"][0]) if clicked else None
        if cell is None:
            raise PreventUpdate
        matrix = study.matrix(cell)
        trains = [{"value": f"{one:g}", "label": matrix.train_text(one)} for one in matrix.sigma_train]
        levels = [f"{one:g}" for one in matrix.levels]
        return str(cell.matrix), f"{cell.sigma_train:g}", trains, f"{cell.level:g}", levels

    @app.callback(
        Output("matrix-cell-graph", "figure"),
        Output("matrix-cell-title", "children"),
        Output("matrix-members", "children"),
        Output("matrix-cell-exports", "children"),
        Output("matrix-exports", "children"),
        Output("matrix-train", "label"),
        Output("matrix-level", "label"),
        Output(link_store(NAME), "data"),
        Input("matrix-of", "value"),
        Input("matrix-train", "value"),
        Input("matrix-level", "value"),
        Input("matrix-figure", "value"),
        Input(THEME, "data"),
        Given("matrix-study", "value"),
    )
    def open_cell(
        of: str, train: str, level: str, name: str, theme: str | None, identity: str
    ) -> tuple[Any, ...]:
        if theme is None:
            raise PreventUpdate
        study = read(identity)
        cell = _cell_of(study, f"{of},{train},{level}")
        first = next(iter(studies_of(catalogue).list()["study"]))
        state = State(NAME).choosing(
            study=None if identity == first else identity,
            figure=None if name == next(iter(study.figures)) else name,
            cell=None if cell == _cell_of(study, "") else str(cell),
        )
        figure = study.curve(cell)
        picture = draw(figure, theme)
        picture.update_layout(height=None)
        return (
            picture,
            figure.title,
            _members(study, cell),
            export_links(state, "cell"),
            export_links(state, "figure"),
            study.matrix(cell).train_symbol,
            study.matrix(cell).strength.symbol,
            state.url,
        )

    def figures(state: State) -> dict[str, Figure]:
        identity = state.one("study") or str(next(iter(studies_of(catalogue).list()["study"]), ""))
        study = read(identity)
        name = state.one("figure") if state.one("figure") in study.figures else next(iter(study.figures))
        return {"figure": study.figures[name], "cell": study.curve(_cell_of(study, state.one("cell")))}

    register_exports(app, NAME, figures)


VIEW = View(NAME, "Matrix", layout, register)
