"""Bounds of converters that a training learns."""

import math
from functools import partial

import pandas as pd
import pytest
import torch

from asr_dni.cli.info import CASES, implementation_of
from asr_dni.cli.main import main
from asr_dni.errors import UserError
from asr_dni.model import KeywordSpotter, NetworkSettings, TrainingNoise
from asr_dni.model.foreign_weights import take_weights
from asr_dni.nn import (
    NoisyConv2d,
    NoisyGRU,
    NoisyLinear,
    NoisyLSTM,
    calibrate,
    learn_bounds,
    learned_bounds,
    stack_networks,
    unstack_network,
    use_implementation,
)
from asr_dni.noise import Gaussian, Hardware, Realisation, UniformConverter

LEARNED = partial(UniformConverter, scale="absolute", learned=True)


@pytest.fixture(autouse=True)
def _seeded():
    """What is clipped, and how much of it, is the same in every run."""
    torch.manual_seed(2)


def bounds_of(layer):
    return {name: its for name, its in layer.named_parameters() if "log_bound" in name}


def test_gradient_of_a_bound_is_that_of_what_it_clips():
    """In float64 against the closed form of a matrix between two converters, also of inputs and weights."""
    layer = NoisyLinear(6, 5, bias=False, dtype=torch.float64)
    x = (3 * torch.randn(7, 6, dtype=torch.float64)).requires_grad_()
    hardware = Hardware(dac=LEARNED(4, 2.0), adc=LEARNED(3, 1.5))
    learn_bounds(layer, hardware)
    dac, adc = bounds_of(layer).values()
    with torch.no_grad():
        dac += 0.2
        adc -= 0.3
    weights = torch.randn(7, 5, dtype=torch.float64)
    with layer.under(hardware):
        y = layer(x)
        (weights * y).sum().backward()
    below, above = 2.0 * torch.tensor(0.2).double().exp(), 1.5 * torch.tensor(-0.3).double().exp()
    given = (x.detach().clamp(-below, below) / (below / 7)).round() * below / 7
    product = given @ layer.weight.detach().T
    expected = (product.clamp(-above, above) / (above / 3)).round() * above / 3
    torch.testing.assert_close(y.detach(), expected)
    within = product.abs() <= above
    assert 0.2 < within.double().mean() < 0.9
    torch.testing.assert_close(adc.grad[0], above * (weights * product.sign())[~within].sum())
    of_product = weights * within
    torch.testing.assert_close(layer.weight.grad, of_product.T @ given)
    of_given, inside = of_product @ layer.weight.detach(), x.detach().abs() <= below
    torch.testing.assert_close(x.grad, of_given * inside)
    torch.testing.assert_close(dac.grad[0], below * (of_given * x.detach().sign())[~inside].sum())


@pytest.mark.parametrize("kind", [NoisyLSTM, NoisyGRU])
@pytest.mark.parametrize("more", [{"arrays": "joint"}, {"arrays": "separate", "tile": 2}])
def test_gradients_in_a_recurrence_are_those_of_differences(kind, more):
    """Converters of 24 bits are but clipping; all steps and arrays share a bound."""
    layer = kind(3, 4, dtype=torch.float64)
    hardware = Hardware(dac=LEARNED(24, 0.4), adc=LEARNED(24, 0.3), **more)
    learn_bounds(layer, hardware)
    names, x = list(bounds_of(layer)), torch.randn(5, 2, 3, dtype=torch.float64)
    assert len(names) == (2 if more["arrays"] == "joint" else 4)

    def run(*values):
        with layer.under(hardware):
            return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))[0]

    values = [torch.full((1,), 0.1, dtype=torch.float64, requires_grad=True) for _ in names]
    assert torch.autograd.gradcheck(run, values, eps=1e-4, atol=1e-3)
    (sum_of,) = torch.autograd.grad(run(*values).sum(), values[:1])
    assert sum_of.abs().item() > 1e-3


@pytest.mark.parametrize("scale", ["range", "signal"])
def test_a_network_begins_with_the_calibrated_bound(scale):
    layer, x = NoisyLSTM(3, 5, 2, proj_size=2), torch.randn(6, 4, 3)
    calibrate(layer, [x])
    adc = UniformConverter(5, 0.7, scale)
    given = Hardware(Gaussian(0.1), dac=UniformConverter(5, 0.7), adc=adc)
    learned = Hardware(
        Gaussian(0.1), dac=UniformConverter(5, 0.7, learned=True), adc=UniformConverter(5, 0.7, scale, True)
    )
    outputs = []
    for hardware in (given, learned, learned):
        with layer.under(hardware, Realisation(draw=0)), torch.no_grad():
            outputs.append(layer(x)[0])
        learn_bounds(layer, hardware)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=0)
    torch.testing.assert_close(outputs[0], outputs[2], rtol=0, atol=0)
    assert {its.name for its in learned_bounds(layer)} == {
        f"{kind}_l{k}_{site}" for kind in ("dac", "adc") for k in (0, 1) for site in ("gates", "projection")
    }


def test_kernel_takes_a_learned_bound_as_a_number_and_leaves_learning_to_the_loop():
    layer, x = NoisyLSTM(3, 5), torch.randn(6, 4, 3)
    hardware = Hardware(Gaussian(0.1), adc=LEARNED(5, 0.7))
    learn_bounds(layer, hardware)
    with torch.no_grad():
        next(iter(bounds_of(layer).values())).fill_(-0.5)
    outputs = []
    with torch.no_grad(), layer.under(hardware, Realisation(draw=0)):
        for name in ("fused", "reference"):
            with use_implementation(name):
                outputs.append(layer(x)[0])
    static = Hardware(Gaussian(0.1), adc=UniformConverter(5, 0.7 * math.exp(-0.5), "absolute"))
    with torch.no_grad(), layer.under(static, Realisation(draw=0)):
        outputs.append(layer(x)[0])
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs[0], outputs[2], rtol=1e-4, atol=1e-5)
    case = next(its for its in CASES if its.name == "an ADC that is learned")
    use = implementation_of("lstm", case, torch.device("cpu"))
    assert (use.name, use.why) == (
        "reference",
        "no fused recurrence for a converter whose bound is being learned",
    )
    with (
        layer.under(hardware),
        use_implementation("fused"),
        pytest.raises(RuntimeError, match="being learned"),
    ):
        layer(x)


def test_networks_of_a_population_learn_their_own():
    hardware = Hardware(
        Gaussian(0.2), dac=LEARNED(5, 0.5), adc=LEARNED(5, 0.4), sites=("convolution",), tile=5
    )
    layers = [NoisyConv2d(2, 3, 3) for _ in range(2)]
    for k, layer in enumerate(layers):
        learn_bounds(layer, hardware)
        with torch.no_grad():
            for its in bounds_of(layer).values():
                its.fill_(0.3 * k)
    both, x = stack_networks(layers), torch.randn(4, 2, 8, 6)
    with both.under(hardware, [Realisation(k, draw=0) for k in (0, 1)]):
        both(x).square().sum().backward()
    for k, layer in enumerate(layers):
        with layer.under(hardware, Realisation(k, draw=0)):
            layer(x).square().sum().backward()
        for name, its in bounds_of(layer).items():
            torch.testing.assert_close(its.grad, both.get_parameter(name).grad[k], rtol=1e-4, atol=1e-4)
            assert its.grad.abs() > 0
    assert [its.factor for its in learned_bounds(both, 1)] == pytest.approx([1.3498588] * 2)
    assert unstack_network(both, 1).state_dict().keys() == layers[1].state_dict().keys()


def noise(**more):
    adc = {"bits": 4, "bound": 1.0, "scale": "range", "learned": True, **more}
    return TrainingNoise(hardware={"adc": adc, "output": {"sigma": 0.0}})


def test_weights_without_bounds_are_a_network_that_has_learned_none():
    small = NetworkSettings(units=4, layers=1)
    plain, bounded = (KeywordSpotter(["a", "b"], 3, small, its) for its in (TrainingNoise(), noise()))
    for its in bounds_of(bounded).values():
        its.data.fill_(1.0)
    bounded.load_state_dict(plain.state_dict())
    assert {its.factor for its in learned_bounds(bounded)} == {1.0}
    for its in bounds_of(bounded).values():
        its.data.fill_(1.0)
    take_weights(bounded.network, plain.network.state_dict())
    torch.testing.assert_close(bounded.network.classifier.weight, plain.network.classifier.weight)
    assert len(learned_bounds(bounded)) == 2
    with pytest.raises(RuntimeError, match=r"Unexpected key.*log_bound"):
        plain.load_state_dict(bounded.state_dict())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"learned": 1}, "learned is 1: give true or false"),
        ({"learned": False, "decay": 0.1}, "decay is 0.1, but"),
        ({"decay": -1.0}, "decay is -1"),
    ],
)
def test_wrong_settings_are_named(settings, said):
    with pytest.raises(UserError, match=said):
        noise(**settings)


def test_files_of_before_still_describe_their_hardware():
    hardware = Hardware(adc=UniformConverter(6, 2.0))
    assert hardware.as_settings()["adc"]["init_args"] == {"bits": 6, "bound": 2.0, "scale": "range"}
    learned = Hardware(adc=UniformConverter(6, 2.0, learned=True, decay=0.5))
    assert Hardware.from_settings(learned.as_settings()) == learned
    assert hardware.strengths() == learned.strengths() == ["adc.bits", "adc.bound"]


FIT = ["fit", "--data_class", "DigitsData", "--data.batch_size", "200", "--trainer.accelerator", "cpu"]
FIT += ["--model.network.units", "6", "--model.network.layers", "1", "--wandb", "disabled"]
FIT += ["--test_after_fit", "false", "--name", "learned", "--trainer.limit_train_batches", "2"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_commands_train_keep_resume_and_evaluate_them(tmp_path, monkeypatch, restored_process):
    monkeypatch.chdir(tmp_path)
    hardware = tmp_path / "learned.yaml"
    hardware.write_text(
        "adc: {bits: 4, bound: 0.5, scale: range, learned: true, decay: 0.01}\noutput: {sigma: 0.1}\n"
    )
    fit = [*FIT, "--model.noise.hardware", str(hardware), "--annealing.sigma", "0.1"]
    main([*fit, "--trainer.max_epochs", "1"])
    checkpoint = next(tmp_path.rglob("last.ckpt"))
    first = KeywordSpotter.from_checkpoint(checkpoint)
    factors = {its.name: its.factor for its in learned_bounds(first)}
    assert len(factors) == 2
    assert all(0.9 < its < 1.1 and its != 1 for its in factors.values())
    main(
        [
            "evaluate",
            str(checkpoint),
            "--hardware",
            str(hardware),
            "--only",
            "curve",
            "--strengths",
            "0,0.1",
            "--draws",
            "1",
        ]
    )
    (folder,) = tmp_path.rglob("evaluation-learned")
    summary = pd.read_csv(folder / "summary.csv").set_index("quantity")["value"]
    assert {name.split("@")[1] for name in summary.index if name.startswith("learned_bound@")} == {
        "recurrent.adc_l0_gates",
        "classifier.adc_l0_output",
    }
    assert summary["learned_bound@recurrent.adc_l0_gates"] == pytest.approx(factors["adc_l0_gates"])
    main([*fit, "--trainer.max_epochs", "2", "--ckpt_path", str(checkpoint)])
    resumed = max(tmp_path.rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)
    later = {its.name: its.factor for its in learned_bounds(KeywordSpotter.from_checkpoint(resumed))}
    assert later.keys() == factors.keys()
    assert later != factors
