"""What each lever of training costs a training step on the CPU, as a ratio to the plain step.

    python benchmarks/levers.py                        # a table (Markdown), about a minute on an idle core
    python benchmarks/levers.py --batch 128 --rounds 30

A step is features of clips (of random samples), forward and backward pass under noise and AdamW, on one thread, of the
packaged CRNN and of an LSTM of two layers; teachers are the packaged CRNN. All cases take turns in rounds; what is told
is the processor's time of each one's best round.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from hardware_costs import measure
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

import asr_dni
from asr_dni.data import KeywordData, TrainingBatch
from asr_dni.model import Consistency, Distillation, KeywordSpotter, NetworkSettings, TrainingNoise
from asr_dni.model.step import DrawnBySample

TEACHER = "eight_words_conventional"
WEIGHT_NOISE = TrainingNoise(
    hardware={"weight": {"class_path": "GaussianWeights"}, "output": {"class_path": "Gaussian"}}
)
LEVERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mixup": {"mixup": 0.2},
    "averaged weights, at every step": {},
    "a strength for each clip": {},
    "weight noise beside the outputs'": {"noise": WEIGHT_NOISE},
    "distillation, 1 teacher": {"distillation": Distillation([TEACHER])},
    "distillation, 3 teachers": {"distillation": Distillation([TEACHER] * 3)},
    "consistency, 2 draws": {"consistency": Consistency(2)},
    "consistency, 3 draws": {"consistency": Consistency(3)},
    "SAM": {"sam_rho": 0.05},
}


class Hearing:
    """Enough of a datamodule for teachers."""

    keeps_inputs = False

    def features_as_in(self, checkpoint: Any) -> nn.Module:
        """Return the front end of a network."""
        return KeywordData.clip_features_from_checkpoint(checkpoint)


def work(lever: str, network: NetworkSettings, packaged: asr_dni.Spotter, batch: int) -> Callable[[], None]:
    """Return a training step."""
    torch.manual_seed(0)
    waveforms, labels, ids = 0.1 * torch.randn(batch, 16_000), torch.arange(batch) % 8, torch.arange(batch)
    features_of = packaged.features
    assert features_of is not None
    names, n_features = packaged.label_names, features_of.n_features
    spotter = KeywordSpotter(names, n_features, network, calibrate_every=0, **LEVERS[lever]).train()
    spotter.sigma_train = 2.0
    if lever == "a strength for each clip":
        spotter.drawn = DrawnBySample(0.0, 2.0)
    spotter.read_teachers(Hearing())
    optimizer = torch.optim.AdamW(spotter.parameters(), lr=1e-3)
    average = AveragedModel(spotter, avg_fn=get_ema_avg_fn(0.998)) if "averaged" in lever else None

    def run() -> None:
        made = TrainingBatch(features_of(waveforms), labels, ids, waveforms)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = spotter.training_step(made, 0)
            loss.backward()
            return loss

        optimizer.step(spotter.in_two_passes(closure) if spotter.recipe.sam_rho else closure)
        if average is not None:
            average.update_parameters(spotter)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    packaged = asr_dni.load("eight_words_dni")
    networks = {"CRNN": packaged.model.network.settings, "LSTM, 2 x 128": NetworkSettings()}
    best = {
        name: measure(
            {lever: work(lever, network, packaged, options.batch) for lever in LEVERS},
            options.rounds,
        )
        for name, network in networks.items()
    }
    print(f"| a training step, batch {options.batch} | {' | '.join(best)} |\n|---|{'---:|' * len(best)}")
    for lever in LEVERS:
        ratios = [f"{its[lever] / its['plain']:.2f}" for its in best.values()]
        if lever == "plain":
            ratios = [f"1 ({1e3 * its[lever]:.0f} ms)" for its in best.values()]
        print(f"| {lever} | {' | '.join(ratios)} |")


if __name__ == "__main__":
    main()
