"""The figure of noise curves over the SNR: networks compared where the noise is as strong as each one's own signal."""

import math

import numpy as np
import numpy.typing as npt

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.description import (
    Curves,
    as_summaries,
    common_chance,
    describe_intervals,
    describe_settings,
    format_snr,
)
from asr_dni.evaluation.curves.tables import format_accuracy
from asr_dni.evaluation.figures.noise_curves import ACCURACY, chance_line
from asr_dni.plotting import Axis, Figure, Legend, Line, Panel, Tick, curve_style

_STEPS = (1, 2, 3, 5, 6, 10, 20)
"""Distances of ticks, in dB."""


def is_known(snr_db: npt.ArrayLike) -> bool:
    """Return whether a curve's SNR is known at every strength, and finite at one at least."""
    snr = np.asarray(snr_db, dtype=float)
    return bool(not np.isnan(snr).any() and np.isfinite(snr).any())


def snr_figure(curves: Curves, title: str = "Accuracy against signal-to-noise ratio") -> Figure:
    """Specify the picture of accuracy against the SNR at the noisy products, most noise at the right.

    A network can escape a given sigma by larger signals; here it cannot. What was measured without noise stands at the
    left end, as "clean".

    Args:
        curves: curves, or summaries of several seeds, by their label.
        title: stands above the picture.

    Raises:
        UserError: there are no curves, they can't share an axis, or the SNR of one is not known.
    """
    summaries = as_summaries(curves)
    unknown = [label for label, summary in summaries.items() if not is_known(summary.frame["snr_db"])]
    if unknown:
        raise UserError(f"the SNR of {unknown[0]} is not known: show it over the strength of the noise")
    finite = [
        float(snr) for one in summaries.values() for snr in one.frame["snr_db"] if math.isfinite(float(snr))
    ]
    low, high = min(finite), max(finite)
    margin = 0.06 * (high - low or 1.0)
    clean = high + 1.6 * margin
    lines = []
    for index, (label, summary) in enumerate(summaries.items()):
        frame = summary.frame.sort_values("snr_db", ascending=False)
        lines.append(
            Line(
                [clean if math.isinf(snr) else float(snr) for snr in frame["snr_db"]],
                (100 * frame["accuracy"]).tolist(),
                (100 * frame["low"]).tolist(),
                (100 * frame["high"]).tolist(),
                label=label,
                style=curve_style(index),
                hover=[
                    f"{format_accuracy(*values)} % at SNR {format_snr(snr)} dB"
                    for *values, snr in frame[["accuracy", "low", "high", "snr_db"]].itertuples(index=False)
                ],
            )
        )
    chance = common_chance(summaries)
    step = next((step for step in _STEPS if (high - low) / step <= 8), 50)
    places = range(math.ceil(low / step) * step, math.floor(high) + 1, step)
    axis = Axis(
        "SNR at the noisy products",
        "dB",
        limits=(clean + margin / 2, low - margin / 2),
        ticks=(Tick(clean, "clean"), *(Tick(place, f"{place}".replace("-", "−")) for place in places)),
    )
    return Figure(
        title,
        (Panel(axis, ACCURACY, (*lines, *([chance_line(chance)] if chance is not None else []))),),
        f"{describe_settings(summaries)}; band: {describe_intervals(summaries)}",
        legend=Legend() if len(lines) > 1 else None,
    )
