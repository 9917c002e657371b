"""Noise measured by the size of each output: against NumPy, closed forms and other layers."""

import math

import numpy as np
import pytest
import torch

from asr_dni.errors import UserError
from asr_dni.nn import (
    NoisyConv2d,
    NoisyGRU,
    NoisyLinear,
    NoisyLSTM,
    calibrate,
    snr_db,
    stack_networks,
    use_implementation,
)
from asr_dni.noise import (
    FixedPattern,
    Flicker,
    Gaussian,
    GaussianOfRange,
    Hardware,
    Impulse,
    Laplace,
    Realisation,
    Uniform,
)

DOUBLE = torch.float64
ROWS, FEATURES, OUTPUTS = 20_000, 6, 5
X = torch.linspace(-2, 2, 10 * FEATURES, dtype=DOUBLE).view(10, FEATURES)


@pytest.fixture(scope="module")
def layer() -> NoisyLinear:
    torch.manual_seed(0)
    layer = NoisyLinear(FEATURES, OUTPUTS, bias=False, dtype=DOUBLE)
    with torch.no_grad():
        layer.weight *= torch.linspace(0.1, 1.0, OUTPUTS, dtype=DOUBLE)[:, None]
    calibrate(layer, [X[:4], X[4:]])
    return layer


def sizes(layer: NoisyLinear, scale: str) -> np.ndarray:
    """Return the size of each output by the definition."""
    weight = layer.weight.detach().numpy()
    if scale == "signal":
        return np.sqrt(((X.numpy() @ weight.T) ** 2).mean(0))
    return 2 * np.abs(weight).max(1)  # the largest input is 2


@pytest.mark.parametrize("scale", ["signal", "range"])
@pytest.mark.parametrize("tile", [None, 4])
@pytest.mark.parametrize("kind", [Gaussian, Laplace])
def test_the_deviation_is_that_of_each_output(kind, tile, scale, layer):
    """20,000 errors at each of 5 outputs; a Laplace's fourth moment is 6: alarms 1e-6 each."""
    x = torch.zeros(ROWS, FEATURES, dtype=DOUBLE)
    with (
        torch.no_grad(),
        layer.under(Hardware(output=kind(0.3, scale, per="output"), tile=tile), Realisation()),
    ):
        found = layer(x).numpy()
    expected = 0.3 * sizes(layer, scale) * (1 if tile is None else 2**0.5)
    error = math.sqrt(((3 if kind is Gaussian else 6) - 1) / 4 / ROWS)
    np.testing.assert_allclose(found.std(0), expected, rtol=4.9 * error)


@pytest.mark.parametrize("kind", [Gaussian, Uniform, Laplace, Impulse, Flicker, FixedPattern])
@pytest.mark.parametrize("scale", ["signal", "range"])
def test_every_model_has_the_numbers_of_the_whole_tensor_in_other_units(kind, scale, layer):
    with torch.no_grad(), layer.under(Hardware(output=kind(0.3, scale, per="output")), Realisation()):
        found = layer(0 * X)
    with torch.no_grad(), layer.under(Hardware(output=kind(0.3)), Realisation()):
        unit = layer(0 * X)
    torch.testing.assert_close(found, unit * torch.tensor(sizes(layer, scale)))


def test_in_range_of_one_array_it_is_gaussian_of_range(layer):
    hardware = [
        Hardware(output=its) for its in (Gaussian(0.3, "range", per="output"), GaussianOfRange(0.3, "output"))
    ]
    outputs = []
    for its in hardware:
        with torch.no_grad(), layer.under(its, Realisation(draw=2)):
            outputs.append(layer(X))
    torch.testing.assert_close(*outputs)


def test_a_convolutions_outputs_are_its_channels():
    torch.manual_seed(0)
    layer, images = NoisyConv2d(2, 3, (3, 2), dtype=DOUBLE), torch.randn(4, 2, 9, 6, dtype=DOUBLE)
    calibrate(layer, [images])
    clean = torch.nn.functional.conv2d(images, layer.weight)
    rms = clean.square().mean((0, 2, 3)).sqrt()
    torch.testing.assert_close(layer.statistics()["l0"].rms_of_outputs("convolution"), rms)
    errors = []
    for output in (Gaussian(0.3, "signal", per="output"), Gaussian(0.3)):
        with torch.no_grad(), layer.under(Hardware(output=output, sites=["convolution"]), Realisation()):
            noisy = layer(images)
        errors.append(noisy - layer(images).detach())
    torch.testing.assert_close(errors[0], errors[1] * rms[:, None, None])


def lstm_sizes(layer: NoisyLSTM, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the RMS of each output of an LSTM's products, step by step."""
    h = c = x.new_zeros(x.shape[1], layer.hidden_size)
    seen: dict[str, list[torch.Tensor]] = {
        name: [] for name in ("input", "recurrent", "gates", "elementwise")
    }
    for step in x:
        inward, hidden = step @ layer.weight_ih_l0.T, h @ layer.weight_hh_l0.T
        i, f, g, o = (inward + hidden + layer.bias_ih_l0 + layer.bias_hh_l0).chunk(4, -1)
        products = [f.sigmoid() * c, i.sigmoid() * g.tanh()]
        c = products[0] + products[1]
        h = o.sigmoid() * c.tanh()
        for name, its in (("input", inward), ("recurrent", hidden), ("gates", inward + hidden)):
            seen[name].append(its)
        seen["elementwise"].append(torch.cat((*products, h), -1))
    return {name: torch.stack(its).square().mean((0, 1)).sqrt() for name, its in seen.items()}


def test_the_sizes_of_an_lstms_outputs():
    torch.manual_seed(0)
    layer, x = NoisyLSTM(3, 4, dtype=DOUBLE), torch.randn(7, 5, 3, dtype=DOUBLE)
    calibrate(layer, [x])
    for site, expected in lstm_sizes(layer, x).items():
        torch.testing.assert_close(layer.statistics()["l0"].rms_of_outputs(site), expected.detach())


def test_a_gru_has_two_outputs_for_the_gate_whose_parts_are_apart():
    """Each has its own size: of r and z the sum's, of n that of each part; in range as the array's own weights say."""
    torch.manual_seed(0)
    layer, x = NoisyGRU(3, 4, dtype=DOUBLE), torch.randn(7, 5, 3, dtype=DOUBLE)
    calibrate(layer, [x])
    statistics = layer.statistics()["l0"]
    inward, hidden, gates = (statistics.rms_of_outputs(its) for its in ("input", "recurrent", "gates"))
    torch.testing.assert_close(gates[8:], torch.cat((inward[8:], hidden[8:])))
    outputs = []
    for model in (Gaussian(0.1, "range", per="output"), GaussianOfRange(0.1, "output")):
        with layer.under(Hardware(output=model), Realisation(draw=0)):
            outputs.append(layer(x)[0])
    torch.testing.assert_close(*outputs)


@pytest.mark.parametrize("arrays", ["joint", "separate"])
@pytest.mark.parametrize("scale", ["signal", "range"])
@pytest.mark.parametrize("kind", [NoisyLSTM, NoisyGRU])
def test_the_fused_kernel_and_two_networks(kind, arrays, scale):
    """As the loop, as each network alone, and with a finite gradient."""
    torch.manual_seed(0)
    members, x = [kind(3, 8), kind(3, 8)], torch.randn(7, 5, 3)
    for its in members:
        calibrate(its, [x])
    sites = ["input", "recurrent", "elementwise"]
    hardware = [
        Hardware(output=Gaussian(sigma, scale, per="output"), arrays=arrays, sites=sites)
        for sigma in (0.3, 0.1)
    ]
    each = [Realisation(seed=seed, draw=0) for seed in (1, 2)]
    population = stack_networks(members)
    with population.under(hardware, each):
        outputs = {}
        for name in ("fused", "reference"):
            with use_implementation(name):
                outputs[name] = population(x)[0]
        torch.testing.assert_close(outputs["fused"], outputs["reference"], rtol=1e-5, atol=1e-5)
        outputs["fused"].square().sum().backward()
    assert all(bool(its.grad.isfinite().all()) and bool(its.grad.any()) for its in population.parameters())
    for member, its, realisation, together in zip(members, hardware, each, outputs["fused"], strict=True):
        with member.under(its, realisation):
            torch.testing.assert_close(member(x)[0], together)
        clean = member(x)[0]
        assert not torch.allclose(clean, together)


def test_statistics_are_kept_and_those_of_older_weights_are_not_there(tmp_path, layer):
    torch.save(layer.state_dict(), tmp_path / "new.pt")
    state = torch.load(tmp_path / "new.pt", weights_only=True)
    twin = NoisyLinear(FEATURES, OUTPUTS, bias=False, dtype=DOUBLE)
    twin.load_state_dict(state)
    per_output = Hardware(output=Gaussian(0.3, "signal", per="output"))
    with twin.under(per_output, Realisation()), layer.under(per_output, Realisation()):
        assert torch.equal(twin(X), layer(X))
    older = {name: its for name, its in state.items() if not name.endswith(".outputs")}
    assert len(older) == len(state) - 1
    twin.load_state_dict(older)
    with twin.under(Hardware(output=Gaussian(0.3, "signal")), Realisation()):
        twin(X)
    with twin.under(per_output), pytest.raises(UserError, match=r"calibrate it anew .* train it anew"):
        twin(X)
    with twin.under(Hardware(output=Gaussian(0.3, "range", per="output")), Realisation()):
        twin(X)  # needs no more than the weights and the largest input
    assert "signal_statistics.l0.outputs" not in twin.state_dict()
    with pytest.raises(RuntimeError, match=r"size mismatch for signal_statistics.l0.outputs"):
        twin.load_state_dict(older | {"signal_statistics.l0.outputs": torch.ones(OUTPUTS + 1)})


def test_a_later_calibration_is_mixed_in(layer):
    twin = NoisyLinear(FEATURES, OUTPUTS, bias=False, dtype=DOUBLE)
    twin.load_state_dict(layer.state_dict())
    calibrate(twin, [2 * X], momentum=0.75)
    expected = sizes(layer, "signal") * math.sqrt(0.75 + 0.25 * 4)
    np.testing.assert_allclose(twin.statistics()["l0"].rms_of_outputs("output"), expected)


def test_the_snr_is_that_of_all_outputs(layer):
    assert snr_db(layer, Hardware(output=Gaussian(0.1, "signal", per="output"))) == pytest.approx(20.0)
    power = (0.1 * sizes(layer, "range")) ** 2
    expected = 10 * math.log10((sizes(layer, "signal") ** 2).mean() / power.mean())
    assert snr_db(layer, Hardware(output=Gaussian(0.1, "range", per="output"))) == pytest.approx(expected)


def test_settings_that_say_nothing_of_it_are_those_from_before():
    assert "per" not in Gaussian(0.1, "signal").settings()["init_args"]
    settings = Hardware(output=Gaussian(0.1, "signal", per="output")).as_settings()
    assert Hardware.from_settings(settings).output[0].per == "output"
    assert Hardware.from_settings(settings).identity != Hardware(output=Gaussian(0.1, "signal")).identity
    assert "each output" in Gaussian(0.1, "signal", per="output").unit_of("sigma")


@pytest.mark.parametrize(
    ("per", "scale", "message"),
    [
        ("column", "signal", "per is 'column': give tensor or output"),
        ("output", "absolute", "give signal or range"),
    ],
)
def test_mistakes(per, scale, message):
    with pytest.raises(UserError, match=message):
        Gaussian(0.1, scale, per=per)
