import math

import numpy as np
import pandas as pd
import pytest

from asr_dni.evaluation.curves.curve import NoiseCurve
from asr_dni.evaluation.curves.tolerance import format_level, last_tolerable, tolerated_strength
from asr_dni.evaluation.questions.summary import summary_table, worst_chip
from asr_dni.noise import Strength

DAY = 86400.0


def curve(strength, accuracies, settings=None):
    """Of chips: accuracies by strength, a number for each chip."""
    rows = [
        (level, chip, 0, math.nan, accuracy, 0.1, 1000)
        for level, chips in accuracies.items()
        for chip, accuracy in enumerate(chips)
    ]
    columns = ["strength", "chip", "draw", "snr_db", "accuracy", "loss", "n_clips"]
    return NoiseCurve(
        pd.DataFrame(rows, columns=columns), {"strength": strength.as_dict(), **(settings or {})}
    )


def test_the_tolerable_strength_lies_between_levels():
    sigma = curve(Strength("weight.sigma"), {0.0: [0.9], 0.1: [0.9], 0.2: [0.8]})
    assert tolerated_strength(sigma, 0.9, 0.05).value == pytest.approx(0.15)
    assert tolerated_strength(sigma, 0.9, 0.05, whole=True).value == 0.1
    assert tolerated_strength(sigma, 0.9, 0.1).value == 0.2
    assert math.isinf(tolerated_strength(sigma, 0.9, 0.11).value)
    assert math.isnan(tolerated_strength(sigma, 0.99, 0.05).value)
    assert "up to 0.15 is tolerable: within 5 points of clean" in tolerated_strength(sigma, 0.9, 0.05).text


def test_times_are_taken_by_their_logarithm_and_told_as_people_say_them():
    time = Strength("weight.time", "s")
    aged = curve(time, {1.0: [0.9], 10000.0: [0.7]})
    found = tolerated_strength(aged, 0.9, 0.05)
    assert found.value == pytest.approx(10)
    assert "up to 10 s is tolerable" in found.text
    area = summary_table(aged, 0.9, 0.05).set_index("quantity").loc["area", "value"]
    assert area == pytest.approx(0.8)
    assert format_level(time, 36 * 3600) == "1.5 days"
    assert format_level(time, DAY) == "1 day"
    assert format_level(time, 90) == "1.5 min"
    assert format_level(Strength("adc.bits"), 8) == "8"


def test_of_bits_the_fewest_are_told():
    bits = curve(Strength("adc.bits"), {3.0: [0.5], 4.0: [0.89], 5.0: [0.8], 6.0: [0.9], 8.0: [0.9]})
    found = tolerated_strength(bits, 0.9, 0.02, whole=True)
    assert found.value == 6  # at 4 it is good by chance: with 5 it is not
    assert found.text == "6 ADC bits are enough: within 2 points of clean"
    assert math.isnan(tolerated_strength(bits, 0.95, 0.02).value)
    assert tolerated_strength(bits, 0.9, 0.5).text.startswith("at most 3 ADC bits are enough")


def test_the_worst_chip_is_that_of_all_levels():
    chips = curve(Strength("weight.sigma"), {0.0: [0.9], 0.1: [0.9, 0.8], 0.2: [0.7, 0.75]})
    assert worst_chip(chips) == 1
    row = summary_table(chips, 0.9, 0.05).set_index("quantity").loc["worst_chip_accuracy"]
    assert row["value"] == 0.75
    assert worst_chip(curve(Strength("weight.sigma"), {0.0: [0.9], 0.1: [0.8]})) is None


def test_accuracy_that_comes_back_does_not_count():
    levels, accuracy = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.9, 0.8, 0.9, 0.5])
    assert last_tolerable(levels, accuracy, 0.85) == pytest.approx(0.5)
