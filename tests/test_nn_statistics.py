"""Calibration against statistics that are computed here from ``torch.nn`` modules and plain loops."""

import math

import pytest
import torch
from torch import distributed, nn

from asr_dni.errors import UserError
from asr_dni.nn import NoisyGRU, NoisyLinear, NoisyLSTM, NoisyRNN, calibrate, snr_db
from asr_dni.noise import SITES, Noise, NoisyModule

T, N, F, H = 6, 4, 3, 5


def rms(*tensors):
    values = torch.cat([tensor.detach().flatten() for tensor in tensors]).double()
    return float(values.square().mean().sqrt())


def largest(*tensors):
    return max(float(tensor.detach().abs().max()) for tensor in tensors)


def batches(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [2 * torch.randn(T, N, F, generator=generator, dtype=torch.float64) for _ in range(2)]


def hidden_before(outputs):
    """h_{t-1} for every step, for a zero initial state."""
    return torch.cat((torch.zeros_like(outputs[:1]), outputs[:-1]))


def check(statistics, site, rms_, bound):
    assert statistics.rms[site] == pytest.approx(rms_, rel=1e-9)
    assert statistics.bound[site] == pytest.approx(bound, rel=1e-9)


def test_the_larger_factor_of_a_product_is_its_bound():
    """Without weights an LSTM's gates are 1/2 and its other factors 0; its cells then take the larger values in."""
    layer = NoisyLSTM(F, H)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    calibrate(layer, [torch.zeros(T, N, F)])
    assert layer.statistics()["l0"].bound["elementwise"] == 0.5
    nn.init.constant_(layer.bias_ih_l0, 50.0)  # all gates open: c grows by 1 with each step
    calibrate(layer, [torch.zeros(T, N, F)])
    assert layer.statistics()["l0"].bound["elementwise"] == T - 1


def test_over_all_of_one_process_is_over_its_own():
    alone, together = (NoisyLSTM(F, H, proj_size=2, dtype=torch.float64) for _ in range(2))
    together.load_state_dict(alone.state_dict())
    calibrate(alone, batches())
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        calibrate(together, batches(), over_processes=True)
    finally:
        distributed.destroy_process_group()
    mine, its = alone.statistics()["l0"], together.statistics()["l0"]
    assert (its.rms, its.bound) == (mine.rms, mine.bound)
    assert its.known


@pytest.mark.parametrize(("ours", "theirs"), [(NoisyRNN, nn.RNN), (NoisyLSTM, nn.LSTM)])
@pytest.mark.parametrize("bias", [True, False])
def test_products_with_the_weights(ours, theirs, bias):
    layer, twin = (kind(F, H, num_layers=2, bias=bias, dtype=torch.float64) for kind in (ours, theirs))
    twin.load_state_dict(layer.state_dict())
    below = theirs(F, H, bias=bias, dtype=torch.float64)
    below.load_state_dict({key: value for key, value in layer.state_dict().items() if "l0" in key})
    calibrate(layer, batches())
    inputs, middle, outputs = [], [], []
    for x in batches():
        inputs.append(x)
        middle.append(below(x)[0])
        outputs.append(twin(x)[0])
    for part, ins, outs in (("l0", inputs, middle), ("l1", middle, outputs)):
        w_ih, w_hh = getattr(layer, f"weight_ih_{part}"), getattr(layer, f"weight_hh_{part}")
        inward = [x @ w_ih.T for x in ins]
        recurrent = [hidden_before(h) @ w_hh.T for h in outs]
        statistics = layer.statistics()[part]
        check(statistics, "input", rms(*inward), largest(*ins))
        check(statistics, "recurrent", rms(*recurrent), largest(*outs))
        gates = [a + b for a, b in zip(inward, recurrent, strict=True)]
        check(statistics, "gates", rms(*gates), largest(*ins, *outs))


def test_the_reverse_direction():
    layer = NoisyRNN(F, H, bidirectional=True, dtype=torch.float64)
    calibrate(layer, batches())
    one_way = nn.RNN(F, H, dtype=torch.float64)
    one_way.load_state_dict(
        {k.removesuffix("_reverse"): v for k, v in layer.named_parameters() if k.endswith("_reverse")}
    )
    xs = [x.flip(0) for x in batches()]
    hs = [one_way(x)[0] for x in xs]
    statistics = layer.statistics()["l0_reverse"]
    check(statistics, "input", rms(*(x @ layer.weight_ih_l0_reverse.T for x in xs)), largest(*xs))
    recurrent = [hidden_before(h) @ layer.weight_hh_l0_reverse.T for h in hs]
    check(statistics, "recurrent", rms(*recurrent), largest(*hs))


def test_products_inside_an_lstm():
    layer = NoisyLSTM(F, H, proj_size=2, dtype=torch.float64)
    calibrate(layer, batches())
    products, factors, projected = [], [], []
    for x in batches():
        h, c = torch.zeros(N, 2, dtype=torch.float64), torch.zeros(N, H, dtype=torch.float64)
        for x_t in x:
            gates = (
                x_t @ layer.weight_ih_l0.T + layer.bias_ih_l0 + h @ layer.weight_hh_l0.T + layer.bias_hh_l0
            )
            i, f, g, o = gates.chunk(4, 1)
            i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
            products += [f * c, i * g]
            factors += [f, c, i, g]
            c = f * c + i * g
            products.append(o * c.tanh())
            factors += [o, c.tanh()]
            h = (o * c.tanh()) @ layer.weight_hr_l0.T
            projected.append(h)
    check(layer.statistics()["l0"], "elementwise", rms(*products), largest(*factors))
    assert layer.statistics()["l0"].rms["projection"] == pytest.approx(rms(*projected), rel=1e-9)


def test_gru():
    layer = NoisyGRU(F, H, dtype=torch.float64)
    calibrate(layer, batches())
    products, factors, outputs = [], [], []
    for x in batches():
        h = torch.zeros(N, H, dtype=torch.float64)
        for x_t in x:
            inward, recurrent = x_t @ layer.weight_ih_l0.T, h @ layer.weight_hh_l0.T
            i_r, i_z, i_n = inward.chunk(3, 1)
            h_r, h_z, h_n = recurrent.chunk(3, 1)
            outputs += [i_r + h_r, i_z + h_z, i_n, h_n]  # the n gate has two outputs
            b_i, b_h = layer.bias_ih_l0.chunk(3), layer.bias_hh_l0.chunk(3)
            r = (i_r + h_r + b_i[0] + b_h[0]).sigmoid()
            z = (i_z + h_z + b_i[1] + b_h[1]).sigmoid()
            n = (i_n + b_i[2] + r * (h_n + b_h[2])).tanh()
            products += [r * (h_n + b_h[2]), (1 - z) * n, z * h]
            factors += [r, h_n + b_h[2], 1 - z, n, z, h]
            h = (1 - z) * n + z * h
    statistics = layer.statistics()["l0"]
    assert statistics.rms["gates"] == pytest.approx(rms(*outputs), rel=1e-9)
    check(statistics, "elementwise", rms(*products), largest(*factors))


def test_padding_does_not_count():
    layer = NoisyGRU(F, H, num_layers=2, bidirectional=True, dtype=torch.float64)
    x = batches()[0]
    lengths = [2, 6, 3, 1]
    calibrate(layer, [nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)])
    got = {part: (dict(s.rms), dict(s.bound)) for part, s in layer.statistics().items()}
    totals = {}
    for n, length in enumerate(lengths):  # each alone, pooled with its length as weight
        calibrate(layer, [x[:length, n : n + 1]])
        for part, s in layer.statistics().items():
            for site in s.sites:
                square, bound = totals.get((part, site), (0.0, 0.0))
                totals[part, site] = (square + length * s.rms[site] ** 2, max(bound, s.bound[site]))
    for (part, site), (square, bound) in totals.items():
        assert got[part][0][site] == pytest.approx(math.sqrt(square / sum(lengths)), rel=1e-9)
        assert got[part][1][site] == pytest.approx(bound, rel=1e-9)


def test_linear():
    layer = NoisyLinear(F, H, dtype=torch.float64)
    calibrate(layer, batches())
    xs = torch.cat(batches())
    check(layer.statistics()["l0"], "output", rms(xs @ layer.weight.T), largest(xs))


class Network(NoisyModule):
    def __init__(self):
        super().__init__()
        self.recurrent = NoisyLSTM(F, H, num_layers=2, dropout=0.5, dtype=torch.float64)
        self.frozen = nn.Dropout(0.5)
        self.classifier = NoisyLinear(H, 2, dtype=torch.float64)

    def forward(self, x):
        return self.classifier(self.frozen(self.recurrent(x)[0]))


def everything(network):
    return {
        (name, part): (dict(s.rms), dict(s.bound))
        for name, module in network.named_modules()
        if hasattr(module, "statistics")
        for part, s in module.statistics().items()
    }


class TestCalibrate:
    def test_is_clean_and_leaves_everything_as_it_was(self):
        network = Network()
        calibrate(network, batches())
        expected = everything(network)
        network.train()
        network.frozen.eval()
        noise = Noise(3.0, seed=1)
        network.noise = noise
        calibrate(network, batches())
        assert everything(network) == expected
        assert network.noise is noise
        assert network.recurrent.training
        assert network.classifier.training
        assert not network.frozen.training
        assert not any(parameter.grad is not None for parameter in network.parameters())

    def test_forgets_by_default_and_keeps_with_momentum(self):
        layer = NoisyLinear(F, H, dtype=torch.float64)
        calibrate(layer, batches(0))
        first = layer.statistics()["l0"].as_tensor()
        calibrate(layer, batches(1))
        second = layer.statistics()["l0"].as_tensor()
        calibrate(layer, batches(0))
        calibrate(layer, batches(1), momentum=0.75)
        mixed = layer.statistics()["l0"].as_tensor()
        assert mixed[0, 0] ** 2 == pytest.approx(float(0.75 * first[0, 0] ** 2 + 0.25 * second[0, 0] ** 2))
        assert mixed[1, 0] == pytest.approx(float(0.75 * first[1, 0] + 0.25 * second[1, 0]))
        calibrate(layer, batches(1))
        assert torch.equal(layer.statistics()["l0"].as_tensor(), second)

    def test_the_first_one_needs_no_past(self):
        layer, twin = (NoisyLinear(F, H, dtype=torch.float64) for _ in range(2))
        twin.load_state_dict(layer.state_dict())
        calibrate(layer, batches(), momentum=0.9)
        calibrate(twin, batches())
        assert torch.equal(layer.statistics()["l0"].as_tensor(), twin.statistics()["l0"].as_tensor())

    def test_without_data(self):
        with pytest.raises(UserError, match="at least one batch"):
            calibrate(Network(), [])

    def test_one_that_failed_leaves_no_trace(self):
        layer = NoisyLinear(F, H, dtype=torch.float64)
        layer.train()
        calibrate(layer, batches())
        expected = layer.statistics()["l0"].as_tensor()
        with pytest.raises(RuntimeError):
            calibrate(layer, [100 * batches()[0], torch.zeros(1, F + 1).double()])
        assert torch.equal(layer.statistics()["l0"].as_tensor(), expected)
        assert layer.training
        calibrate(layer, batches())
        assert torch.equal(layer.statistics()["l0"].as_tensor(), expected)


class TestState:
    def test_has_torchs_keys_until_it_is_calibrated(self):
        network = Network()
        assert not any("signal_statistics" in key for key in network.state_dict())
        calibrate(network, batches())
        assert sorted(key for key in network.state_dict() if "signal_statistics" in key) == [
            "classifier.signal_statistics.l0",
            "classifier.signal_statistics.l0.outputs",
            "recurrent.signal_statistics.l0",
            "recurrent.signal_statistics.l0.outputs",
            "recurrent.signal_statistics.l1",
            "recurrent.signal_statistics.l1.outputs",
        ]

    def test_round_trip(self, tmp_path):
        network, twin = Network(), Network()
        calibrate(network, batches())
        torch.save(network.state_dict(), tmp_path / "state.pt")
        twin.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert everything(twin) == everything(network)
        with (
            network.under(Noise(0.3, scale="signal", draw=0)),
            twin.under(Noise(0.3, scale="signal", draw=0)),
        ):
            assert torch.equal(network.eval()(batches()[0]), twin.eval()(batches()[0]))

    def test_other_weights_without_statistics_make_it_uncalibrated(self):
        layer = NoisyLSTM(F, H)
        calibrate(layer, [torch.randn(T, N, F)])
        layer.load_state_dict(nn.LSTM(F, H).state_dict())
        with layer.under(Noise(0.5, scale="signal")), pytest.raises(UserError, match="calibrate"):
            layer(torch.randn(T, N, F))

    def test_unknown_keys_are_still_refused(self):
        layer = NoisyLSTM(F, H)
        with pytest.raises(RuntimeError, match="nonsense"):
            layer.load_state_dict({**layer.state_dict(), "nonsense": torch.zeros(1)})


class TestSignalToNoise:
    def test_needs_calibration(self):
        network = Network()
        for scale in ("absolute", "signal", "range"):
            assert snr_db(network, Noise(0.5, scale=scale)) is None
        for scale in ("signal", "range"):
            with network.under(Noise(0.5, scale=scale)), pytest.raises(UserError, match="calibrate"):
                network(batches()[0])

    def test_no_noise(self):
        assert snr_db(Network(), Noise()) == math.inf

    @pytest.mark.parametrize(
        "sites", [("input",), ("recurrent",), ("input", "recurrent"), ("output",), SITES]
    )
    @pytest.mark.parametrize("kind", [NoisyRNN, NoisyLSTM, NoisyGRU])
    def test_signal(self, sites, kind):
        network = Network()
        network.recurrent = kind(F, H, num_layers=2, dtype=torch.float64)
        network.forward = lambda x: network.classifier(network.recurrent(x)[0])
        calibrate(network, batches())
        assert snr_db(network, Noise(0.1, scale="signal", sites=sites)) == pytest.approx(20)

    @pytest.mark.parametrize("arrays", ["joint", "separate"])
    def test_powers_of_every_site(self, arrays):
        layer = NoisyLSTM(F, H, proj_size=2, bidirectional=True, dtype=torch.float64)
        calibrate(layer, batches())
        rows = layer.signal_and_noise_power(Noise(0.5, scale="signal", sites=SITES, arrays=arrays).hardware)
        of_gates = ["input"] if arrays == "joint" else ["input", "recurrent"]
        sites = sorted([*of_gates, "recurrent", "elementwise"])  # recurrent: of the projection
        for part in ("l0", "l0_reverse"):
            assert sorted(row[1] for row in rows if row[0] == part) == sites
        for _, _, signal, power in rows:
            assert signal > 0
            assert power == pytest.approx(signal / 4)

    def test_absolute_is_the_ratio_of_the_mean_powers(self):
        network = Network().eval()
        calibrate(network, batches())
        recurrent, classifier = network.recurrent.statistics(), network.classifier.statistics()
        powers = [recurrent["l0"].rms["gates"], recurrent["l1"].rms["gates"], classifier["l0"].rms["output"]]
        expected = 10 * math.log10(sum(p**2 for p in powers) / 3 / 0.7**2)
        assert snr_db(network, Noise(0.7)) == pytest.approx(expected)
        assert snr_db(network, Noise(0.7, sites=SITES)) == pytest.approx(expected)  # of matrix products only
        assert snr_db(network, Noise(0.7)) - snr_db(network, Noise(1.4)) == pytest.approx(20 * math.log10(2))
