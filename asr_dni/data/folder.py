"""A folder of recordings in the layout of Speech Commands."""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from asr_dni.data.source import (
    AUDIO_SUFFIXES,
    BACKGROUND_FOLDER,
    SILENCE,
    SPLITS,
    UNKNOWN,
    Clip,
    Source,
    Split,
    composed,
    speaker_of,
    speaker_split,
)
from asr_dni.data.split_lists import LIST_NAMES, listed_splits
from asr_dni.errors import UserError, first_few, printable

_OTHER_AUDIO_SUFFIXES = frozenset(
    {".m4a", ".mp4", ".aac", ".wma", ".aif", ".aiff", ".caf", ".amr", ".webm", ".3gp"}
)
_SPEAKER_OPTION = "--data.source.init_args.speaker"


class Folder(Source):
    """A folder with one folder per word: ``word/speaker_nohash_k.wav``.

    Splits: ``validation_list.txt`` and ``testing_list.txt`` (lines ``word/file.wav``) say which clips belong to
    those splits; all others are for training. Where both are missing, the SHA-1 rule of Speech Commands on the
    speaker decides (about 80, 10 and 10 % of the speakers); where one is missing, the rule decides which of the
    other clips belong to its split. A line names a file whatever its Unicode form and ending. A speaker is what stands
    before ``_nohash_`` in a file name, or what ``speaker`` finds; a file without it is a speaker of its own.

    Any sampling rate and number of channels; WAV (``.wav.wav`` too), FLAC, Ogg or MP3. ``_background_noise_``
    may hold long recordings without speech; ``_silence_`` and ``_unknown_`` clips of those classes. Other
    folders whose names begin with ``_`` or ``.`` are ignored.

    Args:
        path: the folder.
        split: ``auto`` for the rule above; ``train``, ``validation`` or ``test`` puts every clip there.
        test_archive_path: a second such folder, with the separate test set of the 12-label task.
        speaker: a regular expression with the group ``(?P<speaker>...)``, searched in ``word/file name``, where
            recordings are not named ``<speaker>_nohash_<k>``; such as ``/(?P<speaker>[^_]+)_`` for ``yes/anna_3.wav``.

    Raises:
        UserError: ``split`` or ``speaker`` is not valid.
    """

    def __init__(
        self,
        path: str | Path,
        split: Literal["auto", "train", "validation", "test"] = "auto",
        test_archive_path: str | Path | None = None,
        speaker: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.split = split
        self.test_archive_path = None if test_archive_path is None else Path(test_archive_path)
        if split not in ("auto", *SPLITS):
            raise UserError(f"split {split!r}: expected auto, train, validation or test")
        self.speaker = speaker
        self._speaker_pattern = None if speaker is None else _speaker_pattern(speaker)
        self._remarks: list[str] = []

    def prepare(self) -> None:
        """Check that the folder is there and holds words.

        Raises:
            UserError: it does not exist, is not a folder, cannot be read, or holds no folder of a word.
        """
        self.words()

    def words(self) -> list[str]:
        """Return the names of the folders, without the reserved ones, sorted.

        Raises:
            UserError: as :meth:`prepare`.
        """
        words = [label for label in self._label_folders() if not label.startswith("_")]
        if not words:
            flat = _recordings(_entries(self.path))
            found = (
                f"{len(flat)} recordings directly in this folder, and no folder of a word"
                if flat
                else ("no words in this folder")
            )
            raise UserError(
                f"{self.path}: {found}; expected one folder per word, such as yes/0a7c2a8d_nohash_0.wav"
            )
        return words

    def clips(self) -> list[Clip]:
        """Return the clips, sorted by label and file name.

        Raises:
            UserError: a word has no clips, the lists do not fit the folder, or ``speaker`` finds none in some names.
        """
        folders = self._label_folders()
        entries = {label: _entries(folder) for label, folder in folders.items()}
        files = {label: _recordings(entries[label]) for label in folders}
        for label, paths in files.items():
            if not paths:
                endings = ", ".join(sorted(AUDIO_SUFFIXES))
                others = [entry.name for entry in entries[label] if not entry.name.startswith(".")]
                converted = f" (there are {first_few(others)})" if others else ""
                raise UserError(
                    f"{folders[label]}: no clips of the word {label!r} (files ending in {endings}); "
                    f"add some or remove the folder{converted}"
                )
        names = {path: composed(f"{label}/{path.name}") for label, paths in files.items() for path in paths}
        speakers = {path: self._speaker(name) for path, name in names.items()}
        self._check_speakers(names, speakers)
        self.speakers_known = None not in speakers.values()
        self._remarks = self._passed_over(entries.values())
        listed: dict[str, Split] = {}
        if self.split == "auto":
            listed, remarks = listed_splits(self.path, list(names.values()), files)
            self._remarks += remarks + self._speaker_remarks(names, speakers)
        clips = []
        for label, paths in files.items():
            for path in paths:
                speaker = speakers[path] or speaker_of(names[path].partition("/")[2])
                clips.append(Clip(label, speaker, listed.get(names[path]) or self._rule(speaker), path))
        return clips

    def remarks(self) -> list[str]:
        """Return what was passed over, lines of lists that match no file, and speakers that are not known."""
        return list(self._remarks)

    def background(self) -> list[Path]:
        """Return the recordings in ``_background_noise_``, sorted."""
        folder = self.path / BACKGROUND_FOLDER
        return _recordings(_entries(folder)) if folder.is_dir() else []

    @property
    def identity(self) -> str:
        """``folder``, its name, and a digest of the expression that finds the speakers where one is given."""
        by = "" if self.speaker is None else f", speakers by pattern {_short_digest(self.speaker)}"
        return f"folder {printable(self.path.resolve().name)}{by}"

    def test_archive(self) -> Source | None:
        """Return the folder ``test_archive_path``, all of it in the test split."""
        return None if self.test_archive_path is None else Folder(self.test_archive_path, split="test")

    def _label_folders(self) -> dict[str, Path]:
        """Return the folder of each label, sorted by label."""
        if not self.path.exists():
            raise UserError(f"{self.path}: no such folder; give the folder that holds one folder per word")
        if not self.path.is_dir():
            raise UserError(f"{self.path}: not a folder; give the folder that holds one folder per word")
        folders: dict[str, Path] = {}
        for entry in _entries(self.path):
            reserved = entry.name.startswith(("_", ".")) and entry.name not in (SILENCE, UNKNOWN)
            if reserved or not entry.is_dir():
                continue
            label = composed(entry.name)
            if label != printable(label):
                raise UserError(
                    f"{self.path / entry.name}: this folder's name, a word, is not UTF-8; rename it"
                    " (convmv -f latin1 -t utf8 renames whole folders)"
                )
            if label in folders:
                raise UserError(
                    f"{self.path}: two folders of the word {label!r}, in two Unicode forms; put their clips into one"
                )
            folders[label] = Path(entry.path)
        return dict(sorted(folders.items()))

    def _rule(self, speaker: str) -> Split:
        if self.split != "auto":
            return self.split
        split = speaker_split(speaker)
        # a list that is there has named all clips of its split
        return "train" if split in LIST_NAMES and (self.path / LIST_NAMES[split]).exists() else split

    def _speaker(self, name: str) -> str | None:
        """Return who speaks, as the file's name says; None: it does not say."""
        if self._speaker_pattern is not None:
            match = self._speaker_pattern.search(name)
            return match["speaker"] or None if match else None
        return speaker_of(name.partition("/")[2]) if "_nohash_" in name else None

    def _check_speakers(self, names: dict[Path, str], speakers: dict[Path, str | None]) -> None:
        unknown = [name for path, name in names.items() if speakers[path] is None]
        if self.speaker is not None and unknown:
            raise UserError(
                f"{self.path}: speaker {self.speaker!r} finds none in {len(unknown)} of {len(names)} names:"
                f" {first_few(unknown)}; mend the expression or move these files away"
            )

    def _speaker_remarks(self, names: dict[Path, str], speakers: dict[Path, str | None]) -> list[str]:
        unknown = [name for path, name in names.items() if speakers[path] is None]
        if not unknown or all((self.path / name).exists() for name in LIST_NAMES.values()):
            return []
        return [
            f"{self.path}: {len(unknown)} of {len(names)} clips are not named <speaker>_nohash_<k>, such as"
            f" {printable(unknown[0])}: each counts as a speaker of its own, so the same people may be trained and"
            f" tested on. Give {_SPEAKER_OPTION} '(?P<speaker>...)', which is searched in these names, such as"
            f" '/(?P<speaker>[^_]+)_', or make {' and '.join(LIST_NAMES.values())}"
        ]

    def _passed_over(self, words: Iterable[Sequence[os.DirEntry[str]]]) -> list[str]:
        """Return a line about what lies among the clips and is none."""
        files: list[str] = []
        nested: list[str] = []
        dangling: list[str] = []
        for entry in (entry for entries in words for entry in entries):
            if not entry.name.startswith(".") and not _is_audio(entry):
                name = f"{os.path.basename(os.path.dirname(entry.path))}/{entry.name}"
                (nested if entry.is_dir() else files).append(name)
        for entry in _entries(self.path):
            if entry.is_symlink() and not os.path.exists(entry.path):
                dangling.append(entry.name)
            elif _is_audio(entry, AUDIO_SUFFIXES | _OTHER_AUDIO_SUFFIXES) and not entry.is_dir():
                files.append(entry.name)
        said = [
            f"{len(found)} {what} ({first_few(found)})"
            for found, what in (
                (files, "files that are no clips: of another type, or not in a word's folder"),
                (nested, "folders within a word's folder"),
                (dangling, "links to nothing"),
            )
            if found
        ]
        return [f"{self.path}: passed over {', '.join(said)}"] if said else []


def _speaker_pattern(expression: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise UserError(f"source.speaker: {expression!r} is no regular expression ({error})") from None
    if "speaker" not in pattern.groupindex:
        raise UserError(
            f"source.speaker: {expression!r} does not say what the speaker is; give an expression with"
            " (?P<speaker>...), such as '/(?P<speaker>[^_]+)_' for yes/anna_3.wav"
        )
    return pattern


def _short_digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=2).hexdigest()


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: this folder cannot be read ({error.strerror or error})") from None


def _is_audio(entry: os.DirEntry[str], suffixes: frozenset[str] = AUDIO_SUFFIXES) -> bool:
    return not entry.name.startswith(".") and os.path.splitext(entry.name)[1].lower() in suffixes


def _recordings(entries: Iterable[os.DirEntry[str]]) -> list[Path]:
    return [Path(entry.path) for entry in entries if _is_audio(entry)]
