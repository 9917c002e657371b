"""Convolutions on analog hardware: against torch's, and against NumPy on windows of the input."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from asr_dni.errors import UserError
from asr_dni.nn import NoisyConv2d, calibrate, snr_db, stack_networks
from asr_dni.noise import (
    PCM,
    SITES,
    FixedPattern,
    Flicker,
    Gaussian,
    GaussianWeights,
    Hardware,
    Multiplicative,
    Noise,
    Realisation,
    UniformConverter,
)

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

N, C, T, B = 3, 4, 9, 7
DOUBLE = torch.float64
ALL = SITES


def converter(bits: int, bound: float) -> UniformConverter:
    return UniformConverter(bits, bound, "absolute")


KINDS = {
    "gaussian": Hardware(Gaussian(0.2), sites=ALL),
    "multiplicative": Hardware(Multiplicative(0.3), sites=ALL),
    "two outputs": Hardware((Gaussian(0.2), Multiplicative(0.3), Gaussian(0.1)), sites=ALL),
    "columns of a chip": Hardware((FixedPattern(0.2, gain=0.1), Flicker(0.1)), tile=6, sites=ALL),
    "device": Hardware(weight=PCM(), sites=ALL),
    "weights": Hardware(weight=GaussianWeights(0.1), sites=ALL),
    "converters": Hardware(dac=converter(4, 1.0), adc=converter(4, 2.0), sites=ALL),
    "tiles": Hardware(Gaussian(0.2), adc=converter(5, 2.0), tile=4, sites=ALL),
    "all": Hardware(
        (Gaussian(0.2, "signal"), Multiplicative(0.1)),
        GaussianWeights(0.05, per="output"),
        UniformConverter(6),
        UniformConverter(6, 4.0, "signal"),
        tile=5,
        sites=ALL,
    ),
}
every_kind = pytest.mark.parametrize("hardware", KINDS.values(), ids=KINDS)

SHAPES = {
    "plain": {"kernel_size": 3},
    "stride and padding": {"kernel_size": (5, 3), "stride": (2, 3), "padding": (2, 1)},
    "dilation": {"kernel_size": (2, 3), "dilation": (3, 2), "padding": 1, "bias": False},
    "same": {"kernel_size": (4, 3), "padding": "same", "dilation": (1, 2)},
    "valid": {"kernel_size": (1, 2), "padding": "valid"},
    "groups": {"kernel_size": 3, "groups": 2, "padding": (0, 1)},
    "depthwise": {"kernel_size": 3, "groups": 4, "stride": (1, 2), "padding": 1},
    "pointwise": {"kernel_size": 1},
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def make(shape: dict, seed: int = 0, out: int = 8) -> NoisyConv2d:
    torch.manual_seed(seed)
    return NoisyConv2d(C, out, **shape, dtype=DOUBLE)


def images(rows: int = N, seed: int = 1) -> Tensor:
    return torch.randn(rows, C, T, B, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def quantise(x: np.ndarray, bits: int, bound: float) -> np.ndarray:
    step = bound / (2 ** (bits - 1) - 1)
    return np.rint(np.clip(x, -bound, bound) / step) * step


def in_numpy(layer: NoisyConv2d, x: np.ndarray, tile: int | None, adc, weight=None) -> np.ndarray:
    """The convolution as products of each group's matrix with each window, its columns on arrays of ``tile``."""
    weight = (layer.weight if weight is None else weight).detach().numpy()
    (kt, kb), (st, sb), (dt, db) = layer.kernel_size, layer.stride, layer.dilation
    before = [0, 0]
    after = [0, 0]
    if layer.padding == "same":
        spans = (dt * (kt - 1), db * (kb - 1))
        before, after = [span // 2 for span in spans], [span - span // 2 for span in spans]
    elif layer.padding != "valid":
        before = after = list(layer.padding)
    x = np.pad(x, ((0, 0), (0, 0), (before[0], after[0]), (before[1], after[1])))
    steps = (x.shape[2] - dt * (kt - 1) - 1) // st + 1
    bands = (x.shape[3] - db * (kb - 1) - 1) // sb + 1
    y = np.zeros((len(x), len(weight), steps, bands))
    of_group, fed = len(weight) // layer.groups, weight.shape[1]
    for t, b, group in itertools.product(range(steps), range(bands), range(layer.groups)):
        window = x[
            :,
            fed * group : fed * (group + 1),
            t * st : t * st + dt * (kt - 1) + 1 : dt,
            b * sb : b * sb + db * (kb - 1) + 1 : db,
        ].reshape(len(x), -1)
        rows = slice(of_group * group, of_group * (group + 1))
        matrix = weight[rows].reshape(of_group, -1)
        for first in range(0, matrix.shape[1], tile or matrix.shape[1]):
            part = slice(first, first + (tile or matrix.shape[1]))
            y[:, rows, t, b] += adc(window[:, part] @ matrix[:, part].T)
    return y if layer.bias is None else y + layer.bias.detach().numpy()[:, None, None]


class TestOnExactHardware:
    @every_shape
    def test_it_is_torchs_with_its_gradients(self, shape):
        layer, x = make(shape), images().requires_grad_()
        theirs = nn.Conv2d(C, 8, **shape, dtype=DOUBLE)
        assert layer.state_dict().keys() == theirs.state_dict().keys()
        theirs.load_state_dict(layer.state_dict())
        results = []
        for its in (layer, theirs):
            y = its(x)
            results.append((y, *torch.autograd.grad(y.square().sum(), [x, *its.parameters()])))
        for mine, expected in zip(*results, strict=True):
            assert torch.equal(mine, expected)
        torch.testing.assert_close(layer(x[0]), theirs(x[0]))

    def test_by_default_convolutions_are_digital(self):
        layer, x = make(SHAPES["plain"]), images()
        with layer.under(Noise(1.0)):
            assert torch.equal(layer(x), layer(x))
            assert snr_db(layer, Noise(1.0)) is None

    def test_it_starts_from_torchs_weights(self):
        torch.manual_seed(3)
        theirs = nn.Conv2d(C, 8, 3)
        torch.manual_seed(3)
        assert torch.equal(NoisyConv2d(C, 8, 3).weight, theirs.weight)

    def test_other_paddings_are_refused(self):
        with pytest.raises(UserError, match="padding_mode is 'reflect': give zeros"):
            NoisyConv2d(1, 1, 3, padding_mode="reflect")

    def test_an_input_of_another_shape_is_refused(self):
        layer = make(SHAPES["plain"])
        population = stack_networks([layer, layer])
        for its, shape in ((layer, (2, N, C, T, B)), (population, (3, N, C, T, B)), (population, (C, T, B))):
            with pytest.raises(ValueError, match=r"expected an input \(N, 4, T, B\)"):
                its(torch.zeros(shape, dtype=DOUBLE))
        with (
            layer.under(KINDS["tiles"]),
            pytest.raises(ValueError, match=r"at least as large as the kernel \(3, 3\), got \(2, 7\)"),
        ):
            layer(images()[..., :2, :])


class TestOnAnalogHardware:
    @every_shape
    @pytest.mark.parametrize("tile", [None, 5])
    def test_converters_and_tiles_are_numpys(self, shape, tile):
        layer, x = make(shape), images()
        with layer.under(Hardware(dac=converter(5, 1.5), adc=converter(4, 0.8), tile=tile, sites=ALL)):
            got = layer(x).detach().numpy()
        expected = in_numpy(layer, quantise(x.numpy(), 5, 1.5), tile, lambda y: quantise(y, 4, 0.8))
        np.testing.assert_allclose(got, expected, atol=1e-12)

    @every_shape
    @pytest.mark.parametrize("tile", [None, 5])
    def test_programmed_weights_are_a_convolution_with_others(self, shape, tile):
        """They are read off by unit impulses, then used in NumPy."""
        layer, x = make(shape), images()
        hardware = Hardware(weight=GaussianWeights(0.1), sites=ALL, tile=tile)
        with layer.under(hardware, Realisation(chip=3)):
            got = layer(x).detach().numpy()
            noisy = NoisyConv2d(C, 8, layer.kernel_size, groups=layer.groups, bias=False, dtype=DOUBLE)
            noisy.load_state_dict({"weight": layer.weight.detach()})
            impulses = torch.eye(C * math.prod(layer.kernel_size), dtype=DOUBLE).view(
                -1, C, *layer.kernel_size
            )
            with noisy.under(hardware, Realisation(chip=3)):
                read = noisy(impulses)[..., 0, 0].T.reshape(8, C, *layer.kernel_size)
        fed, of_group = C // layer.groups, 8 // layer.groups
        weight = torch.cat(
            [read[of_group * g : of_group * (g + 1), fed * g : fed * (g + 1)] for g in range(layer.groups)]
        )
        assert (weight - layer.weight).detach().abs().min() > 0
        np.testing.assert_allclose(got, in_numpy(layer, x.numpy(), None, lambda y: y, weight), atol=1e-12)

    def test_noise_has_its_variance_at_every_output_and_none_is_shared(self):
        """Of 100,000 numbers the mean square has a relative deviation of 0.45 %; false alarms 1e-6 each."""
        layer, x = make({"kernel_size": 3, "padding": 1}, out=20), images(80)
        clean = layer(x)
        for hardware, size in (
            (Hardware(Gaussian(0.3), sites=ALL), torch.ones_like(clean)),
            (Hardware(Multiplicative(0.3), sites=ALL), clean - layer.bias[:, None, None]),
            # Three arrays for 36 columns, each with noise of its own.
            (Hardware(Gaussian(0.3 / math.sqrt(3)), sites=ALL, tile=12), torch.ones_like(clean)),
        ):
            with layer.under(hardware, Realisation(seed=1)):
                numbers = ((layer(x) - clean) / size).detach()
            count = numbers.numel()
            assert abs(float(numbers.mean())) < 4.9 * 0.3 / math.sqrt(count)
            assert float(numbers.square().mean()) == pytest.approx(0.09, rel=4.9 * math.sqrt(2 / count))
            for axis in range(4):  # neighbours along it are independent
                one, other = numbers.narrow(axis, 1, 1), numbers.narrow(axis, 0, 1)
                correlation = float((one * other).mean()) / 0.09
                assert abs(correlation) < 4.9 / math.sqrt(one.numel())

    @pytest.mark.parametrize("tile", [None, 5])
    def test_what_the_columns_of_a_chip_have_for_good_is_of_the_channel(self, tile):
        """The same at every band and step, of every sample, in every pass; another one on another chip."""
        layer, x = make(SHAPES["groups"]), images()
        clean = layer(x)
        found = []
        for chip, draw in ((0, 0), (0, 1), (1, 0)):
            with layer.under(
                Hardware(FixedPattern(0.3), tile=tile, sites=ALL), Realisation(chip=chip, draw=draw)
            ):
                found.append((layer(x) - clean).detach())
        first, again, other = found
        torch.testing.assert_close(first, first[:1, :, :1, :1].expand_as(first))
        torch.testing.assert_close(again, first)
        offsets = torch.cat((first[0, :, 0, 0], other[0, :, 0, 0])).float()  # as they are drawn
        assert len(offsets.unique()) == 16

    def test_signal_and_range_are_what_calibration_found(self):
        layer, x = make(SHAPES["stride and padding"]), images()
        with (
            layer.under(Hardware(Gaussian(0.1, "signal"), sites=ALL)),
            pytest.raises(UserError, match="calibrate"),
        ):
            layer(x)
        calibrate(layer, [x])
        clean = functional.conv2d(x, layer.weight, None, layer.stride, layer.padding).detach()
        rms = float(clean.square().mean().sqrt())
        largest = float(x.abs().max()) * float(layer.weight.detach().abs().max())
        realisation = Realisation(seed=2, draw=0)
        with layer.under(Hardware(Gaussian(1.0), sites=ALL), realisation):
            numbers = layer(x) - layer.bias[:, None, None] - clean
        for scale, unit in (("signal", rms), ("range", largest)):
            with layer.under(Hardware(Gaussian(0.1, scale), sites=ALL), realisation):
                got = layer(x) - layer.bias[:, None, None] - clean
            torch.testing.assert_close(got, 0.1 * unit * numbers, atol=1e-6, rtol=1e-6)
        power = snr_db(layer, Hardware(Gaussian(0.1, "signal"), sites=ALL))
        assert power == pytest.approx(20.0)

    @every_kind
    @every_shape
    def test_a_sample_does_not_depend_on_its_batch(self, hardware, shape):
        layer, x = make(shape), images(4)
        calibrate(layer, [x])
        ids = torch.tensor([5, 2**40, -1, 9])
        with layer.under(hardware, Realisation(draw=0, sample_ids=ids)):
            whole = layer(x)
        with layer.under(hardware, Realisation(draw=0, sample_ids=ids[[3, 1]])):
            torch.testing.assert_close(layer(x[[3, 1]]), whole[[3, 1]])

    @every_kind
    def test_chunks_that_overlap_by_the_kernel_continue_each_other(self, hardware):
        layer, x = make({"kernel_size": (4, 3), "stride": (2, 1), "padding": (0, 1)}), images()
        calibrate(layer, [x])
        with layer.under(hardware, Realisation(draw=0)):
            whole = layer(x)
        assert whole.shape[-2] == 3
        with layer.under(hardware, Realisation(draw=0, first_step=2)):
            torch.testing.assert_close(layer(x[..., 2:, :]), whole[..., 1:, :])

    @every_kind
    def test_draws_and_seeds(self, hardware):
        layer, x = make(SHAPES["groups"]), images()
        calibrate(layer, [x])
        with layer.under(hardware):  # draws count up
            first, second = layer(x), layer(x)
        with layer.under(hardware, Realisation(draw=1)):
            assert torch.equal(layer(x), second)
        with layer.under(hardware, Realisation(seed=1, draw=0)):
            other = layer(x)
        assert torch.equal(first, second) != hardware.random
        assert torch.equal(first, other) != (hardware.random or hardware.has_chips)

    @every_kind
    @every_shape
    def test_of_k_networks_each_is_what_it_is_alone(self, hardware, shape):
        """With strengths, seeds, chips and draws of their own; inputs of their own, or the same for all."""
        members = [make(shape, seed) for seed in range(3)]
        inputs = torch.stack([images(seed=seed) for seed in range(3)])
        for member, x in zip(members, inputs, strict=True):
            calibrate(member, [x])
        population = stack_networks(members)
        kinds = [hardware.at(0.2 * k) if hardware.output else hardware for k in range(3)]
        realisations = [Realisation(seed=k, chip=k % 2, draw=k) for k in range(3)]
        with population.under(kinds, realisations):
            own, shared = population(inputs), population(inputs[0])
        for k, member in enumerate(members):
            with member.under(kinds[k], realisations[k]):
                torch.testing.assert_close(own[k], member(inputs[k]), atol=1e-9, rtol=0)
                torch.testing.assert_close(shared[k], member(inputs[0]), atol=1e-9, rtol=0)

    @every_shape
    def test_gradients_of_k_networks_are_their_own(self, shape):
        members = [make(shape, seed) for seed in range(3)]
        population, x = stack_networks(members), images()
        for hardware in (Hardware(), KINDS["all"].at(0.0), KINDS["gaussian"]):
            hardware = Hardware.from_settings(hardware.as_settings() | {"dac": None, "adc": None})
            with population.under(hardware, Realisation(draw=0)):
                ours = torch.autograd.grad(population(x).square().sum(), list(population.parameters()))
            for k, member in enumerate(members):
                with member.under(hardware, Realisation(draw=0)):
                    its = torch.autograd.grad(member(x).square().sum(), list(member.parameters()))
                for mine, expected in zip(ours, its, strict=True):
                    torch.testing.assert_close(mine[k], expected, atol=1e-9, rtol=1e-9)

    def test_calibration_of_k_networks_is_each_ones_own(self):
        members = [make(SHAPES["depthwise"], seed) for seed in range(2)]
        population, x = stack_networks(members), images()
        calibrate(population, [x])
        for k, member in enumerate(members):
            calibrate(member, [x])
            expected, got = member.statistics()["l0"], population.statistics(k)["l0"]
            torch.testing.assert_close(got.as_tensor(), expected.as_tensor())

    @every_kind
    def test_chips_of_one_network_are_a_population(self, hardware):
        layer, x = make(SHAPES["depthwise"]), images()
        calibrate(layer, [x])
        chips = stack_networks([layer] * 3)
        realisations = [Realisation(chip=chip, draw=0) for chip in range(3)]
        with chips.under(hardware, realisations):
            together = chips(x)
        for realisation, its in zip(realisations, together, strict=True):
            with layer.under(hardware, realisation):
                torch.testing.assert_close(its, layer(x), atol=1e-9, rtol=0)
        differ = [not torch.equal(one, other) for one, other in itertools.combinations(together, 2)]
        assert all(differ) if hardware.has_chips else not any(differ)

    @every_kind
    @pytest.mark.parametrize("groups", [1, 2])
    def test_gradients_are_those_of_differences(self, hardware, groups):
        """But for converters, whose gradient goes straight through."""
        hardware = Hardware.from_settings(hardware.as_settings() | {"dac": None, "adc": None})
        torch.manual_seed(0)
        layer = NoisyConv2d(2, 2, (2, 3), (2, 1), (0, 1), groups=groups, dtype=DOUBLE)
        x = torch.randn(2, 2, 4, 3, dtype=DOUBLE, requires_grad=True)
        calibrate(layer, [x.detach()])
        names, parameters = zip(*layer.named_parameters(), strict=True)
        # What a scale or a weight model takes as a constant must not move with the differences.
        if hardware.has_chips:
            names, parameters = names[1:], parameters[1:]

        def run(x, *values):
            with layer.under(hardware, Realisation(draw=0)):
                return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

        assert torch.autograd.gradcheck(run, (x, *parameters))

    def test_the_gradient_goes_straight_through_within_the_bounds(self):
        layer = NoisyConv2d(1, 1, 1, bias=False, dtype=DOUBLE)
        with torch.no_grad():
            layer.weight.fill_(1.0)
        for hardware, inside in (
            (Hardware(dac=converter(4, 1.0), sites=ALL), 2),
            (Hardware(adc=converter(4, 0.5), sites=ALL), 1),
        ):
            x = torch.tensor([0.3, 0.9, 1.1, -2.0], dtype=DOUBLE).view(1, 1, 4, 1).requires_grad_()
            with layer.under(hardware):
                layer(x).sum().backward()
            assert x.grad.flatten().tolist() == [1] * inside + [0] * (4 - inside)

    def test_bfloat16_autocast(self):
        layer, x = make(SHAPES["depthwise"]).float(), images().float()
        calibrate(layer, [x])
        for hardware in KINDS.values():
            with layer.under(hardware, Realisation(draw=0)):
                exact = layer(x)
                with torch.autocast("cpu", torch.bfloat16):
                    low = layer(x)
            # A value at the middle between two levels of a converter falls on either side.
            far = (low - exact).abs() > 0.05
            assert float(far.float().mean()) < (0.2 if hardware.adc else 0.001)


class TestWhatTorchDoesWithModules:
    @pytest.mark.filterwarnings("ignore:.*jit.trace", "ignore::torch.jit.TracerWarning")
    def test_a_traced_one_takes_other_batches_and_noise_is_refused(self):
        layer, x = make(SHAPES["groups"]), images(2)
        traced = torch.jit.trace(layer, x)
        torch.testing.assert_close(traced(images(5)), layer(images(5)))
        with layer.under(KINDS["gaussian"]), pytest.raises(UserError, match="same noise in every call"):
            torch.jit.trace(layer, x)

    @every_kind
    @pytest.mark.parametrize("reentrant", [False, True])
    def test_activation_checkpointing_has_the_noise_of_the_first_time(self, hardware, reentrant):
        layer, x = make(SHAPES["groups"]), images().requires_grad_()
        calibrate(layer, [x.detach()])
        results = []
        for run in (layer, partial(checkpoint, layer, use_reentrant=reentrant)):
            with layer.under(hardware, Realisation(seed=3)):
                y = run(x)
            y.square().sum().backward()
            results.append((y.detach(), x.grad, layer.weight.grad))
            x.grad, layer.weight.grad = None, None
        for plain, again in zip(*results, strict=True):
            torch.testing.assert_close(plain, again)

    @every_kind
    def test_vmap(self, hardware):
        layer, x = make(SHAPES["depthwise"]), images()
        calibrate(layer, [x])
        with layer.under(hardware, Realisation(draw=0)):
            mapped = torch.func.vmap(layer)(torch.stack((x, 2 * x)))
            torch.testing.assert_close(mapped[0], layer(x), atol=1e-5, rtol=0)
            torch.testing.assert_close(mapped[1], layer(2 * x), atol=1e-5, rtol=0)
