import json
import shutil
import signal
import zipfile
from dataclasses import replace

import pytest
import pytorch_lightning as pl
import torch
from tiny_study import accuracies, start, tiny

from asr_dni.evaluation import measure_noise_curve
from asr_dni.model import KeywordSpotter, NoiseAnnealing, PopulationSpotter, TrainingNoise
from asr_dni.noise import Noise, Strength
from asr_dni.study import work
from asr_dni.study.findings import find
from asr_dni.study.folder import StudyFolder
from asr_dni.study.matrix import make_matrices
from asr_dni.study.matrix_words import label_matrices
from asr_dni.study.plan import Population, partition
from asr_dni.study.speed import measure_speed
from asr_dni.study.work import work_on

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _handler():
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def everything(run):
    return Population(tuple(run.members))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study that was done in one go, with its members' checkpoints."""
    folder = tmp_path_factory.mktemp("whole")
    study = tiny(folder, "--keep_checkpoints=true", "--evaluation.scales=[absolute,signal]")
    run = start(study, folder / "study")
    outcome = work_on(study, run.folder, everything(run), "run", "cpu")
    return run, outcome


def test_every_member_has_its_results(whole):
    run, outcome = whole
    assert (outcome.state, outcome.results) == ("done", 8)
    frame = run.folder.ledger.frame()
    assert set(frame["member"]) == {name for member in run.members for name in member.results}
    assert len(frame) == 4 * 2 * 3  # members, scales, one clean pass and two draws
    assert set(frame["cell"]) == {"lstm"}
    assert set(frame["n_clips"]) == {run.size.n_evaluated}
    assert set(frame["n_classes"]) == {10}
    assert frame["train_seconds"].gt(0).all()
    assert frame["study"].eq("tiny").all()
    known = frame[(frame["scale"] == "signal") & (frame["strength"] == 1)]
    assert known["snr_db"].abs().lt(1e-6).all()  # sigma 1 is 0 dB by definition
    progress = run.folder.progress(everything(run).id)
    assert (progress.state, progress.epoch, progress.fraction, progress.members) == ("done", 2, 1.0, 4)
    assert not run.folder.checkpoint(everything(run).id).exists()
    assert not run.folder.claimed(everything(run).id)


def test_kept_checkpoints_are_the_members_own(whole):
    run, _ = whole
    frame = run.folder.ledger.frame()
    data = run.study.make_data(0)
    data.setup("test")
    for member in run.members:
        spotter = KeywordSpotter.from_checkpoint(run.folder.checkpoint_of_member(member.training))
        evaluation = member.evaluations[0]
        curve = measure_noise_curve(
            spotter.network, data.batches("test"), evaluation.sweep.values, 2, evaluation.sweep.noise
        )
        rows = frame[frame["member"] == evaluation.result].sort_values(["strength", "draw"])
        # Sums in another order may turn a clip that lies on the border.
        assert abs(rows["accuracy"].to_numpy() - curve.frame["accuracy"].to_numpy()).max() < 2.5 / 382


def test_votes_and_compensation_are_of_the_members_own_networks(tmp_path):
    evaluation = {"sigma_infer": [0.0, 1.0], "draws": 4, "votes": [1, 4], "compensation": "auto"}
    study = tiny(
        tmp_path, evaluation=evaluation, seeds=1, epochs=1, keep_checkpoints=True, sigma_train=[0.0, 3.0]
    )
    run = start(study, tmp_path / "study")
    outcome = work_on(study, run.folder, everything(run), "run", "cpu")
    assert (outcome.state, outcome.results) == ("done", 8)
    assert run.damages() == []
    frame = run.folder.ledger.frame()
    data = run.study.make_data(0)
    data.setup("test")
    for member, trained in zip(run.members, (None, Noise(3.0).hardware), strict=True):
        rows = frame[frame["training"] == member.training].sort_values(["strength", "draw"])
        network = KeywordSpotter.from_checkpoint(run.folder.checkpoint_of_member(member.training)).network
        for compensation, its in (("", None), ("auto", trained)):
            noise = member.evaluations[0].sweep.noise.compensating(its)
            curve = measure_noise_curve(network, data.batches("test"), [0.0, 1.0], 4, noise)
            own = rows[(rows["compensation"] == compensation) & (rows["votes"] == 1)]
            assert abs(own["accuracy"].to_numpy() - curve.frame["accuracy"].to_numpy()).max() < 2.5 / 382
            voted = rows[(rows["compensation"] == compensation) & (rows["votes"] == 4)]
            assert voted[["strength", "draw"]].to_numpy().tolist() == [[0, 0], [1, 0]]
            assert voted["accuracy"].iloc[0] == own["accuracy"].iloc[0]
    # A run that goes on measures what is missing alone.
    (run.folder.ledger.path / f"{run.members[0].evaluations[1].result}.parquet").unlink()
    assert work_on(study, run.folder, everything(run), "again", "cpu").results == 1
    assert run.folder.ledger.frame().drop(columns="recorded_at").equals(frame.drop(columns="recorded_at"))
    answered = {question.key for question, _ in find(frame).answered()}
    assert {"voting", "compensation"} <= answered


def test_a_study_over_the_weights_errors_of_chips(tmp_path):
    """From its settings to what is said of it: the axis has its name everywhere."""
    weights = {"class_path": "GaussianWeights"}
    evaluation = {"hardware": {"weight": weights, "output": {"sigma": 0.2}}, "strength": "weight.sigma"}
    evaluation |= {"strengths": [0.0, 0.5], "chips": 2, "draws": 2}
    study = tiny(tmp_path, evaluation=evaluation, seeds=1, epochs=1, keep_checkpoints=True)
    run = start(study, tmp_path / "study")
    assert work_on(study, run.folder, everything(run), "run", "cpu").state == "done"
    frame = run.folder.ledger.frame()
    assert set(zip(frame["axis"], frame["unit"], strict=True)) == {
        ("weight.sigma", "multiples of the largest weight")
    }
    assert frame["scale"].eq("").all()
    for member in run.members:
        rows = frame[frame["member"] == member.evaluations[0].result]
        passes = rows[["strength", "chip", "draw"]].to_numpy().tolist()
        assert passes == [[0, 0, 0], [0, 0, 1], *([0.5, chip, draw] for chip in (0, 1) for draw in (0, 1))]
        spotter = KeywordSpotter.from_checkpoint(run.folder.checkpoint_of_member(member.training))
        data, sweep = run.study.make_data(0), member.evaluations[0].sweep
        data.setup("test")
        options = {"strength": sweep.strength, "chips": 2}
        curve = measure_noise_curve(
            spotter.network, data.batches("test"), [0, 0.5], 2, sweep.noise, **options
        )
        # Sums in another order may turn a clip that lies on the border.
        assert abs(rows["accuracy"].to_numpy() - curve.frame["accuracy"].to_numpy()).max() < 2.5 / 382
    findings = find(frame)
    assert findings.matrices[0].strength == Strength("weight.sigma", "multiples of the largest weight")
    assert "weight GaussianWeights per tensor" in findings.setting
    assert "2 chips; 2 draws" in findings.setting
    assert "sigma_infer" not in findings.markdown()
    assert "weight σ" in findings.markdown()
    # At 0 the output noise is still there: that is no clean inference.
    missing = "clean inference (weight_sigma 0), without the other parts of the hardware, was not measured"
    assert missing in findings.text()


def test_a_member_is_what_lightning_trains_alone(whole):
    """Trained by KeywordSpotter, NoiseAnnealing and Lightning's own clipping, evaluated by itself."""
    run, _ = whole
    settings = run.study.settings
    for member in (run.members[0], run.members[-1]):
        pl.seed_everything(member.seed, verbose=False)
        data = run.study.make_data(member.data_seed)
        spotter = KeywordSpotter(
            data.label_names,
            data.n_features,
            member.network,
            TrainingNoise(seed=member.seed),
            run.study.make_optimizer("lstm"),
            schedule=settings.training.schedule,
            warm_up=settings.training.warm_up,
            label_smoothing=settings.training.label_smoothing,
            calibrate_every=settings.training.calibrate_every,
        )
        trainer = pl.Trainer(
            max_epochs=settings.epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            gradient_clip_val=settings.training.gradient_clip,
            callbacks=[NoiseAnnealing(**member.annealing)],
        )
        trainer.fit(spotter, datamodule=data)
        kept = KeywordSpotter.from_checkpoint(run.folder.checkpoint_of_member(member.training))
        for name, value in spotter.network.state_dict().items():
            torch.testing.assert_close(kept.network.state_dict()[name], value, rtol=1e-3, atol=1e-4, msg=name)


def stop_after(patch, steps, how=RuntimeError):
    """Stop every training of a population after so many steps."""

    def on_train_batch_end(population, outputs, batch, batch_idx):
        if population.trainer.global_step >= steps:
            raise how("stopped")

    patch.setattr(PopulationSpotter, "on_train_batch_end", on_train_batch_end)


@pytest.mark.parametrize("how", [RuntimeError, KeyboardInterrupt])
def test_what_was_stopped_goes_on_from_its_checkpoint(tmp_path, monkeypatch, how):
    """In the middle of the second epoch of two; the result is that of a training that was never stopped."""
    study = tiny(tmp_path)
    straight = start(study, tmp_path / "straight")
    work_on(study, straight.folder, everything(straight), "run", "cpu")

    run = start(study, tmp_path / "stopped")
    population = everything(run)
    with monkeypatch.context() as patch:
        stop_after(patch, 13, how)
        with pytest.raises(how):
            work_on(study, run.folder, population, "first", "cpu", checkpoint_seconds=0)
    assert run.folder.checkpoint(population.id).is_file()
    assert not run.folder.claimed(population.id)
    assert not run.folder.ledger.members()
    before = run.folder.progress(population.id)
    assert 0 < before.fraction < 1

    steps = []
    monkeypatch.setattr(
        PopulationSpotter,
        "on_train_batch_end",
        lambda population, *batch: steps.append(population.trainer.global_step),
    )
    work_on(study, run.folder, population, "second", "cpu")
    assert steps[0] in (13, 14)
    assert steps[-1] == 2 * run.size.n_batches
    assert accuracies(tmp_path / "stopped") == accuracies(tmp_path / "straight")
    assert run.folder.progress(population.id).train_seconds > before.train_seconds


def test_only_missing_members_are_trained(tmp_path, monkeypatch):
    study = tiny(tmp_path)
    whole = start(study, tmp_path / "whole")
    work_on(study, whole.folder, everything(whole), "run", "cpu")
    run = start(study, tmp_path / "half")
    frame = whole.folder.ledger.frame()
    done = run.members[::2]
    for member in done:
        for name in member.results:
            run.folder.ledger.append(name, frame[frame["member"] == name].astype({"configuration": str}))
    trained = []
    make = work.PopulationSpotter
    monkeypatch.setattr(
        work,
        "PopulationSpotter",
        lambda members, *rest, **more: trained.extend(members) or make(members, *rest, **more),
    )
    outcome = work_on(study, run.folder, everything(run), "run", "cpu")
    assert outcome.results == len(run.members) - len(done)
    assert [(member.seed, member.annealing["sigma"]) for member in trained] == [
        (member.seed, member.sigma_train) for member in run.members[1::2]
    ]
    # Who else is there changes nothing.
    assert accuracies(tmp_path / "half") == accuracies(tmp_path / "whole")
    monkeypatch.setattr(work, "PopulationSpotter", None)
    assert work_on(study, run.folder, everything(run), "run", "cpu").results == 0


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A study that was stopped in its second epoch, and what it comes to where it is not."""
    folder = tmp_path_factory.mktemp("stopped")
    study = tiny(folder)
    run, straight = start(study, folder / "stopped"), start(study, folder / "straight")
    work_on(study, straight.folder, everything(straight), "run", "cpu")
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 13)
        with pytest.raises(RuntimeError):
            work_on(study, run.folder, everything(run), "first", "cpu", checkpoint_seconds=0)
    return folder / "stopped", accuracies(folder / "straight")


def _flip(path):
    """Change a byte of the weights."""
    contents = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    contents[largest.header_offset + 200 + largest.file_size // 2] ^= 0x40
    path.write_bytes(contents)


def _change(path, change):
    contents = torch.load(path, weights_only=False)
    change(contents)
    torch.save(contents, path)


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:2000]),
    "other bytes": lambda path: path.write_bytes(b"something else"),
    "one bit": _flip,
    "no mapping": lambda path: torch.save([1], path),
    "no state of the optimiser": lambda path: _change(
        path, lambda contents: contents.pop("optimizer_states")
    ),
    "no place in the data": lambda path: _change(path, lambda contents: contents.pop("loops")),
    "no population": lambda path: _change(path, lambda contents: contents.pop("population_state")),
    "other members": lambda path: _change(
        path, lambda contents: contents["hyper_parameters"]["population"]["members"].pop()
    ),
    "other shapes": lambda path: _change(
        path,
        lambda contents: contents["state_dict"].update(
            {name: value[..., :1] for name, value in contents["state_dict"].items()}
        ),
    ),
    "a damaged list of members": lambda path: path.with_name("trained.json").write_text("[1"),
}


# Each is refused where another one is: in reading the file, or in looking at what is in it.
ALIKE = ("empty", "other bytes", "no mapping", "no population")


@pytest.mark.parametrize(
    "damage", [pytest.param(name, marks=pytest.mark.slow if name in ALIKE else ()) for name in DAMAGE]
)
def test_a_damaged_checkpoint_is_set_aside_and_the_training_begun_anew(tmp_path, stopped, damage):
    """It is said, and the results are those of a training that was never stopped."""
    folder, straight = stopped
    shutil.copytree(folder, tmp_path / "study")
    run = start(tiny(tmp_path), tmp_path / "study")
    population = everything(run)
    checkpoint = run.folder.checkpoint(population.id)
    DAMAGE[damage](checkpoint)
    damaged = checkpoint.read_bytes()
    outcome = work_on(run.study, run.folder, population, "second", "cpu")
    assert (outcome.state, outcome.results) == ("done", 4)
    (note,) = outcome.notes
    aside = checkpoint.with_name("damaged.ckpt")
    assert f"set aside as {aside}, and trained anew" in note
    assert "\n" not in note
    assert aside.read_bytes() == damaged
    assert accuracies(tmp_path / "study") == straight


def test_what_another_run_works_on_is_left_to_it(tmp_path):
    study = tiny(tmp_path)
    run = start(study, tmp_path / "study")
    with run.folder.claim(everything(run).id, "other") as ours:
        assert ours
        # The claim's process, this one, lives.
        assert work_on(study, StudyFolder(tmp_path / "study"), everything(run), "run", "cpu").state == "busy"
    assert not run.folder.ledger.members()


@pytest.mark.parametrize(
    "noise",
    [
        {"scale": "signal"},
        {"hardware": "noisy_weights", "strength": "weight.sigma", "sigma_infer": [0.0, 0.1]},
    ],
)
def test_speed_is_measured_for_a_member(tmp_path, noise):
    study = tiny(tmp_path, cells=["lstm", "rnn"], units=[4], noise_models=[noise])
    run = start(study, tmp_path / "study")
    speed = measure_speed(study, run.members[0], replace(run.size, n_frames=4), 2, "cpu")
    assert 0 < speed.evaluation < 10
    assert 0 < speed.training < 10


@pytest.mark.parametrize("chips", ["step", "run"])
def test_other_hardware_than_gaussian_noise(tmp_path, chips):
    """Trained and evaluated over another strength, on chips of its own; each member as it is alone."""
    noise = {"hardware": "noisy_weights", "strength": "weight.sigma", "chips": chips}
    study = tiny(
        tmp_path,
        noise_models=[noise],
        sigma_train=[0.1],
        epochs=1,
        evaluation={"sigma_infer": [0.0, 0.2], "draws": 2, "chips": 3},
    )
    run = start(study, tmp_path / "study")
    work_on(study, run.folder, everything(run), "run", "cpu")
    frame = run.folder.ledger.frame()
    assert set(frame["axis"]) == {"weight.sigma"}
    assert json.loads(frame["hardware"][0])["weight"][0]["class_path"] == "GaussianWeights"
    rows = frame.groupby("strength")["chip"].agg(list)
    assert sorted(rows[0.2]) == [0, 0, 1, 1, 2, 2]  # two seeds; nothing is drawn afresh, so there is one draw
    assert sorted(rows[0.0]) == [0, 0]
    assert frame[frame["strength"] == 0.2]["correct"].nunique() > 1


def test_trainings_that_are_evaluated_on_one_hardware_stay_apart(tmp_path):
    """Conventional training belongs to all of them, and none is taken for another."""
    models = [
        {"scale": "absolute"},
        {"sites": ["recurrent"]},
        {"hardware": "multiplicative", "sigma_train": [0.5]},
    ]
    evaluation = {"hardware": "multiplicative", "sigma_infer": [0.0, 0.5], "draws": 1}
    study = tiny(tmp_path, noise_models=models, seeds=1, epochs=1, evaluation=evaluation)
    run = start(study, tmp_path / "study")
    for population in partition(run.members, 16):
        work_on(study, run.folder, population, "run", "cpu")
    matrices = make_matrices(run.folder.ledger.frame())
    assert len(matrices) == 3
    assert {(matrix.sigma_train[-1], str(matrix.train_strength)) for matrix in matrices} == {
        (1.0, "output.sigma"),
        (0.5, "output.sigma [multiples of each output]"),
    }
    assert {matrix.strength for matrix in matrices} == {Strength("output.sigma", "multiples of each output")}
    labels = " / ".join(label_matrices(matrices))
    assert "trained under noise at recurrent (joint arrays)" in labels
    assert "trained on multiplicative over σ_train" in labels
