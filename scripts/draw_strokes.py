"""Draw digits of the test split and the pen strokes that are traced from them: docs/figures/strokes.png.

python scripts/draw_strokes.py [FILE]
"""

import sys
from itertools import pairwise
from pathlib import Path

import torch
from matplotlib.figure import Figure

from asr_dni.data import DigitsData, StrokesData

FILE = Path(__file__).resolve().parent.parent / "docs" / "figures" / "strokes.png"
COLUMNS, ROWS = 10, 2


def main(file: Path) -> None:
    """Draw the first digits: image above, strokes below in the order of their colours, from the black dot on."""
    images, moves = (data.examples()["test"].features for data in (DigitsData(), StrokesData()))
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    axes = figure.subplots(2 * ROWS, COLUMNS)
    for k in range(ROWS * COLUMNS):
        row, column = divmod(k, COLUMNS)
        above, below = axes[2 * row, column], axes[2 * row + 1, column]
        above.imshow(images[k], cmap="gray_r")
        length = int(moves[k, :, 3].argmax()) + 1
        places = torch.cat((torch.zeros(1, 2), moves[k, :length, :2].cumsum(0)))
        stroke, lifted = 0, False
        for step, (begin, end) in enumerate(pairwise(places)):
            color, line = ("0.7", ":") if lifted else (f"C{stroke}", "-")
            below.plot(
                *torch.stack((begin, end)).T,
                line,
                color=color,
                marker="." if not lifted else "",
                markersize=3,
            )
            lifted = bool(moves[k, step, 2]) and not lifted
            stroke += lifted
        below.plot(*places[0], "ko", markersize=4)
        below.invert_yaxis()
        below.set_aspect("equal")
        for axis in (above, below):
            axis.set_axis_off()
    figure.savefig(file, dpi=90)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FILE)
