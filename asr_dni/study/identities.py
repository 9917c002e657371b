"""The hashes that name a study's trainings and their results."""

import hashlib
import json
from typing import Any


def text_of(configuration: Any) -> str:
    """Return a configuration as JSON, the same for the same one."""
    return json.dumps(configuration, sort_keys=True, default=str)


def digest_of(configuration: Any) -> str:
    """Return a configuration's name, 16 hexadecimal digits; a text is taken to be :func:`text_of` one."""
    text = configuration if isinstance(configuration, str) else text_of(configuration)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def training_of(configuration: str) -> tuple[str, str]:
    """Return what a result's configuration tells of its training.

    Args:
        configuration: of the training and the evaluation, as :func:`text_of` writes it.

    Returns:
        Its name, and how its strength came, such as ``no`` or ``batch``, see :data:`asr_dni.study.ledger_file.COLUMNS`.
    """
    try:
        settings = dict(json.loads(configuration))
    except (ValueError, TypeError):
        return digest_of(configuration), "no"
    drawn = str((settings.get("annealing") or {}).get("drawn", "no"))
    return digest_of({name: value for name, value in settings.items() if name != "evaluation"}), drawn
