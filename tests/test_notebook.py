import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

PATH = Path(__file__).parents[1] / "notebooks" / "from_clip_to_noise_curve.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(PATH, as_version=4)


def test_it_is_stored_without_outputs_and_is_python(notebook):
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) > 5
    for cell in cells:
        assert cell.outputs == []
        assert cell.execution_count is None
        ast.parse(cell.source)


def test_everything_it_imports_is_there(notebook):
    sources = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    imports = [node for node in ast.walk(ast.parse(sources)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert any(getattr(node, "module", None) == "asr_dni.noise" for node in imports)
    for node in imports:
        exec(ast.unparse(node), {})


def execute(notebook, folder):
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    return ast.literal_eval(last.outputs[0]["data"]["text/plain"])


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_it_runs_and_noise_training_helps(notebook, tmp_path):
    curves = execute(notebook, tmp_path)
    assert curves["conventional"][0.0] > 0.7
    assert curves["DNI, sigma_train 2"][3.0] > curves["conventional"][3.0] + 0.05
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 4


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_runs_with_the_smallest_numbers(notebook, tmp_path):
    """Every cell works, whatever the machine's speed."""
    for cell in notebook.cells:
        cell.source = re.sub(
            r"^SPEAKERS, EPOCHS, DRAWS = .*$", "SPEAKERS, EPOCHS, DRAWS = 10, 1, 1", cell.source, flags=re.M
        )
    assert set(execute(notebook, tmp_path)) == {"conventional", "DNI, sigma_train 2"}
