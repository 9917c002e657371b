"""Decoded clips on the disk, ready to be gathered: nothing is decoded twice."""

import errno
import hashlib
import logging
import os
import secrets
import shutil
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from asr_dni.data.audio import DamagedRecording, load_recording, read_recording
from asr_dni.data.origins import count_kinds, kind_of
from asr_dni.data.source import SPLITS, Clip
from asr_dni.errors import UserError, printable
from asr_dni.files import publish_folder, read_sealed_json, write_sealed_json
from asr_dni.terminal import make_console

logger = logging.getLogger(__name__)

_FORMAT = 3
_CLIPS_PER_TASK = 32
_METADATA = "store.json"
_AUDIO, _BACKGROUND = "audio.i16", "background.i16"
_COLUMNS = ("labels.npy", "splits.npy", "clip_ids.npy", "names.npy", "speakers.npy")
_SAMPLED_BLOCKS, _BLOCK_BYTES = 256, 4096

SILENCE_BIT = 1 << 62
"""Set in the identities of clips that were made, not recorded: those of the silence class."""


def clip_id(name: str, silence: bool = False) -> int:
    """Return a clip's identity: 62 bits of the BLAKE2b digest of its name.

    Args:
        name: :attr:`asr_dni.data.source.Clip.name`.
        silence: whether it is a made clip of the silence class; they have :data:`SILENCE_BIT` set.
    """
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    number = int.from_bytes(digest, "little") & (SILENCE_BIT - 1)
    return number | SILENCE_BIT if silence else number


class PackedStore:
    """Clips as rows of a memory-mapped 16-bit array, with what is known of each.

    A row is read from the disk (or the system's cache) when it is gathered. Opening compares checksums: of all that is
    known of the clips, and of 1 MB of the audio in 256 blocks over its whole length; what is damaged between two blocks
    is not found.

    Args:
        path: a folder that :func:`pack` wrote.

    Attributes:
        audio: ``(n_clips, n_samples)`` int16, memory-mapped.
        labels: ``(n_clips,)`` positions in ``label_names``.
        splits: ``(n_clips,)`` positions in :data:`asr_dni.data.source.SPLITS`.
        clip_ids: ``(n_clips,)`` int64, see :func:`clip_id`.
        label_names: the labels that occur, sorted.
        background: ``(L,)`` int16, the background recordings one after the other; L is 0 or at least
            n_samples.
        skipped: names of the damaged clips that were left out, with the reasons.
        origins: how many clips are of each kind of :func:`asr_dni.data.origins.kind_of` that is to be told.
        sample_rate: samples per second.
        identity: what the data are.

    Raises:
        FileNotFoundError: there is no such folder.
        UserError: something in it is missing, cut or changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        metadata = _read_metadata(path)
        n_clips, n_samples = metadata["n_clips"], metadata["n_samples"]
        self.sample_rate: int = metadata["sample_rate"]
        self.identity: str = metadata["identity"]
        self.label_names: list[str] = metadata["label_names"]
        self.skipped: list[tuple[str, str]] = [(name, reason) for name, reason in metadata["skipped"]]
        self.origins: dict[str, int] = dict(metadata["origins"])
        self.audio: NDArray[np.int16] = _map(path / _AUDIO, (n_clips, n_samples))
        self.background: NDArray[np.int16] = _map(path / _BACKGROUND, (metadata["background_samples"],))
        self.labels: NDArray[np.int32] = np.load(path / "labels.npy", mmap_mode="r")
        self.splits: NDArray[np.uint8] = np.load(path / "splits.npy", mmap_mode="r")
        self.clip_ids: NDArray[np.int64] = np.load(path / "clip_ids.npy", mmap_mode="r")
        self._names: NDArray[np.bytes_] = np.load(path / "names.npy", mmap_mode="r")
        self._speakers: NDArray[np.bytes_] = np.load(path / "speakers.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_samples(self) -> int:
        """Samples per clip."""
        return int(self.audio.shape[1])

    def name(self, row: int) -> str:
        """Return ``label/file name`` of a row."""
        return bytes(self._names[row]).decode("utf-8", "surrogateescape")

    def speaker(self, row: int) -> str:
        """Return the speaker of a row."""
        return bytes(self._speakers[row]).decode("utf-8", "surrogateescape")

    def speakers(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the speakers of rows."""
        return [name.decode("utf-8", "surrogateescape") for name in self._speakers[rows].tolist()]

    def gather(self, rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        """Copy clips into a batch.

        Args:
            rows: ``(N,)`` rows; a negative one gives a clip of zeros.
            out: ``(N, n_samples)`` int16, contiguous; it is overwritten.
        """
        # "clip" writes straight to `out`; the default would go through a buffer
        np.take(self.audio, rows, axis=0, out=out, mode="clip")
        out[rows < 0] = 0


def _read_metadata(path: Path) -> dict[str, Any]:
    """Return what is known of a store, all of whose files have been compared with their checksums."""
    damaged = _METADATA
    try:
        metadata: dict[str, Any] = read_sealed_json(path / _METADATA)
        for damaged, expected in metadata["checksums"].items():
            if _checksum(path / damaged) != expected:
                raise ValueError
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        raise UserError(f"{path}: {damaged} is damaged") from None
    return metadata


def _checksum(path: Path) -> list[int]:
    """Return a file's size and checksum; of long ones, blocks at equal distances, the first and the last included."""
    size = path.stat().st_size
    if path.name in _COLUMNS or size <= _SAMPLED_BLOCKS * _BLOCK_BYTES:
        return [size, zlib.crc32(path.read_bytes())]
    checksum = 0
    with path.open("rb", buffering=0) as file:
        for block in range(_SAMPLED_BLOCKS):
            file.seek((size - _BLOCK_BYTES) * block // (_SAMPLED_BLOCKS - 1))
            checksum = zlib.crc32(file.read(_BLOCK_BYTES), checksum)
    return [size, checksum]


def _map(path: Path, shape: tuple[int, ...]) -> NDArray[np.int16]:
    if 0 in shape:  # an empty file cannot be mapped
        return np.zeros(shape, dtype=np.int16)
    return np.memmap(path, dtype=np.int16, mode="r", shape=shape)


def pack(
    clips: Sequence[Clip],
    background: Sequence[Path],
    *,
    identity: str,
    cache_dir: Path,
    sample_rate: int = 16000,
    n_samples: int = 16000,
    num_workers: int | None = None,
    damaged: Literal["error", "skip"] = "error",
) -> PackedStore:
    """Open the store of these clips; decode them first where there is none yet.

    The store's folder is named by a digest of all that matters: identity, names, splits, sizes and times of
    the files, rate and length. It appears under that name when it is whole and on the disk, so an interrupted run
    leaves nothing that could be mistaken for a store, and of two processes that start at once one waits for the
    other. A store in which something was damaged since is made anew, and the log says so.

    Args:
        clips: the recordings.
        background: long recordings without speech.
        identity: what the data are (:attr:`asr_dni.data.source.Source.identity`).
        cache_dir: where stores are kept.
        sample_rate: samples per second.
        n_samples: samples per clip.
        num_workers: threads that decode; None: one per core that this process may use.
        damaged: whether a recording that cannot be decoded is an error or is left out (and counted in the
            log).

    Raises:
        UserError: damaged recordings, files that vanished, too little space, or a store that cannot be written.
    """
    if not clips:
        raise UserError(f"{identity}: there are no clips to decode")
    path = cache_dir / _digest(clips, background, identity, sample_rate, n_samples)
    store = _open(path, tell=False)
    if store is None:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir / f".{path.name}.lock"):
            store = _open(path)  # another process may have been faster
            if store is None:
                for leftover in cache_dir.glob(f".{path.name}.partial-*"):
                    shutil.rmtree(leftover, ignore_errors=True)
                if path.exists():
                    _remove(path)
                temporary = cache_dir / f".{path.name}.partial-{os.getpid()}-{secrets.token_hex(4)}"
                try:
                    temporary.mkdir()
                    _write(
                        temporary, clips, background, identity, sample_rate, n_samples, num_workers, damaged
                    )
                    publish_folder(temporary, path)
                except OSError as error:
                    raise UserError(
                        f"{error.filename or path}: the decoded clips cannot be written ({error.strerror or error})"
                    ) from error
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
                store = PackedStore(path)
    if store.skipped:
        total = len(clips) + len(background)
        if damaged == "error":
            raise _damaged_error(store.skipped, total)
        count, some = len(store.skipped), _some(store.skipped)
        logger.warning("%s: left out %d damaged of %d recordings: %s", identity, count, total, some)
    if not len(store):
        raise UserError(f"{identity}: all {len(clips)} clips are damaged: {_some(store.skipped)}")
    return store


def _open(path: Path, tell: bool = True) -> PackedStore | None:
    try:
        return PackedStore(path)
    except FileNotFoundError:
        return None
    except UserError as error:
        if tell:
            logger.warning("%s; the recordings are decoded anew", error)
        return None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _digest(
    clips: Sequence[Clip], background: Sequence[Path], identity: str, sample_rate: int, n_samples: int
) -> str:
    digest = hashlib.blake2b(repr((_FORMAT, identity, sample_rate, n_samples)).encode(), digest_size=10)
    for clip in clips:
        digest.update(repr((clip.name, clip.speaker, clip.split, *_size_and_time(clip.path))).encode())
    for path in background:
        digest.update(repr((path.name, *_size_and_time(path))).encode())
    return digest.hexdigest()


def _size_and_time(path: Path) -> tuple[int, int]:
    """Return a file's size and time; of one that cannot be read, -1: decoding it says why."""
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _write(
    folder: Path,
    clips: Sequence[Clip],
    background: Sequence[Path],
    identity: str,
    sample_rate: int,
    n_samples: int,
    num_workers: int | None,
    damaged: Literal["error", "skip"],
) -> None:
    needed = 2 * n_samples * len(clips)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder.parent}: the decoded clips need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; "
            "make room or choose another cache_dir"
        )
    long, problems = _read_background(background, sample_rate, n_samples)
    long.tofile(folder / _BACKGROUND)
    _reserve(folder / _AUDIO, needed)
    audio = np.memmap(folder / _AUDIO, dtype=np.int16, mode="r+", shape=(len(clips), n_samples))
    reasons, kinds = _decode_all(clips, audio, sample_rate, n_samples, num_workers)
    if damaged == "error" and (problems or reasons):
        found = problems + [(str(clips[i].path), reason) for i, reason in sorted(reasons.items())]
        raise _damaged_error(found, len(clips) + len(background))
    kept = np.array([i for i in range(len(clips)) if i not in reasons], dtype=np.int64)
    if reasons:  # close the gaps, then cut the rest off
        for row, i in enumerate(kept):
            audio[row] = audio[i]
    audio.flush()
    del audio
    os.truncate(folder / _AUDIO, 2 * n_samples * len(kept))
    whole = [clips[i] for i in kept]
    label_names = sorted({clip.label for clip in whole})
    codes = {label: code for code, label in enumerate(label_names)}
    np.save(folder / "labels.npy", np.array([codes[clip.label] for clip in whole], dtype=np.int32))
    np.save(folder / "splits.npy", np.array([SPLITS.index(clip.split) for clip in whole], dtype=np.uint8))
    np.save(folder / "clip_ids.npy", np.array([clip_id(clip.name) for clip in whole], dtype=np.int64))
    np.save(folder / "names.npy", _bytes(clip.name for clip in whole))
    np.save(folder / "speakers.npy", _bytes(clip.speaker for clip in whole))
    metadata = {
        "identity": identity,
        "sample_rate": sample_rate,
        "n_samples": n_samples,
        "n_clips": len(whole),
        "label_names": label_names,
        "background_samples": len(long),
        "origins": count_kinds(kinds),
        "skipped": problems + [(str(clips[i].path), reason) for i, reason in sorted(reasons.items())],
        "checksums": {name: _checksum(folder / name) for name in (*_COLUMNS, _AUDIO, _BACKGROUND)},
    }
    write_sealed_json(folder / _METADATA, metadata)


def _reserve(path: Path, n_bytes: int) -> None:
    """Make a file for which the disk has room: a page of a mapped file without room kills the process."""
    with path.open("wb") as file:
        os.truncate(file.fileno(), n_bytes)
        try:
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        except AttributeError:  # macOS
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP):
                raise OSError(error.errno, error.strerror, str(path)) from None


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _bytes(texts: Iterable[str]) -> NDArray[np.bytes_]:
    return np.array([text.encode("utf-8", "surrogateescape") for text in texts], dtype=np.bytes_)


def _read_background(
    paths: Sequence[Path], sample_rate: int, n_samples: int
) -> tuple[NDArray[np.int16], list[tuple[str, str]]]:
    recordings, problems = [], []
    for path in paths:
        try:
            recordings.append(read_recording(path, sample_rate))
        except DamagedRecording as error:
            problems.append((str(path), error.reason))
    long = np.concatenate(recordings) if recordings else np.zeros(0, dtype=np.int16)
    if 0 < len(long) < n_samples:
        long = np.resize(long, n_samples)  # repeats it
    return long, problems


def _decode_all(
    clips: Sequence[Clip],
    audio: NDArray[np.int16],
    sample_rate: int,
    n_samples: int,
    num_workers: int | None,
) -> tuple[dict[int, str], list[str]]:
    """Fill the rows of ``audio``; return the reasons for the rows that could not be filled, and the kinds of all."""
    reasons: dict[int, str] = {}
    kinds = [""] * len(clips)

    def decode(first: int) -> int:
        last = min(first + _CLIPS_PER_TASK, len(clips))
        for i in range(first, last):
            try:
                recording = load_recording(clips[i].path, sample_rate, n_samples)
                audio[i] = recording.samples
                kinds[i] = kind_of(recording, sample_rate)
            except DamagedRecording as error:
                reasons[i] = error.reason
        return last - first

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    workers = num_workers or usable_cores()
    with (
        Progress(*columns, console=make_console(stderr=True)) as progress,
        ThreadPoolExecutor(workers) as pool,
    ):
        task = progress.add_task("decoding clips", total=len(clips))
        for done in pool.map(decode, range(0, len(clips), _CLIPS_PER_TASK)):
            progress.advance(task, done)
    return reasons, kinds


def _some(damaged: Sequence[tuple[str, str]]) -> str:
    rest = len(damaged) - 3
    named = "; ".join(f"{printable(path)}: {reason}" for path, reason in damaged[:3])
    return named + (f"; and {rest} more" if rest > 0 else "")


def _damaged_error(damaged: Sequence[tuple[str, str]], total: int) -> UserError:
    return UserError(
        f"{len(damaged)} of {total} recordings {'is' if len(damaged) == 1 else 'are'} damaged: "
        f"{_some(damaged)}. Mend or remove them, or leave them out with damaged: skip"
    )
