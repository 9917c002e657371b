"""Pictures of the dashboard for docs/dashboard.md: pages of a folder of runs and studies, taken in chromium.

    python scripts/screenshots.py RUNS_DIR [--output docs/figures] [PAGE=NAME ...]

A PAGE is a link of the dashboard, such as "/curves?show=difference"; its picture is dashboard_NAME.png.
"""

import argparse
import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from asr_dni.dashboard.server import Server

PAGES = {"/curves?theme=light": "curves", "/matrix?theme=dark": "matrix"}
_FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
_FINISHED = "() => document.querySelector('.js-plotly-plot .trace, .js-plotly-plot .heatmaplayer image')"


def take(folder: Path, pages: dict[str, str], output: Path) -> list[Path]:
    """Take the pictures, 1280 pixels wide and as high as a screen; with a palette, which makes them small.

    Returns:
        Their paths.
    """
    output.mkdir(parents=True, exist_ok=True)
    paths = []
    with Server(folder, port=0).serving() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=_FLAGS)
        for link, name in pages.items():
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(url.rstrip("/") + link)
            page.wait_for_function(_FINISHED, timeout=120_000)
            page.wait_for_timeout(1500)  # plotly moves what it draws to its place
            picture = Image.open(io.BytesIO(page.screenshot()))
            page.close()
            path = output / f"dashboard_{name}.png"
            picture.convert("RGB").quantize(255, dither=Image.Dither.NONE).save(path, optimize=True)
            paths.append(path)
        browser.close()
    return paths


def main() -> None:
    """Take the pictures that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path, metavar="RUNS_DIR")
    parser.add_argument("pages", nargs="*", metavar="PAGE=NAME")
    parser.add_argument("--output", type=Path, default=Path("docs/figures"))
    chosen = parser.parse_args()
    pages = dict(one.rsplit("=", 1) for one in chosen.pages) or PAGES
    for path in take(chosen.folder, pages, chosen.output):
        print(f"{path}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
