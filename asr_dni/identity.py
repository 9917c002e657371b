"""What tells one experiment from another, and what does not: for the curves that are compared, and for the ledger."""

import copy
import json
from collections.abc import Mapping
from typing import Any

from asr_dni.noise import Hardware, Strength, gaussian_alone

REPETITION_KEYS = ("seed", "noise_seed", "checkpoint", "weights", "epoch", "step", "run")
"""Settings of a curve in which repetitions of one experiment differ; all others tell experiments apart."""

NOT_OF_THE_RESULT = ("seed", "cache_dir", "num_workers")
"""Settings of a module or a data module that repetitions differ in, or that do not change the result."""

_SPEED_OF_OPTIMIZER = ("foreach", "fused", "capturable", "differentiable")


def experiment_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a curve that repetitions of its experiment have in common."""
    return {key: value for key, value in settings.items() if key not in REPETITION_KEYS}


def experiment_key(settings: Mapping[str, Any]) -> str:
    """Return a text that two curves have in common if, and only if, their :func:`experiment_settings` are equal."""
    return canonical_json(experiment_settings(settings))


def canonical_json(value: Any) -> str:
    """Return plain values as JSON that is the same for equal ones: whatever the order of keys, 1 and 1.0 alike."""
    return json.dumps(_plain_numbers(value), sort_keys=True, separators=(",", ":"), default=str)


def _plain_numbers(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return {str(key): _plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def data_settings(data: Any) -> dict[str, Any]:
    """Return what decides the batches of a data module, the same on every machine; of one not of ours its settings."""
    own = getattr(data, "result_settings", None)
    if callable(own):
        return dict(own())
    given = getattr(data, "hparams", {})
    return {key: value for key, value in given.get("data", given).items() if key not in NOT_OF_THE_RESULT}


def optimizer_settings(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an optimiser that change what it does, not only how fast."""
    return {key: value for key, value in arguments.items() if key not in _SPEED_OF_OPTIMIZER}


def evaluation_settings(hardware: Hardware, strength: Strength) -> dict[str, Any]:
    """Return what a curve over a strength was measured on, as plain values, whatever the strength's values.

    Gaussian noise on outputs alone, over its sigma, is told by ``scale``, ``sites`` and ``arrays``; everything else by
    ``hardware`` and ``strength``.
    """
    if gaussian_alone(hardware) and strength == Strength.sigma(hardware.scale):
        return {"scale": hardware.scale, "sites": list(hardware.sites), "arrays": hardware.arrays}
    return {"hardware": hardware.settings_beside(strength), "strength": strength.as_dict()}


def compensation_settings(trained: Hardware) -> dict[str, Any]:
    """Return for which noise of the training a network was softened, as plain values, see ``Noise.compensating``."""
    beside = evaluation_settings(trained, Strength.sigma(trained.scale))
    return {"sigma": trained.value(), **beside}


def hardware_at(beside: Mapping[str, Any], strength: Strength, value: float) -> Hardware:
    """Return the hardware that is noted for all values of a strength, at one of them.

    Args:
        beside: see :meth:`asr_dni.noise.Hardware.settings_beside`.
        strength: what it lacks.
        value: of the strength.

    Raises:
        UserError: the hardware is not known here, or can't have this value.
    """
    settings = copy.deepcopy(dict(beside))
    place, *index, name = strength.path.split(".") if "." in strength.path else ("", strength.path)
    models = settings.get(place) or []
    for k, model in enumerate([models] if isinstance(models, dict) else models):
        numbers = model["init_args"]
        if index in ([], [str(k)]) and name in numbers and numbers[name] is None:
            numbers[name] = value
            break
    else:
        settings[name] = value
    return Hardware.from_settings(settings)
