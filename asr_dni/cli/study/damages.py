"""Damaged results, told."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from asr_dni.study.ledger import Damage


def tell_damages(damages: "Sequence[Damage]", console: "Console") -> None:
    """Print which results were damaged, a line each."""
    for damage in damages:
        console.print(
            f"{damage.path} {damage.cause}: started again, the study makes what is missing",
            soft_wrap=True,
            highlight=False,
        )
