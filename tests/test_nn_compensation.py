"""Gates softened for missing noise: against exact means by quadrature, and networks with other weights; K at once."""

import math

import numpy as np
import pytest
import torch

from asr_dni.errors import UserError
from asr_dni.nn import (
    CELLS,
    NoisyGRU,
    NoisyLinear,
    NoisyLSTM,
    NoisyRecurrent,
    NoisyRNN,
    calibrate,
    compensate,
    stack_networks,
    use_implementation,
)
from asr_dni.noise import SITES, Gaussian, Hardware, Noise, Uniform, UniformConverter

F, H, N, T = 4, 3, 2, 5
ARRAYS = ("joint", "separate")
SOFTENED = ("rnn_tanh", "lstm", "gru", "lstm_peephole", "mgu")
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
ACTIVATIONS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh}
LARGEST_ERROR = {"sigmoid": 0.02, "tanh": 0.04}
"""Of MacKay's approximation, for any argument and any deviation; the test below finds 0.0189 and 0.0378."""


def mean_of(function, a, s):
    """The mean of a function of a + s N by Gauss-Hermite quadrature; s may be a tensor that broadcasts to a."""
    nodes = torch.from_numpy(NODES)
    return (function(a[..., None] + torch.as_tensor(s)[..., None] * nodes) * torch.from_numpy(WEIGHTS)).sum(
        -1
    )


def make(cell, seed=0, **keywords):
    torch.manual_seed(seed)
    return NoisyRecurrent(cell, F, H, dtype=torch.float64, **keywords)


def inputs(seed=1, steps=T):
    return torch.randn(steps, N, F, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def preactivations(layer, x, h):
    """W_ih x + b_ih and W_hh h + b_hh of the first layer, by gate."""
    inward = x @ layer.weight_ih_l0.mT + layer.bias_ih_l0
    hidden = h @ layer.weight_hh_l0.mT + layer.bias_hh_l0
    return inward.chunk(len(CELLS[layer.cell].gates), -1), hidden.chunk(len(CELLS[layer.cell].gates), -1)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_approximation_is_as_close_to_the_exact_mean_as_is_said(activation):
    cell = CELLS["rnn_tanh"] if activation == "tanh" else CELLS["lstm"]
    worst = 0.0
    a = torch.linspace(-30, 30, 601, dtype=torch.float64)
    for s in (0.1, 0.5, 1.0, 2.0, 3.0):
        variance = torch.full((1, len(cell.gates)), s**2, dtype=torch.float64)
        factor = cell.softening(variance, torch.zeros_like(variance), torch.zeros(1, cell.products))[0, 0]
        approximate = ACTIVATIONS[activation](factor * a)
        worst = max(worst, float((approximate - mean_of(ACTIVATIONS[activation], a, s)).abs().max()))
    assert LARGEST_ERROR[activation] / 4 < worst < LARGEST_ERROR[activation]


@pytest.mark.parametrize("arrays", ARRAYS)
@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_an_lstms_cells_are_what_they_are_on_average_under_the_training_noise(arrays, sigma):
    layer, x = make("lstm"), inputs(steps=1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(3)
    h, c = torch.randn(2, 1, N, H, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).unbind(0)
    trained = 2.0
    products = 2 if arrays == "separate" else 1  # whose noises add up
    inward, hidden = preactivations(layer, x[0], h[0])
    i, f, g, _ = (one + two for one, two in zip(inward, hidden, strict=True))

    def mean_cell(*scales):
        of_sigmoid, of_tanh, s = scales
        of_i, of_f = (mean_of(lambda a: torch.sigmoid(of_sigmoid * a), its, s) for its in (i, f))
        return of_f * c[0] + of_i * mean_of(lambda a: torch.tanh(of_tanh * a), g, s)

    missing = products * (trained**2 - sigma**2)
    factors = [(1 + math.pi * missing / its) ** -0.5 for its in (8, 2)]
    exact = mean_cell(*factors, sigma * products**0.5)
    draws = 20_000 if sigma else 1
    noise = Noise(sigma=sigma, arrays=arrays, seed=4).compensating(trained)
    with torch.no_grad(), layer.under(noise.realised(draw=0)):
        repeated = x.repeat(1, draws, 1)
        _, (_, cells) = layer(repeated, tuple(its.repeat(1, draws, 1) for its in (h, c)))
    samples = cells[0].view(draws, N, H)
    if sigma:
        # Six cells, each within 4.5 standard errors: a false alarm in 25,000.
        assert ((samples.mean(0) - exact).abs() < 4.5 * samples.std(0) / draws**0.5).all()
    else:
        torch.testing.assert_close(samples[0], exact)
    # What it is all for: the mean under the training's own noise. Each of three gates is off by its bound at most.
    under_training = mean_cell(1, 1, trained * products**0.5)
    assert ((exact - under_training).abs() < 0.02 * c[0].abs() + 0.06).all()
    assert ((mean_cell(1, 1, 0) - under_training).abs() > 0.1).any()


def test_a_grus_state_is_about_what_it_is_on_average():
    layer, x = make("gru"), inputs(steps=1)
    h = torch.randn(1, N, H, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    trained = 2.0
    inward, hidden = preactivations(layer, x[0], h[0])
    z = mean_of(torch.sigmoid, inward[1] + hidden[1], trained)

    def candidate(r):  # given the gate, its two outputs' noises add up
        total = inward[2][..., None] + r * hidden[2][..., None]
        return mean_of(torch.tanh, total, trained * (1 + r**2).sqrt())

    nodes = torch.from_numpy(NODES)
    r = torch.sigmoid((inward[0] + hidden[0])[..., None] + trained * nodes)
    n = (candidate(r) * torch.from_numpy(WEIGHTS)).sum(-1)
    with torch.no_grad(), layer.under(Noise().compensating(trained)):
        _, softened = layer(x, h)
    exact = (1 - z) * n + z * h[0]
    assert (
        softened[0] - exact
    ).abs().max() < 0.06  # the gates' bounds, and 1/3 for the square of the reset gate
    with torch.no_grad():
        assert (layer(x, h)[1][0] - exact).abs().max() > 0.12


@pytest.mark.parametrize("arrays", ARRAYS)
@pytest.mark.parametrize("cell", SOFTENED)
def test_without_noise_it_is_a_network_with_other_weights(cell, arrays):
    layer, x = make(cell, num_layers=2, bidirectional=True), inputs()
    trained = Noise(sigma=1.5, arrays=arrays, sites=SITES)
    softened = compensate(layer, trained)
    with torch.no_grad(), layer.under(Noise(arrays=arrays, sites=SITES).compensating(trained)):
        outputs, _ = layer(x)
    assert torch.equal(outputs, softened(x)[0])
    assert not torch.allclose(outputs, layer(x)[0], atol=1e-2)
    copy = make(cell, seed=9, num_layers=2, bidirectional=True)
    copy.load_state_dict(softened.state_dict())
    assert torch.equal(copy(x)[0], outputs)


@pytest.mark.parametrize(
    ("layer", "twin"), [(NoisyLSTM, torch.nn.LSTM), (NoisyGRU, torch.nn.GRU), (NoisyRNN, torch.nn.RNN)]
)
def test_torchs_own_layers_take_the_weights_by_hand(layer, twin):
    torch.manual_seed(0)
    noisy = layer(F, H, dtype=torch.float64)
    s = 1.3
    sigmoid, tanh = ((1 + math.pi * s**2 / its) ** -0.5 for its in (8, 2))
    of_n = (1 + math.pi / 2 * s**2 * (1 + 1 / 3)) ** -0.5
    factors = {"LSTM": [sigmoid, sigmoid, tanh, sigmoid], "GRU": [sigmoid, sigmoid, of_n], "RNN": [tanh]}
    rows = torch.tensor(factors[twin.__name__], dtype=torch.float64).repeat_interleave(H)
    plain = twin(F, H, dtype=torch.float64)
    plain.load_state_dict(
        {name: its * (rows[:, None] if its.dim() == 2 else rows) for name, its in noisy.state_dict().items()}
    )
    expected = plain(inputs())[0]
    torch.testing.assert_close(compensate(noisy, Noise(sigma=s))(inputs())[0], expected)


@pytest.mark.parametrize("cell", SOFTENED)
@pytest.mark.parametrize("arrays", ARRAYS)
def test_noise_that_remains_comes_before_the_factor(cell, arrays):
    """Its numbers, drawn as ever, are multiplied as what they are added to is."""
    layer = make(cell)
    x, sigma, trained = inputs(steps=1), 0.8, 1.7
    noise = Noise(sigma=sigma, arrays=arrays, seed=5, draw=0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(1e-6)  # so that the noise is all that there is
        with layer.under(noise):
            plain, _ = layer(x)
        with layer.under(noise.compensating(trained)):
            softened, _ = layer(x)
            with use_implementation("reference"):
                torch.testing.assert_close(layer(x)[0], softened, rtol=1e-5, atol=1e-6)
    if cell == "rnn_tanh":
        products = 2 if arrays == "separate" else 1
        factor = (1 + math.pi / 2 * products * (trained**2 - sigma**2)) ** -0.5
        torch.testing.assert_close(softened.atanh(), factor * plain.atanh(), rtol=1e-4, atol=1e-5)
    else:
        assert softened.abs().mean() < plain.abs().mean()


@pytest.mark.parametrize("scale", ["signal", "range"])
def test_relative_scales_have_the_units_of_each_layer(scale):
    layer, x = make("lstm", num_layers=2), inputs()
    with pytest.raises(UserError, match="calibrate"), layer.under(Noise(scale=scale).compensating(0.5)):
        layer(x)
    calibrate(layer, [x])
    softened = compensate(layer, Noise(sigma=0.5, scale=scale))
    statistics = layer.statistics()
    for part in ("l0", "l1"):
        weights = torch.cat([getattr(layer, f"weight_{its}_{part}").flatten() for its in ("ih", "hh")])
        size = statistics[part].rms["gates"]
        if scale == "range":
            size = statistics[part].bound["gates"] * float(weights.detach().abs().max())
        factor = (1 + math.pi / 8 * (0.5 * size) ** 2) ** -0.5
        ratio = getattr(softened, f"weight_hh_{part}")[:H] / getattr(layer, f"weight_hh_{part}")[:H]
        torch.testing.assert_close(ratio, torch.full_like(ratio, factor))
    assert not any(its.known for its in softened.statistics().values())
    with layer.under(Noise(scale=scale).compensating(0.5)):
        torch.testing.assert_close(layer(x)[0], softened(x)[0])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_each_of_k_networks_is_as_it_is_alone(cell):
    members = [make(cell, seed=k) for k in range(4)]
    population = stack_networks(members)
    noises = [
        Noise(sigma=0.5, seed=1, draw=0).compensating(2.0),
        Noise(sigma=0.5, seed=2, draw=0),
        Noise(seed=3).compensating(1.0),
        Noise(sigma=2.0, seed=4, draw=0).compensating(1.0),
    ]
    x = inputs()
    with torch.no_grad(), population.under(noises):
        together, _ = population(x)
        projected, _ = population.forward_projected(
            population.input_projection(x), population.initial_state(N, x)
        )
    for member, noise, its, its_projected in zip(members, noises, together, projected, strict=True):
        with torch.no_grad(), member.under(noise):
            alone = member(x)[0]
        torch.testing.assert_close(its, alone)
        torch.testing.assert_close(its_projected, alone)
    softened = compensate(population, [Noise(sigma=its) for its in (0.0, 1.0, 2.0, 3.0)])
    alone = compensate(members[2], Noise(sigma=2.0))
    torch.testing.assert_close(softened(x)[0][2], alone(x)[0])
    torch.testing.assert_close(softened(x)[0][0], members[0](x)[0])


def test_the_fused_kernel_does_the_same_in_single_precision():
    torch.manual_seed(0)
    for cell in SOFTENED:
        layer, x = NoisyRecurrent(cell, F, H), inputs().float()
        for arrays in ARRAYS:
            noise = Noise(sigma=0.7, arrays=arrays, seed=1, draw=0, sites=SITES).compensating(1.5)
            with torch.no_grad(), layer.under(noise):
                outputs, _ = layer(x)
                with use_implementation("reference"):
                    torch.testing.assert_close(outputs, layer(x)[0], rtol=1e-4, atol=1e-5)


def test_noise_at_one_part_leaves_more_to_make_up_for_elsewhere():
    layer, x = make("lstm", num_layers=2), inputs()
    noise = Noise(sigma=1.5, draw=0).compensating(1.5)
    first = layer.parts(noise.hardware)[0]
    with torch.no_grad():
        with layer.under(noise):
            outputs, _ = layer(x)
        with layer.under(Noise(sigma=1.5, draw=0)):
            assert torch.equal(outputs, layer(x)[0])  # no noise is missing
        only = layer.under(noise.only_at(first))
        with only:
            at_one, _ = layer(x)
        twin = make("lstm", num_layers=2)
        softened = compensate(layer, Noise(sigma=1.5)).state_dict()
        twin.load_state_dict(
            {name: softened[name] if "l1" in name else its for name, its in layer.state_dict().items()}
        )
        with twin.under(Noise(sigma=1.5, draw=0).only_at(first)):
            torch.testing.assert_close(at_one, twin(x)[0])


def test_what_makes_no_sense_is_refused():
    for cell in ("rnn_relu", "fastgrnn"):
        with pytest.raises(UserError, match="can't make up for missing noise"):
            compensate(make(cell), Noise(sigma=1.0))
    others = (Hardware(output=Uniform(0.5)), Hardware(output=Gaussian(1.0), adc=UniformConverter()))
    for hardware in others:
        with pytest.raises(UserError, match="the training's hardware is not that"):
            Noise(sigma=0.5).compensating(hardware)
        with pytest.raises(UserError, match="this hardware is not that"):
            Noise.of(hardware).compensating(Hardware(output=Gaussian(2.0)))
    with pytest.raises(UserError, match="no noisy recurrent layer"):
        compensate(NoisyLinear(2, 2), Noise(sigma=1.0))
    with pytest.raises(UserError, match="got 2 noises for 1 networks"):
        compensate(make("lstm"), [Noise(sigma=1.0)] * 2)
