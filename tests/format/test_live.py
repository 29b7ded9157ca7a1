"""The examples of docs/format/live.md are what the code writes and reads, and what the page says
must be rejected is.
"""

import json
import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.codec import checksum
from holdfast.engine.live_format import (
    LIVE_HEADER_BYTES,
    PAYLOAD_BYTES_MAX,
    decode_live,
    decode_watch,
    encode_live,
    encode_watch,
)

TIME = 1_795_305_600


@pytest.fixture(scope="module")
def blocks(root):
    text = (root / "docs" / "format" / "live.md").read_text()
    found = re.findall(r"^```(hex|json)\n(.*?)\n```", text, re.M | re.S)
    assert ["hex", "hex", "json"] == [kind for kind, _ in found]
    watch, head, payload = (content for _, content in found)
    return bytes.fromhex(watch), bytes.fromhex(head), payload.encode()


@pytest.fixture(scope="module")
def live(blocks):
    return blocks[1] + blocks[2]


def sealed(payload, version=1, size=None, magic=b"HFlive\0\0"):
    """A file with a checksum that matches, whatever it holds."""
    parts = magic, version, len(payload) if size is None else size, 1
    head = struct.pack("<8sIIQQ", *parts, 0)
    return struct.pack("<8sIIQQ", *parts, checksum(head + payload)) + payload


def test_the_request_is_read_and_written(blocks):
    assert decode_watch(blocks[0]) == TIME * 1_000_000
    assert encode_watch(TIME * 1_000_000) == blocks[0]


def test_the_figures_are_read_and_written(live):
    found = decode_live(live)
    assert (1, TIME, 0) == (found.sequence, found.published, found.keyspaces_left_out)
    assert (1, 12) == (found.stats.writes, found.stats.user_bytes_written)
    assert encode_live(found) == live
    assert decode_live(live + b"rest") == found


def test_every_flipped_bit_and_every_cut_is_rejected(blocks, live):
    for data, decode in ((blocks[0], decode_watch), (live, decode_live)):
        for size in range(len(data)):
            with pytest.raises(ValueError, match=r"."):
                decode(data[:size])
        for bit in range(8 * len(data)):
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            with pytest.raises(ValueError, match=r"."):
                decode(bytes(damaged))


def test_other_versions_and_sizes_are_rejected(blocks, live):
    payload = blocks[2]
    assert decode_live(sealed(payload)) == decode_live(live)
    for data in (
        sealed(payload, version=2),
        sealed(payload, magic=b"HFwatch\0"),
        sealed(payload, size=len(payload) + 1),
        sealed(bytes(PAYLOAD_BYTES_MAX + 1)),
        sealed(b""),
        sealed(b"\xff"),
        sealed(b"[]"),
        sealed(b"[" * 100_000),
        sealed(b'{"a":' * 100_000),
        sealed(b"{}"),
    ):
        with pytest.raises(ValueError, match=r"."):
            decode_live(data)
    with pytest.raises(ValueError, match="size"):
        decode_watch(blocks[0] + b"x")


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)


@given(data=st.data())
def test_any_other_value_is_rejected_or_of_the_same_type(blocks, data):
    """Whatever stands in the place of one figure, under a checksum that matches."""
    plain = json.loads(blocks[2])
    places = list(places_of(plain))
    at = plain
    *path, last = data.draw(st.sampled_from(places))
    for step in path:
        at = at[step]
    before = at[last]
    at[last] = data.draw(JSON)
    try:
        found = decode_live(sealed(json.dumps(plain).encode()))
    except ValueError:
        return
    value = at[last]
    if isinstance(value, float):
        assert isinstance(before, float)
        assert 0 <= value < 2**64
    elif type(value) is int:
        assert type(before) in (int, float)
        assert 0 <= value < 2**64
    elif value is None or isinstance(value, str):
        assert before is None or isinstance(before, str)
    else:
        assert type(value) is type(before)
    assert found.stats.write_amplification >= 0


def places_of(plain):
    """Every path to a value."""
    parts = plain.items() if isinstance(plain, dict) else enumerate(plain)
    for key, value in parts:
        yield (key,)
        if isinstance(value, dict | list):
            yield from ((key, *rest) for rest in places_of(value))


def test_a_field_that_is_not_known_is_ignored(blocks, live):
    plain = json.loads(blocks[2])
    plain["new"] = plain["stats"]["new"] = [1]
    assert decode_live(sealed(json.dumps(plain).encode())) == decode_live(live)
    assert LIVE_HEADER_BYTES == len(blocks[1])
