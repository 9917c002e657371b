import numpy as np
import pytest
import torch
from recordings import make_folder

from asr_dni.data.batch import BatchLoader, BatchOrder
from asr_dni.data.folder import Folder
from asr_dni.data.labels import Selection, select_known
from asr_dni.data.store import pack


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = Folder(make_folder(tmp_path_factory.mktemp("words")))
    cache = tmp_path_factory.mktemp("cache")
    return pack(folder.clips(), [], identity="x", cache_dir=cache)


def loader(store, **options):
    selection = select_known(store, store.label_names, None)
    return BatchLoader(store, selection, BatchOrder(len(selection), **{"batch_size": 4, **options}))


def ids(batches):
    return [identity for batch in batches for identity in batch.clip_ids.tolist()]


def test_batches_are_the_clips_with_their_labels(store):
    batches = list(loader(store, batch_size=7))
    assert [len(batch.labels) for batch in batches] == [7, 7, 7, 7, 2]
    assert batches[0].waveforms.dtype == torch.int16
    np.testing.assert_array_equal(torch.cat([b.waveforms for b in batches]).numpy(), store.audio)
    np.testing.assert_array_equal(torch.cat([b.labels for b in batches]).numpy(), store.labels)
    np.testing.assert_array_equal(torch.cat([b.clip_ids for b in batches]).numpy(), store.clip_ids)


def test_a_negative_row_is_a_silent_clip(store):
    selection = Selection(np.array([5, -1]), np.array([0, 2]), np.array([11, 12]))
    (batch,) = BatchLoader(store, selection, BatchOrder(2, 4))
    assert batch.waveforms[0].any()
    assert not batch.waveforms[1].any()
    assert batch.labels.tolist() == [0, 2]


def test_batches_do_not_share_memory(store):
    first, second = list(loader(store))[:2]
    before = second.waveforms.clone()
    first.waveforms.zero_()
    assert torch.equal(second.waveforms, before)


def test_the_order_is_a_function_of_seed_and_epoch(store):
    def order(seed, epoch, batch_size=4):
        batches = loader(store, shuffle=True, seed=seed, batch_size=batch_size)
        batches.sampler.set_epoch(epoch)
        return ids(batches)

    assert order(1, 5) == order(1, 5) == order(1, 5, batch_size=9)
    assert sorted(order(1, 5)) == sorted(store.clip_ids.tolist())
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_a_shuffled_clip_is_anywhere(store):
    """Chi-squared over 30 places in 3,000 epochs: 29 degrees of freedom, 70 is passed once in 30,000 times."""
    places = [int(np.flatnonzero(epoch_order(store, epoch) == 0)[0]) for epoch in range(3000)]
    counts = np.bincount(places, minlength=30)
    assert ((counts - 100) ** 2 / 100).sum() < 70


def epoch_order(store, epoch):
    order = BatchOrder(len(store), 4, shuffle=True)
    order.set_epoch(epoch)
    return order.positions()


@pytest.mark.parametrize("n_clips", [1, 29, 30, 31])
@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_the_clips(n_clips, world_size):
    def of_ranks(**options):
        return [
            BatchOrder(n_clips, 4, rank=rank, world_size=world_size, **options) for rank in range(world_size)
        ]

    training = of_ranks(shuffle=True)
    assert len({len(order) for order in training}) == 1  # or the ranks would wait for each other for ever
    positions = np.concatenate([order.positions() for order in training])
    assert set(positions) == set(range(n_clips))
    assert len(positions) - n_clips < world_size
    evaluation = np.concatenate([order.positions() for order in of_ranks()])
    assert sorted(evaluation) == list(range(n_clips))
    for order in [*training, *of_ranks()]:
        assert len(order) == len(list(order))


def test_a_run_goes_on_in_the_middle_of_an_epoch(store):
    whole = loader(store, shuffle=True, seed=2)
    whole.sampler.set_epoch(3)
    expected = [batch.clip_ids.tolist() for batch in whole]
    iterator = iter(whole)
    for _ in range(5):
        next(iterator)
    state = whole.state_dict()

    resumed = loader(store, shuffle=True, seed=2)
    resumed.load_state_dict(state)
    resumed.sampler.set_epoch(3)
    assert [batch.clip_ids.tolist() for batch in resumed] == expected[5:]
    assert [batch.clip_ids.tolist() for batch in resumed] == expected  # once only
    assert len(resumed) == len(expected)


@pytest.mark.parametrize("epoch", [3, 4])
def test_after_a_finished_epoch_the_next_one_begins_at_its_beginning(store, epoch):
    finished = loader(store, shuffle=True)
    finished.sampler.set_epoch(3)
    list(finished)
    resumed = loader(store, shuffle=True)
    resumed.load_state_dict(finished.state_dict())
    resumed.sampler.set_epoch(epoch)
    assert len(list(resumed)) == len(resumed)
