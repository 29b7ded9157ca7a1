"""Goal: the bounds of a scan, as users write them, become the one range that means the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base import KEY_BYTES_MAX, LimitError
from holdfast.base.bounds import key_range

KEYS = st.one_of(
    st.sampled_from([b"", b"a", b"a\xff", b"ab", b"b", b"\xff", b"\xff\xff", b"\xff\xff\x00"]),
    st.binary(max_size=3),
)
BOUNDS = st.one_of(st.none(), KEYS)


@given(start=BOUNDS, stop=BOUNDS, prefix=BOUNDS, key=KEYS)
def test_a_key_is_in_the_range_when_all_bounds_say_so(
    start: bytes | None, stop: bytes | None, prefix: bytes | None, key: bytes
) -> None:
    lower, upper = key_range(start, stop, prefix)
    expected = (
        (start is None or start <= key)
        and (stop is None or key < stop)
        and (prefix is None or key.startswith(prefix))
    )
    assert expected == ((lower is None or lower <= key) and (upper is None or key < upper))


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ((None, None, None), (None, None)),
        ((b"a", b"b", None), (b"a", b"b")),
        ((None, None, b""), (b"", None)),
        ((None, None, b"user/"), (b"user/", b"user0")),
        ((None, None, b"\xff"), (b"\xff", None)),
        ((None, None, b"a\xff"), (b"a\xff", b"b")),
        ((b"b", None, b"a"), (b"b", b"b")),
        ((b"ab", b"ac", b"a"), (b"ab", b"ac")),
        ((bytearray(b"a"), memoryview(b"b"), None), (b"a", b"b")),
    ],
)
def test_examples(given_: tuple[object, ...], expected: tuple[object, ...]) -> None:
    assert expected == key_range(*given_)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_bounds_are_keys(position: int) -> None:
    bounds: list[object] = [None, None, None]
    bounds[position] = "text"
    with pytest.raises(TypeError):
        key_range(*bounds)
    bounds[position] = b"x" * (KEY_BYTES_MAX + 1)
    with pytest.raises(LimitError):
        key_range(*bounds)
