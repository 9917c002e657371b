"""CRNNs: convolutions in front of the recurrent layers, alone and as populations, from settings to curves."""

import dataclasses
import itertools
import math

import pytest
import torch
from covering import thinned
from tiny_study import start, tiny
from torch import nn
from torch.nn import functional

import asr_dni
from asr_dni.cli.main import main
from asr_dni.data import DigitsData
from asr_dni.errors import UserError
from asr_dni.evaluation import NoiseCurve, measure_noise_curve
from asr_dni.evaluation.measurement.scoring import Passes
from asr_dni.model import KeywordNetwork, KeywordSpotter, NetworkSettings
from asr_dni.model.convolutions import ConvolutionBlock, ConvolutionSettings
from asr_dni.model.network import cell_names
from asr_dni.model.step import calibrate_in_training
from asr_dni.nn import (
    DropoutSeed,
    NoisyConv2d,
    calibrate,
    seeded_dropout,
    stack_networks,
)
from asr_dni.noise import (
    SITES,
    Gaussian,
    GaussianWeights,
    Hardware,
    Noise,
    Realisation,
    Strength,
    UniformConverter,
)
from asr_dni.study.cost import DataSize, memory_of_member, operations_per_clip
from asr_dni.study.matrix import make_matrices
from asr_dni.study.matrix_words import label_matrices
from asr_dni.study.plan import Population
from asr_dni.study.work import work_on

N, T, F, C, H = 4, 9, 7, 3, 6
BLOCKS = [
    ConvolutionBlock(4, [5, 3], [2, 2]),
    ConvolutionBlock(5, [3, 3], [1, 2], separable=True),
]
SMALL = ConvolutionSettings(BLOCKS, width=8)
EVERY_PRODUCT = ("convolution", "input", "recurrent", "output")


def make(seed: int = 0, **settings) -> KeywordNetwork:
    torch.manual_seed(seed)
    settings = {"units": H, "layers": 1, "dropout": 0.0, "convolutions": SMALL, **settings}
    network = KeywordNetwork(NetworkSettings(**settings), F, C)
    for module in network.modules():  # as after some training
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                nn.init.normal_(tensor, std=0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


def features(seed: int = 1, rows: int = N) -> torch.Tensor:
    return torch.randn(rows, T, F, generator=torch.Generator().manual_seed(seed))


def torchs_frames(network: KeywordNetwork, settings: ConvolutionSettings, x: torch.Tensor) -> torch.Tensor:
    """What the recurrent layers get ``(N, T, outputs)``, out of torch.nn with the same weights in the same order."""
    layers: list[nn.Module] = []
    fed = 1
    for block in settings.blocks:
        padding = [size // 2 for size in block.kernel]
        if block.separable:
            layers += [
                nn.Conv2d(fed, fed, block.kernel, block.stride, padding, groups=fed, bias=False),
                nn.BatchNorm2d(fed),
                nn.ReLU(),
                nn.Conv2d(fed, block.channels, 1, bias=False),
            ]
        else:
            layers.append(nn.Conv2d(fed, block.channels, block.kernel, block.stride, padding, bias=False))
        layers += [nn.BatchNorm2d(block.channels), nn.ReLU()]
        fed = block.channels
    twin = nn.Sequential(*layers).eval()
    values = list(network.convolutions.state_dict().values())
    own = twin.state_dict()
    twin.load_state_dict(dict(zip(own, values[: len(own)], strict=True)))
    frames = twin(x[:, None]).permute(0, 2, 1, 3).flatten(2)
    if not settings.width:
        return frames
    matrix, scale, shift, mean, variance, _ = values[len(own) :]
    y = frames @ matrix[:, :, 0, 0].T
    return torch.relu((y - mean) / (variance + 1e-5).sqrt() * scale + shift)


class TestNetwork:
    @pytest.mark.parametrize(
        "settings",
        [
            SMALL,
            dataclasses.replace(SMALL, width=0),
            ConvolutionSettings([ConvolutionBlock(3, [1, 1]), ConvolutionBlock(2, [3, 5], [3, 1])]),
            ConvolutionSettings([ConvolutionBlock(3, separable=True)], width=2),
        ],
        ids=str,
    )
    def test_on_exact_hardware_it_is_torchs(self, settings):
        network, x = make(convolutions=settings), features()
        frames = torchs_frames(network, settings, x)
        assert frames.shape == (N, settings.n_frames(T), settings.n_outputs(F))
        lstm = nn.LSTM(frames.shape[-1], H, batch_first=True)
        lstm.load_state_dict(network.recurrent.state_dict())
        expected = network.classifier(lstm(frames)[0]).mean(1)
        torch.testing.assert_close(network(x), expected)
        assert settings.n_weights(F) == sum(
            module.weight.numel() for module in network.modules() if isinstance(module, NoisyConv2d)
        )

    def test_a_residual_block_adds_its_input_and_sub_bands_are_normalised_by_themselves(self):
        blocks = [
            ConvolutionBlock(4),
            ConvolutionBlock(4, [3, 3], separable=True, residual=True, sub_bands=7),
        ]
        network, x = make(convolutions=ConvolutionSettings(blocks)), features()
        layers = list(network.convolutions.blocks)

        def stage(k, images, sub_bands=1, **settings):
            y = functional.conv2d(images, layers[k].weight, **settings)
            its = [its.view(4, sub_bands) for its in (layers[k + 1].weight, layers[k + 1].bias)]
            its += [its.view(4, sub_bands) for its in (layers[k + 1].running_mean, layers[k + 1].running_var)]
            scale, shift, mean, variance = (
                values.repeat_interleave(F // sub_bands, 1)[:, None] for values in its
            )
            return (y - mean) / (variance + 1e-5).sqrt() * scale + shift

        before = stage(0, x[:, None], padding=1).relu()
        inner = stage(3, before, 7, padding=1, groups=4).relu()
        expected = (stage(6, inner, 7) + before).relu()
        got = network.convolutions(x)
        torch.testing.assert_close(got, expected.permute(2, 0, 1, 3).flatten(2))
        members = [make(seed, convolutions=ConvolutionSettings(blocks)) for seed in range(2)]
        population = stack_networks(members)
        noises = [Noise(0.3 * k, seed=k, draw=k, sites=EVERY_PRODUCT) for k in range(2)]
        for training in (True, False):
            with population.train(training).under(noises):
                together = population(x)
            for k, member in enumerate(members):
                with member.train(training).under(noises[k]):
                    torch.testing.assert_close(together[k], member(x), atol=1e-5, rtol=1e-4)

    @thinned(
        1,
        cell=cell_names(),
        bidirectional=(False, True),
        pooling=("last", "mean", "max", "frame", "attention"),
        sites=(None, EVERY_PRODUCT, SITES),
    )
    def test_of_k_crnns_each_is_what_it_is_alone(self, cell, bidirectional, pooling, sites):
        settings = {"cell": cell, "bidirectional": bidirectional, "pooling": pooling, "dropout": 0.3}
        settings["convolutions"] = dataclasses.replace(SMALL, dropout=0.4)
        members = [make(seed, **settings) for seed in range(3)]
        population, x = stack_networks(members), features()
        ids = torch.tensor([7, 1, 2**40, 3])
        noises = [
            Noise(0.3 * k, seed=k, draw=k, sample_ids=ids, **({"sites": sites} if sites else {}))
            for k in range(3)
        ]
        seeds = [DropoutSeed(k, 5, ids) for k in range(3)]
        for training in (True, False):
            population.train(training)
            with population.under(noises), seeded_dropout(population, seeds):
                together = population(x)
            ours = torch.autograd.grad(together.square().sum(), list(population.parameters()))
            for k, member in enumerate(members):
                member.train(training)
                with member.under(noises[k]), seeded_dropout(member, seeds[k]):
                    alone = member(x)
                torch.testing.assert_close(together[k], alone, atol=1e-5, rtol=1e-4)
                theirs = torch.autograd.grad(alone.square().sum(), list(member.parameters()))
                for mine, its in zip(ours, theirs, strict=True):
                    torch.testing.assert_close(mine[k], its, atol=2e-5, rtol=1e-3)

    def test_a_clips_noise_does_not_depend_on_its_batch(self):
        network, x = make(), features()
        ids = torch.tensor([11, 22, 33, 44])
        with network.under(Noise(1.0, sites=EVERY_PRODUCT, draw=0, sample_ids=ids)):
            together = network(x)
        with network.under(Noise(1.0, sites=EVERY_PRODUCT, draw=0, sample_ids=ids[[3, 1]])):
            torch.testing.assert_close(network(x[[3, 1]]), together[[3, 1]], rtol=1e-4, atol=1e-5)

    def test_digital_convolutions_are_done_once_and_analog_ones_in_every_pass(self):
        network, x = make(), features()
        exact = Hardware(Gaussian(0.5))
        analog = Hardware(Gaussian(0.5), sites=EVERY_PRODUCT)
        only_them = Hardware(Gaussian(0.5), sites=("convolution",))
        converted = Hardware(dac=UniformConverter(4, 1.0, "absolute"))
        assert [network.inputs_exact(its) for its in (exact, analog, only_them, converted)] == [
            True,
            False,
            False,
            False,
        ]
        assert make(convolutions=None).inputs_exact(only_them)
        projection = network.project(x)
        for hardware in (exact, analog, only_them, converted):
            passes, results = Passes(network, x), []
            for draw in range(2):
                noise = Noise.of(hardware, Realisation(draw=draw))
                with network.under(noise):
                    expected = network(x)
                results.append(passes.logits(noise))
                assert torch.equal(results[-1], expected)
            assert torch.equal(*results) != hardware.random
        with network.under(exact, Realisation(draw=0)):
            assert torch.equal(network.classify(projection), network(x))
        for hardware in (analog, only_them):
            with network.under(hardware):
                assert torch.equal(network.project(x), projection)  # it is the clean one under any noise
                with pytest.raises(UserError, match="give the features"):
                    network.classify(projection)

    def test_snr_is_over_convolutions_too_where_they_are_analog(self):
        network, x = make(), features()
        noise = Hardware(Gaussian(0.1, "signal"), sites=("convolution",))
        assert network.snr_db(noise) is None
        calibrate(network, [x])
        assert network.snr_db(noise) == pytest.approx(20.0)
        assert network.snr_db(Hardware(Gaussian(0.5), sites=EVERY_PRODUCT)) is not None

    def test_in_training_signals_have_the_size_that_the_noisy_pass_has(self):
        """From the first step on, when the running statistics of the normalisation are nobody's yet."""
        torch.manual_seed(0)
        network = KeywordNetwork(NetworkSettings(units=H, layers=1, dropout=0.0, convolutions=SMALL), F, C)
        x = 5 + 3 * features(rows=20)
        before = {name: value.clone() for name, value in network.named_buffers()}
        calibrate_in_training(network.train(), x, 0, 1)
        assert all(module.training for module in network.modules())
        assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
        sizes = {}

        def note(module, inputs, output):
            clean = functional.conv2d(
                *inputs, module.weight, None, module.stride, module.padding, 1, module.groups
            )
            folded = clean / (clean.var((0, 2, 3), correction=0) + 1e-5).sqrt()[:, None, None]
            sizes[module] = float(folded.detach().square().mean().sqrt())

        layers = [module for module in network.modules() if isinstance(module, NoisyConv2d)]
        for layer in layers:
            layer.register_forward_hook(note)
        network(x)
        for layer in layers:
            assert layer.statistics()["l0"].rms["convolution"] == pytest.approx(sizes[layer], rel=1e-4)

    def test_gain_multiplies_torchs_initial_weights(self):
        ours, torchs = (
            KeywordNetwork(NetworkSettings(units=H, convolutions=dataclasses.replace(SMALL, gain=gain)), F, C)
            for gain in (3.0, 1.0)
            if torch.manual_seed(0)
        )
        for name, value in torchs.state_dict().items():
            is_convolution = name.startswith("convolutions") and value.dim() == 4
            torch.testing.assert_close(ours.state_dict()[name], value * (3 if is_convolution else 1))

    def test_without_convolutions_nothing_has_changed(self):
        """Names of parameters and streams of noise are those of before there were convolutions."""
        network = make(convolutions=None)
        assert {name.partition(".")[0] for name in network.state_dict()} == {"recurrent", "classifier"}
        assert network.n_features == F

    @pytest.mark.parametrize(
        ("made", "said"),
        [
            (lambda: ConvolutionBlock(0), r"channels is 0: give 1 or more"),
            (lambda: ConvolutionBlock(kernel=[2, 3]), r"kernel is \[2, 3\]: give two odd numbers"),
            (lambda: ConvolutionBlock(kernel=[3]), r"kernel is \[3\]: give two odd numbers"),
            (lambda: ConvolutionBlock(stride=[0, 1]), r"stride is \[0, 1\]: give two numbers of at least 1"),
            (lambda: ConvolutionBlock(sub_bands=0), r"sub_bands is 0: give 1 or more"),
            (
                lambda: make(
                    convolutions=ConvolutionSettings([ConvolutionBlock(stride=[1, 2], sub_bands=3)])
                ),
                r"has sub_bands 3, but there are 4 features behind its stride: give a number that divides them",
            ),
            (
                lambda: ConvolutionSettings([ConvolutionBlock(4), ConvolutionBlock(5, residual=True)]),
                r"a residual block of 5 channels and stride \[1, 1\] gets 4 channels: give as many channels",
            ),
            (
                lambda: ConvolutionSettings([ConvolutionBlock(1, stride=[1, 2], residual=True)]),
                r"a residual block of 1 channels and stride \[1, 2\] gets 1 channel: give",
            ),
            (lambda: ConvolutionBlock(10**9), r"channels is 1,000,000,000: give at most"),
            (lambda: ConvolutionSettings([]), r"blocks is empty: give at least one"),
            (lambda: ConvolutionSettings(BLOCKS, width=-1), r"width is -1: give 0"),
            (lambda: ConvolutionSettings(BLOCKS, dropout=1.0), r"dropout is 1.0: give a probability"),
            (lambda: ConvolutionSettings(BLOCKS, gain=math.nan), r"gain is nan: give a number above 0"),
            (
                lambda: KeywordNetwork(
                    NetworkSettings(convolutions=ConvolutionSettings([ConvolutionBlock(16384)] * 2)), 40, 2
                ),
                r"number of weights is .*: give at most",
            ),
        ],
    )
    def test_a_wrong_setting_is_named(self, made, said):
        with pytest.raises(UserError, match=said):
            made()


class TestSpotter:
    def test_settings_come_back_from_plain_values_and_are_checked(self):
        spotter = KeywordSpotter(["a", "b"], F, NetworkSettings(units=H, convolutions=SMALL))
        contents = {"hyper_parameters": spotter.hparams, "state_dict": spotter.state_dict()}
        again = KeywordSpotter.from_checkpoint(contents)
        assert again.network.settings == spotter.network.settings
        x = features()
        assert torch.equal(again(x), spotter.eval()(x))
        blocks = spotter.hparams["model"]["network"]["convolutions"]["blocks"]
        for key, value, said in (
            ("channels", 0, "channels is 0"),
            ("channels", "x", "channels"),
            ("chanels", 3, "no setting 'chanels'"),
        ):
            damaged = {**spotter.hparams["model"]}
            damaged["network"] = {
                **damaged["network"],
                "convolutions": {"blocks": [{**blocks[0], key: value}, *blocks[1:]]},
            }
            with pytest.raises(UserError, match=said):
                KeywordSpotter.from_checkpoint({**contents, "hyper_parameters": {"model": damaged}})

    def test_curves_tell_a_crnn_from_an_lstm_and_crnns_from_each_other(self):
        kinds = (None, SMALL, dataclasses.replace(SMALL, width=9), ConvolutionSettings(BLOCKS[:1], width=8))
        told = [
            KeywordSpotter(["a", "b"], F, NetworkSettings(units=H, convolutions=kind)).curve_settings()
            for kind in kinds
        ]
        assert "convolutions" not in told[0]
        assert told[1]["convolutions"] == "4 5x3/2x2, 5 separable 3x3/1x2, 8"
        assert all(one != other for one, other in itertools.combinations(told, 2))

    def test_it_is_trained_measured_and_loaded(self, tmp_path, capsys):
        """On handwritten digits, with noise in all products but those of the cell; then under other hardware."""
        (tmp_path / "crnn.yaml").write_text(
            "model: {network: {units: 8, layers: 1, convolutions: {width: 8, blocks:"
            " [{channels: 6, stride: [1, 2]}, {channels: 8, separable: true}]}}}\n"
        )
        options = {
            "annealing.sigma": "0.5",
            "model.noise.sites": "[convolution,input,recurrent,output]",
            "noise_curve.sigmas": "0,1",
            "noise_curve.draws": "2",
            "trainer.max_epochs": "4",
            "trainer.accelerator": "cpu",
            "wandb": "disabled",
            "name": "crnn",
            "runs": str(tmp_path),
        }
        layers = ["--config", "digits_lstm_dni", "--config", str(tmp_path / "crnn.yaml")]
        main(["fit", *layers, *(f"--{key}={value}" for key, value in options.items())])
        assert "convolutions (6 3x3/1x2, 8 separable 3x3, 8) and LSTM" in capsys.readouterr().out
        run = tmp_path / "crnn" / "version_0"
        curve = NoiseCurve.from_csv(run / "noise_curve.csv")
        assert curve.settings["convolutions"] == "6 3x3/1x2, 8 separable 3x3, 8"
        assert curve.settings["training"]["model.network.convolutions.gain"] == 1.0
        assert curve.frame["accuracy"].max() > 0.3
        noisy = curve.frame[curve.frame["strength"] == 1]
        assert noisy["snr_db"].notna().all()
        checkpoint = run / "checkpoints" / "last.ckpt"
        spotter = asr_dni.load(checkpoint)
        data = DigitsData.from_checkpoint(checkpoint)
        data.prepare_data()
        data.setup("test")
        batch = next(data.batches("test"))
        analog = Hardware(
            Gaussian(0.02), GaussianWeights(0.01), UniformConverter(8), tile=5, sites=EVERY_PRODUCT
        )
        for noise in (Noise(), Noise.of(analog, Realisation(draw=3))):
            decided = spotter.predict_features(batch.features, noise=noise)
            right = [its.label == data.label_names[k] for its, k in zip(decided, batch.labels, strict=True)]
            assert sum(right) > 0.3 * len(right)
        # Chips are evaluated as a population of copies; each is what it is alone.
        chips = Noise.of(Hardware(weight=GaussianWeights(0.3), sites=EVERY_PRODUCT))
        curve = measure_noise_curve(
            spotter.network, [batch], [0.3], 1, chips, strength=Strength("weight.sigma"), chips=3
        )
        for chip, accuracy in zip(curve.frame["chip"], curve.frame["accuracy"], strict=True):
            decided = spotter.predict_features(batch.features, noise=chips.realised(chip=chip))
            right = [its.label == data.label_names[k] for its, k in zip(decided, batch.labels, strict=True)]
            assert accuracy == pytest.approx(sum(right) / len(right))


class TestStudy:
    def test_a_study_of_crnns(self, tmp_path):
        convolutions = {"width": 4, "blocks": [{"channels": 3, "stride": [2, 2]}]}
        study = tiny(
            tmp_path,
            recipes={"lstm": {"convolutions": convolutions}},
            seeds=2,
            epochs=1,
            sigma_train=[0.0, 1.0],
        )
        run = start(study, tmp_path / "study")
        assert run.members[0].network.convolutions == ConvolutionSettings(**convolutions)
        outcome = work_on(study, run.folder, Population(tuple(run.members)), "run", "cpu")
        assert outcome.state == "done"
        frame = run.folder.ledger.frame()
        assert set(frame["convolutions"]) == {"3 3x3/2x2, 4"}
        frame["convolutions"] = [
            "" if seed else text for seed, text in zip(frame["seed"], frame["convolutions"], strict=True)
        ]
        labels = label_matrices(make_matrices(frame))
        assert sorted("behind convolutions (3 3x3/2x2, 4)" in label for label in labels) == [False, True]

    def test_members_without_convolutions_are_those_of_before(self, tmp_path):
        (tmp_path / "crnn").mkdir()
        plain = start(tiny(tmp_path), tmp_path / "study").members
        crnn = start(
            tiny(tmp_path / "crnn", recipes={"lstm": {"convolutions": {"blocks": [{}]}}}),
            tmp_path / "crnn" / "study",
        ).members
        assert not {member.training for member in plain} & {member.training for member in crnn}
        assert all("convolutions" not in its.configuration for member in plain for its in member.evaluations)

    @pytest.mark.parametrize("settings", [SMALL, ConvolutionSettings([ConvolutionBlock(16)] * 3)], ids=str)
    def test_memory_covers_the_tensors_that_backward_keeps(self, settings):
        network = NetworkSettings(units=16, layers=1, convolutions=settings)
        kept: dict[int, int] = {}

        def pack(tensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            KeywordNetwork(network, 20, 10)(torch.randn(24, 30, 20)).sum()
        counted = sum(kept.values())
        assert counted < memory_of_member(network, 30, 20, 24) < 6 * counted

    def test_cost_counts_the_convolutions_and_the_steps_that_they_save(self):
        size = DataSize(n_train=100, n_evaluated=10, n_frames=50, n_features=40, batch_size=10)
        plain = NetworkSettings(units=64, layers=1)
        block = ConvolutionBlock(2, [3, 5], [2, 4])
        crnn = dataclasses.replace(plain, convolutions=ConvolutionSettings([block]))
        behind = dataclasses.replace(size, n_frames=25, n_features=20)
        convolution = 2 * (3 * 5 * 2) * (25 * 10)
        assert operations_per_clip(crnn, size) == operations_per_clip(plain, behind) + convolution
