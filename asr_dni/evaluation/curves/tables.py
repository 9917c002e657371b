"""Tables of noise curves: for the terminal with rich, for a README in Markdown."""

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from rich import box
from rich.table import Table
from rich.text import Text

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import CurveSummary
from asr_dni.evaluation.curves.description import (
    Curves,
    as_summaries,
    common_snr,
    common_strength,
    describe_intervals,
    describe_settings,
    format_snr,
)


def _lopsided(accuracy: float, low: float, high: float) -> bool:
    return abs(100 * (2 * accuracy - low - high)) >= 0.05


def format_accuracy(accuracy: float, low: float, high: float, bounds: bool = False) -> str:
    """Return percent with the interval: "92.1 ± 0.4", or "99.5 [98.2, 99.9]" where it is lopsided.

    Args:
        accuracy: from 0 to 1.
        low: lower end of the interval; NaN where there is none.
        high: upper end.
        bounds: whether to give the ends in any case, as beside others that are lopsided.
    """
    if math.isnan(low) or math.isnan(high):
        return f"{100 * accuracy:.1f}"
    if not bounds and not _lopsided(accuracy, low, high):
        return f"{100 * accuracy:.1f} ± {100 * (high - accuracy):.1f}"
    return f"{100 * accuracy:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def format_midpoint(summary: CurveSummary) -> str:
    """Return a curve's midpoint: "> 4" where it is beyond what was measured, "–" where it is not defined."""
    """Return the midpoint with two digits, "> 4" where it is beyond what was measured, "–" where there is none."""
    try:
        midpoint = summary.midpoint()
    except UserError:
        return "–"
    return f"> {summary.frame['strength'].max():g}" if midpoint is None else f"{midpoint:.2f}"


def _describe(summaries: Mapping[str, CurveSummary]) -> str:
    """Return what stands below a table: how it was measured, and what its last row is."""
    strength = common_strength(summaries)
    parts = [describe_settings(summaries), describe_intervals(summaries)]
    if _has_midpoints(summaries):
        at_zero = [
            summary.frame.iloc[0] for summary in summaries.values() if summary.frame["strength"].iloc[0] == 0
        ]
        # Other parts of a hardware may act where this strength is 0.
        clean = all(math.isinf(row["snr_db"]) for row in at_zero)
        parts.append(
            f"midpoint: the {strength.symbol} at which accuracy has fallen half-way from its"
            f" {'clean value' if clean else 'value at 0'} to chance"
        )
    return "; ".join(parts)


def _has_midpoints(summaries: Mapping[str, CurveSummary]) -> bool:
    """Return whether a midpoint can be asked for: of other strengths than sigma only where a curve begins at 0."""
    if common_strength(summaries).is_sigma:
        return True
    return any(float(summary.frame["strength"].min()) == 0 for summary in summaries.values())


_OVER = ("over draws", "over chips")
"""Columns of the intervals that a curve of several chips has beside the one that is shown with its accuracies."""

_Cell: TypeAlias = tuple[str, str]
"""A cell's text, and the SNR that belongs to it where it is not shared by all curves."""


def _cells(
    summaries: Mapping[str, CurveSummary], own_snr_columns: bool
) -> tuple[list[str], list[list[_Cell]], list[str]]:
    """Return header, a row of cells per strength, and the row of midpoints.

    An SNR that all curves share has a column. Otherwise each curve's own has a column of its own, or stays
    with the cell. A single curve has its loss as well, and one of several chips its intervals over draws and over
    chips.
    """
    shared = common_snr(summaries)
    strength = common_strength(summaries)
    header = [strength.symbol] + (["SNR / dB"] if shared is not None else [])
    midpoints = ["midpoint"] + ([""] if shared is not None else [])
    measured = sorted({float(level) for summary in summaries.values() for level in summary.frame["strength"]})
    rows: list[list[_Cell]] = [
        [(f"{level:g}", "")] + ([(format_snr(shared[level]), "")] if shared is not None else [])
        for level in measured
    ]
    for label, summary in summaries.items():
        own = shared is None and bool(summary.frame["snr_db"].map(math.isfinite).any())
        extra = ["SNR / dB"] if own and own_snr_columns else []
        if len(summaries) == 1:
            of_chips = _OVER if int(summary.frame["n_chips"].max()) > 1 else ()
            extra += ["loss", *of_chips]
        header += [label, *extra]
        midpoints += [format_midpoint(summary), *([""] * len(extra))]
        levels = {row["strength"]: row for row in summary.frame.to_dict("records")}
        intervals = {value: (its["accuracy"], its["low"], its["high"]) for value, its in levels.items()}
        bounds = any(_lopsided(*its) for its in intervals.values())
        for value, row in zip(measured, rows, strict=True):
            if value not in levels:
                row += [("", "")] * (1 + len(extra))
                continue
            level = levels[value]
            snr = format_snr(level["snr_db"]) if own else ""
            row.append((format_accuracy(*intervals[value], bounds), snr))
            shown = {"SNR / dB": snr, "loss": f"{level['loss']:.3f}", **_intervals_over(level)}
            row += [(shown[name], "") for name in extra]
    return header, rows, midpoints


def _intervals_over(level: Mapping[Any, Any]) -> dict[str, str]:
    """Return the intervals over draws and over chips, in percent, by their columns."""
    bounds = ((level["draws_low"], level["draws_high"]), (level["chips_low"], level["chips_high"]))
    texts = ("–" if math.isnan(low) else f"[{100 * low:.1f}, {100 * high:.1f}]" for low, high in bounds)
    return dict(zip(_OVER, texts, strict=True))


def noise_curve_table(curves: Curves, title: str = "Accuracy (%) under computation noise") -> Table:
    """Return a table for the terminal: accuracy with its interval and SNR per level, and the midpoint.

    Args:
        curves: curves, or summaries of several seeds, by their label.
        title: stands above the table.

    Raises:
        UserError: no curves, or curves of different scales.
    """
    summaries = as_summaries(curves)
    several = len(summaries) > 1
    header, rows, midpoints = _cells(summaries, own_snr_columns=not several)
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption=_describe(summaries),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=several,
        pad_edge=False,
    )
    for name in header:
        # Text, not str: a label is data, not rich's markup.
        table.add_column(
            Text(name, overflow="fold"),
            justify="right",
            style="dim" if name in ("SNR / dB", "loss") else None,
        )
    for row in rows:
        cells = []
        for text, snr in row:
            cell = Text(text)
            if several and snr:
                cell.append(f"\n{snr} dB", style="dim")
            cells.append(cell)
        table.add_row(*cells, end_section=row is rows[-1])
    if _has_midpoints(summaries):
        table.add_row(*midpoints, style="italic")
    return table


def noise_curve_texts(curves: Curves) -> tuple[list[str], list[list[str]], str]:
    """Return header, rows and note of the same table as texts, the midpoints in the last row.

    Args:
        curves: curves, or summaries of several seeds, by their label.

    Raises:
        UserError: no curves, or curves of different scales.
    """
    summaries = as_summaries(curves)
    header, rows, midpoints = _cells(summaries, own_snr_columns=True)
    texts = [[text for text, _ in row] for row in rows]
    return header, texts + ([midpoints] if _has_midpoints(summaries) else []), _describe(summaries)


def noise_curve_markdown(curves: Curves) -> str:
    """Return the same table in Markdown, with the line on how it was measured below.

    Args:
        curves: curves, or summaries of several seeds, by their label.

    Raises:
        UserError: no curves, or curves of different scales.
    """
    header, rows, note = noise_curve_texts(curves)
    lines = [header, ["---:"] * len(header), *rows]
    text = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"{text}\n\nAccuracy in %; {note}.\n"
