"""What a study would cost on all 105,829 clips of Speech Commands v0.02: measure rates here, write the sums down.

    python scripts/projected_cost.py                          conf/study/paper.yaml; writes docs/projected_cost.md
    python scripts/projected_cost.py --study FILE --output -  another study, on the screen
    python scripts/projected_cost.py --device cuda            measure on a GPU

Measured are trainings and evaluations of populations as `asr-dni study` runs them, on random features of the size of
the real ones: for every kind of cell and number of units, a population of as many members as the study's would have.
On a CPU that is one thread's own time (waiting for others is not counted), because a study runs one population per
core. The rest is multiplication, and the page shows it.
"""

import argparse
import logging
import os
import platform
import textwrap
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias, cast

import pytorch_lightning as pl
import torch

from asr_dni.configuration import read_layers
from asr_dni.data import Augmentation, AugmentationSettings, Batch, ClipFeatures, SequenceData
from asr_dni.data.clip_features import make_front_end
from asr_dni.data.population_data import PopulationData
from asr_dni.evaluation import count_passes
from asr_dni.evaluation.measurement.stacked import evaluate_population
from asr_dni.features import FrontEnd
from asr_dni.files import write_atomically
from asr_dni.model.population_spotter import Member, PopulationSpotter
from asr_dni.study.cost import DataSize, available_memory, largest_population, operations_per_clip
from asr_dni.study.plan import PlannedMember, Population, partition, plan_members
from asr_dni.study.reading import Study, read_study

ROOT = Path(__file__).resolve().parents[1]

N_TRAIN, N_VALIDATION, N_TEST, N_LABELS = 84_843, 9_981, 11_005, 35
"""Clips of Speech Commands v0.02 by the lists that come with it, 105,829 in all."""

FP32_PEAKS = {"one A100 (40 or 80 GB)": 19.5e3, "one H100 SXM": 67e3, "eight H100 SXM": 8 * 67e3}
"""GFLOP/s of float32 outside tensor cores, by NVIDIA's data sheets."""

CORES = (16, 64, 192)


class FullSet:
    """What a study's plan asks of its data, of all clips."""

    identity = "Speech Commands v0.02"

    def __init__(self) -> None:
        self.label_names = [f"word {k}" for k in range(N_LABELS)]

    def result_settings(self) -> dict[str, Any]:
        """Return what decides the batches."""
        return {}


class RandomBatches:
    """Batches of random features without end, made once."""

    def __init__(self, size: DataSize, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        rows = size.batch_size
        self.batch = Batch(
            torch.randn(rows, size.n_frames, size.n_features, generator=generator),
            torch.randint(N_LABELS, (rows,), generator=generator),
            torch.randint(2**62, (rows,), generator=generator),
        )

    def __len__(self) -> int:
        return 100_000

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self.batch


class RandomData(pl.LightningDataModule):
    """Enough of a datamodule for a training without validation."""

    def __init__(self, size: DataSize, seed: int) -> None:
        super().__init__()
        self.size, self.seed = size, seed
        self.save_hyperparameters({"data": {"seed": seed}})

    def train_dataloader(self) -> RandomBatches:
        """Return batches without end."""
        return RandomBatches(self.size, self.seed)


class Clock:
    """Seconds of a device: of one thread's own time on a CPU, of the time that passes on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self) -> float:
        """Return what it shows."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return time.perf_counter()
        return time.process_time()

    def per_call(self, work: Callable[[], object], seconds: float, at_least: int = 3) -> float:
        """Return the median time of a piece of work, after it ran once."""
        work()
        times: list[float] = []
        while len(times) < at_least or sum(times) < seconds:
            began = self()
            work()
            times.append(self() - began)
        return median(times)


class StepTimes(pl.Callback):
    """Ends the training when enough steps were timed; the first one is not."""

    def __init__(self, clock: Clock, seconds: float, at_least: int = 3) -> None:
        self.clock, self.seconds, self.at_least = clock, seconds, at_least
        self.times: list[float] = []
        self.last: float | None = None

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Note the time since the last step ended."""
        now = self.clock()
        if self.last is not None:
            self.times.append(now - self.last)
        self.last = now
        trainer.should_stop = len(self.times) >= self.at_least and sum(self.times) >= self.seconds


@dataclass(frozen=True)
class Measured:
    """Rates of one shape of network.

    Attributes:
        members: K of the population that was measured.
        training: seconds per clip and member of a training step.
        evaluation: seconds per clip, member and noisy pass.
        operations: floating-point operations of a forward pass of one clip.
    """

    members: int
    training: float
    evaluation: float
    operations: float


def measure(
    study: Study, population: Population, size: DataSize, device: torch.device, seconds: float
) -> Measured:
    """Train and evaluate a population for some seconds."""
    clock = Clock(device)
    first, settings = population.members[0], study.settings.training
    members = [
        Member(member.seed, member.data_seed, {"sigma": member.sigma_train, "start": member.sigma_train})
        for member in population.members
    ]
    spotter = PopulationSpotter(
        members,
        FullSet().label_names,
        size.n_features,
        first.network,
        first.noise.training_noise(),
        study.make_optimizer(first.cell),
        label_smoothing=settings.label_smoothing,
        calibrate_every=settings.calibrate_every,
        gradient_clip=settings.gradient_clip,
    )
    seeds = [member.data_seed for member in population.members]
    data = PopulationData.from_seeds(lambda seed: cast(SequenceData, RandomData(size, seed)), seeds)
    steps = StepTimes(clock, seconds)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        logger=False,
        callbacks=[steps],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(spotter, datamodule=data)
    spotter.to(device)
    batch = Batch(*(tensor.to(device) for tensor in RandomBatches(size, 0).batch))
    noise = first.evaluations[0].sweep.noise
    sigmas, draws = (0.0, 1.0), 3
    evaluated = clock.per_call(
        lambda: evaluate_population(spotter.network, [batch], sigmas, draws, noise), seconds / 4, 1
    )
    clips = size.batch_size * len(members)
    return Measured(
        len(members),
        median(steps.times) / clips,
        evaluated / clips / count_passes(sigmas, draws),
        operations_per_clip(first.network, size),
    )


def measure_features(
    front_end: FrontEnd, augmentation: AugmentationSettings, rows: int, clock: Clock, seconds: float
) -> tuple[float, float]:
    """Return seconds per clip of the features, with augmentation and without."""
    generator = torch.Generator().manual_seed(0)
    rate, device = front_end.sample_rate, clock.device
    waveforms = (torch.rand(rows, rate, generator=generator) * 2 - 1).to(device)
    background = (torch.rand(60 * rate, generator=generator) * 0.1).to(device)
    clip_ids = torch.randint(2**62, (rows,), generator=generator).to(device)
    features = ClipFeatures(front_end)
    features.fit_statistics([waveforms.cpu()])
    features.to(device)
    augment = Augmentation(augmentation, rate, seed=0).to(device)

    def training() -> None:
        augmented = augment.waveforms(waveforms, clip_ids, 0, background)
        augment.features(features(augmented), clip_ids, 0, front_end.n_bands)

    with torch.inference_mode():
        return (
            clock.per_call(training, seconds) / rows,
            clock.per_call(lambda: features(waveforms), seconds) / rows,
        )


def measure_product(clock: Clock, seconds: float, n: int = 2048) -> float:
    """Return GFLOP/s of a float32 matrix product."""
    a, b = (torch.rand(n, n, device=clock.device) for _ in range(2))
    return 2e-9 * n**3 / clock.per_call(lambda: a @ b, seconds)


Shape: TypeAlias = tuple[str, int, int]
"""Kind of cell, units, layers."""


def shape_of(member: PlannedMember) -> Shape:
    """Return what rates are measured by; the kind of noise makes little difference."""
    return member.cell, member.network.units, member.network.layers


@dataclass
class Sum:
    """Work of one shape.

    Attributes:
        members: networks.
        populations: how many they are trained in.
        clips: clips times epochs that they are trained on, together.
        passes: noisy passes over the test split, together.
        streams: orders of the clips, summed over populations: what features are computed for.
    """

    members: int = 0
    populations: int = 0
    clips: int = 0
    passes: int = 0
    streams: int = 0


def add_up(study: Study, populations: Sequence[Population], size: DataSize) -> dict[Shape, Sum]:
    """Return the work of a study, by shape."""
    sums: dict[Shape, Sum] = defaultdict(Sum)
    for population in populations:
        its = sums[shape_of(population.members[0])]
        its.members += len(population.members)
        its.populations += 1
        its.clips += len(population.members) * size.n_train * study.settings.epochs
        its.streams += len({member.data_seed for member in population.members})
        its.passes += sum(member.n_passes for member in population.members)
    return dict(sums)


PAGE = """\
# Projected cost of the study `{name}` on all of Speech Commands

Written by `scripts/projected_cost.py` on {date}. Nobody has run this study on the whole data set: rates are measured,
the rest of this page is multiplication.

## What is to be done

Speech Commands v0.02, {labels} words: {n_train:,} + {n_validation:,} + {n_test:,} = {n_all:,} clips (training,
validation and test by the lists that come with it), features {frames} x {features}, batches of {batch}. The study has
{members:,} members in {populations} populations of K, {epochs} epochs each; each is evaluated on the test split,
{draws} draws per noise level. Cost is nearly proportional to the epochs: a run of a quarter of them costs a quarter.

## Measured rates

{machine}; torch {torch}, float32{threads}. A product of two 2048 x 2048 matrices runs at {product:,.0f} GFLOP/s{per}.
Noise is drawn anew for every clip, step and unit; Adam, clipping and Lightning's own work are in. *Member-clips* are
clips times members: what a population does altogether. Operations are those of the matrix products and 30 for each gate
of each unit and step.

| cell, units | K | training, clips/s per member | member-clips/s | evaluation, clips/s per member | member-clips/s | \
MFLOP per clip, forward | GFLOP/s in training |
|---|---|---|---|---|---|---|---|
{rates}

Features: {augmented:,.0f} clips/s with augmentation, {plain:,.0f} without; they are made once for all members
of a population that see the same batches. All rates are per {second}.

## Arithmetic

Training is members x {n_train:,} clips x {epochs} epochs / rate; evaluation, members x noisy passes x {n_test:,}
clips / rate; features, orders of the clips (summed over populations) x {n_train:,} x {epochs} / rate. M: million
member-clips.

| cell, units | members | training | evaluation | features | sum |
|---|---|---|---|---|---|
{parts}

Hours are {hours}. Altogether these are {petaflop:,.1f} PFLOP (a training step counts as three forward passes), done at
{share:.0f} % of the rate of large matrix products.

## By machine

| machine | basis | float32 GFLOP/s | time |
|---|---|---|---|
{machines}

*Measured* rows divide the sum above by what the machine at hand has{assumed}. *Projection* rows scale it by the rate of
large matrix products, which supposes that {share:.0f} % of that rate is reached elsewhere too. For GPUs the rate is the
peak of float32 outside tensor cores in the maker's data sheet; which part of it small recurrent steps reach has not
been measured here, and is likely less: lower bounds, no forecasts. `--device cuda` measures where there is a GPU.
"""


def page(
    study: Study,
    size: DataSize,
    sums: Mapping[Shape, Sum],
    measured: Mapping[Shape, Measured],
    features: tuple[float, float],
    product: float,
    machine: str,
    device: torch.device,
    name: str,
) -> str:
    """Return the page, in Markdown.

    Args:
        study: the study.
        size: of the data.
        sums: the work, by shape.
        measured: the rates, by shape.
        features: seconds per clip, with augmentation and without.
        product: GFLOP/s of a matrix product, of a core or of the GPU.
        machine: its name.
        device: what was measured on.
        name: of the study.
    """
    on_gpu = device.type == "cuda"
    epochs = study.settings.epochs
    rates, parts, totals, operations = [], [], [0.0, 0.0, 0.0], 0.0
    for shape, its in sums.items():
        cell, units, layers = shape
        rate = measured[shape]
        named = f"{cell.upper()} {f'{layers} x ' if layers > 1 else ''}{units}"
        evaluated = its.passes * size.n_evaluated
        work = (
            its.clips * rate.training,
            evaluated * rate.evaluation,
            its.streams * size.n_train * epochs * features[0]
            + its.populations * size.n_evaluated * features[1],
        )
        totals = [total + more for total, more in zip(totals, work, strict=True)]
        operations += rate.operations * (3 * its.clips + evaluated)
        training_rate, evaluation_rate = 1 / rate.training, 1 / rate.evaluation
        rates.append(
            f"| {named} | {rate.members} | {training_rate / rate.members:,.0f} | {training_rate:,.0f}"
            f" | {evaluation_rate / rate.members:,.0f} | {evaluation_rate:,.0f} | {rate.operations / 1e6:.2f}"
            f" | {3e-9 * rate.operations / rate.training:.1f} |"
        )
        parts.append(
            f"| {named} | {its.members} | {its.clips / 1e6:,.0f} M / {training_rate:,.0f} = {hours(work[0])}"
            f" | {evaluated / 1e6:,.0f} M / {evaluation_rate:,.0f} = {hours(work[1])} | {hours(work[2])}"
            f" | {hours(sum(work))} |"
        )
    total = sum(totals)
    members, populations = (
        sum(getattr(its, key) for its in sums.values()) for key in ("members", "populations")
    )
    parts.append(f"| all | {members} | {' | '.join(map(hours, totals))} | **{hours(total)}** |")
    share = operations * 1e-9 / total / product
    n_cores = 1 if on_gpu else os.cpu_count() or 1
    machines = [(machine, "measured", f"{n_cores * product:,.0f}", total / n_cores)]
    if not on_gpu:
        machines += [
            (f"{n} such cores", "projection", f"{n * product:,.0f}", total / n) for n in CORES if n > n_cores
        ]
    machines += [
        (other, "projection", f"{peak:,.0f}, data sheet", total * product / peak)
        for other, peak in FP32_PEAKS.items()
    ]
    text = PAGE.format(
        name=name,
        date=time.strftime("%d %B %Y", time.gmtime()).lstrip("0"),
        labels=N_LABELS,
        n_train=size.n_train,
        n_validation=N_VALIDATION,
        n_test=size.n_evaluated,
        n_all=size.n_train + N_VALIDATION + size.n_evaluated,
        frames=size.n_frames,
        features=size.n_features,
        batch=size.batch_size,
        members=members,
        populations=populations,
        epochs=epochs,
        draws=study.settings.evaluation.draws,
        machine=machine,
        torch=torch.__version__.partition("+")[0],
        threads="" if on_gpu else ", one thread",
        product=product,
        per="" if on_gpu else " per core",
        rates="\n".join(rates),
        augmented=1 / features[0],
        plain=1 / features[1],
        second="second of the GPU" if on_gpu else "second of one core",
        parts="\n".join(parts),
        hours="hours of the GPU" if on_gpu else "core hours",
        petaflop=operations / 1e15,
        share=100 * share,
        machines="\n".join(f"| {' | '.join(row[:3])} | {duration(row[3])} |" for row in machines),
        assumed=""
        if on_gpu
        else ": one population per core, cores that do not slow each other down (memory bandwidth, clock)",
    )
    return (
        "\n\n".join(part if part[0] in "#|" else textwrap.fill(part, 120) for part in text.split("\n\n"))
        + "\n"
    )


def hours(seconds: float) -> str:
    """Return a time in hours."""
    return f"{seconds / 3600:,.1f} h"


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    hours = seconds / 3600
    if hours >= 72:
        return f"{hours / 24:,.0f} days"
    return f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:,.0f} min"


def processor() -> str:
    """Return the processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, multiply, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--study", type=Path, default=ROOT / "conf/study/paper.yaml", help="a study's file")
    parser.add_argument(
        "--data",
        type=Path,
        default=ROOT / "conf/data/speech_commands_35.yaml",
        help="its features and batch size",
    )
    parser.add_argument("--epochs", type=int, help="in place of the study's")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="of every measurement, at least three steps"
    )
    parser.add_argument(
        "--output", default=str(ROOT / "docs/projected_cost.md"), help="file of the page; -: the screen"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    device = torch.device(options.device)
    study = read_study(options.study, [] if options.epochs is None else [f"--epochs={options.epochs}"])
    settings: dict[str, Any] = {}
    for layer in read_layers(options.data):
        settings |= layer.get("data", {})
    front_end = make_front_end(settings.get("front_end", {}))
    augmentation = AugmentationSettings(**settings.get("augmentation", {}))
    size = DataSize(
        N_TRAIN,
        N_TEST,
        front_end.n_frames(front_end.sample_rate),
        front_end.n_features,
        settings.get("batch_size", 128),
    )
    members = plan_members(study, cast(SequenceData, FullSet()))
    on_gpu = device.type == "cuda"
    memory = (
        0.7 * torch.cuda.mem_get_info(device)[0]
        if on_gpu
        else 0.7 * available_memory() / (os.cpu_count() or 1)
    )
    largest = {
        member.shape: largest_population(
            study, member, size.n_frames, size.n_features, size.batch_size, memory, on_gpu
        )
        for member in members
    }
    populations = partition(members, largest)
    clock = Clock(device)
    product = measure_product(clock, min(options.seconds, 2.0))
    features = measure_features(front_end, augmentation, size.batch_size, clock, min(options.seconds, 2.0))
    measured: dict[Shape, Measured] = {}
    for population in populations:
        shape = shape_of(population.members[0])
        if shape not in measured:
            measured[shape] = measure(study, population, size, device, options.seconds)
            rate = measured[shape]
            print(
                f"{shape[0]} {shape[1]}: {1 / rate.training:,.0f} clips/s in training, {1 / rate.evaluation:,.0f} in"
                " evaluation, times members",
                flush=True,
            )
    machine = torch.cuda.get_device_name(device) if on_gpu else f"{processor()}, {os.cpu_count()} cores"
    text = page(
        study,
        size,
        add_up(study, populations, size),
        measured,
        features,
        product,
        machine,
        device,
        options.study.stem,
    )
    if options.output == "-":
        print(text)
        return
    with write_atomically(Path(options.output)) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"written: {options.output}")


if __name__ == "__main__":
    main()
