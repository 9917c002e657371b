"""Run a network at one level of a sweep, on all of its chips and in all draws, over a batch."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn

from asr_dni.evaluation.measurement.scoring import (
    DigitalFront,
    NoisyClassifier,
    NoisyClassifiers,
    Passes,
    evaluating,
    pieces_of,
    rows_within_memory,
)
from asr_dni.evaluation.measurement.sweep import Level
from asr_dni.nn.stacking import stack_networks

if TYPE_CHECKING:
    from asr_dni.data.batch import Batch

_CHIPS_AT_ONCE = 16


class Outcome(NamedTuple):
    """What a network says in one draw on some chips, of some clips of a batch.

    Attributes:
        chips: which.
        draw: which.
        clips: which of the batch.
        last: whether these are the batch's last ones.
        logits: ``(chips, clips, C)``.
    """

    chips: range
    draw: int
    clips: slice
    last: bool
    logits: Tensor


class LevelRunner:
    """Runs a network; several chips of it as a population of copies, which are made once.

    Args:
        network: its modes and noise are afterwards what they were.
    """

    def __init__(self, network: NoisyClassifier) -> None:
        self.network = network
        self._copies: dict[int, NoisyClassifiers] = {}

    def run(self, level: Level, batch: "Batch", passes: Passes[NoisyClassifier]) -> Iterator[Outcome]:
        """Yield what the network says on each chip in each draw.

        Args:
            level: which noise, how many chips and draws.
            batch: the clips.
            passes: of the network over the batch, what they have in common done once; the same for all levels.
        """
        if level.chips == 1:
            everything = slice(0, len(batch.labels))
            for draw in range(level.draws):
                noise = level.noise.realised(chip=0, draw=draw, sample_ids=batch.clip_ids)
                yield Outcome(range(1), draw, everything, True, passes.logits(noise)[None])
            return
        frames: Tensor | None = None
        if isinstance(self.network, DigitalFront) and self.network.frames_exact(level.noise.hardware):
            frames = passes.frames(self.network)
        for first in range(0, level.chips, _CHIPS_AT_ONCE):
            chips = range(first, min(first + _CHIPS_AT_ONCE, level.chips))
            copies = self._population(len(chips))
            with evaluating(cast(nn.Module, copies)):
                rows, begin = rows_within_memory(copies, batch), 0
                for piece in pieces_of(batch, max(1, rows // len(chips))):
                    clips = slice(begin, begin + len(piece.labels))
                    begin = clips.stop
                    of_piece = Passes(copies, piece.features, None if frames is None else frames[clips])
                    for draw in range(level.draws):
                        its = level.noise.realised(draw=draw, sample_ids=piece.clip_ids)
                        noises = [its.realised(chip=chip) for chip in chips]
                        last = begin == len(batch.labels)
                        yield Outcome(chips, draw, clips, last, of_piece.logits(noises))

    def _population(self, number: int) -> NoisyClassifiers:
        """Return so many copies of the network as one population."""
        if number not in self._copies:
            with torch.inference_mode(False):
                module = cast(nn.Module, self.network)
                self._copies[number] = cast(NoisyClassifiers, stack_networks([module] * number))
        return self._copies[number]
