"""`holdfast export DB`: writes a keyspace that `import` filled as CSV again, rows in key order."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator

import holdfast
from holdfast.cli.csv_table import COLUMNS_KEY, ROWS_START, Columns, RowCoder, format_row
from holdfast.cli.failure import CommandError
from holdfast.cli.functions import add_functions
from holdfast.cli.opening import (
    add_database,
    add_keyspace,
    no_keyspace,
    open_database,
    resolved,
    rows_of,
)
from holdfast.cli.progress import Progress
from holdfast.cli.text import shown
from holdfast.engine import SnapshotKeyspace
from holdfast.env import PosixEnv

_PIECE_BYTES = 1 << 18


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the verb takes."""
    add_database(parser)
    add_functions(parser)
    add_keyspace(parser, "the only one that was imported")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write here (default: standard output); a file that is there is replaced when the new "
        "one is complete",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    with (
        open_database(arguments, read_only=True) as database,
        database.snapshot() as view,
    ):
        name = arguments.keyspace or _only_table(database, view)
        if name not in database.keyspaces():
            raise no_keyspace(database.path, name, database.keyspaces())
        rows = view.keyspace(name)
        if COLUMNS_KEY not in rows:
            raise CommandError(f"keyspace {name!r} was not imported, so it is no CSV table")
        with _output(arguments.output) as write, Progress(f"exporting {name}", None) as progress:
            _export(name, rows, write, progress)
    return 0


def _only_table(database: holdfast.Database, view: holdfast.Snapshot) -> str:
    """Return the name of the one keyspace that was imported. Raises: CommandError."""
    names = [name for name in database.keyspaces() if COLUMNS_KEY in view.keyspace(name)]
    if len(names) == 1:
        return names[0]
    found = f"these are: {', '.join(names)}" if names else "none was"
    raise CommandError(f"give --keyspace, of a keyspace that was imported; {found}")


def _export(
    name: str,
    rows: SnapshotKeyspace,
    write: Callable[[bytes], int],
    progress: Progress,
) -> None:
    try:
        columns = Columns.decode(rows[COLUMNS_KEY])
    except ValueError as error:
        raise CommandError(f"keyspace {name!r}: {error}") from None
    coder = RowCoder(columns)
    lines = [format_row(columns.names)]
    size = 0
    for key, value in rows_of(rows, ROWS_START):
        try:
            line = format_row(coder.decode(key, value))
        except ValueError as error:
            raise CommandError(
                f"keyspace {name!r} has the key {shown(key)}, which no import wrote: {error}"
            ) from None
        lines.append(line)
        size += len(line)
        if size >= _PIECE_BYTES:
            progress.add(write(("\n".join(lines) + "\n").encode()), len(lines))
            lines, size = [], 0
    if lines:
        write(("\n".join(lines) + "\n").encode())


@contextlib.contextmanager
def _output(path: str | None) -> Iterator[Callable[[bytes], int]]:
    """Give a function that writes; a file appears under its name when it is complete."""
    if path is None:
        yield sys.stdout.buffer.write
        return
    env = PosixEnv()
    # A symbolic link stays, and what it leads to is replaced. So would a device be: it is refused.
    path = resolved(path)
    with contextlib.suppress(FileNotFoundError, PermissionError):
        env.open(path).close()
    partial = f"{path}.partial"
    with contextlib.suppress(FileNotFoundError):
        env.unlink(partial, site="export.partial.unlink")
    file = env.create(partial, site="export.partial.create")
    end = 0

    def write(data: bytes) -> int:
        nonlocal end
        file.write_at(end, data, site="export.write")
        end += len(data)
        return len(data)

    try:
        try:
            yield write
            file.sync(site="export.sync")
        finally:
            file.close()
        env.rename(partial, path, site="export.rename")
    except BaseException:
        env.unlink(partial, site="export.partial.unlink")
        raise
