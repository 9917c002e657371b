"""Debian's chromium, driven by playwright, for tests of pages; skipped where there is none."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

_PATH = Path("/usr/bin/chromium")
_ARGUMENTS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
)
PATIENCE = 90_000
"""Milliseconds that something may take on a busy machine."""


@dataclass
class Watch:
    """What a page must not do.

    Attributes:
        errors: of its scripts, and refused requests.
        foreign: addresses of other hosts that it asked for.
    """

    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def attach(self, page: Any, host: str = "127.0.0.1") -> None:
        """Watch a page."""
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)

        def asked(request: Any) -> None:
            parts = urlsplit(request.url)
            if parts.scheme not in ("data", "blob") and parts.hostname != host:
                self.foreign.append(request.url)

        page.on("request", asked)


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield a browser."""
    if not _PATH.exists():
        pytest.skip(f"no {_PATH}")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(_PATH), args=_ARGUMENTS.split())
        try:
            yield browser
        finally:
            browser.close()


def accessibility_faults(page: Any) -> list[str]:
    """Return what axe-core finds serious or critical on a page."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {json.dumps([node['html'][:200] for node in one['nodes'][:3]])}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
