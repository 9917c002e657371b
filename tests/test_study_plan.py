import json
import random
from collections import Counter
from dataclasses import replace

import pytest
import torch
from tiny_study import tiny

from asr_dni.errors import UserError
from asr_dni.model import KeywordNetwork
from asr_dni.noise import Noise
from asr_dni.study.cost import DataSize, evaluation_cost, largest_population, memory_of_member, training_cost
from asr_dni.study.plan import Population, code_version, partition, plan_members


def by_place(study):
    """Return the names of all members' results by what they are."""
    return {
        (
            m.cell,
            m.network.units,
            m.noise.scale,
            m.schedule,
            m.sigma_train,
            m.seed,
            e.sweep.noise.hardware.scale,
        ): e.result
        for m in plan_members(study)
        for e in m.evaluations
    }


def test_members_are_the_product_of_the_axes(tmp_path):
    study = tiny(
        tmp_path,
        cells=["lstm", "rnn"],
        units=[4, 8],
        n_layers=[1, 2],
        noise_models=[{"scale": "absolute"}, {"scale": "signal", "sigma_train": [0.5]}],
        seeds=[3, 5],
    )
    members = plan_members(study)
    assert len(members) == 2 * 2 * 2 * (2 + 1) * 2
    assert len({member.training for member in members}) == len(members)
    assert Counter(member.sigma_train for member in members) == {0.0: 16, 1.0: 16, 0.5: 16}
    assert {(member.seed, member.data_seed) for member in members} == {(3, 3), (5, 5)}


def test_conventional_training_is_there_once_under_the_first_schedule(tmp_path):
    schedules = {"b": {"schedule": "linear"}, "a": {"schedule": "exponential", "start": 0.1}}
    members = plan_members(tiny(tmp_path, schedules=schedules, seeds=1))
    assert [(member.schedule, member.sigma_train) for member in members] == [
        ("b", 0.0),
        ("b", 1.0),
        ("a", 1.0),
    ]
    alone = plan_members(tiny(tmp_path, schedules={"a": schedules["a"]}, seeds=1))
    assert alone[0].training == members[0].training  # no schedule decides it


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 3},
        {"recipes": {"lstm": {"dropout": 0.1}}},
        {"recipes": {"lstm": {"learning_rate": 0.1}}},
        {"optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}},
        {"training": {"label_smoothing": 0.0}},
        {"training": {"consistency": {"draws": 3}}},
        {"training": {"sam_rho": 0.05}},
        {"training": {"gradient_clip": None}},
        {"data": {"class_path": "asr_dni.data.DigitsData", "init_args": {"batch_size": 64}}},
        {"evaluation": {"sigma_infer": [0.0, 1.0], "draws": 3}},
        {"evaluation": {"sigma_infer": [0.0, 2.0], "draws": 2}},
        {"evaluation": {"sigma_infer": [0.0, 1.0], "draws": 2, "seed": 1}},
        {"evaluation": {"sigma_infer": [0.0, 1.0], "draws": 2, "split": "validation"}},
        {"evaluation": {"sigma_infer": [0.0, 1.0], "draws": 2, "hardware": "multiplicative"}},
        {"share_data_order": "all"},
    ],
    ids=str,
)
def test_what_decides_the_result_changes_its_name(tmp_path, change):
    before, after = by_place(tiny(tmp_path)), by_place(tiny(tmp_path, **change))
    changed = {place for place in before if before[place] != after[place]}
    # Shared batches are those of seed 0, whose members stay as they are.
    assert changed == ({p for p in before if p[5] != 0} if "share_data_order" in change else set(before))


def test_a_recipe_is_told_as_before_where_what_is_new_is_off(tmp_path):
    (first, *_) = plan_members(tiny(tmp_path))
    told = json.loads(first.evaluations[0].configuration)["training"]
    of_before = {"schedule", "warm_up", "label_smoothing", "mixup", "calibrate_every", "gradient_clip"}
    assert set(told) == of_before


def test_an_evaluation_is_told_as_before_but_on_another_hardware(tmp_path):
    """What was evaluated before there was any other hardware keeps its name."""

    def told(**evaluation):
        (first, *_) = plan_members(tiny(tmp_path, evaluation=evaluation))
        return json.loads(first.evaluations[0].configuration)["evaluation"]

    common = {"draws": 2, "seed": 0, "split": "test"}
    plain = {"scale": "absolute", "sigma_infer": [0.0, 1.0]}
    assert told(sigma_infer=[1.0, 0.0], draws=2) == {**common, **plain}
    hardware = {"weight": {"class_path": "GaussianWeights", "init_args": {"sigma": 0.1}}}
    on = {"hardware": hardware, "strength": "weight.sigma", "strengths": [0.0, 0.2], "chips": 3, "draws": 2}
    found = told(**on)
    assert found["strength"] == {"path": "weight.sigma", "unit": "multiples of the largest weight"}
    assert (found["strengths"], found["chips"]) == ([0.0, 0.2], 3)
    # Where the hardware's own value of the strength stands makes no difference, all else does.
    hardware["weight"]["init_args"]["sigma"] = 0.3
    assert told(**on) == found
    hardware["weight"]["init_args"]["per"] = "output"
    assert told(**on) != found


def test_votes_and_compensation_add_results_of_as_many_passes_as_they_need(tmp_path):
    """Votes are of the same passes; what was there before keeps its name."""
    plain = plan_members(tiny(tmp_path))
    evaluation = {"sigma_infer": [0.0, 1.0], "draws": 4, "votes": [1, 2, 4], "compensation": "auto"}
    members = plan_members(tiny(tmp_path, evaluation=evaluation))
    assert [member.training for member in members] == [member.training for member in plain]
    one, *_ = plan_members(tiny(tmp_path, evaluation={**evaluation, "votes": [1], "compensation": None}))
    for member in members:
        assert len(member.results) == 6
        assert member.n_passes == 2 * (1 + 4)
        assert [len(group) for group in member.measured] == [3, 3]
        assert [its.n_rows for its in member.measured[0]] == [1 + 4, 1 + 2, 1 + 1]
        plain_one, softened = (group[0] for group in member.measured)
        assert member.compensated(plain_one) is None
        trained = Noise(member.sigma_train).hardware if member.sigma_train else None
        assert member.compensated(softened) == trained
    assert one.results < members[0].results
    assert len({member.shape for member in members}) == 1
    fixed = plan_members(tiny(tmp_path, evaluation={**evaluation, "compensation": 1.5}))
    assert {member.compensated(member.measured[1][0]) for member in fixed} == {1.5}


def test_a_kind_of_cell_has_its_own_recipe_and_depth(tmp_path):
    """The others stay what they are, in a study of several depths too."""
    recipe = {
        "layers": 3,
        "recurrent_initialisation": "orthogonal",
        "input_gain": 0.5,
        "learning_rate": 0.003,
    }
    axes = {"cells": ["rnn", "lstm"], "n_layers": [1, 2], "recipes": {"rnn": recipe}}
    members = plan_members(tiny(tmp_path, **axes))
    shapes = Counter((member.cell, member.network.layers) for member in members)
    assert shapes == {("rnn", 3): 4, ("lstm", 1): 4, ("lstm", 2): 4}
    plain = {member.training for member in plan_members(tiny(tmp_path, **axes | {"recipes": {}}))}
    assert {member.training for member in members if member.cell == "lstm"} < plain
    (said, *_) = [json.loads(m.evaluations[0].configuration) for m in members if m.cell == "rnn"]
    assert (said["network"]["recurrent_initialisation"], said["network"]["input_gain"]) == ("orthogonal", 0.5)
    assert said["optimizer"]["lr"] == 0.003


def test_what_does_not_decide_it_leaves_it(tmp_path):
    same = tiny(
        tmp_path,
        name="other",
        cells=["rnn", "lstm"],
        seeds=[4, 1, 0],
        sigma_train=[3, 1, 0],
        keep_checkpoints=True,
        population={"members": 1},
        recipes={"rnn": {"dropout": 0.3}},
        optimizer={
            "class_path": "torch.optim.Adam",
            "init_args": {"lr": 0.01, "betas": [0.9, 0.99], "foreach": False},
        },
    )
    before, after = by_place(tiny(tmp_path)), by_place(same)
    assert before.items() <= after.items()


def test_recordings_are_known_by_what_they_are_not_by_where_they_lie(tmp_path, tone_words):
    def study(path, **arguments):
        source = {"class_path": "asr_dni.data.Folder", "init_args": {"path": str(path)}}
        return tiny(tmp_path, data={"source": source, **arguments})

    elsewhere = tmp_path / "deep" / tone_words.name
    elsewhere.parent.mkdir()
    elsewhere.symlink_to(tone_words)
    before = by_place(study(tone_words, cache_dir=str(tmp_path / "a"), num_workers=1))
    assert by_place(study(elsewhere, cache_dir=str(tmp_path / "b"), num_workers=2)) == before
    assert not set(by_place(study(tone_words, augmentation={"speed": [0.9, 1.1]})).values()) & set(
        before.values()
    )


def test_a_name_is_the_hash_of_a_configuration_that_says_it_all(tmp_path):
    members = plan_members(tiny(tmp_path, evaluation={"scales": ["absolute", "signal"]}))
    for member in members:
        assert [evaluation.sweep.noise.hardware.scale for evaluation in member.evaluations] == [
            "absolute",
            "signal",
        ]
        for evaluation in member.evaluations:
            said = json.loads(evaluation.configuration)
            assert said["network"]["units"] == 4
            assert said["seed"] == member.seed
            assert said["annealing"]["sigma"] == member.sigma_train
            assert said["evaluation"]["scale"] == evaluation.sweep.noise.hardware.scale
            assert len(evaluation.result) == 16
    assert len({name for member in members for name in member.results}) == 2 * len(members)


def test_members_of_a_population_have_one_shape_and_fit_its_limit(tmp_path):
    study = tiny(tmp_path, cells=["rnn", "gru"], units=[4, 8], seeds=7, sigma_train=[0, 1, 2])
    members = plan_members(study)
    random.Random(0).shuffle(members)
    for limit in (1, 2, 3, 5, 8, 21, 100):
        for at_least in (1, 3, 10, 1000):
            populations = partition(members, limit, at_least)
            assert Counter(m.training for p in populations for m in p.members) == Counter(
                m.training for m in members
            )
            assert all(len({m.shape for m in p.members}) == 1 for p in populations)
            sizes = [len(p.members) for p in populations]
            assert max(sizes) <= limit
            assert len(populations) >= min(at_least, len(members))
            assert len({p.id for p in populations}) == len(populations)


def test_members_of_one_seed_come_together(tmp_path):
    members = plan_members(tiny(tmp_path, seeds=5, sigma_train=[0, 1, 2, 3, 4, 5, 6, 7]))
    assert len(partition(members, 40)) == 1
    populations = partition(members, 16)
    seeds = [{member.data_seed for member in population.members} for population in populations]
    assert sorted(map(len, seeds)) == [1, 2, 2]
    assert sum(len(part) for part in seeds) == 5


def test_the_id_of_a_population_is_that_of_its_members(tmp_path):
    members = plan_members(tiny(tmp_path))
    assert Population(tuple(members)).id == Population(tuple(members)).id
    assert Population(tuple(members)).id != Population(tuple(members[1:])).id
    assert "lstm 4" in Population(tuple(members)).title


def test_memory_limits_a_population(tmp_path):
    study = tiny(tmp_path)
    member = plan_members(study)[0]
    one = memory_of_member(member.network, 50, 40, 128)
    assert largest_population(study, member, 50, 40, 128, 3.5 * one, False) == 3
    assert largest_population(study, member, 50, 40, 128, 1e12, False) == 16
    assert largest_population(study, member, 50, 40, 128, 1e12, True) == 64
    assert largest_population(study, member, 50, 40, 128, one, False) == 1
    given = tiny(tmp_path, population={"members": 5, "memory_gb": 2.5 * one / 1e9})
    assert largest_population(given, member, 50, 40, 128, 1e12, False) == 2
    for members in (5, 100):
        given = tiny(tmp_path, population={"members": members})
        assert largest_population(given, member, 50, 40, 128, 1e12, False) == members


@pytest.mark.parametrize(
    ("limits", "where"),
    [({}, "the memory, 0.5 GB"), ({"population": {"memory_gb": 0.25}}, r"population\.memory_gb, 0.2 GB")],
    ids=["memory", "setting"],
)
def test_a_member_that_does_not_fit_is_refused(tmp_path, limits, where):
    study = tiny(tmp_path, **limits)
    member = plan_members(study)[0]
    clips = 1000
    while memory_of_member(member.network, 50, 40, clips) < 1.2e9:
        clips += 100
    message = f"lstm with 4 units takes about 1.2 GB, more than {where}: give a smaller data.batch_size"
    with pytest.raises(UserError, match=message):
        largest_population(study, member, 50, 40, clips, 0.5e9, False)


@pytest.mark.parametrize(
    ("n_features", "more"),
    [(16, {}), (16, {"bidirectional": True}), (900, {"units": 2, "layers": 1})],
    ids=["layers", "both directions", "many features"],
)
def test_memory_covers_the_tensors_that_backward_keeps(tmp_path, n_features, more):
    """Counted by autograd's own hooks: the estimate has to be above, and not by far."""
    study = tiny(tmp_path, cells=["rnn", "lstm", "gru"], units=[32], n_layers=[2])
    for member in plan_members(study)[::4]:
        settings = replace(member.network, **more)
        network = KeywordNetwork(settings, n_features, 10)
        kept: dict[int, int] = {}

        def pack(tensor, kept=kept):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(torch.randn(24, 30, n_features)).sum()
        counted = sum(kept.values())
        estimated = memory_of_member(settings, 30, n_features, 24)
        assert counted < estimated < 6 * counted, (member.cell, counted, estimated)


@pytest.mark.parametrize(
    ("cell", "layers", "bidirectional"), [("lstm", 1, False), ("gru", 3, False), ("rnn", 2, True)]
)
def test_memory_of_parameters_is_that_of_weights_gradients_and_two_moments(
    tmp_path, cell, layers, bidirectional
):
    """32-bit numbers, as many as torch's own layers have; without clips there is nothing else."""
    member = plan_members(tiny(tmp_path, cells=[cell], units=[32], n_layers=[layers]))[0]
    network = replace(member.network, bidirectional=bidirectional)
    layer = getattr(torch.nn, cell.upper())(20, 32, layers, bidirectional=bidirectional)
    number = sum(parameter.numel() for parameter in layer.parameters())
    assert memory_of_member(network, 0, 20, 0) == pytest.approx(16 * number)


def test_cost_grows_with_what_there_is_to_do(tmp_path):
    size = DataSize(n_train=1000, n_evaluated=100, n_frames=50, n_features=40, batch_size=100)
    study = tiny(tmp_path, units=[64])
    member = plan_members(study)[0]
    products = 50 * 4 * 64 * 2 * (40 + 64)  # multiply and add, for every gate and frame
    assert training_cost(study, member, size) == pytest.approx(3 * 2 * 1000 * products, rel=0.2)
    # one clean pass, two draws at sigma 1
    assert evaluation_cost(member, size) == pytest.approx(3 * 100 * products, rel=0.2)
    longer = replace(size, n_train=2000)
    assert training_cost(study, member, longer) == 2 * training_cost(study, member, size)


def test_the_version_of_the_code_is_noted_but_no_part_of_the_name(tmp_path, monkeypatch):
    assert code_version().startswith("0.") or code_version()[0].isdigit()
    before = by_place(tiny(tmp_path))
    monkeypatch.setattr("asr_dni.study.plan.__version__", "99.0")
    assert by_place(tiny(tmp_path)) == before


def test_members_are_cut_between_seeds_where_there_are_as_many_seeds_as_parts(tmp_path):
    """Also where the seeds have different numbers of members, of which some are done."""
    members = [
        m
        for m in plan_members(tiny(tmp_path, seeds=2, sigma_train=list(range(9))))
        if (m.seed, m.sigma_train) != (1, 8)
    ]
    populations = partition(members, 9)
    assert [len(population.members) for population in populations] == [9, 8]
    assert [{member.seed for member in population.members} for population in populations] == [{0}, {1}]
    # But not where one would get much larger by it.
    few = [m for m in members if m.seed == 0 or m.sigma_train < 3]
    assert [len(population.members) for population in partition(few, 9)] == [6, 6]


@pytest.mark.parametrize(
    ("axes", "cut"),
    [
        ({"n_layers": [1, 3]}, lambda member: member.network.layers == 3),
        ({"units": [8, 4]}, lambda member: member.network.units == 8),
        ({"cells": ["lstm", "rnn"]}, lambda member: member.cell == "lstm"),
        ({"cells": ["rnn", "lstm"]}, lambda member: member.cell == "lstm"),
    ],
    ids=["layers", "units", "cell", "cell last"],
)
def test_what_takes_longest_is_cut_for_one_more_worker(tmp_path, axes, cut):
    members = plan_members(tiny(tmp_path, seeds=6, sigma_train=[1], **axes))
    assert [len(p.members) for p in partition(members, 100)] == [6, 6]
    populations = partition(members, 100, at_least=3)
    assert sorted(len(p.members) for p in populations) == [3, 3, 6]
    assert all(len(p.members) == 3 for p in populations if cut(p.members[0]))


def test_many_small_members_may_take_longer_than_few_large_ones(tmp_path):
    """A step's products grow with the square of the units: nine of 4 are more than two of 8."""
    members = plan_members(tiny(tmp_path, units=[4, 8], seeds=9, sigma_train=[1]))
    some = [member for member in members if member.network.units == 4 or member.seed < 2]
    populations = partition(some, 100, at_least=3)
    sizes = Counter((p.members[0].network.units, len(p.members)) for p in populations)
    assert sizes == {(4, 4): 1, (4, 5): 1, (8, 2): 1}


def test_each_shape_has_a_limit_of_its_own(tmp_path):
    members = plan_members(tiny(tmp_path, cells=["lstm", "rnn"], seeds=6, sigma_train=[1]))
    limits = {member.shape: {"lstm": 2, "rnn": 3}[member.cell] for member in members}
    sizes = Counter((p.members[0].cell, len(p.members)) for p in partition(members, limits))
    assert sizes == {("lstm", 2): 3, ("rnn", 3): 2}
