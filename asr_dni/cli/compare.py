"""``asr-dni compare``: the noise curves of several runs in one figure and one table."""

from collections.abc import Sequence
from pathlib import Path

from asr_dni.cli.functions import check_folder, run_function
from asr_dni.cli.plots import Plot, print_figures
from asr_dni.terminal import make_console


def compare(
    runs: list[Path],
    output: Path = Path("runs/comparison"),
    title: str = "Accuracy under computation noise",
    plot: Plot = "auto",
) -> None:
    """Overlay noise curves; runs that differ only in their seed are pooled, with intervals over seeds.

    Args:
        runs: folders that are searched for noise_curve.csv, or such files; what noise-curve wrote is compared where
            its folder is named itself.
        output: folder for noise_curves.png, .svg, .csv and .md.
        title: stands above figure and table.
        plot: whether the figure is drawn in the terminal as well; auto where the output is one.
    """
    from asr_dni.catalogue.compare import compare_curves
    from asr_dni.evaluation.figures.noise_curves import noise_curves_figure

    check_folder(output)
    comparison = compare_curves(runs, output, title=title)
    console = make_console()
    if plot != "never":
        print_figures(console, [noise_curves_figure(comparison.summaries, title)], plot)
    console.print(comparison.table)
    for fault in comparison.damaged.values():
        console.print(f"left out: {fault}", soft_wrap=True)
    for path in comparison.left_out:
        console.print(f"left out {path}: the same weights were evaluated again later", soft_wrap=True)
    console.print("written: " + ", ".join(map(str, comparison.files)), soft_wrap=True)


def run(arguments: Sequence[str]) -> None:
    """Run ``asr-dni compare``."""
    runs = {
        "type": Path,
        "nargs": "+",
        "help": "folders that are searched for noise_curve.csv, or such files",
    }
    run_function(compare, "compare", arguments, runs=runs)
