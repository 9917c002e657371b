"""Speech Commands v0.01 and v0.02 (P. Warden, arXiv:1804.03209), downloaded or already there."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from filelock import FileLock

from asr_dni.data.download import download, file_sha256, unpack
from asr_dni.data.folder import Folder
from asr_dni.data.source import BACKGROUND_FOLDER, SILENCE, UNKNOWN, Clip, Source
from asr_dni.errors import UserError

logger = logging.getLogger(__name__)

ADDRESS = "https://storage.googleapis.com/download.tensorflow.org/data"
"""Where the data set's author keeps it."""

_WORDS_1 = [
    "bed",
    "bird",
    "cat",
    "dog",
    "down",
    "eight",
    "five",
    "four",
    "go",
    "happy",
    "house",
    "left",
    "marvin",
    "nine",
    "no",
    "off",
    "on",
    "one",
    "right",
    "seven",
    "sheila",
    "six",
    "stop",
    "three",
    "tree",
    "two",
    "up",
    "wow",
    "yes",
    "zero",
]
_WORDS = {"0.01": _WORDS_1, "0.02": sorted([*_WORDS_1, "backward", "follow", "forward", "learn", "visual"])}
_TEST_LABELS = sorted(
    [SILENCE, UNKNOWN, "yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]
)
_TEST_SPEAKER = r"(?P<speaker>[^/_.]+)(_nohash_\d+)?(\.wav)+$"
"""Of ``yes/0a7c2a8d_nohash_0.wav``, ``_unknown_/bed_0a7c2a8d_nohash_0.wav.wav`` and ``_silence_/1035.wav``."""

_SHA256 = {
    "speech_commands_v0.01": "743935421bb51cccdb6bdd152e04c5c70274e935c82119ad7faeec31780d811d",
    "speech_commands_v0.02": "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
    # from the checksums that TensorFlow Datasets publishes; none is published for the test archive of v0.01
    "speech_commands_test_set_v0.02": "cc2a00c1147c2254e9be3fa0f779d8c17421dc349b86366567a8edfa9acd51df",
}


class SpeechCommands(Source):
    """The Speech Commands data set: 105,829 clips of 35 words (v0.02) or 64,727 of 30 words (v0.01).

    ``ROOT/speech_commands_v0.02`` is used where it is there. Otherwise ``ROOT/speech_commands_v0.02.tar.gz``
    is unpacked, and downloaded first (2.3 GB; 1.4 GB for v0.01) where that is missing too; an interrupted
    download goes on where it stopped. An archive is unpacked only when its SHA-256 is right. The separate
    test archive of the 12-label task (0.1 GB) is treated likewise when it is asked for. No SHA-256 is
    published for the one of v0.01: without ``test_archive_sha256`` it is only checked for being whole and for
    having the twelve labels.

    Args:
        version: ``0.02`` or ``0.01``.
        root: the folder in which the data set is or will be.
        address: where the archives are, without their names.
        sha256: checksum of the main archive where it is not the published one.
        test_archive_sha256: checksum of the test archive, likewise.
    """

    def __init__(
        self,
        version: Literal["0.01", "0.02"] = "0.02",
        root: str | Path = "data",
        address: str = ADDRESS,
        sha256: str | None = None,
        test_archive_sha256: str | None = None,
    ) -> None:
        if version not in _WORDS:
            raise UserError(
                f"version: {version!r} is not one of Speech Commands; give 0.01 or 0.02, in quotes"
            )
        self.version = version
        self.root = Path(root)
        self.address = address
        self.sha256 = sha256
        self.test_archive_sha256 = test_archive_sha256
        self._archive = _Archive(
            f"speech_commands_v{version}", self.root, address, sha256, [*_WORDS[version], BACKGROUND_FOLDER]
        )
        self._folder = Folder(self._archive.folder)

    def prepare(self) -> None:
        """Download and unpack what is missing.

        Raises:
            UserError: the download failed, a checksum is wrong, an archive is damaged, or words are missing.
        """
        self._archive.prepare()

    def words(self) -> list[str]:
        """Return the version's words, sorted; known without the data."""
        return list(_WORDS[self.version])

    def clips(self) -> list[Clip]:
        """Return the clips of the folder, see :meth:`asr_dni.data.folder.Folder.clips`."""
        return [clip for clip in self._folder.clips() if clip.label in _WORDS[self.version]]

    def remarks(self) -> list[str]:
        """Return what was passed over, and lines of lists that match no file."""
        return self._folder.remarks()

    def background(self) -> list[Path]:
        """Return the six recordings in ``_background_noise_``."""
        return self._folder.background()

    @property
    def identity(self) -> str:
        """The data set's name and version."""
        return f"Speech Commands v{self.version}"

    def test_archive(self) -> Source:
        """Return the separate test set of the 12-label task, all of it in the test split."""
        return _TestArchive(self.version, self.root, self.address, self.test_archive_sha256)


class _TestArchive(Source):
    """The separate test set of the 12-label task."""

    def __init__(
        self, version: Literal["0.01", "0.02"], root: str | Path, address: str, sha256: str | None
    ) -> None:
        self.version = version
        self.root = Path(root)
        self.address = address
        self.sha256 = sha256
        name = f"speech_commands_test_set_v{version}"
        self._archive = _Archive(name, self.root, address, sha256, _TEST_LABELS)
        self._folder = Folder(self._archive.folder, split="test", speaker=_TEST_SPEAKER)

    def prepare(self) -> None:
        self._archive.prepare()

    def words(self) -> list[str]:
        return [label for label in _TEST_LABELS if not label.startswith("_")]

    def clips(self) -> list[Clip]:
        return self._folder.clips()

    def remarks(self) -> list[str]:
        return self._folder.remarks()

    def background(self) -> list[Path]:
        return []

    @property
    def identity(self) -> str:
        return f"Speech Commands test archive v{self.version}"


class _Archive:
    """One archive of the data set and the folder that it becomes."""

    def __init__(
        self, name: str, root: Path, address: str, sha256: str | None, expected: Sequence[str]
    ) -> None:
        self._root = root
        self.folder = root / name
        self._file = root / f"{name}.tar.gz"
        self._address = f"{address.rstrip('/')}/{name}.tar.gz"
        self._sha256 = sha256 or _SHA256.get(name)
        self._expected = expected

    def prepare(self) -> None:
        if not self.folder.exists():
            self._root.mkdir(parents=True, exist_ok=True)
            with FileLock(self._root / f".{self.folder.name}.lock"):
                if not self.folder.exists():  # another process may have been faster
                    self._download_and_unpack()
        self._check(self.folder)

    def _download_and_unpack(self) -> None:
        downloaded = not self._file.exists()
        if downloaded:
            download(self._address, self._file, self._sha256)
        elif self._sha256 is not None and file_sha256(self._file) != self._sha256.lower():
            raise UserError(
                f"{self._file}: its SHA-256 is not {self._sha256}; delete it to download it afresh, or get "
                "the right one"
            )
        if self._sha256 is None:
            logger.warning(
                "%s: no SHA-256 is known for this archive; it is only checked for being whole and for its "
                "labels (give test_archive_sha256 to check it)",
                self._file,
            )
        unpack(self._file, self.folder, self._check)
        if downloaded:
            self._file.unlink()

    def _check(self, folder: Path) -> None:
        missing = [name for name in self._expected if not (folder / name).is_dir()]
        if missing:
            raise UserError(
                f"{self.folder}: {', '.join(missing)} missing; this is not the whole of "
                f"{self.folder.name}. Move it away to get the data set afresh, or use the folder as it is "
                "with asr_dni.data.Folder"
            )
