"""A report as a PDF for papers: a figure a page, as vector graphics of its own size, then texts and tables."""

import io
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure as Drawing
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text as RichText

from asr_dni.files import write_atomically
from asr_dni.plotting import Figure
from asr_dni.plotting.with_matplotlib import render
from asr_dni.report.document import Answers, Block, Choice, Document, Table, Text

_PAGE = (11.69, 8.27)  # A4, landscape, in inches
_MARGIN = 0.6
_POINTS = 7.5
_LETTERS = int((_PAGE[0] - 2 * _MARGIN) * 72 / (0.602 * _POINTS))  # of a line, in DejaVu Sans Mono
_LEADING = 1.35 * _POINTS / 72
_LINES = int((_PAGE[1] - 2 * _MARGIN) / _LEADING)
# Type 42: fonts as they are, which publishers ask for.
_RC: Any = {"pdf.fonttype": 42, "font.family": "monospace", "font.monospace": ["DejaVu Sans Mono"]}


def save_pdf(document: Document, path: Path) -> None:
    """Write a report as a PDF, whole or not at all; the same report gives the same file.

    First comes a page with its title and what it is of, then every figure on a page of its size, with title, settings
    and what its intervals are, then all texts and tables.

    Args:
        document: the report.
        path: is overwritten.
    """
    metadata = {"Title": document.title, "Subject": document.lead, "Creator": "asr_dni"}
    # A date of None leaves it out.
    dates = {"CreationDate": document.date, "ModDate": document.date}
    with (
        matplotlib.rc_context(_RC),
        write_atomically(path) as temporary,
        PdfPages(temporary, metadata=metadata | dates) as pages,
    ):
        first = [document.title, "", *textwrap.wrap(document.lead, _LETTERS), ""]
        pages.savefig(_text_page([*first, *(section.title for section in document.sections)]))
        for figure in _figures(document):
            drawing = render(figure)
            pages.savefig(drawing)
        lines = [
            line for section in document.sections for line in _section_lines(section.title, section.blocks)
        ]
        for start in range(0, len(lines), _LINES):
            pages.savefig(_text_page(lines[start : start + _LINES]))


def _figures(document: Document) -> Iterator[Figure]:
    for section in document.sections:
        for block in section.blocks:
            if isinstance(block, Figure):
                yield block
            elif isinstance(block, Choice):
                yield from block.figures.values()


def _text_page(lines: list[str]) -> Drawing:
    page = Drawing(figsize=_PAGE)
    for place, line in enumerate(lines):
        y = 1 - (_MARGIN + place * _LEADING) / _PAGE[1]
        bold = line.startswith("# ") or (
            place == 0 and not line.startswith(" ") and len(lines) > 1 and not lines[1]
        )
        page.text(
            _MARGIN / _PAGE[0],
            y,
            line.removeprefix("# ").replace("$", r"\$"),
            fontsize=_POINTS,
            weight="bold" if bold else "normal",
            va="top",
        )
    return page


def _section_lines(title: str, blocks: tuple[Block, ...]) -> Iterator[str]:
    told = [block for block in blocks if not isinstance(block, Figure | Choice)]
    if not told:
        return
    yield f"# {title}"
    yield ""
    for block in told:
        if isinstance(block, Text):
            yield from textwrap.wrap(block.text, _LETTERS)
        elif isinstance(block, Table):
            yield f"# {block.title}"
            yield from _table_lines(block.header, block.rows, block.numbers)
            yield from textwrap.wrap(block.note, _LETTERS)
        elif isinstance(block, Answers):
            yield f"# {block.title}"
            rows = tuple((one.about, one.verdict, one.sentence) for one in block.answers)
            yield from _table_lines(("", "", ""), rows, False)
            for test in block.tests:
                yield from textwrap.wrap(f"Test: {test}", _LETTERS)
        yield ""


def _table_lines(header: tuple[str, ...], rows: tuple[tuple[str, ...], ...], numbers: bool) -> Iterator[str]:
    named = any(header)
    table = RichTable(box=box.SIMPLE_HEAD if named else None, pad_edge=False, show_header=named)
    for place, name in enumerate(header):
        justify: Any = "right" if numbers and place else "left"
        table.add_column(RichText(name), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(RichText(cell) for cell in row))
    written = io.StringIO()
    Console(file=written, width=_LETTERS, color_system=None, markup=False, emoji=False).print(table)
    yield from (line.rstrip() for line in written.getvalue().splitlines())
