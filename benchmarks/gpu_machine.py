"""The machine that figures were measured on, and what it lacks of this project's packages.

python benchmarks/gpu_machine.py --output machine.json     # versions, card, driver, as a table
python benchmarks/gpu_machine.py --missing                 # requirements that are not met; needs no torch
"""

import argparse
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

NOT_NEEDED = {"torch", "torchaudio", "ray", "librosa", "espeakng-loader", "plotly"}
"""What must be there already (torch), or what no step of gpu.sh comes to load."""


def requirements() -> list[str]:
    """Return the project's requirements that the steps of gpu.sh need, besides torch."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    named = {re.match(r"[\w-]+", each)[0]: each for each in project["dependencies"]}  # type: ignore[index]
    return [requirement for name, requirement in named.items() if name not in NOT_NEEDED] + ["pytest"]


def missing() -> list[str]:
    """Return the requirements whose packages are not installed; versions are not looked at."""
    lacking = []
    for requirement in requirements():
        try:
            importlib.metadata.version(re.match(r"[\w-]+", requirement)[0])  # type: ignore[index]
        except importlib.metadata.PackageNotFoundError:
            lacking.append(requirement)
    return lacking


def version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def driver() -> str:
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi does not run: {error}"
    return (done.stdout or done.stderr).strip().replace("\n", "; ")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--missing", action="store_true", help="only list requirements that are not met")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--output", type=Path, help="a JSON file for the table")
    options = parser.parse_args()
    if options.missing:
        print("\n".join(missing()))
        return 0

    import torch
    from gpu_results import NOT_HERE, Results, choose_device
    from measuring import Unavailable, describe_machine

    from asr_dni import __version__
    from asr_dni.nn import triton_recurrence

    try:
        device = torch.device(choose_device(options.device))
    except Unavailable as reason:
        print(reason)
        return NOT_HERE
    rows = {"asr_dni": __version__} | describe_machine(device)
    rows |= {name: version(name) for name in ("triton", "numpy", "pytorch-lightning", "pytest")}
    rows |= {"cuDNN": str(torch.backends.cudnn.version()), "driver": driver()}
    if device.type == "cuda":
        its = torch.cuda.get_device_properties(device)
        rows["card"] = (
            f"{its.name}, {its.total_memory / 2**30:.0f} GiB, {its.multi_processor_count} multiprocessors"
        )
        rows["kernels are planned for"] = str(triton_recurrence._gpu(device))
    rows["Triton lacks"] = triton_recurrence._missing() or "nothing"
    rows["not installed"] = ", ".join(missing()) or "nothing"
    Results(options.output).add("machine", ["what", "is"], [[name, value] for name, value in rows.items()])
    return 0


if __name__ == "__main__":
    sys.exit(main())
