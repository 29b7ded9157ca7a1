"""Goal: both twins of the kernel that reads pairs hand on what an iterable gives, each pair once
and as late as possible, and refuse what does not ascend.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base import KEY_BYTES_MAX, PUT, LimitError
from holdfast.cursor import _pairs_c, _pairs_py

TWINS = [pytest.param(_pairs_c, id="c"), pytest.param(_pairs_py, id="py")]
twins = pytest.mark.parametrize("twin", TWINS)


def walk(cursor: Any) -> list[tuple[bytes, int, int, bytes]]:
    found = []
    more = cursor.seek_first()
    while more:
        found.append((cursor.key, cursor.seq, cursor.kind, cursor.value))
        more = cursor.next()
    assert not cursor.valid
    return found


def outcome(twin: ModuleType, pairs: Any) -> Any:
    """What a walk gives, or the exception that ends it."""
    try:
        return walk(twin.PairCursor(pairs))
    except Exception as error:
        return type(error), str(error)


@twins
def test_pairs_are_puts_without_a_number(twin: ModuleType) -> None:
    pairs = [(b"", b"none"), (b"a", b""), (b"a\0", b"x" * 1000), (b"\xff" * 300, b"z")]
    assert walk(twin.PairCursor(pairs)) == [(key, 0, PUT, value) for key, value in pairs]
    assert walk(twin.PairCursor(())) == []


@twins
def test_any_pair_of_bytes_like_objects_is_one(twin: ModuleType) -> None:
    pairs = [[b"a", bytearray(b"1")], (memoryview(b"b"), b"2"), iter((bytearray(b"c"), b"3"))]
    assert [(key, value) for key, _, _, value in walk(twin.PairCursor(pairs))] == [
        (b"a", b"1"),
        (b"b", b"2"),
        (b"c", b"3"),
    ]


@twins
def test_a_pair_is_asked_for_when_the_cursor_moves_to_it(twin: ModuleType) -> None:
    asked = []

    def pairs() -> Iterator[tuple[bytes, bytes]]:
        for number in range(4):
            asked.append(number)
            yield b"%d" % number, b""

    cursor = twin.PairCursor(pairs())
    assert not asked
    for number in range(4):
        assert cursor.next() if number else cursor.seek_first()
        assert asked == list(range(number + 1))
        assert cursor.key == b"%d" % number


@twins
@pytest.mark.parametrize(
    ("pairs", "kind", "text"),
    [
        ([(b"b", b""), (b"a", b"")], ValueError, "b'a' stands behind b'b'"),
        ([(b"b", b"1"), (b"b", b"2")], ValueError, "b'b' stands behind b'b'"),
        ([(b"ab", b""), (b"a", b"")], ValueError, "b'a' stands behind b'ab'"),
        ([(b"z" * 99, b""), (b"a", b"")], ValueError, r"b'z{64}'\.\.\. of 99 bytes"),
        ([("a", b"")], TypeError, "a key is bytes, not str"),
        ([(b"a", 1)], TypeError, "a value is bytes-like, not int"),
        ([(b"a",)], ValueError, "unpack"),
        ([(b"a", b"b", b"c")], ValueError, "unpack"),
        ([None], TypeError, "NoneType"),
        ([(b"k" * (KEY_BYTES_MAX + 1), b"")], LimitError, "the key has 65537 bytes"),
    ],
)
def test_what_is_no_ascending_pair_is_refused(
    twin: ModuleType, pairs: Any, kind: type[Exception], text: str
) -> None:
    cursor = twin.PairCursor(iter(pairs))
    with pytest.raises(kind, match=text):
        walk(cursor)
    # It is dead.
    with pytest.raises(kind, match=text):
        cursor.valid
    with pytest.raises(TypeError, match="not iterable"):
        twin.PairCursor(7)


@twins
def test_an_error_of_the_iterable_is_passed_on_as_it_is(twin: ModuleType) -> None:
    failure = OSError(5, "of the iterable")

    def pairs() -> Iterator[tuple[bytes, bytes]]:
        yield b"a", b""
        raise failure

    cursor = twin.PairCursor(pairs())
    assert cursor.seek_first()
    with pytest.raises(OSError, match="of the iterable") as caught:
        cursor.next()
    assert caught.value is failure


@twins
@pytest.mark.parametrize("move", ["seek_last", "seek_first", "prev", "seek", "seek_before"])
def test_pairs_are_read_once_and_forward(twin: ModuleType, move: str) -> None:
    cursor = twin.PairCursor([(b"a", b""), (b"b", b"")])
    assert cursor.seek_first()
    arguments = (b"a",) if move in {"seek", "seek_before"} else ()
    with pytest.raises(ValueError, match="pairs are read once"):
        getattr(cursor, move)(*arguments)


KEYS = st.binary(max_size=2) | st.sampled_from([bytearray(b"b"), "a", None, 5])


@given(st.lists(st.tuples(KEYS, KEYS), max_size=6), st.booleans())
def test_the_twins_do_the_same_with_any_pairs(pairs: Any, is_sorted: bool) -> None:
    if is_sorted:
        pairs = sorted(pair for pair in pairs if all(type(each) is bytes for each in pair))
    assert outcome(_pairs_c, pairs) == outcome(_pairs_py, pairs)
