import multiprocessing
import os
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from simulated_study import member_rows, simulate

from asr_dni.errors import UserError
from asr_dni.noise import Strength
from asr_dni.study import ledger as ledger_module
from asr_dni.study.ledger import Ledger
from asr_dni.study.ledger_file import COLUMNS
from asr_dni.study.matrix import make_matrices

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["asr_dni.study.ledger", "asr_dni.study.matrix", "simulated_study"])


def rows_of(member: str, **other) -> pd.DataFrame:
    other = {"sigmas_infer": (0.0, 1.0), "draws": 2} | other
    return member_rows(np.random.default_rng(int(member, 16) % 1000), **other).assign(member=member)


def name(index: int) -> str:
    return f"{index:016x}"


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger")


def test_what_is_added_is_read_again(ledger):
    rows = simulate(sigmas_train=(0.0, 1.0), seeds=range(2))
    rows.loc[rows["strength"] == 1.5, "snr_db"] = np.nan
    for member, own in rows.groupby("member"):
        ledger.append(member, own.sample(frac=1, random_state=0))
    assert ledger.members() == set(rows["member"])
    frame = ledger.frame()
    assert list(frame.columns) == list(COLUMNS)
    expected = rows.sort_values(["member", "strength", "draw"], ignore_index=True)
    got = frame.assign(configuration=frame["configuration"].astype(str)).drop(columns="recorded_at")
    pd.testing.assert_frame_equal(got, expected[got.columns], check_dtype=False)
    assert np.isposinf(frame.loc[frame["strength"] == 0, "snr_db"]).all()
    assert (pd.Timestamp.now("UTC") - frame["recorded_at"]).dt.total_seconds().between(0, 600).all()


def test_an_empty_ledger_has_columns_and_no_rows(ledger):
    assert ledger.members() == set()
    assert list(ledger.frame().columns) == list(COLUMNS)
    assert len(ledger.frame()) == 0
    assert not ledger.path.exists()
    assert ledger.compact() is None


def test_some_columns(ledger):
    ledger.append(name(1), rows_of(name(1)))
    assert list(ledger.frame(["accuracy", "cell"]).columns) == ["accuracy", "cell"]
    with pytest.raises(UserError, match="no column 'accuracies'"):
        ledger.frame(["accuracies"])


def test_the_first_of_a_member_stays(ledger):
    first, second = rows_of(name(1)), rows_of(name(1)).assign(train_seconds=99.0)
    path = ledger.append(name(1), first)
    assert ledger.append(name(1), second) == path
    assert set(ledger.frame()["train_seconds"]) == {12.5}
    compacted = Ledger(ledger.path)
    compacted.append(name(2), rows_of(name(2)))
    part = compacted.compact()
    assert ledger.append(name(1), second) == part
    assert set(ledger.frame()["train_seconds"]) == {12.5}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.drop(columns="split"), "'split' is missing"),
        (lambda rows: rows.assign(loss=0.0), "'loss' is not one of them"),
        (lambda rows: rows.iloc[:0], "have no row"),
        (lambda rows: rows.assign(member=name(2)), "those of one member"),
        (lambda rows: rows.assign(units="many"), "'units' that is not of type int64"),
        (lambda rows: rows.assign(cell=None), "no value of 'cell'"),
        (lambda rows: pd.concat([rows, rows]), "draw twice"),
        (lambda rows: rows.assign(accuracy=rows["accuracy"] * 100), "correct / n_clips"),
        (lambda rows: rows.assign(strength=rows["strength"] - 1), "strength that is not"),
        (lambda rows: rows.assign(accuracy=np.nan), "no value of 'accuracy'"),
    ],
)
def test_wrong_rows_are_refused_and_nothing_is_written(ledger, change, said):
    with pytest.raises(UserError, match=said):
        ledger.append(name(1), change(rows_of(name(1))))
    assert not ledger.path.exists()


def test_a_wrong_name_is_refused(ledger):
    with pytest.raises(UserError, match="16 hexadecimal digits"):
        ledger.append("../elsewhere", rows_of(name(1)))


def test_a_damaged_file_is_named(ledger):
    ledger.append(name(1), rows_of(name(1)))
    path = ledger.append(name(2), rows_of(name(2)))
    whole = path.read_bytes()
    for damaged in (b"", whole[:-100], whole[: len(whole) // 2], b"PAR1 is not all of it PAR1"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"(?s){name(2)}\.parquet is damaged.*start the study again"):
            Ledger(ledger.path).frame()
    # One wrong bit in the accuracies, which only checksums show.
    columns = pq.ParquetFile(ledger.path / f"{name(1)}.parquet").metadata.row_group(0)
    accuracy = next(
        columns.column(index)
        for index in range(columns.num_columns)
        if columns.column(index).path_in_schema == "accuracy"
    )
    flipped = bytearray(whole)
    flipped[accuracy.data_page_offset - 5] ^= 1
    path.write_bytes(bytes(flipped))
    with pytest.raises(UserError, match="is damaged"):
        Ledger(ledger.path).frame()
    path.unlink()
    assert set(Ledger(ledger.path).frame()["member"]) == {name(1)}


def _cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def _one_bit(path):
    columns = pq.ParquetFile(path).metadata.row_group(0)
    named = {
        columns.column(place).path_in_schema: columns.column(place) for place in range(columns.num_columns)
    }
    contents = bytearray(path.read_bytes())
    contents[named["accuracy"].data_page_offset - 5] ^= 1  # in its dictionary
    path.write_bytes(bytes(contents))


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": _cut,
    "one bit": _one_bit,
    "no rows": lambda path: pq.write_table(pq.read_table(path).slice(0, 0), path),
    "fewer rows": lambda path: pq.write_table(pq.read_table(path).slice(0, 2), path),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_set_aside_and_can_be_made_anew(ledger, damage):
    ledger.append(name(1), rows_of(name(1)))
    path = ledger.append(name(2), rows_of(name(2)))
    before = ledger.frame()
    DAMAGE[damage](path)
    damaged = path.read_bytes()
    rows = {name(1): 3, name(2): 3, name(3): 3}
    if damage not in ("one bit", "fewer rows"):  # these take reading, or knowing, all
        assert ledger.members() == {name(1)}
        assert Ledger(ledger.path).members() == {name(1)}
    (found,) = ledger.damages(rows)
    assert found.path == path
    (line,) = ledger.set_aside([found])
    aside = ledger.path / "damaged" / path.name
    assert str(path) in line
    assert str(aside) in line
    assert aside.read_bytes() == damaged
    assert ledger.damages(rows) == []
    assert ledger.members() == {name(1)}
    assert set(ledger.frame()["member"]) == {name(1)}
    assert ledger.append(name(2), rows_of(name(2))) == path
    pd.testing.assert_frame_equal(
        ledger.frame().drop(columns="recorded_at"),
        before.drop(columns="recorded_at"),
        check_categorical=False,
    )


def test_a_file_of_another_name_gets_its_own_back(ledger):
    path = ledger.append(name(1), rows_of(name(1)))
    before = ledger.frame()
    path.rename(ledger.path / f"{name(7)}.parquet")
    assert ledger.members() == set()
    (line,) = ledger.set_aside(ledger.damages())
    assert f"renamed to {name(1)}.parquet" in line
    assert ledger.members() == {name(1)}
    pd.testing.assert_frame_equal(ledger.frame(), before)
    # A copy is of no use.
    (ledger.path / f"{name(7)}.parquet").write_bytes(path.read_bytes())
    assert ledger.members() == {name(1)}
    ledger.set_aside(ledger.damages())
    pd.testing.assert_frame_equal(Ledger(ledger.path).frame(), before)


def test_a_damaged_file_is_replaced_and_not_compacted(ledger):
    paths = [ledger.append(name(index), rows_of(name(index))) for index in range(4)]
    paths[1].write_bytes(b"")
    assert ledger.append(name(1), rows_of(name(1))) == paths[1]
    assert ledger.members() == {name(index) for index in range(4)}
    paths[2].write_bytes(paths[2].read_bytes()[:-9])
    part = ledger.compact()
    assert paths[2].exists()
    assert ledger.members() == {name(0), name(1), name(3)}
    # A joined file that is damaged: all that it held is missing.
    part.write_bytes(part.read_bytes()[:-9])
    other = Ledger(ledger.path)
    assert other.members() == set()
    assert len(other.set_aside(other.damages())) == 2
    assert Ledger(ledger.path).damages() == []


def test_foreign_and_newer_files_are_named(ledger, monkeypatch):
    ledger.append(name(1), rows_of(name(1)))
    foreign = ledger.path / f"{name(2)}.parquet"
    pq.write_table(pa.table({"a": [1]}), foreign)
    with pytest.raises(UserError, match=rf"{name(2)}.parquet is a Parquet file but not a ledger's"):
        ledger.frame()
    foreign.rename(ledger.path / "mine.parquet")
    with pytest.raises(UserError, match=r"mine.parquet is not a ledger's file"):
        ledger.members()
    (ledger.path / "mine.parquet").unlink()
    (ledger.path / "notes.txt").write_text("left alone")
    assert ledger.members() == {name(1)}
    table = pq.read_table(ledger.path / f"{name(1)}.parquet")
    pq.write_table(table.replace_schema_metadata({b"asr_dni.ledger": b"5"}), foreign)
    with pytest.raises(UserError, match="of version 5 of the ledger, this program reads up to version 4"):
        ledger.frame()
    foreign.write_bytes((ledger.path / f"{name(1)}.parquet").read_bytes())
    with pytest.raises(UserError, match="holds another member than its name says"):
        ledger.frame()


def test_half_written_files_are_ignored_and_swept_when_old(ledger):
    ledger.append(name(1), rows_of(name(1)))
    old = ledger.path / f".{name(2)}.123-abcd.parquet"
    new = ledger.path / f".{name(3)}.124-abcd.parquet"
    for path in (old, new):
        path.write_bytes(b"PAR1 half")
    os.utime(old, (time.time() - 7200,) * 2)
    assert ledger.members() == set(ledger.frame()["member"]) == {name(1)}
    Ledger(ledger.path).append(name(4), rows_of(name(4)))
    assert not old.exists()
    assert new.exists()
    assert ledger.sweep(older_than=0) == [new]


def test_a_writer_that_fails_leaves_nothing(ledger, monkeypatch):
    ledger.append(name(1), rows_of(name(1)))

    def fail(table, path, **settings):
        path.write_bytes(b"PAR1 half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="No space"):
        ledger.append(name(2), rows_of(name(2)))
    assert [entry.name for entry in ledger.path.iterdir()] == [f"{name(1)}.parquet"]


def test_without_links_the_first_stays_too(ledger, monkeypatch):
    def no_links(source, target):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    ledger.append(name(1), rows_of(name(1)))
    ledger.append(name(1), rows_of(name(1)).assign(train_seconds=99.0))
    assert set(ledger.frame()["train_seconds"]) == {12.5}
    assert [entry.name for entry in ledger.path.iterdir()] == [f"{name(1)}.parquet"]


def test_compacting_changes_nothing_but_the_files(ledger):
    for index in range(7):
        ledger.append(name(index), rows_of(name(index)))
    before = ledger.frame()
    part = ledger.compact()
    assert list(ledger.path.glob("*.parquet")) == []
    assert ledger.members() == set(before["member"])
    pd.testing.assert_frame_equal(ledger.frame(), before, check_categorical=False)
    assert ledger.compact() is None
    ledger.append(name(9), rows_of(name(9)))
    # As a process that was stopped between writing the joined file and removing the others leaves it.
    (ledger.path / f"{name(3)}.parquet").write_bytes(
        Ledger(ledger.path.parent / "other").append(name(3), rows_of(name(3), units=8)).read_bytes()
    )
    assert set(ledger.frame()["units"]) == {64}
    again = ledger.compact()
    assert not part.exists()
    assert ledger.members() == set(before["member"]) | {name(9)}
    assert len(ledger.frame()) == len(before) + 3
    whole = again.read_bytes()
    again.write_bytes(whole[:2000])
    with pytest.raises(UserError, match="is damaged"):
        Ledger(ledger.path).frame()
    assert Ledger(ledger.path).members() == set()


def test_many_members_are_compacted_as_they_come(ledger, monkeypatch):
    monkeypatch.setattr(ledger_module, "COMPACT_EVERY", 4)
    paths = [ledger.append(name(index), rows_of(name(index))) for index in range(10)]
    assert len(list(ledger.path.glob("*.parquet"))) == 2
    assert paths[3].parent.name == "compacted"
    assert ledger.members() == {name(index) for index in range(10)}


def _add(path, indices, seconds, start):
    ledger_module.COMPACT_EVERY = 4
    ledger = Ledger(path)
    start.wait()
    for index in indices:
        ledger.append(name(index), rows_of(name(index)).assign(train_seconds=seconds))


def test_processes_at_once_do_not_corrupt_it(tmp_path):
    """Two add the same members, in other orders, and a third its own; all compact, and this one reads."""
    start = PROCESSES.Event()
    jobs = [range(10), range(9, -1, -1), range(10, 20)]
    processes = [
        PROCESSES.Process(target=_add, args=(tmp_path, list(indices), float(job), start))
        for job, indices in enumerate(jobs)
    ]
    for process in processes:
        process.start()
    start.set()
    ledger, seen = Ledger(tmp_path), 0
    while any(process.is_alive() for process in processes):
        frame = ledger.frame()
        assert frame.groupby("member").size().eq(3).all() if len(frame) else True
        assert frame["member"].nunique() >= seen  # nothing that was there is ever missing
        assert len(ledger.members()) >= frame["member"].nunique()
        seen = frame["member"].nunique()
        time.sleep(0.02)  # leaves the writers a processor
    for process in processes:
        process.join()
        assert process.exitcode == 0
    frame = ledger.frame()
    assert set(frame["member"]) == ledger.members() == {name(index) for index in range(20)}
    assert len(frame) == 60
    assert frame.groupby("member")["train_seconds"].nunique().eq(1).all()  # no member of two halves
    assert not list(tmp_path.rglob(".*.parquet"))


def test_a_killed_writer_leaves_a_readable_ledger(tmp_path):
    start = PROCESSES.Event()
    process = PROCESSES.Process(target=_add, args=(tmp_path, list(range(5000)), 1.0, start))
    process.start()
    start.set()
    deadline = time.monotonic() + 60
    while len(Ledger(tmp_path).members()) < 12 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    ledger = Ledger(tmp_path)
    assert len(ledger.members()) >= 12
    assert ledger.frame().groupby("member").size().eq(3).all()
    ledger.append(name(9999), rows_of(name(9999)))
    assert ledger.compact() is not None  # the killed one's lock is not held


def test_rows_over_two_strengths_are_refused(ledger):
    rows = rows_of(name(1))
    mixed = rows.assign(axis=["output.sigma"] * (len(rows) - 1) + ["adc.bits"])
    with pytest.raises(
        UserError, match=r"over adc\.bits .* and output\.sigma .*: give those over one strength"
    ):
        ledger.append(name(1), mixed)


def test_chips_and_another_strength_are_read_again(ledger):
    rows = pd.concat([rows_of(name(1), unit="").assign(chip=chip) for chip in (0, 1)])
    rows = rows.assign(axis="weight.sigma", hardware='{"weight": []}', scale="absolute", snr_db=np.nan)
    ledger.append(name(1), rows)
    frame = ledger.frame(["strength", "chip", "draw", "axis", "hardware"])
    assert list(zip(frame["strength"], frame["chip"], frame["draw"], strict=True)) == [
        (0.0, 0, 0),
        (0.0, 1, 0),
        (1.0, 0, 0),
        (1.0, 0, 1),
        (1.0, 1, 0),
        (1.0, 1, 1),
    ]
    (matrix,) = make_matrices(ledger.frame())
    assert matrix.strength == Strength("weight.sigma")
    assert (matrix.n_chips, matrix.n_draws.tolist()) == (2, [1, 2])
    assert matrix.accuracy[0, 1, 0] == pytest.approx(rows.loc[rows["strength"] == 1, "accuracy"].mean())


TEXT, WHOLE, NUMBER = pa.string(), pa.int64(), pa.float64()
FIRST_VERSION = pa.schema(
    [
        *((its, TEXT) for its in ("member", "study", "data", "protocol", "split")),
        ("n_clips", WHOLE),
        ("cell", TEXT),
        ("units", WHOLE),
        ("layers", WHOLE),
        ("bidirectional", pa.bool_()),
        ("schedule", TEXT),
        ("sigma_train", NUMBER),
        *((its, TEXT) for its in ("train_scale", "scale", "sites", "arrays")),
        *((its, WHOLE) for its in ("seed", "data_seed", "epochs")),
        ("sigma_infer", NUMBER),
        ("draw", WHOLE),
        ("accuracy", NUMBER),
        ("correct", WHOLE),
        ("snr_db", NUMBER),
        ("n_classes", WHOLE),
        *((its, TEXT) for its in ("code_version", "configuration")),
        ("recorded_at", pa.timestamp("us", tz="UTC")),
        ("train_seconds", NUMBER),
    ],
    metadata={b"asr_dni.ledger": b"1"},
)
"""The columns of a ledger's files before the axis was a strength, as they lie in studies' folders."""


def write_first_version(path, rows):
    rows = rows.rename(columns={"strength": "sigma_infer"}).assign(recorded_at=pd.Timestamp(0, tz="UTC"))
    table = pa.Table.from_pandas(rows[FIRST_VERSION.names], FIRST_VERSION, preserve_index=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        table.replace_schema_metadata(FIRST_VERSION.metadata),
        path,
        compression="zstd",
        write_page_checksum=True,
    )


def test_files_of_the_first_version_hold_the_same(ledger):
    """A study that was begun before goes on: its members are there, beside new ones, and are compacted with them."""
    scales = {name(1): "signal", name(2): "absolute", name(3): "range"}
    rows = [rows_of(one, scale=scale, unit=Strength.sigma(scale).unit) for one, scale in scales.items()]
    for own in rows[:2]:
        write_first_version(ledger.path / f"{own['member'][0]}.parquet", own)
    ledger.append(name(3), rows[2])
    expected = pd.concat(rows, ignore_index=True)
    assert ledger.append(name(1), rows[0]) == ledger.path / f"{name(1)}.parquet"
    for _ in range(2):
        assert ledger.members() == set(scales)
        assert ledger.damages() == []
        frame = ledger.frame()
        got = frame.assign(configuration=frame["configuration"].astype(str)).drop(columns="recorded_at")
        pd.testing.assert_frame_equal(got, expected[got.columns], check_dtype=False)
        for column in COLUMNS:
            assert list(ledger.frame([column]).columns) == [column]
        part = ledger.compact()
    assert part is None
    assert [matrix.strength for matrix in make_matrices(ledger.frame())] == [
        Strength.sigma("absolute"),
        Strength.sigma("range"),
        Strength.sigma("signal"),
    ]


def test_results_of_the_third_version_are_of_single_passes(ledger):
    path = ledger.append(name(1), rows_of(name(1)))
    third = pq.read_table(path).drop_columns(["votes", "compensation"])
    pq.write_table(third.replace_schema_metadata({b"asr_dni.ledger": b"3"}), path)
    rows = [rows_of(name(2), votes=4), rows_of(name(3), compensation="auto")]
    for own in rows:
        ledger.append(own["member"][0], own)
    for _ in range(2):
        first = ledger.frame().groupby("member").first()
        assert list(first["votes"]) == [1, 4, 1]
        assert list(first["compensation"]) == ["", "", "auto"]
        assert list(ledger.frame(["votes"]).columns) == ["votes"]
        ledger.compact()
    assert [matrix.voted for matrix in make_matrices(ledger.frame())] == [False, False, True]


def test_the_second_version_tells_trainings_by_their_configurations(ledger):
    """Columns that came later: which network a result is of, whatever the hardware, and how it was drawn."""
    for place, (drawn, hardware) in enumerate([("no", "pcm"), ("batch", "pcm"), ("batch", "hermes")]):
        changes = {"annealing": {"sigma": 1.0} | ({"drawn": drawn} if drawn == "batch" else {})}
        rows = rows_of(name(place), configuration={**changes, "evaluation": {"hardware": hardware}})
        path = ledger.append(name(place), rows)
        second = pq.read_table(path).drop_columns(["training", "drawn", "votes", "compensation"])
        pq.write_table(second.replace_schema_metadata({b"asr_dni.ledger": b"2"}), path)
    for _ in range(2):
        frame = ledger.frame()
        first = frame.groupby("member").first()
        assert list(first["drawn"]) == ["no", "batch", "batch"]
        assert first["training"].iloc[1] == first["training"].iloc[2] != first["training"].iloc[0]
        assert list(ledger.frame(["drawn", "accuracy"]).columns) == ["drawn", "accuracy"]
        ledger.compact()


def test_a_file_of_the_first_version_with_other_columns_is_foreign(ledger):
    path = ledger.path / f"{name(1)}.parquet"
    write_first_version(path, rows_of(name(1)))
    table = pq.read_table(path).drop_columns(["arrays"])
    pq.write_table(table, path)
    with pytest.raises(UserError, match="does not have a ledger's columns"):
        ledger.frame()
