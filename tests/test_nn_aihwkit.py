"""Networks as aihwkit-lightning and aihwkit have them, and back, where these are installed."""

import importlib.util
import sys
from typing import Any

import pytest
import torch
from aihwkit_core import import_aihwkit
from torch import Tensor, nn

from asr_dni.errors import UserError
from asr_dni.model import KeywordNetwork, NetworkSettings
from asr_dni.model.foreign_weights import read_state_dict, take_weights
from asr_dni.nn import (
    NoisyConv2d,
    NoisyGRU,
    NoisyLinear,
    NoisyLSTM,
    NoisyRecurrent,
    NoisyRNN,
    calibrate,
    learn_bounds,
    stack_networks,
)
from asr_dni.nn.aihwkit import from_aihwkit, from_aihwkit_lightning, to_aihwkit, to_aihwkit_lightning
from asr_dni.noise import (
    PCM,
    ClippedWeights,
    Gaussian,
    GaussianOfRange,
    GaussianWeights,
    Hardware,
    IRDrop,
    Multiplicative,
    QuantisedWeights,
    Realisation,
    StuckCells,
    UniformConverter,
)

WAYS = {
    "aihwkit_lightning": (to_aihwkit_lightning, from_aihwkit_lightning),
    "aihwkit": (to_aihwkit, from_aihwkit),
}
LAYERS = {
    "LSTM": lambda: NoisyLSTM(5, 4, 2, bidirectional=True, dropout=0.2),
    "GRU": lambda: NoisyGRU(5, 4),
    "RNN without biases": lambda: NoisyRNN(5, 4, 2, bias=False),
    "GRU in two directions": lambda: NoisyGRU(5, 4, bidirectional=True),
    "linear": lambda: NoisyLinear(5, 3),
    "linear without biases": lambda: NoisyLinear(5, 3, bias=False),
    "convolution": lambda: NoisyConv2d(2, 3, (3, 2), stride=(1, 2), padding=(1, 0)),
}


@pytest.fixture(params=WAYS)
def toolkit(request) -> str:
    if request.param == "aihwkit":
        import_aihwkit()
    elif importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


def inputs(name: str) -> Tensor:
    return torch.randn(6, 2, 7, 8) if name == "convolution" else torch.randn(7, 3, 5)


def calibrated(layer: Any, x: Tensor) -> Any:
    calibrate(layer, [x])
    return layer


@pytest.mark.slow
class TestWithNoiseOff:
    @pytest.mark.parametrize("name", LAYERS)
    def test_a_layer_computes_the_same_there_and_back(self, toolkit, name):
        torch.manual_seed(0)
        to, back = WAYS[toolkit]
        layer, x = LAYERS[name]().eval(), inputs(name)
        there = to(layer)
        assert type(there).__module__.startswith(f"{toolkit}.")
        expected, got = layer(x), there(x)
        if isinstance(expected, tuple):
            expected, got = expected[0], got[0]
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
        here = back(there)
        assert type(here) is type(layer)
        assert not here.training
        assert {key: value.tolist() for key, value in here.state_dict().items()} == {
            key: value.tolist() for key, value in layer.state_dict().items()
        }
        if isinstance(layer, nn.RNNBase):
            assert (here.dropout, here.num_layers, here.bidirectional) == (
                layer.dropout,
                layer.num_layers,
                layer.bidirectional,
            )

    @pytest.mark.parametrize("pooling", ["frame", "last", "max"])
    def test_a_spotters_network_decides_the_same(self, toolkit, pooling):
        torch.manual_seed(0)
        to, back = WAYS[toolkit]
        convolutions: Any = {"blocks": [{"channels": 3, "kernel": [3, 3], "stride": [1, 2]}], "width": 4}
        settings = NetworkSettings(units=6, pooling=pooling, convolutions=convolutions)
        network, x = KeywordNetwork(settings, 8, 5).eval(), torch.randn(4, 9, 8)
        there = to(network)
        torch.testing.assert_close(there(x), network(x), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            there.logits_over_time(x), network.logits_over_time(x), rtol=1e-5, atol=1e-6
        )
        assert not any(
            isinstance(module, NoisyLSTM | NoisyLinear | NoisyConv2d) for module in there.modules()
        )
        here = back(there)
        torch.testing.assert_close(here(x), network(x), rtol=0, atol=0)
        assert isinstance(network.recurrent, NoisyLSTM)  # the original is left alone

    def test_convolutions_on_hardware_take_their_normalisation_along(self, toolkit):
        torch.manual_seed(0)
        to, back = WAYS[toolkit]
        convolutions: Any = {"blocks": [{"channels": 3, "kernel": [3, 3]}], "width": 4}
        network, x = (
            KeywordNetwork(NetworkSettings(units=6, convolutions=convolutions), 8, 5),
            torch.randn(4, 9, 8),
        )
        for _ in range(3):
            network(x)
        network.eval()
        calibrate(network, [x])
        there = to(network, Hardware(dac=UniformConverter(24), sites=("convolution",)))
        kinds = [type(module).__name__ for module in there.convolutions.modules()]
        assert not any("BatchNorm" in kind for kind in kinds)
        torch.testing.assert_close(there(x), network(x), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(back(there)(x), network(x), rtol=1e-3, atol=1e-4)

    def test_what_came_back_is_a_file_that_convert_takes(self, toolkit, tmp_path):
        to, back = WAYS[toolkit]
        network = KeywordNetwork(NetworkSettings(units=4, layers=1), 8, 5)
        torch.save(back(to(network)).state_dict(), tmp_path / "weights.pt")
        other = KeywordNetwork(NetworkSettings(units=4, layers=1), 8, 5)
        assert take_weights(other, read_state_dict(tmp_path / "weights.pt")) == []
        torch.testing.assert_close(other.state_dict(), network.state_dict(), rtol=0, atol=0)

    def test_what_is_skipped_or_tied_stays_so(self, toolkit):
        to, _ = WAYS[toolkit]
        tied = NoisyLinear(4, 4)
        network = nn.ModuleDict({"a": tied, "b": tied, "c": NoisyLinear(4, 2)})
        there = to(network, skip=["c"])
        assert there["a"] is there["b"] is not tied
        assert isinstance(there["c"], NoisyLinear)


@pytest.mark.slow
class TestHardware:
    @pytest.mark.parametrize("learned", [False, True])
    def test_converters_have_the_same_levels(self, toolkit, learned):
        """On a grid of inputs, beyond the bounds of both; a 6-bit DAC and a 5-bit ADC."""
        torch.manual_seed(0)
        x = torch.cat([torch.linspace(-3, 3, 501)[:, None] * torch.randn(7), torch.randn(200, 7)])
        layer = calibrated(NoisyLinear(7, 4), x).eval()
        exact = layer(x)
        hardware = Hardware(
            dac=UniformConverter(6, 0.8, learned=learned), adc=UniformConverter(5, 1.5, learned=learned)
        )
        learn_bounds(layer, hardware)
        for name, parameter in layer.named_parameters():
            if "log_bound" in name:
                nn.init.constant_(parameter, -0.2 if "dac" in name else 0.3)
        with layer.under(hardware):
            expected = layer(x)
        there = WAYS[toolkit][0](layer, hardware).eval()
        step = (2.03 if learned else 1.5) * float(x.abs().max() * layer.weight.abs().max()) / (2**4 - 1)
        off = (there(x) - expected).abs()
        assert (off > 1e-4).float().mean() < 2e-3  # rounding of float32 decides what lies between two levels
        assert off.max() < 1.01 * step
        assert (expected - exact).abs().max() > step
        assert (expected - layer.bias).unique().numel() < 4 * 2**5

    def test_of_a_recurrent_layer_too(self, toolkit):
        torch.manual_seed(0)
        x = torch.randn(9, 40, 6)
        layer = calibrated(NoisyLSTM(6, 5, bidirectional=True), x).eval()
        hardware = Hardware(dac=UniformConverter(8), adc=UniformConverter(10, 4.0), arrays="separate")
        with layer.under(hardware):
            expected = layer(x)[0]
        off = (WAYS[toolkit][0](layer, hardware).eval()(x)[0] - expected).abs()
        assert off.mean() < 0.1 * (expected - layer(x)[0]).abs().mean()

    @pytest.mark.parametrize(("per", "tile"), [("tensor", None), ("output", None), ("tensor", 3)])
    def test_output_noise_has_the_same_deviation(self, toolkit, per, tile):
        """50,000 numbers at each of 4 outputs: a false alarm in 1e-6 cases each."""
        if toolkit == "aihwkit" and tile is not None:
            pytest.skip("its torch tile has the whole matrix")
        torch.manual_seed(0)
        x = torch.randn(50_000, 6)
        layer = calibrated(NoisyLinear(6, 4), x)
        quiet = Hardware(dac=UniformConverter(24))
        hardware = Hardware(dac=UniformConverter(24), output=GaussianOfRange(0.1, per=per), tile=tile)
        there = WAYS[toolkit][0](layer, hardware).train()
        with layer.under(hardware, Realisation(seed=1)), torch.no_grad():
            ours = layer(x)
        with layer.under(quiet), torch.no_grad():
            exact = layer(x)
        for a, b in zip((ours - exact).T, (there(x).detach() - exact).T, strict=True):
            assert float(a.std() / b.std()) == pytest.approx(1, abs=4.9 / len(x) ** 0.5)


@pytest.mark.slow
def test_weights_of_lightning_are_as_noisy_and_as_coarse():
    """20,000 matrices of 4 weights: a false alarm in 1e-6 cases each."""
    pytest.importorskip("aihwkit_lightning")
    torch.manual_seed(0)
    layer = NoisyLinear(4, 4, bias=False)
    eye = torch.eye(4)
    there = to_aihwkit_lightning(layer, Hardware(weight=GaussianWeights(0.1, per="output"))).train()
    drawn = torch.stack([there(eye).detach().T for _ in range(20_000)])
    largest = layer.weight.detach().abs().amax(1, keepdim=True)
    expected = (0.1 * largest).expand(4, 4)
    torch.testing.assert_close(drawn.std(0), expected, rtol=4.9 / 40_000**0.5, atol=0)
    coarse = Hardware(weight=QuantisedWeights(8))
    with layer.under(coarse):
        rounded = layer(eye)
    torch.testing.assert_close(to_aihwkit_lightning(layer, coarse)(eye), rounded)
    there = to_aihwkit_lightning(layer, Hardware(weight=ClippedWeights(1.0, per="output")))
    there.clip_weights()  # what its optimiser does after a step; its deviation is that of a sample
    with layer.under(Hardware(weight=ClippedWeights((4 / 3) ** 0.5, per="output"))):
        torch.testing.assert_close(there(eye), layer(eye))


@pytest.mark.slow
def test_a_chip_of_aihwkit_is_as_far_off():
    """PCM a day after programming, 40,000 weights: deviations of both, a false alarm in 1e-6 cases."""
    import_aihwkit()
    from aihwkit.inference import drift_analog_weights

    torch.manual_seed(0)
    layer = NoisyLinear(200, 200, bias=False).eval()
    eye = torch.eye(200)
    there = to_aihwkit(layer, Hardware(weight=PCM(time=86400.0, compensation="tensor"))).eval()
    drift_analog_weights(there, 86400.0)
    with layer.under(Hardware(weight=PCM(time=86400.0, compensation="tensor"))):
        ours = layer(eye)
    a, b = (its.detach() - layer(eye).detach() for its in (ours, there(eye)))
    assert float(a.std() / b.std()) == pytest.approx(1, abs=0.05)


HALF = UniformConverter(8, 0.5, "absolute")
REFUSED = {
    "Multiplicative": Hardware(Multiplicative(0.1), dac=UniformConverter(8)),
    "IRDrop": Hardware([GaussianOfRange(0.1), IRDrop(1.0)], dac=UniformConverter(8)),
    "its scale is absolute: give range": Hardware(Gaussian(0.1), dac=UniformConverter(8)),
    "no dac": Hardware(GaussianOfRange(0.1)),
    "adc .its scale is absolute": Hardware(dac=UniformConverter(8), adc=HALF),
    "StuckCells": Hardware(weight=StuckCells(stuck_at_zero=0.1)),
    "tile 3": Hardware(dac=UniformConverter(8), adc=UniformConverter(8), tile=3),
}


@pytest.mark.slow
class TestWhatIsRefused:
    @pytest.mark.parametrize("said", REFUSED)
    def test_hardware_without_an_equivalent(self, toolkit, said):
        layer = calibrated(NoisyLinear(6, 4), torch.randn(5, 6))
        with pytest.raises(UserError, match=f"{toolkit.replace('_', '-')} has no equivalent of .*{said}"):
            WAYS[toolkit][0](layer, REFUSED[said])

    @pytest.mark.parametrize(
        ("layer", "said"),
        [
            (NoisyLSTM(3, 2, batch_first=True), "batch_first is True"),
            (NoisyLSTM(3, 2, proj_size=1), "proj_size is not 0"),
            (NoisyRNN(3, 2, nonlinearity="relu"), "nonlinearity is relu"),
            (NoisyRecurrent("mgu", 3, 2), "NoisyRecurrent is none of NoisyRNN, NoisyLSTM, NoisyGRU"),
            (NoisyConv2d(4, 4, 3, groups=2), "groups is not 1"),
            (NoisyConv2d(4, 4, 3, padding="same"), "padding is 'same'"),
            (stack_networks([NoisyLinear(3, 2)] * 2), "a population of 2 networks: unstack them first"),
            (nn.Linear(3, 2), "Linear has no noisy layer"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_layers_without_an_equivalent(self, toolkit, layer, said):
        with pytest.raises(UserError, match=said):
            WAYS[toolkit][0](layer)

    def test_what_is_not_known_or_not_there(self, toolkit):
        to, back = WAYS[toolkit]
        with pytest.raises(UserError, match="the layer is not calibrated"):
            to(NoisyLinear(3, 2), Hardware(dac=UniformConverter(8)))
        joint = calibrated(NoisyLSTM(3, 2), torch.randn(4, 2, 3))
        with pytest.raises(UserError, match=r"arrays joint \(W_ih and W_hh have an array each there"):
            to(joint, Hardware(dac=UniformConverter(8)))
        with pytest.raises(UserError, match="has no layer of"):
            back(NoisyLinear(3, 2))
        with pytest.raises(UserError, match="skip names 'a'"):
            to(NoisyLinear(3, 2), skip=["a"])


@pytest.mark.parametrize("package", WAYS)
def test_without_the_toolkit_one_line_says_so(package, monkeypatch):
    monkeypatch.setitem(sys.modules, f"{package}.nn", None)
    for function in WAYS[package]:
        with pytest.raises(UserError, match=f"pip install {package.replace('_', '-')}"):
            function(NoisyLinear(3, 2))
