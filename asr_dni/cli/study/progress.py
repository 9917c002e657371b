"""How far a study is: in a line, drawn on a terminal, and while it is trained."""

import math
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from asr_dni.cli.study.durations import duration
from asr_dni.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from asr_dni.study.engine import StudyRun
    from asr_dni.study.survey import Survey

_SHOWN = 8
"""Populations that are shown while they are trained."""


class Display:
    """Shows how far a study is, from a thread of its own: while it is trained the main one is busy.

    On a terminal it is drawn again every second; elsewhere a line is written for what happens, and one a minute.

    Args:
        run: the study.
        console: where it is shown.
        every: seconds between lines where there is no terminal.
    """

    def __init__(self, run: "StudyRun", console: "Console", every: float = 60.0) -> None:
        self._run, self._console, self._every = run, console, every
        self._ended = threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._show, daemon=True, name="display of the study")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join(timeout=10)

    def say(self, text: str) -> None:
        """Write a line above what is drawn."""
        self._console.print(text, soft_wrap=True, highlight=False)

    def _show(self) -> None:
        if self._console.is_terminal:
            from rich.live import Live

            with Live(console=self._console, auto_refresh=False, transient=True) as live:
                while not self._ended.wait(1.0):
                    survey = self._survey()
                    if survey is not None:
                        live.update(draw_survey(survey, time.monotonic() - self._began), refresh=True)
            return
        while not self._ended.wait(self._every):
            survey = self._survey()
            if survey is not None:
                self.say(describe_survey(survey))

    def _survey(self) -> "Survey | None":
        try:
            return self._run.survey()
        except (OSError, UserError):  # a file that is being replaced; the next second shows it
            return None


def describe_survey(survey: "Survey") -> str:
    """Return one line that says how far a study is."""
    if survey.results and survey.done == survey.results:
        return f"all {survey.results} results are there"
    left = "" if survey.seconds_left is None else f", {duration(survey.seconds_left)} left"
    retries = f", begun again {survey.retries} times" if survey.retries else ""
    return (
        f"{survey.done} of {survey.results} results, {_percent(survey.fraction)} of the work;"
        f" {len(survey.running)} populations are trained, {survey.waiting} wait{left}{retries}"
    )


def draw_survey(survey: "Survey", elapsed: float | None = None) -> "RenderableType":
    """Return a picture of how far a study is, for the terminal."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    head = Table.grid(padding=(0, 2))
    left = "..." if survey.seconds_left is None else duration(survey.seconds_left)
    head.add_row(
        ProgressBar(total=1.0, completed=survey.fraction, width=40),
        _percent(survey.fraction),
        f"{survey.done}/{survey.results} results",
        *([f"{duration(elapsed)} gone"] if elapsed is not None else []),
        f"{left} left",
    )
    body = Table.grid(padding=(0, 2))
    for population, progress in list(survey.running)[:_SHOWN]:
        body.add_row(
            population.title,
            ProgressBar(total=1.0, completed=progress.fraction, width=20),
            f"epoch {progress.epoch}/{progress.epochs}" if progress.state == "training" else progress.state,
            progress.device,
        )
    rest = []
    if len(survey.running) > _SHOWN:
        rest.append(f"{len(survey.running) - _SHOWN} more are trained")
    if survey.waiting:
        rest.append(f"{survey.waiting} populations wait")
    if survey.retries:
        rest.append(f"begun again {survey.retries} times")
    if survey.failures:
        rest.append(f"{len(survey.failures)} given up")
    return Group(head, body, Text("; ".join(rest)))


def _percent(fraction: float) -> str:
    """Return a part in percent, which is 100 only where nothing is left."""
    return f"{math.floor(100 * fraction + 1e-9)} %"
