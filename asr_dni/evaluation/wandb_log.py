"""Noise curves in Weights & Biases, without ever asking for a login.

Three things are logged for a curve:

- its numbers as scalars, one per level (the callback does that, through Lightning, for every logger);
- a table with a row per sigma and draw, and the picture as an interactive plotly chart, of this run alone;
- the curve as a series of history rows, ``noise_curve/<split>/accuracy`` over its own step
  ``noise_curve/<split>/sigma_infer``, set by ``define_metric``. Its panel is an ordinary line panel of the
  workspace: the curves of all selected runs overlay in it, and grouping runs shows the mean and spread over
  seeds, with nothing to set up by hand.

A run holds one series per split: a second one at the same sigmas would be joined with the first.
"""

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pytorch_lightning.loggers import WandbLogger

from asr_dni.errors import UserError
from asr_dni.evaluation.figures import plotly_noise_curves
from asr_dni.evaluation.noise_curve import NoiseCurve, curve_label

if TYPE_CHECKING:
    from wandb import Settings

WandbMode = Literal["online", "offline", "disabled", "shared"]


def _settings() -> "Settings":
    """Return W&B's settings from its files and the environment, without starting its service."""
    import wandb  # takes most of a second

    settings = wandb.Settings()
    settings.update_from_system_settings()
    settings.update_from_env_vars(dict(os.environ))
    return settings


def _has_login(settings: "Settings") -> bool:
    from wandb.sdk.lib.wbauth import read_netrc_auth, session_credentials

    return bool(
        settings.api_key
        or settings.identity_token_file
        or session_credentials(host=settings.base_url)
        or read_netrc_auth(host=settings.base_url)
    )


def resolve_wandb_mode(mode: WandbMode | None = None) -> WandbMode:
    """Return the mode to start W&B in so that it does not ask for a login.

    An explicit choice stands: the argument, else the environment's ``WANDB_MODE`` or ``wandb offline``'s
    settings file. Without one it is ``online`` where there is a login (``WANDB_API_KEY``, an identity token,
    netrc, or ``wandb login`` in this process), else ``offline``.

    Raises:
        UserError: ``online`` was chosen and there is no login, where W&B would ask for one; or the mode is
            unknown.
    """
    settings = _settings()
    chosen = mode or settings.mode if mode or _chose_mode(settings) else None
    if chosen == "dryrun":
        chosen = "offline"
    elif chosen == "run":
        chosen = "online"
    if chosen is None:
        return "online" if _has_login(settings) else "offline"
    if chosen not in ("online", "offline", "disabled", "shared"):
        raise UserError(f"W&B mode {chosen!r} is not known: give online, offline, disabled or shared")
    if chosen in ("online", "shared") and not _has_login(settings):
        raise UserError(
            f"W&B is set to {chosen}, but there is no login: run `wandb login`, set WANDB_API_KEY, or choose"
            " WANDB_MODE=offline"
        )
    return chosen


def _chose_mode(settings: "Settings") -> bool:
    return "mode" in settings.model_fields_set


class PromptlessWandbLogger(WandbLogger):
    """Lightning's ``WandbLogger``, offline where there is no login; it never asks for one.

    Args:
        project: name of the project in W&B.
        name: name of the run; ``None`` lets W&B make one up.
        save_dir: folder that W&B's ``wandb`` folder is made in.
        mode: ``online``, ``offline``, ``disabled``; ``None`` decides by :func:`resolve_wandb_mode`.
        **kwargs: further arguments of ``pytorch_lightning.loggers.WandbLogger`` and ``wandb.init``.

    Raises:
        UserError: see :func:`resolve_wandb_mode`.
    """

    def __init__(
        self,
        project: str = "asr-dni",
        name: str | None = None,
        save_dir: str = "runs",
        mode: WandbMode | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.pop("offline", False):
            mode = "offline"  # Lightning's own `offline` changes the environment of the whole process
        resolved = resolve_wandb_mode(mode)
        # wandb writes to a temporary folder, with a warning only, if this one does not exist.
        os.makedirs(save_dir, exist_ok=True)
        # W&B's service may be an older process with another working directory.
        save_dir = os.path.abspath(save_dir)
        super().__init__(name=name, save_dir=save_dir, project=project, mode=resolved, **kwargs)
        # An argument that Lightning still passes and wandb warns of.
        self._wandb_init.pop("anonymous", None)

    @property
    def mode(self) -> str:
        """The mode the run is or will be in."""
        return str(self._wandb_init["mode"])


def make_wandb_logger(
    project: str = "asr-dni", name: str | None = None, save_dir: str = "runs", **kwargs: Any
) -> PromptlessWandbLogger:
    """Return a W&B logger that is offline where there is no login, see :class:`PromptlessWandbLogger`."""
    return PromptlessWandbLogger(project=project, name=name, save_dir=save_dir, **kwargs)


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    """Drop what a chart can't show: NaN, and the infinite SNR without noise."""
    return {key: float(value) for key, value in values.items() if math.isfinite(value)}


def log_curve_table(logger: WandbLogger, curve: NoiseCurve, split: str) -> None:
    """Log a curve's table and its picture.

    Args:
        logger: the run; in distributed runs the main process's.
        curve: the curve.
        split: ``val`` or ``test``; keys are ``<split>/noise_curve_table`` and ``<split>/noise_curve_chart``.
    """
    import wandb

    frame = curve.frame.astype({"draw": int, "n_clips": int})
    # JSON has no infinity: an absent SNR stands for both no noise and not known, as sigma tells.
    rows: list[Any] = [
        [None if isinstance(value, float) and not math.isfinite(value) else value for value in row]
        for row in frame.astype(object).to_numpy().tolist()
    ]
    table = wandb.Table(columns=[str(column) for column in frame.columns], data=rows)
    chart = wandb.Plotly(plotly_noise_curves({curve_label(curve.settings): curve}))
    logger.experiment.log({f"{split}/noise_curve_table": table, f"{split}/noise_curve_chart": chart})


def log_curve_series(logger: WandbLogger, curve: NoiseCurve, split: str) -> None:
    """Log a curve as a series over sigma, so that the curves of several runs overlay in one panel.

    Args:
        logger: the run; in distributed runs the main process's.
        curve: the curve; its interval is over draws.
        split: ``val`` or ``test``; keys are ``noise_curve/<split>/`` and ``sigma_infer`` (the step),
            ``accuracy``, ``accuracy_low``, ``accuracy_high``, ``loss``, ``snr_db``.
    """
    run, prefix = logger.experiment, f"noise_curve/{split}"
    step = f"{prefix}/sigma_infer"
    run.define_metric(step, hidden=True, summary="none")
    # By full name: Lightning's own define_metric("*") would win over a pattern.
    for name in ("accuracy", "accuracy_low", "accuracy_high", "loss", "snr_db"):
        run.define_metric(f"{prefix}/{name}", step_metric=step, step_sync=False, summary="none")
    for row in curve.summary().frame.to_dict("records"):
        values = {
            step: row["sigma"],
            f"{prefix}/accuracy": row["accuracy"],
            f"{prefix}/accuracy_low": row["low"],
            f"{prefix}/accuracy_high": row["high"],
            f"{prefix}/loss": row["loss"],
            f"{prefix}/snr_db": row["snr_db"],
        }
        run.log(_finite(values))
