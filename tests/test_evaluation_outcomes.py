"""What is made of outcomes, held to closed forms and to torchmetrics; the store that keeps them."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from standin_network import MarginNetwork, batches, make_clips
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_confusion_matrix

from asr_dni.data.batch import Batch
from asr_dni.errors import UserError
from asr_dni.evaluation import measure_noise_curve
from asr_dni.evaluation.measurement.outcomes import EvaluationSet, Outcomes, OutcomeStore, measure_sweep
from asr_dni.evaluation.measurement.sweep import Sweep, check_votes
from asr_dni.evaluation.questions.calibration import calibration_error, calibration_table, reliability_table
from asr_dni.evaluation.questions.classes import accuracy_by_class, classes_table, confusion_matrix
from asr_dni.evaluation.questions.clips import breaking_points, clips_table
from asr_dni.evaluation.questions.evaluate import curve_of
from asr_dni.evaluation.questions.voting import usual_votes, vote, votes_needed, voting_table
from asr_dni.model.convolutions import ConvolutionBlock, ConvolutionSettings
from asr_dni.model.network import KeywordNetwork, NetworkSettings
from asr_dni.noise import Gaussian, GaussianWeights, Hardware, Noise, Strength

NAMES = ["no", "yes"]


def outcomes_of(logits, labels, strength=1.0):
    return Outcomes(strength, logits, labels, torch.arange(len(labels)))


@pytest.fixture(scope="module")
def measured():
    network, clips = MarginNetwork(1.0), EvaluationSet(batches(make_clips(400), 64))
    sweep = Sweep([0, 1, 2], 9, Noise(seed=5))
    return network, clips, sweep, measure_sweep(OutcomeStore(network, clips), sweep)


def test_the_accuracy_is_that_of_the_closed_form_and_of_the_noise_curve(measured):
    network, clips, sweep, outcomes = measured
    curve = curve_of(outcomes, sweep, network, {"n_classes": 2})
    same = measure_noise_curve(network, batches(make_clips(400), 50), [0, 1, 2], 9, Noise(seed=5))
    pd.testing.assert_frame_equal(curve.frame, same.frame)
    for level in outcomes[1:]:
        expected = stats.norm.cdf(1 / (level.strength * math.sqrt(2)))
        spread = math.sqrt(expected * (1 - expected) / (9 * len(clips)))
        assert abs(level.right.double().mean().item() - expected) < 4 * spread  # false alarm: 6e-5


def test_majority_of_independent_passes_is_binomial(measured):
    *_, outcomes = measured
    table = voting_table(outcomes, [1, 3, 9])
    for strength in (1, 2):
        p = stats.norm.cdf(1 / (strength * math.sqrt(2)))
        for votes in (1, 3, 9):
            row = table.query(f"strength == {strength} and votes == {votes} and rule == 'majority'").iloc[0]
            expected = stats.binom.sf(votes // 2, votes, p)
            # No wider than that of one group of draws; false alarm 6e-5 each.
            assert abs(row["accuracy"] - expected) < 4 * math.sqrt(expected * (1 - expected) / 400)
            assert row["low"] < row["accuracy"] < row["high"]
            assert math.isnan(row["draws_low"]) == (votes == 9)
    assert (table.query("strength == 0")["accuracy"] == 1).all()


def test_the_mean_over_groups_of_draws_is_unbiased():
    """Of two classes, in all ways that 3 draws of a clip with p = 0.6 can come out, weighted by their probability."""
    p, expected = 0.6, {1: 0.6, 2: 0.6 * 0.6 + 2 * 0.6 * 0.4 * 0.5, 3: 0.6**3 + 3 * 0.6**2 * 0.4}
    found = dict.fromkeys(expected, 0.0)
    sure = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    for outcome in range(8):
        right = [(outcome >> draw) & 1 for draw in range(3)]
        # One clip of either label: where two votes disagree the tie goes to the first label, right for one of them.
        logits = torch.stack([torch.stack([sure[1 - it], sure[it]]) for it in right])[None]
        table = voting_table([outcomes_of(logits, torch.tensor([0, 1]))], list(expected))
        for votes in expected:
            row = table.query(f"votes == {votes} and rule == 'majority'").iloc[0]
            found[votes] += p ** sum(right) * (1 - p) ** (3 - sum(right)) * row["accuracy"]
    assert found == pytest.approx(expected)


def test_votes_are_counted_and_ties_go_to_what_is_believed_more():
    posteriors = torch.tensor([[[0.6, 0.4, 0.0]], [[0.6, 0.4, 0.0]], [[0.0, 1.0, 0.0]]])
    assert vote(posteriors, "majority").tolist() == [0]
    assert vote(posteriors, "mean").tolist() == [1]
    assert vote(posteriors[1:], "majority").tolist() == [1]
    assert usual_votes(10) == (1, 2, 3, 5, 7, 9, 10)
    with pytest.raises(UserError, match="12 votes need as many draws, but draws is 10"):
        check_votes([1, 12], 10)
    with pytest.raises(UserError, match="at least 1"):
        check_votes([0], 10)


def test_the_votes_that_buy_back_an_accuracy(measured):
    *_, outcomes = measured
    table = voting_table(outcomes, [1, 3, 9])
    single, nine = (
        table.query(f"strength == 2 and votes == {votes} and rule == 'mean'")["accuracy"].iloc[0]
        for votes in (1, 9)
    )
    assert single < nine
    assert votes_needed(table, single, 2.0) == 1
    assert votes_needed(table, nine, 2.0) == 9
    assert votes_needed(table, 0.999, 2.0) is None


def test_confusion_is_that_of_torchmetrics(measured):
    *_, outcomes = measured
    table = classes_table(outcomes, NAMES)
    for level in outcomes:
        for draw in range(level.logits.shape[1]):
            expected = multiclass_confusion_matrix(level.predicted[0, draw], level.labels, 2)
            own = table.query(f"strength == {level.strength} and draw == {draw}")
            counts = own.pivot_table(index="label", columns="predicted", values="count", fill_value=0)
            counts = counts.reindex(index=NAMES, columns=NAMES, fill_value=0)
            np.testing.assert_array_equal(counts.to_numpy(), expected.numpy())
    by_class = accuracy_by_class(table)
    matrix = confusion_matrix(table, 2.0, NAMES)
    assert by_class.query("strength == 2")["accuracy"].tolist() == pytest.approx(np.diag(matrix).tolist())
    assert matrix.sum(axis=1).tolist() == pytest.approx([1, 1])
    assert by_class.query("strength == 2")["n_clips"].sum() == 400


def test_the_calibration_error_of_a_known_calibration():
    """Sure to 90 %, but right in 7 of 10 decisions, until a temperature makes 70 % of that."""
    labels = torch.zeros(1000, dtype=torch.long)
    wrong = torch.arange(1000) // 2 % 10 >= 7  # the same in both halves of the clips
    logits = torch.tensor([math.log(0.9 / 0.1), 0.0]).repeat(1000, 1)
    logits[wrong] = logits[wrong].flip(-1)
    level = outcomes_of(logits[None, None], labels)
    row = calibration_table([level]).iloc[0]
    assert row["ece"] == pytest.approx(0.2, abs=1e-6)
    assert row["confidence"] == pytest.approx(0.9, abs=1e-6)
    assert row["temperature"] == pytest.approx(math.log(9) / math.log(7 / 3), rel=0.05)
    assert row["ece_scaled"] < 0.02
    bins = reliability_table([level])
    assert bins["count"].sum() == 1000
    assert bins["accuracy"].iloc[0] == pytest.approx(0.7)


def test_the_calibration_error_is_that_of_torchmetrics_and_of_the_bins(measured):
    *_, outcomes = measured
    table, bins = calibration_table(outcomes), reliability_table(outcomes)
    for level in outcomes:
        posteriors = level.posteriors.flatten(0, 2)
        labels = level.labels.repeat(level.logits.shape[1])
        expected = multiclass_calibration_error(posteriors, labels, 2, n_bins=15).item()
        row = table.query(f"strength == {level.strength}").iloc[0]
        assert row["ece"] == pytest.approx(expected, abs=1e-6)
        own = bins.query(f"strength == {level.strength}")
        share = own["count"] / own["count"].sum()
        assert (share * (own["accuracy"] - own["confidence"]).abs()).sum() == pytest.approx(
            expected, abs=1e-6
        )
    assert calibration_error(torch.tensor([0.75, 0.75]), torch.tensor([True, False])) == pytest.approx(0.25)


def test_clips_say_how_often_they_are_right_and_where_they_break():
    labels = torch.tensor([0, 1])
    clean = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    noisy = torch.stack([clean, clean.flip(-1), clean.flip(-1)])
    noisy[:, 0] = clean[0]
    levels = [outcomes_of(clean[None, None], labels, 0.0), outcomes_of(noisy[None], labels, 1.0)]
    table = clips_table(levels, NAMES, ["no/a.wav", "yes/b.wav"])
    by_place = table.set_index(["path", "strength"])
    sure = torch.sigmoid(torch.tensor(2.0)).item()
    assert by_place.loc[("yes/b.wav", 1.0), "correct_share"] == pytest.approx(1 / 3)
    assert by_place.loc[("yes/b.wav", 1.0), "predicted"] == "no"
    assert by_place.loc[("yes/b.wav", 0.0), "margin"] == pytest.approx(2 * sure - 1)
    assert by_place.loc[("yes/b.wav", 1.0), "margin"] == pytest.approx(-(2 * sure - 1) / 3)
    assert by_place.loc[("no/a.wav", 1.0), "correct_share"] == 1
    broken = breaking_points(table)
    assert broken["path"].tolist() == ["yes/b.wav", "no/a.wav"]
    assert broken["breaks_at"].iloc[0] == 1.0
    assert math.isnan(broken["breaks_at"].iloc[1])


def test_what_was_measured_is_read_again_unless_it_is_damaged(tmp_path):
    network, clips = MarginNetwork(1.0), EvaluationSet(batches(make_clips(20), 8))
    sweep = Sweep([0, 1], 3, Noise())
    first = measure_sweep(OutcomeStore(network, clips, tmp_path), sweep)
    passes = network.n_classifications
    done = []
    store = OutcomeStore(network, clips, tmp_path)
    again = measure_sweep(store, sweep, done.append)
    assert network.n_classifications == passes
    assert sum(done) == sum(store.passes(level) for level in sweep.levels) == 3 * (1 + 3)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.logits, other.logits)
    (largest,) = [path for path in tmp_path.iterdir() if path.stat().st_size > 700]
    largest.write_bytes(largest.read_bytes()[:500])
    repaired = measure_sweep(OutcomeStore(network, clips, tmp_path), sweep)
    assert network.n_classifications == passes + 9
    assert torch.equal(repaired[1].logits, first[1].logits)
    # Another seed, other weights, other clips: nothing is read.
    for change in (
        (network, clips, Sweep([1], 3, Noise(seed=1))),
        (MarginNetwork(2.0), clips, Sweep([1], 3, Noise())),
        (network, EvaluationSet(batches(make_clips(19), 8)), Sweep([1], 3, Noise())),
    ):
        assert not OutcomeStore(*change[:2], tmp_path).is_kept(change[2].levels[0])


def test_clips_of_unknown_words_are_left_out_and_no_clips_are_refused():
    batch = batches(make_clips(10), 10)[0]
    labels = batch.labels.clone()
    labels[:4] = -1
    assert len(EvaluationSet([batch._replace(labels=labels)])) == 6
    with pytest.raises(UserError, match="no clips to evaluate on"):
        EvaluationSet([batch._replace(labels=torch.full_like(labels, -1))])


def test_digital_convolutions_are_run_once_for_all_chips_and_draws():
    torch.manual_seed(2)
    convolutions = ConvolutionSettings([ConvolutionBlock(channels=3, stride=[2, 2])])
    network = KeywordNetwork(NetworkSettings(units=4, layers=1, convolutions=convolutions), 8, 2).eval()
    batch = Batch(torch.randn(6, 9, 8), torch.arange(6) % 2, torch.arange(6))
    hardware = Hardware(weight=GaussianWeights(0.1), output=Gaussian(0.5))
    sweep = Sweep([0.1, 0.2], 2, Noise.of(hardware), Strength("weight.sigma"), 3)
    runs = []
    network.convolutions.register_forward_hook(lambda _, inputs, __: runs.append(len(inputs[0])))
    clips = EvaluationSet([batch])
    outcomes = measure_sweep(OutcomeStore(network, clips), sweep)
    assert runs.count(6) == 2  # once for each level; how much fits into memory is asked of one clip
    for level, its in zip(sweep.levels, outcomes, strict=True):
        for chip in range(3):
            for draw in range(2):
                noise = level.noise.realised(chip=chip, draw=draw, sample_ids=batch.clip_ids)
                with torch.no_grad(), network.under(noise):
                    torch.testing.assert_close(its.logits[chip, draw], network(batch.features))


def test_what_was_measured_before_an_interruption_is_kept(tmp_path):
    network, clips = MarginNetwork(1.0), EvaluationSet(batches(make_clips(20), 10))
    sweep = Sweep([1, 2, 3], 4, Noise())
    done = []

    def interrupt(number):
        done.append(number)
        if len(done) == 2 * 4 + 3:  # of the second level, both of whose batches take four draws
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_sweep(OutcomeStore(network, clips, tmp_path), sweep, interrupt)
    assert [len(list(tmp_path.iterdir())), network.n_classifications] == [1, 11]
    outcomes = measure_sweep(OutcomeStore(network, clips, tmp_path), sweep)
    assert network.n_classifications == 11 + 2 * 2 * 4
    whole = measure_sweep(OutcomeStore(MarginNetwork(1.0), clips), sweep)
    for one, other in zip(outcomes, whole, strict=True):
        assert torch.equal(one.logits, other.logits)
