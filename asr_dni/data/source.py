"""Where recordings come from: the interface that every source of clips shares, and the split rule."""

import hashlib
import os
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from asr_dni.configured import Configured
from asr_dni.errors import UserError

Split: TypeAlias = Literal["train", "validation", "test"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
BACKGROUND_FOLDER = "_background_noise_"
SILENCE = "_silence_"
UNKNOWN = "_unknown_"
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3"})
"""Endings (in lower case) of the files that count as recordings."""

_MAX_CLIPS_PER_WORD = 2**27 - 1


@dataclass(frozen=True)
class Clip:
    """One recording before decoding.

    Attributes:
        label: the word that is spoken; ``_silence_`` and ``_unknown_`` only where a source has such
            recordings (the separate test archive of Speech Commands), otherwise the label set makes them.
        speaker: who speaks; no speaker is in two splits.
        split: ``train``, ``validation`` or ``test``.
        path: the file.
    """

    label: str
    speaker: str
    split: Split
    path: Path

    @property
    def name(self) -> str:
        """``label/file name``, composed: what the clip is called wherever its source lies."""
        return composed(f"{self.label}/{self.path.name}")


YamlWord: TypeAlias = str | bool | int | float | None
"""What YAML makes of a word: ``no`` becomes false, ``7`` a number."""


def words_from_yaml(key: str, words: Sequence[YamlWord]) -> list[str]:
    """Return the words of a list as they were meant; whole numbers are words too.

    Args:
        key: of the setting, for the message.
        words: as YAML has read them.

    Raises:
        UserError: YAML has made something else of a word, or one is there twice.
    """
    for word in words:
        if isinstance(word, bool):
            raise UserError(
                f"{key}: YAML reads yes, no, on and off as true and false; put quotes around each of these words,"
                " such as ['yes', 'no']"
            )
        if not isinstance(word, str | int):
            raise UserError(
                f"{key}: YAML reads {word!r} not as a word; put quotes around it, such as ['{word}']"
            )
    texts = [str(word) for word in words]
    for word in texts:
        if texts.count(word) > 1:
            raise UserError(f"{key}: {word!r} is there twice; leave one out")
    return texts


def composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC); a Mac stores "ü" as two characters, most others as one."""
    return unicodedata.normalize("NFC", name)


def without_audio_suffix(file_name: str) -> str:
    """Return a file name without its endings, ``.wav.wav`` included.

    >>> without_audio_suffix("anna.take.2.WAV")
    'anna.take.2'
    """
    stem = file_name
    while os.path.splitext(stem)[1].lower() in AUDIO_SUFFIXES:
        stem = os.path.splitext(stem)[0]
    return stem


def speaker_of(file_name: str) -> str:
    """Return the speaker of a file name: what stands before ``_nohash_``.

    A name without ``_nohash_`` is a speaker of its own: the name without its endings.

    >>> speaker_of("0a7c2a8d_nohash_1.wav.wav")
    '0a7c2a8d'
    >>> speaker_of("my take 2.wav")
    'my take 2'
    """
    before, marker, _ = file_name.partition("_nohash_")
    if marker:
        return before
    return without_audio_suffix(file_name)


def speaker_split(speaker: str, validation_percent: float = 10.0, test_percent: float = 10.0) -> Split:
    """Return the split of a speaker by the rule that Speech Commands was published with (``which_set``).

    The SHA-1 digest of the speaker's name, modulo 2**27 and scaled to per cent, falls below
    ``validation_percent`` (validation), below the sum of both (test), or above (train). A speaker stays in
    one split whatever else is in the data set (P. Warden, arXiv:1804.03209, section 7).

    Args:
        speaker: see :func:`speaker_of`.
        validation_percent: share of the validation split, in per cent.
        test_percent: share of the test split, in per cent.
    """
    digest = int(
        hashlib.sha1(speaker.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest(), 16
    )
    percent = (digest % (_MAX_CLIPS_PER_WORD + 1)) * (100.0 / _MAX_CLIPS_PER_WORD)
    if percent < validation_percent:
        return "validation"
    if percent < validation_percent + test_percent:
        return "test"
    return "train"


class Source(Configured, ABC):
    """Recordings of words, with their speakers and splits, and background recordings.

    A subclass takes plain arguments and keeps each in an attribute of its name, see
    :class:`asr_dni.configured.Configured`; that makes it a setting by ``class_path`` and ``init_args``.
    """

    speakers_known: bool = True
    """Whether the speakers of the clips that :meth:`clips` returned last are people, rather than one for each file."""

    @abstractmethod
    def prepare(self) -> None:
        """Bring the data to the disk: download, or generate; does nothing where they are already there."""

    @abstractmethod
    def words(self) -> list[str]:
        """Return the words, sorted; without downloading anything where that is possible."""

    @abstractmethod
    def clips(self) -> list[Clip]:
        """Return all clips in an order that depends on the data alone; call :meth:`prepare` first."""

    @abstractmethod
    def background(self) -> list[Path]:
        """Return the background recordings (long, without speech), sorted; there may be none."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """What the data are, in a few words that are the same from run to run and on every machine."""

    def remarks(self) -> list[str]:
        """Return what has to be told of the clips that :meth:`clips` returned last, a line each; there may be none."""
        return []

    def test_archive(self) -> "Source | None":
        """Return the separate test set that belongs to this source, or None where it has none."""
        return None
