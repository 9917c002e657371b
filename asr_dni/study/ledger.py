"""A study's results on disk: a folder of Parquet files that only ever grows."""

import errno
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from asr_dni.errors import UserError
from asr_dni.files import write_atomically

VERSION = 1
"""Version of the columns, noted in every file."""

COLUMNS: dict[str, pa.DataType] = {
    "member": pa.string(),
    "study": pa.string(),
    "data": pa.string(),
    "protocol": pa.string(),
    "split": pa.string(),
    "n_clips": pa.int64(),
    "cell": pa.string(),
    "units": pa.int64(),
    "layers": pa.int64(),
    "bidirectional": pa.bool_(),
    "schedule": pa.string(),
    "sigma_train": pa.float64(),
    "train_scale": pa.string(),
    "scale": pa.string(),
    "sites": pa.string(),
    "arrays": pa.string(),
    "seed": pa.int64(),
    "data_seed": pa.int64(),
    "epochs": pa.int64(),
    "sigma_infer": pa.float64(),
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
"""The ledger's columns, one row per (member, sigma_infer, draw).

``member`` is the hash of everything that decides the member's result, which ``configuration`` spells out as JSON;
``sigma_train`` is the noise that the member's training ends with, and 0 only where there was none at any time:
conventional training, whatever the ``schedule``; ``scale``, ``sites`` and
``arrays`` are those of the inference noise, ``sites`` joined by "+";
``accuracy`` is from 0 to 1; ``snr_db`` is null where it is not known; ``train_seconds`` is the member's share of its
population's training; ``recorded_at`` is filled in where it is missing.
"""

_SCHEMA = pa.schema(list(COLUMNS.items()), metadata={b"asr_dni.ledger": str(VERSION).encode()})
_MAY_BE_NULL = ("snr_db",)
_MEMBER = re.compile(r"[0-9a-f]{16}")
_COMPACTED = "compacted"
_DAMAGED = "damaged"
_COMPACT_EVERY = 256
_ABANDONED_AFTER = 3600.0  # seconds; writing one takes milliseconds


class DamagedFile(UserError):
    """A file that holds no results that could be used.

    Attributes:
        cause: what is wrong with it, after its name.
        holds: members that are whole in it, where only its name is another.
    """

    def __init__(self, path: Path, cause: str, holds: frozenset[str] = frozenset()) -> None:
        super().__init__(f"{path} {cause}: start the study again, which makes what is missing")
        self.cause, self.holds = cause, holds


@dataclass(frozen=True)
class Damage:
    """A file of a ledger that cannot be used.

    Attributes:
        path: of the file.
        cause: what is wrong with it, after its name.
        holds: members that are whole in it.
    """

    path: Path
    cause: str
    holds: frozenset[str]


class Ledger:
    """Results of a study's members, in a folder: added, never changed.

    A member's rows are one Parquet file, named by the member, which appears whole or not at all: any number of
    processes may add and read at once, on a shared file system too. Where two add the same member the first stays.
    Every few hundred members :meth:`compact` joins their files into one, which is read some hundred times faster.

    What is damaged holds no member: a file that cannot be read, that is cut, empty or changed, or that has another name
    than it was given. :meth:`damages` finds such files, :meth:`set_aside` makes way for them to be made anew.

    Args:
        path: the folder; it is made when something is added.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._compacted_members: dict[Path, frozenset[str]] = {}
        self._known: dict[Path, tuple[tuple[int, int, int], bool]] = {}
        self._swept = False
        self._added = 0

    def append(self, member: str, rows: pd.DataFrame) -> Path:
        """Add a member's rows.

        Args:
            member: its configuration's hash, 16 hexadecimal digits.
            rows: its results, with the columns :data:`COLUMNS`, in any order.

        Returns:
            The file that holds the member, also where it was there before and the rows are not needed.

        Raises:
            UserError: the member's name, a column or a value is not what a ledger holds.
        """
        table = _check(member, rows)
        self.path.mkdir(parents=True, exist_ok=True)
        if not self._swept:
            self._swept = True
            self.sweep()
        path = self.path / f"{member}.parquet"
        if path.exists() and self._is_whole(path):
            return path
        for part in self._list_compacted():
            # One that is gone was joined to another just now: what is kept twice is read once.
            with suppress(FileNotFoundError, DamagedFile):
                if member in self._members_of(part):
                    return part
        if path.exists():
            self.set_aside([Damage(path, "is damaged", frozenset())])
        with write_atomically(path, _publish_first) as temporary:
            _write(table, temporary)
        self._added += 1
        if self._added % _COMPACT_EVERY == 0:
            self.compact(at_least=_COMPACT_EVERY)
        return self._file_of(member, path)

    def _file_of(self, member: str, path: Path) -> Path:
        while not path.exists():
            for part in self._list_compacted():
                with suppress(FileNotFoundError, DamagedFile):
                    if member in self._members_of(part):
                        return part
        return path

    def _is_whole(self, path: Path) -> bool:
        """Return whether a single member's file can be read and holds that member; once for every file."""
        found = path.stat()
        state = (found.st_mtime_ns, found.st_size, found.st_ino)
        known, whole = self._known.get(path, (None, False))
        if known != state:
            try:
                whole = _read(path, ["member"]).num_rows > 0
            except DamagedFile:
                whole = False
            self._known[path] = state, whole
        return whole

    def members(self) -> set[str]:
        """Return the members that the ledger holds, without reading their results; not those of damaged files.

        Raises:
            UserError: a file in the folder is not a ledger's.
        """
        while True:
            singles, parts = self._list()
            found: set[str] = set()
            try:
                for part in parts:
                    with suppress(DamagedFile):
                        found |= self._members_of(part)
                return found.union(
                    path.stem for path in singles if path.stem in found or self._is_whole(path)
                )
            except FileNotFoundError:  # compacted into another file just now
                continue

    def damages(self, rows: Mapping[str, int] | None = None) -> list[Damage]:
        """Read everything, and return what cannot be used.

        Args:
            rows: how many rows members have, of those of which it is known.

        Raises:
            UserError: a file is foreign, or was written by a newer version.
        """
        found = []
        singles, parts = self._list()
        for path in [*parts, *singles]:
            try:
                table = _read(path, list(COLUMNS))
            except FileNotFoundError:  # compacted just now
                continue
            except DamagedFile as error:
                found.append(Damage(path, error.cause, error.holds))
                continue
            counted = Counter(table.column("member").to_pylist())
            wrong = [name for name, count in counted.items() if (rows or {}).get(name, count) != count]
            if not counted or wrong:
                cause = f"has {counted[wrong[0]]} rows of {wrong[0]}" if wrong else "has no rows"
                found.append(Damage(path, cause, frozenset(counted) - set(wrong)))
        return found

    def set_aside(self, damages: Iterable[Damage]) -> list[str]:
        """Move damaged files into the folder ``damaged``; one that only has another name gets its own back.

        Returns:
            A line for each.
        """
        lines = []
        for damage in damages:
            path = damage.path
            (own,) = damage.holds if len(damage.holds) == 1 else ("",)
            right = self.path / f"{own}.parquet"
            try:
                if own and path.parent == self.path and path != right and not right.exists():
                    os.rename(path, right)
                    lines.append(f"{path} {damage.cause}: renamed to {right.name}")
                    continue
                aside = self.path / _DAMAGED / path.name
                aside.parent.mkdir(exist_ok=True)
                os.replace(path, aside)
            except FileNotFoundError:  # somebody else was faster
                continue
            lines.append(f"{path} {damage.cause}: set aside as {aside}; what it held is made anew")
            self._compacted_members.pop(path, None)
        return lines

    def frame(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return all results.

        Args:
            columns: those to read; ``None`` reads all. ``configuration``, a long text that a member's rows share, comes
                as a categorical; ``recorded_at`` as time in UTC.

        Returns:
            One row per (member, sigma_infer, draw), ascending in these whatever the files' order; no rows where
            nothing was added yet.

        Raises:
            UserError: a file is damaged, is not a ledger's, or was written by a newer version.
        """
        wanted = list(COLUMNS) if columns is None else list(columns)
        unknown = [column for column in wanted if column not in COLUMNS]
        if unknown:
            raise UserError(f"a ledger has no column {unknown[0]!r}: give some of {', '.join(COLUMNS)}")
        read = list(dict.fromkeys([*wanted, "member", "sigma_infer", "draw"]))
        while True:
            singles, parts = self._list()
            try:
                tables, known = list[pa.Table](), set[str]()
                # A member in two files was there before the second was made: the compacted one counts.
                for path in parts:
                    table = _read(path, read)
                    known |= self._keep_members(tables, table, known)
                for path in singles:
                    if path.stem not in known:
                        tables.append(_read(path, read))
            except FileNotFoundError:  # compacted into another file just now
                continue
            break
        empty = _SCHEMA.empty_table().select(read)
        table = pa.concat_tables([_plain(table) for table in tables]) if tables else empty
        table = table.sort_by([("member", "ascending"), ("sigma_infer", "ascending"), ("draw", "ascending")])
        table = table.select(wanted)
        frame: pd.DataFrame = table.to_pandas(
            categories=["configuration"] if "configuration" in wanted else None
        )
        return frame

    def compact(self, at_least: int = 2) -> Path | None:
        """Join all members' files into one; what others add meanwhile stays as it is.

        Stopped at any moment it leaves a ledger with the same content. Only one process at a time does it, another
        returns at once.

        Args:
            at_least: do nothing where there are fewer files.

        Returns:
            The file, or ``None`` where there was nothing to do.

        Raises:
            UserError: as :meth:`frame`.
        """
        if not self.path.is_dir():
            return None
        try:
            with FileLock(self.path / ".compacting.lock", timeout=0):
                singles, parts = self._list()
                if len(singles) + len(parts) < max(at_least, 2):
                    return None
                tables, known = list[pa.Table](), set[str]()
                joined_files = []
                for path in [*parts, *singles]:
                    with suppress(DamagedFile):  # it stays as it is until somebody looks
                        known |= self._keep_members(tables, _read(path, list(COLUMNS)), known)
                        joined_files.append(path)
                if len(joined_files) < max(at_least, 2):
                    return None
                path = self.path / _COMPACTED / f"{time.time_ns():020d}-{secrets.token_hex(4)}.parquet"
                path.parent.mkdir(exist_ok=True)
                joined = pa.concat_tables([_plain(table) for table in tables]).replace_schema_metadata(
                    _SCHEMA.metadata
                )
                with write_atomically(path) as temporary:
                    _write(joined, temporary)
                for old in joined_files:
                    old.unlink(missing_ok=True)
                return path
        except Timeout:
            return None

    def sweep(self, older_than: float = _ABANDONED_AFTER) -> list[Path]:
        """Remove what processes that were stopped while writing have left; :meth:`append` does so once.

        Args:
            older_than: age in seconds from which a temporary file counts as abandoned.

        Returns:
            The files that were removed.
        """
        removed = []
        for path in [*self.path.glob(".*.parquet"), *(self.path / _COMPACTED).glob(".*.parquet")]:
            try:
                if time.time() - path.stat().st_mtime >= older_than:
                    path.unlink()
                    removed.append(path)
            except FileNotFoundError:  # its writer, or another sweep, was faster
                continue
        return removed

    def _list(self) -> tuple[list[Path], list[Path]]:
        """Return the files of single members, and the compacted ones, oldest first."""
        while True:
            parts = self._list_compacted()
            singles = []
            try:
                names = sorted(os.listdir(self.path))
            except FileNotFoundError:
                return [], []
            for name in names:
                if name.startswith(".") or not name.endswith(".parquet"):
                    continue
                path = self.path / name
                if not _MEMBER.fullmatch(path.stem):
                    raise UserError(
                        f"{path} is not a ledger's file: its name should be a member's, 16 hexadecimal digits;"
                        " move it elsewhere"
                    )
                singles.append(path)
            # Files that were compacted between the two lists are in neither.
            if parts == self._list_compacted():
                return singles, parts

    def _list_compacted(self) -> list[Path]:
        # A folder of their own, so that a writer need not list the thousands of single members.
        return sorted(path for path in (self.path / _COMPACTED).glob("*.parquet") if path.name[0] != ".")

    def _members_of(self, part: Path) -> frozenset[str]:
        if part not in self._compacted_members:
            members = _read(part, ["member"]).column("member").combine_chunks().dictionary
            self._compacted_members[part] = frozenset(members.to_pylist())
        return self._compacted_members[part]

    @staticmethod
    def _keep_members(tables: list[pa.Table], table: pa.Table, known: set[str]) -> set[str]:
        """Add the rows of members that are not known yet, and return these members."""
        names = table.column("member").combine_chunks()
        new = {name for name in names.dictionary.to_pylist() if name not in known}
        if len(new) == len(names.dictionary):
            tables.append(table)
        elif new:
            keep = np.array([name in new for name in names.dictionary.to_pylist()])[names.indices.to_numpy()]
            tables.append(table.filter(pa.array(keep)))
        return new


def _check(member: str, rows: pd.DataFrame) -> pa.Table:
    """Return the rows as a table in the ledger's form."""
    if not _MEMBER.fullmatch(member):
        raise UserError(f"a member's name is {member!r}: give its hash, 16 hexadecimal digits")
    what = f"the results of member {member}"
    rows = rows.assign(recorded_at=datetime.now(UTC)) if "recorded_at" not in rows.columns else rows
    missing = [column for column in COLUMNS if column not in rows.columns]
    foreign = [str(column) for column in rows.columns if column not in COLUMNS]
    if missing or foreign:
        wrong = f"{missing[0]!r} is missing" if missing else f"{foreign[0]!r} is not one of them"
        raise UserError(f"{what} need the columns {', '.join(COLUMNS)}: {wrong}")
    if rows.empty:
        raise UserError(f"{what} have no row: give one per sigma_infer and draw")
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
    table = pa.Table.from_arrays(arrays, schema=_SCHEMA)
    if rows.duplicated(["sigma_infer", "draw"]).any():
        raise UserError(f"{what} hold the same sigma_infer and draw twice: give one row for each")
    accuracy = table.column("accuracy").to_numpy()
    correct, n_clips = table.column("correct").to_numpy(), table.column("n_clips").to_numpy()
    if n_clips.min() < 1 or correct.min() < 0 or (np.abs(correct - accuracy * n_clips) >= 0.5).any():
        raise UserError(f"{what} have an accuracy that is not correct / n_clips, from 0 to 1")
    for name in ("sigma_train", "sigma_infer"):
        sigma = table.column(name).to_numpy()
        if not (np.isfinite(sigma) & (sigma >= 0)).all():
            raise UserError(f"{what} have a {name} that is not a finite number of at least 0")
    return table


def _open(path: Path, text: list[str]) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, read_dictionary=text, page_checksum_verification=True, pre_buffer=False)
    except KeyError:  # one of these columns is not there
        return pq.ParquetFile(path)


def _read(path: Path, columns: list[str]) -> pa.Table:
    """Return some columns of a file, text as dictionaries.

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
            if version != str(VERSION).encode():
                raise UserError(
                    f"{path} is of version {version.decode()} of the ledger, this program reads version {VERSION}:"
                    " use the program that wrote it, or another folder"
                )
            if schema.names != list(COLUMNS):
                raise UserError(f"{path} does not have a ledger's columns: move it elsewhere")
            table = file.read(columns=columns, use_threads=False)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        cause = next(iter(str(error).splitlines()), type(error).__name__)
        raise DamagedFile(path, f"is damaged and can't be read ({cause})") from error
    table = table.select(columns)
    names = table.column("member").combine_chunks().dictionary if "member" in columns else None
    if names is not None and path.parent.name != _COMPACTED and names.to_pylist() != [path.stem]:
        raise DamagedFile(path, "holds another member than its name says", frozenset(names.to_pylist()))
    return table


def _plain(table: pa.Table) -> pa.Table:
    """Return the table with dictionaries as text, but for the long text."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type) and field.name != "configuration":
            table = table.set_column(place, field.name, table.column(place).cast(pa.string()))
        elif field.name == "configuration" and not pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).dictionary_encode())
    return table.replace_schema_metadata(None)


def _write(table: pa.Table, path: Path) -> None:
    table = table.cast(_SCHEMA).replace_schema_metadata(_SCHEMA.metadata)
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def _publish_first(temporary: Path, path: Path) -> None:
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
