"""The data of `holdfast bench`: keys, values, which keys are asked for, and the loaded databases.

Keys have 16 bytes: a number in decimal digits. Values are half random bytes, half zeros, so that
they compress to about a half, as those of most benchmarks do.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence

from holdfast.testing.versus_scale import VALUE_BYTES, YCSB_VALUE_BYTES, Scale
from holdfast.testing.versus_store import Row

VALUES_KEPT = 4096
ZIPF_EXPONENT = 0.99
LATE_EACH = 20
"""One row in so many comes late."""
LATE_SHARE = 0.05
"""How late at most, as a part of all rows."""


def key_of(number: int) -> bytes:
    """Return the key of a number; the order is that of the numbers."""
    return b"%016d" % number


def values_of(count: int, source: random.Random, size: int = VALUE_BYTES) -> Iterator[bytes]:
    """Return values of one size, enough different ones that no page holds many twice."""
    kept = min(VALUES_KEPT, count)
    made = [source.randbytes(size // 2) + bytes(size - size // 2) for _ in range(kept)]
    return itertools.cycle(made)


def rows_of(
    numbers: Sequence[int], source: random.Random, size: int = VALUE_BYTES
) -> list[tuple[bytes, bytes]]:
    """Return a row for each number."""
    values = values_of(len(numbers), source, size)
    return [(key_of(number), next(values)) for number in numbers]


def shuffled(count: int, source: random.Random) -> list[int]:
    """Return the numbers up to `count` in random order."""
    return source.sample(range(count), count)


def random_keys(count: int, among: Sequence[int], source: random.Random) -> list[bytes]:
    """Return keys drawn evenly among some."""
    return [key_of(number) for number in source.choices(among, k=count)]


def zipfian(count: int, ranks: Sequence[int], source: random.Random) -> list[int]:
    """Return numbers drawn with the probabilities of YCSB: the first rank is asked for most."""
    weights = itertools.accumulate((rank + 1) ** -ZIPF_EXPONENT for rank in range(len(ranks)))
    return source.choices(ranks, cum_weights=list(weights), k=count)


def late_order(count: int, source: random.Random) -> list[int]:
    """Return the numbers in order, but for one in LATE_EACH that comes up to LATE_SHARE later."""
    lateness = max(int(count * LATE_SHARE), 1)
    arrivals = []
    for number in range(count):
        is_late = source.randrange(LATE_EACH) == 0
        arrivals.append((number + (source.randint(1, lateness) if is_late else 0), number))
    return [number for _, number in sorted(arrivals)]


def dataset_rows(scale: Scale, source: random.Random) -> list[Row]:
    """Rows of 116 bytes, put in random order."""
    return rows_of(shuffled(scale.rows, source), source)


def dataset_ycsb(scale: Scale, source: random.Random) -> list[Row]:
    """Rows with values of 1,000 bytes, put in random order."""
    return rows_of(shuffled(scale.ycsb_rows, source), source, YCSB_VALUE_BYTES)


def dataset_large(scale: Scale, source: random.Random) -> list[Row]:
    """Rows with large values of random bytes."""
    return large_rows(scale, source)


def large_rows(scale: Scale, source: random.Random) -> list[Row]:
    """Return rows with large values of random bytes, a few different ones in turn."""
    values = [source.randbytes(scale.large_bytes) for _ in range(8)]
    return [(key_of(number), values[number % 8]) for number in range(scale.large_count)]


DATASETS: dict[str, Callable[[Scale, random.Random], list[Row]]] = {
    "rows": dataset_rows,
    "ycsb": dataset_ycsb,
    "large": dataset_large,
}
"""What databases are loaded with, once for each engine, before they are read."""
