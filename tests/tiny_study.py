"""A study that takes seconds: digits, four units, a few epochs."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from asr_dni.study.engine import EngineSettings, StudyRun
from asr_dni.study.folder import StudyFolder
from asr_dni.study.reading import Study, read_study

SETTINGS = {
    "name": "tiny",
    "data": {"class_path": "asr_dni.data.DigitsData", "init_args": {"batch_size": 128}},
    "cells": ["lstm"],
    "units": [4],
    "sigma_train": [0.0, 1.0],
    "seeds": 2,
    "epochs": 2,
    "evaluation": {"sigma_infer": [0.0, 1.0], "draws": 2},
}


def write(path: Path, **changes: object) -> Path:
    """Write the study's file."""
    path.write_text(yaml.safe_dump({**SETTINGS, **changes}, sort_keys=False))
    return path


_READ: dict[tuple[str, ...], Study] = {}


def tiny(path: Path, *overrides: str, **changes: object) -> Study:
    """Return the study; each is read once, since reading one takes as long as training some of its epochs."""
    file = write(path / "tiny.yaml", **changes)
    key = (file.read_text(), *overrides)
    if key not in _READ:
        _READ[key] = read_study(file, overrides)
    return _READ[key]


def start(study: Study, folder: Path, **settings: object) -> StudyRun:
    """Return a start of it that is prepared."""
    run = StudyRun(study, StudyFolder(folder), EngineSettings(**{"workers": 0, **settings}))
    run.prepare()
    return run


def accuracies(folder: Path, columns: Sequence[str] = ("sigma_train", "seed", "strength", "draw")) -> dict:
    """Return what a ledger holds."""
    frame = StudyFolder(folder).ledger.frame().set_index(list(columns)).sort_index()
    return frame["correct"].to_dict()
