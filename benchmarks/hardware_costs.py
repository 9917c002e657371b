"""What each kind of hardware costs in a recurrent layer on the CPU, as a ratio to the layer's own exact arithmetic.

    python benchmarks/hardware_costs.py                # a table (Markdown) for the LSTM, about two minutes
    python benchmarks/hardware_costs.py --cell gru --batch 32 --rounds 30

Forward and backward of one layer on one thread. All cases take turns in rounds; what is told is the processor's time of
each one's best round, which other processes on the machine hardly change.
"""

import argparse
import functools
import time
from collections.abc import Callable

import torch
from torch.nn.utils.rnn import pack_padded_sequence

from asr_dni.nn import CELLS, NoisyRecurrent, calibrate, use_implementation
from asr_dni.nn.implementation import Implementation
from asr_dni.noise import (
    Flicker,
    Gaussian,
    Hardware,
    IRDrop,
    Laplace,
    Multiplicative,
    ReadNoise,
    Realisation,
    UniformConverter,
)

STEPS, FEATURES, UNITS = 98, 40, 128
DAC, ADC = UniformConverter(8, 1.0, "absolute"), UniformConverter(8, 8.0, "absolute")
ALL = {"output": Gaussian(1.0), "adc": ADC, "dac": DAC}
HARDWARE: dict[str, Hardware] = {
    "exact": Hardware(),
    "Gaussian": Hardware(Gaussian(1.0)),
    "ADC, 8 bits": Hardware(adc=ADC),
    "DAC, 8 bits": Hardware(dac=DAC),
    "Gaussian, ADC and DAC": Hardware(**ALL),
    "the same, W_ih and W_hh on arrays of their own": Hardware(**ALL, arrays="separate"),
    "the same, arrays of 64 columns": Hardware(**ALL, tile=64),
    "multiplicative": Hardware(Multiplicative(0.1)),
    "Laplace": Hardware(Laplace(1.0)),
    "1/f": Hardware(Flicker(1.0)),
    "read noise that follows the inputs": Hardware(ReadNoise(0.01)),
    "IR drop": Hardware(IRDrop(1.0)),
}
LOOP = "Gaussian, ADC and DAC, by the plain loop"
PACKED = "Gaussian, packed sequences"
PROJECTED = "Gaussian, proj_size 64"

Work = Callable[[], None]


def work(
    cell: str,
    batch: int,
    hardware: Hardware,
    implementation: Implementation = "auto",
    packed: bool = False,
    projection: int = 0,
) -> Work:
    """Return one pass forward and back of a layer."""
    torch.manual_seed(0)
    layer = NoisyRecurrent(cell, FEATURES, UNITS, proj_size=projection)
    x = torch.randn(STEPS, batch, FEATURES)
    calibrate(layer, [x[:, :4]])
    lengths = torch.arange(batch) % (STEPS // 2) + STEPS // 2
    given = pack_padded_sequence(x, lengths, enforce_sorted=False) if packed else x

    def run() -> None:
        with use_implementation(implementation), layer.under(hardware, Realisation(draw=0)):
            outputs, _ = layer(given)
            (outputs if isinstance(outputs, torch.Tensor) else outputs.data).sum().backward()
        layer.zero_grad(set_to_none=True)

    return run


def works(cell: str, batch: int) -> dict[str, Work]:
    """Return all cases by their names."""
    make = functools.partial(work, cell, batch)
    cases = {name: make(hardware) for name, hardware in HARDWARE.items()}
    cases[PACKED] = make(HARDWARE["Gaussian"], packed=True)
    if CELLS[cell].projects:
        cases[PROJECTED] = make(HARDWARE["Gaussian"], projection=UNITS // 2)
    cases[LOOP] = make(HARDWARE["Gaussian, ADC and DAC"], "reference")
    return cases


def measure(cases: dict[str, Work], rounds: int) -> dict[str, float]:
    """Return seconds of the processor, of each case's best round."""
    best = dict.fromkeys(cases, float("inf"))
    for run in cases.values():
        run()
    for _ in range(rounds):
        for name, run in cases.items():
            before = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - before)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cell", choices=CELLS, default="lstm")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    best = measure(works(options.cell, options.batch), options.rounds)
    print(
        f"| {options.cell}, batch {options.batch}, T {STEPS}, {UNITS} units | ms | to exact |\n|---|---:|---:|"
    )
    for name, seconds in best.items():
        print(f"| {name} | {1e3 * seconds:.1f} | {seconds / best['exact']:.2f} |")


if __name__ == "__main__":
    main()
