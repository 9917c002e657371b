import argparse

import pytest
import yaml
from jsonargparse import ArgumentParser

from asr_dni.configuration import expand_layers, explain, read_layers
from asr_dni.errors import UserError
from asr_dni.study.evaluation_settings import EvaluationSettings


def write(path, **contents):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(contents))
    return path


def test_layers_come_below_in_their_order(tmp_path):
    write(tmp_path / "base.yaml", a=1)
    write(tmp_path / "sub" / "middle.yaml", layers=["../base.yaml"], b=2)
    top = write(tmp_path / "sub" / "top.yaml", layers=["middle.yaml", "../base.yaml"], c=3)
    assert read_layers(top) == [{"a": 1}, {"b": 2}, {"a": 1}, {"c": 3}]


def test_a_file_of_layers_alone_and_an_empty_one(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_layers(write(tmp_path / "top.yaml", layers=["empty.yaml"])) == []


def test_expanding_keeps_the_order_and_everything_else(tmp_path):
    write(tmp_path / "below.yaml", a=1)
    top = write(tmp_path / "top.yaml", layers=["below.yaml"], a=2)
    expanded = expand_layers(["--x", "1", f"--config={top}", "-c", str(tmp_path / "below.yaml"), "--y=2"])
    assert expanded[0::2] == ["--x", "--config", "--config", "--config", "--y=2"]
    assert [yaml.safe_load(text) for text in expanded[3::2]] == [{"a": 1}, {"a": 2}, {"a": 1}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1,", "top.yaml: is not valid YAML"),
        ("- 1", "top.yaml: expected a mapping"),
        ("layers: base.yaml", "layers has to be a list"),
        (
            "layers: [nowhere.yaml]",
            r"nowhere\.yaml: there is no such configuration file \(a layer of .*top\.yaml\)",
        ),
        ("layers: [top.yaml]", "top.yaml: names itself"),
        ("a: !!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, text, message):
    (tmp_path / "top.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_layers(tmp_path / "top.yaml")
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for path, message in (
        (tmp_path / "no.yaml", "no such configuration"),
        (tmp_path, "cannot be read"),
        (tmp_path / "binary.yaml", "binary.yaml"),
    ):
        with pytest.raises(UserError, match=message):
            read_layers(path)
    with pytest.raises(UserError, match="--config needs the name"):
        expand_layers(["--config"])


def test_the_parsers_errors_become_a_line():
    union = (
        'Parser key "trainer.max_epochs":\n  Does not validate against any of the Union subtypes\n'
        "  Subtypes: [<class 'int'>, <class 'NoneType'>]\n  Errors:\n    - Expected a <class 'int'>\n"
        "    - Expected a <class 'NoneType'>\n  Given value type: <class 'float'>\n  Given value: 1.5"
    )
    line = explain(argparse.ArgumentError(None, union))
    assert "\n" not in line
    assert line.startswith("trainer.max_epochs:")
    assert "1.5" in line
    assert "expected int" in line
    assert explain(Exception("Parser key \"a.b\": Expected a typing.Literal['x', 'y']. Got value: z")) == (
        "a.b: expected one of 'x', 'y'. Got z"
    )
    assert len(explain(Exception("word " * 500))) < 500


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ({"hardware": 3}, "hardwares: hardware: expected dict; expected str. Got 3"),
        ({"hardware": "pcm", "at": "day"}, "hardwares: at: expected float. Got day"),
        ({"hardware": "pcm", "at": [1.0]}, "hardwares: at: expected float. Got [1.0]"),
        ({"hardware": "pcm", "strengths": [1.0], "chips": 1.5}, "hardwares: chips: expected int. Got 1.5"),
        ({"strengths": [1.0]}, "hardwares: the following arguments are required: hardware"),
    ],
)
def test_a_wrong_value_in_a_list_of_settings_is_named(entry, line):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(EvaluationSettings, as_group=False)
    with pytest.raises(argparse.ArgumentError) as raised:
        parser.parse_object({"hardwares": [entry]})
    assert explain(raised.value) == line
