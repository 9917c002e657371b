"""Figures in the terminal: any specification as text, lines by plotext, heat maps as coloured cells.

What is returned is for rich, which leaves colours out where the output is no terminal or ``NO_COLOR`` is set. Curves
differ by the marks of their points as well, so that they are told apart without colour.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Group, RenderableType
from rich.style import Style as RichStyle
from rich.table import Table
from rich.text import Text

from asr_dni.plotting.specification import Axis, Bars, Figure, HeatMap, Line, Panel, Points, Reference, Series
from asr_dni.plotting.style import blend, channels, readable_on

LEAST_WIDTH, MOST_WIDTH = 60, 110
"""Columns of a figure."""

_MARKS = {
    "circle": "●",
    "square": "■",
    "triangle": "▲",
    "diamond": "◆",
    "triangle down": "▼",
    "plus": "+",
    "cross": "×",
    "none": "·",
}
_BLACK = "#000000"  # of a curve: the terminal's own colour, whatever its background
_BAND = "░"
_ROWS = 18
_MOST_TICKS = 7
_BAR = "█"


def render(figure: Figure, width: int) -> RenderableType:
    """Return a figure as text, panels below each other.

    Args:
        figure: its specification.
        width: columns of the terminal; at least :data:`LEAST_WIDTH` are taken, at most :data:`MOST_WIDTH`.
    """
    width = min(max(width, LEAST_WIDTH), MOST_WIDTH)
    parts: list[RenderableType] = [Text(figure.title, style="bold")]
    for panel in figure.panels:
        parts += _panel(panel, width)
    entries = figure.legend_entries()
    if entries and figure.legend is not None:
        legend = Text(f"{figure.legend.title}  " if figure.legend.title else "")
        for entry in entries:
            if isinstance(entry, Series):
                legend.append(f"{_MARKS[entry.style.marker]} ", _ink(entry.style.color))
                legend.append(f"{entry.label}   ")
        parts.append(legend)
    if figure.note:
        parts.append(Text(figure.note, style="dim"))
    return Group(*parts)


def _ink(color: str) -> str:
    return "" if color == _BLACK else color


def _panel(panel: Panel, width: int) -> Iterator[RenderableType]:
    if panel.title:
        yield Text(panel.title, style="underline")
    if panel.message:
        yield Text(panel.message, style="dim")
        return
    maps = [element for element in panel.elements if isinstance(element, HeatMap)]
    bars = [element for element in panel.elements if isinstance(element, Bars)]
    for heat in maps[:1]:
        yield _map(heat, panel)
    if bars:
        yield from _bars(bars, panel, width)
    if not maps and not bars:
        yield _plot(panel, width)


def _map(heat: HeatMap, panel: Panel) -> Table:
    """Return a heat map as a table, its highest row first, with what its axes are at the corner."""
    columns, rows = (axis.all_ticks for axis in (panel.x, panel.y))
    names = {round(tick.value): tick.text for tick in columns}
    table = Table(
        box=None,
        pad_edge=False,
        padding=0,
        caption=f"→ {panel.x.text}",
        caption_justify="left",
        show_header=True,
    )
    table.add_column(Text(f"↑ {panel.y.text}", overflow="fold"), justify="right", max_width=24)
    for column in range(heat.shape[1]):
        table.add_column(Text(names.get(column, str(column))), justify="center")
    sides = {round(tick.value): tick.text for tick in rows}
    for row in reversed(range(heat.shape[0])):
        cells = [Text(f"{sides.get(row, str(row))} ")]
        for column, value in enumerate(heat.values[row]):
            text = heat.text[row][column].text if heat.text else f"{value:.3g}"
            if math.isnan(value):
                cells.append(Text(" – "))
                continue
            paper = blend(heat.colors.stops, heat.colors.share(value))
            bold = bool(heat.text and heat.text[row][column].bold)
            cells.append(Text(f" {text} ", RichStyle(color=readable_on(paper), bgcolor=paper, bold=bold)))
        table.add_row(*cells)
    return table


def _bars(bars: Sequence[Bars], panel: Panel, width: int) -> Iterator[Text]:
    """Yield a line per bar: its place, its length, its number with the interval."""
    horizontal = bars[0].horizontal
    places, values = (panel.y, panel.x) if horizontal else (panel.x, panel.y)
    names = {tick.value: tick.text for tick in places.all_ticks}
    limits = values.all_limits
    top = (
        limits[1] if limits else max((abs(y) for one in bars for y in one.y if math.isfinite(y)), default=1.0)
    )
    longest = max((len(name) for name in names.values()), default=6)
    room = max(width - longest - 26, 10)
    yield Text(values.text, style="dim")
    for place in sorted({x for one in bars for x in one.x}):
        for one in bars:
            for index in (index for index, x in enumerate(one.x) if x == place):
                value = one.y[index]
                if not math.isfinite(value):
                    continue
                line = Text(f"{names.get(place, f'{place:g}'):>{longest}} ")
                line.append(_BAR * max(round(room * abs(value) / (top or 1.0)), 0), _ink(one.style.color))
                interval = f" [{one.low[index]:.4g}, {one.high[index]:.4g}]" if one.has_interval else ""
                line.append(f" {value:.4g}{interval}".replace("-", "−"))
                yield line


def _plot(panel: Panel, width: int) -> Text:
    import plotext  # not before it is needed: most commands draw nothing in a terminal

    series = [element for element in panel.elements if isinstance(element, Line | Points)]
    references = [element for element in panel.elements if isinstance(element, Reference)]
    horizontal, vertical = _limits(panel.x, _values(panel, "x")), _limits(panel.y, _values(panel, "y"))
    figure = plotext.figure
    plotext.terminal.limit(False, False)
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(width, _ROWS + 4)
    columns, step = 2 * width, (vertical[1] - vertical[0]) / (2 * _ROWS)

    def draw(x: Sequence[float], y: Sequence[float], mark: str, color: str, joined: bool = False) -> None:
        pixel = None if color == _BLACK else plotext.pixel(channels(color))
        inside = [
            (one, other)
            for one, other in zip(x, y, strict=True)
            if math.isfinite(one) and math.isfinite(other)
        ]
        if inside:
            signal = figure.signal(*map(list, zip(*inside, strict=True)), marker=plotext.marker(mark, pixel))
            figure.draw(signal.lines() if joined else signal)

    for one in series:
        x, y = _placed(panel.x, one.x), _placed(panel.y, one.y)
        low, high = _placed(panel.y, one.low), _placed(panel.y, one.high)
        if one.has_interval:
            over = columns if isinstance(one, Line) else 0
            inside_x, inside_y = _band(x, low, high, over, step)
            draw(inside_x, inside_y, _BAND, one.style.color)
    for reference in references:
        level = reference.axis == "y"
        along = np.linspace(*(horizontal if level else vertical), 3 * width).tolist()
        at = _placed(panel.y if level else panel.x, [reference.value]) * len(along)
        draw(along if level else at, at if level else along, "┄" if level else "┆", _BLACK)
    for one in series:
        x, y = _placed(panel.x, one.x), _placed(panel.y, one.y)
        if isinstance(one, Line) or one.joined:
            draw(x, y, "braille", one.style.color, joined=True)
        if one.style.marker != "none":
            draw(x, y, _MARKS[one.style.marker], one.style.color)
    for name, axis, limits in (("x", panel.x, horizontal), ("y", panel.y, vertical)):
        ruler = figure.ruler(name)
        ruler.lim(*limits)
        places, texts = _ticks(axis, limits, width)
        ruler.ticks(places, texts)
    text = Text.from_ansi(figure.build().string())
    figure.clear()
    lines = [line for line in text.split("\n") if line.plain.strip()]
    told = "; ".join(one.label for one in references if one.label)
    caption = f"↑ {panel.y.text}   → {panel.x.text}" + (f"   ┄ {told}" if told else "")
    return Text("\n").join([*lines, Text(caption, style="dim")])


def _placed(axis: Axis, values: Sequence[float]) -> list[float]:
    """Return where numbers are on an axis that is drawn as a linear one."""
    if axis.scale == "log":
        return [math.log10(value) if value > 0 else math.nan for value in values]
    if axis.scale == "symlog":
        return [axis.placed(value) for value in values]
    return list(values)


def _values(panel: Panel, name: str) -> list[float]:
    found = []
    for one in panel.elements:
        if isinstance(one, Reference):
            found += [one.value] if one.axis == name else []
        elif isinstance(one, Series):
            found += [*one.x] if name == "x" else [*one.y, *one.low, *one.high]
    return found


def _limits(axis: Axis, values: Sequence[float]) -> tuple[float, float]:
    if axis.all_limits is not None:
        low, high = _placed(axis, axis.all_limits)
        return low, high
    there = [value for value in _placed(axis, values) if math.isfinite(value)] or [0.0, 1.0]
    margin = 0.03 * (max(there) - min(there)) or 0.5
    return min(there) - margin, max(there) + margin


def _band(
    x: Sequence[float], low: Sequence[float], high: Sequence[float], columns: int, step: float
) -> tuple[list[float], list[float]]:
    """Return points that fill a band, a column after the other; of ``columns`` 0 at the points themselves alone."""
    known = [place for place in range(len(x)) if math.isfinite(low[place]) and math.isfinite(high[place])]
    if not known:
        return [], []
    places = [x[place] for place in known]
    at = np.linspace(places[0], places[-1], columns) if columns else np.array(places)
    ends = [np.interp(at, places, [side[place] for place in known]) for side in (low, high)]
    points = [
        (float(column), float(value))
        for column, bottom, top in zip(at, *ends, strict=True)
        for value in np.arange(bottom, top + step / 2, step)
    ]
    return [one for one, _ in points], [one for _, one in points]


def _ticks(axis: Axis, limits: tuple[float, float], width: int) -> tuple[list[float], list[str]]:
    ticks = axis.all_ticks or axis.powers
    if ticks:
        chosen = [(_placed(axis, [tick.value])[0], tick.text) for tick in ticks]
    elif axis.scale == "log":
        chosen = [
            (float(power), f"{10.0**power:g}")
            for power in range(math.floor(limits[0]), math.ceil(limits[1]) + 1)
        ]
    else:
        from matplotlib.ticker import MaxNLocator

        values = MaxNLocator(_MOST_TICKS if width < 80 else _MOST_TICKS + 2).tick_values(*limits)
        chosen = [(float(value), f"{round(float(value), 10):g}".replace("-", "−")) for value in values]
    inside = [(value, text) for value, text in chosen if limits[0] <= value <= limits[1]]
    return [value for value, _ in inside], [text for _, text in inside]
