"""What readers that are held cost in space and memory while everything is overwritten."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import ExitStack

import holdfast
from holdfast.base import DatabaseSettings, KeyspaceSettings
from holdfast.engine import Database
from holdfast.testing.bench_measure import (
    MIB,
    Figure,
    Options,
    resident_bytes,
    scratch,
    sequential_keys,
    values_of,
)

SPACE_MULTIPLE = 2.2
"""One reader may cost what the data has, once more, with a little for what is not merged yet."""

HELD_MULTIPLE = 2
"""How often the data may be overwritten under a reader, where that is limited."""

KEYS_SHARE = 20
"""One of so many rows of the other workloads is a key here."""

_SETTINGS = DatabaseSettings(
    memory_bytes=16 * MIB,
    keyspace=KeyspaceSettings(memtable_bytes=MIB, table_bytes=MIB, level1_bytes=4 * MIB),
)

Hold = Callable[[Database, ExitStack], object]
"""Called before each pass: it may begin a reader, and leave its end to the stack."""


def held(options: Options) -> list[Figure]:
    """Every key overwritten at random, once in each of several passes: the bytes of the folder
    after it was compacted, in times of the keys and values, and the growth of resident memory since
    the first pass. Each pass is a round: a figure that grows from round to round has
    no bound.

    While nobody reads; under one snapshot that is held from the start; under one more with each
    pass, none of which is ever ended; and the same with `max_held_bytes`.
    """
    bytes_of_data = len(_keys(options)) * (16 + 100)
    limited = DatabaseSettings(
        memory_bytes=_SETTINGS.memory_bytes,
        keyspace=_SETTINGS.keyspace,
        max_held_bytes=HELD_MULTIPLE * bytes_of_data,
    )
    figures: list[Figure] = []
    for name, (space, memory) in {
        "nobody reads": _passes(options, _SETTINGS, lambda *_: None),
        "one reader from the start": _passes(options, _SETTINGS, _once()),
        "one more with each pass": _passes(options, _SETTINGS, _each_time),
        "the same, max_held_bytes twice the data": _passes(options, limited, _each_time),
    }.items():
        figure = Figure(what=f"folder / data, {name}", unit="times", rounds=space)
        if name.startswith("one reader"):
            figure = figure.with_budget(SPACE_MULTIPLE)
        elif name.startswith("the same"):
            figure = figure.with_budget(SPACE_MULTIPLE + HELD_MULTIPLE)
        figures.append(figure)
        figures.append(Figure(what=f"memory since the first pass, {name}", unit="MiB",
                              rounds=memory))  # fmt: skip
    return figures


def _keys(options: Options) -> list[bytes]:
    return sequential_keys(max(options.count // KEYS_SHARE, 1_000))


def _once() -> Hold:
    begun: list[object] = []

    def hold(database: Database, stack: ExitStack) -> None:
        if not begun:
            begun.append(stack.enter_context(database.snapshot()))

    return hold


def _each_time(database: Database, stack: ExitStack) -> None:
    stack.enter_context(database.snapshot())


def _passes(
    options: Options, settings: DatabaseSettings, hold: Hold
) -> tuple[list[float], list[float]]:
    """Return the space after each pass, and the growth of memory."""
    rng = random.Random(options.seed)
    keys, values = _keys(options), values_of("incompressible", options.seed)
    data = sum(map(len, keys)) + len(keys) * len(values[0])
    space: list[float] = []
    memory: list[float] = []
    with scratch(options) as path, holdfast.open(path, settings=settings) as database:
        database.put_many(zip(keys, rng.choices(values, k=len(keys)), strict=True))
        first: int | None = None
        with ExitStack() as stack:
            for _ in range(2 * options.rounds):
                hold(database, stack)
                for key in rng.sample(keys, len(keys)):
                    database.put(key, rng.choice(values), durability="none")
                database.compact()
                space.append(_tables_bytes(path) / data)
                first = resident_bytes() if first is None else first
                memory.append(max(resident_bytes() - first, 0) / MIB)
    return space, memory


def _tables_bytes(path: str) -> int:
    names = [name for name in os.listdir(path) if name.endswith(".table")]
    return sum(os.path.getsize(os.path.join(path, name)) for name in names)
