import math

import pytest
from test_figures import make_curve

from asr_dni.evaluation.curves.description import common_snr, describe_settings, format_snr


def test_common_snr_of_curves_with_other_levels():
    summaries = {"a": make_curve().summary(), "b": make_curve((0.9, 0.8, 0.7, 0.6)).summary()}
    found = common_snr(summaries)
    assert list(found) == [0, 1, 2, 3]
    assert found[3] == pytest.approx(-9.5424, abs=1e-4)


def test_settings_line_says_how_it_was_measured():
    curve = make_curve(
        protocol="8 words",
        split="test",
        cell="lstm",
        layers=2,
        units=128,
        sites=["input", "output"],
        arrays="joint",
    )
    line = describe_settings({"a": curve.summary()})
    for part in (
        "8 words",
        "845 clips (test split)",
        "LSTM, 2 × 128 units",
        "noise at input, output (joint arrays)",
        "scale signal",
    ):
        assert part in line
    assert "3 draws" in line
    assert "1 seed" in line
    other = make_curve(protocol="12 words").summary()
    assert "words" not in describe_settings({"a": curve.summary(), "b": other})


@pytest.mark.parametrize(
    ("snr", "text"), [(math.inf, "∞"), (math.nan, "–"), (-0.01, "0.0"), (-6.02, "−6.0"), (12.04, "12.0")]
)
def test_format_snr(snr, text):
    assert format_snr(snr) == text
