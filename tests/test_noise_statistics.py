"""The noise that the layers add, as it reaches their outputs, in the fused kernels and in the plain loop.

Every check gives p-values of a true hypothesis, and raises an alarm where the smallest is below its share of
FALSE_ALARM: all checks of this file together raise a false one with that probability at most, over seeds (Bonferroni).
Seeds are fixed, so what passes once passes always, until the noise is another.

The noise is read off layers whose weights are zero: a relu RNN with a large bias shows its pre-activation plainly, an
LSTM with all other gates shut or open shows one gate.
"""

import itertools
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from asr_dni.nn import NoisyGRU, NoisyLinear, NoisyLSTM, NoisyRNN, analog, native, use_implementation
from asr_dni.nn.operations import GaussianNoise, draw_plain
from asr_dni.nn.stacking import stack_networks
from asr_dni.noise import Noise, NoisyModule
from asr_dni.philox import derive_key, philox4x32

FALSE_ALARM = 1e-3
MOST_CHECKS = 100
"""At least as many as this file has; the last test counts them."""

SIGMA = 0.5
BIAS = 16 * SIGMA
"""No relu ever cuts: P(|e| > 16 sigma) is 1e-57."""

fused = pytest.param(
    "fused",
    marks=pytest.mark.skipif(native.library() is None, reason=f"no compiled kernels: {native.status()}"),
)
either_way = pytest.mark.parametrize("implementation", [fused, "reference"])


def check(p_values):
    """Raise an alarm if the smallest p-value is too small for its number."""
    p_values = np.atleast_1d(np.asarray(p_values, dtype=float))
    level = FALSE_ALARM / MOST_CHECKS / len(p_values)
    assert p_values.min() > level, f"p = {p_values.min():.1e} among {len(p_values)}, the level is {level:.1e}"


# ---------------------------------------------------------------------- p-values


def two_sided(scores):
    return 2 * stats.norm.sf(np.abs(scores))


def normality(e):
    """p-values of standard normal numbers: shape, mean, variance, skewness, kurtosis, tails."""
    e, n = np.asarray(e, dtype=float).ravel(), np.size(e)
    chi2 = stats.chi2(n)
    variance = 2 * min(chi2.cdf((e**2).sum()), chi2.sf((e**2).sum()))
    tails = [
        min(
            1.0,
            2 * min(stats.binom.cdf(count, n, p), stats.binom.sf(count - 1, n, p)),
        )
        for limit in (2.0, 3.0, 4.0)
        for side in (1, -1)
        for p, count in [(stats.norm.sf(limit), int((side * e > limit).sum()))]
    ]
    # Of x**3 - 3 x and x**4 - 6 x**2 + 3, Hermite polynomials: uncorrelated with mean and variance.
    skewness = (e**3 - 3 * e).sum() / math.sqrt(6 * n)
    kurtosis = (e**4 - 6 * e**2 + 3).sum() / math.sqrt(24 * n)
    return [
        stats.kstest(e, "norm").pvalue,
        anderson_darling(e),
        *two_sided([e.sum() / math.sqrt(n), skewness, kurtosis]),
        variance,
        *tails,
    ]


def anderson_darling(e):
    """p-value of the Anderson-Darling statistic for a known normal distribution.

    Upper tail of its limiting distribution: G. and J. Marsaglia, "Evaluating the Anderson-Darling distribution",
    Journal of Statistical Software 9(2), 2004, `adinf` for z >= 2; below that p is above 0.09, and no alarm.
    """
    e, n = np.sort(e), len(e)
    weights = 2 * np.arange(1, n + 1) - 1
    z = -n - (weights * (stats.norm.logcdf(e) + stats.norm.logsf(e[::-1]))).sum() / n
    if z < 2:
        return 0.09
    inner = 0.43424 - (0.082433 - (0.008056 - 0.0003146 * z) * z) * z
    return float(-np.expm1(-np.exp(1.0776 - (2.30695 - inner * z) * z))) if z < 10 else 1e-9


def correlation(rows, lags=(0,)):
    """p-values of all pairs of rows of standard normal numbers, and of their squares.

    Besides entry by entry the rows are compared shifted against each other by ``lags``. The sum of n products of
    independent numbers has variance n. Squares show what signs hide, such as numbers that share a Box-Muller radius.
    """
    rows = np.asarray(rows, dtype=float)
    rows = rows.reshape(len(rows), -1)
    p_values = []
    for values in (rows, (rows**2 - 1) / math.sqrt(2)):
        for lag in lags:
            length = rows.shape[1] - lag
            scores = values[:, lag:] @ values[:, :length].T / math.sqrt(length)
            own = np.eye(len(rows), dtype=bool)
            wanted = np.tril(~own) if lag == 0 else np.ones_like(own)
            p_values.append(two_sided(scores[wanted]))
    return np.concatenate(p_values)


# ---------------------------------------------------------------------- reading the noise


def zeroed(layer, **biases):
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        for name, value in biases.items():
            getattr(layer, name).copy_(torch.as_tensor(value))
    return layer


@torch.no_grad()
def read_rnn(implementation, noise=None, steps=10, rows=20, units=50, layers=1, directions=1):
    """Noise of every layer and direction of a relu RNN: ``(layers * directions, steps, rows, units)``, by its std.

    A layer's outputs are its bias and its noise; nothing comes through from the layer below. Time runs forwards in
    what is returned.
    """
    noise = noise or Noise(SIGMA, draw=0)
    layer = zeroed(
        NoisyRNN(1, units, layers, nonlinearity="relu", bidirectional=directions == 2),
        **{
            f"bias_ih_l{k}{suffix}": torch.full((units,), BIAS)
            for k in range(layers)
            for suffix in ("", "_reverse")[:directions]
        },
    )
    seen = []
    run_part = layer._run_part

    def noted(*arguments, **keywords):
        outputs, final = run_part(*arguments, **keywords)
        seen.append(outputs.reshape(steps, rows, units))
        return outputs, final

    layer._run_part = noted
    with use_implementation(implementation), layer.under(noise):
        layer(torch.zeros(steps, rows, 1))
    e = (torch.stack(seen).double() - BIAS) / noise.sigma
    return e.numpy()


def logit(p):
    return np.log(p) - np.log1p(-p)


SHUT, OPEN = -40.0, 20.0


@torch.no_grad()
def read_gate(implementation, cell, gate, rows=2000, units=50, noise=None):
    """Noise of one gate in the first step: ``(rows, units)``, by its std."""
    noise = noise or Noise(SIGMA, draw=0)
    biases = {
        "i": (0.0, SHUT, OPEN, OPEN),
        "f": (SHUT, 0.0, 0.0, OPEN),
        "g": (OPEN, SHUT, 0.0, OPEN),
        "o": (OPEN, SHUT, OPEN, 0.0),
        "z": (0.0, 0.0, 30.0),
        "n": (SHUT, SHUT, 0.0),
    }[gate]
    layer = {"lstm": NoisyLSTM, "gru": NoisyGRU}[cell](1, units)
    zeroed(layer, bias_ih_l0=torch.tensor(biases).repeat_interleave(units))
    x, zero = torch.zeros(1, rows, 1), torch.zeros(1, rows, units)
    with use_implementation(implementation), layer.under(noise):
        if cell == "gru":
            h = layer(x, zero)[1][0].double().numpy()
            e = logit(1 - h) if gate == "z" else np.arctanh(h)
        else:
            h, c = (part[0].double().numpy() for part in layer(x, (zero, zero + (gate == "f")))[1])
            e = {"g": np.arctanh}.get(gate, logit)(h / np.tanh(c) if gate == "o" else c)
    return e / noise.sigma


@torch.no_grad()
def read_product(implementation, steps=10, rows=20, units=50, noise=None):
    """Noise of o * tanh(c) in an LSTM whose gates are shut: ``(steps, rows, units)``, by its std."""
    noise = noise or Noise(SIGMA, sites=("elementwise",), draw=0)
    layer = zeroed(NoisyLSTM(1, units), bias_ih_l0=torch.full((4 * units,), SHUT))
    with use_implementation(implementation), layer.under(noise):
        h, _ = layer(torch.zeros(steps, rows, 1))
    return h.double().numpy() / noise.sigma


@torch.no_grad()
def read_linear(implementation, steps=10, rows=20, units=50, noise=None):
    """Noise of a classifier: ``(steps, rows, units)``, by its std."""
    noise = noise or Noise(SIGMA, draw=0)
    layer = zeroed(NoisyLinear(1, units))
    with use_implementation(implementation), layer.under(noise):
        return layer(torch.zeros(rows, steps, 1)).transpose(0, 1).double().numpy() / noise.sigma


# ---------------------------------------------------------------------- its distribution


class TestNormality:
    @either_way
    def test_pre_activations_of_an_rnn(self, implementation):
        check(normality(read_rnn(implementation, steps=20, rows=100, units=100)))

    @either_way
    @pytest.mark.parametrize(
        ("cell", "gate"), [("lstm", gate) for gate in "ifgo"] + [("gru", "z"), ("gru", "n")]
    )
    def test_gates(self, implementation, cell, gate):
        check(normality(read_gate(implementation, cell, gate)))

    @either_way
    def test_products(self, implementation):
        check(normality(read_product(implementation, rows=200)))

    @either_way
    def test_logits(self, implementation):
        check(normality(read_linear(implementation, rows=200)))

    @either_way
    @pytest.mark.parametrize("seed", [0, 1, 2, 2**63])
    def test_any_seed_and_large_identities(self, implementation, seed):
        noise = Noise(
            SIGMA, seed=seed, draw=2**40, first_step=2**31, sample_ids=torch.arange(100) * 2**40 - 2**45
        )
        check(normality(read_rnn(implementation, noise, rows=100)))

    @either_way
    def test_every_unit_by_itself(self, implementation):
        """Vectorised code treats the units of a block differently, and the last block's."""
        e = read_rnn(implementation, steps=25, rows=80, units=67)[0].reshape(-1, 67)
        n = len(e)
        mean, square = e.sum(0) / math.sqrt(n), (e**2).sum(0)
        variance = 2 * np.minimum(stats.chi2.cdf(square, n), stats.chi2.sf(square, n))
        check(np.concatenate([two_sided(mean), variance]))

    @either_way
    @pytest.mark.parametrize(("arrays", "variance"), [("joint", 1.0), ("separate", 2.0)])
    def test_arrays(self, implementation, arrays, variance):
        noise = Noise(SIGMA, arrays=arrays, draw=0)
        check(normality(read_rnn(implementation, noise, rows=100) / math.sqrt(variance)))


# ---------------------------------------------------------------------- its independence


class TestIndependence:
    @either_way
    @pytest.mark.parametrize("axis", ["steps", "samples", "units"])
    def test_along_a_layer(self, implementation, axis):
        """All pairs along an axis; neighbours beyond it are the lags."""
        e = read_rnn(implementation, steps=40, rows=40, units=40)[0]
        check(correlation(np.moveaxis(e, ["steps", "samples", "units"].index(axis), 0), lags=(0, 1)))

    @either_way
    @pytest.mark.parametrize("order", ["units", "steps", "samples"])
    def test_of_neighbours_at_any_distance(self, implementation, order):
        """Autocorrelation along the order in which vectorised code draws, over blocks of 8, 16, 64 numbers."""
        e = read_rnn(implementation, steps=50, rows=50, units=80)[0]
        e = np.moveaxis(e, ["steps", "samples", "units"].index(order), -1)
        lags = [1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32]
        scores = []
        for values in (e, (e**2 - 1) / math.sqrt(2)):
            for lag in lags:
                products = values[..., lag:] * values[..., :-lag]
                scores.append(products.sum() / math.sqrt(products.size))
        check(two_sided(scores))

    @either_way
    def test_of_seeds_that_are_neighbours(self, implementation):
        """Networks have seeds 0, 1, 2, ...; also shifted against each other."""
        rows = [read_rnn(implementation, Noise(SIGMA, seed=seed, draw=0)) for seed in range(16)]
        check(correlation(rows, lags=(0, 1, 2, 50, 1000)))

    @either_way
    def test_of_draws_that_are_neighbours(self, implementation):
        rows = [read_rnn(implementation, Noise(SIGMA, draw=draw)) for draw in range(16)]
        check(correlation(rows, lags=(0, 1, 2, 50, 1000)))

    @either_way
    def test_of_seeds_and_draws_together(self, implementation):
        """Seed 0 draw 1 is not seed 1 draw 0."""
        pairs = itertools.product(range(4), range(4))
        check(correlation([read_rnn(implementation, Noise(SIGMA, seed=s, draw=d)) for s, d in pairs], (0, 1)))

    @either_way
    def test_of_layers_and_directions(self, implementation):
        """Also in the order of time, in which a reverse layer's first step is the last one."""
        e = read_rnn(implementation, layers=3, directions=2)
        check(np.concatenate([correlation(e, lags=(0, 1)), correlation([*e[::2], *e[1::2, ::-1]])]))

    @either_way
    def test_of_gates(self, implementation):
        lstm = [read_gate(implementation, "lstm", gate, rows=400) for gate in "ifgo"]
        gru = [read_gate(implementation, "gru", gate, rows=400) for gate in "zn"]
        check(np.concatenate([correlation(lstm, lags=(0, 1)), correlation(gru, lags=(0, 1))]))

    @either_way
    def test_of_sites_and_modules(self, implementation):
        """The recurrent layers' sites, the products', the classifier's; and the same sites of a second module."""

        def at(*sites, **options):
            return read_rnn(implementation, Noise(SIGMA, sites=sites, draw=0, **options))[0]

        rows = [
            at("input", "recurrent"),
            at("input"),
            at("recurrent"),
            read_product(implementation),
            read_linear(implementation),
            second_of_two(implementation),
        ]
        check(correlation(rows, lags=(0, 1)))

    @either_way
    def test_of_the_members_of_a_population(self, implementation):
        units, steps, rows = 50, 10, 20
        members = [
            zeroed(NoisyRNN(1, units, nonlinearity="relu"), bias_ih_l0=torch.full((units,), BIAS))
            for _ in range(8)
        ]
        population = stack_networks(members)
        noises = tuple(Noise(SIGMA, seed=seed, draw=0) for seed in range(8))
        with torch.no_grad(), use_implementation(implementation), population.under(noises):
            e = (population(torch.zeros(steps, rows, 1))[0].double() - BIAS).numpy() / SIGMA
        check(normality(e))
        check(correlation(e, lags=(0, 1, units)))
        alone = np.concatenate([read_rnn(implementation, noise) for noise in noises])
        np.testing.assert_allclose(e, alone, atol=1e-5)


def second_of_two(implementation):
    """Noise of the second of two RNNs of one network."""

    class Two(NoisyModule):
        def __init__(self):
            super().__init__()
            self.first, self.second = (
                zeroed(NoisyRNN(1, 50, nonlinearity="relu"), bias_ih_l0=torch.full((50,), BIAS))
                for _ in range(2)
            )

    network = Two()
    with torch.no_grad(), use_implementation(implementation), network.under(Noise(SIGMA, draw=0)):
        return (network.second(torch.zeros(10, 20, 1))[0].double().numpy() - BIAS) / SIGMA


# ---------------------------------------------------------------------- the checks can fail


def raises_an_alarm(p_values):
    with pytest.raises(AssertionError, match="the level is"):
        check(p_values)


class TestPower:
    """What is wrong by little is found, with the same number of numbers as above."""

    @pytest.mark.parametrize(
        "wrong",
        [
            lambda e: e * 1.02,
            lambda e: e + 0.02,
            lambda e: np.clip(e, -3, 3),
            lambda e: e + 0.01 * (e**3 - 3 * e),
            lambda e: stats.t.ppf(stats.norm.cdf(e), df=20) / math.sqrt(20 / 18),
            lambda e: np.round(e * 32) / 32,
        ],
        ids=["2 % too wide", "off by 0.02", "cut at 3", "skewed tails", "Student t with 20", "coarse"],
    )
    def test_another_distribution(self, wrong):
        e = read_rnn("auto", steps=20, rows=100, units=100)
        raises_an_alarm(normality(wrong(e)))

    @pytest.mark.parametrize("power", [1, 2])
    @pytest.mark.parametrize("lag", [0, 1])
    def test_two_of_sixteen_rows_have_a_little_in_common(self, power, lag):
        rows = np.stack([read_rnn("auto", Noise(SIGMA, draw=draw)).ravel() for draw in range(16)])
        shared = np.roll(rows[3], lag)
        if power == 1:
            rows[7] = math.sqrt(1 - 0.1**2) * rows[7] + 0.1 * shared
        else:  # where one is large the other is, whatever their signs
            rows[7] = np.where(np.arange(len(shared)) % 4 == 0, np.abs(shared) * np.sign(rows[7]), rows[7])
        raises_an_alarm(correlation(rows, lags=(0, 1)))

    @pytest.mark.parametrize("part", ["seed", "site", "module", "layer", "draw"])
    def test_a_key_that_forgets_a_part(self, part, monkeypatch):
        forgotten = ["seed", "site", "module", "layer", "draw"].index(part)
        monkeypatch.setattr(
            analog,
            "derive_key",
            lambda *parts: derive_key(*(0 if k == forgotten else p for k, p in enumerate(parts))),
        )
        of = {
            "seed": TestIndependence().test_of_seeds_that_are_neighbours,
            "site": TestIndependence().test_of_sites_and_modules,
            "module": TestIndependence().test_of_sites_and_modules,
            "layer": TestIndependence().test_of_layers_and_directions,
            "draw": TestIndependence().test_of_draws_that_are_neighbours,
        }[part]
        with pytest.raises(AssertionError, match="the level is"):
            of("auto")


# ---------------------------------------------------------------------- one generator

KEYS = [(0, 0), (1, 0), (0, 1), (0xFFFFFFFF, 0xFFFFFFFF), derive_key(0, "gates", 0, 0, 0)]


@pytest.mark.skipif(native.library() is None, reason=f"no compiled kernels: {native.status()}")
class TestSameWords:
    @pytest.mark.parametrize("key", KEYS)
    def test_angles_and_radii_are_those_of_the_plain_generator(self, key):
        """A single wrong bit of Philox turns half of all bits; the numbers tell their words to about 22 bits."""
        ids, site = [torch.arange(-50, 50) * 7919], GaussianNoise(torch.ones(1), (key,))
        like = torch.zeros(0, dtype=torch.float64)
        plain = draw_plain(site, ids, 3, 10, 4, 100, like).unflatten(-1, (4, 100)).numpy()
        fast = native.draw_gaussian(site, ids, 3, 10, 4, 100, like).unflatten(-1, (4, 100)).numpy()
        for pair in (slice(0, 2), slice(2, 4)):
            ours, theirs = (numbers[..., pair, :].astype(float) for numbers in (fast, plain))
            between = np.angle(
                (ours[..., 0, :] + 1j * ours[..., 1, :]) / (theirs[..., 0, :] + 1j * theirs[..., 1, :])
            )
            visible = np.hypot(theirs[..., 0, :], theirs[..., 1, :]) > 0.05
            assert np.abs(between[visible]).max() < 2e-5
            radii = [np.hypot(numbers[..., 0, :], numbers[..., 1, :]) for numbers in (ours, theirs)]
            assert np.abs(radii[0] - radii[1]).max() < 2e-5

    @pytest.mark.parametrize("flags", [["-march=native"], ["-mavx2"], []], ids=["native", "AVX2", "plain C"])
    def test_bit_by_bit(self, tmp_path, flags):
        """The kernels' own function, called from C, for counters and keys of all kinds."""
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None or (
            flags == ["-mavx2"] and not torch.backends.cpu.get_cpu_capability().startswith("AVX")
        ):
            pytest.skip("no compiler by its usual name, or a machine without AVX2")
        header = Path(native.__file__).with_name("philox.h")
        assert header.read_text().count("void philox_block(") == 2
        (tmp_path / "words.c").write_text(
            f'#include "{header}"\n'
            "#include <stdio.h>\n#include <inttypes.h>\n"
            "int main(void) {\n"
            "    uint32_t first, step, low, high, k0, k1, words[4][BLOCK];\n"
            '    while (scanf("%" SCNu32 "%" SCNu32 "%" SCNu32 "%" SCNu32 "%" SCNu32 "%" SCNu32, '
            "&first, &step, &low, &high, &k0, &k1) == 6) {\n"
            "        philox_block(first, BLOCK, step, low, high, k0, k1, words);\n"
            "        for (int w = 0; w < 4; w++)\n"
            '            for (int u = 0; u < BLOCK; u++) printf("%" PRIu32 " ", words[w][u]);\n'
            '        printf("\\n");\n'
            "    }\n    return 0;\n}\n"
        )
        program = str(tmp_path / "words")
        command = [compiler, "-O1", "-std=gnu11", *flags, str(tmp_path / "words.c"), "-o", program, "-lm"]
        subprocess.run(command, check=True, capture_output=True)
        random = np.random.default_rng(0)
        cases = [[0] * 6, [0] + [0xFFFFFFFF] * 5, *random.integers(0, 2**32, (40, 6)).tolist()]
        for case in cases[2:]:
            case[0] %= 2**20  # the first of the units, which are few
        said = subprocess.run(
            [program],
            input="\n".join(" ".join(map(str, case)) for case in cases),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for case, line in zip(cases, said.splitlines(), strict=True):
            first, step, low, high, k0, k1 = case
            words = np.array(line.split(), dtype=np.int64).reshape(4, -1)
            units = torch.arange(first, first + words.shape[1])
            counter = (units, *(torch.tensor([word]) for word in (step, low, high)))
            expected = torch.stack(philox4x32(counter, (k0, k1))).numpy()
            np.testing.assert_array_equal(words, expected)


def test_there_are_not_more_checks_than_the_false_alarm_rate_counts(request):
    mine = [item for item in request.session.items if item.path == Path(__file__)]
    of_noise = [item for item in mine if item.cls in (TestNormality, TestIndependence)]
    assert len(of_noise) + 2 <= MOST_CHECKS  # the population's has two
