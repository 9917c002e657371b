"""A real browser for tests of pages: Debian's chromium, and what a page did that it should not."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]

needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}")


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield a browser of playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """A page of one server, opened as a user does, and everything it did that it should not.

    Args:
        browser: see :func:`chromium`.
        url: of the server.
        **options: of playwright's ``new_page``, such as ``color_scheme`` or ``viewport``.
    """

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.url = url.rstrip("/")
        self.page = browser.new_page(
            **{"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"} | options
        )
        self.page.set_default_timeout(60_000)
        self.faults: list[str] = []
        self.page.on("console", self._listen)
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("request", self._watch)

    def _listen(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text}")

    def _watch(self, request: Any) -> None:
        if not request.url.startswith((f"{self.url}/", "data:", "blob:")):
            self.faults.append(f"request to {request.url}")

    def open(self, path: str) -> Any:
        """Open a path of the server, and return playwright's page."""
        self.page.goto(self.url + path)
        self.page.wait_for_selector("#page > *")
        return self.page

    def wait(self, condition: str, argument: Any = None) -> None:
        """Wait until an expression of the page is true."""
        self.page.wait_for_function(condition, arg=argument)

    def violations(self) -> list[str]:
        """Return what axe-core finds that is serious or critical."""
        axe = pytest.importorskip("axe_playwright_python.sync_playwright")
        found = axe.Axe().run(self.page).response["violations"]
        return [
            f"{one['id']}: {node['html'][:160]}"
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]
