"""The core workloads of YCSB, A to F: Cooper et al., "Benchmarking Cloud Serving Systems", 2010.

Rows have values of 1,000 bytes; keys are drawn as YCSB draws them, hot ones scattered over the
key space. One thread, no sync.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from holdfast.testing.versus_input import key_of, shuffled, values_of, zipfian
from holdfast.testing.versus_measure import Operations
from holdfast.testing.versus_scale import KEY_BYTES, YCSB_VALUE_BYTES, Scale
from holdfast.testing.versus_store import Put, Store

SCAN_ROWS_MAX = 100
ROW_BYTES = KEY_BYTES + YCSB_VALUE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Of a hundred operations, how many are of which kind; the rest are gets."""

    description: str
    update: int = 0
    insert: int = 0
    scan: int = 0
    modify: int = 0
    isolation: str | None = None
    """The level of the transactions in which rows are modified; None is without."""
    is_latest: bool = False
    """Whether the newest rows are the hot ones."""

    @property
    def has_writes(self) -> bool:
        """Whether it writes."""
        return bool(self.update or self.insert or self.modify)


YCSB = {
    "ycsb-a": Mix(description="YCSB A: half gets, half updates.", update=50),
    "ycsb-b": Mix(description="YCSB B: 95 % gets, 5 % updates.", update=5),
    "ycsb-c": Mix(description="YCSB C: gets only."),
    "ycsb-d": Mix(
        description="YCSB D: 95 % gets of the newest rows, 5 % inserts.", insert=5, is_latest=True
    ),
    "ycsb-e": Mix(
        description="YCSB E: 95 % scans of 1 to 100 rows, 5 % inserts.", scan=95, insert=5
    ),
    "ycsb-f": Mix(
        description="YCSB F: half gets, half gets followed by an update of the row.", modify=50
    ),
    "ycsb-f-serializable": Mix(
        description="YCSB F, each update with its get as one serializable transaction.",
        modify=50,
        isolation="serializable",
    ),
    "ycsb-f-snapshot": Mix(
        description="YCSB F, each update with its get as one transaction at the level snapshot, of "
        "engines that have it.",
        modify=50,
        isolation="snapshot",
    ),
}


def ycsb(store: Store, scale: Scale, source: random.Random, mix: Mix) -> Operations:
    """Return the operations of a mix over a loaded database."""
    get, put, rows = store.getter(), store.putter(), store.rows
    values = values_of(scale.ycsb_operations, source, YCSB_VALUE_BYTES)

    def modify_plainly(key: bytes, value: bytes) -> None:
        get(key)
        put(key, value)

    modify: Put = modify_plainly
    if mix.isolation is not None:
        modify = store.updater(mix.isolation)
        # A getter within an open transaction would not see, or hold up, what the updater commits.
        get = store.fresh_getter()

    def scan(key: bytes, count: int) -> None:
        list(rows(key, limit=count))

    inserted = itertools.count(scale.ycsb_rows)
    drawn = iter(numbers(scale, source, mix))
    last = scale.ycsb_rows - 1
    operations: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
    written = added = 0
    for _ in range(scale.ycsb_operations):
        number, die = next(drawn), source.randrange(100)
        key = key_of(max(last - number, 0) if mix.is_latest else number)
        if (die := die - mix.update) < 0:
            operations.append((put, (key, next(values))))
            written += ROW_BYTES
        elif (die := die - mix.insert) < 0:
            last = next(inserted)
            operations.append((put, (key_of(last), next(values))))
            written += ROW_BYTES
            added += ROW_BYTES
        elif (die := die - mix.scan) < 0:
            operations.append((scan, (key, source.randint(1, SCAN_ROWS_MAX))))
        elif die - mix.modify < 0:
            operations.append((modify, (key, next(values))))
            written += ROW_BYTES
        else:
            operations.append((get, (key,)))
    work = Operations(operations, store.finish)
    work.user_bytes = written
    work.live_bytes = scale.ycsb_rows * ROW_BYTES + added
    return work


def numbers(scale: Scale, source: random.Random, mix: Mix) -> list[int]:
    """Return which row each operation is about; of the newest rows, how far from the last."""
    ranks = range(scale.ycsb_rows) if mix.is_latest else shuffled(scale.ycsb_rows, source)
    return zipfian(scale.ycsb_operations, ranks, source)
