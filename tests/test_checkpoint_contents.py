"""Whatever is in a checkpoint, every command that reads one works or says in one line what is wrong."""

import copy
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import asr_dni
from asr_dni.cli.main import main
from asr_dni.data import data_from_checkpoint
from asr_dni.errors import UserError
from asr_dni.model import KeywordSpotter, Member, PopulationSpotter, split_checkpoint
from asr_dni.model.network import NetworkSettings

pytestmark = pytest.mark.filterwarnings("ignore")

TINY = {
    "name": "tiny",
    "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    "model": {"network": {"units": 3, "layers": 1}},
    "noise_curve": {"sigmas": [0.0], "draws": 1, "every_n_epochs": 0},
    "checkpoint": {"monitor": "val/accuracy"},
    "wandb": "disabled",
}


@pytest.fixture(scope="module")
def configurations(tone_words, tone_cache) -> dict[str, dict[str, Any]]:
    """Those of a training on digits and of one on recordings."""
    source = {"class_path": "asr_dni.data.Folder", "init_args": {"path": str(tone_words)}}
    kinds: dict[str, Any] = {
        "digits": {"data_class": "DigitsData"},
        "recordings": {"data": {"source": source, "cache_dir": str(tone_cache), "batch_size": 9}},
    }
    return {kind: {**TINY, **data, "name": kind} for kind, data in kinds.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, configurations) -> dict[str, dict[str, Any]]:
    """Contents of the checkpoints of both."""
    folder = tmp_path_factory.mktemp("trained")
    contents = {}
    before = Path.cwd()
    os.chdir(folder)
    try:
        for kind, settings_of_kind in configurations.items():
            (folder / "tiny.yaml").write_text(yaml.safe_dump(settings_of_kind))
            main(["fit", "--config", "tiny.yaml", "--test_after_fit", "false"])
            path = folder / "runs" / kind / "version_0" / "checkpoints" / "last.ckpt"
            contents[kind] = torch.load(path, weights_only=True)
    finally:
        os.chdir(before)
    return contents


@pytest.fixture
def here(tmp_path, monkeypatch, configurations):
    monkeypatch.chdir(tmp_path)
    for kind, settings_of_kind in configurations.items():
        (tmp_path / f"{kind}.yaml").write_text(yaml.safe_dump(settings_of_kind))
    return tmp_path


COMMANDS = ("noise-curve", "test", "validate", "predict", "fit")


def command_line(command: str, path: str = "changed.ckpt", kind: str = "recordings") -> list[str]:
    if command == "noise-curve":
        return ["noise-curve", path, "--sigmas", "0", "--draws", "1"]
    fit = ["--config", f"{kind}.yaml", "--trainer.max_epochs", "2", "--test_after_fit", "false"]
    return [
        command,
        "--ckpt_path",
        path,
        *(fit if command == "fit" else []),
        *(["--wandb", "disabled"] if command != "predict" else []),
    ]


def said_by(capsys, command: str) -> str:
    """Run a command on a checkpoint that it has to refuse; return the line that says why."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(command_line(command))
    said = capsys.readouterr().err
    assert ended.value.code == 2, said
    assert re.fullmatch(r"asr-dni: error: [^\n]+\n", said.splitlines(keepends=True)[-1]), said
    assert "Traceback" not in said
    return said


def put(contents: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return contents with another value for a dotted key; ``...`` leaves it out."""
    contents = copy.deepcopy(contents)
    *above, last = key.split("/")
    part: Any = contents
    for name in above:
        part = part[int(name) if name.isdigit() else name]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    return contents


EVERY = ("noise-curve", "test", "fit")
ALONE = ("noise-curve", "test")
"""Commands that take their settings from a checkpoint alone."""
NOT_FINITE = "holds weights that are not finite numbers (network.classifier.bias)"
MISTAKES = [
    ("state_dict", ..., EVERY, "is not a Lightning checkpoint"),
    ("state_dict", [1], EVERY, "state_dict"),
    ("state_dict/network.classifier.bias", torch.zeros(7), EVERY, "network.classifier.bias"),
    ("state_dict/network.classifier.bias", "x", EVERY, "network.classifier.bias"),
    ("state_dict/network.classifier.bias", ..., EVERY, "holds another network"),
    ("state_dict/network.classifier.bias", torch.tensor([0.0, 0.0, torch.nan]), EVERY, NOT_FINITE),
    ("state_dict/network.classifier.bias", torch.tensor([torch.inf, 0.0, 0.0]), EVERY, NOT_FINITE),
    ("state_dict/network.classifier.bias", torch.tensor([0.0, -torch.inf, 0.0]), EVERY, NOT_FINITE),
    ("hyper_parameters", [1], EVERY, "hyper_parameters"),
    ("hyper_parameters", ..., ALONE, "holds no keyword spotter"),
    ("hyper_parameters/model/colour", "red", ALONE, "colour"),
    ("hyper_parameters/model/network/units", "many", ALONE, "units"),
    ("hyper_parameters/model/network/units", None, ALONE, "units"),
    ("hyper_parameters/model/network/units", 10**9, ALONE, "units"),
    ("hyper_parameters/model/network/depth", 3, ALONE, "depth"),
    ("hyper_parameters/model/network", 3, ALONE, "network"),
    ("hyper_parameters/model/noise", ..., ALONE, "noise"),
    ("hyper_parameters/model/label_names", "abc", ALONE, "label_names"),
    ("hyper_parameters/model/n_features", 10**12, ("noise-curve",), "number of features"),
    ("datamodule_hyper_parameters/data/front_end/init_args/n_mels", 10**7, ALONE, "n_mels"),
    ("datamodule_hyper_parameters/data/clip_seconds", 1e9, ALONE, "clip_seconds"),
    ("datamodule_hyper_parameters/data/batch_size", -1, ("test",), "batch_size"),
    ("datamodule_hyper_parameters/data/source/init_args/colour", "red", ALONE, "colour"),
    ("datamodule_hyper_parameters/data/source/init_args/path", ["x"], ALONE, "path"),
    ("datamodule_hyper_parameters/data/source", 7, ALONE, "source"),
    ("datamodule_hyper_parameters/data/front_end", ..., ("noise-curve",), "front_end"),
    ("KeywordData/statistics", ..., EVERY, "statistics"),
    ("KeywordData/statistics/mean", torch.zeros(3), EVERY, "front end"),
    ("KeywordData/label_names", 7, EVERY, "label_names"),
    ("sigma_train/now", "x", EVERY, "sigma_train.now"),
    ("trainings", 7, EVERY, "trainings"),
    ("pytorch-lightning_version", ..., ("test", "fit"), "pytorch-lightning_version"),
    ("pytorch-lightning_version", "new", ("test", "fit"), "pytorch-lightning_version"),
    ("epoch", "x", ("test", "fit"), "epoch"),
    ("optimizer_states", ..., ("fit",), "has no optimizer_states"),
    ("optimizer_states", [], ("fit",), "one optimiser"),
    ("optimizer_states/0/state/0/exp_avg", torch.zeros(7), ("fit",), "optimiser's state"),
    ("optimizer_states/0/state/0/exp_avg", "x", ("fit",), "optimiser's state"),
    (
        "optimizer_states/0/state/5/exp_avg",
        torch.tensor([0.0, torch.nan, 0.0]),
        ("fit",),
        "not finite numbers",
    ),
    ("lr_schedulers/0/last_epoch", "x", ("fit",), "last_epoch"),
    ("lr_schedulers/0/optimizer", 7, ("fit",), "optimizer"),
    ("loops", 7, ("fit",), "loops"),
    ("loops/fit_loop/epoch_progress/current/completed", "x", ("fit",), "epoch_progress.current.completed"),
    ("callbacks", [1], ("fit",), "callbacks"),
]


ONE_COMMAND_EACH = [
    (key, value, [commands[index % len(commands)]], named)
    for index, (key, value, commands, named) in enumerate(MISTAKES)
]
"""Building a command's parser takes time."""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_is_wrong_is_named_by_every_command(here, trained, capsys):
    for key, value, commands, named in MISTAKES:
        test_what_is_wrong_is_named(here, trained, capsys, key, value, commands, named)


@pytest.mark.parametrize(
    ("key", "value", "commands", "named"), ONE_COMMAND_EACH, ids=lambda value: str(value)[:50]
)
def test_what_is_wrong_is_named(here, trained, capsys, key, value, commands, named):
    torch.save(put(trained["recordings"], key, value), here / "changed.ckpt")
    for command in commands:
        said = said_by(capsys, command)
        assert named in said, (command, said)
        assert command != "noise-curve" or "init_args" in key or "changed.ckpt" in said


def test_the_unchanged_one_works_everywhere(here, trained):
    for kind, commands in (
        ("digits", ("noise-curve", "test")),
        ("recordings", ("noise-curve", "fit", "predict")),
    ):
        torch.save(trained[kind], here / "changed.ckpt")
        for command in commands:
            main(command_line(command))


def test_a_tensor_larger_than_its_file(here, trained, capsys):
    huge = torch.zeros(1).expand(10**12)
    torch.save(put(trained["digits"], "DigitsData/statistics/mean", huge), here / "changed.ckpt")
    assert "larger than the file says" in said_by(capsys, "noise-curve")
    sparse = torch.sparse_coo_tensor(torch.zeros(1, 0, dtype=torch.long), torch.zeros(0), (10**12,))
    torch.save(put(trained["digits"], "DigitsData/statistics/mean", sparse), here / "changed.ckpt")
    assert "larger than the file says" in said_by(capsys, "noise-curve")


def test_a_compressed_file_is_not_unpacked(here, trained, capsys):
    torch.save(trained["digits"], here / "plain.ckpt")
    with (
        zipfile.ZipFile(here / "plain.ckpt") as plain,
        zipfile.ZipFile(here / "changed.ckpt", "w", zipfile.ZIP_DEFLATED) as compressed,
    ):
        for entry in plain.infolist():
            compressed.writestr(entry.filename, plain.read(entry))
    assert "cannot be read as a checkpoint" in said_by(capsys, "noise-curve")


@pytest.mark.parametrize("command", ["noise-curve", pytest.param("fit", marks=pytest.mark.slow)])
def test_references_that_multiply(command, here, trained, capsys):
    bomb: Any = "lol"
    for _ in range(9):
        bomb = [bomb] * 9
    torch.save(put(trained["digits"], "hyper_parameters/model/schedule", bomb), here / "changed.ckpt")
    assert "holds more than a checkpoint does" in said_by(capsys, command)


# ---------------------------------------------------------------------- at random

STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(0, 3), max_size=2),
    st.builds(torch.zeros, st.integers(0, 5)),
    st.just(...),
)


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return the keys of everything in a checkpoint."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in pairs:
        yield (*above, key)
        yield from places(part, (*above, key))


def changed(contents: dict[str, Any], data: st.DataObject) -> tuple[dict[str, Any], list[Any]]:
    """Return contents with one or two things in them changed, and what."""
    contents = copy.deepcopy(contents)
    changes = []
    for _ in range(data.draw(st.integers(1, 2))):
        top = data.draw(
            st.sampled_from(sorted(contents))
        )  # so that weights are not nearly all there is to change
        keys = data.draw(st.sampled_from([(top,), *(((top, *inner)) for inner in places(contents[top]))]))
        value = data.draw(STRANGE)
        part: Any = contents
        for key in keys[:-1]:
            part = part[key]
        if value is ...:
            del part[keys[-1]]
        else:
            part[keys[-1]] = value
        changes.append((keys, value))
    return contents, changes


def works_or_refuses(function: Callable[[Any], Any], argument: Any) -> None:
    said = ""
    try:
        function(argument)
    except UserError as error:
        said = str(error)
    assert "\n" not in said


def runs_or_refuses(command: list[str]) -> None:
    code: object = 0
    try:
        main(command)
    except SystemExit as ended:
        code = ended.code
    assert code in (0, 2)


def fuzz(here, trained, data) -> None:
    kind = data.draw(st.sampled_from(sorted(trained)))
    contents, changes = changed(trained[kind], data)
    torch.save(contents, here / "changed.ckpt")
    command = data.draw(st.sampled_from((*COMMANDS, "load")))
    shutil.rmtree(here / "runs", ignore_errors=True)
    print(command, changes)
    if command == "load":
        works_or_refuses(asr_dni.load, "changed.ckpt")
    else:
        runs_or_refuses(command_line(command, kind=kind))


FUZZ = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    "database": None,
    "phases": [Phase.explicit, Phase.generate],  # shrinking would take minutes
}


@settings(max_examples=8, derandomize=True, **FUZZ)
@given(data=st.data())
def test_a_changed_checkpoint_works_or_is_refused(here, trained, data):
    fuzz(here, trained, data)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=300, **FUZZ)
@given(data=st.data())
def test_a_checkpoint_changed_in_many_ways_works_or_is_refused(here, trained, data):
    fuzz(here, trained, data)


@settings(max_examples=80, derandomize=True, **FUZZ)
@given(data=st.data())
def test_in_python_a_changed_checkpoint_works_or_is_refused(trained, data):
    contents, _ = changed(trained[data.draw(st.sampled_from(sorted(trained)))], data)
    for take in (KeywordSpotter.from_checkpoint, data_from_checkpoint):
        works_or_refuses(take, contents)


# ---------------------------------------------------------------------- populations


@pytest.fixture(scope="module")
def population() -> dict[str, Any]:
    spotter = PopulationSpotter(
        [Member(seed=k) for k in range(2)], ["a", "b"], 4, NetworkSettings(units=2, layers=1)
    )
    contents: dict[str, Any] = {
        "state_dict": spotter.state_dict(),
        "hyper_parameters": dict(spotter.hparams),
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": "2.6.0",
    }
    spotter.on_save_checkpoint(contents)
    return contents


def test_a_population_is_taken_apart(population):
    assert len(split_checkpoint(population)) == 2


@settings(max_examples=60, derandomize=True, **FUZZ)
@given(data=st.data())
def test_a_changed_population_works_or_is_refused(population, data):
    contents, _ = changed(population, data)
    for take in (PopulationSpotter.from_checkpoint, split_checkpoint):
        works_or_refuses(take, contents)
