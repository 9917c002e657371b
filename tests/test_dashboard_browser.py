"""The dashboard in a real browser: what users see, click, export and share."""

import io
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from browser import Visit, chromium, needs_chromium
from PIL import Image
from simulated_study import simulate
from test_catalogue import save_run
from test_figures import make_curve

from asr_dni.noise import Strength
from asr_dni.study.ledger import Ledger

pytestmark = needs_chromium

DRAWN = "n => document.querySelectorAll('#curves-drawn tbody tr').length === n"
TRACES = """() => document.querySelector('#curves-graph .js-plotly-plot').data
    .filter(one => one.hovertext).map(one => [one.name, one.y])"""


def write_results(folder):
    """Two experiments of three seeds, one with curves over ADC bits too, a damaged run, and a study."""
    for sigma, accuracies in ((0.0, (0.9, 0.5, 0.2)), (2.0, (0.88, 0.84, 0.7))):
        for seed in (1, 2, 3):
            own = [accuracy + 0.01 * seed for accuracy in accuracies]
            save_run(folder / f"lstm_{sigma:g}" / f"seed_{seed}", sigma, seed, own)
    bits = Strength("adc.bits").as_dict()
    make_curve((0.2, 0.6, 0.8), strength=bits, seed=1, sigma_train=2.0).to_csv(
        folder / "lstm_2" / "seed_1" / "noise_curve-adc" / "noise_curve.csv"
    )
    damaged = save_run(folder / "damaged" / "seed_1", 1.0, 1)
    (damaged / "noise_curve.csv").write_text("not a curve", encoding="utf-8")
    study = folder / "study"
    frame = simulate(
        sigmas_train=(0.0, 0.5, 1.0), sigmas_infer=(0.0, 0.5, 1.0, 2.0), draws=2, sizes=(32,), seeds=range(4)
    )
    ledger = Ledger(study / "ledger")
    for member, rows in frame[frame["cell"] == "lstm"].groupby("member", observed=True):
        ledger.append(str(member), rows)
    (study / "study.yaml").write_text("{}\n", encoding="utf-8")
    (study / "common.json").write_text("{}", encoding="utf-8")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_results(folder)
    return folder


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def url(results):
    from asr_dni.dashboard.server import Server

    with Server(results, port=0).serving() as served:
        yield served


@pytest.fixture
def visit(browser, url):
    """Opens pages; in the end none of them has complained, or asked another host for anything."""
    opened = []

    def make(path, **options):
        opened.append(Visit(browser, url, **options))
        opened[-1].open(path)
        return opened[-1]

    yield make
    for one in opened:
        one.page.close()
    assert [fault for one in opened for fault in one.faults] == []


def rows(page):
    return page.locator("#curves-grid .ag-center-cols-container .ag-row")


def curves(page):
    """Return the curves that are drawn, in percent, by their names."""
    return {name: np.array(values, dtype=float) for name, values in page.evaluate(TRACES)}


def test_curves_are_drawn_at_once_filtered_chosen_shared_and_exported(visit):
    opened = visit("/")
    page = opened.page
    opened.wait(DRAWN, 2)
    first = curves(page)
    np.testing.assert_allclose(first["conventional"], [92, 53, 23], atol=0.01)
    np.testing.assert_allclose(first["DNI σ<sub>train</sub>=2"], [90, 87, 73], atol=0.01)
    assert page.locator("#curves-heading").inner_text() == "3 curves of 7 runs: 1 damaged"
    assert "damaged/seed_1/noise_curve.csv" in page.locator("#curves-faults").text_content()

    # What is at the pointer is shown with its interval.
    box = page.locator("#curves-graph .nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    opened.wait("() => document.querySelector('#curves-graph .hoverlayer').textContent.includes('53.0')")
    assert re.search(r"53\.0 ± \d", page.locator("#curves-graph .hoverlayer").text_content())

    # Filter, and choose what is left.
    page.get_by_label("Search the table").fill("conventional")
    opened.wait(
        "() => document.querySelectorAll('#curves-grid .ag-center-cols-container .ag-row').length === 1"
    )
    page.get_by_label("Search the table").fill("")
    opened.wait(
        "() => document.querySelectorAll('#curves-grid .ag-center-cols-container .ag-row').length === 3"
    )
    page.locator("#curves-grid .ag-row[row-id] .ag-cell[col-id=label]", has_text="conventional").locator(
        "xpath=.."
    ).get_by_role("checkbox").click()
    opened.wait(DRAWN, 1)
    opened.wait("() => location.search.includes('select=')")
    assert list(curves(page)) == ["DNI σ<sub>train</sub>=2"]

    # The link shows the same to somebody else.
    again = visit(page.evaluate("() => location.pathname + location.search"))
    again.wait(DRAWN, 1)
    assert list(curves(again.page)) == ["DNI σ<sub>train</sub>=2"]

    # Files for papers are of what is shown.
    files = {}
    for kind in ("png", "svg", "csv"):
        with again.page.expect_download() as download:
            again.page.locator("#curves-exports").get_by_text(kind.upper()).click()
        files[kind] = download.value.path().read_bytes()
    assert Image.open(io.BytesIO(files["png"])).width > 800
    assert b"<svg" in files["svg"]
    numbers = pd.read_csv(io.BytesIO(files["csv"]))
    np.testing.assert_allclose(numbers[numbers["label"] == "DNI σ_train=2"]["y"], [90, 87, 73], atol=0.01)

    # Going back is what was before.
    page.go_back()
    opened.wait(DRAWN, 2)


@pytest.mark.slow
def test_differences_are_paired_over_seeds_and_each_axis_has_its_curves(visit):
    opened = visit("/curves?show=difference")
    page = opened.page
    opened.wait("() => document.querySelector('#curves-title').textContent.startsWith('Difference')")
    np.testing.assert_allclose(curves(page)["DNI σ<sub>train</sub>=2"], [-2, 34, 50], atol=0.01)
    assert "within 3 seeds" in page.locator("#curves-note").inner_text()
    page.get_by_text("Accuracy", exact=True).click()
    page.get_by_role("textbox", name="Axis").click()
    page.get_by_role("option", name="ADC bits").click()
    opened.wait("() => document.querySelector('#curves-graph').textContent.includes('ADC bits')")
    opened.wait(DRAWN, 1)
    opened.wait("() => location.search.includes('axis=adc.bits')")
    # Each seed, over the SNR: the clean point is at an end of the axis.
    seeds = visit("/curves?by=run&axis=snr")
    seeds.wait(DRAWN, 6)
    assert "clean" in seeds.page.locator("#curves-graph .xaxislayer-above").text_content()


def test_themes_reach_figures_and_links(visit):
    opened = visit("/curves", color_scheme="dark")
    page = opened.page
    opened.wait(DRAWN, 2)
    paper = "() => document.querySelector('#curves-graph .js-plotly-plot')?._fullLayout?.paper_bgcolor"
    dark = page.wait_for_function(paper).json_value()  # a figure that is drawn again is away for a moment
    assert "theme" not in page.url
    page.locator("#toggle-theme").click()
    opened.wait(f"before => ![undefined, before].includes(({paper})())", dark)
    opened.wait("() => location.search === '?theme=light'")
    again = visit("/curves?theme=light", color_scheme="dark")
    again.wait(DRAWN, 2)
    light = [its.wait_for_function(paper).json_value() for its in (again.page, page)]
    assert light[0] == light[1] != dark
    for name in ("Matrix", "Run", "Curves"):  # a link that is copied anywhere shows the same
        page.get_by_role("navigation", name="Views").get_by_role("link", name=name).click()
        opened.wait("name => location.pathname === `/${name.toLowerCase()}`", name)
        opened.wait("() => location.search.includes('theme=light')")


def test_a_selected_row_that_the_search_hides_is_told_of(visit):
    opened = visit("/curves")
    opened.wait(DRAWN, 2)
    hidden = "text => document.querySelector('#curves-hidden').textContent.startsWith(text)"
    page = opened.page
    search = page.get_by_role("textbox", name="Search the table")
    search.fill("zzz")
    opened.wait(hidden, "2 selected rows are not in the table now")
    search.fill("")
    opened.wait("() => document.querySelector('#curves-hidden').textContent === ''")


def test_a_click_on_a_cell_opens_its_curve_and_trainings(visit):
    opened = visit("/matrix")
    page = opened.page
    opened.wait("() => document.querySelectorAll('#matrix-members tbody tr').length >= 4")
    heat = "document.querySelector('#matrix-graph .js-plotly-plot')"
    box = page.locator("#matrix-graph .nsewdrag").first.bounding_box()
    # Of 4 columns and 3 rows: the last column, the lowest row.
    page.mouse.click(box["x"] + 0.875 * box["width"], box["y"] + 0.83 * box["height"])
    opened.wait("() => document.querySelector('#matrix-cell-title').textContent.includes('σ_train 0')")
    opened.wait("() => location.search.includes('cell=0,0,2')")
    shown = page.evaluate(f"() => {heat}.data[0].z[0][3]")
    accuracies = [
        float(text.split()[0])
        for text in page.locator("#matrix-members .legend")
        .first.locator("tbody td:nth-child(2)")
        .all_inner_texts()
    ]
    assert len(accuracies) == 4
    assert np.mean(accuracies) == pytest.approx(shown, abs=0.06)
    assert "Does training under noise" in page.locator(".findings").inner_text()
    assert "Test:" in page.locator(".findings").inner_text()
    again = visit(page.evaluate("() => location.pathname + location.search"))
    again.wait("() => document.querySelector('#matrix-cell-title')?.textContent.includes('σ_train 0')")


@pytest.mark.parametrize("theme", [pytest.param("light", marks=pytest.mark.slow), "dark"])
def test_pages_are_accessible_and_fit_a_phone(visit, theme):
    opened = visit(f"/curves?theme={theme}", viewport={"width": 390, "height": 844})
    opened.wait(DRAWN, 2)
    assert opened.violations() == []
    fits = "() => document.documentElement.scrollWidth <= innerWidth"
    assert opened.page.evaluate(fits)
    opened.open(f"/matrix?theme={theme}")
    opened.wait("() => document.querySelectorAll('#matrix-members tbody tr').length >= 4")
    assert opened.violations() == []
    assert opened.page.evaluate(fits)


def test_a_page_that_is_none_says_so(visit):
    opened = visit("/nonsense?x=1")
    assert "no such page" in opened.page.locator("#page").inner_text()


@pytest.mark.slow
def test_an_empty_folder_says_what_to_do_and_shows_the_first_run_by_itself(browser, results, tmp_path):
    from asr_dni.dashboard.server import Server

    with Server(tmp_path, port=0).serving() as url:
        opened = Visit(browser, url)
        page = opened.open("/")
        page.get_by_text("No runs yet").wait_for()
        assert "asr-dni demo" in page.locator("#page").inner_text()
        assert opened.violations() == []
        shutil.copytree(results / "lstm_0", tmp_path / "lstm_0")
        opened.wait(DRAWN, 1)
        shutil.copytree(results / "lstm_2", tmp_path / "lstm_2")
        opened.wait(
            "() => document.querySelectorAll('#curves-grid .ag-center-cols-container .ag-row').length === 2"
        )
        opened.open("/matrix")
        page.get_by_text("No study yet").wait_for()
        page.close()
        assert opened.faults == []
