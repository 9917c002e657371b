"""``asr-dni runs``: what runs and studies there are below a folder, how each is, and the key figures of its curve."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr_dni.cli.functions import run_function
from asr_dni.errors import UserError
from asr_dni.terminal import make_console
from asr_dni.wording import count

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from asr_dni.catalogue import Catalogue
    from asr_dni.evaluation.curves.curve import CurveSummary

_STATES = {"running": "cyan", "finished": "green", "interrupted": "yellow", "damaged": "red"}


def runs(folder: Path = Path("runs"), each: bool = False, json: bool = False) -> None:
    """List the runs and studies below a folder: label, state, seeds, key figures of the noise curve, newest file.

    Args:
        folder: is searched at any depth.
        each: whether there is a row for each run; else seeds of one experiment are one row.
        json: whether everything is printed as JSON.
    """
    from asr_dni.catalogue import Catalogue

    catalogue = Catalogue(folder)
    if json:
        print(_as_json(catalogue))
        return
    console = make_console()
    frame, studies = catalogue.runs(), catalogue.studies()
    if frame.empty and studies.empty:
        raise UserError(f"{folder} holds no runs and no studies: asr-dni fit, demo and study write such")
    if not frame.empty:
        console.print(_each_run(frame, str(folder)) if each else _experiments(catalogue, frame, str(folder)))
    if not studies.empty:
        console.print(_studies(studies))
    for said in [*frame["message"], *studies["message"]]:
        if said:
            console.print(said, soft_wrap=True, highlight=False)


def _as_json(catalogue: "Catalogue") -> str:
    found = {
        "folder": str(catalogue.folder),
        "runs": [_plain(row) for row in catalogue.runs().to_dict("records")],
        "studies": [_plain(row) for row in catalogue.studies().to_dict("records")],
    }
    return dumps(found, indent=1, ensure_ascii=False, allow_nan=False, default=str)


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a row without what a run's settings do not have; times as ISO 8601."""
    plain = {}
    for name, value in row.items():
        if name == "changed":
            plain[name] = value.isoformat(timespec="seconds")
        elif isinstance(value, float) and not math.isfinite(value):
            plain[name] = "inf" if value > 0 else None
        elif hasattr(value, "item"):  # of numpy
            plain[name] = value.item()
        else:
            plain[name] = None if value is None or str(value) in ("<NA>", "nan") else value
    return {
        name: value for name, value in plain.items() if value is not None or not name.startswith("settings.")
    }


def _table(title: str, columns: Sequence[str]) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        right = name in ("seed", "seeds", "clean / %", "midpoint", "results")
        named = name in ("experiment", "run", "study")
        table.add_column(
            name,
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=not named and name != "state",
            min_width=12 if named else None,
        )
    return table


def _experiments(catalogue: "Catalogue", frame: "pd.DataFrame", folder: str) -> "Table":
    """Return a row for each experiment, in ascending noise of the training, as ``asr-dni compare`` has them."""
    from rich.text import Text

    from asr_dni.evaluation.curves.experiments import order_of_experiment

    several = len(catalogue.strengths()) > 1  # of which midpoints are
    rows = []
    for _, members in frame.groupby("experiment", sort=False):
        states = Counter(members["state"])
        curves = list(catalogue.summaries(members["run"].tolist()).values())
        summary = max(curves, key=lambda one: int(one.frame["n_seeds"].iloc[0]), default=None)
        order = (math.inf, False) if summary is None else order_of_experiment(summary.settings)
        state = Text(", ").join(
            _state(name, number if len(members) > 1 else 0) for name, number in states.items()
        )
        figures = _key_figures(summary, several)
        rows.append(
            (order, (Text(members["label"].iloc[0]), state, *figures, _when(members["changed"].max())))
        )
    number = f"{count(len(frame), 'run')} of {count(len(rows), 'experiment')}"
    table = _table(
        f"{number} below {folder}", ("experiment", "state", "seeds", "clean / %", "midpoint", "changed (UTC)")
    )
    for _, cells in sorted(rows, key=lambda row: row[0]):
        table.add_row(*cells)
    return table


def _key_figures(summary: "CurveSummary | None", with_strength: bool) -> tuple[str, str, str]:
    """Return the number of seeds, accuracy without noise and midpoint of a curve."""
    from asr_dni.evaluation.curves.tables import format_midpoint

    if summary is None:
        return "", "", ""
    clean = summary.key_figures().get("clean_accuracy")
    strength = f" {summary.strength.symbol}" if with_strength else ""
    seeds = str(int(summary.frame["n_seeds"].iloc[0]))
    return seeds, "" if clean is None else f"{100 * clean:.1f}", f"{format_midpoint(summary)}{strength}"


def _each_run(frame: "pd.DataFrame", folder: str) -> "Table":
    from rich.text import Text

    table = _table(
        f"{count(len(frame), 'run')} below {folder}",
        ("run", "experiment", "state", "seed", "clean / %", "midpoint", "changed (UTC)"),
    )
    for row in frame.to_dict("records"):
        clean, midpoint = row["clean_accuracy"], row["midpoint"]
        table.add_row(
            Text(row["run"]),
            Text(row["label"]),
            _state(row["state"]),
            "" if str(row["seed"]) == "<NA>" else str(row["seed"]),
            "" if math.isnan(clean) else f"{100 * clean:.1f}",
            "" if math.isnan(midpoint) else "–" if math.isinf(midpoint) else f"{midpoint:.2f}",
            _when(row["changed"]),
        )
    return table


def _studies(frame: "pd.DataFrame") -> "Table":
    from rich.text import Text

    table = _table(count(len(frame), "study", "studies"), ("study", "state", "results", "changed (UTC)"))
    for row in frame.to_dict("records"):
        table.add_row(Text(row["study"]), _state(row["state"]), str(row["results"]), _when(row["changed"]))
    return table


def _state(state: str, number: int = 0) -> Any:
    from rich.text import Text

    return Text(f"{number} {state}" if number else state, _STATES[state])


def _when(changed: Any) -> str:
    return str(changed.tz_convert(None).strftime("%Y-%m-%d %H:%M"))


def run(arguments: Sequence[str]) -> None:
    """Run ``asr-dni runs``."""
    options: dict[str, dict[str, Any]] = {
        "folder": {"type": Path, "nargs": "?", "default": Path("runs"), "help": "is searched at any depth"},
        "--each": {"action": "store_true", "help": "a row for each run, not for all seeds of an experiment"},
        "--json": {
            "action": "store_true",
            "help": "everything known of every run, its settings too, as JSON: what is not defined is null, a midpoint"
            ' beyond what was measured "inf"',
        },
    }
    run_function(runs, "runs", arguments, None, **options)
