"""Both twins of `holdfast.sstable._page` read the same entries from a page and reject the same
damage.
"""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base import KEY_BYTES_MAX, PURE, SEQ_MAX, CorruptionError, pack_trailer
from holdfast.bufferpool import Page
from holdfast.codec import encode_varint
from holdfast.cursor import Cursor
from holdfast.sstable import PageType, _page_c, _page_py

# Compiled kernels take compiled pages only, so in plain mode the plain twin is alone.
MODULES = (_page_py,) if PURE else (_page_c, _page_py)
TWINS = [pytest.param(module, id=module.__name__.rpartition("_")[2]) for module in MODULES]
twins = pytest.mark.parametrize("twin", TWINS)

Stored = tuple[bytes, int, bytes]


def encode_entry(shared: int, suffix: bytes, trailer: int, value: bytes) -> bytes:
    lengths = encode_varint(shared) + encode_varint(len(suffix)) + encode_varint(len(value))
    return lengths + trailer.to_bytes(8, "little") + suffix + value


def encode_page(entries: list[Stored], interval: int = 16, share: bool = True) -> bytes:
    """The body of an entry page; without `share` every key is stored whole."""
    area, restarts, last = b"", [], b""
    for index, (key, trailer, value) in enumerate(entries):
        shared = 0
        if index % interval == 0:
            restarts.append(len(area))
        elif share:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        area += encode_entry(shared, key[shared:], trailer, value)
        last = key
    return area + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def in_order(entries: list[Stored]) -> list[Stored]:
    unique = {(key, -trailer): value for key, trailer, value in entries}
    return [(key, -trailer, unique[key, trailer]) for key, trailer in sorted(unique)]


def page_of(entries: list[Stored], interval: int = 16) -> Page:
    return Page(encode_page(entries, interval), PageType.DATA)


def current(cursor: Cursor) -> Stored | None:
    if not cursor.valid:
        return None
    return cursor.key, pack_trailer(cursor.seq, cursor.kind), cursor.value


SAMPLE = in_order(
    [(b"key%03d" % (n // 3), pack_trailer(1000 - n, n % 2), b"v" * (n % 5)) for n in range(100)]
    + [(b"", pack_trailer(SEQ_MAX, 1), b""), (b"key0", 5 << 8, b"x" * 300)]
)


@twins
@pytest.mark.parametrize("interval", [1, 2, 3, 16, 1000])
def test_a_walk_gives_the_entries_in_both_directions(twin: Any, interval: int) -> None:
    page = page_of(SAMPLE, interval)
    assert twin.decode_entries(page, "f", 0) == SAMPLE
    cursor = twin.PageCursor(page, "f", 0)
    assert not cursor.valid
    seen = []
    more = cursor.seek_first()
    while more:
        seen.append(current(cursor))
        more = cursor.next()
    assert seen == SAMPLE
    assert not cursor.valid
    seen = []
    more = cursor.seek_last()
    while more:
        seen.append(current(cursor))
        more = cursor.prev()
    assert seen[::-1] == SAMPLE


@twins
@pytest.mark.parametrize("interval", [1, 3, 16])
def test_seeks_find_every_entry_and_every_gap(twin: Any, interval: int) -> None:
    cursor = twin.PageCursor(page_of(SAMPLE, interval), "f", 0)
    order = [(key, -trailer) for key, trailer, _ in SAMPLE]
    keys = {key for key, _, _ in SAMPLE}
    for key in sorted(
        keys | {key + b"\0" for key in keys} | {key[:-1] for key in keys} | {b"\xff"}
    ):
        for seq in (0, 1, 950, 951, 999, SEQ_MAX):
            expected = [
                e
                for e, at in zip(SAMPLE, order, strict=True)
                if at >= (key, -pack_trailer(seq, 255))
            ]
            assert cursor.seek(key, seq) == bool(expected)
            assert current(cursor) == (expected[0] if expected else None)
        before = [entry for entry in SAMPLE if entry[0] < key]
        assert cursor.seek_before(key) == bool(before)
        assert current(cursor) == (before[-1] if before else None)


@twins
def test_a_cursor_keeps_its_page_alive(twin: Any) -> None:
    cursor = twin.PageCursor(page_of(SAMPLE), "f", 0)
    cursor.seek(b"key010")
    junk = [page_of(SAMPLE) for _ in range(10)]
    assert cursor.key == b"key010"
    assert len(junk) == 10


@twins
def test_an_index_root_may_be_empty_and_other_pages_may_not(twin: Any) -> None:
    cursor = twin.PageCursor(Page(bytes(4), PageType.INDEX_ROOT), "f", 0)
    assert not any(
        [cursor.seek_first(), cursor.seek_last(), cursor.seek(b"a"), cursor.seek_before(b"a")]
    )
    assert twin.decode_entries(Page(bytes(4), PageType.INDEX_ROOT), "f", 0) == []
    with pytest.raises(CorruptionError, match="no entries"):
        twin.PageCursor(Page(bytes(4), PageType.DATA), "f", 0)


def restarts_of(*offsets: int) -> bytes:
    return struct.pack(f"<{len(offsets) + 1}I", *offsets, len(offsets))


PUT_A = encode_entry(0, b"a", 0x101, b"v")
DAMAGED = {
    "an entry page is shorter than its restart count": b"\0\0\0",
    "the restart offsets do not fit the page": PUT_A + struct.pack("<II", 0, 0xFFFFFFFF),
    "a page has entries but no restart offset": PUT_A + restarts_of(),
    "the first entry is not a restart point": PUT_A + restarts_of(1),
    "a length of an entry is not a minimal varint": b"\x80\x00" + PUT_A + restarts_of(0),
    "an entry at a restart point shares bytes with the one before it": PUT_A
    + encode_entry(1, b"b", 0x101, b"")
    + restarts_of(0, len(PUT_A)),
    "an entry shares more bytes than the key before it has": PUT_A
    + encode_entry(2, b"b", 0x101, b"")
    + restarts_of(0),
    "an entry reaches beyond the entries of its page": PUT_A[:-1] + restarts_of(0),
    "a key is longer than keys can be": encode_entry(0, bytes(KEY_BYTES_MAX + 1), 0x101, b"")
    + restarts_of(0),
    "an entry has a kind that does not belong into its page": encode_entry(0, b"a", 0x102, b"")
    + restarts_of(0),
    "the entries are out of order": PUT_A + encode_entry(1, b"", 0x101, b"w") + restarts_of(0),
    "a restart offset is not the start of an entry": PUT_A + restarts_of(0, 3),
}


@twins
@pytest.mark.parametrize("reason", DAMAGED)
def test_damage_is_named_with_file_and_offset(twin: Any, reason: str) -> None:
    for function in (twin.PageCursor, twin.decode_entries):
        with pytest.raises(CorruptionError) as caught:
            function(Page(DAMAGED[reason], PageType.DATA), "some.table", 4096)
        assert (caught.value.file, caught.value.offset, caught.value.reason) == (
            "some.table",
            4096,
            reason,
        )


@twins
@pytest.mark.parametrize("length", [2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 12, 2**64 - 1])
def test_lengths_near_overflow_are_damage(twin: Any, length: int) -> None:
    for lengths in (
        (0, length, 1),
        (0, 1, length),
        (length, 0, 0),
        (0, length, length),
        (0, 2**64 - length, length),
    ):
        body = b"".join(map(encode_varint, lengths)) + PUT_A
        for area in (body, PUT_A + body):
            with pytest.raises(CorruptionError):
                twin.decode_entries(Page(area + restarts_of(0), PageType.DATA), "f", 0)


@twins
def test_kinds_belong_to_page_types(twin: Any) -> None:
    def accepted(page_type: int, trailer: int) -> bool:
        try:
            twin.PageCursor(Page(encode_page([(b"a", trailer, b"")]), page_type), "f", 0)
        except CorruptionError:
            return False
        return True

    data = [accepted(PageType.DATA, kind) for kind in range(5)]
    assert data == [True, True, False, True, False]
    tombstones = [accepted(PageType.RANGE_TOMBSTONES, kind) for kind in range(5)]
    assert tombstones == [False, False, True, False, False]
    assert [accepted(PageType.PROPERTIES, trailer) for trailer in (0, 1, 256)] == [
        True,
        False,
        False,
    ]
    assert all(accepted(PageType.INDEX, kind) for kind in range(4))


@twins
def test_a_long_run_of_long_shared_keys_takes_no_more_memory_than_it_must(twin: Any) -> None:
    """Each entry shares the longest key but its last bytes; a moving cursor keeps one key, not all
    of them.
    """
    base = bytes(KEY_BYTES_MAX - 4)
    entries = [(base + n.to_bytes(4, "big"), 1, b"") for n in range(200)]
    area = encode_entry(0, entries[0][0], 1, b"")
    for key, _, _ in entries[1:]:
        area += encode_entry(len(base), key[-4:], 1, b"")
    cursor = twin.PageCursor(Page(area + restarts_of(0), PageType.DATA), "f", 0)
    assert cursor.seek_last()
    for expected in reversed(entries):
        assert current(cursor) == expected
        cursor.prev()
    assert cursor.seek(base + b"\0\0\0\x07")
    assert current(cursor) == entries[7]
    assert cursor.next()
    assert current(cursor) == entries[8]


@twins
def test_key_sizes_grow_and_shrink(twin: Any) -> None:
    entries = in_order(
        [(bytes([65]) * size, 1, b"v%d" % size) for size in (0, 1, 511, 512, 513, 4000, 65536)]
        + [(b"A" * 600 + b"B" * size, 1, b"") for size in range(1, 9)]
    )
    for interval in (1, 2, 100):
        cursor = twin.PageCursor(page_of(entries, interval), "f", 0)
        for index, entry in enumerate(entries):
            assert cursor.seek(entry[0])
            assert current(cursor) == entry
            assert cursor.prev() == (index > 0)
            if index:
                assert cursor.next()
                assert current(cursor) == entry


@twins
def test_wrong_arguments_are_type_errors(twin: Any) -> None:
    for arguments in ((b"bytes", "f", 0), (None, "f", 0)):
        with pytest.raises(TypeError):
            twin.PageCursor(*arguments)
        with pytest.raises((TypeError, AttributeError)):
            twin.decode_entries(*arguments)


def outcome(function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except CorruptionError as error:
        return error.args


def both_agree(body: bytes, page_type: int) -> None:
    results = [outcome(twin.decode_entries, Page(body, page_type), "f", 7) for twin in MODULES]
    assert results[0] == results[-1]


few = st.sampled_from([b"", b"a", b"ab", b"abc", b"abd", b"b", b"\0", b"\xff"])
keys = st.one_of(few, st.lists(few, max_size=4).map(b"".join), st.binary(max_size=300))
entry_lists = st.lists(
    st.tuples(keys, st.tuples(st.integers(0, 5), st.integers(0, 1)), st.binary(max_size=20)),
    max_size=60,
)
moves = st.one_of(
    st.just(("next",)),
    st.just(("prev",)),
    st.just(("seek_first",)),
    st.just(("seek_last",)),
    st.tuples(st.just("seek"), keys),
    st.tuples(st.just("seek"), keys, st.integers(0, 6)),
    st.tuples(st.just("seek_before"), keys),
)


@settings(deadline=None)
@given(entry_lists.filter(bool), st.integers(1, 20), st.booleans(), st.lists(moves, max_size=40))
def test_twins_stand_at_the_same_entry_after_every_move(
    raw: Any, interval: int, share: bool, steps: Any
) -> None:
    entries = in_order([(key, pack_trailer(*trailer), value) for key, trailer, value in raw])
    body = encode_page(entries, interval, share)
    cursors = [twin.PageCursor(Page(body, PageType.DATA), "f", 0) for twin in MODULES]
    for name, *arguments in steps:
        for cursor in cursors:
            if name in ("next", "prev") and not cursor.valid:
                cursor.seek_first()
            getattr(cursor, name)(*arguments)
        assert current(cursors[0]) == current(cursors[-1])


@settings(deadline=None)
@given(st.binary(max_size=80), st.sampled_from([1, 2, 3, 5, 6]))
def test_twins_agree_on_arbitrary_bytes(body: bytes, page_type: int) -> None:
    both_agree(body, page_type)


@settings(deadline=None, max_examples=300)
@given(entry_lists.filter(bool), st.integers(1, 20), st.data())
def test_twins_agree_on_mutated_pages(raw: Any, interval: int, data: Any) -> None:
    body = bytearray(encode_page(in_order([(k, pack_trailer(*t), v) for k, t, v in raw]), interval))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(
            st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
        )
    both_agree(bytes(body), 1)


def test_twins_agree_on_every_bit_flip_and_cut_of_a_page() -> None:
    body = encode_page(SAMPLE[:40], 4)
    for at in range(len(body)):
        both_agree(body[:at], 1)
        for bit in range(8):
            flipped = bytearray(body)
            flipped[at] ^= 1 << bit
            both_agree(bytes(flipped), 1)


def test_twins_agree_on_a_large_page() -> None:
    choose = random.Random(1)
    entries = in_order(
        [
            (
                b"%x" % choose.randrange(1 << 40),
                choose.randrange(1 << 20) << 8 | 1,
                bytes(choose.randrange(50)),
            )
            for _ in range(20000)
        ]
    )
    page = page_of(entries)
    for module in MODULES:
        assert module.decode_entries(page, "f", 0) == entries
    cursors = [twin.PageCursor(page, "f", 0) for twin in MODULES]
    for _ in range(1000):
        key = b"%x" % choose.randrange(1 << 40)
        for cursor in cursors:
            cursor.seek(key)
        assert current(cursors[0]) == current(cursors[-1])
