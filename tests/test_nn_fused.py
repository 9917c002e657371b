"""The compiled recurrence of K networks: held to the plain loop, and independent of threads, batch and company."""

from dataclasses import replace

import pytest
import torch
from gaussian_sites import LayerNoise, SiteNoise, of_network, together
from torch_threads import threads

from asr_dni.nn import CELLS as EQUATIONS
from asr_dni.nn import fused, native, use_implementation
from asr_dni.nn.implementation import run_recurrence
from asr_dni.nn.recurrence import Recurrence

needs_compiler = pytest.mark.skipif(
    native.library() is None, reason=f"no compiled kernels here: {native.status()}"
)
CELLS = fused.CAPABILITIES.cells
SITES = {
    "clean": {},
    "input": {"input": SiteNoise(0.7, (1, 2))},
    "recurrent": {"recurrent": SiteNoise(0.7, (3, 4))},
    "joint": {"input": SiteNoise(0.7, (3, 4)), "joint": True},
    "all": {
        "input": SiteNoise(0.5, (1, 2)),
        "recurrent": SiteNoise(0.4, (3, 4)),
        "elementwise": SiteNoise(0.1, (5, 6)),
    },
}


def problem(cell, sites, networks, steps, rows, width, bias=True, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    gates = len(EQUATIONS[cell].gates) * width
    w_hh = (normal(networks, gates, width) * width**-0.5).requires_grad_()
    b_hh = normal(networks, gates).requires_grad_() if bias else None
    projection = normal(networks, steps, rows, gates).requires_grad_()
    state = tuple(normal(networks, rows, width).requires_grad_() for _ in EQUATIONS[cell].states)
    noise = [
        LayerNoise(
            torch.arange(rows) + 100 * k,
            first_step=3,
            **{
                name: SiteNoise(site.std * (1 + k), (site.key[0] + k, site.key[1]))
                if isinstance(site, SiteNoise)
                else site
                for name, site in SITES[sites].items()
                if name != "elementwise" or EQUATIONS[cell].products
            },
        )
        for k in range(networks)
    ]
    own = {
        name: normal(networks, width if its.per_unit else 1).requires_grad_()
        for name, its in EQUATIONS[cell].own.items()
    }
    return Recurrence(cell, w_hh, b_hh, state, together(noise), projection=projection, own=own)


def run(problem, implementation):
    """Return outputs, final states and the gradients of everything."""
    leaves = [problem.w_hh, problem.b_hh, problem.projection, *problem.state, *problem.own.values()]
    with use_implementation(implementation):
        outputs, final = run_recurrence(problem)
    results = [outputs, *final]
    loss = sum((result * torch.linspace(-1, 1, result.numel()).view_as(result)).sum() for result in results)
    gradients = torch.autograd.grad(loss, [leaf for leaf in leaves if leaf is not None])
    return [result.detach() for result in results] + list(gradients)


def member(problem, k, rows=slice(None)):
    return replace(
        problem,
        w_hh=problem.w_hh[k : k + 1],
        b_hh=None if problem.b_hh is None else problem.b_hh[k : k + 1],
        projection=problem.projection[k : k + 1, :, rows],
        state=tuple(part[k : k + 1, rows] for part in problem.state),
        sites=of_network(problem.sites, k, rows),
        own={name: its[k : k + 1] for name, its in problem.own.items()},
    )


def close(got, expected):
    for mine, its in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, its, atol=2e-5, rtol=2e-4)


@needs_compiler
class TestAgainstThePlainLoop:
    @pytest.mark.parametrize(
        ("cell", "sites"), [(c, s) for c in CELLS for s in SITES if s != "joint" or EQUATIONS[c].apart]
    )
    @pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 4, 13, 7), (2, 3, 30, 33)], ids=str)
    @pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
    def test_outputs_states_and_gradients(self, cell, sites, shape, bias):
        given = problem(cell, sites, *shape, bias=bias)
        close(run(given, "fused"), run(given, "reference"))

    @pytest.mark.parametrize("cell", CELLS)
    def test_not_contiguous(self, cell):
        given = problem(cell, "all", 2, 5, 6, 9)
        awkward = replace(
            given,
            w_hh=given.w_hh.mT.contiguous().mT,
            projection=given.projection.transpose(1, 2).contiguous().transpose(1, 2),
            state=tuple(part.mT.contiguous().mT for part in given.state),
        )
        close(run(awkward, "fused"), run(given, "reference"))

    @pytest.mark.parametrize("cell", CELLS)
    def test_without_gradients_nothing_is_kept(self, cell):
        given = problem(cell, "all", 2, 9, 5, 11)
        expected = run(given, "fused")[: 1 + len(EQUATIONS[cell].states)]
        with torch.no_grad():
            outputs, final = run_recurrence(given)
        assert outputs.grad_fn is None
        for mine, its in zip((outputs, *final), expected, strict=True):
            assert torch.equal(mine, its)


@needs_compiler
class TestIndependence:
    """Outputs are the same to the last bit; gradients of weights are sums in an order of the library's."""

    @pytest.mark.parametrize("cell", CELLS)
    def test_of_the_number_of_threads(self, cell):
        given = problem(cell, "all", 3, 6, 50, 24)
        results = []
        for count in (1, 2, 5):
            with threads(count):
                results.append(run(given, "fused"))
        for other in results[1:]:
            assert torch.equal(other[0], results[0][0])
            close(other, results[0])

    @pytest.mark.parametrize("cell", CELLS)
    def test_of_the_other_networks(self, cell):
        given = problem(cell, "all", 4, 6, 20, 24)
        together = run(given, "fused")
        states = len(EQUATIONS[cell].states)
        for k in range(4):
            alone = run(member(given, k), "fused")
            for result in range(1 + states):
                assert torch.equal(alone[result][0], together[result][k])

    @pytest.mark.parametrize("cell", CELLS)
    def test_of_the_rest_of_the_batch(self, cell):
        given = problem(cell, "all", 1, 6, 50, 24)
        whole = run(given, "fused")[0]
        part = run(member(given, 0, rows=slice(7, 20)), "fused")[0]
        assert torch.equal(part, whole[:, :, 7:20])


@needs_compiler
class TestLayer:
    """From the inputs on: the projection is made inside, and has gradients of its own."""

    @pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
    @pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (3, 4, 13, 5, 7), (2, 40, 30, 21, 33)], ids=str)
    @pytest.mark.parametrize("cell", CELLS)
    def test_outputs_and_gradients(self, cell, shape, shared):
        networks, steps, rows, features, width = shape
        given = problem(cell, "all", networks, steps, rows, width)
        generator = torch.Generator().manual_seed(1)
        leading = () if shared else (networks,)
        inputs = torch.randn(*leading, steps, rows, features, generator=generator).requires_grad_()
        w_ih = torch.randn(*given.w_hh.shape[:2], features, generator=generator).requires_grad_()
        b_ih = torch.randn(*given.w_hh.shape[:2], generator=generator).requires_grad_()
        leaves = [inputs, w_ih, b_ih, given.w_hh, given.b_hh, *given.state, *given.own.values()]
        given = replace(given, projection=None, inputs=inputs, w_ih=w_ih, b_ih=b_ih)
        results = []
        for implementation in ("reference", "fused"):
            with use_implementation(implementation):
                outputs, final = run_recurrence(given)
            loss = (outputs * torch.linspace(-1, 1, outputs.numel()).view_as(outputs)).sum() + final[-1].sum()
            results.append([outputs.detach(), *torch.autograd.grad(loss, leaves)])
        for mine, its in zip(*reversed(results), strict=True):
            torch.testing.assert_close(mine, its, atol=1e-4, rtol=1e-3)

    def test_only_what_is_asked_for_has_a_gradient(self):
        given = problem("gru", "all", 2, 3, 4, 5, bias=False)
        given.w_hh.requires_grad_(False)
        w_ih = torch.randn(2, 15, 6, requires_grad=True)
        state = tuple(part.detach() for part in given.state)
        inputs = torch.randn(3, 4, 6)
        outputs, _ = run_recurrence(replace(given, projection=None, inputs=inputs, w_ih=w_ih, state=state))
        outputs.sum().backward()
        assert w_ih.grad is not None
        assert given.w_hh.grad is None
