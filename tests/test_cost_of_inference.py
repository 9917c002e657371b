"""What an inference takes, counted by hand."""

import math

import pytest
import torch

from asr_dni.errors import UserError
from asr_dni.evaluation.questions.cost_of_inference import cost_table, products_of, read_energy
from asr_dni.model.convolutions import ConvolutionBlock, ConvolutionSettings
from asr_dni.model.network import KeywordNetwork, NetworkSettings
from asr_dni.noise import Gaussian, Hardware

T, F, H, C = 10, 6, 4, 3
CONSTANTS = "\n".join(
    f"{name}: {{joules: {joules}, source: a test}}"
    for name, joules in (("dac", 1.0), ("adc", 10.0), ("cell", 100.0), ("digital", 1000.0))
)


def costs(hardware, energy=None, **settings):
    network = KeywordNetwork(NetworkSettings(units=H, layers=1, **settings), F, C).eval()
    products = products_of(network, torch.randn(1, T, F), hardware)
    return cost_table(products, hardware, energy).set_index("part")


def test_an_lstm_on_one_array(tmp_path):
    (tmp_path / "energy.yaml").write_text(CONSTANTS)
    table = costs(Hardware(output=Gaussian(1.0), tile=4), read_energy(tmp_path / "energy.yaml"))
    gates = table.loc["recurrent.l0 input+recurrent"]
    assert gates["multiplications"] == T * 4 * H * (F + H)
    assert gates["cells"] == 2 * 4 * H * (F + H)
    assert gates["dac_conversions"] == T * (F + H)
    assert gates["adc_conversions"] == T * 4 * H * 3  # ten columns on arrays of four
    inside = table.loc["recurrent.l0 elementwise (digital)"]
    assert inside["multiplications"] == T * 3 * H
    assert inside["cells"] == inside["adc_conversions"] == 0
    classifier = table.loc["classifier output"]
    assert classifier["multiplications"] == T * H * C
    expected = (
        gates["dac_conversions"]
        + 10 * gates["adc_conversions"]
        + 100 * gates["multiplications"]
        + 1000 * inside["multiplications"]
        + classifier["dac_conversions"]
        + 10 * classifier["adc_conversions"]
        + 100 * classifier["multiplications"]
    )
    assert table.loc["all", "energy_joules"] == pytest.approx(expected)


def test_separate_arrays_and_digital_convolutions():
    convolutions = ConvolutionSettings([ConvolutionBlock(channels=2, stride=[2, 1])])
    hardware = Hardware(output=Gaussian(1.0), arrays="separate")
    table = costs(hardware, convolutions=convolutions)
    assert math.isnan(table.loc["all", "energy_joules"])
    (convolution,) = [part for part in table.index if "convolution" in part]
    assert convolution.endswith("(digital)")
    assert table.loc[convolution, "multiplications"] == (T // 2) * F * 2 * 9
    assert table.loc["recurrent.l0 recurrent", "dac_conversions"] == (T // 2) * H
    assert table.loc["recurrent.l0 input", "cells"] == 2 * 4 * H * (2 * F)
    analog = costs(Hardware(output=Gaussian(1.0), sites=("convolution",)), convolutions=convolutions)
    (convolution,) = [part for part in analog.index if "convolution" in part]
    assert analog.loc[convolution, "cells"] == 2 * 2 * 9
    assert analog.loc[convolution, "adc_conversions"] == (T // 2) * F * 2
    assert analog.loc[convolution, "dac_conversions"] == (T // 2) * F * 9
    assert analog.loc["all", "cells"] == 2 * 2 * 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("dac: {joules: 1.0", "dac: {joules: -1.0"), "dac.joules is -1.0: give a number of at least 0"),
        (("source: a test", "source: ''"), "dac.source is empty"),
        (("adc: {joules: 10.0, source: a test}", ""), "adc is None: give joules and source"),
        (("cell:", "cells:"), "has no 'cells': give dac, adc, cell, digital"),
    ],
)
def test_constants_that_can_not_be_used(change, message, tmp_path):
    path = tmp_path / "energy.yaml"
    path.write_text(CONSTANTS.replace(*change))
    with pytest.raises(UserError, match=message):
        read_energy(path)
