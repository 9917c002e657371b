"""Measurements that the dashboard makes of a run's network, in the background, one after the other."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from asr_dni.errors import UserError

Report: TypeAlias = Callable[[int, int], None]
"""Is told how many passes are done, and how many there are; raises :class:`Cancelled` when nobody wants them."""


class Cancelled(Exception):
    """A measurement was cancelled."""


@dataclass
class Measurement:
    """A measurement and how far it is.

    Attributes:
        state: ``waiting``, ``running``, ``done``, ``cancelled`` or ``failed``.
        done: passes that are done.
        total: passes that there are; 0 as long as that is not known.
        message: why it failed.
    """

    state: Literal["waiting", "running", "done", "cancelled", "failed"] = "waiting"
    done: int = 0
    total: int = 0
    message: str = ""
    _cancel: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def active(self) -> bool:
        """Whether it goes on."""
        return self.state in ("waiting", "running")

    @property
    def share(self) -> float:
        """How much of it is done, 0 to 1."""
        return self.done / self.total if self.total else 0.0

    def cancel(self) -> None:
        """End it at the next pass."""
        self._cancel.set()

    def _report(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        if self._cancel.is_set():
            raise Cancelled

    def _run(self, work: Callable[[Report], None]) -> None:
        if self._cancel.is_set():
            self.state = "cancelled"
            return
        self.state = "running"
        try:
            work(self._report)
        except Cancelled:
            self.state = "cancelled"
        except UserError as error:
            self.state, self.message = "failed", str(error)
        except (OSError, MemoryError, RuntimeError) as error:
            self.state, self.message = "failed", f"{type(error).__name__}: {error}"
        else:
            self.state = "done"


class Measurements:
    """The measurements of a dashboard, by what they are of; they run one after the other in a thread."""

    def __init__(self) -> None:
        self._known: dict[Path, Measurement] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="measurement")
        self._lock = threading.Lock()

    def of(self, subject: Path) -> Measurement | None:
        """Return the measurement that was asked for last; None: there was none."""
        return self._known.get(subject)

    def start(self, subject: Path, work: Callable[[Report], None]) -> Measurement:
        """Begin a measurement, unless one of the subject goes on already.

        Args:
            subject: what it is of, such as the folder that its results go to.
            work: measures; what it leaves is whole or not there.
        """
        with self._lock:
            known = self._known.get(subject)
            if known is not None and known.active:
                return known
            measurement = self._known[subject] = Measurement()
            self._pool.submit(measurement._run, work)
            return measurement
