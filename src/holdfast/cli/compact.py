"""`holdfast compact DB`: brings keys to the last level, so that space comes back."""

from __future__ import annotations

import argparse
import json

from holdfast.cli.functions import add_functions
from holdfast.cli.opening import (
    add_database,
    add_form,
    add_keyspace,
    find_keyspace,
    key_argument,
    open_database,
)
from holdfast.cli.progress import Progress


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the verb takes."""
    add_database(parser)
    add_functions(parser)
    parser.add_argument("--start", metavar="KEY", help="the first key")
    parser.add_argument("--stop", metavar="KEY", help="the key before which compaction ends")
    add_keyspace(parser, "all of them; with --start or --stop the database's own")
    add_form(parser, "keys")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    start = key_argument(arguments.start, arguments.form)
    stop = key_argument(arguments.stop, arguments.form)
    with Progress("compacting", None) as progress, open_database(arguments) as database:

        def advance(size: int, total: int) -> None:
            progress.total = total
            progress.add(size)

        keyspace = find_keyspace(database, arguments.keyspace)
        if arguments.keyspace is not None and start is None:
            # Without any bounds the default keyspace stands for all.
            start = b""
        before = database.stats().table_bytes
        keyspace.compact(start, stop, progress=advance)
        after = database.stats().table_bytes
    if arguments.json:
        print(json.dumps({"table_bytes_before": before, "table_bytes_after": after}))
    else:
        print(f"tables: {before:,} bytes before, {after:,} bytes after")
    return 0
