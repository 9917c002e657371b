"""Whether training under noise is better than conventional training when inference is clean."""

from typing import Any

from asr_dni.study.findings.above import AboveConventional
from asr_dni.study.findings.wording import PAIRED


class CleanInference(AboveConventional):
    """Tests every sigma_train above 0 at clean inference."""

    key = "clean_inference"
    title = "Is training under noise better than conventional training when inference is clean?"
    noun = "level of training noise"
    nouns = "levels of training noise"
    levels = slice(0, 1)
    family = "every sigma_train > 0 of this architecture at clean inference"
    test = f"{PAIRED}, one-sided (above); Holm over every sigma_train > 0 of the architecture."

    def _name(self, row: Any) -> str:
        return f"{row.sigma_train:g}"
