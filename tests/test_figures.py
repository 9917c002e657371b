import json
import math
import re
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import NoiseCurve
from asr_dni.evaluation.curves.curve_file import COLUMNS
from asr_dni.evaluation.curves.description import describe_intervals, describe_settings
from asr_dni.evaluation.curves.tables import noise_curve_markdown
from asr_dni.evaluation.figures.noise_curves import (
    draw_noise_curves,
    plotly_noise_curves,
    save_figure,
    save_noise_curve,
)
from asr_dni.noise import Strength


def make_curve(accuracies=(0.9, 0.8, 0.3), snr_at_1=0.0, scale="signal", **settings):
    rows = []
    for sigma, accuracy in enumerate(accuracies):
        for draw in range(3 if sigma else 1):
            snr = snr_at_1 - 20 * math.log10(sigma) if sigma else math.inf
            rows.append((float(sigma), 0, draw, snr, accuracy + 0.01 * draw * bool(sigma), 0.5, 845))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return NoiseCurve(frame, {"scale": scale, "n_classes": 8} | settings)


def lines_by_label(figure):
    return {line.get_label(): line for line in figure.axes[0].get_lines()}


def test_lines_are_the_curves_in_percent():
    line = lines_by_label(draw_noise_curves({"mine": make_curve()}))["mine"]
    assert line.get_xdata().tolist() == [0, 1, 2]
    assert line.get_ydata() == pytest.approx([90, 81, 31])


def test_bands_are_the_intervals():
    curve = make_curve()
    band = draw_noise_curves({"mine": curve}).axes[0].collections[0]
    height = band.get_paths()[0].vertices[:, 1]
    frame = curve.summary().frame
    assert height.min() == pytest.approx(100 * frame["low"].min())
    assert height.max() == pytest.approx(100 * frame["high"].max())


def test_chance_line_where_it_is_the_same():
    def chance(*curves):
        axes = draw_noise_curves({str(index): curve for index, curve in enumerate(curves)}).axes[0]
        return [text.get_text() for text in axes.texts if text.get_text().startswith("chance")]

    assert chance(make_curve()) == ["chance 12.5 %"]
    assert chance(make_curve(), make_curve(n_classes=4)) == []
    assert chance(make_curve(n_classes=None)) == []


def test_snr_axis_only_where_the_snr_is_the_same():
    def top_labels(*curves):
        figure = draw_noise_curves({str(index): curve for index, curve in enumerate(curves)})
        return [label.get_text() for child in figure.axes[0].child_axes for label in child.get_xticklabels()]

    assert top_labels(make_curve(), make_curve((0.9, 0.9, 0.8))) == ["∞", "0.0", "−6.0"]
    assert top_labels(make_curve(), make_curve(snr_at_1=3.0)) == []
    assert top_labels(make_curve(snr_at_1=math.nan)) == []


def test_curves_of_different_scales_are_refused():
    with pytest.raises(UserError, match="absolute and signal"):
        draw_noise_curves({"a": make_curve(), "b": make_curve(scale="absolute")})
    with pytest.raises(UserError, match="at least one"):
        draw_noise_curves({})


def test_a_dozen_curves_differ_in_colour_and_without_it():
    drawing = draw_noise_curves({f"c{index}": make_curve() for index in range(12)})
    lines = [line for label, line in lines_by_label(drawing).items() if label.startswith("c")]
    assert len(lines) == 12
    assert len({line.get_color() for line in lines}) == 7
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines}) == 12
    # Dark enough for white paper: contrast of at least 1.9 by WCAG's formula.
    for line in lines:
        linear = [
            c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(line.get_color())
        ]
        assert 1.05 / (np.dot(linear, [0.2126, 0.7152, 0.0722]) + 0.05) > 1.9
    traces = [
        trace for trace in plotly_noise_curves({f"c{i}": make_curve() for i in range(12)}).data if trace.name
    ]
    assert len({(trace.marker.symbol, trace.line.dash) for trace in traces}) == 12


@pytest.mark.filterwarnings("error::UserWarning")
def test_many_long_labels_leave_room_for_the_curves(tmp_path):
    curves = {f"curve {index} with a rather long label that goes on": make_curve() for index in range(12)}
    figure = draw_noise_curves(curves, title="A title that is longer than the figure is wide " * 2)
    save_figure(figure, tmp_path / "curves")  # warns where there is no room
    assert figure.axes[0].get_position().height > 0.4


def test_drawing_leaves_matplotlib_as_it_was():
    before = dict(matplotlib.rcParams)
    draw_noise_curves({"mine": make_curve()})
    assert dict(matplotlib.rcParams) == before


def test_labels_may_hold_any_characters(tmp_path):
    figure = draw_noise_curves(
        {"costs $5 & <b>": make_curve(), "σ_train=1": make_curve(), "a_b^c": make_curve()}
    )
    png, svg = save_figure(figure, tmp_path / "new.folder" / "curves")
    assert png.name == "curves.png"
    assert svg.read_text(encoding="utf-8").count("<svg") == 1


def test_same_curves_give_the_same_files(tmp_path):
    files = [
        save_figure(draw_noise_curves({"mine": make_curve()}), tmp_path / name / "curves") for name in "ab"
    ]
    for first, second in zip(*files, strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_save_writes_csv_png_and_svg(tmp_path):
    paths = save_noise_curve(make_curve(), tmp_path / "run")
    assert [path.name for path in paths] == ["noise_curve.csv", "noise_curve.png", "noise_curve.svg"]
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == sorted(path.name for path in paths)
    assert paths[1].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "<svg" in paths[2].read_text(encoding="utf-8")
    assert "over 845 test clips" in paths[2].read_text(encoding="utf-8")


def shown_by_plotly(curves):
    figure = json.loads(plotly_noise_curves(curves).to_json())
    traces = [trace for trace in figure["data"] if trace.get("mode") == "lines+markers"]
    return {trace["name"]: dict(zip(trace["x"], trace["y"], strict=True)) for trace in traces}


def shown_by_matplotlib(curves):
    lines = lines_by_label(draw_noise_curves(curves))
    return {
        label: dict(zip(lines[label].get_xdata(), lines[label].get_ydata(), strict=True)) for label in curves
    }


def shown_by_a_table(curves):
    header, _, *rows = [line for line in noise_curve_markdown(curves).splitlines() if line.startswith("|")]
    names = [cell.strip() for cell in header.strip("|").split("|")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if "midpoint" not in row]
    return {
        label: {float(row[0]): float(re.match(r"[\d.]+", row[names.index(label)])[0]) for row in cells}
        for label in curves
    }


@pytest.mark.parametrize("shown", [shown_by_plotly, shown_by_matplotlib, shown_by_a_table])
def test_tables_and_pictures_show_the_same(shown):
    curves = {"mine": make_curve(), "other": make_curve((0.9, 0.9, 0.8))}
    found = shown(curves)
    assert list(found) == ["mine", "other"]
    assert found["mine"] == pytest.approx({0: 90, 1: 81, 2: 31})
    assert found["other"] == pytest.approx({0: 90, 1: 91, 2: 81})


@pytest.mark.parametrize("says", [describe_settings, describe_intervals])
def test_tables_and_pictures_say_the_same(says):
    curves = {"mine": make_curve(protocol="8 words", split="test", cell="gru", units=8)}
    line = says({label: curve.summary() for label, curve in curves.items()})
    assert line in noise_curve_markdown(curves)
    assert line in draw_noise_curves(curves).get_supxlabel().replace("\n", " ")
    subtitle = plotly_noise_curves(curves).layout.title.subtitle.text
    assert line in subtitle.replace("<br>", " ")


def test_the_axis_is_the_strength_of_the_curve():
    curve = make_curve()
    bits = replace(curve, settings=curve.settings | {"strength": Strength("adc.bits").as_dict()})
    assert draw_noise_curves({"mine": bits}).axes[0].get_xlabel() == "ADC bits"
    drawn = draw_noise_curves({"mine": curve}).axes[0].get_xlabel()
    assert "multiples of the clean signal's RMS" in drawn
    figure = plotly_noise_curves({"mine": curve})
    assert (
        figure.layout.xaxis.title.text
        == "inference noise σ<sub>infer</sub> (multiples of the clean signal's RMS)"
    )
    assert figure.layout.yaxis.title.text == "accuracy (%)"


def test_the_pointer_shows_interval_and_snr():
    trace = plotly_noise_curves({"mine": make_curve()}).data[-1]
    assert trace.hovertext[0] == "90.0 [87.8, 91.8] %, SNR ∞ dB"
    assert trace.hovertext[2].endswith("SNR −6.0 dB")
    unknown = plotly_noise_curves({"mine": make_curve(snr_at_1=math.nan)}).data[-1]
    assert unknown.hovertext[1].endswith("SNR not known")


def test_legends_only_where_there_is_something_to_tell_apart():
    assert not any(trace.showlegend for trace in plotly_noise_curves({"mine": make_curve()}).data)
    assert not draw_noise_curves({"mine": make_curve()}).legends
    two = {"mine": make_curve(), "other": make_curve()}
    # Few lines have their names at their ends.
    assert not any(trace.showlegend for trace in plotly_noise_curves(two).data)
    assert set(two) <= {note.text for note in plotly_noise_curves(two).layout.annotations}
    assert set(two) <= {text.get_text() for text in draw_noise_curves(two).axes[0].texts}
    many = {str(index): make_curve() for index in range(6)}
    assert [trace.name for trace in plotly_noise_curves(many).data if trace.showlegend] == list(many)
    (legend,) = draw_noise_curves(many).legends
    assert [text.get_text() for text in legend.get_texts()] == list(many)
