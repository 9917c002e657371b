"""What noise costs: a step of the noisy layers against clean torch, and the reference loop, in one run.

    python benchmarks/recurrence.py [--threads 2] [--batch 128] [--steps 98] [--inputs 40] [--units 128]

The contenders take turns; the table gives medians and the spread (quartiles) of the ratio to torch's clean layer.
"""

import argparse
import platform
import time
from collections.abc import Callable
from statistics import median, quantiles

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from asr_dni.nn import NoisyGRU, NoisyLSTM, NoisyRNN, native, use_implementation
from asr_dni.nn.implementation import Implementation
from asr_dni.noise import Noise

CELLS: tuple[tuple[type[nn.LSTM | nn.GRU | nn.RNN], type[NoisyLSTM | NoisyGRU | NoisyRNN]], ...] = (
    (nn.LSTM, NoisyLSTM),
    (nn.GRU, NoisyGRU),
    (nn.RNN, NoisyRNN),
)


def contenders(
    theirs: nn.RNNBase, ours: NoisyLSTM | NoisyGRU | NoisyRNN, x: Tensor, train: bool
) -> dict[str, Callable[[], None]]:
    def step(
        layer: nn.RNNBase, noise: Noise | None = None, implementation: Implementation = "auto"
    ) -> Callable[[], None]:
        def run() -> None:
            if noise is not None:
                assert isinstance(layer, NoisyLSTM | NoisyGRU | NoisyRNN)
                layer.noise = noise
            with use_implementation(implementation), torch.set_grad_enabled(train):
                outputs = layer(x)[0]
                if train:
                    outputs.sum().backward()
                    layer.zero_grad()

        return run

    return {
        "torch, clean": step(theirs),
        "own, clean": step(ours, Noise()),
        "own, noisy": step(ours, Noise(1.0)),
        "own, noisy, separate arrays": step(ours, Noise(1.0, arrays="separate")),
        "reference loop, noisy": step(ours, Noise(1.0), "reference"),
    }


def measure(works: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 2):
        for name, work in works.items():
            if name.startswith("reference") and turn > max(4, rounds // 5):
                continue
            start = time.perf_counter()
            work()
            if turn >= 2:
                times[name].append(1000 * (time.perf_counter() - start))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name, default in (("threads", 2), ("batch", 128), ("steps", 98), ("inputs", 40), ("units", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    x = torch.randn(options.steps, options.batch, options.inputs)
    console = Console()
    console.print(
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {options.threads} threads; "
        f"batch {options.batch}, T {options.steps}, {options.inputs} inputs, {options.units} units; "
        f"kernels: {native.status()}"
    )
    for train in (True, False):
        table = Table(title="forward + backward" if train else "forward, no gradients")
        for column in ("layer", "contender", "ms, median", "ratio to torch clean", "quartiles"):
            table.add_column(column)
        for their_class, our_class in CELLS:
            theirs, ours = (
                their_class(options.inputs, options.units),
                our_class(options.inputs, options.units),
            )
            times = measure(contenders(theirs, ours, x, train), options.rounds)
            base = median(times["torch, clean"])
            for name, values in times.items():
                low, _, high = quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
                ratio = f"{median(values) / base:.2f}"
                spread = f"{low / base:.2f} to {high / base:.2f}"
                table.add_row(their_class.__name__, name, f"{median(values):.1f}", ratio, spread)
        console.print(table)


if __name__ == "__main__":
    main()
