"""Both twins of the filter kernel write the same filters, miss no key, and stand any body."""

from __future__ import annotations

import random
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base import LimitError
from holdfast.codec import checksum
from holdfast.sstable import _filter_c, _filter_py

TWINS = [_filter_py, _filter_c]
HASHES = st.integers(min_value=0, max_value=(1 << 64) - 1)

both = pytest.mark.parametrize("twin", TWINS, ids=["py", "c"])


def build(twin: ModuleType, bits: int, hashes: list[int]) -> bytes:
    builder = twin.FilterBuilder(bits)
    for value in hashes:
        builder.add_hash(value)
    assert builder.count == len(hashes)
    body: bytes = builder.finish()
    assert builder.count == 0
    return body


@given(st.integers(min_value=1, max_value=64), st.lists(HASHES, max_size=200))
def test_twins_write_the_same_bytes_and_find_every_key(bits: int, hashes: list[int]) -> None:
    bodies = [build(twin, bits, hashes) for twin in TWINS]
    assert bodies[0] == bodies[1]
    for twin in TWINS:
        assert twin.filter_check(bodies[0]) is None
        assert all(twin.filter_may_contain(bodies[0], value) for value in hashes)


def test_many_hashes_keep_their_order_where_their_memory_moves() -> None:
    """Small, then mapped, then remapped, and used again when it is large."""
    rng = random.Random(4)
    hashes = [rng.getrandbits(64) for _ in range(70_000)]
    builders = [twin.FilterBuilder(10) for twin in TWINS]
    for count in (70_000, 40_000):
        for builder in builders:
            for value in hashes[:count]:
                builder.add_hash(value)
        bodies = [builder.finish() for builder in builders]
        assert bodies[0] == bodies[1]


@given(st.lists(HASHES, max_size=50), st.lists(HASHES, max_size=200))
def test_twins_give_the_same_answer_for_absent_keys(added: list[int], asked: list[int]) -> None:
    body = build(_filter_py, 10, added)
    for value in asked:
        assert _filter_py.filter_may_contain(body, value) == _filter_c.filter_may_contain(
            body, value
        )


@given(
    st.binary(max_size=300)
    | st.builds(
        lambda head, blocks: head + blocks,
        st.binary(min_size=8, max_size=8),
        st.sampled_from([bytes(64), bytes(128)]),
    ),
    HASHES,
)
def test_twins_agree_on_any_body(body: bytes, value: int) -> None:
    reasons = [twin.filter_check(body) for twin in TWINS]
    assert reasons[0] == reasons[1]
    answers = [twin.filter_may_contain(body, value) for twin in TWINS]
    assert answers[0] == answers[1]
    if reasons[0] is not None:
        assert answers[0] is True


@given(st.lists(HASHES, min_size=1, max_size=20), st.data())
def test_a_flipped_bit_is_found_or_changes_only_the_answer(
    hashes: list[int], data: st.DataObject
) -> None:
    body = bytearray(build(_filter_py, 10, hashes))
    bit = data.draw(st.integers(min_value=0, max_value=len(body) * 8 - 1))
    body[bit >> 3] ^= 1 << (bit & 7)
    assert _filter_py.filter_check(body) == _filter_c.filter_check(body)
    for value in hashes:
        assert _filter_py.filter_may_contain(body, value) == _filter_c.filter_may_contain(
            body, value
        )


@both
def test_an_empty_filter_contains_nothing(twin: ModuleType) -> None:
    body = build(twin, 10, [])
    assert len(body) == 72
    assert not twin.filter_may_contain(body, 7)


@both
def test_a_builder_begins_anew_after_finish(twin: ModuleType) -> None:
    builder = twin.FilterBuilder(10)
    builder.add_hash(1)
    first = builder.finish()
    builder.add_hash(1)
    assert builder.finish() == first


@both
@pytest.mark.parametrize("bits", [0, -1, 65])
def test_bits_out_of_range_are_refused(twin: ModuleType, bits: int) -> None:
    with pytest.raises(LimitError):
        twin.FilterBuilder(bits)


@both
@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_a_hash_has_64_bits(twin: ModuleType, value: int) -> None:
    with pytest.raises(OverflowError):
        twin.FilterBuilder(10).add_hash(value)
    with pytest.raises(OverflowError):
        twin.filter_may_contain(bytes(72), value)


def test_large_filters_are_equal() -> None:
    source = random.Random(1)
    hashes = [source.getrandbits(64) for _ in range(20_000)]
    assert build(_filter_py, 13, hashes) == build(_filter_c, 13, hashes)


@pytest.mark.parametrize(("bits", "most"), [(8, 0.0276), (10, 0.012), (16, 0.0011)])
def test_false_positives_stay_below_the_documented_rate(bits: int, most: float) -> None:
    """The bounds are those of docs/format/table.md, with a fifth of slack for chance."""
    body = build(_filter_c, bits, [checksum(b"key%d" % index) for index in range(20_000)])
    tries = 100_000
    hits = sum(
        _filter_c.filter_may_contain(body, checksum(b"absent%d" % index)) for index in range(tries)
    )
    assert hits / tries < most
