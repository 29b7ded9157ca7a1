"""What the suites of the log share: a log on a simulated machine, and what was promised of it."""

from __future__ import annotations

from typing import Any

from holdfast.base import PUT, DatabaseSettings
from holdfast.env import SimEnv
from holdfast.wal import LogContents, LogWriter, RecordBuffer, read_log

DATABASE_ID = bytes(range(100, 116))
FOLDER = "/db"


class Log:
    """A writer, what it was given, and what it said about it."""

    def __init__(
        self,
        env: Any = None,
        *,
        segment_bytes: int = 8192,
        alignment: int = 8,
        lsn_first: int = 1,
        number: int = 1,
        database_id: bytes = DATABASE_ID,
    ) -> None:
        self.env: Any = env if env is not None else SimEnv(1)
        self.sim: Any = getattr(self.env, "inner", self.env)
        if "db" not in self.sim.list_dir("/"):
            self.sim.make_dir(FOLDER, site="test")
            self.sim.sync_dir("/", site="test")
        self.number = number
        self.first = number
        self.edit = 0
        self.alignment = alignment
        self.seq = 1
        # (lsn, first sequence number, payload) of every accepted record.
        self.written: list[tuple[int, int, bytes]] = []
        self.writer = LogWriter(
            self.env,
            FOLDER,
            settings=DatabaseSettings(
                wal_segment_bytes=segment_bytes, wal_alignment_bytes=alignment
            ),
            database_id=database_id,
            allocate_number=self.allocate,
            lsn_first=lsn_first,
            manifest_edit=lambda: self.edit,
        )

    def allocate(self) -> int:
        self.number += 1
        return self.number - 1

    def append(self, *values: bytes, durable: bool = False) -> int:
        buffer = RecordBuffer()
        for value in values or (b"v",):
            buffer.append_op(PUT, 1, b"key", value)
        lsn = self.writer.append(buffer, self.seq, durable=durable)
        self.written.append((lsn, self.seq, buffer.payload()))
        self.seq += buffer.op_count
        return lsn

    def read(self, env: Any = None, **known: Any) -> LogContents:
        return contents(env or self.env, self.first, alignment=self.alignment, **known)


def contents(env: Any, first: int, **known: Any) -> LogContents:
    arguments = {
        "database_id": DATABASE_ID,
        "alignment": 8,
        "first_lsn": 0,
        "durable_lsn": 0,
        "manifest_edit_seen": 0,
        "clean": False,
        **known,
    }
    return read_log(env, FOLDER, first, **arguments)


def records(log: LogContents) -> list[tuple[int, int, bytes]]:
    """Every record with operations: ordinal, first sequence number, payload."""
    return [(record.lsn, record.seq_first, bytes(record.payload)) for record in log.records()]


def bytes_of(env: Any, number: int) -> bytes:
    path = f"{FOLDER}/{number:08d}.wal"
    file = env.open(path)
    data: bytes = file.read_at(0, env.file_size(path))
    file.close()
    return data


def replace_bytes(env: Any, number: int, data: bytes) -> None:
    """Make a segment's file hold exactly `data`, durably."""
    path = f"{FOLDER}/{number:08d}.wal"
    if path.rpartition("/")[2] in env.list_dir(FOLDER):
        env.unlink(path, site="test")
    file = env.create(path, site="test")
    file.write_at(0, data, site="test")
    file.sync(site="test")
    file.close()
    env.sync_dir(FOLDER, site="test")
