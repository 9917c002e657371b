"""What can be chosen on the page *try*, beside the network."""

import math
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html
from dash.development.base_component import Component

from asr_dni.dashboard.links import State
from asr_dni.dashboard.listening import MOST_BYTES
from asr_dni.dashboard.networks import Network
from asr_dni.dashboard.services import Services
from asr_dni.dashboard.trying import DRAWS, GAUSSIAN, MOST_DRAWS, Dial, hardware_choices
from asr_dni.errors import UserError

_ROOM = 0.16
"""Of a slider's length: what a mark's text takes."""

_MOST_SENT = 200_000_000
"""Bytes that the browser sends of a recording. What it does not send it is silent about; the server says what is wrong
with a file that it gets and that is larger than it takes."""


def try_controls(state: State, services: Services, network: Network, dial: Dial | None) -> list[Component]:
    """Return what is chosen beside the network: clip, hardware, its strength, draw, passes and form."""
    return [
        *_clip_controls(state, services, network),
        dmc.Select(
            id="try-hardware",
            label="Hardware",
            data=[{"value": name, "label": text} for name, text in hardware_choices(network).items()],
            value=state.one("hardware", GAUSSIAN),
            searchable=True,
            allowDeselect=False,
        ),
        *_dial_controls(state, dial),
        html.Div(
            [
                dmc.Button("Another draw", id="try-again", variant="default", size="sm"),
                html.Span(id="try-seed-text", className="soft"),
            ],
            className="row",
        ),
        html.Div(
            [
                html.Span("Passes", className="label", id="try-draws-label"),
                dmc.SegmentedControl(
                    id="try-draws",
                    data=[str(number) for number in (1, DRAWS, MOST_DRAWS)],
                    value=str(nearest_draws(state.number("draws", DRAWS))),
                    size="xs",
                ),
                html.Span("Shown as", className="label"),
                dmc.SegmentedControl(
                    id="try-form",
                    data=[{"value": "lines", "label": "lines"}, {"value": "map", "label": "heat map"}],
                    value="map" if state.one("form") == "map" else "lines",
                    size="xs",
                ),
            ],
            className="row",
        ),
    ]


def nearest_draws(number: float) -> int:
    """Return the number of passes that can be chosen which is next to another."""
    return min((1, DRAWS, MOST_DRAWS), key=lambda known: abs(known - number))


def _clip_controls(state: State, services: Services, network: Network) -> list[Component]:
    names: list[dict[str, str]] = []
    remark: str | None = None
    position = int(state.number("clip", 0))
    if state.one("upload"):
        try:
            remark = f"heard: {services.uploads.get(state.one('upload')).name}"
        except UserError:  # the answer says it
            remark = None
    try:
        names = [{"value": str(place), "label": name} for place, name in enumerate(network.clips.names)]
        if not network.clips.recorded:
            remark = "These data are no recordings: there is nothing to hear."
    except UserError:  # the answer says why
        names = []
    found: list[Component] = [
        dmc.Select(
            id="try-clip",
            label="Clip of the test split",
            data=names,
            value=None if state.one("upload") or not names else str(position),
            searchable=True,
            allowDeselect=False,
            disabled=not names,
            placeholder="none chosen" if names else "not here",
            limit=300,
        ),
        html.Div(
            [
                dmc.Button("Previous", id="try-before", variant="default", size="xs", disabled=not names),
                dmc.Button("Next", id="try-after", variant="default", size="xs", disabled=not names),
                *([_upload()] if network.spotter.features is not None else []),
            ],
            className="row",
        ),
    ]
    if remark:
        found.append(html.P(remark, className="soft", role="note"))
    return found


def _upload() -> Component:
    """Return what takes a recording; it is decoded here and kept in memory only."""
    upload = dcc.Upload(
        html.Span("Your own recording", className="upload-text"),
        id="try-upload",
        accept=".wav,.flac,.ogg,.mp3,audio/*",
        max_size=_MOST_SENT,
        multiple=False,
        disable_click=True,  # the label opens the choice of files
    )
    return html.Label(upload, className="upload", title=f"at most {MOST_BYTES / 1e6:g} MB")


def _dial_controls(state: State, dial: Dial | None) -> list[Component]:
    if dial is None:
        return [
            html.P("This hardware has no strength that could be moved.", className="soft"),
            html.Div(dmc.Slider(id="try-place", min=0, max=1, value=0, disabled=True), hidden=True),
        ]
    value = state.number("value", dial.value)
    place = round(dial.place(value), 6)
    return [
        html.Div(
            [
                html.Div(
                    [
                        html.Span(dial.name, className="label"),
                        html.Output(id="try-value", className="value"),
                    ],
                    className="row between",
                ),
                dmc.Slider(
                    id="try-place",
                    min=round(dial.place(dial.low), 6),
                    max=round(dial.place(dial.high), 6),
                    step=dial.step,
                    value=place,
                    marks=_marks(dial),
                    label=None,
                    updatemode="drag",
                    thumbLabel=dial.strength.label,
                    size="md",
                ),
            ],
            className="dial",
        )
    ]


def _marks(dial: Dial) -> list[dict[str, Any]]:
    """Return what is written below a slider: the last mark, and of the others those that have room before it."""
    first, last = dial.place(dial.low), dial.place(dial.high)
    marks: list[dict[str, Any]] = []
    free = math.inf
    for level, text in sorted(dial.marks.items(), reverse=True):
        place = dial.place(level)
        mark: dict[str, Any] = {"value": round(place, 6)}
        if free - place >= _ROOM * (last - first):
            mark["label"], free = text, place
        marks.append(mark)
    return marks[::-1]
