"""The configurations that come with the project: found by name, listed, shown and copied."""

import re
from pathlib import Path

import pytest
import yaml

from asr_dni.cli.main import main
from asr_dni.configuration import expand_layers, read_layers
from asr_dni.errors import UserError
from asr_dni.named_configurations import configuration_names, describe, find_configuration
from asr_dni.study.reading import read_study

CONF = Path(__file__).parents[1] / "conf"
EXPERIMENT = CONF / "experiment" / "synthetic_lstm_dni.yaml"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every command is started in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ran(capsys, *command: str) -> str:
    """Run `asr-dni conf`, and return what it printed."""
    capsys.readouterr()
    main(["conf", *command])
    return capsys.readouterr().out


def fails(capsys, *command: str) -> str:
    """Run `asr-dni conf` with a mistake, and return the one line that says so."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["conf", *command])
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    assert re.fullmatch(r"asr-dni: error: [^\n]+\n", said.err), said.err
    return said.err


@pytest.mark.parametrize(
    "name",
    [
        "synthetic_lstm_dni",
        "synthetic_lstm_dni.yaml",
        "experiment/synthetic_lstm_dni",
        "experiment/synthetic_lstm_dni.yaml",
        "conf/experiment/synthetic_lstm_dni.yaml",
    ],
)
def test_a_name_is_enough_wherever_the_command_is_started(name):
    assert find_configuration(name).samefile(EXPERIMENT)
    assert expand_layers(["--config", name]) == expand_layers([f"--config={EXPERIMENT}"])


def test_every_configuration_has_a_name_and_one_line_that_says_what_it_is_for():
    names = configuration_names()
    assert len(names) == len(list(CONF.rglob("*.yaml")))
    for name in names:
        assert find_configuration(name).samefile(CONF / f"{name}.yaml")
        assert len(describe(name)) > 10
        assert "\n" not in describe(name)


def test_a_study_by_its_name():
    assert read_study("quick").settings == read_study(CONF / "study" / "quick.yaml").settings
    # A name that is also that of an experiment's layer is the study's here.
    assert find_configuration("digits", folder="study").samefile(CONF / "study" / "digits.yaml")
    assert find_configuration("digits_sigma_train").samefile(CONF / "sweep" / "digits_sigma_train.yaml")


def test_a_path_wins_over_a_name(elsewhere):
    own = elsewhere / "synthetic_lstm_dni"
    own.write_text("name: mine")
    assert yaml.safe_load(expand_layers(["--config", "synthetic_lstm_dni"])[1]) == {"name": "mine"}
    own.unlink()
    own.mkdir()  # a folder is no configuration
    assert find_configuration("synthetic_lstm_dni").samefile(EXPERIMENT)


def test_an_own_configuration_starts_from_a_name(elsewhere):
    (elsewhere / "mine.yaml").write_text("layers: [experiment/synthetic_lstm_dni]\nname: mine")
    assert read_layers(elsewhere / "mine.yaml") == [*read_layers(EXPERIMENT), {"name": "mine"}]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("synthetic_lstm_dn", "synthetic_lstm_dni"),
        ("experiment/synthetc_lstm_dni.yaml", "experiment/synthetic_lstm_dni"),
        ("nothing like it", "asr-dni conf list shows all"),
        ("lstm/../../../etc/passwd", "no such configuration file"),
        ("digits", "give data/digits or study/digits"),
        ("", "no such configuration file"),
    ],
)
def test_an_unknown_name_is_one_line_with_similar_ones(given, said):
    with pytest.raises(UserError, match=re.escape(said)) as raised:
        expand_layers(["--config", given])
    assert "\n" not in str(raised.value)
    if said.startswith("asr-dni"):
        assert "similar" not in str(raised.value)


def test_list_and_show(capsys):
    lines = ran(capsys, "list").splitlines()
    assert [line.split()[0] for line in lines] == configuration_names()
    assert max(map(len, lines)) <= 120
    for line in lines:
        assert len(line.split()) > 2
    some = ran(capsys, "list", "study/").splitlines()
    assert [line.split()[0] for line in some] == [
        f"study/{path.stem}" for path in sorted((CONF / "study").iterdir())
    ]
    assert ran(capsys, "show", "synthetic_lstm_dni") == EXPERIMENT.read_text()
    assert "no configuration has 'xyz' in its name" in fails(capsys, "list", "xyz")
    assert "similar: " in fails(capsys, "show", "synthetic_lstm_dn")


def test_a_copy_works_without_what_it_was_copied_from(elsewhere, capsys):
    said = ran(capsys, "copy", "synthetic_lstm_dni")
    copied = sorted(path.relative_to(elsewhere / "conf") for path in (elsewhere / "conf").rglob("*.yaml"))
    assert [str(path) for path in copied] == [
        "base.yaml",
        "data/synthetic.yaml",
        "experiment/synthetic_lstm_dni.yaml",
        "model/lstm.yaml",
        "noise/dni.yaml",
    ]
    assert all(str(path) in said for path in copied)
    (elsewhere / "conf" / "base.yaml").write_text("seed_everything: 5")
    first = yaml.safe_load(expand_layers(["--config", "conf/experiment/synthetic_lstm_dni.yaml"])[1])
    assert first == {"seed_everything": 5}


def test_nothing_is_overwritten(elsewhere, capsys):
    ran(capsys, "copy", "model/lstm", "--to", "mine")
    (elsewhere / "mine" / "base.yaml").write_text("changed: 1")
    said = fails(capsys, "copy", "--to", "mine")
    assert "mine/base.yaml: is there and differs; nothing was copied" in said
    assert sorted(path.name for path in (elsewhere / "mine").rglob("*.yaml")) == ["base.yaml", "lstm.yaml"]
    assert (elsewhere / "mine" / "base.yaml").read_text() == "changed: 1"
    (elsewhere / "mine" / "base.yaml").unlink()
    assert "(1 were there already)" in ran(capsys, "copy", "--to", "mine")
    assert len(list((elsewhere / "mine").rglob("*.yaml"))) == len(configuration_names())


def test_mistakes(elsewhere, capsys):
    (elsewhere / "own.yaml").write_text("name: own")
    assert "file of your own" in fails(capsys, "copy", "own.yaml")
    assert "similar" in fails(capsys, "copy", "digits_lstm_dnj")
    assert "list" in fails(capsys, "remove")
    assert "--help says what there is" in fails(capsys)
    assert not (elsewhere / "conf").exists()
