import math

import numpy as np
import pandas as pd
import pytest
import yaml

from asr_dni.cli.main import main
from asr_dni.errors import UserError
from asr_dni.evaluation.figures.training import (
    epochs_of,
    learning_curves_figure,
    schedules_figure,
    watched_levels,
)
from asr_dni.noise import Strength
from asr_dni.plotting import with_matplotlib, with_plotly

NAN = math.nan


def metrics_of(rows):
    return pd.DataFrame(rows)


METRICS = metrics_of(
    [
        {"epoch": 0, "step": 4, "sigma_train": 0.25, "learning_rate": 0.1},
        {"epoch": 0, "step": 9, "val/loss": 1.5, "val/accuracy": 0.5, "val/accuracy@2.0": 0.3},
        {"epoch": 0, "step": 9, "train/loss": 2.0, "train/accuracy": 0.4, "sigma_train": 0.5},
        {"epoch": 1, "step": 14, "sigma_train": 0.75, "learning_rate": 0.05},
        {"epoch": 1, "step": 19, "val/loss": 1.0, "val/accuracy": 0.75, "val/accuracy@2.0": 0.6},
        {"epoch": 1, "step": 19, "train/loss": 1.0, "train/accuracy": 0.7, "sigma_train": 1.0},
        {"epoch": 2, "step": 24, "sigma_train": 1.0, "learning_rate": 0.025},
    ]
)


def lines_of(figure, panel=0):
    return {line.label: line for line in figure.panels[panel].elements}


def test_epochs_have_fractions_also_of_one_that_goes_on():
    assert epochs_of(METRICS) == pytest.approx([0.5, 1, 1, 1.5, 2, 2, 2.5])
    uneven = METRICS.assign(step=[4, 9, 9, 11, 13, 13, 15])
    assert epochs_of(uneven) == pytest.approx([0.5, 1, 1, 1.5, 2, 2, 2.5])
    assert np.isnan(epochs_of(METRICS.iloc[:2])).all()


def test_learning_curves_show_what_was_logged_where_it_was():
    figure = learning_curves_figure(METRICS, "a run", "its settings")
    assert [panel.title for panel in figure.panels] == ["loss", "accuracy"]
    assert figure.panels[0].x.label == "epochs"
    loss, accuracy = lines_of(figure, 0), lines_of(figure, 1)
    assert (loss["training"].x, loss["training"].y) == ((1, 2), (2, 1))
    assert loss["validation, clean"].y == (1.5, 1.0)
    assert list(accuracy) == ["training", "validation, clean", "validation, σ_infer = 2"]
    assert accuracy["validation, σ_infer = 2"].y == pytest.approx((30, 60))
    assert figure.note.startswith("its settings; ")
    for renderer in (with_matplotlib, with_plotly):
        renderer.render(figure)


def test_watched_levels_of_any_strength_in_their_order():
    names = (
        "val/accuracy@10.0",
        "val/accuracy@2.0",
        "val/accuracy@adc_bits=6.0",
        "val/loss@2.0",
        "test/accuracy@1.0",
    )
    frame = metrics_of([{"epoch": 0, "step": 0} | dict.fromkeys(names, 0.5)])
    assert watched_levels(frame) == {
        "val/accuracy@2.0": ("", 2),
        "val/accuracy@10.0": ("", 10),
        "val/accuracy@adc_bits=6.0": ("adc_bits", 6),
    }
    labels = list(lines_of(learning_curves_figure(frame), 1))
    assert labels == ["validation, σ_infer = 2", "validation, σ_infer = 10", "validation, adc bits = 6"]


def test_a_run_whose_first_epoch_goes_on_is_shown_over_steps():
    figure = schedules_figure(METRICS.iloc[:2])
    assert figure.panels[0].x.label == "steps"
    assert lines_of(figure)[""].x == (5,)
    assert lines_of(figure)[""].style.marker == "circle"  # a line of one point would not be seen


def test_schedules_of_noise_and_learning_rate():
    figure = schedules_figure(METRICS)
    noise, rate = (lines_of(figure, place)[""] for place in (0, 1))
    assert (noise.x, noise.y) == ((0.5, 1, 1.5, 2, 2.5), (0.25, 0.5, 0.75, 1.0, 1.0))
    assert (rate.x, rate.y) == ((0.5, 1.5, 2.5), (0.1, 0.05, 0.025))
    assert figure.title == "Noise and learning rate over the training"
    assert schedules_figure(METRICS.drop(columns="learning_rate")).title == "Noise over the training"
    assert figure.panels[0].y.text == "training noise σ_train (absolute: pre-activation units)"
    of_bits = schedules_figure(METRICS, {"train_strength": Strength("adc.bits").as_dict()})
    assert of_bits.panels[0].y.label == "training noise ADC bits"
    lightnings = METRICS.rename(columns={"learning_rate": "lr-AdamW"})
    assert lines_of(schedules_figure(lightnings), 1)[""] == rate


def test_nothing_logged_is_said():
    empty = metrics_of([{"epoch": 0, "step": 3}])
    with pytest.raises(UserError, match="no loss and no accuracy was logged yet"):
        learning_curves_figure(empty)
    with pytest.raises(UserError, match="neither the training's noise nor its learning rate"):
        schedules_figure(empty)
    with pytest.raises(UserError, match="no column step"):
        learning_curves_figure(metrics_of([{"epoch": 0}]))


def test_what_a_training_logs_is_what_it_was_steered_by(tmp_path):
    arguments = ["fit", "--config", "digits_lstm_dni", "--trainer.max_epochs", "2"]
    arguments += [
        "--runs",
        str(tmp_path),
        "--name",
        "run",
        "--wandb",
        "disabled",
        "--test_after_fit",
        "false",
    ]
    arguments += ["--model.network.units", "4", "--trainer.log_every_n_steps", "1"]
    main(arguments)
    folder = tmp_path / "run" / "version_0"
    metrics = pd.read_csv(folder / "metrics.csv")
    settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["model"]
    rates = metrics[["step", "learning_rate"]].dropna()
    steps, highest = int(metrics["step"].max()) + 1, settings["optimizer"]["init_args"]["lr"]
    assert (settings["schedule"], len(rates)) == ("cosine", steps)
    progress, warm_up = rates["step"] / steps, settings["warm_up"]
    cosine = (1 + np.cos(np.pi * (progress - warm_up) / (1 - warm_up))) / 2
    rising = (rates["step"] + 0.5) / (warm_up * steps) if warm_up else cosine
    assert rates["learning_rate"].tolist() == pytest.approx(
        (highest * np.where(progress < warm_up, rising, cosine)).tolist(), rel=1e-5
    )
    figure = schedules_figure(metrics)
    assert [panel.title for panel in figure.panels] == ["noise", "learning rate"]
    assert learning_curves_figure(metrics).panels[0].x.label == "epochs"
