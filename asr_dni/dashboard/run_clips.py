"""The tab of the clips that noise breaks first: which they are, and one of them to listen to."""

import math

import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component

from asr_dni.dashboard.audio_routes import clip_address
from asr_dni.dashboard.components import aria
from asr_dni.dashboard.curve_table import GRID_THEME
from asr_dni.dashboard.figure_cards import figure_card
from asr_dni.dashboard.links import State
from asr_dni.dashboard.networks import Network
from asr_dni.dashboard.run_figures import Shown
from asr_dni.dashboard.run_tabs import not_measured, nothing
from asr_dni.dashboard.services import Services
from asr_dni.dashboard.trying import heard_figure
from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve_file import strength_of
from asr_dni.evaluation.questions.clips import breaking_points
from asr_dni.plotting import Figure
from asr_dni.wording import count

_MOST_CLIPS = 2_000
_MARGIN = (
    "Margin: the label's posterior less that of the likeliest other one, mean over the passes without noise."
)


def clips(shown: Shown, state: State, theme: str | None, services: Services) -> list[Component]:
    """Return the clips that noise breaks first, to listen to."""
    if shown.evaluation is None or shown.evaluation.clips is None:
        return [not_measured(shown)]
    settings_of = shown.evaluation.settings_of("clips")
    axis = strength_of(settings_of)
    order = breaking_points(shown.evaluation.clips)
    broken = order[order["right"]]
    if broken.empty:
        return [nothing("No clip was right without noise", "So noise breaks none: train the network longer.")]
    rows = [
        {
            "clip": str(row["clip"]),
            "path": row["path"],
            "label": row["label"],
            "breaks": None if math.isnan(row["breaks_at"]) else row["breaks_at"],
            "taken": row["predicted"] if row["predicted"] not in (None, row["label"]) else "",
            "margin": round(float(row["margin"]), 3),
        }
        for row in broken.head(_MOST_CLIPS).to_dict("records")
    ]
    chosen = state.one("clip", rows[0]["clip"])
    selected = next((row for row in rows if row["clip"] == chosen), rows[0])
    wrong = len(order) - len(broken)
    remark = f"{len(broken)} clips are right without noise, the first to break at the top"
    remark += (
        f"; {count(wrong, 'clip')} more {'is' if wrong == 1 else 'are'} wrong from the beginning."
        if wrong
        else "."
    )
    remark += f" {_MARGIN}"
    grid = dag.AgGrid(
        id="run-clips",
        rowData=rows,
        columnDefs=[
            {"field": "path", "headerName": "clip", "flex": 2, "minWidth": 150, "filter": True},
            {"field": "label", "headerName": "is", "width": 80, "filter": True},
            {
                "field": "breaks",
                "headerName": f"breaks at {axis.symbol}",
                "width": 118,
                "type": "numericColumn",
            },
            {"field": "taken", "headerName": "taken for", "width": 100, "filter": True},
            {
                "field": "margin",
                "headerName": "margin",
                "headerTooltip": _MARGIN,
                "width": 90,
                "type": "numericColumn",
            },
        ],
        selectedRows={"ids": [selected["clip"]]},
        getRowId="params.data.clip",
        defaultColDef={"sortable": True, "resizable": True},
        dashGridOptions={
            "rowSelection": {"mode": "singleRow", "checkboxes": False, "enableClickSelection": True},
            "headerHeight": 36,
            "rowHeight": 34,
            "theme": {"function": GRID_THEME},
            "animateRows": False,
        },
        className="grid",
        style={"height": "520px"},
    )
    return [
        html.Div(
            [
                html.Section(
                    [
                        html.H2("The clips that noise breaks first", className="card-title"),
                        html.P(remark, className="soft"),
                        grid,
                    ],
                    className="card",
                ),
                html.Div(id="run-clip", className="stack"),
            ],
            className="clips",
        ),
        *[figure_card("clips", shown.figures()["clips"], state, theme)],
    ]


def position_of(network: Network, clip: int) -> int | None:
    """Return the place of a clip in the test split of a network's data; None: it is not there."""
    places = (network.clips.clip_ids == clip).nonzero()
    return int(places[0, 0]) if len(places) else None


def clip_detail(shown: Shown, state: State, theme: str | None, services: Services) -> list[Component]:
    """Return a clip to listen to, with its samples, its features and how often it is right."""
    if shown.clip is None or shown.evaluation is None or shown.evaluation.clips is None:
        return []
    own = shown.evaluation.clips[shown.evaluation.clips["clip"] == shown.clip]
    if own.empty:
        return [nothing("No such clip", "The evaluation has no clip of this number.")]
    name = str(own["path"].iloc[0])
    share = [
        figure_card(key, figure, state, theme) for key, figure in shown.figures().items() if key == "share"
    ]
    try:
        network = services.network(shown.run.identity)
        position = position_of(network, shown.clip)
        if position is None:
            return [nothing(name, "This clip is not among those of the test split any more."), *share]
        figure = clip_heard(network, position)
        recorded = network.clips.recorded
    except UserError as error:
        return [nothing(name, f"It cannot be heard: {error}"), *share]
    tried = State("try").choosing(run=shown.run.identity, clip=position)
    if strength_of(shown.evaluation.settings_of("clips")).is_sigma:
        order = breaking_points(shown.evaluation.clips)
        (breaks_at,) = order.loc[order["clip"] == shown.clip, "breaks_at"]
        # One that never breaks is tried under the strongest noise.
        at = own["strength"].max() if math.isnan(breaks_at) else breaks_at
        tried = tried.choosing(value=float(at))
    sound: Component = (
        html.Audio(
            controls=True,
            preload="metadata",
            src=clip_address(shown.run.identity, "", position),
            className="player",
            **aria(label=f"The clip {name}"),
        )
        if recorded
        else html.P("These data are no recordings: there is nothing to hear.", className="soft")
    )
    head = html.Section(
        [
            html.Div(
                [html.H2(name, className="card-title"), dmc.Anchor("Try it under noise", href=tried.url)],
                className="card-head",
            ),
            sound,
        ],
        className="card",
    )
    return [head, figure_card("clip", figure, state, theme), *share]


def clip_heard(network: Network, position: int) -> Figure:
    """Specify the figure of what a network gets of a clip of its test split."""
    with network.lock:
        clip = network.clips[position]
    return heard_figure(network, clip)
