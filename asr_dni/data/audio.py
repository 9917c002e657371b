"""One recording: from a file to 16-bit samples of the wanted rate and length."""

import io
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

FULL_SCALE = 32768
"""The 16-bit value that stands for 1.0."""
LOUDEST = 16.0
"""Floating-point samples beyond are not on the scale of [-1, 1]."""

Samples: TypeAlias = NDArray[np.int16] | NDArray[np.float32]

_UNKNOWN_SIZE = 0x7FFF0000
"""From here on a size in a WAV header is no promise: programs that stream cannot go back to the header."""

LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000
_RESAMPLING_MARGIN_SECONDS = 0.05  # longer than soxr's filter, so that cropping does not show at the end
_VALUES_AT_ONCE = 1 << 18
_MOST_CHUNKS = 1000
_BEYOND_FULL_SCALE = 1e6
_MOST_FRAMES = 1 << 48  # libsndfile's way to say that it does not know is 2**63 - 1
_MPEG_PADDING = 64
"""Above the ratio of the highest bit rate of MPEG layer III to its lowest, 40."""


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


@dataclass(frozen=True)
class Recording:
    """A recording that was decoded.

    Attributes:
        samples: ``(n_samples,)`` int16 at the rate that was asked for.
        rate: samples per second of the file.
        encoding: of the file, as libsndfile calls it, such as ``PCM_16`` or ``MPEG_LAYER_III``.
        peak: the largest absolute value in the file, as far as it was read; 1.0 is full scale, beyond which samples
            are clipped.
    """

    samples: NDArray[np.int16]
    rate: int
    encoding: str
    peak: float


def read_recording(path: Path, sample_rate: int, n_samples: int | None = None) -> NDArray[np.int16]:
    """Decode a recording: mixed down to one channel, resampled, and padded or cropped at its end.

    What decodes is the recording, to its end, where the file does not say how long it is: FLAC of unknown length,
    MP3 without a count of frames, WAV with a streamed header. Where it says so and has fewer samples, it is
    truncated.

    Args:
        path: a file that libsndfile can read (WAV, FLAC, Ogg, MP3).
        sample_rate: samples per second that are wanted.
        n_samples: samples that are wanted; None: as many as there are.

    Returns:
        ``(n_samples,)`` int16. A 16-bit mono file of that rate is returned bit for bit.

    Raises:
        DamagedRecording: the file is empty, truncated, not audio, unreadable, not a regular file (a named pipe, a
            device), or has values that are not finite.
    """
    return load_recording(path, sample_rate, n_samples).samples


def load_recording(path: Path, sample_rate: int, n_samples: int | None = None) -> Recording:
    """Decode a recording as :func:`read_recording` does; say what kind of file it came from.

    Raises:
        DamagedRecording: as there.
    """
    try:
        with _open(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise DamagedRecording(path, "an empty file (0 bytes)")
            unknown_size = _check_riff_is_whole(path, file, size)
            endless = _lacks_frame_count(file)
            file.seek(0)
            source: BinaryIO | _EndlessFile = file
            if unknown_size is not None:  # libsndfile believes a size of 0
                data = file.read()
                source = io.BytesIO(data[:unknown_size] + b"\xff" * 4 + data[unknown_size + 4 :])
            elif endless:
                source = _EndlessFile(file, size)
            with _SoundStream(source) as sound:
                if isinstance(source, _EndlessFile):
                    source.opened = True
                if sound.frames == 0:
                    raise DamagedRecording(path, "holds no samples")
                if not LOWEST_RATE <= sound.samplerate <= HIGHEST_RATE:
                    raise DamagedRecording(path, f"a sampling rate of {sound.samplerate} Hz")
                samples, peak = _decode(path, sound, sample_rate, n_samples, endless)
                rate, encoding = sound.samplerate, str(sound.subtype)
    except soundfile.LibsndfileError as error:
        reason = str(error.error_string).rstrip(".")
        raise DamagedRecording(path, f"not a recording that can be decoded ({reason})") from None
    except OSError as error:
        raise DamagedRecording(path, f"cannot be read ({error.strerror or error})") from None
    fitted = samples if n_samples is None else fit_length(samples, n_samples)
    return Recording(fitted, rate, encoding, peak)


def _open(path: Path) -> BinaryIO:
    """Open a regular file. A named pipe would wait for a writer for ever, and a device may act when it is opened."""
    kind = _KINDS.get(stat.S_IFMT(os.stat(path).st_mode))
    if kind is not None:
        raise DamagedRecording(path, f"cannot be read (not a file but a {kind})")
    # without its name, by which soundfile would choose a format
    return open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb")


_KINDS = {
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFDIR: "folder",
}


class _SoundStream(soundfile.SoundFile):  # type: ignore[misc]
    """Reads forwards only: soundfile would seek after every block, and cannot at an end that it does not know."""

    def seekable(self) -> bool:
        return False


class _EndlessFile:
    """An MP3 file without a count of frames, which seems to go on until it has been opened.

    The decoder estimates its length from the file's size and the first frame's bit rate, and stops there: a file of
    variable bit rate lost up to four fifths. Of a file this long the estimate is too long, and the end is found.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.opened = False
        self._file = file
        self._size = size
        self._position = 0

    @property
    def _end(self) -> int:
        return self._size if self.opened else self._size * _MPEG_PADDING

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size * _MPEG_PADDING}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        wanted = max(0, min(len(buffer), self._end - self._position))
        self._file.seek(min(self._position, self._size))
        there = self._file.read(wanted)
        buffer[:wanted] = there + bytes(wanted - len(there))
        self._position += wanted
        return wanted


def _lacks_frame_count(file: BinaryIO) -> bool:
    """Return whether this is an MP3 file whose first frame does not say how many there are (Xing, Info or VBRI)."""
    file.seek(0)
    start = file.read(10)
    if start[:3] == b"ID3" and len(start) == 10:
        length = 0
        for byte in start[6:]:
            length = length << 7 | byte & 0x7F
        file.seek(10 + length)
        start = file.read(10)
    if len(start) < 2 or start[0] != 0xFF or start[1] & 0xE0 != 0xE0:
        return False
    header = start + file.read(64)
    for tag in (b"Xing", b"Info"):
        place = header.find(tag)
        if place >= 0:
            return not any(byte & 1 for byte in header[place + 7 : place + 8])
    return b"VBRI" not in header


def _decode(
    path: Path, sound: soundfile.SoundFile, sample_rate: int, n_samples: int | None, endless: bool
) -> tuple[NDArray[np.int16], float]:
    rate = sound.samplerate
    announced = None if endless or sound.frames > _MOST_FRAMES else sound.frames
    as_is = rate == sample_rate and sound.channels == 1
    limits = [] if announced is None else [announced]
    if n_samples is not None:
        margin = 0.0 if rate == sample_rate else _RESAMPLING_MARGIN_SECONDS
        limits.append(math.ceil((n_samples / sample_rate + margin) * rate))
    dtype: Literal["int16", "float32"] = "int16" if as_is and sound.subtype == "PCM_16" else "float32"
    samples = _read_blocks(sound, min(limits, default=None), dtype)
    if announced is not None and len(samples) < min(limits):
        raise DamagedRecording(path, f"truncated ({announced} samples announced, {len(samples)} there)")
    if not len(samples):
        raise DamagedRecording(path, "holds no samples")
    if not np.isfinite(samples).all():
        raise DamagedRecording(path, "has samples that are not finite numbers")
    peak = max(float(samples.max()), -float(samples.min())) / (FULL_SCALE if dtype == "int16" else 1)
    if dtype == "float32":  # beyond full scale all are clipped; sums of the largest floats would overflow
        np.clip(samples, -_BEYOND_FULL_SCALE, _BEYOND_FULL_SCALE, out=samples)
    return to_mono(samples, rate, sample_rate), peak


def _read_blocks(
    sound: soundfile.SoundFile, wanted: int | None, dtype: Literal["int16", "float32"]
) -> Samples:
    """Return ``(n, channels)`` samples: those that are wanted, or as many as there are."""
    at_once = max(1, _VALUES_AT_ONCE // sound.channels)
    blocks: list[Samples] = []
    there = 0
    while wanted is None or there < wanted:
        block = sound.read(at_once if wanted is None else min(at_once, wanted - there), dtype, always_2d=True)
        if not len(block):
            break
        blocks.append(block)
        there += len(block)
    if len(blocks) == 1:
        return blocks[0]
    samples: Samples = np.concatenate([np.zeros((0, sound.channels), dtype), *blocks])
    return samples


def to_mono(samples: Samples, rate: float, sample_rate: int) -> NDArray[np.int16]:
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


def _check_riff_is_whole(path: Path, file: BinaryIO, size: int) -> int | None:
    """Compare the length of the samples in a WAV header with the file's, which libsndfile does not.

    Returns:
        Where the header has 0 for a length that was not known when it was written; None: it has not.
    """
    header = file.read(12)
    if len(header) < 12 or header[:4] not in (b"RIFF", b"RF64") or header[8:] != b"WAVE":
        return None  # another format, or not audio at all: the decoder knows
    whole = int.from_bytes(header[4:8], "little") + 8
    position, long_length = 12, 0
    for _ in range(_MOST_CHUNKS):
        file.seek(position)
        chunk = file.read(8)
        if len(chunk) < 8:
            raise DamagedRecording(path, "truncated (the file ends before its samples)")
        length = int.from_bytes(chunk[4:], "little")
        if chunk[:4] == b"ds64":
            long_length = int.from_bytes(file.read(16)[8:], "little")
        if chunk[:4] == b"data":
            there = size - position - 8
            if length == 0 and there:
                if size <= whole < _UNKNOWN_SIZE:  # what follows is counted, and is something else
                    raise DamagedRecording(path, "holds no samples")
                return position + 4
            if length >= _UNKNOWN_SIZE:
                length = long_length
            if there < length:
                raise DamagedRecording(
                    path, f"truncated ({length} bytes of samples announced, {there} there)"
                )
            return None
        position += 8 + length + length % 2
    raise DamagedRecording(path, f"no samples in its first {_MOST_CHUNKS} chunks")
