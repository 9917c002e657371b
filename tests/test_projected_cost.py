import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

pytestmark = pytest.mark.filterwarnings("ignore")

SCRIPT = Path(__file__).parents[1] / "scripts" / "projected_cost.py"
STUDY = {
    "name": "tiny",
    "cells": ["rnn", "lstm"],
    "units": [4],
    "sigma_train": [0.0, 1.0],
    "noise_models": [{"scale": "absolute"}, {"scale": "signal"}],
    "seeds": 3,
    "epochs": 50,
    "evaluation": {"sigma_infer": [0.0, 1.0, 2.0], "draws": 7},
    "data": {"source": {"class_path": "asr_dni.data.Folder", "init_args": {"path": "data/none"}}},
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("projected_cost", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for its dataclasses
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def written(script, tmp_path_factory):
    """The page of a tiny study, and the rates that were measured for it."""
    folder = tmp_path_factory.mktemp("cost")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(STUDY))
    (folder / "data.yaml").write_text(
        yaml.safe_dump({"data": {"batch_size": 8, "front_end": {"n_mels": 10, "n_mfcc": 6, "hop_ms": 30.0}}})
    )
    measured, measure = {}, script.measure

    def noting(study, population, *others):
        rate = measured[population.members[0].cell] = measure(study, population, *others)
        return rate

    script.measure = noting
    threads = torch.get_num_threads()
    try:
        options = ["--study", folder / "tiny.yaml", "--data", folder / "data.yaml", "--seconds", "0.01"]
        script.main([*map(str, options), "--output", str(folder / "page.md")])
    finally:
        script.measure = measure
        torch.set_num_threads(threads)
    return (folder / "page.md").read_text(), measured


def test_the_clips_are_those_of_the_data_set(script):
    assert script.N_TRAIN + script.N_VALIDATION + script.N_TEST == 105_829


def test_the_page_says_what_the_study_is(written):
    text, measured = written
    assert set(measured) == {"rnn", "lstm"}
    assert "the study `tiny`" in text
    assert "24 members" in " ".join(text.split())  # 2 cells, 2 kinds of noise, 2 sigmas, 3 seeds
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 120


def test_the_arithmetic_is_right(written):
    text, measured = written
    hours = {"rnn": 0.0, "lstm": 0.0}
    for cell, rate in measured.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| {cell.upper()} 4 | 12 |"))
        numbers = [float(n.replace(",", "")) for n in re.findall(r"[\d,]+\.?\d*", row)]
        _, members, clips, _, training, evaluated, _, evaluation, features, total = numbers
        assert members == 12
        assert clips == round(12 * 84_843 * 50 / 1e6)
        assert training == pytest.approx(12 * 84_843 * 50 * rate.training / 3600, abs=0.051)
        passes = 12 * (1 + 7 + 7)
        assert evaluated == round(passes * 11_005 / 1e6)
        assert evaluation == pytest.approx(passes * 11_005 * rate.evaluation / 3600, abs=0.051)
        assert total == pytest.approx(training + evaluation + features, abs=0.21)
        hours[cell] = total
    total = float(re.search(r"\| all \| 24 \|.*\*\*([\d,.]+) h\*\*", text).group(1).replace(",", ""))
    assert total == pytest.approx(sum(hours.values()), abs=0.11)


def test_only_what_was_measured_here_is_called_measured(written):
    rows = [line for line in written[0].splitlines() if "| measured |" in line or "| projection |" in line]
    assert sum("| measured |" in row for row in rows) == 1
    assert all(
        "| projection |" in row for row in rows if "H100" in row or "A100" in row or "such cores" in row
    )


def test_durations(script):
    assert [script.duration(s) for s in (90, 5400, 20 * 86400)] == ["2 min", "1.5 h", "20 days"]
