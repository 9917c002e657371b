"""Products with factors in bfloat16: every kernel held to the plain loop, and independent of threads and batch.

The loop rounds the same factors and sums in float32 as well, so that results differ by the order of sums; but where a
factor lies between two numbers of bfloat16, that order may decide to which of them it is rounded: 1 / 256 of one factor
of one sum. Bound: 1 in 1,000 of the root of the mean square, for each result as a whole.
"""

from dataclasses import replace

import pytest
import test_nn_fused as plain
import torch
from test_nn_fused import CELLS, EQUATIONS, member, needs_compiler
from torch_threads import threads

from asr_dni.errors import UserError
from asr_dni.nn import native
from asr_dni.nn.mvm import linear

KERNELS = native.KERNELS[1:]


@pytest.fixture(params=KERNELS)
def kernel(request, monkeypatch):
    """Each kernel that this processor has."""
    if native.library() is None:
        pytest.skip(f"no compiled kernels here: {native.status()}")
    monkeypatch.setenv(native.KERNEL_SETTING, request.param)
    try:
        return native.bfloat16_kernel()
    except UserError as error:
        pytest.skip(str(error))


def problem(*arguments, **keywords):
    return replace(plain.problem(*arguments, **keywords), products="bfloat16")


def close(got, expected, bound=1e-3):
    for mine, its in zip(got, expected, strict=True):
        assert (mine - its).norm() <= bound * its.norm() + 1e-6


class TestAgainstThePlainLoop:
    @pytest.mark.parametrize(
        ("cell", "sites"),
        [(c, s) for c in CELLS for s in ("clean", "all", "joint") if s != "joint" or EQUATIONS[c].apart],
    )
    @pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 45, 33)], ids=str)
    def test_outputs_states_and_gradients(self, cell, sites, shape, kernel):
        given = problem(cell, sites, *shape)
        close(plain.run(given, "fused"), plain.run(given, "reference"))

    @pytest.mark.parametrize("cell", ["lstm", "gru"])
    def test_from_the_inputs_on(self, cell, kernel):
        generator = torch.Generator().manual_seed(1)
        inputs = torch.randn(2, 5, 20, 37, generator=generator).requires_grad_()
        given = problem(cell, "all", 2, 5, 20, 40)
        w_ih = (torch.randn(2, given.w_hh.shape[1], 37, generator=generator) / 6).requires_grad_()
        given = replace(given, inputs=inputs, w_ih=w_ih, b_ih=given.b_hh, projection=None)
        results = []
        for implementation in ("fused", "reference"):
            with plain.use_implementation(implementation):
                outputs, _ = plain.run_recurrence(given)
            gradients = torch.autograd.grad(outputs.square().sum(), (inputs, w_ih, given.w_hh, given.b_hh))
            results.append([outputs.detach(), *gradients])
        close(*results)

    def test_the_difference_to_float32_is_that_of_the_factors(self, kernel):
        given = problem("lstm", "all", 1, 5, 40, 64)
        rounded, exact = (plain.run(its, "fused") for its in (given, replace(given, products="float32")))
        assert not torch.equal(rounded[0], exact[0])
        close(rounded, exact, bound=2**-6)

    def test_not_a_number_shows(self, kernel):
        given = problem("lstm", "clean", 1, 3, 20, 40)
        with torch.no_grad():
            given.w_hh[0, 3, 5] = float("nan")
        outputs, _ = plain.run_recurrence(given)
        assert outputs[0, :, :, 3].isnan().all()


class TestIndependence:
    @pytest.mark.parametrize("cell", CELLS)
    def test_of_threads_batch_and_company(self, cell, kernel):
        given = problem(cell, "all", 3, 4, 50, 24)
        results = []
        for count in (1, 2, 5):
            with threads(count):
                results.append(plain.run(given, "fused"))
        whole = results[0][0]
        assert all(torch.equal(other[0], whole) for other in results[1:])
        alone = plain.run(member(given, 1, rows=slice(7, 20)), "fused")[0]
        assert torch.equal(alone[0], whole[1, :, 7:20])


@needs_compiler
def test_noise_is_the_same_numbers():
    """Without weights and inputs nothing is rounded, and all is noise."""
    given = problem("lstm", "all", 1, 4, 20, 24)
    with torch.no_grad():
        given.w_hh.zero_()
    other = replace(given, products="float32")
    assert torch.equal(plain.run(given, "fused")[0], plain.run(other, "fused")[0])


@needs_compiler
def test_a_kernel_that_is_not_there(monkeypatch):
    monkeypatch.setenv(native.KERNEL_SETTING, "tiles")
    with pytest.raises(UserError, match=r"ASR_DNI_BFLOAT16 is 'tiles': .* give one of converted"):
        native.bfloat16_kernel()


class TestThePlainProduct:
    """The definition that the loop is made of, against numbers rounded by torch's own type."""

    def test_rounds_factors_and_sums_in_float32(self):
        x, w, b = torch.randn(5, 300), torch.randn(7, 300), torch.randn(7)
        expected = (x.bfloat16().double() @ w.bfloat16().double().mT) + b
        torch.testing.assert_close(linear(x, w, b, products="bfloat16"), expected.float(), atol=1e-4, rtol=0)

    def test_gradients_are_products_of_rounded_factors(self):
        x, w, g = torch.randn(5, 300), torch.randn(7, 300), torch.randn(5, 7)
        leaves = [x.requires_grad_(), w.requires_grad_()]
        of_x, of_w = torch.autograd.grad(linear(x, w, products="bfloat16"), leaves, g)
        x, w, g = (its.detach().bfloat16().float() for its in (x, w, g))
        torch.testing.assert_close(of_x, g @ w)
        torch.testing.assert_close(of_w, g.mT @ x)

    def test_networks_that_share_their_input(self):
        x, w, b = torch.randn(4, 5, 30), torch.randn(3, 7, 30), torch.randn(3, 7)
        together = linear(x, w, b, shared=True, products="bfloat16")
        for k in range(3):
            torch.testing.assert_close(together[k], linear(x, w[k], b[k], products="bfloat16"))
