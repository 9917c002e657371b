"""Recordings to listen to: those of a run's data set by their position, and those that were uploaded."""

import hashlib
import io
import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr_dni.dashboard.networks import Network
from asr_dni.errors import UserError

if TYPE_CHECKING:
    from asr_dni.data.split_clips import SplitClip

MOST_BYTES = 8_000_000
"""Of a recording that is uploaded."""

_MOST_SECONDS = 60.0
_KEPT = 16
_RATE = 16_000


def as_wav(samples: Tensor, sample_rate: int) -> bytes:
    """Return samples as a WAV file of 16 bits.

    Args:
        samples: ``(S,)`` floating-point in [-1, 1).
        sample_rate: samples per second.
    """
    from asr_dni.data.audio import FULL_SCALE

    values = np.clip(np.rint(samples.numpy() * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, values, sample_rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


@dataclass(frozen=True)
class Upload:
    """A recording that was uploaded.

    Attributes:
        identity: digest of the file.
        name: of the file, as the browser gave it.
        samples: ``(S,)`` int16, one channel.
        sample_rate: samples per second.
    """

    identity: str
    name: str
    samples: NDArray[np.int16]
    sample_rate: int


class Uploads:
    """The recordings that were uploaded last, in memory only; they are gone when the dashboard ends."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Upload] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, contents: bytes, name: str) -> Upload:
        """Decode a file and keep it.

        Args:
            contents: of the file.
            name: of the file, for people only.

        Raises:
            UserError: it is too large or too long, or cannot be decoded.
        """
        from asr_dni.data.audio import DamagedRecording, load_recording

        shown = Path(name.replace("\\", "/")).name[:80] or "recording"
        if len(contents) > MOST_BYTES:
            raise UserError(
                f"{shown}: has {len(contents) / 1e6:.1f} MB; give a recording of at most {MOST_BYTES / 1e6:g} MB"
            )
        with tempfile.NamedTemporaryFile(suffix=".audio") as file:
            file.write(contents)
            file.flush()
            try:
                recording = load_recording(Path(file.name), _RATE, round(_MOST_SECONDS * _RATE))
                whole = soundfile.info(file.name).duration
            except DamagedRecording as error:
                raise UserError(f"{shown}: {error.reason}; give a WAV, FLAC, Ogg or MP3 file") from None
            except soundfile.LibsndfileError as error:
                raise UserError(f"{shown}: {error.error_string}; give a WAV, FLAC, Ogg or MP3 file") from None
        samples = recording.samples[: max(1, round(min(whole, _MOST_SECONDS) * _RATE))]
        upload = Upload(hashlib.blake2b(contents, digest_size=8).hexdigest(), shown, samples, _RATE)
        with self._lock:
            self._kept[upload.identity] = upload
            self._kept.move_to_end(upload.identity)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return upload

    def get(self, identity: str) -> Upload:
        """Return a recording.

        Raises:
            UserError: it is not kept any more.
        """
        with self._lock:
            if identity not in self._kept:
                raise UserError("the uploaded recording is not kept any more: upload it again")
            return self._kept[identity]


def clip_of_upload(upload: Upload, network: Network) -> "SplitClip":
    """Return what a network hears of an uploaded recording: its beginning, as long as a clip.

    Its noise belongs to its samples.

    Raises:
        UserError: the network was not trained on recordings.
    """
    from asr_dni.data.audio import FULL_SCALE, fit_length, to_mono
    from asr_dni.data.split_clips import SplitClip
    from asr_dni.data.store import clip_id
    from asr_dni.inference.clips import as_samples, name_of

    spotter = network.spotter
    features = spotter.features
    if features is None:
        raise UserError("this network was not trained on recordings, and cannot hear any")
    heard = fit_length(
        to_mono(as_samples(upload.samples), upload.sample_rate, features.sample_rate), features.n_samples
    )
    with torch.inference_mode():
        its = features(torch.from_numpy(heard)[None].to(spotter.device))[0].cpu()
    samples = torch.from_numpy(heard).float() / FULL_SCALE
    return SplitClip(-1, upload.name, None, clip_id(name_of(heard)), its, samples, features.sample_rate)
