"""Tuples as keys: order, round trip, prefixes, and refusal of everything else."""

from __future__ import annotations

import math
from enum import IntEnum

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.base import LimitError
from holdfast.codec import pack_tuple, unpack_tuple
from holdfast.codec.ordered import INT_BYTES_MAX, Item

LARGE = 1 << 8 * 255
items = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-300, 300),
    st.builds(
        lambda sign, bits, step: sign * ((1 << bits) + step),
        st.sampled_from([-1, 1]),
        st.integers(0, 2039),
        st.integers(-1, 1),
    ),
    st.floats(allow_nan=False),
    st.text(),
    st.text("\x00\x01\x02\x03a", max_size=5),
    st.binary(),
    st.lists(st.sampled_from([0, 1, 2, 3, 255]), max_size=5).map(bytes),
)
tuples = st.lists(items, max_size=4).map(tuple)

RANK = {type(None): 0, bytes: 1, str: 2, int: 3, float: 4, bool: 5}


def sort_key(values: tuple[Item, ...]) -> list[tuple[object, ...]]:
    """The documented order, said without bytes."""
    out: list[tuple[object, ...]] = []
    for value in values:
        if value is None:
            out.append((0,))
        elif isinstance(value, float):
            out.append((RANK[float], value, math.copysign(1.0, value)))
        else:
            out.append((RANK[type(value)], value))
    return out


@given(values=tuples)
def test_a_packed_tuple_unpacks_to_itself(values: tuple[Item, ...]) -> None:
    result = unpack_tuple(pack_tuple(values))
    assert result == values
    assert [type(value) for value in result] == [type(value) for value in values]


@given(first=tuples, second=tuples)
@example(first=(0.0,), second=(-0.0,))
@example(first=("a",), second=("a\x00",))
@example(first=("a", "b"), second=("a\x00b",))
@example(first=(LARGE - 1,), second=(LARGE - 2,))
@example(first=(-LARGE + 1,), second=(-LARGE + 2,))
def test_packed_tuples_sort_as_tuples_do(first: tuple[Item, ...], second: tuple[Item, ...]) -> None:
    left, right = pack_tuple(first), pack_tuple(second)
    assert (left < right) == (sort_key(first) < sort_key(second))
    assert (left == right) == (sort_key(first) == sort_key(second))


@given(first=items, second=items)
def test_no_packed_element_begins_another(first: Item, second: Item) -> None:
    left, right = pack_tuple((first,)), pack_tuple((second,))
    assert left == right or not right.startswith(left)


@given(data=st.binary(max_size=30))
def test_bytes_that_unpack_are_the_only_ones_for_their_tuple(data: bytes) -> None:
    try:
        values = unpack_tuple(data)
    except ValueError:
        return
    assert pack_tuple(values) == data


@given(values=tuples, change=st.data())
def test_damaged_keys_are_refused_or_mean_another_tuple(
    values: tuple[Item, ...], change: st.DataObject
) -> None:
    data = bytearray(pack_tuple((*values, 1)))
    position = change.draw(st.integers(0, len(data) - 1))
    data[position] = change.draw(st.integers(0, 255))
    try:
        result = unpack_tuple(data)
    except ValueError:
        return
    assert pack_tuple(result) == data


ORDER: list[Item] = [
    None, b"", b"\x00", b"\x00\x00", b"\x00\x01", b"\x01", b"\x01\x00", b"\x02", b"a", b"a\x00",
    b"a\x01", b"aa", b"\xff", b"\xff\xff",
    "", "\x00", "\x01", "a", "a\x00", "ab", "b", "\u00e9", "\uffff", "\U0001f600",
    -LARGE + 1, -(2**72), -(2**64), -(2**64) + 1, -(2**63), -257, -256, -255,
    -1, 0, 1, 255, 256, 2**63, 2**64 - 1, 2**64, 2**72, LARGE - 1,
    -math.inf, -1e308, -1.0, -5e-324, -0.0, 0.0, 5e-324, 1.0, 1.5, math.inf, math.nan, False, True,
]  # fmt: skip


def test_all_kinds_of_items_sort_as_documented() -> None:
    packed = [pack_tuple((item,)) for item in ORDER]
    assert packed == sorted(packed)
    assert len(set(packed)) == len(ORDER)


def test_a_tuple_sorts_before_its_extensions() -> None:
    for item in ORDER:
        assert pack_tuple(("a",)) < pack_tuple(("a", item)) < pack_tuple(("a\x00",))


def test_every_nan_is_one_and_comes_back() -> None:
    assert pack_tuple((math.nan,)) == pack_tuple((math.copysign(math.nan, -1.0),))
    (value,) = unpack_tuple(pack_tuple((math.nan,)))
    assert isinstance(value, float) and math.isnan(value)
    (zero,) = unpack_tuple(pack_tuple((-0.0,)))
    assert isinstance(zero, float) and math.copysign(1.0, zero) == -1.0


def test_subclasses_and_buffers_count_as_their_base() -> None:
    class Color(IntEnum):
        RED = 3

    class Name(str):
        __slots__ = ()

    assert unpack_tuple(pack_tuple([Color.RED, Name("x"), bytearray(b"y"), memoryview(b"z")])) == (
        3,
        "x",
        b"y",
        b"z",
    )
    assert unpack_tuple(memoryview(pack_tuple(("a", 1)))) == ("a", 1)
    assert pack_tuple(()) == b""
    assert unpack_tuple(b"") == ()


@pytest.mark.parametrize("item", [(), [], {}, 1j, object()])
def test_other_types_are_type_errors(item: object) -> None:
    with pytest.raises(TypeError, match="a tuple key holds"):
        pack_tuple([item])  # type: ignore[list-item]


@pytest.mark.parametrize("data", ["text", 5, None])
def test_only_bytes_unpack(data: object) -> None:
    with pytest.raises(TypeError):
        unpack_tuple(data)  # type: ignore[arg-type]


def test_ints_of_every_width_come_back_and_sort() -> None:
    bounds = [256**width for width in range(INT_BYTES_MAX)]
    values = sorted(
        {sign * (bound - less) for bound in bounds for less in (0, 1) for sign in (1, -1)}
    )
    values += [256**INT_BYTES_MAX - 1]
    packed = [pack_tuple((value,)) for value in values]
    assert packed == sorted(packed)
    assert [unpack_tuple(data) for data in packed] == [(value,) for value in values]
    # Up to eight bytes the tag says how many.
    assert [len(pack_tuple((256**width - 1,))) for width in (7, 8, 9)] == [8, 9, 11]
    assert [len(pack_tuple((1 - 256**width,))) for width in (7, 8, 9)] == [8, 9, 11]


def test_an_int_beyond_255_bytes_is_a_limit_error() -> None:
    for value in (LARGE, -LARGE):
        with pytest.raises(LimitError, match="256 bytes"):
            pack_tuple((value,))


def test_a_lone_surrogate_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        pack_tuple(("\ud800",))


@pytest.mark.parametrize(
    "data",
    [
        "00", "ff", "11", "72", "46", "5a",
        "20", "2061", "200100", "20010300", "20016100", "30ff00", "30c08000", "30eda08000",
        "51", "5100", "5200ff", "4f", "4fff", "4eff00",
        "59", "5909", "5908" + "01" * 8, "5909" + "00" * 9, "590901",
        "47", "47f7" + "00" * 8, "47f6" + "ff" * 9,
        "60", "60" + "80" * 7, "60fff0000000000001", "60ffffffffffffffff", "600000000000000000",
    ],
)  # fmt: skip
def test_malformed_keys_are_refused(data: str) -> None:
    with pytest.raises(ValueError):
        unpack_tuple(bytes.fromhex(data))
