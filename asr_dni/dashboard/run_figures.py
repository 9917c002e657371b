"""The figures of a run, by the tab of its page that shows them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from asr_dni.catalogue import Run
from asr_dni.catalogue.finding import VALIDATION_CURVE
from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import NoiseCurve
from asr_dni.evaluation.curves.curve_file import strength_of
from asr_dni.evaluation.figures.noise_curves import noise_curves_figure
from asr_dni.evaluation.figures.outcomes import (
    calibration_figure,
    classes_figure,
    clips_figure,
    confusion_figure,
    voting_figure,
)
from asr_dni.evaluation.figures.sensitivity import budget_figure, sensitivity_figure
from asr_dni.evaluation.figures.training import learning_curves_figure, schedules_figure
from asr_dni.evaluation.questions.folder import Evaluation, read_evaluation
from asr_dni.noise import Strength
from asr_dni.plotting import Axis, Figure, Line, Panel, curve_style

TABLE_OF_TAB: Mapping[str, str] = {
    "words": "classes",
    "voting": "voting",
    "calibration": "calibration",
    "sensitivity": "sensitivity",
    "clips": "clips",
}
"""Which table of an evaluation a tab shows."""


@dataclass(frozen=True)
class Shown:
    """What a tab shows of a run.

    Attributes:
        run: the run.
        tab: name of the tab.
        other: the run beside it; None: none is.
        evaluation: the evaluation that the tab is of; None: there is none with its table.
        strength: value that the confusion is shown at; None: the strongest noise.
        clip: identity of the chosen clip; None: the first.
    """

    run: Run
    tab: str
    other: Run | None = None
    evaluation: Evaluation | None = None
    strength: float | None = None
    clip: int | None = None

    def strength_of(self, known: Sequence[float]) -> float:
        """Return the measured strength that is shown.

        Args:
            known: those that were measured, ascending.
        """
        asked = self.strength
        return known[-1] if asked is None else min(known, key=lambda its: abs(its - asked))

    def figures(self) -> dict[str, Figure]:
        """Specify the figures of the tab, by name; none where there is nothing to show yet.

        Raises:
            UserError: a file of the run is damaged.
        """
        make = _FIGURES.get(self.tab)
        return {} if make is None else make(self)


def evaluations_with(run: Run, table: str) -> tuple[list[Evaluation], list[str]]:
    """Return a run's evaluations that have a table, and what is wrong with those that cannot be read."""
    found, faults = [], []
    for name, path in run.evaluations().items():
        try:
            evaluation = read_evaluation(path)
        except UserError as error:
            faults.append(f"{name}: {error}")
            continue
        if table in evaluation.tables:
            found.append(evaluation)
    return found, faults


def title_of(evaluation: Evaluation) -> str:
    """Return what an evaluation is called in a choice."""
    return evaluation.name.replace("_", " ") or "Gaussian noise"


def strengths_in(table: pd.DataFrame) -> list[float]:
    """Return the strengths that a table has rows of, ascending."""
    return sorted(float(value) for value in table["strength"].unique())


def _curve_figures(shown: Shown) -> dict[str, Figure]:
    """Specify the noise curves, one figure for each axis that they are over."""
    found: dict[str, NoiseCurve] = {}
    for run, where in ((shown.run, ""), (shown.other, "other ")):
        if run is None:
            continue
        for name, curve in _curves_of(run).items():
            found[f"{where}{name}"] = curve
    figures: dict[str, Figure] = {}
    groups: dict[tuple[Strength, str], dict[str, NoiseCurve]] = {}
    for name, curve in found.items():
        groups.setdefault((curve.strength, str(curve.settings.get("scale", ""))), {})[name] = curve
    for (strength, scale), curves in groups.items():
        name = (
            "noise_curve"
            if strength.is_sigma and scale in ("", "absolute")
            else f"curve_{strength.name}_{scale}"
        )
        figures[name.rstrip("_")] = noise_curves_figure(_named(curves, shown))
    return figures


def _curves_of(run: Run) -> dict[str, NoiseCurve]:
    curves = run.curves()
    if len(curves) > 1:
        curves.pop(VALIDATION_CURVE, None)
    for evaluation in evaluations_with(run, "curve")[0]:
        if evaluation.curve is not None and not (evaluation.name == "" and "noise_curve" in curves):
            curves[evaluation.path.name] = evaluation.curve
    return curves


def _named(curves: Mapping[str, NoiseCurve], shown: Shown) -> dict[str, NoiseCurve]:
    """Return curves by what tells them apart."""
    if len(curves) == 1:
        return {shown.run.identity: next(iter(curves.values()))}
    named: dict[str, NoiseCurve] = {}
    for name, curve in curves.items():
        run = shown.other if name.startswith("other ") else shown.run
        assert run is not None
        own = name.removeprefix("other ")
        what = {"noise_curve": "", VALIDATION_CURVE: "validation"}.get(
            own, own.removeprefix("noise_curve-").removeprefix("evaluation-")
        )
        named[", ".join(filter(None, (run.identity, what)))] = curve
    return named


def _training_figures(shown: Shown) -> dict[str, Figure]:
    metrics = shown.run.metrics()
    if metrics.empty:
        return {}
    figures = {}
    curve = next(iter(shown.run.curves().values()), None)
    settings = None if curve is None else curve.settings
    makers: dict[str, Callable[[], Figure]] = {
        "learning_curves": lambda: learning_curves_figure(metrics),
        "schedule": lambda: schedules_figure(metrics, settings),
    }
    for name, make in makers.items():
        try:
            figures[name] = make()
        except UserError:  # nothing of it was logged
            continue
    return figures


def _words_figures(shown: Shown) -> dict[str, Figure]:
    if shown.evaluation is None or shown.evaluation.classes is None:
        return {}
    classes, settings = shown.evaluation.classes, shown.evaluation.settings_of("classes")
    known = strengths_in(classes)
    at = shown.strength_of(known)
    return {
        "confusion": confusion_figure(classes, settings, list(dict.fromkeys((known[0], at)))),
        "words": classes_figure(classes, settings),
    }


def _voting_figures(shown: Shown) -> dict[str, Figure]:
    figures = {}
    if shown.evaluation is not None and shown.evaluation.voting is not None:
        figures["voting"] = voting_figure(shown.evaluation.voting, shown.evaluation.settings_of("voting"))
    for name, figure in _curve_figures(shown).items():
        if "time" in name:
            figures[name] = figure
    return figures


def _calibration_figures(shown: Shown) -> dict[str, Figure]:
    evaluation = shown.evaluation
    if evaluation is None or evaluation.calibration is None:
        return {}
    settings = evaluation.settings_of("calibration")
    return {"calibration": calibration_figure(evaluation.calibration, evaluation.reliability, settings)}


def _sensitivity_figures(shown: Shown) -> dict[str, Figure]:
    evaluation = shown.evaluation
    if evaluation is None or evaluation.sensitivity is None:
        return {}
    settings = evaluation.settings_of("sensitivity")
    figures = {"sensitivity": sensitivity_figure(evaluation.sensitivity, settings)}
    if evaluation.budget is not None and len(evaluation.budget):
        figures["budget"] = budget_figure(evaluation.budget, evaluation.settings_of("budget"))
    return figures


def _clips_figures(shown: Shown) -> dict[str, Figure]:
    if shown.evaluation is None or shown.evaluation.clips is None:
        return {}
    clips, settings = shown.evaluation.clips, shown.evaluation.settings_of("clips")
    figures = {"clips": clips_figure(clips, settings)}
    if shown.clip is not None and (clips["clip"] == shown.clip).any():
        figures["share"] = clip_share_figure(clips, shown.clip, settings)
    return figures


def clip_share_figure(clips: pd.DataFrame, clip: int, settings: Mapping[str, Any]) -> Figure:
    """Specify the picture of how often one clip is right, over the strength of the noise.

    Args:
        clips: the table of clips.
        clip: identity of the clip.
        settings: of the evaluation.
    """
    own = clips[clips["clip"] == clip].sort_values("strength")
    strength = strength_of(settings)
    line = Line(own["strength"].tolist(), (100 * own["correct_share"]).tolist(), style=curve_style(2))
    where = str(own["path"].iloc[0])
    return Figure(
        f"How often {where} is right",
        (Panel(Axis(strength.symbol, strength.unit), Axis("right", "%", limits=(0, 103)), (line,)),),
        columns=1,
        panel_size=(8.4, 2.4),
    )


_FIGURES: Mapping[str, Callable[[Shown], dict[str, Figure]]] = {
    "overview": _curve_figures,
    "training": _training_figures,
    "words": _words_figures,
    "sensitivity": _sensitivity_figures,
    "voting": _voting_figures,
    "calibration": _calibration_figures,
    "clips": _clips_figures,
}


def tabs_in_order() -> Sequence[str]:
    """Return the names of the tabs."""
    return ("overview", "settings", "training", "words", "sensitivity", "voting", "calibration", "clips")
