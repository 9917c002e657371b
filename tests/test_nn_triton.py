"""The Triton recurrence against the plain loop: in Triton's interpreter here, on a GPU where there is one.

Triton decides on import whether kernels are interpreted, so the tests that need it run in a process of their own,
which :func:`test_in_the_interpreter` starts.
"""

import copy
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from covering import thinned
from gaussian_sites import LayerNoise, SiteNoise, together

from asr_dni.nn import CELLS as EQUATIONS
from asr_dni.nn import (
    NoisyGRU,
    NoisyLSTM,
    NoisyRNN,
    calibrate,
    stack_networks,
    triton_recurrence,
    use_implementation,
)
from asr_dni.nn.operations import AffineNoise, Product
from asr_dni.nn.recurrence import Recurrence, Sites
from asr_dni.nn.reference import run_reference
from asr_dni.noise import Noise
from asr_dni.philox import normal, philox4x32

triton = pytest.importorskip("triton", reason="Triton is not installed")
tl = pytest.importorskip("triton.language")

from asr_dni.nn import triton_kernels  # noqa: E402

INTERPRETED = triton_recurrence.interpreted()
ON_GPU = torch.cuda.is_available() and not INTERPRETED
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
RUNS_KERNELS = INTERPRETED or ON_GPU

CELLS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
WAYS = ("resident", "streamed", "by steps")
WIDTHS = {"resident": 9, "streamed": 37, "by steps": 70}
"""More than one slice of 16 where the weights are streamed, more than one tile of 64 units by steps."""


@pytest.mark.skipif(RUNS_KERNELS, reason="the kernels run in this process")
@pytest.mark.parametrize(
    ("which", "at_least"), [("not slow", 55), pytest.param("slow", 60, marks=pytest.mark.slow)]
)
def test_in_the_interpreter(which, at_least):
    """All of the tests below, with every kernel run in Triton's interpreter."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", which, __file__]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= at_least


def layer_noise(n, sites=(), k=0, std=0.3, **settings):
    """Noise of a network with identities beyond 32 bits and steps beyond 31."""
    its_sites = {
        site: SiteNoise(std * (1 + place), (123456789 * (place + 1 + k) % 2**32, 4000000000 - k))
        for place, site in enumerate(sites)
    }
    settings = {"sample_ids": torch.arange(n) * 7919 - 5 + 2**33 * k, "first_step": 2**31} | settings
    return LayerNoise(**settings, **its_sites)


def sites_of(cell):
    return ("input", "recurrent", "elementwise") if EQUATIONS[cell].products else ("input", "recurrent")


def problem(cell, leaves, noise):
    """What an implementation is given, of leaves as :func:`leaves_of` has them."""
    projection, w_hh, b_hh, *state = leaves
    return Recurrence(cell, w_hh, b_hh, tuple(state), together(noise), projection=projection)


def leaves_of(cell, K, T, N, H, dtype=torch.float32, bias=True, seed=0):
    """Projection, W_hh, b_hh (or ``None``) and state, representable in ``dtype`` but given as float64."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).double()

    rows = len(EQUATIONS[cell].gates) * H
    leaves = [
        randn(K, T, N, rows),
        randn(K, rows, H) / H**0.5,
        randn(K, rows) if bias else None,
        randn(K, N, H),
    ]
    leaves = [None if leaf is None else leaf.to(dtype).double() for leaf in leaves]
    return [*leaves, randn(K, N, H)] if cell == "lstm" else leaves


def results(run, cell, leaves, noise, dtype, device, only=None):
    """Outputs, final states and the gradient of each leaf, in float64 on the CPU."""
    leaves = [None if leaf is None else leaf.detach().to(device, dtype).requires_grad_() for leaf in leaves]
    outputs, final = run(problem(cell, leaves, noise))
    parts = [outputs, *final]
    generator = torch.Generator().manual_seed(5)
    factors = [torch.randn(part.shape, generator=generator, dtype=torch.float64) for part in parts]
    loss = sum(
        (part.double() * factor.to(device)).sum()
        for place, (part, factor) in enumerate(zip(parts, factors, strict=True))
        if only is None or place == only
    )
    wanted = [leaf for leaf in leaves if leaf is not None]
    gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
    return [None if each is None else each.detach().cpu().double() for each in (*parts, *gradients)]


def agree(cell, leaves, noise, dtype=torch.float32, only=None, tolerance=None):
    """Compare with the loop in float64: every number, or in half precision the lengths of the differences."""
    on_cpu = [replace(each, sample_ids=each.sample_ids.cpu()) for each in noise]
    expected = results(run_reference, cell, leaves, on_cpu, torch.float64, "cpu", only)
    on_device = [replace(each, sample_ids=each.sample_ids.to(DEVICE)) for each in noise]
    got = results(triton_recurrence.run, cell, leaves, on_device, dtype, DEVICE, only)
    for mine, its in zip(got, expected, strict=True):
        if mine is None or its is None:
            assert mine is None or not mine.any()
            assert its is None or not its.any()
        elif dtype == torch.float32 and tolerance is None:
            torch.testing.assert_close(mine, its, atol=2e-5, rtol=2e-5)
        else:
            assert (mine - its).norm() <= tolerance * its.norm()


@pytest.fixture(autouse=True)
def _exact_products():
    """Products of float32 factors as exact as the kernels have them, so that a GPU can be held to the loop."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def go(monkeypatch):
    """Choose the way and the size of a program's block."""

    def choose(way, rows=None):
        chosen = triton_recurrence.plan

        def plan(*arguments):
            its = chosen(*arguments)
            if its is None or way == "by steps":
                return None
            its = replace(its, slice=16 if way == "streamed" else 0)
            return its if rows is None else replace(its, rows=rows)

        monkeypatch.setattr(triton_recurrence, "plan", plan)

    return choose


@triton.jit
def store_words(out, ids, keys, steps, N: tl.constexpr, U: tl.constexpr):
    t = tl.program_id(0)
    unit = tl.arange(0, U)[:, None].to(tl.uint32)
    sample = tl.load(ids + tl.arange(0, N))[None, :]
    k0 = tl.load(keys).to(tl.uint32)
    k1 = tl.load(keys + 1).to(tl.uint32)
    step = tl.load(steps + t).to(tl.uint32)
    words = triton_kernels.philox(unit, step, sample.to(tl.uint32), (sample >> 32).to(tl.uint32), k0, k1)
    at = tl.arange(0, N)[None, :] * U + tl.arange(0, U)[:, None]
    tl.store(out + (4 * t) * N * U + at, words[0].to(tl.int64))
    tl.store(out + (4 * t + 1) * N * U + at, words[1].to(tl.int64))
    tl.store(out + (4 * t + 2) * N * U + at, words[2].to(tl.int64))
    tl.store(out + (4 * t + 3) * N * U + at, words[3].to(tl.int64))


@triton.jit
def store_pair(out, first, second, N: tl.constexpr):
    at = tl.arange(0, N)
    a, b = triton_kernels.gaussian_pair(
        tl.load(first + at).to(tl.uint32), tl.load(second + at).to(tl.uint32), 1.0
    )
    tl.store(out + at, a)
    tl.store(out + N + at, b)


@pytest.mark.gpu
class TestPhilox:
    __test__ = RUNS_KERNELS

    def test_words_bit_for_bit(self):
        ids = torch.tensor([0, -1, 2**62 + 12345, -(2**40)])
        steps = torch.tensor([0, 1, 2**31, 2**32 - 1])
        for key in ((0, 0), (2**32 - 1, 2**31), (0xA4093822, 0x299F31D0)):
            out = torch.empty(4, 4, 4, 16, dtype=torch.int64, device=DEVICE)
            arguments = (tensor.to(DEVICE) for tensor in (ids, torch.tensor(key), steps))
            store_words[(4,)](out, *arguments, N=4, U=16)
            counter = (
                torch.arange(16),
                steps[:, None, None],
                (ids & 0xFFFFFFFF)[None, :, None],
                ((ids >> 32) & 0xFFFFFFFF)[None, :, None],
            )
            assert torch.equal(out.cpu(), torch.stack(philox4x32(counter, key), 1))

    def test_gaussian_numbers_at_the_edges_and_between(self):
        """The transform against float64, where its uniform number is 2**-32 and 1, and at each eighth of the circle."""
        generator = torch.Generator().manual_seed(1)
        first = torch.randint(0, 2**32, (1024,), generator=generator)
        second = torch.randint(0, 2**32, (1024,), generator=generator)
        edges = [eighth * 2**29 + near for eighth in range(8) for near in (0, 1, 2**29 - 1)]
        first[:3] = torch.tensor([0, 2**32 - 1, 1])
        second[: len(edges)] = torch.tensor(edges)
        out = torch.empty(2, 1024, device=DEVICE)
        store_pair[(1,)](out, first.to(DEVICE), second.to(DEVICE), N=1024)
        uniform = ((first.float() + 1.0) * 2.0**-32).double()
        radius, angle = (-2 * uniform.log()).sqrt(), 2 * math.pi * second.double() / 2**32
        expected = torch.stack((radius * angle.cos(), radius * angle.sin()))
        torch.testing.assert_close(out.cpu().double(), expected, atol=3e-6, rtol=0)

    def test_every_gate_gets_its_number(self):
        """With weights, bias and projection zero the RNN's state is the tanh of the noise."""
        noise = layer_noise(3, ("input",))
        zeros = torch.zeros(1, 4, 3, 20, device=DEVICE)
        leaves = zeros, zeros.new_zeros(1, 20, 20), None, zeros.new_zeros(1, 3, 20)
        on_device = [replace(noise, sample_ids=noise.sample_ids.to(DEVICE))]
        outputs, _ = triton_recurrence.run(problem("rnn_tanh", leaves, on_device))
        steps = torch.arange(noise.first_step, noise.first_step + 4)
        drawn = noise.input.std * normal(noise.input.key, noise.sample_ids, steps, 1, 20)
        torch.testing.assert_close(outputs[0].cpu(), drawn.tanh(), atol=1e-6, rtol=0)


@pytest.mark.gpu
class TestEqualsReference:
    __test__ = RUNS_KERNELS

    @thinned(1, cell=CELLS, way=WAYS)
    def test_all_sites_of_two_networks(self, cell, way, go):
        go(way)
        noise = [layer_noise(3, sites_of(cell), k, 0.2 + 0.3 * k) for k in range(2)]
        agree(cell, leaves_of(cell, 2, 2, 3, WIDTHS[way]), noise)

    @thinned(1, cell=CELLS, site=["clean", "input", "recurrent", "elementwise"])
    def test_sites(self, cell, site):
        if site == "elementwise" and not EQUATIONS[cell].products:
            pytest.skip("no products in the cell")
        noise = [layer_noise(3, () if site == "clean" else (site,))]
        agree(cell, leaves_of(cell, 1, 2, 3, 5), noise)

    @pytest.mark.parametrize("way", WAYS)
    def test_joint_arrays_of_the_gru(self, way, go):
        go(way)
        noise = [layer_noise(3, ("input", "elementwise"), joint=True)]
        agree("gru", leaves_of("gru", 1, 2, 3, WIDTHS[way]), noise)

    @thinned(1, cell=CELLS, shape=[(1, 1, 1, 1), (2, 1, 9, 16), (1, 2, 17, 17), (2, 2, 2, 33)])
    def test_shapes(self, cell, shape):
        noise = [layer_noise(shape[2], ("input",), k) for k in range(shape[0])]
        agree(cell, leaves_of(cell, *shape), noise)

    @thinned(1, cell=["lstm", "gru"], way=WAYS)
    def test_without_bias(self, cell, way, go):
        go(way)
        agree(cell, leaves_of(cell, 1, 2, 3, WIDTHS[way], bias=False), [layer_noise(3, ("input",))])

    @thinned(1, case=[("lstm", 0), ("lstm", 1), ("lstm", 2), ("gru", 1), ("rnn_tanh", 1)], way=WAYS)
    def test_loss_on_one_result_only(self, case, way, go):
        cell, only = case
        go(way)
        agree(cell, leaves_of(cell, 1, 3, 2, 5), [layer_noise(2)], only=only)

    @thinned(
        1,
        cell=CELLS,
        case=[*((way, torch.bfloat16, 0.02) for way in WAYS), ("resident", torch.float16, 0.003)],
    )
    def test_half_precision(self, cell, case, go):
        way, dtype, tolerance = case
        go(way)
        if cell == "rnn_relu":  # a rectifier that rounding turns on or off has another gradient
            tolerance *= 10
        noise = [layer_noise(3, ("input",))]
        agree(cell, leaves_of(cell, 1, 2, 3, WIDTHS[way], dtype), noise, dtype, tolerance=tolerance)

    def test_more_units_than_a_persistent_program_takes(self):
        assert triton_recurrence.plan("rnn_tanh", torch.float32, 257, 1, 2, DEVICE) is None
        agree("rnn_tanh", leaves_of("rnn_tanh", 1, 2, 2, 257), [layer_noise(2, ("input",))])


@pytest.mark.gpu
class TestIndependence:
    __test__ = RUNS_KERNELS

    @thinned(1, cell=["lstm", "gru"], way=WAYS)
    def test_of_the_other_networks(self, cell, way, go):
        """Alone, a network gives what it gives beside others, clean ones and those of other sites."""
        go(way)
        leaves = leaves_of(cell, 3, 2, 5, 7)
        noise = [
            layer_noise(5, ("input", "elementwise"), 0),
            layer_noise(5, (), 1),
            layer_noise(5, ("recurrent",), 2),
        ]
        noise = [replace(each, sample_ids=each.sample_ids.to(DEVICE)) for each in noise]
        together = results(triton_recurrence.run, cell, leaves, noise, torch.float32, DEVICE, 0)
        factors = torch.randn(
            (*leaves[0].shape[:3], 7), generator=torch.Generator().manual_seed(5), dtype=torch.float64
        )
        for k in range(3):
            its = [leaf[k : k + 1].to(DEVICE, torch.float32).requires_grad_() for leaf in leaves]
            outputs, final = triton_recurrence.run(problem(cell, its, noise[k : k + 1]))
            gradients = torch.autograd.grad((outputs.double() * factors[k : k + 1].to(DEVICE)).sum(), its)
            for mine, its_part in zip((outputs, *final, *gradients), together, strict=True):
                torch.testing.assert_close(mine[0].detach().cpu().double(), its_part[k], atol=1e-6, rtol=1e-6)

    @pytest.mark.parametrize("way", ["resident", "streamed"])
    def test_of_the_block(self, way, go):
        leaves, noise = leaves_of("lstm", 1, 2, 9, 9), [layer_noise(9, ("input",))]
        noise = [replace(each, sample_ids=each.sample_ids.to(DEVICE)) for each in noise]
        found = []
        for rows in (8, 16):
            go(way, rows)
            found.append(results(triton_recurrence.run, "lstm", leaves, noise, torch.float32, DEVICE))
        for other in found[1:]:
            for mine, its in zip(other, found[0], strict=True):
                torch.testing.assert_close(mine, its, atol=2e-6, rtol=2e-6)

    def test_of_the_samples_beside_it_and_the_chunks_of_time(self):
        leaves, noise = leaves_of("lstm", 1, 4, 5, 9), layer_noise(5, sites_of("lstm"))
        projection, w_hh, b_hh, h, c = (leaf.to(DEVICE, torch.float32) for leaf in leaves)
        noise = replace(noise, sample_ids=noise.sample_ids.to(DEVICE))
        whole, final = triton_recurrence.run(problem("lstm", (projection, w_hh, b_hh, h, c), [noise]))
        some = replace(noise, sample_ids=noise.sample_ids[3:])
        leaves = projection[:, :2, 3:], w_hh, b_hh, h[:, 3:], c[:, 3:]
        first, state = triton_recurrence.run(problem("lstm", leaves, [some]))
        later = replace(some, first_step=some.first_step + 2)
        leaves = projection[:, 2:, 3:], w_hh, b_hh, *state
        second, state = triton_recurrence.run(problem("lstm", leaves, [later]))
        for mine, its in zip((torch.cat((first, second), 1), *state), (whole, *final), strict=True):
            torch.testing.assert_close(mine, its[..., 3:, :], atol=1e-6, rtol=1e-6)


@pytest.mark.gpu
class TestAutograd:
    __test__ = RUNS_KERNELS

    def tensors(self, cell="lstm", T=2, N=4, H=9):
        leaves = [leaf.to(DEVICE, torch.float32).requires_grad_() for leaf in leaves_of(cell, 1, T, N, H)]
        noise = layer_noise(N, ("input",))
        return leaves, [replace(noise, sample_ids=noise.sample_ids.to(DEVICE))]

    def run(self, leaves, noise, cell="lstm"):
        return triton_recurrence.run(problem(cell, leaves, noise))

    @thinned(1, needing=range(5), way=WAYS)
    def test_only_one_input_needs_a_gradient(self, needing, way, go):
        go(way)
        leaves, noise = self.tensors()
        expected = torch.autograd.grad(self.run(leaves, noise)[0].square().sum(), leaves)[needing]
        for place, leaf in enumerate(leaves):
            leaf.requires_grad_(place == needing)
        (got,) = torch.autograd.grad(self.run(leaves, noise)[0].square().sum(), [leaves[needing]])
        assert torch.equal(got, expected)

    @thinned(1, cell=["lstm", "gru", "rnn_tanh"], way=WAYS)
    def test_without_gradients(self, cell, way, go):
        go(way)
        leaves, noise = self.tensors(cell)
        found = []
        for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
            with mode():
                outputs, final = self.run(leaves, noise, cell)
                assert outputs.requires_grad == (mode is torch.enable_grad)
                found.append([each.detach().clone() for each in (outputs, *final)])
        for other in found[1:]:
            assert all(torch.equal(a, b) for a, b in zip(other, found[0], strict=True))

    @thinned(1, cell=["lstm", "gru"], way=WAYS)
    def test_arrays_that_are_not_contiguous(self, cell, way, go):
        """As of a bidirectional layer: one half of a projection's rows; and an expanded output gradient."""
        go(way)
        leaves, noise = self.tensors(cell)
        expected = self.run(leaves, noise, cell)
        its_gradients = torch.autograd.grad(expected[0].sum() + expected[1][0].sum(), leaves)
        wide = torch.cat((torch.zeros_like(leaves[0]), leaves[0]), -1).detach()
        others = [leaves[1].mT.contiguous().mT, torch.stack((leaves[2],) * 2, -1)[..., 0]]
        others += [part.mT.contiguous().mT for part in leaves[3:]]
        others = [wide.chunk(2, -1)[1], *others]
        assert not others[0].is_contiguous()
        assert not others[1].is_contiguous()
        others = [each.detach().requires_grad_() for each in others]
        got = self.run(others, noise, cell)
        gradients = torch.autograd.grad(got[0].sum() + got[1][0].sum(), others)
        for mine, its in zip(
            (got[0], *got[1], *gradients), (expected[0], *expected[1], *its_gradients), strict=True
        ):
            torch.testing.assert_close(mine, its, atol=1e-6, rtol=1e-6)

    def test_a_projection_whose_units_are_apart(self):
        leaves, noise = self.tensors()
        expected = self.run(leaves, noise)[0]
        leaves[0] = leaves[0].detach().mT.contiguous().mT.requires_grad_()
        assert leaves[0].stride(-1) != 1
        assert torch.equal(self.run(leaves, noise)[0], expected)

    @pytest.mark.parametrize("way", WAYS)
    def test_a_graph_can_be_used_twice(self, way, go):
        go(way)
        leaves, noise = self.tensors()
        loss = self.run(leaves, noise)[0].square().sum()
        first = torch.autograd.grad(loss, leaves, retain_graph=True)
        second = torch.autograd.grad(loss, leaves)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    def test_second_derivatives_are_refused_not_wrong(self):
        leaves, noise = self.tensors()
        loss = self.run(leaves, noise)[0].square().sum()
        with pytest.raises(RuntimeError, match="no second derivative of the Triton recurrence"):
            torch.autograd.grad(loss, leaves[1], create_graph=True)

    def test_inputs_are_left_as_they_are(self):
        leaves, noise = self.tensors()
        kept = [leaf.detach().clone() for leaf in leaves]
        self.run(leaves, noise)[0].sum().backward()
        assert all(torch.equal(leaf, its) for leaf, its in zip(leaves, kept, strict=True))

    def test_autocast(self):
        """The projection's dtype decides; states keep theirs, gradients are the leaves'."""
        leaves, noise = self.tensors()
        expected = self.run(leaves, noise)[0]
        lowered = leaves[0].bfloat16()
        with torch.autocast(DEVICE.type, torch.bfloat16):
            outputs, final = self.run([lowered, *leaves[1:]], noise)
            outputs.float().square().sum().backward()
        assert outputs.dtype == torch.bfloat16
        assert all(part.dtype == torch.float32 for part in final)
        torch.testing.assert_close(outputs.float(), expected, atol=0.05, rtol=0.05)
        assert all(leaf.grad.dtype == torch.float32 for leaf in leaves)
        assert all(leaf.grad.isfinite().all() for leaf in leaves)

    @thinned(1, cell=CELLS, value=[math.nan, math.inf, -math.inf])
    @pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy's, in the interpreter
    def test_what_is_not_finite_shows(self, cell, value):
        leaves, noise = self.tensors(cell)
        leaves = [leaf.detach() for leaf in leaves]
        leaves[0][0, 1, 2] = value
        leaves[1].abs_()  # inf - inf would be NaN depending on the order of the sum
        outputs, _ = self.run(leaves, noise, cell)
        on_cpu = [replace(each, sample_ids=each.sample_ids.cpu()) for each in noise]
        expected, _ = run_reference(problem(cell, [leaf.cpu() for leaf in leaves], on_cpu))
        torch.testing.assert_close(outputs.cpu(), expected, equal_nan=True, atol=2e-5, rtol=2e-5)

    def test_compiled_by_torch(self):
        leaves, noise = self.tensors()

        def loss(*leaves):
            return self.run([2 * leaves[0], *leaves[1:]], noise)[0].square().sum()

        compiled = torch.compile(loss, backend="eager")
        for seed in (3, 4):  # the noise is not made a constant
            noise[:] = [replace(noise[0], input=SiteNoise(0.5, (seed, 0)))]
            expected, got = loss(*leaves), compiled(*leaves)
            assert torch.equal(got, expected)
            pairs = zip(torch.autograd.grad(got, leaves), torch.autograd.grad(expected, leaves), strict=True)
            assert all(torch.equal(mine, its) for mine, its in pairs)

    def test_a_chip_without_room_runs_it_step_by_step(self, monkeypatch):
        errors = pytest.importorskip("triton.runtime.errors")
        leaves, noise = self.tensors()
        expected = self.run(leaves, noise)[0]
        gradients = torch.autograd.grad(expected.square().sum(), leaves)

        class NoRoom:
            def __getitem__(self, grid):
                def launch(*arguments, **settings):
                    raise errors.OutOfResources(300000, 232448, "shared memory")

                return launch

        monkeypatch.setattr(triton_kernels, "forward", NoRoom())
        monkeypatch.setattr(triton_kernels, "backward", NoRoom())
        with pytest.warns(UserWarning, match="does not fit this GPU"):
            got = self.run(leaves, noise)[0]
        with pytest.warns(UserWarning, match="does not fit this GPU"):
            its = torch.autograd.grad(got.square().sum(), leaves)
        for mine, other in zip((got, *its), (expected, *gradients), strict=True):
            torch.testing.assert_close(mine, other, atol=2e-6, rtol=2e-6)


@pytest.mark.gpu
class TestLayers:
    __test__ = RUNS_KERNELS

    @pytest.mark.parametrize("cell", [NoisyLSTM, NoisyGRU, NoisyRNN])
    def test_layers_and_directions(self, cell):
        torch.manual_seed(0)
        layer, x = cell(3, 9, 2, bidirectional=True).to(DEVICE), torch.randn(2, 4, 3, device=DEVICE)
        found = []
        for implementation in ("triton", "reference"):
            with use_implementation(implementation), layer.under(Noise(0.5, draw=0)):
                outputs, _ = layer(x)
            found.append([outputs, *torch.autograd.grad(outputs.square().sum(), list(layer.parameters()))])
        for mine, its in zip(*found, strict=True):
            torch.testing.assert_close(mine, its, atol=1e-4, rtol=1e-4)


class TestWhyNot:
    __test__ = not INTERPRETED

    def reason(self, monkeypatch, interpreted=True, **changes):
        monkeypatch.setattr(triton_recurrence, "interpreted", lambda: interpreted)
        leaves = (
            torch.zeros(1, 1, 1, 8),
            torch.zeros(1, 8, 2),
            None,
            torch.zeros(1, 1, 2),
            torch.zeros(1, 1, 2),
        )
        return triton_recurrence.why_not(replace(problem("lstm", leaves, [layer_noise(1)]), **changes))

    def test_none(self, monkeypatch):
        assert self.reason(monkeypatch) is None

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"interpreted": False}, "only on a GPU"),
            ({"projection": torch.zeros(1, 1, 1, 8, device="meta")}, "meta"),
            ({"projection": torch.zeros(1, 1, 1, 8).double()}, "float64"),
            ({"projection": torch.zeros(1, 1, 0, 8)}, "nothing"),
            ({"w_hh": torch.zeros(1, 8, 2).expand(70000, 8, 2)}, "65535"),
            ({"cell": "mgu"}, "mgu"),
            ({"lengths": torch.ones(1, 1)}, "packed"),
            ({"w_hr": torch.zeros(1, 1, 2)}, "proj_size"),
            ({"sites": Sites([torch.arange(1)], input=Product(((), ()), (1, 1)))}, "tiles"),
            ({"sites": Sites([torch.arange(1)], input=Product(((AffineNoise(),),)))}, "drawn outside"),
        ],
    )
    def test_the_reason_is_given(self, changes, reason, monkeypatch):
        assert reason in self.reason(monkeypatch, **changes)

    def test_triton_is_neither_needed_nor_imported_before_there_is_something_to_run(self):
        code = (
            "import sys; import torch; before = 'triton' in sys.modules\n"
            "from asr_dni.nn import triton_recurrence as r; assert before or 'triton' not in sys.modules\n"
            "sys.modules['triton'] = None\n"
            "from asr_dni.nn.recurrence import Recurrence, Sites\n"
            "state, projection = (torch.zeros(1, 1, 2),) * 2, torch.zeros(1, 1, 1, 8)\n"
            "print(r.why_not(Recurrence('lstm', torch.zeros(1, 8, 2), None, state, Sites([]), projection=projection)))"
        )
        environment = os.environ | {"TRITON_INTERPRET": "1"}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == "Triton is not installed", done.stderr

    def test_no_compiler(self, monkeypatch):
        monkeypatch.setattr(triton_recurrence, "interpreted", lambda: False)
        monkeypatch.setattr("shutil.which", lambda name: None)
        monkeypatch.delenv("CC", raising=False)
        assert "C compiler" in triton_recurrence.what_is_missing.__wrapped__()


GPUS = {
    80: triton_recurrence.Gpu((8, 0), 108, 166912),
    89: triton_recurrence.Gpu((8, 9), 128, 101376),
    90: triton_recurrence.Gpu((9, 0), 132, 232448),
}
"""A100, the 40 series, H100: multiprocessors and shared memory of a program, from NVIDIA's programming guide."""


class TestPlan:
    __test__ = not INTERPRETED

    @pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("cell", CELLS)
    @pytest.mark.parametrize("gpu", GPUS)
    def test_sums_are_split_by_width_and_device_only(self, gpu, cell, kind, monkeypatch):
        """So that a network's result does not depend on the number of samples or networks."""
        monkeypatch.setattr(triton_recurrence, "gpu_of", lambda device: GPUS[gpu])
        for width in (1, 16, 40, 118, 128, 200, 256):
            plans = [
                triton_recurrence.plan(cell, kind, width, networks, rows, DEVICE)
                for networks in (1, 3, 64)
                for rows in (1, 16, 100, 512, 5000)
            ]
            assert len({None if its is None else (its.units, its.slice) for its in plans}) == 1
            assert all(its is None or its.units * its.rows <= 4096 for its in plans)

    def test_tf32_is_as_torchs_layers_have_it(self):
        assert triton_recurrence.product_precision(torch.float32) == "tf32x3"
        assert triton_recurrence.product_precision(torch.bfloat16) == "tf32"
        torch.backends.cudnn.allow_tf32 = True
        assert triton_recurrence.product_precision(torch.float32) == "tf32"
        torch.backends.cudnn.rnn.fp32_precision = "ieee"  # torch's newer setting
        try:
            assert triton_recurrence.product_precision(torch.float32) == "tf32x3"
        finally:
            torch.backends.cudnn.rnn.fp32_precision = "tf32"

    def test_the_sizes_of_the_benchmark(self, monkeypatch):
        """128 units: streamed in TF32, kept in bfloat16; a processor for each block where that is possible."""
        monkeypatch.setattr(triton_recurrence, "gpu_of", lambda device: GPUS[90])
        torch.backends.cudnn.allow_tf32 = True
        one = triton_recurrence.plan("lstm", torch.float32, 128, 1, 512, DEVICE)
        many = triton_recurrence.plan("lstm", torch.float32, 128, 64, 128, DEVICE)
        assert (one.rows, many.rows) == (8, 32)
        assert one.slice == many.slice == 32
        assert triton_recurrence.plan("lstm", torch.bfloat16, 128, 1, 512, DEVICE).slice == 0


class Recorder:
    """Takes the place of a kernel and compiles what is launched, for a GPU that need not be there.

    Arguments are specialised as a launch does it: 1 becomes a constant, what 16 divides is known to be so.
    """

    def __init__(self, kernel, capability, room):
        self.kernel, self.capability, self.room, self.compiled = kernel, capability, room, 0

    def __getitem__(self, grid):
        return self.launch

    def launch(self, *arguments, num_warps=4, num_stages=3, **settings):
        names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.int32: "i32", torch.int64: "i64"}
        aligned = [["tt.divisibility", 16]]
        given = dict(zip(self.kernel.arg_names, arguments, strict=False)) | settings
        signature, constants, attributes = {}, {}, {}
        for place, parameter in enumerate(self.kernel.params):
            value = given[parameter.name]
            if parameter.is_constexpr:
                signature[parameter.name], constants[parameter.name] = "constexpr", value
            elif isinstance(value, torch.Tensor):
                signature[parameter.name] = f"*{names[value.dtype]}"
                if value.data_ptr() % 16 == 0:
                    attributes[(place,)] = aligned
            elif value == 1 and not parameter.do_not_specialize:
                signature[parameter.name], constants[parameter.name] = "constexpr", value
            else:
                signature[parameter.name] = "i32" if value < 2**31 else "i64"
                if value % 16 == 0 and not parameter.do_not_specialize:
                    attributes[(place,)] = aligned
        source = triton.compiler.ASTSource(self.kernel, signature, constants, attributes)
        target = triton.backends.compiler.GPUTarget("cuda", self.capability, 32)
        built = triton.compile(
            source, target=target, options={"num_warps": num_warps, "num_stages": num_stages}
        )
        assert built.metadata.shared <= self.room
        assert "cubin" in built.asm
        self.compiled += 1


class TestCompiles:
    """For NVIDIA's GPUs, by the assembler that Triton brings, here where there is none: fits, and is accepted."""

    __test__ = not INTERPRETED

    def check(self, monkeypatch, tmp_path, capability, cell, kind, width, networks, rows, sites):
        if not hasattr(triton.backends, "compiler") or "nvidia" not in triton.backends.backends:
            pytest.skip("this Triton has no compiler for NVIDIA's GPUs")
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
        torch.backends.cudnn.allow_tf32 = True
        gpu = GPUS[capability]
        monkeypatch.setattr(triton_recurrence, "gpu_of", lambda device: gpu)
        recorders = {}
        for name in ("forward", "backward", "step_forward", "step_backward"):
            recorders[name] = Recorder(getattr(triton_kernels, name), capability, gpu.shared)
            monkeypatch.setattr(triton_kernels, name, recorders[name])
        leaves = [leaf.to(kind).requires_grad_() for leaf in leaves_of(cell, networks, 1, rows, width)]
        noise = [layer_noise(rows, sites, k) for k in range(networks)]
        outputs, _ = triton_recurrence.run(problem(cell, leaves, noise))
        outputs.sum().backward()
        compiled = {name for name, recorder in recorders.items() if recorder.compiled}
        assert compiled in ({"forward", "backward"}, {"step_forward", "step_backward"})

    def test_a_small_lstm(self, monkeypatch, tmp_path):
        self.check(monkeypatch, tmp_path, 90, "lstm", torch.float32, 9, 1, 8, ("input",))

    @pytest.mark.slow
    @pytest.mark.parametrize("capability", GPUS)
    @pytest.mark.parametrize(
        ("cell", "kind", "width"),
        [("lstm", kind, width) for kind in (torch.float32, torch.bfloat16) for width in (118, 256, 300)]
        + [("gru", torch.float32, 118), ("rnn_relu", torch.bfloat16, 256)],
    )
    def test_sizes(self, cell, width, kind, capability, monkeypatch, tmp_path):
        self.check(monkeypatch, tmp_path, capability, cell, kind, width, 3, 512, sites_of(cell))


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="no GPU")
class TestOnGpu:
    """What the interpreter cannot tell; the classes above run on the GPU, too."""

    @pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize(
        "shape", [(1, 98, 512, 128), (5, 20, 128, 118), (2, 10, 100, 256), (2, 5, 64, 400)]
    )
    @pytest.mark.parametrize("cell", CELLS)
    def test_sizes_of_use(self, cell, shape, kind):
        noise = [layer_noise(shape[2], sites_of(cell), k) for k in range(shape[0])]
        tolerance = (1e-4 if kind == torch.float32 else 0.05) * (10 if cell == "rnn_relu" else 1)
        agree(cell, leaves_of(cell, *shape, kind), noise, kind, tolerance=tolerance)

    def test_tf32(self):
        torch.backends.cudnn.allow_tf32 = True
        agree(
            "lstm",
            leaves_of("lstm", 2, 20, 64, 128),
            [layer_noise(64, ("input",), k) for k in range(2)],
            tolerance=2e-2,
        )

    @pytest.mark.parametrize("scale", ["absolute", "signal"])
    @pytest.mark.parametrize("networks", [1, 3])
    def test_layers_have_the_noise_that_they_have_on_the_cpu(self, networks, scale):
        """Calibrated on the GPU, where the sizes of its signals then are."""
        torch.manual_seed(0)
        x, ids = torch.randn(12, 6, 5), torch.arange(6) * 7919
        members = [NoisyLSTM(5, 40, 2) for _ in range(networks)]
        found = []
        for device, implementation in ((DEVICE, "triton"), ("cpu", "reference")):
            layer = stack_networks(members) if networks > 1 else copy.deepcopy(members[0])
            layer = layer.to(device)
            its_noise = [
                Noise(0.5, scale=scale, seed=k).realised(draw=1, sample_ids=ids.to(device))
                for k in range(networks)
            ]
            with use_implementation("reference"):
                calibrate(layer, [x.to(device)])
            with use_implementation(implementation), layer.under(its_noise if networks > 1 else its_noise[0]):
                outputs, _ = layer(x.to(device))
            gradients = torch.autograd.grad(outputs.square().sum(), list(layer.parameters()))
            found.append([each.detach().cpu() for each in (outputs, *gradients)])
        for mine, its in zip(*found, strict=True):
            assert (mine - its).norm() <= 1e-4 * its.norm()

    def test_the_same_twice(self):
        leaves = [leaf.to(DEVICE, torch.float32) for leaf in leaves_of("lstm", 2, 30, 512, 128)]
        noise = [
            layer_noise(512, sites_of("lstm"), k, sample_ids=torch.arange(512, device=DEVICE))
            for k in range(2)
        ]
        once, again = (
            results(triton_recurrence.run, "lstm", leaves, noise, torch.float32, DEVICE) for _ in range(2)
        )
        assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
