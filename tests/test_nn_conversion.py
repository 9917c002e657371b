"""Torch's own modules made noisy: against themselves, and against layers that were noisy from the start."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from asr_dni.errors import UserError
from asr_dni.nn import NoisyConv2d, NoisyGRU, NoisyLinear, NoisyLSTM, NoisyRNN, calibrate, convert, snr_db
from asr_dni.noise import Hardware, Multiplicative, Noise, NoisyModule, Realisation, under

LAYERS = {
    "RNN": (nn.RNN(3, 4, 2, nonlinearity="relu"), NoisyRNN, (5, 2, 3)),
    "LSTM": (nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2, batch_first=True), NoisyLSTM, (2, 5, 3)),
    "GRU": (nn.GRU(3, 4, bias=False, dropout=0.0), NoisyGRU, (5, 2, 3)),
    "Linear": (nn.Linear(3, 4), NoisyLinear, (5, 2, 3)),
    "Conv2d": (nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), NoisyConv2d, (2, 2, 6, 6)),
}


class Spotter(nn.Module):
    """Convolution, recurrence and a head that is tied to a layer of another name."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())
        self.recurrent = nn.ModuleList([nn.LSTM(12, 5), nn.GRU(5, 5)])
        self.head = nn.Linear(5, 5)
        self.tied = nn.Linear(5, 5)
        self.tied.weight = self.head.weight
        self.again = self.head

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(T, N, 5)`` for ``(N, 1, T, 4)``."""
        y = self.front(x).permute(2, 0, 1, 3).flatten(2)
        for layer in self.recurrent:
            y = layer(y)[0]
        return self.again(self.tied(self.head(y)))


@pytest.fixture
def spotter() -> Spotter:
    torch.manual_seed(0)
    return Spotter().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 1, 6, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("layer", "kind", "shape"), LAYERS.values(), ids=LAYERS)
def test_a_layer_becomes_its_counterpart(layer, kind, shape):
    noisy, x = convert(layer), torch.randn(shape)
    assert type(noisy) is kind
    assert type(layer) is not kind
    assert list(noisy.state_dict()) == list(layer.state_dict())
    results = [network(x) for network in (noisy, layer)]
    one, other = (its if isinstance(its, Tensor) else its[0] for its in results)
    torch.testing.assert_close(one, other)
    gradients = [
        torch.autograd.grad(its.square().sum(), network.parameters())
        for its, network in ((one, noisy), (other, layer))
    ]
    torch.testing.assert_close(*gradients)
    hardware = Hardware(output=Multiplicative(0.3), sites=("convolution", "input", "recurrent", "output"))
    fresh = convert(kind(*_arguments(layer)))  # one that is noisy already stays as it is
    fresh.load_state_dict(layer.state_dict())
    with noisy.under(hardware), fresh.under(hardware):
        results = [network(x) for network in (noisy, fresh)]
    one, other = (its if isinstance(its, Tensor) else its[0] for its in results)
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def _arguments(layer: nn.Module) -> tuple[object, ...]:
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, nn.Conv2d):
        return (
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )
    first = (layer.input_size, layer.hidden_size, layer.num_layers)
    rest = (layer.bias, layer.batch_first, layer.dropout, layer.bidirectional)
    if isinstance(layer, nn.RNN):
        return (*first, layer.nonlinearity, *rest)
    return (*first, *rest, layer.proj_size) if isinstance(layer, nn.LSTM) else (*first, *rest)


class TestNetwork:
    def test_without_noise_it_is_what_it_was(self, spotter, x):
        noisy = convert(spotter)
        assert type(noisy) is Spotter
        assert list(noisy.state_dict()) == list(spotter.state_dict())
        assert not any(isinstance(module, NoisyModule) for module in spotter.modules())
        torch.testing.assert_close(noisy(x), spotter(x))
        spotter.load_state_dict(noisy.state_dict())

    def test_tied_weights_and_layers_stay_tied(self, spotter):
        noisy = convert(spotter)
        assert noisy.tied.weight is noisy.head.weight
        assert noisy.again is noisy.head
        assert noisy.head.weight is not spotter.head.weight

    def test_noise_is_in_every_layer_and_ends_with_the_block(self, spotter, x):
        noisy = convert(spotter)
        clean, sites = noisy(x), ("convolution", "input", "recurrent", "output")
        with under(noisy, Hardware(output=Multiplicative(0.3), sites=sites), Realisation(seed=1)):
            first, second = noisy(x), noisy(x)
        assert not torch.equal(first, second)
        with under(noisy, Hardware(output=Multiplicative(0.3), sites=sites), Realisation(seed=1)):
            assert torch.equal(noisy(x), first)
        assert torch.equal(noisy(x), clean)
        for site in sites:
            with under(noisy, Noise(sigma=0.3, sites=(site,))):
                assert not torch.allclose(noisy(x), clean)

    def test_layers_have_noise_of_their_own(self, spotter):
        noisy = convert(nn.Sequential(nn.Linear(4, 4), nn.Identity(), nn.Linear(4, 4)))
        with under(noisy, Noise(sigma=1.0)):
            one, other = noisy[0](torch.zeros(3, 4)), noisy[2](torch.zeros(3, 4))
        assert not torch.allclose(one - noisy[0].bias, other - noisy[2].bias)

    def test_sizes_of_signals_can_be_estimated(self, spotter, x):
        noisy = convert(spotter)
        calibrate(noisy, [x])
        with under(noisy, Noise(sigma=0.1, scale="signal")):
            assert torch.isfinite(noisy(x)).all()
        assert snr_db(noisy, Noise(sigma=0.1, scale="signal")) == pytest.approx(20.0, abs=3.0)

    def test_it_trains_under_noise(self, spotter, x):
        noisy = convert(spotter).train()
        with under(noisy, Noise(sigma=0.5, seed=2)):
            noisy(x).square().mean().backward()
        assert all(its.grad is not None and its.grad.any() for its in noisy.parameters())

    def test_hooks_and_mode_are_kept(self, spotter, x):
        seen = []
        spotter.head.register_forward_hook(lambda module, *rest: seen.append(type(module)))
        spotter.recurrent[0].train()
        noisy = convert(spotter)
        noisy(x)
        assert seen == [NoisyLinear, NoisyLinear]
        assert noisy.recurrent[0].training
        assert not noisy.recurrent[1].training

    def test_copies_are_noisy_too(self, spotter, x):
        noisy = copy.deepcopy(convert(spotter))
        with under(noisy, Noise(sigma=0.5)):
            assert not torch.allclose(noisy(x), spotter(x))


class TestWhatStaysDigital:
    def test_what_is_skipped_is_as_it_was(self, spotter):
        noisy = convert(spotter, skip=["front", "recurrent.1"])
        assert type(noisy.front[0]) is nn.Conv2d
        assert type(noisy.recurrent[0]) is NoisyLSTM
        assert type(noisy.recurrent[1]) is nn.GRU

    def test_what_cannot_be_noisy_is_named(self):
        network = nn.Sequential(
            nn.Linear(4, 4),
            nn.MultiheadAttention(4, 2),
            nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"),
            parametrizations.weight_norm(nn.Linear(4, 4)),
        )
        with pytest.warns(UserWarning, match=r"1 \(MultiheadAttention\), 2 \(Conv2d\), 3 \(Parametrized"):
            noisy = convert(network)
        assert [type(layer) for layer in noisy[:2]] == [NoisyLinear, nn.MultiheadAttention]
        assert not any(isinstance(module, NoisyModule) for module in noisy[1].modules())

    @pytest.mark.parametrize(
        ("network", "skip", "said"),
        [
            (nn.Sequential(nn.Linear(2, 2)), ["1"], "skip names '1', but the network's modules are 0"),
            (nn.Sequential(nn.ReLU()), [], "Sequential has no layer to make noisy: one of torch.nn.RNN"),
        ],
    )
    def test_mistakes_are_one_line(self, network, skip, said):
        with pytest.raises(UserError, match=said):
            convert(network, skip)

    def test_noise_of_a_network_without_noisy_layers(self, spotter):
        with pytest.raises(UserError, match="Spotter has no noisy layer"), under(spotter, Noise(sigma=1.0)):
            pass
