"""Goal: a table is open while a view holds it, and its file goes when the last one lets go.

Method: a store over tables on a simulated disk, with views that the test makes and forgets.
"""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

import holdfast
from holdfast.base import PUT, CorruptionError, KeyspaceSettings, marks_seen
from holdfast.bufferpool import BufferPool
from holdfast.compaction import run_flush
from holdfast.env import FaultEnv, FaultRule, SimEnv
from holdfast.lsm import ReadView, TableStore
from holdfast.memtable import Memtable
from holdfast.sstable import TableInfo, table_name

SETTINGS = KeyspaceSettings(memtable_bytes=4096, table_bytes=4096, page_bytes=256)


class Tables:
    """A store and the tables below it."""

    def __init__(self, count: int = 3) -> None:
        self.machine = SimEnv()
        self.env = FaultEnv(self.machine)
        self.pool = BufferPool(1 << 20)
        self.store = TableStore(self.env, "/", self.pool)
        self.number = 0
        self.infos = [self.table(b"%d" % number) for number in range(count)]

    def allocate(self) -> int:
        self.number += 1
        return self.number

    def table(self, key: bytes) -> TableInfo:
        memtable = Memtable()
        memtable.put(self.number + 1, PUT, key, key * 100)
        memtable.freeze()
        result = run_flush(
            self.env,
            "/",
            memtable,
            allocate_number=self.allocate,
            snapshots=[],
            settings=SETTINGS,
        )
        return result.tables[0]

    def view(self, *numbers: int) -> ReadView:
        readers = tuple(self.store.reader(self.infos[number]) for number in numbers)
        made = ReadView(Memtable(), (), (readers,))
        self.store.watch(made)
        return made

    def files(self) -> list[str]:
        return [name for name in self.machine.list_dir("/") if name.endswith(".table")]


def test_a_table_is_opened_once() -> None:
    tables = Tables()
    reader = tables.store.reader(tables.infos[0])
    assert reader is tables.store.reader(tables.infos[0])
    assert reader is not tables.store.reader(tables.infos[1])


def test_a_doomed_table_goes_when_no_view_holds_it() -> None:
    tables = Tables()
    view = tables.view(0, 1)
    tables.store.doom([1])
    assert [] == tables.store.purge()
    assert b"00" == view.get(b"0", 99)[:2]
    del view
    gc.collect()
    assert [1] == tables.store.purge()
    assert [table_name(2), table_name(3)] == tables.files()
    assert [] == tables.store.purge()


def test_of_two_views_the_last_one_counts() -> None:
    tables = Tables()
    first, second = tables.view(0, 1), tables.view(1, 2)
    tables.store.doom([1, 2, 3])
    del first
    gc.collect()
    assert [1] == tables.store.purge()
    assert b"11" == second.get(b"1", 99)[:2]
    del second
    gc.collect()
    assert [2, 3] == tables.store.purge()
    assert [] == tables.files()


def test_a_cursor_holds_its_view() -> None:
    tables = Tables()
    rows = tables.view(0, 1).cursor(99)
    gc.collect()
    tables.store.doom([1, 2])
    assert [] == tables.store.purge()
    assert [b"0", b"1"] == [key for key, _ in rows]
    del rows
    gc.collect()
    assert [1, 2] == tables.store.purge()


def test_a_table_that_no_view_ever_held_goes_at_once() -> None:
    tables = Tables()
    tables.store.doom([3])
    assert [3] == tables.store.purge()


def test_a_table_that_is_not_doomed_stays() -> None:
    tables = Tables()
    view = tables.view(0)
    del view
    gc.collect()
    assert [] == tables.store.purge()
    assert 3 == len(tables.files())


def test_the_pages_of_a_table_that_goes_leave_the_pool() -> None:
    tables = Tables()
    empty = tables.pool.used_bytes
    view = tables.view(0, 1, 2)
    assert [b"0", b"1", b"2"] == [key for key, _ in view.cursor(99)]
    assert tables.pool.used_bytes > empty
    del view
    gc.collect()
    tables.store.doom([1, 2, 3])
    tables.store.purge()
    assert empty == tables.pool.used_bytes


def test_a_file_that_cannot_be_unlinked_is_left() -> None:
    tables = Tables()
    before = marks_seen().get("table.unlink_failed", 0)
    tables.env.add(FaultRule(kind="unlink"))
    tables.store.doom([1])
    assert [1] == tables.store.purge()
    assert before + 1 == marks_seen()["table.unlink_failed"]
    assert 3 == len(tables.files())
    assert [] == tables.store.purge(), "it is not tried again"


def test_a_missing_or_wrong_table_is_not_opened() -> None:
    tables = Tables()
    first, second = (f"/{table_name(number)}" for number in (1, 2))
    tables.machine.unlink(first, site="test")
    with pytest.raises(CorruptionError, match="missing"):
        tables.store.reader(tables.infos[0])
    tables.machine.rename(second, first, site="test")
    with pytest.raises(CorruptionError):
        tables.store.reader(tables.infos[0])
    assert [] == tables.machine.unreturned(), "its file is closed again"


def test_a_close_closes_every_table() -> None:
    tables = Tables()
    view = tables.view(0, 1, 2)
    assert 3 == len(tables.machine.unreturned())
    tables.store.close()
    assert [] == tables.machine.unreturned()
    with pytest.raises(Exception, match="closed"):
        view.get(b"0", 99)
    tables.store.close()
    assert 3 == len(tables.files())


def test_a_table_that_is_missing_is_damage_and_not_an_absent_database(tmp_path: Path) -> None:
    """FileNotFoundError means to a caller of open that there is no database."""
    path = str(tmp_path / "db")
    with holdfast.open(path) as db:
        db[b"k"] = b"v"
    (table,) = Path(path).glob("*.table")
    table.unlink()
    with pytest.raises(CorruptionError, match="missing") as caught:
        holdfast.open(path)
    assert caught.value.file.endswith(table.name)
