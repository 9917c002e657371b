import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from simulated_study import simulate

from asr_dni.errors import UserError
from asr_dni.study import report as report_module
from asr_dni.study.figures import draw_study
from asr_dni.study.findings import QUESTIONS, find
from asr_dni.study.ledger import Ledger
from asr_dni.study.report import report

SMALL = {"sigmas_train": (0.0, 1.0), "sigmas_infer": (0.0, 1.0, 2.0), "draws": 2, "seeds": range(3)}


def fill(path, frame) -> Ledger:
    ledger = Ledger(path)
    for member, rows in frame.groupby("member"):
        ledger.append(str(member), rows)
    return ledger


@pytest.fixture(scope="module")
def frame():
    return simulate(**SMALL, sizes=(32, 64))


@pytest.fixture(scope="module")
def written(frame, tmp_path_factory):
    directory = tmp_path_factory.mktemp("study")
    said: list[str] = []
    paths = report(fill(directory / "ledger", frame), directory / "report", progress=said.append)
    return directory / "report", paths, said


class Page(HTMLParser):
    """Collects what a page loads, and its text and data."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.scripts, self.tags, self.inside = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside = tag
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts.append(data)


def test_all_files_are_written_and_named(written):
    directory, paths, said = written
    there = {path for path in directory.rglob("*") if path.is_file() and path.name != ".report.json"}
    assert set(paths) == there
    assert paths[0] == directory / "index.html"
    assert set(said) == {path.relative_to(directory).as_posix() for path in paths}
    names = {path.name for path in paths}
    assert {"summary.md", "matrix.png", "matrix.svg", "curves.svg", "best.png", "units.svg"} <= names
    assert {"matrix.csv", "flatter.csv", "above_clean.md", "units.csv", "missing.csv"} <= names


def test_the_page_needs_nothing_else_and_has_every_number(written, frame):
    directory, _, _ = written
    page = Page((directory / "index.html").read_text(encoding="utf-8"))
    assert page.sources
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.sources)
    assert "link" not in page.tags
    (data,) = [script for script in page.scripts if script.startswith("const STUDY = ")]
    study = json.JSONDecoder().raw_decode(data.removeprefix("const STUDY = "))[0]
    findings = find(frame)
    for matrix, shown in zip(findings.matrices, study["matrices"], strict=True):
        assert shown["mean"] == pytest.approx(matrix.mean, abs=1e-6)
        assert shown["train"] == list(matrix.sigma_train)
    assert study["keys"] == [["lstm", "32"], ["lstm", "64"]]
    # Differences, intervals and marks are those of the tables, not computed anew.
    for shown, units in zip(study["matrices"], (32, 64), strict=True):
        for name, tables in (("same", ["difference"]), ("clean", ["clean_inference", "above_clean"])):
            for row in pd.concat([findings.tables[table] for table in tables]).itertuples():
                if row.units == units:
                    at = shown["train"].index(row.sigma_train) - 1, shown["infer"].index(row.strength)
                    found = [
                        shown[name][column][at[0]][at[1]] for column in ("effect", "low", "high", "marked")
                    ]
                    assert found == pytest.approx(
                        [row.effect, row.low, row.high, row.p_holm < 0.05], abs=1e-6
                    )
    assert (directory / "index.html").stat().st_size < 8e6


def test_tables_and_summary_say_what_the_findings_say(written, frame):
    directory, _, _ = written
    findings = find(frame)
    table = pd.read_csv(directory / "tables" / "matrix.csv")
    assert table["accuracy"].to_numpy() == pytest.approx(findings.tables["matrix"]["accuracy"].to_numpy())
    summary = (directory / "summary.md").read_text(encoding="utf-8")
    assert findings.markdown() in summary
    assert (directory / "summary.txt").read_text(encoding="utf-8") == findings.text()
    for link in re.findall(r"!\[.*?\]\((.*?)\)", summary):
        assert (directory / link).exists()
    markdown = (directory / "tables" / "above_clean.md").read_text(encoding="utf-8")
    assert "- cell: lstm" in markdown
    assert "| strength |" in markdown
    page = (directory / "index.html").read_text(encoding="utf-8")
    for question in {answer.question for answer in findings.answers}:
        assert QUESTIONS[question].title in page


@pytest.fixture
def one_figure(monkeypatch):
    """Spares the time of drawing all."""

    def draw_some(findings):
        return {name: figure for name, figure in draw_study(findings).items() if name.startswith("best")}

    monkeypatch.setattr(report_module, "draw_study", draw_some)


@pytest.mark.usefixtures("one_figure")
def test_a_study_may_have_any_name(tmp_path):
    odd = simulate(**(SMALL | {"seeds": range(1)})).assign(data="</script><b>a & 'b'|c")
    paths = report(fill(tmp_path / "ledger", odd), tmp_path / "report")
    page = Page(paths[0].read_text(encoding="utf-8"))
    assert "b" not in page.tags
    assert len([script for script in page.scripts if script.startswith("const STUDY")]) == 1


@pytest.mark.usefixtures("one_figure")
def test_a_page_of_two_seeds_has_no_interval_and_no_mark(tmp_path):
    two = simulate(**(SMALL | {"seeds": range(2)}), spread=1e-9)
    paths = report(fill(tmp_path / "ledger", two), tmp_path / "report")
    page = Page(paths[0].read_text(encoding="utf-8"))
    (data,) = [script for script in page.scripts if script.startswith("const STUDY = ")]
    study = json.JSONDecoder().raw_decode(data.removeprefix("const STUDY = "))[0]
    assert "too few seeds for an interval" in study["noInterval"]
    (matrix,) = study["matrices"]
    for part in (matrix, matrix["same"], matrix["clean"]):
        assert {value for name in ("low", "high") for row in part[name] for value in row} == {None}
    assert not any(mark for name in ("same", "clean") for row in matrix[name]["marked"] for mark in row)
    assert "cannot be tested" in paths[0].read_text(encoding="utf-8")


@pytest.mark.usefixtures("one_figure")
def test_a_later_report_replaces_the_former(tmp_path, frame):
    ledger = fill(tmp_path / "ledger", frame)
    report(ledger, tmp_path / "report")
    mine = tmp_path / "report" / "figures" / "mine.png"
    mine.write_bytes(b"mine")
    assert (tmp_path / "report" / "figures" / "best.png").exists()
    fill(
        tmp_path / "ledger",
        simulate(seed=1, **SMALL).assign(epochs=80, member=lambda rows: rows["member"].str[::-1]),
    )
    paths = report(tmp_path / "ledger", tmp_path / "report")
    assert (tmp_path / "report" / "figures" / "best-80epochs.png") in paths
    assert not (tmp_path / "report" / "figures" / "best.png").exists()
    assert mine.exists()


def test_an_empty_ledger_is_an_error_and_writes_nothing(tmp_path):
    with pytest.raises(UserError, match="no results yet"):
        report(tmp_path / "ledger", tmp_path / "report")
    assert not (tmp_path / "report").exists()
