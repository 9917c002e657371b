"""``asr-dni study plan``: what would be done, what is done already, and an estimate of the time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from asr_dni.cli.study.command_line import prepare, read
from asr_dni.cli.study.damages import tell_damages
from asr_dni.cli.study.durations import duration
from asr_dni.cli.study.estimate import estimate
from asr_dni.wording import count

if TYPE_CHECKING:
    from asr_dni.study.engine import StudyRun
    from asr_dni.study.plan import Population

LISTED = 100
"""Populations that a plan lists one by one."""


def plan_study(arguments: Sequence[str]) -> None:
    """Run ``asr-dni study plan``."""
    study, parsed = read("plan", arguments)
    print_plan(prepare(study, parsed), parsed.measure)


def print_plan(run: "StudyRun", measure: bool) -> None:
    """Print what a run would do.

    Args:
        run: which is planned.
        measure: whether its time is estimated, from a few steps of every shape.
    """
    from rich.table import Table

    from asr_dni.terminal import make_console

    console = make_console()
    run.prepare()
    workers, on_gpu = _workers(run)
    tell_damages(run.damages(), console)
    populations = run.plan(workers, on_gpu)
    done = run.folder.ledger.members()
    results = frozenset().union(*(member.results for member in run.members))
    missing = run.missing()
    settings, size = run.study.settings, run.size
    assert size is not None
    seconds = estimate(run, populations, "cuda" if on_gpu else "cpu") if measure and populations else {}
    table = Table("population", "members", "sigma_train", "seeds", "state", title=f"study {settings.name}")
    if seconds:
        table.add_column("estimate", justify="right")
    for population in populations[:LISTED]:
        members = population.members
        sigmas = sorted({member.sigma_train for member in members})
        seeds = sorted({member.seed for member in members})
        progress = run.folder.progress(population.id)
        state = (
            "new"
            if progress.epochs == 0 or progress.state == "done"
            else f"epoch {progress.epoch}/{progress.epochs}"
        )
        row = [_title(population), str(len(members)), _numbers(sigmas), _numbers(seeds), state]
        table.add_row(*row, *([duration(seconds[population.id])] if seconds else []))
    console.print(table)
    if len(populations) > LISTED:
        console.print(f"and {count(len(populations) - LISTED, 'more population')}", highlight=False)
    console.print(
        f"{count(len(run.members), 'member')} ({len(run.members) - len(missing)} done),"
        f" {count(len(populations), 'population')} for {count(workers, 'worker')};"
        f" {len(results & done)} of {len(results)} results are in {run.folder.ledger.path}",
        soft_wrap=True,
        highlight=False,
    )
    console.print(
        f"{size.n_train} training clips in batches of {size.batch_size}, {size.n_frames} frames of"
        f" {size.n_features} features; {count(settings.epochs, 'epoch')}; evaluated on {size.n_evaluated} clips of the"
        f" {settings.evaluation.split} split",
        soft_wrap=True,
        highlight=False,
    )
    if seconds:
        total = sum(seconds.values())
        longest = max(total / workers, max(seconds.values()))
        where = "the GPU" if on_gpu else "one thread here"
        console.print(
            f"estimated, as measured on {where} now: {duration(total)} with one worker, {duration(longest)} with"
            f" {workers} (features, start and report not counted)",
            soft_wrap=True,
            highlight=False,
        )


def _workers(run: "StudyRun") -> tuple[int, bool]:
    """Return how many workers a start would have, and whether they have GPUs, without starting any."""
    import torch

    from asr_dni.study.ray_engine import processors

    settings = run.settings
    gpus = torch.cuda.device_count() if settings.address is None else 0
    on_gpu = settings.gpus_per_worker is not None and settings.gpus_per_worker > 0
    on_gpu = on_gpu or (settings.gpus_per_worker is None and gpus > 0)
    if settings.workers is not None:
        return max(1, settings.workers), on_gpu
    if on_gpu and gpus:
        return max(1, int(gpus / (settings.gpus_per_worker or 1.0))), True
    return max(1, processors() // settings.cpus_per_worker), on_gpu


def _title(population: "Population") -> str:
    first = population.members[0]
    layers = f"{first.network.layers} x " if first.network.layers > 1 else ""
    return f"{first.cell} {layers}{first.network.units}, {population.noise}"


def _numbers(values: Sequence[float], longest: int = 28) -> str:
    text = " ".join(f"{value:g}" for value in values)
    return text if len(text) <= longest else f"{values[0]:g} ... {values[-1]:g} ({len(values)})"
