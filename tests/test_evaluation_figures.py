"""Figures of an evaluation show the numbers of its tables."""

import numpy as np
import pandas as pd
import pytest
import torch

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import NoiseCurve
from asr_dni.evaluation.figures.noise_curves import noise_curves_figure
from asr_dni.evaluation.figures.outcomes import (
    calibration_figure,
    chips_figure,
    classes_figure,
    clips_figure,
    confusion_figure,
    voting_figure,
)
from asr_dni.evaluation.measurement.outcomes import Outcomes
from asr_dni.evaluation.questions.calibration import calibration_table, reliability_table
from asr_dni.evaluation.questions.classes import classes_table
from asr_dni.evaluation.questions.clips import clips_table
from asr_dni.evaluation.questions.voting import voting_table
from asr_dni.plotting import Bars, HeatMap, Line
from asr_dni.plotting.with_matplotlib import render

NAMES = ["go", "no", "up"]
SETTINGS = {"scale": "absolute", "label_names": NAMES, "hardware_name": "gaussian", "draws": 4, "bins": 15}


@pytest.fixture(scope="module")
def outcomes():
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(30) % 3
    clean = 3.0 * torch.nn.functional.one_hot(labels, 3)
    return [
        Outcomes(
            level,
            clean + level * torch.randn(1, 4 if level else 1, 30, 3, generator=generator),
            labels,
            torch.arange(30),
        )
        for level in (0.0, 2.0, 4.0)
    ]


def test_votes(outcomes):
    table = voting_table(outcomes, [1, 4])
    figure = voting_figure(table, SETTINGS)
    line = figure.panels[0].elements[2]
    rows = table[(table["strength"] == 4) & (table["rule"] == "mean")]
    assert line.label == "4"
    assert line.y == pytest.approx(tuple(100 * rows["accuracy"]))
    assert line.low == pytest.approx(tuple(100 * rows["low"]))
    render(figure)


def test_classes_and_what_they_are_taken_for(outcomes):
    table = classes_table(outcomes, NAMES)
    lines = classes_figure(table, SETTINGS).panels[0].elements
    assert [line.label for line in lines] == NAMES
    right = (outcomes[2].predicted == outcomes[2].labels)[..., outcomes[2].labels == 1].double().mean().item()
    assert lines[1].y[2] == pytest.approx(100 * right)
    figure = confusion_figure(table, SETTINGS)
    (last,) = [element for element in figure.panels[1].elements if isinstance(element, HeatMap)]
    assert np.sum(last.values, axis=1) == pytest.approx(100)
    assert last.values[1][1] == pytest.approx(100 * right)
    render(figure)
    with pytest.raises(UserError, match=r"sigma 3 was not measured: give one of 0, 2, 4"):
        confusion_figure(table, SETTINGS, [3.0])


def test_calibration_and_clips(outcomes):
    table = calibration_table(outcomes)
    figure = calibration_figure(table, reliability_table(outcomes), SETTINGS)
    assert figure.panels[0].elements[0].y == pytest.approx(tuple(100 * table["ece"]))
    assert "chips" not in figure.note
    many = calibration_figure(table, None, {**SETTINGS, "chips": 3})
    assert "mean over chips, draws pooled" in many.note
    render(figure)
    figure = clips_figure(clips_table(outcomes, NAMES, [f"{n}.wav" for n in range(30)]), SETTINGS)
    (bars,) = [element for element in figure.panels[0].elements if isinstance(element, Bars)]
    assert bars.y[0] == 0
    assert 0 < sum(bars.y) < 100
    render(figure)


def test_chips_over_the_time_since_programming():
    times = [1.0, 3600.0, 86400.0]
    rows = [
        {
            "strength": time,
            "chip": chip,
            "draw": 0,
            "snr_db": float("nan"),
            "accuracy": 0.9 - 0.1 * place - 0.05 * (chip == 1),
            "loss": 0.1,
            "n_clips": 100,
        }
        for place, time in enumerate(times)
        for chip in range(3)
    ]
    curve = NoiseCurve(pd.DataFrame(rows), {"strength": {"path": "weight.time", "unit": "s"}})
    figure = chips_figure(curve)
    axis, lines = figure.panels[0].x, [its for its in figure.panels[0].elements if isinstance(its, Line)]
    assert axis.scale == "log"
    assert [tick.text for tick in axis.ticks] == ["1 s", "1 min", "1 hour", "1 day"]
    assert lines[-2].label == "the worst, chip 1"
    assert lines[-2].y == pytest.approx((85, 75, 65))
    assert lines[-1].y[0] == pytest.approx(100 * (0.9 - 0.05 / 3))
    assert noise_curves_figure({"a": curve}).panels[0].x.scale == "log"
    render(figure)
    one = NoiseCurve(curve.frame[curve.frame["chip"] == 0], curve.settings)
    with pytest.raises(UserError, match="of one chip"):
        chips_figure(one)
