"""K networks as one against the same K in turn, on a GPU: a training step and an evaluation, in time and memory.

    python benchmarks/gpu_networks.py                       # 64 networks: an LSTM of 128 units and a classifier
    python benchmarks/gpu_networks.py --networks 16 --units 256

A training step is forward under noise, cross entropy, backward and Adam; an evaluation one noisy pass that counts what
is right. Before anything is timed, gradients of the first networks are held to the plain loop on the CPU in double
precision. Needs torch and Triton, and nothing else that torch does not bring.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).parent))  # also where this file is not what was started

from gpu_recurrence import peaks
from gpu_results import NOT_HERE, Results, choose_device
from measuring import Unavailable, Work, describe_machine, measure_times

from asr_dni.nn import NoisyLinear, NoisyLSTM, stack_networks, use_implementation
from asr_dni.noise import Noise

LABELS = 10
CHECKED = 2
ALLOWED = 5e-3
"""The largest relative error: of factors rounded to TF32, as torch's own layers have them, or of float32 ones."""
CLEAN, IN_TURN, TOGETHER = "torch, clean, in turn", "noisy, in turn", "noisy, as one population"


class Network(nn.Module):
    """A noisy LSTM and a classifier of its last outputs."""

    def __init__(self, lstm: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.lstm, self.classifier = lstm, classifier

    @classmethod
    def seeded(cls, seed: int, options: argparse.Namespace) -> "Network":
        torch.manual_seed(seed)
        return cls(NoisyLSTM(options.inputs, options.units), NoisyLinear(options.units, LABELS))

    def clean(self) -> "Network":
        """Return torch's layers of the same weights."""
        lstm = nn.LSTM(self.lstm.input_size, self.lstm.hidden_size)
        lstm.load_state_dict(self.lstm.state_dict())
        classifier = nn.Linear(self.classifier.in_features, LABELS)
        classifier.load_state_dict(self.classifier.state_dict())
        return Network(lstm, classifier)

    def set_noise(self, noise: Noise | tuple[Noise, ...]) -> None:
        self.lstm.noise = noise
        self.classifier.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``([K,] N, labels)`` of ``x`` ``(T, N, F)``."""
        return self.classifier(self.lstm(x)[0][..., -1, :, :])


def population_of(members: Sequence[Network]) -> Network:
    lstm = stack_networks([each.lstm for each in members])
    return Network(lstm, stack_networks([each.classifier for each in members]))


def noise_of(member: int, draw: int, ids: Tensor) -> Noise:
    return Noise(1.0, seed=member).realised(draw=draw, sample_ids=ids)


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of the networks' losses."""
    networks = logits.shape[0] if logits.dim() == 3 else 1
    return cross_entropy(logits.reshape(-1, LABELS), labels.repeat(networks)) * networks


def check(
    members: Sequence[Network], x: Tensor, labels: Tensor, device: str
) -> list[tuple[str, float, float]]:
    """Hold losses and gradients of a population to the loop in double precision, member by member."""
    few, ids = members[:CHECKED], torch.arange(x.shape[1])
    together = population_of([Network(each.lstm.to(device), each.classifier.to(device)) for each in few])
    together.set_noise(tuple(noise_of(k, 0, ids.to(device)) for k in range(len(few))))
    loss_of(together(x.to(device)), labels.to(device)).backward()
    worst = 0.0
    for k, member in enumerate(few):
        alone = Network(*(each.cpu().double() for each in (member.lstm, member.classifier)))
        alone.set_noise(noise_of(k, 0, ids))
        with use_implementation("reference"):
            loss_of(alone(x.cpu().double()), labels.cpu()).backward()
        for (name, its), (_, all_of_them) in zip(
            alone.named_parameters(), together.named_parameters(), strict=True
        ):
            assert its.grad is not None, name
            assert all_of_them.grad is not None, name
            error = float((all_of_them.grad[k].cpu().double() - its.grad).norm() / its.grad.norm())
            worst = error if not error <= worst else worst
    return [("weight gradients of a population", worst, ALLOWED)]


class Works:
    """Who is measured: the same networks on the same batch, in turn or as one."""

    def __init__(self, options: argparse.Namespace, x: Tensor, labels: Tensor) -> None:
        self.options, self.x, self.labels = options, x, labels
        self.ids = torch.arange(x.shape[1], device=x.device)
        self.draws = 0

    def members(self) -> list[Network]:
        return [Network.seeded(k, self.options).to(self.x.device) for k in range(self.options.networks)]

    def noises(self) -> list[Noise]:
        self.draws += 1
        return [noise_of(k, self.draws, self.ids) for k in range(self.options.networks)]

    def units(self, contender: str) -> list[Network]:
        """Return the modules that take turns: a population is one."""
        members = self.members()
        if contender == CLEAN:
            return [each.clean().to(self.x.device) for each in members]
        return members if contender == IN_TURN else [population_of(members)]

    def prepare(self, contender: str, networks: Sequence[Network]) -> None:
        if contender == TOGETHER:
            networks[0].set_noise(tuple(self.noises()))
        elif contender == IN_TURN:
            for network, noise in zip(networks, self.noises(), strict=True):
                network.set_noise(noise)

    def training(self, contender: str) -> Callable[[], Work]:
        def make() -> Work:
            networks = self.units(contender)
            optimizers = [torch.optim.Adam(each.parameters()) for each in networks]

            def work() -> None:
                self.prepare(contender, networks)
                for network, optimizer in zip(networks, optimizers, strict=True):
                    optimizer.zero_grad()
                    loss_of(network(self.x), self.labels).backward()
                    optimizer.step()

            return work

        return make

    def evaluation(self, contender: str) -> Callable[[], Work]:
        def make() -> Work:
            networks = self.units(contender)

            @torch.inference_mode()
            def work() -> None:
                self.prepare(contender, networks)
                right = [(network(self.x).argmax(-1) == self.labels).sum(-1) for network in networks]
                torch.stack(right).cpu()

            return work

        return make


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = {"networks": 64, "batch": 128, "steps": 98, "inputs": 40, "units": 128, "rounds": 12}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--output", type=Path, help="a JSON file for the tables")
    options = parser.parse_args(arguments)
    results = Results(options.output)
    try:
        device = choose_device(options.device)
    except Unavailable as reason:
        print(reason)
        return NOT_HERE
    results.add("machine", ["what", "is"], list(describe_machine(torch.device(device)).items()))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(options.steps, options.batch, options.inputs, generator=generator)
    labels = torch.randint(LABELS, (options.batch,), generator=generator)
    with use_implementation("triton"):  # or an error: nothing else is measured in its place
        first = [Network.seeded(k, options) for k in range(min(CHECKED, options.networks))]
        results.add_errors("against the loop in double precision", check(first, x, labels, device))
        works = Works(options, x.to(device), labels.to(device))
        shape = f"{options.networks} LSTMs of {options.units} units, batch {options.batch}, T {options.steps}, float32"
        synchronise = torch.cuda.synchronize if device == "cuda" else lambda: None
        for what, made in (("a training step", works.training), ("a noisy evaluation", works.evaluation)):
            makers = {contender: made(contender) for contender in (CLEAN, IN_TURN, TOGETHER)}
            measured = measure_times(
                makers, options.rounds, slow=(IN_TURN,), base=TOGETHER, synchronise=synchronise
            )
            measured.values = {
                name: [value / options.networks for value in values]
                for name, values in measured.values.items()
            }
            results.add_rounds(f"{what}, per network: {shape}", measured, TOGETHER)
            if device == "cuda":
                results.add_rounds(f"peak memory of {what}, all networks: {shape}", peaks(makers), TOGETHER)
    return int(results.wrong)


if __name__ == "__main__":
    sys.exit(main())
