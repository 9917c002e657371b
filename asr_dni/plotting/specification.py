"""What a figure is made of, as data: what it shows and says, and nothing of how a library draws it."""

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, TypeAlias

from asr_dni.plotting.style import GREY, Dash, Style

Scale: TypeAlias = Literal["linear", "log", "symlog", "category"]
"""``symlog`` is linear near 0 and logarithmic beyond; ``category`` has places 0, 1, ... with names."""


@dataclass(frozen=True)
class Tick:
    """A place on an axis or a colour bar, and what is written there."""

    value: float
    text: str


@dataclass(frozen=True)
class Axis:
    """One axis of a panel.

    Attributes:
        label: what is measured; ``σ_name`` is set with a subscript, here and in all texts of a figure.
        unit: in what; stands behind the label in brackets.
        scale: see :data:`Scale`.
        limits: at its two ends; ``None``: as the data need it.
        ticks: what is written at it; none: as the library chooses.
        categories: the names of places 0, 1, ..., for the scale ``category``, in place of ticks.
        linear_within: up to which absolute value the scale ``symlog`` is linear.
        opposite: ticks along the opposite side (of the horizontal axis: above the panel).
        opposite_label: what these say.

    Raises:
        ValueError: categories without their scale, or the other way round; limits or a number no scale can have.
    """

    label: str = ""
    unit: str = ""
    scale: Scale = "linear"
    limits: tuple[float, float] | None = None
    ticks: tuple[Tick, ...] = ()
    categories: tuple[str, ...] = ()
    linear_within: float = 1.0
    opposite: tuple[Tick, ...] = ()
    opposite_label: str = ""

    def __post_init__(self) -> None:
        if (self.scale == "category") != bool(self.categories):
            raise ValueError(f"an axis of scale {self.scale} has the categories {self.categories}")
        if self.scale == "log" and self.limits is not None and min(self.limits) <= 0:
            raise ValueError(f"a logarithmic axis has the limits {self.limits}")
        if not self.linear_within > 0:
            raise ValueError(f"linear_within is {self.linear_within}: it has to be above 0")

    @property
    def text(self) -> str:
        """Label and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def wrapped(self, width: int) -> str:
        """Return label and unit, with a line of its own for the unit where it is longer than ``width`` characters."""
        if len(self.text) <= width or not self.text.endswith(")"):
            return textwrap.fill(self.text, width)
        label, _, unit = self.text.rpartition(" (")
        return "\n".join([*textwrap.wrap(label, width), *textwrap.wrap(f"({unit}", width)])

    @property
    def all_ticks(self) -> tuple[Tick, ...]:
        """The ticks, or those of the categories."""
        return self.ticks or tuple(Tick(float(place), name) for place, name in enumerate(self.categories))

    @property
    def powers(self) -> tuple[Tick, ...]:
        """For the scale ``symlog``: 0, and the powers of ten times ``linear_within`` to both sides."""
        if self.scale != "symlog":
            return ()
        powers = [self.linear_within * 10**power for power in range(13)]
        return tuple(
            Tick(value, f"{value:g}".replace("-", "−"))
            for value in (*(-one for one in powers[::-1]), 0.0, *powers)
        )

    def placed(self, value: float) -> float:
        """Return where a number of the scale ``symlog`` is on a linear axis, as matplotlib places it.

        That is ``v 10/9`` up to ``linear_within``, in units of it, and ``sign(v) (10/9 + log10 |v|)`` beyond.
        """
        share = value / self.linear_within
        if not math.isfinite(share) or abs(share) <= 1:
            return share * 10 / 9
        return math.copysign(10 / 9 + math.log10(abs(share)), share)

    @property
    def all_limits(self) -> tuple[float, float] | None:
        """The limits, or those that show all categories."""
        if self.limits is None and self.categories:
            return -0.5, len(self.categories) - 0.5
        return self.limits


@dataclass(frozen=True)
class Series:
    """Numbers over places, with intervals: what lines, points and bars have in common.

    Attributes:
        x: places, N.
        y: numbers, N; NaN where there is none.
        low: lower ends of their intervals, N or none; NaN where there is none.
        high: upper ends.
        label: its name in the legend, one for all panels of a figure; "" is not in the legend.
        style: how it looks.
        hover: what a browser shows at each point, N; none: its numbers.

    Raises:
        ValueError: not all are as long.
    """

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    label: str = ""
    style: Style = field(default_factory=Style)
    hover: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("x", "y", "low", "high"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        object.__setattr__(self, "hover", tuple(self.hover))
        lengths = {len(self.x), len(self.y)}
        lengths |= {len(values) for values in (self.low, self.high, self.hover) if values}
        if len(lengths) > 1 or bool(self.low) != bool(self.high):
            sizes = {one.name: len(getattr(self, one.name)) for one in fields(Series) if one.name != "style"}
            raise ValueError(f"the parts of a series are not as long as each other: {sizes}")

    @property
    def has_interval(self) -> bool:
        """Whether any number has an interval."""
        return any(
            math.isfinite(low) and math.isfinite(high) for low, high in zip(self.low, self.high, strict=True)
        )


@dataclass(frozen=True)
class Line(Series):
    """A line through its points, with the intervals as a band."""


@dataclass(frozen=True)
class Points(Series):
    """Points with the intervals as bars.

    Attributes:
        joined: whether a line goes through them.
    """

    joined: bool = False


@dataclass(frozen=True)
class Bars(Series):
    """A bar from 0 to each number, with its interval; several in one panel stand side by side.

    Attributes:
        horizontal: whether they lie, with their places ``x`` on the vertical axis.
    """

    horizontal: bool = False


@dataclass(frozen=True)
class ColorScale:
    """What a heat map's colours stand for; maps of one figure that have the same share their colour bar.

    Attributes:
        stops: colours from the lowest to the highest number, evenly spaced.
        limits: lowest and highest number; what is beyond has the colour of the end.
        label: what the numbers are, with their unit.
        ticks: what is written at the colour bar; none: as the library chooses.
        extend: at which ends the colour bar says that numbers go on beyond.
        bar: whether there is a colour bar.
    """

    stops: tuple[str, ...]
    limits: tuple[float, float]
    label: str = ""
    ticks: tuple[Tick, ...] = ()
    extend: Literal["neither", "min", "max", "both"] = "neither"
    bar: bool = True

    def share(self, value: float) -> float:
        """Return where a number is between the limits: 0 to 1."""
        low, high = self.limits
        return min(max((value - low) / ((high - low) or 1.0), 0.0), 1.0)


@dataclass(frozen=True)
class CellText:
    """What is written in a heat map's cell: a number, and something smaller below it."""

    text: str
    small: str = ""
    bold: bool = False


@dataclass(frozen=True)
class HeatMap:
    """Numbers on a grid as coloured cells, at the places 0, 1, ... of both axes.

    Attributes:
        values: ``(R, C)``, rows by the vertical axis from 0 on; NaN where there is none.
        colors: what the colours stand for.
        text: what is written in the cells, ``(R, C)`` or nothing; where there is no number, a dash is.
        label: in the legend, for a map of one colour.
        hover: what a browser shows at each cell, ``(R, C)``; none: its number.

    Raises:
        ValueError: rows of different lengths, or texts for other cells.
    """

    values: Sequence[Sequence[float]]
    colors: ColorScale
    text: Sequence[Sequence[CellText]] = ()
    label: str = ""
    hover: Sequence[Sequence[str]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(tuple(float(value) for value in row) for row in self.values))
        for name in ("text", "hover"):
            object.__setattr__(self, name, tuple(tuple(row) for row in getattr(self, name)))
        shapes = {tuple(len(row) for row in grid) for grid in (self.values, self.text, self.hover) if grid}
        if len(shapes) != 1 or len(set(*shapes)) != 1:
            raise ValueError(f"the rows of a heat map are of the lengths {sorted(shapes)}")

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return len(self.values), len(self.values[0])

    def room(self, panel_size: tuple[float, float]) -> float:
        """Return how large the texts in its cells can be, 1 where a number of six characters just fits.

        Args:
            panel_size: see :class:`Figure`.
        """
        rows, columns = self.shape
        width, height = (panel_size[0] - 0.7) / columns, (panel_size[1] - 1.2) / rows
        return min(max(min(width / 0.43, height / 0.36), 0.55), 1.3)

    def cells(self) -> Iterator[tuple[int, int, float]]:
        """Yield row, column and number of every cell."""
        for row, values in enumerate(self.values):
            for column, value in enumerate(values):
                yield row, column, value


@dataclass(frozen=True)
class Reference:
    """A line across a panel at one number, such as chance, and what it is.

    Attributes:
        value: the number.
        label: stands beside it.
        axis: the axis the number is on: ``y`` draws a horizontal line.
        dash: of the line.
        color: of line and label.
    """

    value: float
    label: str = ""
    axis: Literal["x", "y"] = "y"
    dash: Dash = "dot"
    color: str = GREY


Element: TypeAlias = Line | Points | Bars | HeatMap | Reference


@dataclass(frozen=True)
class Panel:
    """One pair of axes and what is drawn there, in this order.

    Attributes:
        x: the horizontal axis.
        y: the vertical one.
        elements: what is drawn.
        title: stands above.
        message: stands in place of the axes where there is nothing to draw.
    """

    x: Axis = field(default_factory=Axis)
    y: Axis = field(default_factory=Axis)
    elements: tuple[Element, ...] = ()
    title: str = ""
    message: str = ""


@dataclass(frozen=True)
class Legend:
    """What tells curves apart by the labels of a figure's elements: each once, whatever the number of panels."""

    title: str = ""


@dataclass(frozen=True)
class Figure:
    """A figure: panels side by side and below each other.

    Attributes:
        title: stands above.
        panels: row by row.
        note: small print: the settings that it came from, what intervals are.
        columns: at most so many panels stand side by side.
        panel_size: width and height of a panel with its labels, in inches.
        legend: ``None``: there is none.

    Raises:
        ValueError: there is no panel.
    """

    title: str
    panels: tuple[Panel, ...]
    note: str = ""
    columns: int = 3
    panel_size: tuple[float, float] = (6.6, 4.2)
    legend: Legend | None = None

    def __post_init__(self) -> None:
        if not self.panels:
            raise ValueError("a figure has at least one panel")

    @property
    def grid(self) -> tuple[int, int]:
        """Numbers of rows and columns of panels."""
        columns = min(self.columns, len(self.panels))
        return math.ceil(len(self.panels) / columns), columns

    def neighbour(self, place: int, side: Literal["left", "below"]) -> Panel | None:
        """Return the panel beside that at a place, if there is one with axes."""
        columns = self.grid[1]
        other = place - 1 if side == "left" else place + columns
        if (side == "left" and place % columns == 0) or other >= len(self.panels):
            return None
        return None if self.panels[other].message else self.panels[other]

    def legend_entries(self) -> list[Series | HeatMap]:
        """Return what the legend shows: the first element of every label, in their order; none without a legend."""
        found: dict[str, Series | HeatMap] = {}
        for panel in self.panels if self.legend is not None else ():
            for element in panel.elements:
                if isinstance(element, Series | HeatMap) and element.label:
                    found.setdefault(element.label, element)
        return list(found.values())

    def color_bars(self) -> dict[ColorScale, list[int]]:
        """Return the colour scales that have a bar, and the places of the panels they are for."""
        found: dict[ColorScale, list[int]] = {}
        for place, panel in enumerate(self.panels):
            for element in panel.elements:
                if isinstance(element, HeatMap) and element.colors.bar:
                    found.setdefault(element.colors, []).append(place)
        return found
