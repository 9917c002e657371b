"""Noise at parts of a network: all of them are the whole, none is none, and one has the numbers that it has there."""

import pytest
import torch

from asr_dni.errors import UserError
from asr_dni.nn import NoisyGRU, NoisyLSTM, NoisyRNN, stack_networks
from asr_dni.noise import (
    SITES,
    FixedPattern,
    Gaussian,
    GaussianWeights,
    Hardware,
    Multiplicative,
    Noise,
    Placed,
    Strength,
    UniformConverter,
)

HARDWARE = {
    "joint": Hardware(output=Gaussian(0.5)),
    "separate": Hardware(output=Gaussian(0.5), arrays="separate"),
    "inside": Hardware(output=Gaussian(0.5), sites=SITES),
    "weights": Hardware(weight=GaussianWeights(0.1)),
    "several": Hardware(weight=GaussianWeights(0.1), output=(Multiplicative(0.2), FixedPattern(0.1))),
}


@pytest.mark.parametrize("hardware", HARDWARE)
@pytest.mark.parametrize(
    "make", [NoisyLSTM, NoisyGRU, NoisyRNN, lambda *sizes, **k: NoisyLSTM(*sizes, **k, proj_size=3)]
)
@torch.no_grad()
def test_all_parts_are_the_whole_and_none_is_none(make, hardware):
    torch.manual_seed(1)
    layers, x = make(5, 6, num_layers=2, bidirectional=True), torch.randn(7, 3, 5)
    noise = Noise.of(HARDWARE[hardware]).realised(draw=2, seed=4)

    def run(its):
        with layers.under(its):
            return layers(x)[0]

    parts = layers.parts(noise.hardware)
    whole, clean = run(noise), layers(x)[0]
    assert len({str(part) for part in parts}) == len(parts) >= 4
    torch.testing.assert_close(run(noise.only_at(*parts)), whole)
    torch.testing.assert_close(run(noise.only_at()), clean)
    for part in parts:
        assert not torch.equal(run(noise.only_at(part)), clean)
    if hardware != "inside" and not getattr(layers, "proj_size", 0):
        gates = layers.parts(noise.hardware, gates=True)
        assert len(gates) == len(parts) * layers.weight_hh_l0.shape[0] // 6
        torch.testing.assert_close(run(noise.only_at(*gates)), whole)


@torch.no_grad()
def test_only_the_gate_that_is_named_is_noisy():
    """With weights of 0 and one step h = sigmoid(o) tanh(sigmoid(i) tanh(g)), which only noise on g moves from 0."""
    layer = NoisyLSTM(2, 4)
    for parameter in layer.parameters():
        parameter.zero_()
    noise = Noise(sigma=1.0).realised(draw=0)
    moved = {}
    for part in layer.parts(noise.hardware, gates=True):
        with layer.under(noise.only_at(part)):
            moved[part.gate] = bool(layer(torch.ones(1, 3, 2))[0].abs().sum() > 0)
    assert moved == {"i": False, "f": False, "g": True, "o": False}


@torch.no_grad()
def test_a_part_has_hardware_of_its_own():
    layers, x = NoisyRNN(3, 4, num_layers=2), torch.randn(5, 2, 3)
    noise = Noise(sigma=1.0).realised(draw=0)
    first, second = layers.parts(noise.hardware)
    silent = noise.hardware.at(0.0)
    with layers.under(noise.only_at(Placed(first, silent), second)):
        mixed = layers(x)[0]
    with layers.under(noise.only_at(second)):
        torch.testing.assert_close(layers(x)[0], mixed)
    halved = noise.at(0.5).only_at(first)
    with layers.under(noise.only_at(Placed(first, noise.hardware.at(0.5)))):
        torch.testing.assert_close(layers(x)[0], _run(layers, halved, x))
    # What is changed of a noise keeps its parts.
    assert noise.only_at(first).at(2.0).realised(seed=3).parts == (first,)
    with pytest.raises(UserError, match="hardware at l0 input\\+recurrent is to be like the network's"):
        noise.only_at(Placed(first, Hardware(weight=GaussianWeights(0.1))))


def _run(layers, noise, x):
    with layers.under(noise):
        return layers(x)[0]


@torch.no_grad()
def test_chips_of_a_network_have_noise_at_the_same_part():
    layers, x = NoisyRNN(3, 4, num_layers=2), torch.randn(5, 2, 3)
    noise = Noise.of(HARDWARE["weights"]).realised(draw=0)
    first, *_, last = layers.parts(noise.hardware)
    chips = stack_networks([layers] * 2)
    with chips.under([noise.only_at(last).realised(chip=chip) for chip in range(2)]):
        both = chips(x)[0]
    for chip in range(2):
        torch.testing.assert_close(both[chip], _run(layers, noise.only_at(last).realised(chip=chip), x))
    with (
        pytest.raises(UserError, match="at other parts for one member"),
        chips.under([noise.only_at(first), noise.only_at(last)]),
    ):
        pass


def test_gates_do_not_differ_in_what_a_whole_array_has():
    hardware = Hardware(output=Gaussian(0.1), adc=UniformConverter())
    layer = NoisyLSTM(2, 3)
    assert [str(part) for part in layer.parts(hardware)] == ["l0 input+recurrent"]
    assert layer.parts(hardware.at(4, Strength("adc.bits")))
    with pytest.raises(UserError, match="gates can't differ"):
        layer.parts(hardware, gates=True)
