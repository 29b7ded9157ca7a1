"""Goal: a tree shows the same content while memtables are frozen, flushed and compacted."""

from __future__ import annotations

import gc

import pytest

from holdfast.base import DELETE, PUT, SEQ_MAX, KeyspaceSettings
from holdfast.bufferpool import BufferPool
from holdfast.compaction import run_flush
from holdfast.env import SimEnv
from holdfast.lsm import TableStore, Tree
from holdfast.manifest import KeyspaceVersion, Version, VersionEdit
from holdfast.memtable import Memtable, SpareChunks

SETTINGS = KeyspaceSettings(memtable_bytes=4096, table_bytes=4096, page_bytes=256)


class Maker:
    """A tree, and what an engine would do around it."""

    def __init__(self) -> None:
        self.env = SimEnv()
        self.store = TableStore(self.env, "/", BufferPool(1 << 20))
        self.version = Version().apply(
            VersionEdit(keyspaces_created=((0, "default", SETTINGS),), settings_text="")
        )
        self.tree = Tree(self.store, self.keyspace, SpareChunks())
        self.seq = 0
        self.number = 0

    @property
    def keyspace(self) -> KeyspaceVersion:
        return self.version.keyspaces[0]

    def allocate(self) -> int:
        self.number += 1
        return self.number

    def put(self, key: bytes, value: bytes) -> None:
        self.seq += 1
        self.tree.active.put(self.seq, PUT, key, value)

    def flush(self) -> Memtable:
        memtable = self.tree.frozen[-1]
        result = run_flush(
            self.env,
            "/",
            memtable,
            allocate_number=self.allocate,
            snapshots=[],
            settings=SETTINGS,
        )
        self.version = self.version.apply(
            VersionEdit(
                tables_added=tuple((0, 0, info) for info in result.tables),
                flushed_seq={0: memtable.seq_max},
                next_number=self.number + 1,
            )
        )
        self.tree.install(self.keyspace, memtable)
        return memtable

    def content(self) -> dict[bytes, bytes]:
        return dict(self.tree.view.cursor(SEQ_MAX))


def test_a_new_tree_is_empty() -> None:
    tree = Maker().tree
    assert (0, None, ()) == (tree.active.entry_count, tree.unflushed_seq, tree.frozen)
    assert [] == list(tree.view.cursor(SEQ_MAX))


def test_the_content_stays_from_memtable_to_table() -> None:
    maker = Maker()
    expected = {}
    views = []
    for round_ in range(3):
        for key in (b"a", b"b%d" % round_):
            maker.put(key, b"%d" % round_)
            expected[key] = b"%d" % round_
        views.append((maker.tree.view, maker.seq, dict(expected)))
        frozen = maker.tree.freeze()
        assert frozen.frozen
        assert frozen is maker.tree.frozen[0]
        assert expected == maker.content()
    assert 3 == len(maker.tree.frozen)
    assert 1 == maker.tree.unflushed_seq
    for left in (2, 1, 0):
        maker.flush()
        assert left == len(maker.tree.frozen)
        assert expected == maker.content()
    assert maker.tree.unflushed_seq is None
    assert 3 == len(maker.tree.view.levels[0])
    for view, seq, content in views:
        assert content == dict(view.cursor(seq)), "an old view goes on"


def test_memtables_are_flushed_oldest_first() -> None:
    maker = Maker()
    for key in (b"a", b"b"):
        maker.put(key, b"1")
        maker.tree.freeze()
    with pytest.raises(AssertionError, match="oldest first"):
        maker.tree.install(maker.keyspace, maker.tree.frozen[0])


def test_the_bytes_of_all_memtables_count() -> None:
    maker = Maker()
    maker.put(b"a", b"x" * 1000)
    one = maker.tree.memtable_bytes
    assert one == maker.tree.active.bytes_used > 1000
    maker.tree.freeze()
    maker.put(b"b", b"x" * 1000)
    assert 2 * one == maker.tree.memtable_bytes
    maker.flush()
    assert one == maker.tree.memtable_bytes


def test_a_replayed_memtable_is_adopted_by_an_empty_tree_only() -> None:
    maker = Maker()
    memtable = Memtable()
    memtable.put(1, PUT, b"a", b"1")
    maker.tree.adopt(memtable)
    assert {b"a": b"1"} == maker.content()
    with pytest.raises(AssertionError, match="empty"):
        maker.tree.adopt(Memtable())


def test_a_tree_that_is_opened_again_has_the_tables_of_its_version() -> None:
    maker = Maker()
    maker.put(b"a", b"1")
    maker.tree.freeze()
    maker.flush()
    again = Tree(maker.store, maker.keyspace, SpareChunks())
    assert {b"a": b"1"} == dict(again.view.cursor(SEQ_MAX))


def test_tables_that_left_the_version_go_with_the_old_views() -> None:
    maker = Maker()
    maker.put(b"a", b"1")
    maker.tree.freeze()
    maker.flush()
    held = maker.tree.view
    info = maker.keyspace.levels[0][0]
    maker.version = maker.version.apply(VersionEdit(tables_removed=((0, 0, info.number),)))
    maker.tree.install(maker.keyspace)
    maker.store.doom([info.number])
    assert [] == maker.store.purge()
    assert {} == maker.content()
    assert {b"a": b"1"} == dict(held.cursor(SEQ_MAX))
    del held
    gc.collect()
    assert [info.number] == maker.store.purge()


def test_a_table_that_came_past_the_memtables_ends_the_gaps() -> None:
    """A flush and a compaction do not."""
    maker = Maker()
    for number in range(100):
        maker.put(b"%03d" % number, b"")
        maker.seq += 1
        maker.tree.active.put(maker.seq, DELETE, b"%03d" % number, b"")
    maker.put(b"end", b"")
    assert list(maker.content()) == [b"end"]
    gaps = maker.tree.active.gaps
    assert len(gaps) == 1
    maker.tree.freeze()
    maker.flush()
    maker.tree.install(maker.keyspace)
    assert (1, gaps) == (len(gaps), maker.tree.active.gaps)
    foreign = Memtable()
    foreign.put(maker.seq + 1, PUT, b"050", b"")
    result = run_flush(
        maker.env,
        "/",
        foreign,
        allocate_number=maker.allocate,
        snapshots=[],
        settings=SETTINGS,
    )
    maker.version = maker.version.apply(
        VersionEdit(
            tables_added=tuple((0, 0, info) for info in result.tables),
            flushed_seq={0: maker.seq + 1},
            next_number=maker.number + 1,
        )
    )
    maker.tree.install(maker.keyspace)
    assert list(maker.content()) == [b"050", b"end"]
