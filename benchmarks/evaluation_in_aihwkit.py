"""What an evaluation of one network on PCM with 8-bit converters costs here and in aihwkit, on its torch tile.

    pip install --no-deps aihwkit tqdm requests
    python benchmarks/evaluation_in_aihwkit.py          # a table (Markdown), about two minutes

A keyword network of two LSTM layers, converted by :func:`asr_dni.nn.aihwkit.to_aihwkit` with its hardware: the same
products, devices and converters on both sides. Forward passes without gradients on one thread, each on a chip that is
programmed for it, or all on one. They take turns; what is told is the processor's time of each one's best round.
"""

import argparse
import itertools

import torch
from hardware_costs import Work, measure
from measuring import Unavailable

from asr_dni.errors import UserError
from asr_dni.model import KeywordNetwork, NetworkSettings
from asr_dni.nn import calibrate
from asr_dni.nn.aihwkit import to_aihwkit
from asr_dni.nn.aihwkit_settings import imported
from asr_dni.noise import PCM, Hardware, Realisation, UniformConverter

STEPS, FEATURES, LABELS = 98, 40, 8
DAY = 86400.0
HARDWARE = Hardware(
    weight=PCM(time=DAY, compensation="tensor"),
    dac=UniformConverter(8),
    adc=UniformConverter(8, 2.0),
    arrays="separate",
)


def works(batch: int, units: int) -> dict[str, Work]:
    """Return an evaluation here and there, on a new chip for each batch and on one chip.

    Raises:
        Unavailable: aihwkit is not installed.
    """
    torch.manual_seed(0)
    network = KeywordNetwork(NetworkSettings(units=units), FEATURES, LABELS).eval()
    x = torch.randn(batch, STEPS, FEATURES)
    calibrate(network, [x[:4]])
    try:
        there = to_aihwkit(network, HARDWARE).eval()
        age = imported("aihwkit.inference").drift_analog_weights
    except UserError as error:
        raise Unavailable(str(error)) from error
    chips = itertools.count(1)

    def here(chip: int | None) -> None:
        with (
            network.under(HARDWARE, Realisation(chip=next(chips) if chip is None else chip)),
            torch.no_grad(),
        ):
            network(x)

    def in_aihwkit(new: bool) -> None:
        if new:
            age(there, DAY)
        with torch.no_grad():
            there(x)

    return {
        "here, a chip for each batch": lambda: here(None),
        "aihwkit, a chip for each batch": lambda: in_aihwkit(True),
        "here, one chip": lambda: here(0),
        "aihwkit, one chip": lambda: in_aihwkit(False),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        best = measure(works(options.batch, options.units), options.rounds)
    except Unavailable as reason:
        raise SystemExit(f"nothing to compare with: {reason}") from None
    print(f"| LSTM 2 x {options.units}, batch {options.batch}, T {STEPS} | ms | to ours |\n|---|---:|---:|")
    for name, seconds in best.items():
        ours = best[name.replace("aihwkit, ", "here, ")]
        print(f"| {name} | {1e3 * seconds:.1f} | {seconds / ours:.1f} |")


if __name__ == "__main__":
    main()
