"""Goal: both twins of the user cursor show exactly the rows that a plain computation over all
versions says.

Method: random versions, tombstones, snapshots, bounds and limits, over list and merge sources,
taken row by row and in chunks; failures at every possible move; use from several threads and from
within.
"""

from __future__ import annotations

import gc
import itertools
import sys
import threading
import weakref
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base import SEQ_MAX, DatabaseClosedError
from holdfast.cursor import (
    _cursor_c,
    _cursor_py,
    _gaps_c,
    _gaps_py,
    _tombstones_c,
    _tombstones_py,
    _user_c,
    _user_py,
)


def twin(*kernels: ModuleType) -> Any:
    return SimpleNamespace(
        **{name: value for kernel in kernels for name, value in vars(kernel).items()}
    )


TWINS = [
    pytest.param(twin(_cursor_c, _tombstones_c, _user_c, _gaps_c), id="c"),
    pytest.param(twin(_cursor_py, _tombstones_py, _user_py, _gaps_py), id="py"),
]
KEYS = st.sampled_from([b"", b"a", b"a\x00", b"aa", b"b", b"bbbbbbbbb", b"c", b"d", b"\xff"])
SEQS = st.one_of(st.integers(1, 12), st.integers(1, 60), st.just(SEQ_MAX))
Entry = tuple[bytes, int, int, bytes]
VERSIONS = st.one_of(
    st.lists(st.tuples(KEYS, SEQS, st.sampled_from([0, 1, 1]), st.binary(max_size=2)), max_size=30),
    # Few keys with many versions, so that the sources are asked to seek past them.
    st.lists(
        st.tuples(
            st.sampled_from([b"k", b"l"]),
            st.integers(1, 60),
            st.sampled_from([0, 1]),
            st.binary(max_size=1),
        ),
        min_size=30,
        max_size=90,
    ),
)
TOMBSTONES = st.lists(st.tuples(KEYS, KEYS, SEQS), max_size=4)


def order(entry: Entry) -> tuple[bytes, int]:
    return entry[0], -(entry[1] << 8 | entry[2])


def unique(versions: list[Entry]) -> list[Entry]:
    return sorted({(each[0], each[1]): each for each in versions}.values(), key=order)


def seen(
    versions: list[Entry],
    tombstones: list[tuple[bytes, bytes, int]],
    snapshot: int,
    lower: bytes | None,
    upper: bytes | None,
    reverse: bool,
    limit: int | None,
) -> list[tuple[bytes, bytes]]:
    rows = []
    for key in sorted({each[0] for each in versions}, reverse=reverse):
        if (lower is not None and key < lower) or (upper is not None and key >= upper):
            continue
        visible = [each for each in versions if each[0] == key and each[1] <= snapshot]
        if not visible:
            continue
        _, seq, kind, value = max(visible, key=lambda each: each[1])
        covered = any(
            start <= key < stop and seq < number <= snapshot for start, stop, number in tombstones
        )
        if kind == 1 and not covered:
            rows.append((key, value))
    return rows if limit is None else rows[:limit]


@pytest.mark.parametrize("kernel", TWINS)
@given(
    versions=VERSIONS,
    tombstones=st.lists(TOMBSTONES, max_size=3),
    snapshot=st.one_of(st.just(0), SEQS),
    lower=st.none() | KEYS,
    upper=st.none() | KEYS,
    reverse=st.booleans(),
    limit=st.none() | st.integers(0, 6),
    what=st.sampled_from([0, 1, 2]),
    sources=st.integers(1, 4),
    chunk=st.none() | st.integers(1, 4),
    columns=st.booleans(),
)
def test_the_rows_are_what_the_versions_say(
    kernel: Any,
    versions: list[Entry],
    tombstones: list[Any],
    snapshot: int,
    lower: bytes | None,
    upper: bytes | None,
    reverse: bool,
    limit: int | None,
    what: int,
    sources: int,
    chunk: int | None,
    columns: bool,
) -> None:
    versions = unique(versions)
    lists = [kernel.ListCursor(versions[start::sources]) for start in range(sources)]
    source = lists[0] if sources == 1 else kernel.MergeCursor(lists)
    sets: Any = [kernel.RangeTombstones(each) for each in tombstones]
    if len(sets) == 1:
        sets = sets[0]
    owner = kernel.Owner()
    owner.tally = kernel.ScanTally()
    cursor = kernel.UserCursor(source, sets, snapshot, lower, upper, reverse, limit, what, owner)
    if chunk is None:
        found = list(cursor)
    else:
        found = []
        while rows := taken(cursor, chunk, what, columns):
            assert len(rows) <= chunk
            found += rows
    flat = [each for part in tombstones for each in part]
    expected: list[Any] = seen(versions, flat, snapshot, lower, upper, reverse, limit)
    if what:
        expected = [row[what - 1] for row in expected]
    assert expected == found
    assert [] == list(cursor) == cursor.next_chunk(3) == taken(cursor, 3, what, columns=True)
    visible = {
        key
        for key, seq, _, _ in versions
        if seq <= snapshot and (lower is None or lower <= key) and (upper is None or key < upper)
    }
    rows = seen(versions, flat, snapshot, lower, upper, reverse, None)
    passed = visible - {key for key, _ in rows}
    if limit is not None and limit <= len(rows):
        # It went as far as the last row that it gave.
        last = rows[limit - 1][0] if limit else None
        passed = {
            key for key in passed if last is not None and (key > last if reverse else key < last)
        }
    assert (len(found), len(passed)) == (owner.tally.rows, owner.tally.deleted)


WRITES = st.lists(
    st.tuples(st.sampled_from([0, 0, 1]), st.integers(0, 59), st.integers(1, 40)), max_size=6
)
BOUNDS = st.none() | st.integers(0, 60).map(lambda number: b"%02d" % number)
SCANS = st.lists(
    st.tuples(BOUNDS, BOUNDS, st.booleans(), st.none() | st.integers(0, 3), st.integers(0, 60)),
    max_size=4,
)


@pytest.mark.parametrize("kernel", TWINS)
@given(
    rounds=st.lists(st.tuples(WRITES, SCANS), max_size=6),
    tombstone=st.none() | st.tuples(BOUNDS, BOUNDS),
    sources=st.integers(1, 3),
)
def test_scans_over_noted_gaps_show_the_same_rows(
    kernel: Any, rounds: list[Any], tombstone: Any, sources: int
) -> None:
    """Runs of keys are put and deleted between scans that share their gaps; each scan shows what
    one without gaps shows, whatever its snapshot.
    """
    gaps = kernel.Gaps()
    versions: list[Entry] = [(b"%02d" % number, number + 1, 1, b"v") for number in range(60)]
    tombstones = []
    if tombstone is not None and None not in tombstone:
        tombstones = [(*tombstone, 61)]
    seq = 61
    for writes, scans in rounds:
        for kind, start, count in writes:
            for number in range(start, min(start + count, 60)):
                seq += 1
                key = b"%02d" % number
                if kind == 1:
                    gaps.note_put(key, seq)
                versions.append((key, seq, kind, b""))
        versions.sort(key=order)
        for lower, upper, reverse, limit, age in scans:
            lists = [kernel.ListCursor(versions[at::sources]) for at in range(sources)]
            source = lists[0] if sources == 1 else kernel.MergeCursor(lists)
            snapshot = max(seq - age, 61)
            cursor = kernel.UserCursor(
                source,
                kernel.RangeTombstones(tombstones),
                snapshot,
                lower,
                upper,
                reverse,
                limit,
                gaps=gaps,
            )
            assert list(cursor) == seen(
                versions, tombstones, snapshot, lower, upper, reverse, limit
            )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kernel", TWINS)
def test_a_stretch_without_a_row_is_walked_once(kernel: Any, reverse: bool) -> None:
    dead = [(b"%04d" % number, 1, 0, b"") for number in range(1000)]
    ends = [(b"", 1, 1, b"first"), (b"x", 1, 1, b"last")]
    gaps = kernel.Gaps()
    passed = []
    for _ in range(2):
        source = kernel.ListCursor(sorted([*dead, *ends]))
        cursor = kernel.UserCursor(source, (), 5, None, None, reverse, gaps=gaps)
        assert sorted(cursor) == [(b"", b"first"), (b"x", b"last")]
        passed.append(cursor.entries_passed)
    assert passed[0] == 1000
    assert passed[1] <= 16
    # A PUT in it ends half of it.
    gaps.note_put(b"0500", 6)
    source = kernel.ListCursor(sorted([*dead, *ends, (b"0500", 6, 1, b"new")], key=order))
    cursor = kernel.UserCursor(source, (), 6, None, None, reverse, gaps=gaps)
    assert (b"0500", b"new") in list(cursor)
    assert cursor.entries_passed <= 40


@pytest.mark.parametrize("kernel", TWINS)
def test_a_gap_behind_a_key_hides_no_older_version_of_it(kernel: Any) -> None:
    """A reader at a snapshot passes versions that are newer, and looks for a gap on the way: what
    begins behind the key must not take it over the version that it sees.
    """
    gaps = kernel.Gaps()
    assert gaps.note_gap(b"k\x00", b"l", 5, 1000)
    versions = [(b"k", seq, 1, b"%d" % seq) for seq in range(30, 4, -1)]
    for reverse in (False, True):
        source = kernel.ListCursor([*versions, (b"m", 3, 1, b"")])
        cursor = kernel.UserCursor(source, (), 5, None, None, reverse, gaps=gaps)
        assert [(b"k", b"5"), (b"m", b"")] == sorted(cursor)


@pytest.mark.parametrize("kernel", TWINS)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_range_that_lies_in_a_gap_is_not_read(kernel: Any, reverse: bool) -> None:
    gaps = kernel.Gaps()
    assert gaps.note_gap(b"b", b"m", 5, 1000)
    for lower, upper in ((b"b", b"m"), (b"c", b"m") if reverse else (b"b", b"l")):
        source = failing(kernel, [], 0)
        cursor = kernel.UserCursor(source, (), 5, lower, upper, reverse, gaps=gaps)
        assert [] == list(cursor)
        assert 0 == cursor.entries_passed
    # What lies beyond it is read, and so is all of it as of an older state.
    for snapshot, lower, upper in ((5, b"a", b"n"), (4, b"b", b"m")):
        cursor = kernel.UserCursor(
            failing(kernel, [], 0), (), snapshot, lower, upper, reverse, gaps=gaps
        )
        with pytest.raises(SourceError):
            next(cursor)


@pytest.mark.parametrize("kernel", TWINS)
def test_gaps_of_another_kind_are_refused(kernel: Any) -> None:
    with pytest.raises(TypeError):
        kernel.UserCursor(kernel.ListCursor([]), gaps=[])


def taken(cursor: Any, count: int, what: int, columns: bool) -> list[Any]:
    """Return the next rows, by either request."""
    if not columns:
        return cursor.next_chunk(count)  # type: ignore[no-any-return]  # the cursor is Any
    found = cursor.next_columns(count)
    parts = []
    for data, offsets in (
        (found.keys, found.key_offsets),
        (found.values, found.value_offsets),
    ):
        if data is None:
            assert offsets is None
            continue
        assert data.readonly
        assert offsets.readonly
        assert ("B", "q") == (data.format, offsets.format)
        assert len(found) + 1 == len(offsets)
        assert 0 == offsets[0]
        assert len(data) == offsets[-1]
        parts.append([bytes(data[start:stop]) for start, stop in pairwise(offsets)])
    assert (2 if what == 0 else 1) == len(parts)
    assert (found.values if what == 1 else found.keys if what == 2 else None) is None
    return list(zip(*parts, strict=True)) if what == 0 else parts[0]


@pytest.mark.parametrize("kernel", TWINS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sources", [1, 2, 5])
def test_long_runs_and_requests_of_all_kinds_in_turn(
    kernel: Any, reverse: bool, sources: int
) -> None:
    """Entries that come in runs are neither lost nor given twice, whoever asks."""
    entries = [
        (b"%05d" % number, seq, 1, b"%d" % (number * seq))
        for number in range(700)
        for seq in range(40 if number % 97 == 3 else 1 + (number % 11 == 0), 0, -1)
    ]
    lists = [kernel.ListCursor(entries[start::sources]) for start in range(sources)]
    cursor = kernel.UserCursor(kernel.MergeCursor(lists), (), 30, reverse=reverse)
    found: list[Any] = []
    for count in itertools.cycle([1, 7, 64, 3, 150]):
        before = len(found)
        found += itertools.islice(cursor, 1)
        found += cursor.next_chunk(count)
        found += taken(cursor, count, 0, columns=True)
        if before == len(found):
            break
    assert seen(entries, [], 30, None, None, reverse, None) == found


@pytest.mark.parametrize("kernel", TWINS)
def test_a_row_that_somebody_kept_stays_as_it_is(kernel: Any) -> None:
    """A pair is used again only when nobody can see it."""
    rows = [(b"%03d" % number, 1, 1, b"v%d" % number) for number in range(200)]
    cursor = kernel.UserCursor(kernel.ListCursor(rows))
    kept = []
    for number, row in enumerate(cursor):
        if number % 3 == 0:
            kept.append((number, row))
        del row
    assert [(number, (b"%03d" % number, b"v%d" % number)) for number, _ in kept] == kept


class SourceError(Exception):
    """What an injected failure raises."""


def failing(kernel: Any, entries: list[Entry], fail_after: int) -> Any:
    """Return a source that raises SourceError from its move number `fail_after` on."""

    class Failing(kernel.Cursor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.index = -1
            self.left = fail_after

        def _stand(self, index: int) -> Entry | None:
            self.left -= 1
            if self.left < 0:
                raise SourceError
            self.index = index
            return entries[index] if 0 <= index < len(entries) else None

        def _first(self) -> Entry | None:
            return self._stand(0)

        def _last(self) -> Entry | None:
            return self._stand(len(entries) - 1)

        def _seek(self, key: bytes, trailer: int) -> Entry | None:
            return self._stand(sum(order(entry) < (key, -trailer) for entry in entries))

        def _seek_before(self, key: bytes) -> Entry | None:
            return self._stand(sum(entry[0] < key for entry in entries) - 1)

        def _next(self) -> Entry | None:
            return self._stand(self.index + 1)

        def _prev(self) -> Entry | None:
            return self._stand(self.index - 1)

    return Failing()


@pytest.mark.parametrize("kernel", TWINS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("merged", [False, True])
def test_a_failure_at_any_move_is_never_a_silent_end(
    kernel: Any, reverse: bool, merged: bool
) -> None:
    entries = unique([(b"%d" % (number % 4), number, 1, b"v") for number in range(1, 100)])
    complete = seen(entries, [], 60, b"0", b"3", reverse, None)
    ended = False
    for fail_after in range(300):
        owner = Owner()
        alive = weakref.ref(owner)
        source = failing(kernel, entries, fail_after)
        if merged:
            source = kernel.MergeCursor([kernel.ListCursor([(b"00", 1, 0, b"")]), source])
        cursor = kernel.UserCursor(source, (), 60, b"0", b"3", reverse, None, 0, owner)
        del owner
        rows = []
        try:
            for row in cursor:
                assert alive() is not None
                rows.append(row)
        except SourceError as error:
            assert complete[: len(rows)] == rows
            for request in (
                lambda: next(cursor),
                lambda: cursor.next_chunk(5),
                lambda: cursor.next_chunk(0),
                lambda: cursor.next_columns(5),
            ):
                with pytest.raises(SourceError) as caught:
                    request()
                assert error is caught.value
            cursor.close()
            with pytest.raises(SourceError):
                next(cursor)
        else:
            assert complete == rows
            ended = True
        if fail_after % 60 == 0:
            gc.collect()
            assert alive() is None
    assert ended


class Owner:
    """Something that a cursor keeps alive."""


@pytest.mark.parametrize("kernel", TWINS)
def test_close_lets_go_and_ends(kernel: Any) -> None:
    owner = Owner()
    alive = weakref.ref(owner)
    cursor = kernel.UserCursor(
        kernel.ListCursor([(b"a", 1, 1, b"v"), (b"b", 1, 1, b"v")]), owner=owner
    )
    del owner
    assert (b"a", b"v") == next(cursor)
    assert alive() is not None
    cursor.close()
    cursor.close()
    gc.collect()
    assert alive() is None
    assert [] == list(cursor) == cursor.next_chunk(1)


@pytest.mark.parametrize("kernel", TWINS)
@pytest.mark.parametrize("step", ["next_chunk", "next_columns"])
def test_a_cursor_whose_owner_ended_says_so_when_nothing_is_asked_for(
    kernel: Any, step: str
) -> None:
    owner = kernel.Owner()
    cursor = kernel.UserCursor(kernel.ListCursor([(b"a", 1, 1, b"1")]), owner=owner)
    assert 0 == len(getattr(cursor, step)(0))
    owner.ended = "the database is closed"
    for _ in range(2):
        with pytest.raises(DatabaseClosedError, match="the database is closed"):
            getattr(cursor, step)(0)


@pytest.mark.parametrize("kernel", TWINS)
def test_a_pair_has_the_hash_of_what_is_in_it(kernel: Any) -> None:
    """Pairs are used again when nobody else has them, and a tuple may keep its hash."""
    rows = [(b"%03d" % number, 1, 1, b"v") for number in range(100)]
    pairs = {(key, value) for key, _, _, value in rows}
    some = {pair for pair in pairs if pair[0] >= b"050"}
    assert some == some.intersection(kernel.UserCursor(kernel.ListCursor(rows)))
    hashes = set(map(hash, kernel.UserCursor(kernel.ListCursor(rows))))
    assert hashes == set(map(hash, pairs))


@pytest.mark.parametrize("kernel", TWINS)
@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_cursor_whose_owner_ended_says_why(kernel: Any, taken: int) -> None:
    """It must not look like one that came to its end."""
    rows = [(b"a", 1, 1, b"v"), (b"b", 1, 1, b"v")]
    owner = kernel.Owner()
    cursor = kernel.UserCursor(kernel.ListCursor(rows), owner=owner)
    ended = kernel.UserCursor(kernel.ListCursor(rows), owner=owner)
    assert 2 == len(list(ended))
    for _ in range(taken):
        next(cursor)
    owner.ended = "the database is closed"
    for _ in range(2):
        with pytest.raises(DatabaseClosedError, match="the database is closed"):
            next(cursor)
        with pytest.raises(DatabaseClosedError, match="the database is closed"):
            cursor.next_chunk(5)
        with pytest.raises(DatabaseClosedError, match="the database is closed"):
            cursor.next_columns(5)
    assert [] == list(ended) == ended.next_chunk(1)
    cursor.close()


@pytest.mark.parametrize("kernel", TWINS)
def test_nothing_is_read_before_the_first_row_and_nothing_for_no_rows(kernel: Any) -> None:
    for limit, count in ((0, 1), (None, 0)):
        cursor = kernel.UserCursor(failing(kernel, [], 0), limit=limit)
        assert [] == cursor.next_chunk(count)
    with pytest.raises(SourceError):
        next(kernel.UserCursor(failing(kernel, [], 0)))


@pytest.mark.parametrize("kernel", TWINS)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_kind_that_is_no_point_entry_is_an_error(kernel: Any, reverse: bool) -> None:
    entries = [(b"a", 1, 1, b""), (b"b", 1, 2, b"c"), (b"c", 1, 1, b"")]
    cursor = kernel.UserCursor(kernel.ListCursor(entries), reverse=reverse)
    next(cursor)
    for _ in range(2):
        with pytest.raises(ValueError, match="kind 2"):
            next(cursor)


@pytest.mark.parametrize("kernel", TWINS)
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"cursor": 1}, TypeError),
        ({"tombstones": [1]}, TypeError),
        ({"tombstones": 1}, TypeError),
        ({"snapshot": -1}, ValueError),
        ({"snapshot": SEQ_MAX + 1}, ValueError),
        ({"lower": "a"}, TypeError),
        ({"upper": bytearray(b"a")}, TypeError),
        ({"limit": -1}, ValueError),
        ({"what": 3}, ValueError),
    ],
)
def test_wrong_arguments_are_refused(kernel: Any, arguments: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        kernel.UserCursor(**{"cursor": kernel.ListCursor([]), **arguments})
    with pytest.raises(ValueError):
        kernel.UserCursor(kernel.ListCursor([])).next_chunk(-1)
    with pytest.raises(ValueError):
        kernel.UserCursor(kernel.ListCursor([])).next_columns(-1)


class Three:
    """An integer, as others make theirs."""

    def __index__(self) -> int:
        return 3


@pytest.mark.parametrize("kernel", TWINS)
def test_a_number_of_rows_is_an_integer(kernel: Any) -> None:
    """What was given is named; other kinds of integers are taken for what they are."""
    entries: list[Entry] = [(b"%d" % number, 9, 1, b"") for number in range(5)]
    for wrong, kind in ((1.5, "float"), (2.0, "float"), ("3", "str"), (b"3", "bytes")):
        with pytest.raises(TypeError, match=f"^a limit is an int or None, not {kind}$"):
            kernel.UserCursor(kernel.ListCursor(entries), limit=wrong)
        for ask in (kernel.UserCursor.next_chunk, kernel.UserCursor.next_columns):
            with pytest.raises(TypeError, match=f"^a count is an int, not {kind}$"):
                ask(kernel.UserCursor(kernel.ListCursor(entries)), wrong)
    for asked, rows in ((Three(), 3), (True, 1), (2**80, 5), (sys.maxsize, 5)):
        limited = kernel.UserCursor(kernel.ListCursor(entries), limit=asked)
        assert len(list(limited)) == rows
        assert len(kernel.UserCursor(kernel.ListCursor(entries)).next_chunk(asked)) == rows
        columns = kernel.UserCursor(kernel.ListCursor(entries)).next_columns(asked)
        assert columns.count == rows
    for negative in (-1, -(2**80)):
        with pytest.raises(ValueError, match=f"^the limit is {negative}; it must not be negative$"):
            kernel.UserCursor(kernel.ListCursor(entries), limit=negative)


@pytest.mark.parametrize("kernel", TWINS)
def test_a_request_during_a_request_is_refused_and_harms_nothing(kernel: Any) -> None:
    refused = []

    class Curious(kernel.Cursor):  # type: ignore[misc, name-defined]
        def _first(self) -> Entry | None:
            for request in (
                lambda: next(cursor),
                lambda: cursor.next_chunk(1),
                lambda: cursor.next_columns(1),
                cursor.close,
            ):
                with pytest.raises(RuntimeError):
                    request()
                refused.append(1)
            return (b"a", 1, 1, b"v")

        def _next(self) -> Entry | None:
            return None

    cursor = kernel.UserCursor(Curious())
    assert [(b"a", b"v")] == list(cursor)
    assert 4 == len(refused)


@pytest.mark.parametrize("kernel", TWINS)
def test_threads_that_share_a_cursor_do_not_crash_and_lose_no_row(kernel: Any) -> None:
    entries = [(b"%06d" % number, 1, 1, b"v") for number in range(3_000)]
    cursor = kernel.UserCursor(
        kernel.MergeCursor([kernel.ListCursor(entries[::2]), kernel.ListCursor(entries[1::2])])
    )
    found: list[Any] = []

    def take() -> None:
        while True:
            try:
                rows = cursor.next_chunk(7)
            except RuntimeError:
                continue
            if not rows:
                return
            found.extend(rows)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(key, value) for key, _, _, value in entries] == sorted(found)


OWN = 1 << 55
OWN_SEQS = st.integers(OWN, OWN + 12)


@pytest.mark.parametrize("kernel", TWINS)
@given(
    versions=VERSIONS,
    own=st.one_of(
        st.lists(st.tuples(KEYS, OWN_SEQS, st.sampled_from([0, 1]), st.binary(max_size=1))),
        st.lists(
            st.tuples(
                st.sampled_from([b"k", b"l"]),
                st.integers(OWN, OWN + 60),
                st.sampled_from([0, 1]),
                st.just(b"own"),
            ),
            max_size=60,
        ),
    ),
    tombstones=TOMBSTONES,
    own_tombstones=st.lists(st.tuples(KEYS, KEYS, OWN_SEQS), max_size=3),
    snapshot=st.integers(0, 60),
    last=st.one_of(st.just(OWN - 1), OWN_SEQS, st.just(OWN + 60)),
    lower=st.none() | KEYS,
    upper=st.none() | KEYS,
    reverse=st.booleans(),
    limit=st.none() | st.integers(0, 6),
    what=st.sampled_from([0, 1, 2]),
    taken_rows=st.integers(0, 12),
)
def test_an_overlay_shows_private_writes_and_says_how_far_the_cursor_came(
    kernel: Any,
    versions: list[Entry],
    own: list[Entry],
    tombstones: list[tuple[bytes, bytes, int]],
    own_tombstones: list[tuple[bytes, bytes, int]],
    snapshot: int,
    last: int,
    lower: bytes | None,
    upper: bytes | None,
    reverse: bool,
    limit: int | None,
    what: int,
    taken_rows: int,
) -> None:
    """The rows are those of a database where the private writes came right after the snapshot."""
    versions = [each for each in versions if each[1] < OWN]
    base, private = unique(versions), unique(own)
    visible = [each for each in base if each[1] <= snapshot]
    visible += [each for each in private if each[1] <= last]
    deleted = [each for each in tombstones if each[2] <= snapshot]
    deleted += [each for each in own_tombstones if each[2] <= last]
    expected: list[Any] = seen(visible, deleted, SEQ_MAX, lower, upper, reverse, limit)
    owner = kernel.Owner()
    owner.tally = kernel.ScanTally()
    overlay = kernel.Overlay(OWN, last, [kernel.RangeTombstones(own_tombstones)])
    cursor = kernel.UserCursor(
        kernel.MergeCursor([kernel.ListCursor(private), kernel.ListCursor(base)]),
        kernel.RangeTombstones([each for each in tombstones if each[2] < OWN]),
        snapshot,
        lower,
        upper,
        reverse,
        limit,
        what,
        owner,
        overlay=overlay,
    )
    assert (None, False, False) == (overlay.reached, overlay.exhausted, overlay.closed)
    rows = cursor.next_chunk(taken_rows)
    shown = [row if what == 0 else row[what - 1] for row in expected]
    assert shown[:taken_rows] == rows
    reached = expected[len(rows) - 1][0] if rows else None
    assert reached == overlay.reached
    assert overlay.exhausted == (taken_rows > len(expected) and len(expected) != limit)
    rows += [row for part in iter(lambda: taken(cursor, 3, what, columns=True), []) for row in part]
    assert shown == rows
    assert (expected[-1][0] if expected else None) == overlay.reached
    assert overlay.exhausted == (len(expected) != limit)
    assert overlay.closed
    within = {
        each[0]
        for each in visible
        if (lower is None or lower <= each[0]) and (upper is None or each[0] < upper)
    }
    assert len(expected) == owner.tally.rows
    if len(expected) != limit:
        assert len(within) - len(expected) == owner.tally.deleted


@pytest.mark.parametrize("kernel", TWINS)
def test_an_overlay_that_ends_ends_its_cursor(kernel: Any) -> None:
    overlay = kernel.Overlay(OWN, OWN)
    rows = [(b"%d" % number, 1, 1, b"") for number in range(9)]
    cursor = kernel.UserCursor(kernel.ListCursor(rows), overlay=overlay, what=1)
    assert b"0" == next(cursor)
    overlay.refusal = DatabaseClosedError("it is over")
    with pytest.raises(DatabaseClosedError, match="it is over"):
        next(cursor)
    assert overlay.closed
    assert not overlay.exhausted


@pytest.mark.parametrize("kernel", TWINS)
@pytest.mark.parametrize("end", ["close", "forget"])
def test_a_cursor_that_goes_says_so(kernel: Any, end: str) -> None:
    overlay = kernel.Overlay(OWN, OWN)
    cursor = kernel.UserCursor(kernel.ListCursor([(b"a", 1, 1, b"")] * 1), overlay=overlay)
    if end == "close":
        cursor.close()
    del cursor
    assert overlay.closed
    assert overlay.reached is None


@pytest.mark.parametrize("kernel", TWINS)
def test_what_an_overlay_refuses(kernel: Any) -> None:
    for first, last in ((-1, 0), (0, SEQ_MAX + 1)):
        with pytest.raises(ValueError, match="does not fit 56 bits"):
            kernel.Overlay(first, last)
    with pytest.raises(TypeError, match="tombstones are RangeTombstones, not int"):
        kernel.Overlay(0, 0, [1])
    with pytest.raises(TypeError, match="an overlay is an Overlay, not int"):
        kernel.UserCursor(kernel.ListCursor([]), overlay=1)
    with pytest.raises(ValueError, match="a cursor with an overlay has no gaps"):
        kernel.UserCursor(kernel.ListCursor([]), overlay=kernel.Overlay(0, 0), gaps=kernel.Gaps())
