"""Pictures of a study: the matrix, its curves, the best training noise, differences and the number of units."""

import itertools
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MultipleLocator, NullLocator

from asr_dni.errors import UserError
from asr_dni.evaluation.description import SCALE_UNITS, format_snr
from asr_dni.evaluation.figures import GREY, RC, math_text
from asr_dni.study.findings import Findings, rows_of
from asr_dni.study.hypothesis_tests import MIN_SEEDS, TOO_FEW_SEEDS
from asr_dni.study.matrix import KEYS, Matrix, describe_key, describe_shared, varying_keys

Array: TypeAlias = npt.NDArray[np.float64]
Marks: TypeAlias = npt.NDArray[np.bool_]

_COLUMNS = 3  # panels side by side
_INTERVAL = "95 % interval over seeds"


def draw_study(findings: Findings) -> dict[str, Figure]:
    """Draw all figures of a study.

    Args:
        findings: see :func:`asr_dni.study.findings.find`.

    Returns:
        Figures by their file names without ending: per cell and setting ``matrix``, ``curves``, ``difference``,
        ``difference_to_clean``, and per setting ``best`` and ``units``, as far as there is something to show.
    """
    figures: dict[str, Figure] = {}
    for name, group in _groups(findings, ("units",)):
        figures[f"matrix{name}"] = draw_matrices(group)
        figures[f"curves{name}"] = draw_curves(group)
        if any(matrix.conventional is not None and len(matrix.sigma_train) > 1 for matrix in group):
            figures[f"difference{name}"] = draw_differences(group, findings)
            if any(matrix.levels[0] == 0 for matrix in group):
                figures[f"difference_to_clean{name}"] = draw_differences(group, findings, to_clean=True)
    for name, group in _groups(findings, ("units", "cell")):
        if any(len(matrix.sigma_train) > 1 for matrix in group):
            figures[f"best{name}"] = draw_best(group, findings)
        if len({matrix.key["units"] for matrix in group}) > 1:
            figures[f"units{name}"] = draw_units(group)
    return figures


def _groups(findings: Findings, together: Sequence[str]) -> Iterator[tuple[str, list[Matrix]]]:
    """Yield matrices that differ only in the names given, and the rest of their name as part of a file's name."""
    varying = [name for name in varying_keys(findings.matrices) if name not in together]
    groups: dict[tuple[Any, ...], list[Matrix]] = {}
    for matrix in findings.matrices:
        groups.setdefault(tuple(matrix.key[name] for name in KEYS if name not in together), []).append(matrix)
    for group in groups.values():
        parts = [_file_part(name, group[0].key[name]) for name in varying]
        yield "".join(f"-{part}" for part in parts if part), group


def _file_part(name: str, value: Any) -> str:
    text = {
        "bidirectional": "bidirectional" if value else "",
        "layers": f"{value}layers",
        "epochs": f"{value}epochs",
    }
    plain = text.get(
        name, str(value) if name not in ("train_scale", "scale") else f"{name}-{value}" if value else ""
    )
    return "".join(letter if letter.isalnum() or letter in "+-" else "_" for letter in plain.lower())


def _sigma_label(matrix: Matrix, axis: str) -> str:
    """Return an axis label: what is measured, in which unit."""
    scale = matrix.key["scale" if axis == "infer" else "train_scale"]
    unit = SCALE_UNITS.get(str(scale))
    word = "inference noise σ_infer" if axis == "infer" else "training noise σ_train"
    return math_text(word + (f"\n({unit})" if unit else ""))


def _panels(
    title: str,
    matrices: Sequence[Matrix],
    size: tuple[float, float],
    print_below: str,
    *,
    columns: int = _COLUMNS,
    number: int | None = None,
    legend: bool = False,
    sharey: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Return a figure with a panel each, title above and small print below; sizes in inches."""
    number = len(matrices) if number is None else number
    columns = min(columns, number)
    rows = math.ceil(number / columns)
    width = max(columns * size[0] + (1.4 if legend else 0.4), 6.6)
    line = f"{describe_shared(matrices)}; {print_below}"
    small = textwrap.fill(line[:1].upper() + line[1:], int(15.5 * width))
    head = textwrap.fill(title, int(8.5 * width))
    figure = Figure(
        figsize=(width, rows * size[1] + 0.45 + 0.25 * head.count("\n") + 0.14 * (1 + small.count("\n"))),
        dpi=160,
        layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08),
    )
    figure.suptitle(math_text(head), x=0.012, ha="left", fontsize=12.5, fontweight="bold")
    figure.supxlabel(math_text(small), x=0.012, ha="left", fontsize=7.5, color=GREY)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    flat = list(grid.ravel())
    for spare in flat[number:]:
        spare.set_axis_off()
    return figure, flat[:number]


def _title(matrices: Sequence[Matrix], what: str, without: Sequence[str] = ("units",)) -> str:
    """Return a title that names the cell and what else this picture is about."""
    names = [name for name in ("cell", "schedule") if name not in without]
    return f"{what}: {describe_key(matrices[0].key, names)}"


def _panel_titles(matrices: Sequence[Matrix]) -> list[str]:
    names = [name for name in ("cell", "units") if len(matrices) == 1 or name in varying_keys(matrices)]
    return [describe_key(matrix.key, names) for matrix in matrices]


def _have_intervals(matrices: Sequence[Matrix]) -> bool:
    return any(bool(np.isfinite(matrix.interval()).any()) for matrix in matrices)


def _explain_intervals(matrices: Sequence[Matrix], name: str) -> str:
    return f"{name}: {_INTERVAL}" if _have_intervals(matrices) else TOO_FEW_SEEDS


def _bare(axes: Axes) -> None:
    axes.tick_params(which="both", length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _draw_grid(
    axes: Axes, values: Array, color: Colormap, norm: Normalize, matrix: Matrix, trains: Sequence[float]
) -> None:
    """Draw a value per (sigma_train, sigma_infer) as a coloured cell; conventional training is at the bottom."""
    masked = np.ma.masked_invalid(values)
    axes.imshow(masked, cmap=color, norm=norm, aspect="auto", origin="lower", interpolation="nearest")
    axes.set_facecolor("#f2f2f2")
    axes.set_xticks(range(len(matrix.levels)), [f"{sigma:g}" for sigma in matrix.levels])
    axes.set_yticks(range(len(trains)), [f"{sigma:g}" for sigma in trains])
    # White lines between the cells.
    axes.set_xticks(np.arange(len(matrix.levels) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(trains) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.2)
    axes.tick_params(labelsize=8)
    _bare(axes)
    if not np.isnan(matrix.snr_db).any() and matrix.key["scale"] != "absolute":
        top = axes.secondary_xaxis("top")
        top.set_xticks(range(len(matrix.levels)), [format_snr(snr) for snr in matrix.snr_db])
        top.tick_params(colors=GREY, labelsize=7, length=0, pad=1)
        top.spines["top"].set_visible(False)
        top.set_xlabel("SNR (dB)", color=GREY, fontsize=7, labelpad=3)


def _ink(color: tuple[float, float, float, float]) -> str:
    """Return black or white, whichever reads better on a colour (WCAG's luminance)."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    luminance = float(np.dot(linear, [0.2126, 0.7152, 0.0722]))
    return "black" if luminance > 0.18 else "white"


def _write_cells(
    axes: Axes,
    values: Array,
    color: Colormap,
    norm: Normalize,
    text: Callable[[int, int], tuple[str, str]],
    bold: Marks | None = None,
) -> None:
    def write(x: float, y: float, label: str, size: float, ink: str, weight: str = "normal") -> None:
        written = axes.text(x, y, label, ha="center", va="center", fontsize=size, color=ink, weight=weight)
        written.set_in_layout(
            False
        )  # it lies within the axes: measuring it takes most of the time of a layout

    for row, column in np.ndindex(*values.shape):
        if math.isnan(values[row, column]):
            write(column, row, "–", 7, GREY)
            continue
        ink = _ink(color(norm(values[row, column])))
        large, small = text(row, column)
        marked = bold is not None and bool(bold[row, column])
        write(column, row + (0.13 if small else 0), large, 7.4, ink, "bold" if marked else "normal")
        if small:
            write(column, row - 0.24, small, 5.2, ink)


def _grid_size(matrices: Sequence[Matrix]) -> tuple[float, float]:
    columns = max(len(matrix.levels) for matrix in matrices)
    rows = max(len(matrix.sigma_train) for matrix in matrices)
    return max(0.43 * columns + 0.75, 2.6), max(0.36 * rows + 1.25, 2.2)


def draw_matrices(matrices: Sequence[Matrix]) -> Figure:
    """Draw accuracy for every (sigma_train, sigma_infer) as a heat map, a panel per size.

    Args:
        matrices: of one cell and setting.

    Returns:
        A figure, drawn without pyplot; see :func:`asr_dni.evaluation.save_figure`.

    Raises:
        UserError: there is no matrix.
    """
    matrices = _on_one_grid(matrices)
    with matplotlib.rc_context(RC):
        interval = f"and half the width of its {_INTERVAL}" if _have_intervals(matrices) else TOO_FEW_SEEDS
        below = f"numbers: accuracy in %, mean over seeds, {interval}"
        figure, panels = _panels(_title(matrices, "Accuracy"), matrices, _grid_size(matrices), below)
        color = matplotlib.colormaps["viridis"]
        norm = Normalize(100 * matrices[0].chance, 100)
        for axes, matrix, title in zip(panels, matrices, _panel_titles(matrices), strict=True):
            mean, (low, high) = 100 * matrix.mean, matrix.interval()
            half = 50 * (high - low)

            def text(row: int, column: int, mean: Array = mean, half: Array = half) -> tuple[str, str]:
                width = half[row, column]
                return f"{mean[row, column]:.1f}", "" if math.isnan(width) else f"±{width:.1f}"

            _draw_grid(axes, mean, color, norm, matrix, matrix.sigma_train)
            _write_cells(axes, mean, color, norm, text)
            axes.set_title(title, fontsize=10, loc="left")
        _label_outer(panels, matrices)
        _color_bar(figure, panels, color, norm, "accuracy (%)", chance=100 * matrices[0].chance)
    return figure


def _label_outer(panels: Sequence[Axes], matrices: Sequence[Matrix]) -> None:
    for axes in panels:
        place = axes.get_subplotspec()
        assert place is not None
        axes.set_xlabel(_sigma_label(matrices[0], "infer"), fontsize=8.5)
        if place.is_first_col():
            axes.set_ylabel(_sigma_label(matrices[0], "train"), fontsize=8.5)


def _color_bar(
    figure: Figure,
    panels: Sequence[Axes],
    color: Colormap,
    norm: Normalize,
    label: str,
    chance: float | None = None,
    extend: str = "neither",
) -> None:
    mappable = ScalarMappable(norm, color)
    bar = figure.colorbar(mappable, ax=list(panels), fraction=0.03, pad=0.015, aspect=28, extend=extend)
    bar.set_label(label, fontsize=8.5)
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)
    if chance is not None:
        ticks = [chance, *(tick for tick in range(0, 101, 20) if tick - chance > 6)]
        bar.set_ticks(ticks, labels=[f"chance {chance:.1f}", *(f"{tick:g}" for tick in ticks[1:])])


def _train_colors(matrices: Sequence[Matrix]) -> dict[float, Any]:
    """Return a colour per sigma_train: black without noise, then from dark to light as it grows."""
    sigmas = sorted({sigma for matrix in matrices for sigma in matrix.sigma_train})
    noisy = [sigma for sigma in sigmas if sigma > 0]
    places = np.linspace(0.08, 0.8, len(noisy)) if len(noisy) > 1 else [0.3] * len(noisy)
    colors: dict[float, Any] = {0.0: "black"}
    return colors | dict(zip(noisy, map(matplotlib.colormaps["plasma"], places), strict=True))


_MARKS = ("o", "s", "^", "D", "v", "P", "X")


def _train_legend(figure: Figure, colors: dict[float, Any], more: Sequence[Any] = ()) -> None:
    handles: list[Any] = [
        Line2D(
            [],
            [],
            color=color,
            linestyle="--" if sigma == 0 else "-",
            marker=_MARKS[place % len(_MARKS)],
            markersize=4.5,
            label=f"{sigma:g}" + (" (conventional)" if sigma == 0 else ""),
        )
        for place, (sigma, color) in enumerate(colors.items())
    ]
    figure.legend(
        handles=[*handles, *more],
        title=math_text("σ_train"),
        loc="outside right upper",
        frameon=False,
        fontsize=8.5,
        title_fontsize=9,
        handlelength=2.4,
    )


def _accuracy_axis(axes: Axes, chance: float) -> None:
    axes.set_ylim(0, 101.5)
    axes.yaxis.set_major_locator(MultipleLocator(20))
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    _bare(axes)
    axes.tick_params(labelsize=8.5)
    axes.axhline(100 * chance, color=GREY, linestyle=(0, (1, 2)), linewidth=1.1, zorder=2)
    axes.annotate(
        f"chance {100 * chance:.1f} %",
        (0.01, 100 * chance),
        xycoords=("axes fraction", "data"),
        xytext=(0, -3),
        textcoords="offset points",
        va="top",
        fontsize=7.5,
        color=GREY,
    )


def draw_curves(matrices: Sequence[Matrix]) -> Figure:
    """Draw accuracy against sigma_infer, a line per sigma_train with its interval as a band, a panel per size.

    Args:
        matrices: of one cell and setting.

    Raises:
        UserError: there is no matrix.
    """
    _check(matrices)
    with matplotlib.rc_context(RC):
        below = f"lines: mean over seeds; {_explain_intervals(matrices, 'bands')}"
        figure, panels = _panels(
            _title(matrices, "Noise curves"), matrices, (3.7, 3.2), below, legend=True, sharey=True
        )
        colors = _train_colors(matrices)
        for axes, matrix, title in zip(panels, matrices, _panel_titles(matrices), strict=True):
            mean, (low, high) = matrix.mean, matrix.interval()
            for row, sigma in enumerate(matrix.sigma_train):
                color = colors[sigma]
                axes.fill_between(
                    matrix.levels, 100 * low[row], 100 * high[row], color=color, alpha=0.15, linewidth=0
                )
                axes.plot(
                    matrix.levels,
                    100 * mean[row],
                    color=color,
                    linestyle="--" if sigma == 0 else "-",
                    marker=_MARKS[list(colors).index(sigma) % len(_MARKS)],
                    markersize=3.8,
                    markeredgecolor="white",
                    markeredgewidth=0.4,
                    linewidth=1.4,
                    zorder=4 if sigma == 0 else 3,
                )
            _accuracy_axis(axes, matrix.chance)
            axes.set_title(title, fontsize=10, loc="left")
            axes.set_xlabel(_sigma_label(matrix, "infer"), fontsize=8.5)
            place = axes.get_subplotspec()
            if place is not None and place.is_first_col():
                axes.set_ylabel("accuracy (%)", fontsize=9)
        shown = {sigma for matrix in matrices for sigma in matrix.sigma_train}
        _train_legend(figure, {sigma: color for sigma, color in colors.items() if sigma in shown})
    return figure


def draw_differences(matrices: Sequence[Matrix], findings: Findings, to_clean: bool = False) -> Figure:
    """Draw the difference to conventional training, with what is significant marked, a panel per size.

    Args:
        matrices: of one cell and setting.
        findings: those the matrices are of: its tests are shown.
        to_clean: compare with conventional training and clean inference instead of the same sigma_infer.

    Raises:
        UserError: there is no matrix.
    """
    matrices = _on_one_grid(matrices)
    if to_clean:
        what = "Accuracy above or below conventional training with clean inference"
        marks = "bold with *: above it, one-sided paired t test over seeds, Holm-corrected p < 0.05"
    else:
        what = "Accuracy above or below conventional training at the same noise"
        marks = "bold with *: differs from it, two-sided paired t test over seeds, Holm-corrected p < 0.05"
    differences = [findings.differences(matrix, to_clean) for matrix in matrices]
    known = any(bool(np.isfinite(one.low).any()) for one in differences if one)
    interval = f"and half its {_INTERVAL}; {marks}" if known else f"{TOO_FEW_SEEDS}, nothing is tested"
    below = f"numbers: difference in points, mean over seeds, {interval}"
    with matplotlib.rc_context(RC):
        columns, rows = _grid_size(matrices)
        figure, panels = _panels(_title(matrices, what), matrices, (columns, rows - 0.25), below)
        color = matplotlib.colormaps["RdBu"]
        # Far below the clean accuracy it does not matter how far: colours are for what is near it.
        limit = 10.0 if to_clean else max([1.0, *(_largest(100 * one.effect) for one in differences if one)])
        norm = Normalize(-limit, limit, clip=True)
        for axes, matrix, title, found in zip(
            panels, matrices, _panel_titles(matrices), differences, strict=True
        ):
            axes.set_title(title, fontsize=10, loc="left")
            if found is None:
                axes.set_axis_off()
                axes.text(
                    0.5, 0.5, "no conventional training", transform=axes.transAxes, ha="center", color=GREY
                )
                continue
            effect, half = 100 * found.effect, 50 * (found.high - found.low)

            def text(
                row: int,
                column: int,
                effect: Array = effect,
                half: Array = half,
                marked: Marks = found.significant,
            ) -> tuple[str, str]:
                width, star = half[row, column], "*" if marked[row, column] else ""
                number = f"{effect[row, column] + 0.0:+.1f}".replace("-", "−")
                return number + star, "" if math.isnan(width) else f"±{width:.1f}"

            _draw_grid(axes, effect, color, norm, matrix, matrix.sigma_train[1:])
            _write_cells(axes, effect, color, norm, text, found.significant)
        _label_outer(panels, matrices)
        _color_bar(
            figure, panels, color, norm, "difference (points)", extend="min" if to_clean else "neither"
        )
    return figure


def _largest(values: Array) -> float:
    known = np.abs(values[np.isfinite(values)])
    return float(known.max()) if known.size else 0.0


def draw_best(matrices: Sequence[Matrix], findings: Findings) -> Figure:
    """Draw the best sigma_train for each sigma_infer, and those that may be the best too, a panel per architecture.

    Args:
        matrices: of one setting.
        findings: those the matrices are of: its sets are shown.

    Raises:
        UserError: there is no matrix.
    """
    matrices = _on_one_grid(matrices)
    with matplotlib.rc_context(RC):
        tables = [rows_of(findings.tables["best"], matrix) for matrix in matrices]
        tested = any(bool(table["p_some_other_is_better"].notna().any()) for table in tables if len(table))
        if tested:
            why = (
                "the light set and the best hold the truly best one with 95 % at each σ_infer; paired t tests over"
                " seeds, corrected over rivals"
            )
        else:
            why = f"too few seeds for tests, {MIN_SEEDS} are needed: nothing is ruled out"
        below = f"light: may be the best too ({why})"
        sizes = len({matrix.key["units"] for matrix in matrices})
        columns = sizes if 1 < sizes <= 4 else _COLUMNS
        title = _title(matrices, "Best training noise", ("units", "cell"))
        height = 0.21 * max(len(matrix.sigma_train) for matrix in matrices) + 1.05
        figure, panels = _panels(title, matrices, (3.4, height), below, columns=columns, legend=True)
        for axes, matrix, name, rows in zip(panels, matrices, _panel_titles(matrices), tables, strict=True):
            infers, trains = list(matrix.levels), list(matrix.sigma_train)
            for row in rows.to_dict("records"):
                if row["in_set"]:
                    corner = infers.index(row["strength"]) - 0.45, trains.index(row["sigma_train"]) - 0.45
                    axes.add_patch(Rectangle(corner, 0.9, 0.9, color="#bcd7ea", linewidth=0))
            best = rows[rows["best"]] if len(rows) else rows
            axes.plot(
                [infers.index(value) for value in best.get("strength", [])],
                [trains.index(value) for value in best.get("sigma_train", [])],
                color="#0b3c5d",
                marker="o",
                markersize=5.5,
                linewidth=1.2,
            )
            axes.set_xlim(-0.6, len(infers) - 0.4)
            axes.set_ylim(-0.6, len(trains) - 0.4)
            axes.set_xticks(range(len(infers)), [f"{sigma:g}" for sigma in infers])
            axes.set_yticks(range(len(trains)), [f"{sigma:g}" for sigma in trains])
            axes.grid(color="#e9e9e9", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.tick_params(labelsize=8)
            _bare(axes)
            axes.set_title(name, fontsize=10, loc="left")
        _label_edges(panels, matrices)
        figure.legend(
            handles=[
                Line2D([], [], color="#0b3c5d", marker="o", markersize=5.5, label="best"),
                Patch(color="#bcd7ea", label="may be best"),
            ],
            loc="outside right upper",
            frameon=False,
            fontsize=8.5,
        )
    return figure


def _label_edges(panels: Sequence[Axes], matrices: Sequence[Matrix]) -> None:
    """Label the axes at the left and at the bottom only."""
    for place, axes in enumerate(panels):
        spec = axes.get_subplotspec()
        assert spec is not None
        columns = spec.get_gridspec().ncols
        if place + columns >= len(panels):
            axes.set_xlabel(_sigma_label(matrices[0], "infer"), fontsize=8.5)
        if spec.is_first_col():
            axes.set_ylabel(math_text("σ_train"), fontsize=9)


def draw_units(matrices: Sequence[Matrix], levels: Sequence[float] | None = None) -> Figure:
    """Draw accuracy against the number of units, a row per cell, a column per sigma_infer.

    Args:
        matrices: of one setting, of several sizes.
        levels: sigma_infer to show; ``None``: the lowest, the middle and the highest measured.

    Raises:
        UserError: there is no matrix, or none was measured at these levels.
    """
    _check(matrices)
    common = [sigma for sigma in matrices[0].levels if all(sigma in one.levels for one in matrices)]
    chosen = [sigma for sigma in common if levels is None or any(math.isclose(sigma, one) for one in levels)]
    if not chosen:
        raise UserError(
            "the matrices have no such sigma_infer in common: give levels that all were measured at"
        )
    if levels is None:
        chosen = sorted({chosen[0], chosen[len(chosen) // 2], chosen[-1]})
    cells = list(dict.fromkeys(matrix.key["cell"] for matrix in matrices))
    with matplotlib.rc_context(RC):
        below = f"points: mean over seeds; {_explain_intervals(matrices, 'bars')}"
        title = _title(matrices, "Accuracy and the number of units", ("units", "cell"))
        figure, panels = _panels(
            title,
            matrices,
            (3.3, 2.6),
            below,
            columns=len(chosen),
            number=len(cells) * len(chosen),
            legend=True,
            sharey=True,
        )
        colors = _train_colors(matrices)
        units = sorted({int(matrix.key["units"]) for matrix in matrices})
        ratio = min((b / a for a, b in itertools.pairwise(units)), default=2.0)
        for place, axes in enumerate(panels):
            cell, sigma = cells[place // len(chosen)], chosen[place % len(chosen)]
            own = sorted(
                (one for one in matrices if one.key["cell"] == cell), key=lambda one: int(one.key["units"])
            )
            for order, train in enumerate(colors):
                points = []
                for matrix in own:
                    if train in matrix.sigma_train:
                        at = matrix.sigma_train.index(train), matrix.levels.index(sigma)
                        low, high = matrix.interval()
                        points.append((int(matrix.key["units"]), matrix.mean[at], low[at], high[at]))
                if not points:
                    continue
                x, mean, low, high = (np.array(values, dtype=float) for values in zip(*points, strict=True))
                # Beside one another, so that bars do not hide each other.
                shift = (order - (len(colors) - 1) / 2) * 0.15 / len(colors)
                axes.errorbar(
                    x * ratio**shift,
                    100 * mean,
                    yerr=100 * np.nan_to_num(np.stack([mean - low, high - mean])),
                    color=colors[train],
                    linestyle="--" if train == 0 else "-",
                    marker=_MARKS[order % len(_MARKS)],
                    markersize=4,
                    markeredgecolor="white",
                    markeredgewidth=0.4,
                    linewidth=1.2,
                    elinewidth=0.9,
                )
            _accuracy_axis(axes, own[0].chance)
            axes.set_xscale("log", base=2)
            axes.set_xticks(units, [str(one) for one in units])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_title(math_text(f"{str(cell).upper()}, σ_infer = {sigma:g}"), fontsize=10, loc="left")
            if place >= len(panels) - len(chosen):
                axes.set_xlabel("units", fontsize=9)
            if place % len(chosen) == 0:
                axes.set_ylabel("accuracy (%)", fontsize=9)
        shown = {sigma for matrix in matrices for sigma in matrix.sigma_train}
        _train_legend(figure, {sigma: color for sigma, color in colors.items() if sigma in shown})
    return figure


def _check(matrices: Sequence[Matrix]) -> None:
    if not matrices:
        raise UserError("there is no matrix to draw: the study has no results yet")


def _on_one_grid(matrices: Sequence[Matrix]) -> list[Matrix]:
    """Return the matrices with all levels that any of them has, so that panels compare row by row.

    Raises:
        UserError: there is no matrix.
    """
    _check(matrices)
    train = tuple(sorted({sigma for matrix in matrices for sigma in matrix.sigma_train}))
    infer = tuple(sorted({sigma for matrix in matrices for sigma in matrix.levels}))
    padded = []
    for matrix in matrices:
        draws = np.ones(len(infer), dtype=np.int64)
        rows = [train.index(sigma) for sigma in matrix.sigma_train]
        columns = [infer.index(sigma) for sigma in matrix.levels]
        accuracy = np.full((len(train), len(infer), len(matrix.seeds)), np.nan)
        accuracy[np.ix_(rows, columns)] = matrix.accuracy
        snr = np.full(len(infer), np.nan)
        snr[columns], draws[columns] = matrix.snr_db, matrix.n_draws
        levels: dict[str, Any] = {"sigma_train": train, "levels": infer, "snr_db": snr, "n_draws": draws}
        padded.append(replace(matrix, accuracy=accuracy, **levels))
    return padded
