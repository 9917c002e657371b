"""A trained network with all that it needs to hear a recording: from a checkpoint to decisions, under any noise."""

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from asr_dni.checkpoint import NamedCheckpoint
from asr_dni.data import ClipFeatures, FolderClips, SequenceData, data_class_of, data_from_checkpoint
from asr_dni.data.audio import (
    HIGHEST_RATE,
    LOUDEST,
    LOWEST_RATE,
    DamagedRecording,
    fit_length,
    load_recording,
    to_mono,
)
from asr_dni.data.origins import count_kinds, kind_of, origins_remark
from asr_dni.data.source import Split
from asr_dni.data.store import clip_id
from asr_dni.device import choose_device
from asr_dni.errors import UserError
from asr_dni.evaluation import NoiseCurve, count_passes, measure_noise_curve
from asr_dni.evaluation.measurement.scoring import Passes, evaluating
from asr_dni.evaluation.measurement.sweep import check_draws
from asr_dni.inference.clips import Piece, ahead, as_samples, check_hop, cut, name_of
from asr_dni.inference.prediction import FilePrediction, Prediction
from asr_dni.model import KeywordSpotter, load_checkpoint
from asr_dni.noise import SIGMA, Noise, Strength, as_noise

logger = logging.getLogger(__name__)

_ORIGIN_SECONDS = 60
"""From the beginning of a recording: enough to tell what it was before."""


class Spotter:
    """A trained network with its labels, front end, normalisation and noise; :func:`load` makes one of a checkpoint.

    A clip is as long as in training: of a longer recording the first ``features.clip_seconds`` are heard, unless a
    hop is given; a shorter one is followed by silence. The noise of a clip depends on the noise's seed, the draw and
    the clip's name, not on the batch that it comes in or what was predicted before.

    Args:
        model: the trained network.
        features: what it expects of recordings, such as a data module's ``features``; ``None`` where it was not trained
            on recordings.
        device: where it runs: ``cpu``, ``cuda``, ``cuda:1``, ..., or ``auto``.

    Raises:
        UserError: network and front end do not fit, or the device is not there.

    Attributes:
        noise: the noise that it runs under where a call names none; at first there is none.
        label_names: the labels in the order of the network's outputs.
    """

    def __init__(
        self, model: KeywordSpotter, features: ClipFeatures | None, device: str | torch.device = "cpu"
    ) -> None:
        expected = model.network.n_features
        if features is not None and features.n_features != expected:
            raise UserError(
                f"the front end makes {features.n_features} features, but the network takes {expected}:"
                " they were not trained together"
            )
        self.device = choose_device(device)
        self.model = model.eval().to(self.device)
        self.network = model.network
        self.features = None if features is None else features.to(self.device)
        self.label_names = list(model.label_names)
        self.noise = Noise()
        self._path: Path | None = None
        self._data: Mapping[str, Any] = {}

    @classmethod
    def load(cls, checkpoint: str | Path, device: str | torch.device = "cpu") -> Self:
        """Make one of a checkpoint, see :func:`load`."""
        contents = NamedCheckpoint(load_checkpoint(checkpoint), checkpoint)
        with _naming(checkpoint):
            model = KeywordSpotter.from_checkpoint(contents)
            trained_on = data_class_of(contents)
            features = None if trained_on is None else trained_on.clip_features_from_checkpoint(contents)
        spotter = cls(model, features, device)
        spotter._path = Path(checkpoint)
        # The weights are in the model, and the optimiser's state is as large as two more of them.
        kept = {
            key: value for key, value in contents.items() if key not in ("state_dict", "optimizer_states")
        }
        spotter._data = NamedCheckpoint(kept, checkpoint)
        return spotter

    # ------------------------------------------------------------------ decisions

    def predict(
        self,
        waveform: ArrayLike | Tensor,
        sample_rate: float,
        *,
        noise: Noise | None = None,
        draws: int = 1,
        name: str | None = None,
    ) -> Prediction:
        """Decide on a recording; of one that is longer than a clip, on its beginning.

        Args:
            waveform: ``(S,)``, ``(channels, S)`` or ``(S, channels)`` samples, where the shorter axis is the channels,
                which are averaged: floating-point in [-1, 1], int16, or int32.
            sample_rate: samples per second; they are resampled to what the network expects.
            noise: the noise of the network; ``None`` takes :attr:`noise`. Its ``sample_ids`` are replaced; ``draw`` is
                the first that is used, 0 where there is none.
            draws: noisy passes whose posteriors are averaged (voting); without noise one is enough, and is taken.
            name: what the noise belongs to, as a file's name; ``None``: to the samples themselves.

        Raises:
            UserError: the samples are not audio, or the network was not trained on recordings.
        """
        samples, seconds = self._samples(waveform, sample_rate)
        return self._decide([Piece(samples, 0, seconds, name)], noise, draws)[0]

    def predict_windows(
        self,
        waveform: ArrayLike | Tensor,
        sample_rate: float,
        hop_seconds: float,
        *,
        noise: Noise | None = None,
        draws: int = 1,
        name: str | None = None,
        batch_size: int = 256,
    ) -> list[Prediction]:
        """Decide on every clip of a recording, one after each hop; silence follows the last one.

        Args:
            waveform: see :meth:`predict`.
            sample_rate: see :meth:`predict`.
            hop_seconds: from the beginning of a clip to that of the next; at most a clip's length.
            noise: see :meth:`predict`; every clip has its own.
            draws: see :meth:`predict`.
            name: see :meth:`predict`.
            batch_size: clips decided on at once; does not change the result.
        """
        samples, seconds = self._samples(waveform, sample_rate)
        pieces = iter(cut(samples, seconds, self._hearing().n_samples, self._hop(hop_seconds), name))
        predictions: list[Prediction] = []
        while batch := list(islice(pieces, check_batch_size(batch_size))):
            predictions += self._decide(batch, noise, draws)
        return predictions

    def predict_files(
        self,
        paths: Iterable[str | Path],
        *,
        noise: Noise | None = None,
        draws: int = 1,
        hop_seconds: float | None = None,
        batch_size: int = 256,
        damaged: Literal["report", "error"] = "report",
    ) -> Iterator[FilePrediction]:
        """Decide on recordings, one after the other and in their order; memory does not grow with their number.

        A file's noise belongs to its name and that of its folder (``yes/0a7c2a8d_nohash_0.wav``), as in a noise curve,
        and is the same wherever the folder lies. Recordings that a network may hear badly (of a lower rate, upsampled,
        MP3) are warned of after the last one, with their numbers.

        Args:
            paths: files that libsndfile can read (WAV, FLAC, Ogg, MP3), of any rate and number of channels.
            noise: see :meth:`predict`.
            draws: see :meth:`predict`.
            hop_seconds: see :meth:`predict_windows`; ``None``: only a recording's first clip.
            batch_size: clips decided on at once; does not change the result.
            damaged: whether a file that cannot be used is reported in its result, or is an error.

        Raises:
            UserError: a file cannot be used and ``damaged`` is ``error``, or the network was not trained on recordings.
        """
        expected = self._hearing()
        if isinstance(paths, str | Path):
            raise UserError(f"paths is one path, {paths}: give a list of them")
        hop = None if hop_seconds is None else self._hop(hop_seconds)
        check_batch_size(batch_size)
        check_draws(draws)
        if damaged not in ("report", "error"):
            raise UserError(f"damaged: {damaged!r} is not valid; give report or error")

        def read(path: str | Path) -> _File:
            file = _File(Path(path))
            try:
                recording = load_recording(file.path, expected.sample_rate)
            except DamagedRecording as problem:
                file.error = problem.reason
                return file
            if recording.peak > LOUDEST:
                file.error = (
                    f"its samples reach {recording.peak:g}; expected floating-point samples in [-1, 1]"
                )
                return file
            samples = recording.samples
            beginning = samples[: _ORIGIN_SECONDS * expected.sample_rate]
            file.origin = kind_of(replace(recording, samples=beginning), expected.sample_rate)
            name = f"{file.path.absolute().parent.name}/{file.path.name}"
            seconds = len(samples) / expected.sample_rate
            file.pieces = cut(samples, seconds, expected.n_samples, hop, name)
            return file

        return self._predict_files(ahead(read, paths), noise, draws, batch_size, damaged)

    def _predict_files(
        self,
        files: Iterable["_File"],
        noise: Noise | None,
        draws: int,
        batch_size: int,
        damaged: Literal["report", "error"],
    ) -> Iterator[FilePrediction]:
        waiting: deque[_File] = deque()
        batch: list[tuple[_File, Piece]] = []
        origins: list[str] = []

        def decide() -> None:
            decided = self._decide([piece for _, piece in batch], noise, draws)
            for (file, _), prediction in zip(batch, decided, strict=True):
                file.predictions.append(prediction)
            batch.clear()

        def finished() -> Iterator[FilePrediction]:
            while waiting and len(waiting[0].predictions) == len(waiting[0].pieces):
                file = waiting.popleft()
                if file.error is None:
                    origins.append(file.origin)
                yield FilePrediction(file.path, tuple(file.predictions), file.error, file.origin)

        for file in files:
            if file.error is not None and damaged == "error":
                raise UserError(f"{file.path}: {file.error}")
            waiting.append(file)
            for piece in file.pieces:
                batch.append((file, piece))
                if len(batch) == batch_size:
                    decide()
            # Files that cannot be used fill no batch.
            if len(waiting) >= batch_size and batch:
                decide()
            yield from finished()
        if batch:
            decide()
        yield from finished()
        remark = origins_remark("predict", count_kinds(origins), len(origins), self._hearing().sample_rate)
        if remark is not None:
            logger.warning("%s", remark)

    def predict_features(
        self, features: Tensor, *, noise: Noise | None = None, draws: int = 1
    ) -> list[Prediction]:
        """Decide on features, as the network gets them.

        Args:
            features: ``(N, T, F)``.
            noise: see :meth:`predict`; a sequence's noise belongs to its features.
            draws: see :meth:`predict`.

        Raises:
            UserError: the features have another shape.
        """
        n_features = self.network.n_features
        if features.dim() != 3 or features.shape[-1] != n_features or not features.shape[1]:
            raise UserError(
                f"features are {tuple(features.shape)}: give (N, T, {n_features}), sequences of T steps"
            )
        features = features.to(self.device, torch.float32)
        names = [name_of(sequence.cpu().numpy()) for sequence in features]
        posteriors = self._posteriors(features, names, noise, draws)
        return [self._prediction(row, 0.0, math.nan) for row in posteriors.tolist()]

    def _hearing(self) -> ClipFeatures:
        if self.features is None:
            raise UserError(
                f"{self._path or 'the network'}: was not trained on recordings, and cannot hear any;"
                " asr_dni.load(...).predict_features takes its features"
            )
        return self.features

    def _samples(self, waveform: ArrayLike | Tensor, sample_rate: float) -> tuple[NDArray[np.int16], float]:
        """Return a recording as the network expects it, and its length in seconds."""
        expected = self._hearing()
        if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
            raise UserError(
                f"sample_rate is {sample_rate}: give samples per second, {LOWEST_RATE} to {HIGHEST_RATE}"
            )
        samples = as_samples(waveform)
        mono = to_mono(samples, sample_rate, expected.sample_rate)
        return mono, len(samples) / sample_rate

    def _hop(self, hop_seconds: float) -> int:
        expected = self._hearing()
        check_hop(hop_seconds, expected.clip_seconds)
        return round(hop_seconds * expected.sample_rate)

    def _decide(self, pieces: Sequence[Piece], noise: Noise | None, draws: int) -> list[Prediction]:
        expected = self._hearing()
        clips = np.stack([fit_length(piece.samples, expected.n_samples) for piece in pieces])
        names = [
            name_of(clip) if piece.name is None else piece.name
            for piece, clip in zip(pieces, clips, strict=True)
        ]
        features = expected(torch.from_numpy(clips).to(self.device))
        posteriors = self._posteriors(features, names, noise, draws).tolist()
        return [
            self._prediction(row, piece.start / expected.sample_rate, piece.seconds)
            for row, piece in zip(posteriors, pieces, strict=True)
        ]

    def _posteriors(self, features: Tensor, names: Sequence[str], noise: Noise | None, draws: int) -> Tensor:
        """Return ``(N, C)`` float64 probabilities, means over the draws, on the CPU."""
        noise = as_noise(self.noise if noise is None else noise)
        check_draws(draws)
        first = noise.realisation.draw or 0
        sample_ids = torch.tensor([clip_id(name) for name in names], device=self.device)
        with evaluating(self.network):
            passes = Passes(self.network, features)
            total = torch.zeros(
                (len(features), len(self.label_names)), dtype=torch.float64, device=self.device
            )
            for draw in range(first, first + (draws if noise.hardware.random else 1)):
                its = noise.realised(draw=draw, sample_ids=sample_ids)
                total += passes.logits(its).double().softmax(-1)
        posteriors = (total / total.sum(-1, keepdim=True)).cpu()
        if not posteriors.isfinite().all():
            raise UserError(f"{self._path or 'the network'}: answers with values that are not finite numbers")
        return posteriors

    def _prediction(self, posteriors: Sequence[float], start: float, seconds: float) -> Prediction:
        named = dict(zip(self.label_names, posteriors, strict=True))
        return Prediction(max(named, key=named.__getitem__), named, start, seconds)

    # ------------------------------------------------------------------ accuracy

    def data(
        self,
        folder: str | Path | None = None,
        split: Split | Literal["all"] = "test",
        *,
        batch_size: int = 256,
        damaged: Literal["error", "skip"] | None = None,
        bring: bool = True,
    ) -> SequenceData:
        """Open labelled clips to evaluate on: a split of the data that it was trained with, or a folder's clips.

        Args:
            folder: with one folder per word, see :class:`asr_dni.data.Folder`; ``None``: its own data, which have to
                be where they were.
            split: which of the clips.
            batch_size: clips evaluated at once.
            damaged: whether a recording that cannot be decoded is an ``error``, or is left out (``skip``); ``None``: as
                in training.
            bring: whether its own data are downloaded or made where they are not there; else that is an error.

        Raises:
            UserError: there are no such data, or none that the network could hear.
        """
        if not self._data:
            raise UserError("data are kept in checkpoints: this network was not loaded from one")
        replacements: dict[str, Any] = {"batch_size": batch_size} | ({"damaged": damaged} if damaged else {})
        if (folder or damaged) and self.features is None:
            raise UserError(
                f"{self._path}: was not trained on recordings; leave out the folder (--data) and --damaged"
            )
        if folder is None:
            if split == "all":
                raise UserError(
                    "--split all needs --data: the checkpoint's own data hold the clips it was trained on"
                )
            module = data_from_checkpoint(self._data, **replacements)
        else:
            module = FolderClips.for_checkpoint(self._data, folder, split, **replacements)
        if bring:
            module.prepare_data()
        module.setup("fit" if folder is None and split != "test" else "test")
        return module

    def settings_on(self, data: SequenceData, split: Split | Literal["all"] = "test") -> dict[str, Any]:
        """Return what a curve or an evaluation notes of the network and of the clips, as plain values."""
        return {
            **self.model.curve_settings(),
            **({"checkpoint": str(self._path)} if self._path else {}),
            "seed": data.seed,
            "protocol": data.protocol_of(split),
            "split": split,
            "n_classes": len(self.label_names),
        }

    def noise_curve(
        self,
        data: SequenceData,
        levels: Sequence[float],
        draws: int,
        *,
        split: Split | Literal["all"] = "test",
        noise: Noise | None = None,
        progress: Callable[[int, int], None] | None = None,
        strength: Strength = SIGMA,
        chips: int = 1,
    ) -> NoiseCurve:
        """Measure its accuracy against the strength of the noise, or any other strength of a hardware.

        Args:
            data: labelled clips, such as :meth:`data` opens.
            levels: values of the strength.
            draws: realisations of the noise per level and chip.
            split: which of the clips.
            noise: hardware and seed; ``None`` takes :attr:`noise`.
            progress: called after every noisy pass with how many are done, and how many there are.
            strength: which of the hardware's numbers is the axis.
            chips: of the network, where weights differ from chip to chip.
        """
        evaluated: Split = "test" if split == "all" else split
        noise = as_noise(self.noise if noise is None else noise)
        total, done = data.n_batches(evaluated) * count_passes(levels, draws, noise, strength, chips), 0

        def advance() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, total)

        return measure_noise_curve(
            self.network,
            data.batches(evaluated, self.device),
            levels,
            draws,
            noise,
            settings=self.settings_on(data, split),
            progress=advance,
            strength=strength,
            chips=chips,
        )


def load(checkpoint: str | Path, device: str | torch.device = "cpu") -> Spotter:
    """Make a :class:`Spotter` of a checkpoint that ``asr-dni fit`` wrote.

    It needs nothing but the file: no data set, and nothing that the file names is imported. A front end of your
    own has to be imported before.

    Args:
        checkpoint: a .ckpt file, or the name of a network that comes with the package (:mod:`asr_dni.models`).
        device: where it runs: ``cpu``, ``cuda``, ``cuda:1``, ..., or ``auto``.

    Raises:
        UserError: the file is missing, cannot be read, or holds no keyword spotter; the device is not there.
    """
    return Spotter.load(checkpoint, device)


def check_batch_size(batch_size: int) -> int:
    """Return the number of clips in a batch.

    Raises:
        UserError: it is not positive.
    """
    if batch_size < 1:
        raise UserError(f"batch_size: {batch_size} is not valid; give 1 or more")
    return batch_size


@contextmanager
def _naming(checkpoint: str | Path) -> Iterator[None]:
    """Name the file where one of its settings is out of range, which only the settings' class finds."""
    try:
        yield
    except UserError as error:
        if str(checkpoint) in str(error):
            raise
        raise UserError(f"{checkpoint}: {error}") from error


@dataclass
class _File:
    path: Path
    pieces: Sequence[Piece] = ()
    predictions: list[Prediction] = field(default_factory=list)
    error: str | None = None
    origin: str = ""
