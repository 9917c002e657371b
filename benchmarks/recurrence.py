"""What noise costs: the noisy layers against torch's clean ones, the reference loop and other toolkits, in one run.

    python benchmarks/recurrence.py                         # the figures behind the targets, about five minutes
    python benchmarks/recurrence.py --sweep batch           # curves: batch, units, steps, networks or threads
    python benchmarks/recurrence.py --tasks train --cells gru --batch 64 --threads 1
    python benchmarks/recurrence.py --products auto         # our layers and networks in that precision
    python benchmarks/recurrence.py --device cuda

Contenders take turns in rounds. Times are medians with quartiles; a ratio is the median, with quartiles, of the ratios
within the rounds. The folder given by --output gets a table (CSV, Markdown) and a figure (PNG, SVG) that name the
machine. See benchmarks/README.md for what each task does; toolkits.py says how other toolkits are installed.
"""

import argparse
import csv
import dataclasses
import functools
import importlib.util
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))  # also where this file is not what was started

import toolkits
from measuring import (
    Rounds,
    Spread,
    Unavailable,
    Work,
    describe_machine,
    measure_peaks,
    measure_times,
    peak_of,
)

from asr_dni.data import Batch
from asr_dni.evaluation import measure_noise_curve, save_figure
from asr_dni.files import write_atomically
from asr_dni.memory import keep_freed_memory
from asr_dni.model.network import KeywordNetwork, NetworkSettings
from asr_dni.nn import (
    DropoutSeed,
    NoisyGRU,
    NoisyLSTM,
    NoisyRNN,
    native,
    seeded_dropout,
    use_implementation,
)
from asr_dni.nn.precision import ProductsSetting
from asr_dni.noise import SITES, Noise

IMPORTED = ("asr_dni.data", "asr_dni.evaluation", "asr_dni.model", "asr_dni.nn")
"""What takes long to import."""

Task: TypeAlias = Literal["forward", "train", "step", "curve", "networks", "memory"]
Noisy: TypeAlias = NoisyRNN | NoisyLSTM | NoisyGRU
Maker: TypeAlias = Callable[[], Work]

TASKS: dict[Task, str] = {
    "forward": "forward, no gradients",
    "train": "forward + backward",
    "step": "training step",
    "curve": "noise curve, 8 levels x 5 draws",
    "networks": "training step of K layers",
    "memory": "peak memory of forward + backward",
}
TORCH: dict[str, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
CELLS = {"lstm": NoisyLSTM, "gru": NoisyGRU, "rnn": NoisyRNN}
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
N_LABELS = 10
LEVELS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
DRAWS = 5

CLEAN = "torch, clean"
AUTOCAST = "torch, clean, bfloat16 autocast"
CLEAN_NETWORK = "torch, clean, with classifier"
OFF = "own, noise off"
OWN = "own, noise on"
OWN_BFLOAT16 = "own, noise on, bfloat16 products"
SEPARATE = "own, separate arrays"
EVERYWHERE = "own, every site"
POPULATION = "own, as one population"
REFERENCE = "reference loop, noise on"
ARITHMETIC = "its products alone"
COMPILED = "loop by torch.compile, noise on"
LIGHTNING = "aihwkit-lightning, output noise"
AIHWKIT = "aihwkit, output noise"
AIHWKIT_PRESET = "aihwkit, hardware-aware preset"
SLOW = (REFERENCE, COMPILED, LIGHTNING, AIHWKIT, AIHWKIT_PRESET)


@dataclass(frozen=True)
class Setting:
    """What is measured; ``layers`` counts for step and curve, ``networks`` for networks."""

    task: Task
    cell: str = "lstm"
    batch: int = 128
    steps: int = 98
    inputs: int = 40
    units: int = 128
    layers: int = 1
    networks: int = 1
    threads: int = 2
    device: str = "cpu"
    products: Any = None

    @property
    def title(self) -> str:
        layers = f"{self.layers} layers of " * (self.layers > 1)
        networks = f"K {self.networks}, " * (self.task == "networks")
        where = f"{self.threads} thread{'s' * (self.threads > 1)}" if self.device == "cpu" else self.device
        where += f", products {self.products}" * (self.products is not None)
        shape = f"batch {self.batch}, T {self.steps}, {self.inputs} inputs, {layers}{self.units} units"
        return f"{TASKS[self.task]}, {self.cell.upper()}, {networks}{shape}, {where}"

    def small(self) -> "Setting":
        return replace(self, batch=2, steps=2)


# ---------------------------------------------------------------------- pieces of work


def layers_of(setting: Setting) -> tuple[nn.RNNBase, Noisy]:
    """Return torch's layer and ours, with the same weights."""
    torch.manual_seed(0)
    theirs = TORCH[setting.cell](setting.inputs, setting.units).to(setting.device)
    ours = CELLS[setting.cell](setting.inputs, setting.units, products=setting.products).to(setting.device)
    ours.load_state_dict(theirs.state_dict(), strict=False)
    return theirs, ours


def input_of(setting: Setting) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(setting.steps, setting.batch, setting.inputs, generator=generator).to(setting.device)


def layer_work(setting: Setting, layer: nn.Module, implementation: Any = "auto") -> Work:
    """One pass over a layer, and for all tasks but forward one back; the input itself needs no gradient."""
    x, train = input_of(setting), setting.task != "forward"
    generator = torch.Generator().manual_seed(2)
    gradient = torch.randn(setting.steps, setting.batch, setting.units, generator=generator).to(
        setting.device
    )

    def work() -> None:
        with use_implementation(implementation):
            if not train:
                with torch.no_grad():
                    layer(x)
                return
            layer(x)[0].backward(gradient)
            layer.zero_grad(set_to_none=True)

    return work


def of_layers(setting: Setting) -> dict[str, Maker]:
    def own(noise: Noise, implementation: Any = "auto", its: Setting = setting) -> Maker:
        def make() -> Work:
            layer = layers_of(its)[1]
            layer.noise = noise
            return layer_work(setting, layer, implementation)

        return make

    def autocast() -> Work:
        work = layer_work(setting, layers_of(setting)[0])
        device = torch.device(setting.device).type

        def under() -> None:
            with torch.autocast(device, torch.bfloat16):
                work()

        return under

    def toolkit(build: Callable[[str, int, int], nn.Module]) -> Maker:
        def make() -> Work:
            torch.manual_seed(0)
            layer = build(setting.cell, setting.inputs, setting.units).to(setting.device)
            return layer_work(setting, layer.train())

        return make

    return {
        CLEAN: lambda: layer_work(setting, layers_of(setting)[0]),
        AUTOCAST: autocast,
        OFF: own(Noise()),
        OWN: own(Noise(1.0)),
        OWN_BFLOAT16: own(Noise(1.0), its=replace(setting, products="bfloat16")),
        SEPARATE: own(Noise(1.0, arrays="separate")),
        EVERYWHERE: own(Noise(1.0, sites=SITES)),
        REFERENCE: own(Noise(1.0), "reference"),
        ARITHMETIC: lambda: products(setting)[0],
        COMPILED: toolkit(toolkits.compiled_loop),
        LIGHTNING: toolkit(toolkits.aihwkit_lightning),
        AIHWKIT: toolkit(toolkits.aihwkit),
        AIHWKIT_PRESET: toolkit(toolkits.aihwkit_hardware_aware),
    }


def products(setting: Setting) -> tuple[Work, float]:
    """Return a work that does a layer's matrix products and nothing else, in buffers of its own, and their FLOPs.

    What no layer can do without: W_ih x for all steps at once, W_hh h step by step, and for the gradients W_hh' d step
    by step, and one product over all steps for each of the two matrices. It is the bound of a layer's speed.
    """
    steps, batch, inputs, units = setting.steps, setting.batch, setting.inputs, setting.units
    width, train = GATES[setting.cell] * units, setting.task != "forward"

    def buffer(*shape: int) -> Tensor:
        return torch.randn(shape, device=setting.device)

    x, h = buffer(steps * batch, inputs), buffer(batch, units)
    w_ih, w_hh = buffer(inputs, width), buffer(units, width)
    projection, gates = buffer(steps * batch, width), buffer(steps, batch, width)
    dh, back, outputs = buffer(batch, units), w_hh.t().contiguous(), buffer(steps * batch, units)
    d_hh, d_ih = buffer(width, units), buffer(width, inputs)

    def work() -> None:
        torch.mm(x, w_ih, out=projection)
        for t in range(steps):
            torch.mm(h, w_hh, out=gates[t])
        if train:
            for t in range(steps):
                torch.mm(gates[t], back, out=dh)
            d_gates = gates.flatten(0, 1).t()
            torch.mm(d_gates, outputs, out=d_hh)
            torch.mm(d_gates, x, out=d_ih)

    forward = inputs + units
    flops = 2.0 * steps * batch * width * (forward + (units + forward if train else 0))
    return work, flops


class CleanNetwork(nn.Module):
    """The keyword network of torch's own layers."""

    def __init__(self, like: KeywordNetwork) -> None:
        super().__init__()
        ours = like.recurrent
        self.recurrent = TORCH[like.settings.cell](
            ours.input_size, ours.hidden_size, ours.num_layers, dropout=ours.dropout
        )
        self.dropout = nn.Dropout(like.settings.dropout)
        self.classifier = nn.Linear(ours.hidden_size, like.classifier.out_features)
        self.load_state_dict(like.state_dict(), strict=False)

    def forward(self, features: Tensor) -> Tensor:
        outputs, _ = self.recurrent(features.transpose(0, 1))
        logits: Tensor = self.classifier(self.dropout(outputs).transpose(0, 1)).mean(1)
        return logits


def network_of(setting: Setting, dropout: float) -> KeywordNetwork:
    torch.manual_seed(0)
    settings = NetworkSettings(
        setting.cell, setting.units, setting.layers, dropout=dropout, products=setting.products
    )
    return KeywordNetwork(settings, setting.inputs, N_LABELS).to(setting.device)


def batch_of(setting: Setting) -> Batch:
    features = input_of(setting).transpose(0, 1).contiguous()
    ids = torch.arange(setting.batch, device=setting.device)
    return Batch(features, ids % N_LABELS, ids)


def of_steps(setting: Setting) -> dict[str, Maker]:
    """Forward, cross entropy, backward and Adam, of the keyword network with dropout between its layers."""
    batch = batch_of(setting)

    def step_of(network: nn.Module, noise: Noise | None, implementation: Any = "auto") -> Work:
        optimizer = torch.optim.Adam(network.parameters())
        count = 0

        def work() -> None:
            nonlocal count
            optimizer.zero_grad()
            with ExitStack() as contexts:
                contexts.enter_context(use_implementation(implementation))
                if noise is not None:  # as the keyword spotter's training step does
                    assert isinstance(network, KeywordNetwork)
                    its_noise = noise.realised(draw=count, sample_ids=batch.clip_ids)
                    contexts.enter_context(network.under(its_noise))
                    contexts.enter_context(seeded_dropout(network, DropoutSeed(0, count, batch.clip_ids)))
                loss = nn.functional.cross_entropy(network(batch.features), batch.labels)
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            count += 1

        return work

    def own(noise: Noise, implementation: Any = "auto") -> Maker:
        return lambda: step_of(network_of(setting, dropout=0.1), noise, implementation)

    return {
        CLEAN: lambda: step_of(CleanNetwork(network_of(setting, dropout=0.1)).to(setting.device), None),
        OFF: own(Noise()),
        OWN: own(Noise(1.0)),
        REFERENCE: own(Noise(1.0), "reference"),
    }


def of_curves(setting: Setting) -> dict[str, Maker]:
    """A noise curve of a batch, by the way of asr_dni.evaluation, against as many clean passes."""
    batch, passes = batch_of(setting), len(LEVELS) * DRAWS

    def own(implementation: Any = "auto") -> Maker:
        network = network_of(setting, dropout=0.0)

        def work() -> None:
            with use_implementation(implementation):
                measure_noise_curve(network, [batch], LEVELS, DRAWS, Noise())

        return lambda: work

    def clean(with_classifier: bool) -> Work:
        network = CleanNetwork(network_of(setting, dropout=0.0)).to(setting.device).eval()
        x = batch.features.transpose(0, 1).contiguous()

        def work() -> None:
            with torch.inference_mode():
                for _ in range(passes):
                    if with_classifier:
                        network(batch.features)
                    else:
                        network.recurrent(x)

        return work

    return {
        CLEAN: lambda: clean(with_classifier=False),
        CLEAN_NETWORK: lambda: clean(with_classifier=True),
        OWN: own(),
        REFERENCE: own("reference"),
    }


def of_networks(setting: Setting) -> dict[str, Maker]:
    """Forward, backward and Adam of K layers on one batch: one after another, or as one population."""
    x, members = input_of(setting), range(setting.networks)
    generator = torch.Generator().manual_seed(2)
    gradient = torch.randn(setting.steps, setting.batch, setting.units, generator=generator).to(
        setting.device
    )

    own = functools.partial(CELLS[setting.cell], products=setting.products)

    def in_turn(kind: Callable[..., nn.Module], noise: Noise | None) -> Work:
        layers = [kind(setting.inputs, setting.units).to(setting.device) for _ in members]
        for k, layer in enumerate(layers):
            if noise is not None:
                layer.noise = noise.realised(seed=k)
        optimizers = [torch.optim.Adam(layer.parameters()) for layer in layers]

        def work() -> None:
            for layer, optimizer in zip(layers, optimizers, strict=True):
                optimizer.zero_grad()
                layer(x)[0].backward(gradient)
                optimizer.step()

        return work

    def together() -> Work:
        if importlib.util.find_spec("asr_dni.nn.stacking") is None:
            raise Unavailable("this version has no populations")
        from asr_dni.nn.stacking import stack_networks

        population = stack_networks([own(setting.inputs, setting.units).to(setting.device) for _ in members])
        population.noise = tuple(Noise(1.0, seed=k) for k in members)
        optimizer, of_all = (
            torch.optim.Adam(population.parameters()),
            gradient.expand(setting.networks, -1, -1, -1),
        )

        def work() -> None:
            optimizer.zero_grad()
            population(x)[0].backward(of_all)
            optimizer.step()

        return work

    return {
        CLEAN: lambda: in_turn(TORCH[setting.cell], None),
        OFF: lambda: in_turn(own, Noise()),
        OWN: lambda: in_turn(own, Noise(1.0)),
        POPULATION: together,
    }


def makers(setting: Setting) -> dict[str, Maker]:
    """Return what makes each contender's work; CLEAN is what all others are compared with."""
    if setting.task == "step":
        return of_steps(setting)
    if setting.task == "curve":
        return of_curves(setting)
    if setting.task == "networks":
        return of_networks(setting)
    contenders = of_layers(setting)
    if setting.task == "memory":
        for name in (ARITHMETIC, COMPILED, AIHWKIT, AIHWKIT_PRESET):
            del contenders[name]
    return contenders


# ---------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Result:
    """What was measured in one setting."""

    setting: Setting
    rounds: Rounds

    @property
    def flops(self) -> float | None:
        """Floating-point operations of the products, where they were timed."""
        return products(self.setting.small())[1] * self._blow_up if ARITHMETIC in self.rounds.values else None

    @property
    def _blow_up(self) -> float:
        small = self.setting.small()
        return self.setting.batch * self.setting.steps / (small.batch * small.steps)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row of the table per contender."""
        rows = []
        for contender in self.rounds.values:
            value = self.rounds.spread(contender)
            row = dataclasses.asdict(self.setting) | {
                "contender": contender,
                "unit": self.rounds.unit,
                "median": value.median,
                "low_quartile": value.low,
                "high_quartile": value.high,
                "rounds": self.rounds.count(contender),
            }
            for name, against in (("ratio", CLEAN), ("ratio_noise_off", OFF)):
                if against in self.rounds.values:
                    ratio = self.rounds.ratio(contender, against)
                    row |= {name: ratio.median, f"{name}_low": ratio.low, f"{name}_high": ratio.high}
            rows.append(row)
        return rows


def measure(setting: Setting, rounds: int, left_out: Sequence[str] = ()) -> Result:
    """Measure all contenders of a setting, but those left out."""
    contenders = {name: make for name, make in makers(setting).items() if name not in left_out}
    device = torch.device(setting.device)
    if setting.task == "memory":
        of_setting = functools.partial(peak, setting)
        return Result(setting, measure_peaks(list(contenders), of_setting, max(2, rounds // 5), IMPORTED))
    before = torch.get_num_threads()
    torch.set_num_threads(setting.threads)
    try:
        measured = measure_times(
            contenders,
            rounds,
            slow=SLOW,
            synchronise=(lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None),
        )
    finally:
        torch.set_num_threads(before)
    return Result(setting, measured)


def peak(setting: Setting, contender: str) -> int:
    """Return how many bytes a contender's work takes; meant for a process of its own."""
    torch.set_num_threads(setting.threads)
    device = torch.device(setting.device)
    return peak_of(makers(setting)[contender], makers(setting.small())[contender], device)


# ---------------------------------------------------------------------- targets


@dataclass(frozen=True)
class Target:
    """A ratio that one contender is to reach against another, in every setting of a kind that was measured."""

    what: str
    limit: float | None
    task: Task
    contender: str
    against: str
    cells: tuple[str, ...] = ("lstm",)
    device: str = "cpu"
    at_least: bool = False

    def ratio(self, result: Result) -> Spread | None:
        """Return what was measured; ``None`` where the setting is of another kind, or a contender was missing."""
        setting, values = result.setting, result.rounds.values
        kind = (setting.task, setting.device.partition(":")[0])
        if kind != (self.task, self.device) or setting.cell not in self.cells:
            return None
        if self.contender not in values or self.against not in values:
            return None
        return result.rounds.ratio(self.contender, self.against)

    def reached(self, ratio: Spread) -> bool | None:
        """Whether the median reaches the limit; ``None`` where there is none."""
        if self.limit is None:
            return None
        return ratio.median >= self.limit if self.at_least else ratio.median <= self.limit

    @property
    def limit_text(self) -> str:
        if self.limit is None:
            return ""
        return f"at least {self.limit:g}" if self.at_least else f"at most {self.limit:g}"


EVERY_CELL = ("lstm", "gru", "rnn")
TARGETS = (
    Target("noisy layer against torch's clean one", 0.7, "train", OWN, CLEAN),
    Target("its products alone, the bound of that", None, "train", ARITHMETIC, CLEAN, EVERY_CELL),
    Target("noisy layer against torch's clean one", 0.9, "train", OWN, CLEAN, ("gru", "rnn")),
    Target("noisy layer in bfloat16 against torch's clean one", 0.35, "train", OWN_BFLOAT16, CLEAN, ("lstm", "rnn")),
    Target("noisy layer in bfloat16 against torch's clean one", 0.25, "train", OWN_BFLOAT16, CLEAN, ("gru",)),
    Target("noisy layer in bfloat16 against torch under autocast", 0.7, "train", OWN_BFLOAT16, AUTOCAST, EVERY_CELL),
    Target("inference in bfloat16 against torch's clean layer", 0.45, "forward", OWN_BFLOAT16, CLEAN, EVERY_CELL),
    Target("noise on against noise off", 1.15, "train", OWN, OFF, EVERY_CELL),
    Target("reference loop against torch's clean layer", None, "train", REFERENCE, CLEAN, EVERY_CELL),
    Target("noise curve against 40 clean passes", 0.6, "curve", OWN, CLEAN),
    Target("noisy training step against the clean one", None, "step", OWN, CLEAN, EVERY_CELL),
    Target("aihwkit-lightning against the noisy layer", 4.5, "train", LIGHTNING, OWN, at_least=True),
    Target("aihwkit against the noisy layer", None, "train", AIHWKIT, OWN, at_least=True),
    Target("peak memory, noisy layer against torch's clean one", 1.2, "memory", OWN, CLEAN, EVERY_CELL),
    Target("K clean layers in turn against one noisy population", None, "networks", CLEAN, POPULATION, EVERY_CELL),
    Target("noisy layer against clean cuDNN", 1.0, "train", OWN, CLEAN, EVERY_CELL, "cuda"),
    Target("noise on against noise off", 1.15, "train", OWN, OFF, EVERY_CELL, "cuda"),
    Target("noise curve against 40 clean passes", None, "curve", OWN, CLEAN, device="cuda"),
    Target("peak memory, noisy layer against cuDNN", 1.2, "memory", OWN, CLEAN, EVERY_CELL, "cuda"),
    Target("K clean layers in turn against one noisy population", 15.0, "networks", CLEAN, POPULATION,
           device="cuda", at_least=True),
)  # fmt: skip


def verdicts(
    results: Iterable[Result], targets: Sequence[Target] = TARGETS
) -> list[tuple[str, str, str, str, str]]:
    """Return what, where, target, measured and verdict, for every target and every setting of its kind.

    A target of which nothing was measured is listed as well, where something of its kind was.
    """
    results = list(results)
    rows = []
    for target in targets:
        for result in results:
            ratio = target.ratio(result)
            if ratio is not None:
                verdict = {True: "reached", False: "missed", None: ""}[target.reached(ratio)]
                rows.append((target.what, result.setting.title, target.limit_text, ratio.text(), verdict))
    measured = {(row[0], row[2]) for row in rows}
    settings = [result.setting for result in results]
    kinds = {(setting.task, setting.device.partition(":")[0], setting.cell) for setting in settings}
    for target in targets:
        its_kinds = {(target.task, target.device, cell) for cell in target.cells}
        wanted = target.limit is not None and its_kinds & kinds
        if wanted and (target.what, target.limit_text) not in measured:
            rows.append((target.what, "", target.limit_text, "", "not measured"))
    return rows


# ---------------------------------------------------------------------- what is shown


def contender_rows(result: Result) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    digits = 1 if result.rounds.unit == "MB" else 2
    for contender, values in result.rounds.values.items():
        value = result.rounds.spread(contender)
        ratio = result.rounds.ratio(contender, CLEAN).text() if CLEAN in result.rounds.values else ""
        name = contender
        if contender == ARITHMETIC and result.flops is not None:
            name += f" ({result.flops / 1e6 / value.median:.0f} GFLOP/s)"
        rows.append((name, value.text(digits), ratio, str(len(values) - sum(v != v for v in values))))
    return rows


def print_results(results: Sequence[Result], console: Console) -> None:
    for result in results:
        table = Table(title=result.setting.title, title_justify="left")
        table.add_column("contender")
        for heading in (f"{result.rounds.unit}, median (quartiles)", f"ratio to {CLEAN}", "rounds"):
            table.add_column(heading, justify="right")
        for row in contender_rows(result):
            table.add_row(*row)
        console.print(table)
    print_missing(results, console)


def print_missing(results: Sequence[Result], console: Console) -> None:
    missing = {name: why for result in results for name, why in result.rounds.missing.items()}
    for name, why in missing.items():
        console.print(f"not measured: {name}: {why}", soft_wrap=True)


def print_verdicts(results: Sequence[Result], console: Console) -> None:
    table = Table(title="targets", title_justify="left")
    for heading in ("what", "where", "target", "measured (quartiles)", ""):
        table.add_column(heading)
    colours = {"reached": "green", "missed": "red"}
    for *cells, verdict in verdicts(results):
        colour = colours.get(verdict)
        table.add_row(*cells, f"[{colour}]{verdict}[/]" if colour else verdict)
    console.print(table)


def markdown(results: Sequence[Result], machine: dict[str, str]) -> str:
    """Return the tables as a document."""

    def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
        lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
        return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]

    lines = ["# Recurrence benchmark", "", *(f"- {name}: {value}" for name, value in machine.items()), ""]
    rows = verdicts(results)
    if rows:
        lines += ["## Targets", "", *table(("what", "where", "target", "measured (quartiles)", ""), rows)]
    for result in results:
        headings = ("contender", f"{result.rounds.unit}, median (quartiles)", f"ratio to {CLEAN}", "rounds")
        lines += [f"## {result.setting.title}", "", *table(headings, contender_rows(result))]
        lines += [f"not measured: {name}: {why}  " for name, why in result.rounds.missing.items()] + [""]
    return "\n".join(lines).rstrip() + "\n"


COLOURS = {
    CLEAN: "#000000",
    AUTOCAST: "#F0E442",
    CLEAN_NETWORK: "#6b6b6b",
    OFF: "#56B4E9",
    OWN: "#D55E00",
    OWN_BFLOAT16: "#661100",
    SEPARATE: "#E69F00",
    EVERYWHERE: "#8B4513",
    POPULATION: "#009E73",
    REFERENCE: "#CC79A7",
    ARITHMETIC: "#9a9a9a",
    LIGHTNING: "#0072B2",
    AIHWKIT: "#1b3a6b",
    AIHWKIT_PRESET: "#7b5ea7",
    COMPILED: "#44AA99",
}


def caption(machine: dict[str, str]) -> str:
    parts = [machine.get("gpu", machine["cpu"]), f"{machine['cores']} cores", f"torch {machine['torch']}"]
    return ", ".join(parts)


def draw_ratios(results: Sequence[Result], machine: dict[str, str]) -> Figure:
    """Draw every contender's ratio to torch's clean layer: a row per setting, the quartiles as a line."""
    shown = [result for result in results if CLEAN in result.rounds.values]
    figure = Figure(figsize=(10, 1.6 + 0.75 * len(shown)), layout="constrained")
    axes = figure.subplots()
    named: set[str] = set()
    for row, result in enumerate(shown):
        contenders = [name for name in result.rounds.values if name != CLEAN]
        for k, name in enumerate(contenders):
            ratio = result.rounds.ratio(name, CLEAN)
            y = row + 0.6 * ((k + 0.5) / len(contenders) - 0.5)
            label = None if name in named else name
            named.add(name)
            axes.plot(
                [ratio.low, ratio.high], [y, y], color=COLOURS[name], linewidth=2, solid_capstyle="butt"
            )
            axes.plot([ratio.median], [y], "o", color=COLOURS[name], markersize=5, label=label)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xscale("log")
    ticks = [tick for tick in (0.1, 0.2, 0.4, 0.7, 1, 2, 4, 8, 16, 32) if _within(tick, axes.get_xlim())]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_yticks(
        range(len(shown)), [result.setting.title.replace(", batch", "\nbatch") for result in shown]
    )
    axes.tick_params(axis="y", labelsize=7)
    axes.invert_yaxis()
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_xlabel(f"ratio to {CLEAN} (line at 1); median and quartiles")
    axes.set_title(caption(machine), fontsize=8, loc="left")
    figure.legend(loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    return figure


def _within(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


def draw_sweep(results: Sequence[Result], axis: str, machine: dict[str, str]) -> Figure:
    """Draw times over what is swept, a panel per task and cell, and below it the ratios to torch's clean layer."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.setting.task, result.setting.cell), []).append(result)
    figure = Figure(figsize=(1.5 + 4.2 * len(groups), 6.5), layout="constrained")
    panels = figure.subplots(2, len(groups), squeeze=False, sharex=True, height_ratios=(3, 2))
    named: set[str] = set()
    for column, ((_, cell), group) in enumerate(groups.items()):
        above, below = panels[:, column]
        for name in dict.fromkeys(name for result in group for name in result.rounds.values):
            its = [result for result in group if name in result.rounds.values]
            places = [getattr(result.setting, axis) for result in its]
            values = [result.rounds.spread(name) for result in its]
            label = None if name in named else name
            named.add(name)
            style: dict[str, Any] = {"color": COLOURS[name], "marker": "o", "markersize": 3, "linewidth": 1.2}
            above.plot(places, [value.median for value in values], label=label, **style)
            above.fill_between(places, *zip(*((v.low, v.high) for v in values), strict=True),
                               color=COLOURS[name], alpha=0.2, linewidth=0)  # fmt: skip
            with_clean = [result for result in its if CLEAN in result.rounds.values]
            ratios = [result.rounds.ratio(name, CLEAN).median for result in with_clean]
            below.plot([getattr(result.setting, axis) for result in with_clean], ratios, **style)
        above.set_title(f"{TASKS[group[0].setting.task]}, {cell.upper()}", fontsize=9)
        above.set_yscale("log")
        below.set_yscale("log")
        below.set_xscale("log", base=2)
        ticks = sorted({getattr(result.setting, axis) for result in group})
        below.set_xticks(ticks, [str(tick) for tick in ticks])
        below.set_xlabel(axis)
        if column == 0:
            above.set_ylabel(f"{group[0].rounds.unit}, median and quartiles")
            below.set_ylabel(f"ratio to {CLEAN}")
        for panel in (above, below):
            panel.grid(color="#dddddd", linewidth=0.6)
    first = results[0].setting
    others = (name for name in SIZES if name != axis and (name != "networks" or first.task == "networks"))
    fixed = ", ".join(f"{name} {getattr(first, name)}" for name in others)
    figure.suptitle(f"{caption(machine)}\n{fixed}", fontsize=8)
    figure.legend(loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    return figure


def write(results: Sequence[Result], machine: dict[str, str], figure: Figure, stem: Path) -> list[Path]:
    """Write table and figure; return the files."""
    rows = [row for result in results for row in result.rows()]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table, document = stem.with_suffix(".csv"), stem.with_suffix(".md")
    stem.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(table) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.writelines(f"# {name}: {value}\n" for name, value in machine.items())
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    with write_atomically(document) as temporary:
        temporary.write_text(markdown(results, machine), encoding="utf-8")
    return [table, document, *save_figure(figure, stem)]


# ---------------------------------------------------------------------- command line

SWEEPS: dict[str, tuple[int, ...]] = {
    "batch": (1, 8, 32, 128, 512),
    "units": (16, 32, 64, 128, 256, 512),
    "steps": (1, 10, 25, 50, 98, 196),
    "networks": (1, 2, 4, 8, 16, 32, 64),
    "threads": (1, 2, 4, 8, 16, 32),
}
SIZES = ("batch", "steps", "inputs", "units", "layers", "networks", "threads")
POPULATION_SHAPE: dict[str, Any] = {"units": 64, "batch": 64, "steps": 50, "networks": 32}


def default_settings(device: str, cores: int) -> list[Setting]:
    """Return the settings of the table of targets."""
    if device != "cpu":
        at = Setting("train", batch=512, device=device)
        return [
            at,
            replace(at, task="forward"),
            replace(at, task="curve"),
            replace(at, task="memory"),
            *(replace(at, cell=cell) for cell in ("gru", "rnn")),
            replace(at, task="step", layers=2),
            Setting("networks", batch=128, networks=64, device=device),
        ]
    settings = []
    for batch, its_threads in ((128, 2), (32, 1)):
        at = Setting("train", batch=batch, threads=min(its_threads, cores))
        settings += [replace(at, cell=cell) for cell in EVERY_CELL]
        settings += [
            replace(at, task="forward"),
            replace(at, task="step", layers=2),
            replace(at, task="curve"),
        ]
        settings += [
            replace(at, task="memory", cell=cell) for cell in (EVERY_CELL if batch == 128 else ("lstm",))
        ]
    settings.append(Setting("networks", **POPULATION_SHAPE, threads=min(2, cores)))
    return settings


def settings_of(options: argparse.Namespace, cores: int) -> list[Setting]:
    given = {name: getattr(options, name) for name in SIZES if getattr(options, name) is not None}
    if not (options.sweep or options.tasks or options.cells or given):
        return default_settings(options.device, cores)
    tasks = options.tasks or (["networks"] if options.sweep == "networks" else ["forward", "train"])
    settings = []
    for task in tasks:
        shape: dict[str, Any] = {"threads": min(2, cores)} | (POPULATION_SHAPE if task == "networks" else {})
        shape |= {"layers": 2} if task == "step" else {}
        for cell in options.cells or ["lstm"]:
            at = Setting(task, cell, device=options.device, **(shape | given))
            if options.sweep:
                values = [v for v in SWEEPS[options.sweep] if options.sweep != "threads" or v <= cores]
                shapes: list[dict[str, Any]] = [{options.sweep: value} for value in values]
                settings += [replace(at, **swept) for swept in shapes]
            else:
                settings.append(at)
    return settings


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sweep", choices=SWEEPS, help="measure over this axis")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, help="what to measure")
    parser.add_argument("--cells", nargs="+", choices=EVERY_CELL)
    for name in SIZES:
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--products", choices=get_args(ProductsSetting), help="precision of all of ours")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument(
        "--keep-freed-memory",
        action="store_true",
        help="for all contenders, as the asr-dni command has it (asr_dni.memory)",
    )
    parser.add_argument(
        "--without", nargs="+", default=[], metavar="CONTENDER", help="contenders to leave out"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/benchmarks"), help="folder for table and figure"
    )
    options = parser.parse_args(arguments)
    given = (getattr(options, name) for name in SIZES)
    if options.rounds < 1 or any(size is not None and size < 1 for size in given):
        parser.error("sizes and rounds are at least 1")
    return options


def main(arguments: Sequence[str] | None = None) -> list[Result]:
    options = parse(arguments)
    kept = options.keep_freed_memory and keep_freed_memory()
    machine = describe_machine(torch.device(options.device)) | {
        "kernels": native.status(),
        "freed memory": "kept, for all contenders" if kept else "as the allocator has it",
    }
    console, results = Console(), []
    if not console.is_terminal:
        console = Console(width=180)
    console.print(*(f"{name}: {value}" for name, value in machine.items()), sep="\n", soft_wrap=True)
    settings = [
        replace(setting, products=options.products) for setting in settings_of(options, int(machine["cores"]))
    ]
    bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*bar, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(settings))
        for setting in settings:
            progress.update(task, description=setting.title)
            results.append(measure(setting, options.rounds, options.without))
            progress.advance(task)
    name = f"recurrence_{options.sweep}" if options.sweep else "recurrence"
    figure = draw_sweep(results, options.sweep, machine) if options.sweep else draw_ratios(results, machine)
    files = write(results, machine, figure, options.output / name)
    print_results(results, console)
    if not options.sweep:
        print_verdicts(results, console)
    console.print("written: " + ", ".join(map(str, files)), soft_wrap=True)
    return results


if __name__ == "__main__":
    main()
