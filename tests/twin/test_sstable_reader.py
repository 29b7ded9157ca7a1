"""Both twins of `holdfast.sstable._reader` give the entries that were added, or an error that names
the damage.
"""

from __future__ import annotations

import os
import random
import struct
import threading
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base import (
    DELETE,
    PURE,
    PUT,
    SEQ_MAX,
    CorruptionError,
    DatabaseClosedError,
    FormatError,
    pack_trailer,
)
from holdfast.bufferpool import PAGE_OVERHEAD_BYTES, BufferPool, Page
from holdfast.codec import Compression, page_seed, seal_page
from holdfast.env import PosixEnv
from holdfast.sstable import (
    FOOTER_BYTES,
    Footer,
    Handle,
    PageType,
    TableInfo,
    _builder_c,
    _builder_py,
    _reader_c,
    _reader_py,
    decode_entries,
)
from holdfast.sstable.format import decode_index_value, decode_root_value

# Compiled kernels take compiled pages only, so in plain mode the plain twin is alone.
MODULES = (_reader_py,) if PURE else (_reader_c, _reader_py)
TWINS = [pytest.param(module, id=module.__name__.rpartition("_")[2]) for module in MODULES]
BUILDERS = [pytest.param(_builder_c, id="built-c"), pytest.param(_builder_py, id="built-py")]
twins = pytest.mark.parametrize("twin", TWINS)
builders = pytest.mark.parametrize("builder", BUILDERS)

FILE_ID = bytes(range(16))
NUMBER = 9
Entry = tuple[bytes, int, int, bytes]
Span = tuple[bytes, bytes, int]


class MemoryFile:
    """A file without a descriptor."""

    def __init__(self, data: bytes, name: str = "00000009.table") -> None:
        self.data = data
        self.name = name
        self.closed = False
        self.failure: OSError | None = None

    def read_at(self, offset: int, count: int) -> bytes:
        if self.failure is not None:
            raise self.failure
        return self.data[offset : offset + count]

    def size(self) -> int:
        return len(self.data)

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        self.closed = True


def build(
    entries: list[Entry],
    tombstones: list[Span] = [],
    builder: ModuleType = _builder_c,
    **changes: Any,
) -> tuple[bytes, TableInfo]:
    arguments = {
        "page_bytes": 256,
        "restart_interval": 4,
        "filter_bits_per_key": 10,
        "compression": Compression.NONE,
    }
    file_id, number = changes.pop("file_id", FILE_ID), changes.pop("number", NUMBER)
    table = builder.TableBuilder(file_id, **(arguments | changes))
    for entry in entries:
        table.add(*entry)
    for tombstone in tombstones:
        table.add_range_tombstone(*tombstone)
    info = table.finish(number, 1_700_000_000_000_000)
    return bytes(table.take_output()), info


def reader_of(
    twin: ModuleType, data: bytes, info: TableInfo | None = None, pool: Any = None
) -> Any:
    return twin.TableReader(MemoryFile(data), NUMBER, FILE_ID, pool or BufferPool(1 << 20), info)


def sample(count: int, versions: int = 3) -> list[Entry]:
    """Entries in internal order, some keys with several versions that cross pages."""
    choose = random.Random(count)
    entries = []
    for index in range(count):
        key = b"key%06d" % (index * 7)
        many = versions * 20 if index % 50 == 3 else choose.randrange(1, versions + 1)
        for seq in sorted(choose.sample(range(1, 1000), many), reverse=True):
            kind = DELETE if choose.random() < 0.2 else PUT
            entries.append((key, seq, kind, b"" if kind == DELETE else b"%d" % seq * 3))
    return entries


SPANS = [(b"a", b"key000050", 7), (b"key000030", b"z", 2000)]
SAMPLE = sample(300)
DATA, INFO = build(SAMPLE, SPANS, page_bytes=64)


def lookup(entries: list[Entry], key: bytes, snapshot: int) -> tuple[int, int, bytes] | None:
    return next((e[1:] for e in entries if e[0] == key and e[1] <= snapshot), None)


def current(cursor: Any) -> Entry | None:
    return (cursor.key, cursor.seq, cursor.kind, cursor.value) if cursor.valid else None


def walk(cursor: Any) -> list[Entry]:
    seen = []
    more = cursor.seek_first()
    while more:
        seen.append(current(cursor))
        more = cursor.next()
    return seen


def walk_back(cursor: Any) -> list[Entry]:
    seen = []
    more = cursor.seek_last()
    while more:
        seen.append(current(cursor))
        more = cursor.prev()
    return seen


@twins
@builders
@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("bits", [0, 10])
@pytest.mark.parametrize("on_disk", [False, True])
def test_a_table_gives_back_what_was_added(
    twin: Any, builder: Any, compression: Any, bits: int, on_disk: bool, tmp_path: Any
) -> None:
    data, info = build(
        SAMPLE, SPANS, builder, compression=compression, filter_bits_per_key=bits, page_bytes=64
    )
    file: Any = MemoryFile(data)
    if on_disk:
        (tmp_path / "t").write_bytes(data)
        file = PosixEnv().open(str(tmp_path / "t"))
    reader = twin.TableReader(file, NUMBER, FILE_ID, BufferPool(20_000), info)
    assert (reader.info, reader.number, reader.name) == (info, NUMBER, file.name)
    assert reader.range_tombstones.tombstones() == sorted(SPANS)
    assert reader.properties[b"compression"] == int(compression).to_bytes(8, "little")
    assert walk(reader.cursor()) == SAMPLE
    assert walk_back(reader.cursor(fill_cache=False)) == SAMPLE[::-1]
    for key in {key for key, _, _, _ in SAMPLE[::9]} | {b"", b"a", b"key000001", b"zz"}:
        for snapshot in (0, 1, 400, SEQ_MAX):
            assert reader.get(key, snapshot) == lookup(SAMPLE, key, snapshot)
    assert all(reader.may_contain(key) for key, _, _, _ in SAMPLE)
    denied = sum(not reader.may_contain(b"key%06dx" % n) for n in range(200))
    assert denied > 150 if bits else denied <= 200
    assert list(reader.verify()) == []
    reader.close()


@twins
def test_every_version_is_found_and_no_other(twin: Any) -> None:
    reader = reader_of(twin, DATA, INFO)
    for key, seq, kind, value in SAMPLE:
        assert reader.get(key, seq) == (seq, kind, value)
        assert reader.get(key, seq - 1) == lookup(SAMPLE, key, seq - 1)
        assert reader.get(key + b"\0", SEQ_MAX) is None
        assert reader.get(key[:-1], SEQ_MAX) is None


@twins
def test_a_table_may_hold_only_range_tombstones(twin: Any) -> None:
    data, info = build([], SPANS)
    reader = reader_of(twin, data, info)
    assert len(reader.range_tombstones) == 2
    assert (reader.get(b"key", SEQ_MAX), reader.may_contain(b"key")) == (None, False)
    cursor = reader.cursor()
    assert not any(
        [cursor.seek_first(), cursor.seek_last(), cursor.seek(b"a"), cursor.seek_before(b"a")]
    )
    assert list(reader.verify()) == []


@twins
def test_cached_pages_are_not_read_again(twin: Any) -> None:
    pool = BufferPool(1 << 20)
    reader = reader_of(twin, DATA, INFO, pool)
    assert (pool.page_count, pool.pinned_bytes > 0) == (1, True)
    first = reader.get(SAMPLE[500][0], SEQ_MAX)
    counts = pool.misses, pool.page_count
    assert counts == (3, 4)
    assert reader.get(SAMPLE[500][0], SEQ_MAX) == first
    assert (pool.misses, pool.page_count) == counts
    assert walk(reader.cursor(fill_cache=False)) == SAMPLE
    assert pool.page_count == 4
    walk(reader.cursor())
    assert pool.page_count > 100
    reader.close()
    assert (pool.page_count, pool.used_bytes) == (0, 0)


@twins
def test_filters_are_pinned_up_to_half_the_pool(twin: Any) -> None:
    pool = BufferPool(2 * (2000 + PAGE_OVERHEAD_BYTES))
    reader = reader_of(twin, DATA, INFO, pool)
    root = pool.pinned_bytes
    for key, _, _, _ in SAMPLE:
        reader.may_contain(key)
    assert root <= pool.pinned_bytes <= max(root, pool.capacity_bytes // 2)
    large = BufferPool(1 << 20)
    reader = reader_of(twin, DATA, INFO, large)
    reader.may_contain(SAMPLE[0][0])
    assert large.pinned_bytes > root


@twins
def test_a_tiny_pool_gives_the_same_answers(twin: Any) -> None:
    reader = reader_of(twin, DATA, INFO, BufferPool(0))
    assert walk(reader.cursor()) == SAMPLE
    assert reader.get(SAMPLE[77][0], SEQ_MAX) == lookup(SAMPLE, SAMPLE[77][0], SEQ_MAX)


@twins
def test_a_closed_reader_says_so(twin: Any) -> None:
    file = MemoryFile(DATA)
    reader = twin.TableReader(file, NUMBER, FILE_ID, BufferPool(1 << 20), INFO)
    cursor = reader.cursor()
    reader.close()
    reader.close()
    assert file.closed
    handle = reader.footer.root
    calls = [
        lambda: reader.get(b"a", 1),
        lambda: reader.may_contain(b"zz"),
        reader.cursor,
        reader.verify,
        cursor.seek_first,
        lambda: reader.read_page(handle, PageType.INDEX_ROOT),
    ]
    for call in calls:
        with pytest.raises(DatabaseClosedError, match="the table is closed"):
            call()


@twins
def test_a_close_while_a_page_is_read_closes_the_file_afterwards(twin: Any) -> None:
    """A descriptor that is free may become that of another file."""
    file = MemoryFile(DATA)
    reader = twin.TableReader(file, NUMBER, FILE_ID, BufferPool(0), INFO)
    read_at = file.read_at

    def read_while_closed(offset: int, count: int) -> bytes:
        reader.close()
        assert not file.closed
        return read_at(offset, count)

    file.read_at = read_while_closed  # type: ignore[method-assign]
    page = reader.read_page(reader.footer.root, PageType.INDEX_ROOT)
    assert page.page_type == PageType.INDEX_ROOT
    assert file.closed


@twins
def test_wrong_arguments_are_refused(twin: Any) -> None:
    reader = reader_of(twin, DATA)
    for call in (
        lambda: reader.get("a", 1),
        lambda: reader.may_contain("a"),
        lambda: reader.get(b"", ""),
    ):
        with pytest.raises(TypeError):
            call()
    for snapshot in (-1, SEQ_MAX + 1):
        with pytest.raises(ValueError, match="56 bits"):
            reader.get(b"a", snapshot)


@twins
def test_threads_share_a_reader_whose_pages_are_evicted(twin: Any, tmp_path: Any) -> None:
    (tmp_path / "t").write_bytes(DATA)
    file = PosixEnv().open(str(tmp_path / "t"))
    reader = twin.TableReader(file, NUMBER, FILE_ID, BufferPool(6000), INFO)
    newest: dict[bytes, Any] = {}
    for entry in SAMPLE:
        newest.setdefault(entry[0], entry[1:])
    wrong = []

    def read(seed: int) -> None:
        choose = random.Random(seed)
        for key in choose.choices(list(newest), k=300):
            if reader.get(key, SEQ_MAX) != newest[key]:
                wrong.append(key)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    reader.close()


@twins
def test_errors_of_the_system_are_passed_on(twin: Any, tmp_path: Any) -> None:
    file = MemoryFile(DATA)
    reader = twin.TableReader(file, NUMBER, FILE_ID, BufferPool(1 << 20), INFO)
    file.failure = OSError(5, "Input/output error")
    cursor = reader.cursor()
    for call in (lambda: reader.get(SAMPLE[0][0], SEQ_MAX), cursor.seek_first, cursor.seek_last):
        with pytest.raises(OSError, match="Input/output error"):
            call()
    file.failure = None
    assert reader.get(SAMPLE[0][0], SEQ_MAX) is not None
    (tmp_path / "t").write_bytes(DATA)
    real = PosixEnv().open(str(tmp_path / "t"))
    reader = twin.TableReader(real, NUMBER, FILE_ID, BufferPool(1 << 20), INFO)
    os.truncate(tmp_path / "t", 100)
    with pytest.raises(CorruptionError, match="the file ends within the page"):
        reader.get(SAMPLE[-1][0], SEQ_MAX)
    with (tmp_path / "t").open("ab") as unreadable:  # the number stays the file's to close
        os.dup2(unreadable.fileno(), real.fileno())
    with pytest.raises(OSError, match="Bad file descriptor"):
        reader.get(SAMPLE[-1][0], SEQ_MAX)


def outcome(function: Any, *arguments: Any) -> Any:
    """What a call answers, or what it raises."""
    try:
        return function(*arguments)
    except (CorruptionError, FormatError, OSError, ValueError) as error:
        return type(error), error.args


PROBES = [SAMPLE[n][0] for n in range(0, len(SAMPLE), 97)] + [b"", b"key000001", b"zz"]


def examine(
    twin: ModuleType, data: bytes, info: TableInfo | None, probes: list[bytes]
) -> dict[str, Any]:
    """Everything that can be asked of a table, each with a pool of its own."""
    reader = outcome(reader_of, twin, data, info)
    if isinstance(reader, tuple):
        return {"open": reader}
    answers: dict[str, Any] = {
        "tombstones": reader.range_tombstones.tombstones(),
        "info": reader.info,
    }
    answers["walk"] = outcome(walk, reader.cursor(fill_cache=False))
    answers["back"] = outcome(walk_back, reader.cursor(fill_cache=False))
    for key in probes:
        answers[f"get {key!r}"] = outcome(reader.get, key, 500)
        answers[f"may {key!r}"] = outcome(reader.may_contain, key)
        cursor = reader.cursor()
        answers[f"seek {key!r}"] = outcome(lambda: cursor.seek(key, 300) and current(cursor))
        cursor = reader.cursor()
        answers[f"before {key!r}"] = outcome(lambda: cursor.seek_before(key) and current(cursor))
    answers["verify"] = [error.args for error in reader.verify()]
    return answers


def is_error(answer: Any) -> bool:
    return isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[0], type)


def right_or_an_error(
    data: bytes, info: TableInfo | None, right: dict[str, Any], probes: list[bytes]
) -> bool:
    """Both twins agree, and each answer is right or names damage. Return if anything failed."""
    found = [examine(twin, data, info, probes) for twin in MODULES]
    assert found[0] == found[-1]
    failed = False
    for question, answer in found[0].items():
        if question == "verify":
            failed |= bool(answer)
        elif is_error(answer):
            assert answer[0] in (CorruptionError, FormatError)
            failed = True
        else:
            assert answer == right[question]
    return failed


SMALL = SAMPLE[:40]
SMALL_SPANS = [(b"a", b"b", 5)]
SMALL_DATA, SMALL_INFO = build(SMALL, SMALL_SPANS)
SMALL_PROBES = [SMALL[0][0], SMALL[25][0], b"zz"]
SMALL_RIGHT = examine(MODULES[0], SMALL_DATA, SMALL_INFO, SMALL_PROBES)


@pytest.mark.parametrize("with_info", [False, True])
def test_every_damaged_bit_gives_the_right_answer_or_an_error(with_info: bool) -> None:
    """Every bit of every byte, but in data pages one bit of each byte."""
    info = SMALL_INFO if with_info else None
    first_filter = min(
        decode_root_value(value, len(SMALL_DATA))[1].offset for value in root_values(SMALL_DATA)
    )
    for at in range(len(SMALL_DATA)):
        for bit in range(8) if at >= first_filter else [at % 8]:
            data = bytearray(SMALL_DATA)
            data[at] ^= 1 << bit
            assert right_or_an_error(bytes(data), info, SMALL_RIGHT, SMALL_PROBES)


@twins
@pytest.mark.parametrize("with_info", [False, True])
def test_a_file_of_another_length_is_refused(twin: Any, with_info: bool) -> None:
    info = SMALL_INFO if with_info else None
    for data in [SMALL_DATA[:size] for size in range(len(SMALL_DATA))] + [
        SMALL_DATA + bytes(1),
        SMALL_DATA + bytes(128),
        SMALL_DATA + SMALL_DATA[-128:],
        b"\0" + SMALL_DATA,
    ]:
        with pytest.raises((CorruptionError, FormatError)):
            reader_of(twin, data, info)


@twins
def test_another_file_in_its_place_is_refused(twin: Any) -> None:
    other, _ = build(SMALL, SMALL_SPANS, file_id=bytes(16))
    assert len(other) == len(SMALL_DATA)
    with pytest.raises(FormatError, match="not a Holdfast table"):
        reader_of(twin, b"words " * 100)
    for data in (bytes(len(SMALL_DATA)), bytes(4096), SMALL_DATA[:-128] + b"X" + SMALL_DATA[-127:]):
        with pytest.raises(CorruptionError, match="magic of the footer is damaged"):
            reader_of(twin, data)
    with pytest.raises(CorruptionError, match="belongs to another file"):
        reader_of(twin, other)
    with pytest.raises(CorruptionError, match="belongs to another file"):
        twin.TableReader(MemoryFile(SMALL_DATA), NUMBER + 1, FILE_ID, BufferPool(1 << 20))
    older, _ = build(SMALL[:-1] + [(*SMALL[-1][:3], bytes(len(SMALL[-1][3])))], SMALL_SPANS)
    assert len(older) == len(SMALL_DATA)
    with pytest.raises(CorruptionError, match="another index root"):
        reader_of(twin, older, SMALL_INFO)


@twins
def test_a_failed_open_leaves_nothing_in_the_pool(twin: Any) -> None:
    at = Footer.decode(SMALL_DATA[-FOOTER_BYTES:], "", len(SMALL_DATA)).properties.offset
    data = bytearray(SMALL_DATA)
    data[at] ^= 1
    pool = BufferPool(1 << 20)
    with pytest.raises(CorruptionError):
        reader_of(twin, bytes(data), None, pool)
    assert pool.page_count == 0


@twins
def test_what_the_manifest_says_is_compared(twin: Any) -> None:
    from dataclasses import replace

    for wrong in (
        replace(INFO, size_bytes=INFO.size_bytes + 1),
        replace(INFO, root_checksum=INFO.root_checksum ^ 1),
        replace(INFO, entry_count=INFO.entry_count - 1),
        replace(INFO, upper=INFO.upper + b"x"),
    ):
        with pytest.raises(CorruptionError):
            reader_of(twin, DATA, wrong)


# Surgery: change the body of a page, seal it again, and mend every checksum on the way up to the
# footer.


def footer_of(data: bytes) -> Footer:
    return Footer.decode(data[-FOOTER_BYTES:], "", len(data))


def body_of(data: bytes, handle: Handle) -> bytes:
    return data[handle.offset : handle.offset + handle.size - 16]


def entries_of(data: bytes, handle: Handle, page_type: PageType) -> list[tuple[bytes, int, bytes]]:
    return decode_entries(Page(body_of(data, handle), page_type), "", 0)


def root_values(data: bytes) -> list[bytes]:
    return [value for _, _, value in entries_of(data, footer_of(data).root, PageType.INDEX_ROOT)]


def chain_to(data: bytes, page: Handle) -> list[tuple[Handle, PageType]]:
    """The page and those above it, up to the one that the footer names."""
    footer = footer_of(data)
    limit = len(data) - FOOTER_BYTES
    for handle, kind in ((footer.root, 3), (footer.tombstones, 5), (footer.properties, 6)):
        if handle == page:
            return [(page, PageType(kind))]
    root = (footer.root, PageType.INDEX_ROOT)
    for value in root_values(data):
        index, filter_handle = decode_root_value(value, limit)
        if page in (index, filter_handle):
            return [(page, PageType.INDEX if page == index else PageType.FILTER), root]
        for _, _, inner in entries_of(data, index, PageType.INDEX):
            if decode_index_value(inner, limit) == page:
                return [(page, PageType.DATA), (index, PageType.INDEX), root]
    raise LookupError(page)


def operate(data: bytes, page: Handle, body: bytes, page_type: int | None = None) -> bytes:
    """Return the table with another body of equal length in a page, and sound checksums."""
    table = bytearray(data)
    change: tuple[bytes, bytes] | None = None
    for handle, kind in chain_to(data, page):
        start, end = handle.offset, handle.offset + handle.size
        if change is None:
            assert len(body) == handle.size - 16
        else:
            body = bytes(table[start : end - 16]).replace(*change)
        kind = page_type if change is None and page_type is not None else kind
        stored = seal_page(body, kind, Compression.NONE, page_seed(FILE_ID, handle.offset))
        change = bytes(table[end - 8 : end]), stored[-8:]
        table[start:end] = stored
    footer = bytes(table[-FOOTER_BYTES:-8]).replace(*change)
    from holdfast.codec import checksum

    table[-FOOTER_BYTES:] = footer + checksum(footer).to_bytes(8, "little")
    return bytes(table)


def pages_of(data: bytes) -> list[Handle]:
    footer = footer_of(data)
    limit = len(data) - FOOTER_BYTES
    found = [footer.root, footer.properties] + ([footer.tombstones] if footer.tombstones else [])
    for value in root_values(data):
        index, filter_handle = decode_root_value(value, limit)
        found += [index] + ([filter_handle] if filter_handle else [])
        for _, _, inner in entries_of(data, index, PageType.INDEX):
            found.append(decode_index_value(inner, limit))
    return sorted(found, key=lambda handle: handle.offset)


PAGES = pages_of(SMALL_DATA)


def test_surgery_without_a_change_changes_nothing() -> None:
    for page in PAGES:
        assert operate(SMALL_DATA, page, body_of(SMALL_DATA, page)) == SMALL_DATA


@settings(max_examples=400)
@given(st.data())
def test_twins_agree_on_hostile_pages_with_sound_checksums(data: Any) -> None:
    page = data.draw(st.sampled_from(PAGES))
    body = bytearray(body_of(SMALL_DATA, page))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(
            st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
        )
    hostile = operate(SMALL_DATA, page, bytes(body))
    info = data.draw(st.sampled_from([None, SMALL_INFO]))
    found = [examine(twin, hostile, info, SMALL_PROBES) for twin in MODULES]
    assert found[0] == found[-1]


def test_twins_agree_on_every_hostile_byte_of_the_index() -> None:
    """Offsets, sizes and separators with every byte changed in turn, under sound checksums."""
    for page in PAGES:
        if chain_to(SMALL_DATA, page)[0][1] in (PageType.DATA, PageType.FILTER):
            continue
        for at in range(page.size - 16):
            body = bytearray(body_of(SMALL_DATA, page))
            body[at] ^= 0xFF if at % 2 else 0x01
            hostile = operate(SMALL_DATA, page, bytes(body))
            found = [examine(twin, hostile, None, SMALL_PROBES[:1]) for twin in MODULES]
            assert found[0] == found[-1]


@twins
def test_a_page_of_another_type_is_refused(twin: Any) -> None:
    for page in PAGES:
        kind = chain_to(SMALL_DATA, page)[0][1]
        other = PageType.DATA if kind != PageType.DATA else PageType.FILTER
        data = operate(SMALL_DATA, page, body_of(SMALL_DATA, page), other)
        answers = examine(twin, data, None, [key for key, _, _, _ in SMALL])
        errors = [args for answer in answers.values() if is_error(answer) for args in [answer[1]]]
        reason = f"the page has the type {int(other)}; its place wants {int(kind)}"
        assert ("00000009.table", page.offset, reason) in errors


@twins
def test_a_page_of_the_pool_must_have_the_type_of_its_place(twin: Any) -> None:
    pool = BufferPool(1 << 20)
    reader = reader_of(twin, SMALL_DATA, None, pool)
    data_page = PAGES[0]
    pool.put(NUMBER, data_page.offset, Page(b"junk", PageType.FILTER))
    with pytest.raises(CorruptionError, match="its place wants 1"):
        reader.get(SMALL[0][0], SEQ_MAX)
    pool.put(NUMBER, data_page.offset, Page(b"junk", PageType.DATA))
    with pytest.raises(CorruptionError, match="restart offset"):
        reader.get(SMALL[0][0], SEQ_MAX)


@twins
def test_a_stale_page_is_told_by_its_handle(twin: Any) -> None:
    """A page that is sound by itself, at its own offset, but from another state of the file."""
    page = PAGES[0]
    body = body_of(SMALL_DATA, page).replace(
        SMALL[0][3] or b"\0", b"?" * max(1, len(SMALL[0][3])), 1
    )
    stored = seal_page(body, PageType.DATA, Compression.NONE, page_seed(FILE_ID, page.offset))
    data = SMALL_DATA[: page.offset] + stored + SMALL_DATA[page.offset + page.size :]
    reader = reader_of(twin, data)
    with pytest.raises(CorruptionError, match="not the one that its handle names") as caught:
        reader.get(SMALL[0][0], SEQ_MAX)
    assert caught.value.offset == page.offset


@twins
def test_a_cursor_dies_of_damage_and_the_reader_lives(twin: Any) -> None:
    data = bytearray(SMALL_DATA)
    data[PAGES[3].offset + 5] ^= 1
    reader = reader_of(twin, bytes(data))
    cursor = reader.cursor()
    with pytest.raises(CorruptionError) as first:
        walk(cursor)
    assert first.value.offset == PAGES[3].offset
    with pytest.raises(CorruptionError) as second:
        cursor.seek_first()
    assert second.value is first.value
    assert reader.get(SMALL[0][0], SEQ_MAX) == lookup(SMALL, SMALL[0][0], SEQ_MAX)


def damages(twin: Any, data: bytes) -> list[tuple[int, str]]:
    return [(error.offset, error.reason) for error in reader_of(twin, data).verify()]


@twins
def test_verify_finds_every_damaged_page_and_goes_on(twin: Any) -> None:
    data = bytearray(DATA)
    pages = [page for page in pages_of(DATA) if chain_to(DATA, page)[0][1] == PageType.DATA]
    hit = pages[1::5]
    for page in hit:
        data[page.offset + page.size // 2] ^= 0x10
    found = damages(twin, bytes(data))
    assert found == [(page.offset, "the page's checksum does not match") for page in hit]


@twins
def test_verify_reads_the_disk_and_not_the_pool(twin: Any) -> None:
    file = MemoryFile(SMALL_DATA)
    reader = twin.TableReader(file, NUMBER, FILE_ID, BufferPool(1 << 20), SMALL_INFO)
    walk(reader.cursor())
    for page in PAGES:
        data = bytearray(SMALL_DATA)
        data[page.offset + 1] ^= 1
        file.data = bytes(data)
        assert [error.offset for error in reader.verify()] == [page.offset]
    file.data = SMALL_DATA[:-1] + b"\0"
    assert [error.reason for error in reader.verify()] == [
        "the checksum of the footer does not match"
    ]
    file.data = SMALL_DATA[:-128] + b"X" + SMALL_DATA[-127:]
    assert "magic of the footer is damaged" in next(iter(reader.verify())).reason


@twins
def test_verify_tells_its_progress(twin: Any) -> None:
    sizes: list[int] = []
    assert list(reader_of(twin, SMALL_DATA).verify(sizes.append)) == []
    assert sum(sizes) == len(SMALL_DATA) - FOOTER_BYTES
    assert len(sizes) == len(PAGES)


@twins
def test_verify_finds_a_filter_that_denies_a_key(twin: Any) -> None:
    page = next(p for p in PAGES if chain_to(SMALL_DATA, p)[0][1] == PageType.FILTER)
    body = body_of(SMALL_DATA, page)
    found = damages(twin, operate(SMALL_DATA, page, body[:8] + bytes(len(body) - 8)))
    assert found
    assert {reason for _, reason in found} == {"the filter denies a key of a data page"}


@twins
def test_verify_finds_pages_outside_their_separators(twin: Any) -> None:
    """The value of a key byte in the second page is lowered below the first page's entries."""
    page = PAGES[1]
    body = body_of(SMALL_DATA, page)
    first = entries_of(SMALL_DATA, page, PageType.DATA)[0][0]
    at = body.index(first)
    found = damages(twin, operate(SMALL_DATA, page, body[:at] + b"\0" + body[at + 1 :]))
    reasons = [reason for offset, reason in found if offset == page.offset]
    assert "a data page does not lie between its separators" in reasons


@twins
def test_verify_compares_counts_with_the_properties(twin: Any) -> None:
    page = footer_of(SMALL_DATA).properties
    count = struct.pack("<Q", SMALL_INFO.raw_bytes)
    body = body_of(SMALL_DATA, page)
    assert body.count(count) == 1
    found = damages(twin, operate(SMALL_DATA, page, body.replace(count, struct.pack("<Q", 1))))
    assert found == [(page.offset, "the properties do not describe the entries of the table")]


@twins
def test_verify_finds_bytes_that_belong_to_no_page(twin: Any) -> None:
    """A gap before the footer: the footer is moved and sealed again."""
    footer = footer_of(SMALL_DATA)
    moved = Footer(
        footer.file_id,
        footer.number,
        footer.root,
        footer.tombstones,
        footer.properties,
        footer.file_size + 10,
    )
    data = SMALL_DATA[:-FOOTER_BYTES] + bytes(10) + moved.encode()
    found = damages(twin, data)
    assert found == [
        (len(SMALL_DATA) - FOOTER_BYTES, "there are bytes between the last page and the footer")
    ]


KEYS = st.binary(max_size=3) | st.builds(lambda n: b"user/%04d" % n, st.integers(0, 200))
moves = st.one_of(
    st.sampled_from([("next",), ("prev",), ("seek_first",), ("seek_last",)]),
    st.tuples(st.just("seek"), KEYS),
    st.tuples(st.just("seek"), KEYS, st.integers(0, 20)),
    st.tuples(st.just("seek_before"), KEYS),
)


@given(
    st.sets(st.tuples(KEYS, st.integers(0, 20)), min_size=1, max_size=150),
    st.integers(1, 300),
    st.integers(1, 9),
    st.lists(moves, max_size=50),
)
def test_twins_stand_at_the_same_entry_as_the_model_after_every_move(
    versions: Any, page_bytes: int, interval: int, steps: Any
) -> None:
    entries = [
        (key, seq, PUT, b"%d" % seq) for key, seq in sorted(versions, key=lambda v: (v[0], -v[1]))
    ]
    data, info = build(entries, page_bytes=page_bytes, restart_interval=interval)
    cursors = [reader_of(twin, data, info).cursor() for twin in MODULES]
    at = -1
    for name, *arguments in steps:
        if name in ("next", "prev") and not 0 <= at < len(entries):
            continue
        if name == "seek":
            target = (
                arguments[0],
                -pack_trailer(arguments[1] if len(arguments) > 1 else SEQ_MAX, 255),
            )
            at = sum((e[0], -pack_trailer(e[1], e[2])) < target for e in entries)
        elif name == "seek_before":
            at = sum(entry[0] < arguments[0] for entry in entries) - 1
        else:
            at = {"next": at + 1, "prev": at - 1, "seek_first": 0, "seek_last": len(entries) - 1}[
                name
            ]
        expected = entries[at] if 0 <= at < len(entries) else None
        for cursor in cursors:
            assert getattr(cursor, name)(*arguments) == (expected is not None)
            assert current(cursor) == expected


def test_twins_agree_on_a_large_table() -> None:
    entries = sample(20_000, 2)
    data, info = build(
        entries, SPANS, page_bytes=4096, restart_interval=16, compression=Compression.LZ4
    )
    readers = [reader_of(twin, data, info) for twin in MODULES]
    walks = [walk(reader.cursor()) for reader in readers]
    assert walks[0] == walks[-1] == entries
    choose = random.Random(5)
    for key in [choose.choice(entries)[0] for _ in range(200)]:
        answers = [reader.get(key, choose.randrange(1000)) for reader in readers[:1]]
        assert answers[0] is None or answers[0][0] < 1000
        assert readers[0].get(key, SEQ_MAX) == readers[-1].get(key, SEQ_MAX)
    assert list(readers[0].verify()) == []
    assert all(a[0] <= b[0] for a, b in pairwise(walks[0]))
