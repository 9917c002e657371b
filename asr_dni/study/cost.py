"""What populations take: memory, and the operations of training and evaluation."""

import dataclasses
import os

from asr_dni.errors import UserError
from asr_dni.model.network import NetworkSettings, equations_of
from asr_dni.study.plan import PlannedMember, Population
from asr_dni.study.reading import Study

LARGEST_ON_CPU, LARGEST_ON_GPU = 16, 64
"""Members of a population where nothing else limits it: more do not make a step cheaper per member."""


def largest_population(
    study: Study,
    member: PlannedMember,
    n_frames: int,
    n_features: int,
    batch_size: int,
    memory: float,
    on_gpu: bool,
) -> int:
    """Return how many members a population of a member's shape may have.

    Args:
        study: says its limits.
        member: of that shape.
        n_frames: T, frames per clip.
        n_features: F, features per frame.
        batch_size: N, clips per batch and member.
        memory: bytes that one population may take.
        on_gpu: whether it is trained on a GPU.

    Raises:
        UserError: not even one member fits.
    """
    limits = study.settings.population
    memory = memory if limits.memory_gb is None else limits.memory_gb * 1e9
    drawn = batch_size * study.settings.training.draws
    one = memory_of_member(member.network, n_frames, n_features, drawn)
    if one > memory:
        where = "the memory" if limits.memory_gb is None else "population.memory_gb"
        raise UserError(
            f"a training of {member.cell} with {member.network.units} units takes about {one / 1e9:.1f} GB, more than"
            f" {where}, {memory / 1e9:.1f} GB: give a smaller data.batch_size"
        )
    largest = (LARGEST_ON_GPU if on_gpu else LARGEST_ON_CPU) if limits.members is None else limits.members
    return max(1, min(largest, int(memory / one)))


def memory_of_member(network: NetworkSettings, n_frames: int, n_features: int, batch_size: int) -> float:
    """Return the bytes that one member of a population takes in training, estimated.

    Kept for the backward pass are, per frame, clip and layer, the gates after their functions, cell and hidden state;
    the layer that is worked on has its gates once more, with their noise or gradient. Half as much again is for what
    is in flight. Of convolutions there are their outputs, before and after normalisation and after ReLU. Parameters
    come with gradient and two moments.
    """
    directions = 2 if network.bidirectional else 1
    gates = len(equations_of(network.cell).gates)
    kept, parameters = 0.0, 0
    if network.convolutions is not None:
        kept = network.convolutions.n_kept(n_frames, n_features)
        parameters = network.convolutions.n_weights(n_features)
        n_frames, n_features = _behind_convolutions(network, n_frames, n_features)
    per_frame = network.layers * directions * network.units * (2 * gates + 3) + n_features
    fed_back = network.projection or network.units
    inputs = [n_features] + [fed_back * directions] * (network.layers - 1)
    parameters += sum(directions * gates * network.units * (n + fed_back + 2) for n in inputs)
    return 4.0 * (1.5 * batch_size * (n_frames * per_frame + kept) + 4 * parameters)


def _behind_convolutions(network: NetworkSettings, n_frames: int, n_features: int) -> tuple[int, int]:
    """Return how many frames of how many numbers the recurrent layers get."""
    its = network.convolutions
    return (n_frames, n_features) if its is None else (its.n_frames(n_frames), its.n_outputs(n_features))


def available_memory() -> float:
    """Return the bytes of memory of this machine that are free."""
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError):  # not known on this system
        return 4e9


@dataclasses.dataclass(frozen=True)
class DataSize:
    """How much data there are.

    Attributes:
        n_train: clips of the training split.
        n_evaluated: clips of the split that is evaluated.
        n_frames: T, frames per clip.
        n_features: F, features per frame.
        batch_size: N, clips per batch and member.
    """

    n_train: int
    n_evaluated: int
    n_frames: int
    n_features: int
    batch_size: int

    @property
    def n_batches(self) -> int:
        """Batches per epoch."""
        return -(-self.n_train // self.batch_size)


def operations_per_clip(network: NetworkSettings, size: DataSize) -> float:
    """Return the floating-point operations of one noisy forward pass of one clip.

    The products of convolutions and gates; 30 more per gate and unit stand for its noise and its function.
    """
    convolutions = 0.0
    if network.convolutions is not None:
        convolutions = network.convolutions.operations(size.n_frames, size.n_features)
    n_frames, n_features = _behind_convolutions(network, size.n_frames, size.n_features)
    directions = 2 if network.bidirectional else 1
    gates = len(equations_of(network.cell).gates) * network.units * directions
    fed_back = network.projection or network.units
    inputs = [n_features] + [fed_back * directions] * (network.layers - 1)
    return convolutions + float(n_frames * sum(gates * (2 * (n + fed_back) + 30) for n in inputs))


def training_cost(study: Study, member: PlannedMember, size: DataSize) -> float:
    """Return the operations of a member's training; backward takes twice what forward does."""
    clips = size.n_batches * size.batch_size * study.settings.epochs * study.settings.training.passes
    return 3 * clips * operations_per_clip(member.network, size)


def evaluation_cost(member: PlannedMember, size: DataSize) -> float:
    """Return the operations of a member's evaluation on the whole grid."""
    return member.n_passes * size.n_evaluated * operations_per_clip(member.network, size)


def population_cost(study: Study, population: Population, size: DataSize) -> float:
    """Return the operations of a population's training and evaluation."""
    return sum(
        training_cost(study, member, size) + evaluation_cost(member, size) for member in population.members
    )
