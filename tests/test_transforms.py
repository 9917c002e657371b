"""What torch does with functions and programs: derivatives of derivatives, torch.func, tracing, export, tensor classes.

Each gives what ``torch.nn``'s layers give, or what the loop gives one by one; or it is refused.
"""

import contextlib
import copy
import io
import warnings

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacrev, jvp, stack_module_state, vmap

from asr_dni.errors import UserError
from asr_dni.nn import NoisyGRU, NoisyLinear, NoisyLSTM, NoisyRNN, native, use_implementation
from asr_dni.nn.implementation import run_recurrence
from asr_dni.nn.operations import GaussianNoise, Product
from asr_dni.nn.recurrence import Recurrence, Sites
from asr_dni.noise import SITES, Noise

PAIRS = {"rnn": (NoisyRNN, nn.RNN), "lstm": (NoisyLSTM, nn.LSTM), "gru": (NoisyGRU, nn.GRU)}
every_cell = pytest.mark.parametrize("cell", PAIRS)
EVERYWHERE = Noise(0.5, sites=SITES, arrays="separate", seed=3, draw=1)
needs_compiler = pytest.mark.skipif(
    native.library() is None, reason=f"no compiled kernels: {native.status()}"
)


def pair_of(cell, **options):
    torch.manual_seed(0)
    ours, torchs = (kind(3, 4, **options) for kind in PAIRS[cell])
    torchs.load_state_dict(ours.state_dict())
    return ours, torchs, torch.randn(5, 2, 3)


def close(got, expected):
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


class TestSecondDerivatives:
    @staticmethod
    def of(layer, x):
        """A gradient penalty's gradient: of what the first gradient depends on, each weight and the input."""
        leaves = [x, *layer.parameters()]
        first = torch.autograd.grad(layer(x)[0].square().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(part.square().sum() for part in first), leaves)

    @every_cell
    def test_equal_those_of_torch(self, cell):
        ours, torchs, x = pair_of(cell, num_layers=2, bidirectional=True)
        for got, expected in zip(self.of(ours, x.requires_grad_()), self.of(torchs, x), strict=True):
            close(got, expected)

    @every_cell
    def test_under_noise_equal_those_of_double_precision(self, cell):
        ours, _, x = pair_of(cell, num_layers=2)
        twin = copy.deepcopy(ours).double()
        ours.noise = twin.noise = EVERYWHERE
        mine, its = self.of(ours, x.requires_grad_()), self.of(twin, x.detach().double().requires_grad_())
        for got, expected in zip(mine, its, strict=True):
            assert (got - expected).abs().max() < 1e-4 * expected.abs().max()

    @every_cell
    @pytest.mark.parametrize("noise", [Noise(), EVERYWHERE], ids=["clean", "noisy"])
    def test_of_the_reference_against_differences(self, cell, noise):
        layer = PAIRS[cell][0](2, 2, dtype=torch.float64)
        x = torch.randn(2, 2, 2, dtype=torch.float64, requires_grad=True)
        names = list(dict(layer.named_parameters()))

        def outputs(x, *weights):
            return functional_call(layer, dict(zip(names, weights, strict=True)), (x,))[0]

        weights = [parameter.detach().requires_grad_() for parameter in layer.parameters()]
        with layer.under(noise):
            assert torch.autograd.gradcheck(outputs, (x, *weights))
            assert torch.autograd.gradgradcheck(outputs, (x, *weights))

    @needs_compiler
    def test_under_autocast_the_kernel_refuses(self):
        layer, x = NoisyLSTM(3, 4), torch.randn(5, 2, 3, dtype=torch.bfloat16, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            output = layer(x)[0]
        with pytest.raises(RuntimeError, match=r"use_implementation\(\"reference\"\)"):
            torch.autograd.grad(output.float().sum(), x, create_graph=True)

    def test_an_argument_that_comes_from_another_is_not_counted_twice(self):
        torch.manual_seed(0)
        w_hh, x = torch.randn(1, 16, 4, requires_grad=True), torch.randn(5, 2, 4, requires_grad=True)
        results = []
        for implementation in ("auto", "reference"):
            with use_implementation(implementation):
                state, noise = (x[:1] * w_hh.sum(), x[1:2] * 2), Sites([torch.arange(2)])
                inputs = {"inputs": x[2:], "w_ih": w_hh * x.mean()}
                output, _ = run_recurrence(Recurrence("lstm", w_hh.tanh(), None, state, noise, **inputs))
                first = torch.autograd.grad(output.square().sum(), [w_hh, x], create_graph=True)
                second = torch.autograd.grad(first[0].sum() + first[1].square().sum(), [w_hh, x])
                results.append([*first, *second])
        for got, expected in zip(*results, strict=True):
            close(got, expected)


class TestFunctionTransforms:
    @every_cell
    @pytest.mark.parametrize("noise", [Noise(), EVERYWHERE], ids=["clean", "noisy"])
    def test_grad_equals_backward(self, cell, noise):
        ours, torchs, x = pair_of(cell)
        parameters = {name: value.detach() for name, value in ours.named_parameters()}

        def loss(module):
            return lambda parameters: functional_call(module, parameters, (x,))[0].square().sum()

        with ours.under(noise):
            got = grad(loss(ours))(parameters)
            ours(x)[0].square().sum().backward()
        for name, parameter in ours.named_parameters():
            close(got[name], parameter.grad)
        if not noise.on:
            expected = grad(loss(torchs))(parameters)
            for name in parameters:
                close(got[name], expected[name])

    @every_cell
    def test_jacobians(self, cell):
        ours, torchs, x = pair_of(cell)
        close(jacrev(lambda x: ours(x)[0])(x), jacrev(lambda x: torchs(x)[0])(x))
        tangent = torch.randn_like(x)
        forwards = jvp(lambda x: ours(x)[0], (x,), (tangent,))[1]
        close(forwards, torch.einsum("abcdef,def->abc", jacrev(lambda x: ours(x)[0])(x), tangent))
        with forward_ad.dual_level():
            dual = ours(forward_ad.make_dual(x, tangent))[0]
            close(forward_ad.unpack_dual(dual).tangent, forwards)

    @every_cell
    @pytest.mark.parametrize("noise", [Noise(), EVERYWHERE], ids=["clean", "noisy"])
    def test_vmap_over_stacked_weights(self, cell, noise):
        layers, x = [PAIRS[cell][0](3, 4) for _ in range(3)], torch.randn(5, 2, 3)
        stacked, buffers = stack_module_state(layers)
        with layers[0].under(noise):
            got = vmap(lambda p, b: functional_call(layers[0], (p, b), (x,))[0])(stacked, buffers)
        for layer, its in zip(layers, got, strict=True):
            with layer.under(noise):
                close(its, layer(x)[0])

    @needs_compiler
    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize(
        ("name", "call"),
        [
            ("torch.func", lambda layer, x: jacrev(lambda x: layer(x)[0])(x)),
            ("torch.jit.trace", torch.jit.trace),
            ("torch.export", lambda layer, x: torch.export.export(layer, (x,), strict=False)),
            ("forward-mode", lambda layer, x: layer(forward_ad.make_dual(x, x))),
        ],
    )
    def test_a_kernel_that_was_asked_for_names_the_reference(self, name, call):
        layer, x = NoisyLSTM(3, 4), torch.randn(5, 2, 3)
        with (
            use_implementation("fused"),
            forward_ad.dual_level() if name == "forward-mode" else contextlib.nullcontext(),
            pytest.raises(
                RuntimeError, match=rf"cannot run: .*\b{name} .*; use_implementation\(\"reference\"\) has"
            ),
        ):
            call(layer, x)


@pytest.mark.filterwarnings("ignore")
class TestPrograms:
    @every_cell
    @pytest.mark.parametrize("trainable", [True, False])
    def test_a_traced_layer_is_right_for_other_inputs_also_from_a_file(self, cell, trainable):
        ours, _, x = pair_of(cell, num_layers=2)
        ours.requires_grad_(trainable)
        traced, other = torch.jit.trace(ours, x), torch.randn_like(x)
        file = io.BytesIO()
        torch.jit.save(traced, file)
        file.seek(0)
        for program in (traced, torch.jit.load(file)):
            close(program(other)[0], ours(other)[0])
            with pytest.raises(RuntimeError):  # another number of steps is not silently cut off
                program(torch.randn(9, 2, 3))

    @every_cell
    def test_an_exported_layer_is_right_for_other_inputs(self, cell):
        ours, _, x = pair_of(cell)
        program, other = torch.export.export(ours, (x,), strict=False).module(), torch.randn_like(x)
        close(program(other)[0], ours(other)[0])

    @pytest.mark.parametrize("layer", [NoisyLSTM(3, 4), NoisyLinear(3, 4)], ids=["recurrent", "linear"])
    @pytest.mark.parametrize(
        "make", [torch.jit.trace, lambda m, x: torch.export.export(m, (x,), strict=False)]
    )
    def test_noise_is_not_frozen_into_a_program(self, layer, make):
        refused = (
            f"{type(layer).__name__} would have the same noise in every call: .* to trace or export it, and run"
            " the module itself to have noise$"
        )
        with layer.under(Noise(1.0)), pytest.raises(UserError, match=refused):
            make(layer, torch.randn(5, 2, 3))


class TestKindsOfTensors:
    @every_cell
    def test_without_numbers(self, cell):
        ours, torchs, x = pair_of(cell)
        with ours.under(Noise(1.0)):
            assert ours.to("meta")(x.to("meta"))[0].shape == torchs(x)[0].shape
        with FakeTensorMode() as mode:
            layer = PAIRS[cell][0](3, 4)
            with layer.under(Noise(1.0)):
                assert layer(mode.from_tensor(x))[0].shape == (5, 2, 4)

    @every_cell
    def test_lazily_negated(self, cell):
        """Their memory holds the numbers with the other sign."""
        ours, torchs, _ = pair_of(cell)
        x = torch.randn(5, 2, 3, dtype=torch.complex64).conj().imag
        assert x.is_neg()
        close(ours(x)[0], torchs(x)[0])
        h = x.mean((0, 2), keepdim=True).expand(1, 2, 4)
        if cell != "lstm":
            close(ours(x, torch.complex(h, h).conj().imag)[0], torchs(x, -h)[0])

    def test_of_another_class(self):
        class Named(torch.Tensor):
            pass

        ours, torchs, x = pair_of("lstm")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            close(ours(x.as_subclass(Named))[0].as_subclass(torch.Tensor), torchs(x)[0])


class TestWhatTheKernelsTakeForGranted:
    """Each of these would be read past the end of a tensor."""

    @staticmethod
    def problem(cell="lstm", width=4):
        gates = {"lstm": 4, "gru": 3}.get(cell, 1)
        return {
            "cell": cell,
            "w_hh": torch.randn(2, gates * width, width),
            "b_hh": torch.randn(2, gates * width),
            "w_ih": torch.randn(2, gates * width, 3),
            "b_ih": torch.randn(2, gates * width),
            "inputs": torch.randn(5, 6, 3),
            "state": (torch.zeros(2, 6, width),) * (2 if cell == "lstm" else 1),
            "sites": Sites([torch.arange(6)] * 2, input=Product.gaussian_of([1.0] * 2, [(1, 2)] * 2)),
        }

    @pytest.mark.parametrize("implementation", ["auto", "reference"])
    @pytest.mark.parametrize("cell", ["lstm_diagonal", "rnn", "LSTM", "", None])
    def test_an_unknown_cell(self, cell, implementation):
        with (
            use_implementation(implementation),
            pytest.raises(UserError, match="rnn_tanh, rnn_relu, lstm, gru"),
        ):
            run_recurrence(Recurrence(**self.problem(cell)))

    def test_a_subclass_with_equations_of_its_own(self):
        class Diagonal(NoisyLSTM):
            _cell = "lstm_diagonal"

        with pytest.raises(UserError, match="lstm_diagonal"):
            Diagonal(3, 4)(torch.randn(5, 2, 3))

    @pytest.mark.parametrize("implementation", ["auto", "reference"])
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"sites": Sites([torch.arange(6)])}, "1 noises for 2 networks"),
            ({"sites": Sites([torch.arange(5)] * 2)}, "6 samples"),
            ({"sites": Sites([torch.zeros(6)] * 2)}, "float32"),
            ({"sites": Sites([torch.arange(6)] * 2, first_step=2**32 - 4)}, "first step"),
            ({"sites": Sites([torch.arange(6)] * 2, first_step=-1)}, "first step"),
            ({"state": (torch.zeros(2, 5, 4), torch.zeros(2, 6, 4))}, "state h"),
            ({"state": (torch.zeros(2, 6, 4), torch.zeros(2, 6, 3))}, "state c"),
            ({"state": (torch.zeros(2, 6, 4),)}, "1 states"),
            ({"w_ih": torch.zeros(2, 16, 4)}, "input weights"),
            ({"w_ih": torch.zeros(1, 16, 3)}, "input weights"),
            ({"b_ih": torch.zeros(2, 15)}, "input biases"),
            ({"inputs": torch.zeros(3, 5, 6, 3)}, "inputs"),
            ({"w_hh": torch.zeros(2, 16, 3)}, "recurrent weights"),
            ({"w_hh": torch.zeros(2, 15, 4)}, "recurrent weights"),
            ({"b_hh": torch.zeros(2, 12)}, "recurrent biases"),
            (
                {"inputs": None, "w_ih": None, "b_ih": None, "projection": torch.zeros(2, 5, 6, 15)},
                "projected inputs",
            ),
            ({"w_ih": None}, "no input weights"),
            ({"own": {"peephole_i": torch.zeros(2, 4)}}, "of its own"),
            ({"lengths": torch.full((6,), torch.nan)}, r"lengths are .*float32"),
            ({"lengths": torch.ones(5, dtype=torch.int64)}, "lengths"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_what_does_not_fit(self, changes, message, implementation):
        with use_implementation(implementation), pytest.raises(UserError, match=message):
            run_recurrence(Recurrence(**self.problem() | changes))

    @pytest.mark.parametrize("lengths", [[-1, 2], [3, 6], [1.0, float("nan")], [1]])
    def test_lengths(self, lengths):
        layer, x = NoisyLSTM(3, 4, bidirectional=True), torch.randn(5, 2, 3)
        with pytest.raises(UserError, match="lengths are"):
            layer.forward_projected(
                layer.input_projection(x), layer.initial_state(2, x), torch.tensor(lengths)
            )

    @needs_compiler
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"cell": "peephole"}, "no cell 'peephole'"),
            ({"sites": Sites([])}, "0 noises"),
            ({"w_hh": torch.zeros(1, 16, 3)}, "w_hh"),
            ({"w_hh": None}, "needs w_hh"),
            ({"h": torch.zeros(1, 3, 4, dtype=torch.float64)}, "float64"),
            ({"c": None}, "needs c"),
            ({"kept": torch.zeros(1, 4, 3, 2)}, "kept"),
            ({"projection": None}, "needs projection"),
            ({"outputs": torch.zeros(1, 2, 3, 8)[..., ::2]}, "not contiguous"),
            ({"sites": Sites([torch.arange(2)])}, "3 integers"),
        ],
    )
    def test_what_goes_to_c(self, changes, message):
        whole = {
            "cell": "lstm",
            "sites": Sites([torch.arange(3)]),
            "projection": torch.zeros(1, 2, 3, 16),
            "w_hh": torch.zeros(1, 16, 4),
            "h": torch.zeros(1, 3, 4),
            "c": torch.zeros(1, 3, 4),
            "outputs": torch.zeros(1, 2, 3, 4),
            "kept": torch.zeros(1, 1, 3, 4),
        }
        native.run_recurrence("forward", keep=False, **whole)
        with pytest.raises(ValueError, match=message):
            native.run_recurrence("forward", keep=False, **whole | changes)

    @needs_compiler
    @pytest.mark.parametrize(
        "changes",
        [{"groups": 5}, {"groups": 0}, {"width": -1}, {"first_step": -1}, {"sample_ids": [torch.zeros(2)]}],
    )
    def test_what_is_drawn_in_c(self, changes):
        whole = {"sample_ids": [torch.arange(2)], "first_step": 0, "steps": 3, "groups": 4, "width": 2}
        whole["like"] = torch.zeros(0)
        noise = GaussianNoise(torch.ones(1), ((1, 2),))
        assert native.draw_gaussian(noise, **whole).shape == (1, 3, 2, 8)
        with pytest.raises(ValueError, match=r"must be|identities|steps"):
            native.draw_gaussian(noise, **whole | changes)
