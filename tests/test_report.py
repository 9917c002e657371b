"""Reports on runs and studies, as documents, pages and PDFs."""

import re

import numpy as np
import pytest
from made_runs import write_runs
from scipy import stats
from simulated_study import simulate

from asr_dni.cli.main import main
from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import NoiseCurve
from asr_dni.evaluation.questions.folder import TABLES, write_table
from asr_dni.plotting import Figure
from asr_dni.report import Answers, Choice, Table, Text, make_report, write_report
from asr_dni.report.as_html import as_html
from asr_dni.study.ledger import Ledger


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return write_runs(tmp_path_factory.mktemp("runs"), sigmas=(0.0, 2.0))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    frame = simulate(sigmas_train=(0.0, 1.0), sigmas_infer=(0.0, 1.0), draws=1, seeds=range(3))
    ledger = Ledger(folder / "ledger")
    for member, rows in frame.groupby("member"):
        ledger.append(str(member), rows)
    (folder / "study.yaml").write_text("name: simulated\n", encoding="utf-8")
    return folder


def blocks(document, kind):
    return [block for section in document.sections for block in section.blocks if isinstance(block, kind)]


def table(document, title):
    (found,) = [one for one in blocks(document, Table) if one.title.startswith(title)]
    return {row[0]: dict(zip(found.header, row, strict=True)) for row in found.rows}


def accuracies(runs, name):
    """Means over draws, a row per seed, of the files themselves."""
    curves = [NoiseCurve.from_csv(path) for path in sorted((runs / name).glob("*/noise_curve.csv"))]
    return np.stack([curve.frame.groupby("strength")["accuracy"].mean() for curve in curves])


def test_a_report_on_runs_has_the_numbers_of_their_files(runs):
    document = make_report([runs])
    assert [section.title for section in document.sections] == [
        "Runs",
        "Noise curves",
        "Differences to conventional",
        "Trainings",
        "Settings",
    ]
    assert document.lead.startswith("6 runs of 2 experiments; newest result of 2")
    listed = table(document, "All runs")
    assert list(listed) == [f"lstm_{sigma}/seed_{seed}" for sigma in "02" for seed in (1, 2, 3)]
    assert {row["state"] for row in listed.values()} == {"finished"}
    conventional, dni = accuracies(runs, "lstm_0"), accuracies(runs, "lstm_2")
    experiments = table(document, "Experiments")
    clean = experiments["DNI σ_train=2"]["accuracy at σ_infer 0 (%)"]
    assert clean.startswith(f"{100 * dni[:, 0].mean():.1f} ")
    # All levels are as far apart, so that the area is the mean but for half of both ends.
    area = (dni.mean(axis=0).sum() - dni.mean(axis=0)[[0, -1]].mean()) / 8
    assert experiments["DNI σ_train=2"]["area (%)"] == f"{100 * area:.1f}"
    differences = table(document, "Difference to conventional (percentage points)")
    own = stats.ttest_rel(dni[:, 6], conventional[:, 6]).confidence_interval()
    expected = [100 * value for value in ((dni - conventional)[:, 6].mean(), *own)]
    told = [
        float(value) for value in re.findall(r"[-+\d.]+", differences["3"]["DNI σ_train=2"].replace("−", "-"))
    ]
    assert told == pytest.approx(expected, abs=0.051)
    figures = blocks(document, Figure)
    assert [figure.title for figure in figures] == [
        "Accuracy under computation noise",
        "Difference to conventional at the same σ_infer",
    ]
    assert figures[0].panels[0].elements[1].y == pytest.approx(tuple(100 * dni.mean(axis=0)))
    settings = table(document, "Settings that differ")
    assert settings == {
        "annealing.sigma": {"setting": "annealing.sigma", "conventional": "0.0", "DNI σ_train=2": "2.0"}
    }
    assert "model.network.cell" in table(document, "Settings that all have in common")
    choices = {choice.title: list(choice.figures) for choice in blocks(document, Choice)}
    assert choices["Learning curves"][0] == "lstm_0/seed_1 (conventional)"
    assert [len(names) for names in choices.values()] == [6, 6]


def test_any_experiment_or_run_can_be_the_baseline(runs):
    for baseline in ("DNI σ_train=2", "lstm_2/seed_3"):
        document = make_report([runs], baseline)
        assert "Differences to DNI σ_train=2" in [section.title for section in document.sections]
    with pytest.raises(
        UserError, match=r"--baseline lstm: there is no such .*'conventional', 'DNI σ_train=2'"
    ):
        make_report([runs], "lstm")


def test_damage_is_named_and_hides_nothing(tmp_path):
    runs = write_runs(tmp_path / "runs", sigmas=(0.0, 2.0))
    whole = make_report([runs])
    cut = (runs / "lstm_2" / "seed_1" / "noise_curve.csv").read_text(encoding="utf-8")[:700]
    for name, files in {
        "z_cut_curve": {"noise_curve.csv": cut},
        "cut_metrics": {"metrics.csv": "epoch,step,train/loss\n0,9"},
        "no_yaml": {"config.yaml": "model: ["},
    }.items():
        for file, text in files.items():
            (runs / name).mkdir(exist_ok=True)
            (runs / name / file).write_text(text, encoding="utf-8")
    document = make_report([runs])
    warnings = [block.text for block in blocks(document, Text) if block.kind == "warning"]
    for name in ("z_cut_curve", "cut_metrics", "no_yaml"):
        assert any(name in text and "damaged" in text for text in warnings), name
        assert table(document, "All runs")[name]["state"] == "damaged"
    assert "(3 damaged)" in document.lead
    assert blocks(document, Figure) == blocks(whole, Figure)
    assert table(document, "Experiments") == table(whole, "Experiments")
    page = as_html(document)
    assert "z_cut_curve is damaged" in page


def test_evaluations_are_shown_and_damaged_ones_named(tmp_path):
    import pandas as pd

    runs = write_runs(tmp_path, sigmas=(0.0,), seeds=1)
    folder = runs / "lstm_0" / "seed_1" / "evaluation"
    summary = pd.DataFrame({name: ["midpoint"] if name == "quantity" else [""] for name in TABLES["summary"]})
    summary = summary.assign(value=[3.25], low=[3.0], high=[3.5])
    write_table(folder, "summary", summary, {"draws": 1})
    clips = pd.DataFrame(
        [
            (clip, f"yes/{clip}.wav", "yes", strength, share, margin, "no")
            for clip, strength, share, margin in (
                (0, 0.0, 1.0, 0.9),
                (0, 2.0, 0.75, 0.2),
                (1, 0.0, 1.0, 0.8),
                (1, 2.0, 0.25, -0.4),
                (2, 0.0, 0.0, -0.5),  # wrong without noise: noise does not break it
                (2, 2.0, 0.0, -0.5),
            )
        ],
        columns=list(TABLES["clips"]),
    )
    write_table(folder, "clips", clips, {"draws": 1})
    document = make_report([runs])
    assert table(document, "What it comes to (lstm_0/seed_1, evaluation)")["midpoint"]["value"] == "3.25"
    assert list(table(document, "Clips that noise breaks first")) == ["yes/1.wav", "yes/0.wav"]
    (folder / "summary.parquet").write_bytes(b"PAR1")
    warnings = [block.text for block in blocks(make_report([runs]), Text) if block.kind == "warning"]
    assert any("summary.parquet" in text for text in warnings)


def test_studies_and_runs_in_one_report(runs, study):
    document = make_report([runs, study])
    titles = [section.title for section in document.sections]
    assert f"Findings of {study.name}" in titles
    assert "Noise curves" in titles
    assert "6 runs of 2 experiments; 1 study" in document.lead
    assert any(answer.verdict == "supports" for one in blocks(document, Answers) for answer in one.answers)
    assert "Noise curves" in {choice.title for choice in blocks(document, Choice)}
    names = table(document, "All runs")
    assert set(names) == {f"{runs.name}/lstm_{sigma}/seed_{seed}" for sigma in "02" for seed in (1, 2, 3)}
    assert len(table(make_report([runs, runs / "lstm_0"]), "All runs")) == 6  # each once


def test_the_same_results_give_the_same_files(runs, tmp_path):
    runs = runs / "lstm_0" / "seed_1"
    paths = [(tmp_path / f"{name}.html", tmp_path / f"{name}.pdf") for name in "ab"]
    for page, pdf in paths:
        assert write_report(make_report([runs]), page, pdf) == [page, pdf]
    for one, other in zip(*paths, strict=True):
        assert one.read_bytes() == other.read_bytes()
    text = paths[0][0].read_text(encoding="utf-8")
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=", text)


def test_a_pdf_has_a_page_for_each_figure_and_says_what_it_is(runs, tmp_path):
    document = make_report([runs / "lstm_2" / "seed_1"], title="Spotters & noise")
    pdf = write_report(document, pdf=tmp_path / "report.pdf")[0].read_bytes()
    figures = len(blocks(document, Figure)) + sum(len(choice.figures) for choice in blocks(document, Choice))
    pages = int(re.search(rb"/Count (\d+)", pdf)[1])
    assert figures + 2 <= pages <= figures + 5
    assert b"/Title (Spotters & noise)" in pdf
    assert f"/CreationDate (D:{document.date:%Y%m%d%H%M%S}".encode() in pdf
    assert b"/Subtype /Image" not in pdf  # all of it is vector graphics
    assert b"/Subtype /Type3" not in pdf  # which publishers refuse


def test_the_command_writes_and_says_how_large(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["report", str(runs / "lstm_0"), "-o", "mine/report.html", "--title", "Mine"])
    said = capsys.readouterr().out
    page = tmp_path / "mine" / "report.html"
    assert said == f"written: mine/report.html ({page.stat().st_size / 1e6:.1f} MB)\n"
    assert "<h1>Mine</h1>" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere is not a folder"),
        (["empty"], "empty holds no runs and no studies"),
        (["file"], "file is a file: give the folder"),
        (["runs", "-o", "report.txt"], "--output report.txt: give a name that ends in .html"),
        (["runs", "--pdf", "report.html"], "--pdf report.html: give a name that ends in .pdf"),
        (["runs", "-o", "file/report.html"], "--output file/report.html: something is in the way"),
        (["runs", "--baseline", "x"], "--baseline x: there is no such experiment"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(arguments, words, runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "runs").symlink_to(runs)
    with pytest.raises(SystemExit) as error:
        main(["report", *arguments])
    assert error.value.code == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "file", "runs"}
