"""Tables of what was measured on a GPU: printed, and kept as JSON, from which gpu_summary.py makes one page."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from measuring import Rounds, Unavailable

NOT_HERE = 77
"""Exit status of a program that cannot run here; the last line it prints says why."""


@dataclass
class Results:
    """Tables, written to ``path`` after each one: what ends early keeps what it has."""

    path: Path | None
    tables: list[dict[str, object]] = field(default_factory=list)
    wrong: bool = False

    def add(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.tables.append({"title": title, "columns": list(columns), "rows": [list(row) for row in rows]})
        print("\n".join(markdown(title, columns, rows)), flush=True)
        if self.path is not None:
            self.path.write_text(json.dumps({"tables": self.tables}, indent=1))

    def add_rounds(self, title: str, rounds: Rounds, base: str | None) -> None:
        """Add medians with quartiles, and the ratios to ``base`` within rounds."""
        columns = ["contender", f"{rounds.unit}, median (quartiles)"]
        compared = base in rounds.values
        rows = []
        for name in rounds.values:
            ratio = [rounds.ratio(name, base).text()] if base is not None and compared else []
            rows.append([name, rounds.spread(name).text(3), *ratio])
        rows += [
            [name, f"not measured: {reason}", *([""] if compared else [])]
            for name, reason in rounds.missing.items()
        ]
        self.add(title, [*columns, f"of {base}"] if compared else columns, rows)

    def add_errors(self, title: str, errors: Sequence[tuple[str, float, float]]) -> None:
        """Add relative errors with what each may be; one beyond (or not a number) makes the whole run a failure."""
        rows = []
        for name, error, allowed in errors:
            right = error <= allowed
            self.wrong |= not right
            rows.append([name, f"{error:.1e}", f"{allowed:.0e}", "right" if right else "WRONG"])
        self.add(title, ["what", "relative error", "allowed", ""], rows)


def markdown(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table's lines."""
    lines = [f"**{title}**", "", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def choose_device(name: str) -> str:
    """Return the device's name, if kernels can run there.

    Raises:
        Unavailable: there is no GPU, or the CPU was named and Triton's interpreter was not asked for.
    """
    import torch

    from asr_dni.nn import triton_recurrence

    if name == "cpu":
        if not triton_recurrence.interpreted():
            raise Unavailable(
                "the kernels run on the CPU only in Triton's interpreter: set TRITON_INTERPRET=1"
            )
    elif not torch.cuda.is_available():
        raise Unavailable("no GPU here: nothing was measured")
    return name
