"""Run a network at the levels of a sweep, on all of their chips and in all draws, over a batch."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn

from asr_dni.evaluation.measurement.scoring import (
    DigitalFront,
    NoisyClassifier,
    NoisyClassifiers,
    Passes,
    Repeatable,
    evaluating,
    pieces_of,
    rows_within_memory,
)
from asr_dni.evaluation.measurement.sweep import Level
from asr_dni.nn.stacking import stack_networks
from asr_dni.noise import Noise

if TYPE_CHECKING:
    from asr_dni.data.batch import Batch

_CHIPS_AT_ONCE = 16


class Outcome(NamedTuple):
    """What a network says in one draw on some chips, of some clips of a batch.

    Attributes:
        level: which of the levels.
        chips: which.
        draw: which.
        clips: which of the batch.
        last: whether these are the batch's last ones.
        logits: ``(chips, clips, C)``.
    """

    level: int
    chips: range
    draw: int
    clips: slice
    last: bool
    logits: Tensor


class LevelRunner:
    """Runs a network: several chips of it as a population of copies, several passes as one of repetitions.

    Args:
        network: its modes and noise are afterwards what they were.
    """

    def __init__(self, network: NoisyClassifier) -> None:
        self.network = network
        self._copies: dict[int, NoisyClassifiers] = {}

    def run(
        self, levels: Sequence[Level], batch: "Batch", passes: Passes[NoisyClassifier]
    ) -> Iterator[Outcome]:
        """Yield what the network says at each level on each chip in each draw, in an order of its own.

        Passes over one chip that differ in noise alone are made at once, as many as memory allows: what they have in
        common is done once, the same random numbers at several strengths too.

        Args:
            levels: which noise, how many chips and draws.
            batch: the clips.
            passes: of the network over the batch, what they have in common done once; the same for all levels.
        """
        everything = slice(0, len(batch.labels))
        # Made anew for each batch: what the network is calibrated to may have changed.
        repeated = functools.cache(self._repeated)
        for places in self._together(levels):
            its = {place: levels[place] for place in places}
            for of_call in self._calls(its, batch):
                noises = [
                    its[place].noise.realised(chip=0, draw=draw, sample_ids=batch.clip_ids)
                    for place, draw in of_call
                ]
                if len(noises) == 1:
                    logits = passes.logits(noises[0])[None]
                else:
                    logits = passes.logits_of_all(repeated(len(noises)), noises)
                for k, (place, draw) in enumerate(of_call):
                    yield Outcome(place, range(1), draw, everything, True, logits[k : k + 1])
        for place, level in enumerate(levels):
            if level.chips > 1:
                yield from self._on_chips(place, level, batch, passes)

    def _together(self, levels: Sequence[Level]) -> list[list[int]]:
        """Return places of levels of one chip, of which those in one list may be passed at once."""
        found: list[list[int]] = []
        for place, level in enumerate(levels):
            if level.chips > 1:
                continue
            for places in found:
                if self._alike(levels[places[0]].noise, level.noise):
                    places.append(place)
                    break
            else:
                found.append([place])
        return found

    def _alike(self, first: Noise, other: Noise) -> bool:
        network, pair = self.network, (first.hardware, other.hardware)
        exact, digital = [network.inputs_exact(its) for its in pair], False
        if isinstance(network, DigitalFront):
            digital = all(network.frames_exact(its) for its in pair)
        return (
            isinstance(network, Repeatable)
            and (all(exact) or (digital and not any(exact)))
            # Of weights that are programmed, one pass after another has them from the one before.
            and not any(its.weights_on for its in pair)
            and first.parts == other.parts
            and pair[0].alike(pair[1]) is None
        )

    def _calls(self, levels: Mapping[int, Level], batch: "Batch") -> Iterator[list[tuple[int, int]]]:
        """Yield level and draw of the passes of each call; levels of one draw, whose numbers are the same, in a row."""
        first = next(iter(levels.values()))
        most = 1
        if self._alike(first.noise, first.noise):
            most = max(1, rows_within_memory(self.network, batch) // max(1, len(batch.labels)))
        waiting: list[tuple[int, int]] = []
        for draw in range(max(level.draws for level in levels.values())):
            of_draw = [(place, draw) for place, level in levels.items() if draw < level.draws]
            if len(waiting) + len(of_draw) > most and waiting:
                yield waiting
                waiting = []
            calls = -(-len(of_draw) // most)
            for call in range(calls - 1):
                yield of_draw[len(of_draw) * call // calls : len(of_draw) * (call + 1) // calls]
            waiting += of_draw[len(of_draw) * (calls - 1) // calls :]
        if waiting:
            yield waiting

    def _on_chips(
        self, place: int, level: Level, batch: "Batch", passes: Passes[NoisyClassifier]
    ) -> Iterator[Outcome]:
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
                        yield Outcome(place, chips, draw, clips, last, of_piece.logits(noises))

    def _population(self, number: int) -> NoisyClassifiers:
        """Return so many copies of the network as one population."""
        if number not in self._copies:
            with torch.inference_mode(False):
                module = cast(nn.Module, self.network)
                self._copies[number] = cast(NoisyClassifiers, stack_networks([module] * number))
        return self._copies[number]

    def _repeated(self, number: int) -> NoisyClassifiers:
        """Return so many of the network with its weights, in evaluation mode."""
        assert isinstance(self.network, Repeatable)
        with torch.inference_mode(False):
            repeated = self.network.repeated(number)
        cast(nn.Module, repeated).eval()
        return repeated
