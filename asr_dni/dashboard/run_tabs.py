"""The tabs of a run's page: what each is made of."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component

from asr_dni.catalogue import Run
from asr_dni.dashboard.components import aria
from asr_dni.dashboard.curve_figures import number_text
from asr_dni.dashboard.figure_cards import figure_card
from asr_dni.dashboard.links import State
from asr_dni.dashboard.run_facts import (
    checkpoint_of,
    commands_of,
    count_differences,
    damaged_curve,
    evaluate_command,
    files_of,
    highest_strength,
    settings_beside,
    size_text,
)
from asr_dni.dashboard.run_figures import Shown, strengths_in
from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve_file import strength_of
from asr_dni.wording import count

TITLES = {
    "overview": "Overview",
    "settings": "Settings",
    "training": "Training",
    "words": "Words",
    "sensitivity": "Sensitivity",
    "voting": "Voting, drift",
    "calibration": "Calibration",
    "clips": "Clips",
}

_MISSING = {
    "words": "which words are taken for which under noise",
    "sensitivity": "which layer, site or gate bears noise worst",
    "voting": "what voting over several noisy inferences buys back, and how chips drift",
    "calibration": "whether the network's confidence can be believed under noise",
    "clips": "which clips noise breaks first",
}

_OPTIONS = {"sensitivity": ("--only", "sensitivity")}


def cards(shown: Shown, state: State, theme: str | None) -> list[Component]:
    """Return the figures of a tab as cards."""
    return [figure_card(name, figure, state, theme) for name, figure in shown.figures().items()]


def overview(shown: Shown, state: State, theme: str | None) -> list[Component]:
    """Return noise curves, what is wrong with a run, commands and files."""
    run = shown.run
    figures = cards(shown, state, theme)
    parts: list[Component] = []
    if run.message or run.faults:
        faults = [html.Li(f"{path} {fault}") for path, fault in run.faults.items()]
        said = [html.P(run.message)] if run.message and not faults else []
        parts.append(
            html.Section(
                [html.H2("What is wrong", className="card-title"), *said, html.Ul(faults)],
                className="card warn",
            )
        )
    if damaged_curve(run):
        again = commands_of(run, Path.cwd()).get("Measure its noise curve")
        text = "Its training has ended and measured it, but the file cannot be used: see above."
        text += (
            " Measure it again, of the last checkpoint:"
            if again
            else " It has no checkpoint to measure it of."
        )
        parts.append(nothing("The noise curve is damaged", text, again))
    elif not figures:
        parts.append(
            nothing(
                "No noise curve yet",
                "Its curve is measured when its training ends; or now, of the last checkpoint:",
                commands_of(run, Path.cwd()).get("Measure its noise curve"),
            )
        )
    parts += figures
    commands = [
        html.Div([html.H3(what, className="command-title"), command(text)], className="command-row")
        for what, text in commands_of(run, Path.cwd()).items()
    ]
    if commands:
        where = html.P(_where(), className="soft")
        parts.append(
            html.Section([html.H2("Commands", className="card-title"), where, *commands], className="card")
        )
    parts.append(_files(run))
    return parts


def _where() -> str:
    """Return where commands are run: relative paths of a run's data count from there, as they do for this page."""
    return f"In {Path.cwd()}, where the dashboard was started and relative paths of data count from:"


def command(text: str) -> Component:
    """Return a command of the shell, with a button that copies it."""
    return html.Div(
        [
            html.Pre(html.Code(text), className="command", tabIndex=0),
            dmc.CopyButton(
                "Copy",
                value=text,
                copiedChildren="Copied",
                size="compact-xs",
                buttonProps={"variant": "default"},
            ),
        ],
        className="copied",
    )


def _files(run: Run) -> Component:
    files = files_of(run)
    rows = [
        html.Tr(
            [
                html.Td(name),
                html.Td(size_text(size), className="number"),
                html.Td(f"{changed:%Y-%m-%d %H:%M}"),
            ]
        )
        for name, size, changed in zip(files["file"], files["bytes"], files["changed"], strict=True)
    ]
    return html.Section(
        [
            html.H2("Files", className="card-title"),
            html.P(str(run.path), className="soft path"),
            table(("file", "size", "changed (UTC)"), rows, "Files"),
        ],
        className="card files",
    )


def table(columns: Sequence[str], rows: Sequence[Component], label: str) -> Component:
    """Return a table that has as much room as there is.

    Args:
        columns: what stands above.
        rows: its rows.
        label: what it is, for those who do not see it.
    """
    head = html.Thead(html.Tr([html.Th(column, scope="col") for column in columns]))
    return html.Div(
        html.Table([head, html.Tbody(list(rows))], className="table"),
        className="table-room",
        tabIndex=0,
        role="region",
        **aria(label=label),
    )


def settings(shown: Shown, state: State) -> list[Component]:
    """Return the settings, beside those of another run where one was chosen."""
    beside = settings_beside(shown.run, shown.other)
    if beside.empty:
        return [nothing("No settings", "Nothing tells the settings of this run: it has no config.yaml.")]
    only = shown.other is not None and state.one("only") == "differences"
    columns = ["setting", shown.run.identity]
    said = html.P("Choose a run to compare with above, to see what is set otherwise there.", className="soft")
    if shown.other is not None:
        columns.append(shown.other.identity)
        different, of_start = count_differences(beside)
        text = f"{count(different, 'setting')} of {len(beside)} differ, {of_start} of them name, seed and the like. "
        link = dmc.Anchor(
            "Show all" if only else "Show only these",
            href=state.choosing(only=None if only else "differences").url,
        )
        said = html.P([text, link], className="soft")
    shown_rows = beside[beside["differs"]] if only else beside
    rows = [
        html.Tr(
            [html.Th(name, scope="row"), html.Td(value), *([html.Td(other)] if shown.other else [])],
            className="differs" if differs else None,
        )
        for name, value, other, differs in shown_rows.itertuples(index=False)
    ]
    return [
        html.Section(
            [html.H2("Settings", className="card-title"), said, table(columns, rows, "Settings")],
            className="card settings",
        )
    ]


def training(shown: Shown, state: State, theme: str | None) -> list[Component]:
    """Return learning curves and the schedule of the noise."""
    try:
        figures = cards(shown, state, theme)
    except UserError as error:
        return [nothing("The metrics cannot be shown", str(error))]
    if not figures:
        text = "Nothing was logged yet: the first rows of metrics.csv come after the first epoch."
        return [nothing("No metrics yet", text, commands_of(shown.run, Path.cwd()).get("Go on with it"))]
    return figures


def evaluated(
    shown: Shown, state: State, theme: str | None, choices: Sequence[tuple[str, str]]
) -> list[Component]:
    """Return a tab of an evaluation: what was measured, at which noise, or how to measure it.

    Args:
        shown: what is shown.
        state: the link.
        theme: of the page.
        choices: evaluations that could be shown, folder name and title.
    """
    figures = shown.figures()
    if not figures:
        return [not_measured(shown)]
    parts: list[Component] = []
    if len(choices) > 1 and shown.evaluation is not None:
        parts.append(_choice("On the hardware", "evaluation", shown.evaluation.path.name, choices, state))
    if shown.tab == "words" and shown.evaluation is not None and shown.evaluation.classes is not None:
        known = strengths_in(shown.evaluation.classes)
        at = shown.strength_of(known)
        axis = strength_of(shown.evaluation.settings_of("classes"))
        levels = [(f"{value:g}", f"{value:g}") for value in known]
        parts.append(_choice(f"Confusion at {axis.symbol}", "strength", f"{at:g}", levels, state))
    grid = [figure_card(name, figure, state, theme) for name, figure in figures.items()]
    return [*([html.Div(parts, className="card choices")] if parts else []), *grid]


def _choice(
    label: str, name: str, chosen: str, choices: Sequence[tuple[str, str]], state: State
) -> Component:
    """Return links among which one is chosen; a link opens the page with another choice."""
    links = [
        dmc.Anchor(
            text,
            href=state.choosing(**{name: value}).url,
            className="choice chosen" if value == chosen else "choice",
            underline="never",
            **(aria(current="true") if value == chosen else {}),
        )
        for value, text in choices
    ]
    return html.Div(
        [html.Span(label, className="label"), *links], className="row", role="group", **aria(label=label)
    )


def not_measured(shown: Shown) -> Component:
    """Return what stands where a run was not evaluated: how to do it, here or in the shell."""
    checkpoint = checkpoint_of(shown.run)
    if checkpoint is None:
        return nothing("Not evaluated", "This run has no checkpoint yet: there is no network to evaluate.")
    text = evaluate_command(checkpoint, Path.cwd(), *_OPTIONS.get(shown.tab, ()))
    parts: list[Component] = [
        html.H2("Not evaluated yet", className="card-title"),
        html.P(f"An evaluation tells {_MISSING.get(shown.tab, 'more')}. {_where()}", className="soft"),
        command(text),
    ]
    parts.append(
        html.Div(
            [
                dmc.Button("Measure it here", id="run-measure", size="sm"),
                dmc.Button("Cancel", id="run-cancel", variant="default", size="sm", display="none"),
                html.Div(id="run-measuring", className="measuring", **aria(live="polite")),
            ],
            className="row measure",
        )
    )
    return html.Section(parts, className="card")


def nothing(title: str, text: str, commands: str | None = None) -> Component:
    """Return what stands where there is nothing to show: what is missing, and what to do.

    Args:
        title: what is missing.
        text: why, or what to do.
        commands: of the shell, which do it; None: there are none.
    """
    return html.Section(
        [
            html.H2(title, className="card-title"),
            html.P(text, className="soft"),
            *([command(commands)] if commands else []),
        ],
        className="card",
    )


def summary_texts(run: Run, row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the numbers that stand for a run, with their names.

    Args:
        run: the run.
        row: its row of the catalogue's table; empty: there is none.
    """
    found = [("seed", "–" if run.seed is None else str(run.seed))]
    for name, label in (("clean_accuracy", "clean accuracy"), ("midpoint", "midpoint"), ("area", "area")):
        value = float(row.get(name, math.nan))
        if not math.isnan(value):
            highest = highest_strength(run) if math.isinf(value) else math.nan
            found.append((label, measure_text(name, value, highest)))
    return found


def measure_text(name: str, value: float, highest: float = math.nan) -> str:
    """Return a measure of a curve as people read it: "> 4" for a midpoint that is not reached up to 4.

    >>> measure_text("clean_accuracy", 0.9537), measure_text("midpoint", 3.507), measure_text("midpoint", math.inf, 4)
    ('95.4 %', '3.51', '> 4')
    """
    if math.isnan(value):
        return "–"
    if name == "midpoint":
        return number_text(value, highest)
    return f"{100 * value:.1f} %"
