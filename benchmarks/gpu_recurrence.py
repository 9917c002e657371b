"""The Triton recurrence on a GPU: is it right, and what does it cost beside clean cuDNN, in one run.

    python benchmarks/gpu_recurrence.py                 # forward + backward, batch 512, and 64 networks of batch 128
    python benchmarks/gpu_recurrence.py --parts         # also what the parts of a step take
    python benchmarks/gpu_recurrence.py --units 256 --kind bfloat16

Before anything is timed, outputs and gradients are held to the plain loop on the CPU in double precision: of the
very tensors that are timed, for their first networks and samples; one beyond what its arithmetic allows ends the run
with status 1, after the times. Contenders take turns in rounds; times are medians with quartiles, ratios those within
the rounds. Each includes the product with the input, and all gradients. "Triton, step by step" is the way that wider
layers go. Without a GPU it says so and ends with status 77; ``--device cpu`` with TRITON_INTERPRET=1 goes through the
same, without figures that mean anything.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))  # also where this file is not what was started

from gpu_results import NOT_HERE, Results, choose_device
from measuring import Rounds, Unavailable, Work, describe_machine, measure_times, peak_of

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

CHECKED = 2, 24
"""Networks and samples that the loop computes too."""
ALLOWED = {"tf32x3": 3e-4, "tf32": 3e-3, "bfloat16": 0.05}
"""The largest relative error, by how factors are multiplied: loosely above what the loop has at the sizes that are
timed, in bfloat16 (0.014) and with weights rounded to TF32 (1.6e-4, and states are rounded too)."""


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
            return (scale * torch.randn(shape, generator=generator)).to(options.device, kind)

        self.cell, self.units, self.batch, self.device = cell, units, batch, options.device
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
        ids = torch.arange(self.batch, device=self.device)
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
            layer = TORCH[self.cell](self.x.shape[-1], self.units, device=self.device, dtype=self.x.dtype)
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


def check(layers: Layers, sites: Sequence[str]) -> list[tuple[str, float]]:
    """Return the largest relative error, by length, of outputs and gradients, of each way.

    The loss is of the first networks' first samples, so that the loop need not compute the others.
    """
    networks, samples = min(CHECKED[0], len(layers.x)), min(CHECKED[1], layers.batch)
    with torch.no_grad():
        projection = layers.project()
    its = (projection, *(each.detach() for each in layers.parameters[2:]))

    def results(run: Any, leaves: Sequence[Tensor], noise: Sites, state: Sequence[Tensor]) -> list[Tensor]:
        mine = [leaf.clone().requires_grad_() for leaf in leaves]
        problem = Recurrence(layers.cell, mine[1], mine[2], tuple(state), noise, projection=mine[0])
        outputs = run(problem)[0][:networks, :, :samples]
        gradients = torch.autograd.grad(outputs.square().sum(), mine)
        found = [
            outputs.detach(),
            gradients[0][:networks, :, :samples],
            *(each[:networks] for each in gradients[1:]),
        ]
        return [each.cpu().double() for each in found]

    few = [its[0][:networks, :, :samples], *(each[:networks] for each in its[1:])]
    expected = results(
        run_reference,
        [each.cpu().double() for each in few],
        noise_at(sites, networks, 0.5, torch.arange(samples)),
        [part[:networks, :samples].cpu().double() for part in layers.state],
    )

    def error() -> float:
        found = results(triton_recurrence.run, its, layers.noise(*sites), layers.state)
        pairs = zip(found, expected, strict=True)
        return float(torch.stack([(mine - right).norm() / right.norm() for mine, right in pairs]).max())

    errors = [("persistent", error())]
    with step_by_step():
        errors.append(("step by step", error()))
    return errors


def peaks(makers: Mapping[str, Callable[[], Work]]) -> Rounds:
    """Return the peak of torch's allocator beyond what is there before, of each contender that runs."""
    measured = Rounds("MB")
    for name, make in makers.items():
        try:
            measured.values[name] = [peak_of(make, make, torch.device("cuda")) / 1e6]
        except Unavailable as reason:
            measured.missing[name] = str(reason)
    return measured


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


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cell", choices=TORCH, default="lstm")
    parser.add_argument("--kind", choices=KINDS, default="float32")
    sizes = {"batch": 512, "steps": 98, "inputs": 40, "units": 128, "networks": 64, "networks-batch": 128}
    for name, default in (sizes | {"rounds": 30}).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--parts", action="store_true", help="time the parts of a step too")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--output", type=Path, help="a JSON file for the tables")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    kind, results = KINDS[options.kind], Results(options.output)
    try:
        device = torch.device(choose_device(options.device))
        placed = torch.empty(
            1, 1, 1, len(EQUATIONS[options.cell].gates) * options.units, device=device, dtype=kind
        )
        nothing = Recurrence(options.cell, placed[0], None, (), Sites([]), projection=placed)
        reason = triton_recurrence.why_not(nothing)
        if reason is not None:
            raise Unavailable(reason)
    except Unavailable as reason:
        print(reason)
        return NOT_HERE
    results.add("machine", ["what", "is"], list(describe_machine(device).items()))
    synchronise = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    everywhere = ("input", "recurrent") + (("elementwise",) if options.cell in ("lstm", "gru") else ())
    for networks, batch in ((1, options.batch), (options.networks, options.networks_batch)):
        layers = Layers(options.cell, networks, options, batch)
        its = triton_recurrence.plan(options.cell, kind, options.units, networks, batch, device)
        print(f"plan: {its}", flush=True)
        shape = f"{options.cell}, {options.kind}, batch {batch}, T {options.steps}, {options.units} units"
        shape += "" if networks == 1 else f", {networks} networks at once, cuDNN's in turn"
        precision = options.kind if kind != torch.float32 else triton_recurrence._precision(kind)
        results.add_errors(
            f"against the loop in double precision: {shape}",
            [(f"{way}, {precision}", error, ALLOWED[precision]) for way, error in check(layers, everywhere)],
        )

        def torchs(layers: Layers = layers, networks: int = networks) -> Work:
            if device.type == "cuda" and torch.backends.cudnn.version() is None:
                raise Unavailable("no cuDNN here")
            return layers.clean_torch(networks)

        makers: dict[str, Callable[[], Work]] = {
            CUDNN: torchs,
            CLEAN: layers.train,
            NOISY: lambda layers=layers: layers.train("input"),  # type: ignore[misc]
            EVERYWHERE: lambda layers=layers: layers.train(*everywhere),  # type: ignore[misc]
            BY_STEPS: lambda layers=layers: by_steps(layers.train("input")),  # type: ignore[misc]
        }
        measured = measure_times(
            makers, options.rounds, slow=(BY_STEPS,), base=CUDNN, synchronise=synchronise
        )
        results.add_rounds(f"forward + backward: {shape}", measured, CUDNN)
        if device.type == "cuda":
            results.add_rounds(f"peak memory of forward + backward: {shape}", peaks(makers), CUDNN)
        if options.parts:
            measured = measure_times(parts(layers), options.rounds, synchronise=synchronise)
            results.add_rounds(f"parts of it: {shape}", measured, None)
    return int(results.wrong)


if __name__ == "__main__":
    sys.exit(main())
