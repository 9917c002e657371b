"""What a page of the dashboard is."""

from collections.abc import Callable
from dataclasses import dataclass

from dash import Dash
from dash.development.base_component import Component

from asr_dni.catalogue import Catalogue
from asr_dni.dashboard.links import State


@dataclass(frozen=True)
class View:
    """A page.

    The ids of a view's components begin with its name and ``-``. Its figures follow :data:`THEME`, an input of their
    callbacks; what was chosen goes into ``dcc.Store(id=link_store(name))``, see
    :func:`~asr_dni.dashboard.links.link_store`.

    Attributes:
        name: the path of its links.
        title: in the navigation and the browser's title.
        layout: makes the page that shows a state.
        register: adds its callbacks, and routes where it has some; called once.
    """

    name: str
    title: str
    layout: Callable[[State, Catalogue], Component]
    register: Callable[[Dash, Catalogue], None]


THEME = "theme"
"""Id of the ``dcc.Store`` whose data are ``light`` or ``dark``."""
