"""What is told of recordings before they are used: how many, by how many people, and what is odd about them."""

import logging

from asr_dni.errors import printable

logger = logging.getLogger(__name__)

_TOLD: set[str] = set()


def warn_once(message: str) -> None:
    """Tell something of the data once in a process, however many data modules find it out."""
    if message not in _TOLD:
        _TOLD.add(message)
        logger.warning("%s", printable(message))
