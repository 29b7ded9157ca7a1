"""Goal: both twins of the cursor kernel walk a source, and a merge of sources, exactly as a sorted
list says.

Method: random histories of moves against a model that is an index into the sorted entries; failures
injected through sources written in Python, which both twins accept.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base import SEQ_MAX
from holdfast.cursor import _cursor_c, _cursor_py

TWINS = [pytest.param(_cursor_c, id="c"), pytest.param(_cursor_py, id="py")]
KEYS = st.one_of(
    st.binary(max_size=3),
    st.sampled_from(
        [b"", b"\x00", b"a", b"a\x00", b"aaaaaaaa", b"aaaaaaaa\x00", b"aaaaaaaab", b"\xff" * 9]
    ),
)
SEQS = st.one_of(st.integers(0, 6), st.sampled_from([SEQ_MAX - 1, SEQ_MAX]))
ENTRIES = st.lists(
    st.tuples(KEYS, SEQS, st.sampled_from([0, 1]), st.binary(max_size=3)), max_size=14
)
MOVES = st.lists(
    st.one_of(
        st.just(("next",)),
        st.just(("next",)),
        st.just(("next",)),
        st.just(("prev",)),
        st.just(("prev",)),
        st.just(("prev",)),
        st.just(("seek_first",)),
        st.just(("seek_last",)),
        st.tuples(st.just("seek"), KEYS, SEQS),
        st.tuples(st.just("seek_before"), KEYS),
    ),
    max_size=40,
)
Entry = tuple[bytes, int, int, bytes]


def order(entry: Entry) -> tuple[bytes, int]:
    return entry[0], -(entry[1] << 8 | entry[2])


def unique(entries: list[Entry]) -> list[Entry]:
    """Sort, and keep one entry of each (key, seq)."""
    return sorted({(entry[0], entry[1]): entry for entry in entries}.values(), key=order)


class Model:
    """A cursor that is an index into a sorted list."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.index = -1

    @property
    def valid(self) -> bool:
        return 0 <= self.index < len(self.entries)

    def move(self, name: str, *arguments: Any) -> bool:
        if name == "seek_first":
            self.index = 0
        elif name == "seek_last":
            self.index = len(self.entries) - 1
        elif name == "seek":
            key, seq = arguments
            self.index = sum(order(entry) < (key, -(seq << 8 | 0xFF)) for entry in self.entries)
        elif name == "seek_before":
            self.index = sum(entry[0] < arguments[0] for entry in self.entries) - 1
        else:
            self.index += 1 if name == "next" else -1
        return self.valid


def walk(cursor: Any, entries: list[Entry], moves: list[tuple[Any, ...]]) -> None:
    model = Model(entries)
    for name, *arguments in moves:
        if name in ("next", "prev") and not model.valid:
            with pytest.raises(ValueError, match="stands at no entry"):
                getattr(cursor, name)()
            with pytest.raises(ValueError, match="stands at no entry"):
                cursor.key
            continue
        assert model.move(name, *arguments) is getattr(cursor, name)(*arguments)
        assert model.valid is cursor.valid
        if model.valid:
            assert model.entries[model.index] == (cursor.key, cursor.seq, cursor.kind, cursor.value)


@pytest.mark.parametrize("kernel", TWINS)
@given(entries=ENTRIES, moves=MOVES)
def test_a_list_cursor_walks_its_list(
    kernel: ModuleType, entries: list[Entry], moves: list[Any]
) -> None:
    entries = unique(entries)
    walk(kernel.ListCursor(entries), entries, moves)


@pytest.mark.parametrize("kernel", TWINS)
@given(parts=st.lists(ENTRIES, max_size=6), moves=MOVES)
def test_a_merge_walks_the_sorted_union_with_ties_in_source_order(
    kernel: ModuleType, parts: list[list[Entry]], moves: list[Any]
) -> None:
    parts = [unique(part) for part in parts]
    union = sorted(
        ((entry, index) for index, part in enumerate(parts) for entry in part),
        key=lambda each: (order(each[0]), each[1]),
    )
    merge = kernel.MergeCursor([kernel.ListCursor(part) for part in parts])
    walk(merge, [entry for entry, _ in union], moves)


@pytest.mark.parametrize("kernel", TWINS)
@given(parts=st.lists(ENTRIES, min_size=2, max_size=5), moves=MOVES)
def test_a_merge_of_merges_and_python_sources_is_the_same(
    kernel: ModuleType, parts: list[list[Entry]], moves: list[Any]
) -> None:
    parts = [unique(part) for part in parts]
    union = sorted(
        ((entry, index) for index, part in enumerate(parts) for entry in part),
        key=lambda each: (order(each[0]), each[1]),
    )
    inner = kernel.MergeCursor([failing(kernel, part, fail_after=1 << 30) for part in parts[1:]])
    walk(
        kernel.MergeCursor([kernel.ListCursor(parts[0]), inner]),
        [entry for entry, _ in union],
        moves,
    )


class SourceError(Exception):
    """What an injected failure raises."""


def failing(kernel: ModuleType, entries: list[Entry], fail_after: int) -> Any:
    """Return a source written in Python that raises SourceError from its move number `fail_after`
    on.
    """

    class Failing(kernel.Cursor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = Model(entries)
            self.left = fail_after

        def _stand(self, name: str, *arguments: Any) -> Entry | None:
            if self.left <= 0:
                raise SourceError(name)
            self.left -= 1
            return entries[self.model.index] if self.model.move(name, *arguments) else None

        def _first(self) -> Entry | None:
            return self._stand("seek_first")

        def _last(self) -> Entry | None:
            return self._stand("seek_last")

        def _seek(self, key: bytes, trailer: int) -> Entry | None:
            self.model.index = sum(order(entry) < (key, -trailer) for entry in entries) - 1
            return self._stand("next")

        def _seek_before(self, key: bytes) -> Entry | None:
            return self._stand("seek_before", key)

        def _next(self) -> Entry | None:
            return self._stand("next")

        def _prev(self) -> Entry | None:
            return self._stand("prev")

    return Failing()


@pytest.mark.parametrize("kernel", TWINS)
@pytest.mark.parametrize("merged", [False, True])
@given(fail_after=st.integers(0, 8), moves=MOVES)
def test_a_failed_cursor_raises_the_same_exception_for_good(
    kernel: ModuleType, merged: bool, fail_after: int, moves: list[Any]
) -> None:
    entries = [(b"%d" % index, index, 1, b"v") for index in range(6)]
    source = failing(kernel, entries, fail_after)
    cursor = kernel.MergeCursor([kernel.ListCursor(entries), source]) if merged else source
    error: SourceError | None = None
    for name, *arguments in moves:
        try:
            getattr(cursor, name)(*arguments)
        except ValueError:
            continue
        except SourceError as raised:
            error = raised
            break
    if error is None:
        return
    for name, *arguments in [*moves, ("seek_first",), ("next",)]:
        with pytest.raises(SourceError) as caught:
            getattr(cursor, name)(*arguments)
        assert error is caught.value
    for name in ("valid", "key", "seq", "kind", "value"):
        with pytest.raises(SourceError) as caught:
            getattr(cursor, name)
        assert error is caught.value
    if merged:
        with pytest.raises(SourceError):
            source.seek_first()


@pytest.mark.parametrize("kernel", TWINS)
def test_a_dead_source_kills_the_merge_at_its_first_move(kernel: ModuleType) -> None:
    source = failing(kernel, [], 0)
    with pytest.raises(SourceError) as first:
        source.seek_first()
    merge = kernel.MergeCursor([kernel.ListCursor([]), source])
    for _ in range(2):
        with pytest.raises(SourceError) as caught:
            merge.seek_first()
        assert first.value is caught.value


@pytest.mark.parametrize("kernel", TWINS)
@pytest.mark.parametrize(
    "entries",
    [
        [(b"b", 1, 1, b""), (b"a", 1, 1, b"")],
        [(b"a", 1, 1, b""), (b"a", 2, 1, b"")],
        [(b"a", 1, 1, b""), (b"a", 1, 1, b"")],
        [(b"a", 1, 0, b""), (b"a", 1, 1, b"")],
        [(b"a", -1, 1, b"")],
        [(b"a", SEQ_MAX + 1, 1, b"")],
        [(b"a", 1, 4, b"")],
        [(b"a", 1, -1, b"")],
    ],
)
def test_a_list_that_is_out_of_order_or_range_is_refused(
    kernel: ModuleType, entries: list[Entry]
) -> None:
    with pytest.raises(ValueError):
        kernel.ListCursor(entries)


@pytest.mark.parametrize("kernel", TWINS)
@pytest.mark.parametrize(
    "entry",
    [("a", 1, 1, b""), (b"a", 1, 1, "v"), (bytearray(b"a"), 1, 1, b""), (b"a", "1", 1, b"")],
)
def test_fields_of_the_wrong_type_are_refused(kernel: ModuleType, entry: Any) -> None:
    with pytest.raises(TypeError):
        kernel.ListCursor([entry])


@pytest.mark.parametrize("kernel", TWINS)
def test_arguments_are_checked_and_leave_the_cursor_alive(kernel: ModuleType) -> None:
    cursor = kernel.ListCursor([(b"a", 1, 1, b"v")])
    cursor.seek_first()
    for wrong, kind in [
        (lambda: cursor.seek("a"), TypeError),
        (lambda: cursor.seek(b"a", "1"), TypeError),
        (lambda: cursor.seek(b"a", -1), ValueError),
        (lambda: cursor.seek(b"a", SEQ_MAX + 1), ValueError),
        (lambda: cursor.seek_before(None), TypeError),
        (lambda: kernel.MergeCursor([cursor, 1]), TypeError),
    ]:
        with pytest.raises(kind):
            wrong()
        assert cursor.valid
        assert b"a" == cursor.key


@pytest.mark.parametrize("kernel", TWINS)
def test_a_base_cursor_has_no_moves(kernel: ModuleType) -> None:
    for move in [
        lambda cursor: cursor.seek_first(),
        lambda cursor: cursor.seek_last(),
        lambda cursor: cursor.seek(b""),
        lambda cursor: cursor.seek_before(b""),
    ]:
        with pytest.raises(NotImplementedError):
            move(kernel.Cursor())


@pytest.mark.parametrize("kernel", TWINS)
def test_the_bytes_of_an_entry_outlive_the_list(kernel: ModuleType) -> None:
    entries = [(bytes([index]) * 100, 1, 1, bytes([index]) * 1000) for index in range(5)]
    expected = [(key, value) for key, _, _, value in entries]
    cursor = kernel.ListCursor(entries)
    cursor.seek_first()
    entries.clear()
    found = []
    while cursor.valid:
        found.append((cursor.key, cursor.value))
        cursor.next()
    assert expected == found
