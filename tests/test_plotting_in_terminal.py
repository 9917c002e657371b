"""Figures as text: what is drawn where, and what a pipe, a narrow terminal and one without colours get."""

import io
import itertools
import math
import re

import pytest
from made_runs import write_runs
from rich.console import Console
from test_plotting import GRID, figure_of, make_map

from asr_dni.cli.main import main
from asr_dni.cli.plots import print_figures
from asr_dni.plotting import Axis, Bars, Figure, Legend, Line, Panel, Points, Reference, curve_style
from asr_dni.plotting.in_terminal import render

ESCAPE = "\x1b"
BOX = Axis("x", limits=(0, 10)), Axis("accuracy", "%", limits=(0, 100))


def drawn(figure, width=80, **options):
    written = io.StringIO()
    Console(file=written, width=width, markup=False, emoji=False, **options).print(render(figure, width))
    return written.getvalue()


def marks(text, mark):
    """Return where a mark is within the box, as shares of its width and height from the lower left corner."""
    lines = text.split("\n")
    top, bottom = (next(k for k, line in enumerate(lines) if corner in line) for corner in "┌└")
    left, right = lines[top].index("┌"), lines[top].index("┐")
    return [
        ((column - left - 0.5) / (right - left - 1), (bottom - row - 0.5) / (bottom - top - 1))
        for row in range(top + 1, bottom)
        for column, letter in enumerate(lines[row])
        if letter == mark
    ]


def test_points_are_where_their_numbers_are():
    line = Line((0, 5, 10), (100, 50, 0), label="falling", style=curve_style(1))
    text = drawn(figure_of(line, x=BOX[0], y=BOX[1], legend=Legend("what")))
    places = marks(text, "■")
    assert [x for x, _ in places] == pytest.approx([0, 0.5, 1], abs=0.02)
    assert [y for _, y in places] == pytest.approx([1, 0.5, 0], abs=0.06)
    assert "what  ■ falling" in text
    assert "↑ accuracy (%)   → x" in text
    assert text.startswith("title\n")
    assert "note" in text
    # Between them there is a line.
    assert len(re.findall("[⠁-⣿]", text)) > 40


def test_a_band_is_between_its_ends_and_a_reference_across():
    line = Line((0, 10), (50, 50), (25, 45), (75, 55), style=curve_style(0))
    text = drawn(figure_of(line, Reference(10, "chance 10 %"), x=BOX[0], y=BOX[1]))
    band = marks(text, "░")
    left = [y for x, y in band if x < 0.1]
    right = [y for x, y in band if x > 0.9]
    assert (min(left), max(left)) == pytest.approx((0.25, 0.75), abs=0.1)
    assert max(right) - min(right) < 0.2
    reference = marks(text, "┄")
    assert len(reference) > 60
    assert len({y for _, y in reference}) == 1
    assert reference[0][1] == pytest.approx(0.1, abs=0.05)
    assert "chance 10 %" in text


@pytest.mark.parametrize("scale", ["log", "symlog"])
def test_scales_place_powers_of_ten_evenly(scale):
    points = Points((1, 10, 100, 1000), (1, 1, 1, 1), style=curve_style(0))
    places = [x for x, _ in marks(drawn(figure_of(points, x=Axis("t", scale=scale))), "●")]
    steps = [after - before for before, after in itertools.pairwise(places)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.03)


def test_a_heat_map_has_its_numbers_in_colour_and_without():
    figure = figure_of(make_map(), **GRID)
    plain = drawn(figure)
    assert [re.split(r"\s+", line.strip()) for line in plain.split("\n")[2:4]] == [
        ["e", "4*", "–", "6"],
        ["d", "1", "2", "3"],
    ]
    colored = drawn(figure, force_terminal=True, color_system="truecolor")
    assert "48;2;" in colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == plain


def test_bars_are_as_long_as_their_numbers():
    words = Axis("word", scale="category", categories=("yes", "no"))
    text = drawn(figure_of(Bars((0, 1), (80, 40), (75, 35), (85, 45)), x=words, y=BOX[1]))
    longer, shorter = (line.count("█") for line in text.split("\n") if "█" in line)
    assert longer == pytest.approx(2 * shorter, abs=1)
    assert "yes" in text
    assert "80 [75, 85]" in text


def test_panels_below_each_other_and_messages():
    line = Line((0, 10), (0, 100))
    figure = Figure("t", (Panel(*BOX, (line,), "first"), Panel(title="second", message="nothing yet")))
    text = drawn(figure)
    assert text.index("first") < text.index("└") < text.index("second") < text.index("nothing yet")


@pytest.mark.parametrize("width", [60, 80, 100])
def test_it_is_as_wide_as_the_terminal(width):
    lines = drawn(figure_of(Line((0, 10), (0, 100)), x=BOX[0], y=BOX[1]), width).split("\n")
    assert max(map(len, lines)) == width


def test_gaps_and_empty_lines_are_no_trouble():
    line = Line((0, 5, 10), (math.nan, 50, math.nan), (math.nan,) * 3, (math.nan,) * 3, style=curve_style(0))
    assert len(marks(drawn(figure_of(line, Line((), ()), x=BOX[0], y=BOX[1])), "●")) == 1


def test_colours_are_for_terminals_that_want_them(monkeypatch):
    figure = figure_of(Line((0, 10), (0, 100), style=curve_style(1)))
    assert ESCAPE not in drawn(figure)
    assert "38;2;213;94;0" in drawn(figure, force_terminal=True, color_system="truecolor")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "38;" not in drawn(figure, force_terminal=True, color_system="truecolor")


def test_figures_are_drawn_where_somebody_looks():
    figure = figure_of(Line((0, 10), (0, 100)))

    def said(plot, **options):
        written = io.StringIO()
        print_figures(Console(file=written, **options), [figure], plot)
        return written.getvalue()

    assert said("auto") == said("never", force_terminal=True) == ""
    assert "└" in said("auto", force_terminal=True)
    assert "└" in said("always")
    latin = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="latin-1"), force_terminal=True)
    print_figures(latin, [figure])
    latin.file.flush()
    assert latin.file.buffer.getvalue() == b""


def test_compare_draws_when_asked(tmp_path, capsys):
    runs = write_runs(tmp_path / "runs", sigmas=(0.0, 2.0), seeds=1)
    for plot, there in (("auto", False), ("always", True)):
        main(["compare", str(runs), "--output", str(tmp_path / "out"), "--plot", plot])
        said = capsys.readouterr().out
        assert ("└" in said) == there
        assert ESCAPE not in said
    assert "● conventional   ■ DNI σ_train=2" in said
