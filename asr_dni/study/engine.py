"""Work through a study: which population next, and what happens when one fails."""

import heapq
import itertools
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from asr_dni.data import SequenceData
from asr_dni.errors import UserError
from asr_dni.named_classes import modules_of
from asr_dni.study.cost import (
    DataSize,
    available_memory,
    evaluation_cost,
    largest_population,
    population_cost,
)
from asr_dni.study.folder import StudyFolder
from asr_dni.study.ledger import Damage
from asr_dni.study.plan import PlannedMember, Population, partition, plan_members
from asr_dni.study.pool import Job, Pool
from asr_dni.study.reading import Study
from asr_dni.study.survey import Failure, Survey, survey
from asr_dni.study.work import CHECKPOINT_SECONDS, Outcome, data_size, ran_out_of_memory

_MEMORY_PART = 0.7
_GPU_MEMORY_UNKNOWN = 16e9
BUSY_SECONDS = 3.0
"""How long a population that another start works on is left alone."""
RETRY_SECONDS = 1.0
"""Wait before the second attempt; before each further one twice as long."""


@dataclass(frozen=True)
class EngineSettings:
    """Where a study's populations are trained.

    Args:
        workers: processes that train a population each; 0: this process trains one after another; null: as many as the
            processors, or the GPUs, allow.
        address: of a Ray cluster (auto, HOST:6379, ray://HOST:10001); null: this machine.
        cpus_per_worker: threads of a worker.
        gpus_per_worker: GPUs of a worker, or a part of one, such as 0.5; null: 1 where there are GPUs.
        max_retries: how often a population is begun again, from its checkpoint, after its worker has died or failed.
        checkpoint_seconds: time between a population's checkpoints: what is lost when a worker dies.
    """

    workers: int | None = None
    address: str | None = None
    cpus_per_worker: int = 1
    gpus_per_worker: float | None = None
    max_retries: int = 3
    checkpoint_seconds: float = CHECKPOINT_SECONDS

    def check(self) -> None:
        """Find what cannot be.

        Raises:
            UserError: names the key.
        """
        if self.workers is not None and self.workers < 0:
            raise UserError(f"workers is {self.workers}: give 1 or more, or 0 (train in this process)")
        if self.cpus_per_worker < 1:
            raise UserError(f"cpus_per_worker is {self.cpus_per_worker}: give 1 or more")
        if self.gpus_per_worker is not None and self.gpus_per_worker < 0:
            raise UserError(f"gpus_per_worker is {self.gpus_per_worker}: give 0 (none) or more, such as 0.5")
        if self.max_retries < 0:
            raise UserError(f"max_retries is {self.max_retries}: give 0 (never) or more")
        if not self.checkpoint_seconds >= 0:
            raise UserError(f"checkpoint_seconds is {self.checkpoint_seconds}: give 0 (always) or more")
        if self.workers == 0 and self.address is not None:
            raise UserError(
                "workers is 0, which trains in this process, but there is an address: give one of them"
            )


@dataclass
class StudyRun:
    """One start of a study.

    Args:
        study: the study.
        folder: where it goes.
        settings: where its populations are trained.
    """

    study: Study
    folder: StudyFolder
    settings: EngineSettings = field(default_factory=EngineSettings)

    def __post_init__(self) -> None:
        self.settings.check()
        self.run_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.retries = 0
        self._repaired = False
        self.failures: list[Failure] = []
        self.members: list[PlannedMember] = []
        self.populations: list[Population] = []
        self.size: DataSize | None = None
        self._pool: Pool | None = None
        self._costs: dict[str, float] = {}

    # ------------------------------------------------------------------ before

    def prepare(self) -> None:
        """Bring the data to the disk, and find out which members there are.

        Raises:
            UserError: the data or the settings are not valid.
        """
        data = self.study.make_data(0)
        self.members = plan_members(self.study, data)
        data.prepare_data()
        data.setup("fit")
        data.setup("test" if self.study.settings.evaluation.split == "test" else "validate")
        self.size = data_size(self.study, data)
        self.data: SequenceData = data
        self.folder.check(self.study, data)

    def damages(self) -> list[Damage]:
        """Return the ledger's files that cannot be used: what they should hold is missing."""
        evaluations = [evaluation for member in self.members for evaluation in member.evaluations]
        return self.folder.ledger.damages({one.result: one.n_rows for one in evaluations})

    def repair(self) -> list[str]:
        """Set aside what is damaged, so that it is made anew; return a line for each.

        Raises:
            UserError: a file is foreign, or was written by a newer version.
        """
        self._repaired = True
        return self.folder.ledger.set_aside(self.damages())

    def missing(self) -> list[PlannedMember]:
        """Return the members that lack results."""
        done = self.folder.ledger.members()
        return [member for member in self.members if not member.results <= done]

    def plan(self, workers: int, on_gpu: bool) -> list[Population]:
        """Return the populations that have something to do: those that were begun before, and new ones.

        Args:
            workers: how many there are to be kept busy.
            on_gpu: whether they have GPUs.
        """
        assert self.size is not None
        known = self.folder.known_populations(self.members)
        taken = {member.training for population in known for member in population.members}
        rest = [member for member in self.missing() if member.training not in taken]
        memory = self._memory(workers, on_gpu)
        shapes = {member.shape: member for member in rest}
        size = self.size
        limits = {
            shape: largest_population(
                self.study, member, size.n_frames, size.n_features, size.batch_size, memory, on_gpu
            )
            for shape, member in shapes.items()
        }
        # Those that are only evaluated stay apart from those that are trained.
        kept = [member for member in rest if self.folder.keeps([member])]
        trained = [member for member in rest if member not in kept]
        populations = [*known, *partition(kept, limits)]
        populations += partition(trained, limits, at_least=workers - len(populations))
        self._costs = {p.id: self._cost(p) for p in populations}
        # The longest first, so that no worker begins a long one when the others are done.
        return sorted(populations, key=lambda population: -self._costs[population.id])

    def _cost(self, population: Population) -> float:
        """Return the operations of what is to be done with a population."""
        assert self.size is not None
        if self.folder.keeps(population.members):
            return sum(evaluation_cost(member, self.size) for member in population.members)
        return population_cost(self.study, population, self.size)

    def _memory(self, workers: int, on_gpu: bool) -> float:
        """Return the bytes that one worker may take."""
        if not on_gpu:
            return available_memory() * _MEMORY_PART / (workers if self.settings.address is None else 1)
        share = min(1.0, self.settings.gpus_per_worker or 1.0)
        total = (
            torch.cuda.get_device_properties(0).total_memory
            if torch.cuda.is_available()
            else _GPU_MEMORY_UNKNOWN
        )
        return float(total * _MEMORY_PART * share)

    # ------------------------------------------------------------------ running

    def run(
        self, pool: Pool, on_gpu: bool = False, on_event: Callable[[str], None] = lambda text: None
    ) -> None:
        """Train and evaluate everything that is missing.

        Args:
            pool: of workers.
            on_gpu: whether they have GPUs.
            on_event: called with a line for everything out of the ordinary, and for every population that is done.

        Raises:
            UserError: the settings or the data are not valid.
            KeyboardInterrupt: it was interrupted; started again it goes on from where it was.
        """
        if self.size is None:
            self.prepare()
        self._pool = pool
        try:
            for line in [] if self._repaired else self.repair():
                on_event(line)
            self.folder.record(self.study, self.data)
            with self.folder.assigning():
                self.populations = self.plan(pool.workers, on_gpu)
                self.folder.assign(self.populations)
            self._work(pool, on_event)
        finally:
            pool.stop()
            self.folder.release(self.run_id)

    def _job(self, population: Population) -> Job:
        return Job(
            self.study.text,
            str(self.folder.path.resolve()),
            tuple(member.training for member in population.members),
            self.run_id,
            self.settings.cpus_per_worker,
            self.settings.checkpoint_seconds,
            os.getcwd(),
            modules_of(self.study.data, self.study.optimizer),
        )

    def _work(self, pool: Pool, on_event: Callable[[str], None]) -> None:
        tie = itertools.count()
        # (not before, order, population)
        queue = [(0.0, next(tie), population) for population in self.populations]
        attempts: Counter[str] = Counter()
        flying = 0
        told: set[str] = set()
        while queue or flying:
            while queue and pool.free and queue[0][0] <= time.monotonic():
                _, _, population = heapq.heappop(queue)
                pool.submit(population, self._job(population))
                flying += 1
            for population, outcome in pool.wait(0.3):
                flying -= 1
                if isinstance(outcome, Outcome):
                    for note in outcome.notes:
                        on_event(note)
                    if outcome.state == "busy":
                        if population.id not in told:
                            told.add(population.id)
                            on_event(f"{population.title}: another run works on it")
                        heapq.heappush(queue, (time.monotonic() + BUSY_SECONDS, next(tie), population))
                    else:
                        on_event(f"{population.title}: done, {outcome.results} new results")
                    continue
                if isinstance(outcome, UserError):
                    raise outcome
                message = f"{type(outcome).__name__}: {' '.join(str(outcome).split())[:200]}"
                if ran_out_of_memory(outcome) and len(population.members) > 1:
                    on_event(f"{population.title}: out of memory, goes on as two halves")
                    for half in self._halve(population):
                        heapq.heappush(queue, (0.0, next(tie), half))
                    continue
                attempts[population.id] += 1
                if attempts[population.id] > self.settings.max_retries:
                    self.failures.append(Failure(population, message))
                    progress = replace(self.folder.progress(population.id), state="failed", message=message)
                    self.folder.write_progress(population.id, progress)
                    on_event(f"{population.title}: given up: {message}")
                    continue
                self.retries += 1
                on_event(f"{population.title}: {message}; begun again from its checkpoint")
                wait = RETRY_SECONDS * 2 ** (attempts[population.id] - 1)
                heapq.heappush(queue, (time.monotonic() + wait, next(tie), population))

    def _halve(self, population: Population) -> list[Population]:
        middle = (len(population.members) + 1) // 2
        halves = [Population(population.members[:middle]), Population(population.members[middle:])]
        with self.folder.assigning():
            self.folder.forget(population.id)
            self.folder.assign(halves)
        self._costs |= {half.id: self._cost(half) for half in halves}
        self.populations = [other for other in self.populations if other.id != population.id] + halves
        return halves

    # ------------------------------------------------------------------ how far it is

    def survey(self) -> Survey:
        """Return how far the study is, whoever works on it."""
        workers = self._pool.workers if self._pool is not None else 1
        found = survey(
            self.study, self.folder, self.members, self.populations, self.size, workers, self._costs
        )
        return replace(found, retries=self.retries, failures=tuple(self.failures))
