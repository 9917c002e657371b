import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from simulated_study import simulate

from asr_dni.errors import UserError
from asr_dni.report import study_report as report_module
from asr_dni.report.as_html import as_html
from asr_dni.report.studies import study_document
from asr_dni.report.study_report import report_study
from asr_dni.study.figures import study_figures
from asr_dni.study.findings import QUESTIONS, find
from asr_dni.study.ledger import Ledger

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
    paths = report_study(fill(directory / "ledger", frame), directory / "report", progress=said.append)
    return directory / "report", paths, said


class Page(HTMLParser):
    """Collects what a page loads, its tags and scripts."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.scripts, self.tags, self.inside = [], [], [], ""
        self.heading, self.titles = "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside = tag
        if tag == "script":
            self.scripts.append("")
        if tag in ("h3", "figure"):
            if tag == "figure":
                self.titles.append(self.heading)
            self.heading = ""
        self.sources += [value for name, value in attributes if name in ("src", "href") and value[0] != "#"]

    def handle_data(self, data):
        if self.inside == "figcaption":
            self.titles[-1] += data
        if self.inside == "h3":
            self.heading += data
        if self.inside == "script":
            self.scripts[-1] += data

    def figures(self):
        """Return the page's figures as plotly has them, in their order."""
        found = []
        for script in self.scripts:
            call = re.search(r'Plotly\.newPlot\(\s*"figure-\d+",', script[:1000])
            if call:
                text = script[call.end() :].lstrip()
                data, end = json.JSONDecoder().raw_decode(text)
                layout, _ = json.JSONDecoder().raw_decode(text[end:].lstrip(", \n"))
                found.append(go.Figure(data, layout))
        return found


def report_page(findings, figures):
    return as_html(study_document(findings, figures))


def titled(page, words):
    """Return the figure of a page whose heading has these words."""
    (found,) = [figure for figure, title in zip(page.figures(), page.titles, strict=True) if words in title]
    return found


def maps(figure):
    return [trace for trace in figure.data if trace.type == "heatmap"]


def test_all_files_are_written_and_named(written):
    directory, paths, said = written
    there = {path for path in directory.rglob("*") if path.is_file() and path.name != ".report.json"}
    assert set(paths) == there
    assert paths[0] == directory / "index.html"
    assert set(said) == {path.relative_to(directory).as_posix() for path in paths}
    names = {path.name for path in paths}
    assert {"summary.md", "matrix.png", "matrix.svg", "curves.svg", "best.png", "units.svg"} <= names
    assert {"matrix.csv", "flatter.csv", "above_clean.md", "units.csv", "missing.csv"} <= names


def test_the_page_needs_nothing_else(written):
    directory, _, _ = written
    page = Page((directory / "index.html").read_text(encoding="utf-8"))
    assert not page.sources
    assert "link" not in page.tags
    assert "img" not in page.tags
    # Plotly's library once, and nothing but its own calls beside.
    assert sum(len(script) > 1_000_000 for script in page.scripts) == 1
    assert len(page.figures()) == 6
    assert all("Plotly" in script for script in page.scripts)
    assert (directory / "index.html").stat().st_size < 8e6


def test_the_page_shows_every_number(written, frame):
    """Means, differences, intervals and marks are those of the tables, not computed anew."""
    directory, _, _ = written
    page = Page((directory / "index.html").read_text(encoding="utf-8"))
    findings = find(frame)
    for heat, matrix in zip(maps(titled(page, "Accuracy for every")), findings.matrices, strict=True):
        assert np.array(heat.z) == pytest.approx(100 * matrix.mean, abs=1e-6)
    curves = titled(page, "Noise curves")
    for number, matrix in enumerate(findings.matrices):
        axis = f"x{number + 1}" if number else "x"
        lines = [trace for trace in curves.data if trace.name and trace.xaxis == axis]
        assert [trace.name for trace in lines] == ["0 (conventional)", "1"]
        for row, trace in enumerate(lines):
            assert list(trace.x) == list(matrix.levels)
            assert trace.y == pytest.approx(100 * matrix.mean[row], abs=1e-6)
    assert [trace.showlegend for trace in curves.data].count(True) == 2
    for words, tables in (
        ("training at the same noise", ["difference"]),
        ("training with clean inference", ["clean_inference", "above_clean"]),
    ):
        for heat, matrix in zip(maps(titled(page, words)), findings.matrices, strict=True):
            for row in pd.concat([findings.tables[table] for table in tables]).itertuples():
                if row.units == matrix.key["units"]:
                    train, infer = (
                        matrix.sigma_train.index(row.sigma_train) - 1,
                        matrix.levels.index(row.strength),
                    )
                    assert heat.z[train][infer] == pytest.approx(100 * row.effect, abs=1e-6)
                    assert f"±{50 * (row.high - row.low):.1f}" in heat.text[train][infer]
                    hover = heat.hovertext[train][infer]
                    for value in (row.effect, row.low, row.high):
                        assert f"{100 * value + 0.0:+.1f}".replace("-", "−") in hover
                    assert ("significant" in hover) == ("*" in heat.text[train][infer]) == (row.p_holm < 0.05)


def test_a_menu_chooses_among_the_figures_of_a_kind():
    found = find(
        simulate(**SMALL, cells=("lstm", "gru"), sizes=(32, 64)).query("cell == 'lstm' or units == 32")
    )
    page = Page(report_page(found, study_figures(found)))
    figure = next(one for one in page.figures() if maps(one) and one.layout.updatemenus)
    (menu,) = figure.layout.updatemenus
    assert [button.label for button in menu.buttons] == ["gru", "lstm"]
    assert [trace.visible for trace in figure.data] == list(menu.buttons[0].args[0]["visible"])
    for button, cell in zip(menu.buttons, ("gru", "lstm"), strict=True):
        visible, layout = button.args
        shown = [trace for trace, on in zip(figure.data, visible["visible"], strict=True) if on]
        own = [matrix for matrix in found.matrices if matrix.key["cell"] == cell]
        for trace, matrix in zip(shown, own, strict=True):
            assert np.array(trace.z) == pytest.approx(100 * matrix.mean, abs=1e-6)
        assert "title" not in layout  # it is a text of the page
        # The axes of a panel that only the other has are hidden.
        assert ("title" in layout["xaxis2"]) == (len(own) == 2)
        assert layout["xaxis2"].get("visible", True) == (len(own) == 2)


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
        return {name: figure for name, figure in study_figures(findings).items() if name.startswith("best")}

    monkeypatch.setattr(report_module, "study_figures", draw_some)


def test_a_study_may_have_any_name():
    odd = find(simulate(**(SMALL | {"seeds": range(1)})).assign(data="</script><b>a & 'b'|c", cell="<i>%{x}"))
    text = report_page(odd, study_figures(odd))
    page = Page(text)
    assert not {"b", "i"} & set(page.tags)
    assert len(page.figures()) == 5
    notes = re.findall(r"<p class=note>(.*?)</p>", text)
    assert sum("&lt;/script&gt;&lt;b&gt;a &amp; &#x27;b&#x27;|c" in note for note in notes) == 5


def test_a_page_of_two_seeds_has_no_interval_and_no_mark():
    two = find(simulate(**(SMALL | {"seeds": range(2)}), spread=1e-9))
    text = report_page(two, study_figures(two))
    page = Page(text)
    seen = 0
    for figure in page.figures():
        curves = [trace for trace in figure.data if trace.type == "scatter"]
        assert not any(trace.fill == "toself" or trace.error_y.array for trace in curves)  # bands, bars
        for heat in maps(figure):
            for row in heat.text or ():
                assert not any("±" in cell or "*" in cell for cell in row)
                seen += len(row)
            if heat.text:
                assert all("too few seeds for an interval" in cell for row in heat.hovertext for cell in row)
    assert seen == 2 * 3 + 2 * 3
    assert "cannot be tested" in text


@pytest.mark.usefixtures("one_figure")
def test_a_later_report_replaces_the_former(tmp_path, frame):
    ledger = fill(tmp_path / "ledger", frame)
    report_study(ledger, tmp_path / "report")
    mine = tmp_path / "report" / "figures" / "mine.png"
    mine.write_bytes(b"mine")
    assert (tmp_path / "report" / "figures" / "best.png").exists()
    fill(
        tmp_path / "ledger",
        simulate(seed=1, **SMALL).assign(epochs=80, member=lambda rows: rows["member"].str[::-1]),
    )
    paths = report_study(tmp_path / "ledger", tmp_path / "report")
    assert (tmp_path / "report" / "figures" / "best-80epochs.png") in paths
    assert not (tmp_path / "report" / "figures" / "best.png").exists()
    assert mine.exists()


def test_an_empty_ledger_is_an_error_and_writes_nothing(tmp_path):
    with pytest.raises(UserError, match="no results yet"):
        report_study(tmp_path / "ledger", tmp_path / "report")
    assert not (tmp_path / "report").exists()
