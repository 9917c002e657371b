"""A folder of recordings in the layout of Speech Commands."""

import os
from collections.abc import Iterable
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
    speaker_of,
    speaker_split,
)
from asr_dni.errors import UserError

_LISTS: dict[Split, str] = {"validation": "validation_list.txt", "test": "testing_list.txt"}


class Folder(Source):
    """A folder with one folder per word: ``word/speaker_nohash_k.wav``.

    Splits: ``validation_list.txt`` and ``testing_list.txt`` (lines ``word/file.wav``) say which clips belong to
    those splits; all others are for training. Where both are missing, the SHA-1 rule of Speech Commands on the
    speaker decides (about 80, 10 and 10 % of the speakers); where one is missing, the rule decides which of the
    other clips belong to its split. A speaker is what stands before ``_nohash_`` in a file name; a file without
    it is a speaker of its own.

    Any sampling rate and number of channels; WAV (``.wav.wav`` too), FLAC, Ogg or MP3. ``_background_noise_``
    may hold long recordings without speech; ``_silence_`` and ``_unknown_`` clips of those classes. Other
    folders whose names begin with ``_`` or ``.`` are ignored.

    Args:
        path: the folder.
        split: ``auto`` for the rule above; ``train``, ``validation`` or ``test`` puts every clip there.
        test_archive_path: a second such folder, with the separate test set of the 12-label task.
    """

    def __init__(
        self,
        path: str | Path,
        split: Literal["auto", "train", "validation", "test"] = "auto",
        test_archive_path: str | Path | None = None,
    ) -> None:
        self.path = Path(path)
        self.split = split
        self.test_archive_path = None if test_archive_path is None else Path(test_archive_path)
        if split not in ("auto", *SPLITS):
            raise UserError(f"split {split!r}: expected auto, train, validation or test")

    def prepare(self) -> None:
        """Check that the folder is there and holds words.

        Raises:
            UserError: it does not exist, is not a folder, cannot be read, or holds no folder of a word.
        """
        folders = self._label_folders()
        if not folders:
            raise UserError(
                f"{self.path}: no words in this folder; expected one folder per word, such as "
                "yes/0a7c2a8d_nohash_0.wav"
            )

    def words(self) -> list[str]:
        """Return the names of the folders, without the reserved ones, sorted."""
        return [label for label in self._label_folders() if not label.startswith("_")]

    def clips(self) -> list[Clip]:
        """Return the clips, sorted by label and file name.

        Raises:
            UserError: a word has no clips, or the lists do not fit the folder.
        """
        files = {label: _recordings(self.path / label) for label in self._label_folders()}
        for label, paths in files.items():
            if not paths:
                endings = ", ".join(sorted(AUDIO_SUFFIXES))
                raise UserError(
                    f"{self.path / label}: no clips of the word {label!r} (files ending in {endings}); "
                    "add some or remove the folder"
                )
        splits = self._listed_splits({f"{label}/{path.name}" for label in files for path in files[label]})
        clips = []
        for label, paths in files.items():
            for path in paths:
                speaker = speaker_of(path.name)
                split = splits.get(f"{label}/{path.name}") or self._rule(speaker)
                clips.append(Clip(label, speaker, split, path))
        return clips

    def background(self) -> list[Path]:
        """Return the recordings in ``_background_noise_``, sorted."""
        folder = self.path / BACKGROUND_FOLDER
        return _recordings(folder) if folder.is_dir() else []

    @property
    def identity(self) -> str:
        """``folder`` and its name."""
        return f"folder {self.path.resolve().name}"

    def test_archive(self) -> Source | None:
        """Return the folder ``test_archive_path``, all of it in the test split."""
        return None if self.test_archive_path is None else Folder(self.test_archive_path, split="test")

    def _label_folders(self) -> list[str]:
        if not self.path.exists():
            raise UserError(f"{self.path}: no such folder; give the folder that holds one folder per word")
        if not self.path.is_dir():
            raise UserError(f"{self.path}: not a folder; give the folder that holds one folder per word")
        return sorted(
            entry.name
            for entry in _entries(self.path)
            if entry.is_dir() and (entry.name in (SILENCE, UNKNOWN) or not entry.name.startswith(("_", ".")))
        )

    def _rule(self, speaker: str) -> Split:
        if self.split != "auto":
            return self.split
        split = speaker_split(speaker)
        # a list that is there has named all clips of its split
        return "train" if split in _LISTS and (self.path / _LISTS[split]).exists() else split

    def _listed_splits(self, names: set[str]) -> dict[str, Split]:
        """Return the split of each clip that a list names."""
        splits: dict[str, Split] = {}
        if self.split != "auto":
            return splits
        for split, list_name in _LISTS.items():
            path = self.path / list_name
            if not path.exists():
                continue
            listed = _read_list(path)
            found = [name for name in listed if name in names]
            if listed and not found:
                raise UserError(
                    f"{path}: none of its {len(listed)} lines names a clip of this folder; "
                    f"expected lines such as {min(names)}"
                )
            for name in found:
                if splits.get(name, split) != split:
                    raise UserError(
                        f"{path}: {name} is in {_LISTS[splits[name]]} too; keep it in one of the two"
                    )
                splits[name] = split
        return splits


def _entries(folder: Path) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(f"{folder}: this folder cannot be read ({error.strerror or error})") from None


def _recordings(folder: Path) -> list[Path]:
    names = [
        entry.name
        for entry in _entries(folder)
        if not entry.name.startswith(".") and os.path.splitext(entry.name)[1].lower() in AUDIO_SUFFIXES
    ]
    return [folder / name for name in sorted(names)]


def _read_list(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: this list cannot be read ({error})") from None
    lines = (line.strip().replace("\\", "/").removeprefix("./") for line in text.splitlines())
    return [line for line in lines if line]
