"""Pictures of a study: the matrix, its curves, the best training noise, differences and the number of units.

They are specifications (:mod:`asr_dni.plotting`), rendered as files by matplotlib and on the report's page by plotly.
"""

from asr_dni.study.figures.curves import curves_figure, row_figure, units_figure
from asr_dni.study.figures.maps import best_figure, differences_figure, matrices_figure
from asr_dni.study.figures.transfer import transfer_figure
from asr_dni.study.figures.whole_study import FIGURES, grouped, named_transfers, study_figures

__all__ = [
    "FIGURES",
    "best_figure",
    "curves_figure",
    "differences_figure",
    "grouped",
    "matrices_figure",
    "named_transfers",
    "row_figure",
    "study_figures",
    "transfer_figure",
    "units_figure",
]
