"""Figures of one clip: its samples, what the front end makes of it, and how a decision on it comes about."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor

from asr_dni.features import MFCC, FrontEnd, LogMel
from asr_dni.inference.over_time import DecisionOverTime
from asr_dni.plotting import Axis, ColorScale, Figure, HeatMap, Legend, Line, Panel, Style, Tick, curve_style
from asr_dni.plotting.style import RED_BLUE, VIRIDIS

_POINTS = 600
"""Of a waveform: as many as a panel has places for; each is the lowest and the highest sample of a stretch."""

_NORMALISED = (-3.0, 3.0)
_LINES = 8
"""Labels that a panel of lines shows: the most probable ones at any time."""

_BANDS = 3
"""Of them those whose passes are shown as a band, too; more would hide each other."""


def waveform_panel(samples: Tensor, sample_rate: int) -> Panel:
    """Specify the panel of a recording's samples.

    Args:
        samples: ``(S,)`` in [-1, 1].
        sample_rate: samples per second.
    """
    values = samples.numpy()
    stretch = max(1, math.ceil(len(values) / _POINTS))
    stretches = np.pad(values, (0, -len(values) % stretch), mode="edge").reshape(-1, stretch)
    times = (np.arange(len(stretches)) + 0.5) * stretch / sample_rate
    ends = np.stack((stretches.min(1), stretches.max(1)), 1)
    ends[1::2] = ends[1::2, ::-1]  # from the highest to the lowest, and back in the next one
    largest = max(0.05, 1.05 * float(np.abs(values).max(initial=0.0)))
    style = Style("#0072b2", "none", width=1.2)
    line = Line(_rounded(times.repeat(2)), _rounded(ends.reshape(-1)), style=style)
    return Panel(
        Axis("time", "s", limits=(0.0, len(values) / sample_rate)),
        Axis("sample", "full scale 1", limits=(-largest, largest)),
        (line,),
        "Waveform",
    )


def features_panel(
    features: Tensor, seconds: float | None, front_end: FrontEnd | None, normalised: bool
) -> Panel:
    """Specify the panel of a clip's features as the network gets them.

    Args:
        features: ``(T, F)``.
        seconds: length of the clip; None: the data are no recordings, and T are steps.
        front_end: what made them; None: nothing did.
        normalised: whether they are in standard deviations from the training split's means.
    """
    values = features.T.numpy()
    if normalised:
        label = "standard deviations from mean"
        colors = ColorScale(RED_BLUE, _NORMALISED, label, extend="both")
    else:
        low, high = float(values.min()), float(values.max())
        colors = ColorScale(VIRIDIS, (low, high if high > low else low + 1.0), "feature")
    return Panel(
        _time_axis(values.shape[1], seconds),
        Axis(_feature_name(front_end), ticks=_places(values.shape[0])),
        (HeatMap([_rounded(row, 3) for row in values], colors),),
        _title_of(front_end),
    )


def decision_figure(
    decision: DecisionOverTime,
    seconds: float | None,
    title: str,
    note: str = "",
    form: str = "lines",
) -> Figure:
    """Specify the figure of posteriors over time: the most probable labels as lines with bands, or all as a heat map.

    Args:
        decision: the passes.
        seconds: length of the clip; None: the data are no recordings, and frames are steps.
        title: of the figure.
        note: small print.
        form: ``lines`` or ``map``.

    Raises:
        ValueError: there is no such form.
    """
    if form not in ("lines", "map"):
        raise ValueError(f"form is {form!r}: lines or map")
    panel = _map_of(decision, seconds) if form == "map" else _lines_of(decision, seconds)
    legend = Legend() if form == "lines" else None
    return Figure(title, (panel,), note, columns=1, panel_size=(8.4, 4.2), legend=legend)


def _lines_of(decision: DecisionOverTime, seconds: float | None) -> Panel:
    mean = decision.mean.numpy()
    several = len(decision.posteriors) > 1
    low, high = decision.posteriors.amin(0).numpy(), decision.posteriors.amax(0).numpy()
    peaks = decision.mean.amax(0) + decision.mean[-1]
    shown = peaks.argsort(descending=True)[:_LINES].tolist()
    banded = shown[:_BANDS] if several else []
    times = _end_times(len(mean), seconds)
    lines = []
    for label in range(mean.shape[1]):
        if label not in shown:
            continue
        name = decision.label_names[label]
        style = _line_style(label, name == decision.label)
        lines.append(
            Line(
                times,
                _rounded(100 * mean[:, label], 2),
                _rounded(100 * low[:, label], 2) if label in banded else (),
                _rounded(100 * high[:, label], 2) if label in banded else (),
                label=name,
                style=style,
            )
        )
    axis = (
        Axis("time", "s", limits=(0.0, seconds))
        if seconds is not None
        else Axis("step", limits=(0.0, float(len(mean))))
    )
    return Panel(axis, Axis("posterior", "%", limits=(0.0, 100.0)), tuple(lines))


def _map_of(decision: DecisionOverTime, seconds: float | None) -> Panel:
    mean = 100 * decision.mean.numpy()
    names = decision.label_names[::-1]
    colors = ColorScale(VIRIDIS, (0.0, 100.0), "mean posterior (%)")
    return Panel(
        _time_axis(len(mean), seconds),
        Axis(scale="category", categories=names),
        (HeatMap([_rounded(row, 2) for row in mean.T[::-1]], colors),),
    )


def _line_style(label: int, decided: bool) -> Style:
    """Return a label's style, the same whatever is decided but for the width."""
    own = curve_style(label)
    return Style(own.color, "none", own.dash, 3.0 if decided else 1.6)


def _end_times(n_frames: int, seconds: float | None) -> list[float]:
    length = float(n_frames) if seconds is None else seconds
    return [round(length * (frame + 1) / n_frames, 5) for frame in range(n_frames)]


def _time_axis(n_frames: int, seconds: float | None) -> Axis:
    """Return the horizontal axis of a heat map over frames, whose places are 0, 1, ..."""
    limits = (-0.5, n_frames - 0.5)
    if seconds is None:
        ticks = tuple(
            Tick(float(place), str(place + 1)) for place in range(0, n_frames, max(1, n_frames // 8))
        )
        return Axis("step", limits=limits, ticks=ticks)
    step = next(step for step in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0, 600.0) if seconds / step <= 8)
    marks = np.arange(0.0, seconds + step / 1000, step)
    ticks = tuple(Tick(float(mark / seconds * n_frames - 0.5), f"{mark:.4g}") for mark in marks)
    return Axis("time", "s", limits=limits, ticks=ticks)


def _places(number: int) -> tuple[Tick, ...]:
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000, 100_000) if number / step <= 8)
    return tuple(Tick(float(place), str(place)) for place in range(0, number, step))


def _feature_name(front_end: FrontEnd | None) -> str:
    if isinstance(front_end, MFCC):
        return "coefficient and its deltas" if front_end.deltas else "coefficient"
    if isinstance(front_end, LogMel):
        return "mel band and its deltas" if front_end.deltas else "mel band"
    return "feature"


def _title_of(front_end: FrontEnd | None) -> str:
    if front_end is None:
        return "What the network gets"
    return "Log-mel energies" if type(front_end) is LogMel else type(front_end).__name__


def _rounded(values: Iterable[float], digits: int = 4) -> list[float]:
    return [round(float(value), digits) for value in values]


def clip_figure(panels: Sequence[Panel], title: str, note: str = "") -> Figure:
    """Specify the figure of a clip's panels, one below the other on the same time."""
    return Figure(title, tuple(panels), note, columns=1, panel_size=(8.4, 2.6))
