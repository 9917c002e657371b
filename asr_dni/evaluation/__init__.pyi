from .curves.curve import CurveSummary, NoiseCurve, summarise_curves
from .curves.tables import noise_curve_markdown, noise_curve_table
from .figures.noise_curves import (
    draw_noise_curves,
    plotly_noise_curves,
    save_figure,
    save_noise_curve,
)
from .loggers.callback import NoiseCurveCallback, metric_name
from .loggers.wandb_log import PromptlessWandbLogger, make_wandb_logger
from .loggers.wandb_mode import check_wandb, resolve_wandb_mode
from .measurement.measuring import NoiseCurveMetric, measure_noise_curve
from .measurement.stacked import evaluate_population
from .measurement.sweep import count_passes

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
