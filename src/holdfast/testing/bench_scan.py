"""Scans: whole ones in every form, and short ones, beside LMDB's cursor where that is installed."""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast

import holdfast
from holdfast.engine import Database
from holdfast.testing.bench_measure import (
    VALUE_KINDS,
    Figure,
    Options,
    fill,
    rounds_of,
    scratch,
    sequential_keys,
    settle,
    values_of,
)
from holdfast.testing.bench_rows import shape

SCAN_US = 0.5
CHUNK_ROWS = 1_000
SHORT_ROWS = 10
SHORT_SCANS = 2_000
PEER_ROOM = 4

Work = Callable[[], int]


def scan(options: Options) -> list[Figure]:
    """Whole scans of what `get` reads, in every form, and short scans of ten rows.

    Rows are taken by a `for` loop over `items()`, in lists of 1,000 rows, and in columns of 1,000
    rows. A short scan is `items(start=key, limit=10)` from a random key. "compacted" is the same
    after `db.compact()`: one level holds all. Where the package `lmdb` is installed, its cursor
    goes over the same rows, and the works of both take turns.
    """
    figures = []
    for kind in VALUE_KINDS:
        with ExitStack() as stack:
            folder = stack.enter_context(scratch(options))
            database = stack.enter_context(holdfast.open(folder))
            keys = sequential_keys(options.count)
            source = random.Random(options.seed)
            fill(database, source.sample(keys, len(keys)), values_of(kind, options.seed))
            settle(database)
            starts = source.choices(keys, k=SHORT_SCANS)
            peer = stack.enter_context(lmdb_works(options, starts))
            figures += measured(options, database, starts, kind, peer)
            database.compact()
            figures += measured(options, database, starts, f"{kind}, compacted", {})
    return figures


def measured(
    options: Options, database: Database, starts: list[bytes], kind: str, peer: dict[str, Work]
) -> list[Figure]:
    """Return the figures of all works, which take turns."""
    works = {
        "forward, row by row": lambda: count_rows(database, reverse=False),
        "reverse, row by row": lambda: count_rows(database, reverse=True),
        "forward, next_chunk(1000)": lambda: count_chunks(database, reverse=False),
        "reverse, next_chunk(1000)": lambda: count_chunks(database, reverse=True),
        "forward, next_columns(1000)": lambda: count_columns(database),
        f"of {SHORT_ROWS} rows from a random key": lambda: count_short(database, starts),
        **peer,
    }
    note = shape(database)
    figures = []
    for what, taken in zip(works, rounds_of(options.rounds, *works.values()), strict=True):
        figure = taken.figure(f"scan {what}, {kind}", "us/row")
        budget = SCAN_US if what not in peer and not what.startswith("of ") else None
        figures.append(figure.with_budget(budget, note=note))
    return figures


def count_rows(database: Database, *, reverse: bool) -> int:
    """Take row after row as an application does; return their number."""
    count = 0
    for _key, _value in cast("Iterable[tuple[bytes, bytes]]", database.items(reverse=reverse)):
        count += 1
    return count


def count_chunks(database: Database, *, reverse: bool) -> int:
    """Take the rows in lists; return their number."""
    cursor = database.items(reverse=reverse)
    count = 0
    while chunk := cursor.next_chunk(CHUNK_ROWS):
        count += len(chunk)
    return count


def count_columns(database: Database) -> int:
    """Take the rows in columns; return their number."""
    cursor = database.items()
    count = 0
    while columns := cursor.next_columns(CHUNK_ROWS):
        count += len(columns)
    return count


def count_short(database: Database, starts: list[bytes]) -> int:
    """Take a few rows from each of some keys on; return their number."""
    count = 0
    for start in starts:
        for _key, _value in cast(
            "Iterable[tuple[bytes, bytes]]", database.items(start=start, limit=SHORT_ROWS)
        ):
            count += 1
    return count


@contextmanager
def lmdb_works(options: Options, starts: list[bytes]) -> Iterator[dict[str, Work]]:
    """Give the works of LMDB over as many rows of the same size; none where it is not installed."""
    if importlib.util.find_spec("lmdb") is None:
        yield {}
        return
    lmdb: Any = importlib.import_module("lmdb")  # Any: it has no types
    keys = sequential_keys(options.count)
    values = values_of(VALUE_KINDS[0], options.seed)
    room = PEER_ROOM * sum(len(key) + len(values[0]) for key in keys) + (1 << 24)
    with scratch(options) as folder:
        os.makedirs(folder)
        with lmdb.open(folder, map_size=room, sync=False) as environment:
            with environment.begin(write=True) as writing:
                for number, key in enumerate(keys):
                    writing.put(key, values[number % len(values)], append=True)
            yield {
                "forward by LMDB's cursor": partial(lmdb_rows, environment, reverse=False),
                "reverse by LMDB's cursor": partial(lmdb_rows, environment, reverse=True),
                f"of {SHORT_ROWS} rows by LMDB's cursor": partial(lmdb_short, environment, starts),
            }


def lmdb_rows(environment: Any, *, reverse: bool) -> int:
    """Take row after row from LMDB; return their number."""
    count = 0
    with environment.begin() as reading, reading.cursor() as cursor:
        for _key, _value in cursor.iterprev() if reverse else cursor:
            count += 1
    return count


def lmdb_short(environment: Any, starts: list[bytes]) -> int:
    """Take a few rows from each of some keys on; return their number."""
    count = 0
    for start in starts:
        with environment.begin() as reading, reading.cursor() as cursor:
            cursor.set_range(start)
            left = SHORT_ROWS
            for _key, _value in cursor:
                count += 1
                left -= 1
                if left == 0:
                    break
    return count
