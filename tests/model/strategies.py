"""What the model tests draw: few keys, so that writes meet, and values that say when they came."""

from __future__ import annotations

import zlib

from hypothesis import strategies as st

from holdfast.base import DatabaseSettings, KeyspaceSettings

LONG = b"long" * 100

KEYS = st.sampled_from(
    [
        b"",
        b"\x00",
        b"\x00\x00",
        b"\x00\xff",
        b"a",
        b"a\x00",
        b"a\x00\x00",
        b"a\xff",
        b"a\xff\xff",
        b"ab",
        b"abc",
        b"b",
        b"b\x00b",
        b"ba",
        b"c",
        b"k",
        b"k020",
        b"k050",
        b"k0505",
        LONG,
        LONG + b"\x00",
        LONG + b"z",
        b"m" * 1000,
        b"n",
        b"z",
        b"\xff",
        b"\xff\x00",
        b"\xff\xff",
        b"\xff\xff\xff",
    ]
)
BOUNDS = st.one_of(st.none(), KEYS)
PREFIXES = st.sampled_from([None, None, b"", b"a", b"a\xff", b"b", b"long", b"\xff", b"\xff\xff"])
LIMITS = st.sampled_from([None, None, 0, 1, 3])
SIZES = st.sampled_from([0, 1, 20, 20, 100, 300, 700, 1500])
"""Of values: none, small ones, and up to several of the pages that the settings cut."""
DURABILITIES = st.sampled_from([None, "commit", "interval", "none", "none"])


def value(number: int, size: int) -> bytes:
    """Return a value of `size` bytes that no other number has, as far as they say; half of it is
    noise that does not compress.
    """
    text = b"%d." % number
    noise = zlib.crc32(text).to_bytes(4, "little")
    while len(text) < size:
        noise += zlib.crc32(noise).to_bytes(4, "little")
        text += noise[-4:] + b"...."
    return text[:size]


def tiny(**changes: object) -> DatabaseSettings:
    """Return settings under which a few dozen writes are flushed, compacted and rotated."""
    keyspace: dict[str, object] = {
        "memtable_bytes": 4 << 10,
        "page_bytes": 256,
        "restart_interval": 4,
        "table_bytes": 4 << 10,
        "level0_tables": 2,
        "level1_bytes": 8 << 10,
        "level_ratio": 2,
    }
    database: dict[str, object] = {
        "memory_bytes": 1 << 20,
        "wal_segment_bytes": 8 << 10,
        "wal_bytes_max": 32 << 10,
        "sync_interval_ms": 10,
    }
    for name, given in changes.items():
        (database if name in database or name.startswith(("wal", "max")) else keyspace)[name] = (
            given
        )
    return DatabaseSettings(keyspace=KeyspaceSettings(**keyspace), **database)  # type: ignore[arg-type]
