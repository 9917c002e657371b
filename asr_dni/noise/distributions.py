"""Other distributions, made of standard normal numbers, so that all random numbers are named and drawn in one way."""

from statistics import NormalDist

import torch
from torch import Tensor


def as_uniform(normal: Tensor) -> Tensor:
    """Return uniform numbers between 0 and 1: the normal distribution's value at each number.

    Near 0 they are as fine as the dtype is; near 1 in steps of its epsilon.
    """
    uniform: Tensor = torch.special.ndtr(normal)
    return uniform


def as_laplace(normal: Tensor) -> Tensor:
    """Return numbers of a Laplace distribution of mean 0 and variance 1, with the signs of the normal ones."""
    # erfc takes a tenth of the time of log_ndtr, and is not 0 in float32 for any normal number that is drawn.
    exact = normal if normal.dtype == torch.float64 else normal.float()
    exponential = -torch.erfc(exact.abs() * 0.5**0.5).log()
    laplace: Tensor = exact.sign() * exponential * 0.5**0.5
    return laplace.to(normal.dtype)


def standard_normal_quantile(share: float) -> float:
    """Return the number that a standard normal one is below with this probability; of 0 and 1 the infinities."""
    if share <= 0:
        return -float("inf")
    return NormalDist().inv_cdf(share) if share < 1 else float("inf")
