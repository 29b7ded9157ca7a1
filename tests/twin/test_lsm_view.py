"""Goal: both twins of the read view and the level cursor give what a plain list of operations says.

Method: random operations are dealt to an active memtable, frozen ones, level 0 and deeper levels of
several tables, as an engine would leave them, on a simulated disk. Every read is compared with a
walk over the operations; the level cursor is moved at random beside a cursor over a sorted list.
"""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base import (
    DELETE,
    KEY_BYTES_MAX,
    PURE,
    PUT,
    RANGE_DELETE,
    SEQ_MAX,
    CorruptionError,
    KeyspaceSettings,
    LimitError,
)
from holdfast.bufferpool import BufferPool
from holdfast.compaction import run_flush
from holdfast.cursor import Gaps, ListCursor
from holdfast.env import SimEnv
from holdfast.lsm import _view_c, _view_py
from holdfast.memtable import Memtable
from holdfast.sstable import TableInfo, TableReader, table_name

# The compiled twin takes compiled collaborators only, so in plain mode the plain twin is alone.
MODULES = (_view_py,) if PURE else (_view_c, _view_py)
TWINS = [pytest.param(module, id=module.__name__.rpartition("_")[2]) for module in MODULES]
twins = pytest.mark.parametrize("twin", TWINS)

SETTINGS = KeyspaceSettings(
    memtable_bytes=4 << 10, table_bytes=4 << 10, page_bytes=256, restart_interval=3
)
ALPHABET = [b"", b"\x00", b"a", b"a\x00", b"ab", b"b", b"b" * 300, b"c", b"m", b"\xff", b"\xff\xff"]
KEYS = st.one_of(
    st.sampled_from(ALPHABET), st.integers(0, 30).map(lambda number: b"k%02d" % number)
)
BOUNDS = st.one_of(st.none(), KEYS)
FILLER = b"........" * 25
EXAMPLES = min(settings.default.max_examples, 60) if settings.default.derandomize else 2_000

Entry = tuple[bytes, int, int, bytes]
Op = tuple[int, bytes, bytes]
"""(kind, key, value or stop key)"""

OPS = st.one_of(
    st.tuples(st.just(PUT), KEYS, st.sampled_from([b"", b"short", FILLER])),
    st.tuples(st.just(PUT), KEYS, st.sampled_from([b"", b"short", FILLER])),
    st.tuples(st.just(DELETE), KEYS, st.just(b"")),
    st.tuples(st.just(RANGE_DELETE), KEYS, KEYS).filter(lambda op: op[1] < op[2]),
)
LAYOUTS = st.tuples(
    # Level 2, level 1, then level 0 and frozen memtables from old to new, then the active one.
    st.lists(OPS, max_size=60),
    st.lists(OPS, max_size=40),
    st.lists(st.lists(OPS, min_size=1, max_size=12), max_size=3),
    st.lists(st.lists(OPS, min_size=1, max_size=8), max_size=3),
    st.lists(OPS, max_size=8),
)


@dataclass
class Sources:
    """What a view is made of, and the operations that are in it with their sequence numbers."""

    active: Memtable = field(default_factory=Memtable)
    frozen: tuple[Memtable, ...] = ()
    levels: list[list[TableReader]] = field(default_factory=lambda: [[], [], []])
    ops: list[tuple[int, int, bytes, bytes]] = field(default_factory=list)

    def view(self, twin: ModuleType) -> Any:
        return twin.ReadView(self.active, self.frozen, tuple(tuple(each) for each in self.levels))

    @property
    def newest(self) -> int:
        return len(self.ops)

    def get(self, key: bytes, snapshot: int = SEQ_MAX) -> bytes | None:
        found = None
        for seq, kind, each, value in self.ops:
            if seq > snapshot:
                break
            if kind == RANGE_DELETE:
                found = None if each <= key < value else found
            elif each == key:
                found = value if kind == PUT else None
        return found

    def rows(self, snapshot: int) -> list[tuple[bytes, bytes]]:
        keys = sorted({key for _, kind, key, _ in self.ops if kind == PUT})
        found = [(key, self.get(key, snapshot)) for key in keys]
        return [(key, value) for key, value in found if value is not None]


class Maker:
    """Deals operations to sources, oldest first, on a simulated disk."""

    def __init__(self, settings: KeyspaceSettings | None = None) -> None:
        self.settings = settings or SETTINGS
        self.env = SimEnv()
        self.pool = BufferPool(1 << 20)
        self.number = 0
        self.sources = Sources()
        # As in a tree: every PUT is noted in one set.
        self.gaps = Gaps()

    def memtable(self, ops: list[Op]) -> Memtable:
        table = Memtable(self.gaps)
        for kind, key, value in ops:
            seq = self.sources.newest + 1
            self.sources.ops.append((seq, kind, key, value))
            if kind == RANGE_DELETE:
                table.delete_range(seq, key, value)
            else:
                table.put(seq, kind, key, value)
        return table

    def allocate(self) -> int:
        self.number += 1
        return self.number

    def tables(self, ops: list[Op]) -> list[TableReader]:
        """Write operations as tables with disjoint ranges; no version is dropped."""
        table = self.memtable(ops)
        table.freeze()
        result = run_flush(
            self.env,
            "/",
            table,
            allocate_number=self.allocate,
            snapshots=range(self.sources.newest + 1),
            settings=self.settings,
        )
        return [self.reader(info) for info in result.tables]

    def reader(self, info: TableInfo) -> TableReader:
        file = self.env.open(f"/{table_name(info.number)}")
        return TableReader(file, info.number, info.file_id, self.pool, info)

    def make(self, layout: tuple[Any, ...]) -> Sources:
        bottom, middle, level0, frozen, active = layout
        sources = self.sources
        sources.levels[2] = self.tables(bottom)
        sources.levels[1] = self.tables(middle)
        for ops in level0:
            sources.levels[0][:0] = self.tables(ops)
        for ops in frozen:
            table = self.memtable(ops)
            table.freeze()
            sources.frozen = (table, *sources.frozen)
        sources.active = self.memtable(active)
        return sources


def make(*layout: Any) -> Sources:
    return Maker().make(layout)


def current(cursor: Any) -> Entry | None:
    return (cursor.key, cursor.seq, cursor.kind, cursor.value) if cursor.valid else None


@pytest.mark.parametrize("twin", TWINS)
@settings(max_examples=EXAMPLES)
@given(layout=LAYOUTS, keys=st.lists(KEYS, max_size=20), data=st.data())
def test_reads_give_what_the_operations_say(
    twin: ModuleType, layout: tuple[Any, ...], keys: list[bytes], data: st.DataObject
) -> None:
    sources = make(*layout)
    view = sources.view(twin)
    snapshots = [0, sources.newest, SEQ_MAX, data.draw(st.integers(0, sources.newest))]
    for snapshot in snapshots:
        expected = [sources.get(key, snapshot) for key in keys]
        assert expected == [view.get(key, snapshot) for key in keys]
        assert expected == view.get_many(keys, snapshot)
        assert sources.rows(snapshot) == list(view.cursor(snapshot))
        assert sources.rows(snapshot)[::-1] == list(view.cursor(snapshot, reverse=True))


@pytest.mark.parametrize("twin", TWINS)
@settings(max_examples=EXAMPLES)
@given(
    layout=LAYOUTS,
    lower=BOUNDS,
    upper=BOUNDS,
    reverse=st.booleans(),
    limit=st.sampled_from([None, 0, 1, 2, 7]),
    what=st.sampled_from([0, 1, 2]),
    fill_cache=st.booleans(),
)
def test_a_scan_keeps_to_its_bounds(
    twin: ModuleType,
    layout: tuple[Any, ...],
    lower: bytes | None,
    upper: bytes | None,
    reverse: bool,
    limit: int | None,
    what: int,
    fill_cache: bool,
) -> None:
    sources = make(*layout)
    rows = [
        row
        for row in sources.rows(SEQ_MAX)
        if (lower is None or row[0] >= lower) and (upper is None or row[0] < upper)
    ]
    rows = rows[::-1] if reverse else rows
    rows = rows if limit is None else rows[:limit]
    cursor = sources.view(twin).cursor(
        SEQ_MAX, lower, upper, reverse, limit, what, fill_cache=fill_cache
    )
    assert [row if what == 0 else row[what - 1] for row in rows] == list(cursor)


@pytest.mark.parametrize("twin", TWINS)
@settings(max_examples=EXAMPLES // 2)
@given(layout=LAYOUTS)
def test_the_internal_cursor_gives_every_version_and_the_tombstones_all_covers(
    twin: ModuleType, layout: tuple[Any, ...]
) -> None:
    sources = make(*layout)
    view = sources.view(twin)
    expected = sorted(
        ((key, seq, kind, value) for seq, kind, key, value in sources.ops if kind != RANGE_DELETE),
        key=lambda entry: (entry[0], -entry[1]),
    )
    cursor = view.internal_cursor()
    found = []
    more = cursor.seek_first()
    while more:
        found.append(current(cursor))
        more = cursor.next()
    assert expected == found
    sets = view.tombstone_sets()
    for key in ALPHABET:
        for snapshot in (0, sources.newest // 2, SEQ_MAX):
            covers = [
                seq
                for seq, kind, start, stop in sources.ops
                if kind == RANGE_DELETE and start <= key < stop and seq <= snapshot
            ]
            assert max(covers, default=0) == max(
                (each.cover(key, snapshot) for each in sets), default=0
            )


@twins
def test_a_view_shows_what_is_added_to_its_active_memtable(twin: ModuleType) -> None:
    maker = Maker()
    sources = maker.make(([(PUT, b"a", b"1"), (PUT, b"b", b"1")], [], [], [], []))
    view = sources.view(twin)
    assert b"1" == view.get(b"a", SEQ_MAX)
    sources.active.put(10, PUT, b"a", b"2")
    sources.active.delete_range(11, b"b", b"c")
    assert b"2" == view.get(b"a", SEQ_MAX)
    assert b"1" == view.get(b"a", 9)
    assert [(b"a", b"2")] == list(view.cursor(SEQ_MAX))
    assert [(b"a", b"2"), (b"b", b"1")] == list(view.cursor(10))


@twins
def test_a_cursor_sees_the_memtables_as_they_were_when_it_was_made(twin: ModuleType) -> None:
    """It leaves out a memtable that has nothing for it, and what comes later is newer than it."""
    sources = make([], [], [[(PUT, b"b", b"1")]], [], [])
    view = sources.view(twin)
    cursor = view.cursor(5)
    sources.active.put(10, PUT, b"a", b"2")
    assert [(b"b", b"1")] == list(cursor)
    assert [(b"b", b"1")] == list(view.cursor(SEQ_MAX, b"b"))
    assert [(b"a", b"2")] == list(view.cursor(SEQ_MAX, None, b"b"))


@twins
@pytest.mark.parametrize("bounds", [("a", None), (None, "a"), (bytearray(b"a"), None), (b"a", 7)])
def test_a_bound_of_another_type_is_refused(twin: ModuleType, bounds: tuple[Any, Any]) -> None:
    view = make([(PUT, b"a", b"")], [], [[(PUT, b"a", b"")]], [[(PUT, b"a", b"")]], []).view(twin)
    wrong = next(bound for bound in bounds if type(bound) not in (bytes, type(None)))
    message = f"^a bound is bytes or None, not {type(wrong).__name__}$"
    with pytest.raises(TypeError, match=message):
        view.cursor(SEQ_MAX, *bounds)
    with pytest.raises(TypeError, match=message):
        view.internal_cursor(*bounds)


@twins
def test_a_view_has_its_sources_as_attributes(twin: ModuleType) -> None:
    sources = make([(PUT, b"a", b"")], [], [[(PUT, b"a", b"")]], [[(PUT, b"a", b"")]], [])
    view = sources.view(twin)
    assert sources.active is view.active
    assert sources.frozen == view.frozen
    assert tuple(tuple(level) for level in sources.levels) == view.levels


@twins
def test_a_view_and_its_cursors_keep_their_sources(twin: ModuleType) -> None:
    """The compiled view borrows key bytes and readers; nothing may be freed under it."""
    ops = [(PUT, b"k%03d" % number, FILLER) for number in range(60)]
    view = make(ops, [], [ops[:3]], [ops[3:5]], []).view(twin)
    gc.collect()
    assert FILLER == view.get(b"k000", SEQ_MAX)
    assert FILLER == view.get(b"k059", SEQ_MAX)
    cursor = view.cursor(SEQ_MAX)
    watched = weakref.ref(view)
    del view
    gc.collect()
    assert watched() is not None, "a cursor holds its view"
    assert 60 == len(list(cursor))
    gc.collect()
    assert watched() is None, "at its end it lets go"


@pytest.mark.parametrize("twin", TWINS)
@settings(max_examples=EXAMPLES)
@given(layout=LAYOUTS, reads=st.lists(st.tuples(KEYS, st.sampled_from([0, 5, 40, SEQ_MAX]))))
def test_a_cached_read_gives_the_same_or_asks_for_a_page(
    twin: ModuleType, layout: tuple[Any, ...], reads: list[tuple[bytes, int]]
) -> None:
    """Before a page is in the pool it says so, or knows the answer without; after a `get` of the
    same key it knows.
    """
    view = make(*layout).view(twin)
    otherwise = object()
    for key, snapshot in reads:
        cold = view.get_cached(key, snapshot, otherwise)
        expected = view.get(key, snapshot)
        assert cold is otherwise or cold == expected
        assert view.get_cached(key, snapshot, otherwise) == expected


@twins
def test_a_memtable_answers_without_a_page(twin: ModuleType) -> None:
    table = Memtable()
    table.put(1, PUT, b"a", b"1")
    table.put(2, DELETE, b"b", b"")
    view = twin.ReadView(table, (), ())
    assert [b"1", None, None] == [
        view.get_cached(key, SEQ_MAX, "otherwise") for key in (b"a", b"b", b"c")
    ]


@twins
def test_an_empty_view_has_nothing(twin: ModuleType) -> None:
    view = twin.ReadView(Memtable(), (), ())
    assert view.get(b"a", SEQ_MAX) is None
    assert [None, None] == view.get_many([b"a", b""], SEQ_MAX)
    assert [] == list(view.cursor(SEQ_MAX))
    assert [] == list(view.cursor(SEQ_MAX, reverse=True))
    assert [] == view.tombstone_sets()


@twins
@pytest.mark.parametrize("method", ["get", "get_many"])
def test_bad_keys_are_refused(twin: ModuleType, method: str) -> None:
    view = twin.ReadView(Memtable(), (), ())

    def read(key: object) -> object:
        return getattr(view, method)(key if method == "get" else [key], SEQ_MAX)

    with pytest.raises(TypeError, match="encode"):
        read("text")
    with pytest.raises(LimitError):
        read(b"x" * (KEY_BYTES_MAX + 1))
    assert read(bytearray(b"a")) in (None, [None])
    assert read(b"x" * KEY_BYTES_MAX) in (None, [None])


@pytest.mark.skipif(PURE, reason="only the compiled twin looks at types")
def test_the_compiled_view_takes_its_own_sources_only() -> None:
    for arguments in [
        (None, (), ()),
        (Memtable(), [], ()),
        (Memtable(), (None,), ()),
        (Memtable(), (), ((None,),)),
        (Memtable(), (), ((object(),),)),
        (Memtable(), (object(),), ()),
    ]:
        with pytest.raises(TypeError):
            _view_c.ReadView(*arguments)


# --- the level cursor

MOVES = st.one_of(
    st.tuples(st.sampled_from(["next", "prev", "next", "prev", "seek_first", "seek_last"])),
    st.tuples(st.just("seek"), KEYS, st.sampled_from([SEQ_MAX, 3, 20])),
    st.tuples(st.just("seek_before"), KEYS),
)


@pytest.mark.parametrize("twin", TWINS)
@settings(max_examples=EXAMPLES)
@given(ops=st.lists(OPS, min_size=1, max_size=120), moves=st.lists(MOVES, max_size=30))
def test_the_level_cursor_moves_as_one_over_a_list(
    twin: ModuleType, ops: list[Op], moves: list[tuple[Any, ...]]
) -> None:
    maker = Maker()
    readers = maker.tables(ops)
    entries = sorted(
        (
            (key, seq, kind, value)
            for seq, kind, key, value in maker.sources.ops
            if kind != RANGE_DELETE
        ),
        key=lambda entry: (entry[0], -entry[1]),
    )
    expected, actual = ListCursor(entries), twin.LevelCursor(readers)
    for name, *arguments in moves:
        if name in ("next", "prev") and not expected.valid:
            continue
        assert getattr(expected, name)(*arguments) == getattr(actual, name)(*arguments)
        assert current(expected) == current(actual)


def spread(maker: Maker) -> list[TableReader]:
    """Tables with gaps between them, some of which hold range tombstones only."""
    tables = []
    for group in (b"b", b"d", b"f", b"h"):
        span = [(RANGE_DELETE, group, group + b"9")]
        puts = [(PUT, group + b"%d" % number, FILLER) for number in range(1, 4)]
        tables += maker.tables(span if group in (b"d", b"f") else puts)
    return tables


@twins
def test_the_level_cursor_passes_tables_without_entries(twin: ModuleType) -> None:
    maker = Maker()
    cursor = twin.LevelCursor(spread(maker))
    assert cursor.seek_first()
    keys = [cursor.key]
    while cursor.next():
        keys.append(cursor.key)
    assert [b"b1", b"b2", b"b3", b"h1", b"h2", b"h3"] == keys
    assert cursor.seek_last()
    back = [cursor.key]
    while cursor.prev():
        back.append(cursor.key)
    assert keys[::-1] == back
    for key, at, before in [
        (b"a", b"b1", None),
        (b"b9", b"h1", b"b3"),
        (b"d5", b"h1", b"b3"),
        (b"g", b"h1", b"b3"),
        (b"h3", b"h3", b"h2"),
        (b"z", None, b"h3"),
    ]:
        assert (at is not None) == cursor.seek(key)
        assert at is None or at == cursor.key
        assert (before is not None) == cursor.seek_before(key)
        assert before is None or before == cursor.key


@twins
def test_the_level_cursor_turns_around_between_tables(twin: ModuleType) -> None:
    maker = Maker()
    cursor = twin.LevelCursor(spread(maker))
    assert cursor.seek(b"b3")
    for move, key in [("next", b"h1"), ("prev", b"b3"), ("next", b"h1"), ("next", b"h2")]:
        assert getattr(cursor, move)()
        assert key == cursor.key


@twins
def test_a_damaged_table_ends_the_level_cursor_for_good(twin: ModuleType) -> None:
    maker = Maker()
    readers = maker.tables([(PUT, b"k%03d" % number, FILLER) for number in range(60)])
    assert len(readers) > 2
    broken = readers[1]
    path = f"/{table_name(broken.number)}"
    data = bytearray(maker.env.open(path).read_at(0, maker.env.file_size(path)))
    data[10] ^= 1
    maker.env.unlink(path, site="test")
    file = maker.env.create(path, site="test")
    file.write_at(0, data, site="test")
    readers[1] = maker.reader(broken.info)
    cursor = twin.LevelCursor(readers)
    assert cursor.seek_first()
    with pytest.raises(CorruptionError) as first:
        while cursor.next():
            pass
    for move in (cursor.next, cursor.prev, cursor.seek_first):
        with pytest.raises(CorruptionError) as again:
            move()
        assert first.value is again.value
    sources = Sources(levels=[[], readers])
    with pytest.raises(CorruptionError):
        sources.view(twin).get(broken.info.lower, SEQ_MAX)
    scan = sources.view(twin).cursor(SEQ_MAX)
    with pytest.raises(CorruptionError):
        list(scan)
    with pytest.raises(CorruptionError):
        next(scan)


@pytest.mark.parametrize("twin", TWINS)
@settings(max_examples=EXAMPLES)
@given(
    groups=st.lists(st.sets(st.integers(0, 40), min_size=1, max_size=12), min_size=1, max_size=4),
    count=st.integers(1, 3),
    bounds=st.lists(st.binary(max_size=3), min_size=2, max_size=2),
    reverse=st.booleans(),
)
def test_prefix_filters_change_no_scan(
    twin: ModuleType, groups: list[set[int]], count: int, bounds: list[bytes], reverse: bool
) -> None:
    maker = Maker()
    for place, numbers in enumerate(groups):
        # A setting may change: each table says what its filters hold.
        maker.settings = KeyspaceSettings(prefix_bytes=(count + place) % 4, page_bytes=256)
        operations = [(PUT, b"%02d" % number + bytes([place]), b"") for number in sorted(numbers)]
        maker.sources.levels[0][:0] = maker.tables(operations)
    view = maker.sources.view(twin)
    rows = maker.sources.rows(SEQ_MAX)
    ranges = [(b"%02d" % number, b"%02d" % (number + 1)) for number in range(41)]
    for lower, upper in [*ranges, tuple(sorted(bounds))]:
        expected = [row for row in rows if lower <= row[0] < upper]
        found = list(view.cursor(SEQ_MAX, lower, upper, reverse))
        assert found == (expected[::-1] if reverse else expected)


@pytest.mark.parametrize("twin", TWINS)
def test_a_table_without_the_prefix_is_left_out(twin: ModuleType) -> None:
    maker = Maker(KeyspaceSettings(prefix_bytes=2, filter_bits_per_key=20))
    for user in (1, 2):
        operations = [(PUT, b"%02d%02d" % (user, each), b"") for each in range(90)]
        edges = [(PUT, b"00", b""), (PUT, b"99", b"")]
        maker.sources.levels[0][:0] = maker.tables([*operations, *edges])
    view = maker.sources.view(twin)
    assert [b"01%02d" % each for each in range(90)] == list(
        view.cursor(SEQ_MAX, b"01", b"02", what=1)
    )
    assert maker.pool.tables_skipped == 1
    assert [] == list(view.cursor(SEQ_MAX, b"0300", b"0310"))
    assert maker.pool.tables_skipped == 3
    # These keys need not begin with the same two bytes.
    for lower, upper in ((b"03", b"05"), (b"0", b"1"), (b"03", None), (None, b"01")):
        list(view.cursor(SEQ_MAX, lower, upper, limit=1))
    assert maker.pool.tables_skipped == 3


@pytest.mark.parametrize("twin", TWINS)
@settings(max_examples=EXAMPLES)
@given(
    layout=LAYOUTS,
    keys=st.lists(KEYS, max_size=8),
    ranges=st.lists(st.tuples(BOUNDS, BOUNDS), max_size=8),
    data=st.data(),
)
def test_changes_are_what_the_operations_say(
    twin: ModuleType,
    layout: tuple[Any, ...],
    keys: list[bytes],
    ranges: list[tuple[bytes | None, bytes | None]],
    data: st.DataObject,
) -> None:
    sources = make(*layout)
    view = sources.view(twin)
    since = data.draw(st.integers(0, sources.newest + 1))
    newer = [op for op in sources.ops if op[0] > since]
    for key in keys:
        concerning = [
            seq
            for seq, kind, start, stop in newer
            if (start <= key < stop if kind == RANGE_DELETE else start == key)
        ]
        assert max(concerning, default=0) == view.key_change(key, since)
    for lower, upper in ranges:
        points, covers = set(), set()
        for seq, kind, start, stop in newer:
            if lower is not None and upper is not None and lower >= upper:
                continue
            if kind == RANGE_DELETE:
                if (upper is None or start < upper) and (lower is None or lower < stop):
                    covers.add((None, seq))
            elif (lower is None or lower <= start) and (upper is None or start < upper):
                points.add((start, seq))
        found = view.range_change(lower, upper, since)
        if found is None:
            assert not points
            assert not covers
        else:
            assert found in points | covers


@pytest.mark.parametrize("twin", TWINS)
@settings(max_examples=EXAMPLES)
@given(layout=LAYOUTS, lower=BOUNDS, upper=BOUNDS, part=st.integers(0, 4))
def test_the_twins_find_the_same_change(
    twin: ModuleType, layout: tuple[Any, ...], lower: bytes | None, upper: bytes | None, part: int
) -> None:
    sources = make(*layout)
    since = sources.newest * part // 4
    plain = sources.view(_view_py)
    assert plain.range_change(lower, upper, since) == sources.view(twin).range_change(
        lower, upper, since
    )


@twins
def test_sources_without_anything_newer_are_not_asked(twin: ModuleType) -> None:
    """A table that cannot be read does not matter when all that it has is old."""
    maker = Maker()
    sources = maker.make(([(PUT, b"a", b"1"), (PUT, b"b", b"1")], [], [], [], []))
    view = sources.view(twin)
    for level in sources.levels:
        for reader in level:
            reader.close()
    assert 0 == view.key_change(b"a", 2)
    assert view.range_change(None, None, 2) is None
