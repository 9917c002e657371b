"""Evaluate one network on one hardware: measure once, then fill the tables of a folder."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import pandas as pd
import torch
from torch.nn.functional import cross_entropy

from asr_dni.evaluation.curves.curve import NoiseCurve
from asr_dni.evaluation.measurement.measuring import assemble_curve, settings_of
from asr_dni.evaluation.measurement.outcomes import Outcomes, OutcomeStore
from asr_dni.evaluation.measurement.scoring import NoisyClassifier
from asr_dni.evaluation.measurement.sweep import Level, Sweep, check_votes
from asr_dni.evaluation.questions.budget import has_budget, noise_budget
from asr_dni.evaluation.questions.calibration import BINS, calibration_table, reliability_table
from asr_dni.evaluation.questions.classes import classes_table
from asr_dni.evaluation.questions.clips import clips_table
from asr_dni.evaluation.questions.cost_of_inference import (
    DEVICES_PER_WEIGHT,
    EnergyConstant,
    cost_table,
    products_of,
)
from asr_dni.evaluation.questions.folder import write_table
from asr_dni.evaluation.questions.sensitivity import parts_to_ask, sensitivity_table
from asr_dni.evaluation.questions.summary import summary_table
from asr_dni.evaluation.questions.voting import INTERVALS, usual_votes, voting_table
from asr_dni.noise import Noise

Subject: TypeAlias = Literal["curve", "classes", "calibration", "voting", "clips", "sensitivity", "cost"]
SUBJECTS: tuple[Subject, ...] = get_args(Subject)
_OF_ALL_LEVELS = {"curve", "classes", "calibration", "voting", "clips"}

PARTS = "passes"
"""Name of the folder of what was measured, from which all tables are made."""


@dataclass(frozen=True)
class Request:
    """What is asked of a network on one hardware.

    Attributes:
        sweep: hardware, levels, chips, draws and seed.
        subjects: which tables.
        votes: numbers of votes; ``None``: what the draws suffice for.
        tolerated_loss: as a share of 1: what ``tolerable`` means in the summary, and what a budget is for.
        draws_per_part: realisations of the noise per part, level and chip, for the sensitivity.
        energy: of operations; ``None``: not known.

    Raises:
        UserError: there are more votes than draws.
    """

    sweep: Sweep
    subjects: Collection[Subject] = SUBJECTS
    votes: Sequence[int] | None = None
    tolerated_loss: float = 0.01
    draws_per_part: int = 3
    energy: Mapping[str, EnergyConstant] | None = None

    def __post_init__(self) -> None:
        draws = self.sweep.draws
        votes = usual_votes(draws) if self.votes is None else check_votes(self.votes, draws)
        object.__setattr__(self, "votes", votes)

    @property
    def clean(self) -> Level:
        """The network without any noise, as a level."""
        noise = self.sweep.noise
        clean = Noise.of(replace(noise.hardware, sites=())).compensating(noise.compensation)
        return Level(0.0, clean, 1, 1)

    def levels(self, store: OutcomeStore) -> list[Level]:
        """Return the levels that the whole network is measured at, which are those that the subjects need."""
        if _OF_ALL_LEVELS & set(self.subjects):
            return list(self.sweep.levels)
        if "sensitivity" not in self.subjects:
            return []
        shown = {level.value for level in parts_to_ask(store, self.sweep, self.draws_per_part).levels}
        return [level for level in self.sweep.levels if level.value in shown]

    def passes(self, store: OutcomeStore) -> int:
        """Return how many passes over each batch this takes, those that look for a budget aside."""
        parts = parts_to_ask(store, self.sweep, self.draws_per_part).passes
        whole = sum(level.chips * level.draws for level in self.levels(store))
        measured = bool(_OF_ALL_LEVELS & set(self.subjects)) or "sensitivity" in self.subjects
        return measured + whole + (parts if "sensitivity" in self.subjects else 0)


@dataclass(frozen=True)
class Result:
    """What was found on one hardware.

    Attributes:
        curve: accuracy by strength, chip and draw; ``None`` where no subject needs all levels.
        settings: noted with all tables.
        tables: further ones, by name.
        files: that were written.
    """

    curve: NoiseCurve | None
    settings: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]
    files: Sequence[Path]

    @property
    def figures(self) -> set[str]:
        """Names of the figures of these tables, as ``evaluation_figures`` has them."""
        beside = {"curve": "chips", "classes": "confusion"}
        return {*self.tables, *(figure for table, figure in beside.items() if table in self.tables)}


def evaluate_network(
    store: OutcomeStore,
    request: Request,
    folder: Path,
    settings: Mapping[str, Any],
    label_names: Sequence[str],
    paths: Sequence[str],
    progress: Callable[[int], None] | None = None,
) -> Result:
    """Measure what is not measured yet, and write the tables.

    Only what the subjects need is measured: nothing for ``cost``.

    Args:
        store: measures, and keeps what it measured.
        request: what is asked.
        folder: of the tables.
        settings: noted with every table, see :class:`~asr_dni.evaluation.curves.curve.NoiseCurve`.
        label_names: in the order of the network's outputs.
        paths: of the clips, in their order.
        progress: see :meth:`~asr_dni.evaluation.measurement.outcomes.OutcomeStore.outcomes`; there are
            :meth:`Request.passes` times the number of batches in all.

    Raises:
        UserError: there are too many passes for memory.
    """
    assert request.votes is not None
    noted = {**settings_of(request.sweep, store.network), **settings, "label_names": list(label_names)}
    clean_accuracy, curve = math.nan, None
    levels = request.levels(store)
    if levels or "sensitivity" in request.subjects:
        clean_accuracy = store.outcomes(request.clean, progress).right.double().mean().item()
        noted["clean_accuracy"] = clean_accuracy
    outcomes = [store.outcomes(level, progress) for level in levels]
    if _OF_ALL_LEVELS & set(request.subjects):
        curve = curve_of(outcomes, request.sweep, store.network, noted)
    tables: dict[str, pd.DataFrame] = {}
    own: dict[str, dict[str, Any]] = {}
    if "classes" in request.subjects:
        tables["classes"] = classes_table(outcomes, label_names)
    if "calibration" in request.subjects:
        tables |= {"calibration": calibration_table(outcomes), "reliability": reliability_table(outcomes)}
        own |= {name: {"bins": BINS} for name in ("calibration", "reliability")}
    # On hardware without anything fresh in every pass all votes would be the same.
    voters = [its for its in outcomes if its.logits.shape[1] > 1]
    if "voting" in request.subjects and voters:
        seed = request.sweep.noise.realisation.seed
        tables["voting"] = voting_table(outcomes, request.votes, seed)
        own["voting"] = {"votes": list(request.votes), "intervals": INTERVALS}
    if "clips" in request.subjects:
        tables["clips"] = clips_table(outcomes, label_names, paths)
    if "sensitivity" in request.subjects:
        asked = parts_to_ask(store, request.sweep, request.draws_per_part)
        tables["sensitivity"] = sensitivity_table(store, asked, clean_accuracy, outcomes, progress)
        own["sensitivity"] = {"draws": request.draws_per_part}
        if has_budget(request.sweep) and asked.parts:
            budget = noise_budget(store, asked, tables["sensitivity"], clean_accuracy, request.tolerated_loss)
            tables["budget"] = budget.table
            own["budget"] = {
                "tolerated_loss": request.tolerated_loss,
                **own["sensitivity"],
                **budget.settings(),
            }
    if "cost" in request.subjects:
        hardware = request.sweep.noise.hardware
        products = products_of(store.network, store.clips.batches[0].features[:1], hardware)
        tables["cost"] = cost_table(products, hardware, request.energy)
        constants = {name: vars(its) for name, its in (request.energy or {}).items()}
        own["cost"] = {"energy": constants or None, "devices_per_weight": DEVICES_PER_WEIGHT}
    if "curve" in request.subjects:
        assert curve is not None
        whole = request.sweep.noise.hardware.counts(request.sweep.strength)
        tables["curve"] = curve.frame
        tables["summary"] = summary_table(
            curve, clean_accuracy, request.tolerated_loss, whole, tables.get("voting")
        )
        own["summary"] = {"tolerated_loss": request.tolerated_loss}
    files = [
        path
        for name, frame in tables.items()
        for path in write_table(folder, name, frame, {**noted, **own.get(name, {})})
    ]
    return Result(curve, noted, tables, files)


def curve_of(
    outcomes: Sequence[Outcomes], sweep: Sweep, network: NoisyClassifier, settings: Mapping[str, Any]
) -> NoiseCurve:
    """Return the noise curve that outcomes are.

    Args:
        outcomes: of the levels of the sweep.
        sweep: what was measured.
        network: is asked for the SNR of every level.
        settings: see :class:`~asr_dni.evaluation.curves.curve.NoiseCurve`.
    """
    accuracies, losses = [], []
    for level in outcomes:
        accuracies.append(level.right.double().mean(-1).flatten())
        targets = level.labels.expand(level.logits.shape[:-1]).reshape(-1)
        loss = cross_entropy(level.logits.flatten(0, -2), targets, reduction="none")
        losses.append(loss.view(level.logits.shape[:-1]).double().mean(-1).flatten())
    clips = torch.tensor(len(outcomes[0].labels))
    return assemble_curve(sweep, network, torch.cat(accuracies), torch.cat(losses), clips, settings)
