"""What all pages have: notices, and what stands where there is nothing to show."""

from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component


def aria(**attributes: str) -> dict[str, Any]:
    """Return attributes for those who do not see the page: ``aria(label="x")`` is ``aria-label``."""
    return {f"aria-{name}": value for name, value in attributes.items()}


def notice(text: str, title: str = "") -> Component:
    """Return a line that says what went wrong, which can be closed."""
    alert: Component = dmc.Alert(
        text, title=title or None, color="red", withCloseButton=True, className="notice"
    )
    return alert


def empty_page(title: str, *lines: str | Component, commands: Sequence[str] = ()) -> Component:
    """Return what stands where there is nothing to show: what is missing, and what to do.

    Args:
        title: what is missing.
        lines: what to do.
        commands: of the shell, which do it.
    """
    return html.Div(
        [
            html.Div(className="empty-picture", **aria(hidden="true")),
            html.H1(title, className="empty-title"),
            *(html.P(line, className="empty-line") for line in lines),
            *(html.Pre(html.Code(command), className="command", tabIndex=0) for command in commands),
        ],
        className="empty",
    )
