"""What a question is, what it is asked of, and what its answer is."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeAlias

import pandas as pd

from asr_dni.study.findings.families import mean_over_sizes
from asr_dni.study.findings.tables import concatenate, with_key
from asr_dni.study.matrix import Matrix
from asr_dni.study.transfer import Transfer

Verdict: TypeAlias = Literal["supports", "does not support", "cannot tell", "cannot be tested", "estimate"]


@dataclass(frozen=True)
class Answer:
    """An answer to one question about one architecture.

    Attributes:
        question: one of :data:`asr_dni.study.findings.QUESTIONS`.
        about: the architecture, and the setting as far as the study has several.
        key: values of :data:`asr_dni.study.matrix.KEYS` that it holds for.
        verdict: ``supports``: a test says yes after correction; ``does not support``: effects that matter are ruled
            out; ``cannot tell``: neither, or something to compare is missing; ``cannot be tested``: there are too few
            seeds; ``estimate``: the question asks how much.
        sentence: the answer.
        test: the test, and the family over which it was corrected.
    """

    question: str
    about: str
    key: dict[str, Any]
    verdict: Verdict
    sentence: str
    test: str


@dataclass(frozen=True)
class Evidence:
    """What questions are asked of.

    Attributes:
        matrices: one per architecture and setting, of single passes.
        labels: their names.
        relevant: smallest difference in accuracy that matters.
        levels: strengths at which the trend with the number of units is asked; ``None``: the lowest, the middle and
            the highest measured.
        transfers: training by inference hardware; their matrices of one level of training noise are not asked alone.
        voted: the matrices with those of votes of several passes.
    """

    matrices: tuple[Matrix, ...]
    labels: tuple[str, ...]
    relevant: float = 0.01
    levels: Sequence[float] | None = None
    transfers: tuple[Transfer, ...] = ()
    voted: tuple[Matrix, ...] = ()

    @property
    def labelled(self) -> Iterable[tuple[Matrix, str]]:
        """The matrices with their labels."""
        return zip(self.matrices, self.labels, strict=True)

    @cached_property
    def over_sizes(self) -> list[tuple[Matrix, str]]:
        """The means over the sizes of each cell, with their labels."""
        return mean_over_sizes(self.matrices)


class Question(ABC):
    """A question to a study's results.

    Attributes:
        key: its name, and that of its table.
        title: it, in words.
    """

    key: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def ask(self, evidence: Evidence) -> tuple[pd.DataFrame, list[Answer]]:
        """Return its table, which begins with :data:`asr_dni.study.matrix.KEYS`, and its answers."""

    def _answer(
        self, key: dict[str, Any], about: str, verdict: Verdict, sentence: str, test: str = ""
    ) -> Answer:
        return Answer(self.key, about, key, verdict, sentence, test)


class MatrixQuestion(Question):
    """A question that is asked of each matrix by itself."""

    def ask(self, evidence: Evidence) -> tuple[pd.DataFrame, list[Answer]]:
        """Return the tables of all matrices together, and an answer for each that can be asked."""
        tables, answers = [], []
        for matrix, label in self._asked_of(evidence):
            table, answer = self._ask_matrix(matrix, label, evidence.relevant)
            tables.append(with_key(matrix.key, table))
            answers += [answer] if answer else []
        return concatenate(tables), answers

    def _asked_of(self, evidence: Evidence) -> Iterable[tuple[Matrix, str]]:
        return evidence.labelled

    @abstractmethod
    def _ask_matrix(
        self, matrix: Matrix, label: str, relevant: float
    ) -> tuple[pd.DataFrame, Answer | None]: ...

    def _refuse(self, matrix: Matrix, label: str, sentence: str) -> tuple[pd.DataFrame, Answer]:
        return pd.DataFrame(), self._answer(matrix.key, label, "cannot tell", sentence)
