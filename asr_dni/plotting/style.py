"""Colours, markers and lines of all pictures, named as no library names them: light paper, for any colour vision."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Marker: TypeAlias = Literal[
    "circle", "square", "triangle", "diamond", "triangle down", "plus", "cross", "none"
]
Dash: TypeAlias = Literal["solid", "dash", "dot", "dashdot", "none"]

PAPER = "#ffffff"
INK = "#222222"
GREY = "#6b6b6b"
"""Of what stands beside the data: reference lines, SNR, small print."""

GRID = "#dddddd"
FAINT_GRID = "#eeeeee"
FRAME = "#9a9a9a"
NO_VALUE = "#f2f2f2"
"""Of a heat map's cells without a number."""

BAND_OPACITY = 0.17

# Okabe & Ito's palette, which readers with any colour vision can tell apart; its yellow is too pale on white.
_CURVES = ("#000000", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS: tuple[Marker, ...] = ("circle", "square", "triangle", "diamond", "triangle down", "plus", "cross")
_DASHES: tuple[Dash, ...] = ("solid", "dash", "dot", "dashdot")

# Dark to light in even steps of lightness: viridis and plasma (N. Smith and S. van der Walt, CC0).
VIRIDIS = (
    *("#440154", "#481769", "#472a7a", "#433d84", "#3d4e8a", "#355e8d"),
    *("#2e6d8e", "#297b8e", "#23898e", "#1f978b", "#21a585", "#2eb37c"),
    *("#46c06f", "#65cb5e", "#89d548", "#b0dd2f", "#d8e219", "#fde725"),
)
"""Of quantities."""

_PLASMA = (
    *("#0d0887", "#3e049c", "#6300a7", "#8606a6", "#a62098", "#c03a83"),
    *("#d5546e", "#e76f5a", "#f68d45", "#fdae32", "#fcd225", "#f0f921"),
)

RED_BLUE = (
    *("#67001f", "#b2182b", "#d6604d", "#f4a582", "#fddbc7", "#f7f7f7"),
    *("#d1e5f0", "#92c5de", "#4393c3", "#2166ac", "#053061"),
)
"""Of differences: red below, blue above, white in the middle (C. Brewer's RdBu, which any colour vision can read)."""


@dataclass(frozen=True)
class Style:
    """How a curve, its points or its bars look.

    Attributes:
        color: ``#rrggbb``.
        marker: at every point.
        dash: of the line.
        width: of the line, in points.
        size: of the markers, in points.
    """

    color: str = _CURVES[0]
    marker: Marker = "circle"
    dash: Dash = "solid"
    width: float = 1.8
    size: float = 5.0


@dataclass(frozen=True)
class Theme:
    """The page that a figure is on, light or dark; a specification's colours are those on light paper.

    Attributes:
        paper: behind everything.
        ink: of texts.
        grey: of what stands beside the data.
        grid: of lines across a panel.
        faint_grid: of those that matter less.
        least_contrast: that lines have with the paper (WCAG's ratio): what has less is mixed with ink.
    """

    paper: str = PAPER
    ink: str = INK
    grey: str = GREY
    grid: str = GRID
    faint_grid: str = FAINT_GRID
    least_contrast: float = 1.0

    def color(self, color: str) -> str:
        """Return a specification's colour as it is on this page: greys are the page's own, others are seen on it."""
        own = {
            _CURVES[0]: self.ink,
            INK: self.ink,
            GREY: self.grey,
            GRID: self.grid,
            FAINT_GRID: self.faint_grid,
            PAPER: self.paper,
        }
        if self == LIGHT:
            return color
        if color in own:
            return own[color]
        for share in range(21):
            mixed = blend((color, self.ink), share / 20)
            if contrast(mixed, self.paper) >= self.least_contrast:
                return mixed
        return self.ink


LIGHT = Theme()
DARK = Theme("#1b1f29", "#e6e9f0", "#a3adbf", "#343b4a", "#282e3a", 3.6)


def curve_style(index: int) -> Style:
    """Return the style of a curve by its place in a figure: 28 differ, by marker and dash also in grey."""
    return Style(
        _CURVES[index % len(_CURVES)],
        MARKERS[index % len(MARKERS)],
        _DASHES[index // len(_CURVES) % len(_DASHES)],
    )


def ordered_colors(number: int) -> list[str]:
    """Return colours for levels that grow, from dark to light."""
    if number == 1:
        return [blend(_PLASMA, 0.3)]
    return [blend(_PLASMA, 0.08 + 0.72 * place / (number - 1)) for place in range(number)]


def channels(color: str) -> tuple[int, int, int]:
    """Return red, green and blue of ``#rrggbb``, 0 to 255."""
    red, green, blue = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    return red, green, blue


def blend(stops: Sequence[str], place: float) -> str:
    """Return the colour at ``place``, 0 to 1, of a scale whose stops are evenly spaced."""
    at = min(max(place, 0.0), 1.0) * (len(stops) - 1)
    first = min(int(at), len(stops) - 2)
    pairs = zip(channels(stops[first]), channels(stops[first + 1]), strict=True)
    return "#" + "".join(f"{round(low + (at - first) * (high - low)):02x}" for low, high in pairs)


def luminance(color: str) -> float:
    """Return a colour's relative luminance, 0 (black) to 1 (white), as WCAG 2 has it."""
    shares = [channel / 255 for channel in channels(color)]
    linear = [share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """Return the ratio of two colours' luminances, 1 to 21, as WCAG 2 has it."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def readable_on(color: str) -> str:
    """Return black or white, whichever reads better on a colour."""
    return "#000000" if luminance(color) > 0.18 else "#ffffff"
