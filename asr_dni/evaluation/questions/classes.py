"""Which classes noise confuses: confusion counts, and accuracy by class."""

from collections.abc import Iterable, Sequence

import pandas as pd
import torch

from asr_dni.evaluation.curves.intervals import wilson_interval
from asr_dni.evaluation.measurement.outcomes import Outcomes


def classes_table(outcomes: Iterable[Outcomes], label_names: Sequence[str]) -> pd.DataFrame:
    """Return how often clips of a label are taken for a label, by strength, chip and draw.

    Returns:
        The table ``classes`` of :data:`~asr_dni.evaluation.questions.folder.TABLES`; counts of 0 have no row.
    """
    frames = []
    names = pd.Series(list(label_names), dtype=object)
    for level in outcomes:
        chips, draws, _, n_labels = level.logits.shape
        passes = torch.arange(chips * draws)[:, None]
        predicted = level.predicted.flatten(0, 1)
        place = (passes * n_labels + level.labels) * n_labels + predicted
        counts = torch.bincount(place.flatten(), minlength=chips * draws * n_labels**2)
        chip, draw, label, said = (
            its.numpy() for its in counts.view(chips, draws, n_labels, n_labels).nonzero(as_tuple=True)
        )
        frames.append(
            pd.DataFrame(
                {
                    "strength": level.strength,
                    "chip": chip,
                    "draw": draw,
                    "label": names.iloc[label].to_numpy(),
                    "predicted": names.iloc[said].to_numpy(),
                    "count": counts[counts > 0].numpy(),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def accuracy_by_class(classes: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracy on each label's clips (the label's recall).

    Args:
        classes: see :func:`classes_table`.

    Returns:
        Columns ``strength``, ``label``, ``accuracy``, ``low``, ``high`` (Wilson, over the label's clips, draws and
        chips included), ``n_clips``.
    """
    rows = []
    for (strength, label), group in classes.groupby(["strength", "label"], sort=True):
        passes = len(classes.loc[classes["strength"] == strength, ["chip", "draw"]].drop_duplicates())
        total = int(group["count"].sum())
        right = int(group.loc[group["predicted"] == label, "count"].sum())
        n_clips = total // passes
        low, high = wilson_interval(right / total, n_clips)
        rows.append(
            {
                "strength": strength,
                "label": label,
                "accuracy": right / total,
                "low": low,
                "high": high,
                "n_clips": n_clips,
            }
        )
    return pd.DataFrame(rows)


def confusion_matrix(classes: pd.DataFrame, strength: float, label_names: Sequence[str]) -> pd.DataFrame:
    """Return shares of each label's clips by what they are taken for, at one strength; rows sum to 1.

    Args:
        classes: see :func:`classes_table`.
        strength: one that was measured.
        label_names: of rows and columns, in their order; a label without clips has a row of NaN.
    """
    level = classes[classes["strength"] == strength]
    counts = level.pivot_table(index="label", columns="predicted", values="count", aggfunc="sum")
    counts = counts.reindex(index=list(label_names), columns=list(label_names)).fillna(0.0)
    totals = counts.sum(axis=1)
    return counts.div(totals.where(totals > 0), axis=0)
