"""How large a setting may be: a slip of the keyboard, or anybody's checkpoint, does not exhaust the memory.

The bounds are far above what keyword spotting takes; they are no recommendation.
"""

from asr_dni.errors import UserError


def at_most(name: str, value: float, most: float) -> None:
    """Refuse a value that is too large.

    Args:
        name: of the setting.
        value: that it has; nan is refused too.
        most: the largest that may be.

    Raises:
        UserError: names the setting and its bound.
    """
    if not value <= most:
        raise UserError(f"{name} is {value:,}: give at most {most:,}")
