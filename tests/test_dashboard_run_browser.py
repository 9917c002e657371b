"""The pages *run* and *try* in a browser: tabs, clips to listen to, a slider, links."""

import re
from pathlib import Path

import pytest
from chromium import PATIENCE, Watch, accessibility_faults, chromium
from recordings import tone, write
from trained import train

from asr_dni.dashboard.listening import MOST_BYTES
from asr_dni.dashboard.server import Server
from asr_dni.data import Folder, KeywordData
from asr_dni.features import MFCC

RUN = "tones/version_0"
CONFIGURATION = """
seed_everything: {seed}
model:
  network: {{cell: lstm, units: {units}}}
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory, tone_words, tone_cache):
    """A run on tone words, not evaluated yet, and another that differs in its settings."""
    root = tmp_path_factory.mktemp("browsed")
    for name, seed, units in ((RUN, 1, 8), ("other/version_0", 2, 16)):
        run = root / name
        (run / "checkpoints").mkdir(parents=True)
        (run / "config.yaml").write_text(CONFIGURATION.format(seed=seed, units=units))
    data = KeywordData(
        Folder(tone_words), front_end=MFCC(n_mfcc=10), batch_size=8, seed=1, cache_dir=tone_cache
    )
    train(root / RUN / "checkpoints", data, epochs=8)
    (root / "damaged" / "checkpoints").mkdir(parents=True)
    (root / "damaged" / "config.yaml").write_text("seed_everything: 3\n")
    whole = (root / RUN / "checkpoints" / "last.ckpt").read_bytes()
    (root / "damaged" / "checkpoints" / "last.ckpt").write_bytes(whole[:400] + b"\0" * 400 + whole[800:])
    with Server(root, port=0).serving() as url:
        yield url.rstrip("/")


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def watch():
    return Watch()


@pytest.fixture
def page(browser, watch):
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    watch.attach(page)
    yield page
    context.close()


def drawn(page) -> str:
    """What the figure of the posteriors shows."""
    return page.evaluate(
        "() => JSON.stringify(document.querySelector('#posteriors-graph .js-plotly-plot')._fullData.map(t => t.y))"
    )


def when_drawn(page, unlike: str = "") -> str:
    page.wait_for_function(
        "before => { const plot = document.querySelector('#posteriors-graph .js-plotly-plot');"
        " return plot && plot._fullData && plot._fullData.length"
        " && JSON.stringify(plot._fullData.map(t => t.y)) !== before; }",
        arg=unlike,
    )
    return drawn(page)


def test_a_run_is_compared_measured_and_heard_and_its_clip_is_tried(page, watch, address, tmp_path):
    page.goto(f"{address}/run?run={RUN}&tab=settings&with=other/version_0")
    page.wait_for_selector(".differs")
    assert sorted(page.locator(".differs th").all_inner_texts()) == [
        "model.network.units",
        "seed_everything",
    ]
    assert accessibility_faults(page) == []

    page.get_by_role("link", name="Clips").click()
    # A command names its files from where the dashboard was started, not from the folder that it shows.
    page.get_by_text(re.compile(rf"asr-dni evaluate /\S+/{RUN}/checkpoints/last\.ckpt")).wait_for()
    page.get_by_text(f"In {Path.cwd()}, where the dashboard was started").wait_for()
    page.get_by_role("button", name="Measure it here").click()
    page.wait_for_selector("#run-clips .ag-row")
    player = page.locator("#run-clip audio")
    player.wait_for()
    page.wait_for_function("() => document.querySelector('#run-clip audio').readyState >= 1")
    assert player.evaluate("audio => audio.duration") == pytest.approx(1.0, abs=0.01)
    first = page.locator("#run-clip h2").first.inner_text()
    page.locator("#run-clips .ag-row").nth(1).click()
    page.wait_for_function("before => document.querySelector('#run-clip h2').innerText !== before", arg=first)
    assert accessibility_faults(page) == []

    page.get_by_role("link", name="Try it under noise").click()
    before = when_drawn(page)
    page.wait_for_function("() => document.querySelector('#try-audio').readyState >= 1")
    page.locator("#try-place [role=slider]").focus()
    for _ in range(12):  # faster than answers come
        page.keyboard.press("ArrowLeft")
    moved = when_drawn(page, before)
    page.wait_for_function(
        "() => document.querySelector('#try-value').innerText"
        " === String(+(+document.querySelector('#try-place [role=slider]').ariaValueNow).toPrecision(4))"
    )
    page.wait_for_url(re.compile("value="))
    moved = drawn(page)
    page.get_by_role("button", name="Another draw").click()
    again = when_drawn(page, moved)
    page.wait_for_url(re.compile("seed=1"))
    assert accessibility_faults(page) == []

    (tmp_path / "long.wav").write_bytes(b"\0" * (MOST_BYTES + 1))
    (tmp_path / "notes.wav").write_text("no sound")
    for name, said in (("long.wav", "long.wav: has 8.0 MB"), ("notes.wav", "notes.wav: ")) * 2:
        page.locator("#try-upload input").set_input_files(tmp_path / name)
        page.locator("#notices").get_by_text(said).wait_for()
        assert page.locator("#notices .notice").count() == 1
    with page.expect_file_chooser() as chooser:
        page.get_by_text("Your own recording").click()
    chooser.value.set_files(write(tmp_path / "mine.wav", tone(350, 1.5)))
    page.wait_for_url(re.compile("upload="))
    page.locator("#posteriors-head").get_by_text("mine.wav").wait_for()
    assert page.locator("#notices .notice").count() == 0
    page.wait_for_function("() => document.querySelector('#try-audio').duration > 1.4")
    again = drawn(page)

    link = page.url
    decided = page.locator("#try-decision").inner_text()
    page.goto("about:blank")
    page.goto(link)
    assert when_drawn(page) == again
    assert page.locator("#try-decision").inner_text() == decided
    assert watch.errors == []
    assert watch.foreign == []


def test_what_cannot_be_shown_is_a_message_and_the_rest_lives_on(page, watch, address):
    page.goto(f"{address}/try?run=damaged")
    page.get_by_text("cannot be read as a checkpoint").wait_for()
    page.goto(f"{address}/try?run={RUN}&clip=-1")
    page.get_by_text("there is no clip -1").wait_for()
    page.wait_for_function("() => !document.querySelector('#posteriors-graph').checkVisibility()")
    assert page.locator(".try-answers > .card:visible").count() == 1
    page.goto(f"{address}/run?run=damaged&tab=clips")
    page.get_by_role("button", name="Measure it here").click()
    page.locator("#run-progress-text").get_by_text("cannot be read as a checkpoint").wait_for()
    page.goto(f"{address}/run?run=../../etc")
    page.get_by_text("is not below").wait_for()
    page.goto(f"{address}/run")
    page.get_by_role("link", name=RUN).click()
    page.get_by_role("heading", name=RUN).wait_for()
    answer = page.request.get(f"{address}/audio/clip.wav?run={RUN}&clip=99999")
    assert (answer.status, answer.headers["content-type"]) == (404, "text/plain; charset=utf-8")
    answer = page.request.get(f"{address}/audio/clip.wav?run=../..&clip=0")
    assert answer.status == 404
    assert "Traceback" not in page.content()
    assert watch.errors == []


@pytest.mark.slow
def test_it_fits_a_phone(browser, address, watch):
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    watch.attach(page)
    for path, there in (
        (f"/run?run={RUN}", ".command"),
        (f"/try?run={RUN}&clip=1&form=map", "#clip-graph .main-svg"),
    ):
        page.goto(f"{address}{path}")
        page.locator(there).first.wait_for()
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, path
        assert accessibility_faults(page) == []
    assert watch.errors == []
    context.close()
