"""Products with factors in bfloat16: every kernel held to the plain loop, and independent of threads and batch.

The loop rounds the same factors and sums in float32 as well, so that results differ by the order of sums; but where a
factor lies between two numbers of bfloat16, that order may decide to which of them it is rounded: 1 / 256 of one factor
of one sum. Bound: 1 in 1,000 of the root of the mean square, for each result as a whole.
"""

import re
from dataclasses import replace

import pytest
import test_nn_fused as plain
import torch
from test_nn_fused import CELLS, EQUATIONS, member, needs_compiler
from torch_threads import threads

from asr_dni.cli.main import main
from asr_dni.errors import UserError
from asr_dni.model import KeywordSpotter
from asr_dni.model.network import KeywordNetwork, NetworkSettings
from asr_dni.nn import NoisyLSTM, convert, native, stack_networks
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


class TestTheSetting:
    """Of layers, configuration and environment, and what it comes to."""

    X = torch.linspace(-1, 1, 5 * 3 * 6).view(5, 3, 6)

    def layer(self, kind=NoisyLSTM, **settings):
        torch.manual_seed(0)
        return kind(6, 8, **settings)

    def by_hand(self, layer):
        """Outputs of torch's own cell on rounded factors."""
        w_ih, w_hh = (its.detach().bfloat16().double() for its in (layer.weight_ih_l0, layer.weight_hh_l0))
        bias = (layer.bias_ih_l0 + layer.bias_hh_l0).detach().double()
        h = c = torch.zeros(3, 8, dtype=torch.float64)
        outputs = []
        for x in self.X:
            gates = x.bfloat16().double() @ w_ih.mT + h.float().bfloat16().double() @ w_hh.mT + bias
            i, f, g, o = gates.chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        return torch.stack(outputs).float()

    @pytest.mark.parametrize("implementation", ["auto", "reference"])
    def test_of_a_layer(self, implementation):
        layer = self.layer(products="bfloat16")
        with plain.use_implementation(implementation), torch.no_grad():
            outputs = layer(self.X)[0]
            projected, _ = layer.forward_projected(
                layer.input_projection(self.X), layer.initial_state(3, self.X)
            )
        close([outputs, projected], [self.by_hand(layer)] * 2)
        assert not torch.allclose(outputs, self.layer()(self.X)[0], atol=1e-4)
        assert layer.state_dict().keys() == torch.nn.LSTM(6, 8).state_dict().keys()

    def test_of_the_environment_for_layers_that_have_none(self, monkeypatch):
        expected = self.layer(products="bfloat16")(self.X)[0]
        exact = self.layer()(self.X)[0]
        monkeypatch.setenv("ASR_DNI_PRODUCTS", "bfloat16")
        assert torch.equal(self.layer()(self.X)[0], expected)
        assert torch.equal(self.layer(products="float32")(self.X)[0], exact)
        converted = convert(torch.nn.LSTM(6, 8))
        assert converted.products_on(self.X) == "bfloat16"
        converted.products = "float32"
        assert converted.products_on(self.X) == "float32"

    @pytest.mark.parametrize("wrong", ["float16", "BFLOAT16", ""])
    def test_that_is_not_known(self, wrong, monkeypatch):
        with pytest.raises(UserError, match=r"products is .*give one of float32, bfloat16, auto"):
            self.layer(products=wrong)
        with pytest.raises(UserError, match=r"network products is .*: give one of float32, bfloat16, auto"):
            NetworkSettings(products=wrong)
        monkeypatch.setenv("ASR_DNI_PRODUCTS", wrong)
        with pytest.raises(UserError, match=r"ASR_DNI_PRODUCTS is .*: give one of float32, bfloat16, auto"):
            self.layer()(self.X)

    def test_of_a_population_is_that_of_its_members(self):
        members = [self.layer(products="bfloat16") for _ in range(2)]
        population = stack_networks(members)
        close(population(self.X)[0], [its(self.X)[0] for its in members])
        with pytest.raises(UserError, match="products of the network is bfloat16 in network 0 and float32"):
            stack_networks([members[0], self.layer(products="float32")])

    def test_of_a_configuration(self):
        network = KeywordNetwork(NetworkSettings(units=8, layers=1, products="bfloat16"), 6, 2)
        assert network.recurrent.products == "bfloat16"
        assert (
            KeywordSpotter(["a", "b"], 6, NetworkSettings(units=8)).curve_settings().get("products") is None
        )
        spotter = KeywordSpotter(["a", "b"], 6, NetworkSettings(units=8, products="bfloat16"))
        assert spotter.curve_settings()["products"] == "bfloat16"

    def test_auto_is_what_the_processor_is_faster_in(self, monkeypatch):
        layer = self.layer(products="auto")
        has_amx = native.library() is not None and native.bfloat16_kernel() == "amx_bf16"
        assert layer.products_on(self.X) == ("bfloat16" if has_amx else "float32")
        assert layer.products_on(self.X.double()) == "float32"
        assert self.layer(products="auto", proj_size=3).products_on(self.X) == "float32"
        with plain.use_implementation("reference"):
            assert layer.products_on(self.X) == "float32"
        if native.library() is not None:
            monkeypatch.setenv(native.KERNEL_SETTING, "converted")
            assert layer.products_on(self.X) == "float32"

    def test_what_no_kernel_runs_the_loop_runs_and_says_so(self, caplog):
        layer = self.layer(products="bfloat16", proj_size=3)
        layer(self.X)
        if native.library() is not None:
            assert "slower plain loop: no fused recurrence for proj_size" in caplog.text

    def test_info_tells(self, capsys, monkeypatch):
        monkeypatch.setenv("ASR_DNI_PRODUCTS", "auto")
        main(["info"])
        kernels = "|".join((*KERNELS, "the reference loop"))
        assert re.search(
            rf"^products +auto .*ASR_DNI_PRODUCTS in the environment.*by ({kernels})",
            capsys.readouterr().out,
            re.M,
        )
