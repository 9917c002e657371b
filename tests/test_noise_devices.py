"""Memory devices: against their published equations, written once more in NumPy, and integrated numerically."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from programmed_weights import programmed
from torch import Tensor

from asr_dni.errors import UserError
from asr_dni.noise import (
    DEVICES,
    PCM,
    SONOS,
    Cells,
    GenericDevice,
    Hermes,
    PCMJoshi,
    ReRAMCMO,
    ReRAMMilo,
    ReRAMWan2022,
    StateIndependent,
)

DOUBLE = torch.float64
LEVELS = np.array([0.0, 0.25, 0.5, 1.0])
HOUR, DAY, YEAR = 3600.0, 86400.0, 365 * 86400.0
TIMES = {"1 s": 1.0, "1 h": HOUR, "1 day": DAY, "1 year": YEAR}
CHIPS_ROWS = 20_000

Array = np.ndarray[Any, np.dtype[np.float64]]


def clamped_log(r: Array, slope: float, offset: float, low: float, high: float) -> Array:
    return np.clip(slope * np.log(np.maximum(r, 1e-7)) + offset, low, high)


def power_law(
    g: Array,
    n: tuple[Array, ...],
    time: float,
    t0: float,
    t_read: float,
    top: float,
    laws: dict[str, Callable],
) -> Array:
    """Programming, drift and read of the PCM models, as hardware papers write them."""
    programming, drift, read = n
    g_prog = np.maximum(g + laws["s"](g / top) * programming, 0)
    t = time + t0
    nu = np.abs(laws["m"](g / top) + laws["v"](g / top) * drift)
    q = laws["q"](g_prog / top) * np.sqrt(np.log((t + t_read) / (2 * t_read)))
    g_drift = g_prog * (t / t0) ** -nu
    return np.maximum(g_drift + g_drift * q * read, 0)


PCM_LAWS = {
    "s": lambda r: 0.26348 + 1.9650 * r - 1.1731 * r**2,
    "m": lambda r: clamped_log(r, -0.0155, 0.0244, 0.049, 0.1),
    "v": lambda r: clamped_log(r, -0.0125, -0.0059, 0.008, 0.045),
    "q": lambda r: np.minimum(0.0088 / np.maximum(r, 1e-9) ** 0.65, 0.2),
}
HERMES_MEAN = lambda r: np.where(  # noqa: E731
    r < 0.0945, clamped_log(r, -0.0387, -0.0182, 0.072, 0.13), -0.0436 * r**2 - 0.0126 * r + 0.0736
)
HERMES_2 = {
    "s": lambda r: 0.16603222 + 4.71806468 * r - 8.48101252 * r**2 + 4.68961419 * r**3,
    "m": HERMES_MEAN,
    "v": lambda r: np.where(
        r < 0.3055, clamped_log(r, -0.0117, -0.0057, 0.0091, 0.04), -0.0118 * r**2 + 0.0093 * r + 0.0073
    ),
    "q": lambda r: np.where(
        r < 0.16,
        clamped_log(r, -0.0117, -0.0069, 0.015, 0.04),
        0.0069 * r**3 - 0.0280 * r**2 + 0.0211 * r + 0.0123,
    ),
}
HERMES_1 = {
    "s": lambda r: 0.15781817 + 2.32443916 * r - 2.16310839 * r**2 + 0.68841818 * r**3,
    "m": HERMES_MEAN,
    "v": lambda r: np.where(
        r < 0.3039, clamped_log(r, -0.0120, -0.0023, 0.0124, 0.04), -0.0165 * r**2 + 0.0116 * r + 0.0104
    ),
    "q": lambda r: np.where(
        r < 0.1591,
        clamped_log(r, -0.0078, 0.0038, 0.0179, 0.04),
        0.0664 * r**3 - 0.1352 * r**2 + 0.0768 * r + 0.0088,
    ),
}
CONSTANT = {
    "s": lambda r: 0.2 + 0 * r,
    "m": lambda r: 0.1 + 0 * r,
    "v": lambda r: 0.05 + 0 * r,
    "q": lambda r: 1 / 25 + 0 * r,
}
OWN = {
    "s": lambda r: 0.04 * r,
    "m": lambda r: 0.06 + 0 * r,
    "v": lambda r: 0.01 + 0 * r,
    "q": lambda r: 0.02 + 0 * r,
}


def wan(g: Array, n: tuple[Array, ...], time: float) -> Array:
    tables = np.array(
        [
            [0.348, 16.030, -43.853, 45.393, -16.815],
            [0.701, 22.086, -50.773, 47.095, -16.458],
            [0.782, 20.274, -43.507, 37.062, -11.934],
        ]
    )
    coefficients = [np.interp(math.log(time), np.log([1, DAY, 2 * DAY]), its) for its in tables.T]
    return np.maximum(g + np.polynomial.Polynomial(coefficients)(g / 40) * n[0], 0)


def cmo(g: Array, n: tuple[Array, ...], time: float) -> Array:
    g = np.maximum(g + (0.01129027 * g + 0.01121854) * n[0], 0)
    if time == 0:
        return g
    g = g - 0.08900206 * math.log(time) + (0.04201137 * math.log(time) + 0.41183342) * n[1]
    read = 0.0277316483 * np.log10(np.maximum(g, 1)) * math.sqrt(math.log((time + 1e-6) / 2e-6))
    return np.clip(g + read * n[2], 9.0, 88.2)


def sonos(current: Array, n: tuple[Array, ...], time: float) -> Array:
    first = min(int(time / DAY), 4)
    share = time / DAY - first
    (a0, b0), (a1, b1) = SONOS.SATURATIONS[first : first + 2]
    shifts = [np.polynomial.Polynomial(its)(current) for its in SONOS.DRIFTS[first : first + 2]]
    a, b = a0 + share * (a1 - a0), b0 + share * (b1 - b0)
    current = current + shifts[0] + share * (shifts[1] - shifts[0])
    current = np.maximum(current + np.maximum(a * (1 - np.exp(-current / b)), 0) * n[0], 0)
    return np.maximum(current + 12.58037 * (1 - np.exp(-current / 215.36557)) * n[2], 0)


def of_laws(laws: dict[str, Callable], t0: float, t_read: float, top: float) -> Callable:
    return lambda g, n, time: power_law(g, n, time, t0, t_read, top, laws)


CASES: dict[str, tuple[type[Cells], dict[str, Any], Callable, dict[str, float]]] = {
    "PCM": (PCM, {}, of_laws(PCM_LAWS, 20, 250e-9, 25), TIMES),
    "Hermes, 2": (Hermes, {}, of_laws(HERMES_2, 300, 512e-9, 20.7), TIMES),
    "Hermes, 1": (Hermes, {"devices": 1}, of_laws(HERMES_1, 200, 512e-9, 10.35), TIMES),
    "StateIndependent": (StateIndependent, {}, of_laws(CONSTANT, 20, 250e-9, 25), TIMES),
    "GenericDevice": (
        GenericDevice,
        {
            "sigma": 0.04,
            "law": "proportional",
            "nu": 0.06,
            "nu_std": 0.01,
            "read_noise": 0.02,
            "first_read": 5.0,
        },
        of_laws(OWN, 5, 250e-9, 1),
        TIMES,
    ),
    "ReRAMWan2022": (ReRAMWan2022, {}, wan, {"1 s": 1.0, "1 h": HOUR, "1 day": DAY, "2 days": 2 * DAY}),
    "ReRAMCMO": (ReRAMCMO, {}, cmo, {"0 s": 0.0, **TIMES}),
    "SONOS": (SONOS, {}, sonos, {"0 s": 0.0, "1 h": HOUR, "2.5 days": 2.5 * DAY, "5 days": 5 * DAY}),
    "PCMJoshi": (
        PCMJoshi,
        {},
        lambda g, n, time: np.maximum(g + (-0.00178767 * g**2 + 0.07585724 * g + 0.28638599) * n[0], 0),
        {"": 0.0},
    ),
    "ReRAMMilo": (ReRAMMilo, {}, lambda g, n, time: g + (4.782321 - 0.009107 * g) * n[0], {"": 0.0}),
}
EVERY = [
    pytest.param(kind(**beside, **({"time": time} if when else {})), law, time, id=f"{name} {when}")
    for name, (kind, beside, law, times) in CASES.items()
    for when, time in times.items()
]


def test_every_device_has_a_case():
    assert {kind.__name__ for kind, *_ in CASES.values()} | {"StuckCells"} == set(DEVICES)


@pytest.mark.parametrize(("model", "law", "time"), EVERY)
def test_the_equation_is_the_published_one(model, law, time):
    """Device by device, of given random numbers."""
    numbers = dict(zip(("programming", "drift", "read"), (1.3, -0.7, 0.4), strict=True))
    g = model.g_min + LEVELS * (model.g_max - model.g_min)
    _, now = model.conductances(
        torch.tensor(g), lambda purpose: torch.full((4,), numbers[purpose], dtype=DOUBLE)
    )
    np.testing.assert_allclose(now.numpy(), law(g, tuple(numbers.values()), time), rtol=1e-6)


@pytest.mark.parametrize(("model", "law", "time"), EVERY)
def test_weights_on_chips_have_mean_and_variance_of_the_device(model, law, time):
    """20,000 pairs at each of four weights; 8 comparisons, each with a false alarm in 1e-6 cases.

    Mean and variance are integrals over the random numbers, on a grid of 0.2 to ±7.
    """
    places = np.arange(-7, 7.1, 0.2)
    density = np.exp(-(places**2) / 2) / np.exp(-(places**2) / 2).sum()
    grid = np.meshgrid(places, places, places, indexing="ij", sparse=True)
    probability = density[:, None, None] * density[None, :, None] * density[None, None, :]

    def moments(g: float) -> tuple[float, float]:
        values = np.broadcast_to(law(np.array(g), tuple(grid), time), probability.shape)
        mean = float((values * probability).sum())
        return mean, float(((values - mean) ** 2 * probability).sum())

    span = model.g_max - model.g_min
    got = programmed(model, torch.tensor(LEVELS).expand(CHIPS_ROWS, 4).clone()).numpy()
    for r, weights in zip(LEVELS, got.T, strict=True):
        mean, variance = moments(model.g_min + r * span)
        if model.paired:
            off_mean, off_variance = moments(model.g_min)
            mean, variance = mean - off_mean, variance + off_variance
        else:
            mean = mean - model.g_min
        squares = (weights - mean / span) ** 2
        standard_error = weights.std() / math.sqrt(CHIPS_ROWS)
        assert abs(weights.mean() - mean / span) < 4.9 * standard_error + 1e-9
        assert abs(squares.mean() - variance / span**2) < 4.9 * squares.std() / math.sqrt(CHIPS_ROWS) + 1e-9


class TestWhereSourcesDisagree:
    """The decisions that the docstrings state."""

    def test_the_linear_coefficient_of_pcm(self):
        at_max = float(PCM().programming_std(torch.tensor(25.0, dtype=DOUBLE)))
        assert at_max == pytest.approx(0.26348 + 1.9650 - 1.1731)
        assert at_max / (0.26348 + 25 * 0.0768 - 1.1731) == pytest.approx(1.0446, abs=1e-4)

    def test_wan_is_in_units_of_its_own_largest_conductance(self):
        std = ReRAMWan2022().programming_std(torch.tensor([0.0, 10.0, 20.0, 40.0], dtype=DOUBLE))
        np.testing.assert_allclose(std, [0.348, 2.258, 2.023, 1.103], atol=6e-4)
        cross_sim = np.polynomial.Polynomial([1.053, 0.2374, -1.167e-2, 1.536e-4])(np.array([0, 10, 20, 40]))
        assert (std.numpy() < cross_sim).all()

    def test_an_acceptance_that_is_not_in_the_table_is_refused(self):
        g = torch.tensor([9.0, 88.2], dtype=DOUBLE)
        np.testing.assert_allclose(ReRAMCMO().programming_std(g), 0.01129027 * g + 0.01121854, rtol=1e-6)
        fine = ReRAMCMO(acceptance="0.2%").programming_std(g)
        np.testing.assert_allclose(fine, 0.00106879 * g + 0.00081107)
        with pytest.raises(UserError, match=r"acceptance is 0.02: give 2% or 0.2%"):
            ReRAMCMO(acceptance=2e-2)  # type: ignore[arg-type]

    def test_the_two_fits_of_pcm(self):
        g = torch.tensor([0.0, 12.5, 25.0], dtype=DOUBLE)
        np.testing.assert_allclose(
            PCMJoshi().programming_std(g) / PCM().programming_std(g), [1.087, 1.003, 1.010], atol=6e-4
        )

    def test_what_sonos_loses_does_not_follow_time_at_its_upper_end(self):
        g = torch.tensor([1400.0, 1600.0], dtype=DOUBLE)
        lost = [g - SONOS(time=day * DAY).conductances(g, lambda _: torch.zeros(2))[1] for day in range(1, 6)]
        at_1400, at_1600 = torch.stack(lost).T
        np.testing.assert_allclose(at_1400, [39, 46, 55, 60, 60], atol=0.5)
        np.testing.assert_allclose(at_1600, [246, 98, 197, 160, 118], atol=0.5)

    def test_pcm_is_first_read_after_20_seconds(self):
        def nothing(purpose: str) -> Tensor:
            return torch.zeros(1, dtype=DOUBLE)

        _, now = PCM(time=20.0).conductances(torch.tensor([25.0], dtype=DOUBLE), nothing)
        assert float(now) == pytest.approx(25 * 2**-0.049)

    def test_read_noise_follows_the_programmed_conductance(self):
        numbers = {"programming": -5.0, "drift": 0.0, "read": 1.0}
        g = torch.tensor([6.25], dtype=DOUBLE)
        before, now = PCM().conductances(g, lambda purpose: torch.full((1,), numbers[purpose], dtype=DOUBLE))
        share = float(now / before) - 1
        flicker = math.sqrt(math.log((20 + 250e-9) / 500e-9))
        assert flicker == pytest.approx(4.18, abs=0.01)
        assert share == pytest.approx(0.0088 / (float(before) / 25) ** 0.65 * flicker)
        assert abs(share / (0.0088 / 0.25**0.65 * flicker) - 1) > 0.3

    def test_at_time_0_nothing_has_drifted_and_reads_are_noisy(self):
        weight = torch.ones(CHIPS_ROWS, 1, dtype=DOUBLE)
        std = float(programmed(PCM(), weight).std())
        programming = float(PCM().programming_std(torch.tensor(25.0))) / 25
        read, other = 0.0088 * 4.18, 0.27 / 25
        assert std == pytest.approx(math.hypot(programming, read, 0.58 * other), rel=0.03)

    @pytest.mark.parametrize(
        ("kind", "time", "message"),
        [
            (ReRAMWan2022, 0.5, r"known from 1 to 172800 s after programming: time is 0.5"),
            (ReRAMWan2022, 3 * DAY, r"known from 1 to 172800 s"),
            (SONOS, 6 * DAY, r"known from 0 to 432000 s"),
            (ReRAMCMO, 0.5, r"known at 0 s, right after programming, and from 1 s on"),
            (PCM, -1.0, r"time is -1.0: give a finite number of at least 0"),
        ],
    )
    def test_times_without_measurements_are_refused(self, kind, time, message):
        with pytest.raises(UserError, match=message):
            kind(time=time)
