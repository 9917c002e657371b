"""Noise of reading and the resistance of wires: against NumPy, closed forms and other layers."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from asr_dni.errors import UserError
from asr_dni.nn import (
    NoisyConv2d,
    NoisyLinear,
    NoisyRecurrent,
    calibrate,
    snr_db,
    stack_networks,
    use_implementation,
)
from asr_dni.noise import Gaussian, GaussianOfRange, Hardware, IRDrop, OutputModel, ReadNoise, Realisation

DOUBLE = torch.float64
ROWS, FEATURES, OUTPUTS = 20_000, 6, 5

MODELS: list[OutputModel] = [
    ReadNoise(0.1),
    ReadNoise(0.1, "output"),
    ReadNoise(0.1, "tensor", "constant"),
    ReadNoise(0.1, "output", "constant"),
    GaussianOfRange(0.1),
    GaussianOfRange(0.1, "output"),
]
every_noise = pytest.mark.parametrize("model", MODELS, ids=str)
DROP = IRDrop(1.0, g_ratio=40.0)
every_model = pytest.mark.parametrize("model", [*MODELS, DROP], ids=str)


@pytest.fixture(scope="module")
def layer() -> NoisyLinear:
    torch.manual_seed(0)
    layer = NoisyLinear(FEATURES, OUTPUTS, bias=False, dtype=DOUBLE)
    with torch.no_grad():
        layer.weight *= torch.linspace(0.2, 1.0, OUTPUTS, dtype=DOUBLE)[:, None]
    calibrate(layer, [torch.linspace(-2, 2, 10 * FEATURES, dtype=DOUBLE).view(10, FEATURES)])  # up to 2
    return layer


def error(layer: NoisyLinear, hardware: Hardware, x: Tensor, **realisation: int) -> np.ndarray:
    with torch.no_grad():
        clean = layer(x)
        with layer.under(hardware, Realisation(**realisation)):
            return (layer(x) - clean).numpy()


def deviations(model: OutputModel, weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the standard deviation at every output, of one input, by the equations."""
    largest = np.abs(weight).max(1) if model.per == "output" else np.abs(weight).max()
    if isinstance(model, GaussianOfRange):
        return model.sigma * 2 * largest * np.ones(len(weight))
    if model.law == "constant":
        return model.sigma * largest * np.sqrt((x**2).sum()) * np.ones(len(weight))
    return model.sigma * np.sqrt(largest * (np.abs(weight) @ x**2))


@every_noise
@pytest.mark.parametrize("tile", [None, 4])
def test_the_deviation_follows_inputs_and_weights(model, tile, layer):
    """20,000 errors at each of 5 outputs: their deviation's own is 0.5 %; alarms 1e-6 each."""
    x = torch.tensor([0.1, -1.0, 0.5, 1.5, 0.0, -0.3], dtype=DOUBLE)
    found = error(layer, Hardware(output=model, tile=tile), x.expand(ROWS, FEATURES), seed=1)
    weight = layer.weight.detach().numpy()
    parts = [slice(0, FEATURES)] if tile is None else [slice(0, tile), slice(tile, FEATURES)]
    expected = np.sqrt(sum(deviations(model, weight[:, part], x.numpy()[part]) ** 2 for part in parts))
    np.testing.assert_allclose(found.std(0), expected, rtol=4.9 / math.sqrt(2 * ROWS))
    assert (np.abs(found.mean(0)) < 4.9 * expected / math.sqrt(ROWS)).all()


def test_gaussian_of_range_of_a_whole_tensor_is_gaussian_in_range(layer):
    x = torch.randn(50, FEATURES, dtype=DOUBLE)
    one, other = (
        error(layer, Hardware(output=its), x, seed=3)
        for its in (GaussianOfRange(0.1), Gaussian(0.1, "range"))
    )
    np.testing.assert_allclose(one, other, atol=1e-7)  # drawn in single precision


@pytest.mark.parametrize("per", ["tensor", "output"])
def test_what_wires_take_is_numpys(per, layer):
    x, weight = torch.randn(50, FEATURES, dtype=DOUBLE), layer.weight.detach().numpy()
    found = error(layer, Hardware(output=IRDrop(0.7, per, 40.0)), x)
    expected = np.empty_like(found)
    for row, values in enumerate(x.numpy()):
        for i in range(OUTPUTS):
            largest = np.abs(weight[i] if per == "output" else weight).max()
            a = FEATURES / 40.0 * (np.abs(weight[i] * values) / (largest * 2)).sum()
            c = a * (a * (0.05 * a - 0.2) + 0.5)
            lost = sum(weight[i, j] * values[j] * (1 - (1 - j / FEATURES) ** 2) for j in range(FEATURES))
            expected[row, i] = -0.7 * c * lost
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert not Hardware(output=DROP).random


def test_wires_of_a_usual_array_take_little(layer):
    x = torch.randn(50, FEATURES, dtype=DOUBLE)
    with torch.no_grad():
        size = float(layer(x).abs().max())
    assert 0 < np.abs(error(layer, Hardware(output=IRDrop(1.0)), x)).max() < 1e-3 * size


@every_model
def test_the_gradient_is_that_of_the_clean_product(model, layer):
    x = torch.randn(7, FEATURES, dtype=DOUBLE, requires_grad=True)
    with layer.under(Hardware(output=model), Realisation(seed=1)):
        (gradient,) = torch.autograd.grad(layer(x).sum(), x)
    torch.testing.assert_close(gradient, layer.weight.sum(0).detach().expand_as(x))


@every_model
def test_snr_is_not_known_and_inputs_are_not_exact(model, layer):
    hardware = Hardware(output=model)
    assert snr_db(layer, hardware) is None
    assert not hardware.inputs_exact
    assert not hardware.has_chips


@every_model
@pytest.mark.parametrize("arrays", ["joint", "separate"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_network_of_a_population_is_what_it_is_alone(model, arrays, cell):
    torch.manual_seed(0)
    alone = [NoisyRecurrent(cell, 4, 3, dtype=DOUBLE) for _ in range(3)]
    x = torch.randn(6, 5, 4, dtype=DOUBLE)
    for network in alone:
        calibrate(network, [x])
    hardware = Hardware(output=model, arrays=arrays)
    together = stack_networks(alone)
    with together.under(hardware, [Realisation(seed=seed) for seed in range(3)]):
        of_all, _ = together(x)
    clean = alone[0](x)[0].detach()
    for seed, network in enumerate(alone):
        with network.under(hardware, Realisation(seed=seed)):
            expected, _ = network(x)
        torch.testing.assert_close(of_all[seed], expected)
    assert not torch.allclose(of_all[0], clean, atol=1e-4)


@every_model
def test_separate_arrays_of_a_recurrence_are_two_products(model):
    """An RNN's first step from a state, by two linear layers with the same weights."""
    torch.manual_seed(0)
    layer = NoisyRecurrent("rnn_tanh", 4, 3, dtype=DOUBLE)
    x, h = torch.randn(1, 4000, 4, dtype=DOUBLE), torch.randn(1, 4000, 3, dtype=DOUBLE).clamp(-1, 1)
    x, h = x[:, :1].expand_as(x), h[:, :1].expand_as(h)
    calibrate(layer, [x])
    bounds = layer.statistics()["l0"].bound
    with torch.no_grad(), layer.under(Hardware(output=model, arrays="separate"), Realisation(seed=1)):
        found = torch.atanh(layer(x, h)[0][0]) - layer.bias_ih_l0 - layer.bias_hh_l0
    expected, variance = 0.0, 0.0
    for site, weight, values in (
        ("input", layer.weight_ih_l0, x[0, 0]),
        ("recurrent", layer.weight_hh_l0, h[0, 0]),
    ):
        matrix, vector = weight.detach().numpy(), values.numpy()
        expected = expected + matrix @ vector
        if isinstance(model, IRDrop):
            n, w_max = matrix.shape[1], np.abs(matrix).max()
            a = n / model.g_ratio * (np.abs(matrix) @ np.abs(vector)) / (w_max * bounds[site])
            coded = vector * (1 - (1 - np.arange(n) / n) ** 2)
            expected = expected - a * (a * (0.05 * a - 0.2) + 0.5) * (matrix @ coded)
        else:
            scale = bounds[site] / 2 if isinstance(model, GaussianOfRange) else 1.0
            variance = variance + (scale * deviations(model, matrix, vector)) ** 2
    spread = np.sqrt(variance) * np.ones(3)
    assert (np.abs(found.numpy().mean(0) - expected) <= 4.9 * spread / math.sqrt(4000) + 1e-9).all()
    np.testing.assert_allclose(found.numpy().std(0), spread, rtol=4.9 / math.sqrt(8000), atol=1e-9)


@every_model
def test_a_convolution_is_a_product_with_its_patches(model):
    """Outputs of a convolution and of a linear layer on its patches have the same mean and deviation."""
    torch.manual_seed(0)
    convolution = NoisyConv2d(2, 3, 3, bias=False, dtype=DOUBLE)
    linear = NoisyLinear(18, 3, bias=False, dtype=DOUBLE)
    with torch.no_grad():
        linear.weight.copy_(convolution.weight.flatten(1))
    image = torch.randn(1, 2, 4, 4, dtype=DOUBLE)
    patches = functional.unfold(image, 3)[0].T  # (2 x 2 places, 18)
    for layer, x in ((convolution, image), (linear, patches)):
        calibrate(layer, [x])
    hardware = Hardware(output=model, sites=("convolution", "output"))
    rows = 4000
    with torch.no_grad(), convolution.under(hardware), linear.under(hardware):
        images = convolution(image.expand(rows, -1, -1, -1)).permute(0, 2, 3, 1).reshape(rows, 4, 3)
        vectors = linear(patches.expand(rows, -1, -1))
    one, other = images.numpy(), vectors.numpy()
    spread = np.maximum(one.std(0), 1e-9)
    assert (np.abs(one.mean(0) - other.mean(0)) < 4.9 * spread * math.sqrt(2 / rows) + 1e-12).all()
    np.testing.assert_allclose(one.std(0), other.std(0), rtol=4.9 / math.sqrt(rows), atol=1e-12)


def test_compiled_recurrences_say_that_they_do_not_have_it():
    layer, x = NoisyRecurrent("lstm", 4, 3), torch.randn(2, 5, 4)
    with (
        use_implementation("fused"),
        layer.under(Hardware(output=ReadNoise(0.1))),
        pytest.raises(RuntimeError, match="noise that follows the inputs"),
    ):
        layer(x)


@pytest.mark.parametrize(
    ("kind", "settings", "named"),
    [
        (ReadNoise, {"law": "cubic"}, "law"),
        (ReadNoise, {"per": "row"}, "per"),
        (IRDrop, {"g_ratio": 0}, "g_ratio"),
    ],
)
def test_bad_settings_are_named(kind, settings, named):
    with pytest.raises(UserError, match=named):
        kind(**{"sigma": 0.1, **settings})
