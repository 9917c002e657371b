"""``asr-dni study report``: findings, figures and tables of what there is."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from asr_dni.cli.plots import Plot, print_figures
from asr_dni.cli.study.command_line import folder_and_plot
from asr_dni.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from asr_dni.plotting import Figure
    from asr_dni.study.folder import StudyFolder


def report_study(arguments: Sequence[str]) -> None:
    """Run ``asr-dni study report``."""
    from asr_dni.terminal import make_console

    path, plot = folder_and_plot("report", arguments)
    write_report(path, make_console(), plot)


def write_report(path: Path, console: "Console", plot: Plot = "auto") -> None:
    """Write findings and figures, print the findings, and draw the matrices and curves in a terminal."""
    from asr_dni.report.study_report import report_study as write_files
    from asr_dni.study.folder import StudyFolder

    folder = StudyFolder(path)
    if not folder.ledger.members():
        raise UserError(f"{path} holds no results yet: asr-dni study run FILE makes them")
    with _quiet_matplotlib():
        files = write_files(folder.ledger, folder.report)
    if plot != "never":
        print_figures(console, _shown(folder), plot)
    summary = next((file for file in files if file.name == "summary.txt"), None)
    if summary is None:
        from asr_dni.study.findings import find_in

        text = find_in(folder.ledger).text()
    else:
        text = summary.read_text(encoding="utf-8")
    console.print(text, soft_wrap=True, highlight=False)
    endings = sorted({file.suffix for file in files})
    index = next((file for file in files if file.name == "index.html"), None)
    where = f"{index} shows all" if index is not None else f"they are in {folder.report}"
    console.print(
        f"{len(files)} files written ({', '.join(endings)}): {where}", soft_wrap=True, highlight=False
    )


def _shown(folder: "StudyFolder") -> "Iterator[Figure]":
    """Yield the figures that are read in a terminal: accuracy as numbers, and as curves."""
    from asr_dni.study.figures import (
        curves_figure,
        grouped,
        matrices_figure,
        named_transfers,
        transfer_figure,
    )
    from asr_dni.study.findings import find_in

    findings = find_in(folder.ledger)
    for _, transfer in named_transfers(findings):
        yield transfer_figure(transfer)
    for _, group in grouped(findings, ("units",)):
        yield matrices_figure(group)
        yield curves_figure(group)


@contextmanager
def _quiet_matplotlib() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="matplotlib")
        yield
