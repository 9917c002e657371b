import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest
import yaml
from simulated_study import member_rows
from tiny_study import SETTINGS, accuracies, start, tiny

from asr_dni.cli.study.progress import describe_survey
from asr_dni.errors import UserError
from asr_dni.study import engine, pool
from asr_dni.study.engine import EngineSettings, StudyRun
from asr_dni.study.folder import Progress, StudyFolder
from asr_dni.study.ledger import Ledger
from asr_dni.study.pool import InProcess
from asr_dni.study.survey import survey
from asr_dni.study.work import Outcome

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _handler():
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture
def fast(monkeypatch):
    """No waiting before somebody tries again."""
    monkeypatch.setattr(engine, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.1)


@pytest.fixture
def worked(monkeypatch):
    """Stands in for the training: a list of what is worked on, and what happens then, by population."""
    calls, happens = [], {}

    def work_on(study, folder, population, run, device, seconds):
        calls.append(population)
        what = happens.get(population.id) or happens.get("any")
        result = what.pop(0) if what else Outcome(population.id, "done", 0)
        if isinstance(result, BaseException):
            raise result
        return result

    monkeypatch.setattr(pool, "work_on", work_on)
    return calls, happens


def go(run: StudyRun, said: list[str] | None = None) -> StudyRun:
    run.run(InProcess(run.study, run.folder, "cpu"), on_event=(said if said is not None else []).append)
    return run


# ---------------------------------------------------------------------- for real, in this process


def test_a_study_is_done_once_and_grows(tmp_path, monkeypatch):
    study = tiny(tmp_path, population={"members": 2})
    folder = tmp_path / "study"
    said: list[str] = []
    run = go(start(study, folder), said)
    assert not run.missing()
    assert len(accuracies(folder)) == 4 * 3
    assert sum("done, 2 new results" in line for line in said) == 2
    assert run.survey().done == run.survey().results == 4
    assert run.survey().fraction == 1.0
    assert run.survey().seconds_left == 0.0
    before = accuracies(folder)

    again = start(study, folder)
    assert again.missing() == []
    assert again.plan(2, False) == []

    trained = Counter()
    work_on = pool.work_on

    def counted(study, folder, population, *rest):
        trained.update((member.seed, member.sigma_train) for member in population.members)
        return work_on(study, folder, population, *rest)

    monkeypatch.setattr(pool, "work_on", counted)
    go(start(tiny(tmp_path, "--seeds=3"), folder))
    assert trained == {(2, 0.0): 1, (2, 1.0): 1}
    after = accuracies(folder)
    assert before.items() <= after.items()
    assert len(after) == 6 * 3


def test_results_do_not_depend_on_the_populations(tmp_path):
    for members in (1, 4):
        go(start(tiny(tmp_path, f"--population.members={members}"), tmp_path / str(members)))
    one, four = accuracies(tmp_path / "1"), accuracies(tmp_path / "4")
    assert one.keys() == four.keys()
    # Sums in another order may turn a clip that lies on the border.
    assert max(abs(one[key] - four[key]) for key in one) <= 2


# ---------------------------------------------------------------------- what can happen


def test_what_fails_is_begun_again_and_at_last_given_up(tmp_path, fast, worked):
    calls, happens = worked
    run = start(tiny(tmp_path, population={"members": 2}), tmp_path / "study", max_retries=2)
    first, second = run.plan(1, False)
    happens[first.id] = [OSError("no space"), RuntimeError("a\nlong story")]
    happens[second.id] = [ValueError(f"wrong {k}") for k in range(9)]
    said: list[str] = []
    go(run, said)
    assert Counter(population.id for population in calls) == {first.id: 3, second.id: 3}
    assert [(failure.population.id, failure.message) for failure in run.failures] == [
        (second.id, "ValueError: wrong 2")
    ]
    assert run.retries == 4
    assert run.folder.progress(second.id).state == "failed"
    assert "ValueError: wrong 2" in (run.folder.path / "populations" / second.id / "error.txt").read_text()
    assert any("RuntimeError: a long story; begun again from its checkpoint" in line for line in said)
    assert run.survey().failures == tuple(run.failures)


def test_what_is_too_large_goes_on_as_halves(tmp_path, fast, worked):
    calls, happens = worked
    run = start(tiny(tmp_path, "--seeds=3", sigma_train=[0.0]), tmp_path / "study", max_retries=0)
    (population,) = run.plan(1, False)
    happens[population.id] = [RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")]
    go(run)
    assert [len(population.members) for population in calls] == [3, 2, 1]
    assert {member.seed for population in calls[1:] for member in population.members} == {0, 1, 2}
    assert population.id not in run.folder.recorded_populations()
    assert not run.failures


def test_a_users_mistake_ends_it_at_once(tmp_path, worked):
    calls, happens = worked
    happens["any"] = [UserError("no such thing")]
    with pytest.raises(UserError, match="no such thing"):
        go(start(tiny(tmp_path, population={"members": 1}), tmp_path / "study"))
    assert len(calls) == 1


def test_an_interruption_ends_it_and_gives_claims_back(tmp_path, worked):
    calls, happens = worked
    run = start(tiny(tmp_path, population={"members": 1}), tmp_path / "study")
    path = run.folder.path / "populations" / "p" / "claim.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"run": run.run_id, "token": "x", "host": "a worker", "pid": 1}))
    happens["any"] = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        go(run)
    assert len(calls) == 1
    assert not path.exists()


def test_what_another_run_works_on_is_waited_for(tmp_path, fast, worked):
    calls, happens = worked
    run = start(tiny(tmp_path, population={"members": 2}), tmp_path / "study")
    first, second = run.plan(1, False)
    happens[first.id] = [Outcome(first.id, "busy"), Outcome(first.id, "busy")]
    said: list[str] = []
    go(run, said)
    assert [population.id for population in calls][:2] == [first.id, second.id]  # the other one meanwhile
    assert Counter(population.id for population in calls) == {first.id: 3, second.id: 1}
    assert sum("another run works on it" in line for line in said) == 1


def test_a_later_start_goes_on_with_the_same_populations(tmp_path, worked):
    _, happens = worked
    folder = tmp_path / "study"
    happens["any"] = [KeyboardInterrupt()]
    run = start(tiny(tmp_path), folder)
    with pytest.raises(KeyboardInterrupt):
        go(run)
    assert len(run.populations) == 1
    again = start(tiny(tmp_path, "--population.members=1"), folder)
    assert [population.id for population in again.plan(8, False)] == [run.populations[0].id]


def test_two_starts_with_other_populations_train_no_member_twice(tmp_path, fast, monkeypatch):
    """The second plans while the first is about to write down what it has planned."""
    trained: list[str] = []
    results = threading.Barrier(2, timeout=30)

    def work_on(study, folder, population, run, device, seconds):
        with folder.claim(population.id, run, [member.training for member in population.members]) as ours:
            if not ours:
                return Outcome(population.id, "busy")
            done = {path.stem for path in (tmp_path / "done").iterdir()}
            for member in population.members:
                if member.training not in done:
                    trained.append(member.training)
                    (tmp_path / "done" / member.training).touch()
            time.sleep(0.2)
        return Outcome(population.id, "done")

    (tmp_path / "done").mkdir()
    monkeypatch.setattr(pool, "work_on", work_on)
    assign = StudyFolder.assign

    def slow(self, populations):
        time.sleep(0.7)
        assign(self, populations)

    monkeypatch.setattr(StudyFolder, "assign", slow)
    study = tiny(tmp_path, "--seeds=6")
    runs = [
        start(tiny(tmp_path, "--seeds=6", f"--population.members={members}"), tmp_path / "study")
        for members in (2, 3)
    ]

    def begin(run):
        results.wait()
        go(run)

    threads = [threading.Thread(target=begin, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    recorded = Counter(name for names in runs[0].folder.recorded_populations().values() for name in names)
    assert set(recorded.values()) == {1}
    assert Counter(trained) == recorded
    assert len(trained) == 2 * len(study.settings.seed_list)


def test_the_time_that_is_left_follows_from_what_was_measured(tmp_path):
    run = start(tiny(tmp_path, population={"members": 2}), tmp_path / "study")
    populations = run.plan(1, False)
    run.folder.assign(populations)

    def now(workers=1):
        return survey(run.study, run.folder, run.members, populations, run.size, workers)

    assert (now().done, now().results, now().waiting, now().populations) == (0, 4, 2, 2)
    assert now().seconds_left is None
    assert now().fraction == 0
    run.folder.write_progress(populations[0].id, Progress("training", fraction=0.5, seconds=10.0))
    assert now().seconds_left == pytest.approx(10 + 20)  # two of one size
    assert now(2).seconds_left == pytest.approx(20)
    assert now().fraction == pytest.approx(0.25)
    with run.folder.claim(populations[0].id, "somebody"):
        ((running, progress),) = now().running
        assert (running.id, progress.fraction, now().waiting) == (populations[0].id, 0.5, 1)


@pytest.mark.parametrize("state", ["done", "evaluating", "waiting"])
def test_all_of_the_work_is_done_only_where_all_results_are_there(tmp_path, worked, state):
    """A population that was done, and one of whose results has gone, is not; nor is one that says so of itself."""
    run = start(tiny(tmp_path, population={"members": 2}), tmp_path / "study")
    populations = run.plan(1, False)
    run.folder.assign(populations)
    results = sorted(frozenset().union(*(population.results for population in populations)))
    for population in populations:
        run.folder.write_progress(
            population.id, Progress(state, epoch=2, epochs=2, fraction=1.0, seconds=9.0)
        )
    for there in (0, 3, 4):
        ledger = tmp_path / str(there)
        for name in results[:there]:
            Ledger(ledger).append(name, member_rows(np.random.default_rng(0)).assign(member=name))
        run.folder.ledger = Ledger(ledger)
        found = survey(run.study, run.folder, run.members, populations, run.size)
        said = describe_survey(found)
        if there == 4:
            assert said == "all 4 results are there"
            assert found.fraction == 1.0
        else:
            assert (found.done, found.results) == (there, 4)
            assert "100 %" not in said
            assert found.fraction == (pytest.approx(there / 4) if state == "done" else pytest.approx(0.999))
            assert found.seconds_left != 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"workers": -1}, "workers is -1"),
        ({"cpus_per_worker": 0}, "cpus_per_worker is 0"),
        ({"gpus_per_worker": -1}, "gpus_per_worker is -1"),
        ({"max_retries": -1}, "max_retries is -1"),
        ({"checkpoint_seconds": -1}, "checkpoint_seconds is -1"),
        ({"workers": 0, "address": "auto"}, "workers is 0, .* but there is an address"),
    ],
)
def test_mistakes_are_told(settings, said):
    with pytest.raises(UserError, match=said):
        EngineSettings(**settings).check()


# ---------------------------------------------------------------------- several processes


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}


def in_process_start(file, output, checkpoint_seconds):
    command = [
        sys.executable,
        "-m",
        "asr_dni",
        "study",
        "run",
        str(file),
        "--workers",
        "0",
        "--report",
        "false",
    ]
    return [*command, "--output", str(output), "--checkpoint_seconds", checkpoint_seconds]


@pytest.mark.slow
def test_two_starts_at_once_share_the_work(tmp_path):
    path = tmp_path / "tiny.yaml"
    changed = {**SETTINGS, "population": {"members": 1}, "seeds": 5, "epochs": 8}
    path.write_text(yaml.safe_dump(changed, sort_keys=False))
    command = in_process_start(path, tmp_path / "study", "5")
    both = [
        subprocess.Popen(
            command, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    frame = StudyFolder(tmp_path / "study").ledger.frame()
    assert len(frame) == 10 * 3
    assert frame["member"].nunique() == 10
    # Nothing was trained twice: of each of the ten one start says that it added its result.
    added = [line for _, errors in said for line in errors.splitlines() if "1 new results" in line]
    assert len(added) == 10
    assert all("1 new results" in errors for _, errors in said)


@pytest.mark.slow
def test_two_starts_with_other_populations_train_every_member_once(tmp_path):
    """Two real starts at once, whose populations have 2 and 3 members; what a trainer is given is written down."""
    script = (
        "import json, sys, time\nimport pytorch_lightning as pl\nfrom asr_dni.cli.main import main\n"
        "from asr_dni.study.folder import StudyFolder\n"
        "fit, assign, log = pl.Trainer.fit, StudyFolder.assign, sys.argv.pop(1)\n"
        "def noted(self, spotter, *rest, **named):\n"
        "    for member in spotter.members:\n"
        "        print(json.dumps([member.seed, member.annealing['sigma']]), file=open(log, 'a'))\n"
        "    return fit(self, spotter, *rest, **named)\n"
        "def slow(self, populations):\n    time.sleep(3)\n    assign(self, populations)\n"
        "pl.Trainer.fit, StudyFolder.assign = noted, slow\nmain(sys.argv[1:])\n"
    )
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**SETTINGS, "seeds": 6, "epochs": 4}, sort_keys=False))
    command = in_process_start(path, tmp_path / "study", "5")[3:]
    both = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                script,
                str(tmp_path / f"{n}.log"),
                *command,
                "--population.members",
                str(n),
            ],
            env=environment(),
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in (2, 3)
    ]
    said = [process.communicate(timeout=400) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    logs = "".join(log.read_text() for log in tmp_path.glob("*.log"))
    trained = Counter(tuple(json.loads(line)) for line in logs.splitlines())
    assert trained == {(seed, sigma): 1 for seed in range(6) for sigma in (0.0, 1.0)}
    assert len(StudyFolder(tmp_path / "study").ledger.frame()) == 12 * 3


@pytest.mark.slow
def test_killed_without_warning_it_goes_on(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**SETTINGS, "epochs": 60}, sort_keys=False))
    command = in_process_start(path, tmp_path / "study", "0.5")
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    folder = StudyFolder(tmp_path / "study")
    deadline = time.monotonic() + 120
    while not list(folder.path.glob("populations/*/last.ckpt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.kill()
    process.communicate()
    assert not folder.ledger.members()
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    go(start(tiny(tmp_path, epochs=60), tmp_path / "straight"))
    assert accuracies(tmp_path / "study") == accuracies(tmp_path / "straight")


@pytest.mark.slow
def test_a_machine_of_a_ray_cluster_dies_and_nothing_is_lost(tmp_path):
    """A cluster of three node processes; one that trains a population is killed."""
    ray = pytest.importorskip("ray")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    from asr_dni.study.ray_engine import RayPool

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quick = {
        "health_check_initial_delay_ms": 1000,
        "health_check_period_ms": 500,
        "health_check_timeout_ms": 2000,
        "health_check_failure_threshold": 4,
    }
    cluster = cluster_utils.Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": quick},
    )
    try:
        nodes = [cluster.add_node(num_cpus=1, include_dashboard=False) for _ in range(2)]
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        study = tiny(tmp_path, "--population.members=2", "--seeds=3", epochs=150)
        run = start(study, tmp_path / "study", workers=None, checkpoint_seconds=1.0)
        said: list[str] = []
        pool = RayPool(run.settings)
        assert pool.workers == 2
        failed: list[BaseException] = []

        def train():
            try:
                run.run(pool, on_event=said.append)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=train)
        thread.start()
        deadline = time.monotonic() + 240
        while len(list(run.folder.path.glob("populations/*/last.ckpt"))) < 2:
            assert thread.is_alive(), (failed, said)
            assert time.monotonic() < deadline
            time.sleep(0.2)
        epochs = {population.id: run.folder.progress(population.id).epoch for population in run.populations}
        cluster.remove_node(nodes[0], allow_graceful=False)
        thread.join(timeout=400)
        assert not thread.is_alive()
        assert not failed, failed
        assert run.retries >= 1, (said, epochs)
        assert any("begun again from its checkpoint" in line for line in said)
        assert not run.failures
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert not run.missing()
    go(start(study, tmp_path / "straight"))
    assert accuracies(tmp_path / "study") == accuracies(tmp_path / "straight")
