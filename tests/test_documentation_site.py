"""The documentation as a site: complete, and showing itself without any other host."""

import importlib
import re
import sys
from functools import partial
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from asr_dni.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[1]
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def made():
    """The modules that make pages from the code."""
    sys.path.insert(0, str(ROOT / "scripts" / "documentation"))
    yield importlib.import_module
    sys.path.remove(str(ROOT / "scripts" / "documentation"))


def nav() -> list[str]:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    return re.findall(r"^ +- (?:.*: )?(\S+\.md)$", text[text.index("\nnav:") :], re.MULTILINE)


def test_every_page_is_in_the_navigation():
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert pages - set(nav()) == set()


def leaves(settings: dict, above: str = "") -> set[str]:
    """Dotted names of what is set; what an object of a class is made of is its class's own."""
    found: set[str] = set()
    for key, value in settings.items():
        name = f"{above}{key}"
        below = isinstance(value, dict) and value and "class_path" not in value
        found |= leaves(value, f"{name}.") if below else {name}
    return found


@pytest.mark.parametrize(
    ("page", "command"),
    [("fit", ["fit"]), ("study", ["study", "run", "quick"])],
)
@pytest.mark.filterwarnings("ignore")
def test_every_setting_is_documented(made, page, command, capsys):
    with pytest.raises(SystemExit):
        main([*command, "--print_config"])
    settings = leaves(yaml.safe_load(capsys.readouterr().out))
    text = dict(made("settings_reference").pages())[page]
    documented = set(re.findall(r'<dt id="([^"]+)">', text))
    inside = {name for name in settings if any(name.startswith(f"{its}.") for its in documented)}
    assert len(settings) > 50
    assert settings - documented - inside == set()


def test_defaults_and_meanings_are_the_parsers(made):
    text = dict(made("settings_reference").pages())["fit"]
    entry = re.search(r'<dt id="model.network.units">.*?</dd>', text, re.DOTALL)[0]
    plain = unescape(re.sub(r"<[^>]+>", "", entry))
    assert plain == "model.network.unitsunits per layer and direction.int, default 128"
    scale = re.search(r'<dt id="model.noise.scale">.*?</dd>', text, re.DOTALL)[0]
    assert "absolute | signal | range" in scale
    # What a setting's value is made of: of a class, of a mapping.
    assert '<dt id="Folder-speaker">' in text
    assert '<dt id="ConvolutionSettings-blocks">' in text
    assert '<dt id="ConvolutionBlock-' in text


def test_every_command_is_documented(made):
    text = made("command_help").page()
    sections = re.findall(r"^##+ asr-dni (.+)$", text, re.MULTILINE)
    assert set(COMMANDS) <= set(sections)
    assert {"study run", "study plan", "conf list", "noise show"} <= set(sections)
    assert "--strengths STRENGTHS" in text
    assert re.search(r":\w+:`|``", text) is None  # what docstrings have for this site


def test_every_public_name_is_documented(made):
    pages = dict(made("python_reference").pages())
    for package in made("python_reference").PACKAGES:
        module = importlib.import_module(f"asr_dni.{package}")
        listed = set(re.findall(rf"^::: asr_dni\.{package}\.(\w+)$", pages[package], re.MULTILINE))
        assert listed == set(module.__all__), package
        assert "`~" not in pages[package]
    assert "::: asr_dni.evaluation.curves.differences.differences\n" in pages["evaluation"]


def test_links_lead_to_files_of_the_site(made):
    rewrite = made("repository_links").rewrite
    text = (
        "[a](../data/README.md) [b](noise.md#x) [c](https://example.org)\n```\n[d](../data/README.md)\n```\n"
    )
    assert rewrite(text, "measure.md", str(ROOT)) == text.replace(
        "../data/README.md", "repository/data/about.md", 1
    )
    back = rewrite("[a](../docs/own_data.md)", "repository/data/about.md", str(ROOT))
    assert back == "[a](../../own_data.md)"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as ``make docs`` builds it: any warning is an error."""
    pytest.importorskip("mkdocs")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(folder))
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    return folder


@pytest.fixture(scope="module")
def address(site):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield chromium
        chromium.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_site_has_its_pages_and_their_anchors(site):
    for page in nav():
        assert (site / page).with_suffix(".html").is_file()
    noise = (site / "reference" / "python" / "noise.html").read_text(encoding="utf-8")
    assert 'id="asr_dni.noise.Hardware"' in noise
    assert "standard normal and independent" in noise
    assert not re.search(r":(class|func|meth|attr|data|mod):", noise)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_show_without_any_other_host(address, browser, scheme, width):
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme).new_page()
    requested, said = [], []
    page.on("request", lambda request: requested.append(request.url))
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    for name in (
        "index",
        "train",
        "hardware",
        "reference/fit",
        "reference/commands",
        "reference/python/noise",
    ):
        page.goto(f"{address}/{name}.html")
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(page).response["violations"]
        grave = [
            (name, its["id"], its["nodes"][0]["html"][:120])
            for its in found
            if its["impact"] in ("serious", "critical")
        ]
        assert grave == []
    assert said == []
    assert [url for url in requested if not url.startswith((address, "data:", "blob:"))] == []
    assert len(requested) > 6


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_search_finds_a_setting(address, browser):
    page = browser.new_page()
    page.goto(f"{address}/index.html")
    page.click("input[name=query]")
    page.keyboard.type("warm_up")
    page.wait_for_selector(".md-search-result__link", state="attached", timeout=60_000)
    found = [link.get_attribute("href") for link in page.query_selector_all(".md-search-result__link")]
    assert any("reference/fit.html" in link for link in found)
    page.close()
