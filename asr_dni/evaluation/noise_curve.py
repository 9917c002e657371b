"""Accuracy and loss of one network against the computation noise it runs under: the noise curve."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from asr_dni.bounds import at_most
from asr_dni.errors import UserError
from asr_dni.evaluation.curve_file import COLUMNS, check_columns, read_curve_file
from asr_dni.evaluation.intervals import student_t_interval, wilson_interval
from asr_dni.files import write_atomically
from asr_dni.noise import MVM_SITES, Noise, Site

if TYPE_CHECKING:
    from asr_dni.data.batch import Batch

REPETITION_KEYS = ("seed", "noise_seed", "checkpoint", "weights", "epoch", "step", "run")
"""Settings in which repetitions of one experiment differ; all others tell experiments apart."""

_FEWEST_SEEDS = 3
"""Of which an interval is shown: that of two is as wide as everything, by their one difference."""

Over: TypeAlias = Literal["draws", "clips"]
"""What a single network's interval covers: other test clips and other draws of the noise, or other draws alone."""


class NoisyClassifier(Protocol):
    """What a network has to offer to have its noise curve measured (it is a ``torch.nn.Module`` as well)."""

    def project(self, features: Tensor) -> Tensor:
        """Return the noise-free part of the work for features ``(N, T, F)``, the same under any noise."""
        ...

    def classify(self, projection: Tensor) -> Tensor:
        """Return logits ``(N, C)`` of what :meth:`project` returned, under the noise in force."""
        ...

    def under(self, noise: Noise) -> AbstractContextManager[Any]:
        """Set the noise for a block."""
        ...

    def snr_db(self, noise: Noise) -> float | None:
        """Return the signal-to-noise ratio of ``noise`` in dB; ``None`` where it is not known."""
        ...


_MOST_LEVELS = 1_000
_MOST_DRAWS = 10_000


def check_sigmas(sigmas: Sequence[float]) -> tuple[float, ...]:
    """Return noise levels in ascending order.

    Raises:
        UserError: none is given, too many are, one is given twice, negative, or not finite.
    """
    levels = sorted(float(sigma) for sigma in sigmas)
    if not levels:
        raise UserError("sigmas is empty: give at least one noise level, such as [0, 1, 2]")
    at_most("the number of sigmas", len(levels), _MOST_LEVELS)
    wrong = [sigma for sigma in levels if not (math.isfinite(sigma) and sigma >= 0)]
    if wrong:
        raise UserError(f"sigmas contains {wrong[0]}: give finite numbers of at least 0")
    twice = [first for first, second in pairwise(levels) if first == second]
    if twice:
        raise UserError(f"sigmas contains {twice[0]:g} twice: give every noise level once")
    return tuple(levels)


def check_draws(draws: int, name: str = "draws") -> int:
    """Return the number of draws.

    Raises:
        UserError: it is not positive, or too large.
    """
    if draws < 1:
        raise UserError(f"{name} is {draws}: give at least 1")
    at_most(name, draws, _MOST_DRAWS)
    return draws


def check_sites(
    sites: Sequence[Site], sigmas: Sequence[float], names: tuple[str, str] = ("sites", "sigmas [0]")
) -> None:
    """Check that a noise level above 0 has somewhere to enter.

    Args:
        sites: where the noise enters.
        sigmas: its levels.
        names: what a message calls the setting of the sites, and that of no noise.

    Raises:
        UserError: there are levels above 0, but no sites: every draw would be the same noiseless pass.
    """
    if not sites and any(sigma > 0 for sigma in sigmas):
        raise UserError(
            f"{names[0]} is empty, so there is no noise to measure at sigma {max(sigmas):g}: give some, such as"
            f" [{','.join(MVM_SITES)}], or {names[1]}"
        )


def fingerprint(network: nn.Module) -> str:
    """Return 16 hexadecimal digits that tell a network's weights and buffers from any others."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(network.state_dict().items()):
        if not isinstance(value, Tensor):
            continue
        array = value.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}\n".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def count_passes(sigmas: Sequence[float], draws: int) -> int:
    """Return how many noisy passes one batch takes: ``draws`` per level, but one at sigma 0."""
    return sum(draws if sigma > 0 else 1 for sigma in sigmas)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode without gradients; afterwards every module is in its mode again."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


class NoiseCurveMetric(Metric):
    """Counts correct answers and sums losses per noise level and draw, batch by batch.

    The noise of a clip depends on the noise's seed, the draw and the clip's identity alone, so the result
    does not depend on batch size or order, nor on which process of several sees which clip; the global random
    generators are not touched. Memory does not grow with the number of clips. In distributed runs
    :meth:`compute` sums over processes, as every torchmetrics metric does.

    Args:
        sigmas: noise levels.
        draws: realisations of the noise per level; sigma 0, where all are the same, takes one.
        noise: seed, scale and sites; its ``sigma``, ``draw`` and ``sample_ids`` are replaced.

    Raises:
        UserError: a level or the number of draws is out of range, or the noise has no sites.
    """

    full_state_update = False
    correct: Tensor
    loss: Tensor
    n_clips: Tensor

    def __init__(self, sigmas: Sequence[float], draws: int, noise: Noise) -> None:
        super().__init__()
        self.sigmas = check_sigmas(sigmas)
        self.draws = check_draws(draws)
        check_sites(noise.sites, self.sigmas)
        self.noise = noise
        self.passes = [
            (sigma, draw) for sigma in self.sigmas for draw in range(self.draws if sigma > 0 else 1)
        ]
        zeros = torch.zeros(len(self.passes), dtype=torch.float64)
        self.add_state("correct", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("loss", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("n_clips", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self, network: NoisyClassifier, batch: "Batch", progress: Callable[[], None] | None = None
    ) -> None:
        """Run one batch through every level and draw; the noise-free work is done once.

        Args:
            network: the network; its modes and noise are afterwards what they were.
            batch: features ``(N, T, F)``, labels ``(N,)``, clip_ids ``(N,)`` on the network's device. Clips
                labelled -1, whose word the network does not know, are left out.
            progress: called after every pass, :func:`count_passes` times.
        """
        correct, losses = [], []
        with evaluating(cast(nn.Module, network)):
            projection = network.project(batch.features)
            for sigma, draw in self.passes:
                noise = replace(self.noise, sigma=sigma, draw=draw, sample_ids=batch.clip_ids)
                with network.under(noise):
                    logits = network.classify(projection).float()
                right, loss = score(logits, batch.labels)
                correct.append(right)
                losses.append(loss)
                if progress is not None:
                    progress()
        # One transfer per batch, not one per pass.
        self.correct += torch.stack(correct).to(self.correct.device).double()
        self.loss += torch.stack(losses).to(self.loss.device).double()
        self.n_clips += (batch.labels >= 0).sum().to(self.n_clips.device)

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return accuracy ``(passes,)``, mean cross entropy in nats ``(passes,)``, number of clips ``()``."""
        return self.correct / self.n_clips, self.loss / self.n_clips, self.n_clips

    def curve(self, network: NoisyClassifier, settings: Mapping[str, Any] | None = None) -> "NoiseCurve":
        """Return what was measured so far.

        Args:
            network: is asked for the SNR of every level.
            settings: what else to note with the curve, see :class:`NoiseCurve`.

        Raises:
            UserError: no clip was seen.
        """
        return self.assemble(network, *self.compute(), settings)

    def assemble(
        self,
        network: NoisyClassifier,
        accuracy: Tensor,
        loss: Tensor,
        n_clips: Tensor,
        settings: Mapping[str, Any] | None = None,
    ) -> "NoiseCurve":
        """Return a noise curve of what :meth:`compute` gives, though it was computed elsewhere.

        Args:
            network: see :meth:`curve`.
            accuracy: ``(passes,)``.
            loss: ``(passes,)``.
            n_clips: ``()``.
            settings: see :meth:`curve`.

        Raises:
            UserError: there are no clips.
        """
        accuracy, loss, n_clips = accuracy.cpu(), loss.cpu(), n_clips.cpu()
        if n_clips == 0:  # asked of the sum: one process of several may have none
            raise UserError("the noise curve has no clips: the split to evaluate is empty")
        snr = {sigma: _snr_db(network, self.noise, sigma) for sigma in self.sigmas}
        frame = pd.DataFrame(
            {
                "sigma": [sigma for sigma, _ in self.passes],
                "draw": [draw for _, draw in self.passes],
                "snr_db": [snr[sigma] for sigma, _ in self.passes],
                "accuracy": accuracy.numpy(),
                "loss": loss.numpy(),
                "n_clips": int(n_clips),
            },
            columns=list(COLUMNS),
        )
        noted = {
            "scale": self.noise.scale,
            "sites": list(self.noise.sites),
            "arrays": self.noise.arrays,
            "noise_seed": self.noise.seed,
            "draws": self.draws,
            "weights": fingerprint(cast(nn.Module, network)),
        }
        return NoiseCurve(frame, noted | dict(settings or {}))


def score(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the number of correct answers and the sum of the cross entropies, in nats.

    Args:
        logits: ``(*, N, C)``.
        labels: ``(N,)``; clips labelled -1 are left out.

    Returns:
        Two tensors ``(*)``.
    """
    correct = (logits.argmax(dim=-1) == labels).sum(-1)
    targets = labels.expand(logits.shape[:-1]).reshape(-1)
    losses = F.cross_entropy(logits.flatten(0, -2), targets, reduction="none", ignore_index=-1)
    return correct, losses.view(logits.shape[:-1]).sum(-1)


def _snr_db(network: NoisyClassifier, noise: Noise, sigma: float) -> float:
    if sigma == 0:
        return math.inf
    snr = network.snr_db(replace(noise, sigma=sigma, draw=None, sample_ids=None))
    return math.nan if snr is None else float(snr)


def measure_noise_curve(
    network: NoisyClassifier,
    batches: Iterable["Batch"],
    sigmas: Sequence[float],
    draws: int,
    noise: Noise,
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[], None] | None = None,
) -> "NoiseCurve":
    """Measure accuracy and loss under every noise level, ``draws`` times each.

    The noise-free work, the features (already in the batches) and the first input projection, is done once
    per batch. The result depends on the noise's seed and on the clips, not on batch size or order, but for
    the rounding of sums.

    Args:
        network: the network, on the batches' device; its modes and noise are afterwards what they were.
        batches: the clips to evaluate.
        sigmas: noise levels, in any order.
        draws: realisations of the noise per level.
        noise: seed, scale and sites; its ``sigma``, ``draw`` and ``sample_ids`` are replaced.
        settings: what else to note with the curve, see :class:`NoiseCurve`.
        progress: called after every noisy pass over a batch; there are :func:`count_passes` per batch.

    Returns:
        The noise curve.

    Raises:
        UserError: a level or the number of draws is out of range, the noise has no sites, or there are no clips.
    """
    metric = NoiseCurveMetric(sigmas, draws, noise)
    for batch in batches:
        metric.update(network, batch, progress)
    return metric.curve(network, settings)


@dataclass(frozen=True)
class CurveSummary:
    """A noise curve's means and intervals, one row per sigma.

    Attributes:
        frame: columns ``sigma``, ``snr_db`` (NaN where not known), ``accuracy``, ``low``, ``high`` (NaN where
            the interval is not defined), ``draws_low``, ``draws_high`` (the interval over draws alone, on the same
            clips; NaN for several seeds), ``loss``, ``n_draws``, ``n_clips``, ``n_seeds``. Accuracies and bounds are
            shares of 1.
        interval: what ``low`` to ``high`` is, such as "95 % interval over 845 test clips (Wilson)".
        settings: see :class:`NoiseCurve`.
    """

    frame: pd.DataFrame
    interval: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def chance(self) -> float | None:
        """Accuracy of guessing, from the setting ``n_classes``; ``None`` where that is not noted."""
        n_classes = self.settings.get("n_classes")
        return 1 / int(n_classes) if n_classes else None

    def midpoint(self, chance: float | None = None) -> float | None:
        """Return the sigma at which mean accuracy has fallen half-way from its clean value to chance.

        Between measured levels the accuracy is taken to be linear; of several crossings the first counts.

        Args:
            chance: accuracy of guessing; ``None`` takes :attr:`chance`.

        Returns:
            The midpoint in units of sigma; ``None`` if the accuracy stays above half-way at all measured
            levels.

        Raises:
            UserError: sigma 0 was not measured, or chance is not known, or it is not below the clean
                accuracy.
        """
        chance = self.chance if chance is None else chance
        if chance is None:
            raise UserError("the midpoint needs the accuracy of guessing: give chance, or note n_classes")
        sigma = self.frame["sigma"].to_numpy(dtype=float)
        accuracy = self.frame["accuracy"].to_numpy(dtype=float)
        if sigma[0] != 0:
            raise UserError("the midpoint needs the clean accuracy: measure sigma 0 as well")
        if accuracy[0] <= chance:
            raise UserError(
                f"there is no midpoint: clean accuracy {accuracy[0]:.3f} is not above chance, {chance:.3f}"
            )
        half = (accuracy[0] + chance) / 2
        below = np.flatnonzero(accuracy <= half)
        if not below.size:
            return None
        after = int(below[0])
        before = after - 1
        share = (accuracy[before] - half) / (accuracy[before] - accuracy[after])
        return float(sigma[before] + share * (sigma[after] - sigma[before]))


@dataclass(frozen=True)
class NoiseCurve:
    """Every measured accuracy and loss of one network, one row per sigma and draw.

    Attributes:
        frame: columns ``sigma``, ``draw``, ``snr_db`` (inf at sigma 0, NaN where not known), ``accuracy`` (0
            to 1), ``loss`` (mean cross entropy, nats), ``n_clips``; ascending in sigma and draw.
        settings: what was measured, as plain values: ``scale``, ``sites``, ``arrays``, ``noise_seed``, ``draws``,
            ``weights`` (a fingerprint), and what the caller notes. Known to figures and comparisons are
            ``n_classes``, ``seed`` (of the training), ``sigma_train`` (that it ended with), ``sigma_train_highest``
            (where a step had more), ``cell``, ``units``, ``data``,
            ``protocol``, ``split``, ``checkpoint``, ``epoch``, ``training`` (everything else that was configured
            for it), ``label``.
    """

    frame: pd.DataFrame
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_columns(self.frame)
        ordered = self.frame.sort_values(["sigma", "draw"], ignore_index=True)
        object.__setattr__(self, "frame", ordered)

    @property
    def sigmas(self) -> list[float]:
        """The noise levels, ascending."""
        return [float(sigma) for sigma in self.frame["sigma"].unique()]

    def summary(self, over: Over = "clips") -> CurveSummary:
        """Return one row per sigma: means over draws, and an interval.

        Args:
            over: what the interval covers. ``clips``: Wilson interval, how well the accuracy on all clips of this
                kind, over all noise, is known from these clips and draws, see
                :func:`~asr_dni.evaluation.intervals.wilson_interval`. ``draws``: Student t over the draws'
                accuracies, how well the mean over all noise is known for this network on these very clips; it has no
                width at sigma 0, where all draws are the same, and is NaN with one draw. Neither covers training
                again.
        """
        rows = []
        for sigma, group in self.frame.groupby("sigma", sort=True):
            accuracies = group["accuracy"].to_numpy(dtype=float)
            mean, n_clips = float(accuracies.mean()), int(group["n_clips"].iloc[0])
            of_draws = (mean, mean) if sigma == 0 else student_t_interval(accuracies.tolist())
            of_draws = tuple(np.clip(of_draws, 0.0, 1.0).tolist())
            low, high = wilson_interval(mean, n_clips) if over == "clips" else of_draws
            rows.append(
                {
                    "sigma": sigma,
                    "snr_db": group["snr_db"].iloc[0],
                    "accuracy": mean,
                    "low": low,
                    "high": high,
                    "draws_low": of_draws[0],
                    "draws_high": of_draws[1],
                    "loss": float(group["loss"].mean()),
                    "n_draws": len(group),
                    "n_clips": n_clips,
                    "n_seeds": 1,
                }
            )
        frame = pd.DataFrame(rows)
        draws = int(frame["n_draws"].max())
        if over == "clips":
            within = ", draws of the noise included" if draws > 1 else ""
            interval = f"95 % interval over {int(frame['n_clips'].max())} test clips{within} (Wilson)"
        elif draws > 1:
            interval = f"95 % interval over {draws} draws of the noise, on these clips"
        else:
            interval = "one draw, no interval"
        return CurveSummary(frame, interval, dict(self.settings))

    def midpoint(self, chance: float | None = None) -> float | None:
        """Return the midpoint of the mean over draws, see :meth:`CurveSummary.midpoint`."""
        return self.summary().midpoint(chance)

    def to_csv(self, path: Path | str) -> Path:
        """Write the curve as one CSV file, whole or not at all.

        Settings come first, a line ``# key: JSON value`` each, so that ``pandas.read_csv(path, comment="#")``
        reads the table.

        Returns:
            The path.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            write_atomically(path) as temporary,
            open(temporary, "w", encoding="utf-8", newline="\n") as file,
        ):
            for key, value in self.settings.items():
                file.write(f"# {key}: {json.dumps(value, ensure_ascii=False)}\n")
            self.frame.to_csv(file, index=False, lineterminator="\n")
        return path

    @classmethod
    def from_csv(cls, path: Path | str) -> "NoiseCurve":
        """Read what :meth:`to_csv` wrote.

        Raises:
            UserError: the file can't be read, is not a noise curve, or is cut or damaged, see
                :func:`~asr_dni.evaluation.curve_file.read_curve_file`.
        """
        settings, frame = read_curve_file(Path(path))
        return cls(frame, settings)


def curve_label(settings: Mapping[str, Any]) -> str:
    """Return a short name for a curve: the setting ``label``, or how the network was trained."""
    if settings.get("label"):
        return str(settings["label"])
    sigma_train = settings.get("sigma_train")
    if sigma_train is None:
        return "network"
    highest = settings.get("sigma_train_highest") or 0
    if highest > sigma_train:
        return f"DNI σ_train={highest:g}→{sigma_train:g}"
    return f"DNI σ_train={sigma_train:g}" if sigma_train > 0 else "conventional"


def summarise_curves(curves: Sequence[NoiseCurve], over: Over = "clips") -> CurveSummary:
    """Return the mean over trainings that differ in their seed, with an interval over those seeds.

    Args:
        curves: one per seed, measured at the same levels and on as many clips. A single curve gives its own
            summary, with an interval as ``over`` says.
        over: see :meth:`NoiseCurve.summary`.

    Returns:
        One row per sigma. ``low`` to ``high`` is the Student t interval over the seeds' mean accuracies: how
        well the mean over all trainings of this kind is known, on these clips, whose luck all seeds share; NaN for
        two seeds, which show hardly any spread. ``snr_db`` and ``loss`` are means over seeds.

    Raises:
        UserError: no curve, or curves of other levels or numbers of clips.
    """
    if not curves:
        raise UserError("there is no noise curve to summarise: give at least one")
    if len(curves) == 1:
        return curves[0].summary(over)
    summaries = [curve.summary() for curve in curves]
    first = summaries[0]
    for other in summaries[1:]:
        for column in ("sigma", "n_clips"):
            if other.frame[column].tolist() != first.frame[column].tolist():
                raise UserError(
                    f"curves of one experiment differ in {column} ({first.frame[column].tolist()} and"
                    f" {other.frame[column].tolist()}): measure all seeds alike"
                )
    stacked = {
        column: np.stack([summary.frame[column].to_numpy(dtype=float) for summary in summaries])
        for column in ("accuracy", "loss", "snr_db")
    }
    enough = len(curves) >= _FEWEST_SEEDS
    bounds = np.array(
        [
            student_t_interval(column.tolist()) if enough else (math.nan, math.nan)
            for column in stacked["accuracy"].T
        ]
    )
    frame = first.frame.assign(
        snr_db=stacked["snr_db"].mean(axis=0),
        accuracy=stacked["accuracy"].mean(axis=0),
        low=bounds[:, 0].clip(0, 1),
        high=bounds[:, 1].clip(0, 1),
        draws_low=math.nan,
        draws_high=math.nan,
        loss=stacked["loss"].mean(axis=0),
        n_seeds=len(curves),
    )
    shared = {
        key: value
        for key, value in first.settings.items()
        if all(key in summary.settings and summary.settings[key] == value for summary in summaries)
    }
    interval = f"95 % interval over {len(curves)} seeds, on these clips"
    if not enough:
        interval = f"{len(curves)} seeds, too few for an interval"
    return CurveSummary(frame, interval, shared)
