"""Goal: the built-in merge functions do what they say with every operand and every value, and the
registry says clearly what it cannot do.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import holdfast
from holdfast.base import VALUE_BYTES_MAX, LimitError, MergeError
from holdfast.merge import MergeFunction, Merges, pack_set, registry, split, unpack_set
from holdfast.merge.function import (
    NUMBER_BYTES_MAX,
    OPERAND_DIGITS_MAX,
    number_from,
    numbers_from,
)

MERGES = Merges()
NUMBERS = st.lists(st.integers(-(10**30), 10**30), min_size=1, max_size=6)
MEMBERS = st.lists(st.binary(max_size=4), max_size=6)


def fold(base: bytes | None, function: str, operands: Sequence[object]) -> bytes:
    """Fold operands, the oldest first."""
    return MERGES.fold(b"k", base, [MERGES.value_of(function, each) for each in reversed(operands)])


def combined(function: str, operands: Sequence[object]) -> bytes:
    """Combine operands into one, and fold that over nothing."""
    entries = [MERGES.value_of(function, each) for each in reversed(operands)]
    [(index, entry)] = MERGES.combine(b"k", entries)
    assert 0 == index
    return MERGES.fold(b"k", None, [entry])


@given(st.none() | st.integers(-(10**30), 10**30), NUMBERS)
def test_numbers_are_added_and_compared(base: int | None, numbers: list[int]) -> None:
    value = None if base is None else b"%d" % base
    all_of = numbers if base is None else [base, *numbers]
    assert b"%d" % sum(all_of) == fold(value, "add", numbers)
    assert b"%d" % max(all_of) == fold(value, "max", numbers)
    assert b"%d" % min(all_of) == fold(value, "min", numbers)
    for function, choose in (("add", sum), ("max", max), ("min", min)):
        assert b"%d" % choose(numbers) == combined(function, numbers)


@given(st.none() | st.binary(max_size=5), st.lists(st.binary(max_size=5), min_size=1, max_size=6))
def test_bytes_are_appended(base: bytes | None, pieces: list[bytes]) -> None:
    assert (base or b"") + b"".join(pieces) == fold(base, "append", pieces)
    assert b"".join(pieces) == combined("append", pieces)


@given(st.none() | MEMBERS, st.lists(MEMBERS, min_size=1, max_size=5))
def test_sets_are_united(base: list[bytes] | None, sets: list[list[bytes]]) -> None:
    value = None if base is None else pack_set(base)
    united: set[bytes] = reduce(lambda a, b: a | set(b), sets, set(base or ()))
    assert united == unpack_set(fold(value, "union", sets))
    assert set().union(*sets) == unpack_set(combined("union", sets))


def test_functions_of_one_key_apply_in_their_order() -> None:
    operands = (("max", 5), ("add", 3), ("add", 4), ("min", 9), ("append", b"0"))
    entries = [MERGES.value_of(function, operand) for function, operand in reversed(operands)]
    assert b"90" == MERGES.fold(b"k", b"2", entries)
    found = MERGES.combine(b"k", entries)
    assert [0, 1, 2, 4] == [index for index, _ in found]
    assert MERGES.value_of("add", 7) == found[2][1]
    assert b"90" == MERGES.fold(b"k", b"2", [entry for _, entry in found])


@pytest.mark.parametrize(
    "value", [b"", b"x", b"1 ", b" 1", b"1_0", b"1.0", b"0x1", b"--1", b"+", b"-", b"\xb2"]
)
def test_a_value_that_is_no_number_is_named(value: bytes) -> None:
    with pytest.raises(MergeError, match=r"'add' failed on key b'k'.*decimal integer"):
        fold(value, "add", [1])
    with pytest.raises(MergeError, match="decimal integer"):
        fold(b"9" * (NUMBER_BYTES_MAX + 1), "max", [1])


TEXTS = st.one_of(
    st.text("+-0123456789", max_size=4).map(str.encode),
    st.text("+-01_ \n.x", max_size=4).map(str.encode),
    st.sampled_from([b"\xb2", b"9" * NUMBER_BYTES_MAX, b"0" * (NUMBER_BYTES_MAX + 1)]),
)


@given(st.lists(TEXTS, max_size=4))
def test_many_numbers_are_read_as_each_one(texts: list[bytes]) -> None:
    try:
        expected = [number_from(text) for text in texts]
    except ValueError as error:
        with pytest.raises(ValueError, match="decimal integer") as caught:
            numbers_from(texts)
        assert str(error) == str(caught.value)
    else:
        assert expected == numbers_from(texts)


def test_numbers_may_be_written_in_other_ways() -> None:
    assert b"8" == fold(b"+007", "add", [1])
    assert b"-6" == fold(b"-007", "add", [1])


def test_sums_do_not_overflow() -> None:
    largest = 10**OPERAND_DIGITS_MAX - 1
    assert b"%d" % (3 * largest) == fold(None, "add", [largest] * 3)
    assert b"%d" % (-3 * largest) == fold(None, "add", [-largest] * 3)
    for too_large in (largest + 1, -largest - 1):
        with pytest.raises(LimitError, match="digits"):
            MERGES.value_of("add", too_large)
    with pytest.raises(MergeError, match="more than 4000 bytes"):
        fold(b"9" * NUMBER_BYTES_MAX, "add", [1])


def test_operands_have_their_types() -> None:
    for function, operand in (
        ("add", b"1"), ("add", 1.0), ("add", True), ("max", None), ("min", "1"), ("append", 1),
        ("append", "x"), ("union", b"members"), ("union", "members"), ("union", [1]), ("union", 1),
        ("union", ["x"]),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            MERGES.value_of(function, operand)
    assert b"\x04xy" == MERGES.value_of("append", memoryview(b"xy"))
    assert b"\x05\x01a\x01b" == MERGES.value_of("union", [bytearray(b"b"), b"a", b"b"])


@pytest.mark.parametrize("value", [b"\x02a", b"\x01b\x01a", b"\x01a\x01a", b"\x80", b"\x81\x00a"])
def test_a_value_that_is_no_set_is_named(value: bytes) -> None:
    with pytest.raises(ValueError):
        unpack_set(value)
    with pytest.raises(MergeError, match="'union' failed"):
        fold(value, "union", [[b"x"]])


def test_a_named_function_needs_its_registration() -> None:
    merges = Merges({"last": MergeFunction(lambda value, operands: operands[-1])})
    entry = merges.value_of("last", bytearray(b"x"))
    assert b"\x00\x04lastx" == entry
    assert ("last", b"x") == split(b"k", entry)
    assert b"y" == merges.fold(b"k", None, [merges.value_of("last", b"y"), entry])
    assert [(0, entry), (1, entry)] == merges.combine(b"k", [entry, entry])
    with pytest.raises(MergeError, match=r"'last' is not registered: .*merges="):
        MERGES.fold(b"k", None, [entry])
    with pytest.raises(MergeError, match="not registered"):
        MERGES.value_of("last", b"x")
    # What is not known is kept.
    assert [(0, entry), (1, entry)] == MERGES.combine(b"k", [entry, entry])


def test_bad_registrations_are_refused() -> None:
    for named, error in (
        ({"add": len}, LimitError), ({"": len}, LimitError), ({"x" * 65: len}, LimitError),
        ({1: len}, TypeError), ({"x": None}, TypeError),
    ):  # fmt: skip
        with pytest.raises(error):
            Merges(named)  # type: ignore[arg-type]


def test_what_a_function_returns_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    key = b"k" * 60
    for result, said in ((None, "NoneType"), ("x", "str"), (bytearray(b"x"), "bytearray")):
        merges = Merges({"odd": lambda value, operands, result=result: result})
        with pytest.raises(MergeError, match=rf"returned {said} for key .*\(60 bytes\), and not"):
            merges.fold(key, None, [merges.value_of("odd", b"")])
    monkeypatch.setattr(registry, "VALUE_BYTES_MAX", 10)
    with pytest.raises(MergeError, match="made 12 bytes of key b'k'; the limit is 10"):
        fold(b"123456", "append", [b"123456"])
    # Operands are left apart when they would become too large together.
    entries = [MERGES.value_of("append", b"12345")] * 2
    assert [(0, entries[0]), (1, entries[1])] == MERGES.combine(b"k", entries)
    assert VALUE_BYTES_MAX > 10


@pytest.mark.parametrize(
    "entry", [b"", b"\x06", b"\xff1", b"\x00", b"\x00\x00", b"\x00\x02a", b"\x00\x41" + b"x" * 65,
              b"\x00\x01\xff"]
)  # fmt: skip
def test_an_operand_of_a_newer_version_is_named(entry: bytes) -> None:
    for call in (
        lambda: MERGES.fold(b"k", None, [entry]),
        lambda: MERGES.combine(b"k", [entry, entry]),
        lambda: split(b"k", entry),
    ):
        with pytest.raises(MergeError, match="newer version"):
            call()


def test_the_public_names() -> None:
    assert holdfast.MergeFunction is MergeFunction
    assert holdfast.unpack_set(holdfast.pack_set([b"a"])) == {b"a"}
    value: Any = holdfast.MergeError
    assert issubclass(value, holdfast.Error)
