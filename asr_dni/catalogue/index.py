"""The index: what the files of runs say, in one Parquet file that can be thrown away.

It is a copy: what it says of a file counts as long as the file has the size, the time and the inode that it had when it
was read. A file that was changed within :data:`SETTLED_SECONDS` before it was read is read again next time, since one
more change may leave its time the same.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from asr_dni.catalogue.finding import Stamp
from asr_dni.catalogue.reading import Contents
from asr_dni.evaluation.curves.level_means import MEASURED
from asr_dni.files import write_atomically

NAME = ".asr-dni-catalogue.parquet"
"""Of the file, in the catalogue's folder."""

SETTLED_SECONDS = 2.0
"""Twice the coarsest time that file systems in use keep."""

_VERSION = "1"
_SCHEMA = pa.schema(
    {
        "path": pa.string(),
        "size": pa.int64(),
        "changed": pa.int64(),
        "inode": pa.uint64(),
        "fault": pa.string(),
        "parts": pa.list_(pa.string()),
        "means": pa.list_(pa.float64()),
        "tested": pa.bool_(),
        "epoch": pa.int64(),
    },
    metadata={"asr_dni.catalogue": json.dumps([_VERSION, *MEASURED])},
)

Known = dict[str, tuple[Stamp, Contents]]
"""What is known of files, by their path relative to the catalogue's folder."""


class Index:
    """The index of a folder: in it, or where nothing may be written there in the user's folder for such.

    Args:
        folder: the catalogue's.
    """

    def __init__(self, folder: Path) -> None:
        name = hashlib.blake2b(os.fsencode(folder), digest_size=8).hexdigest()
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
        inside, outside = folder / NAME, cache / "asr-dni" / f"catalogue-{name}.parquet"
        self.path = inside if os.access(folder, os.W_OK) else outside
        """The file."""

    def read(self) -> Known:
        """Return what it says; nothing where it is missing, damaged or of another version."""
        try:
            with pq.ParquetFile(self.path, page_checksum_verification=True) as file:
                table = file.read(use_threads=False)
            if table.schema.metadata != _SCHEMA.metadata or not table.schema.equals(_SCHEMA):
                return {}
            return _known(table)
        except (OSError, ValueError, TypeError, pa.ArrowException):
            return {}

    def write(self, known: Mapping[str, tuple[Stamp, Contents]], began: float) -> None:
        """Write what is known, whole or not at all; nothing where it can't be written: it is not needed.

        Args:
            known: what files say.
            began: time before the first of them was looked at, seconds since 1970.
        """
        settled = (min(began, time.time()) - SETTLED_SECONDS) * 1e9
        kept = {path: own for path, own in known.items() if own[0].changed < settled}
        stamps, contents = [own[0] for own in kept.values()], [own[1] for own in kept.values()]
        columns = {
            "path": list(kept),
            "size": [stamp.size for stamp in stamps],
            "changed": [stamp.changed for stamp in stamps],
            "inode": [stamp.inode for stamp in stamps],
            "fault": [own.fault for own in contents],
            "parts": [own.parts for own in contents],
            "means": [() if own.means is None else own.means.ravel() for own in contents],
            "tested": [own.tested for own in contents],
            "epoch": [own.epoch for own in contents],
        }
        with contextlib.suppress(OSError, pa.ArrowException, UnicodeEncodeError):
            table = pa.table(columns, schema=_SCHEMA)
            with write_atomically(self.path) as temporary:
                pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def _known(table: pa.Table) -> Known:
    columns = {name: table.column(name).to_pylist() for name in table.column_names if name != "means"}
    means = table.column("means").combine_chunks()
    values = means.flatten().to_numpy(zero_copy_only=False)
    ends = np.cumsum(means.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
    known: Known = {}
    begin = 0
    rows = zip(*(columns[name] for name in columns), ends.tolist(), strict=True)
    for path, size, changed, inode, fault, parts, tested, epoch, end in rows:
        own = values[begin:end].reshape(-1, len(MEASURED)) if end > begin else None
        known[path] = Stamp(size, changed, inode), Contents(fault, tuple(parts), own, tested, epoch)
        begin = end
    return known
