"""``asr-dni report``: runs and studies on one page that needs no network, or as a PDF for papers."""

from collections.abc import Sequence
from pathlib import Path

from asr_dni.cli.functions import run_function
from asr_dni.errors import UserError
from asr_dni.terminal import make_console


def report(
    results: list[Path],
    output: Path | None = None,
    pdf: Path | None = None,
    baseline: str | None = None,
    title: str = "Accuracy under computation noise",
) -> None:
    """Write a report on runs and studies: one HTML file that needs nothing else, or a PDF for papers.

    Args:
        results: folders of runs (asr-dni fit, noise-curve, evaluate), of studies, or of both, at any depth.
        output: the HTML file; report.html where no --pdf is given either.
        pdf: a PDF file: a figure a page as vector graphics, then the tables.
        baseline: experiment, by its label, or a run of it, that the others are compared with; by default that with the
            least noise in training.
        title: its heading.
    """
    if output is None and pdf is None:
        output = Path("report.html")
    for name, path, ending in (("output", output, ".html"), ("pdf", pdf, ".pdf")):
        if path is not None and path.suffix != ending:
            raise UserError(f"--{name} {path}: give a name that ends in {ending}")
        if path is not None and (path.is_dir() or any(one.is_file() for one in path.absolute().parents)):
            raise UserError(f"--{name} {path}: something is in the way; give another name")
    from asr_dni.report import make_report, write_report

    files = write_report(make_report(results, baseline, title), output, pdf)
    console = make_console()
    for path in files:
        console.print(
            f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)", soft_wrap=True, highlight=False
        )


def run(arguments: Sequence[str]) -> None:
    """Run ``asr-dni report``."""
    given = ["--output" if one == "-o" else one for one in arguments]
    results = {"type": Path, "nargs": "+", "help": "folders of runs, of studies, or of both"}
    run_function(report, "report", given, results=results)
