"""What ``asr-dni evaluate`` found of runs: its figures, and its tables as far as one reads them."""

import math
from collections.abc import Iterator, Mapping

import pandas as pd

from asr_dni.catalogue import Run
from asr_dni.errors import UserError
from asr_dni.evaluation.figures.evaluation import evaluation_figures
from asr_dni.evaluation.questions.folder import Evaluation, read_evaluation
from asr_dni.report.document import Block, Choice, Table, Text

_TITLES = {
    "summary": "What it comes to",
    "voting": "Votes of several noisy inferences",
    "calibration": "Calibration",
    "sensitivity": "Noise at one part at a time",
    "budget": "What each part bears",
    "cost": "Cost of an inference",
}
"""The tables that are short enough to be read."""

_SHARES = (
    "accuracy",
    "low",
    "high",
    "draws_low",
    "draws_high",
    "loss_of_accuracy",
    "ece",
    "ece_scaled",
    "confidence",
)
_MOST_ROWS = 60
_WORST_CLIPS = 20


def evaluation_blocks(runs: Mapping[str, Run]) -> Iterator[Block]:
    """Yield figures and tables of all evaluations of runs; what can't be read is named.

    Args:
        runs: by name.
    """
    for name, run in runs.items():
        for kind, folder in run.evaluations().items():
            of = f"{name}, {kind}"
            try:
                evaluation = read_evaluation(folder)
            except UserError as error:
                yield Text(f"{of}: {error}", "warning")
                continue
            for figure_name, figure in evaluation_figures(evaluation).items():
                if figure_name != "curve":  # which is shown with the others
                    yield Choice(f"{figure.title} ({of})", {figure_name: figure})
            for table, title in _TITLES.items():
                frame = evaluation.tables.get(table)
                if frame is not None and len(frame):
                    yield _table(f"{title} ({of})", frame)
            worst = _worst_clips(evaluation)
            if worst is not None:
                yield _table(f"Clips that noise breaks first ({of})", worst)


def _worst_clips(evaluation: Evaluation) -> pd.DataFrame | None:
    """Return the clips that are right at the lowest strength and least often at the others."""
    clips = evaluation.clips
    if clips is None or clips["strength"].nunique() < 2:
        return None
    lowest = clips["strength"].min()
    right = set(clips[(clips["strength"] == lowest) & (clips["correct_share"] >= 0.5)]["clip"])
    noisy = clips[(clips["strength"] > lowest) & clips["clip"].isin(right)]
    if noisy.empty:
        return None
    names = noisy.groupby("clip")[["path", "label"]].first()
    means = noisy.groupby("clip")[["correct_share", "margin"]].mean()
    joined: pd.DataFrame = names.join(means)
    return joined.nsmallest(_WORST_CLIPS, ["correct_share", "margin"]).reset_index(drop=True)


def _table(title: str, frame: pd.DataFrame) -> Table:
    shares = [name for name in frame.columns if name in _SHARES]
    shown = frame.head(_MOST_ROWS).assign(**{name: 100 * frame[name] for name in shares})
    header = tuple(
        f"{name} (%)" if name in shares else name.replace("_", " ") for name in map(str, frame.columns)
    )
    rows = tuple(tuple(_text(value) for value in row) for row in shown.itertuples(index=False))
    left_out = len(frame) - len(shown)
    note = f"the first {len(shown)} of {len(frame)} rows" if left_out else ""
    return Table(title, header, rows, note, folded=len(rows) > 15)


def _text(value: object) -> str:
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return "∞" if math.isinf(value) else f"{value:.4g}".replace("-", "−")
    return "" if value is None else str(value)
