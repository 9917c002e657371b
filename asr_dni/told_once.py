"""Warnings that are given once, however many modules, batches and processes find them out."""

import logging

from asr_dni.errors import printable

_told: set[tuple[str, str]] = set()


def warn_once(logger: logging.Logger, message: str) -> None:
    """Warn in the first of a run's processes, unless this logger has given the same warning since :func:`forget`."""
    from lightning_fabric.utilities.rank_zero import rank_zero_only  # which takes a while

    named = logger.name, message
    if named not in _told and getattr(rank_zero_only, "rank", 0) == 0:
        _told.add(named)
        logger.warning("%s", printable(message))


def forget() -> None:
    """Have every warning given again: another command, or another test, begins in this process."""
    _told.clear()
