"""A study's report: figures, tables, a summary in Markdown, and one page that needs no network."""

import html
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from asr_dni.evaluation.figures import save_figure
from asr_dni.files import write_atomically
from asr_dni.plotting import Figure
from asr_dni.study.figures import study_figures
from asr_dni.study.findings import Findings, find, tests_of
from asr_dni.study.ledger import Ledger

FIGURES = {
    "matrix": "Accuracy for every training and inference noise",
    "difference_to_clean": "Difference to conventional training with clean inference",
    "difference": "Difference to conventional training at the same noise",
    "curves": "Noise curves",
    "best": "Best training noise for each inference noise",
    "units": "Accuracy and the number of units",
}
"""What a report's figures show, by the beginning of their names, in the order of the report."""

_MANIFEST = ".report.json"
_COLORS = {
    "supports": "yes",
    "does not support": "no",
    "cannot tell": "open",
    "cannot be tested": "open",
    "estimate": "",
}


def report(
    ledger: Ledger | Path | str,
    directory: Path | str,
    levels: Sequence[float] | None = None,
    relevant: float = 0.01,
    progress: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write what a study found so far.

    Written are ``index.html`` (everything on one page, with pictures to explore; self-contained),
    ``summary.md`` and ``.txt``, ``figures/*.png`` and ``*.svg``, and ``tables/*.csv`` and ``*.md``. Every file
    is written whole or not at all; files of an earlier report that are no longer part of it are removed.

    Args:
        ledger: the results, or their folder.
        directory: is made where it does not exist.
        levels: strengths at which the trend with the number of units is asked, see
            :func:`~asr_dni.study.findings.find`.
        relevant: smallest difference in accuracy that matters, see there.
        progress: is called with the name of every file as it is written.

    Returns:
        The files, ``index.html`` first.

    Raises:
        UserError: there are no results, or the ledger can't be read.
    """
    ledger = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
    directory = Path(directory)
    findings = find(ledger.frame(), levels, relevant)
    figures = _in_order(study_figures(findings))
    paths: list[Path] = []

    def written(*files: Path) -> None:
        paths.extend(files)
        for file in files:
            if progress is not None:
                progress(file.relative_to(directory).as_posix())

    for name, figure in figures.items():
        written(*save_figure(figure, directory / "figures" / name))
    for name, table in findings.tables.items():
        path = directory / "tables" / f"{name}.csv"
        with write_atomically(path) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
        written(path, _write(directory / "tables" / f"{name}.md", _table_markdown(table)))
    written(_write(directory / "summary.txt", findings.text()))
    written(_write(directory / "summary.md", _summary(findings, list(figures))))
    index = _write(directory / "index.html", report_page(findings, figures))
    if progress is not None:
        progress("index.html")
    paths.insert(0, index)
    _remove_former(directory, paths)
    return paths


def _in_order(figures: dict[str, Figure]) -> dict[str, Figure]:
    order = list(FIGURES)
    return dict(sorted(figures.items(), key=lambda item: order.index(_kind(item[0]))))


def _kind(name: str) -> str:
    return name.partition("-")[0]


def _write(path: Path, text: str) -> Path:
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _remove_former(directory: Path, paths: Sequence[Path]) -> None:
    """Remove what the last report wrote and this one did not: it would be taken for a result."""
    names = {path.relative_to(directory).as_posix() for path in paths}
    manifest = directory / _MANIFEST
    try:
        former = json.loads(manifest.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        former = []
    for name in former:
        kind, _, file = name.rpartition("/")
        if name not in names and kind in ("figures", "tables") and file not in ("", "..", "."):
            (directory / name).unlink(missing_ok=True)
    _write(manifest, json.dumps(sorted(names)))


def _table_markdown(table: pd.DataFrame) -> str:
    """Return a table in Markdown; what is the same in all its rows stands above it."""
    if table.empty:
        return "Nothing to show.\n"
    constant = [name for name in table.columns if len(table) > 1 and table[name].nunique(dropna=False) == 1]
    rest = [name for name in table.columns if name not in constant]
    lines = [f"- {name}: {_cell(table[name].iloc[0])}" for name in constant] + ([""] if constant else [])
    lines += ["| " + " | ".join(rest) + " |", "|" + " --- |" * len(rest)]
    for row in table[rest].itertuples(index=False):
        lines.append("| " + " | ".join(map(_cell, row)) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value).replace("|", "\\|")


def _summary(findings: Findings, figures: Sequence[str]) -> str:
    lines = [findings.markdown(), "## Figures", ""]
    for name in figures:
        lines += [f"![{FIGURES[_kind(name)]}](figures/{name}.png)", ""]
    return "\n".join(lines)


def report_page(findings: Findings, figures: Mapping[str, Figure]) -> str:
    """Return a report as one HTML page that needs nothing else, with figures to explore.

    Args:
        findings: see :func:`asr_dni.study.findings.find`.
        figures: by their names, see :func:`asr_dni.study.figures.study_figures`.
    """
    from asr_dni.plotting.page import (  # plotly takes longer to import than the rest of this module
        page,
        render_choice,
    )

    parts: list[Any] = ["<h1>Accuracy under computation noise</h1>"]
    parts.append(f"<p class=lead>{_text(findings.setting)}</p><h2>Findings</h2>")
    for question, answers in findings.answered():
        rows = "".join(
            f"<tr><th>{_text(answer.about)}</th><td>"
            + (
                f"<span class='verdict {_COLORS[answer.verdict]}'>{answer.verdict}</span> "
                if answer.verdict != "estimate"
                else ""
            )
            + f"{_text(answer.sentence)}</td></tr>"
            for answer in answers
        )
        tests = "".join(f"<p class=test>Test: {_text(test)}</p>" for test in tests_of(answers))
        count = "".join(
            f"<span class='verdict {_COLORS[verdict]}'>{sum(a.verdict == verdict for a in answers)} {verdict}</span> "
            for verdict in _COLORS
            if verdict != "estimate" and any(a.verdict == verdict for a in answers)
        )
        parts.append(
            f"<details open><summary>{_text(question.title)} {count}</summary><table>{rows}</table>{tests}</details>"
        )
    notes = "".join(f"<li>{_text(note)}</li>" for note in findings.notes)
    parts.append(f"<h2>What limits these answers</h2><ul>{notes}</ul>")
    parts.append(f"<h2>Figures</h2>{_HOW_TO_READ}")
    for kind, title in FIGURES.items():
        own = {name.partition("-")[2]: one for name, one in figures.items() if _kind(name) == kind}
        if own:
            parts += [
                f"<details open><summary>{_text(title)}</summary>",
                render_choice(own),
                "</details>",
            ]
    return page("Findings of a study of noise", parts, _STYLE)


def _text(text: str) -> str:
    return html.escape(text, quote=True)


_HOW_TO_READ = """<p class=lead>The pointer shows numbers and intervals; an entry of a legend switches its curve, twice
shows it alone; a menu, where there is one, chooses the cell or setting. figures/ holds the same as PNG and SVG.</p>"""

_STYLE = """
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #222; max-width: 1240px; margin: 2em auto;
  padding: 0 1.2em; }
h1 { font-size: 1.7em; margin-bottom: .2em; } h2 { font-size: 1.25em; margin: 1.8em 0 .6em; }
.lead, .test { color: #666; } .test { font-size: .85em; margin: .5em 0; }
details { border: 1px solid #ddd; border-radius: 6px; margin: .7em 0; padding: .5em .9em; overflow-x: auto; }
summary { font-weight: 600; cursor: pointer; }
table { border-collapse: collapse; margin: .5em 0; width: 100%; }
th { text-align: left; vertical-align: top; font-weight: 600; padding: .35em 1em .35em 0; min-width: 10em; }
td { padding: .35em 0; vertical-align: top; } tr + tr { border-top: 1px solid #eee; }
.verdict { display: inline-block; border-radius: 4px; padding: 0 .5em; font-size: .82em; font-weight: 600;
  white-space: nowrap; }
.yes { background: #d5ecdf; color: #0a5a32; } .no { background: #f6d9d3; color: #8a2411; }
.open { background: #ebebeb; color: #444; }
"""
