"""Both twins of the reader ask filters for prefixes as the tables say, and find damage in that."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from holdfast.base import PUT, CorruptionError
from holdfast.bufferpool import BufferPool
from holdfast.sstable import TableInfo, _reader_py
from holdfast.sstable.format import decode_prefix_bytes
from tests.twin.test_sstable_reader import (
    body_of,
    build,
    damages,
    footer_of,
    operate,
    reader_of,
    twins,
)


def prefixed(count: int, **changes: Any) -> tuple[bytes, TableInfo]:
    """Keys of three bytes and two, in pages so small that there are several partitions."""
    entries = [(b"%03d%02d" % (number // 20 * 2, number), 1, PUT, b"") for number in range(2000)]
    return build(sorted(entries), page_bytes=1, prefix_bytes=count, **changes)


@twins
def test_a_prefix_that_is_there_is_never_denied(twin: Any) -> None:
    data, info = prefixed(3)
    pool = BufferPool(1 << 20)
    reader = reader_of(twin, data, info, pool)
    assert reader.prefix_bytes == 3
    assert len(reader_of(_reader_py, data, info)._root) > 3
    assert all(reader.may_contain_prefix(b"%03d" % (2 * number)) for number in range(100))
    assert pool.tables_skipped == 0
    absent = [b"%03d" % (2 * number + 1) for number in range(99)]
    denied = sum(not reader.may_contain_prefix(prefix) for prefix in absent)
    assert denied > 90
    assert not reader.may_contain_prefix(b"999")
    assert pool.tables_skipped == denied + 1


@twins
def test_a_prefix_of_another_length_is_refused(twin: Any) -> None:
    data, info = prefixed(3)
    for prefix in (b"", b"00", b"0000"):
        with pytest.raises(ValueError, match="bytes"):
            reader_of(twin, data, info).may_contain_prefix(prefix)
    plain = reader_of(twin, *prefixed(0))
    assert plain.prefix_bytes == 0
    with pytest.raises(ValueError, match="none counts"):
        plain.may_contain_prefix(b"")


@twins
@pytest.mark.parametrize("count", [0, 65_537, (1 << 64) - 1])
def test_a_length_of_prefixes_that_cannot_be_is_damage(twin: Any, count: int) -> None:
    """The property is changed, with every checksum right."""
    data, _ = prefixed(3)
    page = footer_of(data).properties
    body = body_of(data, page)
    at = body.index(b"prefix_bytes\x03") + len(b"prefix_bytes")
    changed = body[:at] + struct.pack("<Q", count) + body[at + 8 :]
    with pytest.raises(CorruptionError, match="prefix_bytes"):
        reader_of(twin, operate(data, page, changed))


@pytest.mark.parametrize("size", [0, 7, 9])
def test_a_length_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="8 bytes"):
        decode_prefix_bytes({b"prefix_bytes": bytes(size)})


@twins
def test_verify_finds_a_filter_that_denies_a_prefix(twin: Any) -> None:
    """The table says three bytes where its filters hold prefixes of two."""
    data, _ = prefixed(2)
    page = footer_of(data).properties
    body = body_of(data, page)
    (at,) = [at for at in range(len(body)) if body.startswith(b"prefix_bytes\x02", at)]
    changed = body[: at + 12] + b"\x03" + body[at + 13 :]
    found = damages(twin, operate(data, page, changed))
    assert {reason for _, reason in found} == {"the filter denies a prefix of a data page"}
