"""One recording: from a file to 16-bit samples of the wanted rate and length."""

import math
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

FULL_SCALE = 32768
"""The 16-bit value that stands for 1.0."""

_UNKNOWN_SIZE = 0x7FFFFFFF  # and above: written by programs that stream and cannot go back to the header
_RESAMPLING_MARGIN_SECONDS = 0.05  # longer than soxr's filter, so that cropping does not show at the end


class DamagedRecording(Exception):
    """A recording that cannot be used.

    Attributes:
        path: the file.
        reason: what is wrong with it, in a few words.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def read_recording(path: Path, sample_rate: int, n_samples: int | None = None) -> NDArray[np.int16]:
    """Decode a recording: mixed down to one channel, resampled, and padded or cropped at its end.

    Args:
        path: a file that libsndfile can read (WAV, FLAC, Ogg, MP3).
        sample_rate: samples per second that are wanted.
        n_samples: samples that are wanted; None: as many as there are.

    Returns:
        ``(n_samples,)`` int16. A 16-bit mono file of that rate is returned bit for bit.

    Raises:
        DamagedRecording: the file is empty, truncated, not audio, unreadable, or has values that are not
            finite.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise DamagedRecording(path, "an empty file (0 bytes)")
            _check_riff_is_whole(path, file, size)
            file.seek(0)
            with soundfile.SoundFile(file) as sound:
                if sound.frames == 0:
                    raise DamagedRecording(path, "holds no samples")
                samples = _decode(path, sound, sample_rate, n_samples)
    except soundfile.LibsndfileError as error:
        reason = str(error.error_string).rstrip(".")
        raise DamagedRecording(path, f"not a recording that can be decoded ({reason})") from None
    except OSError as error:
        raise DamagedRecording(path, f"cannot be read ({error.strerror or error})") from None
    return samples if n_samples is None else fit_length(samples, n_samples)


def _decode(
    path: Path, sound: soundfile.SoundFile, sample_rate: int, n_samples: int | None
) -> NDArray[np.int16]:
    rate, announced = sound.samplerate, sound.frames
    as_is = rate == sample_rate and sound.channels == 1
    wanted = announced
    if n_samples is not None:
        margin = 0.0 if rate == sample_rate else _RESAMPLING_MARGIN_SECONDS
        wanted = min(announced, math.ceil((n_samples / sample_rate + margin) * rate))
    dtype = "int16" if as_is and sound.subtype == "PCM_16" else "float32"
    samples = sound.read(wanted, dtype=dtype, always_2d=True)
    if len(samples) < wanted:
        raise DamagedRecording(path, f"truncated ({announced} samples announced, {len(samples)} there)")
    if not np.isfinite(samples).all():
        raise DamagedRecording(path, "has samples that are not finite numbers")
    return to_mono(samples, rate, sample_rate)


def to_mono(
    samples: NDArray[np.int16] | NDArray[np.float32], rate: int, sample_rate: int
) -> NDArray[np.int16]:
    """Mix samples down to one channel, resample them, and round them to 16 bits.

    Args:
        samples: ``(S, channels)``; int16, or float32 in [-1, 1), beyond which they are clipped.
        rate: samples per second.
        sample_rate: samples per second that are wanted.

    Returns:
        ``(S * sample_rate / rate,)``. One channel of int16 at that rate is returned bit for bit.
    """
    if samples.dtype == np.int16:
        if samples.shape[1] == 1 and rate == sample_rate:
            return np.ascontiguousarray(samples[:, 0], dtype=np.int16)
        samples = samples.astype(np.float32) / np.float32(FULL_SCALE)
    mono: NDArray[np.float32] = samples.mean(axis=1, dtype=np.float32)
    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate, quality="HQ")
    scaled: NDArray[np.float32] = np.clip(np.rint(mono * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1)
    return scaled.astype(np.int16)


def fit_length(samples: NDArray[np.int16], n_samples: int) -> NDArray[np.int16]:
    """Return ``(n_samples,)``: padded with zeros or cropped, at the end."""
    if len(samples) == n_samples:
        return samples
    fitted = np.zeros(n_samples, dtype=np.int16)
    fitted[: len(samples)] = samples[:n_samples]
    return fitted


def _check_riff_is_whole(path: Path, file: BinaryIO, size: int) -> None:
    """Compare the length of the samples in a WAV header with the file's, which libsndfile does not."""
    header = file.read(12)
    if len(header) < 12 or header[:4] != b"RIFF" or header[8:] != b"WAVE":
        return  # another format, or not audio at all: the decoder knows
    position = 12
    while True:
        file.seek(position)
        chunk = file.read(8)
        if len(chunk) < 8:
            raise DamagedRecording(path, "truncated (the file ends before its samples)")
        length = int.from_bytes(chunk[4:], "little")
        if chunk[:4] == b"data":
            there = size - position - 8
            if there < length < _UNKNOWN_SIZE:
                raise DamagedRecording(
                    path, f"truncated ({length} bytes of samples announced, {there} there)"
                )
            return
        position += 8 + length + length % 2
