"""A child process of test_memory: an entry finds no memory, and then another one takes its place.

Each allocation of the kernels fails in turn while an entry is added that closes a page. Prints how
many did, and fails when a table comes of it that does not hold what was added.
"""

from __future__ import annotations

import os
import tempfile

from holdfast.base import PUT
from holdfast.bufferpool import BufferPool
from holdfast.codec import Compression
from holdfast.env import PosixEnv
from holdfast.sstable import TableBuilder, TableReader
from tests.fault.failing_memory import Allocations

FILE_ID = bytes(16)
FIRST: list[tuple[bytes, int, int, bytes]] = [
    (b"a%d" % number, 1, PUT, bytes(60)) for number in range(7)
]
STRUCK = (b"zz", 1, PUT, bytes(100_000))
INSTEAD = (b"bb", 1, PUT, b"value")


def built(nth: int, allocations: Allocations) -> tuple[bool, bytes | None]:
    """Return whether an allocation failed, and the table without its entry, if one can be made."""
    builder = TableBuilder(
        FILE_ID,
        page_bytes=600,
        restart_interval=4,
        filter_bits_per_key=10,
        compression=Compression.NONE,
    )
    for entry in FIRST:
        builder.add(*entry)
    struck, result = allocations.fail(nth, lambda: builder.add(*STRUCK))
    assert isinstance(result, MemoryError) == struck, result
    if not struck:
        return False, None
    try:
        builder.add(*INSTEAD)
    except ValueError:
        return True, None
    builder.finish(1, 0)
    return True, builder.take_output()


def check(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "table")
        with open(path, "wb") as file:
            file.write(data)
        reader = TableReader(PosixEnv().open(path), 1, FILE_ID, BufferPool(1 << 20))
        for key, seq, kind, value in [*FIRST, INSTEAD]:
            assert reader.get(key, 9) == (seq, kind, value), key
        assert not list(reader.verify())
        reader.close()


def main() -> None:
    allocations = Allocations(kernels=True)
    nth, struck = 1, True
    while struck:
        struck, data = built(nth, allocations)
        if data is not None:
            check(data)
        nth += struck
    print(nth - 1)


if __name__ == "__main__":
    main()
