"""From a study to what there is to do: its members, their identities, and the populations they are trained in."""

import dataclasses
import itertools
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from asr_dni import __version__
from asr_dni.data import SequenceData
from asr_dni.evaluation.measurement.sweep import Sweep
from asr_dni.identity import data_settings, evaluation_settings, optimizer_settings
from asr_dni.model.annealing import NoiseAnnealing
from asr_dni.model.network import NetworkSettings, equations_of
from asr_dni.noise import Hardware
from asr_dni.study.identities import digest_of, text_of
from asr_dni.study.noise_settings import NoiseModel
from asr_dni.study.reading import Study


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A member's evaluation on one hardware: what one file of the ledger holds.

    Attributes:
        sweep: the hardware, and the strengths, chips and draws.
        configuration: everything that decides the result, of the training too, as JSON.
        result: hash of ``configuration``; the ledger's ``member``.
        votes: how many draws decide together.
        compensation: for which noise of the training the gates are softened, see
            :class:`~asr_dni.study.evaluation_settings.EvaluationSettings`.
    """

    sweep: Sweep
    configuration: str
    result: str
    votes: int = 1
    compensation: Literal["auto"] | float | None = None

    @property
    def n_passes(self) -> int:
        """Passes over the clips, which evaluations by other votes may share, see :attr:`PlannedMember.measured`."""
        return len(self.sweep.passes)

    @property
    def n_rows(self) -> int:
        """Rows in the ledger: one per strength, chip and vote."""
        return len(dataclasses.replace(self.sweep, draws=self.sweep.draws // self.votes).passes)


@dataclasses.dataclass(frozen=True)
class PlannedMember:
    """One network of a study.

    Attributes:
        network: what it is made of.
        noise: the kind of noise of its training.
        schedule: name of the schedule that takes the noise to ``sigma_train``; of several the first one, where
            ``sigma_train`` is 0.
        sigma_train: largest noise of the training's end.
        annealing: arguments of :class:`~asr_dni.model.NoiseAnnealing`.
        seed: of weights, noise and dropout.
        data_seed: of the order of the clips and their augmentation.
        training: hash of everything that decides the weights.
        shape: hash of what members of one population have in common.
        evaluations: one per hardware (of Gaussian noise: per scale), compensation and number of votes.
    """

    network: NetworkSettings
    noise: NoiseModel
    schedule: str
    sigma_train: float
    annealing: Mapping[str, Any] = dataclasses.field(hash=False)
    seed: int
    data_seed: int
    training: str
    shape: str
    evaluations: tuple[Evaluation, ...]

    @property
    def results(self) -> frozenset[str]:
        """Names of its results in the ledger."""
        return frozenset(evaluation.result for evaluation in self.evaluations)

    @cached_property
    def measured(self) -> tuple[tuple[Evaluation, ...], ...]:
        """The evaluations, those together that are made of the same passes: they differ in votes alone."""
        groups: list[list[Evaluation]] = []
        for one in self.evaluations:
            if groups and groups[-1][0].sweep is one.sweep and groups[-1][0].compensation == one.compensation:
                groups[-1].append(one)
            else:
                groups.append([one])
        return tuple(map(tuple, groups))

    @property
    def n_passes(self) -> int:
        """Passes over the clips that all evaluations take together."""
        return sum(group[0].n_passes for group in self.measured)

    def compensated(self, evaluation: Evaluation) -> Hardware | float | None:
        """Return the noise that the gates are softened for in an evaluation; ``None``: they are not."""
        if evaluation.compensation != "auto":
            return evaluation.compensation
        return self.noise.training_noise().at(self.sigma_train).hardware if self.sigma_train else None

    @property
    def cell(self) -> str:
        """Kind of cell."""
        return self.network.cell


@dataclasses.dataclass(frozen=True)
class Population:
    """Members of one shape that are trained at once.

    Attributes:
        members: which; their order is that of the stacked networks.
    """

    members: tuple[PlannedMember, ...]

    @cached_property
    def id(self) -> str:
        """Hash of its members' trainings."""
        return digest_of([member.training for member in self.members])

    @property
    def title(self) -> str:
        """A few words that say what is trained."""
        first = self.members[0]
        layers = f"{first.network.layers}x" if first.network.layers > 1 else ""
        count = f"{len(self.members)} members" if len(self.members) > 1 else "1 member"
        return f"{first.cell} {layers}{first.network.units}, {self.noise}, {count}"

    @property
    def noise(self) -> str:
        """The kinds of noise of its members, in a few words."""
        return " and ".join(dict.fromkeys(member.noise.word for member in self.members))

    @property
    def results(self) -> frozenset[str]:
        """Names of all members' results in the ledger."""
        return frozenset().union(*(member.results for member in self.members))


def plan_members(study: Study, data: SequenceData | None = None) -> list[PlannedMember]:
    """Return all members of a study, each once.

    A member's identity is the hash of what decides its result: network, noise, annealing, seeds, optimiser and the
    other settings of the training, the data's identity and settings, and the evaluation. The version of the code and
    the device are not part of it: the ledger notes the version beside each result, and a study goes on after an update.
    Nor are the study's name, and the population that a member is trained in.

    Args:
        study: the study.
        data: its data module, if there is one already; only asked what it is.

    Raises:
        UserError: the data cannot be told.
    """
    settings = study.settings
    data = study.make_data(0) if data is None else data
    common = common_configuration(study, data)
    members: dict[str, PlannedMember] = {}
    sweeps = [settings.sweeps_of(noise) for noise in settings.noise_models]
    for cell, units, layers, noise, seed in itertools.product(
        settings.cells, settings.units, settings.n_layers, settings.noise_models, settings.seed_list
    ):
        network = settings.network(cell, units, layers)
        schedules = settings.schedules_of(noise)
        for (name, schedule), sigma in itertools.product(schedules.items(), settings.sigmas_of(noise)):
            if sigma == 0 and name != next(iter(schedules)):
                continue
            annealing = schedule.annealing(sigma)
            data_seed = seed if settings.share_data_order == "seed" else 0
            own = {
                "network": _plain_network(network),
                "noise": noise.settings(),
                "optimizer": _plain_optimizer(study, cell),
                **common["training"],
            }
            training = {
                **own,
                "annealing": NoiseAnnealing(**annealing).training_settings()["annealing"],
                "seed": seed,
                "data_seed": data_seed,
            }
            evaluations, evaluated = [], []
            for sweep in sweeps[settings.noise_models.index(noise)]:
                for compensation, votes in itertools.product(
                    settings.evaluation.compensations(), settings.evaluation.numbers_of_votes(sweep)
                ):
                    evaluation = {
                        **common["evaluation"],
                        **_plain_sweep(sweep, noise),
                        "draws": sweep.draws,
                        # Results of before there were any are the same.
                        **({} if votes == 1 else {"votes": votes}),
                        **({} if compensation is None else {"compensation": compensation}),
                    }
                    text = text_of({**training, "evaluation": evaluation})
                    evaluations.append(Evaluation(sweep, text, digest_of(text), votes, compensation))
                    evaluated.append(evaluation)
            member = PlannedMember(
                network,
                noise,
                name,
                float(sigma),
                annealing,
                seed,
                data_seed,
                digest_of(training),
                digest_of({**own, "evaluations": evaluated}),
                tuple(evaluations),
            )
            members.setdefault(member.training, member)
    return list(members.values())


def common_configuration(study: Study, data: SequenceData) -> dict[str, Any]:
    """Return what all members of a study share: ``training``, ``evaluation``."""
    settings = study.settings
    return {
        "training": {
            "data": describe_data(data),
            "epochs": settings.epochs,
            "training": settings.training.as_settings(),
        },
        "evaluation": {
            "split": settings.evaluation.split,
            "draws": settings.evaluation.draws,
            "seed": settings.evaluation.seed,
        },
    }


def describe_data(data: SequenceData) -> dict[str, Any]:
    """Return what data are, the same on every machine: no paths, no seed."""
    return {"class": type(data).__qualname__, "labels": data.label_names, **data_settings(data)}


def at_trained_sites(sweep: Sweep, noise: NoiseModel) -> bool:
    """Return whether training and evaluation are both under Gaussian noise, at the same sites and on like arrays."""
    trained, noted = noise.settings(), evaluation_settings(sweep.noise.hardware, sweep.strength)
    if "hardware" in trained or "hardware" in noted:
        return False
    return set(trained["sites"]) == set(noted["sites"]) and trained["arrays"] == noted["arrays"]


def _plain_sweep(sweep: Sweep, noise: NoiseModel) -> dict[str, Any]:
    """Return what decides an evaluation, beside draws and seed.

    At the sites of the training's noise, and over sigma, it is what it was before there was any other hardware.
    """
    noted, levels = evaluation_settings(sweep.noise.hardware, sweep.strength), list(sweep.values)
    if at_trained_sites(sweep, noise):
        return {"scale": noted["scale"], "sigma_infer": levels}
    return {**noted, "strengths": levels, "chips": sweep.chips}


def _plain_network(network: NetworkSettings) -> dict[str, Any]:
    plain = dataclasses.asdict(network)
    if equations_of(network.cell).forget_gate is None:
        del plain["forget_bias"]  # does nothing
    if not network.projection:
        del plain["projection"]  # members of before there was one are the same
    if network.convolutions is None:
        del plain["convolutions"]
    if network.recurrent_initialisation == "uniform":
        del plain["recurrent_initialisation"]
    if network.products is None:
        del plain["products"]
    return plain


def _plain_optimizer(study: Study, cell: str) -> dict[str, Any]:
    rate = study.settings.recipes.of(cell).learning_rate
    arguments = dict(study.optimizer.get("init_args") or {}) | ({} if rate is None else {"lr": rate})
    return {"class": study.optimizer["class_path"], **optimizer_settings(arguments)}


@cache
def code_version() -> str:
    """Return the package's version, and the commit where it runs from a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return __version__
    try:
        said = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}+{said.stdout.strip()}"


# ---------------------------------------------------------------------- populations


def partition(
    members: Iterable[PlannedMember], largest: Mapping[str, int] | int, at_least: int = 1
) -> list[Population]:
    """Group members into populations of one shape.

    Members that see the same batches come into one population as far as possible: their features are computed once.

    Args:
        members: those to train.
        largest: how many members a population may have, of each shape or of all.
        at_least: how many populations there should be, if there are so many members: one for every worker.

    Returns:
        Populations, those of one shape of nearly equal size.
    """
    shapes: dict[str, list[PlannedMember]] = {}
    for member in members:
        shapes.setdefault(member.shape, []).append(member)
    limits = {shape: max(1, largest if isinstance(largest, int) else largest[shape]) for shape in shapes}
    counts = {shape: -(-len(group) // limits[shape]) for shape, group in shapes.items()}
    # One more of the largest, until there is work for every worker.
    while sum(counts.values()) < at_least:
        can = [shape for shape, group in shapes.items() if counts[shape] < len(group)]
        if not can:
            break
        counts[max(can, key=lambda s: len(shapes[s]) * _weight(shapes[s][0]) / counts[s])] += 1
    populations = []
    for shape, group in shapes.items():
        group = sorted(group, key=lambda member: member.data_seed)  # stable
        for first, last in _cuts([member.data_seed for member in group], counts[shape], limits[shape]):
            populations.append(Population(tuple(group[first:last])))
    return populations


def _cuts(seeds: Sequence[int], parts: int, limit: int) -> list[tuple[int, int]]:
    """Cut a sorted sequence into so many parts: between two seeds, where none gets much larger by it."""
    n = len(seeds)
    blocks = [0, *(place for place in range(1, n) if seeds[place] != seeds[place - 1]), n]
    n_blocks = len(blocks) - 1
    if n_blocks >= parts:
        aligned = [blocks[n_blocks * part // parts] for part in range(parts)] + [n]
        largest = max(last - first for first, last in itertools.pairwise(aligned))
        if largest <= min(limit, 1.25 * n / parts):
            return list(itertools.pairwise(aligned))
    return list(itertools.pairwise([n * part // parts for part in range(parts + 1)]))


def _weight(member: PlannedMember) -> float:
    return float(member.network.units**2 * member.network.layers * len(equations_of(member.cell).gates))
