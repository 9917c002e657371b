"""The page *try*: one clip on a network under noise that can be moved."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, ctx, dcc, html, no_update
from dash import State as Given
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from asr_dni.catalogue import Catalogue
from asr_dni.dashboard.audio_routes import clip_address, register_audio, upload_address
from asr_dni.dashboard.choices import checkpoint_choices, run_choices
from asr_dni.dashboard.components import aria, empty_page, notice
from asr_dni.dashboard.exports import register_exports
from asr_dni.dashboard.figure_cards import changed, changing_card, changing_outputs, emptied, moved
from asr_dni.dashboard.links import State, link_store
from asr_dni.dashboard.networks import Network
from asr_dni.dashboard.run_facts import checkpoint_of
from asr_dni.dashboard.services import Services, services_of
from asr_dni.dashboard.try_controls import nearest_draws, try_controls
from asr_dni.dashboard.trying import (
    DRAWS,
    GAUSSIAN,
    Answer,
    Trial,
    dial_of,
    heard_figure,
    run_trial,
    seconds_of,
)
from asr_dni.dashboard.view import THEME, View
from asr_dni.errors import UserError
from asr_dni.plotting import Figure

_ADDRESS = (
    Output("address", "pathname", allow_duplicate=True),
    Output("address", "search", allow_duplicate=True),
)
_SHOWN = Given(link_store("try"), "data")

# One question at a time: what is chosen while an answer is on its way is asked for, once, when it has come.
_ASK = """
function (clip, place, seed, form, draws, answered, wanted) {
    const asked = JSON.stringify([clip, place, seed, form, draws]);
    const waiting = wanted && answered !== wanted.number && Date.now() - wanted.time < 10000;
    if (waiting || (wanted && wanted.asked === asked)) {
        return window.dash_clientside.no_update;
    }
    const number = wanted ? wanted.number + 1 : 1;
    return {clip, place, seed, form, draws, asked, number, time: Date.now()};
}
"""


def layout(state: State, catalogue: Catalogue) -> Component:
    """Return the page for what a link says."""
    services = services_of(catalogue)
    choices = run_choices(catalogue, with_checkpoint=True)
    link = dcc.Store(id=link_store("try"), data=state.url)
    if not choices:
        return html.Div(
            [
                link,
                empty_page(
                    "No network to try yet",
                    "This page runs a trained network on a clip. Train one, here within a minute:",
                    commands=["asr-dni fit --config digits_lstm_dni"],
                ),
            ]
        )
    run = state.one("run", choices[0]["value"])
    selects: list[Component] = [
        dmc.Select(
            id="try-run",
            label="Network",
            data=choices,
            value=run,
            searchable=True,
            allowDeselect=False,
            limit=200,
        )
    ]
    try:
        found = catalogue.run(run)
        checkpoint = checkpoint_of(found, state.one("checkpoint"))
        names = checkpoint_choices(found)
        if checkpoint is not None and len(names) > 1:
            selects.append(
                dmc.Select(
                    id="try-checkpoint",
                    label="Checkpoint",
                    data=names,
                    value=checkpoint.name,
                    allowDeselect=False,
                )
            )
        network = services.network(run, state.one("checkpoint"))
        dial = dial_of(state.one("hardware", GAUSSIAN), network)
    except UserError as error:
        body: list[Component] = [
            html.Section(selects, className="card try-controls", **aria(label="Choices")),
            html.Section(
                [html.H1("This network cannot be run", className="card-title"), html.P(str(error))],
                className="card",
            ),
        ]
        return html.Div([link, html.Div(body, className="try")])
    hardware = state.one("hardware", GAUSSIAN)
    page = {"run": run, "hardware": "" if hardware == GAUSSIAN else hardware}
    page |= {name: state.one(name) for name in ("checkpoint", "upload")}
    return html.Div(
        [
            link,
            dcc.Store(id="try-page", data=page),
            *(dcc.Store(id=f"try-{name}") for name in ("wanted", "answered", "drawn", "told")),
            dcc.Store(id="try-seed", data=int(state.number("seed", 0))),
            html.Div(
                [
                    html.Section(
                        [*selects, *try_controls(state, services, network, dial)],
                        className="card try-controls",
                        **aria(label="Choices"),
                    ),
                    html.Div(
                        [
                            html.Section(
                                [
                                    html.Div(id="try-decision", className="decision", **aria(live="polite")),
                                    html.Audio(
                                        id="try-audio",
                                        controls=True,
                                        preload="metadata",
                                        className="player",
                                        **aria(label="The clip"),
                                    ),
                                ],
                                className="card try-answer",
                            ),
                            changing_card("posteriors"),
                            changing_card("clip"),
                        ],
                        className="try-answers",
                    ),
                ],
                className="try",
            ),
        ]
    )


def _decision(answer: Answer) -> list[Component]:
    """Return the decision in words."""
    decided = answer.decision
    verdict: list[Component] = []
    if answer.right is not None:
        verdict.append(
            html.Span(
                "right" if answer.right else f"wrong: it is {answer.clip.label}",
                className="badge good" if answer.right else "badge bad",
            )
        )
    return [
        html.Div(
            [
                html.Strong(decided.label, className="decided"),
                html.Span(f"{100 * decided.posterior:.0f} %", className="posterior"),
                *verdict,
            ],
            className="row",
        ),
        html.P(f"{answer.passes}: {answer.votes}", className="soft votes"),
    ]


def register(app: Dash, catalogue: Catalogue) -> None:
    """Add the page's callbacks and the routes of recordings."""
    services = services_of(catalogue)
    register_audio(app, services)

    def figures(state: State) -> Mapping[str, Figure]:
        network = services.network(state.one("run"), state.one("checkpoint"))
        return figures_of(run_trial(trial_of(state), network, services.uploads), network, state)

    register_exports(app, "try", figures)
    _register_choices(app, services)
    app.clientside_callback(  # type: ignore[no-untyped-call]
        _ASK,
        Output("try-wanted", "data"),
        Input("try-clip", "value"),
        Input("try-place", "value"),
        Input("try-seed", "data"),
        Input("try-form", "value"),
        Input("try-draws", "value"),
        Input("try-answered", "data"),
        Given("try-wanted", "data"),
    )
    # Not an output of the answer: a page without a network has a link, too, and nothing to answer.
    app.clientside_callback(  # type: ignore[no-untyped-call]
        "url => url || window.dash_clientside.no_update",
        Output(link_store("try"), "data", allow_duplicate=True),
        Input("try-told", "data"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("try-decision", "children"),
        *changing_outputs("posteriors"),
        *changing_outputs("clip"),
        Output("try-audio", "src"),
        Output("try-audio", "hidden"),
        Output("try-value", "children"),
        Output("try-seed-text", "children"),
        Output("try-drawn", "data"),
        Output("try-told", "data"),
        Output("try-answered", "data"),
        Input("try-wanted", "data"),
        Input(THEME, "data"),
        Given("try-page", "data"),
        Given("try-drawn", "data"),
        prevent_initial_call=True,
    )
    def answer(
        wanted: Mapping[str, Any] | None, theme: str | None, page: Mapping[str, str], drawn: Any
    ) -> tuple[Any, ...]:
        """Run the network, and show what it says."""
        if wanted is None:
            raise PreventUpdate
        return _answer(services, wanted, theme or "light", page, drawn)


def _answer(
    services: Services, wanted: Mapping[str, Any], theme: str, page: Mapping[str, str], drawn: Any
) -> tuple[Any, ...]:
    seed, number, heard = int(wanted["seed"]), wanted["number"], wanted["clip"]
    upload = page["upload"] if heard is None else ""
    try:
        network = services.network(page["run"], page["checkpoint"])
        dial = dial_of(page["hardware"] or GAUSSIAN, network)
        value = None if dial is None else dial.at(float(wanted["place"]))
        state = State("try").choosing(
            run=page["run"],
            checkpoint=page["checkpoint"] or None,
            clip=None if upload else int(heard or 0),
            upload=upload or None,
            hardware=page["hardware"] or None,
            value=None if dial is None or value == dial.value else value,
            seed=seed or None,
            draws=None if int(wanted["draws"]) == DRAWS else int(wanted["draws"]),
            form="map" if wanted["form"] == "map" else None,
        )
        found = run_trial(trial_of(state), network, services.uploads)
        shown = figures_of(found, network, state)
    except UserError as error:
        refusal = [html.P(str(error), role="alert")]
        nothing = (*emptied(), *emptied())
        return (refusal, *nothing, no_update, True, no_update, no_update, None, no_update, number)
    now = [page["run"], page["checkpoint"], heard, upload, theme, wanted["form"]]
    source = (
        upload_address(upload) if upload else clip_address(page["run"], page["checkpoint"], int(heard or 0))
    )
    silent = found.clip.samples is None
    return (
        _decision(found),
        *(moved if drawn == now else changed)("posteriors", shown["posteriors"], state, theme),
        *(
            (no_update,) * 4
            if drawn and drawn[:-1] == now[:-1]
            else changed("clip", shown["clip"], state, theme)
        ),
        no_update if silent else source,
        silent,
        "" if dial is None or value is None else dial.text(value),
        f"seed {seed}",
        now,
        state.url,
        number,
    )


def trial_of(state: State) -> Trial:
    """Return what a link tries."""
    value = state.one("value")
    return Trial(
        int(state.number("clip", 0)),
        state.one("upload"),
        state.one("hardware", GAUSSIAN),
        state.number("value", 0.0) if value else None,
        int(state.number("seed", 0)),
        nearest_draws(state.number("draws", DRAWS)),
    )


def figures_of(answer: Answer, network: Network, state: State) -> dict[str, Figure]:
    """Specify the figures that the page shows of an answer, by name."""
    form = "map" if state.one("form") == "map" else "lines"
    return {
        "posteriors": answer.figure(seconds_of(network), form),
        "clip": heard_figure(network, answer.clip),
    }


def _register_choices(app: Dash, services: Services) -> None:
    """Add what the buttons do, and what opens another link."""

    @app.callback(
        Output("try-seed", "data"),
        Input("try-again", "n_clicks"),
        Given("try-seed", "data"),
        prevent_initial_call=True,
    )
    def draw_again(clicks: int | None, seed: int) -> int:
        if not clicks:
            raise PreventUpdate
        return seed + 1

    @app.callback(
        Output("try-clip", "value"),
        Input("try-before", "n_clicks"),
        Input("try-after", "n_clicks"),
        Given("try-clip", "value"),
        Given("try-clip", "data"),
        prevent_initial_call=True,
    )
    def step(before: int | None, after: int | None, clip: str | None, names: list[Any]) -> str:
        if not names or not (before or after):
            raise PreventUpdate
        here = 0 if clip is None else int(clip) + (1 if ctx.triggered_id == "try-after" else -1)
        return str(here % len(names))

    @app.callback(*_ADDRESS, Input("try-run", "value"), _SHOWN, prevent_initial_call=True)
    def choose_run(run: str, shown: str) -> tuple[str, str]:
        """Open the link of another network; what does not go with it is as at first."""
        state = State.parse(shown)
        if run == state.one("run", run):
            raise PreventUpdate
        return state.choosing(run=run, checkpoint=None, clip=None, value=None).address

    @app.callback(*_ADDRESS, Input("try-hardware", "value"), _SHOWN, prevent_initial_call=True)
    def choose_hardware(hardware: str, shown: str) -> tuple[str, str]:
        state = State.parse(shown)
        if hardware == state.one("hardware", GAUSSIAN):
            raise PreventUpdate
        return state.choosing(hardware=None if hardware == GAUSSIAN else hardware, value=None).address

    @app.callback(*_ADDRESS, Input("try-checkpoint", "value"), _SHOWN, prevent_initial_call=True)
    def choose_checkpoint(name: str, shown: str) -> tuple[str, str]:
        state = State.parse(shown)
        if name == state.one("checkpoint", "last.ckpt"):
            raise PreventUpdate
        return state.choosing(checkpoint=name).address

    @app.callback(
        *_ADDRESS,
        Output("notices", "children", allow_duplicate=True),
        Output("try-upload", "contents"),  # so that the same file can be given again
        Input("try-upload", "contents"),
        Given("try-upload", "filename"),
        _SHOWN,
        prevent_initial_call=True,
    )
    def take(contents: str | None, name: str | None, shown: str) -> tuple[Any, ...]:
        if not contents:
            raise PreventUpdate
        try:
            file = base64.b64decode(contents.partition(",")[2], validate=True)
            upload = services.uploads.add(file, name or "recording")
        except (UserError, binascii.Error) as error:
            return no_update, no_update, notice(str(error)), None
        return *State.parse(shown).choosing(upload=upload.identity, clip=None).address, [], None


VIEW = View("try", "Try", layout, register)
