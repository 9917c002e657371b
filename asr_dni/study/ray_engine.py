"""Workers of a Ray cluster: of this machine alone, or of many."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

from asr_dni import __version__
from asr_dni.errors import UserError
from asr_dni.memory import keep_freed_memory
from asr_dni.named_classes import only_named_classes
from asr_dni.study.engine import EngineSettings
from asr_dni.study.folder import StudyFolder
from asr_dni.study.plan import PlannedMember, Population, plan_members
from asr_dni.study.pool import Job, work_noting_failure
from asr_dni.study.reading import study_from_text
from asr_dni.study.work import Outcome, set_threads

CONNECT_SECONDS = 45.0
"""How long a cluster may take to answer."""
_TCP_SECONDS = 10.0
_PROBE = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')"
_OBJECT_STORE_BYTES = 100 * 2**20  # nothing but names goes through it


class RayPool:
    """Workers of a Ray cluster, one task per population.

    The study's folder has to be on storage that all machines share: results, checkpoints and progress are there, so
    that whoever comes next goes on with them. Nothing is sent anywhere else: no usage statistics, no dashboard.

    Args:
        settings: how many workers, where, and what each of them has.

    Raises:
        UserError: Ray is not installed, there is no cluster at the address, or it has not what a worker needs.
    """

    def __init__(self, settings: EngineSettings) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError:
            raise UserError(
                "workers need the package ray, which is not installed: install it, or give --workers 0"
            ) from None
        self._ray = ray
        self._settings = settings
        self._flying: dict[Any, Population] = {}
        # A cluster that the caller is connected to stays the caller's.
        self._own = not ray.is_initialized()
        self._connect()
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus = float(resources.get("GPU", 0))
        self.gpus_per_worker = (
            (1.0 if gpus >= 1 else 0.0) if settings.gpus_per_worker is None else settings.gpus_per_worker
        )
        self.on_gpu = self.gpus_per_worker > 0
        cpus = float(resources.get("CPU", 0))
        if self.gpus_per_worker > gpus:
            self.stop()
            raise UserError(
                f"gpus_per_worker is {self.gpus_per_worker:g}, but there are {gpus:g} GPUs: give --gpus_per_worker 0"
            )
        if settings.cpus_per_worker > cpus:
            self.stop()
            raise UserError(
                f"cpus_per_worker is {settings.cpus_per_worker}, but there are {cpus:g} processors: give fewer"
            )
        possible = int(cpus // settings.cpus_per_worker)
        if self.on_gpu:
            possible = min(possible, int(gpus / self.gpus_per_worker + 1e-9))
        self.workers = max(1, possible if settings.workers is None else settings.workers)
        self._task = ray.remote(_work).options(
            num_cpus=settings.cpus_per_worker,
            num_gpus=self.gpus_per_worker,
            max_retries=0,  # the study begins it again itself, and says so
            scheduling_strategy="SPREAD",
        )

    def _connect(self) -> None:
        ray, settings = self._ray, self._settings
        if not self._own:
            return
        if settings.address is not None:
            check_address(settings.address)
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": True}
        main = threading.current_thread() is threading.main_thread()
        handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)} if main else {}
        try:
            if settings.address is None:
                workers = settings.workers or max(1, processors() // settings.cpus_per_worker)
                ray.init(
                    address="local",
                    num_cpus=workers * settings.cpus_per_worker,
                    include_dashboard=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    **quiet,
                )
            else:
                ray.init(address=settings.address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            first = " ".join(str(error).split())[:200]
            raise UserError(
                f"address {settings.address}: no Ray cluster can be reached there ({first}); start one with ray start"
                if settings.address is not None
                else f"Ray cannot be started on this machine ({first}); give --workers 0 to do without"
            ) from error
        finally:
            for number, handler in handlers.items():  # Ray puts its own, which exits
                signal.signal(number, handler)

    @property
    def free(self) -> bool:
        """Whether there is a worker without work."""
        return len(self._flying) < self.workers

    def submit(self, population: Population, job: Job) -> None:
        """Train a population as soon as its resources are free."""
        self._flying[self._task.remote(job, __version__)] = population

    def wait(self, seconds: float) -> list[tuple[Population, Outcome | BaseException]]:
        """Return what has ended."""
        ray = self._ray
        if not self._flying:
            threading.Event().wait(seconds)
            return []
        ready, _ = ray.wait(list(self._flying), num_returns=1, timeout=seconds)
        ended: list[tuple[Population, Outcome | BaseException]] = []
        for reference in ready:
            population = self._flying.pop(reference)
            try:
                ended.append((population, ray.get(reference)))
            except ray.exceptions.RayTaskError as error:
                cause = error.cause if isinstance(error.cause, BaseException) else error
                ended.append((population, cause))
            except ray.exceptions.RayError as error:  # a worker or its machine is gone
                ended.append((population, error))
        return ended

    def stop(self) -> None:
        """End the workers; a cluster that was there before stays."""
        for reference in self._flying:
            self._ray.cancel(reference, force=True)
        self._flying.clear()
        if self._own and self._ray.is_initialized():
            self._ray.shutdown()


def check_address(address: str) -> None:
    """Find out within a minute whether a Ray cluster can be reached.

    Ray itself waits for minutes where something else than Ray answers: a process of its own tries.

    Args:
        address: auto, HOST:PORT or ray://HOST:PORT.

    Raises:
        UserError: there is no cluster, or it does not answer within :data:`CONNECT_SECONDS`.
    """
    if address not in ("auto", "local"):
        parts = re.fullmatch(r"(?:ray://)?\[?([^/\]]+)\]?:(\d{1,5})", address)
        if parts is None:
            raise UserError(f"address is {address}: give auto, HOST:PORT or ray://HOST:PORT")
        try:
            socket.create_connection((parts[1], int(parts[2])), timeout=_TCP_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise UserError(
                f"address {address}: nothing answers there ({error}); start a cluster with ray start"
            ) from error
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE, address], capture_output=True, text=True, timeout=CONNECT_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"address {address}: no Ray cluster answers there within {CONNECT_SECONDS:.0f} seconds; start one with ray"
            " start"
        ) from None
    if probe.returncode != 0:
        said = [line for line in probe.stderr.splitlines() if line.strip()]
        first = " ".join(said[-1].split())[:200] if said else f"exit code {probe.returncode}"
        raise UserError(
            f"address {address}: no Ray cluster can be reached there ({first}); start one with ray start"
        )


def processors() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


@lru_cache(maxsize=4)
def _members(text: str, current_folder: str) -> dict[str, PlannedMember]:
    return {member.training: member for member in plan_members(study_from_text(text))}


def _work(job: Job, version: str) -> Outcome:
    """Train a population in a worker's process."""
    if Path(job.current_folder).is_dir():
        os.chdir(job.current_folder)  # relative paths of the data, and the user's modules, start there
    with only_named_classes(job.modules):
        return _work_guarded(job, version)


def _work_guarded(job: Job, version: str) -> Outcome:
    import ray

    if version != __version__:
        raise UserError(
            f"a worker has asr-dni {__version__}, the study was started with {version}: install the same everywhere"
        )
    folder = StudyFolder(job.folder)
    if not folder.study_file.is_file():
        host = os.uname().nodename
        raise UserError(
            f"{job.folder} is not there on {host}: give an --output on storage that all machines share"
        )
    set_threads(job.threads)
    keep_freed_memory()
    device = "cuda" if ray.get_gpu_ids() else "cpu"
    members = _members(job.text, job.current_folder)
    unknown = [training for training in job.trainings if training not in members]
    if unknown:
        raise UserError(
            "a worker finds other data than the study was started with: bring the same to all machines"
        )
    population = Population(tuple(members[training] for training in job.trainings))
    return work_noting_failure(study_from_text(job.text), folder, population, job, device)
