"""The terminal: what is printed is shown as it is, whatever names of files and words look like."""

from typing import Any

from rich.console import Console


def make_console(**options: Any) -> Console:
    """Return a console that takes no markup out of what it prints: ``[x]`` and ``:x:`` may be parts of names.

    Args:
        **options: of ``rich.console.Console``.
    """
    return Console(markup=False, emoji=False, **options)
