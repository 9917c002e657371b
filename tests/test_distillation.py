"""A network that learns of trained ones: what they hear, the loss, and what a checkpoint needs of them."""

import copy
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax
from trained import train

from asr_dni.cli.main import main
from asr_dni.data import AugmentationSettings, Batch, DeformationSettings, DigitsData, Folder, KeywordData
from asr_dni.errors import UserError
from asr_dni.features import MFCC, LogMel
from asr_dni.model import Distillation, KeywordSpotter, NetworkSettings, load_checkpoint
from asr_dni.model.step import mixup_weights
from asr_dni.models import FOLDER

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*logging interval",
    "ignore:.*LeafSpec",
    "ignore:.*reference is not registered",
)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Two networks on digits, one of them on pixels as they are."""
    folders = [tmp_path_factory.mktemp(name) for name in ("normalised", "pixels")]
    return [
        str(train(folder, DigitsData(normalize=normalize), epochs=1))
        for folder, normalize in zip(folders, (True, False), strict=True)
    ]


def first_clips(data, training=True):
    return data.transform(data.clips_at("train", range(24)), training=training, epoch=3)


def student_of(data, distillation, **options):
    torch.manual_seed(5)
    network = NetworkSettings(units=4, layers=1, dropout=0.0)
    spotter = KeywordSpotter(
        data.label_names, data.n_features, network, distillation=distillation, calibrate_every=0, **options
    )
    spotter.read_teachers(data)
    return spotter


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_the_loss_is_that_of_the_teachers_mean_beside_the_labels(teachers, mixup):
    data = DigitsData(DeformationSettings(shift=1.0))
    student = student_of(data, Distillation(teachers, weight=0.7, temperature=3.0), mixup=mixup)
    batch = first_clips(data)
    assert not torch.equal(first_clips(data, training=False).features, batch.features)
    loss = student.training_step(batch, 0)
    loss.backward()

    weights = mixup_weights(mixup, 0, 0, 24).float() if mixup else torch.ones(24)
    paired = torch.arange(23, -1, -1)

    def mixed(values):
        own = weights.reshape(-1, *(1,) * (values.dim() - 1))
        return own * values + (1 - own) * values[paired]

    soft = 0
    for path in teachers:
        own_data = DigitsData.from_checkpoint(path, deformation=data.deformation)
        network = KeywordSpotter.from_checkpoint(path).network
        soft = soft + softmax(network(mixed(first_clips(own_data).features)).detach() / 3.0, -1) / 2
    logits = student.network(mixed(batch.features))
    targets = mixed(torch.eye(10)[batch.labels])
    hard = cross_entropy(logits, targets, label_smoothing=0.05)
    apart = kl_div(log_softmax(logits / 3.0, -1), soft, reduction="batchmean")
    expected = 0.3 * hard + 0.7 * 9.0 * apart
    torch.testing.assert_close(loss, expected)
    gradients = torch.autograd.grad(expected, list(student.network.parameters()))
    for parameter, gradient in zip(student.network.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-4)


def test_teachers_are_no_part_of_what_is_trained(teachers):
    data = DigitsData()
    student, plain = student_of(data, Distillation(teachers)), student_of(data, None)
    assert student.state_dict().keys() == plain.state_dict().keys()
    assert len(list(student.parameters())) == len(list(plain.parameters()))
    with pytest.raises(UserError, match="training batches lack what the teachers hear"):
        student.training_step(Batch(*first_clips(data)[:3]), 0)
    average = copy.deepcopy(student)  # as the callbacks that average weights do
    batch = first_clips(data)
    before = student.training_step(batch, 0)
    student.train()
    assert torch.equal(average.training_step(batch, 0), before)
    assert torch.equal(student.training_step(batch, 0), before)


def test_a_teacher_hears_the_same_augmented_waveforms_through_its_own_front_end(
    words, tone_words, tone_cache, tmp_path
):
    front_end = LogMel(n_mels=12, window_ms=30.0, hop_ms=10.0)
    of_teacher = KeywordData(Folder(tone_words), front_end=front_end, batch_size=8, cache_dir=tone_cache)
    path = train(tmp_path, of_teacher, epochs=1)
    data = words(seed=7)
    heard = data.features_as_in(path)
    data.keeps_inputs = True
    batch = first_clips_of(data)
    # What its own data would make of these clips with this augmentation, which has no masks.
    augmented = KeywordData.from_checkpoint(
        path,
        seed=7,
        augmentation=AugmentationSettings(time_shift_ms=100.0, background_probability=0.5),
        source=Folder(tone_words),
    )
    expected = first_clips_of(augmented)
    assert expected.features.shape != batch.features.shape
    torch.testing.assert_close(heard(batch.inputs), expected.features)
    assert (first_clips_of(words(seed=7)).features == batch.features).all()
    student = student_of(data, Distillation([str(path)]))
    assert student.training_step(batch, 0).isfinite()


def first_clips_of(data):
    data.prepare_data()
    data.setup("fit")
    return data.transform(data.clips_at("train", range(6)), training=True, epoch=2)


def test_what_cannot_teach_is_told(words, teachers, tone_words, tone_cache, tmp_path, checkpoint):
    def refusal(data, *paths):
        with pytest.raises(UserError) as error:
            student_of(data, Distillation([str(path) for path in paths]))
        assert "\n" not in str(error.value)
        return str(error.value)

    digits = DigitsData()
    missing = refusal(digits, teachers[0], tmp_path / "none.ckpt")
    assert missing.startswith("model distillation.teachers: ")
    assert "none.ckpt: there is no such checkpoint file" in missing
    said = refusal(words(0), FOLDER / "eight_words_dni.ckpt")
    assert "eight_words_dni.ckpt: knows the labels" in said
    assert "but the network to train has go, no, yes" in said
    slow = KeywordData(Folder(tone_words), front_end=MFCC(sample_rate=8000), cache_dir=tone_cache)
    assert "hears sample rate of 16,000 Hz, but these data have 8,000" in refusal(slow, checkpoint)
    long = words(0, clip_seconds=1.5)
    assert "hears clips of 16,000 samples, but these data have 24,000" in refusal(long, checkpoint)
    file = tmp_path / "text.ckpt"
    file.write_text("no checkpoint")
    assert "text.ckpt: cannot be read as a checkpoint" in refusal(digits, file)
    for settings, said in (
        ({"teachers": []}, "distillation.teachers is empty"),
        ({"teachers": ["a"], "weight": 0.0}, "distillation.weight is 0.0"),
        ({"teachers": ["a"], "temperature": float("inf")}, "distillation.temperature is inf"),
    ):
        with pytest.raises(UserError, match=said):
            Distillation(**settings)


@pytest.mark.usefixtures("restored_process")
@pytest.mark.filterwarnings("ignore:.*exists and is not empty")
def test_a_student_needs_its_teachers_to_be_trained_on_and_for_nothing_else(
    teachers, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("teacher.ckpt").write_bytes(Path(teachers[0]).read_bytes())
    fit = ["fit", "--config", "digits_lstm_dni", "--name", "student", "--wandb", "disabled"]
    fit += ["--trainer.max_epochs", "1", "--model.network.units", "4", "--noise_curve.sigmas=[0.0]"]
    fit += ["--trainer.check_val_every_n_epoch", "1", "--noise_curve.draws=1"]
    fit += ["--model.distillation.teachers=[teacher.ckpt]", "--model.distillation.temperature=4"]
    main(fit)
    Path("teacher.ckpt").unlink()
    last = "runs/student/version_0/checkpoints/last.ckpt"
    settings = load_checkpoint(last)["hyper_parameters"]["model"]["distillation"]
    assert settings == {"teachers": ["teacher.ckpt"], "weight": 0.9, "temperature": 4.0}
    spotter = KeywordSpotter.from_checkpoint(last)
    training = spotter.curve_settings()["training"]
    (named,) = training["model.distillation.teachers"]
    assert named.startswith("teacher.ckpt (")  # with the digest of the file
    assert training["model.distillation.temperature"] == 4.0
    main(["test", "--ckpt_path", last, "--name", "again", "--wandb", "disabled"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--ckpt_path", last, "--trainer.max_epochs", "2", "--name", "on", "--wandb", "disabled"])
    assert ended.value.code == 2
    assert "model distillation.teachers: teacher.ckpt: there is no such checkpoint" in capsys.readouterr().err
    assert not Path("runs/on").exists()
