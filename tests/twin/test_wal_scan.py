"""Both twins of `holdfast.wal._scan` find the same records; hostile bytes lead neither astray."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base import DELETE, KEY_BYTES_MAX, PUT, RANGE_DELETE, SEQ_MAX, VALUE_BYTES_MAX
from holdfast.codec import checksum
from holdfast.wal import _scan_c, _scan_py
from holdfast.wal._buffer_py import RecordBuffer
from holdfast.wal.format import (
    LSN_MAX,
    RECORD_HEADER_BYTES,
    RecordHeader,
    RecordType,
    StopReason,
    encode_end,
    encode_record_header,
    record_bytes,
)

TWINS = [pytest.param(_scan_c, id="c"), pytest.param(_scan_py, id="py")]
both = pytest.mark.parametrize("twin", TWINS)

SEGMENT, SALT, CHAIN = 7, 0xABCDEF, 99
FIELDS = (
    "record_count",
    "end_offset",
    "stop",
    "lsn_next",
    "chain_next",
    "seq_first",
    "seq_next",
    "next_segment",
    "durable_lsn_min",
    "durable_lsn_max",
    "manifest_edit_max",
    "records",
)


def everything(result: Any) -> dict[str, Any]:
    return {name: getattr(result, name) for name in FIELDS}


def outcome(call: Any, *arguments: Any) -> Any:
    try:
        result = call(*arguments)
    except Exception as error:
        return type(error), str(error)
    return everything(result) if hasattr(result, "stop") else result


def agreed(name: str, *arguments: Any) -> Any:
    """What both twins say."""
    plain = outcome(getattr(_scan_py, name), *arguments)
    assert outcome(getattr(_scan_c, name), *arguments) == plain
    return plain


class Segment:
    """Builds the bytes of a segment record by record."""

    def __init__(self, alignment: int = 8, lsn: int = 5, seq: int = 50) -> None:
        self.alignment = alignment
        self.lsn, self.seq, self.chain = lsn, seq, CHAIN
        self.data = bytearray()
        self.offsets: list[int] = []

    def record(self, *values: bytes, durable: int | None = None, edit: int = 0) -> Segment:
        buffer = RecordBuffer()
        for value in values or (b"v",):
            buffer.append_op(PUT, 1, b"key", value)
        durable = self.lsn - 1 if durable is None else durable
        view, self.chain = buffer.seal(
            SEGMENT, SALT, self.lsn, self.seq, durable, edit, self.chain, self.alignment
        )
        return self._add(bytes(view), buffer.op_count)

    def raw(self, payload: bytes, **fields: int) -> Segment:
        """A record whose checksums are right, with whatever in it."""
        plain = {
            "payload_size": len(payload),
            "segment": SEGMENT,
            "lsn": self.lsn,
            "seq_first": self.seq,
            "durable_lsn": self.lsn - 1,
            "manifest_edit": 0,
            "chain": self.chain,
            "op_count": 1,
            "type": RecordType.BATCHES,
            "payload_checksum": checksum(payload, SALT),
        }
        header = RecordHeader(**{**plain, **fields})
        encoded, self.chain = encode_record_header(header, SALT)
        size = record_bytes(len(payload), self.alignment)
        return self._add((encoded + payload).ljust(size, b"\x00"), header.op_count)

    def end(self, next_segment: int = 8, **fields: int) -> Segment:
        plain = {
            "payload_size": 0, "segment": SEGMENT, "lsn": self.lsn, "seq_first": self.seq,
            "durable_lsn": self.lsn - 1, "manifest_edit": 0, "chain": self.chain, "op_count": 0,
            "type": RecordType.END, "payload_checksum": 0,
        }  # fmt: skip
        record, self.chain = encode_end(
            RecordHeader(**{**plain, **fields}), SALT, next_segment, self.alignment
        )
        return self._add(record, 0)

    def zeros(self, count: int) -> Segment:
        self.data += bytes(count)
        return self

    def scan(self, offset: int = 0, lsn: int = 5, chain: int = CHAIN) -> Any:
        return agreed("scan_records", self.data, offset, SEGMENT, SALT, lsn, chain, self.alignment)

    def later(self, offset: int, lsn: int = 0) -> Any:
        return agreed("find_later_records", self.data, offset, SEGMENT, SALT, self.alignment, lsn)

    def _add(self, record: bytes, op_count: int) -> Segment:
        self.offsets.append(len(self.data))
        self.data += record
        self.lsn += 1
        self.seq += op_count
        return self


def test_records_are_found_in_order_and_the_scan_knows_what_comes_next() -> None:
    segment = (
        Segment()
        .record(b"a", b"bb", edit=3)
        .record(b"c" * 100, durable=2, edit=9)
        .record()
        .zeros(200)
    )
    found = segment.scan()
    assert found["stop"] == StopReason.END_OF_ZEROS
    assert (found["lsn_next"], found["seq_first"], found["seq_next"]) == (8, 50, 54)
    assert (found["chain_next"], found["end_offset"], found["next_segment"]) == (
        segment.chain,
        segment.offsets[2] + 96,
        0,
    )
    assert (found["durable_lsn_min"], found["durable_lsn_max"], found["manifest_edit_max"]) == (
        2,
        6,
        9,
    )
    first = found["records"][0]
    assert (first.lsn, first.seq_first, first.op_count, first.type) == (
        5,
        50,
        2,
        RecordType.BATCHES,
    )
    assert (first.payload_offset, first.durable_lsn, first.manifest_edit) == (80, 4, 3)
    payload = segment.data[80 : 80 + first.payload_size]
    assert agreed("decode_payload", payload, 0, len(payload)) == [
        [(PUT, 1, b"key", b"a")], [(PUT, 1, b"key", b"bb")],
    ]  # fmt: skip


def test_an_end_record_ends_the_scan_and_names_the_next_segment() -> None:
    segment = Segment().record().end(12).record()
    found = segment.scan()
    assert (found["stop"], found["next_segment"], found["lsn_next"]) == (
        StopReason.END_OF_SEGMENT,
        12,
        7,
    )
    assert (found["end_offset"], found["record_count"], found["seq_next"]) == (
        segment.offsets[2],
        2,
        51,
    )
    assert found["records"][1].type == RecordType.END


@pytest.mark.parametrize("next_segment", [0, 6, 7])
def test_an_end_record_names_a_higher_segment(next_segment: int) -> None:
    assert Segment().end(next_segment).scan()["stop"] == StopReason.MALFORMED


@pytest.mark.parametrize("alignment", [8, 64, 512, 4096])
def test_records_stand_at_multiples_of_the_alignment(alignment: int) -> None:
    segment = Segment(alignment).record().record(b"x" * 900).record().end()
    assert [record.payload_offset - 80 for record in segment.scan()["records"]] == segment.offsets
    assert all(offset % alignment == 0 for offset in segment.offsets)


def test_without_an_ordinal_the_first_record_is_taken_as_it_is() -> None:
    segment = Segment(lsn=1000).record().record()
    assert segment.scan(lsn=0, chain=0)["lsn_next"] == 1002
    assert segment.scan(lsn=0, chain=0)["stop"] == StopReason.END_OF_DATA


def test_nothing_is_an_end() -> None:
    for size in (0, 8, 72, 79):
        found = Segment().zeros(size).scan()
        assert (found["stop"], found["end_offset"], found["record_count"]) == (
            StopReason.END_OF_DATA,
            0,
            0,
        )
    assert Segment().zeros(80).scan()["stop"] == StopReason.END_OF_ZEROS
    assert Segment().scan(offset=8000)["end_offset"] == 8000


@pytest.mark.parametrize(
    ("fields", "stop"),
    [
        ({"segment": 8}, StopReason.WRONG_SEGMENT),
        ({"lsn": 7}, StopReason.BROKEN_CHAIN),
        ({"lsn": 5, "durable_lsn": 4}, StopReason.BROKEN_CHAIN),
        ({"chain": 1}, StopReason.BROKEN_CHAIN),
        ({"lsn": 0, "durable_lsn": 0}, StopReason.MALFORMED),
        ({"lsn": LSN_MAX + 1}, StopReason.MALFORMED),
        ({"durable_lsn": 6}, StopReason.MALFORMED),
        ({"type": 0}, StopReason.MALFORMED),
        ({"type": 3}, StopReason.MALFORMED),
        ({"type": RecordType.END}, StopReason.MALFORMED),
        ({"type": RecordType.END, "op_count": 0}, StopReason.MALFORMED),
        ({"op_count": 0}, StopReason.MALFORMED),
        ({"op_count": 2}, StopReason.MALFORMED),
        ({"op_count": 2**32 - 1}, StopReason.MALFORMED),
        ({"seq_first": 0}, StopReason.MALFORMED),
        ({"seq_first": 50}, StopReason.MALFORMED),
        ({"seq_first": SEQ_MAX + 1}, StopReason.MALFORMED),
        ({"seq_first": SEQ_MAX, "op_count": 2}, StopReason.MALFORMED),
        ({"payload_size": 0}, StopReason.MALFORMED),
        ({"payload_size": 2**32 - 1}, StopReason.MALFORMED),
        ({"payload_size": 200}, StopReason.MALFORMED),
        ({"payload_size": 8}, StopReason.BAD_PAYLOAD),
        ({"payload_checksum": 5}, StopReason.BAD_PAYLOAD),
    ],
)  # fmt: skip
def test_a_header_that_lies_under_a_right_checksum_is_not_followed(
    fields: dict[str, int], stop: StopReason
) -> None:
    payload = b"\x01\x01\x01\x03key\x01v"
    segment = Segment().record().raw(payload, **fields)
    found = segment.scan()
    assert (found["stop"], found["record_count"], found["end_offset"]) == (
        stop,
        1,
        segment.offsets[1],
    )
    assert (found["lsn_next"], found["seq_next"]) == (6, 51)


def test_the_largest_numbers_of_the_format_are_read() -> None:
    segment = Segment(lsn=LSN_MAX, seq=SEQ_MAX).record()
    assert segment.scan(lsn=LSN_MAX)["lsn_next"] == LSN_MAX + 1
    assert segment.scan(lsn=LSN_MAX)["seq_next"] == SEQ_MAX + 1


def test_bytes_behind_a_payload_that_are_not_zero_are_damage() -> None:
    segment = Segment(64).record(b"x" * 17)
    segment.data[-1] = 1
    assert segment.scan()["stop"] == StopReason.BAD_PAYLOAD


def test_a_record_cut_by_the_end_of_the_data_is_not_read() -> None:
    segment = Segment().record(b"x" * 40)
    whole = bytes(segment.data)
    for size in range(len(whole)):
        segment.data = bytearray(whole[:size])
        expected = StopReason.END_OF_DATA if size < RECORD_HEADER_BYTES else StopReason.MALFORMED
        assert segment.scan()["stop"] == expected


def test_no_flipped_bit_goes_unnoticed() -> None:
    segment = Segment().record(b"first").record(b"second" * 9).record(b"third").end()
    whole = bytes(segment.data)
    clean = segment.scan()
    ends = [*segment.offsets[1:], len(whole)]
    for bit in range(len(whole) * 8):
        segment.data = bytearray(whole)
        segment.data[bit // 8] ^= 1 << bit % 8
        found = segment.scan()
        index = next(number for number, end in enumerate(ends) if bit // 8 < end)
        assert found["records"] == clean["records"][:index]
        assert found["stop"] in (StopReason.BAD_HEADER, StopReason.BAD_PAYLOAD)
        assert found["end_offset"] == segment.offsets[index]


def test_later_records_are_found_behind_any_damage() -> None:
    segment = Segment().record(b"a").record(b"b" * 50, edit=4).record(durable=1).end()
    clean = segment.scan()["records"]
    segment.data[20] ^= 1
    segment.data[segment.offsets[2] + 81] ^= 1
    found = segment.later(0)
    assert found["records"] == clean[1:]
    assert (found["durable_lsn_min"], found["durable_lsn_max"], found["manifest_edit_max"]) == (
        1,
        7,
        4,
    )
    assert segment.later(0, lsn=7)["records"] == clean[3:]
    assert segment.later(segment.offsets[3] + 8)["records"] == []
    assert segment.later(10**9 * 8)["records"] == []


def test_a_header_at_the_very_end_of_the_data_is_evidence() -> None:
    segment = Segment().record()
    end = segment.offsets[0] + RECORD_HEADER_BYTES
    for size, count in ((end, 1), (end - 1, 0)):
        data = bytes(segment.data)[:size]
        found = agreed("find_later_records", data, 0, SEGMENT, SALT, 8, 0)
        assert count == found["record_count"]


@both
def test_without_an_ordinal_every_header_is_evidence(twin: Any) -> None:
    segment = Segment(lsn=1).record().record()
    found = twin.find_later_records(bytes(segment.data), 0, SEGMENT, SALT, 8)
    assert [record.lsn for record in found.records] == [1, 2]


def test_headers_of_other_segments_and_malformed_ones_are_no_evidence() -> None:
    payload = b"\x01\x01\x01\x03key\x01v"
    segment = Segment().raw(payload, segment=8).raw(payload, type=9).raw(payload, durable_lsn=2**60)
    assert segment.later(0)["records"] == []


def test_a_header_inside_a_payload_is_found_where_it_stands() -> None:
    inner = Segment(lsn=3).record()
    segment = Segment().record(b"y" * 7 + bytes(inner.data))
    place = bytes(segment.data).index(bytes(inner.data))
    found = segment.later(8)
    assert [record.payload_offset for record in found["records"]] == (
        [place + 80] if place % 8 == 0 else []
    )
    assert segment.later(0, lsn=4)["record_count"] == 1


@pytest.mark.parametrize("name", ["scan_records", "find_later_records"])
@pytest.mark.parametrize(
    "bad",
    [
        {"offset": -8},
        {"offset": 4},
        {"alignment": 0},
        {"alignment": 7},
        {"alignment": 4},
        {"alignment": 8192},
        {"alignment": -8},
        {"segment": -1},
        {"segment": 2**64},
        {"salt": 2**64},
        {"lsn": -1},
        {"data": "text"},
        {"data": None},
        {"data": memoryview(b"abcd")[::2]},
    ],
)
def test_bad_arguments_are_refused_alike(name: str, bad: dict[str, Any]) -> None:
    given_ = {
        "data": bytes(200),
        "offset": 0,
        "segment": 1,
        "salt": 2,
        "lsn": 3,
        "chain": 4,
        "alignment": 8,
        **bad,
    }
    order = ("data", "offset", "segment", "salt", "lsn", "chain", "alignment")
    if name == "find_later_records":
        order = ("data", "offset", "segment", "salt", "alignment", "lsn")
    kinds = []
    for twin in (_scan_c, _scan_py):
        with pytest.raises((ValueError, OverflowError, TypeError, BufferError)) as caught:
            getattr(twin, name)(*(given_[key] for key in order))
        kinds.append(caught.type)
    assert kinds[0] is kinds[1]


def test_the_greatest_numbers_are_good_arguments() -> None:
    greatest = 2**64 - 1
    found = agreed("scan_records", bytes(200), 0, greatest, greatest, greatest, greatest, 8)
    assert (found["record_count"], found["lsn_next"]) == (0, greatest)
    found = agreed("find_later_records", bytes(200), 0, greatest, greatest, 8, greatest)
    assert found["record_count"] == 0


def test_the_greatest_keyspace_id_is_read() -> None:
    payload = b"\x01\x01\xff\xff\xff\xff\x0f\x01k\x01v"
    assert walked(payload) is None
    decoded = agreed("decode_payload", payload, 0, len(payload))
    assert decoded == [[(PUT, 2**32 - 1, b"k", b"v")]]


def walked(payload: bytes, op_count: int = 1) -> Any:
    result = agreed("check_payload", payload, 0, len(payload), op_count)
    decoded = agreed("decode_payload", payload, 0, len(payload))
    if result is None:
        assert sum(len(batch) for batch in decoded) == op_count
    return result


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"\x00", "a batch without operations at byte 0"),
        (b"\x80", "a batch's operation count cannot be read at byte 0"),
        (b"\x81\x00\x00\x01\x01k", "a batch's operation count cannot be read at byte 0"),
        (b"\xff" * 10, "a batch's operation count cannot be read at byte 0"),
        (b"\xff" * 9 + b"\x02", "a batch's operation count cannot be read at byte 0"),
        (b"\xff" * 9 + b"\x01", "the payload ends within a batch at byte 10"),
        (b"\x01", "the payload ends within a batch at byte 1"),
        (b"\x02\x00\x01\x01k", "the payload ends within a batch at byte 5"),
        (b"\x01\x04\x01\x01k", "an unknown kind at byte 1"),
        (b"\x01\xff", "an unknown kind at byte 1"),
        (b"\x01\x00", "a keyspace id cannot be read at byte 2"),
        (b"\x01\x00\x80\x80\x80\x80\x10\x00", "a keyspace id of more than 32 bits at byte 2"),
        (b"\x01\x00\x01", "the size of a key cannot be read at byte 3"),
        (b"\x01\x00\x01\x02k", "a key too long at byte 3"),
        (b"\x01\x00\x01\x81\x80\x04" + bytes(KEY_BYTES_MAX + 1), "a key too long at byte 3"),
        (b"\x01\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01k", "a key too long at byte 3"),
        (b"\x01\x01\x01\x01k", "the size of a value cannot be read at byte 5"),
        (b"\x01\x01\x01\x01k\x02v", "a value too long at byte 5"),
        (b"\x01\x01\x01\x01k\x81\x80\x80\x80\x04v", "a value too long at byte 5"),
        (
            b"\x01\x01\x01\x01k\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01v",
            "a value too long at byte 5",
        ),
        (b"\x01\x02\x01\x01k\x81\x80\x04" + bytes(KEY_BYTES_MAX + 1), "a value too long at byte 5"),
        (b"\x01\x00\x01\x01k\x01\x00\x01\x01l", "the operations do not add up at byte 10"),
        (b"", "the operations do not add up at byte 0"),
    ],
)
def test_a_malformed_payload_is_named_with_its_place(payload: bytes, message: str) -> None:
    assert walked(payload) == (ValueError, message)
    shifted = agreed("check_payload", b"\xee" * 16 + payload + b"\xee", 16, len(payload), 1)
    text, _, place = message.rpartition(" ")
    assert shifted == (ValueError, f"{text} {int(place) + 16}")


def test_a_payload_is_batches_of_operations() -> None:
    payload = b"\x02\x01\x01\x01k\x01v\x00\x02\x00" + b"\x01\x02\x01\x01a\x01b"
    assert walked(payload, 3) is None
    assert agreed("decode_payload", payload, 0, len(payload)) == [
        [(PUT, 1, b"k", b"v"), (DELETE, 2, b"", None)], [(RANGE_DELETE, 1, b"a", b"b")],
    ]  # fmt: skip
    assert agreed("decode_payload", b"", 0, 0) == []
    assert VALUE_BYTES_MAX == 2**30


@pytest.mark.parametrize(
    ("offset", "size"), [(-1, 1), (0, 4), (4, 0), (2, 2), (1, -1), (0, 2**70), (2**70, 0)]
)
def test_a_range_outside_of_the_data_is_refused(offset: int, size: int) -> None:
    for name, more in (("check_payload", (0,)), ("decode_payload", ())):
        assert agreed(name, b"abc", offset, size, *more) == (
            ValueError,
            "the payload does not lie within the data",
        )


@given(st.binary(max_size=200), st.integers(0, 5))
def test_arbitrary_payloads_are_judged_alike(payload: bytes, op_count: int) -> None:
    walked(payload, op_count)


@given(st.data())
def test_mutated_payloads_are_judged_alike(data: st.DataObject) -> None:
    buffer = RecordBuffer()
    for value in data.draw(st.lists(st.binary(max_size=20), min_size=1, max_size=5)):
        buffer.append_op(PUT, 1, b"key", value)
    payload = bytearray(buffer.payload())
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(
            st.sampled_from([0, 1, 2, 127, 128, 255])
        )
    walked(bytes(payload), buffer.op_count)


@given(st.binary(max_size=600))
def test_arbitrary_bytes_are_scanned_alike(data: bytes) -> None:
    agreed("scan_records", data, 0, SEGMENT, SALT, 5, CHAIN, 8)
    agreed("find_later_records", data, 0, SEGMENT, SALT, 8)


def small_segment(choices: st.DataObject) -> Segment:
    segment = Segment(choices.draw(st.sampled_from([8, 16, 64])))
    for _ in range(choices.draw(st.integers(0, 4))):
        values = choices.draw(st.lists(st.binary(max_size=60), min_size=1, max_size=3))
        segment.record(*values, durable=choices.draw(st.integers(0, segment.lsn - 1)))
    if choices.draw(st.booleans()):
        segment.end()
    return segment.zeros(choices.draw(st.integers(0, 30)) * 8)


@given(st.data())
def test_damaged_segments_are_scanned_alike_and_only_lose_records(data: st.DataObject) -> None:
    segment = small_segment(data)
    clean = segment.scan()["records"]
    for _ in range(data.draw(st.integers(1, 4))):
        if not segment.data:
            return
        at = data.draw(st.integers(0, len(segment.data) - 1))
        what = data.draw(st.sampled_from(["flip", "zero", "garbage", "copy", "cut"]))
        size = data.draw(st.integers(1, 100))
        piece = segment.data[at : at + size]
        if what == "flip":
            segment.data[at] ^= 1 << data.draw(st.integers(0, 7))
        elif what == "zero":
            segment.data[at : at + size] = bytes(len(piece))
        elif what == "garbage":
            segment.data[at : at + size] = random.Random(at * size).randbytes(len(piece))
        elif what == "copy":
            source = data.draw(st.integers(0, len(segment.data) - len(piece)))
            segment.data[at : at + size] = segment.data[source : source + len(piece)]
        else:
            del segment.data[at:]
    found = segment.scan()["records"]
    assert found == clean[: len(found)]
    segment.later(0)


@given(st.data())
def test_segments_with_forged_headers_are_scanned_alike(data: st.DataObject) -> None:
    """The attacker recomputes checksums: every field may be anything."""
    segment = small_segment(data)
    numbers = st.sampled_from([0, 1, 2, 5, 7, 8, 50, 2**32, SEQ_MAX, 2**63, 2**64 - 1])
    halves = st.sampled_from([0, 1, 2, 8, 80, 200, 2**31, 2**32 - 1])
    for _ in range(data.draw(st.integers(1, 3))):
        fields: dict[str, int] = {}
        for name in data.draw(st.sets(st.sampled_from(RecordHeader._fields), max_size=3)):
            fields[name] = data.draw(
                st.integers(0, 255) if name == "type"
                else halves if name in ("payload_size", "op_count") else numbers
            )  # fmt: skip
        segment.raw(data.draw(st.binary(max_size=40)), **fields)
    segment.scan()
    segment.scan(lsn=0)
    segment.later(0)


def test_hostile_sizes_do_not_make_a_scan_slow() -> None:
    """A megabyte in which every unit starts like a header, and one of valid headers that all claim
    the rest.
    """
    magic = b"HWAL" * (1 << 18)
    segment = Segment()
    payload = b"\x01\x01\x01\x03key\x01v"
    encoded, _ = encode_record_header(
        RecordHeader(
            1 << 19, SEGMENT, 9, 1, 0, 0, 0, 1, RecordType.BATCHES, checksum(payload, SALT)
        ),
        SALT,
    )
    claims = encoded * (1 << 13)
    started = time.perf_counter()
    for data in (magic, claims):
        _scan_c.scan_records(data, 0, SEGMENT, SALT, 0, 0, 8)
        _scan_c.find_later_records(data, 0, SEGMENT, SALT, 8)
    assert time.perf_counter() - started < 1.0
    assert segment.scan()["record_count"] == 0


def test_many_records_are_found_alike() -> None:
    segment = Segment()
    for number in range(1500):
        segment.record(b"v" * (number % 90), durable=number % 5)
    found = segment.zeros(4096).scan()
    assert (found["record_count"], found["stop"]) == (1500, StopReason.END_OF_ZEROS)
    assert segment.later(8)["record_count"] == 1499


@both
def test_each_list_of_records_is_the_callers_own(twin: Any) -> None:
    result = twin.scan_records(Segment().record().data, 0, SEGMENT, SALT, 0, 0, 8)
    result.records.clear()
    assert result.record_count == len(result.records) == 1


@both
def test_records_are_found_by_their_number(twin: Any) -> None:
    result = twin.scan_records(Segment().record().record().data, 0, SEGMENT, SALT, 0, 0, 8)
    assert [result.record(0), result.record(1)] == result.records
    for index in (-1, 2):
        with pytest.raises(IndexError, match=f"there is no record {index}; there are 2"):
            result.record(index)
