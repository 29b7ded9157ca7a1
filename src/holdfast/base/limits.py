"""Hard limits.

Every count and length that is read from disk is compared with one of these or with the size of its
file.
"""

KEY_BYTES_MAX = 64 * 1024
"""The longest key, in bytes."""

VALUE_BYTES_MAX = 1 << 30
"""The longest value, in bytes."""

BATCH_BYTES_MAX = (1 << 31) - (1 << 20)
"""The most encoded bytes of one atomic batch: it fits one WAL record, whose length has 32 bits."""

PAGE_BYTES_MAX = (1 << 31) - 1
"""The most bytes of one page body: a page holds at least one entry, and so the longest value."""

KEYSPACE_NAME_BYTES_MAX = 255
"""The longest keyspace name, in UTF-8 bytes."""

LEVELS_MAX = 7
"""Levels of one tree, level 0 included."""
