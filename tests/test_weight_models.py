"""Weights on memory devices: mapping, compensation, stuck cells, clipping, levels, ages and populations."""

import math

import numpy as np
import pytest
import torch
from programmed_weights import programmed

from asr_dni.errors import UserError
from asr_dni.nn import NoisyLinear, NoisyLSTM, stack_networks
from asr_dni.noise import (
    DEVICES,
    PCM,
    SONOS,
    ClippedWeights,
    GenericDevice,
    Hardware,
    Hermes,
    QuantisedWeights,
    Realisation,
    Strength,
    StuckCells,
)

DOUBLE = torch.float64
LEVELS = np.array([0.0, 0.25, 0.5, 1.0])
HOUR, DAY, YEAR = 3600.0, 86400.0, 365 * 86400.0
TIMES = (1.0, HOUR, DAY)
CHIPS_ROWS = 20_000


@pytest.fixture(autouse=True)
def weights_of_every_run_are_the_same():
    torch.manual_seed(0)


class TestWeights:
    def test_a_device_without_errors_gives_the_weights(self):
        weight = torch.randn(30, 20, dtype=DOUBLE)
        for kind in DEVICES.values():
            if kind is not StuckCells:
                exact = kind(sigma=0.0)
                assert exact.neutral
                aged = {"time": 100.0} if hasattr(exact, "time") else {}
                numbers = {"programming": 1.0, "drift": 1.0, "read": 1.0}
                g = exact.g_min + torch.rand(9, dtype=DOUBLE) * (exact.g_max - exact.g_min)
                _, now = kind(sigma=0.0, **aged).conductances(
                    g, lambda purpose, given=numbers: given[purpose]
                )
                torch.testing.assert_close(now, g)
                torch.testing.assert_close(programmed(exact, weight), weight)

    @pytest.mark.parametrize("per", ["tensor", "output"])
    def test_the_largest_weight_of_the_matrix_or_of_each_output_is_at_g_max(self, per):
        """Errors of a state-independent device are the same share of w_max everywhere; alarms 1e-6."""
        columns = 1000
        weight = torch.rand(2, columns, dtype=DOUBLE) * 0.5 + 0.25
        weight[0] *= 10
        weight[:, 0] = torch.tensor([10.0, 1.0])
        model = GenericDevice(sigma=0.01, per=per)
        errors = (programmed(model, weight) - weight).std(1)
        expected = (
            torch.tensor([10.0, 1.0 if per == "output" else 10.0]) * 0.01 * math.sqrt(1.5 - 0.5 / math.pi)
        )
        np.testing.assert_allclose(errors, expected, rtol=4.9 / math.sqrt(2 * columns))

    @pytest.mark.parametrize("distribution", ["normal", "uniform"])
    @pytest.mark.parametrize(
        ("law", "shape"),
        [("absolute", lambda g: 1 + 0 * g), ("proportional", lambda g: g), ("inverse", lambda g: 1 / g)],
    )
    def test_generic_laws(self, law, shape, distribution):
        """Without the other device of the pair, whose part is known; 20,000 each, alarms 1e-6."""
        off = {"absolute": 0.5 - 0.5 / math.pi, "proportional": 0.0, "inverse": 0.0}[law]
        if distribution == "uniform" and law == "absolute":
            off = 0.5 - 3 / 16  # of max(0, U), U uniform in ±sqrt(3)
        model = GenericDevice(sigma=0.02, law=law, distribution=distribution)
        got = programmed(model, torch.tensor(LEVELS).expand(CHIPS_ROWS, 4).clone()).numpy()[:, 1:]
        expected = 0.02 * np.sqrt(shape(LEVELS[1:]) ** 2 + off)
        np.testing.assert_allclose(got.std(0), expected, rtol=4.9 / math.sqrt(2 * CHIPS_ROWS))
        if distribution == "uniform" and law != "absolute":
            largest = np.abs(got - LEVELS[1:]).max(0) / (0.02 * shape(LEVELS[1:]))
            np.testing.assert_allclose(largest, math.sqrt(3), rtol=1e-2)
            assert (largest <= math.sqrt(3)).all()

    @pytest.mark.parametrize("compensation", ["tensor", "output"])
    def test_compensation_brings_the_read_out_back(self, compensation):
        """mean abs(W) of the matrix or of each row; drift alone, so that it is what was programmed."""
        weight = torch.randn(6, 500, dtype=DOUBLE)
        drifting = {"nu": 0.06, "nu_std": 0.02}
        before = programmed(GenericDevice(time=0.0, **drifting), weight)
        after = programmed(GenericDevice(time=DAY, compensation=compensation, **drifting), weight)
        without = programmed(GenericDevice(time=DAY, **drifting), weight)
        over = (0, 1) if compensation == "tensor" else 1
        torch.testing.assert_close(after.abs().mean(over), before.abs().mean(over))
        assert float((without - weight).square().mean()) > 4 * float((after - weight).square().mean())
        factor = before.abs().mean(over, keepdim=True) / without.abs().mean(over, keepdim=True)
        torch.testing.assert_close(after / without, factor.expand(6, 500))

    def test_a_chip_keeps_its_devices_over_time(self):
        """nu is drawn once: of two times of one chip the devices that have lost most are the same."""
        weight = torch.ones(50, 40, dtype=DOUBLE)
        losses = [
            programmed(GenericDevice(nu=0.06, nu_std=0.02, time=time), weight).log()
            / math.log((time + 20) / 20)
            for time in (HOUR, DAY)
        ]
        torch.testing.assert_close(*losses)

    def test_stuck_cells(self):
        """Rates of 20,000 pairs of w_max / 2, standard errors of the binomial distribution; alarms 1e-6 each."""
        weight = torch.full((CHIPS_ROWS, 2), 0.5, dtype=DOUBLE)
        weight[:, 1] = 1.0
        zero, most = 0.1, 0.05
        got = programmed(StuckCells(stuck_at_zero=zero, stuck_at_max=most), weight)[:, 0].numpy().round(6)
        fine = 1 - zero - most
        expected = {
            0.5: fine * (1 - most),
            0.0: zero * (1 - most) + most * most,
            1.0: most * (1 - most),
            -0.5: fine * most,
            -1.0: zero * most,
        }
        assert set(got) == set(expected)
        for value, rate in expected.items():
            error = math.sqrt(rate * (1 - rate) / CHIPS_ROWS)
            assert abs((got == value).mean() - rate) < 4.9 * error + 1e-12
        more = programmed(StuckCells(stuck_at_zero=2 * zero, stuck_at_max=most), weight)[:, 0].numpy()
        assert not more[got == 0.0].any()

    def test_stuck_devices_of_any_kind(self):
        weight = torch.ones(CHIPS_ROWS, 1, dtype=DOUBLE)
        got = programmed(PCM(time=DAY, stuck_at_zero=0.2), weight)
        assert float((got <= 0.02).double().mean()) == pytest.approx(
            0.2, abs=4.9 * 0.4 / math.sqrt(CHIPS_ROWS)
        )

    def test_clipped_weights(self):
        weight = torch.randn(4, 1000, dtype=DOUBLE) * torch.tensor([[1.0], [2.0], [3.0], [4.0]], dtype=DOUBLE)
        got = programmed(ClippedWeights(2.0), weight)
        bound = 2 * weight.std(unbiased=False)
        torch.testing.assert_close(got, weight.clamp(-bound, bound))
        rows = 2 * weight.std(1, unbiased=False, keepdim=True)
        torch.testing.assert_close(
            programmed(ClippedWeights(2.0, per="output"), weight), weight.maximum(-rows).minimum(rows)
        )

    def test_quantised_weights(self):
        weight = torch.linspace(-2, 2, 4000, dtype=DOUBLE).view(4, 1000)
        got = programmed(QuantisedWeights(5), weight)
        step = float(weight.abs().max()) / 4
        torch.testing.assert_close(got, (weight / step).round() * step)
        assert len(got.unique()) == 9
        with pytest.raises(UserError, match="have 1 levels: give a whole number of at least 2"):
            QuantisedWeights(1)

    def test_models_follow_each_other(self):
        """Clipping first decides what g_max stands for."""
        weight = torch.randn(40, 50, dtype=DOUBLE)
        weight[0, 0] = 100.0
        noisy, calmer = PCM(), (ClippedWeights(2.5), PCM())
        layer = NoisyLinear(50, 40, bias=False, dtype=DOUBLE)
        errors = []
        for model in (noisy, calmer):
            with torch.no_grad():
                layer.weight.copy_(weight)
            with layer.under(Hardware(weight=model)), torch.no_grad():
                errors.append(float((layer(torch.eye(50, dtype=DOUBLE)).T - weight)[1:].abs().mean()))
        assert errors[1] < errors[0] / 5

    def test_time_is_a_strength_in_seconds(self):
        hardware = Hardware(weight=(ClippedWeights(), PCM()))
        assert str(hardware.axis(Strength("weight.time"))) == "weight.time [s]"
        assert hardware.at(DAY, Strength("weight.time")).weight[1] == PCM(time=DAY)
        with pytest.raises(UserError, match=r"weight.time: SONOS is known"):
            Hardware(weight=SONOS()).at(YEAR, Strength("weight.time"))

    def test_members_of_a_population_may_be_of_different_age(self):
        torch.manual_seed(0)
        layer, x = NoisyLSTM(3, 4, dtype=DOUBLE), torch.randn(5, 2, 3, dtype=DOUBLE)
        chips = stack_networks([layer] * 3)
        hardware = [Hardware(weight=PCM(time=time)) for time in TIMES]
        with chips.under(hardware, [Realisation(chip=chip) for chip in range(3)]):
            together = chips(x)[0]
        for chip, (its, output) in enumerate(zip(hardware, together, strict=True)):
            with layer.under(its, Realisation(chip=chip)):
                torch.testing.assert_close(output, layer(x)[0], atol=1e-9, rtol=0)

    @pytest.mark.parametrize(
        ("kind", "settings", "message"),
        [
            (PCM, {"per": "row"}, "per 'row': give tensor or output"),
            (PCM, {"sigma": -1}, "sigma is -1"),
            (PCM, {"compensation": "global"}, "compensation is 'global': give none, tensor or output"),
            (PCM, {"stuck_at_zero": 0.6, "stuck_at_max": 0.5}, "together at most 1"),
            (Hermes, {"devices": 3}, "3 devices per side: give 1 or 2"),
            (GenericDevice, {"law": "linear"}, "law is 'linear'"),
            (GenericDevice, {"distribution": "gamma"}, "distribution is 'gamma'"),
            (GenericDevice, {"first_read": 0}, "first_read 0: give a read_time above 0"),
        ],
    )
    def test_mistakes_are_one_line(self, kind, settings, message):
        with pytest.raises(UserError, match=message) as raised:
            kind(**settings)
        assert "\n" not in str(raised.value)
