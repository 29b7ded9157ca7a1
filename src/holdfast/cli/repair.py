"""`holdfast repair DB [NEW_DIR]`: makes a database that opens out of one that is damaged.

Exit status: 0 when nothing was damaged and nothing was done, 3 when it was repaired without loss, 4
when something was lost, which is printed; 1 when it could not be repaired, 2 for wrong usage. That
what was mended has a status of its own is as in e2fsck.
"""

from __future__ import annotations

import argparse
import json
from contextlib import suppress

from holdfast.base import CorruptionError
from holdfast.cli.functions import add_functions, functions_of
from holdfast.cli.keys import key_of
from holdfast.cli.opening import add_database, check_apart
from holdfast.cli.progress import Progress
from holdfast.recovery import Loss, Outcome, RepairReport, repair_database

STATUS = {Outcome.HEALTHY: 0, Outcome.REPAIRED: 3, Outcome.REPAIRED_WITH_LOSS: 4}
"""Exit status by outcome."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the verb takes."""
    add_database(parser)
    add_functions(parser)
    parser.add_argument(
        "target",
        metavar="NEW_DIR",
        nargs="?",
        help="a new or empty folder for the repaired database; DB is not touched then (default: "
        "repair DB in place, and keep the originals in a folder damaged-N within it)",
    )
    parser.add_argument(
        "--keep-behind",
        action="store_true",
        help="also keep what the log has behind a damaged place. It may rest on commits that are "
        "missing there, so the result may be a state that never was (default: stop at the damage)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    if arguments.target is not None:
        check_apart(arguments.database, arguments.target)
    with Progress("checking", None) as progress:

        def advance(size: int, total: int) -> None:
            progress.total = total
            progress.add(size)

        report = repair_database(
            arguments.database,
            arguments.target,
            key=key_of(arguments),
            keep_behind=arguments.keep_behind,
            merges=functions_of(arguments),
            progress=advance,
        )
    # A reader that leaves takes the list with it, and not the status.
    with suppress(BrokenPipeError):
        print(json.dumps(_plain(report)) if arguments.json else report)
    return STATUS[report.outcome]


def _plain(report: RepairReport) -> dict[str, object]:
    return {
        "outcome": str(report.outcome),
        "folder": report.folder,
        "target": report.target,
        "set_aside": report.set_aside,
        "tables_kept": report.tables_kept,
        "tables_rebuilt": report.tables_rebuilt,
        "tables_lost": report.tables_lost,
        "entries_rebuilt": report.entries_rebuilt,
        "records": report.records,
        "operations": report.operations,
        "damage": [_place(error) for error in report.damage],
        "losses": [_loss(loss) for loss in report.losses],
        "notes": report.notes,
    }


def _place(error: CorruptionError) -> dict[str, object]:
    return {"file": error.file, "offset": error.offset, "reason": error.reason}


def _loss(loss: Loss) -> dict[str, object]:
    return {
        "kind": str(loss.kind),
        "file": loss.file,
        "offset": loss.offset,
        "keyspace": loss.keyspace,
        "lower": None if loss.lower is None else loss.lower.hex(),
        "upper": None if loss.upper is None else loss.upper.hex(),
        "count": loss.count,
        "reason": loss.reason,
    }
