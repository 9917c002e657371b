"""Fill the places of a document that scripts write: what stands between <!-- NAME --> and <!-- /NAME -->."""

import re
from collections.abc import Mapping
from pathlib import Path

from asr_dni.errors import UserError
from asr_dni.files import write_atomically


def fill(document: Path, texts: Mapping[str, str]) -> None:
    """Put each text between the comments of its name.

    Raises:
        UserError: the document has no such place.
    """
    after = document.read_text(encoding="utf-8")
    for name, text in texts.items():
        mark = re.escape(name)
        place = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)
        if not place.search(after):
            raise UserError(
                f"{document}: has no place for {name}: write <!-- {name} --> and <!-- /{name} --> there"
            )
        after = place.sub(lambda found, text=text: f"{found[1]}\n{text.strip()}\n\n{found[2]}", after)
    with write_atomically(document) as temporary:
        temporary.write_text(after, encoding="utf-8")
