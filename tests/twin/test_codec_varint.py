"""Both twins of `holdfast.codec._varint` agree on every value and refuse every other encoding."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.codec import _varint_c, _varint_py

TWINS = [pytest.param(_varint_c, id="c"), pytest.param(_varint_py, id="py")]
VALUES = [0, 1, 127, 128, 300, 2**14 - 1, 2**14, 2**32, 2**63 - 1, 2**63, 2**64 - 1]


@pytest.mark.parametrize("twin", TWINS)
def test_known_values_have_known_bytes(twin: Any) -> None:
    assert twin.encode_varint(0) == b"\x00"
    assert twin.encode_varint(127) == b"\x7f"
    assert twin.encode_varint(128) == b"\x80\x01"
    assert twin.encode_varint(300) == b"\xac\x02"
    assert twin.encode_varint(2**64 - 1) == b"\xff" * 9 + b"\x01"


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("value", VALUES)
def test_values_round_trip_at_any_offset(twin: Any, value: int) -> None:
    encoded = twin.encode_varint(value)
    assert len(encoded) == max(1, -(-value.bit_length() // 7))
    for offset in range(3):
        assert twin.decode_varint(b"xyz"[:offset] + encoded + b"tail", offset) == (
            value,
            offset + len(encoded),
        )


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("value", VALUES)
def test_cut_varints_are_refused(twin: Any, value: int) -> None:
    encoded = twin.encode_varint(value)
    for end in range(len(encoded)):
        with pytest.raises(ValueError, match="malformed varint"):
            twin.decode_varint(encoded[:end], 0)


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"\x80\x00",
        b"\xff\x00",
        b"\xff\xff\x80\x00",
        b"\x80" * 9 + b"\x00",
        b"\xff" * 9 + b"\x02",
        b"\xff" * 9 + b"\x7f",
        b"\x80" * 10 + b"\x01",
        b"\xff" * 10 + b"\x01",
        b"\xff" * 1000,
    ],
)
def test_malformed_varints_are_refused(twin: Any, data: bytes) -> None:
    with pytest.raises(ValueError, match="malformed varint"):
        twin.decode_varint(data, 0)


@pytest.mark.parametrize("twin", TWINS)
def test_wrong_arguments_are_refused(twin: Any) -> None:
    for value in (-1, 2**64, 2**100):
        with pytest.raises(ValueError):
            twin.encode_varint(value)
    for offset in (-1, 4, 2**100):
        with pytest.raises(ValueError, match="outside the data"):
            twin.decode_varint(b"\x01\x02\x03", offset)
    with pytest.raises(ValueError, match="malformed varint"):
        twin.decode_varint(b"\x01\x02\x03", 3)
    for wrong in (1.5, "1", None):
        with pytest.raises(TypeError):
            twin.encode_varint(wrong)
        with pytest.raises(TypeError):
            twin.decode_varint(b"\x01", wrong)
        with pytest.raises(TypeError):
            twin.decode_varint(wrong, 0)
    with pytest.raises(BufferError):
        twin.decode_varint(memoryview(b"abcdef")[::2], 0)


@pytest.mark.parametrize("twin", TWINS)
def test_any_contiguous_buffer_is_accepted(twin: Any) -> None:
    assert twin.decode_varint(bytearray(b"\xac\x02"), 0) == (300, 2)
    assert twin.decode_varint(data=memoryview(b"\xac\x02"), offset=0) == (300, 2)


def outcome(twin: Any, data: bytes, offset: int) -> object:
    try:
        return twin.decode_varint(data, offset)
    except ValueError as error:
        return str(error)


varint_like = st.builds(
    lambda body, last: bytes(byte | 0x80 for byte in body) + last,
    st.binary(max_size=11),
    st.binary(max_size=2),
)


@given(data=st.one_of(st.binary(max_size=14), varint_like), offset=st.integers(-1, 15))
@example(data=b"\xff" * 9 + b"\x01", offset=0)
def test_the_twins_agree_on_any_bytes(data: bytes, offset: int) -> None:
    result = outcome(_varint_c, data, offset)
    assert result == outcome(_varint_py, data, offset)
    if isinstance(result, tuple):
        value, end = result
        assert _varint_py.encode_varint(value) == data[offset:end]


@given(value=st.integers(0, 2**64 - 1))
def test_the_twins_agree_on_any_value(value: int) -> None:
    encoded = _varint_c.encode_varint(value)
    assert encoded == _varint_py.encode_varint(value)
    assert _varint_c.decode_varint(encoded, 0) == (value, len(encoded))
