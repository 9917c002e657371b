"""Noisy recurrent networks against their ``torch.nn`` counterparts and against the noise's definition.

The noise is read off where it can be read in closed form: with weights of zero and biases that hold the other gates
open or shut, the output is a known invertible function of one gate's noise alone.
"""

import functools
import itertools
import math

import pytest
import torch
from covering import thinned
from scipy import stats
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

from asr_dni.nn import NoisyGRU, NoisyLSTM, NoisyRNN, calibrate, use_implementation
from asr_dni.nn.operations import GaussianNoise, draw_plain
from asr_dni.noise import SITES, Noise
from asr_dni.philox import derive_key

FALSE_ALARM = 1e-6
"""Of every statistical comparison; seeds are fixed."""

TANH = functools.partial(NoisyRNN, nonlinearity="tanh")
RELU = functools.partial(NoisyRNN, nonlinearity="relu")
PROJECTED = functools.partial(NoisyLSTM, proj_size=2)
CELLS = {"tanh": TANH, "relu": RELU, "lstm": NoisyLSTM, "projected": PROJECTED, "gru": NoisyGRU}
COUNTERPARTS = {
    "tanh": nn.RNN,
    "relu": functools.partial(nn.RNN, nonlinearity="relu"),
    "lstm": nn.LSTM,
    "projected": functools.partial(nn.LSTM, proj_size=2),
    "gru": nn.GRU,
}
every_cell = pytest.mark.parametrize("cell", CELLS)


def pair(cell, *arguments, **keywords):
    """The torch module and the noisy one with its weights."""
    torch.manual_seed(1)
    theirs, ours = COUNTERPARTS[cell](*arguments, **keywords), CELLS[cell](*arguments, **keywords)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def flat(result):
    """All tensors of a result, in order."""
    if isinstance(result, PackedSequence):
        return [result.data]
    if isinstance(result, torch.Tensor):
        return [result]
    return [tensor for part in result for tensor in flat(part)]


def assert_same(theirs, ours, call, tolerance):
    """Outputs, final states and all gradients of ``call(module)``, which returns its inputs as well."""
    results = []
    for module in (theirs, ours):
        module.zero_grad()
        result, inputs = call(module)
        weighting = torch.Generator().manual_seed(0)
        loss = sum((t * torch.randn(t.shape, generator=weighting)).sum() for t in flat(result))
        leaves = [*inputs, *module.parameters()]
        results.append([*flat(result), *torch.autograd.grad(loss, leaves)])
    assert len(results[0]) == len(results[1])
    for expected, got in zip(*results, strict=True):
        assert got.shape == expected.shape
        torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)


class TestCleanEqualsTorch:
    @every_cell
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"bias": False},
            {"num_layers": 2, "batch_first": True},
            {"bidirectional": True},
            {"num_layers": 3, "bidirectional": True, "bias": False, "batch_first": True},
        ],
    )
    @pytest.mark.parametrize("given_state", [False, True])
    def test_outputs_and_gradients(self, cell, dtype, options, given_state):
        theirs, ours = pair(cell, 3, 5, dtype=dtype, **options)
        x = torch.randn(4, 6, 3, dtype=dtype, requires_grad=True)
        rows = 4 if options.get("batch_first") else 6
        state = []
        if given_state:
            depth = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
            widths = {"lstm": (5, 5), "projected": (2, 5)}.get(cell, (5,))
            state = [torch.randn(depth, rows, width, dtype=dtype, requires_grad=True) for width in widths]

        def call(module):
            hx = None if not state else state[0] if len(state) == 1 else tuple(state)
            return module(x, hx), [x, *state]

        assert_same(theirs, ours, call, 1e-5 if dtype == torch.float32 else 1e-12)

    @every_cell
    @pytest.mark.parametrize("batch_first", [False, True])
    def test_unbatched(self, cell, batch_first):
        theirs, ours = pair(cell, 3, 5, bidirectional=True, batch_first=batch_first)
        x = torch.randn(4, 3, requires_grad=True)
        assert_same(theirs, ours, lambda module: (module(x), [x]), 1e-5)
        with torch.no_grad():
            _, state = ours(x)
        assert_same(theirs, ours, lambda module: (module(x, state), [x]), 1e-5)

    @every_cell
    @pytest.mark.parametrize("ordering", ["sorted", "unsorted", "declared sorted"])
    @pytest.mark.parametrize("given_state", [False, True])
    def test_packed(self, cell, ordering, given_state):
        theirs, ours = pair(cell, 3, 5, num_layers=2, bidirectional=True, dtype=torch.float64)
        lengths = [2, 6, 1, 4] if ordering == "unsorted" else [6, 4, 2, 1]
        sequences = [torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in lengths]
        widths = {"lstm": (5, 5), "projected": (2, 5)}.get(cell, (5,))
        state = tuple(torch.randn(4, 4, width, dtype=torch.float64, requires_grad=True) for width in widths)

        def call(module):
            packed = pack_sequence(sequences, enforce_sorted=ordering == "declared sorted")
            hx = None if not given_state else state[0] if len(state) == 1 else state
            result = module(packed, hx)
            assert isinstance(result[0], PackedSequence)
            padded, its_lengths = pad_packed_sequence(result[0])
            assert its_lengths.tolist() == lengths
            return (padded, result[1]), [*sequences, *(state if given_state else ())]

        assert_same(theirs, ours, call, 1e-12)
        packed = pack_sequence(sequences, enforce_sorted=ordering == "declared sorted")
        mine, its = ours(packed)[0], theirs(packed)[0]
        torch.testing.assert_close(mine.data, its.data)
        assert torch.equal(mine.batch_sizes, its.batch_sizes)
        for kind in ("sorted_indices", "unsorted_indices"):
            a, b = getattr(mine, kind), getattr(its, kind)
            assert (a is None) == (b is None)
            assert a is None or torch.equal(a, b)

    @every_cell
    def test_dropout_between_layers(self, cell):
        theirs, ours = pair(cell, 3, 5, num_layers=2, dropout=1.0)
        x = torch.randn(4, 6, 3, requires_grad=True)
        assert_same(theirs, ours, lambda module: (module(x), [x]), 1e-5)
        theirs.eval(), ours.eval()
        assert_same(theirs, ours, lambda module: (module(x), [x]), 1e-5)

    def test_dropout_rate(self):
        """Read off a second layer that hands on what it is given: zero where dropped, else scaled."""
        layer = NoisyRNN(1, 400, num_layers=2, dropout=0.25)
        with torch.no_grad():
            layer.weight_ih_l1.copy_(torch.eye(400) * 1e-3)  # small, so that tanh is linear
            for parameter in (layer.weight_hh_l1, layer.bias_ih_l1, layer.bias_hh_l1):
                parameter.zero_()
        torch.manual_seed(0)
        outputs, (below, _) = layer(torch.randn(1, 50, 1))
        dropped = outputs[0] == 0
        low, high = stats.binom.interval(1 - FALSE_ALARM, dropped.numel(), 0.25)
        assert low <= int(dropped.sum()) <= high
        torch.testing.assert_close(outputs[0][~dropped], 1e-3 / 0.75 * below[~dropped], rtol=1e-4, atol=1e-8)

    @every_cell
    def test_state_dict_both_ways(self, cell):
        theirs, ours = pair(cell, 3, 5, num_layers=2, bidirectional=True)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        for parameter in ours.parameters():
            nn.init.normal_(parameter)
        theirs.load_state_dict(ours.state_dict())
        assert all(torch.equal(a, b) for a, b in zip(theirs.parameters(), ours.parameters(), strict=True))

    @every_cell
    def test_empty_batch(self, cell):
        theirs, ours = pair(cell, 3, 5)
        x = torch.randn(4, 0, 3)
        assert [t.shape for t in flat(ours(x))] == [t.shape for t in flat(theirs(x))]
        with ours.under(Noise(1.0, sites=SITES)):
            assert [t.shape for t in flat(ours(x))] == [t.shape for t in flat(theirs(x))]

    @pytest.mark.parametrize("dtype", [torch.bfloat16])
    @every_cell
    def test_low_precision(self, cell, dtype):
        theirs, ours = pair(cell, 3, 5, dtype=dtype)
        x = torch.randn(4, 6, 3, dtype=dtype)
        for expected, got in zip(flat(theirs(x)), flat(ours(x)), strict=True):
            assert got.dtype == dtype
            torch.testing.assert_close(got, expected, atol=0.03, rtol=0.03)

    def test_projected_equals_forward(self):
        layer, x = NoisyLSTM(3, 5, num_layers=2), torch.randn(4, 6, 3)
        outputs, (h, c) = layer(x)
        projection = layer.input_projection(x)
        again, (h_again, c_again) = layer.forward_projected(projection, layer.initial_state(6, projection))
        for a, b in ((outputs, again), (h, h_again), (c, c_again)):
            assert torch.equal(a, b)

    @every_cell
    def test_projected_with_lengths_equals_packed(self, cell):
        layer, x = pair(cell, 3, 5, num_layers=2, bidirectional=True)[1], torch.randn(4, 6, 3)
        lengths = torch.tensor([4, 1, 3, 2, 4, 1])
        packed, final = layer(pack_padded_sequence(x, lengths, enforce_sorted=False))
        expected = pad_packed_sequence(packed)[0], *(final if isinstance(final, tuple) else (final,))
        projection = layer.input_projection(x)
        outputs, state = layer.forward_projected(projection, layer.initial_state(6, projection), lengths)
        for got, its in zip((outputs, *state), expected, strict=True):
            torch.testing.assert_close(got, its)


class TestWrongInputs:
    @every_cell
    @pytest.mark.parametrize("shape", [(3,), (4, 6, 2), (4, 2), (4, 6, 3, 1), (0, 6, 3)])
    def test_shapes(self, cell, shape):
        theirs, ours = pair(cell, 3, 5)
        for module in (theirs, ours):
            with pytest.raises((ValueError, RuntimeError)):
                module(torch.randn(shape))

    @every_cell
    def test_no_steps_is_said_as_torch_says_it(self, cell):
        said = []
        for module in pair(cell, 3, 5):
            with pytest.raises(RuntimeError) as raised:
                module(torch.randn(0, 6, 3))
            said.append(str(raised.value))
        assert said[0] == said[1]

    @every_cell
    @pytest.mark.parametrize("shape", [(1, 5, 5), (2, 6, 5), (1, 6, 4), (6, 5)])
    def test_states(self, cell, shape):
        theirs, ours = pair(cell, 3, 5)
        state = torch.randn(shape)
        for module in (theirs, ours):
            with pytest.raises(RuntimeError):
                module(torch.randn(4, 6, 3), (state, state) if isinstance(module, nn.LSTM) else state)

    def test_cell_state_of_wrong_shape_or_type(self):
        layer, x = NoisyLSTM(3, 5), torch.randn(4, 6, 3)
        good = torch.zeros(1, 6, 5)
        for bad in (torch.zeros(1, 6, 4), good.double()):
            for state in ((good, bad), (bad, good)):
                with pytest.raises(RuntimeError, match="Expected hidden state"):
                    layer(x, state)
        with pytest.raises(RuntimeError):
            layer(x, (good,))

    @every_cell
    def test_identities_without_a_sample(self, cell):
        layer = CELLS[cell](3, 5)
        with layer.under(Noise(1.0, sample_ids=torch.arange(4))), pytest.raises(ValueError, match="4 sample"):
            layer(torch.randn(2, 6, 3))


def is_normal(values, std):
    values = values.detach().double().flatten().numpy()
    assert stats.kstest(values / std, "norm").pvalue > FALSE_ALARM
    has_variance(torch.from_numpy(values), std**2)
    kurtosis = (values**4).mean() / std**4 - 3
    assert abs(kurtosis) * math.sqrt(len(values) / 96) < stats.norm.isf(FALSE_ALARM / 2)


def has_variance(values, variance):
    values = values.detach().double().flatten()
    low, high = stats.chi2.interval(1 - FALSE_ALARM, len(values))
    assert low < float(values.square().sum()) / variance < high


def silent(cell, units, biases=(), **keywords):
    """A layer with weights of zero, and ``biases``, one per gate, in the input bias."""
    layer = CELLS[cell](1, units, dtype=torch.float64, **keywords)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    for gate, bias in enumerate(biases):
        with torch.no_grad():
            layer.bias_ih_l0[gate * units : (gate + 1) * units] = bias
    return layer


INPUT_OR_RECURRENT = [
    (("input",), "joint", 1),
    (("recurrent",), "joint", 1),
    (("input", "recurrent"), "joint", 1),
    (("input", "recurrent"), "separate", 2),
    (("input", "elementwise", "output"), "separate", 1),
]
"""Sites, arrays, and the variance of a pre-activation in units of sigma squared."""

where = pytest.mark.parametrize(("sites", "arrays", "variance"), INPUT_OR_RECURRENT)
without_products = pytest.mark.parametrize(("sites", "arrays", "variance"), INPUT_OR_RECURRENT[:-1])


def logit(p):
    return torch.log(p) - torch.log1p(-p)


class TestDistribution:
    T, N, H = 10, 20, 50

    @where
    def test_rnn(self, sites, arrays, variance):
        layer = silent("tanh", self.H)
        with layer.under(Noise(0.5, sites=sites, arrays=arrays, seed=1)):
            h, _ = layer(torch.zeros(self.T, self.N, 1, dtype=torch.float64))
        is_normal(torch.atanh(h), 0.5 * math.sqrt(variance))

    @without_products
    @pytest.mark.parametrize("gate", ["i", "f", "g", "o"])
    def test_lstm_gates(self, gate, sites, arrays, variance):
        shut, opened = -40.0, 20.0
        biases, c0, function = {
            "i": ((0, shut, opened, opened), 0.0, torch.sigmoid),
            "f": ((shut, 0, 0, opened), 1.0, torch.sigmoid),
            "g": ((opened, shut, 0, opened), 0.0, torch.tanh),
            "o": ((opened, shut, opened, 0), 0.0, None),
        }[gate]
        layer = silent("lstm", self.H, biases)
        rows = self.T * self.N
        state = (
            torch.zeros(1, rows, self.H, dtype=torch.float64),
            torch.full((1, rows, self.H), c0).double(),
        )
        with layer.under(Noise(0.5, sites=sites, arrays=arrays, seed=1)):
            _, (h, c) = layer(torch.zeros(1, rows, 1, dtype=torch.float64), state)
        noise = logit(h / c.tanh()) if function is None else torch.atanh(c) if gate == "g" else logit(c)
        is_normal(noise, 0.5 * math.sqrt(variance))

    @pytest.mark.parametrize(
        ("sites", "arrays", "variance"),
        [
            (("input",), "joint", 1),
            (("recurrent",), "joint", 1),
            (("input", "recurrent"), "joint", 2),
            (("input", "recurrent"), "separate", 2),
        ],
    )
    def test_the_n_gate_of_a_gru_has_two_outputs(self, sites, arrays, variance):
        layer = silent("gru", self.H, (40.0, -40.0, 0.0))  # r = 1, z = 0
        with layer.under(Noise(0.5, sites=sites, arrays=arrays, seed=1)):
            h, _ = layer(torch.zeros(self.T, self.N, 1, dtype=torch.float64))
        is_normal(torch.atanh(h), 0.5 * math.sqrt(variance))

    @pytest.mark.parametrize(
        ("sites", "arrays", "variance"),
        [(("input",), "joint", 1), (("recurrent",), "joint", 0), (("input", "recurrent"), "joint", 1)],
    )
    def test_the_hidden_part_of_the_n_gate_passes_through_r(self, sites, arrays, variance):
        layer = silent("gru", self.H, (-40.0, -40.0, 0.0))  # r = 0, z = 0
        with layer.under(Noise(0.5, sites=sites, arrays=arrays, seed=1)):
            h, _ = layer(torch.zeros(self.T, self.N, 1, dtype=torch.float64))
        if variance:
            is_normal(torch.atanh(h), 0.5)
        else:
            assert h.abs().max() < 1e-12

    @without_products
    def test_the_z_gate_of_a_gru(self, sites, arrays, variance):
        layer = silent("gru", self.H, (0.0, 0.0, 30.0))  # n = 1, so the first h is 1 - z
        with layer.under(Noise(0.5, sites=sites, arrays=arrays, seed=1)):
            h, _ = layer(torch.zeros(1, self.T * self.N, 1, dtype=torch.float64))
        is_normal(logit(h), 0.5 * math.sqrt(variance))

    @pytest.mark.parametrize(("arrays", "variance_r"), [("joint", 1), ("separate", 2)])
    def test_the_r_gate_of_a_gru(self, arrays, variance_r):
        """n = tanh(r (k + e_h) + e_i), to first order in the noise: k / 2 + k e_r / 4 + e_h / 2 + e_i."""
        k, sigma = 8.0, 1e-3
        layer = silent("gru", self.H, (0.0, -40.0, 0.0))
        with torch.no_grad():
            layer.bias_hh_l0[2 * self.H :] = k
        with layer.under(Noise(sigma, arrays=arrays, seed=1)):
            h, _ = layer(torch.zeros(1, self.T * self.N, 1, dtype=torch.float64))
        variance = (k / 4) ** 2 * variance_r + 0.25 + 1
        is_normal(torch.atanh(h) - k / 2, sigma * math.sqrt(variance))

    def test_products_of_an_lstm(self):
        layer = silent("lstm", self.H)
        rows, sigma = self.T * self.N, 0.5
        with layer.under(Noise(sigma, sites=("elementwise",), seed=1)):
            _, (h, c) = layer(torch.zeros(1, rows, 1, dtype=torch.float64))
        is_normal(c, sigma * math.sqrt(2))  # f * c and i * g
        is_normal(h - 0.5 * c.tanh(), sigma)  # o * tanh(c)
        score = (c * (h - 0.5 * c.tanh())).sum() / (sigma**2 * math.sqrt(2 * c.numel()))
        assert abs(score.item()) < 5

    def test_products_of_a_gru(self):
        """With z = 0 and little noise h is the sum of all three products' noise."""
        layer, sigma = silent("gru", self.H, (0.0, -40.0, 0.0)), 1e-3
        with layer.under(Noise(sigma, sites=("elementwise",), seed=1)):
            h, _ = layer(torch.zeros(1, self.T * self.N, 1, dtype=torch.float64))
        is_normal(h, sigma * math.sqrt(3))

    def test_a_vanilla_rnn_has_no_products(self):
        layer, x = TANH(3, 5), torch.randn(4, 6, 3)
        clean, _ = layer(x)
        with layer.under(Noise(1.0, sites=("elementwise",))):
            assert torch.equal(layer(x)[0], clean)

    @pytest.mark.parametrize(
        ("sites", "noisy"), [(("recurrent",), True), (("input", "recurrent"), True), (("input",), False)]
    )
    def test_projection_of_an_lstm(self, sites, noisy):
        layer = silent("lstm", self.H, proj_size=self.H // 2)
        with layer.under(Noise(0.5, sites=sites, seed=1)):
            h, _ = layer(torch.zeros(self.T, self.N, 1, dtype=torch.float64))
        if noisy:
            is_normal(h, 0.5)
        else:
            assert not h.any()

    @every_cell
    @pytest.mark.parametrize("sites", [(), ("output",)])
    def test_sites_that_are_off_are_exactly_clean(self, cell, sites):
        layer, x = CELLS[cell](3, 5, num_layers=2, bidirectional=True), torch.randn(4, 6, 3)
        clean = flat(layer(x))
        with layer.under(Noise(1.0, sites=sites)):
            assert all(torch.equal(a, b) for a, b in zip(flat(layer(x)), clean, strict=True))


class TestScales:
    @pytest.mark.parametrize(
        ("sites", "arrays"),
        [(("input",), "joint"), (("recurrent",), "joint"), (("input", "recurrent"), "joint")],
    )
    def test_signal_gives_its_signal_to_noise_ratio(self, sites, arrays):
        torch.manual_seed(0)
        layer, sigma = NoisyRNN(6, 40, dtype=torch.float64), 0.5
        x = torch.randn(1, 500, 6, dtype=torch.float64)
        h0 = torch.randn(1, 500, 40, dtype=torch.float64)

        class WithState(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = layer

            def forward(self, x):
                return self.layer(x, h0)

        calibrate(WithState(), [x])
        clean, _ = layer(x, h0)
        with layer.under(Noise(sigma, scale="signal", sites=sites, arrays=arrays, seed=2)):
            noisy, _ = layer(x, h0)
        noise = torch.atanh(noisy) - torch.atanh(clean)
        signal = sum(
            {"input": x @ layer.weight_ih_l0.T, "recurrent": h0 @ layer.weight_hh_l0.T}[site]
            for site in sites
        )
        measured = 10 * math.log10(float(signal.square().mean() / noise.square().mean()))
        # Five standard errors of 10 log10 of a mean of n squares: 1 in 1.7 million.
        assert abs(measured + 20 * math.log10(sigma)) < 5 * 4.343 * math.sqrt(2 / noise.numel())

    @pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
    @pytest.mark.parametrize("site", ["input", "recurrent"])
    def test_range_is_in_multiples_of_the_largest_output(self, cell, site):
        torch.manual_seed(0)
        layer = CELLS[cell](6, 40, dtype=torch.float64)
        x = torch.randn(3, 20, 6, dtype=torch.float64)
        calibrate(layer, [x])
        outputs, _ = layer(x)
        weight, bound = (
            (layer.weight_ih_l0, x.abs().max())
            if site == "input"
            else (layer.weight_hh_l0, outputs.abs().max())
        )
        ((_, its_site, _, power),) = layer.signal_and_noise_power(
            Noise(0.25, scale="range", sites=(site,)).hardware
        )
        assert its_site == site
        assert power**0.5 == pytest.approx(0.25 * float(bound) * float(weight.abs().max()), rel=1e-12)

    @pytest.mark.parametrize("arrays", ["joint", "separate"])
    def test_both_outputs_of_a_grus_n_gate_are_noisy(self, arrays):
        """With r = 1 and z = 0 the state is tanh of the sum of both, whose variances add up to 2 sigma**2.

        The mean of 40,000 squares has a relative standard deviation of 0.71 %; false alarms 1e-6 (4.9 of them).
        """
        layer = NoisyGRU(1, 1000, dtype=torch.float64)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.zero_()
            layer.bias_ih_l0[:1000], layer.bias_ih_l0[1000:2000] = 30.0, -30.0
        with layer.under(Noise(0.25, arrays=arrays)):
            outputs, _ = layer(torch.zeros(1, 40, 1, dtype=torch.float64))
        variance = float(torch.atanh(outputs.detach()).square().mean())
        assert abs(variance / (2 * 0.25**2) - 1) < 4.9 * 0.0071


def rnn_noise(noise, *, layers=1, directions=1, steps=1, rows=40, units=40, implementation="auto"):
    """The pre-activation noise of every layer and direction at the last step they run."""
    layer = silent("tanh", units, num_layers=layers, bidirectional=directions == 2)
    with use_implementation(implementation), layer.under(noise):
        outputs, h = layer(torch.zeros(steps, rows, 1, dtype=torch.float64))
    return torch.atanh(outputs.detach()), torch.atanh(h.detach())


def uncorrelated(rows):
    """Whether no two rows of standard normal numbers are correlated."""
    count, length = rows.shape
    scores = (rows @ rows.T / math.sqrt(length))[tuple(torch.triu_indices(count, count, 1))]
    assert scores.abs().max() < stats.norm.isf(FALSE_ALARM / len(scores) / 2)


class TestIndependence:
    @pytest.mark.parametrize("implementation", ["auto", "reference"])
    def test_of_layers_directions_passes_seeds(self, implementation):
        parts = [
            rnn_noise(
                Noise(1.0, seed=seed, draw=draw), layers=2, directions=2, implementation=implementation
            )[1]
            for seed, draw in itertools.product((0, 1, 2), (0, 1))
        ]
        uncorrelated(torch.cat(parts).flatten(1))

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_of_steps_samples_units(self, axis):
        noise, _ = rnn_noise(Noise(1.0), steps=40)
        uncorrelated(noise.movedim(axis, 0).flatten(1))

    @pytest.mark.parametrize("arrays", ["joint", "separate"])
    def test_of_an_lstms_gates(self, arrays):
        ids, one = [torch.arange(60)], torch.ones(1)
        sites = ("gates",) if arrays == "joint" else ("input", "recurrent")
        drawn = []
        for site in sites:
            noise = GaussianNoise(one, (derive_key(0, site, 0, 0, 0),))
            numbers = draw_plain(noise, ids, 0, 5, 4, 40, torch.zeros(1, dtype=torch.float64))[0]
            drawn.append(numbers.unflatten(-1, (4, 40)).movedim(2, 0).flatten(1))
        uncorrelated(torch.cat(drawn))
        # That these are a layer's: in one step, without weights, c = sigmoid(i) tanh(g) and h = sigmoid(o) tanh(c).
        layer = NoisyLSTM(1, 40, dtype=torch.float64)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.zero_()
        with layer.under(Noise(1.0, arrays=arrays)):
            outputs, (_, c) = layer(torch.zeros(1, 60, 1, dtype=torch.float64))
        gates = sum(drawn)
        i, _, g, o = gates.view(4, 5, 60, 40)[:, 0]
        torch.testing.assert_close(c[0], i.sigmoid() * g.tanh(), atol=1e-5, rtol=0)
        torch.testing.assert_close(outputs[0], o.sigmoid() * c[0].tanh(), atol=1e-5, rtol=0)

    @pytest.mark.parametrize("site", ["input", "recurrent", "elementwise"])
    def test_every_forward_pass_is_fresh_at_every_site(self, site):
        layer, x = NoisyLSTM(3, 5, proj_size=2), torch.randn(4, 6, 3)
        layer.noise = Noise(1.0, sites=(site,))
        assert not torch.isclose(layer(x)[0], layer(x)[0])[1:].any()

    def test_every_forward_pass_is_fresh_and_the_sequence_of_passes_is_reproducible(self):
        layer, x = NoisyLSTM(3, 5), torch.randn(4, 6, 3)
        runs = []
        for _ in range(2):
            layer.noise = Noise(1.0, seed=6)
            runs.append([layer(x)[0] for _ in range(3)])
        for first, second in zip(*runs, strict=True):
            assert torch.equal(first, second)
        for a, b in itertools.combinations(runs[0], 2):
            assert not torch.isclose(a, b).any()
        layer.noise = Noise(1.0, seed=6, draw=1)
        assert torch.equal(layer(x)[0], runs[0][1])
        assert torch.equal(layer(x)[0], runs[0][1])


WHOLE = Noise(0.5, sites=SITES, seed=3, draw=2)


class TestNamedNoise:
    """A sample's noise does not depend on how the work is cut up."""

    @every_cell
    @pytest.mark.parametrize("implementation", ["auto", "reference"])
    def test_batch_size_and_order(self, cell, implementation):
        layer = CELLS[cell](3, 17, num_layers=2, bidirectional=True)
        x, ids = torch.randn(5, 6, 3), torch.tensor([10, 2**40, -5, 3, 0, 7])
        order = torch.tensor([4, 1, 2])
        with use_implementation(implementation):
            with layer.under(Noise(0.5, sites=SITES, draw=1, sample_ids=ids)):
                whole = layer(x)[0]
            with layer.under(Noise(0.5, sites=SITES, draw=1, sample_ids=ids[order])):
                torch.testing.assert_close(layer(x[:, order])[0], whole[:, order], atol=2e-5, rtol=0)

    @every_cell
    @pytest.mark.parametrize("implementation", ["auto", "reference"])
    def test_chunks(self, cell, implementation):
        layer, x = CELLS[cell](3, 17, num_layers=2), torch.randn(9, 6, 3)
        with use_implementation(implementation):
            with layer.under(WHOLE):
                whole, final = layer(x)
            state, outputs, first = None, [], 0
            for chunk in x.split([4, 1, 4]):
                with layer.under(Noise(0.5, sites=SITES, seed=3, draw=2, first_step=first)):
                    out, state = layer(chunk, state)
                outputs.append(out)
                first += len(chunk)
        torch.testing.assert_close(torch.cat(outputs), whole, atol=2e-5, rtol=0)
        for a, b in zip(flat(state), flat(final), strict=True):
            torch.testing.assert_close(a, b, atol=2e-5, rtol=0)

    @every_cell
    def test_padding(self, cell):
        """A sample in a packed batch has the noise it has alone, in both directions."""
        layer = CELLS[cell](3, 5, num_layers=2, bidirectional=True)
        x, lengths = torch.randn(7, 3, 3), [4, 7, 1]
        packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
        with layer.under(WHOLE):
            outputs, _ = pad_packed_sequence(layer(packed)[0])
        for n, length in enumerate(lengths):
            with layer.under(Noise(0.5, sites=SITES, seed=3, draw=2, sample_ids=torch.tensor([n]))):
                alone, _ = layer(x[:length, n : n + 1])
            torch.testing.assert_close(outputs[:length, n : n + 1], alone, atol=2e-5, rtol=0)
            assert not outputs[length:, n].any()

    def test_layout_and_unbatched_input(self):
        x = torch.randn(4, 6, 3)
        layer = NoisyLSTM(3, 5)
        twin = NoisyLSTM(3, 5, batch_first=True)
        twin.load_state_dict(layer.state_dict())
        with layer.under(WHOLE), twin.under(WHOLE):
            expected = layer(x)[0]
            torch.testing.assert_close(twin(x.transpose(0, 1))[0].transpose(0, 1), expected)
            torch.testing.assert_close(layer(x[:, 0])[0], expected[:, 0])

    @pytest.mark.parametrize("implementation", ["auto", "reference"])
    def test_number_of_threads(self, implementation):
        layer, x = NoisyLSTM(3, 65), torch.randn(5, 33, 3)
        threads, results = torch.get_num_threads(), []
        try:
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                with use_implementation(implementation), layer.under(WHOLE):
                    results.append(layer(x)[0])
        finally:
            torch.set_num_threads(threads)
        torch.testing.assert_close(results[0], results[1], atol=1e-6, rtol=0)
        torch.testing.assert_close(results[0], results[2], atol=1e-6, rtol=0)

    @every_cell
    def test_precision(self, cell):
        """The same noise in single and in double precision."""
        single = CELLS[cell](3, 5)
        double = CELLS[cell](3, 5, dtype=torch.float64)
        double.load_state_dict(single.state_dict())
        x = torch.randn(4, 6, 3)
        with single.under(WHOLE), double.under(WHOLE):
            torch.testing.assert_close(double(x.double())[0].float(), single(x)[0], atol=2e-5, rtol=0)


def differentiate(layer, x, state):
    """Gradcheck with respect to input, initial states and every parameter."""
    names = [name for name, _ in layer.named_parameters()]

    def call(x, *rest):
        states, parameters = rest[: len(state)], dict(zip(names, rest[len(state) :], strict=True))
        hx = states if len(states) > 1 else states[0]
        return tuple(flat(torch.func.functional_call(layer, parameters, (x, hx))))

    leaves = [tensor.detach().requires_grad_() for tensor in (x, *state, *layer.parameters())]
    return torch.autograd.gradcheck(call, leaves, fast_mode=True)


class TestGradient:
    @thinned(
        2,
        cell=list(CELLS),
        deep=[False, True],
        scale=["absolute", "signal"],
        sites_and_arrays=[
            ("input", "joint"),
            ("recurrent", "joint"),
            ("elementwise", "joint"),
            (SITES, "joint"),
            (SITES, "separate"),
        ],
    )
    def test_against_differences(self, cell, deep, scale, sites_and_arrays):
        sites, arrays = sites_and_arrays
        layers, bidirectional = (2, True) if deep else (1, False)
        torch.manual_seed(2)
        layer = CELLS[cell](2, 3, num_layers=layers, bidirectional=bidirectional, dtype=torch.float64)
        x = torch.randn(3, 2, 2, dtype=torch.float64)
        calibrate(layer, [x])
        depth = layers * (1 + bidirectional)
        widths = {"lstm": (3, 3), "projected": (2, 3)}.get(cell, (3,))
        state = [torch.randn(depth, 2, width, dtype=torch.float64) for width in widths]
        sites = sites if sites == SITES else (sites,)
        with layer.under(Noise(0.7, scale=scale, sites=sites, arrays=arrays, draw=1)):
            assert differentiate(layer, x, state)

    @every_cell
    @pytest.mark.parametrize("sites", [("input",), ("recurrent",), ("input", "recurrent")], ids="+".join)
    def test_strength_is_a_constant(self, cell, sites):
        """Under ``range`` the strength follows the largest weight; the gradient does not."""
        torch.manual_seed(0)
        layer, x = CELLS[cell](2, 3, dtype=torch.float64), torch.randn(3, 2, 2, dtype=torch.float64)
        calibrate(layer, [x])
        grads = []
        ranged = Noise(0.7, scale="range", sites=sites, draw=0)
        first, *others = [power**0.5 for *_, power in layer.signal_and_noise_power(ranged.hardware)]
        if others:
            pytest.skip("two matrices, each with a strength of its own")
        for noise in (ranged, Noise(first, sites=sites, draw=0)):
            layer.zero_grad()
            with layer.under(noise):
                layer(x)[0].sum().backward()
            grads.append([layer.weight_ih_l0.grad, layer.weight_hh_l0.grad])
        for mine, its in zip(*grads, strict=True):
            torch.testing.assert_close(mine, its, atol=1e-12, rtol=1e-12)

    def test_flows_through_the_noisy_values_of_an_rnn(self):
        """Against a loop written here, with the noise read off a layer without weights."""
        torch.manual_seed(0)
        T, N, F, H = 5, 4, 3, 6
        noise = Noise(0.8, seed=4, draw=0)
        e, _ = rnn_noise(noise, steps=T, rows=N, units=H)
        layer, x = NoisyRNN(F, H, dtype=torch.float64), torch.randn(T, N, F, dtype=torch.float64)
        with layer.under(noise):
            got, _ = layer(x)
        h, outputs = torch.zeros(N, H, dtype=torch.float64), []
        for t in range(T):
            inward = x[t] @ layer.weight_ih_l0.T + layer.bias_ih_l0
            h = torch.tanh(inward + h @ layer.weight_hh_l0.T + layer.bias_hh_l0 + e[t])
            outputs.append(h)
        expected = torch.stack(outputs)
        torch.testing.assert_close(got, expected, atol=1e-7, rtol=0)
        target = torch.randn(T, N, H, dtype=torch.float64)
        leaves = list(layer.parameters())
        for mine, its in zip(
            torch.autograd.grad((got * target).sum(), leaves),
            torch.autograd.grad((expected * target).sum(), leaves),
            strict=True,
        ):
            torch.testing.assert_close(mine, its, atol=1e-6, rtol=1e-6)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_flows_through_the_noisy_values_of_an_lstm(self, dtype):
        """The same for the LSTM; its four gates' noise is read off layers that show one gate each."""
        torch.manual_seed(0)
        T, N, F, H = 4, 3, 3, 5
        noise = Noise(0.8, seed=4, draw=0)
        e = torch.empty(T, N, 4, H, dtype=torch.float64)
        zero, one = (torch.full((1, N, H), value, dtype=torch.float64) for value in (0.0, 1.0))
        for gate, biases in enumerate(
            ((0, -40, 20, 20), (-40, 0, 0, 20), (20, -40, 0, 20), (20, -40, 20, 0))
        ):
            reader = silent("lstm", H, biases)
            for t in range(T):
                with reader.under(Noise(0.8, seed=4, draw=0, first_step=t)):
                    _, (h, c) = reader(torch.zeros(1, N, 1).double(), (zero, one if gate == 1 else zero))
                    e[t, :, gate] = (
                        logit(c[0])
                        if gate < 2
                        else torch.atanh(c[0])
                        if gate == 2
                        else logit(h[0] / c[0].tanh())
                    ).detach()
        layer, x = NoisyLSTM(F, H, dtype=dtype), torch.randn(T, N, F, dtype=dtype)
        with layer.under(noise):
            got, (_, c_last) = layer(x)
        h, c, outputs = torch.zeros(N, H, dtype=dtype), torch.zeros(N, H, dtype=dtype), []
        for t in range(T):
            gates = (
                x[t] @ layer.weight_ih_l0.T + layer.bias_ih_l0 + h @ layer.weight_hh_l0.T + layer.bias_hh_l0
            )
            i, f, g, o = (gates.unflatten(-1, (4, H)) + e[t].to(dtype)).unbind(1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        expected = torch.stack(outputs)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
        target = torch.randn(T, N, H, dtype=dtype)
        leaves = list(layer.parameters())
        for mine, its in zip(
            torch.autograd.grad((got * target).sum() + c_last.sum(), leaves),
            torch.autograd.grad((expected * target).sum() + c.sum(), leaves),
            strict=True,
        ):
            torch.testing.assert_close(mine, its, atol=3e-5, rtol=1e-4)
