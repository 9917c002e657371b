"""Analog products: against NumPy, closed forms and torch's own layers."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from asr_dni.errors import UserError
from asr_dni.nn import (
    CELLS,
    NoisyGRU,
    NoisyLinear,
    NoisyLSTM,
    NoisyRecurrent,
    NoisyRNN,
    calibrate,
    snr_db,
    stack_networks,
    use_implementation,
)
from asr_dni.noise import (
    MVM_SITES,
    SITES,
    Affine,
    Gaussian,
    GaussianWeights,
    Hardware,
    Multiplicative,
    Noise,
    Numbers,
    Operation,
    OutputModel,
    Realisation,
    UniformConverter,
)

N, T, F, H = 4, 5, 3, 6
DOUBLE = torch.float64


def converter(bits: int, bound: float) -> UniformConverter:
    return UniformConverter(bits, bound, "absolute")


def quantise(x: np.ndarray, bits: int, bound: float) -> np.ndarray:
    step = bound / (2 ** (bits - 1) - 1)
    return np.rint(np.clip(x, -bound, bound) / step) * step


KINDS = {
    "multiplicative": Hardware(output=Multiplicative(0.3), sites=SITES),
    "two outputs": Hardware(output=(Gaussian(0.2), Multiplicative(0.3), Gaussian(0.1)), sites=SITES),
    "weights": Hardware(weight=GaussianWeights(0.1)),
    "converters": Hardware(dac=converter(4, 1.0), adc=converter(4, 2.0)),
    "tiles": Hardware(output=Gaussian(0.2), adc=converter(5, 2.0), tile=2),
    "all": Hardware(
        (Gaussian(0.2, "signal"), Multiplicative(0.1)),
        GaussianWeights(0.05, per="output"),
        UniformConverter(6),
        UniformConverter(6, 4.0, "signal"),
        tile=4,
        sites=SITES,
    ),
}
every_kind = pytest.mark.parametrize("hardware", KINDS.values(), ids=KINDS)


class TestLinear:
    def layer(self, features: int = 7, outputs: int = 5) -> NoisyLinear:
        torch.manual_seed(0)
        return NoisyLinear(features, outputs, dtype=DOUBLE)

    def test_converters_and_tiles_are_numpys(self):
        layer, x = self.layer(), torch.randn(50, 7, dtype=DOUBLE)
        with layer.under(Hardware(dac=converter(5, 1.5), adc=converter(4, 0.8), tile=3)):
            got = layer(x).detach().numpy()
        weight, inputs = layer.weight.detach().numpy(), quantise(x.numpy(), 5, 1.5)
        expected = sum(
            quantise(inputs[:, first : first + 3] @ weight[:, first : first + 3].T, 4, 0.8)
            for first in (0, 3, 6)
        )
        np.testing.assert_allclose(got, expected + layer.bias.detach().numpy(), atol=1e-12)

    def test_the_gradient_goes_straight_through_within_the_bounds(self):
        layer = NoisyLinear(1, 1, bias=False, dtype=DOUBLE)
        with torch.no_grad():
            layer.weight.fill_(1.0)
        x = torch.tensor([[0.3], [0.9], [1.1], [-2.0]], dtype=DOUBLE, requires_grad=True)
        with layer.under(Hardware(dac=converter(4, 1.0))):
            layer(x).sum().backward()
        assert x.grad.flatten().tolist() == [1, 1, 0, 0]
        x.grad = None
        with layer.under(Hardware(adc=converter(4, 0.5))):
            layer(x).sum().backward()
        assert x.grad.flatten().tolist() == [1, 0, 0, 0]

    def test_bounds_that_calibration_found(self):
        layer, x = self.layer(), torch.randn(50, 7, dtype=DOUBLE)
        calibrate(layer, [x])
        weight = layer.weight.detach()
        clean = x @ weight.T
        largest, rms = float(x.abs().max()), float(clean.square().mean().sqrt())
        for hardware, expected in (
            (
                Hardware(dac=UniformConverter(4, 0.5, "range")),
                quantise(x.numpy(), 4, 0.5 * largest) @ weight.numpy().T,
            ),
            (Hardware(adc=UniformConverter(4, 2.0, "signal")), quantise(clean.numpy(), 4, 2 * rms)),
            (
                Hardware(adc=UniformConverter(4, 0.5, "range")),
                quantise(clean.numpy(), 4, 0.5 * largest * float(weight.abs().max())),
            ),
        ):
            with layer.under(hardware):
                got = layer(x) - layer.bias
            np.testing.assert_allclose(got.detach().numpy(), expected, atol=1e-12)
        fresh = self.layer()
        with pytest.raises(UserError, match="calibrate"), fresh.under(Hardware(dac=UniformConverter(4))):
            fresh(x)

    def test_multiplicative_noise_has_its_variance(self):
        """Of 40,000 quotients the mean square has a relative standard deviation of 0.71 %; false alarms 1e-6."""
        layer, x = self.layer(7, 200), torch.randn(200, 7, dtype=DOUBLE)
        clean = layer(x) - layer.bias
        with layer.under(Hardware(output=Multiplicative(0.3)), Realisation(seed=1)):
            quotients = ((layer(x) - layer.bias) / clean - 1).detach()
        assert abs(float(quotients.mean())) < 4.9 * 0.3 / 200
        assert float(quotients.square().mean()) == pytest.approx(0.09, rel=4.9 * math.sqrt(2 / 40_000))

    def test_weights_have_their_variance_and_are_of_their_chip(self):
        """As above; the matrix is read off by unit vectors."""
        layer = self.layer(200, 200)
        eye = torch.eye(200, dtype=DOUBLE)
        weight = layer.weight.detach().T

        def errors(chip: int, draw: int = 0, seed: int = 0) -> Tensor:
            with layer.under(Hardware(weight=GaussianWeights(0.1)), Realisation(seed, chip, draw)):
                return (layer(eye) - layer.bias - weight).detach()

        first = errors(0)
        std = 0.1 * float(weight.abs().max())
        assert abs(float(first.mean())) < 4.9 * std / 200
        assert float(first.square().mean()) == pytest.approx(std**2, rel=4.9 * math.sqrt(2 / 40_000))
        torch.testing.assert_close(errors(0, draw=5), first, atol=1e-12, rtol=0)
        for other in (errors(1), errors(-1), errors(0, seed=1)):
            correlation = float((first * other).mean()) / std**2
            assert abs(correlation) < 4.9 / 200

    def test_weights_per_output_follow_its_largest(self):
        layer = self.layer(400, 2)
        with torch.no_grad():
            layer.weight[1] *= 10
        with layer.under(Hardware(weight=GaussianWeights(0.1, per="output"))):
            errors = (layer(torch.eye(400, dtype=DOUBLE)) - layer.bias - layer.weight.T).std(0)
        largest = layer.weight.detach().abs().amax(1)
        # 400 numbers: the standard deviation's own is 3.5 %; false alarms 1e-6.
        torch.testing.assert_close(errors.detach(), 0.1 * largest, rtol=4.9 * 0.0354, atol=0)

    def test_what_is_programmed_once_follows_the_weights(self):
        """Without gradients a matrix is kept; it is another one after a step of an optimiser."""
        layer, x = self.layer(), torch.randn(3, 7, dtype=DOUBLE)
        with layer.under(Hardware(weight=GaussianWeights(0.1))), torch.no_grad():
            first = layer(x)
            assert torch.equal(layer(x), first)
            layer.weight.mul_(2)
            layer.bias.mul_(2)
            torch.testing.assert_close(layer(x), 2 * first)
            layer.weight.data.div_(2)  # which no version counts
            layer.bias.data.div_(2)
            torch.testing.assert_close(layer(x), first)
            layer.weight.data.mul_(2)
            layer.bias.data.mul_(2)
            layer.double()
            layer.float()
            torch.testing.assert_close(layer(x.float()), 2 * first.float(), atol=1e-5, rtol=1e-5)

    def test_gradient_of_programmed_weights_is_that_of_the_noisy_product(self):
        layer, x = self.layer(), torch.randn(3, 7, dtype=DOUBLE)
        with layer.under(Hardware(weight=GaussianWeights(0.1))):
            layer(x).sum().backward()
        torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(5, 7))

    @every_kind
    def test_over_time_is_forward_turned_round(self, hardware):
        layer, x = self.layer(), torch.randn(N, T, 7, dtype=DOUBLE)
        calibrate(layer, [x])
        with layer.under(hardware, Realisation(draw=0)):
            torch.testing.assert_close(layer.over_time(x.transpose(0, 1)), layer(x).transpose(0, 1))

    @every_kind
    def test_a_sample_does_not_depend_on_its_batch(self, hardware):
        layer, x = self.layer(), torch.randn(N, T, 7, dtype=DOUBLE)
        calibrate(layer, [x])
        ids = torch.tensor([5, 2**40, -1, 9])
        with layer.under(hardware, Realisation(draw=0, sample_ids=ids)):
            whole = layer(x)
        with layer.under(hardware, Realisation(draw=0, sample_ids=ids[2:], first_step=3)):
            torch.testing.assert_close(layer(x[2:, 3:]), whole[2:, 3:])


def step_of_lstm(gates: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    i, f, g, o = np.split(gates, 4, -1)

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


class TestRecurrent:
    @pytest.mark.parametrize("arrays", ["joint", "separate"])
    @pytest.mark.parametrize("tile", [None, 4, 2])
    def test_an_lstm_on_converters_is_numpys(self, arrays, tile):
        """Joint arrays have one ADC after the sum, tiles run over the columns of [W_ih W_hh]."""
        torch.manual_seed(0)
        layer, x = NoisyLSTM(F, H, dtype=DOUBLE), torch.randn(T, N, F, dtype=DOUBLE)
        hardware = Hardware(dac=converter(5, 1.0), adc=converter(5, 1.5), tile=tile, arrays=arrays)
        with layer.under(hardware):
            outputs, (h_last, c_last) = layer(x)
        w_ih, w_hh, b_ih, b_hh = (its.detach().numpy() for its in layer.parameters())

        def product(weight: np.ndarray, inputs: np.ndarray) -> np.ndarray:
            columns, total = tile or weight.shape[1], 0.0
            for first in range(0, weight.shape[1], columns):
                part = slice(first, first + columns)
                total = total + quantise(quantise(inputs, 5, 1.0)[:, part] @ weight[:, part].T, 5, 1.5)
            return total

        h = c = np.zeros((N, H))
        for t, inputs in enumerate(x.numpy()):
            if arrays == "joint":
                gates = product(np.concatenate((w_ih, w_hh), 1), np.concatenate((inputs, h), 1))
            else:
                gates = product(w_ih, inputs) + product(w_hh, h)
            h, c = step_of_lstm(gates + b_ih + b_hh, c)
            np.testing.assert_allclose(outputs[t].detach().numpy(), h, atol=1e-12)
        np.testing.assert_allclose(h_last[0].detach().numpy(), h, atol=1e-12)
        np.testing.assert_allclose(c_last[0].detach().numpy(), c, atol=1e-12)

    @pytest.mark.parametrize("tile", [None, 4, 2])
    def test_the_n_gate_of_a_gru_is_two_outputs_of_a_joint_array(self, tile):
        torch.manual_seed(0)
        layer, x = NoisyGRU(F, H, dtype=DOUBLE), torch.randn(T, N, F, dtype=DOUBLE)
        with layer.under(Hardware(adc=converter(5, 1.0), tile=tile)):
            outputs, _ = layer(x)
        w_ih, w_hh, b_ih, b_hh = (its.detach().numpy() for its in layer.parameters())
        h, zeros = np.zeros((N, H)), np.zeros

        def product(weight: np.ndarray, inputs: np.ndarray) -> np.ndarray:
            columns, total = tile or weight.shape[1], 0.0
            for first in range(0, weight.shape[1], columns):
                part = slice(first, first + columns)
                total = total + quantise(inputs[:, part] @ weight[:, part].T, 5, 1.0)
            return total

        def sigmoid(y: np.ndarray) -> np.ndarray:
            return 1 / (1 + np.exp(-y))

        for t, inputs in enumerate(x.numpy()):
            both = np.concatenate((inputs, h), 1)
            rz = product(np.concatenate((w_ih, w_hh), 1)[: 2 * H], both) + (b_ih + b_hh)[: 2 * H]
            r, z = np.split(sigmoid(rz), 2, -1)
            only_x = product(np.concatenate((w_ih[2 * H :], zeros((H, H))), 1), both)
            only_h = product(np.concatenate((zeros((H, F)), w_hh[2 * H :]), 1), both)
            n = np.tanh(only_x + b_ih[2 * H :] + r * (only_h + b_hh[2 * H :]))
            h = (1 - z) * n + z * h
            np.testing.assert_allclose(outputs[t].detach().numpy(), h, atol=1e-12)

    @pytest.mark.parametrize("arrays", ["joint", "separate"])
    @pytest.mark.parametrize("cell", CELLS)
    def test_of_k_networks_each_is_what_it_is_alone(self, cell, arrays):
        """Every kind of hardware, with strengths, seeds and chips of their own."""
        torch.manual_seed(0)
        members = [NoisyRecurrent(cell, F, H, num_layers=2, dtype=DOUBLE) for _ in range(3)]
        x = torch.randn(T, N, F, dtype=DOUBLE)
        for member in members:
            calibrate(member, [x])
        population = stack_networks(members)
        for kind in KINDS.values():
            settings = kind.as_settings() | {"arrays": arrays}
            own = Hardware.from_settings(settings)
            hardware = []
            for k in range(3):
                its = own
                if its.output:
                    its = its.at(0.2 * k)
                hardware.append(its)
            realisations = [Realisation(seed=k, chip=k % 2, draw=k) for k in range(3)]
            with population.under(hardware, realisations):
                together = population(x)[0]
            for k, member in enumerate(members):
                with member.under(hardware[k], realisations[k]):
                    torch.testing.assert_close(together[k], member(x)[0], atol=1e-9, rtol=0)

    @every_kind
    @pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
    def test_chips_of_one_network_are_a_population(self, cell, hardware):
        torch.manual_seed(0)
        layer, x = NoisyRecurrent(cell, F, H), torch.randn(T, N, F)
        calibrate(layer, [x])
        chips = stack_networks([layer] * 4)
        realisations = [Realisation(chip=chip, draw=0) for chip in range(4)]
        with chips.under(hardware, realisations):
            together = chips(x)[0]
        for realisation, its in zip(realisations, together, strict=True):
            with layer.under(hardware, realisation):
                torch.testing.assert_close(its, layer(x)[0], atol=1e-6, rtol=0)
        differ = [not torch.equal(one, other) for one, other in itertools.combinations(together, 2)]
        assert all(differ) if hardware.has_chips else not any(differ)

    @every_kind
    def test_gradients_are_those_of_differences(self, hardware):
        """But for converters, whose gradient goes straight through."""
        if hardware.dac or hardware.adc:
            hardware = Hardware(hardware.output, hardware.weight, tile=hardware.tile, sites=hardware.sites)
        torch.manual_seed(0)
        for layer in (
            NoisyLSTM(2, 3, dtype=DOUBLE),
            NoisyGRU(2, 3, dtype=DOUBLE),
            NoisyRNN(2, 3, dtype=DOUBLE),
        ):
            x = torch.randn(3, 2, 2, dtype=DOUBLE, requires_grad=True)
            calibrate(layer, [x.detach()])
            names, parameters = zip(*layer.named_parameters(), strict=True)
            # What a weight model takes as a constant must not move with the differences.
            if hardware.has_chips:
                parameters = [parameter for parameter in parameters if parameter.dim() == 1]
                names = [name for name in names if name.startswith("bias")]

            def run(x, *values, layer=layer, names=names):
                with layer.under(hardware, Realisation(draw=0)):
                    return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))[0]

            assert torch.autograd.gradcheck(run, (x, *parameters))

    @every_kind
    def test_chunks_of_a_sequence_continue_it(self, hardware):
        torch.manual_seed(0)
        layer, x = NoisyLSTM(F, H, dtype=DOUBLE), torch.randn(T, N, F, dtype=DOUBLE)
        calibrate(layer, [x])
        with layer.under(hardware, Realisation(draw=0)):
            whole, _ = layer(x)
            first, state = layer(x[:2])
        with layer.under(hardware, Realisation(draw=0, first_step=2)):
            second, _ = layer(x[2:], state)
        torch.testing.assert_close(torch.cat((first, second)), whole)


class TestImplementations:
    def test_gaussian_hardware_is_the_noise_to_the_last_bit(self):
        torch.manual_seed(0)
        layer, x = NoisyLSTM(F, H, num_layers=2), torch.randn(T, N, F)
        results = []
        for under in (
            (Noise(0.5, sites=SITES, seed=3, draw=1),),
            (Hardware(output=Gaussian(0.5), sites=SITES), Realisation(seed=3, draw=1)),
        ):
            with layer.under(*under):
                results.append(layer(x)[0])
        assert torch.equal(*results)

    @pytest.mark.parametrize("kind", ["multiplicative", "converters", "tiles", "two outputs"])
    def test_what_no_kernel_declares_is_run_by_the_loop_and_said(self, kind):
        torch.manual_seed(0)
        layer, x = NoisyLSTM(F, H, dtype=DOUBLE), torch.randn(T, N, F, dtype=DOUBLE)
        with layer.under(KINDS[kind], Realisation(draw=0)):
            got, _ = layer(x)
            with use_implementation("reference"):
                torch.testing.assert_close(got, layer(x)[0], atol=1e-5, rtol=0)
            with (
                use_implementation("fused"),
                pytest.raises(RuntimeError, match=r"no fused recurrence (for|on)|no C compiler"),
            ):
                layer(x)

    def test_weights_and_gaussian_outputs_reach_the_kernels(self):
        """A kernel is given matrices as they were programmed; their gradients come back through the programming."""
        torch.manual_seed(0)
        layer, x = NoisyLSTM(F, H, num_layers=2), torch.randn(T, N, F)
        hardware = Hardware(output=Gaussian(0.3), weight=GaussianWeights(0.1))
        results = []
        for implementation in ("auto", "reference"):
            with use_implementation(implementation), layer.under(hardware, Realisation(draw=0)):
                output, _ = layer(x)
                results.append(
                    (output, *torch.autograd.grad(output.square().sum(), list(layer.parameters())))
                )
        for mine, its in zip(*results, strict=True):
            torch.testing.assert_close(mine, its, atol=2e-5, rtol=2e-5)

    def test_a_clean_projection_is_refused_where_it_is_not_all(self):
        layer, x = NoisyLSTM(F, H), torch.randn(T, N, F)
        projection, state = layer.input_projection(x), layer.initial_state(N, x)
        for kind in ("multiplicative", "weights", "converters", "tiles"):
            with (
                layer.under(KINDS[kind]),
                pytest.raises(UserError, match="give the inputs"),
            ):
                layer.forward_projected(projection, state)
        with layer.under(Hardware(output=Multiplicative(0.3), sites=("recurrent",)), Realisation(draw=0)):
            got, _ = layer.forward_projected(projection, state)
            torch.testing.assert_close(got, layer(x)[0])


def test_snr_of_several_models_is_that_of_their_noise_together():
    """The second multiplies the first one's noise, too. 2 x 60,000 errors; their mean square is known to 2 %."""
    torch.manual_seed(0)
    layer, x = NoisyLinear(7, 300, bias=False, dtype=DOUBLE), torch.randn(200, 7, dtype=DOUBLE)
    calibrate(layer, [x])
    hardware = Hardware((Gaussian(1.0), Multiplicative(1.0)))
    clean = layer(x).detach()
    with layer.under(hardware, Realisation(draw=0)):
        error = layer(x).detach() - clean
    measured = 10 * math.log10(float(clean.square().mean() / error.square().mean()))
    assert snr_db(layer, hardware) == pytest.approx(measured, abs=0.3)


@dataclass(frozen=True)
class _WithoutGain(OutputModel):
    """Leaves out what it does not change, as a model may."""

    sigma: float = 0.0

    def operation(self, numbers: Numbers) -> Operation:
        normal = numbers.normal()
        return Affine(gain=normal if self.sigma else None, add=None if self.sigma > 1 else normal)

    def variance(self, signal: float, unit: float) -> float:
        return 0.0

    @property
    def neutral(self) -> bool:
        return False


def test_members_of_a_population_may_leave_out_what_others_have():
    torch.manual_seed(0)
    members, x = [NoisyLinear(4, 3) for _ in range(3)], torch.randn(5, 4)
    population = stack_networks(members)
    hardware = [Hardware(_WithoutGain(sigma)) for sigma in (0.0, 0.5, 2.0)]
    realisations = [Realisation(seed=k, draw=0) for k in range(3)]
    with population.under(hardware, realisations):
        together = population(x.expand(3, 5, 4))
    for member, its, realisation, got in zip(members, hardware, realisations, together, strict=True):
        with member.under(its, realisation):
            torch.testing.assert_close(got, member(x))


def test_snr_of_multiplicative_noise_is_its_sigma():
    torch.manual_seed(0)
    layer, x = NoisyLSTM(F, H), torch.randn(T, N, F)
    calibrate(layer, [x])
    assert snr_db(layer, Hardware(output=Multiplicative(0.1), sites=MVM_SITES)) == pytest.approx(20.0)
    assert snr_db(layer, KINDS["weights"]) is None


@pytest.mark.parametrize("implementation", ["fused", "reference"])
@pytest.mark.parametrize("converter", ["dac", "adc"])
def test_converters_of_a_dead_layer_let_nothing_through(converter, implementation):
    """Its signals have been 0 in calibration, so that its converters are in multiples of 0."""
    layer, x = NoisyLSTM(3, 4), torch.zeros(5, 2, 3)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    calibrate(layer, [x])
    hardware = Hardware(Gaussian(0.1), **{converter: UniformConverter(6, 1.0, "range")})
    with torch.no_grad():
        layer.weight_ih_l0.fill_(1.0)
    with layer.under(hardware, Realisation(draw=0)), use_implementation(implementation):
        y, _ = layer(torch.ones(5, 2, 3))
    assert y.isfinite().all()
    assert (y.abs() < 1e-20).all() == (converter == "adc")
