"""Hardware of all kinds in the compiled recurrence: held to the plain loop, whatever threads, batch and company.

Converters are coarse here, so that no number lies so near to a level's edge that the order of a sum decides.
"""

import pytest
import torch
from covering import thinned
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch_threads import threads

from asr_dni.nn import NoisyRecurrent, fused, native, stack_networks, use_implementation
from asr_dni.nn.implementation import run_recurrence
from asr_dni.nn.operations import AffineNoise, Product
from asr_dni.nn.recurrence import Recurrence, Sites
from asr_dni.noise import (
    SITES,
    AdditiveMultiplicative,
    FixedPattern,
    Gaussian,
    GaussianWeights,
    Hardware,
    Impulse,
    Multiplicative,
    Realisation,
    UniformConverter,
)

pytestmark = pytest.mark.skipif(
    native.library() is None, reason=f"no compiled kernels here: {native.status()}"
)
CELLS = fused.CAPABILITIES.cells


def converter(bits: int, bound: float) -> UniformConverter:
    return UniformConverter(bits, bound, "absolute")


KINDS: dict[str, dict] = {
    "multiplicative": {"output": Multiplicative(0.3)},
    "gain and offset of a chip": {"output": FixedPattern(0.2, gain=0.1)},
    "rare impulses": {"output": Impulse(0.5, rate=0.1)},
    "several outputs": {"output": (Gaussian(0.2), Multiplicative(0.3), AdditiveMultiplicative(0.1))},
    "ADC": {"adc": converter(3, 1.0)},
    "DAC": {"dac": converter(4, 0.6)},
    "Gaussian, ADC and DAC": {"output": Gaussian(0.3), "adc": converter(4, 1.5), "dac": converter(5, 0.9)},
    "tiles": {"output": Gaussian(0.2), "adc": converter(4, 1.0), "dac": converter(4, 0.8), "tile": 5},
    "weights, factors and converters": {
        "output": (Multiplicative(0.2), Gaussian(0.1)),
        "weight": GaussianWeights(0.1),
        "adc": converter(4, 2.0),
        "dac": converter(6, 1.0),
        "tile": 8,
    },
}
PLACES: dict[str, dict] = {
    "joint": {},
    "separate": {"arrays": "separate"},
    "recurrent": {"sites": ("recurrent",)},
    "every site": {"sites": SITES},
}


def layer_of(cell: str, networks: int, features: int = 6, units: int = 7) -> NoisyRecurrent:
    torch.manual_seed(0)
    members = [NoisyRecurrent(cell, features, units, num_layers=2) for _ in range(max(1, networks))]
    return members[0] if networks == 1 else stack_networks(members)


def packed(x: torch.Tensor) -> PackedSequence:
    """Make the samples' sequences of ``(T, N, F)`` differently long."""
    lengths = torch.arange(x.shape[1]) % x.shape[0] + 1
    return pack_padded_sequence(x, lengths, enforce_sorted=False)


def under(layer, hardware, rows, first=0):
    """Set hardware; each of K networks has a strength, a seed and samples of its own."""
    ids = torch.arange(first, first + rows)
    if layer.networks is None:
        return layer.under(hardware, Realisation(draw=0, sample_ids=ids))
    strengths = [hardware.at(0.1 * (1 + k)) if hardware.output else hardware for k in range(layer.networks)]
    which = [Realisation(seed=k, draw=k, sample_ids=ids) for k in range(layer.networks)]
    return layer.under(strengths, which)


def run(layer, hardware, x, first=0, given=lambda x: x):
    """Return outputs, final states and the gradients of input and parameters."""
    x = x.clone().requires_grad_()
    with under(layer, hardware, x.shape[-2], first):
        outputs, final = layer(given(x))
    if isinstance(outputs, PackedSequence):
        outputs, _ = pad_packed_sequence(outputs)
    results = [outputs, *(final if isinstance(final, tuple) else (final,))]
    loss = sum((its * torch.linspace(-1, 1, its.numel()).view_as(its)).sum() for its in results)
    return [its.detach() for its in results], torch.autograd.grad(loss, [x, *layer.parameters()])


@thinned(2, cell=CELLS, kind=list(KINDS), place=list(PLACES), networks=[1, 3])
def test_is_the_plain_loop(cell, kind, place, networks):
    hardware = Hardware(**KINDS[kind], **PLACES[place])
    layer, x = layer_of(cell, networks), torch.randn(5, 13, 6)
    with use_implementation("fused"):
        mine = run(layer, hardware, x)
    with use_implementation("reference"):
        its = run(layer, hardware, x)
    for got, expected in zip((*mine[0], *mine[1]), (*its[0], *its[1]), strict=True):
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=2e-4)


@thinned(1, cell=CELLS, kind=["Gaussian", *KINDS], bidirectional=[False, True])
def test_packed_sequences_are_the_plain_loops(cell, kind, bidirectional):
    hardware = Hardware(**({"output": Gaussian(0.5)} if kind == "Gaussian" else KINDS[kind]), sites=SITES)
    torch.manual_seed(0)
    layer, x = NoisyRecurrent(cell, 6, 7, bidirectional=bidirectional), torch.randn(5, 13, 6)
    with use_implementation("fused"):
        mine = run(layer, hardware, x, given=packed)
    with use_implementation("reference"):
        its = run(layer, hardware, x, given=packed)
    for got, expected in zip((*mine[0], *mine[1]), (*its[0], *its[1]), strict=True):
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=2e-4)


@pytest.mark.parametrize("cell", CELLS)
def test_sequences_without_steps_leave_the_state(cell):
    """In a population, each of whose members has lengths of its own; and second derivatives are to be had."""
    torch.manual_seed(0)
    layer = stack_networks([NoisyRecurrent(cell, 6, 7, bidirectional=True) for _ in range(2)])
    x = torch.randn(3, 4, 6)
    lengths = torch.tensor([0, 3, 1, 0])
    results = []
    for implementation in ("fused", "reference"):
        with use_implementation(implementation), under(layer, Hardware(Gaussian(0.3)), 4):
            state = tuple(its + 0.5 for its in layer.initial_state(4, x))
            state = tuple(its.requires_grad_() for its in state)
            outputs, final = layer.forward_projected(layer.input_projection(x), state, lengths)
            loss = outputs.square().sum() + sum(its.square().sum() for its in final)
            first = torch.autograd.grad(loss, state, create_graph=True)
            (second,) = torch.autograd.grad(sum(its.square().sum() for its in first), state[:1])
            results.append([outputs, *final, *first, second])
        assert torch.equal(final[0][:, -1, 0], state[0][:, -1, 0])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=2e-4)


@thinned(1, cell=CELLS, kind=list(KINDS), place=list(PLACES))
def test_does_not_depend_on_threads_batch_or_company(cell, kind, place):
    """Outputs to the last bit; gradients of weights are sums over the batch."""
    hardware = Hardware(**KINDS[kind], **PLACES[place])
    population, x = layer_of(cell, 3, units=19), torch.randn(4, 50, 6)
    with use_implementation("fused"):
        (whole, *_), gradients = run(population, hardware, x)
        for count in (2, 5):
            with threads(count):
                (again, *_), others = run(population, hardware, x)
            assert torch.equal(again, whole)
            for got, expected in zip(others, gradients, strict=True):
                torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
        part, _ = run(population, hardware, x[:, 11:30], first=11)
        assert torch.equal(part[0], whole[:, :, 11:30])
        torch.manual_seed(0)
        members = [NoisyRecurrent(cell, 6, 19, num_layers=2) for _ in range(3)]
        for k, member in enumerate(members):
            its = hardware.at(0.1 * (1 + k)) if hardware.output else hardware
            which = Realisation(seed=k, draw=k, sample_ids=torch.arange(50))
            with member.under(its, which), torch.no_grad():
                assert torch.equal(member(x)[0], whole[k])


@thinned(1, cell=CELLS, kind=["ADC", "several outputs", "tiles"])
def test_without_gradients_nothing_is_kept(cell, kind):
    layer, x, hardware = layer_of(cell, 2), torch.randn(4, 9, 6), Hardware(**KINDS[kind])
    with use_implementation("fused"):
        (expected, *_), _ = run(layer, hardware, x)
        with torch.no_grad(), under(layer, hardware, 9):
            assert torch.equal(layer(x)[0], expected)


@pytest.mark.parametrize("size", [(1, 1, 1, 1), (2, 4, 1, 12), (1, 4, 3, 12), (2, 1, 3, 1), (2, 4, 3, 12)])
def test_drawn_numbers_of_any_shape_that_broadcasts(size):
    torch.manual_seed(0)
    drawn = torch.randn(size)
    turned = torch.randn(*size[:2], size[3], size[2]).mT  # not contiguous
    product = Product(((AffineNoise(drawn, turned), AffineNoise(add=drawn)),))
    sites = Sites([torch.arange(3)] * 2, input=product, recurrent=product)
    problem = Recurrence(
        "gru",
        torch.randn(2, 12, 4),
        torch.randn(2, 12),
        (torch.randn(2, 3, 4),),
        sites,
        inputs=torch.randn(4, 3, 5),
        w_ih=torch.randn(2, 12, 5).requires_grad_(),
    )
    results = []
    for implementation in ("fused", "reference"):
        with use_implementation(implementation):
            outputs, _ = run_recurrence(problem)
            results.append((outputs, *torch.autograd.grad(outputs.square().sum(), [problem.w_ih])))
    for mine, its in zip(*results, strict=True):
        torch.testing.assert_close(mine, its, atol=2e-4, rtol=2e-4)


def test_drawn_numbers_that_have_gradients_get_them():
    """By the loop: the compiled recurrence has none for them."""
    gain = torch.full((1, 1, 1, 1), 0.1, requires_grad=True)
    product = Product(((AffineNoise(gain),),))
    problem = Recurrence(
        "rnn_tanh",
        torch.randn(1, 4, 4),
        None,
        (torch.randn(1, 3, 4),),
        Sites([torch.arange(3)], recurrent=product),
        projection=torch.randn(1, 2, 3, 4),
    )
    assert "gradients" in fused.why_not(problem)
    outputs, _ = run_recurrence(problem)
    outputs.sum().backward()
    assert gain.grad is not None


def test_nan_and_infinite_outputs_go_through_converters():
    layer, x = layer_of("lstm", 1), torch.randn(4, 3, 6)
    x[1, 1, 2] = float("nan")
    with use_implementation("fused"), under(layer, Hardware(**KINDS["Gaussian, ADC and DAC"]), 3):
        outputs, _ = layer(x)
    assert outputs[1:, 1].isnan().all()
    assert outputs[:, [0, 2]].isfinite().all()
    assert outputs[0].isfinite().all()
