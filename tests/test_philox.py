"""The counter-based generator against published vectors, against integer arithmetic, and statistically.

Statistical thresholds: every comparison of a p-value or z-score has a false-alarm rate of 1e-6 for a perfect
generator (Bonferroni-corrected where a maximum over many is taken). The seeds are fixed, so the outcome is too.
"""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from asr_dni.philox import derive_key, normal, philox4x32, uniform

FALSE_ALARM = 1e-6


def threshold(comparisons: int = 1) -> float:
    """The two-sided z-score that a maximum over so many independent comparisons exceeds once in a million."""
    return float(stats.norm.isf(FALSE_ALARM / comparisons / 2))


def words(counter, key):
    tensors = tuple(torch.tensor([word]) for word in counter)
    return [int(word) for word in philox4x32(tensors, key)]


# Known-answer vectors of the Random123 library (kat_vectors, philox4x32-10).
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(counter, key, expected):
    assert words(counter, key) == list(expected)


def philox_in_integers(counter, key):
    """The generator in Python's unbounded integers, from the paper's description."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        first, second = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1 = (second >> 32) ^ c1 ^ k0, second % 2**32
        c2, c3 = (first >> 32) ^ c3 ^ k1, first % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


def test_any_counter_and_key_against_integer_arithmetic():
    generator = np.random.default_rng(0)
    for _ in range(50):
        *counter, k0, k1 = (int(word) for word in generator.integers(0, 2**32, 6))
        assert words(counter, (k0, k1)) == philox_in_integers(counter, (k0, k1))


def test_normal_is_the_box_muller_transform_of_the_counters_words():
    key, sample, step = (123, 456), -(2**40) + 17, 2**32 - 1
    drawn = normal(key, torch.tensor([sample]), torch.tensor([step]), 4, 3)
    assert drawn.shape == (1, 1, 12)
    assert drawn.dtype == torch.float32
    for unit in range(3):
        w = philox_in_integers((unit, step, sample % 2**32, (sample >> 32) % 2**32), key)
        expected = []
        for first, second in ((w[0], w[1]), (w[2], w[3])):
            radius = math.sqrt(-2 * math.log((first + 1) / 2**32))
            angle = 2 * math.pi * second / 2**32
            expected += [radius * math.cos(angle), radius * math.sin(angle)]
        assert drawn[0, 0, unit::3].tolist() == pytest.approx(expected, abs=5e-6)


def test_no_number_of_a_counter_is_drawn_in_vain():
    samples, steps = torch.arange(3), torch.arange(2)
    four = normal((1, 2), samples, steps, 4, 5)
    assert torch.equal(normal((1, 2), samples, steps, 3, 5), four[..., :15])
    assert torch.equal(normal((1, 2), samples, steps, 2, 10), four)
    assert torch.equal(normal((1, 2), samples, steps, 1, 20), four)
    for width in (1, 2, 17, 19):  # lanes that are not full
        one = normal((1, 2), samples, steps, 1, width)
        lanes = normal((1, 2), samples, steps, 4, -(-width // 4))
        assert torch.equal(one, lanes[..., :width])
    two = normal((1, 2), samples, steps, 2, 9)
    assert torch.equal(two, torch.cat((four[..., :9], four[..., 10:19]), -1))


@pytest.mark.parametrize("groups", [0, 5])
def test_impossible_groups(groups):
    with pytest.raises(ValueError, match="groups must be 1 to 4"):
        normal((1, 2), torch.arange(1), torch.arange(1), groups, 1)


def test_a_number_depends_on_its_own_sample_step_and_unit_only():
    samples, steps = torch.tensor([5, -3, 2**62, 0]), torch.tensor([0, 7, 100_000])
    whole = normal((9, 9), samples, steps, 4, 6).unflatten(-1, (4, 6))
    for n in (0, 2):
        for t in (1, 2):
            part = normal((9, 9), samples[n : n + 1], steps[t : t + 1], 4, 4).unflatten(-1, (4, 4))
            assert torch.equal(part[0, 0], whole[t, n, :, :4])
    assert torch.equal(uniform((9, 9), samples, 6)[1, :3], uniform((9, 9), samples[1:2], 3)[0])


def test_samples_that_agree_in_their_lower_half_differ():
    a, b = uniform((1, 1), torch.tensor([7, 7 + 2**32]), 8)
    assert not torch.isclose(a, b).any()


class TestKey:
    def test_every_part_its_place_and_its_kind_count(self):
        keys = [derive_key(*parts) for parts in ((1, 2), (2, 1), (12,), ("1", 2), (1, "2"), (1, 2, 0), ())]
        assert len(set(keys)) == len(keys)
        assert all(0 <= word < 2**32 for key in keys for word in key)

    def test_is_the_same_on_every_machine(self):
        # Changing this changes the noise of every recorded result.
        assert derive_key(0, "gates", 0, 0, 0) == (1561068629, 1746305016)

    def test_integers_of_numpy_and_tensors_are_integers(self):
        assert derive_key(np.int64(7), "a") == derive_key(torch.tensor(7), "a") == derive_key(7, "a")

    @pytest.mark.parametrize("part", [0.5, None, (1, 2)])
    def test_other_parts_are_refused(self, part):
        with pytest.raises(TypeError):
            derive_key(1, part)


@functools.cache
def draw_for_moments():
    drawn = normal((5, 6), torch.arange(500), torch.arange(10), 4, 20)
    return drawn.unflatten(-1, (4, 20)).double()


@functools.cache
def draw_for_correlation(axis):
    """Rows along an axis, as many other numbers as there are in each."""
    if axis != "keys":
        array = normal((11, 12), torch.arange(20), torch.arange(20), 4, 20).unflatten(-1, (4, 20))
        return array.movedim({"steps": 0, "samples": 1, "groups": 2, "units": 3}[axis], 0).flatten(1).double()
    parts = itertools.product((0, 1), ("gates", "recurrent"), (0, 1), (0, 1), (0, 1))
    keys = [derive_key(*its_parts) for its_parts in parts]  # seed, site, stream, layer, draw
    drawn = [normal(key, torch.arange(20), torch.arange(10), 4, 10).flatten() for key in keys]
    return torch.stack(drawn).double()


class TestDistribution:
    def test_uniform(self):
        drawn = uniform((3, 4), torch.arange(1000), 200).double().flatten().numpy()
        assert drawn.min() > 0
        assert drawn.max() <= 1
        assert stats.kstest(drawn, "uniform").pvalue > FALSE_ALARM

    @pytest.mark.parametrize("group", range(4))
    def test_each_group_is_standard_normal(self, group):
        n = 100_000
        drawn = draw_for_moments()[:, :, group].flatten().numpy()
        assert stats.kstest(drawn, "norm").pvalue > FALSE_ALARM
        assert abs(drawn.mean()) * math.sqrt(n) < threshold()
        assert abs((drawn**2).mean() - 1) * math.sqrt(n / 2) < threshold()
        assert abs((drawn**3).mean()) * math.sqrt(n / 15) < threshold()
        assert abs((drawn**4).mean() - 3) * math.sqrt(n / 96) < threshold()

    def test_tails(self):
        drawn = normal((7, 8), torch.arange(500), torch.arange(10), 4, 25).flatten()
        for limit in (2.0, 3.0, 4.0):
            expected = 2 * stats.norm.sf(limit)
            count = int((drawn.abs() > limit).sum())
            low, high = stats.binom.interval(1 - FALSE_ALARM, drawn.numel(), expected)
            assert low <= count <= high

    @pytest.mark.parametrize("axis", ["samples", "steps", "units", "groups", "keys"])
    @pytest.mark.parametrize("power", [1, 2])
    def test_no_correlation(self, axis, power):
        """Every pair along an axis, of the numbers and of their squares (pairs share a Box-Muller radius)."""
        rows = draw_for_correlation(axis)
        rows = rows if power == 1 else (rows**2 - 1) / math.sqrt(2)
        count, length = rows.shape
        scores = (rows @ rows.T / math.sqrt(length))[tuple(torch.triu_indices(count, count, 1))]
        assert scores.abs().max() < threshold(len(scores))

    @pytest.mark.parametrize("lag", [1, 2, 3, 16])
    def test_no_correlation_in_the_order_of_counters(self, lag):
        drawn = normal((13, 14), torch.arange(50), torch.arange(20), 1, 64).double().flatten()
        score = (drawn[lag:] * drawn[:-lag]).sum() / math.sqrt(len(drawn) - lag)
        assert abs(score) < threshold()


def test_uniform_numbers_are_the_first_words_exactly():
    """Small words too, where float32 is fine enough to tell the word and its successor apart."""
    key, samples, width = (5, 2**32 - 1), torch.arange(64), 512
    units = torch.arange(width)[None].expand(64, -1)
    zeros = torch.zeros_like(units)
    words = philox4x32((units, zeros, samples[:, None].expand_as(units), zeros), key)[0].numpy()
    expected = (words.astype("float32") + np.float32(1)) * np.float32(2**-32)
    assert (words < 2**22).sum() > 5
    drawn = uniform(key, samples, width)
    assert drawn.dtype == torch.float32
    assert np.array_equal(drawn.numpy(), expected)


@pytest.mark.parametrize("kind", [torch.int16, torch.int32, torch.uint8, torch.uint32])
def test_identities_and_steps_of_any_integer_type(kind):
    samples, times = torch.tensor([3, 100, 0]), torch.tensor([0, 7])
    for groups in (1, 3, 4):
        expected = normal((1, 2), samples, times, groups, 5)
        assert torch.equal(normal((1, 2), samples.to(kind), times.to(kind), groups, 5), expected)
    assert torch.equal(uniform((1, 2), samples.to(kind), 5), uniform((1, 2), samples, 5))


def test_numbers_are_made_where_the_samples_are():
    samples, times = torch.arange(3, device="meta"), torch.arange(2, device="meta")
    assert normal((1, 2), samples, times, 4, 5).device.type == "meta"
    assert normal([(1, 2), (3, 4)], samples.expand(2, 3), times, 4, 5).shape == (2, 2, 3, 20)
    assert uniform((1, 2), samples, 5).device.type == "meta"


def test_numbers_do_not_depend_on_torchs_default_type():
    """Which is another one in Lightning's precisions 64-true, bf16-true and 16-true."""
    samples, times, before = torch.arange(3), torch.arange(2), torch.get_default_dtype()

    def drawn():
        return normal((1, 2), samples, times, 3, 5), uniform((1, 2), samples, 5)

    expected = drawn()
    for other in (torch.float64, torch.bfloat16):
        torch.set_default_dtype(other)
        try:
            found = drawn()
        finally:
            torch.set_default_dtype(before)
        for one, its in zip(found, expected, strict=True):
            assert one.dtype == torch.float32
            assert torch.equal(one, its)
