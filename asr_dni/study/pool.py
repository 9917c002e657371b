"""Workers that populations are given to: what one is told, and this process as the only one."""

import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from asr_dni.errors import UserError
from asr_dni.files import write_atomically
from asr_dni.study.folder import StudyFolder
from asr_dni.study.plan import Population
from asr_dni.study.reading import Study
from asr_dni.study.work import Outcome, set_threads, work_on


@dataclass(frozen=True)
class Job:
    """What a worker needs to know to train a population, wherever it is.

    Attributes:
        text: the study's, see :class:`~asr_dni.study.reading.Study`.
        folder: the study's, as an absolute path.
        trainings: the population's members.
        run: which start it belongs to.
        threads: of the CPU.
        checkpoint_seconds: time between checkpoints.
        current_folder: from which relative paths of the study start.
        modules: that the study may name classes of, see :mod:`asr_dni.named_classes`.
    """

    text: str
    folder: str
    trainings: tuple[str, ...]
    run: str
    threads: int
    checkpoint_seconds: float
    current_folder: str
    modules: tuple[str, ...] = ()


class Pool(Protocol):
    """Workers: a population goes in, what became of it comes out."""

    workers: int

    def submit(self, population: Population, job: Job) -> None:
        """Train a population as soon as there is a worker."""
        ...

    def wait(self, seconds: float) -> list[tuple[Population, Outcome | BaseException]]:
        """Return what has ended, after so long at the latest."""
        ...

    def stop(self) -> None:
        """End all workers."""
        ...

    @property
    def free(self) -> bool:
        """Whether it takes another population."""
        ...


class InProcess:
    """No workers: this process trains one population after another.

    Args:
        device: on what.
        threads: of the CPU.
    """

    workers = 1

    def __init__(self, study: Study, folder: StudyFolder, device: str = "auto") -> None:
        self._study, self._folder, self._device = study, folder, device
        self._next: tuple[Population, Job] | None = None

    @property
    def free(self) -> bool:
        """Whether it has nothing to do."""
        return self._next is None

    def submit(self, population: Population, job: Job) -> None:
        """Note what comes next."""
        self._next = population, job

    def wait(self, seconds: float) -> list[tuple[Population, Outcome | BaseException]]:
        """Train what was noted."""
        if self._next is None:
            time.sleep(seconds)
            return []
        (population, job), self._next = self._next, None
        set_threads(job.threads)
        try:
            outcome: Outcome | BaseException = work_noting_failure(
                self._study, self._folder, population, job, self._device
            )
        except Exception as error:
            outcome = error
        return [(population, outcome)]

    def stop(self) -> None:
        """Do nothing: there is nobody else."""


def work_noting_failure(
    study: Study, folder: StudyFolder, population: Population, job: Job, device: str
) -> Outcome:
    """Call :func:`~asr_dni.study.work.work_on`; what goes wrong is noted beside the population's progress."""
    try:
        return work_on(study, folder, population, job.run, device, job.checkpoint_seconds)
    except UserError:
        raise
    except Exception as error:
        path = folder.checkpoint(population.id).with_name("error.txt")
        with suppress(OSError):
            with write_atomically(path) as temporary:
                temporary.write_text(traceback.format_exc(), encoding="utf-8")
            message = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            folder.write_progress(population.id, replace(folder.progress(population.id), message=message))
        raise
