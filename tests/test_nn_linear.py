"""NoisyLinear against ``torch.nn.Linear`` and against the distribution that its noise is defined by."""

import math

import pytest
import torch
from scipy import stats
from torch import nn

from asr_dni.nn import NoisyLinear, calibrate, use_implementation
from asr_dni.noise import Noise

FALSE_ALARM = 1e-6
"""Of every statistical comparison; seeds are fixed."""


def silent(inputs, outputs, **keywords):
    """A layer whose output is its noise alone."""
    layer = NoisyLinear(inputs, outputs, **keywords)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def is_normal(values, std):
    values = values.detach().double().flatten().numpy()
    assert stats.kstest(values / std, "norm").pvalue > FALSE_ALARM
    low, high = stats.chi2.interval(1 - FALSE_ALARM, len(values))
    assert low < (values**2).sum() / std**2 < high


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (3, 4, 5), (3, 2, 4, 5), (0, 5), (3, 0, 5)])
def test_clean_equals_torch(bias, dtype, shape):
    theirs = nn.Linear(5, 7, bias=bias, dtype=dtype)
    ours = NoisyLinear(5, 7, bias=bias, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    out, expected = ours(x), theirs(y)
    assert torch.equal(out, expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    assert torch.equal(x.grad, y.grad)
    for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine.grad, its.grad)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (3, 4, 5), (3, 2, 4, 5), (0, 5), (3, 0, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_noise_has_the_shape_and_type_of_the_output(shape, dtype):
    layer = NoisyLinear(5, 7, dtype=dtype)
    x = torch.randn(shape, dtype=dtype)
    clean = layer(x)
    with layer.under(Noise(1.0)):
        noisy = layer(x)
    assert noisy.shape == clean.shape
    assert noisy.dtype == dtype
    assert not noisy.numel() or not torch.isclose(noisy, clean).all()


@pytest.mark.parametrize("implementation", ["auto", "reference"])
def test_noise_is_normal_with_the_given_sigma(implementation):
    layer = silent(4, 50)
    with use_implementation(implementation), layer.under(Noise(0.3, seed=5)):
        is_normal(layer(torch.zeros(40, 10, 4)), 0.3)


def test_noise_is_added_to_the_clean_output():
    layer, twin = NoisyLinear(4, 50, dtype=torch.float64), silent(4, 50, dtype=torch.float64)
    x, noise = torch.randn(6, 4, dtype=torch.float64), Noise(0.3, draw=0)
    with layer.under(noise), twin.under(noise):
        assert torch.allclose(
            layer(x), nn.functional.linear(x, layer.weight, layer.bias) + twin(x), atol=1e-12
        )


@pytest.mark.parametrize("sites", [(), ("input", "recurrent", "elementwise")])
def test_other_sites_leave_it_clean(sites):
    layer, x = NoisyLinear(4, 5), torch.randn(6, 4)
    with layer.under(Noise(1.0, sites=sites)):
        assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


def test_scale_signal_gives_its_signal_to_noise_ratio():
    torch.manual_seed(0)
    layer, sigma = NoisyLinear(8, 100, dtype=torch.float64), 0.4
    x = torch.randn(400, 8, dtype=torch.float64) * 3
    calibrate(layer, [x])
    with layer.under(Noise(sigma, scale="signal", seed=1)):
        noise = layer(x) - nn.functional.linear(x, layer.weight, layer.bias)
    signal = x @ layer.weight.T  # the bias is no product
    measured = 10 * math.log10((signal.square().mean() / noise.square().mean()).item())
    # Standard error of 10 log10 of a mean of n squares: 10 / ln 10 * sqrt(2 / n); 5 of them: 1 in 1.7 million.
    assert abs(measured + 20 * math.log10(sigma)) < 5 * 4.343 * math.sqrt(2 / noise.numel())


def test_scale_range_is_in_multiples_of_the_largest_output():
    torch.manual_seed(0)
    layer = NoisyLinear(8, 100, dtype=torch.float64)
    x = torch.randn(200, 8, dtype=torch.float64)
    calibrate(layer, [x])
    with layer.under(Noise(0.2, scale="range", seed=1)):
        noise = layer(x) - nn.functional.linear(x, layer.weight, layer.bias)
        is_normal(noise, 0.2 * float(x.abs().max()) * float(layer.weight.abs().max()))
        with torch.no_grad():
            layer.weight *= 2  # the range follows the weights
        noise = layer(x) - nn.functional.linear(x, layer.weight, layer.bias)
        is_normal(noise, 0.2 * float(x.abs().max()) * float(layer.weight.abs().max()))


@pytest.mark.parametrize("implementation", ["auto", "reference"])
def test_fresh_for_every_sample_step_unit_and_pass(implementation):
    layer = silent(2, 30)
    with use_implementation(implementation), layer.under(Noise(1.0)):
        passes = torch.stack([layer(torch.zeros(30, 30, 2)) for _ in range(4)]).detach().double()
    for axis in range(4):
        rows = passes.movedim(axis, 0).flatten(1)
        count, length = rows.shape
        scores = (rows @ rows.T / math.sqrt(length))[tuple(torch.triu_indices(count, count, 1))]
        assert scores.abs().max() < stats.norm.isf(FALSE_ALARM / len(scores) / 2)


@pytest.mark.parametrize("implementation", ["auto", "reference"])
def test_a_samples_noise_follows_its_identity(implementation):
    layer = NoisyLinear(3, 9)
    x, ids = torch.randn(6, 4, 3), torch.tensor([10, 2**40, -5, 3, 0, 7])
    order = torch.tensor([4, 1, 2])
    with use_implementation(implementation):
        with layer.under(Noise(1.0, draw=3, sample_ids=ids)):
            whole = layer(x)
        with layer.under(Noise(1.0, draw=3, sample_ids=ids[order])):
            assert torch.allclose(layer(x[order]), whole[order], atol=1e-5)
        with layer.under(Noise(1.0, draw=3, sample_ids=ids, first_step=2)):
            assert torch.allclose(layer(x[:, 2:]), whole[:, 2:], atol=1e-5)


def test_identities_without_a_sample_are_refused():
    layer = NoisyLinear(3, 9)
    with (
        layer.under(Noise(1.0, sample_ids=torch.arange(5))),
        pytest.raises(ValueError, match="5 sample ident"),
    ):
        layer(torch.randn(6, 3))


def test_both_generators_agree():
    layer, x = NoisyLinear(3, 70), torch.randn(6, 4, 3)
    noise = Noise(1.0, draw=0, sample_ids=torch.tensor([10, 2**40, -5, 3, 0, 7]), first_step=2**31)
    with layer.under(noise):
        auto = layer(x)
        with use_implementation("reference"):
            assert torch.allclose(layer(x), auto, atol=1e-5)


def test_gradient_is_that_of_the_clean_layer():
    """Additive noise has no influence on the gradient at a given output gradient."""
    layer, x = (
        NoisyLinear(3, 4, dtype=torch.float64),
        torch.randn(5, 3, dtype=torch.float64, requires_grad=True),
    )
    with layer.under(Noise(1.0, draw=0)):
        assert torch.autograd.gradcheck(layer, x)
        parameters = dict(layer.named_parameters())

        def call(weight, bias):
            return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x.detach(),))

        assert torch.autograd.gradcheck(call, (parameters["weight"], parameters["bias"]))


def test_over_time_is_the_same_turned_round():
    layer, x = NoisyLinear(5, 3), torch.randn(7, 4, 5)
    noise = Noise(0.5, seed=3, sample_ids=torch.tensor([9, 2, 5, 1]))
    with layer.under(noise):
        turned = layer(x.transpose(0, 1)).transpose(0, 1)
    with layer.under(noise):
        torch.testing.assert_close(layer.over_time(x), turned)
