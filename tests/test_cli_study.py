import re
import signal
import socket
import subprocess
import sys
import threading
import time
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
import yaml
from rich.console import Console
from tiny_study import accuracies, start, tiny, write

from asr_dni.cli.main import main
from asr_dni.cli.study import estimate, plan
from asr_dni.cli.study.durations import duration
from asr_dni.cli.study.progress import Display, describe_survey, draw_survey
from asr_dni.study import pool, ray_engine
from asr_dni.study.folder import StudyFolder
from asr_dni.study.survey import Survey
from asr_dni.study.work import Outcome

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _handler():
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a study's file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    write(tmp_path / "tiny.yaml")
    return tmp_path


def said_by(capsys, *command: str) -> str:
    capsys.readouterr()
    main(["study", *command])
    return capsys.readouterr().out


def fails(capsys, *command: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["study", *command])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert re.fullmatch(r"asr-dni: error: [^\n]+\n", said), said
    return said


def test_help_imports_nothing_heavy_and_names_every_command():
    script = (
        "import sys\nfrom asr_dni.cli.main import main\n"
        "try:\n    main(['study', '--help'])\nexcept SystemExit as end:\n"
        "    print(end.code, sorted({'ray', 'wandb', 'matplotlib', 'pyarrow'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "0 []"
    for name in ("run FILE", "plan FILE", "status DIR", "report DIR"):
        assert name in result.stdout


@pytest.mark.parametrize("command", ["run", "plan", "status", "report"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["study", command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert f"usage: asr-dni study {command}" in said
    if command in ("run", "plan"):
        for option in ("--seeds", "--epochs", "--recipes.lstm.dropout", "--workers", "--address", "--output"):
            assert option in said


def test_a_study_from_plan_to_report(here, capsys):
    said = said_by(capsys, "plan", "tiny.yaml", "--seeds=2", "--workers", "1")
    assert "4 members (0 done), 1 population for 1 worker; 0 of 4 results" in said
    assert "estimated" in said
    assert not (here / "runs").exists()

    said = said_by(capsys, "run", "tiny.yaml", "--workers", "0")
    folder = here / "runs" / "study" / "tiny"
    assert "4 members, 0 done; results go to runs/study/tiny" in said
    assert "Does training under noise (DNI) make the noise curve flatter?" in said
    assert "runs/study/tiny/report/index.html" in said
    for ending in ("png", "svg", "csv", "md", "html"):
        assert list((folder / "report").rglob(f"*.{ending}")), ending
    assert len(StudyFolder(folder).ledger.frame()) == 4 * 3
    assert "done: " not in said

    said = said_by(capsys, "run", "tiny.yaml", "--dry_run", "--measure", "false")
    assert "4 members (4 done), 0 populations" in said
    assert "all 4 results" in said_by(capsys, "status", "runs/study/tiny")
    assert "files written" in said_by(capsys, "report", "runs/study/tiny")


def test_a_command_line_overrides_the_file(here, capsys):
    write(here / "more.yaml", cells=["gru"])
    said = said_by(
        capsys,
        *(
            "plan",
            "tiny.yaml",
            "--config",
            "more.yaml",
            "--units",
            "4,8",
            "--sigma_train=0,1,2",
            "--seeds",
            "3,5,7",
        ),
        *("--epochs", "9", "--data.batch_size", "64", "--name", "other", "--measure", "false"),
    )
    assert "18 members" in said
    assert "gru 8, absolute" in said
    assert "3 5 7" in said
    assert "in batches of 64" in said
    assert "9 epochs" in said
    assert "runs/study/other/ledger" in said
    (here / "bare.yaml").write_text("cells: [lstm]\nunits: [4]\n")
    assert "27 members" in said_by(
        capsys, "plan", "bare.yaml", "--data_class", "DigitsData", "--seeds=9", "--measure", "false"
    )


def test_mistakes_are_one_line(here, capsys):
    assert "there is no study command 'go'" in fails(capsys, "go")
    assert "needs a study's file or name first" in fails(capsys, "run")
    assert "needs a study's file or name first" in fails(capsys, "run", "--seeds=3")
    assert "none.yaml: there is no such configuration file" in fails(capsys, "run", "none.yaml")
    assert "seeds is 0" in fails(capsys, "plan", "tiny.yaml", "--seeds=0")
    assert "workers is -2" in fails(capsys, "plan", "tiny.yaml", "--workers=-2")
    assert "there is no such folder" in fails(capsys, "status", "runs/study/none")
    assert "is not a study's folder" in fails(capsys, "status", ".")
    assert "holds no results yet" in fails(capsys, "report", ".")
    assert "a file is in the way" in fails(capsys, "plan", "tiny.yaml", "--output", "tiny.yaml")
    assert "data: batch_size" in fails(capsys, "plan", "tiny.yaml", "--data.batch_size=0")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"data": {"class_path": "asr_dni.data.DigitsData", "init_args": {"nope": 3}}},
            "DigitsData: there is no",
        ),
        (
            {"data": {"source": {"class_path": "asr_dni.data.Synthetic", "init_args": {"nope": 3}}}},
            "Synthetic: there",
        ),
        ({"recipes": {"lstm": {"nope": 3}}}, "recipes"),
        ({"optimizer": {"class_path": "torch.optim.Adam", "init_args": {"nope": 3}}}, "optimizer: "),
    ],
)
def test_a_setting_that_a_class_does_not_have_is_named_and_nothing_else(here, capsys, settings, said):
    write(here / "wrong.yaml", **settings)
    error = fails(capsys, "plan", "wrong.yaml")
    assert said in error
    assert "nope" in error
    for clutter in ("NestedArg", "{", "Problem with", "jsonargparse"):
        assert clutter not in error
    assert len(error) < 200


@pytest.mark.parametrize("how", ["fails", "interrupted"])
def test_what_was_not_done_is_said_by_the_exit_code(here, capsys, monkeypatch, how):
    def work_on(*arguments):
        raise ValueError("bad luck") if how == "fails" else KeyboardInterrupt

    monkeypatch.setattr(pool, "work_on", work_on)
    with pytest.raises(SystemExit) as ended:
        main(["study", "run", "tiny.yaml", "--workers=0", "--max_retries=0", "--report=false"])
    said = capsys.readouterr().err
    if how == "fails":
        assert ended.value.code == 1
        assert "given up: ValueError: bad luck" in said
        assert "4 of 4 members are missing; the same command tries them again" in said
        assert "given up: ValueError: bad luck" in said_by(capsys, "status", "runs/study/tiny")
    else:
        assert ended.value.code == 130
        assert "interrupted, 0 of 4 results are there; started again it goes on" in said


def test_damaged_results_are_not_taken_for_done(here, capsys):
    """Cut, empty and renamed files: seen by all commands, set aside or named rightly, made anew; then all is there."""
    run = ("run", "tiny.yaml", "--workers=0", "--report=false", "--epochs=1")
    main(["study", *run])
    before = accuracies(here / "runs" / "study" / "tiny")
    files = sorted((here / "runs" / "study" / "tiny" / "ledger").glob("*.parquet"))
    assert len(files) == 4
    files[0].write_bytes(files[0].read_bytes()[:-50])
    files[1].write_bytes(b"")
    files[2].rename(files[2].with_name(f"{'f' * 16}.parquet"))
    said = said_by(capsys, "status", "runs/study/tiny")
    assert "1 of 4 results" in said
    assert "100 %" not in said
    assert said.count("started again, the study makes what is missing") == 3
    assert "4 members (1 done)" in said_by(capsys, "plan", "tiny.yaml", "--epochs=1", "--measure=false")
    assert not (files[0].parent / "damaged").exists()  # they only look

    capsys.readouterr()
    main(["study", *run])
    said = capsys.readouterr()
    assert "4 members, 2 done" in said.out
    assert said.err.count("what it held is made anew") == 2
    assert f"renamed to {files[2].name}" in said.err
    assert sorted(files[0].parent.glob("*.parquet")) == files
    after = accuracies(here / "runs" / "study" / "tiny")
    assert after.keys() == before.keys()
    # Sums in another order may turn a clip that lies on the border.
    assert max(abs(after[key] - before[key]) for key in before) <= 2
    assert "all 4 results" in said_by(capsys, "status", "runs/study/tiny")
    main(["study", *run])
    assert "made anew" not in capsys.readouterr().err


def test_another_training_needs_another_folder(here, capsys):
    main(["study", "run", "tiny.yaml", "--workers=0", "--report=false", "--seeds=1", "--epochs=1"])
    said = fails(capsys, "run", "tiny.yaml", "--workers=0", "--report=false", "--seeds=1")
    assert "differs in epochs (1 there, 2 here): give another --output" in said


def test_times_are_said_as_people_say_them():
    assert [duration(s) for s in (3.2, 89, 600, 5399, 3 * 3600 + 300, 52 * 3600)] == [
        *("3 s", "89 s", "10 min", "1 h 30 min", "3 h 05 min", "2 d 4 h")
    ]


def test_how_far_it_is_is_drawn_while_it_is_trained(tmp_path, monkeypatch):
    """On a terminal the picture changes, elsewhere there are lines; both while the main thread is busy."""
    run = start(tiny(tmp_path, population={"members": 2}), tmp_path / "study")
    go_on = threading.Event()

    def work_on(study, folder, population, *rest):
        with folder.claim(population.id, run.run_id):
            assert go_on.wait(60)
        return Outcome(population.id, "done")

    monkeypatch.setattr(pool, "work_on", work_on)
    monkeypatch.setattr(StudyFolder, "claimed", lambda self, name, run=None: not go_on.is_set())
    for terminal in (True, False):
        go_on.clear()
        text = StringIO()
        console = Console(file=text, force_terminal=terminal, width=150)
        threading.Timer(3.0, go_on.set).start()
        with Display(run, console, every=0.5) as display:
            run.run(pool.InProcess(run.study, run.folder, "cpu"), on_event=display.say)
        written = text.getvalue()
        assert "lstm 4, absolute, 2 members: done, 0 new results" in written
        assert "0/4 results" in written if terminal else "0 of 4 results" in written


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nowhere.invalid:1", "nothing answers there"),
        ("127.0.0.1:1", "nothing answers there"),
        ("ray://127.0.0.1:1", "nothing answers there"),
        ("nowhere", "give auto, HOST:PORT or ray://HOST:PORT"),
        ("127.0.0.1:999999", "give auto, HOST:PORT"),
    ],
)
def test_an_address_without_a_cluster_is_told_at_once(here, capsys, address, said):
    pytest.importorskip("ray")
    assert said in fails(capsys, "run", "tiny.yaml", "--report=false", "--address", address)


@pytest.mark.slow
def test_an_address_where_something_else_listens_is_told_in_time(here, capsys, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setattr(ray_engine, "CONNECT_SECONDS", 15.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert "no Ray cluster" in fails(capsys, "run", "tiny.yaml", "--report=false", "--address", address)


def test_a_plan_of_many_shapes_measures_some_and_lists_some(here, capsys, monkeypatch):
    monkeypatch.setattr(estimate, "MEASURING_SECONDS", 0.0)
    monkeypatch.setattr(plan, "LISTED", 3)
    said = said_by(capsys, "plan", "tiny.yaml", "--units=2,4,6,8,10")
    assert "and 2 more populations" in said
    assert "estimated, as measured" in said


def test_a_survey_says_it_all():
    survey = Survey(8, 3, (), 2, 4, 0.5, 120.0, retries=2)
    said = describe_survey(survey)
    for part in ("3 of 8 results", "50 % of the work", "2 wait", "2 min left", "begun again 2 times"):
        assert part in said
    console = Console(width=150, record=True, file=StringIO())
    console.print(draw_survey(survey, 30.0))
    drawn = console.export_text()
    for part in ("3/8 results", "50 %", "30 s gone", "2 min left", "2 populations wait"):
        assert part in drawn


@pytest.mark.slow
def test_quick_gives_a_matrix(tmp_path, capsys, monkeypatch):
    """The study that is shipped, shortened, with two workers of a Ray cluster of this machine."""
    pytest.importorskip("ray")
    from pathlib import Path

    file = Path(__file__).parents[1] / "conf" / "study" / "quick.yaml"
    monkeypatch.chdir(tmp_path)
    options = ["--epochs", "2", "--seeds", "2", "--data.source.speakers", "40", "--cells", "rnn"]
    began = time.monotonic()
    main(["study", "run", str(file), *options, "--workers", "2", "--name", "short"])
    assert time.monotonic() - began < 600
    frame = StudyFolder("runs/study/short").ledger.frame()
    assert sorted(frame["sigma_train"].unique()) == [0.0, 1.0, 2.0]
    assert len(frame) == 6 * (1 + 5 * 5)
    matrix = pd.pivot_table(frame, "accuracy", "sigma_train", "strength")
    assert matrix.shape == (3, 6)
    assert "asr-dni: error" not in capsys.readouterr().err
    assert yaml.safe_load(Path("runs/study/short/study.yaml").read_text())["epochs"] == 2


def test_an_abbreviated_setting_is_a_mistake(capsys, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    with pytest.raises(SystemExit) as ended:
        main(["study", "plan", "conf/study/quick.yaml", "--epoch", "1"])
    assert ended.value.code == 2
    assert "--epoch" in capsys.readouterr().err
