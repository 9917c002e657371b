"""The help of a command, made of docstrings: without the markup that these have for the documentation."""

import re
from argparse import Action

from jsonargparse import DefaultHelpFormatter

_MARKUP = re.compile(r":\w+:`~?(?:[\w.]*\.)?(\w+)`|``([^`]*)``")


def plain(text: str) -> str:
    """Return a text with names and code as they are, without quotes and roles.

    >>> plain("see :class:`~asr_dni.noise.Hardware`, as for ``sites``")
    'see Hardware, as for sites'
    """
    return _MARKUP.sub(lambda found: found[1] or found[2], text)


class HelpFormatter(DefaultHelpFormatter):
    """jsonargparse's formatter, without markup."""

    def start_section(self, heading: str | None) -> None:
        """Begin a group of settings; its heading may be a class's first line."""
        super().start_section(heading and plain(heading))

    def _expand_help(self, action: Action) -> str:
        return plain(super()._expand_help(action))
