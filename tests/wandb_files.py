"""Reads W&B's offline runs by the client's own messages."""

import json
import struct
import time
import zlib
from pathlib import Path

from wandb.proto import wandb_internal_pb2


def read_run(path):
    """Read a .wandb file as far as it is written: LevelDB's log format, each record a message of W&B's protocol."""
    data = Path(path).read_bytes()
    assert data[:4] == b":W&B"[: len(data)]
    place, message, block = 7, b"", 32768
    while place + 7 <= len(data):
        if block - place % block < 7:
            place += block - place % block
            continue
        checksum, length, kind = struct.unpack("<IHB", data[place : place + 7])
        part = data[place + 7 : place + 7 + length]
        if kind == 0 or zlib.crc32(part, zlib.crc32(bytes([kind]))) != checksum:
            break
        message += part
        place += 7 + length
        if kind in (1, 4):  # the whole record, or its last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(message)
            message = b""
            yield record


def whole_run(path):
    """Read a run that was finished: W&B's service may still be writing the file then."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        records = list(read_run(path))
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        time.sleep(0.1)
    raise AssertionError(f"{path} is not whole a minute after the run was finished")


def history_rows(records):
    rows = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append(
                {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
            )
    return rows


def summary_of(records):
    """Return what a run's summary was set to by hand."""
    return {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for record in records
        if record.WhichOneof("record_type") == "summary"
        for item in record.summary.update
    }


def configuration_of(records):
    """Return a run's configuration, by keys joined with slashes where they are nested."""
    found = {}
    for record in records:
        kind = record.WhichOneof("record_type")
        if kind in ("config", "run"):
            for item in (record.config if kind == "config" else record.run.config).update:
                found["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return found
