"""`holdfast backup DB DIR`: copies a database to a new or empty folder."""

from __future__ import annotations

import argparse
import json

from holdfast.cli.opening import add_database, check_apart, open_database
from holdfast.cli.progress import Progress


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the verb takes."""
    add_database(parser)
    parser.add_argument("folder", metavar="DIR", help="the folder of the copy: a new or empty one")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    check_apart(arguments.database, arguments.folder)
    copied = 0
    with Progress("copying", None) as progress:

        def advance(size: int, total: int) -> None:
            nonlocal copied
            progress.total = total
            progress.add(size)
            copied += size

        with open_database(arguments) as database:
            database.backup(arguments.folder, progress=advance)
    if arguments.json:
        print(json.dumps({"folder": arguments.folder, "bytes": copied}))
    else:
        print(f"{copied:,} bytes were copied to {arguments.folder}")
    return 0
