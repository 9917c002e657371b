"""A ledger's Parquet file: its columns in all versions, writing one, reading it, and refusing what is none."""

import errno
import os
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from asr_dni.errors import UserError
from asr_dni.noise import Strength
from asr_dni.study.identities import training_of

VERSION = 4
"""Version of the columns, noted in every file; those of all earlier versions are read too."""

COLUMNS: dict[str, pa.DataType] = {
    "member": pa.string(),
    "training": pa.string(),
    "study": pa.string(),
    "data": pa.string(),
    "protocol": pa.string(),
    "split": pa.string(),
    "n_clips": pa.int64(),
    "cell": pa.string(),
    "units": pa.int64(),
    "layers": pa.int64(),
    "bidirectional": pa.bool_(),
    "convolutions": pa.string(),
    "schedule": pa.string(),
    "sigma_train": pa.float64(),
    "drawn": pa.string(),
    "train_scale": pa.string(),
    "train_hardware": pa.string(),
    "hardware": pa.string(),
    "scale": pa.string(),
    "sites": pa.string(),
    "arrays": pa.string(),
    "votes": pa.int64(),
    "compensation": pa.string(),
    "seed": pa.int64(),
    "data_seed": pa.int64(),
    "epochs": pa.int64(),
    "axis": pa.string(),
    "unit": pa.string(),
    "strength": pa.float64(),
    "chip": pa.int64(),
    "draw": pa.int64(),
    "accuracy": pa.float64(),
    "correct": pa.int64(),
    "snr_db": pa.float64(),
    "n_classes": pa.int64(),
    "code_version": pa.string(),
    "configuration": pa.string(),
    "recorded_at": pa.timestamp("us", tz="UTC"),
    "train_seconds": pa.float64(),
}
"""The ledger's columns, one row per (member, strength, chip, draw).

``member`` is the hash of everything that decides the member's result, which ``configuration`` spells out as JSON;
``training`` is that of everything but the evaluation, which one network has on every hardware that it is evaluated on;
``sigma_train`` is the noise that the member's training ends with, a value of the strength that ``train_hardware`` names
(``output.sigma`` where it is empty), and 0 only where it was 0 at any time: conventional training, whatever the
``schedule``, where nothing else of that hardware acts; ``drawn`` is ``batch`` or ``sample`` where it was drawn for
each, and ``no`` where it was not; ``strength`` is the value of what ``axis`` names, see
:class:`asr_dni.noise.Strength`, in ``unit``; ``hardware`` is what the member was evaluated on, as JSON, and empty where
it is Gaussian noise alone, of which ``scale``, ``sites``, joined by "+", and ``arrays`` tell all; ``train_hardware`` is
what it was trained on, likewise, and empty where that is such noise, of ``train_scale`` and at the same sites;
``votes`` is how many draws decide together, so that ``draw`` counts votes; ``compensation`` is ``auto``, or a sigma,
where the gates were softened for noise of the training that was missing, and empty where they were not;
``convolutions`` are those in front of the recurrent layers in short, and empty where there are none;
``accuracy`` is from 0 to 1; ``snr_db`` is null where it is not known; ``train_seconds`` is the member's share of its
population's training; ``recorded_at`` is filled in where it is missing.
"""

ROW = ("member", "strength", "chip", "draw")
"""Columns that name a row, and that rows are ordered by."""

UNSAID: dict[str, Any] = {"votes": 1, "compensation": ""}
"""Columns that version 3 has not, and what holds for all its results."""

_OF_CONFIGURATION = ("training", "drawn")
"""Columns that version 2 has not, and that ``configuration`` tells."""

_THIRD_COLUMNS = [name for name in COLUMNS if name not in UNSAID]
_SECOND_COLUMNS = [name for name in _THIRD_COLUMNS if name not in _OF_CONFIGURATION]
_ADDED = ("convolutions", "train_hardware", "hardware", "axis", "unit", "chip", *_OF_CONFIGURATION, *UNSAID)
_FIRST_COLUMNS = ["sigma_infer" if name == "strength" else name for name in COLUMNS if name not in _ADDED]
"""Of version 1: all evaluations were under Gaussian noise, over its sigma, on one chip."""

SCHEMA = pa.schema(list(COLUMNS.items()), metadata={b"asr_dni.ledger": str(VERSION).encode()})
"""Columns and version as Parquet has them."""

_MAY_BE_NULL = ("snr_db",)
MEMBER = re.compile(r"[0-9a-f]{16}")
"""A member's name."""

COMPACTED = "compacted"
"""Name of the folder for files of many members."""


class DamagedFile(UserError):
    """A file that holds no results that could be used.

    Attributes:
        cause: what is wrong with it, after its name.
        holds: members that are whole in it, where only its name is another.
    """

    def __init__(self, path: Path, cause: str, holds: frozenset[str] = frozenset()) -> None:
        super().__init__(f"{path} {cause}: start the study again, which makes what is missing")
        self.cause, self.holds = cause, holds


def check_rows(member: str, rows: pd.DataFrame) -> pa.Table:
    """Return a member's rows as a table in the ledger's form.

    Args:
        member: its name.
        rows: with :data:`COLUMNS`, in any order.

    Raises:
        UserError: the member's name, a column or a value is not what a ledger holds.
    """
    if not MEMBER.fullmatch(member):
        raise UserError(f"a member's name is {member!r}: give its hash, 16 hexadecimal digits")
    what = f"the results of member {member}"
    rows = rows.assign(recorded_at=datetime.now(UTC)) if "recorded_at" not in rows.columns else rows
    missing = [column for column in COLUMNS if column not in rows.columns]
    foreign = [str(column) for column in rows.columns if column not in COLUMNS]
    if missing or foreign:
        wrong = f"{missing[0]!r} is missing" if missing else f"{foreign[0]!r} is not one of them"
        raise UserError(f"{what} need the columns {', '.join(COLUMNS)}: {wrong}")
    if rows.empty:
        raise UserError(f"{what} have no row: give one per strength, chip and draw")
    if set(rows["member"]) != {member}:
        raise UserError(
            f"{what} hold rows of {sorted(set(map(str, rows['member'])))}: give those of one member"
        )
    arrays = []
    for name, kind in COLUMNS.items():
        try:
            array = pa.array(rows[name], type=kind, from_pandas=True)
        except (
            pa.ArrowInvalid,
            pa.ArrowTypeError,
            pa.ArrowNotImplementedError,
            ValueError,
            TypeError,
        ) as error:
            raise UserError(f"{what} have a column {name!r} that is not of type {kind}: {error}") from error
        if array.null_count and name not in _MAY_BE_NULL:
            raise UserError(f"{what} have no value of {name!r} in some row: only snr_db may be unknown")
        arrays.append(array)
    table = pa.Table.from_arrays(arrays, schema=SCHEMA)
    if rows.duplicated(["strength", "chip", "draw"]).any():
        raise UserError(f"{what} hold the same strength, chip and draw twice: give one row for each")
    axes = {Strength(*one) for one in zip(rows["axis"], rows["unit"], strict=True)}
    if len(axes) > 1:
        raise UserError(
            f"{what} are over {' and '.join(sorted(map(str, axes)))}: give those over one strength"
        )
    accuracy = table.column("accuracy").to_numpy()
    correct, n_clips = table.column("correct").to_numpy(), table.column("n_clips").to_numpy()
    if n_clips.min() < 1 or correct.min() < 0 or (np.abs(correct - accuracy * n_clips) >= 0.5).any():
        raise UserError(f"{what} have an accuracy that is not correct / n_clips, from 0 to 1")
    sigma, strength = table.column("sigma_train").to_numpy(), table.column("strength").to_numpy()
    if not (np.isfinite(sigma) & (sigma >= 0)).all():
        raise UserError(f"{what} have a sigma_train that is not a finite number of at least 0")
    if not np.isfinite(strength).all() or (axes.pop().is_sigma and strength.min() < 0):
        raise UserError(f"{what} have a strength that is not a finite number, of sigma at least 0")
    return table


def _open(path: Path, text: list[str]) -> pq.ParquetFile:
    of_third = [name for name in text if name not in UNSAID]
    of_second = [name for name in of_third if name not in _OF_CONFIGURATION]
    for names in (text, of_third, of_second, [name for name in of_second if name not in _ADDED]):
        # A column that is not there is a KeyError.
        with suppress(KeyError):
            return pq.ParquetFile(
                path, read_dictionary=names, page_checksum_verification=True, pre_buffer=False
            )
    return pq.ParquetFile(path)


def read_file(path: Path, columns: list[str]) -> pa.Table:
    """Return some columns of a file of any version, members as dictionaries.

    Args:
        path: of the file.
        columns: which of :data:`COLUMNS`.

    Raises:
        FileNotFoundError: the file is not there.
        DamagedFile: it is damaged, or has another name than it was given.
        UserError: it is foreign or newer.
    """
    text = [name for name in columns if COLUMNS[name] == pa.string()]
    try:
        with _open(path, text) as file:
            schema = file.schema_arrow
            version = (schema.metadata or {}).get(b"asr_dni.ledger")
            if version is None:
                raise UserError(f"{path} is a Parquet file but not a ledger's: move it elsewhere")
            known = {
                b"1": _FIRST_COLUMNS,
                b"2": _SECOND_COLUMNS,
                b"3": _THIRD_COLUMNS,
                str(VERSION).encode(): list(COLUMNS),
            }
            if version not in known:
                raise UserError(
                    f"{path} is of version {version.decode()} of the ledger, this program reads up to"
                    f" version {VERSION}: use the program that wrote it, or another folder"
                )
            if schema.names != known[version]:
                raise UserError(f"{path} does not have a ledger's columns: move it elsewhere")
            stored = [name for name in columns if name in known[version]]
            if version == b"1":
                own = [name for name in columns if name not in (*_OF_CONFIGURATION, *UNSAID)]
                table = _read_first_version(file, own)
            else:
                table = file.read(columns=stored or ["draw"], use_threads=False)
            if version in (b"1", b"2"):
                table = _told_by_configuration(table, file, columns)
            if version != str(VERSION).encode():
                table = _unsaid(table, columns)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        cause = next(iter(str(error).splitlines()), type(error).__name__)
        raise DamagedFile(path, f"is damaged and can't be read ({cause})") from error
    table = table.select(columns)
    names = table.column("member").combine_chunks().dictionary if "member" in columns else None
    if names is not None and path.parent.name != COMPACTED and names.to_pylist() != [path.stem]:
        raise DamagedFile(path, "holds another member than its name says", frozenset(names.to_pylist()))
    return table


def _read_first_version(file: pq.ParquetFile, columns: list[str]) -> pa.Table:
    """Return some of today's columns of a file that has those of version 1."""
    names = {name: "sigma_infer" if name == "strength" else name for name in columns if name not in _ADDED}
    stored = list(names.values()) + (["scale"] if "unit" in columns and "scale" not in names else [])
    table = file.read(columns=stored or ["draw"], use_threads=False)
    n_rows = table.num_rows
    made: dict[str, pa.Array | pa.ChunkedArray] = {name: table.column(its) for name, its in names.items()}
    made |= dict.fromkeys(("convolutions", "train_hardware", "hardware"), pa.repeat("", n_rows))
    made["axis"] = pa.repeat(Strength().path, n_rows)
    made["chip"] = pa.repeat(pa.scalar(0, pa.int64()), n_rows)
    if "unit" in columns:
        scales = table.column("scale").cast(pa.string()).combine_chunks().dictionary_encode()
        units = [Strength.sigma(scale).unit for scale in scales.dictionary.to_pylist()]
        made["unit"] = pa.array(units, pa.string()).take(scales.indices)
    return pa.table({name: made[name] for name in columns})


def _unsaid(table: pa.Table, columns: list[str]) -> pa.Table:
    """Return the table with those of :data:`UNSAID` that are asked for."""
    for name in (name for name in columns if name in UNSAID):
        table = table.append_column(name, pa.repeat(pa.scalar(UNSAID[name], COLUMNS[name]), table.num_rows))
    return table


def _told_by_configuration(table: pa.Table, file: pq.ParquetFile, columns: list[str]) -> pa.Table:
    """Return the table with those of :data:`_OF_CONFIGURATION` that are asked for, as configurations tell."""
    asked = [name for name in columns if name in _OF_CONFIGURATION]
    if not asked:
        return table
    texts = file.read(columns=["configuration"], use_threads=False).column(0).cast(pa.string())
    texts = texts.combine_chunks().dictionary_encode()
    told = [training_of(text) for text in texts.dictionary.to_pylist()]
    for name in asked:
        values = pa.array([one[_OF_CONFIGURATION.index(name)] for one in told], pa.string())
        table = table.append_column(name, values.take(texts.indices))
    return table


def plain(table: pa.Table) -> pa.Table:
    """Return the table with dictionaries as text, but for the long text."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type) and field.name != "configuration":
            table = table.set_column(place, field.name, table.column(place).cast(pa.string()))
        elif field.name == "configuration" and not pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).dictionary_encode())
    return table.replace_schema_metadata(None)


def write_file(table: pa.Table, path: Path) -> None:
    """Write a table with all :data:`COLUMNS`."""
    table = table.cast(SCHEMA).replace_schema_metadata(SCHEMA.metadata)
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def publish_first(temporary: Path, path: Path) -> None:
    """Give a whole file its name unless another has it: unlike a renaming, a link never replaces."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in (
            errno.EPERM,
            errno.EACCES,
            errno.ENOTSUP,
            errno.EOPNOTSUPP,
            errno.ENOSYS,
            errno.EMLINK,
        ):
            raise
        # A file system without links: then of two at the same instant the last stays, which is as whole as the first.
        if not path.exists():
            os.replace(temporary, path)
