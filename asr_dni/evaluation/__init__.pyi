from .callback import NoiseCurveCallback, metric_name
from .curve import CurveSummary, NoiseCurve, summarise_curves
from .figures import (
    draw_noise_curves,
    plotly_noise_curves,
    save_figure,
    save_noise_curve,
)
from .measuring import NoiseCurveMetric, measure_noise_curve
from .stacked import evaluate_population
from .sweep import count_passes
from .tables import noise_curve_markdown, noise_curve_table
from .wandb_log import PromptlessWandbLogger, make_wandb_logger
from .wandb_mode import check_wandb, resolve_wandb_mode

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
