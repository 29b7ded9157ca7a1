"""Both twins of the table builder write the same bytes, and those hold what was added."""

from __future__ import annotations

import random
import struct
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base import DELETE, KEY_BYTES_MAX, PUT, RANGE_DELETE, SEQ_MAX, LimitError
from holdfast.codec import Compression
from holdfast.sstable import _builder_c, _builder_py
from holdfast.sstable.format import TableInfo
from tests.format.plain_table import PlainTable, read_table
from tests.twin.test_codec_envelope import Veil

TWINS = [_builder_py, _builder_c]
FILE_ID = bytes(range(16))
both = pytest.mark.parametrize("twin", TWINS, ids=["py", "c"])

Added = tuple[bytes, int, int, bytes]


def make(twin: ModuleType, **changes: Any) -> Any:
    arguments = {
        "page_bytes": 256,
        "restart_interval": 4,
        "filter_bits_per_key": 10,
        "compression": Compression.NONE,
    }
    return twin.TableBuilder(FILE_ID, **(arguments | changes))


def run(
    twin: ModuleType,
    entries: list[Added],
    tombstones: list[tuple[bytes, bytes, int]],
    **changes: Any,
) -> tuple[Any, ...]:
    """Build a table; return its bytes, its info, and all that could be watched on the way."""
    builder = make(twin, **changes)
    watched = []
    pieces = []
    for index, entry in enumerate(entries):
        builder.add(*entry)
        watched.append((builder.output_size, builder.file_bytes, builder.entry_count))
        if index % 7 == 0:
            pieces.append(builder.take_output())
    for tombstone in tombstones:
        builder.add_range_tombstone(*tombstone)
    info = builder.finish(9, 1_700_000_000_000_000)
    assert builder.file_bytes == info.size_bytes
    pieces.append(builder.take_output())
    assert builder.output_size == 0
    return b"".join(pieces), info, watched


def in_order(entries: set[tuple[bytes, int]]) -> list[tuple[bytes, int]]:
    return sorted(entries, key=lambda entry: (entry[0], -entry[1]))


KEYS = st.binary(max_size=6) | st.builds(
    lambda stem, tail: stem + tail,
    st.sampled_from([b"user/00", b"user/01" * 9]),
    st.binary(max_size=4),
)
SEQS = st.integers(min_value=0, max_value=20) | st.integers(min_value=0, max_value=SEQ_MAX)
VALUES = st.binary(max_size=20) | st.builds(
    lambda byte, size: byte * size,
    st.binary(min_size=1, max_size=1),
    st.integers(min_value=0, max_value=700),
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Added], list[tuple[bytes, bytes, int]]]:
    versions = in_order(draw(st.sets(st.tuples(KEYS, SEQS), max_size=60)))
    entries = [
        (key, seq, draw(st.sampled_from([PUT, PUT, DELETE])), draw(VALUES)) for key, seq in versions
    ]
    spans = draw(
        st.lists(
            st.tuples(KEYS, KEYS, SEQS.filter(bool)),
            max_size=6,
            unique_by=lambda span: (min(span[:2]), span[2]),
        )
    )
    tombstones = [(min(a, b), max(a, b), seq) for a, b, seq in spans if a != b]
    return entries, tombstones


@settings(max_examples=300, deadline=None)
@given(
    tables(),
    st.sampled_from([1, 64, 300, 4096]),
    st.sampled_from([1, 2, 16]),
    st.sampled_from([0, 1, 10]),
    st.sampled_from(list(Compression)),
)
def test_twins_write_the_same_table_and_it_holds_what_was_added(
    table: tuple[list[Added], list[tuple[bytes, bytes, int]]],
    page_bytes: int,
    interval: int,
    bits: int,
    compression: Compression,
) -> None:
    entries, tombstones = table
    if not entries and not tombstones:
        for twin in TWINS:
            with pytest.raises(ValueError, match="at least one"):
                make(twin).finish(1, 0)
        return
    changes = {
        "page_bytes": page_bytes,
        "restart_interval": interval,
        "filter_bits_per_key": bits,
        "compression": compression,
    }
    plain, compiled = (run(twin, entries, tombstones, **changes) for twin in TWINS)
    assert plain == compiled
    read = read_table(plain[0])
    check_contents(read, plain[1], entries, tombstones)
    for page in read.data_pages:
        body = sum(len(key) + len(value) + 8 for key, _, value in page)
        assert len(page) == 1 or body <= page_bytes + sum(len(key) for key, _, _ in page)


def check_contents(
    table: PlainTable,
    info: TableInfo,
    entries: list[Added],
    tombstones: list[tuple[bytes, bytes, int]],
) -> None:
    assert table.entries == [(key, seq << 8 | kind, value) for key, seq, kind, value in entries]
    spans = sorted(tombstones, key=lambda span: (span[0], -span[2]))
    assert table.tombstones == [
        (start, seq << 8 | RANGE_DELETE, stop) for start, stop, seq in spans
    ]
    seqs = [seq for _, seq, _, _ in entries] + [seq for _, _, seq in tombstones]
    expected = TableInfo(
        number=9,
        file_id=FILE_ID,
        size_bytes=info.size_bytes,
        lower=min([key for key, *_ in entries] + [start for start, _, _ in tombstones]),
        upper=max([key + b"\x00" for key, *_ in entries] + [stop for _, stop, _ in tombstones]),
        seq_min=min(seqs),
        seq_max=max(seqs),
        entry_count=len(entries),
        delete_count=sum(kind == DELETE for _, _, kind, _ in entries),
        range_tombstone_count=len(tombstones),
        raw_bytes=sum(len(key) + len(value) for key, _, _, value in entries)
        + sum(len(a) + len(b) for a, b, _ in tombstones),
        root_checksum=table.root_checksum,
        created_us=1_700_000_000_000_000,
    )
    assert info == expected
    assert info.problem() is None


@pytest.mark.parametrize("compression", list(Compression))
def test_many_batches_and_partitions_are_equal(compression: Compression) -> None:
    """More than two seal batches and many index partitions; output and estimates are watched after
    every entry.
    """
    entries = [
        (b"sensor/%07d" % index, index + 1, PUT, b"%d" % (index * 7919 % 10_007) * 20)
        for index in range(16_000)
    ]
    plain, compiled = (
        run(twin, entries, [(b"a", b"z", 5)], page_bytes=2048, compression=compression)
        for twin in TWINS
    )
    assert plain == compiled
    table = read_table(plain[0])
    check_contents(table, plain[1], entries, [(b"a", b"z", 5)])
    assert table.partitions > 3
    assert table.page_types == sorted(table.page_types, key=[1, 4, 2, 5, 3, 6].index)


@pytest.mark.parametrize("is_sealed", [False, True])
@pytest.mark.parametrize("compression", list(Compression))
def test_pages_that_do_not_shrink_are_stored_as_they_are_in_the_middle_of_a_batch(
    compression: Compression, is_sealed: bool
) -> None:
    source = random.Random(3)
    entries = [
        (b"%06d" % index, 1, PUT, source.randbytes(500) if index // 9 % 2 else bytes(500))
        for index in range(3_000)
    ]
    plain, compiled = (
        run(twin, entries, [], page_bytes=4096, compression=compression,
            cipher=Veil() if is_sealed else None)
        for twin in TWINS
    )  # fmt: skip
    assert plain == compiled
    if not is_sealed:
        check_contents(read_table(plain[0]), plain[1], entries, [])
        # A page of random values lies there as it is, and one of zeros does not.
        assert entries[13][3] in plain[0]
        assert (bytes(400) in plain[0]) == (compression == Compression.NONE)


def test_views_of_pages_end_with_the_call_of_a_library_that_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its traceback holds them longer than the builder holds what they show."""
    views: list[Any] = []

    class Failing:
        seal_bytes = 5

        def seal_many(self, offsets: Any, pieces: Any, associated: Any, targets: Any) -> None:
            views.extend(pieces + targets)
            raise MemoryError

    def compress_many(pieces: Any) -> list[bytes]:
        views.extend(pieces)
        raise MemoryError

    monkeypatch.setattr(_builder_c, "zstd_compress_many", compress_many)
    for changes in ({"compression": Compression.ZSTD}, {"cipher": Failing()}):
        builder = make(_builder_c, **changes)
        builder.add(b"key", 1, PUT, b"value")
        count = len(views)
        with pytest.raises(MemoryError):
            builder.finish(9, 0)
        assert len(views) > count
    for view in views:
        with pytest.raises(ValueError, match="released"):
            bytes(view)


@both
def test_an_entry_larger_than_a_page_gets_its_own(twin: ModuleType) -> None:
    entries = [
        (b"a", 1, PUT, b"x"),
        (b"b", 1, PUT, bytes(5000)),
        (b"c", 1, PUT, b"y"),
        (b"d", 1, PUT, b"z"),
    ]
    data, _, _ = run(twin, entries, [])
    assert [[key for key, _, _ in page] for page in read_table(data).data_pages] == [
        [b"a"],
        [b"b"],
        [b"c", b"d"],
    ]


@both
def test_a_table_of_nothing_but_range_tombstones_is_legal(twin: ModuleType) -> None:
    data, info, _ = run(twin, [], [(b"b", b"d", 4), (b"a", b"c", 3)])
    table = read_table(data)
    assert (table.entries, table.partitions, len(table.tombstones)) == ([], 0, 2)
    assert (info.lower, info.upper, info.seq_min, info.seq_max, info.entry_count) == (
        b"a",
        b"d",
        3,
        4,
        0,
    )


@both
def test_of_tombstones_with_one_start_and_number_the_longest_stays(twin: ModuleType) -> None:
    data, info, _ = run(twin, [], [(b"a", b"c", 4), (b"a", b"d", 4), (b"a", b"b", 4)])
    assert read_table(data).tombstones == [(b"a", 4 << 8 | RANGE_DELETE, b"d")]
    assert info.range_tombstone_count == 1


@both
@pytest.mark.parametrize(
    "wrong",
    [
        (b"k", 5, PUT, b""),
        (b"k", 6, PUT, b""),
        (b"j", 1, PUT, b""),
        (b"", 1, PUT, b""),
        (b"l", 5, RANGE_DELETE, b""),
        (b"l", 5, 4, b""),
        (b"l", 5, -1, b""),
        (b"l", -1, PUT, b""),
        (b"l", SEQ_MAX + 1, PUT, b""),
        (b"l" * (KEY_BYTES_MAX + 1), 5, PUT, b""),
    ],
)
def test_a_refused_entry_leaves_nothing_behind(twin: ModuleType, wrong: Added) -> None:
    builder = make(twin)
    builder.add(b"k", 5, PUT, b"first")
    before = builder.output_size, builder.file_bytes, builder.entry_count
    with pytest.raises(ValueError):
        builder.add(*wrong)
    assert (builder.output_size, builder.file_bytes, builder.entry_count) == before
    builder.add(b"k", 4, DELETE, b"")
    info = builder.finish(9, 1_700_000_000_000_000)
    expected = run(_builder_py, [(b"k", 5, PUT, b"first"), (b"k", 4, DELETE, b"")], [])
    assert (builder.take_output(), info) == expected[:2]


@both
@pytest.mark.parametrize(
    "wrong",
    [
        (b"b", b"b", 1),
        (b"b", b"a", 1),
        (b"a", b"b", -1),
        (b"a", b"b", 0),
        (b"a", b"b", SEQ_MAX + 1),
        (b"a", b"b" * (KEY_BYTES_MAX + 1), 1),
    ],
)
def test_a_refused_tombstone_leaves_nothing_behind(
    twin: ModuleType, wrong: tuple[bytes, bytes, int]
) -> None:
    builder = make(twin)
    with pytest.raises(ValueError):
        builder.add_range_tombstone(*wrong)
    with pytest.raises(ValueError, match="at least one"):
        builder.finish(1, 0)


@both
def test_limits_are_told_from_disorder(twin: ModuleType) -> None:
    with pytest.raises(LimitError):
        make(twin).add(b"k" * (KEY_BYTES_MAX + 1), 5, PUT, b"")
    with pytest.raises(LimitError):
        make(twin).add(b"k", SEQ_MAX + 1, PUT, b"")


@both
@pytest.mark.parametrize("seq", [-1, SEQ_MAX + 1, 1 << 64])
def test_a_size_out_of_range_is_told_before_a_number(twin: ModuleType, seq: int) -> None:
    with pytest.raises(LimitError, match="the key has 65537 bytes; the limit is 65536"):
        make(twin).add(b"k" * (KEY_BYTES_MAX + 1), seq, PUT, b"")
    with pytest.raises(LimitError, match=f"the sequence number {seq} does not have 56 bits"):
        make(twin).add(b"k", seq, PUT, b"")


class FailingVeil(Veil):
    """Has no memory for one seal."""

    def __init__(self, failing: int) -> None:
        self._left = failing

    def seal(self, offset: int, data: bytes | memoryview, associated: bytes) -> bytes:
        self._left -= 1
        if self._left == 0:
            raise MemoryError
        return super().seal(offset, data, associated)


@both
@pytest.mark.parametrize("failing", range(1, 12))
def test_a_builder_that_failed_while_it_sealed_refuses_every_call(
    twin: ModuleType, failing: int
) -> None:
    """Going on, it would seal the pages of the batch twice."""
    builder = make(twin, page_bytes=200_000, cipher=FailingVeil(failing))

    def build() -> None:
        for number in range(7):
            builder.add(b"%03d" % number, 1, PUT, bytes(150_000))
        builder.finish(9, 0)

    with pytest.raises(MemoryError):
        build()
    # A batch of four pages, one of three, the filter, the index page, the root and the properties.
    assert (4 if failing <= 4 else 7) == builder.entry_count
    for call in (
        lambda: builder.add(b"9", 1, PUT, b""),
        lambda: builder.add_range_tombstone(b"a", b"b", 1),
        lambda: builder.finish(9, 0),
        builder.take_output,
    ):
        with pytest.raises(ValueError, match="the builder failed before, or another thread"):
            call()


@both
def test_the_longest_key_and_empty_key_are_kept(twin: ModuleType) -> None:
    entries = [
        (b"", 7, PUT, b""),
        (b"\xff" * KEY_BYTES_MAX, SEQ_MAX, DELETE, b""),
        (b"\xff" * KEY_BYTES_MAX, 0, PUT, b"v"),
    ]
    data, info, _ = run(twin, entries, [])
    check_contents(read_table(data), info, entries, [])


@both
def test_a_finished_builder_refuses_everything_but_its_last_output(twin: ModuleType) -> None:
    builder = make(twin)
    builder.add(b"k", 5, PUT, b"")
    builder.finish(1, 0)
    for call in (
        lambda: builder.add(b"l", 5, PUT, b""),
        lambda: builder.add_range_tombstone(b"a", b"b", 1),
        lambda: builder.finish(1, 0),
    ):
        with pytest.raises(ValueError, match="finished"):
            call()
    read_table(bytes(builder.take_output()))
    assert builder.take_output() == b""


@both
def test_output_that_was_taken_stays_as_it_is_while_the_builder_goes_on(twin: ModuleType) -> None:
    """Its memory is filled again once nobody looks at it any more, and not before."""
    entries = [(b"%06d" % number, 5, PUT, b"%0190d" % number) for number in range(20_000)]
    builder = make(twin)
    kept, copies, passed = [], [], []
    for entry in entries:
        builder.add(*entry)
        if builder.output_size > 0:
            view = builder.take_output()
            assert view.readonly
            passed.append(bytes(view))
            if len(passed) % 2 == 0:
                kept.append(view[1:])
                copies.append(passed[-1][1:])
            del view
    builder.finish(9, 1_700_000_000_000_000)
    kept.append(builder.take_output())
    copies.append(bytes(kept[-1]))
    passed.append(copies[-1])
    del builder
    assert len(passed) > 6
    assert [bytes(view) for view in kept] == copies
    assert b"".join(passed) == run(_builder_py, entries, [])[0]


@both
@pytest.mark.parametrize(
    "changes",
    [
        {"page_bytes": 0},
        {"page_bytes": 1 << 31},
        {"restart_interval": 0},
        {"restart_interval": 1 << 31},
        {"filter_bits_per_key": 65},
        {"filter_bits_per_key": -1},
    ],
)
def test_settings_out_of_range_are_refused(twin: ModuleType, changes: dict[str, int]) -> None:
    with pytest.raises(LimitError):
        make(twin, **changes)


@both
def test_a_file_id_has_16_bytes_and_a_compression_a_name(twin: ModuleType) -> None:
    with pytest.raises(ValueError):
        make(twin, compression=7)
    with pytest.raises(ValueError, match="16 bytes"):
        twin.TableBuilder(
            b"short",
            page_bytes=1,
            restart_interval=1,
            filter_bits_per_key=0,
            compression=Compression.NONE,
        )


def test_more_range_tombstones_than_a_page_holds_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The plain twin only: the page that is full has two gibibytes."""
    builder = make(_builder_py)
    monkeypatch.setattr(_builder_py, "PAGE_BYTES_MAX", 1000)
    with pytest.raises(LimitError, match="do not fit one page"):
        for number in range(100):
            builder.add_range_tombstone(b"%03d" % number, b"%03d" % (number + 1), 5)
    assert 0 < number < 99
    builder.finish(9, 1)
    assert builder.entry_count == 0


@given(
    keys=st.sets(st.binary(max_size=6), min_size=1, max_size=120),
    count=st.integers(1, 5),
    page_bytes=st.sampled_from([1, 64, 256]),
)
def test_filters_hold_the_prefixes_of_their_partitions(
    keys: set[bytes], count: int, page_bytes: int
) -> None:
    entries = [(key, 1, PUT, b"v" * 9) for key in sorted(keys)]
    built = [run(twin, entries, [], prefix_bytes=count, page_bytes=page_bytes)[0] for twin in TWINS]
    assert built[0] == built[1]
    # The plain reader asks each filter for every prefix.
    assert read_table(built[0]).properties[b"prefix_bytes"] == struct.pack("<Q", count)


@both
def test_prefixes_need_filters_and_have_a_limit(twin: ModuleType) -> None:
    without = run(twin, [(b"key", 1, PUT, b"")], [], prefix_bytes=2, filter_bits_per_key=0)[0]
    assert b"prefix_bytes" not in read_table(without).properties
    assert b"prefix_bytes" not in read_table(run(twin, [(b"key", 1, PUT, b"")], [])[0]).properties
    for wrong in (-1, KEY_BYTES_MAX + 1):
        with pytest.raises(LimitError):
            make(twin, prefix_bytes=wrong)
