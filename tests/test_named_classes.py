"""No configuration, wherever it comes from, imports or calls what the user did not name."""

import copy
import os
import pickle
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from asr_dni.cli.main import main
from asr_dni.configuration import from_configuration
from asr_dni.data import DigitsData, Folder, KeywordData, Source
from asr_dni.errors import UserError
from asr_dni.named_classes import find_class, modules_of, only_named_classes

pytestmark = pytest.mark.filterwarnings("ignore")

CANARY = """
from pathlib import Path
Path({marker!r}).write_text("imported")
from asr_dni.data import Folder
from torch.optim import Adam

def call(*arguments, **keywords):
    Path({marker!r}).write_text("called")

class Words(Folder):
    pass

class Steps(Adam):
    pass
"""
TINY = {
    "name": "tiny",
    "data_class": "DigitsData",
    "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    "model": {"network": {"units": 4, "layers": 1}},
    "noise_curve": {"sigmas": [0.0], "draws": 1, "every_n_epochs": 0},
    "checkpoint": {"monitor": None},
    "wandb": "disabled",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The checkpoint of a training on digits."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    before = Path.cwd()
    os.chdir(folder)
    try:
        main(["fit", "--config", "tiny.yaml", "--test_after_fit", "false"])
    finally:
        os.chdir(before)
    return folder / "runs" / "tiny" / "version_0" / "checkpoints" / "last.ckpt"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder with a module that tells when it is imported, or a function of it called."""
    (tmp_path / "canary.py").write_text(CANARY.format(marker=str(tmp_path / "RAN")))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("canary", None)


def fails(capsys, *command: str) -> str:
    """Run a command that is a mistake, and return the one line that says so."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(list(command))
    said = capsys.readouterr().err
    assert ended.value.code == 2, said
    assert re.fullmatch(r"asr-dni: error: [^\n]+\n", said), said
    return said


def hostile(marker: Path) -> list:
    """Configurations of objects that would leave a mark, or run what they are given."""
    touch = f"touch {marker}"
    return [
        {"class_path": "os.system", "init_args": {"command": touch}},
        {"class_path": "os.system", "dict_kwargs": {"command": touch}},
        {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", str(marker)]}},
        {"class_path": "builtins.eval", "init_args": {"source": f"open({str(marker)!r}, 'w')"}},
        {"class_path": "builtins.exec", "init_args": {"source": f"open({str(marker)!r}, 'w')"}},
        {"class_path": "importlib.import_module", "init_args": {"name": "canary"}},
        {"class_path": "logging.config.dictConfig", "init_args": {"config": {"()": "canary.call"}}},
        {"class_path": "pickle.loads", "init_args": {"data": "x"}},
        {
            "class_path": "asr_dni.data.source.inspect.importlib.import_module",
            "init_args": {"name": "canary"},
        },
        {"class_path": "torch.optim.os.system", "init_args": {"command": touch}},
        {"class_path": "canary.Words", "init_args": {"path": "words"}},
        {"class_path": "canary.Steps"},
        {"class_path": "canary.call"},
        "canary.Words",
        "canary.Steps",
        "canary.call",
        "os.getcwd",
    ]


PLACES = (
    "model.optimizer",
    "trainer.logger",
    "trainer.callbacks",
    "trainer.strategy",
    "trainer.profiler",
    "trainer.plugins",
    "trainer.accelerator",
    "data.source",
    "data.front_end",
    "data.deformation",
    "model.network",
    "model.noise",
    "model",
    "data",
)
LIGHTNING_CARRIERS = (
    lambda value: {
        "class_path": "pytorch_lightning.callbacks.LambdaCallback",
        "init_args": {"on_fit_start": value},
    },
    lambda value: {
        "class_path": "pytorch_lightning.callbacks.StochasticWeightAveraging",
        "init_args": {"swa_lrs": 0.1, "avg_fn": value},
    },
    lambda value: {
        "class_path": "pytorch_lightning.profilers.PyTorchProfiler",
        "dict_kwargs": {"schedule": value},
    },
    lambda value: {"class_path": "pytorch_lightning.loggers.CSVLogger", "init_args": {"save_dir": value}},
    lambda value: {
        "class_path": "pytorch_lightning.strategies.DDPStrategy",
        "init_args": {"ddp_comm_hook": value, "checkpoint_io": value},
    },
)
SPELLINGS = (lambda value: value, lambda value: [value], *LIGHTNING_CARRIERS)


def nest(place: str, value) -> dict:
    for key in reversed(place.split(".")):
        value = {key: value}
    return value


def run(*command: str) -> None:
    """Run a command that may refuse, but not otherwise fail."""
    code: object = 0
    try:
        main(list(command))
    except SystemExit as ended:
        code = ended.code
    assert code in (0, 2)


@pytest.mark.parametrize("command", ["fit", "test"])
@pytest.mark.parametrize("index", [0, 10, 15])
def test_a_named_function_or_module_is_refused_in_one_line(here, trained, capsys, command, index):
    value = hostile(here / "RAN")[index]
    (here / "more.yaml").write_text(yaml.safe_dump(nest("model.optimizer", value)))
    options = [] if command == "fit" else ["--ckpt_path", str(trained)]
    said = fails(capsys, command, "--config", "tiny.yaml", "--config", "more.yaml", *options)
    assert "not among the classes that a configuration may name" in said or "--allow" in said
    assert "model.optimizer: " in said
    assert not (here / "RAN").exists()
    assert not (here / "runs").exists()


def try_a_configuration(here: Path, trained: Path, place: str, value, where: str) -> None:
    """Give a configuration to a command, in one of the ways in which there are some."""
    shutil.rmtree(here / "runs", ignore_errors=True)
    settings = nest(place, value)
    (here / "more.yaml").write_text(yaml.safe_dump(settings))
    if where == "file":
        run("fit", "--config", "tiny.yaml", "--config", "more.yaml", "--trainer.fast_dev_run", "true")
    elif where == "option":
        text = (
            value
            if isinstance(value, str)
            else yaml.safe_dump(value, default_flow_style=True, width=10_000).strip()
        )
        run("fit", "--config", "tiny.yaml", f"--{place}", text, "--trainer.fast_dev_run", "true")
    elif where == "appended":
        text = (
            value
            if isinstance(value, str)
            else yaml.safe_dump(value, default_flow_style=True, width=10_000).strip()
        )
        run("fit", "--config", "tiny.yaml", f"--{place}+={text}", "--trainer.fast_dev_run", "true")
    elif where == "file in an option":
        (here / "value.yaml").write_text(yaml.safe_dump(value))
        run("fit", "--config", "tiny.yaml", f"--{place}", "value.yaml", "--trainer.fast_dev_run", "true")
    elif where == "help":
        name = value["class_path"] if isinstance(value, dict) else str(value)
        run("fit", f"--{place}.help={name}")
    elif where == "checkpoint":
        contents = torch.load(trained, weights_only=True)
        part, _, rest = place.partition(".")
        key = {"model": "hyper_parameters", "data": "datamodule_hyper_parameters"}.get(part)
        if key is None:
            return
        kept = contents[key] if not rest else contents[key][part]
        kept[rest or part] = value
        torch.save(contents, here / "hostile.ckpt")
        run("test", "--ckpt_path", "hostile.ckpt")
        run("noise-curve", "hostile.ckpt", "--sigmas", "0", "--draws", "1")
    elif where == "beside a checkpoint":
        folder = here / "found" / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(trained, folder / "last.ckpt")
        merged = copy.deepcopy(TINY)
        for key, part in settings.items():
            merged[key] = {**merged.get(key, {}), **part} if isinstance(part, dict) else part
        (folder.parent / "config.yaml").write_text(yaml.safe_dump(merged))
        run("predict", "--ckpt_path", str(folder / "last.ckpt"))
    else:
        study = {"name": "tiny", "data_class": "DigitsData", "units": [2], "epochs": 1, "seeds": 1}
        key = "optimizer" if place == "model.optimizer" else place
        (here / "study.yaml").write_text(yaml.safe_dump({**study, **nest(key, value)}))
        run("study", "plan", "study.yaml", "--measure", "false")
        run("study", "status", ".")


WAYS = (
    "file",
    "option",
    "appended",
    "file in an option",
    "help",
    "checkpoint",
    "beside a checkpoint",
    "study",
)
FUZZ = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    "database": None,
    "phases": [Phase.explicit, Phase.generate],  # shrinking would take minutes
}


def fuzz(here, trained, data) -> None:
    value = data.draw(st.sampled_from(hostile(here / "RAN")))
    value = data.draw(st.sampled_from(SPELLINGS))(value)
    place, where = data.draw(st.sampled_from(PLACES)), data.draw(st.sampled_from(WAYS))
    try_a_configuration(here, trained, place, value, where)
    assert not (here / "RAN").exists(), (place, value, where)
    assert "canary" not in sys.modules


@settings(max_examples=12, derandomize=True, **FUZZ)
@given(data=st.data())
def test_nothing_hostile_runs(here, trained, data):
    fuzz(here, trained, data)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=200, **FUZZ)
@given(data=st.data())
def test_nothing_hostile_runs_however_it_is_written(here, trained, data):
    fuzz(here, trained, data)


class _Runs:
    """Its pickle calls a function when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("form", ["pickle", "in a checkpoint"])
@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "noise-curve"])
def test_a_pickle_in_a_checkpoint_does_not_run(here, trained, capsys, command, form, monkeypatch):
    monkeypatch.setenv(
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1"
    )  # a setting of torch that is not the user's word for us
    contents = torch.load(trained, weights_only=True)
    contents["hyper_parameters"]["model"]["schedule"] = _Runs(here / "RAN")
    if form == "pickle":
        (here / "hostile.ckpt").write_bytes(pickle.dumps(contents))
    else:
        torch.save(contents, here / "hostile.ckpt")
    option = [] if command == "noise-curve" else ["--ckpt_path"]
    assert "hostile.ckpt" in fails(capsys, command, *option, "hostile.ckpt")
    assert not (here / "RAN").exists()


# ---------------------------------------------------------------------- what may be named


@pytest.mark.parametrize(
    "path",
    [
        "torch.optim.AdamW",
        "torch.optim.sgd.SGD",
        "pytorch_lightning.callbacks.EarlyStopping",
        "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
        "pytorch_lightning.loggers.CSVLogger",
        "pytorch_lightning.strategies.DDPStrategy",
        "pytorch_lightning.profilers.SimpleProfiler",
        "pytorch_lightning.accelerators.CPUAccelerator",
        "pytorch_lightning.plugins.MixedPrecision",
        "lightning_fabric.plugins.environments.LightningEnvironment",
        "asr_dni.data.Folder",
        "asr_dni.data.digits.DigitsData",
        "asr_dni.evaluation.NoiseCurveCallback",
        "asr_dni.study.noise_settings.ScheduleSettings",
    ],
)
def test_classes_of_the_kinds_may_be_named(path):
    module, _, name = path.rpartition(".")
    with only_named_classes([]):
        found = find_class(path)
    assert found is getattr(sys.modules[module], name)


@pytest.mark.parametrize("command", ["fit", "noise-curve", "study"])
def test_own_classes_are_taken_from_modules_that_the_user_names(
    here, tone_words, tone_cache, capsys, command, monkeypatch
):
    """And from the current folder, which the console command has not on its path."""
    monkeypatch.setattr(sys, "path", [part for part in sys.path if part != str(here)])
    source = {"class_path": "canary.Words", "init_args": {"path": str(tone_words)}}
    data = {"source": source, "cache_dir": str(tone_cache)}
    own = {**TINY, "data_class": "KeywordData", "data": data}
    own["model"] = {**TINY["model"], "optimizer": {"class_path": "canary.Steps"}}
    (here / "own.yaml").write_text(yaml.safe_dump(own))
    if command == "study":
        study = {"name": "own", "data": data, "units": [2], "epochs": 1, "seeds": 1}
        (here / "own.yaml").write_text(yaml.safe_dump(study))
        line = ["study", "plan", "own.yaml", "--measure", "false"]
    else:
        line = ["fit", "--config", "own.yaml", "--test_after_fit", "false"]
    if command == "noise-curve":
        main([*line, "--allow", "canary"])
        sys.modules.pop("canary")
        (here / "RAN").unlink()
        line = ["noise-curve", "runs/tiny/version_0/checkpoints/last.ckpt", "--sigmas", "0", "--draws", "1"]
    assert "give --allow canary" in fails(capsys, *line)
    assert not (here / "RAN").exists()
    main([*line, "--allow=canary"])
    assert (here / "RAN").read_text() == "imported"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--allow"], "--allow '': give the name of a module"),
        (["--allow", "no_such_module"], "--allow no_such_module: cannot be imported"),
        (["--allow", "a b"], "give the name of a module"),
        (["--allo", "canary"], "--allo"),
    ],
)
def test_mistakes_in_naming_a_module(here, capsys, option, message):
    assert message in fails(capsys, "fit", "--config", "tiny.yaml", *option)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--trainer.profiler", "{class_path: PyTorchProfiler, dict_kwargs: {schedule: 3}}"],
            "Schedule should be",
        ),
        (
            [
                "--trainer.callbacks+=EarlyStopping",
                "--trainer.callbacks.monitor=x",
                "--trainer.callbacks.mode=q",
            ],
            "mode",
        ),
    ],
)
def test_what_a_named_class_finds_wrong_is_one_line(here, capsys, options, message):
    assert message in fails(capsys, "fit", "--config", "tiny.yaml", *options)


def test_a_file_cannot_allow_a_module(here, capsys):
    (here / "more.yaml").write_text("allow: [canary]\n")
    assert "allow" in fails(capsys, "fit", "--config", "tiny.yaml", "--config", "more.yaml")
    assert not (here / "RAN").exists()


def test_in_python_what_the_program_has_imported_may_be_named(here, tone_words):
    configuration = {"class_path": "canary.Words", "init_args": {"path": str(tone_words)}}
    with pytest.raises(UserError, match="import canary before"):
        from_configuration(configuration, Source, "source")
    assert not (here / "RAN").exists()
    import canary

    source = from_configuration(configuration, Source, "source")
    assert type(source) is canary.Words
    assert source.configuration() == {
        **configuration,
        "init_args": Folder(tone_words).configuration()["init_args"],
    }
    # A worker of a study, another process, is told to import it too.
    assert modules_of({"class_path": "asr_dni.data.KeywordData", "init_args": {"source": configuration}}) == (
        "canary",
    )
    with pytest.raises(UserError, match=r"not a subclass of asr_dni\.data\.source\.Source"):
        from_configuration({"class_path": "canary.Steps"}, Source, "source")


def test_every_command_that_takes_it_says_so(capsys):
    for command in ("fit", "validate", "test", "noise-curve", "study run"):
        with pytest.raises(SystemExit) as ended:
            main([*command.split(), "--help"])
        assert ended.value.code == 0
        assert "--allow MODULE" in capsys.readouterr().out, command


def test_the_kinds_of_this_project_are_among_them():
    assert find_class("asr_dni.data.Folder", Source) is Folder
    assert find_class("asr_dni.data.KeywordData") is KeywordData
    assert find_class("asr_dni.data.DigitsData") is DigitsData


def test_what_is_part_of_python_is_not_offered_to_be_allowed():
    for path in ("os.system", "builtins.eval", "subprocess.Popen"):
        with only_named_classes([]), pytest.raises(UserError, match="is part of Python itself") as refused:
            find_class(path)
        assert "--allow" not in str(refused.value)
