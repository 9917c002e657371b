"""Matrices in words: what each is of, what tells them apart, what they have in common."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from asr_dni.evaluation.curves.description import describe_hardware, names_split
from asr_dni.noise import Strength
from asr_dni.study.matrix import KEYS, Matrix
from asr_dni.study.training_noise import (
    describe_train_hardware,
    name_hardware_of,
    on_the_same_hardware,
)
from asr_dni.wording import count

_NAMES: dict[str, Any] = {
    "cell": lambda cell: str(cell).upper(),
    "units": lambda units: count(units, "unit"),
    "layers": lambda layers: count(layers, "layer"),
    "bidirectional": lambda both: "both directions" if both else "one direction",
    "convolutions": lambda text: f"behind convolutions ({text})" if text else "",
    "epochs": lambda epochs: count(epochs, "epoch"),
    "schedule": lambda name: f"{name} training noise" if name else "conventional training",
    "train_scale": lambda scale: f"training scale {scale}" if scale else "",
    "train_hardware": describe_train_hardware,
    "scale": lambda scale: f"inference scale {scale}" if scale else "",
    "sites": lambda sites: f"noise at {str(sites).replace('+', ', ')}",
    "arrays": lambda arrays: f"{arrays} arrays",
    "hardware": lambda text: describe_hardware(json.loads(text)) if text else "",
    "axis": lambda path: "" if Strength(path).is_sigma else f"over {Strength(path).symbol}",
    "unit": lambda unit: "",
    "votes": lambda number: f"votes of {number} passes" if number > 1 else "",
    "compensation": lambda text: f"gates softened ({text})" if text else "",
    "n_classes": lambda n: f"{n} classes, chance {100 / n:.1f} %",
    "split": lambda split: f"{split} split",
}


def describe_key(key: Mapping[str, Any], names: Collection[str], *, briefly: bool = False) -> str:
    """Return values of :data:`KEYS` in words; ``briefly`` with names for hardware."""
    told = name_hardware_of(key) if briefly else {}
    if not briefly and "train_hardware" in names and on_the_same_hardware(key):
        told = {"hardware": "evaluated on the same"}
    parts = [told.get(name) or str(_NAMES.get(name, str)(key[name])) for name in names]
    return ", ".join(part for part in parts if part)


def label_keys(keys: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Return :func:`describe_key` of each, briefly where that tells them apart."""
    labels = [describe_key(key, names, briefly=True) for key in keys]
    return labels if len(set(labels)) == len(labels) else [describe_key(key, names) for key in keys]


def varying_keys(matrices: Sequence[Matrix]) -> list[str]:
    """Return the names in which matrices differ."""
    return [name for name in KEYS if len({matrix.key[name] for matrix in matrices}) > 1]


def label_matrices(matrices: Sequence[Matrix]) -> list[str]:
    """Return a label per matrix: cell, units and whatever else differs."""
    varying = varying_keys(matrices)
    names = ["cell", "units", *(name for name in varying if name not in ("cell", "units"))]
    return label_keys([matrix.key for matrix in matrices], names)


def describe_shared(matrices: Sequence[Matrix]) -> str:
    """Return what matrices have in common, in words: data, clips, chance, noise, repetitions."""
    varying = varying_keys(matrices)
    key = matrices[0].key
    names = [name for name in KEYS if name not in varying]
    if {"data", "protocol"} <= set(names) and str(key["protocol"]).lower().startswith(
        str(key["data"]).lower()
    ):
        names.remove("data")  # the protocol begins with it
    if {"protocol", "split"} <= set(names) and names_split(str(key["protocol"]), str(key["split"])):
        names.remove("split")
    parts = [describe_key(key, names)]
    clips = sorted({matrix.n_clips for matrix in matrices})
    parts.append(f"{'–'.join(map(str, clips[:: max(len(clips) - 1, 1)]))} test clips")
    for numbers, word in (
        (sorted({len(matrix.seeds) for matrix in matrices}), "seed"),
        (sorted({matrix.n_chips for matrix in matrices}), "chip"),
        (sorted({int(matrix.n_draws.max()) for matrix in matrices}), "draw"),
    ):
        if word == "chip" and numbers == [1]:
            continue
        text = "–".join(map(str, numbers[:: max(len(numbers) - 1, 1)]))
        parts.append(f"{text} {word}" + ("" if text == "1" else "s"))
    if not {"axis", "unit"} & set(varying):
        strength = matrices[0].strength
        unit = strength.unit or ("pre-activation units" if strength.is_sigma else "")
        parts += [f"{strength.word} in {unit}"] if unit else []
    return "; ".join(parts)
