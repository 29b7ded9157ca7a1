"""`holdfast scan DB`: prints keys and values in order, a row a line, as of one moment."""

from __future__ import annotations

import argparse
import json
import sys

from holdfast.cli.failure import wrong_usage
from holdfast.cli.functions import add_functions
from holdfast.cli.opening import (
    add_database,
    add_form,
    add_keyspace,
    find_keyspace,
    key_argument,
    open_database,
    rows_of,
)
from holdfast.cli.text import Form, show, shown


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the verb takes."""
    add_database(parser)
    add_functions(parser)
    parser.add_argument("--start", metavar="KEY", help="the first key")
    parser.add_argument("--stop", metavar="KEY", help="the key before which the scan ends")
    parser.add_argument("--prefix", metavar="KEY", help="only keys that begin with this")
    parser.add_argument("--reverse", action="store_true", help="from the last key to the first")
    parser.add_argument("--limit", metavar="ROWS", type=int, help="at most this many rows")
    parser.add_argument("--keys", action="store_true", help="print only the keys")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    add_keyspace(parser, "the database's own")
    add_form(parser, "keys and values")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    form: Form = arguments.form
    if arguments.json and form is Form.RAW:
        raise wrong_usage("JSON cannot hold raw bytes; leave --raw or --json out")
    if arguments.limit is not None and arguments.limit < 0:
        raise wrong_usage("a limit is 0 or more")
    bounds = [key_argument(arguments.start, form), key_argument(arguments.stop, form)]
    prefix = key_argument(arguments.prefix, form)
    out = sys.stdout.buffer
    with open_database(arguments, read_only=True) as database:
        rows = rows_of(
            find_keyspace(database, arguments.keyspace),
            *bounds,
            prefix=prefix,
            reverse=arguments.reverse,
            limit=arguments.limit,
        )
        for key, value in rows:
            if arguments.json:
                row = {"key": shown(key, form)}
                if not arguments.keys:
                    row["value"] = shown(value, form)
                out.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            elif arguments.keys:
                out.write(show(key, form) + b"\n")
            else:
                out.write(b"%b\t%b\n" % (show(key, form), show(value, form)))
    return 0
