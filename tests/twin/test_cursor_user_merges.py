"""Goal: both twins of the user cursor give keys with MERGE entries the value that a plain
computation over all versions says.

Method: random versions with many operands of a key, tombstones, snapshots, bounds, private writes
and directions, over several sources; the function is "append", so that each operand and its place
shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.base import DELETE, MERGE, PUT
from holdfast.merge import Merges
from tests.twin.test_cursor_user import TWINS, Entry, taken

MERGES = Merges()
KEYS = st.sampled_from([b"", b"k", b"k\x00", b"l"])
OWN_FIRST, OWN_LAST = 1000, 1050
SEQS = st.one_of(st.integers(1, 40), st.integers(OWN_FIRST, OWN_LAST))
KINDS = st.sampled_from([MERGE, MERGE, MERGE, MERGE, MERGE, MERGE, PUT, DELETE])
VERSIONS = st.lists(st.tuples(KEYS, SEQS, KINDS, st.binary(max_size=2)), max_size=80)
TOMBSTONES = st.lists(st.tuples(KEYS, KEYS, st.integers(1, 40)), max_size=2)
OWN_TOMBSTONES = st.lists(st.tuples(KEYS, KEYS, st.integers(OWN_FIRST, OWN_LAST)), max_size=1)


def entries_of(drawn: list[Any]) -> list[Entry]:
    """Return versions in internal order, each number of a key once."""
    unique = {(key, seq): (key, seq, kind, value) for key, seq, kind, value in drawn}
    made = [
        (key, seq, kind, MERGES.value_of("append", value) if kind == MERGE else value)
        for key, seq, kind, value in unique.values()
    ]
    return sorted(made, key=lambda each: (each[0], -(each[1] << 8 | each[2])))


def value_of(versions: Sequence[Entry], key: bytes, cover: int) -> bytes | None:
    """Return the value of a key out of all its visible versions."""
    value: bytes | None = None
    for _, seq, kind, data in sorted(versions, key=lambda each: each[1]):
        if seq < cover or kind == DELETE:
            value = None
        elif kind == PUT:
            value = data
        else:
            value = (value or b"") + data[1:]
    newest = max((seq for _, seq, _, _ in versions), default=0)
    return None if newest < cover else value


class Source:
    """What gives merged values: a plain computation too."""

    def __init__(self, versions: list[Entry], tombstones: list[Any]) -> None:
        self._versions = versions
        self._tombstones = tombstones
        self.asked = 0

    def merged(self, key: bytes, snapshot: int) -> bytes | None:
        self.asked += 1
        visible = [each for each in self._versions if each[0] == key and each[1] <= snapshot]
        cover = max(
            (n for start, stop, n in self._tombstones if start <= key < stop and n <= snapshot),
            default=0,
        )
        return value_of(visible, key, cover)

    def fold(self, key: bytes, base: bytes | None, entries: Sequence[bytes]) -> bytes:
        return MERGES.fold(key, base, entries)


@pytest.mark.parametrize("kernel", TWINS)
@example(
    drawn=[(b"k", seq, MERGE, b"%d" % (seq % 10)) for seq in range(1, 41)],
    tombstones=[[]], own=[], snapshot=35, overlaid=True, lower=None, upper=None, reverse=True,
    what=0, sources=3, chunk=None, columns=False,
)  # fmt: skip
@given(
    drawn=VERSIONS,
    tombstones=st.lists(TOMBSTONES, max_size=2),
    own=OWN_TOMBSTONES,
    snapshot=st.integers(0, 41),
    overlaid=st.booleans(),
    lower=st.none() | KEYS,
    upper=st.none() | KEYS,
    reverse=st.booleans(),
    what=st.sampled_from([0, 1, 2]),
    sources=st.integers(1, 4),
    chunk=st.none() | st.integers(1, 3),
    columns=st.booleans(),
)
def test_the_values_are_what_the_versions_say(
    kernel: Any,
    drawn: list[Any],
    tombstones: list[Any],
    own: list[Any],
    snapshot: int,
    overlaid: bool,
    lower: bytes | None,
    upper: bytes | None,
    reverse: bool,
    what: int,
    sources: int,
    chunk: int | None,
    columns: bool,
) -> None:
    versions = entries_of(drawn)
    lists = [kernel.ListCursor(versions[start::sources]) for start in range(sources)]
    source = lists[0] if sources == 1 else kernel.MergeCursor(lists)
    overlay = None
    last = 0
    if overlaid:
        last = OWN_LAST - 10
        overlay = kernel.Overlay(OWN_FIRST, last, [kernel.RangeTombstones(own)])
    merges = Source(versions, [each for some in tombstones for each in some])
    cursor = kernel.UserCursor(
        source, [kernel.RangeTombstones(each) for each in tombstones], snapshot, lower, upper,
        reverse, None, what, None, None, overlay, merges,
    )  # fmt: skip
    if chunk is None:
        found = list(cursor)
    else:
        found = []
        while rows := taken(cursor, chunk, what, columns):
            found.extend(rows)
    expected = []
    spans = [each for some in tombstones for each in some if each[2] <= snapshot]
    spans += [each for each in own if each[2] <= last]
    for key in sorted({each[0] for each in versions}, reverse=reverse):
        visible = [
            each
            for each in versions
            if each[0] == key and (each[1] <= snapshot or OWN_FIRST <= each[1] <= last)
        ]
        cover = max((n for start, stop, n in spans if start <= key < stop), default=0)
        value = value_of(visible, key, cover)
        if (
            visible
            and value is not None
            and (lower or b"") <= key < (b"\xff" if upper is None else upper)
        ):
            expected.append((key, value))
    wanted: list[Any] = [
        (key, value)[what - 1] if what else (key, value) for key, value in expected
    ]
    assert wanted == found


@pytest.mark.parametrize("kernel", TWINS)
@pytest.mark.parametrize("reverse", [False, True])
def test_without_a_source_of_merges_an_operand_is_refused(kernel: Any, reverse: bool) -> None:
    source = kernel.ListCursor([(b"k", 1, MERGE, b"\x04x")])
    cursor = kernel.UserCursor(source, reverse=reverse)
    for _ in range(2):
        with pytest.raises(ValueError, match="kind 3 among point entries"):
            next(cursor)


@pytest.mark.parametrize("kernel", TWINS)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_function_that_fails_ends_the_cursor_for_good(kernel: Any, reverse: bool) -> None:
    class Failing(Source):
        def fold(self, key: bytes, base: bytes | None, entries: Sequence[bytes]) -> bytes:
            raise ZeroDivisionError

    versions = [(b"a", 2, MERGE, b"\x04x"), (b"a", 1, MERGE, b"\x04x"), (b"b", 1, PUT, b"")]
    cursor = kernel.UserCursor(
        kernel.ListCursor(versions), reverse=reverse, merges=Failing(versions, [])
    )
    if reverse:
        assert (b"b", b"") == next(cursor)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            next(cursor)
    # Whoever asks for keys needs no function.
    keys = kernel.UserCursor(
        kernel.ListCursor(versions), reverse=reverse, what=1, merges=Failing(versions, [])
    )
    assert sorted(keys) == [b"a", b"b"]


@pytest.mark.parametrize("kernel", TWINS)
@pytest.mark.parametrize("reverse", [False, True])
def test_what_came_between_own_operands_and_the_snapshot_is_passed_over(
    kernel: Any, reverse: bool
) -> None:
    """Own writes come first, then what others committed since, then what the snapshot has."""
    versions = [
        (b"k", OWN_LAST, MERGE, b"\x04too new"),
        (b"k", OWN_FIRST, MERGE, b"\x04d"),
        (b"k", 30, MERGE, b"\x04since"),
        (b"k", 29, PUT, b"since"),
        (b"k", 10, MERGE, b"\x04c"),
        (b"k", 9, MERGE, b"\x04b"),
        (b"k", 8, PUT, b"a"),
        (b"k", 7, MERGE, b"\x04older"),
        (b"l", 1, PUT, b"last"),
    ]
    cursor = kernel.UserCursor(
        kernel.ListCursor(versions), (), 20, reverse=reverse,
        overlay=kernel.Overlay(OWN_FIRST, OWN_FIRST), merges=Source(versions, []),
    )  # fmt: skip
    assert [(b"k", b"abcd"), (b"l", b"last")] == sorted(cursor)


@pytest.mark.parametrize("kernel", TWINS)
@pytest.mark.parametrize("reverse", [False, True])
def test_an_operand_that_is_in_two_sources_counts_once(kernel: Any, reverse: bool) -> None:
    versions = [
        (b"k", 9, MERGE, b"\x04c"),
        (b"k", 8, MERGE, b"\x04b"),
        (b"k", 7, PUT, b"a"),
    ]
    sources = [kernel.ListCursor(versions), kernel.ListCursor(versions[:2])]
    cursor = kernel.UserCursor(
        kernel.MergeCursor(sources), reverse=reverse, merges=Source(versions, [])
    )
    assert [(b"k", b"abc")] == list(cursor)
