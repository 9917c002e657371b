import dataclasses
import math

import pytest
import torch
from torch import nn

from asr_dni.errors import UserError
from asr_dni.model import KeywordNetwork, NetworkSettings
from asr_dni.nn import calibrate
from asr_dni.noise import Noise

N, T, F, C, H = 5, 7, 6, 4, 8
TORCH_CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def make(**settings) -> KeywordNetwork:
    torch.manual_seed(0)
    settings = {"units": H, "layers": 2, "dropout": 0.0, **settings}
    network = KeywordNetwork(NetworkSettings(**settings), F, C).eval()
    if network.frame_weights is not None:  # zeros, before any training
        nn.init.normal_(network.frame_weights.weight)
    return network


def features(seed: int = 1) -> torch.Tensor:
    return torch.randn(N, T, F, generator=torch.Generator().manual_seed(seed))


def torch_logits(network: KeywordNetwork, x: torch.Tensor) -> torch.Tensor:
    """The same network out of torch.nn, pooled as the documentation says."""
    settings = network.settings
    recurrent = TORCH_CELLS[settings.cell](
        F, H, settings.layers, bidirectional=settings.bidirectional, batch_first=True
    )
    recurrent.load_state_dict(network.recurrent.state_dict())
    outputs, final = recurrent(x)
    h = final[0] if settings.cell == "lstm" else final
    weight, bias = network.classifier.weight, network.classifier.bias
    if settings.pooling == "frame":
        return torch.stack([outputs[:, t] @ weight.T + bias for t in range(T)]).mean(0)
    if settings.pooling == "attention":
        exponentials = [torch.exp(outputs[:, t] @ network.frame_weights.weight[0]) for t in range(T)]
        weighted = [outputs[:, t] * its[:, None] for t, its in enumerate(exponentials)]
        return sum(weighted) / sum(exponentials)[:, None] @ weight.T + bias
    pooled = {
        # The final states: in the reverse direction that is the state after the first frame.
        "last": torch.cat((h[-2], h[-1]), 1) if settings.bidirectional else h[-1],
        "mean": outputs.sum(1) / T,
        "max": outputs.max(1).values,
    }[settings.pooling]
    return pooled @ weight.T + bias


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pooling", ["last", "mean", "max", "frame", "attention"])
def test_without_noise_it_is_the_network_of_torch(cell, bidirectional, pooling):
    network = make(cell=cell, bidirectional=bidirectional, pooling=pooling)
    torch.testing.assert_close(network(features()), torch_logits(network, features()), rtol=1e-4, atol=1e-5)


def test_weights_of_frames_begin_as_the_mean_and_are_learned():
    torch.manual_seed(0)
    networks = [
        KeywordNetwork(NetworkSettings(units=H, layers=1, pooling=pooling), F, C).eval()
        for pooling in ("attention", "frame")
    ]
    for name, value in networks[1].state_dict().items():
        networks[0].state_dict()[name].copy_(value)
    torch.testing.assert_close(networks[0](features()), networks[1](features()))
    networks[0](features()).square().sum().backward()
    assert networks[0].frame_weights.weight.grad.abs().min() > 0


def test_weights_of_frames_average_the_classifiers_noise_and_have_none():
    """Of 20,000 numbers a variance has a relative deviation of 1 %; false alarms 1e-6."""
    network, x = make(pooling="attention"), features()[:1].expand(5000, -1, -1)
    clean = network(x)
    with network.under(Noise(1.0, sites=("output",))):
        noise = (network(x) - clean).detach()
    outputs = network.recurrent(x[:1].transpose(0, 1))[0]
    weights = (outputs @ network.frame_weights.weight[0]).softmax(0)
    assert float(noise.var()) == pytest.approx(float(weights.square().sum()), rel=0.049)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("noise", [Noise(), Noise(0.7, seed=3, draw=2)])
def test_project_and_classify_are_forward(bidirectional, noise):
    network, x = make(bidirectional=bidirectional), features()
    projection = network.project(x)
    assert projection.shape == (T, N, 4 * H * (2 if bidirectional else 1))
    with network.under(noise):
        assert torch.equal(network.classify(projection), network(x))


def test_one_projection_serves_any_noise():
    network, x = make(), features()
    projection = network.project(x)
    before = projection.clone()
    results = []
    for draw in range(2):
        with network.under(Noise(1.0, draw=draw)):
            results.append(network.classify(projection))
    assert not torch.equal(*results)
    assert torch.equal(projection, before)
    assert torch.equal(network.classify(projection), network(x))


def test_a_clips_noise_does_not_depend_on_its_batch():
    network, x = make(), features()
    ids = torch.tensor([11, 22, 33, 44, 55])
    with network.under(Noise(1.0, draw=0, sample_ids=ids)):
        together = network(x)
    for chosen in ([0], [3, 1]):
        with network.under(Noise(1.0, draw=0, sample_ids=ids[chosen])):
            torch.testing.assert_close(network(x[chosen]), together[chosen], rtol=1e-4, atol=1e-5)


def test_averaging_frames_averages_the_classifiers_noise():
    """The noise of T independent classifications averages to sigma / sqrt(T); with one classification it is sigma."""
    x = torch.zeros(2000, T, F)
    spread = {}
    for pooling in ("frame", "last"):
        network = make(pooling=pooling)
        with network.under(Noise(0.5, sites=("output",), draw=0)):
            spread[pooling] = network(x).detach().std(0).mean().item()
    # 8,000 numbers: the relative standard error of the deviation is 0.8 %; 4 % is five of them.
    assert spread["last"] == pytest.approx(0.5, rel=0.04)
    assert spread["frame"] == pytest.approx(0.5 / math.sqrt(T), rel=0.04)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_gains_multiply_torchs_initial_weights(cell):
    gains = {"input_gain": 4.0, "inner_gain": 3.0, "recurrent_gain": 2.0, "output_gain": 5.0}
    network = make(cell=cell, forget_bias=1.5, **gains)
    torch.manual_seed(0)
    plain = TORCH_CELLS[cell](F, H, 2)
    classifier = nn.Linear(H, C)
    expected = {
        name: value
        * (4 if "ih_l0" in name else 3 if "weight_ih" in name else 2 if "weight_hh" in name else 1)
        for name, value in plain.state_dict().items()
    }
    if cell == "lstm":
        for name in expected:
            if name.startswith("bias_hh"):
                expected[name][H : 2 * H] += 1.5  # gates in the order i, f, g, o
    expected |= {"bias_ih_l0": plain.bias_ih_l0}
    torch.testing.assert_close(dict(network.recurrent.state_dict()), expected)
    torch.testing.assert_close(network.classifier.weight, 5 * classifier.weight)
    torch.testing.assert_close(network.classifier.bias, classifier.bias)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_orthogonal_recurrent_weights_keep_the_length_of_what_they_carry(cell):
    """W W' is gain**2 times the identity for every gate; all other weights stay what they are."""
    plain = make(cell=cell, recurrent_gain=1.5)
    network = make(cell=cell, recurrent_gain=1.5, recurrent_initialisation="orthogonal")
    for name, value in network.state_dict().items():
        if "weight_hh" in name:
            for gate in value.split(H):
                torch.testing.assert_close(gate @ gate.T, 1.5**2 * torch.eye(H), atol=1e-5, rtol=0)
        else:
            torch.testing.assert_close(value, plain.state_dict()[name])


@pytest.mark.parametrize("layers", [1, 2])
def test_dropout_is_on_in_training_only_and_noise_in_either(layers):
    network, x = make(dropout=0.5, layers=layers), features()
    assert torch.equal(network(x), network(x))
    network.train()
    assert not torch.equal(network(x), network(x))
    network.eval()
    with network.under(Noise(1.0)):
        assert not torch.equal(network(x), network(x))


def test_snr_is_known_after_calibration():
    network, x = make(), features()
    assert network.snr_db(Noise()) == math.inf
    assert network.snr_db(Noise(1.0)) is None
    calibrate(network, [x])
    # Twice the noise is 6.02 dB less.
    difference = network.snr_db(Noise(0.5)) - network.snr_db(Noise(1.0))
    assert difference == pytest.approx(20 * math.log10(2))
    one_site = Noise(0.25, scale="signal", sites=("output",))
    assert network.snr_db(one_site) == pytest.approx(-20 * math.log10(0.25), abs=1e-6)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cell", "lsmt"),
        ("units", 0),
        ("layers", 0),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("pooling", "first"),
        ("input_gain", 0.0),
        ("recurrent_initialisation", "identity"),
        ("output_gain", math.nan),
    ],
)
def test_a_wrong_setting_is_named(key, value):
    with pytest.raises(UserError, match=rf"network {key} is .*: give "):
        NetworkSettings(**{key: value})


def test_settings_are_plain():
    assert NetworkSettings(**dataclasses.asdict(NetworkSettings(cell="gru"))) == NetworkSettings(cell="gru")
