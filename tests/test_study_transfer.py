"""Training by inference hardware: what a ledger's results say of it, against numbers computed otherwise."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from simulated_study import member_rows, simulate, train_hardware

from asr_dni.dashboard.studies import Cell, ShownStudy
from asr_dni.hardware_files import read_hardware
from asr_dni.noise import Strength
from asr_dni.study.figures import study_figures
from asr_dni.study.findings import find
from asr_dni.study.matrix import make_matrices
from asr_dni.study.stated_levels import inference_columns, stated_levels
from asr_dni.study.transfer import OF_INFERENCE, make_transfers

DAY = 86400.0
GAUSSIAN = {"scale": "absolute", "train_scale": "absolute", "arrays": "joint"}
TRAININGS = {
    "conventional": {"sigma_train": 0.0, "train_scale": "absolute"},
    "gaussian": {"sigma_train": 2.0, "train_scale": "absolute"},
    "pcm": {"sigma_train": 1.0, "train_scale": "", "train_hardware": train_hardware("pcm", "weight.sigma")},
}
TRAININGS["pcm drawn"] = TRAININGS["pcm"] | {"schedule": "ramp drawn", "drawn": "batch"}
GAUSSIAN_ELSEWHERE = '{"arrays": "joint", "scale": "absolute", "sites": ["input", "output", "recurrent"]}'
GAIN = {"conventional": 0.0, "gaussian": 0.02, "pcm": 0.06, "pcm drawn": 0.06}


def columns_of(hardware: str | dict, path: str) -> dict:
    made = read_hardware(hardware)
    return inference_columns(made, made.axis(Strength(path)))


ON = {
    "gaussian": (columns_of("gaussian", "output.sigma"), (0.0, 1.0, 2.0), 1),
    "pcm": (columns_of("pcm", "weight.time"), (1.0, DAY, 365 * DAY), 4),
    "pcm_compensated": (columns_of("pcm_compensated", "weight.time"), (1.0, DAY, 365 * DAY), 4),
}


def ledger(seeds: int = 5, spread: float = 0.004) -> pd.DataFrame:
    """Return results of all trainings on all hardware: a training's gain is larger the higher the level is."""
    rng, frames = np.random.default_rng(3), []
    for training, own in TRAININGS.items():
        for seed in range(seeds):
            for hardware, (inference, levels, chips) in ON.items():
                place = {level: index for index, level in enumerate(levels)}
                settings = {"schedule": "ramp"} | own | inference
                if training == "gaussian" and inference["hardware"]:
                    settings["train_hardware"] = GAUSSIAN_ELSEWHERE
                for chip in range(chips):
                    rows = member_rows(
                        rng,
                        lambda *given, place=place, gain=GAIN[training]: (
                            0.9 + place[given[-1]] * (gain - 0.1)
                        ),
                        seed=seed,
                        spread=spread,
                        sigmas_infer=levels,
                        draws=1,
                        chip=chip,
                        configuration={"training": training, "on": hardware},
                        **settings,
                    )
                    frames.append(rows)
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def frame():
    return ledger()


@pytest.fixture(scope="module")
def findings(frame):
    return find(frame)


def test_rows_are_trainings_and_columns_hardware(frame, findings):
    (transfer,) = findings.transfers
    assert [row.label for row in transfer.trainings] == [
        "conventional",
        "gaussian, σ 2",
        "pcm, weight σ 1",
        "pcm, weight σ 1, drawn",
    ]
    assert [(column.name, column.level) for column in transfer.inferences] == [
        ("gaussian", "σ 1"),
        ("pcm", "1 day"),
        ("pcm_compensated", "1 day"),
    ]
    at_a_day = frame[(frame["hardware"] == ON["pcm"][0]["hardware"]) & (frame["strength"] == DAY)]
    per_seed = at_a_day.groupby(["sigma_train", "train_scale", "drawn", "seed"])["accuracy"].mean()
    np.testing.assert_allclose(transfer.shown[0, 1], per_seed[0.0, "absolute", "no"])
    np.testing.assert_allclose(transfer.shown[3, 1], per_seed[1.0, "", "batch"])
    chips = at_a_day[at_a_day["drawn"] == "batch"].groupby("chip")["accuracy"].mean()
    np.testing.assert_allclose(transfer.over_chips[1][3, 1], chips)
    row = findings.tables["transfer"].query(
        "training == 'pcm, weight σ 1, drawn' and inference == 'pcm' and shown"
    )
    assert row["worst_chip"].item() == pytest.approx(chips.min())
    interval = stats.t.interval(0.95, 3, chips.mean(), stats.sem(chips))
    assert (row["low_over_chips"].item(), row["high_over_chips"].item()) == pytest.approx(interval)
    # Nothing is told twice: the pairs of conventional training and one level.
    assert findings.alone == ()
    assert {answer.question for answer in findings.answers} == {
        "transfer_best",
        "transfer_matched",
        "transfer_drawn",
    }


def test_the_level_that_is_shown_is_the_one_that_the_study_states(frame, tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text(
        "evaluation:\n  hardwares:\n  - {hardware: pcm, at: 31536000.0}\n  - {hardware: gaussian}\n"
    )
    stated = stated_levels(study)
    assert stated == {tuple(ON["pcm"][0][name] for name in OF_INFERENCE): 365 * DAY}
    (transfer,) = find(frame, stated=stated).transfers
    assert [column.level for column in transfer.inferences] == ["σ 1", "1 year", "1 day"]
    assert stated_levels(tmp_path / "none.yaml") == {}


def test_differences_are_paired_over_seeds_and_corrected_together(findings):
    (transfer,) = findings.transfers
    table = findings.tables["transfer_difference"]
    assert len(table) == 9
    for row in table.itertuples():
        training = [one.label for one in transfer.trainings].index(row.training)
        column = [one.name for one in transfer.inferences].index(row.inference)
        expected = stats.ttest_rel(transfer.shown[training, column], transfer.shown[0, column])
        assert row.p == pytest.approx(expected.pvalue)
        assert (row.low, row.high) == pytest.approx(tuple(expected.confidence_interval()))
    smallest = table.sort_values("p").iloc[0]
    assert smallest["p_holm"] == pytest.approx(9 * smallest["p"])


def test_what_training_on_the_hardware_gains_is_answered(findings):
    """Of what is built in: PCM gains 4 points over Gaussian noise, 6 over none; compensated, it is another hardware."""
    told = {answer.about: answer for answer in findings.answers if answer.question == "transfer_matched"}
    verdicts = {about.partition(": ")[2]: answer.verdict for about, answer in told.items()}
    assert verdicts == {
        "gaussian at σ 1, against conventional training": "supports",
        "pcm at 1 day, against conventional training": "supports",
        "pcm at 1 day, against Gaussian noise": "supports",
        "pcm_compensated at 1 day": "cannot tell",
    }
    table = findings.tables["transfer_matched"]
    against = table[(table["inference"] == "pcm at 1 day") & (table["against"] == "gaussian, σ 2")]
    assert list(against["training"]) == ["pcm, weight σ 1", "pcm, weight σ 1, drawn"]
    assert against["effect"].to_numpy() == pytest.approx(0.04, abs=0.01)
    (drawn,) = [answer for answer in findings.answers if answer.question == "transfer_drawn"]
    assert drawn.verdict != "supports"
    best = [answer.sentence for answer in findings.answers if answer.question == "transfer_best"]
    assert all(sentence.startswith("pcm, weight σ 1") for sentence in best)


def test_without_enough_seeds_nothing_is_tested():
    found = find(ledger(seeds=2))
    (transfer,) = found.transfers
    assert np.isnan(transfer.intervals(0).low).all()
    matched = [one for one in found.answers if one.question == "transfer_matched" and one.test]
    assert {one.verdict for one in matched} == {"cannot be tested"}


@pytest.mark.parametrize(
    ("trained", "inferred", "same"),
    [
        (("pcm", "weight.sigma"), ("pcm", "weight.time"), True),
        (("pcm_8bit", "weight.1.sigma"), ("pcm_8bit", "adc.bits"), True),
        (("noisy_weights", "weight.sigma"), ("noisy_weights", "weight.sigma"), True),
        (("pcm", "weight.sigma"), ("pcm_compensated", "weight.time"), False),
        (("pcm", "weight.sigma"), ("hermes", "weight.time"), False),
        (("pcm", "weight.sigma"), ("gaussian", "output.sigma"), False),
    ],
)
def test_a_training_is_on_the_same_hardware_whatever_both_levels(trained, inferred, same):
    rng = np.random.default_rng(0)
    levels = (3.0, 5.0)
    base = {"sigmas_infer": levels, "draws": 1} | columns_of(*inferred)
    rows = [
        member_rows(rng, lambda *_: 0.5, **base, configuration={"n": 0}),
        member_rows(
            rng,
            lambda *_: 0.5,
            **base,
            sigma_train=0.5,
            train_scale="",
            train_hardware=train_hardware(*trained),
            configuration={"n": 1},
        ),
        member_rows(
            rng,
            lambda *_: 0.5,
            **base,
            sigma_train=0.5,
            train_scale="",
            train_hardware=train_hardware("multiplicative", "output.sigma"),
            configuration={"n": 2},
        ),
    ]
    (transfer,) = make_transfers(make_matrices(pd.concat(rows, ignore_index=True)))
    (column,) = transfer.inferences
    assert {row.label.partition(",")[0]: column.is_of(row) for row in transfer.trainings} == {
        "conventional": False,
        "multiplicative": False,
        trained[0]: same,
    }


def test_a_matrix_of_gaussian_noise_alone_is_told_as_before():
    found = find(simulate(sigmas_train=(0.0, 1.0, 2.0), sigmas_infer=(0.0, 1.0)))
    assert found.transfers == ()
    assert found.alone == found.matrices
    assert not any(name.startswith("transfer") for name in study_figures(found))
    assert not any(answer.question.startswith("transfer") for answer in found.answers)


def test_a_click_opens_the_training_on_that_hardware(frame, findings):
    shown = ShownStudy(findings, study_figures(findings), frame)
    assert {"transfer", "transfer_difference", "transfer_levels", "transfer_curves"} == set(shown.figures)
    cell = shown.cell_at("transfer", {"curveNumber": 0, "x": 1, "y": 2})
    assert cell is not None
    key = shown.matrix(cell).key
    assert (key["train_hardware"], cell.sigma_train, cell.level) == (
        TRAININGS["pcm"]["train_hardware"],
        1.0,
        DAY,
    )
    assert (key["hardware"], key["schedule"]) == (ON["pcm"][0]["hardware"], "ramp")
    members = shown.members(cell)
    assert (len(members), set(members["chips"])) == (5, {4})
    levels = shown.cell_at("transfer_levels", {"curveNumber": 1, "x": 2, "y": 0})
    assert (levels.level, levels.sigma_train) == (365 * DAY, 0.0)
    difference = shown.cell_at("transfer_difference", {"curveNumber": 0, "x": 0, "y": 0})
    assert (difference.level, difference.sigma_train) == (1.0, 2.0)
    assert shown.cell_at("transfer_curves", {"curveNumber": 0, "x": 0, "y": 0}) is None
    assert Cell.parse(str(cell)) == cell


def test_the_figures_say_what_was_trained_and_evaluated_on_what(findings):
    figures = study_figures(findings)
    (panel,) = figures["transfer"].panels
    assert panel.x.categories == ("gaussian", "pcm", "pcm_compensated")
    assert [tick.text for tick in panel.x.opposite] == ["σ 1", "1 day", "1 day"]
    assert panel.y.categories[0] == "conventional"
    (heat,) = panel.elements
    (transfer,) = findings.transfers
    np.testing.assert_allclose(heat.values, 100 * transfer.shown.mean(axis=2))
    assert "4 chips: worst" in heat.hover[2][1]
    assert len(figures["transfer_levels"].panels) == len(figures["transfer_curves"].panels) == 3
