"""Accuracy between the strengths that were measured: taken to be linear."""

import math

import numpy as np
import numpy.typing as npt


def first_at_or_below(places: npt.ArrayLike, values: npt.ArrayLike, threshold: float) -> float:
    """Return where values first fall to a threshold, going up from the lowest place.

    Args:
        places: ascending, N.
        values: N.
        threshold: the value that is looked for.

    Returns:
        The place, between measured ones by linear interpolation; the first place where the values begin at or below
        the threshold, inf where none falls so far, NaN where a value is missing.
    """
    x, y = np.asarray(places, dtype=float), np.asarray(values, dtype=float)
    if not np.isfinite(y).all():
        return math.nan
    below = np.flatnonzero(y <= threshold)
    if not below.size:
        return math.inf
    after = int(below[0])
    if after == 0:
        return float(x[0])
    share = (y[after - 1] - threshold) / (y[after - 1] - y[after])
    return float(x[after - 1] + share * (x[after] - x[after - 1]))


def weights_of_mean(places: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the weights, N, that values at these places have in their mean from the lowest to the highest of them.

    They are those of the trapezoidal rule, divided by the distance; their sum is 1.

    Args:
        places: ascending, N, at least one.
    """
    x = np.asarray(places, dtype=float)
    if len(x) == 1:
        return np.ones(1)
    weights: npt.NDArray[np.float64] = np.convolve(np.diff(x), [0.5, 0.5]) / (x[-1] - x[0])
    return weights
