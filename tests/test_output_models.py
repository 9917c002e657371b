"""Output models: distributions against SciPy's, and noise that is correlated in time against its closed form."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
import yaml
from torch import Tensor

from asr_dni.errors import UserError
from asr_dni.nn import NoisyLinear, NoisyLSTM, calibrate, snr_db, stack_networks
from asr_dni.noise import (
    AdditiveMultiplicative,
    FixedPattern,
    Flicker,
    Hardware,
    Impulse,
    Laplace,
    OutputModel,
    Realisation,
    Uniform,
)

DOUBLE = torch.float64
SIGMA = 0.3


def noisy(model: OutputModel, clean: Tensor, **realisation: object) -> Tensor:
    """Return what a model makes of clean outputs ``(N, T, out)``."""
    width = clean.shape[-1]
    layer = NoisyLinear(width, width, bias=False, dtype=clean.dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(width))
    with layer.under(Hardware(output=model), Realisation(**{"draw": 0, **realisation})), torch.no_grad():
        return layer(clean)


@pytest.mark.parametrize(
    ("model", "distribution"),
    [
        (Uniform(SIGMA), scipy.stats.uniform(-SIGMA * math.sqrt(3), 2 * SIGMA * math.sqrt(3))),
        (Laplace(SIGMA), scipy.stats.laplace(0, SIGMA / math.sqrt(2))),
        (Flicker(SIGMA), scipy.stats.norm(0, SIGMA)),
        (AdditiveMultiplicative(SIGMA), scipy.stats.norm(0, SIGMA)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_distributions(model, distribution, dtype):
    """Kolmogorov and Smirnov's test of 60,000 numbers; a false alarm in 1e-6 cases."""
    found = noisy(model, torch.zeros(200, 1, 300, dtype=dtype)).flatten().numpy()
    assert np.isfinite(found).all()
    assert scipy.stats.kstest(found, distribution.cdf).pvalue > 1e-6


def test_impulses_are_of_their_size_rate_and_both_signs():
    """Binomial tests of 60,000 outputs; a false alarm in 1e-6 cases each."""
    found = noisy(Impulse(2.0, rate=0.02), torch.zeros(200, 1, 300, dtype=DOUBLE)).flatten().numpy()
    assert set(found) == {-2.0, 0.0, 2.0}
    for size in (-2.0, 2.0):
        hits = int((found == size).sum())
        assert scipy.stats.binomtest(hits, len(found), 0.01).pvalue > 1e-6
    assert Impulse(2.0, rate=0.0).neutral
    assert set(noisy(Impulse(2.0, rate=1.0), torch.zeros(20, 1, 30)).flatten().tolist()) == {-2.0, 2.0}


@pytest.mark.parametrize("order", ["multiplicative_first", "additive_first"])
def test_both_kinds_at_once(order):
    """Variances at outputs of 0, 1 and 5; 20,000 each: standard error 1 %, alarms 1e-6."""
    clean = torch.tensor([0.0, 1.0, 5.0], dtype=DOUBLE).expand(20_000, 1, 3)
    errors = (noisy(AdditiveMultiplicative(SIGMA, ratio=0.5, order=order), clean) - clean).numpy()[:, 0]
    gain = 0.5 * SIGMA
    expected = (gain * np.array([0, 1, 5])) ** 2 + SIGMA**2 * (1 + gain**2 * (order == "additive_first"))
    np.testing.assert_allclose((errors**2).mean(0), expected, rtol=4.9 * 0.0105)


class TestFlicker:
    def test_autocovariance_and_spectrum_are_the_stated_ones(self):
        """Averaged over 15,000 series of 2 periods: no lag and no frequency is off by 4.9 standard errors."""
        octaves, samples, width = 5, 50, 300
        steps = 2 * 2 ** (octaves - 1)
        x = noisy(Flicker(1.0, octaves=octaves), torch.zeros(samples, steps, width, dtype=DOUBLE)).numpy()
        series = x.transpose(0, 2, 1).reshape(-1, steps)
        held = 2.0 ** np.arange(octaves)
        period = steps // 2
        for lag in range(period + 1):
            products = (series[:, :period] * series[:, lag : lag + period]).mean(1)
            expected = np.maximum(0, 1 - lag / held).mean()
            assert abs(products.mean() - expected) < 4.9 * products.std() / math.sqrt(len(products))
        # The spectrum is the transform of the autocovariance, lag by lag: a closed form against another.
        frequencies = np.linspace(0.01, 0.5, 50)
        lags = np.arange(-period, period + 1)
        covariance = np.maximum(0, 1 - np.abs(lags)[:, None] / held).mean(1)
        transform = (covariance[:, None] * np.cos(2 * np.pi * lags[:, None] * frequencies)).sum(0)
        pi_f = np.pi * frequencies[:, None]
        np.testing.assert_allclose(
            transform, (np.sin(pi_f * held) ** 2 / (held * np.sin(pi_f) ** 2)).mean(1), atol=1e-12
        )

    def test_the_spectrum_falls_like_1_over_f(self):
        """A slope of -1 from 2**-8 to 2**-2 cycles per step, of 600 series: the fit's own error is below 0.02."""
        octaves = 10
        x = noisy(Flicker(1.0, octaves=octaves), torch.zeros(4, 2**12, 150, dtype=DOUBLE)).numpy()
        power = (np.abs(np.fft.rfft(x, axis=1)) ** 2).mean((0, 2))[1:]
        frequencies = np.fft.rfftfreq(2**12)[1:]
        bands = 2.0 ** np.arange(-8, -1)
        means = [
            power[(frequencies > band / 2**0.5) & (frequencies <= band * 2**0.5)].mean() for band in bands
        ]
        slope = np.polyfit(np.log(bands), np.log(means), 1)[0]
        assert slope == pytest.approx(-1, abs=0.1)

    def test_each_number_is_its_samples_and_steps(self):
        """Whatever the batch and the chunk."""
        model, clean = Flicker(1.0, octaves=6), torch.zeros(4, 50, 3)
        whole = noisy(model, clean, sample_ids=torch.tensor([3, 9, 2**40, -1]))
        for first, last in ((0, 1), (7, 20), (49, 50), (13, 14)):
            part = noisy(model, clean[2:, first:last], sample_ids=torch.tensor([2**40, -1]), first_step=first)
            assert torch.equal(part, whole[2:, first:last])
        assert noisy(model, clean[:, :0]).shape == (4, 0, 3)

    def test_in_an_lstm_too(self):
        torch.manual_seed(0)
        layer, x = NoisyLSTM(3, 4), torch.randn(20, 2, 3)
        hardware = Hardware(output=Flicker(0.5))
        with layer.under(hardware, Realisation(draw=0)):
            whole, _ = layer(x)
            first, state = layer(x[:7])
        with layer.under(hardware, Realisation(draw=0, first_step=7)):
            second, _ = layer(x[7:], state)
        torch.testing.assert_close(torch.cat((first, second)), whole)

    @pytest.mark.parametrize("octaves", [0, 25, 2.5])
    def test_octaves_out_of_range(self, octaves):
        with pytest.raises(UserError, match="octaves"):
            Flicker(1.0, octaves=octaves)


class TestFixedPattern:
    def test_gain_and_offset_of_a_column_over_chips(self):
        """Of 400 chips of 30 columns; 12,000 numbers: standard error 1.3 %, alarms 1e-6."""
        clean = torch.stack((torch.zeros(30), torch.ones(30))).double()[None]
        model = FixedPattern(0.2, gain=0.1)
        chips = torch.cat([noisy(model, clean, chip=chip) for chip in range(400)])
        offset = chips[:, 0]
        gain = chips[:, 1] - chips[:, 0] - 1
        assert float(offset.square().mean()) == pytest.approx(0.04, rel=4.9 * 0.013)
        assert float(gain.square().mean()) == pytest.approx(0.01, rel=4.9 * 0.013)
        assert abs(float(torch.corrcoef(torch.stack((offset.flatten(), gain.flatten())))[0, 1])) < 4.9 / 109

    def test_arrays_of_a_matrix_have_their_own(self):
        layer = NoisyLinear(4, 5, bias=False, dtype=DOUBLE)
        with layer.under(Hardware(output=FixedPattern(0.2), tile=2)), torch.no_grad():
            two = layer(torch.zeros(1, 4, dtype=DOUBLE))
        with layer.under(Hardware(output=FixedPattern(0.2))), torch.no_grad():
            one = layer(torch.zeros(1, 4, dtype=DOUBLE))
        assert not torch.isclose(two, 2 * one).any()
        assert not torch.isclose(two, one).any()

    def test_snr_counts_it(self):
        torch.manual_seed(0)
        layer, x = NoisyLSTM(3, 6), torch.randn(5, 4, 3)
        calibrate(layer, [x])
        assert snr_db(layer, Hardware(output=FixedPattern(gain=0.1))) == pytest.approx(20.0)


@pytest.mark.parametrize("kind", [Uniform, Laplace, Flicker])
def test_a_member_without_noise_needs_no_calibration(kind):
    """As it needs none for a Gaussian of sigma 0: the member that has noise knows its signal's size."""
    torch.manual_seed(0)
    members, x = [NoisyLSTM(3, 4), NoisyLSTM(3, 4)], torch.randn(5, 2, 3)
    calibrate(members[0], [x])
    population = stack_networks(members)
    hardware = [Hardware(output=kind(sigma, "signal")) for sigma in (0.3, 0.0)]
    with population.under(hardware, Realisation(draw=0)):
        noisy_one, clean_one = population(x)[0]
    torch.testing.assert_close(clean_one, members[1](x)[0])
    with members[0].under(hardware[0], Realisation(draw=0)):
        torch.testing.assert_close(noisy_one, members[0](x)[0])
    with population.under(hardware[::-1]), pytest.raises(UserError, match="calibrate"):
        population(x)


def test_a_number_that_yaml_takes_for_text_is_said_to_be_text():
    with pytest.raises(
        UserError, match=r"time is 1e9: give a finite .*: YAML has 1.0e\+9 for a number, 1e9 for text"
    ):
        Hardware.from_settings(yaml.safe_load("weight: {class_path: PCM, init_args: {time: 1e9}}"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Impulse(1.0, rate=1.5), r"rate is 1.5: give a share of the outputs, 0 to 1"),
        (lambda: AdditiveMultiplicative(1.0, ratio=-1), "ratio is -1"),
        (lambda: AdditiveMultiplicative(1.0, order="both"), "order is 'both'"),
        (lambda: FixedPattern(gain=math.inf), "gain is inf"),
        (lambda: Laplace(1.0, scale="dB"), "scale is 'dB'"),
    ],
)
def test_mistakes_are_one_line(make, message):
    with pytest.raises(UserError, match=message):
        make()
