"""The axis of a curve."""

import pytest

from asr_dni.errors import UserError
from asr_dni.noise import Strength


@pytest.mark.parametrize("path", ["output.sigma", "weight.sigma", "adc.bits", "output.1.sigma", "tile"])
@pytest.mark.parametrize("unit", ["", "s", "multiples of the largest output"])
def test_a_strength_comes_back_from_its_text_and_from_its_values(path, unit):
    strength = Strength(path, unit)
    assert Strength.parse(str(strength)) == strength
    assert Strength.from_dict(strength.as_dict()) == strength
    assert len({strength, Strength.parse(str(strength))}) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "output.",
        ".sigma",
        "output..sigma",
        "Output.sigma",
        "output.sigma.",
        "a b",
        "1.sigma",
        "adc.bits [",
    ],
)
def test_a_malformed_path_gives_one_line_that_names_it(text):
    with pytest.raises(UserError) as failed:
        Strength.parse(text)
    assert repr(text) in str(failed.value)
    assert "adc.bits" in str(failed.value)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize("values", [{}, {"unit": "s"}, {"path": "adc.bits", "units": ""}, [], {"path": 3}])
def test_values_that_are_no_strength_are_refused(values):
    with pytest.raises(UserError, match="strength"):
        Strength.from_dict(values)


def test_units_and_names():
    assert Strength() == Strength.sigma("absolute")
    assert Strength.sigma("signal") != Strength.sigma("range") != Strength()
    assert "RMS" in Strength.sigma("signal").label
    for path in ("output.sigma", "weight.sigma", "adc.bits", "output.1.sigma"):
        assert Strength(path).name.isidentifier()
    assert Strength("weight.sigma").label == "weight σ"
    assert Strength("drift.time", "s").label == "drift time (s)"
    with pytest.raises(UserError, match="unit"):
        Strength("adc.bits", "[bits]")
