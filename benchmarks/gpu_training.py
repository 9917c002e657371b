"""A whole training on a GPU as users start it, and its noise curve: how long they take, and whether the curve is right.

    python benchmarks/gpu_training.py --folder runs/gpu_training

The data are scikit-learn's handwritten digits, which need no download. The same checkpoint's curve is measured on the
GPU and on the CPU: noise is the same numbers on every device, so that the accuracies differ by rounding only.
"""

import argparse
import importlib.util
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # also where this file is not what was started

from gpu_results import NOT_HERE, Results, choose_device
from measuring import Unavailable

EXPERIMENT = "conf/experiment/digits_lstm_dni.yaml"
SIGMAS = (0.0, 1.0, 2.0, 3.0)
NEEDED = ("jsonargparse", "pytorch_lightning", "torchmetrics", "wandb", "soundfile", "soxr", "sklearn")
ALLOWED = 0.02
"""How far the accuracy at a level may be from that on the CPU: rounding changes few decisions."""


def timed(*arguments: str) -> float:
    """Run the command ``asr-dni`` in a process of its own and return its seconds."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "asr_dni", *arguments], check=True)
    return time.perf_counter() - started


def accuracies(curve: Path) -> dict[float, float]:
    """Return the mean accuracy at each level."""
    import pandas as pd

    return (
        pd.read_csv(curve / "noise_curve.csv", comment="#").groupby("strength")["accuracy"].mean().to_dict()
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="for the run")
    for name, default in {"epochs": 60, "units": 64, "draws": 10}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--output", type=Path, help="a JSON file for the tables")
    options = parser.parse_args(arguments)
    results = Results(options.output)
    try:
        device = choose_device(options.device)
        lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        if lacking:
            raise Unavailable(f"no training without {', '.join(lacking)}")
    except Unavailable as reason:
        print(reason)
        return NOT_HERE
    seconds = {}
    seconds[f"asr-dni fit, {options.epochs} epochs"] = timed(
        *(
            "fit",
            "--config",
            EXPERIMENT,
            "--runs",
            str(options.folder),
            "--name",
            "digits",
            "--wandb=disabled",
        ),
        *(f"--trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}",),
        *(f"--trainer.max_epochs={options.epochs}", f"--trainer.check_val_every_n_epoch={options.epochs}"),
        *(f"--model.network.units={options.units}", f"--noise_curve.draws={options.draws}"),
    )
    (checkpoint,) = options.folder.glob("digits/version_*/checkpoints/last.ckpt")
    curves = {}
    for place in dict.fromkeys((device, "cpu")):
        seconds[f"asr-dni noise-curve, {len(SIGMAS)} levels x {options.draws} draws, on {place}"] = timed(
            *("noise-curve", str(checkpoint), f"--sigmas={list(SIGMAS)}", f"--draws={options.draws}"),
            *("--device", place, "--output", str(options.folder / place)),
        )
        curves[place] = accuracies(options.folder / place)
    what = f"digits, LSTM of {options.units} units, batch 64, as commands from their start to their end"
    results.add(what, ["command", "s"], [[name, f"{value:.1f}"] for name, value in seconds.items()])
    results.add(
        "accuracy in %",
        ["sigma", *curves],
        [[f"{sigma:g}", *(f"{100 * curve[sigma]:.1f}" for curve in curves.values())] for sigma in SIGMAS],
    )
    furthest = max(abs(curves[device][sigma] - curves["cpu"][sigma]) for sigma in SIGMAS)
    results.add_errors("accuracy against the CPU's", [("largest difference", furthest, ALLOWED)])
    return int(results.wrong)


if __name__ == "__main__":
    sys.exit(main())
