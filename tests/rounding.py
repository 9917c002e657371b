"""Equality of what is the same but for the rows that stand beside it in a matrix product."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor


@cache
def rows_are_rounded_alike() -> bool:
    """Return whether this machine's matrix library rounds a row of a product alike, whatever rows stand beside it.

    MKL does so on Intel's processors, and not on all others.
    """
    generator = torch.Generator().manual_seed(0)
    for inner, outer in ((13, 37), (37, 148), (40, 13), (80, 40)):
        rows = torch.randn(400, inner, generator=generator)
        matrix = torch.randn(inner, outer, generator=generator)
        together = rows @ matrix
        if not all(torch.equal(together[:n], rows[:n] @ matrix) for n in (2, 3, 8, 23, 100)):
            return False
    return True


def rounded(expected: Any) -> Any:
    """Return what numbers are to equal: the last bit where rows are rounded alike, else a millionth of each."""
    return expected if rows_are_rounded_alike() else pytest.approx(expected, rel=1e-6)


def assert_same(found: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    """Check that tensors are the same: to the last bit where rows are rounded alike, else up to rounding."""
    if rows_are_rounded_alike():
        assert torch.equal(found, expected)
    else:
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=atol)
