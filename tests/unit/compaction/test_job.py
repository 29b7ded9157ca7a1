"""Flush and compaction jobs on a simulated disk: what readers see, what crash or error leave."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from holdfast.base import DELETE, PUT, SEQ_MAX, CorruptionError, KeyspaceSettings
from holdfast.bufferpool import BufferPool
from holdfast.codec import Compression
from holdfast.compaction import (
    JobResult,
    JobStoppedError,
    Plan,
    pick,
    plan_range,
    run_compaction,
    run_flush,
)
from holdfast.compaction.job import split_keys
from holdfast.cursor import RangeTombstones
from holdfast.env import Env, FaultEnv, FaultRule, SimEnv, crash_states
from holdfast.manifest import KeyspaceVersion, Version, VersionEdit
from holdfast.memtable import Memtable
from holdfast.sstable import TableInfo, TableReader, table_name

SETTINGS = KeyspaceSettings(
    table_bytes=4096,
    memtable_bytes=4096,
    page_bytes=256,
    level0_tables=2,
    level1_bytes=1 << 20,
    compression="none",
    compression_last="lz4",
)
ONE_TABLE = replace(SETTINGS, memtable_bytes=1 << 20)
"""A flush makes one table, which a compaction cuts."""
FOLDER = "/db"
KEYSPACE = 0


class Bench:
    """A keyspace on some env, whose jobs are run by hand."""

    def __init__(self, env: Env, settings: KeyspaceSettings = SETTINGS) -> None:
        self.env = env
        self.settings = settings
        self.pool = BufferPool(1 << 20)
        self.version = Version().apply(
            VersionEdit(keyspaces_created=((KEYSPACE, "k", settings),), next_number=1)
        )
        self.number = 0
        self.seq = 0
        self.readers: dict[int, TableReader] = {}
        env.make_dir(FOLDER, site="test.folder")
        env.sync_dir("/", site="test.folder_sync")

    @property
    def keyspace(self) -> KeyspaceVersion:
        return self.version.keyspaces[KEYSPACE]

    def allocate(self) -> int:
        self.number += 1
        return self.number

    def reader(self, info: TableInfo) -> TableReader:
        if info.number not in self.readers:
            file = self.env.open(f"{FOLDER}/{table_name(info.number)}")
            self.readers[info.number] = TableReader(
                file, info.number, info.file_id, self.pool, info
            )
        return self.readers[info.number]

    def memtable(self, operations: Iterable[tuple[int, bytes, bytes]]) -> Memtable:
        """A frozen memtable of (kind or 2, key, value or stop)."""
        memtable = Memtable()
        for kind, key, value in operations:
            self.seq += 1
            if kind == 2:
                memtable.delete_range(self.seq, key, value)
            else:
                memtable.put(self.seq, kind, key, value)
        memtable.freeze()
        return memtable

    def flush(self, memtable: Memtable, snapshots: Sequence[int] = ()) -> JobResult:
        result = run_flush(
            self.env,
            FOLDER,
            memtable,
            allocate_number=self.allocate,
            snapshots=snapshots,
            settings=self.settings,
        )
        self.log(
            VersionEdit(
                tables_added=tuple((KEYSPACE, 0, table) for table in result.tables),
                flushed_seq={KEYSPACE: self.seq},
                next_number=self.number + 1,
            )
        )
        return result

    def compact(self, plan: Plan, snapshots: Sequence[int] = ()) -> JobResult | None:
        if plan.is_move:
            self.log(plan.edit())
            return None
        result = run_compaction(
            plan,
            self.env,
            FOLDER,
            open_table=self.reader,
            allocate_number=self.allocate,
            snapshots=snapshots,
            settings=self.settings,
        )
        self.log(plan.edit(result.tables, next_number=self.number + 1))
        return result

    def log(self, edit: VersionEdit) -> None:
        self.version = self.version.apply(edit)

    def entries(self) -> Iterator[tuple[bytes, int, int, bytes]]:
        for _, info in self.keyspace.tables():
            cursor = self.reader(info).cursor()
            cursor.seek_first()
            while cursor.valid:
                assert info.lower <= cursor.key < info.upper
                yield cursor.key, cursor.seq, cursor.kind, cursor.value
                cursor.next()

    def seen(self, snapshot: int) -> dict[bytes, bytes]:
        """What a reader at `snapshot` sees, without the read path's code."""
        covers = RangeTombstones(
            tombstone
            for _, info in self.keyspace.tables()
            for tombstone in self.reader(info).range_tombstones.tombstones()
        )
        newest: dict[bytes, tuple[int, int, bytes]] = {}
        for key, seq, kind, value in self.entries():
            if seq <= snapshot and seq > newest.get(key, (-1, 0, b""))[0]:
                newest[key] = (seq, kind, value)
        return {
            key: value
            for key, (seq, kind, value) in sorted(newest.items())
            if kind == PUT and covers.cover(key, snapshot) < seq
        }


def model(history: Sequence[tuple[int, bytes, bytes]], snapshot: int) -> dict[bytes, bytes]:
    """What the first `snapshot` operations leave."""
    state: dict[bytes, bytes] = {}
    for kind, key, value in history[:snapshot]:
        if kind == PUT:
            state[key] = value
        elif kind == DELETE:
            state.pop(key, None)
        else:
            state = {k: v for k, v in state.items() if not key <= k < value}
    return dict(sorted(state.items()))


def random_operations(rng: random.Random, count: int) -> list[tuple[int, bytes, bytes]]:
    operations = []
    for _ in range(count):
        key = b"key%04d" % rng.randrange(400)
        shape = rng.random()
        if shape < 0.05:
            stop = b"key%04d" % rng.randrange(400)
            operations.append((2, min(key, stop), max(key, stop) + b"x"))
        elif shape < 0.3:
            operations.append((DELETE, key, b""))
        else:
            operations.append((PUT, key, rng.randbytes(rng.choice([0, 5, 60]))))
    return operations


@pytest.mark.parametrize("run", range(6))
def test_readers_see_the_same_before_and_after_every_job(seed: int, run: int) -> None:
    """Random histories with range deletes over many small tables; now and three snapshots."""
    rng = random.Random(seed + run)
    bench = Bench(SimEnv())
    history: list[tuple[int, bytes, bytes]] = []
    snapshots: list[int] = []

    def check() -> None:
        for snapshot in (*snapshots, len(history)):
            assert bench.seen(snapshot) == model(history, snapshot)

    for _ in range(6):
        operations = random_operations(rng, rng.choice([1, 40, 300]))
        history += operations
        memtable = bench.memtable(operations)
        if rng.random() < 0.5:
            # A snapshot is taken of what is in memory: nothing of it was flushed before.
            taken = rng.randrange(len(history) - len(operations), len(history)) + 1
            snapshots = [*snapshots, taken][-3:]
        bench.flush(memtable, snapshots)
        check()
        while (plan := pick(bench.keyspace, snapshots_exist=bool(snapshots))) is not None:
            bench.compact(plan, snapshots)
            check()
    work = plan_range(bench.keyspace, None, None)
    while (plan := work.next_plan(bench.keyspace, frozenset())) is not None:
        bench.compact(plan, snapshots)
        check()
    snapshots.clear()
    work = plan_range(bench.keyspace, None, None, rewrite_last=True)
    while (plan := work.next_plan(bench.keyspace, frozenset())) is not None:
        bench.compact(plan)
        check()
    left = list(bench.entries())
    assert [key for key, *_ in left] == list(model(history, SEQ_MAX))
    assert all(info.range_tombstone_count == 0 for _, info in bench.keyspace.tables())


def noise(count: int) -> list[tuple[int, bytes, bytes]]:
    """Puts of ascending keys with values that do not compress."""
    return [(PUT, b"key%06d" % n, random.Random(n).randbytes(100)) for n in range(count)]


def test_outputs_are_cut_between_keys_and_tombstones_with_them() -> None:
    """Many versions of few keys under one tombstone over all: no key is in two tables, and the
    tables' tombstones join to the whole again.
    """
    bench = Bench(SimEnv())
    operations = [(PUT, b"k%02d" % (n % 8), bytes(100)) for n in range(400)]
    snapshots = list(range(1, 401))
    result = bench.flush(bench.memtable([*operations, (2, b"a", b"z")]), snapshots)
    assert len(result.tables) > 4
    for table, following in pairwise(result.tables):
        assert table.upper == following.lower
    assert (result.tables[0].lower, result.tables[-1].upper) == (b"a", b"z")
    joined = RangeTombstones().merged(
        [bench.reader(table).range_tombstones for table in result.tables]
    )
    assert joined.tombstones() == [(b"a", b"z", 401)]
    keys = [{key for key, *_ in table_entries(bench, table)} for table in result.tables]
    assert sum(len(found) for found in keys) == len(set().union(*keys)) == 8


def table_entries(bench: Bench, table: TableInfo) -> Iterator[tuple[bytes, int]]:
    cursor = bench.reader(table).cursor()
    cursor.seek_first()
    while cursor.valid:
        yield cursor.key, cursor.seq
        cursor.next()


def test_tombstones_alone_are_a_table_and_nothing_at_all_is_none() -> None:
    bench = Bench(SimEnv())
    bench.flush(bench.memtable([(2, b"a", b"m")]))
    result = bench.flush(bench.memtable([(PUT, b"b", b"v"), (DELETE, b"b", b"")]))
    assert result.entries_read == 2
    assert result.entries_dropped == 1
    plan = pick(bench.keyspace)
    assert plan is not None
    assert plan.is_bottom
    compacted = bench.compact(plan)
    assert compacted is not None
    assert compacted.tables == []
    assert compacted.bytes_written == 0
    assert list(bench.keyspace.tables()) == []
    names = bench.env.list_dir(FOLDER)
    assert names == [table_name(1), table_name(2)]


def test_a_table_larger_than_the_output_buffer_is_written_in_pieces() -> None:
    settings = KeyspaceSettings(compression="none")
    bench = Bench(SimEnv(), settings)
    operations = [(PUT, b"%06d" % n, bytes(10_000)) for n in range(350)]
    (table,) = bench.flush(bench.memtable(operations)).tables
    assert table.size_bytes > 3 << 20
    assert sum(1 for _ in bench.entries()) == 350


def test_a_job_says_what_it_moved() -> None:
    bench = Bench(SimEnv())
    first = bench.flush(bench.memtable([(PUT, b"a", bytes(50)), (PUT, b"b", bytes(50))]))
    bench.flush(bench.memtable([(PUT, b"a", bytes(50))]))
    assert (first.bytes_read, first.entries_read, first.entries_written) == (0, 2, 2)
    plan = pick(bench.keyspace)
    assert plan is not None
    result = bench.compact(plan)
    assert result is not None
    assert result.bytes_read == plan.input_bytes
    assert result.bytes_written == sum(table.size_bytes for table in result.tables)
    assert (result.entries_read, result.entries_written, result.entries_dropped) == (3, 2, 1)
    size = bench.env.file_size(f"{FOLDER}/{table_name(result.tables[0].number)}")
    assert size == result.bytes_written


def test_the_bottom_has_its_own_compression() -> None:
    bench = Bench(SimEnv())

    def compression(table: TableInfo) -> int:
        return int.from_bytes(bench.reader(table).properties[b"compression"], "little")

    for _ in range(2):
        result = bench.flush(bench.memtable([(PUT, b"a", bytes(50))]))
        assert compression(result.tables[0]) == Compression.NONE
    plan = pick(bench.keyspace)
    assert plan is not None
    compacted = bench.compact(plan)
    assert compacted is not None
    assert compression(compacted.tables[0]) == Compression.LZ4


def test_a_flush_makes_one_table_of_a_full_memtable() -> None:
    """Also when `table_bytes` is smaller, because tables of level 0 are counted."""
    bench = Bench(SimEnv(), KeyspaceSettings(table_bytes=4096, memtable_bytes=1 << 20))
    assert len(bench.flush(bench.memtable(noise(5_000))).tables) == 1


def test_a_job_that_is_asked_to_stop_leaves_nothing() -> None:
    bench = Bench(SimEnv())
    memtable = bench.memtable([(PUT, b"key%06d" % n, bytes(20)) for n in range(10_000)])
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == 3

    with pytest.raises(JobStoppedError):
        run_flush(
            bench.env,
            FOLDER,
            memtable,
            allocate_number=bench.allocate,
            snapshots=[],
            settings=SETTINGS,
            should_stop=should_stop,
        )
    assert bench.env.list_dir(FOLDER) == []


def test_a_compaction_reads_through_the_pool_without_filling_it() -> None:
    bench = Bench(SimEnv())
    for _ in range(2):
        bench.flush(bench.memtable([(PUT, b"key%06d" % n, bytes(90)) for n in range(30)]))
    plan = pick(bench.keyspace)
    assert plan is not None
    for table in plan.tables:
        bench.reader(table)
    used = bench.pool.used_bytes
    bench.compact(plan)
    assert bench.pool.used_bytes == used


@pytest.mark.parametrize("run", range(3))
def test_parts_of_a_compaction_make_what_one_job_makes(seed: int, run: int) -> None:
    """The same entries and range tombstones, whatever the snapshots; tables end elsewhere."""
    results = []
    for parts_max in (1, 4):
        rng = random.Random(seed + run)
        bench = Bench(SimEnv(), replace(ONE_TABLE, level0_tables=1))
        snapshots: list[int] = []
        for _ in range(3):
            operations = random_operations(rng, 300)
            operations = [(kind, k, v * 20 if kind == PUT else v) for kind, k, v in operations]
            bench.flush(bench.memtable(operations), snapshots)
            snapshots.append(bench.seq)
            plan = pick(bench.keyspace, snapshots_exist=True)
            assert plan is not None
            assert plan.output_level == 1
            result = run_compaction(
                plan,
                bench.env,
                FOLDER,
                open_table=bench.reader,
                allocate_number=bench.allocate,
                snapshots=snapshots,
                settings=bench.settings,
                parts_max=parts_max,
            )
            cuts = split_keys(plan, bench.settings, parts_max)
            bench.log(plan.edit(result.tables, next_number=bench.number + 1))
        assert (len(cuts) > 0) == (parts_max > 1)
        assert cuts == sorted(set(cuts))
        assert all(any(cut >= t.upper for t in result.tables) for cut in cuts)
        covers = RangeTombstones().merged(
            [bench.reader(table).range_tombstones for table in result.tables]
        )
        keys = [b"key%04d" % number for number in range(400)]
        hidden = [
            [covers.cover(key, snapshot) for key in keys] for snapshot in (*snapshots, SEQ_MAX)
        ]
        counts = (result.entries_read, result.entries_written, result.bytes_read > 0)
        results.append((list(bench.entries()), hidden, counts))
    assert results[0] == results[1]


def test_when_a_part_fails_every_table_of_all_parts_is_removed() -> None:
    for nth in range(1, 6):
        env = FaultEnv(SimEnv())
        bench = Bench(env, replace(ONE_TABLE, level0_tables=1))
        for _ in range(2):
            bench.flush(bench.memtable(noise(300)))
            before = env.list_dir(FOLDER)
            plan = pick(bench.keyspace)
            assert plan is not None
            if len(split_keys(plan, bench.settings, 4)) == 3:
                break
            bench.compact(plan)
        assert plan is not None
        env.add(FaultRule(site="table.write.sync", nth=nth))
        with pytest.raises(OSError, match="Input/output"):
            run_compaction(
                plan,
                env,
                FOLDER,
                open_table=bench.reader,
                allocate_number=bench.allocate,
                snapshots=[],
                settings=bench.settings,
                parts_max=4,
            )
        assert env.list_dir(FOLDER) == before


def test_tables_end_where_a_window_begins() -> None:
    """Of a flush and of a compaction; range tombstones are cut there as well."""
    settings = replace(SETTINGS, compaction="time-window", window_seconds=10, key_time_unit="s")
    bench = Bench(SimEnv(), settings)
    operations = [(PUT, time.to_bytes(8, "big") + b"x", b"v") for time in range(95, 125)]
    operations.append((2, (98).to_bytes(8, "big"), (113).to_bytes(8, "big")))
    tables = bench.flush(bench.memtable(operations)).tables
    starts = [(time).to_bytes(8, "big") for time in (100, 110, 120)]
    assert [table.upper for table in tables[:-1]] == starts or all(
        any(a <= table.lower and table.upper <= b for a, b in pairwise([b"", *starts, b"\xff"]))
        for table in tables
    )
    assert len(tables) == 4
    assert [table.range_tombstone_count for table in tables] == [1, 1, 1, 0]


SITES = ["table.write.create", "table.write.append", "table.write.sync", "table.folder_sync"]


@pytest.mark.parametrize("site", SITES)
def test_an_error_at_any_site_removes_every_table_of_the_job(site: str) -> None:
    """The first, second and later calls of the site fail in turn, until the job gets through."""
    nth = 0
    while True:
        nth += 1
        env = FaultEnv(SimEnv())
        bench = Bench(env, ONE_TABLE)
        for _ in range(2):
            bench.flush(bench.memtable(noise(200)))
        before = env.list_dir(FOLDER)
        plan = pick(bench.keyspace)
        assert plan is not None
        env.add(FaultRule(site=site, nth=nth))
        try:
            result = bench.compact(plan)
        except OSError:
            assert env.list_dir(FOLDER) == before
            continue
        assert result is not None
        assert len(result.tables) > 3
        calls = {"table.folder_sync": 1, "table.write.append": 1}.get(site, len(result.tables))
        assert nth > calls
        return


def test_damage_in_an_input_stops_the_job_and_leaves_nothing() -> None:
    env = SimEnv()
    bench = Bench(env, ONE_TABLE)
    for _ in range(2):
        bench.flush(bench.memtable(noise(200)))
    plan = pick(bench.keyspace)
    assert plan is not None
    victim = plan.tables[-1]
    path = f"{FOLDER}/{table_name(victim.number)}"
    data = bytearray(env.open(path).read_at(0, 1 << 20))
    data[100] ^= 1
    env.unlink(path, site="test.damage")
    env.create(path, site="test.damage").write_at(0, data, site="test.damage")
    bench.readers.clear()
    before = env.list_dir(FOLDER)
    with pytest.raises(CorruptionError) as caught:
        bench.compact(plan)
    assert caught.value.file == path
    assert env.list_dir(FOLDER) == before


def test_tables_are_durable_when_the_job_returns() -> None:
    """In every legal state of the disk after a power cut, each table can be read in full."""
    env = SimEnv()
    bench = Bench(env)
    tables = bench.flush(bench.memtable(noise(200))).tables
    assert len(tables) > 1
    env.cut_power()
    for state in crash_states(env):
        disk = state.build()
        assert disk.list_dir(FOLDER) == [table_name(table.number) for table in tables]
        for table in tables:
            file = disk.open(f"{FOLDER}/{table_name(table.number)}")
            reader = TableReader(file, table.number, table.file_id, BufferPool(1 << 20), table)
            assert list(reader.verify()) == []
