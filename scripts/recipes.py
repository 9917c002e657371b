"""Train one lever of the recipe at a time, and write docs/recipes.md: what each gains on the validation split.

    python scripts/recipes.py train --runs runs/recipes --workers 2      # trains what is not trained yet, and goes on
    python scripts/recipes.py train --runs runs/recipes --only distilled --teacher a/best.ckpt b/best.ckpt
    python scripts/recipes.py page --runs runs/recipes                   # table and figure of docs/recipes.md
    python scripts/recipes.py page                                       # the same from docs/recipes.csv alone

What the page shows is kept in docs/recipes.csv. Runs become a study of their own in it, beside those before, each with
its base; ``page --runs FOLDER --alone`` forgets the others.

A lever is a line of LEVERS: settings that are added to conf/experiment/eight_words_crnn_small_dni.yaml. The test split
is looked at nowhere.
"""

import argparse
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from marked_places import fill
from mistakes import told_in_a_line
from numpy.typing import NDArray
from scipy import stats

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.intervals import CONFIDENCE
from asr_dni.files import write_atomically
from asr_dni.inference import load
from asr_dni.plotting import Axis, Bars, Figure, Legend, Panel, Points, Reference, Style, curve_style
from asr_dni.plotting.specification import Element
from asr_dni.plotting.with_matplotlib import save
from asr_dni.wording import count

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "recipes.md"
RECORD = DOCS / "recipes.csv"
EXPERIMENT = "eight_words_crnn_small_dni"
EPOCHS = 20
SEEDS = (1, 2, 3)
SIGMAS = (0.0, 1.0, 2.0, 3.0)
DRAWS = 5
TEACHERS = "TEACHERS"
"""Stands in a lever's settings for the checkpoints that are given."""


@dataclass(frozen=True)
class Lever:
    """One change of the recipe.

    Attributes:
        says: what it changes, for the page.
        settings: of ``asr-dni fit``.
        kind: which part of the recipe it belongs to.
    """

    says: str
    settings: tuple[str, ...] = ()
    kind: str = "recipe"


def _network(settings: str, says: str) -> Lever:
    return Lever(says, tuple(f"--model.network.{one}" for one in settings.split()), "network")


def _data(settings: str, says: str, kind: str = "augmentation") -> Lever:
    return Lever(says, tuple(f"--data.{one}" for one in settings.split()), kind)


_TIME_STRIDE = (
    "--model.network.convolutions.blocks=[{channels: 24, kernel: [5, 5], stride: [2, 2]}, "
    "{channels: 32, stride: [2, 2], separable: true}, {channels: 48, stride: [1, 2], separable: true}]"
)
_PLAIN = (
    "--model.network.convolutions.blocks=[{channels: 24, kernel: [5, 5], stride: [2, 2]}, "
    "{channels: 32, stride: [1, 2]}, {channels: 48, stride: [1, 2]}]"
)
_SUB_BANDS = (
    "--model.network.convolutions.blocks=[{channels: 24, kernel: [5, 5], stride: [2, 2], sub_bands: 5}, "
    "{channels: 32, stride: [1, 2], separable: true, sub_bands: 5}, "
    "{channels: 48, stride: [1, 2], separable: true, sub_bands: 5}]"
)
_DEEPER = (
    "--model.network.convolutions.blocks=[{channels: 24, kernel: [5, 5], stride: [2, 2]}, "
    "{channels: 32, stride: [1, 2], separable: true}, {channels: 32, separable: true, residual: true}, "
    "{channels: 48, stride: [1, 2], separable: true}, {channels: 48, separable: true, residual: true}]"
)
_DEEPEST = (
    "--model.network.convolutions.blocks=[{channels: 32, kernel: [5, 5], stride: [2, 2]}, "
    "{channels: 64, stride: [1, 2], separable: true}, {channels: 64, separable: true, residual: true}, "
    "{channels: 64, separable: true, residual: true}, {channels: 96, stride: [1, 2], separable: true}, "
    "{channels: 96, separable: true, residual: true}, {channels: 96, separable: true, residual: true}]"
)
_WINDOWS_40_20 = (
    "--data.front_end.window_ms=40.0",
    "--data.front_end.hop_ms=20.0",
    "--data.augmentation.time_mask_frames=10",
)
_MFCC = (
    "--data.front_end=asr_dni.features.MFCC",
    "--data.front_end.n_mfcc=40",
    "--data.front_end.n_mels=80",
    "--data.front_end.window_ms=30.0",
    "--data.front_end.hop_ms=10.0",
    "--data.front_end.padding=center",
)

LEVERS = {
    "base": Lever("nothing: the recipe as it is", kind="base"),
    "speed": _data("augmentation.speed=[0.909,1.1]", "speed and pitch changed by up to 10 %"),
    "wide": Lever(
        "32, 64, 96 channels, 128 numbers a frame",
        ("--config=model/crnn_separable",),
        "network",
    ),
    "sub_bands": Lever(
        "5 sub-bands of features normalised each by themselves (sub-spectral normalisation)",
        (_SUB_BANDS,),
        "network",
    ),
    "residual_deeper": Lever(
        "two residual separable blocks more, of 32 and 48 channels", (_DEEPER,), "network"
    ),
    "wide_deeper": Lever(
        "two residual separable blocks more on the front of `wide`, of 64 and 96 channels",
        ("--config=model/crnn",),
        "network",
    ),
    "wide_deepest": Lever(
        "four residual separable blocks more on the front of `wide`, two of 64 and two of 96 channels",
        ("--config=model/crnn", _DEEPEST),
        "network",
    ),
    "ema": Lever(
        "exponential averages of the weights (decay 0.99 a step)",
        ("--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.99"),
    ),
    "mixup": Lever("mixup, alpha 0.2", ("--model.mixup=0.2",)),
    "distilled": Lever(
        "distillation of the three networks of `wide` (weight 0.9, temperature 2)",
        (f"--model.distillation.teachers=[{TEACHERS}]",),
    ),
    "consistent": Lever(
        "two draws of the noise for each clip in a step, with a consistency loss (weight 1)",
        ("--model.consistency.draws=2",),
    ),
    "sharpness": Lever("sharpness-aware minimisation (SAM), rho 0.05", ("--model.sam_rho=0.05",)),
    "bidirectional": _network("bidirectional=true units=80", "LSTM in both directions, 80 units each"),
    "gru": _network("cell=gru", "GRU for LSTM"),
    "plain": Lever("plain convolutions for the two separable ones", (_PLAIN,), "network"),
    "wide_plain": Lever(
        "plain convolutions of 32, 64, 64 channels, 128 numbers a frame",
        ("--config=model/crnn_plain",),
        "network",
    ),
    "plain_deeper": Lever(
        "plain convolutions of 24, 40, 56 channels and two residual plain blocks, 128 numbers a frame",
        ("--config=model/crnn_plain_deeper",),
        "network",
    ),
    "projection": _network("units=192 projection=96", "LSTM of 192 units with a projection to 96"),
    "time_stride": Lever(
        "a second stride in time: a quarter of the frames for the LSTM", (_TIME_STRIDE,), "network"
    ),
    "attention": _network("pooling=attention", "a learned weight for each frame in place of the mean"),
    "mfcc": Lever(
        "MFCC: DCT of 80 mel bands to 40, at the same windows",
        _MFCC,
        "front end",
    ),
    "masks_before_dct": Lever(
        "this MFCC with SpecAugment on its 80 mel bands, before the DCT, in masks of up to 10",
        (
            *_MFCC,
            "--data.augmentation.mask_mel_bands=true",
            "--data.augmentation.frequency_mask_bins=10",
        ),
        "front end",
    ),
    "windows_40_20": Lever("windows of 40 ms every 20 ms", _WINDOWS_40_20, "front end"),
    "cutout": _data(
        "augmentation.cutouts=1 augmentation.cutout_frames=25 augmentation.cutout_bins=10",
        "cutout of 250 ms x 10 bands beside SpecAugment",
    ),
    "no_masks": _data("augmentation.time_masks=0 augmentation.frequency_masks=0", "no SpecAugment"),
    "no_dropout": _network("dropout=0.0 convolutions.dropout=0.0", "no dropout"),
    "weight_noise": Lever(
        "Gaussian noise on the weights, new in each step, 3 % of the largest, beside the noise on outputs",
        (
            "--model.noise.hardware={output: {class_path: Gaussian}, "
            "weight: {class_path: GaussianWeights, init_args: {sigma: 0.03}}}",
        ),
        "noise",
    ),
    "drawn_batch": Lever("sigma drawn for each batch, from 0 to 2", ("--annealing.drawn=batch",), "noise"),
    "drawn_sample": Lever(
        "sigma drawn for each clip, from 0 to 3",
        ("--annealing.drawn=sample", "--annealing.sigma=3.0"),
        "noise",
    ),
    "sigma_3": Lever("sigma_train 3", ("--annealing.sigma=3.0",), "noise"),
}


def _is_done(folder: Path) -> bool:
    return any(folder.glob("version_*/noise_curve.csv"))


def _is_taught(name: str) -> bool:
    return any(TEACHERS in setting for setting in LEVERS[name].settings)


def train(
    runs: Path, names: Sequence[str], seeds: Sequence[int], workers: int, epochs: int, teachers: Sequence[str]
) -> None:
    """Train what is not trained yet, ``workers`` at a time, each on one thread; without teachers no students."""
    untaught = [] if teachers else [name for name in names if _is_taught(name)]
    if untaught:
        print(f"left out, for there is no --teacher: {', '.join(untaught)}")
        names = [name for name in names if name not in untaught]
    runs.mkdir(parents=True, exist_ok=True)
    program = shutil.which(
        "asr-dni", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    assert program is not None, "asr-dni is not installed"
    sigmas = ",".join(str(sigma) for sigma in SIGMAS[1:])

    def one(name: str, seed: int) -> bool:
        folder = runs / name / f"seed_{seed}"
        if _is_done(folder):
            return True
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            program, "fit", "--config", EXPERIMENT, "--runs", str(runs), "--name", f"{name}/seed_{seed}",
            "--seed_everything", str(seed), "--trainer.enable_progress_bar", "false", "--wandb", "disabled",
            "--trainer.max_epochs", str(epochs), "--trainer.check_val_every_n_epoch", str(epochs),
            f"--noise_curve.watched_sigmas=[{sigmas}]", "--noise_curve.validation_draws", str(DRAWS),
            "--noise_curve.sigmas=[0.0]", "--noise_curve.draws=1",
            *(setting.replace(TEACHERS, ",".join(teachers)) for setting in LEVERS[name].settings),
        ]  # fmt: skip
        with (folder / "log.txt").open("w") as log:
            code = subprocess.run(
                command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
            ).returncode
        print(f"{folder}: {'done' if code == 0 else f'failed ({code}), see log.txt'}", flush=True)
        return code == 0

    with ThreadPoolExecutor(workers) as pool:
        done = list(pool.map(lambda which: one(*which), [(name, seed) for name in names for seed in seeds]))
    if not all(done):
        raise SystemExit(f"{count(done.count(False), 'training')} failed")


@dataclass(frozen=True)
class Trained:
    """What the trainings of a lever came to.

    Attributes:
        seeds: of those that are done.
        accuracy: on the validation split ``(seeds, sigmas)``, in %.
        weights: of the network.
    """

    seeds: tuple[int, ...]
    accuracy: NDArray[np.float64]
    weights: int

    def of(self, seeds: Sequence[int]) -> NDArray[np.float64]:
        """Return the accuracy of some of its seeds."""
        return self.accuracy[[self.seeds.index(seed) for seed in seeds]]


def read(folder: Path, seeds: Sequence[int]) -> Trained | None:
    """Read a lever's trainings that are done; ``None``: none is."""
    rows, weights = [], 0
    done = tuple(seed for seed in seeds if _is_done(folder / f"seed_{seed}"))
    for seed in done:
        version = max((folder / f"seed_{seed}").glob("version_*"), key=lambda path: path.stat().st_mtime)
        logged = pd.read_csv(version / "metrics.csv")
        last = logged.dropna(subset=["val/accuracy"]).iloc[-1]
        rows.append([last[f"val/accuracy@{sigma}" if sigma else "val/accuracy"] for sigma in SIGMAS])
        network = load(version / "checkpoints" / "last.ckpt").model.network
        weights = sum(its.numel() for its in network.parameters())
    return Trained(done, 100 * np.array(rows, dtype=float), weights) if done else None


def pooled_half_width(differences: Sequence[NDArray[np.float64]]) -> float:
    """Return half the 95 % interval of one training's difference, from the deviation pooled over all levers.

    Three seeds alone know their deviation badly (t of 2 degrees of freedom is 4.3); all levers' differences to the
    base know one in common, if it is one (a pooled standard deviation, as in an analysis of variance). Of a mean over
    n seeds it is the square root of n times smaller.
    """
    freedom = sum(len(its) - 1 for its in differences)
    squares = sum(float(((its - its.mean()) ** 2).sum()) for its in differences)
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * math.sqrt(squares / freedom))


@dataclass(frozen=True)
class Row:
    """A lever of a study, as docs/recipes.csv keeps it.

    Attributes:
        study: number of the study: what is compared was trained in one, with a base of its own.
        lever: its name in LEVERS.
        weights: of the network.
        accuracy: on the validation split at each of SIGMAS, in %, mean of the seeds.
        gains: over the base of the mean over SIGMAS, in points, of each seed; none of the base itself.
    """

    study: int
    lever: str
    weights: int
    accuracy: tuple[float, ...]
    gains: tuple[float, ...]


_ACCURACY = [f"accuracy@{sigma:g}" for sigma in SIGMAS]


def kept(record: Path) -> list[Row]:
    """Read the studies of a record.

    Raises:
        UserError: it has not the columns, a lever that is not in LEVERS, a study without one base and a lever's gains,
            or what should be a number is none.
    """
    mend = "take the file of the repository, or --runs FOLDER --alone"
    try:
        table = pd.read_csv(record, dtype={"gains": str}, keep_default_na=False)
    except ValueError as error:
        raise UserError(f"{record}: {error}: {mend}") from error
    missing = {"study", "lever", "weights", *_ACCURACY, "gains"} - set(table.columns)
    if missing or (strangers := set(table["lever"]) - set(LEVERS)):
        what = f"has no columns {sorted(missing)}" if missing else f"has unknown levers {sorted(strangers)}"
        raise UserError(f"{record}: {what}: {mend}")
    try:
        rows = [
            Row(
                int(its["study"]),
                str(its["lever"]),
                int(its["weights"]),
                tuple(float(its[name]) for name in _ACCURACY),
                tuple(float(gain) for gain in str(its["gains"]).split()),
            )
            for its in table.to_dict("records")
        ]
    except ValueError as error:
        raise UserError(f"{record}: {error}: {mend}") from error
    for study in {row.study for row in rows}:
        its_rows = [row for row in rows if row.study == study]
        if sum(row.lever == "base" for row in its_rows) != 1 or not any(
            len(row.gains) > 1 for row in its_rows
        ):
            raise UserError(f"{record}: study {study} has not one base and gains of a lever: {mend}")
    return rows


def keep(rows: Sequence[Row], record: Path) -> None:
    """Write the record of studies."""
    columns = ["study", "lever", "weights", *_ACCURACY, "gains"]
    table = pd.DataFrame(
        [
            (
                its.study,
                its.lever,
                its.weights,
                *(round(value, 4) for value in its.accuracy),
                " ".join(f"{round(gain, 4):+g}" for gain in its.gains),
            )
            for its in rows
        ],
        columns=columns,
    )
    with write_atomically(record) as temporary:
        table.to_csv(temporary, index=False)


def study_of(runs: Path, seeds: Sequence[int], before: Sequence[Row]) -> list[Row]:
    """Return the studies of a record and that of a folder of runs.

    A study of the record with the same base is the same study: the folder's levers take the place of its own.

    Raises:
        UserError: the base is not trained with all seeds, or no lever with two.
    """
    trained = {name: its for name in LEVERS if (its := read(runs / name, seeds)) is not None}
    complete = "base" in trained and trained["base"].seeds == tuple(seeds)
    if not complete or all(len(its.seeds) < 2 for name, its in trained.items() if name != "base"):
        raise UserError(
            f"{runs}: has not the trainings of seeds {', '.join(map(str, seeds))} of base and two of another lever:"
            " train them first"
        )
    base = trained.pop("base")
    its_base = tuple(np.round(base.accuracy.mean(axis=0), 4))
    same = {row.study for row in before if row.lever == "base" and row.accuracy == its_base}
    number = min(same, default=1 + max((row.study for row in before), default=0))
    others = [row for row in before if row.study != number or row.lever not in {"base", *trained}]
    rows = [Row(number, "base", base.weights, its_base, ())]
    for name, its in trained.items():
        gains = its.accuracy.mean(axis=1) - base.of(its.seeds).mean(axis=1)
        rows.append(Row(number, name, its.weights, tuple(its.accuracy.mean(axis=0)), tuple(gains)))
    return sorted([*others, *rows], key=lambda row: row.study)


def page(rows: Sequence[Row]) -> None:
    """Write the table of docs/recipes.md and its figure."""
    bases = {row.study: row for row in rows if row.lever == "base"}
    levers = sorted((row for row in rows if row.gains), key=lambda row: -float(np.mean(row.gains)))
    single = pooled_half_width([np.array(row.gains) for row in levers])
    half = [single / math.sqrt(len(row.gains)) for row in levers]
    lines = [
        "| lever | kind | weights | "
        + " | ".join(f"σ {sigma:g}" for sigma in SIGMAS)
        + " | mean | gain | each seed |",
        "|---|---|---:|" + "---:|" * (len(SIGMAS) + 3),
    ]
    for study, base in bases.items():
        for row, width in [(base, None), *zip(levers, half, strict=True)]:
            if row.study != study:
                continue
            cells = [f"{value:.1f}" for value in (*row.accuracy, np.mean(row.accuracy))]
            if width is None:
                cells += ["", ""]
            else:
                cells += [
                    f"{np.mean(row.gains):+.1f} ± {width:.1f}",
                    " ".join(f"{gain:+.1f}" for gain in row.gains),
                ]
            lever = LEVERS[row.lever]
            again = f", study {study}" if row is base and len(bases) > 1 else ""
            lines.append(
                f"| `{row.lever}`{again}: {lever.says} | {lever.kind} | {row.weights:,} | "
                + " | ".join(cells)
                + " |"
            )
    most = max(len(row.gains) for row in levers)
    lines.append("")
    lines.append(
        f"Accuracy in % on the validation split, {DRAWS} draws, mean of {count(most, 'seed')}, or of as many as"
        " there are gains for; gain: of the mean over the four sigmas, in points, paired by seed with the base of the"
        f" same study, ± half its 95 % interval (deviation pooled over {count(len(levers), 'lever')}, Student t): a"
        " smaller gain these trainings do not show."
    )
    fill(PAGE, {"levers": "\n".join(lines)})
    save(_figure(levers[::-1], bases, half[::-1]), DOCS / "figures" / "recipes", ("png",))


def _figure(levers: Sequence[Row], bases: Mapping[int, Row], half: Sequence[float]) -> Figure:
    first = min(bases)
    order = tuple(row.lever if row.study == first else f"{row.lever} (study {row.study})" for row in levers)
    places = [float(place) for place in range(len(levers))]
    gains = [float(np.mean(row.gains)) for row in levers]
    elements: list[Element] = [
        Bars(
            places,
            gains,
            [gain - width for gain, width in zip(gains, half, strict=True)],
            [gain + width for gain, width in zip(gains, half, strict=True)],
            label="mean over σ_infer 0, 1, 2, 3",
            horizontal=True,
            style=Style(color="#b7c9dd"),  # in which the intervals are seen
        )
    ]
    for index, sigma in ((0, 0.0), (3, 3.0)):
        values = [row.accuracy[index] - bases[row.study].accuracy[index] for row in levers]
        elements.append(Points(values, places, label=f"σ_infer = {sigma:g}", style=curve_style(index + 1)))
    elements.append(Reference(0.0, axis="x"))
    return Figure(
        "What each lever gains over the base recipe",
        (
            Panel(
                Axis("accuracy gained on the validation split", "percentage points"),
                Axis(scale="category", categories=order),
                tuple(elements),
            ),
        ),
        f"CRNN with DNI, sigma_train 2, {EPOCHS} epochs; bars: 95 % over seeds (pooled deviation)",
        panel_size=(8.0, 0.36 * len(order) + 1.6),
        legend=Legend(),
    )


def main() -> None:
    """Train, or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "page"))
    parser.add_argument("--runs", type=Path, help="folder of the runs")
    parser.add_argument("--alone", action="store_true", help="page: without the studies of docs/recipes.csv")
    parser.add_argument("--only", nargs="+", choices=list(LEVERS), default=list(LEVERS), help="levers")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--teacher", nargs="+", default=[], help="checkpoints that teach, for distillation")
    given = parser.parse_args()
    if given.what == "page" and len(given.seeds) < 2:
        parser.error("page: intervals are over seeds: give at least two --seeds")
    if given.runs is None and (given.what == "train" or given.alone):
        parser.error("--runs FOLDER is missing: where the trainings are")
    if given.what == "train":
        train(given.runs, given.only, given.seeds, given.workers, given.epochs, given.teacher)
        return
    rows = [] if given.alone or not RECORD.is_file() else kept(RECORD)
    if given.runs is not None:
        rows = study_of(given.runs, given.seeds, rows)
    if not rows:
        raise UserError(f"{RECORD}: is not there: give --runs, the folder of the trainings")
    keep(rows, RECORD)
    page(kept(RECORD))


if __name__ == "__main__":
    with told_in_a_line():
        main()
