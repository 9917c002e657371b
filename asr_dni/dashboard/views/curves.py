"""The page *curves*."""

from dash import Dash, dcc, html
from dash.development.base_component import Component

from asr_dni.catalogue import Catalogue
from asr_dni.dashboard.components import empty_page
from asr_dni.dashboard.links import State, link_store
from asr_dni.dashboard.view import View


def layout(state: State, catalogue: Catalogue) -> Component:
    """Return the page for what a link says."""
    return html.Div(
        [dcc.Store(id=link_store("curves"), data=state.url), empty_page("Curves", f"Of {catalogue.folder}.")]
    )


def register(app: Dash, catalogue: Catalogue) -> None:
    """Add the page's callbacks."""


VIEW = View("curves", "Curves", layout, register)
