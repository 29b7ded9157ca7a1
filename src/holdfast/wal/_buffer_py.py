"""Encoding of operations into batches and of batches into a record: the plain twin, which is the
specification.

A `WriteBatch` is one atomic set of operations of one transaction. A `RecordBuffer` collects the
batches of a commit group and seals them as one record of the log. The bytes are those of
docs/format/wal.md.

Thread safety: none; the owner of a batch or buffer serialises calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import index
from typing import Final

from holdfast.base import (
    BATCH_BYTES_MAX,
    DELETE,
    MERGE,
    PUT,
    RANGE_DELETE,
    LimitError,
    check_key,
    check_value,
)
from holdfast.codec import checksum
from holdfast.wal._scan_py import decode_payload
from holdfast.wal.format import (
    RECORD_HEADER_BYTES,
    RecordHeader,
    RecordType,
    encode_record_header,
    is_alignment,
    is_well_formed,
    record_bytes,
)

Operation = tuple[int, int, bytes, bytes | None]
"""Kind, keyspace, key, and the value or stop key (None for a deletion)."""

_U32_MAX: Final = (1 << 32) - 1
_U64_MAX: Final = (1 << 64) - 1


class WriteBatch:
    """The encoded operations of one transaction, over any number of keyspaces.

    Several operations have at most `bytes_max` together; one by itself always fits. One that does
    not raises LimitError and leaves the batch as it was.
    """

    __slots__ = ("_bytes_max", "_op_count", "_operations")

    def __init__(self, bytes_max: int = BATCH_BYTES_MAX) -> None:
        self._bytes_max = _check_bytes_max(bytes_max)
        self._operations = bytearray()
        self._op_count = 0

    @property
    def op_count(self) -> int:
        """Operations collected."""
        return self._op_count

    @property
    def bytes_max(self) -> int:
        """The most bytes that several operations may have."""
        return self._bytes_max

    @property
    def size(self) -> int:
        """Bytes of the encoded batch; 0 when it has no operation."""
        return _batch_bytes(self._op_count, len(self._operations))

    def put(self, keyspace: int, key: bytes, value: bytes) -> None:
        """Add: the key now has this value. Raises: TypeError, LimitError."""
        self._add(PUT, keyspace, key, value)

    def put_many(self, keyspace: int, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Add a put of each pair of key and value. Raises: as `put`, and what the iterator of
        `pairs` raises, with nothing added.
        """
        _check_keyspace(keyspace)
        before = self.mark()
        try:
            for key, value in pairs:
                self.put(keyspace, key, value)
        except BaseException:
            self.rollback(before)
            raise

    def delete(self, keyspace: int, key: bytes) -> None:
        """Add: the key is now absent. Raises: TypeError, LimitError."""
        self._add(DELETE, keyspace, key, None)

    def merge(self, keyspace: int, key: bytes, value: bytes) -> None:
        """Add: the key has one more operand, as `merge.Merges.value_of` makes it. Raises:
        TypeError, LimitError.
        """
        self._add(MERGE, keyspace, key, value)

    def delete_range(self, keyspace: int, start: bytes, stop: bytes) -> None:
        """Add: every key from `start` up to `stop`, without it, is now absent. Raises: TypeError,
        LimitError.
        """
        self._add(RANGE_DELETE, keyspace, start, stop)

    def clear(self) -> None:
        """Forget all operations."""
        self._operations = bytearray()
        self._op_count = 0

    def mark(self) -> tuple[int, int]:
        """Return the place to which `rollback` can cut the batch back."""
        return len(self._operations), self._op_count

    def rollback(self, mark: tuple[int, int]) -> None:
        """Forget the operations that were added since `mark`.

        Raises: ValueError for a mark from beyond the end.
        """
        size, op_count = mark
        if not (0 <= size <= len(self._operations) and 0 <= op_count <= self._op_count):
            raise ValueError("the mark does not lie within the batch")
        del self._operations[size:]
        self._op_count = op_count

    def payload(self) -> bytes:
        """Return the encoded batch; nothing when it has no operation."""
        if self._op_count == 0:
            return b""
        return _varint(self._op_count) + self._operations

    def operations(self) -> Iterator[Operation]:
        """Return the operations in the order they were added."""
        payload = self.payload()
        batches = decode_payload(payload, 0, len(payload))
        return iter([operation for batch in batches for operation in batch])

    def _add(self, kind: int, keyspace: int, key: bytes, value: bytes | None) -> None:
        operation = _encode(kind, keyspace, key, value)
        size = _batch_bytes(self._op_count + 1, len(self._operations) + len(operation))
        if self._op_count and size > self._bytes_max:
            raise LimitError(f"the batch would have {size} bytes; the limit is {self._bytes_max}")
        self._operations += operation
        self._op_count += 1


class RecordBuffer:
    """The payload of the record being collected, with room for its header in front.

    While a view that `seal` gave is alive, every change raises BufferError. What does not fit
    raises LimitError and leaves the buffer as it was.
    """

    __slots__ = ("_buffer", "_bytes_max", "_op_count", "_size")

    def __init__(self, bytes_max: int = BATCH_BYTES_MAX) -> None:
        self._bytes_max = _check_bytes_max(bytes_max)
        self._buffer = bytearray(RECORD_HEADER_BYTES)
        self._size = 0
        self._op_count = 0

    @property
    def size(self) -> int:
        """Payload bytes collected."""
        return self._size

    @property
    def op_count(self) -> int:
        """Operations collected, over all batches."""
        return self._op_count

    def append_op(self, kind: int, keyspace: int, key: bytes, value: bytes | None = None) -> None:
        """Append a batch of exactly one operation.

        Raises: TypeError or LimitError for a bad key or value; ValueError for a bad kind.
        """
        self._append(b"\x01" + _encode(kind, keyspace, key, value), 1)

    def append_batch(self, batch: WriteBatch) -> None:
        """Append a copy of a batch; nothing when it has no operation."""
        if not isinstance(batch, WriteBatch):
            raise TypeError(f"a batch is a WriteBatch, not {type(batch).__name__}")
        if batch.op_count:
            self._append(batch.payload(), batch.op_count)

    def mark(self) -> tuple[int, int]:
        """Return the place to which `rollback` can cut the buffer back."""
        return self._size, self._op_count

    def rollback(self, mark: tuple[int, int]) -> None:
        """Forget what was appended since `mark`. Raises: ValueError for one from beyond the end."""
        size, op_count = mark
        if not (0 <= size <= self._size and 0 <= op_count <= self._op_count):
            raise ValueError("the mark does not lie within the buffer")
        self._own()
        self._size, self._op_count = size, op_count

    def seal(
        self,
        segment: int,
        salt: int,
        lsn: int,
        seq_first: int,
        durable_lsn: int,
        manifest_edit: int,
        chain: int,
        alignment: int = 8,
    ) -> tuple[memoryview, int]:
        """Return the whole record, padded to `alignment`, and the checksum that the next record
        chains to.

        The view is of this buffer's own memory and must be released before the buffer changes
        again. Sealing changes nothing that was collected. Raises: ValueError when there is nothing
        to seal or no reader would accept the header; OverflowError for a number that is not an
        unsigned 64-bit integer.
        """
        numbers = (segment, salt, lsn, seq_first, durable_lsn, manifest_edit, chain)
        if any(not 0 <= index(number) <= _U64_MAX for number in numbers):
            raise OverflowError("a header field is not a 64-bit unsigned integer")
        if not is_alignment(alignment):
            raise ValueError(
                f"the alignment is {alignment}; it must be a power of two from 8 to 4096"
            )
        if self._op_count == 0:
            raise ValueError("a record has at least one operation")
        self._own()
        header = RecordHeader(
            payload_size=self._size, segment=segment, lsn=lsn, seq_first=seq_first,
            durable_lsn=durable_lsn, manifest_edit=manifest_edit, chain=chain,
            op_count=self._op_count, type=RecordType.BATCHES,
            payload_checksum=checksum(self.payload(), salt),
        )  # fmt: skip
        if not is_well_formed(header):
            raise ValueError(
                f"no record has lsn {lsn}, durable lsn {durable_lsn}, sequence number {seq_first}"
            )
        encoded, chain_next = encode_record_header(header, salt)
        self._buffer[:RECORD_HEADER_BYTES] = encoded
        total = record_bytes(self._size, alignment)
        self._buffer += bytes(total - len(self._buffer))
        return memoryview(self._buffer).toreadonly(), chain_next

    def clear(self) -> None:
        """Forget everything collected."""
        self._own()
        self._buffer = bytearray(RECORD_HEADER_BYTES)
        self._size = 0
        self._op_count = 0

    def payload(self) -> bytes:
        """Return a copy of the payload."""
        return bytes(self._buffer[RECORD_HEADER_BYTES : RECORD_HEADER_BYTES + self._size])

    def operations(self) -> Iterator[Operation]:
        """Return the operations of all batches, in order."""
        batches = decode_payload(self.payload(), 0, self._size)
        return iter([operation for batch in batches for operation in batch])

    def _append(self, encoded: bytes, op_count: int) -> None:
        if len(encoded) > self._bytes_max - self._size:
            size = self._size + len(encoded)
            raise LimitError(f"the record would have {size} bytes; the limit is {self._bytes_max}")
        self._own()
        del self._buffer[RECORD_HEADER_BYTES + self._size :]
        self._buffer += encoded
        self._size += len(encoded)
        self._op_count += op_count

    def _own(self) -> None:
        """Raise BufferError while a view is alive: a bytearray refuses to change its size then."""
        self._buffer.append(0)
        self._buffer.pop()


def _check_bytes_max(bytes_max: int) -> int:
    if not 0 < bytes_max <= BATCH_BYTES_MAX:
        raise LimitError(f"the limit is {bytes_max}; it must lie between 1 and {BATCH_BYTES_MAX}")
    return bytes_max


def _encode(kind: int, keyspace: int, key: bytes, value: bytes | None) -> bytes:
    if kind not in (DELETE, PUT, RANGE_DELETE, MERGE):
        raise ValueError(f"there is no kind {kind}")
    _check_keyspace(keyspace)
    key = check_key(key)
    encoded = bytes([kind]) + _varint(keyspace) + _varint(len(key)) + key
    if kind == DELETE:
        if value is not None:
            raise ValueError("a deletion has no value")
        return encoded
    value = check_key(value) if kind == RANGE_DELETE else check_value(value)
    return encoded + _varint(len(value)) + value


def _check_keyspace(keyspace: int) -> None:
    if not 0 <= keyspace <= _U32_MAX:
        raise LimitError(f"the keyspace id is {keyspace}; it must fit 32 bits")


def _batch_bytes(op_count: int, operations_size: int) -> int:
    return len(_varint(op_count)) + operations_size if op_count else 0


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
