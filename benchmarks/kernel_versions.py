"""What a change of the CPU kernels gains: compiled libraries in turn, in one process, beside torch's clean layer.

    git checkout COMMIT && asr-dni info                   # compiles the kernels of a commit into the cache
    ls -t ~/.cache/asr_dni/recurrence-*.so
    python benchmarks/kernel_versions.py forward before=LIBRARY now
    python benchmarks/kernel_versions.py curve --batch 32 --products bfloat16 before=LIBRARY now

`now` is the library of this source; one of another commit will do where both are given the same structure. What is
compared is the processor's time with one thread, the best of all rounds: on a busy machine the clock says little.
"""

import argparse
import ctypes
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).parent))

import recurrence

from asr_dni.memory import keep_freed_memory
from asr_dni.nn import native

OWN = {"networks": recurrence.POPULATION}


def library(name: str) -> tuple[str, ctypes.CDLL | None]:
    """Return a library that was named on the command line: ``NAME=PATH``, or ``now``."""
    label, _, path = name.partition("=")
    if path:
        return label, ctypes.CDLL(str(Path(path).expanduser()))
    if name != "now":
        raise argparse.ArgumentTypeError(f"give NAME=LIBRARY or now, not {name}")
    return label, native.library()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=["forward", "train", "curve", "networks"])
    parser.add_argument("libraries", nargs="+", type=library, metavar="NAME=LIBRARY")
    parser.add_argument("--cell", choices=recurrence.EVERY_CELL, default="lstm")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--products", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    setting = recurrence.Setting(options.task, options.cell, batch=options.batch, threads=1)
    if options.task == "networks":
        setting = replace(setting, **recurrence.POPULATION_SHAPE)
    makers = recurrence.makers(replace(setting, products=options.products))
    own = makers[OWN.get(options.task, recurrence.OWN)]()
    works: dict[str, tuple[ctypes.CDLL | None, Callable[[], None]]] = {
        recurrence.CLEAN: (None, makers[recurrence.CLEAN]()),
        **{label: (its, own) for label, its in options.libraries},
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    gc.disable()
    for turn in range(options.rounds + 1):
        for name, (its, work) in works.items():
            if its is not None:
                native.library = lambda its=its: its
            start = time.process_time()
            work()
            if turn:
                times[name].append(1000 * (time.process_time() - start))
        gc.collect()
    print(f"{setting.title}, products {options.products}")
    clean = times[recurrence.CLEAN]
    for name, its_times in times.items():
        ratios = [mine / its for mine, its in zip(its_times, clean, strict=True)]
        best = min(its_times)
        of_clean = f"{best / min(clean):.3f} of {recurrence.CLEAN}"
        print(f"{name}: {best:.2f} ms, {of_clean}; median of ratios {median(ratios):.3f}")


if __name__ == "__main__":
    main()
