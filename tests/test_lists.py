"""Lists on the command line need no brackets, in any command."""

import doctest
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jsonargparse
import pytest
import yaml

import asr_dni.cli.lists
from asr_dni.cli.lists import with_brackets
from asr_dni.cli.main import main


@dataclass
class Taught:
    by: list[str]
    weight: float = 1.0


def parse(*arguments: str) -> dict:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--sigmas", type=Sequence[float])
    parser.add_argument("--sites", type=list[Literal["input", "output"]])
    parser.add_argument("--words", type=Literal["all"] | list[str | bool | int | float | None])
    parser.add_argument("--seeds", type=int | list[int])
    parser.add_argument("--range", type=tuple[float, float] | None)
    parser.add_argument("--devices", type=list[int] | str | int)
    parser.add_argument("--other", type=str)
    parser.add_argument("--taught", type=Taught | None)
    parsed = parser.parse_args(with_brackets(arguments, parser)).as_dict()
    return {name: value for name, value in parsed.items() if value is not None}


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (["--sigmas", "0,1,2"], {"sigmas": [0, 1, 2]}),
        (["--sigmas=0,.5"], {"sigmas": [0, 0.5]}),
        (["--sigmas", "3", "--other", "0,1"], {"sigmas": [3], "other": "0,1"}),
        (["--sigmas", "[0,1]", "--seeds", "2"], {"sigmas": [0, 1], "seeds": 2}),
        (["--seeds", "1,2"], {"seeds": [1, 2]}),
        (["--sites", "input"], {"sites": ["input"]}),
        (["--sites", "input, output"], {"sites": ["input", "output"]}),
        (["--words", "yes,no,on,3"], {"words": ["yes", "no", "on", "3"]}),
        (["--words", "no"], {"words": ["no"]}),
        (["--words", "all"], {"words": "all"}),
        (["--range", "-1,1"], {"range": (-1, 1)}),
        (["--range", "null"], {}),
        (["--devices", "0,1"], {"devices": "0,1"}),
        (["--taught.by", "a,b", "--taught.weight=2"], {"taught": {"by": ["a", "b"], "weight": 2.0}}),
    ],
)
def test_a_list_needs_no_brackets(given, taken):
    assert parse(*given) == taken


@pytest.mark.parametrize("command", ["fit", "test", "validate"])
def test_lightnings_commands_take_them_too(command, capsys):
    given = {
        "noise_curve.sigmas": ("0,1,2", [0, 1, 2]),
        "noise_curve.sites": ("input,output", ["input", "output"]),
        "model.noise.sites": ("recurrent", ["recurrent"]),
        "data.labels.words": ("yes,no", ["yes", "no"]),
        "data.augmentation.speed": ("0.9,1.1", [0.9, 1.1]),
    }
    options = [f"--{name}={value}" for name, (value, _) in given.items()]
    with pytest.raises(SystemExit) as ended:
        main([command, "--data.source", "asr_dni.data.Synthetic", *options, "--print_config"])
    assert ended.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    for name, (_, expected) in given.items():
        found = config
        for key in name.split("."):
            found = found[key]
        assert found == expected, name


def test_docstring_example():
    assert doctest.testmod(asr_dni.cli.lists).failed == 0
