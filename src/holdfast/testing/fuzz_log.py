"""Fuzz targets of the log: batch payloads and whole segments.

A segment is taken apart into header, link and records; checksums and the chain are mended after a
change, so the records behind it are reached and judged.

Thread safety: targets keep no state between executions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, ClassVar

from holdfast.base import DELETE, MERGE, PUT, RANGE_DELETE, SEQ_MAX
from holdfast.codec import checksum, decode_varint
from holdfast.env import SimEnv
from holdfast.memtable import Memtable
from holdfast.testing.fuzz_mutate import (
    interesting,
    mutate_bytes,
    mutate_list,
    mutate_number,
    mutate_often,
    mutate_varint,
    put_varint,
)
from holdfast.testing.fuzz_oracle import (
    DAMAGE,
    Outcome,
    Target,
    agree,
    agreed,
    attempt,
    require,
    twins,
)
from holdfast.wal import WriteBatch, read_log, segment_name
from holdfast.wal.format import (
    BLOCK_BYTES,
    FRONT_BYTES_MAX,
    LINK_BYTES,
    LINK_MAGIC,
    RECORD_HEADER_BYTES,
    RECORD_MAGIC,
    SEGMENT_HEADER_BYTES,
    SEGMENT_MAGIC,
    decode_link,
    decode_segment_header,
)

SCANS = twins("wal._scan")
APPLIES = twins("recovery._apply")

SEGMENT = 7
SALT = 0x1122334455667788
DATABASE_ID = bytes(range(16))
_MEBIBYTE = 1 << 20
_HEADER = struct.Struct("<8sIIQQ16sQQQQ")
_LINK = struct.Struct("<IIQQQQQ")
_RECORD = struct.Struct("<IIQQQQQQIB3sQQ")
_KEYSPACES = (0, 1, 2)


@dataclass(slots=True)
class Operation:
    """The fields of an operation. Sizes are what is written, whatever the pieces have."""

    kind: int
    keyspace: int | bytes
    key_size: int | bytes
    key: bytes
    value_size: int | bytes = b""
    value: bytes = b""

    def encode(self) -> bytes:
        """Return the bytes."""
        head = bytes([self.kind]) + put_varint(self.keyspace) + put_varint(self.key_size)
        return head + self.key + put_varint(self.value_size) + self.value


@dataclass(slots=True)
class Batch:
    """Operations, and the count that stands before them."""

    count: int | bytes
    operations: list[Operation]

    def encode(self) -> bytes:
        """Return the bytes."""
        return put_varint(self.count) + b"".join(o.encode() for o in self.operations)


def parse_payload(data: bytes) -> list[Batch]:
    """Take a payload apart. Raises: ValueError, IndexError."""
    batches = []
    at = 0
    while at < len(data):
        count, at = decode_varint(data, at)
        operations = []
        for _ in range(min(count, 10_000)):
            kind = data[at]
            keyspace, at = decode_varint(data, at + 1)
            size, at = decode_varint(data, at)
            operation = Operation(kind, keyspace, size, data[at : at + size])
            at += size
            if kind != DELETE:
                size, at = decode_varint(data, at)
                operation.value_size, operation.value = size, data[at : at + size]
                at += size
            operations.append(operation)
        batches.append(Batch(count, operations))
    return batches


def mutate_payload(rng: Random, data: bytes, other: bytes) -> bytes:
    """Return a payload with some fields changed."""
    try:
        batches = parse_payload(data)
    except (ValueError, IndexError):
        batches = []
    if not batches or rng.random() < 0.2:
        return mutate_often(rng, data, other)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not batches:
            break
        choice = rng.randrange(10)
        batch = rng.choice(batches)
        if choice == 0:
            batches = mutate_list(rng, batches)
        elif choice == 1:
            batch.count = mutate_varint(rng, len(batch.operations))
        elif choice == 2:
            batch.operations = mutate_list(rng, batch.operations)
            batch.count = len(batch.operations)
        elif batch.operations:
            _mutate_operation(rng, rng.choice(batch.operations), other)
    return b"".join(batch.encode() for batch in batches)


def _mutate_operation(rng: Random, operation: Operation, other: bytes) -> None:
    choice = rng.randrange(7)
    if choice == 0:
        operation.kind = rng.choice((DELETE, PUT, RANGE_DELETE, MERGE, 4, 15, 255))
    elif choice < 4:
        name = ("keyspace", "key_size", "value_size")[choice - 1]
        old = getattr(operation, name)
        setattr(operation, name, mutate_varint(rng, old if isinstance(old, int) else 1))
    elif choice == 4:
        operation.key = mutate_bytes(rng, operation.key, other)
        operation.key_size = len(operation.key)
    elif choice == 5:
        operation.value = mutate_bytes(rng, operation.value, other)
        operation.value_size = len(operation.value)
    else:
        operation.key, operation.value = operation.value, operation.key
        operation.key_size, operation.value_size = len(operation.key), len(operation.value)


def seed_payloads() -> list[bytes]:
    """Return valid payloads."""
    one, many = WriteBatch(), WriteBatch()
    one.put(1, b"key", b"value")
    for number in range(12):
        many.put(number % 3, b"key%d" % number, b"v" * number)
        many.delete(number % 3, b"key%d" % (number // 2))
    many.delete_range(1, b"a", b"m")
    many.delete_range(2, b"z", b"a")
    many.merge(1, b"key3", b"\x0110")
    many.merge(2, b"", b"")
    many.put((1 << 32) - 1, b"", b"")
    big = WriteBatch()
    big.put(0, b"k" * 65536, b"x" * 500)
    return [one.payload(), one.payload() + many.payload(), many.payload(), big.payload()]


class PayloadTarget:
    """Input: the payload of a record of batches."""

    name: ClassVar[str] = "payload"
    traced: ClassVar[tuple[str, ...]] = (
        "wal._scan_py",
        "recovery._apply_py",
        "memtable._memtable_py",
    )

    def seeds(self) -> Iterable[bytes]:
        return seed_payloads()

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        return mutate_payload(rng, data, other)

    def run(self, data: bytes) -> Iterable[object]:
        framed = b"\x01" + data + b"\x01\x01"
        outcome = agree(SCANS, ValueError, "decode_payload", framed, 1, len(data))
        count = 0 if outcome.is_error else sum(len(batch) for batch in outcome.value)
        for wanted in (count, count + 1, 1 << 32):
            checked = agree(SCANS, ValueError, "check_payload", framed, 1, len(data), wanted)
            if outcome.is_error:
                require(checked.error == outcome.error, "check and decode disagree")
            else:
                require(checked.is_error == (wanted != count), "a wrong count is taken")
        applied = agreed("apply_payload", [_applied(m, framed, data) for m in APPLIES])
        if outcome.is_error:
            require(applied.value[0] is None, "a malformed payload is applied whole")
            return [outcome.feature]
        _check_encoding(outcome.value, data)
        return ["ok", count.bit_length(), applied.value[0] is None]

    def memory_max(self, data: bytes) -> int:
        return 600 * len(data) + 8 * _MEBIBYTE


def _applied(module: Any, framed: bytes, data: bytes) -> Outcome:
    """Return what applying a payload gives, and what the memtables hold then."""
    memtables = {number: Memtable() for number in _KEYSPACES}
    found = attempt(
        ValueError, module.apply_payload, framed, 1, len(data), 100, memtables, {1: 104}, 300
    )
    held: list[object] = []
    for memtable in memtables.values():
        cursor = memtable.cursor()
        more = cursor.seek_first()
        while more:
            held.append((cursor.key, cursor.seq, cursor.kind, cursor.value))
            more = cursor.next()
        held.append(memtable.range_tombstones.tombstones())
    # What is wrong first, and how much was applied before it, is not promised: a scan checks
    # payloads before anything of them is applied.
    if found.error is not None:
        return Outcome((found.value, found.error[0]))
    return Outcome((found.value, held))


def _check_encoding(batches: list[list[Any]], data: bytes) -> None:
    encoded = b""
    for operations in batches:
        batch = WriteBatch()
        for kind, keyspace, key, value in operations:
            if kind == PUT:
                batch.put(keyspace, key, value)
            elif kind == DELETE:
                batch.delete(keyspace, key)
            elif kind == MERGE:
                batch.merge(keyspace, key, value)
            else:
                batch.delete_range(keyspace, key, value)
        encoded += batch.payload()
    require(encoded == data, "batches are encoded otherwise")


@dataclass(slots=True)
class Record:
    """The fields of a record; what is None is mended when it is written."""

    lsn: int
    seq_first: int
    durable_lsn: int
    manifest_edit: int
    type: int
    op_count: int
    payload: bytes
    segment: int = SEGMENT
    chain: int | None = None
    payload_size: int | None = None
    payload_checksum: int | None = None
    own_checksum: int | None = None
    zeros: bytes = b"\x00\x00\x00"
    padding: bytes = b""
    """What stands in the padding instead of zeros."""

    def encode(self, chain: int, salt: int, alignment: int) -> tuple[bytes, int]:
        """Return the record and what the next one chains to."""
        digest = self.payload_checksum
        plain = _RECORD.pack(
            RECORD_MAGIC,
            (len(self.payload) if self.payload_size is None else self.payload_size) & 0xFFFFFFFF,
            self.segment, self.lsn, self.seq_first, self.durable_lsn, self.manifest_edit,
            chain if self.chain is None else self.chain, self.op_count, self.type, self.zeros,
            checksum(self.payload, salt) if digest is None else digest, 0,
        )[:-8]  # fmt: skip
        own = checksum(plain, salt) if self.own_checksum is None else self.own_checksum
        whole = plain + own.to_bytes(8, "little") + self.payload
        room = -len(whole) % alignment
        return whole + self.padding[:room].ljust(room, b"\x00"), own


def _records_offset(header: list[Any]) -> int:
    """Return where the first record of a segment with these fields stands; its link is halfway."""
    return 8192 if header[1] == 2 and header[2] > 2048 else 4096


@dataclass(slots=True)
class Segment:
    """A segment taken apart: fields of its header and link, and its records."""

    header: list[Any]
    """As in docs/format/wal.md, without the checksum."""
    link: list[int] | None
    records: list[Record] = field(default_factory=list)
    tail: bytes = b""
    """What stands behind the records."""
    size_added: int = 0
    link_rest: bytes = b""
    """What stands behind the link instead of zeros."""

    @classmethod
    def parse(cls, data: bytes) -> Segment:
        """Take a segment apart. Raises: struct.error, ValueError when it is too short for one."""
        header = list(_HEADER.unpack_from(data))[:-1]
        salt, alignment = header[4], max(8, min(4096, header[2]))
        at = _records_offset(header)
        link = list(_LINK.unpack_from(data, at // 2))[:-1]
        segment = cls(header, link if link[0] == LINK_MAGIC else None)
        segment.link_rest = data[at // 2 + LINK_BYTES : at].rstrip(b"\x00")
        while at + RECORD_HEADER_BYTES <= len(data):
            fields = _RECORD.unpack_from(data, at)
            (magic, size, number, lsn, seq, durable, edit, _, count, kind, zeros, _, own) = fields
            if magic != RECORD_MAGIC or own != checksum(data[at : at + 72], salt):
                break
            payload = data[at + RECORD_HEADER_BYTES : at + RECORD_HEADER_BYTES + size]
            segment.records.append(
                Record(lsn, seq, durable, edit, kind, count, payload, number, zeros=zeros)
            )
            at += RECORD_HEADER_BYTES + len(payload)
            at += -at % alignment
        segment.tail = data[at:]
        return segment

    def encode(self) -> bytes:
        """Return the segment, with what was not broken on purpose mended."""
        salt, alignment = self.header[4], self.header[2]
        if not 8 <= alignment <= 4096:
            alignment = 8
        chain = salt if self.link is None else self.link[5]
        records = b""
        for record in self.records:
            encoded, chain = record.encode(chain, salt, alignment)
            records += encoded
        body = records + self.tail
        header = list(self.header)
        front_bytes = _records_offset(header)
        header[6] = (front_bytes + len(body) + self.size_added) & ((1 << 64) - 1)
        plain = _HEADER.pack(*header, 0)[:-8]
        block = plain + checksum(plain).to_bytes(8, "little")
        block = block.ljust(front_bytes // 2, b"\x00")
        if self.link is not None:
            linked = _LINK.pack(*self.link, 0)[:-8]
            block += linked + checksum(linked, salt).to_bytes(8, "little")
        block = block.ljust(front_bytes // 2 + LINK_BYTES, b"\x00") + self.link_rest
        return block[:front_bytes].ljust(front_bytes, b"\x00") + body

    def mutate(self, rng: Random, other: bytes) -> None:
        """Change one thing."""
        choice = rng.randrange(13)
        if choice == 0:
            at = rng.choice((1, 2, 3, 4, 7, 8))
            self.header[at] = mutate_number(rng, self.header[at], 32 if at < 3 else 64)
            if rng.random() < 0.3:
                self.header[1:3] = rng.choice(((1, 4096), (2, 256), (2, 512), (2, 4096)))
        elif choice == 1:
            self.link = None if self.link is not None else [LINK_MAGIC, 0, SEGMENT, 0, 41, SALT]
        elif choice == 2 and self.link is not None:
            at = rng.randrange(6)
            self.link[at] = mutate_number(rng, self.link[at], 32 if at < 2 else 64)
        elif choice == 3:
            self.tail = mutate_bytes(rng, self.tail, other)
        elif choice == 4:
            self.size_added = rng.choice((1, -1, 4096, interesting(rng)))
        elif choice == 5:
            self.records = [replace(record) for record in mutate_list(rng, self.records)]
            if rng.random() < 0.5:
                self._renumber()
        elif choice == 6:
            self.link_rest = bytes(rng.choice((0, 400, 463, 464, 2000, 4047))) + b"\x01"
        elif self.records:
            _mutate_record(rng, rng.choice(self.records), other)

    def _renumber(self) -> None:
        """Give the records ordinals and sequence numbers that follow each other."""
        lsn, seq = self.records[0].lsn if self.records else 1, 1000
        for record in self.records:
            record.lsn, record.seq_first = lsn & ((1 << 64) - 1), seq
            lsn, seq = lsn + 1, (seq + record.op_count) & ((1 << 64) - 1)


def _mutate_record(rng: Random, record: Record, other: bytes) -> None:
    choice = rng.randrange(11)
    if choice < 5:
        name = ("lsn", "seq_first", "durable_lsn", "manifest_edit", "segment")[choice]
        setattr(record, name, mutate_number(rng, getattr(record, name)))
    elif choice == 5:
        record.op_count = mutate_number(rng, record.op_count, 32)
    elif choice == 6:
        record.type = rng.choice((0, 1, 2, 3, 255))
        record.zeros = rng.choice((b"\x00\x00\x00", b"\x00\x00\x01"))
    elif choice == 7:
        name = rng.choice(("chain", "payload_checksum", "own_checksum"))
        setattr(record, name, rng.getrandbits(64))
    elif choice == 8:
        record.payload_size = mutate_number(rng, len(record.payload), 32)
    elif choice == 9:
        record.padding = rng.choice((b"\x01", bytes(6) + b"\x80", b"\x00" * 4000 + b"\x01"))
    else:
        record.payload = mutate_payload(rng, record.payload, other)
        try:
            record.op_count = sum(len(b.operations) for b in parse_payload(record.payload))
        except (ValueError, IndexError):
            record.op_count = 1


class SegmentTarget:
    """Input: a log segment. The database id and the number are those that its header names."""

    name: ClassVar[str] = "segment"
    traced: ClassVar[tuple[str, ...]] = ("wal._scan_py", "wal.format", "wal.reader", "wal.decision")

    def seeds(self) -> Iterable[bytes]:
        yield from seed_segments()

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        if rng.random() < 0.1:
            return mutate_often(rng, data, other)
        try:
            segment = Segment.parse(data)
        except (struct.error, ValueError):
            return mutate_bytes(rng, data, other)
        for _ in range(rng.choice((1, 1, 2, 3))):
            segment.mutate(rng, other)
        encoded = segment.encode()[: 1 << 17]
        if rng.random() < 0.1:
            # Damage behind the header that no checksum covers any more.
            at = rng.randrange(len(encoded) + 1)
            encoded = encoded[:at] + mutate_bytes(rng, encoded[at:], other)
        return encoded

    def run(self, data: bytes) -> Iterable[object]:
        opened = attempt(DAMAGE, decode_segment_header, data[:FRONT_BYTES_MAX], "f")
        number, salt, alignment, database_id = SEGMENT, SALT, 8, DATABASE_ID
        if len(data) >= SEGMENT_HEADER_BYTES:
            fields = _HEADER.unpack_from(data)
            number, salt, database_id = fields[3], fields[4], fields[5]
            alignment = fields[2] if fields[2] in (8, 16, 512, 4096) else 8
        lsn, chain, first = 0, 0, BLOCK_BYTES
        if not opened.is_error:
            link = decode_link(data[:FRONT_BYTES_MAX], opened.value)
            first = opened.value.records_offset
            require(first == _records_offset(list(fields)), "records start elsewhere")
            _check_front(data[:first], fields[1], fields[2], has_link=link is not None)
            if link is not None:
                lsn, chain = link.lsn_first, link.chain
        features: list[object] = [opened.feature]
        for start in (lsn, 0, 41):
            scan = agreed(
                "scan_records",
                [
                    Outcome(
                        _scanned(
                            m,
                            m.scan_records(data, first, number, salt, start, chain, alignment),
                        )
                    )
                    for m in SCANS
                ],
            ).value
            agreed(
                "find_later_records",
                [
                    Outcome(
                        _scanned(
                            m,
                            m.find_later_records(data, first, number, salt, alignment, start),
                        )
                    )
                    for m in SCANS
                ],
            )
            _check_records(data, scan, salt, alignment)
            features.append((scan[0], len(scan[1])))
        features.append(_read(data, number, database_id, alignment))
        return features

    def memory_max(self, data: bytes) -> int:
        return 600 * len(data) + 16 * _MEBIBYTE


_SCANNED = (
    "end_offset", "lsn_next", "chain_next", "seq_first", "seq_next", "next_segment",
    "durable_lsn_min", "durable_lsn_max", "manifest_edit_max", "record_count",
)  # fmt: skip


def _scanned(module: Any, result: Any) -> tuple[Any, ...]:
    """Return all that a scan says."""
    records = [tuple(record) for record in result.records]
    for index in (0, len(records) - 1):
        if records:
            require(tuple(result.record(index)) == records[index], "records and record differ")
    return int(result.stop), records, [getattr(result, name) for name in _SCANNED]


def _check_front(front: bytes, version: int, alignment: int, *, has_link: bool) -> None:
    """Check that a header block which is taken is zero where it must be: everywhere but in header
    and link, and from version 2 on but in the sectors of the link, unless it is one.
    """
    at = len(front) // 2
    own = alignment if version == 2 and not has_link else LINK_BYTES
    require(not any(front[SEGMENT_HEADER_BYTES:at]), "bytes before the link are not zero")
    require(not any(front[at + own :]), "bytes behind the link are not zero")


def _check_records(data: bytes, scan: tuple[Any, ...], salt: int, alignment: int) -> None:
    """Check that the records of a scan are whole and give their bytes again."""
    for record in scan[1]:
        lsn, seq_first, op_count, kind, at, size, durable, edit, digest = record
        stored = data[at - RECORD_HEADER_BYTES : at]
        (number, chain) = (_RECORD.unpack(stored)[2], _RECORD.unpack(stored)[7])
        payload = data[at : at + size]
        made = Record(lsn, seq_first, durable, edit, kind, op_count, payload, number, chain=chain)
        encoded, own = made.encode(0, salt, alignment)
        start = at - RECORD_HEADER_BYTES
        require(own == digest, "a record has another checksum than its scan says")
        require(data[start : start + len(encoded)] == encoded, "a record is encoded otherwise")
        require(seq_first + op_count <= SEQ_MAX + 1, "sequence numbers overflow")
        if kind == 1:
            batches = SCANS[0].decode_payload(payload, 0, size)
            require(sum(map(len, batches)) == op_count, "a record has another count")


def _read(data: bytes, number: int, database_id: bytes, alignment: int) -> object:
    """Read a log that is this one segment, knowing little and knowing much; return a feature."""
    env = SimEnv()
    path = segment_name(number)
    file = env.create(path, site="fuzz")
    file.write_at(0, data, site="fuzz")
    file.close()
    features = []
    known = ((0, 0, 1 << 63, False), (42, 41, 1 << 63, False), (30, 42, 12, True))
    for first, durable, edit, clean in known:
        contents = read_log(
            env,
            "/",
            number,
            database_id=database_id,
            alignment=alignment,
            first_lsn=first,
            durable_lsn=durable,
            manifest_edit_seen=edit,
            clean=clean,
        )
        found = attempt(DAMAGE, list, contents.records())
        if not found.is_error:
            require(contents.complete, "a log that was read is not complete")
            require(contents.last_lsn >= durable, "a durable record is missing without an error")
        features.append(found.feature)
    return tuple(features)


def seed_segments() -> Iterable[bytes]:
    """Yield valid segments: of a first and a later life, ended or torn, empty, widely aligned."""
    payloads = seed_payloads()[:3]

    def segment(
        alignment: int, previous: int, tail: bytes, *, ended: bool, version: int = 1
    ) -> Segment:
        header = [
            SEGMENT_MAGIC, version, alignment, SEGMENT, SALT, DATABASE_ID, 0, previous, 1795348800
        ]  # fmt: skip
        chain = SALT if previous == 0 else 99
        made = Segment(header, [LINK_MAGIC, 0, SEGMENT, previous, 41, chain], tail=tail)
        seq = 1000
        for index, payload in enumerate(payloads):
            count = sum(len(batch.operations) for batch in parse_payload(payload))
            made.records.append(Record(41 + index, seq, 40 + index, 12, 1, count, payload))
            seq += count
        if ended:
            number = (SEGMENT + 2).to_bytes(8, "little")
            made.records.append(Record(44, seq, 43, 12, 2, 0, number))
        return made

    yield segment(8, 0, bytes(400), ended=False).encode()
    yield segment(8, 5, bytes(64), ended=True).encode()
    yield segment(512, 0, b"\x48\x57\x41\x4c" + bytes(300), ended=False).encode()
    empty = segment(8, 0, bytes(512), ended=False)
    empty.records = []
    yield empty.encode()
    linkless = segment(8, 5, bytes(100), ended=False)
    linkless.link = None
    yield linkless.encode()
    yield segment(512, 0, bytes(512), ended=False, version=2).encode()
    yield segment(4096, 5, bytes(4096), ended=True, version=2).encode()
    torn = segment(512, 5, bytes(512), ended=False, version=2)
    torn.link_rest = b"\xff" * (512 - LINK_BYTES)
    yield torn.encode()


if (_LINK.size, _RECORD.size) != (LINK_BYTES, RECORD_HEADER_BYTES):
    raise ImportError("testing/fuzz_log.py disagrees with the format")

TARGETS: tuple[Target, ...] = (PayloadTarget(), SegmentTarget())
