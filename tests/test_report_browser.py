"""A report in a real browser: nothing is loaded, nothing fails; by pointer, on a phone, in the dark."""

from pathlib import Path

import pytest
from made_runs import write_runs
from simulated_study import simulate

from asr_dni.report import make_report, write_report
from asr_dni.study.ledger import Ledger

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="there is no /usr/bin/chromium")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_runs(folder / "runs", sigmas=(0.0, 2.0), seeds=3)
    ledger = Ledger(folder / "study" / "ledger")
    frame = simulate(
        sigmas_train=(0.0, 1.0), sigmas_infer=(0.0, 1.0), draws=1, seeds=range(3), cells=("lstm", "gru")
    )
    for member, rows in frame.groupby("member"):
        ledger.append(str(member), rows)
    (folder / "study" / "study.yaml").write_text("name: simulated\n", encoding="utf-8")
    (path,) = write_report(make_report([folder / "runs", folder / "study"]), folder / "report.html")
    return path


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--headless=new", *ARGUMENTS]
        )
        yield started
        started.close()


@pytest.fixture
def open_report(browser, report):
    """Opens the report in a window, and tells in the end whether anything failed or was asked for."""
    said, asked, pages = [], [], []

    def opened(width=1280, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        page.wait_for_selector(".js-plotly-plot .main-svg")
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()] * len(pages)


def color(page, selector, name):
    return page.eval_on_selector(selector, f"element => getComputedStyle(element).{name}")


def test_the_report_is_read_by_pointer(open_report):
    page = open_report()
    assert page.title() == "Accuracy under computation noise"
    assert page.locator("figure").count() == 2 + 2 + 5
    curves = page.locator("#figure-1")
    curves.scroll_into_view_if_needed()
    point = curves.locator(".scatterlayer .trace").last.locator(".points path").nth(4)
    point.hover(force=True)
    hover = curves.locator(".hoverlayer")
    hover.get_by_text("conventional").first.wait_for()
    said = hover.text_content()
    assert "SNR" in said
    assert "±" in said
    # An entry of the legend switches its curve.
    shown = "() => document.querySelectorAll('#figure-1 .scatterlayer .points path').length"
    before = page.evaluate(shown)
    curves.locator(".legendtoggle").first.click()
    page.wait_for_function(f"before => ({shown})() < before", arg=before)
    # The menu shows another figure of the kind.
    matrix = page.locator("#figure-5")
    matrix.scroll_into_view_if_needed()
    cells = matrix.locator(".heatmap-label").all_text_contents()
    matrix.locator(".updatemenu-header").click()
    matrix.locator(".updatemenu-dropdown-button").nth(1).click()
    page.wait_for_function(
        "cells => [...document.querySelectorAll('#figure-5 .heatmap-label')].some((e, i) => e.textContent != cells[i])",
        arg=cells,
    )


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (390, "dark"),
        pytest.param(1280, "light", marks=pytest.mark.slow),
        pytest.param(1280, "dark", marks=pytest.mark.slow),
    ],
)
def test_light_dark_and_phone(open_report, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_report(width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shade = [int(part) for part in color(page, "body", "backgroundColor")[4:-1].split(",")]
    assert all(value < 60 for value in shade) == (scheme == "dark")
    assert ("invert" in color(page, ".js-plotly-plot", "filter")) == (scheme == "dark")
    # Panels side by side keep their width, and scroll within themselves on a phone.
    widths = "elements => elements.map(one => one.scrollWidth > one.clientWidth)"
    assert any(page.eval_on_selector_all("[role=group].drawing", widths)) == (width < 600)
    found = axe.run(page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"][:150]) for one in found] == []
    # In print it is light whatever the screen was.
    page.emulate_media(media="print", color_scheme=scheme)
    assert color(page, ".js-plotly-plot", "filter") == "none"
    assert color(page, ".modebar", "display") == "none"
    assert color(page, "body", "backgroundColor") == "rgb(255, 255, 255)"
    assert color(page, "body", "color") == "rgb(34, 34, 34)"
    assert color(page, ":root", "colorScheme") == "light"
