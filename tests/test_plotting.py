"""Every element of a specification, rendered by both libraries and read back from what these made of it."""

import json
import math
import re

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex

from asr_dni.plotting import (
    Axis,
    Bars,
    CellText,
    ColorScale,
    Figure,
    HeatMap,
    Legend,
    Line,
    Panel,
    Points,
    Reference,
    Style,
    Tick,
    curve_style,
    plotly_traces,
    with_matplotlib,
    with_plotly,
)
from asr_dni.plotting.style import RED_BLUE, VIRIDIS, blend

NAN = math.nan


def figure_of(*elements, x=None, y=None, **other):
    return Figure("title", (Panel(x or Axis("x"), y or Axis("y"), elements),), "note", **other)


def axes_of(figure, place=0):
    return with_matplotlib.render(figure).axes[place]


def plotly_of(figure):
    """Return what is sent to a browser: JSON, without arrays in any other form."""
    return json.loads(with_plotly.render(figure).to_json())


def band_of(vertices):
    """Return lower and upper ends of an area by their places."""
    ends = {}
    for x, y in vertices:
        ends.setdefault(round(float(x), 9), []).append(float(y))
    return {x: (min(values), max(values)) for x, values in ends.items()}


LINE = Line((0, 1, 2, 4), (90, 80, NAN, 20), (88, 75, NAN, NAN), (92, 85, NAN, NAN), "mine", curve_style(8))


def test_a_line_and_its_band():
    (line,) = axes_of(figure_of(LINE)).get_lines()
    assert line.get_xdata().tolist() == [0, 1, 2, 4]
    assert line.get_ydata() == pytest.approx([90, 80, NAN, 20], nan_ok=True)
    assert (line.get_color(), line.get_linestyle(), line.get_marker()) == ("#d55e00", "--", "s")
    (band,) = axes_of(figure_of(LINE)).collections
    assert band_of(np.concatenate([path.vertices for path in band.get_paths()])) == {0: (88, 92), 1: (75, 85)}
    drawn_band, drawn = plotly_of(figure_of(LINE))["data"]
    assert (drawn["x"], drawn["y"], drawn["name"]) == ([0, 1, 2, 4], [90, 80, None, 20], "mine")
    assert (drawn["line"]["color"], drawn["line"]["dash"], drawn["marker"]["symbol"]) == (
        "#d55e00",
        "dash",
        "square",
    )
    assert drawn_band["fill"] == "toself"
    assert band_of(zip(drawn_band["x"], drawn_band["y"], strict=True)) == {0: (88, 92), 1: (75, 85)}
    assert drawn_band["fillcolor"].startswith("rgba(213,94,0,")
    assert drawn_band["legendgroup"] == drawn["legendgroup"]  # the legend switches both


def test_a_band_is_in_pieces_where_there_is_no_interval():
    line = Line(range(5), [50] * 5, [40, 41, NAN, 43, 44], [60, 61, NAN, 63, 64])
    band = plotly_of(figure_of(line))["data"][0]
    assert band["x"] == [0, 1, 1, 0, None, 3, 4, 4, 3]
    assert band["y"] == [60, 61, 41, 40, None, 63, 64, 44, 43]
    (drawn,) = axes_of(figure_of(line)).collections
    pieces = drawn.get_paths()
    vertices = np.concatenate([path.vertices for path in pieces])
    assert set(band_of(vertices)) == {0, 1, 3, 4}


@pytest.mark.parametrize("joined", [False, True])
def test_points_and_their_bars(joined):
    points = Points((1, 2, 3), (10, 20, 30), (9, 15, NAN), (12, 21, NAN), "p", joined=joined)
    axes = axes_of(figure_of(points))
    (line,) = axes.get_lines()
    assert line.get_xydata().tolist() == [[1, 10], [2, 20], [3, 30]]
    assert (line.get_linestyle() == "-") is joined
    (bars,) = axes.collections
    ends = [[segment[0][1], segment[1][1]] for segment in bars.get_segments()]
    assert ends == [[9, 12], [15, 21], [30, 30]]
    (drawn,) = plotly_of(figure_of(points))["data"]
    assert drawn["mode"] == ("lines+markers" if joined else "markers")
    assert drawn["error_y"]["array"] == [2, 1, 0]
    assert drawn["error_y"]["arrayminus"] == [1, 5, 0]


@pytest.mark.parametrize("horizontal", [False, True])
def test_bars_stand_side_by_side(horizontal):
    places = Axis("word", scale="category", categories=("yes", "no"))
    other = Axis("accuracy", "%", limits=(0, 100))
    both = [
        Bars((0, 1), values, low, high, name, Style(color), horizontal=horizontal)
        for values, low, high, name, color in (
            ((90, 80), (88, 79), (93, 84), "a", "#000000"),
            ((70, 60), (), (), "b", "#0072b2"),
        )
    ]
    x, y = (other, places) if horizontal else (places, other)
    figure = figure_of(*both, x=x, y=y)
    axes = axes_of(figure)
    boxes = axes.patches
    lengths = [box.get_width() if horizontal else box.get_height() for box in boxes]
    assert lengths == [90, 80, 70, 60]
    starts = [box.get_y() if horizontal else box.get_x() for box in boxes]
    sizes = [box.get_height() if horizontal else box.get_width() for box in boxes]
    middles = [start + size / 2 for start, size in zip(starts, sizes, strict=True)]
    assert middles == pytest.approx([-0.2, 0.8, 0.2, 1.2])
    assert [to_hex(box.get_facecolor()) for box in boxes] == ["#000000"] * 2 + ["#0072b2"] * 2
    errors = axes.collections[0].get_segments()
    assert [sorted(segment[:, 0 if horizontal else 1].tolist()) for segment in errors] == [[88, 93], [79, 84]]
    first, second = plotly_of(figure)["data"]
    along, across = ("y", "x") if horizontal else ("x", "y")
    assert (first[along], first[across], second[across]) == ([0, 1], [90, 80], [70, 60])
    assert first["orientation"] == ("h" if horizontal else "v")
    assert first[f"error_{across}"]["array"] == [3, 4]
    assert "error_x" not in second
    assert "error_y" not in second
    layout = plotly_of(figure)["layout"]
    assert layout["barmode"] == "group"
    assert layout[f"{along}axis"]["ticktext"] == ["yes", "no"]


def make_map(colors=None, **other):
    colors = colors or ColorScale(VIRIDIS, (0, 100), "accuracy (%)", (Tick(0, "none"), Tick(100, "all")))
    text = (
        (CellText("1", "±2"), CellText("2"), CellText("3")),
        (CellText("4*", bold=True), CellText("gap"), CellText("6")),
    )
    return HeatMap(((10, 20, 120), (40, NAN, 60)), colors, text, **other)


GRID = {
    "x": Axis("told", scale="category", categories=("a", "b", "c"), opposite=(Tick(1, "6.0"),)),
    "y": Axis("said", scale="category", categories=("d", "e")),
}


def test_a_heat_map_its_texts_and_its_colour_bar():
    drawing = with_matplotlib.render(figure_of(make_map(), **GRID))
    axes, bar = drawing.axes
    (image,) = axes.images
    assert np.ma.filled(image.get_array(), NAN) == pytest.approx(
        np.array([[10, 20, 120], [40, NAN, 60]]), nan_ok=True
    )
    assert image.origin == "lower"
    assert (image.norm.vmin, image.norm.vmax) == (0, 100)
    written = {(round(one.get_position()[0]), round(one.get_position()[1])): [] for one in axes.texts}
    for one in axes.texts:
        written[round(one.get_position()[0]), round(one.get_position()[1])].append(
            (one.get_text(), one.get_weight())
        )
    assert written[0, 0] == [("1", "normal"), ("±2", "normal")]
    assert written[0, 1] == [("4*", "bold")]
    assert written[1, 1] == [("–", "normal")]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["d", "e"]
    (top,) = axes.child_axes
    assert [label.get_text() for label in top.get_xticklabels()] == ["6.0"]
    assert bar.get_ylabel() == "accuracy (%)"
    assert [label.get_text() for label in bar.get_yticklabels()] == ["none", "all"]

    drawn = plotly_of(figure_of(make_map(hover=(("h",) * 3, ("i",) * 3)), **GRID))
    (heat,) = drawn["data"]
    assert heat["z"] == [[10, 20, 120], [40, None, 60]]
    plain = [[re.sub(r"<br>", " ", cell) for cell in row] for row in heat["text"]]
    assert [[re.sub(r"<.*?>", "", cell) for cell in row] for row in plain] == [
        ["1 ±2", "2", "3"],
        ["4*", "–", "6"],
    ]
    assert "<b>4*</b>" in heat["text"][1][0]
    assert heat["hovertext"] == [["h"] * 3, ["i"] * 3]
    layout = drawn["layout"]
    assert (layout["xaxis"]["ticktext"], layout["xaxis"]["tickvals"]) == (["a", "b", "c"], [0, 1, 2])
    assert layout["yaxis"]["range"] == [-0.5, 1.5]
    scale = layout[heat["coloraxis"]]
    assert (scale["cmin"], scale["cmax"]) == (0, 100)
    assert [color for _, color in scale["colorscale"]] == list(VIRIDIS)
    assert scale["colorbar"]["ticktext"] == ["none", "all"]
    assert scale["colorbar"]["title"]["text"] == "accuracy (%)"
    assert ("6.0", 1) in [(note["text"], note["x"]) for note in layout["annotations"]]


def test_the_colours_of_both_libraries_are_the_same():
    drawing = with_matplotlib.render(figure_of(make_map(ColorScale(RED_BLUE, (-1, 1), "d")), **GRID))
    cmap = drawing.axes[0].images[0].cmap
    for place in np.linspace(0, 1, 41):
        ours = np.array([int(blend(RED_BLUE, place)[i : i + 2], 16) for i in (1, 3, 5)])
        assert np.abs(np.array(cmap(place)[:3]) * 255 - ours).max() < 3  # matplotlib's has 256 colours
    # Ours have matplotlib's names for good reason.
    for name, stops in (("viridis", VIRIDIS), ("RdBu", RED_BLUE)):
        for place in np.linspace(0, 1, 41):
            ours = np.array([int(blend(stops, place)[i : i + 2], 16) for i in (1, 3, 5)])
            assert np.abs(np.array(matplotlib.colormaps[name](place)[:3]) * 255 - ours).max() < 9, name


def test_maps_with_one_scale_share_a_colour_bar_and_others_do_not():
    one, other = make_map(), make_map(ColorScale(RED_BLUE, (-10, 10), "points", (Tick(-10, "−10"),), "min"))
    panels = tuple(Panel(GRID["x"], GRID["y"], (heat,)) for heat in (one, one, other))
    figure = Figure("title", panels)
    drawing = with_matplotlib.render(figure)
    assert [axes.get_ylabel() for axes in drawing.axes[3:]] == ["accuracy (%)", "points"]
    drawn = plotly_of(figure)
    assert [heat["coloraxis"] for heat in drawn["data"]] == ["coloraxis", "coloraxis", "coloraxis2"]
    assert drawn["layout"]["coloraxis2"]["colorbar"]["ticktext"] == ["≤ −10"]
    assert drawn["layout"]["coloraxis"]["colorbar"]["x"] < drawn["layout"]["coloraxis2"]["colorbar"]["x"]


@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_reference_line_and_what_it_is(axis):
    figure = figure_of(
        Line((1, 100), (1, 100)), Reference(10, "chance", axis), x=Axis(scale="log"), y=Axis(scale="log")
    )
    axes = axes_of(figure)
    line = axes.get_lines()[1]
    data = line.get_xdata() if axis == "x" else line.get_ydata()
    assert list(data) == [10, 10]
    assert [text.get_text() for text in axes.texts] == ["chance"]
    layout = plotly_of(figure)["layout"]
    (shape,) = layout["shapes"]
    assert (shape[f"{axis}0"], shape[f"{axis}1"], shape[f"{axis}ref"]) == (10, 10, axis)
    (note,) = [note for note in layout["annotations"] if note["text"] == "chance"]
    assert note[axis] == 1  # annotations are placed by the logarithm, shapes are not


def test_axes_have_labels_units_limits_ticks_and_scales():
    x = Axis("time", "s", "log", (1, 1000), (Tick(10, "ten"), Tick(100, "hundred")))
    y = Axis("training noise σ_train", "RMS", limits=(0, 50))
    figure = figure_of(Line((1, 1000), (0, 40)), x=x, y=y)
    axes = axes_of(figure)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert (axes.get_xlim(), axes.get_ylim()) == ((1, 1000), (0, 50))
    assert axes.get_xlabel() == "time (s)"
    assert r"\mathrm{train}" in axes.get_ylabel()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["ten", "hundred"]
    layout = plotly_of(figure)["layout"]
    assert layout["xaxis"]["type"] == "log"
    assert layout["xaxis"]["range"] == pytest.approx([0, 3])
    assert layout["yaxis"]["range"] == [0, 50]
    assert layout["xaxis"]["title"]["text"] == "time (s)"
    assert layout["yaxis"]["title"]["text"] == "training noise σ<sub>train</sub> (RMS)"
    assert (layout["xaxis"]["tickvals"], layout["xaxis"]["ticktext"]) == ([10, 100], ["ten", "hundred"])


def test_symlog_places_are_those_of_matplotlib():
    values = (-100, -1, -0.5, 0, 0.2, 0.5, 3, 1000)
    x = Axis("drift", "h", "symlog", linear_within=0.5)
    figure = figure_of(Line(values, range(8)), Reference(3, "r", "x"), x=x)
    axes = axes_of(figure)
    assert axes.get_xscale() == "symlog"
    ours = axes.transData.transform([(value, 0) for value in values])[:, 0]
    drawn = plotly_of(figure)
    placed = np.array(drawn["data"][0]["x"])
    scaled = (placed - placed[0]) / (placed[-1] - placed[0])
    assert scaled == pytest.approx((ours - ours[0]) / (ours[-1] - ours[0]), abs=1e-9)
    ticks = dict(zip(drawn["layout"]["xaxis"]["ticktext"], drawn["layout"]["xaxis"]["tickvals"], strict=True))
    assert ticks["0"] == 0
    assert ticks["0.5"] == placed[5]
    assert drawn["layout"]["shapes"][0]["x0"] == placed[6]
    assert "1000" in drawn["data"][0]["hovertext"][-1]


def test_intervals_end_where_they_should_on_every_scale():
    """Plotly is given how far they go, which differs where it has no such axis."""
    points = Points((1, 2), (5, 50), (0.2, 5), (10, 5000))
    for scale in ("linear", "log", "symlog"):
        axis = Axis("y", scale=scale)
        (drawn,) = plotly_of(figure_of(points, y=axis))["data"]
        ends = [y + up for y, up in zip(drawn["y"], drawn["error_y"]["array"], strict=True)]
        assert ends == pytest.approx(plotly_traces.on_axis(axis, points.high))
        ends = [y - down for y, down in zip(drawn["y"], drawn["error_y"]["arrayminus"], strict=True)]
        assert ends == pytest.approx(plotly_traces.on_axis(axis, points.low))
        segments = axes_of(figure_of(points, y=axis)).collections[0].get_segments()
        assert np.array([segment[:, 1] for segment in segments]) == pytest.approx(
            np.array([[0.2, 10], [5, 5000]])
        )


def test_the_legend_has_every_label_once_and_switches_all_panels():
    panels = tuple(
        Panel(
            GRID["x"],
            Axis("y"),
            (
                HeatMap(((1, NAN, 1),), ColorScale(("#bcd7ea", "#bcd7ea"), (0, 1), bar=False), label="area"),
                Line((0, 1), (1, 2), label="σ_train", style=curve_style(place)),
                Line((0, 1), (1, 2)),
            ),
            title=f"panel {place}",
        )
        for place in (0, 1)
    )
    figure = Figure("title", panels, legend=Legend("what"))
    (legend,) = with_matplotlib.render(figure).legends
    assert legend.get_title().get_text() == "what"
    assert [text.get_text() for text in legend.get_texts()] == ["area", r"$σ_\mathrm{train}$"]
    assert to_hex(legend.legend_handles[0].get_facecolor()) == "#bcd7ea"
    assert legend.legend_handles[1].get_color() == "#000000"
    drawn = plotly_of(figure)
    entries = [trace["name"] for trace in drawn["data"] if trace["showlegend"]]
    assert entries == ["area", "σ<sub>train</sub>"]
    assert [trace["legendgroup"] for trace in drawn["data"] if trace.get("name") == entries[1]] == entries[
        1:
    ] * 2
    assert drawn["layout"]["legend"]["title"]["text"] == "what"
    # The pointer says what the names are of.
    assert {
        trace["hovertemplate"] for trace in drawn["data"] if trace.get("name") and trace["type"] == "scatter"
    } == {"%{hovertext}<extra>what %{fullData.name}</extra>"}


def test_panels_are_labelled_at_the_edges_and_zoom_together():
    y = Axis("accuracy", "%", limits=(0, 100))
    panels = tuple(Panel(Axis("x"), y, (Line((0, 1), (1, 2)),), f"panel {n}") for n in range(3))
    figure = Figure("title", panels, "settings", columns=2)
    drawing = with_matplotlib.render(figure)
    assert [axes.get_title(loc="left") for axes in drawing.axes[:3]] == ["panel 0", "panel 1", "panel 2"]
    assert [axes.get_ylabel() for axes in drawing.axes] == ["accuracy (%)", "", "accuracy (%)", ""]
    assert [axes.get_xlabel() for axes in drawing.axes] == ["", "x", "x", ""]
    assert not drawing.axes[3].axison
    layout = plotly_of(figure)["layout"]
    assert [layout[f"yaxis{n}"]["title"]["text"] for n in ("", 2, 3)] == ["accuracy (%)", "", "accuracy (%)"]
    assert [layout[f"xaxis{n}"]["title"]["text"] for n in ("", 2, 3)] == ["", "x", "x"]
    assert layout["yaxis2"]["matches"] == "y"
    assert layout["xaxis4"]["visible"] is False
    assert [note["text"] for note in layout["annotations"]] == ["panel 0", "panel 1", "panel 2"]


def test_title_note_and_message():
    figure = Figure("A title", (Panel(title="32 units", message="nothing"),), "the settings")
    drawing = with_matplotlib.render(figure)
    assert (drawing.get_suptitle(), drawing.get_supxlabel()) == ("A title", "the settings")
    assert [text.get_text() for text in drawing.axes[0].texts] == ["nothing"]
    layout = plotly_of(figure)["layout"]
    assert layout["title"]["text"] == "<b>A title</b>"
    assert layout["title"]["subtitle"]["text"] == "the settings"
    assert [note["text"] for note in layout["annotations"]] == ["32 units", "nothing"]
    assert layout["xaxis"]["visible"] is layout["yaxis"]["visible"] is False


def test_a_message_stands_in_its_own_panel():
    """Though plotly has no axes there: of panels without data it knows none."""
    figure = Figure(
        "t", (Panel(elements=(LINE,)), Panel(elements=(LINE,)), Panel(title="b", message="nothing"))
    )
    layout = plotly_of(figure)["layout"]
    left, right = layout["xaxis3"]["domain"]
    places = {note["text"]: (note["x"], note["xref"]) for note in layout["annotations"]}
    assert places == {"b": (left, "paper"), "nothing": (pytest.approx((left + right) / 2), "paper")}


def test_names_that_would_overlap_are_turned():
    def rotation(names):
        x = Axis("word", scale="category", categories=names)
        axes = axes_of(figure_of(Bars(range(len(names)), [1] * len(names)), x=x, panel_size=(4, 3)))
        return {label.get_rotation() for label in axes.get_xticklabels()}

    assert rotation(("yes", "no")) == {0}
    assert rotation(("silence", "unknown") * 6) == {40}


@pytest.mark.parametrize("scale", ["log", "symlog"])
def test_powers_of_ten_are_written_as_numbers(scale):
    figure = figure_of(Line((1, 1000), (0, 1)), x=Axis("time", "s", scale))
    drawing = with_matplotlib.render(figure)
    drawing.draw_without_rendering()
    low, high = drawing.axes[0].get_xlim()
    labels = drawing.axes[0].get_xticklabels()
    seen = {label.get_text() for label in labels if low <= label.get_position()[0] <= high}
    assert {"1", "10", "1000"} <= seen
    assert not any("^" in text for text in seen)


def test_texts_are_texts_and_no_markup(tmp_path):
    odd = "costs $5 & <b>bold</b> %{x} a_b^c"
    line = Line((0, 1), (1, 2), label=odd, hover=(odd, odd))
    figure = Figure(
        odd, (Panel(Axis(odd), Axis(odd), (line, Reference(1, odd)), odd),), odd, legend=Legend(odd)
    )
    with_matplotlib.save(figure, tmp_path / "odd")
    (trace,) = plotly_of(figure)["data"]
    assert trace["name"] == trace["hovertext"][0] == "costs $5 &amp; &lt;b&gt;bold&lt;/b&gt; %{x} a_b^c"


def test_the_pointer_shows_numbers_where_nothing_else_is_said():
    (trace,) = plotly_of(figure_of(Points((0, 1.5), (-3, 4), (-4, NAN), (-2, NAN))))["data"]
    assert trace["hovertext"] == ["0: −3 [−4, −2]", "1.5: 4"]
    words = Axis(scale="category", categories=("yes", "no"))
    (trace,) = plotly_of(figure_of(Bars((0, 1), (3, 4)), x=words))["data"]
    assert trace["hovertext"] == ["yes: 3", "no: 4"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Line((0, 1), (1,)),
        lambda: Line((0, 1), (1, 2), low=(0, 1)),
        lambda: Line((0, 1), (1, 2), hover=("one",)),
        lambda: HeatMap(((1, 2), (3,)), ColorScale(VIRIDIS, (0, 1))),
        lambda: HeatMap(((1, 2),), ColorScale(VIRIDIS, (0, 1)), hover=(("a",),)),
        lambda: Axis(scale="category"),
        lambda: Axis(categories=("a",)),
        lambda: Axis(scale="log", limits=(0, 1)),
        lambda: Axis(scale="symlog", linear_within=0),
        lambda: Figure("title", ()),
    ],
)
def test_what_does_not_fit_together_is_refused(make):
    with pytest.raises(ValueError, match=r"\w+"):
        make()


def test_files_of_each_kind_are_the_same_each_time_and_leave_matplotlib_as_it_was(tmp_path):
    before = dict(matplotlib.rcParams)
    formats = ("png", "svg", "pdf")
    files = [
        with_matplotlib.save(figure_of(LINE, legend=Legend()), tmp_path / name / "figure", formats)
        for name in "ab"
    ]
    for first, second, start in zip(*files, (b"\x89PNG", b"<?xml", b"%PDF"), strict=True):
        assert first.read_bytes() == second.read_bytes()
        assert first.read_bytes().startswith(start)
    assert dict(matplotlib.rcParams) == before
