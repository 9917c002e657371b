"""A study in Weights & Biases: a run for each member, and one for the whole, all of one group.

They are made from the ledger, not while networks are trained: a study that was run without W&B, on a cluster without a
network or in parts, is logged whenever it is asked for, and a member once.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pytorch_lightning.loggers import WandbLogger

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import NoiseCurve
from asr_dni.evaluation.loggers.wandb_log import log_curve_series, make_wandb_logger
from asr_dni.evaluation.loggers.wandb_mode import WandbMode, working_wandb_mode
from asr_dni.noise import Strength
from asr_dni.study.figures.maps import matrices_figure
from asr_dni.study.figures.transfer import transfer_figure
from asr_dni.study.figures.whole_study import named_transfers
from asr_dni.study.findings import find_in
from asr_dni.study.folder import StudyFolder
from asr_dni.study.ledger import Ledger
from asr_dni.study.ledger_file import COLUMNS
from asr_dni.study.matrix import Matrix
from asr_dni.study.transfer import told_by_transfer

_OF_A_ROW = ("axis", "unit", "strength", "chip", "draw", "accuracy", "correct", "snr_db")
_NO_SETTINGS = ("configuration", "recorded_at", "train_seconds", "code_version")


def log_study(
    folder: Path,
    project: str | None = None,
    mode: WandbMode | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Any]:
    """Log a study's results to W&B.

    Each member is a run of job type ``member``: its settings, and its noise curve as a series and key figures, which
    overlay with those of other runs. The whole is a run of job type ``study``: the matrix as table, curves and heat
    map, and the findings. Their group is the study's name.

    Args:
        folder: of the study.
        project: see :class:`~asr_dni.evaluation.loggers.wandb_log.PromptlessWandbLogger`.
        mode: see there.
        progress: is called with the number of members that are done, and of all.

    Returns:
        The runs that were made, the whole's last; none where every member was logged before, or W&B is disabled.

    Raises:
        UserError: the study holds no results, or see
            :func:`~asr_dni.evaluation.loggers.wandb_mode.resolve_wandb_mode`.
    """
    ledger = StudyFolder(folder).ledger
    if not ledger.members():
        raise UserError(f"{folder} holds no results yet: asr-dni study run FILE makes them")
    resolved = working_wandb_mode(mode)  # asked once, not by every member
    if resolved == "disabled":
        return []
    frame = ledger.frame()
    name = str(frame["study"].iloc[0])
    members = dict(list(frame.groupby("member", sort=True)))

    def begin(run_name: str, job_type: str, identity: str | None = None) -> WandbLogger:
        import wandb

        return make_wandb_logger(
            project,
            run_name,
            save_dir=str(folder),
            mode=resolved,
            id=identity,
            group=name,
            job_type=job_type,
            settings=wandb.Settings(silent=True),
        )

    runs: list[Any] = []
    for done, (member, rows) in enumerate(members.items()):
        if progress is not None:
            progress(done, len(members))
        if not list((folder / "wandb").glob(f"*run-*-{member!s}")):
            runs.append(_log_member(begin, str(member), rows))
    if progress is not None:
        progress(len(members), len(members))
    if runs:
        runs.append(_log_whole(begin(f"{name}: {len(members)} members", "study"), ledger))
    return runs


def _log_member(begin: Callable[..., WandbLogger], member: str, rows: pd.DataFrame) -> Any:
    first = rows.iloc[0]
    cell, units, sigma, seed = (_plain(first[key]) for key in ("cell", "units", "sigma_train", "seed"))
    title = f"{cell} {units}, σ_train {sigma:g}, seed {seed}"
    logger = begin(title, "member", member)
    run = logger.experiment
    own = {key: _plain(first[key]) for key in COLUMNS if key not in (*_OF_A_ROW, *_NO_SETTINGS)}
    run.config.update({**own, "configuration": json.loads(first.configuration)})
    run.summary["sigma_train"] = sigma
    run.summary["train_seconds"] = float(first.train_seconds)
    curve = _curve(rows, {"seed": seed, "sigma_train": sigma})
    log_curve_series(logger, curve, "val" if first.split == "validation" else "test")
    run.finish()
    return run


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _curve(rows: pd.DataFrame, settings: Mapping[str, Any]) -> NoiseCurve:
    """Return a member's results as a noise curve; a ledger has no losses."""
    first = rows.iloc[0]
    strength = Strength(first.axis, first.unit)
    columns = rows[["strength", "chip", "draw", "snr_db", "accuracy", "n_clips"]].assign(loss=float("nan"))
    own = {"strength": strength.as_dict(), "n_classes": int(first.n_classes)}
    return NoiseCurve(columns, {**own, **settings})


def _log_whole(logger: WandbLogger, ledger: Ledger) -> Any:
    import wandb

    from asr_dni.plotting.with_plotly import render

    run = logger.experiment
    findings = find_in(ledger)
    matrices, labels = findings.matrices, findings.labels
    cells = pd.concat([_cells(matrix, label) for matrix, label in zip(matrices, labels, strict=True)])
    found: dict[str, Any] = {"study/matrix": wandb.Table(dataframe=cells.reset_index(drop=True))}
    for name, transfer in named_transfers(findings):
        found[f"study/transfer{name}"] = wandb.Plotly(render(transfer_figure(transfer)))
    for matrix, label in zip(matrices, labels, strict=True):
        if told_by_transfer(matrix, findings.transfers):
            continue
        key = f"-{label}" if len(matrices) > 1 else ""
        found[f"study/curves{key}"] = wandb.plot.line_series(
            xs=[float(level) for level in matrix.levels],
            ys=[row.tolist() for row in matrix.mean],
            keys=[f"{matrix.train_symbol} {matrix.train_text(level)}" for level in matrix.sigma_train],
            title=f"{label}: accuracy, mean over seeds".removeprefix(": "),
            xname=matrix.strength.label,
        )
        # W&B has no heat map of its own with axes that are not "actual" and "predicted".
        found[f"study/heat_map{key}"] = wandb.Plotly(render(matrices_figure([matrix])))
    text = findings.text()
    found["study/findings"] = wandb.Table(
        columns=["finding"], data=[[line] for line in text.splitlines() if line]
    )
    run.log(found)
    run.config.update({"members": len(ledger.members())})
    run.finish()
    return run


def _cells(matrix: Matrix, label: str) -> pd.DataFrame:
    """Return a matrix as a table, a row per (sigma_train, strength)."""
    low, high = matrix.interval()
    return pd.DataFrame(
        [
            {
                "setting": label,
                "sigma_train": float(train),
                matrix.strength.name: float(level),
                "accuracy": matrix.mean[row, column],
                "low": low[row, column],
                "high": high[row, column],
                "seeds": int(matrix.n_seeds[row, column]),
            }
            for row, train in enumerate(matrix.sigma_train)
            for column, level in enumerate(matrix.levels)
        ]
    )
