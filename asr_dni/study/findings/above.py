"""What both questions share that ask for accuracies above conventional training with clean inference."""

import math
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from asr_dni.study.findings.judging import judge, largest, significant, why_not_compared
from asr_dni.study.findings.question import Answer, Evidence, MatrixQuestion
from asr_dni.study.findings.tables import table_of_tests
from asr_dni.study.findings.wording import NO_PAIR, PAIRED, describe_effect, points, power, untested
from asr_dni.study.hypothesis_tests import student_t_tests
from asr_dni.study.matrix import Matrix


class AboveConventional(MatrixQuestion):
    """Tests whether accuracies are above that of conventional training with clean inference.

    It is asked of the means over a cell's sizes too, which show smaller effects.

    Attributes:
        noun: what is tested.
        nouns: its plural.
        levels: at which strengths of the inference noise it is.
        family: over which the tests are corrected, as the table says it.
        test: the test, as the answer says it.
    """

    noun: ClassVar[str]
    nouns: ClassVar[str]
    levels: ClassVar[slice]
    family: ClassVar[str]
    test: ClassVar[str]

    @abstractmethod
    def _name(self, row: Any) -> str: ...

    def _asked_of(self, evidence: Evidence) -> Iterable[tuple[Matrix, str]]:
        return (*evidence.labelled, *evidence.over_sizes)

    def _why_not(self, matrix: Matrix) -> str | None:
        return why_not_compared(matrix, clean=True)

    def _ask_matrix(self, matrix: Matrix, label: str, relevant: float) -> tuple[pd.DataFrame, Answer | None]:
        reason = self._why_not(matrix)
        if reason:
            return self._refuse(matrix, label, reason)
        differences = matrix.accuracy[1:, self.levels] - matrix.accuracy[0, 0]
        train, infer = np.meshgrid(matrix.sigma_train[1:], matrix.levels[self.levels], indexing="ij")
        table = table_of_tests(
            student_t_tests(differences, matrix.counting * math.sqrt(2), "greater"),
            {"sigma_train": train.ravel(), "strength": infer.ravel()},
            f"{PAIRED}, one-sided",
            self.family,
        )
        if largest(table) is None:
            return table, self._answer(matrix.key, label, "cannot tell", NO_PAIR)
        base = points(float(np.nanmean(matrix.accuracy[0, 0])), sign=False)
        sentence = self._describe(table, base, relevant) + untested(table)
        return table, self._answer(matrix.key, label, judge(table, relevant), sentence, self.test)

    def _describe(self, table: pd.DataFrame, base: str, relevant: float) -> str:
        best, above = largest(table), significant(table)
        name, only = self._name, len(table) == 1
        reference = f"{base} % of conventional training with clean inference"
        if len(above):
            best = largest(above)
            ordered = above.sort_values("effect", ascending=False)
            shown = ", ".join(name(row) for row in ordered.head(6).itertuples())
            more = f" and {len(ordered) - 6} more" if len(ordered) > 6 else ""
            sentence = f"{self._share(len(above), len(table))} above the {reference}: {shown}{more};"
            sentence += (
                f" {'the most, ' + name(best) + ', ' if len(above) > 1 else ''}by {describe_effect(best)}."
            )
            return sentence + (" The largest of many is likely overestimated." if len(table) > 1 else "")
        if judge(table, relevant) == "does not support":
            sentence = (
                f"{self._share(0, len(table))} above the {reference} by {points(relevant, sign=False)} points or"
                " more;"
            )
        else:
            left = "it is not ruled out" if only else "not all are ruled out"
            sentence = f"{self._share(0, len(table))} shown to be above the {reference}, but {left};"
        which = "it" if only else "the highest"
        sentence = f"{sentence} {which}, {name(best)}, differs by {describe_effect(best)}."
        return sentence + (power(table) if judge(table, relevant) == "cannot tell" else "")

    def _share(self, number: int, total: int) -> str:
        """Return the beginning of a sentence about some of what is tested, up to its verb."""
        if total == 1:
            return f"The only {self.noun} is" + ("" if number else " not")
        return f"{number or 'None'} of {total} {self.nouns} {'are' if number > 1 else 'is'}"
