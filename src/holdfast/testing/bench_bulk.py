"""Much data: replay of a full log, and loads that are larger than memory."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

import holdfast
from holdfast.base import DatabaseSettings, KeyspaceSettings
from holdfast.engine import Database
from holdfast.env import Env, File, PosixEnv
from holdfast.testing.bench_measure import (
    MIB,
    MICROSECONDS,
    ROW_BYTES,
    Figure,
    Options,
    Rounds,
    fresh_python,
    peak_resident_bytes,
    resident_bytes,
    scratch,
    settle,
    values_of,
)
from holdfast.testing.bench_rows import get_each

REPLAY_SECONDS = 1.0
PIECE_LOOKUPS = 500
RESIDENT_MARGIN_BYTES = 64 * MIB
SECTOR_BYTES = 512
PIECE_ROWS = 10_000
SAMPLE_EVERY = 500

ROOMY = DatabaseSettings(
    memory_bytes=8 << 30,
    wal_bytes_max=8 << 30,
    keyspace=KeyspaceSettings(memtable_bytes=1 << 30),
)


class _UnsyncedFile:
    """A file whose records are not synced: a log of many commits is written in seconds."""

    def __init__(self, file: File) -> None:
        self._file = file

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def sync(self, *, site: str) -> None:
        if site != "wal.record.sync":
            self._file.sync(site=site)


class _UnsyncedEnv(PosixEnv):
    """The real machine, but for the syncs of records."""

    def create(self, path: str, *, site: str) -> File:
        return _UnsyncedFile(super().create(path, site=site))  # type: ignore[return-value]


def replay(options: Options) -> list[Figure]:
    """`holdfast.open` of a database whose process ended without a close, its log full.

    The log is written by another process, which leaves through `os._exit`: once in groups of many
    rows, once as one record for each row. Each round opens a fresh copy with the default settings.
    Opening replays the log and writes what it held into tables and a new log, synced; opening for
    reading only replays.
    """
    figures = []
    plain = options.to_plain()
    for what in LOGS:
        with scratch(options) as folder:
            program = (
                f"from {__name__} import leave_log; leave_log({what!r}, {folder!r}, {plain!r})"
            )
            written = int(fresh_python(["-c", program]))
            for mode, read_only in (("open", False), ("open for reading", True)):
                seconds = Rounds()
                for number in range(options.rounds):
                    copy = f"{folder}-copy-{number}"
                    copy_synced(folder, copy)
                    reopen(copy, read_only, written, seconds.take)
                    shutil.rmtree(copy)
                    copy_synced(folder, copy)
                    reopen(copy, read_only, written, seconds.take_beside)
                    shutil.rmtree(copy)
                figures.append(
                    Figure(
                        what=f"{mode}, {what}",
                        unit=f"s for {options.replay_bytes / MIB:g} MiB",
                        rounds=seconds.wall,
                        cpu=seconds.cpu,
                        beside=seconds.beside,
                        budget=None if read_only else REPLAY_SECONDS,
                        sync="-" if read_only else "commit",
                        note=f"{written:,} rows",
                    )
                )
    return figures


def _put_unsynced(database: Database, key: bytes, value: bytes) -> None:
    database.put(key, value, durability="none")


def _put_durable(database: Database, key: bytes, value: bytes) -> None:
    database[key] = value


LOGS: dict[str, tuple[Callable[[Database, bytes, bytes], None], Env | None]] = {
    "groups of many rows": (_put_unsynced, None),
    "one record a row": (_put_durable, _UnsyncedEnv()),
}
"""How the rows of a log are put, and on which machine."""


def leave_log(what: str, folder: str, options: dict[str, Any]) -> NoReturn:
    """Write a log of one kind, print the number of its rows, and end without a close."""
    leave(what, folder, Options(**options), None)


def leave(what: str, folder: str, options: Options, key: bytes | None) -> NoReturn:
    """Do so, encrypted with `key` if there is one."""
    put, env = LOGS[what]
    print(log_rows(options, folder, put, env, key), flush=True)
    os._exit(0)


def log_rows(
    options: Options,
    folder: str,
    put: Callable[[Database, bytes, bytes], None],
    env: Env | None,
    key: bytes | None = None,
) -> int:
    """Write rows until the log has the wanted size; return their number."""
    # Nothing is flushed meanwhile, so that all of it must be replayed.
    database = holdfast.open(folder, settings=ROOMY, env=env, key=key)
    source = random.Random(options.seed)
    values = itertools.cycle(values_of("incompressible", options.seed))
    rows = 0
    while database.stats().wal_bytes_written < options.replay_bytes:
        for _ in range(100):
            put(database, b"%016x" % source.getrandbits(64), next(values))
        rows += 100
    database.sync()
    return rows


def copy_synced(source: str, target: str) -> None:
    """Copy a folder, and wait until the copy is on disk, so that nobody else's sync must wait."""
    shutil.copytree(source, target)
    for name in os.listdir(target):
        descriptor = os.open(f"{target}/{name}", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def reopen(
    folder: str,
    read_only: bool,
    rows: int,
    take: Callable[[Callable[[], int]], object],
    key: bytes | None = None,
) -> None:
    """Take the time of one opening; check that every row is back."""
    opened: list[Database] = []

    def work() -> int:
        settings = None if read_only else DatabaseSettings()
        opened.append(holdfast.open(folder, read_only=read_only, settings=settings, key=key))
        return 1

    take(work)
    with opened[0] as database:
        if database.stats().last_seq != rows:
            raise RuntimeError(f"{database.stats().last_seq} of {rows} operations came back")


def load(options: Options) -> list[Figure]:
    """Rows with random keys, put without a sync until the wanted number of bytes is reached.

    Values are half-compressible, and rows are made between the timed pieces of 10,000. Memory is
    that of the whole process, the interpreter with it. Write amplification is bytes written for
    each byte of key and value, until background work has ended: as the engine counts them, as the
    kernel charges the process (whole folios of the page cache, however little of one changed, so it
    can be too much), and as the disk counts them (for all processes of the machine). The last two
    have the preallocation of the log in them. At the end one key in 500 is looked up, in random
    order, which fills the pool; then a quarter of all is put again, with such lookups in between,
    so that pool, memtables, flushes and compactions want memory at the same time.
    """
    source = random.Random(options.seed)
    return load_keys(options, lambda _: b"%016x" % source.getrandbits(64))


def series(options: Options) -> list[Figure]:
    """As `load`, with keys in time order."""
    return load_keys(options, lambda number: b"%016d" % number)


def load_keys(options: Options, key_of: Callable[[int], bytes]) -> list[Figure]:
    """Load rows and return rate, memory and amplification."""
    with scratch(options) as folder, holdfast.open(folder) as database:
        budget = DatabaseSettings().memory_bytes + RESIDENT_MARGIN_BYTES
        charged, disk = charged_bytes(), disk_bytes(folder)
        pieces = Rounds()
        resident, sample = [], []
        for keys, values in pieces_of(options, key_of):
            pieces.take(partial(put_all, database, keys, values))
            resident.append(resident_bytes() / MIB)
            sample += keys[::SAMPLE_EVERY]
        began = time.perf_counter()
        settle(database)
        settled = time.perf_counter() - began
        loaded_peak = peak_resident_bytes()
        lookups = Rounds()
        source = random.Random(options.seed)
        lookups.take(partial(get_each, database, source.sample(sample, len(sample))))
        stats = database.stats()
        user = stats.user_bytes_written
        amplified = amplifications(stats, charged_bytes() - charged, disk, disk_bytes(folder))
        filled_peak = peak_resident_bytes()
        load_and_look(database, options, key_of, sample)
    whole = sum(pieces.wall) / len(pieces.wall) * MICROSECONDS
    mean = Figure(
        what="put, mean of the load",
        unit="us/row",
        sync="none",
        rounds=[whole],
        cpu=[sum(pieces.cpu) / len(pieces.cpu) * MICROSECONDS],
        note=f"{user / 1e9:.2f} GB of keys and values, {stats.stall_seconds:.1f} s of it stalled",
    )
    return [
        pieces.figure("put, pieces of 10,000 rows", "us/row", sync="none"),
        mean,
        Figure(what="background work after the load", unit="s", rounds=[settled], sync="none"),
        Figure(what="resident memory", unit="MiB", sync="none", rounds=resident),
        Figure(
            what="resident memory, peak of the load",
            unit="MiB",
            sync="none",
            rounds=[loaded_peak / MIB],
            budget=budget / MIB,
            note=f"budget: memory_bytes + {RESIDENT_MARGIN_BYTES // MIB} MiB",
        ),
        lookups.figure("get, random keys of the load", "us/key").with_budget(
            None, note=f"{len(sample):,} lookups, from an empty pool on"
        ),
        Figure(
            what="resident memory, peak with these",
            unit="MiB",
            rounds=[filled_peak / MIB],
            budget=budget / MIB,
            note=(
                f"pages of {stats.pool_bytes / MIB:.0f} MiB in a pool of "
                f"{stats.pool_capacity_bytes / MIB:.0f}"
            ),
        ),
        Figure(
            what="resident memory, peak of both at once",
            unit="MiB",
            sync="none",
            rounds=[peak_resident_bytes() / MIB],
            budget=budget / MIB,
        ),
        *amplified,
    ]


def load_and_look(
    database: Database, options: Options, key_of: Callable[[int], bytes], sample: list[bytes]
) -> None:
    """Put a quarter of a load again, with lookups after each piece."""
    source = random.Random(options.seed)
    for keys, values in pieces_of(replace(options, load_bytes=options.load_bytes // 4), key_of):
        put_all(database, keys, values)
        get_each(database, source.sample(sample, min(len(sample), PIECE_LOOKUPS)))


def amplifications(
    stats: holdfast.Stats, charged: int, disk_before: int | None, disk_after: int | None
) -> list[Figure]:
    """Return by how much a load wrote and takes more than its rows have, as each layer counts."""
    user = stats.user_bytes_written
    written = {
        "engine, records and tables": [stats.write_amplification],
        "engine, all it gave to the disk": [stats.disk_write_amplification],
        "kernel, for this process": [charged / user],
        "disk, for all processes": [(disk_after - disk_before) / user]
        if disk_before is not None and disk_after is not None
        else [],
    }
    return [
        *[
            Figure(what=f"write amplification: {who}", unit="times", sync="none", rounds=values)
            for who, values in written.items()
            if values
        ],
        Figure(
            what="space amplification: tables / deepest level",
            unit="times",
            rounds=[stats.space_amplification],
        ),
    ]


def pieces_of(
    options: Options, key_of: Callable[[int], bytes]
) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Yield the rows of a load, piece by piece."""
    values = values_of("half-compressible", options.seed)
    count = max(options.load_bytes // ROW_BYTES, 1)
    for first in range(0, count, PIECE_ROWS):
        numbers = range(first, min(first + PIECE_ROWS, count))
        keys = [key_of(number) for number in numbers]
        yield keys, [values[number % len(values)] for number in numbers]


def put_all(database: Database, keys: list[bytes], values: list[bytes]) -> int:
    """Put rows without a sync; return their number."""
    put = database.put
    for key, value in zip(keys, values, strict=True):
        put(key, value, durability="none")
    return len(keys)


def charged_bytes() -> int:
    """Return what the kernel says that this process caused to be written."""
    with open("/proc/self/io", encoding="ascii") as file:
        fields = dict(line.split(": ") for line in file)
    return int(fields["write_bytes"])


def disk_bytes(folder: str) -> int | None:
    """Return what was written to the disk under a folder, by whomever; None where that is not
    counted.
    """
    device = os.stat(os.path.dirname(folder)).st_dev
    try:
        with open(
            f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat", encoding="ascii"
        ) as file:
            return int(file.read().split()[6]) * SECTOR_BYTES
    except FileNotFoundError:
        return None
