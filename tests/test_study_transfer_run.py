"""A study of training by inference hardware, run: what is evaluated on what, and what a longer list costs."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_study import start, tiny

from asr_dni.cli.main import main
from asr_dni.study.findings import find_in
from asr_dni.study.folder import StudyFolder
from asr_dni.study.pool import InProcess

MODELS = [
    {"hardware": "none"},
    {"hardware": "noisy_weights", "strength": "weight.sigma", "sigma_train": [0.1]},
    {"hardware": "noisy_weights", "strength": "weight.sigma", "sigma_train": [0.1], "drawn": "batch"},
]
ON = [
    {"hardware": "noisy_weights", "strengths": [0.0, 0.2], "chips": 3},
    {"hardware": "gaussian", "strengths": [0.0, 1.0], "draws": 2},
]
LATER = {"hardware": "noisy_weights", "strength": "adc.bits", "strengths": [3.0], "chips": 2}


def run(path: Path, folder: Path, hardwares: list[dict]) -> StudyFolder:
    study = tiny(
        path,
        noise_models=MODELS,
        seeds=1,
        epochs=1,
        keep_checkpoints=True,
        evaluation={"hardwares": hardwares, "draws": 1},
    )
    began = start(study, folder)
    began.run(InProcess(study, began.folder, "cpu"))
    return began.folder


def results(folder: StudyFolder) -> dict:
    frame = folder.ledger.frame().astype({"configuration": str})
    names = ["training", "hardware", "axis", "strength", "chip", "draw"]
    return frame.set_index(names)["correct"].to_dict()


def test_hardware_that_is_added_is_evaluated_on_the_networks_that_are_there(tmp_path):
    folder = run(tmp_path, tmp_path / "grown", ON)
    frame = folder.ledger.frame()
    assert frame.groupby("training")["member"].nunique().tolist() == [2, 2, 2]
    assert sorted(frame.groupby("training")["drawn"].first()) == ["batch", "no", "no"]
    rows = frame.groupby(["training", "axis", "strength"]).size().groupby(["axis", "strength"]).unique()
    assert {key: list(value) for key, value in rows.items()} == {
        ("output.sigma", 0.0): [1],
        ("output.sigma", 1.0): [2],
        ("weight.sigma", 0.0): [1],  # converters alone: all chips and draws are the same
        ("weight.sigma", 0.2): [3],
    }
    kept = {path: path.stat().st_mtime_ns for path in (folder.path / "checkpoints").iterdir()}
    assert len(kept) == 3
    run(tmp_path, tmp_path / "grown", [*ON, LATER])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # a training would have written them anew
    grown = results(folder)
    assert grown == results(run(tmp_path, tmp_path / "at_once", [*ON, LATER]))
    assert len(grown) == len(frame) + 3 * 2
    seconds = folder.ledger.frame().groupby("training")["train_seconds"].nunique()
    assert seconds.tolist() == [1, 1, 1]
    # The level that is shown is a setting of the report: nothing is missing after it was changed.
    again = [{**ON[0], "at": 0.0}, *ON[1:], LATER]
    run(tmp_path, tmp_path / "grown", again)
    (transfer,) = find_in(folder.ledger).transfers
    assert [column.label for column in transfer.inferences if column.name == "noisy_weights"] == [
        "noisy_weights at weight σ 0",
        "noisy_weights at ADC bits 3",
    ]


@pytest.mark.slow
def test_the_quick_study_of_the_project_runs_and_reports(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["study", "run", "transfer_quick", "--workers", "0", "--epochs", "3", "--output", "study"])
    said = capsys.readouterr().out
    assert "Is training on the hardware itself better" in said
    report = tmp_path / "study" / "report"
    figures = {path.stem for path in (report / "figures").glob("*.png")}
    assert figures == {"transfer", "transfer_difference", "transfer_levels", "transfer_curves"}
    assert "Accuracy by training and inference hardware" in (report / "index.html").read_text()
    folder = StudyFolder(tmp_path / "study")
    (transfer,) = find_in(folder.ledger).transfers
    assert transfer.shown.shape == (5, 4, 3)
    assert np.isfinite(transfer.shown).all()
    told = json.loads(folder.ledger.frame()["configuration"].iloc[0])
    assert told["evaluation"]["draws"] == 2
