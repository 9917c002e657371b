"""What training K networks at once costs, against one after another: time per member and step, and memory.

Both sides are Lightning trainings as they are used: noise at all matrix-vector products, Adam, dropout, clipping, and
for times the allocator as `asr-dni` has it (asr_dni.memory), which would otherwise give each of a population's large
tensors back to the system.

    python benchmarks/population.py time --networks 8 --threads 1
    python benchmarks/population.py time --networks 32 --products bfloat16
    python benchmarks/population.py memory --networks 8 16 32
"""

import argparse
import logging
import multiprocessing
import resource
import time
import warnings
from collections.abc import Iterator
from itertools import pairwise
from statistics import median
from typing import get_args

import pytorch_lightning as pl
import torch

from asr_dni.data import Batch, PopulationData
from asr_dni.memory import keep_freed_memory
from asr_dni.model import (
    KeywordSpotter,
    Member,
    NetworkSettings,
    NoiseAnnealing,
    PopulationSpotter,
    TrainingNoise,
)
from asr_dni.nn.precision import ProductsSetting

FRAMES, FEATURES, LABELS = 50, 40, 8
ANNEALING = {"sigma": 1.0, "start": 1.0, "schedule": "constant"}


class RandomBatches:
    """So many batches of random features."""

    def __init__(self, steps: int, rows: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.batches = [
            Batch(
                torch.randn(rows, FRAMES, FEATURES, generator=generator),
                torch.randint(LABELS, (rows,), generator=generator),
                torch.randint(2**62, (rows,), generator=generator),
            )
            for _ in range(steps)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


class RandomData(pl.LightningDataModule):
    """Enough of a datamodule for a training without validation."""

    def __init__(self, steps: int, rows: int, seed: int) -> None:
        super().__init__()
        self.seed, self.loader = seed, RandomBatches(steps, rows, seed)
        self.save_hyperparameters({"data": {"seed": seed}})

    def train_dataloader(self) -> RandomBatches:
        return self.loader


def trainer(*callbacks: pl.Callback, **options: object) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=list(callbacks),
        **options,
    )


def network(arguments: argparse.Namespace) -> NetworkSettings:
    return NetworkSettings(
        arguments.cell, arguments.units, arguments.layers, dropout=0.1, products=arguments.products
    )


def names() -> list[str]:
    return [str(label) for label in range(LABELS)]


def clock(arguments: argparse.Namespace) -> float:
    """Seconds: with one thread of the processor's time, which others on the machine disturb less."""
    return time.process_time() if arguments.threads == 1 else time.perf_counter()


def train_one_by_one(arguments: argparse.Namespace, data: list[RandomData], seeds: list[int]) -> float:
    started = clock(arguments)
    for k, seed in enumerate(seeds):
        torch.manual_seed(k)
        spotter = KeywordSpotter(names(), FEATURES, network(arguments), TrainingNoise(seed=k))
        trainer(NoiseAnnealing(**ANNEALING), gradient_clip_val=1.0).fit(spotter, datamodule=data[seed])
    return clock(arguments) - started


def train_population(arguments: argparse.Namespace, data: list[RandomData], seeds: list[int]) -> float:
    started = clock(arguments)
    members = [Member(seed=k, data_seed=seed, annealing=ANNEALING) for k, seed in enumerate(seeds)]
    population = PopulationSpotter(members, names(), FEATURES, network(arguments), gradient_clip=1.0)
    trainer().fit(population, datamodule=PopulationData(data, seeds))
    return clock(arguments) - started


def measure_time(arguments: argparse.Namespace) -> None:
    keep_freed_memory()
    for networks in arguments.networks:
        for shared in (True, False):
            seeds = [0] * networks if shared else list(range(networks))
            data = [RandomData(arguments.steps, arguments.rows, seed) for seed in sorted(set(seeds))]
            train_population(arguments, data, seeds)
            ratios, alone, together = [], [], []
            for _ in range(arguments.rounds):
                one, many = train_one_by_one(arguments, data, seeds), train_population(arguments, data, seeds)
                ratios.append(one / many)
                alone.append(1e3 * one / networks / arguments.steps)
                together.append(1e3 * many / networks / arguments.steps)
            print(
                f"K {networks:3d}, {'one batch for all' if shared else 'own batches      '}: per member and step"
                f" {median(alone):.2f} ms alone, {median(together):.2f} ms in the population; ratio"
                f" {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                flush=True,
            )


def _peak(arguments: argparse.Namespace, networks: int, shared: bool, connection: object) -> None:
    torch.set_num_threads(arguments.threads)
    quiet()
    seeds = [0] * networks if shared else list(range(networks))
    data = [RandomData(2, arguments.rows, seed) for seed in sorted(set(seeds))]
    train_population(arguments, data, seeds)
    connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def measure_memory(arguments: argparse.Namespace) -> None:
    context = multiprocessing.get_context("spawn")
    for shared in (True, False):
        peaks = []
        for networks in arguments.networks:
            here, there = context.Pipe()
            process = context.Process(target=_peak, args=(arguments, networks, shared, there))
            process.start()
            peaks.append(here.recv())
            process.join()
            print(
                f"K {networks:3d}, {'one batch for all' if shared else 'own batches'}: peak {peaks[-1] / 2**20:.0f} MiB"
            )
        for before, after in pairwise(zip(arguments.networks, peaks, strict=True)):
            further = (after[1] - before[1]) / (after[0] - before[0])
            print(f"  K {before[0]} to {after[0]}: {further / 2**20:.2f} MiB per further member")


def quiet() -> None:
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.ERROR)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["time", "memory"])
    parser.add_argument("--networks", type=int, nargs="+", default=[8])
    parser.add_argument("--cell", choices=["rnn", "lstm", "gru"], default="lstm")
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--rows", type=int, default=64, help="clips in a batch")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--products", choices=get_args(ProductsSetting), help="precision of both sides")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    quiet()
    (measure_time if arguments.what == "time" else measure_memory)(arguments)


if __name__ == "__main__":
    main()
