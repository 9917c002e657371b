"""A study's results on disk: a folder of Parquet files that only ever grows."""

import os
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from filelock import FileLock, Timeout

from asr_dni.errors import UserError
from asr_dni.files import write_atomically
from asr_dni.study.ledger_file import (
    COLUMNS,
    COMPACTED,
    MEMBER,
    ROW,
    SCHEMA,
    DamagedFile,
    check_rows,
    plain,
    publish_first,
    read_file,
    write_file,
)

_DAMAGED = "damaged"
COMPACT_EVERY = 256
"""Members' files that become one."""
_ABANDONED_AFTER = 3600.0  # seconds; writing one takes milliseconds


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
            rows: its results, with the columns :data:`~asr_dni.study.ledger_file.COLUMNS`, in any order.

        Returns:
            The file that holds the member, also where it was there before and the rows are not needed.

        Raises:
            UserError: the member's name, a column or a value is not what a ledger holds.
        """
        table = check_rows(member, rows)
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
        with write_atomically(path, publish_first) as temporary:
            write_file(table, temporary)
        self._added += 1
        if self._added % COMPACT_EVERY == 0:
            self.compact(at_least=COMPACT_EVERY)
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
                whole = read_file(path, ["member"]).num_rows > 0
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
                table = read_file(path, list(COLUMNS))
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
            One row per (member, strength, chip, draw), ascending in these whatever the files' order; no rows where
            nothing was added yet.

        Raises:
            UserError: a file is damaged, is not a ledger's, or was written by a newer version.
        """
        wanted = list(COLUMNS) if columns is None else list(columns)
        unknown = [column for column in wanted if column not in COLUMNS]
        if unknown:
            raise UserError(f"a ledger has no column {unknown[0]!r}: give some of {', '.join(COLUMNS)}")
        read = list(dict.fromkeys([*wanted, *ROW]))
        while True:
            singles, parts = self._list()
            try:
                tables, known = list[pa.Table](), set[str]()
                # A member in two files was there before the second was made: the compacted one counts.
                for path in parts:
                    table = read_file(path, read)
                    known |= self._keep_members(tables, table, known)
                for path in singles:
                    if path.stem not in known:
                        tables.append(read_file(path, read))
            except FileNotFoundError:  # compacted into another file just now
                continue
            break
        empty = SCHEMA.empty_table().select(read)
        table = pa.concat_tables([plain(table) for table in tables]) if tables else empty
        table = table.sort_by([(name, "ascending") for name in ROW])
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
                        known |= self._keep_members(tables, read_file(path, list(COLUMNS)), known)
                        joined_files.append(path)
                if len(joined_files) < max(at_least, 2):
                    return None
                path = self.path / COMPACTED / f"{time.time_ns():020d}-{secrets.token_hex(4)}.parquet"
                path.parent.mkdir(exist_ok=True)
                joined = pa.concat_tables([plain(table) for table in tables]).replace_schema_metadata(
                    SCHEMA.metadata
                )
                with write_atomically(path) as temporary:
                    write_file(joined, temporary)
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
        for path in [*self.path.glob(".*.parquet"), *(self.path / COMPACTED).glob(".*.parquet")]:
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
                if not MEMBER.fullmatch(path.stem):
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
        return sorted(path for path in (self.path / COMPACTED).glob("*.parquet") if path.name[0] != ".")

    def _members_of(self, part: Path) -> frozenset[str]:
        if part not in self._compacted_members:
            members = read_file(part, ["member"]).column("member").combine_chunks().dictionary
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
