"""What a page shows, as a link that shows it again."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

FIRST_VIEW = "curves"


@dataclass(frozen=True)
class State:
    """A view and what was chosen there.

    Attributes:
        view: its name, the path of the link.
        values: what was chosen, by name; one name may have several. What is as at first is left out.

    Example:
        >>> state = State("curves", {"run": ("lstm/0", "lstm/1"), "axis": ("adc.bits",)})
        >>> state.url
        '/curves?run=lstm/0&run=lstm/1&axis=adc.bits'
        >>> State.parse(state.url) == state
        True
    """

    view: str = FIRST_VIEW
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return what a link shows; of a whole address only its path and its query count."""
        parts = urlsplit(url)
        values: dict[str, tuple[str, ...]] = {}
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            values[name] = (*values.get(name, ()), value)
        return cls(unquote(parts.path).strip("/") or FIRST_VIEW, values)

    @property
    def url(self) -> str:
        """The link, from its path on."""
        pairs = [(name, value) for name, values in self.values.items() for value in values]
        query = urlencode(pairs, safe="/:,", quote_via=quote)
        return f"/{quote(self.view)}{'?' if query else ''}{query}"

    @property
    def address(self) -> tuple[str, str]:
        """Path and query of the link, as ``dcc.Location`` has them."""
        path, _, query = self.url.partition("?")
        return path, f"?{query}" if query else ""

    def all(self, name: str) -> tuple[str, ...]:
        """Return everything that was chosen for a name; empty where nothing was."""
        return self.values.get(name, ())

    def one(self, name: str, default: str = "") -> str:
        """Return what was chosen for a name, or the default."""
        return self.all(name)[0] if self.all(name) else default

    def number(self, name: str, default: float) -> float:
        """Return the number that was chosen for a name; the default where there is none or it is not one."""
        try:
            value = float(self.one(name))
        except ValueError:
            return default
        return value if abs(value) < float("inf") else default

    def choosing(self, **choices: Any) -> "State":
        """Return this with other choices: a text or number, several, or ``None`` and ``()`` for what is as at first."""
        values = dict(self.values)
        for name, choice in choices.items():
            several = isinstance(choice, Iterable) and not isinstance(choice, str)
            texts = tuple(map(_text, choice)) if several else (() if choice is None else (_text(choice),))
            values.pop(name, None)
            if texts:
                values[name] = texts
        return State(self.view, values)


def _text(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def without_theme(state: State) -> tuple[State, str | None]:
    """Return a state without its theme, and the theme, which belongs to all pages: ``light``, ``dark`` or ``None``."""
    theme = state.one("theme")
    return state.choosing(theme=None), theme if theme in ("light", "dark") else None


def link_store(view: Any) -> dict[str, Any]:
    """Return the id of a view's ``dcc.Store`` that holds its present link; the address bar shows what is in it.

    A view has one in its layout, and writes ``State.url`` into it whenever something was chosen.
    """
    return {"type": "link", "view": view}
