"""The runs and studies that a report is of, from all the folders that were named."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from asr_dni.catalogue import Catalogue, Run
from asr_dni.errors import UserError
from asr_dni.study.ledger import Ledger


@dataclass
class Results:
    """What there is, by names that are short and differ.

    Attributes:
        runs: by name.
        changed: when the newest file of each run was written.
        studies: ledgers by name.
        problems: a line for each study that can't be used.
        newest: when the newest file of all was written.
    """

    runs: dict[str, Run] = field(default_factory=dict)
    changed: dict[str, pd.Timestamp] = field(default_factory=dict)
    studies: dict[str, Ledger] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    newest: pd.Timestamp | None = None


def find_results(paths: Sequence[Path | str]) -> Results:
    """Return the runs and studies in folders, each once; of damaged ones, too.

    Args:
        paths: folders of runs, of studies, or of both, at any depth; such as a run's own.

    Raises:
        UserError: a folder does not exist, or there is nothing in it.
    """
    results, seen = Results(), set()
    for path in map(Path, paths):
        if path.is_file():
            raise UserError(
                f"{path} is a file: give the folder of a run or of a study, or one that holds some"
            )
        catalogue = Catalogue(path)
        frame = catalogue.runs()
        studies = catalogue.studies()
        if frame.empty and studies.empty:
            raise UserError(
                f"{path} holds no runs and no studies: give a folder that asr-dni fit or study wrote"
            )
        dates = [date for date in (*frame["changed"], *studies["changed"]) if date.timestamp() > 0]
        results.newest = max([*([results.newest] if results.newest else []), *dates], default=None)
        base = catalogue.folder.name if len(paths) > 1 else ""
        for identity, changed in zip(frame["run"], frame["changed"], strict=True):
            run = catalogue.run(identity)
            if run.path.resolve() not in seen:
                seen.add(run.path.resolve())
                name = _name(base, identity, catalogue.folder, results.runs)
                results.runs[name], results.changed[name] = run, changed
        for identity, message in zip(studies["study"], studies["message"], strict=True):
            folder = (catalogue.folder / identity).resolve()
            if folder in seen:
                continue
            seen.add(folder)
            name = _name(base, identity, catalogue.folder, results.studies)
            if message:
                results.problems.append(f"{name}: {message}")
            else:
                results.studies[name] = catalogue.study(identity)
    return results


def _name(
    base: str, identity: str, folder: Path, taken: "dict[str, object] | dict[str, Run] | dict[str, Ledger]"
) -> str:
    """Return the path below the folder that was named, with that folder's name where several were."""
    name = "/".join(part for part in (base, "" if identity == "." else identity) if part) or folder.name
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free
