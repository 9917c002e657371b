"""The gallery shows every figure of the project, and is as its command writes it."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

import asr_dni

ROOT = Path(asr_dni.__file__).parent.parent
SCRIPT = ROOT / "scripts" / "gallery.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="the project's scripts are not here")

NO_PICTURE = {
    "asr_dni.plotting",  # what makes figures, not what they are of
    "asr_dni.study.figures.frame.make_figure",  # what a study's figures have in common
    "asr_dni.dashboard.curve_figures.message_figure",  # a sentence where there is nothing to show
    "asr_dni.dashboard.trying.heard_figure",  # clip_figure, of the dashboard's network
}


@pytest.fixture(scope="module")
def gallery():
    specification = importlib.util.spec_from_file_location("gallery", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules["gallery"] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules["gallery"]


def specified():
    """Names of the public functions that specify one figure each."""
    for path in sorted((ROOT / "asr_dni").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.endswith("_figure") and node.name[0] != "_":
                returned = ast.unparse(node.returns).strip("'") if node.returns else ""
                if returned == "Figure":
                    yield f"{module}.{node.name}"


def test_every_figure_is_in_the_gallery(gallery):
    names = {name for name in specified() if not any(name.startswith(other) for other in NO_PICTURE)}
    assert len(names) > 15
    assert {shown.function for shown in gallery.GALLERY} == names


def test_the_page_is_as_its_command_writes_it(gallery):
    assert (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8") == gallery.page()


def test_pictures_are_small_and_all_are_shown(gallery):
    pictures = {path for path in gallery.FOLDER.iterdir() if not path.name.startswith(".")}
    assert {path.stem for path in pictures} == {shown.name for shown in gallery.GALLERY}
    sizes = {path.name: path.stat().st_size for path in pictures}
    assert max(sizes.values()) <= gallery.LARGEST, sizes
    assert sum(sizes.values()) <= gallery.LARGEST_OF_ALL
    for path in pictures:
        if path.suffix == ".svg":
            text = path.read_text(encoding="utf-8")
            assert "url(http" not in text
            assert 'href="http' not in text
