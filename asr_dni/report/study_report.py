"""A study's report as a folder: figures, tables, a summary in Markdown, and the page that needs no network."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from asr_dni.evaluation.figures.noise_curves import save_figure
from asr_dni.files import write_atomically
from asr_dni.report.studies import in_order, kind_of_figure, study_document
from asr_dni.study.figures import FIGURES, study_figures
from asr_dni.study.findings import Findings, find_in
from asr_dni.study.ledger import Ledger

_MANIFEST = ".report.json"


def report_study(
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
    findings = find_in(ledger, levels, relevant)
    figures = in_order(study_figures(findings))
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
    from asr_dni.report.as_html import as_html  # plotly takes longer to import than the rest of this module

    index = _write(directory / "index.html", as_html(study_document(findings, figures)))
    if progress is not None:
        progress("index.html")
    paths.insert(0, index)
    _remove_former(directory, paths)
    return paths


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
        lines += [f"![{FIGURES[kind_of_figure(name)]}](figures/{name}.png)", ""]
    return "\n".join(lines)
