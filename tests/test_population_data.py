"""Batches of a population against those of each member's datamodule alone."""

import pytest
import pytorch_lightning as pl
import torch

from asr_dni.data import Batch, DigitsData
from asr_dni.data.population_data import PopulationData
from asr_dni.errors import UserError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*logging interval", "ignore:.*LeafSpec"
)


class Recorder(pl.LightningModule):
    """Keeps the batches that a trainer gives it."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained, self.validated = [], []

    def training_step(self, batch, batch_idx):
        self.trained.append(batch)
        return self.weight * 0.0

    def validation_step(self, batch, batch_idx):
        self.validated.append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def record(data, epochs=2):
    recorder = Recorder()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        limit_train_batches=4,
    )
    trainer.fit(recorder, datamodule=data)
    return recorder


def digits(seed, **options):
    return DigitsData(batch_size=16, seed=seed, **options)


def assert_same(one: Batch, other: Batch) -> None:
    for name in Batch._fields:
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("kind", ["words", "digits"])
def test_each_member_gets_its_own_batches(kind, words):
    make = {"words": words, "digits": digits}[kind]
    seeds = [5, 2, 5]
    population = record(PopulationData.from_seeds(make, seeds))
    alone = {seed: record(make(seed)) for seed in set(seeds)}
    assert not torch.equal(alone[5].trained[0].clip_ids, alone[2].trained[0].clip_ids)
    assert len(population.trained) == len(alone[5].trained) > 4
    for step, batch in enumerate(population.trained):
        assert batch.features.shape[0] == 3
        for member, seed in enumerate(seeds):
            assert_same(Batch(*(tensor[member] for tensor in batch)), alone[seed].trained[step])
    for batches in (population.validated, alone[2].validated):
        assert len(batches) == len(alone[5].validated)
        for one, other in zip(batches, alone[5].validated, strict=True):
            assert_same(one, other)


@pytest.mark.parametrize("kind", ["words", "digits"])
def test_members_of_one_seed_share_a_batch(kind, words):
    make = {"words": words, "digits": digits}[kind]
    population = record(PopulationData.from_seeds(make, [3, 3, 3, 3]), epochs=1)
    for batch, alone in zip(population.trained, record(make(3), epochs=1).trained, strict=True):
        assert batch.features.dim() == 3
        assert_same(batch, alone)


def test_what_members_have_in_common(words):
    made = []

    def make(seed):
        made.append(seed)
        return words(seed)

    data = PopulationData.from_seeds(make, [4, 1, 4, 1])
    alone = words(1)
    assert made == [4, 1]
    assert data.networks == 4
    assert [data.data_of(member).seed for member in range(4)] == [4, 1, 4, 1]
    for name in ("label_names", "n_features", "n_frames", "batch_size", "protocol"):
        assert getattr(data, name) == getattr(alone, name)
    assert data.protocol_of("validation") == alone.protocol_of("validation")
    data.prepare_data()
    data.setup("test")
    alone.setup("test")
    for one, other in zip(data.batches("test"), alone.batches("test"), strict=True):
        assert_same(one, other)


def test_data_that_differ_in_more_than_the_seed_are_refused(words):
    with pytest.raises(UserError, match=r"differ in clip_seconds \(1.0 and 0.5\): only seed"):
        PopulationData([words(0), words(1, clip_seconds=0.5)], [0, 1])
    with pytest.raises(UserError, match="KeywordData and DigitsData"):
        PopulationData([words(0), digits(1)], [0, 1])


@pytest.mark.parametrize(
    ("data", "of_member", "named"),
    [
        ([], [], "at least one datamodule"),
        ([0], [], "one member"),
        ([0], [0, 1], "of_member has 1: give positions in the 1 "),
        ([0], [-1], "of_member has -1"),
        ([0, 1], [1, 1], "datamodule 0 to no member"),
    ],
)
def test_members_have_to_fit_the_data(data, of_member, named):
    with pytest.raises(UserError, match=named):
        PopulationData([digits(seed) for seed in data], of_member)


def test_a_state_goes_back_to_the_same_members_only():
    data = PopulationData.from_seeds(digits, [0, 1])
    data.setup("fit")
    state = data.state_dict()
    torch.testing.assert_close(
        state["members"][1]["DigitsData"]["statistics"], data.data[0].state_dict()["statistics"]
    )
    assert state["members"][1]["datamodule_hyper_parameters"]["data"]["seed"] == 1
    again = PopulationData.from_seeds(digits, [0, 1])
    again.load_state_dict(state)
    torch.testing.assert_close(again.state_dict()["data"]["statistics"], state["data"]["statistics"])
    with pytest.raises(UserError, match=r"seeds 0, 1, these have 1, 0"):
        PopulationData.from_seeds(digits, [1, 0]).load_state_dict(state)
