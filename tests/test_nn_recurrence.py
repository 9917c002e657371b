"""The fused recurrence against the plain loop that defines it."""

import copy
import functools
import gc
import itertools
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from asr_dni.nn import NoisyGRU, NoisyLinear, NoisyLSTM, NoisyRNN, native, use_implementation
from asr_dni.nn.fused import why_not
from asr_dni.nn.recurrence import Recurrence, Sites
from asr_dni.noise import SITES, Noise, NoisyModule

needs_compiler = pytest.mark.skipif(
    native.library() is None, reason=f"no compiled kernels here: {native.status()}"
)

NOISES = {
    "clean": Noise(),
    "joint": Noise(0.5, draw=0),
    "separate": Noise(0.5, arrays="separate", draw=0),
    "input": Noise(0.5, sites=("input",), draw=0),
    "recurrent": Noise(0.5, sites=("recurrent",), draw=0),
    "elementwise": Noise(0.5, sites=("elementwise",), draw=0),
    "all": Noise(0.5, sites=SITES, arrays="separate", seed=7, draw=3, first_step=2**31),
}
TOLERANCE = 5e-5
"""Single precision, noise of about 1e-6 relative between the two generators, sums over up to 600 rows."""


def results(implementation, layer, noise, x, state, only=None):
    """Outputs, final states and gradients of everything that needs one, with distinct output gradients."""
    leaves = [x, *state, *layer.parameters()]
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    is_lstm = isinstance(layer, NoisyLSTM)
    with use_implementation(implementation), layer.under(noise):
        outputs, final = layer(x, (state if is_lstm else state[0]) if state else None)
    final = final if is_lstm else (final,)
    parts = {"outputs": [outputs], "h": [final[0]], "c": [final[-1]]}.get(only, [outputs, *final])
    generator = torch.Generator().manual_seed(5)
    loss = sum((part * torch.randn(part.shape, generator=generator)).sum() for part in parts)
    gradients = torch.autograd.grad(loss, wanted, allow_unused=True) if wanted else ()
    return [outputs, *final, *gradients]


def agree(layer, noise, x, state=(), only=None):
    expected = results("reference", layer, noise, x, state, only)
    got = results("fused", layer, noise, x, state, only)
    for mine, its in zip(got, expected, strict=True):
        assert (mine is None) == (its is None)
        if its is not None:
            torch.testing.assert_close(mine, its, atol=TOLERANCE, rtol=TOLERANCE)


CELLS = {
    "lstm": NoisyLSTM,
    "gru": NoisyGRU,
    "rnn_tanh": NoisyRNN,
    "rnn_relu": functools.partial(NoisyRNN, nonlinearity="relu"),
}


def states(cell, *shape):
    return tuple(torch.randn(shape, requires_grad=True) for _ in range(2 if cell == "lstm" else 1))


@needs_compiler
class TestFusedEqualsReference:
    @pytest.mark.parametrize("noise", NOISES)
    @pytest.mark.parametrize(
        ("T", "N", "H"), [(1, 1, 1), (1, 5, 3), (7, 1, 16), (4, 3, 17), (3, 33, 65), (2, 2, 130)]
    )
    @pytest.mark.parametrize("cell", CELLS)
    def test_shapes_and_sites(self, cell, noise, T, N, H):
        torch.manual_seed(0)
        x = torch.randn(T, N, 3, requires_grad=True)
        agree(CELLS[cell](3, H), NOISES[noise], x, states(cell, 1, N, H))

    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize(("layers", "bidirectional"), [(1, True), (2, False), (2, True)])
    @pytest.mark.parametrize("cell", CELLS)
    def test_layers_and_directions(self, cell, bias, layers, bidirectional):
        torch.manual_seed(0)
        layer = CELLS[cell](3, 9, layers, bias=bias, bidirectional=bidirectional)
        agree(layer, NOISES["all"], torch.randn(5, 4, 3, requires_grad=True))

    @pytest.mark.parametrize("only", ["outputs", "h", "c"])
    @pytest.mark.parametrize("cell", CELLS)
    def test_loss_on_one_result_only(self, cell, only):
        torch.manual_seed(0)
        x = torch.randn(5, 4, 3, requires_grad=True)
        agree(CELLS[cell](3, 9), NOISES["all"], x, states(cell, 1, 4, 9), only)

    @pytest.mark.parametrize("needing", range(1, 7))
    def test_only_some_inputs_need_gradients(self, needing):
        torch.manual_seed(0)
        layer = NoisyLSTM(3, 9)
        x, h, c = torch.randn(5, 4, 3), torch.randn(1, 4, 9), torch.randn(1, 4, 9)
        for k, leaf in enumerate((x, h, c, layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_hh_l0), 1):
            leaf.requires_grad_(k == needing)
        layer.bias_ih_l0.requires_grad_(False)
        agree(layer, NOISES["all"], x, (h, c))

    def test_arrays_that_are_not_contiguous(self):
        torch.manual_seed(0)
        layer = NoisyLSTM(3, 9, batch_first=True)
        with torch.no_grad():
            layer.weight_hh_l0.set_(layer.weight_hh_l0.t().contiguous().t())
            layer.bias_hh_l0.set_(torch.randn(72)[::2])
        assert not layer.weight_hh_l0.is_contiguous()
        x = torch.randn(5, 3, 8).transpose(1, 2)[:, ::2].requires_grad_()
        state = tuple(torch.randn(9, 5, 1).permute(2, 1, 0).requires_grad_() for _ in range(2))
        agree(layer, NOISES["all"], x, state)
        # Also when handed the projection itself, and an expanded output gradient.
        wide = torch.randn(4, 36, 5).transpose(1, 2).requires_grad_()
        finals = []
        for implementation in ("reference", "fused"):
            with use_implementation(implementation), layer.under(NOISES["all"]):
                outputs, (h, c) = layer.forward_projected(wide, state)
            gradient = torch.autograd.grad(outputs.sum() + c.sum(), wide)[0]
            finals.append((outputs, h, c, gradient))
        for mine, its in zip(*finals, strict=True):
            torch.testing.assert_close(mine, its, atol=TOLERANCE, rtol=TOLERANCE)

    @pytest.mark.parametrize("cell", CELLS)
    def test_scale_that_follows_the_signal(self, cell):
        layer = CELLS[cell](3, 9)
        layer.statistics()["l0"].load(torch.full((2, len(layer.statistics()["l0"].sites)), 0.7))
        for scale in ("signal", "range"):
            noise = Noise(0.5, scale=scale, sites=SITES, draw=0)
            agree(layer, noise, torch.randn(5, 4, 3, requires_grad=True))

    def test_sample_identities(self):
        ids = torch.tensor([0, -1, 2**62, 5], dtype=torch.int64)
        x = torch.randn(5, 4, 3, requires_grad=True)
        agree(NoisyLSTM(3, 9), Noise(0.5, sites=SITES, draw=0, sample_ids=ids), x)
        every_second = torch.arange(8, dtype=torch.int32)[::2]
        agree(NoisyLSTM(3, 9), Noise(0.5, sites=SITES, draw=0, sample_ids=every_second), x)

    def test_saturated_gates(self):
        layer = NoisyLSTM(3, 9)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter *= 300
        agree(layer, NOISES["clean"], 10 * torch.randn(5, 4, 3, requires_grad=True))

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("cell", CELLS)
    def test_what_is_not_finite_shows(self, cell, value):
        """A diverged training must not look sound."""
        layer, x = CELLS[cell](3, 9), torch.randn(5, 4, 3)
        with torch.no_grad():
            layer.weight_ih_l0.abs_()  # inf - inf would be NaN depending on the order of the sum
            x[2, 1] = value
        with use_implementation("reference"):
            expected = layer(x)[0]
        with use_implementation("fused"):
            got = layer(x)[0]
        assert torch.equal(got.isnan(), expected.isnan())
        torch.testing.assert_close(got, expected, equal_nan=True, atol=TOLERANCE, rtol=TOLERANCE)

    def test_without_gradients(self):
        layer, x = NoisyLSTM(3, 9), torch.randn(5, 4, 3)
        outputs = {}
        for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
            with mode(), use_implementation("fused"), layer.under(NOISES["all"]):
                outputs[mode] = [tensor.clone() for tensor in (layer(x)[0], *layer(x)[1])]
        for mode in (torch.no_grad, torch.inference_mode):
            assert all(
                torch.equal(a, b) for a, b in zip(outputs[mode], outputs[torch.enable_grad], strict=True)
            )

    def test_a_graph_can_be_used_twice(self):
        layer, x = NoisyLSTM(3, 9), torch.randn(5, 4, 3)
        with use_implementation("fused"), layer.under(NOISES["all"]):
            outputs, (h, c) = layer(x)
        loss, leaves = outputs.square().sum() + h.sum() + c.sum(), list(layer.parameters())
        first = torch.autograd.grad(loss, leaves, retain_graph=True)
        second = torch.autograd.grad(loss, leaves)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    def test_autocast(self):
        torch.manual_seed(0)
        layer, x = NoisyLSTM(3, 17, num_layers=2), torch.randn(5, 4, 3)
        with layer.under(NOISES["joint"]):
            expected = layer(x)[0]
            for implementation in ("auto", "reference", "fused"):
                layer.zero_grad()
                with use_implementation(implementation), torch.autocast("cpu", torch.bfloat16):
                    outputs, (h, c) = layer(x)
                    outputs, _ = layer(x, (h.detach() * 0, c.detach() * 0))
                torch.testing.assert_close(outputs.float(), expected, atol=0.05, rtol=0.05)
                outputs.float().sum().backward()
                assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())

    def test_results_of_a_pass_stay_when_the_next_one_runs(self):
        layer = NoisyLSTM(3, 9)
        with use_implementation("fused"):
            first, (h, c) = layer(torch.randn(5, 4, 3))
            kept = [tensor.clone() for tensor in (first, h, c)]
            layer(torch.randn(5, 4, 3))[0].sum().backward()
        assert all(torch.equal(a, b) for a, b in zip((first, h, c), kept, strict=True))

    def test_copies(self):
        layer, x = NoisyLSTM(3, 9), torch.randn(5, 4, 3)
        layer.noise = NOISES["all"]
        with use_implementation("fused"):
            expected = layer(x)[0]
            assert torch.equal(copy.deepcopy(layer)(x)[0], expected)
            assert torch.equal(pickle.loads(pickle.dumps(layer))(x)[0], expected)


class Both(NoisyModule):
    def __init__(self):
        super().__init__()
        self.recurrent = NoisyLSTM(3, 8)
        self.classifier = NoisyLinear(8, 2)

    def forward(self, x):
        return self.classifier(self.recurrent(x)[0][-1])


@needs_compiler
def test_no_growth():
    """Hundreds of steps take no more memory than the first fifty did, and leave no tensors behind."""
    status = Path("/proc/self/statm")
    if not status.exists():
        pytest.skip("the process's memory is read from /proc")
    network = Both()
    network.noise = Noise(0.5, sites=SITES)
    x = torch.randn(4, 32, 3)

    def resident():
        gc.collect()
        tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
        return int(status.read_text().split()[1]) * 4096, tensors

    def run(count):
        for _ in range(count):
            network.zero_grad()
            network(x).sum().backward()

    run(50)
    before, tensors = resident()
    run(250)
    after, tensors_after = resident()
    # One set of this pass's buffers kept per step would be 250 * 4 * 32 * 8 * 7 * 4 bytes = 7.2 MB.
    assert after - before < 3e6
    assert tensors_after <= tensors


class TestChoice:
    def lstm(self, **changes):
        state = torch.zeros(1, 1, 2), torch.zeros(1, 1, 2)
        given = Recurrence(
            "lstm",
            torch.zeros(1, 8, 2),
            None,
            state,
            Sites([torch.arange(1)]),
            projection=torch.zeros(1, 1, 1, 8),
        )
        return replace(given, **changes)

    @needs_compiler
    def test_fused_runs_lstms_in_single_precision(self):
        assert why_not(self.lstm()) is None

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"cell": "one of mine"}, "one of mine"),
            ({"w_hr": torch.zeros(1, 1, 2)}, "proj_size"),
            ({"projection": torch.zeros(1, 1, 1, 8).double()}, "float64"),
            ({"projection": torch.zeros(1, 1, 1, 8).bfloat16()}, "bfloat16"),
            ({"projection": torch.zeros(1, 1, 1, 8, device="meta")}, "meta"),
        ],
    )
    def test_the_reason_is_given(self, changes, reason):
        assert reason in why_not(self.lstm(**changes))

    @pytest.mark.parametrize("layer", [NoisyLSTM(3, 4, proj_size=2), NoisyLSTM(3, 4, dtype=torch.float64)])
    def test_fused_raises_where_it_cannot_run(self, layer):
        x = torch.randn(2, 2, 3, dtype=layer.weight_ih_l0.dtype)
        with use_implementation("fused"), pytest.raises(RuntimeError, match="fused recurrence was asked for"):
            layer(x)
        with use_implementation("auto"):
            layer(x)

    def test_double_precision_stays_double_under_autocast(self):
        layer = NoisyLSTM(3, 4, dtype=torch.float64)
        x = torch.randn(2, 2, 3, dtype=torch.float64)
        with torch.autocast("cpu", torch.bfloat16):
            got = layer(x)[0]
        with use_implementation("reference"):
            torch.testing.assert_close(got.double(), layer(x)[0], atol=0.05, rtol=0.05)

    def test_the_setting_is_undone_after_an_exception_and_nests(self):
        layer, x = NoisyLSTM(3, 4, proj_size=2), torch.randn(2, 2, 3)

        def fail_inside():
            with use_implementation("fused"):
                with use_implementation("reference"):
                    layer(x)
                layer(x)

        with pytest.raises(RuntimeError, match="fused recurrence was asked for"):
            fail_inside()
        layer(x)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_by_torch():
    network = Both()
    compiled = torch.compile(network)
    x = torch.randn(4, 8, 3)
    for noise, backward in itertools.product((Noise(), Noise(0.5, draw=1)), (False, True)):
        with network.under(noise):
            expected, got = network(x), compiled(x)
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
            if backward:
                leaves = list(network.parameters())
                for mine, its in zip(
                    torch.autograd.grad(got.sum(), leaves),
                    torch.autograd.grad(expected.sum(), leaves),
                    strict=True,
                ):
                    torch.testing.assert_close(mine, its, atol=1e-4, rtol=1e-4)
