import math
import os
import re

import pandas as pd
import pytest
from matplotlib.text import Text
from test_figures import make_curve

from asr_dni.catalogue.compare import compare_curves, find_curves
from asr_dni.cli.main import main
from asr_dni.errors import UserError
from asr_dni.evaluation.curves.curve import NoiseCurve
from asr_dni.hardware_files import read_hardware
from asr_dni.noise import Hardware, Multiplicative, Strength, UniformConverter


def save_runs(folder, **more):
    """Two experiments with three seeds each."""
    for sigma_train, start in ((2.0, 0.95), (0.0, 0.9)):
        for seed in range(3):
            settings = {"sigma_train": sigma_train, "seed": seed, "checkpoint": f"{sigma_train}-{seed}.ckpt"}
            curve = make_curve((start + 0.01 * seed, 0.8, 0.3), **settings, **more)
            curve.to_csv(folder / f"{sigma_train}" / f"seed{seed}" / "noise_curve.csv")


def test_seeds_are_pooled_and_experiments_compared(tmp_path):
    save_runs(tmp_path / "runs")
    comparison = compare_curves([tmp_path / "runs"], tmp_path / "out")
    assert list(comparison.summaries) == ["conventional", "DNI σ_train=2"]
    summary = comparison.summaries["conventional"]
    assert summary.interval == "95 % interval over 3 seeds, on these clips"
    assert summary.frame["accuracy"][0] == pytest.approx(0.91)
    assert summary.frame["high"][0] - 0.91 == pytest.approx(4.302653 * 0.01 / 3**0.5)
    assert [path.name for path in comparison.files] == [
        "noise_curves.png",
        "noise_curves.svg",
        "noise_curves.md",
        "noise_curves.csv",
    ]
    assert all(path.stat().st_size > 0 for path in comparison.files)
    assert (tmp_path / "out" / "noise_curves.md").read_text(encoding="utf-8") == comparison.markdown
    frame = pd.read_csv(tmp_path / "out" / "noise_curves.csv")
    assert frame.groupby("label")["accuracy"].first()["DNI σ_train=2"] == pytest.approx(0.96)


def test_the_summaries_are_written_with_what_their_intervals_are(tmp_path):
    save_runs(tmp_path)
    path = make_curve(sigma_train=3.0, seed=0).to_csv(tmp_path / "3.0" / "noise_curve.csv")
    comparison = compare_curves([tmp_path], tmp_path / "out", over="draws", title="My words")
    frame = pd.read_csv(tmp_path / "out" / "noise_curves.csv")
    for label, summary in comparison.summaries.items():
        rows = frame[frame["label"] == label].reset_index(drop=True)
        expected = summary.frame.assign(interval=summary.interval)
        pd.testing.assert_frame_equal(rows.drop(columns=["label", "axis"]), expected)
        assert set(rows["axis"]) == {str(summary.strength)}
    one = comparison.summaries["DNI σ_train=3"]
    assert one.interval == "95 % interval over 3 draws of the noise, on these clips"
    pd.testing.assert_frame_equal(one.frame, NoiseCurve.from_csv(path).summary("draws").frame)
    assert comparison.table.title == "My words"
    assert any(text.get_text() == "My words" for text in comparison.figure.findobj(Text))
    by_default = compare_curves([path])
    assert by_default.table.title == "Accuracy under computation noise"
    (one,) = by_default.summaries.values()
    pd.testing.assert_frame_equal(one.frame, NoiseCurve.from_csv(path).summary("clips").frame)


def test_validation_curves_are_not_taken_for_tests(tmp_path):
    make_curve().to_csv(tmp_path / "a" / "noise_curve_validation.csv")
    with pytest.raises(UserError, match=r"holds no noise_curve\.csv"):
        find_curves([tmp_path])


def test_a_file_that_is_cut_is_not_shown(tmp_path, capsys):
    path = make_curve(draws=3).to_csv(tmp_path / "noise_curve.csv")
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(tmp_path), "--output", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert re.fullmatch(
        rf"asr-dni: error: {re.escape(str(path))} is not a noise curve: line \d+: .*\n",
        capsys.readouterr().err,
    )
    assert not (tmp_path / "out").exists()


def test_a_file_named_twice_counts_once(tmp_path):
    path = make_curve().to_csv(tmp_path / "noise_curve.csv")
    assert find_curves([path, tmp_path]) == [path]


def test_links_in_a_folder_that_collects_curves_are_followed(tmp_path):
    path = make_curve().to_csv(tmp_path / "runs" / "a" / "noise_curve.csv")
    link = tmp_path / "chosen" / "a" / "noise_curve.csv"
    link.parent.mkdir(parents=True)
    link.symlink_to(path)
    assert find_curves([tmp_path / "chosen"]) == [link]
    assert find_curves([path, tmp_path / "chosen"]) == [path]


def test_labels_name_what_differs(tmp_path):
    for cell in ("LSTM", "GRU"):
        for units in (64, 128):
            make_curve(sigma_train=0.0, cell=cell, units=units, seed=0).to_csv(
                tmp_path / f"{cell}{units}.csv"
            )
    labels = list(compare_curves(sorted(tmp_path.glob("*.csv"))).summaries)
    assert "conventional, LSTM, units 64" in labels
    assert len(labels) == 4


def test_given_labels_are_kept(tmp_path):
    paths = [make_curve(label=name, seed=0).to_csv(tmp_path / f"{name}.csv") for name in ("before", "after")]
    assert list(compare_curves(paths).summaries) == ["before", "after"]


def test_given_labels_are_enough_and_stand_in_order_of_the_noise(tmp_path):
    """Whatever the order of the files, and in whatever else the experiments differ."""
    paths = []
    for place, (name, sigma, units) in enumerate((("much", 2.0, 8), ("none", 0.0, 16), ("some", 0.5, 32))):
        curve = make_curve(label=name, sigma_train=sigma, units=units, seed=0)
        paths.append(curve.to_csv(tmp_path / f"{place}.csv"))
    assert list(compare_curves(paths).summaries) == ["none", "some", "much"]


def test_a_label_that_two_have_is_completed(tmp_path):
    paths = [
        make_curve(label="mine", epochs=epochs, words=words, own=own, seed=0).to_csv(
            tmp_path / f"{epochs}.csv"
        )
        for epochs, words, own in ((30.0, ["yes", "no"], {"a": 1}), (0.5, None, None))
    ]
    labels = list(compare_curves(paths).summaries)
    assert labels == ["mine, epochs 30, yes no, own {'a': 1}", "mine, epochs 0.5"]


@pytest.mark.parametrize(("number", "said"), [(4, "sites a b c d"), (5, "sites of 5")])
def test_long_lists_of_trainings_are_counted(tmp_path, number, said):
    sites = list("abcde"[:number])
    save_trainings(tmp_path, {"model.sites": sites}, {"model.sites": ["z"]})
    assert list(compare_curves([tmp_path]).summaries) == [f"DNI σ_train=1, {said}", "DNI σ_train=1, sites z"]


def test_one_training_is_not_two_seeds(tmp_path):
    first = make_curve(seed=1).to_csv(tmp_path / "a.csv")
    same_seed = make_curve((0.8, 0.7, 0.6), seed=1).to_csv(tmp_path / "b.csv")
    with pytest.raises(UserError, match=r"a\.csv and .*b\.csv are of the same experiment and seed 1"):
        compare_curves([first, same_seed])
    copy = make_curve(seed=2).to_csv(tmp_path / "c.csv")
    with pytest.raises(UserError, match="hold the same curve"):
        compare_curves([first, copy])


def test_results_of_different_data_have_labels_that_are_as_short_as_they_can_be(tmp_path):
    of_words = {"data": "words", "n_classes": 8, "units": 128, "cell": "gru", "layers": 1, "pooling": "mean"}
    of_digits = {
        "data": "digits",
        "n_classes": 10,
        "units": 16,
        "cell": "lstm",
        "layers": 2,
        "pooling": "frame",
    }
    for name, settings in (("words", of_words), ("wide", of_words | {"units": 256}), ("digits", of_digits)):
        make_curve(sigma_train=0.0, seed=0, **settings).to_csv(tmp_path / name / "noise_curve.csv")
    labels = [*compare_curves([tmp_path]).summaries]
    assert len(set(labels)) == 3
    assert all(label.count(",") <= 2 for label in labels), labels
    assert any("digits" in label for label in labels)
    assert any("256" in label for label in labels)


@pytest.mark.parametrize("contents", [b"\xff\xfe", b"", b"# asr_dni noise curve\nsigma,draw\n"])
def test_a_damaged_curve_that_a_folder_holds_is_named_and_hides_nothing(
    tmp_path, contents, monkeypatch, capsys
):
    save_runs(tmp_path / "runs")
    damaged = tmp_path / "runs" / "1.0" / "seed0" / "noise_curve.csv"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(contents)
    comparison = compare_curves([tmp_path / "runs"])
    assert list(comparison.summaries) == ["conventional", "DNI σ_train=2"]
    assert list(comparison.damaged) == [damaged]
    monkeypatch.chdir(tmp_path)
    main(["compare", "runs"])
    assert f"left out: {damaged.relative_to(tmp_path)}" in capsys.readouterr().out
    for paths in ([tmp_path / "runs", damaged], [damaged.parent]):
        with pytest.raises(UserError, match=r"noise_curve\.csv"):
            compare_curves(paths)


@pytest.mark.parametrize("folder", ["again", "0.again"])
@pytest.mark.parametrize(
    "same",
    [{"checkpoint": "2.0-0.ckpt"}, {"checkpoint": "moved.ckpt", "weights": "ab12"}],
    ids=["checkpoint", "weights"],
)
def test_of_weights_evaluated_twice_the_newest_curve_counts(tmp_path, same, folder):
    save_runs(tmp_path / "runs")
    older = tmp_path / "runs" / "2.0" / "seed0" / "noise_curve.csv"
    if "weights" in same:
        curve = NoiseCurve.from_csv(older)
        NoiseCurve(curve.frame, curve.settings | {"weights": same["weights"]}).to_csv(older)
    os.utime(older, (0, 0))
    settings = {"sigma_train": 2.0, "seed": 0, **same}
    make_curve((0.5, 0.4, 0.3), **settings).to_csv(tmp_path / "runs" / folder / "noise_curve.csv")
    comparison = compare_curves([tmp_path / "runs"])
    assert comparison.left_out == (older,)
    dni = comparison.summaries["DNI σ_train=2"].frame
    assert dni["n_seeds"].tolist() == [3, 3, 3]
    assert dni["accuracy"][0] == pytest.approx((0.5 + 0.96 + 0.97) / 3)


@pytest.mark.parametrize("noted", ["checkpoint", "weights"])
def test_of_two_trainings_that_look_alike_none_is_dropped(tmp_path, noted):
    for name in ("a", "b"):
        settings = {"sigma_train": 2.0, "seed": 0, noted: name}
        make_curve((0.9 if name == "a" else 0.8, 0.5, 0.3), **settings).to_csv(
            tmp_path / name / "noise_curve.csv"
        )
    with pytest.raises(UserError, match=r"a/noise_curve\.csv and .*b/noise_curve\.csv .* seed 0"):
        compare_curves([tmp_path])


def save_trainings(folder, *trainings, **more):
    for index, training in enumerate(trainings):
        for seed in range(2):
            settings = {"seed": seed, "weights": f"{index}{seed}", "sigma_train": 1.0} | more
            curve = make_curve((0.9 - 0.1 * index - 0.01 * seed, 0.5, 0.3), **settings, training=training)
            curve.to_csv(folder / str(index) / str(seed) / "noise_curve.csv")


def test_other_trainings_are_other_experiments(tmp_path):
    """Seeds are pooled within each; the label says in what they differ."""
    common = {"trainer.max_epochs": 30, "annealing.warm_up": 0.1, "model.warm_up": 0.1, "optimizer.lr": 0.003}
    save_trainings(
        tmp_path,
        common,
        common | {"optimizer.lr": 0.001},
        common | {"annealing.warm_up": 0.2, "model.noise.sites": ["input", "output"]},
    )
    comparison = compare_curves([tmp_path])
    assert list(comparison.summaries) == [
        "DNI σ_train=1, annealing warm_up 0.1, lr 0.003",
        "DNI σ_train=1, annealing warm_up 0.1, lr 0.001",
        "DNI σ_train=1, annealing warm_up 0.2, lr 0.003, noise sites input output",
    ]
    assert all(set(s.frame["n_seeds"]) == {2} for s in comparison.summaries.values())
    assert "lr" not in comparison.markdown.splitlines()[-1]


def test_the_training_is_not_shown_where_labels_differ_anyway(tmp_path):
    save_trainings(tmp_path / "a", {"optimizer.lr": 0.1}, sigma_train=0.0)
    save_trainings(tmp_path / "b", {"optimizer.lr": 0.2}, sigma_train=2.0)
    assert list(compare_curves([tmp_path]).summaries) == ["conventional", "DNI σ_train=2"]


def test_networks_of_unknown_noise_are_named_by_their_training(tmp_path):
    save_trainings(tmp_path, {"optimizer.lr": 0.1}, {"optimizer.lr": 0.2}, sigma_train=None)
    assert list(compare_curves([tmp_path]).summaries) == ["lr 0.1", "lr 0.2"]


def test_no_experiment_is_lost_where_labels_are_the_same(tmp_path):
    save_trainings(tmp_path / "a", {"optimizer.lr": 0.1})
    save_trainings(tmp_path / "b", {})
    save_trainings(tmp_path / "c", None)
    label = "DNI σ_train=1"
    comparison = compare_curves([tmp_path], tmp_path / "out")
    assert list(comparison.summaries) == [f"{label} ({number})" for number in (1, 2, 3)]
    assert set(pd.read_csv(tmp_path / "out" / "noise_curves.csv")["label"]) == set(comparison.summaries)
    # Nor where one has the name that a number would make.
    save_trainings(tmp_path / "d", None, label=f"{label} (2)")
    found = list(compare_curves([tmp_path]).summaries)
    assert found == [f"{label} (1)", f"{label} (3)", f"{label} (4)", f"{label} (2)"]


def test_many_differences_of_trainings_are_counted(tmp_path):
    save_trainings(tmp_path, *({f"model.n{k}": float(value) for k in range(6)} for value in (1, 2)))
    assert list(compare_curves([tmp_path]).summaries) == [
        f"DNI σ_train=1, n0 {value}, n1 {value}, n2 {value}, n3 {value}, 2 more" for value in (1, 2)
    ]


def test_further_measurements_are_compared_where_they_are_named(tmp_path):
    """What noise-curve writes beside a checkpoint, in other scales say, does not belong to the runs' curves."""
    own = make_curve(seed=0).to_csv(tmp_path / "version_0" / "noise_curve.csv")
    further = tmp_path / "version_0" / "checkpoints" / "noise_curve-last-own-test-absolute"
    other = make_curve((0.8, 0.7, 0.6), scale="absolute", seed=0).to_csv(further / "noise_curve.csv")
    assert find_curves([tmp_path]) == [own]
    assert find_curves([further]) == [other]
    own.unlink()
    with pytest.raises(UserError, match=r"but in folders noise_curve-.*name them.*noise_curve-last-own"):
        find_curves([tmp_path])


def test_curves_of_other_scales_are_refused(tmp_path):
    paths = [make_curve(scale=scale).to_csv(tmp_path / f"{scale}.csv") for scale in ("signal", "absolute")]
    with pytest.raises(UserError, match="can't be"):
        compare_curves(paths)


def test_missing_paths_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        compare_curves([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="nothing to compare"):
        compare_curves([])


def save_over(folder, hardware, strength, **settings):
    """A curve over a strength of a hardware; like one over sigma otherwise."""
    curve = make_curve((0.9 + 0.01 * settings["seed"], 0.8, 0.3), **settings)
    told = {key: value for key, value in curve.settings.items() if key != "scale"}
    told |= {"hardware": hardware.settings_beside(strength), "strength": hardware.axis(strength).as_dict()}
    return NoiseCurve(curve.frame.assign(snr_db=math.nan), told).to_csv(folder / "noise_curve.csv")


def test_curves_over_another_strength_are_compared_among_themselves(tmp_path):
    bits = Strength("adc.bits")
    wide, narrow = (Hardware(adc=UniformConverter(bound=bound)) for bound in (2.0, 1.0))
    for seed in range(3):
        save_over(tmp_path / "wide" / str(seed), wide, bits, seed=seed, sigma_train=0.0)
        # The hardware's own value of the strength makes no other experiment.
        its = Hardware(adc=UniformConverter(bits=4 + seed, bound=1.0))
        save_over(tmp_path / "narrow" / str(seed), its, bits, seed=seed, sigma_train=0.0)
    comparison = compare_curves([tmp_path])
    assert len(comparison.summaries) == 2
    assert all("over 3 seeds" in summary.interval for summary in comparison.summaries.values())
    labels = sorted(comparison.summaries)
    assert "bound 1.0" in labels[0]
    assert "bound 2.0" in labels[1]
    assert "{" not in "".join(labels)
    assert comparison.markdown.startswith("| ADC bits |")
    assert "its value at 0 to chance" in comparison.markdown  # where converters are, nothing is clean
    assert comparison.figure.axes[0].get_xlabel() == "ADC bits"
    assert narrow.settings_beside(bits) in [s.settings["hardware"] for s in comparison.summaries.values()]


def test_trainings_on_other_hardware_are_named_by_it(tmp_path):
    """In labels in short, and in the small print in full with the unit of what they were trained over."""
    for name, strength, sigma in (("noisy_weights", "weight.sigma", 0.05), ("pcm", "weight.time", 0.0)):
        hardware, its = read_hardware(name), Strength(strength)
        settings = {
            "sigma_train": sigma,
            "train_hardware": hardware.settings_beside(its),
            "train_strength": hardware.axis(its).as_dict(),
        }
        settings |= {} if sigma else {"trained_under_noise": True}
        make_curve((0.9, 0.8, 0.3), **settings).to_csv(tmp_path / name / "noise_curve.csv")
    make_curve((0.8, 0.7, 0.3), sigma_train=0.0, train_scale="absolute").to_csv(tmp_path / "noise_curve.csv")
    comparison = compare_curves([tmp_path])
    labels = [
        "conventional",
        "DNI weight time=0 s, trained on pcm",
        "DNI weight σ=0.05, trained on noisy_weights",
    ]
    assert [label.removesuffix(", absolute") for label in comparison.summaries] == labels
    in_full = (
        "DNI weight σ=0.05, trained on noisy_weights: trained on hardware: weight GaussianWeights per output"
    )
    assert in_full in comparison.markdown
    assert "over weight σ in multiples of the largest weight" in comparison.markdown
    (one,) = compare_curves([tmp_path / "pcm"]).summaries
    assert one == "DNI weight time=0 s"
    assert "; trained on hardware: weight PCM" in compare_curves([tmp_path / "pcm"]).markdown


def test_curves_over_different_strengths_are_not_compared(tmp_path):
    save_runs(tmp_path / "runs")
    hardware = Hardware(adc=UniformConverter())
    path = save_over(tmp_path / "bits", hardware, Strength("adc.bits"), seed=0)
    with pytest.raises(
        UserError, match=r"over adc\.bits and output\.sigma .*: give curves over one"
    ) as failed:
        compare_curves([tmp_path / "runs", path])
    assert "\n" not in str(failed.value)
    other = Hardware(output=Multiplicative())
    path = save_over(tmp_path / "multiplicative", other, Strength(), seed=0)
    with pytest.raises(UserError, match=r"multiples of each output.*: give curves in one unit"):
        compare_curves([tmp_path / "runs", path])
