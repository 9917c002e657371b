"""Measure pieces of work against each other in one run: rounds in which they take turns, medians and quartiles."""

import ctypes
import gc
import math
import multiprocessing
import os
import platform
import random
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

import torch

Work = Callable[[], object]
"""Does once what is measured."""


class Unavailable(Exception):
    """Raised by who should make a piece of work and cannot; the message says why, in a line."""


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        if not values:
            raise ValueError("nothing was measured")
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, middle, high = quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high)

    def text(self, digits: int = 2) -> str:
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclass
class Rounds:
    """What was measured, by contender and round.

    Attributes:
        unit: of the values.
        values: per contender one value a round; NaN in rounds that a slow contender sat out.
        missing: contenders that could not run, and why.
    """

    unit: str
    values: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def spread(self, contender: str) -> Spread:
        return Spread.of([value for value in self.values[contender] if not math.isnan(value)])

    def ratio(self, contender: str, against: str) -> Spread:
        """Of the two values of each round, so that drift of the machine is in both."""
        pairs = zip(self.values[contender], self.values[against], strict=True)
        return Spread.of([mine / its for mine, its in pairs if not math.isnan(mine / its)])

    def count(self, contender: str) -> int:
        return sum(not math.isnan(value) for value in self.values[contender])


def measure_times(
    makers: Mapping[str, Callable[[], Work]],
    rounds: int,
    *,
    slow: Sequence[str] = (),
    base: str | None = None,
    synchronise: Callable[[], None] = lambda: None,
) -> Rounds:
    """Time works in milliseconds of the wall clock.

    In every round each contender runs once, in an order drawn anew; the garbage collector stands still meanwhile.

    Args:
        makers: make the works, before the first round; one that raises :class:`Unavailable` is noted as missing.
        rounds: that are kept, after two in which everything gets warm.
        slow: contenders that take part in every fourth round only; three times at least.
        base: runs in every round before all others.
        synchronise: waits until the device has done what it was given.
    """
    measured = Rounds("ms")
    works: dict[str, Work] = {}
    for name, make in makers.items():
        try:
            works[name] = make()
            works[name]()
        except Unavailable as reason:
            measured.missing[name] = str(reason)
            works.pop(name, None)
    measured.values = {name: [] for name in works}
    order, shuffle = list(works), random.Random(0)
    every = max(1, min(4, rounds // 3))
    for turn in range(-1, rounds):
        shuffle.shuffle(order)
        if base in works:
            order.sort(key=lambda name: name != base)
        gc.collect()
        gc.disable()
        try:
            for name in order:
                if name in slow and turn % every:
                    if turn >= 0:
                        measured.values[name].append(math.nan)
                    continue
                synchronise()
                start = time.perf_counter()
                works[name]()
                synchronise()
                if turn >= 0:
                    measured.values[name].append(1000 * (time.perf_counter() - start))
        finally:
            gc.enable()
    return measured


def measure_peaks(
    names: Sequence[str], peak: Callable[[str], int], rounds: int, preload: Sequence[str] = ("torch",)
) -> Rounds:
    """Measure the memory that works need beyond what was there before, in MB, each in processes of its own.

    Args:
        names: of the contenders.
        peak: calls :func:`peak_of` for a contender; is pickled.
        rounds: processes per contender.
        preload: modules that are imported once, in the process that all others are forked from.
    """
    measured = Rounds("MB", {name: [] for name in names})
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    for _ in range(rounds):
        for name in list(measured.values):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_send_peak, args=(sender, peak, name))
            process.start()
            sender.close()
            try:
                peak_or_reason = receiver.recv()
            except EOFError:
                peak_or_reason = "its process ended early"
            process.join()
            if isinstance(peak_or_reason, str):
                measured.missing[name] = peak_or_reason
                del measured.values[name]
            else:
                measured.values[name].append(peak_or_reason / 1e6)
    return measured


def _send_peak(sender: Connection, peak: Callable[[str], int], name: str) -> None:
    try:
        sender.send(peak(name))
    except Unavailable as reason:
        sender.send(str(reason))


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise Unavailable(f"this system does not tell {name}")


def peak_of(make: Callable[[], Work], make_small: Callable[[], Work], device: torch.device) -> int:
    """Return by how many bytes running a work takes the process's memory beyond what it held before.

    On the CPU that is resident memory: what the allocators of torch, of oneDNN and of C code took alike. The layers
    and their inputs are there before, and so is everything that a small work of the same kind loads. On a GPU it is
    what torch's allocator gave out.

    Args:
        make: makes the work that is measured.
        make_small: makes one that takes hardly any memory.
        device: where they run.
    """
    try:
        libc = ctypes.CDLL(None)
        # M_MMAP_THRESHOLD: arrays are given back when freed, whatever asr_dni.memory has set.
        libc.mallopt(-3, 65536)
    except AttributeError:  # another C library than GNU's
        libc = None
    small = make_small()
    small()
    small()
    work = make()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        for _ in range(3):
            work()
        return torch.cuda.max_memory_allocated(device) - before
    gc.collect()
    if libc is not None:
        libc.malloc_trim(0)
    try:
        before = _memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what there is now
        for _ in range(3):
            work()
        return _memory("VmHWM") - before
    except OSError:  # no such system, or not allowed: the peak since the process began
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(3):
            work()
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return (after - before) * (1 if sys.platform == "darwin" else 1024)


def cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def describe_machine(device: torch.device) -> dict[str, str]:
    """Return what results depend on, by name."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
    machine = {
        "cpu": f"{cpu_model()}, {torch.backends.cpu.get_cpu_capability()}",
        "cores": str(cores),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load before": f"{load:.1f}",
    }
    if device.type == "cuda":
        machine["gpu"] = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
        machine["tf32"] = (
            f"matmul {torch.backends.cuda.matmul.allow_tf32}, cuDNN {torch.backends.cudnn.allow_tf32}"
        )
    return machine
