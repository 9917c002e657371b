"""How far confidence can be trusted under noise: the expected calibration error, before and after temperature scaling.

ECE = sum over bins of |accuracy - mean confidence| times the bin's share of the decisions, the confidence being the
largest posterior (C. Guo et al., ICML 2017). Temperature scaling divides logits by the temperature that maximises the
likelihood; here that of one half of the clips serves the other half, so that no clip is judged by a temperature
that was chosen on it.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import binary_calibration_error

from asr_dni.evaluation.measurement.outcomes import Outcomes

BINS = 15
"""Of the confidence, of equal width from 0 to 1."""

_TEMPERATURES = (0.05, 20.0)


def calibration_error(confidence: Tensor, right: Tensor, bins: int = BINS) -> float:
    """Return the expected calibration error.

    Args:
        confidence: ``(*)`` from 0 to 1.
        right: ``(*)`` whether the decision is.
        bins: of equal width.
    """
    return binary_calibration_error(confidence.flatten().double(), right.flatten().long(), n_bins=bins).item()


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature that maximises the likelihood of labels, 0.05 to 20.

    Args:
        logits: ``(*, N, C)``.
        labels: ``(N,)``.
    """
    targets = labels.expand(logits.shape[:-1]).reshape(-1)
    flat = logits.flatten(0, -2)

    def loss(log_temperature: float) -> float:
        return cross_entropy(flat / float(np.exp(log_temperature)), targets).item()

    found = minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x))


def calibration_table(outcomes: Iterable[Outcomes], bins: int = BINS) -> pd.DataFrame:
    """Return the calibration error of each chip at each strength, its draws pooled.

    Returns:
        The table ``calibration`` of :data:`~asr_dni.evaluation.questions.folder.TABLES`; ``temperature`` is the
        geometric mean of those of the two halves (by the clips' identities). With all clips in one half there is none.
    """
    rows = []
    for level in outcomes:
        halves = [level.clip_ids % 2 == 0, level.clip_ids % 2 == 1]
        for chip, logits in enumerate(level.logits):
            confidence = logits.softmax(-1).amax(-1)
            right = level.right[chip]
            scaled, temperatures = confidence.clone(), []
            for own, other in (halves, halves[::-1]):
                if not (own.any() and other.any()):
                    temperatures.append(float("nan"))
                    continue
                temperatures.append(fit_temperature(logits[:, other], level.labels[other]))
                scaled[:, own] = (logits[:, own] / temperatures[-1]).softmax(-1).amax(-1)
            temperature = float(np.exp(np.mean(np.log(temperatures))))
            rows.append(
                {
                    "strength": level.strength,
                    "chip": chip,
                    "ece": calibration_error(confidence, right, bins),
                    "ece_scaled": float("nan")
                    if np.isnan(temperature)
                    else calibration_error(scaled, right, bins),
                    "temperature": temperature,
                    "confidence": confidence.double().mean().item(),
                    "accuracy": right.double().mean().item(),
                }
            )
    return pd.DataFrame(rows)


def reliability_table(outcomes: Iterable[Outcomes], bins: int = BINS) -> pd.DataFrame:
    """Return accuracy by confidence, chips and draws pooled.

    Returns:
        The table ``reliability`` of :data:`~asr_dni.evaluation.questions.folder.TABLES`; bins without decisions have
        no row.
    """
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    rows = []
    for level in outcomes:
        confidence, right = level.posteriors.amax(-1).flatten().double(), level.right.flatten()
        # As torchmetrics has them: a bin's lower edge belongs to it.
        place = (torch.bucketize(confidence, edges, right=True) - 1).clamp(0, bins - 1)
        for number in sorted(set(place.tolist())):
            inside = place == number
            rows.append(
                {
                    "strength": level.strength,
                    "low": edges[number].item(),
                    "high": edges[number + 1].item(),
                    "count": int(inside.sum()),
                    "confidence": confidence[inside].mean().item(),
                    "accuracy": right[inside].double().mean().item(),
                }
            )
    return pd.DataFrame(rows)
