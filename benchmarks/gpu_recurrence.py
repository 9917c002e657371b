"""The Triton recurrence on a GPU: is it right, and what does it cost beside clean cuDNN, in one run.

    python benchmarks/gpu_recurrence.py                 # forward + backward, batch 512, and 64 networks of batch 128
    python benchmarks/gpu_recurrence.py --parts         # also what the parts of a step take
    python benchmarks/gpu_recurrence.py --units 256 --kind bfloat16

Before anything is timed, outputs and gradients are held to the plain loop on the CPU in double precision. Contenders
take turns in rounds; times are medians with quartiles, ratios those within the rounds. Each includes the product with
the input, and all gradients. "Triton, step by step" is the way that wider layers go. Without a GPU it says so and ends.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))  # also where this file is not what was started

from measuring import Rounds, Unavailable, Work, describe_machine, measure_times

from asr_dni.nn import CELLS as EQUATIONS
from asr_dni.nn import triton_recurrence
from asr_dni.nn.operations import Product
from asr_dni.nn.recurrence import Recurrence, Sites
from asr_dni.nn.reference import run_reference

TORCH: dict[str, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN}
KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CUDNN = "cuDNN, clean"
CLEAN = "Triton, clean"
NOISY = "Triton, noisy"
EVERYWHERE = "Triton, every site"
BY_STEPS = "Triton, noisy, step by step"


def noise_at(sites: Sequence[str], networks: int, std: float, ids: Tensor) -> Sites:
    """Return noise of K networks."""
    its_sites = {
        site: Product.gaussian_of([std] * networks, [(k, place) for k in range(networks)])
        for place, site in enumerate(sites)
    }
    return Sites([ids] * networks, **its_sites)


class Layers:
    """The tensors of K layers of one cell, with their input; a noise of each."""

    def __init__(self, cell: str, networks: int, options: argparse.Namespace, batch: int) -> None:
        generator = torch.Generator().manual_seed(0)
        kind, rows, units = KINDS[options.kind], len(EQUATIONS[cell].gates) * options.units, options.units

        def tensor(*shape: int, scale: float = 1.0) -> Tensor:
            return (scale * torch.randn(shape, generator=generator)).to("cuda", kind)

        self.cell, self.units, self.batch = cell, units, batch
        self.x = tensor(networks, options.steps * batch, options.inputs)
        scale = units**-0.5
        shapes = (
            (networks, rows, options.inputs),
            (networks, 1, rows),
            (networks, rows, units),
            (networks, rows),
        )
        self.parameters = [tensor(*shape, scale=scale).requires_grad_() for shape in shapes]
        h = self.x.new_zeros(networks, batch, units)
        self.state = (h, h) if cell == "lstm" else (h,)

    def noise(self, *sites: str) -> Sites:
        ids = torch.arange(self.batch, device="cuda")
        return noise_at(sites, len(self.x), 0.5, ids)

    def project(self) -> Tensor:
        w_ih, b_ih = self.parameters[:2]
        projection = torch.baddbmm(b_ih, self.x, w_ih.mT)
        return projection.view(len(self.x), -1, self.batch, projection.shape[-1])

    def run(self, noise: Sites) -> Tensor:
        outputs, _ = triton_recurrence.run(self.problem(self.project(), *self.parameters[2:], noise))
        return outputs

    def problem(self, projection: Tensor, w_hh: Tensor, b_hh: Tensor, noise: Sites) -> Recurrence:
        return Recurrence(self.cell, w_hh, b_hh, self.state, noise, projection=projection)

    def train(self, *sites: str) -> Work:
        noise = self.noise(*sites)

        def work() -> None:
            torch.autograd.grad(self.run(noise).sum(), self.parameters)

        return work

    def clean_torch(self, networks: int) -> Work:
        """The same work by torch's layers, one after another."""
        layers = []
        for k in range(networks):
            layer = TORCH[self.cell](self.x.shape[-1], self.units, device="cuda", dtype=self.x.dtype)
            layer.flatten_parameters()
            layers.append((layer, self.x[k].view(-1, self.batch, self.x.shape[-1])))

        def work() -> None:
            for layer, x in layers:
                torch.autograd.grad(layer(x)[0].sum(), list(layer.parameters()))

        return work


@contextmanager
def step_by_step() -> Iterator[None]:
    with mock.patch.object(triton_recurrence, "plan", return_value=None):
        yield


def by_steps(work: Work) -> Work:
    def stepwise() -> None:
        with step_by_step():
            work()

    return stepwise


def check(cell: str, kind: torch.dtype, units: int) -> list[tuple[str, float]]:
    """Return the largest relative error, by length, of outputs and gradients, of each way."""
    generator = torch.Generator().manual_seed(1)
    rows = len(EQUATIONS[cell].gates) * units
    shapes = ((2, 12, 24, rows), (2, rows, units), (2, rows))
    leaves = [torch.randn(shape, generator=generator) for shape in shapes]
    leaves[1] *= units**-0.5
    leaves = [leaf.to(kind) for leaf in leaves]
    sites = ("input", "recurrent") if cell == "rnn_tanh" else ("input", "recurrent", "elementwise")

    def results(run: Any, device: str, kind: torch.dtype) -> list[Tensor]:
        mine = [leaf.to(device, kind).requires_grad_() for leaf in leaves]
        ids = torch.arange(24, device=device)
        noise = noise_at(sites, 2, 0.3, ids)
        h = mine[0].new_zeros(2, 24, units)
        state = (h, h) if cell == "lstm" else (h,)
        outputs = run(Recurrence(cell, mine[1], mine[2], state, noise, projection=mine[0]))[0]
        return [outputs, *torch.autograd.grad(outputs.square().sum(), mine)]

    expected = results(run_reference, "cpu", torch.float64)

    def error() -> float:
        found = results(triton_recurrence.run, "cuda", kind)
        pairs = zip(found, expected, strict=True)
        return max(
            float((mine.detach().cpu().double() - its.detach()).norm() / its.norm()) for mine, its in pairs
        )

    errors = [("persistent", error())]
    with step_by_step():
        errors.append(("step by step", error()))
    return errors


def parts(layers: Layers) -> dict[str, Callable[[], Work]]:
    """What a step is made of, each alone."""
    noise = layers.noise("input")
    with torch.no_grad():
        projection = layers.project()
    outputs = torch.zeros_like(projection[..., : layers.units])
    flat, before = projection.flatten(1, 2), outputs.flatten(1, 2)

    def forward(noise: Sites) -> Work:
        problem = layers.problem(projection, *(each.detach() for each in layers.parameters[2:]), noise)

        def work() -> None:
            with torch.no_grad():
                triton_recurrence.run(problem)

        return work

    return {
        "product with the input": lambda: layers.project,
        "recurrence forward, clean": lambda: forward(layers.noise()),
        "recurrence forward, noisy": lambda: forward(noise),
        "weight gradient": lambda: lambda: torch.bmm(flat.mT, before),
        "bias gradient": lambda: lambda: flat.sum(1, dtype=torch.float32),
    }


def show(console: Console, title: str, rounds: Rounds, base: str | None) -> None:
    table = Table(title=title)
    for column in ("contender", "ms, median (quartiles)", *(["of cuDNN's time"] if base else [])):
        table.add_column(column)
    for name in rounds.values:
        ratio = [rounds.ratio(name, base).text()] if base in rounds.values else []
        table.add_row(name, rounds.spread(name).text(3), *ratio)
    console.print(table)
    for name, reason in rounds.missing.items():
        console.print(f"{name}: not measured: {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cell", choices=TORCH, default="lstm")
    parser.add_argument("--kind", choices=KINDS, default="float32")
    sizes = {"batch": 512, "steps": 98, "inputs": 40, "units": 128, "networks": 64, "networks-batch": 128}
    for name, default in (sizes | {"rounds": 30}).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--parts", action="store_true", help="time the parts of a step too")
    options = parser.parse_args()
    console = Console()
    if not torch.cuda.is_available():
        console.print("no GPU here: nothing was measured")
        return
    for name, value in describe_machine(torch.device("cuda")).items():
        console.print(f"{name}: {value}", soft_wrap=True)
    kind = KINDS[options.kind]
    placed = torch.empty(
        1, 1, 1, len(EQUATIONS[options.cell].gates) * options.units, device="cuda", dtype=kind
    )
    reason = triton_recurrence.why_not(Recurrence(options.cell, placed[0], None, (), [], projection=placed))
    if reason is not None:
        console.print(f"nothing was measured: {reason}")
        return
    for cell in TORCH:
        for way, error in check(cell, kind, options.units):
            console.print(f"{cell}, {way}: off the loop in double precision by {error:.1e} of its length")

    everywhere = ("input", "recurrent") + (("elementwise",) if options.cell in ("lstm", "gru") else ())
    for networks, batch in ((1, options.batch), (options.networks, options.networks_batch)):
        layers = Layers(options.cell, networks, options, batch)
        its = triton_recurrence.plan(options.cell, kind, options.units, networks, batch, placed.device)
        console.print(f"plan: {its}", soft_wrap=True)

        def torchs(layers: Layers = layers, networks: int = networks) -> Work:
            if not torch.backends.cudnn.enabled or torch.backends.cudnn.version() is None:
                raise Unavailable("no cuDNN here")
            return layers.clean_torch(networks)

        makers: dict[str, Callable[[], Work]] = {
            CUDNN: torchs,
            CLEAN: layers.train,
            NOISY: lambda layers=layers: layers.train("input"),  # type: ignore[misc]
            EVERYWHERE: lambda layers=layers: layers.train(*everywhere),  # type: ignore[misc]
            BY_STEPS: lambda layers=layers: by_steps(layers.train("input")),  # type: ignore[misc]
        }
        shape = f"{options.cell}, {options.kind}, batch {batch}, T {options.steps}, {options.units} units"
        beside = "" if networks == 1 else f", {networks} networks at once, cuDNN's in turn"
        measured = measure_times(
            makers, options.rounds, slow=(BY_STEPS,), base=CUDNN, synchronise=torch.cuda.synchronize
        )
        show(console, f"forward + backward: {shape}{beside}", measured, CUDNN)
        if options.parts:
            measured = measure_times(parts(layers), options.rounds, synchronise=torch.cuda.synchronize)
            show(console, f"parts: {shape}{beside}", measured, None)


if __name__ == "__main__":
    main()
