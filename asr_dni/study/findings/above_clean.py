"""Whether noisy pairs are above conventional training with clean inference."""

from typing import Any

from asr_dni.study.findings.above import AboveConventional
from asr_dni.study.findings.wording import PAIRED
from asr_dni.study.matrix import Matrix


class AboveClean(AboveConventional):
    """Tests all pairs with both sigmas above 0."""

    key = "above_clean"
    title = (
        "Are there noisy pairs (sigma_train, sigma_infer) above conventional training with clean inference?"
    )
    noun = "pair"
    nouns = "pairs"
    levels = slice(1, None)
    family = "all pairs (sigma_train > 0, sigma_infer > 0) of this architecture"
    test = f"{PAIRED}, one-sided (above); Holm over all pairs of the architecture with both sigmas above 0."

    def _name(self, row: Any) -> str:
        return f"({row.sigma_train:g}, {row.sigma_infer:g})"

    def _why_not(self, matrix: Matrix) -> str | None:
        if reason := super()._why_not(matrix):
            return reason
        return "There is no sigma_infer above 0." if len(matrix.sigma_infer) < 2 else None
