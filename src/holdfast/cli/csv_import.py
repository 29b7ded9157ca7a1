"""`holdfast import DB FILE...`: loads CSV files, each into a keyspace (docs/format/csv.md).

Guarantees: rows are committed in batches, in the order of the file and each batch atomically, the
names of the columns with the first one. So whatever ends an import, the keyspace holds the first
batches of the file and nothing of the others, and importing the file again completes it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from array import array

import holdfast
from holdfast.base import KEY_BYTES_MAX
from holdfast.cli.csv_source import STANDARD_INPUT, CsvSource
from holdfast.cli.csv_table import COLUMNS_KEY, Columns, RowCoder, format_row
from holdfast.cli.failure import CommandError, describe, wrong_usage
from holdfast.cli.keys import key_of
from holdfast.cli.opening import (
    add_database,
    add_durability,
    add_keyspace,
    check_name,
    open_database,
)
from holdfast.cli.progress import Progress
from holdfast.codec import checksum

BATCH_BYTES_MAX = 16 << 20
"""A batch is committed early when its keys and values reach this, so that memory stays bounded."""

KEYS_COUNTED_MAX = 1 << 24
"""Distinct keys are counted in files of up to this many rows, at eight bytes a row."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the verb takes."""
    add_database(parser)
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="CSV in UTF-8, its first line naming the columns; - is standard input",
    )
    parser.add_argument(
        "--key", metavar="COLUMNS", required=True, help="the key: column names, separated by commas"
    )
    add_keyspace(parser, "the name of the file without its folder and suffix")
    parser.add_argument(
        "--batch",
        metavar="ROWS",
        type=int,
        default=1000,
        help="commit this many rows together (default: 1000)",
    )
    add_durability(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object for each commit and each file"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    names = _keyspaces(arguments.files, arguments.keyspace)
    if arguments.batch < 1:
        raise wrong_usage("a batch has at least one row")
    # Before the rows: both may come from standard input.
    key = key_of(arguments, creates=True)
    with CsvSource(arguments.files[0]) as first:
        # The database is created for a file that can be read and a key that it has.
        _columns(first, arguments.key)
        _report(arguments, {"event": "opening", "database": arguments.database})
        with open_database(arguments, create=True, key=key) as database:
            _Import(arguments, database, first, names[0]).run()
            for path, name in zip(arguments.files[1:], names[1:], strict=True):
                with CsvSource(path) as source:
                    _Import(arguments, database, source, name).run()
    return 0


def _keyspaces(files: list[str], keyspace: str | None) -> list[str]:
    """Return the keyspace of each file. Raises: CommandError for wrong usage."""
    if keyspace is not None:
        if len(files) > 1:
            raise wrong_usage("--keyspace is for one FILE; several go into one keyspace each")
        check_name(keyspace)
        return [keyspace]
    if STANDARD_INPUT in files:
        raise wrong_usage("standard input has no name; give --keyspace")
    for path in files:
        if path.startswith(("/dev/", "/proc/")):
            raise wrong_usage(f"{path} has no name of its own; give --keyspace")
    names = [os.path.splitext(os.path.basename(path))[0] for path in files]
    if len(set(names)) < len(names):
        raise wrong_usage("two FILEs have the same name, and with it the same keyspace")
    for name in names:
        check_name(name)
    return names


def _columns(source: CsvSource, key: str) -> Columns:
    """Return the columns of a file with this key. Raises: CommandError for wrong usage."""
    try:
        (names,) = csv.reader([key], strict=True)
        return Columns(source.header, tuple(names))
    except (ValueError, csv.Error) as error:
        raise wrong_usage(f"{source.name}: --key {key}: {error}") from None


def _report(arguments: argparse.Namespace, event: dict[str, object]) -> None:
    """Print an event for a program, at once: it may be the last thing that this process does."""
    if arguments.json:
        print(json.dumps(event), flush=True)


class _Import:
    """One file on its way into one keyspace."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        database: holdfast.Database,
        source: CsvSource,
        name: str,
    ) -> None:
        self._arguments = arguments
        self._database = database
        self._source = source
        self._name = name
        self._columns = _columns(source, arguments.key)
        self._keys = DistinctKeys()
        self._rows = 0
        self._committed = 0
        self._user_bytes = 0

    def run(self) -> None:
        """Import the file and say what was done. Raises: CommandError, which says what stays."""
        with Progress(f"importing {self._name}", self._source.size) as progress:
            try:
                self._import(progress)
            except (CommandError, holdfast.Error, OSError) as error:
                stays = f"{self._committed} rows were committed to {self._name!r} and stay"
                raise CommandError(f"{describe(error)}; {stays}") from error
            except KeyboardInterrupt:
                self._tell("interrupted", progress.seconds)
                raise
        self._tell("imported", progress.seconds)

    def _import(self, progress: Progress) -> None:
        keyspace = self._open_keyspace()
        source, batch_rows = self._source, self._arguments.batch
        coder = RowCoder(self._columns)
        batch = [(COLUMNS_KEY, self._columns.encode())]
        size = done = 0
        full = batch_rows + 1
        for row in source.rows():
            key, value = coder.encode(row)
            if len(key) > KEY_BYTES_MAX:
                raise source.wrong(f"the key has {len(key)} bytes; the limit is {KEY_BYTES_MAX}")
            self._keys.add(key)
            self._rows += 1
            size += len(key) + len(value)
            batch.append((key, value))
            if len(batch) == full or size >= BATCH_BYTES_MAX:
                self._commit(keyspace, batch, size)
                progress.add(source.bytes_read - done, self._rows - progress.rows)
                batch, size, done, full = [], 0, source.bytes_read, batch_rows
        if batch:
            self._commit(keyspace, batch, size)

    def _open_keyspace(self) -> holdfast.Keyspace:
        """Return the keyspace, which is empty or has the same columns. Raises: CommandError."""
        keyspace = self._database.keyspace(self._name)
        if COLUMNS_KEY in keyspace:
            try:
                columns = Columns.decode(keyspace[COLUMNS_KEY])
            except ValueError as error:
                raise CommandError(f"keyspace {self._name!r}: {error}") from None
            if columns != self._columns:
                raise CommandError(
                    f"keyspace {self._name!r} has the columns {format_row(columns.names)} and the "
                    f"key {format_row(columns.key)}; {self._source.name} has "
                    f"{format_row(self._columns.names)} and {format_row(self._columns.key)}"
                )
        elif next(keyspace.keys(limit=1), None) is not None:
            raise CommandError(
                f"keyspace {self._name!r} holds keys that no import wrote; give another --keyspace"
            )
        return keyspace

    def _commit(
        self, keyspace: holdfast.Keyspace, batch: list[tuple[bytes, bytes]], size: int
    ) -> None:
        keyspace.put_many(batch, durability=self._arguments.durability)
        self._committed = self._rows
        self._user_bytes += size
        _report(
            self._arguments,
            {"event": "committed", "keyspace": self._name, "rows": self._committed},
        )

    def _tell(self, event: str, seconds: float) -> None:
        """Say what was done."""
        durability = self._arguments.durability
        keys = self._keys.count() if self._rows == self._committed else None
        if self._arguments.json:
            summary = {
                "event": event,
                "keyspace": self._name,
                "rows": self._committed,
                "keys": keys,
                "bytes": self._user_bytes,
                "seconds": seconds,
                "durability": durability,
            }
            _report(self._arguments, summary)
            return
        distinct = "" if keys is None else f"{keys:,} distinct keys, "
        print(
            f"{self._name}: {event} {self._committed:,} rows, {distinct}{self._user_bytes:,} bytes "
            f"of keys and values in {seconds:.2f} s, durability {durability}",
            flush=True,
        )


class DistinctKeys:
    """Counts distinct keys by 64-bit digests, in 256 parts, so that counting one is cheap."""

    def __init__(self) -> None:
        self._parts = [array("Q") for _ in range(256)]
        self._added = 0

    def add(self, key: bytes) -> None:
        """Add a key; beyond KEYS_COUNTED_MAX nothing is kept."""
        self._added += 1
        if self._added <= KEYS_COUNTED_MAX:
            digest = checksum(key)
            self._parts[digest & 0xFF].append(digest)

    def count(self) -> int | None:
        """Return how many keys are distinct, None when there were too many to tell."""
        if self._added > KEYS_COUNTED_MAX:
            return None
        return sum(len(set(part)) for part in self._parts)
