import re
import shlex
from pathlib import Path

import jsonargparse
import pytest

from asr_dni.cli import lightning
from asr_dni.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def code() -> list[str]:
    """Lines of the fenced and of the indented blocks; lines that a backslash continues are joined."""
    lines, fenced = [], False
    for line in README.read_text().splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            lines.append(line.strip())
    return "\n".join(lines).replace("\\\n", " ").splitlines()


def commands(name: str) -> list[list[str]]:
    found = []
    for line in code():
        line = re.sub(r"\$\(seq [^)]*\)|\$\{?\w+\}?", "0", line.removeprefix("$ "))  # loops over seeds
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        try:
            tokens = list(lexer)
        except ValueError:  # not a command line
            continue
        while name in tokens:
            tokens = tokens[tokens.index(name) + 1 :]
            ends = [k for k, token in enumerate(tokens) if set(token) & set("|&;<>()")]
            found.append(tokens[: min(ends, default=len(tokens))])
    return found


# Of `docker build -t asr-dni .` and `docker run ... asr-dni fit ...` only the second is a command of this project.
ASR_DNI = [command for command in commands("asr-dni") if command and command[0] != "."]


class Parsed(Exception):
    """Raised in place of building what the command line describes."""


@pytest.mark.parametrize("command", ASR_DNI, ids=lambda command: " ".join(command)[:80])
@pytest.mark.filterwarnings("ignore")
def test_command_is_understood(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    experiment = str(ROOT / "conf" / "experiment" / "synthetic_lstm_dni.yaml")
    # What a run of the reader's would have made.
    command = [experiment if re.fullmatch(r"runs/.*/config\.yaml", word) else word for word in command]
    monkeypatch.setattr(lightning, "load_checkpoint", lambda path: {})
    found = lightning.expand_layers(["--config", experiment])
    monkeypatch.setattr(lightning, "_configuration_of", lambda path, contents: found)

    def stop(*arguments, **keywords):
        raise Parsed

    monkeypatch.setattr(jsonargparse.ArgumentParser, "instantiate_classes", stop)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    assert command[0] in COMMANDS or command[0].startswith("--")
    with pytest.raises((Parsed, SystemExit)) as ended:
        main(command)
    assert ended.type is Parsed or ended.value.code in (0, None)


def test_there_are_commands():
    assert len(ASR_DNI) >= 3
    assert commands("make")


@pytest.mark.parametrize("target", sorted({command[0] for command in commands("make") if command}))
def test_make_target_exists(target):
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_every_named_file_exists():
    text = README.read_text()
    linked = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text)
    named = re.findall(
        r"(?<![\w/.$-])(?:\.\./)?(?:conf|docs|scripts|tests|benchmarks|notebooks|asr_dni)/[\w*./-]+", text
    )
    missing = [
        path for path in {*linked, *named} if not list(ROOT.glob(path.rstrip("./"))) and "<" not in path
    ]
    assert missing == []
