"""How long the dashboard's first view of many runs takes, in a browser.

    python benchmarks/dashboard.py [FOLDER] [--runs 1000]

Serves a folder of runs (made up where none is given), opens the page of curves in chromium, and tells the seconds from
asking for the page until its curves are drawn: the first time, when everything is read, and again in a new browser.
"""

import argparse
import tempfile
import time
from pathlib import Path

from many_runs import write_runs
from playwright.sync_api import sync_playwright

from asr_dni.dashboard.server import Server

_DRAWN = "() => document.querySelectorAll('#curves-graph .scatterlayer .trace').length > 1"


def first_view(url: str) -> float:
    """Return the seconds until curves are drawn, in a browser that knows nothing of the page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--headless=new", "--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        started = time.perf_counter()
        page.goto(url)
        page.wait_for_function(_DRAWN, timeout=300_000)
        seconds = time.perf_counter() - started
        browser.close()
    return seconds


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--runs", type=int, default=1000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        if chosen.folder is None:
            write_runs(folder, chosen.runs)
        started = time.perf_counter()
        server = Server(folder, port=0)
        print(f"reading the folder: {time.perf_counter() - started:.2f} s")
        with server.serving() as url:
            for which in ("first view", "again", "once more"):
                print(f"{which}: {first_view(url):.2f} s")


if __name__ == "__main__":
    main()
