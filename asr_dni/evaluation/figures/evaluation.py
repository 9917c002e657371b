"""All figures of an evaluation, by name."""

from asr_dni.evaluation.curves.curve import curve_label
from asr_dni.evaluation.figures.noise_curves import noise_curves_figure
from asr_dni.evaluation.figures.outcomes import (
    calibration_figure,
    chips_figure,
    classes_figure,
    clips_figure,
    confusion_figure,
    voting_figure,
)
from asr_dni.evaluation.figures.sensitivity import budget_figure, sensitivity_figure
from asr_dni.evaluation.questions.folder import Evaluation
from asr_dni.evaluation.questions.summary import worst_chip
from asr_dni.plotting import Figure


def evaluation_figures(evaluation: Evaluation) -> dict[str, Figure]:
    """Specify all figures that an evaluation's tables allow, by the names that their files have.

    Args:
        evaluation: see :func:`~asr_dni.evaluation.questions.folder.read_evaluation`.
    """
    figures: dict[str, Figure] = {}
    curve, settings_of = evaluation.curve, evaluation.settings_of
    if curve is not None:
        figures["curve"] = noise_curves_figure({curve_label(curve.settings): curve})
        if worst_chip(curve) is not None:
            figures["chips"] = chips_figure(curve)
    if evaluation.voting is not None:
        figures["voting"] = voting_figure(evaluation.voting, settings_of("voting"))
    if evaluation.classes is not None:
        figures["classes"] = classes_figure(evaluation.classes, settings_of("classes"))
        figures["confusion"] = confusion_figure(evaluation.classes, settings_of("classes"))
    if evaluation.calibration is not None:
        figures["calibration"] = calibration_figure(
            evaluation.calibration, evaluation.reliability, settings_of("calibration")
        )
    if evaluation.clips is not None:
        figures["clips"] = clips_figure(evaluation.clips, settings_of("clips"))
    if evaluation.sensitivity is not None:
        figures["sensitivity"] = sensitivity_figure(evaluation.sensitivity, settings_of("sensitivity"))
    if evaluation.budget is not None:
        figures["budget"] = budget_figure(evaluation.budget, settings_of("budget"))
    return figures
