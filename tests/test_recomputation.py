"""Activation checkpointing: what is computed again has the noise, draw and masks of the forward pass that was run."""

import contextlib
import copy
import itertools

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from asr_dni.errors import UserError
from asr_dni.nn import (
    DropoutSeed,
    NoisyGRU,
    NoisyLinear,
    NoisyLSTM,
    NoisyRNN,
    calibrate,
    seeded_dropout,
    stack_networks,
)
from asr_dni.noise import SITES, Noise, NoisyModule

reentrant_or_not = pytest.mark.parametrize("reentrant", [False, True], ids=["non-reentrant", "reentrant"])


class Network(NoisyModule):
    def __init__(self, kind=NoisyLSTM, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.recurrent = kind(3, 5, 2, dropout=dropout)
        self.output = NoisyLinear(5, 2)

    def forward(self, x):
        return self.output.over_time(self.recurrent(x)[0])


def gradients(network, x, passes):
    """Return outputs and gradients of a sum over forward passes, each with what it runs under."""
    network.noise, outputs = Noise(), []
    for run in passes:
        outputs.append(run(network, x))
    leaves = [x, *network.parameters()]
    for leaf in leaves:
        leaf.grad = None
    sum(output.square().sum() for output in outputs).backward()
    return [*(output.detach() for output in outputs), *(leaf.grad.clone() for leaf in leaves)]


def attribute(noise):
    def run(call):
        def under(network, x):
            network.noise = noise
            return call(network, x)

        return under

    return run


def block(noise):
    def run(call):
        def under(network, x):
            with network.under(noise), seeded_dropout(network, DropoutSeed(4, 2)):
                return call(network, x)

        return under

    return run


WAYS = {
    "attribute": [attribute(Noise(1.0, sites=SITES, seed=1))],
    "attribute, draw given": [attribute(Noise(1.0, seed=1, draw=3))],
    "block": [block(Noise(1.0, seed=1))],
    "block, draw given": [block(Noise(1.0, sites=SITES, seed=1, draw=3))],
    "no noise": [attribute(Noise())],
    "one after another": [
        block(Noise(1.0, seed=1)),
        block(Noise()),
        attribute(Noise(0.5)),
        block(Noise(2.0)),
    ],
}


@reentrant_or_not
@pytest.mark.parametrize("kind", [NoisyRNN, NoisyLSTM, NoisyGRU])
@pytest.mark.parametrize("way", WAYS)
def test_gradients_are_those_of_the_pass_that_was_run(way, kind, reentrant):
    network, x = Network(kind, dropout=0.5), torch.randn(4, 3, 3, requires_grad=True)

    def again(network, x):
        return checkpoint(network, x, use_reentrant=reentrant)

    results = []
    for call in (lambda network, x: network(x), again):
        torch.manual_seed(7)  # of the dropout where no block names its masks
        results.append(gradients(network, x, [run(call) for run in WAYS[way]]))
    for got, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@reentrant_or_not
def test_a_layer_used_several_times_and_parts_in_parts(reentrant):
    layer, x = NoisyGRU(3, 3), torch.randn(4, 2, 3, requires_grad=True)

    def twice(x):
        return layer(layer(x)[0])[0]

    def inner(x):
        return checkpoint(twice, checkpoint(twice, x, use_reentrant=reentrant), use_reentrant=reentrant)

    results = []
    for function in (
        lambda x: twice(twice(x)),
        inner,
        lambda x: checkpoint(inner, x, use_reentrant=reentrant),
    ):
        layer.zero_grad()
        x.grad = None
        with layer.under(Noise(1.0)):
            output = function(x)
        output.square().sum().backward()
        results.append([output.detach(), x.grad, layer.weight_hh_l0.grad.clone()])
    for other in results[1:]:
        for got, expected in zip(other, results[0], strict=True):
            torch.testing.assert_close(got, expected)


@reentrant_or_not
def test_backward_twice(reentrant):
    layer, x = NoisyLSTM(3, 4), torch.randn(4, 2, 3, requires_grad=True)
    with layer.under(Noise(1.0)):
        output = checkpoint(lambda x: layer(x)[0], x, use_reentrant=reentrant).sum()
    output.backward(retain_graph=True)
    first = x.grad.clone()
    output.backward()
    torch.testing.assert_close(x.grad, 2 * first)


def test_passes_that_are_run_again_are_not_counted():
    layer, x = NoisyLSTM(3, 4), torch.randn(4, 2, 3, requires_grad=True)
    layer.noise = Noise(1.0)
    expected = [layer(x)[0] for _ in range(2)]
    layer.noise = Noise(1.0)
    first = checkpoint(lambda x: layer(x)[0], x, use_reentrant=False)
    first.sum().backward()
    assert torch.equal(first, expected[0])
    assert torch.equal(layer(x)[0], expected[1])


@reentrant_or_not
def test_strength_is_that_of_the_pass_though_the_network_was_calibrated_since(reentrant):
    layer, x = NoisyLSTM(3, 4), torch.randn(4, 2, 3, requires_grad=True)
    results = []
    for way in (False, True):
        calibrate(layer, [x])
        with layer.under(Noise(1.0, scale="signal")):
            output = checkpoint(layer, x, use_reentrant=reentrant)[0] if way else layer(x)[0]
        calibrate(layer, [3 * x])
        results.append(torch.autograd.grad(output.sum(), x)[0] if not reentrant else backward(output, x))
    torch.testing.assert_close(*results)


def backward(output, x):
    x.grad = None
    output.sum().backward()
    return x.grad


def test_a_population_and_a_sequence_of_layers():
    members = [NoisyLSTM(3, 4) for _ in range(2)]
    population, x = stack_networks(members), torch.randn(4, 2, 3, requires_grad=True)
    results = []
    for call in (population, lambda x: checkpoint(population, x, use_reentrant=False)):
        with population.under([Noise(0.5, seed=2), Noise(1.0, seed=3)]):
            output = call(x)[0]
        results.append(torch.autograd.grad(output.square().sum(), [x, population.weight_hh_l0]))
    for got, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(got, expected)
    layers = nn.Sequential(NoisyLinear(3, 4), nn.Tanh(), NoisyLinear(4, 4), nn.Tanh())
    results = []
    for segments in (None, 2):
        for layer in (layers[0], layers[2]):
            layer.noise = Noise(1.0)
        output = layers(x) if segments is None else checkpoint_sequential(layers, 2, x, use_reentrant=False)
        layers[0].noise = layers[2].noise = Noise()
        results.append(torch.autograd.grad(output.sum(), x)[0])
    torch.testing.assert_close(*results)


class _Own(torch.autograd.Function):
    """Another library's checkpointing, as far as a layer can tell."""

    @staticmethod
    def forward(ctx, function, x):
        ctx.function = function
        ctx.save_for_backward(x)
        return function(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            output = ctx.function(x)
        return None, torch.autograd.grad(output, x, gradient)[0]


@pytest.mark.parametrize(
    ("noise", "later"), list(itertools.product([Noise(1.0), Noise(1.0, draw=2)], [True, False]))
)
def test_another_librarys_is_refused_where_noise_is_not_known(noise, later):
    layer, x = NoisyLSTM(3, 4), torch.randn(4, 2, 3, requires_grad=True)
    with layer.under(noise) if later else contextlib.nullcontext():
        if not later:
            layer.noise = noise
        output = _Own.apply(lambda x: layer(x)[0], x)
    said = (
        r"^NoisyLSTM is .* which noise the forward pass had .*torch\.utils\.checkpoint; .* or set the noise, draw"
        " included, within the function that is run again$"
    )
    with pytest.raises(UserError, match=said):
        output.sum().backward()


@pytest.mark.parametrize("noise", [Noise(), Noise(1.0, seed=3, draw=2), Noise(1.0)])
def test_another_librarys_is_right_where_the_function_sets_the_noise(noise):
    layer, x = NoisyLSTM(3, 4), torch.randn(4, 2, 3, requires_grad=True)

    def function(x):
        with layer.under(noise):
            return layer(x)[0]

    expected = torch.autograd.grad(function(x).square().sum(), x)[0]
    torch.testing.assert_close(torch.autograd.grad(_Own.apply(function, x).square().sum(), x)[0], expected)


def test_another_librarys_is_refused_where_noise_was_switched_on_since():
    layer, x = NoisyLSTM(3, 4), torch.randn(4, 2, 3, requires_grad=True)
    output = _Own.apply(lambda x: layer(x)[0], x)
    layer.noise = Noise(1.0)
    with pytest.raises(UserError, match="which noise the forward pass had"):
        output.sum().backward()


def test_noise_that_was_set_in_a_backward_pass_stays_for_forward_passes_and_copies():
    layer, x = NoisyLSTM(3, 4), torch.randn(4, 2, 3, requires_grad=True)
    layer.noise = Noise(1.0, seed=3)
    expected = [layer(x)[0] for _ in range(3)]

    def function(x):
        layer.noise = Noise(1.0, seed=3)
        return layer(x)[0]

    _Own.apply(function, x).sum().backward()
    twin = copy.deepcopy(layer)
    for its in (layer, twin):
        assert torch.equal(its(x)[0], expected[1])
        assert torch.equal(checkpoint(its, x, use_reentrant=False)[0], expected[2])


@reentrant_or_not
def test_a_part_that_calls_a_layer_more_often_when_it_is_run_again_is_refused(reentrant):
    first, second = NoisyLinear(3, 3), NoisyGRU(3, 3)
    runs = itertools.count()

    def function(x):
        x = first(first(x)).sin()
        return second(second(x)[0])[0] if next(runs) else second(x)[0]

    with first.under(Noise(1.0)), second.under(Noise(1.0)):
        x = torch.randn(4, 2, 3, requires_grad=True)
        output = checkpoint(function, x, use_reentrant=reentrant, early_stop=False)
    with pytest.raises(
        RuntimeError, match=r"calls a NoisyGRU 2 times, and called it 1 times in the forward pass"
    ):
        output.sum().backward()
