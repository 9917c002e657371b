"""The pages, in the order of the navigation. A page is a module with a ``VIEW``, and a line here."""

from asr_dni.dashboard.view import View
from asr_dni.dashboard.views import curves, live, matrix, run

VIEWS: tuple[View, ...] = (curves.VIEW, matrix.VIEW, run.VIEW, live.VIEW)
