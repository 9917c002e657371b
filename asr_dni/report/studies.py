"""What a report says of a study: its findings with their tests, what limits them, and its figures."""

from collections.abc import Iterator, Mapping

from asr_dni.plotting import Figure
from asr_dni.report.document import Answer, Answers, Block, Choice, Document, Section, Text
from asr_dni.study.figures import FIGURES, study_figures
from asr_dni.study.findings import Findings, find_in, tests_of
from asr_dni.study.ledger import Ledger


def kind_of_figure(name: str) -> str:
    """Return what stands before the first ``-`` of a figure's name, one of :data:`FIGURES`."""
    return name.partition("-")[0]


def in_order(figures: Mapping[str, Figure]) -> dict[str, Figure]:
    """Return figures in the order of the report."""
    order = list(FIGURES)
    return dict(sorted(figures.items(), key=lambda item: order.index(kind_of_figure(item[0]))))


def study_sections(findings: Findings, figures: Mapping[str, Figure], name: str = "") -> Iterator[Section]:
    """Yield the sections on a study.

    Args:
        findings: see :func:`asr_dni.study.findings.find`.
        figures: by their names, see :func:`asr_dni.study.figures.study_figures`.
        name: of the study, where a report has several parts.
    """
    of = f" of {name}" if name else ""
    answers: list[Block] = [Text(findings.setting, "small")]
    answers += [
        Answers(
            question.title,
            tuple(Answer(answer.about, answer.verdict, answer.sentence) for answer in found),
            tuple(tests_of(found)),
        )
        for question, found in findings.answered()
    ]
    yield Section(f"Findings{of}", tuple(answers))
    if findings.notes:
        yield Section(f"What limits these answers{of}", tuple(Text(note) for note in findings.notes))
    blocks: list[Block] = []
    for kind, title in FIGURES.items():
        own = {name.partition("-")[2]: one for name, one in figures.items() if kind_of_figure(name) == kind}
        if own:
            blocks.append(Choice(title, own))
    yield Section(f"Figures{of}", tuple(blocks))


def study_document(findings: Findings, figures: Mapping[str, Figure]) -> Document:
    """Return the report on one study, see :func:`study_sections`."""
    return Document(
        "Accuracy under computation noise",
        "Findings of a study of noise: accuracy for every noise in training and at inference.",
        tuple(study_sections(findings, figures)),
    )


def sections_of_ledger(ledger: Ledger, name: str = "") -> Iterator[Section]:
    """Yield the sections on the study that a ledger has the results of.

    Raises:
        UserError: there are no results, or the ledger can't be read.
    """
    findings = find_in(ledger)
    yield from study_sections(findings, study_figures(findings), name)
