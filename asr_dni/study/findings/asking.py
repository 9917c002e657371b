"""All questions, asked of a ledger's results."""

from collections.abc import Sequence

import pandas as pd

from asr_dni.study.findings.curves import curve_table
from asr_dni.study.findings.found import Findings
from asr_dni.study.findings.limits import limits
from asr_dni.study.findings.measured import difference_table, matrix_table, missing_table
from asr_dni.study.findings.question import Answer, Evidence
from asr_dni.study.findings.questions import QUESTIONS
from asr_dni.study.findings.wording import sentence_case
from asr_dni.study.matrix import describe_shared, label_matrices, make_matrices_with_notes


def find(frame: pd.DataFrame, levels: Sequence[float] | None = None, relevant: float = 0.01) -> Findings:
    """Return what a ledger's results say.

    Every test is over seeds, that is over trainings: what it says holds for other trainings on the same data, tested
    on the same clips. Each architecture is a family of tests of its own.

    Args:
        frame: see :data:`asr_dni.study.ledger_file.COLUMNS`.
        levels: strengths at which the trend with the number of units is asked; ``None``: the lowest, the middle and
            the highest measured.
        relevant: smallest difference in accuracy that matters: a claim is "not supported" where all effects of at least
            so much are ruled out.

    Raises:
        UserError: there are no results, or a column is missing.
    """
    matrices, notes = make_matrices_with_notes(frame)
    evidence = Evidence(tuple(matrices), tuple(label_matrices(matrices)), relevant, levels)
    tables = {"matrix": matrix_table(matrices), "curves": curve_table(matrices)}
    answers: list[Answer] = []
    for name, question in QUESTIONS.items():
        tables[name], found = question.ask(evidence)
        answers += found
    tables["difference"] = difference_table(matrices)
    tables["missing"] = missing_table(evidence)
    return Findings(
        evidence.matrices,
        tuple(answers),
        tables,
        tuple(notes + limits(frame, matrices, tables["missing"])),
        sentence_case(describe_shared(matrices)) + ".",
        evidence.labels,
    )
