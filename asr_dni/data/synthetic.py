"""Spoken words without any download: the eSpeak NG library speaks them with many voices."""

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from asr_dni.bounds import at_most
from asr_dni.data import speech_synthesis
from asr_dni.data.folder import Folder
from asr_dni.data.source import (
    BACKGROUND_FOLDER,
    Clip,
    Source,
    Split,
    YamlWord,
    speaker_split,
    words_from_yaml,
)
from asr_dni.data.speech_synthesis import CLIP_SAMPLES, SAMPLE_RATE, coloured_noise, write_clip
from asr_dni.data.store import usable_cores
from asr_dni.errors import UserError
from asr_dni.files import publish_folder
from asr_dni.terminal import make_console

DEFAULT_WORDS = ("yes", "no", "up", "down", "left", "right", "stop", "go")

_RECIPE = 2
"""Part of the identity: to be raised whenever other bytes are made from the same arguments."""

_BLOCK = 24
"""Speakers to a process. Part of the recipe: the library's state runs on within a block."""

_ACCENTS = (
    "en",
    "en-us",
    "en-gb-x-rp",
    "en-gb-scotland",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-us-nyc",
    "en-029",
)

# The library's variants without the robots, the whisperers and the demon.
_VARIANTS = (
    "Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Gene2", "Henrique", "Hugo",
    "Jacky", "Lee", "Mario", "Michael", "Mike", "Nguyen", "Reed", "RicishayMax", "RicishayMax2",
    "RicishayMax3", "Storm", "adam", "anika", "announcer", "antonio", "aunty", "belinda", "benjamin",
    "boris", "caleb", "david", "ed", "edward", "edward2", "f1", "f2", "f3", "f4", "f5", "grandma",
    "grandpa", "gustave", "ian", "iven", "iven2", "iven3", "iven4", "john", "kaukovalta", "klatt",
    "klatt2", "klatt3", "klatt4", "linda", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "marcelo",
    "max", "michel", "miguel", "mike2", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert",
    "sandro", "shelby", "steph", "steph2", "steph3", "travis", "victor", "zac",
)  # fmt: skip

# Of ten speakers in a row one is for validation and one for test, whatever their number.
_SPLITS: tuple[Split, ...] = ("train", "validation", "test", *(("train",) * 7))

_BACKGROUND_SECONDS = 60
_BACKGROUND_RMS = 0.1
_STALE_SECONDS = 3600


class Synthetic(Source):
    """Words spoken by the eSpeak NG library, and background noise; made once, the same for the same arguments.

    A speaker is a random accent, voice variant, pitch, rate, microphone and room. The clips last one second and
    are kept as 16 kHz WAV files in the layout of Speech Commands under ``root``. Speakers fall 80, 10 and 10 %
    into the splits; their names are chosen such that the SHA-1 rule of Speech Commands puts them there.

    Args:
        words: the words, or null for yes, no, up, down, left, right, stop and go.
        speakers: number of speakers, at least 3.
        takes: recordings of each word by each speaker.
        seed: other seeds give other speakers and recordings.
        root: folder for data sets.
        processes: how many work at once, or null for one per core; the outcome does not depend on it.

    Raises:
        UserError: an argument is out of range.
    """

    def __init__(
        self,
        words: Sequence[YamlWord] | None = None,
        speakers: int = 400,
        takes: int = 1,
        seed: int = 0,
        root: str | Path = "data",
        processes: int | None = None,
    ) -> None:
        self._words = sorted(DEFAULT_WORDS if words is None else words_from_yaml("words", words))
        self.speakers = speakers
        self.takes = takes
        self.seed = seed
        self.root = Path(root)
        self.processes = processes
        if not self._words:
            raise UserError(
                "words: the list is empty; give at least one word, or null for the eight commands"
            )
        for word in self._words:
            if (
                not word.strip()
                or word != word.strip()
                or word[0] in "_."
                or set(word) & set('/\\\0:*?"<>|\n')
            ):
                raise UserError(f"words: {word!r} cannot be the name of a folder; give a plain word")
        if speakers < 3:
            raise UserError(f"speakers: {speakers} is too few; give at least 3, one for each split")
        if takes < 1:
            raise UserError(f"takes: {takes} is too few; give at least 1")
        if seed < 0:
            raise UserError(f"seed: {seed} is negative; give 0 or more")
        if processes is not None and processes < 1:
            raise UserError(f"processes: {processes} is too few; give at least 1, or null")
        at_most("processes", processes or 1, 1_024)
        at_most("words x speakers x takes", len(self._words) * speakers * takes, 10_000_000)

    @property
    def path(self) -> Path:
        """The folder of the clips: it exists as soon as, and only if, it is complete."""
        return self.root / "synthetic" / f"{len(self._words)}-words-{self.speakers}-speakers-{self._digest()}"

    @property
    def identity(self) -> str:
        """``synthetic``, the numbers of words and speakers, the seed and a digest of everything."""
        return (
            f"synthetic {len(self._words)} words {self.speakers} speakers {self.takes} takes "
            f"seed {self.seed} {self._digest()}"
        )

    def configuration(self) -> dict[str, Any]:
        """Return ``{"class_path": ..., "init_args": {...}}`` of plain types."""
        arguments = {
            "words": list(self._words),
            "speakers": self.speakers,
            "takes": self.takes,
            "seed": self.seed,
            "root": str(self.root),
            "processes": self.processes,
        }
        return {"class_path": f"{type(self).__module__}.{type(self).__qualname__}", "init_args": arguments}

    def words(self) -> list[str]:
        """Return the words, sorted."""
        return list(self._words)

    def clips(self) -> list[Clip]:
        """Return the clips, sorted by word and file name; call :meth:`prepare` first."""
        return Folder(self.path).clips()

    def background(self) -> list[Path]:
        """Return white, pink and brown noise, mains hum and babble (of training speakers only)."""
        return Folder(self.path).background()

    def prepare(self) -> None:
        """Make the clips where they are not there yet; a progress bar goes to standard error.

        The folder takes its name when everything is in it. What an interrupted run leaves is thrown away.

        Raises:
            UserError: the library cannot be loaded, cannot say a word, or the disk cannot be written to.
        """
        if self.path.is_dir():
            return
        staging = self.path.with_name(f".{self.path.name}-{os.getpid()}-{secrets.token_hex(4)}.partial")
        try:
            _remove_stale(self.path)
            for name in (*self._words, BACKGROUND_FOLDER):
                (staging / name).mkdir(parents=True)
            plan = self._plan()
            self._speak(plan, staging)
            self._write_background(plan, staging)
            self._write_lists(plan, staging)
            try:
                publish_folder(staging, self.path)
            except OSError:
                if not self.path.is_dir():  # otherwise another process was quicker, with the same bytes
                    raise
        except OSError as error:
            raise UserError(
                f"{error.filename or self.root}: the synthetic clips cannot be written ({error})"
            ) from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _digest(self) -> str:
        arguments = (_RECIPE, self._words, self.speakers, self.takes, self.seed)
        return hashlib.sha256(repr(arguments).encode()).hexdigest()[:12]

    def _plan(self) -> list[dict[str, Any]]:
        """Return what :func:`speech_synthesis.synthesize_block` needs to know about each speaker."""
        plan = []
        names: set[str] = set()
        for index in range(self.speakers):
            split = _SPLITS[index % len(_SPLITS)]
            generator = np.random.default_rng([self.seed, index])
            while (name := generator.bytes(4).hex()) in names or speaker_split(name) != split:
                pass
            names.add(name)
            accent = _ACCENTS[int(generator.integers(len(_ACCENTS)))]
            variant = _VARIANTS[int(generator.integers(len(_VARIANTS)))]
            snr_db = float(generator.uniform(15.0, 35.0))
            plan.append(
                {
                    "id": name,
                    "index": index,
                    "split": split,
                    "voice": f"{accent}+{variant}",
                    "rate": int(generator.integers(110, 221)),
                    "pitch": int(generator.integers(15, 86)),
                    "range": int(generator.integers(15, 91)),
                    "rt60": float(generator.uniform(0.1, 0.35)),
                    "direct_db": float(generator.uniform(6.0, 18.0)),
                    "tilt": float(generator.uniform(-0.5, 0.5)),
                    "snr_db": [snr_db, snr_db + 10.0],
                    "noise_slope": float(generator.uniform(0.0, 2.0)),
                }
            )
        return plan

    def _speak(self, plan: list[dict[str, Any]], folder: Path) -> None:
        processes = self.processes or usable_cores()
        blocks = [
            {
                "folder": str(folder.resolve()),
                "words": self._words,
                "takes": self.takes,
                "seed": self.seed,
                "speakers": plan[first : first + _BLOCK],
            }
            for first in range(0, len(plan), _BLOCK)
        ]
        columns = (TextColumn("Speaking words"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        stop = threading.Event()
        with (
            Progress(*columns, console=make_console(stderr=True)) as progress,
            ThreadPoolExecutor(processes) as executor,
        ):
            bar = progress.add_task("", total=len(plan) * len(self._words) * self.takes)
            jobs = [
                executor.submit(_run_block, block, lambda n: progress.advance(bar, n), stop)
                for block in blocks
            ]
            try:
                done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
                for job in done:
                    job.result()
            except BaseException:
                stop.set()
                executor.shutdown(cancel_futures=True)
                raise

    def _write_background(self, plan: list[dict[str, Any]], folder: Path) -> None:
        length = _BACKGROUND_SECONDS * SAMPLE_RATE
        recordings = {
            name: coloured_noise(self._generator(name), length, slope)
            for name, slope in (("white_noise", 0.0), ("pink_noise", 1.0), ("brown_noise", 2.0))
        }
        recordings["mains_hum"] = _mains_hum(self._generator("mains_hum"), length)
        recordings["babble"] = self._babble(self._generator("babble"), length, plan, folder)
        for name, samples in recordings.items():
            scale = min(_BACKGROUND_RMS / np.sqrt(np.mean(samples**2)), 0.99 / np.abs(samples).max())
            write_clip(folder / BACKGROUND_FOLDER / f"{name}.wav", samples * np.float32(scale))

    def _generator(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, *purpose.encode()])

    def _babble(
        self, generator: np.random.Generator, length: int, plan: list[dict[str, Any]], folder: Path
    ) -> NDArray[np.float32]:
        """Add up words of training speakers, about eight at any time."""
        talkers = [speaker["id"] for speaker in plan if speaker["split"] == "train"]
        babble = np.zeros(length + CLIP_SAMPLES, dtype=np.float32)
        for _ in range(8 * length // CLIP_SAMPLES):
            talker = talkers[int(generator.integers(len(talkers)))]
            word = self._words[int(generator.integers(len(self._words)))]
            take = int(generator.integers(self.takes))
            clip, _ = soundfile.read(folder / word / f"{talker}_nohash_{take}.wav", dtype="float32")
            start = int(generator.integers(length))
            level = 10 ** (generator.uniform(-12.0, 0.0) / 20) / np.sqrt(np.mean(clip**2))
            babble[start : start + CLIP_SAMPLES] += np.float32(level) * clip
        babble[:CLIP_SAMPLES] += babble[length:]  # the beginning is as busy as the rest
        return babble[:length]

    def _write_lists(self, plan: list[dict[str, Any]], folder: Path) -> None:
        for split, name in (("validation", "validation_list.txt"), ("test", "testing_list.txt")):
            lines = [
                f"{word}/{speaker['id']}_nohash_{take}.wav\n"
                for word in self._words
                for speaker in plan
                for take in range(self.takes)
                if speaker["split"] == split
            ]
            (folder / name).write_text("".join(sorted(lines)), encoding="utf-8")
        description = {"recipe": _RECIPE, **self.configuration()["init_args"], "speakers": plan}
        del description["root"], description["processes"]
        (folder / "speakers.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def _mains_hum(generator: np.random.Generator, length: int) -> NDArray[np.float32]:
    """Make the harmonics of 50 Hz, which swell and fade, over a little brown noise; ``(length,)``."""
    time = np.arange(length) / SAMPLE_RATE
    hum = 0.2 * coloured_noise(generator, length, 2.0)
    for harmonic in range(1, 13):
        swell = 1 + 0.5 * np.sin(2 * np.pi * (generator.uniform(0.02, 0.2) * time + generator.uniform()))
        tone = np.sin(2 * np.pi * (50.0 * harmonic * time + generator.uniform()))
        hum += (swell * tone * generator.uniform(0.3, 1.0) / harmonic).astype(np.float32)
    return hum


def _run_block(block: dict[str, Any], report: Callable[[int], None], stop: threading.Event) -> None:
    """Have a fresh process speak a block."""
    if stop.is_set():
        return
    # -P: this file's folder is not to be searched for modules.
    command = [sys.executable, "-P", speech_synthesis.__file__]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            encoding="utf-8",
        ) as process,
    ):
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            json.dump(block, process.stdin)
            process.stdin.close()
            for line in process.stdout:
                if stop.is_set():
                    return
                if line.startswith("error"):
                    raise UserError(_explain(json.loads(line.removeprefix("error"))))
                report(int(line))
        finally:
            if process.poll() is None and (stop.is_set() or sys.exc_info()[0] is not None):
                process.kill()
        if process.wait() != 0:
            errors.seek(0)
            last_line = (errors.read().strip().splitlines() or ["no message"])[-1]
            raise UserError(_explain(f"the process that speaks ended with {process.returncode}: {last_line}"))


def _explain(message: str) -> str:
    return (
        f"synthetic words: {message}; reinstall it with `pip install --force-reinstall espeakng-loader`, "
        "or use recordings (asr_dni.data.Folder, asr_dni.data.SpeechCommands)"
    )


def _remove_stale(path: Path) -> None:
    """Remove what killed runs left behind, unless it is so new that another process may be writing it."""
    for leftover in path.parent.glob(f".{path.name}-*.partial"):
        try:
            if time.time() - leftover.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True)
        except OSError:
            continue
