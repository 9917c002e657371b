"""Measure CRNNs on the test split: the tables of docs/recipes.md for those of scripts/eight_words_crnn.sh and others.

    python scripts/crnn_page.py --kept runs/crnn_kept --runs conventional=runs/crnn/conventional DNI=runs/crnn/dni ...
    python scripts/crnn_page.py ... --page long                           # the same, and writes this place of the page

NAME=FOLDER is a training with a run for each seed, as in scripts/compensation.py. FOLDER after --kept keeps what every
clip was taken for. Noise is at the sites that it was trained at.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from compensation import (
    DOCS,
    TEST,
    VALIDATION,
    Groups,
    Measured,
    Run,
    find_runs,
    group,
    right,
    right_by_vote,
    table,
)
from marked_places import fill
from mistakes import told_in_a_line
from numpy.typing import NDArray

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.intervals import student_t_interval
from asr_dni.evaluation.measurement.outcomes import Outcomes
from asr_dni.wording import count

SIGMAS = (0.0, 1.0, 2.0, 3.0)
DRAWS = 10
WAYS = ("validation", "one", "softened", "vote", "ensemble")
"""Rows of a training."""


def by_ensemble(of_seeds: Sequence[Outcomes]) -> NDArray[np.float64]:
    """Return of each clip how often the mean posterior of the networks, each under a draw of its own, is right."""
    posteriors = torch.stack([its.posteriors[0] for its in of_seeds]).mean(0)
    return (posteriors.argmax(-1) == of_seeds[0].labels).double().mean(0).numpy()


def over_seeds(of_seeds: Sequence[NDArray[np.float64]]) -> str:
    """Return the mean accuracy in percent, and half its 95 % interval over seeds (Student t)."""
    each = [100 * float(its.mean()) for its in of_seeds]
    low, high = student_t_interval(each)
    return f"{np.mean(each):.1f}" if len(each) < 2 else f"{np.mean(each):.1f} ± {(high - low) / 2:.1f}"


def rows_of(
    measured: Measured, name: str, runs: Sequence[Run], sigmas: Sequence[float], ways: Sequence[str]
) -> list[list[str]]:
    """Return the rows of a training that are in ``ways``: its networks one by one, softened, voting, and together."""
    says: dict[str, dict[float, str]] = {
        "one pass, validation split": {},
        "one pass": {},
        "softened": {},
        f"vote of {DRAWS}": {},
        f"ensemble of the {count(len(runs), 'seed')}": {},
    }
    validated, one, softened, voted, ensemble = says.values()
    for sigma in sigmas:
        if "validation" in ways:
            validated[sigma] = over_seeds(
                [right(measured.at(run, VALIDATION, sigma, 0.0, DRAWS)) for run in runs]
            )
        outcomes = [measured.at(run, TEST, sigma, 0.0, DRAWS) for run in runs]
        one[sigma] = over_seeds([right(its) for its in outcomes])
        ensemble[sigma] = f"{100 * by_ensemble(outcomes).mean():.1f}"
        if sigma:
            voted[sigma] = over_seeds([right_by_vote(its) for its in outcomes])
        missing = [measured.missing(run, sigma) for run in runs]
        if all(missing) and "softened" in ways:
            softened[sigma] = over_seeds(
                [right(measured.at(run, TEST, sigma, s, DRAWS)) for run, s in zip(runs, missing, strict=True)]
            )
    shown = [its for way, its in zip(WAYS, says.items(), strict=True) if way in ways and its[1]]
    return [
        [name if which == 0 else "", way, *(cells.get(sigma, "") for sigma in sigmas)]
        for which, (way, cells) in enumerate(shown)
    ]


def never_right(measured: Measured, groups: Groups) -> str:
    """Return how many test clips no network takes rightly without noise."""
    outcomes = [measured.at(run, TEST, 0.0, 0.0, DRAWS) for runs in groups.values() for run in runs]
    words = torch.stack([its.predicted[0, 0] for its in outcomes])
    wrong = (words != outcomes[0].labels).all(0)
    agreed = wrong & (words == words[0]).all(0)
    return (
        f"Without noise {int(wrong.sum())} of the {len(wrong)} test clips are right with none of these"
        f" {len(outcomes)} networks; all of them hear the same other word in {int(agreed.sum())}."
    )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", nargs="+", required=True, help="NAME=FOLDER of a training")
    parser.add_argument("--kept", type=Path, required=True, help="folder of what is measured")
    parser.add_argument("--sigmas", nargs="+", type=float, default=SIGMAS)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--page", metavar="PLACE", help="write this place of docs/recipes.md")
    given = parser.parse_args()
    groups: Groups = group(find_runs(given.runs))
    if not groups:
        raise UserError(f"{' '.join(given.runs)}: no finished run (seed_*/version_*/noise_curve.csv)")
    measured = Measured(given.kept)
    rows = [
        row
        for name, runs in groups.items()
        for row in rows_of(measured, name, runs, given.sigmas, given.ways)
    ]
    text = table(["training", "run by", *(f"σ_infer {sigma:g}" for sigma in given.sigmas)], rows)
    text += "\n\n" + never_right(measured, groups)
    print(text)
    if given.page:
        fill(DOCS / "recipes.md", {given.page: text})


if __name__ == "__main__":
    with told_in_a_line():
        main()
