"""Whether a command draws its figures in the terminal as well."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from rich.console import Console

    from asr_dni.plotting import Figure

Plot: TypeAlias = Literal["auto", "always", "never"]
"""``auto``: where a person looks at a terminal that has the letters for it."""


def print_figures(console: "Console", figures: "Iterable[Figure]", plot: Plot = "auto") -> None:
    """Draw figures in the terminal, if that is wanted.

    Colours and other escape codes are the console's matter: there are none in pipes, and none under ``NO_COLOR``.

    Args:
        console: where to.
        figures: their specifications; nothing is asked of them where nothing is drawn.
        plot: see :data:`Plot`.
    """
    wanted = plot == "always" or (
        plot == "auto" and console.is_terminal and not console.is_dumb_terminal and _has_letters(console)
    )
    if not wanted:
        return
    from asr_dni.plotting.in_terminal import render  # not before it is needed: plotext

    for figure in figures:
        console.print(render(figure, console.width), highlight=False)
        console.print()


def _has_letters(console: "Console") -> bool:
    try:
        "⠿░●┄".encode(console.encoding)
    except (LookupError, UnicodeEncodeError):
        return False
    return True
