"""The change feed: committed batches in order, read from the log.

The log already holds every batch in the order in which it took effect, with its sequence numbers;
a feed decodes it and remembers nothing elsewhere, so a program that has a sequence number can go on
behind it at any time, after a restart too, as long as the log is kept (`wal_keep_bytes`). (The idea
is that of logical decoding in PostgreSQL and of `GetUpdatesSince` in RocksDB.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from holdfast.base import DELETE, MERGE, PUT, ChangesGoneError
from holdfast.manifest import VersionSet
from holdfast.merge import split
from holdfast.wal import LogEnd, LogFeed, LoggedBatch

if TYPE_CHECKING:
    from holdfast.engine.engine import Engine

_KINDS = {PUT: "put", DELETE: "delete"}
POLL_SECONDS_MIN = 0.001
POLL_SECONDS_MAX = 0.05
"""How often a feed that waits looks for more: at first, and when nothing came for a while."""


class Operation(NamedTuple):
    """One operation of a committed batch."""

    kind: str
    """"put", "delete", "delete_range" or "merge"."""
    keyspace: str | None
    """The name of the keyspace; None when that was dropped since."""
    key: bytes
    """Of a range its first key."""
    value: bytes | None
    """Of a range the key where it stops, of "merge" the operand; None for "delete"."""
    function: str | None = None
    """Of "merge" the name of the function; else None."""


@dataclass(frozen=True, slots=True)
class Change:
    """One committed batch: what one `put`, `put_many` or transaction wrote, all of it."""

    seq: int
    """The sequence number of its last operation: what `changes(since=...)` takes to go on."""
    operations: tuple[Operation, ...]


class Feed:
    """Reads the batches behind a sequence number, in order. Thread safety: one thread at a time."""

    def __init__(self, engine: Engine, since: int, check_open: Callable[[], object]) -> None:
        self._engine = engine
        self._check_open = check_open
        self._feed = LogFeed(
            engine.env, engine.folder, database_id=_database_id(engine), after=since
        )
        self._last = since
        self._pause = POLL_SECONDS_MIN

    def available(self) -> Iterator[Change]:
        """Yield what is durable by now and was not given yet. To be read to its end before it is
        called again. Raises: see `Database.changes`.
        """
        self._check_open()
        engine = self._engine
        durable_seq, end = _end(engine)
        before = self._last
        for batch in self._feed.read(end):
            if batch.seq_first > self._last + 1:
                raise _gone(engine, self._last + 1, batch.seq_first - 1)
            self._last = batch.seq_first + len(batch.operations) - 1
            yield _change(engine, batch, self._last)
            self._check_open()
        if self._last < durable_seq:
            raise _gone(engine, self._last + 1, durable_seq)
        is_new = self._last > before
        self._pause = POLL_SECONDS_MIN if is_new else min(2 * self._pause, POLL_SECONDS_MAX)

    @property
    def pause_seconds(self) -> float:
        """How long to wait until `available` is asked again."""
        return self._pause

    def follow(self) -> Iterator[Change]:
        """Yield what is durable, and then what becomes so, until the database is closed."""
        while True:
            yield from self.available()
            self._engine.env.sleep(self._pause)


def _gone(engine: Engine, first: int, last: int) -> ChangesGoneError:
    return ChangesGoneError(
        f"{engine.folder}: the log does not hold the changes from {first} to {last}; start again "
        "from a snapshot, or keep more of the log (wal_keep_bytes)"
    )


def _database_id(engine: Engine) -> bytes:
    if engine.version_set is not None:
        return engine.version_set.database_id
    return VersionSet.recover(engine.env, engine.folder).database_id


def _end(engine: Engine) -> tuple[int, LogEnd]:
    """Return the newest durable sequence number and how far the log may be read for it."""
    log = engine.log
    if log is None:
        return engine.state.visible_seq, LogEnd(below=1 << 64)
    durable_seq = max(engine.version.last_seq, log.durable_seq)
    durable_lsn = log.durable_lsn
    segments = log.segments()
    return durable_seq, LogEnd(
        below=segments[-1].number + 1,
        durable_lsn=durable_lsn,
        bytes_used={segment.number: segment.bytes_used for segment in segments},
    )


def _change(engine: Engine, batch: LoggedBatch, seq: int) -> Change:
    names: dict[int, str | None] = {}
    for _, keyspace, _, _ in batch.operations:
        if keyspace not in names:
            tree = engine.trees.get(keyspace)
            names[keyspace] = None if tree is None else tree.version.name
    return Change(
        seq,
        tuple(
            _operation(kind, names[keyspace], key, value)
            for kind, keyspace, key, value in batch.operations
        ),
    )


def _operation(kind: int, keyspace: str | None, key: bytes, value: bytes | None) -> Operation:
    if kind == MERGE:
        function, operand = split(key, value or b"")
        return Operation("merge", keyspace, key, operand, function)
    return Operation(_KINDS.get(kind, "delete_range"), keyspace, key, value)
