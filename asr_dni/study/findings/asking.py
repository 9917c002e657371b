"""All questions, asked of a ledger's results."""

from collections.abc import Mapping, Sequence

import pandas as pd

from asr_dni.study.findings.curves import curve_table
from asr_dni.study.findings.found import Findings
from asr_dni.study.findings.limits import limits
from asr_dni.study.findings.measured import difference_table, matrix_table, missing_table
from asr_dni.study.findings.question import Answer, Evidence
from asr_dni.study.findings.questions import QUESTIONS
from asr_dni.study.findings.tables import concatenate
from asr_dni.study.findings.transfer_tables import transfer_differences, transfer_table
from asr_dni.study.findings.wording import sentence_case
from asr_dni.study.ledger import Ledger
from asr_dni.study.matrix import make_matrices_with_notes
from asr_dni.study.matrix_words import describe_shared, label_matrices
from asr_dni.study.stated_levels import stated_levels
from asr_dni.study.transfer import Inferred, make_transfers, told_by_transfer


def find_in(ledger: Ledger, levels: Sequence[float] | None = None, relevant: float = 0.01) -> Findings:
    """Return what a study's ledger says, at the levels that the study states, see :func:`find`.

    Args:
        ledger: of the study.
        levels: see :func:`find`.
        relevant: see :func:`find`.

    Raises:
        UserError: there are no results, or the ledger or what is stated can't be read.
    """
    return find(ledger.frame(), levels, relevant, stated_levels(ledger.path.parent / "study.yaml"))


def find(
    frame: pd.DataFrame,
    levels: Sequence[float] | None = None,
    relevant: float = 0.01,
    stated: Mapping[Inferred, float] | None = None,
) -> Findings:
    """Return what a ledger's results say.

    Every test is over seeds, that is over trainings: what it says holds for other trainings on the same data, tested
    on the same clips. Each architecture is a family of tests of its own.

    Args:
        frame: see :data:`asr_dni.study.ledger_file.COLUMNS`.
        levels: strengths at which the trend with the number of units is asked; ``None``: the lowest, the middle and
            the highest measured.
        relevant: smallest difference in accuracy that matters: a claim is "not supported" where all effects of at least
            so much are ruled out.
        stated: levels at which training by inference hardware is shown, see
            :func:`~asr_dni.study.transfer.make_transfers`.

    Raises:
        UserError: there are no results, or a column is missing.
    """
    matrices, notes = make_matrices_with_notes(frame)
    transfers = make_transfers(matrices, stated)
    labels = label_matrices(matrices)
    untold = [place for place, matrix in enumerate(matrices) if not told_by_transfer(matrix, transfers)]
    alone = [place for place in untold if not matrices[place].voted]
    evidence = Evidence(
        tuple(matrices[place] for place in alone),
        tuple(labels[place] for place in alone),
        relevant,
        levels,
        tuple(transfers),
        tuple(matrices[place] for place in untold),
    )
    tables = {"matrix": matrix_table(matrices), "curves": curve_table(matrices)}
    answers: list[Answer] = []
    for name, question in QUESTIONS.items():
        tables[name], found = question.ask(evidence)
        answers += found
    tables["difference"] = difference_table(matrices)
    tables["missing"] = missing_table(zip(matrices, labels, strict=True))
    if transfers:
        tables["transfer"] = concatenate(map(transfer_table, transfers))
        tables["transfer_difference"] = concatenate(map(transfer_differences, transfers))
    families = len(alone) + len(transfers)
    return Findings(
        tuple(matrices),
        tuple(answers),
        tables,
        tuple(notes + limits(frame, matrices, tables["missing"], families)),
        sentence_case(describe_shared(matrices)) + ".",
        tuple(labels),
        tuple(transfers),
    )
