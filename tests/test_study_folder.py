import json
import os
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from simulated_study import member_rows
from tiny_study import tiny

from asr_dni.errors import UserError
from asr_dni.study import folder as folder_module
from asr_dni.study.folder import Progress, StudyFolder
from asr_dni.study.plan import Population, plan_members


def claim_of(folder: StudyFolder, population: str, **claim: object) -> None:
    path = folder.path / "populations" / population / "claim.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"token": "x", **claim}))


def test_a_claim_belongs_to_one_run_and_ends_with_it(tmp_path):
    one, other = StudyFolder(tmp_path), StudyFolder(tmp_path)
    with one.claim("p", "a") as ours:
        assert ours
        assert other.claimed("p", "b")
        assert not other.claimed("p", "a")
        with other.claim("p", "b") as theirs:
            assert not theirs
        with other.claim("q", "b") as theirs:
            assert theirs
    assert not other.claimed("p")
    with other.claim("p", "b") as theirs:
        assert theirs


def test_of_many_at_once_one_gets_it(tmp_path):
    won = []
    ready = threading.Barrier(8)

    def try_it(run):
        ready.wait()
        with StudyFolder(tmp_path).claim("p", run) as ours:
            won.append(ours)
            time.sleep(0.5)

    threads = [threading.Thread(target=try_it, args=(f"run {k}",)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]


def test_a_claim_of_a_dead_process_is_taken_over(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    folder = StudyFolder(tmp_path)

    claim_of(folder, "p", run="gone", host=socket.gethostname(), pid=process.pid)
    with folder.claim("p", "b") as ours:
        assert ours
    claim_of(folder, "p", run="here", host=socket.gethostname(), pid=os.getpid())
    with folder.claim("p", "b") as ours:
        assert not ours


def test_a_claim_from_elsewhere_without_a_sign_of_life_is_taken_over(tmp_path):
    folder = StudyFolder(tmp_path)
    claim_of(folder, "p", run="far", host="another machine", pid=1)
    with folder.claim("p", "b") as ours:
        assert not ours
    path = tmp_path / "populations" / "p" / "claim.json"
    old = path.stat().st_mtime - folder_module.LEASE_SECONDS - 1
    os.utime(path, (old, old))
    with folder.claim("p", "b") as ours:
        assert ours


def test_a_claim_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "SIGN_SECONDS", 0.05)
    folder = StudyFolder(tmp_path)
    with folder.claim("p", "a"):
        path = tmp_path / "populations" / "p" / "claim.json"
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert path.stat().st_mtime > 1


def test_claims_of_a_run_can_be_given_back(tmp_path):
    folder = StudyFolder(tmp_path)
    claim_of(folder, "p", run="a", host="another machine", pid=1)
    claim_of(folder, "q", run="b", host="another machine", pid=1)
    folder.release("a")
    assert not folder.claimed("p")
    assert folder.claimed("q")


def test_progress_is_read_back_and_a_damaged_one_is_none(tmp_path):
    folder = StudyFolder(tmp_path)
    assert folder.progress("p") == Progress()
    progress = Progress("training", epoch=3, epochs=9, fraction=0.25, seconds=1.5, members=4, device="cpu")
    folder.write_progress("p", progress)
    assert folder.progress("p") == progress
    (tmp_path / "populations" / "p" / "progress.json").write_text("{")
    assert folder.progress("p") == Progress()


def test_populations_are_found_again(tmp_path):
    study = tiny(tmp_path)
    members = plan_members(study)
    folder = StudyFolder(tmp_path / "study")
    first, second = Population(tuple(members[:2])), Population(tuple(members[2:]))
    folder.assign([first, second])
    assert {population.id for population in folder.known_populations(members)} == {first.id, second.id}
    # The study has lost a member of the second: what is left of it is for a population of another name.
    assert [population.id for population in folder.known_populations(members[:3])] == [first.id]
    # Two that share a member: the one that has come further counts.
    both = Population(tuple(members[1:3]))
    folder.assign([both])
    folder.write_progress(both.id, Progress("training", fraction=0.5))
    assert [population.id for population in folder.known_populations(members)] == [both.id]
    folder.forget(both.id)
    assert len(folder.known_populations(members)) == 2


def test_a_folder_holds_one_training(tmp_path):
    folder = StudyFolder(tmp_path / "study")

    def record(**changes):
        study = tiny(tmp_path, **changes)
        folder.record(study, study.make_data(0))
        return study

    def put_something_into_the_ledger():
        folder.ledger.append("0" * 16, member_rows(np.random.default_rng(0)).assign(member="0" * 16))

    record(epochs=5)
    record()  # nothing was measured yet
    assert folder.read_study().settings.epochs == 2
    put_something_into_the_ledger()
    record(seeds=[7], units=[8], cells=["rnn"], sigma_train=[0.5], noise_models=[{"scale": "signal"}])
    assert folder.read_study().settings.seed_list == [7]
    record()
    for changes, key in (
        ({"epochs": 3}, r"epochs \(2 there, 3 here\)"),
        ({"training": {"label_smoothing": 0.0}}, r"training.label_smoothing \(0.05 there, 0.0 here\)"),
        ({"recipes": {"lstm": {"dropout": 0.5}}}, r"recipes.lstm.dropout \(0.0 there, 0.5 here\)"),
        ({"recipes": {"rnn": {"dropout": 0.5}}, "cells": ["rnn"]}, r"recipes.rnn.dropout"),
        ({"evaluation": {"draws": 3}}, r"evaluation.draws \(2 there, 3 here\)"),
        ({"schedules": {"linear": {"warm_up": 0.5}}}, r"schedules.linear.warm_up"),
        (
            {"data": {"class_path": "asr_dni.data.DigitsData", "init_args": {"batch_size": 64}}},
            r"data.batch_size \(128 there, 64 here\)",
        ),
    ):
        with pytest.raises(UserError, match=f"another training, which differs in {key}.*another --output"):
            record(**changes)
    assert folder.read_study().settings.epochs == 2


@pytest.mark.parametrize("damaged", ["", "{", "[]", "null"])
def test_a_damaged_note_of_what_is_shared_is_made_anew(tmp_path, damaged):
    """From the settings of the last start, so that another training is still refused."""
    folder = StudyFolder(tmp_path / "study")
    study = tiny(tmp_path)
    folder.record(study, study.make_data(0))
    folder.ledger.append("0" * 16, member_rows(np.random.default_rng(0)).assign(member="0" * 16))
    note = folder.path / "common.json"
    whole = note.read_text()
    note.write_text(damaged)
    other = tiny(tmp_path, epochs=9)
    with pytest.raises(UserError, match=r"another training, which differs in epochs \(2 there, 9 here\)"):
        folder.record(other, other.make_data(0))
    folder.record(study, study.make_data(0))
    assert note.read_text() == whole


def test_what_is_no_study_is_told(tmp_path):
    with pytest.raises(UserError, match="is not a study's folder"):
        StudyFolder(tmp_path).read_study()
    (tmp_path / "study.yaml").write_text("epochs: many")
    with pytest.raises(UserError, match=r"study\.yaml: epochs: expected int"):
        StudyFolder(tmp_path).read_study()


def test_a_claim_is_of_members_whatever_population_they_are_in(tmp_path):
    """Starts with other settings have other populations: nobody trains a member that somebody is training."""
    one, other = StudyFolder(tmp_path), StudyFolder(tmp_path)
    with one.claim("p", "a", ["m1", "m2"]) as ours:
        assert ours
        with other.claim("q", "b", ["m2", "m3"]) as theirs:
            assert not theirs
        with other.claim("r", "b", ["m3"]) as theirs:
            assert theirs
        with one.claim("half", "a", ["m2"]) as ours:  # of the same start, whose worker has died
            assert ours
    with other.claim("q", "b", ["m2", "m3"]) as theirs:
        assert theirs


@pytest.mark.parametrize("how", ["claim", "assign", "record"])
def test_without_the_lock_nothing_is_decided(tmp_path, monkeypatch, how):
    monkeypatch.setattr(folder_module, "LOCK_SECONDS", 0.2)
    folder, other = StudyFolder(tmp_path / "study"), StudyFolder(tmp_path / "study")
    study = tiny(tmp_path)
    decide = {
        "claim": lambda: other.claim("p", "a").__enter__(),
        "assign": lambda: other.assigning().__enter__(),
        "record": lambda: other.record(study, study.make_data(0)),
    }[how]
    with folder.assigning():
        with pytest.raises(UserError, match=r"\.lock: another start .* 0 seconds.*remove the file"):
            decide()
        assert not list(other.path.glob("populations/*/claim.json"))
        assert not other.study_file.exists()
    with other.claim("p", "a") as ours:
        assert ours


def test_a_file_system_without_locks_is_locked_by_a_files_existence(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "LOCK_SECONDS", 0.2)

    class NoLocks(folder_module.FileLock):
        def _acquire(self):
            raise OSError(37, "No locks available")

    monkeypatch.setattr(folder_module, "FileLock", NoLocks)
    folder = StudyFolder(tmp_path)
    with (
        folder.assigning(),
        pytest.raises(UserError, match="another start"),
        StudyFolder(tmp_path).assigning(),
    ):
        pass
    with StudyFolder(tmp_path).assigning():
        pass


@pytest.mark.parametrize(
    "text", ['{"fraction": "most"}', '{"state": 3}', "[1]", '{"epoch": null}', '"x"', '{"fraction": {}}']
)
def test_files_of_odd_contents_are_as_good_as_none(tmp_path, text):
    folder = StudyFolder(tmp_path)
    place = tmp_path / "populations" / "p"
    place.mkdir(parents=True)
    for name in ("progress.json", "members.json", "claim.json"):
        (place / name).write_text(text)
    assert folder.progress("p") == Progress()
    assert folder.recorded_populations() == {}
    (place / "claim.json").write_text(json.dumps({"host": socket.gethostname(), "pid": "x", "run": []}))
    with folder.claim("p", "a") as ours:
        assert ours
