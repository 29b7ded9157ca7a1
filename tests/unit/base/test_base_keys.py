"""Keys, trailers and limits: boundaries by hand, laws by Hypothesis."""

import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base import (
    DELETE,
    KEY_BYTES_MAX,
    PUT,
    RANGE_DELETE,
    SEQ_MAX,
    LimitError,
    check_key,
    check_value,
    keys,
    pack_trailer,
    prefix_upper,
    successor,
    unpack_trailer,
)


def test_kinds_are_part_of_the_file_format():
    assert (DELETE, PUT, RANGE_DELETE) == (0, 1, 2)


@given(st.integers(0, SEQ_MAX), st.integers(0, 255))
def test_a_trailer_unpacks_to_what_was_packed_and_fits_64_bits(seq, kind):
    trailer = pack_trailer(seq, kind)
    assert unpack_trailer(trailer) == (seq, kind)
    assert trailer < 1 << 64


@given(st.integers(0, SEQ_MAX - 1))
def test_a_newer_sequence_number_has_the_greater_trailer_whatever_the_kinds(seq):
    assert pack_trailer(seq, 255) < pack_trailer(seq + 1, 0)


@given(st.binary(max_size=4), st.binary(max_size=4))
def test_nothing_lies_between_a_key_and_its_successor(key, other):
    assert key < successor(key)
    assert not key < other < successor(key)


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [(b"", None), (b"\xff", None), (b"\xff\xff", None), (b"a", b"b"), (b"a\xff", b"b")],
)
def test_prefix_upper_at_its_boundaries(prefix, expected):
    assert prefix_upper(prefix) == expected


@given(st.binary(max_size=3), st.binary(max_size=5))
def test_prefix_upper_parts_the_keys_with_the_prefix_from_those_above(prefix, key):
    upper = prefix_upper(prefix)
    inside = key >= prefix and (upper is None or key < upper)
    assert inside == key.startswith(prefix)


@pytest.mark.parametrize("check", [check_key, check_value])
@pytest.mark.parametrize(
    "value", [b"ab", bytearray(b"ab"), memoryview(b"ab"), memoryview(b"a-b-")[::2]]
)
def test_any_bytes_like_object_becomes_bytes(check, value):
    result = check(value)
    assert type(result) is bytes
    assert result == bytes(value)


def test_an_array_is_taken_by_its_bytes():
    assert check_key(array.array("B", [1, 2])) == b"\x01\x02"


@pytest.mark.parametrize(("check", "role"), [(check_key, "key"), (check_value, "value")])
def test_text_is_refused_with_the_way_to_encode_it(check, role):
    with pytest.raises(TypeError, match=rf"{role} is bytes, not str.*{role}\.encode"):
        check("text")


@pytest.mark.parametrize("value", [None, 1, 1.5, ["a"], object()])
def test_other_types_are_refused_by_name(value):
    with pytest.raises(TypeError, match=f"bytes-like, not {type(value).__name__}"):
        check_key(value)


def test_a_key_may_have_the_limit_and_not_one_byte_more():
    assert len(check_key(bytes(KEY_BYTES_MAX))) == KEY_BYTES_MAX
    with pytest.raises(LimitError, match="65537 bytes; the limit is 65536"):
        check_key(bytes(KEY_BYTES_MAX + 1))


def test_a_value_may_have_the_limit_and_not_one_byte_more(monkeypatch):
    monkeypatch.setattr(keys, "VALUE_BYTES_MAX", 10)
    assert check_value(bytes(10)) == bytes(10)
    with pytest.raises(LimitError, match="11 bytes; the limit is 10"):
        check_value(bytes(11))
