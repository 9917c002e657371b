"""Pages of figures, and choices among figures on them."""

import json
import re
from pathlib import Path

import pytest
from test_plotting import LINE, figure_of, plotly_of

import asr_dni
from asr_dni.plotting import Axis, Figure, Panel
from asr_dni.plotting.page import page, render_choice


def test_a_choice_shows_one_figure_at_a_time():
    figures = {
        "one": figure_of(LINE, x=Axis("time")),
        "two": Figure("other", tuple(Panel(Axis(name), Axis("y"), (LINE,)) for name in ("a", "b"))),
    }
    choice = json.loads(render_choice(figures).to_json())
    assert [trace.get("visible") for trace in choice["data"]] == [True] * 2 + [False] * 4
    (menu,) = choice["layout"]["updatemenus"]
    assert [button["label"] for button in menu["buttons"]] == ["one", "two"]
    for button, figure in zip(menu["buttons"], figures.values(), strict=True):
        visible, layout = button["args"]
        alone = plotly_of(figure)
        shown = [trace for trace, on in zip(choice["data"], visible["visible"], strict=True) if on]
        for mine, its in zip(shown, alone["data"], strict=True):
            assert {key: mine.get(key) for key in ("x", "y", "xaxis", "name")} == {
                key: its.get(key) for key in ("x", "y", "xaxis", "name")
            }
        assert layout["title"]["text"] == alone["layout"]["title"]["text"]
        assert layout["xaxis"]["title"] == alone["layout"]["xaxis"]["title"]
    for absent in ("xaxis2", "yaxis2"):
        axis = menu["buttons"][0]["args"][1][absent]
        assert axis["visible"] is False
        assert axis["domain"][1] < 0.01  # over nothing of the figure that is shown
    assert "updatemenus" not in json.loads(render_choice({"one": figures["one"]}).to_json())["layout"]
    with pytest.raises(ValueError, match="no figure"):
        render_choice({})


def test_a_page_has_the_library_once_and_its_parts_in_their_order():
    figure = figure_of(LINE)
    text = page("Noise & more", ["<p>first</p>", figure, "<p>second</p>", figure], "p { color: red }")
    assert text == page("Noise & more", ["<p>first</p>", figure, "<p>second</p>", figure], "p { color: red }")
    assert "<title>Noise &amp; more</title><style>" in text
    assert "p { color: red }</style>" in text
    assert "Content-Security-Policy content=\"default-src 'none';" in text
    places = [text.index(part) for part in ("<p>first", 'id="figure-1"', "<p>second", 'id="figure-2"')]
    assert places == sorted(places)
    assert len(re.findall(r"<script[^>]*>\s*/\*\*\s*\* plotly\.js", text)) == 1
    assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=", text)


def test_titles_and_small_print_are_texts_of_the_page():
    def texts(*parts):
        return re.findall(r"<(?:figcaption|p class=note)[^>]*>(.*?)</", page("t", parts))

    one = Figure("σ_train <b>", (Panel(elements=(LINE,)),), "settings of one; σ_infer")
    assert texts(one) == ["σ<sub>train", "settings of one; σ<sub>infer"]
    assert "σ<sub>train</sub> &lt;b&gt;" in page("t", [one])
    others = [Figure("title", one.panels, f"run {place}; scale absolute") for place in range(5)]
    named = {str(place): figure for place, figure in enumerate(others)}
    # Of few all is said, of many what they share: the menu names the rest.
    assert texts(dict(list(named.items())[:2])) == [
        "title",
        "0: run 0; scale absolute",
        "1: run 1; scale absolute",
    ]
    assert texts(named) == ["title", "scale absolute"]
    assert texts("<h3>title</h3>", named) == ["scale absolute"]


def test_the_package_has_no_javascript_of_its_own():
    root = Path(asr_dni.__file__).parent
    assert not [path for ending in ("js", "mjs", "ts", "html") for path in root.rglob(f"*.{ending}")]
    traces = re.compile(
        r"<script|</script|javascript:|\bon(?:click|change|load)\s*=|document\.getElement|Plotly\.\w"
    )
    found = [path.name for path in root.rglob("*.py") if traces.search(path.read_text(encoding="utf-8"))]
    assert found == []
