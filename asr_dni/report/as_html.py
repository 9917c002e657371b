"""A report as one HTML page that needs nothing else."""

import html
from collections.abc import Iterator

from asr_dni.plotting import Figure
from asr_dni.plotting.page import as_html as text_of
from asr_dni.plotting.page import page
from asr_dni.report.document import Answers, Block, Choice, Document, Section, Table, Text

_VERDICTS = {
    "supports": "yes",
    "does not support": "no",
    "cannot tell": "open",
    "cannot be tested": "open",
    "estimate": "",
}


def as_html(document: Document) -> str:
    """Return a report as a page with figures to explore, see :func:`asr_dni.plotting.page.page`."""
    parts: list[str | Figure | dict[str, Figure]] = [
        f"<main><h1>{text_of(document.title)}</h1><p class=lead>{text_of(document.lead)} {_HOW_TO_READ}</p>"
    ]
    sections = [(f"section-{place}", section) for place, section in enumerate(document.sections, start=1)]
    links = "".join(f"<li><a href='#{name}'>{text_of(section.title)}</a></li>" for name, section in sections)
    if len(sections) > 1:
        parts.append(f"<nav aria-label=Contents><ul>{links}</ul></nav>")
    for name, section in sections:
        parts.append(f"<section id={name} aria-labelledby={name}-title>")
        parts += _section(section, name)
        parts.append("</section>")
    parts.append("</main>")
    return page(document.title, parts, _STYLE)


def _section(section: Section, name: str) -> Iterator[str | Figure | dict[str, Figure]]:
    yield f"<h2 id={name}-title>{text_of(section.title)}</h2>"
    for block in section.blocks:
        yield from _block(block)


def _block(block: Block) -> Iterator[str | Figure | dict[str, Figure]]:
    if isinstance(block, Figure):
        yield block
    elif isinstance(block, Choice):
        yield f"<h3>{text_of(block.title)}</h3>"
        yield dict(block.figures)
    elif isinstance(block, Text):
        role = " role=note" if block.kind == "warning" else ""
        yield f"<p class={block.kind}{role}>{text_of(block.text)}</p>"
    elif isinstance(block, Table):
        yield _table(block)
    else:
        yield _answers(block)


def _table(table: Table) -> str:
    kind = " class=numbers" if table.numbers else ""
    head = "".join(
        f"<th scope=col>{text_of(name) or '<span class=unseen>remark</span>'}</th>" for name in table.header
    )
    rows = "".join(
        f"<tr><th scope=row>{text_of(row[0])}</th>{''.join(f'<td>{text_of(cell)}</td>' for cell in row[1:])}</tr>"
        for row in table.rows
    )
    title = text_of(table.title)
    # What scrolls has to be reached by keyboard, and then needs a name.
    label = html.escape(table.title, quote=True)
    inner = (
        f'<div class=scrolls tabindex=0 role=region aria-label="{label}"><table{kind}><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        + (f"<p class=note>{text_of(table.note)}</p>" if table.note else "")
    )
    if table.folded:
        return f"<details><summary>{title} ({len(table.rows)})</summary>{inner}</details>"
    return f"<h3>{title}</h3>{inner}"


def _answers(answers: Answers) -> str:
    rows = "".join(
        f"<tr><th scope=row>{text_of(answer.about)}</th><td>{_badge(answer.verdict, answer.verdict)}"
        f"{text_of(answer.sentence)}</td></tr>"
        for answer in answers.answers
    )
    given = [answer.verdict for answer in answers.answers]
    counts = "".join(
        _badge(verdict, f"{given.count(verdict)} {verdict}") for verdict in _VERDICTS if verdict in given
    )
    tests = "".join(f"<p class=note>Test: {text_of(test)}</p>" for test in answers.tests)
    return (
        f"<details open><summary>{text_of(answers.title)} {counts}</summary><table class=answers>{rows}</table>"
        f"{tests}</details>"
    )


def _badge(verdict: str, text: str) -> str:
    if verdict == "estimate":
        return ""
    return f"<span class='verdict {_VERDICTS[verdict]}'>{text_of(text)}</span> "


_HOW_TO_READ = (
    "The pointer shows numbers and intervals; an entry of a legend switches its curve, twice shows it alone."
)

_STYLE = """
:root { --paper: #fff; --ink: #222; --soft: #5c5c5c; --line: #ddd; --yes: #d5ecdf; --on-yes: #0a5a32; --no: #f6d9d3;
  --on-no: #8a2411; --open: #ebebeb; --on-open: #444; --warn: #fff1dc; --on-warn: #7a4200; --link: #0b57a4; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #171717; --ink: #e8e8e8; --soft: #b4b4b4;
  --line: #3d3d3d; --yes: #113c26; --on-yes: #a8e5c4; --no: #4a1c12; --on-no: #ffc3b5; --open: #333; --on-open: #ddd;
  --warn: #46300c; --on-warn: #ffdfa8; --link: #8ec2ff; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: var(--ink); background: var(--paper); margin: 0; }
main { max-width: 1180px; margin: 0 auto; padding: 1.6em 1.2em 4em; }
h1 { font-size: 1.7em; margin: 0 0 .2em; } h2 { font-size: 1.3em; margin: 2em 0 .5em; border-top: 1px solid var(--line);
  padding-top: .8em; } h3 { font-size: 1.05em; margin: 1.4em 0 .4em; }
.lead, .small { color: var(--soft); } .small { font-size: .87em; }
.warning { background: var(--warn); color: var(--on-warn); border-radius: 6px; padding: .5em .9em;
  overflow-wrap: anywhere; }
a { color: var(--link); } nav ul { display: flex; flex-wrap: wrap; gap: .2em 1.4em; padding: 0; list-style: none; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .7em 0; padding: .5em .9em; }
summary { font-weight: 600; cursor: pointer; }
.scrolls { overflow-x: auto; }
table { border-collapse: collapse; margin: .4em 0; }
th, td { padding: .3em 1.4em .3em 0; vertical-align: top; text-align: left; }
thead th { border-bottom: 1px solid var(--soft); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 400; overflow-wrap: anywhere; min-width: 11em; } .numbers tbody th { min-width: 4em; }
tbody tr + tr { border-top: 1px solid var(--line); }
.numbers td, .numbers thead th + th { text-align: right; font-variant-numeric: tabular-nums; }
.numbers td { white-space: nowrap; }
.answers { width: 100%; } .answers th { font-weight: 600; min-width: 10em; }
.verdict { display: inline-block; border-radius: 4px; padding: 0 .5em; font-size: .82em; font-weight: 600;
  white-space: nowrap; }
.yes { background: var(--yes); color: var(--on-yes); } .no { background: var(--no); color: var(--on-no); }
.open { background: var(--open); color: var(--on-open); }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
@media (max-width: 40em) { main { padding: 1em .8em 3em; } .answers th, .answers td { display: block; } }
@media print { body { font-size: 10pt; } main { max-width: none; padding: 0; } nav { display: none; }
  h2, h3, figcaption { break-after: avoid; } figure, tr { break-inside: avoid; } .scrolls { overflow: visible; } }
"""
