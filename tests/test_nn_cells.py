"""Cells by their equations: against torch's layers, formulas written out in NumPy, and gradcheck."""

import numpy as np
import pytest
import torch
from gaussian_sites import LayerNoise, SiteNoise, together
from torch import nn

from asr_dni.errors import UserError
from asr_dni.model import KeywordNetwork, NetworkSettings
from asr_dni.model.network import cell_names
from asr_dni.nn import (
    CELLS,
    NoisyGRU,
    NoisyLSTM,
    NoisyRecurrent,
    NoisyRNN,
    RecurrentCell,
    calibrate,
    stack_networks,
    use_implementation,
)
from asr_dni.nn.recurrence import Recurrence
from asr_dni.nn.reference import run_reference
from asr_dni.noise import SITES, Noise

F, H, T, N = 3, 5, 6, 4
every_cell = pytest.mark.parametrize("cell", CELLS)


def make(cell, **settings):
    torch.manual_seed(0)
    layer = NoisyRecurrent(cell, F, H, dtype=torch.float64, **settings)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return layer


@pytest.fixture
def x():
    return torch.randn(T, N, F, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class TestAgainstTorch:
    @pytest.mark.parametrize(
        ("cell", "torch_layer"),
        [
            ("lstm", nn.LSTM),
            ("gru", nn.GRU),
            ("rnn_tanh", nn.RNN),
            ("rnn_relu", lambda *shape, **rest: nn.RNN(*shape, nonlinearity="relu", **rest)),
        ],
    )
    @pytest.mark.parametrize("layers", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}])
    def test_outputs_gradients_parameters(self, cell, torch_layer, layers, x):
        torch.manual_seed(3)
        ours = NoisyRecurrent(cell, F, H, dtype=torch.float64, **layers)
        torch.manual_seed(3)
        theirs = torch_layer(F, H, dtype=torch.float64, **layers)
        for (name, mine), (its_name, its) in zip(
            ours.named_parameters(), theirs.named_parameters(), strict=True
        ):
            assert name == its_name
            assert torch.equal(mine, its)
        outputs, expected = ours(x)[0], theirs(x)[0]
        torch.testing.assert_close(outputs, expected)
        gradients = torch.autograd.grad(outputs.square().sum(), list(ours.parameters()))
        wanted = torch.autograd.grad(expected.square().sum(), list(theirs.parameters()))
        torch.testing.assert_close(gradients, wanted)

    def test_lstm_with_projection(self, x):
        ours, theirs = (
            make("lstm", proj_size=2, num_layers=2),
            nn.LSTM(F, H, 2, proj_size=2, dtype=torch.float64),
        )
        theirs.load_state_dict(ours.state_dict())
        torch.testing.assert_close(ours(x), theirs(x))

    def test_peepholes_of_zero_are_none(self, x):
        ours, theirs = make("lstm_peephole"), nn.LSTM(F, H, dtype=torch.float64)
        with torch.no_grad():
            for gate in "ifo":
                getattr(ours, f"peephole_{gate}_l0").zero_()
        state = {name: value for name, value in ours.state_dict().items() if not name.startswith("peephole")}
        theirs.load_state_dict(state)
        torch.testing.assert_close(ours(x), theirs(x))


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def written_out(cell, layer, x):
    """The papers' formulas for one sample at a time."""
    weights = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    w, u = weights["weight_ih_l0"], weights["weight_hh_l0"]
    outputs = np.zeros((T, N, H))
    for n in range(N):
        h, c = np.zeros(H), np.zeros(H)
        for t in range(T):
            into, back = w @ x[t, n].numpy(), u @ h
            if cell == "lstm_peephole":
                a = into + back + weights["bias_ih_l0"] + weights["bias_hh_l0"]
                i = sigmoid(a[:H] + weights["peephole_i_l0"] * c)
                f = sigmoid(a[H : 2 * H] + weights["peephole_f_l0"] * c)
                c = f * c + i * np.tanh(a[2 * H : 3 * H])
                o = sigmoid(a[3 * H :] + weights["peephole_o_l0"] * c)
                h = o * np.tanh(c)
            elif cell == "mgu":
                into, back = into + weights["bias_ih_l0"], back + weights["bias_hh_l0"]
                f = sigmoid(into[:H] + back[:H])
                candidate = np.tanh(into[H:] + f * back[H:])
                h = (1 - f) * h + f * candidate
            else:
                z = sigmoid(into + back + weights["bias_z_l0"])
                candidate = np.tanh(into + back + weights["bias_h_l0"])
                zeta, nu = sigmoid(weights["zeta_l0"]), sigmoid(weights["nu_l0"])
                h = (zeta * (1 - z) + nu) * candidate + z * h
            outputs[t, n] = h
    return outputs


@pytest.mark.parametrize("cell", ["lstm_peephole", "mgu", "fastgrnn"])
def test_formulas_written_out(cell, x):
    layer = make(cell)
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), written_out(cell, layer, x), atol=1e-12)


@every_cell
def test_gradients_under_noise(cell, x):
    layer = make(cell, num_layers=2, bidirectional=True)
    names = [name for name, _ in layer.named_parameters()]

    def outputs(inputs, *parameters):
        values = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(layer, values, (inputs,))[0]

    with use_implementation("reference"), layer.under(Noise(0.3, sites=SITES, draw=0)):
        leaves = [leaf.detach().requires_grad_() for leaf in (x[:3, :2], *layer.parameters())]
        assert torch.autograd.gradcheck(outputs, leaves, fast_mode=True)


@every_cell
def test_a_cell_takes_the_products_that_it_declares(cell):
    taken = []

    def times(left, right):
        taken.append(None)
        return left * right

    equations = CELLS[cell]
    rows = torch.zeros(N, len(equations.gates) * H)
    own = {name: torch.ones(H if its.per_unit else 1) for name, its in equations.own.items()}
    state = equations.step(rows, rows, tuple(torch.zeros(N, H) for _ in equations.states), own, times)
    assert len(taken) == equations.products
    assert [part.shape for part in state] == [(N, H)] * len(equations.states)
    assert set(equations.apart) <= set(equations.gates)


@every_cell
@pytest.mark.parametrize("arrays", ["joint", "separate"])
def test_a_member_of_a_population_is_what_it_is_alone(cell, arrays, x):
    members = [make(cell, num_layers=2) for _ in range(3)]
    with torch.no_grad():
        for k, member in enumerate(members):
            for parameter in member.parameters():
                parameter *= 1 + 0.1 * k
    noises = [Noise(0.2 * k, sites=SITES, arrays=arrays, seed=k, draw=4) for k in range(3)]
    population = stack_networks(members)
    with population.under(noises):
        outputs, _ = population(x)
    for k, (member, noise) in enumerate(zip(members, noises, strict=True)):
        with member.under(noise):
            torch.testing.assert_close(outputs[k], member(x)[0], atol=1e-12, rtol=1e-12)


@every_cell
def test_networks_of_the_loop_do_not_meet(cell):
    """K networks with lengths of their own, all sites: each is what its slices give."""
    equations, generator, K = CELLS[cell], torch.Generator().manual_seed(0), 3

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rows, site = len(equations.gates) * H, SiteNoise(0.3, (1, 2))
    w_hh, b_hh, projection = normal(K, rows, H), normal(K, rows), normal(K, T, N, rows)
    state = tuple(normal(K, N, H) for _ in equations.states)
    own = {name: normal(K, H if its.per_unit else 1) for name, its in equations.own.items()}
    noise = [
        LayerNoise(torch.arange(N) + 9 * k, 7, input=site, recurrent=site, elementwise=site) for k in range(K)
    ]
    lengths = torch.tensor([[1, 4, 2, 6], [4, 3, 4, 1], [2, 2, 1, 6]])

    def part(k):
        return Recurrence(
            cell,
            w_hh[k],
            b_hh[k],
            tuple(its[k] for its in state),
            together(noise[k]),
            projection=projection[k],
            own={name: its[k] for name, its in own.items()},
            lengths=lengths[k],
        )

    outputs, final = run_reference(part(slice(None)))
    for k in range(K):
        alone, its_final = run_reference(part(slice(k, k + 1)))
        torch.testing.assert_close(outputs[k : k + 1], alone, atol=1e-12, rtol=0)
        for mine, its in zip(final, its_final, strict=True):
            torch.testing.assert_close(mine[k : k + 1], its, atol=1e-12, rtol=0)
        past = torch.arange(T)[:, None] >= lengths[k]
        assert not outputs[k][past].any()


@pytest.mark.parametrize("cell", cell_names())
class TestNetwork:
    def test_trains_under_noise(self, cell):
        torch.manual_seed(0)
        network = KeywordNetwork(NetworkSettings(cell=cell, units=12, layers=2, dropout=0.1), F, 2)
        features = torch.randn(32, 8, F)
        labels = (features.mean((1, 2)) > 0).long()
        optimizer = torch.optim.Adam(network.parameters(), 0.02)
        losses = []
        for step in range(40):
            with network.under(Noise(0.2, draw=step)):
                loss = nn.functional.cross_entropy(network(features), labels)
            optimizer.zero_grad()
            loss.backward()
            assert all(parameter.grad is not None for parameter in network.parameters())
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.6 * losses[0]

    def test_has_all_that_networks_have(self, cell):
        """Relative scales, the projection that is made once for many passes, a copy from its state."""
        settings = NetworkSettings(cell=cell, units=6, layers=2, bidirectional=True, pooling="last")
        network, features = KeywordNetwork(settings, F, 2).eval(), torch.randn(5, 8, F)
        calibrate(network, [features])
        twin = KeywordNetwork(settings, F, 2).eval()
        twin.load_state_dict(network.state_dict())
        noise = Noise(0.5, scale="signal", sites=SITES, draw=1)
        with network.under(noise), twin.under(noise):
            logits = network(features)
            assert torch.equal(logits, twin(features))
            torch.testing.assert_close(logits, network.classify(network.project(features)))
        assert not torch.equal(logits, network(features))


def test_projection_is_a_setting_of_networks():
    network = KeywordNetwork(NetworkSettings(units=8, projection=3, bidirectional=True, pooling="last"), F, 2)
    assert network.classifier.in_features == 6
    network(torch.randn(4, 5, F)).sum().backward()
    with pytest.raises(UserError, match=r"projection is 3.*lstm, lstm_peephole"):
        NetworkSettings(cell="gru", projection=3)
    with pytest.raises(UserError, match="less than units"):
        NetworkSettings(units=3, projection=3)


def test_networks_have_the_layers_of_torch_where_torch_has_them():
    kinds = {"rnn": NoisyRNN, "lstm": NoisyLSTM, "gru": NoisyGRU, "mgu": NoisyRecurrent}
    for cell, kind in kinds.items():
        assert type(KeywordNetwork(NetworkSettings(cell=cell, units=4), F, 2).recurrent) is kind


class CoupledLSTM(RecurrentCell):
    """An LSTM that forgets what it takes in."""

    gates = ("i", "g", "o")
    states = ("h", "c")
    products = 3

    def step(self, inward, hidden, state, own, times):
        _, c = state
        i, g, o = self.split(inward + hidden)
        c = times(1 - i.sigmoid(), c) + times(i.sigmoid(), g.tanh())
        return times(o.sigmoid(), c.tanh()), c


def test_a_new_cell_is_a_class_and_its_name(monkeypatch, x):
    monkeypatch.setitem(CELLS, "coupled", CoupledLSTM())
    layer = make("coupled", num_layers=2, bidirectional=True)
    clean, (h, c) = layer(x)
    assert clean.shape == (T, N, 2 * H)
    assert h.shape == c.shape == (4, N, H)
    with layer.under(Noise(0.3, sites=SITES)):
        noisy = layer(x)[0]
    assert 0.01 < float((noisy - clean).detach().std()) < 1


def test_is_shown_with_all_that_tells_it_from_others():
    layer = NoisyRecurrent("lstm", F, H, 2, batch_first=True, dropout=0.5, bidirectional=True, proj_size=2)
    shown = f"lstm, {F}, {H}, num_layers=2, batch_first=True, dropout=0.5, bidirectional=True, proj_size=2"
    assert repr(layer) == f"NoisyRecurrent({shown})"
    assert repr(NoisyRecurrent("gru", F, H)) == f"NoisyRecurrent(gru, {F}, {H}, num_layers=1)"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"cell": "lstn"}, "no cell 'lstn'"),
        ({"input_size": 0}, "input_size is 0"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"dropout": 2.0}, "dropout is 2.0"),
        ({"proj_size": H}, f"proj_size is {H}: .*lstm, lstm_peephole.* less than hidden_size"),
        ({"cell": "gru", "proj_size": 2}, "proj_size is 2"),
    ],
)
def test_wrong_values(wrong, said):
    with pytest.raises(UserError, match=said):
        NoisyRecurrent(**{"cell": "lstm", "input_size": F, "hidden_size": H, **wrong})


def test_a_cell_that_is_registered_later_is_a_networks(monkeypatch):
    """Whatever has been imported before it."""
    monkeypatch.setitem(CELLS, "later", CELLS["mgu"])
    assert "later" in cell_names()
    network = KeywordNetwork(NetworkSettings(cell="later", units=4), 3, 2)
    assert network(torch.randn(2, 5, 3)).shape == (2, 2)
