"""What the documents say: their commands are understood, their Python runs, what they link to is there."""

import argparse
import re
import shlex
import shutil
import sys
from itertools import pairwise
from pathlib import Path

import jsonargparse
import pytest
import soundfile
import yaml
from markdown_it import MarkdownIt

from asr_dni.cli import lightning, run_arguments
from asr_dni.cli.main import COMMANDS, main
from asr_dni.study.reading import read_study

ROOT = Path(__file__).parents[1]
OUTSIDE = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "data/README.md", "benchmarks/README.md")
DOCUMENTS = [*(ROOT / name for name in OUTSIDE), *sorted((ROOT / "docs").glob("*.md"))]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(document: Path) -> list[tuple[str, str]]:
    """Language (empty: none named) and text of a document's code blocks."""
    tokens = MarkdownIt().parse(document.read_text(encoding="utf-8"))
    return [(token.info, token.content) for token in tokens if token.type in ("fence", "code_block")]


def example(name: str) -> str:
    """The block of docs/extending.md that has this class, as a module of its own."""
    (found,) = [text for _, text in blocks(ROOT / "docs" / "extending.md") if f"class {name}(" in text]
    return "import torch\n" + found


def code() -> list[str]:
    """Lines of all blocks that are no Python; lines that a backslash continues are joined."""
    texts = [text for path in DOCUMENTS for language, text in blocks(path) if language != "python"]
    lines = "\n".join(texts).replace("\\\n", " ").splitlines()
    return list(dict.fromkeys(line.strip() for line in lines))


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


def in_text(name: str) -> list[list[str]]:
    """Commands that stand in a sentence, as code."""
    tokens = [token for path in DOCUMENTS for token in MarkdownIt().parse(path.read_text(encoding="utf-8"))]
    spans = [
        child.content for token in tokens for child in token.children or [] if child.type == "code_inline"
    ]
    return [span.split()[1:] for span in dict.fromkeys(spans) if span.startswith(f"{name} ")]


class Parsed(Exception):
    """Raised in place of doing what the command line describes."""


def stop(*arguments, **keywords):
    raise Parsed


def stop_after_parsing(monkeypatch, *kinds):
    def make(parse):
        def parse_args(self, *arguments, **keywords):
            parse(self, *arguments, **keywords)
            raise Parsed

        return parse_args

    for kind in kinds:
        monkeypatch.setattr(kind, "parse_args", make(kind.parse_args))


@pytest.mark.parametrize("command", ASR_DNI, ids=lambda command: " ".join(command)[:80])
@pytest.mark.filterwarnings("ignore")
def test_command_is_understood(command, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    (tmp_path / "my_sources.py").touch()
    for module, name in (("my_front_ends", "PCEN"), ("my_data", "TemporalOrder")):
        monkeypatch.delitem(sys.modules, module, raising=False)
        (tmp_path / f"{module}.py").write_text(example(name))
    monkeypatch.syspath_prepend(tmp_path)
    experiment = str(ROOT / "conf" / "experiment" / "synthetic_lstm_dni.yaml")
    # What a run of the reader's would have made, or the reader has written.
    command = [
        experiment if re.fullmatch(r"runs/.*/config\.yaml|own\.yaml", word) else word for word in command
    ]
    for module in (lightning, run_arguments):
        monkeypatch.setattr(module, "load_checkpoint", lambda path: {})
    found = run_arguments.expand_layers(["--config", experiment])
    monkeypatch.setattr(run_arguments, "configuration_of", lambda *arguments: found)
    monkeypatch.setattr(jsonargparse.ArgumentParser, "instantiate_classes", stop)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    assert command[0] in COMMANDS or command[0].startswith("--")
    if command[0] not in ("fit", "validate", "test", "conf", "noise") and command[:2] not in (
        ["study", "run"],
        ["study", "plan"],
    ):
        stop_after_parsing(monkeypatch, argparse.ArgumentParser, jsonargparse.ArgumentParser)
    if command[0] in ("conf", "noise"):  # builds nothing
        if command[0] == "noise":  # its figure
            monkeypatch.chdir(tmp_path)
        main(command)
        return
    with pytest.raises((Parsed, SystemExit)) as ended:
        main(command)
    assert ended.type is Parsed or ended.value.code in (0, None)


def test_there_are_commands():
    assert len(ASR_DNI) >= 3
    assert commands("make")
    assert len(in_text("asr-dni")) > 10


@pytest.mark.parametrize("command", in_text("asr-dni"), ids=" ".join)
def test_command_in_a_sentence_is_there_with_its_options(command, capsys):
    """What else stands there is often a placeholder."""
    names = [word.split("|")[-1] for word in command]  # list|show
    words = [name for name in names if re.fullmatch(r"[a-z]+", name) or name in COMMANDS]
    if not words:
        assert command == ["--help"]
        return
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code in (0, None)
    said = capsys.readouterr().out
    options = [word.partition("=")[0] for word in command if word.startswith("--")]
    assert [option for option in options if option not in said] == []


CONFIGURATIONS = [
    pytest.param(text, id=f"{relative(path)}-{k}")
    for path in DOCUMENTS
    for k, (language, text) in enumerate(blocks(path))
    if language == "yaml"
    and not {"method", "noise_models"} & set(yaml.safe_load(text))  # W&B's sweeps, studies
]
STUDIES = [
    pytest.param(text, id=relative(path))
    for path in DOCUMENTS
    for language, text in blocks(path)
    if language == "yaml" and "noise_models" in yaml.safe_load(text)
]


@pytest.mark.parametrize("text", CONFIGURATIONS)
@pytest.mark.filterwarnings("ignore")
def test_configuration_is_understood(text, monkeypatch, tmp_path):
    monkeypatch.setattr(jsonargparse.ArgumentParser, "instantiate_classes", stop)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(Parsed):
        main(["fit", "--config", "synthetic_lstm_dni", "--config", str(tmp_path / "own.yaml")])


@pytest.mark.parametrize("text", STUDIES)
def test_study_is_understood(text, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(f"layers: [{ROOT / 'conf' / 'study' / 'quick.yaml'}]\n{text}")
    written = yaml.safe_load(text)
    assert len(read_study(own).settings.noise_models) == len(written["noise_models"])


@pytest.mark.parametrize(
    "target", sorted({command[0] for command in commands("make") + in_text("make") if command})
)
def test_make_target_exists(target):
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_every_named_file_exists(document):
    text = document.read_text(encoding="utf-8")
    linked = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text)
    missing = [path for path in linked if not (document.parent / path).exists()]
    named = re.findall(
        r"(?<![\w/.$-])(?:\.\./)?(?:conf|docs|scripts|tests|benchmarks|notebooks|asr_dni)/[\w*./-]+", text
    )
    bases = (document.parent, ROOT)
    missing += [
        path for path in named if "<" not in path and not any(list(b.glob(path.rstrip("./"))) for b in bases)
    ]
    assert missing == []


def anchors(document: Path) -> set[str]:
    """What the headings of a document are called in links, by the rule that git viewers and the site follow."""
    tokens = MarkdownIt().parse(document.read_text(encoding="utf-8"))
    found: list[str] = []
    for heading, title in pairwise(tokens):
        if heading.type == "heading_open":
            text = "".join(child.content for child in title.children or [])
            found.append(re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-"))
    return set(found)


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_every_anchor_is_there(document):
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", document.read_text(encoding="utf-8"))
    missing = []
    for path, anchor in links:
        target = document.parent / path if path else document
        if target.suffix == ".md" and anchor not in anchors(target):
            missing.append(f"{path}#{anchor}")
    assert missing == []


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize(
    "document",
    [path for path in DOCUMENTS if any(language == "python" for language, _ in blocks(path))],
    ids=relative,
)
def test_python_runs(document, checkpoint, spoken, tmp_path, monkeypatch, capsys):
    """The blocks of one document, one after another: later ones may use the names of earlier ones.

    They are run where there is a checkpoint, and recordings of yes and no.
    """
    shutil.copy(checkpoint, tmp_path / "last.ckpt")
    for word, name in (("yes", "yes.wav"), ("no", "no.flac")):
        soundfile.write(tmp_path / name, *soundfile.read(next((spoken / word).iterdir())))
    monkeypatch.chdir(tmp_path)
    names = {}
    for language, text in blocks(document):
        if language == "python":
            exec(compile(text, str(document), "exec"), names)
    said = capsys.readouterr().out
    if "asr_dni.load(" in document.read_text(encoding="utf-8"):
        assert re.search(r"^yes\.wav (go|no|yes) None$", said, re.MULTILINE)
        assert re.search(r"^no\.flac (go|no|yes) None$", said, re.MULTILINE)


def test_every_promise_names_a_test_that_is_there():
    """In docs/reliability.md ``test_x.py::y`` names a test, ``::y`` one of the file that was named last."""
    named = re.findall(r"`((?:test_\w+\.py)?)((?:::\w+)*)`", (ROOT / "docs/reliability.md").read_text())
    named = [(name, tests.split("::")[1:]) for name, tests in named if name or tests]
    missing, text = [], ""
    for name, tests in named:
        if name:
            path = ROOT / "tests" / name
            text = path.read_text() if path.is_file() else ""
        missing += [
            f"{name}::{test}" for test in tests if not re.search(rf"^\s*(def|class) {test}\b", text, re.M)
        ]
        if not text:
            missing.append(name)
    assert len(named) > 30
    assert missing == []
