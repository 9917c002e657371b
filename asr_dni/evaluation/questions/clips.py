"""Which clips noise breaks first."""

from collections.abc import Iterable, Sequence

import pandas as pd
import torch
from torch.nn.functional import one_hot

from asr_dni.evaluation.measurement.outcomes import Outcomes

_SHARE = 0.5
"""Of the passes: a clip that is right in fewer is broken."""


def clips_table(
    outcomes: Iterable[Outcomes], label_names: Sequence[str], paths: Sequence[str]
) -> pd.DataFrame:
    """Return of each clip how often it is right at each strength, and by what margin.

    Args:
        outcomes: of all levels.
        label_names: in the order of the network's outputs.
        paths: of the clips, in their order.

    Returns:
        The table ``clips`` of :data:`~asr_dni.evaluation.questions.folder.TABLES`.
    """
    names = pd.Series(list(label_names), dtype=object)
    frames = []
    for level in outcomes:
        posteriors = level.posteriors.flatten(0, 1)
        its_label = one_hot(level.labels, posteriors.shape[-1]).bool()
        own = posteriors.masked_fill(~its_label, 0.0).sum(-1)
        other = posteriors.masked_fill(its_label, 0.0).amax(-1)
        counts = one_hot(level.predicted.flatten(0, 1), posteriors.shape[-1]).sum(0)
        # Of labels that are said as often, the one that is believed more.
        said = (counts + posteriors.mean(0) / 2).argmax(-1)
        frames.append(
            pd.DataFrame(
                {
                    "clip": level.clip_ids.numpy(),
                    "path": list(paths),
                    "label": names.iloc[level.labels.numpy()].to_numpy(),
                    "strength": level.strength,
                    "correct_share": level.right.flatten(0, 1).double().mean(0).numpy(),
                    "margin": (own - other).to(torch.float64).mean(0).numpy(),
                    "predicted": names.iloc[said.numpy()].to_numpy(),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def breaking_points(clips: pd.DataFrame) -> pd.DataFrame:
    """Return the strength at which each clip breaks: the first, in their order, at which it is right in under half.

    The order is that of growing noise: that of the strengths, or the other way round where more is right at the higher
    ones, as for the bits of a converter.

    Args:
        clips: see :func:`clips_table`.

    Returns:
        Columns ``clip``, ``path``, ``label``, ``breaks_at`` (NaN: at none), ``margin`` (at the least noise),
        ``predicted`` (what it is taken for where it breaks; ``None``: it does not) and ``right`` (at the least noise:
        of others noise breaks nothing), the most fragile clip first.
    """
    means = clips.groupby("strength")["correct_share"].mean()
    ascending = bool(means.iloc[-1] <= means.iloc[0])
    ordered = clips.sort_values("strength", ascending=ascending, kind="stable")
    first = ordered.drop_duplicates("clip")
    right = first["correct_share"] >= _SHARE
    first = first[["clip", "path", "label", "margin"]].assign(right=right)
    broken = ordered[ordered["correct_share"] < _SHARE].drop_duplicates("clip")
    broken = broken[["clip", "strength", "predicted"]].rename(columns={"strength": "breaks_at"})
    merged = first.merge(broken, on="clip", how="left")
    columns = ["clip", "path", "label", "breaks_at", "margin", "predicted", "right"]
    order = merged.sort_values(
        ["breaks_at", "margin"], ascending=[ascending, True], ignore_index=True, na_position="last"
    )
    return order[columns]
