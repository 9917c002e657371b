"""What a member costs in a population, measured on this machine."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from asr_dni.device import choose_device
from asr_dni.evaluation.measurement.scoring import Passes
from asr_dni.model.population_spotter import Member, PopulationSpotter
from asr_dni.model.step import member_losses
from asr_dni.nn import calibrate
from asr_dni.noise import Noise
from asr_dni.study.cost import DataSize
from asr_dni.study.plan import PlannedMember
from asr_dni.study.reading import Study


@dataclass(frozen=True)
class Speed:
    """What a member costs in a population.

    Attributes:
        training: seconds of a training step per member.
        evaluation: seconds of a noisy pass over a batch per member, mean over the passes on all its hardware.
    """

    training: float
    evaluation: float


def measure_speed(
    study: Study, member: PlannedMember, size: DataSize, members: int, device: str = "auto"
) -> Speed:
    """Measure training steps and noisy passes of a population, on random features.

    Args:
        study: says how it is trained.
        member: what is trained.
        size: of its batches.
        members: of the population.
        device: on what.
    """
    where = choose_device(device)
    noise = member.noise.training_noise()
    spotter = PopulationSpotter(
        [Member(seed=k) for k in range(members)],
        ["a", "b"],
        size.n_features,
        member.network,
        noise,
        study.make_optimizer(member.cell),
    ).to(where)
    optimizer = spotter.optimizer_callable(spotter.parameters())
    features = torch.randn(size.batch_size, size.n_frames, size.n_features, device=where)
    labels = torch.zeros(size.batch_size, dtype=torch.long, device=where)
    # Where the noise is strongest: at strength 0 much of the work may not be there.
    strongest = max(study.settings.sigmas_of(member.noise))
    in_training = noise.of_pass(noise.at(strongest), 0, 0).realised(draw=0)
    if study.settings.training.calibrate_every:
        calibrate(spotter.network, [features], by_batch=True)

    def step() -> None:
        optimizer.zero_grad()
        with spotter.network.under(in_training):
            loss = member_losses(spotter.network(features), labels).sum()
        torch.autograd.backward(loss)
        optimizer.step()

    training = _seconds(step, where)
    with torch.inference_mode():
        passes = Passes(spotter.network, features)
    spotter.eval()

    def seconds_on(noise: Noise) -> float:
        with torch.inference_mode():
            return _seconds(lambda: passes.logits(noise), where)

    spent = sum(
        evaluation.n_passes * seconds_on(evaluation.sweep.levels[-1].noise.realised(draw=0))
        for evaluation, *_ in member.measured
    )
    trained = study.settings.training.passes * training
    return Speed(trained / members, spent / member.n_passes / members)


def _seconds(
    work: Callable[[], object], device: torch.device, at_least: float = 0.3, repeats: int = 3
) -> float:
    """Return the seconds of the fastest of some calls, after one that is not counted."""
    fastest, total, calls = float("inf"), 0.0, 0
    work()
    while calls < repeats or (total < at_least and calls < 20):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken = time.perf_counter() - began
        fastest, total, calls = min(fastest, taken), total + taken, calls + 1
        if total > 5:
            break
    return fastest
