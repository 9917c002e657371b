"""What a network says of every clip at one level of a sweep, on each chip and in each draw: what tables are made of."""

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from asr_dni.errors import UserError
from asr_dni.evaluation.measurement.running import LevelRunner
from asr_dni.evaluation.measurement.scoring import NoisyClassifier, Passes, evaluating, fingerprint
from asr_dni.evaluation.measurement.sweep import Level, Sweep
from asr_dni.files import write_atomically

if TYPE_CHECKING:
    from asr_dni.data.batch import Batch

_FORMAT = 1
_MOST_BYTES = 2**32


@dataclass(frozen=True)
class Outcomes:
    """What a network says at one level.

    Attributes:
        strength: the level.
        logits: ``(chips, draws, N, C)`` float32.
        labels: ``(N,)``.
        clip_ids: ``(N,)``.
        snr_db: of the noise; NaN where it is not known.
    """

    strength: float
    logits: Tensor
    labels: Tensor
    clip_ids: Tensor
    snr_db: float = float("nan")

    @property
    def posteriors(self) -> Tensor:
        """``(chips, draws, N, C)`` float32."""
        return self.logits.softmax(-1)

    @property
    def predicted(self) -> Tensor:
        """``(chips, draws, N)`` positions of labels."""
        return self.logits.argmax(-1)

    @property
    def right(self) -> Tensor:
        """``(chips, draws, N)`` booleans."""
        return self.predicted == self.labels


class EvaluationSet:
    """Labelled clips as features, computed once for all levels; clips of unknown words are left out.

    Args:
        batches: the clips.

    Raises:
        UserError: there are none.
    """

    def __init__(self, batches: Iterable["Batch"]) -> None:
        self.batches = [self._known(batch) for batch in batches]
        self.batches = [batch for batch in self.batches if len(batch.labels)]
        if not self.batches:
            raise UserError("there are no clips to evaluate on: the split is empty")
        self.labels = torch.cat([batch.labels for batch in self.batches]).cpu()
        self.clip_ids = torch.cat([batch.clip_ids for batch in self.batches]).cpu()

    def __len__(self) -> int:
        return len(self.labels)

    @staticmethod
    def _known(batch: "Batch") -> "Batch":
        known = batch.labels >= 0
        return batch if bool(known.all()) else type(batch)(*(tensor[known] for tensor in batch))

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that tell these clips, labels and features from any others."""
        digest = hashlib.blake2b(digest_size=8)
        for batch in self.batches:
            for tensor in batch:
                array = tensor.detach().cpu().contiguous()
                digest.update(f"{array.dtype} {tuple(array.shape)}\n".encode())
                digest.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


class OutcomeStore:
    """Measures levels, and keeps what was measured in files, whole or not at all.

    What was measured before under the same hardware, seed, chips and draws, with the same weights, on the same clips,
    is read; a file that is damaged is measured again. The folder may be deleted at any time.

    Args:
        network: on the batches' device.
        clips: to evaluate on.
        folder: of the files; ``None``: nothing is kept.
    """

    def __init__(self, network: NoisyClassifier, clips: EvaluationSet, folder: Path | None = None) -> None:
        self.network, self.clips, self.folder = network, clips, folder
        self._runner = LevelRunner(network)
        self._subject = f"{fingerprint(cast(nn.Module, network))} {clips.fingerprint()}"

    def is_kept(self, level: Level) -> bool:
        """Return whether there is a file for a level."""
        return self.folder is not None and self._file(level).is_file()

    def outcomes(self, level: Level, progress: Callable[[int], None] | None = None) -> Outcomes:
        """Return what the network says at a level.

        Args:
            level: which noise, how many chips and draws.
            progress: called with the number of passes over a batch that are done since it was called last.

        Raises:
            UserError: it is too much for memory.
        """
        logits = self._read(level)
        if logits is None:
            logits = self._measure(level, progress)
            if self.folder is not None:
                with write_atomically(self._file(level)) as temporary, open(temporary, "wb") as file:
                    np.savez(file, logits=logits.numpy())
        elif progress is not None:
            progress(self.passes(level))
        return Outcomes(level.value, logits, self.clips.labels, self.clips.clip_ids, self._snr_db(level))

    def passes(self, level: Level) -> int:
        """Return how many passes over a batch a level takes."""
        return len(self.clips.batches) * level.chips * level.draws

    def _snr_db(self, level: Level) -> float:
        if not level.noise.on:
            return float("inf")
        snr = self.network.snr_db(level.noise)
        return float("nan") if snr is None else float(snr)

    def _file(self, level: Level) -> Path:
        assert self.folder is not None
        realisation, placed = level.noise.realisation, level.noise.placed
        parts = [
            (
                *(its.part.module, its.part.layer, its.part.sites, its.part.gate),
                None if its.hardware is None else its.hardware.as_settings(),
            )
            for its in placed or ()
        ]
        named = [
            _FORMAT,
            self._subject,
            level.noise.hardware.as_settings(),
            realisation.seed,
            level.chips,
            level.draws,
            None if placed is None else parts,
        ]
        if level.noise.compensation is not None:
            named.append(level.noise.compensation.as_settings())
        what = json.dumps(named, sort_keys=True)
        return self.folder / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.npz"

    def _read(self, level: Level) -> Tensor | None:
        if self.folder is None:
            return None
        try:
            with np.load(self._file(level), allow_pickle=False) as file:
                logits = file["logits"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        if logits.ndim != 4 or logits.shape[:3] != (level.chips, level.draws, len(self.clips)):
            return None
        return torch.from_numpy(logits)

    @torch.no_grad()
    def _measure(self, level: Level, progress: Callable[[int], None] | None) -> Tensor:
        of_batches = []
        with evaluating(cast(nn.Module, self.network)):
            for batch in self.clips.batches:
                passes = Passes(self.network, batch.features)
                logits: Tensor | None = None
                for its in self._runner.run([level], batch, passes):
                    if logits is None:
                        shape = (level.chips, level.draws, len(batch.labels), its.logits.shape[-1])
                        needed = 4 * shape[0] * shape[1] * len(self.clips) * shape[3]
                        if needed > _MOST_BYTES:
                            raise UserError(
                                f"{level.chips} chips in {level.draws} draws on {len(self.clips)} clips take"
                                f" {needed / 2**30:.1f} GiB: give fewer draws or chips"
                            )
                        logits = torch.empty(shape)
                    chips = slice(its.chips.start, its.chips.stop)
                    logits[chips, its.draw, its.clips] = its.logits.float().cpu()
                    if progress is not None and its.last:
                        progress(len(its.chips))
                assert logits is not None
                of_batches.append(logits)
        return torch.cat(of_batches, dim=2)


def measure_sweep(
    store: OutcomeStore, sweep: Sweep, progress: Callable[[int], None] | None = None
) -> Sequence[Outcomes]:
    """Return what a network says at all levels of a sweep.

    Args:
        store: measures and keeps.
        sweep: the levels.
        progress: see :meth:`OutcomeStore.outcomes`.
    """
    return [store.outcomes(level, progress) for level in sweep.levels]
