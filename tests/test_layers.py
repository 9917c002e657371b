"""Which module may import which."""

import ast
import graphlib
from pathlib import Path

import pytest

import asr_dni

ROOT = Path(asr_dni.__file__).parent.parent


def imports(folder: str, prefix: str) -> dict[str, set[str]]:
    """Modules of a folder, and what with the prefix each imports, also within functions; not what types alone need."""
    modules = {}
    for path in sorted((ROOT / folder).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body = [ast.Pass()]
        found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        modules[path.stem] = {str(node.module) for node in found}
    return {
        name: {other.removeprefix(prefix) for other in others if other.startswith(prefix)}
        for name, others in modules.items()
        if name != "__init__"
    }


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """The package's modules that one names in its imports, those within functions included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in known:
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (parts & known.keys()) or {node.module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names} & known.keys()
    return names


def test_no_module_needs_one_that_needs_it():
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.glob("asr_dni/**/*.py")
    }
    known = {name.removesuffix(".__init__"): path for name, path in files.items()}
    assert len(known) > 100
    graph = {name: imported(path, known) for name, path in known.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        raise AssertionError("a circle of imports: " + " <- ".join(error.args[1])) from None


EVALUATION = {
    "curves": set(),
    "measurement": {"curves"},
    "questions": {"curves", "measurement"},
    "figures": {"curves", "questions"},
    "loggers": {"curves", "measurement", "figures"},
}
"""The folders of ``asr_dni/evaluation``, and which of the others each may import."""


@pytest.mark.parametrize("part", EVALUATION)
def test_folders_of_evaluation_import_each_other_in_one_direction(part):
    folder = ROOT / "asr_dni" / "evaluation"
    assert {path.parent.name for path in folder.glob("*/__init__.py")} == EVALUATION.keys()
    used = set().union(*imports(f"asr_dni/evaluation/{part}", "asr_dni.evaluation.").values())
    assert {name.partition(".")[0] for name in used} <= EVALUATION[part] | {part}


@pytest.mark.parametrize("part", ["curves", "measurement", "questions"])
def test_what_measures_and_curves_know_no_pictures(part):
    for path in (ROOT / "asr_dni" / "evaluation" / part).glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "matplotlib" not in text
        assert "plotly" not in text


def test_the_catalogue_lies_between_evaluation_and_study_and_what_shows_results():
    shown = ("asr_dni.dashboard", "asr_dni.report", "asr_dni.cli")
    for path in (ROOT / "asr_dni" / "catalogue").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not str(node.module).startswith(shown), path
    for folder in ("noise", "nn", "model", "data", "plotting", "evaluation", "inference", "study"):
        for path in (ROOT / "asr_dni" / folder).rglob("*.py"):
            assert "from asr_dni.catalogue" not in path.read_text(encoding="utf-8"), path
