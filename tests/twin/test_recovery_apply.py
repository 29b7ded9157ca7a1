"""Goal: both twins of the apply kernel put the same operations of a payload into memtables.

Method: random batches over several keyspaces, some dropped and some partly flushed, are encoded by
the log's own buffer, applied by each twin to memtables of its own, and the contents compared with a
plain walk over the operations; then the payload is damaged.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base import DELETE, PURE, PUT, RANGE_DELETE, SEQ_MAX
from holdfast.memtable import Memtable
from holdfast.recovery import _apply_c, _apply_py
from holdfast.wal import RecordBuffer, WriteBatch, scan_records

# The compiled twin takes compiled memtables only, so in plain mode the plain twin is alone.
MODULES = (_apply_py,) if PURE else (_apply_c, _apply_py)
TWINS = [pytest.param(module, id=module.__name__.rpartition("_")[2]) for module in MODULES]
twins = pytest.mark.parametrize("twin", TWINS)

KEYSPACES = [0, 1, 2, 200]
NEXT_KEYSPACE = 201
DROPPED = 2
KEYS = st.one_of(st.binary(max_size=3), st.just(b"k" * 300))
OPS = st.one_of(
    st.tuples(st.just(PUT), st.sampled_from(KEYSPACES), KEYS, st.binary(max_size=200)),
    st.tuples(st.just(DELETE), st.sampled_from(KEYSPACES), KEYS, st.none()),
    st.tuples(st.just(RANGE_DELETE), st.sampled_from(KEYSPACES), KEYS, KEYS).filter(
        lambda op: op[2] < op[3]
    ),
)
BATCHES = st.lists(st.lists(OPS, min_size=1, max_size=8), max_size=8)
FLUSHED = st.dictionaries(st.sampled_from(KEYSPACES), st.integers(0, 30))

Op = tuple[int, int, bytes, Any]
Content = dict[int, tuple[list[Any], list[Any]]]


def batch_of(ops: list[Op]) -> WriteBatch:
    batch = WriteBatch()
    for kind, keyspace, key, value in ops:
        if kind == PUT:
            batch.put(keyspace, key, value)
        elif kind == DELETE:
            batch.delete(keyspace, key)
        else:
            batch.delete_range(keyspace, key, value)
    return batch


def buffer_of(batches: list[list[Op]]) -> RecordBuffer:
    buffer = RecordBuffer()
    for ops in batches:
        buffer.append_batch(batch_of(ops))
    return buffer


def memtables(*dropped: int) -> dict[int, Memtable]:
    return {keyspace: Memtable() for keyspace in KEYSPACES if keyspace not in dropped}


def content(tables: dict[int, Memtable]) -> Content:
    """Everything that is in the memtables: (entries, range tombstones) by keyspace."""
    found: Content = {}
    for keyspace, table in tables.items():
        cursor = table.cursor()
        entries = []
        more = cursor.seek_first()
        while more:
            entries.append((cursor.key, cursor.seq, cursor.kind, cursor.value))
            more = cursor.next()
        found[keyspace] = entries, table.range_tombstones.tombstones()
    return found


def expected(batches: list[list[Op]], seq: int, flushed: dict[int, int], *dropped: int) -> Content:
    tables = memtables(*dropped)
    for ops in batches:
        for kind, keyspace, key, value in ops:
            if keyspace in tables and seq > flushed.get(keyspace, 0):
                if kind == RANGE_DELETE:
                    tables[keyspace].delete_range(seq, key, value)
                else:
                    tables[keyspace].put(seq, kind, key, value or b"")
            seq += 1
    return content(tables)


def sizes(batches: list[list[Op]]) -> tuple[int, int]:
    ops = [op for batch in batches for op in batch]
    return len(ops), sum(len(key) + len(value or b"") for _, _, key, value in ops)


@pytest.mark.parametrize("twin", TWINS)
@given(batches=BATCHES, flushed=FLUSHED, seq=st.sampled_from([1, 17, SEQ_MAX - 100]))
def test_a_payload_is_applied_in_order(
    twin: ModuleType, batches: list[list[Op]], flushed: dict[int, int], seq: int
) -> None:
    payload = b"????" + buffer_of(batches).payload() + b"!!"
    tables = memtables(DROPPED)
    result = twin.apply_payload(payload, 4, len(payload) - 6, seq, tables, flushed, NEXT_KEYSPACE)
    assert sizes(batches) == result
    assert expected(batches, seq, flushed, DROPPED) == content(tables)


@pytest.mark.parametrize("twin", TWINS)
@given(before=BATCHES, batches=BATCHES)
def test_a_buffer_is_applied_from_an_offset_on(
    twin: ModuleType, before: list[list[Op]], batches: list[list[Op]]
) -> None:
    buffer = buffer_of(before)
    offset = buffer.size
    for ops in batches:
        buffer.append_batch(batch_of(ops))
    tables = memtables()
    assert sizes(batches)[1] == twin.apply_buffer(buffer, offset, 5, tables)
    assert expected(batches, 5, {}) == content(tables)


@pytest.mark.parametrize("twin", TWINS)
@given(batches=BATCHES.filter(bool), data=st.data())
def test_a_malformed_payload_is_a_value_error(
    twin: ModuleType, batches: list[list[Op]], data: st.DataObject
) -> None:
    """Whatever the bytes are, they are applied as they read or refused."""
    payload = bytearray(buffer_of(batches).payload())
    at = data.draw(st.integers(0, len(payload) - 1))
    if data.draw(st.booleans()):
        del payload[at:]
    else:
        payload[at] ^= data.draw(st.integers(1, 255))
    damaged = bytes(payload)
    outcomes = []
    for module in (twin, _apply_py):
        tables = memtables(DROPPED)
        try:
            result = module.apply_payload(damaged, 0, len(damaged), 1, tables, {}, NEXT_KEYSPACE)
        except ValueError:
            outcomes.append(None)
        else:
            outcomes.append((result, content(tables)))
    assert outcomes[0] == outcomes[1]


@twins
@pytest.mark.parametrize(
    ("offset", "size"), [(-1, 1), (0, -1), (0, 9), (8, 1), (9, 0), (2**62, 2**62)]
)
def test_a_span_outside_the_data_is_refused(twin: ModuleType, offset: int, size: int) -> None:
    with pytest.raises(ValueError):
        twin.apply_payload(b"\x00" * 8, offset, size, 1, memtables(), {}, NEXT_KEYSPACE)


@twins
@pytest.mark.parametrize("offset", [-1, 100])
def test_an_offset_outside_the_buffer_is_refused(twin: ModuleType, offset: int) -> None:
    buffer = buffer_of([[(PUT, 0, b"a", b"b")]])
    with pytest.raises(ValueError):
        twin.apply_buffer(buffer, offset, 1, memtables())


@twins
def test_a_keyspace_that_never_existed_is_refused(twin: ModuleType) -> None:
    payload = buffer_of([[(PUT, 0, b"a", b"b"), (PUT, 300, b"a", b"b")]]).payload()
    with pytest.raises(ValueError, match="keyspace 300"):
        twin.apply_payload(payload, 0, len(payload), 1, memtables(), {}, NEXT_KEYSPACE)
    # The first id that was not given.
    payload = buffer_of([[(PUT, NEXT_KEYSPACE, b"a", b"b")]]).payload()
    with pytest.raises(ValueError, match=f"keyspace {NEXT_KEYSPACE}"):
        twin.apply_payload(payload, 0, len(payload), 1, memtables(), {}, NEXT_KEYSPACE)
    buffer = buffer_of([[(PUT, DROPPED, b"a", b"b")]])
    with pytest.raises(ValueError, match="keyspace 2"):
        twin.apply_buffer(buffer, 0, 1, memtables(DROPPED))


@twins
def test_an_empty_payload_is_nothing(twin: ModuleType) -> None:
    assert (0, 0) == twin.apply_payload(b"", 0, 0, 1, memtables(), {}, NEXT_KEYSPACE)
    assert 0 == twin.apply_buffer(RecordBuffer(), 0, 1, memtables())


# --- records of a segment

SEGMENT, SALT = 3, 77


def segment_of(records: list[list[list[Op]]]) -> tuple[Any, bytes]:
    """Seal each list of batches as a record; return (scan, data)."""
    data, chain, seq = b"", SALT, 1
    for lsn, batches in enumerate(records, 1):
        buffer = buffer_of(batches)
        count = buffer.op_count
        view, chain = buffer.seal(SEGMENT, SALT, lsn, seq, 0, 0, chain, 8)
        with view:
            data += bytes(view)
        seq += count
    data += bytes(4096)
    return scan_records(data, 0, SEGMENT, SALT, 1, SALT, 8), data


@pytest.mark.parametrize("twin", TWINS)
@given(
    records=st.lists(BATCHES.filter(bool), max_size=6),
    flushed=FLUSHED,
    payload_bytes_max=st.sampled_from([0, 1, 100, 400, 1 << 20]),
)
def test_records_are_applied_until_enough_bytes_were(
    twin: ModuleType,
    records: list[list[list[Op]]],
    flushed: dict[int, int],
    payload_bytes_max: int,
) -> None:
    scan, data = segment_of(records)
    assert len(records) == scan.record_count
    tables = memtables(DROPPED)
    at, steps = 0, []
    while at < scan.record_count:
        after, size = twin.apply_records(
            scan, data, at, payload_bytes_max, tables, flushed, NEXT_KEYSPACE
        )
        taken = [scan.record(index).payload_size for index in range(at, after)]
        assert sum(taken) == size
        # It stops behind the first record that goes over the limit, and never before one.
        assert sum(taken[:-1]) <= payload_bytes_max
        assert after == scan.record_count or size > payload_bytes_max
        steps.append(after)
        at = after
    assert steps == sorted(set(steps))
    batches = [batch for record in records for batch in record]
    assert expected(batches, 1, flushed, DROPPED) == content(tables)


@twins
def test_records_behind_the_last_are_none(twin: ModuleType) -> None:
    scan, data = segment_of([[[(PUT, 0, b"a", b"b")]]])
    assert (1, 0) == twin.apply_records(scan, data, 1, 100, memtables(), {}, NEXT_KEYSPACE)
