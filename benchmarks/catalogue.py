"""What opening a folder of many runs costs: the first time, and the second, with the index of the first.

    python benchmarks/catalogue.py [FOLDER] [--runs 1000] [--times 5]

Without FOLDER, made-up runs are written to a temporary one, see many_runs.py. Each opening is a process of its own,
whose imports do not count. CPU time is the process's own seconds, which other processes change less than the time on
the clock.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from many_runs import write_runs
from rich.console import Console
from rich.table import Table

from asr_dni.catalogue import Catalogue
from asr_dni.catalogue.index import SETTLED_SECONDS, Index

Seconds = tuple[float, float]
"""Of the processor, and on the clock."""


def open_once(folder: Path, seconds: Any) -> None:
    """Measure what the first view of a folder takes, step by step."""
    taken: dict[str, Seconds] = {}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        cpu, clock = time.process_time(), time.perf_counter()
        result = work()
        taken[step] = time.process_time() - cpu, time.perf_counter() - clock
        return result

    catalogue = timed("open", lambda: Catalogue(folder))
    timed("table of runs", catalogue.runs)
    timed("pooled curves", catalogue.summaries)
    timed("look again", catalogue.refresh)
    seconds.put(taken)


def measure(folder: Path, times: int, first: bool) -> dict[str, Seconds]:
    """Return the median seconds of each step."""
    context = multiprocessing.get_context("fork")
    found: list[dict[str, Seconds]] = []
    for _ in range(times):
        if first:
            Index(folder).path.unlink(missing_ok=True)
        queue = context.Queue()
        process = context.Process(target=open_once, args=(folder, queue))
        process.start()
        found.append(queue.get())
        process.join()
    return {
        step: (median(one[step][0] for one in found), median(one[step][1] for one in found))
        for step in found[0]
    }


def report(folder: Path, times: int) -> None:
    """Print a table of all steps."""
    runs = len(Catalogue(folder).runs())
    table = Table(title=f"{runs:,} runs, median of {times}: seconds of CPU time (on the clock)")
    table.add_column("step")
    first, second = measure(folder, times, first=True), measure(folder, times, first=False)
    for name in ("first time", "second time"):
        table.add_column(name, justify="right")
    for step in first:
        table.add_row(step, *("{:.3f} ({:.3f})".format(*one[step]) for one in (first, second)))
    Console().print(table)


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--times", type=int, default=5)
    chosen = parser.parse_args()
    if chosen.folder is not None:
        report(chosen.folder, chosen.times)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_runs(Path(folder), chosen.runs)
        time.sleep(SETTLED_SECONDS)
        report(Path(folder), chosen.times)


if __name__ == "__main__":
    main()
