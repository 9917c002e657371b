"""Damaged and half-written runs are shown as such, with a line that says what, and hide nothing else."""

import os
import time

import numpy as np
import pytest
from test_catalogue import save_run
from test_figures import make_curve

from asr_dni.catalogue import Catalogue
from asr_dni.errors import UserError

RUBBISH = bytes(range(256)) * 8


@pytest.fixture
def runs(tmp_path):
    for seed in range(3):
        folder = save_run(tmp_path / f"seed_{seed}", 1.0, seed, (0.9 - 0.01 * seed, 0.8, 0.3))
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last.ckpt").write_bytes(b"PK\x03\x04....PK\x05\x06" + bytes(18))
    return tmp_path


def settle(folder):
    """Set the files' times back: an index holds what was not written just now."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - 100, time.time() - 100))


def damage(runs, file, contents):
    path = runs / "seed_1" / file
    path.parent.mkdir(exist_ok=True)
    if contents == "link":
        path.unlink()
        path.symlink_to("/etc/hostname")
    elif contents == "loop":
        path.unlink()
        path.symlink_to(path.name)
    elif contents == "folder":
        path.unlink()
        path.mkdir()
    elif isinstance(contents, int):
        path.write_bytes(path.read_bytes()[:contents])
    else:
        path.write_bytes(contents)


LATER = b'# noise_curve: {"version": 9, "rows": 1, "strength": {"path": "output.sigma", "unit": ""}}\n'
DAMAGES = [
    ("noise_curve.csv", 200, "is not a noise curve: "),
    ("noise_curve.csv", -1, "is not a noise curve: line 14, the last, is cut"),
    ("noise_curve.csv", b"", "is not a noise curve: "),
    ("noise_curve.csv", RUBBISH, "is not a noise curve: "),
    ("noise_curve.csv", LATER + b"strength\n1\n", "is of version 9 of the file"),
    ("noise_curve.csv", b"<html>404</html>\n", "is not a noise curve: "),
    ("noise_curve.csv", "link", "is a link that leads out of the folder"),
    ("noise_curve_validation.csv", RUBBISH, "is not a noise curve: "),
    ("config.yaml", b"", "is empty"),
    ("config.yaml", b"a: [1, 2\nb: 3\n", "is not YAML: line 2: "),
    ("config.yaml", b"a: 1\na: 2\n", "is not YAML: line 2: a is there twice"),
    ("config.yaml", b"- 1\n- 2\n", "holds no settings"),
    ("config.yaml", RUBBISH, "is not text"),
    ("config.yaml", b"a: \xff\xfe\n", "is not text"),
    ("config.yaml", b"a: " + b"[" * 100 + b"]" * 100 + b"\n", "is nested more than 40 deep"),
    ("config.yaml", b"a: &a [1,2,3,4,5,6,7,8,9]\n" + b"b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n", None),
    ("config.yaml", b"a: !!python/object/apply:os.system [ls]\n", "is not YAML: line 1: "),
    ("config.yaml", b"a: 1\n" * 300_000, "has more than 1,000,000 characters"),
    ("config.yaml", "link", "is a link that leads out of the folder"),
    ("metrics.csv", b"", "is empty"),
    ("metrics.csv", -1, "is cut: no line break ends its last line"),
    ("metrics.csv", b"epoch,step\n0,1\n0,2,3\n", "line 3 has 3 values in place of 2"),
    ("metrics.csv", b"a,b\n1,2\n", "has no column step"),
    ("metrics.csv", RUBBISH, "is not text"),
    ("metrics.csv", "loop", None),
    ("checkpoints/last.ckpt", b"", "is empty"),
    ("checkpoints/last.ckpt", 8, "is cut, or no checkpoint"),
    ("checkpoints/last.ckpt", RUBBISH, "is cut, or no checkpoint"),
    ("checkpoints/noise_curve-last/noise_curve.csv", RUBBISH, "is not a noise curve: "),
]


@pytest.mark.parametrize(("file", "contents", "said"), DAMAGES)
def test_a_damaged_file_is_told_and_hides_nothing_else(runs, file, contents, said):
    damage(runs, file, contents)
    if file.startswith("checkpoints/noise"):
        (runs / "seed_1" / "noise_curve.csv").unlink()
    settle(runs)
    for index in (True, True, False):  # read, from the index, and without it
        catalogue = Catalogue(runs, index=index)
        frame = catalogue.runs().set_index("run")
        assert frame.index.tolist() == ["seed_0", "seed_1", "seed_2"]
        assert frame["state"][["seed_0", "seed_2"]].tolist() == ["finished"] * 2
        assert frame["message"][["seed_0", "seed_2"]].tolist() == [""] * 2
        run = catalogue.run("seed_1")
        if said is None:
            assert frame["state"]["seed_1"] in ("finished", "damaged")
        else:
            assert frame["state"]["seed_1"] == run.state == "damaged"
            assert frame["message"]["seed_1"].startswith(f"seed_1/{file} ")
            assert said in run.message
            assert "\n" not in run.message
            assert list(run.faults) == [f"seed_1/{file}"]
        assert f"seed_1/{file}" in run.faults or said is None
        # What is whole of it is there: its curve counts unless it is the curve that is damaged.
        (summary,) = catalogue.summaries().values()
        assert set(summary.frame["n_seeds"]) == {2 if "noise_curve.csv" in file else 3}
        assert "noise_curve" in run.curves() or "noise_curve.csv" in file


@pytest.mark.parametrize("file", ["noise_curve.csv", "config.yaml", "metrics.csv"])
def test_wherever_a_file_is_cut_nothing_is_raised(runs, file):
    """Each length of each kind of file: it is damaged or still whole, and what it says is never wrong."""
    path = runs / "seed_1" / file
    whole = path.read_bytes()
    expected = Catalogue(runs, index=False).runs().drop(columns=["message", "state", "changed"])
    catalogue = Catalogue(runs, index=False)
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        catalogue.refresh()
        frame = catalogue.runs()
        assert len(frame) == 3
        others = frame[frame["run"] != "seed_1"]
        assert set(others["state"]) == {"finished"}
        assert others["clean_accuracy"].tolist() == [0.9, 0.88]
        if file == "noise_curve.csv":
            assert frame["state"][1] == "damaged"
            assert frame["clean_accuracy"].isna().tolist() == [False, True, False]
    path.write_bytes(whole)
    assert catalogue.refresh()
    assert catalogue.runs()[expected.columns].equals(expected)


@pytest.mark.parametrize("file", ["noise_curve.csv", "config.yaml", "metrics.csv", "checkpoints/last.ckpt"])
def test_whatever_bytes_are_wrong_nothing_is_raised(runs, file):
    path = runs / "seed_1" / file
    whole = path.read_bytes()
    random = np.random.default_rng(7)
    catalogue = Catalogue(runs, index=False)
    for _ in range(60):
        wrong = bytearray(whole)
        for place in random.integers(len(wrong), size=random.integers(1, 4)):
            wrong[place] = random.integers(256)
        path.write_bytes(wrong)
        catalogue.refresh()
        frame = catalogue.runs()
        assert frame["run"].tolist() == ["seed_0", "seed_1", "seed_2"]
        assert frame["state"][[0, 2]].tolist() == ["finished"] * 2
        assert all("\n" not in message for message in frame["message"])
        assert catalogue.summaries()
        catalogue.run("seed_1").curves()


def test_a_run_without_settings_is_told(runs):
    """Of one with a curve this says them; of one without nothing does."""
    (runs / "seed_1" / "config.yaml").unlink()
    run = Catalogue(runs).run("seed_1")
    assert (run.state, run.message) == ("finished", "")
    assert run.settings["seed_everything"] == 1
    (runs / "seed_1" / "noise_curve.csv").unlink()
    run = Catalogue(runs).run("seed_1")
    assert (run.state, run.message) == (
        "damaged",
        "seed_1/config.yaml is missing: nothing tells the settings",
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["seed_1", "seed_1/noise_curve.csv"])
def test_what_may_not_be_read_is_told(runs, name):
    (runs / name).chmod(0)
    try:
        frame = Catalogue(runs).runs().set_index("run")
        assert frame["state"].tolist() == ["finished", "damaged", "finished"]
        assert "Permission denied" in frame["message"]["seed_1"]
    finally:
        (runs / name).chmod(0o755)


def test_a_name_that_is_not_utf8_is_told(runs):
    os.mkdir(os.fsencode(runs) + b"/gr\xfcn")
    catalogue = Catalogue(runs)
    frame = catalogue.runs().set_index("run")
    assert frame["state"].tolist() == ["damaged", "finished", "finished", "finished"]
    assert r"gr\xfcn has a name that is not UTF-8" in frame["message"]["."]


def test_metrics_that_are_damaged_are_refused_with_their_line(runs):
    (runs / "seed_1" / "metrics.csv").write_text("epoch,step,train/loss\n0,1,x\n")
    with pytest.raises(UserError, match=r"metrics\.csv line 2: train/loss is x, expected a number"):
        Catalogue(runs).run("seed_1").metrics()


def test_a_study_with_damaged_results_is_told(runs, tmp_path):
    folder = tmp_path / "study"
    (folder / "ledger").mkdir(parents=True)
    (folder / "study.yaml").write_text("name: x\n")
    (folder / "ledger" / "0123456789abcdef.parquet").write_bytes(b"")
    (row,) = Catalogue(runs).studies().to_dict("records")
    assert row["study"] == "study"
    assert row["state"] == "damaged"
    assert row["message"].startswith("ledger/0123456789abcdef.parquet ")
    assert len(Catalogue(runs).runs()) == 3


def test_a_curve_whose_validation_alone_is_there_is_not_taken_for_a_test(runs):
    (runs / "seed_1" / "noise_curve.csv").rename(runs / "seed_1" / "noise_curve_validation.csv")
    catalogue = Catalogue(runs)
    frame = catalogue.runs().set_index("run")
    assert frame["state"]["seed_1"] == "interrupted"
    assert frame["label"].nunique() == frame["experiment"].nunique() == 1
    assert set(catalogue.summaries().popitem()[1].frame["n_seeds"]) == {2}


def test_seeds_that_were_measured_at_other_levels_are_not_pooled(runs):
    path = runs / "seed_1" / "noise_curve.csv"
    make_curve((0.9, 0.8), sigma_train=1.0, seed=1, weights="other").to_csv(path)
    summaries = Catalogue(runs).summaries()
    assert sorted(int(summary.frame["n_seeds"].iloc[0]) for summary in summaries.values()) == [1, 2]
