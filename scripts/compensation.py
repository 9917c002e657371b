"""Measure when gates softened for missing noise help: the tables and the figure of docs/compensation.md.

    python scripts/compensation.py --runs TRAINING... --kept FOLDER          # measures and prints
    python scripts/compensation.py --runs TRAINING... --kept FOLDER --page   # the same, and writes docs/compensation.md

TRAINING is a folder with a run for each seed (``seed_1/version_0/checkpoints/last.ckpt``), such as
runs/eight_words/lstm_dni_2, or NAME=FOLDER; runs that are not finished are left out. FOLDER keeps what every clip was
taken for: it goes on where it stopped, and runs that are added later cost only themselves. All is chosen and taken
apart on the validation split; the test split is measured at what was chosen, and nowhere else.
"""

import argparse
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from marked_places import fill
from mistakes import told_in_a_line
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from asr_dni.data.batch import Batch
from asr_dni.evaluation.measurement.outcomes import EvaluationSet, Outcomes, OutcomeStore
from asr_dni.evaluation.measurement.scoring import evaluating, fingerprint
from asr_dni.evaluation.measurement.sweep import Level
from asr_dni.evaluation.questions.voting import vote
from asr_dni.files import write_atomically
from asr_dni.inference import Spotter, load
from asr_dni.model import KeywordNetwork
from asr_dni.nn import DropoutSeed, compensate, seeded_dropout
from asr_dni.nn.compensation import SoftenedModule
from asr_dni.nn.dropout import DroppingModule
from asr_dni.noise import Hardware, Noise
from asr_dni.plotting import Axis, Figure, Legend, Line, Panel, Reference, curve_style
from asr_dni.plotting.with_matplotlib import save
from asr_dni.study.hypothesis_tests import student_t_tests
from asr_dni.wording import count

DOCS = Path(__file__).resolve().parent.parent / "docs"
STRENGTHS = tuple(k / 4 for k in range(13))
UNDER_NOISE = (0.0, 1.0, 1.5, 2.0, 3.0)
SIGMAS = (0.0, 0.5, 1.0, 1.5, 2.0)
DRAWS = 2
VOTES = 16
OF_PARTS = (1.0, 2.0)
VALIDATION, TEST = "validation", "test"
PAGE = DOCS / "compensation.md"


@dataclass(frozen=True)
class Run:
    """A trained network.

    Attributes:
        training: name of the training, the same for all seeds.
        seed: of the training.
        checkpoint: its file.
    """

    training: str
    seed: str
    checkpoint: Path


def find_runs(trainings: Iterable[str]) -> list[Run]:
    """Return the finished runs of some trainings."""
    found = []
    for training in trainings:
        name, _, folder = training.rpartition("=")
        for curve in sorted(Path(folder).glob("seed_*/version_*/noise_curve.csv")):
            checkpoint = curve.parent / "checkpoints" / "last.ckpt"
            seed = curve.parent.parent.name.removeprefix("seed_")
            if checkpoint.is_file():
                found.append(Run(name or Path(folder).name, seed, checkpoint))
    return found


Groups: TypeAlias = dict[str, list[Run]]


class Measured:
    """What the networks say of the clips of a split; measured once, and kept.

    Args:
        kept: folder of the files.
    """

    def __init__(self, kept: Path) -> None:
        self._kept = kept
        self._spotter = cache(self._load)
        self._clips = cache(self._open)

    def _load(self, run: Run) -> Spotter:
        return load(run.checkpoint)

    def _open(self, run: Run, split: str) -> EvaluationSet:
        data = self._spotter(run).data(None, cast(Any, split))
        return EvaluationSet(data.batches(cast(Any, split), "cpu"))

    def sigma_train(self, run: Run) -> float:
        """Return the sigma that a network was trained under."""
        return float(self._spotter(run).model.curve_settings()["sigma_train"])

    def missing(self, run: Run, sigma: float) -> float:
        """Return the standard deviation of the training's noise that is missing under sigma, by theory."""
        return math.sqrt(max(self.sigma_train(run) ** 2 - sigma**2, 0.0))

    def at(
        self,
        run: Run,
        split: str,
        sigma: float,
        s: float,
        draws: int = DRAWS,
        gates: str = "",
        layers: str = "",
    ) -> Outcomes:
        """Return what a network says under noise of sigma, softened by s.

        Args:
            run: the network.
            split: of the clips.
            sigma: of the noise.
            s: standard deviation of the missing noise.
            draws: of the noise.
            gates: soften only these, such as ``ifo``; "": all. Only without noise.
            layers: soften only these, such as ``l0``; "": all. Only without noise.
        """
        network = self._spotter(run).network
        noise = Noise(sigma=sigma, sites=self._spotter(run).model.training_noise.hardware.sites)
        if gates or layers:
            network = _softened_partly(network, s, gates, layers)
        elif s:
            noise = noise.compensating(math.hypot(s, sigma))
        store = OutcomeStore(network, self._clips(run, split), self._kept / split)
        return store.outcomes(Level(sigma, noise, 1, draws if sigma else 1))

    def by_dropout(self, run: Run) -> NDArray[np.float64]:
        """Return of each validation clip whether passes without noise whose dropout is on as in training are right."""
        network, clips = self._spotter(run).network, self._clips(run, VALIDATION)
        path = self._kept / f"dropout_{fingerprint(network)}_{clips.fingerprint()}.npy"
        if not path.is_file():
            voted = [_vote_of_dropout(network, batch) == batch.labels for batch in clips.batches]
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_atomically(path) as temporary, open(temporary, "wb") as file:
                np.save(file, torch.cat(voted).double().numpy())
        return cast(NDArray[np.float64], np.load(path))


@torch.no_grad()
def _vote_of_dropout(network: KeywordNetwork, batch: Batch) -> torch.Tensor:
    with evaluating(network):
        for module in network.modules():
            if isinstance(module, DroppingModule):
                module.train()
        posteriors = []
        for step in range(VOTES):
            with seeded_dropout(network, DropoutSeed(0, step, batch.clip_ids)):
                posteriors.append(network(batch.features).softmax(-1))
    return torch.stack(posteriors).mean(0).argmax(-1)


def _softened_partly(network: Any, s: float, gates: str, layers: str) -> Any:
    """Return a network of which only some gates or layers are softened."""
    softened = compensate(network, Hardware(output=Noise(sigma=s).hardware.output))
    pairs = zip(network.modules(), softened.modules(), strict=True)
    for before, after in ((one, two) for one, two in pairs if isinstance(one, SoftenedModule)):
        width, names = after.hidden_size, after._equations.gates
        for name, parameter in after.named_parameters():
            for place, gate in enumerate(names):
                if (gates and gate not in gates) or (layers and layers not in name):
                    rows = slice(place * width, (place + 1) * width)
                    with torch.no_grad():
                        parameter[rows] = dict(before.named_parameters())[name][rows]
    return softened


def right(outcomes: Outcomes) -> NDArray[np.float64]:
    """Return of each clip in which share of the draws it is right."""
    return outcomes.right[0].double().mean(0).numpy()


def right_by_vote(outcomes: Outcomes) -> NDArray[np.float64]:
    """Return of each clip whether all draws together are right."""
    return (vote(outcomes.posteriors[0], "mean") == outcomes.labels).double().numpy()


def loss(outcomes: Outcomes) -> float:
    """Return the mean cross entropy in nats."""
    logits = outcomes.logits[0]
    targets = outcomes.labels.expand(logits.shape[:-1]).reshape(-1)
    return float(cross_entropy(logits.flatten(0, -2), targets))


@dataclass(frozen=True)
class Difference:
    """Of two ways to run the same networks on the same clips.

    Attributes:
        mean: over seeds and clips, in points.
        low: of the 95 % interval over clips, whose mean over seeds is what varies (Student t).
        high: likewise.
        by_seed: each seed's own.
        detectable: the true one that a test over clips would have found with 80 % probability.
    """

    mean: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    detectable: float

    @classmethod
    def of(cls, one: Sequence[NDArray[np.float64]], other: Sequence[NDArray[np.float64]]) -> "Difference":
        """Return ``one`` less ``other``, an array of clips for each seed."""
        by_clip = 100 * (np.stack(one) - np.stack(other))
        tests = student_t_tests(by_clip.mean(0), counting=0.0)
        return cls(
            float(tests.effect),
            float(tests.low),
            float(tests.high),
            tuple(by_clip.mean(1).tolist()),
            float(tests.detectable(1)),
        )

    def __str__(self) -> str:
        """Return mean, interval and seeds."""
        seeds = " ".join(f"{its:+.1f}" for its in self.by_seed)
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}] ({seeds})".replace("-", "−")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def mean_percent(of_seeds: Sequence[NDArray[np.float64]]) -> str:
    """Return the mean accuracy in percent."""
    return f"{100 * np.stack(of_seeds).mean():.1f}"


def group(runs: Sequence[Run]) -> Groups:
    """Return runs by training."""
    return {
        name: [run for run in runs if run.training == name]
        for name in dict.fromkeys(r.training for r in runs)
    }


def clean(measured: Measured, groups: Groups) -> str:
    """Return accuracy and loss on the validation split without noise, against s."""
    rows = []
    for training, runs in groups.items():
        own = {s: [measured.at(run, VALIDATION, 0.0, s) for run in runs] for s in STRENGTHS}
        rows.append([training, *(mean_percent([right(its) for its in own[s]]) for s in STRENGTHS)])
        rows.append(["loss", *(f"{np.mean([loss(its) for its in own[s]]):.3f}" for s in STRENGTHS)])
    return table(["s", *(f"{s:g}" for s in STRENGTHS)], rows)


def strength_of_least_loss(measured: Measured, run: Run) -> float:
    """Return the s at which a network has its least loss on the validation split without noise."""
    return min(STRENGTHS, key=lambda s: loss(measured.at(run, VALIDATION, 0.0, s)))


def chosen(measured: Measured, groups: Groups) -> str:
    """Return what comes of s as theory has it, and of s chosen on the validation split, there and on the test split."""
    rows = []
    for training, runs in groups.items():
        ways: dict[str, list[float]] = {}
        if all(measured.sigma_train(run) > 0 for run in runs):
            ways["s = σ_train"] = [measured.sigma_train(run) for run in runs]
        ways["least validation loss"] = [strength_of_least_loss(measured, run) for run in runs]
        ways["best validation accuracy"] = [
            max(STRENGTHS, key=lambda s, run=run: right(measured.at(run, VALIDATION, 0.0, s)).mean())  # type: ignore[misc]
            for run in runs
        ]
        for way, strengths in ways.items():
            cells = [training, way, " ".join(f"{s:g}" for s in strengths)]
            for split in (VALIDATION, TEST):
                base = [right(measured.at(run, split, 0.0, 0.0)) for run in runs]
                own = [right(measured.at(run, split, 0.0, s)) for run, s in zip(runs, strengths, strict=True)]
                cells += [
                    f"{mean_percent(base)} → {mean_percent(own)}",
                    str(Difference.of(own, base)),
                ]
            rows.append(cells)
    return table(
        ["network", "s by", "s of each seed", "validation", "difference", "test", "difference"], rows
    )


def against(measured: Measured, groups: Groups) -> str:
    """Return DNI, softened by its own sigma, less conventional training, on the test split without noise."""
    rows = []
    for training, runs in groups.items():
        kind, _, trained = training.rpartition(" ")
        other = groups.get(f"{kind} conventional")
        if trained != "DNI" or other is None or [its.seed for its in runs] != [its.seed for its in other]:
            continue
        own = [right(measured.at(run, TEST, 0.0, measured.sigma_train(run))) for run in runs]
        for says, strengths in (
            ("as trained", [0.0] * len(other)),
            ("softened, least validation loss", [strength_of_least_loss(measured, run) for run in other]),
        ):
            theirs = [right(measured.at(run, TEST, 0.0, s)) for run, s in zip(other, strengths, strict=True)]
            difference = Difference.of(own, theirs)
            rows.append(
                [
                    training,
                    mean_percent(own),
                    says,
                    mean_percent(theirs),
                    str(difference),
                    f"{difference.detectable:.1f}",
                ]
            )
    header = ["network, softened", "accuracy", "conventional", "accuracy", "difference", "detectable"]
    return table(header, rows)


def noisy(measured: Measured, groups: Groups) -> str:
    """Return differences that s makes on the validation split under noise that remains."""
    rows = []
    for training, runs in groups.items():
        for sigma in SIGMAS[1:]:
            own = {s: [right(measured.at(run, VALIDATION, sigma, s)) for run in runs] for s in UNDER_NOISE}
            differences = [str(Difference.of(own[s], own[0.0])) for s in UNDER_NOISE[1:]]
            rows.append([training, f"{sigma:g}", mean_percent(own[0.0]), *differences])
    return table(["network", "σ_infer", "s = 0", *(f"s = {s:g}" for s in UNDER_NOISE[1:])], rows)


def parts(measured: Measured, groups: Groups) -> str:
    """Return differences on the validation split, without noise, where only some gates or layers are softened."""
    subjects: dict[str, dict[str, Any]] = {
        "all": {},
        "i, f, o": {"gates": "ifo"},
        "g": {"gates": "g"},
        "layer 1": {"layers": "l0"},
        "layer 2": {"layers": "l1"},
    }
    rows = []
    for training, runs in groups.items():
        base = [right(measured.at(run, VALIDATION, 0.0, 0.0)) for run in runs]
        for s in OF_PARTS:
            cells = [training, f"{s:g}"]
            for only in subjects.values():
                own = [right(measured.at(run, VALIDATION, 0.0, s, **only)) for run in runs]
                cells.append(str(Difference.of(own, base)))
            rows.append(cells)
    return table(["network", "s", *subjects], rows)


def votes(measured: Measured, groups: Groups) -> str:
    """Return one softened pass without noise against a vote of noisy ones, of networks that were trained so."""
    rows = []
    for training, runs in groups.items():
        sigmas = [measured.sigma_train(run) for run in runs]
        if not all(sigmas):
            continue
        for split in (VALIDATION, TEST):
            pairs = list(zip(runs, sigmas, strict=True))
            base = [right(measured.at(run, split, 0.0, 0.0)) for run in runs]
            softened = [right(measured.at(run, split, 0.0, sigma)) for run, sigma in pairs]
            voted = [right_by_vote(measured.at(run, split, sigma, 0.0, VOTES)) for run, sigma in pairs]
            cells = [mean_percent(its) for its in (base, softened, voted)]
            rows.append([training, split, *cells, str(Difference.of(softened, voted))])
    header = ["network", "split", "one pass", "one pass, softened", f"vote of {VOTES} at σ_train"]
    return table([*header, "softened less vote"], rows)


def dropout(measured: Measured, groups: Groups) -> str:
    """Return what a vote of passes with the training's dropout, without noise, gains over one pass."""
    rows = []
    for training, runs in groups.items():
        base = [right(measured.at(run, VALIDATION, 0.0, 0.0)) for run in runs]
        voted = [measured.by_dropout(run) for run in runs]
        rows.append([training, mean_percent(base), mean_percent(voted), str(Difference.of(voted, base))])
    return table(["network", "one pass", f"vote of {VOTES} with dropout on", "difference"], rows)


def figure(measured: Measured, groups: Groups) -> Figure:
    """Return accuracy gained, and loss, against s, on the validation split without noise."""
    gained, losses = [], []
    for index, (training, runs) in enumerate(groups.items()):
        own = {s: [measured.at(run, VALIDATION, 0.0, s) for run in runs] for s in STRENGTHS}
        base = [right(its) for its in own[0.0]]
        each = [Difference.of([right(its) for its in own[s]], base) for s in STRENGTHS]
        style = curve_style(index)
        x = list(STRENGTHS)
        gained.append(
            Line(
                x,
                [its.mean for its in each],
                [its.low for its in each],
                [its.high for its in each],
                label=training,
                style=style,
            )
        )
        losses.append(
            Line(x, [float(np.mean([loss(its) for its in own[s]])) for s in STRENGTHS], style=style)
        )
    axis = Axis("strength s of the softening")
    seeds = ", ".join(f"{training}: {count(len(runs), 'seed')}" for training, runs in groups.items())
    return Figure(
        "Gates softened for missing noise, no noise at inference",
        (
            Panel(
                axis, Axis("accuracy gained", "percentage points"), (*gained, Reference(0.0, "as trained"))
            ),
            Panel(axis, Axis("loss", "nats"), tuple(losses)),
        ),
        f"validation split; {seeds}; bands: 95 % over clips, paired (Student t)",
        legend=Legend(),
    )


SECTIONS = {
    "clean": clean,
    "chosen": chosen,
    "against": against,
    "noisy": noisy,
    "parts": parts,
    "votes": votes,
    "dropout": dropout,
}


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", nargs="+", required=True, metavar="TRAINING")
    parser.add_argument("--kept", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--page", action="store_true", help="write docs/compensation.md and its figure")
    options = parser.parse_args()
    measured, groups = Measured(options.kept), group(find_runs(options.runs))
    if not groups:
        parser.error("--runs: there is no finished run")
    sections = {}
    for name in options.only:
        sections[name] = SECTIONS[name](measured, groups)
        print(f"{name}\n\n{sections[name]}\n", flush=True)
    if options.page:
        save(figure(measured, groups), DOCS / "figures" / "compensation", ("png",))
        fill(PAGE, sections)


if __name__ == "__main__":
    with told_in_a_line():
        main()
