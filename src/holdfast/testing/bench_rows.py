"""Single rows: puts without a sync, lookups."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import holdfast
from holdfast.engine import Database
from holdfast.testing.bench_measure import (
    VALUE_KINDS,
    Figure,
    Options,
    Rounds,
    fill,
    rounds_of,
    scratch,
    sequential_keys,
    settle,
    values_of,
)

PUT_US = 2.0
GET_US = 1.0
HOT_KEYS = 1_000
SPREAD_KEYS = 10_000
BATCH_KEYS = 100


def put(options: Options) -> list[Figure]:
    """`db.put(key, value, durability="none")` into a fresh database, one call a row.

    Flushes and compactions run meanwhile and count, in the CPU column too. "until flushed" also
    waits for `db.flush()` at the end.
    """
    figures = []
    ordered = sequential_keys(options.count)
    shuffled = random.Random(options.seed).sample(ordered, len(ordered))
    for kind in VALUE_KINDS:
        values = values_of(kind, options.seed)
        for order, keys in (("sequential", ordered), ("random", shuffled)):
            puts, whole = Rounds(), Rounds()
            for _ in range(options.rounds):
                put_round(options, keys, values, puts.take, whole.take)
                put_round(options, keys, values, puts.take_beside, whole.take_beside)
            named = f"{order} keys, {kind}"
            figure = puts.figure(f"put, {named}", "us/row", sync="none")
            figures.append(figure.with_budget(PUT_US))
            # The rounds of the flush are of the same rows: both times add up.
            whole.wall = added(puts.wall, whole.wall)
            whole.cpu = added(puts.cpu, whole.cpu)
            whole.beside = added(puts.beside, whole.beside)
            figures.append(whole.figure(f"put until flushed, {named}", "us/row", sync="none"))
    return figures


def put_round(
    options: Options,
    keys: list[bytes],
    values: list[bytes],
    take_put: Callable[[Callable[[], int]], None],
    take_flush: Callable[[Callable[[], int]], None],
) -> None:
    """Fill a fresh database, then flush it."""
    with scratch(options) as folder, holdfast.open(folder) as database:
        take_put(lambda: fill(database, keys, values))

        def flush() -> int:
            database.flush()
            return len(keys)

        take_flush(flush)


def added(one: list[float], other: list[float]) -> list[float]:
    """Return the sums of rounds."""
    return [first + second for first, second in zip(one, other, strict=True)]


def get(options: Options) -> list[Figure]:
    """Lookups of present and absent keys, each round in a new random order, one call a key.

    The keys were put in random order, flushed, and background work has ended. The pool is warm.
    What lookups of 1,000 hot keys touch can stay in the processor's cache; they have the budget.
    10,000 keys lie in nearly every page of a million rows, so that each lookup waits for memory, as
    one of all keys does. `get_many` takes lists of 100 keys.
    """
    figures = []
    for kind in VALUE_KINDS:
        with scratch(options) as folder, holdfast.open(folder) as database:
            keys = sequential_keys(options.count)
            source = random.Random(options.seed)
            fill(database, source.sample(keys, len(keys)), values_of(kind, options.seed))
            settle(database)
            note = shape(database)
            hot = source.sample(keys, min(HOT_KEYS, len(keys)))
            taken = lookups(options, database, hot, source)
            figure = taken.figure(f"get, {HOT_KEYS:,} hot keys, {kind}", "us/key")
            figures.append(figure.with_budget(GET_US, note=note))
            spread = source.sample(keys, min(SPREAD_KEYS, len(keys)))
            what = f"{SPREAD_KEYS:,} keys of all pages"
            taken = lookups(options, database, spread, source)
            figures.append(taken.figure(f"get, {what}, {kind}", "us/key"))
            taken = lookups(options, database, keys, source)
            figures.append(taken.figure(f"get, all keys, {kind}", "us/key"))
            absent = [key[:-1] + b"x" for key in source.sample(keys, min(10_000, len(keys)))]
            taken = lookups(options, database, absent, source)
            figures.append(taken.figure(f"get, absent keys, {kind}", "us/key"))
            for named, pool in ((what, spread), ("all keys", keys)):
                lists = batches(source.choices(pool, k=options.reads))
                (taken,) = rounds_of(options.rounds, partial(get_lists, database, lists))
                figures.append(taken.figure(f"get_many, {named}, {kind}", "us/key"))
    return figures


def lookups(
    options: Options, database: Database, keys: list[bytes], source: random.Random
) -> Rounds:
    """Return the rounds of lookups of random ones of `keys`; a first round does not count."""
    wanted = source.choices(keys, k=options.reads)
    get_each(database, wanted)
    (taken,) = rounds_of(options.rounds, lambda: get_each(database, wanted))
    return taken


def get_each(database: Database, keys: list[bytes]) -> int:
    """Look up one key after another; return their number."""
    find = database.get
    for key in keys:
        find(key)
    return len(keys)


def batches(keys: list[bytes]) -> list[list[bytes]]:
    """Return the keys in lists of BATCH_KEYS."""
    return [keys[at : at + BATCH_KEYS] for at in range(0, len(keys), BATCH_KEYS)]


def get_lists(database: Database, lists: list[list[bytes]]) -> int:
    """Look up list after list; return the number of keys."""
    for keys in lists:
        database.get_many(keys)
    return sum(len(keys) for keys in lists)


def shape(database: Database) -> str:
    """Return how the tables lie."""
    (keyspace,) = database.stats().keyspaces
    tables = ", ".join(
        f"{level.tables} on level {level.level}" for level in keyspace.levels if level.tables
    )
    return f"tables: {tables or 'none'}"
