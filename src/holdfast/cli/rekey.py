"""`holdfast rekey DB`: changes the key of an encrypted database; with --rewrite all data moves to
new data keys, and the old ones are forgotten.
"""

from __future__ import annotations

import argparse
import json
from contextlib import suppress

from holdfast.cli.failure import wrong_usage
from holdfast.cli.keys import add_key, key_of
from holdfast.cli.opening import add_database, open_database
from holdfast.cli.progress import Progress


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the verb takes."""
    add_database(parser)
    add_key(parser, prefix="new-", what="the new key")
    parser.add_argument(
        "--rewrite",
        action="store_true",
        help="rewrite all tables that older data keys seal; alone, go on with a rewrite that was "
        "cut off",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object for each step, on one line"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    key = key_of(arguments)
    if key is None:
        raise wrong_usage("the key in force is missing: --key-file, --key-env or --passphrase")
    new = key_of(arguments, prefix="new-")
    if new is None and not arguments.rewrite:
        raise wrong_usage("the new key is missing: --new-key-file, --new-key-env, --new-passphrase")
    rewritten = 0
    with Progress("rewriting", None) as progress:

        def advance(size: int, total: int) -> None:
            nonlocal rewritten
            progress.total = total
            progress.add(size)
            rewritten += size

        with open_database(arguments, key=key) as database:
            if new is not None:
                database.rekey(new)
                # At once: whatever ends a rewrite, the old key does not open the database again.
                with suppress(BrokenPipeError):
                    said = "the new key is in force"
                    print(json.dumps({"event": "rekeyed"}) if arguments.json else said, flush=True)
            if arguments.rewrite:
                database.rekey(rewrite=True, progress=advance)
    if arguments.rewrite:
        # The log and the manifest are written anew by every open, which then drops the old keys.
        open_database(arguments, key=new or key).close()
    if arguments.rewrite:
        said = f"{rewritten:,} bytes of tables were rewritten"
        done = {"event": "rewritten", "bytes": rewritten}
        print(json.dumps(done) if arguments.json else said)
    return 0
