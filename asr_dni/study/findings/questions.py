"""The questions to a study's results."""

from asr_dni.study.findings.above_clean import AboveClean
from asr_dni.study.findings.best import Best
from asr_dni.study.findings.clean_inference import CleanInference
from asr_dni.study.findings.compensation import Compensation
from asr_dni.study.findings.flatter import Flatter
from asr_dni.study.findings.more_noise import MoreNoise
from asr_dni.study.findings.question import Question
from asr_dni.study.findings.schedules import Schedules
from asr_dni.study.findings.transfer_questions import BestTraining, DrawnStrength, Matched
from asr_dni.study.findings.units import Units
from asr_dni.study.findings.voting import Voting

_ALL: tuple[Question, ...] = (
    Flatter(),
    Best(),
    MoreNoise(),
    AboveClean(),
    CleanInference(),
    Voting(),
    Compensation(),
    Units(),
    Schedules(),
    BestTraining(),
    Matched(),
    DrawnStrength(),
)

QUESTIONS: dict[str, Question] = {question.key: question for question in _ALL}
"""Questions that findings answer, by their names, in the order in which they are told."""
