"""Parametrised products of which the default tests take a part that covers them, and the slow ones the rest."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest


def thinned(strength: int, **axes: Sequence[Any]) -> pytest.MarkDecorator:
    """Parametrise a test with the product of some axes, all but a covering part of which is slow.

    Args:
        strength: of how many axes every combination of values is among the default tests: 1, every value; 2, every
            pair of values; and so on.
        **axes: the values of each of the test's arguments.
    """
    sizes = [len(values) for values in axes.values()]
    chosen = covering(strength, sizes)
    cases = [
        pytest.param(
            *(values[k] for values, k in zip(axes.values(), place, strict=True)),
            marks=() if place in chosen else pytest.mark.slow,
        )
        for place in itertools.product(*map(range, sizes))
    ]
    return pytest.mark.parametrize(tuple(axes), cases)


def covering(strength: int, sizes: Sequence[int]) -> set[tuple[int, ...]]:
    """Return few points of a grid that have every combination of values of any ``strength`` axes; always the same."""
    points = list(itertools.product(*map(range, sizes)))
    random.Random(0).shuffle(points)
    axes = list(itertools.combinations(range(len(sizes)), strength))
    has = {point: {(some, tuple(point[axis] for axis in some)) for some in axes} for point in points}
    missing = set().union(*has.values())
    chosen: set[tuple[int, ...]] = set()
    while missing:
        best = max(points, key=lambda point: len(has[point] & missing))
        chosen.add(best)
        missing -= has[best]
    return chosen
