"""SIGKILL at random moments: nothing that has its name is half-written, and what goes on ends as if nothing had been.

``ASR_DNI_KILLS`` sets the number of kills of all tests together; each has its share of them.
"""

import json
import math
import multiprocessing
import os
import random
import signal
import time
import xml.etree.ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet
import pytest
import torch
import yaml
from file_systems import other_file_system
from PIL import Image
from recordings import make_folder
from tiny_study import SETTINGS

from asr_dni.checkpoint import read_checkpoint
from asr_dni.cli.main import main
from asr_dni.data import Folder
from asr_dni.data.store import PackedStore, pack
from asr_dni.study.folder import StudyFolder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

KILLS = int(os.environ.get("ASR_DNI_KILLS", "240"))
LONGEST_SECONDS = 300.0  # an uninterrupted run of any of the commands

FIT = {
    "data_class": "DigitsData",
    "data": {"batch_size": 512},
    "model": {"network": {"units": 4, "layers": 1}},
    "trainer": {"accelerator": "cpu", "max_epochs": 4, "log_every_n_steps": 1},
    "noise_curve": {"sigmas": [0.0, 1.0], "draws": 1, "validation_draws": 1, "every_n_epochs": 2},
    "annealing": {"sigma": 1.0},
    "wandb": "disabled",
}
STUDY = {
    **SETTINGS,
    "data": {"class_path": "asr_dni.data.DigitsData", "init_args": {"batch_size": 512}},
    "population": {"members": 2},
    "keep_checkpoints": True,
}
LAST = Path("runs/digits/version_0/checkpoints/last.ckpt")

processes = multiprocessing.get_context("forkserver")
# A process that has everything imported and no threads: a start of a command costs a fork of it.
processes.set_forkserver_preload(
    [
        *(
            "asr_dni.cli.lightning",
            "asr_dni.cli.noise_curve",
            "asr_dni.cli.study.commands",
            "asr_dni.study.work",
        ),
        *("asr_dni.study.engine", "asr_dni.data.digits", "sklearn.datasets", "matplotlib.pyplot"),
        *("asr_dni.evaluation.figures.noise_curves", "PIL.Image", "wandb"),
    ]
)


@pytest.fixture(autouse=True, scope="module")
def _import_once():
    """Have everything imported before a run is timed."""
    process = processes.Process(target=os.getpid)
    process.start()
    process.join()


def share(of_240: int) -> int:
    return max(1, math.ceil(KILLS * of_240 / 240))


@contextmanager
def file_system(kind: str, tmp_path: Path) -> Iterator[Path]:
    """Yield a folder on the file system of temporary files, or on another."""
    if kind == "same":
        yield tmp_path
    else:
        with other_file_system() as folder:
            yield folder


def run(function: Callable[..., None], arguments: tuple, folder: Path, log: Path) -> None:
    """Be the process of a command."""
    os.chdir(folder)
    torch.set_num_threads(1)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    function(*arguments)


def start(function, arguments, folder, log):
    process = processes.Process(target=run, args=(function, arguments, folder, log))
    process.start()
    return process


def seconds_of(function, arguments, folder, log) -> float:
    """Run a command to its end; return how long it took."""
    began = time.monotonic()
    process = start(function, arguments, folder, log)
    process.join(LONGEST_SECONDS)
    assert process.exitcode == 0, log.read_text()
    return time.monotonic() - began


def kill_again_and_again(
    kills: int,
    seed: str,
    seconds: float,
    begin: Callable[[], Callable[[], tuple]],
    inspect: Callable[[], None],
    compare: Callable[[], None],
    log: Path,
    kill: Callable[[multiprocessing.process.BaseProcess, random.Random], None] = lambda process, _: (
        process.kill()
    ),
) -> None:
    """Start, kill, look, and start again until it ends; begin anew until there were so many kills.

    Args:
        kills: how many.
        seed: of the moments.
        seconds: of an uninterrupted run.
        begin: clears the way for a new run; returns what is called for each start's function, arguments and folder.
        inspect: looks at what a kill has left.
        compare: looks at what a run has left that came to its end.
        log: what the processes say.
        kill: kills.
    """
    moments = random.Random(seed)
    killed = finished = 0
    while killed < kills or not finished:
        next_start = begin()
        for _ in range(10 * kills + 10):
            process = start(*next_start(), log)
            # Nothing more is killed when there were enough: the last run comes to its end.
            if killed < kills:
                process.join(moments.uniform(0.0, seconds))
                if process.is_alive():
                    kill(process, moments)
                    killed += 1
            process.join(LONGEST_SECONDS)
            assert process.exitcode in (0, -signal.SIGKILL), log.read_text()[-5000:]
            inspect()
            if process.exitcode == 0:
                break
        else:
            pytest.fail(f"no run came to its end:\n{log.read_text()[-5000:]}")
        compare()
        finished += 1
    print(
        f"{killed} kills, {finished} runs that came to their end, each of {seconds:.1f} s if it is not killed"
    )


# ---------------------------------------------------------------------- what is whole


def check_csv(path):
    table = pd.read_csv(path, comment="#")
    assert len(table) > 0
    assert path.read_text().endswith("\n")
    if path.name == "metrics.csv":
        assert table["step"].notna().all()


def check_image(path):
    with Image.open(path) as image:
        image.verify()


CHECKS = {
    ".ckpt": lambda path: read_checkpoint(path)["state_dict"],
    ".csv": check_csv,
    ".json": lambda path: json.loads(path.read_text()),
    ".yaml": lambda path: yaml.safe_load(path.read_text()).items(),
    ".png": check_image,
    ".svg": xml.etree.ElementTree.parse,
    ".parquet": pyarrow.parquet.read_table,
}


def check_all(folder: Path) -> None:
    """Load every file that has its name; those that are still being written begin with a dot."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            try:
                CHECKS[path.suffix](path)
            except Exception as error:
                raise AssertionError(f"{path} is not whole: {error}") from error


def assert_same(first, second, where=""):
    """Assert that two checkpoints' parts are the same bit for bit."""
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_same(one, other, f"{where}[{index}]")
    else:
        assert first == second, where


def assert_same_checkpoint(first: Path, second: Path) -> None:
    first, second = read_checkpoint(first), read_checkpoint(second)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step", "trainings"):
        assert_same(first[key], second[key], key)


# ---------------------------------------------------------------------- fit


@pytest.mark.parametrize("place", ["same", "other"])
def test_a_training_goes_on_to_the_same_end(tmp_path, place):
    command = ("fit", "--config", "digits.yaml", "--name", "digits")
    with file_system(place, tmp_path) as top:
        whole, broken, log = top / "whole", top / "broken", tmp_path / "log"
        for folder in (whole, broken):
            folder.mkdir()
            (folder / "digits.yaml").write_text(yaml.safe_dump(FIT))
        seconds = seconds_of(main, (command,), whole, log)
        steps = [0]

        def begin():
            steps[0] = 0
            if (broken / "runs").exists():
                (broken / "runs").rename(top / f"done{time.monotonic_ns()}")

            def next_start():
                if (broken / LAST).is_file():
                    return main, (("fit", "--ckpt_path", str(LAST)),), broken
                if (broken / "runs").exists():  # nothing to go on from
                    (broken / "runs").rename(top / f"begun{time.monotonic_ns()}")
                return main, (command,), broken

            return next_start

        def inspect():
            check_all(broken)
            if (broken / LAST).is_file():
                now = read_checkpoint(broken / LAST)["global_step"]
                assert now >= steps[0]  # nothing is lost that was there
                steps[0] = now

        def compare():
            run = LAST.parents[1]
            assert os.listdir(broken / run.parent) == [run.name]
            for name in ("last.ckpt", "best.ckpt"):
                assert_same_checkpoint(
                    broken / run / "checkpoints" / name, whole / run / "checkpoints" / name
                )
            names = [
                "metrics.csv",
                "noise_curve.csv",
                "noise_curve_validation.csv",
                "config.yaml",
                "hparams.yaml",
            ]
            for name in names:
                assert (broken / run / name).read_text() == (whole / run / name).read_text(), name
            for found in (broken, whole):
                assert len(list((found / run / "noise_curves_validation").iterdir())) == 2

        kill_again_and_again(share(50), place, seconds, begin, inspect, compare, log)


# ---------------------------------------------------------------------- studies


def results(folder: Path) -> pd.DataFrame:
    frame = StudyFolder(folder).ledger.frame()
    frame = frame.drop(columns=["recorded_at", "train_seconds"])
    return frame.sort_values(["member", "strength", "draw"]).reset_index(drop=True)


def kill_a_study(tmp_path, options, kills, seed, kill=lambda process, _: process.kill()):
    whole, broken, log = tmp_path / "whole", tmp_path / "broken", tmp_path / "log"
    for folder in (whole, broken):
        folder.mkdir()
        (folder / "tiny.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    command = ("study", "run", "tiny.yaml", "--output", "study", "--checkpoint_seconds", "0", *options)
    seconds = seconds_of(main, (command,), whole, log)

    def begin():
        if (broken / "study").exists():
            (broken / "study").rename(tmp_path / f"done{time.monotonic_ns()}")
        return lambda: (main, (command,), broken)

    def compare():
        pd.testing.assert_frame_equal(
            results(broken / "study"), results(whole / "study"), check_exact=True, check_categorical=False
        )
        kept = sorted(path.name for path in (whole / "study" / "checkpoints").iterdir())
        assert len(kept) == 4
        for name in kept:
            first, second = (read_checkpoint(f / "study" / "checkpoints" / name) for f in (broken, whole))
            assert_same(first["state_dict"], second["state_dict"])

    kill_again_and_again(kills, seed, seconds, begin, lambda: check_all(broken), compare, log, kill)


@pytest.mark.parametrize("place", ["same", "other"])
def test_a_study_goes_on_to_the_same_results(tmp_path, place):
    with file_system(place, tmp_path) as folder:
        kill_a_study(folder, ("--workers", "0", "--report", "false"), share(25), place)


def kill_the_start_or_a_worker(process, moments):
    """Kill one of the processes: the start itself, or one that trains for it."""
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if child.name().startswith("ray::") and "IDLE" not in child.name()
    ]
    if workers and moments.random() < 0.5:
        moments.choice(workers).kill()
    else:
        process.kill()


def test_a_study_with_workers_goes_on_to_the_same_results(tmp_path):
    pytest.importorskip("ray")
    options = ("--workers", "2", "--report", "false")
    kill_a_study(tmp_path, options, share(10), "ray", kill_the_start_or_a_worker)


# ---------------------------------------------------------------------- data and curves


def decode(words: Path, cache: Path) -> None:
    source = Folder(words)
    pack(source.clips(), source.background(), identity=source.identity, cache_dir=cache, num_workers=2)


@pytest.mark.parametrize("place", ["same", "other"])
def test_recordings_are_decoded_to_the_same_store(tmp_path, place):
    words = make_folder(tmp_path / "words", per_split=(40, 5, 5))
    with file_system(place, tmp_path) as folder:
        whole, broken, log = folder / "whole", folder / "broken", tmp_path / "log"
        seconds = seconds_of(decode, (words, whole), tmp_path, log)
        (expected,) = (path for path in whole.iterdir() if path.is_dir())

        def begin():
            if broken.exists():
                broken.rename(folder / f"done{time.monotonic_ns()}")
            return lambda: (decode, (words, broken), tmp_path)

        def stores():
            return [path for path in broken.glob("*") if not path.name.startswith(".")]

        def inspect():
            for path in stores():
                store = PackedStore(path)
                np.testing.assert_array_equal(store.audio, PackedStore(expected).audio)

        def compare():
            (store,) = stores()
            for path in expected.iterdir():
                assert (store / path.name).read_bytes() == path.read_bytes()
            assert not list(broken.glob("*partial*"))

        kill_again_and_again(share(25), place, seconds, begin, inspect, compare, log)


def test_a_noise_curve_is_there_whole_or_not_at_all(tmp_path):
    log, here = tmp_path / "log", tmp_path / "here"
    here.mkdir()
    (here / "digits.yaml").write_text(yaml.safe_dump({**FIT, "test_after_fit": False}))
    seconds_of(main, (("fit", "--config", "digits.yaml", "--name", "digits"),), here, log)
    command = ("noise-curve", str(LAST), "--sigmas", "[0,1,2]", "--draws", "2", "--output")
    seconds = seconds_of(main, ((*command, "whole"),), here, log)
    broken = here / "broken"

    def begin():
        if broken.exists():
            broken.rename(tmp_path / f"done{time.monotonic_ns()}")
        return lambda: (main, ((*command, "broken"),), here)

    def compare():
        for name in ("noise_curve.csv", "noise_curve.png"):
            assert (broken / name).read_bytes() == (here / "whole" / name).read_bytes()

    kill_again_and_again(share(30), "curve", seconds, begin, lambda: check_all(here), compare, log)
