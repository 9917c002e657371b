"""The command ``asr-dni info``: versions, devices, and which implementation of the recurrence runs what, and why."""

import os
import platform
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from rich.table import Table
from rich.text import Text

from asr_dni import __version__
from asr_dni.cli.functions import run_function
from asr_dni.compiled import cache_directory
from asr_dni.data import waveform_change
from asr_dni.features import band_energies
from asr_dni.nn import native
from asr_dni.nn.cells import CELLS
from asr_dni.nn.crossbar import lower_product
from asr_dni.nn.implementation import IMPLEMENTATIONS, SETTING, choose, chosen_implementation
from asr_dni.nn.operations import Drawing, Product
from asr_dni.nn.precision import SETTING as PRODUCTS_SETTING
from asr_dni.nn.precision import WORTH_IT, chosen_products
from asr_dni.nn.recurrence import Recurrence, Sites
from asr_dni.noise import (
    SITES,
    Gaussian,
    GaussianWeights,
    Hardware,
    IRDrop,
    Multiplicative,
    ReadNoise,
    Site,
    UniformConverter,
)
from asr_dni.terminal import make_console

PACKAGES = ("torch", "torchaudio", "pytorch-lightning", "wandb", "triton")

SIZES = (128, 1024)
"""Units that are asked for; the larger ones are shown where another implementation runs them."""


_GAUSSIAN = Hardware(Gaussian(1.0), sites=SITES)
_CONVERTER = UniformConverter(scale="absolute")


@dataclass(frozen=True)
class Case:
    """A kind of thing to run.

    Attributes:
        name: as it is shown.
        dtype: of weights and inputs.
        autocast: whether under autocast to bfloat16.
        projected: whether with ``proj_size``, which not every cell can have.
        packed: whether sequences have lengths of their own.
        networks: how many at once.
        hardware: that it is run on.
        cost: forward and backward of an LSTM to those of its exact arithmetic, as :data:`MEASURED` says; "" where that
            was not measured.
    """

    name: str
    dtype: torch.dtype = torch.float32
    autocast: bool = False
    projected: bool = False
    packed: bool = False
    networks: int = 1
    hardware: Hardware = _GAUSSIAN
    cost: str = ""


CASES = (
    Case("float32", cost="1.11"),
    Case("float32, K networks", networks=4),
    Case("float32, packed sequences", packed=True, cost="1.12"),
    Case("float32, proj_size", projected=True, cost="2.82"),
    Case("weights of a chip", hardware=Hardware(Gaussian(1.0), GaussianWeights(0.1))),
    Case("multiplicative noise", hardware=Hardware(Multiplicative(0.1)), cost="1.45"),
    Case("noise sized by output", hardware=Hardware(Gaussian(0.1, "signal", per="output"))),
    Case("an ADC", hardware=Hardware(adc=_CONVERTER), cost="0.98"),
    Case("a DAC", hardware=Hardware(dac=_CONVERTER), cost="0.97"),
    Case("an ADC that is learned", hardware=Hardware(adc=UniformConverter(scale="absolute", learned=True))),
    Case("read noise of the cells", hardware=Hardware(ReadNoise(0.01)), cost="3.62"),
    Case("IR drop", hardware=Hardware(IRDrop(1.0)), cost="4.71"),
    Case("autocast to bfloat16", autocast=True),
    Case("bfloat16", torch.bfloat16),
    Case("float64", torch.float64, cost="9.88"),
)

MEASURED = (
    "cost: an LSTM's forward and backward to its exact arithmetic in float32, by what runs it where all is compiled"
    " (1.11: fused, 9.88: a loop); not measured here but by `python benchmarks/hardware_costs.py` on an Intel Xeon"
    " (AVX-512), one thread, batch 128, T 98, 128 units, see docs/costs.md"
)
"""Where the costs of :data:`CASES` come from."""


@dataclass(frozen=True)
class Use:
    """Which implementation runs a case: a name of the registry, ``reference``, or ``none`` where it would raise.

    ``why`` says why none of the registry does, and is empty where one does.
    """

    name: str
    why: str = ""


def implementation_of(cell: str, case: Case, device: torch.device, units: int = SIZES[0]) -> Use:
    """Ask the registry which implementation would run a case, on its hardware.

    Args:
        cell: which equations.
        case: what is run.
        device: where.
        units: H.

    Raises:
        UserError: the setting in the environment is not known.
    """
    try:
        with torch.autocast(device.type, torch.bfloat16) if case.autocast else nullcontext():
            name, reasons = choose(_problem(cell, case, device, units))
    except RuntimeError as error:
        return Use("none", str(error))
    if name != "reference":
        return Use(name)
    # What cannot run the plainest case here either is for other devices: that is no reason in this one.
    plainest = _problem(cell, CASES[0], device, units)
    telling = {key: why for key, why in reasons.items() if IMPLEMENTATIONS[key].why_not(plainest) != why}
    return Use(name, "; ".join((telling or reasons).values()) or "the reference was asked for")


def _problem(cell: str, case: Case, device: torch.device, units: int) -> Recurrence:
    """Return what the registry is asked with, see :func:`asr_dni.nn.implementation.choose`."""
    equations, rows, networks = CELLS[cell], 2, case.networks
    width = len(equations.gates) * units
    fed_back = units // 2 if case.projected else units
    like = torch.empty(0, dtype=case.dtype, device=device)
    ids = [torch.arange(rows, device=device)] * networks
    features = 3

    def lowered(switch: Site, columns: int | None) -> Product | None:
        if not case.hardware.on_at(switch):
            return None
        drawing = Drawing(ids, 0, 1, 1, 1, like)
        return lower_product(
            [case.hardware] * networks,
            [(0, 0)] * networks,
            [(0, 0)] * networks,
            lambda scale, needed, inward, per="tensor": torch.ones(networks),
            drawing,
            columns,
            factors=lambda converter: torch.ones(networks, requires_grad=True),
        )

    sites = Sites(
        ids,
        input=lowered("input", features),
        recurrent=lowered("recurrent", fed_back),
        elementwise=lowered("elementwise", None),
    )
    return Recurrence(
        cell,
        like.new_empty(networks, width, fed_back),
        like.new_empty(networks, width),
        tuple(
            like.new_empty(networks, rows, fed_back if state == "h" else units) for state in equations.states
        ),
        sites,
        inputs=like.new_empty(networks, 1, rows, features),
        w_ih=like.new_empty(networks, width, features),
        w_hr=like.new_empty(networks, fed_back, units) if case.projected else None,
        own={
            name: like.new_empty(networks, units if its.per_unit else 1)
            for name, its in equations.own.items()
        },
        lengths=torch.ones(networks, rows, dtype=torch.int64, device=device) if case.packed else None,
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _gpus() -> str:
    names = []
    for k in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(k)
        names.append(f"cuda:{k} {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    return "; ".join(names) or "none"


def _setting() -> str:
    """Say which implementation is asked for, and by what."""
    source = f"{SETTING} in the environment" if SETTING in os.environ else f"{SETTING} is not set"
    meaning = {
        "auto": f"what can run of {', '.join(IMPLEMENTATIONS)}, else the reference loop",
        "reference": "the reference loop",
    }
    chosen = chosen_implementation()
    return f"{chosen}: {meaning.get(chosen, f'{chosen}, or an error')} ({source})"


def _products() -> str:
    """Say in which precision factors of products are, by what that is chosen, and what bfloat16 is run by here."""
    source = f"{PRODUCTS_SETTING} {'in the environment' if PRODUCTS_SETTING in os.environ else 'is not set'}"
    if native.library() is None:
        by = "the reference loop"
    else:
        kernel = native.bfloat16_kernel()
        chosen = native.KERNEL_SETTING in os.environ
        by = f"{kernel}{f', {native.KERNEL_SETTING} in the environment' if chosen else ''}; auto is"
        by += f" {'bfloat16' if kernel in WORTH_IT else 'float32'} here"
    return f"{chosen_products()} where nothing else is set ({source}); bfloat16 on the CPU by {by}"


def general() -> dict[str, str]:
    """Return versions, devices and settings, by their names.

    Raises:
        UserError: the setting in the environment is not known.
    """
    native_setting = os.environ.get("ASR_DNI_NATIVE")
    return {
        "asr-dni": __version__,
        "python": f"{platform.python_version()} on {platform.platform()}",
        **{package: _version(package) for package in PACKAGES},
        "cpu": f"{_cpu_model()}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": str(torch.get_num_threads()),
        "cuda": _gpus(),
        "recurrence": _setting(),
        "products": _products(),
        "features": band_energies.COMPILED.status(),
        "augmentation": waveform_change.COMPILED.status(),
        "C kernels": native.status()
        + (f", ASR_DNI_NATIVE={native_setting}" if native_setting is not None else ""),
        "kernel cache": str(cache_directory()),
    }


def recurrence_table(devices: Sequence[torch.device]) -> Table:
    """Return a table of which implementation runs what on each device, and why none of the registry does.

    Raises:
        UserError: the setting in the environment is not known.
    """
    compiled = set.intersection(*(set(its.CAPABILITIES.cells) for its in IMPLEMENTATIONS.values()))
    shown_alone = [
        cell for cell in CELLS if cell in compiled and cell != "rnn_relu"
    ]  # which goes as rnn_tanh does
    others = [cell for cell in CELLS if cell not in compiled]
    table = Table(
        title="implementation of the recurrence",
        title_justify="left",
        caption=f"other cells: {', '.join(others)}; reference: a plain loop\n{MEASURED}",
        caption_justify="left",
    )
    for heading in ("device", "what", *shown_alone, "others", "cost", "why not a faster one"):
        table.add_column(heading, no_wrap=heading == "what")
    for device in devices:
        for case in CASES:
            shown: list[list[Use | None]] = []
            for units in SIZES:
                uses = [_use(cell, case, device, units) for cell in shown_alone]
                if uses in shown:
                    continue
                shown.append(uses)
                name = case.name if units == SIZES[0] else f"{case.name}, {units} units"
                of_others = [_use(cell, case, device, units) for cell in others]
                reasons = dict.fromkeys(use.why for use in uses if use is not None and use.why)
                table.add_row(
                    str(device),
                    name,
                    *(_names([use]) for use in uses),
                    _names(of_others),
                    case.cost if device.type == "cpu" and units == SIZES[0] else "",
                    Text("; ".join(reasons)),
                )
        table.add_section()
    return table


def _use(cell: str, case: Case, device: torch.device, units: int) -> Use | None:
    """Return what would run a cell's case; ``None``: the cell has no such case."""
    return (
        implementation_of(cell, case, device, units) if CELLS[cell].projects or not case.projected else None
    )


def _names(uses: Sequence[Use | None]) -> Text:
    """Return the names of what is used, each once."""
    styles = {"reference": "yellow", "none": "red"}
    names = dict.fromkeys(use.name for use in uses if use is not None)
    return Text(" ").join(Text(name, styles.get(name, "green")) for name in names)


def info() -> None:
    """Print versions, devices and which implementation of the recurrence is in use."""
    rows = general()
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:{width}}  {value}")
    print()
    devices = [
        torch.device("cpu"),
        *(torch.device(f"cuda:{k}") for k in range(torch.cuda.device_count())),
    ]
    console = make_console()
    if not console.is_terminal:  # a file or a pipe has no width
        console = make_console(width=120)
    console.print(recurrence_table(devices))


def run(arguments: Sequence[str]) -> None:
    """Run ``asr-dni info``."""
    run_function(info, "info", arguments)
