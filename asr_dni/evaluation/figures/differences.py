"""The figure of differences of noise curves to one of them, the baseline."""

from asr_dni.evaluation.curves.description import common_strength, describe_settings
from asr_dni.evaluation.curves.differences import Differences, format_difference
from asr_dni.evaluation.figures.noise_curves import levels_axis
from asr_dni.plotting import Axis, Figure, Legend, Line, Panel, Reference, curve_style


def differences_figure(found: Differences, title: str | None = None) -> Figure:
    """Specify the picture of differences to a baseline, in percentage points, against the strength of the noise.

    Bands are the intervals; the line at 0 is the baseline. A curve looks as it does in
    :func:`~asr_dni.evaluation.figures.noise_curves.noise_curves_figure` of the same experiments.

    Args:
        found: see :func:`~asr_dni.evaluation.curves.differences.differences`.
        title: stands above the picture.
    """
    lines = []
    for index, label in enumerate(found.summaries):
        rows = found.frame[found.frame["label"] == label]
        if rows.empty:
            continue
        lines.append(
            Line(
                rows["strength"].tolist(),
                (100 * rows["difference"]).tolist(),
                (100 * rows["low"]).tolist(),
                (100 * rows["high"]).tolist(),
                label=label,
                style=curve_style(index),
                hover=[
                    f"{format_difference(*values)} points"
                    for values in rows[["difference", "low", "high"]].itertuples(index=False)
                ],
            )
        )
    own = curve_style(list(found.summaries).index(found.baseline)).color
    panel = Panel(
        levels_axis(found.summaries),
        Axis("difference in accuracy", "percentage points"),
        (*lines, Reference(0.0, found.baseline, dash="solid", color=own)),
    )
    drawn = bool(found.frame["low"].notna().any())
    strength = common_strength(found.summaries)
    return Figure(
        title or f"Difference to {found.baseline} at the same {strength.symbol}",
        (panel,),
        f"{describe_settings(found.summaries)}; {'band: ' if drawn else ''}{found.describe_intervals()}",
        legend=Legend() if len(lines) > 1 else None,
    )
