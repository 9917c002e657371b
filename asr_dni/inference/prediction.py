"""What a network decides on clips and files."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Prediction:
    """What a network decides on one clip.

    Attributes:
        label: the most probable label.
        posteriors: the probability of every label, in the order of the network's outputs; they sum to 1. Of several
            draws of the noise it is the mean.
        start: where in the recording the clip begins, in seconds.
        seconds: length of the whole recording. What is there beyond the clip was not heard.
    """

    label: str
    posteriors: Mapping[str, float]
    start: float = 0.0
    seconds: float = math.nan

    @property
    def posterior(self) -> float:
        """The probability of :attr:`label`."""
        return self.posteriors[self.label]


@dataclass(frozen=True)
class FilePrediction:
    """What a network decides on one file.

    Attributes:
        path: the file.
        predictions: one; with a hop one for every clip of the recording, in their order; none where the file cannot
            be used.
        error: why the file cannot be used; ``None``: it could.
        origin: what a network may hear badly: ``low rate 8000``, ``band-limited`` (as if upsampled from 8 kHz) or
            ``MP3``; else empty. See :func:`asr_dni.data.origins.kind_of`.
    """

    path: Path
    predictions: tuple[Prediction, ...] = ()
    error: str | None = None
    origin: str = ""

    @property
    def label(self) -> str | None:
        """The label of the first clip; ``None`` where the file cannot be used."""
        return self.predictions[0].label if self.predictions else None
