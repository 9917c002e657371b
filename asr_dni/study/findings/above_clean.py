"""Whether noisy pairs are above conventional training with clean inference."""

from typing import Any

from asr_dni.study.findings.above import AboveConventional
from asr_dni.study.findings.wording import PAIRED
from asr_dni.study.matrix import Matrix


class AboveClean(AboveConventional):
    """Tests all pairs with both noises above 0."""

    key = "above_clean"
    title = "Are there noisy pairs (training, inference) above conventional training with clean inference?"
    noun = "pair"
    nouns = "pairs"
    levels = slice(1, None)
    family = "all pairs of training noise and inference noise above 0 of this architecture"
    test = f"{PAIRED}, one-sided (above); Holm over all pairs of the architecture with both noises above 0."

    def _name(self, row: Any) -> str:
        return f"({row.sigma_train:g}, {row.strength:g})"

    def _why_not(self, matrix: Matrix) -> str | None:
        if reason := super()._why_not(matrix):
            return reason
        return f"There is no {matrix.strength.name} above 0." if len(matrix.levels) < 2 else None
