"""Noise curves: measure, save, draw, tabulate and log them."""

from asr_dni.evaluation.callback import NoiseCurveCallback, metric_name
from asr_dni.evaluation.curve import CurveSummary, NoiseCurve, summarise_curves
from asr_dni.evaluation.figures import (
    draw_noise_curves,
    plotly_noise_curves,
    save_figure,
    save_noise_curve,
)
from asr_dni.evaluation.measuring import NoiseCurveMetric, measure_noise_curve
from asr_dni.evaluation.stacked import evaluate_population
from asr_dni.evaluation.sweep import count_passes
from asr_dni.evaluation.tables import noise_curve_markdown, noise_curve_table
from asr_dni.evaluation.wandb_log import PromptlessWandbLogger, make_wandb_logger
from asr_dni.evaluation.wandb_mode import check_wandb, resolve_wandb_mode

__all__ = [
    "CurveSummary",
    "NoiseCurve",
    "NoiseCurveCallback",
    "NoiseCurveMetric",
    "PromptlessWandbLogger",
    "check_wandb",
    "count_passes",
    "draw_noise_curves",
    "evaluate_population",
    "make_wandb_logger",
    "measure_noise_curve",
    "metric_name",
    "noise_curve_markdown",
    "noise_curve_table",
    "plotly_noise_curves",
    "resolve_wandb_mode",
    "save_figure",
    "save_noise_curve",
    "summarise_curves",
]
