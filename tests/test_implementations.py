"""The noisy network in the surroundings it is used in: modes, precisions, threads, copies, compilation, processes."""

import copy
import gc
import itertools
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from rounding import assert_same
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from asr_dni.model.network import KeywordNetwork, NetworkSettings
from asr_dni.nn import DropoutSeed, calibrate, native, seeded_dropout, use_implementation
from asr_dni.nn.stacking import stack_networks
from asr_dni.noise import SITES, Noise

CELLS = ("rnn", "lstm", "gru")
EVERYWHERE = Noise(0.5, sites=SITES, arrays="separate", seed=3, draw=1)

every_cell = pytest.mark.parametrize("cell", CELLS)
fused = pytest.param(
    "fused",
    marks=pytest.mark.skipif(native.library() is None, reason=f"no compiled kernels: {native.status()}"),
)
either_way = pytest.mark.parametrize("implementation", [fused, "reference"])


def network_of(cell, **settings):
    torch.manual_seed(0)
    settings = {"units": 9, "layers": 2, "dropout": 0.0, "bidirectional": True} | settings
    return KeywordNetwork(NetworkSettings(cell, **settings), 4, 3)


def features_of(rows=6, steps=5, seed=1):
    return torch.randn(rows, steps, 4, generator=torch.Generator().manual_seed(seed))


def loss_of(logits):
    labels = torch.arange(logits.shape[-2]).remainder(3).expand(logits.shape[:-1])
    return functional.cross_entropy(logits.float().flatten(0, -2), labels.flatten())


def gradients(network, features, noise=EVERYWHERE):
    with network.under(noise):
        logits = network(features)
        return [logits.detach(), *torch.autograd.grad(loss_of(logits), list(network.parameters()))]


def equal(mine, its):
    assert len(mine) == len(its)
    assert all(torch.equal(a, b) for a, b in zip(mine, its, strict=True))


def close(mine, its, atol=1e-5):
    for a, b in zip(mine, its, strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=1e-4)


class TestModes:
    @either_way
    @every_cell
    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_training_goes_on_after_an_evaluation(self, cell, mode, implementation):
        """Nothing that an evaluation leaves behind, an inference tensor say, may reach the next graph."""
        network, features = network_of(cell), features_of()
        with use_implementation(implementation):
            expected = gradients(network, features)
            with mode(), network.under(EVERYWHERE):
                assert_same(network(features), expected[0])
            with torch.inference_mode():
                projection = network.project(features)
                with network.under(EVERYWHERE):
                    assert_same(network.classify(projection), expected[0])
            equal(gradients(network, features), expected)

    @every_cell
    def test_a_parameter_that_was_made_in_inference_mode_is_refused_by_torch_as_ever(self, cell):
        with torch.inference_mode():
            network = network_of(cell)
        with torch.inference_mode(), network.under(EVERYWHERE):
            assert network(features_of()).isfinite().all()
        with network.under(EVERYWHERE), pytest.raises(RuntimeError, match=r"[Ii]nference"):
            network(features_of().requires_grad_()).sum().backward()

    @either_way
    @every_cell
    def test_frozen_networks_and_frozen_inputs(self, cell, implementation):
        """Gradients of what needs them are the same, whatever else needs one."""
        network, x = network_of(cell), features_of().requires_grad_()
        leaves = [x, *network.parameters()]
        with use_implementation(implementation), network.under(EVERYWHERE):
            expected = torch.autograd.grad(loss_of(network(x)), leaves)
            for wanted in (leaves[:1], leaves[1:3], leaves[-2:]):
                for leaf in leaves:
                    leaf.requires_grad_(any(leaf is other for other in wanted))
                got = torch.autograd.grad(loss_of(network(x)), wanted)
                its = [expected[k] for k, leaf in enumerate(leaves) if leaf.requires_grad]
                close(got, its, atol=1e-6)

    @either_way
    @every_cell
    def test_many_graphs_at_once_in_any_order(self, cell, implementation):
        """Buffers that were shared between passes would show."""
        network = network_of(cell)
        inputs = [
            features_of(rows, steps, seed)
            for seed, (rows, steps) in enumerate([(6, 5), (6, 5), (2, 9), (6, 5)])
        ]
        noises = [Noise(0.5, sites=SITES, draw=draw) for draw in range(4)]
        parameters = list(network.parameters())
        with use_implementation(implementation):
            expected = [gradients(network, x, noise) for x, noise in zip(inputs, noises, strict=True)]
            for order in ((3, 2, 1, 0), (1, 3, 0, 2)):
                losses = []
                for x, noise in zip(inputs, noises, strict=True):
                    with network.under(noise):
                        losses.append(loss_of(network(x)))
                for k in order:
                    equal(torch.autograd.grad(losses[k], parameters), expected[k][1:])

    @every_cell
    def test_recomputing_instead_of_keeping(self, cell):
        """Activation checkpointing runs the forward pass again, under the same draw."""
        network, x = network_of(cell), features_of().requires_grad_()
        leaves = [x, *network.parameters()]
        with network.under(EVERYWHERE):
            expected = torch.autograd.grad(loss_of(network(x)), leaves)
            again = torch.autograd.grad(loss_of(checkpoint(network, x, use_reentrant=False)), leaves)
        equal(again, expected)

    @every_cell
    def test_accumulating_gradients_is_one_batch(self, cell):
        network, features, ids = network_of(cell), features_of(8), torch.arange(8)

        def accumulate(parts):
            network.zero_grad()
            for part in parts:
                with network.under(Noise(0.5, sites=SITES, draw=0, sample_ids=part)):
                    logits = network(features[part])
                functional.cross_entropy(logits, part % 3, reduction="sum").backward()
            return [parameter.grad.clone() for parameter in network.parameters()]

        close(accumulate(ids.split(3)), accumulate([ids]))


class TestPrecision:
    @either_way
    @every_cell
    @pytest.mark.parametrize("networks", [1, 3])
    def test_autocast(self, cell, networks, implementation):
        """bfloat16 has 8 bits: logits are within a few of its steps, and gradients have the same direction."""
        network = network_of(cell)
        if networks > 1:
            network = stack_networks([network_of(cell) for _ in range(networks)])
        features = features_of()
        with use_implementation(implementation):
            expected, *expected_gradients = gradients(network, features)
            with network.under(EVERYWHERE), torch.autocast("cpu", torch.bfloat16):
                logits = network(features)
            got = torch.autograd.grad(loss_of(logits), list(network.parameters()))
        assert (logits.float() - expected).abs().max() < 0.05 * expected.abs().max() + 0.02
        assert all(gradient.dtype == torch.float32 for gradient in got)
        mine, its = (torch.cat([g.flatten() for g in part]) for part in (got, expected_gradients))
        assert functional.cosine_similarity(mine, its, dim=0) > 0.99

    @every_cell
    def test_a_loss_scaler_is_not_needed_but_works(self, cell):
        network = network_of(cell)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        before = copy.deepcopy(network)
        with network.under(EVERYWHERE), torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(network(features_of()))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        moved = [
            not torch.equal(a, b) for a, b in zip(network.parameters(), before.parameters(), strict=True)
        ]
        assert all(moved)
        assert all(parameter.isfinite().all() for parameter in network.parameters())


class TestThreads:
    @pytest.mark.parametrize(
        ("cell", "implementation"),
        [
            *(pytest.param(cell, "fused", marks=fused.marks) for cell in CELLS),
            pytest.param("rnn", "reference"),
            *(pytest.param(cell, "reference", marks=pytest.mark.slow) for cell in CELLS if cell != "rnn"),
        ],
    )
    def test_of_python(self, cell, implementation):
        """Passes that run at the same time, forward and backward, do not touch each other."""
        network = network_of(cell, units=33)
        inputs = [features_of(8 + k % 3, 12, seed=k) for k in range(6)]
        times = 3 if implementation == "fused" else 1

        def work(x):
            with use_implementation(implementation):  # a thread begins with no setting
                mine = copy.deepcopy(network)
                mine.noise = EVERYWHERE
                logits = mine(x)
                return [logits.detach(), *torch.autograd.grad(loss_of(logits), list(mine.parameters()))]

        expected = [work(x) for x in inputs]
        with ThreadPoolExecutor(4) as pool:
            for got, its in zip(pool.map(work, inputs * times), expected * times, strict=True):
                equal(got, its)

    @every_cell
    def test_their_number_changes_rounding_of_weight_gradients_at_most(self, cell):
        """As in torch's own layers, whose products over all steps are summed in another order."""
        network, features = network_of(cell, units=64), features_of(64, 20)
        network.train()
        noise = Noise(0.5, sites=SITES, draw=0)
        before, results = torch.get_num_threads(), []
        try:
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                with seeded_dropout(network, DropoutSeed(0)):
                    results.append(gradients(network, features, noise))
        finally:
            torch.set_num_threads(before)
        for other in results[1:]:
            close(other[:1], results[0][:1], atol=1e-6)
            close(other, results[0])


class TestCopies:
    @pytest.mark.parametrize("way", ["deepcopy", "pickle", "file"])
    @every_cell
    def test_have_the_same_weights_statistics_and_noise(self, cell, way, tmp_path):
        network = network_of(cell)
        calibrate(network, [features_of()])
        noise = Noise(0.5, scale="signal", sites=SITES, draw=2)
        network.noise = noise
        expected = network(features_of())
        if way == "file":  # weights and statistics; noise is the hardware's, and not in it
            torch.save(network.state_dict(), tmp_path / "network.pt")
            twin = network_of(cell)
            for parameter in twin.parameters():
                torch.nn.init.zeros_(parameter)
            twin.load_state_dict(torch.load(tmp_path / "network.pt", weights_only=True))
            assert not twin.noise.on
            twin.noise = noise
        else:
            twin = copy.deepcopy(network) if way == "deepcopy" else pickle.loads(pickle.dumps(network))
        assert torch.equal(twin(features_of()), expected)

    def test_go_on_where_the_original_was(self):
        """The number of passes is copied, so the next pass of both is the same draw, and not the first one."""
        network, features = network_of("lstm"), features_of()
        network.noise = Noise(0.5)
        first = network(features)
        twin = copy.deepcopy(network)
        second = network(features)
        assert not torch.equal(first, second)
        assert torch.equal(twin(features), second)


# ---------------------------------------------------------------------- no leak

MEMORY = Path("/proc/self/statm")


def resident():
    gc.collect()
    tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
    return 4096 * int(MEMORY.read_text().split()[1]), tensors


@pytest.mark.skipif(not MEMORY.exists(), reason="the process's memory is read from /proc")
@pytest.mark.parametrize(
    ("kind", "implementation"),
    [
        *(pytest.param(kind, "fused", marks=fused.marks) for kind in ("population", "any shape")),
        *(
            pytest.param(kind, "fused", marks=[*fused.marks, pytest.mark.slow])
            for kind in ("gru", "evaluation")
        ),
        pytest.param("gru", "reference", marks=pytest.mark.slow),
    ],
)
def test_no_growth_over_many_steps(kind, implementation):
    """Neither tensors nor memory: what one step keeps would be 150 times as much at the end.

    A step's gates alone take 5 * 32 * 3 * 9 * 4 bytes in each direction, which would be 5 MB.
    """
    settings = {"layers": 1, "dropout": 0.1}
    network = network_of("gru" if kind == "gru" else "lstm", **settings)
    if kind == "population":
        network = stack_networks([network_of("lstm", **settings) for _ in range(3)])
    optimizer = torch.optim.Adam(network.parameters())
    shapes = itertools.cycle(
        itertools.product(range(8, 65, 8), range(1, 13)) if kind == "any shape" else [(32, 5)]
    )
    largest = features_of(64, 12)
    evaluation = torch.inference_mode(kind == "evaluation")
    count = itertools.count()

    def run(steps):
        for _ in range(steps):
            rows, length = next(shapes)
            noise = Noise(0.5, sites=SITES, draw=next(count), sample_ids=torch.arange(rows))
            with network.under(noise), evaluation:
                logits = network(largest[:rows, :length])
            if kind != "evaluation":
                optimizer.zero_grad()
                loss_of(logits).backward()
                optimizer.step()

    with use_implementation(implementation):
        run(100)
        before, tensors = resident()
        run(150)
        after, tensors_after = resident()
    assert after - before < 3e6
    assert tensors_after <= tensors


# ---------------------------------------------------------------------- compiled by torch


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@every_cell
def test_training_a_compiled_network(cell):
    """A draw a step, as in training: more of them than torch compiles versions of a function."""
    torch._dynamo.reset()
    network = network_of(cell, layers=1, bidirectional=False)
    twin = copy.deepcopy(network)
    compiled = torch.compile(network)
    features, limit = features_of(), torch._dynamo.config.recompile_limit
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.5) for module in (network, twin)]
    for draw in range(limit + 4):
        noise = Noise(0.1 * draw, sites=SITES, seed=7, draw=draw, sample_ids=torch.arange(6))
        losses = []
        for module, called, optimizer in ((network, compiled, optimizers[0]), (twin, twin, optimizers[1])):
            optimizer.zero_grad()
            with module.under(noise):
                losses.append(loss_of(called(features)))
            losses[-1].backward()
            optimizer.step()
        torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-5)
    close(network.parameters(), twin.parameters())


# ---------------------------------------------------------------------- several processes

TRAINING = """
import sys
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from asr_dni.data import Batch
from asr_dni.model import KeywordSpotter, NetworkSettings, TrainingNoise

processes, batch_size, cell, result = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]


def collate(samples):
    features, labels, ids = zip(*samples)
    return Batch(torch.stack(features), torch.tensor(labels), torch.tensor(ids))


generator = torch.Generator().manual_seed(1)
samples = [(torch.randn(5, 4, generator=generator), k % 3, 1000 + 7 * k) for k in range(24)]
pl.seed_everything(0, verbose=False)
spotter = KeywordSpotter(
    ["a", "b", "c"],
    4,
    NetworkSettings(cell, units=9, layers=2, dropout=0.3),
    TrainingNoise(sites=["input", "recurrent", "elementwise", "output"], seed=5),
    optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.5),
    schedule="constant",
    warm_up=0.0,
)
spotter.sigma_train = 0.7
trainer = pl.Trainer(
    accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto", max_epochs=1, logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    use_distributed_sampler=False,
)


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        mine = samples[trainer.global_rank :: trainer.world_size]
        return DataLoader(mine, batch_size=batch_size, shuffle=False, collate_fn=collate)


trainer.fit(spotter, datamodule=Data())
assert trainer.world_size == processes
assert trainer.global_step == 3
if trainer.is_global_zero:
    torch.save({name: value.clone() for name, value in spotter.network.named_parameters()}, result)
"""


@pytest.mark.slow
@every_cell
def test_two_processes_train_as_one_does(cell, tmp_path):
    """DDP over gloo: three steps of 4 clips in each of two processes, against three steps of all 8.

    Each process takes every second clip, so each step sees the same clips; noise and dropout go by their identities.
    """
    script = tmp_path / "training.py"
    script.write_text(TRAINING)
    trained = []
    for processes in (1, 2):
        result = tmp_path / f"{processes}.pt"
        command = [sys.executable, str(script), str(processes), str(8 // processes), cell, str(result)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        trained.append(torch.load(result, weights_only=True))
    one, two = trained
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=2e-6, rtol=1e-5, msg=name)
