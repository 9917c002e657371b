"""How far a study is, from what is in its folder, and how long the rest will take."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from asr_dni.study.cost import DataSize, population_cost
from asr_dni.study.folder import Progress, StudyFolder
from asr_dni.study.plan import PlannedMember, Population
from asr_dni.study.reading import Study


@dataclass(frozen=True)
class Failure:
    """A population that could not be trained.

    Attributes:
        population: which.
        message: why, one line.
    """

    population: Population
    message: str


@dataclass(frozen=True)
class Survey:
    """How far a study is.

    Attributes:
        results: how many there will be: one per member and scale.
        done: how many there are.
        running: populations that are worked on, with their progress.
        waiting: populations that nobody works on yet.
        populations: all that are not done.
        fraction: part of all work that is done, in [0, 1].
        seconds_left: how long it will take; ``None`` before anything was measured.
        retries: how often a population was begun again.
        failures: populations that are given up.
    """

    results: int
    done: int
    running: Sequence[tuple[Population, Progress]]
    waiting: int
    populations: int
    fraction: float
    seconds_left: float | None
    retries: int = 0
    failures: Sequence[Failure] = ()


def fraction_done(population: Population, progress: Progress, done: Set[str]) -> float:
    """Return the part of a population's work that is done, in [0, 1]; 1 only where all of its results are there.

    Args:
        population: which.
        progress: how far it is with what it lacks.
        done: results that are there.
    """
    if population.results <= done:
        return 1.0
    there = len(population.results & done) / len(population.results)
    # One that was done, and whose results have gone since, begins anew.
    under_way = 0.0 if progress.state == "done" else min(max(progress.fraction, 0.0), 1.0)
    return min(there + (1 - there) * under_way, 0.999)


def survey(
    study: Study,
    folder: StudyFolder,
    members: Sequence[PlannedMember],
    populations: Iterable[Population],
    size: DataSize | None,
    workers: int = 1,
    costs: Mapping[str, float] | None = None,
) -> Survey:
    """Return how far a study is, from what is in its folder.

    Args:
        study: the study.
        folder: its folder.
        members: all of its members.
        populations: those that there is something to do for, or was at the beginning.
        size: of the data, for estimating the time.
        workers: how many work on it.
        costs: of the populations, where they are known.
    """
    done = folder.ledger.members()
    results = frozenset().union(*(member.results for member in members))
    running, waiting, unfinished = [], 0, 0
    measured: dict[str, list[float]] = {}
    left: list[tuple[str, float]] = []
    total_cost = done_cost = 0.0
    for population in populations:
        shape = population.members[0].shape
        progress = folder.progress(population.id)
        complete = population.results <= done
        fraction = fraction_done(population, progress, done)
        if size is not None:
            cost = (costs or {}).get(population.id) or population_cost(study, population, size)
            total_cost += cost
            done_cost += cost * fraction
            if progress.seconds > 1 and progress.fraction > 0 and progress.state != "done":
                measured.setdefault(shape, []).append(cost * progress.fraction / progress.seconds)
            if not complete and progress.state != "failed":
                left.append((shape, cost * (1 - fraction)))
        if complete:
            continue
        unfinished += 1
        if folder.claimed(population.id):
            running.append((population, progress))
        elif progress.state != "failed":
            waiting += 1
    # Work that was done in earlier starts counts as members, not as operations.
    total = len(results)
    n_done = len(results & done)
    of_members = n_done / total if total else 1.0
    fraction = of_members
    if total_cost and unfinished:
        in_this_start = len(frozenset().union(*(p.results for p in populations)))
        share = in_this_start / total if total else 1.0
        fraction = (1 - share) + share * done_cost / total_cost
    if n_done < total:
        fraction = min(fraction, 0.999)
    rates = [rate for values in measured.values() for rate in values]
    seconds_left = None
    if not left:
        seconds_left = 0.0
    elif rates:
        average = sum(rates) / len(rates)
        own = {shape: sum(values) / len(values) for shape, values in measured.items()}
        each = [cost / own.get(shape, average) for shape, cost in left]
        seconds_left = max(sum(each) / max(1, min(workers, len(each))), max(each))
    return Survey(total, n_done, running, waiting, unfinished, fraction, seconds_left)
