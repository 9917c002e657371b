"""What a study found, and the telling of it as text and as Markdown."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from asr_dni.study.findings.question import Answer, Question
from asr_dni.study.findings.questions import QUESTIONS
from asr_dni.study.findings.tables import rows_of
from asr_dni.study.hypothesis_tests import ALPHA, TOO_FEW_SEEDS, Array, student_t_tests
from asr_dni.study.matrix import Matrix
from asr_dni.study.transfer import Transfer, label_transfers, told_by_transfer
from asr_dni.wording import count


@dataclass(frozen=True)
class Differences:
    """Differences to conventional training, ``(T - 1, I)`` each: of every sigma_train > 0, at every strength.

    Attributes:
        effect: mean over seeds.
        low: lower end of its 95 % interval; NaN where there are too few seeds.
        high: its upper end.
        significant: whether a test says so, after correction.
    """

    effect: Array
    low: Array
    high: Array
    significant: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Findings:
    """What a study found.

    Attributes:
        matrices: one per architecture and setting.
        answers: by question, then architecture.
        tables: ``matrix``, ``curves``, and one per question, ``difference`` (to conventional training at the same
            strength), ``missing``; numbers as fractions, not percent.
        notes: what limits the answers.
        setting: what all matrices have in common, in words.
        labels: the matrices' names.
        transfers: training by inference hardware, where the study has several.
    """

    matrices: tuple[Matrix, ...]
    answers: tuple[Answer, ...]
    tables: dict[str, pd.DataFrame]
    notes: tuple[str, ...]
    setting: str
    labels: tuple[str, ...] = field(default=())
    transfers: tuple[Transfer, ...] = ()

    @property
    def alone(self) -> tuple[Matrix, ...]:
        """The matrices of single passes that a transfer does not tell all of."""
        return tuple(
            one for one in self.matrices if not one.voted and not told_by_transfer(one, self.transfers)
        )

    def differences(self, matrix: Matrix, to_clean: bool) -> Differences | None:
        """Return a matrix's differences to conventional training, as the tables have them.

        Args:
            matrix: one of :attr:`matrices`, or one with more levels.
            to_clean: to conventional training with clean inference, instead of at the same strength.

        Returns:
            ``None`` where there is nothing to compare with.
        """
        names = ("clean_inference", "above_clean") if to_clean else ("difference",)
        tables = [rows_of(self.tables[name], matrix) for name in names]
        rows = pd.concat([table for table in tables if len(table)] or [pd.DataFrame()])
        if rows.empty:
            return None
        values = np.full((4, len(matrix.sigma_train) - 1, len(matrix.levels)), np.nan)
        for row in rows.itertuples():
            train, infer = (
                matrix.sigma_train.index(row.sigma_train),
                matrix.levels.index(row.strength),
            )
            values[:, train - 1, infer] = row.effect, row.low, row.high, row.p_holm
        effect, low, high, p = values
        return Differences(effect, low, high, p < ALPHA)

    def answered(self) -> Iterator[tuple[Question, list[Answer]]]:
        """Yield the questions that have answers, with these."""
        for name, question in QUESTIONS.items():
            answers = [answer for answer in self.answers if answer.question == name]
            if answers:
                yield question, answers

    def text(self) -> str:
        """Return the findings as plain text."""
        lines = [self.setting, ""]
        for question, answers in self.answered():
            lines += [
                question.title,
                *(f"  {_line(answer)}" for answer in answers),
                *(f"  Test: {test}" for test in tests_of(answers)),
                "",
            ]
        return "\n".join([*lines, "What limits these answers", *(f"  {note}" for note in self.notes), ""])

    def markdown(self) -> str:
        """Return the findings in Markdown, with the matrices as tables."""
        lines = ["# Findings", "", self.setting, ""]
        for question, answers in self.answered():
            lines += [f"## {question.title}", ""]
            lines += [
                f"- **{answer.about}**: "
                + (f"*{answer.verdict}*. " if answer.verdict != "estimate" else "")
                + answer.sentence
                for answer in answers
            ]
            lines += ["", *(f"Test: {test}" for test in tests_of(answers)), ""]
        lines += [
            "## What limits these answers",
            "",
            *(f"- {note}" for note in self.notes),
            "",
            "## Accuracy (%)",
            "",
        ]
        for transfer, label in zip(self.transfers, label_transfers(self.transfers), strict=True):
            lines += [f"**{label}**, training (rows) by inference hardware (columns)", ""]
            lines += [_transfer_markdown(transfer), ""]
        for matrix, label in zip(self.matrices, self.labels, strict=True):
            if told_by_transfer(matrix, self.transfers):
                continue
            interval = "95 % interval over seeds" if np.isfinite(matrix.interval()).any() else TOO_FEW_SEEDS
            lines += [f"**{label}**; mean over {count(len(matrix.seeds), 'seed')}, {interval}", ""]
            lines += [_matrix_markdown(matrix), ""]
        return "\n".join(lines)


def _line(answer: Answer) -> str:
    verdict = f"{answer.verdict}. " if answer.verdict != "estimate" else ""
    return f"{answer.about}: {verdict}{answer.sentence}"


def tests_of(answers: Iterable[Answer]) -> list[str]:
    """Return the tests that answers rest on, each once."""
    return list(dict.fromkeys(answer.test for answer in answers if answer.test))


def _transfer_markdown(transfer: Transfer) -> str:
    tests = student_t_tests(transfer.shown, transfer.counting)
    head = ["training", *(column.label for column in transfer.inferences)]
    rows = [head, ["---", *["---:"] * len(transfer.inferences)]]
    for place, training in enumerate(transfer.trainings):
        row = [training.label]
        for mean, low, high in zip(tests.effect[place], tests.low[place], tests.high[place], strict=True):
            text = "" if math.isnan(mean) else f"{100 * mean:.1f}"
            row.append(text + ("" if math.isnan(low) else f" ± {50 * (high - low):.1f}"))
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _matrix_markdown(matrix: Matrix) -> str:
    mean, (low, high) = matrix.mean, matrix.interval()
    head = [f"{matrix.train_symbol} \\ {matrix.strength.symbol}", *(f"{sigma:g}" for sigma in matrix.levels)]
    rows = [head, ["---:"] * len(head)]
    for place, sigma in enumerate(matrix.sigma_train):
        row = [matrix.train_text(sigma)]
        for level in range(len(matrix.levels)):
            half = (high[place, level] - low[place, level]) / 2
            text = "" if math.isnan(mean[place, level]) else f"{100 * mean[place, level]:.1f}"
            row.append(text + ("" if math.isnan(half) else f" ± {100 * half:.1f}"))
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
