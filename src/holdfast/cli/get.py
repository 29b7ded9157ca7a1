"""`holdfast get DB KEY`: prints one value; exit status 1 when the key is absent."""

from __future__ import annotations

import argparse
import sys

from holdfast.cli.failure import CommandError
from holdfast.cli.functions import add_functions
from holdfast.cli.opening import (
    add_database,
    add_form,
    add_keyspace,
    find_keyspace,
    key_argument,
    open_database,
)
from holdfast.cli.text import Form, show, shown


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the verb takes."""
    add_database(parser)
    add_functions(parser)
    parser.add_argument("key", metavar="KEY", help="the key")
    add_keyspace(parser, "the database's own")
    add_form(parser, "key and value")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    key = key_argument(arguments.key, arguments.form) or b""
    with open_database(arguments, read_only=True) as database:
        keyspace = find_keyspace(database, arguments.keyspace)
        try:
            value = keyspace[key]
        except KeyError:
            raise CommandError(f"there is no key {shown(key)}") from None
    # The raw form is for files and pipes: not a byte more than the value has.
    sys.stdout.buffer.write(show(value, arguments.form))
    if arguments.form is not Form.RAW:
        sys.stdout.buffer.write(b"\n")
    return 0
