"""The notebooks: stored without outputs, and every cell works."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def read(path):
    return nbformat.read(path, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_without_outputs_and_is_python(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert len(code(notebook)) > 5
    for cell in code(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None
        ast.parse(cell.source)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_everything_it_imports_is_there(path):
    sources = "\n".join(cell.source for cell in code(read(path)))
    imports = [node for node in ast.walk(ast.parse(sources)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert any((getattr(node, "module", None) or "").startswith("asr_dni.") for node in imports)
    for node in imports:
        exec(ast.unparse(node), {})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_listed(path):
    assert f"(../notebooks/{path.name})" in (FOLDER.parent / "docs" / "notebooks.md").read_text()


class Executed(NamedTuple):
    last: object  # what the last cell of code shows
    pictures: int
    said: str


def execute(name, folder, monkeypatch, **settings):
    """Run a notebook in an empty folder, with some of its numbers changed."""
    monkeypatch.delenv("MPLBACKEND", raising=False)  # a notebook has its own
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    notebook = read(FOLDER / f"{name}.ipynb")
    for cell in code(notebook):
        for key, value in settings.items():
            cell.source, changed = re.subn(
                rf"^{key} = .*$", f"{key} = {value}", cell.source, flags=re.MULTILINE
            )
            if changed:
                settings = {other: its for other, its in settings.items() if other != key}
    assert settings == {}
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    return Executed(
        ast.literal_eval(code(notebook)[-1].outputs[-1]["data"]["text/plain"]),
        sum("image/png" in output.get("data", {}) for output in outputs),
        "".join(output.text for output in outputs if output.output_type == "stream"),
    )


# The smallest numbers: every cell works, whatever the machine's speed.
CLIP, DIGITS, RUNS = "SPEAKERS, EPOCHS, DRAWS", "EPOCHS, UNITS, DRAWS", "SEEDS, EPOCHS, UNITS, DRAWS"


@pytest.mark.timeout(600)
def test_bits_run_with_the_smallest_numbers(tmp_path, monkeypatch):
    done = execute("how_many_adc_bits", tmp_path, monkeypatch, **{DIGITS: "1, 4, 1", "BITS": "[2, 8]"})
    assert set(done.last.values()) <= {2, 8}
    assert done.pictures == 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_own_noise_runs_with_the_smallest_numbers(tmp_path, monkeypatch):
    done = execute("my_own_noise_model", tmp_path, monkeypatch, **{DIGITS: "1, 4, 1"})
    assert len(done.last) == 2
    assert done.pictures == 2
    kept = ast.literal_eval(re.search(r"6 apart: (\[.*\])", done.said)[1])
    assert kept == pytest.approx([1, 0.75, 0.5, 0.25, 0, 0, 0], abs=0.06)  # more than 4 standard deviations


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_a_clip_runs_with_the_smallest_numbers(tmp_path, monkeypatch):
    done = execute("from_clip_to_noise_curve", tmp_path, monkeypatch, **{CLIP: "10, 1, 1"})
    assert set(done.last) == {"conventional", "DNI, sigma_train 2"}


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_noise_training_helps(tmp_path, monkeypatch):
    done = execute("from_clip_to_noise_curve", tmp_path, monkeypatch)
    assert done.last["conventional"][0.0] > 0.7
    assert done.last["DNI, sigma_train 2"][3.0] > done.last["conventional"][3.0] + 0.05
    assert done.pictures == 4


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_runs_are_compared(tmp_path, monkeypatch):
    done = execute("comparing_runs", tmp_path, monkeypatch)
    assert set(done.last) == {"conventional", "DNI σ_train=1"}
    assert done.pictures == 3
    assert len(list(tmp_path.glob("runs/*/seed_*/version_0/noise_curve.csv"))) == 6


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_bits_are_as_the_text_says(tmp_path, monkeypatch):
    done = execute("how_many_adc_bits", tmp_path, monkeypatch)
    assert all(4 <= bits <= 6 for bits in done.last.values())


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_training_under_a_noise_of_ones_own_helps(tmp_path, monkeypatch):
    conventional, trained = execute("my_own_noise_model", tmp_path, monkeypatch).last.values()
    assert trained[1.0] > conventional[1.0] + 0.1
