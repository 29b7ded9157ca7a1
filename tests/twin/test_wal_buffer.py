"""Both twins of `holdfast.wal._buffer` encode the same bytes and refuse the same calls."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base import (
    BATCH_BYTES_MAX,
    DELETE,
    KEY_BYTES_MAX,
    MERGE,
    PUT,
    RANGE_DELETE,
    VALUE_BYTES_MAX,
    LimitError,
)
from holdfast.codec import checksum
from holdfast.wal import _buffer_c, _buffer_py, _scan_py
from holdfast.wal.format import RECORD_HEADER_BYTES, RecordType, decode_record_header

TWINS = [pytest.param(_buffer_c, id="c"), pytest.param(_buffer_py, id="py")]
both = pytest.mark.parametrize("twin", TWINS)
SEAL = (7, 1234, 9, 100, 8, 3, 555)

keys = st.binary(max_size=40)
operations = st.lists(
    st.one_of(
        st.tuples(st.just(PUT), st.integers(0, 2**32 - 1), keys, st.binary(max_size=300)),
        st.tuples(st.just(DELETE), st.integers(0, 300), keys, st.none()),
        st.tuples(st.just(RANGE_DELETE), st.integers(0, 300), keys, keys),
    ),
    max_size=20,
)


def add(batch: Any, operation: tuple[int, int, bytes, bytes | None]) -> None:
    kind, keyspace, key, value = operation
    if kind == PUT:
        batch.put(keyspace, key, value)
    elif kind == DELETE:
        batch.delete(keyspace, key)
    else:
        batch.delete_range(keyspace, key, value)


def outcome(call: Any, *arguments: Any, **named: Any) -> Any:
    try:
        return call(*arguments, **named)
    except Exception as error:
        return type(error), str(error)


class BreaksOff:
    """Pairs, one of which cannot be made."""

    def __iter__(self) -> Any:
        yield b"a", b"x"
        raise ZeroDivisionError


@both
@pytest.mark.parametrize(
    ("pairs", "error"),
    [
        (BreaksOff(), ZeroDivisionError),
        ([(b"a", b"x"), (b"k",)], ValueError),
        ([(b"a", b"x"), (b"k", b"v", b"")], ValueError),
        ([(b"a", b"x"), 7], TypeError),
    ],
)
def test_pairs_that_are_none_add_nothing(twin: Any, pairs: Any, error: type[Exception]) -> None:
    batch = twin.WriteBatch()
    batch.put(1, b"before", b"x")
    before = batch.payload()
    with pytest.raises(error):
        batch.put_many(1, pairs)
    assert (batch.payload(), batch.op_count) == (before, 1)


@both
def test_pairs_that_empty_the_batch_are_refused(twin: Any) -> None:
    """Nobody does that; it must not end in memory that is gone."""
    batch = twin.WriteBatch()
    batch.put(1, b"large", bytes(3_000_000))

    def pairs() -> Any:
        yield b"a", b"x"
        batch.clear()
        raise ZeroDivisionError

    with pytest.raises(ValueError, match="the mark does not lie within the batch"):
        batch.put_many(1, pairs())
    assert (batch.payload(), batch.op_count) == (b"", 0)


def test_many_pairs_let_signal_handlers_have_their_turn() -> None:
    """In a list of bytes nothing else runs Python code."""

    def strike(*_: object) -> None:
        raise TimeoutError

    batch, pairs = _buffer_c.WriteBatch(), [(b"key", b"value")] * 3_000_000
    before = signal.signal(signal.SIGALRM, strike)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(TimeoutError):
            while True:
                batch.put_many(1, pairs)
                assert batch.op_count == len(pairs), "the handler came too late"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert batch.op_count in (0, len(pairs))


@given(pairs=st.lists(st.tuples(keys, st.binary(max_size=300))), keyspace=st.integers(0, 2**32 - 1))
def test_many_puts_are_what_one_after_the_other_is(
    pairs: list[tuple[bytes, bytes]], keyspace: int
) -> None:
    for twin in (_buffer_c, _buffer_py):
        one, many = twin.WriteBatch(), twin.WriteBatch()
        for key, value in pairs:
            one.put(keyspace, key, value)
        many.put_many(keyspace, ((bytearray(key), memoryview(value)) for key, value in pairs))
        assert (many.payload(), many.op_count) == (one.payload(), len(pairs))


@both
def test_a_batch_is_its_count_and_its_operations(twin: Any) -> None:
    batch = twin.WriteBatch()
    batch.put(1, b"k", b"value")
    batch.delete(300, b"kk")
    batch.delete_range(2, b"a", b"b")
    expected = b"\x03" + b"\x01\x01\x01k\x05value" + b"\x00\xac\x02\x02kk" + b"\x02\x02\x01a\x01b"
    assert batch.payload() == expected
    assert (batch.op_count, batch.size) == (3, len(expected))
    assert list(batch.operations()) == [
        (PUT, 1, b"k", b"value"), (DELETE, 300, b"kk", None), (RANGE_DELETE, 2, b"a", b"b"),
    ]  # fmt: skip


@both
def test_a_merge_is_an_operation_with_its_operand(twin: Any) -> None:
    batch = twin.WriteBatch()
    batch.merge(1, b"k", b"add")
    assert batch.payload() == b"\x01" + bytes([MERGE]) + b"\x01\x01k\x03add"
    assert (batch.op_count, batch.size) == (1, len(batch.payload()))
    assert list(batch.operations()) == [(MERGE, 1, b"k", b"add")]


@both
def test_a_batch_is_cut_back_to_any_mark_within_it_and_to_its_end(twin: Any) -> None:
    batch = twin.WriteBatch()
    assert batch.rollback(batch.mark()) is None
    marks = []
    for number in range(3):
        marks.append((batch.mark(), batch.payload()))
        batch.put(1, b"k%d" % number, b"v")
    whole = batch.payload()
    size, op_count = batch.mark()
    batch.rollback((size, op_count))
    assert batch.payload() == whole
    for mark in ((size + 1, op_count), (size, op_count + 1), (-1, 0), (0, -1)):
        with pytest.raises(ValueError):
            batch.rollback(mark)
        assert batch.payload() == whole
    for mark, payload in reversed(marks):
        batch.rollback(mark)
        assert batch.payload() == payload


@both
def test_an_empty_batch_is_nothing(twin: Any) -> None:
    batch, buffer = twin.WriteBatch(), twin.RecordBuffer()
    assert (batch.payload(), batch.size, batch.op_count, list(batch.operations())) == (
        b"",
        0,
        0,
        [],
    )
    buffer.append_batch(batch)
    assert (buffer.payload(), buffer.size, buffer.op_count, list(buffer.operations())) == (
        b"",
        0,
        0,
        [],
    )


@both
def test_a_cleared_batch_starts_again(twin: Any) -> None:
    batch = twin.WriteBatch()
    for value in (b"x" * 100, b"x" * (2 << 20), b""):
        batch.put(1, b"k", value)
        batch.clear()
        assert (batch.payload(), batch.size, batch.op_count) == (b"", 0, 0)
    batch.put(1, b"k", b"v")
    assert batch.payload() == b"\x01\x01\x01\x01k\x01v"


@both
def test_any_bytes_like_object_is_a_key_or_a_value(twin: Any) -> None:
    batch = twin.WriteBatch()
    batch.put(1, bytearray(b"k"), memoryview(b"v"))
    batch.delete(1, memoryview(b"k"))
    batch.delete_range(1, bytearray(b"a"), memoryview(b"b"))
    buffer = twin.RecordBuffer()
    buffer.append_op(PUT, 1, memoryview(b"k"), bytearray(b"v"))
    assert batch.payload() == b"\x03\x01\x01\x01k\x01v\x00\x01\x01k\x02\x01\x01a\x01b"
    assert buffer.payload() == b"\x01\x01\x01\x01k\x01v"


@pytest.mark.parametrize(
    "arguments",
    [
        (4, 1, b"k", b"v"),
        (MERGE, 1, b"k"),
        (MERGE, 1, b"k", "v"),
        (-1, 1, b"k", b"v"),
        (PUT, -1, b"k", b"v"),
        (PUT, 2**32, b"k", b"v"),
        (PUT, 1, "k", b"v"),
        (PUT, 1, b"k", "v"),
        (PUT, 1, b"k", None),
        (PUT, 1, 5, b"v"),
        (PUT, 1, b"k"),
        (DELETE, 1, b"k", b""),
        (RANGE_DELETE, 1, b"k"),
        (PUT, 1, bytes(KEY_BYTES_MAX + 1), b"v"),
        (RANGE_DELETE, 1, b"k", bytes(KEY_BYTES_MAX + 1)),
        (DELETE, 1, bytes(KEY_BYTES_MAX + 1)),
    ],
)
def test_a_bad_operation_is_refused_alike_and_changes_nothing(arguments: tuple[Any, ...]) -> None:
    results = []
    for twin in (_buffer_c, _buffer_py):
        buffer = twin.RecordBuffer()
        buffer.append_op(PUT, 1, b"before", b"x")
        before = buffer.payload()
        result = outcome(buffer.append_op, *arguments)
        assert result is not None
        assert (buffer.payload(), buffer.op_count) == (before, 1)
        results.append(result)
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("put", (1, "k", b"v")),
        ("put", (1, b"k", "v")),
        ("put", (2**32, b"k", b"v")),
        ("put", (1, b"k", None)),
        ("put", (1, bytes(KEY_BYTES_MAX + 1), b"")),
        ("put", (-1, "k", b"v")),
        ("put_many", (2**32, [])),
        ("put_many", (1, None)),
        ("put_many", (1, [(b"a", b"x"), ("k", b"v")])),
        ("put_many", (1, [(b"a", b"x"), (b"k", "v")])),
        ("put_many", (1, [(b"a", b"x"), (bytes(KEY_BYTES_MAX + 1), b"v")])),
        ("put_many", (1, [(b"a", b"x"), (b"k", memoryview(bytes(VALUE_BYTES_MAX + 1)))])),
        ("put_many", (1, [(b"a", b"x"), (b"k", bytes(VALUE_BYTES_MAX))] * 5)),
        ("delete", (1, None)),
        ("delete", (1, bytes(KEY_BYTES_MAX + 1))),
        ("delete_range", (1, b"a", None)),
        ("delete_range", (1, b"a", bytes(KEY_BYTES_MAX + 1))),
    ],
)
def test_a_bad_call_on_a_batch_is_refused_alike_and_changes_nothing(
    method: str, arguments: Any
) -> None:
    results = []
    for twin in (_buffer_c, _buffer_py):
        batch = twin.WriteBatch()
        batch.put(1, b"before", b"x")
        before = batch.payload()
        result = outcome(getattr(batch, method), *arguments)
        assert result is not None
        assert batch.payload() == before
        results.append(result)
    assert results[0] == results[1]


@both
def test_the_longest_key_is_taken(twin: Any) -> None:
    batch = twin.WriteBatch()
    batch.put(1, bytes(KEY_BYTES_MAX), b"")
    batch.delete_range(1, b"", bytes(KEY_BYTES_MAX))
    assert next(batch.operations()) == (PUT, 1, bytes(KEY_BYTES_MAX), b"")


@both
def test_a_batch_over_the_limit_is_refused_before_anything_changes(twin: Any) -> None:
    batch = twin.WriteBatch(20)
    batch.put(1, b"k", b"12345678901234")
    assert batch.size == 20
    for call in (
        lambda: batch.put(1, b"", b""),
        lambda: batch.delete(1, b""),
        lambda: batch.delete_range(1, b"", b""),
    ):
        with pytest.raises(LimitError, match="the limit is 20"):
            call()
    assert (batch.size, batch.op_count) == (20, 1)


@both
def test_what_is_refused_says_how_large_the_record_would_be(twin: Any) -> None:
    buffer = twin.RecordBuffer(20)
    buffer.append_op(PUT, 1, b"k", b"12345")
    size = len(buffer.payload())
    batch = twin.WriteBatch()
    batch.put(1, b"k", b"12345678")
    with pytest.raises(LimitError, match=f"have {size + batch.size} bytes; the limit is 20"):
        buffer.append_batch(batch)


@both
def test_the_growing_count_is_part_of_the_limit(twin: Any) -> None:
    batch = twin.WriteBatch(127 * 3 + 1 + 3)
    for _ in range(127):
        batch.delete(1, b"")
    with pytest.raises(LimitError):
        batch.delete(1, b"")
    assert (batch.op_count, batch.size) == (127, 127 * 3 + 1)


@both
@pytest.mark.parametrize("count", [1, 2, 126, 127, 128])
def test_a_batch_and_a_record_of_just_the_limit_are_taken(twin: Any, count: int) -> None:
    batch = twin.WriteBatch()
    for _ in range(count):
        batch.put(2**32 - 1, b"k", b"value")
    limit = batch.size
    limited = twin.WriteBatch(limit)
    for _ in range(count):
        limited.put(2**32 - 1, b"k", b"value")
    assert limited.payload() == batch.payload()
    buffer = twin.RecordBuffer(limit)
    buffer.append_batch(limited)
    assert (buffer.size, buffer.op_count) == (limit, count)
    with pytest.raises(LimitError):
        twin.RecordBuffer(limit - 1).append_batch(batch)


@both
def test_the_greatest_numbers_are_sealed(twin: Any) -> None:
    greatest = 2**64 - 1
    buffer = twin.RecordBuffer()
    buffer.append_op(PUT, 1, b"k", b"v")
    view, chain = buffer.seal(greatest, greatest, 9, 100, 8, greatest, greatest)
    with view:
        decoded = decode_record_header(view[:RECORD_HEADER_BYTES], greatest)
    assert decoded is not None
    header, digest = decoded
    assert digest == chain
    assert (header.segment, header.manifest_edit, header.chain) == (greatest,) * 3


@both
def test_a_record_over_the_limit_is_refused_before_anything_changes(twin: Any) -> None:
    buffer, batch = twin.RecordBuffer(20), twin.WriteBatch()
    batch.put(1, b"k", b"x" * 20)
    buffer.append_op(PUT, 1, b"k", b"v")
    for call in (
        lambda: buffer.append_batch(batch),
        lambda: buffer.append_op(PUT, 1, b"k", b"x" * 20),
    ):
        with pytest.raises(LimitError, match="the limit is 20"):
            call()
    assert (buffer.size, buffer.op_count) == (7, 1)


@both
@pytest.mark.parametrize("limit", [0, -1, BATCH_BYTES_MAX + 1])
def test_a_limit_beyond_the_format_is_refused(twin: Any, limit: int) -> None:
    for kind in (twin.WriteBatch, twin.RecordBuffer):
        with pytest.raises(LimitError):
            kind(limit)


@both
def test_only_a_batch_of_the_same_twin_is_appended(twin: Any) -> None:
    with pytest.raises(TypeError, match="a batch is a WriteBatch, not bytes"):
        twin.RecordBuffer().append_batch(b"")


@both
def test_rollback_forgets_what_came_after_the_mark(twin: Any) -> None:
    buffer = twin.RecordBuffer()
    buffer.append_op(PUT, 1, b"a", b"1")
    mark = buffer.mark()
    before = buffer.payload()
    buffer.append_op(PUT, 1, b"b", b"2")
    buffer.append_op(DELETE, 1, b"c")
    buffer.rollback(mark)
    assert (buffer.payload(), buffer.op_count, buffer.size) == (before, 1, len(before))
    buffer.append_op(DELETE, 1, b"d")
    assert [operation[2] for operation in buffer.operations()] == [b"a", b"d"]
    for bad in ((1000, 0), (0, 1000), (-1, 0), (0, -1)):
        with pytest.raises(ValueError, match="the mark"):
            buffer.rollback(bad)


@both
def test_a_sealed_record_is_header_payload_and_padding(twin: Any) -> None:
    buffer = twin.RecordBuffer()
    buffer.append_op(PUT, 1, b"k", b"v")
    view, chain = buffer.seal(*SEAL)
    record = bytes(view)
    assert view.readonly
    assert (view.format, view.itemsize, view.ndim, view.shape, view.strides) == (
        "B",
        1,
        1,
        (88,),
        (1,),
    )
    decoded = decode_record_header(memoryview(record)[:80], SEAL[1])
    assert decoded is not None
    header, digest = decoded
    assert digest == chain
    assert header == (
        7,
        7,
        9,
        100,
        8,
        3,
        555,
        1,
        RecordType.BATCHES,
        checksum(buffer.payload(), SEAL[1]),
    )
    assert record[80:] == b"\x01\x01\x01\x01k\x01v" + b"\x00"


@both
@pytest.mark.parametrize("alignment", [8, 16, 512, 4096])
def test_padding_reaches_the_alignment_and_is_zero(twin: Any, alignment: int) -> None:
    buffer = twin.RecordBuffer()
    # Leaves other bytes behind the payload that is sealed later.
    buffer.append_op(PUT, 1, b"k", b"x" * 5000)
    buffer.rollback((0, 0))
    for size in (0, 3, 4, 100, 500, 4005, 4006, 4007):
        buffer.clear()
        buffer.append_op(PUT, 1, b"k", b"x" * size)
        view, _ = buffer.seal(*SEAL, alignment)
        with view:
            assert len(view) % alignment == 0
            assert len(view) - 80 - buffer.size < alignment
            assert not any(view[80 + buffer.size :])


@both
def test_sealing_again_gives_the_new_header(twin: Any) -> None:
    buffer = twin.RecordBuffer()
    buffer.append_op(PUT, 1, b"k", b"v")
    first = bytes(buffer.seal(*SEAL)[0])
    buffer.append_op(PUT, 1, b"l", b"w")
    view, _ = buffer.seal(7, 1234, 10, 101, 9, 3, 556, 16)
    with view:
        assert bytes(view)[80:].startswith(first[80:87])
        assert len(view) == 96


@both
def test_a_buffer_does_not_change_while_a_view_lives(twin: Any) -> None:
    buffer, batch = twin.RecordBuffer(), twin.WriteBatch()
    batch.put(1, b"k", b"v")
    buffer.append_batch(batch)
    mark = buffer.mark()
    view, _ = buffer.seal(*SEAL)
    part = view[10:20]
    view.release()
    before = bytes(part)
    for call in (
        lambda: buffer.append_op(PUT, 1, b"k", b"v"),
        lambda: buffer.append_batch(batch),
        lambda: buffer.rollback(mark),
        lambda: buffer.seal(*SEAL),
        buffer.clear,
    ):
        with pytest.raises(BufferError):
            call()
    assert (bytes(part), buffer.op_count) == (before, 1)
    part.release()
    buffer.clear()
    assert buffer.size == 0


@both
def test_a_view_outlives_its_buffer(twin: Any) -> None:
    buffer = twin.RecordBuffer()
    buffer.append_op(PUT, 1, b"k", b"v" * 1000)
    view, _ = buffer.seal(*SEAL)
    expected = buffer.payload()
    del buffer
    assert bytes(view[80 : 80 + len(expected)]) == expected


@both
def test_an_empty_buffer_is_not_sealed(twin: Any) -> None:
    with pytest.raises(ValueError, match="at least one operation"):
        twin.RecordBuffer().seal(*SEAL)


@pytest.mark.parametrize(
    "arguments",
    [
        (7, 1, 0, 1, 0, 0, 0),
        (7, 1, 5, 1, 5, 0, 0),
        (7, 1, 5, 0, 4, 0, 0),
        (7, 1, 5, 2**56, 4, 0, 0),
        (7, 1, 2**63, 1, 4, 0, 0),
        (7, 1, 5, 1, 4, 0, 0, 7),
        (7, 1, 5, 1, 4, 0, 0, 0),
        (7, 1, 5, 1, 4, 0, 0, 8192),
        (-1, 1, 5, 1, 4, 0, 0),
        (7, 2**64, 5, 1, 4, 0, 0),
        (7, 1, 5, 1, 4, -5, 0),
        (7, 1, 5, 1, 4, 0, 2**64),
    ],
)
def test_a_header_that_no_reader_accepts_is_refused(arguments: tuple[int, ...]) -> None:
    kinds = set()
    for twin in (_buffer_c, _buffer_py):
        buffer = twin.RecordBuffer()
        buffer.append_op(PUT, 1, b"k", b"v")
        with pytest.raises((ValueError, OverflowError)) as caught:
            buffer.seal(*arguments)
        kinds.add(caught.type)
        buffer.append_op(PUT, 1, b"k", b"v")
    assert len(kinds) == 1


@given(st.lists(operations, max_size=6), st.sampled_from([8, 64, 512, 4096]), st.data())
def test_twins_give_equal_bytes(batches: list[Any], alignment: int, data: st.DataObject) -> None:
    mark_at = data.draw(st.integers(0, len(batches)))
    single = data.draw(operations)
    rolled_back = data.draw(st.booleans())
    results = []
    for twin in (_buffer_c, _buffer_py):
        buffer = twin.RecordBuffer()
        seen: list[Any] = []
        mark = buffer.mark()
        for number, content in enumerate(batches):
            if number == mark_at:
                mark = buffer.mark()
            batch = twin.WriteBatch()
            for operation in content:
                add(batch, operation)
            assert list(batch.operations()) == content
            assert len(batch.payload()) == batch.size
            buffer.append_batch(batch)
            seen.append((batch.payload(), batch.size, batch.op_count))
        if rolled_back:
            buffer.rollback(mark)
        for operation in single:
            buffer.append_op(*operation)
        seen.append((buffer.payload(), buffer.size, buffer.op_count, list(buffer.operations())))
        _scan_py.check_payload(buffer.payload(), 0, buffer.size, buffer.op_count)
        if buffer.op_count:
            view, chain = buffer.seal(*SEAL, alignment)
            seen.append((bytes(view), chain))
        results.append(seen)
    assert results[0] == results[1]


@both
def test_a_large_record_is_sealed_right(twin: Any) -> None:
    buffer = twin.RecordBuffer()
    value = bytes(range(256)) * 4096
    buffer.append_op(PUT, 1, b"k", value)
    buffer.append_op(PUT, 1, b"l", value[::-1])
    view, _ = buffer.seal(*SEAL)
    decoded = decode_record_header(view[:80], SEAL[1])
    assert decoded is not None
    assert decoded[0].payload_checksum == checksum(view[80 : 80 + buffer.size], SEAL[1])
    assert [operation[3] for operation in buffer.operations()] == [value, value[::-1]]
    view.release()
    buffer.clear()
    buffer.append_op(DELETE, 1, b"k")
    assert buffer.payload() == b"\x01\x00\x01\x01k"


@both
def test_the_least_limit_is_one_byte(twin: Any) -> None:
    for made in (twin.WriteBatch(1), twin.RecordBuffer(1)):
        assert made.size == 0
    with pytest.raises(LimitError, match="the limit is 1"):
        twin.RecordBuffer(1).append_op(DELETE, 0, b"a", None)


@both
@pytest.mark.parametrize("limit", [1, 20])
def test_one_operation_fits_whatever_the_limit_of_a_batch(twin: Any, limit: int) -> None:
    """Whatever may be written at all may be written by itself."""
    for add in (
        lambda batch: batch.put(1, b"k" * KEY_BYTES_MAX, b"v" * 100),
        lambda batch: batch.merge(1, b"k" * KEY_BYTES_MAX, b"v" * 100),
        lambda batch: batch.delete(1, b"k" * KEY_BYTES_MAX),
        lambda batch: batch.delete_range(1, b"", b"k" * KEY_BYTES_MAX),
    ):
        batch = twin.WriteBatch(limit)
        start = batch.mark()
        add(batch)
        size = batch.size
        assert (1, True) == (batch.op_count, size > KEY_BYTES_MAX)
        for call in (lambda: batch.delete(1, b""), lambda: add(batch)):
            with pytest.raises(LimitError, match=f"the limit is {limit}"):
                call()
        assert (1, size) == (batch.op_count, batch.size)
        batch.rollback(start)
        add(batch)
        assert (1, size) == (batch.op_count, batch.size)


@both
def test_a_cleared_buffer_starts_again(twin: Any) -> None:
    buffer = twin.RecordBuffer()
    buffer.append_op(PUT, 1, b"key", b"value")
    buffer.clear()
    assert (buffer.size, buffer.op_count, buffer.payload(), list(buffer.operations())) == (
        0,
        0,
        b"",
        [],
    )
    assert buffer.mark() == (0, 0)
    buffer.append_op(PUT, 1, b"other", b"value")
    assert buffer.op_count == 1


@both
def test_a_batch_is_cut_back_to_a_mark(twin: Any) -> None:
    batch = twin.WriteBatch()
    assert (0, 0) == batch.mark()
    batch.put(1, b"a", b"1")
    mark, payload = batch.mark(), batch.payload()
    batch.delete(1, b"a")
    batch.delete_range(2, b"a", b"b")
    later = batch.mark()
    batch.rollback(mark)
    assert payload == batch.payload()
    assert (1, mark) == (batch.op_count, batch.mark())
    with pytest.raises(ValueError, match="does not lie within the batch"):
        batch.rollback(later)
    for wrong in ((-1, 0), (0, -1)):
        with pytest.raises(ValueError, match="does not lie within the batch"):
            batch.rollback(wrong)
    batch.put(1, b"b", b"2")
    assert [(1, 1, b"a", b"1"), (1, 1, b"b", b"2")] == list(batch.operations())
    batch.rollback((0, 0))
    assert (0, 0, b"") == (batch.op_count, batch.size, batch.payload())
