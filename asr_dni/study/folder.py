"""A study's folder: results, what is being trained by whom and how far it is, and what a training is resumed from."""

import dataclasses
import json
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from asr_dni.errors import UserError
from asr_dni.files import write_atomically
from asr_dni.study.ledger import Ledger
from asr_dni.study.plan import PlannedMember, Population, common_configuration
from asr_dni.study.reading import Study, study_from_text

LEASE_SECONDS = 60.0
"""A population whose worker has given no sign of life for so long is anybody's."""
LOCK_SECONDS = 120.0
"""How long a start waits for another that decides."""
SIGN_SECONDS = 10.0
"""Between a worker's signs of life."""

State = Literal["waiting", "training", "evaluating", "done", "failed"]


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a population is.

    Attributes:
        state: what happens to it.
        epoch: epochs that are done.
        epochs: epochs of the training.
        fraction: part of all its work, in [0, 1], that is done.
        train_seconds: time that its training has taken, over all its starts.
        seconds: time that all its work has taken, over all its starts.
        members: how many networks are trained.
        device: on what.
        message: what went wrong.
    """

    state: State = "waiting"
    epoch: int = 0
    epochs: int = 0
    fraction: float = 0.0
    train_seconds: float = 0.0
    seconds: float = 0.0
    members: int = 0
    device: str = ""
    message: str = ""


class StudyFolder:
    """The files of a study; any number of processes on any number of machines may use it at once.

    - ``study.yaml``: the settings of the last start
    - ``common.json``: what all results here have in common
    - ``ledger/``: the results
    - ``populations/ID/``: ``members.json``; ``claim.json``, who works on it; ``progress.json``; ``last.ckpt``, what it
      is resumed from
    - ``checkpoints/``: the members' own, where the study keeps them
    - ``report/``: findings, figures and tables

    Starts decide under a lock, one after the other, which populations there are and who works on them, so that no
    member is trained by two at once, whatever the starts' settings. Results do not depend on it: where two have trained
    the same member all the same, as after a machine was cut off for a while, the ledger keeps the first result.

    Args:
        path: the folder; it is made when something is written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.ledger = Ledger(self.path / "ledger")

    # ------------------------------------------------------------------ the study

    @property
    def study_file(self) -> Path:
        """Settings of the last start."""
        return self.path / "study.yaml"

    @property
    def report(self) -> Path:
        """Where findings and figures go."""
        return self.path / "report"

    def check(self, study: Study, data: Any) -> dict[str, Any]:
        """Return what members of all starts share, of this one and of those before.

        Axes may grow, shrink or move from start to start. What all members share may not change: two trainings of one
        name would be in one matrix.

        Raises:
            UserError: the folder holds results of another training.
        """
        common = _what_is_shared(study, data)
        if self._common.exists():
            before = _read_json(self._common)
            if not isinstance(before, dict):  # damaged
                recorded = self.read_study()
                before = _what_is_shared(recorded, recorded.make_data(0))
            now = dict(common)
            for axis in ("recipes", "schedules"):
                known = before.get(axis, {})
                now[axis] = known | {name: value for name, value in common[axis].items() if name in known}
                common[axis] = known | common[axis]
            key = _first_difference(before, now)
            if key is not None and self.ledger.members():
                raise UserError(
                    f"{self.path} holds results of another training, which differs in {key}: give another --output"
                )
        return common

    @property
    def _common(self) -> Path:
        return self.path / "common.json"

    def record(self, study: Study, data: Any) -> None:
        """Note the settings of a start.

        Raises:
            UserError: see :meth:`check`.
        """
        with self.assigning():
            _write_json(self._common, self.check(study, data))
            with write_atomically(self.study_file) as temporary:
                temporary.write_text(study.text, encoding="utf-8")

    def read_study(self) -> Study:
        """Return the study of the last start.

        Raises:
            UserError: there is none.
        """
        try:
            text = self.study_file.read_text(encoding="utf-8")
        except OSError:
            raise UserError(f"{self.path} is not a study's folder: it has no study.yaml") from None
        try:
            return study_from_text(text)
        except UserError as error:
            raise UserError(f"{self.study_file}: {error}") from error

    # ------------------------------------------------------------------ populations

    def _of(self, population: str) -> Path:
        return self.path / "populations" / population

    def checkpoint(self, population: str) -> Path:
        """Return what a population is resumed from."""
        return self._of(population) / "last.ckpt"

    def checkpoint_of_member(self, training: str) -> Path:
        """Return where a member's own checkpoint is kept."""
        return self.path / "checkpoints" / f"{training}.ckpt"

    def keeps(self, members: Iterable[PlannedMember]) -> bool:
        """Return whether there are checkpoints of all of these members: they need not be trained."""
        return all(self.checkpoint_of_member(member.training).is_file() for member in members)

    def recorded_populations(self) -> dict[str, list[str]]:
        """Return the trainings of every population that was begun or assigned, by the population's id."""
        found = {}
        for path in sorted(self.path.glob("populations/*/members.json")):
            members = _read_json(path)
            if isinstance(members, list) and members and len(_texts(members)) == len(members):
                found[path.parent.name] = members
        return found

    def known_populations(self, members: Iterable[PlannedMember]) -> list[Population]:
        """Return the populations that were assigned before and that still have something to do.

        Those with members that the study no longer has are left out.
        """
        by_training = {member.training: member for member in members}
        done = self.ledger.members()
        known: list[Population] = []
        taken: set[str] = set()
        recorded = self.recorded_populations()
        # Those that have come furthest first, should two share a member.
        for name in sorted(recorded, key=lambda name: -self.progress(name).fraction):
            trainings = recorded[name]
            if not all(training in by_training for training in trainings) or taken & set(trainings):
                continue
            population = Population(tuple(by_training[training] for training in trainings))
            if population.results <= done:
                continue
            taken |= set(trainings)
            known.append(population)
        return known

    def assign(self, populations: Iterable[Population]) -> None:
        """Note populations, so that a later start, with more workers or fewer, goes on with the same ones."""
        for population in populations:
            path = self._of(population.id) / "members.json"
            if not path.exists():
                _write_json(path, [member.training for member in population.members])

    def forget(self, population: str) -> None:
        """Remove a population that others take the place of."""
        shutil.rmtree(self._of(population), ignore_errors=True)

    def progress(self, population: str) -> Progress:
        """Return how far a population is."""
        found = _read_json(self._of(population) / "progress.json")
        if not isinstance(found, dict):
            return Progress()
        kinds = {field.name: type(field.default) for field in dataclasses.fields(Progress)}
        known = {name: value for name, value in found.items() if name in kinds}
        fits = all(
            isinstance(value, (kinds[name], int) if kinds[name] is float else kinds[name])
            for name, value in known.items()
        )
        return Progress(**known) if fits else Progress()

    def write_progress(self, population: str, progress: Progress) -> None:
        """Note how far a population is."""
        _write_json(self._of(population) / "progress.json", dataclasses.asdict(progress))

    # ------------------------------------------------------------------ claims

    @contextmanager
    def claim(self, population: str, run: str, trainings: Iterable[str] = ()) -> Iterator[bool]:
        """Work on a population alone, while the block lasts; yield whether it is ours.

        It is not where somebody else works on it, or on another population that has one of its members: a start with
        other settings has others.

        A claim gives a sign of life every ten seconds. It is taken over where it belongs to the same run (whose worker
        has died), to a process of this machine that is no more, or has given no sign for :data:`LEASE_SECONDS`.

        Args:
            population: its id.
            run: of whom: the same for all workers of one start.
            trainings: its members.

        Raises:
            UserError: see :meth:`assigning`.
        """
        path = self._of(population) / "claim.json"
        token = secrets.token_hex(8)
        mine = {
            "run": run,
            "token": token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "trainings": sorted(trainings),
        }
        if not self._take(path, mine):
            yield False
            return
        ended = threading.Event()

        def give_signs() -> None:
            while not ended.wait(SIGN_SECONDS):
                try:
                    os.utime(path)
                except OSError:
                    return

        signs = threading.Thread(target=give_signs, daemon=True, name=f"claim of {population}")
        signs.start()
        try:
            yield True
        finally:
            ended.set()
            found = _read_json(path)
            if isinstance(found, dict) and found.get("token") == token:
                path.unlink(missing_ok=True)

    def _take(self, path: Path, mine: Mapping[str, Any]) -> bool:
        path.parent.mkdir(parents=True, exist_ok=True)
        wanted = set(mine["trainings"])
        with self.assigning():
            for other in self.path.glob("populations/*/claim.json"):
                claim = _read_json(other)
                shared = other == path or (
                    isinstance(claim, dict) and wanted & _texts(claim.get("trainings"))
                )
                if shared and not self._free(other, claim, str(mine["run"])):
                    return False
            _write_json(path, mine)
        return True

    def _free(self, path: Path, claim: Any, run: str) -> bool:
        if not isinstance(claim, dict) or claim.get("run") == run:
            return True
        if claim.get("host") == socket.gethostname() and not _alive(claim.get("pid")):
            return True
        return self._age(path) > LEASE_SECONDS

    def _age(self, path: Path) -> float:
        """Return the seconds since the last sign, by the clock of the file system, which all machines share."""
        probe = path.with_name(f".now-{secrets.token_hex(4)}")
        try:
            probe.touch()
            now = probe.stat().st_mtime
            return now - path.stat().st_mtime
        except FileNotFoundError:
            return 0.0
        finally:
            probe.unlink(missing_ok=True)

    def claimed(self, population: str, run: str | None = None) -> bool:
        """Return whether somebody else than ``run`` works on a population."""
        path = self._of(population) / "claim.json"
        if not path.exists():
            return False
        found = _read_json(path)
        return found is not None and not self._free(path, found, run or "")

    def release(self, run: str) -> None:
        """Give back the claims of a run whose workers are gone."""
        for path in self.path.glob("populations/*/claim.json"):
            found = _read_json(path)
            if isinstance(found, dict) and found.get("run") == run:
                path.unlink(missing_ok=True)

    @contextmanager
    def assigning(self) -> Iterator[None]:
        """Let one process at a time decide which populations there are, and who works on them.

        Raises:
            UserError: another has been at it for :data:`LOCK_SECONDS`, which takes it moments.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / ".lock"
        try:
            lock: BaseFileLock = FileLock(path)
            try:
                lock.acquire(timeout=LOCK_SECONDS)
            except (OSError, NotImplementedError) as error:
                if isinstance(error, Timeout):
                    raise
                # A file system without such locks: there the file's existence is the lock.
                path = self.path / ".lock.exists"
                lock = SoftFileLock(path)
                lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise UserError(
                f"{path}: another start of this study has held this lock for {LOCK_SECONDS:.0f} seconds; one that was"
                " stopped has to go on or to be ended, and where none is left, remove the file"
            ) from None
        try:
            yield
        finally:
            lock.release()


def _what_is_shared(study: Study, data: Any) -> dict[str, Any]:
    """Return what all members of a start share, as a file has it."""
    recipes = {cell: dataclasses.asdict(study.settings.recipes.of(cell)) for cell in study.settings.cells}
    schedules = {name: dataclasses.asdict(value) for name, value in study.settings.schedules.items()}
    shared = {
        **common_configuration(study, data),
        "optimizer": dict(study.optimizer),
        "share_data_order": study.settings.share_data_order,
        "recipes": recipes,
        "schedules": schedules,
    }
    plain: dict[str, Any] = json.loads(json.dumps(shared, default=str))
    return plain


def _texts(found: Any) -> set[str]:
    """Return the strings of a list that a file should hold."""
    return {text for text in found if isinstance(text, str)} if isinstance(found, list) else set()


def _alive(pid: Any) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    # A process that has ended and that its parent has not asked for is dead as well.
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def _read_json(path: Path) -> Any:
    for _ in range(3):
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):  # a network's file system may show a file before its contents
            time.sleep(0.05)
    return None


def _write_json(path: Path, value: Any) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, default=str), encoding="utf-8")


def _first_difference(before: Any, after: Any, name: str = "") -> str | None:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            found = _first_difference(before.get(key), after.get(key), f"{name}.{key}" if name else str(key))
            if found is not None:
                return found
        return None
    if before == after:
        return None
    where = name.replace("training.training.", "training.").replace("training.data.", "data.")
    where = where.removeprefix("training.") if where == "training.epochs" else where
    return f"{where} ({before} there, {after} here)"
