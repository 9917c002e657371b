"""What each file of a run says: its settings, its curve, how far it is, or what is wrong with it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml

from asr_dni.catalogue.finding import CONFIGURATION, METRICS
from asr_dni.catalogue.metrics_file import check_metrics, last_epoch
from asr_dni.catalogue.settings_book import Parts, SettingsBook
from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve_file import (
    Table,
    level_starts,
    parse_curve,
    parse_regular_curves,
    read_curve_text,
)
from asr_dni.evaluation.curves.level_means import MEASURED, level_means

Means = npt.NDArray[np.float64]
"""A curve's means, a row for each strength, in columns
:data:`~asr_dni.evaluation.curves.level_means.MEASURED`."""


@dataclass(frozen=True)
class Contents:
    """What one file says.

    Attributes:
        fault: what is wrong with it, after its name; "" where nothing is.
        parts: settings: of a configuration, or of a curve.
        means: of a curve.
        tested: of metrics: whether those of a test are among them.
        epoch: of metrics: of the last row; -1 where there is none.
    """

    fault: str = ""
    parts: Parts = ()
    means: Means | None = None
    tested: bool = False
    epoch: int = -1


def read_files(paths: Sequence[Path], book: SettingsBook) -> list[Contents]:
    """Read files of runs; whatever is wrong with one becomes its fault."""
    found: list[Contents] = [Contents()] * len(paths)
    texts: dict[int, str] = {}
    for index, path in enumerate(paths):
        try:
            if path.name == CONFIGURATION:
                found[index] = _read_configuration(path, book)
            elif path.name == METRICS:
                contents = path.read_bytes()
                tested = b"test/accuracy" in contents.partition(b"\n")[0].split(b",")
                found[index] = Contents(check_metrics(contents), tested=tested, epoch=last_epoch(contents))
            elif path.suffix == ".ckpt":
                found[index] = Contents(_check_checkpoint(path))
            else:
                texts[index] = read_curve_text(path)
        except UserError as error:
            found[index] = _faulty(path, error)
        except OSError as error:
            found[index] = Contents(f"can't be read: {error.strerror or error}")
    for index, curve in _read_curves(paths, texts).items():
        found[index] = curve
    return found


def _faulty(path: Path, error: UserError) -> Contents:
    return Contents(" ".join(str(error).removeprefix(str(path)).lstrip(": ").split()))


def _read_curves(paths: Sequence[Path], texts: Mapping[int, str]) -> dict[int, Contents]:
    loads = lru_cache(maxsize=10_000)(json.loads)
    found: dict[int, Contents] = {}
    tables: dict[int, Table] = {}
    for (index, text), regular in zip(
        texts.items(), parse_regular_curves(list(texts.values()), loads), strict=True
    ):
        try:
            settings, tables[index] = regular or parse_curve(paths[index], text)
        except UserError as error:
            found[index] = _faulty(paths[index], error)
        else:
            found[index] = Contents(parts=_parts_of_curve(text, settings.get("strength")))
    if tables:
        lengths = [len(table["strength"]) for table in tables.values()]
        owner = np.repeat(np.arange(len(tables)), lengths)
        every = {
            name: np.concatenate([table[name] for table in tables.values()])
            for name in next(iter(tables.values()))
        }
        means = level_means(every, owner)
        matrix = np.column_stack([means[name] for name in MEASURED])
        levels = np.bincount(owner[level_starts(every["strength"], owner)])
        for index, own in zip(tables, np.split(matrix, np.cumsum(levels)[:-1]), strict=True):
            found[index] = replace(found[index], means=own)
    return found


def _parts_of_curve(text: str, strength: object) -> Parts:
    """Return the settings that a curve's file begins with, but for what it says of itself."""
    parts = {}
    for line in text.split("\n"):
        if not line.startswith("#"):
            break
        key, _, value = line[1:].partition(":")
        parts[key.strip()] = value.strip()
    parts.pop("noise_curve", None)
    if strength is not None:
        parts["strength"] = json.dumps(strength)
    return tuple(f"{key}\n{value}" for key, value in parts.items())


def _read_configuration(path: Path, book: SettingsBook) -> Contents:
    try:
        return Contents(parts=book.read_yaml(path.read_text(encoding="utf-8")))
    except UnicodeDecodeError:
        return Contents("is not text")
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        said = f"line {mark.line + 1}: {problem}" if mark is not None and problem else str(error)
        return Contents(f"is not YAML: {' '.join(said.split())}")
    except (ValueError, RecursionError) as error:
        return Contents(" ".join(str(error).split()))


def _check_checkpoint(path: Path) -> str:
    """Return what is wrong with a checkpoint: it is a ZIP archive, whose directory stands at its end."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        if not size:
            return "is empty"
        file.seek(max(size - 65_557, 0))
        ending = file.read()
        file.seek(0)
        whole = file.read(4) == b"PK\x03\x04" and b"PK\x05\x06" in ending
    return "" if whole else "is cut, or no checkpoint"
