"""Workloads for crash runs: short lists of steps that write data which says which commit wrote it.

Each value begins with the number of its commit and its key, so a wrong row tells where it came
from. The settings are tiny: a few dozen steps go through flushes, compactions and new segments.

`CANONICAL` names the workloads; `workload(name, seed)` makes one. Only `mixed` depends on the seed
in its steps; for the others it decides when background work runs and what random bytes are drawn.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from holdfast.base import DatabaseSettings, KeyspaceSettings
from holdfast.engine import Database
from holdfast.env import Env
from holdfast.testing.clients import OTHER, Clients
from holdfast.testing.oracle import DEFAULT, History, State, WorkloadError
from holdfast.testing.session import Session, Step, Work, value_of
from holdfast.testing.workload_merges import Merge, MergeMany, merges
from holdfast.testing.workload_transactions import transacts
from holdfast.wal import WriteBatch

_VALUE_BYTES = 60
_INTERVAL_MS = 10

TINY = DatabaseSettings(
    memory_bytes=1 << 20,
    wal_segment_bytes=4 << 10,
    wal_bytes_max=16 << 10,
    sync_interval_ms=_INTERVAL_MS,
    keyspace=KeyspaceSettings(
        memtable_bytes=4 << 10,
        page_bytes=256,
        restart_interval=4,
        table_bytes=4 << 10,
        level0_tables=2,
        level1_bytes=8 << 10,
        level_ratio=2,
    ),
)


KEPT_LOG = replace(TINY, wal_keep_bytes=1 << 20)
SIZE_TIERED = replace(TINY, keyspace=replace(TINY.keyspace, compaction="size-tiered"))
TIME_WINDOW = replace(
    TINY,
    keyspace=replace(TINY.keyspace, compaction="time-window", window_seconds=10, key_time_unit="s"),
)


LARGE_MEMTABLE = replace(TINY, keyspace=replace(TINY.keyspace, memtable_bytes=1 << 20))
"""The log's own buffer fills before a memtable does."""

LARGE_SEGMENTS = replace(
    LARGE_MEMTABLE,
    memory_bytes=32 << 20,
    wal_segment_bytes=512 << 10,
    wal_bytes_max=4 << 20,
    keyspace=replace(LARGE_MEMTABLE.keyspace, memtable_bytes=4 << 20),
)
"""It also fills long before a segment does."""


@dataclass(frozen=True, slots=True)
class Put:
    """One key."""

    key: bytes
    keyspace: str = DEFAULT
    durability: str | None = None
    size: int = _VALUE_BYTES

    def run(self, session: Session) -> None:
        def change(state: State, number: int) -> None:
            state[self.keyspace][self.key] = value_of(number, self.key, self.size)

        def call(number: int) -> None:
            value = value_of(number, self.key, self.size)
            session.keyspace(self.keyspace).put(self.key, value, durability=self.durability)

        session.commit(change, call, self.durability, self.keyspace)


def _marker(number: int) -> bytes:
    return b"marker/%04d" % number


@dataclass(frozen=True, slots=True)
class PutMany:
    """Several keys of one keyspace and a marker, as one commit."""

    keys: tuple[bytes, ...]
    keyspace: str = DEFAULT
    durability: str | None = None
    size: int = _VALUE_BYTES

    def run(self, session: Session) -> None:
        def pairs(number: int) -> dict[bytes, bytes]:
            keys = (*self.keys, _marker(number))
            return {key: value_of(number, key, self.size) for key in keys}

        session.commit(
            lambda state, number: state[self.keyspace].update(pairs(number)),
            lambda number: session.keyspace(self.keyspace).put_many(
                pairs(number), durability=self.durability
            ),
            self.durability,
            self.keyspace,
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """Keys of several keyspaces, put or deleted, with a marker in each, as one commit."""

    puts: tuple[tuple[str, bytes], ...]
    deletes: tuple[tuple[str, bytes], ...] = ()
    durability: str | None = None
    size: int = _VALUE_BYTES

    def run(self, session: Session) -> None:
        names = dict.fromkeys(name for name, _ in (*self.puts, *self.deletes))

        def rows(number: int) -> list[tuple[str, bytes]]:
            return [*self.puts, *((name, _marker(number)) for name in names)]

        def change(state: State, number: int) -> None:
            for name, key in rows(number):
                state[name][key] = value_of(number, key, self.size)
            for name, key in self.deletes:
                state[name].pop(key, None)

        def call(number: int) -> None:
            ids = {name: session.keyspace(name).id for name in names}
            batch = WriteBatch()
            for name, key in rows(number):
                batch.put(ids[name], key, value_of(number, key, self.size))
            for name, key in self.deletes:
                batch.delete(ids[name], key)
            engine = session.database._engine  # noqa: SLF001  users reach this through transactions
            if self.durability == "interval":
                engine.arm_interval()
            engine.write_path.commit(batch, self.durability, frozenset(ids.values()))

        session.commit(change, call, self.durability, *names)


@dataclass(frozen=True, slots=True)
class Ingest:
    """Ascending keys of one keyspace and a marker behind them, as one commit without the log."""

    keys: tuple[bytes, ...]
    keyspace: str = DEFAULT
    size: int = _VALUE_BYTES

    def run(self, session: Session) -> None:
        def pairs(number: int) -> dict[bytes, bytes]:
            keys = (*self.keys, _marker(number))
            return {key: value_of(number, key, self.size) for key in keys}

        session.commit(
            lambda state, number: state[self.keyspace].update(pairs(number)),
            lambda number: session.keyspace(self.keyspace).ingest(pairs(number)),
            None,
            self.keyspace,
        )


@dataclass(frozen=True, slots=True)
class BrokenIngest:
    """An ingest whose keys cease to ascend: nothing is changed."""

    keys: tuple[bytes, ...]
    keyspace: str = DEFAULT

    def run(self, session: Session) -> None:
        pairs = [(key, bytes(_VALUE_BYTES)) for key in (*self.keys, self.keys[0])]
        try:
            session.keyspace(self.keyspace).ingest(pairs)
        except ValueError:
            return
        raise WorkloadError("an ingest takes keys that do not ascend")


@dataclass(frozen=True, slots=True)
class Delete:
    """One key, which need not be there."""

    key: bytes
    keyspace: str = DEFAULT
    durability: str | None = None

    def run(self, session: Session) -> None:
        session.commit(
            lambda state, _: state[self.keyspace].pop(self.key, None),
            lambda _: session.keyspace(self.keyspace).delete(self.key, durability=self.durability),
            self.durability,
            self.keyspace,
        )


@dataclass(frozen=True, slots=True)
class DeleteRange:
    """Every key from `start` up to `stop`."""

    start: bytes
    stop: bytes
    keyspace: str = DEFAULT
    durability: str | None = None

    def run(self, session: Session) -> None:
        def change(state: State, _: int) -> None:
            pairs = state[self.keyspace]
            for key in [key for key in pairs if self.start <= key < self.stop]:
                del pairs[key]

        session.commit(
            change,
            lambda _: session.keyspace(self.keyspace).delete_range(
                self.start, self.stop, durability=self.durability
            ),
            self.durability,
            self.keyspace,
        )


@dataclass(frozen=True, slots=True)
class CreateKeyspace:
    """A new keyspace, which is durable at once."""

    name: str

    def run(self, session: Session) -> None:
        session.commit(
            lambda state, _: state.update({self.name: {}}),
            lambda _: session.database.keyspace(self.name),
            None,
        )


@dataclass(frozen=True, slots=True)
class DropKeyspace:
    """The end of a keyspace, which is durable at once."""

    name: str

    def run(self, session: Session) -> None:
        session.commit(
            lambda state, _: state.pop(self.name),
            lambda _: session.database.drop_keyspace(self.name),
            None,
        )


@dataclass(frozen=True, slots=True)
class Flush:
    """Memtables become tables."""

    def run(self, session: Session) -> None:
        session.database.flush()
        session.all_durable()


@dataclass(frozen=True, slots=True)
class Compact:
    """A keyspace is brought to the last level."""

    keyspace: str = DEFAULT
    start: bytes | None = None
    stop: bytes | None = None

    def run(self, session: Session) -> None:
        session.keyspace(self.keyspace).compact(self.start, self.stop)
        # It flushes this keyspace only, and with it everything older.
        session.history.acknowledge(session.touched.get(self.keyspace, 0))


@dataclass(frozen=True, slots=True)
class Sync:
    """Everything so far becomes durable."""

    def run(self, session: Session) -> None:
        session.database.sync()
        session.all_durable()


@dataclass(frozen=True, slots=True)
class Wait:
    """Long enough for every commit with durability "interval" to be durable."""

    def run(self, session: Session) -> None:
        session.env.sleep(2 * _INTERVAL_MS / 1000)
        session.history.acknowledge(session.interval_number)


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """A snapshot, which holds versions back."""

    name: str

    def run(self, session: Session) -> None:
        state = {name: dict(pairs) for name, pairs in session.history.state.items()}
        session.snapshots[self.name] = session.database.snapshot(), state


@dataclass(frozen=True, slots=True)
class CloseSnapshot:
    """The snapshot still shows what it was taken of."""

    name: str

    def run(self, session: Session) -> None:
        session.close_snapshot(self.name)


@dataclass(frozen=True, slots=True)
class Reopen:
    """A clean close and another open."""

    def run(self, session: Session) -> None:
        session.close()
        session.open()


@dataclass(frozen=True, slots=True)
class RewriteManifest:
    """The manifest is written anew."""

    def run(self, session: Session) -> None:
        engine = session.database._engine  # noqa: SLF001  the engine does it by size only
        with engine.version_mutex:
            engine.rewrite_manifest()


@dataclass(frozen=True, slots=True)
class Workload:
    """A named list of steps. The database is opened before the first and closed after the last."""

    name: str
    seed: int
    steps: tuple[Step, ...]
    settings: DatabaseSettings
    closes: bool = True
    """Whether the database is closed at the end."""

    def new_history(self) -> History:
        """Return a history for one run."""
        return History()

    def run(
        self, env: Env, history: History, on_step: Callable[[], None] = lambda: None
    ) -> Database | None:
        """Run all steps, and call `on_step` before each; return the database if it is left open.

        Raises: WorkloadError for a wrong answer.
        """
        session = Session(env, history, self.settings)
        session.open()
        for step in self.steps:
            on_step()
            step.run(session)
        session.check()
        if not self.closes:
            return session.database
        session.close()
        return None


def _key(index: int) -> bytes:
    return b"key/%03d" % index


def _sync_puts(seed: int) -> list[Step]:
    return [Put(_key(index % 7)) for index in range(12)]


def _unsynced_puts(seed: int) -> list[Step]:
    # Values near the log buffer's size make it spill without a sync.
    steps: list[Step] = [
        Put(_key(index % 4), durability="none", size=60 if index % 3 else 70_000)
        for index in range(8)
    ]
    return [
        *steps,
        Sync(),
        *(Put(_key(index), durability="none") for index in range(3)),
        Put(_key(9)),
    ]


def _left_segments(seed: int) -> list[Step]:
    # Unsynced records fill a segment, which is then synced beside the puts that come next.
    steps: list[Step] = [
        Put(_key(index % 12), durability="none", size=70_000 if index % 9 < 7 else 60)
        for index in range(18)
    ]
    return [*steps, Put(_key(3)), *steps[:9], Put(_key(5), durability="interval"), Wait()]


def _interval_puts(seed: int) -> list[Step]:
    steps: list[Step] = []
    for index in range(9):
        steps.append(Put(_key(index), durability="interval"))
        if index % 3 == 2:
            steps.append(Wait())
    return [*steps, Put(_key(20), durability="none"), Put(_key(21), durability="interval"), Wait()]


def _batches_two_keyspaces(seed: int) -> list[Step]:
    steps: list[Step] = [CreateKeyspace("other")]
    for index in range(8):
        rows = ((DEFAULT, _key(index)), ("other", _key(index)))
        gone = (("other", _key(index - 2)),) if index > 2 else ()
        steps.append(Batch(rows, gone, durability="none" if index % 3 == 1 else None))
        if index == 4:
            steps.append(Flush())
    return steps


def _transactions(seed: int) -> list[Step]:
    keys = tuple(_key(index) for index in range(8))
    made = transacts(keys, OTHER)
    return [CreateKeyspace(OTHER), PutMany(keys[:4], OTHER), *made[:4], Flush(), *made[4:]]


def _merges(seed: int) -> list[Step]:
    keys = tuple(_key(index) for index in range(5))
    made = merges(keys, OTHER)
    steps: list[Step] = [CreateKeyspace(OTHER), Put(keys[1]), *made[:8], Flush()]
    steps += [TakeSnapshot("before"), *made[8:14], Flush(), *made[14:18], Compact(), Reopen()]
    steps += [Delete(keys[0]), DeleteRange(keys[2], keys[4]), *made[18:24], Compact(OTHER)]
    return [*steps, Put(keys[1], OTHER, durability="none"), *made[24:]]


def _deletes(seed: int) -> list[Step]:
    steps: list[Step] = [PutMany(tuple(_key(index) for index in range(8)))]
    steps += [Delete(_key(index), durability="none" if index % 2 else None) for index in range(3)]
    steps += [Flush(), Delete(_key(4)), Delete(_key(99)), Put(_key(4)), Delete(_key(5)), Compact()]
    return [*steps, Delete(_key(6)), Put(_key(0))]


def _range_deletes(seed: int) -> list[Step]:
    return [
        PutMany(tuple(_key(index) for index in range(12))),
        DeleteRange(_key(2), _key(4)),
        Put(_key(3)),
        Flush(),
        DeleteRange(_key(5), _key(8), durability="none"),
        TakeSnapshot("one"),
        DeleteRange(_key(7), _key(10)),
        Put(_key(8)),
        Flush(),
        Compact(),
        CloseSnapshot("one"),
        DeleteRange(_key(0), _key(99)),
        Compact(),
        Put(_key(1)),
    ]


def _flush(seed: int) -> list[Step]:
    steps: list[Step] = []
    for turn in range(3):
        steps += [Put(_key(index), durability="none") for index in range(turn, turn + 4)]
        steps += [Put(_key(turn)), Flush()]
    return steps


def _compaction(seed: int) -> list[Step]:
    steps: list[Step] = []
    for turn in range(5):
        keys = tuple(_key(index) for index in range(turn * 3, turn * 3 + 20))
        steps += [PutMany(keys, size=120), Flush()]
        if turn == 1:
            steps.append(TakeSnapshot("held"))
    return [
        *steps,
        CloseSnapshot("held"),
        Compact(),
        Put(_key(1)),
        Compact(start=_key(0), stop=_key(9)),
    ]


def _size_tiered(seed: int) -> list[Step]:
    """Runs of one size, which are merged in two tiers; deletes, which bring everything together."""
    steps: list[Step] = []
    for turn in range(5):
        keys = tuple(_key(index) for index in range(turn * 3, turn * 3 + 12))
        steps += [PutMany(keys, size=120), Flush()]
        if turn == 2:
            steps.append(TakeSnapshot("held"))
    steps += [CloseSnapshot("held"), DeleteRange(_key(3), _key(6)), Delete(_key(7)), Flush()]
    steps += [Delete(_key(index), durability="none") for index in range(8, 24)]
    return [*steps, Flush(), Put(_key(9)), Compact(), Put(_key(8))]


def _time_window(seed: int) -> list[Step]:
    """Three windows, of which the second is merged when the third begins; then late data."""

    def keys(first: int, last: int) -> tuple[bytes, ...]:
        return tuple(time.to_bytes(8, "big") + b"x" for time in range(first, last))

    steps: list[Step] = []
    for first, last in ((1000, 1012), (1008, 1018), (1012, 1020), (1018, 1026), (1024, 1034)):
        steps += [PutMany(keys(first, last), size=120), Flush()]
    steps += [TakeSnapshot("held"), PutMany(keys(1003, 1014), size=120), Flush()]
    steps += [DeleteRange(keys(1002, 1003)[0], keys(1016, 1017)[0]), Flush(), CloseSnapshot("held")]
    return [
        *steps,
        PutMany(keys(1001, 1031), size=120),
        Flush(),
        Compact(),
        Put(keys(1002, 1003)[0]),
    ]


def _ingest(seed: int) -> list[Step]:
    """Ingests into a tree that is empty, over what is newer and older, beside what no table has
    yet, and into another keyspace; one that breaks off.
    """

    def keys(first: int, last: int) -> tuple[bytes, ...]:
        return tuple(_key(index) for index in range(first, last))

    return [
        # With no memtable to flush, nothing but its own sync makes the names durable.
        Ingest(keys(0, 60), size=120),
        Put(_key(1), durability="none"),
        Ingest(keys(50, 70)),
        Put(_key(5)),
        TakeSnapshot("held"),
        Ingest(keys(3, 30)),
        CreateKeyspace("other"),
        Put(_key(2), "other", "none"),
        Delete(_key(7), durability="none"),
        Ingest(keys(0, 9), "other"),
        BrokenIngest(keys(10, 50)),
        CloseSnapshot("held"),
        Put(_key(8)),
        Compact(),
        Ingest(keys(100, 150), size=120),
        Put(_key(110), durability="none"),
        Reopen(),
        Put(_key(3)),
        Ingest(keys(2, 5)),
        DropKeyspace("other"),
        Put(_key(4)),
    ]


def _segment_rotation(seed: int) -> list[Step]:
    steps: list[Step] = []
    for index in range(16):
        durability = "none" if index % 4 == 1 else None
        steps.append(Put(_key(index % 5), size=900, durability=durability))
    # One record that is larger than a segment.
    return [*steps, Put(_key(6), size=9_000), Put(_key(7))]


def _memtable_rotation(seed: int) -> list[Step]:
    steps: list[Step] = [CreateKeyspace("other")]
    for index in range(18):
        keyspace = "other" if index % 6 == 5 else DEFAULT
        durability = "none" if index % 5 == 2 else None
        steps.append(Put(_key(index % 7), keyspace, durability, size=1_500))
    return steps


def _manifest_rotation(seed: int) -> list[Step]:
    steps: list[Step] = []
    for turn in range(3):
        steps += [Put(_key(turn)), Flush(), Put(_key(turn + 5)), RewriteManifest()]
    return [*steps, Put(_key(9)), CreateKeyspace("late"), Put(_key(1), "late"), RewriteManifest()]


def _keyspaces(seed: int) -> list[Step]:
    return [
        CreateKeyspace("one"),
        Put(_key(0), "one"),
        CreateKeyspace("two"),
        Batch(((DEFAULT, _key(1)), ("one", _key(1)), ("two", _key(1)))),
        Flush(),
        Put(_key(2), "two", "none"),
        Put(_key(2), "one", "none"),
        DropKeyspace("one"),
        Put(_key(3), "two"),
        CreateKeyspace("one"),
        Put(_key(4), "one"),
        Reopen(),
        DropKeyspace("two"),
        Put(_key(5), "one"),
        Flush(),
        DropKeyspace("one"),
    ]


def _close_and_open(seed: int) -> list[Step]:
    steps: list[Step] = []
    for turn in range(4):
        steps += [Put(_key(turn)), Put(_key(turn + 10), durability="none"), Reopen()]
    return [*steps, Reopen(), Put(_key(1))]


def _kept_log(seed: int) -> list[Step]:
    """Segments that no table needs any more and a feed of changes still reads: with batches over
    two keyspaces in them, before and after a close.
    """
    steps: list[Step] = [CreateKeyspace("other")]
    for turn in range(3):
        steps += [Put(_key(turn), size=900, durability="none" if turn == 1 else None)]
        steps += [Batch(((DEFAULT, _key(turn + 4)), ("other", _key(turn))), size=400), Flush()]
    steps += [DeleteRange(_key(1), _key(5)), Reopen(), Delete(_key(6))]
    return [*steps, *(Put(_key(index), size=1_500) for index in range(4)), Flush(), Put(_key(9))]


def _mixed(seed: int) -> list[Step]:
    """Return steps drawn by the seed."""
    chance = random.Random(f"{seed}/steps")
    names = [DEFAULT]
    snapshots: list[str] = []
    steps: list[Step] = []

    def key() -> bytes:
        return _key(chance.randrange(30))

    def durability() -> str | None:
        return chance.choice([None, None, "none", "interval"])

    def size() -> int:
        return chance.choice([30, 60, 200, 1_500, 7_000])

    for index in range(48):
        name = chance.choice(names)
        draw = chance.randrange(100)
        if draw < 34:
            steps.append(Put(key(), name, durability(), size()))
        elif draw < 42:
            keys = tuple(key() for _ in range(chance.randrange(1, 9)))
            steps.append(PutMany(keys, name, durability()))
        elif draw < 52:
            rows = tuple((chance.choice(names), key()) for _ in range(chance.randrange(1, 6)))
            steps.append(Batch(rows, durability=durability(), size=size()))
        elif draw < 60:
            steps.append(Delete(key(), name, durability()))
        elif draw < 66:
            start, stop = sorted((key(), key()))
            steps.append(DeleteRange(start, stop + b"\0", name, durability()))
        elif draw < 73:
            steps.append(Flush())
        elif draw < 78:
            steps.append(Compact(name))
        elif draw < 81:
            steps.append(Sync())
        elif draw < 84:
            steps.append(Wait())
        elif draw < 88 and len(names) < 4:
            names.append(f"keyspace{index}")
            steps.append(CreateKeyspace(names[-1]))
        elif draw < 90 and len(names) > 1:
            names.remove(dropped := chance.choice(names[1:]))
            steps += [*(CloseSnapshot(held) for held in snapshots), DropKeyspace(dropped)]
            snapshots.clear()
        elif draw < 94:
            snapshots.append(f"snapshot{index}")
            steps.append(TakeSnapshot(snapshots[-1]))
        elif draw < 96 and snapshots:
            steps.append(CloseSnapshot(snapshots.pop(0)))
        elif draw < 98:
            steps.append(RewriteManifest())
        else:
            snapshots.clear()
            steps.append(Reopen())
    return steps


def _sectors(seed: int) -> list[Step]:
    """Return steps that append to everything that is appended to: records of every durability,
    edits, END records and links of new segments, a manifest written anew, a clean close.
    """
    return [
        Put(_key(0)),
        Put(_key(1), durability="none"),
        CreateKeyspace("other"),
        Batch(((DEFAULT, _key(2)), ("other", _key(2)))),
        Flush(),
        *(Put(_key(3 + index % 2), size=900) for index in range(3)),
        RewriteManifest(),
        Put(_key(5), "other", "none", size=900),
        Put(_key(6), size=900),
        DropKeyspace("other"),
        Reopen(),
        Put(_key(7)),
        Put(_key(1)),
    ]


EXHAUSTIVE = "exhaustive-"
"""What the names of short workloads begin with; the letters of the operations follow."""

ALPHABET: dict[str, Step] = {
    "p": Put(b"a"),
    "u": Put(b"b", durability="none"),
    "d": Delete(b"a"),
    "r": DeleteRange(b"a", b"c"),
    "b": Batch(((DEFAULT, b"a"), (OTHER, b"a"))),
    "f": Flush(),
    "c": Compact(),
    "o": Reopen(),
    "m": MergeMany((b"a",), OTHER, "append", b"+"),
    "n": Merge(b"b", "append", b"+", durability="none"),
}
"""Durable put, unsynced put, delete, range delete, batch over two keyspaces, flush, compaction,
close and open, a transaction that merges into two keyspaces, and an unsynced merge.
"""


_MAKERS: dict[str, Callable[[int], list[Step]]] = {
    "sync_puts": _sync_puts,
    "unsynced_puts": _unsynced_puts,
    "left_segments": _left_segments,
    "interval_puts": _interval_puts,
    "batches_two_keyspaces": _batches_two_keyspaces,
    "transactions": _transactions,
    "merges": _merges,
    "deletes": _deletes,
    "range_deletes": _range_deletes,
    "flush": _flush,
    "compaction": _compaction,
    "size_tiered": _size_tiered,
    "time_window": _time_window,
    "ingest": _ingest,
    "segment_rotation": _segment_rotation,
    "memtable_rotation": _memtable_rotation,
    "manifest_rotation": _manifest_rotation,
    "keyspaces": _keyspaces,
    "kept_log": _kept_log,
    "close_and_open": _close_and_open,
    "mixed": _mixed,
}

_SETTINGS = {
    "unsynced_puts": LARGE_MEMTABLE,
    "left_segments": LARGE_SEGMENTS,
    "kept_log": KEPT_LOG,
    "merges": KEPT_LOG,
    "size_tiered": SIZE_TIERED,
    "time_window": TIME_WINDOW,
}
"""Of workloads whose settings are not TINY."""

CANONICAL = (*_MAKERS, "clients", "clients_large", "tasks")
"""The names of all workloads."""

SEQUENTIAL = tuple(_MAKERS)
"""Those of one client."""

SECTORS = {"sectors_512": ("no-psow", 512), "sectors_4096": ("no-psow-4k", 4096)}
"""Workloads for disks without powersafe overwrite: the profile of the disk and its sector, which
is what the log is aligned to.
"""


def disk_of(name: str) -> str:
    """Return the profile of the disk that a workload is for, where none is asked for."""
    return SECTORS[name][0] if name in SECTORS else "posix-min"


def workload(name: str, seed: int = 0) -> Work:
    """Return the workload of this name: one of CANONICAL or SECTORS, or EXHAUSTIVE and letters of
    ALPHABET.

    Raises: KeyError when there is none.
    """
    if name == "clients":
        return Clients(name, seed, TINY, clients=2, turns=6, value_bytes=60)
    if name == "tasks":
        return Clients(name, seed, TINY, clients=4, turns=3, value_bytes=60, loops=2)
    if name == "clients_large":
        return Clients(name, seed, TINY, clients=3, turns=5, value_bytes=900)
    if name.startswith(EXHAUSTIVE):
        letters = name.removeprefix(EXHAUSTIVE)
        steps = CreateKeyspace(OTHER), *(ALPHABET[letter] for letter in letters)
        return Workload(name, seed, steps, TINY, closes=False)
    if name in SECTORS:
        alignment = SECTORS[name][1]
        # Room for two records of one sector or more beside the END record.
        segment_bytes = max(TINY.wal_segment_bytes, 5 * alignment)
        settings = replace(TINY, wal_alignment_bytes=alignment, wal_segment_bytes=segment_bytes)
        return Workload(name, seed, tuple(_sectors(seed)), settings)
    return sequential(name, seed)


def sequential(name: str, seed: int = 0) -> Workload:
    """Return a workload of one client. Raises: KeyError when there is none of this name."""
    return Workload(name, seed, tuple(_MAKERS[name](seed)), _SETTINGS.get(name, TINY))
