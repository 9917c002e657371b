"""What curves have in common, in words, as tables and pictures say it: settings, intervals, SNR, chance."""

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import CurveSummary, NoiseCurve, strength_of_training
from asr_dni.hardware_files import find_name
from asr_dni.noise import Strength

Curves: TypeAlias = Mapping[str, NoiseCurve | CurveSummary]
"""Curves by their label, in the order in which they are shown."""


def format_snr(snr_db: float) -> str:
    """Return an SNR in dB with one digit, "∞" without noise and "–" where it is not known."""
    if math.isnan(snr_db):
        return "–"
    return "∞" if math.isinf(snr_db) else f"{round(snr_db, 1) + 0.0:.1f}".replace("-", "−")


def as_summaries(curves: Curves) -> dict[str, CurveSummary]:
    """Return summaries by label.

    Raises:
        UserError: there are none, or they are over different strengths, or not all in one scale: they can't share an
            axis.
    """
    if not curves:
        raise UserError("there is no noise curve to show: give at least one")
    summaries = {
        label: curve.summary() if isinstance(curve, NoiseCurve) else curve for label, curve in curves.items()
    }
    axes = {summary.strength for summary in summaries.values()}
    if len({axis.path for axis in axes}) > 1:
        raise UserError(
            f"the noise curves are over {' and '.join(sorted(map(str, axes)))}, which can't share an axis: give curves"
            " over one strength"
        )
    scales = {str(summary.settings["scale"]) for summary in summaries.values() if "scale" in summary.settings}
    if len(scales) > 1:
        raise UserError(
            f"the noise curves are in the scales {' and '.join(sorted(scales))}, whose sigmas can't be"
            " compared: give curves of one scale"
        )
    if len(axes) > 1:
        raise UserError(
            f"the noise curves are over {' and '.join(sorted(map(str, axes)))}, which can't be compared: give curves in"
            " one unit"
        )
    return summaries


def common_snr(
    summaries: Mapping[str, CurveSummary], tolerance_db: float = 0.05
) -> dict[float, float] | None:
    """Return the SNR in dB by strength where it is known and the same for all curves, else ``None``."""
    snr: dict[float, float] = {}
    for summary in summaries.values():
        for level, value in zip(summary.frame["strength"], summary.frame["snr_db"], strict=True):
            if math.isnan(value):
                return None
            known = snr.setdefault(float(level), float(value))
            if known != value and not abs(known - value) <= tolerance_db:
                return None
    return dict(sorted(snr.items()))


def common_strength(summaries: Mapping[str, CurveSummary]) -> Strength:
    """Return the axis of curves that share one, see :func:`as_summaries`: its label and unit are those of the axis."""
    return next(iter(summaries.values())).strength


def common_chance(summaries: Mapping[str, CurveSummary]) -> float | None:
    """Return the accuracy of guessing where it is known and the same for all curves, else ``None``."""
    chances = {summary.chance for summary in summaries.values()}
    return chances.pop() if len(chances) == 1 else None


def names_split(protocol: str, split: str) -> bool:
    """Return whether a protocol, such as "all words, own test split", says which split was evaluated."""
    return f"{split} split" in protocol


def describe_settings(summaries: Mapping[str, CurveSummary]) -> str:
    """Return one line on how the curves were measured: data, noise, repetitions."""
    settings = [summary.settings for summary in summaries.values()]

    def shared(key: str) -> Any:
        values = [one.get(key) for one in settings]
        return values[0] if all(value == values[0] for value in values) else None

    def span(column: str) -> tuple[int, str]:
        values = [int(summary.frame[column].max()) for summary in summaries.values()]
        low, high = min(values), max(values)
        return high, str(high) if low == high else f"{low}–{high}"

    parts = []
    data = [str(shared(key)) for key in ("data", "protocol") if shared(key)]
    if data:
        parts.append(" · ".join(data))
    clips = f"{span('n_clips')[1]} clips"
    split = shared("split")
    told = not split or split == "all" or names_split(str(shared("protocol")), split)
    parts.append(clips if told else f"{clips} ({split} split)")
    size = " × ".join(str(shared(key)) for key in ("layers", "units") if shared(key))
    network = [str(shared("cell")).upper()] if shared("cell") else []
    network = (
        [f"CRNN ({shared('convolutions')}; {network[0]})"] if network and shared("convolutions") else network
    )
    network += [f"{size} units"] if size and shared("units") else []
    if network:
        parts.append(", ".join(network))
    if shared("sites"):
        arrays = f" ({shared('arrays')} arrays)" if shared("arrays") else ""
        parts.append(f"noise at {', '.join(shared('sites'))}{arrays}")
    if shared("hardware"):
        parts.append(describe_hardware(shared("hardware")))
    if shared("scale"):
        parts.append(f"scale {shared('scale')}")
    if shared("compensation"):
        parts.append(describe_compensation(shared("compensation")))
    parts += _describe_trainings(summaries)
    for column, word in (("n_chips", "chip"), ("n_draws", "draw"), ("n_seeds", "seed")):
        number, text = span(column)
        if column == "n_chips" and number == 1:
            continue
        parts.append(f"{text} {word}" if number == 1 else f"{text} {word}s")
    if shared("epoch") is not None:
        parts.append(f"epoch {shared('epoch')}")
    return "; ".join(parts)


def _describe_trainings(summaries: Mapping[str, CurveSummary]) -> list[str]:
    """Return on which hardware networks were trained, with their labels where it is not the same for all."""
    labels: dict[str, list[str]] = {}
    for label, summary in summaries.items():
        hardware = summary.settings.get("train_hardware")
        if hardware:
            text = describe_training(hardware, strength_of_training(summary.settings))
            labels.setdefault(text, []).append(label)
    if any(len(own) == len(summaries) for own in labels.values()):
        return list(labels)
    return [f"{' and '.join(own)}: {text}" for text, own in labels.items()]


def name_hardware(settings: Mapping[str, Any], strength: Strength) -> str:
    """Return a word or two for a hardware: its name, where it comes with the project, or of what it is made.

    Args:
        settings: the hardware's, but for the strength.
        strength: see :func:`asr_dni.hardware_files.find_name`.
    """
    parts = [settings.get(place) or [] for place in ("weight", "dac", "output", "adc")]
    models = [model for part in parts for model in ([part] if isinstance(part, Mapping) else part)]
    classes = dict.fromkeys(str(model.get("class_path", "")).rpartition(".")[2] for model in models)
    return find_name(settings, strength) or " + ".join(classes)


def describe_hardware(settings: Mapping[str, Any]) -> str:
    """Return a hardware's plain settings, see :meth:`asr_dni.noise.Hardware.as_settings`, in a few words."""
    parts = []
    for place in ("weight", "dac", "output", "adc"):
        models = settings.get(place) or []
        for model in [models] if isinstance(models, Mapping) else models:
            numbers = model.get("init_args") or {}
            told = " ".join(f"{name} {value}" for name, value in numbers.items() if value is not None)
            name = str(model.get("class_path", "")).rpartition(".")[2]
            parts.append(" ".join(filter(None, (place, name, told))))
    if settings.get("tile"):
        parts.append(f"tiles of {settings['tile']} columns")
    parts.append(f"analog at {', '.join(settings.get('sites') or ['no site'])}")
    return f"hardware: {', '.join(parts)} ({settings.get('arrays')} arrays)"


def describe_compensation(settings: Mapping[str, Any]) -> str:
    """Return for which training noise a network was softened, see :func:`asr_dni.identity.compensation_settings`."""
    scale = settings.get("scale")
    return f"compensated for σ_train={settings['sigma']:g}" + (
        f" ({scale})" if scale not in (None, "absolute") else ""
    )


def describe_training(hardware: Mapping[str, Any], strength: Strength) -> str:
    """Return on which hardware a network was trained, over which of its strengths and in which unit.

    Args:
        hardware: its settings, but for the strength.
        strength: that the training took values of.
    """
    unit = f" in {strength.measured_in}" if strength.measured_in else ""
    return f"trained on {describe_hardware(hardware)} over {strength.symbol_in_training}{unit}"


def describe_intervals(summaries: Mapping[str, CurveSummary]) -> str:
    """Return what the summaries' intervals are, each kind once."""
    return ", ".join(dict.fromkeys(summary.interval for summary in summaries.values()))
