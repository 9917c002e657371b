"""All figures of a study, by the names of their files."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from asr_dni.hardware_files import find_name
from asr_dni.noise import Strength
from asr_dni.plotting import Figure
from asr_dni.study.figures.curves import curves_figure, units_figure
from asr_dni.study.figures.maps import best_figure, differences_figure, matrices_figure
from asr_dni.study.figures.transfer import (
    transfer_curves_figure,
    transfer_difference_figure,
    transfer_figure,
    transfer_levels_figure,
)
from asr_dni.study.findings import Findings
from asr_dni.study.matrix import KEYS, Matrix
from asr_dni.study.matrix_words import varying_keys
from asr_dni.study.transfer import Transfer

_LONGEST_PART, _LONGEST_NAME = 60, 160
"""Letters; file systems take 255."""

FIGURES = {
    "transfer": "Accuracy by training and inference hardware",
    "transfer_difference": "Difference to conventional training on each hardware",
    "transfer_levels": "Accuracy on each hardware at all levels",
    "transfer_curves": "Trainings on each hardware",
    "matrix": "Accuracy for every training and inference noise",
    "difference_to_clean": "Difference to conventional training with clean inference",
    "difference": "Difference to conventional training at the same noise",
    "curves": "Noise curves",
    "best": "Best training noise for each inference noise",
    "units": "Accuracy and the number of units",
}
"""What a report's figures show, by the beginning of their names, in the order of the report."""


def study_figures(findings: Findings) -> dict[str, Figure]:
    """Specify all figures of a study.

    Args:
        findings: see :func:`asr_dni.study.findings.find`.

    Returns:
        Figures by their file names without ending: per network that was evaluated on several hardwares ``transfer``,
        ``transfer_difference``, ``transfer_levels`` and ``transfer_curves``; per cell and setting ``matrix``,
        ``curves``, ``difference``, ``difference_to_clean``, and per setting ``best`` and ``units``, as far as there is
        something to show.
    """
    figures: dict[str, Figure] = {}
    for name, transfer in named_transfers(findings):
        figures[f"transfer{name}"] = transfer_figure(transfer)
        if transfer.conventional is not None and len(transfer.trainings) > 1:
            figures[f"transfer_difference{name}"] = transfer_difference_figure(transfer)
        figures[f"transfer_levels{name}"] = transfer_levels_figure(transfer)
        figures[f"transfer_curves{name}"] = transfer_curves_figure(transfer)
    for name, group in grouped(findings, ("units",)):
        figures[f"matrix{name}"] = matrices_figure(group)
        figures[f"curves{name}"] = curves_figure(group)
        if any(matrix.conventional is not None and len(matrix.sigma_train) > 1 for matrix in group):
            figures[f"difference{name}"] = differences_figure(group, findings)
            if any(matrix.clean for matrix in group):
                figures[f"difference_to_clean{name}"] = differences_figure(group, findings, to_clean=True)
    for name, group in grouped(findings, ("units", "cell")):
        if any(len(matrix.sigma_train) > 1 for matrix in group):
            figures[f"best{name}"] = best_figure(group, findings)
        if len({matrix.key["units"] for matrix in group}) > 1:
            figures[f"units{name}"] = units_figure(group)
    return figures


def named_transfers(findings: Findings) -> Iterator[tuple[str, Transfer]]:
    """Yield training by inference hardware, and the rest of the names of its figures, see :func:`study_figures`."""
    keys = [transfer.key for transfer in findings.transfers]
    varying = [name for name in KEYS if len({key[name] for key in keys}) > 1]
    for transfer in findings.transfers:
        parts = [_file_part(name, transfer.key) for name in varying]
        yield _shortened("".join(f"-{part}" for part in parts if part), _LONGEST_NAME), transfer


def grouped(findings: Findings, together: Sequence[str]) -> Iterator[tuple[str, list[Matrix]]]:
    """Yield matrices that share a figure, and the rest of its name, see :func:`study_figures`.

    Those that a transfer tells all of are left out.

    Args:
        findings: those the matrices are of.
        together: names of :data:`~asr_dni.study.matrix.KEYS` that matrices of one figure may differ in.
    """
    varying = [name for name in varying_keys(findings.alone) if name not in together]
    groups: dict[tuple[Any, ...], list[Matrix]] = {}
    for matrix in findings.alone:
        groups.setdefault(tuple(matrix.key[name] for name in KEYS if name not in together), []).append(matrix)
    for group in groups.values():
        parts = [_file_part(name, group[0].key) for name in varying]
        yield _shortened("".join(f"-{part}" for part in parts if part), _LONGEST_NAME), group


def _file_part(name: str, key: Mapping[str, Any]) -> str:
    value = key[name]
    text = {
        "bidirectional": "bidirectional" if value else "",
        "layers": f"{value}layers",
        "epochs": f"{value}epochs",
        "votes": f"votes_of_{value}" if name == "votes" and value > 1 else "",
        "compensation": f"softened-{value}" if value else "",
    }
    if name in ("train_scale", "scale"):
        text[name] = f"{name}-{value}" if value else ""
    if name == "hardware" and value:
        text[name] = f"on-{_name_of(json.loads(value), Strength(key['axis'], key['unit']))}"
    if name == "train_hardware" and value:
        text[name] = f"trained-{_trained_on(json.loads(value))}"
    plain = _shortened(text.get(name, str(value)), _LONGEST_PART)
    return "".join(letter if letter.isalnum() or letter in "+-" else "_" for letter in plain.lower())


def _trained_on(noise: Mapping[str, Any]) -> str:
    if "hardware" not in noise:
        return f"{'+'.join(noise['sites'])}-{noise['arrays']}"
    strength = Strength.from_dict(noise["strength"])
    return f"{_name_of(noise['hardware'], strength)}-{strength.path}-per_{noise['chips']}"


def _name_of(hardware: Mapping[str, Any], strength: Strength) -> str:
    return find_name(hardware, strength) or f"hardware-{_identity(json.dumps(hardware, sort_keys=True))}"


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 9]}-{_identity(text)}"


def _identity(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
