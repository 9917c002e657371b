"""A member's results, as the ledger takes them."""

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from asr_dni.data import SequenceData
from asr_dni.evaluation import NoiseCurve
from asr_dni.study.plan import Evaluation, PlannedMember, at_trained_sites, code_version
from asr_dni.study.reading import Study
from asr_dni.study.stated_levels import inference_columns


def result_rows(
    study: Study,
    member: PlannedMember,
    evaluation: Evaluation,
    curve: NoiseCurve,
    data: SequenceData,
    train_seconds: float,
) -> pd.DataFrame:
    """Return a member's rows for the ledger, see :data:`asr_dni.study.ledger_file.COLUMNS`."""
    split = study.settings.evaluation.split
    frame = curve.frame
    sweep = evaluation.sweep
    return pd.DataFrame(
        {
            "member": evaluation.result,
            "training": member.training,
            "study": study.settings.name,
            "data": data.identity,
            "protocol": data.protocol_of(split),
            "split": split,
            "n_clips": frame["n_clips"].astype(int),
            "cell": member.cell,
            "units": member.network.units,
            "layers": member.network.layers,
            "bidirectional": member.network.bidirectional,
            "convolutions": str(member.network.convolutions or ""),
            "schedule": member.schedule,
            "sigma_train": member.sigma_train,
            "drawn": member.annealing.get("drawn", "no"),
            "train_scale": member.noise.scale if member.noise.hardware is None else "",
            "train_hardware": "" if at_trained_sites(sweep, member.noise) else _text(member.noise.settings()),
            **inference_columns(sweep.noise.hardware, sweep.strength),
            "votes": evaluation.votes,
            "compensation": "" if evaluation.compensation is None else str(evaluation.compensation),
            "seed": member.seed,
            "data_seed": member.data_seed,
            "epochs": study.settings.epochs,
            "strength": frame["strength"].astype(float),
            "chip": frame["chip"].astype(int),
            "draw": frame["draw"].astype(int),
            "accuracy": frame["accuracy"].astype(float),
            "correct": (frame["accuracy"] * frame["n_clips"]).round().astype(int),
            "snr_db": frame["snr_db"].astype(float),
            "n_classes": len(data.label_names),
            "code_version": code_version(),
            "configuration": evaluation.configuration,
            "train_seconds": float(train_seconds),
        }
    )


def _text(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
