"""Links between pages and files of the repository, as the site has them; files outside of docs/ are in repository/."""

import os
import posixpath
import re
from collections.abc import Callable
from pathlib import Path

_OUTSIDE = "repository/"
_LINK = re.compile(r"(\]\()([^)\s]+)")
_FENCE = re.compile(r"(^ *(```|~~~).*?^ *\2)", re.MULTILINE | re.DOTALL)


def place_in_site(path: str) -> str:
    """Return where the site has a file of the repository; a README with another name, which is no index."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    folder, name = posixpath.split(path)
    return posixpath.join(_OUTSIDE, folder, "about.md" if name == "README.md" else name)


def _place_in_repository(place: str) -> str:
    if not place.startswith(_OUTSIDE):
        return f"docs/{place}"
    path = place.removeprefix(_OUTSIDE)
    return re.sub(r"(^|/)about\.md$", r"\1README.md", path)


def linked_outside(root: str) -> list[str]:
    """Return the files outside of docs/ that pages link to, and those that these link to in turn."""
    todo = [f"docs/{path.name}" for path in sorted(Path(root, "docs").glob("*.md"))]
    seen = set(todo)
    while todo:
        page = todo.pop()

        def note(target: str, page: str = page) -> str:
            path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
            if path not in seen and os.path.isfile(os.path.join(root, path)):
                seen.add(path)
                if path.endswith(".md"):
                    todo.append(path)
            return target

        _replace(Path(root, page).read_text(encoding="utf-8"), note)
    return sorted(path for path in seen if not path.startswith("docs/"))


def rewrite(markdown: str, place: str, root: str) -> str:
    """Return a page of the site with its links leading to files of the site.

    Args:
        markdown: with links as the repository has them.
        place: of the page, in the site.
        root: folder of the repository.
    """
    folder = posixpath.dirname(_place_in_repository(place))

    def to_site(target: str) -> str:
        path = posixpath.normpath(posixpath.join(folder, target))
        if not os.path.isfile(os.path.join(root, path)):
            return target
        return posixpath.relpath(place_in_site(path), posixpath.dirname(place) or ".")

    return _replace(markdown, to_site)


def _replace(markdown: str, change: Callable[[str], str]) -> str:
    """Change the targets of all relative links outside of code."""

    def link(found: re.Match[str]) -> str:
        path, hash_, anchor = found[2].partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return found[0]
        return found[1] + change(path) + hash_ + anchor

    parts = _FENCE.split(markdown)
    # The expression has two groups: text, fence, its mark, text, ...
    return "".join(
        _LINK.sub(link, part) if k % 3 == 0 else part for k, part in enumerate(parts) if k % 3 != 2
    )
