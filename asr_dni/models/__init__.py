"""Trained networks that come with the package: found by name wherever a checkpoint is wanted.

A network is three files: ``NAME.ckpt`` to run it, ``NAME.csv``, its noise curve, and ``NAME.yaml``, its card.
``scripts/package_model.py`` makes them of a run.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from asr_dni.errors import UserError

FOLDER = Path(__file__).parent
"""Where the files are."""

SUFFIX = ".ckpt"


@dataclass(frozen=True)
class PackagedModel:
    """A trained network that comes with the package.

    Attributes:
        name: by which commands and :func:`asr_dni.load` know it.
        summary: what it is, in a line.
        recommended_for: where it is the one to take.
        data: what it was trained on, with licence and attribution.
        protocol: which clips it was trained and measured on, and what was chosen on which.
        training: the command that trained it.
        parameters: how many weights it has.
        labels: the words that it knows.
    """

    name: str
    summary: str
    recommended_for: str
    data: str
    protocol: str
    training: str
    parameters: int
    labels: tuple[str, ...]

    @classmethod
    def named(cls, name: str) -> Self:
        """Return the one of this name.

        Raises:
            UserError: there is none.
        """
        if name not in model_names():
            raise UserError(f"{name}: there is no network of this name{_near(name)}")
        card: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
        return cls(name, **{**card, "labels": tuple(card["labels"])})

    @property
    def checkpoint(self) -> Path:
        """The checkpoint file."""
        return FOLDER / f"{self.name}{SUFFIX}"

    @property
    def curve(self) -> Path:
        """The file of its noise curve, see :class:`asr_dni.evaluation.NoiseCurve`."""
        return FOLDER / f"{self.name}.csv"


def model_names() -> list[str]:
    """Return the names of all networks that come with the package, sorted."""
    return sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}"))


def packaged_name(given: str | Path) -> str | None:
    """Return the name of the packaged network that is meant; ``None``: a file is meant, which wins over a name."""
    name = str(given)
    return name if name in model_names() and not Path(given).exists() else None


def find_checkpoint(given: str | Path) -> Path:
    """Return the checkpoint file that is meant: a file's path, or the name of a network that comes with the package.

    Raises:
        UserError: there is neither such a file nor such a name.
    """
    name = packaged_name(given)
    if name is not None:
        return FOLDER / f"{name}{SUFFIX}"
    path = Path(given)
    if not path.is_file():
        hint = (
            "" if path.suffix or len(path.parts) > 1 else f", and no network of this name{_near(str(given))}"
        )
        raise UserError(f"{path}: there is no such checkpoint file{hint}")
    return path


def _near(name: str) -> str:
    """Return what to do about a name that is unknown."""
    similar = difflib.get_close_matches(name, model_names(), n=3, cutoff=0.6)
    return (
        f"; similar: {', '.join(similar)}"
        if similar
        else "; asr-dni models lists what comes with the package"
    )
