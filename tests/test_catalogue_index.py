"""The catalogue sees what changes, and its index on disk is never stale, whoever writes it."""

import multiprocessing
import os
import shutil
import time

import pandas as pd
import pytest
from filelock import FileLock
from test_catalogue import save_run
from test_catalogue_damage import settle

from asr_dni.catalogue import Catalogue
from asr_dni.catalogue.index import NAME, Index
from asr_dni.errors import UserError


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    for sigma in (0.0, 2.0):
        for seed in range(3):
            save_run(folder / f"{sigma:g}" / f"seed_{seed}", sigma, seed, (0.9 - 0.01 * seed, 0.8, 0.3))
    settle(folder)
    return folder


def same(one, other):
    """Two catalogues say the same of everything."""
    pd.testing.assert_frame_equal(one.runs(), other.runs(), check_exact=True)
    pd.testing.assert_frame_equal(one.curves(), other.curves(), check_exact=True)
    assert one.strengths() == other.strengths()
    first, second = one.summaries(), other.summaries()
    assert list(first) == list(second)
    for label, summary in first.items():
        pd.testing.assert_frame_equal(summary.frame, second[label].frame, check_exact=True)
        assert summary.settings == second[label].settings
        assert summary.interval == second[label].interval


def test_the_second_opening_reads_no_run_and_says_the_same(runs, monkeypatch):
    first = Catalogue(runs)
    assert (runs / NAME).is_file()
    read = []
    monkeypatch.setattr(
        "asr_dni.catalogue.catalogue.read_files", lambda paths, book: read.extend(paths) or []
    )
    same(Catalogue(runs), first)
    assert read == []
    monkeypatch.undo()
    same(first, Catalogue(runs, index=False))


CHANGES = {
    "added": lambda runs: save_run(runs / "2" / "seed_9", 2.0, 9),
    "removed": lambda runs: shutil.rmtree(runs / "2" / "seed_0"),
    "renamed": lambda runs: (runs / "2").rename(runs / "three"),
    "measured again": lambda runs: save_run(runs / "2" / "seed_0", 2.0, 0, (0.7, 0.6, 0.5)),
    "curve removed": lambda runs: (runs / "2" / "seed_0" / "noise_curve.csv").unlink(),
    "curve damaged": lambda runs: (runs / "2" / "seed_0" / "noise_curve.csv").write_bytes(b"x"),
    "settings changed": lambda runs: (runs / "2" / "seed_0" / "config.yaml").write_text(
        "seed_everything: 5\n"
    ),
    "two curves exchanged": lambda runs: exchange(runs / "0" / "seed_0", runs / "2" / "seed_0"),
}


def exchange(one, other):
    for name in ("noise_curve.csv", "config.yaml"):
        (one / name).rename(one / "waiting")
        (other / name).rename(one / name)
        (one / "waiting").rename(other / name)


@pytest.mark.parametrize("change", CHANGES)
def test_the_index_is_never_stale(runs, change):
    live = Catalogue(runs)
    CHANGES[change](runs)
    fresh = Catalogue(runs, index=False)
    same(Catalogue(runs), fresh)
    assert live.refresh()
    same(live, fresh)
    assert not live.refresh()
    same(Catalogue(runs), fresh)


def test_a_change_of_same_size_and_time_within_the_clocks_grain_is_seen(runs):
    """A file that was written just before it was read may change once more without another time."""
    path = runs / "2" / "seed_0" / "noise_curve.csv"
    now = time.time_ns()
    os.utime(path, ns=(now, now))
    Catalogue(runs)
    text = path.read_text()
    assert text.count("0.9,") == 1
    with open(path, "r+") as file:
        file.write(text.replace("0.9,", "0.7,"))
    os.utime(path, ns=(now, now))
    assert Catalogue(runs).runs().set_index("run")["clean_accuracy"]["2/seed_0"] == 0.7


@pytest.mark.parametrize("contents", [b"", b"PAR1", b"x" * 1000, "cut", "flipped", "foreign"])
def test_a_damaged_index_is_made_anew(runs, contents):
    expected = Catalogue(runs)
    path = runs / NAME
    whole = path.read_bytes()
    if contents == "cut":
        contents = whole[: len(whole) // 2]
    elif contents == "flipped":
        contents = whole[:200] + bytes([whole[200] ^ 255]) + whole[201:]
    elif contents == "foreign":
        pd.DataFrame({"path": ["2/seed_0/config.yaml"]}).to_parquet(path)
        contents = path.read_bytes()
    path.write_bytes(contents)
    same(Catalogue(runs), expected)
    assert Index(runs).read()
    path.unlink()
    same(Catalogue(runs), expected)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_where_the_folder_cannot_be_written_the_users_cache_has_the_index(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    runs.chmod(0o555)
    try:
        first = Catalogue(runs)
        (found,) = (tmp_path / "cache" / "asr-dni").iterdir()
        assert found == Index(runs).path
        same(Catalogue(runs), first)
    finally:
        runs.chmod(0o755)


def test_where_no_index_can_be_written_there_is_none(runs):
    expected = Catalogue(runs, index=False)
    (runs / NAME).mkdir()
    same(Catalogue(runs), expected)
    assert list((runs / NAME).iterdir()) == []


def open_it(folder, results):
    catalogue = Catalogue(folder)
    results.put((len(catalogue.runs()), sorted(catalogue.summaries())))


def test_several_processes_open_a_folder_at_once(runs):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=open_it, args=(runs, results)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=100) for _ in processes]
    for process in processes:
        process.join()
    assert found == [(6, ["DNI σ_train=2", "conventional"])] * 3
    same(Catalogue(runs), Catalogue(runs, index=False))
    assert [path.name for path in runs.iterdir() if path.name.startswith(".")] == [NAME]


def test_a_run_is_followed_while_it_is_written(runs):
    """From its first file to its test, by one catalogue that looks again."""
    catalogue = Catalogue(runs)
    folder = runs / "2" / "seed_7"
    folder.mkdir()
    with FileLock(folder / ".lock"):
        catalogue.refresh()
        assert len(catalogue.runs()) == 6
        text = (
            (runs / "2" / "seed_1" / "config.yaml")
            .read_text()
            .replace("seed_everything: 1", "seed_everything: 7")
        )
        (folder / "config.yaml").write_text(text)
        for step in range(1, 4):
            rows = "".join(f"0,{number},0.5\n" for number in range(step))
            (folder / "metrics.csv").write_text(f"epoch,step,train/loss\n{rows}")
            assert catalogue.refresh()
            run = catalogue.run("2/seed_7")
            assert (run.state, run.message, run.seed, run.label) == ("running", "", 7, "DNI σ_train=2")
            assert len(run.metrics()) == step
        (folder / "metrics.csv").write_text("epoch,step,train/loss\n0,1,0.")
        catalogue.refresh()
        run = catalogue.run("2/seed_7")
        assert run.state == "running"
        assert run.message == "2/seed_7/metrics.csv is cut: no line break ends its last line"
        (folder / "metrics.csv").write_text("epoch,step,train/loss\n0,1,0.5\n")
    assert catalogue.refresh()
    assert catalogue.run("2/seed_7").state == "interrupted"
    save_run(folder, 2.0, 7)
    catalogue.refresh()
    assert catalogue.run("2/seed_7").state == "finished"
    assert set(catalogue.summaries()["DNI σ_train=2"].frame["n_seeds"]) == {4}
    with pytest.raises(UserError, match="there is no run '2/seed_8'"):
        catalogue.run("2/seed_8")


def test_looking_hinders_no_run_from_starting(runs):
    """The lock is asked for in passing; who takes it meanwhile still gets it, and keeps it."""
    path = runs / "2" / "seed_0" / ".lock"
    path.touch()
    catalogue = Catalogue(runs)
    assert catalogue.run("2/seed_0").state == "finished"
    with FileLock(path, timeout=0):
        catalogue.refresh()
        assert catalogue.run("2/seed_0").state == "running"
        with pytest.raises(TimeoutError):
            FileLock(path, timeout=0).acquire()
    catalogue.refresh()
    assert catalogue.run("2/seed_0").state == "finished"
