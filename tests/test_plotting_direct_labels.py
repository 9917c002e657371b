"""Labels at the ends of lines: near them, apart from each other, and in both libraries."""

import dataclasses
import itertools

import pytest
from test_plotting import figure_of, plotly_of

from asr_dni.plotting import Axis, Legend, Line, Points, curve_style, with_matplotlib
from asr_dni.plotting.direct_labels import labelled_lines, place_labels

Y = Axis("y", limits=(0, 100))


def lines_to(*ends, **more):
    return [
        Line((0, 1), (50, end), label=f"to {end} ({place})", style=curve_style(place), **more)
        for place, end in enumerate(ends)
    ]


def figure_to(*ends):
    return figure_of(*lines_to(*ends), y=Y, legend=Legend())


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((80, 20, 50), (80, 20, 50)),
        ((50, 50), (45, 55)),
        ((52, 48, 10), (55, 45, 10)),
        ((0, 0, 1), (5, 15, 25)),
        ((100, 99, 98, 20), (95, 85, 75, 20)),
    ],
)
def test_labels_are_as_near_as_there_is_room(ends, expected):
    found = place_labels(lines_to(*ends), (0, 100), 0.1)
    assert [label.y for label in found] == pytest.approx(expected)
    assert [label.line.y[-1] for label in found] == list(ends)


def test_no_label_is_on_another_in_either_library():
    figure = figure_to(50, 50.5, 51, 99.9, 100)
    drawing = with_matplotlib.render(figure)
    drawing.draw_without_rendering()
    assert not drawing.legends
    texts = drawing.axes[0].texts
    assert {text.get_text() for text in texts} == {line.label for line in labelled_lines(figure)}
    boxes = sorted((text.get_window_extent() for text in texts), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 + 0.5 for low, high in itertools.pairwise(boxes))
    assert all(box.x0 >= 0 and box.x1 <= drawing.bbox.x1 for box in boxes)
    assert all(box.x0 >= drawing.axes[0].bbox.x1 for box in boxes)
    drawn = plotly_of(figure)
    assert not any(trace["showlegend"] for trace in drawn["data"])
    height = drawn["layout"]["height"] - drawn["layout"]["margin"]["t"] - drawn["layout"]["margin"]["b"]
    notes = [note for note in drawn["layout"]["annotations"] if note["text"].startswith("to ")]
    assert [note["font"]["color"] for note in notes] == [curve_style(place).color for place in range(5)]
    places = sorted(note["y"] / 100 * height for note in notes)
    assert all(high - low >= 15.9 for low, high in itertools.pairwise(places))


@pytest.mark.parametrize(
    "figure",
    [
        figure_to(*range(0, 100, 16)),  # many
        figure_to(50),  # one
        figure_of(*lines_to(80, 20), y=Y),  # no names are wanted
        figure_of(*lines_to(80, 20), y=Axis(scale="log"), legend=Legend()),
        figure_of(*lines_to(80, 20), y=Y, legend=Legend("what they are of")),
        figure_of(*lines_to(80, 20), Line((0, 2), (1, 2), label="goes on"), y=Y, legend=Legend()),
        figure_of(*lines_to(80, 20), Points((0, 1), (1, 2), label="points"), y=Y, legend=Legend()),
        figure_of(*lines_to(80, 20), Line((0, 1), (1, 2), label="a name " * 9), y=Y, legend=Legend()),
        dataclasses.replace(figure_to(80, 20), panels=figure_to(80, 20).panels * 2),
    ],
)
def test_elsewhere_there_is_a_legend(figure):
    assert labelled_lines(figure) == ()
