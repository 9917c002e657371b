"""How long populations will take, from a few steps of every shape."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr_dni.study.engine import StudyRun
    from asr_dni.study.plan import Population

MEASURING_SECONDS = 20.0
"""How long a plan measures; at least one shape is."""


def estimate(run: "StudyRun", populations: "Sequence[Population]", device: str) -> dict[str, float]:
    """Return the seconds that populations will take, from a few steps of every shape, as far as there is time."""
    import torch

    from asr_dni.study.cost import operations_per_clip
    from asr_dni.study.speed import measure_speed
    from asr_dni.study.survey import fraction_done

    assert run.size is not None
    threads = torch.get_num_threads()
    torch.set_num_threads(run.settings.cpus_per_worker)
    speeds: dict[Any, Any] = {}
    estimates = {}
    done = run.folder.ledger.members()
    began = time.monotonic()
    try:
        for population in populations:
            member = population.members[0]
            members = min(len(population.members), 64 if device == "cuda" else 4)
            key = (member.shape, members)
            if key not in speeds and (not speeds or time.monotonic() - began < MEASURING_SECONDS):
                speeds[key] = member.network, measure_speed(run.study, member, run.size, members, device)
            if key in speeds:
                (_, speed), factor = speeds[key], 1.0
            else:  # as fast as the last one, by operations
                network, speed = next(reversed(speeds.values()))
                factor = operations_per_clip(member.network, run.size) / operations_per_clip(
                    network, run.size
                )
            trained = not run.folder.keeps(population.members)
            steps = run.size.n_batches * run.study.settings.epochs if trained else 0
            batches = run.size.n_evaluated / run.size.batch_size
            left = 1 - fraction_done(population, run.folder.progress(population.id), done)
            each = speed.training * steps + speed.evaluation * member.n_passes * batches
            estimates[population.id] = len(population.members) * each * factor * left
    finally:
        torch.set_num_threads(threads)
    return estimates
