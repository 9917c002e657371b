"""A noise curve: accuracy and loss of one network under computation noise, and what they say of it."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve_file import (
    COLUMNS,
    check_columns,
    read_curve_file,
    strength_of,
    write_curve_file,
)
from asr_dni.evaluation.curves.interpolation import first_at_or_below, weights_of_mean
from asr_dni.evaluation.curves.intervals import FEWEST_SEEDS, counting_deviation, student_t_intervals
from asr_dni.evaluation.curves.level_means import Columns, level_means
from asr_dni.noise import Strength

Over: TypeAlias = Literal["draws", "clips", "chips"]
"""What a single network's interval covers: other test clips and draws of the noise, or other draws, or other chips."""


@dataclass(frozen=True)
class CurveSummary:
    """A noise curve's means and intervals, one row per strength.

    Attributes:
        frame: columns ``strength``, ``snr_db`` (NaN where not known), ``accuracy``, ``low``, ``high`` (NaN where
            the interval is not defined), ``draws_low``, ``draws_high`` (the interval over draws alone, on the same
            clips and chips), ``chips_low``, ``chips_high`` (that over chips, on the same clips; both NaN for several
            seeds), ``loss``, ``n_draws``, ``n_chips``, ``n_clips``, ``n_seeds``. Accuracies and bounds are shares of 1.
        interval: what ``low`` to ``high`` is, such as "95 % interval over 845 test clips (Wilson)".
        settings: see :class:`NoiseCurve`.
    """

    frame: pd.DataFrame
    interval: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def strength(self) -> Strength:
        """The axis."""
        return strength_of(self.settings)

    @property
    def chance(self) -> float | None:
        """Accuracy of guessing, from the setting ``n_classes``; ``None`` where that is not noted."""
        n_classes = self.settings.get("n_classes")
        return 1 / int(n_classes) if n_classes else None

    def midpoint(self, chance: float | None = None) -> float | None:
        """Return the strength at which mean accuracy has fallen half-way from its value at strength 0 to chance.

        Between measured levels the accuracy is taken to be linear; of several crossings the first counts.

        Args:
            chance: accuracy of guessing; ``None`` takes :attr:`chance`.

        Returns:
            The midpoint in units of the strength; ``None`` if the accuracy stays above half-way at all measured
            levels.

        Raises:
            UserError: strength 0 was not measured, or chance is not known, or it is not below the accuracy there.
        """
        chance = self.chance if chance is None else chance
        if chance is None:
            raise UserError("the midpoint needs the accuracy of guessing: give chance, or note n_classes")
        strength, accuracy = (self.frame[name].to_numpy(dtype=float) for name in ("strength", "accuracy"))
        if strength[0] != 0:
            word = self.strength.word
            raise UserError(f"the midpoint needs the accuracy at {word} 0: measure {word} 0 as well")
        if accuracy[0] <= chance:
            raise UserError(
                f"there is no midpoint: accuracy {accuracy[0]:.3f} at {self.strength.word} 0 is not above chance,"
                f" {chance:.3f}"
            )
        found = first_at_or_below(strength, accuracy, (accuracy[0] + chance) / 2)
        return None if math.isinf(found) else found

    def area(self) -> float:
        """Return mean accuracy from the lowest to the highest strength, the area below the curve by its width.

        Between measured levels the accuracy is taken to be linear, so that the choice of levels matters little; curves
        are comparable that end at the same strengths.
        """
        return float(weights_of_mean(self.frame["strength"]) @ self.frame["accuracy"].to_numpy(dtype=float))

    def key_figures(self) -> dict[str, float]:
        """Return the numbers by which curves are ranked: ``clean_accuracy`` and ``midpoint``, those that there are."""
        figures: dict[str, float] = {}
        # Without noise: where nothing of the hardware acts, not where the strength is 0.
        clean = self.frame[np.isposinf(self.frame["snr_db"])]
        if len(clean):
            figures["clean_accuracy"] = float(clean["accuracy"].iloc[0])
        with contextlib.suppress(UserError):
            midpoint = self.midpoint()
            if midpoint is not None:
                figures["midpoint"] = midpoint
        return figures


@dataclass(frozen=True)
class NoiseCurve:
    """Every measured accuracy and loss of one network, one row per strength, chip and draw.

    Attributes:
        frame: columns ``strength`` (value of :attr:`strength`), ``chip`` (0 where all chips are the same), ``draw``,
            ``snr_db`` (inf without noise, NaN where not known), ``accuracy`` (0 to 1), ``loss`` (mean cross entropy,
            nats), ``n_clips``; ascending in strength, chip and draw.
        settings: what was measured, as plain values: ``scale``, ``sites``, ``arrays``, ``noise_seed``, ``draws``,
            ``weights`` (a fingerprint), and what the caller notes. ``strength`` where that is not sigma in its
            ``scale``. Known to figures and comparisons are
            ``n_classes``, ``seed`` (of the training), ``sigma_train`` (that it ended with), ``sigma_train_highest``
            (where a step had more), ``train_strength`` (what both are values of, where that is not sigma),
            ``train_hardware`` (what it was trained on beside that, where it is not Gaussian noise on outputs alone),
            ``trained_under_noise`` (true where sigma_train is 0 but something of that hardware acts), ``cell``,
            ``units``, ``data``,
            ``protocol``, ``split``, ``checkpoint``, ``epoch``, ``training`` (everything else that was configured
            for it), ``label``.

    Raises:
        UserError: a column is missing, or the setting ``strength`` is not that of one.
    """

    frame: pd.DataFrame
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_columns(self.frame)
        strength_of(self.settings)
        ordered = self.frame.sort_values(["strength", "chip", "draw"], ignore_index=True)
        object.__setattr__(self, "frame", ordered)

    @property
    def strength(self) -> Strength:
        """The axis."""
        return strength_of(self.settings)

    @property
    def levels(self) -> list[float]:
        """The strengths that were measured, ascending."""
        return [float(level) for level in self.frame["strength"].unique()]

    def summary(self, over: Over = "clips") -> CurveSummary:
        """Return one row per strength: means over chips and draws, and an interval.

        Args:
            over: what the interval covers. ``clips``: Wilson interval, how well the accuracy on all clips of this
                kind, over all noise, is known from these clips and draws, see
                :func:`~asr_dni.evaluation.curves.intervals.wilson_interval`; on these chips, whose luck all share.
                ``draws``: Student t over the draws' accuracies (means over chips), how well the mean over all noise is
                known for this network on these very clips and chips; it has no width without noise, where all draws are
                the same, and is NaN with one draw. ``chips``: Student t over the chips' accuracies (means over draws),
                how well the mean over all chips that may be programmed so is known on these very clips, draws of the
                noise included; NaN with one chip. None of them covers training again.
        """
        return summary_of_means(self.means(), self.settings, over)

    def means(self) -> Columns:
        """Return means and intervals per strength, see :func:`~asr_dni.evaluation.curves.level_means.level_means`."""
        return level_means({name: self.frame[name].to_numpy(dtype=float) for name in COLUMNS})

    def midpoint(self, chance: float | None = None) -> float | None:
        """Return the midpoint of the mean over chips and draws, see :meth:`CurveSummary.midpoint`."""
        return self.summary().midpoint(chance)

    def to_csv(self, path: Path | str) -> Path:
        """Write the curve as one CSV file, whole or not at all; ``pandas.read_csv(path, comment="#")`` reads its table.

        Returns:
            The path.
        """
        path = Path(path)
        write_curve_file(path, self.settings, self.frame)
        return path

    @classmethod
    def from_csv(cls, path: Path | str) -> "NoiseCurve":
        """Read what :meth:`to_csv` wrote, also when its columns were ``sigma`` and ``draw``.

        Raises:
            UserError: the file can't be read, is not a noise curve, or is cut or damaged, see
                :func:`~asr_dni.evaluation.curves.curve_file.read_curve_file`.
        """
        settings, frame = read_curve_file(Path(path))
        return cls(frame, settings)


def summary_of_means(means: Columns, settings: Mapping[str, Any], over: Over = "clips") -> CurveSummary:
    """Return the summary of one network's curve from its means.

    Args:
        means: see :func:`~asr_dni.evaluation.curves.level_means.level_means`.
        settings: of the curve.
        over: see :meth:`NoiseCurve.summary`.
    """
    numbers = {name: means[name].astype(np.int64) for name in ("n_draws", "n_chips", "n_clips")}
    frame = pd.DataFrame(
        {
            "strength": means["strength"],
            "snr_db": means["snr_db"],
            "accuracy": means["accuracy"],
            "low": means[f"{over}_low"],
            "high": means[f"{over}_high"],
            **{name: means[name] for name in ("draws_low", "draws_high", "chips_low", "chips_high", "loss")},
            **numbers,
            "n_seeds": np.ones(len(means["strength"]), dtype=np.int64),
        }
    )
    clips, draws, chips = (int(numbers[name].max()) for name in ("n_clips", "n_draws", "n_chips"))
    return CurveSummary(
        frame, _interval_text(over, clips, draws, chips, settings.get("split")), dict(settings)
    )


def _interval_text(over: Over, clips: int, draws: int, chips: int, split: object) -> str:
    """Return what the interval of one network covers."""
    these = f", on these {chips} chips" if chips > 1 else ""
    if over == "clips":
        within = ", draws of the noise included" if draws > 1 else ""
        of = "test clips" if split in (None, "test") else "clips"
        return f"95 % interval over {clips} {of}{within}{these} (Wilson)"
    if over == "draws":
        if draws == 1:
            return "one draw, no interval"
        on_chips = " and chips" if chips > 1 else ""
        return f"95 % interval over {draws} draws of the noise, on these clips{on_chips}"
    if chips == 1:
        return "one chip, no interval"
    within = ", draws of the noise included" if draws > 1 else ""
    return f"95 % interval over {chips} chips{within}, on these clips"


def curve_label(settings: Mapping[str, Any]) -> str:
    """Return a short name for a curve: the setting ``label``, or how the network was trained."""
    if settings.get("label"):
        return str(settings["label"])
    sigma_train, strength = settings.get("sigma_train"), strength_of_training(settings)
    if sigma_train is None:
        return "network"
    # A unit of several words is for the small print.
    unit = f" {strength.unit}" if strength.unit and not strength.is_sigma and " " not in strength.unit else ""
    highest = settings.get("sigma_train_highest") or 0
    if highest > sigma_train:
        return f"DNI {strength.symbol_in_training}={highest:g}→{sigma_train:g}{unit}"
    training = settings.get("training")
    drawn = isinstance(training, Mapping) and training.get("annealing.drawn", "no") != "no"
    if sigma_train > 0 and drawn:
        return f"DNI {strength.symbol_in_training} drawn up to {sigma_train:g}{unit}"
    if sigma_train > 0 or settings.get("trained_under_noise"):
        return f"DNI {strength.symbol_in_training}={sigma_train:g}{unit}"
    return "conventional"


def strength_of_training(settings: Mapping[str, Any]) -> Strength:
    """Return what a curve's ``sigma_train`` is a value of.

    Raises:
        UserError: the setting ``train_strength`` is not that of a strength.
    """
    noted = settings.get("train_strength")
    return (
        Strength.sigma(settings.get("train_scale") or "absolute")
        if noted is None
        else Strength.from_dict(noted)
    )


def summarise_curves(curves: Sequence[NoiseCurve], over: Over = "clips") -> CurveSummary:
    """Return the mean over trainings that differ in their seed, with an interval over those seeds.

    Args:
        curves: one per seed, measured at the same levels and on as many clips. A single curve gives its own
            summary, with an interval as ``over`` says.
        over: see :meth:`NoiseCurve.summary`.

    Returns:
        One row per strength. ``low`` to ``high`` is the Student t interval over the seeds' mean accuracies: how
        well the mean over all trainings of this kind is known, on these clips, whose luck all seeds share; NaN for
        two seeds, which show hardly any spread. ``snr_db`` and ``loss`` are means over seeds.

    Raises:
        UserError: no curve, or curves on other axes, of other levels or numbers of clips.
    """
    if not curves:
        raise UserError("there is no noise curve to summarise: give at least one")
    if len(curves) == 1:
        return curves[0].summary(over)
    return pool_means([curve.means() for curve in curves], [curve.settings for curve in curves])


def pool_means(
    means: Sequence[Columns], settings: Sequence[Mapping[str, Any]], repetition: str = "seed"
) -> CurveSummary:
    """Return the mean over two or more trainings, see :func:`summarise_curves`.

    Args:
        means: of each training's curve, see :func:`~asr_dni.evaluation.curves.level_means.level_means`.
        settings: of each.
        repetition: what they differ in, for the words of the interval.

    Raises:
        UserError: they are over other strengths, at other levels or of other numbers of clips.
    """
    first, strength = means[0], strength_of(settings[0])
    for other, its_settings in zip(means[1:], settings[1:], strict=True):
        if strength_of(its_settings) != strength:
            raise UserError(
                f"curves of one experiment are over {strength} and over {strength_of(its_settings)}: measure all"
                f" {repetition}s alike"
            )
        for column in ("strength", "n_clips"):
            if not np.array_equal(other[column], first[column]):
                called = strength.word if column == "strength" else column
                raise UserError(
                    f"curves of one experiment differ in {called} ({first[column].tolist()} and"
                    f" {other[column].tolist()}): measure all {repetition}s alike"
                )
    stacked = {column: np.stack([own[column] for own in means]) for column in ("accuracy", "loss", "snr_db")}
    not_defined = np.full(len(first["strength"]), np.nan)
    enough = len(means) >= FEWEST_SEEDS
    low = high = not_defined
    if enough:
        counted = np.array([counting_deviation(int(n_clips)) for n_clips in first["n_clips"]])
        low, high = student_t_intervals(stacked["accuracy"].T, least_deviation=counted)
    frame = pd.DataFrame(
        {
            "strength": first["strength"],
            "snr_db": stacked["snr_db"].mean(axis=0),
            "accuracy": stacked["accuracy"].mean(axis=0),
            "low": low.clip(0, 1),
            "high": high.clip(0, 1),
            **dict.fromkeys(("draws_low", "draws_high", "chips_low", "chips_high"), not_defined),
            "loss": stacked["loss"].mean(axis=0),
            **{name: first[name].astype(np.int64) for name in ("n_draws", "n_chips", "n_clips")},
            "n_seeds": np.full(len(not_defined), len(means), dtype=np.int64),
        }
    )
    shared = {
        key: value
        for key, value in settings[0].items()
        if all(key in own and own[key] == value for own in settings)
    }
    interval = f"95 % interval over {len(means)} {repetition}s, on these clips"
    if not enough:
        interval = f"{len(means)} {repetition}s, too few for an interval"
    return CurveSummary(frame, interval, shared)
