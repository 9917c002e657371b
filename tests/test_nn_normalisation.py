"""Batch normalisation of K networks: each as torch's alone."""

import pytest
import torch
from torch import nn

from asr_dni.nn import Stackable, StackableBatchNorm2d, SubSpectralNorm2d, stack_networks, unstack_network

K, N, C, T, B = 3, 4, 5, 6, 2

KINDS = {
    "default": {},
    "momentum": {"momentum": 0.3},
    "mean of all batches": {"momentum": None},
    "no running statistics": {"track_running_stats": False},
    "not affine": {"affine": False},
}
every_kind = pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)


def members(settings: dict) -> list[StackableBatchNorm2d]:
    """Each with scale, shift and statistics of its own, after a number of batches of its own."""
    torch.manual_seed(0)
    layers = []
    for k in range(K):
        layer = StackableBatchNorm2d(C, **settings, dtype=torch.float64)
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
        for _ in range(k):
            layer(2 + torch.randn(N, C, T, B, dtype=torch.float64))
        layers.append(layer)
    return layers


def torchs(layer: StackableBatchNorm2d, settings: dict) -> nn.BatchNorm2d:
    twin = nn.BatchNorm2d(C, **settings, dtype=torch.float64)
    twin.load_state_dict(layer.state_dict())
    return twin


@every_kind
def test_of_k_networks_each_is_torchs_alone(settings):
    """Two batches of training, then evaluation: outputs, gradients, running statistics."""
    alone = members(settings)
    population, twins = stack_networks(alone), [torchs(layer, settings) for layer in alone]
    for training in (True, True, False):
        population.train(training)
        x = (3 * torch.randn(K, N, C, T, B, dtype=torch.float64) + 1).requires_grad_()
        y = population(x)
        ours = torch.autograd.grad(y.sin().sum(), [x, *population.parameters()])
        for k, twin in enumerate(twins):
            twin.train(training)
            its = x[k].detach().requires_grad_()
            expected = twin(its)
            torch.testing.assert_close(y[k], expected)
            theirs = torch.autograd.grad(expected.sin().sum(), [its, *twin.parameters()])
            for mine, gradient in zip(ours, theirs, strict=True):
                torch.testing.assert_close(mine[k], gradient)
            state = unstack_network(population, k).state_dict()
            assert state.keys() == twin.state_dict().keys()
            for name, value in twin.state_dict().items():
                torch.testing.assert_close(state[name], value)


@every_kind
def test_an_ordinary_one_is_torchs(settings):
    layer = members(settings)[1]
    twin, x = torchs(layer, settings), torch.randn(N, C, T, B, dtype=torch.float64)
    for training in (True, False):
        assert torch.equal(layer.train(training)(x), twin.train(training)(x))
    assert all(torch.equal(value, layer.state_dict()[name]) for name, value in twin.state_dict().items())


class TestSubBands:
    BANDS, S = 6, 3

    def make(self, seed: int) -> SubSpectralNorm2d:
        torch.manual_seed(seed)
        layer = SubSpectralNorm2d(C, self.S, dtype=torch.float64)
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
        return layer

    def twins(self, layer: SubSpectralNorm2d) -> list[nn.BatchNorm2d]:
        """torch's normalisation of each sub-band."""
        twins = [nn.BatchNorm2d(C, dtype=torch.float64) for _ in range(self.S)]
        for s, twin in enumerate(twins):
            own = {
                name: its if its.dim() == 0 else its[s :: self.S] for name, its in layer.state_dict().items()
            }
            twin.load_state_dict(own)
        return twins

    def test_each_is_torchs_alone(self):
        """Of one network and of K: two batches of training, then evaluation; outputs and gradients."""
        alone = [self.make(seed) for seed in range(K)]
        population, twins = stack_networks(alone), [self.twins(layer) for layer in alone]
        for training in (True, True, False):
            for module in (population, *alone):
                module.train(training)
            x = (3 * torch.randn(K, N, C, T, self.BANDS, dtype=torch.float64) + 1).requires_grad_()
            expected = []
            for of_member, its in zip(twins, x, strict=True):
                parts = its.chunk(self.S, -1)
                expected.append(
                    torch.cat(
                        [twin.train(training)(part) for twin, part in zip(of_member, parts, strict=True)], -1
                    )
                )
            theirs = torch.autograd.grad(torch.stack(expected).sin().sum(), x)
            for y in (population(x), torch.stack([layer(its) for layer, its in zip(alone, x, strict=True)])):
                torch.testing.assert_close(y, torch.stack(expected))
                torch.testing.assert_close(torch.autograd.grad(y.sin().sum(), x), theirs)
        torch.testing.assert_close(unstack_network(population, 1).state_dict(), alone[1].state_dict())

    def test_bands_that_it_does_not_divide_are_refused(self):
        with pytest.raises(ValueError, match="bands that 3 sub-bands divide"):
            self.make(0)(torch.zeros(N, C, T, 4, dtype=torch.float64))


def test_an_input_for_all_is_refused():
    population = stack_networks(members({}))
    with pytest.raises(ValueError, match=r"expected an input \(3, N, C, T, B\), got \(4, 5, 6, 2\)"):
        population(torch.zeros(N, C, T, B, dtype=torch.float64))


def test_a_module_of_ones_own_can_be_k_networks():
    class Shift(Stackable):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.by = nn.Parameter(torch.full((2,), by))

        def forward(self, x):
            return x + (self.by if self.networks is None else self.by[:, None])

    population = stack_networks([Shift(1.0), Shift(2.0)])
    assert population(torch.zeros(2, 3, 2))[:, 0, 0].tolist() == [1, 2]
    assert unstack_network(population, 1)(torch.zeros(3, 2))[0].tolist() == [2, 2]
