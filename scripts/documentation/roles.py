"""Docstrings say ``:class:`Name```: on the site that is a link where the name is documented, and code elsewhere."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc|obj):`(~?)([^`]+)`")


class Roles(griffe.Extension):
    """Turns the roles in docstrings into references."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object when it has been read."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(lambda role: _reference(role, obj), obj.docstring.value)


def _reference(role: re.Match[str], obj: griffe.Object) -> str:
    short, name = role[1], role[2]
    head, _, rest = name.partition(".")
    try:
        path = name if head == "asr_dni" else ".".join(filter(None, (obj.resolve(head), rest)))
    except griffe.NameResolutionError:
        path = name
    text = name.rpartition(".")[2] if short else name
    return f'<autoref identifier="{path}" optional><code>{text}</code></autoref>'
