"""Makes Speech Commands of tones: the layout, names and oddities of the published archives, a few clips a word."""

from pathlib import Path

import numpy as np
from recordings import tone, write

from asr_dni.data.labels import CANONICAL_WORDS
from asr_dni.data.speech_commands import SpeechCommands

PER_SPLIT = {"train": 2, "validation": 1, "test": 1}
SHORT = "bed/00000001_nohash_1.wav"
"""A clip of less than a second, as a tenth of the published ones are."""


def speaker(split: str, k: int) -> str:
    """Eight hexadecimal digits. The rule on the speaker's name puts all of these into training: the lists decide."""
    return f"{['train', 'validation', 'test'].index(split)}{k:07x}"


def make_main(root: Path, version: str) -> Path:
    """The archive of a version, unpacked below ``root``; v0.01's clips have other counts, as published."""
    path = root / f"speech_commands_v{version}"
    lists: dict[str, list[str]] = {"validation": [], "test": []}
    for i, word in enumerate(SpeechCommands(version).words()):
        for split, count in PER_SPLIT.items():
            for k in range(count):
                name = f"{word}/{speaker(split, k)}_nohash_{k}.wav"
                seconds = 0.4 if name == SHORT else 1.0
                write(path / name, tone(150 + 60 * i + 5 * k, seconds))
                if split in lists:
                    lists[split].append(name)
    # The same recording twice, by one person: as in the published archives.
    (path / "zero" / f"{speaker('train', 0)}_nohash_7.wav").write_bytes(
        (path / "zero" / f"{speaker('train', 0)}_nohash_0.wav").read_bytes()
    )
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 32000))
    for name, samples in zip(("white_noise.wav", "running_tap.wav"), noise, strict=True):
        write(path / "_background_noise_" / name, samples)
    (path / "validation_list.txt").write_text("\n".join(lists["validation"]) + "\n")
    (path / "testing_list.txt").write_text("\n".join(lists["test"]) + "\n")
    _add_what_is_no_clip(path, ["_background_noise_/README.md", "README.md", "LICENSE"])
    return path


def make_test_archive(root: Path, version: str, speakers: tuple[str, ...] = ("2000000a", "2000000b")) -> Path:
    """The separate test set: clips of ten words, of others named by their word, and numbered ones of silence."""
    path = root / f"speech_commands_test_set_v{version}"
    for i, word in enumerate(CANONICAL_WORDS):
        for who, ending in zip(speakers, (".wav", ".wav.wav"), strict=True):
            write(path / word / f"{who}_nohash_0{ending}", tone(150 + 60 * i))
    for word, who in zip(("bed", "cat"), speakers, strict=True):
        write(path / "_unknown_" / f"{word}_{who}_nohash_0.wav.wav", tone(1000))
    for number in (104, 1035):
        write(path / "_silence_" / f"{number}.wav", np.zeros(16000))
    _add_what_is_no_clip(path, ["README.md", "LICENSE"])
    return path


def _add_what_is_no_clip(path: Path, texts: list[str]) -> None:
    for name in texts:
        (path / name).write_text("Speech Commands is licensed under CC BY 4.0.\n")
    for name in (".DS_Store", "yes/.DS_Store", "yes/._2000000a_nohash_0.wav"):  # left by a Mac
        (path / name).write_bytes(b"\0\0\0\1Bud1")
