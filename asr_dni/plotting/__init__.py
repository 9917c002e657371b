"""Pictures: a figure is specified once, as data, and rendered by matplotlib (files) or by plotly (browser, W&B).

This package knows nothing of networks, curves or studies, and neither library is imported before something is rendered:
:mod:`~asr_dni.plotting.specification` says what a figure is made of, :mod:`~asr_dni.plotting.with_matplotlib` and
:mod:`~asr_dni.plotting.with_plotly` render any of them.
"""

from asr_dni.plotting.specification import (
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
    Tick,
)
from asr_dni.plotting.style import Style, curve_style

__all__ = [
    "Axis",
    "Bars",
    "CellText",
    "ColorScale",
    "Figure",
    "HeatMap",
    "Legend",
    "Line",
    "Panel",
    "Points",
    "Reference",
    "Style",
    "Tick",
    "curve_style",
]
