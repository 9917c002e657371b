"""Figures of a training, from its ``metrics.csv``: learning curves, the schedules of its noise and learning rate."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import strength_of_training
from asr_dni.evaluation.figures.noise_curves import ACCURACY
from asr_dni.noise import Strength
from asr_dni.plotting import Axis, Figure, Legend, Line, Panel, Style
from asr_dni.plotting.style import GREY, MARKERS, ordered_colors

_WATCHED = re.compile(r"val/(?P<quantity>accuracy|loss)@(?:(?P<axis>[a-z0-9_]+)=)?(?P<level>[^=@/]+)")
_TRAINING = Style(GREY, "none", "dash", 1.6)
_VALIDATION = Style("#000000", "circle", "solid", 1.8, 4.0)
_RATE = re.compile(r"learning_rate|lr-.+")
"""Our own name, and those of Lightning's ``LearningRateMonitor``."""

_MOST_MARKERS = 40


def epochs_of(metrics: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return how many epochs were done when each row was logged, as a number with a fraction within an epoch.

    Epochs end where ``train/loss`` is logged; between, every step takes as long, and after the last one as in it.

    Args:
        metrics: columns ``epoch``, ``step`` and others; a row each time something was logged, R.

    Returns:
        ``(R,)``; NaN in all rows where no epoch has ended.

    Raises:
        UserError: a column is missing.
    """
    _check(metrics)
    steps = metrics["step"].to_numpy(dtype=float) + 1
    if "train/loss" not in metrics:
        return np.full(len(metrics), math.nan)
    ended = metrics[metrics["train/loss"].notna()].groupby("epoch")["step"].max()
    if ended.empty:
        return np.full(len(metrics), math.nan)
    at = np.array([0.0, *(ended.to_numpy(dtype=float) + 1)])
    done = np.array([0.0, *(ended.index.to_numpy(dtype=float) + 1)])
    last = (done[-1] - done[-2]) / ((at[-1] - at[-2]) or 1.0)
    inside: npt.NDArray[np.float64] = np.interp(steps, at, done)
    return np.where(steps > at[-1], done[-1] + (steps - at[-1]) * last, inside)


def watched_levels(metrics: pd.DataFrame, quantity: str = "accuracy") -> dict[str, tuple[str, float]]:
    """Return the strengths that were measured at every validation.

    Args:
        metrics: see :func:`epochs_of`.
        quantity: ``accuracy`` or ``loss``.

    Returns:
        By column, ascending in the strength: the name of the strength (``""`` for sigma), and its value.
    """
    found = {}
    for name in metrics.columns:
        match = _WATCHED.fullmatch(str(name))
        if match and match["quantity"] == quantity:
            try:
                level = float(match["level"])
            except ValueError:
                continue
            found[str(name)] = (match["axis"] or "", level)
    return dict(sorted(found.items(), key=lambda item: item[1]))


def learning_curves_figure(metrics: pd.DataFrame, title: str = "Learning curves", note: str = "") -> Figure:
    """Specify the pictures of a training: loss and accuracy over epochs, of training, validation and under noise.

    The training's own numbers are those of its noisy passes, with augmented clips and dropout; validation is without
    noise, and under each strength that was watched.

    Args:
        metrics: what ``metrics.csv`` holds, see :func:`epochs_of`; also of a run that still goes on.
        title: stands above.
        note: small print, before that of the figure.

    Raises:
        UserError: a column is missing, or no loss and no accuracy was logged.
    """
    x, at = _over(metrics)
    panels = []
    for quantity, factor, axis in (
        ("loss", 1.0, Axis("loss", "cross entropy, nats")),
        ("accuracy", 100.0, ACCURACY),
    ):
        lines = [
            line
            for name, label, style in (
                (f"train/{quantity}", "training", _TRAINING),
                (f"val/{quantity}", "validation, clean", _VALIDATION),
            )
            if (line := _line(metrics, name, at, factor, label, style)) is not None
        ]
        watched = watched_levels(metrics, quantity)
        noisy = {name: one for name, one in watched.items() if one != ("", 0.0)}
        for place, (name, color) in enumerate(zip(noisy, ordered_colors(max(len(noisy), 1)), strict=False)):
            axis_name, level = noisy[name]
            style = Style(color, MARKERS[(place + 1) % len(MARKERS)], "solid", 1.6, 4.0)
            label = f"validation, {axis_name.replace('_', ' ') or 'σ_infer'} = {level:g}"
            line = _line(metrics, name, at, factor, label, style)
            lines += [] if line is None else [line]
        if lines:
            panels.append(Panel(x, axis, tuple(lines), quantity))
    if not panels:
        raise UserError("no loss and no accuracy was logged yet: there are no learning curves to show")
    own = "training: mean over the steps of an epoch, under its noise, with augmentation and dropout"
    return Figure(
        title, tuple(panels), f"{note}; {own}" if note else own, 2, (4.6, 3.4), Legend() if panels else None
    )


def schedules_figure(
    metrics: pd.DataFrame,
    strength: Strength | Mapping[str, Any] | None = None,
    title: str | None = None,
    note: str = "",
) -> Figure:
    """Specify the pictures of what a training was steered by: the strength of its noise and its learning rate.

    Args:
        metrics: what ``metrics.csv`` holds, see :func:`epochs_of`.
        strength: what ``sigma_train`` is a value of, or the settings of a noise curve, which say it; ``None``: sigma.
        title: stands above; ``None``: what is shown, over the training.
        note: small print.

    Raises:
        UserError: a column is missing, or neither was logged.
    """
    x, at = _over(metrics)
    if not isinstance(strength, Strength):
        strength = strength_of_training(strength or {})
    panels = []
    line = _line(metrics, "sigma_train", at, 1.0, "", Style("#d55e00", "none"))
    if line is not None:
        axis = Axis(f"training noise {strength.symbol_in_training}", strength.measured_in)
        # A schedule that stays at 0 has an axis all the same.
        top = max((value for value in line.y if math.isfinite(value)), default=0.0)
        limits = (-0.04 * (top or 1.0), 1.05 * (top or 1.0)) if strength.is_sigma else None
        panels.append(Panel(x, Axis(axis.label, axis.unit, limits=limits), (line,), "noise"))
    rates = [name for name in metrics.columns if _RATE.fullmatch(str(name))]
    lines = [
        line
        for name, color in zip(rates, ordered_colors(max(len(rates), 1)), strict=False)
        if (line := _line(metrics, name, at, 1.0, str(name) if len(rates) > 1 else "", Style(color, "none")))
    ]
    if lines:
        panels.append(Panel(x, Axis("learning rate"), tuple(lines), "learning rate"))
    if not panels:
        raise UserError("neither the training's noise nor its learning rate was logged yet")
    if title is None:
        title = f"{' and '.join(panel.title for panel in panels).capitalize()} over the training"
    return Figure(title, tuple(panels), note, 2, (4.6, 3.0), Legend() if len(lines) > 1 else None)


def _check(metrics: pd.DataFrame) -> None:
    missing = [name for name in ("epoch", "step") if name not in metrics]
    if missing:
        raise UserError(f"the metrics of the run have no column {' and '.join(missing)}")


def _over(metrics: pd.DataFrame) -> tuple[Axis, Sequence[float]]:
    """Return the horizontal axis and where on it each row is: epochs, or steps where none has ended yet."""
    epochs = epochs_of(metrics)
    if np.isnan(epochs).any():
        return Axis("steps"), (metrics["step"].to_numpy(dtype=float) + 1).tolist()
    return Axis("epochs"), epochs.tolist()


def _line(
    metrics: pd.DataFrame, name: str, at: Sequence[float], factor: float, label: str, style: Style
) -> Line | None:
    """Return a column as a line, where it has any number; with markers where these are few."""
    if name not in metrics:
        return None
    values = pd.to_numeric(metrics[name], errors="coerce").to_numpy(dtype=float)
    there = np.isfinite(values)
    if not there.any():
        return None
    points = sorted(zip(np.asarray(at)[there].tolist(), (factor * values[there]).tolist(), strict=True))
    if len(points) == 1 and style.marker == "none":
        style = Style(style.color, "circle", style.dash, style.width, style.size)
    if len(points) > _MOST_MARKERS:
        style = Style(style.color, "none", style.dash, style.width, style.size)
    return Line([x for x, _ in points], [y for _, y in points], label=label, style=style)
