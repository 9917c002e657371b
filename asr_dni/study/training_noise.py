"""What a study's trainings were under, as the ledger's ``train_hardware`` and ``train_scale`` note it."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.description import describe_training, name_hardware
from asr_dni.identity import hardware_at
from asr_dni.noise import Strength


def strength_of_training(key: Mapping[str, Any]) -> Strength | None:
    """Return what a training's ``sigma_train`` is a value of; ``None`` where neither column says it."""
    noise = json.loads(key["train_hardware"] or "{}")
    if "strength" in noise:
        return Strength.from_dict(noise["strength"])
    scale = noise.get("scale") or key["train_scale"]
    return Strength.sigma(scale) if scale else None


@lru_cache(maxsize=256)
def acts_at_zero(train_hardware: str) -> bool:
    """Return whether a training at strength 0 is under noise all the same: of converters, devices, other models.

    Of a hardware that can't be at 0, or whose classes are not known here, that is taken to be so.
    """
    noise = json.loads(train_hardware or "{}")
    if "hardware" not in noise:
        return False
    try:
        return hardware_at(noise["hardware"], Strength.from_dict(noise["strength"]), 0.0).on
    except UserError:
        return True


def describe_train_hardware(train_hardware: str) -> str:
    """Return in words what ``train_hardware`` says; nothing where it is empty."""
    if not train_hardware:
        return ""
    noise = json.loads(train_hardware)
    if "hardware" not in noise:
        return f"trained under noise at {', '.join(noise['sites'])} ({noise['arrays']} arrays)"
    strength = Strength.from_dict(noise["strength"])
    return f"{describe_training(noise['hardware'], strength)}, chips per {noise['chips']}"


def on_the_same_hardware(key: Mapping[str, Any]) -> bool:
    """Return whether training and evaluation were over one strength of one hardware, another than Gaussian noise."""
    trained = json.loads(key["train_hardware"] or "{}")
    if "hardware" not in trained or not key["hardware"]:
        return False
    strength = {"path": key["axis"], "unit": key["unit"]}
    return bool(trained["strength"] == strength and trained["hardware"] == json.loads(key["hardware"]))


def name_hardware_of(key: Mapping[str, Any]) -> dict[str, str]:
    """Return ``train_hardware`` and ``hardware`` in short, as far as they are another than Gaussian noise.

    Args:
        key: values of :data:`asr_dni.study.matrix.KEYS`.
    """
    named = {}
    trained = json.loads(key["train_hardware"] or "{}")
    if "hardware" in trained:
        strength = Strength.from_dict(trained["strength"])
        name = name_hardware(trained["hardware"], strength)
        named["train_hardware"] = f"trained on {name} over {strength.symbol_in_training}"
    if key["hardware"]:
        name = name_hardware(json.loads(key["hardware"]), Strength(key["axis"], key["unit"]))
        named["hardware"] = f"evaluated on {name}"
    return named
