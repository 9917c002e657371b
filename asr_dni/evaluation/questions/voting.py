"""Voting: what several noisy inferences of one clip come to together.

It is the remedy of M. Qin and D. Vucinic, arXiv:1811.10649. The rules: ``mean``, the label with the largest posterior,
averaged over the inferences; ``majority``, the label that most of them decide for, of those that as many do the one
with the larger mean posterior.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from asr_dni.evaluation.curves.intervals import student_t_interval, wilson_interval
from asr_dni.evaluation.measurement.outcomes import Outcomes

Rule: TypeAlias = Literal["mean", "majority"]
RULES: tuple[Rule, ...] = get_args(Rule)

INTERVALS = (
    "low to high: 95 % over clips, draws included (Wilson); draws_low to draws_high: 95 % over groups of draws that"
    " share none (Student t), on these clips; no value where there is one group"
)
"""What the intervals of the table are."""

_GROUPS = 20
_USUAL = (1, 2, 3, 5, 7, 9, 15, 25, 50, 100)


def usual_votes(draws: int) -> tuple[int, ...]:
    """Return numbers of votes that so many draws suffice for."""
    return (*(number for number in _USUAL if number < draws), draws)


def vote(posteriors: Tensor, rule: Rule) -> Tensor:
    """Return what inferences decide together.

    Args:
        posteriors: ``(n, *, C)`` of n inferences.
        rule: see above.

    Returns:
        ``(*)`` positions of labels.
    """
    mean = posteriors.mean(0)
    if rule == "mean":
        return mean.argmax(-1)
    votes = one_hot(posteriors.argmax(-1), posteriors.shape[-1]).sum(0)
    return (votes + mean / 2).argmax(-1)


def voting_table(outcomes: Iterable[Outcomes], votes: Sequence[int], seed: int = 0) -> pd.DataFrame:
    """Return the accuracy of voting by strength, number of votes and rule.

    With n votes of D draws the accuracy is a mean over groups of n different draws, each a fair sample of what n fresh
    inferences give, so that it is unbiased however often a draw is used. The groups: the draws in their order cut into
    D // n of n, and then shuffled and cut again until there are 20 or more (one for n = D, D for n = 1).
    Chips vote among their own inferences.

    Args:
        outcomes: of all levels.
        votes: numbers of votes; a level with fewer draws has one that all others would be like.
        seed: of the shuffling.

    Returns:
        The table ``voting`` of :data:`~asr_dni.evaluation.questions.folder.TABLES`, see :data:`INTERVALS`.
    """
    rows = []
    for level in outcomes:
        draws, clips = level.logits.shape[1], level.logits.shape[2]
        posteriors = level.posteriors.transpose(0, 1)
        for number in votes:
            groups = [np.zeros(1, dtype=np.int64)] if draws == 1 else _groups(draws, number, seed)
            decided = {
                rule: [
                    (vote(posteriors[torch.from_numpy(group)], rule) == level.labels).double().mean().item()
                    for group in groups
                ]
                for rule in RULES
            }
            for rule, accuracies in decided.items():
                accuracy = float(np.mean(accuracies))
                low, high = wilson_interval(accuracy, clips)
                apart = accuracies[: draws // number]
                of_draws = (accuracy, accuracy) if draws == 1 else student_t_interval(apart)
                rows.append(
                    {
                        "strength": level.strength,
                        "votes": number,
                        "rule": rule,
                        "accuracy": accuracy,
                        "low": low,
                        "high": high,
                        "draws_low": max(0.0, of_draws[0]) if math.isfinite(of_draws[0]) else math.nan,
                        "draws_high": min(1.0, of_draws[1]) if math.isfinite(of_draws[1]) else math.nan,
                    }
                )
    return pd.DataFrame(rows)


def _groups(draws: int, number: int, seed: int) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return groups of so many different draws, of which the first ones share none."""
    order, generator = np.arange(draws), np.random.default_rng([seed, draws, number])
    groups: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
    rounds = 1 if number in (1, draws) else math.ceil(_GROUPS / (draws // number))
    for _ in range(rounds):
        groups += [order[first : first + number] for first in range(0, draws - number + 1, number)]
        order = generator.permutation(draws)
    return groups


def votes_needed(voting: pd.DataFrame, accuracy: float, strength: float, rule: Rule = "mean") -> int | None:
    """Return the smallest measured number of votes that reaches an accuracy.

    Args:
        voting: see :func:`voting_table`.
        accuracy: to be reached, from 0 to 1.
        strength: of the noise, one that was measured.
        rule: of the vote.

    Returns:
        ``None`` where no measured number does.
    """
    rows = voting[(voting["strength"] == strength) & (voting["rule"] == rule)].sort_values("votes")
    enough = rows[rows["accuracy"] >= accuracy]
    return None if enough.empty else int(enough["votes"].iloc[0])
