"""Reports on runs and studies: gathered, then written as a page or a PDF."""

from collections.abc import Sequence
from pathlib import Path

from asr_dni.errors import UserError
from asr_dni.files import write_atomically
from asr_dni.report.document import Document, Section, Text
from asr_dni.report.results import Results, find_results
from asr_dni.report.runs import run_sections
from asr_dni.report.studies import sections_of_ledger
from asr_dni.wording import count


def make_report(
    paths: Sequence[Path | str], baseline: str | None = None, title: str = "Accuracy under computation noise"
) -> Document:
    """Return a report on all runs and studies in folders.

    Args:
        paths: folders of runs, of studies, or of both, at any depth.
        baseline: label of the experiment that others are compared with, or name of one of its runs; ``None``: the one
            with the least noise in training.
        title: its heading.

    Raises:
        UserError: a folder does not exist or holds nothing, or there is no such baseline.
    """
    results = find_results(paths)
    sections = (
        [Section("Studies", tuple(Text(line, "warning") for line in results.problems))]
        if results.problems
        else []
    )
    if results.runs:
        sections += run_sections(results, baseline)
    elif baseline is not None:
        raise UserError(
            f"--baseline {baseline}: there are no runs, and a study compares with conventional training"
        )
    several = len(results.studies) > 1 or bool(results.runs)
    for name, ledger in results.studies.items():
        try:
            sections += sections_of_ledger(ledger, name if several else "")
        except UserError as error:
            sections.append(Section(f"Study {name}", (Text(str(error), "warning"),)))
    date = None if results.newest is None else results.newest.to_pydatetime(warn=False)
    return Document(title, _lead(results), tuple(sections), date)


def _lead(results: Results) -> str:
    parts = []
    if results.runs:
        damaged = sum(run.state == "damaged" for run in results.runs.values())
        running = sum(run.state == "running" for run in results.runs.values())
        more = [
            f"{number} {word}"
            for number, word in ((running, "still running"), (damaged, "damaged"))
            if number
        ]
        experiments = len({run.experiment for run in results.runs.values() if run.state != "damaged"})
        listed = f" ({', '.join(more)})" if more else ""
        parts.append(f"{count(len(results.runs), 'run')}{listed} of {count(experiments, 'experiment')}")
    if results.studies:
        parts.append(count(len(results.studies), "study", "studies"))
    if results.newest is not None:
        parts.append(f"newest result of {results.newest:%Y-%m-%d %H:%M} UTC")
    return "; ".join(parts) + "."


def write_report(document: Document, page: Path | None = None, pdf: Path | None = None) -> list[Path]:
    """Write a report, each file whole or not at all.

    Args:
        document: see :func:`make_report`.
        page: HTML file.
        pdf: PDF file.

    Returns:
        What was written.
    """
    written = []
    if page is not None:
        from asr_dni.report.as_html import as_html  # plotly takes longer to import than the rest

        with write_atomically(page) as temporary:
            temporary.write_text(as_html(document), encoding="utf-8")
        written.append(page)
    if pdf is not None:
        from asr_dni.report.as_pdf import save_pdf

        save_pdf(document, pdf)
        written.append(pdf)
    return written
