"""`holdfast changes DB`: prints committed batches in order, an operation a line, out of the log.

With --follow it looks again and again: while another process has the database open it waits, since
only that one knows what is durable, and when that process has closed it, what came meanwhile is
printed. So it never stands in the way of who wants to open the database.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable

from holdfast import Change, DatabaseLockedError, Operation
from holdfast.cli.failure import wrong_usage
from holdfast.cli.keys import key_of
from holdfast.cli.opening import add_database, add_form, open_database
from holdfast.cli.text import Form, show, shown
from holdfast.crypto import KeySource
from holdfast.env import PosixEnv

INTERVAL_SECONDS_MAX = 86_400.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the verb takes."""
    add_database(parser)
    parser.add_argument(
        "--since",
        metavar="SEQ",
        type=int,
        default=0,
        help="the sequence number of the last change that is known (default: 0, none is)",
    )
    parser.add_argument("--follow", action="store_true", help="look for more until Ctrl-C")
    parser.add_argument(
        "--interval", metavar="SECONDS", type=float, default=1.0, help="between two looks (1)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a change")
    add_form(parser, "keys and values")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    if arguments.json and arguments.form is Form.RAW:
        raise wrong_usage("JSON cannot hold raw bytes; leave --raw or --json out")
    if not 0 < arguments.interval <= INTERVAL_SECONDS_MAX:
        raise wrong_usage(f"an interval is more than 0 and at most {INTERVAL_SECONDS_MAX:.0f}")
    env = PosixEnv()
    # A passphrase is asked for once.
    key = key_of(arguments)
    since: int = arguments.since
    seen: list[str] | None = None
    while True:
        names = sorted(env.list_dir(arguments.database)) if arguments.follow else None
        if names is None or names != seen:
            try:
                since = _print_since(arguments, key, since)
                seen = names
            except DatabaseLockedError:
                if not arguments.follow:
                    raise
        if not arguments.follow:
            return 0
        env.sleep(arguments.interval)


def _print_since(arguments: argparse.Namespace, key: KeySource | None, since: int) -> int:
    """Print the changes behind `since`; return the number of the last one."""
    form: Form = arguments.form
    with open_database(arguments, read_only=True, key=key) as database:
        try:
            changes = database.changes(since)
        except ValueError as error:
            raise wrong_usage(str(error)) from None
        for change in changes:
            lines = [_json(change, form)] if arguments.json else _lines(change, form)
            sys.stdout.buffer.writelines(lines)
            since = change.seq
    sys.stdout.buffer.flush()
    return since


def _json(change: Change, form: Form) -> bytes:
    operations = [_object(operation, form) for operation in change.operations]
    found = {"seq": change.seq, "operations": operations}
    return json.dumps(found, ensure_ascii=False).encode() + b"\n"


def _object(operation: Operation, form: Form) -> dict[str, str | None]:
    found = {
        "kind": operation.kind,
        "keyspace": operation.keyspace,
        "key": shown(operation.key, form),
    }
    if operation.value is not None:
        found["stop" if operation.kind == "delete_range" else "value"] = shown(
            operation.value, form
        )
    if operation.function is not None:
        found["function"] = operation.function
    return found


def _lines(change: Change, form: Form) -> Iterable[bytes]:
    for operation in change.operations:
        # The empty name is that of a keyspace which was dropped since.
        cells = [
            b"%d" % change.seq,
            operation.kind.encode(),
            show((operation.keyspace or "").encode(), Form.TEXT),
            show(operation.key, form),
        ]
        if operation.value is not None:
            cells.append(show(operation.value, form))
        if operation.function is not None:
            cells.append(operation.function.encode())
        yield b"\t".join(cells) + b"\n"
