"""At which level of each hardware a study wants to be shown: from its settings, without reading all of them."""

import json
from pathlib import Path
from typing import Any

from asr_dni.bounded_yaml import load_yaml
from asr_dni.hardware_files import read_hardware
from asr_dni.identity import evaluation_settings
from asr_dni.noise import Hardware, Strength
from asr_dni.study.evaluation_settings import EvaluatedHardware
from asr_dni.study.transfer import OF_INFERENCE, Inferred


def inference_columns(hardware: Hardware, strength: Strength) -> dict[str, Any]:
    """Return what a ledger notes of a hardware that members are evaluated on.

    Args:
        hardware: which.
        strength: the axis, with its unit.
    """
    noted = evaluation_settings(hardware, strength)
    return {
        "hardware": json.dumps(noted["hardware"], sort_keys=True) if "hardware" in noted else "",
        "scale": noted.get("scale", ""),
        "sites": "+".join(sorted(hardware.sites)),
        "arrays": hardware.arrays,
        "axis": strength.path,
        "unit": strength.unit,
    }


def stated_levels(study_file: Path) -> dict[Inferred, float]:
    """Return the levels at which matrices of training by inference hardware are to be shown.

    Args:
        study_file: a study's settings; where there are none, nothing is stated.

    Raises:
        UserError: they are not valid.
    """
    try:
        settings = load_yaml(study_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    evaluation = settings.get("evaluation") if isinstance(settings, dict) else None
    several = evaluation.get("hardwares") if isinstance(evaluation, dict) else None
    stated = {}
    for index, one in enumerate(several or []):
        entry = EvaluatedHardware(**one)
        if entry.at is not None:
            where = f"evaluation.hardwares[{index}]"
            hardware = read_hardware(entry.hardware, f"{where}.hardware")
            columns = inference_columns(hardware, entry.axis(hardware))
            stated[tuple(columns[name] for name in OF_INFERENCE)] = float(entry.at)
    return stated
