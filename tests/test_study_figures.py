import math
import re

import numpy as np
import pandas as pd
import pytest
from simulated_study import simulate, train_hardware

from asr_dni.errors import UserError
from asr_dni.plotting import HeatMap, Line, Points, Reference
from asr_dni.plotting.style import blend, readable_on
from asr_dni.study.figures import (
    best_figure,
    curves_figure,
    differences_figure,
    matrices_figure,
    study_figures,
    units_figure,
)
from asr_dni.study.findings import find

SMALL = {"sigmas_train": (0.0, 0.5, 1.0), "sigmas_infer": (0.0, 0.5, 1.0, 2.0), "draws": 2}


@pytest.fixture(scope="module")
def frame():
    return simulate(**SMALL, sizes=(32, 64), seeds=range(4))


@pytest.fixture(scope="module")
def findings(frame):
    return find(frame)


def elements(panel, kind):
    return [element for element in panel.elements if isinstance(element, kind)]


def heat_of(panel):
    (heat,) = elements(panel, HeatMap)
    return heat


def written(figure):
    """Return every text in a cell of a figure's maps."""
    return [
        text
        for panel in figure.panels
        for heat in elements(panel, HeatMap)
        for row in heat.text
        for cell in row
        for text in (cell.text, cell.small)
    ]


def ticks(axis):
    return [tick.text for tick in axis.all_ticks]


def test_every_figure_says_what_it_shows_in_which_unit_and_where_it_came_from(findings):
    figures = study_figures(findings)
    assert set(figures) == {"matrix", "curves", "difference", "difference_to_clean", "best", "units"}
    for name, figure in figures.items():
        for part in ("845 test clips", "4 seeds", "2 draws", "chance 12.5 %", "noise at input"):
            assert part in figure.note, (name, part)
        for panel in figure.panels:
            assert panel.title, name
            assert panel.x.label == "units" or "RMS" in panel.x.text, name
            assert panel.y.label, name
            assert panel.y.unit == "%" or "σ_train" in panel.y.text, name


def test_file_names_tell_what_differs():
    frame = simulate(
        **SMALL, cells=("lstm", "gru"), sizes=(32,), schedules=("constant", "linear"), seeds=range(2)
    )
    names = set(study_figures(find(frame)))
    assert {"matrix-lstm-constant", "matrix-gru-linear", "best-linear", "curves-gru-constant"} <= names
    assert not any(name.startswith("units") for name in names)  # there is one size


def test_file_names_are_short_whatever_the_hardware():
    """The name of a known hardware, else an identity: both figures are there, and can be written."""
    own = {"weight": {"class_path": "GaussianWeights", "init_args": {"sigma": 0.1}}}
    trained = [
        ("", "signal"),
        (train_hardware("pcm_8bit", "weight.time"), ""),
        (train_hardware(own, "weight.sigma"), ""),
    ]
    frames = [
        simulate(**SMALL, sizes=(32,), seeds=range(2), train_hardware=text, train_scale=scale, protocol=long)
        for text, scale in trained
        for long in ("digits", "words " * 60)
    ]
    names = list(study_figures(find(pd.concat(frames))))
    assert max(map(len, names)) <= 200
    matrices = [name for name in names if name.startswith("matrix")]
    assert sum("-trained-pcm_8bit-weight_time-per_step" in name for name in matrices) == 2
    assert sum(bool(re.search("-trained-hardware-[0-9a-f]{8}-weight", name)) for name in matrices) == 2
    assert sum("-train_scale-signal" in name for name in matrices) == 2


@pytest.mark.parametrize(
    ("hardware", "strength", "unit", "lowest"),
    [
        ("pcm", "weight.time", "s", ("0", "0")),  # a fresh device is noisy
        ("noisy_weights", "adc.bits", "", ("none", "none (conventional)")),  # joined by conventional training
        ({"output": {"sigma": 1.0, "scale": "range"}, "sites": ["input"]}, "output.sigma", "", None),
    ],
)
def test_a_training_over_another_strength_is_named_by_it(hardware, strength, unit, lowest):
    trained = train_hardware(hardware, strength)
    frame = simulate(**SMALL, seeds=range(2), train_hardware=trained, train_scale="")
    if strength == "adc.bits":
        frame = frame.assign(train_hardware=np.where(frame["sigma_train"] == 0, "", trained))
    findings = find(frame)
    symbol = {"weight.time": "weight time", "adc.bits": "ADC bits"}.get(strength, "σ_train")
    title = symbol if symbol == "σ_train" else f"{symbol} in training"
    matrix, curves = matrices_figure(findings.matrices), curves_figure(findings.matrices)
    (axis,) = {(panel.y.label, panel.y.unit) for panel in matrix.panels}
    if strength == "output.sigma":
        assert axis == ("training noise σ_train", "multiples of the largest output")
    else:
        assert axis == (title, unit)
        assert (ticks(matrix.panels[0].y)[0], elements(curves.panels[0], Line)[0].label) == lowest
        assert (elements(curves.panels[0], Line)[0].style.dash == "dash") == (strength == "adc.bits")
        assert (
            f"trained on hardware: weight {'PCM' if hardware == 'pcm' else 'GaussianWeights'}" in matrix.note
        )
    assert f"over {symbol}{' in s' if unit == 's' else ''}" in matrix.note
    assert curves.legend.title == title
    assert heat_of(matrix.panels[0]).hover[1][0].startswith(f"{title} 0.5, ")
    assert f"| {title} \\ " in findings.markdown()


def test_matrix_shows_mean_and_interval_of_every_pair(findings):
    figure = matrices_figure(findings.matrices)
    assert [panel.title for panel in figure.panels] == ["32 units", "64 units"]
    for panel, matrix in zip(figure.panels, findings.matrices, strict=True):
        heat = heat_of(panel)
        low, high = matrix.interval()
        for at in ((0, 0), (1, 3)):
            cell = heat.text[at[0]][at[1]]
            assert cell.text == f"{100 * matrix.mean[at]:.1f}"
            assert cell.small == f"±{50 * (high - low)[at]:.1f}"
        assert ticks(panel.x) == ["0", "0.5", "1", "2"]
        assert ticks(panel.y) == ["0", "0.5", "1"]
        assert np.array(heat.values) == pytest.approx(100 * matrix.mean)
        assert heat.colors.limits == pytest.approx((12.5, 100))
        assert [tick.text for tick in panel.x.opposite] == ["∞", "6.0", "0.0", "−6.0"]
        assert "σ_train 0.5, σ_infer 2 (SNR −6.0 dB)" in heat.hover[1][3]
        assert "4 seeds" in heat.hover[1][3]
    assert "95 % interval over seeds" in figure.note
    assert len(figure.color_bars()) == 1


def test_numbers_can_be_read_on_their_colour(findings):
    """WCAG's contrast of at least 4 between every number and its cell."""

    def luminance(color):
        channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return np.dot(linear, [0.2126, 0.7152, 0.0722])

    for figure in (matrices_figure(findings.matrices), differences_figure(findings.matrices, findings)):
        for panel in figure.panels:
            heat = heat_of(panel)
            for _, _, value in heat.cells():
                cell = blend(heat.colors.stops, heat.colors.share(value))
                light, dark = sorted((luminance(cell), luminance(readable_on(cell))), reverse=True)
                assert (light + 0.05) / (dark + 0.05) > 4


def test_panels_have_the_same_rows_although_a_member_is_missing(frame):
    holed = frame[~((frame["units"] == 64) & (frame["sigma_train"] == 0.5))]
    first, second = matrices_figure(find(holed).matrices).panels
    assert ticks(first.y) == ticks(second.y) == ["0", "0.5", "1"]
    assert [sum(math.isnan(value) for *_, value in heat_of(one).cells()) for one in (first, second)] == [0, 4]
    curves = curves_figure(find(holed).matrices)
    assert [line.label for line in elements(curves.panels[1], Line)] == ["0 (conventional)", "0.5", "1"]
    assert [len(line.x) for line in elements(curves.panels[1], Line)] == [4, 0, 4]
    study_figures(find(holed))


def test_curves_are_means_with_bands(findings):
    figure = curves_figure(findings.matrices)
    for panel, matrix in zip(figure.panels, findings.matrices, strict=True):
        lines = elements(panel, Line)
        assert len(lines) == 3
        low, high = matrix.interval()
        for row, line in enumerate(lines):
            assert line.x == matrix.levels
            assert line.y == pytest.approx(100 * matrix.mean[row])
            assert line.low == pytest.approx(100 * low[row])
            assert line.high == pytest.approx(100 * high[row])
        assert [line.style.dash for line in lines] == ["dash", "solid", "solid"]
        assert [one.label for one in elements(panel, Reference)] == ["chance 12.5 %"]
    assert figure.legend.title == "σ_train"
    assert [entry.label for entry in figure.legend_entries()] == ["0 (conventional)", "0.5", "1"]


@pytest.mark.parametrize("to_clean", [False, True])
def test_significant_differences_are_marked(findings, to_clean):
    figure = differences_figure(findings.matrices, findings, to_clean)
    table = findings.tables["above_clean" if to_clean else "difference"]
    heat, matrix = heat_of(figure.panels[0]), findings.matrices[0]
    rows = table[(table["units"] == 32) & (table["strength"] > 0)]
    starred = {
        (row + 1, column)
        for row, column, _ in heat.cells()
        if column > 0 and heat.text[row][column].text.endswith("*") and heat.text[row][column].bold
    }
    expected = {
        (matrix.sigma_train.index(row.sigma_train), matrix.levels.index(row.strength))
        for row in rows.itertuples()
        if row.p_holm < 0.05
    }
    assert starred == expected
    if not to_clean:
        assert expected  # there is something to mark
    base = matrix.mean[0, 0] if to_clean else matrix.mean[0]
    assert np.array(heat.values) == pytest.approx(100 * (matrix.mean[1:] - base))
    low, high = heat.colors.limits
    assert low == -high  # no difference is white
    assert "p < 0.05" in figure.note


def test_what_is_drawn_is_what_the_tables_say():
    """Interval and mark of every difference, where a pair of ties makes tests without a floor say something else."""
    frame = simulate(**SMALL, sizes=(32, 64), seeds=range(3), spread=1e-9, seed_spread=0.0)
    frame["correct"] = 700 + (frame["sigma_train"] > 0) * 1
    frame["accuracy"] = frame["correct"] / 845
    findings = find(frame)
    table = findings.tables["difference"]
    assert (table["p_holm"] > 0.05).all()
    heat = heat_of(differences_figure(findings.matrices, findings).panels[0])
    half = {f"±{50 * (row.high - row.low):.1f}" for row in table[table["units"] == 32].itertuples()}
    assert {cell.text for row in heat.text for cell in row} == {"+0.1"}
    assert {cell.small for row in heat.text for cell in row} == half != {"±0.0"}


def test_tables_and_figures_say_the_same(findings):
    """Means, intervals and marks of every table of the findings that a figure shows."""
    figures = study_figures(findings)
    shown = {}
    for kind, panels in (("matrix", figures["matrix"].panels), ("curves", figures["curves"].panels)):
        for panel, matrix in zip(panels, findings.matrices, strict=True):
            for row, train in enumerate(matrix.sigma_train):
                for column, infer in enumerate(matrix.levels):
                    if kind == "matrix":
                        cell = heat_of(panel).text[row][column]
                        values = cell.text, cell.small
                    else:
                        line = elements(panel, Line)[row]
                        width = (line.high[column] - line.low[column]) / 2
                        values = f"{line.y[column]:.1f}", f"±{width:.1f}"
                    shown[kind, matrix.key["units"], train, infer] = values
    table = findings.tables["matrix"]
    assert len(shown) == 2 * len(table)
    for row in table.itertuples():
        expected = f"{100 * row.accuracy:.1f}", f"±{50 * (row.high - row.low):.1f}"
        for kind in ("matrix", "curves"):
            assert shown[kind, row.units, row.sigma_train, row.strength] == expected
    for name, tables in {
        "difference": ["difference"],
        "difference_to_clean": ["clean_inference", "above_clean"],
    }.items():
        for panel, matrix in zip(figures[name].panels, findings.matrices, strict=True):
            heat, seen = heat_of(panel), 0
            for one in tables:
                for row in findings.tables[one].query(f"units == {matrix.key['units']}").itertuples():
                    at = (
                        matrix.sigma_train.index(row.sigma_train) - 1,
                        matrix.levels.index(row.strength),
                    )
                    cell = heat.text[at[0]][at[1]]
                    assert heat.values[at[0]][at[1]] == pytest.approx(100 * row.effect)
                    assert cell.small == f"±{50 * (row.high - row.low):.1f}"
                    assert cell.text.endswith("*") is cell.bold is bool(row.p_holm < 0.05)
                    seen += 1
            assert seen == math.prod(heat.shape)


@pytest.mark.parametrize("n_seeds", [1, 2])
def test_too_few_seeds_have_no_interval_and_no_mark(n_seeds):
    findings = find(simulate(**SMALL, sizes=(32, 64), seeds=range(n_seeds), spread=1e-9))
    for name, figure in study_figures(findings).items():
        assert not [text for text in written(figure) if "±" in text or "*" in text], name
        assert not [
            one for panel in figure.panels for one in elements(panel, Line | Points) if one.has_interval
        ], name
        if name != "best":
            assert "too few seeds for an interval" in figure.note, name


def test_best_shows_the_set(findings):
    figure = best_figure(findings.matrices, findings)
    table = findings.tables["best"]
    for panel, units in zip(figure.panels, (32, 64), strict=True):
        rows = table[table["units"] == units]
        light = {(column, row) for row, column, value in heat_of(panel).cells() if not math.isnan(value)}
        assert light == {
            ([0, 0.5, 1, 2].index(row.strength), [0, 0.5, 1].index(row.sigma_train))
            for row in rows[rows["in_set"]].itertuples()
        }
        (line,) = elements(panel, Line)
        best = rows[rows["best"]]
        assert line.x == tuple([0, 0.5, 1, 2].index(value) for value in best["strength"])
        assert line.y == tuple([0, 0.5, 1].index(value) for value in best["sigma_train"])
    assert {entry.label for entry in figure.legend_entries()} == {"best", "may be best"}


@pytest.mark.parametrize(("seeds", "tested"), [(1, False), (2, False), (3, True)])
def test_best_tells_whether_anything_was_tested(seeds, tested):
    found = find(simulate(**SMALL, sizes=(32,), seeds=range(seeds)))
    note = best_figure(found.matrices, found).note
    for part in ("95 %", "paired t tests"):
        assert (part in note) is tested


def test_units_show_every_size(findings):
    figure = units_figure(findings.matrices, levels=[1.0])
    (panel,) = figure.panels
    assert ticks(panel.x) == ["32", "64"]
    assert panel.x.scale == "log"
    points = elements(panel, Points)
    conventional = next(one for one in points if one.label == "0 (conventional)")
    assert conventional.y == pytest.approx([100 * matrix.mean[0, 2] for matrix in findings.matrices])
    low = [100 * matrix.interval()[0][0, 2] for matrix in findings.matrices]
    assert conventional.low == pytest.approx(low)
    # Beside one another, and nearer to their size than to another.
    firsts = [one.x[0] for one in points]
    assert len(set(firsts)) == 3
    assert all(28 < x < 36 for x in firsts)
    with pytest.raises(UserError, match="give levels that all were measured at"):
        units_figure(findings.matrices, levels=[7.0])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "other",
    [{"seeds": range(1)}, {"sigmas_infer": (0.0,)}, {"sigmas_train": (0.0,)}, {"sigmas_train": (1.0,)}],
    ids=["one seed", "clean inference only", "conventional only", "noisy only"],
)
def test_one_seed_or_one_level_can_be_drawn(other):
    from asr_dni.plotting import with_matplotlib, with_plotly

    figures = study_figures(find(simulate(**(SMALL | {"seeds": range(2)} | other))))
    for figure in figures.values():
        with_matplotlib.render(figure).draw_without_rendering()
        with_plotly.render(figure)
    both = "sigmas_train" not in other
    assert ("difference" in figures) == both
    assert ("best" in figures) == both


def test_nothing_to_draw_is_an_error():
    for specify in (matrices_figure, curves_figure, units_figure):
        with pytest.raises(UserError, match="no matrix to draw"):
            specify([])


def test_the_axis_is_the_strength_that_was_swept():
    bits = find(
        simulate(**(SMALL | {"sigmas_infer": (4.0, 6.0, 8.0)}), seeds=range(2), axis="adc.bits", unit="")
    )
    figures = study_figures(bits)
    assert {panel.x.text for name in ("matrix", "curves", "best") for panel in figures[name].panels} == {
        "ADC bits"
    }
    assert figures["matrix"].panels[0].x.categories == ("4", "6", "8")
    assert "ADC bits 6" in heat_of(figures["matrix"].panels[0]).hover[0][1]
    time = find(simulate(**SMALL, seeds=range(2), axis="drift.time", unit="s"))
    assert study_figures(time)["curves"].panels[0].x.text == "drift time (s)"
