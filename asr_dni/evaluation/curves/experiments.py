"""Experiments: which curves are repetitions of one, which count twice, and what each is called beside others."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import NoiseCurve, curve_label, strength_of_training
from asr_dni.evaluation.curves.description import describe_compensation, describe_hardware, name_hardware
from asr_dni.identity import canonical_json, experiment_key, experiment_settings

_Key = TypeVar("_Key")

_IN_THE_LABEL = (
    "sigma_train",
    "sigma_train_highest",
    "train_strength",
    "trained_under_noise",
    "label",
    "draws",
    "training",
)
"""Settings that labels tell otherwise, or not at all."""

_MOST_DIFFERENCES = 4  # of the training, that a label names


def group_by_experiment(settings: Mapping[_Key, Mapping[str, Any]]) -> list[list[_Key]]:
    """Return keys of curves by experiment, that is by all settings but those of a repetition; first come first."""
    groups: dict[str, list[_Key]] = {}
    for key, own in settings.items():
        groups.setdefault(experiment_key(own), []).append(key)
    return list(groups.values())


def older_of_one_training(
    settings: Mapping[_Key, Mapping[str, Any]],
    changed: Mapping[_Key, float],
    experiments: Mapping[_Key, str] | None = None,
) -> list[_Key]:
    """Return keys of curves that a newer one of the same weights replaces, as when a run is tested again.

    Args:
        settings: of the curves.
        changed: when each was written.
        experiments: of each, where they are known.
    """
    if experiments is None:
        experiments = {key: experiment_key(own) for key, own in settings.items()}
    newest: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    older = []
    for key in sorted(settings, key=lambda key: changed[key], reverse=True):
        own = settings[key]
        known = newest.setdefault((experiments[key], str(own.get("seed"))), [])
        if any(_same_weights(own, other) for other in known):
            older.append(key)
        else:
            known.append(own)
    return older


def _same_weights(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two curves of one training are of one checkpoint: by the weights, or by its name without these."""
    for key in ("weights", "checkpoint"):
        if one.get(key) and other.get(key):
            return bool(one[key] == other[key])
    return False


def pool_by_experiment(
    curves: Mapping[_Key, NoiseCurve], changed: Mapping[_Key, float]
) -> dict[str, list[_Key]]:
    """Return keys of curves by the label of their experiment, in ascending noise of the training.

    Of one experiment and seed the newest counts. What was measured at other levels or on another number of clips is an
    experiment of its own.

    Args:
        curves: the curves.
        changed: when each was written.
    """
    newest: dict[tuple[str, str, Any], _Key] = {}
    for key in sorted(curves, key=lambda key: changed[key]):
        curve = curves[key]
        shape = canonical_json([curve.levels, int(curve.frame["n_clips"].iloc[0])])
        seed = curve.settings.get("seed")
        newest[experiment_key(curve.settings), shape, key if seed is None else seed] = key
    kept = set(newest.values())
    names = {key: (experiment, shape) for (experiment, shape, _), key in newest.items()}
    groups: dict[tuple[str, str], list[_Key]] = {}
    for key in curves:
        if key in kept:
            groups.setdefault(names[key], []).append(key)
    ordered = sorted(groups.values(), key=lambda keys: order_of_experiment(curves[keys[0]].settings))
    labels = label_experiments([curves[keys[0]].settings for keys in ordered])
    return dict(zip(labels, ordered, strict=True))


def check_independent(members: Mapping[Path, NoiseCurve]) -> None:
    """Refuse two curves of one training: counted as two seeds they would feign certainty."""
    seen: list[tuple[Path, NoiseCurve]] = []
    for path, curve in members.items():
        for other_path, other in seen:
            seed = curve.settings.get("seed")
            if seed is not None and seed == other.settings.get("seed"):
                raise UserError(
                    f"{other_path} and {path} are of the same experiment and seed {seed}: give one of them, or train"
                    " with another seed"
                )
            if curve.frame.equals(other.frame):
                raise UserError(f"{other_path} and {path} hold the same curve: give one of them")
        seen.append((path, curve))


def _value_text(key: str, value: Any) -> str:
    if key == "hardware" and isinstance(value, Mapping):
        return describe_hardware(value)
    if key == "compensation" and isinstance(value, Mapping):
        return describe_compensation(value)
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, str):
        return value
    return f"{key} {value:g}" if isinstance(value, int | float) else f"{key} {value}"


def _training_texts(trainings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return for each of several trainings what it has otherwise than the others; nothing where that is not noted."""
    known = [training for training in trainings if training]
    names = list(dict.fromkeys(name for training in known for name in training))
    differing = [name for name in names if any(one.get(name) != known[0].get(name) for one in known)]
    endings = [name.rpartition(".")[2] for name in names]
    texts = []
    for training in trainings:
        parts = []
        for name in differing:
            # The last name is enough where no other setting has it, the evaluation's noise included: "dropout", but
            # "annealing warm_up" and "noise sites".
            first, _, ending = name.rpartition(".")
            part = first.rpartition(".")[2]
            shown = ending if endings.count(ending) == 1 and part != "noise" else f"{part} {ending}"
            value = training.get(name)
            if not training or (value is None and name not in training):
                continue
            if name == "after":
                parts.append("trained on")
            elif isinstance(value, list) and len(value) > 4:
                parts.append(f"{shown} of {len(value)}")
            elif isinstance(value, list):
                parts.append(f"{shown} {' '.join(map(str, value))}")
            else:
                parts.append(f"{shown} {value:g}" if isinstance(value, float) else f"{shown} {value}")
        if len(parts) > _MOST_DIFFERENCES:
            parts = [*parts[:_MOST_DIFFERENCES], f"{len(parts) - _MOST_DIFFERENCES} more"]
        texts.append(", ".join(parts))
    return texts


def label_experiments(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a label per experiment: how it was trained, then the settings in which experiments differ.

    What else was configured for a training is named only where labels would be the same without it. Of more than four
    settings, as where results of different data lie together, those are left out that follow from the ones before.
    """
    if all(one.get("label") for one in settings) and len({one["label"] for one in settings}) == len(settings):
        return [str(one["label"]) for one in settings]
    keys = dict.fromkeys(key for one in settings for key in experiment_settings(one))
    differing = [
        key
        for key in keys
        if key not in _IN_THE_LABEL and any(one.get(key) != settings[0].get(key) for one in settings)
    ]
    if len(differing) > _MOST_DIFFERENCES:
        differing = _telling_apart(differing, settings)
    labels = []
    for one in settings:
        more = [
            _value_text(key, one[key])
            if key != "train_hardware"
            else f"trained on {name_hardware(one[key], strength_of_training(one))}"
            for key in differing
            if one.get(key) is not None
        ]
        name = curve_label(one)
        labels.append(", ".join(([] if name == "network" and more else [name]) + more))
    for label in dict.fromkeys(labels):
        places = [place for place, other in enumerate(labels) if other == label]
        if len(places) > 1:
            texts = _training_texts([settings[place].get("training") or {} for place in places])
            for place, text in zip(places, texts, strict=True):
                more = ([] if label == "network" and text else [label]) + ([text] if text else [])
                labels[place] = ", ".join(more)
    return distinct(labels)


def _telling_apart(keys: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys that tell experiments apart that look the same by how they were trained and the keys before."""
    seen: list[object] = [curve_label(one) for one in settings]
    kept = []
    for key in sorted(keys, key=lambda key: key != "data"):  # which data they are of says most
        finer = [(before, canonical_json(one.get(key))) for before, one in zip(seen, settings, strict=True)]
        if len(set(finer)) > len(set(seen)):
            kept.append(key)
            seen = list(finer)
    return kept


def distinct(labels: Sequence[str]) -> list[str]:
    """Number the labels that several have; no number makes a label that is there already."""
    taken, counts, distinct = set(labels), Counter(labels), []
    for label in labels:
        name, number = label, 0
        while counts[label] > 1 and name in taken:
            number += 1
            name = f"{label} ({number})"
        taken.add(name)
        distinct.append(name)
    return distinct


def order_of_experiment(settings: Mapping[str, Any]) -> tuple[float, bool]:
    """Return what orders experiments: the noise of the training, that of nothing first."""
    return float(settings.get("sigma_train") or 0), bool(settings.get("trained_under_noise"))
