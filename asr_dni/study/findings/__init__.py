"""What a study's results say: effects with intervals, tests over seeds, and answers in words.

A question is a module: its table, and its answers in words. ``questions.py`` lists them.
"""

from asr_dni.study.findings.asking import find, find_in
from asr_dni.study.findings.found import Differences, Findings, tests_of
from asr_dni.study.findings.question import Answer, Evidence, Question, Verdict
from asr_dni.study.findings.questions import QUESTIONS
from asr_dni.study.findings.tables import rows_of

__all__ = [
    "QUESTIONS",
    "Answer",
    "Differences",
    "Evidence",
    "Findings",
    "Question",
    "Verdict",
    "find",
    "find_in",
    "rows_of",
    "tests_of",
]
