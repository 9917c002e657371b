import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from simulated_study import simulate

from asr_dni.errors import UserError
from asr_dni.evaluation import save_figure
from asr_dni.study.figures import (
    draw_best,
    draw_curves,
    draw_differences,
    draw_matrices,
    draw_study,
    draw_units,
)
from asr_dni.study.findings import find

SMALL = {"sigmas_train": (0.0, 0.5, 1.0), "sigmas_infer": (0.0, 0.5, 1.0, 2.0), "draws": 2}


@pytest.fixture(scope="module")
def frame():
    return simulate(**SMALL, sizes=(32, 64), seeds=range(4))


@pytest.fixture(scope="module")
def findings(frame):
    return find(frame)


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_every_figure_is_drawn_and_can_be_written(findings, tmp_path):
    figures = draw_study(findings)
    assert set(figures) == {"matrix", "curves", "difference", "difference_to_clean", "best", "units"}
    before = dict(matplotlib.rcParams)
    for name, figure in figures.items():
        assert figure.axes
        for path in save_figure(figure, tmp_path / name):
            assert path.stat().st_size > 5000
    assert dict(matplotlib.rcParams) == before


def test_file_names_tell_what_differs():
    frame = simulate(
        **SMALL, cells=("lstm", "gru"), sizes=(32,), schedules=("constant", "linear"), seeds=range(2)
    )
    names = set(draw_study(find(frame)))
    assert {"matrix-lstm-constant", "matrix-gru-linear", "best-linear", "curves-gru-constant"} <= names
    assert not any(name.startswith("units") for name in names)  # there is one size


def test_matrix_shows_mean_and_interval_of_every_pair(findings):
    figure = draw_matrices(findings.matrices)
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in panels] == ["32 units", "64 units"]
    for axes, matrix in zip(panels, findings.matrices, strict=True):
        shown = texts(axes)
        assert len(shown) == 2 * 12
        low, high = matrix.interval()
        for place in ((0, 0), (1, 3)):
            assert f"{100 * matrix.mean[place]:.1f}" in shown
            assert f"±{50 * (high - low)[place]:.1f}" in shown
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "0.5", "1", "2"]
        assert [tick.get_text() for tick in axes.get_yticklabels()] == ["0", "0.5", "1"]
        image = axes.images[0]
        assert np.asarray(image.get_array()) == pytest.approx(100 * matrix.mean)
        assert image.norm.vmin == pytest.approx(12.5)
        (top,) = axes.child_axes
        assert [tick.get_text() for tick in top.get_xticklabels()] == ["∞", "6.0", "0.0", "−6.0"]
    assert "infer" in panels[0].get_xlabel()
    assert "RMS" in panels[0].get_xlabel()
    assert "train" in panels[0].get_ylabel()
    small_print = figure.get_supxlabel()
    for part in ("845 test clips", "4 seeds", "2 draws", "chance 12.5 %", "95 % interval over seeds"):
        assert part in small_print.replace("\n", " ")


def test_numbers_can_be_read_on_their_colour(findings):
    """WCAG's contrast of at least 4 between every number and its cell."""
    figure = draw_matrices(findings.matrices)

    def luminance(color):
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
        return np.dot(linear, [0.2126, 0.7152, 0.0722])

    for axes in figure.axes[:2]:
        image = axes.images[0]
        for text in axes.texts:
            row, column = round(text.get_position()[1]), round(text.get_position()[0])
            cell = image.cmap(image.norm(image.get_array()[row, column]))
            light, dark = sorted((luminance(cell), luminance(text.get_color())), reverse=True)
            assert (light + 0.05) / (dark + 0.05) > 4


def test_panels_have_the_same_rows_although_a_member_is_missing(frame):
    holed = frame[~((frame["units"] == 64) & (frame["sigma_train"] == 0.5))]
    figure = draw_matrices(find(holed).matrices)
    first, second = figure.axes[:2]
    assert [tick.get_text() for tick in second.get_yticklabels()] == ["0", "0.5", "1"]
    assert texts(second).count("–") == 4
    assert texts(first).count("–") == 0
    draw_study(find(holed))


def test_curves_are_means_with_bands(findings):
    figure = draw_curves(findings.matrices)
    for axes, matrix in zip(figure.axes, findings.matrices, strict=True):
        lines = [line for line in axes.lines if len(line.get_xdata()) == 4]
        assert len(lines) == 3
        for line, mean in zip(lines, matrix.mean, strict=True):
            assert line.get_ydata() == pytest.approx(100 * mean)
        low, high = matrix.interval()
        band = axes.collections[0].get_paths()[0].vertices[:, 1]
        assert band.min() == pytest.approx(100 * low[0].min())
        assert band.max() == pytest.approx(100 * high[0].max())
        assert "chance 12.5 %" in texts(axes)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["0 (conventional)", "0.5", "1"]


@pytest.mark.parametrize("to_clean", [False, True])
def test_significant_differences_are_marked(findings, to_clean):
    figure = draw_differences(findings.matrices, findings, to_clean)
    table = findings.tables["above_clean" if to_clean else "difference"]
    axes, matrix = figure.axes[0], findings.matrices[0]
    rows = table[(table["units"] == 32) & (table["strength"] > 0)]
    starred = {
        (round(text.get_position()[1]) + 1, round(text.get_position()[0]))
        for text in axes.texts
        if text.get_text().endswith("*") and round(text.get_position()[0]) > 0
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
    assert np.asarray(axes.images[0].get_array()) == pytest.approx(100 * (matrix.mean[1:] - base))
    norm = axes.images[0].norm
    assert norm.vmin == -norm.vmax  # no difference is white
    assert "p < 0.05" in figure.get_supxlabel()


def test_what_is_drawn_is_what_the_tables_say():
    """Interval and mark of every difference, where a pair of ties makes tests without a floor say something else."""
    frame = simulate(**SMALL, sizes=(32, 64), seeds=range(3), spread=1e-9, seed_spread=0.0)
    frame["correct"] = 700 + (frame["sigma_train"] > 0) * 1
    frame["accuracy"] = frame["correct"] / 845
    findings = find(frame)
    table = findings.tables["difference"]
    assert (table["p_holm"] > 0.05).all()
    axes = draw_differences(findings.matrices, findings).axes[0]
    half = {f"±{50 * (row.high - row.low):.1f}" for row in table[table["units"] == 32].itertuples()}
    assert set(texts(axes)) == {"+0.1", *half}
    assert half != {"±0.0"}


@pytest.mark.parametrize("n_seeds", [1, 2])
def test_too_few_seeds_have_no_interval_and_no_mark(n_seeds):
    findings = find(simulate(**SMALL, sizes=(32, 64), seeds=range(n_seeds), spread=1e-9))
    for name, figure in draw_study(findings).items():
        shown = [text.get_text() for axes in figure.axes for text in axes.texts]
        assert not [text for text in shown if "±" in text or "*" in text], name
        if name != "best":
            assert "too few seeds for an interval" in figure.get_supxlabel().replace("\n", " "), name


def test_best_shows_the_set(findings):
    figure = draw_best(findings.matrices, findings)
    table = findings.tables["best"]
    for axes, units in zip(figure.axes, (32, 64), strict=True):
        rows = table[table["units"] == units]
        boxes = {(round(box.get_x() + 0.45), round(box.get_y() + 0.45)) for box in axes.patches}
        expected = {
            ([0, 0.5, 1, 2].index(row.strength), [0, 0.5, 1].index(row.sigma_train))
            for row in rows[rows["in_set"]].itertuples()
        }
        assert boxes == expected
        assert axes.lines[0].get_ydata().tolist() == [
            [0, 0.5, 1].index(value) for value in rows[rows["best"]]["sigma_train"]
        ]


@pytest.mark.parametrize(("seeds", "tested"), [(1, False), (2, False), (3, True)])
def test_best_tells_whether_anything_was_tested(seeds, tested):
    found = find(simulate(**SMALL, sizes=(32,), seeds=range(seeds)))
    small_print = draw_best(found.matrices, found).get_supxlabel().replace("\n", " ")
    for part in ("95 %", "paired t tests"):
        assert (part in small_print) is tested
    assert ("too few seeds for tests, 3 are needed: nothing is ruled out" in small_print) is not tested


def test_units_show_every_size(findings):
    figure = draw_units(findings.matrices, levels=[1.0])
    (axes,) = figure.axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["32", "64"]
    conventional = next(
        line for line in axes.lines if line.get_linestyle() == "--" and len(line.get_xdata()) == 2
    )
    assert conventional.get_ydata() == pytest.approx(
        [100 * matrix.mean[0, 2] for matrix in findings.matrices]
    )
    with pytest.raises(UserError, match="give levels that all were measured at"):
        draw_units(findings.matrices, levels=[7.0])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "other",
    [{"seeds": range(1)}, {"sigmas_infer": (0.0,)}, {"sigmas_train": (0.0,)}, {"sigmas_train": (1.0,)}],
    ids=["one seed", "clean inference only", "conventional only", "noisy only"],
)
def test_one_seed_or_one_level_can_be_drawn(other):
    figures = draw_study(find(simulate(**(SMALL | {"seeds": range(2)} | other))))
    for figure in figures.values():
        figure.draw_without_rendering()
    both = "sigmas_train" not in other
    assert ("difference" in figures) == both
    assert ("best" in figures) == both


def test_nothing_to_draw_is_an_error():
    for draw in (draw_matrices, draw_curves, draw_units):
        with pytest.raises(UserError, match="no matrix to draw"):
            draw([])
