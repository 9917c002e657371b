"""How time and memory of noisy LSTMs grow with the work: batch, steps, units, layers, networks at once, and threads.

    python benchmarks/growth.py --output docs/figures    # about six minutes on two idle cores
    python benchmarks/growth.py --quick                  # a few small points, under a minute

Measured are forward + backward of noisy layers, and a noise curve of one batch. Beside each time is that of its matrix
products alone, by torch.mm in the same rounds: the bound. Memory is the peak of forward + backward, beside the outputs
of all steps alone. Every number is a line of growth.csv as soon as it is measured: a run that is broken off goes on
where it was. The pictures are growth_step.png, growth_curve.png and growth_memory.png.
"""

import argparse
import csv
import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parent))  # also where this file is not what was started

from measuring import Rounds, Unavailable, Work, describe_machine, measure_peaks, measure_times, peak_of
from recurrence import IMPORTED, Setting, batch_of, caption, input_of, network_of, products

from asr_dni.evaluation import measure_noise_curve
from asr_dni.files import write_atomically
from asr_dni.nn import NoisyLSTM
from asr_dni.nn.stacking import stack_networks
from asr_dni.noise import Noise
from asr_dni.plotting import Axis, Figure, Legend, Line, Panel, Style, Tick
from asr_dni.plotting.with_matplotlib import save

Kind = Literal["train", "curve", "memory"]
NOISY, PRODUCTS, OUTPUTS = "noisy", "products alone", "outputs alone"
LEVELS, DRAWS = (1.0, 2.0), 2
BASE = Setting("train", batch=128, steps=98, inputs=40, units=128)
AXES: dict[str, tuple[int, ...]] = {
    "batch": (1, 8, 32, 128, 512),
    "steps": (12, 25, 49, 98, 196),
    "units": (32, 64, 128, 256, 512, 1024),
    "layers": (1, 2, 3, 4),
    "networks": (1, 2, 4, 8, 16),
}
QUICK_BASE = replace(BASE, batch=16, steps=10, units=32)
QUICK: dict[str, tuple[int, ...]] = {
    "batch": (1, 16, 64),
    "steps": (5, 10, 20),
    "units": (16, 32, 64),
    "layers": (1, 2, 3),
    "networks": (1, 2, 4),
}
LABELS = {
    "batch": "batch",
    "steps": "steps T",
    "units": "units",
    "layers": "layers",
    "networks": "networks K",
}
SHAPE = ("batch", "steps", "inputs", "units", "layers", "networks", "threads")
COLUMNS = ("kind", *SHAPE, "contender", "unit", "median", "low_quartile", "high_quartile", "rounds")
Row = dict[str, str]


# ---------------------------------------------------------------------- pieces of work


def noisy_layers(setting: Setting) -> torch.nn.Module:
    torch.manual_seed(0)
    layers = [
        NoisyLSTM(setting.inputs, setting.units, num_layers=setting.layers) for _ in range(setting.networks)
    ]
    if setting.networks == 1:
        layers[0].noise = Noise(1.0)
        return layers[0]
    population = stack_networks(layers)
    population.noise = tuple(Noise(1.0, seed=k) for k in range(setting.networks))
    return population


def noisy_step(setting: Setting) -> Work:
    """Forward and backward of all layers of all networks on one batch."""
    layers, x = noisy_layers(setting), input_of(setting)

    def work() -> None:
        outputs = layers(x)[0]
        outputs.backward(torch.ones_like(outputs))
        layers.zero_grad(set_to_none=True)

    return work


def noisy_curve(setting: Setting) -> Work:
    """A noise curve of one batch as asr_dni.evaluation measures it, of a single network."""
    network, batch = network_of(setting, dropout=0.0), batch_of(setting)

    def work() -> None:
        measure_noise_curve(network, [batch], LEVELS, DRAWS, Noise())

    return work


def bound(setting: Setting) -> Work:
    """All matrix products, one layer and network after the other; inputs of the first layer need no gradient."""
    first, _ = products(replace(setting, task="forward" if setting.task == "curve" else "train"))
    deeper: list[Work] = []
    if setting.layers > 1:
        task: Literal["forward", "train"] = "forward" if setting.task == "curve" else "train"
        deeper.append(products(replace(setting, task=task, inputs=setting.units))[0])
        if task == "train":
            rows, width = setting.steps * setting.batch, 4 * setting.units
            gates, w_ih = torch.randn(rows, width), torch.randn(width, setting.units)
            d_inputs = torch.empty(rows, setting.units)
            deeper.append(lambda: torch.mm(gates, w_ih, out=d_inputs))
    repetitions = setting.networks * (len(LEVELS) * DRAWS if setting.task == "curve" else 1)

    def work() -> None:
        for _ in range(repetitions):
            first()
            for _ in range(setting.layers - 1):
                for one in deeper:
                    one()

    return work


def peak(setting: Setting, contender: str) -> int:
    """Return how many bytes a step takes; meant for a process of its own."""
    torch.set_num_threads(setting.threads)
    small = replace(setting, batch=2, steps=2)
    return peak_of(
        functools.partial(noisy_step, setting), functools.partial(noisy_step, small), torch.device("cpu")
    )


# ---------------------------------------------------------------------- measuring


def points(base: Setting, axes: dict[str, tuple[int, ...]], threads: Sequence[int]) -> Iterator[Setting]:
    """Yield every setting once: of all kinds, around the base."""
    found = dict[Setting, None]()
    for axis, values in axes.items():
        for value in values:
            at = replace(base, **{axis: value})  # type: ignore[arg-type]
            for count in threads:
                found[replace(at, task="train", threads=count)] = None
                if axis != "networks":
                    found[replace(at, task="curve", threads=count, networks=1)] = None
            found[replace(at, task="memory", threads=max(threads))] = None
    yield from sorted(found, key=lambda setting: setting.task)


def measure(setting: Setting, seconds: float) -> Rounds:
    """Measure one setting: as many rounds, 1 to 30, as take about so many seconds."""
    if setting.task == "memory":
        measured = measure_peaks([NOISY], functools.partial(peak, setting), 1, IMPORTED)
        if NOISY not in measured.values:
            raise Unavailable(measured.missing[NOISY])
        size = 4 * setting.networks * setting.layers * setting.steps * setting.batch * setting.units
        measured.values[OUTPUTS] = [size / 1e6]
        return measured
    torch.set_num_threads(setting.threads)
    works: dict[str, Work] = {
        NOISY: noisy_curve(setting) if setting.task == "curve" else noisy_step(setting),
        PRODUCTS: bound(setting),
    }
    makers: dict[str, Callable[[], Work]] = {
        name: functools.partial(_same, work) for name, work in works.items()
    }
    start = time.perf_counter()
    for work in works.values():
        work()
    rounds = int(seconds / (time.perf_counter() - start))
    return measure_times(makers, min(max(rounds, 1), 30))


def _same(work: Work) -> Work:
    return work


def key(setting: Setting) -> tuple[str, ...]:
    return (setting.task, *(str(getattr(setting, name)) for name in SHAPE))


def rows_of(setting: Setting, measured: Rounds) -> list[Row]:
    named = {name: text for name, text in zip(("kind", *SHAPE), key(setting), strict=True)}
    rows = []
    for contender in measured.values:
        value = measured.spread(contender)
        numbers = dict(zip(("median", "low_quartile", "high_quartile"), map(repr, value), strict=True))
        rows.append(
            named
            | {"contender": contender, "unit": measured.unit}
            | numbers
            | {"rounds": str(measured.count(contender))}
        )
    return rows


def machine() -> dict[str, str]:
    """Return what has to be the same for results to stand in one file."""
    described = describe_machine(torch.device("cpu"))
    return {name: described[name] for name in ("cpu", "cores", "torch")}


def read(path: Path) -> list[Row]:
    """Return the rows that are there already.

    Raises:
        SystemExit: they are those of another machine, or the file is something else.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    told = [line for line in lines if line.startswith("#")]
    expected = [f"# {name}: {value}" for name, value in machine().items()]
    if told != expected:
        raise SystemExit(
            f"{path}: was measured on another machine or with another torch: give another --output"
        )
    reader = csv.DictReader(line for line in lines if not line.startswith("#"))
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise SystemExit(f"{path}: has other columns than {', '.join(COLUMNS)}: give another --output")
    return list(reader)


def write(path: Path, rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.writelines(f"# {name}: {value}\n" for name, value in machine().items())
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


# ---------------------------------------------------------------------- pictures

COLORS = {1: "#d55e00", 2: "#0072b2"}
TITLES: dict[Kind, str] = {
    "train": "Forward + backward of noisy LSTM layers",
    "curve": f"Noise curve of one batch, {len(LEVELS)} levels x {DRAWS} draws",
    "memory": "Peak memory of forward + backward of noisy LSTM layers",
}
STEMS: dict[Kind, str] = {"train": "growth_step", "curve": "growth_curve", "memory": "growth_memory"}


def figure(rows: Sequence[Row], kind: Kind, base: Setting, axes: dict[str, tuple[int, ...]]) -> Figure:
    """Draw one kind over every axis, a line for every contender and number of threads, both axes logarithmic."""
    panels = []
    its = [row for row in rows if row["kind"] == kind]
    drawn = [float(row[name]) for row in its for name in ("low_quartile", "high_quartile")]
    # The same in all panels, whose ticks stand at the first of a row.
    limits = 0.8 * min(drawn), 1.25 * max(drawn)
    for axis, values in axes.items():
        fixed = {name: str(getattr(base, name)) for name in SHAPE if name not in (axis, "threads")}
        here = [row for row in its if all(row[name] == text for name, text in fixed.items())]
        lines = []
        for threads in sorted({int(row["threads"]) for row in here}):
            for contender in (NOISY, PRODUCTS, OUTPUTS):
                chosen = [r for r in here if r["contender"] == contender and int(r["threads"]) == threads]
                chosen = sorted((r for r in chosen if int(r[axis]) in values), key=lambda r: int(r[axis]))
                if len({row[axis] for row in chosen}) < 2:
                    continue
                measured = contender == NOISY
                color = COLORS.get(threads, "#009e73")
                lines.append(
                    Line(
                        [float(row[axis]) for row in chosen],
                        [float(row["median"]) for row in chosen],
                        [float(row["low_quartile"]) for row in chosen],
                        [float(row["high_quartile"]) for row in chosen],
                        label=contender
                        if kind == "memory"
                        else f"{contender}, {threads} thread{'s' * (threads > 1)}",
                        style=Style(color, "circle" if measured else "none", "solid" if measured else "dash"),
                    )
                )
        if lines:
            ticks = tuple(Tick(float(value), str(value)) for value in values)
            unit, label = ("MB", "peak") if kind == "memory" else ("ms", "time")
            panels.append(
                Panel(
                    Axis(LABELS[axis], scale="log", ticks=ticks),
                    Axis(label, unit, "log", limits),
                    tuple(lines),
                )
            )
    shape = (
        f"Where not on an axis: batch {base.batch}, T {base.steps}, {base.inputs} inputs, {base.units} units"
    )
    what = (
        "dashed: the outputs of all steps alone" if kind == "memory" else "dashed: the matrix products alone"
    )
    note = f"{shape}, 1 layer, 1 network. Median, band: quartiles; {what}. {caption(machine())}"
    return Figure(TITLES[kind], tuple(panels), note, columns=3, panel_size=(4.0, 3.2), legend=Legend())


# ---------------------------------------------------------------------- command line


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=STEMS, default=list(STEMS), help="what is measured")
    parser.add_argument("--quick", action="store_true", help="few and small points, to try it out")
    parser.add_argument(
        "--seconds", type=float, default=None, help="for the rounds of a point (0.8; quick: 0.1)"
    )
    parser.add_argument(
        "--threads", type=int, nargs="+", default=None, help="1 and 2, as far as there are cores"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/growth"), help="folder")
    options = parser.parse_args(arguments)
    cores = int(machine()["cores"])
    threads = options.threads or [count for count in (1, 2) if count <= cores]
    base, axes = (QUICK_BASE, QUICK) if options.quick else (BASE, AXES)
    seconds = options.seconds or (0.1 if options.quick else 0.8)
    name = "growth_quick" if options.quick else "growth"
    table = options.output / f"{name}.csv"
    rows = read(table)
    done = {tuple(row[column] for column in ("kind", *SHAPE)) for row in rows}
    wanted = [
        setting
        for setting in points(base, axes, threads)
        if setting.task in options.kinds and key(setting) not in done
    ]
    console, before = Console(stderr=True), torch.get_num_threads()
    try:
        for setting in track(wanted, description="points", console=console, transient=True):
            try:
                rows += rows_of(setting, measure(setting, seconds))
            except Unavailable as reason:
                console.print(f"not measured: {setting.title}: {reason}")
                continue
            write(table, rows)
    finally:
        torch.set_num_threads(before)
    written = [table]
    for kind, stem in STEMS.items():
        if kind in options.kinds and any(row["kind"] == kind for row in rows):
            stem = stem.replace("growth", name)
            written += save(figure(rows, kind, base, axes), options.output / stem, ("png",))
    print("written: " + ", ".join(map(str, written)))
    return written


if __name__ == "__main__":
    main()
