"""Goal: both twins of the read view give a key whose newest version is a MERGE the value that its
operands make, and take no page from a file for it when they must not.

Method: the function is "append", so that each operand and its place shows.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from holdfast.base import MERGE, PUT, RANGE_DELETE, SEQ_MAX
from holdfast.lsm.merged import MergeReads
from holdfast.merge import Merges
from tests.twin.test_lsm_view import Maker, Op, Sources, twins

MERGES = Merges()


def operand(key: bytes, value: bytes) -> Op:
    return MERGE, key, MERGES.value_of("append", value)


def view_of(twin: ModuleType, sources: Sources, merges: MergeReads | None) -> Any:
    levels = tuple(tuple(each) for each in sources.levels)
    return twin.ReadView(sources.active, sources.frozen, levels, merges)


def layered() -> Sources:
    """Of "k" a value in a table, and operands in both memtables; of "m" operands only."""
    frozen = [operand(b"k", b"2"), operand(b"m", b"1")]
    active = [operand(b"k", b"3"), operand(b"m", b"2")]
    return Maker().make(([(PUT, b"k", b"1")], [], [], [frozen], active))


@twins
def test_operands_in_memtables_are_applied_to_what_a_table_has(twin: ModuleType) -> None:
    view = view_of(twin, layered(), MergeReads(MERGES))
    values = [b"1", b"12", b"12", b"123", b"123"]
    assert values == [view.get(b"k", snapshot) for snapshot in range(1, 6)]
    assert values == [view.merged(b"k", snapshot) for snapshot in range(1, 6)]
    assert [None, None, b"1", b"1", b"12"] == [view.get(b"m", seq) for seq in range(1, 6)]
    assert [b"123", None, b"12"] == view.get_many([b"k", b"l", b"m"], SEQ_MAX)
    assert view.merged(b"l", SEQ_MAX) is None
    assert [(b"k", b"123"), (b"m", b"12")] == list(view.cursor(SEQ_MAX))


@twins
def test_an_operand_below_a_tombstone_has_no_value(twin: ModuleType) -> None:
    ops = [operand(b"k", b"1"), (RANGE_DELETE, b"k", b"l"), operand(b"k", b"2")]
    view = view_of(twin, Maker().make(([], [], [], [], ops)), MergeReads(MERGES))
    for get in (view.get, lambda key, seq: view.get_cached(key, seq, "otherwise")):
        assert [b"1", None, b"2"] == [get(b"k", seq) for seq in (1, 2, 3)]


@twins
def test_a_cached_read_of_operands_asks_for_the_page_below_them(twin: ModuleType) -> None:
    view = view_of(twin, layered(), MergeReads(MERGES))
    otherwise = object()
    assert view.get_cached(b"k", SEQ_MAX, otherwise) is otherwise
    # Memtables have all of this one: no table has the key in its range.
    assert b"12" == view.get_cached(b"m", SEQ_MAX, otherwise)
    assert b"123" == view.get(b"k", SEQ_MAX)
    assert b"123" == view.get_cached(b"k", SEQ_MAX, otherwise)
    assert b"12" == view.get_cached(b"k", 3, otherwise)


@twins
def test_a_cached_read_of_an_operand_in_a_table_asks_for_its_page(twin: ModuleType) -> None:
    sources = Maker().make(([operand(b"k", b"1")], [], [], [], []))
    view = view_of(twin, sources, MergeReads(MERGES))
    assert view.get_cached(b"k", SEQ_MAX, b"otherwise") == b"otherwise"
    assert b"1" == view.get(b"k", SEQ_MAX) == view.get_cached(b"k", SEQ_MAX, b"otherwise")


@twins
def test_a_fold_is_that_of_the_merges(twin: ModuleType) -> None:
    view = view_of(twin, Sources(), MergeReads(MERGES))
    entries = [MERGES.value_of("append", value) for value in (b"3", b"2")]
    assert b"123" == view.fold(b"k", b"1", entries)
    assert b"23" == view.fold(b"k", None, entries)


@twins
def test_a_view_that_resolves_no_merges_says_so(twin: ModuleType) -> None:
    view = view_of(twin, layered(), None)
    for read in (
        lambda: view.get(b"k", SEQ_MAX),
        lambda: view.get_cached(b"k", SEQ_MAX, None),
        lambda: view.get_many([b"k"], SEQ_MAX),
        lambda: view.merged(b"k", SEQ_MAX),
        lambda: view.merged(b"absent", SEQ_MAX),
        lambda: view.fold(b"k", None, []),
    ):
        with pytest.raises(ValueError, match=r"^nothing resolves the MERGE entries of this view$"):
            read()
    assert b"1" == view.get(b"k", 1)
    with pytest.raises(ValueError, match="kind 3 among point entries"):
        list(view.cursor(SEQ_MAX))
