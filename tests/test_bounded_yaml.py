"""Configurations that are too large, say things twice, or put a value in place of a group get one line."""

import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_dni.bounded_yaml import load_yaml
from asr_dni.cli.main import main
from asr_dni.configuration import read_layers
from asr_dni.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")

LAUGHS = "a0: &a0 lol\n" + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 10))
BOMBS = {
    "aliases": (LAUGHS, "stands for more than 100,000 values"),
    "brackets": ("a: " + "[" * 5000, "nest"),
    "closed brackets": ("a: " + "[" * 5000 + "]" * 5000, "nest"),
    "mappings": ("\n".join("  " * k + "a:" for k in range(500)), "nest"),
    "aliases in depth": (
        "b0: &b0 [x]\n" + "".join(f"b{k}: &b{k} [*b{k - 1}]\n" for k in range(1, 60)),
        "stands for more",
    ),
    "itself": ("a: &a [*a]", "stands for nothing, or for itself"),
    "size": ("# " + "x" * 1_100_000, "more than 1,000,000 characters"),
    "values": ("a: [" + "1, " * 200_000 + "]", "stands for more than 100,000 values"),
    "twice": ("name: a\nname: b\n", "line 2: name is there twice"),
    "twice below": ("model:\n  network: {units: 3, layers: 1, units: 4}\n", "units is there twice"),
}


def fails(capsys, *command: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(list(command))
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert re.fullmatch(r"asr-dni: error: [^\n]+\n", said), said
    return said


@pytest.mark.parametrize("kind", BOMBS)
def test_a_file_that_is_a_bomb_is_one_line(tmp_path, kind):
    text, message = BOMBS[kind]
    (tmp_path / "bomb.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_layers(tmp_path / "bomb.yaml")
    assert str(caught.value).startswith(f"{tmp_path / 'bomb.yaml'}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["aliases", "brackets", "twice"])
def test_in_every_command_that_reads_one(tmp_path, capsys, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bomb.yaml").write_text(BOMBS[kind][0])
    for command in (["fit", "--config", "bomb.yaml"], ["study", "plan", "bomb.yaml"]):
        assert BOMBS[kind][1] in fails(capsys, *command)
    # A value that names a file
    fails(capsys, "fit", "--data_class", "DigitsData", "--model", "bomb.yaml")
    fails(capsys, "fit", "--data.labels.words", BOMBS["closed brackets"][0].removeprefix("a: "))


def test_layers_that_multiply(tmp_path):
    (tmp_path / "0.yaml").write_text("a: 1\n")
    for k in range(1, 10):
        (tmp_path / f"{k}.yaml").write_text(f"layers: [{', '.join([f'{k - 1}.yaml'] * 9)}]\n")
    with pytest.raises(UserError, match=r"9\.yaml: starts from more than 200 files"):
        read_layers(tmp_path / "9.yaml")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(value=PLAIN, flow=st.booleans())
def test_what_is_plain_is_read_as_by_yaml(value, flow):
    text = yaml.safe_dump({"a": value, "b": [value, value]}, default_flow_style=flow, allow_unicode=True)
    assert load_yaml(text) == yaml.safe_load(text)


def test_what_may_be_there_again():
    text = "a: &x {k: 1, l: [2]}\nb: {<<: *x, k: 3}\nc: [*x, *x]\n'1': 0\n1: 0\n"
    assert load_yaml(text) == yaml.safe_load(text)


# ---------------------------------------------------------------------- groups


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("model: 7", "model is 7"),
        ("model: null", "model is null"),
        ("model: []", "model is []"),
        ("model: {network: 3}", "model.network is 3"),
        ("model: {network: null}", "model.network is null"),
        ("trainer: null", "trainer is null"),
        ("data: null", "data is null"),
        ("data: {deformation: 1}", "data.deformation is 1"),
        ("annealing: 3", "annealing is 3"),
        ("noise_curve: full", "noise_curve is full"),
        ("checkpoint: null", "checkpoint is null"),
    ],
)
def test_a_value_in_place_of_a_group_names_the_file(tmp_path, monkeypatch, capsys, text, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "below.yaml").write_text("data_class: DigitsData\nmodel: {network: {units: 3}}\n")
    (tmp_path / "later.yaml").write_text(text)
    (tmp_path / "top.yaml").write_text("layers: [below.yaml, later.yaml]\n")
    for options in (["--config", "below.yaml", "--config", "later.yaml"], ["--config", "top.yaml"]):
        assert f"error: later.yaml: {named}" in fails(capsys, "fit", *options)
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("text", ["training: null", "evaluation: 7", "recipes: {lstm: 3}", "population: []"])
def test_a_value_in_place_of_a_group_of_a_study(tmp_path, monkeypatch, capsys, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(f"data_class: DigitsData\n{text}\n")
    assert "error: study.yaml: " in fails(capsys, "study", "plan", "study.yaml")
    (tmp_path / "plain.yaml").write_text("data_class: DigitsData\n")
    (tmp_path / "more.yaml").write_text(text)
    assert "error: more.yaml: " in fails(capsys, "study", "plan", "plain.yaml", "--config", "more.yaml")


def test_what_is_no_group_may_be_null(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = {"data_class": "DigitsData", "trainer": {"logger": None, "callbacks": None}}
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump({**settings, "checkpoint": {"monitor": None}}))
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", "fit.yaml", "--print_config"])
    assert ended.value.code == 0


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["fit", "--data_class", "DigitsData"], "--annealing.sig"),
        (["fit", "--data_class", "DigitsData"], "--trainer.max_epoch"),
        (["fit", "--data_class", "DigitsData"], "--seed"),
        (["noise-curve", "a.ckpt"], "--dra"),
        (["compare", "runs"], "--out"),
        (["demo"], "--epoch"),
        (["study", "plan", "study.yaml"], "--evaluation.dra"),
        (["study", "run", "study.yaml"], "--epoch"),
    ],
)
def test_an_option_is_given_by_its_whole_name(tmp_path, monkeypatch, capsys, command, option):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text("data_class: DigitsData\n")
    assert option in fails(capsys, *command, option, "2")
