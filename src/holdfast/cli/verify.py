"""`holdfast verify DB`: reads and checks every byte; exit status 1 when damage is found."""

from __future__ import annotations

import argparse
import json
from contextlib import suppress

from holdfast.cli.failure import FAILED
from holdfast.cli.keys import key_of
from holdfast.cli.opening import add_database
from holdfast.cli.progress import Progress
from holdfast.env import PosixEnv
from holdfast.recovery import Report, check_folder


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the verb takes."""
    add_database(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    with Progress("verifying", None) as progress:

        def advance(size: int, total: int) -> None:
            progress.total = total
            progress.add(size)

        report = check_folder(PosixEnv(), arguments.database, advance, source=key_of(arguments))
    # A reader that leaves takes the list with it, and not the status.
    with suppress(BrokenPipeError):
        if arguments.json:
            print(json.dumps(_plain(report)))
        else:
            for error in report.errors:
                print(error)
            print(report)
    return 0 if report.ok else FAILED


def _plain(report: Report) -> dict[str, object]:
    return {
        "ok": report.ok,
        "tables": report.tables,
        "table_bytes": report.table_bytes,
        "entries": report.entries,
        "segments": report.segments,
        "records": report.records,
        "edits": report.edits,
        "errors": [
            {"file": error.file, "offset": error.offset, "reason": error.reason}
            for error in report.errors
        ],
    }
