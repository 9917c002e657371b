"""Makes small recordings for the tests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray


def tone(
    frequency: float, seconds: float = 1.0, rate: int = 16000, level: float = 0.5
) -> NDArray[np.float64]:
    return level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def write(path: Path, samples: NDArray[np.float64], rate: int = 16000, subtype: str = "PCM_16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype=subtype, format="WAV" if path.suffix == ".wav" else None)
    return path


def make_folder(
    path: Path,
    words: Sequence[str] = ("go", "no", "yes"),
    per_split: tuple[int, int, int] = (6, 2, 2),
    background_seconds: float = 2.0,
    seconds: float = 1.0,
) -> Path:
    """A folder with lists: per word so many clips for training, validation and test; each its own pitch and level."""
    lists: dict[str, list[str]] = {"validation_list.txt": [], "testing_list.txt": []}
    for i, word in enumerate(words):
        for k in range(sum(per_split)):
            name = f"{word}/{k:08x}_nohash_{i}.wav"
            write(path / name, tone(200 + 150 * i + 3 * k, seconds, level=0.2 + 0.05 * (k % 10)))
            if k >= per_split[0] + per_split[1]:
                lists["testing_list.txt"].append(name)
            elif k >= per_split[0]:
                lists["validation_list.txt"].append(name)
    for name, lines in lists.items():
        (path / name).write_text("\n".join(lines) + "\n")
    if background_seconds:
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, round(background_seconds * 16000))
        write(path / "_background_noise_" / "hiss.wav", noise)
    return path
